//! Ranges of keys, and which rows lie in them.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::error::DataFusionError;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::apply::form::Form;
use crate::lake::apply::locate::Locator;
use crate::model::{KeyRange, TableName};

/// Ranges of keys of one table. Overlapping ones are one.
pub(super) struct Ranges {
    key: RowConverter,
    first: RowConverter,
    /// Each with its end exclusive at the beginning and inclusive at the end; an end that is missing is open.
    ranges: Vec<(Option<End>, Option<End>)>,
}

/// An end of a range, in the form rows compare by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    key: OwnedRow,
    first: OwnedRow,
}

impl Ranges {
    /// No ranges yet of keys as `form` has them.
    ///
    /// # Errors
    /// When a key column has a type without order.
    pub(super) fn new(form: &Form) -> Result<Self, DataFusionError> {
        let none = RecordBatch::new_empty(form.schema());
        let keys = form.order().keys(&none)?;
        let fields: Vec<SortField> = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let first = fields.first().cloned().into_iter().collect();
        Ok(Self { key: RowConverter::new(fields)?, first: RowConverter::new(first)?, ranges: Vec::new() })
    }

    /// Adds a range, whose ends have the columns of the key by name.
    ///
    /// # Errors
    /// When an end is not one whole key.
    pub(super) fn add(&mut self, table: &TableName, form: &Form, range: &KeyRange) -> Result<(), LakeError> {
        let mut end = |rows: &Option<RecordBatch>| -> Result<Option<End>, LakeError> {
            let Some(rows) = rows else { return Ok(None) };
            if rows.num_rows() != 1 {
                let text = format!("an end of a range of keys of table {table} is {} rows, not one", rows.num_rows());
                return Err(LakeError::new(ErrorKind::Internal, text));
            }
            let keys = form.keys(table, rows)?;
            if keys.iter().any(|key| key.null_count() > 0) {
                let text = format!("an end of a range of keys of table {table} has a key column without a value");
                return Err(LakeError::new(ErrorKind::Internal, text));
            }
            let what = || format!("cannot compare the ends of a range of keys of table {table}");
            self.end(&keys).map(Some).map_err(|cause| LakeError::rows(what(), cause))
        };
        let (after, until) = (end(&range.after)?, end(&range.until)?);
        if after.as_ref().zip(until.as_ref()).is_none_or(|(after, until)| after < until) {
            self.ranges.push((after, until));
        }
        Ok(())
    }

    fn end(&mut self, keys: &[ArrayRef]) -> Result<End, DataFusionError> {
        let first = keys.get(..1).unwrap_or_default();
        let (key, first) = (self.key.convert_columns(keys)?, self.first.convert_columns(first)?);
        Ok(End { key: key.row(0).owned(), first: first.row(0).owned() })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Puts the ranges in order and makes those that meet one.
    pub(super) fn settle(&mut self) {
        self.ranges.sort_by(|a, b| a.0.cmp(&b.0));
        let mut settled: Vec<(Option<End>, Option<End>)> = Vec::new();
        for (after, until) in self.ranges.drain(..) {
            let meets = |last: &&mut (Option<End>, Option<End>)| last.1.is_none() || after <= last.1;
            match settled.last_mut().filter(meets) {
                Some((_, open @ Some(_))) if until.is_none() => *open = None,
                Some((_, Some(last))) => *last = until.map_or_else(|| last.clone(), |until| until.max(last.clone())),
                Some((_, None)) => {}
                None => settled.push((after, until)),
            }
        }
        self.ranges = settled;
    }

    /// Tells which files rows in these ranges may stand in.
    pub(super) fn locate(&self, locator: &mut Locator) {
        for (after, until) in &self.ranges {
            locator.see_range(after.as_ref().map(|end| &end.first), until.as_ref().map(|end| &end.first));
        }
    }

    /// Which of these keys, in the form keys compare by, lie in one of the ranges, once they are settled. A key
    /// without a value lies in none.
    ///
    /// # Errors
    /// When the keys have other types.
    pub(super) fn contain(&self, keys: &[ArrayRef]) -> Result<BooleanArray, DataFusionError> {
        let count = keys.first().map_or(0, |key| key.len());
        let rows = self.key.convert_columns(keys)?;
        let within = (0..count).map(|row| {
            if keys.iter().any(|key| key.is_null(row)) {
                return false;
            }
            let key = rows.row(row);
            let begun = |range: &(Option<End>, Option<End>)| range.0.as_ref().is_none_or(|end| end.key.row() < key);
            let before = self.ranges.partition_point(begun);
            let range = before.checked_sub(1).and_then(|place| self.ranges.get(place));
            range.is_some_and(|range| range.1.as_ref().is_none_or(|end| key <= end.key.row()))
        });
        Ok(within.map(Some).collect())
    }
}
