//! The `system` schema: what was loaded, from which files, what was rejected and why, and which
//! tables there are.
//!
//! `system.tables`: `table_schema`, `table_name`, `version` and `committed_at` (none before the first
//! load), `rows`, `bytes` and `files` of that version, `mode`, `key_columns`, `load_group`, `description`.
//!
//! `system.loads`: `load_id`, `table_schema`, `table_name`, `started_at`, `ended_at`, `status`
//! (committed, unchanged, deferred, failed), `rows_read`, `rows_written`, `rows_rejected`, `bytes_read`,
//! `bytes_written`, `version`, `attempt`, `position` (JSON), `error_kind`, `error`.
//!
//! `system.files`: `table_schema`, `table_name`, `path`, `size_bytes`, `modified_at`, `content_hash`,
//! `rows_taken`, `rows_rejected`, `status` (loaded, touched, renamed, refused, removed).
//!
//! `system.rejects`, newest attempt of a table first: `table_schema`, `table_name`, `attempt`, `file`,
//! `line`, `column_name`, `reason`, `raw`.
//!
//! `system.verifications`: `verification_id`, `table_schema`, `table_name`, `started_at`, `ended_at`, `status` (same,
//! differs, repaired, failed), `version` that was compared, `method`, `since` (the source's version), `ranges`,
//! `rows_compared`, `keys_left_out`, `ranges_differing`, `differences` (JSON), `repaired_version`, `notes`, `error_kind`,
//! `error`.
//!
//! Files and rejects are read from the chains of the tables a filter leaves over, table by table. Who does not see all
//! of a table is told less of it, or nothing: see `telling`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::access::Access;
use crate::config::{Settings, TableDefinition};
use crate::error::{Classify, ErrorKind};
use crate::journal::{Journal, JournalError, LoadRecord, LoadStatus, VerificationRecord};
use crate::lake::{Lake, LakeError};
use crate::model::{CarriedFile, FileStatus, LoadMode, Reject, TableName};
use crate::query::QueryError;
use crate::query::sealed::seen_key;
use crate::query::telling::Telling;

/// The schema's name.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// Rows of a batch that is made here.
const BATCH_ROWS: usize = 1024;

/// Tables whose log is looked at at the same time.
const PARALLEL_TABLES: usize = 8;

