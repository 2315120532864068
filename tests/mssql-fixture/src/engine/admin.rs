//! What happens to a database from outside: expiry of changes, restore, a table made anew.

use std::time::Duration;

use rusqlite::backup::Backup as Copy;
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::Shared;
use super::ast::Name;
use super::catalog::Catalog;
use super::convert::now;
use super::ddl_table::moved_rights;
use super::error::SqlError;
use super::parse;
use super::session::{Halt, Session};
use super::shared::{Backup, lock};
use super::tracking;
use std::sync::Arc;

/// How long an intervention waits for sessions that write.
const PATIENCE_MS: i64 = 10_000;
/// Pages a restore copies at a time.
const PAGES: i32 = 10_000;

/// Runs an intervention in a session of its own.
fn intervene<T>(shared: &Arc<Shared>, work: impl FnOnce(&mut Session) -> Result<T, Halt>) -> Result<T, SqlError> {
    let mut session = Session::open(shared, "sa").map_err(SqlError::internal)?;
    session.settings.lock_timeout = PATIENCE_MS;
    let done = session.load_catalog().and_then(|()| work(&mut session));
    let ended = session.end_statement(done.is_ok());
    match done.and_then(|done| ended.map(|()| done)) {
        Ok(done) => Ok(done),
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Stop(stop)) => Err(SqlError::internal(stop)),
    }
}

fn name(table: &str) -> Result<Name, SqlError> {
    parse::object_name(table)
}

/// Forgets a table's changes up to a version.
pub(super) fn expire(shared: &Arc<Shared>, table: &str, version: i64) -> Result<(), SqlError> {
    let name = name(table)?;
    intervene(shared, |session| {
        session.open_write()?;
        let object = session.object(&name)?;
        if object.tracking.is_none() {
            return Err(SqlError::new(22105, 16, format!("Change tracking is not enabled on table '{table}'.")).into());
        }
        tracking::expire(&session.connection, object.id, version).map_err(|error| session.halt(error))
    })
}

/// Drops a table and makes it again with the same rows, keys and rights: another object of the same name. Its changes
/// are tracked anew when they were before.
pub(super) fn recreate(shared: &Arc<Shared>, table: &str) -> Result<(), SqlError> {
    let name = name(table)?;
    intervene(shared, |session| {
        session.open_write()?;
        let old = session.object(&name)?;
        let current = Arc::clone(&session.context.lock().catalog);
        let mut catalog = Catalog { version: session.shared.next_catalog(), ..(*current).clone() };
        let mut new = (*old).clone();
        new.id = catalog.new_id();
        (new.created, new.modified, new.changed) = (now(), now(), catalog.version);
        session.copy_table(&old, &mut new)?;
        tracking::disable(&session.connection, old.id).map_err(|error| session.halt(error))?;
        session.sql_batch(&format!("DROP TABLE {}", old.table()))?;
        if new.tracking.is_some() {
            tracking::enable(&session.connection, &new).map_err(|error| session.halt(error))?;
        }
        moved_rights(&mut catalog, old.id, new.id);
        catalog.remove(old.id);
        session.altered(old.id, i64::MAX);
        let rows = lock(&session.shared.row_counts).get(&old.id).copied().unwrap_or(0);
        session.pending.counts.insert(new.id, rows);
        catalog.put(new);
        session.put_in_force(catalog)
    })
}

/// Takes a copy of the database that [`restore`] can go back to; gives its Change Tracking version.
pub(super) fn backup(shared: &Arc<Shared>) -> Result<i64, SqlError> {
    intervene(shared, |session| {
        let file = session.shared.folder().join(format!("backup-{}.sqlite", Uuid::new_v4().simple()));
        // The writer's turn keeps the copy and what is noted about it in step.
        session.open_write()?;
        let version = tracking::current_version(&session.connection).map_err(|error| session.halt(error))?;
        let row_version = session.shared.last_row_version();
        let copied = || -> rusqlite::Result<()> {
            let source = Connection::open_with_flags(session.shared.file(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut target = Connection::open(&file)?;
            Copy::new(&source, &mut target)?.run_to_completion(PAGES, Duration::ZERO, None)
        };
        copied().map_err(|error| session.halt(error))?;
        lock(&session.shared.backups).push(Backup { version, row_version, file });
        Ok(version)
    })
}

/// Goes back to the newest backup that is not newer than a version: rows, shapes and versions are as then, and the
/// recovery fork is a new one. Gives the version it went back to.
pub(super) fn restore(shared: &Arc<Shared>, version: i64) -> Result<i64, SqlError> {
    let found = {
        let backups = lock(&shared.backups);
        let best = backups.iter().filter(|backup| backup.version <= version).max_by_key(|backup| backup.version);
        best.map(|backup| (backup.version, backup.row_version, backup.file.clone()))
    };
    let Some((version, row_version, file)) = found else {
        return Err(SqlError::internal(format!("there is no backup of version {version} or before")));
    };
    intervene(shared, |session| {
        session.open_write()?;
        // The turn stays taken while SQLite's own transaction makes way for the copy.
        session.sql_batch("COMMIT; BEGIN DEFERRED; COMMIT")?;
        session.hold = super::session::Hold::Closed;
        let copied = || -> rusqlite::Result<()> {
            let source = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            let mut target = Connection::open(session.shared.file())?;
            target.busy_timeout(Duration::from_secs(10))?;
            Copy::new(&source, &mut target)?.run_to_completion(PAGES, Duration::ZERO, None)
        };
        let copied = copied().map_err(|error| session.halt(error));
        let settled = copied.and_then(|()| session.settle_restore());
        session.shared.set_row_version(row_version);
        session.shared.leave_turn(session.spid);
        settled
    })?;
    lock(&shared.guids).fork = Uuid::new_v4();
    lock(&shared.altered).clear();
    Ok(version)
}

impl Session {
    /// Counts rows and identities anew.
    fn settle_restore(&mut self) -> Result<(), Halt> {
        self.load_catalog()?;
        let catalog = Arc::clone(&self.context.lock().catalog);
        lock(&self.shared.row_counts).clear();
        for object in catalog.objects.values().filter(|object| object.view.is_none()) {
            let table = object.table();
            let number = |sql: &str| {
                self.connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).map_err(|error| self.halt(error))
            };
            let rows = number(&format!("SELECT count(*) FROM {table}"))?.unwrap_or(0);
            lock(&self.shared.row_counts).insert(object.id, rows);
            let identity = object.columns.iter().find_map(|column| Some((column, column.identity?)));
            if let Some((column, (seed, step))) = identity {
                let highest = number(&format!("SELECT max({}) FROM {table}", column.physical))?;
                self.shared.set_identity(object.id, highest.map_or(seed, |highest| highest + step), step);
            }
        }
        Ok(())
    }
}
