//! The reading itself: files in order, each as batches and rejects, and what became of it at the end.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::column::{Parsed, Targets};
use super::input::{ReadFailure, fetch};
use super::listing::ListedFile;
use super::look::{Purpose, look_all};
use super::pipeline::{self, Head, Pipeline, Reading, Work};
use super::{json, parquet};
use crate::config::FileFormat;
use crate::error::ErrorKind;
use crate::model::{CarriedFile, ChangeBatch, ChangeKind, FileStatus, Reject};
use crate::source::{ReadingEnd, SourceError, SourceEvent};

/// All that a load is going to do with files.
pub(super) struct Plan {
    pub(super) table: String,
    pub(super) targets: Arc<Targets>,
    pub(super) kind: ChangeKind,
    /// Files to read, in order.
    pub(super) reads: Vec<Read>,
    /// Files that are not taken, with the reason.
    pub(super) refusals: Vec<(CarriedFile, String)>,
    /// Files of which only this is recorded.
    pub(super) records: Vec<CarriedFile>,
    /// Files whose rows go, beside those of `reads` that replace their own.
    pub(super) replaced: Vec<String>,
    pub(super) position: serde_json::Value,
    pub(super) threads: usize,
}

/// A file to read.
pub(super) struct Read {
    pub(super) reading: Reading,
    /// The content's hash where it is known already.
    pub(super) hash: Option<String>,
    /// What was loaded from the file before.
    pub(super) old: Option<CarriedFile>,
    /// Whether the rows of its earlier content go.
    pub(super) replaces: bool,
}

/// Events that may wait to be taken: each may be a batch.
const WAITING_EVENTS: usize = 2;

type Events = mpsc::Sender<Result<SourceEvent, SourceError>>;

/// Starts a reading; it stops when nobody listens any more.
pub(super) fn start(plan: Plan) -> mpsc::Receiver<Result<SourceEvent, SourceError>> {
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    tokio::spawn(async move {
        match read_all(plan, &sender).await {
            Ok(end) => drop(sender.send(Ok(SourceEvent::End(end))).await),
            Err(Stop::Failed(error)) => drop(sender.send(Err(error)).await),
            Err(Stop::NobodyListens) => {}
        }
    });
    events
}

/// Why a reading ends early.
enum Stop {
    Failed(SourceError),
    NobodyListens,
}

async fn send(events: &Events, event: SourceEvent) -> Result<(), Stop> {
    events.send(Ok(event)).await.map_err(|_| Stop::NobodyListens)
}

async fn read_all(plan: Plan, events: &Events) -> Result<ReadingEnd, Stop> {
    let mut end =
        ReadingEnd { position: plan.position, files: vec![], replaced_files: plan.replaced, unchanged: false };
    // The next file is opened while one is read, so that many small ones do not wait for the disk or the network.
    let ahead = plan.threads.clamp(2, 4);
    let (targets, threads) = (&plan.targets, plan.threads);
    let mut opened = stream::iter(plan.reads)
        .map(|read| async move {
            let pipeline = open(&read.reading, targets, threads).await;
            (read, pipeline)
        })
        .buffered(ahead);
    let mut refusals = plan.refusals;
    while let Some((read, pipeline)) = opened.next().await {
        let index = end.files.len();
        let outcome = match pipeline {
            Ok(pipeline) => read_one(&read, pipeline, index, plan.kind, events).await?,
            Err(failure) => Outcome { failure: Some(failure), ..Outcome::default() },
        };
        match settle(&read, outcome, &plan.table).await.map_err(Stop::Failed)? {
            Settled::Loaded(file) => {
                if read.replaces {
                    end.replaced_files.push(file.path.clone());
                }
                end.files.push(file);
            }
            Settled::Refused(file, reason) => refusals.push((file, reason)),
            Settled::Gone => {}
        }
    }
    for (file, reason) in refusals {
        let reject = Reject { file: file.path.clone(), line: None, column: None, reason, raw: String::new() };
        send(events, SourceEvent::Rejects(vec![reject])).await?;
        end.files.push(file);
    }
    end.files.extend(plan.records);
    Ok(end)
}

async fn open(
    reading: &Reading,
    targets: &Arc<Targets>,
    threads: usize,
) -> Result<Pipeline<Result<Parsed, SourceError>>, ReadFailure> {
    let fetched = fetch(&reading.file).await?;
    let targets = Arc::clone(targets);
    if matches!(*reading.format, FileFormat::Parquet) {
        return Ok(parquet::start(reading.file.clone(), fetched, threads, targets));
    }
    let path = reading.file.path.clone();
    Ok(pipeline::start(reading.clone(), fetched, threads, move |head| understand(&path, head, targets)))
}

/// What is done with a block to make rows of it.
fn understand(path: &str, head: Head, targets: Arc<Targets>) -> Result<Work<Result<Parsed, SourceError>>, ReadFailure> {
    match head {
        Head::Csv(None) => {
            Ok(Arc::new(|block| Ok(Parsed { rows: None, rejects: block.rejects, stored: block.stored })))
        }
        Head::Csv(Some(file)) => {
            let layout = targets.layout(&file.names).map_err(ReadFailure::Broken)?;
            if !layout.unused.is_empty() {
                tracing::warn!(file = path, columns = ?layout.unused, "columns that are not declared are passed over");
            }
            Ok(Arc::new(move |block| file.read(&targets, &layout, block)))
        }
        Head::Json => {
            let path = path.to_owned();
            Ok(Arc::new(move |block| json::read(&path, &targets, block)))
        }
    }
}

