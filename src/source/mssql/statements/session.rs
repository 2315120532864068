//! Statements that are always the same: settings, transactions, versions.

use std::time::Duration;

/// Settings of a connection, sent once and as a batch: inside `sp_executesql` they would end with it. Users of the
/// database come first: whoever waits for us more than `lock_timeout` does not (locks on the schema alone can make us
/// wait), and of a deadlock we are the victim.
pub fn session(lock_timeout: Duration) -> String {
    let milliseconds = lock_timeout.as_millis();
    format!("SET XACT_ABORT ON; SET LOCK_TIMEOUT {milliseconds}; SET DEADLOCK_PRIORITY LOW; SET NOCOUNT ON;")
}

/// Asks for nothing, to see whether the server is there.
pub const CURRENT_DATABASE: &str = "SELECT DB_NAME();";

/// Begins a transaction that sees one state and holds no lock on rows.
pub const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION;";

/// Begins a transaction where snapshots are not allowed.
pub const BEGIN_READ_COMMITTED: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION;";

/// Ends a transaction of reads.
pub const COMMIT: &str = "COMMIT TRANSACTION;";

/// Ends a transaction after an error, whether the server has ended it already or not.
pub const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;";

/// The version of the last committed change: `bigint`, NULL where Change Tracking is off.
pub const CURRENT_VERSION: &str = "SELECT CHANGE_TRACKING_CURRENT_VERSION();";

/// The row version below which every transaction has ended: `bigint`. Not `@@DBTS`, below which some have not.
pub const MIN_ACTIVE_ROWVERSION: &str = "SELECT CONVERT(bigint, MIN_ACTIVE_ROWVERSION());";

/// How many rows the statement before it in the same batch gave: `int`.
pub const ROWS_READ: &str = "SELECT @@ROWCOUNT;";
