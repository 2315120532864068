//! Statements whose answer hangs on their text alone, such as the `select 1` with which pools and dashboards see whether
//! anybody is there: planned and computed once, and answered from memory from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::access::Principal;
use crate::query::{Planned, Statement, StatementOptions, identity};

/// Statements kept; each holds a copy of the engine's settings, some tens of KiB. Beyond that all are forgotten.
const MOST: usize = 64;

/// The statements that were planned before.
#[derive(Default)]
pub(crate) struct Constants(Mutex<HashMap<String, Planned>>);

impl Constants {
    /// What a statement is known by; none where its text does not tell that it may be a constant.
    pub(crate) fn key(statement: &Statement, principal: &Principal, longest: usize) -> Option<String> {
        let Statement { sql, parameters, pins, options } = statement;
        let is_plain = parameters.is_empty() && pins.is_empty() && options.since.is_empty() && options.rights.is_none();
        if !is_plain || sql.len() >= longest || identity::may_be_named(sql) {
            return None;
        }
        let options = StatementOptions { now: None, ..options.clone() };
        Some(format!("{principal:?} {options:?} {sql}"))
    }

    /// The same as it was planned before, for a statement of now.
    pub(crate) fn planned(&self, key: &str, options: &StatementOptions) -> Option<Planned> {
        let mut planned = self.lock().get(key)?.clone();
        planned.statement.options.now = options.now;
        planned.memory = Arc::default();
        Some(planned)
    }

    /// Keeps what was found to be a constant.
    pub(crate) fn keep(&self, key: String, planned: &Planned) {
        let mut kept = self.lock();
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(key, planned.clone());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Planned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a constant.
#[derive(Clone, Debug)]
pub(crate) struct ConstantRows {
    /// Their columns.
    pub(crate) schema: SchemaRef,
    /// The rows.
    pub(crate) batches: Vec<RecordBatch>,
}

impl ConstantRows {
    /// The rows as the stream of a run.
    pub(crate) fn stream(self) -> SendableRecordBatchStream {
        let batches = futures::stream::iter(self.batches.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(self.schema, batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::TablePins;

    fn statement(sql: &str) -> Statement {
        let (sql, pins) = (sql.to_owned(), TablePins::new());
        Statement { sql, parameters: vec![], pins, options: StatementOptions::default() }
    }

    #[test]
    fn what_hangs_on_more_than_its_text_has_no_key() {
        let ann = Principal { name: "ann".to_owned(), roles: [].into() };
        let key = |statement: &Statement| Constants::key(statement, &ann, 64);
        assert!(key(&statement("select 1")).is_some());
        assert!(key(&statement("select current_user()")).is_none());
        assert!(key(&statement(&"x".repeat(64))).is_none());
        let bound = Statement { parameters: vec![datafusion::common::ScalarValue::Null], ..statement("select ?") };
        assert!(key(&bound).is_none());
        let pinned = Statement { pins: [("a.b".parse().unwrap(), 1)].into(), ..statement("select 1") };
        assert!(key(&pinned).is_none());
    }

    #[test]
    fn people_and_options_are_kept_apart_and_times_are_not() {
        let (ann, bob) = (
            Principal { name: "ann".to_owned(), roles: [].into() },
            Principal { name: "bob".to_owned(), roles: [].into() },
        );
        let plain = statement("select 1");
        let key = |statement: &Statement, who| Constants::key(statement, who, 64);
        assert_ne!(key(&plain, &ann), key(&plain, &bob));
        let mut elsewhere = plain.clone();
        elsewhere.options.time_zone = "Europe/Vienna".to_owned();
        assert_ne!(key(&plain, &ann), key(&elsewhere, &ann));
        let mut later = plain.clone();
        later.options.now = Some(chrono::DateTime::UNIX_EPOCH);
        assert_eq!(key(&plain, &ann), key(&later, &ann));
    }
}
