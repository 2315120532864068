//! Values bound to prepared statements, kept on the server because several clients ignore the new
//! handle that binding may give them and go on with the first one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use uuid::Uuid;

use crate::config::ServingLimits;
use crate::runtime::clock::Clock;

/// Values of one statement, in order.
pub(crate) type Values = Arc<Vec<ScalarValue>>;

/// How long values are kept that nobody uses. The statement outlives them: its handle holds its text.
const IDLE: Duration = Duration::from_secs(3600);
/// How often unused values are looked for: each look goes through all of them.
const SWEEP: Duration = Duration::from_secs(60);

/// The values bound on this server.
#[derive(Debug)]
pub(crate) struct Bindings {
    clock: Arc<dyn Clock>,
    /// Statements whose values are kept at most; beyond it those unused for longest go.
    most_statements: usize,
    /// Bytes of values kept at most, for the same.
    most_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Uuid, Entry>,
    bytes: usize,
    /// When unused values were looked for last.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// The session that bound them.
    session: Uuid,
    values: Values,
    bytes: usize,
    used: Instant,
}

impl Bindings {
    /// Nothing bound yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: &ServingLimits) -> Self {
        let (most_statements, most_bytes) = (limits.bound_statements.get(), limits.bound_memory);
        Self { clock, most_statements, most_bytes, state: Mutex::default() }
    }

    /// Binds values to a statement in place of those it had. What is too large to be kept at all
    /// is kept alone.
    pub(crate) fn bind(&self, statement: Uuid, session: Uuid, values: Vec<ScalarValue>) {
        let now = self.clock.monotonic();
        let bytes = values.iter().map(ScalarValue::size).sum();
        let mut state = self.lock();
        state.remove(statement);
        state.make_room(now, self.most_statements, self.most_bytes.saturating_sub(bytes));
        state.bytes += bytes;
        state.entries.insert(statement, Entry { session, values: Arc::new(values), bytes, used: now });
    }

    /// The values of a statement, if it has any.
    pub(crate) fn values(&self, statement: Uuid) -> Option<Values> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let entry = state.entries.get_mut(&statement)?;
        entry.used = now;
        Some(Arc::clone(&entry.values))
    }

    /// Forgets a statement's values.
    pub(crate) fn forget(&self, statement: Uuid) {
        self.lock().remove(statement);
    }

    /// Forgets the values a session bound.
    pub(crate) fn forget_session(&self, session: Uuid) {
        let mut state = self.lock();
        let of_session = state.entries.iter().filter(|(_, entry)| entry.session == session);
        let gone: Vec<Uuid> = of_session.map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|statement| state.remove(statement));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, statement: Uuid) {
        if let Some(entry) = self.entries.remove(&statement) {
            self.bytes -= entry.bytes;
        }
    }

    /// Forgets what nobody uses, and as much as is needed to have fewer statements than `most` and no more than `most_bytes`.
    fn make_room(&mut self, now: Instant, most: usize, most_bytes: usize) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            let idle = |entry: &Entry| now.saturating_duration_since(entry.used) >= IDLE;
            let gone: Vec<Uuid> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| *id).collect();
            gone.into_iter().for_each(|statement| self.remove(statement));
        }
        while !self.entries.is_empty() && (self.entries.len() >= most || self.bytes > most_bytes) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
            oldest.into_iter().for_each(|statement| self.remove(statement));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::ManualClock;

    const MOST_STATEMENTS: usize = 100;
    const MOST_BYTES: usize = 64 << 20;

    fn bindings() -> (Bindings, ManualClock) {
        let clock = ManualClock::new(chrono::DateTime::UNIX_EPOCH);
        let folder = tempfile::tempdir().unwrap();
        let mut limits = crate::config::load(folder.path(), None).unwrap().limits.serving;
        limits.bound_statements = MOST_STATEMENTS.try_into().unwrap();
        (Bindings::new(Arc::new(clock.clone()), &limits), clock)
    }

    #[test]
    fn values_stay_with_their_statement_until_it_is_closed() {
        let (bindings, _) = bindings();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        bindings.bind(one, Uuid::nil(), vec![ScalarValue::Int64(Some(1))]);
        bindings.bind(other, Uuid::nil(), vec![ScalarValue::Int64(Some(2))]);
        bindings.bind(one, Uuid::nil(), vec![ScalarValue::Int64(Some(3))]);
        assert_eq!(*bindings.values(one).unwrap(), [ScalarValue::Int64(Some(3))]);
        bindings.forget(one);
        assert!(bindings.values(one).is_none() && bindings.values(other).is_some());
    }

    #[test]
    fn a_sessions_values_go_with_it() {
        let (bindings, _) = bindings();
        let (session, one, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        bindings.bind(one, session, vec![]);
        bindings.bind(other, Uuid::new_v4(), vec![]);
        bindings.forget_session(session);
        assert!(bindings.values(one).is_none() && bindings.values(other).is_some());
    }

    #[test]
    fn unused_values_go_after_an_hour_and_used_ones_stay() {
        let (bindings, clock) = bindings();
        let (used, unused) = (Uuid::new_v4(), Uuid::new_v4());
        bindings.bind(used, Uuid::nil(), vec![]);
        bindings.bind(unused, Uuid::nil(), vec![]);
        clock.advance(Duration::from_secs(1800));
        assert!(bindings.values(used).is_some());
        clock.advance(Duration::from_secs(1801));
        bindings.bind(Uuid::new_v4(), Uuid::nil(), vec![]);
        assert!(bindings.values(used).is_some() && bindings.values(unused).is_none());
    }

    #[test]
    fn the_number_and_size_of_kept_values_is_bounded() {
        let (bindings, clock) = bindings();
        let first = Uuid::new_v4();
        bindings.bind(first, Uuid::nil(), vec![]);
        for _ in 0..MOST_STATEMENTS {
            clock.advance(Duration::from_millis(1));
            bindings.bind(Uuid::new_v4(), Uuid::nil(), vec![]);
        }
        assert!(bindings.lock().entries.len() <= MOST_STATEMENTS && bindings.values(first).is_none());
        let large = || vec![ScalarValue::Utf8(Some("x".repeat(MOST_BYTES / 3)))];
        for _ in 0..4 {
            clock.advance(Duration::from_millis(1));
            bindings.bind(Uuid::new_v4(), Uuid::nil(), large());
        }
        assert!(bindings.lock().bytes <= MOST_BYTES);
    }
}
