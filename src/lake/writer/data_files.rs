//! Data files in the making: how they are encoded, and what the log will say of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::logstore::ObjectStoreRef;
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::value::RawValue;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::schema::{quote, statistics_columns};
use crate::lake::sort::{Noted, SortedBy};
use crate::lake::writer::WriterPlace;
use crate::lake::writer::calendar::columns_beyond_years;
use crate::lake::writer::recorded::RecordedStore;
use crate::model::{KeyFolding, TableName};

/// Rows of a row group: few enough to prune by and to hold in memory, enough to compress well.
const ROW_GROUP_ROWS: usize = 262_144;

/// Bytes of a row group where rows are wide.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Most rows between two looks at how big a file has become, as DataFusion hands them out.
const MOST_ROWS_A_LOOK: u64 = 8192;

/// Fewest rows between two looks: each costs a walk over the columns.
const FEWEST_ROWS_A_LOOK: u64 = 64;

/// Bytes a row is taken to have, compressed, in finding how often to look: more than most have.
const BYTES_A_ROW: u64 = 512;

/// Bytes of a column's dictionary in a row group. A column with more distinct values than fit is written plainly from
/// there on; the library's own limit of 1 MiB lets columns without repetitions, such as measurements, fill a
/// dictionary in vain in every row group, which was a third of the work of writing them.
const DICTIONARY_BYTES: usize = 128 << 10;

/// Zstd level: higher ones cost twice the time for a few percent of size.
const ZSTD_LEVEL: i32 = 1;

/// Makes the data files of one attempt. Clones share the store, the budget for uploads and what was written.
#[derive(Clone)]
pub(crate) struct DataFiles {
    table: TableName,
    store: Arc<RecordedStore>,
    layout: Arc<Layout>,
    /// Shared by all runs of files, for it bounds their uploads together.
    config: WriterConfig,
    statistics: Arc<Vec<String>>,
    sorted_by: Option<SortedBy>,
}

impl DataFiles {
    /// Data files with the columns `schema`, whose rows will be sorted by `key`, compared as `folding` says, if there is
    /// one.
    ///
    /// # Errors
    /// Where the compression level is not known.
    pub(crate) fn new(
        place: &WriterPlace,
        schema: &SchemaRef,
        key: &[String],
        folding: &[KeyFolding],
    ) -> Result<Self, LakeError> {
        let table = place.place.name().clone();
        let statistics = statistics_columns(schema, key);
        let partitions = place.snapshot.as_ref().map_or(&[][..], |snapshot| snapshot.pinned().partition_columns());
        let look = (place.target_file_size / BYTES_A_ROW).clamp(FEWEST_ROWS_A_LOOK, MOST_ROWS_A_LOOK);
        let layout = Layout {
            schema: Arc::clone(schema),
            partitions: partitions.to_vec(),
            properties: properties(&table, schema, key)?,
            file_bytes: NonZeroU64::new(place.target_file_size),
            look: usize::try_from(look).unwrap_or(usize::MAX),
        };
        let config = layout.config(statistics.iter());
        let store = RecordedStore::new(Arc::clone(place.place.store()), place.place.path().clone());
        let sorted_by = (!key.is_empty()).then(|| SortedBy::of(schema, key, folding));
        Ok(Self {
            table,
            store: Arc::new(store),
            layout: Arc::new(layout),
            config,
            statistics: Arc::new(statistics),
            sorted_by,
        })
    }

    /// One run of data files: each is full before the next begins.
    pub(crate) fn begin(&self) -> OpenFiles {
        // In a partitioned table files are not written one after the other.
        let sorted_by = self.sorted_by.as_ref().filter(|_| self.config.file_schema() == self.layout.schema);
        let noted = sorted_by.and_then(|sorted_by| Noted::begin(sorted_by, &self.layout.schema, self.layout.look));
        let writer = self.writer(self.config.clone());
        OpenFiles { writer, files: self.clone(), noted, closed: Vec::new(), left_out: BTreeSet::new() }
    }

    fn writer(&self, config: WriterConfig) -> DeltaWriter {
        DeltaWriter::new(Arc::clone(&self.store) as ObjectStoreRef, config)
    }

