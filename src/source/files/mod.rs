//! Files as a source: csv, Parquet, ndjson and JSON, local or in a bucket.
//!
//! A reading goes through these steps, one file each: what is there (`listing`), what happened to it since the last
//! load (`changes`), a look ahead where columns are inferred (`look`, `shape`, `schema`), and then the files in
//! order (`reading`): bytes to text (`input`), text to blocks of whole records (`block`), blocks to batches on all
//! threads (`pipeline`, `csv`, `json`, `column`, `number`, `moment`), Parquet on its own way (`parquet`).

mod block;
mod changes;
mod column;
mod csv;
mod input;
mod json;
mod listing;
mod look;
mod moment;
mod names;
mod number;
mod parquet;
mod pipeline;
mod reading;
mod schema;
mod shape;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;

use self::changes::{Action, Candidate, Change, Comparison};
use self::column::{Target, Targets};
use self::input::{Compression, ReadFailure};
use self::listing::ListedFile;
use self::look::{Columns, Look, Purpose, look_all};
use self::reading::{Plan, Read};
use self::schema::Gathered;
use crate::config::{FileFormat, FileSource, TableDefinition, TableSource};
use crate::error::ErrorKind;
use crate::model::{CarriedFile, ChangeKind, FileStatus, LoadMode};
use crate::runtime::clock::Clock;
use crate::source::{Known, Reading, Source, SourceError};

/// Longest `settle` for which a load waits until files written to a moment ago have been left alone so long;
/// more than that keeps the table's lease for too long, and the next load is the better one.
const WORTH_WAITING: Duration = Duration::from_secs(5);

/// The files a table definition names.
#[derive(Debug)]
pub struct FilesSource {
    definition: TableDefinition,
    sources: Vec<FileSource>,
    clock: Arc<dyn Clock>,
    formats: Vec<Arc<FileFormat>>,
    declared: Vec<Target>,
    threads: usize,
}

impl FilesSource {
    /// Files as the definition describes them, read by as many threads as the machine has.
    ///
    /// # Errors
    /// When a column's format is not a `strftime` format, or the definition names no files.
    pub fn new(definition: &TableDefinition, clock: Arc<dyn Clock>) -> Result<Self, SourceError> {
        let TableSource::Files(sources) = &definition.source else {
            let message = format!("the rows of table {} do not come from files", definition.name);
            return Err(SourceError::new(ErrorKind::Internal, message));
        };
        Ok(Self {
            declared: schema::declared(&definition.columns)?,
            sources: sources.clone(),
            formats: sources.iter().map(|source| Arc::new(source.format.clone())).collect(),
            definition: definition.clone(),
            clock,
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        })
    }

