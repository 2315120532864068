//! `system.streams`: the results that are on their way from this server, of whoever asks; all of them for those who may
//! see everything.

use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use futures::{StreamExt, stream};

use crate::journal::StreamRecord;
use crate::query::system::columns::{Columns, count, fraction, number, text};
use crate::query::system::{Batches, Definition, System, Wanted};

/// `system.streams`. `query_id` is that of `system.queries`; `line` are the line's networks. Rates are bits in a second: what
/// the line carries, and what the stream got lately; `share` is its part of what the line carried lately.
pub(super) static STREAMS: Definition = Definition {
    name: "streams",
    description: "Results that are being sent: over which line, at what rate, and how long they waited for it",
    told: "results of their own",
    columns: &[
        text("query_id").always(),
        text("principal").always(),
        text("line"),
        number("line_rate"),
        number("rate").always(),
        fraction("share"),
        number("bytes").always(),
        number("wait_micros").always(),
    ],
    goes_through_tables: false,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let streams = system.journal.streams().all();
    let records: Vec<_> =
        streams.iter().map(|stream| stream.now()).filter(|now| wanted.is_own(&now.principal)).collect();
    stream::iter([batch(&records)]).boxed()
}

fn batch(records: &[StreamRecord]) -> Result<RecordBatch> {
    let mut table = Columns::new(&STREAMS);
    table.texts(records.iter().map(|record| Some(record.query_id.to_string())));
    table.texts(records.iter().map(|record| Some(record.principal.clone())));
    table.texts(records.iter().map(|record| record.line.clone()));
    table.numbers(records.iter().map(|record| record.line_rate.and_then(count)));
    table.numbers(records.iter().map(|record| count(record.rate)));
    table.fractions(records.iter().map(|record| record.share));
    table.numbers(records.iter().map(|record| count(record.bytes)));
    table.numbers(records.iter().map(|record| count(record.wait_micros)));
    table.batch()
}
