//! Sorting and merging rows in bounded memory: what does not fit the pool goes to disk.

mod folded;
mod sorted_by;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::config::SpillCompression;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt, stream};

use crate::lake::sort::folded::Folded;
use crate::model::KeyFolding;

pub(super) use folded::fold;
pub(super) use sorted_by::{Noted, SortedBy};

/// Rows of a batch that comes out of a sort or a merge, where these are not more than [`BATCH_BYTES`].
const BATCH_ROWS: usize = 8192;
/// Most bytes of such a batch: each stream of a merge holds one or two of them, and so does what comes out.
const BATCH_BYTES: usize = 2 << 20;
/// The part of the memory pool that such a batch may be, one of so many. A sort counts each batch twice, has to hold a few,
/// and shares the pool with whatever makes its rows.
const BATCH_PART: usize = 64;
/// Fewest bytes of such a batch: each costs something too.
const FEWEST_BATCH_BYTES: usize = 64 << 10;
/// Most bytes a sort sets aside for merging what it spilled: what the library does, too.
const MERGE_BYTES: usize = 10 << 20;
/// The part of the memory pool that this may be, one of so many: it is taken away from what is sorted.
const MERGE_PART: usize = 8;
/// Fewer rows make no batch, however wide they are: each batch costs something too.
const FEWEST_BATCH_ROWS: usize = 16;

/// In which order rows are sorted: by these columns, ascending, NULL first, each compared as its source does
/// ([`KeyFolding`]).
#[derive(Clone, Debug)]
pub(super) struct KeyOrder {
    columns: Vec<usize>,
    folding: Vec<KeyFolding>,
    ordering: LexOrdering,
}

impl KeyOrder {
    /// The order of `columns` of `schema`, compared as `folding` says, by value where that says nothing; none when
    /// there is no column.
    pub(super) fn new(schema: &Schema, columns: Vec<usize>, folding: &[KeyFolding]) -> Option<Self> {
        let folding: Vec<KeyFolding> = columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let folding = folding.get(place).copied().unwrap_or(KeyFolding::Exact);
                folded::applicable(folding, schema.field(*column).data_type())
            })
            .collect();
        let expressions = columns.iter().zip(&folding).map(|(index, folding)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(*index).name(), *index));
            let expression = match folding {
                KeyFolding::Exact => column,
                folding => Arc::new(Folded { of: column, folding: *folding }),
            };
            PhysicalSortExpr::new_default(expression)
        });
        let ordering = LexOrdering::new(expressions.collect::<Vec<_>>())?;
        Some(Self { columns, folding, ordering })
    }

    /// The key of each row, column by column, in the form keys compare by.
    ///
    /// # Errors
    /// When the folded values of one batch are more than their type can hold.
    pub(super) fn keys(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.columns.iter().zip(&self.folding).map(|(column, folding)| fold(*folding, rows.column(*column))).collect()
    }

    /// The first column of the key of each row, in the form keys compare by.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub(super) fn first_key(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let (column, folding) = self.columns.first().zip(self.folding.first()).unwrap_or((&0, &KeyFolding::Exact));
        fold(*folding, rows.column(*column))
    }

    /// The same order of rows in which the columns, which stand in `from` now, stand as in `to`.
    pub(super) fn over(&self, from: &Schema, to: &Schema) -> Option<Self> {
        let places = self.columns.iter().map(|column| to.index_of(from.field(*column).name()).ok());
        Self::new(to, places.collect::<Option<Vec<_>>>()?, &self.folding)
    }

    /// The positions of the columns.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// How each of the columns is compared.
    pub(super) fn folding(&self) -> &[KeyFolding] {
        &self.folding
    }
}

/// What sorting and reading run in.
pub(super) fn task_context(environment: &Arc<RuntimeEnv>) -> Arc<TaskContext> {
    context_of(environment, BATCH_ROWS)
}

/// A part of the memory pool, one of so many, and at most `most` bytes.
fn part_of_pool(environment: &RuntimeEnv, part: usize, most: usize) -> usize {
    match environment.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => (bytes / part).min(most),
        MemoryLimit::Infinite | MemoryLimit::Unknown => most,
    }
}

/// Bytes of a batch that is sorted or merged.
fn batch_bytes(environment: &RuntimeEnv) -> usize {
    part_of_pool(environment, BATCH_PART, BATCH_BYTES).max(FEWEST_BATCH_BYTES)
}

