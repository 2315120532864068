//! One run of a statement, from the moment it is asked for to its last row: its turn, what it costs, how it is stopped,
//! and what is told of it afterwards.
//!
//! A run stands in two lists for as long as it lasts: what may be seen of it in the journal's, and what can be done to
//! it in [`Service::runs`]. However it ends, by its last row, an error, a panic, its client's going or a request, it
//! leaves both, gives its place back and is noted in the history, once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::config::TextsKept;
use crate::delivery::Learning;
use crate::error::ErrorKind;
use crate::flight::admission::{Person, Slot};
use crate::flight::caller::Caller;
use crate::flight::gate::Pass;
use crate::flight::rows::Source;
use crate::flight::service::Service;
use crate::flight::session::InUse;
use crate::flight::standing::Standing;
use crate::flight::status::{kind_of, refuse};
use crate::journal::{Journal, QueryOrigin, QueryRecord, QueryStatus, RunningQuery};
use crate::query::{MemoryGauge, Planned, without_literals};
use crate::runtime::clock::Clock;
use crate::runtime::live::{Entry, Live};

/// Longest text of a statement that is kept, in bytes: those that people write are shorter, those that programs write
/// begin alike.
const LONGEST_TEXT: usize = 16 << 10;
/// Longest error that is kept, in bytes.
const LONGEST_ERROR: usize = 2 << 10;

/// What can be done to a run.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Names the run.
    pub(crate) id: Uuid,
    /// The ticket it was asked for with.
    pub(crate) ticket: Uuid,
    /// The session it belongs to.
    pub(crate) session: Uuid,
    /// Who asked.
    pub(crate) person: Person,
    /// Whether it goes on when its connection is cut: its client said that it comes back.
    pub(crate) outlives_connection: bool,
    stop: CancellationToken,
    reason: OnceLock<StopReason>,
    held: Mutex<Held>,
}

/// Why a run was stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Its person, or an admin, asked for it.
    Cancelled,
    /// Its session was closed.
    SessionClosed,
    /// Its client took nothing for so long.
    IdleReader(Duration),
}

/// What a run holds.
#[derive(Default)]
pub(crate) struct Held {
    /// Its rows; none before it computes, and once it was stopped.
    pub(crate) rows: Option<Source>,
    /// Its place; none while it waits for one.
    pub(crate) slot: Option<Slot>,
    /// Since when it waits for its client; none while the engine works.
    pub(crate) waits_since: Option<Instant>,
    /// Whether its next message waits for the line: so long it does not wait for its client.
    pub(crate) waits_for_line: bool,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("slot", &self.slot).field("waits_since", &self.waits_since).finish_non_exhaustive()
    }
}

impl Handle {
    /// Stops the run and frees what it holds now, whether anybody looks at it again or not.
    pub(crate) fn stop(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.stop.cancel();
        self.free();
    }

    /// Whether it has to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// What it holds.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives its place away when it has waited for its client for so long.
    pub(crate) fn yield_place(&self, after: Duration) {
        // Who holds the lock works for it right now.
        let Ok(mut held) = self.held.try_lock() else { return };
        if held.waits_since.is_some_and(|since| since.elapsed() >= after) {
            held.slot = None;
        }
        if let Some(Source::Shared(rows)) = &held.rows {
            rows.yield_place(after);
        }
    }

