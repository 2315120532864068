//! The answer to a statement: read from the wire by one thread, and used by another.
//!
//! The driver takes most of the time that reading takes, as it decodes each value by itself. So it has a thread of its own,
//! which owns the connection meanwhile and gives it back with the end of the answer. A task would not do: the runtime runs
//! whom a task wakes on the same thread after it, so that decoding and using took turns (measured: 0.73 times the driver's
//! speed). Whoever stops before the end takes nobody's connection along but its own: reading ends, and the wire is closed.

use std::mem::size_of;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tiberius::error::Error as DriverError;
use tiberius::{ColumnData, QueryItem, QueryStream, Row};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::ErrorKind;
use crate::source::mssql::connect::Wire;
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::pace::Gentle;

/// Rows that are handed over at once, and bytes, whichever comes first: enough that waking the other task costs little.
const ROWS_AT_ONCE: usize = 256;
/// As above, in bytes.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Bytes of rows that may wait; a row that is larger waits alone.
const WAITING_BYTES: usize = 2 << 20;

/// A statement to be sent, and how its rows are read.
pub(super) struct Statement {
    pub(super) wire: Box<Wire>,
    pub(super) sql: String,
    pub(super) doing: String,
    /// Longest that the server may be silent.
    pub(super) timeout: Duration,
    pub(super) gentle: Option<Gentle>,
    /// Kept until the wire is given back or closed.
    pub(super) _permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// Rows of an answer as they are used. The connection comes back with its end.
pub(super) struct Answer<'a> {
    rows: std::vec::IntoIter<Row>,
    /// Room for the rows above, which others may take when they are used up.
    room: Option<OwnedSemaphorePermit>,
    parts: mpsc::UnboundedReceiver<Part>,
    wire: &'a mut Option<Box<Wire>>,
    doing: &'a str,
    is_over: bool,
}

enum Part {
    Rows(Vec<Row>, Option<OwnedSemaphorePermit>),
    /// The end of the answer, with the connection where it can be used again.
    End(Result<(), SqlServerError>, Option<Box<Wire>>),
}

impl<'a> Answer<'a> {
    /// Sends a statement; gives its connection back to `wire`.
    pub(super) fn ask(statement: Statement, wire: &'a mut Option<Box<Wire>>, doing: &'a str) -> Self {
        // Not by number of parts but by bytes: that is what the semaphore is for.
        let (sender, parts) = mpsc::unbounded_channel();
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(statement.read(sender)));
        Self { rows: Vec::new().into_iter(), room: None, parts, wire, doing, is_over: false }
    }
}

impl Stream for Answer<'_> {
    type Item = Result<Row, SqlServerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Poll::Ready(Some(Ok(row)));
            }
            self.room = None;
            if self.is_over {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.parts.poll_recv(context)) {
                Some(Part::Rows(rows, room)) => {
                    self.rows = rows.into_iter();
                    self.room = room;
                }
                Some(Part::End(result, wire)) => {
                    self.is_over = true;
                    *self.wire = wire;
                    return Poll::Ready(result.err().map(Err));
                }
                None => {
                    self.is_over = true;
                    let error = SqlServerError::line(self.doing, ErrorKind::Internal, "the reader broke off");
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Statement {
    /// Reads until the answer or whoever uses it is over.
    async fn read(mut self, parts: mpsc::UnboundedSender<Part>) {
        let result = tokio::select! {
            biased;
            () = parts.closed() => return,
            result = self.rows(&parts) => result,
        };
        // After an error of the server the answer is over; after any other the connection is.
        let is_usable = matches!(result, Ok(()) | Err(SqlServerError::Server { .. }));
        // Where nobody takes it any more, the wire is closed.
        let _ = parts.send(Part::End(result, is_usable.then_some(self.wire)));
    }

    async fn rows(&mut self, parts: &mpsc::UnboundedSender<Part>) -> Result<(), SqlServerError> {
        let Self { wire, sql, doing, timeout, gentle, .. } = self;
        let doing = doing.as_str();
        let failed = |cause| SqlServerError::driver(doing, cause);
        let room = Arc::new(Semaphore::new(WAITING_BYTES));
        let asked = tokio::time::timeout(*timeout, wire.simple_query(sql.as_str())).await;
        let mut items = asked.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(item) = next(&mut items, *timeout).await {
            let row = match item {
                Ok(QueryItem::Row(row)) => row,
                Ok(QueryItem::Metadata(_)) => continue,
                Err(cause) => {
                    // Rows before an error are used as well: some of them may be wrong in a way that says more.
                    let _ = parts.send(Part::Rows(rows, None));
                    return Err(failed(cause));
                }
            };
            bytes += size(&row);
            rows.push(row);
            if rows.len() >= ROWS_AT_ONCE || bytes >= BYTES_AT_ONCE {
                let waiting = u32::try_from(bytes.min(WAITING_BYTES)).unwrap_or(u32::MAX);
                // It is never closed, and there is no more of it to be had than there is at all.
                let permit = Arc::clone(&room).acquire_many_owned(waiting).await.ok();
                if parts.send(Part::Rows(std::mem::take(&mut rows), permit)).is_err() {
                    return Ok(());
                }
                rows.reserve(ROWS_AT_ONCE);
                let read = std::mem::take(&mut bytes) as u64;
                if let Some(gentle) = gentle {
                    gentle.after(read, doing).await?;
                }
            }
        }
        let _ = parts.send(Part::Rows(rows, None));
        Ok(())
    }
}

/// The next item. A timer is only set where there is something to wait for: one for each row costs more than the row.
async fn next(items: &mut QueryStream<'_>, limit: Duration) -> Option<Result<QueryItem, DriverError>> {
    match futures::poll!(items.next()) {
        Poll::Ready(item) => item,
        Poll::Pending => tokio::time::timeout(limit, items.next()).await.unwrap_or_else(|_| Some(Err(late()))),
    }
}

fn late() -> DriverError {
    let message = "no answer within the connection's timeout".to_owned();
    DriverError::Io { kind: std::io::ErrorKind::TimedOut, message }
}

/// About how many bytes a row takes in memory.
fn size(row: &Row) -> usize {
    let values = row.cells().map(|(_, value)| match value {
        ColumnData::String(Some(text)) => text.len(),
        ColumnData::Binary(Some(bytes)) => bytes.len(),
        _ => 0,
    });
    row.len() * size_of::<ColumnData<'static>>() + values.sum::<usize>()
}
