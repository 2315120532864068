//! What a table's chain of attempts knows of one source file.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a load did with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// Its rows are in the table, or rejected with a reason.
    Loaded,
    /// Known content under the known name with other dates: nothing was read into the table.
    Touched,
    /// Known content under a new name, the old name being gone: nothing was read into the table.
    Renamed,
    /// Not taken as a whole, with a reason in the rejects.
    Refused,
    /// No longer there, and its rows were taken along (mode `mirror`).
    Removed,
}

/// One file as an attempt carried it. The newest entry on the chain for a path is what holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFile {
    /// The file's path as listed: absolute locally, `s3://bucket/key` otherwise.
    pub path: String,
    /// Size in bytes, as stored (compressed if the file is).
    pub size: u64,
    /// The store's tag for this content, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
    /// When the file was last modified.
    pub modified: DateTime<Utc>,
    /// BLAKE3 of the stored bytes, in hex.
    pub content_hash: String,
    /// Rows taken into the table.
    pub rows: u64,
    /// Rows rejected.
    pub rejected: u64,
    /// What was done with the file.
    pub status: FileStatus,
    /// The data files that hold this file's rows and no others (mode `mirror` only), relative to the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_files: Vec<String>,
}
