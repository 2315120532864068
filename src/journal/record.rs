//! One run of one table definition, as `system.loads` tells it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::model::TableName;

/// How a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadStatus {
    /// A new version of the table exists.
    Committed,
    /// There was nothing new to load.
    Unchanged,
    /// The write budget put the change off to a later load.
    Deferred,
    /// Nothing was changed; the error says why.
    Failed,
}

/// One load from start to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Names the load across processes.
    pub load_id: uuid::Uuid,
    /// The table that was loaded.
    pub table: TableName,
    /// When the load began, by the clock of the process.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// How it ended.
    pub status: LoadStatus,
    /// Rows read from the source, rejected ones included.
    pub rows_read: u64,
    /// Rows written into the table for this change, rows carried over by a rewrite not counted.
    pub rows_written: u64,
    /// Rows rejected.
    pub rows_rejected: u64,
    /// Bytes read from the source, as stored.
    pub bytes_read: u64,
    /// Bytes of data files written.
    pub bytes_written: u64,
    /// The table's version after the load, where one exists.
    pub version: Option<u64>,
    /// The number of the attempt that landed.
    pub attempt: Option<i64>,
    /// How far the source has been read, in the source's own words.
    pub position: Option<serde_json::Value>,
    /// The kind of failure.
    pub error_kind: Option<ErrorKind>,
    /// What failed, and what to do.
    pub error: Option<String>,
}
