//! `DoGet` without copies: rows go to the connection as the buffers they already are.
//!
//! The generated service would first gather a message's buffers into one, then copy that into the
//! frame it sends. On a full scan those two copies are a good part of what sending costs, so this
//! one call writes its own gRPC frames (`frame.rs`); all others go to the generated service.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::NamedService;
use tonic::{Code, Status, Streaming};
use tower_service::Service;

use crate::error::ErrorKind;
use crate::flight::frame::{ENCODING, GZIP};
use crate::flight::results::ResultStream;
use crate::flight::service::FlightCalls;
use crate::flight::status::refuse;

/// The path of the one call that is answered here.
const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";

/// The service as it stands on the connection.
#[derive(Clone)]
pub(crate) struct WireService {
    calls: FlightCalls,
    generated: FlightServiceServer<FlightCalls>,
    largest_request: usize,
}

impl WireService {
    /// Answers with `calls`; takes messages of at most `largest_request` bytes.
    pub(crate) fn new(calls: FlightCalls, largest_request: usize) -> Self {
        let generated = FlightServiceServer::new(calls.clone()).max_decoding_message_size(largest_request);
        Self { calls, generated, largest_request }
    }
}

impl NamedService for WireService {
    const NAME: &'static str = <FlightServiceServer<FlightCalls> as NamedService>::NAME;
}

impl Service<Request<Body>> for WireService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != DO_GET {
            return self.generated.call(request);
        }
        let (calls, largest) = (self.calls.clone(), self.largest_request);
        Box::pin(async move { Ok(do_get(&calls, request, largest).await.unwrap_or_else(Status::into_http)) })
    }
}

async fn do_get(calls: &FlightCalls, request: Request<Body>, largest: usize) -> Result<Response<Body>, Status> {
    let headers = MetadataMap::from_headers(request.headers().clone());
    let caller = calls.caller(&headers, request.extensions()).await?;
    let pass = calls.gate.enter()?;
    let mut tickets = Streaming::new_request(TicketDecoder, request.into_body(), None, Some(largest));
    let ticket = tickets.message().await?;
    let ticket = ticket.ok_or_else(|| refuse(ErrorKind::InvalidInput, "the request holds no ticket"))?;
    let rows = Arc::clone(&calls.service).rows(&caller, &ticket, pass).await?;
    let is_compressed = rows.is_compressed();
    let mut response = Response::new(Body::new(Rows::new(rows)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    if is_compressed {
        response.headers_mut().insert(ENCODING, HeaderValue::from_static(GZIP));
    }
    Ok(response)
}

struct TicketDecoder;

impl Decoder for TicketDecoder {
    type Item = Ticket;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Ticket>, Status> {
        let unreadable = |error| refuse(ErrorKind::InvalidInput, format!("the ticket cannot be read: {error}"));
        Ticket::decode(buffer).map(Some).map_err(unreadable)
    }
}

/// The body of an answer: gRPC frames, then the status as trailers.
struct Rows {
    rows: Option<ResultStream>,
    /// Parts of the last turn that were not taken yet.
    parts: VecDeque<Bytes>,
    end: Option<HeaderMap>,
}

impl Rows {
    fn new(rows: ResultStream) -> Self {
        Self { rows: Some(rows), parts: VecDeque::new(), end: None }
    }

    fn end_with(&mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // Only metadata that is no header could do this, and ours is.
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
        }
        self.rows = None;
        self.end = Some(trailers);
    }
}

impl http_body::Body for Rows {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            let Some(rows) = &mut self.rows else {
                return Poll::Ready(self.end.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            match ready!(rows.poll_next_unpin(context)) {
                Some(Ok(parts)) => self.parts = parts,
                Some(Err(status)) => self.end_with(&status),
                None => self.end_with(&Status::new(Code::Ok, "")),
            }
        }
    }
}
