//! One connection's session: its settings, its transaction, its batches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle, ffi};

use super::ast::Name;
use super::bind::{Binder, Globals, Variable};
use super::catalog::Object;
use super::error::{FixtureError, SqlError, Stop};
use super::faults::SeenStatement;
use super::function::{SharedContext, register};
use super::output::{Output, Parameter};
use super::shared::Shared;
use super::write::Bulk;
use crate::value::{Column, Value};

/// A transaction's isolation level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// `READ UNCOMMITTED`; reads like read committed
    ReadUncommitted,
    /// `READ COMMITTED`, the default: every statement sees the latest commit
    #[default]
    ReadCommitted,
    /// `REPEATABLE READ`; reads like read committed
    RepeatableRead,
    /// `SERIALIZABLE`; reads like read committed
    Serializable,
    /// `SNAPSHOT`: the transaction sees what was committed at its first read
    Snapshot,
}

/// What a batch set with SET and what stays until it is set again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) isolation: Isolation,
    /// Milliseconds; -1 waits for ever.
    pub(super) lock_timeout: i64,
    pub(super) xact_abort: bool,
    pub(super) no_count: bool,
    pub(super) identity_insert: Option<i32>,
    /// FMTONLY: queries answer with their columns and no row.
    pub(super) format_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            lock_timeout: -1,
            xact_abort: false,
            no_count: false,
            identity_insert: None,
            format_only: false,
        }
    }
}

/// An open transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transaction {
    pub(super) descriptor: u64,
    pub(super) depth: u32,
    /// The level it began under.
    pub(super) isolation: Isolation,
}

/// What SQLite's own transaction is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Closed,
    Reading,
    Writing,
}

/// What a commit has to make known outside SQLite.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Tables that DML wrote to.
    pub(super) touched: BTreeSet<i32>,
    /// Tables that TRUNCATE emptied.
    pub(super) truncated: BTreeSet<i32>,
    /// Objects whose shape changed, and the catalogue they changed in.
    pub(super) altered: HashMap<i32, i64>,
    /// By how many rows tables grew.
    pub(super) counts: HashMap<i32, i64>,
}

/// Why a statement did not end well.
#[derive(Debug)]
pub(super) enum Halt {
    Error(SqlError),
    Stop(Stop),
}

impl From<SqlError> for Halt {
    fn from(error: SqlError) -> Self {
        Self::Error(error)
    }
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Runs are numbered; a run is cancelled when its number was.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    current: AtomicU64,
    cancelled: AtomicU64,
}

impl Cancellation {
    /// Lets a cancel that came too late for its run be forgotten.
    fn forget(&self) {
        self.current.fetch_max(self.cancelled.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) > self.current.load(Ordering::Relaxed)
    }
}

/// Cancels what a session runs, from another thread.
#[derive(Clone)]
pub struct CancelHandle {
    run: u64,
    state: Arc<Cancellation>,
    interrupt: Arc<InterruptHandle>,
}

impl CancelHandle {
    /// Cancels the run this handle was taken for, also when it has not begun yet.
    pub fn cancel(&self) {
        self.state.cancelled.fetch_max(self.run + 1, Ordering::SeqCst);
        if self.state.is_cancelled() {
            self.interrupt.interrupt();
        }
    }
}

/// One connection's session. It is `Send`; its calls block, so run them where blocking is allowed.
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) context: SharedContext,
    pub(super) login: String,
    pub(super) spid: u16,
    pub(super) settings: Settings,
    pub(super) transaction: Option<Transaction>,
    pub(super) hold: Hold,
    pub(super) pending: Pending,
    pub(super) variables: HashMap<String, Variable>,
    pub(super) row_count: i64,
    pub(super) last_error: i32,
    pub(super) nesting: u32,
    pub(super) bulk: Option<Bulk>,
    pub(super) cancellation: Arc<Cancellation>,
    interrupt: Arc<InterruptHandle>,
}

/// SQLite statements a session keeps prepared.
const CACHED_STATEMENTS: usize = 256;
/// How long SQLite itself waits for its file; a writer's turn is taken before, so only checkpoints are waited for.
const BUSY: Duration = Duration::from_secs(30);
/// SQLite instructions between two looks whether the run was cancelled.
const INSTRUCTIONS_BETWEEN_GLANCES: i32 = 20_000;

