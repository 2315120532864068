//! The lines people share: who is behind which, and when each result may send its next message.
//!
//! A line gives turns at 95 % of its rate, so that what waits waits here, where it can be put in order, and not in the
//! network, where whoever has most connections gets most. `turns.rs` says whose turn it is. Results for people who are behind no
//! line never wait.

mod turns;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::access::Principal;
use crate::config::LineSettings;
use crate::delivery::encode::MESSAGE_BYTES;
use crate::journal::{Flow, Journal, LineFlow, RunningStream};
use crate::runtime::live::Entry;
use turns::{Account, Turns};

/// Part of a line's rate that is given out, in percent: Ethernet, IP, TCP and HTTP/2 take the rest, and a queue never builds up.
const GIVEN_OUT: u64 = 95;
/// What an idle line makes up for: a timer's delay, and no more.
const BURST: Duration = Duration::from_millis(20);
/// Lines below this rate, in bits per second, carry smaller messages.
const SLOW: u64 = 200_000_000;
/// Bytes that a message is to have on such a line: at 10 Mbit/s it holds up others for a fifth of a second. What a codec makes of
/// rows is guessed (`encode`).
const SLOW_MESSAGE_BYTES: usize = 256 << 10;

/// The lines of a server.
#[derive(Debug)]
pub struct Lines {
    lines: Vec<Line>,
    /// Each network, with the line it is behind.
    networks: Vec<(IpNet, usize)>,
}

#[derive(Debug)]
struct Line {
    flow: Arc<LineFlow>,
    is_fast: bool,
    weights: BTreeMap<String, f64>,
    /// None where it is not shared out.
    shared: Option<Arc<Shared>>,
}

impl Lines {
    /// The lines there are, with nothing on them. Within a runtime, which gives the turns.
    pub fn open(settings: &[LineSettings]) -> Self {
        let networks = settings.iter().enumerate();
        let networks = networks.flat_map(|(at, line)| line.networks.iter().map(move |network| (*network, at)));
        Self { networks: networks.collect(), lines: settings.iter().map(Line::open).collect() }
    }

    /// Bytes that the messages of a result should have that is sent to an address.
    pub fn message_bytes(&self, address: Option<SocketAddr>) -> usize {
        self.line(address).map_or(MESSAGE_BYTES, Line::message_bytes)
    }

    /// A result for a principal begins to be sent to an address.
    pub fn enter(&self, principal: &Principal, address: Option<SocketAddr>) -> Lane {
        let line = self.line(address);
        let place = line.and_then(|line| {
            let (account, weight) = (Account::of(principal, ip(address)), line.weight(principal));
            line.shared.as_ref().map(|shared| shared.enter(account, weight))
        });
        let flow = line.map(|line| Arc::clone(&line.flow));
        let message_bytes = self.message_bytes(address);
        Lane { place, flow, message_bytes, told: None, waits_since: None }
    }

    /// Whether an address is in a network so fast that no compression pays.
    pub fn is_fast(&self, address: Option<SocketAddr>) -> bool {
        self.line(address).is_some_and(|line| line.is_fast)
    }

    /// Bits per second that one more result would have now; none where nothing is shared out.
    pub fn prospect(&self, principal: &Principal, address: Option<SocketAddr>) -> Option<u64> {
        let line = self.line(address)?;
        let shared = line.shared.as_ref()?;
        let share = shared.state().turns.share(&Account::of(principal, ip(address)), line.weight(principal));
        Some((shared.pace as f64 * share) as u64)
    }

    /// The line of the smallest network that holds an address.
    fn line(&self, address: Option<SocketAddr>) -> Option<&Line> {
        let address = ip(address)?;
        let around = self.networks.iter().filter(|(network, _)| network.contains(&address));
        let (_, at) = around.max_by_key(|(network, _)| network.prefix_len())?;
        self.lines.get(*at)
    }
}

/// Where somebody is: an IPv4 address is one, however the socket writes it.
fn ip(address: Option<SocketAddr>) -> Option<std::net::IpAddr> {
    address.map(|address| address.ip().to_canonical())
}

