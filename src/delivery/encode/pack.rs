//! From rows to messages: cast, cut where they turned out too large, and written as Arrow IPC.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::writer::{
    DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, StreamEncoder,
};
use arrow_ipc::{CompressionType, MetadataVersion};
use bytes::Bytes;

use crate::delivery::encode::gather::{Portion, limit};
use crate::delivery::encode::{MESSAGE_BYTES, WireMessage};
use crate::delivery::size::{cut, message_bytes};
use crate::delivery::{DeliveryError, conform};
use crate::model::{Codec, WireProfile};

/// Rows of fewer bytes go uncompressed whatever the codec: they fit a packet or three either way.
const SMALL_BYTES: usize = 4 << 10;
/// Buffers begin at multiples of so many bytes: as few as the format allows, for whoever unpacks them puts them elsewhere anyway, and
/// what fills them up to 64 counts where columns are many and rows few.
const ALIGNMENT: usize = 8;
/// Level of Zstandard: higher ones cost many times the time for a few percent of the bytes (docs/benchmarks.md).
const ZSTD_LEVEL: i32 = 1;

/// A portion as messages.
#[derive(Debug)]
pub(super) struct Packed {
    /// The messages in order, dictionaries before the rows that refer to them.
    pub(super) messages: Vec<WireMessage>,
    /// How many rows they hold.
    pub(super) rows: u64,
    /// Bytes of the rows before.
    pub(super) bytes: u64,
}

/// Makes messages that refer to no others, so that several can be made at the same time.
#[derive(Clone, Debug)]
pub(super) struct Packer {
    schema: SchemaRef,
    profile: WireProfile,
    /// How many of the columns are dictionaries.
    dictionaries: usize,
}

impl Packer {
    /// Packs under the announced `schema`.
    pub(super) fn new(schema: SchemaRef, profile: WireProfile) -> Self {
        let dictionaries = schema.fields().iter();
        let dictionaries = dictionaries.filter(|field| matches!(field.data_type(), DataType::Dictionary(..))).count();
        Self { schema, profile, dictionaries }
    }

    /// A portion's messages. After an error the context is not to be used again.
    pub(super) fn pack(&self, portion: &Portion, context: &mut IpcWriteContext) -> Result<Packed, DeliveryError> {
        let mut tracker = DictionaryTracker::new(false);
        // Numbered as in the schema's message: in order, and none is within another column.
        for _ in 0..self.dictionaries {
            tracker.next_dict_id();
        }
        let mut messages = Vec::with_capacity(self.dictionaries + 1);
        for piece in self.pieces(portion)? {
            let codec = if message_bytes(&piece) < SMALL_BYTES { Codec::None } else { self.profile.codec };
            let encoded = write_options(codec)
                .and_then(|options| IpcDataGenerator::default().encode(&piece, &mut tracker, &options, context));
            let (dictionaries, rows) = encoded.map_err(DeliveryError::Encode)?;
            messages.extend(dictionaries.into_iter().chain([rows]).map(message));
        }
        Ok(Packed { messages, rows: portion.batch.num_rows() as u64, bytes: portion.bytes as u64 })
    }

    /// A portion's rows as they are sent. Long rows that stand together may still be too many, and so may rows that grew when
    /// they were cast.
    fn pieces(&self, portion: &Portion) -> Result<Vec<RecordBatch>, DeliveryError> {
        let rows = conform(&portion.batch, &self.schema, self.profile.precision)?;
        Ok(cut(&rows, MESSAGE_BYTES, limit(MESSAGE_BYTES)))
    }
}

fn message(encoded: EncodedData) -> WireMessage {
    let body = if encoded.arrow_data.is_empty() { Vec::new() } else { vec![Buffer::from(encoded.arrow_data)] };
    WireMessage { header: encoded.ipc_message.into(), body, app_metadata: Bytes::new() }
}

/// Makes uncompressed messages, one after the other: their bodies are the buffers of the rows, not copied.
pub(super) struct PlainPacker {
    packer: Packer,
    encoder: StreamEncoder,
}

