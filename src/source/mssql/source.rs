//! A table of SQL Server as a source of rows.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::config::{Method, SqlServerSource};
use crate::error::ErrorKind;
use crate::model::ChangeKind;
use crate::runtime::clock::Clock;
use crate::source::mssql::collation::Incomparable;
use crate::source::mssql::connect::{Connections, Idle, Taken};
use crate::source::mssql::discover::{self, Database, Table};
use crate::source::mssql::drift::{self, Now, Verdict};
use crate::source::mssql::group::{Ask, Entry, Seat, seat_to_read_whole};
use crate::source::mssql::method::{self, Choice};
use crate::source::mssql::output::Output;
use crate::source::mssql::position::{self, Epoch, Partial, Position, Since, Way};
use crate::source::mssql::ranges::Range;
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::SourceTable;
use crate::source::mssql::whole::Reader;
use crate::source::mssql::{change_tracking, rowversion};
use crate::source::{Known, Reading, ReadingEnd, Source, SourceError, SourceEvent, Whole};

/// Events read ahead of the load.
const READ_AHEAD: usize = 2;
/// Part of the time changes are kept after which the position of a table without changes is moved on.
const PART_OF_RETENTION: i32 = 10;

/// A table of SQL Server.
#[derive(Clone)]
pub struct SqlServerTable {
    pub(super) source: SqlServerSource,
    pub(super) connections: Connections,
    clock: Arc<dyn Clock>,
}

/// What was found when a reading began.
pub(super) struct Found {
    pub(super) database: Database,
    pub(super) table: Table,
    pub(super) shape: Arc<Shape>,
    /// What its position will be, but for the version.
    pub(super) now: Position,
}

impl SqlServerTable {
    /// The table a definition names, reached through `connections`.
    pub fn new(source: SqlServerSource, connections: Connections, clock: Arc<dyn Clock>) -> Self {
        Self { source, connections, clock }
    }

    /// Looks at the database and the table. `incomparable` is a value of its key that was met before.
    pub(super) async fn look(
        &self,
        session: &mut Taken,
        incomparable: Option<Incomparable>,
    ) -> Result<Found, SourceError> {
        let database = discover::database(session).await?;
        let name = SourceTable::new(&self.source.schema, &self.source.table);
        let table = discover::tables(session, &database, Some(&name)).await?.into_iter().next();
        let table = table.ok_or_else(|| SourceError::new(ErrorKind::NotFound, format!("there is no table {name}")))?;
        let wanted = self.source.method;
        let Choice { way, because } = method::choose(&database, &table, wanted, incomparable.as_ref())?;
        let shape = Arc::new(Shape::of(&database, &table, &self.source, way)?);
        let now = Position {
            method: way,
            because,
            epoch: Epoch::of(&database, &table),
            choices: Some(position::choices(&self.source.columns)),
            altered: Some(table.altered.clone()),
            version: None,
            ahead: None,
            rowversion: None,
            rows: None,
            rejected: None,
            content: None,
            columns: shape.columns.iter().map(|(column, _)| column.clone()).collect(),
            key: shape.key_names(),
            incomparable: incomparable.filter(|_| way == Way::Reload),
            at: self.clock.now(),
        };
        Ok(Found { database, table, shape, now })
    }

    pub(super) fn reader(&self, found: &Found) -> Reader {
        Reader {
            connections: self.connections.clone(),
            settings: self.source.connection.clone(),
            clock: Arc::clone(&self.clock),
            shape: Arc::clone(&found.shape),
        }
    }

    /// Changes since the table was read last; none where there are none, and its position need not move.
    async fn changes(
        &self,
        session: Taken,
        found: Found,
        before: &Position,
        since: Since,
        seat: Option<Arc<Seat>>,
    ) -> Result<Option<Reading>, SourceError> {
        let (reader, snapshots) = (self.reader(&found), found.database.allows_snapshots);
        let ask = Ask { table: found.shape.table.clone(), since: Some(since) };
        let entry = Entry::come(&reader, Some(session), seat, ask, snapshots).await?;
        let version = entry.version;
        let next = found.now.clone();
        if !entry.changed {
            entry.leave();
            let retention = found.database.tracking.map(|tracking| tracking.retention).unwrap_or_default();
            let retention = TimeDelta::from_std(retention).unwrap_or(TimeDelta::MAX);
            let until = before.at + retention / PART_OF_RETENTION;
            if self.clock.now() < until {
                if let Some(newest) = version {
                    let idle = Idle { since: since.version, newest, until };
                    self.connections.note_idle(&reader.settings, &found.shape.table, idle);
                }
                return Ok(None);
            }
            let position = position::write(&next.after(version, None))?;
            let end = ReadingEnd { position, ..ReadingEnd::default() };
            let events = futures::stream::iter([Ok(SourceEvent::End(end))]).boxed();
            return Ok(Some(reading(&found.shape, None, None, events)));
        }
        let shape = Arc::clone(&found.shape);
        let events = spawn(move |mut output| async move {
            // Nothing was handed on before, so nobody is waited for but the load that opens this reading.
            output.hurry().await?;
            let mut transaction = entry.begin(&reader, snapshots).await?;
            let is_snapshot = transaction.is_snapshot();
            let newest = change_tracking::read(transaction.session(), &shape, since, is_snapshot, &mut output).await?;
            transaction.end().await?;
            let position = position::write(&next.after(version, newest))?;
            let end = ReadingEnd { position, ..ReadingEnd::default() };
            output.send(SourceEvent::End(end)).await
        });
        Ok(Some(reading(&found.shape, None, None, events)))
    }

