//! What one table is made of, from `tables/<schema>/<table>.toml`: validated, defaults filled in.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{S3Connection, SqlServerConnection};
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
    /// Where the rows come from.
    pub source: TableSource,
    /// When and how they are loaded.
    pub load: LoadSettings,
    /// Columns that name a row; empty where rows have no name, and for a table of SQL Server where the source's
    /// primary key does.
    pub key: Vec<String>,
    /// Declared columns in order; empty where they are inferred, and always for a table of SQL Server.
    pub columns: Vec<ColumnDefinition>,
    /// What the table is, for people.
    pub description: Option<String>,
    /// Whether rows may be changed by SQL and sent to it, by those who may write it.
    pub writable: bool,
    /// Columns whose values name rows of other tables. Told to tools, not enforced.
    pub foreign_keys: Vec<ForeignKey>,
}

/// Columns whose values name rows of another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The columns of the table itself.
    pub columns: Vec<String>,
    /// The other table.
    pub references: TableName,
    /// As many columns of the other table; empty where its key is meant.
    pub their_columns: Vec<String>,
}

/// Where the rows of a table come from.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each table, and it is rarely moved")]
pub enum TableSource {
    /// Files; no block where rows come by SQL alone.
    Files(Vec<FileSource>),
    /// A table of SQL Server, which the table is kept in step with.
    SqlServer(SqlServerSource),
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

/// A table of SQL Server that feeds one of the lake.
#[derive(Clone, Debug)]
pub struct SqlServerSource {
    /// How to reach the database.
    pub connection: SqlServerConnection,
    /// The table's schema there, without brackets.
    pub schema: String,
    /// Its name there, without brackets.
    pub table: String,
    /// How changes are found.
    pub method: Method,
    /// What is made of its columns.
    pub columns: ColumnChoices,
}

/// How changes in a table of SQL Server are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the best of the others that the table allows.
    Auto,
    /// By Change Tracking.
    ChangeTracking,
    /// By a `rowversion` column, with deletes found by comparing keys.
    RowVersion,
    /// By comparing keys and hashes of the rows.
    KeyDiff,
    /// Not at all: the whole table is read again.
    Reload,
}

/// What is made of columns whose type has no single counterpart in the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnChoices {
    /// What date-times without an offset become.
    pub timestamps: Timestamps,
    /// What happens to the seventh digit of a second.
    pub sub_microseconds: SubMicroseconds,
    /// What times of day become.
    pub times: Times,
    /// What happens to columns of type `sql_variant`.
    pub variants: Variants,
    /// Whether the offset of a `datetimeoffset` column `c` is kept, in minutes, in a column `c__offset_min`.
    pub offsets: bool,
    /// Most bytes one value may have.
    pub max_cell_bytes: u64,
    /// What happens to a row with a larger one.
    pub oversize: Oversize,
    /// Columns of the source that are not loaded.
    pub leave_out: Vec<String>,
}

impl Default for ColumnChoices {
    /// As the configuration has it where nothing is written.
    fn default() -> Self {
        Self {
            timestamps: Timestamps::Ntz,
            sub_microseconds: SubMicroseconds::Truncate,
            times: Times::Text,
            variants: Variants::Fail,
            offsets: false,
            max_cell_bytes: 64 << 20,
            oversize: Oversize::Fail,
            leave_out: Vec::new(),
        }
    }
}

/// What date-times without an offset become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// `timestamp_ntz`: as they are, without a zone.
    Ntz,
    /// `timestamp`: instants, where the database holds UTC.
    Utc,
}

/// What happens to the seventh digit of a second, which the lake has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubMicroseconds {
    /// It is cut off.
    Truncate,
    /// A value that has one fails the load.
    Error,
    /// Columns that may have one become text.
    Text,
}

/// What times of day become; the lake has no type for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Text, `HH:MM:SS.fffffff`.
    Text,
    /// Microseconds since midnight, `bigint`.
    Microseconds,
}

/// What happens to columns of type `sql_variant`, whose values have types of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variants {
    /// The load fails and names the column.
    Fail,
    /// They become text.
    Text,
}

/// What happens to a row with a value larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// It fails the load.
    Fail,
    /// It is rejected.
    Reject,
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
