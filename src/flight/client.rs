//! A Flight SQL client: what `lakegate query` asks a server with. Batch by batch, never a whole result.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError as WireError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, CancelFlightInfoRequest, FlightInfo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use prost::Message;
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{AsciiMetadataKey, KeyAndValueRef, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request};
use uuid::Uuid;

use crate::error::{Classify, ErrorKind};
use crate::flight::announcement::{Announcement, Held, plain_rows};
use crate::flight::described::{HAVE, IF_NONE_MATCH};
use crate::flight::download::RESUME;
use crate::flight::profile::DICTIONARIES;
use crate::flight::pull::{Arrival, Pull, Watcher};

/// How long a server may take to accept a connection: a person is waiting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing may come while something is asked for until the connection is looked at, and how long an answer to that may
/// take: on a line that is full it waits behind rows. Who is cut off in silence would wait for ever.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// What a server may send ahead on one call and on one connection: a long line stays full.
const WINDOW: u32 = 8 << 20;

/// What the client calls itself: the server sends rows compressed to programs of which it knows that they unpack them.
const USER_AGENT: &str = concat!("lakegate/", env!("CARGO_PKG_VERSION"));

/// Who asks, and whom to believe.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Who asks; nothing for servers without users.
    pub credentials: Option<ClientCredentials>,
    /// Authorities to believe, in PEM, in the place of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Certificate and private key of the client, in PEM.
    pub certificate: Option<(Vec<u8>, SecretString)>,
    /// Whether credentials may go to another machine in the clear.
    pub allow_plaintext: bool,
    /// Headers that go with every call, such as `lakegate-codec`.
    pub headers: Vec<(String, String)>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum ClientCredentials {
    /// User and password, exchanged for a token once.
    Password(String, SecretString),
    /// A token, sent with each call.
    Token(SecretString),
}

impl ClientOptions {
    fn tls(&self) -> ClientTlsConfig {
        let mut tls = match &self.authorities {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.certificate {
            tls = tls.identity(Identity::from_pem(certificate, key.expose_secret()));
        }
        tls
    }
}

/// Rows as they arrive.
pub type Batches = BoxStream<'static, Result<RecordBatch, ClientError>>;

/// A connection to a Flight SQL server.
#[derive(Debug)]
pub struct FlightClient {
    service: FlightSqlServiceClient<Channel>,
    /// Those of the options.
    headers: MetadataMap,
    watcher: Watcher,
    /// What is being read.
    running: Option<FlightInfo>,
}

/// Why a server did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("`{0}` is no address of a Flight SQL server; write grpc://HOST:PORT")]
    Address(String),
    /// Credentials would go over the network in the clear.
    #[error(
        "`{0}` is not encrypted, and a password or token sent there could be read on the way; use grpc+tls://HOST:PORT, \
         or say --allow-plaintext on a network you trust"
    )]
    Plaintext(String),
    /// The authority's certificate cannot be used.
    #[error("the certificate of the authority cannot be used: {0}")]
    Authority(tonic::transport::Error),
    /// The credentials cannot be sent.
    #[error("user, password or token hold letters that cannot be sent")]
    Credentials,
    /// A header cannot be sent.
    #[error("the header `{0}` cannot be sent: its name is of letters, digits and `-`, and its value of ASCII letters")]
    Header(String),
    /// Nobody answers.
    #[error(
        "no lakegate server answers at {address}; start one with `lakegate serve`, or name another with --server grpc://HOST:PORT"
    )]
    Unreachable {
        /// Where nobody answers.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// Nobody who is believed vouches for the server's certificate.
    #[error(
        "the server at {address} shows a certificate that is not believed; if it is the right one, name the authority \
         that vouches for it with --ca-file"
    )]
    Untrusted {
        /// Where the server is.
        address: String,
        /// What is wrong with the certificate.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server said no.
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
    /// What came is no Arrow data, or not what was announced.
    #[error("the server's answer cannot be read: {0}")]
    Answer(WireError),
    /// A parameter does not fit.
    #[error("{0}")]
    Parameter(String),
    /// Rows that are kept on this machine's disk cannot be read.
    #[error(
        "rows that are kept on this disk cannot be read: {0}; `lakegate cache clear` removes them, and --fresh asks for all rows \
         anew"
    )]
    Kept(ArrowError),
}

