//! A lake on some ground, what defines its tables, and the engine that changes them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::client::FlightSqlServiceClient;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use lakegate::access::{Access, Principal};
use lakegate::config::Settings;
use lakegate::error::{Classify, ErrorKind};
use lakegate::flight::{ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::query::{
    ChangeValues, Changed, IfExisting, IfMissing, IncomingRows, Ingestion, LakeEngine, QueryEngine, QueryError,
    Statement, StatementKind, environment,
};
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use crate::queries::house::{everything, statement, text};
use crate::support::ground::Ground;

/// How long a test waits for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A lake, and the engine over it.
pub(crate) struct Place {
    pub(crate) ground: Ground,
    pub(crate) engine: Arc<LakeEngine>,
    pub(crate) lake: Lake,
    pub(crate) journal: Arc<Journal>,
    settings: Arc<Settings>,
    _definitions: TempDir,
    shutdown: Shutdown,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Place {
    /// A place on some ground; `definitions` are names with the text of their definition.
    pub(crate) async fn on(ground: Ground, definitions: &[(&str, &str)]) -> Self {
        Self::with_config(ground, definitions, "[limits]\nthreads = 2\nmemory = \"256MiB\"\nlease_wait = \"20s\"\n")
            .await
    }

    /// In a local folder.
    pub(crate) async fn local(definitions: &[(&str, &str)]) -> Self {
        Self::on(Ground::local(), definitions).await
    }

    /// The same, with a configuration of the test's own.
    pub(crate) async fn with_config(ground: Ground, definitions: &[(&str, &str)], config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lakegate.toml"), config).unwrap();
        for (name, text) in definitions {
            let (schema, table) = name.split_once('.').unwrap();
            let at = folder.path().join("tables").join(schema);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join(format!("{table}.toml")), text).unwrap();
        }
        let mut settings = lakegate::config::load(folder.path(), None).unwrap();
        settings.lake = ground.settings.clone();
        settings.tickets.key = Some("01".repeat(32).into());
        let settings = Arc::new(settings);
        let clock = Arc::new(SystemClock);
        let memory = environment(&settings.limits).unwrap();
        let lake = Lake::open(&settings.lake, memory, clock.clone()).await.unwrap();
        let journal = Arc::new(Journal::open(&settings.lake, clock.clone()).unwrap());
        let engine = LakeEngine::new(Arc::clone(&settings), lake.clone(), Arc::clone(&journal), clock).unwrap();
        let engine = Arc::new(engine);
        Self { ground, engine, lake, journal, settings, _definitions: folder, shutdown: Shutdown::new() }
    }

    /// Changes something as whoever may do everything; tells how many rows it were.
    pub(crate) async fn change(&self, sql: &str) -> Result<u64, QueryError> {
        self.change_as(sql, vec![], &everything()).await
    }

    /// Changes something that has to work.
    pub(crate) async fn run(&self, sql: &str) -> u64 {
        self.change(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", lakegate::error::chain_text(&error)))
    }

    /// Changes something by somebody, with values for parameters.
    pub(crate) async fn change_as(
        &self,
        sql: &str,
        parameters: Vec<ScalarValue>,
        access: &Access,
    ) -> Result<u64, QueryError> {
        let planned = self.engine.plan(Statement { parameters, ..statement(sql) }, access).await?;
        assert_eq!(planned.kind, StatementKind::Change, "{sql}");
        Ok(self.engine.change(&planned, ChangeValues::Planned, SOON).await?.rows)
    }

    /// Changes something once for each row of values.
    pub(crate) async fn change_rows(&self, sql: &str, rows: Vec<RecordBatch>) -> Result<Changed, QueryError> {
        let planned = self.engine.plan(statement(sql), &everything()).await?;
        self.engine.change(&planned, ChangeValues::Rows(rows), SOON).await
    }

    /// The rows of a query, columns joined by a space.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        self.rows_as(sql, &everything()).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, asked by somebody.
    pub(crate) async fn rows_as(&self, sql: &str, access: &Access) -> Result<Vec<String>, QueryError> {
        let planned = self.engine.plan(statement(sql), access).await?;
        let stream = self.engine.execute(&planned, SOON).await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(QueryError::from)?;
        Ok(text(&batches))
    }

    /// What is wrong with a statement.
    pub(crate) async fn refused(&self, sql: &str) -> (ErrorKind, String) {
        refusal(self.change(sql).await, sql)
    }

    /// Puts batches into a table, as whoever may do everything.
    pub(crate) async fn ingest(
        &self,
        table: &str,
        (missing, existing): (IfMissing, IfExisting),
        schema: SchemaRef,
        batches: Vec<Result<RecordBatch, QueryError>>,
    ) -> Result<u64, QueryError> {
        let (schema_name, table) = table.split_once('.').map_or((None, table), |(schema, table)| (Some(schema), table));
        let ingestion =
            Ingestion { schema: schema_name.map(str::to_owned), table: table.to_owned(), missing, existing };
        let rows = IncomingRows { schema, batches: futures::stream::iter(batches).boxed() };
        Ok(self.engine.ingest(ingestion, rows, &everything(), SOON).await?.rows)
    }

    /// The newest version's number.
    pub(crate) async fn version(&self, table: &str) -> u64 {
        self.lake.table(&table.parse().unwrap()).snapshot().await.unwrap().unwrap().version()
    }

    /// A client of a server that asks this place's engine.
    pub(crate) async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(self.channel().await)
    }

    /// A connection to a server that asks this place's engine.
    pub(crate) async fn channel(&self) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let engine: Arc<dyn QueryEngine> = self.engine.clone();
        let (settings, journal) = (Arc::clone(&self.settings), Arc::clone(&self.journal));
        let parts = ServiceParts { engine, settings, journal, clock: Arc::new(SystemClock) };
        tokio::spawn(serve(listener, parts, self.shutdown.clone()));
        Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
    }
}

/// The kind and text of an error that has to be there.
pub(crate) fn refusal<T>(result: Result<T, QueryError>, what: &str) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("accepted: {what}"),
        Err(error) => (error.kind(), lakegate::error::chain_text(&error)),
    }
}

/// Who asks, with these grants and no others.
pub(crate) fn somebody(name: &str, grants: lakegate::access::Grants) -> Access {
    let principal = Principal { name: name.to_owned(), roles: std::collections::BTreeSet::new() };
    Access::granted(principal, Arc::new(grants))
}
