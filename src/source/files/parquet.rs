//! Parquet files: their columns, and their rows in the types a table has.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, is_null, nullif};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::column::{Failures, Layout, Parsed, Targets, build, finish, mistake, nulls};
use super::input::{Fetched, ReadFailure, check_unchanged, io_failure, object_failure};
use super::json::Plain;
use super::listing::{ListedFile, Place};
use super::moment::TimeFormat;
use super::names;
use super::pipeline::Pipeline;
use super::schema::{admit, file_type};
use crate::model::{ColumnType, Reject};
use crate::source::SourceError;

/// Rows decoded at a time: some megabytes of a wide table.
const BATCH_ROWS: usize = 16 * 1024;

/// Bytes first fetched from an object's end: most footers fit.
const FOOTER_GUESS: u64 = 64 * 1024;

/// The columns of a Parquet file, from its footer.
///
/// # Errors
/// When it is no whole Parquet file, or has a column that no table can hold.
pub(super) async fn columns(file: &ListedFile) -> Result<Vec<(String, ColumnType)>, ReadFailure> {
    let footer = match &file.place {
        Place::Local(path) => {
            let opened = File::open(path).map_err(|error| io_failure(&file.path, error))?;
            ArrowReaderMetadata::load(&opened, ArrowReaderOptions::default()).map_err(|error| broken(&error))?
        }
        Place::Object(store, path) => remote_footer(file, store.as_ref(), path).await?,
    };
    column_types(footer.schema()).map_err(ReadFailure::Broken)
}

/// Fetches the end of an object until the footer is whole.
async fn remote_footer(
    file: &ListedFile,
    store: &dyn ObjectStore,
    path: &object_store::path::Path,
) -> Result<ArrowReaderMetadata, ReadFailure> {
    let mut wanted = FOOTER_GUESS.min(file.size);
    loop {
        let range = file.size - wanted..file.size;
        let end = store.get_range(path, range).await.map_err(|error| object_failure(&file.path, error))?;
        let mut reader = ParquetMetaDataReader::new();
        let parsed = match reader.try_parse_sized(&end, file.size) {
            Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted && needed as u64 <= file.size => {
                wanted = needed as u64;
                continue;
            }
            parsed => parsed.and_then(|()| reader.finish()),
        };
        let metadata = parsed.map_err(|error| broken(&error))?;
        let options = ArrowReaderOptions::default();
        return ArrowReaderMetadata::try_new(Arc::new(metadata), options).map_err(|error| broken(&error));
    }
}

fn column_types(schema: &SchemaRef) -> Result<Vec<(String, ColumnType)>, String> {
    let mut columns = Vec::<(String, ColumnType)>::new();
    let mut seen = HashMap::new();
    for field in schema.fields() {
        if let Some(first) = seen.insert(names::fold(field.name()), field.name()) {
            return Err(format!("columns `{first}` and `{}` have the same name; rename one of them", field.name()));
        }
        columns.push((field.name().clone(), file_type(field.name(), field.data_type())?));
    }
    Ok(columns)
}

fn broken(error: &dyn std::error::Error) -> ReadFailure {
    ReadFailure::Broken(format!("it is not a whole Parquet file: {error}; it may have been cut off"))
}

/// Starts reading a Parquet file into the columns of `targets`.
pub(super) fn start(
    file: ListedFile,
    fetched: Fetched,
    window: usize,
    targets: Arc<Targets>,
) -> Pipeline<Result<Parsed, SourceError>> {
    let (sender, results) = mpsc::channel(window.max(1));
    let end = tokio::task::spawn_blocking(move || read(&file, fetched, &targets, &sender));
    Pipeline { results, end }
}

