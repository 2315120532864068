//! That no key stands in a table twice: new rows are compared with each other and with those that stay.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use futures::StreamExt;

use crate::error::ErrorKind;
use crate::lake::{Attempt, Staged};
use crate::model::TableName;
use crate::query::QueryError;
use crate::query::change::run::{Run, told};
use crate::query::embedded_plan::EmbeddedPlan;

/// New rows from which they are compared by sorting, which can spill: a table of keys to look up would not.
const MANY_ROWS: u64 = 500_000;

/// Checks the keys of the staged data files that `is_new` picks.
///
/// # Errors
/// `AlreadyExists` that names table and key, never a value.
pub(crate) async fn check_unique(
    run: &Run,
    attempt: &Attempt,
    staged: &Staged,
    (schema, key): (&SchemaRef, &[String]),
    is_new: impl Fn(&str) -> bool,
    table: &TableName,
) -> Result<(), QueryError> {
    if key.is_empty() {
        return Ok(());
    }
    let mut state = run.engine.sessions.state(&run.options)?.as_ref().clone();
    state.config_mut().options_mut().optimizer.prefer_hash_join = staged.rows_written < MANY_ROWS;
    let new = attempt.staged_rows(staged, schema, &is_new).map_err(told)?;
    let fresh = || scan("new", &new, key);
    let names: Vec<Expr> = key.iter().map(|column| qualified("new", column)).collect();
    let twice = fresh()?.aggregate(names, vec![count(lit(1_i64)).alias("times")])?;
    let twice = twice.filter(col("times").gt(lit(1_i64)))?.limit(0, Some(1))?.build()?;
    if any(run, &state, twice).await?.is_some() {
        return Err(taken(table, key, "the new rows have the same key"));
    }
    let Some(first) = key.first() else { return Ok(()) };
    let bounds = fresh()?.aggregate(
        Vec::<Expr>::new(),
        vec![min(qualified("new", first)).alias("least"), max(qualified("new", first)).alias("greatest")],
    )?;
    let Some(bounds) = any(run, &state, bounds.build()?).await? else { return Ok(()) };
    let bound = |at: usize| ScalarValue::try_from_array(bounds.column(at), 0);
    let (least, greatest) = (bound(0)?, bound(1)?);
    if least.is_null() {
        return Ok(());
    }
    let rewritten = attempt.staged_rows(staged, schema, |name| !is_new(name)).map_err(told)?;
    for others in attempt.remaining_rows(staged).into_iter().chain([rewritten]) {
        let near = qualified("old", first);
        let old = scan("old", &others, key)?
            .filter(near.clone().gt_eq(lit(least.clone())).and(near.lt_eq(lit(greatest.clone()))))?
            .build()?;
        let columns = |table: &str| -> Vec<Column> {
            key.iter().map(|column| Column::new(Some(TableReference::bare(table)), column)).collect()
        };
        let met = fresh()?.join(old, JoinType::LeftSemi, (columns("new"), columns("old")), None)?;
        if any(run, &state, met.limit(0, Some(1))?.build()?).await?.is_some() {
            return Err(taken(table, key, "a row with the same key is there"));
        }
    }
    Ok(())
}

fn taken(table: &TableName, key: &[String], why: &str) -> QueryError {
    let key = key.join(", ");
    QueryError::new(
        ErrorKind::AlreadyExists,
        format!("{table} holds each key ({key}) once, and {why}; nothing was changed"),
    )
}

fn qualified(table: &str, column: &str) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(table)), column))
}

fn scan(name: &str, provider: &Arc<dyn TableProvider>, key: &[String]) -> Result<LogicalPlanBuilder, QueryError> {
    let schema = provider.schema();
    let places = key.iter().map(|column| schema.index_of(column)).collect::<Result<Vec<_>, _>>();
    let places = places.map_err(datafusion::error::DataFusionError::from)?;
    let source = provider_as_source(Arc::clone(provider));
    Ok(LogicalPlanBuilder::scan(TableReference::bare(name), source, Some(places))?)
}

/// The first rows of a plan, if it has any.
async fn any(run: &Run, state: &SessionState, logical: LogicalPlan) -> Result<Option<RecordBatch>, QueryError> {
    let plan: Arc<dyn std::any::Any + Send + Sync> = Arc::new(EmbeddedPlan::of(logical, state.clone()));
    let mut rows = run.engine.run(&plan, &run.memory, run.deadline, run.limit).await?;
    while let Some(batch) = tokio::select! {
        biased;
        () = run.stop.cancelled() => return Err(run.stopped()),
        batch = rows.next() => batch,
    } {
        let batch = batch?;
        if batch.num_rows() > 0 {
            return Ok(Some(batch));
        }
    }
    Ok(None)
}