impl Classify for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_)
            | Self::Parameter(_)
            | Self::Plaintext(_)
            | Self::Authority(_)
            | Self::Credentials
            | Self::Header(_) => ErrorKind::InvalidInput,
            Self::Unreachable { .. } | Self::Untrusted { .. } => ErrorKind::Unavailable,
            Self::Status(status) => kind_of(status.code()),
            Self::Answer(_) | Self::Kept(_) => ErrorKind::DataLoss,
        }
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Tonic(status) => Self::Status(status),
            other => Self::Answer(other),
        }
    }
}

impl From<ArrowError> for ClientError {
    fn from(error: ArrowError) -> Self {
        Self::from(WireError::from(error))
    }
}

impl FlightClient {
    /// Connects to `grpc://host:port` or `grpc+tls://host:port`.
    ///
    /// # Errors
    /// When the address is none, nobody answers there, or credentials would go there in the clear or are not accepted.
    pub async fn connect(address: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let (authority, encrypted) = authority(address)?;
        let exposed = !encrypted && !options.allow_plaintext && !is_this_machine(authority);
        if options.credentials.is_some() && exposed {
            return Err(ClientError::Plaintext(address.to_owned()));
        }
        let unreachable = |source| match is_about_certificate(&source) {
            true => ClientError::Untrusted { address: address.to_owned(), source },
            false => ClientError::Unreachable { address: address.to_owned(), source },
        };
        let scheme = if encrypted { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
            .map_err(|_| ClientError::Address(address.to_owned()))?;
        if encrypted {
            endpoint = endpoint.tls_config(options.tls()).map_err(ClientError::Authority)?;
        }
        let endpoint = endpoint
            .user_agent(USER_AGENT)
            .map_err(unreachable)?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(unreachable)?;
        // A row may be long, and it is the server that cuts results into messages.
        let mut calls = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let token = match &options.credentials {
            None => None,
            Some(ClientCredentials::Token(token)) => Some(header_value(token.expose_secret())?),
            Some(ClientCredentials::Password(user, password)) => Some(log_in(&mut calls, user, password).await?),
        };
        let mut headers = MetadataMap::new();
        for (name, value) in &options.headers {
            let unsendable = || ClientError::Header(name.clone());
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| unsendable())?;
            headers.insert(key, MetadataValue::try_from(value.as_str()).map_err(|_| unsendable())?);
        }
        let service = service(calls, token, &headers, &Held::default());
        Ok(Self { service, headers, watcher: Watcher(Arc::new(|_| ())), running: None })
    }

    /// Tells `watcher` from now on what happens to results on their way.
    pub fn watch(&mut self, watcher: impl Fn(Arrival) + Send + Sync + 'static) {
        self.watcher = Watcher(Arc::new(watcher));
    }

    /// Asks a statement; the rows come while they are taken. When the connection is cut, the rest is asked for again, for some
    /// minutes; an error of the kind `Conflict` then says that only the whole can be had. Parameters are texts, one for each `?` or `$n`,
    /// and become what the statement expects there.
    ///
    /// # Errors
    /// When the server refuses the statement, or a parameter does not fit.
    pub async fn query(&mut self, sql: &str, parameters: &[String]) -> Result<(SchemaRef, Batches), ClientError> {
        let announced = self.ask(sql, parameters, &Held::default()).await?;
        Ok((Arc::clone(&announced.schema), self.fetch(announced)?))
    }