type Batches = BoxStream<'static, Result<RecordBatch>>;

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
        Kind::ALL.iter().map(|kind| (kind.name(), kind.schema(), kind.description())).collect()
    }

    /// Whether there is such a table.
    pub(crate) fn has(table: &str) -> bool {
        Kind::ALL.iter().any(|kind| kind.name() == table)
    }

    /// What reads a table.
    ///
    /// # Errors
    /// When there is no such table.
    pub(crate) fn provider(&self, table: &str, access: &Access) -> Result<Arc<dyn TableProvider>, QueryError> {
        match Kind::ALL.iter().find(|kind| kind.name() == table) {
            Some(kind) => Ok(Arc::new(SystemTable { kind: *kind, system: self.clone(), access: access.clone() })),
            None => Err(QueryError::new(ErrorKind::NotFound, format!("there is no table `{SYSTEM_SCHEMA}.{table}`"))),
        }
    }

    fn names(&self, told: impl Fn(&TableName) -> bool) -> Vec<TableName> {
        self.settings.tables.keys().filter(|name| told(name)).cloned().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Files,
    Loads,
    Rejects,
    Tables,
    Verifications,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Files, Self::Loads, Self::Rejects, Self::Tables, Self::Verifications];

    fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Loads => "loads",
            Self::Rejects => "rejects",
            Self::Tables => "tables",
            Self::Verifications => "verifications",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Files => "Source files as the newest version of each table knows them",
            Self::Loads => "Every load: when, how many rows, how it ended",
            Self::Rejects => "Rows that did not fit, with file, line, column, reason and raw text",
            Self::Tables => "Tables that are defined, with their newest version",
            Self::Verifications => "Every comparison of a table with its source: what was compared, what differs",
        }
    }

    /// Columns in order; `true` where every row has a value.
    fn schema(self) -> SchemaRef {
        let (text, number) = (DataType::Utf8, DataType::Int64);
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let own: Vec<(&str, &DataType, bool)> = match self {
            Self::Tables => vec![
                ("version", &number, false),
                ("committed_at", &time, false),
                ("rows", &number, false),
                ("bytes", &number, false),
                ("files", &number, false),
                ("mode", &text, true),
                ("key_columns", &text, false),
                ("load_group", &text, false),
                ("description", &text, false),
            ],
            Self::Loads => vec![
                ("load_id", &text, true),
                ("started_at", &time, true),
                ("ended_at", &time, true),
                ("status", &text, true),
                ("rows_read", &number, false),
                ("rows_written", &number, false),
                ("rows_rejected", &number, false),
                ("bytes_read", &number, false),
                ("bytes_written", &number, false),
                ("version", &number, false),
                ("attempt", &number, false),
                ("position", &text, false),
                ("error_kind", &text, false),
                ("error", &text, false),
            ],
            Self::Verifications => vec![
                ("verification_id", &text, true),
                ("started_at", &time, true),
                ("ended_at", &time, true),
                ("status", &text, true),
                ("version", &number, false),
                ("method", &text, false),
                ("since", &number, false),
                ("ranges", &number, true),
                ("rows_compared", &number, true),
                ("keys_left_out", &number, true),
                ("ranges_differing", &number, true),
                ("differences", &text, false),
                ("repaired_version", &number, false),
                ("notes", &text, false),
                ("error_kind", &text, false),
                ("error", &text, false),
            ],
            Self::Files => vec![
                ("path", &text, true),
                ("size_bytes", &number, true),
                ("modified_at", &time, true),
                ("content_hash", &text, true),
                ("rows_taken", &number, true),
                ("rows_rejected", &number, true),
                ("status", &text, true),
            ],
            Self::Rejects => vec![
                ("attempt", &number, true),
                ("file", &text, true),
                ("line", &number, false),
                ("column_name", &text, false),
                ("reason", &text, true),
                ("raw", &text, true),
            ],
        };
        let name = [("table_schema", &text, true), ("table_name", &text, true)];
        let fields = name.iter().chain(&own).map(|(name, kind, always)| Field::new(*name, (*kind).clone(), !always));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn batches(self, system: System, telling: Telling) -> Batches {
        match self {
            Self::Tables => tables(system, telling),
            Self::Loads => loads(system, telling),
            Self::Files => files(system, &telling),
            Self::Rejects => rejects(system, &telling),
            Self::Verifications => verifications(system, telling),
        }
    }
}

/// One of the schema's tables as the engine reads it.
struct SystemTable {
    kind: Kind,
    system: System,
    access: Access,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SYSTEM_SCHEMA}.{}", self.kind.name())
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.kind.schema()
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
        let names: BTreeSet<TableName> = self.system.settings.tables.keys().cloned().collect();
        let left: BTreeSet<TableName> =
            names.iter().filter(|name| filters.iter().all(|filter| may_hold(filter, name))).cloned().collect();
        let only = (left.len() < names.len()).then_some(left);
        let telling = Telling::new(only, &self.access);
        let part = Part { kind: self.kind, schema: self.kind.schema(), system: self.system.clone(), telling };
        let exec =
            StreamingTableExec::try_new(self.kind.schema(), vec![Arc::new(part)], projection, vec![], false, limit)?;
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
    kind: Kind,
    schema: SchemaRef,
    system: System,
    telling: Telling,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SYSTEM_SCHEMA}.{}", self.kind.name())
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.kind.batches(self.system.clone(), self.telling.clone());
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

