//! Writing rows into data files that no version names yet.

mod calendar;
mod data_files;
mod encoders;
mod modes;
mod recorded;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::{Action, Add, Metadata, Protocol};
use deltalake::protocol::{DeltaOperation, SaveMode};

use crate::error::ErrorKind;
use crate::lake::apply;
use crate::lake::schema::{self, Conform, Evolution};
use crate::lake::store::TablePlace;
use crate::lake::writer::modes::Work;
use crate::lake::{LakeError, Snapshot};
use crate::model::{ChangeBatch, ChangeKind, KeyFolding, KeyRange, LoadMode};

pub(super) use data_files::{DataFiles, OpenFiles};
pub(super) use encoders::{Pipe, encode, unless_stopped};

/// What is going to be written.
#[derive(Clone, Debug)]
pub struct WritePlan {
    /// The columns of the batches.
    pub schema: SchemaRef,
    /// Columns that name a row; empty where rows have no name.
    pub key: Vec<String>,
    /// How the values of each column of the key are compared; empty where all compare by value.
    pub folding: Vec<KeyFolding>,
    /// How the rows meet those that are there.
    pub mode: LoadMode,
    /// A load of everything anew: whatever the mode, the table's present files all go in the same commit, the
    /// rows meet an empty table, and the columns are the plan's, whatever they were (`lakegate sync --reload`).
    pub reload: bool,
}

impl WritePlan {
    /// Rows that are added to those that are there.
    pub fn append(schema: &SchemaRef, key: &[String]) -> Self {
        Self {
            schema: Arc::clone(schema),
            key: key.to_vec(),
            folding: Vec::new(),
            mode: LoadMode::Append,
            reload: false,
        }
    }
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
///
/// Memory is bounded: rows flow to tasks that encode them, and what has to be sorted goes to disk where it
/// does not fit the pool. Dropped without [`TableWriter::finish`] or [`TableWriter::abort`], what was written
/// stays until the table's next attempt cleans.
pub struct TableWriter {
    place: WriterPlace,
    plan: WritePlan,
    evolution: Evolution,
    conform: Conform,
    files: DataFiles,
    work: Work,
    rows: u64,
}

/// What a change would cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteEstimate {
    /// Bytes of the change itself, compressed.
    pub change_bytes: u64,
    /// Bytes of data files that would be written anew for it.
    pub rewrite_bytes: u64,
    /// Number of those files.
    pub files: usize,
}

/// Data files that were written, and the actions that will make them count.
pub struct Staged {
    /// Add, Remove, Metadata and Protocol actions. What [`Staged::create`] holds is not among them.
    pub actions: Vec<Action>,
    /// What the log will say was done.
    pub operation: DeltaOperation,
    /// Rows written for the change; rows carried over by a rewrite are not counted.
    pub rows_written: u64,
    /// Bytes of data files written.
    pub bytes_written: u64,
    /// Data files taken out.
    pub files_removed: usize,
    /// Bytes of the data files taken out.
    pub bytes_removed: u64,
    /// Mode `mirror`: the data files that hold the rows of each [`ChangeBatch::file`].
    pub data_files_by_file: BTreeMap<usize, Vec<String>>,
    /// Data files that were written anew because a column became wider, each with the files that now hold its
    /// rows: mode `mirror` has to remember the new names.
    pub data_files_renamed: BTreeMap<String, Vec<String>>,
    /// The first commit of a table makes it.
    pub create: Option<TableCreation>,
    /// Whether the data files were made by attempts of their own, and stay should this one not land.
    pub adopts: bool,
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
            operation: DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            rows_written: 0,
            bytes_written: 0,
            files_removed: 0,
            bytes_removed: 0,
            data_files_by_file: BTreeMap::new(),
            data_files_renamed: BTreeMap::new(),
            create: None,
            adopts: false,
        }
    }

    /// Whether a commit of it would change neither rows nor columns.
    pub fn is_nothing(&self) -> bool {
        self.actions.is_empty() && self.create.is_none() && self.data_files_renamed.is_empty()
    }

    pub(super) fn add(&mut self, adds: impl IntoIterator<Item = Add>) {
        for add in adds {
            self.bytes_written += u64::try_from(add.size).unwrap_or(0);
            self.actions.push(Action::Add(add));
        }
    }

    /// Takes out the data files at these places in the log.
    pub(super) fn remove(&mut self, snapshot: &Snapshot, files: impl Fn(usize) -> bool) {
        for (index, view) in snapshot.pinned().eager.log_data().iter().enumerate() {
            if files(index) {
                self.files_removed += 1;
                self.bytes_removed += u64::try_from(view.size()).unwrap_or(0);
                self.actions.push(Action::Remove(view.remove_action(true)));
            }
        }
    }
}

impl TableWriter {
    /// Begins writing.
    ///
    /// # Errors
    /// When the plan's columns cannot become the table's.
    pub(super) fn open(place: WriterPlace, plan: WritePlan) -> Result<Self, LakeError> {
        let table = place.place.name().clone();
        let evolution = match place.snapshot.as_ref().filter(|_| !plan.reload) {
            Some(snapshot) => schema::evolve(&table, &snapshot.schema(), &plan.schema)?,
            None => Evolution { schema: schema::first(&table, &plan.schema)?, changed: plan.reload, rewrite: false },
        };
        for key in &plan.key {
            if evolution.schema.field_with_name(key).is_err() {
                let text = format!("table {table}: the key column `{key}` is not among its columns");
                return Err(LakeError::new(ErrorKind::InvalidInput, text));
            }
        }
        let files = DataFiles::new(&place, &evolution.schema, &plan.key, &plan.folding)?;
        let conform = Conform::new(table, Arc::clone(&evolution.schema));
        let work = Work::begin(&place, &plan, &evolution, &files)?;
        Ok(Self { place, plan, evolution, conform, files, work, rows: 0 })
    }

