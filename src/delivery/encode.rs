//! From record batches to Arrow IPC messages of bounded size.
//!
//! A message's body is a list of the batch's own buffers, so nothing is copied until it is written
//! to the line. Encoding happens where the stream is polled: for uncompressed results a hand-over to
//! another thread costs more than the work (measured: 1.15 times the wall time). Compressed bodies are
//! new buffers, one for each that the batch has.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, ready};

use crate::delivery::size::{cut, message_bytes};
use crate::delivery::{DeliveryError, conform};
use crate::model::Codec;

/// Bytes of rows a message is cut to where no line asks for fewer: far enough below 4 MiB, what gRPC clients accept unless told
/// otherwise, and large enough for the cost of a message not to count.
pub const MESSAGE_BYTES: usize = 2 << 20;
/// Bytes of rows a column has in a message at least: five times what describes it there.
const COLUMN_BYTES: usize = 1 << 10;
/// Bytes of rows above which a message is cut again; only a single row may be larger.
const LIMIT_BYTES: usize = (4 << 20) - (256 << 10);
/// Rows of fewer bytes go uncompressed whatever the codec: they fit a packet or three either way, and making a
/// compressor costs more than anything else about so small an answer.
const SMALL_BYTES: usize = 4 << 10;
/// Level of Zstandard: higher ones cost many times the time for a few percent of the bytes (docs/benchmarks.md).
const ZSTD_LEVEL: i32 = 1;

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
    /// For messages too small to compress. None where dictionaries are sent: an encoder leaves out those it has sent
    /// before, and would not know of the other's.
    small: Option<StreamEncoder>,
    /// Slices of the last batch that were not sent yet.
    waiting: VecDeque<RecordBatch>,
    /// Messages that were not asked for yet: the schema, or what a slice's dictionaries come before.
    made: VecDeque<WireMessage>,
    /// Rows that were encoded, and their bytes before.
    sent: (u64, u64),
    /// Bytes of rows a message is cut to, and above which it is cut again.
    target_and_limit: (usize, usize),
}

impl EncodedResult {
    /// Encodes `batches` under the announced `schema`, their bodies compressed by `codec`, in messages of about `target`
    /// bytes of rows.
    ///
    /// # Errors
    /// `Encode` when the schema has a type that Arrow IPC cannot carry.
    pub fn new(
        schema: SchemaRef,
        batches: SendableRecordBatchStream,
        codec: Codec,
        target: usize,
    ) -> Result<Self, DeliveryError> {
        let encoder = |codec| {
            let encoder =
                write_options(codec).and_then(|options| StreamEncoder::try_new_with_options(&schema, options));
            encoder.map_err(DeliveryError::Encode)
        };
        // A message has to be worth what describes its columns.
        let target = target.max(schema.flattened_fields().len() * COLUMN_BYTES).min(MESSAGE_BYTES);
        let dictionaries = schema.fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)));
        Ok(Self {
            encoder: encoder(codec)?,
            small: if codec == Codec::None || dictionaries { None } else { Some(encoder(Codec::None)?) },
            made: VecDeque::from([schema_message(&schema)]),
            schema,
            batches: Some(batches),
            waiting: VecDeque::new(),
            sent: (0, 0),
            target_and_limit: (target, LIMIT_BYTES.min(2 * target)),
        })
    }

    /// How many rows were encoded by now, and how many bytes they were before, near enough.
    pub fn sent(&self) -> (u64, u64) {
        self.sent
    }

    /// The next message from what is at hand; none when a new batch is needed.
    fn next_waiting(&mut self) -> Result<Option<WireMessage>, DeliveryError> {
        let (target, limit) = self.target_and_limit;
        while self.made.is_empty() {
            let Some(slice) = self.waiting.pop_front() else { return Ok(None) };
            let slice = conform(&slice, &self.schema)?;
            if slice.num_rows() > 1 && message_bytes(&slice) > limit {
                for piece in cut(&slice, target, limit).into_iter().rev() {
                    self.waiting.push_front(piece);
                }
                continue;
            }
            self.sent.0 += slice.num_rows() as u64;
            self.made = self.encode(&slice).map_err(DeliveryError::Encode)?;
        }
        Ok(self.made.pop_front())
    }

    /// A slice's rows, after the dictionaries they refer to. The encoder writes the stream format: before its
    /// first batch stands the schema, which was sent already.
    fn encode(&mut self, batch: &RecordBatch) -> Result<VecDeque<WireMessage>, ArrowError> {
        let encoder = match &mut self.small {
            Some(small) if message_bytes(batch) < SMALL_BYTES => small,
            _ => &mut self.encoder,
        };
        // Where a buffer is empty, nothing tells which message it belongs to, and nothing is lost.
        let mut buffers = encoder.encode(batch)?.into_iter().filter(|buffer| !buffer.is_empty());
        let mut messages = VecDeque::new();
        while let Some(prefix) = buffers.next() {
            let header = read_header(&prefix, &mut buffers)?;
            let root = arrow_ipc::root_as_message(&header).map_err(|error| ArrowError::IpcError(error.to_string()))?;
            let body = read_body(usize::try_from(root.bodyLength()).unwrap_or_default(), &mut buffers)?;
            if root.header_type() != arrow_ipc::MessageHeader::Schema {
                messages.push_back(WireMessage { header: header.clone(), body });
            }
        }
        Ok(messages)
    }
}

