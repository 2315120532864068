//! One writer per table at a time: for the length of a load, a write or a compaction.
//!
//! A local table is held by a lock on `_lakegate/lease` that dies with its process; on an object store by
//! records that are renewed (`lease_remote.rs`). Either way a holder that did not give the lease back in
//! order, or does not know whether its last commit landed, is *dead* to the next one, who then fences it
//! off and cleans up before anything else ([`crate::lake::LakeTable::begin`]).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::lease_remote::{RemoteLease, Watch};
use crate::lake::store::TablePlace;
use crate::model::TableName;
use crate::runtime::clock::Clock;

/// First and longest pause between two looks at a lease somebody else holds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process's number.
    pub process: u32,
    /// Since when, by the holder's clock.
    pub since: DateTime<Utc>,
    /// What for.
    pub purpose: String,
}

/// The right to change one table, until it is released, dropped or lost. An attempt that is being committed
/// keeps it alive until the outcome is known.
///
/// Give it back with [`Lease::release`]: a lease on an object store that is only dropped is given back by a
/// task that may not get to run any more when the program ends, and the next writer has to wait until it expires.
pub struct Lease(pub(super) Arc<LeaseGuard>);

/// What keeps a lease.
pub(super) struct LeaseGuard {
    table: TableName,
    holder: Holder,
    /// Whether the holder before this one has to be fenced off and cleaned up after.
    follows_dead: AtomicBool,
    /// Whether the outcome of this holder's last commit is unknown.
    outcome_unknown: AtomicBool,
    kept: Kept,
    /// The first place in this process's line, which is given up last.
    _turn: Option<OwnedMutexGuard<()>>,
}

pub(super) enum Kept {
    Local(LocalLease),
    Remote(RemoteLease),
}

/// What stands in the file of a local lease, and in each record of a remote one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseMark {
    pub(super) holder: Holder,
    /// Given back by its holder.
    pub(super) released: bool,
    /// Given back, but the next holder has to fence and clean.
    #[serde(default)]
    pub(super) unclean: bool,
}

impl Lease {
    /// Who holds it: this process.
    pub fn holder(&self) -> &Holder {
        &self.0.holder
    }

    /// Makes sure that the lease is still held.
    ///
    /// # Errors
    /// `Conflict` when it expired or somebody else took it over; a store's failure when that cannot be found out.
    pub async fn check(&self) -> Result<(), LakeError> {
        self.0.check().await
    }

    /// Gives the lease back. When an attempt that was begun under it is still being committed, that happens
    /// once the outcome is known.
    pub async fn release(self) {
        if let Some(guard) = Arc::into_inner(self.0) {
            guard.give_back().await;
        }
    }
}

