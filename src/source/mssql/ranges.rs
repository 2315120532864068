//! Parts of a table by its key: comparing them with the lake, and reading anew those that differ.
//!
//! Each range is compared in a short transaction of its own: its rows, and the keys that changed since the lake's
//! version. Rows with such keys are left out on both sides, so what is left must be the same. Both sides are hashed by
//! our own code.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{BinaryArray, BooleanArray, RecordBatch, Scalar};
use arrow::compute::kernels::cmp::gt_eq;
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::Rows;
use bytesize::ByteSize;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::config::Oversize;
use crate::error::ErrorKind;
use crate::model::{self, ChangeKind, ContentHash};
use crate::source::mssql::change_tracking::{self, is_full};
use crate::source::mssql::decode::{Pushed, RowDecoder};
use crate::source::mssql::key::KeyError;
use crate::source::mssql::left_out::{KeyForm, LeftOut};
use crate::source::mssql::output::Output;
use crate::source::mssql::pace::Pace;
use crate::source::mssql::position::Since;
use crate::source::mssql::session::{RowSource, Session};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::{self, KeyRange};
use crate::source::mssql::whole::Reader;
use crate::source::{KnownRows, SourceError, SourceEvent};

/// A part of a table by its whole key, as key texts; empty means open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Only rows after this key.
    pub after: Vec<String>,
    /// Only rows up to this key, itself included.
    pub until: Vec<String>,
}

/// A range that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    #[serde(flatten)]
    pub range: Range,
    /// Rows of the table in it, without those that were left out.
    pub source_rows: u64,
    /// The same in the lake.
    pub lake_rows: u64,
    /// Keys that changed since the lake's version, and were left out.
    pub left_out: u64,
    /// Whether both sides have the same rows.
    pub is_same: bool,
    /// Bytes that were read of the table.
    pub bytes: u64,
}

/// Whether ranges of a table's key hold the same rows on the server and in the lake, and can be read one by one.
pub(super) fn can_be_cut(shape: &Shape) -> bool {
    let as_key = |name: &str| shape.plans.iter().find(|plan| plan.name() == name);
    let fits = |key: &crate::source::mssql::KeyColumn| key.is_ordered_alike() && as_key(key.name()) == Some(key.plan());
    !shape.keys.is_empty() && shape.keys.iter().all(fits)
}

impl Range {
    /// The range as the lake knows it.
    ///
    /// # Errors
    /// When a text of it is no value of its key column.
    pub(super) fn of_lake(&self, shape: &Shape) -> Result<model::KeyRange, SourceError> {
        Ok(model::KeyRange { after: key_row(shape, &self.after)?, until: key_row(shape, &self.until)? })
    }

    fn of_server(&self) -> KeyRange<'_> {
        KeyRange { after: &self.after, until: &self.until }
    }
}

/// One row of the key's columns; none for an open end.
fn key_row(shape: &Shape, texts: &[String]) -> Result<Option<RecordBatch>, SourceError> {
    if texts.is_empty() {
        return Ok(None);
    }
    if texts.len() != shape.keys.len() {
        return Err(not_asked(KeyError::Columns { kept: texts.len(), columns: shape.keys.len() }));
    }
    let fields: Vec<_> = shape.keys.iter().filter_map(|key| key.field().cloned()).collect();
    let values = shape.keys.iter().zip(texts).map(|(key, text)| key.value(text));
    let values = values.collect::<Result<Vec<_>, _>>().map_err(not_asked)?;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values).map(Some).map_err(unmade)
}

/// A table and its rows in the lake, to be compared.
pub(super) struct Comparison {
    pub(super) reader: Reader,
    /// Whether transactions may see one state.
    pub(super) snapshots: bool,
    pub(super) lake: Arc<dyn KnownRows>,
    /// Where the lake is by Change Tracking, where what changed since can be left out.
    pub(super) since: Option<Since>,
    /// Which rows are newer than the lake, where row versions tell.
    pub(super) newer: Option<Newer>,
}

