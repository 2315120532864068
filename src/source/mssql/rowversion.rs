//! Changes by a column of type `rowversion`: the server gives a row a new, greater one with each change.
//!
//! A load reads the rows whose version is that of its low mark or above, in one snapshot and without an upper bound: that
//! is all that is new in this state of the table. The next low mark is the least version that a transaction in progress
//! may have given ([`statements::MIN_ACTIVE_ROWVERSION`]), noted before the snapshot: what commits after it is at or above
//! it, and is read then, some of it once more.
//!
//! Of rows that are gone nothing tells but their number. Every row of the table is either among those read, or
//! unchanged and so in the lake: the table's keys are some of the lake's and those read, and they are all of these
//! exactly if they are as many. If they are not, all keys are read and compared.

use std::sync::Arc;

use arrow::array::{BinaryArray, RecordBatch, Scalar};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::gt_eq;
use futures::TryStreamExt;

use crate::error::ErrorKind;
use crate::model::{ChangeBatch, ChangeKind, ContentHash, KeyFolding, KeyRange};
use crate::source::mssql::change_tracking::{is_full, send};
use crate::source::mssql::connect::Taken;
use crate::source::mssql::decode::{Pushed, RowDecoder};
use crate::source::mssql::discover::whole;
use crate::source::mssql::group::{Ask, Entry, Seat, Transaction, seat_to_read_whole};
use crate::source::mssql::output::Output;
use crate::source::mssql::position::{self, Partial, Position};
use crate::source::mssql::session::{RowSource, Session};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::source::{Found, SqlServerTable, reading, spawn};
use crate::source::mssql::statements;
use crate::source::mssql::whole::{Reader, unmade};
use crate::source::{Known, KnownRows, Reading, ReadingEnd, SourceError, SourceEvent, Whole};

/// Most keys that are looked up in the lake one by one; to look for more costs about as much as to read all keys of the
/// table, and takes memory for each.
const LOOKED_UP: u64 = 500_000;

/// The least row version that a transaction in progress may have given; above all that are in use where there is none.
///
/// # Errors
/// What the server says.
async fn lowest_active(session: &mut Session) -> Result<u64, SourceError> {
    let lowest = session.number(statements::MIN_ACTIVE_ROWVERSION, "asking for the row versions in use").await?;
    let unknown = || SourceError::new(ErrorKind::Unsupported, "the server does not tell which row versions are in use");
    lowest.map(i64::cast_unsigned).ok_or_else(unknown)
}

/// Why a table has to be read whole that was read by its row versions before, where it has to.
///
/// # Errors
/// What the server says.
pub(super) async fn anew_because(session: &mut Session, before: &Position) -> Result<Option<String>, SourceError> {
    let Some(low) = before.rowversion else {
        return Ok(Some("it is not known up to which row version it was read".to_owned()));
    };
    let back = "the database went back to an older state: it was restored, or failed over with loss";
    Ok((lowest_active(session).await? < low).then(|| back.to_owned()))
}

impl SqlServerTable {
    /// What row versions tell since the table was read last.
    pub(super) async fn newer(
        &self,
        mut session: Taken,
        found: Found,
        before: Position,
        known: &Known,
    ) -> Result<Reading, SourceError> {
        let (lake, suspect) = (known.rows.clone(), known.suspect.is_some());
        let (reader, seat) = (self.reader(&found), known.seat.clone());
        let low = LowMark::note(&mut session, &found.shape, before.rowversion.unwrap_or_default()).await?;
        let now = found.now;
        let events = spawn(move |output| async move {
            output.hurry().await?;
            let (changes, transaction) = Changes::begin(reader, Some(session), seat, now, low).await?;
            if changes.is_idle(&before) && !suspect {
                transaction.end().await?;
                let end = ReadingEnd { unchanged: true, ..ReadingEnd::default() };
                return output.send(SourceEvent::End(end)).await;
            }
            changes.read(transaction, &before, lake, suspect, output).await
        });
        Ok(reading(&found.shape, None, None, events))
    }