fn context_of(environment: &Arc<RuntimeEnv>, batch_rows: usize) -> Arc<TaskContext> {
    let mut config = SessionConfig::new().with_batch_size(batch_rows).with_sort_spill_reservation_bytes(part_of_pool(
        environment,
        MERGE_PART,
        MERGE_BYTES,
    ));
    config.options_mut().execution.spill_compression = SpillCompression::Lz4Frame;
    Arc::new(TaskContext::default().with_session_config(config).with_runtime(Arc::clone(environment)))
}

/// The rows of `input` sorted by `order`. The stream fails when memory and disk are used up.
pub(super) fn sort(
    environment: &Arc<RuntimeEnv>,
    order: &KeyOrder,
    input: SendableRecordBatchStream,
) -> SendableRecordBatchStream {
    let (environment, order, schema) = (Arc::clone(environment), order.clone(), input.schema());
    let rows_of = Arc::clone(&schema);
    let sorted = async move {
        let (mut input, batch_rows) = looked_at(vec![input], batch_bytes(&environment)).await?;
        let once = Arc::new(Once { schema: Arc::clone(&rows_of), stream: Mutex::new(input.pop()) });
        let source = StreamingTableExec::try_new(rows_of, vec![once], None, [], false, None)?;
        SortExec::new(order.ordering, Arc::new(source)).execute(0, context_of(&environment, batch_rows))
    };
    adapt(&schema, stream::once(sorted).try_flatten())
}

/// The rows of streams that are each sorted by `order`, sorted; of equal rows those of the earlier stream come first.
/// The stream fails when memory is used up.
pub(super) fn merge(
    environment: &Arc<RuntimeEnv>,
    order: &KeyOrder,
    schema: &SchemaRef,
    mut streams: Vec<SendableRecordBatchStream>,
) -> SendableRecordBatchStream {
    if streams.len() < 2 {
        let empty = || adapt(schema, stream::empty());
        return streams.pop().unwrap_or_else(empty);
    }
    let (environment, order, rows_of) = (Arc::clone(environment), order.clone(), Arc::clone(schema));
    let merged = async move {
        let (streams, batch_rows) = looked_at(streams, batch_bytes(&environment)).await?;
        let reservation = MemoryConsumer::new("merge of data files").register(&environment.memory_pool);
        StreamingMergeBuilder::new()
            .with_streams(streams)
            .with_schema(rows_of)
            .with_expressions(&order.ordering)
            .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
            .with_batch_size(batch_rows)
            .with_reservation(reservation)
            .with_round_robin_tie_breaker(false)
            .build()
    };
    adapt(schema, stream::once(merged).try_flatten())
}

/// The same streams in batches of about so many bytes, and how many of their rows such a batch has, by the first of each.
async fn looked_at(
    streams: Vec<SendableRecordBatchStream>,
    bytes: usize,
) -> Result<(Vec<SendableRecordBatchStream>, usize)> {
    let (mut all, mut widest) = (Vec::with_capacity(streams.len()), 1);
    for mut rest in streams {
        let schema = rest.schema();
        let first = rest.try_next().await?;
        if let Some(first) = first.as_ref().filter(|first| first.num_rows() > 0) {
            widest = widest.max(bytes_of(first) / first.num_rows());
        }
        let rows = stream::iter(first.map(Ok)).chain(rest);
        let cut = rows.map_ok(move |rows| stream::iter(cut(rows, bytes))).try_flatten();
        all.push(adapt(&schema, cut));
    }
    Ok((all, (bytes / widest).clamp(FEWEST_BATCH_ROWS, BATCH_ROWS)))
}

/// Cuts rows into batches of about `wanted` bytes, one after the other. Each has only its own rows in memory: a mere slice
/// would count, and keep, all of them.
fn cut(rows: RecordBatch, wanted: usize) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    let bytes = bytes_of(&rows);
    // A little more is not worth copying.
    let step = match bytes > 2 * wanted {
        true => (wanted / (bytes / rows.num_rows().max(1)).max(1)).max(1),
        false => rows.num_rows().max(1),
    };
    (0..rows.num_rows()).step_by(step).map(move |start| {
        let count = step.min(rows.num_rows() - start);
        if count == rows.num_rows() {
            return Ok(rows.clone());
        }
        let places = UInt64Array::from_iter_values((start..start + count).map(|row| row as u64));
        Ok(take_record_batch(&rows, &places)?)
    })
}

/// Bytes of the rows themselves, whatever else their buffers hold.
fn bytes_of(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|column| {
        let bytes = column.to_data().get_slice_memory_size();
        bytes.unwrap_or_else(|_| column.get_array_memory_size())
    });
    sizes.sum()
}

/// A stream with its schema.
pub(super) fn adapt<S>(schema: &SchemaRef, stream: S) -> SendableRecordBatchStream
where
    S: stream::Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), stream))
}

