//! Results of which a client that was cut off gets the rest: it comes back with the same ticket and says what it has.
//!
//! A client asks for this with the header `lakegate-resume: 0`; each message then says which it is ([`Position`]). When its
//! connection is cut, the run rests for a while, and its last messages stay in the [`Spool`](crate::delivery::Spool). Whoever comes
//! back with the position they are at takes the run over: what was on its way is read from the spool, the rest is made. Where
//! nothing is kept any more, the statement is run again, and what the client has is left out once its hash was found to be the
//! same. Who cannot go on without schema and dictionaries is sent those anew. `downloads.rs` holds what rests.

mod downloads;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures::FutureExt;
use tokio::task::JoinHandle;
use tonic::Status;
use uuid::Uuid;

use crate::access::Access;
use crate::delivery::{Found, Opening, Position, Tail, WireMessage};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::gate::Pass;
use crate::flight::patience::Patience;
use crate::flight::rows::{Outgoing, RunRows};
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::sharing::Shared;
use crate::flight::status::{not_now, refuse};

pub(crate) use downloads::Downloads;

/// Header with the position from which on a client wants a result.
pub(crate) const RESUME: &str = "lakegate-resume";
/// What stands behind a position where the stream has to begin as if it were the first, for clients that cannot do otherwise.
const OPENING: &str = ";opening";
/// Messages that are left out before others get to do something.
const LEFT_OUT_AT_ONCE: usize = 4;

/// That a download cannot be gone on with.
pub(crate) fn start_over(reason: &str) -> Status {
    refuse(ErrorKind::Conflict, format!("the download cannot be gone on with, and has to start over: {reason}"))
}

/// From where on a client wants a result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// What it has.
    pub(crate) from: Position,
    /// Whether it is sent schema and dictionaries again, without labels: they are no messages of the result.
    opens: bool,
}

impl Wanted {
    /// Reads it from the header's value; none where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (position, opens) = text.strip_suffix(OPENING).map_or((text, false), |position| (position, true));
        let from = Position::parse(position)?;
        Some(Self { from, opens: opens && from.next > 0 })
    }
}

/// A result on its way to one of the connections it is read over, one after the other.
pub(crate) struct Download {
    kept: Arc<Kept>,
    downloads: Downloads,
    /// Which of the readers this is.
    reader: u64,
    way: Way,
    ended: bool,
}

/// What goes to one connection.
struct Way {
    /// Number of the message that comes next.
    number: u64,
    /// From which message on schema and dictionaries are needed, which go first; none where they went, or need not.
    opens: Option<u64>,
    /// Messages that go before that one.
    ahead: VecDeque<WireMessage>,
    next: Outgoing,
}

/// A result that outlives its connection.
pub(crate) struct Kept {
    ticket: Uuid,
    /// What may be seen by whoever it was made for.
    access: Access,
    core: Mutex<Core>,
}

struct Core {
    /// Which reader has it; others have lost it.
    reader: u64,
    /// Wakes that reader, who is told when it has lost it.
    waker: Option<Waker>,
    /// None once it is over.
    rows: Option<RunRows>,
    /// Whether all messages were made.
    is_whole: bool,
    /// After the last message that was made.
    made: Position,
    /// What the client has of an earlier run: made again, compared, and not sent.
    left_out: Option<Position>,
    tail: Tail,
    /// Where what is shared is kept, and what comes before each of its messages: then the tail keeps nothing.
    shared: Option<(Arc<Shared>, Vec<Position>)>,
    opening: Opening,
    /// What a stream begins with, while it is read.
    opens: Option<JoinHandle<io::Result<Vec<WireMessage>>>>,
    writing: Option<JoinHandle<io::Result<()>>>,
    reading: Option<JoinHandle<io::Result<WireMessage>>>,
}