fn read(
    file: &ListedFile,
    fetched: Fetched,
    targets: &Arc<Targets>,
    sender: &mpsc::Sender<JoinHandle<Result<Parsed, SourceError>>>,
) -> Result<String, ReadFailure> {
    let (opened, hash) = local_copy(file, fetched)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|error| broken(&error))?;
    let columns = column_types(builder.schema()).map_err(ReadFailure::Broken)?;
    let layout = layout(builder.schema(), &columns, targets).map_err(ReadFailure::Broken)?;
    let roots = layout.source_of.iter().flatten().copied();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let total = builder.metadata().file_metadata().num_rows().max(1) as u128;
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build().map_err(|error| broken(&error))?;
    let conversion = Arc::new(Conversion { path: file.path.clone(), targets: Arc::clone(targets), columns, layout });
    let (mut rows, mut told) = (0_u64, 0_u64);
    let runtime = Handle::current();
    for batch in reader {
        let batch = batch.map_err(|error| broken(&error))?;
        let first_row = rows + 1;
        rows += batch.num_rows() as u64;
        // The share of the rows that are read is the share of the bytes, for the eye.
        let reached = u64::try_from(u128::from(file.size) * u128::from(rows) / total).unwrap_or(file.size);
        let stored = reached.min(file.size) - told;
        told += stored;
        let conversion = Arc::clone(&conversion);
        let result = runtime.spawn_blocking(move || conversion.convert(&batch, first_row, stored));
        if sender.blocking_send(result).is_err() {
            break;
        }
    }
    check_unchanged(file)?;
    Ok(hash)
}

/// The file as a local one that can be read at any place, and the hash of its bytes. An object is copied to the
/// system's temporary folder first: Parquet is read from its end, and bytes are hashed from their beginning.
fn local_copy(file: &ListedFile, fetched: Fetched) -> Result<(File, String), ReadFailure> {
    let io = |error| io_failure(&file.path, error);
    match fetched {
        Fetched::Local(path) => {
            let mut opened = File::open(path).map_err(io)?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&mut opened).map_err(io)?;
            opened.rewind().map_err(io)?;
            Ok((opened, hasher.finalize().to_hex().to_string()))
        }
        stream => {
            let (mut stored, meter) = stream.open(&file.path)?;
            let mut copy = tempfile::tempfile().map_err(io)?;
            io::copy(&mut (&mut stored as &mut dyn Read), &mut copy).map_err(io)?;
            copy.rewind().map_err(io)?;
            Ok((copy, meter.hash()))
        }
    }
}

/// Which columns feed the targets; a column whose type cannot be meant refuses the file.
fn layout(schema: &Schema, columns: &[(String, ColumnType)], targets: &Targets) -> Result<Layout, String> {
    let header: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let layout = targets.layout(&header)?;
    for (target, source) in targets.columns.iter().zip(&layout.source_of) {
        let Some(source) = *source else { continue };
        let (name, kind) = &columns[source];
        // A declared type is meant: text is read as it says, and whatever has a text becomes one.
        let is_read = match &target.kind {
            ColumnType::String => can_cast_types(schema.field(source).data_type(), &DataType::Utf8),
            wanted => *kind == ColumnType::String && !is_nested(wanted),
        };
        if admit(&target.kind, kind).is_none() && !(targets.is_declared && is_read) {
            return Err(format!(
                "column `{name}` is {} in the table and {kind} in this file, which does not fit",
                target.kind
            ));
        }
    }
    Ok(layout)
}

fn is_nested(kind: &ColumnType) -> bool {
    matches!(kind, ColumnType::Struct(_) | ColumnType::Array(_) | ColumnType::Map(..))
}

/// What turns a file's batches into a table's.
struct Conversion {
    path: String,
    targets: Arc<Targets>,
    columns: Vec<(String, ColumnType)>,
    layout: Layout,
}

