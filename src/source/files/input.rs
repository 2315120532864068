//! A file's bytes on their way to text: fetched, counted, hashed, unpacked, decoded. All of it is plain blocking
//! reading, done on a thread made for that.

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::listing::{ListedFile, Place, look_of};
use crate::error::ErrorKind;
use crate::runtime::store;
use crate::source::SourceError;

/// Bytes taken from disk or network at a time: large enough that system calls do not matter.
const CHUNK: usize = 256 * 1024;

/// Why a file could not be read to its end.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// It was there when listed and is not any more.
    Gone,
    /// It is not the file that was listed any more.
    Changed(&'static str),
    /// Its content is not what its format promises.
    Broken(String),
    /// It cannot be reached.
    Failed(SourceError),
}

/// A file on its way to being opened: what needs the asynchronous world is done.
pub(super) enum Fetched {
    Local(PathBuf),
    Stream(Box<dyn Read + Send>),
}

/// Asks for a file.
///
/// # Errors
/// When the file is gone or another than was listed.
pub(super) async fn fetch(file: &ListedFile) -> Result<Fetched, ReadFailure> {
    let (store, path) = match &file.place {
        Place::Local(path) => return Ok(Fetched::Local(path.clone())),
        Place::Object(store, path) => (store, path),
    };
    let result = store.get(path).await.map_err(|error| object_failure(&file.path, error))?;
    let same = result.meta.size == file.size
        && (result.meta.e_tag == file.e_tag || file.e_tag.is_none() || result.meta.e_tag.is_none());
    if !same {
        return Err(ReadFailure::Changed("changed between listing and reading"));
    }
    let stream = result.into_stream().map_err(io::Error::from);
    Ok(Fetched::Stream(Box::new(SyncIoBridge::new(StreamReader::new(stream)))))
}

impl Fetched {
    /// Opens the file for plain reading; to be called where blocking is allowed.
    ///
    /// # Errors
    /// When the file is gone or may not be read.
    pub(super) fn open(self, path: &str) -> Result<(Box<dyn Read + Send>, Arc<Meter>), ReadFailure> {
        let inner: Box<dyn Read + Send> = match self {
            Self::Local(local) => Box::new(fs::File::open(&local).map_err(|error| io_failure(path, error))?),
            Self::Stream(stream) => stream,
        };
        let meter = Arc::<Meter>::default();
        Ok((Box::new(Metered { inner, meter: Arc::clone(&meter) }), meter))
    }
}

/// Whether a local file is still what the listing saw; objects are checked when they are fetched.
///
/// # Errors
/// When it changed or is gone.
pub(super) fn check_unchanged(file: &ListedFile) -> Result<(), ReadFailure> {
    let Place::Local(path) = &file.place else { return Ok(()) };
    match fs::metadata(path) {
        Ok(found) if look_of(&found) == (file.size, file.modified, file.e_tag.clone()) => Ok(()),
        Ok(_) => Err(ReadFailure::Changed("changed while it was read")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ReadFailure::Changed("was deleted while it was read"))
        }
        Err(error) => Err(io_failure(&file.path, error)),
    }
}

/// What was read of a file so far.
#[derive(Debug, Default)]
pub(super) struct Meter {
    hasher: Mutex<blake3::Hasher>,
    bytes: AtomicU64,
    failed: AtomicBool,
}

impl Meter {
    /// Stored bytes read since the last call.
    pub(super) fn take_bytes(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    /// BLAKE3 of what was read, in hex.
    pub(super) fn hash(&self) -> String {
        self.hasher.lock().unwrap_or_else(PoisonError::into_inner).finalize().to_hex().to_string()
    }

    /// What an error while reading means: the file's content is broken, unless it was the disk or the network that failed.
    pub(super) fn failure(&self, path: &str, error: io::Error) -> ReadFailure {
        if self.failed.load(Ordering::Relaxed) {
            return io_failure(path, error);
        }
        ReadFailure::Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                format!("the compressed data ends too early ({error}): the file was cut off")
            }
            _ => format!("the compressed data is damaged: {error}"),
        })
    }
}

struct Metered {
    inner: Box<dyn Read + Send>,
    meter: Arc<Meter>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.meter.hasher.lock().unwrap_or_else(PoisonError::into_inner).update(&buffer[..read]);
                self.meter.bytes.fetch_add(read as u64, Ordering::Relaxed);
                Ok(read)
            }
            Err(error) => {
                self.meter.failed.store(error.kind() != io::ErrorKind::Interrupted, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

/// How a file is packed, told by its name's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
}

impl Compression {
    pub(super) fn of(path: &str) -> Self {
        let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
        match ending.to_ascii_lowercase().as_str() {
            "gz" => Self::Gzip,
            "zst" => Self::Zstd,
            "bz2" => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// Unpacks; files of several members or frames are one text.
    ///
    /// # Errors
    /// When the unpacker cannot be set up.
    pub(super) fn unpack(self, stored: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        let buffered = |stored| BufReader::with_capacity(CHUNK, stored);
        Ok(match self {
            Self::None => stored,
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(stored))),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(buffered(stored))?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(stored))),
        })
    }
}

/// UTF-8 text from bytes in any encoding. What cannot be decoded becomes a byte that is no UTF-8, so that the
/// row it stands in is rejected instead of being silently repaired.
pub(super) struct Text {
    reader: Box<dyn Read + Send>,
    encoding: &'static Encoding,
    state: TextState,
    raw: Vec<u8>,
}

enum TextState {
    /// Nothing was read yet: a byte order mark may follow.
    Start,
    /// The bytes are UTF-8 already.
    Plain,
    Decode(Box<Decoder>),
    End,
}