impl Download {
    /// Whether its frames may be compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.way.next.is_compressed()
    }

    /// What of the next message goes in one turn, once it may be sent.
    pub(crate) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<VecDeque<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut core = self.kept.core();
        if core.reader != self.reader {
            self.ended = true;
            let elsewhere = "the download goes on over another connection";
            return Poll::Ready(Some(Err(refuse(ErrorKind::Cancelled, elsewhere))));
        }
        core.waker = Some(context.waker().clone());
        let polled = ready!(core.poll_sent(&mut self.way, context));
        if !matches!(polled, Some(Ok(_))) {
            self.ended = true;
            let rows = core.end(polled.as_ref().and_then(|sent| sent.as_ref().err()));
            drop(core);
            drop(rows);
        }
        Poll::Ready(polled)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let Some((goes_on, over)) = self.kept.core().leave(self.reader) else { return };
        drop(over);
        if goes_on { self.downloads.rests(&self.kept, self.reader) } else { self.downloads.forget(&self.kept) }
    }
}

impl Kept {
    /// Whether what comes after a position is there.
    ///
    /// # Errors
    /// When somebody may not see it any more, or who is there had other rows before.
    fn holds(&self, access: &Access, wanted: Wanted) -> Result<bool, Status> {
        if !access.covers(&self.access) {
            let told = "what you may see was changed since the download began; run the query again";
            return Err(refuse(ErrorKind::PermissionDenied, told));
        }
        let from = wanted.from;
        let core = self.core();
        if core.rows.is_none() && !core.is_whole {
            return Ok(false);
        }
        if let Some(left_out) = core.left_out {
            // What is made now is left out for somebody else, who has more or less of it.
            return Ok(left_out == from);
        }
        let here = if from.next == core.made.next { Some(core.made) } else { core.before(from.next) };
        match here {
            None => Ok(false),
            Some(here) if here == from => Ok(!wanted.opens || core.opening.before(from.next).is_some()),
            Some(_) => Err(start_over("what you have is not what was sent")),
        }
    }

    /// Lets a caller who may see it go on with it from a position that it holds.
    fn go_on(
        self: &Arc<Self>,
        (service, caller): (&Service, &Caller),
        (sql, wanted, pass): (&str, Wanted, Pass),
    ) -> Result<Download, Status> {
        let mut core = self.core();
        let rows = match core.rows.take() {
            Some(mut rows) => {
                // What its first reader was let in with may end, and what this one was let in with may.
                rows.run.goes_to(caller.standing.clone());
                rows
            }
            None if !core.is_whole => return Err(lost()),
            // All is made and only read again: there is nothing to compute.
            None => {
                let run = Run::begin(service, caller, sql, self.ticket, pass);
                run.told.takes_turn();
                RunRows::new(service, run, Patience::new(service.query_timeout))
            }
        };
        let mut lane = caller.lane(&service.lines);
        lane.tell(&service.journal, rows.run.handle.id, caller.name());
        core.rows = Some(rows);
        (core.reading, core.opens) = (None, None);
        let reader = core.next_reader();
        drop(core);
        let (kept, downloads, way) =
            (Arc::clone(self), service.downloads.clone(), Way::new(wanted, caller.outgoing(lane, &service.encoders)));
        Ok(Download { kept, downloads, reader, way, ended: false })
    }

    /// Gives back all it holds. Whoever reads it still has lost it.
    fn let_go(&self) {
        let rows = {
            let mut core = self.core();
            core.next_reader();
            core.is_whole = false;
            core.give_up();
            core.rows.take()
        };
        if let Some(mut rows) = rows
            && rows.run.handle.is_stopped()
        {
            let why = rows.run.stopped();
            rows.run.end(Err(&why));
        }
    }

    /// Ends one that rests where its person may not see it any more; whoever comes back for it is told so.
    fn end_without_standing(&self) {
        let over = {
            let Ok(mut core) = self.core.try_lock() else { return };
            let Some(Err(status)) = core.rows.as_mut().map(|rows| rows.run.check_standing()) else { return };
            core.end(Some(&status))
        };
        drop(over);
    }

    /// Keeps nothing of it any more.
    fn give_disk_back(&self) {
        self.core().give_up();
    }

    /// Whether it was stopped. What is being read right now is not.
    fn is_stopped(&self) -> bool {
        let Ok(core) = self.core.try_lock() else { return false };
        core.rows.as_ref().is_some_and(|rows| rows.run.handle.is_stopped())
    }

