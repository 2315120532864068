//! Keys that are left out of a comparison, found as the server compares them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use futures::TryStreamExt;

use crate::error::ErrorKind;
use crate::model::KeyFolding;
use crate::source::SourceError;
use crate::source::mssql::change_tracking::BATCH_ROWS;
use crate::source::mssql::decode::RowDecoder;
use crate::source::mssql::session::{RowSource, Session};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::{self, KeyRange};

/// Makes keys of rows comparable: two rows have the same form where the server takes their keys for one.
pub(super) struct KeyForm {
    names: Vec<String>,
    folding: Vec<KeyFolding>,
    converter: RowConverter,
}

impl KeyForm {
    /// For the key of a table.
    ///
    /// # Errors
    /// When a column has a type that has no order.
    pub(super) fn new(shape: &Shape) -> Result<Self, SourceError> {
        let fields = shape.keys.iter().filter_map(|key| key.field());
        let fields = fields.map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(uncomparable)?;
        Ok(Self { names: shape.key_names(), folding: shape.folding.clone(), converter })
    }

    /// The keys of rows.
    ///
    /// # Errors
    /// When a column of the key is not among those of the rows.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<Rows, SourceError> {
        let mut columns = Vec::with_capacity(self.names.len());
        for (place, name) in self.names.iter().enumerate() {
            let column = rows.column_by_name(name).ok_or_else(|| {
                SourceError::new(ErrorKind::Internal, format!("key column `{name}` is not among those that were read"))
            })?;
            columns.push(folded(column, self.folding.get(place).copied().unwrap_or(KeyFolding::Exact)));
        }
        self.converter.convert_columns(&columns).map_err(uncomparable)
    }
}

fn folded(column: &ArrayRef, folding: KeyFolding) -> ArrayRef {
    if !folding.changes_values() {
        return Arc::clone(column);
    }
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>().iter();
            Arc::new(texts.map(|text| text.map(|text| folding.fold(text))).collect::<StringArray>())
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>().iter();
            Arc::new(values.map(|bytes| bytes.map(|bytes| folding.fold_bytes(bytes))).collect::<BinaryArray>())
        }
        _ => Arc::clone(column),
    }
}

/// A set of keys, and the same as they were read.
pub(super) struct LeftOut {
    keys: HashSet<Box<[u8]>>,
    /// The key's columns alone.
    pub(super) batches: Vec<RecordBatch>,
}

impl LeftOut {
    /// No keys.
    pub(super) fn nothing() -> Self {
        Self { keys: HashSet::new(), batches: Vec::new() }
    }

    /// The keys in a range that changed after a version. To be called in a transaction.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn changed(
        session: &mut Session,
        shape: &Shape,
        since: i64,
        range: KeyRange<'_>,
        form: &KeyForm,
    ) -> Result<Self, SourceError> {
        let mut left_out = Self::nothing();
        let unasked =
            |cause| SourceError::because(ErrorKind::InvalidInput, "a range of keys cannot be asked for", cause);
        let sql = statements::changed_keys(&shape.table, &shape.keys, since, range).map_err(unasked)?;
        let plans: Vec<_> = shape.keys.iter().map(|key| key.plan().clone()).collect();
        let mut decoder = RowDecoder::new(&plans);
        let mut rows = session.rows(&sql, "reading the keys that changed");
        while let Some(row) = rows.try_next().await? {
            decoder.push(row).map_err(|cause| shape.cell(cause))?;
            if decoder.rows() >= BATCH_ROWS {
                left_out.add(form, decoder.finish().map_err(uncomparable)?)?;
            }
        }
        if decoder.rows() > 0 {
            left_out.add(form, decoder.finish().map_err(uncomparable)?)?;
        }
        Ok(left_out)
    }

    /// Adds the keys of others.
    pub(super) fn join(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.batches.extend(other.batches);
    }

    /// Adds keys.
    ///
    /// # Errors
    /// When a column of the key is missing.
    pub(super) fn add(&mut self, form: &KeyForm, keys: RecordBatch) -> Result<(), SourceError> {
        self.keys.extend(form.of(&keys)?.iter().map(|key| key.as_ref().into()));
        self.batches.push(keys);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Whether a key in its form ([`KeyForm::of`]) is among them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }
}

fn uncomparable(cause: ArrowError) -> SourceError {
    SourceError::because(ErrorKind::Internal, "keys cannot be compared", cause)
}
