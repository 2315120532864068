//! Columns of rows: from the texts of cells to typed Arrow arrays, with the rows that did not fit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanArray, BooleanBufferBuilder, NullBufferBuilder,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
    TimestampMicrosecondType,
};
use base64::Engine;

use super::moment::{self, TimeFormat};
use super::{names, number};
use crate::error::ErrorKind;
use crate::model::{ColumnType, Reject};
use crate::source::SourceError;

/// A column of the table rows are read for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    /// The column's name in the files, where the definition gives another.
    pub(super) from: Option<String>,
    pub(super) kind: ColumnType,
    pub(super) formats: Vec<TimeFormat>,
    pub(super) nullable: bool,
}

/// The columns rows are read for.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) columns: Vec<Target>,
    pub(super) schema: SchemaRef,
    /// Whether the definition says the types: then what it says is meant.
    pub(super) is_declared: bool,
    exact: HashMap<String, usize>,
    /// Names that differ in case only lead nowhere.
    folded: HashMap<String, Option<usize>>,
}

impl Targets {
    pub(super) fn new(columns: Vec<Target>, is_declared: bool) -> Self {
        let fields = columns.iter().map(|target| Field::new(&target.name, target.kind.to_arrow(), target.nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (mut exact, mut folded) = (HashMap::new(), HashMap::new());
        for (index, target) in columns.iter().enumerate() {
            let name = target.from.as_ref().unwrap_or(&target.name);
            exact.insert(name.clone(), index);
            folded.entry(names::fold(name)).and_modify(|found| *found = None).or_insert(Some(index));
        }
        Self { columns, schema, is_declared, exact, folded }
    }

    /// The column a name in a file means: by the exact name, or without regard to case where that is clear.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.exact.get(name).copied().or_else(|| self.folded.get(&names::fold(name)).copied().flatten())
    }

    /// Which of a file's columns feeds each target.
    ///
    /// # Errors
    /// With the reason when two of the file's columns mean one, or a column that must have values is missing.
    pub(super) fn layout(&self, header: &[String]) -> Result<Layout, String> {
        let mut source_of: Vec<Option<usize>> = vec![None; self.columns.len()];
        let mut unused = Vec::new();
        for (index, name) in header.iter().enumerate() {
            let Some(target) = self.find(name) else {
                unused.push(name.clone());
                continue;
            };
            if let Some(first) = source_of[target].replace(index) {
                return Err(format!(
                    "columns {} (`{}`) and {} (`{name}`) have the same name; rename one of them",
                    first + 1,
                    header[first],
                    index + 1
                ));
            }
        }
        for (target, source) in self.columns.iter().zip(&source_of) {
            if source.is_none() && !target.nullable {
                return Err(format!(
                    "the file has no column `{}`, which may not be missing (`nullable = false`)",
                    target.from.as_ref().unwrap_or(&target.name)
                ));
            }
        }
        Ok(Layout { source_of, unused })
    }
}

/// How a file's columns meet the table's.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// For each target the file's column, where it has it.
    pub(super) source_of: Vec<Option<usize>>,
    /// Columns of the file that the table does not have.
    pub(super) unused: Vec<String>,
}

/// The texts of one column in some rows.
pub(super) trait Cells {
    fn len(&self) -> usize;

    /// The text of a cell, none for NULL, or why it cannot be read.
    fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, String>;

    /// The row of the batch a cell belongs to.
    fn row(&self, index: usize) -> usize;
}

/// Rows of a batch that did not fit: the first reason of each.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_row: BTreeMap<usize, (String, String)>,
}

impl Failures {
    pub(super) fn add(&mut self, row: usize, column: &str, reason: String) {
        self.by_row.entry(row).or_insert_with(|| (column.to_owned(), reason));
    }
}

/// Rows and rejects of one block.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) rows: Option<RecordBatch>,
    pub(super) rejects: Vec<Reject>,
    pub(super) stored: u64,
}

