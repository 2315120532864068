//! Where rows come from.

pub mod files;
pub mod mssql;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use crate::error::{Classify, ErrorKind};
use crate::model::{CarriedFile, ChangeBatch, ContentHash, KeyFolding, KeyRange, Reject};

/// What a table's chain of attempts knows when a reading begins.
#[derive(Clone, Default)]
pub struct Known {
    /// The position of the newest landed attempt; none before the first.
    pub position: Option<serde_json::Value>,
    /// The newest entry of every file the table ever carried, by path.
    pub files: Arc<std::collections::HashMap<String, CarriedFile>>,
    /// The table's columns; none before the first load.
    pub schema: Option<SchemaRef>,
    /// How far a whole load came that was cut off: the newest [`SourceEvent::Piece`] that was kept.
    pub partial: Option<serde_json::Value>,
    /// When the load was asked for: what a source has learned since, for another table, need not be asked again.
    pub asked: Option<std::time::Instant>,
    /// The table's rows; none before the first load.
    pub rows: Option<Arc<dyn KnownRows>>,
    /// Ranges of keys that are to be read anew besides what changed, in the source's own words.
    pub suspect: Option<serde_json::Value>,
    /// The table's place among those of its group that are read at one moment.
    pub seat: Option<Arc<mssql::group::Seat>>,
}

/// The rows of a table in the lake, at the version the rest of [`Known`] tells of.
#[async_trait]
pub trait KnownRows: Send + Sync {
    /// How many there are; none where a file does not say.
    fn count(&self) -> Option<u64>;

    /// How many of these keys are there, which compare as `folding` says (empty: by value). Each row is one of the
    /// key's columns in their order; a key that comes twice counts once.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn present(&self, keys: &[RecordBatch], folding: &[KeyFolding]) -> Result<u64, SourceError>;

    /// Number and hash of the rows in a range, in the columns of `schema` and their types, but for those whose keys are
    /// among `left_out`. Keys compare as `folding` says (empty: by value).
    ///
    /// # Errors
    /// When the table cannot be read, or a value of it does not fit the type in `schema`.
    async fn content(
        &self,
        schema: &SchemaRef,
        range: &KeyRange,
        left_out: &[RecordBatch],
        folding: &[KeyFolding],
    ) -> Result<ContentHash, SourceError>;
}

/// A place rows come from.
///
/// Called by a load, once per attempt, one reading of a table at a time; different tables in parallel.
/// A source never writes to the lake, never retries on its own, and classifies its errors.
#[async_trait]
pub trait Source: Send + Sync {
    /// Looks what is new since `known` and opens it. `None` when there is nothing to do.
    ///
    /// # Errors
    /// When the source cannot be listed or what is there cannot be made into rows of one schema.
    async fn open(&self, known: &Known) -> Result<Option<Reading>, SourceError>;
}

/// What a source has for one load.
pub struct Reading {
    /// The columns of every batch of rows, in the order the table should have them.
    pub schema: SchemaRef,
    /// Bytes that will be read, as stored, where known: for progress.
    pub total_bytes: Option<u64>,
    /// Since when the oldest change waits, where the source tells; else it counts from the first load that puts it off.
    pub oldest_change: Option<chrono::DateTime<chrono::Utc>>,
    /// Columns that name a row, where the source knows them itself.
    pub key: Option<Vec<String>>,
    /// How the values of each column of the key are compared; empty where all compare by value.
    pub folding: Vec<KeyFolding>,
    /// Whether the rows are the whole table, in the place of all that is there; [`Whole`] says more.
    pub whole: Option<Whole>,
    /// What happens, in order. Nothing counts until the stream has ended without error, and its last
    /// item is [`SourceEvent::End`].
    pub events: BoxStream<'static, Result<SourceEvent, SourceError>>,
}

/// A reading of everything. It gives rows to append first, then a [`SourceEvent::Piece`], and after that only what
/// has changed meanwhile, by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// From the beginning.
    Anew,
    /// From where [`Known::partial`] stopped.
    GoesOn,
}

/// One thing a reading tells.
#[derive(Debug)]
pub enum SourceEvent {
    /// Rows.
    Changes(ChangeBatch),
    /// All rows in a range of keys come, be it before or after this, as present or as changed. A row that did not fit
    /// has to come too, by its key at least: it would be removed otherwise.
    Complete(KeyRange),
    /// Rows that did not fit.
    Rejects(Vec<Reject>),
    /// In a whole reading: what came so far need not be read again, should the load be cut off after this. The value
    /// is for [`Known::partial`].
    Piece(serde_json::Value),
    /// So many more bytes were read, as stored.
    Progress(u64),
    /// A transaction is about to be opened: what comes is to be taken at once, however slow the lake is. Waits for an answer.
    Hurry(oneshot::Sender<()>),
    /// The reading is complete.
    End(ReadingEnd),
}

/// What is known when a reading has ended.
#[derive(Clone, Debug, Default)]
pub struct ReadingEnd {
    /// How far the source has been read, in the source's own words.
    pub position: serde_json::Value,
    /// The files of this reading. [`ChangeBatch::file`] is an index into this list.
    pub files: Vec<CarriedFile>,
    /// The table has it all already: nothing is written and nothing is committed, not even the position.
    pub unchanged: bool,
    /// Files whose rows this reading takes out of the table (mode `mirror`): paths of [`Known::files`].
    pub replaced_files: Vec<String>,
}

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    kind: ErrorKind,
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error without a deeper cause. The message names what, where and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// An error with its cause.
    pub fn because(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), cause: Some(cause.into()) }
    }
}

impl Classify for SourceError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}
