//! Rows as they come, gathered and cut to what a message is to hold.
//!
//! The first rows go as they come, in a small message that a slow line carries at once; then messages grow. How rows are cut
//! hangs on the batches alone, never on time, so that a result whose batches are the same comes in the same messages.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::delivery::DeliveryError;
use crate::delivery::size::{cut, message_bytes};

/// How many times larger each message is than the one before, until they are large enough.
const GROWTH: usize = 4;
/// Most rows that are gathered, however narrow they are.
const MOST_ROWS: usize = 1 << 18;

/// The rows of about one message.
#[derive(Debug)]
pub(super) struct Portion {
    /// The rows, in the types they came in.
    pub(super) batch: RecordBatch,
    /// Their bytes on the line before compression, near enough.
    pub(super) bytes: usize,
}

/// A result's rows in portions. Small batches are copied together, which leaves behind what views refer to no more; large ones
/// are cut without a copy.
pub(super) struct Gather {
    /// None once the last one came, or an error.
    batches: Option<SendableRecordBatchStream>,
    /// Whether any came.
    begun: bool,
    /// Bytes of the next portion.
    wanted: usize,
    /// Bytes of all later ones.
    target: usize,
    /// Whether batches can be put together: dictionaries whose positions are narrow have no room for another one's words.
    joins: bool,
    gathered: Option<Gathered>,
    ready: VecDeque<Portion>,
    /// Comes after what is ready.
    failed: Option<DeliveryError>,
}

/// Small batches that become one.
struct Gathered {
    coalescer: BatchCoalescer,
    bytes: usize,
}

/// Bytes above which rows are cut where `wanted` bytes are: messages may be larger rather than one of them small.
pub(super) fn limit(wanted: usize) -> usize {
    wanted / 8 * 15
}

impl Gather {
    /// Cuts `batches` to a portion of `first` bytes and larger ones up to `target`.
    pub(super) fn new(batches: SendableRecordBatchStream, first: usize, target: usize) -> Self {
        Self {
            joins: !has_dictionaries(&batches.schema()),
            batches: Some(batches),
            begun: false,
            wanted: first.min(target),
            target,
            gathered: None,
            ready: VecDeque::new(),
            failed: None,
        }
    }

