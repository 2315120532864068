//! The rows of a pinned version with their places, for statements that change some of them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt, stream};

use crate::lake::Snapshot;
use crate::lake::scan::leaf::balance;
use crate::lake::scan::{Leaf, read, register};
use crate::lake::snapshot::Pinned;

/// The column that says in which data file a row stands: its place in the log of the version.
pub const FILE_COLUMN: &str = "__lakegate_file";

/// The column that says where in its data file a row stands, from 0.
pub const ROW_COLUMN: &str = "__lakegate_row";

impl Snapshot {
    /// The rows with two columns more, [`FILE_COLUMN`] and [`ROW_COLUMN`], which [`crate::lake::Attempt::edit`] takes.
    pub fn numbered(&self) -> Arc<dyn TableProvider> {
        let mut fields = self.pinned().schema.fields().to_vec();
        for name in [FILE_COLUMN, ROW_COLUMN] {
            fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
        }
        Arc::new(NumberedScan { pinned: Arc::clone(self.pinned()), schema: Arc::new(Schema::new(fields)) })
    }
}

#[derive(Debug)]
struct NumberedScan {
    pinned: Arc<Pinned>,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for NumberedScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf = Leaf::new(&self.pinned, state);
        let own = |filter: &&Expr| {
            let named = filter.column_refs();
            named.iter().all(|column| self.pinned.schema.field_with_name(&column.name).is_ok())
        };
        let filters: Vec<Expr> = filters.iter().filter(own).cloned().collect();
        let kept = leaf.prune(leaf.predicate(&filters)?.as_ref())?;
        let every: Vec<usize> = (0..self.schema.fields().len()).collect();
        let schema = Arc::new(self.schema.project(projection.unwrap_or(&every))?);
        if kept.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        register(&self.pinned.place, state);
        let groups = balance(&kept, self.pinned.files(), state.config().target_partitions());
        // In the order of places, so that nobody has to sort wide rows for it.
        let partition = |mut places: Vec<usize>| {
            places.sort_unstable();
            let (pinned, schema) = (Arc::clone(&self.pinned), Arc::clone(&schema));
            Arc::new(Files { pinned, schema, environment: Arc::clone(state.runtime_env()), places })
                as Arc<dyn PartitionStream>
        };
        let partitions = groups.into_iter().map(partition).collect();
        let ordering = by_place(&schema);
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, ordering, false, None)?))
    }

    /// Files are left out by their bounds only; every filter is applied again above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// The order rows come in, where their places are among the columns.
fn by_place(schema: &Schema) -> Option<LexOrdering> {
    let options = SortOptions { descending: false, nulls_first: false };
    let sorted = |name: &str| {
        let column = Column::new(name, schema.index_of(name).ok()?);
        Some(PhysicalSortExpr::new(Arc::new(column), options))
    };
    LexOrdering::new([sorted(FILE_COLUMN)?, sorted(ROW_COLUMN)?])
}

/// Files that are read one after the other, whole and in the order of their rows.
#[derive(Debug)]
struct Files {
    pinned: Arc<Pinned>,
    environment: Arc<RuntimeEnv>,
    places: Vec<usize>,
    /// The columns that are asked for.
    schema: SchemaRef,
}

impl PartitionStream for Files {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (pinned, environment) = (Arc::clone(&self.pinned), Arc::clone(&self.environment));
        let (schema, given) = (Arc::clone(&self.schema), Arc::clone(&self.schema));
        let files = stream::iter(self.places.clone()).map(move |place| {
            let rows = read(&pinned, &environment, &[place], &schema)?;
            let mut first = 0;
            let schema = Arc::clone(&schema);
            Ok::<_, DataFusionError>(rows.map(move |rows| number(&rows?, place, &mut first, &schema)))
        });
        Box::pin(RecordBatchStreamAdapter::new(given, files.try_flatten()))
    }
}

/// The rows in the columns `schema`, with the places those of them ask for that say them.
fn number(rows: &RecordBatch, place: usize, first: &mut i64, schema: &SchemaRef) -> Result<RecordBatch> {
    let count = i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
    let begin = *first;
    *first += count;
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        Ok(match field.name().as_str() {
            FILE_COLUMN => Arc::new(Int64Array::from_value(i64::try_from(place).unwrap_or(i64::MAX), rows.num_rows())),
            ROW_COLUMN => Arc::new(Int64Array::from_iter_values(begin..begin + count)),
            name => Arc::clone(rows.column(rows.schema_ref().index_of(name)?)),
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The rows of a version but for those of some files.
impl Snapshot {
    /// The rows of the data files that are not at these places in the log.
    pub(crate) fn without(&self, left_out: HashSet<usize>) -> Arc<dyn TableProvider> {
        Arc::new(super::PlainScan {
            pinned: Arc::clone(self.pinned()),
            statistics: super::FileStatistics::default(),
            left_out,
        })
    }
}
