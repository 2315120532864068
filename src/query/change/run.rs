//! Running a change once: lease, attempt, rows, one commit, and a note of what happened.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryConsumer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::error::{Classify, ErrorKind, chain_text};
use crate::journal::{LoadRecord, LoadStatus, Written};
use crate::lake::{Attempt, Facts, LakeError, Lease, Snapshot, Staged};
use crate::query::cancel::too_late;
use crate::query::change::rows::{bytes_of, one_row, value_rows};
use crate::query::change::target::Target;
use crate::query::change::{Action, Change};
use crate::query::embedded::Engine;
use crate::query::engine::Changed;
use crate::query::{MemoryGauge, QueryError, StatementOptions, parameters};

/// What one run of a change works with.
pub(crate) struct Run {
    pub(crate) engine: Arc<Engine>,
    /// Who changes.
    pub(crate) access: Access,
    /// The parameters of the statement, in order.
    pub(crate) parameters: Vec<FieldRef>,
    /// Whether something is written out in it whose type hangs on what stands beside it.
    pub(crate) literals: bool,
    /// What it takes of the memory.
    pub(crate) memory: Arc<MemoryGauge>,
    pub(crate) options: StatementOptions,
    /// What `now()` gives.
    pub(crate) now: DateTime<Utc>,
    /// Asks it to stop; heard until the commit begins.
    pub(crate) stop: CancellationToken,
    pub(crate) deadline: Instant,
    /// How long that was from the start, for messages.
    pub(crate) limit: Duration,
}

/// What a change staged under the lease.
pub(crate) enum Outcome {
    /// Something to commit, and how many rows it changes.
    Commit(Box<Attempt>, Box<Staged>, u64),
    /// Nothing changed.
    Nothing(Option<u64>),
}

/// Values for parameters.
pub(crate) enum Values {
    /// One set.
    One(Vec<ScalarValue>),
    /// Each row runs once.
    Rows(Vec<RecordBatch>),
}

impl Run {
    /// Runs the change once for each set of values; an INSERT of bound values in one commit.
    ///
    /// # Errors
    /// What made it fail: then nothing was changed, unless the message says so.
    pub(crate) async fn all(self, change: &Change, values: Values) -> Result<Changed, QueryError> {
        let needed = self.parameters.len();
        let rows = match values {
            Values::One(values) if values.len() != needed => {
                return Err(parameters::wrong_number(values.len(), needed));
            }
            Values::One(values) => match needed {
                0 => return self.once(change, &[], Vec::new()).await,
                _ => return self.once(change, &[one_row(&values)?], values).await,
            },
            Values::Rows(_) if needed == 0 => return self.once(change, &[], Vec::new()).await,
            Values::Rows(rows) => rows,
        };
        if let Some(wrong) = rows.iter().find(|batch| batch.num_columns() != needed) {
            return Err(parameters::wrong_number(wrong.num_columns(), needed));
        }
        let sets: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let held = MemoryConsumer::new("values that are bound");
        let held = held.register(&self.engine.lake.environment().memory_pool);
        held.try_grow(bytes_of(&rows))?;
        let at_once = matches!(&change.action, Action::Insert(insert) if !insert.bound.is_empty());
        if at_once && sets > 0 {
            return self.once(change, &rows, Vec::new()).await;
        }
        let mut changed = Changed { rows: 0, version: None };
        for (number, values) in value_rows(&rows).enumerate() {
            let one = async {
                let values = values?;
                self.once(change, &[one_row(&values)?], values).await
            };
            let one = one.await.map_err(|error| match number {
                0 => error,
                done => QueryError::because(
                    error.kind(),
                    format!("the values in row {} failed, those of the {done} rows before were changed", done + 1),
                    error,
                ),
            })?;
            changed = Changed { rows: changed.rows + one.rows, version: one.version.or(changed.version) };
        }
        Ok(changed)
    }

    /// Runs the change once. `bound` are values as a table, `values` those of one set.
    async fn once(
        &self,
        change: &Change,
        bound: &[RecordBatch],
        values: Vec<ScalarValue>,
    ) -> Result<Changed, QueryError> {
        let words = change.action.words();
        let target = Target::find(&change.target, words, &self.engine.settings, &self.access)?;
        let live = self.engine.live(&target).await?;
        self.engine.check_change(&change.action, &target, live.as_deref(), &self.access)?;
        if live.is_none() && matches!(change.action, Action::Drop { .. }) {
            return Ok(Changed { rows: 0, version: None });
        }
        let (begun, lease) = (self.engine.clock.now(), self.lease(&target, words).await);
        let (lease, result) = match lease {
            Ok(lease) => {
                let result = self.under(&lease, change, &target, bound, values).await;
                (Some(lease), result)
            }
            Err(error) => (None, Err(error)),
        };
        self.end(&target, (words, begun), lease, result).await
    }

    /// Gives the lease back and notes how it went.
    pub(crate) async fn end(
        &self,
        target: &Target,
        (words, begun): (&str, DateTime<Utc>),
        lease: Option<Lease>,
        result: Result<Done, QueryError>,
    ) -> Result<Changed, QueryError> {
        if let Some(lease) = lease {
            lease.release().await;
        }
        self.engine.note_change(target, words, &self.access, begun, &result);
        result.map(|done| done.changed)
    }

