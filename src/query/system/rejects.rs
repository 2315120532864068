//! `system.rejects`: the rows that did not fit, table by table, newest attempt first.

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::model::{Reject, TableName};
use crate::query::system::columns::{Columns, count, failed, name, number, schema, text};
use crate::query::system::{BATCH_ROWS, Batches, Definition, System, Wanted};

/// `system.rejects`.
pub(super) static REJECTS: Definition = Definition {
    name: "rejects",
    description: "Rows that did not fit, with file, line, column, reason and raw text",
    told: "rejects of tables of which they see everything",
    columns: &[
        schema(),
        name(),
        number("attempt").always(),
        text("file").always(),
        number("line"),
        text("column_name"),
        text("reason").always(),
        text("raw").always(),
    ],
    goes_through_tables: true,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let names = system.names(&wanted, |name| wanted.everything(name));
    stream::iter(names)
        .then(move |name| {
            let system = system.clone();
            async move {
                let chain = system.lake.table(&name).chain().await.map_err(failed)?;
                let batches = chain
                    .rejects()
                    .try_chunks(BATCH_ROWS)
                    .map_err(|error| failed(error.1))
                    .and_then(move |rejects| std::future::ready(reject_batch(&name, &rejects)));
                Ok::<_, DataFusionError>(batches)
            }
        })
        .try_flatten()
        .boxed()
}

fn reject_batch(name: &TableName, rejects: &[(i64, Reject)]) -> Result<RecordBatch> {
    let mut table = Columns::new(&REJECTS);
    table.names(rejects.iter().map(|_| name));
    table.numbers(rejects.iter().map(|(attempt, _)| Some(*attempt)));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.file.clone())));
    table.numbers(rejects.iter().map(|(_, reject)| reject.line.and_then(count)));
    table.texts(rejects.iter().map(|(_, reject)| reject.column.clone()));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.reason.clone())));
    table.texts(rejects.iter().map(|(_, reject)| Some(reject.raw.clone())));
    table.batch()
}
