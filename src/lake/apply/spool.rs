//! Changes on disk, sorted by key, one per key.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};
use futures::StreamExt;

use crate::lake::LakeError;
use crate::lake::apply::locate::Locator;
use crate::lake::apply::neighbours::Neighbours;
use crate::lake::sort::{KeyOrder, adapt, sort};
use crate::model::TableName;

/// Sorted changes on disk; the file goes when this does.
pub(super) struct Spool {
    file: Arc<dyn SpillFile>,
    schema: SchemaRef,
    rows: u64,
    bytes: u64,
}

/// Sorts changes, keeps the last one of each key, and finds on the way which files they meet.
pub(super) async fn fill(
    (table, environment, order): (TableName, Arc<RuntimeEnv>, KeyOrder),
    changes: SendableRecordBatchStream,
    mut locator: Locator,
) -> Result<(Spool, Locator), LakeError> {
    let failed = |cause: DataFusionError| LakeError::rows(format!("cannot sort the changes of table {table}"), cause);
    let schema = changes.schema();
    let mut columns = order.columns().to_vec();
    columns.push(schema.fields().len() - 2);
    let by_age = KeyOrder::new(&schema, columns, order.folding()).unwrap_or_else(|| order.clone());
    let mut sorted = sort(&environment, &by_age, changes);
    let mut writer = Writer::create(&environment, schema).map_err(failed)?;
    let mut neighbours = Neighbours::new(&order);
    while let Some(batch) = sorted.next().await {
        let batch = batch.map_err(failed)?;
        let newest = keep_first(&mut neighbours, &batch).map_err(|cause| failed(cause.into()))?;
        if newest.num_rows() > 0 {
            locator.see(&newest).map_err(|cause| failed(cause.into()))?;
            writer.write(&newest).map_err(|cause| failed(cause.into()))?;
        }
        tokio::task::consume_budget().await;
    }
    Ok((writer.finish().map_err(|cause| failed(cause.into()))?, locator))
}

fn keep_first(neighbours: &mut Neighbours, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let same = neighbours.same_as_before(batch)?;
    filter_record_batch(batch, &BooleanArray::new(!&same, None))
}

/// A spool being written.
struct Writer {
    file: Arc<dyn SpillFile>,
    stream: StreamWriter<BufWriter<Box<dyn SpillWriter>>>,
    schema: SchemaRef,
    rows: u64,
}

impl Writer {
    fn create(environment: &RuntimeEnv, schema: SchemaRef) -> Result<Self, DataFusionError> {
        let file = environment.disk_manager.create_tmp_file("changes by key")?;
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let stream = StreamWriter::try_new_with_options(BufWriter::new(file.open_writer()?), &schema, options)?;
        Ok(Self { file, stream, schema, rows: 0 })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let removes = removes(batch);
        self.rows += (batch.num_rows() - removes.true_count()) as u64;
        self.stream.write(batch)
    }

    fn finish(mut self) -> Result<Spool, ArrowError> {
        self.stream.finish()?;
        let mut written = self.stream.into_inner()?.into_inner().map_err(|cause| cause.into_error())?;
        written.finish().map_err(|cause| ArrowError::ExternalError(cause.into()))?;
        drop(written);
        let bytes = std::fs::metadata(path(self.file.as_ref())?)?.len();
        Ok(Spool { file: self.file, schema: self.schema, rows: self.rows, bytes })
    }
}

impl Spool {
    /// Rows to put into the table, removals not counted.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes on disk, compressed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The columns of changes.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The changes, all of them.
    pub(super) fn stream(self) -> Result<SendableRecordBatchStream, ArrowError> {
        let reader = StreamReader::try_new_buffered(File::open(path(self.file.as_ref())?)?, None)?;
        let schema = Arc::clone(&self.schema);
        let batches = futures::stream::unfold((reader, self), |(mut reader, spool)| async move {
            let next = reader.next()?;
            Some((next.map_err(DataFusionError::from), (reader, spool)))
        });
        Ok(adapt(&schema, batches))
    }

    /// Reads the changes, which are sorted by `order`, from the first key on.
    pub(super) fn open(self, order: &KeyOrder) -> Result<Cursor, ArrowError> {
        let reader = StreamReader::try_new_buffered(File::open(path(self.file.as_ref())?)?, None)?;
        let first_key = order.columns().first().copied().unwrap_or(0);
        let kind = self.schema.field(first_key).data_type().clone();
        let converter = RowConverter::new(vec![SortField::new(kind)])?;
        Ok(Cursor { reader, left: None, converter, order: order.clone(), _spool: self })
    }
}

fn path(file: &dyn SpillFile) -> std::io::Result<&Path> {
    file.path().ok_or_else(|| std::io::Error::other("spilled data is not in files here"))
}

/// Whether each change removes its key.
pub(super) fn removes(batch: &RecordBatch) -> &BooleanArray {
    batch.column(batch.num_columns() - 1).as_boolean()
}

/// Reads changes run by run.
pub(super) struct Cursor {
    reader: StreamReader<BufReader<File>>,
    left: Option<RecordBatch>,
    converter: RowConverter,
    order: KeyOrder,
    _spool: Spool,
}

impl Cursor {
    /// The next changes whose first key column is at most `upto`; none when there are no more of them.
    pub(super) fn next(&mut self, upto: Option<&OwnedRow>) -> Result<Option<RecordBatch>, ArrowError> {
        let Some(batch) = self.left.take().map(Ok).or_else(|| self.reader.next()).transpose()? else { return Ok(None) };
        let Some(upto) = upto else { return Ok(Some(batch)) };
        let keys = self.converter.convert_columns(&[self.order.first_key(&batch)?])?;
        let within = locate_end(keys.num_rows(), |row| keys.row(row) <= upto.row());
        if within < batch.num_rows() {
            self.left = Some(batch.slice(within, batch.num_rows() - within));
        }
        Ok((within > 0).then(|| batch.slice(0, within)))
    }
}

/// How many of the first rows satisfy a condition that holds for a first part only.
pub(super) fn locate_end(rows: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
