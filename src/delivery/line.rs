//! The lines people share: who is behind which, and when each result may send its next piece.
//!
//! A line gives turns at 97 % of its rate, headers counted, so that what waits waits here, where it can be put in order, and not in
//! the network, where whoever has most connections gets most. A turn is a few packets, whatever a message has: what is small waits for
//! some milliseconds, and nothing goes out in bursts that a router would have to keep. `turns.rs` says whose turn it is. Results
//! for people who are behind no line never wait.

mod turns;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::access::Principal;
use crate::config::{CodecDefault, LineSettings};
use crate::delivery::encode::MESSAGE_BYTES;
use crate::journal::{Flow, Journal, LineFlow, RunningStream};
use crate::runtime::live::Entry;
use turns::{Account, Piece, Turns};

/// Part of a line's rate that is given out, in percent: the rest carries answers that take no turns, and empties the queue that
/// they, or somebody else on the line, made.
const GIVEN_OUT: u64 = 97;
/// Bytes of a connection in a full packet: 1500 less the headers of IPv4 and of TCP with timestamps.
const PACKET: u64 = 1448;
/// Bytes of headers around them, those of Ethernet with preamble included.
const PACKET_HEADERS: u64 = 78;
/// Most bytes in a frame of HTTP/2, and in a record of TLS.
const FRAME: u64 = 16 << 10;
/// Bytes of their headers: 9 and 22.
const FRAME_HEADERS: u64 = 31;
/// What an idle line makes up for: a timer's delay, and no more.
const BURST: Duration = Duration::from_millis(20);
/// How long one turn holds up the others, in milliseconds: less than what is small takes by itself.
const TURN_MILLIS: u64 = 5;
/// Packets in one turn, on the slowest lines and on the fastest.
const TURN_PACKETS: [u64; 2] = [3, 180];
/// Turns of a message that are given before its task has come for the first of them.
const MOST_AHEAD: usize = 8;
/// How long somebody may be ahead of the others by what goes ahead, in milliseconds of the line.
const LEAD_MILLIS: u64 = 500;
/// Bytes of that at least: what small answers are made of.
const LEAST_LEAD: u64 = 16 << 10;
/// Lines below this rate, in bits per second, carry smaller messages.
const SLOW: u64 = 200_000_000;
/// Bytes that a message is to have on such a line: at 10 Mbit/s rows come five times a second. With fewer, what is compressed would be
/// too short to compress well, and headers would count. What a codec makes of rows is guessed (`encode`).
const SLOW_MESSAGE_BYTES: usize = 256 << 10;
/// Lines up to this rate, in bits per second, are so slow that gzip saves more time than it takes: at its usual level one processor
/// packs as much as such a line carries (measured: 38 Mbit/s).
const GZIP_PAYS: u64 = 40_000_000;

/// How people behind a line are sent rows, where neither they nor their programs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineDefaults {
    /// Whether it is so fast that no compression pays.
    pub is_fast: bool,
    /// Whether it has a rate: whoever is behind it is not near, wherever the connection comes from.
    pub is_shared: bool,
    /// How results are compressed.
    pub codec: Option<CodecDefault>,
    /// Whether columns may come as dictionaries.
    pub dictionaries: Option<bool>,
}

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
    defaults: LineDefaults,
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

    /// What holds for people at an address.
    pub fn defaults(&self, address: Option<SocketAddr>) -> LineDefaults {
        self.line(address).map(|line| line.defaults).unwrap_or_default()
    }

    /// Bits per second that one more result would have now; none where nothing is shared out.
    pub fn prospect(&self, principal: &Principal, address: Option<SocketAddr>) -> Option<u64> {
        let line = self.line(address)?;
        let shared = line.shared.as_ref()?;
        let share = shared.state().turns.share(&Account::of(principal, ip(address)), line.weight(principal));
        Some((shared.pace as f64 * share * PACKET as f64 / (PACKET + PACKET_HEADERS) as f64) as u64)
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
            defaults: LineDefaults {
                is_fast: settings.fast,
                is_shared: settings.rate.is_some(),
                codec: settings.codec,
                dictionaries: settings.dictionaries,
            },
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

    /// Whether the line is so slow that gzip pays for whoever cannot have better.
    pub fn is_slow_enough_for_gzip(&self) -> bool {
        self.flow.as_ref().and_then(|line| line.rate).is_some_and(|rate| rate <= GZIP_PAYS)
    }

    /// Ready once some of the `waiting` bytes of a message may be sent: how many, which count as sent then. It is asked again with
    /// the bytes that are left. `goes_on` says that the first of them are not the first of the message.
    pub fn poll_turn(&mut self, waiting: usize, goes_on: bool, context: &mut Context<'_>) -> Poll<usize> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let bytes = match &self.place {
            Some(place) => ready!(place.poll_turn(waiting, goes_on, context)),
            None => waiting,
        };
        self.waits_since = None;
        if let Some(line) = &self.flow {
            line.flow.count(bytes as u64);
        }
        if let Some(told) = &self.told {
            told.sent(bytes as u64, since.elapsed());
        }
        Poll::Ready(bytes)
    }
}