    /// The whole table, by chunks of its key, with what row versions tell of the time meanwhile.
    pub(super) async fn versioned_whole(
        &self,
        mut session: Taken,
        found: Found,
        known: &Known,
    ) -> Result<Reading, SourceError> {
        let lowest = lowest_active(&mut session).await?;
        let partial = self.usable(known, &found, |then| then.rowversion.is_some_and(|low| low <= lowest));
        let whole = if partial.is_some() { Whole::GoesOn } else { Whole::Anew };
        let reader = self.reader(&found);
        let partial = match partial {
            Some(partial) => partial,
            None => {
                let (rows, rejected) = (Some(0), Some(0));
                let from = Position { rowversion: Some(lowest), rows, rejected, ..found.now.clone() };
                Partial { from, parts: reader.parts(&mut session, true).await? }
            }
        };
        drop(session);
        let (bytes, own, shape) = (found.shape.bytes, self.clone(), Arc::clone(&found.shape));
        let seat = known.seat.clone();
        let events = spawn(move |mut output| async move {
            let partial = {
                let _place = seat_to_read_whole(seat.as_ref()).await;
                reader.chunks(partial, true, &mut output).await?
            };
            output.hurry().await?;
            let mut session = reader.connections.take(&reader.settings).await?;
            let low = LowMark::note(&mut session, &shape, partial.from.rowversion.unwrap_or_default()).await?;
            let from = partial.from.clone();
            let (changes, mut transaction) = Changes::begin(reader.clone(), Some(session), seat, from, low).await?;
            let partial = changes.catch_up(transaction.session(), partial, &mut output).await?;
            let mut session = transaction.end_and_take(&reader).await?;
            own.finish_whole(&mut session, &shape, partial, &output).await
        });
        Ok(reading(&found.shape, Some(whole), None, events).of(bytes))
    }
}

/// From which row version on a load reads, and from which the next one will.
#[derive(Clone, Copy, Debug)]
struct LowMark {
    low: u64,
    next: u64,
}

impl LowMark {
    /// Asks for the next one. To be called before the transaction that reads.
    ///
    /// # Errors
    /// `Conflict` when the database went back; what the server says.
    async fn note(session: &mut Session, shape: &Shape, low: u64) -> Result<Self, SourceError> {
        let next = lowest_active(session).await?;
        if next < low {
            let text = format!("{}: the database went back to an older state; it is read anew", shape.table);
            return Err(SourceError::new(ErrorKind::Conflict, text));
        }
        Ok(Self { low, next })
    }
}

/// How many rows there are.
#[derive(Clone, Copy, Debug)]
struct Counts {
    all: u64,
    /// Those at the low mark or above.
    newer: u64,
}

/// What is read of a table by its row versions, and from where on.
struct Changes {
    reader: Reader,
    /// What the position will be, but for what is found.
    now: Position,
    /// The low mark of this load, and that of the next.
    low: u64,
    next: u64,
    counts: Counts,
    column: String,
}

/// Rows that were read.
struct Newer {
    /// Keys of all of them, where they are few enough to be looked up.
    keys: Option<Vec<RecordBatch>>,
    rows: u64,
    /// Rows among them that were rejected.
    rejected: u64,
    /// A hash of those that the next load will read again.
    again: Option<ContentHash>,
}

impl Changes {
    /// Begins a snapshot and looks how many rows are at the low mark or above. `now` is what the position will
    /// be.
    ///
    /// # Errors
    /// What the server says.
    async fn begin(
        reader: Reader,
        session: Option<Taken>,
        seat: Option<Arc<Seat>>,
        now: Position,
        mark: LowMark,
    ) -> Result<(Self, Transaction), SourceError> {
        const DOING: &str = "counting rows";
        let column = reader.shape.row_version.clone();
        let missing = || SourceError::new(ErrorKind::Internal, "a table without row versions is read by them");
        let column = column.ok_or_else(missing)?;
        let ask = Ask { table: reader.shape.table.clone(), since: None };
        let entry = Entry::come(&reader, session, seat, ask, true).await?;
        let mut transaction = entry.begin(&reader, true).await?;
        let sql = statements::newer_count(&reader.shape.table, &column, mark.low);
        let rows = transaction.session().all(&sql, DOING).await?;
        let count = |place: usize| rows.get(place).and_then(|row| whole(row, 0)).map(i64::cast_unsigned);
        let uncounted = || SourceError::new(ErrorKind::Unavailable, "the server did not say how many rows there are");
        let (all, newer) = count(0).zip(count(1)).ok_or_else(uncounted)?;
        Ok((Self { reader, now, low: mark.low, next: mark.next, counts: Counts { all, newer }, column }, transaction))
    }

    /// Whether nothing has happened since `before`.
    fn is_idle(&self, before: &Position) -> bool {
        self.counts.newer == 0 && before.rows == Some(self.counts.all)
    }

