//! Transactions of a session over SQLite's: when one begins, what it sees, what a commit does.
//!
//! A SNAPSHOT transaction holds one read transaction of SQLite from its first read on. Under READ COMMITTED every
//! statement has a read transaction of its own. Whoever writes takes the one writer's turn until its end.

use std::sync::Arc;
use std::time::Duration;

use super::bind::{Binder, Needs};
use super::error::{SqlError, Stop};
use super::session::{Halt, Hold, Isolation, Pending, Session, Transaction};
use super::shared::{NoTurn, lock};
use super::{tracking, views};

impl Session {
    /// Begins or nests; gives the descriptor and whether it is new.
    pub(super) fn begin_transaction(&mut self) -> (u64, bool) {
        if let Some(transaction) = &mut self.transaction {
            transaction.depth += 1;
            return (transaction.descriptor, false);
        }
        let descriptor = self.shared.next_transaction();
        self.transaction = Some(Transaction { descriptor, depth: 1, isolation: self.settings.isolation });
        (descriptor, true)
    }

    pub(super) fn commit_transaction(&mut self) -> Result<Option<u64>, Halt> {
        let Some(transaction) = &mut self.transaction else {
            let message = "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.";
            return Err(SqlError::new(3902, 16, message).into());
        };
        if transaction.depth > 1 {
            transaction.depth -= 1;
            return Ok(None);
        }
        let descriptor = transaction.descriptor;
        self.transaction = None;
        self.close(true).map(|()| Some(descriptor))
    }

