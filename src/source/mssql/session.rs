//! One connection, used for one statement after the other.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tiberius::{QueryItem, Row};

use crate::config::SqlServerConnection;
use crate::error::ErrorKind;
use crate::source::mssql::connect::Wire;
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::statements;

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
    client: Wire,
    /// Whether an answer was not read to its end.
    unread: bool,
    in_transaction: bool,
}

impl Session {
    /// Takes over a connection and sets what every statement of lakegate runs under.
    pub(super) async fn begin(client: Wire, settings: &SqlServerConnection) -> Result<Self, SqlServerError> {
        let mut session = Self { client, unread: false, in_transaction: false };
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
        self.run(statements::COMMIT, "ending a transaction").await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Whether another may use the connection: every answer was read, and no transaction is open.
    pub(super) fn is_reusable(&self) -> bool {
        !self.unread && !self.in_transaction
    }

    /// Whether the server still answers.
    pub(super) async fn is_alive(&mut self) -> bool {
        self.run(statements::CURRENT_DATABASE, "looking whether the server is there").await.is_ok()
    }
}

impl RowSource for Session {
    fn rows<'a>(&'a mut self, sql: &'a str, doing: &'a str) -> BoxStream<'a, Result<Row, SqlServerError>> {
        let Self { client, unread, .. } = self;
        if *unread {
            let message = "an answer before this one was not read to its end";
            let error = SqlServerError::line(doing, ErrorKind::Internal, message);
            return futures::stream::iter([Err(error)]).boxed();
        }
        *unread = true;
        let items = async move {
            let items = client.simple_query(sql).await.map_err(|cause| SqlServerError::driver(doing, cause))?;
            let rows = items.try_filter_map(|item| {
                std::future::ready(Ok(match item {
                    QueryItem::Row(row) => Some(row),
                    QueryItem::Metadata(_) => None,
                }))
            });
            Ok(rows.map_err(move |cause| SqlServerError::driver(doing, cause)))
        };
        Read { rows: futures::stream::once(items).try_flatten().boxed(), unread }.boxed()
    }
}

/// Rows that take note when the last has been read.
struct Read<'a> {
    rows: BoxStream<'a, Result<Row, SqlServerError>>,
    unread: &'a mut bool,
}

impl Stream for Read<'_> {
    type Item = Result<Row, SqlServerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.rows.poll_next_unpin(context);
        match &polled {
            Poll::Ready(None) => *self.unread = false,
            // After an error of the server the answer is over; after any other the connection is.
            Poll::Ready(Some(Err(SqlServerError::Server { .. }))) => *self.unread = false,
            _ => {}
        }
        polled
    }
}
