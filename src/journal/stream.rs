//! One result on its way to a client, as `system.streams` tells it, and the lines that results go over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// How far back a rate looks: what was sent so long ago counts for little more than a third.
const MEMORY: Duration = Duration::from_secs(5);
/// A stream's rate is that over its whole life where it is younger than [`MEMORY`], but never over less than this.
const YOUNGEST: Duration = Duration::from_millis(200);

/// Bytes in a second, lately: an average in which what was sent counts the less the longer ago it was.
#[derive(Debug)]
pub struct Flow {
    begun: Instant,
    average: Mutex<Average>,
}

#[derive(Debug)]
struct Average {
    bytes_per_second: f64,
    at: Instant,
}

impl Flow {
    /// Nothing sent yet.
    pub fn new() -> Self {
        let begun = Instant::now();
        Self { begun, average: Mutex::new(Average { bytes_per_second: 0.0, at: begun }) }
    }

    /// Counts bytes that are sent now.
    pub fn count(&self, bytes: u64) {
        let mut average = self.average.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        average.bytes_per_second = average.aged(now) + bytes as f64 / MEMORY.as_secs_f64();
        average.at = now;
    }

    /// Bytes in a second, as if what was before the first had been nothing: what can be compared with others.
    fn raw(&self) -> f64 {
        self.average.lock().unwrap_or_else(PoisonError::into_inner).aged(Instant::now())
    }

    /// Bytes in a second.
    fn rate(&self) -> f64 {
        let age = self.begun.elapsed().max(YOUNGEST);
        self.raw() / (1.0 - (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp())
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

impl Average {
    fn aged(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        self.bytes_per_second * (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

/// A line, as far as those who use it are told of it.
#[derive(Debug)]
pub struct LineFlow {
    /// What it is called.
    pub name: String,
    /// What it carries, in bits per second; none where it is not shared out.
    pub rate: Option<u64>,
    /// What goes over it.
    pub flow: Flow,
}

/// How a result on its way stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRecord {
    /// The run whose result it is.
    pub query_id: Uuid,
    /// Who asked.
    pub principal: String,
    /// The line it goes over; none where the client is behind none.
    pub line: Option<String>,
    /// What that carries, in bits per second; none where it is not shared out.
    pub line_rate: Option<u64>,
    /// Bits per second it got lately.
    pub rate: u64,
    /// Its part of what the line carried lately, 0 to 1; none without a line, and where that carried nothing.
    pub share: Option<f64>,
    /// Bytes handed to the connection.
    pub bytes: u64,
    /// Microseconds its messages waited for the line.
    pub wait_micros: u64,
}

/// A result on its way: what is written by whoever sends it, and read by whoever looks.
#[derive(Debug)]
pub struct RunningStream {
    query_id: Uuid,
    principal: String,
    line: Option<Arc<LineFlow>>,
    flow: Flow,
    bytes: AtomicU64,
    wait_micros: AtomicU64,
}

impl RunningStream {
    /// Begins now.
    pub fn begin(query_id: Uuid, principal: String, line: Option<Arc<LineFlow>>) -> Self {
        let (bytes, wait_micros) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { query_id, principal, line, flow: Flow::new(), bytes, wait_micros }
    }

    /// A message was handed to the connection, after it had waited for the line for so long.
    pub fn sent(&self, bytes: u64, waited: Duration) {
        self.flow.count(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.wait_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How it stands.
    pub fn now(&self) -> StreamRecord {
        let line = self.line.as_deref();
        let carried = line.map(|line| line.flow.raw()).filter(|carried| *carried >= 1.0);
        StreamRecord {
            query_id: self.query_id,
            principal: self.principal.clone(),
            line: line.map(|line| line.name.clone()),
            line_rate: line.and_then(|line| line.rate),
            rate: (self.flow.rate() * 8.0) as u64,
            share: carried.map(|carried| (self.flow.raw() / carried).min(1.0)),
            bytes: self.bytes.load(Ordering::Relaxed),
            wait_micros: self.wait_micros.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_is_told_at_its_rate_whatever_its_age_and_a_silent_one_fades() {
        let line = Arc::new(LineFlow { name: "10.0.0.0/8".to_owned(), rate: Some(8_000_000), flow: Flow::new() });
        let stream = RunningStream::begin(Uuid::new_v4(), "ann".to_owned(), Some(Arc::clone(&line)));
        assert_eq!((stream.now().rate, stream.now().share), (0, None));
        for second in 1..=30 {
            for _ in 0..10 {
                tokio::time::advance(Duration::from_millis(100)).await;
                stream.sent(50_000, Duration::from_millis(10));
                line.flow.count(100_000);
            }
            let told = stream.now();
            assert!((3_800_000..4_300_000).contains(&told.rate), "{second}: {told:?}");
            assert!((told.share.unwrap() - 0.5).abs() < 0.01, "{told:?}");
        }
        assert_eq!((stream.now().bytes, stream.now().wait_micros), (15_000_000, 3_000_000));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(stream.now().rate < 1_000, "{:?}", stream.now());
    }
}
