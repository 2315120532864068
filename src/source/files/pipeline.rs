//! A file read on one thread and understood on several, with the results handed over in the file's order.
//!
//! Memory is bounded by the window: so many blocks are being worked on or wait to be taken, no more.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::block::{Block, Blocks, Cutter, Phase};
use super::csv::{self, CsvFile};
use super::input::{Compression, Fetched, ReadFailure, Text, check_unchanged};
use super::listing::ListedFile;
use crate::config::FileFormat;

/// What is done with each block, on any thread.
pub(super) type Work<T> = Arc<dyn Fn(Block) -> T + Send + Sync>;

/// A file being read.
pub(super) struct Pipeline<T> {
    /// The results of the blocks, in order.
    pub(super) results: mpsc::Receiver<JoinHandle<T>>,
    /// BLAKE3 of the stored bytes once all were read, or why not all were.
    pub(super) end: JoinHandle<Result<String, ReadFailure>>,
}

/// How a text file is to be read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) file: ListedFile,
    pub(super) format: Arc<FileFormat>,
    /// What the fields of a file without header are called.
    pub(super) positional: Option<Arc<Vec<String>>>,
}

/// What a text file says of itself before its first row.
#[derive(Debug)]
pub(super) enum Head {
    /// Delimited text; none where the file is empty.
    Csv(Option<CsvFile>),
    Json,
}

/// Starts reading a text file. `prepare` sees its head and says what is to be done with its blocks.
pub(super) fn start<T: Send + 'static>(
    reading: Reading,
    fetched: Fetched,
    window: usize,
    prepare: impl FnOnce(Head) -> Result<Work<T>, ReadFailure> + Send + 'static,
) -> Pipeline<T> {
    let (sender, results) = mpsc::channel(window.max(1));
    let end = tokio::task::spawn_blocking(move || read(&reading, fetched, prepare, &sender));
    Pipeline { results, end }
}

fn read<T: Send + 'static>(
    reading: &Reading,
    fetched: Fetched,
    prepare: impl FnOnce(Head) -> Result<Work<T>, ReadFailure>,
    sender: &mpsc::Sender<JoinHandle<T>>,
) -> Result<String, ReadFailure> {
    let file = &reading.file;
    let (stored, meter) = fetched.open(&file.path)?;
    let unpacked = Compression::of(&file.path).unpack(stored).map_err(|error| meter.failure(&file.path, error))?;
    let (encoding, cutter) = match &*reading.format {
        FileFormat::Csv(options) => (options.encoding, Cutter::Delimited(csv::dialect(options))),
        FileFormat::Json => (encoding_rs::UTF_8, Cutter::Elements(Phase::Start)),
        FileFormat::Ndjson | FileFormat::Parquet => (encoding_rs::UTF_8, Cutter::Lines),
    };
    let mut blocks = Blocks::new(&file.path, Text::new(unpacked, encoding), Arc::clone(&meter), cutter);
    let work = prepare(head(reading, &mut blocks)?)?;
    let runtime = Handle::current();
    while let Some(block) = blocks.next()? {
        let work = Arc::clone(&work);
        let result = runtime.spawn_blocking(move || work(block));
        if sender.blocking_send(result).is_err() {
            // Nobody wants the rest: the load was given up.
            break;
        }
    }
    check_unchanged(file)?;
    Ok(meter.hash())
}

fn head(reading: &Reading, blocks: &mut Blocks) -> Result<Head, ReadFailure> {
    let FileFormat::Csv(options) = &*reading.format else { return Ok(Head::Json) };
    let Some(first) = blocks.first_record(csv::dialect(options), !options.header)? else { return Ok(Head::Csv(None)) };
    let positional = reading.positional.as_ref().map(|names| names.as_slice());
    let file = CsvFile::new(&reading.file.path, options, &first, positional).map_err(ReadFailure::Broken)?;
    Ok(Head::Csv(Some(file)))
}
