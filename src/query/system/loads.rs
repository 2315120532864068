//! `system.loads`: every load and every change by a statement ever noted in the journal, those of tables that are defined no longer included.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::journal::{LoadRecord, LoadStatus};
use crate::query::system::columns::{Columns, count, failed, name, number, schema, text, time};
use crate::query::system::{Batches, Definition, System, Wanted};

/// `system.loads`. `status` is committed, unchanged, deferred or failed; `position` is JSON. Of a change by a statement
/// `written_by` names who asked, and `statement` begins it. Numbers, position and error are told of tables of which
/// everything may be seen.
pub(super) static LOADS: Definition = Definition {
    name: "loads",
    description: "Every load and every change by a statement: when, how many rows, how it ended",
    told: "loads of tables they may read; numbers, position and errors of those of which they see everything",
    columns: &[
        schema(),
        name(),
        text("load_id").always(),
        time("started_at").always(),
        time("ended_at").always(),
        text("status").always(),
        number("rows_read"),
        number("rows_written"),
        number("rows_rejected"),
        number("bytes_read"),
        number("bytes_written"),
        number("version"),
        number("attempt"),
        text("position"),
        text("error_kind"),
        text("error"),
        text("written_by"),
        text("statement"),
    ],
    goes_through_tables: false,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        let pieces = journal.stream().await.map_err(failed)?;
        Ok::<_, DataFusionError>(pieces.map_err(failed))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut loads| {
            // The journal outlives definitions: loads of tables that are gone are told as well.
            loads.retain(|load| wanted.is_asked_for(&load.table) && wanted.rights_of_load(load).is_readable());
            std::future::ready(load_batch(&loads, &wanted))
        })
        .boxed()
}

fn load_batch(loads: &[LoadRecord], wanted: &Wanted) -> Result<RecordBatch> {
    let mut table = Columns::new(&LOADS);
    let sees_everything = |load: &&LoadRecord| wanted.rights_of_load(load).sees_everything();
    let whole: Vec<_> = loads.iter().map(|load| Some(load).filter(sees_everything)).collect();
    let numbers =
        |get: &dyn Fn(&LoadRecord) -> Option<i64>| whole.iter().map(|load| load.and_then(get)).collect::<Vec<_>>();
    let texts =
        |get: &dyn Fn(&LoadRecord) -> Option<String>| whole.iter().map(|load| load.and_then(get)).collect::<Vec<_>>();
    table.names(loads.iter().map(|load| &load.table));
    table.texts(loads.iter().map(|load| Some(load.load_id.to_string())));
    table.times(loads.iter().map(|load| Some(load.started_at)));
    table.times(loads.iter().map(|load| Some(load.ended_at)));
    table.texts(loads.iter().map(|load| Some(status_text(load.status).to_owned())));
    table.numbers(numbers(&|load| count(load.rows_read)));
    table.numbers(numbers(&|load| count(load.rows_written)));
    table.numbers(numbers(&|load| count(load.rows_rejected)));
    table.numbers(numbers(&|load| count(load.bytes_read)));
    table.numbers(numbers(&|load| count(load.bytes_written)));
    table.numbers(loads.iter().map(|load| load.version.and_then(count)));
    table.numbers(numbers(&|load| load.attempt));
    table.texts(texts(&|load| load.position.as_ref().map(ToString::to_string)));
    table.texts(texts(&|load| load.error_kind.map(|kind| kind.as_str().to_owned())));
    table.texts(texts(&|load| load.error.clone()));
    table.texts(texts(&|load| load.written.as_ref().map(|written| written.by.clone())));
    table.texts(texts(&|load| load.written.as_ref().map(|written| written.statement.clone())));
    table.batch()
}

fn status_text(status: LoadStatus) -> &'static str {
    match status {
        LoadStatus::Committed => "committed",
        LoadStatus::Unchanged => "unchanged",
        LoadStatus::Deferred => "deferred",
        LoadStatus::Failed => "failed",
    }
}
