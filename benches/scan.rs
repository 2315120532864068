//! A full scan over Flight, uncompressed, against running the same plan in process and dropping the batches.
//!
//! Bar: at least 0.9 times the speed. Called by `benches/run.py` as
//! `cargo bench --bench scan -- --folder FOLDER --table SCHEMA.TABLE`, with a lake that is loaded already. Client and
//! server share the machine's cores, which is to the server's disadvantage: in an office the client has its own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightDescriptor, Ticket};
use futures::StreamExt;
use lakegate::config::Settings;
use lakegate::flight::ServiceParts;
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{LakeEngine, QueryEngine, Statement, StatementOptions, TablePins};
use lakegate::runtime::clock::{Clock, SystemClock};
use lakegate::runtime::shutdown::Shutdown;

/// Runs of each side, in turn; the medians count.
const RUNS: usize = 7;
/// No run takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let value_of = |name: &str| arguments.iter().position(|found| found == name).map(|at| arguments[at + 1].clone());
    let (Some(folder), Some(table)) = (value_of("--folder"), value_of("--table")) else {
        println!("scan: needs --folder FOLDER and --table SCHEMA.TABLE of a loaded lake");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(compare(Path::new(&folder), &format!("select * from {table}")));
}

async fn compare(folder: &Path, sql: &str) {
    let settings = Arc::new(lakegate::config::load(folder, None).map_err(|problems| problems.to_string()).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let engine = engine(&settings, &clock).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let parts = ServiceParts { engine: engine.clone(), settings, clock };
    let shutdown = Shutdown::default();
    let server = tokio::spawn(lakegate::flight::serve(listener, parts, shutdown.clone()));

    let (mut inside, mut over_flight) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        inside.push(in_process(engine.as_ref(), sql).await);
        over_flight.push(flight(&address, sql).await);
    }
    shutdown.request();
    server.await.unwrap().unwrap();
    report(&mut inside, &mut over_flight);
}

async fn engine(settings: &Arc<Settings>, clock: &Arc<dyn Clock>) -> Arc<LakeEngine> {
    let environment = lakegate::query::environment(&settings.limits).unwrap();
    let lake = Lake::open(&settings.lake, environment, clock.clone()).await.unwrap();
    let journal = Arc::new(Journal::open(&settings.lake, clock.clone()).unwrap());
    Arc::new(LakeEngine::new(settings.clone(), lake, journal, clock.clone()).unwrap())
}

/// One run: how long, how many rows or messages, how many bytes of them.
type Run = (Duration, u64, u64);

async fn in_process(engine: &dyn QueryEngine, sql: &str) -> Run {
    let started = Instant::now();
    let options = StatementOptions::default();
    let statement = Statement { sql: sql.to_owned(), parameters: Vec::new(), pins: TablePins::new(), options };
    let planned = engine.plan(statement).await.unwrap();
    let mut batches = engine.execute(&planned, PATIENCE).await.unwrap();
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        rows += batch.num_rows() as u64;
        bytes += batch.get_array_memory_size() as u64;
    }
    (started.elapsed(), rows, bytes)
}

async fn flight(address: &str, sql: &str) -> Run {
    let started = Instant::now();
    let channel = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap();
    let mut client = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let descriptor = FlightDescriptor::new_cmd(sql.as_bytes().to_vec());
    let info = client.get_flight_info(descriptor).await.unwrap().into_inner();
    let Ticket { ticket } = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).expect("an endpoint");
    let mut messages = client.do_get(Ticket { ticket }).await.unwrap().into_inner();
    let (mut count, mut bytes) = (0, 0);
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        count += 1;
        bytes += message.data_body.len() as u64;
    }
    (started.elapsed(), count, bytes)
}

fn report(inside: &mut [Run], over_flight: &mut [Run]) {
    inside.sort();
    over_flight.sort();
    let (inside, over_flight) = (inside[inside.len() / 2], over_flight[over_flight.len() / 2]);
    let rate = |run: Run| run.2 as f64 / run.0.as_secs_f64() / 1024.0 / 1024.0;
    println!("\n### A full scan over Flight, uncompressed, median of {RUNS} runs\n");
    println!("| rows | in process, s | over Flight, s | MiB/s over Flight | speed, times in process |");
    println!("| --- | --- | --- | --- | --- |");
    println!(
        "| {} | {:.2} | {:.2} | {:.0} | {:.2} |",
        inside.1,
        inside.0.as_secs_f64(),
        over_flight.0.as_secs_f64(),
        rate(over_flight),
        inside.0.as_secs_f64() / over_flight.0.as_secs_f64(),
    );
}
