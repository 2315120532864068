//! The sessions of this server: which there are, how many there may be, and when each ends.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use uuid::Uuid;

use crate::config::ServingLimits;
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::session::{COOKIE, SessionOptions, cookie};
use crate::flight::status::refuse;
use crate::journal::{Journal, OpenSession, SessionEnd};
use crate::runtime::clock::Clock;
use crate::runtime::live::Entry;

/// Ended sessions that are remembered, so that their tokens are refused: some megabytes.
const MOST_REMEMBERED: usize = 100_000;

/// What of a call names its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionKey {
    /// The session that stands in the bearer token this server issued.
    pub(crate) bearer: Option<Uuid>,
    cookie: Option<Uuid>,
    address: Option<SocketAddr>,
}

impl SessionKey {
    /// Reads a call's headers.
    pub(crate) fn read(headers: &MetadataMap, bearer: Option<Uuid>, address: Option<SocketAddr>) -> Self {
        Self { bearer, cookie: cookie(headers), address }
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    told: Arc<OpenSession>,
    /// Its connection, where that is all that names it.
    address: Option<SocketAddr>,
    named: AtomicBool,
    options: Mutex<SessionOptions>,
    begun: Instant,
}

impl Session {
    /// Names the session.
    pub(crate) fn id(&self) -> Uuid {
        self.told.session_id
    }

    /// Its options.
    pub(crate) fn options(&self) -> SessionOptions {
        self.lock().clone()
    }

    /// Counts a statement, which uses the session until what comes back is dropped.
    pub(crate) fn runs_statement(self: &Arc<Self>, clock: &Arc<dyn Clock>) -> InUse {
        self.told.statements.fetch_add(1, Ordering::Relaxed);
        InUse { session: Arc::clone(self), clock: Arc::clone(clock) }
    }

    /// Whether a call or a statement holds it, seen from the list of those that are open: the last to hold it. It gives
    /// sessions away under its lock only, so that one that is not in use stays so for as long as the lock is held.
    fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }

    /// Changes its options.
    pub(super) fn change(&self, change: impl FnOnce(&mut SessionOptions)) {
        let mut options = self.lock();
        change(&mut options);
        let told = options.changed().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        *self.told.options.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    fn lock(&self) -> MutexGuard<'_, SessionOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, now: Instant) {
        let millis = u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        self.told.used_millis.store(millis, Ordering::Relaxed);
    }

    fn idle(&self, now: Instant) -> Duration {
        let used = Duration::from_millis(self.told.used_millis.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(used)
    }
}

/// A session that a statement uses. It was used last when the statement ended.
#[derive(Debug)]
pub(crate) struct InUse {
    session: Arc<Session>,
    clock: Arc<dyn Clock>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.session.touch(self.clock.monotonic());
    }
}

/// The sessions of this server.
#[derive(Debug)]
pub(crate) struct Sessions {
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    limits: ServingLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Uuid, Arc<Session>>,
    /// What tells of the open ones.
    told: HashMap<Uuid, Entry<OpenSession>>,
    /// Those that calls without token and cookie belong to, by connection and name.
    connected: HashMap<Option<SocketAddr>, Vec<(String, Uuid)>>,
    people: HashMap<String, usize>,
    ended: HashMap<Uuid, SessionEnd>,
    ended_in_order: VecDeque<Uuid>,
    /// Those that ended because nobody used them, and of which something may still be kept elsewhere.
    left: Vec<Uuid>,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(journal: Arc<Journal>, clock: Arc<dyn Clock>, limits: ServingLimits) -> Self {
        Self { journal, clock, limits, state: Mutex::default() }
    }

    /// The session of a call, where it has begun.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it has ended, and going on without its options would give other rows.
    pub(crate) fn find(&self, key: &SessionKey, person: &str) -> Result<Option<Arc<Session>>, Status> {
        self.find_in(&mut self.lock(), key, person)
    }