/// Bytes with all headers around them.
fn on_the_line(bytes: u64) -> u64 {
    let framed = bytes + bytes.div_ceil(FRAME) * FRAME_HEADERS;
    framed + framed.div_ceil(PACKET) * PACKET_HEADERS
}

/// Bytes that fill the packets of one turn.
fn turn_bytes(rate: u64) -> usize {
    let [least, most] = TURN_PACKETS;
    let packets = (rate / 8 * TURN_MILLIS / 1000 / (PACKET + PACKET_HEADERS)).clamp(least, most);
    let filled = packets * PACKET;
    usize::try_from(filled - filled.div_ceil(FRAME) * FRAME_HEADERS).unwrap_or(usize::MAX)
}

/// A place on a line that is shared out.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    account: Account,
    id: u64,
}

impl Place {
    fn poll_turn(&self, waiting: usize, goes_on: bool, context: &mut Context<'_>) -> Poll<usize> {
        let mut state = self.shared.state();
        match state.asks.get_mut(&self.id) {
            Some(ask) => ask.waker.clone_from(context.waker()),
            None => {
                let (account, waker) = (self.account.clone(), context.waker().clone());
                state.asks.insert(self.id, Ask { account, waker, granted: 0, asked: 0, rest: waiting });
                state.ask(self.id, goes_on);
            }
        }
        let woken = state.give_turns(self.shared.pace);
        let granted = state.take(self.id);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        if granted > 0 {
            return Poll::Ready(granted);
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
    /// Bits per second that are given out, headers included.
    pace: u64,
    state: Arc<Mutex<State>>,
    /// Wakes what gives the turns, where somebody has to wait for one.
    asked: Arc<Notify>,
    _gives_turns: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct State {
    turns: Turns,
    /// The messages that wait, or may go and were not taken yet.
    asks: HashMap<u64, Ask>,
    /// Bytes that go in one turn.
    turn_bytes: usize,
    last_id: u64,
    /// When what was sent is through.
    free_at: Instant,
}

/// A message of which not all has been sent. A stream that has had a turn waits for its next one at once, not only when its task
/// comes to it: on a busy machine others would have had several by then.
#[derive(Debug)]
struct Ask {
    account: Account,
    waker: Waker,
    /// Bytes that may go.
    granted: usize,
    /// Bytes that wait for their turn.
    asked: usize,
    /// Bytes after those.
    rest: usize,
}

impl Shared {
    fn open(rate: u64) -> Arc<Self> {
        let lead = (rate / 8 * LEAD_MILLIS / 1000).max(LEAST_LEAD);
        let (turns, asks, turn_bytes) = (Turns::new(lead), HashMap::new(), turn_bytes(rate));
        let state = Arc::new(Mutex::new(State { turns, asks, turn_bytes, last_id: 0, free_at: Instant::now() }));
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
    /// Lets the next part of a message wait for its turn.
    fn ask(&mut self, id: u64, goes_on: bool) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.asked = ask.rest.min(self.turn_bytes);
        ask.rest -= ask.asked;
        if ask.asked > 0 {
            self.turns.ask(&ask.account, id, Piece { bytes: on_the_line(ask.asked as u64), goes_on });
        }
    }

    /// Gives the turns whose time has come; those who are to be woken for it.
    fn give_turns(&mut self, pace: u64) -> Vec<Waker> {
        let (now, mut woken) = (Instant::now(), Vec::new());
        while self.free_at <= now {
            let Some((id, bytes)) = self.turns.next() else { break };
            // What an idle line did not carry is lost, but for a burst.
            let from = now.checked_sub(BURST).map_or(self.free_at, |earliest| self.free_at.max(earliest));
            self.free_at = from + time(bytes, pace);
            let Some(ask) = self.asks.get_mut(&id) else { continue };
            ask.granted += std::mem::take(&mut ask.asked);
            woken.push(ask.waker.clone());
            if ask.granted < MOST_AHEAD * self.turn_bytes {
                self.ask(id, true);
            }
        }
        woken
    }

    /// What of a message may go by now. The message is forgotten once all of it went.
    fn take(&mut self, id: u64) -> usize {
        let Some(ask) = self.asks.get_mut(&id) else { return 0 };
        let granted = std::mem::take(&mut ask.granted);
        match (ask.asked, ask.rest) {
            (0, 0) => drop(self.asks.remove(&id)),
            (0, _) => self.ask(id, true),
            _ => {}
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

    const MESSAGE: usize = 100_000;

    fn line(networks: &[&str], rate: Option<u64>) -> LineSettings {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        let weights = [("vip".to_owned(), 3.0)].into();
        LineSettings { networks, rate, fast: rate.is_none(), weights, ..LineSettings::default() }
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

    /// Sends messages, each in as many turns as it takes.
    async fn send(lane: &mut Lane, messages: u64) {
        for _ in 0..messages {
            send_bytes(lane, MESSAGE).await;
        }
    }

    async fn send_bytes(lane: &mut Lane, bytes: usize) {
        let mut sent = 0;
        while sent < bytes {
            sent += poll_fn(|context| lane.poll_turn(bytes - sent, sent > 0, context)).await;
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
    async fn a_line_carries_97_percent_of_its_rate_with_all_headers_and_others_never_wait() {
        let lines = slow();
        let begun = Instant::now();
        send(&mut lines.enter(&who("ann", &[]), at("192.168.0.1")), 1000).await;
        send(&mut lines.enter(&who("ann", &[]), None), 1000).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        send(&mut lines.enter(&who("ann", &[]), at("10.1.2.3")), 101).await;
        // The first piece goes at once, and each further one when the one before is through. Here 1448 of 1526 bytes are data, and
        // 3 packets are a turn.
        let headers = 1526.0 / 1448.0 * (3.0 * 1448.0) / (3.0 * 1448.0 - 31.0);
        let expected = 101.0 * MESSAGE as f64 * headers * 8.0 / (8_000_000.0 * 0.97);
        let took = begun.elapsed().as_secs_f64();
        assert!((took - expected).abs() < 0.005 * expected, "{took} instead of {expected}");
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

    /// Bytes that whole messages of 8 streams of one person and 1 of another bring within some seconds, from the first on.
    async fn side_by_side(rate: u64, message: usize, seconds: [u64; 2]) -> [f64; 2] {
        let lines = Lines::open(&[line(&["10.0.0.0/8"], Some(rate))]);
        let mut tasks = JoinSet::new();
        let had = [const { AtomicU64::new(0) }; 2].map(Arc::new);
        for (who_is, streams) in [("many", 8), ("one", 1)] {
            for _ in 0..streams {
                let mut lane = lines.enter(&who(who_is, &[]), at("10.0.0.1"));
                let had = Arc::clone(&had[usize::from(who_is == "one")]);
                tasks.spawn(async move {
                    // The first message is small, as those of results are.
                    let mut size = 64 << 10;
                    loop {
                        send_bytes(&mut lane, size).await;
                        had.fetch_add(size as u64, Ordering::Relaxed);
                        size = message;
                    }
                });
            }
        }
        tokio::time::sleep(Duration::from_secs(seconds[0])).await;
        let before = had.each_ref().map(|had| had.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs(seconds[1] - seconds[0])).await;
        let after = had.each_ref().map(|had| had.load(Ordering::Relaxed));
        [0, 1].map(|at| (after[at] - before[at]) as f64)
    }

    #[tokio::test(start_paused = true)]
    async fn eight_streams_get_what_one_gets_within_seconds_after_all_begin_too() {
        for (rate, message, seconds) in
            [(10_000_000, 256 << 10, [1, 4]), (10_000_000, 64 << 10, [1, 4]), (100_000_000, 2 << 20, [5, 20])]
        {
            let [many, one] = side_by_side(rate, message, seconds).await;
            let index = (many + one).powi(2) / (2.0 * (many * many + one * one));
            assert!(index >= 0.95, "{index} at {rate}: {many} {one}");
            let carried = (many + one) * 8.0 / (seconds[1] - seconds[0]) as f64;
            assert!(carried > 0.8 * rate as f64 && carried < rate as f64, "{carried} of {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_answer_waits_for_a_few_milliseconds_beside_its_persons_own_pull() {
        let lines = Lines::open(&[line(&["10.0.0.0/8"], Some(10_000_000))]);
        let mut tasks = JoinSet::new();
        pull(&mut tasks, vec![lines.enter(&who("ann", &[]), at("10.0.0.1"))]);
        for round in 0..40 {
            tokio::time::sleep(Duration::from_millis(97)).await;
            let begun = Instant::now();
            let mut small = lines.enter(&who("ann", &[]), at("10.0.0.1"));
            send_bytes(&mut small, 1000).await;
            send_bytes(&mut small, 3000).await;
            // Two turns of the pull, two of its own, and what a timer is late.
            assert!(round < 2 || begun.elapsed() < Duration::from_millis(20), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let lines = slow();
        let enter = |name| lines.enter(&who(name, &[]), at("10.0.0.1"));
        let mut bob = enter("bob");
        send(&mut bob, 1).await;
        let asks =
            async |lane: &mut Lane| poll_fn(|context| Poll::Ready(lane.poll_turn(MESSAGE, false, context))).await;
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

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_for_a_turn_has_the_next_ones_all_the_same() {
        let lines = slow();
        let mut tasks = JoinSet::new();
        let pulls = pull(&mut tasks, vec![lines.enter(&who("ann", &[]), at("10.0.0.1"))]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(pulls.load(Ordering::Relaxed) > 15, "it is old");
        let mut bob = lines.enter(&who("bob", &[]), at("10.0.0.1"));
        let (begun, mut sent) = (Instant::now(), 0);
        while sent < MESSAGE {
            // Its task has much else to do: several turns go by between two looks.
            tokio::time::sleep(Duration::from_millis(20)).await;
            sent += poll_fn(|context| lane_looks(&mut bob, MESSAGE - sent, sent > 0, context)).await;
        }
        let alone = time(on_the_line(MESSAGE as u64), 8_000_000);
        assert!(begun.elapsed() < 2 * alone, "{:?} instead of {alone:?}", begun.elapsed());
    }

    /// What may be sent by now, which may be nothing.
    fn lane_looks(lane: &mut Lane, waiting: usize, goes_on: bool, context: &mut Context<'_>) -> Poll<usize> {
        match lane.poll_turn(waiting, goes_on, context) {
            Poll::Pending => Poll::Ready(0),
            ready => ready,
        }
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
        let is = |address| (lines.defaults(address).is_fast, lines.defaults(address).is_shared);
        assert_eq!([at("10.9.1.1"), at("10.1.1.1"), None].map(is), [(true, false), (false, true), (false, false)]);
        let bytes = |address| lines.enter(&who("ann", &[]), at(address)).message_bytes();
        assert_eq!(["10.1.1.1", "10.9.1.1", "10.9.9.1"].map(bytes), [SLOW_MESSAGE_BYTES, MESSAGE_BYTES, MESSAGE_BYTES]);
        assert_eq!(turn_bytes(10_000_000), 4 * 1448 - 31);
        assert!((32 << 10..=256 << 10).contains(&turn_bytes(1_000_000_000)), "{}", turn_bytes(1_000_000_000));
        let gzip = |address| lines.enter(&who("ann", &[]), at(address)).is_slow_enough_for_gzip();
        assert_eq!(["10.1.1.1", "10.9.1.1", "10.9.9.1", "127.0.0.1"].map(gzip), [true, false, false, false]);
        assert_eq!(lines.prospect(&who("ann", &[]), at("10.1.1.1")), Some(9_204_193));
        assert_eq!(lines.prospect(&who("ann", &[]), at("10.9.1.1")), None);
    }
}
