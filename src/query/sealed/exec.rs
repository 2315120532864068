//! The leaf of a plan below which rows and values are kept back.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::filter_pushdown::{ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::StreamExt;

use crate::model::TableName;
use crate::query::sealed::withheld;

/// Runs a plan and tells nothing of it but its columns and how many rows came out.
///
/// It shows no children, so that no rule looks or reaches below: no filter that comes up while a plan runs, no limit, no
/// order and no statistic passes.
pub(super) struct SealedExec {
    table: TableName,
    inner: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl SealedExec {
    /// Seals a plan whose columns are in the order of `schema`.
    pub(super) fn new(table: TableName, schema: SchemaRef, inner: Arc<dyn ExecutionPlan>) -> Self {
        let below = inner.properties();
        // What is known of order and of constants below may come from a row filter.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(inner.output_partitioning().partition_count()),
            below.emission_type,
            below.boundedness,
        )
        .with_evaluation_type(below.evaluation_type)
        .with_scheduling_type(below.scheduling_type);
        Self { table, inner, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl fmt::Debug for SealedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedExec({})", self.table)
    }
}

impl DisplayAs for SealedExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        match kind {
            DisplayFormatType::TreeRender => write!(f, "table={}", self.table),
            _ => write!(f, "SealedExec: table={}, columns=[{}]", self.table, columns.join(", ")),
        }
    }
}

impl ExecutionPlan for SealedExec {
    fn name(&self) -> &'static str {
        "SealedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// A recursive query runs its plan several times.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = reset_plan_states(Arc::clone(&self.inner))?;
        Ok(Arc::new(Self::new(self.table.clone(), self.schema(), inner)))
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        filters: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::all_unsupported(filters))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let table = self.table.clone();
        let hide = move |error| DataFusionError::from(withheld(&table, error));
        let rows = self.inner.execute(partition, context).map_err(&hide)?;
        let (schema, out) = (self.schema(), MetricBuilder::new(&self.metrics).output_rows(partition));
        let seen = Arc::clone(&schema);
        let batches = rows.map(move |batch| {
            let batch = batch.map_err(&hide)?;
            out.add(batch.num_rows());
            as_seen(&batch, &seen)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// Rows that came out, and nothing that was counted or measured below.
    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// A batch under the columns that were told: those below know more of them, such as that they are never empty.
fn as_seen(batch: &RecordBatch, seen: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(seen), batch.columns().to_vec(), &options)?)
}
