//! From record batches to Arrow IPC messages of bounded size.
//!
//! Uncompressed messages are made where the stream is polled: a body is a list of the batch's own buffers, so nothing is copied
//! until it is written to the line, and a hand-over to another thread costs more than the work (measured: 1.15 times the wall
//! time). Compressed ones are made by [`Encoders`], several at the same time and beside the scan, and handed out in order;
//! what is small is packed at once, so that a short answer waits for no thread.

mod gather;
mod pack;
mod workers;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream};

use crate::delivery::DeliveryError;
use crate::delivery::encode::gather::Gather;
use crate::delivery::encode::pack::{Packed, Packer, PlainPacker, SentDictionaries, schema_message};
use crate::delivery::encode::workers::Packing;
use crate::model::{Codec, WireProfile};

pub use workers::{Encoders, Work};

/// Bytes of rows a message is cut to where no line asks for fewer: far enough below 4 MiB, what gRPC clients accept unless told
/// otherwise, and large enough for the cost of a message not to count.
pub const MESSAGE_BYTES: usize = 2 << 20;
/// Bytes of rows in the first message: a twentieth of a second at 10 Mbit/s, whatever the codec.
const FIRST_BYTES: usize = 64 << 10;
/// Bytes of rows a column has in a message at least: five times what describes it there.
const COLUMN_BYTES: usize = 1 << 10;
/// The same of later messages that are compressed: each column is compressed by itself, and what has fewer rows takes more.
/// Of a table of 200 columns, a tenth more where they have 4 KiB each, a twentieth with this; with 12 KiB no less
/// than that (measured).
const PACKED_COLUMN_BYTES: usize = 7 << 10;
/// Portions of fewer bytes are packed where the stream is polled while nothing else is being packed: it takes a third of a
/// millisecond, which is about what handing over and waiting for a thread can take on a busy machine.
const HANDED_OVER_BYTES: usize = 128 << 10;
/// Portions that are packed ahead of the line, the one that goes next among them: more made no difference (measured with 2,
/// 3 and 6).
const WINDOW: usize = 3;

/// Bytes of rows in the first message and in later ones, which are to have about `message_bytes` on the line. What a codec makes of them is guessed low: how a result is
/// cut may not hang on what it was before, or the same rows would not come in the same messages again.
fn portion_bytes(message_bytes: usize, schema: &SchemaRef, codec: Codec) -> (usize, usize) {
    let unpacked = match codec {
        Codec::None => 1,
        Codec::Lz4 => 2,
        Codec::Zstd => 3,
    };
    // A message has to be worth what describes its columns.
    let columns = schema.flattened_fields().len();
    let least = columns * COLUMN_BYTES;
    let least_later = if codec == Codec::None { least } else { columns * PACKED_COLUMN_BYTES };
    let later = message_bytes.saturating_mul(unpacked).max(least_later).min(MESSAGE_BYTES);
    (FIRST_BYTES.max(least).min(later), later)
}

/// One IPC message: what Flight calls a `FlightData`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireMessage {
    /// The flatbuffer `Message`, without the stream format's prefix.
    pub header: Bytes,
    /// The parts of the body in order, padding included.
    pub body: Vec<Buffer>,
    /// What goes with it for the client's program; empty but in results that can be gone on with ([`crate::delivery::Position`]).
    pub app_metadata: Bytes,
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
/// Asks for a batch only when a message is asked for. Uncompressed it holds one portion of rows; compressed three of
/// them, one where all results together have packed ahead what there is memory for. An error comes after the rows before it
/// and ends the stream. Dropping it drops the result's stream, which stops the query, and what is not packed yet. To be
/// polled on a tokio runtime.
pub struct EncodedResult {
    rows: Gather,
    packing: Packs,
    /// Portions on their way to messages, in order.
    window: VecDeque<Packing>,
    /// What ended the rows, to be told after the window.
    failed: Option<DeliveryError>,
    /// Messages that were not asked for yet: the schema, or what a portion's dictionaries come before.
    made: VecDeque<WireMessage>,
    /// Rows that were encoded, and their bytes before.
    sent: (u64, u64),
}

