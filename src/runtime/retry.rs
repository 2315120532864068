//! Trying again, where an error's kind allows it.

use std::time::Duration;

use rand::Rng;

use crate::error::Classify;

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Tries in all.
    pub attempts: u32,
    /// Longest pause before the second try; doubles from try to try.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// Five tries within about 15 seconds: enough for a failover of a store, short enough for a person to wait.
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(8) }
    }
}

impl RetryPolicy {
    /// The pause before try number `attempt` (the first is 1): a random share of the doubled pause, so
    /// that many who failed together do not come back together.
    pub fn pause(&self, attempt: u32, random: &mut impl Rng) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled.min(self.longest_pause).mul_f64(random.random_range(0.5..1.0))
    }
}

/// Runs `work` until it succeeds, fails for good, or the policy's tries are used up.
///
/// # Errors
/// The last try's error.
pub async fn retry<T, E, F>(policy: RetryPolicy, mut work: F) -> Result<T, E>
where
    E: Classify,
    F: AsyncFnMut() -> Result<T, E>,
{
    let mut attempt = 1;
    loop {
        match work().await {
            Err(error) if error.kind().is_retryable() && attempt < policy.attempts => {
                let pause = policy.pause(attempt, &mut rand::rng());
                tracing::debug!(error = %crate::error::chain_text(&error), ?pause, "trying again");
                tokio::time::sleep(pause).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}
