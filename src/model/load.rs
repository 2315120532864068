//! How the rows of a load meet those of the table.

use serde::{Deserialize, Serialize};

/// How the rows of a load meet the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMode {
    /// Every file's rows are added once.
    #[default]
    Append,
    /// Rows replace those with their key.
    Upsert,
    /// The files that came since the last load replace the table.
    Replace,
    /// The table is what the files are; a vanished file takes its rows along.
    Mirror,
}
