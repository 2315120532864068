//! The contract between those who hand out results and whatever answers SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::model::TableName;
use crate::query::QueryError;

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
    /// Partitions the plan runs in; 1 where the order of rows has to be the same at each run.
    pub partitions: Option<usize>,
    /// Rows of a batch.
    pub batch_rows: Option<usize>,
    /// What `now()` gives. Planning fills it in, so that a ticket redeemed later gives the same rows.
    #[serde(default)]
    pub now: Option<DateTime<Utc>>,
    /// What the principal may see of the tables, as a digest. Planning fills it in, and refuses a statement that was
    /// planned when it was another: its rows would not be the same any more.
    #[serde(default)]
    pub rights: Option<String>,
}

impl Default for StatementOptions {
    fn default() -> Self {
        Self { time_zone: "UTC".to_owned(), partitions: None, batch_rows: None, now: None, rights: None }
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
    /// What the engine needs to run it.
    pub plan: Arc<dyn std::any::Any + Send + Sync>,
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

    /// Runs a planned statement with its [`Statement::parameters`]. Fails when a parameter has no
    /// value; the stream fails with `DeadlineExceeded` when `timeout` has passed since this call.
    async fn execute(&self, planned: &Planned, timeout: Duration) -> Result<SendableRecordBatchStream, QueryError>;

    /// The tables the principal may read now, with the columns they may read, in order, from the catalogue's cache of
    /// versions and schemas.
    async fn tables(&self, access: &Access) -> Result<Vec<TableSummary>, QueryError>;
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
}
