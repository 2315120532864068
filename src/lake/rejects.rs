//! Rows that did not fit: on disk while a load runs, then in the lake beside the attempt's record.
//!
//! An object `_lakegate/rejects/<uuid>.ndjson.zst` holds one [`Reject`] a line. It is visible if and only
//! if the attempt that names it is on the chain.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SpillFile, SpillWriter};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::record::RejectsObject;
use crate::lake::store::TablePlace;
use crate::model::Reject;

/// Rejects of a running attempt, compressed on disk: memory stays at one buffer whatever their number.
#[derive(Default)]
pub(super) struct RejectSpool {
    open: Option<Spooled>,
    count: u64,
}

struct Spooled {
    encoder: zstd::Encoder<'static, BufWriter<Box<dyn SpillWriter>>>,
    /// Deleted when dropped.
    file: Arc<dyn SpillFile>,
}

impl RejectSpool {
    /// Keeps some more.
    pub(super) fn add(&mut self, environment: &RuntimeEnv, rejects: &[Reject]) -> Result<(), LakeError> {
        if rejects.is_empty() {
            return Ok(());
        }
        let spooled = match &mut self.open {
            Some(spooled) => spooled,
            None => self.open.insert(Spooled::begin(environment)?),
        };
        for reject in rejects {
            spooled.write(reject).map_err(|cause| LakeError::io("cannot spool rejected rows to disk", cause))?;
        }
        self.count += rejects.len() as u64;
        Ok(())
    }

    /// Puts them into the lake under a fresh name; none when there are none.
    pub(super) async fn upload(self, place: &TablePlace, attempt: i64) -> Result<Option<RejectsObject>, LakeError> {
        let Some(spooled) = self.open else { return Ok(None) };
        let name = format!("{}.ndjson.zst", Uuid::new_v4());
        let what = || format!("cannot keep the rejected rows of {}", place.name());
        let file = spooled.finish().map_err(|cause| LakeError::io(what(), cause))?;
        let path = place.own(&["rejects", &name]);
        let mut source = file.read_stream().map_err(|cause| LakeError::rows(what(), cause))?;
        let mut sink = object_store::buffered::BufWriter::new(Arc::clone(place.store()), path);
        while let Some(part) = source.try_next().await.map_err(|cause| LakeError::rows(what(), cause))? {
            sink.write_all(&part).await.map_err(|cause| LakeError::io(what(), cause))?;
        }
        sink.shutdown().await.map_err(|cause| LakeError::io(what(), cause))?;
        Ok(Some(RejectsObject { attempt, name, count: self.count }))
    }
}

impl Spooled {
    fn begin(environment: &RuntimeEnv) -> Result<Self, LakeError> {
        let what = "cannot spool rejected rows to disk";
        let file = environment.disk_manager.create_tmp_file("rejected rows").map_err(|c| LakeError::rows(what, c))?;
        let sink = file.open_writer().map_err(|cause| LakeError::rows(what, cause))?;
        // Level 3 is the library's own balance.
        let encoder = zstd::Encoder::new(BufWriter::new(sink), 3).map_err(|cause| LakeError::io(what, cause))?;
        Ok(Self { encoder, file })
    }

    fn write(&mut self, reject: &Reject) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.encoder, reject)?;
        self.encoder.write_all(b"\n")
    }

    fn finish(self) -> std::io::Result<Arc<dyn SpillFile>> {
        let mut sink = self.encoder.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        sink.finish().map_err(std::io::Error::other)?;
        Ok(self.file)
    }
}

/// The rejects in some objects, in the objects' order, each with its attempt.
pub(super) fn read_all(
    place: TablePlace,
    objects: Vec<RejectsObject>,
) -> BoxStream<'static, Result<(i64, Reject), LakeError>> {
    stream::iter(objects)
        .flat_map(move |object| {
            let attempt = object.attempt;
            read(place.clone(), object).map(move |reject| reject.map(|reject| (attempt, reject)))
        })
        .boxed()
}

/// What is being read of one object.
struct Reading {
    bytes: BoxStream<'static, object_store::Result<Bytes>>,
    decoder: zstd::stream::write::Decoder<'static, Vec<u8>>,
    ready: VecDeque<Reject>,
    path: String,
}

fn read(place: TablePlace, object: RejectsObject) -> BoxStream<'static, Result<Reject, LakeError>> {
    let opened = async move { Reading::open(&place, &object).await };
    stream::once(opened)
        .flat_map(|opened| match opened {
            Ok(reading) => stream::try_unfold(reading, Reading::next).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        })
        .boxed()
}

impl Reading {
    async fn open(place: &TablePlace, object: &RejectsObject) -> Result<Self, LakeError> {
        let path = place.own(&["rejects", &object.name]);
        let found = place.store().get(&path).await.map_err(|cause| match cause {
            object_store::Error::NotFound { .. } => LakeError::because(
                ErrorKind::DataLoss,
                format!("{path} is missing: {} rejected rows of {} are lost", object.count, place.name()),
                cause,
            ),
            cause => LakeError::store(format!("cannot read {path}"), cause),
        })?;
        let path = path.to_string();
        let decoder = zstd::stream::write::Decoder::new(Vec::new()).map_err(|cause| damaged(&path, cause))?;
        Ok(Self { bytes: found.into_stream(), decoder, ready: VecDeque::new(), path })
    }

    async fn next(mut self) -> Result<Option<(Reject, Self)>, LakeError> {
        loop {
            if let Some(reject) = self.ready.pop_front() {
                return Ok(Some((reject, self)));
            }
            let Some(part) = self.bytes.next().await else { return Ok(None) };
            let part = part.map_err(|cause| LakeError::store(format!("cannot read {}", self.path), cause))?;
            self.decode(&part)?;
        }
    }

    fn decode(&mut self, part: &[u8]) -> Result<(), LakeError> {
        self.decoder.write_all(part).and_then(|()| self.decoder.flush()).map_err(|cause| damaged(&self.path, cause))?;
        let text = self.decoder.get_mut();
        let Some(end) = memchr::memrchr(b'\n', text) else { return Ok(()) };
        let rest = text.split_off(end + 1);
        for line in std::mem::replace(text, rest).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.ready.push_back(serde_json::from_slice(line).map_err(|cause| damaged(&self.path, cause))?);
        }
        Ok(())
    }
}

fn damaged(path: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LakeError {
    LakeError::because(ErrorKind::DataLoss, format!("{path} is damaged"), cause)
}
