//! Rows that clients send: read message by message, none of which may become much more than it was on the line.

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::root_as_message;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder, FlightRecordBatchStream};
use arrow_flight::error::FlightError;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::refuse;

/// Bytes the buffers of one message may have once they are unpacked: four times the largest message.
const MOST_UNPACKED_BYTES: u64 = 256 << 20;

/// Rows of one message: a column of NULLs has no bytes on the line, and has some here.
const MOST_ROWS: i64 = 16 << 20;

/// Bytes of the values that may be bound at once: they are held in memory until the statement has run.
const MOST_BOUND_BYTES: usize = 256 << 20;

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

/// All batches of bound values.
///
/// # Errors
/// `INVALID_ARGUMENT` when they cannot be read, `RESOURCE_EXHAUSTED` when they are too many.
pub(crate) async fn bound(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Vec<RecordBatch>, Status> {
    let batches = FlightRecordBatchStream::new_from_flight_data(checked(messages)).map_err(status_of);
    let mut batches = sound(batches.boxed());
    let (mut bound, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await? {
        bytes += batch.get_array_memory_size();
        if bytes > MOST_BOUND_BYTES {
            let message = format!(
                "more than {} MiB of values are bound at once; bind fewer rows at a time, or send them as an ingestion",
                MOST_BOUND_BYTES >> 20
            );
            return Err(refuse(ErrorKind::ResourceExhausted, message));
        }
        bound.push(batch);
    }
    Ok(bound)
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
    messages.filter(move |message| std::future::ready(with_rows(message))).map(|message| {
        let checked = message.and_then(|message| check(&message).map(|()| message));
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

/// Refuses a message that says it holds much more than it has bytes.
fn check(message: &FlightData) -> Result<(), Status> {
    let unreadable = |reason: String| refuse(ErrorKind::InvalidInput, format!("the rows cannot be read: {reason}"));
    let header = root_as_message(&message.data_header).map_err(|error| unreadable(error.to_string()))?;
    let batch = header
        .header_as_record_batch()
        .or_else(|| header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch else { return Ok(()) };
    if !(0..=MOST_ROWS).contains(&batch.length()) {
        return Err(unreadable(format!("one message has {} rows; send at most {MOST_ROWS}", batch.length())));
    }
    let body = i64::try_from(message.data_body.len()).unwrap_or(i64::MAX);
    let within = |offset: i64, length: i64| {
        offset >= 0 && length >= 0 && offset.checked_add(length).is_some_and(|end| end <= body)
    };
    if batch.buffers().into_iter().flatten().any(|buffer| !within(buffer.offset(), buffer.length())) {
        return Err(unreadable("a message names bytes that it does not have".to_owned()));
    }
    if batch.compression().is_none() {
        return Ok(());
    }
    let mut unpacked = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let begin = usize::try_from(buffer.offset()).ok();
        let size = begin.and_then(|begin| message.data_body.get(begin..begin.checked_add(8)?));
        let size = size.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()).map(i64::from_le_bytes);
        // -1 stands for a buffer that was not packed; one without bytes has no size.
        unpacked = unpacked.saturating_add(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0));
    }
    if unpacked > MOST_UNPACKED_BYTES {
        let message =
            format!("one message unpacks to {unpacked} bytes; send at most {} MiB at once", MOST_UNPACKED_BYTES >> 20);
        return Err(refuse(ErrorKind::ResourceExhausted, message));
    }
    Ok(())
}
