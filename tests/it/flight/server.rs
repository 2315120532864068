//! A server on a free port, its clients, and what they read.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, Ticket};
use chrono::DateTime;
use futures::TryStreamExt;
use lakegate::config::{Settings, TicketSettings};
use lakegate::flight::{FlightError, ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::runtime::clock::ManualClock;
use lakegate::runtime::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::engine::MemoryEngine;

/// How servers of tests differ.
pub(crate) struct Options {
    /// The key of tickets: this byte, 32 times, in hex.
    pub(crate) key: &'static str,
    /// How long statements may run on after a request to stop.
    pub(crate) drain: Duration,
    /// Longest run of a statement.
    pub(crate) query_timeout: Duration,
    /// What else is set.
    pub(crate) change: fn(&mut Settings),
}

impl Default for Options {
    fn default() -> Self {
        Self { key: "01", drain: Duration::from_secs(30), query_timeout: Duration::from_secs(60), change: |_| {} }
    }
}

/// A running server.
pub(crate) struct TestServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it asks.
    pub(crate) engine: Arc<MemoryEngine>,
    /// Its time; tickets live for a minute of it.
    pub(crate) clock: ManualClock,
    /// Stops it.
    pub(crate) shutdown: Shutdown,
    /// What it notes.
    pub(crate) journal: Arc<Journal>,
    /// Where its lake would be.
    pub(crate) folder: TempDir,
    /// Ends when it has stopped.
    pub(crate) stopped: JoinHandle<Result<(), FlightError>>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (engine, shutdown) = (Arc::new(MemoryEngine::new()), Shutdown::new());
        let clock = ManualClock::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let settings = Arc::new(settings(&options, folder.path()));
        let journal = Arc::new(Journal::open(&settings.lake, Arc::new(clock.clone())).unwrap());
        let parts =
            ServiceParts { engine: engine.clone(), settings, journal: journal.clone(), clock: Arc::new(clock.clone()) };
        let stopped = tokio::spawn(serve(listener, parts, shutdown.clone()));
        Self { address, engine, clock, shutdown, journal, folder, stopped }
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::new(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// A Flight SQL client with a connection of its own.
    pub(crate) async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(self.channel().await)
    }

    /// A client of plain Flight.
    pub(crate) async fn plain_client(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }
}

/// Settings of a server for tests: the defaults, but for what tests look at.
pub(crate) fn settings(options: &Options, folder: &Path) -> Settings {
    let mut settings = lakegate::config::load(folder, None).unwrap();
    settings.limits.query_timeout = options.query_timeout;
    settings.serve.drain = options.drain;
    settings.tickets = TicketSettings { key: Some(options.key.repeat(32).into()), lifetime: Duration::from_secs(60) };
    (options.change)(&mut settings);
    settings
}

/// The ticket of a result's one endpoint, which has no location.
pub(crate) fn ticket(info: &FlightInfo) -> Ticket {
    let [endpoint] = info.endpoint.as_slice() else { panic!("not one endpoint: {info:?}") };
    assert!(endpoint.location.is_empty());
    endpoint.ticket.clone().unwrap()
}

/// The batches of a result, each with the schema that was announced.
pub(crate) async fn read(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Vec<RecordBatch> {
    let stream = client.do_get(ticket(&info)).await.unwrap();
    let announced = info.try_decode_schema().unwrap();
    collect(stream, &announced).await
}

/// The batches of a stream, which has to open with the schema that was announced.
pub(crate) async fn collect(
    mut stream: FlightRecordBatchStream,
    announced: &arrow::datatypes::Schema,
) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await.unwrap() {
        batches.push(batch);
    }
    assert_eq!(stream.schema().unwrap().as_ref(), announced);
    batches
}

/// The rows of a text, sent as such.
pub(crate) async fn query(server: &TestServer, sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let mut client = server.plain_client().await;
    let stream = client.do_get(Ticket::new(sql.to_owned())).await?.into_inner();
    let stream = FlightRecordBatchStream::new_from_flight_data(stream.map_err(Into::into));
    stream.try_collect().await.map_err(|error| match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    })
}

/// A result as text.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<String> {
    let table = arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}