    /// Reads what happened since `before`, and ends the transaction.
    ///
    /// # Errors
    /// What the server says; a value that cannot be kept; a lake that cannot be read.
    async fn read(
        self,
        mut transaction: Transaction,
        before: &Position,
        lake: Option<Arc<dyn KnownRows>>,
        suspect: bool,
        mut output: Output,
    ) -> Result<(), SourceError> {
        let count = lake.as_ref().and_then(|lake| lake.count());
        let strange = suspect || count.is_some_and(|count| !is_as_left(before, count));
        let session = transaction.session();
        let newer = self.newer(session, &mut output).await?;
        let content = newer.again.as_ref().map(ContentHash::to_string);
        let same = before.content.is_some() && before.content == content;
        let same = same && newer.rejected == 0 && before.rows == Some(self.counts.all) && !strange;
        let mut rejected = before.rejected.unwrap_or(0) + newer.rejected;
        if !same {
            let most = match (count, lake) {
                (Some(count), Some(lake)) if !strange => {
                    let folding = &self.reader.shape.folding;
                    most_rows(before.rows, self.counts.all, count, &newer, (lake.as_ref(), folding)).await?
                }
                _ => None,
            };
            if strange || most.is_some_and(|most| self.counts.all > most.rows) {
                tracing::warn!(
                    table = %self.reader.shape.table,
                    "rows came or went that no row version tells of: all of the table is read and compared"
                );
                rejected = self.reader.at_once(session, ChangeKind::Present, &mut output).await?.rejected;
                output.send(SourceEvent::Complete(KeyRange::default())).await?;
            } else if most.is_none_or(|most| self.counts.all < most.rows || !most.exact) {
                keys(session, &self.reader.shape, &mut output).await?;
            }
        }
        transaction.end().await?;
        let unchanged = same && self.next == self.low;
        let now = Position { rejected: Some(rejected), ..self.position(content) };
        let position = position::write(&now)?;
        output.send(SourceEvent::End(ReadingEnd { position, unchanged, ..ReadingEnd::default() })).await
    }

    /// After all chunks of a whole load, in the transaction: reads what happened since its beginning, and gives where it
    /// ends.
    ///
    /// # Errors
    /// What the server says; a value that cannot be kept.
    async fn catch_up(
        self,
        session: &mut Session,
        partial: Partial,
        output: &mut Output,
    ) -> Result<Partial, SourceError> {
        let newer = self.newer(session, output).await?;
        // Of rows without a new version each was there when its chunk was read: if they are as many, they are the same.
        if self.counts.newer > 0 || partial.from.rows != Some(self.counts.all) {
            keys(session, &self.reader.shape, output).await?;
        }
        let rejected = partial.from.rejected.unwrap_or(0) + newer.rejected;
        let content = newer.again.as_ref().map(ContentHash::to_string);
        Ok(Partial { from: Position { rejected: Some(rejected), ..self.position(content) }, ..partial })
    }

    fn position(&self, content: Option<String>) -> Position {
        Position { rowversion: Some(self.next), rows: Some(self.counts.all), content, ..self.now.clone() }
    }

    /// Reads the rows at the low mark or above. What was rejected is no longer true in the lake.
    async fn newer(&self, session: &mut Session, output: &mut Output) -> Result<Newer, SourceError> {
        let shape = &self.reader.shape;
        let again = ContentHash::new(&shape.schema).map_err(unmade)?;
        let keys = (self.counts.newer <= LOOKED_UP).then(Vec::new);
        let mut newer = Newer { keys, rows: 0, rejected: 0, again: Some(again) };
        if self.counts.newer == 0 {
            return Ok(newer);
        }
        let sql = statements::newer_rows(&shape.table, &self.column, self.low, &shape.plans);
        let mut decoder = RowDecoder::new(&shape.plans);
        let mut rows = session.rows(&sql, "reading rows with new versions");
        while let Some(row) = rows.try_next().await? {
            newer.rows += 1;
            let pushed = decoder.push(row).map_err(|cause| shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                output.too_large(shape, &column, bytes)?;
                newer.rejected += 1;
            }
            if is_full(&decoder) {
                self.take(&mut decoder, &mut newer, output).await?;
            }
        }
        drop(rows);
        self.take(&mut decoder, &mut newer, output).await?;
        Ok(newer)
    }

    async fn take(&self, decoder: &mut RowDecoder, newer: &mut Newer, output: &mut Output) -> Result<(), SourceError> {
        if decoder.is_empty() {
            return Ok(());
        }
        let bytes = decoder.bytes() as u64;
        let all = decoder.finish_all().map_err(unmade)?;
        if let Some(keys) = &mut newer.keys {
            keys.push(self.reader.shape.key_columns(all.batch())?);
        }
        let (rejected, rows) = all.split().map_err(unmade)?;
        self.remember(&rows, newer)?;
        let gone = self.reader.shape.key_columns(&rejected)?;
        for (kind, rows) in [(ChangeKind::Upsert, rows), (ChangeKind::Delete, gone)] {
            if rows.num_rows() > 0 {
                output.send(SourceEvent::Changes(ChangeBatch { kind, rows, file: None })).await?;
            }
        }
        output.send_rejects().await?;
        output.send(SourceEvent::Progress(bytes)).await
    }

