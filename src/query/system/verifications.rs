//! `system.verifications`: every comparison of a table with its source.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::journal::VerificationRecord;
use crate::query::system::columns::{Columns, count, failed, name, number, schema, text, time};
use crate::query::system::{Batches, Definition, System, Wanted};

/// `system.verifications`. `status` is same, differs, repaired or failed; `version` is the table's that was compared,
/// `since` the source's; `differences` is JSON.
pub(super) static VERIFICATIONS: Definition = Definition {
    name: "verifications",
    description: "Every comparison of a table with its source: what was compared, what differs",
    told: "comparisons of tables of which they see everything",
    columns: &[
        schema(),
        name(),
        text("verification_id").always(),
        time("started_at").always(),
        time("ended_at").always(),
        text("status").always(),
        number("version"),
        text("method"),
        number("since"),
        number("ranges").always(),
        number("rows_compared").always(),
        number("keys_left_out").always(),
        number("ranges_differing").always(),
        text("differences"),
        number("repaired_version"),
        text("notes"),
        text("error_kind"),
        text("error"),
    ],
    goes_through_tables: false,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let pieces = async move {
        let journal = Arc::clone(&system.journal);
        let pieces = journal.verifications().await.map_err(failed)?;
        Ok::<_, DataFusionError>(pieces.map_err(failed))
    };
    stream::once(pieces)
        .try_flatten()
        .and_then(move |mut records| {
            records.retain(|record| wanted.everything(&record.table));
            std::future::ready(verification_batch(&records))
        })
        .boxed()
}

fn verification_batch(records: &[VerificationRecord]) -> Result<RecordBatch> {
    let mut table = Columns::new(&VERIFICATIONS);
    let numbers = |get: &dyn Fn(&VerificationRecord) -> Option<i64>| records.iter().map(get).collect::<Vec<_>>();
    let texts = |get: &dyn Fn(&VerificationRecord) -> Option<String>| records.iter().map(get).collect::<Vec<_>>();
    let json = |differences: &[serde_json::Value]| {
        (!differences.is_empty()).then(|| serde_json::Value::from(differences.to_vec()).to_string())
    };
    table.names(records.iter().map(|record| &record.table));
    table.texts(texts(&|record| Some(record.verification_id.to_string())));
    table.times(records.iter().map(|record| Some(record.started_at)));
    table.times(records.iter().map(|record| Some(record.ended_at)));
    table.texts(texts(&|record| Some(record.status.as_str().to_owned())));
    table.numbers(numbers(&|record| record.version.and_then(count)));
    table.texts(texts(&|record| record.method.clone()));
    table.numbers(numbers(&|record| record.since));
    table.numbers(numbers(&|record| count(record.ranges)));
    table.numbers(numbers(&|record| count(record.rows)));
    table.numbers(numbers(&|record| count(record.left_out)));
    table.numbers(numbers(&|record| i64::try_from(record.differences.len()).ok()));
    table.texts(texts(&|record| json(&record.differences)));
    table.numbers(numbers(&|record| record.repaired_version.and_then(count)));
    table.texts(texts(&|record| (!record.notes.is_empty()).then(|| record.notes.join("; "))));
    table.texts(texts(&|record| record.error_kind.map(|kind| kind.as_str().to_owned())));
    table.texts(texts(&|record| record.error.clone()));
    table.batch()
}
