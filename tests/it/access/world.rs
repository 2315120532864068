//! A lake with something to hide, the principals it is hidden from, and servers each of them can ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use chrono::Utc;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use lakegate::access::{Access, Grant, Grantee, Grants, Policy, Principal, Scope};
use lakegate::error::ErrorKind;
use lakegate::flight::{ServiceParts, serve};
use lakegate::journal::{LoadRecord, LoadStatus, VerificationRecord, VerificationStatus};
use lakegate::model::TableName;
use lakegate::query::{
    ChangeValues, Changed, IncomingRows, Ingestion, Planned, QueryEngine, QueryError, Statement, TableSummary,
};
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use crate::queries::house::{House, statement, text};

/// The columns of `ops.people`.
pub(super) const PEOPLE: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("name", "string"),
    ("region", "string"),
    ("salary", "bigint"),
    ("secret", "string"),
    ("address", "struct<street: string, city: string>"),
    ("tags", "array<string>"),
];

/// Rows of the north, which everybody sees who sees rows: secrets that are numbers would be.
const NORTH: &str = "select 1 as id, 'ann' as name, 'north' as region, 100 as salary, 'secretval-1' as secret, \
                     named_struct('street', 'secretval-street', 'city', 'Oslo') as address, \
                     ['secretval-tag'] as tags \
                     union all select 2, 'bob', 'north', 200, 'secretval-2', \
                     named_struct('street', 'secretval-street', 'city', 'Bergen'), ['secretval-tag']";

/// Rows of the south, which a row filter hides.
const SOUTH: &str = "select 3 as id, 'hiddenrow-cleo' as name, 'south' as region, 0 as salary, 'secretval-3' as secret, \
                     named_struct('street', 'secretval-street', 'city', 'hiddenrow-city') as address, \
                     ['hiddenrow-tag'] as tags \
                     union all select 4, 'hiddenrow-dan', 'south', 999999, 'secretval-4', \
                     named_struct('street', 'secretval-street', 'city', 'hiddenrow-city'), ['hiddenrow-tag']";

/// What a masked secret is seen as.
pub(super) const MASK: &str = "'***'";

/// The lake: `ops.people` in two versions, `pub.numbers`, and `payroll.wages`, whose schema nobody is granted.
pub(super) async fn lake() -> House {
    let house =
        House::new(&["ops.people = \n[table]\nkey = [\"id\", \"secret\"]", "pub.numbers", "payroll.wages"]).await;
    house.load("ops.people", PEOPLE, NORTH).await;
    house.load("ops.people", PEOPLE, SOUTH).await;
    house.load("pub.numbers", &[("n", "bigint")], "select * from generate_series(1, 10) g(n)").await;
    house.load("payroll.wages", &[("codeword", "string")], "select 'secretval-wage' as codeword").await;
    let now = Utc::now();
    house.journal.record_load(LoadRecord {
        load_id: uuid::Uuid::from_u128(7),
        table: "ops.people".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: LoadStatus::Failed,
        rows_read: 4,
        rows_written: 0,
        rows_rejected: 4,
        bytes_read: 10,
        bytes_written: 0,
        version: None,
        attempt: Some(2),
        position: Some(serde_json::json!({ "key": "secretval-position" })),
        error_kind: Some(ErrorKind::InvalidInput),
        error: Some("`secretval-error` is no bigint".to_owned()),
        written: None,
    });
    house.journal.record_verification(VerificationRecord {
        verification_id: uuid::Uuid::from_u128(8),
        table: "ops.people".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: VerificationStatus::Differs,
        version: Some(1),
        method: None,
        since: None,
        ranges: 1,
        rows: 4,
        left_out: 0,
        differences: vec![serde_json::json!({ "after": ["secretval-difference"] })],
        key: vec!["id".to_owned()],
        notes: vec![],
        repaired_version: None,
        error_kind: None,
        error: None,
    });
    house
}

fn table(name: &str) -> Scope {
    Scope::Table(name.parse().unwrap())
}

fn read(on: Scope, columns: Option<&[&str]>) -> Grant {
    let columns = columns.map(|columns| columns.iter().map(|column| (*column).to_owned()).collect());
    Grant { to: Grantee::Everyone, on, columns, read: true, write: false }
}

/// A principal called `name`, who may read `pub.numbers` and what else is granted.
pub(super) fn principal(name: &str, grants: Vec<Grant>, policy: Policy) -> Access {
    let mut all = vec![read(table("pub.numbers"), None)];
    all.extend(grants);
    let policies = BTreeMap::from([("ops.people".parse::<TableName>().unwrap(), policy)]);
    let policies = policies.into_iter().filter(|(_, policy): &(_, Policy)| *policy != Policy::default()).collect();
    let principal = Principal { name: name.to_owned(), roles: BTreeSet::from(["analyst".to_owned()]) };
    Access::granted(principal, Arc::new(Grants { grants: all, policies }))
}