/// Rows whose row version is at a mark or above it.
#[derive(Clone, Debug)]
pub(super) struct Newer {
    /// The column.
    pub(super) column: String,
    /// The mark.
    pub(super) mark: u64,
}

impl Newer {
    /// Which of these rows are newer.
    fn among(&self, rows: &RecordBatch) -> Result<BooleanArray, SourceError> {
        let versions = rows
            .column_by_name(&self.column)
            .ok_or_else(|| SourceError::new(ErrorKind::Internal, format!("column `{}` was not read", self.column)))?;
        let mark = Scalar::new(BinaryArray::from_vec(vec![&self.mark.to_be_bytes()]));
        gt_eq(versions, &mark).map_err(unmade)
    }
}

impl Comparison {
    /// Compares ranges, chunk by chunk at the connection's pace, and gives those chunks that differ; `told` hears of
    /// each. A table that cannot be cut ([`can_be_cut`]) is compared as one range, whichever were asked for.
    ///
    /// # Errors
    /// `Conflict` when the changes since the lake's version are no longer kept; what the server and the lake say.
    pub(super) async fn differing(
        &self,
        ranges: &[Range],
        told: &mut (dyn FnMut(&Compared) + Send),
    ) -> Result<Vec<Compared>, SourceError> {
        let settings = &self.reader.settings;
        let mut pace = Pace::new(&self.reader.connections, settings, Arc::clone(&self.reader.clock));
        let mut session = self.reader.connections.take(settings).await?;
        let mut differing = Vec::new();
        let mut keep = |compared: Compared| {
            told(&compared);
            if !compared.is_same {
                differing.push(compared);
            }
        };
        if !can_be_cut(&self.reader.shape) {
            pace.check_hours().map_err(too_late)?;
            keep(self.at_once(&mut session).await?);
            return Ok(differing);
        }
        for range in ranges {
            let mut rest = range.clone();
            loop {
                pace.check_hours().map_err(too_late)?;
                let started = Instant::now();
                let (rows, compared) = self.chunk(&mut session, &rest, pace.rows()).await?;
                let (bytes, end) = (compared.bytes, compared.range.until.clone());
                keep(compared);
                pace.after_chunk(started, rows, bytes).await;
                if end == range.until {
                    break;
                }
                rest.after = end;
            }
        }
        Ok(differing)
    }

    /// Compares the first `wanted` rows of a range; also gives how many were read.
    async fn chunk(&self, session: &mut Session, range: &Range, wanted: u64) -> Result<(u64, Compared), SourceError> {
        let shape = &self.reader.shape;
        let sql = statements::chunk(&shape.table, &shape.keys, &shape.plans, range.of_server(), wanted);
        let sql = sql.map_err(not_asked)?;
        self.reader.begin(session, self.snapshots).await?;
        session.read_gently(None);
        let mut read = Read::new(self)?;
        read.all(session, &sql, None).await?;
        let is_last = read.rows < wanted;
        let until = if is_last { range.until.clone() } else { read.last_key.clone() };
        let range = Range { after: range.after.clone(), until };
        // Keys after rows: what changes between the two, where there are no snapshots, is left out.
        let mut left_out = self.changed(session, &range).await?;
        session.end().await?;
        read.give_newer(&mut left_out)?;
        let (rows, bytes) = (read.rows, read.bytes);
        let content = read.without(&left_out);
        let lake = self.lake.content(&shape.schema, &range.of_lake(shape)?, &left_out.batches, &shape.folding).await?;
        Ok((rows, compared(range, &content, &lake, &left_out, bytes)))
    }

    /// Compares the whole table in one transaction.
    async fn at_once(&self, session: &mut Session) -> Result<Compared, SourceError> {
        let shape = &self.reader.shape;
        let sql = statements::whole(&shape.table, &shape.plans);
        self.reader.begin(session, self.snapshots).await?;
        let mut left_out = self.changed(session, &Range::default()).await?;
        let mut read = Read::new(self)?;
        read.all(session, &sql, Some(&left_out)).await?;
        session.end().await?;
        read.give_newer(&mut left_out)?;
        let lake =
            self.lake.content(&shape.schema, &model::KeyRange::default(), &left_out.batches, &shape.folding).await?;
        Ok(compared(Range::default(), &read.content, &lake, &left_out, read.bytes))
    }

