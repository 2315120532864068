//! Rows that clients send. What a message says of itself is looked at before anything is decoded: the
//! decoder allocates what a compressed buffer claims to hold, and believes every length.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::ipc::{self, CompressionType};
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::server::LARGEST_REQUEST;
use crate::flight::status::refuse;

/// Most bytes that the compressed buffers of one message may hold: as much as a message without compression.
const MOST_BYTES: i64 = LARGEST_REQUEST as i64;
/// Most values of one column of one message, nested ones too: no more fit into a message, but for columns that are all
/// null and for lists of nothing, whose lengths cost no bytes.
const MOST_VALUES: i64 = 1 << 26;
/// Most times its size that an LZ4 frame can hold (one byte of length for 255 of content). Its decoder goes on until the
/// frame ends, whatever the message said.
const LZ4_RATIO: i64 = 255;

/// The batches of a stream of messages. Ends with its first error.
pub(crate) struct IncomingRows {
    /// None after an error.
    decoder: Option<FlightRecordBatchStream>,
    schema: Option<SchemaRef>,
}

impl IncomingRows {
    /// Decodes `messages`, the first of which holds the schema.
    pub(crate) fn new(messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static) -> Self {
        let checked = messages.and_then(|message| std::future::ready(check(&message).map(|()| message)));
        let checked = checked.map_err(|status| FlightError::Tonic(Box::new(status)));
        Self { decoder: Some(FlightRecordBatchStream::new_from_flight_data(checked)), schema: None }
    }

    /// The columns, once the first batch or the end has come; none where no schema was sent.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        let now = self.decoder.as_ref().and_then(|decoder| decoder.schema().cloned());
        now.or_else(|| self.schema.clone())
    }
}

impl Stream for IncomingRows {
    type Item = Result<RecordBatch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(decoder) = &mut self.decoder else { return Poll::Ready(None) };
        // Where buffers are shorter than the lengths need, parts of the decoder assert instead of failing.
        let polled = catch_unwind(AssertUnwindSafe(|| decoder.poll_next_unpin(context)));
        let end = match polled {
            Ok(Poll::Ready(Some(Err(FlightError::Tonic(status))))) => Some(*status),
            Ok(Poll::Ready(Some(Err(error)))) => Some(unreadable(&error.to_string())),
            Ok(Poll::Ready(Some(Ok(batch)))) => return Poll::Ready(Some(Ok(batch))),
            Ok(Poll::Ready(None)) => None,
            Ok(Poll::Pending) => return Poll::Pending,
            Err(_) => Some(unreadable("their lengths do not fit their bytes")),
        };
        self.schema = self.schema();
        self.decoder = None;
        Poll::Ready(end.map(Err))
    }
}

/// Whether the lengths of a message can be true.
fn check(message: &FlightData) -> Result<(), Status> {
    if message.data_header.is_empty() {
        return Ok(());
    }
    let header = ipc::root_as_message(&message.data_header).map_err(|error| unreadable(&error.to_string()))?;
    let batch = match (header.header_as_record_batch(), header.header_as_dictionary_batch()) {
        (Some(batch), _) => batch,
        (None, Some(dictionary)) => match dictionary.data() {
            Some(batch) => batch,
            None => return Err(unreadable("a dictionary has no values")),
        },
        (None, None) => return Ok(()),
    };
    let lengths = batch.nodes().into_iter().flatten().flat_map(|node| [node.length(), node.null_count()]);
    if std::iter::once(batch.length()).chain(lengths).any(|length| !(0..=MOST_VALUES).contains(&length)) {
        return Err(too_large(&format!("has columns of more than {MOST_VALUES} values")));
    }
    let mut held = 0_i64;
    for buffer in batch.buffers().into_iter().flatten() {
        let bytes = bytes_of(&message.data_body, buffer.offset(), buffer.length())
            .ok_or_else(|| unreadable("a buffer lies outside of its message"))?;
        if let (Some(compression), Some(prefix)) = (batch.compression(), bytes.first_chunk::<8>()) {
            // Negative: it is not compressed (Message.fbs, `BodyCompressionMethod.BUFFER`).
            let claimed = i64::from_le_bytes(*prefix).max(0);
            let possible = match compression.codec() {
                CompressionType::LZ4_FRAME => claimed.max(buffer.length().saturating_mul(LZ4_RATIO)),
                _ => claimed,
            };
            held = held.saturating_add(possible);
        }
    }
    if held > MOST_BYTES {
        return Err(too_large(&format!("may hold {held} bytes when its compression is undone")));
    }
    Ok(())
}