    /// Whether all messages were made.
    fn is_whole(&self) -> bool {
        self.core().is_whole
    }

    /// Whether a reader has it.
    fn is_read_by(&self, reader: u64) -> bool {
        self.core().reader == reader
    }

    /// Whether nobody has come for it since a reader left.
    fn is_left_by(&self, reader: u64) -> bool {
        self.core().reader == reader + 1
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn new(wanted: Wanted, next: Outgoing) -> Self {
        let number = wanted.from.next;
        Self { number, opens: wanted.opens.then_some(number), ahead: VecDeque::new(), next }
    }
}

impl Core {
    /// Takes it from its reader; the number of whoever has it next.
    fn next_reader(&mut self) -> u64 {
        self.reader += 1;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        self.reader
    }

    /// What of the next message of a way goes in one turn, once it may be sent.
    fn poll_sent(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Option<Result<VecDeque<Bytes>, Status>>> {
        let Some(rows) = &mut self.rows else { return Poll::Ready(Some(Err(lost()))) };
        if !way.next.has_begun()
            && let Err(status) = rows.check(context)
        {
            return Poll::Ready(Some(Err(status)));
        }
        if way.next.is_empty() {
            if way.ahead.is_empty()
                && let Err(status) = ready!(self.poll_ahead(way, context))
            {
                return Poll::Ready(Some(Err(status)));
            }
            if let Err(status) = ready!(self.poll_opening(way, context)) {
                return Poll::Ready(Some(Err(status)));
            }
            let (Some(message), Some(rows)) = (way.ahead.pop_front(), &self.rows) else { return Poll::Ready(None) };
            if let Err(status) = rows.put(message, &mut way.next) {
                return Poll::Ready(Some(Err(status)));
            }
        }
        let Some(rows) = &self.rows else { return Poll::Ready(None) };
        rows.poll_sent(&mut way.next, context).map(Some)
    }

    /// Lets the next message of the result go ahead; nothing where there is none.
    fn poll_ahead(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let message = ready!(self.poll_message(way.number, context)).transpose();
        let message = match message {
            Ok(message) => message,
            Err(status) => return Poll::Ready(Err(status)),
        };
        if let Some(message) = message {
            way.ahead.push_back(message);
            way.number += 1;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets schema and dictionaries go before all else where a way begins with them.
    fn poll_opening(&mut self, way: &mut Way, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let Some(number) = way.opens else { return Poll::Ready(Ok(())) };
        // What is needed may be on its way to the disk.
        ready!(self.poll_written(context));
        let opens = match &mut self.opens {
            Some(opens) => opens,
            none => {
                let Some(read) = self.opening.before(number) else { return Poll::Ready(Err(lost())) };
                none.insert(tokio::task::spawn_blocking(read))
            }
        };
        let read = ready!(opens.poll_unpin(context));
        (self.opens, way.opens) = (None, None);
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        Poll::Ready(read.map_err(|error| unreadable(&error)).map(|messages| {
            for message in messages.into_iter().rev() {
                way.ahead.push_front(message);
            }
        }))
    }

    /// Comes once what is to be kept is on the disk. Where that fails, nothing is kept from then on.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(()) };
        let written = ready!(writing.poll_unpin(context));
        self.writing = None;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(%error, "a result cannot be kept for a client that is cut off: the spool cannot be written");
            self.give_up();
        }
        Poll::Ready(())
    }

    /// Gives the disk back, and keeps nothing from now on.
    fn give_up(&mut self) {
        self.tail.give_up();
        self.opening.give_up();
        self.shared = None;
    }

    /// The message of a number, from the spool or made.
    fn poll_message(&mut self, number: u64, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        ready!(self.poll_written(context));
        if number < self.made.next {
            self.poll_kept(number, context)
        } else if self.is_whole {
            Poll::Ready(None)
        } else {
            self.poll_made(context)
        }
    }

    fn poll_kept(&mut self, number: u64, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let reading = match &self.shared {
                    Some((shared, _)) => match shared.kept(number) {
                        Some(Found::Here(message)) => Some(tokio::task::spawn_blocking(move || Ok(message))),
                        Some(Found::OnDisk(read)) => Some(tokio::task::spawn_blocking(read)),
                        None => None,
                    },
                    None => self.tail.read(number).map(tokio::task::spawn_blocking),
                };
                let Some(reading) = reading else { return Poll::Ready(Some(Err(lost()))) };
                none.insert(reading)
            }
        };
        let read = ready!(reading.poll_unpin(context));
        self.reading = None;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        let read = read.map(|message| match &self.shared {
            None => message,
            Some((_, before)) => {
                let next = usize::try_from(number + 1).ok().and_then(|next| before.get(next));
                WireMessage { app_metadata: next.unwrap_or(&self.made).label().into(), ..message }
            }
        });
        Poll::Ready(Some(read.map_err(|error| unreadable(&error))))
    }

