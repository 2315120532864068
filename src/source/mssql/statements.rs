//! Every T-SQL text that is sent. Nothing else puts SQL together.
//!
//! Names are quoted here and values are literals of exactly known type; nothing a user wrote reaches a statement any
//! other way. Every read ends in `OPTION (MAXDOP 1)` so that it takes one core of the server at most.

mod catalogue;
mod quoting;
mod rows;
mod script;
mod session;

pub use catalogue::{
    CHANGE_TRACKING, DATABASE, RECOVERY, ROW_COUNTS, SECURED_TABLES, SERVER, SIZES, TABLE_STATES, TRACKED_TABLES,
    UNMASK, VERSION_2016, columns, indexes, permissions, tables,
};
pub use quoting::{SourceTable, binary_literal, quote, text_literal, variant_text};
pub use rows::{
    KeyRange, bounds, changed_keys, changes, chunk, count, idle, key_splits, keys, min_valid_version, newer_count,
    newer_rows, range, whole,
};
pub use script::{Privileges, privileges};
pub use session::{
    BEGIN_READ_COMMITTED, BEGIN_SNAPSHOT, COMMIT, CURRENT_DATABASE, CURRENT_VERSION, MIN_ACTIVE_ROWVERSION, ROLLBACK,
    ROWS_READ, session,
};

#[cfg(test)]
mod tests;
