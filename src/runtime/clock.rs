//! Time, passed in so that tests can set it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day, which may jump.
    fn now(&self) -> DateTime<Utc>;

    /// A time that only goes forward, for measuring how long something lasts.
    fn monotonic(&self) -> Instant;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Clone, Debug)]
pub struct ManualClock {
    start: (DateTime<Utc>, Instant),
    passed: Arc<Mutex<Duration>>,
    jumped: Arc<Mutex<TimeDelta>>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self { start: (start, Instant::now()), passed: Arc::default(), jumped: Arc::default() }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Sets the time of day forward or back, as somebody does whose clock was wrong.
    pub fn jump(&self, by: TimeDelta) {
        *self.jumped.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn passed(&self) -> Duration {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        let jumped = *self.jumped.lock().unwrap_or_else(PoisonError::into_inner);
        self.start.0 + self.passed() + jumped
    }

    fn monotonic(&self) -> Instant {
        self.start.1 + self.passed()
    }
}
