//! Tables of one group: read one after the other in one transaction, and so at one moment.
//!
//! Every table has a [`Seat`]. It says first whether anything happened to it ([`Seat::nothing_happened`]), then that it
//! is ready to be read ([`Entry::come`]), which it is when the lake has taken what was read of it before, and each time
//! waits for the others; whoever is given up leaves, and nobody waits for him any more. When all are ready, one connection
//! begins a SNAPSHOT transaction, asks there which tables changed, and goes from hand to hand ([`Turn`]). Where it is lost,
//! the tables that were not read yet are read in another transaction: then one of the loads has failed, and what the others
//! bring is not published.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};

use crate::error::{Classify, ErrorKind};
use crate::source::SourceError;
use crate::source::mssql::change_tracking;
use crate::source::mssql::connect::Taken;
use crate::source::mssql::position::Since;
use crate::source::mssql::session::Session;
use crate::source::mssql::statements::SourceTable;
use crate::source::mssql::whole::Reader;

/// A table's place among those that are read at one moment. Dropped, it is left.
pub struct Seat {
    gathering: Arc<Gathering>,
    place: usize,
}

/// What the tables of a group share for one load of them all.
struct Gathering {
    state: watch::Sender<State>,
    opened: OnceCell<Result<Opened, Failure>>,
    line: Arc<Mutex<Line>>,
    /// As many tables are read whole at the same time.
    whole: Arc<Semaphore>,
}

#[derive(Debug)]
struct State {
    stages: Vec<Stage>,
    /// Whether nothing happened to any table, once all have said so.
    untouched: Option<bool>,
}

/// How far a table's load has come.
#[derive(Clone, Debug)]
enum Stage {
    Coming,
    /// Has looked; the newest version of the database, where nothing happened up to it.
    Looked(Option<i64>),
    /// Waits to be read.
    Ready(Ask),
    /// Was read, has nothing to read, or was given up.
    Gone,
}

/// What a table wants to be read.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) table: SourceTable,
    /// Since when changes count, where they are tracked.
    pub(super) since: Option<Since>,
}

/// What is known when the transaction has begun.
#[derive(Debug)]
struct Opened {
    /// The newest version of Change Tracking before it.
    version: Option<i64>,
    /// Which tables changed, by their places.
    changed: HashMap<usize, bool>,
}

/// The connection the tables share.
enum Line {
    Open(Box<Taken>),
    /// Not begun, lost, or at its end; with the reason why there is no other.
    Lost(Option<Failure>),
}

/// Why there is no transaction, for each who wanted it.
#[derive(Clone, Debug)]
struct Failure {
    kind: ErrorKind,
    message: String,
}

impl From<&SourceError> for Failure {
    fn from(error: &SourceError) -> Self {
        Self { kind: error.kind(), message: crate::error::chain_text(error) }
    }
}

impl From<&Failure> for SourceError {
    fn from(failure: &Failure) -> Self {
        Self::new(failure.kind, failure.message.clone())
    }
}

impl State {
    /// Draws what follows from the last step.
    fn settle(&mut self) {
        let coming = |stage: &Stage| matches!(stage, Stage::Coming);
        if self.untouched.is_some() || self.stages.iter().any(coming) {
            return;
        }
        let mut newest = self.stages.iter().filter_map(|stage| match stage {
            Stage::Looked(newest) => Some(*newest),
            _ => None,
        });
        let first = newest.next().flatten();
        // Of different questions each answer may be true, and the tables would still not be of one moment.
        self.untouched = Some(first.is_some() && newest.all(|other| other == first));
    }

    fn is_complete(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Ready(_) | Stage::Gone))
    }

    fn is_anybody_ready(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::Ready(_)))
    }
}

impl Seat {
    /// A seat for each of so many tables, of which `at_once` are read whole at the same time.
    pub fn for_members(members: usize, at_once: usize) -> Vec<Arc<Self>> {
        let gathering = Arc::new(Gathering {
            state: watch::Sender::new(State { stages: vec![Stage::Coming; members], untouched: None }),
            opened: OnceCell::new(),
            line: Arc::new(Mutex::new(Line::Lost(None))),
            whole: Arc::new(Semaphore::new(at_once.max(1))),
        });
        (0..members).map(|place| Arc::new(Self { gathering: Arc::clone(&gathering), place })).collect()
    }

    /// Says whether nothing happened to the table, by the newest version of the database, and tells whether that
    /// holds for all of them.
    pub(super) async fn nothing_happened(&self, newest: Option<i64>) -> bool {
        self.step(Stage::Looked(newest));
        let mut state = self.gathering.state.subscribe();
        let state = state.wait_for(|state| state.untouched.is_some()).await;
        state.is_ok_and(|state| state.untouched == Some(true))
    }

