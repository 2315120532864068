//! The partitions of a plan, run side by side and handed out one batch of each in turn: an order that hangs on the rows alone,
//! where the engine's own merge takes whatever comes first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream_partitioned};
use futures::Stream;
use tokio::runtime::Handle;

use crate::query::cancel::Ahead;

/// Rows of several partitions, in turn. Dropping it stops them all.
pub(crate) struct InTurn {
    schema: SchemaRef,
    /// Those that have not ended; the first is the next one's.
    partitions: VecDeque<Ahead>,
}

impl InTurn {
    /// Runs each partition of a plan in a task of its own on `runtime`, as little ahead as any answer is.
    ///
    /// # Errors
    /// When one of them cannot begin.
    pub(crate) fn start(
        runtime: &Handle,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = plan.schema();
        let mut partitions = execute_stream_partitioned(plan, context)?;
        if partitions.len() == 1
            && let Some(only) = partitions.pop()
        {
            return Ok(only);
        }
        let partitions = partitions.into_iter().map(|rows| Ahead::start(runtime, rows)).collect();
        Ok(Box::pin(Self { schema, partitions }))
    }

    fn fail(&mut self, error: DataFusionError) -> Poll<Option<Result<RecordBatch>>> {
        self.partitions.clear();
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for InTurn {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(next) = self.partitions.front_mut() else { return Poll::Ready(None) };
            match ready!(next.batches.poll_recv(context)) {
                Some(Ok(batch)) => {
                    self.partitions.rotate_left(1);
                    return Poll::Ready(Some(Ok(batch)));
                }
                Some(Err(error)) => return self.fail(error),
                // Gone without a word: when all is said, or because it panicked.
                None => match ready!(Pin::new(&mut next.pump.0).poll(context)) {
                    Ok(()) => drop(self.partitions.pop_front()),
                    Err(error) => return self.fail(DataFusionError::ExecutionJoin(Box::new(error))),
                },
            }
        }
    }
}

impl RecordBatchStream for InTurn {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::catalog::streaming::StreamingTable;
    use datafusion::datasource::MemTable;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::physical_plan::streaming::PartitionStream;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use futures::{StreamExt, TryStreamExt};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
    }

    fn batch(number: i64) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![number]))]).unwrap()
    }

    /// The numbers that come of a statement over a table with these partitions.
    async fn numbers(partitions: Vec<Vec<RecordBatch>>, sql: &str) -> Vec<i64> {
        let config = SessionConfig::new().with_target_partitions(partitions.len()).with_round_robin_repartition(false);
        let context = SessionContext::new_with_config(config);
        context.register_table("t", Arc::new(MemTable::try_new(schema(), partitions).unwrap())).unwrap();
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let rows = InTurn::start(&Handle::current(), plan, context.task_ctx()).unwrap();
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_partition_gives_a_batch_in_turn_until_it_has_no_more() {
        let partition = |from: i64, count: i64| (from..from + count).map(batch).collect::<Vec<_>>();
        for _ in 0..20 {
            let partitions = vec![partition(0, 2), partition(10, 4), partition(20, 1)];
            assert_eq!(numbers(partitions, "select n from t").await, [0, 10, 20, 1, 11, 12, 13]);
        }
        assert_eq!(numbers(vec![vec![], partition(1, 2)], "select n from t").await, [1, 2]);
    }

    #[tokio::test]
    async fn a_panic_in_a_partition_ends_all() {
        #[derive(Debug)]
        struct Broken(SchemaRef);

        impl PartitionStream for Broken {
            fn schema(&self) -> &SchemaRef {
                &self.0
            }

            fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
                let rows = futures::stream::poll_fn(|_| panic!("asked for by a test"));
                Box::pin(RecordBatchStreamAdapter::new(schema(), rows))
            }
        }

        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(Broken(schema())), Arc::new(Broken(schema()))];
        let table = StreamingTable::try_new(schema(), partitions).unwrap();
        let context = SessionContext::new();
        let plan = context.read_table(Arc::new(table)).unwrap().create_physical_plan().await.unwrap();
        let mut rows = InTurn::start(&Handle::current(), plan, context.task_ctx()).unwrap();
        assert!(matches!(rows.next().await, Some(Err(DataFusionError::ExecutionJoin(_)))));
        assert!(rows.next().await.is_none());
    }
}
