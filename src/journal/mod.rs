//! What happened: every load with its figures, kept in small append-only objects beside the tables.
//!
//! `<lake>/_lakegate/journal/loads/` holds *segments*: zstd-compressed lines of JSON, the first line a
//! header, each further line one load. A process writes a segment of its own per batch, so no two
//! writers ever meet. [`fold`] gathers small segments into bigger ones now and then.

mod error;
mod fold;
mod record;
mod segment;

pub use error::JournalError;
pub use record::{LoadRecord, LoadStatus};

use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::config::LakeSettings;
use crate::runtime::clock::Clock;
use crate::runtime::fault;

use fold::fold;
use segment::Shelf;

/// Where the journal's writing can be made to fail in tests.
pub const POINTS: &[&str] = &["journal.segment.before", "journal.fold.before", "journal.fold.written"];

/// The journal of one lake. Clones of the `Arc` around it share what is not written yet.
#[derive(Debug)]
pub struct Journal {
    shelf: Shelf,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Vec<LoadRecord>>,
    /// One writer at a time, so that batches stay whole and folds do not meet.
    writing: tokio::sync::Mutex<()>,
}

impl Journal {
    /// Opens the journal of a lake. Reads and writes nothing yet.
    ///
    /// # Errors
    /// When the lake's place cannot be used.
    pub fn open(settings: &LakeSettings, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let shelf = Shelf::open(settings)?;
        Ok(Self { shelf, clock, waiting: Mutex::default(), writing: tokio::sync::Mutex::default() })
    }

    /// Notes a load; it is written with the next [`Journal::flush`].
    pub fn record_load(&self, record: LoadRecord) {
        self.waiting().push(record);
    }

    /// Writes what was noted and gathers small segments when there are many. Nothing is lost when it
    /// fails: what could not be written waits for the next call.
    ///
    /// # Errors
    /// When the lake's place cannot be written.
    pub async fn flush(&self) -> Result<(), JournalError> {
        let _writing = self.writing.lock().await;
        let batch = std::mem::take(&mut *self.waiting());
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write(&batch).await {
            self.waiting().splice(0..0, batch);
            return Err(error);
        }
        if let Err(error) = fold(&self.shelf, self.clock.now()).await {
            // Readers manage with many small segments; the next flush folds them.
            tracing::debug!(error = %crate::error::chain_text(&error), "the journal was not folded");
        }
        Ok(())
    }

    /// Every load ever noted, in order of their ends; what still waits to be written is included.
    ///
    /// # Errors
    /// When the lake's place cannot be read or a segment is damaged.
    pub async fn loads(&self) -> Result<Vec<LoadRecord>, JournalError> {
        let mut loads: Vec<LoadRecord> = self.stream().await?.try_concat().await?;
        loads.sort_by_key(|load| (load.ended_at, load.load_id));
        Ok(loads)
    }

    /// Every load ever noted, in pieces of bounded size and in no order between pieces.
    ///
    /// # Errors
    /// When the lake's place cannot be read; items when a segment is damaged.
    pub async fn stream(&self) -> Result<BoxStream<'static, Result<Vec<LoadRecord>, JournalError>>, JournalError> {
        // Listed while nobody moves records from memory into a segment: none is seen twice or not at all.
        let writing = self.writing.lock().await;
        let waiting = self.waiting().clone();
        let segments = self.shelf.live().await?;
        drop(writing);
        let shelf = self.shelf.clone();
        let written = stream::iter(segments).then(move |name| {
            let shelf = shelf.clone();
            async move { shelf.read(&name).await }
        });
        Ok(stream::iter([Ok(waiting)]).chain(written.try_flatten()).boxed())
    }

    async fn write(&self, batch: &[LoadRecord]) -> Result<(), JournalError> {
        fault::point("journal.segment.before")?;
        self.shelf.write_batch(batch, self.clock.now()).await
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<LoadRecord>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
