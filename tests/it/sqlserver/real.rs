//! A server named by `LAKEGATE_TEST_MSSQL` in the place of the stand-in:
//! `server=HOST[,PORT];user=…;password=…[;ca=FILE][;database=NAME]`.
//!
//! Each test makes a database of its own there and drops it. With `database` the tests take turns in that one, which is
//! emptied before each: **all tables in it are dropped**. Without `ca` the server's certificate is trusted as it is.

use std::sync::{Arc, LazyLock, mpsc};
use std::thread::JoinHandle;

use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

const VARIABLE: &str = "LAKEGATE_TEST_MSSQL";

/// Tests that ask for nothing a SQL Server cannot do: no faults, no gates, no log of statements, no clean-up of changes at
/// will. All others run on the stand-in, and say so.
const ON_ANY_SERVER: &[&str] = &[
    "a_changed_key_makes_the_load_begin_anew",
    "a_column_of_quite_another_type_is_loaded_anew",
    "a_definition_that_reads_columns_otherwise_is_followed_for_old_rows_too",
    "a_key_that_the_lake_would_cut_is_refused",
    "a_table_is_loaded_whole_and_then_kept_in_step_by_its_changes",
    "a_table_that_comes_from_elsewhere_than_before_is_loaded_anew_or_not_at_all",
    "a_table_without_a_key_is_read_whole_and_written_where_it_changed",
    "a_type_change_that_changed_values_makes_the_load_begin_anew",
    "a_view_is_read_whole",
    "a_wider_type_needs_no_reload",
    "every_type_arrives_in_the_lake_as_it_stands_in_the_table_at_its_extremes",
    "names_may_be_anything",
    "of_a_thousand_changes_of_a_row_the_last_one_counts",
    "rows_as_long_as_a_page_arrive_whole",
    "rows_that_went_and_came_back_are_there_once",
    "values_of_many_megabytes_arrive_whole",
];

/// Who may use the one database that was named.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// What the variable says.
#[derive(Clone)]
struct Named {
    host: String,
    port: u16,
    user: String,
    password: String,
    ca: Option<String>,
    database: Option<String>,
}

type Answer = Result<Vec<Vec<String>>, String>;

/// A database on a server that was named.
pub(crate) struct Real {
    named: Named,
    database: String,
    /// Statements, and where their answer goes.
    asked: Option<mpsc::Sender<(String, mpsc::Sender<Answer>)>>,
    client: Option<JoinHandle<()>>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Real {
    /// A database for the test that runs, where a server was named and the test can do with any.
    pub(crate) async fn for_this_test() -> Option<Self> {
        let named = Named::read(&std::env::var(VARIABLE).ok()?);
        let thread = std::thread::current();
        let test = thread.name().and_then(|name| name.rsplit("::").next()).unwrap_or_default();
        if !ON_ANY_SERVER.contains(&test) {
            println!("skipped on {}: {test} needs what only the stand-in can do, and runs there", named.host);
            return None;
        }
        let real = match &named.database {
            Some(database) => {
                let turn = Arc::clone(&TURN).lock_owned().await;
                let real = Self::connected(&named, database, Some(turn));
                real.empty();
                real
            }
            None => {
                let database = format!("lakegate_test_{}", uuid::Uuid::new_v4().simple());
                Self::connected(&named, "master", None).run(&format!("CREATE DATABASE [{database}]"));
                Self::connected(&named, &database, None)
            }
        };
        println!("{test} runs on {}, database {}", named.host, real.database);
        Some(real)
    }

    fn connected(named: &Named, database: &str, turn: Option<OwnedMutexGuard<()>>) -> Self {
        let (asked, questions) = mpsc::channel::<(String, mpsc::Sender<Answer>)>();
        let (to, of) = (named.clone(), database.to_owned());
        let client = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut client = to.connect(&of).await;
                while let Ok((sql, answer)) = questions.recv() {
                    // Nobody takes it where the test has failed.
                    let _ = answer.send(ask(&mut client, &sql).await);
                }
            });
        });
        let database = database.to_owned();
        Self { named: named.clone(), database, asked: Some(asked), client: Some(client), _turn: turn }
    }

    /// Runs a statement that speaks of the database as `ops`, and gives its rows as text.
    pub(crate) fn run(&self, sql: &str) -> Vec<Vec<String>> {
        let sql = sql.replace("DATABASE ops ", &format!("DATABASE [{}] ", self.database));
        let (answer, answered) = mpsc::channel();
        self.asked.as_ref().unwrap().send((sql.clone(), answer)).unwrap();
        answered.recv().unwrap().unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Takes away what the test before has left.
    fn empty(&self) {
        let bracketed = |name: &str| format!("[{}]", name.replace(']', "]]"));
        for (kind, list) in [("VIEW", "sys.views"), ("TABLE", "sys.tables")] {
            let query =
                format!("SELECT s.name, t.name FROM {list} AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id");
            for object in self.run(&query) {
                let name = object.iter().map(|part| bracketed(part)).collect::<Vec<_>>().join(".");
                self.run(&format!("DROP {kind} {name}"));
            }
        }
        if !self.run("SELECT database_id FROM sys.change_tracking_databases WHERE database_id = DB_ID()").is_empty() {
            self.run("ALTER DATABASE ops SET CHANGE_TRACKING = OFF");
        }
    }

    /// The lines of `[connections.ops]` that say where the database is.
    pub(crate) fn connection(&self) -> String {
        let Named { host, port, ca, .. } = &self.named;
        let trust = match ca {
            Some(file) => format!("ca_file = '{file}'"),
            None => "trust_server_certificate = true".to_owned(),
        };
        format!("host = \"{host}\"\nport = {port}\ndatabase = \"{}\"\n{trust}", self.database)
    }

    /// The login that was named, and its password.
    pub(crate) fn login(&self) -> (&str, &str) {
        (&self.named.user, &self.named.password)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.asked = None;
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
        if self.named.database.is_none() && self.database != "master" {
            let name = &self.database;
            let drop =
                format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE; DROP DATABASE [{name}]");
            Self::connected(&self.named, "master", None).run(&drop);
        }
    }
}

