//! The rows of a run as messages: made while its person may see them, at a place, within the time it has.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use crate::delivery::{EncodedResult, Encoders, Lane, WireMessage, Work};
use crate::flight::admission::{Admission, Slot};
use crate::flight::allowance::Allowance;
use crate::flight::frame;
use crate::flight::patience::Patience;
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::sharing::{Shared, SharedRows};
use crate::flight::status::panicked;

/// A result's way to its client, and the message that waits for its turns there.
pub(crate) struct Outgoing {
    lane: Lane,
    /// Who compresses frames; none where they go as they are.
    gzip: Option<Encoders>,
    /// The message's frame while it is compressed.
    packing: Option<Work<VecDeque<Bytes>>>,
    /// What of the frame has not had its turn.
    frame: VecDeque<Bytes>,
    /// Whether some of it has.
    has_begun: bool,
}

impl Outgoing {
    /// The way over a lane, with nothing on it. With encoders the frames are compressed by them.
    pub(crate) fn new(lane: Lane, gzip: Option<Encoders>) -> Self {
        Self { lane, gzip, packing: None, frame: VecDeque::new(), has_begun: false }
    }

    /// Whether frames may be compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.gzip.is_some()
    }

    /// Whether no message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.packing.is_none() && self.frame.is_empty()
    }

    /// Whether a part of a message was sent and the rest waits: it has to go before anything else is told, for clients take
    /// half a message for a broken connection.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun && !self.frame.is_empty()
    }

    /// Lets a message wait.
    pub(crate) fn put(&mut self, message: WireMessage) {
        self.has_begun = false;
        match &self.gzip {
            None => self.frame = frame::plain(message),
            Some(encoders) => self.packing = Some(encoders.work(move |_| Ok(frame::compressed(message)))),
        }
    }

    /// As much of the message's frame as goes in one turn, once it may be sent; where there is none nothing ever comes.
    pub(crate) fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<VecDeque<Bytes>, Status>> {
        if let Some(packing) = &mut self.packing {
            let packed = ready!(packing.poll_unpin(context));
            self.packing = None;
            match packed {
                Ok(frame) => self.frame = frame,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let waiting = frame::len(&self.frame);
        if waiting == 0 {
            return Poll::Pending;
        }
        let bytes = ready!(self.lane.poll_turn(waiting, self.has_begun, context));
        self.has_begun = true;
        Poll::Ready(Ok(frame::take(&mut self.frame, bytes)))
    }
}

/// Bytes of a message, before its frame is compressed.
fn message_len(message: &WireMessage) -> u64 {
    (message.header.len() + message.app_metadata.len() + message.body_len()) as u64
}

/// Where the messages of a run come from.
pub(crate) enum Source {
    /// They are made for it alone.
    Own(Box<EncodedResult>),
    /// Others may have them, too.
    Shared(Box<SharedRows>),
}

impl Source {
    /// How many rows were encoded by now, and how many bytes they were before.
    fn sent(&self) -> (u64, u64) {
        match self {
            Self::Own(rows) => rows.sent(),
            Self::Shared(rows) => rows.sent(),
        }
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        match self {
            Self::Own(rows) => rows.poll_next_unpin(context).map_err(Status::from),
            Self::Shared(rows) => rows.poll_message(context),
        }
    }
}

/// The rows of a run.
pub(crate) struct RunRows {
    /// The run.
    pub(crate) run: Run,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Patience,
    admission: Admission,
    /// Waits for a place, after it was given away while the client took nothing.
    again: Option<(Instant, BoxFuture<'static, Result<Slot, Status>>)>,
    allowance: Option<Arc<Allowance>>,
}

impl RunRows {
    /// The rows a run holds, as long as its patience lasts.
    pub(crate) fn new(service: &Service, run: Run, patience: Patience) -> Self {
        let person = &run.handle.person;
        Self {
            stopped: Box::pin(run.pass().stopped()),
            allowance: service.allowances.of(&person.name, person.is_admin),
            admission: service.admission.clone(),
            again: None,
            patience,
            run,
        }
    }

    /// The result that others may have, too, where it is one.
    pub(crate) fn shared(&self) -> Option<Arc<Shared>> {
        match &self.run.handle.held().rows {
            Some(Source::Shared(rows)) => Some(Arc::clone(rows.shared())),
            _ => None,
        }
    }

    /// Looks whether the run may go on. To be asked before each message, so that none goes out that was made by rights taken
    /// away since.
    ///
    /// # Errors
    /// When it was stopped, or something was taken from its person.
    pub(crate) fn check(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if self.stopped.poll_unpin(context).is_ready() {
            return Err(self.run.stopped());
        }
        self.run.check_standing()
    }

    /// The next message, made at a place.
    pub(crate) fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        if let Err(status) = ready!(self.poll_place(context)) {
            return Poll::Ready(Some(Err(status)));
        }
        let polled = self.poll_rows(context);
        // What waits for a place does not compute.
        if polled.is_pending() && matches!(&self.run.handle.held().rows, Some(Source::Shared(rows)) if rows.is_queued())
        {
            self.patience.pause();
            return Poll::Pending;
        }
        if let Err(late) = self.patience.observe(&polled, context) {
            return Poll::Ready(Some(Err(late)));
        }
        self.run.told.ran(self.patience.spent());
        match &polled {
            Poll::Ready(Some(Ok(message))) => self.run.learn(&message.header),
            Poll::Ready(None) => self.run.keep_what_was_learnt(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    /// Lets a message wait for the line.
    ///
    /// # Errors
    /// When its person may be sent no more.
    pub(crate) fn put(&self, message: WireMessage, next: &mut Outgoing) -> Result<(), Status> {
        if let Some(allowance) = &self.allowance {
            allowance.take(message_len(&message))?;
        }
        next.put(message);
        Ok(())
    }

    /// What of the message that waits for the line goes in one turn, once it may be sent. Only from then on its client is waited
    /// for.
    pub(crate) fn poll_sent(
        &self,
        next: &mut Outgoing,
        context: &mut Context<'_>,
    ) -> Poll<Result<VecDeque<Bytes>, Status>> {
        let polled = next.poll_sent(context);
        let mut held = self.run.handle.held();
        held.waits_for_line = polled.is_pending();
        let Poll::Ready(sent) = polled else { return Poll::Pending };
        held.waits_since = Some(Instant::now());
        let made = held.rows.as_ref().map(Source::sent);
        drop(held);
        self.run.sends(made, sent.as_ref().map_or(0, frame::len) as u64);
        Poll::Ready(sent)
    }

    /// Nobody reads for now: gives the place away, and lets no time pass.
    pub(crate) fn rest(&mut self) {
        self.patience.pause();
        self.again = None;
        let slot = {
            let mut held = self.run.handle.held();
            (held.waits_since, held.waits_for_line) = (None, false);
            if let Some(Source::Shared(rows)) = &mut held.rows {
                rows.rest();
            }
            held.slot.take()
        };
        drop(slot);
    }

    /// A place to compute at: still there, or given away and got again. What is shared has one of its own.
    fn poll_place(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.again.is_none() {
            let mut held = self.run.handle.held();
            held.waits_since = None;
            if held.slot.is_some() || matches!(held.rows, Some(Source::Shared(_))) {
                return Poll::Ready(Ok(()));
            }
        }
        let (admission, person) = (&self.admission, &self.run.handle.person);
        let (since, again) = self.again.get_or_insert_with(|| {
            let (admission, person) = (admission.clone(), person.clone());
            (Instant::now(), async move { admission.enter_again(&person).await }.boxed())
        });
        let Poll::Ready(slot) = again.poll_unpin(context) else { return Poll::Pending };
        self.run.told.waited_again(since.elapsed());
        self.again = None;
        self.run.handle.held().slot = Some(slot?);
        Poll::Ready(Ok(()))
    }

    /// The next message. A panic while it is made is this run's end, not its connection's.
    fn poll_rows(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<WireMessage, Status>>> {
        let mut held = self.run.handle.held();
        let Some(rows) = &mut held.rows else { return Poll::Ready(Some(Err(self.run.stopped()))) };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| rows.poll_message(context)));
        let polled = match polled {
            Ok(polled) => polled,
            Err(_) => Poll::Ready(Some(Err(panicked("the encoding of a result")))),
        };
        if polled.is_ready() {
            held.waits_since = Some(Instant::now());
        }
        polled
    }
}
