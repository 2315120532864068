//! Runs whose rows several readers take: whoever asks for a result that is being made right now follows, and whoever asks for
//! one that is kept whole reads it from disk. Neither runs anything.
//!
//! Each reader has a run of their own, with their own rights, quota, patience and line in the history; what they share is where
//! the messages come from. Nobody carries the work: whichever reader has read all there is and wants more drives it, so it goes
//! as fast as the fastest reads, and the others find on disk what was made meanwhile. It ends with its last reader. Where
//! the disk cannot keep what somebody has yet to read, the next message waits for them, but not for long.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::config::SpoolSettings;
use crate::delivery::{EncodedResult, Found, Identity, Put, ResultCache, ResultKey, Sealer, StoredResult, WireMessage};
use crate::flight::admission::{Admission, Person, Slot};
use crate::flight::status::{not_now, panicked};
use crate::journal::SharedFrom;
use crate::model::WireProfile;
use crate::query::{Planned, StatementKind};

/// How long others are waited for in all by those of one run, where what they lack cannot be kept for them.
const STALLED: Duration = Duration::from_secs(30);
/// How long for each message after that: who keeps up needs less.
const STALLED_AGAIN: Duration = Duration::from_secs(1);

/// A plan that begins to run.
pub(crate) type Starting = BoxFuture<'static, Result<EncodedResult, Status>>;

/// The results that are shared. Clones are one.
#[derive(Clone)]
pub(crate) struct Sharing(ResultCache<Shared>);

/// A result that several readers may take.
pub(crate) struct Shared {
    bell: Arc<Bell>,
    core: Mutex<Core>,
}

struct Core {
    making: Making,
    /// The place the engine works at; none before it has one, and while nobody wants more.
    slot: Option<Slot>,
    /// Waits for a place, after it was given away.
    again: Option<BoxFuture<'static, Result<Slot, Status>>>,
    admission: Admission,
    /// Since when the engine has nothing to do: all readers have what they want, or one is waited for. None while it works.
    waits_since: Option<Instant>,
    /// Messages that were made.
    made: u64,
    /// Rows that were encoded with the last of them, and their bytes before.
    sent: (u64, u64),
    stored: StoredResult,
    /// The message that was made last, as long as the disk may not have it.
    last: Option<WireMessage>,
    last_is_kept: bool,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Which message each reader wants next.
    readers: HashMap<u64, u64>,
    last_reader: u64,
    /// Since when readers are waited for, and until when.
    stalled: Option<(tokio::time::Instant, Pin<Box<Sleep>>)>,
    /// How long they can be waited for still, in all.
    patience: Duration,
    /// Whether all messages were made.
    is_whole: bool,
    /// Whether nobody can follow any more.
    closed: bool,
    failed: Option<Status>,
}

enum Making {
    Starting(Starting),
    Rows(Box<EncodedResult>),
    Over,
}

/// What a reader finds who wants a message.
enum Next {
    Found(Found, (u64, u64)),
    NotMade,
    End,
    Failed(Status),
}

/// A reader's way to the rows of a shared run. Dropping it lets the others go on.
pub(crate) struct SharedRows {
    shared: Arc<Shared>,
    key: ResultKey,
    cache: ResultCache<Shared>,
    person: Person,
    id: u64,
    /// Whose work it shares; none where it began with this reader.
    from: Option<SharedFrom>,
    /// The message that comes next.
    number: u64,
    sent: (u64, u64),
    reading: Option<JoinHandle<io::Result<WireMessage>>>,
    is_queued: bool,
}

impl Sharing {
    /// Nothing is shared yet.
    pub(crate) fn new(settings: &SpoolSettings) -> Self {
        Self(ResultCache::new(settings.folder.clone(), settings.cache))
    }

    /// The key of what a planned statement gives under `schema`, encoded so; none where it is not to be shared: its rows may be
    /// others each time, or nothing is read for them.
    pub(crate) fn key(
        &self,
        planned: &Planned,
        schema: &Schema,
        (profile, message_bytes): (WireProfile, usize),
        sealer: &Sealer,
    ) -> Option<ResultKey> {
        let read = planned.dependencies.as_ref()?;
        if self.0.largest() == 0 || planned.kind != StatementKind::Query || read.tables.is_empty() {
            return None;
        }
        Some(ResultKey::new(&Identity::of(planned, schema, profile, sealer)?, profile, message_bytes))
    }

    /// Bytes that a result may have to be shared.
    pub(crate) fn largest(&self) -> u64 {
        self.0.largest()
    }

    /// The rows of a result that is there, or is being made.
    pub(crate) fn follow(&self, key: &ResultKey, person: &Person) -> Option<SharedRows> {
        let shared = self.0.get(key)?;
        self.join(&shared, key, person)
    }

