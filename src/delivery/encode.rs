//! From record batches to Arrow IPC messages of bounded size.
//!
//! A message's body is a list of the batch's own buffers, so nothing is copied until it is written
//! to the line. Encoding happens where the stream is polled: for uncompressed results a hand-over to
//! another thread costs more than the work (measured: 1.15 times the wall time).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, ready};

use crate::delivery::size::{cut, message_bytes};
use crate::delivery::{DeliveryError, conform};

/// Bytes of rows a message is cut to: far enough below 4 MiB, what gRPC clients accept unless told
/// otherwise, and large enough for the cost of a message not to count.
const TARGET_BYTES: usize = 2 << 20;
/// Bytes of rows above which a message is cut again; only a single row may be larger.
const LIMIT_BYTES: usize = (4 << 20) - (256 << 10);

/// One IPC message: what Flight calls a `FlightData`.
#[derive(Debug, Default)]
pub struct WireMessage {
    /// The flatbuffer `Message`, without the stream format's prefix.
    pub header: Bytes,
    /// The parts of the body in order, padding included.
    pub body: Vec<Buffer>,
}

impl WireMessage {
    /// Length of the body in bytes.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Buffer::len).sum()
    }

    /// The body in one piece, copied.
    pub fn contiguous_body(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.body_len());
        for part in &self.body {
            body.extend_from_slice(part);
        }
        body.into()
    }
}

/// A result as a stream of messages: the schema first, then its rows in order.
///
/// Asks for a batch only when a message is asked for, and holds no more than one batch. Dropping it
/// drops the result's stream, which stops the query.
pub struct EncodedResult {
    schema: SchemaRef,
    batches: Option<SendableRecordBatchStream>,
    encoder: StreamEncoder,
    /// Slices of the last batch that were not sent yet.
    waiting: VecDeque<RecordBatch>,
    opening: Option<WireMessage>,
    /// Rows that were encoded, and their bytes before.
    sent: (u64, u64),
}

impl EncodedResult {
    /// Encodes `batches` under the announced `schema`.
    ///
    /// # Errors
    /// `Encode` when the schema has a type that Arrow IPC cannot carry.
    pub fn new(schema: SchemaRef, batches: SendableRecordBatchStream) -> Result<Self, DeliveryError> {
        Ok(Self {
            encoder: StreamEncoder::try_new(&schema).map_err(DeliveryError::Encode)?,
            opening: Some(schema_message(&schema)),
            schema,
            batches: Some(batches),
            waiting: VecDeque::new(),
            sent: (0, 0),
        })
    }

    /// How many rows were encoded by now, and how many bytes they were before, near enough.
    pub fn sent(&self) -> (u64, u64) {
        self.sent
    }

    /// The next message of rows from what is at hand; none when a new batch is needed.
    fn next_waiting(&mut self) -> Result<Option<WireMessage>, DeliveryError> {
        while let Some(slice) = self.waiting.pop_front() {
            let slice = conform(&slice, &self.schema)?;
            if slice.num_rows() > 1 && message_bytes(&slice) > LIMIT_BYTES {
                for piece in cut(&slice, TARGET_BYTES, LIMIT_BYTES).into_iter().rev() {
                    self.waiting.push_front(piece);
                }
                continue;
            }
            self.sent.0 += slice.num_rows() as u64;
            return self.encode(&slice).map(Some).map_err(DeliveryError::Encode);
        }
        Ok(None)
    }

    /// The encoder writes the stream format: before its first batch stands the schema, which was sent already.
    fn encode(&mut self, batch: &RecordBatch) -> Result<WireMessage, ArrowError> {
        let mut buffers = self.encoder.encode(batch)?.into_iter();
        let mut message = WireMessage::default();
        while let Some(prefix) = buffers.next() {
            let header = read_header(&prefix, &mut buffers)?;
            let root = arrow_ipc::root_as_message(&header).map_err(|error| ArrowError::IpcError(error.to_string()))?;
            if root.header_type() == arrow_ipc::MessageHeader::RecordBatch {
                message = WireMessage { header: header.clone(), body: buffers.collect() };
                break;
            }
        }
        Ok(message)
    }
}

impl Stream for EncodedResult {
    type Item = Result<WireMessage, DeliveryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(opening) = this.opening.take() {
            return Poll::Ready(Some(Ok(opening)));
        }
        loop {
            if let Some(item) = this.next_waiting().transpose() {
                if item.is_err() {
                    (this.batches, this.waiting) = (None, VecDeque::new());
                }
                return Poll::Ready(Some(item));
            }
            let Some(batches) = &mut this.batches else { return Poll::Ready(None) };
            match ready!(batches.poll_next_unpin(context)) {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => {
                    this.sent.1 += message_bytes(&batch) as u64;
                    this.waiting.extend(cut(&batch, TARGET_BYTES, LIMIT_BYTES));
                }
                Some(Err(error)) => {
                    this.batches = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => this.batches = None,
            }
        }
    }
}

/// The message that opens a stream.
fn schema_message(schema: &SchemaRef) -> WireMessage {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
    WireMessage { header: encoded.ipc_message.into(), body: Vec::new() }
}

