//! The contract between those who hand out results and whatever answers SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryPool;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::access::{Access, Grants};
use crate::config::ForeignKey;
use crate::model::TableName;
use crate::query::{Dependencies, Estimate, MemoryGauge, PolicyProblem, QueryError};

/// One SQL statement with everything its answer depends on. Sealed into tickets, so that a ticket
/// can be planned again after a restart and give the same rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The text, exactly one statement.
    pub sql: String,
    /// Values of `$1`, `$2`, … (a `?` is the next of them).
    pub parameters: Vec<ScalarValue>,
    /// Versions to read; a table that is not named is read at its newest version.
    pub pins: TablePins,
    /// Settings that change rows or their order.
    pub options: StatementOptions,
}

/// Which version of each table a statement reads.
pub type TablePins = BTreeMap<TableName, u64>;

/// Settings of one statement that change its rows, their order, or how they are cut into batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementOptions {
    /// Zone in which timestamps are printed and `now()` is cut to days; `UTC` unless asked for.
    pub time_zone: String,
    /// Schema of names that are written without one; where there is none, the only schema there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Partitions the plan runs in, where the order of rows has to be the same at each run.
    pub partitions: Option<usize>,
    /// Rows of a batch.
    pub batch_rows: Option<usize>,
    /// What `now()` gives. Planning fills it in, so that a ticket redeemed later gives the same rows.
    #[serde(default)]
    pub now: Option<DateTime<Utc>>,
    /// Tables of which only those rows are read that an older version had not; they have to have gained files only.
    #[serde(default, skip_serializing_if = "TablePins::is_empty")]
    pub since: TablePins,
    /// What the principal may see of the tables, as a digest. Planning fills it in, and refuses a statement that was
    /// planned when it was another: its rows would not be the same any more.
    #[serde(default)]
    pub rights: Option<String>,
    /// The columns, by place, that have few different texts, and are sent as dictionaries to those who ask. Filled in when the
    /// result is first announced, so that it is sent as it was announced whatever is known by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few: Option<Vec<usize>>,
}

impl Default for StatementOptions {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            schema: None,
            partitions: None,
            batch_rows: None,
            now: None,
            since: TablePins::new(),
            rights: None,
            few: None,
        }
    }
}

/// A statement that was understood, with each of its tables resolved once.
#[derive(Clone)]
pub struct Planned {
    /// The statement, its pins filled in for every table it reads, and its `now`.
    pub statement: Statement,
    /// The columns as the plan names them; the stream's may be less nullable, and its types may
    /// differ where the statement has parameters that had no values when it was planned.
    pub schema: SchemaRef,
    /// Parameters in order; the type is `Null` where nothing tells it.
    pub parameters: Vec<FieldRef>,
    /// Whether it answers with rows or changes tables.
    pub kind: StatementKind,
    /// What the engine needs to run it.
    pub plan: Arc<dyn std::any::Any + Send + Sync>,
    /// What its runs take of the memory.
    pub memory: Arc<MemoryGauge>,
    /// What its rows depend on beside the statement; none where they may be others each time.
    pub dependencies: Option<Dependencies>,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// It answers with rows, and is run by [`QueryEngine::execute`].
    Query,
    /// It changes tables, and is run by [`QueryEngine::change`]; its schema is that of a count of rows.
    Change,
    /// It asks how large the result of a query will be (`EXPLAIN ESTIMATE`), which [`QueryEngine::estimate`] tells and who
    /// knows how rows are sent answers, as a table of the schema [`Estimate::table_schema`].
    Estimate,
}

/// What a statement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// How many rows were added, changed or deleted.
    pub rows: u64,
    /// The version that holds the change; none where nothing is there to have one.
    pub version: Option<u64>,
}

/// Rows that are to be put into a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingestion {
    /// The table's schema; `results` where none is named.
    pub schema: Option<String>,
    /// Its own name.
    pub table: String,
    /// What is done where there is no such table.
    pub missing: IfMissing,
    /// What is done where there is one.
    pub existing: IfExisting,
}

/// What an ingestion does where there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// It makes one with the columns of the rows.
    Create,
    /// It fails.
    Fail,
}

/// What an ingestion does where there is a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfExisting {
    /// It fails.
    Fail,
    /// The rows join those that are there.
    Append,
    /// A table with the columns of the rows takes its place.
    Replace,
}

