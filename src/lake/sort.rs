//! Sorting and merging rows in bounded memory: what does not fit the pool goes to disk.

mod folded;
mod sorted_by;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::config::SpillCompression;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
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
use futures::stream;

use crate::lake::sort::folded::Folded;
use crate::model::KeyFolding;

pub(super) use folded::fold;
pub(super) use sorted_by::{Noted, SortedBy};

/// Rows of a batch that comes out of a sort or a merge.
const BATCH_ROWS: usize = 8192;

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

/// What sorting runs in.
pub(super) fn task_context(environment: &Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let mut config = SessionConfig::new().with_batch_size(BATCH_ROWS);
    config.options_mut().execution.spill_compression = SpillCompression::Lz4Frame;
    Arc::new(TaskContext::default().with_session_config(config).with_runtime(Arc::clone(environment)))
}

/// The rows of `input` sorted by `order`.
///
/// # Errors
/// When the sort cannot be planned; the stream fails when memory and disk are used up.
pub(super) fn sort(
    environment: &Arc<RuntimeEnv>,
    order: &KeyOrder,
    input: SendableRecordBatchStream,
) -> Result<SendableRecordBatchStream> {
    let schema = input.schema();
    let once = Arc::new(Once { schema: Arc::clone(&schema), stream: Mutex::new(Some(input)) });
    let source = StreamingTableExec::try_new(schema, vec![once], None, [], false, None)?;
    SortExec::new(order.ordering.clone(), Arc::new(source)).execute(0, task_context(environment))
}

/// The rows of streams that are each sorted by `order`, sorted; of equal rows those of the earlier stream come first.
///
/// # Errors
/// When the merge cannot be planned; the stream fails when memory is used up.
pub(super) fn merge(
    environment: &Arc<RuntimeEnv>,
    order: &KeyOrder,
    schema: &SchemaRef,
    mut streams: Vec<SendableRecordBatchStream>,
) -> Result<SendableRecordBatchStream> {
    if streams.len() < 2 {
        let empty = || adapt(schema, stream::empty());
        return Ok(streams.pop().unwrap_or_else(empty));
    }
    let reservation = MemoryConsumer::new("merge of data files").register(&environment.memory_pool);
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(schema))
        .with_expressions(&order.ordering)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(BATCH_ROWS)
        .with_reservation(reservation)
        .with_round_robin_tie_breaker(false)
        .build()
}

/// A stream with its schema.
pub(super) fn adapt<S>(schema: &SchemaRef, stream: S) -> SendableRecordBatchStream
where
    S: stream::Stream<Item = Result<arrow::array::RecordBatch>> + Send + 'static,
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
