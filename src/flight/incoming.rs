//! Rows that clients send: read message by message, none of which may become much more than it was on the line.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::{CompressionType, DictionaryBatch, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder, FlightRecordBatchStream};
use arrow_flight::error::FlightError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::refuse;
use crate::query::{QueryError, Unpacked};

/// Bytes the buffers of one message may have once they are unpacked: four times the largest message. All dictionaries that
/// stand for later batches may have as many together.
const MOST_UNPACKED_BYTES: i64 = 256 << 20;

/// Values of one column of one message, nested ones too: NULLs and lists of nothing have no bytes on the line, and have
/// some here.
const MOST_VALUES: i64 = 64 << 20;

/// Most times its size that an LZ4 frame can hold (one byte of length for 255 of content): its decoder goes on until the
/// frame ends, whatever the message said.
const LZ4_RATIO: i64 = 255;

/// Bytes of the values that may be bound at once, as they are held in memory until the statement has run.
const MOST_BOUND_BYTES: usize = 256 << 20;

/// Values that were bound, and what they take of the memory as long as they are held.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) memory: MemoryReservation,
}

/// How values that are bound are held until their statement has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// In the batches they came in.
    InBatches,
    /// One by one.
    OneByOne,
}

/// The columns of what is sent, and its batches.
///
/// # Errors
/// `INVALID_ARGUMENT` when what is sent does not begin with its columns.
pub(crate) async fn rows(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch, Status>>), Status> {
    let mut decoder = FlightDataDecoder::new(checked(messages));
    loop {
        match decoder.next().await.transpose().map_err(status_of)? {
            Some(message) => match message.payload {
                DecodedPayload::Schema(schema) => {
                    let batches = FlightRecordBatchStream::new(decoder).map_err(status_of);
                    return Ok((schema, sound(batches.boxed())));
                }
                DecodedPayload::None => {}
                DecodedPayload::RecordBatch(_) => return Err(no_columns()),
            },
            None => return Err(no_columns()),
        }
    }
}

/// All batches of bound values, which are taken from the memory of `pool`.
///
/// # Errors
/// `INVALID_ARGUMENT` when they cannot be read, `RESOURCE_EXHAUSTED` when they are too many, or would be as they are held, or
/// there is no memory left for them.
pub(crate) async fn bound(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    held: Held,
    pool: &Arc<dyn MemoryPool>,
) -> Result<Bound, Status> {
    let batches = FlightRecordBatchStream::new_from_flight_data(checked(messages)).map_err(status_of);
    let mut batches = sound(batches.boxed());
    let memory = MemoryConsumer::new("values that are bound").register(pool);
    let mut bound = Bound { batches: Vec::new(), memory };
    while let Some(batch) = batches.try_next().await? {
        let bytes = bytes_held(&batch, held, MOST_BOUND_BYTES - bound.memory.size()).ok_or_else(|| {
            let message = format!(
                "more than {} MiB of values are bound at once; bind fewer rows at a time, or send them as an ingestion",
                MOST_BOUND_BYTES >> 20
            );
            refuse(ErrorKind::ResourceExhausted, message)
        })?;
        bound.hold(bound.memory.size() + bytes)?;
        bound.batches.push(batch);
    }
    Ok(bound)
}

impl Bound {
    /// Takes as much memory as the values do by now.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there is not as much.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Status> {
        self.memory.try_resize(bytes).map_err(|error| QueryError::from(error).into())
    }
}

/// Bytes that bound values take at most; none where they are more than `most`.
fn bytes_held(batch: &RecordBatch, held: Held, most: usize) -> Option<usize> {
    let mut unpacked = Unpacked::up_to(most);
    for column in batch.columns().iter().filter(|_| held == Held::OneByOne) {
        unpacked.scalars(batch.num_rows(), column.data_type())?;
    }
    for column in batch.columns() {
        unpacked.count(column, column.data_type())?;
    }
    Some(unpacked.bytes().max(batch.get_array_memory_size())).filter(|bytes| *bytes <= most)
}