    /// The rows of a result that begins to be made at this place, unless it is there by now.
    pub(crate) fn begin(
        &self,
        key: &ResultKey,
        (starting, slot): (Starting, Option<Slot>),
        (admission, person): (&Admission, &Person),
    ) -> SharedRows {
        let shared = Arc::new(Shared::new(self.0.begin(), starting, slot, admission.clone()));
        let rows = self.rows(&shared, key, person, 0);
        let mut there = self.0.get(key);
        loop {
            if let Some(others) = there.as_ref().and_then(|there| self.join(there, key, person)) {
                return others;
            }
            match self.0.put(key, &shared, there.as_ref()) {
                None => return rows,
                Some(other) => there = Some(other),
            }
        }
    }

    fn join(&self, shared: &Arc<Shared>, key: &ResultKey, person: &Person) -> Option<SharedRows> {
        let (id, from) = shared.core().join()?;
        tracing::debug!(principal = person.name, from = from.as_str(), "a result is shared");
        let mut rows = self.rows(shared, key, person, id);
        rows.from = Some(from);
        Some(rows)
    }

    fn rows(&self, shared: &Arc<Shared>, key: &ResultKey, person: &Person, id: u64) -> SharedRows {
        SharedRows {
            shared: Arc::clone(shared),
            key: key.clone(),
            cache: self.0.clone(),
            person: person.clone(),
            id,
            from: None,
            number: 0,
            sent: (0, 0),
            reading: None,
            is_queued: false,
        }
    }
}

impl Shared {
    /// With its first reader, whose number is 0.
    fn new(stored: StoredResult, starting: Starting, slot: Option<Slot>, admission: Admission) -> Self {
        let core = Core {
            making: Making::Starting(starting),
            slot,
            again: None,
            admission,
            waits_since: None,
            made: 0,
            sent: (0, 0),
            stored,
            last: None,
            last_is_kept: true,
            writing: None,
            readers: HashMap::from([(0, 0)]),
            last_reader: 0,
            stalled: None,
            patience: STALLED,
            is_whole: false,
            closed: false,
            failed: None,
        };
        Self { bell: Arc::default(), core: Mutex::new(core) }
    }

    /// The message of a number where it is kept, for somebody who has had it.
    pub(crate) fn kept(&self, number: u64) -> Option<Found> {
        self.core().found(number).map(|(found, _)| found)
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedRows {
    /// The result they are of.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whose work they share; none where it began for them.
    pub(crate) fn shared_from(&self) -> Option<SharedFrom> {
        self.from
    }

    /// How many rows were encoded by now for this reader, and how many bytes they were before.
    pub(crate) fn sent(&self) -> (u64, u64) {
        self.sent
    }

    /// Whether the engine waits for a place, or other readers are waited for, by the last poll.
    pub(crate) fn is_queued(&self) -> bool {
        self.is_queued
    }

    /// Ready once the engine has begun, whether it has a place right now or not.
    ///
    /// # Errors
    /// When it could not.
    pub(crate) fn poll_started(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.drive(context, |core, _, person, context| match core.making {
            // What is kept can be read by now.
            Making::Rows(_) => Poll::Ready(Ok(())),
            Making::Starting(_) | Making::Over => core.poll_started(person, context),
        })
    }

    /// The next message.
    pub(crate) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        self.is_queued = false;
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.poll_unpin(context));
                self.reading = None;
                let read = read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
                    tracing::warn!(%error, "a result that is shared cannot be read from disk, and is found no more");
                    self.shared.core().closed = true;
                    self.cache.remove(&self.key, &self.shared);
                    lost()
                });
                return Poll::Ready(Some(read));
            }
            let (next, made_room) = self.shared.core().next(self.id, self.number);
            if made_room {
                self.shared.bell.ring();
            }
            match next {
                Next::Found(found, sent) => {
                    (self.number, self.sent) = (self.number + 1, sent);
                    match found {
                        Found::Here(message) => return Poll::Ready(Some(Ok(message))),
                        Found::OnDisk(read) => self.reading = Some(tokio::task::spawn_blocking(read)),
                    }
                }
                Next::End => return Poll::Ready(None),
                Next::Failed(status) => return Poll::Ready(Some(Err(status))),
                Next::NotMade => {
                    let number = self.number;
                    let made = self.drive(context, |core, cache, person, context| {
                        core.poll_more(number, (cache, person), context)
                    });
                    if let Err(status) = ready!(made) {
                        return Poll::Ready(Some(Err(status)));
                    }
                }
            }
        }
    }

    /// Nobody reads here for now.
    pub(crate) fn rest(&mut self) {
        self.shared.bell.leave(self.id);
        // Whoever comes to want more is in the bell before they have the lock.
        let mut core = self.shared.core();
        if self.shared.bell.is_silent() {
            core.nobody_waits();
        }
    }

    /// Gives the engine's place away when nobody has wanted more for so long.
    pub(crate) fn yield_place(&self, after: Duration) {
        // Who holds the lock works right now.
        let Ok(mut core) = self.shared.core.try_lock() else { return };
        if core.waits_since.is_some_and(|since| since.elapsed() >= after) {
            core.slot = None;
        }
    }

    /// Drives the work for all who wait for it: whatever it waits for wakes every one of them, since any may be gone by then.
    fn drive(
        &mut self,
        context: &Context<'_>,
        work: impl FnOnce(&mut Core, &ResultCache<Shared>, &Person, &mut Context<'_>) -> Poll<Result<(), Status>>,
    ) -> Poll<Result<(), Status>> {
        let bell = &self.shared.bell;
        bell.wait(self.id, context.waker());
        let waker = Waker::from(Arc::clone(bell));
        let (polled, closed) = {
            let mut core = self.shared.core();
            let polled = work(&mut core, &self.cache, &self.person, &mut Context::from_waker(&waker));
            self.is_queued = polled.is_pending() && (core.again.is_some() || core.stalled.is_some());
            (polled, core.closed)
        };
        if closed {
            self.cache.remove(&self.key, &self.shared);
        }
        if polled.is_ready() {
            bell.leave(self.id);
            bell.ring();
        }
        polled
    }
}