impl Conversion {
    fn convert(&self, batch: &RecordBatch, first_row: u64, stored: u64) -> Result<Parsed, SourceError> {
        let rows = batch.num_rows();
        let mut failures = Failures::default();
        let mut arrays = Vec::with_capacity(self.targets.columns.len());
        for (target, source) in self.targets.columns.iter().zip(&self.layout.source_of) {
            let found = source.and_then(|source| batch.column_by_name(&self.columns[source].0));
            let Some(array) = found else {
                arrays.push(nulls(&target.kind, rows));
                continue;
            };
            let place = Column { path: &target.name, formats: &target.formats, rows: None };
            arrays.push(conform(array, &target.kind, &place, &mut failures).map_err(mistake)?);
        }
        let (batch_out, rejects) = finish(&self.targets, arrays, rows, failures, |row| Reject {
            file: self.path.clone(),
            line: Some(first_row + row as u64),
            column: None,
            reason: String::new(),
            raw: raw_row(batch, row),
        })?;
        Ok(Parsed { rows: (rows > 0).then_some(batch_out), rejects, stored })
    }
}

/// A row as text, for the rejects.
fn raw_row(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let schema = batch.schema();
    let values = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let value = ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string());
        format!("{}={}", field.name(), value.unwrap_or_default())
    });
    Reject::clip_raw(values.collect::<Vec<_>>().join(", ").as_bytes())
}

/// Where an array stands: its name, and for values within lists the rows they belong to.
struct Column<'a> {
    path: &'a str,
    formats: &'a [TimeFormat],
    rows: Option<&'a [usize]>,
}

impl Column<'_> {
    fn row(&self, index: usize) -> usize {
        self.rows.map_or(index, |rows| rows[index])
    }
}

/// Turns an array into a column type. Values that the type cannot hold exactly fail their rows.
fn conform(
    array: &ArrayRef,
    kind: &ColumnType,
    column: &Column<'_>,
    failures: &mut Failures,
) -> Result<ArrayRef, ArrowError> {
    let wanted = kind.to_arrow();
    if *array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), kind) {
        (DataType::Dictionary(_, value), _) => conform(&cast(array, value)?, kind, column, failures),
        (DataType::Struct(_), ColumnType::Struct(fields)) => conform_struct(array, kind, fields, column, failures),
        (DataType::List(_), ColumnType::Array(item)) => {
            let list = array.as_list::<i32>();
            let rows = item_rows(list.offsets(), column);
            let start = list.offsets()[0] as usize;
            let used = list.values().slice(start, rows.len());
            let path = format!("{}[]", column.path);
            let items = conform(&used, item, &Column { path: &path, formats: &[], rows: Some(&rows) }, failures)?;
            let DataType::List(field) = wanted else { return cast(array, &wanted) };
            let offsets = rebase(list.offsets());
            Ok(Arc::new(ListArray::try_new(field, offsets, items, list.nulls().cloned())?))
        }
        (
            DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item),
            ColumnType::Array(_),
        ) => conform(&cast(array, &DataType::List(Arc::clone(item)))?, kind, column, failures),
        (DataType::Map(..), ColumnType::Map(key, value)) => conform_map(array, kind, (key, value), column, failures),
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, kind) if *kind != ColumnType::String => {
            let texts = cast(array, &DataType::Utf8)?;
            let texts: &StringArray = texts.as_string();
            let texts: Vec<_> = texts.iter().map(|text| text.map(std::borrow::Cow::Borrowed)).collect();
            let rows: Vec<usize> = (0..texts.len()).map(|index| column.row(index)).collect();
            Ok(build(kind, column.formats, &Plain { texts: &texts, rows: &rows }, column.path, failures))
        }
        _ => exact_cast(array, &wanted, column, failures),
    }
}

fn conform_struct(
    array: &ArrayRef,
    kind: &ColumnType,
    fields: &[(String, ColumnType)],
    column: &Column<'_>,
    failures: &mut Failures,
) -> Result<ArrayRef, ArrowError> {
    let source = array.as_struct();
    let mut children = Vec::with_capacity(fields.len());
    for (name, child) in fields {
        let is_it = |field: &Arc<Field>| names::fold(field.name()) == names::fold(name);
        let path = format!("{}.{name}", column.path);
        children.push(match source.fields().iter().position(is_it) {
            Some(place) => {
                // A value below a NULL struct means nothing and must not fail the row.
                let below = if source.null_count() > 0 {
                    nullif(source.column(place), &is_null(source)?)?
                } else {
                    Arc::clone(source.column(place))
                };
                conform(&below, child, &Column { path: &path, formats: &[], rows: column.rows }, failures)?
            }
            None => nulls(child, source.len()),
        });
    }
    let DataType::Struct(arrow_fields) = kind.to_arrow() else { return cast(array, &kind.to_arrow()) };
    let made = StructArray::try_new_with_length(arrow_fields, children, source.nulls().cloned(), source.len())?;
    Ok(Arc::new(made))
}