/// Batches up to the first that cannot be read, also where reading it panics: the library's checks are not complete.
fn sound(batches: BoxStream<'static, Result<RecordBatch, Status>>) -> BoxStream<'static, Result<RecordBatch, Status>> {
    futures::stream::unfold(Some(batches), |batches| async {
        let mut batches = batches?;
        match AssertUnwindSafe(batches.next()).catch_unwind().await {
            Ok(Some(Ok(batch))) => Some((Ok(batch), Some(batches))),
            Ok(Some(Err(status))) => Some((Err(status), None)),
            Ok(None) => None,
            Err(_) => Some((Err(refuse(ErrorKind::InvalidInput, "the rows cannot be read: they are damaged")), None)),
        }
    })
    .boxed()
}

fn checked(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static {
    // A message that only says what the rows are for has no header of Arrow's.
    let with_rows = |message: &Result<FlightData, Status>| !matches!(message, Ok(bare) if bare.data_header.is_empty());
    let mut dictionaries = Dictionaries::default();
    messages.filter(move |message| std::future::ready(with_rows(message))).map(move |message| {
        let checked = message.and_then(|message| check(&message, &mut dictionaries).map(|()| message));
        checked.map_err(|status| FlightError::Tonic(Box::new(status)))
    })
}

fn status_of(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => refuse(ErrorKind::InvalidInput, format!("the rows cannot be read: {other}")),
    }
}

fn no_columns() -> Status {
    refuse(ErrorKind::InvalidInput, "the rows cannot be read: no schema came before them")
}

/// Bytes of the dictionaries that a decoder keeps for the batches to come, of which there may be none.
#[derive(Default)]
struct Dictionaries {
    by_id: HashMap<i64, i64>,
    bytes: i64,
}

impl Dictionaries {
    /// Counts one that takes the place of what had its number before, or is added to it.
    fn add(&mut self, dictionary: DictionaryBatch<'_>, bytes: i64) -> Result<(), Status> {
        let of_this = self.by_id.entry(dictionary.id()).or_default();
        if !dictionary.isDelta() {
            self.bytes -= std::mem::take(of_this);
        }
        *of_this = of_this.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= MOST_UNPACKED_BYTES {
            return Ok(());
        }
        let message = format!(
            "the dictionaries of the rows that are sent may hold more than {} MiB together; send plain values, or fewer \
             columns at a time",
            MOST_UNPACKED_BYTES >> 20
        );
        Err(refuse(ErrorKind::ResourceExhausted, message))
    }
}

/// Refuses a message whose lengths cannot be true, or that may hold much more than it has bytes, or that adds to
/// dictionaries which hold too much.
fn check(message: &FlightData, dictionaries: &mut Dictionaries) -> Result<(), Status> {
    let header = root_as_message(&message.data_header).map_err(|error| unreadable(&error.to_string()))?;
    let dictionary = header.header_as_dictionary_batch();
    let batch = header.header_as_record_batch().or_else(|| dictionary.and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch else { return Ok(()) };
    let lengths = batch.nodes().into_iter().flatten().flat_map(|node| [node.length(), node.null_count()]);
    if std::iter::once(batch.length()).chain(lengths).any(|length| !(0..=MOST_VALUES).contains(&length)) {
        return Err(too_large(&format!("has columns of more than {MOST_VALUES} values")));
    }
    let mut unpacked = 0_i64;
    for buffer in batch.buffers().into_iter().flatten() {
        let bytes = bytes_of(&message.data_body, buffer.offset(), buffer.length())
            .ok_or_else(|| unreadable("a message names bytes that it does not have"))?;
        if let (Some(compression), Some(size)) = (batch.compression(), bytes.first_chunk::<8>()) {
            // -1 stands for a buffer that was not packed (Message.fbs, `BodyCompressionMethod.BUFFER`).
            let claimed = i64::from_le_bytes(*size).max(0);
            let possible = match compression.codec() {
                CompressionType::LZ4_FRAME => claimed.max(buffer.length().saturating_mul(LZ4_RATIO)),
                _ => claimed,
            };
            unpacked = unpacked.saturating_add(possible);
        }
    }
    if unpacked > MOST_UNPACKED_BYTES {
        return Err(too_large(&format!("may hold {unpacked} bytes when it is unpacked")));
    }
    let Some(dictionary) = dictionary else { return Ok(()) };
    // What is not packed stays in the message, which is kept for it.
    let message = i64::try_from(message.data_body.len()).unwrap_or(i64::MAX);
    dictionaries.add(dictionary, unpacked.saturating_add(message))
}

fn bytes_of(body: &[u8], offset: i64, length: i64) -> Option<&[u8]> {
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(offset..offset.checked_add(length)?)
}

fn unreadable(reason: &str) -> Status {
    refuse(ErrorKind::InvalidInput, format!("the rows cannot be read: {reason}"))
}

fn too_large(what: &str) -> Status {
    let most = MOST_UNPACKED_BYTES >> 20;
    let message = format!("a message of rows {what}; send batches of at most {most} MiB, not compressed or by ZSTD");
    refuse(ErrorKind::ResourceExhausted, message)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, DictionaryArray, Int8Array, Int32Array, Int64Array, NullArray, RunArray, StringArray,
    };
    use arrow::datatypes::{Int8Type, Int32Type};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
    use datafusion::execution::memory_pool::UnboundedMemoryPool;
    use futures::stream;
    use tonic::Code;

    use super::*;

    fn numbers() -> RecordBatch {
        let column = Int64Array::from_iter_values(std::iter::repeat_n(7, 10_000));
        RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap()
    }

    /// The messages of a batch: schema and rows.
    async fn messages(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let batches = stream::iter([Ok(batch.clone())]);
        let encoder = FlightDataEncoderBuilder::new().with_options(options);
        encoder.with_dictionary_handling(DictionaryHandling::Resend).build(batches).try_collect().await.unwrap()
    }

    async fn read(messages: Vec<FlightData>) -> Result<Vec<RecordBatch>, Status> {
        let (_, batches) = rows(stream::iter(messages.into_iter().map(Ok))).await?;
        batches.try_collect().await
    }

    #[tokio::test]
    async fn rows_are_read_whatever_their_compression() {
        for codec in [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)] {
            assert_eq!(read(messages(&numbers(), codec).await).await.unwrap(), [numbers()]);
        }
    }

    #[tokio::test]
    async fn a_buffer_that_claims_to_be_huge_is_refused_before_it_is_undone() {
        let mut bomb = messages(&numbers(), Some(CompressionType::ZSTD)).await;
        claim(&mut bomb[1], 1 << 46);
        let refused = read(bomb).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }

    /// Lets a packed message say that one of its buffers has so many bytes once it is unpacked.
    fn claim(message: &mut FlightData, bytes: i64) {
        let header = message.data_header.clone();
        let header = root_as_message(&header).unwrap();
        let dictionary = header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let batch = header.header_as_record_batch().or(dictionary).unwrap();
        let at = batch.buffers().unwrap().iter().find(|buffer| buffer.length() > 8).unwrap().offset() as usize;
        let mut body = message.data_body.to_vec();
        body[at..at + 8].copy_from_slice(&bytes.to_le_bytes());
        message.data_body = body.into();
    }

    #[tokio::test]
    async fn dictionaries_that_no_batch_has_used_yet_are_counted_together() {
        let words = StringArray::from(vec!["x".repeat(1000)]);
        let words = DictionaryArray::<Int8Type>::try_new(Int8Array::from(vec![0]), Arc::new(words)).unwrap();
        let columns = ["a", "b"].map(|name| (name, Arc::new(words.clone()) as ArrayRef));
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let [schema, mut one, mut other, rows] =
            messages(&batch, Some(CompressionType::ZSTD)).await.try_into().unwrap();
        assert_eq!(read(vec![schema.clone(), one.clone(), other.clone(), rows]).await.unwrap().len(), 1);
        for dictionary in [&mut one, &mut other] {
            claim(dictionary, MOST_UNPACKED_BYTES * 3 / 4);
        }
        let checked = checked(stream::iter([schema, one.clone(), one, other].map(Ok)));
        let passed: Vec<_> = checked.map_err(status_of).collect().await;
        let refused: Vec<_> = passed.into_iter().map(|passed| passed.err().map(|status| status.code())).collect();
        assert_eq!(refused, [None, None, None, Some(Code::ResourceExhausted)], "one takes the place of itself");
    }

    #[tokio::test]
    async fn bound_values_are_taken_from_the_memory_as_long_as_they_are_held() {
        let messages = messages(&numbers(), None).await;
        let bound = async |pool: &Arc<dyn MemoryPool>| {
            bound(stream::iter(messages.clone().into_iter().map(Ok)), Held::InBatches, pool).await
        };
        let (small, large) = (crate::query::pool(64 << 10), crate::query::pool(1 << 20));
        let refused = bound(&small).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let held = bound(&large).await.unwrap();
        assert!(large.reserved() >= 80_000, "{}", large.reserved());
        drop(held);
        assert_eq!((small.reserved(), large.reserved()), (0, 0));
    }

    #[tokio::test]
    async fn columns_of_nothing_but_length_are_refused() {
        let nulls = NullArray::new((MOST_VALUES + 1) as usize);
        let batch = RecordBatch::try_from_iter([("nothing", Arc::new(nulls) as _)]).unwrap();
        assert_eq!(read(messages(&batch, None).await).await.unwrap_err().code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn bound_values_are_counted_as_they_will_be_held() {
        let held = async |column: ArrayRef, held| {
            let batch = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap();
            let messages = messages(&batch, None).await;
            let on_the_line: usize = messages.iter().map(|message| message.data_body.len()).sum();
            assert!(on_the_line < 1 << 20, "{on_the_line}");
            let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
            bound(stream::iter(messages.into_iter().map(Ok)), held, &pool).await
        };
        let nulls = || Arc::new(NullArray::new(MOST_VALUES as usize)) as ArrayRef;
        let word = StringArray::from(vec!["x".repeat(1 << 19)]);
        let words = DictionaryArray::<Int8Type>::try_new(Int8Array::from(vec![0; 1000]), Arc::new(word)).unwrap();
        let words = || Arc::new(words.clone()) as ArrayRef;
        let run = Int32Array::from(vec![MOST_VALUES as i32]);
        let run = RunArray::<Int32Type>::try_new(&run, &Int64Array::from(vec![7])).unwrap();
        let runs = || Arc::new(run.clone()) as ArrayRef;
        for bomb in [nulls(), words(), runs()] {
            for how in [Held::InBatches, Held::OneByOne] {
                let refused = held(Arc::clone(&bomb), how).await.unwrap_err();
                assert_eq!(refused.code(), Code::ResourceExhausted, "{}, {how:?}: {refused}", bomb.data_type());
            }
        }
        let many = nulls().slice(0, 8 << 20);
        assert!(held(Arc::clone(&many), Held::InBatches).await.is_ok());
        assert_eq!(held(many, Held::OneByOne).await.unwrap_err().code(), Code::ResourceExhausted);
        for few in [nulls().slice(0, 1000), words().slice(0, 100), runs().slice(0, 1000)] {
            assert!(held(Arc::clone(&few), Held::OneByOne).await.is_ok(), "{}", few.data_type());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_short_is_an_error_and_the_end() {
        for keep in [0, 8, 1000] {
            let mut cut = messages(&numbers(), None).await;
            cut[1].data_body.truncate(keep);
            let (_, mut batches) = rows(stream::iter(cut.into_iter().map(Ok))).await.unwrap();
            let refused = batches.next().await.unwrap().unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(batches.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn no_altered_byte_makes_it_panic() {
        for codec in [None, Some(CompressionType::ZSTD)] {
            let whole = messages(&numbers(), codec).await;
            for at in 0..whole[1].data_header.len() {
                let mut altered = whole.clone();
                let mut header = altered[1].data_header.to_vec();
                header[at] ^= 0x55;
                altered[1].data_header = header.into();
                // Some bytes mean nothing; what counts is that each ends in rows or an error.
                let _ = read(altered).await;
            }
        }
    }
}