    /// Takes the target's lease, unless somebody stops that.
    pub(crate) async fn lease(&self, target: &Target, words: &str) -> Result<Lease, QueryError> {
        let table = self.engine.lake.table(&target.name);
        let purpose = format!("{words} by {}", self.access.principal().name);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopped()),
            () = tokio::time::sleep_until(self.deadline) => Err(too_late(self.limit)),
            lease = table.lease(&purpose, self.engine.settings.limits.lease_wait) => lease.map_err(told),
        }
    }

    async fn under(
        &self,
        lease: &Lease,
        change: &Change,
        target: &Target,
        bound: &[RecordBatch],
        values: Vec<ScalarValue>,
    ) -> Result<Done, QueryError> {
        let attempt = self.engine.lake.table(&target.name).begin(lease).await.map_err(told)?;
        let live = attempt.snapshot().filter(|snapshot| !snapshot.is_dropped()).cloned();
        let live = live.as_ref();
        // Whatever was checked before, this is the version that is changed.
        self.engine.check_change(&change.action, target, live.map(AsRef::as_ref), &self.access)?;
        let outcome = match &change.action {
            Action::Insert(insert) => self.insert(attempt, target, live, insert, (bound, values)).await,
            Action::Delete(find) => self.delete(attempt, target, live, (change, find), values).await,
            Action::Update(update) => self.update(attempt, target, live, (change, update), values).await,
            Action::Create(create) => self.create(attempt, target, live, create, values).await,
            Action::Drop { .. } => self.drop_table(attempt, live),
            Action::AddColumns { columns, if_not_exists } => {
                self.add_columns(attempt, target, live, columns, *if_not_exists).await
            }
        };
        self.commit(outcome?).await
    }

    /// Commits what is staged, if anything is.
    pub(crate) async fn commit(&self, outcome: Outcome) -> Result<Done, QueryError> {
        let (attempt, staged, rows) = match outcome {
            Outcome::Commit(attempt, staged, rows) => (attempt, staged, rows),
            Outcome::Nothing(version) => return Ok(Done::unchanged(version)),
        };
        let (rows_written, bytes_written) = (staged.rows_written, staged.bytes_written);
        let facts = Facts::unchanged(attempt.chain());
        let committed = attempt.commit(*staged, facts).await.map_err(told)?;
        self.engine.listings.forget().await;
        let changed = Changed { rows, version: Some(committed.version) };
        Ok(Done { changed, rows_written, bytes_written, attempt: Some(committed.attempt) })
    }

    /// Why it stops before its commit.
    pub(crate) fn stopped(&self) -> QueryError {
        QueryError::new(ErrorKind::Cancelled, "the statement was cancelled before it changed anything")
    }

    /// Fails when somebody asked it to stop or its time is over: the last look before something is committed.
    ///
    /// # Errors
    /// `Cancelled`, `DeadlineExceeded`.
    pub(crate) fn go_on(&self) -> Result<(), QueryError> {
        if self.stop.is_cancelled() {
            return Err(self.stopped());
        }
        if Instant::now() >= self.deadline { Err(too_late(self.limit)) } else { Ok(()) }
    }
}

/// What a run came to.
pub(crate) struct Done {
    pub(crate) changed: Changed,
    rows_written: u64,
    bytes_written: u64,
    attempt: Option<i64>,
}

impl Done {
    fn unchanged(version: Option<u64>) -> Self {
        Self { changed: Changed { rows: 0, version }, rows_written: 0, bytes_written: 0, attempt: None }
    }
}

impl Engine {
    /// Notes in the journal what a statement did to a table.
    pub(crate) fn note_change(
        &self,
        target: &Target,
        words: &str,
        access: &Access,
        begun: DateTime<Utc>,
        result: &Result<Done, QueryError>,
    ) {
        let done = result.as_ref().ok();
        let error = result.as_ref().err();
        let status = match done {
            Some(done) if done.attempt.is_some() => LoadStatus::Committed,
            Some(_) => LoadStatus::Unchanged,
            None => LoadStatus::Failed,
        };
        self.journal.record_load(LoadRecord {
            load_id: uuid::Uuid::now_v7(),
            table: target.name.clone(),
            started_at: begun,
            ended_at: self.clock.now(),
            status,
            rows_read: done.map_or(0, |done| done.changed.rows),
            rows_written: done.map_or(0, |done| done.rows_written),
            rows_rejected: 0,
            bytes_read: 0,
            bytes_written: done.map_or(0, |done| done.bytes_written),
            version: done.and_then(|done| done.changed.version),
            attempt: done.and_then(|done| done.attempt),
            position: None,
            error_kind: error.map(Classify::kind),
            error: error.map(|error| chain_text(error)),
            written: Some(Written { by: access.principal().name.clone(), statement: words.to_lowercase() }),
        });
        let journal = Arc::clone(&self.journal);
        // The answer does not wait for it: what is not written yet is read from memory.
        tokio::spawn(async move {
            if let Err(error) = journal.flush().await {
                tracing::warn!(error = %chain_text(&error), "the journal could not be written");
            }
        });
    }
}

/// A failure of the lake, for whoever changes a table. Who else changes it, and whether something may have been changed
/// all the same, is told; where the lake's files are is not.
pub(crate) fn told(error: LakeError) -> QueryError {
    let is_told = error.is_of_unknown_outcome()
        || matches!(
            error.kind(),
            ErrorKind::Conflict | ErrorKind::AlreadyExists | ErrorKind::Cancelled | ErrorKind::DeadlineExceeded
        );
    if is_told { QueryError::new(error.kind(), error.to_string()) } else { QueryError::from(error) }
}

/// The version of what is there.
pub(crate) fn version_of(live: Option<&Arc<Snapshot>>) -> Option<u64> {
    live.map(|live| live.version())
}
