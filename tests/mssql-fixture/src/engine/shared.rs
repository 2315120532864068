//! What all sessions of a database share outside SQLite: counters, the writer's turn, catalogues by number.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::DatabaseOptions;
use super::catalog::Catalog;
use super::error::FixtureError;
use super::faults::Faults;

/// The guids by which a client can see that a database is another one than before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guids {
    pub(crate) fork: Uuid,
    pub(crate) database: Uuid,
    pub(crate) broker: Uuid,
}

/// A copy of the database that `restore` goes back to.
pub(crate) struct Backup {
    /// The Change Tracking version it was taken at.
    pub(crate) version: i64,
    /// `@@DBTS` then.
    pub(crate) row_version: u64,
    pub(crate) file: PathBuf,
}

/// A session that is none.
const NOBODY: u16 = u16::MAX;

#[derive(Default)]
struct RowVersions {
    last: u64,
    /// The lowest value each open transaction was given, by session.
    active: BTreeMap<u16, u64>,
}

pub(crate) struct Shared {
    pub(crate) options: DatabaseOptions,
    pub(crate) faults: Faults,
    pub(crate) guids: Mutex<Guids>,
    pub(crate) backups: Mutex<Vec<Backup>>,
    /// By object id, the number of the catalogue of its last committed DDL; the greatest number for a dropped one.
    pub(crate) altered: Mutex<HashMap<i32, i64>>,
    pub(crate) row_counts: Mutex<HashMap<i32, i64>>,
    catalogs: Mutex<HashMap<i64, Arc<Catalog>>>,
    next_catalog: AtomicI64,
    identities: Mutex<HashMap<i32, (i64, i64)>>,
    row_versions: Mutex<RowVersions>,
    writer: Mutex<Option<u16>>,
    writer_left: Condvar,
    secondary: AtomicBool,
    unseen_deletes: AtomicBool,
    next_spid: AtomicU16,
    next_transaction: AtomicU64,
    folder: Folder,
}

/// The folder of a database; a temporary one goes away with it.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing is lost when this fails: the folder lies among temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Takes a lock whatever became of the thread that had it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SQL Server numbers sessions of users from 51.
const FIRST_SPID: u16 = 51;
/// rowversions of a new database begin at 2000 in SQL Server.
const FIRST_ROW_VERSION: u64 = 2000;
/// How long a waiting writer sleeps before it looks whether it was cancelled.
const GLANCE: Duration = Duration::from_millis(20);

/// Why a writer did not get its turn.
pub(crate) enum NoTurn {
    TimedOut,
    Cancelled,
}