/// Stands for what could not be decoded: never part of UTF-8.
const UNDECODABLE: u8 = 0xFF;

impl Text {
    pub(super) fn new(reader: Box<dyn Read + Send>, encoding: &'static Encoding) -> Self {
        Self { reader, encoding, state: TextState::Start, raw: Vec::new() }
    }

    /// Appends text until `out` has at least `wanted` bytes. False once there is no more.
    ///
    /// # Errors
    /// When reading or unpacking fails.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, wanted: usize) -> io::Result<bool> {
        loop {
            match &mut self.state {
                TextState::Start => self.start(out)?,
                TextState::End => return Ok(false),
                _ if out.len() >= wanted => return Ok(true),
                TextState::Plain => {
                    let missing = wanted - out.len();
                    out.reserve_exact(missing);
                    if (&mut self.reader).take(missing as u64).read_to_end(out)? == 0 {
                        self.state = TextState::End;
                    }
                }
                TextState::Decode(decoder) => {
                    self.raw.clear();
                    let last = (&mut self.reader).take(CHUNK as u64).read_to_end(&mut self.raw)? == 0;
                    decode(decoder, &self.raw, out, last);
                    if last {
                        self.state = TextState::End;
                    }
                }
            }
        }
    }

    /// Looks for a byte order mark, which wins over the declared encoding.
    fn start(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut head = Vec::with_capacity(3);
        (&mut self.reader).take(3).read_to_end(&mut head)?;
        let (encoding, mark) = Encoding::for_bom(&head).unwrap_or((self.encoding, 0));
        let head = &head[mark..];
        if encoding == UTF_8 {
            out.extend_from_slice(head);
            self.state = TextState::Plain;
        } else {
            debug_assert!(encoding != UTF_16LE && encoding != UTF_16BE || mark == 0 || mark == 2);
            let mut decoder = Box::new(encoding.new_decoder_without_bom_handling());
            decode(&mut decoder, head, out, false);
            self.state = TextState::Decode(decoder);
        }
        Ok(())
    }
}

fn decode(decoder: &mut Decoder, mut raw: &[u8], out: &mut Vec<u8>, last: bool) {
    let mut text = [0_u8; 16 * 1024];
    loop {
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(raw, &mut text, last);
        out.extend_from_slice(&text[..written]);
        raw = &raw[read..];
        match result {
            DecoderResult::InputEmpty => return,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => out.push(UNDECODABLE),
        }
    }
}

/// The failure behind an error of the file system or of a stream from a store.
pub(super) fn io_failure(path: &str, error: io::Error) -> ReadFailure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => return ReadFailure::Gone,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Unavailable,
    };
    ReadFailure::Failed(SourceError::because(kind, format!("cannot read {path}"), error))
}

/// The failure behind an object store's error.
pub(super) fn object_failure(path: &str, error: object_store::Error) -> ReadFailure {
    match error {
        object_store::Error::NotFound { .. } => ReadFailure::Gone,
        object_store::Error::Precondition { .. } => ReadFailure::Changed("changed between listing and reading"),
        error => {
            ReadFailure::Failed(SourceError::because(store::kind_of(&error), format!("cannot read {path}"), error))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text(bytes: &[u8], label: &str) -> Vec<u8> {
        let mut text =
            Text::new(Box::new(io::Cursor::new(bytes.to_vec())), Encoding::for_label(label.as_bytes()).unwrap());
        let mut out = Vec::new();
        loop {
            let wanted = out.len() + 7;
            if !text.fill(&mut out, wanted).unwrap() {
                return out;
            }
        }
    }

    #[test]
    fn a_byte_order_mark_wins_and_goes() {
        assert_eq!(text(b"\xEF\xBB\xBFa,b", "windows-1252"), b"a,b");
        assert_eq!(text(b"\xFF\xFEa\0,\0", "utf-8"), b"a,");
        assert_eq!(text(b"\xFE\xFF\0a\0,", "utf-8"), b"a,");
        assert_eq!(text(b"a", "utf-8"), b"a");
        assert_eq!(text(b"", "utf-8"), b"");
    }

    #[test]
    fn latin_letters_arrive_and_nonsense_stays_visible() {
        assert_eq!(text(b"Z\xFCrich", "latin1"), "Zürich".as_bytes());
        assert_eq!(text(b"a\x81\xFFb", "shift_jis"), b"a\xFFb".as_slice());
        let long: Vec<u8> = [0xE9_u8].repeat(300_000);
        assert_eq!(text(&long, "windows-1252"), "é".repeat(300_000).as_bytes());
    }

    #[test]
    fn every_member_of_a_packed_file_is_read_and_a_cut_one_is_an_error() {
        let gzip = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(text).unwrap();
            packer.finish().unwrap()
        };
        let bzip2 = |text: &[u8]| {
            let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            packer.write_all(text).unwrap();
            packer.finish().unwrap()
        };
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        type Packer<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
        let packers: [(&str, Packer<'_>); 3] = [("x.gz", &gzip), ("x.bz2", &bzip2), ("x.ZST", &zstd)];
        for (name, pack) in packers {
            let packed = [pack(b"one\n"), pack(b"two\n")].concat();
            let unpack = |bytes: Vec<u8>| {
                let mut text = String::new();
                let mut reader = Compression::of(name).unpack(Box::new(io::Cursor::new(bytes)))?;
                reader.read_to_string(&mut text).map(|_| text)
            };
            assert_eq!(unpack(packed.clone()).unwrap(), "one\ntwo\n", "{name}");
            assert!(unpack(packed[..packed.len() - 3].to_vec()).is_err(), "{name}");
        }
    }
}