impl PlainPacker {
    /// Packs as `packer` says, but for the codec.
    ///
    /// # Errors
    /// When the schema has a type that Arrow IPC cannot carry.
    pub(super) fn new(packer: Packer) -> Result<Self, DeliveryError> {
        let encoder = StreamEncoder::try_new(&packer.schema).map_err(DeliveryError::Encode)?;
        Ok(Self { packer, encoder })
    }

    /// A portion's messages.
    pub(super) fn pack(&mut self, portion: &Portion) -> Result<Packed, DeliveryError> {
        let mut messages = Vec::with_capacity(1);
        for piece in self.packer.pieces(portion)? {
            self.encode(&piece, &mut messages).map_err(DeliveryError::Encode)?;
        }
        Ok(Packed { messages, rows: portion.batch.num_rows() as u64, bytes: portion.bytes as u64 })
    }

    /// A piece's rows, after the dictionaries they refer to. The encoder writes the stream format: before its
    /// first batch stands the schema, which was sent already.
    fn encode(&mut self, piece: &RecordBatch, messages: &mut Vec<WireMessage>) -> Result<(), ArrowError> {
        // Where a buffer is empty, nothing tells which message it belongs to, and nothing is lost.
        let mut buffers = self.encoder.encode(piece)?.into_iter().filter(|buffer| !buffer.is_empty());
        while let Some(prefix) = buffers.next() {
            let header = read_header(&prefix, &mut buffers)?;
            let root = arrow_ipc::root_as_message(&header).map_err(|error| ArrowError::IpcError(error.to_string()))?;
            let body = read_body(usize::try_from(root.bodyLength()).unwrap_or_default(), &mut buffers)?;
            if root.header_type() != arrow_ipc::MessageHeader::Schema {
                messages.push(WireMessage { header: header.clone(), body, app_metadata: Bytes::new() });
            }
        }
        Ok(())
    }
}

/// The dictionaries a client has, of a stream whose messages were made each for itself.
#[derive(Debug, Default)]
pub(super) struct SentDictionaries(HashMap<i64, WireMessage>);

impl SentDictionaries {
    /// Whether a message, which is the next one, tells the client anything new.
    pub(super) fn is_new(&mut self, message: &WireMessage) -> bool {
        let root = arrow_ipc::root_as_message(&message.header).ok();
        let Some(dictionary) = root.as_ref().and_then(|root| root.header_as_dictionary_batch()) else { return true };
        let before = self.0.insert(dictionary.id(), message.clone());
        before.is_none_or(|before| before != *message)
    }
}

fn write_options(codec: Codec) -> Result<IpcWriteOptions, ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    match codec {
        Codec::None => Ok(options),
        Codec::Lz4 => options.try_with_compression(Some(CompressionType::LZ4_FRAME)),
        Codec::Zstd => {
            options.try_with_compression(Some(CompressionType::ZSTD))?.try_with_compression_level(Some(ZSTD_LEVEL))
        }
    }
}

/// The message that opens a stream.
pub(super) fn schema_message(schema: &SchemaRef) -> WireMessage {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    message(IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options))
}

/// Takes one message's header from the stream format: a continuation marker and the padded length
/// (8 bytes), then the flatbuffer, then padding (Arrow columnar format, "Encapsulated message format").
fn read_header(prefix: &Buffer, buffers: &mut impl Iterator<Item = Buffer>) -> Result<Bytes, ArrowError> {
    let broken = || ArrowError::IpcError("the encoder's message has no header".to_owned());
    let length = prefix.as_slice().last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let length = length.ok_or_else(broken)?;
    let header = buffers.next().ok_or_else(broken)?;
    let mut read = header.len();
    while read < length {
        read += buffers.next().ok_or_else(broken)?.len();
    }
    Ok(Bytes::copy_from_slice(&header))
}

/// Takes one message's body of `length` bytes.
fn read_body(length: usize, buffers: &mut impl Iterator<Item = Buffer>) -> Result<Vec<Buffer>, ArrowError> {
    let mut body = Vec::new();
    let mut read = 0;
    while read < length {
        let part = buffers.next();
        let part = part.ok_or_else(|| ArrowError::IpcError("the encoder's message is cut short".to_owned()))?;
        read += part.len();
        body.push(part);
    }
    Ok(body)
}