impl Drop for SharedRows {
    fn drop(&mut self) {
        self.shared.bell.leave(self.id);
        let over = self.shared.core().leave(self.id, self.shared.bell.is_silent());
        if over.is_some() {
            self.cache.remove(&self.key, &self.shared);
        }
        // The work ends before its place is given on.
        drop(over);
        self.shared.bell.ring();
    }
}

impl Core {
    /// One reader more, who begins at the first message, and whose work they share; none where it is too late.
    fn join(&mut self) -> Option<(u64, SharedFrom)> {
        if self.closed {
            return None;
        }
        self.last_reader += 1;
        self.readers.insert(self.last_reader, 0);
        Some((self.last_reader, if self.is_whole { SharedFrom::Disk } else { SharedFrom::Run }))
    }

    /// A reader leaves. What is to be dropped where it was the last one.
    fn leave(&mut self, id: u64, nobody_waits: bool) -> Option<(Making, Option<Slot>)> {
        self.readers.remove(&id);
        if self.readers.is_empty() && !self.is_whole {
            self.closed = true;
            self.stored.give_up();
            (self.again, self.last) = (None, None);
            return Some((std::mem::replace(&mut self.making, Making::Over), self.slot.take()));
        }
        if nobody_waits {
            self.nobody_waits();
        }
        None
    }

    /// Nobody wants more for now. A place that came by then would be taken by nobody, and not be given away either.
    fn nobody_waits(&mut self) {
        self.again = None;
        self.waits_since.get_or_insert_with(Instant::now);
    }

    /// What a reader finds who wants a message, and whether others waited for it to be taken.
    fn next(&mut self, id: u64, number: u64) -> (Next, bool) {
        if number >= self.made {
            let next = match &self.failed {
                Some(status) => Next::Failed(status.clone()),
                None if self.is_whole => Next::End,
                None => Next::NotMade,
            };
            return (next, false);
        }
        let found = self.found(number);
        let (Some((found, sent)), Some(wanted)) = (found, self.readers.get_mut(&id)) else {
            return (Next::Failed(lost()), false);
        };
        *wanted = number + 1;
        (Next::Found(found, sent), self.end_wait())
    }

    /// Nobody is waited for any more; whether somebody was.
    fn end_wait(&mut self) -> bool {
        let Some((since, _)) = self.stalled.take() else { return false };
        self.patience = self.patience.saturating_sub(since.elapsed());
        true
    }

    fn found(&self, number: u64) -> Option<(Found, (u64, u64))> {
        match &self.last {
            Some(last) if number + 1 == self.made => Some((Found::Here(last.clone()), self.sent)),
            _ => self.stored.read(number),
        }
    }