/// Who packs.
enum Packs {
    /// The stream itself: nothing is to be compressed.
    Here(Box<PlainPacker>),
    /// Anybody, in any order.
    Anywhere {
        packer: Arc<Packer>,
        encoders: Encoders,
        /// Bytes of a portion.
        portion: usize,
        dictionaries: SentDictionaries,
    },
}

impl EncodedResult {
    /// Encodes `batches` under the announced `schema`, as `profile` says, in messages of about `message_bytes` on the line and
    /// [`MESSAGE_BYTES`] of rows at most. `encoders` pack what is compressed.
    ///
    /// # Errors
    /// `Encode` when the schema has a type that Arrow IPC cannot carry.
    pub fn new(
        schema: SchemaRef,
        batches: SendableRecordBatchStream,
        profile: WireProfile,
        message_bytes: usize,
        encoders: &Encoders,
    ) -> Result<Self, DeliveryError> {
        let made = VecDeque::from([schema_message(&schema)]);
        let (first, portion) = portion_bytes(message_bytes, &schema, profile.codec);
        let packer = Packer::new(schema, profile);
        // Made for both, for it is what looks at the schema's types.
        let plain = PlainPacker::new(packer.clone())?;
        let packing = match profile.codec {
            Codec::None => Packs::Here(Box::new(plain)),
            Codec::Lz4 | Codec::Zstd => Packs::Anywhere {
                packer: Arc::new(packer),
                encoders: encoders.clone(),
                portion,
                dictionaries: SentDictionaries::default(),
            },
        };
        let rows = Gather::new(batches, first, portion);
        Ok(Self { rows, packing, window: VecDeque::new(), failed: None, made, sent: (0, 0) })
    }

    /// How many rows were encoded by now, and how many bytes they were before, near enough.
    pub fn sent(&self) -> (u64, u64) {
        self.sent
    }

    /// The messages of the next portion.
    fn poll_packed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Packed, DeliveryError>>> {
        let mut waits_for_rows = false;
        while self.failed.is_none() && self.window.len() < WINDOW {
            let ahead = match &self.packing {
                Packs::Anywhere { encoders, portion, .. } if !self.window.is_empty() => {
                    let Some(room) = encoders.room(*portion) else { break };
                    Some(room)
                }
                _ => None,
            };
            match self.rows.poll_portion(context) {
                Poll::Pending => {
                    waits_for_rows = true;
                    break;
                }
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(error))) => self.failed = Some(error),
                Poll::Ready(Some(Ok(portion))) => match &mut self.packing {
                    Packs::Here(packer) => return Poll::Ready(Some(packer.pack(&portion))),
                    Packs::Anywhere { packer, encoders, .. } => {
                        if self.window.is_empty() && portion.bytes < HANDED_OVER_BYTES {
                            return Poll::Ready(Some(encoders.here(|context| packer.pack(&portion, context))));
                        }
                        let packer = Arc::clone(packer);
                        let work = encoders.elsewhere(ahead, move |context| packer.pack(&portion, context));
                        self.window.push_back(work);
                    }
                },
            }
        }
        let Some(next) = self.window.front_mut() else {
            return match self.failed.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None if waits_for_rows => Poll::Pending,
                None => Poll::Ready(None),
            };
        };
        let packed = ready!(next.poll_unpin(context));
        self.window.pop_front();
        Poll::Ready(Some(packed))
    }

    fn hand_out(&mut self, packed: Packed) {
        self.sent.0 += packed.rows;
        self.sent.1 += packed.bytes;
        match &mut self.packing {
            Packs::Anywhere { dictionaries, .. } if packed.messages.len() > 1 => {
                self.made.extend(packed.messages.into_iter().filter(|message| dictionaries.is_new(message)));
            }
            _ => self.made.extend(packed.messages),
        }
    }

    fn stop(&mut self) {
        self.rows.stop();
        self.window.clear();
        self.failed = None;
    }
}

