//! What answers are made of: the description of a result, and the stream that carries it.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::SendableRecordBatchStream;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use crate::delivery::{EncodedResult, WireMessage};
use crate::flight::admission::{Admission, Slot};
use crate::flight::allowance::Allowance;
use crate::flight::gate::Pass;
use crate::flight::patience::Patience;
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::status::{malformed, panicked};
use crate::model::Codec;

/// A result on its way. Dropping it stops the query; so does the server's end, and a cancellation.
pub(crate) enum ResultStream {
    /// The answer to a question about tables, which is there already.
    Answer {
        /// Its messages.
        encoded: Box<EncodedResult>,
        /// The right to be sent.
        _pass: Pass,
    },
    /// The rows of a statement.
    Rows(Box<RunStream>),
}

impl ResultStream {
    /// Sends what is there already.
    pub(crate) fn of_answer(
        (schema, codec): (SchemaRef, Codec),
        batches: SendableRecordBatchStream,
        pass: Pass,
    ) -> Result<Self, Status> {
        Ok(Self::Answer { encoded: Box::new(EncodedResult::new(schema, batches, codec)?), _pass: pass })
    }

    /// Sends the rows of a run under `schema`, compressed by `codec`, as long as `patience` lasts.
    pub(crate) fn of_run(
        service: &Service,
        (schema, batches): (SchemaRef, SendableRecordBatchStream),
        codec: Codec,
        run: Run,
        patience: Patience,
    ) -> Result<Self, Status> {
        run.handle.held().rows = Some(EncodedResult::new(schema, batches, codec)?);
        let person = &run.handle.person;
        Ok(Self::Rows(Box::new(RunStream {
            stopped: Box::pin(run.pass().stopped()),
            allowance: service.allowances.of(&person.name, person.is_admin),
            admission: service.admission.clone(),
            again: None,
            patience,
            run,
            ended: false,
        })))
    }
}

impl Stream for ResultStream {
    type Item = Result<WireMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self {
            Self::Answer { encoded, .. } => encoded.poll_next_unpin(context).map_err(Status::from),
            Self::Rows(rows) => rows.poll_message(context),
        }
    }
}

/// The rows of a run on their way.
pub(crate) struct RunStream {
    run: Run,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Patience,
    admission: Admission,
    /// Waits for a place, after it was given away while the client took nothing.
    again: Option<(Instant, BoxFuture<'static, Result<Slot, Status>>)>,
    allowance: Option<Arc<Allowance>>,
    ended: bool,
}

impl RunStream {
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.stopped.poll_unpin(context).is_ready() {
            let status = self.run.stopped();
            return self.fail(status);
        }
        match self.poll_place(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(status)) => return self.fail(status),
            Poll::Ready(Ok(())) => {}
        }
        let polled = self.poll_rows(context);
        if let Err(late) = self.patience.observe(&polled, context) {
            return self.fail(late);
        }
        self.run.told.ran(self.patience.spent());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(message))) => match self.count(&message) {
                Ok(()) => Poll::Ready(Some(Ok(message))),
                Err(status) => self.fail(status),
            },
            Poll::Ready(Some(Err(status))) => self.fail(status),
            Poll::Ready(None) => {
                self.ended = true;
                self.run.keep_what_was_learnt();
                self.run.end(Ok(()));
                Poll::Ready(None)
            }
        }
    }

    /// A place to compute at: still there, or given away and got again.
    fn poll_place(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.again.is_none() {
            let mut held = self.run.handle.held();
            held.waits_since = None;
            if held.slot.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        let (admission, person) = (&self.admission, &self.run.handle.person);
        let (since, again) = self.again.get_or_insert_with(|| {
            let (admission, person) = (admission.clone(), person.clone());
            (Instant::now(), async move { admission.enter_again(&person).await }.boxed())
        });
        let Poll::Ready(slot) = again.poll_unpin(context) else { return Poll::Pending };
        self.run.told.waited_again(since.elapsed());
        self.again = None;
        self.run.handle.held().slot = Some(slot?);
        Poll::Ready(Ok(()))
    }

    /// The next message. A panic while it is made is this run's end, not its connection's.
    fn poll_rows(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        let mut held = self.run.handle.held();
        let Some(rows) = &mut held.rows else { return Poll::Ready(Some(Err(self.run.stopped()))) };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| rows.poll_next_unpin(context)));
        let polled = match polled {
            Ok(polled) => polled.map_err(Status::from),
            Err(_) => Poll::Ready(Some(Err(panicked("the encoding of a result")))),
        };
        if polled.is_ready() {
            held.waits_since = Some(Instant::now());
        }
        polled
    }

    fn count(&mut self, message: &WireMessage) -> Result<(), Status> {
        let bytes = (message.header.len() + message.body_len()) as u64;
        if let Some(allowance) = &self.allowance {
            allowance.take(bytes)?;
        }
        let sent = self.run.handle.held().rows.as_ref().map(EncodedResult::sent);
        self.run.sends(sent.unwrap_or_default(), bytes);
        self.run.learn(&message.header);
        Ok(())
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<WireMessage, Status>>> {
        self.ended = true;
        self.run.end(Err(&status));
        Poll::Ready(Some(Err(status)))
    }
}

/// A message as Flight sends it.
pub(crate) fn flight_data(message: &WireMessage) -> FlightData {
    FlightData {
        flight_descriptor: None,
        data_header: message.header.clone(),
        app_metadata: Bytes::new(),
        data_body: message.contiguous_body(),
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
