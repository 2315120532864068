//! A pinned version of a table.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::{Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_optimizer::pruning::PruningStatistics;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake::kernel::scalars::ScalarExt;
use deltalake::kernel::{EagerSnapshot, LogicalFileView, Protocol};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::sync::OnceCell;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::scan::Footers;
use crate::lake::store::TablePlace;

/// How much of a log entry is read to find when it was committed: `commitInfo` is its first line, and only
/// a commit with a very long list of metrics would not fit.
const COMMIT_HEAD_BYTES: u64 = 64 * 1024;

/// Null counts of a version, files times columns, that are read at all: some tenths of a second, once for each version.
const MOST_NULL_COUNTS: usize = 500_000;

/// A pinned version of a table: never changes, may be read by many at once.
pub struct Snapshot {
    pinned: Arc<Pinned>,
    provider: Arc<dyn TableProvider>,
}

/// What a version and everything that reads it share.
pub(super) struct Pinned {
    pub(super) table: DeltaTable,
    pub(super) eager: EagerSnapshot,
    pub(super) place: TablePlace,
    pub(super) schema: SchemaRef,
    transaction: Option<i64>,
    committed_at: Option<DateTime<Utc>>,
    files: OnceLock<Vec<DataFile>>,
    oldest_first: OnceLock<Vec<usize>>,
    /// What the ends of some files say of their columns, once somebody has asked.
    pub(super) footers: OnceCell<Footers>,
    null_counts: OnceLock<HashMap<String, ArrayRef>>,
}

/// One data file of a version.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    /// Its path below the table's folder, as the log names it.
    pub(super) path: Path,
    /// Its size in bytes.
    pub(super) size: u64,
    /// When the log says it was written.
    pub(super) modified: DateTime<Utc>,
    /// Its rows, where the log says so.
    pub(super) rows: Option<usize>,
    /// Values of the partition columns, in the order of the table's metadata.
    pub(super) partition: Vec<ScalarValue>,
}

impl Snapshot {
    /// Takes what `table` has loaded as a pinned version.
    ///
    /// # Errors
    /// When nothing is loaded, or what is loaded uses features lakegate cannot read.
    pub(super) async fn load(table: &DeltaTable, place: &TablePlace) -> Result<Self, LakeError> {
        let what = || format!("cannot read table {}", place.name());
        let state = table.snapshot().map_err(|cause| LakeError::delta(what(), cause))?;
        let eager = state.snapshot().clone();
        let transaction = eager
            .transaction_version(table.log_store().as_ref(), super::TRANSACTION_APP)
            .await
            .map_err(|cause| LakeError::delta(what(), cause))?;
        let schema: Schema = eager
            .schema()
            .as_ref()
            .try_into_arrow()
            .map_err(|cause| LakeError::because(ErrorKind::Unsupported, what(), cause))?;
        let pinned = Arc::new(Pinned {
            committed_at: commit_time(place, eager.version()).await?,
            table: table.clone(),
            place: place.clone(),
            schema: Arc::new(schema),
            transaction,
            eager,
            files: OnceLock::new(),
            oldest_first: OnceLock::new(),
            footers: OnceCell::new(),
            null_counts: OnceLock::new(),
        });
        let provider = super::scan::provider(&pinned)?;
        Ok(Self { pinned, provider })
    }

    /// The Delta version.
    pub fn version(&self) -> u64 {
        self.pinned.eager.version()
    }

    /// The table's own name for itself (the `id` of Delta's metadata): another table in the same place has another.
    pub fn id(&self) -> &str {
        self.pinned.eager.metadata().id()
    }

    /// When the version was committed, by the log's own words (`commitInfo.timestamp`).
    pub fn committed_at(&self) -> Option<DateTime<Utc>> {
        self.pinned.committed_at
    }

    /// The columns in plain Arrow types, no views.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.pinned.schema)
    }

    /// Rows, where every file says how many it has.
    pub fn rows(&self) -> Option<u64> {
        self.pinned.files().iter().map(|file| file.rows.map(|rows| rows as u64)).sum()
    }

    /// Bytes of data files.
    pub fn bytes(&self) -> u64 {
        self.pinned.files().iter().map(|file| file.size).sum()
    }

    /// Number of data files.
    pub fn files(&self) -> usize {
        self.pinned.files().len()
    }

    /// The number of the attempt that made this version what it is; none when lakegate never wrote the table.
    pub fn transaction(&self) -> Option<i64> {
        self.pinned.transaction
    }

    /// The rows, for DataFusion: pinned, pruned by safe bounds only, without view types.
    pub fn provider(&self) -> Arc<dyn TableProvider> {
        Arc::clone(&self.provider)
    }

    /// The library's own form of this version.
    pub(super) fn table(&self) -> &DeltaTable {
        &self.pinned.table
    }

    /// Where the table is.
    pub(super) fn place(&self) -> &TablePlace {
        &self.pinned.place
    }

    /// What everything that reads this version shares.
    pub(super) fn pinned(&self) -> &Arc<Pinned> {
        &self.pinned
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at version {}", self.place.name(), self.eager.version())
    }
}

impl Pinned {
    /// The data files in the order of the log: row `i` of any statistics array is file `i`.
    pub(super) fn files(&self) -> &[DataFile] {
        self.files.get_or_init(|| self.eager.log_data().iter().map(|view| self.data_file(&view)).collect())
    }

