//! Writing runs of data files anew together with their changes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::lake::apply::base::Base;
use crate::lake::apply::locate::{Plan, Run};
use crate::lake::apply::neighbours::Neighbours;
use crate::lake::apply::spool::{Cursor, Spool, removes};
use crate::lake::apply::{Applied, REMOVES};
use crate::lake::schema::Conform;
use crate::lake::sort::{KeyOrder, adapt, merge};
use crate::lake::writer::{DataFiles, encode};
use crate::lake::{LakeError, Snapshot};
use crate::model::TableName;

/// Merged batches that wait to be encoded.
const WAITING_BATCHES: usize = 4;

/// Writes the runs of a plan.
pub(super) struct Runner {
    pub(super) table: TableName,
    pub(super) environment: Arc<RuntimeEnv>,
    pub(super) base: Option<Arc<Snapshot>>,
    pub(super) order: KeyOrder,
    pub(super) key: Vec<String>,
    /// Gives rows the table's columns, none of which must have a value.
    pub(super) conform: Conform,
    pub(super) files: DataFiles,
}

impl Runner {
    /// Writes all runs, one after the other.
    pub(super) async fn apply(self, spool: Spool, plan: Plan, rows: u64) -> Result<Applied, LakeError> {
        let schema = Arc::clone(spool.schema());
        let cursor = spool.open(&self.order).map_err(|cause| self.error(cause.into()))?;
        let cursor = Arc::new(Mutex::new(cursor));
        let mut applied = Applied { adds: Vec::new(), removed: HashSet::new(), rows };
        for run in plan.runs {
            applied.removed.extend(run.files.iter().map(|file| file.place));
            applied.adds.extend(self.write(run, &cursor, &schema).await?);
        }
        Ok(applied)
    }

    /// Writes one run; its last file is complete before the next run begins, so that their keys stay apart.
    async fn write(&self, run: Run, cursor: &Arc<Mutex<Cursor>>, schema: &SchemaRef) -> Result<Vec<Add>, LakeError> {
        let marked = marked_schema(schema);
        let mut streams = vec![changes(run.upto, cursor, &marked)];
        if let Some(snapshot) = &self.base {
            let base = Base::new(Arc::clone(snapshot), Arc::clone(&self.environment), self.conform.clone());
            for rows in base.sorted(&run.files, &self.key, &self.order)? {
                streams.push(unchanged(rows, &marked));
            }
        }
        // Of equal keys the changes' stream comes first; what was there before is then left out.
        let merged = merge(&self.environment, &self.order, &marked, streams);
        let mut latest = Latest { neighbours: Neighbours::new(&self.order), after_change: false };
        let declared = self.files.schema();
        let rows = merged.map(move |rows| Ok(latest.keep(&rows?, &declared)?));
        let table = self.table.clone();
        let rows = spawn(rows.boxed()).map_err(move |cause| failed(&table, cause));
        encode(self.files.begin(), rows.boxed(), CancellationToken::new()).await
    }

    fn error(&self, cause: DataFusionError) -> LakeError {
        failed(&self.table, cause)
    }
}

fn failed(table: &TableName, cause: DataFusionError) -> LakeError {
    LakeError::rows(format!("cannot apply changes to table {table}"), cause)
}

/// Merging on a task of its own, beside encoding; it ends when nobody takes its rows any more.
fn spawn(
    mut rows: futures::stream::BoxStream<'static, Result<RecordBatch, DataFusionError>>,
) -> ReceiverStream<Result<RecordBatch, DataFusionError>> {
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
    tokio::spawn(async move {
        while let Some(next) = rows.next().await {
            let failed = next.is_err();
            if sender.send(next).await.is_err() || failed {
                break;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// The table's columns and whether a row is a change (`true`: it removes its key, `false`: it does not) or was there
/// before (NULL).
fn marked_schema(changes: &SchemaRef) -> SchemaRef {
    let count = changes.fields().len();
    let mut fields: Vec<_> = changes.fields()[..count - 2].to_vec();
    fields.push(Arc::new(arrow::datatypes::Field::new(REMOVES, arrow::datatypes::DataType::Boolean, true)));
    Arc::new(arrow::datatypes::Schema::new(fields))
}

fn changes(
    upto: Option<arrow::row::OwnedRow>,
    cursor: &Arc<Mutex<Cursor>>,
    marked: &SchemaRef,
) -> SendableRecordBatchStream {
    let state = (Arc::clone(cursor), upto, Arc::clone(marked));
    let batches = futures::stream::try_unfold(state, |(cursor, upto, marked)| async move {
        let next = cursor.lock().unwrap_or_else(PoisonError::into_inner).next(upto.as_ref())?;
        let Some(batch) = next else { return Ok(None) };
        let mut columns = batch.columns()[..batch.num_columns() - 2].to_vec();
        columns.push(Arc::clone(batch.column(batch.num_columns() - 1)));
        let rows = RecordBatch::try_new(Arc::clone(&marked), columns)?;
        Ok(Some((rows, (cursor, upto, marked))))
    });
    adapt(marked, batches)
}

fn unchanged(rows: SendableRecordBatchStream, marked: &SchemaRef) -> SendableRecordBatchStream {
    let schema = Arc::clone(marked);
    let batches = rows.map(move |rows| {
        let rows = rows?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(BooleanArray::new_null(rows.num_rows())));
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    });
    adapt(marked, batches)
}

/// Leaves out rows whose key has changed, and changes that remove.
struct Latest {
    neighbours: Neighbours,
    after_change: bool,
}

impl Latest {
    /// The rows that stay, in the columns `declared`.
    fn keep(&mut self, rows: &RecordBatch, declared: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let same = self.neighbours.same_as_before(rows)?;
        let removes = removes(rows);
        let mut kept = BooleanBufferBuilder::new(rows.num_rows());
        for row in 0..rows.num_rows() {
            let change = removes.is_valid(row);
            let stays = if change { !removes.value(row) } else { !(same.value(row) && self.after_change) };
            self.after_change = change || (same.value(row) && self.after_change);
            kept.append(stays);
        }
        let kept = filter_record_batch(rows, &BooleanArray::new(kept.finish(), None))?;
        let columns = kept.columns()[..kept.num_columns() - 1].to_vec();
        RecordBatch::try_new(Arc::clone(declared), columns)
    }
}
