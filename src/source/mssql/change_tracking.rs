//! Changes by Change Tracking: one short transaction that sees one state, from the last version to now.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use crate::error::ErrorKind;
use crate::model::{ChangeBatch, ChangeKind};
use crate::source::mssql::decode::{Pushed, RowDecoder};
use crate::source::mssql::discover::whole;
use crate::source::mssql::output::Output;
use crate::source::mssql::position::Since;
use crate::source::mssql::session::{RowSource, Session};
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::{self, KeyRange, SourceTable};
use crate::source::{SourceError, SourceEvent};

/// Rows of a batch, and bytes of one, whichever comes first.
pub(super) const BATCH_ROWS: usize = 32_768;
/// As above, in bytes.
const BATCH_BYTES: usize = 16 << 20;

/// The version of the newest committed change of a database.
///
/// # Errors
/// What the server says; `InvalidInput` where it tracks none.
pub(super) async fn current_version(session: &mut Session) -> Result<i64, SourceError> {
    let version = session.number(statements::CURRENT_VERSION, "asking for the newest change").await?;
    version.ok_or_else(|| {
        SourceError::new(
            ErrorKind::InvalidInput,
            "change tracking of the database is off; ALTER DATABASE … SET CHANGE_TRACKING = ON turns it on",
        )
    })
}

/// The oldest version from which changes of a table can be asked for.
///
/// # Errors
/// What the server says; `InvalidInput` where it does not tell, which never means "from the beginning".
pub(super) async fn oldest_version(session: &mut Session, shape: &Shape) -> Result<i64, SourceError> {
    let sql = statements::min_valid_version(&shape.table);
    let version = session.number(&sql, "asking for the oldest change that is kept").await?;
    version.ok_or_else(|| {
        let text = format!(
            "the server does not tell which changes of {} it keeps: its changes are not tracked, or the login may not \
             ask for them; `lakegate doctor` prints what it needs",
            shape.table
        );
        SourceError::new(ErrorKind::InvalidInput, text)
    })
}

/// Makes sure that all changes after `since` are kept.
///
/// # Errors
/// `Conflict` where they are not; what the server says.
pub(super) async fn check_kept(session: &mut Session, shape: &Shape, since: i64) -> Result<(), SourceError> {
    let oldest = oldest_version(session, shape).await?;
    if oldest > since {
        let text = format!(
            "changes of {} are kept from version {oldest} on, and the lake is at {since}: the table was truncated, or \
             was not read for longer than changes are kept; it is loaded anew",
            shape.table
        );
        return Err(SourceError::new(ErrorKind::Conflict, text));
    }
    Ok(())
}

/// Which of many tables changed. A table whose changes are no longer kept has changed.
///
/// # Errors
/// What the server says.
pub(super) async fn changed(session: &mut Session, tables: &[(SourceTable, Since)]) -> Result<Vec<bool>, SourceError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let asked = tables.iter().flat_map(|(table, since)| since.versions().map(|version| (table.clone(), version)));
    let rows = session.all(&statements::idle(&asked.collect::<Vec<_>>()), "asking whether tables changed").await?;
    let mut place = 0;
    let changed = |(_, since): &(SourceTable, Since)| {
        since.versions().fold(false, |changed, version| {
            let row = rows.iter().find(|row| whole(row, 0) == Some(place));
            place += 1;
            let kept = row.and_then(|row| whole(row, 2)).is_some_and(|oldest| oldest <= version);
            changed || !kept || row.and_then(|row| whole(row, 1)) != Some(0)
        })
    };
    Ok(tables.iter().map(changed).collect())
}

/// Gives all that changed, as one state of the database, and tells the newest change. To be called in a transaction.
///
/// # Errors
/// `Conflict` where changes since then are no longer kept; what the server says; a value that cannot be kept.
pub(super) async fn read(
    session: &mut Session,
    shape: &Arc<Shape>,
    since: Since,
    is_snapshot: bool,
    output: &mut Output,
) -> Result<Option<i64>, SourceError> {
    check_kept(session, shape, since.version).await?;
    let (mut changes, mut newest) = (Changes::new(shape), None);
    for version in since.versions() {
        let sql = statements::changes(&shape.table, &shape.keys, &shape.plans, version, KeyRange::default())
            .map_err(|cause| SourceError::because(ErrorKind::Internal, "the changes cannot be asked for", cause))?;
        let mut rows = session.rows(&sql, "reading changes");
        while let Some(row) = rows.try_next().await? {
            newest = newest.max(whole(&row, 0));
            // The second time all but the end of rows is known.
            if version == since.version || !changes.is_present(&row) {
                changes.take(shape, row, is_snapshot, output)?;
                changes.send_full(output).await?;
            }
        }
    }
    changes.send_all(output).await?;
    Ok(newest)
}