    /// Makes one message more, or comes to the end, for a reader who wants the message of a number.
    fn poll_more(
        &mut self,
        number: u64,
        (cache, person): (&ResultCache<Shared>, &Person),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        // Another may have come to it first.
        if number < self.made || self.is_whole || self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_written(context));
        ready!(self.poll_taken(context));
        if let Err(status) = ready!(self.poll_started(person, context)) {
            return Poll::Ready(Err(status));
        }
        let Making::Rows(rows) = &mut self.making else { return Poll::Ready(Err(lost())) };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| rows.poll_next_unpin(context)));
        let made = match polled {
            Ok(polled) => ready!(polled).map(|made| made.map_err(Status::from)),
            Err(_) => Some(Err(panicked("the encoding of a result"))),
        };
        let sent = rows.sent();
        match made {
            Some(Ok(message)) => self.keep(message, sent, cache),
            Some(Err(status)) => self.fail(status),
            None => self.end(),
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once the engine has begun, and has a place. An error is that of the reader who drives.
    fn poll_started(&mut self, person: &Person, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Some(status) = &self.failed {
            return Poll::Ready(Err(status.clone()));
        }
        if self.is_whole {
            return Poll::Ready(Ok(()));
        }
        if let Err(status) = ready!(self.poll_place(person, context)) {
            return Poll::Ready(Err(status));
        }
        self.waits_since = None;
        let Making::Starting(starting) = &mut self.making else { return Poll::Ready(Ok(())) };
        match ready!(starting.poll_unpin(context)) {
            Ok(rows) => {
                self.making = Making::Rows(Box::new(rows));
                Poll::Ready(Ok(()))
            }
            Err(status) => {
                self.fail(status.clone());
                Poll::Ready(Err(status))
            }
        }
    }

    /// Ready once the last message is on disk, or cannot be.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(()) };
        let written = ready!(writing.poll_unpin(context));
        self.writing = None;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, "a result is not shared any more: it cannot be written to disk");
            self.stored.give_up();
            (self.closed, self.last_is_kept) = (true, false);
            // Who wants one before the last cannot have it.
            let made = self.made;
            self.readers.retain(|_, wanted| *wanted + 1 >= made);
        }
        Poll::Ready(())
    }

    /// Ready once nobody needs the last message who can only have it from here. Who takes nothing, or is waited for again and
    /// again, is not waited for any longer.
    fn poll_taken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let made = self.made;
        if !self.last_is_kept && self.readers.values().any(|wanted| *wanted < made) {
            let longest = self.patience.max(STALLED_AGAIN);
            let wait = || (tokio::time::Instant::now(), Box::pin(sleep(longest)));
            let (_, stalled) = self.stalled.get_or_insert_with(wait);
            ready!(stalled.as_mut().poll(context));
            tracing::debug!("readers of a shared result who hold up others have to ask for it again");
            self.readers.retain(|_, wanted| *wanted >= made);
        }
        self.end_wait();
        Poll::Ready(())
    }

    /// Ready at a place to compute at: still there, or given away and got again.
    fn poll_place(&mut self, person: &Person, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.slot.is_some() {
            return Poll::Ready(Ok(()));
        }
        let (admission, person) = (self.admission.clone(), person.clone());
        let again = self.again.get_or_insert_with(|| async move { admission.enter_again(&person).await }.boxed());
        let slot = ready!(again.poll_unpin(context));
        self.again = None;
        self.slot = Some(slot?);
        Poll::Ready(Ok(()))
    }

    fn keep(&mut self, message: WireMessage, sent: (u64, u64), cache: &ResultCache<Shared>) {
        let passed = self.readers.values().copied().min().unwrap_or(self.made);
        let kept = self.stored.put(self.made, &message, sent, passed, || cache.forget_oldest());
        self.last_is_kept = match kept {
            Put::Kept(write) => {
                self.writing = write.map(tokio::task::spawn_blocking);
                true
            }
            Put::NoRoom => false,
        };
        (self.made, self.sent, self.last) = (self.made + 1, sent, Some(message));
        self.waits_since = Some(Instant::now());
        if !self.closed && !self.stored.has_first(self.made) {
            tracing::debug!("a result takes more disk than it may, and is not kept whole");
            self.closed = true;
        }
    }

    fn fail(&mut self, status: Status) {
        (self.making, self.slot, self.failed, self.closed) = (Making::Over, None, Some(status), true);
    }

    fn end(&mut self) {
        (self.making, self.slot, self.is_whole) = (Making::Over, None, true);
        if self.last_is_kept {
            self.last = None;
        }
    }
}

/// Those who wait for a shared run.
#[derive(Default)]
struct Bell(Mutex<HashMap<u64, Waker>>);

impl Bell {
    fn wait(&self, id: u64, waker: &Waker) {
        self.waiting().insert(id, waker.clone());
    }

    fn leave(&self, id: u64) {
        self.waiting().remove(&id);
    }

    fn is_silent(&self) -> bool {
        self.waiting().is_empty()
    }

    fn ring(&self) {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_values().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// The client tries again, and then runs the statement anew.
fn lost() -> Status {
    not_now("what was kept of the result is lost; try again")
}

#[cfg(test)]
mod tests;