impl LeaseGuard {
    fn new(
        table: TableName,
        holder: Holder,
        kept: Kept,
        follows_dead: bool,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Self {
        Self {
            table,
            holder,
            follows_dead: AtomicBool::new(follows_dead),
            outcome_unknown: AtomicBool::new(false),
            kept,
            _turn: turn,
        }
    }

    pub(super) fn table(&self) -> &TableName {
        &self.table
    }

    pub(super) async fn check(&self) -> Result<(), LakeError> {
        match &self.kept {
            // The lock cannot be lost while the process lives.
            Kept::Local(_) => Ok(()),
            Kept::Remote(lease) => lease.check(&self.table).await,
        }
    }

    /// The fencing number, where the lease has one.
    pub(super) fn fence(&self) -> Option<u64> {
        match &self.kept {
            Kept::Local(_) => None,
            Kept::Remote(lease) => Some(lease.fence()),
        }
    }

    /// Whether a holder that lost the lease may still be about to commit.
    pub(super) fn may_be_overtaken(&self) -> bool {
        matches!(self.kept, Kept::Remote(_))
    }

    /// Whether somebody before may still be about to commit, or has left litter: the holder before this
    /// one, or this one's own last attempt.
    pub(super) fn follows_dead(&self) -> bool {
        self.follows_dead.load(Ordering::Acquire) || self.outcome_unknown.load(Ordering::Acquire)
    }

    /// Whoever came before can do no more harm, and is cleaned up after.
    pub(super) fn set_clean(&self) {
        self.follows_dead.store(false, Ordering::Release);
        self.outcome_unknown.store(false, Ordering::Release);
    }

    /// Says whether it is unknown what became of a commit: then the next to begin has to fence it off.
    pub(super) fn set_outcome_unknown(&self, unknown: bool) {
        self.outcome_unknown.store(unknown, Ordering::Release);
    }

    fn mark(&self) -> LeaseMark {
        LeaseMark { holder: self.holder.clone(), released: true, unclean: self.follows_dead() }
    }

    /// Gives a lease back that nobody else uses; what is left for `drop` does nothing then.
    async fn give_back(self) {
        if let Kept::Remote(lease) = &self.kept {
            lease.release(self.mark()).await;
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What was cut off may have left something behind: the next holder has to look for it.
            self.follows_dead.store(true, Ordering::Release);
        }
        let mark = self.mark();
        match &mut self.kept {
            Kept::Local(lease) => lease.write(&mark),
            Kept::Remote(lease) => lease.release_later(mark),
        }
    }
}

/// A lock on a file.
pub(super) struct LocalLease {
    file: File,
    path: PathBuf,
}

/// What came of one look at a lease.
pub(super) enum Taken<T> {
    /// It is ours; whether the holder before is dead.
    Ours(T, bool),
    /// Somebody has it, who is named where that could be read.
    Held(Option<Holder>),
}

impl LocalLease {
    /// Tries once to take the lock; the file is made when it is missing, and never removed: a second file
    /// under the same name would be a second lock.
    pub(super) fn try_take(path: &Path, holder: &Holder) -> Result<Taken<Self>, LakeError> {
        let what = || format!("cannot take the lease {}", path.display());
        let failed = |cause| LakeError::io(what(), cause);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Taken::Held(read_mark(&mut file).map(|mark| mark.holder))),
            Err(TryLockError::Error(cause)) => return Err(failed(cause)),
        }
        let is_new = file.metadata().map_err(failed)?.len() == 0;
        let follows_dead = !is_new && read_mark(&mut file).is_none_or(|mark| !mark.released || mark.unclean);
        let mut lease = Self { file, path: path.to_owned() };
        lease.write(&LeaseMark { holder: holder.clone(), released: false, unclean: follows_dead });
        Ok(Taken::Ours(lease, follows_dead))
    }

    /// Writes who holds the lock. Not synced: after a power cut there is no holder, and whoever reads an old
    /// or broken mark only cleans once too often.
    fn write(&mut self, mark: &LeaseMark) {
        let written = serde_json::to_vec(mark).map_err(std::io::Error::from).and_then(|text| {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(&text)
        });
        if let Err(cause) = written {
            tracing::warn!(path = %self.path.display(), %cause, "could not write down who holds a lease");
        }
    }
}

fn read_mark(file: &mut File) -> Option<LeaseMark> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Tells who this process is.
pub(super) fn this_process(purpose: &str, since: DateTime<Utc>) -> Holder {
    let host = hostname::get().map_or_else(|_| "unknown host".to_owned(), |name| name.to_string_lossy().into_owned());
    Holder { host, process: std::process::id(), since, purpose: purpose.to_owned() }
}

/// How one looks at a table's lease.
pub(super) enum Lookout<'a> {
    /// At a file.
    Local(PathBuf),
    /// At records in an object store.
    Remote { place: &'a TablePlace, clock: &'a Arc<dyn Clock>, lifetime: Duration, watch: &'a Mutex<Option<Watch>> },
}

