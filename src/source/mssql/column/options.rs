//! What a definition may say about how values are kept.

pub use crate::config::{SubMicroseconds, Times, Timestamps, Variants};

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