    /// Adds rows that will be read again to their hash. Where the row version is not loaded it cannot be told which.
    fn remember(&self, rows: &RecordBatch, newer: &mut Newer) -> Result<(), SourceError> {
        let Some(hash) = &mut newer.again else { return Ok(()) };
        let Some(versions) = rows.column_by_name(&self.column) else {
            newer.again = None;
            return Ok(());
        };
        let next = Scalar::new(BinaryArray::from_vec(vec![&self.next.to_be_bytes()]));
        let again = gt_eq(versions, &next).and_then(|again| filter_record_batch(rows, &again)).map_err(unmade)?;
        hash.add(&again).map_err(unmade)
    }
}

/// Whether the lake has as many rows as the last load left in it.
fn is_as_left(before: &Position, count: u64) -> bool {
    let rejected = before.rejected.unwrap_or(0);
    before.rows.is_none_or(|rows| (rows.saturating_sub(rejected)..=rows).contains(&count))
}

/// How many rows the table has if none was deleted.
#[derive(Clone, Copy, Debug)]
struct Most {
    rows: u64,
    /// Whether that is their number and not only a bound: rows that were rejected before may be among the new ones.
    exact: bool,
}

/// As many rows as there were (`before`), and those read that the lake does not have. Unknown where these are too many to
/// look for.
///
/// The keys are read in the snapshot, and what is read next in the same one hangs on the answer: so the lake is asked while
/// the snapshot is open, but only where the answer matters. That there are fewer rows than before, or more than were read
/// besides them, is so whatever the lake has.
async fn most_rows(
    before: Option<u64>,
    all: u64,
    count: u64,
    newer: &Newer,
    (lake, folding): (&dyn KnownRows, &[KeyFolding]),
) -> Result<Option<Most>, SourceError> {
    let (Some(keys), Some(rows)) = (&newer.keys, before) else { return Ok(None) };
    let matters = newer.rows > 0 && (rows..=rows + newer.rows).contains(&all);
    let present = if matters { lake.present(keys, folding).await? } else { 0 };
    let exact = newer.rows == 0 || count == rows;
    Ok(Some(Most { rows: rows + newer.rows.saturating_sub(present), exact }))
}

/// Reads the keys of all rows, so that the lake finds those that are gone.
async fn keys(session: &mut Session, shape: &Shape, output: &mut Output) -> Result<(), SourceError> {
    let plans: Vec<_> = shape.keys.iter().map(|key| key.plan().clone()).collect();
    let mut decoder = RowDecoder::new(&plans);
    let sql = statements::keys(&shape.table, &shape.keys);
    let mut rows = session.rows(&sql, "reading all keys");
    while let Some(row) = rows.try_next().await? {
        decoder.push(row).map_err(|cause| shape.cell(cause))?;
        if is_full(&decoder) {
            send(&mut decoder, ChangeKind::PresentKeys, output).await?;
        }
    }
    drop(rows);
    send(&mut decoder, ChangeKind::PresentKeys, output).await?;
    output.send(SourceEvent::Complete(KeyRange::default())).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::datatypes::SchemaRef;
    use async_trait::async_trait;

    use super::*;

    /// A lake that has one of the keys it is asked for, and counts how often it is asked.
    #[derive(Default)]
    struct Asked(AtomicUsize);

    #[async_trait]
    impl KnownRows for Asked {
        fn count(&self) -> Option<u64> {
            Some(10)
        }

        async fn present(&self, _: &[RecordBatch], _: &[KeyFolding]) -> Result<u64, SourceError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(1)
        }

        async fn content(
            &self,
            schema: &SchemaRef,
            _: &KeyRange,
            _: &[RecordBatch],
            _: &[KeyFolding],
        ) -> Result<ContentHash, SourceError> {
            ContentHash::new(schema).map_err(unmade)
        }
    }

    #[tokio::test]
    async fn the_lake_is_asked_only_where_its_answer_matters() {
        let (before, lake) = (10, Asked::default());
        let newer = |rows| Newer { keys: Some(Vec::new()), rows, rejected: 0, again: None };
        for (read, all, asked, missing) in [
            (0, 10, 0, false),
            (3, 9, 0, false),
            (3, 14, 0, true),
            (3, 10, 1, false),
            (3, 13, 1, true),
            (3, 12, 1, false),
        ] {
            lake.0.store(0, Ordering::Relaxed);
            let most = most_rows(Some(before), all, 10, &newer(read), (&lake, &[])).await.unwrap().unwrap();
            assert_eq!(lake.0.load(Ordering::Relaxed), asked, "{read} read, {all} there");
            assert_eq!(all > most.rows, missing, "{read} read, {all} there");
            assert_eq!(all < most.rows, all < before + read.saturating_sub(1), "{read} read, {all} there");
        }
        let unknown = Newer { keys: None, ..newer(3) };
        assert!(most_rows(Some(before), 11, 10, &unknown, (&lake, &[])).await.unwrap().is_none());
    }
}
