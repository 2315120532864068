//! What a definition may say about how values are kept.

/// How a table's columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnOptions {
    /// What dates with times but without an offset become.
    pub timestamps: Timestamps,
    /// What happens to the seventh digit of a second.
    pub sub_microseconds: SubMicroseconds,
    /// What `time` becomes.
    pub times: Times,
    /// What `sql_variant` becomes.
    pub variants: Variants,
    /// Whether a column that loses something gets a companion that keeps it: `<c>__offset_min` (minutes east of UTC)
    /// beside a `datetimeoffset`, `<c>__srid` beside a `geography` or `geometry`.
    pub companions: bool,
    /// Largest value, in bytes as the server stores it, that is fetched. A larger one is not sent at all.
    pub max_cell_bytes: u64,
}

impl Default for ColumnOptions {
    /// 64 MiB a cell: the driver holds a value whole, several times over.
    fn default() -> Self {
        Self {
            timestamps: Timestamps::Ntz,
            sub_microseconds: SubMicroseconds::Truncate,
            times: Times::Text,
            variants: Variants::Fail,
            companions: false,
            max_cell_bytes: 64 << 20,
        }
    }
}

/// What `datetime`, `smalldatetime` and `datetime2` become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// A timestamp without a zone.
    #[default]
    Ntz,
    /// A timestamp of UTC: what stands in the database is taken as UTC.
    Utc,
}

/// What happens to the seventh digit of a second, for which the lake has no place. Keys are never cut: under
/// [`SubMicroseconds::Truncate`] a key with a seventh digit is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubMicroseconds {
    /// It is cut off.
    #[default]
    Truncate,
    /// A value that has one is an error.
    Error,
    /// Columns that may have one are kept as text in ISO 8601.
    Text,
}

/// What `time` becomes; the lake has no type for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Text, `HH:MM:SS.fffffff` with as many digits as the column has.
    #[default]
    Text,
    /// Microseconds since midnight, as `bigint`.
    Microseconds,
}

/// What `sql_variant` becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variants {
    /// The column cannot be read; the error says what to write.
    #[default]
    Fail,
    /// Text, in a form from which the value can be had again.
    Text,
}