    /// Sets how many threads read and how many blocks are in memory at the same time.
    #[must_use]
    pub fn with_threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads.get();
        self
    }

    /// All files of all blocks; one that two blocks name belongs to the first.
    async fn list(&self, known: &Known) -> Result<Vec<ListedFile>, SourceError> {
        let sources = self.sources.iter().enumerate();
        let mut files = Vec::new();
        for (block, source) in sources {
            files.append(&mut listing::list(source, block, &known.files).await?);
        }
        if self.sources.len() > 1 {
            let mut seen = HashSet::new();
            files.retain(|file| {
                let is_first = seen.insert(file.path.clone());
                if !is_first {
                    tracing::warn!(file = %file.path, "two [[source]] blocks name this file: the first one reads it");
                }
                is_first
            });
        }
        Ok(files)
    }

    async fn compare(&self, known: &Known, again: bool) -> Result<Comparison, SourceError> {
        let settle = |block: usize| self.sources[block].settle;
        let listed = self.list(known).await?;
        Ok(changes::compare(listed, &known.files, again, settle, self.clock.now()))
    }

    fn reading(&self, file: &ListedFile) -> pipeline::Reading {
        let format = Arc::clone(&self.formats[file.block]);
        let is_headless = matches!(&*format, FileFormat::Csv(options) if !options.header);
        let names = || self.declared.iter().map(|target| target.from.as_ref().unwrap_or(&target.name).clone());
        let by_number = || names().any(|name| name.strip_prefix("column_").is_some_and(|n| n.parse::<u32>().is_ok()));
        let positional =
            (is_headless && !self.declared.is_empty() && !by_number()).then(|| Arc::new(names().collect::<Vec<_>>()));
        pipeline::Reading { file: file.clone(), format, positional }
    }

    /// Why a file has to be looked at before its rows are read.
    fn purpose(&self, file: &ListedFile) -> Option<Purpose> {
        let is_parquet = matches!(*self.formats[file.block], FileFormat::Parquet);
        if self.declared.is_empty() {
            Some(Purpose::Columns)
        } else if !is_parquet && Compression::of(&file.path) != Compression::None {
            Some(Purpose::Unpack)
        } else {
            None
        }
    }

    /// Decides for each candidate; reads are not looked at yet.
    async fn decide(
        &self,
        candidates: Vec<Candidate>,
        vanished: &mut Vec<CarriedFile>,
    ) -> Result<Decided, SourceError> {
        let unknown = candidates.iter().filter(|candidate| candidate.change.needs_hash());
        let unknown = unknown.map(|candidate| (self.reading(&candidate.file), Purpose::Hash)).collect();
        let mut hashes = look_all(unknown, self.threads).await.into_iter();
        let mut decided = Decided::default();
        for candidate in candidates {
            let hash = if candidate.change.needs_hash() {
                match hashes.next() {
                    Some(Ok(look)) => look.hash,
                    Some(Err(failure)) => {
                        self.pass_over(&candidate.file, failure)?;
                        continue;
                    }
                    None => None,
                }
            } else {
                None
            };
            let old = match &candidate.change {
                Change::Changed(old) | Change::ChangedOrTouched(old) | Change::Touched(old) => {
                    Some(old.as_ref().clone())
                }
                Change::New | Change::NewOrRenamed => None,
            };
            match changes::decide(&candidate, hash.as_deref(), vanished, self.definition.load.mode) {
                Action::Read { replaces } => {
                    let reading = self.reading(&candidate.file);
                    decided.reads.push(Read { reading, hash, old, replaces });
                }
                Action::Record(files) => decided.records.extend(files),
                Action::Refuse(file, reason) => decided.refusals.push((file, reason)),
            }
        }
        Ok(decided)
    }

    /// A file that cannot be looked at because it is gone or being written is left for next time.
    fn pass_over(&self, file: &ListedFile, failure: ReadFailure) -> Result<(), SourceError> {
        let why = match failure {
            ReadFailure::Failed(error) => return Err(error),
            ReadFailure::Gone => "it is gone",
            ReadFailure::Changed(why) => why,
            ReadFailure::Broken(_) => "it cannot be read",
        };
        tracing::warn!(table = %self.definition.name, file = %file.path, why, "the file is left for the next load");
        Ok(())
    }

    /// Looks at the files to be read as far as needed, and says which columns their rows get.
    async fn prepare(&self, decided: &mut Decided, known: &Known) -> Result<Targets, SourceError> {
        let reads = std::mem::take(&mut decided.reads);
        let looks = reads
            .iter()
            .filter_map(|read| self.purpose(&read.reading.file).map(|purpose| (read.reading.clone(), purpose)));
        let mut looks = look_all(looks.collect(), self.threads).await.into_iter();
        let mut gathered = Gathered::new(known.schema.as_deref())?;
        for mut read in reads {
            let look = if self.purpose(&read.reading.file).is_some() { looks.next() } else { None };
            let refusal = match look.unwrap_or_else(|| Ok(Look::default())) {
                Ok(look) => {
                    // Another hash than a moment ago is a file being written; it is noticed when it is read.
                    read.hash = read.hash.or(look.hash);
                    match look.columns {
                        Columns::NotLookedAt => None,
                        Columns::Seen(shapes) => {
                            gathered.add_shapes(shapes);
                            None
                        }
                        Columns::Typed(columns) => gathered.add_typed(&columns).err(),
                    }
                }
                Err(ReadFailure::Broken(reason)) => Some(reason),
                Err(failure) => {
                    self.pass_over(&read.reading.file, failure)?;
                    continue;
                }
            };
            match refusal {
                None => decided.reads.push(read),
                Some(reason) => decided.refuse(read, reason, self.threads).await?,
            }
        }
        if self.declared.is_empty() {
            Ok(Targets::new(gathered.finish()?, false))
        } else {
            Ok(Targets::new(self.declared.clone(), true))
        }
    }
}