    /// Rolls back whatever is open; gives the descriptor when a transaction was.
    pub(super) fn rollback_transaction(&mut self) -> Option<u64> {
        let descriptor = self.transaction.take().map(|transaction| transaction.descriptor);
        if self.hold != Hold::Closed {
            // A rollback that SQLite has done itself already is no failure.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.forget();
        descriptor
    }

    fn forget(&mut self) {
        self.hold = Hold::Closed;
        self.pending = Pending::default();
        self.shared.settle_row_versions(self.spid);
        self.shared.leave_turn(self.spid);
    }

    /// Ends SQLite's transaction: commits or rolls back.
    fn close(&mut self, keep: bool) -> Result<(), Halt> {
        match (self.hold, keep) {
            (Hold::Closed, _) => Ok(()),
            (Hold::Reading, _) => {
                self.hold = Hold::Closed;
                self.connection.execute_batch("COMMIT").map_err(|error| self.halt(error))
            }
            (Hold::Writing, true) => {
                let committed = self.commit_writes();
                if committed.is_err() {
                    let _ = self.connection.execute_batch("ROLLBACK");
                }
                self.forget();
                committed
            }
            (Hold::Writing, false) => {
                self.rollback_transaction();
                Ok(())
            }
        }
    }

    fn commit_writes(&mut self) -> Result<(), Halt> {
        let catalog = Arc::clone(&self.context.lock().catalog);
        let pending = std::mem::take(&mut self.pending);
        tracking::commit(&self.connection, &catalog, &pending.touched, &pending.truncated)
            .and_then(|()| self.connection.execute_batch("COMMIT"))
            .map_err(|error| self.halt(error))?;
        self.shared.count_rows(&pending.counts);
        lock(&self.shared.altered).extend(pending.altered);
        Ok(())
    }

    /// Ends a statement: outside a transaction its work is committed or undone, and inside one a read that need not
    /// last is let go.
    pub(super) fn end_statement(&mut self, keep: bool) -> Result<(), Halt> {
        match (&self.transaction, self.hold) {
            (None, _) => self.close(keep),
            (Some(transaction), Hold::Reading) if transaction.isolation != Isolation::Snapshot => self.close(true),
            _ => Ok(()),
        }
    }

    fn isolation(&self) -> Isolation {
        self.transaction.map_or(self.settings.isolation, |transaction| transaction.isolation)
    }

    /// Takes the catalogue that SQLite's file names now.
    pub(super) fn load_catalog(&self) -> Result<(), Halt> {
        let version: i64 = self
            .connection
            .prepare_cached("SELECT value FROM fx_state WHERE name = 'catalog'")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(|error| self.halt(error))?;
        let mut context = self.context.lock();
        if context.catalog.version != version {
            let catalog = self.shared.catalog(version);
            context.catalog = catalog.ok_or_else(|| SqlError::internal("the catalogue is gone"))?;
        }
        Ok(())
    }

    /// Makes sure that a read transaction of SQLite is open.
    pub(super) fn open_read(&mut self) -> Result<(), Halt> {
        if self.settings.isolation == Isolation::Snapshot && self.isolation() != Isolation::Snapshot {
            let message = "Transaction failed in database because the statement was run under snapshot isolation but \
                           the transaction did not start in snapshot isolation. You cannot change the isolation level \
                           of the transaction to snapshot after the transaction has started unless the transaction was \
                           originally started under snapshot isolation level.";
            return Err(SqlError::new(3951, 16, message).into());
        }
        if self.hold == Hold::Closed {
            if self.isolation() == Isolation::Snapshot {
                self.demand_snapshot()?;
            }
            self.connection.execute_batch("BEGIN DEFERRED").map_err(|error| self.halt(error))?;
            self.hold = Hold::Reading;
            self.load_catalog()?;
        }
        Ok(())
    }

    /// Error 3952 where snapshots are not allowed.
    fn demand_snapshot(&self) -> Result<(), Halt> {
        self.load_catalog()?;
        let allowed = self.context.lock().catalog.database.snapshot && self.shared.options.snapshot_isolation;
        if allowed { Ok(()) } else { Err(SqlError::known(3952).into()) }
    }

    /// Makes sure that this session may write: waits for the writer before it, at most LOCK_TIMEOUT.
    pub(super) fn open_write(&mut self) -> Result<(), Halt> {
        if self.hold == Hold::Writing {
            return Ok(());
        }
        if self.isolation() == Isolation::Snapshot {
            self.demand_snapshot()?;
        }
        let read_only = self.context.lock().catalog.database.read_only || self.shared.is_secondary();
        if read_only {
            let name = &self.shared.options.name;
            let message = format!("Failed to update database \"{name}\" because the database is read-only.");
            return Err(SqlError::new(3906, 16, message).into());
        }
        let timeout = u64::try_from(self.settings.lock_timeout).ok().map(Duration::from_millis);
        let cancelled = || self.cancellation.is_cancelled();
        match self.shared.take_turn(self.spid, timeout, &cancelled) {
            Ok(()) => {}
            Err(NoTurn::TimedOut) => return Err(SqlError::known(1222).into()),
            Err(NoTurn::Cancelled) => return Err(Stop::Cancelled.into()),
        }
        let begun = if self.hold == Hold::Closed {
            self.connection.execute_batch("BEGIN IMMEDIATE")
        } else {
            // A snapshot that is no longer the latest state cannot be written to: 3960.
            self.connection.execute_batch("UPDATE fx_state SET value = value + 1 WHERE name = 'writes'")
        };
        if let Err(error) = begun {
            self.shared.leave_turn(self.spid);
            return Err(self.halt(error));
        }
        self.hold = Hold::Writing;
        self.load_catalog()
    }

    /// Binds a statement against the catalogue it will run under. A statement that touches no data opens nothing, so
    /// that it does not fix a snapshot.
    pub(super) fn bound<T>(
        &mut self,
        bind: impl Fn(&mut Binder<'_>) -> Result<T, SqlError>,
    ) -> Result<(T, Needs), Halt> {
        if self.hold == Hold::Closed {
            self.load_catalog()?;
        }
        let before = self.context.lock().catalog.version;
        let (mut bound, mut needs) = self.bind_once(&bind)?;
        if needs.touches_data() {
            self.open_read()?;
            if self.context.lock().catalog.version != before {
                (bound, needs) = self.bind_once(&bind)?;
            }
            self.demand_unaltered(&needs)?;
            self.fill_views(&needs)?;
        }
        Ok((bound, needs))
    }

    fn bind_once<T>(&self, bind: &impl Fn(&mut Binder<'_>) -> Result<T, SqlError>) -> Result<(T, Needs), SqlError> {
        let mut binder = self.binder();
        let bound = bind(&mut binder)?;
        Ok((bound, binder.needs))
    }

    /// Error 3961 when an object was altered after this snapshot began.
    fn demand_unaltered(&self, needs: &Needs) -> Result<(), Halt> {
        if self.isolation() != Isolation::Snapshot || self.transaction.is_none() {
            return Ok(());
        }
        let catalog = Arc::clone(&self.context.lock().catalog);
        let altered = lock(&self.shared.altered);
        let stale = needs.objects.iter().any(|id| {
            let seen = catalog.objects.get(id).map_or(0, |object| object.changed);
            altered.get(id).is_some_and(|changed| *changed > seen)
        });
        if stale { Err(SqlError::known(3961).into()) } else { Ok(()) }
    }

    fn fill_views(&self, needs: &Needs) -> Result<(), Halt> {
        if needs.views.is_empty() {
            return Ok(());
        }
        let catalog = Arc::clone(&self.context.lock().catalog);
        let origin =
            views::Origin { catalog: &catalog, shared: &self.shared, login: &self.login, connection: &self.connection };
        for view in needs.views.iter().filter_map(|name| views::by_name(name)) {
            view.fill(&origin).map_err(|error| self.halt(error))?;
        }
        Ok(())
    }
}
