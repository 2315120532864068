//! Threads that pack, shared by all results of a server.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use arrow_ipc::writer::IpcWriteContext;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::delivery::DeliveryError;
use crate::delivery::encode::pack::Packed;

/// The part of the memory that portions packed ahead may take, of all results together; one of so many. It lies in what
/// `query::memory` leaves out of the pool.
const AHEAD_PART: usize = 16;
/// Largest such part: a few megabytes for each of a hundred results.
const LARGEST_AHEAD: usize = 256 << 20;
/// What memory is counted in.
const KIB: usize = 1 << 10;

/// Packs for all results: on as many threads as may compute, each with a compressor of its own, and no further ahead than
/// there is memory for. Clones are the same threads.
#[derive(Clone)]
pub struct Encoders(Arc<Shared>);

struct Shared {
    turns: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    /// Compressors at rest, at most one for each turn.
    contexts: Mutex<Vec<IpcWriteContext>>,
    threads: usize,
}

/// Work that is done for somebody. Dropping it drops the work where it has not begun.
#[derive(Debug)]
pub struct Work<T>(AbortOnDropHandle<Result<T, DeliveryError>>);

/// A portion that is being packed.
pub(super) struct Packing {
    work: Work<Packed>,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Encoders {
    /// Those of a server whose statements compute with `threads` threads in `memory` bytes.
    pub fn new(threads: usize, memory: usize) -> Self {
        let ahead = (memory / AHEAD_PART).min(LARGEST_AHEAD) / KIB;
        Self(Arc::new(Shared {
            turns: Arc::new(Semaphore::new(threads.max(1))),
            ahead: Arc::new(Semaphore::new(ahead)),
            contexts: Mutex::default(),
            threads: threads.max(1),
        }))
    }

    /// Room for `bytes` to be packed ahead; none where results hold all there is.
    pub(super) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).ok()?;
        Arc::clone(&self.0.ahead).try_acquire_many_owned(kib).ok()
    }

    /// Does some work with a compressor, here and now.
    pub(super) fn here<T>(
        &self,
        work: impl FnOnce(&mut IpcWriteContext) -> Result<T, DeliveryError>,
    ) -> Result<T, DeliveryError> {
        let at_rest = self.contexts().pop();
        let mut context = at_rest.unwrap_or_default();
        // After an error, or a panic, it holds half a message, and is dropped.
        let done = work(&mut context)?;
        let mut contexts = self.contexts();
        if contexts.len() < self.0.threads {
            contexts.push(context);
        }
        Ok(done)
    }

    /// Packs a portion when its turn comes.
    pub(super) fn elsewhere(
        &self,
        ahead: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&mut IpcWriteContext) -> Result<Packed, DeliveryError> + Send + 'static,
    ) -> Packing {
        Packing { work: self.work(work), _ahead: ahead }
    }

    /// Does some work when its turn comes, whether anybody asks for the result meanwhile or not: a turn that waited for its
    /// client would be lost to the others.
    pub fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut IpcWriteContext) -> Result<T, DeliveryError> + Send + 'static,
    ) -> Work<T> {
        let encoders = self.clone();
        Work(AbortOnDropHandle::new(tokio::spawn(async move {
            let turn = Arc::clone(&encoders.0.turns).acquire_owned().await;
            let working = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                encoders.here(work)
            });
            AbortOnDropHandle::new(working).await.unwrap_or(Err(DeliveryError::Unfinished))
        })))
    }

    fn contexts(&self) -> std::sync::MutexGuard<'_, Vec<IpcWriteContext>> {
        self.0.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Encoders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoders").field("threads", &self.0.threads).finish_non_exhaustive()
    }
}

impl<T> Future for Work<T> {
    type Output = Result<T, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Whatever panicked has written to the log where it was.
        Poll::Ready(ready!(self.0.poll_unpin(context)).unwrap_or(Err(DeliveryError::Unfinished)))
    }
}

impl Future for Packing {
    type Output = Result<Packed, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.work.poll_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Classify, ErrorKind};

    fn packed(rows: u64) -> Packed {
        Packed { messages: Vec::new(), rows, bytes: 0 }
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_takes_nobodys_turn() {
        let encoders = Encoders::new(1, 1 << 30);
        let panicking = encoders.elsewhere(None, |_| panic!("in a test"));
        assert_eq!(panicking.await.unwrap_err().kind(), ErrorKind::Internal);
        assert_eq!(encoders.elsewhere(None, |_| Ok(packed(7))).await.unwrap().rows, 7);
    }

    #[tokio::test]
    async fn work_waits_for_its_turn_and_dropped_work_is_not_done() {
        let encoders = Encoders::new(1, 1 << 30);
        let turn = Arc::clone(&encoders.0.turns).acquire_owned().await.unwrap();
        let dropped = encoders.elsewhere(None, |_| panic!("was dropped"));
        let kept = encoders.elsewhere(None, |_| Ok(packed(1)));
        drop(dropped);
        tokio::task::yield_now().await;
        assert!(!kept.work.0.is_finished());
        drop(turn);
        assert_eq!(kept.await.unwrap().rows, 1);
    }

    #[test]
    fn what_is_packed_ahead_has_a_bound() {
        let encoders = Encoders::new(2, 16 << 20);
        let one = encoders.room(1 << 20);
        assert!(one.is_some() && encoders.room(1).is_none());
        drop(one);
        assert!(encoders.room(512 << 10).is_some());
    }

    #[test]
    fn compressors_are_kept_but_after_errors() {
        let encoders = Encoders::new(1, 0);
        let failed = encoders.here(|_| Err::<(), _>(DeliveryError::Unfinished));
        assert!(failed.is_err() && encoders.contexts().is_empty());
        encoders.here(|_| Ok(())).unwrap();
        encoders.here(|_| Ok(())).unwrap();
        assert_eq!(encoders.contexts().len(), 1);
    }
}
