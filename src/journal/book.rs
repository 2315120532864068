//! Records of one kind: those that wait to be written, and the segments of those that are.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{HistorySettings, LakeSettings};
use crate::journal::JournalError;
use crate::journal::fold::{fold, prune};
use crate::journal::segment::Shelf;
use crate::runtime::fault;

/// Records that may wait to be written; beyond it, when the lake's place cannot be written for long, the oldest go.
const MOST_WAITING: usize = 100_000;
/// How often it is looked for what is too old to be kept.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// The records of one kind.
#[derive(Debug)]
pub(super) struct Book<R> {
    shelf: Shelf,
    waiting: Mutex<VecDeque<R>>,
    /// One writer at a time, so that batches stay whole and folds do not meet.
    writing: tokio::sync::Mutex<()>,
    pruned: Mutex<Option<Instant>>,
}

impl<R: Clone + Send + Serialize + DeserializeOwned + 'static> Book<R> {
    /// Opens a folder of the journal. Reads and writes nothing yet.
    pub(super) fn open(settings: &LakeSettings, folder: &str) -> Result<Self, JournalError> {
        let shelf = Shelf::open(settings, folder)?;
        Ok(Self { shelf, waiting: Mutex::default(), writing: tokio::sync::Mutex::default(), pruned: Mutex::default() })
    }

    pub(super) fn note(&self, record: R) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(record);
    }

    pub(super) async fn flush(&self, now: DateTime<Utc>) -> Result<(), JournalError> {
        let _writing = self.writing.lock().await;
        let batch = Vec::from(std::mem::take(&mut *self.waiting()));
        if batch.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write(&batch, now).await {
            let mut waiting = self.waiting();
            let room = MOST_WAITING.saturating_sub(waiting.len());
            batch.into_iter().rev().take(room).for_each(|record| waiting.push_front(record));
            drop(waiting);
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
        let waiting: Vec<R> = self.waiting().iter().cloned().collect();
        let segments = self.shelf.live().await?;
        drop(writing);
        let shelf = self.shelf.clone();
        let written = stream::iter(segments).then(move |name| {
            let shelf = shelf.clone();
            async move { shelf.read(&name).await }
        });
        Ok(stream::iter([Ok(waiting)]).chain(written.try_flatten()).boxed())
    }

    /// Deletes what is too old or too much to be kept, now and then.
    pub(super) async fn prune(
        &self,
        keep: &HistorySettings,
        (now, moment): (DateTime<Utc>, Instant),
    ) -> Result<(), JournalError> {
        {
            let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
            let last = *pruned.get_or_insert(moment);
            if moment.saturating_duration_since(last) < PRUNE_EVERY {
                return Ok(());
            }
            *pruned = Some(moment);
        }
        let _writing = self.writing.lock().await;
        prune(&self.shelf, keep, now).await
    }

    async fn write(&self, batch: &[R], now: DateTime<Utc>) -> Result<(), JournalError> {
        fault::point("journal.segment.before")?;
        self.shelf.write_batch(batch, now).await
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
