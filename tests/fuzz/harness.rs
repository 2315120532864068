//! A server in this process, and calls to it with bytes of nobody's making. Used by the fuzz targets beside this file
//! and by the short run among the integration tests.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightData, FlightDescriptor, FlightInfo, Ticket};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use lakegate::config;
use lakegate::flight::{ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{LakeEngine, environment};
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long one call may take. Statements are cut after two seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages of an answer that are read before the client goes away.
const MOST_MESSAGES: usize = 50;

/// Which call carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// GetFlightInfo and GetSchema: the descriptor's command.
    Command,
    /// DoGet: the ticket.
    Ticket,
    /// DoAction: the type, a byte 0, the body.
    Action,
    /// DoPut of values for a prepared statement: messages, each after its length.
    Parameters,
    /// DoPut of rows for a table: messages, each after its length.
    Ingest,
    /// The header `authorization` of a handshake and of a statement.
    Authorization,
    /// The text of a statement.
    Sql,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Command, Self::Ticket, Self::Action, Self::Parameters, Self::Ingest, Self::Authorization, Self::Sql];
}

/// The server, with a connection to it.
pub struct Server {
    runtime: Runtime,
    channel: Channel,
    handle: bytes::Bytes,
    info: FlightInfo,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server over an empty lake, with little memory and short time-outs.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake");
        let text = format!(
            "[lake]\nlocation = '{}'\n[limits]\nmemory = \"192MiB\"\nquery_timeout = \"2s\"\n[logs]\nlevel = \"off\"\n",
            lake.display()
        );
        std::fs::write(folder.path().join("lakegate.toml"), text).unwrap();
        let address = runtime.block_on(async {
            let mut settings = config::load(folder.path(), None).unwrap();
            settings.tickets.key = Some("01".repeat(32).into());
            let (settings, clock) = (Arc::new(settings), Arc::new(SystemClock));
            let memory = environment(&settings.limits).unwrap();
            let lake = Lake::open(&settings.lake, memory, clock.clone()).await.unwrap();
            let journal = Arc::new(Journal::open(&settings.lake, clock.clone()).unwrap());
            let engine = Arc::new(LakeEngine::new(settings.clone(), lake, journal.clone(), clock.clone()).unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(serve(listener, ServiceParts { engine, settings, journal, clock }, Shutdown::new()));
            address
        });
        let (channel, handle, info) = runtime.block_on(async {
            let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
            let mut client = FlightServiceClient::new(channel.clone());
            let request =
                ActionCreatePreparedStatementRequest { query: "select ?, ?, ?".to_owned(), transaction_id: None };
            let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
            let answer: Vec<_> = client.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
            let made: ActionCreatePreparedStatementResult =
                Any::decode(&*answer[0].body).unwrap().unpack().unwrap().unwrap();
            let info = client.get_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap().into_inner();
            (channel, made.prepared_statement_handle, info)
        });
        Self { runtime, channel, handle, info, _folder: folder }
    }

