//! `system.sessions`: the sessions of this server's clients, then those that ended, of whoever asks; all of them for
//! those who may see everything.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::journal::SessionRecord;
use crate::query::system::columns::{Columns, count, failed, number, text, time};
use crate::query::system::{Batches, Definition, System, Wanted};

/// `system.sessions`. `end_reason` is closed, disconnected, idle or stopped; `options` are those that were set.
pub(super) static SESSIONS: Definition = Definition {
    name: "sessions",
    description: "Sessions of clients that are open and that ended: whose, from where, how much they asked",
    told: "sessions of their own",
    columns: &[
        text("session_id").always(),
        text("principal").always(),
        text("address"),
        text("client").always(),
        time("started_at").always(),
        time("used_at").always(),
        time("ended_at"),
        text("end_reason"),
        number("statements").always(),
        text("options").always(),
    ],
    goes_through_tables: false,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        let open: Vec<SessionRecord> = journal.open_sessions().all().iter().map(|session| session.now()).collect();
        let ended = journal.sessions().await.map_err(failed)?;
        Ok::<_, DataFusionError>(stream::iter([Ok(open)]).chain(ended.map_err(failed)))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut records| {
            records.retain(|record| wanted.is_own(&record.principal));
            std::future::ready(batch(&records))
        })
        .boxed()
}

fn batch(records: &[SessionRecord]) -> Result<RecordBatch> {
    let mut table = Columns::new(&SESSIONS);
    let texts = |get: &dyn Fn(&SessionRecord) -> Option<String>| records.iter().map(get).collect::<Vec<_>>();
    table.texts(texts(&|record| Some(record.session_id.to_string())));
    table.texts(texts(&|record| Some(record.principal.clone())));
    table.texts(texts(&|record| record.address.clone()));
    table.texts(texts(&|record| Some(record.client.clone())));
    table.times(records.iter().map(|record| Some(record.started_at)));
    table.times(records.iter().map(|record| Some(record.used_at)));
    table.times(records.iter().map(|record| record.ended_at));
    table.texts(texts(&|record| record.end.map(|end| end.as_str().to_owned())));
    table.numbers(records.iter().map(|record| count(record.statements)));
    table.texts(texts(&|record| Some(record.options.join(", "))));
    table.batch()
}
