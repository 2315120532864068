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
use lakegate::access::{Access, Principal};
use lakegate::config::Settings;
use lakegate::flight::ServiceParts;
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{LakeEngine, QueryEngine, Statement, StatementOptions, TablePins};
use lakegate::runtime::clock::{Clock, SystemClock};
use lakegate::runtime::shutdown::Shutdown;
use tokio::runtime::{Builder, Runtime};

/// Runs of each side, in turn; the medians count.
const RUNS: usize = 7;
/// Least speed over Flight, times that in process.
const BAR: f64 = 0.9;
/// Bytes the client lets the server send ahead.
const WINDOW: u32 = 16 << 20;
/// Bytes of the frames the client takes.
const LARGEST_FRAME: u32 = 1 << 20;
/// Name of the client's threads.
const CLIENT: &str = "bench-client";
/// No run takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let value_of = |name: &str| arguments.iter().position(|found| found == name).map(|at| arguments[at + 1].clone());
    let (Some(folder), Some(table)) = (value_of("--folder"), value_of("--table")) else {
        println!("scan: needs --folder FOLDER and --table SCHEMA.TABLE of a loaded lake");
        return;
    };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(compare(Path::new(&folder), &format!("select * from {table}")));
}

async fn compare(folder: &Path, sql: &str) {
    let mut settings = lakegate::config::load(folder, None).map_err(|problems| problems.to_string()).unwrap();
    // What is measured is what runs.
    settings.spool.cache = 0;
    let settings = Arc::new(settings);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let journal = Arc::new(Journal::open(&settings.lake, Arc::clone(&clock)).unwrap());
    let engine = engine(&settings, &clock).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let parts = ServiceParts { engine: engine.clone(), settings, journal, clock };
    let shutdown = Shutdown::default();
    let server = tokio::spawn(lakegate::flight::serve(listener, parts, shutdown.clone()));

    let client = Builder::new_multi_thread().thread_name(CLIENT).worker_threads(2).enable_all().build().unwrap();
    let (mut inside, mut over_flight) = (Vec::new(), Vec::new());
    let mut cpu = [Cpu::default(); 2];
    for _ in 0..RUNS {
        let before = Cpu::now();
        inside.push(in_process(engine.as_ref(), sql).await);
        let between = Cpu::now();
        let (address, sql) = (address.clone(), sql.to_owned());
        over_flight.push(client.spawn(async move { flight(&address, &sql).await }).await.unwrap());
        cpu[0].add(before, between);
        cpu[1].add(between, Cpu::now());
    }
    client.shutdown_background();
    shutdown.request();
    server.await.unwrap().unwrap();
    report(&mut inside, &mut over_flight, cpu);
}

/// Seconds of processor time, of the client's threads and of all others.
#[derive(Clone, Copy, Default)]
struct Cpu {
    client: f64,
    server: f64,
}

impl Cpu {
    /// What this process has used so far, from `/proc` (proc(5), `stat`: fields 14 and 15, in ticks of 10 ms).
    fn now() -> Self {
        let mut used = Self::default();
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
            let Some((name, fields)) = stat.rsplit_once(')') else { continue };
            let ticks: f64 =
                fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
            let seconds = if name.ends_with(CLIENT) { &mut used.client } else { &mut used.server };
            *seconds += ticks / 100.0;
        }
        used
    }

    fn add(&mut self, from: Self, to: Self) {
        self.client += to.client - from.client;
        self.server += to.server - from.server;
    }
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
    let planned = engine.plan(statement, &Access::unrestricted(Principal::operator())).await.unwrap();
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
    let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
    // The windows of a client that means to receive much; with HTTP/2's own 64 KiB a line's delay is what counts.
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let channel = endpoint.max_frame_size(LARGEST_FRAME).connect().await.unwrap();
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

fn report(inside: &mut [Run], over_flight: &mut [Run], cpu: [Cpu; 2]) {
    inside.sort();
    over_flight.sort();
    let (inside, over_flight) = (inside[inside.len() / 2], over_flight[over_flight.len() / 2]);
    let rate = |run: Run| run.2 as f64 / run.0.as_secs_f64() / 1024.0 / 1024.0;
    println!("\n### A full scan over Flight, uncompressed, median of {RUNS} runs\n");
    println!(
        "| rows | in process, s | over Flight, s | MiB/s over Flight | speed, times in process \
         | CPU in process, s | CPU of the server, s | CPU of the client, s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    println!(
        "| {} | {:.2} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
        inside.1,
        inside.0.as_secs_f64(),
        over_flight.0.as_secs_f64(),
        rate(over_flight),
        inside.0.as_secs_f64() / over_flight.0.as_secs_f64(),
        cpu[0].server / RUNS as f64,
        cpu[1].server / RUNS as f64,
        cpu[1].client / RUNS as f64,
    );
    let speed = inside.0.as_secs_f64() / over_flight.0.as_secs_f64();
    println!("\nBar: ≥ {BAR} ×: {}.", if speed >= BAR { "met" } else { "missed" });
}
