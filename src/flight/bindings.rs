//! Values bound to prepared statements, kept on the server because several clients ignore the new
//! handle that binding may give them and go on with the first one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::MemoryReservation;
use tonic::Status;
use uuid::Uuid;

use crate::config::ServingLimits;
use crate::error::ErrorKind;
use crate::flight::status::refuse;
use crate::query::QueryError;
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
    /// Statements whose values are kept at most; beyond it who has most of them loses those unused for longest.
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
    /// Whose they are.
    person: Arc<str>,
    values: Values,
    bytes: usize,
    /// What they take of the memory.
    _memory: MemoryReservation,
    used: Instant,
}

impl Bindings {
    /// Nothing bound yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: &ServingLimits) -> Self {
        let (most_statements, most_bytes) = (limits.bound_statements.get(), limits.bound_memory);
        Self { clock, most_statements, most_bytes, state: Mutex::default() }
    }

    /// Binds a person's values to a statement in place of those it had, with the memory that was taken for them. What is
    /// too large to be kept at all is kept alone.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when others' values, who have less, would have to go for them, or there is no memory left.
    pub(crate) fn bind(
        &self,
        statement: Uuid,
        session: Uuid,
        person: &str,
        values: Vec<ScalarValue>,
        memory: MemoryReservation,
    ) -> Result<(), Status> {
        let now = self.clock.monotonic();
        let bytes = values.iter().map(ScalarValue::size).sum();
        memory.try_resize(bytes).map_err(QueryError::from)?;
        let mut state = self.lock();
        state.remove(statement);
        state.forget_idle(now);
        if !state.make_room(person, bytes, self.most_statements, self.most_bytes) {
            let message = format!(
                "there is no room for {} KiB of bound values beside those of others, who have less (`limits.bound_memory`, \
                 `limits.bound_statements`); bind fewer rows at a time, or try again later",
                bytes.div_ceil(1 << 10)
            );
            return Err(refuse(ErrorKind::ResourceExhausted, message));
        }
        state.bytes += bytes;
        let (person, values) = (person.into(), Arc::new(values));
        let entry = Entry { session, person, values, bytes, _memory: memory, used: now };
        state.entries.insert(statement, entry);
        Ok(())
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

    /// Forgets what nobody uses.
    fn forget_idle(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            let idle = |entry: &Entry| now.saturating_duration_since(entry.used) >= IDLE;
            let gone: Vec<Uuid> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| *id).collect();
            gone.into_iter().for_each(|statement| self.remove(statement));
        }
    }

    /// Forgets as much as is needed for one more statement of a person's, with values of so many bytes; whether there is
    /// room then. It is taken from whoever has most once these are there, so that nobody loses anything to somebody who
    /// has more.
    fn make_room(&mut self, person: &str, bytes: usize, most: usize, most_bytes: usize) -> bool {
        let is_crowded = |state: &Self| !state.entries.is_empty() && state.entries.len() >= most;
        let is_full = |state: &Self| !state.entries.is_empty() && state.bytes.saturating_add(bytes) > most_bytes;
        if !is_crowded(self) && !is_full(self) {
            return true;
        }
        let mut people = self.people();
        let own = people.entry(person.into()).or_default();
        (own.statements, own.bytes) = (own.statements + 1, own.bytes.saturating_add(bytes));
        loop {
            let by_number = is_crowded(self);
            if !by_number && !is_full(self) {
                return true;
            }
            let who_has_most = people.iter_mut().max_by_key(|(name, share)| {
                (if by_number { share.statements } else { share.bytes }, ***name == *person)
            });
            let Some((_, share)) = who_has_most else { return true };
            // It is the person's own, and nothing is left of it but what is to be bound.
            let Some(oldest) = share.by_use.pop() else { return false };
            share.statements -= 1;
            share.bytes -= oldest.bytes;
            self.remove(oldest.statement);
        }
    }

    /// What each person has.
    fn people(&self) -> BTreeMap<Arc<str>, Share> {
        let mut people = BTreeMap::<Arc<str>, Share>::new();
        for (statement, entry) in &self.entries {
            let share = people.entry(Arc::clone(&entry.person)).or_default();
            share.statements += 1;
            share.bytes += entry.bytes;
            share.by_use.push(Used { at: entry.used, statement: *statement, bytes: entry.bytes });
        }
        people.values_mut().for_each(|share| share.by_use.sort_by_key(|used| Reverse(used.at)));
        people
    }
}

/// What one person has.
#[derive(Default)]
struct Share {
    statements: usize,
    bytes: usize,
    /// Those unused for longest last.
    by_use: Vec<Used>,
}