impl Stream for EncodedResult {
    type Item = Result<WireMessage, DeliveryError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(message) = this.made.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match ready!(this.poll_packed(context)) {
                Some(Ok(packed)) => this.hand_out(packed),
                Some(Err(error)) => {
                    this.stop();
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

/// A finished result as a stream, for answers that are made in one piece.
pub fn single_batch(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    let batches = futures::stream::iter([Ok(batch)]);
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(Arc::clone(&schema), batches))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, AsArray, Float64Array, Int64Array, LargeListArray, RecordBatchOptions, StringArray, StringViewArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
    use arrow_ipc::reader::StreamReader;
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::StreamExt;

    use super::*;
    use crate::delivery::{conform, result_schema, wire_schema};
    use crate::error::{Classify, ErrorKind};
    use crate::model::Precision;

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
        encoded(single_batch(batch), profile).map(Result::unwrap).collect().await
    }

    fn encoded(batches: SendableRecordBatchStream, profile: WireProfile) -> EncodedResult {
        let every: Vec<usize> = (0..batches.schema().fields().len()).collect();
        let schema = result_schema(&batches.schema(), profile, &every);
        EncodedResult::new(schema, batches, profile, MESSAGE_BYTES, &Encoders::new(2, 1 << 30)).unwrap()
    }

    fn packed_by(codec: Codec) -> WireProfile {
        WireProfile { codec, ..WireProfile::default() }
    }

    /// What a slow line asks for.
    const SLOW_MESSAGE_BYTES: usize = 256 << 10;

    fn numbers(rows: usize) -> RecordBatch {
        batch("n", Arc::new(Int64Array::from_value(7, rows)))
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
            let read: Vec<_> =
                decode(messages).iter().map(|batch| conform(batch, &schema, Precision::Full).unwrap()).collect();
            arrow::compute::concat_batches(&schema, &read).unwrap()
        };
        let plain = encode(batch.clone()).await;
        let size = |messages: &[WireMessage]| messages.iter().map(WireMessage::body_len).sum::<usize>();
        assert_eq!(rows(&plain).num_rows(), 300_000);
        for (codec, dictionaries) in
            [(Codec::Lz4, false), (Codec::Zstd, false), (Codec::None, true), (Codec::Lz4, true), (Codec::Zstd, true)]
        {
            let sent = encode_as(WireProfile { codec, dictionaries, ..WireProfile::default() }, batch.clone()).await;
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
        let batches = [3, 100_000, 3].map(numbers);
        let rows = stream(&batches[0].schema(), batches.into_iter().map(Ok).collect());
        let messages: Vec<WireMessage> = encoded(rows, packed_by(Codec::Zstd)).map(Result::unwrap).collect().await;
        let compressed: Vec<bool> = messages[1..]
            .iter()
            .map(|message| {
                let root = arrow_ipc::root_as_message(&message.header).unwrap();
                root.header_as_record_batch().unwrap().compression().is_some()
            })
            .collect();
        assert_eq!(compressed, [false, true, true, false]);
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 100_006);
    }