/// Changes that are being gathered into batches. Of one key there is one change, so their order does not matter.
struct Changes {
    upserts: RowDecoder,
    deletes: RowDecoder,
    key_cells: usize,
}

impl Changes {
    fn new(shape: &Shape) -> Self {
        let key_plans: Vec<_> = shape.keys.iter().map(|key| key.plan().clone()).collect();
        Self {
            upserts: RowDecoder::new(&shape.plans),
            key_cells: key_plans.iter().map(|plan| plan.width()).sum(),
            deletes: RowDecoder::new(&key_plans),
        }
    }

    fn is_present(&self, row: &tiberius::Row) -> bool {
        whole(row, 2 + self.key_cells) == Some(1)
    }

    /// A row has: version, operation, the key, whether the row is there, the row.
    fn take(
        &mut self,
        shape: &Shape,
        row: tiberius::Row,
        is_snapshot: bool,
        output: &mut Output,
    ) -> Result<(), SourceError> {
        let present = self.is_present(&row);
        let deleted = matches!(row.get_column_data(1), Ok(tiberius::ColumnData::String(Some(text))) if text == "D");
        let mut cells = row.into_iter().skip(2);
        let key: Vec<_> = cells.by_ref().take(self.key_cells).collect();
        if present {
            let pushed = self.upserts.push(cells.skip(1)).map_err(|cause| shape.cell(cause))?;
            if let Pushed::TooLarge { column, bytes } = pushed {
                output.too_large(shape, &column, bytes)?;
                // What stands in the lake under this key is no longer true.
                self.deletes.push(key).map_err(|cause| shape.cell(cause))?;
            }
            return Ok(());
        }
        if !deleted && is_snapshot {
            let text = format!(
                "a row of {} is reported as changed and is not there: a policy hides rows from the login, or the \
                 server's change tracking is damaged (DBCC CHECKDB tells); nothing was loaded",
                shape.table
            );
            return Err(SourceError::new(ErrorKind::DataLoss, text));
        }
        if deleted {
            self.deletes.push(key).map_err(|cause| shape.cell(cause))?;
        }
        Ok(())
    }

    async fn send_full(&mut self, output: &mut Output) -> Result<(), SourceError> {
        if is_full(&self.upserts) || is_full(&self.deletes) {
            self.send_all(output).await?;
        }
        Ok(())
    }

    async fn send_all(&mut self, output: &mut Output) -> Result<(), SourceError> {
        for (decoder, kind) in [(&mut self.deletes, ChangeKind::Delete), (&mut self.upserts, ChangeKind::Upsert)] {
            send(decoder, kind, output).await?;
        }
        Ok(())
    }
}

/// Whether a decoder holds a batch. Rows that were rejected count: they wait as well, and there may be no others.
pub(super) fn is_full(decoder: &RowDecoder) -> bool {
    decoder.pushed() >= BATCH_ROWS || decoder.bytes() >= BATCH_BYTES
}

/// Hands on what a decoder holds, then the rows that were rejected.
pub(super) async fn send(decoder: &mut RowDecoder, kind: ChangeKind, output: &mut Output) -> Result<(), SourceError> {
    if decoder.is_empty() {
        return Ok(());
    }
    let bytes = decoder.bytes() as u64;
    let rows: RecordBatch = decoder
        .finish()
        .map_err(|cause| SourceError::because(ErrorKind::Internal, "rows cannot be put together", cause))?;
    if rows.num_rows() > 0 {
        output.send(SourceEvent::Changes(ChangeBatch { kind, rows, file: None })).await?;
    }
    output.send_rejects().await?;
    output.send(SourceEvent::Progress(bytes)).await
}