fn conform_map(
    array: &ArrayRef,
    kind: &ColumnType,
    (key, value): (&ColumnType, &ColumnType),
    column: &Column<'_>,
    failures: &mut Failures,
) -> Result<ArrayRef, ArrowError> {
    let map = array.as_map();
    let rows = item_rows(map.offsets(), column);
    let start = map.offsets()[0] as usize;
    let path = format!("{}[]", column.path);
    let below = Column { path: &path, formats: &[], rows: Some(&rows) };
    let keys = conform(&map.keys().slice(start, rows.len()), key, &below, failures)?;
    let values = conform(&map.values().slice(start, rows.len()), value, &below, failures)?;
    let DataType::Map(entries, sorted) = kind.to_arrow() else { return cast(array, &kind.to_arrow()) };
    let DataType::Struct(entry_fields) = entries.data_type() else { return cast(array, &kind.to_arrow()) };
    let made = StructArray::try_new_with_length(entry_fields.clone(), vec![keys, values], None, rows.len())?;
    let offsets = rebase(map.offsets());
    Ok(Arc::new(MapArray::try_new(Arc::clone(&entries), offsets, made, map.nulls().cloned(), sorted)?))
}

type Offsets = arrow::buffer::OffsetBuffer<i32>;

/// The row of each item between the first offset and the last.
fn item_rows(offsets: &Offsets, column: &Column<'_>) -> Vec<usize> {
    let rows = offsets.lengths().enumerate();
    rows.flat_map(|(index, length)| std::iter::repeat_n(column.row(index), length)).collect()
}

fn rebase(offsets: &Offsets) -> Offsets {
    Offsets::from_lengths(offsets.lengths())
}

/// Casts plain values; those that come out NULL or, between exact types, as another number fail their rows.
fn exact_cast(
    array: &ArrayRef,
    wanted: &DataType,
    column: &Column<'_>,
    failures: &mut Failures,
) -> Result<ArrayRef, ArrowError> {
    let out = cast(array, wanted)?;
    let mut fail = |index: usize| {
        let options = FormatOptions::default();
        let value = ArrayFormatter::try_new(array, &options).map(|formatter| formatter.value(index).to_string());
        let reason = format!("`{}` does not fit {wanted} exactly", value.unwrap_or_default());
        failures.add(column.row(index), column.path, reason);
    };
    if out.null_count() > array.logical_null_count() {
        (0..out.len()).filter(|index| out.is_null(*index) && array.is_valid(*index)).for_each(&mut fail);
    }
    let from = array.data_type();
    if *wanted == DataType::Float32 && *from == DataType::Float64 {
        let (narrow, wide): (&Float32Array, _) =
            (out.as_primitive::<Float32Type>(), array.as_primitive::<Float64Type>());
        let overflowed = |index: &usize| narrow.value(*index).is_infinite() && wide.value(*index).is_finite();
        (0..out.len()).filter(overflowed).for_each(&mut fail);
    } else if from.is_numeric() && wanted.is_numeric() && !wanted.is_floating() && from != wanted {
        let back = cast(&out, from)?;
        if let Ok(same) = not_distinct(&back, array) {
            (0..out.len()).filter(|index| out.is_valid(*index) && !same.value(*index)).for_each(&mut fail);
        }
    }
    Ok(out)
}

fn cast(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, wanted, &CastOptions { safe: true, ..CastOptions::default() })
}
