//! One numbered try to change a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deltalake::kernel::Action;
use serde_json::{Value, json};

use crate::error::{ErrorKind, chain_text};
use crate::lake::chain::Folded;
use crate::lake::commit::{self, ATTEMPT_KEY, Change, Outcome};
use crate::lake::lease::LeaseGuard;
use crate::lake::record::{self, Record};
use crate::lake::rejects::RejectSpool;
use crate::lake::store;
use crate::lake::writer::WriterPlace;
use crate::lake::{Chain, LakeError, LakeTable, Snapshot, Staged, TableWriter, WritePlan, clean};
use crate::model::{CarriedFile, Reject};
use crate::runtime::fault;

/// One numbered try to change a table. Nothing of it counts until [`Attempt::commit`] has landed; an attempt
/// that is dropped leaves nothing but data files, which its [`TableWriter`] removes.
pub struct Attempt {
    table: LakeTable,
    guard: Arc<LeaseGuard>,
    number: i64,
    snapshot: Option<Arc<Snapshot>>,
    chain: Chain,
    /// Never contended: a lock only because the spool's writer may not be shared.
    rejects: Mutex<RejectSpool>,
}

/// What an attempt says about its source, next to the rows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How far the source has been read, in the source's own words.
    pub position: Option<Value>,
    /// The files it carries; each takes the place of the entry with its path.
    pub files: Vec<CarriedFile>,
    /// Paths of files that are no longer known after it.
    pub forgotten_files: Vec<String>,
    /// Tells whether the table's definition changed since.
    pub definition_hash: String,
    /// Names the life of the source the position belongs to, where it has such a name.
    pub epoch: Option<String>,
}

impl Facts {
    /// Of a change that has nothing to do with the source: how far that was read stays what it was.
    pub fn unchanged(chain: &Chain) -> Self {
        Self {
            position: chain.position().cloned(),
            definition_hash: chain.definition_hash().unwrap_or_default().to_owned(),
            epoch: chain.epoch().map(str::to_owned),
            ..Self::default()
        }
    }
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
    pub(super) fn new(
        table: LakeTable,
        guard: Arc<LeaseGuard>,
        number: i64,
        snapshot: Option<Arc<Snapshot>>,
        chain: Chain,
    ) -> Self {
        Self { table, guard, number, snapshot, chain, rejects: Mutex::default() }
    }

    pub(super) fn table(&self) -> &LakeTable {
        &self.table
    }

    /// What is changed; none before the first version.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// What landed before.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The attempt's number: greater than that of every attempt before, landed or not.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Begins writing.
    ///
    /// # Errors
    /// When the plan's columns cannot become the table's.
    pub fn writer(&self, plan: WritePlan) -> Result<TableWriter, LakeError> {
        TableWriter::open(self.writer_place(), plan)
    }

    /// What writers need to know of the table and the machine.
    pub(super) fn writer_place(&self) -> WriterPlace {
        WriterPlace {
            place: self.table.place().clone(),
            snapshot: self.snapshot.clone(),
            environment: Arc::clone(self.table.environment()),
            target_file_size: self.table.target_file_size(),
        }
    }

    /// Keeps rows that did not fit; they become visible when the attempt lands. Memory is bounded: they go to disk.
    ///
    /// # Errors
    /// When they cannot be kept, such as on a full disk.
    pub async fn reject(&mut self, rejects: &[Reject]) -> Result<(), LakeError> {
        let spool = self.rejects.get_mut().unwrap_or_else(PoisonError::into_inner);
        spool.add(self.table.environment(), rejects)
    }

    /// Removes the data files of what is not going to be committed.
    pub async fn discard(&self, staged: &Staged) {
        let place = self.table.place();
        for path in added(&staged.actions) {
            match place.data_file(&path) {
                Ok(path) => store::discard(place.store().as_ref(), &path).await,
                Err(error) => tracing::warn!(table = %place.name(), error = %chain_text(&error), "left a file behind"),
            }
        }
    }

    /// Writes the record, then commits once. Landed means: the table's `txn` is this attempt's number. Goes on
    /// to a known outcome even when the caller stops waiting. Data files of an attempt that did not land are removed.
    ///
    /// # Errors
    /// `Conflict` when somebody else changed the table or took the lease, `Unavailable` when the store did
    /// not answer; the message says whether the outcome is known. Nothing changed unless it says so.
    pub async fn commit(self, staged: Staged, facts: Facts) -> Result<Committed, LakeError> {
        let (name, guard) = (self.table.name().clone(), Arc::clone(&self.guard));
        tokio::spawn(self.run(staged, facts)).await.unwrap_or_else(|cause| {
            guard.set_outcome_unknown(true);
            let text = format!("committing to table {name} broke off; the next load will find out what landed");
            Err(LakeError::because(ErrorKind::Internal, text, cause).of_unknown_outcome())
        })
    }