    /// Asks what the result of a statement is, and says what is here already.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(crate) async fn ask(
        &mut self,
        sql: &str,
        parameters: &[String],
        held: &Held,
    ) -> Result<Announcement, ClientError> {
        self.service = service(self.service.inner().clone(), self.service.token().cloned(), &self.headers, held);
        let info = if parameters.is_empty() {
            self.service.execute(sql.to_owned(), None).await?
        } else {
            let mut prepared = self.service.prepare(sql.to_owned(), None).await?;
            prepared.set_parameters(bind(prepared.parameter_schema()?, parameters)?)?;
            let info = prepared.execute().await?;
            // Only tidies up at the server, which forgets handles by itself.
            let _ = prepared.close().await;
            info
        };
        Ok(Announcement::read(info)?)
    }

    /// Stops a statement that runs on the server.
    ///
    /// # Errors
    /// When nothing runs under this id, or it is not the caller's to stop.
    pub async fn kill(&mut self, query_id: Uuid) -> Result<(), ClientError> {
        self.act(Action::new("KillQuery", query_id.to_string())).await
    }

    /// Stops what was asked last, so that the server does not keep it for somebody who comes back.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn cancel(&mut self) -> Result<(), ClientError> {
        let Some(info) = self.running.take() else { return Ok(()) };
        let body = CancelFlightInfoRequest::new(info).encode_to_vec();
        self.act(Action::new("CancelFlightInfo", body)).await
    }

    async fn act(&mut self, action: Action) -> Result<(), ClientError> {
        let mut request = Request::new(action);
        *request.metadata_mut() = self.all_headers()?;
        let answer = self.service.inner_mut().do_action(request).await.map_err(WireError::from)?.into_inner();
        answer.try_for_each(|_| std::future::ready(Ok(()))).await.map_err(|status| WireError::from(status).into())
    }

    /// The headers of a call, that of whoever asks among them.
    fn all_headers(&self) -> Result<MetadataMap, ClientError> {
        let mut headers = self.headers.clone();
        if let Some(token) = self.service.token() {
            let bearer = MetadataValue::try_from(format!("Bearer {token}"));
            headers.insert("authorization", bearer.map_err(|_| ClientError::Credentials)?);
        }
        Ok(headers)
    }

    /// The rows that were announced.
    ///
    /// # Errors
    /// When the credentials cannot be sent.
    pub(crate) fn fetch(&mut self, announced: Announcement) -> Result<Batches, ClientError> {
        let Announcement { schema, info, .. } = announced;
        (self.watcher.0)(Arrival::Begins(u64::try_from(info.total_bytes).ok()));
        self.running = Some(info.clone());
        let (calls, headers) = (self.service.inner().clone(), self.all_headers()?);
        let watcher = self.watcher.clone();
        let parts = stream::iter(info.endpoint).map(move |endpoint| {
            let ticket = endpoint.ticket.ok_or_else(|| WireError::protocol("an endpoint has no ticket"))?;
            let messages = Pull::new(calls.clone(), headers.clone(), ticket, watcher.clone()).messages();
            Ok::<_, ClientError>(FlightRecordBatchStream::new_from_flight_data(messages).map_err(ClientError::from))
        });
        let plain =
            move |batch: RecordBatch| std::future::ready(plain_rows(&batch, &schema).map_err(ClientError::from));
        Ok(parts.try_flatten().and_then(plain).boxed())
    }
}

/// The calls of whoever has the token, with what is said in each: what is here already, that results are planned so that they can
/// be gone on with, and that text may come as dictionaries, which take fewer bytes.
fn service(
    calls: FlightServiceClient<Channel>,
    token: Option<String>,
    headers: &MetadataMap,
    held: &Held,
) -> FlightSqlServiceClient<Channel> {
    let mut service = FlightSqlServiceClient::new_from_inner(calls);
    token.into_iter().for_each(|token| service.set_token(token));
    service.set_header(RESUME, "0");
    service.set_header(DICTIONARIES, "on");
    for header in headers.iter() {
        if let KeyAndValueRef::Ascii(name, value) = header
            && let Ok(value) = value.to_str()
        {
            service.set_header(name.as_str(), value);
        }
    }
    for (header, value) in [(IF_NONE_MATCH, &held.identity), (HAVE, &held.basis)] {
        value.iter().for_each(|value| service.set_header(header, value));
    }
    service
}

/// `host:port` of an address, and whether the connection is to be encrypted.
fn authority(address: &str) -> Result<(&str, bool), ClientError> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("grpc", address));
    let rest = rest.trim_end_matches('/');
    let wrong = || ClientError::Address(address.to_owned());
    let encrypted = match scheme {
        "grpc" | "grpc+tcp" | "http" => false,
        "grpc+tls" | "grpcs" | "https" => true,
        _ => return Err(wrong()),
    };
    // Credentials in an address would end up in histories and logs.
    if !rest.contains(':') || rest.contains(['/', '@']) {
        return Err(wrong());
    }
    Ok((rest, encrypted))
}

