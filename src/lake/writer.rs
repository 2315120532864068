//! Writing rows into data files that no version names yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::{Action, Metadata, Protocol};
use deltalake::protocol::DeltaOperation;

use crate::error::ErrorKind;
use crate::lake::store::TablePlace;
use crate::lake::{LakeError, Snapshot};
use crate::model::{ChangeBatch, LoadMode};

/// What is going to be written.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// The columns of the batches.
    pub schema: SchemaRef,
    /// Columns that name a row; empty where rows have no name.
    pub key: Vec<String>,
    /// How the rows meet those that are there.
    pub mode: LoadMode,
    /// A load of everything anew: whatever the mode, the table's present files all go in the same commit, the
    /// rows meet an empty table, and the columns are the plan's, whatever they were (`lakegate sync --reload`).
    pub reload: bool,
}

/// What a writer needs to know of the table and the machine.
#[derive(Clone)]
pub(super) struct WriterPlace {
    /// Where the table is and how to reach it.
    pub(super) place: TablePlace,
    /// What is changed; none before the first version.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Memory and spill.
    pub(super) environment: Arc<RuntimeEnv>,
    /// Size in bytes a data file is written to reach.
    pub(super) target_file_size: u64,
}

/// Takes changes and writes data files. One at a time per table; nothing counts until it is committed.
pub struct TableWriter {
    _place: WriterPlace,
    _plan: WritePlan,
}

/// What a change would cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteEstimate {
    /// Bytes of the change itself.
    pub change_bytes: u64,
    /// Bytes of data files that would be written anew for it.
    pub rewrite_bytes: u64,
    /// Number of those files.
    pub files: usize,
}

/// Data files that were written, and the actions that will make them count.
pub struct Staged {
    /// Add, Remove, Metadata and Protocol actions.
    pub actions: Vec<Action>,
    /// What the log will say was done.
    pub operation: DeltaOperation,
    /// Rows written for the change.
    pub rows_written: u64,
    /// Bytes of data files written.
    pub bytes_written: u64,
    /// Data files taken out.
    pub files_removed: usize,
    /// Bytes of the data files taken out.
    pub bytes_removed: u64,
    /// Mode `mirror`: the data files that hold the rows of each [`ChangeBatch::file`].
    pub data_files_by_file: BTreeMap<usize, Vec<String>>,
    /// The first commit of a table makes it.
    pub create: Option<TableCreation>,
}

/// What makes a table.
#[derive(Clone, Debug)]
pub struct TableCreation {
    /// Columns, properties, description.
    pub metadata: Metadata,
    /// Reader and writer versions and features.
    pub protocol: Protocol,
}

impl Staged {
    /// A commit that only records facts, such as files that were touched or renamed.
    pub fn nothing() -> Self {
        Self {
            actions: Vec::new(),
            operation: DeltaOperation::Write {
                mode: deltalake::protocol::SaveMode::Append,
                partition_by: None,
                predicate: None,
            },
            rows_written: 0,
            bytes_written: 0,
            files_removed: 0,
            bytes_removed: 0,
            data_files_by_file: BTreeMap::new(),
            create: None,
        }
    }
}

impl TableWriter {
    /// Begins writing.
    ///
    /// # Errors
    /// When the plan's columns cannot become the table's.
    pub(super) fn open(place: WriterPlace, plan: WritePlan) -> Result<Self, LakeError> {
        Ok(Self { _place: place, _plan: plan })
    }

    /// Takes rows; waits while memory is short.
    ///
    /// # Errors
    /// When rows do not have the plan's columns or cannot be stored.
    pub async fn write(&mut self, _change: ChangeBatch) -> Result<(), LakeError> {
        Err(LakeError::new(ErrorKind::Unsupported, "not built yet"))
    }

    /// After the last batch: what an Upsert or Delete change would cost. Other modes rewrite nothing.
    ///
    /// # Errors
    /// When the changes cannot be sorted or the table's files cannot be read.
    pub async fn prepare(&mut self) -> Result<RewriteEstimate, LakeError> {
        Ok(RewriteEstimate::default())
    }

    /// Writes what is left. `replaced` are data files to take out (mode `mirror`).
    ///
    /// # Errors
    /// When data files cannot be read or written; what was written is removed.
    pub async fn finish(self, _replaced: &[String]) -> Result<Staged, LakeError> {
        Ok(Staged::nothing())
    }

    /// Removes what was written.
    pub async fn abort(self) {}
}