    async fn run(mut self, staged: Staged, facts: Facts) -> Result<Committed, LakeError> {
        if self.snapshot.is_some() == staged.create.is_some() {
            let text = format!("the first change of table {}, and no other, has to make it", self.table.name());
            return Err(LakeError::new(ErrorKind::Internal, text));
        }
        let mut record = self.record(&staged, facts);
        let rejects = std::mem::take(self.rejects.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = self.write_record(&mut record, rejects).await {
            clean::remove_files(self.table.place(), &record).await;
            return Err(error);
        }
        // Until the outcome is known, whoever comes next has to find out: also if this task is cut off.
        self.guard.set_outcome_unknown(true);
        let change = self.change(&record, staged);
        match commit::commit(self.table.place(), self.snapshot.as_ref(), change).await {
            Outcome::Landed(version) => {
                self.guard.set_outcome_unknown(false);
                self.after_landing(record, version).await;
                Ok(Committed { version, attempt: self.number })
            }
            Outcome::Void(error) => {
                self.guard.set_outcome_unknown(false);
                clean::remove_files(self.table.place(), &record).await;
                Err(error)
            }
            Outcome::Unknown(cause) => {
                let text = format!(
                    "it is not known whether the change of table {} was committed, as the store does not answer; the \
                     next load will look, and neither lose nor double anything",
                    self.table.name()
                );
                Err(LakeError::because(ErrorKind::Unavailable, text, cause).of_unknown_outcome())
            }
        }
    }

    /// What this attempt will write down, its rejects aside.
    fn record(&self, staged: &Staged, facts: Facts) -> Record {
        let mut record = Record::new(self.number, self.table.clock().now());
        record.base = self.chain.attempt();
        record.base_version = self.snapshot.as_ref().map(|snapshot| snapshot.version());
        record.fence = self.guard.fence();
        record.epoch = facts.epoch;
        record.position = facts.position;
        record.schema_hash = schema_hash(staged, self.snapshot.as_deref());
        record.definition_hash = facts.definition_hash;
        record.files = facts.files;
        record.forgotten_files = facts.forgotten_files;
        if !staged.adopts {
            record.data_files = added(&staged.actions);
        }
        record.removed_files = staged.files_removed;
        record.rows = staged.rows_written;
        record
    }

    async fn write_record(&self, record: &mut Record, rejects: RejectSpool) -> Result<(), LakeError> {
        let place = self.table.place();
        fault::point("lake.data.written")?;
        self.guard.check().await?;
        record.rejects = rejects.upload(place, self.number).await?;
        fault::point("lake.rejects.written")?;
        if !record.create(place).await? {
            let text = format!("somebody else is changing table {}; nothing was changed here", place.name());
            return Err(LakeError::new(ErrorKind::Conflict, text));
        }
        fault::point("lake.record.written")?;
        self.guard.check().await
    }

    fn change(&self, record: &Record, staged: Staged) -> Change {
        let (actions, operation) = match staged.create {
            Some(create) => {
                let mut actions =
                    vec![Action::Protocol(create.protocol.clone()), Action::Metadata(create.metadata.clone())];
                actions.extend(staged.actions);
                let operation = deltalake::protocol::DeltaOperation::Create {
                    mode: deltalake::protocol::SaveMode::ErrorIfExists,
                    location: self.table.place().url().clone(),
                    protocol: create.protocol,
                    metadata: create.metadata,
                };
                (actions, operation)
            }
            None => (staged.actions, staged.operation),
        };
        let metrics = json!({
            "numOutputRows": staged.rows_written,
            "numOutputBytes": staged.bytes_written,
            "numAddedFiles": added(&actions).len(),
            "numRemovedFiles": staged.files_removed,
            "numRemovedBytes": staged.bytes_removed,
            "numRejectedRows": record.rejects.as_ref().map_or(0, |rejects| rejects.count),
        });
        let info = HashMap::from([
            ("operationMetrics".to_owned(), metrics),
            (ATTEMPT_KEY.to_owned(), json!(self.number)),
            ("lakegate.version".to_owned(), json!(env!("CARGO_PKG_VERSION"))),
        ]);
        Change { number: self.number, actions, operation, info }
    }

    /// What is worth doing once the attempt has landed; nothing here can undo that.
    async fn after_landing(&self, record: Record, version: u64) {
        let chain = match self.chain.folded() {
            Some(folded) => Folded::clone(folded).with(record),
            None => Folded::first(record),
        };
        let mut chain = Arc::new(chain);
        if chain.is_long() {
            match self.fold(&chain, version).await {
                Ok(folded) => chain = folded,
                Err(error) => {
                    let error = chain_text(&error);
                    tracing::warn!(table = %self.table.name(), error, "could not fold the records of attempts");
                }
            }
        }
        self.table.remember(chain);
    }
}

impl Attempt {
    /// Folds the records, and tidies the log while at it: both are worth doing now and then only.
    async fn fold(&self, chain: &Arc<Folded>, version: u64) -> Result<Arc<Folded>, LakeError> {
        let folded = clean::fold(self.table.place(), version, chain, &self.guard).await?;
        if let Some(snapshot) = self.table.snapshot().await? {
            // Entries older than the table's log retention (30 days unless it says otherwise), below a checkpoint.
            let removed = deltalake::checkpoints::cleanup_metadata(snapshot.table(), None).await;
            removed
                .map_err(|cause| LakeError::delta(format!("cannot tidy the log of {}", self.table.name()), cause))?;
        }
        Ok(folded)
    }
}

fn added(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Add(add) => Some(add.path.clone()),
            _ => None,
        })
        .collect()
}

/// Of the columns as they will be once the attempt has landed.
fn schema_hash(staged: &Staged, snapshot: Option<&Snapshot>) -> String {
    let changed = staged.actions.iter().find_map(|action| match action {
        Action::Metadata(metadata) => Some(metadata),
        _ => None,
    });
    let metadata = changed.or(staged.create.as_ref().map(|create| &create.metadata));
    let schema = match (metadata, snapshot) {
        (Some(metadata), _) => metadata.parse_schema().ok().and_then(|schema| serde_json::to_string(&schema).ok()),
        (None, Some(snapshot)) => {
            snapshot.table().snapshot().ok().and_then(|state| serde_json::to_string(state.schema().as_ref()).ok())
        }
        (None, None) => None,
    };
    record::schema_hash(&schema.unwrap_or_default())
}