impl Lookout<'_> {
    /// Looks until the lease is ours or `wait` is over; a second writer of this process waits in `line` meanwhile. There it
    /// is first come, first served, and nobody pauses: who looks now and then only is overtaken by whoever has just come.
    pub(super) async fn take(
        &self,
        table: &TableName,
        line: &Arc<tokio::sync::Mutex<()>>,
        wait: Duration,
        holder: Holder,
    ) -> Result<LeaseGuard, LakeError> {
        let started = tokio::time::Instant::now();
        // Whoever waited in vain still looks once, to say who it is that holds the lease.
        let turn = tokio::time::timeout(wait, Arc::clone(line).lock_owned()).await.ok();
        let mut pause = PAUSES.0;
        loop {
            let other = match self.look(&holder).await? {
                Taken::Ours(kept, follows_dead) => {
                    return Ok(LeaseGuard::new(table.clone(), holder, kept, follows_dead, turn));
                }
                Taken::Held(other) => other,
            };
            let left = wait.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(held(table, wait, other));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn look(&self, holder: &Holder) -> Result<Taken<Kept>, LakeError> {
        match self {
            Self::Local(path) => Ok(LocalLease::try_take(path, holder)?.map(Kept::Local)),
            Self::Remote { place, clock, lifetime, watch } => {
                Ok(RemoteLease::try_take(place, clock, *lifetime, holder, watch).await?.map(Kept::Remote))
            }
        }
    }
}

impl<T> Taken<T> {
    fn map<U>(self, wrap: impl FnOnce(T) -> U) -> Taken<U> {
        match self {
            Self::Ours(lease, follows_dead) => Taken::Ours(wrap(lease), follows_dead),
            Self::Held(holder) => Taken::Held(holder),
        }
    }
}

fn held(table: &TableName, wait: Duration, holder: Option<Holder>) -> LakeError {
    let who = holder.map_or_else(
        || "another process".to_owned(),
        |holder| {
            let since = holder.since.format("%Y-%m-%d %H:%M:%S UTC");
            format!("process {} on {} (since {since}, for: {})", holder.process, holder.host, holder.purpose)
        },
    );
    let waited = humantime::format_duration(Duration::from_millis(wait.as_millis() as u64));
    let text = format!("table {table} is being changed by {who}; waited {waited}; try again when it is done");
    LakeError::new(ErrorKind::Conflict, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classify;

    fn holder() -> Holder {
        this_process("test", Utc::now())
    }

    fn guard(lease: LocalLease, follows_dead: bool) -> LeaseGuard {
        let table = TableName::new("s", "t").unwrap();
        LeaseGuard::new(table, holder(), Kept::Local(lease), follows_dead, None)
    }

    #[test]
    fn a_second_handle_in_the_same_process_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own").join("lease");
        let Taken::Ours(first, false) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not ours") };
        let Taken::Held(Some(who)) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not held") };
        assert_eq!((who.process, who.purpose.as_str()), (std::process::id(), "test"));
        drop(guard(first, false));
        assert!(matches!(LocalLease::try_take(&path, &holder()).unwrap(), Taken::Ours(_, false)));
    }

    #[test]
    fn whoever_follows_a_holder_that_died_or_does_not_know_its_outcome_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let Taken::Ours(first, _) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not ours") };
        drop(first); // The file is closed and the lock gone, as when the process is killed.
        let Taken::Ours(second, true) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not dead") };
        drop(guard(second, true)); // Given back in order, but without having cleaned up.
        let Taken::Ours(third, true) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not unclean") };
        let third = guard(third, true);
        third.set_clean();
        drop(third);
        let Taken::Ours(fourth, false) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("unclean") };
        let fourth = guard(fourth, false);
        fourth.set_outcome_unknown(true);
        drop(fourth);
        assert!(matches!(LocalLease::try_take(&path, &holder()).unwrap(), Taken::Ours(_, true)));
    }

    #[test]
    fn whoever_follows_a_holder_that_panicked_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let Taken::Ours(first, false) = LocalLease::try_take(&path, &holder()).unwrap() else { panic!("not ours") };
        let held = guard(first, false);
        let panicked = std::thread::spawn(move || {
            let _held = held;
            panic!("asked for by a test");
        });
        assert!(panicked.join().is_err());
        assert!(matches!(LocalLease::try_take(&path, &holder()).unwrap(), Taken::Ours(_, true)));
    }

    #[tokio::test]
    async fn waiting_in_vain_is_a_conflict_that_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let table = TableName::new("s", "t").unwrap();
        let lookout = Lookout::Local(folder.path().join("lease"));
        let (here, elsewhere) = (Arc::default(), Arc::default());
        let held = lookout.take(&table, &here, Duration::ZERO, holder()).await.unwrap();
        for line in [&here, &elsewhere] {
            let error = lookout.take(&table, line, Duration::from_millis(30), holder()).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
            assert!(error.to_string().contains("for: test") && error.to_string().contains("30ms"), "{error}");
        }
        drop(held);
        lookout.take(&table, &here, Duration::ZERO, holder()).await.unwrap();
    }

    #[tokio::test]
    async fn writers_of_one_process_have_it_in_the_order_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let table = TableName::new("s", "t").unwrap();
        let lookout = Lookout::Local(folder.path().join("lease"));
        let (line, order) = (Arc::default(), Mutex::new(Vec::new()));
        let wait = Duration::from_secs(60);
        let held = lookout.take(&table, &line, wait, holder()).await.unwrap();
        let mut writers: Vec<_> = (0..5)
            .map(|writer| {
                let (lookout, table, line, order) = (&lookout, &table, &line, &order);
                Box::pin(async move {
                    let held = lookout.take(table, line, wait, holder()).await.unwrap();
                    order.lock().unwrap().push(writer);
                    drop(held);
                })
            })
            .collect();
        for writer in &mut writers {
            assert!(futures::poll!(writer).is_pending());
        }
        // One that leaves the line holds nobody up.
        drop(writers.remove(2));
        drop(held);
        writers.reverse();
        futures::future::join_all(writers).await;
        assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
    }
}
