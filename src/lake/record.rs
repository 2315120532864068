//! What an attempt writes down before it commits, and the folding of many such records into one.
//!
//! Records lie in `_lakegate/attempts/<number>.json`, summaries in `_lakegate/summaries/<number>.json.zst`.
//! Both are created once and never changed. A summary says what a reader of the whole chain up to its
//! number would know, so that older records need not be read, nor kept.

use std::io::{BufRead, BufReader, Write};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::store::{self, TablePlace};
use crate::model::CarriedFile;

/// The layout written; a reader refuses what is newer.
const FORMAT: u32 = 1;

/// Digits of a number in a name: every `i64` fits, so names sort as numbers do.
const DIGITS: usize = 19;

/// What one attempt wants to make true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) format: u32,
    /// Makes the record's bytes unique, so that a lost answer can be told from somebody else's record.
    pub(super) id: Uuid,
    pub(super) number: i64,
    /// The attempt that had landed last when this one began.
    pub(super) base: Option<i64>,
    /// The Delta version this one changes; it lands as the next one, or not at all.
    pub(super) base_version: Option<u64>,
    /// The holder's fencing number, where the lease has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<serde_json::Value>,
    pub(super) schema_hash: String,
    pub(super) definition_hash: String,
    pub(super) files: Vec<CarriedFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) forgotten_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rejects: Option<RejectsObject>,
    /// Data files that count once the attempt has landed, as the log names them.
    pub(super) data_files: Vec<String>,
    /// Number of data files taken out.
    pub(super) removed_files: usize,
    /// Rows written for the change.
    pub(super) rows: u64,
    pub(super) created_at: DateTime<Utc>,
    /// The version of the program.
    pub(super) lakegate: String,
}

/// Where the rejects of one attempt lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RejectsObject {
    /// The attempt's number.
    pub(super) attempt: i64,
    /// The name below `_lakegate/rejects/`.
    pub(super) name: String,
    /// Number of rejects in it.
    pub(super) count: u64,
}

/// The chain up to and with one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) format: u32,
    pub(super) number: i64,
    /// The Delta version as which `number` landed.
    pub(super) version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<serde_json::Value>,
    pub(super) schema_hash: String,
    pub(super) definition_hash: String,
    /// Each on a line of its own, after the line with all the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<CarriedFile>,
    /// Oldest first.
    pub(super) rejects: Vec<RejectsObject>,
    /// Numbers on the chain whose records may still lie about; any other number below is void.
    pub(super) landed: Vec<i64>,
}

impl Record {
    /// A record with nothing in it yet.
    pub(super) fn new(number: i64, created_at: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT,
            id: Uuid::new_v4(),
            number,
            base: None,
            base_version: None,
            fence: None,
            epoch: None,
            position: None,
            schema_hash: String::new(),
            definition_hash: String::new(),
            files: Vec::new(),
            forgotten_files: Vec::new(),
            rejects: None,
            data_files: Vec::new(),
            removed_files: 0,
            rows: 0,
            created_at,
            lakegate: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The only Delta version as which the attempt can land.
    pub(super) fn target_version(&self) -> u64 {
        self.base_version.map_or(0, |version| version + 1)
    }

    /// Writes the record; false when somebody else has written one with its number.
    pub(super) async fn create(&self, place: &TablePlace) -> Result<bool, LakeError> {
        let bytes = serde_json::to_vec(self).map_err(|cause| unwritable(place, cause))?;
        store::create_once(place.store().as_ref(), &path_of(place, self.number), bytes.into()).await
    }

    /// Reads a record; none when there is no such number.
    pub(super) async fn read(place: &TablePlace, number: i64) -> Result<Option<Self>, LakeError> {
        let path = path_of(place, number);
        let Some(bytes) = store::read(place.store().as_ref(), &path).await? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes).map_err(|cause| damaged(&path, cause))?;
        check_format(&path, record.format)?;
        Ok(Some(record))
    }
}

impl Summary {
    /// Writes the summary; one that is there already says the same.
    pub(super) async fn create(self, place: &TablePlace) -> Result<(), LakeError> {
        let path = summary_path(place, self.number);
        let packed = tokio::task::spawn_blocking(move || self.pack()).await;
        let bytes = packed.map_err(|cause| unwritable(place, cause))?.map_err(|cause| unwritable(place, cause))?;
        store::create_once(place.store().as_ref(), &path, bytes).await?;
        Ok(())
    }