    /// How long it has waited for its client by now.
    pub(crate) fn waits_for_client(&self) -> Duration {
        let held = self.held.try_lock().ok().filter(|held| !held.waits_for_line);
        held.and_then(|held| held.waits_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn free(&self) {
        let (rows, slot) = {
            let mut held = self.held();
            held.waits_since = None;
            (held.rows.take(), held.slot.take())
        };
        // The work ends before its place is given on.
        drop(rows);
        drop(slot);
    }
}

/// A run, in the hands of what carries it on.
#[derive(Debug)]
pub(crate) struct Run {
    /// What can be done to it.
    pub(crate) handle: Entry<Handle>,
    /// What is told of it while it lasts.
    pub(crate) told: Entry<RunningQuery>,
    pass: Pass,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    texts: TextsKept,
    memory: Option<Arc<MemoryGauge>>,
    standing: Standing,
    /// How large its columns are on the line, while its rows are sent.
    learning: Option<Learning>,
    _session: Option<InUse>,
    ended: bool,
}

impl Run {
    /// Begins a run of a text, asked for with a ticket.
    pub(crate) fn begin(service: &Service, caller: &Caller, sql: &str, ticket: Uuid, pass: Pass) -> Self {
        let origin = origin(service, caller, sql);
        let handle = Handle {
            id: origin.query_id,
            ticket,
            session: origin.session_id,
            person: caller.person(),
            outlives_connection: caller.resume().is_some(),
            stop: pass.stopper(),
            reason: OnceLock::new(),
            held: Mutex::default(),
        };
        Self {
            handle: service.runs.enter(origin.query_id, Arc::new(handle)),
            told: service.journal.running().enter(origin.query_id, Arc::new(RunningQuery::begin(origin))),
            pass,
            journal: Arc::clone(&service.journal),
            clock: Arc::clone(&service.clock),
            texts: service.history.texts,
            memory: None,
            standing: caller.standing.clone(),
            learning: None,
            _session: caller.runs_statement(&service.clock),
            ended: false,
        }
    }

    /// The run needs no turn: it computes nothing.
    pub(crate) fn takes_no_turn(&self) {
        self.told.takes_turn();
    }

    /// Waits for the run's turn.
    ///
    /// # Errors
    /// When it does not come, or the run is stopped.
    pub(crate) async fn take_turn(&self, service: &Service) -> Result<(), Status> {
        let slot = tokio::select! {
            biased;
            slot = service.admission.enter(&self.handle.person) => slot?,
            () = self.pass.stopped() => return Err(self.stopped()),
        };
        self.told.takes_turn();
        self.handle.held().slot = Some(slot);
        Ok(())
    }

    /// The run was planned.
    pub(crate) fn planned(&mut self, time: Duration, planned: &Planned) {
        self.told.planned(time, &planned.statement.pins);
        self.memory = Some(Arc::clone(&planned.memory));
    }

    /// The sizes of its columns are learnt while its rows are sent.
    pub(crate) fn learns(&mut self, learning: Option<Learning>) {
        self.learning = learning;
    }

    /// Takes notice of a message, by its header.
    pub(crate) fn learn(&mut self, header: &[u8]) {
        if let Some(learning) = &mut self.learning {
            learning.observe(header);
        }
    }

    /// All rows were sent.
    pub(crate) fn keep_what_was_learnt(&mut self) {
        if let Some(learning) = self.learning.take() {
            learning.keep();
        }
    }

    /// Comes when the run has to stop.
    pub(crate) fn pass(&self) -> &Pass {
        &self.pass
    }

    /// Why it had to stop.
    pub(crate) fn stopped(&self) -> Status {
        match self.handle.reason.get() {
            None => self.pass.reason(),
            Some(StopReason::Cancelled) => refuse(ErrorKind::Cancelled, "the statement was cancelled on request"),
            Some(StopReason::SessionClosed) => refuse(ErrorKind::Cancelled, "the session of the statement was closed"),
            Some(StopReason::IdleReader(time)) => refuse(
                ErrorKind::DeadlineExceeded,
                format!(
                    "nothing of the result was taken for {} (`limits.idle_reader`); run the statement again and read it in \
                     one go, or fewer rows of it",
                    humantime::format_duration(*time)
                ),
            ),
        }
    }

    /// Checks that its person may still see what it was planned to read.
    ///
    /// # Errors
    /// When that was taken from them since.
    pub(crate) fn check_standing(&mut self) -> Result<(), Status> {
        self.standing.check()
    }

    /// From now on its rows go to whoever has this standing, which covers what it was planned to read.
    pub(crate) fn goes_to(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Counts a message on its way, and what was made by now: rows, and their bytes before; none where nothing is made.
    pub(crate) fn sends(&self, made: Option<(u64, u64)>, bytes: u64) {
        if let Some((rows, raw_bytes)) = made {
            self.told.rows.store(rows, Ordering::Relaxed);
            self.told.raw_bytes.store(raw_bytes, Ordering::Relaxed);
        }
        self.told.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(memory) = &self.memory {
            self.told.peak_memory.store(memory.peak() as u64, Ordering::Relaxed);
        }
    }

    /// The run ended, well or with an error. Frees what it holds and notes it.
    pub(crate) fn end(&mut self, result: Result<(), &Status>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.handle.free();
        if let Some(memory) = &self.memory {
            self.told.peak_memory.store(memory.peak() as u64, Ordering::Relaxed);
        }
        let record = QueryRecord { ended_at: Some(self.clock.now()), ..self.told.now() };
        self.journal.record_query(ended(record, result, self.texts));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let gone = refuse(ErrorKind::Cancelled, "the client went away");
        self.end(Err(&gone));
    }
}

/// Notes a statement that could not be planned when it was only asked about.
pub(crate) fn note_refused(service: &Service, caller: &Caller, sql: &str, time: Duration, status: &Status) {
    let run = RunningQuery::begin(origin(service, caller, sql));
    run.takes_turn();
    run.planned(time, &BTreeMap::new());
    let record = QueryRecord { ended_at: Some(service.clock.now()), ..run.now() };
    service.journal.record_query(ended(record, Err(status), service.history.texts));
}

/// Stops the runs that fit; how many there were.
pub(crate) fn stop_all(runs: &Live<Handle>, reason: StopReason, fits: impl Fn(&Handle) -> bool) -> usize {
    runs.all().iter().filter(|run| fits(run)).inspect(|run| run.stop(reason)).count()
}

fn origin(service: &Service, caller: &Caller, sql: &str) -> QueryOrigin {
    let text = match service.history.texts {
        TextsKept::Full => Some(cut(sql, LONGEST_TEXT)),
        TextsKept::WithoutLiterals => without_literals(sql).map(|text| cut(&text, LONGEST_TEXT)),
        TextsKept::None => None,
    };
    QueryOrigin {
        query_id: Uuid::new_v4(),
        session_id: caller.session_id(),
        principal: caller.name().to_owned(),
        address: caller.address.map(|address| address.to_string()),
        client: caller.user_agent.clone(),
        text,
        started_at: service.clock.now(),
    }
}

fn ended(mut record: QueryRecord, result: Result<(), &Status>, texts: TextsKept) -> QueryRecord {
    let Err(status) = result else {
        record.status = QueryStatus::Finished;
        return record;
    };
    let kind = kind_of(status);
    record.status = if kind == ErrorKind::Cancelled { QueryStatus::Cancelled } else { QueryStatus::Failed };
    record.error_kind = Some(kind);
    // Errors name values of the statement, and of the tables.
    record.error = (texts == TextsKept::Full).then(|| cut(status.message(), LONGEST_ERROR));
    record
}

fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{} …", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short", 16), "short");
        assert_eq!(cut("aää", 2), "a …");
    }
}
