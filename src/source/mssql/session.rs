//! One connection, used for one statement after the other.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tiberius::Row;
use tokio::sync::OwnedSemaphorePermit;

use crate::config::SqlServerConnection;
use crate::error::ErrorKind;
use crate::source::mssql::connect::Wire;
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::pace::Gentle;
use crate::source::mssql::statements;
use answer::{Answer, Statement};

/// Rows of a statement, as they come: what drivers of other makes would have to give as well.
///
/// One statement at a time. The rows count only when the stream has ended without error, for a server tells
/// its errors after the rows; a stream that is dropped before leaves the source unusable.
pub trait RowSource: Send {
    /// Runs a batch and gives the rows of all its results.
    fn rows<'a>(&'a mut self, sql: &'a str, doing: &'a str) -> BoxStream<'a, Result<Row, SqlServerError>>;
}

/// An open connection.
pub struct Session {
    /// None while an answer is being read, and ever after where it was not read to its end.
    wire: Option<Box<Wire>>,
    /// Longest that a server may be silent while it owes an answer.
    timeout: Duration,
    in_transaction: bool,
    /// How rows are read until the transaction ends; as fast as they come where there is none.
    gentle: Option<Gentle>,
    /// The place among the connections that may be open: kept by whoever still reads from the wire.
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Session {
    /// Takes over a connection and sets what every statement of lakegate runs under.
    pub(super) async fn begin(client: Wire, settings: &SqlServerConnection) -> Result<Self, SqlServerError> {
        let wire = Some(Box::new(client));
        let mut session = Self { wire, timeout: settings.timeout, in_transaction: false, gentle: None, permit: None };
        session.run(&statements::session(settings.lock_timeout), "setting up the connection").await?;
        Ok(session)
    }

    /// Runs a batch whose rows are of no interest.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn run(&mut self, sql: &str, doing: &str) -> Result<(), SqlServerError> {
        self.rows(sql, doing).try_for_each(|_| std::future::ready(Ok(()))).await
    }

    /// All rows of a batch that gives few.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn all(&mut self, sql: &str, doing: &str) -> Result<Vec<Row>, SqlServerError> {
        self.rows(sql, doing).try_collect().await
    }

    /// The first value of the first row of a batch.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn number(&mut self, sql: &str, doing: &str) -> Result<Option<i64>, SqlServerError> {
        let rows = self.all(sql, doing).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        row.try_get::<i64, _>(0).map_err(|cause| SqlServerError::driver(doing, cause))
    }

    /// Begins a transaction that sees one state of the database; it is fixed by the first read in it.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn begin_snapshot(&mut self) -> Result<(), SqlServerError> {
        self.in_transaction = true;
        self.run(statements::BEGIN_SNAPSHOT, "beginning to read").await
    }

    /// Begins a transaction without a state of its own, where the database allows no snapshots.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn begin_read_committed(&mut self) -> Result<(), SqlServerError> {
        self.in_transaction = true;
        self.run(statements::BEGIN_READ_COMMITTED, "beginning to read").await
    }

    /// Ends a transaction.
    ///
    /// # Errors
    /// What the server or the line says.
    pub async fn end(&mut self) -> Result<(), SqlServerError> {
        self.gentle = None;
        self.run(statements::COMMIT, "ending a transaction").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// How rows are read from here to the end of the transaction: by one long statement gently, by chunks as fast as
    /// they come, since the transaction is short and the wait is between two of them.
    pub(super) fn read_gently(&mut self, gentle: Option<Gentle>) {
        self.gentle = gentle;
    }

    /// Counts as one of the connections that may be open, as long as anybody reads from it; as none of them where it is
    /// idle. Gives what it counted as before.
    pub(super) fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) -> Option<Arc<OwnedSemaphorePermit>> {
        std::mem::replace(&mut self.permit, permit.map(Arc::new))
    }

    /// Whether another may use the connection: every answer was read, and no transaction is open.
    pub(super) fn is_reusable(&self) -> bool {
        self.wire.is_some() && !self.in_transaction
    }

    /// Whether the server still answers.
    pub(super) async fn is_alive(&mut self) -> bool {
        self.run(statements::CURRENT_DATABASE, "looking whether the server is there").await.is_ok()
    }
}

impl RowSource for Session {
    fn rows<'a>(&'a mut self, sql: &'a str, doing: &'a str) -> BoxStream<'a, Result<Row, SqlServerError>> {
        let Some(wire) = self.wire.take() else {
            let message = "an answer before this one was not read to its end";
            let error = SqlServerError::line(doing, ErrorKind::Internal, message);
            return futures::stream::iter([Err(error)]).boxed();
        };
        let statement = Statement {
            wire,
            sql: sql.to_owned(),
            doing: doing.to_owned(),
            timeout: self.timeout,
            gentle: self.gentle.clone(),
            _permit: self.permit.clone(),
        };
        Answer::ask(statement, &mut self.wire, doing).boxed()
    }
}