    /// The whole table, by chunks of its key, with what changed meanwhile.
    async fn tracked_whole(&self, mut session: Taken, found: Found, known: &Known) -> Result<Reading, SourceError> {
        let oldest = change_tracking::oldest_version(&mut session, &found.shape).await?;
        let newest = change_tracking::current_version(&mut session).await?;
        let is_kept = |then: &Position| then.version.is_some_and(|version| (oldest..=newest).contains(&version));
        let partial = self.usable(known, &found, is_kept);
        let whole = if partial.is_some() { Whole::GoesOn } else { Whole::Anew };
        let reader = self.reader(&found);
        let partial = match partial {
            Some(partial) => partial,
            None => {
                let from = Position { version: Some(newest), ..found.now.clone() };
                Partial { from, parts: reader.parts(&mut session, found.database.allows_snapshots).await? }
            }
        };
        drop(session);
        let (shape, snapshots) = (Arc::clone(&found.shape), found.database.allows_snapshots);
        let (bytes, own) = (found.shape.bytes, self.clone());
        let seat = known.seat.clone();
        let events = spawn(move |mut output| async move {
            let partial = {
                let _place = seat_to_read_whole(seat.as_ref()).await;
                reader.chunks(partial, snapshots, &mut output).await?
            };
            let since = partial.from.since().unwrap_or(Since { version: 0, ahead: None });
            output.hurry().await?;
            let ask = Ask { table: shape.table.clone(), since: Some(since) };
            let entry = Entry::come(&reader, None, seat, ask, snapshots).await?;
            let version = entry.version;
            let mut transaction = entry.begin(&reader, snapshots).await?;
            let is_snapshot = transaction.is_snapshot();
            let newest = change_tracking::read(transaction.session(), &shape, since, is_snapshot, &mut output).await?;
            let mut session = transaction.end_and_take(&reader).await?;
            let from = partial.from.after(version, newest);
            own.finish_whole(&mut session, &shape, Partial { from, parts: partial.parts }, &output).await
        });
        Ok(reading(&found.shape, Some(whole), None, events).of(bytes))
    }

    /// How far a whole load came before, where it can go on: the table is what it was, and what changed since its
    /// beginning can be found.
    pub(super) fn usable(
        &self,
        known: &Known,
        found: &Found,
        is_kept: impl FnOnce(&Position) -> bool,
    ) -> Option<Partial> {
        let partial: Partial = position::read(known.partial.as_ref()?).ok()?;
        let same = partial.from.is_of_same_table(&found.now) && is_kept(&partial.from);
        if !same {
            tracing::info!(table = %found.shape.table, "the table changed since its load was cut off: it begins anew");
        }
        same.then_some(partial)
    }

    /// Ends a whole load, unless the table is no longer what it was at its beginning.
    pub(super) async fn finish_whole(
        &self,
        session: &mut Taken,
        shape: &Shape,
        partial: Partial,
        output: &Output,
    ) -> Result<(), SourceError> {
        self.check_unaltered(session, shape, &partial.from).await?;
        let position = position::write(&partial.from)?;
        output.send(SourceEvent::Piece(position::write(&partial)?)).await?;
        output.send(SourceEvent::End(ReadingEnd { position, ..ReadingEnd::default() })).await
    }

