//! Input that is small to send and large to hold, or too large to send: each is refused, in a process whose memory is
//! looked at afterwards.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, DictionaryArray, Int8Array, Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, RunArray,
};
use arrow::datatypes::{Int8Type, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    CommandStatementIngest, CommandStatementUpdate, ProstMessageExt, TableDefinitionOptions,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, Ticket};
use futures::stream::{self, TryStreamExt};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::support::process::Running;
use crate::support::team::Team;

/// Most resident memory of the server after all of it, in KiB: a debug build without work takes about 100 MiB.
const MOST_MEMORY: u64 = 900 << 10;

/// `TableNotExistOption` and `TableExistsOption` (FlightSql.proto).
const FAIL_IF_MISSING: i32 = 2;
const APPEND: i32 = 2;

/// A server in a process of its own.
struct Served {
    process: Running,
    channel: Channel,
    _team: Team,
}

impl Served {
    async fn start() -> Self {
        let team = Team::local();
        team.configure("[limits]\nmemory = \"256MiB\"\nquery_timeout = \"20s\"\n[logs]\nlevel = \"off\"\n");
        let mut command = crate::support::process::lakegate(team.path());
        command.args(["serve", "--no-loads", "--flight", "127.0.0.1:0", "--ready-file", "ready"]);
        let process = Running::start(command);
        let address = async {
            loop {
                match std::fs::read_to_string(team.file("ready")) {
                    Ok(address) => break address.trim().replace("grpc://", "http://"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let address = tokio::time::timeout(Duration::from_secs(60), address).await.expect("the server listens");
        let channel = Endpoint::new(address).unwrap().connect().await.unwrap();
        Self { process, channel, _team: team }
    }

    fn client(&self) -> FlightServiceClient<Channel> {
        FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The whole answer to a text.
    async fn ask(&self, sql: impl Into<bytes::Bytes>) -> Result<usize, Status> {
        let messages = self.client().do_get(Ticket::new(sql)).await?.into_inner();
        Ok(messages.try_collect::<Vec<_>>().await?.len())
    }

    /// What comes of binding the values of these messages to `select ?`.
    async fn bind(&self, messages: Vec<FlightData>) -> Result<(), Status> {
        self.bind_to("select ?", messages).await
    }

    /// The same, to another statement.
    async fn bind_to(&self, sql: &str, messages: Vec<FlightData>) -> Result<(), Status> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let answer: Vec<_> = self.client().do_action(action).await?.into_inner().try_collect().await?;
        let made: ActionCreatePreparedStatementResult =
            Any::decode(&*answer[0].body).unwrap().unpack().unwrap().unwrap();
        let command = CommandPreparedStatementQuery { prepared_statement_handle: made.prepared_statement_handle };
        self.put(&command, messages).await
    }

    /// What comes of sending a batch into a table.
    async fn ingest(&self, table: &str, batch: RecordBatch) -> Result<(), Status> {
        let options = TableDefinitionOptions { if_not_exist: FAIL_IF_MISSING, if_exists: APPEND };
        let (table, table_definition_options) = (table.to_owned(), Some(options));
        let command = CommandStatementIngest { table, table_definition_options, ..CommandStatementIngest::default() };
        self.put(&command, as_it_is(batch).await).await
    }

    /// Runs a statement that changes something.
    async fn change(&self, sql: &str) {
        let command = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
        self.put(&command, vec![FlightData::new()]).await.unwrap();
    }

    async fn put(&self, command: &impl ProstMessageExt, mut messages: Vec<FlightData>) -> Result<(), Status> {
        messages[0].flight_descriptor = Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()));
        let answers = self.client().do_put(stream::iter(messages)).await?.into_inner();
        answers.try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// The most memory it ever took, in KiB.
    fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Schema and rows of a column of equal numbers, 800 KB that take next to nothing when compressed.
async fn compressible() -> Vec<FlightData> {
    let column = Int64Array::from_iter_values(std::iter::repeat_n(7, 100_000));
    let batch = RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap();
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
    let batches = stream::iter([Ok(batch)]);
    FlightDataEncoderBuilder::new().with_options(options).build(batches).try_collect().await.unwrap()
}

/// Schema and rows of a batch, its dictionaries left as they are.
async fn as_it_is(batch: RecordBatch) -> Vec<FlightData> {
    let encoder = FlightDataEncoderBuilder::new().with_dictionary_handling(DictionaryHandling::Resend);
    let messages: Vec<_> = encoder.build(stream::iter([Ok(batch)])).try_collect().await.unwrap();
    assert!(messages.iter().all(|message| message.data_body.len() < 1 << 20), "small on the line");
    messages
}

/// A column of runs of numbers: each with where it ends.
fn runs(runs: &[(i64, i32)]) -> ArrayRef {
    let ends = Int32Array::from_iter_values(runs.iter().map(|(_, end)| *end));
    let values = Int64Array::from_iter_values(runs.iter().map(|(value, _)| *value));
    Arc::new(RunArray::<Int32Type>::try_new(&ends, &values).unwrap())
}

/// The column of equal numbers, claiming to hold so many bytes.
async fn bomb(claimed: i64) -> Vec<FlightData> {
    let mut messages = compressible().await;
    let header = messages[1].data_header.clone();
    let batch = arrow::ipc::root_as_message(&header).unwrap().header_as_record_batch().unwrap();
    let at = batch.buffers().unwrap().iter().find(|buffer| buffer.length() > 8).unwrap().offset() as usize;
    let mut body = messages[1].data_body.to_vec();
    body[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
    messages[1].data_body = body.into();
    messages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_or_claims_to_be_is_refused_and_memory_stays() {
    let served = Served::start().await;

    for claimed in [1 << 40, i64::MAX, 1 << 30] {
        let refused = served.bind(bomb(claimed).await).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    let lying = served.bind(bomb(1 << 20).await).await.unwrap_err();
    assert_eq!(lying.code(), Code::InvalidArgument, "{lying}");

    let mut oversize = compressible().await;
    oversize[1].data_body = vec![0; 65 << 20].into();
    let refused = served.bind(oversize).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument), "{refused}");

    let mut values = (1_000_000_000..1_000_100_000_i64).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    values = format!("select count(*) from (values (1)) t(a) where a in ({values})");
    assert!(values.len() > 1_000_000);
    served.ask(values).await.unwrap();

    let marks = format!("select 1 where 1 in ({})", vec!["?"; 100_000].join(","));
    let refused = served.ask(marks).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

    for nested in [
        format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("select {}1{}", "[".repeat(50_000), "]".repeat(50_000)),
        format!("select {}true", "not ".repeat(100_000)),
        format!("select 1{}", " + 1".repeat(100_000)),
        format!("select * from {}(select 1){}", "(select * from ".repeat(5_000), ")".repeat(5_000)),
        format!("select {}1 end", "case when true then ".repeat(20_000)),
    ] {
        let refused = served.ask(nested.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}…: {refused}", &nested[..40]);
    }

    assert!(served.ask("select 1").await.is_ok());
    let peak = served.peak_memory();
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}

/// The first row already has a value that does not fit, but in the last column: were the columns before it unpacked as a
/// whole, they would all be there by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_few_bytes_that_stand_for_gigabytes_are_never_there_at_once() {
    const ROWS: i32 = 8 << 20;
    let served = Served::start().await;
    let columns: Vec<String> = (0..30).map(|n| format!("c{n}")).collect();
    served.change(&format!("create table runs ({} bigint, bad int)", columns.join(" bigint, "))).await;
    served.change("create table words (word varchar, bad int)").await;

    let named = columns.iter().map(|name| (name.as_str(), runs(&[(7, ROWS)])));
    let bad = runs(&[(1 << 40, 1), (7, ROWS)]);
    let batch = RecordBatch::try_from_iter(named.chain([("bad", bad)])).unwrap();
    let refused = served.ingest("runs", batch).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("`bad`"), "{refused}");

    let keys = Int8Array::from(vec![0; 8_000]);
    let word = LargeStringArray::from(vec!["x".repeat(300_000)]);
    let words = DictionaryArray::<Int8Type>::try_new(keys, Arc::new(word)).unwrap();
    let bad = runs(&[(1 << 40, 1), (7, 8_000)]);
    let batch = RecordBatch::try_from_iter([("word", Arc::new(words) as ArrayRef), ("bad", bad)]).unwrap();
    let refused = served.ingest("words", batch).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("`bad`"), "{refused}");

    let nulls = RecordBatch::try_from_iter([("a", Arc::new(NullArray::new(64 << 20)) as ArrayRef)]).unwrap();
    let refused = served.bind_to("insert into words (bad) values (?)", as_it_is(nulls).await).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");

    let few = RecordBatch::try_from_iter([("bad", runs(&[(7, 1000)]))]).unwrap();
    served.ingest("words", few).await.unwrap();
    assert!(served.ask("select count(*) from words").await.is_ok());
    let peak = served.peak_memory();
    assert!(peak < MOST_MEMORY, "{peak} KiB");
}
