//! The way from a reader to the load.

use tokio::sync::{mpsc, oneshot};

use crate::config::Oversize;
use crate::error::ErrorKind;
use crate::model::Reject;
use crate::source::mssql::shape::Shape;
use crate::source::{SourceError, SourceEvent};

/// Where a reader puts what it has read. Waits while the load is behind.
#[derive(Clone)]
pub struct Output {
    events: mpsc::Sender<Result<SourceEvent, SourceError>>,
    rejects: Vec<Reject>,
}

impl Output {
    /// To whoever takes from the other end.
    pub fn new(events: mpsc::Sender<Result<SourceEvent, SourceError>>) -> Self {
        Self { events, rejects: Vec::new() }
    }

    /// Hands on an event.
    ///
    /// # Errors
    /// `Cancelled` when nobody takes events any more.
    pub async fn send(&self, event: SourceEvent) -> Result<(), SourceError> {
        self.events.send(Ok(event)).await.map_err(|_| given_up())
    }

    /// Waits until the load takes at once whatever comes from here on. To be called before a transaction begins in which
    /// rows are handed on: those before it would else hold it open.
    ///
    /// # Errors
    /// `Cancelled` when nobody takes events any more.
    pub async fn hurry(&self) -> Result<(), SourceError> {
        let (taken, told) = oneshot::channel();
        self.send(SourceEvent::Hurry(taken)).await?;
        told.await.map_err(|_| given_up())
    }

    /// Hands on how the reading failed.
    pub async fn fail(&self, error: SourceError) {
        // Whoever does not take it has given up already.
        let _ = self.events.send(Err(error)).await;
    }

    /// Takes note of a row with a value above the limit: rejected or an error, as the definition says.
    ///
    /// # Errors
    /// `ResourceExhausted` where such a row fails the load.
    pub fn too_large(&mut self, shape: &Shape, column: &str, bytes: u64) -> Result<(), SourceError> {
        let reason = format!(
            "a value of {} is larger than max_cell = \"{}\"",
            bytesize::ByteSize(bytes),
            bytesize::ByteSize(shape.max_cell_bytes)
        );
        if shape.oversize == Oversize::Fail {
            let text = format!(
                "column `{column}` of {}: {reason}; raise max_cell, put the column into leave_out, or reject such rows \
                 with oversize = \"reject\"",
                shape.table
            );
            // Not `ResourceExhausted`: trying again would not help.
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
        let (file, column) = (shape.table.to_string(), Some(column.to_owned()));
        self.rejects.push(Reject { file, line: None, column, reason, raw: String::new() });
        Ok(())
    }

    /// Hands on the rows that were rejected.
    ///
    /// # Errors
    /// `Cancelled` when nobody takes events any more.
    pub async fn send_rejects(&mut self) -> Result<(), SourceError> {
        if self.rejects.is_empty() {
            return Ok(());
        }
        let rejects = std::mem::take(&mut self.rejects);
        self.send(SourceEvent::Rejects(rejects)).await
    }
}

fn given_up() -> SourceError {
    SourceError::new(ErrorKind::Cancelled, "the load was given up")
}