    /// The whole table in one statement; nothing where it is what it was.
    fn reload(&self, session: Taken, found: Found, before: Option<String>, seat: Option<Arc<Seat>>) -> Reading {
        let reader = self.reader(&found);
        let snapshots = found.database.allows_snapshots;
        let bytes = found.shape.bytes;
        let now = found.now.clone();
        let events = spawn(move |mut output| async move {
            output.hurry().await?;
            let ask = Ask { table: reader.shape.table.clone(), since: None };
            let entry = Entry::come(&reader, Some(session), seat, ask, snapshots).await?;
            let mut transaction = entry.begin(&reader, snapshots).await?;
            let read = reader.at_once(transaction.session(), ChangeKind::Append, &mut output).await?;
            transaction.end().await?;
            let content = read.content.to_string();
            let unchanged = before.as_ref() == Some(&content);
            let position = position::write(&Position { content: Some(content), ..now })?;
            output.send(SourceEvent::End(ReadingEnd { position, unchanged, ..ReadingEnd::default() })).await
        });
        reading(&found.shape, Some(Whole::Anew), None, events).of(bytes)
    }
}

#[async_trait]
impl Source for SqlServerTable {
    async fn open(&self, known: &Known) -> Result<Option<Reading>, SourceError> {
        Ok(self.read(known).await?.map(|reading| self.watched(reading)))
    }
}

impl SqlServerTable {
    async fn read(&self, known: &Known) -> Result<Option<Reading>, SourceError> {
        let before = known.position.as_ref().map(position::read::<Position>).transpose()?;
        let connection = &self.source.connection;
        let since = before.as_ref().and_then(Position::since);
        let suspect: Option<Vec<Range>> = known.suspect.as_ref().map(position::read).transpose()?;
        let newest = match &before {
            Some(before) if before.version.is_some() && suspect.is_none() => {
                self.untouched_up_to(before, known).await?
            }
            _ => None,
        };
        let nothing_happened = match &known.seat {
            Some(seat) => seat.nothing_happened(newest).await,
            None => newest.is_some(),
        };
        if nothing_happened {
            return Ok(None);
        }
        let mut session = self.connections.take(connection).await?;
        let found = self.look(&mut session, self.incomparable(before.as_ref(), known)).await?;
        let reason = match &before {
            None => Some("it was not loaded before, or is to be loaded anew".to_owned()),
            Some(before) => self.anew_because(&mut session, &found, before, known).await?,
        };
        let table = &found.shape.table;
        if let Some(reason) = &reason {
            tracing::info!(%table, method = found.now.method.as_str(), because = %found.now.because, %reason, "reading the whole table");
        }
        match (found.now.method, before, since) {
            (Way::ChangeTracking, Some(before), Some(since)) if reason.is_none() => match suspect {
                Some(ranges) => Ok(Some(self.mend(session, found, since, ranges, known.seat.clone()))),
                None => self.changes(session, found, &before, since, known.seat.clone()).await,
            },
            (Way::ChangeTracking, before, _) => match self.repairable(&found, before.as_ref(), known) {
                Some(lake) => self.repair(session, found, lake, known.seat.clone()).await.map(Some),
                None => self.tracked_whole(session, found, known).await.map(Some),
            },
            (Way::RowVersion, Some(before), _) if reason.is_none() => {
                self.newer(session, found, before, known).await.map(Some)
            }
            (Way::RowVersion, ..) => self.versioned_whole(session, found, known).await.map(Some),
            (Way::KeyDiff, Some(before), _) if reason.is_none() => {
                Ok(Some(self.key_diff(session, found, &before, known)))
            }
            (Way::KeyDiff | Way::Reload, before, _) => {
                let same = reason.is_none() && suspect.is_none();
                let content = before.filter(|_| same).and_then(|before| before.content);
                Ok(Some(self.reload(session, found, content, known.seat.clone())))
            }
        }
    }

    /// A value of the key for which the table is not read by it: remembered, or met by this process. Where everything
    /// is asked for anew only one that was met since counts.
    pub(super) fn incomparable(&self, before: Option<&Position>, known: &Known) -> Option<Incomparable> {
        let remembered = before.and_then(|before| before.incomparable.clone());
        let since = if before.is_some() { None } else { known.asked };
        let name = SourceTable::new(&self.source.schema, &self.source.table);
        remembered.or_else(|| self.connections.incomparable(&self.source.connection, &name, since))
    }

    /// The same reading, which fails at the first value of a key that only the server can compare: two keys that are one
    /// there would be two in the lake. Where another method may be taken, the next try takes it.
    fn watched(&self, reading: Reading) -> Reading {
        if reading.folding.iter().all(|folding| folding.covers_all()) {
            return reading;
        }
        let (own, key, folding) = (self.clone(), reading.key.clone().unwrap_or_default(), reading.folding.clone());
        let events = reading.events.map(move |event| {
            let Ok(SourceEvent::Changes(change)) = &event else { return event };
            match Incomparable::find(&key, &folding, &change.rows) {
                Some(value) => Err(own.met(value)),
                None => event,
            }
        });
        Reading { events: events.boxed(), ..reading }
    }

