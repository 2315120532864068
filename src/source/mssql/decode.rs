//! Rows of the driver as Arrow batches.
//!
//! The driver's own conversions of dates and numbers are never used: they go through floats, and once subtract an
//! offset twice. Each column is one variant of an enum that was chosen when the query was made; nothing is looked up
//! by name, and nothing is allocated for a cell beyond what the driver made.

mod cells;
mod moment;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use tiberius::ColumnData;

use super::column::{Cell, ColumnPlan};
use cells::Cells;

/// Most rows for which a fresh batch makes room.
const LARGEST_CAPACITY: usize = 1 << 16;
/// Most bytes of text for which a fresh batch makes room.
const LARGEST_TEXT_CAPACITY: usize = 4 << 20;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the batch.
    Row,
    /// A value of it was too large to be fetched; the row is left out of the batch.
    TooLarge {
        /// The column's name on the server.
        column: String,
        /// The value's size there, in bytes.
        bytes: u64,
    },
}

/// A value that is not what its column promises. Its row is left out of the batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}`: expected {expected}, got {got}")]
pub struct CellError {
    /// The column's name on the server.
    pub column: String,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// What is wrong with a cell, before its column is named.
struct Mismatch {
    expected: String,
    got: String,
}

/// Makes batches of rows.
///
/// A row that fails is left out; the others are unharmed, and reading can go on if the caller wants it to.
pub struct RowDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// All rows pushed since the last batch, those left out included.
    pushed: usize,
    /// Places of the rows left out.
    dropped: Vec<usize>,
    /// Bytes of fixed size that a row takes.
    row_bytes: usize,
    /// Bytes of text and binary values so far.
    variable_bytes: usize,
}

struct Column {
    name: String,
    sql_type: String,
    cell: Cell,
    cells: Cells,
    /// The size above which a value is not sent; then its size comes after it.
    guard: Option<u64>,
    /// The spatial reference, which comes after the value.
    srid: Option<Cells>,
}

impl RowDecoder {
    /// A decoder of rows that hold, in this order, what [`ColumnPlan::select`] of each plan asks for.
    pub fn new(plans: &[ColumnPlan]) -> Self {
        let fields: Vec<_> = plans.iter().flat_map(|plan| plan.fields.iter().cloned()).collect();
        let columns: Vec<_> = plans.iter().map(Column::new).collect();
        let row_bytes = columns.iter().map(Column::fixed_bytes).sum();
        Self {
            schema: Arc::new(Schema::new(fields)),
            columns,
            pushed: 0,
            dropped: Vec::new(),
            row_bytes,
            variable_bytes: 0,
        }
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many values of a row are taken.
    pub fn width(&self) -> usize {
        self.columns.iter().map(Column::width).sum()
    }

    /// Takes a row: exactly [`Self::width`] values. A caller with values of its own in the row takes those off first.
    ///
    /// # Errors
    /// When a value is not what its column promises, or values are missing or too many.
    pub fn push(&mut self, row: impl IntoIterator<Item = ColumnData<'static>>) -> Result<Pushed, CellError> {
        let mut row = row.into_iter();
        let mut pushed = Pushed::Row;
        for place in 0..self.columns.len() {
            let Some(column) = self.columns.get_mut(place) else { break };
            match column.push(&mut row) {
                Ok((bytes, None)) => self.variable_bytes += bytes,
                Ok((_, Some(bytes))) => pushed = Pushed::TooLarge { column: column.name.clone(), bytes },
                Err(mismatch) => {
                    let error = column.error(mismatch);
                    self.leave_out(place);
                    return Err(error);
                }
            }
        }
        if row.next().is_some() {
            self.leave_out(self.columns.len());
            return Err(self.too_many());
        }
        if pushed != Pushed::Row {
            self.dropped.push(self.pushed);
        }
        self.pushed += 1;
        Ok(pushed)
    }

    /// Rows in the batch so far.
    pub fn rows(&self) -> usize {
        self.pushed - self.dropped.len()
    }

    /// Rows since the last batch, those left out included.
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// About how many bytes the batch takes so far.
    pub fn bytes(&self) -> usize {
        self.pushed * self.row_bytes + self.variable_bytes
    }

    /// Whether no row came since the last batch, not even one that was left out.
    pub fn is_empty(&self) -> bool {
        self.pushed == 0
    }

    /// The batch; the next row begins a new one.
    ///
    /// # Errors
    /// When Arrow refuses the arrays, which would be a mistake here.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.finish_all()?.kept()
    }

