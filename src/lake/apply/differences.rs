//! What a table has otherwise than its source, found by walking through both in the order of keys.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::Int8Type;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::Fuse;

use crate::lake::LakeError;
use crate::lake::apply::form::Form;
use crate::lake::apply::neighbours::Neighbours;
use crate::lake::apply::ranges::Ranges;
use crate::model::TableName;

/// Bytes of rows, in memory, that are put at once: they are sorted next, and what sorts them must have room for them
/// twice.
const PIECE_BYTES: usize = 2 << 20;

/// Where a row that is compared comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The source, whole.
    Row,
    /// The source, only its key.
    Key,
    /// The table.
    Table,
}

impl Origin {
    /// As it stands in the column of origins.
    pub(super) fn number(self) -> i8 {
        match self {
            Self::Row => 0,
            Self::Key => 1,
            Self::Table => 2,
        }
    }
}

/// Rows that differ.
pub(super) enum Difference {
    /// Rows to put into the table, in the columns they came with.
    Put(RecordBatch),
    /// Keys to remove.
    Remove(RecordBatch),
}

/// Finds what differs. The rows come sorted by key; of one key at most one is of the source, and it comes first.
pub(super) struct Differences {
    table: TableName,
    form: Form,
    ranges: Ranges,
    rows: Fuse<SendableRecordBatchStream>,
    neighbours: Neighbours,
    group: Group,
    found: Vec<Difference>,
}

/// The rows of one key so far.
#[derive(Default)]
struct Group {
    /// The source's row.
    present: Option<Held>,
    /// Whether the source has the key.
    told: bool,
    /// How many rows the table has.
    copies: u32,
    /// Whether the first of them is the source's row.
    equal: bool,
}

/// A row that may have to be put into the table.
enum Held {
    /// A row of the batch at hand.
    Here(usize),
    /// A row of a batch before.
    Before(RecordBatch),
}

impl Group {
    /// The source's row, where the table has it otherwise, not at all, or more than once.
    fn differing(&mut self) -> Option<Held> {
        let same = self.equal && self.copies == 1;
        self.present.take().filter(|_| !same)
    }
}

impl Differences {
    /// In `rows`, which have the columns of `form` and that of origins.
    pub(super) fn new(table: TableName, form: Form, ranges: Ranges, rows: SendableRecordBatchStream) -> Self {
        let neighbours = Neighbours::new(form.order());
        Self { table, form, ranges, rows: rows.fuse(), neighbours, group: Group::default(), found: Vec::new() }
    }

    /// The next rows that differ; none at the end.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Difference>, LakeError> {
        loop {
            if let Some(found) = self.found.pop() {
                return Ok(Some(found));
            }
            let found = match self.rows.next().await {
                Some(rows) => rows.and_then(|rows| self.take(&rows)),
                None => match self.group.differing() {
                    Some(Held::Before(row)) => {
                        self.found.push(Difference::Put(row));
                        Ok(())
                    }
                    _ => return Ok(None),
                },
            };
            let what = || format!("cannot compare table {} with what is present", self.table);
            found.map_err(|cause| LakeError::rows(what(), cause))?;
            tokio::task::consume_budget().await;
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        let count = batch.num_rows();
        let same = self.neighbours.same_as_before(batch)?;
        let (rows, origins) = apart(batch)?;
        let equal = if origins.contains(&Origin::Row.number()) { next_is_equal(&rows)? } else { none(count) };
        let (mut put, mut alone) = (vec![false; count], vec![false; count]);
        for (row, origin) in origins.iter().copied().enumerate() {
            if !same.value(row) {
                self.close(&mut put);
            }
            if origin == Origin::Table.number() {
                alone[row] = !self.group.told;
                self.group.copies += 1;
                self.group.equal |= match &self.group.present {
                    Some(Held::Here(present)) if present + 1 == row => equal.value(*present),
                    Some(Held::Before(present)) if self.group.copies == 1 => is_equal(present, &rows, row)?,
                    _ => false,
                };
            } else {
                self.group.told = true;
                self.group.present = (origin == Origin::Row.number()).then_some(Held::Here(row));
            }
        }
        if let Some(Held::Here(row)) = self.group.present {
            // A copy: a slice would keep the whole batch.
            let row = u32::try_from(row).map_err(|cause| DataFusionError::External(cause.into()))?;
            let copy = take_record_batch(&rows, &UInt32Array::from(vec![row]))?;
            self.group.present = Some(Held::Before(copy));
        }
        self.find(&rows, put, alone)
    }