/// What came of one file.
#[derive(Default)]
struct Outcome {
    rows: u64,
    rejected: u64,
    hash: Option<String>,
    failure: Option<ReadFailure>,
}

async fn read_one(
    read: &Read,
    mut pipeline: Pipeline<Result<Parsed, SourceError>>,
    index: usize,
    kind: ChangeKind,
    events: &Events,
) -> Result<Outcome, Stop> {
    let path = &read.reading.file.path;
    let mut outcome = Outcome::default();
    while let Some(result) = pipeline.results.recv().await {
        let parsed = result.await.map_err(|error| Stop::Failed(stopped(path, &error)))?.map_err(Stop::Failed)?;
        outcome.rejected += parsed.rejects.len() as u64;
        if !parsed.rejects.is_empty() {
            send(events, SourceEvent::Rejects(parsed.rejects)).await?;
        }
        if let Some(rows) = parsed.rows.filter(|rows| rows.num_rows() > 0) {
            outcome.rows += rows.num_rows() as u64;
            send(events, SourceEvent::Changes(ChangeBatch { kind, rows, file: Some(index) })).await?;
        }
        if parsed.stored > 0 {
            send(events, SourceEvent::Progress(parsed.stored)).await?;
        }
    }
    match pipeline.end.await.map_err(|error| Stop::Failed(stopped(path, &error)))? {
        Ok(hash) => outcome.hash = Some(hash),
        Err(failure) => outcome.failure = Some(failure),
    }
    Ok(outcome)
}

fn stopped(path: &str, error: &tokio::task::JoinError) -> SourceError {
    SourceError::new(ErrorKind::DataLoss, format!("reading {path} stopped: {error}; the file may be damaged"))
}

/// What is recorded of a file that was to be read.
enum Settled {
    Loaded(CarriedFile),
    Refused(CarriedFile, String),
    /// It went away after the listing and before it was opened: as if it had never been there.
    Gone,
}

async fn settle(read: &Read, outcome: Outcome, table: &str) -> Result<Settled, SourceError> {
    let file = &read.reading.file;
    let conflict = |what: &str| {
        SourceError::new(
            ErrorKind::Conflict,
            format!("{} {what}; nothing of it was taken. The load has to begin anew", file.path),
        )
    };
    match outcome.failure {
        None => {}
        Some(ReadFailure::Gone) => {
            tracing::warn!(table, file = %file.path, "the file is gone since it was listed: it is left out");
            return Ok(Settled::Gone);
        }
        Some(ReadFailure::Changed(what)) => return Err(conflict(what)),
        Some(ReadFailure::Failed(error)) => return Err(error),
        Some(ReadFailure::Broken(reason)) if outcome.rows + outcome.rejected == 0 => {
            return refuse(read, reason).await;
        }
        Some(ReadFailure::Broken(reason)) => {
            return Err(SourceError::new(
                ErrorKind::DataLoss,
                format!(
                    "{} is damaged after {} rows: {reason}; nothing was loaded. Repair the file or take it away",
                    file.path,
                    outcome.rows + outcome.rejected
                ),
            ));
        }
    }
    let hash = outcome.hash.unwrap_or_default();
    if read.hash.as_ref().is_some_and(|known| *known != hash) {
        return Err(conflict("changed while it was read"));
    }
    let (rows, rejected) = (outcome.rows, outcome.rejected);
    Ok(Settled::Loaded(CarriedFile { rows, rejected, ..entry(file, hash, FileStatus::Loaded) }))
}

/// Refuses a file of which no row was taken. Its hash is that of all its bytes, so that it is known again.
async fn refuse(read: &Read, reason: String) -> Result<Settled, SourceError> {
    let file = &read.reading.file;
    let hash = match &read.hash {
        Some(hash) => Some(hash.clone()),
        None => {
            let mut looks = look_all(vec![(read.reading.clone(), Purpose::Hash)], 1).await;
            match looks.pop() {
                Some(Ok(look)) => look.hash,
                Some(Err(ReadFailure::Failed(error))) => return Err(error),
                _ => None,
            }
        }
    };
    let Some(hash) = hash else { return Ok(Settled::Gone) };
    Ok(Settled::Refused(refused(file, read.old.as_ref(), hash), reason))
}

/// The entry of a file that is not taken: with what was loaded from it before, if anything was.
pub(super) fn refused(file: &ListedFile, old: Option<&CarriedFile>, hash: String) -> CarriedFile {
    let fresh = entry(file, hash, FileStatus::Refused);
    match old.filter(|old| old.rows > 0) {
        Some(old) => CarriedFile {
            content_hash: old.content_hash.clone(),
            rows: old.rows,
            rejected: old.rejected,
            data_files: old.data_files.clone(),
            ..fresh
        },
        None => CarriedFile { rejected: 1, ..fresh },
    }
}

fn entry(file: &ListedFile, content_hash: String, status: FileStatus) -> CarriedFile {
    CarriedFile {
        path: file.path.clone(),
        size: file.size,
        e_tag: file.e_tag.clone(),
        modified: file.modified,
        content_hash,
        rows: 0,
        rejected: 0,
        status,
        data_files: vec![],
    }
}