/// Takes one message's header from the stream format: a continuation marker and the padded length
/// (8 bytes), then the flatbuffer, then padding (Arrow columnar format, "Encapsulated message format").
fn read_header(prefix: &Buffer, buffers: &mut impl Iterator<Item = Buffer>) -> Result<Bytes, ArrowError> {
    let broken = || ArrowError::IpcError("the encoder's message has no header".to_owned());
    let length = prefix.as_slice().last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let length = length.ok_or_else(broken)?;
    let header = buffers.next().ok_or_else(broken)?;
    let mut read = header.len();
    while read < length {
        read += buffers.next().ok_or_else(broken)?.len();
    }
    Ok(Bytes::copy_from_slice(&header))
}

/// A finished result as a stream, for answers that are made in one piece.
pub fn single_batch(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok(batch)]);
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(Arc::clone(&schema), batches))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, LargeListArray, RecordBatchOptions, StringViewArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use arrow_ipc::reader::StreamReader;
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;
    use crate::delivery::wire_schema;
    use crate::error::{Classify, ErrorKind};

    fn stream(schema: &SchemaRef, batches: Vec<Result<RecordBatch, DataFusionError>>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), futures::stream::iter(batches)))
    }

    fn batch(name: &str, array: ArrayRef) -> RecordBatch {
        let field = Field::new(name, array.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
    }

    async fn encode(batch: RecordBatch) -> Vec<WireMessage> {
        let schema = wire_schema(&batch.schema());
        let result = EncodedResult::new(schema, single_batch(batch)).unwrap();
        result.map(Result::unwrap).collect().await
    }

    /// Reads messages back as a client does, through the stream format.
    fn decode(messages: &[WireMessage]) -> Vec<RecordBatch> {
        let mut bytes = Vec::new();
        for message in messages {
            let padding = message.header.len().next_multiple_of(8) - message.header.len();
            bytes.extend_from_slice(&[0xff; 4]);
            bytes.extend_from_slice(&u32::try_from(message.header.len() + padding).unwrap().to_le_bytes());
            bytes.extend_from_slice(&message.header);
            bytes.extend_from_slice(&vec![0; padding]);
            bytes.extend_from_slice(&message.contiguous_body());
        }
        StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn large_batches_are_cut_to_messages_below_four_megabytes() {
        let values = Int64Array::from_iter_values(0..1_500_000);
        let messages = encode(batch("n", Arc::new(values.clone()))).await;
        assert!(messages.len() > 4, "{}", messages.len());
        assert!(messages.iter().all(|message| message.body_len() + message.header.len() < 4 << 20));
        let read: Vec<i64> =
            decode(&messages).iter().flat_map(|batch| batch.column(0).to_data().buffer::<i64>(0).to_vec()).collect();
        assert_eq!(read, values.values().to_vec());
    }

    #[tokio::test]
    async fn skewed_rows_are_cut_until_each_message_fits() {
        let long = "x".repeat(1 << 20);
        let values: Vec<&str> = (0..4000).map(|at| if at < 20 { long.as_str() } else { "y" }).collect();
        let messages = encode(batch("s", Arc::new(StringViewArray::from(values)))).await;
        assert!(messages.iter().all(|message| message.body_len() < 4 << 20));
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 4000);
    }

    #[tokio::test]
    async fn tables_of_thousands_of_columns_fit_too() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let columns = (0..4000).map(|number| (format!("c{number}"), Arc::clone(&column)));
        let messages = encode(RecordBatch::try_from_iter(columns).unwrap()).await;
        let rows = messages.iter().skip(1).map(|message| message.body_len() + message.header.len());
        assert!(rows.clone().all(|bytes| bytes < 4 << 20), "{:?}", rows.collect::<Vec<_>>());
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
    }

    #[tokio::test]
    async fn a_single_giant_row_is_sent_whole() {
        let long = "x".repeat(9 << 20);
        let messages = encode(batch("s", Arc::new(StringViewArray::from(vec!["a", &long, "b"])))).await;
        let rows: Vec<_> = decode(&messages).iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [1, 1, 1]);
    }

    #[tokio::test]
    async fn rows_without_columns_keep_their_number() {
        let options = RecordBatchOptions::new().with_row_count(Some(5));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        let read = decode(&encode(batch).await);
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    }

    #[tokio::test]
    async fn a_large_list_stays_one() {
        let list = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let read = decode(&encode(batch("l", Arc::new(list.clone()))).await);
        assert_eq!(read[0].column(0).as_ref(), &list as &dyn arrow::array::Array);
    }

    #[tokio::test]
    async fn an_empty_result_is_its_schema() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let result = EncodedResult::new(Arc::clone(&schema), stream(&schema, vec![])).unwrap();
        assert_eq!(result.count().await, 1);
    }

    #[tokio::test]
    async fn an_error_of_the_query_ends_the_stream_with_its_kind() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let cause = crate::query::QueryError::new(ErrorKind::DeadlineExceeded, "too long");
        let batches = vec![Err(DataFusionError::External(Box::new(cause))), Ok(RecordBatch::new_empty(schema.clone()))];
        let mut result = EncodedResult::new(Arc::clone(&schema), stream(&schema, batches)).unwrap();
        assert!(result.next().await.unwrap().is_ok());
        assert_eq!(result.next().await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert!(result.next().await.is_none());
    }
}
