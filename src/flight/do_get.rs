//! `DoGet` without copies: rows go to the connection as the buffers they already are.
//!
//! The generated service would first gather a message's buffers into one, then copy that into the
//! frame it sends. On a full scan those two copies are a good part of what sending costs, so this
//! one call writes its own gRPC frames; all others go to the generated service.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::buffer::Buffer;
use arrow_flight::Ticket;
use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::body::Body;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::NamedService;
use tonic::{Code, Status, Streaming};
use tower_service::Service;

use crate::delivery::WireMessage;
use crate::error::ErrorKind;
use crate::flight::results::ResultStream;
use crate::flight::service::FlightCalls;
use crate::flight::status::refuse;

/// The path of the one call that is answered here.
const DO_GET: &str = "/arrow.flight.protocol.FlightService/DoGet";
/// Tag of `FlightData.data_header`: field 2, length-delimited (Flight.proto).
const HEADER_TAG: u64 = 2 << 3 | 2;
/// Tag of `FlightData.app_metadata`: field 3, length-delimited.
const METADATA_TAG: u64 = 3 << 3 | 2;
/// Tag of `FlightData.data_body`: field 1000, length-delimited.
const BODY_TAG: u64 = 1000 << 3 | 2;
/// Buffers below this are gathered: each would become an HTTP/2 frame of its own, of at most 16 KiB.
const GATHERED: usize = 4 << 10;

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
    let mut response = Response::new(Body::new(Rows::new(rows)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
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
    /// Parts of the last message that were not taken yet.
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
                Some(Ok(message)) => self.parts = frame(message),
                Some(Err(status)) => self.end_with(&status),
                None => self.end_with(&Status::new(Code::Ok, "")),
            }
        }
    }
}

/// A message as a gRPC frame: a byte 0 for "not compressed", the length, then `FlightData`.
fn frame(message: WireMessage) -> VecDeque<Bytes> {
    let body_len = message.body_len();
    let mut length = field_len(HEADER_TAG, message.header.len());
    if !message.app_metadata.is_empty() {
        length += field_len(METADATA_TAG, message.app_metadata.len());
    }
    if body_len > 0 {
        length += field_len(BODY_TAG, body_len);
    }
    let mut gathered = BytesMut::with_capacity(message.header.len() + GATHERED);
    gathered.put_u8(0);
    // A message is some megabytes; one giant row that no client could take is cut off by the client.
    gathered.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    encode_varint(HEADER_TAG, &mut gathered);
    encode_varint(message.header.len() as u64, &mut gathered);
    gathered.extend_from_slice(&message.header);
    if !message.app_metadata.is_empty() {
        encode_varint(METADATA_TAG, &mut gathered);
        encode_varint(message.app_metadata.len() as u64, &mut gathered);
        gathered.extend_from_slice(&message.app_metadata);
    }
    if body_len > 0 {
        encode_varint(BODY_TAG, &mut gathered);
        encode_varint(body_len as u64, &mut gathered);
    }
    let mut parts = VecDeque::with_capacity(message.body.len());
    for part in message.body {
        if part.len() < GATHERED {
            gathered.extend_from_slice(&part);
        } else {
            if !gathered.is_empty() {
                parts.push_back(gathered.split().freeze());
            }
            parts.push_back(Bytes::from_owner(Part(part)));
        }
    }
    if !gathered.is_empty() {
        parts.push_back(gathered.freeze());
    }
    parts
}

fn field_len(tag: u64, value: usize) -> usize {
    encoded_len_varint(tag) + encoded_len_varint(value as u64) + value
}

/// A buffer as bytes, without a copy.
struct Part(Buffer);

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::FlightData;

    use super::*;
    use crate::flight::results::flight_data;

    #[test]
    fn a_frame_is_what_the_generated_service_would_send() {
        let large = Buffer::from(vec![7_u8; 100_000]);
        for body in [vec![], vec![Buffer::from(vec![1_u8, 2])], vec![large.clone(), Buffer::from(vec![3_u8]), large]] {
            let app_metadata = if body.len() == 1 { Bytes::from_static(b"label") } else { Bytes::new() };
            let message = WireMessage { header: Bytes::from_static(b"header"), body, app_metadata };
            let expected = flight_data(&message);
            let sent: Vec<u8> = frame(message).into_iter().flatten().collect();
            assert_eq!(sent[0], 0);
            assert_eq!(sent[1..5], u32::try_from(sent.len() - 5).unwrap().to_be_bytes());
            assert_eq!(sent[5..], expected.encode_to_vec());
            assert_eq!(FlightData::decode(&sent[5..]).unwrap(), expected);
        }
    }

    #[test]
    fn large_buffers_are_not_copied() {
        let large = Buffer::from(vec![7_u8; 100_000]);
        let header = Bytes::from_static(b"header");
        let message = WireMessage { header, body: vec![large.clone()], ..WireMessage::default() };
        let parts = frame(message);
        assert_eq!(parts[1].as_ptr(), large.as_ptr());
    }
}
