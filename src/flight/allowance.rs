//! How much of results each person was sent lately, and whether they may be sent more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;

use crate::config::ServingLimits;
use crate::error::ErrorKind;
use crate::flight::status::refuse;
use crate::runtime::clock::Clock;

/// Parts of the window that are counted apart: what was sent is forgotten at most one part too late.
const PARTS: u32 = 24;

/// What people were sent within the window that moves along.
#[derive(Debug)]
pub(crate) struct Allowances {
    most: Option<u64>,
    window: Duration,
    clock: Arc<dyn Clock>,
    people: Mutex<HashMap<String, Arc<Allowance>>>,
}

/// What one person was sent.
#[derive(Debug)]
pub(crate) struct Allowance {
    most: u64,
    window: Duration,
    clock: Arc<dyn Clock>,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// When each part began, and its bytes; oldest first.
    parts: VecDeque<(Instant, u64)>,
    bytes: u64,
}

impl Allowances {
    /// Nothing sent yet.
    pub(crate) fn new(limits: &ServingLimits, clock: Arc<dyn Clock>) -> Self {
        Self { most: limits.result_bytes, window: limits.result_window, clock, people: Mutex::default() }
    }

    /// The allowance of a person; none where they may be sent what they like.
    pub(crate) fn of(&self, person: &str, is_admin: bool) -> Option<Arc<Allowance>> {
        let most = self.most.filter(|_| !is_admin)?;
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = people.get(person) {
            return Some(Arc::clone(found));
        }
        // Those who were sent nothing lately need not be remembered.
        people.retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_fresh());
        let (window, clock) = (self.window, Arc::clone(&self.clock));
        let allowance = Arc::new(Allowance { most, window, clock, sent: Mutex::default() });
        people.insert(person.to_owned(), Arc::clone(&allowance));
        Some(allowance)
    }
}

impl Allowance {
    /// Counts bytes that are about to be sent.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with when there will be room again, when as much was sent as may be.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), Status> {
        let now = self.clock.monotonic();
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.forget(now, self.window);
        if sent.bytes >= self.most {
            let oldest = sent.parts.front().map_or(now, |(began, _)| *began);
            let frees = (oldest + self.window).saturating_duration_since(now);
            let frees = Duration::from_secs(frees.as_secs() + 1);
            return Err(refuse(
                ErrorKind::ResourceExhausted,
                format!(
                    "you were sent {} MB of results within {} and may be sent no more (`limits.result_bytes`); there is \
                     room again in {}",
                    sent.bytes / 1_000_000,
                    humantime::format_duration(self.window),
                    humantime::format_duration(frees)
                ),
            ));
        }
        match sent.parts.back_mut() {
            Some((began, of_part)) if now.saturating_duration_since(*began) < self.window / PARTS => *of_part += bytes,
            _ => sent.parts.push_back((now, bytes)),
        }
        sent.bytes += bytes;
        Ok(())
    }

    fn is_fresh(&self) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.forget(self.clock.monotonic(), self.window);
        sent.bytes == 0
    }
}

impl Sent {
    fn forget(&mut self, now: Instant, window: Duration) {
        while let Some((began, bytes)) = self.parts.front().copied()
            && now.saturating_duration_since(began) >= window
        {
            self.bytes -= bytes;
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::runtime::clock::ManualClock;

    #[test]
    fn as_much_is_sent_as_may_be_and_more_when_time_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let mut limits = crate::config::load(folder.path(), None).unwrap().limits.serving;
        assert!(Allowances::new(&limits, Arc::new(crate::runtime::clock::SystemClock)).of("ann", false).is_none());
        (limits.result_bytes, limits.result_window) = (Some(1000), Duration::from_secs(24 * 3600));
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let people = Allowances::new(&limits, Arc::new(clock.clone()));
        let ann = people.of("ann", false).unwrap();
        ann.take(600).unwrap();
        clock.advance(Duration::from_secs(2 * 3600));
        ann.take(600).unwrap();
        let refused = people.of("ann", false).unwrap().take(1).unwrap_err();
        assert!(refused.code() == tonic::Code::ResourceExhausted && refused.message().contains("22h"), "{refused:?}");
        people.of("bob", false).unwrap().take(999).unwrap();
        assert!(people.of("root", true).is_none());
        clock.advance(Duration::from_secs(22 * 3600));
        ann.take(1).unwrap();
        clock.advance(Duration::from_secs(48 * 3600));
        people.of("cid", false).unwrap();
        assert_eq!(people.people.lock().unwrap().len(), 2, "bob was forgotten");
    }
}
