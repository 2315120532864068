//! The database of the stand-in: T-SQL over SQLite, with catalogue, transactions, Change Tracking and faults.

mod admin;
mod ast;
mod bind;
mod catalog;
mod convert;
mod ddl;
mod ddl_key;
mod ddl_table;
mod error;
mod faults;
mod function;
mod output;
mod parse;
#[cfg(test)]
mod plan_tests;
mod procedures;
mod run;
mod session;
mod shared;
mod storage;
mod token;
mod tracking;
mod transaction;
mod views;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::{FixtureError, SqlError, Stop};
pub use faults::{Faults, Gate, SeenStatement, Stall, WireFaults};
pub use output::{Collected, Output, Parameter, ResultSet, TransactionEvent};
pub use session::{CancelHandle, Isolation, Session};

use catalog::Catalog;
use shared::Shared;

use crate::collation::Collation;

/// How a database is made.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The database's name.
    pub name: String,
    /// The database's collation.
    pub collation: String,
    /// Where its files lie; `None` makes a folder that goes away with the database.
    pub folder: Option<PathBuf>,
    /// `SERVERPROPERTY('ProductVersion')`, such as `16.0.4135.4`.
    pub product_version: String,
    /// `SERVERPROPERTY('Edition')`.
    pub edition: String,
    /// `SERVERPROPERTY('EngineEdition')`: 3 is Enterprise, 5 is Azure SQL Database.
    pub engine_edition: i32,
    /// Whether Change Tracking can be switched on.
    pub change_tracking: bool,
    /// Whether snapshot isolation can be switched on.
    pub snapshot_isolation: bool,
    /// Whether the dynamic management views are there.
    pub management_views: bool,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            name: "ops".to_owned(),
            collation: crate::collation::DEFAULT_COLLATION.to_owned(),
            folder: None,
            product_version: "16.0.4135.4".to_owned(),
            edition: "Developer Edition (64-bit)".to_owned(),
            engine_edition: 3,
            change_tracking: true,
            snapshot_isolation: true,
            management_views: true,
        }
    }
}

/// One database: a folder with a SQLite file in WAL mode. Cheap to clone; every clone is the same database.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

impl Database {
    /// Makes an empty database.
    ///
    /// # Errors
    /// When the folder cannot be written or an option is wrong.
    pub fn create(options: DatabaseOptions) -> Result<Self, FixtureError> {
        let collation =
            Collation::parse(&options.collation).ok_or_else(|| FixtureError::Collation(options.collation.clone()))?;
        let catalog = Catalog::empty(&options.name, collation, convert::now());
        let shared = Arc::new(Shared::new(options, catalog)?);
        let session = Session::open(&shared, "sa")?;
        session.connection.execute_batch(tracking::STATE)?;
        drop(session);
        Ok(Self(shared))
    }

    /// Opens a session of a login. The login need not have been created: it has then no rights at all.
    ///
    /// # Errors
    /// When SQLite cannot open one more connection.
    pub fn session(&self, login: &str) -> Result<Session, FixtureError> {
        Session::open(&self.0, login)
    }

    /// Runs a script as `sa`, outside the wire: for tests and seeds. `GO` on a line of its own separates batches.
    ///
    /// # Errors
    /// The first error a statement raised; what ran before stays.
    pub fn execute(&self, sql: &str) -> Result<Vec<ResultSet>, SqlError> {
        let mut session = self.session("sa").map_err(SqlError::internal)?;
        let mut all = Vec::new();
        for batch in batches(sql) {
            let mut collected = Collected::default();
            session.run(&batch, &[], &mut collected).map_err(SqlError::internal)?;
            if let Some(error) = collected.errors.into_iter().next() {
                return Err(error);
            }
            all.append(&mut collected.sets);
        }
        Ok(all)
    }

    /// The faults of this database.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &DatabaseOptions {
        &self.0.options
    }

    /// Whether this is the password that `CREATE LOGIN` gave; `None` when there is no such login.
    #[must_use]
    pub fn password_matches(&self, login: &str, password: &str) -> Option<bool> {
        let session = self.session("sa").ok()?;
        session.load_catalog().ok()?;
        let catalog = Arc::clone(&session.context.lock().catalog);
        catalog.logins.get(&login.to_lowercase()).map(|known| known.as_deref().is_none_or(|known| known == password))
    }

    /// Forgets a table's changes up to a version, as the clean-up does when the retention has passed.
    ///
    /// # Errors
    /// When there is no such table or it is not tracked.
    pub fn expire(&self, table: &str, version: i64) -> Result<(), SqlError> {
        admin::expire(&self.0, table, version)
    }

    /// Takes a backup that [`Database::restore`] can go back to; gives the Change Tracking version it has.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub fn backup(&self) -> Result<i64, SqlError> {
        admin::backup(&self.0)
    }

    /// Goes back to the newest backup that is not newer than the version: rows, tables, Change Tracking and rowversions
    /// are as they were then, and `recovery_fork_guid` is a new one. Gives the version it went back to.
    ///
    /// # Errors
    /// When there is no such backup.
    pub fn restore(&self, to_version: i64) -> Result<i64, SqlError> {
        admin::restore(&self.0, to_version)
    }

    /// Drops a table and makes it again with the same rows and rights: another object of the same name.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn recreate(&self, table: &str) -> Result<(), SqlError> {
        admin::recreate(&self.0, table)
    }

    /// Makes the database look like a readable secondary: no writes, and Change Tracking answers with error 22117.
    pub fn read_only_secondary(&self, on: bool) {
        self.0.set_secondary(on);
    }

    /// Whether CHANGETABLE shows a D for rows that came and went since the version asked for; they are left out
    /// otherwise. What SQL Server does is not documented.
    pub fn unseen_deletes(&self, on: bool) {
        self.0.set_unseen_deletes(on);
    }

    /// Whether, from now on, a transaction is in progress that was given the next rowversion: others commit greater
    /// ones meanwhile, which sessions of this stand-in cannot do to each other.
    pub fn hold_row_versions(&self, held: bool) {
        self.0.hold_row_versions(held);
    }
}

/// Cuts a script at its `GO` lines.
fn batches(script: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    all.retain(|batch| !batch.trim().is_empty());
    all
}