impl Named {
    fn read(text: &str) -> Self {
        let value = |wanted: &str| {
            let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(key, value)| (key.trim(), value.trim()))
                .find(|(key, _)| *key == wanted)
                .map(|(_, v)| v.to_owned())
        };
        let must = |wanted: &str| value(wanted).unwrap_or_else(|| panic!("{VARIABLE} has no {wanted}=…"));
        let server = must("server");
        let (host, port) = server.split_once(',').unwrap_or((&server, "1433"));
        Self {
            host: host.to_owned(),
            port: port.parse().unwrap_or_else(|_| panic!("{VARIABLE}: {port} is no port")),
            user: must("user"),
            password: must("password"),
            ca: value("ca"),
            database: value("database"),
        }
    }

    async fn connect(&self, database: &str) -> Client<Compat<TcpStream>> {
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(database);
        config.encryption(EncryptionLevel::Required);
        match &self.ca {
            Some(file) => config.trust_cert_ca_bundle(std::fs::read(file).unwrap()),
            None => config.trust_cert(),
        }
        config.authentication(AuthMethod::sql_server(&self.user, &self.password));
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.unwrap();
        Client::connect(config, tcp.compat_write()).await.unwrap()
    }
}

async fn ask(client: &mut Client<Compat<TcpStream>>, sql: &str) -> Answer {
    let answer = client.simple_query(sql).await.map_err(|error| error.to_string())?;
    let sets = answer.into_results().await.map_err(|error| error.to_string())?;
    Ok(sets.into_iter().flatten().map(|row| row.into_iter().map(|value| told(&value)).collect()).collect())
}

/// A value as tests compare it.
fn told(value: &ColumnData<'_>) -> String {
    let text = match value {
        ColumnData::U8(number) => number.map(|number| number.to_string()),
        ColumnData::I16(number) => number.map(|number| number.to_string()),
        ColumnData::I32(number) => number.map(|number| number.to_string()),
        ColumnData::I64(number) => number.map(|number| number.to_string()),
        ColumnData::Bit(bit) => bit.map(|bit| bit.to_string()),
        ColumnData::String(text) => text.as_ref().map(ToString::to_string),
        other => panic!("a test compares no {other:?}"),
    };
    text.unwrap_or_else(|| "∅".to_owned())
}

/// A test that was renamed would silently run on the stand-in again.
#[test]
fn the_tests_for_any_server_are_tests() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sqlserver");
    let texts: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for test in ON_ANY_SERVER {
        assert!(texts.iter().any(|text| text.contains(&format!("async fn {test}()"))), "there is no test {test}");
    }
}
