//! One Delta commit, and finding out what became of it.
//!
//! A commit is made for one version only: the one after the version it was prepared on. So the question
//! whether it landed has one answer, in one place: the log entry of that version carries our `txn`, or it
//! carries something else. While there is no entry yet, an answer that got lost may still be on its way;
//! then an empty version is committed in its place, so that it cannot arrive any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;

use crate::error::{ErrorKind, chain_text};
use crate::lake::entry::LogEntry;
use crate::lake::store::TablePlace;
use crate::lake::{LakeError, Snapshot, TRANSACTION_APP};
use crate::runtime::fault;

/// The key in `commitInfo` that marks a version as one that only fences off.
pub(super) const FENCE_KEY: &str = "lakegate.fence";

/// The key in `commitInfo` that names the attempt.
pub(super) const ATTEMPT_KEY: &str = "lakegate.attempt";

/// Pauses between looks at a store that does not answer. The store's client has tried each request for
/// a while itself, so this only bridges what is over in seconds; longer outages are for the next load.
const LOOK_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_millis(2_000)];

/// What is to be committed.
pub(super) struct Change {
    pub(super) number: i64,
    pub(super) actions: Vec<Action>,
    pub(super) operation: DeltaOperation,
    /// Goes into `commitInfo`.
    pub(super) info: HashMap<String, Value>,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is this version of the table.
    Landed(u64),
    /// It did not land and never will.
    Void(LakeError),
    /// The store does not answer; it may have landed, or may yet.
    Unknown(LakeError),
}

/// Commits once on top of `base` (none: makes the table), never rebasing, and finds out what became of it.
pub(super) async fn commit(place: &TablePlace, base: Option<&Arc<Snapshot>>, change: Change) -> Outcome {
    let version = base.map_or(0, |base| base.version() + 1);
    let number = change.number;
    let log = log_store(place, base);
    let properties =
        properties().with_application_transaction(Transaction::new(TRANSACTION_APP, number)).with_metadata(change.info);
    match land(place, base, &log, properties, change.actions, change.operation).await {
        Ok(()) => Outcome::Landed(version),
        Err(Failure::Before(error)) => Outcome::Void(error),
        Err(Failure::Within(error)) => find_out(place, base, &log, version, number, error).await,
    }
}

/// Commits an empty version on top of `base`, so that nothing prepared on it can land any more.
///
/// # Errors
/// `Conflict` when somebody else made a version first, or the store's failure.
pub(super) async fn fence(place: &TablePlace, base: &Arc<Snapshot>) -> Result<(), LakeError> {
    fault::point("lake.fence.before")?;
    let log = log_store(place, Some(base));
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let properties = properties().with_metadata([(FENCE_KEY.to_owned(), Value::Bool(true))]);
    match land(place, Some(base), &log, properties, Vec::new(), operation).await {
        Ok(()) => Ok(()),
        Err(Failure::Before(error) | Failure::Within(error)) => Err(error),
    }
}

/// Whether anything can have been written.
enum Failure {
    Before(LakeError),
    Within(LakeError),
}

fn properties() -> CommitProperties {
    // No rebase: what was prepared holds for its base only. No listing of the log at each commit.
    CommitProperties::default().with_max_retries(0).with_cleanup_expired_logs(Some(false))
}

fn log_store(place: &TablePlace, base: Option<&Arc<Snapshot>>) -> LogStoreRef {
    match base {
        Some(base) => base.table().log_store(),
        None => place.delta().log_store(),
    }
}

async fn land(
    place: &TablePlace,
    base: Option<&Arc<Snapshot>>,
    log: &LogStoreRef,
    properties: CommitProperties,
    actions: Vec<Action>,
    operation: DeltaOperation,
) -> Result<(), Failure> {
    let what = || format!("cannot commit to table {}", place.name());
    let state = match base {
        Some(base) => Some(base.table().snapshot().map_err(|cause| Failure::Before(LakeError::delta(what(), cause)))?),
        None => None,
    };
    let reference = state.map(|state| state as &dyn deltalake::kernel::transaction::TableReference);
    let prepared = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(reference, Arc::clone(log), operation)
        .into_prepared_commit_future()
        .await
        .map_err(|cause| Failure::Before(LakeError::delta(what(), cause)))?;
    fault::point("lake.commit.before").map_err(|fault| Failure::Before(fault.into()))?;
    let landed = prepared.await.map_err(|cause| Failure::Within(commit_error(place, cause)))?;
    fault::point("lake.commit.after").map_err(|fault| Failure::Within(fault.into()))?;
    if let Err(cause) = landed.await {
        // The version is there; only the checkpoint after it is missing, and the next one makes it up.
        tracing::warn!(table = %place.name(), error = %chain_text(&cause), "work after a commit failed");
    }
    Ok(())
}

fn commit_error(place: &TablePlace, cause: DeltaTableError) -> LakeError {
    match cause {
        DeltaTableError::Transaction { source: TransactionError::MaxCommitAttempts(_) }
        | DeltaTableError::VersionAlreadyExists(_) => conflict(place),
        cause => LakeError::delta(format!("cannot commit to table {}", place.name()), cause),
    }
}

fn conflict(place: &TablePlace) -> LakeError {
    let text = format!(
        "somebody else changed table {} at the same time; nothing was changed here, the next load begins anew",
        place.name()
    );
    LakeError::new(ErrorKind::Conflict, text)
}

async fn find_out(
    place: &TablePlace,
    base: Option<&Arc<Snapshot>>,
    log: &LogStoreRef,
    version: u64,
    number: i64,
    error: LakeError,
) -> Outcome {
    let mut pauses = LOOK_PAUSES.iter();
    loop {
        match LogEntry::read(place, log, version).await {
            Ok(Some(entry)) if entry.transaction == Some(number) => return Outcome::Landed(version),
            Ok(Some(_)) => return Outcome::Void(error),
            Ok(None) => {
                // Nothing can be put in the place of a first version without making a broken table.
                let is_fenced = match base {
                    Some(base) => fence(place, base).await.is_ok(),
                    None => false,
                };
                // In a local folder nothing is under way any more once a write has failed. Otherwise the next
                // look tells what is there now.
                if !is_fenced && place.folder().is_some() {
                    return settle_locally(place, log, version, number, error).await;
                }
            }
            Err(look) => {
                tracing::warn!(table = %place.name(), error = %chain_text(&look), "cannot see what became of a commit");
            }
        }
        let Some(pause) = pauses.next() else { return Outcome::Unknown(error) };
        tokio::time::sleep(*pause).await;
    }
}

/// The last look at a local folder, after the fence failed: whoever made the version meanwhile, it is decided.
async fn settle_locally(place: &TablePlace, log: &LogStoreRef, version: u64, number: i64, error: LakeError) -> Outcome {
    match LogEntry::read(place, log, version).await {
        Ok(Some(entry)) if entry.transaction == Some(number) => Outcome::Landed(version),
        Ok(_) => Outcome::Void(error),
        Err(_) => Outcome::Unknown(error),
    }
}