    /// Reads a summary; none when there is none for the number.
    pub(super) async fn read(place: &TablePlace, number: i64) -> Result<Option<Self>, LakeError> {
        let path = summary_path(place, number);
        let Some(bytes) = store::read(place.store().as_ref(), &path).await? else { return Ok(None) };
        let unpacked = tokio::task::spawn_blocking(move || Self::unpack(&bytes)).await;
        let summary = unpacked.map_err(|cause| damaged(&path, cause))?.map_err(|cause| damaged(&path, cause))?;
        check_format(&path, summary.format)?;
        Ok(Some(summary))
    }

    /// A line for everything but the files, then a line a file: neither writing nor reading holds the whole text.
    fn pack(mut self) -> std::io::Result<Bytes> {
        let files = std::mem::take(&mut self.files);
        // Level 3 is the library's own balance; the hashes in it do not compress at any level.
        let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
        serde_json::to_writer(&mut encoder, &self)?;
        for file in &files {
            encoder.write_all(b"\n")?;
            serde_json::to_writer(&mut encoder, file)?;
        }
        Ok(encoder.finish()?.into())
    }

    fn unpack(bytes: &[u8]) -> std::io::Result<Self> {
        let mut text = BufReader::new(zstd::Decoder::new(bytes)?);
        let mut line = Vec::new();
        text.read_until(b'\n', &mut line)?;
        let mut summary: Self = serde_json::from_slice(&line)?;
        loop {
            line.clear();
            if text.read_until(b'\n', &mut line)? == 0 {
                return Ok(summary);
            }
            summary.files.push(serde_json::from_slice(&line)?);
        }
    }
}

/// The numbers of all attempt records, ascending.
pub(super) async fn numbers(place: &TablePlace) -> Result<Vec<i64>, LakeError> {
    numbers_in(place, "attempts").await
}

/// The numbers that have a summary, ascending.
pub(super) async fn summary_numbers(place: &TablePlace) -> Result<Vec<i64>, LakeError> {
    numbers_in(place, "summaries").await
}

/// Removes a record that a summary has made needless, or that is void and cleaned.
pub(super) async fn remove(place: &TablePlace, number: i64) {
    store::discard(place.store().as_ref(), &path_of(place, number)).await;
}

/// Removes a summary that a newer one has made needless.
pub(super) async fn remove_summary(place: &TablePlace, number: i64) {
    store::discard(place.store().as_ref(), &summary_path(place, number)).await;
}

/// Tells apart the schemas of a table, order of columns included.
pub(super) fn schema_hash(schema: &str) -> String {
    blake3::hash(schema.as_bytes()).to_hex().to_string()
}

/// The layout that [`Summary`] is written in.
pub(super) fn format() -> u32 {
    FORMAT
}

async fn numbers_in(place: &TablePlace, folder: &str) -> Result<Vec<i64>, LakeError> {
    let names = store::names(place.store().as_ref(), &place.own(&[folder])).await?;
    Ok(names.iter().filter_map(|name| name.split('.').next()?.parse().ok()).collect())
}

fn path_of(place: &TablePlace, number: i64) -> Path {
    place.own(&["attempts", &format!("{number:0DIGITS$}.json")])
}

fn summary_path(place: &TablePlace, number: i64) -> Path {
    place.own(&["summaries", &format!("{number:0DIGITS$}.json.zst")])
}

fn check_format(path: &Path, format: u32) -> Result<(), LakeError> {
    if format <= FORMAT {
        return Ok(());
    }
    let text = format!("{path} was written by a newer lakegate (layout {format}, known is {FORMAT}); use that version");
    Err(LakeError::new(ErrorKind::Unsupported, text))
}

fn damaged(path: &Path, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LakeError {
    LakeError::because(ErrorKind::DataLoss, format!("{path} is damaged; restore it from a copy of the lake"), cause)
}

fn unwritable(place: &TablePlace, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LakeError {
    LakeError::because(ErrorKind::Internal, format!("cannot write down an attempt of {}", place.name()), cause)
}
