//! What happened: every load, verification, statement and session with its figures, kept in small append-only objects
//! beside the tables. What statements, results and sessions are going on right now stands in lists in memory.
//!
//! `<lake>/_lakegate/journal/loads/`, `…/verifications/`, `…/queries/` and `…/sessions/` hold *segments*: zstd-compressed lines of JSON, the first
//! line a header, each further line one record. A process writes a segment of its own per batch, so no two writers ever
//! meet. [`fold`] gathers small segments into bigger ones now and then; of statements and sessions old ones are
//! deleted, see [`Journal::flush_history`].

mod book;
mod error;
mod fold;
mod record;
mod segment;
mod session;
mod statement;
mod stream;

pub use error::JournalError;
pub use record::{LoadRecord, LoadStatus, VerificationRecord, VerificationStatus, Written};
pub use session::{OpenSession, SessionEnd, SessionRecord};
pub use statement::{QueryFigures, QueryOrigin, QueryRecord, QueryStatus, RunningQuery, SharedFrom};
pub use stream::{Flow, LineFlow, RunningStream, StreamRecord};

use std::sync::Arc;

use futures::stream::{BoxStream, TryStreamExt};

use crate::config::{HistorySettings, LakeSettings};
use crate::runtime::clock::Clock;
use crate::runtime::live::Live;

use book::Book;

/// Where the journal's writing can be made to fail in tests.
pub const POINTS: &[&str] = &["journal.segment.before", "journal.fold.before", "journal.fold.written"];

/// The journal of one lake. Clones of the `Arc` around it share what is not written yet.
#[derive(Debug)]
pub struct Journal {
    loads: Book<LoadRecord>,
    verifications: Book<VerificationRecord>,
    queries: Book<QueryRecord>,
    sessions: Book<SessionRecord>,
    running: Live<RunningQuery>,
    streams: Live<RunningStream>,
    open_sessions: Live<OpenSession>,
    clock: Arc<dyn Clock>,
}

impl Journal {
    /// Opens the journal of a lake. Reads and writes nothing yet.
    ///
    /// # Errors
    /// When the lake's place cannot be used.
    pub fn open(settings: &LakeSettings, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        Ok(Self {
            loads: Book::open(settings, "loads")?,
            verifications: Book::open(settings, "verifications")?,
            queries: Book::open(settings, "queries")?,
            sessions: Book::open(settings, "sessions")?,
            running: Live::default(),
            streams: Live::default(),
            open_sessions: Live::default(),
            clock,
        })
    }

    /// Notes a load; it is written with the next [`Journal::flush`].
    pub fn record_load(&self, record: LoadRecord) {
        self.loads.note(record);
    }

    /// Notes a verification; it is written with the next [`Journal::flush`].
    pub fn record_verification(&self, record: VerificationRecord) {
        self.verifications.note(record);
    }

    /// The statements that run in this process.
    pub fn running(&self) -> &Live<RunningQuery> {
        &self.running
    }

    /// The results that are on their way from this process.
    pub fn streams(&self) -> &Live<RunningStream> {
        &self.streams
    }

    /// The sessions of clients of this process.
    pub fn open_sessions(&self) -> &Live<OpenSession> {
        &self.open_sessions
    }

    /// Notes a run that ended; it is written with the next [`Journal::flush_history`].
    pub fn record_query(&self, record: QueryRecord) {
        self.queries.note(record);
    }

    /// Notes a session that ended; it is written with the next [`Journal::flush_history`].
    pub fn record_session(&self, record: SessionRecord) {
        self.sessions.note(record);
    }

    /// Writes the statements and sessions that were noted, and now and then deletes the oldest of those that are kept, by
    /// age and by size. What could not be written waits for the next call.
    ///
    /// # Errors
    /// When the lake's place cannot be written.
    pub async fn flush_history(&self, keep: &HistorySettings) -> Result<(), JournalError> {
        let (now, moment) = (self.clock.now(), self.clock.monotonic());
        let queries = self.queries.flush(now).await;
        self.sessions.flush(now).await?;
        queries?;
        self.queries.prune(keep, (now, moment)).await?;
        self.sessions.prune(keep, (now, moment)).await
    }

    /// Every statement that ended and is still kept, in pieces of bounded size and in no order between pieces.
    ///
    /// # Errors
    /// When the lake's place cannot be read; items when a segment is damaged.
    pub async fn queries(&self) -> Result<BoxStream<'static, Result<Vec<QueryRecord>, JournalError>>, JournalError> {
        self.queries.stream().await
    }

    /// Every session that ended and is still kept, as [`Self::queries`] gives statements.
    ///
    /// # Errors
    /// When the lake's place cannot be read; items when a segment is damaged.
    pub async fn sessions(&self) -> Result<BoxStream<'static, Result<Vec<SessionRecord>, JournalError>>, JournalError> {
        self.sessions.stream().await
    }

    /// Writes the loads and verifications that were noted and gathers small segments when there are many. Nothing is lost when it
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
