//! The service over a real lake and the real engine: what the other tests leave to the engine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetTables};
use lakegate::config::{self, Settings};
use lakegate::etl::{Loads, Silent, SyncOptions};
use lakegate::flight::{FlightError, ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{self, LakeEngine};
use lakegate::runtime::clock::{Clock, SystemClock};
use lakegate::runtime::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::server::{read, text};

/// A folder as a user has it, loaded and served.
struct House {
    folder: TempDir,
    settings: Arc<Settings>,
    lake: Lake,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    client: FlightSqlServiceClient<Channel>,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), FlightError>>,
}

impl House {
    /// Table `weather.hourly` with two rows, and `weather.later`, which was never loaded.
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("tables/weather")).unwrap();
        std::fs::create_dir_all(path.join("in")).unwrap();
        let definition = "[source]\nfiles = \"in/*.csv\"\nformat = \"csv\"\n[table]\nkey = [\"station\"]\n";
        std::fs::write(path.join("tables/weather/hourly.toml"), definition).unwrap();
        std::fs::write(path.join("tables/weather/later.toml"), definition.replace("in/", "later/")).unwrap();
        put(path, "one.csv", "station,degrees\nEWR,1.5\nJFK,-3\n");
        let mut settings = config::load(path, None).unwrap();
        settings.tickets.key = Some("05".repeat(32).into());
        let settings = Arc::new(settings);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let environment = query::environment(&settings.limits).unwrap();
        let lake = Lake::open(&settings.lake, environment, Arc::clone(&clock)).await.unwrap();
        let journal = Arc::new(Journal::open(&settings.lake, Arc::clone(&clock)).unwrap());
        let engine = LakeEngine::new(Arc::clone(&settings), lake.clone(), Arc::clone(&journal), Arc::clone(&clock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let parts = ServiceParts {
            engine: Arc::new(engine.unwrap()),
            settings: Arc::clone(&settings),
            journal: Arc::clone(&journal),
            clock: Arc::clone(&clock),
        };
        let shutdown = Shutdown::new();
        let serving = tokio::spawn(serve(listener, parts, shutdown.clone()));
        let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
        let client = FlightSqlServiceClient::new(channel);
        let house = Self { folder, settings, lake, journal, clock, client, shutdown, serving };
        house.sync().await;
        house
    }

    async fn sync(&self) {
        let parts = (Arc::clone(&self.settings), self.lake.clone(), Arc::clone(&self.journal));
        let loads = Loads::new(parts.0, parts.1, parts.2, Arc::clone(&self.clock));
        let tables = ["weather.hourly".parse().unwrap()];
        let report = loads.sync(&tables, &SyncOptions::default(), Arc::new(Silent)).await.unwrap();
        assert!(report.is_success(), "{report:?}");
    }

    async fn rows(&self, sql: &str) -> Result<Vec<String>, String> {
        let mut client = self.client.clone();
        let info = client.execute(sql.to_owned(), None).await.map_err(|error| error.to_string())?;
        Ok(text(&read(&mut client, info).await))
    }
}

/// Puts a file of some time ago, so that it does not look as if it were still growing.
fn put(folder: &Path, name: &str, content: &str) {
    let path = folder.join("in").join(name);
    std::fs::write(&path, content).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_files_arrive_over_flight_and_a_ticket_keeps_its_version() {
    let house = House::open().await;
    let sql = "select station, degrees from weather.hourly order by station";
    assert_eq!(house.rows(sql).await.unwrap(), ["EWR 1.5", "JFK -3.0"]);
    let mut client = house.client.clone();
    let before = client.execute(sql.to_owned(), None).await.unwrap();
    put(house.folder.path(), "two.csv", "station,degrees\nLGA,7\n");
    house.sync().await;
    assert_eq!(house.rows(sql).await.unwrap(), ["EWR 1.5", "JFK -3.0", "LGA 7.0"], "the next statement sees it");
    assert_eq!(text(&read(&mut client, before).await), ["EWR 1.5", "JFK -3.0"], "the ticket was made before");
    assert_eq!(house.rows("select count(*) from weather.hourly version as of 0").await.unwrap(), ["2"]);
    drop(client);
    house.shutdown.request();
    house.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_browse_bind_and_are_told_what_is_wrong() {
    let house = House::open().await;
    let mut client = house.client.clone();
    let tables =
        CommandGetTables { table_types: vec!["TABLE".to_owned()], include_schema: true, ..CommandGetTables::default() };
    let info = client.get_tables(tables).await.unwrap();
    let batches: Vec<RecordBatch> = read(&mut client, info).await;
    let names = batches[0].project(&[0, 1, 2, 3]).unwrap();
    assert!(text(&[names]).contains(&"lakegate weather hourly TABLE".to_owned()));
    let key = CommandGetPrimaryKeys { table: "hourly".to_owned(), ..CommandGetPrimaryKeys::default() };
    let info = client.get_primary_keys(key).await.unwrap();
    assert_eq!(text(&read(&mut client, info).await), ["lakegate weather hourly station  1"]);

    let sql = "select degrees from weather.hourly where station = ? and degrees < $2";
    assert!(client.prepare(sql.to_owned(), None).await.is_err(), "`?` and `$n` are not mixed");
    let mut prepared = client.prepare(sql.replace('?', "$1"), None).await.unwrap();
    let kinds = prepared.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().to_string());
    assert_eq!(kinds.collect::<Vec<_>>(), ["Utf8", "Float64"]);
    let value = |station: &str| {
        let station = Arc::new(arrow::array::StringArray::from(vec![station])) as arrow::array::ArrayRef;
        // An integer for a double, as Python sends it.
        let degrees = Arc::new(arrow::array::Int64Array::from(vec![2])) as arrow::array::ArrayRef;
        RecordBatch::try_from_iter([("0", station), ("1", degrees)]).unwrap()
    };
    prepared.set_parameters(value("EWR")).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(text(&read(&mut client, info).await), ["1.5"]);

    for (sql, told) in [
        ("select * from weather.later", "lakegate sync weather.later"),
        ("select * from weather.nothing", "nothing"),
        ("insert into weather.hourly values ('a', 1)", "lakegate sync"),
        ("select missing from weather.hourly", "missing"),
    ] {
        let error = house.rows(sql).await.unwrap_err();
        assert!(error.contains(told), "{sql}: {error}");
        assert!(!error.contains("Internal"), "{sql}: {error}");
    }
}
