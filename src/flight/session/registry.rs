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

    /// Counts a statement.
    pub(crate) fn runs_statement(&self) {
        self.told.statements.fetch_add(1, Ordering::Relaxed);
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
        let Some(session) = state.open.get(&id).cloned() else { return Ok(None) };
        if session.told.principal != person {
            return Ok(None);
        }
        if session.idle(now) < self.limits.session_idle {
            session.touch(now);
            return Ok(Some(session));
        }
        if self.finish(state, &session, SessionEnd::Idle) { Err(over(SessionEnd::Idle)) } else { Ok(None) }
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
        if state.open.len() >= most || of_person(state) >= most_of_person {
            self.end_idle(state, now);
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

    /// Ends a session.
    pub(crate) fn end(&self, session: &Session, end: SessionEnd) {
        self.finish(&mut self.lock(), session, end);
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

    /// Ends the sessions that nobody has used for long. What comes back are their ids.
    pub(crate) fn sweep(&self) -> Vec<Uuid> {
        let now = self.clock.monotonic();
        self.end_idle(&mut self.lock(), now)
    }

    /// Ends all sessions, as the server stops.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        let open: Vec<_> = state.open.values().cloned().collect();
        for session in open {
            self.finish(&mut state, &session, SessionEnd::Stopped);
        }
    }

    fn end_idle(&self, state: &mut State, now: Instant) -> Vec<Uuid> {
        let idle = |session: &&Arc<Session>| session.idle(now) >= self.limits.session_idle;
        let over: Vec<_> = state.open.values().filter(idle).cloned().collect();
        for session in &over {
            self.finish(state, session, SessionEnd::Idle);
        }
        over.iter().map(|session| session.id()).collect()
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
        house.enter("ann", at(1)).unwrap();
        house.enter("ann", at(2)).unwrap();
        let told = house.enter("ann", at(3)).unwrap_err();
        assert!(told.message().contains("limits.sessions_per_person"), "{told:?}");
        house.enter("bob", at(4)).unwrap();
        let told = house.enter("cid", at(5)).unwrap_err();
        assert!(
            told.code() == tonic::Code::ResourceExhausted && told.message().contains("limits.sessions"),
            "{told:?}"
        );
        house.clock.advance(Duration::from_secs(61));
        house.enter("cid", at(5)).unwrap();
        assert_eq!(house.journal.open_sessions().all().len(), 1);
    }

    #[test]
    fn a_closed_sessions_token_is_refused() {
        let house = House::new();
        let session = house.enter("ann", bearer(7)).unwrap();
        house.sessions.end(&session, SessionEnd::Closed);
        let told = house.enter("ann", bearer(7)).unwrap_err();
        assert!(told.code() == tonic::Code::Unauthenticated && told.message().contains("closed"), "{told:?}");
        assert!(house.sessions.find(&bearer(7), "ann").is_err());
    }

    #[test]
    fn a_connection_that_closed_its_session_begins_another() {
        let house = House::new();
        let session = house.enter("ann", at(1)).unwrap();
        let with_cookie = SessionKey { cookie: Some(session.id()), ..at(1) };
        house.sessions.end(&session, SessionEnd::Closed);
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