/// What is to be done with the files of a load.
#[derive(Default)]
struct Decided {
    reads: Vec<Read>,
    records: Vec<CarriedFile>,
    refusals: Vec<(CarriedFile, String)>,
}

impl Decided {
    async fn refuse(&mut self, read: Read, reason: String, threads: usize) -> Result<(), SourceError> {
        let hash = match read.hash {
            Some(hash) => Some(hash),
            None => match look_all(vec![(read.reading.clone(), Purpose::Hash)], threads).await.pop() {
                Some(Ok(look)) => look.hash,
                Some(Err(ReadFailure::Failed(error))) => return Err(error),
                _ => None,
            },
        };
        if let Some(hash) = hash {
            self.refusals.push((reading::refused(&read.reading.file, read.old.as_ref(), hash), reason));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.records.is_empty() && self.refusals.is_empty()
    }
}

#[async_trait]
impl Source for FilesSource {
    async fn open(&self, known: &Known) -> Result<Option<Reading>, SourceError> {
        let definition = &self.definition;
        let position = json!({ "definition": definition.content_hash });
        let again = known.position.as_ref().is_some_and(|known| *known != position);
        let mut comparison = self.compare(known, again).await?;
        let settle = self.sources.iter().map(|source| source.settle).max().unwrap_or_default();
        if comparison.growing > 0 && settle <= WORTH_WAITING {
            // Who drops a file and syncs at once expects its rows; only what is still being written to stays out.
            tokio::time::sleep(settle).await;
            comparison = self.compare(known, again).await?;
        }
        if comparison.growing > 0 {
            let files = comparison.growing;
            tracing::info!(table = %definition.name, files, "files written to a moment ago are left for the next load");
        }
        let mut decided = self.decide(comparison.candidates, &mut comparison.vanished).await?;
        let mut replaced = Vec::new();
        if definition.load.mode == LoadMode::Mirror {
            for file in comparison.vanished {
                replaced.push(file.path.clone());
                let status = FileStatus::Removed;
                decided.records.push(CarriedFile { status, rows: 0, rejected: 0, data_files: vec![], ..file });
            }
        }
        if decided.is_empty() {
            return Ok(None);
        }
        let targets = Arc::new(self.prepare(&mut decided, known).await?);
        if decided.is_empty() {
            // All that was new went away again while we looked.
            return Ok(None);
        }
        if targets.columns.is_empty() {
            return match decided.refusals.first() {
                Some((file, reason)) => Err(SourceError::new(
                    ErrorKind::InvalidInput,
                    format!("no file of {} could be read; the first is {}: {reason}", definition.name, file.path),
                )),
                None => Ok(None),
            };
        }
        let kind = match definition.load.mode {
            LoadMode::Upsert => ChangeKind::Upsert,
            LoadMode::Append | LoadMode::Replace | LoadMode::Mirror => ChangeKind::Append,
        };
        let schema = Arc::clone(&targets.schema);
        let total_bytes = Some(decided.reads.iter().map(|read| read.reading.file.size).sum());
        let oldest_change = decided.reads.iter().map(|read| read.reading.file.modified).min();
        let plan = Plan {
            table: definition.name.to_string(),
            targets,
            kind,
            reads: decided.reads,
            refusals: decided.refusals,
            records: decided.records,
            replaced,
            position,
            threads: self.threads,
        };
        let events = ReceiverStream::new(reading::start(plan)).boxed();
        Ok(Some(Reading { schema, total_bytes, oldest_change, key: None, folding: Vec::new(), whole: None, events }))
    }
}
