//! Reading a whole table: by its key in short transactions, or in one statement where it has none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::{Isolation, SqlServerConnection};
use crate::error::{Classify, ErrorKind};
use crate::model::{ChangeBatch, ChangeKind, ContentHash};
use crate::runtime::clock::Clock;
use crate::runtime::fault;
use crate::source::mssql::change_tracking::is_full;
use crate::source::mssql::column::SqlType;
use crate::source::mssql::connect::{Connections, Taken};
use crate::source::mssql::decode::{Pushed, RowDecoder};
use crate::source::mssql::discover::text;
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::key::{KeyColumn, KeyError};
use crate::source::mssql::left_out::{KeyForm, LeftOut};
use crate::source::mssql::output::Output;
use crate::source::mssql::pace::{CHUNK_BYTES, Gentle, Pace, check_hours};
use crate::source::mssql::position::{self, Part, Partial, Position};
use crate::source::mssql::session::{RowSource, Session};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::{self, KeyRange};
use crate::source::{SourceError, SourceEvent};

/// Smaller tables are read by one reader: cutting them costs more than it gains.
const ROWS_WORTH_CUTTING: u64 = 200_000;
/// Most readers of one table.
const MOST_READERS: usize = 4;
/// Parts for each reader, which takes the next when it has read one: so that all are busy to the end, though some parts
/// have more rows.
const PARTS_OF_A_READER: usize = 4;
/// Keys of whole numbers that take up more than so many numbers for a row may be anywhere: their rows are counted.
const NUMBERS_OF_A_ROW: u64 = 4;
/// Chunks that wait for the writer.
const WAITING_CHUNKS: usize = 2;

/// What all readers of one table share.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) connections: Connections,
    pub(super) settings: SqlServerConnection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shape: Arc<Shape>,
}

/// How chunks are read.
#[derive(Clone, Copy)]
struct Manner {
    snapshots: bool,
    /// Rows that changed after this version are left out, where changes are tracked.
    since: Option<i64>,
}

/// A chunk that was read: rows after one key and up to another.
struct Chunk {
    part: usize,
    batches: Vec<RecordBatch>,
    /// Rows, those that were rejected included.
    rows: u64,
    bytes: u64,
    after: Vec<String>,
    end: End,
    output: Output,
}

/// Where a chunk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the number of rows that was asked for.
    Whole,
    /// At as many bytes as may wait in memory; the rest of the answer was not read.
    Cut,
    /// At the end of the part.
    OfPart,
}