    /// The batch with the rows that were left out; the next row begins a new one.
    ///
    /// # Errors
    /// When Arrow refuses the arrays, which would be a mistake here.
    pub fn finish_all(&mut self) -> Result<AllRows, ArrowError> {
        let capacity = self.pushed.min(LARGEST_CAPACITY);
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().flat_map(|column| column.finish(capacity)).collect();
        let pushed = std::mem::take(&mut self.pushed);
        let dropped = std::mem::take(&mut self.dropped);
        self.variable_bytes = 0;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(pushed));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        Ok(AllRows { batch, dropped })
    }

    /// Fills the columns from `place` on, which have no value of the row yet, and leaves the row out.
    fn leave_out(&mut self, place: usize) {
        for column in self.columns.iter_mut().skip(place) {
            column.fill(self.pushed + 1);
        }
        self.dropped.push(self.pushed);
        self.pushed += 1;
    }

    fn too_many(&self) -> CellError {
        let column = self.columns.last().map_or(String::new(), |column| column.name.clone());
        CellError {
            column,
            expected: "the end of the row".to_owned(),
            got: "more values than were asked for".to_owned(),
        }
    }
}

/// Rows of a batch, those that were left out included: of these, values that were too large are null.
pub struct AllRows {
    batch: RecordBatch,
    dropped: Vec<usize>,
}

impl AllRows {
    /// All of them.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Those that were left out, and those that were not.
    ///
    /// # Errors
    /// When Arrow refuses the arrays, which would be a mistake here.
    pub fn split(self) -> Result<(RecordBatch, RecordBatch), ArrowError> {
        let places = self.dropped.iter().map(|place| u64::try_from(*place).unwrap_or(u64::MAX));
        let dropped = take_record_batch(&self.batch, &UInt64Array::from_iter_values(places))?;
        Ok((dropped, self.kept()?))
    }

    /// Without those that were left out.
    ///
    /// # Errors
    /// When Arrow refuses the arrays, which would be a mistake here.
    pub fn kept(self) -> Result<RecordBatch, ArrowError> {
        if self.dropped.is_empty() {
            return Ok(self.batch);
        }
        let mut kept = vec![true; self.batch.num_rows()];
        for place in self.dropped {
            if let Some(keep) = kept.get_mut(place) {
                *keep = false;
            }
        }
        filter_record_batch(&self.batch, &BooleanArray::from(kept))
    }
}

impl Column {
    fn new(plan: &ColumnPlan) -> Self {
        Self {
            name: plan.name().to_owned(),
            sql_type: plan.sql_type().to_string(),
            cell: plan.cell().clone(),
            cells: Cells::new(plan.cell(), 0, 0),
            guard: plan.guard(),
            srid: plan.has_srid().then(|| Cells::new(&Cell::Int, 0, 0)),
        }
    }

    fn width(&self) -> usize {
        1 + usize::from(self.guard.is_some()) + usize::from(self.srid.is_some())
    }

    fn fixed_bytes(&self) -> usize {
        self.cells.fixed_bytes() + self.srid.as_ref().map_or(0, Cells::fixed_bytes)
    }

    /// Takes the values of one row: how many bytes of variable size came, and the true size of a value that did not.
    fn push(&mut self, row: &mut impl Iterator<Item = ColumnData<'static>>) -> Result<(usize, Option<u64>), Mismatch> {
        let bytes = self.cells.push(row.next().ok_or_else(missing)?)?;
        let mut too_large = None;
        if let Some(limit) = self.guard {
            too_large = length(&row.next().ok_or_else(missing)?)?.filter(|length| *length > limit);
        }
        if let Some(srid) = &mut self.srid {
            srid.push(row.next().ok_or_else(missing)?)?;
        }
        Ok((bytes, too_large))
    }

    /// Makes up for a row of which some values, or none, have come.
    fn fill(&mut self, rows: usize) {
        self.cells.fill(rows);
        if let Some(srid) = &mut self.srid {
            srid.fill(rows);
        }
    }

    /// The arrays of the batch. The next one gets room for as many rows, since batches of a table are much alike.
    fn finish(&mut self, rows: usize) -> impl Iterator<Item = ArrayRef> + use<> {
        let bytes = self.cells.variable_bytes().min(LARGEST_TEXT_CAPACITY);
        let [first, second] = self.cells.finish();
        self.cells = Cells::new(&self.cell, rows, bytes);
        let srid = self.srid.as_mut().and_then(|srid| srid.finish().into_iter().flatten().next());
        [first, second, srid].into_iter().flatten()
    }

    fn error(&self, mismatch: Mismatch) -> CellError {
        CellError {
            column: self.name.clone(),
            expected: format!("{} ({})", mismatch.expected, self.sql_type),
            got: mismatch.got,
        }
    }
}

fn missing() -> Mismatch {
    Mismatch { expected: "a value".to_owned(), got: "the end of the row".to_owned() }
}

/// What `DATALENGTH` gave.
fn length(value: &ColumnData<'static>) -> Result<Option<u64>, Mismatch> {
    match value {
        ColumnData::I32(length) => Ok(length.and_then(|length| u64::try_from(length).ok())),
        ColumnData::I64(length) => Ok(length.and_then(|length| u64::try_from(length).ok())),
        other => Err(Mismatch { expected: "the value's length".to_owned(), got: cells::describe(other) }),
    }
}

#[cfg(test)]
mod tests;