struct Used {
    at: Instant,
    statement: Uuid,
    bytes: usize,
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};

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

    fn bind(bindings: &Bindings, statement: Uuid, session: Uuid, person: &str, values: Vec<ScalarValue>) {
        bindings.bind(statement, session, person, values, unbounded()).unwrap();
    }

    fn unbounded() -> MemoryReservation {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        taken_from(&pool)
    }

    fn taken_from(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("values").register(pool)
    }

    #[test]
    fn values_take_of_the_memory_until_they_go() {
        let (bindings, _) = bindings();
        let (pool, statement) = (crate::query::pool(3 << 20), Uuid::new_v4());
        bindings.bind(statement, Uuid::nil(), "ann", large(2), taken_from(&pool)).unwrap();
        assert!(pool.reserved() >= 2 << 20, "{}", pool.reserved());
        let refused = bindings.bind(Uuid::new_v4(), Uuid::nil(), "bob", large(2), taken_from(&pool)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
        assert!(bindings.values(statement).is_some(), "nobody loses theirs");
        bindings.forget(statement);
        assert_eq!(pool.reserved(), 0);
    }

    /// Values of so many MiB.
    fn large(mib: usize) -> Vec<ScalarValue> {
        vec![ScalarValue::Utf8(Some("x".repeat(mib << 20)))]
    }

    #[test]
    fn values_stay_with_their_statement_until_it_is_closed() {
        let (bindings, _) = bindings();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        bind(&bindings, one, Uuid::nil(), "ann", vec![ScalarValue::Int64(Some(1))]);
        bind(&bindings, other, Uuid::nil(), "ann", vec![ScalarValue::Int64(Some(2))]);
        bind(&bindings, one, Uuid::nil(), "ann", vec![ScalarValue::Int64(Some(3))]);
        assert_eq!(*bindings.values(one).unwrap(), [ScalarValue::Int64(Some(3))]);
        bindings.forget(one);
        assert!(bindings.values(one).is_none() && bindings.values(other).is_some());
    }

    #[test]
    fn a_sessions_values_go_with_it() {
        let (bindings, _) = bindings();
        let (session, one, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        bind(&bindings, one, session, "ann", vec![]);
        bind(&bindings, other, Uuid::new_v4(), "ann", vec![]);
        bindings.forget_session(session);
        assert!(bindings.values(one).is_none() && bindings.values(other).is_some());
    }

    #[test]
    fn unused_values_go_after_an_hour_and_used_ones_stay() {
        let (bindings, clock) = bindings();
        let (used, unused) = (Uuid::new_v4(), Uuid::new_v4());
        bind(&bindings, used, Uuid::nil(), "ann", vec![]);
        bind(&bindings, unused, Uuid::nil(), "ann", vec![]);
        clock.advance(Duration::from_secs(1800));
        assert!(bindings.values(used).is_some());
        clock.advance(Duration::from_secs(1801));
        bind(&bindings, Uuid::new_v4(), Uuid::nil(), "ann", vec![]);
        assert!(bindings.values(used).is_some() && bindings.values(unused).is_none());
    }

    #[test]
    fn the_number_and_size_of_kept_values_is_bounded() {
        let (bindings, clock) = bindings();
        let first = Uuid::new_v4();
        bind(&bindings, first, Uuid::nil(), "ann", vec![]);
        for _ in 0..MOST_STATEMENTS {
            clock.advance(Duration::from_millis(1));
            bind(&bindings, Uuid::new_v4(), Uuid::nil(), "ann", vec![]);
        }
        assert!(bindings.lock().entries.len() <= MOST_STATEMENTS && bindings.values(first).is_none());
        for _ in 0..4 {
            clock.advance(Duration::from_millis(1));
            bind(&bindings, Uuid::new_v4(), Uuid::nil(), "ann", large(20));
        }
        assert!(bindings.lock().bytes <= MOST_BYTES && bindings.lock().entries.len() == 3);
        let huge = Uuid::new_v4();
        bind(&bindings, huge, Uuid::nil(), "ann", large(65));
        assert!(bindings.values(huge).is_some() && bindings.lock().entries.len() == 1, "it is kept alone");
    }

    #[test]
    fn who_binds_much_loses_their_own_and_nobody_elses() {
        let (bindings, clock) = bindings();
        let (anns, bobs) = (Uuid::new_v4(), Uuid::new_v4());
        bind(&bindings, anns, Uuid::nil(), "ann", large(1));
        clock.advance(Duration::from_millis(1));
        bind(&bindings, bobs, Uuid::nil(), "bob", large(20));
        for _ in 0..2 * MOST_STATEMENTS {
            clock.advance(Duration::from_millis(1));
            bind(&bindings, Uuid::new_v4(), Uuid::nil(), "bob", vec![ScalarValue::Int64(Some(1))]);
        }
        assert!(bindings.values(anns).is_some() && bindings.values(bobs).is_none());
        for _ in 0..4 {
            clock.advance(Duration::from_millis(1));
            bind(&bindings, Uuid::new_v4(), Uuid::nil(), "bob", large(30));
        }
        assert!(bindings.values(anns).is_some() && bindings.lock().bytes <= MOST_BYTES);
    }

    #[test]
    fn who_has_least_finds_room_and_who_wants_most_is_refused() {
        let (bindings, clock) = bindings();
        let bobs = [Uuid::new_v4(), Uuid::new_v4()];
        for statement in bobs {
            clock.advance(Duration::from_millis(1));
            bind(&bindings, statement, Uuid::nil(), "bob", large(30));
        }
        let anns = Uuid::new_v4();
        bind(&bindings, anns, Uuid::nil(), "ann", large(20));
        let there = bobs.map(|statement| bindings.values(statement).is_some());
        assert_eq!(there, [false, true], "bob had most, and lost what was unused for longest");
        let refused = bindings.bind(Uuid::new_v4(), Uuid::nil(), "bob", large(50), unbounded()).unwrap_err();
        assert!(refused.code() == tonic::Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("limits.bound_memory"), "{refused:?}");
        assert!(bindings.values(anns).is_some() && bindings.lock().entries.len() == 1);
        assert!(bindings.lock().bytes <= 21 << 20);
    }
}
