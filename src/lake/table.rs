//! A handle of one table.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::lake::store::TablePlace;
use crate::lake::{Attempt, Chain, LakeError, Lease, Shared, Snapshot};
use crate::model::TableName;

/// Which version of a table is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// A Delta version.
    Version(u64),
    /// The newest version committed at or before this time, by `commitInfo.timestamp`.
    Time(DateTime<Utc>),
}

/// What every handle of one table shares.
pub(super) struct TableState {
    place: TablePlace,
}

impl TableState {
    pub(super) fn new(place: TablePlace) -> Self {
        Self { place }
    }
}

/// A handle of one table, which may not exist yet. Clones share caches.
#[derive(Clone)]
pub struct LakeTable {
    lake: Arc<Shared>,
    state: Arc<TableState>,
}

impl LakeTable {
    pub(super) fn new(lake: Arc<Shared>, state: Arc<TableState>) -> Self {
        Self { lake, state }
    }

    /// The table's name.
    pub fn name(&self) -> &TableName {
        self.state.place.name()
    }

    /// The newest version, refreshed by what is new in the log; none when there is no table yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn snapshot(&self) -> Result<Option<Arc<Snapshot>>, LakeError> {
        Err(self.unbuilt())
    }

    /// An older version, or the newest.
    ///
    /// # Errors
    /// `NotFound` when there is no table, no such version, or the time is before the first commit.
    pub async fn snapshot_at(&self, _at: At) -> Result<Arc<Snapshot>, LakeError> {
        Err(self.unbuilt())
    }

    /// What landed: files, position, rejects of the newest version.
    ///
    /// # Errors
    /// When the log or the records cannot be read, or the table is not what they say.
    pub async fn chain(&self) -> Result<Chain, LakeError> {
        Err(self.unbuilt())
    }

    /// Takes the table's lease, waiting at most `wait` for its holder.
    ///
    /// # Errors
    /// `Conflict` that says who holds it (host, process, since when, what for) when the wait was in vain.
    pub async fn lease(&self, _purpose: &str, _wait: Duration) -> Result<Lease, LakeError> {
        Err(self.unbuilt())
    }

    /// Begins an attempt: loads the newest version and the chain; after a dead holder fences it off and cleans.
    ///
    /// # Errors
    /// When the lease is lost, the table cannot be read, or it is not what its records say.
    pub async fn begin(&self, _lease: &Lease) -> Result<Attempt, LakeError> {
        Err(self.unbuilt())
    }

    fn unbuilt(&self) -> LakeError {
        let _ = &self.lake;
        LakeError::new(crate::error::ErrorKind::Unsupported, "not built yet")
    }
}
