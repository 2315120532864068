//! The rows of a table in the lake, as a source may ask for them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;

use crate::error::Classify;
use crate::lake::{LakeError, Snapshot};
use crate::model::{ContentHash, KeyFolding, KeyRange};
use crate::source::{KnownRows, SourceError};

/// The rows of a pinned version.
pub(super) struct LakeRows {
    snapshot: Arc<Snapshot>,
    environment: Arc<RuntimeEnv>,
}

impl LakeRows {
    /// Reads `snapshot` in an environment: memory and spill.
    pub(super) fn new(snapshot: Arc<Snapshot>, environment: Arc<RuntimeEnv>) -> Self {
        Self { snapshot, environment }
    }
}

#[async_trait]
impl KnownRows for LakeRows {
    fn count(&self) -> Option<u64> {
        self.snapshot.rows()
    }

    async fn present(&self, keys: &[RecordBatch], folding: &[KeyFolding]) -> Result<u64, SourceError> {
        self.snapshot.present(&self.environment, keys, folding).await.map_err(of_lake)
    }

    async fn content(
        &self,
        schema: &SchemaRef,
        range: &KeyRange,
        left_out: &[RecordBatch],
        folding: &[KeyFolding],
    ) -> Result<ContentHash, SourceError> {
        self.snapshot.content(&self.environment, schema, range, left_out, folding).await.map_err(of_lake)
    }
}

fn of_lake(error: LakeError) -> SourceError {
    SourceError::because(error.kind(), "the table in the lake cannot be compared with its source", error)
}
