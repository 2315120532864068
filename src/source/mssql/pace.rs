//! Going gently: chunks sized by the time they take, a rate, pauses, and allowed hours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{DailyHours, SqlServerConnection};
use crate::error::ErrorKind;
use crate::runtime::clock::Clock;
use crate::runtime::fault;
use crate::source::SourceError;

/// Rows of the first chunk: a moment's work on any server.
const FIRST_ROWS: u64 = 10_000;
/// Fewer rows are not worth a statement.
const FEWEST_ROWS: u64 = 500;
/// More would make transactions long, whatever their time.
const MOST_ROWS: u64 = 500_000;

/// Bytes of a chunk: it waits in memory until it is whole, beside those of other readers.
pub(super) const CHUNK_BYTES: u64 = 32 << 20;

/// Paces the chunks of one reader.
pub struct Pace {
    rows: u64,
    chunk_time: Duration,
    pause: Duration,
    /// Bytes a second, where there is a limit.
    rate: Option<f64>,
    hours: Option<DailyHours>,
    clock: Arc<dyn Clock>,
}

impl Pace {
    /// The pace a connection's settings ask for, shared by so many readers.
    pub fn new(settings: &SqlServerConnection, readers: usize, clock: Arc<dyn Clock>) -> Self {
        // As floats, rates are exact up to 8 petabytes a second.
        let rate = settings.rate.map(|bits| bits as f64 / 8.0 / readers.max(1) as f64);
        Self {
            rows: first_rows(),
            chunk_time: settings.chunk_time,
            pause: settings.pause,
            rate,
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
        let took = started.elapsed();
        let factor = self.chunk_time.as_secs_f64() / took.as_secs_f64().max(0.001);
        let by_time = ((self.rows as f64 * factor.clamp(0.5, 2.0)) as u64).clamp(FEWEST_ROWS, MOST_ROWS);
        // A little less than fits, so that rows that are a little larger still do.
        let by_bytes = (CHUNK_BYTES / 4 * 3).saturating_mul(rows) / bytes.max(1);
        self.rows = by_time.min(by_bytes).max(1);
        let due = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate));
        let wait = due.saturating_sub(took).max(self.pause);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
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

/// Rows of the first chunk; a test makes it small by the fault point `source.chunk.small`.
fn first_rows() -> u64 {
    if fault::point("source.chunk.small").is_err() { FEWEST_ROWS } else { FIRST_ROWS }
}