/// Makes a batch of columns, without the rows that failed; `reject` describes those.
///
/// # Errors
/// Only when the arrays do not match the schema, which is a mistake of ours.
pub(super) fn finish(
    targets: &Targets,
    arrays: Vec<ArrayRef>,
    rows: usize,
    mut failures: Failures,
    mut reject: impl FnMut(usize) -> Reject,
) -> Result<(RecordBatch, Vec<Reject>), SourceError> {
    for (target, array) in targets.columns.iter().zip(&arrays) {
        if !target.nullable && array.null_count() > 0 {
            for row in (0..rows).filter(|row| array.is_null(*row)) {
                failures.add(row, &target.name, "a value is missing where one is required".to_owned());
            }
        }
    }
    let mut keep = BooleanBufferBuilder::new(rows);
    keep.append_n(rows, true);
    let mut rejects = Vec::with_capacity(failures.by_row.len());
    for (row, (column, reason)) in failures.by_row {
        keep.set_bit(row, false);
        rejects.push(Reject { column: (!column.is_empty()).then_some(column), reason, ..reject(row) });
    }
    // Until the failed rows are out, their places in required columns are NULL: the schema is put on afterwards.
    let loose = targets.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let loose = Arc::new(Schema::new(loose.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(loose, arrays, &options).map_err(mistake)?;
    let batch = if rejects.is_empty() {
        batch
    } else {
        filter_record_batch(&batch, &BooleanArray::new(keep.finish(), None)).map_err(mistake)?
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&targets.schema), batch.columns().to_vec(), &options)
        .map_err(mistake)?;
    Ok((batch, rejects))
}

/// An error that only a mistake of ours can bring about.
pub(super) fn mistake(error: arrow::error::ArrowError) -> SourceError {
    SourceError::because(ErrorKind::Internal, "rows could not be put together", error)
}

/// A column without values.
pub(super) fn nulls(kind: &ColumnType, rows: usize) -> ArrayRef {
    new_null_array(&kind.to_arrow(), rows)
}

/// Reads the cells of a column of a plain type. Structs, arrays and maps are JSON's: see `json::nested`.
pub(super) fn build<C: Cells>(
    kind: &ColumnType,
    formats: &[TimeFormat],
    cells: &C,
    column: &str,
    failures: &mut Failures,
) -> ArrayRef {
    let mut sink = Sink { cells, column, failures };
    match kind {
        ColumnType::Boolean => sink.truth(),
        ColumnType::Smallint => sink.primitive::<Int16Type>(kind, |text| number::narrow(text, "smallint")),
        ColumnType::Int => sink.primitive::<Int32Type>(kind, |text| number::narrow(text, "int")),
        ColumnType::Bigint => sink.primitive::<Int64Type>(kind, number::integer),
        ColumnType::Real => sink.primitive::<Float32Type>(kind, number::real),
        ColumnType::Double => sink.primitive::<Float64Type>(kind, number::double),
        ColumnType::Decimal(precision, scale) => {
            sink.primitive::<Decimal128Type>(kind, |text| number::decimal(text, *precision, *scale))
        }
        ColumnType::Date => sink.primitive::<Date32Type>(kind, |text| moment::date(text, formats)),
        ColumnType::Timestamp => {
            sink.primitive::<TimestampMicrosecondType>(kind, |text| moment::instant(text, formats))
        }
        ColumnType::TimestampNtz => {
            sink.primitive::<TimestampMicrosecondType>(kind, |text| moment::local(text, formats))
        }
        ColumnType::Binary => sink.binary(),
        ColumnType::String => sink.text(),
        ColumnType::Struct(_) | ColumnType::Array(_) | ColumnType::Map(..) => nulls(kind, cells.len()),
    }
}

struct Sink<'a, C> {
    cells: &'a C,
    column: &'a str,
    failures: &'a mut Failures,
}

impl<C: Cells> Sink<'_, C> {
    /// Hands each cell's value on, none where it is NULL or does not fit.
    fn each<T>(&mut self, read: impl Fn(&[u8]) -> Result<T, String>, mut take: impl FnMut(Option<T>)) {
        for index in 0..self.cells.len() {
            let value = match self.cells.get(index) {
                Ok(None) => None,
                Ok(Some(text)) => match read(&text) {
                    Ok(value) => Some(value),
                    Err(reason) => self.fail(index, reason),
                },
                Err(reason) => self.fail(index, reason),
            };
            take(value);
        }
    }

    #[cold]
    fn fail<T>(&mut self, index: usize, reason: String) -> Option<T> {
        self.failures.add(self.cells.row(index), self.column, reason);
        None
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        kind: &ColumnType,
        read: impl Fn(&[u8]) -> Result<T::Native, String>,
    ) -> ArrayRef {
        let mut values = Vec::with_capacity(self.cells.len());
        let mut nulls = NullBufferBuilder::new(self.cells.len());
        self.each(read, |value| {
            nulls.append(value.is_some());
            values.push(value.unwrap_or_default());
        });
        let array = PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls.finish());
        Arc::new(array.with_data_type(kind.to_arrow()))
    }

    fn truth(&mut self) -> ArrayRef {
        let mut values = BooleanBufferBuilder::new(self.cells.len());
        let mut nulls = NullBufferBuilder::new(self.cells.len());
        self.each(number::boolean, |value| {
            nulls.append(value.is_some());
            values.append(value.unwrap_or_default());
        });
        Arc::new(BooleanArray::new(values.finish(), nulls.finish()))
    }

    fn binary(&mut self) -> ArrayRef {
        let mut values = BinaryBuilder::with_capacity(self.cells.len(), 0);
        let decode = |text: &[u8]| {
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|_| number::not("binary data in base64", text))
        };
        self.each(decode, |value| values.append_option(value));
        Arc::new(values.finish())
    }

    /// Copies the texts into one buffer; that they are UTF-8 is checked for all at once.
    fn text(&mut self) -> ArrayRef {
        let (mut bytes, mut offsets) = (Vec::<u8>::new(), vec![0_i32]);
        let mut nulls = NullBufferBuilder::new(self.cells.len());
        for index in 0..self.cells.len() {
            match self.cells.get(index) {
                // A block is at most 64 MiB, so that the offsets of its cells fit 32 bits.
                Ok(Some(text)) => {
                    bytes.extend_from_slice(&text);
                    nulls.append_non_null();
                }
                Ok(None) => nulls.append_null(),
                Err(reason) => {
                    self.failures.add(self.cells.row(index), self.column, reason);
                    nulls.append_null();
                }
            }
            offsets.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        match StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls.finish()) {
            Ok(array) => Arc::new(array),
            // Cells hand out UTF-8 only; a mistake there must not pass as data.
            Err(error) => {
                for index in 0..self.cells.len() {
                    self.failures.add(self.cells.row(index), self.column, error.to_string());
                }
                new_null_array(&ColumnType::String.to_arrow(), self.cells.len())
            }
        }
    }
}
