//! A pinned version of a table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use deltalake::DeltaTable;

use crate::lake::LakeError;
use crate::lake::store::TablePlace;

/// A pinned version of a table: never changes, may be read by many at once.
pub struct Snapshot {
    table: DeltaTable,
    place: TablePlace,
    version: u64,
    transaction: Option<i64>,
    committed_at: Option<DateTime<Utc>>,
    schema: SchemaRef,
}

impl Snapshot {
    /// Takes what `table` has loaded as a pinned version.
    ///
    /// # Errors
    /// When nothing is loaded, or what is loaded uses features lakegate cannot read.
    pub(super) async fn load(table: &DeltaTable, place: &TablePlace) -> Result<Self, LakeError> {
        let what = || format!("cannot read table {}", place.name());
        let state = table.snapshot().map_err(|cause| LakeError::delta(what(), cause))?;
        let transaction = state
            .transaction_version(table.log_store().as_ref(), super::TRANSACTION_APP)
            .await
            .map_err(|cause| LakeError::delta(what(), cause))?;
        let version = state.version();
        Ok(Self {
            version,
            transaction,
            committed_at: None,
            schema: state.snapshot().arrow_schema(),
            table: table.clone(),
            place: place.clone(),
        })
    }

    /// The Delta version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the version was committed, by the log's own words (`commitInfo.timestamp`).
    pub fn committed_at(&self) -> Option<DateTime<Utc>> {
        self.committed_at
    }

    /// The columns in plain Arrow types, no views.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Rows, where every file says how many it has.
    pub fn rows(&self) -> Option<u64> {
        let state = self.table.snapshot().ok()?;
        state.log_data().iter().map(|file| file.num_records().map(|rows| rows as u64)).sum()
    }

    /// Bytes of data files.
    pub fn bytes(&self) -> u64 {
        self.table.snapshot().map_or(0, |state| state.log_data().iter().map(|file| file.size() as u64).sum())
    }

    /// Number of data files.
    pub fn files(&self) -> usize {
        self.table.snapshot().map_or(0, |state| state.log_data().num_files())
    }

    /// The number of the attempt that made this version what it is; none when lakegate never wrote the table.
    pub fn transaction(&self) -> Option<i64> {
        self.transaction
    }

    /// The rows, for DataFusion.
    pub fn provider(&self) -> Arc<dyn TableProvider> {
        super::scan::provider(self)
    }

    /// The library's own form of this version.
    pub(super) fn table(&self) -> &DeltaTable {
        &self.table
    }

    /// Where the table is.
    pub(super) fn place(&self) -> &TablePlace {
        &self.place
    }
}
