//! Reading a table of SQL Server into Arrow batches and into the lake, against the driver alone, which reads the same rows
//! and drops them.
//!
//! Bars: at least 0.85 times the driver's speed into Arrow, 0.6 times into the lake. Called by `benches/mssql.py` as
//! `cargo bench --bench mssql -- --folder FOLDER`, with a configuration there whose tables `bench.orders` (by its key, in
//! chunks) and `bench.at_once` (`method = "reload"`, one statement) are one table of the stand-in in another process.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use lakegate::config::{Encrypt, Settings, SqlServerConnection, SqlServerLogin, SqlServerSource, TableSource, Trust};
use lakegate::etl::{Loads, Silent, SyncOptions};
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::runtime::clock::{Clock, SystemClock};
use lakegate::source::mssql::connect::Connections;
use lakegate::source::mssql::source::SqlServerTable;
use lakegate::source::{Known, Source, SourceEvent};
use secrecy::ExposeSecret;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// Runs of each side, in turn; the medians count.
const RUNS: usize = 5;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|found| found == "--folder") else {
        println!("mssql: needs --folder FOLDER of a configuration whose database is served");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(compare(Path::new(&arguments[at + 1])));
}

/// Seconds from beginning to end, seconds of processor time of this process, and rows.
#[derive(Clone, Copy)]
struct Run {
    wall: Duration,
    cpu: f64,
    rows: u64,
}

/// What is being measured from here on.
struct Watch(Instant, f64);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn stop(&self, rows: u64) -> Run {
        Run { wall: self.0.elapsed(), cpu: cpu() - self.1, rows }
    }
}

/// Processor time this process has used so far (proc(5), `stat`: fields 14 and 15, in ticks of 10 ms).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn compare(folder: &Path) {
    let settings = Arc::new(lakegate::config::load(folder, None).map_err(|problems| problems.to_string()).unwrap());
    let (orders, at_once) = (source(&settings, "bench.orders"), source(&settings, "bench.at_once"));
    let select = statement(&at_once).await;
    let mut sides: [(&str, Vec<Run>); 4] = [
        ("driver alone, one statement", Vec::new()),
        ("into Arrow, one statement", Vec::new()),
        ("into Arrow, first load by chunks", Vec::new()),
        ("into the lake, first load by chunks", Vec::new()),
    ];
    for _ in 0..RUNS {
        sides[0].1.push(bare(&at_once.connection, &select).await);
        sides[1].1.push(into_arrow(&at_once).await);
        sides[2].1.push(into_arrow(&orders).await);
        sides[3].1.push(into_lake(&settings).await);
    }
    report(&mut sides);
}

fn source(settings: &Settings, table: &str) -> SqlServerSource {
    match &settings.tables.get(&table.parse().unwrap()).expect("a definition").source {
        TableSource::SqlServer(source) => source.clone(),
        TableSource::Files(_) => panic!("{table} is files"),
    }
}

/// The statement by which lakegate reads a table at once, as the stand-in has seen it.
async fn statement(source: &SqlServerSource) -> String {
    into_arrow(source).await;
    let mut client = connect(&source.connection).await;
    let rows = client.simple_query("EXEC fixture.statements").await.unwrap().into_first_result().await.unwrap();
    let mut texts = rows.iter().filter_map(|row| row.try_get::<&str, _>("text").unwrap());
    let wanted = format!("FROM [{}].[{}] AS T OPTION", source.schema, source.table);
    texts.rfind(|text| text.contains(&wanted)).expect("the statement of a reload").to_owned()
}

type Driver = Client<Compat<TcpStream>>;

async fn connect(settings: &SqlServerConnection) -> Driver {
    let mut config = Config::new();
    config.host(&settings.host);
    config.port(settings.port);
    config.database(&settings.database);
    config.packet_size(settings.packet_size);
    config.encryption(match settings.encrypt {
        Encrypt::Off => EncryptionLevel::NotSupported,
        _ => EncryptionLevel::Required,
    });
    if let Trust::Authority(file) = &settings.trust {
        config.trust_cert_ca_bundle(std::fs::read(file).unwrap());
    }
    let SqlServerLogin::Password { user, password } = &settings.login else { panic!("a SQL login") };
    config.authentication(AuthMethod::sql_server(user, password.expose_secret()));
    let tcp = TcpStream::connect((settings.host.as_str(), settings.port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    Client::connect(config, tcp.compat_write()).await.unwrap()
}

async fn bare(settings: &SqlServerConnection, select: &str) -> Run {
    let watch = Watch::start();
    let mut client = connect(settings).await;
    let mut stream = client.simple_query(select).await.unwrap().into_row_stream();
    let mut rows = 0;
    while let Some(row) = stream.try_next().await.unwrap() {
        std::hint::black_box(row);
        rows += 1;
    }
    watch.stop(rows)
}

/// Reads the table as a load does, and drops the batches.
async fn into_arrow(source: &SqlServerSource) -> Run {
    let watch = Watch::start();
    let table = SqlServerTable::new(source.clone(), Connections::default(), Arc::new(SystemClock));
    let mut reading = table.open(&Known::default()).await.unwrap().expect("a first reading");
    let mut rows = 0;
    while let Some(event) = reading.events.next().await {
        match event.unwrap() {
            SourceEvent::Changes(batch) => rows += batch.rows.num_rows() as u64,
            // Nothing slow is in the way of what comes.
            SourceEvent::Hurry(answer) => answer.send(()).unwrap(),
            _ => {}
        }
    }
    watch.stop(rows)
}

async fn into_lake(settings: &Arc<Settings>) -> Run {
    let _ = std::fs::remove_dir_all(settings.folder.join("lake"));
    let watch = Watch::start();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let environment = lakegate::query::environment(&settings.limits).unwrap();
    let lake = Lake::open(&settings.lake, environment, Arc::clone(&clock)).await.unwrap();
    let journal = Arc::new(Journal::open(&settings.lake, Arc::clone(&clock)).unwrap());
    let loads = Loads::new(Arc::clone(settings), lake, journal, clock);
    let table = "bench.orders".parse().unwrap();
    let report = loads.sync(&[table], &SyncOptions::default(), Arc::new(Silent)).await.unwrap();
    assert!(report.is_success(), "{report:?}");
    watch.stop(report.tables.iter().map(|table| table.record.rows_written).sum())
}

fn report(sides: &mut [(&str, Vec<Run>)]) {
    let median = |runs: &mut Vec<Run>| {
        runs.sort_by_key(|run| run.wall);
        runs[runs.len() / 2]
    };
    let medians: Vec<(&str, Run, [Duration; 2])> = sides
        .iter_mut()
        .map(|(name, runs)| {
            let middle = median(runs);
            (*name, middle, [runs[0].wall, runs[runs.len() - 1].wall])
        })
        .collect();
    let driver = medians[0].1;
    println!("\n### Reading a table of the stand-in, median of {RUNS} runs\n");
    println!("| what | rows | s | speed, times the driver's | CPU of the reader, s | CPU, times the driver's |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, run, [least, largest]) in medians {
        assert_eq!(run.rows, driver.rows, "{name}");
        println!(
            "| {name} | {} | {:.2} ({:.2} to {:.2}) | {:.2} | {:.2} | {:.2} |",
            run.rows,
            run.wall.as_secs_f64(),
            least.as_secs_f64(),
            largest.as_secs_f64(),
            driver.wall.as_secs_f64() / run.wall.as_secs_f64(),
            run.cpu,
            run.cpu / driver.cpu,
        );
    }
}
