//! `system.queries`: the statements that run on this server, then those that ended, of whoever asks; all of them for
//! those who may see everything.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::journal::QueryRecord;
use crate::query::catalog::BEFORE_FIRST;
use crate::query::system::columns::{Columns, count, failed, number, text, time};
use crate::query::system::{Batches, Definition, System, Wanted};

/// `system.queries`. `status` is queued, running, finished, cancelled or failed; `tables` is JSON, names with versions;
/// null stands for that of a table that had none yet.
/// `shared_from` is run where the rows were being made for another statement, disk where they were kept of one.
/// Times are microseconds: waiting for a turn, planning, waiting for rows, waiting for the line and the client.
pub(super) static QUERIES: Definition = Definition {
    name: "queries",
    description: "Statements that run and that ended: who asked, what they read, what they cost",
    told: "statements of their own",
    columns: &[
        text("query_id").always(),
        text("session_id").always(),
        text("principal").always(),
        text("address"),
        text("client").always(),
        text("text"),
        time("started_at").always(),
        time("ended_at"),
        text("status").always(),
        text("tables").always(),
        number("rows").always(),
        number("raw_bytes").always(),
        number("sent_bytes").always(),
        number("peak_memory").always(),
        number("queue_micros").always(),
        number("plan_micros").always(),
        number("run_micros").always(),
        number("send_micros").always(),
        text("error_kind"),
        text("error"),
        text("shared_from"),
    ],
    goes_through_tables: false,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        // Those that end between the two looks are told by both, as running and as ended: rather than not at all.
        let running: Vec<QueryRecord> = journal.running().all().iter().map(|query| query.now()).collect();
        let ended = journal.queries().await.map_err(failed)?;
        Ok::<_, DataFusionError>(stream::iter([Ok(running)]).chain(ended.map_err(failed)))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut records| {
            records.retain(|record| wanted.is_own(&record.origin.principal));
            std::future::ready(batch(&records))
        })
        .boxed()
}

fn batch(records: &[QueryRecord]) -> Result<RecordBatch> {
    let mut table = Columns::new(&QUERIES);
    let numbers =
        |get: &dyn Fn(&QueryRecord) -> u64| records.iter().map(|record| count(get(record))).collect::<Vec<_>>();
    let texts = |get: &dyn Fn(&QueryRecord) -> Option<String>| records.iter().map(get).collect::<Vec<_>>();
    table.texts(texts(&|record| Some(record.origin.query_id.to_string())));
    table.texts(texts(&|record| Some(record.origin.session_id.to_string())));
    table.texts(texts(&|record| Some(record.origin.principal.clone())));
    table.texts(texts(&|record| record.origin.address.clone()));
    table.texts(texts(&|record| Some(record.origin.client.clone())));
    table.texts(texts(&|record| record.origin.text.clone()));
    table.times(records.iter().map(|record| Some(record.origin.started_at)));
    table.times(records.iter().map(|record| record.ended_at));
    table.texts(texts(&|record| Some(record.status.as_str().to_owned())));
    table.texts(texts(&|record| Some(tables(record))));
    table.numbers(numbers(&|record| record.figures.rows));
    table.numbers(numbers(&|record| record.figures.raw_bytes));
    table.numbers(numbers(&|record| record.figures.sent_bytes));
    table.numbers(numbers(&|record| record.figures.peak_memory));
    table.numbers(numbers(&|record| record.figures.queue_micros));
    table.numbers(numbers(&|record| record.figures.plan_micros));
    table.numbers(numbers(&|record| record.figures.run_micros));
    table.numbers(numbers(&|record| record.figures.send_micros));
    table.texts(texts(&|record| record.error_kind.map(|kind| kind.as_str().to_owned())));
    table.texts(texts(&|record| record.error.clone()));
    table.texts(texts(&|record| record.shared_from.map(|from| from.as_str().to_owned())));
    table.batch()
}

fn tables(record: &QueryRecord) -> String {
    let number = |version: u64| (version != BEFORE_FIRST).then_some(version);
    let tables = record.tables.iter().map(|(name, version)| (name.to_string(), number(*version).into()));
    serde_json::Value::Object(tables.collect()).to_string()
}
