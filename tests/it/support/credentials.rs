//! How clients show who they are, over whatever connection.

use arrow_flight::HandshakeRequest;
use arrow_flight::flight_service_client::FlightServiceClient;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lakegate::access::NewToken;
use secrecy::ExposeSecret;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// The token of a session that a handshake with this header begins.
pub(crate) async fn log_in(client: &mut FlightServiceClient<Channel>, header: &str) -> Result<String, Status> {
    let request = with_header(futures::stream::empty::<HandshakeRequest>(), Some(header));
    bearer(&client.handshake(request).await?)
}

/// A call's message with a header `authorization`.
pub(crate) fn with_header<T>(message: T, header: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    request
}

/// The token in an answer's header.
pub(crate) fn bearer<T>(response: &Response<T>) -> Result<String, Status> {
    let header = response.metadata().get("authorization").unwrap().to_str().unwrap();
    Ok(header.strip_prefix("Bearer ").unwrap().to_owned())
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

pub(crate) fn token_header(token: &NewToken) -> String {
    format!("Bearer {}", token.text.expose_secret())
}
