//! Records of one kind: those that wait to be written, and the segments of those that are.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::LakeSettings;
use crate::journal::JournalError;
use crate::journal::fold::fold;
use crate::journal::segment::Shelf;
use crate::runtime::fault;

/// The records of one kind.
#[derive(Debug)]
pub(super) struct Book<R> {
    shelf: Shelf,
    waiting: Mutex<Vec<R>>,
    /// One writer at a time, so that batches stay whole and folds do not meet.
    writing: tokio::sync::Mutex<()>,
}

impl<R: Clone + Send + Serialize + DeserializeOwned + 'static> Book<R> {
    /// Opens a folder of the journal. Reads and writes nothing yet.
    pub(super) fn open(settings: &LakeSettings, folder: &str) -> Result<Self, JournalError> {
        let shelf = Shelf::open(settings, folder)?;
        Ok(Self { shelf, waiting: Mutex::default(), writing: tokio::sync::Mutex::default() })
    }

    pub(super) fn note(&self, record: R) {
        self.waiting().push(record);
    }

    pub(super) async fn flush(&self, now: DateTime<Utc>) -> Result<(), JournalError> {
        let _writing = self.writing.lock().await;
        let batch = std::mem::take(&mut *self.waiting());
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write(&batch, now).await {
            self.waiting().splice(0..0, batch);
            return Err(error);
        }
        if let Err(error) = fold::<R>(&self.shelf, now).await {
            // Readers manage with many small segments; the next flush folds them.
            tracing::debug!(error = %crate::error::chain_text(&error), "the journal was not folded");
        }
        Ok(())
    }

    pub(super) async fn stream(&self) -> Result<BoxStream<'static, Result<Vec<R>, JournalError>>, JournalError> {
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

    async fn write(&self, batch: &[R], now: DateTime<Utc>) -> Result<(), JournalError> {
        fault::point("journal.segment.before")?;
        self.shelf.write_batch(batch, now).await
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
