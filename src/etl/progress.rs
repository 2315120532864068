//! Telling somebody how far loads are.

use crate::etl::TableOutcome;
use crate::journal::VerificationRecord;
use crate::model::TableName;

/// Somebody who wants to know how far loads are. Called from many tasks at once; must not block.
pub trait Progress: Send + Sync {
    /// A load of the table begins.
    fn started(&self, table: &TableName);

    /// There is something to read: so many bytes, as stored, where that is known. Comes again, with figures
    /// starting over, when the load is done anew.
    fn reading(&self, table: &TableName, total_bytes: Option<u64>);

    /// So much was read since reading began: rows, rejected ones included, and bytes as stored.
    fn advanced(&self, table: &TableName, rows: u64, bytes: u64);

    /// Everything was read; what is left is to write and to commit.
    fn writing(&self, table: &TableName);

    /// The load ended, one way or the other.
    fn finished(&self, outcome: &TableOutcome);

    /// A comparison of the table with its source ended, one way or the other. It was told as a load is before:
    /// started, reading, advanced; a repair is a load of its own in between.
    fn verified(&self, record: &VerificationRecord);
}

/// Nobody wants to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _table: &TableName) {}
    fn reading(&self, _table: &TableName, _total_bytes: Option<u64>) {}
    fn advanced(&self, _table: &TableName, _rows: u64, _bytes: u64) {}
    fn writing(&self, _table: &TableName) {}
    fn finished(&self, _outcome: &TableOutcome) {}
    fn verified(&self, _record: &VerificationRecord) {}
}