    /// How keys are made comparable, where some are left out.
    fn form(&self) -> Result<Option<KeyForm>, SourceError> {
        self.since.map(|_| KeyForm::new(&self.reader.shape)).transpose()
    }

    /// The keys in a range that changed since the lake's version. To be called in a transaction.
    async fn changed(&self, session: &mut Session, range: &Range) -> Result<LeftOut, SourceError> {
        let mut left_out = LeftOut::nothing();
        let (Some(since), Some(form)) = (self.since, self.form()?) else { return Ok(left_out) };
        let shape = &self.reader.shape;
        change_tracking::check_kept(session, shape, since.version).await?;
        for version in since.versions() {
            left_out.join(LeftOut::changed(session, shape, version, range.of_server(), &form).await?);
        }
        Ok(left_out)
    }
}

fn compared(range: Range, source: &ContentHash, lake: &ContentHash, left_out: &LeftOut, bytes: u64) -> Compared {
    Compared {
        range,
        source_rows: source.rows(),
        lake_rows: lake.rows(),
        left_out: left_out.len(),
        is_same: source.to_string() == lake.to_string(),
        bytes,
    }
}

/// Rows that are being read and hashed. Where it is not known yet which will be left out, their hashes wait beside
/// their keys; the rows themselves never do.
struct Read<'a> {
    shape: &'a Shape,
    form: Option<KeyForm>,
    newer: Option<&'a Newer>,
    /// Keys of rows that are newer than the lake; the rows themselves are left out already.
    newer_keys: Vec<RecordBatch>,
    content: ContentHash,
    waiting: Vec<(Rows, Vec<u128>)>,
    /// Rows, those above the limit of size included.
    rows: u64,
    bytes: u64,
    last_key: Vec<String>,
}

impl<'a> Read<'a> {
    fn new(comparison: &'a Comparison) -> Result<Self, SourceError> {
        let shape = comparison.reader.shape.as_ref();
        Ok(Self {
            shape,
            form: comparison.form()?,
            newer: comparison.newer.as_ref(),
            newer_keys: Vec::new(),
            content: ContentHash::new(&shape.schema).map_err(unmade)?,
            waiting: Vec::new(),
            rows: 0,
            bytes: 0,
            last_key: Vec::new(),
        })
    }

    /// Reads all rows of a statement.
    async fn all(&mut self, session: &mut Session, sql: &str, left_out: Option<&LeftOut>) -> Result<(), SourceError> {
        let mut decoder = RowDecoder::new(&self.shape.plans);
        let mut rows = session.rows(sql, "reading rows to compare");
        while let Some(row) = rows.try_next().await? {
            self.rows += 1;
            let pushed = decoder.push(row).map_err(|cause| self.shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                self.check_size(&column, bytes)?;
            }
            if is_full(&decoder) {
                self.take(&mut decoder, left_out)?;
            }
        }
        if decoder.is_empty() { Ok(()) } else { self.take(&mut decoder, left_out) }
    }

    /// A row with a value above the limit is not in the lake, where the definition says so.
    fn check_size(&self, column: &str, bytes: u64) -> Result<(), SourceError> {
        if self.shape.oversize == Oversize::Reject {
            return Ok(());
        }
        let text = format!(
            "column `{column}` of {} holds a value of {}, larger than max_cell = \"{}\": no load takes such a row; raise \
             max_cell, put the column into leave_out, or reject such rows with oversize = \"reject\"",
            self.shape.table,
            ByteSize(bytes),
            ByteSize(self.shape.max_cell_bytes)
        );
        Err(SourceError::new(ErrorKind::InvalidInput, text))
    }