    fn met(&self, value: Incomparable) -> SourceError {
        let table = SourceTable::new(&self.source.schema, &self.source.table);
        let what = format!(
            "key column `{}` of {table} holds `{}`, and which other values equal that only the server knows",
            value.column,
            value.value.escape_debug()
        );
        if self.source.method != Method::Auto {
            let text = format!(
                "{what}; take method = \"auto\" or \"reload\", give the column a binary collation (_BIN2), or change the \
                 value and load the table anew with --reload"
            );
            return SourceError::new(ErrorKind::InvalidInput, text);
        }
        self.connections.note_incomparable(&self.source.connection, &table, value);
        SourceError::new(ErrorKind::Conflict, format!("{what}; the whole table is read instead of its changes"))
    }

    /// The newest version of the database, where nothing happened to the table up to it.
    async fn untouched_up_to(&self, before: &Position, known: &Known) -> Result<Option<i64>, SourceError> {
        let connection = &self.source.connection;
        let table = SourceTable::new(&self.source.schema, &self.source.table);
        let states = self.connections.states(connection, known.asked).await?;
        let seen = self.connections.idle(connection, &table).filter(|seen| {
            // Its position has to move on before its changes are forgotten.
            before.version == Some(seen.since) && self.clock.now() < seen.until
        });
        let up_to = seen.map(|seen| seen.newest).or(before.version);
        let untouched = states.get(&table).filter(|state| {
            before.choices.as_ref() == Some(&position::choices(&self.source.columns))
                && Some(state.newest) == up_to
                && Some(state.oldest) <= before.version
                && before.altered.as_ref() == Some(&state.altered)
        });
        Ok(untouched.map(|state| state.newest))
    }

    /// Why the whole table has to be read though it was before, where it has to.
    pub(super) async fn anew_because(
        &self,
        session: &mut Taken,
        found: &Found,
        before: &Position,
        known: &Known,
    ) -> Result<Option<String>, SourceError> {
        let (was, is) = (before.method, found.now.method);
        if was != is {
            return Ok(Some(format!("it was kept in step by {} and is now by {}", was.as_str(), is.as_str())));
        }
        if before.choices.is_some() && before.choices != found.now.choices {
            return Ok(Some("its definition says otherwise than before how columns are read".to_owned()));
        }
        let shape = &found.shape;
        let now = Now {
            table: &found.table,
            epoch: &found.now.epoch,
            columns: &shape.columns,
            key: &found.now.key,
            lake: known.schema.as_deref(),
        };
        match drift::judge(before, &now) {
            Verdict::GoesOn => {}
            Verdict::Anew(reason) => return Ok(Some(reason)),
            Verdict::Stop(reason) => return Err(SourceError::new(ErrorKind::InvalidInput, reason)),
        }
        if is == Way::RowVersion {
            return rowversion::anew_because(session, before).await;
        }
        let Some(since) = before.version else { return Ok(None) };
        if change_tracking::current_version(session).await? < since {
            return Ok(Some(
                "the database went back to an older state: it was restored, or failed over with loss".to_owned(),
            ));
        }
        if change_tracking::oldest_version(session, shape).await? > since {
            return Ok(Some(
                "changes since the last load are no longer kept: the table was truncated, its tracking was switched off \
                 and on, or it was not loaded for longer than changes are kept"
                    .to_owned(),
            ));
        }
        // Off and on again with no other commit between, the version alone does not tell.
        if found.table.tracked_since.is_some_and(|begun| begun >= since) && before.altered != found.now.altered {
            return Ok(Some("its tracking was switched on since the last load, or may have been".to_owned()));
        }
        Ok(None)
    }
}

type Events = BoxStream<'static, Result<SourceEvent, SourceError>>;

pub(super) fn reading(
    shape: &Shape,
    whole: Option<Whole>,
    oldest_change: Option<chrono::DateTime<chrono::Utc>>,
    events: Events,
) -> Reading {
    let (schema, key) = (Arc::clone(&shape.schema), Some(shape.key_names()));
    Reading { schema, total_bytes: None, oldest_change, key, folding: shape.folding.clone(), whole, events }
}

impl Reading {
    /// With about so many bytes to come.
    pub(super) fn of(self, total_bytes: Option<u64>) -> Self {
        Self { total_bytes, ..self }
    }
}

/// Runs a reader in a task of its own; it ends when nobody takes its events any more.
pub(super) fn spawn<F>(read: impl FnOnce(Output) -> F) -> Events
where
    F: Future<Output = Result<(), SourceError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let output = Output::new(sender);
    let reading = read(output.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = reading.await {
            output.fail(error).await;
        }
    }));
    ReceiverStream::new(receiver)
        .map(move |event| {
            // As long as somebody takes events, the reader runs.
            let _ = &task;
            event
        })
        .boxed()
}
