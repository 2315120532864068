//! What a test can make go wrong, and what it can look at: faults, gates, the log of statements.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::SqlError;
use super::session::Isolation;

/// Faults of the wire. The engine only stores them; the server reads them with [`Faults::wire`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WireFaults {
    /// Close the connection after that many bytes of the next answer.
    pub cut: Option<u64>,
    /// Stop sending after that many bytes of the next answer.
    pub stall: Option<Stall>,
    /// Send one byte of payload in every packet.
    pub split_packets: bool,
    /// Do not answer an attention before [`Faults::release`] or this long.
    pub slow_attention: Option<Duration>,
    /// Send a client that logs in to another address.
    pub routing: Option<(String, u16)>,
    /// Refuse the next log-ins with this error number.
    pub login_failure: Option<i32>,
}

/// A stop in the middle of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Stall {
    /// Bytes of the answer that are still sent.
    pub after_bytes: u64,
    /// How long; `None` until [`Faults::release`].
    pub duration: Option<Duration>,
}

/// One statement or batch a session was asked to run.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenStatement {
    /// The session's number (SPID).
    pub session: u16,
    /// The login.
    pub login: String,
    /// The session's isolation level when the batch began.
    pub isolation: Isolation,
    /// Whether a transaction was open then.
    pub in_transaction: bool,
    /// The whole text of the batch.
    pub text: String,
}

struct Failure {
    contains: String,
    after_rows: u64,
    error: SqlError,
    times: u32,
}

#[derive(Default)]
struct State {
    wire: WireFaults,
    released: u64,
    failures: Vec<Failure>,
    gates: Vec<Arc<GateState>>,
    seen: Vec<SeenStatement>,
}

