//! Rows with what to do with them, as a source hands them to a load.

use arrow::array::RecordBatch;

/// What a batch asks the table to do with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Add the rows; a key may then stand in the table more than once.
    Append,
    /// Put each row in the place of the one with its key, or add it.
    Upsert,
    /// Remove the rows with these keys; columns other than the key are ignored.
    Delete,
    /// The rows are there, at the source. One that the table has otherwise, or not at all, is put there. What lies in a
    /// range that is complete ([`KeyRange`]) and was neither present nor put there is removed. Changes of the other
    /// kinds are newer than anything present, in whatever order they come.
    Present,
    /// As [`Self::Present`], but only the columns of the key are told: rows are removed by it, never put there.
    PresentKeys,
}

/// A part of a table by its whole key; a missing end is open.
#[derive(Clone, Debug, Default)]
pub struct KeyRange {
    /// Only rows after this key: one row of the key's columns.
    pub after: Option<RecordBatch>,
    /// Only rows up to this key, itself included: one row of the key's columns.
    pub until: Option<RecordBatch>,
}

/// Rows of one kind in the order the source gave them. Of two rows with one key the later one counts,
/// across batches as well as within one.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// What to do with the rows.
    pub kind: ChangeKind,
    /// The rows, in the schema the reading announced.
    pub rows: RecordBatch,
    /// Which of the reading's files the rows come from, where they come from one.
    pub file: Option<usize>,
}