    /// The columns of rows to be written.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.layout.schema)
    }

    /// The same columns and store, for files whose rows have no order.
    pub(crate) fn unsorted(&self) -> Self {
        Self { sorted_by: None, ..self.clone() }
    }

    /// Removes everything written so far. Call it when nobody writes any more.
    pub(crate) async fn discard(&self) {
        self.store.discard().await;
    }

    /// The order the rows are to be in; none where they have none.
    pub(crate) fn sorted_by(&self) -> Option<&SortedBy> {
        self.sorted_by.as_ref()
    }

    fn error(&self, cause: deltalake::DeltaTableError) -> LakeError {
        LakeError::delta(format!("cannot write a data file of table {}", self.table), cause)
    }

    fn complete(&self, mut adds: Vec<Add>, noted: Option<Noted>) -> Vec<Add> {
        for add in &mut adds {
            add.stats = add.stats.take().and_then(|stats| self.only_listed(&stats));
        }
        if let Some(sorted_by) = &self.sorted_by {
            sorted_by.state(&mut adds, noted);
        }
        adds
    }

    /// The writer finds a column by the last part of its path, so a nested field of the same name would get
    /// statistics that are not safe; and no reader understands a year before 0 or after 9999, which have a sign.
    /// Both are taken out.
    fn only_listed(&self, stats: &str) -> Option<String> {
        // Values stay the text they are: a number read and written again may be another one in its last digit.
        type Texts = BTreeMap<String, Box<RawValue>>;
        let mut parts: Texts = serde_json::from_str(stats).ok()?;
        for part in ["minValues", "maxValues", "nullCount"] {
            let Some(text) = parts.get_mut(part) else { continue };
            let mut columns: Texts = serde_json::from_str(text.get()).ok()?;
            columns.retain(|column, value| {
                let beyond_years =
                    ["\"+", "\"-"].iter().any(|sign| value.get().starts_with(sign)) && self.is_time(column);
                self.statistics.contains(column) && !value.get().starts_with('{') && !beyond_years
            });
            *text = serde_json::value::to_raw_value(&columns).ok()?;
        }
        serde_json::to_string(&parts).ok()
    }

    fn is_time(&self, column: &str) -> bool {
        let field = self.layout.schema.field_with_name(column);
        field.is_ok_and(|field| matches!(field.data_type(), DataType::Date32 | DataType::Timestamp(..)))
    }
}

/// How data files are laid out.
struct Layout {
    schema: SchemaRef,
    partitions: Vec<String>,
    properties: WriterProperties,
    /// Size in bytes a file is written to reach.
    file_bytes: Option<NonZeroU64>,
    /// Rows between two places where a file may end.
    look: usize,
}

impl Layout {
    /// For files with statistics of these columns.
    fn config<'a>(&self, statistics: impl Iterator<Item = &'a String>) -> WriterConfig {
        // The library's own reading of an empty configuration; the list of columns goes before it.
        let (count, _) = get_num_idx_cols_and_stats_columns(
            None,
            HashMap::from([("delta.dataSkippingNumIndexedCols".to_owned(), Some("0".to_owned()))]),
        );
        let quoted: Vec<String> = statistics.map(|column| quote(column)).collect();
        WriterConfig::new(
            Arc::clone(&self.schema),
            self.partitions.clone(),
            Some(self.properties.clone()),
            self.file_bytes,
            Some(self.look),
            count,
            Some(quoted).filter(|columns| !columns.is_empty()),
        )
    }
}

/// Data files being written, one after the other. Must be closed or aborted.
pub(crate) struct OpenFiles {
    writer: DeltaWriter,
    files: DataFiles,
    noted: Option<Noted>,
    /// Files that were closed before they were full.
    closed: Vec<Add>,
    /// Columns that the files from here on have no statistics of.
    left_out: BTreeSet<String>,
}

