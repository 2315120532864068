//! A handle of one table.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use crate::error::{Classify, ErrorKind, chain_text};
use crate::lake::chain::Folded;
use crate::lake::clean::Cleaner;
use crate::lake::entry::LogEntry;
use crate::lake::lease::{LeaseGuard, Lookout, this_process};
use crate::lake::lease_remote::Watch;
use crate::lake::record::{self, Record};
use crate::lake::store::TablePlace;
use crate::lake::{Attempt, Chain, LakeError, Lease, Shared, Snapshot, commit, foreign};
use crate::model::TableName;
use crate::runtime::clock::Clock;
use crate::runtime::fault;

/// Older versions kept loaded: tickets and time travel ask for the same few again and again.
const PINNED_VERSIONS: usize = 16;

/// Log entries read at the same time when a version is looked up by its time.
const ENTRIES_AT_ONCE: usize = 16;

/// How often fencing is tried anew when somebody commits in between; a dead holder has one commit under way.
const FENCE_TRIES: usize = 8;

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
    newest: tokio::sync::Mutex<Option<Newest>>,
    /// Refreshes of `newest` begun so far.
    refreshes: AtomicU64,
    pinned: Mutex<VecDeque<Arc<Snapshot>>>,
    commit_times: Mutex<HashMap<u64, Option<DateTime<Utc>>>>,
    chain: Mutex<Option<Arc<Folded>>>,
    /// Up to which version foreign commits were looked at, for which attempt.
    looked_at: Mutex<(i64, u64)>,
    watch: Mutex<Option<Watch>>,
    /// Where this process's writers stand in line for the lease.
    line: Arc<tokio::sync::Mutex<()>>,
}

/// The newest version that was loaded.
struct Newest {
    table: DeltaTable,
    snapshot: Arc<Snapshot>,
    /// When the log entry of that version was written: tells a table that was made anew.
    entry_written: Option<DateTime<Utc>>,
    /// The number of the refresh that found it.
    refresh: u64,
}

impl TableState {
    pub(super) fn new(place: TablePlace) -> Self {
        Self {
            place,
            newest: tokio::sync::Mutex::default(),
            refreshes: AtomicU64::new(0),
            pinned: Mutex::default(),
            commit_times: Mutex::default(),
            chain: Mutex::default(),
            looked_at: Mutex::new((0, 0)),
            watch: Mutex::default(),
            line: Arc::default(),
        }
    }

    /// Forgets what was known of a table that is no longer the one it was.
    fn forget(&self) {
        lock(&self.pinned).clear();
        lock(&self.commit_times).clear();
        *lock(&self.chain) = None;
        *lock(&self.looked_at) = (0, 0);
    }

    async fn newest(&self) -> Result<Option<Arc<Snapshot>>, LakeError> {
        let asked = self.refreshes.load(Ordering::SeqCst);
        let mut newest = self.newest.lock().await;
        if let Some(known) = newest.as_mut() {
            if known.refresh > asked {
                // Somebody began to look after this one had asked: many who ask at once need one look.
                return Ok(Some(Arc::clone(&known.snapshot)));
            }
            let refresh = self.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
            match self.refresh(known).await {
                Ok(true) => {
                    known.refresh = refresh;
                    return Ok(Some(Arc::clone(&known.snapshot)));
                }
                Ok(false) => self.forget(),
                Err(error) => {
                    let error = chain_text(&error);
                    tracing::debug!(table = %self.place.name(), error, "loading a table anew");
                }
            }
        }
        *newest = self.load().await?;
        Ok(newest.as_ref().map(|newest| Arc::clone(&newest.snapshot)))
    }

    /// Takes in what is new in the log; false when the table is not the one that was loaded.
    async fn refresh(&self, known: &mut Newest) -> Result<bool, LakeError> {
        let written = self.entry_written(known.snapshot.version()).await?;
        if written.is_none() || written != known.entry_written {
            return Ok(false);
        }
        known.table.update_state().await.map_err(|cause| self.failed(cause))?;
        if known.table.version() != Some(known.snapshot.version()) {
            let snapshot = Snapshot::load(&known.table, &self.place).await?;
            known.entry_written = self.entry_written(snapshot.version()).await?;
            known.snapshot = Arc::new(snapshot);
        }
        Ok(true)
    }

    async fn load(&self) -> Result<Option<Newest>, LakeError> {
        let refresh = self.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.place.folder().is_some_and(|folder| !folder.join("_delta_log").exists()) {
            // The library has no error of its own for a local folder that is not there.
            return Ok(None);
        }
        let mut table = self.place.delta();
        match table.load().await {
            Ok(()) => {}
            Err(DeltaTableError::NotATable(_)) => return Ok(None),
            Err(cause) => return Err(self.failed(cause)),
        }
        let snapshot = Snapshot::load(&table, &self.place).await?;
        let entry_written = self.entry_written(snapshot.version()).await?;
        Ok(Some(Newest { table, snapshot: Arc::new(snapshot), entry_written, refresh }))
    }

