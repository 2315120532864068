//! Small statements against a running server of Flight SQL: how many a second, and what one costs beside running its
//! plan in process. `serving.py` calls it; see there for the bars.
//!
//! `rate --url URL --sql SQL --connections N --seconds S` prepares the statement once on each of N connections, executes it
//! over and over, and prints how many were answered a second.
//! `cost --folder FOLDER --sql SQL` serves a lake from this process, and prints microseconds: a prepared execution over
//! Flight, the same plan in process, and a bare call on the same connection.
//! `walk --url URL --times N` lists all tables with their columns, and prints microseconds a table.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::Empty;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use futures::TryStreamExt;
use lakegate::access::{Access, Principal};
use lakegate::flight::ServiceParts;
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{LakeEngine, QueryEngine, Statement, StatementOptions, TablePins, environment};
use lakegate::runtime::clock::{Clock, SystemClock};
use lakegate::runtime::shutdown::Shutdown;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

/// Executions before anything is measured.
const WARM: usize = 200;
/// Executions of which the median is taken.
const RUNS: usize = 2_000;

type Client = FlightSqlServiceClient<Channel>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned()
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    match arguments.first().map(String::as_str) {
        Some("rate") => {
            let (url, sql) = (value("--url").unwrap(), value("--sql").unwrap());
            let (connections, seconds) = (number("--connections").unwrap_or(1), number("--seconds").unwrap_or(5));
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            println!("{:.0}", runtime.block_on(rate(&url, &sql, connections, Duration::from_secs(seconds))));
        }
        Some("cost") => {
            let (folder, sql) = (value("--folder").unwrap(), value("--sql").unwrap());
            Runtime::new().unwrap().block_on(cost(Path::new(&folder), &sql));
        }
        Some("walk") => {
            let (url, times) = (value("--url").unwrap(), number("--times").unwrap_or(5));
            Runtime::new().unwrap().block_on(walk(&url, times));
        }
        _ => println!("serving: needs rate, cost or walk; see benches/serving.py"),
    }
}

async fn connect(url: &str) -> Client {
    let channel = Endpoint::new(url.to_owned()).unwrap().tcp_nodelay(true).connect().await.unwrap();
    FlightSqlServiceClient::new(channel)
}

/// Executes a prepared statement and reads all of it.
async fn execute(client: &mut Client, prepared: &mut PreparedStatement<Channel>) -> usize {
    let info = prepared.execute().await.unwrap();
    let mut rows = 0;
    for endpoint in info.endpoint {
        let batches: Vec<_> = client.do_get(endpoint.ticket.unwrap()).await.unwrap().try_collect().await.unwrap();
        rows += batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
    }
    rows
}

async fn rate(url: &str, sql: &str, connections: u64, time: Duration) -> f64 {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (url, sql, done, stop) = (url.to_owned(), sql.to_owned(), done.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut client = connect(&url).await;
            let mut prepared = client.prepare(sql, None).await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                assert!(execute(&mut client, &mut prepared).await > 0, "no rows");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let (after, seconds) = (done.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
    let rate = (after - before) as f64 / seconds;
    rate
}

async fn cost(folder: &Path, sql: &str) {
    let mut settings = lakegate::config::load(folder, None).map_err(|problems| problems.to_string()).unwrap();
    // What is measured is what runs.
    settings.spool.cache = 0;
    let settings = Arc::new(settings);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lake = Lake::open(&settings.lake, environment(&settings.limits).unwrap(), Arc::clone(&clock)).await.unwrap();
    let journal = Arc::new(Journal::open(&settings.lake, Arc::clone(&clock)).unwrap());
    let engine = LakeEngine::new(Arc::clone(&settings), lake, Arc::clone(&journal), Arc::clone(&clock)).unwrap();
    let engine: Arc<dyn QueryEngine> = Arc::new(engine);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let parts = ServiceParts { engine: engine.clone(), settings, journal, clock };
    tokio::spawn(lakegate::flight::serve(listener, parts, Shutdown::default()));

    let mut client = connect(&url).await;
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let access = Access::unrestricted(Principal::operator());
    let statement = Statement {
        sql: sql.to_owned(),
        parameters: vec![],
        pins: TablePins::new(),
        options: StatementOptions::default(),
    };
    let (mut over_flight, mut inside, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..WARM + RUNS {
        let begun = Instant::now();
        assert_eq!(execute(&mut client, &mut prepared).await, 1, "one row");
        let flown = begun.elapsed();
        let begun = Instant::now();
        let planned = engine.plan(statement.clone(), &access).await.unwrap();
        let rows = engine.execute(&planned, Duration::from_secs(60)).await.unwrap();
        rows.try_collect::<Vec<_>>().await.unwrap();
        let computed = begun.elapsed();
        let begun = Instant::now();
        let actions = client.inner_mut().list_actions(Empty {}).await.unwrap().into_inner();
        actions.try_collect::<Vec<_>>().await.unwrap();
        let called = begun.elapsed();
        if run >= WARM {
            over_flight.push(flown);
            inside.push(computed);
            bare.push(called);
        }
    }
    println!("{} {} {}", median(over_flight), median(inside), median(bare));
}

async fn walk(url: &str, times: u64) {
    let mut client = connect(url).await;
    let mut taken = Vec::new();
    let mut tables = 0;
    for _ in 0..=times {
        let begun = Instant::now();
        let command = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
        let info = client.get_tables(command).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
        tables = batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
        taken.push(begun.elapsed());
        // Beyond the time a listing is remembered for.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    // The first opens every table.
    taken.remove(0);
    println!("{tables} {}", median(taken));
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2].as_micros()
}
