//! What happened: every load and every verification with its figures, kept in small append-only objects beside the tables.
//!
//! `<lake>/_lakegate/journal/loads/` and `…/verifications/` hold *segments*: zstd-compressed lines of JSON, the first
//! line a header, each further line one record. A process writes a segment of its own per batch, so no two writers ever
//! meet. [`fold`] gathers small segments into bigger ones now and then.

mod book;
mod error;
mod fold;
mod record;
mod segment;

pub use error::JournalError;
pub use record::{LoadRecord, LoadStatus, VerificationRecord, VerificationStatus, Written};

use std::sync::Arc;

use futures::stream::{BoxStream, TryStreamExt};

use crate::config::LakeSettings;
use crate::runtime::clock::Clock;

use book::Book;

/// Where the journal's writing can be made to fail in tests.
pub const POINTS: &[&str] = &["journal.segment.before", "journal.fold.before", "journal.fold.written"];

/// The journal of one lake. Clones of the `Arc` around it share what is not written yet.
#[derive(Debug)]
pub struct Journal {
    loads: Book<LoadRecord>,
    verifications: Book<VerificationRecord>,
    clock: Arc<dyn Clock>,
}

impl Journal {
    /// Opens the journal of a lake. Reads and writes nothing yet.
    ///
    /// # Errors
    /// When the lake's place cannot be used.
    pub fn open(settings: &LakeSettings, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let loads = Book::open(settings, "loads")?;
        Ok(Self { loads, verifications: Book::open(settings, "verifications")?, clock })
    }

    /// Notes a load; it is written with the next [`Journal::flush`].
    pub fn record_load(&self, record: LoadRecord) {
        self.loads.note(record);
    }

    /// Notes a verification; it is written with the next [`Journal::flush`].
    pub fn record_verification(&self, record: VerificationRecord) {
        self.verifications.note(record);
    }

    /// Writes what was noted and gathers small segments when there are many. Nothing is lost when it
    /// fails: what could not be written waits for the next call.
    ///
    /// # Errors
    /// When the lake's place cannot be written.
    pub async fn flush(&self) -> Result<(), JournalError> {
        let loads = self.loads.flush(self.clock.now()).await;
        self.verifications.flush(self.clock.now()).await?;
        loads
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
        self.loads.stream().await
    }

    /// Every verification ever noted, as [`Self::stream`] gives loads.
    ///
    /// # Errors
    /// When the lake's place cannot be read; items when a segment is damaged.
    pub async fn verifications(
        &self,
    ) -> Result<BoxStream<'static, Result<Vec<VerificationRecord>, JournalError>>, JournalError> {
        self.verifications.stream().await
    }
}

#[cfg(test)]
mod tests;
