//! Going gently: chunks sized by the time they take, a rate, pauses, and allowed hours.
//!
//! Rows that are read by chunks are waited for between two chunks ([`Pace`]), while no transaction is open. Where one
//! statement gives all rows, there is nothing between: it is read more slowly ([`Gentle`]), and the server waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{DailyHours, SqlServerConnection};
use crate::error::ErrorKind;
use crate::runtime::clock::Clock;
use crate::runtime::fault;
use crate::source::SourceError;
use crate::source::mssql::connect::Connections;
use crate::source::mssql::error::SqlServerError;

/// Rows of the first chunk: a moment's work on any server.
const FIRST_ROWS: u64 = 10_000;
/// Fewer rows are not worth a statement.
const FEWEST_ROWS: u64 = 500;
/// More would make transactions long, whatever their time.
const MOST_ROWS: u64 = 500_000;

/// Bytes of a chunk: it waits in memory until it is whole, beside those of other readers.
pub(super) const CHUNK_BYTES: u64 = 32 << 20;

/// The most that is read from a database in a second, by all who read from it.
#[derive(Debug)]
pub struct Rate {
    bytes_per_second: f64,
    /// When all that was read would have come at this rate.
    paid: Mutex<Instant>,
}

impl Rate {
    /// So many bits a second.
    pub fn new(bits_per_second: u64) -> Self {
        // As floats, rates are exact up to 8 petabytes a second.
        Self { bytes_per_second: bits_per_second as f64 / 8.0, paid: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes, of which the first came at `begun`, would have come at this rate.
    async fn wait(&self, bytes: u64, begun: Instant) {
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            *paid = (*paid).max(begun) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
            *paid
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Paces the chunks of one reader.
pub struct Pace {
    rows: u64,
    chunk_time: Duration,
    pause: Duration,
    rate: Option<Arc<Rate>>,
    hours: Option<DailyHours>,
    clock: Arc<dyn Clock>,
}

impl Pace {
    /// The pace a connection's settings ask for.
    pub fn new(connections: &Connections, settings: &SqlServerConnection, clock: Arc<dyn Clock>) -> Self {
        Self {
            rows: first_rows(),
            chunk_time: settings.chunk_time,
            pause: settings.pause,
            rate: connections.rate(settings),
            hours: settings.hours,
            clock,
        }
    }

    /// Rows of the next chunk.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes note of a chunk of so many rows and bytes, and waits as long as the settings ask for.
    pub async fn after_chunk(&mut self, started: Instant, rows: u64, bytes: u64) {
        // Without rows it tells nothing of the next.
        if rows > 0 {
            let factor = self.chunk_time.as_secs_f64() / started.elapsed().as_secs_f64().max(0.001);
            let by_time = ((self.rows as f64 * factor.clamp(0.5, 2.0)) as u64).clamp(FEWEST_ROWS, MOST_ROWS);
            // A little less than fits, so that rows that are a little larger still do.
            let by_bytes = (CHUNK_BYTES / 4 * 3).saturating_mul(rows) / bytes.max(1);
            self.rows = by_time.min(by_bytes).max(1);
        }
        let paused = async {
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        };
        let paid = async {
            if let Some(rate) = &self.rate {
                rate.wait(bytes, started).await;
            }
        };
        tokio::join!(paused, paid);
    }

    /// Checks that reading is allowed at this time of day.
    ///
    /// # Errors
    /// `DeadlineExceeded` outside the connection's hours: to try again at once would not help.
    pub fn check_hours(&self) -> Result<(), SourceError> {
        check_hours(self.hours.as_ref(), self.clock.as_ref())
    }
}

/// Checks that reading is allowed at this time of day.
///
/// # Errors
/// `DeadlineExceeded` outside the hours: to try again at once would not help.
pub(super) fn check_hours(hours: Option<&DailyHours>, clock: &dyn Clock) -> Result<(), SourceError> {
    match hours {
        Some(hours) if !hours.contains(clock.now().time()) => Err(SourceError::new(
            ErrorKind::DeadlineExceeded,
            format!(
                "outside the hours of the connection ({} to {} UTC); what was read is kept, and the load goes on then",
                hours.from.format("%H:%M"),
                hours.to.format("%H:%M")
            ),
        )),
        _ => Ok(()),
    }
}

/// Paces the rows of one long statement: at the connection's rate, with a pause whenever a chunk's time has passed, and
/// only within the allowed hours.
#[derive(Clone)]
pub struct Gentle {
    every: Duration,
    pause: Duration,
    rate: Option<Arc<Rate>>,
    hours: Option<DailyHours>,
    clock: Arc<dyn Clock>,
    /// Since when rows are read without a pause, and since when without any wait.
    begun: Instant,
    waited: Instant,
}

impl Gentle {
    /// As a connection's settings ask for; none where they ask for nothing.
    pub(super) fn new(
        connections: &Connections,
        settings: &SqlServerConnection,
        clock: &Arc<dyn Clock>,
    ) -> Option<Self> {
        let gentle = Self {
            every: settings.chunk_time,
            pause: settings.pause,
            rate: connections.rate(settings),
            hours: settings.hours,
            clock: Arc::clone(clock),
            begun: Instant::now(),
            waited: Instant::now(),
        };
        (gentle.rate.is_some() || gentle.hours.is_some() || !gentle.pause.is_zero()).then_some(gentle)
    }

    /// Waits after so many more bytes as long as the settings ask for.
    ///
    /// # Errors
    /// `DeadlineExceeded` outside the hours.
    pub(super) async fn after(&mut self, bytes: u64, doing: &str) -> Result<(), SqlServerError> {
        if let Some(rate) = &self.rate {
            rate.wait(bytes, self.waited).await;
            self.waited = Instant::now();
        }
        if self.begun.elapsed() < self.every {
            return Ok(());
        }
        if let Some(hours) = self.hours.filter(|hours| !hours.contains(self.clock.now().time())) {
            let text = format!(
                "the hours of the connection ({} to {} UTC) are over, and what one statement reads cannot go on another                  day; it is read anew within them",
                hours.from.format("%H:%M"),
                hours.to.format("%H:%M")
            );
            return Err(SqlServerError::line(doing, ErrorKind::DeadlineExceeded, text));
        }
        tokio::time::sleep(self.pause).await;
        self.begun = Instant::now();
        Ok(())
    }
}

/// Rows of the first chunk; a test makes it small by the fault point `source.chunk.small`.
fn first_rows() -> u64 {
    if fault::point("source.chunk.small").is_err() { FEWEST_ROWS } else { FIRST_ROWS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::ManualClock;

    fn gentle(pause: Duration, hours: Option<DailyHours>, clock: &Arc<ManualClock>) -> Gentle {
        Gentle {
            every: Duration::ZERO,
            pause,
            rate: None,
            hours,
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            begun: Instant::now(),
            waited: Instant::now(),
        }
    }

    #[tokio::test]
    async fn a_chunk_without_rows_tells_nothing_of_the_next() {
        let clock = Arc::new(ManualClock::new("2026-01-01T05:59:00Z".parse().unwrap()));
        let mut pace = Pace {
            rows: 40_000,
            chunk_time: Duration::from_secs(3_600),
            pause: Duration::ZERO,
            rate: None,
            hours: None,
            clock,
        };
        pace.after_chunk(Instant::now(), 0, 0).await;
        assert_eq!(pace.rows(), 40_000);
        pace.after_chunk(Instant::now(), 3, 300).await;
        assert_eq!(pace.rows(), 80_000);
        // As many of 1 MiB as fit.
        pace.after_chunk(Instant::now(), 10, 10 << 20).await;
        assert_eq!(pace.rows(), 24);
    }

    #[tokio::test]
    async fn a_long_statement_is_given_up_when_the_hours_are_over() {
        let clock = Arc::new(ManualClock::new("2026-01-01T05:59:00Z".parse().unwrap()));
        let at = |hour| chrono::NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
        let hours = DailyHours { from: at(22), to: at(6) };
        let mut gentle = gentle(Duration::ZERO, Some(hours), &clock);
        gentle.after(1, "reading").await.unwrap();
        clock.advance(Duration::from_secs(120));
        let error = gentle.after(1, "reading").await.unwrap_err();
        assert_eq!(crate::error::Classify::kind(&error), ErrorKind::DeadlineExceeded);
        assert!(error.to_string().contains("22:00 to 06:00"), "{error}");
    }

    #[tokio::test]
    async fn a_long_statement_pauses_whenever_a_chunk_would_have() {
        let clock = Arc::new(ManualClock::new("2026-01-01T05:59:00Z".parse().unwrap()));
        let mut gentle = gentle(Duration::from_millis(20), None, &clock);
        let begun = Instant::now();
        for _ in 0..3 {
            gentle.after(1, "reading").await.unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(60));
        gentle.every = Duration::from_secs(3_600);
        let begun = Instant::now();
        gentle.after(1, "reading").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_rate_is_shared_by_all_who_read() {
        let rate = Rate::new(8 * 1_000_000);
        let begun = Instant::now();
        // Each of them has read for no time at all.
        tokio::join!(rate.wait(30_000, begun), rate.wait(30_000, begun), rate.wait(40_000, begun));
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        // What took longer than it had to does not wait.
        let rate = Rate::new(8 * 1_000_000_000);
        let begun = Instant::now();
        rate.wait(1, begun).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