fn tables(system: System, telling: Telling) -> Batches {
    let names = system.names(|name| telling.names(name));
    let settings = Arc::clone(&system.settings);
    stream::iter(names)
        .map(move |name| {
            let system = system.clone();
            async move {
                let snapshot = system.lake.table(&name).snapshot().await.map_err(failed)?;
                Ok::<_, DataFusionError>((name, snapshot))
            }
        })
        .buffered(PARALLEL_TABLES)
        .try_chunks(BATCH_ROWS)
        .map_err(|error| error.1)
        .and_then(move |rows| {
            std::future::ready({
                let mut table = Columns::new(Kind::Tables);
                let snapshot = |get: &dyn Fn(&crate::lake::Snapshot) -> Option<i64>| {
                    rows.iter().map(|(_, s)| s.as_deref().and_then(get)).collect::<Vec<_>>()
                };
                let definition = |get: &dyn Fn(&TableDefinition) -> Option<String>| {
                    rows.iter().map(|(name, _)| settings.tables.get(name).and_then(get)).collect::<Vec<_>>()
                };
                table.names(rows.iter().map(|(name, _)| name));
                table.numbers(snapshot(&|s| count(s.version())));
                table.times(rows.iter().map(|(_, s)| s.as_deref().and_then(|s| s.committed_at())));
                let whole = |get: &dyn Fn(&crate::lake::Snapshot) -> Option<i64>| {
                    let whole = rows.iter().map(|(name, s)| s.as_deref().filter(|_| telling.everything(name)));
                    whole.map(|s| s.and_then(get)).collect::<Vec<_>>()
                };
                table.numbers(whole(&|s| s.rows().and_then(count)));
                table.numbers(whole(&|s| count(s.bytes())));
                table.numbers(whole(&|s| i64::try_from(s.files()).ok()));
                table.texts(definition(&|d| Some(mode_text(d.load.mode).to_owned())));
                let keys = rows.iter().map(|(name, _)| {
                    let key = seen_key(&settings.tables.get(name)?.key, &telling.rights(name));
                    (!key.is_empty()).then(|| key.join(", "))
                });
                table.texts(keys.collect::<Vec<_>>());
                table.texts(definition(&|d| d.load.group.clone()));
                table.texts(definition(&|d| d.description.clone()));
                table.batch()
            })
        })
        .boxed()
}

fn loads(system: System, telling: Telling) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        let pieces = journal.stream().await.map_err(failed)?;
        Ok::<_, DataFusionError>(pieces.map_err(failed))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut loads| {
            // The journal outlives definitions: loads of tables that are gone are told as well.
            loads.retain(|load| telling.names(&load.table));
            std::future::ready(load_batch(&loads, &telling))
        })
        .boxed()
}

fn load_batch(loads: &[LoadRecord], telling: &Telling) -> Result<RecordBatch> {
    let mut table = Columns::new(Kind::Loads);
    let whole: Vec<_> = loads.iter().map(|load| Some(load).filter(|load| telling.everything(&load.table))).collect();
    let numbers =
        |get: &dyn Fn(&LoadRecord) -> Option<i64>| whole.iter().map(|load| load.and_then(get)).collect::<Vec<_>>();
    let texts =
        |get: &dyn Fn(&LoadRecord) -> Option<String>| whole.iter().map(|load| load.and_then(get)).collect::<Vec<_>>();
    table.names(loads.iter().map(|load| &load.table));
    table.texts(loads.iter().map(|load| Some(load.load_id.to_string())));
    table.times(loads.iter().map(|load| Some(load.started_at)));
    table.times(loads.iter().map(|load| Some(load.ended_at)));
    table.texts(loads.iter().map(|load| Some(status_text(load.status).to_owned())));
    table.numbers(numbers(&|load| count(load.rows_read)));
    table.numbers(numbers(&|load| count(load.rows_written)));
    table.numbers(numbers(&|load| count(load.rows_rejected)));
    table.numbers(numbers(&|load| count(load.bytes_read)));
    table.numbers(numbers(&|load| count(load.bytes_written)));
    table.numbers(loads.iter().map(|load| load.version.and_then(count)));
    table.numbers(numbers(&|load| load.attempt));
    table.texts(texts(&|load| load.position.as_ref().map(ToString::to_string)));
    table.texts(texts(&|load| load.error_kind.map(|kind| kind.as_str().to_owned())));
    table.texts(texts(&|load| load.error.clone()));
    table.batch()
}

