//! Segments: how they are named, written and read.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::config::LakeSettings;
use crate::journal::JournalError;
use crate::runtime::store;

/// Version of the segments' format.
const FORMAT: u32 = 1;
/// Highest level: segments of it are never folded again, so that what they replaced stays named for ever.
pub(super) const TOP_LEVEL: u8 = 2;
/// Bytes read to see a header: it names at most a fold's members, about 2 KiB before compression.
const HEADER_BYTES: u64 = 16 * 1024;
/// Records handed out in one piece.
const PIECE_RECORDS: usize = 4096;
/// zstd's own default: lines of one shape shrink well at any level.
const ZSTD_LEVEL: i32 = 3;

/// A segment's name: `<level>-<time-ordered uuid>.ndjson.zst`. Level 0 is one batch of one process. A
/// segment of a higher level has the uuid of the oldest one it replaces, so that of two processes that
/// gather the same segments only one can create it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct SegmentName {
    pub(super) level: u8,
    pub(super) id: Uuid,
}

impl SegmentName {
    const ENDING: &'static str = ".ndjson.zst";

    fn new(now: DateTime<Utc>) -> Self {
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        Self { level: 0, id: Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos())) }
    }
}

impl TryFrom<String> for SegmentName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.strip_suffix(Self::ENDING).and_then(|stem| stem.split_once('-'));
        let parsed = parts.and_then(|(level, id)| Some(Self { level: level.parse().ok()?, id: id.parse().ok()? }));
        parsed.ok_or_else(|| format!("`{text}` is no segment's name"))
    }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> Self {
        format!("{}-{}{}", name.level, name.id, SegmentName::ENDING)
    }
}

/// A segment's first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// The segments whose records stand in this one; they no longer count.
    replaces: Vec<SegmentName>,
}

/// A segment as it is listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) name: SegmentName,
    pub(super) written: DateTime<Utc>,
    pub(super) bytes: u64,
}

/// The folder of segments.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    known: Arc<Mutex<HashMap<SegmentName, Members>>>,
}

/// The segments another one replaces.
type Members = Arc<[SegmentName]>;

impl Shelf {
    pub(super) fn open(settings: &LakeSettings, folder: &str) -> Result<Self, JournalError> {
        let store = store::open(&settings.location, settings.connection.as_ref())?;
        let folder = store::root(&settings.location)?.join("_lakegate").join("journal").join(folder);
        Ok(Self { store, folder, known: Arc::default() })
    }