    /// Takes rows; waits while memory is short.
    ///
    /// # Errors
    /// When rows do not have the plan's columns or cannot be stored.
    pub async fn write(&mut self, change: ChangeBatch) -> Result<(), LakeError> {
        if change.rows.num_rows() == 0 {
            return Ok(());
        }
        if change.kind != ChangeKind::Delete {
            self.rows += change.rows.num_rows() as u64;
        }
        self.work.write(&self.conform, change).await
    }

    /// Takes note that all rows in a range came, or will come, as present or as changed.
    ///
    /// # Errors
    /// When the mode is not upsert, or an end of the range is not one whole key.
    pub fn complete(&mut self, range: &KeyRange) -> Result<(), LakeError> {
        self.work.complete(range)
    }

    /// After the last batch: what an Upsert or Delete change would cost. Other modes rewrite nothing.
    ///
    /// # Errors
    /// When the changes cannot be sorted or the table's files cannot be read.
    pub async fn prepare(&mut self) -> Result<RewriteEstimate, LakeError> {
        self.work.prepare().await
    }

    /// Writes what is left. `replaced` are data files to take out (mode `mirror`).
    ///
    /// # Errors
    /// When data files cannot be read or written; what was written is removed.
    pub async fn finish(self, replaced: &[String]) -> Result<Staged, LakeError> {
        let files = self.files.clone();
        let staged = self.stage(replaced).await;
        if staged.is_err() {
            files.discard().await;
        }
        staged
    }

    /// Removes what was written.
    pub async fn abort(self) {
        self.work.abort().await;
        self.files.discard().await;
    }

    async fn stage(self, replaced: &[String]) -> Result<Staged, LakeError> {
        let done = self.work.finish(&self.files).await?;
        let mut staged = Staged { operation: operation(&self.plan), rows_written: self.rows, ..Staged::nothing() };
        match &self.place.snapshot {
            None => {
                staged.create = Some(schema::creation(self.place.place.name(), &self.evolution.schema, &self.plan.key)?)
            }
            Some(snapshot) if self.evolution.changed => {
                staged.actions = schema::actions(snapshot, &self.evolution.schema, &self.plan.key)?;
            }
            Some(_) => {}
        }
        if let Some(snapshot) = &self.place.snapshot {
            let everything = self.plan.reload || self.plan.mode == LoadMode::Replace;
            let gone = places(snapshot, replaced)?;
            let renamed = if everything || !self.evolution.rewrite || self.plan.mode == LoadMode::Upsert {
                Vec::new()
            } else {
                apply::rewrite(&self.place, snapshot, &self.conform, &self.files, &gone).await?
            };
            let rewritten: HashSet<usize> = renamed.iter().map(|(index, _)| *index).collect();
            let removed = |index: usize| {
                everything || gone.contains(&index) || done.removed.contains(&index) || rewritten.contains(&index)
            };
            staged.remove(snapshot, removed);
            for (index, adds) in renamed {
                let names = adds.iter().map(|add| add.path.clone()).collect();
                staged.data_files_renamed.insert(snapshot.pinned().files()[index].path.to_string(), names);
                staged.add(adds);
            }
        }
        staged.rows_written = done.rows.unwrap_or(staged.rows_written);
        staged.data_files_by_file = done.by_file;
        staged.add(done.adds);
        Ok(staged)
    }
}

/// Where in the log the named data files stand.
fn places(snapshot: &Snapshot, names: &[String]) -> Result<HashSet<usize>, LakeError> {
    if names.is_empty() {
        return Ok(HashSet::new());
    }
    let files = snapshot.pinned().files();
    let by_name: std::collections::HashMap<&str, usize> =
        files.iter().enumerate().map(|(index, file)| (file.path.as_ref(), index)).collect();
    let place = |name: &String| {
        by_name.get(name.as_str()).copied().ok_or_else(|| {
            let text = format!(
                "table {}: version {} has no data file {name}, which its record says holds the rows of a file that \
                 changed; another program rewrote the table. Load it anew with `lakegate sync --reload`",
                snapshot.place().name(),
                snapshot.version()
            );
            LakeError::new(ErrorKind::DataLoss, text)
        })
    };
    names.iter().map(place).collect()
}

fn operation(plan: &WritePlan) -> DeltaOperation {
    let mode = match plan.mode {
        _ if plan.reload => SaveMode::Overwrite,
        LoadMode::Replace => SaveMode::Overwrite,
        LoadMode::Append | LoadMode::Mirror => SaveMode::Append,
        LoadMode::Upsert => {
            return DeltaOperation::Merge {
                predicate: Some(format!("by key {}", plan.key.join(", "))),
                merge_predicate: None,
                matched_predicates: Vec::new(),
                not_matched_predicates: Vec::new(),
                not_matched_by_source_predicates: Vec::new(),
            };
        }
    };
    DeltaOperation::Write { mode, partition_by: None, predicate: None }
}