fn write_options(codec: Codec) -> Result<IpcWriteOptions, ArrowError> {
    let options = IpcWriteOptions::default();
    match codec {
        Codec::None => Ok(options),
        Codec::Lz4 => options.try_with_compression(Some(CompressionType::LZ4_FRAME)),
        Codec::Zstd => {
            options.try_with_compression(Some(CompressionType::ZSTD))?.try_with_compression_level(Some(ZSTD_LEVEL))
        }
    }
}

impl Stream for EncodedResult {
    type Item = Result<WireMessage, DeliveryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (target, limit) = this.target_and_limit;
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
                    this.waiting.extend(cut(&batch, target, limit));
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

/// Takes one message's body of `length` bytes.
fn read_body(length: usize, buffers: &mut impl Iterator<Item = Buffer>) -> Result<Vec<Buffer>, ArrowError> {
    let mut body = Vec::new();
    let mut read = 0;
    while read < length {
        let part = buffers.next();
        let part = part.ok_or_else(|| ArrowError::IpcError("the encoder's message is cut short".to_owned()))?;
        read += part.len();
        body.push(part);
    }
    Ok(body)
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
    use arrow::datatypes::{Field, Int64Type, Schema};
    use arrow_ipc::reader::StreamReader;
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;
    use crate::delivery::{result_schema, wire_schema};
    use crate::error::{Classify, ErrorKind};
    use crate::model::WireProfile;

    fn stream(schema: &SchemaRef, batches: Vec<Result<RecordBatch, DataFusionError>>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), futures::stream::iter(batches)))
    }

    fn batch(name: &str, array: ArrayRef) -> RecordBatch {
        let field = Field::new(name, array.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
    }

    async fn encode(batch: RecordBatch) -> Vec<WireMessage> {
        encode_as(WireProfile::default(), batch).await
    }

    async fn encode_as(profile: WireProfile, batch: RecordBatch) -> Vec<WireMessage> {
        let schema = result_schema(&batch.schema(), profile);
        let result = EncodedResult::new(schema, single_batch(batch), profile.codec, MESSAGE_BYTES).unwrap();
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
    async fn messages_are_as_small_as_the_line_wants_them() {
        let target = 256 << 10;
        let batch = batch("n", Arc::new(Int64Array::from_iter_values(0..300_000)));
        let schema = wire_schema(&batch.schema());
        let result = EncodedResult::new(schema, single_batch(batch), Codec::None, target).unwrap();
        let messages: Vec<WireMessage> = result.map(Result::unwrap).collect().await;
        assert!(messages.iter().all(|message| message.body_len() <= 2 * target), "{}", messages.len());
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 300_000);
    }

    #[tokio::test]
    async fn every_codec_carries_the_same_rows_and_compresses_them() {
        let words: Vec<Option<String>> =
            (0..300_000).map(|at| (at % 7 != 0).then(|| format!("word {}", at % 40))).collect();
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from_iter_values(0..300_000)) as ArrayRef),
            ("word", Arc::new(StringViewArray::from_iter(words)) as ArrayRef),
        ])
        .unwrap();
        let rows = |messages: &[WireMessage]| {
            let schema = wire_schema(&batch.schema());
            let read: Vec<_> = decode(messages).iter().map(|batch| conform(batch, &schema).unwrap()).collect();
            arrow::compute::concat_batches(&schema, &read).unwrap()
        };
        let plain = encode(batch.clone()).await;
        let size = |messages: &[WireMessage]| messages.iter().map(WireMessage::body_len).sum::<usize>();
        assert_eq!(rows(&plain).num_rows(), 300_000);
        for (codec, dictionaries) in
            [(Codec::Lz4, false), (Codec::Zstd, false), (Codec::None, true), (Codec::Lz4, true), (Codec::Zstd, true)]
        {
            let sent = encode_as(WireProfile { codec, dictionaries }, batch.clone()).await;
            assert_eq!(rows(&sent), rows(&plain), "{codec:?} {dictionaries}");
            assert!(
                size(&sent) * 10 < size(&plain) * 8,
                "{codec:?} {dictionaries}: {} of {}",
                size(&sent),
                size(&plain)
            );
            assert!(sent.iter().all(|message| message.body_len() < 4 << 20));
        }
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
    async fn small_messages_are_not_compressed_and_large_ones_beside_them_are() {
        let batches = [3, 100_000, 3].map(|rows| batch("n", Arc::new(Int64Array::from_value(7, rows))));
        let schema = wire_schema(&batches[0].schema());
        let rows = stream(&schema, batches.into_iter().map(Ok).collect());
        let result = EncodedResult::new(Arc::clone(&schema), rows, Codec::Zstd, MESSAGE_BYTES).unwrap();
        let messages: Vec<WireMessage> = result.map(Result::unwrap).collect().await;
        let compressed: Vec<bool> = messages[1..]
            .iter()
            .map(|message| {
                let root = arrow_ipc::root_as_message(&message.header).unwrap();
                root.header_as_record_batch().unwrap().compression().is_some()
            })
            .collect();
        assert_eq!(compressed, [false, true, false]);
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 100_006);
    }

    #[tokio::test]
    async fn empty_values_at_the_end_of_a_message_are_no_message() {
        let words: ArrayRef = Arc::new(StringViewArray::from(vec!["", ""]));
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let profile = WireProfile { codec, dictionaries: false };
            let messages = encode_as(profile, batch("s", Arc::clone(&words))).await;
            assert_eq!((messages.len(), decode(&messages)[0].num_rows()), (2, 2), "{codec:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_result_is_its_schema() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let result =
            EncodedResult::new(Arc::clone(&schema), stream(&schema, vec![]), Codec::Zstd, MESSAGE_BYTES).unwrap();
        assert_eq!(result.count().await, 1);
    }

    #[tokio::test]
    async fn an_error_of_the_query_ends_the_stream_with_its_kind() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let cause = crate::query::QueryError::new(ErrorKind::DeadlineExceeded, "too long");
        let batches = vec![Err(DataFusionError::External(Box::new(cause))), Ok(RecordBatch::new_empty(schema.clone()))];
        let mut result =
            EncodedResult::new(Arc::clone(&schema), stream(&schema, batches), Codec::None, MESSAGE_BYTES).unwrap();
        assert!(result.next().await.unwrap().is_ok());
        assert_eq!(result.next().await.unwrap().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert!(result.next().await.is_none());
    }
}