impl Shared {
    pub(crate) fn new(options: DatabaseOptions, catalog: Catalog) -> Result<Self, FixtureError> {
        let (path, temporary) = match &options.folder {
            Some(folder) => (folder.clone(), false),
            None => (std::env::temp_dir().join(format!("mssql-fixture-{}", Uuid::new_v4().simple())), true),
        };
        std::fs::create_dir_all(&path)?;
        for name in ["database.sqlite", "database.sqlite-wal", "database.sqlite-shm"] {
            match std::fs::remove_file(path.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Self {
            options,
            faults: Faults::default(),
            guids: Mutex::new(Guids { fork: Uuid::new_v4(), database: Uuid::new_v4(), broker: Uuid::new_v4() }),
            backups: Mutex::default(),
            altered: Mutex::default(),
            row_counts: Mutex::default(),
            catalogs: Mutex::new(HashMap::from([(catalog.version, Arc::new(catalog))])),
            next_catalog: AtomicI64::new(1),
            identities: Mutex::default(),
            row_versions: Mutex::new(RowVersions { last: FIRST_ROW_VERSION, active: BTreeMap::new() }),
            writer: Mutex::new(None),
            writer_left: Condvar::new(),
            secondary: AtomicBool::new(false),
            unseen_deletes: AtomicBool::new(false),
            next_spid: AtomicU16::new(FIRST_SPID),
            next_transaction: AtomicU64::new(1),
            folder: Folder { path, temporary },
        })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path.join("database.sqlite")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.path
    }

    pub(crate) fn catalog(&self, version: i64) -> Option<Arc<Catalog>> {
        lock(&self.catalogs).get(&version).cloned()
    }

    /// Keeps a changed catalogue under a number of its own.
    pub(crate) fn keep(&self, catalog: Catalog) -> Arc<Catalog> {
        let catalog = Arc::new(catalog);
        lock(&self.catalogs).insert(catalog.version, Arc::clone(&catalog));
        catalog
    }

    /// A number no catalogue has had.
    pub(crate) fn next_catalog(&self) -> i64 {
        self.next_catalog.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn next_spid(&self) -> u16 {
        self.next_spid.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn next_transaction(&self) -> u64 {
        self.next_transaction.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn is_secondary(&self) -> bool {
        self.secondary.load(Ordering::SeqCst)
    }

    pub(crate) fn set_secondary(&self, on: bool) {
        self.secondary.store(on, Ordering::SeqCst);
    }

    /// Whether CHANGETABLE gives a D also for a row that came and went since the version asked for.
    pub(crate) fn shows_unseen_deletes(&self) -> bool {
        self.unseen_deletes.load(Ordering::SeqCst)
    }

    pub(crate) fn set_unseen_deletes(&self, on: bool) {
        self.unseen_deletes.store(on, Ordering::SeqCst);
    }

    /// Sets what an identity column gives next, and its step.
    pub(crate) fn set_identity(&self, table: i32, next: i64, step: i64) {
        lock(&self.identities).insert(table, (next, step));
    }

    pub(crate) fn next_identity(&self, table: i32) -> i64 {
        let mut identities = lock(&self.identities);
        let (next, step) = identities.entry(table).or_insert((1, 1));
        let given = *next;
        *next += *step;
        given
    }

    /// Lifts an identity column over a value that was put in by hand.
    pub(crate) fn lift_identity(&self, table: i32, highest: i64) {
        if let Some((next, step)) = lock(&self.identities).get_mut(&table)
            && *step > 0
            && highest >= *next
        {
            *next = highest + *step;
        }
    }

    pub(crate) fn next_row_version(&self, session: u16) -> u64 {
        let mut versions = lock(&self.row_versions);
        versions.last += 1;
        let given = versions.last;
        versions.active.entry(session).or_insert(given);
        given
    }

    /// `@@DBTS`.
    pub(crate) fn last_row_version(&self) -> u64 {
        lock(&self.row_versions).last
    }

    /// Sets `@@DBTS` back, as a restore does.
    pub(crate) fn set_row_version(&self, last: u64) {
        lock(&self.row_versions).last = last;
    }

    /// `MIN_ACTIVE_ROWVERSION()`.
    pub(crate) fn lowest_row_version(&self) -> u64 {
        let versions = lock(&self.row_versions);
        versions.active.values().min().copied().unwrap_or(versions.last + 1)
    }

    /// From now on, or no longer, a transaction is in progress that was given the next value.
    pub(crate) fn hold_row_versions(&self, held: bool) {
        let mut versions = lock(&self.row_versions);
        if held {
            versions.last += 1;
            let given = versions.last;
            versions.active.insert(NOBODY, given);
        } else {
            versions.active.remove(&NOBODY);
        }
    }

    /// A session's transaction ended: its rowversions are no longer active.
    pub(crate) fn settle_row_versions(&self, session: u16) {
        lock(&self.row_versions).active.remove(&session);
    }

    /// Adds to the row counts the catalogue views show.
    pub(crate) fn count_rows(&self, changes: &HashMap<i32, i64>) {
        let mut counts = lock(&self.row_counts);
        for (table, change) in changes {
            *counts.entry(*table).or_insert(0) += change;
        }
    }

    /// Waits until no other session writes. `timeout` is LOCK_TIMEOUT; `None` waits for ever.
    pub(crate) fn take_turn(
        &self,
        session: u16,
        timeout: Option<Duration>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), NoTurn> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut writer = lock(&self.writer);
        loop {
            if writer.is_none_or(|holder| holder == session) {
                *writer = Some(session);
                return Ok(());
            }
            if cancelled() {
                return Err(NoTurn::Cancelled);
            }
            let left = deadline.map_or(GLANCE, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(NoTurn::TimedOut);
            }
            let waited = self.writer_left.wait_timeout(writer, left.min(GLANCE));
            writer = waited.map_or_else(|broken| broken.into_inner().0, |(guard, _)| guard);
        }
    }

    pub(crate) fn leave_turn(&self, session: u16) {
        let mut writer = lock(&self.writer);
        if *writer == Some(session) {
            *writer = None;
            self.writer_left.notify_all();
        }
    }
}