    fn find_in(&self, state: &mut State, key: &SessionKey, person: &str) -> Result<Option<Arc<Session>>, Status> {
        let now = self.clock.monotonic();
        let Some(id) = state.id(key, person) else { return Ok(None) };
        if let Some(end) = state.ended.get(&id) {
            return Err(over(*end));
        }
        let Some(session) = state.open.get(&id) else { return Ok(None) };
        if session.told.principal != person {
            return Ok(None);
        }
        let is_idle = self.is_idle(session, now);
        let session = Arc::clone(session);
        if !is_idle {
            session.touch(now);
            return Ok(Some(session));
        }
        if self.end_unused(state, &session) { Err(over(SessionEnd::Idle)) } else { Ok(None) }
    }

    /// The session of a call; begins it where it has not begun.
    ///
    /// # Errors
    /// As [`Self::find`], and `RESOURCE_EXHAUSTED` when there are too many.
    pub(crate) fn enter(&self, caller: &Caller) -> Result<Arc<Session>, Status> {
        let (key, person) = (&caller.session_key, caller.name());
        let mut state = self.lock();
        if let Some(session) = self.find_in(&mut state, key, person)? {
            return Ok(session);
        }
        let now = self.clock.monotonic();
        self.has_room(&mut state, person, now)?;
        // A cookie that names no session of ours is no name to be taken over.
        let id = key.bearer.unwrap_or_else(Uuid::new_v4);
        if state.open.contains_key(&id) {
            // Somebody else's.
            return Err(over(SessionEnd::Closed));
        }
        let told = Arc::new(OpenSession {
            session_id: id,
            principal: person.to_owned(),
            address: caller.address.map(|address| address.to_string()),
            client: caller.user_agent.clone(),
            started_at: self.clock.now(),
            used_millis: AtomicU64::new(0),
            statements: AtomicU64::new(0),
            options: Mutex::default(),
        });
        let session = Arc::new(Session {
            told: Arc::clone(&told),
            address: key.address,
            named: AtomicBool::new(key.bearer.is_some()),
            options: Mutex::default(),
            begun: now,
        });
        state.open.insert(id, Arc::clone(&session));
        state.told.insert(id, self.journal.open_sessions().enter(id, told));
        *state.people.entry(person.to_owned()).or_default() += 1;
        if key.bearer.is_none() {
            let of_connection = state.connected.entry(key.address).or_default();
            of_connection.retain(|(name, _)| name != person);
            of_connection.push((person.to_owned(), id));
        }
        Ok(session)
    }

    fn has_room(&self, state: &mut State, person: &str, now: Instant) -> Result<(), Status> {
        let of_person = |state: &State| state.people.get(person).copied().unwrap_or_default();
        let (most, most_of_person) = (self.limits.sessions.get(), self.limits.sessions_per_person.get());
        let is_full = |state: &State| state.open.len() >= most || of_person(state) >= most_of_person;
        if is_full(state) {
            self.end_idle(state, now);
        }
        if is_full(state) {
            let only_own = of_person(state) >= most_of_person;
            self.end_one_nobody_misses(state, (person, only_own), now);
        }
        if state.open.len() >= most {
            return Err(too_many(&format!("there are {most} sessions already (`limits.sessions`)")));
        }
        if of_person(state) >= most_of_person {
            let told = format!("{person} has {most_of_person} sessions already (`limits.sessions_per_person`)");
            return Err(too_many(&told));
        }
        Ok(())
    }

    /// The cookie that leads to a session from now on; none where the call's token or cookie does already.
    pub(super) fn cookie(&self, session: &Session, key: &SessionKey) -> Option<AsciiMetadataValue> {
        if key.bearer.is_some() || key.cookie == Some(session.id()) {
            return None;
        }
        session.named.store(true, Ordering::Relaxed);
        format!("{COOKIE}={}; Path=/", session.id()).parse().ok()
    }

