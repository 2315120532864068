//! How long a statement may compute. Only the time somebody waits for its rows counts: over a thin
//! line a result may well take longer to download than any query may run.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::refuse;

/// What the engine is told instead: long enough never to cut a download.
pub(crate) const LONGEST_DOWNLOAD: Duration = Duration::from_secs(7 * 24 * 3600);

/// The time that is left to wait for a statement.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    left: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Patience {
    /// Waits for `limit` in all.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, left: limit, waiting: None }
    }

    /// How much of it was needed up to the last answer.
    pub(crate) fn spent(&self) -> Duration {
        self.limit.saturating_sub(self.left)
    }

    /// Looks at what a poll gave: while it is pending, time passes.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when no time is left.
    pub(crate) fn observe<T>(&mut self, polled: &Poll<T>, context: &mut Context<'_>) -> Result<(), Status> {
        if polled.is_ready() {
            self.pause();
            return Ok(());
        }
        let left = self.left;
        let (_, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        if timer.as_mut().poll(context).is_ready() { Err(self.exhausted()) } else { Ok(()) }
    }

    /// From now on nobody waits, until something is looked at again.
    pub(crate) fn pause(&mut self) {
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }

    /// Waits for something before the first row, within the time that is left.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when no time is left.
    pub(crate) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Status> {
        let since = Instant::now();
        let done = tokio::time::timeout(self.left, work).await.map_err(|_| self.exhausted())?;
        self.left = self.left.saturating_sub(since.elapsed());
        Ok(done)
    }

    fn exhausted(&self) -> Status {
        let limit = humantime::format_duration(self.limit);
        refuse(
            ErrorKind::DeadlineExceeded,
            format!(
                "the statement computed for {limit} (`limits.query_timeout`, or the session's `statement_timeout`); read \
                 less at a time, or raise the limit"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn wait_for(patience: &mut Patience, time: Duration) -> Result<(), Status> {
        let mut work = Box::pin(sleep(time));
        poll_fn(|context| {
            let polled = work.as_mut().poll(context);
            match patience.observe(&polled, context) {
                Ok(()) => polled.map(Ok),
                Err(status) => Poll::Ready(Err(status)),
            }
        })
        .await
    }

    #[tokio::test]
    async fn only_waiting_counts() {
        let limit = Duration::from_secs(2);
        let mut patience = Patience::new(limit);
        assert!(wait_for(&mut patience, Duration::from_millis(10)).await.is_ok());
        sleep(limit).await;
        assert!(wait_for(&mut patience, Duration::from_millis(10)).await.is_ok());
        let late = wait_for(&mut patience, Duration::from_secs(600)).await.unwrap_err();
        assert!(late.code() == tonic::Code::DeadlineExceeded && late.message().contains("2s"), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_waits_no_time_passes() {
        let mut patience = Patience::new(Duration::from_secs(2));
        let mut look = async || {
            let looked = poll_fn(|context| Poll::Ready(patience.observe(&Poll::<()>::Pending, context))).await;
            patience.pause();
            looked
        };
        assert!(look().await.is_ok());
        sleep(Duration::from_secs(600)).await;
        assert!(look().await.is_ok());
    }

    #[tokio::test]
    async fn the_time_before_the_first_row_counts_too() {
        let mut patience = Patience::new(Duration::from_millis(20));
        assert!(patience.wait(sleep(Duration::from_secs(600))).await.is_err());
        let mut patience = Patience::new(Duration::from_secs(2));
        patience.wait(sleep(Duration::from_millis(10))).await.unwrap();
        assert!(patience.left < Duration::from_secs(2));
    }
}
