//! A lake with a few tables in a temporary folder, the engine over it, and a server where a test asks for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow_flight::sql::client::FlightSqlServiceClient;
use chrono::Utc;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use lakegate::access::{Access, Principal};
use lakegate::config::Settings;
use lakegate::flight::{ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::lake::{Facts, Lake, WritePlan};
use lakegate::model::{CarriedFile, ChangeBatch, ChangeKind, ColumnType, FileStatus, LoadMode, Reject, TableName};
use lakegate::query::{LakeEngine, QueryEngine, QueryError, Statement, StatementOptions, TablePins, environment};
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use object_store::ObjectStore;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

/// A lake, and what answers questions about it.
pub(crate) struct House {
    pub(crate) engine: Arc<LakeEngine>,
    pub(crate) lake: Lake,
    pub(crate) journal: Arc<Journal>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) folder: TempDir,
    shutdown: Shutdown,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl House {
    /// A house whose tables are defined by name; nothing is loaded.
    pub(crate) async fn new(tables: &[&str]) -> Self {
        Self::with_config(tables, "[limits]\nthreads = 2\nmemory = \"256MiB\"\n").await
    }

    /// The same, with a configuration of the test's own. A name may be followed by ` = ` and lines of its `[load]`.
    pub(crate) async fn with_config(tables: &[&str], config: &str) -> Self {
        Self::open(None, tables, config).await
    }

    /// The same, with a lake that is reached through a store of the test's own, rooted at `/`.
    pub(crate) async fn through(store: Arc<dyn ObjectStore>, tables: &[&str], config: &str) -> Self {
        Self::open(Some(store), tables, config).await
    }

    async fn open(store: Option<Arc<dyn ObjectStore>>, tables: &[&str], config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("house").tempdir().unwrap();
        std::fs::write(folder.path().join("lakegate.toml"), config).unwrap();
        for table in tables {
            let (name, load) = table.split_once(" = ").unwrap_or((table, ""));
            let (schema, table) = name.split_once('.').unwrap();
            let at = folder.path().join("tables").join(schema);
            std::fs::create_dir_all(&at).unwrap();
            let text = format!("[source]\nfiles = \"in/*.csv\"\nformat = \"csv\"\n[load]\n{load}\n");
            std::fs::write(at.join(format!("{table}.toml")), text).unwrap();
        }
        let settings = Arc::new(lakegate::config::load(folder.path(), None).unwrap());
        let clock = Arc::new(SystemClock);
        let memory = environment(&settings.limits).unwrap();
        let lake = match store {
            Some(store) => Lake::open_through(store, &settings.lake, memory, clock.clone()).await,
            None => Lake::open(&settings.lake, memory, clock.clone()).await,
        };
        let lake = lake.unwrap();
        let journal = Arc::new(Journal::open(&settings.lake, clock.clone()).unwrap());
        let engine = LakeEngine::new(Arc::clone(&settings), lake.clone(), Arc::clone(&journal), clock).unwrap();
        Self { engine: Arc::new(engine), lake, journal, settings, folder, shutdown: Shutdown::new() }
    }

    /// Appends the rows of a query to a table; `columns` are `name type, …` as in a table definition, one a line.
    /// Returns the version.
    pub(crate) async fn load(&self, table: &str, columns: &[(&str, &str)], sql: &str) -> u64 {
        self.load_by(table, columns, &[], sql).await
    }

    /// The same, by a key that names the rows.
    pub(crate) async fn load_by(&self, table: &str, columns: &[(&str, &str)], key: &[&str], sql: &str) -> u64 {
        let schema: SchemaRef = Arc::new(Schema::new(
            columns
                .iter()
                .map(|(name, kind)| Field::new(*name, kind.parse::<ColumnType>().unwrap().to_arrow(), true))
                .collect::<Vec<_>>(),
        ));
        let batches = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
        let name: TableName = table.parse().unwrap();
        let handle = self.lake.table(&name);
        let lease = handle.lease("test", Duration::from_secs(30)).await.unwrap();
        let mut attempt = handle.begin(&lease).await.unwrap();
        let plan = WritePlan {
            schema: Arc::clone(&schema),
            key: key.iter().map(|column| (*column).to_owned()).collect(),
            folding: vec![],
            mode: LoadMode::Append,
            reload: false,
        };
        let mut writer = attempt.writer(plan).unwrap();
        for batch in &batches {
            let rows = cast(batch, &schema);
            writer.write(ChangeBatch { kind: ChangeKind::Append, rows, file: None }).await.unwrap();
        }
        writer.prepare().await.unwrap();
        let staged = writer.finish(&[]).await.unwrap();
        attempt.reject(&[reject()]).await.unwrap();
        let committed = attempt.commit(staged, facts(table)).await.unwrap();
        lease.release().await;
        committed.version
    }

    /// The rows of a statement as text, columns joined by one space.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<String>, QueryError> {
        self.rows_with(sql, vec![]).await
    }

    /// The same, with values for its parameters.
    pub(crate) async fn rows_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Vec<String>, QueryError> {
        let planned = self.engine.plan(Statement { parameters, ..statement(sql) }, &everything()).await?;
        let stream = self.engine.execute(&planned, Duration::from_secs(60)).await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(QueryError::from)?;
        Ok(text(&batches))
    }

    /// Starts a server that asks this house's engine.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = self.settings.as_ref().clone();
        settings.tickets.key = Some("01".repeat(32).into());
        let engine: Arc<dyn QueryEngine> = self.engine.clone();
        let (settings, journal) = (Arc::new(settings), Arc::clone(&self.journal));
        let parts = ServiceParts { engine, settings, journal, clock: Arc::new(SystemClock) };
        tokio::spawn(serve(listener, parts, self.shutdown.clone()));
        address
    }

    /// A client of such a server.
    pub(crate) async fn client(&self) -> FlightSqlServiceClient<Channel> {
        let address = self.serve().await;
        FlightSqlServiceClient::new(Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap())
    }
}

/// Nothing is kept from who asks.
pub(crate) fn everything() -> Access {
    Access::unrestricted(Principal::operator())
}

/// A statement without parameters or pins.
pub(crate) fn statement(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), parameters: vec![], pins: TablePins::new(), options: StatementOptions::default() }
}

/// Rows as text: one line each, columns joined by one space, an empty text as `(empty)`.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                value => value,
            });
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

fn cast(batch: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let cast = |(column, field): (&ArrayRef, &Arc<Field>)| arrow::compute::cast(column, field.data_type()).unwrap();
    let columns = batch.columns().iter().zip(schema.fields()).map(cast).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).unwrap()
}

fn facts(table: &str) -> Facts {
    let file = CarriedFile {
        path: format!("/in/{table}.csv"),
        size: 10,
        e_tag: None,
        modified: Utc::now(),
        content_hash: "c0ffee".to_owned(),
        rows: 2,
        rejected: 1,
        status: FileStatus::Loaded,
        data_files: vec![],
    };
    Facts { files: vec![file], definition_hash: "definition".to_owned(), ..Facts::default() }
}

fn reject() -> Reject {
    Reject {
        file: "/in/t.csv".to_owned(),
        line: Some(3),
        column: Some("id".to_owned()),
        reason: "`x` is no bigint".to_owned(),
        raw: "x,1".to_owned(),
    }
}