/// All faults of one database. Cheap to clone; every clone is the same.
#[derive(Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
    connections: Arc<AtomicUsize>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the wire's faults as they stand.
    #[must_use]
    pub fn wire(&self) -> WireFaults {
        self.lock().wire.clone()
    }

    /// Changes the wire's faults.
    pub fn set_wire(&self, change: impl FnOnce(&mut WireFaults)) {
        change(&mut self.lock().wire);
        self.changed.notify_all();
    }

    /// Takes the cut or the stall of the next answer, so that it happens once.
    #[must_use]
    pub fn take_break(&self) -> (Option<u64>, Option<Stall>) {
        let mut state = self.lock();
        (state.wire.cut.take(), state.wire.stall.take())
    }

    /// The next answer's connection is closed after that many bytes.
    pub fn cut(&self, after_bytes: u64) {
        self.set_wire(|wire| wire.cut = Some(after_bytes));
    }

    /// The next answer stops after that many bytes, for a time or (`None`) until [`Faults::release`].
    pub fn stall(&self, after_bytes: u64, duration: Option<Duration>) {
        self.set_wire(|wire| wire.stall = Some(Stall { after_bytes, duration }));
    }

    /// Every packet carries one byte of payload.
    pub fn split_packets(&self, on: bool) {
        self.set_wire(|wire| wire.split_packets = on);
    }

    /// Attentions are answered late.
    pub fn slow_attention(&self, delay: Option<Duration>) {
        self.set_wire(|wire| wire.slow_attention = delay);
    }

    /// Clients that log in are sent to another address.
    pub fn routing(&self, address: Option<SocketAddr>) {
        self.set_wire(|wire| wire.routing = address.map(|address| (address.ip().to_string(), address.port())));
    }

    /// Log-ins fail with this number.
    pub fn login_failure(&self, number: Option<i32>) {
        self.set_wire(|wire| wire.login_failure = number);
    }

    /// Lets go whatever waits for a release: stalls and slow attentions.
    pub fn release(&self) {
        self.lock().released += 1;
        self.changed.notify_all();
    }

    /// How often [`Faults::release`] was called; a stall ends when this grows.
    #[must_use]
    pub fn releases(&self) -> u64 {
        self.lock().released
    }

    /// Batches that contain the text (case does not matter) fail with the error once `after_rows` rows of a result
    /// are out, the next `times` times. With 0 rows the statement does not begin.
    pub fn fail(&self, contains: &str, after_rows: u64, error: SqlError, times: u32) {
        self.lock().failures.push(Failure { contains: contains.to_lowercase(), after_rows, error, times });
    }

    /// Batches that contain the text wait before they run. The gate opens when it is released or dropped.
    #[must_use]
    pub fn hold(&self, contains: &str) -> Gate {
        let gate = Arc::new(GateState { contains: contains.to_lowercase(), ..GateState::default() });
        self.lock().gates.push(Arc::clone(&gate));
        Gate(gate)
    }

    /// Everything the sessions were asked to run since the start or [`Faults::forget_statements`].
    #[must_use]
    pub fn statements(&self) -> Vec<SeenStatement> {
        self.lock().seen.clone()
    }

    /// Empties the log of statements.
    pub fn forget_statements(&self) {
        self.lock().seen.clear();
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn connected(&self, more: bool) {
        if more {
            self.connections.fetch_add(1, Ordering::SeqCst);
        } else {
            self.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn saw(&self, statement: SeenStatement) {
        self.lock().seen.push(statement);
    }

    /// The failure that is due for this text, used up by one: after how many rows, and the error.
    pub(crate) fn due(&self, lower_text: &str) -> Option<(u64, SqlError)> {
        let mut state = self.lock();
        let at =
            state.failures.iter().position(|failure| failure.times > 0 && lower_text.contains(&failure.contains))?;
        let failure = state.failures.get_mut(at)?;
        failure.times -= 1;
        let due = (failure.after_rows, failure.error.clone());
        if failure.times == 0 {
            state.failures.remove(at);
        }
        Some(due)
    }

    /// Waits while a gate holds this text; `false` when `cancelled` said so.
    pub(crate) fn pass_gates(&self, lower_text: &str, cancelled: &dyn Fn() -> bool) -> bool {
        let gates: Vec<_> =
            self.lock().gates.iter().filter(|gate| lower_text.contains(&gate.contains)).map(Arc::clone).collect();
        gates.iter().all(|gate| gate.pass(cancelled))
    }

    /// Opens every gate whose text contains the given one, for tests of another process.
    pub(crate) fn open_gates(&self, contains: &str) {
        let mut state = self.lock();
        let contains = contains.to_lowercase();
        state.gates.retain(|gate| {
            let open = gate.contains.contains(&contains);
            if open {
                gate.open();
            }
            !open
        });
    }

    /// Keeps a gate closed although nobody holds its handle, for tests of another process.
    pub(crate) fn hold_for_the_wire(&self, contains: &str) {
        let gate = Arc::new(GateState { contains: contains.to_lowercase(), ..GateState::default() });
        self.lock().gates.push(gate);
    }

    /// Waits so long unless cancelled; `false` when it was. Tests of time-outs need a statement that takes its time.
    pub(crate) fn wait(&self, delay: Duration, cancelled: &dyn Fn() -> bool) -> bool {
        let end = std::time::Instant::now() + delay;
        let mut state = self.lock();
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || cancelled() {
                return left.is_zero();
            }
            let waited = self.changed.wait_timeout(state, left.min(GLANCE));
            state = waited.map_or_else(|broken| broken.into_inner().0, |(guard, _)| guard);
        }
    }

    /// Takes back every fault and opens every gate.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.wire = WireFaults::default();
        state.failures.clear();
        for gate in state.gates.drain(..) {
            gate.open();
        }
        state.released += 1;
        drop(state);
        self.changed.notify_all();
    }
}

#[derive(Default)]
struct GateState {
    contains: String,
    inside: Mutex<GateInside>,
    changed: Condvar,
}

#[derive(Default)]
struct GateInside {
    open: bool,
    waiting: usize,
    reached: u64,
}

/// How long a waiting session sleeps before it looks whether it was cancelled.
const GLANCE: Duration = Duration::from_millis(20);

impl GateState {
    fn lock(&self) -> MutexGuard<'_, GateInside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) {
        self.lock().open = true;
        self.changed.notify_all();
    }

    fn pass(&self, cancelled: &dyn Fn() -> bool) -> bool {
        let mut inside = self.lock();
        inside.waiting += 1;
        inside.reached += 1;
        self.changed.notify_all();
        while !inside.open && !cancelled() {
            inside = self.changed.wait_timeout(inside, GLANCE).map_or_else(|broken| broken.into_inner().0, |(g, _)| g);
        }
        inside.waiting -= 1;
        inside.open
    }
}

/// A gate that holds statements; see [`Faults::hold`].
pub struct Gate(Arc<GateState>);

impl Gate {
    /// Waits until a statement has come to the gate; `false` when none came in time.
    #[must_use]
    pub fn reached(&self, limit: Duration) -> bool {
        let inside = self.0.lock();
        self.0
            .changed
            .wait_timeout_while(inside, limit, |inside| inside.reached == 0)
            .is_ok_and(|(_, result)| !result.timed_out())
    }

    /// Statements that wait at the gate now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// Opens the gate for good.
    pub fn release(&self) {
        self.0.open();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.open();
    }
}