/// Rows as a client sends them. An error ends them, and nothing of them stays.
pub struct IncomingRows {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
}

/// Values for the parameters of a statement that changes tables.
#[derive(Debug)]
pub enum ChangeValues {
    /// Those the statement was planned with: it runs once.
    Planned,
    /// A column for each parameter: it runs once for each row. What an INSERT of values adds is committed once for all
    /// rows; other statements commit once for each.
    Rows(Vec<RecordBatch>),
}

/// Something that answers SQL over the lake.
///
/// Called by many at once. Planning opens tables and reads no rows. `execute` may be called any
/// number of times for one [`Planned`]; each call runs it anew. Dropping the stream stops the work,
/// joins without output included. Errors that are the person's own are `InvalidInput`. Where a
/// statement's values are known they belong into [`Statement::parameters`] before it is planned:
/// the columns' types may depend on them. A stream's errors are turned into a [`QueryError`], with
/// its kind, by `QueryError::from`.
#[async_trait]
pub trait QueryEngine: Send + Sync {
    /// Understands a statement and pins its tables. What the principal may not see is not there: neither by name, nor in
    /// errors. A statement that was planned before, for a principal who was granted other things, is `PermissionDenied`.
    async fn plan(&self, statement: Statement, access: &Access) -> Result<Planned, QueryError>;

    /// The same plan so that each run gives the same rows in the same order and the same batches, if that costs little;
    /// [`StatementOptions::partitions`] and [`StatementOptions::batch_rows`] then say so. Else as it was.
    fn in_fixed_order(&self, planned: Planned) -> Planned;

    /// Runs a planned statement with its [`Statement::parameters`]. Fails when a parameter has no
    /// value; the stream fails with `DeadlineExceeded` when `timeout` has passed since this call.
    async fn execute(&self, planned: &Planned, timeout: Duration) -> Result<SendableRecordBatchStream, QueryError>;

    /// How large the result of a planned query will be, as far as what planning has read tells; unknown where it does not,
    /// and where the principal is kept from rows of a table it reads.
    async fn estimate(&self, planned: &Planned) -> Arc<Estimate>;

    /// Runs a statement that changes tables, once for each set of values. Dropping the future, and `timeout`, stop it as
    /// long as nothing is committed, and then it leaves nothing; once its commit has begun it goes on to the end, whether
    /// anybody waits for it or not.
    async fn change(&self, planned: &Planned, values: ChangeValues, timeout: Duration) -> Result<Changed, QueryError>;

    /// Puts rows into a table, in one commit after the last of them; stopped as [`Self::change`] is.
    async fn ingest(
        &self,
        ingestion: Ingestion,
        rows: IncomingRows,
        access: &Access,
        timeout: Duration,
    ) -> Result<Changed, QueryError>;

    /// The tables the principal may read now, with the columns they may read, in order, from the catalogue's cache of
    /// versions and schemas.
    async fn tables(&self, access: &Access) -> Result<Vec<TableSummary>, QueryError>;

    /// Tries every row filter and mask, and the columns of every grant, against the newest version of their tables.
    /// Those of tables without rows are only read. What this finds is for those who write policies.
    async fn check_policies(&self, grants: &Grants) -> Result<Vec<PolicyProblem>, QueryError>;

    /// The memory that statements share, from which whoever holds something for one takes it.
    fn memory(&self) -> Arc<dyn MemoryPool>;
}

/// A table as the catalogue lists it.
#[derive(Clone, Debug)]
pub struct TableSummary {
    /// Schema of the table, such as `weather` or `system`.
    pub schema: String,
    /// The table's own name.
    pub table: String,
    /// Its newest version; none for tables that are not in the lake (`system.*`).
    pub version: Option<u64>,
    /// Its columns.
    pub columns: SchemaRef,
    /// Columns that name a row.
    pub key: Vec<String>,
    /// What it is, for people.
    pub description: Option<String>,
    /// Who made it, where people make tables by SQL.
    pub owner: Option<String>,
    /// Whether the principal may change its rows; in a listing for all, whether anybody may.
    pub writable: bool,
    /// Columns whose values name rows of other tables.
    pub foreign_keys: Vec<ForeignKey>,
}
