//! Messages as gRPC frames, in parts that are not copied.

use std::collections::VecDeque;
use std::io::Write;

use arrow::buffer::Buffer;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::delivery::WireMessage;

/// Header that says how frames are compressed that say of themselves that they are.
pub(crate) const ENCODING: &str = "grpc-encoding";
/// The word for gzip in it, and in what clients say that they unpack.
pub(crate) const GZIP: &str = "gzip";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Level of gzip: higher ones take twice the time for a few percent of the bytes.
const GZIP_LEVEL: u32 = 3;
/// Frames of fewer bytes go as they are: they fit a packet either way.
const LEAST_GZIPPED: usize = 1 << 10;
/// Tag of `FlightData.data_header`: field 2, length-delimited (Flight.proto).
const HEADER_TAG: u64 = 2 << 3 | 2;
/// Tag of `FlightData.app_metadata`: field 3, length-delimited.
const METADATA_TAG: u64 = 3 << 3 | 2;
/// Tag of `FlightData.data_body`: field 1000, length-delimited.
const BODY_TAG: u64 = 1000 << 3 | 2;
/// Buffers below this are gathered: each would become an HTTP/2 frame of its own, of at most 16 KiB.
const GATHERED: usize = 4 << 10;

/// A message as a gRPC frame: a byte 0 for "not compressed", the length, then `FlightData`.
pub(crate) fn plain(message: WireMessage) -> VecDeque<Bytes> {
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

/// The same, compressed with gzip where that makes it smaller. It takes its time: not for threads that others wait for.
pub(crate) fn compressed(message: WireMessage) -> VecDeque<Bytes> {
    let frame = plain(message);
    if len(&frame) < LEAST_GZIPPED {
        return frame;
    }
    gzipped(&frame).unwrap_or(frame)
}

fn gzipped(frame: &VecDeque<Bytes>) -> Option<VecDeque<Bytes>> {
    let mut encoder = GzEncoder::new(vec![1_u8, 0, 0, 0, 0], Compression::new(GZIP_LEVEL));
    let mut prefix = PREFIX;
    for part in frame {
        let (left_out, packed) = part.split_at(prefix.min(part.len()));
        prefix -= left_out.len();
        encoder.write_all(packed).ok()?;
    }
    let mut packed = encoder.finish().ok()?;
    let length = u32::try_from(packed.len() - PREFIX).ok()?;
    packed[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    (packed.len() < len(frame)).then(|| VecDeque::from([Bytes::from(packed)]))
}

/// Bytes of a frame, or of what is left of one.
pub(crate) fn len(frame: &VecDeque<Bytes>) -> usize {
    frame.iter().map(Bytes::len).sum()
}

/// Takes so many bytes off the front of a frame, or all there are, without a copy.
pub(crate) fn take(frame: &mut VecDeque<Bytes>, bytes: usize) -> VecDeque<Bytes> {
    let (mut taken, mut missing) = (VecDeque::new(), bytes);
    while missing > 0
        && let Some(first) = frame.front_mut()
    {
        if first.len() > missing {
            taken.push_back(first.split_to(missing));
            break;
        }
        missing -= first.len();
        taken.extend(frame.pop_front());
    }
    taken
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
    use std::io::Read;

    use arrow_flight::FlightData;
    use flate2::read::GzDecoder;
    use prost::Message;

    use super::*;

    #[test]
    fn a_frame_is_what_the_generated_service_would_send() {
        let large = Buffer::from(vec![7_u8; 100_000]);
        for body in [vec![], vec![Buffer::from(vec![1_u8, 2])], vec![large.clone(), Buffer::from(vec![3_u8]), large]] {
            let app_metadata = if body.len() == 1 { Bytes::from_static(b"label") } else { Bytes::new() };
            let message = WireMessage { header: Bytes::from_static(b"header"), body, app_metadata };
            let expected = flight_data(&message);
            let sent: Vec<u8> = plain(message).into_iter().flatten().collect();
            assert_eq!(sent[0], 0);
            assert_eq!(sent[1..5], u32::try_from(sent.len() - 5).unwrap().to_be_bytes());
            assert_eq!(sent[5..], expected.encode_to_vec());
            assert_eq!(FlightData::decode(&sent[5..]).unwrap(), expected);
        }
    }

    fn flight_data(message: &WireMessage) -> FlightData {
        FlightData {
            flight_descriptor: None,
            data_header: message.header.clone(),
            app_metadata: message.app_metadata.clone(),
            data_body: message.contiguous_body(),
        }
    }

    fn bytes(parts: VecDeque<Bytes>) -> Vec<u8> {
        parts.into_iter().flatten().collect()
    }

    #[test]
    fn a_compressed_frame_holds_the_same_message() {
        let body = vec![Buffer::from(vec![7_u8; 100_000]), Buffer::from(vec![1_u8, 2, 3])];
        let app_metadata = Bytes::from_static(b"label");
        let message = WireMessage { header: Bytes::from_static(b"header"), body, app_metadata };
        let expected = flight_data(&message);
        let sent = bytes(compressed(message));
        assert_eq!((sent[0], sent.len() < 2_000), (1, true));
        assert_eq!(sent[1..5], u32::try_from(sent.len() - 5).unwrap().to_be_bytes());
        let mut unpacked = Vec::new();
        GzDecoder::new(&sent[5..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(FlightData::decode(unpacked.as_slice()).unwrap(), expected);
    }

    #[test]
    fn what_gzip_does_not_make_smaller_goes_as_it_is() {
        let noise: Vec<u8> = (0..50_000).map(|_| rand::random()).collect();
        for body in [vec![Buffer::from(vec![7_u8; 100])], vec![Buffer::from(noise)]] {
            let message = WireMessage { header: Bytes::from_static(b"header"), body, ..WireMessage::default() };
            assert_eq!(bytes(compressed(message.clone())), bytes(plain(message)));
        }
    }

    #[test]
    fn a_frame_is_taken_in_parts_without_copies() {
        let large = Buffer::from(vec![7_u8; 100_000]);
        let message =
            WireMessage { header: Bytes::from_static(b"header"), body: vec![large.clone()], ..WireMessage::default() };
        let whole = bytes(plain(message.clone()));
        for size in [1_000, 99_999, 1_000_000] {
            let mut left = plain(message.clone());
            let mut taken = Vec::new();
            while !left.is_empty() {
                let parts = take(&mut left, size);
                assert!(len(&parts) == size || left.is_empty(), "{} of {size}", len(&parts));
                taken.extend(bytes(parts));
            }
            assert_eq!(taken, whole);
        }
        let mut left = plain(message);
        take(&mut left, 1_000);
        let here = left[0].as_ptr() as usize;
        assert!((large.as_ptr() as usize..large.as_ptr() as usize + 100_000).contains(&here));
    }

    #[test]
    fn large_buffers_are_not_copied() {
        let large = Buffer::from(vec![7_u8; 100_000]);
        let header = Bytes::from_static(b"header");
        let message = WireMessage { header, body: vec![large.clone()], ..WireMessage::default() };
        let parts = plain(message);
        assert_eq!(parts[1].as_ptr(), large.as_ptr());
    }
}