    /// Ends the session of a call on request. A token that names one is refused from now on, whether its session has
    /// begun or not. What comes back is the id of what was ended.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) fn close(&self, key: &SessionKey, person: &str) -> Result<Option<Uuid>, Status> {
        let mut state = self.lock();
        let session = self.find_in(&mut state, key, person)?;
        if let Some(session) = &session {
            self.finish(&mut state, session, SessionEnd::Closed);
        }
        // One that is open still is somebody else's.
        let named = key.bearer.filter(|id| !state.open.contains_key(id));
        if let Some(id) = named {
            state.remember(id, SessionEnd::Closed);
        }
        Ok(session.map(|session| session.id()).or(named))
    }

    /// Ends the sessions of a connection that was closed, but for those that calls on others can name. What comes back
    /// are their ids.
    pub(crate) fn disconnected(&self, address: SocketAddr) -> Vec<Uuid> {
        let mut state = self.lock();
        let of_connection = state.connected.remove(&Some(address)).unwrap_or_default();
        let sessions = of_connection.iter().filter_map(|(_, id)| state.open.get(id).cloned());
        let sessions: Vec<_> = sessions.filter(|session| !session.named.load(Ordering::Relaxed)).collect();
        for session in &sessions {
            self.finish(&mut state, session, SessionEnd::Disconnected);
        }
        sessions.iter().map(|session| session.id()).collect()
    }

    /// Ends the sessions that nobody has used for long. What comes back are their ids, and those of others that ended so
    /// since the last time.
    pub(crate) fn sweep(&self) -> Vec<Uuid> {
        let mut state = self.lock();
        self.end_idle(&mut state, self.clock.monotonic());
        let left = std::mem::take(&mut state.left);
        // Those that their tokens began again go on with what was kept of them.
        left.into_iter().filter(|id| !state.open.contains_key(id)).collect()
    }

    /// Ends all sessions, as the server stops.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        let open: Vec<_> = state.open.values().cloned().collect();
        for session in open {
            self.finish(&mut state, &session, SessionEnd::Stopped);
        }
    }

    fn is_idle(&self, session: &Arc<Session>, now: Instant) -> bool {
        !session.is_in_use() && session.idle(now) >= self.limits.session_idle
    }

    fn end_idle(&self, state: &mut State, now: Instant) {
        let idle: Vec<_> = state.open.values().filter(|session| self.is_idle(session, now)).cloned().collect();
        for session in &idle {
            self.end_unused(state, session);
        }
    }

    /// Ends a session that nobody uses. Whether going on without it would be noticed.
    fn end_unused(&self, state: &mut State, session: &Session) -> bool {
        state.left.push(session.id());
        self.finish(state, session, SessionEnd::Idle)
    }

    /// Ends one session to make room: of those that are not in use and have no options, so that the next call begins
    /// them again and nobody is the wiser, the one used longest ago. The person's own go first, or are the only ones.
    /// What was bound in it stays.
    fn end_one_nobody_misses(&self, state: &mut State, (person, only_own): (&str, bool), now: Instant) {
        let is_own = |session: &Session| session.told.principal == person;
        let may_go = |session: &&Arc<Session>| {
            !session.is_in_use() && (!only_own || is_own(session)) && session.lock().is_default()
        };
        let rank = |session: &&Arc<Session>| (is_own(session), session.idle(now));
        if let Some(session) = state.open.values().filter(may_go).max_by_key(rank).cloned() {
            self.finish(state, &session, SessionEnd::Idle);
        }
    }

    /// Ends a session and tells the journal. Whether going on without it would be noticed.
    fn finish(&self, state: &mut State, session: &Session, end: SessionEnd) -> bool {
        let id = session.id();
        if state.open.remove(&id).is_none() {
            return false;
        }
        state.told.remove(&id);
        if let Some(count) = state.people.get_mut(&session.told.principal) {
            *count -= 1;
            if *count == 0 {
                state.people.remove(&session.told.principal);
            }
        }
        let missed = end == SessionEnd::Closed || !session.lock().is_default();
        if missed {
            state.remember(id, end);
        }
        if (!missed || end == SessionEnd::Closed)
            && let Some(of_connection) = state.connected.get_mut(&session.address)
        {
            of_connection.retain(|(_, other)| *other != id);
            if of_connection.is_empty() {
                state.connected.remove(&session.address);
            }
        }
        let mut record = session.told.now();
        (record.ended_at, record.end) = (Some(self.clock.now()), Some(end));
        self.journal.record_session(record);
        missed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn id(&self, key: &SessionKey, person: &str) -> Option<Uuid> {
        // A client that closes its session and goes on with the cookie begins a new one; another's cookie is none.
        let is_own = |id: &Uuid| self.open.get(id).is_some_and(|session| session.told.principal == person);
        let known = |id: &Uuid| is_own(id) || self.ended.get(id) == Some(&SessionEnd::Idle);
        key.bearer.or_else(|| key.cookie.filter(known)).or_else(|| {
            let of_connection = self.connected.get(&key.address)?;
            of_connection.iter().find(|(name, _)| name == person).map(|(_, id)| *id)
        })
    }

    fn remember(&mut self, id: Uuid, end: SessionEnd) {
        if self.ended.insert(id, end).is_none() {
            self.ended_in_order.push_back(id);
        }
        if self.ended_in_order.len() > MOST_REMEMBERED
            && let Some(oldest) = self.ended_in_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

fn over(end: SessionEnd) -> Status {
    let why = match end {
        SessionEnd::Idle => "it was not used for long (`limits.session_idle`), and its options are forgotten",
        _ => "it was closed",
    };
    refuse(ErrorKind::Unauthenticated, format!("the session is over: {why}; connect again"))
}

fn too_many(told: &str) -> Status {
    refuse(ErrorKind::ResourceExhausted, format!("{told}; close connections that are not used, or try again later"))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::access::{Access, Principal};
    use crate::flight::session::messages::{OptionValue, Value};
    use crate::runtime::clock::ManualClock;

    struct House {
        _folder: tempfile::TempDir,
        sessions: Sessions,
        journal: Arc<Journal>,
        clock: ManualClock,
    }

    impl House {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut settings = crate::config::load(folder.path(), None).unwrap();
            let limits = &mut settings.limits.serving;
            (limits.sessions, limits.sessions_per_person) = (3.try_into().unwrap(), 2.try_into().unwrap());
            limits.session_idle = Duration::from_secs(60);
            let clock = ManualClock::new(DateTime::UNIX_EPOCH);
            let journal = Arc::new(Journal::open(&settings.lake, Arc::new(clock.clone())).unwrap());
            let sessions = Sessions::new(Arc::clone(&journal), Arc::new(clock.clone()), settings.limits.serving);
            Self { _folder: folder, sessions, journal, clock }
        }

        fn enter(&self, person: &str, key: SessionKey) -> Result<Arc<Session>, Status> {
            self.sessions.enter(&caller(person, key))
        }

        /// A statement that runs in a session.
        fn running(&self, person: &str, key: SessionKey) -> InUse {
            let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
            self.enter(person, key).unwrap().runs_statement(&clock)
        }
    }

    fn caller(person: &str, key: SessionKey) -> Caller {
        let principal = Principal { name: person.to_owned(), roles: [].into() };
        Caller::for_test(Access::unrestricted(principal), key)
    }

    fn at(port: u16) -> SessionKey {
        SessionKey { address: Some(([127, 0, 0, 1], port).into()), ..SessionKey::default() }
    }

    fn bearer(id: u128) -> SessionKey {
        SessionKey { bearer: Some(Uuid::from_u128(id)), ..at(1) }
    }

    fn set_zone(session: &Session) {
        let zone = OptionValue { value: Some(Value::Text("Europe/Vienna".to_owned())) };
        session.change(|options| options.set("time_zone", &zone, &[]).unwrap());
    }

    #[test]
    fn calls_find_their_session_by_token_cookie_or_connection() {
        let house = House::new();
        let by_connection = house.enter("ann", at(1)).unwrap();
        assert_eq!(house.enter("ann", at(1)).unwrap().id(), by_connection.id());
        let by_token = house.enter("ann", bearer(7)).unwrap();
        assert_eq!(by_token.id(), Uuid::from_u128(7));
        assert_eq!(house.enter("ann", SessionKey { address: None, ..bearer(7) }).unwrap().id(), by_token.id());
        let cookie = house.sessions.cookie(&by_connection, &at(1)).unwrap();
        assert!(cookie.to_str().unwrap().starts_with(&format!("arrow_flight_session_id={}", by_connection.id())));
        let elsewhere = SessionKey { cookie: Some(by_connection.id()), ..at(2) };
        assert_eq!(house.enter("ann", elsewhere.clone()).unwrap().id(), by_connection.id());
        assert_ne!(house.enter("bob", elsewhere).unwrap().id(), by_connection.id(), "another's cookie is none");
        assert_eq!(house.journal.open_sessions().all().len(), 3);
    }

    #[test]
    fn asking_begins_no_session() {
        let house = House::new();
        assert!(house.sessions.find(&at(1), "ann").unwrap().is_none());
        assert!(house.journal.open_sessions().is_empty());
    }

    #[test]
    fn there_are_as_many_as_there_may_be_and_idle_ones_make_room() {
        let house = House::new();
        set_zone(&house.enter("ann", at(1)).unwrap());
        set_zone(&house.enter("ann", at(2)).unwrap());
        let told = house.enter("ann", at(3)).unwrap_err();
        assert!(told.message().contains("limits.sessions_per_person"), "{told:?}");
        set_zone(&house.enter("bob", at(4)).unwrap());
        let told = house.enter("cid", at(5)).unwrap_err();
        assert!(
            told.code() == tonic::Code::ResourceExhausted && told.message().contains("limits.sessions"),
            "{told:?}"
        );
        house.clock.advance(Duration::from_secs(61));
        house.enter("cid", at(5)).unwrap();
        assert_eq!(house.journal.open_sessions().all().len(), 1);
        assert_eq!(house.sessions.sweep().len(), 3, "what they left is told");
        assert!(house.sessions.sweep().is_empty());
    }

    #[test]
    fn whoever_logs_in_often_ends_their_own_oldest_session_and_nobody_notices() {
        let house = House::new();
        for number in 0..20 {
            house.enter("ann", bearer(number)).unwrap();
            house.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(house.journal.open_sessions().all().len(), 2);
        assert!(house.sessions.find(&bearer(19), "ann").unwrap().is_some());
        assert!(house.sessions.find(&bearer(0), "ann").unwrap().is_none());
        assert_eq!(house.enter("ann", bearer(0)).unwrap().id(), Uuid::from_u128(0), "its token begins it again");
        assert!(house.sessions.sweep().is_empty(), "what was bound stays");
    }

    #[test]
    fn sessions_with_options_or_a_statement_are_not_ended_to_make_room() {
        let house = House::new();
        set_zone(&house.enter("ann", bearer(1)).unwrap());
        let running = house.running("ann", bearer(2));
        house.clock.advance(Duration::from_secs(1));
        assert!(house.enter("ann", bearer(3)).is_err());
        house.enter("bob", bearer(4)).unwrap();
        house.enter("cid", bearer(5)).unwrap();
        assert!(house.sessions.find(&bearer(4), "bob").unwrap().is_none(), "where there is no room for anybody");
        drop(running);
        house.enter("ann", bearer(3)).unwrap();
        assert!(house.sessions.find(&bearer(1), "ann").unwrap().is_some());
        assert!(house.sessions.find(&bearer(2), "ann").unwrap().is_none());
        house.clock.advance(Duration::from_secs(1));
        assert!(house.sessions.find(&bearer(5), "cid").unwrap().is_some());
        house.enter("cid", bearer(6)).unwrap();
        assert!(house.sessions.find(&bearer(5), "cid").unwrap().is_none(), "the own ones go first");
        assert!(house.sessions.find(&bearer(3), "ann").unwrap().is_some());
    }

    #[test]
    fn a_session_is_not_idle_while_a_statement_runs_and_begins_to_be_when_it_ends() {
        let house = House::new();
        let running = house.running("ann", bearer(7));
        set_zone(&house.enter("ann", bearer(7)).unwrap());
        house.clock.advance(Duration::from_secs(61));
        assert!(house.sessions.sweep().is_empty());
        drop(running);
        house.clock.advance(Duration::from_secs(59));
        assert!(house.sessions.sweep().is_empty());
        house.clock.advance(Duration::from_secs(1));
        assert_eq!(house.sessions.sweep(), [Uuid::from_u128(7)]);
    }

    #[test]
    fn what_an_idle_session_left_is_told_unless_it_was_begun_again() {
        let house = House::new();
        house.enter("ann", bearer(7)).unwrap();
        set_zone(&house.enter("ann", bearer(8)).unwrap());
        house.clock.advance(Duration::from_secs(61));
        assert!(house.sessions.find(&bearer(8), "ann").is_err());
        assert_eq!(house.enter("ann", bearer(7)).unwrap().id(), Uuid::from_u128(7));
        assert_eq!(house.sessions.sweep(), [Uuid::from_u128(8)]);
    }

    #[test]
    fn a_closed_sessions_token_is_refused() {
        let house = House::new();
        house.enter("ann", bearer(7)).unwrap();
        assert_eq!(house.sessions.close(&bearer(7), "ann").unwrap(), Some(Uuid::from_u128(7)));
        let told = house.enter("ann", bearer(7)).unwrap_err();
        assert!(told.code() == tonic::Code::Unauthenticated && told.message().contains("closed"), "{told:?}");
        assert!(house.sessions.find(&bearer(7), "ann").is_err());
    }

    #[test]
    fn closing_a_session_that_is_not_open_refuses_its_token_all_the_same() {
        let house = House::new();
        house.sessions.close(&bearer(7), "ann").unwrap();
        house.enter("ann", bearer(8)).unwrap();
        house.clock.advance(Duration::from_secs(61));
        assert_eq!(house.sessions.sweep(), [Uuid::from_u128(8)]);
        house.sessions.close(&bearer(8), "ann").unwrap();
        for key in [bearer(7), bearer(8)] {
            let told = house.enter("ann", key).unwrap_err();
            assert!(told.code() == tonic::Code::Unauthenticated && told.message().contains("closed"), "{told:?}");
        }
        house.enter("ann", bearer(9)).unwrap();
        assert_eq!(house.sessions.close(&bearer(9), "bob").unwrap(), None, "another's stays open");
        house.enter("ann", bearer(9)).unwrap();
        assert_eq!(house.sessions.close(&at(1), "ann").unwrap(), None);
    }

    #[test]
    fn a_connection_that_closed_its_session_begins_another() {
        let house = House::new();
        let session = house.enter("ann", at(1)).unwrap();
        let with_cookie = SessionKey { cookie: Some(session.id()), ..at(1) };
        assert_eq!(house.sessions.close(&at(1), "ann").unwrap(), Some(session.id()));
        let next = house.enter("ann", with_cookie.clone()).unwrap();
        assert_ne!(next.id(), session.id());
        assert_eq!(house.enter("ann", with_cookie).unwrap().id(), next.id(), "and stays in it");
    }

    #[test]
    fn idle_sessions_end_and_options_are_not_lost_unnoticed() {
        let house = House::new();
        house.enter("ann", at(1)).unwrap();
        set_zone(&house.enter("ann", bearer(7)).unwrap());
        set_zone(&house.enter("bob", at(3)).unwrap());
        house.clock.advance(Duration::from_secs(61));
        assert_eq!(house.sessions.sweep().len(), 3);
        house.enter("ann", at(1)).unwrap();
        for (person, key) in [("ann", bearer(7)), ("bob", at(3))] {
            let told = house.enter(person, key).unwrap_err();
            assert!(told.message().contains("limits.session_idle"), "{told:?}");
        }
        house.sessions.disconnected(([127, 0, 0, 1], 3).into());
        house.enter("bob", at(3)).unwrap();
    }

    #[test]
    fn a_closed_connection_ends_what_only_it_could_name() {
        let house = House::new();
        let one = house.enter("ann", at(1)).unwrap();
        house.enter("ann", bearer(7)).unwrap();
        assert_eq!(house.sessions.disconnected(([127, 0, 0, 1], 1).into()), [one.id()]);
        let other = house.enter("ann", at(1)).unwrap();
        house.sessions.cookie(&other, &at(1)).unwrap();
        assert!(house.sessions.disconnected(([127, 0, 0, 1], 1).into()).is_empty());
        assert_eq!(house.journal.open_sessions().all().len(), 2);
    }
}