/// Whether what is sent to `host:port` stays on this machine.
fn is_this_machine(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether no connection was made because of the server's certificate.
fn is_about_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An error of input and output names the cause of what it wraps, not what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = wrapped.and_then(|wrapped| wrapped.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Exchanges user and password for a token.
async fn log_in(
    calls: &mut FlightServiceClient<Channel>,
    user: &str,
    password: &SecretString,
) -> Result<String, ClientError> {
    if user.contains(':') {
        return Err(ClientError::Credentials);
    }
    let basic = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut request = Request::new(stream::empty());
    let header = MetadataValue::try_from(format!("Basic {basic}")).map_err(|_| ClientError::Credentials)?;
    request.metadata_mut().insert("authorization", header);
    let answer = calls.handshake(request).await.map_err(|status| ClientError::Status(Box::new(status)))?;
    let header = answer.metadata().get("authorization").and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    token.map(str::to_owned).ok_or_else(|| WireError::protocol("no token came back from the login").into())
}

/// A text that can stand in a header.
fn header_value(text: &str) -> Result<String, ClientError> {
    let sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if sendable { Ok(text.to_owned()) } else { Err(ClientError::Credentials) }
}

/// One row of values in the types the statement expects.
fn bind(expected: &Schema, texts: &[String]) -> Result<RecordBatch, ClientError> {
    if expected.fields().len() != texts.len() {
        return Err(ClientError::Parameter(format!(
            "the statement has {} parameters, and {} values were given; write one --param for each",
            expected.fields().len(),
            texts.len()
        )));
    }
    let mut fields = Vec::with_capacity(texts.len());
    let mut values = Vec::with_capacity(texts.len());
    for (number, (field, text)) in expected.fields().iter().zip(texts).enumerate() {
        let value = value(field.data_type(), text).map_err(|error| {
            let wanted = field.data_type();
            ClientError::Parameter(format!("parameter {} cannot be made a {wanted}: {error}", number + 1))
        })?;
        fields.push(Field::new(field.name(), value.data_type().clone(), true));
        values.push(value);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), values)?)
}

/// A text as a value of a type; where the type is not known, as what it looks like.
fn value(data_type: &DataType, text: &str) -> Result<ArrayRef, ArrowError> {
    if *data_type != DataType::Null {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        return cast_with_options(&StringArray::from(vec![text]), data_type, &options);
    }
    Ok(if let Ok(number) = text.parse::<i64>() {
        Arc::new(Int64Array::from(vec![number]))
    } else if let Ok(number) = text.parse::<f64>() {
        Arc::new(Float64Array::from(vec![number]))
    } else if let Ok(truth) = text.parse::<bool>() {
        Arc::new(BooleanArray::from(vec![truth]))
    } else {
        Arc::new(StringArray::from(vec![text]))
    })
}

/// The kind a server's code stands for.
fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorKind::InvalidInput,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Aborted => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DataLoss => ErrorKind::DataLoss,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        assert_eq!(authority("grpc://127.0.0.1:8815").unwrap(), ("127.0.0.1:8815", false));
        assert_eq!(authority("grpc+tcp://[::1]:8815/").unwrap(), ("[::1]:8815", false));
        assert_eq!(authority("lake:8815").unwrap(), ("lake:8815", false));
        assert_eq!(authority("grpc+tls://lake:8815").unwrap(), ("lake:8815", true));
        for wrong in ["lake", "ftp://lake:1", "grpc://lake:1/x", "grpc://ann:pw@lake:1", ""] {
            assert!(matches!(authority(wrong), Err(ClientError::Address(_))), "{wrong}");
        }
    }

    #[tokio::test]
    async fn credentials_do_not_leave_the_machine_in_the_clear() {
        let options =
            ClientOptions { credentials: Some(ClientCredentials::Token("t".into())), ..ClientOptions::default() };
        let refused = FlightClient::connect("grpc://lake.example:8815", &options).await.unwrap_err();
        assert!(matches!(refused, ClientError::Plaintext(_)), "{refused}");
        for here in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
            assert!(is_this_machine(here), "{here}");
        }
        assert!(!is_this_machine("localhost.example:1"));
    }

    #[test]
    fn parameters_become_what_the_statement_expects() {
        let expected = Schema::new(vec![
            Field::new("$1", DataType::Date32, true),
            Field::new("$2", DataType::Null, true),
            Field::new("$3", DataType::Decimal128(10, 2), true),
        ]);
        let texts = ["2013-01-01", "7", "1.25"].map(str::to_owned);
        let bound = bind(&expected, &texts).unwrap();
        let types: Vec<_> = bound.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(types, [DataType::Date32, DataType::Int64, DataType::Decimal128(10, 2)]);
        let error = bind(&expected, &["x", "7", "1"].map(str::to_owned)).unwrap_err().to_string();
        assert!(error.contains("parameter 1") && error.contains("Date32"), "{error}");
        let error = bind(&expected, &texts[..1]).unwrap_err().to_string();
        assert!(error.contains("3 parameters") && error.contains("1 values"), "{error}");
    }
}
