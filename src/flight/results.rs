//! What answers are made of: the description of a result, and the stream that carries it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tonic::Status;

use crate::delivery::EncodedResult;
use crate::flight::caller::Caller;
use crate::flight::download::{Download, Wanted};
use crate::flight::gate::Pass;
use crate::flight::patience::Patience;
use crate::flight::rows::{Outgoing, RunRows, Source};
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::status::malformed;
use crate::model::{Codec, WireProfile};

/// A result on its way. Dropping it stops the query, unless its client may come back; so does the server's end, and a cancellation.
pub(crate) enum ResultStream {
    /// The answer to a question about tables, which is there already.
    Answer {
        /// Its messages.
        encoded: Box<EncodedResult>,
        /// The one that waits for the line.
        next: Box<Outgoing>,
        /// The right to be sent.
        _pass: Pass,
    },
    /// The rows of a statement.
    Rows(Box<RunStream>),
    /// The same, for a client that may come back for the rest.
    Download(Box<Download>),
}

impl ResultStream {
    /// Sends what is there already.
    pub(crate) fn of_answer(
        service: &Service,
        (schema, codec): (SchemaRef, Codec),
        batches: SendableRecordBatchStream,
        pass: Pass,
        caller: &Caller,
    ) -> Result<Self, Status> {
        let lane = caller.lane(&service.lines);
        let profile = WireProfile { codec, ..WireProfile::default() };
        let encoded = EncodedResult::new(schema, batches, profile, lane.message_bytes(), &service.encoders)?;
        let next = caller.outgoing(lane, &service.encoders);
        Ok(Self::Answer { encoded: Box::new(encoded), next: Box::new(next), _pass: pass })
    }

    /// Sends the rows of a run as long as its patience lasts. A client that may come back is sent them from a position on.
    pub(crate) fn of_run(
        (service, caller): (&Service, &Caller),
        rows: Source,
        (run, patience): (Run, Patience),
        wanted: Option<Wanted>,
    ) -> Self {
        let mut lane = caller.lane(&service.lines);
        run.handle.held().rows = Some(rows);
        lane.tell(&service.journal, run.handle.id, &run.handle.person.name);
        let (rows, next) = (RunRows::new(service, run, patience), caller.outgoing(lane, &service.encoders));
        match wanted {
            None => Self::Rows(Box::new(RunStream { rows, next, ended: false })),
            Some(wanted) => Self::Download(Box::new(service.downloads.begin(caller, rows, next, wanted))),
        }
    }
}

impl ResultStream {
    /// Whether frames may be compressed, which the answer's headers have to say.
    pub(crate) fn is_compressed(&self) -> bool {
        match self {
            Self::Answer { next, .. } => next.is_compressed(),
            Self::Rows(rows) => rows.next.is_compressed(),
            Self::Download(download) => download.is_compressed(),
        }
    }
}

/// Gives frames, in as many parts as they take turns.
impl Stream for ResultStream {
    type Item = Result<VecDeque<Bytes>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self {
            Self::Answer { encoded, next, .. } => {
                if next.is_empty() {
                    match ready!(encoded.poll_next_unpin(context)) {
                        Some(Ok(message)) => next.put(message),
                        Some(Err(failed)) => return Poll::Ready(Some(Err(Status::from(failed)))),
                        None => return Poll::Ready(None),
                    }
                }
                next.poll_sent(context).map(Some)
            }
            Self::Rows(rows) => rows.poll_message(context),
            Self::Download(download) => download.poll_message(context),
        }
    }
}

/// The rows of a run on their way to a client that, once gone, does not come back.
pub(crate) struct RunStream {
    rows: RunRows,
    /// The message that waits for the line.
    next: Outgoing,
    ended: bool,
}

impl RunStream {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<VecDeque<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.next.has_begun()
            && let Err(status) = self.rows.check(context)
        {
            return self.fail(status);
        }
        if self.next.is_empty() {
            match ready!(self.rows.poll_message(context)) {
                Some(Ok(message)) => {
                    if let Err(status) = self.rows.put(message, &mut self.next) {
                        return self.fail(status);
                    }
                }
                Some(Err(status)) => return self.fail(status),
                None => {
                    self.ended = true;
                    self.rows.run.end(Ok(()));
                    return Poll::Ready(None);
                }
            }
        }
        match ready!(self.rows.poll_sent(&mut self.next, context)) {
            Ok(sent) => Poll::Ready(Some(Ok(sent))),
            Err(status) => self.fail(status),
        }
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<VecDeque<Bytes>, Status>>> {
        self.ended = true;
        self.rows.run.end(Err(&status));
        Poll::Ready(Some(Err(status)))
    }
}

/// The description of a result: one endpoint, which is this server, so without a location; its
/// number of rows and bytes is not known before it has run.
pub(crate) fn flight_info(
    schema: &Schema,
    ticket: impl Into<Bytes>,
    expires_at: Option<DateTime<Utc>>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let mut endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    if let Some(expires_at) = expires_at {
        let expiration = endpoint.expiration_time.get_or_insert_default();
        expiration.seconds = expires_at.timestamp();
    }
    let info = FlightInfo::new().try_with_schema(schema).map_err(|error| malformed(&error))?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_ordered(true))
}

/// A schema as an encapsulated IPC message, as Flight SQL carries it inside its messages.
pub(crate) fn encapsulated(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    message.map(|IpcMessage(bytes)| bytes).map_err(|error| malformed(&error))
}
