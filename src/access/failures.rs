//! Wrong passwords cost waiting: longer after each one, for one name at one address, so that nobody elsewhere can
//! keep a user out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::runtime::clock::Clock;

/// Pairs of name and address remembered at most: 64 bytes each.
const MOST_REMEMBERED: usize = 16_384;

/// Who failed lately, and how long they have to wait.
#[derive(Debug)]
pub struct Failures {
    first: Duration,
    longest: Duration,
    clock: Arc<dyn Clock>,
    failed: Mutex<HashMap<[u8; 16], Failed>>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    until: Instant,
}

impl Failures {
    /// After the first failure `first` has to be waited, after each further one twice as long, but `longest` at most.
    pub fn new(first: Duration, longest: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { first, longest, clock, failed: Mutex::default() }
    }

    /// How long this name has to wait at this address; nothing where it may try.
    pub fn wait(&self, name: &str, address: Option<IpAddr>) -> Option<Duration> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let until = failed.get(&key(name, address))?.until;
        Some(until.saturating_duration_since(self.clock.monotonic())).filter(|wait| !wait.is_zero())
    }

    /// Notes a failure.
    pub fn failed(&self, name: &str, address: Option<IpAddr>) {
        let now = self.clock.monotonic();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(name, address);
        if failed.len() >= MOST_REMEMBERED && !failed.contains_key(&key) {
            self.make_room(&mut failed, now);
        }
        let entry = failed.entry(key).or_insert(Failed { count: 0, until: now });
        if self.is_over(*entry, now) {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        let doubled = self.first.saturating_mul(1_u32.checked_shl(entry.count - 1).unwrap_or(u32::MAX));
        entry.until = now + doubled.min(self.longest);
    }

    /// Forgets the failures of a name at an address.
    pub fn succeeded(&self, name: &str, address: Option<IpAddr>) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(name, address));
    }

    /// Whether a failure is so long ago that it no longer counts.
    fn is_over(&self, entry: Failed, now: Instant) -> bool {
        now.saturating_duration_since(entry.until) > self.longest
    }

    fn make_room(&self, failed: &mut HashMap<[u8; 16], Failed>, now: Instant) {
        failed.retain(|_, entry| now < entry.until);
        if failed.len() >= MOST_REMEMBERED
            && let Some(oldest) = failed.iter().min_by_key(|(_, entry)| entry.until).map(|(key, _)| *key)
        {
            failed.remove(&oldest);
        }
    }
}

/// What counts as one address. Of IPv6 it is the network: one person has it all.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// Of fixed length, whatever a stranger takes for a name.
fn key(name: &str, address: Option<IpAddr>) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    match address.map(network) {
        None => {}
        Some(IpAddr::V4(address)) => {
            hash.update(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            hash.update(&address.octets());
        }
    }
    hash.update(&[0]).update(name.as_bytes());
    let mut key = [0; 16];
    hash.finalize_xof().fill(&mut key);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::ManualClock;

    fn failures() -> (Failures, ManualClock) {
        let clock = ManualClock::new(chrono::DateTime::UNIX_EPOCH);
        (Failures::new(Duration::from_secs(1), Duration::from_secs(60), Arc::new(clock.clone())), clock)
    }

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_failure_doubles_the_wait_and_success_ends_it() {
        let (failures, clock) = failures();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(failures.wait("ann", at("10.0.0.1")), None);
            failures.failed("ann", at("10.0.0.1"));
            assert_eq!(failures.wait("ann", at("10.0.0.1")), Some(Duration::from_secs(seconds)));
            clock.advance(Duration::from_secs(seconds));
        }
        failures.succeeded("ann", at("10.0.0.1"));
        failures.failed("ann", at("10.0.0.1"));
        assert_eq!(failures.wait("ann", at("10.0.0.1")), Some(Duration::from_secs(1)));
    }

    #[test]
    fn nobody_elsewhere_keeps_a_user_out() {
        let (failures, _) = failures();
        failures.failed("ann", at("10.0.0.1"));
        assert_eq!(failures.wait("ann", at("10.0.0.2")), None);
        assert_eq!(failures.wait("bob", at("10.0.0.1")), None);
        failures.failed("ann", at("2001:db8::1"));
        assert!(failures.wait("ann", at("2001:db8::2")).is_some(), "one person has the whole network");
        assert!(failures.wait("ann", at("::ffff:10.0.0.1")).is_some(), "the same address in another form");
    }

    #[test]
    fn failures_are_forgotten_and_never_fill_the_memory() {
        let (failures, clock) = failures();
        failures.failed("ann", None);
        clock.advance(Duration::from_secs(62));
        failures.failed("ann", None);
        assert_eq!(failures.wait("ann", None), Some(Duration::from_secs(1)), "long ago");
        for number in 0..MOST_REMEMBERED + 10 {
            failures.failed(&number.to_string(), None);
        }
        assert!(failures.failed.lock().unwrap().len() <= MOST_REMEMBERED);
    }
}
