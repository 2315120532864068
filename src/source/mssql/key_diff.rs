//! A table with a key that tells nothing of its changes: all of it is read, and what differs is written.

use crate::model::{ChangeKind, KeyRange};
use crate::source::mssql::connect::Taken;
use crate::source::mssql::group::{Ask, Entry};
use crate::source::mssql::position::{self, Position};
use crate::source::mssql::source::{Found, SqlServerTable, reading, spawn};
use crate::source::{Known, Reading, ReadingEnd, SourceEvent};

impl SqlServerTable {
    /// The whole table in one transaction, as what is present; nothing where its rows are those of the last load.
    pub(super) fn key_diff(&self, session: Taken, found: Found, before: &Position, known: &Known) -> Reading {
        let reader = self.reader(&found);
        let snapshots = found.database.allows_snapshots;
        let content = before.content.clone().filter(|_| known.suspect.is_none());
        let now = found.now.clone();
        let ask = Ask { table: found.shape.table.clone(), since: None };
        let seat = known.seat.clone();
        let events = spawn(move |mut output| async move {
            output.hurry().await?;
            let entry = Entry::come(&reader, Some(session), seat, ask, snapshots).await?;
            let mut transaction = entry.begin(&reader, snapshots).await?;
            let read = reader.at_once(transaction.session(), ChangeKind::Present, &mut output).await?;
            transaction.end().await?;
            output.send(SourceEvent::Complete(KeyRange::default())).await?;
            let now = Position { content: Some(read.content.to_string()), ..now };
            let unchanged = content.is_some() && content == now.content;
            let position = position::write(&now)?;
            output.send(SourceEvent::End(ReadingEnd { position, unchanged, ..ReadingEnd::default() })).await
        });
        reading(&found.shape, None, None, events).of(found.shape.bytes)
    }
}
