//! A large table whose history was lost: most of its rows are what they were, so only ranges that differ are read into
//! the lake and written there.
//!
//! The version is noted, then the table is compared with the lake range by range, in short transactions. In one snapshot
//! at the end come the changes since that version and all rows of the ranges that differed. A range that was the same
//! when it was compared has changed since only by what these changes tell.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::error::ErrorKind;
use crate::runtime::fault;
use crate::source::mssql::change_tracking;
use crate::source::mssql::connect::Taken;
use crate::source::mssql::group::{Ask, Entry, Seat};
use crate::source::mssql::output::Output;
use crate::source::mssql::position::{self, Position, Since, Way};
use crate::source::mssql::ranges::{self, Comparison, Range};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::source::{Found, SqlServerTable, reading, spawn};
use crate::source::{Known, KnownRows, Reading, ReadingEnd, SourceError, SourceEvent};

/// Fewer rows are read whole: that is one reading where a repair is two, and takes seconds.
const ROWS_WORTH_COMPARING: u64 = 100_000;
/// Where more than one row in so many stands in a range that differs, the table is read whole: that goes on where it is
/// cut off and needs no long transaction.
const WORTH_REPAIRING: u64 = 4;
/// As many rows as the largest chunk has are always read at once.
const ALWAYS_REPAIRED: u64 = 500_000;

impl SqlServerTable {
    /// The table's rows in the lake, where comparing with them is worth more than reading the whole table: it is large,
    /// has the columns and the key it had, and its ranges are the lake's.
    pub(super) fn repairable(
        &self,
        found: &Found,
        before: Option<&Position>,
        known: &Known,
    ) -> Option<Arc<dyn KnownRows>> {
        let (before, now) = (before?, &found.now);
        let lake = known.rows.clone()?;
        let was_read_alike = before.method == Way::ChangeTracking && before.choices == now.choices;
        let is_alike = before.columns == now.columns && before.key == now.key;
        let is_large = lake.count().is_some_and(|rows| rows > ROWS_WORTH_COMPARING || is_small());
        let can_be = found.database.allows_snapshots && ranges::can_be_cut(&found.shape) && known.partial.is_none();
        (was_read_alike && is_alike && is_large && can_be)
            .then_some(lake)
            .filter(|_| !self.connections.was_beyond_repair(&self.source.connection, &found.shape.table))
    }

    /// What differs from the lake, range by range, with what changed while that was looked for.
    pub(super) async fn repair(
        &self,
        mut session: Taken,
        found: Found,
        lake: Arc<dyn KnownRows>,
        seat: Option<Arc<Seat>>,
    ) -> Result<Reading, SourceError> {
        let since = Since { version: change_tracking::current_version(&mut session).await?, ahead: None };
        drop(session);
        let (own, shape, now) = (self.clone(), Arc::clone(&found.shape), found.now.clone());
        let reader = self.reader(&found);
        let comparison = Comparison { reader, snapshots: true, lake, since: None, newer: None };
        let events = spawn(move |mut output| async move {
            let differing = own.differing(&comparison, &output).await?;
            tracing::info!(
                table = %shape.table,
                ranges = differing.len(),
                "compared with the lake: the ranges of its key that differ are read anew"
            );
            fault::point("source.repair.compared")
                .map_err(|cause| SourceError::because(ErrorKind::Unavailable, "a table was compared", cause))?;
            let reader = &comparison.reader;
            let ask = Ask { table: shape.table.clone(), since: Some(since) };
            output.hurry().await?;
            let entry = Entry::come(reader, None, seat, ask, true).await?;
            let version = entry.version;
            let mut transaction = entry.begin(reader, true).await?;
            let newest = change_tracking::read(transaction.session(), &shape, since, true, &mut output).await?;
            if !differing.is_empty() {
                ranges::read_anew(transaction.session(), &shape, &differing, &mut output).await?;
            }
            let mut session = transaction.end_and_take(reader).await?;
            own.check_unaltered(&mut session, &shape, &now).await?;
            let position = position::write(&now.after(version, newest))?;
            output.send(SourceEvent::End(ReadingEnd { position, ..ReadingEnd::default() })).await
        });
        // It is not put off for what it rewrites: it would have to be compared again.
        Ok(reading(&found.shape, None, Some(chrono::DateTime::UNIX_EPOCH), events).of(found.shape.bytes))
    }

    /// The ranges that differ, neighbours as one.
    async fn differing(&self, comparison: &Comparison, output: &Output) -> Result<Vec<Range>, SourceError> {
        let rows = comparison.lake.count().unwrap_or(0);
        let most = (rows / WORTH_REPAIRING).max(if is_small() { 0 } else { ALWAYS_REPAIRED });
        let (sender, mut compared) = mpsc::unbounded_channel();
        let everything = [Range::default()];
        let mut tell = |chunk: &ranges::Compared| {
            // The receiver lives as long as this.
            let _ = sender.send((chunk.bytes, if chunk.is_same { 0 } else { chunk.source_rows.max(chunk.lake_rows) }));
        };
        let mut work = pin!(comparison.differing(&everything, &mut tell));
        let mut differing = 0;
        loop {
            let (bytes, rows_of_chunk) = tokio::select! {
                done = &mut work => return Ok(joined(done?.into_iter().map(|chunk| chunk.range))),
                Some(chunk) = compared.recv() => chunk,
            };
            output.send(SourceEvent::Progress(bytes)).await?;
            differing += rows_of_chunk;
            if differing > most {
                let reader = &comparison.reader;
                self.connections.note_beyond_repair(&reader.settings, &reader.shape.table);
                let text = format!(
                    "more than {most} of {rows} rows of {} may differ from the lake; it is read whole",
                    reader.shape.table
                );
                return Err(SourceError::new(ErrorKind::Conflict, text));
            }
        }
    }

    /// Makes sure that a table is what it was when reading it began.
    pub(super) async fn check_unaltered(
        &self,
        session: &mut Taken,
        shape: &Shape,
        then: &Position,
    ) -> Result<(), SourceError> {
        if self.look(session, None).await?.now.is_of_same_table(then) {
            return Ok(());
        }
        let text = format!("{} was altered while it was read; it is read anew", shape.table);
        Err(SourceError::new(ErrorKind::Conflict, text))
    }
}

/// Ranges of which those that follow one another are one.
fn joined(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if !last.until.is_empty() && last.until == range.after => last.until = range.until,
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether a test wants small tables to be taken for large ones, by the fault point `source.repair.small`.
fn is_small() -> bool {
    fault::point("source.repair.small").is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(after: &str, until: &str) -> Range {
        let key = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        Range { after: key(after), until: key(until) }
    }

    #[test]
    fn neighbours_become_one() {
        let ranges = [range("", "3"), range("3", "7"), range("9", "12"), range("12", "")];
        assert_eq!(joined(ranges.into_iter()), [range("", "7"), range("9", "")]);
        assert_eq!(joined([range("", "")].into_iter()), [range("", "")]);
        assert_eq!(joined(std::iter::empty()), []);
    }
}