    fn take(&mut self, decoder: &mut RowDecoder, left_out: Option<&LeftOut>) -> Result<(), SourceError> {
        self.bytes += decoder.bytes() as u64;
        let rows = decoder.finish_all().map_err(unmade)?;
        self.last_key = self.shape.key_texts(rows.batch(), rows.batch().num_rows() - 1)?;
        if let Some(newer) = self.newer {
            // Of rows above the limit of size too: the lake may have what they were before.
            let keys = self.shape.key_columns(rows.batch())?;
            self.newer_keys.push(filter_record_batch(&keys, &newer.among(rows.batch())?).map_err(unmade)?);
        }
        let mut rows = rows.kept().map_err(unmade)?;
        if let Some(newer) = self.newer {
            rows = filter_record_batch(&rows, &not(&newer.among(&rows)?).map_err(unmade)?).map_err(unmade)?;
        }
        let Some(form) = &self.form else { return self.content.add(&rows).map_err(unmade) };
        let (keys, hashes) = (form.of(&rows)?, self.content.hashes(&rows).map_err(unmade)?);
        match left_out {
            Some(left_out) => add(&mut self.content, &keys, &hashes, left_out),
            None => self.waiting.push((keys, hashes)),
        }
        Ok(())
    }

    /// Adds the keys of rows that are newer than the lake to those that are left out there.
    fn give_newer(&mut self, left_out: &mut LeftOut) -> Result<(), SourceError> {
        let keys = std::mem::take(&mut self.newer_keys);
        let form = self.newer.map(|_| KeyForm::new(self.shape)).transpose()?;
        match form {
            Some(form) => keys.into_iter().try_for_each(|keys| left_out.add(&form, keys)),
            None => Ok(()),
        }
    }

    /// What was read, but for rows with these keys.
    fn without(mut self, left_out: &LeftOut) -> ContentHash {
        for (keys, hashes) in &self.waiting {
            add(&mut self.content, keys, hashes, left_out);
        }
        self.content
    }
}

fn add(content: &mut ContentHash, keys: &Rows, hashes: &[u128], left_out: &LeftOut) {
    let kept = keys.iter().zip(hashes).filter(|(key, _)| !left_out.contains(key.as_ref()));
    kept.for_each(|(_, hash)| content.add_hash(*hash));
}

/// Gives all rows of ranges as present, and says that they are complete; the whole table where it cannot be cut
/// ([`can_be_cut`]). To be called in a transaction.
///
/// # Errors
/// What the server says; a value that cannot be kept.
pub(super) async fn read_anew(
    session: &mut Session,
    shape: &Shape,
    ranges: &[Range],
    output: &mut Output,
) -> Result<(), SourceError> {
    let everything = [Range::default()];
    for range in if can_be_cut(shape) { ranges } else { &everything } {
        let sql = statements::range(&shape.table, &shape.keys, &shape.plans, range.of_server()).map_err(not_asked)?;
        let mut decoder = RowDecoder::new(&shape.plans);
        let mut rows = session.rows(&sql, "reading a range anew");
        while let Some(row) = rows.try_next().await? {
            let pushed = decoder.push(row).map_err(|cause| shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                output.too_large(shape, &column, bytes)?;
            }
            if is_full(&decoder) {
                change_tracking::send(&mut decoder, ChangeKind::Present, output).await?;
            }
        }
        drop(rows);
        change_tracking::send(&mut decoder, ChangeKind::Present, output).await?;
        output.send(SourceEvent::Complete(range.of_lake(shape)?)).await?;
    }
    Ok(())
}

fn too_late(cause: SourceError) -> SourceError {
    let text = "it is not the time to read now, by the `hours` of the connection; compare the tables within them";
    SourceError::because(ErrorKind::DeadlineExceeded, text, cause)
}

fn not_asked(cause: KeyError) -> SourceError {
    SourceError::because(ErrorKind::InvalidInput, "a range of keys cannot be asked for", cause)
}

fn unmade(cause: ArrowError) -> SourceError {
    SourceError::because(ErrorKind::Internal, "rows cannot be compared", cause)
}
