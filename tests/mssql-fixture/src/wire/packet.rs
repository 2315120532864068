//! TDS packets: the 8-byte header, reading packets off a stream and cutting a token stream into packets (MS-TDS 2.2.3).

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length of a packet's header in bytes.
pub(crate) const HEADER: usize = 8;
/// Packet size in bytes, header included, that holds until LOGIN7 has agreed on another.
pub(crate) const DEFAULT_PACKET_SIZE: usize = 4096;
/// Smallest and largest packet size that LOGIN7 may ask for.
pub(crate) const PACKET_SIZES: std::ops::RangeInclusive<usize> = 512..=32767;
/// Largest message (all packets but bulk data) that is gathered in memory: a batch with a literal of this size is a mistake.
const MESSAGE_LIMIT: usize = 512 << 20;
/// Room asked for with each read from the socket.
const READ_SIZE: usize = 64 << 10;

/// Packet types (MS-TDS 2.2.3.1.1).
pub(crate) mod kind {
    /// A batch of SQL text.
    pub(crate) const SQL_BATCH: u8 = 0x01;
    /// A remote procedure call.
    pub(crate) const RPC: u8 = 0x03;
    /// What the server answers.
    pub(crate) const REPLY: u8 = 0x04;
    /// The client wants the running request to end.
    pub(crate) const ATTENTION: u8 = 0x06;
    /// Rows of `INSERT BULK`.
    pub(crate) const BULK: u8 = 0x07;
    /// Begin, commit and roll back.
    pub(crate) const TRANSACTION_MANAGER: u8 = 0x0E;
    /// The login.
    pub(crate) const LOGIN7: u8 = 0x10;
    /// The negotiation before the login, and the TLS handshake of TDS 7.x.
    pub(crate) const PRELOGIN: u8 = 0x12;
}

/// Status bits of the packet header (MS-TDS 2.2.3.1.2).
pub(crate) mod status {
    /// This packet ends its message.
    pub(crate) const END_OF_MESSAGE: u8 = 0x01;
    /// The client withdraws the message that this packet ends.
    pub(crate) const IGNORE: u8 = 0x02;
    /// The session is to be reset before the request runs.
    pub(crate) const RESET: u8 = 0x08;
    /// As `RESET`, but the transaction stays.
    pub(crate) const RESET_KEEP_TRANSACTION: u8 = 0x10;
}

/// One packet as it came.
#[derive(Debug)]
pub(crate) struct Packet {
    /// The packet type, one of [`kind`].
    pub(crate) kind: u8,
    /// Bits of [`status`].
    pub(crate) status: u8,
    /// What stands after the header.
    pub(crate) payload: Bytes,
}

impl Packet {
    /// Whether the packet ends its message.
    pub(crate) fn is_last(&self) -> bool {
        self.status & status::END_OF_MESSAGE != 0
    }
}

/// A whole message: the payloads of its packets, joined.
#[derive(Debug)]
pub(crate) struct Message {
    /// The packet type, one of [`kind`].
    pub(crate) kind: u8,
    /// Status bits of all its packets together.
    pub(crate) status: u8,
    /// What the message says.
    pub(crate) body: Bytes,
}

