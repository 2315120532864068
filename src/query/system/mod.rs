//! The `system` schema: what happened and what there is. Each table stands in a file of its own, with its columns
//! and what its rows are read from.

mod columns;
mod files;
mod loads;
mod queries;
mod rejects;
mod sessions;
mod streams;
mod tables;
mod verifications;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA_TABLES;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::access::{Access, TableRights};
use crate::config::{RESULTS_SCHEMA, Settings};
use crate::error::{ErrorKind, chain_text};
use crate::journal::{Journal, LoadRecord};
use crate::lake::{Lake, Made, Snapshot};
use crate::model::TableName;
use crate::query::QueryError;
use crate::query::catalog::INFORMATION_SCHEMA;

/// The schema's name.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// Rows of a batch that is made here.
const BATCH_ROWS: usize = 1024;

/// Tables whose log is looked at at the same time.
const PARALLEL_TABLES: usize = 8;

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The tables, in order of their names.
static TABLES: [&Definition; 8] = [
    &files::FILES,
    &loads::LOADS,
    &queries::QUERIES,
    &rejects::REJECTS,
    &sessions::SESSIONS,
    &streams::STREAMS,
    &tables::TABLES,
    &verifications::VERIFICATIONS,
];

/// One of the tables.
struct Definition {
    name: &'static str,
    description: &'static str,
    /// Which rows are told to those who may not see everything.
    told: &'static str,
    /// A table whose rows are about tables begins with their schema and name.
    columns: &'static [columns::Column],
    /// Whether it goes through the tables there are, rather than through what was noted.
    goes_through_tables: bool,
    rows: fn(System, Wanted) -> Batches,
}

impl Definition {
    fn schema(&self) -> SchemaRef {
        columns::arrow_schema(self.columns)
    }

    /// Whether it has to be known for somebody which tables people made: to go through them, or to tell what was noted of
    /// a table to its owner.
    fn needs_made(&self, access: &Access) -> bool {
        let is_about_tables = self.columns.first() == Some(&columns::schema());
        self.goes_through_tables || (is_about_tables && !access.is_unrestricted())
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SYSTEM_SCHEMA}.{}", self.name)
    }
}

/// The tables that nobody is granted, by name, each with what of it is told to those who may not see everything.
pub fn told_of_own_tables() -> Vec<(String, &'static str)> {
    let system = TABLES.iter().map(|table| (format!("{SYSTEM_SCHEMA}.{}", table.name), table.told));
    let listing = INFORMATION_SCHEMA_TABLES
        .iter()
        .map(|table| (format!("{INFORMATION_SCHEMA}.{table}"), "names of tables and columns they may read"));
    system.chain(listing).collect()
}

/// Which rows are asked for, and by whom.
///
/// Rows of `system.*` hold what no filter or mask was laid over: raw texts of rejects, errors that quote them, numbers of
/// rows and bytes, names of files, positions. They are told of tables of which everything may be seen; of others that
/// may be read it is told that they are there and when they were loaded. Whoever made a table may see it.
#[derive(Clone)]
struct Wanted {
    /// What is asked for; only what it says of names of tables is looked at here.
    filters: Arc<[Expr]>,
    /// The tables that people made and that are there.
    made: Arc<BTreeMap<TableName, MadeTable>>,
    /// For whom.
    access: Access,
}

/// A table that people made, as it was when it was looked at: its owner is that of what is told.
struct MadeTable {
    newest: Arc<Snapshot>,
    says: Made,
}

impl Wanted {
    /// Whether a table is told of.
    fn names(&self, table: &TableName) -> bool {
        self.is_asked_for(table) && self.rights(table).is_readable()
    }

    /// Whether what holds values, texts or numbers of a table is told.
    fn everything(&self, table: &TableName) -> bool {
        self.is_asked_for(table) && self.rights(table).sees_everything()
    }

    /// What may be seen of a table.
    fn rights(&self, table: &TableName) -> TableRights {
        let owner = self.made.get(table).and_then(|made| made.says.owner.as_deref());
        self.access.table(table, owner)
    }

    /// What may be seen of a load. Another table may have had the name before, and was none of its present owner's: by
    /// owning the table they see what was done since they made it, and what they did themselves.
    fn rights_of_load(&self, load: &LoadRecord) -> TableRights {
        let granted = || self.access.table(&load.table, None);
        let Some(MadeTable { says: made, .. }) = self.made.get(&load.table) else { return granted() };
        let by_owner = load.written.as_ref().is_some_and(|written| Some(&written.by) == made.owner.as_ref());
        let since = made.since.is_some_and(|since| load.started_at >= since);
        if by_owner || since { self.rights(&load.table) } else { granted() }
    }

