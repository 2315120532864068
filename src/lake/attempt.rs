//! One numbered try to change a table.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::lake::{Chain, LakeError, Snapshot, Staged, TableWriter, WritePlan};
use crate::model::{CarriedFile, Reject};

/// One numbered try to change a table. Nothing of it counts until [`Attempt::commit`] has landed.
pub struct Attempt {
    snapshot: Option<Arc<Snapshot>>,
    chain: Chain,
}

/// What an attempt says about its source, next to the rows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How far the source has been read, in the source's own words.
    pub position: Option<serde_json::Value>,
    /// The files it carries; each takes the place of the entry with its path.
    pub files: Vec<CarriedFile>,
    /// Paths of files that are no longer known after it.
    pub forgotten_files: Vec<String>,
    /// Tells whether the table's definition changed since.
    pub definition_hash: String,
    /// Names the life of the source the position belongs to, where it has such a name.
    pub epoch: Option<String>,
}

/// An attempt that landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The Delta version it made.
    pub version: u64,
    /// Its number.
    pub attempt: i64,
}

impl Attempt {
    /// What is changed; none before the first version.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// What landed before.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Begins writing.
    ///
    /// # Errors
    /// When the plan's columns cannot become the table's.
    pub fn writer(&self, _plan: WritePlan) -> Result<TableWriter, LakeError> {
        Err(LakeError::new(ErrorKind::Unsupported, "not built yet"))
    }

    /// Keeps rows that did not fit; they become visible when the attempt lands. Memory is bounded: they go to disk.
    ///
    /// # Errors
    /// When they cannot be kept, such as on a full disk.
    pub async fn reject(&mut self, _rejects: &[Reject]) -> Result<(), LakeError> {
        Err(LakeError::new(ErrorKind::Unsupported, "not built yet"))
    }

    /// Writes the record, then commits once. Landed means: the table's `txn` is this attempt's number.
    ///
    /// # Errors
    /// `Conflict` when somebody else changed the table or took the lease, `Unavailable` when the store did
    /// not answer; the message says whether the outcome is known. Nothing changed unless it says so.
    pub async fn commit(self, _staged: Staged, _facts: Facts) -> Result<Committed, LakeError> {
        Err(LakeError::new(ErrorKind::Unsupported, "not built yet"))
    }
}