impl Line {
    fn open(settings: &LineSettings) -> Self {
        Self {
            flow: Arc::new(LineFlow { name: settings.name(), rate: settings.rate, flow: Flow::new() }),
            is_fast: settings.fast,
            weights: settings.weights.clone(),
            shared: settings.rate.map(Shared::open),
        }
    }

    fn weight(&self, principal: &Principal) -> f64 {
        let weights = principal.roles.iter().filter_map(|role| self.weights.get(role));
        weights.copied().max_by(f64::total_cmp).unwrap_or(1.0)
    }

    fn message_bytes(&self) -> usize {
        if self.flow.rate.is_some_and(|rate| rate < SLOW) { SLOW_MESSAGE_BYTES } else { MESSAGE_BYTES }
    }
}

/// One result's place on the line to its client, or its way past where there is no line. Whoever drops it stands in nobody's way.
#[derive(Debug)]
pub struct Lane {
    place: Option<Place>,
    flow: Option<Arc<LineFlow>>,
    message_bytes: usize,
    told: Option<Entry<RunningStream>>,
    waits_since: Option<Instant>,
}

impl Lane {
    /// Bytes that a message should have here.
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Tells of the result in `system.streams` from now on, as that of a run.
    pub fn tell(&mut self, journal: &Journal, query_id: Uuid, principal: &str) {
        let stream = RunningStream::begin(query_id, principal.to_owned(), self.flow.clone());
        self.told = Some(journal.streams().enter(query_id, Arc::new(stream)));
    }

    /// Ready once a message of so many bytes may be sent; it counts as sent then. Until then it is asked again with the same
    /// message.
    pub fn poll_turn(&mut self, bytes: u64, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        if let Some(place) = &self.place
            && place.poll_turn(bytes, context).is_pending()
        {
            return Poll::Pending;
        }
        self.waits_since = None;
        if let Some(line) = &self.flow {
            line.flow.count(bytes);
        }
        if let Some(told) = &self.told {
            told.sent(bytes, since.elapsed());
        }
        Poll::Ready(())
    }
}

/// A place on a line that is shared out.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    account: Account,
    id: u64,
}

impl Place {
    fn poll_turn(&self, bytes: u64, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state();
        match state.asks.get_mut(&self.id) {
            Some(Ask::Granted) => {}
            Some(Ask::Waits(waker)) => waker.clone_from(context.waker()),
            None => {
                state.turns.ask(&self.account, self.id, bytes);
                state.asks.insert(self.id, Ask::Waits(context.waker().clone()));
            }
        }
        let granted = state.give_turns(self.shared.pace);
        let is_granted = matches!(state.asks.get(&self.id), Some(Ask::Granted));
        if is_granted {
            state.asks.remove(&self.id);
        }
        drop(state);
        granted.into_iter().for_each(Waker::wake);
        if is_granted {
            return Poll::Ready(());
        }
        self.shared.asked.notify_one();
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.turns.leave(&self.account, self.id);
        state.asks.remove(&self.id);
    }
}

/// A line that is shared out.
#[derive(Debug)]
struct Shared {
    /// Bits per second that are given out.
    pace: u64,
    state: Arc<Mutex<State>>,
    /// Wakes what gives the turns, where somebody has to wait for one.
    asked: Arc<Notify>,
    _gives_turns: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    /// Those who wait, and those who may go and have not looked yet.
    asks: HashMap<u64, Ask>,
    last_id: u64,
    /// When what was sent is through.
    free_at: Instant,
}

#[derive(Debug)]
enum Ask {
    Waits(Waker),
    Granted,
}

impl Shared {
    fn open(rate: u64) -> Arc<Self> {
        let (turns, asks) = (Turns::default(), HashMap::new());
        let state = Arc::new(Mutex::new(State { turns, asks, last_id: 0, free_at: Instant::now() }));
        let (pace, asked) = (rate / 100 * GIVEN_OUT, Arc::new(Notify::new()));
        let giving = give_turns(Arc::clone(&state), pace, Arc::clone(&asked));
        Arc::new(Self { pace, state, asked, _gives_turns: AbortOnDropHandle::new(tokio::spawn(giving)) })
    }