    async fn entry_written(&self, version: u64) -> Result<Option<DateTime<Utc>>, LakeError> {
        let path = self.place.path().clone().join("_delta_log").join(format!("{version:020}.json"));
        match self.place.store().head(&path).await {
            Ok(meta) => Ok(Some(meta.last_modified)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(LakeError::store(format!("cannot look at {path}"), cause)),
        }
    }

    fn failed(&self, cause: DeltaTableError) -> LakeError {
        LakeError::delta(format!("cannot read table {}", self.place.name()), cause)
    }

    async fn chain_of(&self, snapshot: Option<&Arc<Snapshot>>) -> Result<Option<Arc<Folded>>, LakeError> {
        let Some(number) = snapshot.and_then(|snapshot| snapshot.transaction()) else { return Ok(None) };
        let known = lock(&self.chain).clone();
        let chain = Folded::load(&self.place, number, known.as_ref()).await?;
        *lock(&self.chain) = Some(Arc::clone(&chain));
        Ok(Some(chain))
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
        self.state.newest().await
    }

    /// An older version, or the newest.
    ///
    /// # Errors
    /// `NotFound` when there is no table, no such version, or the time is before the first commit.
    pub async fn snapshot_at(&self, at: At) -> Result<Arc<Snapshot>, LakeError> {
        let newest = self.snapshot().await?.ok_or_else(|| {
            LakeError::new(ErrorKind::NotFound, format!("table {} has not been loaded yet", self.name()))
        })?;
        let version = match at {
            At::Version(version) => version,
            At::Time(time) => self.version_at(&newest, time).await?,
        };
        self.pin(&newest, version).await
    }

    /// What landed: files, position, rejects of the newest version.
    ///
    /// # Errors
    /// When the log or the records cannot be read, or the table is not what they say.
    pub async fn chain(&self) -> Result<Chain, LakeError> {
        let snapshot = self.snapshot().await?;
        let folded = self.state.chain_of(snapshot.as_ref()).await?;
        Ok(Chain::new(self.state.place.clone(), folded))
    }

    /// Takes the table's lease, waiting at most `wait` for its holder.
    ///
    /// # Errors
    /// `Conflict` that says who holds it (host, process, since when, what for) when the wait was in vain.
    pub async fn lease(&self, purpose: &str, wait: Duration) -> Result<Lease, LakeError> {
        let holder = this_process(purpose, self.lake.clock.now());
        let place = &self.state.place;
        let lookout = match place.folder() {
            Some(folder) => Lookout::Local(folder.join(super::OWN_FOLDER).join("lease")),
            None => {
                let (clock, lifetime) = (&self.lake.clock, self.lake.lease_lifetime);
                Lookout::Remote { place, clock, lifetime, watch: &self.state.watch }
            }
        };
        let guard = lookout.take(self.name(), &self.state.line, wait, holder).await?;
        fault::point("lake.lease.taken")?;
        Ok(Lease(Arc::new(guard)))
    }

    /// Begins an attempt: loads the newest version and the chain; after a dead holder fences it off and cleans.
    ///
    /// # Errors
    /// When the lease is lost, the table cannot be read, or it is not what its records say.
    pub async fn begin(&self, lease: &Lease) -> Result<Attempt, LakeError> {
        let guard = &lease.0;
        if guard.table() != self.name() {
            let text = format!("the lease of table {} was used for table {}", guard.table(), self.name());
            return Err(LakeError::new(ErrorKind::Internal, text));
        }
        guard.check().await?;
        let mut snapshot = self.snapshot().await?;
        if guard.follows_dead() {
            snapshot = self.fence_off(snapshot, guard).await?;
        }
        let folded = self.checked_chain(snapshot.as_ref()).await?;
        if let Some(snapshot) = &snapshot {
            self.clean(snapshot, folded.as_ref(), guard).await;
        }
        // The newest record may be of an attempt that did not land; its number is used up all the same.
        let used = record::numbers(&self.state.place).await?.last().copied();
        let number = used.max(folded.as_ref().map(|folded| folded.number)).unwrap_or(0) + 1;
        let chain = Chain::new(self.state.place.clone(), folded);
        Ok(Attempt::new(self.clone(), Arc::clone(guard), number, snapshot, chain))
    }

    /// The chain, after making sure that the table still is what it says.
    async fn checked_chain(&self, snapshot: Option<&Arc<Snapshot>>) -> Result<Option<Arc<Folded>>, LakeError> {
        let folded = self.state.chain_of(snapshot).await?;
        match (snapshot, &folded) {
            (Some(snapshot), Some(chain)) => {
                let (attempt, version) = *lock(&self.state.looked_at);
                let from = if attempt == chain.number { version + 1 } else { 0 };
                foreign::check(&self.state.place, snapshot, chain, from).await?;
                *lock(&self.state.looked_at) = (chain.number, snapshot.version());
                Ok(folded)
            }
            (Some(_), None) => {
                let text = format!(
                    "table {} was made by another tool; lakegate changes only tables it made: give the definition \
                     another name, or move {} away",
                    self.name(),
                    self.state.place.url()
                );
                Err(LakeError::new(ErrorKind::Conflict, text))
            }
            _ => Ok(folded),
        }
    }

    /// Makes sure that nothing the holder before this one prepared can land any more.
    async fn fence_off(
        &self,
        mut snapshot: Option<Arc<Snapshot>>,
        guard: &LeaseGuard,
    ) -> Result<Option<Arc<Snapshot>>, LakeError> {
        for _ in 0..FENCE_TRIES {
            // Whoever creates the first version has won; there is nothing to put in its place.
            let Some(base) = &snapshot else { return Ok(None) };
            if !guard.may_be_overtaken() && !self.is_undecided(base).await? {
                return Ok(snapshot);
            }
            match commit::fence(&self.state.place, base).await {
                Ok(()) => return self.snapshot().await,
                Err(error) if error.kind() == ErrorKind::Conflict => snapshot = self.snapshot().await?,
                Err(error) => return Err(error),
            }
        }
        let text = format!("table {} is being changed by another tool all the time; try again later", self.name());
        Err(LakeError::new(ErrorKind::Conflict, text))
    }

    /// Whether an attempt was written down that could still land on top of `base`.
    async fn is_undecided(&self, base: &Snapshot) -> Result<bool, LakeError> {
        let Some(newest) = record::numbers(&self.state.place).await?.last().copied() else { return Ok(false) };
        let record = Record::read(&self.state.place, newest).await?;
        Ok(record.is_some_and(|record| record.target_version() > base.version()))
    }

    /// Removes what dead holders left. What cannot be removed now is only litter, so a failure stops nobody.
    async fn clean(&self, snapshot: &Arc<Snapshot>, chain: Option<&Arc<Folded>>, guard: &LeaseGuard) {
        let cleaner = Cleaner { place: &self.state.place, snapshot, chain, now: self.lake.clock.now() };
        let cleaned = if guard.follows_dead() { cleaner.after_dead().await } else { cleaner.leftovers().await };
        match cleaned {
            Ok(()) => guard.set_clean(),
            Err(error) => {
                let error = chain_text(&error);
                tracing::warn!(table = %self.name(), error, "could not clean up after a holder that died");
            }
        }
    }

    async fn pin(&self, newest: &Arc<Snapshot>, version: u64) -> Result<Arc<Snapshot>, LakeError> {
        if version == newest.version() {
            return Ok(Arc::clone(newest));
        }
        let known = lock(&self.state.pinned).iter().find(|pinned| pinned.version() == version).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let missing = || {
            let text = format!("table {} has no version {version}; the newest is {}", self.name(), newest.version());
            LakeError::new(ErrorKind::NotFound, text)
        };
        if version > newest.version() {
            return Err(missing());
        }
        let mut table = self.state.place.delta();
        if let Err(cause) = table.load_version(version).await {
            // The log was cleaned up to a checkpoint, or the store failed: the entry's absence tells which.
            let is_gone = self.state.entry_written(version).await?.is_none();
            return Err(if is_gone { missing() } else { self.state.failed(cause) });
        }
        let snapshot = Arc::new(Snapshot::load(&table, &self.state.place).await?);
        let mut pinned = lock(&self.state.pinned);
        pinned.truncate(PINNED_VERSIONS - 1);
        pinned.push_front(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The newest version committed at or before `time`. Looks from the newest backwards: the clocks of
    /// several writers need not agree, so the times need not be in order.
    async fn version_at(&self, newest: &Arc<Snapshot>, time: DateTime<Utc>) -> Result<u64, LakeError> {
        let mut first = None;
        let table = self.clone();
        let log = newest.table().log_store();
        let mut times = stream::iter((0..=newest.version()).rev())
            .map(move |version| table.clone().commit_time(Arc::clone(&log), version).boxed())
            .buffered(ENTRIES_AT_ONCE);
        while let Some((version, committed)) = times.try_next().await? {
            match committed {
                Some(committed) if committed <= time => return Ok(version),
                Some(committed) => first = Some(committed),
                // The log goes no further back.
                None => break,
            }
        }
        let kept = first.map_or_else(String::new, |first| format!("; the first kept version is of {first}"));
        let text = format!("table {} had no version at {time}{kept}", self.name());
        Err(LakeError::new(ErrorKind::NotFound, text))
    }

    async fn commit_time(self, log: LogStoreRef, version: u64) -> Result<(u64, Option<DateTime<Utc>>), LakeError> {
        if let Some(known) = lock(&self.state.commit_times).get(&version) {
            return Ok((version, *known));
        }
        let entry = LogEntry::read(&self.state.place, &log, version).await?;
        let time = entry.and_then(|entry| entry.committed_at);
        lock(&self.state.commit_times).insert(version, time);
        Ok((version, time))
    }

    pub(super) fn place(&self) -> &TablePlace {
        &self.state.place
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.lake
    }

    pub(super) fn environment(&self) -> &Arc<RuntimeEnv> {
        &self.lake.environment
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.lake.clock
    }

    pub(super) fn target_file_size(&self) -> u64 {
        self.lake.target_file_size
    }

    /// Keeps a chain that was just extended, so that it need not be read back.
    pub(super) fn remember(&self, chain: Arc<Folded>) {
        *lock(&self.state.chain) = Some(chain);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
