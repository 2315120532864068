//! The rows of a change, planned and run as those of any query.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::Query;
use futures::StreamExt;

use crate::error::ErrorKind;
use crate::query::change::plan::Given;
use crate::query::change::run::Run;
use crate::query::embedded::analyze;
use crate::query::embedded_plan::EmbeddedPlan;
use crate::query::statement::Understood;
use crate::query::{QueryError, Statement, TablePins, Unpacked, identity, parameters};

/// Rows on their way, with the columns the plan names them by.
pub(crate) struct Rows {
    /// The columns.
    pub(crate) schema: SchemaRef,
    stream: SendableRecordBatchStream,
}

impl Run {
    /// Plans a query at the newest versions of its tables and begins to run it.
    ///
    /// # Errors
    /// As planning and running any query.
    pub(crate) async fn rows(
        &self,
        query: &Query,
        values: Vec<ScalarValue>,
        given: &Given,
    ) -> Result<Rows, QueryError> {
        let understood = Understood::of_query(query.clone(), self.literals, values.len());
        let engine = &self.engine;
        let mut state = engine.sessions.state(&self.options)?.as_ref().clone();
        identity::register(&mut state, self.access.principal())?;
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = Some(self.now);
        let mut statement = Statement {
            sql: String::new(),
            parameters: self.fitted(values),
            pins: TablePins::new(),
            options: self.options.clone(),
        };
        let (logical, _, _) = engine.logical_plan(&mut state, understood, &mut statement, &self.access, given).await?;
        // The types are final only then: a CASE has its first branch's until it is analyzed.
        let analyzed = analyze(&state, &logical, &[])?;
        let schema = Arc::new(analyzed.as_ref().unwrap_or(&logical).schema().as_arrow().clone());
        let plan: Arc<dyn std::any::Any + Send + Sync> = Arc::new(EmbeddedPlan::of(logical, state));
        let stream = engine.run(&plan, &self.memory, self.deadline, self.limit).await?;
        Ok(Rows { schema, stream })
    }

    /// Values in the types of the columns they are for, where that loses nothing.
    fn fitted(&self, values: Vec<ScalarValue>) -> Vec<ScalarValue> {
        let fields: &[FieldRef] = &self.parameters;
        values.into_iter().zip(fields).map(|(value, field)| parameters::fit(&value, field.data_type())).collect()
    }

    /// The next rows.
    ///
    /// # Errors
    /// What made the query fail, or that somebody stopped it.
    pub(crate) async fn next(&self, rows: &mut Rows) -> Result<Option<RecordBatch>, QueryError> {
        let next = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(self.stopped()),
            next = rows.stream.next() => next,
        };
        next.transpose().map_err(QueryError::from)
    }
}

/// Bytes that bound values take in plans of their own, where runs and dictionaries stand for all they name.
pub(crate) fn bytes_of(batches: &[RecordBatch]) -> usize {
    let mut unpacked = Unpacked::up_to(usize::MAX);
    let columns = batches.iter().flat_map(RecordBatch::columns);
    let counted = columns.clone().try_for_each(|column| unpacked.count(column, column.data_type()));
    let packed = columns.map(|column| column.get_array_memory_size()).sum();
    counted.map_or(usize::MAX, |()| unpacked.bytes().max(packed))
}

/// The values of each row of parameters, or that one cannot be read.
pub(crate) fn value_rows(batches: &[RecordBatch]) -> impl Iterator<Item = Result<Vec<ScalarValue>, QueryError>> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| value_row(batch, row)))
}

fn value_row(batch: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>, QueryError> {
    let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row).map(plain));
    Ok(values.collect::<Result<Vec<_>, _>>()?)
}

/// The value itself: one client wraps each in a union of the types it knows, and dictionaries are a way to send values.
fn plain(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, inner)), ..) | ScalarValue::Dictionary(_, inner) => plain(*inner),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        other => other,
    }
}

/// One row of values.
///
/// # Errors
/// When a value cannot stand in a column.
pub(crate) fn one_row(values: &[ScalarValue]) -> Result<RecordBatch, QueryError> {
    let columns = values.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>, _>>()?;
    batch(columns, 1)
}

/// Batches of bound values as one table, its columns called `$1`, `$2`, …
///
/// # Errors
/// When the batches have different columns, or one column values of several types.
pub(crate) fn bound_table(batches: &[RecordBatch]) -> Result<Arc<dyn TableProvider>, QueryError> {
    let named = batches.iter().map(|bound| {
        let columns = bound.columns().iter().map(|column| match column.data_type() {
            DataType::Union(..) => {
                let values = (0..column.len()).map(|row| ScalarValue::try_from_array(column, row).map(plain));
                let values = values.collect::<Result<Vec<_>, _>>()?;
                let kind = values.iter().map(ScalarValue::data_type).find(|kind| *kind != DataType::Null);
                let kind = kind.unwrap_or(DataType::Null);
                let typed = values
                    .into_iter()
                    .map(|value| if value.is_null() { ScalarValue::try_from(&kind) } else { Ok(value) });
                ScalarValue::iter_to_array(typed.collect::<Result<Vec<_>, _>>()?)
            }
            _ => Ok(Arc::clone(column)),
        });
        batch(columns.collect::<Result<Vec<_>, _>>()?, bound.num_rows())
    });
    let named = named.collect::<Result<Vec<_>, QueryError>>()?;
    let Some(first) = named.first() else {
        return Err(QueryError::new(ErrorKind::Internal, "there are no bound values"));
    };
    Ok(Arc::new(MemTable::try_new(first.schema(), vec![named])?))
}

fn batch(columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, QueryError> {
    let fields = columns.iter().zip(1..);
    let fields = fields
        .map(|(column, number): (&ArrayRef, usize)| Field::new(format!("${number}"), column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options).map_err(DataFusionError::from)?)
}