    /// Whether what a person did may be told.
    fn is_own(&self, principal: &str) -> bool {
        self.access.is_unrestricted() || self.access.principal().name == principal
    }

    fn is_asked_for(&self, table: &TableName) -> bool {
        self.filters.iter().all(|filter| may_hold(filter, table))
    }
}

/// What the tables of the schema are made of.
#[derive(Clone)]
pub(crate) struct System {
    pub(crate) settings: Arc<Settings>,
    pub(crate) lake: Lake,
    pub(crate) journal: Arc<Journal>,
}

impl System {
    /// Names, columns and meanings, in order of the names.
    pub(crate) fn tables() -> Vec<(&'static str, SchemaRef, &'static str)> {
        TABLES.iter().map(|table| (table.name, table.schema(), table.description)).collect()
    }

    /// Whether there is such a table.
    pub(crate) fn has(table: &str) -> bool {
        TABLES.iter().any(|definition| definition.name == table)
    }

    /// What reads a table for somebody.
    ///
    /// # Errors
    /// When there is no such table.
    pub(crate) fn provider(&self, table: &str, access: &Access) -> Result<Arc<dyn TableProvider>, QueryError> {
        match TABLES.iter().copied().find(|definition| definition.name == table) {
            Some(definition) => Ok(Arc::new(SystemTable { definition, system: self.clone(), access: access.clone() })),
            None => Err(QueryError::new(ErrorKind::NotFound, format!("there is no table `{SYSTEM_SCHEMA}.{table}`"))),
        }
    }

    /// The tables that are defined or made and of which something is told, in order.
    fn names(&self, wanted: &Wanted, told: impl Fn(&TableName) -> bool) -> Vec<TableName> {
        let all: BTreeSet<&TableName> = self.settings.tables.keys().chain(wanted.made.keys()).collect();
        all.into_iter().filter(|name| told(name)).cloned().collect()
    }

    /// The tables that people made and that are there, of those that are asked for. One that cannot be opened is not
    /// among them: what ails it is nothing for whoever asks for others.
    async fn made(&self, wanted: &Wanted) -> Result<BTreeMap<TableName, MadeTable>> {
        let names = self.lake.tables_in(RESULTS_SCHEMA).await.map_err(columns::failed)?;
        let is_asked_for = |name: &TableName| wanted.is_asked_for(name) && !self.settings.tables.contains_key(name);
        let looks = names.into_iter().filter(is_asked_for).map(|name| async move {
            match self.lake.table(&name).snapshot().await {
                Ok(newest) => {
                    let newest = newest.filter(|newest| !newest.is_dropped())?;
                    let says = newest.made();
                    Some((name, MadeTable { newest, says }))
                }
                Err(error) => {
                    tracing::warn!(table = %name, error = %chain_text(&error), "a table that somebody made cannot be told of");
                    None
                }
            }
        });
        let looks: Vec<_> = looks.collect();
        Ok(stream::iter(looks).buffered(PARALLEL_TABLES).filter_map(std::future::ready).collect().await)
    }
}

/// One of the schema's tables as the engine reads it.
#[derive(Clone)]
struct SystemTable {
    definition: &'static Definition,
    system: System,
    access: Access,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.definition, f)
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.definition.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters on the table's name save opening the others; they are applied again above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = Wanted { filters: filters.into(), made: Arc::default(), access: self.access.clone() };
        let schema = self.definition.schema();
        let part = Part { table: self.clone(), schema: Arc::clone(&schema), wanted };
        let exec = StreamingTableExec::try_new(schema, vec![Arc::new(part)], projection, vec![], false, limit)?;
        Ok(Arc::new(exec))
    }
}

/// Whether a filter can be true for rows of a table: only `table_name = 'x'` and `table_schema = 'y'`
/// are looked at.
fn may_hold(filter: &Expr, name: &TableName) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return true };
    match op {
        Operator::And => may_hold(left, name) && may_hold(right, name),
        Operator::Eq => {
            let (Expr::Column(column), Expr::Literal(value, _)) = (left.as_ref(), right.as_ref()) else { return true };
            match (column.name.as_str(), value.try_as_str().flatten()) {
                ("table_schema", Some(schema)) => schema == name.schema(),
                ("table_name", Some(table)) => table == name.table(),
                _ => true,
            }
        }
        _ => true,
    }
}

/// The one partition of a table.
struct Part {
    table: SystemTable,
    schema: SchemaRef,
    wanted: Wanted,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.table, f)
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (definition, system) = (self.table.definition, self.table.system.clone());
        let mut wanted = self.wanted.clone();
        let batches = stream::once(async move {
            if definition.needs_made(&wanted.access) {
                wanted.made = Arc::new(system.made(&wanted).await?);
            }
            Ok::<_, DataFusionError>((definition.rows)(system, wanted))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches.try_flatten()))
    }
}