    /// Every segment, replaced ones included, by level and age.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, JournalError> {
        let mut listed: Vec<Listed> = self
            .store
            .list(Some(&self.folder))
            .try_filter_map(async |meta| {
                let name = meta.location.filename().and_then(|name| SegmentName::try_from(name.to_owned()).ok());
                Ok(name.map(|name| Listed { name, written: meta.last_modified, bytes: meta.size }))
            })
            .try_collect()
            .await
            .or_else(|error| match error {
                object_store::Error::NotFound { .. } => Ok(Vec::new()),
                source => Err(JournalError::Store { action: "list", at: self.folder.to_string(), source }),
            })?;
        listed.sort_by_key(|listed| listed.name);
        Ok(listed)
    }

    /// The segments that count.
    pub(super) async fn live(&self) -> Result<Vec<SegmentName>, JournalError> {
        let listed = self.list().await?;
        let replaced = self.replaced(&listed).await?;
        Ok(listed.into_iter().map(|listed| listed.name).filter(|name| !replaced.contains_key(name)).collect())
    }

    /// The names that no longer count, each with the segment in whose place it stood, by what segments of
    /// higher levels say of themselves. A replaced segment's own word does not count: it was made too late.
    pub(super) async fn replaced(&self, listed: &[Listed]) -> Result<HashMap<SegmentName, SegmentName>, JournalError> {
        let mut replaced = HashMap::new();
        for level in (1..=TOP_LEVEL).rev() {
            let names: Vec<SegmentName> = listed
                .iter()
                .map(|listed| listed.name)
                .filter(|name| name.level == level && !replaced.contains_key(name))
                .collect();
            let members: Vec<(SegmentName, Members)> = stream::iter(names)
                .map(|name| async move { Ok::<_, JournalError>((name, self.members(name).await?)) })
                .buffer_unordered(16)
                .try_collect()
                .await?;
            for (bigger, members) in members {
                replaced.extend(members.iter().map(|member| (*member, bigger)));
            }
        }
        Ok(replaced)
    }

    /// The segments a segment says it replaces; read once, as segments never change.
    async fn members(&self, name: SegmentName) -> Result<Members, JournalError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(members) = known {
            return Ok(members);
        }
        let members: Members = self.header(name).await?.replaces.into();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name, members.clone());
        Ok(members)
    }

    /// What a segment says of itself.
    async fn header(&self, name: SegmentName) -> Result<Header, JournalError> {
        let options = GetOptions { range: Some(GetRange::Bounded(0..HEADER_BYTES)), ..GetOptions::default() };
        let got = self.store.get_opts(&self.path(name), options).await;
        let bytes = match got {
            Ok(got) => got.bytes().await,
            // Deleted since it was listed: by then it was replaced, and its own members long gone.
            Err(object_store::Error::NotFound { .. }) => return Ok(Header { format: FORMAT, replaces: Vec::new() }),
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|source| self.failed("read", name, source))?;
        let mut lines = self.lines(name, bytes)?;
        self.read_header(name, &mut lines)
    }

    /// A segment's records, in pieces.
    pub(super) async fn read<R: DeserializeOwned + 'static>(
        &self,
        name: &SegmentName,
    ) -> Result<BoxStream<'static, Result<Vec<R>, JournalError>>, JournalError> {
        let bytes = match self.store.get(&self.path(*name)).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|source| self.failed("read", *name, source))?;
        let mut lines = self.lines(*name, bytes)?;
        self.read_header(*name, &mut lines)?;
        let (shelf, name) = (self.clone(), *name);
        let pieces = std::iter::from_fn(move || shelf.piece(name, &mut lines).transpose());
        Ok(stream::iter(pieces).boxed())
    }

    /// Writes one batch as a segment of level 0.
    pub(super) async fn write_batch(&self, batch: &[impl Serialize], now: DateTime<Utc>) -> Result<(), JournalError> {
        let name = SegmentName::new(now);
        let mut writer = self.writer(name, Vec::new())?;
        for record in batch {
            writer.push(record)?;
        }
        writer.create().await.map(|_| ())
    }

    /// A segment to be written.
    pub(super) fn writer(&self, name: SegmentName, replaces: Vec<SegmentName>) -> Result<SegmentWriter, JournalError> {
        SegmentWriter::new(self.clone(), name, &Header { format: FORMAT, replaces })
    }

    /// Removes a segment; one that is gone already is no error.
    pub(super) async fn delete(&self, name: SegmentName) -> Result<(), JournalError> {
        match self.store.delete(&self.path(name)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(source) => Err(self.failed("delete from", name, source)),
        }
    }

    fn piece<R: DeserializeOwned>(&self, name: SegmentName, lines: &mut Lines) -> Result<Option<Vec<R>>, JournalError> {
        let mut piece = Vec::new();
        let mut line = String::new();
        while piece.len() < PIECE_RECORDS {
            line.clear();
            if lines.read_line(&mut line).map_err(|source| self.damaged(name, source))? == 0 {
                break;
            }
            piece.push(serde_json::from_str(&line).map_err(|error| self.damaged(name, error.into()))?);
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn lines(&self, name: SegmentName, bytes: Bytes) -> Result<Lines, JournalError> {
        let decoder = zstd::Decoder::with_buffer(bytes.reader()).map_err(|source| self.damaged(name, source))?;
        Ok(BufReader::new(Box::new(decoder)))
    }

    fn read_header(&self, name: SegmentName, lines: &mut Lines) -> Result<Header, JournalError> {
        let mut line = String::new();
        lines.read_line(&mut line).map_err(|source| self.damaged(name, source))?;
        let header: Header = serde_json::from_str(&line).map_err(|error| self.damaged(name, error.into()))?;
        if header.format > FORMAT {
            let source = std::io::Error::other(format!("format {} was written by a newer lakegate", header.format));
            return Err(self.damaged(name, source));
        }
        Ok(header)
    }

    fn path(&self, name: SegmentName) -> Path {
        self.folder.clone().join(String::from(name))
    }

    fn failed(&self, action: &'static str, name: SegmentName, source: object_store::Error) -> JournalError {
        JournalError::Store { action, at: self.path(name).to_string(), source }
    }

    fn damaged(&self, name: SegmentName, source: std::io::Error) -> JournalError {
        JournalError::Damaged { at: self.path(name).to_string(), source }
    }
}

type Lines = BufReader<Box<dyn Read + Send>>;

/// A segment that is being put together in memory, compressed.
pub(super) struct SegmentWriter {
    shelf: Shelf,
    name: SegmentName,
    encoder: zstd::Encoder<'static, Vec<u8>>,
}

impl SegmentWriter {
    fn new(shelf: Shelf, name: SegmentName, header: &Header) -> Result<Self, JournalError> {
        let encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(|source| shelf.damaged(name, source))?;
        let mut writer = Self { shelf, name, encoder };
        writer.push(header)?;
        // The header gets a block of its own, so that the object's first bytes are enough to read it.
        writer.encoder.flush().map_err(|source| writer.shelf.damaged(name, source))?;
        Ok(writer)
    }

    /// Adds a line.
    pub(super) fn push(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let written = serde_json::to_writer(&mut self.encoder, line).map_err(std::io::Error::from);
        written.and_then(|()| self.encoder.write_all(b"\n")).map_err(|source| self.shelf.damaged(self.name, source))
    }

    /// Writes the segment, whole or not at all. False when somebody else made one of that name.
    pub(super) async fn create(self) -> Result<bool, JournalError> {
        let Self { shelf, name, encoder } = self;
        let bytes = encoder.finish().map_err(|source| shelf.damaged(name, source))?;
        let put = shelf.store.put_opts(&shelf.path(name), PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(source) => Err(shelf.failed("write", name, source)),
        }
    }
}
