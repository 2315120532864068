//! The look ahead: files opened before any row is handed out, to know their content's hash, their columns and
//! that they can be unpacked to the end.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use futures::{StreamExt, stream};

use super::csv::CsvFile;
use super::input::{Compression, ReadFailure, check_unchanged, fetch};
use super::listing::ListedFile;
use super::pipeline::{self, Head, Reading, Work};
use super::shape::{Shape, merge_fields};
use super::{json, parquet};
use crate::config::FileFormat;
use crate::error::ErrorKind;
use crate::model::ColumnType;
use crate::source::SourceError;

/// What a look ahead is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To know the hash of the content.
    Hash,
    /// To know that the file can be unpacked to its end, so that a broken one is refused before its first row is taken.
    Unpack,
    /// To know its columns and what they hold.
    Columns,
}

/// What a look ahead found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// BLAKE3 of the stored bytes; none where not all were read.
    pub(super) hash: Option<String>,
    pub(super) columns: Columns,
}

/// The columns a file brings.
#[derive(Debug, Default)]
pub(super) enum Columns {
    #[default]
    NotLookedAt,
    /// From text: what they were seen to hold.
    Seen(Vec<(String, Shape)>),
    /// From a file that has types of its own.
    Typed(Vec<(String, ColumnType)>),
}

/// Looks at files, several at a time; the results are in their order.
pub(super) async fn look_all(files: Vec<(Reading, Purpose)>, threads: usize) -> Vec<Result<Look, ReadFailure>> {
    // Few files share the threads, many are each read by one.
    let window = (threads / files.len().max(1)).max(1) + 1;
    stream::iter(files)
        .map(|(reading, purpose)| async move {
            match purpose {
                Purpose::Columns => columns(reading, window).await,
                Purpose::Hash => through(reading.file, false).await,
                Purpose::Unpack => through(reading.file, true).await,
            }
        })
        .buffered(threads)
        .collect()
        .await
}

/// Reads a file to its end for the hash, unpacked if asked.
async fn through(file: ListedFile, unpack: bool) -> Result<Look, ReadFailure> {
    let fetched = fetch(&file).await?;
    let read = move || {
        let (stored, meter) = fetched.open(&file.path)?;
        let unpacked = if unpack { Compression::of(&file.path) } else { Compression::None }.unpack(stored);
        unpacked
            .and_then(|mut reader| io::copy(&mut reader as &mut dyn Read, &mut io::sink()))
            .map_err(|error| meter.failure(&file.path, error))?;
        check_unchanged(&file)?;
        Ok(Look { hash: Some(meter.hash()), columns: Columns::NotLookedAt })
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| stopped(&error))?
}

async fn columns(reading: Reading, window: usize) -> Result<Look, ReadFailure> {
    if matches!(*reading.format, FileFormat::Parquet) {
        return Ok(Look { hash: None, columns: Columns::Typed(parquet::columns(&reading.file).await?) });
    }
    let fetched = fetch(&reading.file).await?;
    // A header without rows brings its columns all the same.
    let names = Arc::new(OnceLock::new());
    let told = Arc::clone(&names);
    let mut pipeline = pipeline::start(reading, fetched, window, move |head| {
        if let Head::Csv(Some(file)) = &head {
            told.get_or_init(|| file.names.iter().map(|name| (name.clone(), Shape::default())).collect::<Vec<_>>());
        }
        Ok(see(head))
    });
    let mut columns = Vec::new();
    while let Some(result) = pipeline.results.recv().await {
        merge_fields(&mut columns, result.await.map_err(|error| stopped(&error))?);
    }
    let hash = pipeline.end.await.map_err(|error| stopped(&error))??;
    if columns.is_empty() {
        columns = names.get().cloned().unwrap_or_default();
    }
    Ok(Look { hash: Some(hash), columns: Columns::Seen(columns) })
}

/// What is done with a block to see what its columns hold.
fn see(head: Head) -> Work<Vec<(String, Shape)>> {
    match head {
        Head::Json => Arc::new(|block| json::infer(&block)),
        Head::Csv(None) => Arc::new(|_| Vec::new()),
        Head::Csv(Some(file)) => {
            Arc::new(move |block| file.names.iter().cloned().zip(CsvFile::infer(&file, &block)).collect())
        }
    }
}

fn stopped(error: &tokio::task::JoinError) -> ReadFailure {
    ReadFailure::Failed(SourceError::new(ErrorKind::Internal, format!("reading stopped: {error}")))
}