    /// Waits until one more table may be read whole: what was read waits in memory.
    pub(super) async fn whole(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.gathering.whole).acquire_owned().await.ok()
    }

    fn step(&self, stage: Stage) {
        self.gathering.state.send_modify(|state| {
            state.stages[self.place] = stage;
            state.settle();
        });
    }

    fn leave(&self) {
        self.step(Stage::Gone);
        self.gathering.close_if_done();
    }

    async fn opened(&self, reader: &Reader, ask: Ask, snapshots: bool) -> Result<&Opened, SourceError> {
        self.step(Stage::Ready(ask));
        // Nobody else can drop the sender: it is in the gathering.
        let _ = self.gathering.state.subscribe().wait_for(State::is_complete).await;
        let opened = self.gathering.opened.get_or_init(|| self.gathering.open(reader, snapshots)).await;
        opened.as_ref().map_err(SourceError::from)
    }

    async fn turn(self: Arc<Self>, reader: &Reader, snapshots: bool) -> Result<Turn, SourceError> {
        let mut line = Arc::clone(&self.gathering.line).lock_owned().await;
        let session = match std::mem::replace(&mut *line, Line::Lost(None)) {
            Line::Open(session) => *session,
            Line::Lost(Some(failure)) => {
                let error = SourceError::from(&failure);
                *line = Line::Lost(Some(failure));
                return Err(error);
            }
            Line::Lost(None) => {
                tracing::info!(table = %reader.shape.table, "the tables of the group go on in another transaction");
                begin(reader, snapshots).await.inspect_err(|error| *line = Line::Lost(Some(error.into())))?
            }
        };
        Ok(Turn { line, session, seat: self })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Gathering {
    /// Begins the transaction and asks in it which tables changed.
    async fn open(&self, reader: &Reader, snapshots: bool) -> Result<Opened, Failure> {
        let opening = async {
            let asks = self.asks();
            let mut line = self.line.lock().await;
            let tracked: Vec<_> =
                asks.iter().filter_map(|(place, ask)| Some((*place, ask.table.clone(), ask.since?))).collect();
            let mut session = reader.connections.take(&reader.settings).await?;
            // Before the transaction: what is committed between the two is read now and once more the next time.
            let version = match tracked.is_empty() {
                true => None,
                false => Some(change_tracking::current_version(&mut session).await?),
            };
            begin_snapshot(reader, &mut session, snapshots).await?;
            let tables: Vec<_> = tracked.iter().map(|(_, table, since)| (table.clone(), *since)).collect();
            let answers = change_tracking::changed(&mut session, &tables).await?;
            let changed: HashMap<usize, bool> =
                tracked.iter().zip(answers).map(|((place, ..), changed)| (*place, changed)).collect();
            *line = Line::Open(Box::new(session));
            Ok(Opened { version, changed })
        };
        opening.await.map_err(|error: SourceError| Failure::from(&error))
    }

    fn asks(&self) -> Vec<(usize, Ask)> {
        let state = self.state.borrow();
        let ready = state.stages.iter().enumerate().filter_map(|(place, stage)| match stage {
            Stage::Ready(ask) => Some((place, ask.clone())),
            _ => None,
        });
        ready.collect()
    }

    /// Lets the connection go where nobody waits for it any more.
    fn close_if_done(&self) {
        if !self.state.borrow().is_anybody_ready()
            && let Ok(mut line) = self.line.try_lock()
        {
            *line = Line::Lost(None);
        }
    }
}

async fn begin(reader: &Reader, snapshots: bool) -> Result<Taken, SourceError> {
    let mut session = reader.connections.take(&reader.settings).await?;
    begin_snapshot(reader, &mut session, snapshots).await?;
    Ok(session)
}

async fn begin_snapshot(reader: &Reader, session: &mut Session, snapshots: bool) -> Result<(), SourceError> {
    if snapshots {
        return reader.begin(session, snapshots).await.map(drop);
    }
    let text = format!(
        "the database {} does not allow snapshot isolation, without which the tables of a group cannot be read at one \
         moment; ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON allows it, or take `group` out of their definitions",
        reader.settings.database
    );
    Err(SourceError::new(ErrorKind::InvalidInput, text))
}

/// A place to read a whole table, among the others of its group.
pub(super) async fn seat_to_read_whole(seat: Option<&Arc<Seat>>) -> Option<OwnedSemaphorePermit> {
    match seat {
        Some(seat) => seat.whole().await,
        None => None,
    }
}

/// A table's turn with the connection of its group. Dropped before its end, the connection is lost.
pub(super) struct Turn {
    line: OwnedMutexGuard<Line>,
    session: Taken,
    seat: Arc<Seat>,
}

impl Turn {
    async fn end(self) -> Result<(), SourceError> {
        let Self { mut line, mut session, seat } = self;
        seat.step(Stage::Gone);
        if seat.gathering.state.borrow().is_anybody_ready() {
            *line = Line::Open(Box::new(session));
            drop(line);
            seat.gathering.close_if_done();
        } else {
            session.end().await?;
        }
        Ok(())
    }
}

/// A table that is ready to be read: on a connection of its own, or when its turn comes in its group.
pub(super) struct Entry {
    /// The newest version of Change Tracking, asked for before the transaction; none where it was of no interest.
    pub(super) version: Option<i64>,
    /// Whether the table changed; always, where its changes are not tracked.
    pub(super) changed: bool,
    way: Way,
}

enum Way {
    Alone(Box<Taken>),
    Together(Arc<Seat>),
}

impl Entry {
    /// Comes to be read: alone at once, with `own` or another connection; with others when all are ready. Then their
    /// transaction is open: whoever hands on rows before this waits first until they are taken
    /// ([`Output::hurry`](super::output::Output::hurry)).
    ///
    /// # Errors
    /// When the server cannot be reached, does not answer, or allows no common moment.
    pub(super) async fn come(
        reader: &Reader,
        own: Option<Taken>,
        seat: Option<Arc<Seat>>,
        ask: Ask,
        snapshots: bool,
    ) -> Result<Self, SourceError> {
        if let Some(seat) = seat {
            // The others need it before this one gets its turn.
            drop(own);
            let opened = seat.opened(reader, ask, snapshots).await?;
            let changed = opened.changed.get(&seat.place).copied().unwrap_or(true);
            return Ok(Self { version: opened.version, changed, way: Way::Together(seat) });
        }
        let mut session = match own {
            Some(session) => session,
            None => reader.connections.take(&reader.settings).await?,
        };
        let (mut version, mut changed) = (None, true);
        if let Some(since) = ask.since {
            // Before the transaction: what is committed between the two is read now and once more the next time.
            version = Some(change_tracking::current_version(&mut session).await?);
            let answers = change_tracking::changed(&mut session, &[(ask.table, since)]).await?;
            changed = answers.first().copied().unwrap_or(true);
        }
        Ok(Self { version, changed, way: Way::Alone(Box::new(session)) })
    }

    /// Goes without being read.
    pub(super) fn leave(self) {
        if let Way::Together(seat) = self.way {
            seat.leave();
        }
    }

    /// Begins to be read, in a transaction of its own or when its turn has come. Whoever takes the rows is not waited
    /// for: he has said so before ([`Output::hurry`](super::output::Output::hurry)).
    ///
    /// # Errors
    /// What the server says, and where the settings ask for more than the database allows.
    pub(super) async fn begin(self, reader: &Reader, snapshots: bool) -> Result<Transaction, SourceError> {
        match self.way {
            Way::Alone(mut session) => {
                let is_snapshot = reader.begin(&mut session, snapshots).await?;
                Ok(Transaction::Own { session: *session, is_snapshot })
            }
            Way::Together(seat) => Ok(Transaction::Shared(seat.turn(reader, snapshots).await?)),
        }
    }
}

/// The transaction a table is read in.
pub(super) enum Transaction {
    /// On a connection of its own.
    Own { session: Taken, is_snapshot: bool },
    /// With the other tables of its group.
    Shared(Turn),
}

impl Transaction {
    pub(super) fn session(&mut self) -> &mut Session {
        match self {
            Self::Own { session, .. } => session,
            Self::Shared(turn) => &mut turn.session,
        }
    }

    /// Whether it sees one state of the database.
    pub(super) fn is_snapshot(&self) -> bool {
        match self {
            Self::Own { is_snapshot, .. } => *is_snapshot,
            Self::Shared(_) => true,
        }
    }

    /// Ends it; gives the connection back where it was the table's own.
    ///
    /// # Errors
    /// What the server or the line says.
    pub(super) async fn end(self) -> Result<Option<Taken>, SourceError> {
        match self {
            Self::Own { mut session, .. } => {
                session.end().await?;
                Ok(Some(session))
            }
            Self::Shared(turn) => turn.end().await.map(|()| None),
        }
    }

    /// Ends it; gives the table's own connection back, or another.
    ///
    /// # Errors
    /// As [`Self::end`]; when the server cannot be reached.
    pub(super) async fn end_and_take(self, reader: &Reader) -> Result<Taken, SourceError> {
        match self.end().await? {
            Some(session) => Ok(session),
            None => Ok(reader.connections.take(&reader.settings).await?),
        }
    }
}