impl Session {
    pub(super) fn open(shared: &Arc<Shared>, login: &str) -> Result<Self, FixtureError> {
        let connection = Connection::open(shared.file())?;
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -16000; PRAGMA mmap_size = 1073741824; PRAGMA foreign_keys = OFF;",
        )?;
        let spid = shared.next_spid();
        let catalog = shared.catalog(0).ok_or_else(|| SqlError::internal("there is no catalogue"))?;
        let context = SharedContext::new(Arc::clone(shared), login, spid, catalog);
        register(&connection, &context)?;
        let cancellation = Arc::new(Cancellation::default());
        let seen = Arc::clone(&cancellation);
        connection.progress_handler(INSTRUCTIONS_BETWEEN_GLANCES, Some(move || seen.is_cancelled()));
        let interrupt = Arc::new(connection.get_interrupt_handle());
        shared.faults.connected(true);
        Ok(Self {
            shared: Arc::clone(shared),
            connection,
            context,
            login: login.to_owned(),
            spid,
            settings: Settings::default(),
            transaction: None,
            hold: Hold::Closed,
            pending: Pending::default(),
            variables: HashMap::new(),
            row_count: 0,
            last_error: 0,
            nesting: 0,
            bulk: None,
            cancellation,
            interrupt,
        })
    }

    /// Runs a batch: many statements, many result sets. Errors of statements go to `output`.
    ///
    /// # Errors
    /// When the client cancelled or is gone. A transaction stays open then, as SQL Server leaves it; under XACT_ABORT
    /// a cancelled batch rolls it back.
    pub fn run(&mut self, batch: &str, parameters: &[Parameter], output: &mut dyn Output) -> Result<(), Stop> {
        self.saw(batch);
        self.variables = parameters
            .iter()
            .map(|parameter| {
                let variable = Variable { sql_type: parameter.sql_type.clone(), value: parameter.value.clone() };
                (parameter.name.to_lowercase(), variable)
            })
            .collect();
        self.run_batch(batch, output)
    }

    /// Runs a batch as `sp_executesql` does: what it SETs ends with it.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_procedure(
        &mut self,
        batch: &str,
        parameters: &[Parameter],
        output: &mut dyn Output,
    ) -> Result<(), Stop> {
        let settings = self.settings;
        let ran = self.run(batch, parameters, output);
        self.settings = settings;
        ran
    }

    pub(super) fn saw(&self, text: &str) {
        self.shared.faults.saw(SeenStatement {
            session: self.spid,
            login: self.login.clone(),
            isolation: self.settings.isolation,
            in_transaction: self.transaction.is_some(),
            text: text.to_owned(),
        });
    }

    /// Begins a transaction (or nests one) and gives its descriptor. A level that is given stays the session's.
    ///
    /// # Errors
    /// None at present; the signature leaves room.
    pub fn begin(&mut self, isolation: Option<Isolation>) -> Result<u64, SqlError> {
        self.cancellation.forget();
        self.saw("BEGIN TRANSACTION");
        if let Some(isolation) = isolation {
            self.settings.isolation = isolation;
        }
        Ok(self.begin_transaction().0)
    }

    /// Commits the innermost transaction; gives the descriptor when the outermost one ended.
    ///
    /// # Errors
    /// 3902 when none is open, and what the commit itself raises.
    pub fn commit(&mut self) -> Result<Option<u64>, SqlError> {
        self.cancellation.forget();
        self.saw("COMMIT TRANSACTION");
        match self.commit_transaction() {
            Ok(ended) => Ok(ended),
            Err(Halt::Error(error)) => Err(error),
            Err(Halt::Stop(stop)) => Err(SqlError::internal(stop)),
        }
    }

    /// Rolls the whole transaction back; gives its descriptor.
    ///
    /// # Errors
    /// 3903 when none is open.
    pub fn rollback(&mut self) -> Result<u64, SqlError> {
        self.cancellation.forget();
        self.saw("ROLLBACK TRANSACTION");
        self.rollback_transaction().ok_or_else(|| {
            SqlError::new(3903, 16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.")
        })
    }

    /// The open transaction's descriptor.
    #[must_use]
    pub fn transaction(&self) -> Option<u64> {
        self.transaction.map(|transaction| transaction.descriptor)
    }

    /// Prepares a bulk load from its statement `INSERT BULK [s].[t] ([c] type, …) [WITH (…)]`; gives the columns in
    /// the order the rows must have.
    ///
    /// # Errors
    /// Those of SQL Server: no such table, no right, bad syntax.
    pub fn bulk(&mut self, statement: &str) -> Result<Vec<Column>, SqlError> {
        self.cancellation.forget();
        self.saw(statement);
        self.prepare_bulk(statement).map_err(plain)
    }

    /// Inserts rows of the bulk load prepared last; may be called many times. Outside a transaction each call
    /// commits. Gives how many rows went in.
    ///
    /// # Errors
    /// Those of SQL Server; nothing of this call stays then.
    pub fn bulk_rows(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, SqlError> {
        self.cancellation.forget();
        self.insert_bulk(rows).map_err(plain)
    }

    /// A handle that cancels the next (or the running) call of [`Session::run`]. Take a new one before every run: it
    /// begins uncancelled, and older ones no longer matter.
    pub fn cancel_handle(&mut self) -> CancelHandle {
        let state = Arc::clone(&self.cancellation);
        let cancelled = state.cancelled.load(Ordering::SeqCst);
        let run = cancelled.max(state.current.load(Ordering::SeqCst) + 1);
        state.current.store(run, Ordering::SeqCst);
        CancelHandle { run, state, interrupt: Arc::clone(&self.interrupt) }
    }

    /// The session's number (SPID).
    #[must_use]
    pub fn spid(&self) -> u16 {
        self.spid
    }

    /// Puts the session back to how it began (the reset bit of a request): settings, isolation, no transaction.
    pub fn reset(&mut self) {
        self.cancellation.forget();
        self.rollback_transaction();
        self.settings = Settings::default();
        self.bulk = None;
    }

    pub(super) fn globals(&self) -> Globals {
        Globals {
            row_count: self.row_count,
            error: self.last_error,
            depth: self.transaction.map_or(0, |transaction| i64::from(transaction.depth)),
            spid: self.spid,
            lock_timeout: self.settings.lock_timeout,
        }
    }

    pub(super) fn binder(&self) -> Binder<'_> {
        let catalog = Arc::clone(&self.context.lock().catalog);
        Binder::new(catalog, &self.context, &self.login, &self.variables, self.globals(), self.settings.identity_insert)
    }

    /// The object of a name in the catalogue in force.
    pub(super) fn object(&self, name: &Name) -> Result<Arc<Object>, SqlError> {
        let catalog = Arc::clone(&self.context.lock().catalog);
        catalog.object(name).cloned().ok_or_else(|| SqlError::unknown_object(&name.text()))
    }

    /// What an error of SQLite is to a client.
    pub(super) fn halt(&self, error: rusqlite::Error) -> Halt {
        if let Some(error) = self.context.lock().error.take() {
            return Halt::Error(error);
        }
        let Some(code) = error.sqlite_error().copied() else {
            return Halt::Error(SqlError::internal(error));
        };
        match (code.code, code.extended_code) {
            (ErrorCode::OperationInterrupted, _) => Halt::Stop(Stop::Cancelled),
            (_, ffi::SQLITE_BUSY_SNAPSHOT) => Halt::Error(SqlError::known(3960)),
            (ErrorCode::DatabaseBusy, _) => Halt::Error(SqlError::known(1222)),
            (ErrorCode::ConstraintViolation, _) => Halt::Error(self.violation(&error.to_string())),
            _ => Halt::Error(SqlError::internal(error)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancellation.forget();
        self.rollback_transaction();
        self.shared.faults.connected(false);
    }
}

fn plain(halt: Halt) -> SqlError {
    match halt {
        Halt::Error(error) => error,
        Halt::Stop(stop) => SqlError::internal(stop),
    }
}