    fn enter(self: &Arc<Self>, account: Account, weight: f64) -> Place {
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        state.turns.enter(&account, weight, id);
        Place { shared: Arc::clone(self), account, id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives turns as the line becomes free, for ever.
async fn give_turns(state: Arc<Mutex<State>>, pace: u64, asked: Arc<Notify>) {
    loop {
        let (granted, due) = {
            let mut state = lock(&state);
            (state.give_turns(pace), state.turns.is_wanted().then_some(state.free_at))
        };
        granted.into_iter().for_each(Waker::wake);
        match due {
            Some(due) => sleep_until(due).await,
            None => asked.notified().await,
        }
    }
}

impl State {
    /// Gives the turns whose time has come; those who are to be woken for it.
    fn give_turns(&mut self, pace: u64) -> Vec<Waker> {
        let (now, mut granted) = (Instant::now(), Vec::new());
        while self.free_at <= now {
            let Some((id, bytes)) = self.turns.next() else { break };
            // What an idle line did not carry is lost, but for a burst.
            let from = now.checked_sub(BURST).map_or(self.free_at, |earliest| self.free_at.max(earliest));
            self.free_at = from + time(bytes, pace);
            if let Some(Ask::Waits(waker)) = self.asks.insert(id, Ask::Granted) {
                granted.push(waker);
            }
        }
        granted
    }
}

/// How long bytes take at so many bits per second.
fn time(bytes: u64, pace: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(pace.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const MESSAGE: u64 = 100_000;

    fn line(networks: &[&str], rate: Option<u64>) -> LineSettings {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        LineSettings { networks, rate, fast: rate.is_none(), weights: [("vip".to_owned(), 3.0)].into() }
    }

    /// One line of 8 Mbit/s.
    fn slow() -> Lines {
        Lines::open(&[line(&["10.0.0.0/8"], Some(8_000_000))])
    }

    fn at(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 1234))
    }

    fn who(name: &str, roles: &[&str]) -> Principal {
        Principal { name: name.to_owned(), roles: roles.iter().map(|role| (*role).to_owned()).collect() }
    }

    async fn send(lane: &mut Lane, messages: u64) {
        for _ in 0..messages {
            poll_fn(|context| lane.poll_turn(MESSAGE, context)).await;
        }
    }

    /// Streams that send without end; what they have sent.
    fn pull(tasks: &mut JoinSet<()>, lanes: Vec<Lane>) -> Arc<AtomicU64> {
        let sent = Arc::new(AtomicU64::new(0));
        for mut lane in lanes {
            let sent = Arc::clone(&sent);
            tasks.spawn(async move {
                loop {
                    send(&mut lane, 1).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_carries_95_percent_of_its_rate_and_others_never_wait() {
        let lines = slow();
        let begun = Instant::now();
        send(&mut lines.enter(&who("ann", &[]), at("192.168.0.1")), 1000).await;
        send(&mut lines.enter(&who("ann", &[]), None), 1000).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        send(&mut lines.enter(&who("ann", &[]), at("10.1.2.3")), 101).await;
        // The first goes at once, and each further one when the one before is through.
        let expected = 100.0 * MESSAGE as f64 * 8.0 / (8_000_000.0 * 0.95);
        let took = begun.elapsed().as_secs_f64();
        assert!((took - expected).abs() < 0.05, "{took} instead of {expected}");
        // An idle line makes up for next to nothing.
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = Instant::now();
        send(&mut lines.enter(&who("ann", &[]), at("10.1.2.3")), 11).await;
        assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn eight_streams_get_what_one_gets_and_weights_count() {
        let cases: [(&[&str], f64); 2] = [(&[], 1.0), (&["vip", "other"], 3.0)];
        for (roles, times) in cases {
            let lines = slow();
            let mut tasks = JoinSet::new();
            let ann = (0..8).map(|_| lines.enter(&who("ann", &[]), at("10.0.0.1"))).collect();
            let ann = pull(&mut tasks, ann);
            send(&mut lines.enter(&who("bob", roles), at("10.0.0.1")), 240).await;
            let ann = ann.load(Ordering::Relaxed) as f64;
            assert!((ann * times - 240.0).abs() <= 16.0 * times, "{ann} against 240, of {times} times the weight");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let lines = slow();
        let enter = |name| lines.enter(&who(name, &[]), at("10.0.0.1"));
        let mut bob = enter("bob");
        send(&mut bob, 1).await;
        let asks = async |lane: &mut Lane| poll_fn(|context| Poll::Ready(lane.poll_turn(MESSAGE, context))).await;
        for _ in 0..50 {
            // Some go while they wait, others once they may send and before they look.
            let (mut waits, mut may) = (enter("waits"), enter("may"));
            let _ = (asks(&mut may).await, asks(&mut waits).await);
            tokio::time::sleep(Duration::from_millis(120)).await;
            drop((waits, may));
        }
        let begun = Instant::now();
        send(&mut bob, 2).await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        let place = bob.place.as_ref().unwrap();
        let state = place.shared.state();
        assert!(state.asks.is_empty() && !state.turns.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_answer_takes_no_more_than_twice_as_long_while_others_pull() {
        let lines = slow();
        let mut tasks = JoinSet::new();
        let small = async || {
            let begun = Instant::now();
            send(&mut lines.enter(&who("bob", &[]), at("10.0.0.1")), 3).await;
            begun.elapsed()
        };
        let pulls = pull(&mut tasks, (0..8).map(|_| lines.enter(&who("ann", &[]), at("10.0.0.1"))).collect());
        let mut other = lines.enter(&who("cid", &[]), at("10.0.0.1"));
        send(&mut other, 120).await;
        let beside = small().await;
        assert!(pulls.load(Ordering::Relaxed) > 10);
        tasks.shutdown().await;
        drop(other);
        send(&mut lines.enter(&who("dan", &[]), at("10.0.0.1")), 1).await;
        let alone = small().await;
        assert!(beside <= 2 * alone, "{beside:?} instead of {alone:?}");
    }

    #[tokio::test]
    async fn of_networks_within_each_other_the_smallest_counts() {
        let settings = [
            line(&["10.0.0.0/8", "2001:db8::/32"], Some(10_000_000)),
            line(&["10.9.0.0/16"], None),
            line(&["10.9.9.0/24"], Some(1_000_000_000)),
        ];
        let lines = Lines::open(&settings);
        let name = |address| lines.line(at(address)).map(|line| line.flow.name.as_str());
        for (address, line) in [
            ("10.1.1.1", Some("10.0.0.0/8, 2001:db8::/32")),
            ("::ffff:10.1.1.1", Some("10.0.0.0/8, 2001:db8::/32")),
            ("2001:db8::1", Some("10.0.0.0/8, 2001:db8::/32")),
            ("10.9.1.1", Some("10.9.0.0/16")),
            ("10.9.9.1", Some("10.9.9.0/24")),
            ("127.0.0.1", None),
        ] {
            assert_eq!(name(address), line, "{address}");
        }
        assert!(lines.is_fast(at("10.9.1.1")) && !lines.is_fast(at("10.1.1.1")) && !lines.is_fast(None));
        let bytes = |address| lines.enter(&who("ann", &[]), at(address)).message_bytes();
        assert_eq!(["10.1.1.1", "10.9.1.1", "10.9.9.1"].map(bytes), [SLOW_MESSAGE_BYTES, MESSAGE_BYTES, MESSAGE_BYTES]);
        assert_eq!(lines.prospect(&who("ann", &[]), at("10.1.1.1")), Some(9_500_000));
        assert_eq!(lines.prospect(&who("ann", &[]), at("10.9.1.1")), None);
    }
}