fn bytes_of(body: &[u8], offset: i64, length: i64) -> Option<&[u8]> {
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(offset..offset.checked_add(length)?)
}

fn unreadable(reason: &str) -> Status {
    refuse(ErrorKind::InvalidInput, format!("the rows that were sent cannot be read: {reason}"))
}

fn too_large(what: &str) -> Status {
    let most = MOST_BYTES >> 20;
    let message =
        format!("a message of rows {what}; send batches of at most {most} MiB, without compression or with ZSTD");
    refuse(ErrorKind::ResourceExhausted, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, NullArray};
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::utils::flight_data_from_arrow_batch;
    use arrow_flight::{IpcMessage, SchemaAsIpc};
    use futures::stream;
    use tonic::Code;

    use super::*;

    fn numbers() -> RecordBatch {
        let column = Int64Array::from_iter_values(std::iter::repeat_n(7, 10_000));
        RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).unwrap()
    }

    /// The messages of a batch: schema and rows.
    fn messages(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<FlightData> {
        let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
        let schema: FlightData = SchemaAsIpc::new(&batch.schema(), &options).into();
        #[expect(deprecated, reason = "the shortest way to one message")]
        let (_, rows) = flight_data_from_arrow_batch(batch, &options);
        vec![schema, rows]
    }

    async fn read(messages: Vec<FlightData>) -> Result<Vec<RecordBatch>, Status> {
        IncomingRows::new(stream::iter(messages.into_iter().map(Ok))).try_collect().await
    }

    #[tokio::test]
    async fn rows_are_read_whatever_their_compression() {
        for codec in [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)] {
            assert_eq!(read(messages(&numbers(), codec)).await.unwrap(), [numbers()]);
        }
    }

    #[tokio::test]
    async fn a_buffer_that_claims_to_be_huge_is_refused_before_it_is_undone() {
        let mut bomb = messages(&numbers(), Some(CompressionType::ZSTD));
        let header = bomb[1].data_header.clone();
        let batch = ipc::root_as_message(&header).unwrap().header_as_record_batch().unwrap();
        let at = batch.buffers().unwrap().iter().find(|buffer| buffer.length() > 8).unwrap().offset() as usize;
        let mut body = bomb[1].data_body.to_vec();
        body[at..at + 8].copy_from_slice(&(1_i64 << 46).to_le_bytes());
        bomb[1].data_body = body.into();
        let refused = read(bomb).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }

    #[tokio::test]
    async fn columns_of_nothing_but_length_are_refused() {
        let nulls = NullArray::new((MOST_VALUES + 1) as usize);
        let batch = RecordBatch::try_from_iter([("nothing", Arc::new(nulls) as _)]).unwrap();
        assert_eq!(read(messages(&batch, None)).await.unwrap_err().code(), Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn a_body_that_is_too_short_is_an_error_and_the_end() {
        for keep in [0, 8, 1000] {
            let mut cut = messages(&numbers(), None);
            cut[1].data_body.truncate(keep);
            let mut rows = IncomingRows::new(stream::iter(cut.into_iter().map(Ok)));
            let refused = rows.next().await.unwrap().unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(rows.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn no_altered_byte_makes_it_panic() {
        for codec in [None, Some(CompressionType::ZSTD)] {
            let whole = messages(&numbers(), codec);
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