/// Reads packets from a stream. A `next` that is dropped half-way loses nothing.
#[derive(Debug)]
pub(crate) struct PacketReader<R> {
    input: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> PacketReader<R> {
    /// A reader over `input`.
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new() }
    }

    /// The stream, and the bytes read from it that no packet has used.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        (self.input, self.buffer)
    }

    /// The next packet; `None` when the stream ended between two packets.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = take_packet(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(READ_SIZE);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside a packet"))
                };
            }
        }
    }

    /// The message that starts with `first`; further packets are read as needed.
    pub(crate) async fn rest_of_message(&mut self, first: Packet) -> io::Result<Message> {
        let Packet { kind, mut status, payload } = first;
        if status & status::END_OF_MESSAGE != 0 {
            return Ok(Message { kind, status, body: payload });
        }
        let mut body = BytesMut::from(payload.as_ref());
        loop {
            let Some(packet) = self.next().await? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside a message"));
            };
            if packet.kind != kind {
                return Err(invalid(format!(
                    "a packet of type {:#04x} inside a message of type {kind:#04x}",
                    packet.kind
                )));
            }
            body.extend_from_slice(&packet.payload);
            if body.len() > MESSAGE_LIMIT {
                return Err(invalid(format!("a message of more than {MESSAGE_LIMIT} bytes")));
            }
            status |= packet.status;
            if packet.is_last() {
                return Ok(Message { kind, status, body: body.freeze() });
            }
        }
    }

    /// The next whole message; `None` when the client has gone.
    pub(crate) async fn message(&mut self) -> io::Result<Option<Message>> {
        match self.next().await? {
            Some(first) => self.rest_of_message(first).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Takes one whole packet off the front of `buffer`, if it is there.
fn take_packet(buffer: &mut BytesMut) -> io::Result<Option<Packet>> {
    if buffer.len() < HEADER {
        return Ok(None);
    }
    let length = usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
    if length < HEADER {
        return Err(invalid(format!("a packet that says it is {length} bytes long")));
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let (kind, status) = (buffer[0], buffer[1]);
    let mut packet = buffer.split_to(length);
    packet.advance(HEADER);
    Ok(Some(Packet { kind, status, payload: packet.freeze() }))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Cuts the bytes of one answer into packets.
#[derive(Debug)]
pub(crate) struct Framer {
    kind: u8,
    payload: usize,
    spid: u16,
    id: u8,
}

impl Framer {
    /// Packets of type [`kind::REPLY`] of at most `size` bytes with their header, from session `spid`.
    pub(crate) fn reply(size: usize, spid: u16) -> Self {
        Self { kind: kind::REPLY, payload: size.max(HEADER + 1) - HEADER, spid, id: 1 }
    }

    /// Moves as many whole packets from `tokens` to `packets` as there are, and with `last` the rest too, as the end of the message.
    ///
    /// Without `last` at least one byte stays in `tokens`, so that the last packet is never an empty one.
    pub(crate) fn frame(&mut self, tokens: &mut BytesMut, packets: &mut BytesMut, last: bool) {
        let count = tokens.len() / self.payload + 1;
        packets.reserve(tokens.len() + count * HEADER);
        while tokens.len() > self.payload {
            self.put(&tokens[..self.payload], 0, packets);
            tokens.advance(self.payload);
        }
        if last {
            self.put(tokens, status::END_OF_MESSAGE, packets);
            tokens.clear();
        }
    }

    fn put(&mut self, payload: &[u8], status: u8, packets: &mut BytesMut) {
        packets.put_u8(self.kind);
        packets.put_u8(status);
        packets.put_u16(u16::try_from(payload.len() + HEADER).unwrap_or(u16::MAX));
        packets.put_u16(self.spid);
        packets.put_u8(self.id);
        packets.put_u8(0);
        packets.put_slice(payload);
        self.id = self.id.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round_trip(tokens: &[u8], size: usize) -> (Vec<usize>, Vec<u8>) {
        let mut framer = Framer::reply(size, 51);
        let (mut left, mut packets) = (BytesMut::from(tokens), BytesMut::new());
        framer.frame(&mut left, &mut packets, false);
        framer.frame(&mut left, &mut packets, true);
        let mut reader = PacketReader::new(packets.as_ref());
        let (mut lengths, mut body) = (Vec::new(), Vec::new());
        while let Some(packet) = reader.next().await.unwrap() {
            lengths.push(packet.payload.len());
            body.extend_from_slice(&packet.payload);
            assert_eq!(packet.is_last(), body.len() == tokens.len());
        }
        (lengths, body)
    }

    #[tokio::test]
    async fn a_message_is_cut_into_packets_and_only_the_last_ends_it() {
        let tokens: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let (lengths, body) = round_trip(&tokens, 512).await;
        assert_eq!((lengths, body), (vec![504, 496], tokens));
    }

    #[tokio::test]
    async fn a_message_of_exactly_one_packet_has_no_empty_packet_after_it() {
        let tokens = vec![7; 504];
        assert_eq!(round_trip(&tokens, 512).await.0, vec![504]);
    }

    #[tokio::test]
    async fn packets_of_one_byte_carry_the_same_message() {
        let tokens = vec![1, 2, 3];
        assert_eq!(round_trip(&tokens, HEADER + 1).await, (vec![1, 1, 1], tokens));
    }

    #[tokio::test]
    async fn a_stream_that_ends_inside_a_packet_is_an_error() {
        let mut reader = PacketReader::new(&[1u8, 1, 0, 12, 0, 0, 1, 0, 5][..]);
        assert_eq!(reader.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_packet_shorter_than_its_header_is_an_error() {
        let mut reader = PacketReader::new(&[1u8, 1, 0, 7, 0, 0, 1, 0][..]);
        assert_eq!(reader.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