    /// Makes one call.
    ///
    /// # Panics
    /// When the answer is none that helps a client (`INTERNAL`, `UNKNOWN`, a cut connection), when it does not come, or
    /// when the server answers nobody else afterwards.
    pub fn serves(&self, call: Call, bytes: &[u8]) {
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(PATIENCE, self.call(call, bytes)).await;
            match answer.unwrap_or_else(|_| panic!("{call:?} hangs: {bytes:?}")) {
                Err(status) if matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss) => {
                    panic!("{call:?} {bytes:?}: {status:?}")
                }
                _ => {}
            }
            let other = tokio::time::timeout(PATIENCE, self.get(Ticket::new("select 1"))).await;
            other.unwrap_or_else(|_| panic!("nobody is served after {call:?} {bytes:?}")).unwrap_or_else(|status| {
                panic!("`select 1` fails after {call:?} {bytes:?}: {status:?}");
            });
        });
    }

    /// Bytes that mean something, to begin with.
    pub fn seeds(&self, call: Call) -> Vec<Vec<u8>> {
        match call {
            Call::Command => self.commands(),
            Call::Ticket => {
                let sealed = self.info.endpoint[0].ticket.clone().unwrap().ticket.to_vec();
                let forged = TicketStatementQuery { statement_handle: vec![1; 90].into() };
                [sealed, forged.as_any().encode_to_vec()].into_iter().chain(self.commands()).collect()
            }
            Call::Action => self.actions(),
            Call::Parameters | Call::Ingest => self.runtime.block_on(rows()),
            Call::Authorization => {
                [&b"Basic dTpwdw=="[..], b"Basic dTpwdw", b"Bearer None", b"Bearer abc.def.ghi", b"Token x"]
                    .map(<[u8]>::to_vec)
                    .into()
            }
            Call::Sql => STATEMENTS.iter().map(|text| text.as_bytes().to_vec()).collect(),
        }
    }

    async fn call(&self, call: Call, bytes: &[u8]) -> Result<(), Status> {
        let mut client = FlightServiceClient::new(self.channel.clone());
        match call {
            Call::Command => {
                let descriptor = FlightDescriptor::new_cmd(bytes.to_vec());
                let schema = client.get_schema(descriptor.clone()).await;
                client.get_flight_info(descriptor).await?;
                schema.map(|_| ())
            }
            Call::Ticket => self.get(Ticket::new(bytes.to_vec())).await,
            Call::Action => {
                let (name, body) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                let body = body.get(1..).unwrap_or_default().to_vec();
                let action = Action::new(String::from_utf8_lossy(name).into_owned(), body);
                client.do_action(action).await?.into_inner().try_for_each(|_| std::future::ready(Ok(()))).await
            }
            Call::Parameters => {
                let command = CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone() };
                self.put(command.as_any(), bytes).await?;
                self.get(Ticket::new(command.as_any().encode_to_vec())).await
            }
            Call::Ingest => {
                let command = CommandStatementIngest {
                    table: "fuzzed".to_owned(),
                    schema: Some("results".to_owned()),
                    ..CommandStatementIngest::default()
                };
                self.put(command.as_any(), bytes).await
            }
            Call::Authorization => {
                let Ok(header) = tonic::metadata::MetadataValue::try_from(bytes) else { return Ok(()) };
                let mut hello = Request::new(stream::empty());
                hello.metadata_mut().insert("authorization", header.clone());
                let answer = client.handshake(hello).await.map(|_| ());
                let mut asked = Request::new(FlightDescriptor::new_cmd("select 1"));
                asked.metadata_mut().insert("authorization", header);
                client.get_flight_info(asked).await?;
                answer
            }
            Call::Sql => {
                let Ok(query) = String::from_utf8(bytes.to_vec()) else { return Ok(()) };
                let command = CommandStatementQuery { query, transaction_id: None }.as_any().encode_to_vec();
                let info = client.get_flight_info(FlightDescriptor::new_cmd(command)).await?.into_inner();
                self.get(info.endpoint[0].ticket.clone().unwrap()).await
            }
        }
    }

    async fn get(&self, ticket: Ticket) -> Result<(), Status> {
        let mut client = FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let messages = client.do_get(ticket).await?.into_inner();
        messages.take(MOST_MESSAGES).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    async fn put(&self, command: Any, bytes: &[u8]) -> Result<(), Status> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while let Ok(message) = FlightData::decode_length_delimited(&mut rest) {
            messages.push(message);
            if rest.is_empty() {
                break;
            }
        }
        if messages.is_empty() {
            messages.push(FlightData::default());
        }
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command.encode_to_vec()));
        let mut client = FlightServiceClient::new(self.channel.clone());
        let answers = client.do_put(stream::iter(messages)).await?.into_inner();
        answers.try_for_each(|_| std::future::ready(Ok(()))).await
    }

    fn commands(&self) -> Vec<Vec<u8>> {
        let text = |text: &str| Some(text.to_owned());
        vec![
            CommandStatementQuery { query: "select 1".to_owned(), transaction_id: None }.as_any().encode_to_vec(),
            CommandStatementUpdate { query: "delete from results.t".to_owned(), transaction_id: None }
                .as_any()
                .encode_to_vec(),
            CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone() }.as_any().encode_to_vec(),
            CommandGetCatalogs {}.as_any().encode_to_vec(),
            CommandGetDbSchemas { catalog: text("lakegate"), db_schema_filter_pattern: text("s%") }
                .as_any()
                .encode_to_vec(),
            CommandGetTables {
                catalog: None,
                db_schema_filter_pattern: text("sys_em"),
                table_name_filter_pattern: text("%"),
                table_types: vec!["TABLE".to_owned()],
                include_schema: true,
            }
            .as_any()
            .encode_to_vec(),
            CommandGetTableTypes {}.as_any().encode_to_vec(),
            CommandGetSqlInfo { info: vec![0, 1, 8, 504] }.as_any().encode_to_vec(),
            CommandGetXdbcTypeInfo { data_type: Some(4) }.as_any().encode_to_vec(),
            CommandGetPrimaryKeys { catalog: None, db_schema: text("system"), table: "loads".to_owned() }
                .as_any()
                .encode_to_vec(),
            CommandGetExportedKeys { catalog: None, db_schema: None, table: "t".to_owned() }.as_any().encode_to_vec(),
            CommandGetImportedKeys { catalog: None, db_schema: None, table: "t".to_owned() }.as_any().encode_to_vec(),
            CommandGetCrossReference::default().as_any().encode_to_vec(),
            b"select * from system.tables".to_vec(),
        ]
    }

    fn actions(&self) -> Vec<Vec<u8>> {
        let action = |name: &str, body: Vec<u8>| [name.as_bytes(), &[0], &body].concat();
        let create = ActionCreatePreparedStatementRequest { query: "select ?".to_owned(), transaction_id: None };
        let close = ActionClosePreparedStatementRequest { prepared_statement_handle: self.handle.clone() };
        let cancel = CancelFlightInfoRequest::new(self.info.clone()).encode_to_vec();
        vec![
            action("CreatePreparedStatement", create.as_any().encode_to_vec()),
            action("ClosePreparedStatement", close.as_any().encode_to_vec()),
            action("CancelFlightInfo", cancel),
            action("SetSessionOptions", b"\n\x15\n\x07catalog\x12\n\n\x08lakegate".to_vec()),
            action("GetSessionOptions", Vec::new()),
            action("BeginTransaction", Vec::new()),
        ]
    }
}