    /// The next portion. An error comes after the rows that came before it, and is the last that comes.
    pub(super) fn poll_portion(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Portion, DeliveryError>>> {
        loop {
            if let Some(portion) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(portion)));
            }
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(batches) = &mut self.batches else { return Poll::Ready(None) };
            let taken = match ready!(batches.poll_next_unpin(context)) {
                Some(Ok(batch)) if batch.num_rows() == 0 => Ok(()),
                Some(Ok(batch)) => self.take(batch),
                Some(Err(error)) => {
                    self.batches = None;
                    self.failed = Some(error.into());
                    self.flush()
                }
                None => {
                    self.batches = None;
                    self.flush()
                }
            };
            if let Err(error) = taken {
                self.batches = None;
                self.failed = Some(DeliveryError::Encode(error));
            }
        }
    }

    /// Drops what is still to come, which stops the query.
    pub(super) fn stop(&mut self) {
        (self.batches, self.gathered, self.failed) = (None, None, None);
        self.ready.clear();
    }

    fn take(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        let bytes = message_bytes(&batch);
        if !self.begun || !self.joins || bytes.saturating_mul(2) >= self.wanted {
            self.flush()?;
            self.portion_out(batch, bytes);
            return Ok(());
        }
        if self.gathered.as_ref().is_some_and(|gathered| gathered.coalescer.schema() != batch.schema()) {
            self.flush()?;
        }
        let wanted = self.wanted;
        let gathered = self.gathered.get_or_insert_with(|| Gathered::of(&batch, bytes, wanted));
        gathered.bytes += bytes;
        gathered.coalescer.push_batch(batch)?;
        if gathered.bytes + bytes > wanted || gathered.coalescer.has_completed_batch() {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes portions of what was gathered.
    fn flush(&mut self) -> Result<(), ArrowError> {
        let Some(mut gathered) = self.gathered.take() else { return Ok(()) };
        gathered.coalescer.finish_buffered_batch()?;
        while let Some(batch) = gathered.coalescer.next_completed_batch() {
            let bytes = message_bytes(&batch);
            self.portion_out(batch, bytes);
        }
        Ok(())
    }

    fn portion_out(&mut self, batch: RecordBatch, bytes: usize) {
        let (mut rest, mut bytes) = (batch, bytes);
        while self.wanted < self.target && bytes > limit(self.wanted) && rest.num_rows() > 1 {
            let rows = (rest.num_rows().saturating_mul(self.wanted) / bytes).clamp(1, rest.num_rows() - 1);
            let first = rest.slice(0, rows);
            rest = rest.slice(rows, rest.num_rows() - rows);
            bytes = message_bytes(&rest);
            let first_bytes = message_bytes(&first);
            self.put(first, first_bytes);
        }
        if bytes <= limit(self.wanted) {
            return self.put(rest, bytes);
        }
        for piece in cut(&rest, self.wanted, limit(self.wanted)) {
            let bytes = message_bytes(&piece);
            self.put(piece, bytes);
        }
    }

    fn put(&mut self, batch: RecordBatch, bytes: usize) {
        self.begun = true;
        self.ready.push_back(Portion { batch, bytes });
        self.wanted = self.wanted.saturating_mul(GROWTH).min(self.target);
    }
}

impl Gathered {
    /// Has room for `wanted` bytes of rows like those of `batch`, and one such batch more.
    fn of(batch: &RecordBatch, bytes: usize, wanted: usize) -> Self {
        let rows = batch.num_rows().saturating_mul(wanted) / bytes.max(1);
        let rows = rows.clamp(1, MOST_ROWS) + batch.num_rows();
        Self { coalescer: BatchCoalescer::new(batch.schema(), rows), bytes: 0 }
    }
}

fn has_dictionaries(schema: &Schema) -> bool {
    schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringViewArray};
    use arrow::datatypes::{Int8Type, SchemaRef};
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;
    use crate::error::ErrorKind;
    use crate::query::QueryError;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    }

    fn whole(rows: usize) -> RecordBatch {
        batch(Arc::new(Int64Array::from_value(7, rows)))
    }

    async fn portions(
        batches: Vec<Result<RecordBatch, QueryError>>,
        target: usize,
    ) -> Vec<Result<Portion, DeliveryError>> {
        let schema: SchemaRef = batches.iter().flatten().next().unwrap().schema();
        let batches = futures::stream::iter(batches);
        let batches = batches.map(|batch| batch.map_err(|error| DataFusionError::External(Box::new(error))));
        let mut gather = Gather::new(Box::pin(RecordBatchStreamAdapter::new(schema, batches)), 64 << 10, target);
        futures::stream::poll_fn(|context| gather.poll_portion(context)).collect().await
    }

    async fn rows(batches: Vec<RecordBatch>, target: usize) -> Vec<usize> {
        let portions = portions(batches.into_iter().map(Ok).collect(), target).await;
        portions.into_iter().map(|portion| portion.unwrap().batch.num_rows()).collect()
    }

    #[tokio::test]
    async fn messages_grow_from_a_small_first_one() {
        let sizes = rows(vec![whole(2_000_000)], 2 << 20).await;
        let bytes: Vec<usize> = sizes.iter().map(|rows| rows * 8).collect();
        assert!(bytes[0] <= 64 << 10 && bytes[1] <= 256 << 10 && bytes[2] <= 1 << 20, "{bytes:?}");
        assert!(bytes[3..].iter().all(|bytes| *bytes <= 2 << 20), "{bytes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 2_000_000);
        assert!(sizes.len() < 14, "{sizes:?}");
    }

    #[tokio::test]
    async fn the_first_rows_wait_for_no_others_and_small_batches_after_them_do() {
        let sizes = rows(vec![whole(3); 20_000], 2 << 20).await;
        assert_eq!((sizes[0], sizes.iter().sum::<usize>()), (3, 60_000));
        assert!(sizes.len() < 10, "{sizes:?}");
    }

    #[tokio::test]
    async fn large_batches_are_not_copied() {
        let large = whole(200_000);
        let given = vec![Ok(whole(1)), Ok(whole(1)), Ok(large.clone())];
        let portions = portions(given, 256 << 10).await;
        let last = &portions.last().unwrap().as_ref().unwrap().batch;
        let address = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr() as usize;
        assert!((address(&large)..address(&large) + 200_000 * 8).contains(&address(last)));
    }

    #[tokio::test]
    async fn what_views_refer_to_no_more_is_left_behind() {
        let long: Vec<String> = (0..10_000).map(|at| format!("a text of more than twelve bytes, {at}")).collect();
        let all = batch(Arc::new(StringViewArray::from_iter_values(long)));
        let few: Vec<_> = (0..100).map(|at| Ok(all.slice(at * 100, 1))).collect();
        let portions = portions(few, 2 << 20).await;
        let gathered = &portions[1].as_ref().unwrap().batch;
        assert_eq!(gathered.num_rows(), 99);
        assert!(gathered.get_array_memory_size() < all.get_array_memory_size() / 4);
    }

    #[tokio::test]
    async fn dictionaries_of_narrow_positions_are_not_put_together() {
        let batches: Vec<RecordBatch> = (0..4)
            .map(|part| {
                let words: Vec<String> = (0..100).map(|at| format!("{part} {at}")).collect();
                let words: DictionaryArray<Int8Type> = words.iter().map(String::as_str).collect();
                batch(Arc::new(words))
            })
            .collect();
        assert_eq!(rows(batches, 2 << 20).await, [100; 4]);
    }

    #[tokio::test]
    async fn an_error_comes_after_the_rows_before_it() {
        let broken = QueryError::new(ErrorKind::Unavailable, "gone");
        let given = vec![Ok(whole(1)), Ok(whole(2)), Ok(whole(3)), Err(broken), Ok(whole(4))];
        let came = portions(given, 2 << 20).await;
        let came: Vec<_> =
            came.into_iter().map(|portion| portion.map(|portion| portion.batch.num_rows()).ok()).collect();
        assert_eq!(came, [Some(1), Some(5), None]);
    }
}