fn verifications(system: System, telling: Telling) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        let pieces = journal.verifications().await.map_err(failed)?;
        Ok::<_, DataFusionError>(pieces.map_err(failed))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut records| {
            records.retain(|record| telling.everything(&record.table));
            std::future::ready(verification_batch(&records))
        })
        .boxed()
}

fn verification_batch(records: &[VerificationRecord]) -> Result<RecordBatch> {
    let mut table = Columns::new(Kind::Verifications);
    let numbers = |get: &dyn Fn(&VerificationRecord) -> Option<i64>| records.iter().map(get).collect::<Vec<_>>();
    let texts = |get: &dyn Fn(&VerificationRecord) -> Option<String>| records.iter().map(get).collect::<Vec<_>>();
    let json = |differences: &[serde_json::Value]| {
        (!differences.is_empty()).then(|| serde_json::Value::from(differences.to_vec()).to_string())
    };
    table.names(records.iter().map(|record| &record.table));
    table.texts(texts(&|record| Some(record.verification_id.to_string())));
    table.times(records.iter().map(|record| Some(record.started_at)));
    table.times(records.iter().map(|record| Some(record.ended_at)));
    table.texts(texts(&|record| Some(record.status.as_str().to_owned())));
    table.numbers(numbers(&|record| record.version.and_then(count)));
    table.texts(texts(&|record| record.method.clone()));
    table.numbers(numbers(&|record| record.since));
    table.numbers(numbers(&|record| count(record.ranges)));
    table.numbers(numbers(&|record| count(record.rows)));
    table.numbers(numbers(&|record| count(record.left_out)));
    table.numbers(numbers(&|record| i64::try_from(record.differences.len()).ok()));
    table.texts(texts(&|record| json(&record.differences)));
    table.numbers(numbers(&|record| record.repaired_version.and_then(count)));
    table.texts(texts(&|record| (!record.notes.is_empty()).then(|| record.notes.join("; "))));
    table.texts(texts(&|record| record.error_kind.map(|kind| kind.as_str().to_owned())));
    table.texts(texts(&|record| record.error.clone()));
    table.batch()
}

fn files(system: System, telling: &Telling) -> Batches {
    let names = system.names(|name| telling.everything(name));
    stream::iter(names)
        .map(move |name| {
            let system = system.clone();
            async move {
                let chain = system.lake.table(&name).chain().await.map_err(failed)?;
                Ok::<_, DataFusionError>((name, Arc::clone(chain.files())))
            }
        })
        .buffered(PARALLEL_TABLES)
        .map_ok(|(name, files)| {
            let mut files: Vec<CarriedFile> = files.values().cloned().collect();
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let batches: Vec<_> = files.chunks(BATCH_ROWS).map(|files| file_batch(&name, files)).collect();
            stream::iter(batches)
        })
        .try_flatten()
        .boxed()
}

fn file_batch(name: &TableName, files: &[CarriedFile]) -> Result<RecordBatch> {
    let mut table = Columns::new(Kind::Files);
    table.names(files.iter().map(|_| name));
    table.texts(files.iter().map(|file| Some(file.path.clone())));
    table.numbers(files.iter().map(|file| count(file.size)));
    table.times(files.iter().map(|file| Some(file.modified)));
    table.texts(files.iter().map(|file| Some(file.content_hash.clone())));
    table.numbers(files.iter().map(|file| count(file.rows)));
    table.numbers(files.iter().map(|file| count(file.rejected)));
    table.texts(files.iter().map(|file| Some(file_status_text(file.status).to_owned())));
    table.batch()
}