    /// Ends the rows of one key.
    fn close(&mut self, put: &mut [bool]) {
        match self.group.differing() {
            Some(Held::Here(row)) => put[row] = true,
            Some(Held::Before(row)) => self.found.push(Difference::Put(row)),
            None => {}
        }
        self.group = Group::default();
    }

    fn find(&mut self, rows: &RecordBatch, put: Vec<bool>, alone: Vec<bool>) -> Result<(), DataFusionError> {
        let put = BooleanArray::from(put);
        let step = rows_of(PIECE_BYTES, rows);
        for start in (0..rows.num_rows()).step_by(step) {
            let count = step.min(rows.num_rows() - start);
            let put = put.slice(start, count);
            if put.true_count() > 0 {
                self.found.push(Difference::Put(filter_record_batch(&rows.slice(start, count), &put)?));
            }
        }
        if self.ranges.is_empty() || !alone.contains(&true) {
            return Ok(());
        }
        let alone = filter_record_batch(rows, &BooleanArray::from(alone))?;
        let within = self.ranges.contain(&self.form.order().keys(&alone)?)?;
        if within.true_count() > 0 {
            let keys = alone.project(self.form.order().columns())?;
            self.found.push(Difference::Remove(filter_record_batch(&keys, &within)?));
        }
        Ok(())
    }
}

/// The rows without their origins, and these.
fn apart(batch: &RecordBatch) -> Result<(RecordBatch, &[i8]), ArrowError> {
    let last = batch.num_columns().saturating_sub(1);
    let rows = batch.project(&(0..last).collect::<Vec<_>>())?;
    Ok((rows, batch.column(last).as_primitive::<Int8Type>().values()))
}

/// How many rows have about so many bytes.
fn rows_of(bytes: usize, rows: &RecordBatch) -> usize {
    let a_row = rows.get_array_memory_size() / rows.num_rows().max(1);
    (bytes / a_row.max(1)).max(1)
}

fn none(count: usize) -> BooleanBuffer {
    BooleanBuffer::new_unset(count)
}

/// For each row but the last whether the next one is the same, value by value: NULL is NULL, and numbers are the
/// same bits.
fn next_is_equal(rows: &RecordBatch) -> Result<BooleanBuffer, ArrowError> {
    let pairs = rows.num_rows().saturating_sub(1);
    let mut equal = BooleanBuffer::new_set(pairs);
    for column in rows.columns() {
        equal = &equal & &column_repeats(column, pairs)?;
    }
    Ok(equal)
}

fn column_repeats(column: &ArrayRef, pairs: usize) -> Result<BooleanBuffer, ArrowError> {
    if column.data_type().is_nested() {
        let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
        let values = converter.convert_columns(std::slice::from_ref(column))?;
        return Ok(BooleanBuffer::collect_bool(pairs, |row| values.row(row) == values.row(row + 1)));
    }
    let repeats = not_distinct(&column.slice(0, pairs), &column.slice(1.min(column.len()), pairs))?;
    Ok(repeats.values().clone())
}

/// Whether a single row is the same as one of others.
fn is_equal(one: &RecordBatch, rows: &RecordBatch, row: usize) -> Result<bool, ArrowError> {
    let both = concat_batches(&rows.schema(), [one, &rows.slice(row, 1)])?;
    Ok(next_is_equal(&both)?.value(0))
}