/// Streams of rows, plain and compressed: each message after its length.
async fn rows() -> Vec<Vec<u8>> {
    let batch = RecordBatch::try_from_iter([
        ("0", Arc::new(Int64Array::from(vec![Some(1)])) as _),
        ("1", Arc::new(Float64Array::from(vec![None])) as _),
        ("2", Arc::new(StringArray::from(vec![Some("a text that repeats a text that repeats")])) as _),
    ])
    .unwrap();
    let mut streams = Vec::new();
    for codec in [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)] {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let batches: BoxStream<'static, _> = stream::iter([Ok(batch.clone())]).boxed();
        let messages = FlightDataEncoderBuilder::new().with_options(options).build(batches);
        let messages: Vec<FlightData> = messages.try_collect().await.unwrap();
        streams.push(messages.iter().flat_map(Message::encode_length_delimited_to_vec).collect());
    }
    streams
}

/// Statements that walk through much of the dialect.
const STATEMENTS: &[&str] = &[
    "select 1",
    "select a, sum(b) over (partition by a order by b) from (values (1, 2.5), (3, 4e2)) t(a, b) where a in (1, 3)",
    "with recursive n as (select 1 as i union all select i + 1 from n where i < 9) select * from n limit 5",
    "select cast('2020-01-01' as date) + interval '1 day', timestamp '2020-01-01T00:00:00Z', now()",
    "select * from system.tables version as of 3",
    "select [1, 2, 3][1], {a: 1}['a'], map(['k'], [1]), unnest([1, 2])",
    "explain analyze select count(*) from information_schema.tables where table_name like 'l%'",
    "select case when 1 > 0 then 'x' else null end || 'y', coalesce(null, 1), nullif(1, 1)",
    "select a from generate_series(1, 3) as s(a) order by a desc nulls last limit 2 offset 1",
    "insert into results.t values (1, 'a')",
    "create table results.t as select 1 as a",
    "from system.loads |> where rows_read > 1 |> select table_name",
    "show columns from system.loads",
    "select 9223372036854775807 + 1, -0.0, 1e400, 'a' < 1, ?",
];