fn rejects(system: System, telling: &Telling) -> Batches {
    let names = system.names(|name| telling.everything(name));
    stream::iter(names)
        .then(move |name| {
            let system = system.clone();
            async move {
                let chain = system.lake.table(&name).chain().await.map_err(failed)?;
                let batches = chain
                    .rejects()
                    .try_chunks(BATCH_ROWS)
                    .map_err(|error| failed(error.1))
                    .and_then(move |rejects| std::future::ready(reject_batch(&name, &rejects)));
                Ok::<_, DataFusionError>(batches)
            }
        })
        .try_flatten()
        .boxed()
}

fn reject_batch(name: &TableName, rejects: &[(i64, Reject)]) -> Result<RecordBatch> {
    let mut table = Columns::new(Kind::Rejects);
    table.names(rejects.iter().map(|_| name));
    table.numbers(rejects.iter().map(|(attempt, _)| Some(*attempt)));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.file.clone())));
    table.numbers(rejects.iter().map(|(_, reject)| reject.line.and_then(count)));
    table.texts(rejects.iter().map(|(_, reject)| reject.column.clone()));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.reason.clone())));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.raw.clone())));
    table.batch()
}

/// Columns of a batch, gathered in the order of the table's schema.
struct Columns {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
}

impl Columns {
    fn new(kind: Kind) -> Self {
        Self { schema: kind.schema(), columns: Vec::new() }
    }

    fn names<'a>(&mut self, names: impl Iterator<Item = &'a TableName> + Clone) {
        self.columns.push(Arc::new(StringArray::from_iter_values(names.clone().map(TableName::schema))));
        self.columns.push(Arc::new(StringArray::from_iter_values(names.map(TableName::table))));
    }

    fn texts(&mut self, values: impl IntoIterator<Item = Option<String>>) {
        self.columns.push(Arc::new(values.into_iter().collect::<StringArray>()));
    }

    fn numbers(&mut self, values: impl IntoIterator<Item = Option<i64>>) {
        self.columns.push(Arc::new(values.into_iter().collect::<Int64Array>()));
    }

    fn times(&mut self, values: impl IntoIterator<Item = Option<DateTime<Utc>>>) {
        let micros = values.into_iter().map(|time| time.map(|time| time.timestamp_micros()));
        self.columns.push(Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
    }

    fn batch(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.schema, self.columns)?)
    }
}

fn failed(error: impl Into<StorageFailure>) -> DataFusionError {
    error.into().0.into()
}

/// A failure of the rooms below, in the words of this one.
struct StorageFailure(QueryError);

impl From<LakeError> for StorageFailure {
    fn from(error: LakeError) -> Self {
        Self(error.into())
    }
}

impl From<JournalError> for StorageFailure {
    fn from(error: JournalError) -> Self {
        tracing::warn!(error = %crate::error::chain_text(&error), "the journal could not be read");
        Self(QueryError::new(error.kind(), "the journal of loads could not be read; look into the server's log"))
    }
}

fn count(number: u64) -> Option<i64> {
    number.try_into().ok()
}

fn mode_text(mode: LoadMode) -> &'static str {
    match mode {
        LoadMode::Append => "append",
        LoadMode::Upsert => "upsert",
        LoadMode::Replace => "replace",
        LoadMode::Mirror => "mirror",
    }
}

fn status_text(status: LoadStatus) -> &'static str {
    match status {
        LoadStatus::Committed => "committed",
        LoadStatus::Unchanged => "unchanged",
        LoadStatus::Deferred => "deferred",
        LoadStatus::Failed => "failed",
    }
}

fn file_status_text(status: FileStatus) -> &'static str {
    match status {
        FileStatus::Loaded => "loaded",
        FileStatus::Touched => "touched",
        FileStatus::Renamed => "renamed",
        FileStatus::Refused => "refused",
        FileStatus::Removed => "removed",
    }
}
