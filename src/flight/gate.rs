//! Letting statements in while the server runs, out while it stops.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::{not_now, refuse};

/// The door of the service. Clones are one door.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    inside: TaskTracker,
    cut: CancellationToken,
}

/// The right to run; the server waits for it to be dropped before it stops.
#[derive(Debug)]
pub(crate) struct Pass {
    _inside: TaskTrackerToken,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Gate {
    /// Lets something new in.
    ///
    /// # Errors
    /// `UNAVAILABLE` once the server is stopping.
    pub(crate) fn enter(&self) -> Result<Pass, Status> {
        if self.inside.is_closed() {
            return Err(stopping());
        }
        Ok(Pass { _inside: self.inside.token(), stop: self.cut.child_token(), cut: self.cut.clone() })
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.inside.close();
    }

    /// Waits until it is closed and all have left.
    pub(crate) async fn emptied(&self) {
        self.inside.wait().await;
    }

    /// Asks all who are still in to leave now.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

impl Pass {
    /// Stops this one when cancelled.
    pub(crate) fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Comes when this one has to stop.
    pub(crate) fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    /// Why it had to stop.
    pub(crate) fn reason(&self) -> Status {
        if self.cut.is_cancelled() {
            stopping()
        } else {
            refuse(ErrorKind::Cancelled, "the statement was cancelled on request")
        }
    }
}

fn stopping() -> Status {
    not_now("the server is stopping; try again when it is back")
}