    /// Places in the log in an order that every process finds for this version; that of the log itself depends
    /// on how the version was loaded.
    pub(super) fn oldest_first(&self) -> &[usize] {
        self.oldest_first.get_or_init(|| {
            let files = self.files();
            let mut places: Vec<usize> = (0..files.len()).collect();
            places.sort_by(|a, b| (files[*a].modified, &files[*a].path).cmp(&(files[*b].modified, &files[*b].path)));
            places
        })
    }

    /// How many values of a column are null in each file, in the order of the log, as far as it tells. Not of columns of
    /// lists and structs: what writers count there are values within them.
    pub(super) fn null_counts(&self, column: &str) -> Option<ArrayRef> {
        if let Some(place) = self.partition_columns().iter().position(|name| name == column) {
            let nulls = |file: &DataFile| {
                let is_null = file.partition[place].is_null();
                if is_null { file.rows.map(|rows| rows as u64) } else { Some(0) }
            };
            return Some(Arc::new(self.files().iter().map(nulls).collect::<UInt64Array>()));
        }
        if self.schema.field_with_name(column).is_ok_and(|field| field.data_type().is_nested()) {
            return None;
        }
        if self.files().len().saturating_mul(self.schema.fields().len()) > MOST_NULL_COUNTS {
            // Those of 64-bit integers alone, as the library reads them by the column's own type.
            return self.eager.null_counts(&Column::from_name(column));
        }
        self.null_counts.get_or_init(|| self.count_nulls()).get(column).cloned()
    }

    fn count_nulls(&self) -> HashMap<String, ArrayRef> {
        let files = self.files().len();
        let mut counts: HashMap<String, Vec<Option<u64>>> = HashMap::new();
        for (place, view) in self.eager.log_data().iter().enumerate() {
            let told = view.null_counts().as_ref().map(ScalarExt::to_json);
            let Some(serde_json::Value::Object(told)) = told else { continue };
            for (column, count) in told {
                // Of a struct there is an object.
                counts.entry(column).or_insert_with(|| vec![None; files])[place] = count.as_u64();
            }
        }
        counts.into_iter().map(|(column, counts)| (column, Arc::new(UInt64Array::from(counts)) as ArrayRef)).collect()
    }

    /// The columns rows are split by in folders, in the order of the table's metadata; lakegate makes none.
    pub(super) fn partition_columns(&self) -> &[String] {
        self.eager.metadata().partition_columns()
    }

    fn data_file(&self, view: &LogicalFileView) -> DataFile {
        let values = if self.partition_columns().is_empty() { None } else { Some(view.partition_values_map()) };
        let partition = self.partition_columns().iter().map(|column| {
            let text = values.as_ref().and_then(|values| values.get(column).cloned().flatten());
            self.partition_value(column, text)
        });
        DataFile {
            path: view.object_store_path(),
            size: u64::try_from(view.size()).unwrap_or(0),
            modified: view.modification_datetime().unwrap_or(DateTime::UNIX_EPOCH),
            rows: view.num_records(),
            partition: partition.collect(),
        }
    }

    fn partition_value(&self, column: &str, text: Option<String>) -> ScalarValue {
        let Ok(field) = self.schema.field_with_name(column) else { return ScalarValue::Null };
        // An empty text is null, whatever the type (Delta protocol, "Partition Value Serialization").
        let text = text.filter(|text| !text.is_empty());
        let parsed = text.and_then(|text| ScalarValue::try_from_string(text, field.data_type()).ok());
        parsed.or_else(|| ScalarValue::try_from(field.data_type()).ok()).unwrap_or(ScalarValue::Null)
    }
}

/// The features a protocol asks of readers or of writers (`which` is `readerFeatures` or `writerFeatures`).
pub(super) fn features(protocol: &Protocol, which: &str) -> Vec<String> {
    // The kernel shows features only in a protocol's own JSON form.
    let Ok(serde_json::Value::Object(mut protocol)) = serde_json::to_value(protocol) else { return Vec::new() };
    protocol.remove(which).and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

/// When a version was committed, by its own words; none when its log entry is gone or does not say.
///
/// # Errors
/// When the log cannot be read.
pub(super) async fn commit_time(place: &TablePlace, version: u64) -> Result<Option<DateTime<Utc>>, LakeError> {
    let path = place.path().clone().join("_delta_log").join(format!("{version:020}.json"));
    let options = GetOptions { range: Some(GetRange::Bounded(0..COMMIT_HEAD_BYTES)), ..GetOptions::default() };
    let head = match place.store().get_opts(&path, options).await {
        Ok(found) => found.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(cause) => Err(cause),
    };
    let head =
        head.map_err(|cause| LakeError::store(format!("cannot read {path} of table {}", place.name()), cause))?;
    Ok(time_of_commit(&head))
}

fn time_of_commit(entry: &[u8]) -> Option<DateTime<Utc>> {
    let lines = entry.split(|byte| *byte == b'\n');
    let mut times = lines.filter_map(|line| {
        let action: serde_json::Value = serde_json::from_slice(line).ok()?;
        action.get("commitInfo")?.get("timestamp")?.as_i64()
    });
    times.next().and_then(DateTime::from_timestamp_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_commit_is_what_its_entry_says() {
        let entry = b"{\"protocol\":{}}\n{\"commitInfo\":{\"timestamp\":1700000000123}}\n{\"add\":{\"pa";
        assert_eq!(time_of_commit(entry).map(|time| time.timestamp_millis()), Some(1_700_000_000_123));
        assert_eq!(time_of_commit(b"{\"add\":{}}"), None);
    }
}