impl Reader {
    /// Begins a transaction as the connection's settings allow, in which rows are read gently; true when it sees one
    /// state.
    pub(super) async fn begin(&self, session: &mut Session, snapshots: bool) -> Result<bool, SourceError> {
        check_hours(self.settings.hours.as_ref(), self.clock.as_ref())?;
        session.read_gently(Gentle::new(&self.connections, &self.settings, &self.clock));
        if snapshots {
            session.begin_snapshot().await?;
            return Ok(true);
        }
        if self.settings.isolation == Isolation::Snapshot {
            let text = format!(
                "the database {} does not allow snapshot isolation, without which reading could disturb its users or \
                 see half of a change; ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON allows it, or take isolation = \
                 \"snapshot_or_read_committed\" in the connection `{}`",
                self.settings.database, self.settings.name
            );
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
        session.begin_read_committed().await?;
        Ok(false)
    }

    /// Where to cut the table so that several readers have about the same to do; nowhere where the server has no time or
    /// no room to tell. The connection may be of no use after that.
    ///
    /// # Errors
    /// As [`Self::begin`]; what else the server says.
    pub(super) async fn parts(&self, session: &mut Session, snapshots: bool) -> Result<Vec<Part>, SourceError> {
        let readers = self.settings.max_connections.get().min(MOST_READERS);
        let Some(key) = self.shape.keys.first() else { return Ok(vec![Part::default()]) };
        if readers < 2 || self.shape.rows.is_none_or(|rows| rows < ROWS_WORTH_CUTTING) {
            return Ok(vec![Part::default()]);
        }
        self.begin(session, snapshots).await?;
        let cuts = match self.cuts(session, key, readers).await {
            Ok(cuts) => {
                session.end().await?;
                cuts
            }
            Err(error) if error.is_late() || error.kind() == ErrorKind::ResourceExhausted => {
                tracing::warn!(
                    table = %self.shape.table,
                    %error,
                    "the server did not cut the table into parts: one reader reads it, from key to key"
                );
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let mut parts = Vec::new();
        let mut after = Vec::new();
        for cut in cuts {
            parts.push(Part { after: after.clone(), until: vec![cut.clone()], done: false });
            after = vec![cut];
        }
        parts.push(Part { after, until: Vec::new(), done: false });
        Ok(parts)
    }

    async fn cuts(
        &self,
        session: &mut Session,
        key: &KeyColumn,
        readers: usize,
    ) -> Result<Vec<String>, SqlServerError> {
        match self.even_cuts(session, key, readers * PARTS_OF_A_READER).await? {
            Some(cuts) => Ok(cuts),
            None => self.counted_cuts(session, key, readers).await,
        }
    }

    /// Where to cut a key of whole numbers that has few gaps: at even steps, for which nothing has to be read.
    async fn even_cuts(
        &self,
        session: &mut Session,
        key: &KeyColumn,
        parts: usize,
    ) -> Result<Option<Vec<String>>, SqlServerError> {
        if !matches!(key.sql_type(), SqlType::Int | SqlType::BigInt) {
            return Ok(None);
        }
        let rows = session.all(&statements::bounds(&self.shape.table, key), "cutting the table into parts").await?;
        let bound = |place: usize| rows.get(place).and_then(|row| text(row, 0)?.parse::<i128>().ok());
        let (Some(least), Some(greatest)) = (bound(0), bound(1)) else { return Ok(None) };
        Ok(even_cuts(least, greatest, self.shape.rows.unwrap_or(0), parts))
    }

    /// Where to cut the table into parts of as many rows each. It reads the whole key.
    async fn counted_cuts(
        &self,
        session: &mut Session,
        key: &KeyColumn,
        parts: usize,
    ) -> Result<Vec<String>, SqlServerError> {
        let sql = statements::key_splits(&self.shape.table, key, u32::try_from(parts).unwrap_or(1));
        let rows = session.all(&sql, "cutting the table into parts").await?;
        let mut cuts: Vec<String> = rows.iter().filter_map(|row| text(row, 1)).collect();
        cuts.dedup();
        // The last part is open: rows may come after its end.
        cuts.pop();
        Ok(cuts)
    }

    /// Reads all parts, several side by side; after each chunk says how far it came.
    pub(super) async fn chunks(
        &self,
        mut partial: Partial,
        snapshots: bool,
        output: &mut Output,
    ) -> Result<Partial, SourceError> {
        let open: Vec<(usize, Part)> =
            partial.parts.iter().cloned().enumerate().filter(|(_, part)| !part.done).collect();
        let at_once = open.len().min(MOST_READERS).min(self.settings.max_connections.get());
        let open = Arc::new(Mutex::new(open.into_iter()));
        let (sender, mut chunks) = mpsc::channel(WAITING_CHUNKS);
        let mut readers = JoinSet::new();
        let manner = Manner { snapshots, since: partial.from.version };
        for _ in 0..at_once {
            let (reader, sender, open, output) = (self.clone(), sender.clone(), Arc::clone(&open), output.clone());
            readers.spawn(async move {
                if let Err(error) = reader.open_parts(&open, manner, &output, &sender).await {
                    // Nobody takes it when another reader has failed before.
                    let _ = sender.send(Err(error)).await;
                }
            });
        }
        drop(sender);
        while let Some(chunk) = chunks.recv().await {
            let mut chunk: Chunk = chunk?;
            count(&mut partial.from, &chunk);
            for rows in chunk.batches {
                output.send(SourceEvent::Changes(ChangeBatch { kind: ChangeKind::Append, rows, file: None })).await?;
            }
            chunk.output.send_rejects().await?;
            output.send(SourceEvent::Progress(chunk.bytes)).await?;
            let part = &mut partial.parts[chunk.part];
            if !chunk.after.is_empty() {
                part.after = chunk.after;
            }
            part.done = chunk.end == End::OfPart;
            output.send(SourceEvent::Piece(position::write(&partial)?)).await?;
            fault::point("source.chunk.sent")
                .map_err(|cause| SourceError::because(ErrorKind::Internal, "a chunk was sent", cause))?;
        }
        while let Some(reader) = readers.join_next().await {
            reader.map_err(|cause| SourceError::because(ErrorKind::Internal, "a reader broke off", cause))?;
        }
        Ok(partial)
    }

    /// Reads one open part after the other, as long as there are any.
    async fn open_parts(
        &self,
        open: &Mutex<std::vec::IntoIter<(usize, Part)>>,
        manner: Manner,
        output: &Output,
        chunks: &mpsc::Sender<Result<Chunk, SourceError>>,
    ) -> Result<(), SourceError> {
        let mut session = self.connections.take(&self.settings).await?;
        let mut pace = Pace::new(&self.connections, &self.settings, Arc::clone(&self.clock));
        let next = || open.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some((place, part)) = next() {
            session = self.part(session, place, part, &mut pace, manner, (output, chunks)).await?;
        }
        Ok(())
    }

    /// Reads one part, chunk by chunk; gives the connection back, or another.
    async fn part(
        &self,
        mut session: Taken,
        place: usize,
        part: Part,
        pace: &mut Pace,
        manner: Manner,
        (output, chunks): (&Output, &mpsc::Sender<Result<Chunk, SourceError>>),
    ) -> Result<Taken, SourceError> {
        let mut after = part.after;
        loop {
            pace.check_hours()?;
            let started = Instant::now();
            let range = KeyRange { after: &after, until: &part.until };
            let chunk = self.chunk(&mut session, place, range, pace.rows(), manner, output).await?;
            let (rows, bytes, end, last) = (chunk.rows, chunk.bytes, chunk.end, chunk.after.clone());
            if end == End::Cut {
                // What the server still sends belongs to nobody; the connection is thrown away before another is taken.
                drop(session);
                session = self.connections.take(&self.settings).await?;
            }
            if end == End::Cut && manner.since.is_some() {
                // Which of its rows have changed could not be asked for on that connection any more: it is read again,
                // with as many rows as fit.
                drop(chunk);
            } else {
                if chunks.send(Ok(chunk)).await.is_err() {
                    return Err(SourceError::new(ErrorKind::Cancelled, "the load was given up"));
                }
                after = last;
            }
            pace.after_chunk(started, rows, bytes).await;
            if end == End::OfPart {
                return Ok(session);
            }
        }
    }

    /// Reads one chunk in a transaction of its own.
    async fn chunk(
        &self,
        session: &mut Session,
        part: usize,
        range: KeyRange<'_>,
        wanted: u64,
        manner: Manner,
        output: &Output,
    ) -> Result<Chunk, SourceError> {
        let sql = statements::chunk(&self.shape.table, &self.shape.keys, &self.shape.plans, range, wanted)
            .map_err(unasked)?;
        self.begin(session, manner.snapshots).await?;
        session.read_gently(None);
        let (end, output) = (End::Whole, output.clone());
        let mut chunk = Chunk { part, batches: Vec::new(), rows: 0, bytes: 0, after: Vec::new(), end, output };
        let mut decoder = RowDecoder::new(&self.shape.plans);
        let mut rows = session.rows(&sql, "reading a chunk");
        while let Some(row) = rows.try_next().await? {
            chunk.rows += 1;
            let pushed = decoder.push(row).map_err(|cause| self.shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                chunk.output.too_large(&self.shape, &column, bytes)?;
            }
            if is_full(&decoder) {
                self.take(&mut chunk, &mut decoder)?;
                if chunk.bytes >= CHUNK_BYTES && chunk.rows < wanted {
                    chunk.end = End::Cut;
                    return Ok(chunk);
                }
            }
        }
        drop(rows);
        self.take(&mut chunk, &mut decoder)?;
        if chunk.rows < wanted {
            chunk.end = End::OfPart;
        }
        if let Some(since) = manner.since.filter(|_| !chunk.batches.is_empty()) {
            let until = if chunk.end == End::OfPart { range.until.to_vec() } else { chunk.after.clone() };
            self.leave_changed_out(session, &mut chunk, KeyRange { after: range.after, until: &until }, since).await?;
        }
        session.end().await?;
        Ok(chunk)
    }

    /// Moves rows from the decoder to the chunk. The chunk ends at the key of the last row, whether it was rejected
    /// or not: what was rejected once is not read again.
    fn take(&self, chunk: &mut Chunk, decoder: &mut RowDecoder) -> Result<(), SourceError> {
        if decoder.is_empty() {
            return Ok(());
        }
        chunk.bytes += decoder.bytes() as u64;
        let rows = decoder.finish_all().map_err(unmade)?;
        chunk.after = self.shape.key_texts(rows.batch(), rows.batch().num_rows() - 1)?;
        let rows = rows.kept().map_err(unmade)?;
        if rows.num_rows() > 0 {
            chunk.batches.push(rows);
        }
        Ok(())
    }

    /// Takes rows out of a chunk that changed since the load began: those that stay come with the changes at its end,
    /// and of those that came and go before it that end may not be told.
    async fn leave_changed_out(
        &self,
        session: &mut Session,
        chunk: &mut Chunk,
        range: KeyRange<'_>,
        since: i64,
    ) -> Result<(), SourceError> {
        let form = KeyForm::new(&self.shape)?;
        let left_out = LeftOut::changed(session, &self.shape, since, range, &form).await?;
        if left_out.len() == 0 {
            return Ok(());
        }
        for rows in &mut chunk.batches {
            let keys = form.of(rows)?;
            let kept: BooleanArray = keys.iter().map(|key| Some(!left_out.contains(key.as_ref()))).collect();
            *rows = filter_record_batch(rows, &kept).map_err(unmade)?;
        }
        chunk.batches.retain(|rows| rows.num_rows() > 0);
        Ok(())
    }

    /// Reads everything in one statement. To be called in a transaction.
    pub(super) async fn at_once(
        &self,
        session: &mut Session,
        kind: ChangeKind,
        output: &mut Output,
    ) -> Result<AtOnce, SourceError> {
        let sql = statements::whole(&self.shape.table, &self.shape.plans);
        let mut decoder = RowDecoder::new(&self.shape.plans);
        let mut content = ContentHash::new(&self.shape.schema).map_err(unmade)?;
        let mut rejected = 0;
        let mut rows = session.rows(&sql, "reading the table");
        while let Some(row) = rows.try_next().await? {
            let pushed = decoder.push(row).map_err(|cause| self.shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                output.too_large(&self.shape, &column, bytes)?;
                rejected += 1;
            }
            if is_full(&decoder) {
                hashed(&mut decoder, &mut content, kind, output).await?;
            }
        }
        drop(rows);
        hashed(&mut decoder, &mut content, kind, output).await?;
        Ok(AtOnce { content, rejected })
    }
}

/// What was read in one statement.
pub(super) struct AtOnce {
    /// The rows that were handed on.
    pub(super) content: ContentHash,
    /// Rows that were not.
    pub(super) rejected: u64,
}

/// Cuts a range of whole numbers at even steps, where so many rows take up a good part of it.
fn even_cuts(least: i128, greatest: i128, rows: u64, parts: usize) -> Option<Vec<String>> {
    let span = greatest
        .checked_sub(least)
        .filter(|span| (0..=i128::from(rows.saturating_mul(NUMBERS_OF_A_ROW))).contains(span))?;
    let parts = i128::try_from(parts).ok()?;
    let mut cuts: Vec<i128> = (1..parts).map(|part| least + span * part / parts).collect();
    cuts.dedup();
    Some(cuts.iter().map(i128::to_string).collect())
}

/// Takes note of the rows that were read, where a position counts them.
fn count(from: &mut Position, chunk: &Chunk) {
    let kept: usize = chunk.batches.iter().map(RecordBatch::num_rows).sum();
    let counted = [(&mut from.rows, chunk.rows), (&mut from.rejected, chunk.rows.saturating_sub(kept as u64))];
    for (count, more) in counted {
        *count = count.map(|count| count + more);
    }
}

/// Hands on what a decoder holds and hashes it, then the rows that were rejected.
async fn hashed(
    decoder: &mut RowDecoder,
    content: &mut ContentHash,
    kind: ChangeKind,
    output: &mut Output,
) -> Result<(), SourceError> {
    if decoder.is_empty() {
        return Ok(());
    }
    let bytes = decoder.bytes() as u64;
    let rows = decoder.finish().map_err(unmade)?;
    if rows.num_rows() > 0 {
        content.add(&rows).map_err(unmade)?;
        output.send(SourceEvent::Changes(ChangeBatch { kind, rows, file: None })).await?;
    }
    output.send_rejects().await?;
    output.send(SourceEvent::Progress(bytes)).await
}

fn unasked(cause: KeyError) -> SourceError {
    SourceError::because(ErrorKind::InvalidInput, "a chunk cannot be asked for", cause)
}

pub(super) fn unmade(cause: ArrowError) -> SourceError {
    SourceError::because(ErrorKind::Internal, "rows cannot be put together", cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_cut_at_even_steps_where_they_are_dense() {
        assert_eq!(even_cuts(0, 99, 100, 4).unwrap(), ["24", "49", "74"]);
        assert_eq!(even_cuts(-10, 10, 21, 2).unwrap(), ["0"]);
        assert_eq!(even_cuts(7, 8, 2, 4).unwrap(), ["7"]);
        // One row far away, and all others would be in one part.
        assert_eq!(even_cuts(0, 1_000_000, 1_000, 4), None);
        assert_eq!(even_cuts(i64::MIN.into(), i64::MAX.into(), u64::MAX, 2).unwrap(), ["-1"]);
        // An empty table has no bounds; nor has one of which the server estimates nothing.
        assert_eq!(even_cuts(0, 99, 0, 4), None);
    }
}