    #[tokio::test]
    async fn empty_values_at_the_end_of_a_message_are_no_message() {
        let words: ArrayRef = Arc::new(StringViewArray::from(vec!["", ""]));
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let messages = encode_as(packed_by(codec), batch("s", Arc::clone(&words))).await;
            assert_eq!((messages.len(), decode(&messages)[0].num_rows()), (2, 2), "{codec:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_result_is_its_schema() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        assert_eq!(encoded(stream(&schema, vec![]), packed_by(Codec::Zstd)).count().await, 1);
    }

    #[tokio::test]
    async fn an_error_of_the_query_ends_the_stream_with_its_kind_after_the_rows_before_it() {
        for codec in [Codec::None, Codec::Zstd] {
            let cause = crate::query::QueryError::new(ErrorKind::DeadlineExceeded, "too long");
            let broken = Err(DataFusionError::External(Box::new(cause)));
            let batches = vec![Ok(numbers(1)), Ok(numbers(1_000_000)), Ok(numbers(2)), broken, Ok(numbers(1))];
            let mut result = encoded(stream(&numbers(0).schema(), batches), packed_by(codec));
            let mut messages = Vec::new();
            let error = loop {
                match result.next().await.unwrap() {
                    Ok(message) => messages.push(message),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{codec:?}");
            assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 1_000_003, "{codec:?}");
            assert_eq!(result.sent().0, 1_000_003, "{codec:?}");
            assert!(result.next().await.is_none());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_that_are_packed_beside_each_other_stay_in_order() {
        let batches = (0..40_i64).map(|part| {
            // Some take long to pack, some do not.
            let values = (0..60_000_i64)
                .map(|at| if part % 3 == 0 { at.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) } else { part });
            Ok(batch("n", Arc::new(Int64Array::from_iter_values(values))))
        });
        let batches: Vec<_> = batches.collect();
        let expected: Vec<i64> = batches.iter().flatten().flat_map(values).collect();
        let schema = batches.iter().flatten().next().unwrap().schema();
        let messages: Vec<WireMessage> =
            encoded(stream(&schema, batches), packed_by(Codec::Zstd)).map(Result::unwrap).collect().await;
        let read: Vec<i64> = decode(&messages).iter().flat_map(values).collect();
        assert!(read == expected, "{} rows of {}", read.len(), expected.len());
    }

    fn values(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_is_an_error_and_ends_the_stream() {
        let announced: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int8, true)]));
        let wide = batch("n", Arc::new(Int64Array::from_value(1000, 500_000)));
        let batches = stream(&wide.schema(), vec![Ok(numbers(5)), Ok(wide.clone()), Ok(wide)]);
        let encoders = Encoders::new(2, 1 << 30);
        let profile = packed_by(Codec::Zstd);
        let result = EncodedResult::new(announced, batches, profile, MESSAGE_BYTES, &encoders).unwrap();
        let came: Vec<Result<WireMessage, DeliveryError>> = result.collect().await;
        let errors: Vec<String> = came.iter().filter_map(|item| item.as_ref().err()).map(ToString::to_string).collect();
        assert_eq!((came.len(), errors.len()), (3, 1), "{errors:?}");
        assert!(errors[0].contains("`n`"), "{errors:?}");
    }

    /// Batches that count how often they were asked for, and tell when they are dropped.
    fn counted(
        batch: &RecordBatch,
        dropped: Arc<()>,
    ) -> (SendableRecordBatchStream, Arc<std::sync::atomic::AtomicUsize>) {
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (count, schema, batch) = (Arc::clone(&asked), batch.schema(), batch.clone());
        let batches = futures::stream::repeat_with(move || {
            let _held = &dropped;
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(batch.clone())
        });
        (Box::pin(RecordBatchStreamAdapter::new(schema, batches)), asked)
    }

    #[tokio::test]
    async fn no_more_is_packed_ahead_than_the_window_holds_and_dropping_stops_all() {
        let alive = Arc::new(());
        let (batches, asked) = counted(&numbers(250_000), Arc::clone(&alive));
        let mut result = encoded(batches, packed_by(Codec::Zstd));
        for _ in 0..6 {
            result.next().await.unwrap().unwrap();
        }
        // The first batch is cut to three or four messages, the others are a message each.
        let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
        assert!(asked <= 6 + WINDOW, "{asked}");
        drop(result);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[tokio::test]
    async fn without_memory_for_it_nothing_is_packed_ahead_and_all_is_sent() {
        let rows: Vec<_> = (0..5).map(|_| Ok(numbers(250_000))).collect();
        let schema = numbers(0).schema();
        let profile = packed_by(Codec::Lz4);
        let result = EncodedResult::new(
            result_schema(&schema, profile, &[]),
            stream(&schema, rows),
            profile,
            MESSAGE_BYTES,
            &Encoders::new(1, 0),
        );
        let messages: Vec<WireMessage> = result.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 1_250_000);
    }

