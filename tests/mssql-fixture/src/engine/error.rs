//! Errors as SQL Server numbers them, and what stops a batch.

use thiserror::Error;

/// An error a client sees: number, class (severity), state, text and the line of the batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("Msg {number}, Level {class}, State {state}, Line {line}: {message}")]
pub struct SqlError {
    /// SQL Server's message number.
    pub number: i32,
    /// Severity, 11 to 25 for errors.
    pub class: u8,
    /// State; 1 where nothing else is known.
    pub state: u8,
    /// The text.
    pub message: String,
    /// Line of the batch, from 1.
    pub line: u32,
}

impl SqlError {
    /// An error of this number and class in state 1, line 1.
    #[must_use]
    pub fn new(number: i32, class: u8, message: impl Into<String>) -> Self {
        Self { number, class, state: 1, message: message.into(), line: 1 }
    }

    /// The same error at a line of the batch.
    #[must_use]
    pub fn at(mut self, line: u32) -> Self {
        self.line = line;
        self
    }

    /// One of the errors tests ask for by number, with SQL Server's text where it is known.
    #[must_use]
    pub fn known(number: i32) -> Self {
        let (class, message) = match number {
            1205 => (
                13,
                "Transaction (Process ID 55) was deadlocked on lock resources with another process and has been chosen \
                 as the deadlock victim. Rerun the transaction.",
            ),
            1222 => (16, "Lock request time out period exceeded."),
            3952 => (
                16,
                "Snapshot isolation transaction failed accessing database because snapshot isolation is not allowed in \
                 this database. Use ALTER DATABASE to allow snapshot isolation.",
            ),
            3960 => (16, "Snapshot isolation transaction aborted due to update conflict."),
            3961 => (
                16,
                "Snapshot isolation transaction failed in database because the object accessed by the statement has \
                 been modified by a DDL statement in another concurrent transaction since the start of this transaction.",
            ),
            22117 => (
                16,
                "For databases that are members of a secondary availability replica, change tracking functions are not \
                 supported. Run these functions on the databases in the primary replica.",
            ),
            40197 => (17, "The service has encountered an error processing your request. Please try again."),
            40501 => (20, "The service is currently busy. Retry the request after 10 seconds."),
            40613 => (17, "Database is not currently available. Please retry the connection later."),
            8134 => (16, "Divide by zero error encountered."),
            _ => (16, "An error asked for by a test."),
        };
        Self::new(number, class, message)
    }

    pub(crate) fn syntax(word: &str, line: u32) -> Self {
        Self::new(102, 15, format!("Incorrect syntax near '{word}'.")).at(line)
    }

    pub(crate) fn unknown_object(name: &str) -> Self {
        Self::new(208, 16, format!("Invalid object name '{name}'."))
    }

    pub(crate) fn unknown_column(name: &str) -> Self {
        Self::new(207, 16, format!("Invalid column name '{name}'."))
    }

    /// An error of the stand-in itself, which SQL Server would not raise: 50000 with the cause.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(50000, 16, format!("mssql-fixture: {message}"))
    }
}

/// Why a batch ended before its end without an error for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Stop {
    /// The client cancelled: [`super::CancelHandle::cancel`] was called.
    #[error("the client cancelled")]
    Cancelled,
    /// The [`super::Output`] answered `Break`.
    #[error("the client went away")]
    Gone,
}

/// What can go wrong when the stand-in itself is set up.
#[derive(Debug, Error)]
pub enum FixtureError {
    /// SQLite refused.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file or folder could not be used.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The options name a collation nobody knows.
    #[error("unknown collation {0}")]
    Collation(String),
    /// A statement of the set-up failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
}
