//! Whether the lake has the rows of a table, and reading anew what it has otherwise.

use std::sync::Arc;

use serde::Serialize;

use crate::error::ErrorKind;
use crate::source::mssql::change_tracking;
use crate::source::mssql::connect::Taken;
use crate::source::mssql::group::{Ask, Entry, Seat};
use crate::source::mssql::position::{self, Position, Since};
use crate::source::mssql::ranges::{self, Compared, Comparison, Newer, Range};
use crate::source::mssql::source::{Found, SqlServerTable, reading, spawn};
use crate::source::{Known, Reading, ReadingEnd, SourceError, SourceEvent};

/// What a comparison of a table with its rows in the lake found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// How the table is kept in step.
    pub method: &'static str,
    /// Columns of its key.
    pub key: Vec<String>,
    /// The version of Change Tracking that the lake is at, where what changed since was left out.
    pub since: Option<i64>,
    /// How many ranges were compared.
    pub ranges: u64,
    /// Rows of the table that were compared.
    pub rows: u64,
    /// Keys that changed since the lake's version, and were left out.
    pub left_out: u64,
    /// Bytes that were read of the table.
    pub bytes: u64,
    /// Ranges that differ.
    pub differing: Vec<Compared>,
    /// What else should be known to read the result rightly.
    pub notes: Vec<String>,
}

impl SqlServerTable {
    /// Compares the table with its rows in the lake, or only `ranges` of it; `told` hears of each range.
    ///
    /// # Errors
    /// `InvalidInput` where the table is not what was loaded, so that there is nothing to compare; `Conflict` when
    /// the changes since the lake's version went out of reach meanwhile; what the server and the lake say.
    pub async fn verify(
        &self,
        known: &Known,
        ranges: Option<&[Range]>,
        told: &mut (dyn FnMut(&Compared) + Send),
    ) -> Result<Verification, SourceError> {
        let (Some(before), Some(lake)) = (&known.position, &known.rows) else {
            let text = "it was not loaded yet, so there is nothing to compare; `lakegate sync TABLE` loads it";
            return Err(SourceError::new(ErrorKind::NotFound, text));
        };
        let before: Position = position::read(before)?;
        let mut session = self.connections.take(&self.source.connection).await?;
        let found = self.look(&mut session, self.incomparable(Some(&before), known)).await?;
        let lost = self.anew_because(&mut session, &found, &before, known).await?;
        drop(session);
        if let Some(reason) = lost.as_ref().filter(|_| !found.now.is_of_same_table(&before)) {
            let text = format!(
                "{} is not what was loaded, and will be read whole by the next load: {reason}; run `lakegate sync \
                 TABLE` before it is compared",
                found.shape.table
            );
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
        let since = before.since().filter(|_| lost.is_none());
        let newer = before.rowversion.filter(|_| lost.is_none()).and_then(|mark| newer(&found, mark));
        let mut result = Verification {
            method: found.now.method.as_str(),
            key: found.shape.key_names(),
            since: since.map(|since| since.version),
            notes: notes(&found, lost.as_deref(), since.is_some(), newer.is_some()),
            ..Verification::default()
        };
        let comparison = Comparison {
            reader: self.reader(&found),
            snapshots: found.database.allows_snapshots,
            lake: Arc::clone(lake),
            since,
            newer,
        };
        let mut count = |compared: &Compared| {
            result.ranges += 1;
            result.rows += compared.source_rows;
            result.left_out += compared.left_out;
            result.bytes += compared.bytes;
            told(compared);
        };
        let everything = [Range::default()];
        result.differing = comparison.differing(ranges.unwrap_or(&everything), &mut count).await?;
        Ok(result)
    }

    /// Changes since the lake's version, and with them, in the same snapshot, ranges that were found to differ.
    pub(super) fn mend(
        &self,
        session: Taken,
        found: Found,
        since: Since,
        ranges: Vec<Range>,
        seat: Option<Arc<Seat>>,
    ) -> Reading {
        let (reader, now) = (self.reader(&found), found.now.clone());
        let (shape, snapshots) = (Arc::clone(&found.shape), found.database.allows_snapshots);
        let ask = Ask { table: shape.table.clone(), since: Some(since) };
        let events = spawn(move |mut output| async move {
            output.hurry().await?;
            let entry = Entry::come(&reader, Some(session), seat, ask, snapshots).await?;
            let version = entry.version;
            let mut transaction = entry.begin(&reader, snapshots).await?;
            let is_snapshot = transaction.is_snapshot();
            let newest = change_tracking::read(transaction.session(), &shape, since, is_snapshot, &mut output).await?;
            ranges::read_anew(transaction.session(), &shape, &ranges, &mut output).await?;
            transaction.end().await?;
            let position = position::write(&now.after(version, newest))?;
            output.send(SourceEvent::End(ReadingEnd { position, ..ReadingEnd::default() })).await
        });
        reading(&found.shape, None, None, events)
    }
}

/// Rows newer than the lake, where their versions are among the columns that are read.
fn newer(found: &Found, mark: u64) -> Option<Newer> {
    let column = found.shape.row_version.clone()?;
    found.shape.schema.field_with_name(&column).is_ok().then_some(Newer { column, mark })
}

fn notes(found: &Found, lost: Option<&str>, tracked: bool, versioned: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = lost {
        notes.push(format!(
            "what changed since the last load could not be left out and shows as differing ({reason}); `lakegate sync` \
             loads the table whole, after which it can be compared exactly"
        ));
    } else if versioned {
        notes.push(
            "rows that were deleted since the last load show as differing: no row version tells of them".to_owned(),
        );
    } else if !tracked {
        notes.push(
            "the server does not tell what changed since the last load, so that shows as differing; load first, or \
             compare while nobody writes"
                .to_owned(),
        );
    }
    if !found.database.allows_snapshots {
        notes.push(
            "the database allows no snapshots: rows that were changed while they were compared may show as differing"
                .to_owned(),
        );
    }
    if !ranges::can_be_cut(&found.shape) {
        let why = if found.shape.keys.is_empty() { "it has no key" } else { "the lake sorts its key otherwise" };
        notes.push(format!("the table was compared as one range, as {why}"));
    }
    notes
}
