//! What answers are made of: the description of a result, and the stream that carries it.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::{EncodedResult, WireMessage};
use crate::flight::gate::Pass;
use crate::flight::patience::Patience;
use crate::flight::running::{Registration, Running};
use crate::flight::status::malformed;

/// A result on its way. Dropping it stops the query; so does the server's end, and a cancellation.
pub(crate) struct ResultStream {
    /// None once the stream has ended: what it held is freed at once, not when the client has hung up.
    encoded: Option<EncodedResult>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Patience,
    pass: Pass,
    _registration: Registration,
}

impl ResultStream {
    /// Sends `batches` under `schema` as long as `patience` lasts; cancelled by the id of the ticket
    /// it was asked for with.
    pub(crate) fn new(
        schema: SchemaRef,
        batches: SendableRecordBatchStream,
        ticket: Uuid,
        running: &Running,
        (patience, pass): (Patience, Pass),
    ) -> Result<Self, Status> {
        Ok(Self {
            encoded: Some(EncodedResult::new(schema, batches)?),
            stopped: Box::pin(pass.stopped()),
            _registration: running.register(ticket, pass.stopper()),
            patience,
            pass,
        })
    }
}

impl Stream for ResultStream {
    type Item = Result<WireMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(encoded) = &mut this.encoded else { return Poll::Ready(None) };
        let polled = encoded.poll_next_unpin(context).map_err(Status::from);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.encoded = None;
            return polled;
        }
        let end = match this.patience.observe(&polled, context) {
            _ if this.stopped.poll_unpin(context).is_ready() => this.pass.reason(),
            Err(late) => late,
            Ok(()) => return polled,
        };
        this.encoded = None;
        Poll::Ready(Some(Err(end)))
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
