//! One run of one table definition, as `system.loads` tells it, and one comparison of a table with its source, as
//! `system.verifications` does.

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
    /// Who changed the table by which statement, where it was no load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// A change of a table by a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Who made it.
    pub by: String,
    /// The first words of the statement, such as `insert`.
    pub statement: String,
}

/// How a verification ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationStatus {
    /// The table has what its source has.
    Same,
    /// It has something else.
    Differs,
    /// It had something else; that was read anew, and is the same now.
    Repaired,
    /// It could not be told; the error says why.
    Failed,
}

impl VerificationStatus {
    /// As `system.verifications` and `lakegate verify --json` say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Repaired => "repaired",
            Self::Failed => "failed",
        }
    }
}

/// One comparison of a table with its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerificationRecord {
    /// Names the verification across processes.
    pub verification_id: uuid::Uuid,
    /// The table that was compared.
    pub table: TableName,
    /// When the verification began, by the clock of the process.
    pub started_at: DateTime<Utc>,
    /// When it ended, after a repair where there was one.
    pub ended_at: DateTime<Utc>,
    /// How it ended.
    pub status: VerificationStatus,
    /// The table's version that was compared.
    pub version: Option<u64>,
    /// How the table is kept in step.
    pub method: Option<String>,
    /// The source's version that the table is at, where what changed since was left out.
    pub since: Option<i64>,
    /// Ranges of keys that were compared.
    pub ranges: u64,
    /// Rows of the source that were compared.
    pub rows: u64,
    /// Keys that were left out, because their rows changed since the table's version.
    pub left_out: u64,
    /// Ranges that differ, before any repair: an array of what [`Self::key`] is after and up to, with both sides' rows.
    pub differences: Vec<serde_json::Value>,
    /// Columns of the key.
    pub key: Vec<String>,
    /// What else has to be known to read the result rightly.
    pub notes: Vec<String>,
    /// The table's version after the repair.
    pub repaired_version: Option<u64>,
    /// The kind of failure.
    pub error_kind: Option<ErrorKind>,
    /// What failed, and what to do.
    pub error: Option<String>,
}
