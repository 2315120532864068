//! `system.files`: the source files each table's chain knows, table by table.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::model::{CarriedFile, FileStatus, TableName};
use crate::query::system::columns::{Columns, count, failed, name, number, schema, text, time};
use crate::query::system::{BATCH_ROWS, Batches, Definition, PARALLEL_TABLES, System, Wanted};

/// `system.files`. `status` is loaded, touched, renamed, refused or removed.
pub(super) static FILES: Definition = Definition {
    name: "files",
    description: "Source files as the newest version of each table knows them",
    told: "files of tables of which they see everything",
    columns: &[
        schema(),
        name(),
        text("path").always(),
        number("size_bytes").always(),
        time("modified_at").always(),
        text("content_hash").always(),
        number("rows_taken").always(),
        number("rows_rejected").always(),
        text("status").always(),
    ],
    goes_through_tables: true,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let names = system.names(&wanted, |name| wanted.everything(name));
    stream::iter(names)
        .map(move |name| {
            let system = system.clone();
            async move {
                let chain = system.lake.table(&name).chain().await.map_err(failed)?;
                Ok::<_, DataFusionError>((name, Arc::clone(chain.files())))
            }
        })
        .buffered(PARALLEL_TABLES)
        .map_ok(|(name, files)| {
            let mut files: Vec<CarriedFile> = files.values().cloned().collect();
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let batches: Vec<_> = files.chunks(BATCH_ROWS).map(|files| file_batch(&name, files)).collect();
            stream::iter(batches)
        })
        .try_flatten()
        .boxed()
}

fn file_batch(name: &TableName, files: &[CarriedFile]) -> Result<RecordBatch> {
    let mut table = Columns::new(&FILES);
    table.names(files.iter().map(|_| name));
    table.texts(files.iter().map(|file| Some(file.path.clone())));
    table.numbers(files.iter().map(|file| count(file.size)));
    table.times(files.iter().map(|file| Some(file.modified)));
    table.texts(files.iter().map(|file| Some(file.content_hash.clone())));
    table.numbers(files.iter().map(|file| count(file.rows)));
    table.numbers(files.iter().map(|file| count(file.rejected)));
    table.texts(files.iter().map(|file| Some(file_status_text(file.status).to_owned())));
    table.batch()
}

fn file_status_text(status: FileStatus) -> &'static str {
    match status {
        FileStatus::Loaded => "loaded",
        FileStatus::Touched => "touched",
        FileStatus::Renamed => "renamed",
        FileStatus::Refused => "refused",
        FileStatus::Removed => "removed",
    }
}
