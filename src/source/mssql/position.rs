//! How far a table has been read, and what it looked like then.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::ColumnChoices;
use crate::error::ErrorKind;
use crate::source::SourceError;
use crate::source::mssql::collation::Incomparable;
use crate::source::mssql::discover::{Database, Table};

/// How a table is kept in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By Change Tracking.
    ChangeTracking,
    /// By a column of type `rowversion`, and by the keys where rows were deleted.
    #[serde(rename = "rowversion")]
    RowVersion,
    /// By reading everything again, and writing the rows that differ.
    KeyDiff,
    /// By reading everything again, and writing it where it has changed.
    Reload,
}

impl Way {
    /// As definitions and people name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChangeTracking => "change_tracking",
            Self::RowVersion => "rowversion",
            Self::KeyDiff => "key_diff",
            Self::Reload => "reload",
        }
    }
}

/// The position of a landed load. Stands on the table's chain, and in `system.loads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How the table is kept in step.
    pub method: Way,
    /// Why so, and what it would take for a better way.
    pub because: String,
    /// The life of the table that the version belongs to.
    pub epoch: Epoch,
    /// What the definition says of its columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<String>,
    /// When the table was altered last, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered: Option<String>,
    /// The version of Change Tracking up to which all is in the lake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The newest change that was read after `version`: between asking for the version and reading something was
    /// committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<i64>,
    /// The row version from which on rows are to be read: all below it are in the lake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rowversion: Option<u64>,
    /// By row versions: how many rows the table had; while it is loaded whole, how many were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// By row versions: how many of them, at most, were rejected and so are not in the lake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
    /// A hash of rows in any order: of all, or by row versions of those that will be read again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The columns that are loaded.
    pub columns: Vec<KnownColumn>,
    /// Columns of the key.
    pub key: Vec<String>,
    /// A value of the key for which the table is not kept in step by its key, until it is loaded anew on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomparable: Option<Incomparable>,
    /// When it was read.
    pub at: DateTime<Utc>,
}

/// Since when changes count.
///
/// A row that came after the version the changes are asked for since, and went again, may not be reported at all; what
/// SQL Server does is not documented. Where such a row is in the lake, because it was read ahead of the version, its end
/// is reported since the newest change that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The version up to which all is in the lake.
    pub version: i64,
    /// The newest change in the lake, where it is newer.
    pub ahead: Option<i64>,
}

impl Since {
    /// The versions that have to be asked for.
    pub fn versions(self) -> impl Iterator<Item = i64> {
        std::iter::once(self.version).chain(self.ahead)
    }
}

impl Position {
    /// Since when changes count; none where they are not tracked.
    pub fn since(&self) -> Option<Since> {
        let version = self.version?;
        Some(Since { version, ahead: self.ahead.filter(|ahead| *ahead > version) })
    }

    /// The position after changes were read, of which `newest` was the newest.
    pub fn after(self, version: Option<i64>, newest: Option<i64>) -> Self {
        Self { version, ahead: newest.filter(|newest| version.is_some_and(|version| *newest > version)), ..self }
    }

    /// Whether the table is what it was, as far as reading it goes.
    pub fn is_of_same_table(&self, now: &Self) -> bool {
        self.method == now.method
            && self.epoch.ended(&now.epoch).is_none()
            && self.choices == now.choices
            && self.columns == now.columns
            && self.key == now.key
    }
}

/// What a definition says of columns, in one text: rows read under another one are other rows.
pub fn choices(columns: &ColumnChoices) -> String {
    let ColumnChoices { timestamps, sub_microseconds, times, variants, offsets, max_cell_bytes, oversize, leave_out } =
        columns;
    let mut left_out: Vec<String> = leave_out.iter().map(|name| name.to_lowercase()).collect();
    left_out.sort_unstable();
    format!(
        "{timestamps:?} {sub_microseconds:?} {times:?} {variants:?} offsets={offsets} max_cell={max_cell_bytes} \
         {oversize:?} without={left_out:?}"
    )
}

/// Names the life of a table: versions of another life mean nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// When the database was made, and what a restore changes of it, as far as the login may see that.
    pub database: [Option<String>; 4],
    /// The server's number of the table.
    pub object_id: i32,
    /// When the table was made.
    pub created: String,
}

impl Epoch {
    /// Of what was found.
    pub fn of(database: &Database, table: &Table) -> Self {
        Self { database: database.identity.clone(), object_id: table.object_id, created: table.created.clone() }
    }

    /// What happened, where `now` is another life. What one of the two does not tell says nothing.
    pub fn ended(&self, now: &Self) -> Option<&'static str> {
        let differs =
            |place: usize| matches!((&self.database[place], &now.database[place]), (Some(a), Some(b)) if a != b);
        if differs(0) || differs(3) {
            return Some("the database is another one than before");
        }
        if differs(1) || differs(2) {
            return Some("the database was restored from a backup");
        }
        let same = self.object_id == now.object_id && self.created == now.created;
        (!same).then_some("the table was dropped and made anew")
    }
}

/// A column as it was when it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownColumn {
    /// The server's number of it.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Its type on the server.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// Its type in the lake.
    pub lake_type: String,
}

/// How far a whole load has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// The position the load began at: changes after it are applied at its end.
    pub from: Position,
    /// The parts of the table, by key.
    pub parts: Vec<Part>,
}

/// A part of a table that is read chunk by chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The key of the last row that was read; empty at the beginning of an open part.
    pub after: Vec<String>,
    /// The last key of the part; empty where it is open.
    pub until: Vec<String>,
    /// Whether all of it was read.
    pub done: bool,
}

/// Reads what stands on the chain.
///
/// # Errors
/// When it is no position of a SQL Server table.
pub fn read<T: serde::de::DeserializeOwned>(position: &serde_json::Value) -> Result<T, SourceError> {
    T::deserialize(position).map_err(|cause| {
        let text = "the table's position is not one of a SQL Server table; run `lakegate sync TABLE --reload` to load \
                    it anew";
        SourceError::because(ErrorKind::InvalidInput, text, cause)
    })
}

/// Writes a position down.
///
/// # Errors
/// Never for the types of this file.
pub fn write<T: Serialize>(position: &T) -> Result<serde_json::Value, SourceError> {
    serde_json::to_value(position)
        .map_err(|cause| SourceError::because(ErrorKind::Internal, "a position cannot be written down", cause))
}