    #[tokio::test]
    async fn messages_for_a_slow_line_are_small() {
        let noise = (0..2_000_000_i64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
        let rows = batch("n", Arc::new(Int64Array::from_iter_values(noise)));
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let (schema, encoders) = (wire_schema(&rows.schema()), Encoders::new(2, 1 << 30));
            let result =
                EncodedResult::new(schema, single_batch(rows.clone()), packed_by(codec), SLOW_MESSAGE_BYTES, &encoders);
            let messages: Vec<WireMessage> = result.unwrap().map(Result::unwrap).collect().await;
            let largest = messages.iter().map(WireMessage::body_len).max();
            // What cannot be compressed takes as much as three times as long.
            assert!(largest <= Some(3 * SLOW_MESSAGE_BYTES + 4096), "{codec:?}: {largest:?}");
            assert!(messages[1].body_len() <= (64 << 10) + 4096, "{codec:?}");
        }
    }

    #[tokio::test]
    async fn a_dictionary_is_sent_again_only_when_its_words_change() {
        let words = |of: &[&str]| -> RecordBatch {
            let words: Vec<&str> = of.iter().copied().cycle().take(100_000).collect();
            batch("s", Arc::new(StringArray::from(words)))
        };
        let batches = [words(&["b", "a"]), words(&["a", "b"]), words(&["a", "c"]), words(&["c", "a"])];
        let plain: Vec<String> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_string::<i32>().iter().map(|word| word.unwrap().to_owned()))
            .collect();
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let rows = stream(&batches[0].schema(), batches.iter().cloned().map(Ok).collect());
            let profile = WireProfile { codec, dictionaries: true, ..WireProfile::default() };
            let messages: Vec<WireMessage> = encoded(rows, profile).map(Result::unwrap).collect().await;
            let dictionaries: Vec<_> = messages
                .iter()
                .filter(|message| {
                    let root = arrow_ipc::root_as_message(&message.header).unwrap();
                    root.header_as_dictionary_batch().is_some()
                })
                .map(WireMessage::contiguous_body)
                .collect();
            // A message in which the batches meet may have the words of both; none comes twice in a row.
            let sent = messages.len() - 1;
            assert!((2..=3).contains(&dictionaries.len()), "{codec:?}: {} in {sent}", dictionaries.len());
            assert!(dictionaries.windows(2).all(|two| two[0] != two[1]), "{codec:?}");
            assert!(sent > 2 * dictionaries.len(), "{codec:?}: {} in {sent}", dictionaries.len());
            let read: Vec<String> = decode(&messages)
                .iter()
                .flat_map(|batch| {
                    let words = batch.column(0).as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap();
                    words.into_iter().map(|word| word.unwrap().to_owned()).collect::<Vec<_>>()
                })
                .collect();
            assert!(read == plain, "{codec:?}");
        }
    }

    #[tokio::test]
    async fn shorter_numbers_take_less_of_the_line() {
        let numbers = (0..200_000_u32).map(|at| (f64::from(at) * 0.7).sin());
        let rows = batch("d", Arc::new(Float64Array::from_iter_values(numbers)));
        let mut sizes = Vec::new();
        for precision in [Precision::Full, Precision::Float32, Precision::Rounded, Precision::Float16] {
            let profile = WireProfile { codec: Codec::Zstd, precision, ..WireProfile::default() };
            let messages = encode_as(profile, rows.clone()).await;
            assert_eq!(decode(&messages).iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
            sizes.push(messages.iter().map(WireMessage::body_len).sum::<usize>());
        }
        assert!(sizes.is_sorted_by(|one, next| next < one), "{sizes:?}");
    }
}
