//! Stopping work at once: the stream people hold, and what makes even a join without output stop.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::error::ErrorKind;
use crate::query::QueryError;

/// Batches that may wait between the query's runtime and who takes them: one on its way, one ready.
const WAITING_BATCHES: usize = 2;

/// How long a join may hold a thread of the runtime before others get another one: long against the cost of
/// starting a thread, short for a person who waits.
const LONG_POLL: Duration = Duration::from_millis(100);

/// A request to stop that running operators look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Aborts a task when dropped.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes operators that can give many rows for few, or none for many, stop and step aside: joins, and
/// queries that read themselves.
///
/// Nested loop joins do not yield while they find no match: one that compares two large tables would go
/// on for minutes after everybody left. They look at `stop`, and after [`LONG_POLL`] leave their thread's
/// place to others. The rest yields between batches.
pub(crate) fn stoppable(plan: Arc<dyn ExecutionPlan>, stop: &Stop) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        if node.is::<CrossJoinExec>() || node.is::<HashJoinExec>() || node.is::<RecursiveQueryExec>() {
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>));
        }
        let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else { return Ok(Transformed::no(node)) };
        let Some(filter) = join.filter() else { return Ok(Transformed::no(node)) };
        let expression = Stoppable { inner: Arc::clone(filter.expression()), stop: stop.clone() };
        let filter =
            JoinFilter::new(Arc::new(expression), filter.column_indices().to_vec(), Arc::clone(filter.schema()));
        let projection = join.projection().as_ref().map(|columns| columns.to_vec());
        let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
        let join = NestedLoopJoinExec::try_new(left, right, Some(filter), join.join_type(), projection)?;
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(Arc::new(join))) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(guarded.data)
}

thread_local! {
    /// When this thread began to evaluate without a pause, and when it did so last.
    static BUSY: Cell<Option<(Instant, Instant)>> = const { Cell::new(None) };
}

/// Lets other work of the runtime go on elsewhere once this thread has evaluated for long without coming
/// back to it. The thread keeps its work; the runtime gets another one.
fn step_aside_when_long() {
    let now = Instant::now();
    let begun = match BUSY.get() {
        Some((begun, last)) if now - last < LONG_POLL / 4 => begun,
        _ => now,
    };
    if now - begun < LONG_POLL {
        BUSY.set(Some((begun, now)));
        return;
    }
    BUSY.set(None);
    let threads = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
    if matches!(threads, Ok(tokio::runtime::RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(|| {});
    }
}

/// An expression that fails once a stop was requested.
#[derive(Debug)]
struct Stoppable {
    inner: Arc<dyn PhysicalExpr>,
    stop: Stop,
}

impl PhysicalExpr for Stoppable {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.inner.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_requested() {
            return Err(cancelled().into());
        }
        step_aside_when_long();
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.into_iter().next() {
            Some(inner) => Ok(Arc::new(Self { inner, stop: self.stop.clone() })),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

impl fmt::Display for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Stoppable {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Stoppable {}

impl Hash for Stoppable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

fn cancelled() -> QueryError {
    QueryError::new(ErrorKind::Cancelled, "the statement was cancelled")
}

/// The error of a statement that took longer than it may.
pub(crate) fn too_late(limit: Duration) -> QueryError {
    let limit = humantime::format_duration(limit);
    QueryError::new(
        ErrorKind::DeadlineExceeded,
        format!(
            "the statement took longer than {limit} (`limits.query_timeout`); read less at a time, or raise the limit"
        ),
    )
}

/// Rows that are made in a task of their own, a little ahead of who takes them. Dropping it stops the task.
pub(crate) struct Ahead {
    /// The rows, until the task ends.
    pub(crate) batches: mpsc::Receiver<Result<RecordBatch>>,
    /// The task.
    pub(crate) pump: AbortOnDrop<()>,
}

impl Ahead {
    /// Makes `rows` on `runtime`; at most [`WAITING_BATCHES`] are ahead of who takes them.
    pub(crate) fn start(runtime: &tokio::runtime::Handle, mut rows: SendableRecordBatchStream) -> Self {
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let pump = runtime.spawn(async move {
            // Room first, then work: nothing is computed that nobody has asked for yet.
            while let Ok(room) = sender.reserve().await {
                match rows.next().await {
                    Some(batch) => room.send(batch),
                    None => break,
                }
            }
        });
        Self { batches, pump: AbortOnDrop(pump) }
    }
}

/// The rows of a running statement. Dropping it stops the statement; so does its deadline.
pub(crate) struct Answer {
    schema: SchemaRef,
    rows: Ahead,
    deadline: Pin<Box<Sleep>>,
    limit: Duration,
    stop: Stop,
    ended: bool,
}

impl Answer {
    /// Runs `rows` on `runtime`.
    pub(crate) fn start(
        runtime: &tokio::runtime::Handle,
        rows: SendableRecordBatchStream,
        stop: Stop,
        deadline: tokio::time::Instant,
        limit: Duration,
    ) -> Self {
        let (schema, rows) = (rows.schema(), Ahead::start(runtime, rows));
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        Self { schema, rows, deadline, limit, stop, ended: false }
    }

    fn end(&mut self, error: QueryError) -> Poll<Option<Result<RecordBatch>>> {
        self.ended = true;
        self.stop.request();
        self.rows.pump.0.abort();
        self.rows.batches.close();
        Poll::Ready(Some(Err(error.into())))
    }

    /// The pump has gone: without a word when all is said, otherwise because it failed.
    fn after_last(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let Poll::Ready(ended) = Pin::new(&mut self.rows.pump.0).poll(context) else { return Poll::Pending };
        match ended {
            Ok(()) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Err(error) => self.end(QueryError::from(DataFusionError::ExecutionJoin(Box::new(error)))),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.stop.request();
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            let error = too_late(self.limit);
            return self.end(error);
        }
        match self.rows.batches.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(batch))) => Poll::Ready(Some(Ok(batch))),
            Poll::Ready(Some(Err(error))) => self.end(QueryError::from(error)),
            Poll::Ready(None) => self.after_last(context),
        }
    }
}

impl RecordBatchStream for Answer {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