/// A partition that can be run once.
struct Once {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows that come once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.unwrap_or_else(|| {
            let error = DataFusionError::Internal("rows that come once were asked for twice".to_owned());
            adapt(&self.schema, stream::once(async { Err(error) }))
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    /// Rows of so many bytes of text each.
    fn rows(numbers: std::ops::Range<i64>, width: usize) -> RecordBatch {
        let texts = numbers.clone().map(|number| format!("{number:0>width$}"));
        let texts: ArrayRef = Arc::new(texts.map(Some).collect::<StringArray>());
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap()
    }

    #[test]
    fn batches_are_cut_by_bytes_without_their_neighbours() {
        let wide: Vec<_> = cut(rows(0..8192, 1600), BATCH_BYTES).map(Result::unwrap).collect();
        assert_eq!(wide.iter().map(RecordBatch::num_rows).sum::<usize>(), 8192);
        assert!(wide.len() >= 6 && wide.iter().all(|part| part.get_array_memory_size() < 2 * BATCH_BYTES));
        assert_eq!(arrow::compute::concat_batches(&wide[0].schema(), &wide).unwrap(), rows(0..8192, 1600));
        assert_eq!(cut(rows(0..8192, 50), BATCH_BYTES).count(), 1);
        // What a slice does not show is not counted.
        assert_eq!(cut(rows(0..8192, 1600).slice(10, 100), BATCH_BYTES).count(), 1);
        assert_eq!(cut(rows(0..0, 1), BATCH_BYTES).count(), 0);
    }

    #[tokio::test]
    async fn wide_rows_are_merged_and_sorted_in_a_small_pool() {
        const WIDTH: usize = 1600;
        let pool = Arc::new(FairSpillPool::new(24 << 20));
        let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let schema = rows(0..1, 1).schema();
        let order = KeyOrder::new(&schema, vec![0], &[]).unwrap();
        let part = |part: i64| {
            let schema = rows(0..1, 1).schema();
            let batches =
                (0..3).map(move |batch| Ok(rows((batch * 4 + part) * 8192..(batch * 4 + part + 1) * 8192, WIDTH)));
            adapt(&schema, stream::iter(batches))
        };
        let merged = merge(&environment, &order, &schema, (0..4).map(part).collect());
        let unsorted = adapt(&schema, stream::iter((0..4).rev().map(part)).flatten());
        let sorted = sort(&environment, &order, unsorted);
        for mut result in [merged, sorted] {
            let mut next = 0;
            while let Some(batch) = result.try_next().await.unwrap() {
                assert!(batch.num_rows() * WIDTH <= 2 * BATCH_BYTES);
                let numbers = batch.column(0).to_data();
                let numbers = Int64Array::from(numbers);
                assert!(numbers.values().iter().copied().eq(next..next + batch.num_rows() as i64));
                next += batch.num_rows() as i64;
            }
            assert_eq!(next, 12 * 8192);
        }
    }

    #[tokio::test]
    async fn a_sort_finds_room_beside_others_that_can_spill_and_spills_about_its_rows() {
        const WIDTH: usize = 200;
        const BATCHES: i64 = 32;
        // As a statement has them that makes the rows: so many others the pool is shared with, and what they hold.
        let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(24 << 20));
        let others: Vec<_> =
            (0..2).map(|_| MemoryConsumer::new("other").with_can_spill(true).register(&pool)).collect();
        let merging = MemoryConsumer::new("merge").register(&pool);
        merging.try_grow(6 << 20).unwrap();
        let raw = (BATCHES as usize * 8192 * (WIDTH + 12)) as u64;
        let disk = DiskManagerBuilder::default().with_max_temp_directory_size(2 * raw);
        let environment =
            RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build_arc().unwrap();
        let schema = rows(0..1, 1).schema();
        let order = KeyOrder::new(&schema, vec![0], &[]).unwrap();
        let batches = (0..BATCHES).rev().map(|batch| Ok(rows(batch * 8192..(batch + 1) * 8192, WIDTH)));
        let mut sorted = sort(&environment, &order, adapt(&schema, stream::iter(batches)));
        let mut next = 0;
        while let Some(batch) = sorted.try_next().await.unwrap() {
            assert!(next > 0 || environment.disk_manager.used_disk_space() > 0, "it spilled");
            let numbers = Int64Array::from(batch.column(0).to_data());
            assert!(numbers.values().iter().copied().eq(next..next + batch.num_rows() as i64));
            next += batch.num_rows() as i64;
        }
        assert_eq!(next, BATCHES * 8192);
        drop((others, merging));
    }
}