impl OpenFiles {
    /// Encodes rows; a full file is uploaded meanwhile.
    pub(crate) async fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        let mut beyond = columns_beyond_years(rows);
        beyond.retain(|column| self.files.statistics.contains(column));
        if !beyond.is_subset(&self.left_out) {
            self.leave_out(beyond).await?;
        }
        if let Some(noted) = &mut self.noted {
            noted.take(rows);
        }
        self.writer.write(rows).await.map_err(|cause| self.files.error(cause))
    }

    /// Leaves columns out of the statistics of all files from here on. The file that is open has them, and is completed.
    async fn leave_out(&mut self, columns: BTreeSet<String>) -> Result<(), LakeError> {
        self.left_out.extend(columns);
        let stated = self.files.statistics.iter().filter(|column| !self.left_out.contains(*column));
        let next = self.files.writer(self.files.layout.config(stated));
        let before = std::mem::replace(&mut self.writer, next);
        self.closed.extend(before.close().await.map_err(|cause| self.files.error(cause))?);
        Ok(())
    }

    /// Completes the last file; the files are durable but no version names them yet.
    pub(crate) async fn close(self) -> Result<Vec<Add>, LakeError> {
        let mut adds = self.closed;
        adds.extend(self.writer.close().await.map_err(|cause| self.files.error(cause))?);
        Ok(self.files.complete(adds, self.noted))
    }

    /// Gives up; complete files stay until they are discarded.
    pub(crate) async fn abort(self) {
        if let Err(cause) = self.writer.abort().await {
            tracing::warn!(table = %self.files.table, %cause, "an upload could not be given up");
        }
    }
}

fn properties(table: &TableName, schema: &Schema, key: &[String]) -> Result<WriterProperties, LakeError> {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(|cause| {
        LakeError::because(ErrorKind::Internal, format!("cannot compress data files of table {table}"), cause)
    })?;
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_statistics_enabled(EnabledStatistics::Page);
    for column in float_columns(schema) {
        // Parquet leaves NaN out of minimum and maximum, DataFusion compares it as the greatest number.
        builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    for field in schema.fields().iter().filter(|field| key.contains(field.name()) && is_random(field)) {
        let column = ColumnPath::from(field.name().as_str());
        builder = builder
            .set_column_bloom_filter_enabled(column.clone(), true)
            .set_column_bloom_filter_max_ndv(column, ROW_GROUP_ROWS as u64);
    }
    Ok(builder.build())
}

/// Whether a key of this type may be text or a UUID, which ranges prune badly.
fn is_random(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Utf8 | DataType::Binary | DataType::FixedSizeBinary(_))
}

/// The Parquet paths of all floats, nested ones too.
fn float_columns(schema: &Schema) -> Vec<ColumnPath> {
    let mut found = Vec::new();
    for field in schema.fields() {
        collect_floats(field, &[], &mut found);
    }
    found
}

fn collect_floats(field: &Field, above: &[String], found: &mut Vec<ColumnPath>) {
    let mut path = above.to_vec();
    path.push(field.name().clone());
    match field.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => found.push(ColumnPath::new(path)),
        DataType::Struct(fields) => fields.iter().for_each(|field| collect_floats(field, &path, found)),
        DataType::List(item) => {
            // The three levels of a list (Parquet format, "Lists").
            path.push("list".to_owned());
            collect_floats(item, &path, found);
        }
        DataType::Map(entries, _) => collect_floats(entries, &path, found),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::model::ColumnType;

    use super::*;

    #[test]
    fn floats_are_found_at_every_depth() {
        let kind: ColumnType = "struct<a: array<struct<x: double>>, m: map<string, real>>".parse().unwrap();
        let schema = Schema::new(vec![
            Field::new("f", DataType::Float64, true),
            Field::new("s", kind.to_arrow(), true),
            Field::new("n", DataType::Int64, true),
        ]);
        let paths: Vec<String> = float_columns(&schema).iter().map(ColumnPath::string).collect();
        assert_eq!(paths, ["f", "s.a.list.element.x", "s.m.key_value.value"]);
        let converted = parquet::arrow::ArrowSchemaConverter::new().convert(&schema).unwrap();
        let stored: Vec<String> = converted.columns().iter().map(|column| column.path().string()).collect();
        assert!(paths.iter().all(|path| stored.contains(path)), "{stored:?}");
    }
}