/// Everything, as whoever runs the program.
pub(super) fn admin() -> Access {
    Access::unrestricted(Principal::operator())
}

/// All of `ops.people`.
pub(super) fn allowed() -> Access {
    principal("allowed", vec![read(table("ops.people"), None)], Policy::default())
}

/// Nothing of `ops.people`.
pub(super) fn denied_table() -> Access {
    principal("denied", vec![], Policy::default())
}

/// `ops.people` without `secret`, `address` and `tags`.
pub(super) fn denied_column() -> Access {
    let seen = ["id", "name", "region", "salary"];
    principal("columns", vec![read(table("ops.people"), Some(&seen))], Policy::default())
}

/// The rows of the north.
pub(super) fn filtered_rows() -> Access {
    filtered("region = 'north'")
}

/// The rows a filter lets through.
pub(super) fn filtered(filter: &str) -> Access {
    let policy = Policy { filters: vec![filter.to_owned()], ..Policy::default() };
    principal("filtered", vec![read(table("ops.people"), None)], policy)
}

/// All rows, with everything that is secret masked.
pub(super) fn masked_column() -> Access {
    let masks =
        [("secret", MASK), ("address", "named_struct('street', '***', 'city', address.city)"), ("tags", "null")];
    masked(&masks)
}

/// All rows under these masks.
pub(super) fn masked(masks: &[(&str, &str)]) -> Access {
    let masks = masks.iter().map(|(column, mask)| ((*column).to_owned(), (*mask).to_owned())).collect();
    let policy = Policy { masks, ..Policy::default() };
    principal("masked", vec![read(table("ops.people"), None)], policy)
}

/// The rows of a statement for a principal, or its error as text with its kind.
pub(super) async fn ask(house: &House, access: &Access, sql: &str) -> Result<Vec<String>, String> {
    ask_with(house, access, sql, vec![]).await
}

/// The same, with values for its parameters.
pub(super) async fn ask_with(
    house: &House,
    access: &Access,
    sql: &str,
    parameters: Vec<ScalarValue>,
) -> Result<Vec<String>, String> {
    let told = |error: QueryError| {
        use lakegate::error::Classify;
        format!("{}: {}", error.kind().as_str(), lakegate::error::chain_text(&error))
    };
    let statement = Statement { parameters, ..statement(sql) };
    let planned = house.engine.plan(statement, access).await.map_err(told)?;
    let stream = house.engine.execute(&planned, Duration::from_secs(60)).await.map_err(told)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| told(QueryError::from(error)))?;
    Ok(text(&batches))
}

/// An engine that answers everybody as one principal: what a server is to a client that has proved who it is.
struct Acting {
    engine: Arc<dyn QueryEngine>,
    access: Access,
}

#[async_trait]
impl QueryEngine for Acting {
    async fn plan(&self, statement: Statement, _: &Access) -> Result<Planned, QueryError> {
        self.engine.plan(statement, &self.access).await
    }

    async fn execute(&self, planned: &Planned, timeout: Duration) -> Result<SendableRecordBatchStream, QueryError> {
        self.engine.execute(planned, timeout).await
    }

    async fn change(&self, planned: &Planned, values: ChangeValues, timeout: Duration) -> Result<Changed, QueryError> {
        self.engine.change(planned, values, timeout).await
    }

    async fn ingest(
        &self,
        ingestion: Ingestion,
        rows: IncomingRows,
        _: &Access,
        timeout: Duration,
    ) -> Result<Changed, QueryError> {
        self.engine.ingest(ingestion, rows, &self.access, timeout).await
    }

    async fn tables(&self, _: &Access) -> Result<Vec<TableSummary>, QueryError> {
        self.engine.tables(&self.access).await
    }
}

/// A connection of a principal to a server over the lake. All servers have one key, as those of one house do.
pub(super) struct Connection {
    pub(super) channel: Channel,
    shutdown: Shutdown,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// Connects as a principal.
pub(super) async fn connect(house: &House, access: &Access) -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = house.settings.as_ref().clone();
    settings.tickets.key = Some("01".repeat(32).into());
    let engine: Arc<dyn QueryEngine> = Arc::new(Acting { engine: house.engine.clone(), access: access.clone() });
    let (settings, journal) = (Arc::new(settings), Arc::clone(&house.journal));
    let parts = ServiceParts { engine, settings, journal, clock: Arc::new(SystemClock) };
    let shutdown = Shutdown::new();
    tokio::spawn(serve(listener, parts, shutdown.clone()));
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    Connection { channel, shutdown }
}