    fn poll_made(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        for _ in 0..LEFT_OUT_AT_ONCE {
            let Some(rows) = &mut self.rows else { return Poll::Ready(None) };
            let mut message = match ready!(rows.poll_message(context)) {
                Some(Ok(message)) => message,
                None if self.left_out.is_some() => return Poll::Ready(Some(Err(other_rows()))),
                None => {
                    self.is_whole = true;
                    return Poll::Ready(None);
                }
                other => return Poll::Ready(other),
            };
            let before = self.made;
            self.made = before.after(&message);
            let moved = self.opening.note(before.next, &message);
            if let Some((_, all)) = &mut self.shared {
                all.push(before);
            }
            match self.left_out {
                None => {
                    message.app_metadata = self.made.label().into();
                    self.writing = write_out(moved, self.tail.put(before, &message));
                    return Poll::Ready(Some(Ok(message)));
                }
                Some(position) if position == self.made => self.left_out = None,
                Some(position) if position.next == self.made.next => return Poll::Ready(Some(Err(other_rows()))),
                Some(_) => {}
            }
            if moved.is_some() {
                self.writing = write_out(moved, None::<fn() -> io::Result<()>>);
                break;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// What comes before the message of a number; none where that is not kept.
    fn before(&self, number: u64) -> Option<Position> {
        let Some((shared, all)) = &self.shared else { return self.tail.before(number) };
        let before = all.get(usize::try_from(number).ok()?)?;
        shared.kept(number).map(|_| *before)
    }

    /// A reader leaves: whether somebody can come back, and what is to be dropped. None where another has taken over.
    fn leave(&mut self, reader: u64) -> Option<(bool, Option<RunRows>)> {
        if self.reader != reader {
            return None;
        }
        self.reader += 1;
        let over = match &mut self.rows {
            Some(rows) if !self.is_whole => {
                rows.rest();
                None
            }
            rows => rows.take(),
        };
        Some((self.rows.is_some() || self.is_whole, over))
    }

    /// Its reader had the last message, or the error that ends it. What is to be dropped comes back.
    fn end(&mut self, failed: Option<&Status>) -> Option<RunRows> {
        let mut rows = self.rows.take();
        if failed.is_some() {
            self.is_whole = false;
            self.give_up();
        }
        if let Some(rows) = &mut rows {
            rows.run.end(failed.map_or(Ok(()), Err));
        }
        rows
    }
}

/// Writes what makes room in memory, and what was sent, one after the other.
fn write_out(
    moved: Option<impl FnOnce() -> io::Result<()> + Send + 'static>,
    sent: Option<impl FnOnce() -> io::Result<()> + Send + 'static>,
) -> Option<JoinHandle<io::Result<()>>> {
    if moved.is_none() && sent.is_none() {
        return None;
    }
    Some(tokio::task::spawn_blocking(move || {
        moved.map_or(Ok(()), |write| write())?;
        sent.map_or(Ok(()), |write| write())
    }))
}

fn unreadable(error: &io::Error) -> Status {
    tracing::warn!(%error, "a result that was kept for a client that was cut off cannot be read");
    lost()
}

/// The client tries again, and then nothing is kept any more.
fn lost() -> Status {
    not_now("what was kept of the result is lost; try again")
}

fn other_rows() -> Status {
    start_over("the statement gave its rows in another order or other values when it was run again")
}
