//! What one table is made of, from `tables/<schema>/<table>.toml`: validated, defaults filled in.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::S3Connection;
use crate::model::{ColumnType, LoadMode, Location, TableName};

/// One table definition.
#[derive(Clone, Debug)]
pub struct TableDefinition {
    /// The table's name, from the file's path.
    pub name: TableName,
    /// The file the definition stands in.
    pub defined_in: PathBuf,
    /// BLAKE3 of the definition's text, in hex: tells whether it changed since a load.
    pub content_hash: String,
    /// Where the rows come from; one or more.
    pub sources: Vec<FileSource>,
    /// When and how they are loaded.
    pub load: LoadSettings,
    /// Columns that name a row; empty where rows have no name.
    pub key: Vec<String>,
    /// Declared columns in order; empty where they are inferred.
    pub columns: Vec<ColumnDefinition>,
    /// What the table is, for people.
    pub description: Option<String>,
}

/// Files that feed a table.
#[derive(Clone, Debug)]
pub struct FileSource {
    /// A path or glob (`*`, `?`, `[…]`, `**`); the fixed part before the first wildcard is what is listed.
    pub files: Location,
    /// How to reach a bucket.
    pub connection: Option<S3Connection>,
    /// What the files are.
    pub format: FileFormat,
    /// How long a local file must have been left alone before it is read.
    pub settle: Duration,
}

/// What a file is. Compression is told by the ending: `.gz`, `.zst`, `.bz2`.
#[derive(Clone, Debug)]
pub enum FileFormat {
    /// Delimited text.
    Csv(CsvOptions),
    /// Parquet.
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects, or one object.
    Json,
}

/// How delimited text is read.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// Between two fields; one byte.
    pub delimiter: u8,
    /// Around a field; one byte; none where quotes mean nothing.
    pub quote: Option<u8>,
    /// Whether the first row names the columns.
    pub header: bool,
    /// The text's encoding under its WHATWG label, such as `utf-8` or `windows-1252`; a byte order mark wins.
    pub encoding: &'static encoding_rs::Encoding,
    /// Fields that mean NULL when not quoted.
    pub null_words: Vec<String>,
    /// First byte of a line that is to be skipped.
    pub comment: Option<u8>,
}

/// A declared column.
#[derive(Clone, Debug)]
pub struct ColumnDefinition {
    /// The column's name in the table.
    pub name: String,
    /// Its name in the files, where it is another.
    pub from: Option<String>,
    /// Its type.
    pub column_type: ColumnType,
    /// `strftime` formats tried in turn for dates and timestamps; ISO 8601 where there are none.
    pub formats: Vec<String>,
    /// Whether a missing value is allowed; a row without one is rejected otherwise.
    pub nullable: bool,
}

/// When and how a table is loaded.
#[derive(Clone, Debug)]
pub struct LoadSettings {
    /// When `lakegate serve` loads it; only on request where there is none.
    pub schedule: Option<Schedule>,
    /// How new rows meet old ones.
    pub mode: LoadMode,
    /// Share of a load's rows that may be rejected, 0 to 1, before the load fails and changes nothing.
    pub max_rejects: f64,
    /// Times the change's own size that may be rewritten for it; no limit where there is none.
    pub max_rewrite: Option<f64>,
    /// Longest time a change may be put off for `max_rewrite`.
    pub max_lag: Duration,
    /// Tables of one group are published together.
    pub group: Option<String>,
}

/// When a table is loaded.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// So long after the end of the last load.
    Every(Duration),
    /// At the times a cron line names, in UTC.
    Cron(Box<croner::Cron>),
}
