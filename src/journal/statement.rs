//! One run of one statement, as `system.queries` tells it, while it runs and afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::model::TableName;

/// Where a run of a statement is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryStatus {
    /// It waits for its turn.
    Queued,
    /// It is planned, computes, or is being sent.
    Running,
    /// All its rows were handed to the connection.
    Finished,
    /// It was stopped on request, or its client went away.
    Cancelled,
    /// The error says why.
    Failed,
}

impl QueryStatus {
    /// As `system.queries` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// Whose work a run took its rows from, where it was not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedFrom {
    /// They were being made for another run.
    Run,
    /// They had been made before, and were kept.
    Disk,
}

impl SharedFrom {
    /// As `system.queries` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Disk => "disk",
        }
    }
}

/// Who asked what, from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryOrigin {
    /// Names the run; `lakegate kill` takes it.
    pub query_id: Uuid,
    /// The session it belongs to.
    pub session_id: Uuid,
    /// Who asked.
    pub principal: String,
    /// Where the connection comes from.
    pub address: Option<String>,
    /// What the client's program calls itself.
    pub client: String,
    /// The statement as far as the configuration lets it be kept.
    pub text: Option<String>,
    /// When it was asked.
    pub started_at: DateTime<Utc>,
}

/// What a run has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryFigures {
    /// Rows handed to the connection.
    pub rows: u64,
    /// Bytes of these rows before they were compressed.
    pub raw_bytes: u64,
    /// Bytes handed to the connection.
    pub sent_bytes: u64,
    /// Memory that was reserved at most, in bytes.
    pub peak_memory: u64,
    /// Microseconds it waited for its turn.
    pub queue_micros: u64,
    /// Microseconds planning took.
    pub plan_micros: u64,
    /// Microseconds somebody waited for the engine.
    pub run_micros: u64,
    /// Microseconds the engine waited for the line and the client.
    pub send_micros: u64,
}

/// One run of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// Who asked what.
    #[serde(flatten)]
    pub origin: QueryOrigin,
    /// When it ended; none while it runs.
    pub ended_at: Option<DateTime<Utc>>,
    /// Where it is, or how it ended.
    pub status: QueryStatus,
    /// Tables it reads, each with the version.
    pub tables: BTreeMap<TableName, u64>,
    /// What it has cost.
    #[serde(flatten)]
    pub figures: QueryFigures,
    /// The kind of failure.
    pub error_kind: Option<ErrorKind>,
    /// What failed, and what to do; kept where texts are kept in full.
    pub error: Option<String>,
    /// Whose work it took its rows from; none where they were made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_from: Option<SharedFrom>,
}

/// A run that has not ended: what is written by whoever runs it, and read by whoever looks.
#[derive(Debug)]
pub struct RunningQuery {
    /// Who asked what.
    pub origin: QueryOrigin,
    begun: Instant,
    tables: Mutex<Arc<BTreeMap<TableName, u64>>>,
    /// Rows handed to the connection.
    pub rows: AtomicU64,
    /// Their bytes before they were compressed.
    pub raw_bytes: AtomicU64,
    /// Bytes handed to the connection.
    pub sent_bytes: AtomicU64,
    /// Memory that was reserved at most.
    pub peak_memory: AtomicU64,
    /// Set when its turn came; zero while it waits.
    turn_micros: AtomicU64,
    /// Microseconds it waited for its turn since then, again.
    waited_micros: AtomicU64,
    plan_micros: AtomicU64,
    run_micros: AtomicU64,
    shared_from: OnceLock<SharedFrom>,
}

impl RunningQuery {
    /// Begins now; it waits for its turn.
    pub fn begin(origin: QueryOrigin) -> Self {
        Self {
            origin,
            begun: Instant::now(),
            tables: Mutex::default(),
            rows: AtomicU64::new(0),
            raw_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            peak_memory: AtomicU64::new(0),
            turn_micros: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            plan_micros: AtomicU64::new(0),
            run_micros: AtomicU64::new(0),
            shared_from: OnceLock::new(),
        }
    }

    /// Its turn has come.
    pub fn takes_turn(&self) {
        self.turn_micros.store(micros(self.begun.elapsed()).max(1), Ordering::Relaxed);
    }

    /// It had to wait for its turn once more.
    pub fn waited_again(&self, time: Duration) {
        self.waited_micros.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// It was planned, in so much time.
    pub fn planned(&self, time: Duration, tables: &BTreeMap<TableName, u64>) {
        self.plan_micros.store(micros(time), Ordering::Relaxed);
        if !tables.is_empty() {
            *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables.clone());
        }
    }

    /// It takes its rows from another's work.
    pub fn shares(&self, from: SharedFrom) {
        let _ = self.shared_from.set(from);
    }

    /// Somebody has waited for the engine for so long by now.
    pub fn ran(&self, time: Duration) {
        self.run_micros.store(micros(time), Ordering::Relaxed);
    }

    /// How it stands.
    pub fn now(&self) -> QueryRecord {
        let (turn, read) = (self.turn_micros.load(Ordering::Relaxed), Ordering::Relaxed);
        let all = micros(self.begun.elapsed());
        let queue_micros = if turn == 0 { all } else { turn.saturating_add(self.waited_micros.load(read)) };
        let (plan_micros, run_micros) = (self.plan_micros.load(read), self.run_micros.load(read));
        let figures = QueryFigures {
            rows: self.rows.load(read),
            raw_bytes: self.raw_bytes.load(read),
            sent_bytes: self.sent_bytes.load(read),
            peak_memory: self.peak_memory.load(read),
            queue_micros,
            plan_micros,
            run_micros,
            send_micros: all.saturating_sub(queue_micros + plan_micros + run_micros),
        };
        QueryRecord {
            origin: self.origin.clone(),
            ended_at: None,
            status: if turn == 0 { QueryStatus::Queued } else { QueryStatus::Running },
            tables: self.tables.lock().unwrap_or_else(PoisonError::into_inner).as_ref().clone(),
            figures,
            error_kind: None,
            error: None,
            shared_from: self.shared_from.get().copied(),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> QueryOrigin {
        QueryOrigin {
            query_id: Uuid::new_v4(),
            session_id: Uuid::new_v4(),
            principal: "ann".to_owned(),
            address: None,
            client: String::new(),
            text: Some("select 1".to_owned()),
            started_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_run_is_queued_until_its_turn_and_times_add_up() {
        let run = RunningQuery::begin(origin());
        assert_eq!(run.now().status, QueryStatus::Queued);
        run.takes_turn();
        run.planned(Duration::from_micros(5), &BTreeMap::from([("a.b".parse().unwrap(), 3)]));
        run.ran(Duration::from_micros(7));
        run.waited_again(Duration::from_micros(11));
        let record = run.now();
        assert_eq!((record.status, record.tables.len()), (QueryStatus::Running, 1));
        let figures = record.figures;
        assert_eq!((figures.plan_micros, figures.run_micros), (5, 7));
        assert!(figures.queue_micros >= 12, "{figures:?}");
    }

    #[test]
    fn a_record_is_one_flat_line() {
        let line = serde_json::to_value(RunningQuery::begin(origin()).now()).unwrap();
        assert_eq!((line["principal"].as_str(), line["rows"].as_u64()), (Some("ann"), Some(0)));
        let read: QueryRecord = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), line);
    }
}
