//! Where a session sends what a batch yields, and a collector for tests.

use std::ops::ControlFlow;

use super::error::SqlError;
use crate::value::{Column, SqlType, Value};

/// A parameter of `sp_executesql` and its like, as the wire decoded it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name with `@`.
    pub name: String,
    /// Its declared type.
    pub sql_type: SqlType,
    /// Its value.
    pub value: Value,
}

/// What happened to the session's transaction; the number is the transaction's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEvent {
    /// It began.
    Began(u64),
    /// It was committed.
    Committed(u64),
    /// It was rolled back, by the client or by an error.
    RolledBack(u64),
}

/// Receives what a batch yields, in the order SQL Server would send it. `Break` means that the client is gone.
///
/// Every statement that answers ends with `done`; exactly the last `done` of a batch has `more == false`, and every
/// batch that is not stopped has one. An `error` comes before the `done` of its statement, whose rows are then `None`.
pub trait Output {
    /// A result set begins.
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()>;
    /// One row of the result set that was begun last. The slice is reused for the next row.
    fn row(&mut self, values: &[Value]) -> ControlFlow<()>;
    /// A statement ended; `rows` is its count, `None` under NOCOUNT, without a count and after an error.
    fn done(&mut self, rows: Option<u64>, more: bool) -> ControlFlow<()>;
    /// A statement failed.
    fn error(&mut self, error: &SqlError) -> ControlFlow<()>;
    /// A transaction began or ended.
    fn transaction(&mut self, event: TransactionEvent) -> ControlFlow<()>;
    /// The session went to another database context (`USE`).
    fn database(&mut self, _name: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// A message that is no error (`PRINT`).
    fn message(&mut self, _text: &str) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// One result set, collected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResultSet {
    /// Its columns; empty for a statement without a result set.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
    /// The count the statement gave.
    pub affected: Option<u64>,
}

/// An [`Output`] that keeps everything.
#[derive(Debug, Default)]
pub struct Collected {
    /// The result sets and counts in order.
    pub sets: Vec<ResultSet>,
    /// The errors in order.
    pub errors: Vec<SqlError>,
    /// The transaction events in order.
    pub events: Vec<TransactionEvent>,
    /// The messages in order.
    pub messages: Vec<String>,
    open: bool,
}

impl Output for Collected {
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()> {
        self.sets.push(ResultSet { columns: columns.to_vec(), ..ResultSet::default() });
        self.open = true;
        ControlFlow::Continue(())
    }

    fn row(&mut self, values: &[Value]) -> ControlFlow<()> {
        if let Some(set) = self.sets.last_mut() {
            set.rows.push(values.to_vec());
        }
        ControlFlow::Continue(())
    }

    fn done(&mut self, rows: Option<u64>, _more: bool) -> ControlFlow<()> {
        match self.sets.last_mut() {
            Some(set) if self.open => set.affected = rows,
            _ if rows.is_some() => self.sets.push(ResultSet { affected: rows, ..ResultSet::default() }),
            _ => {}
        }
        self.open = false;
        ControlFlow::Continue(())
    }

    fn error(&mut self, error: &SqlError) -> ControlFlow<()> {
        self.errors.push(error.clone());
        ControlFlow::Continue(())
    }

    fn transaction(&mut self, event: TransactionEvent) -> ControlFlow<()> {
        self.events.push(event);
        ControlFlow::Continue(())
    }

    fn message(&mut self, text: &str) -> ControlFlow<()> {
        self.messages.push(text.to_owned());
        ControlFlow::Continue(())
    }
}
