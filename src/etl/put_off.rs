//! Since when changes have been put off by the write budget.
//!
//! A change counts as waiting from the first load that put it off: a database does not say when it came about. Loads of
//! one process remember that; what another process did before stands in the journal, which is read once, when it is asked
//! for a table of which nothing is known yet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use tokio::sync::OnceCell;

use crate::journal::{Journal, JournalError, LoadRecord, LoadStatus};
use crate::model::TableName;

/// Since when changes of tables wait.
#[derive(Default)]
pub(super) struct PutOff {
    /// By tables that were loaded by this process; none where nothing waits.
    known: Mutex<HashMap<TableName, Option<DateTime<Utc>>>>,
    before: OnceCell<HashMap<TableName, DateTime<Utc>>>,
}

impl PutOff {
    /// Takes note of how a load ended.
    pub(super) fn note(&self, load: &LoadRecord) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match load.status {
            LoadStatus::Failed => {}
            LoadStatus::Committed | LoadStatus::Unchanged => drop(known.insert(load.table.clone(), None)),
            LoadStatus::Deferred => {
                let before = self.before.get().and_then(|before| before.get(&load.table).copied());
                let since = known.entry(load.table.clone()).or_insert(before);
                *since = Some(since.map_or(load.started_at, |since| since.min(load.started_at)));
            }
        }
    }

    /// Since when the oldest change of these tables waits; none where none was put off.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) async fn since(
        &self,
        tables: &[TableName],
        journal: &Journal,
    ) -> Result<Option<DateTime<Utc>>, JournalError> {
        let before = self.before.get_or_try_init(|| read(journal)).await?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |table| known.get(table).copied().unwrap_or_else(|| before.get(table).copied());
        Ok(tables.iter().filter_map(since).min())
    }
}

async fn read(journal: &Journal) -> Result<HashMap<TableName, DateTime<Utc>>, JournalError> {
    let mut loads = journal.stream().await?;
    let mut tables: HashMap<TableName, History> = HashMap::new();
    while let Some(loads) = loads.try_next().await? {
        for load in loads {
            tables.entry(load.table.clone()).or_default().add(&load);
        }
    }
    Ok(tables.into_iter().filter_map(|(table, history)| Some((table, history.waiting_since()?))).collect())
}

/// What matters of a table's loads, which come in no order.
#[derive(Default)]
struct History {
    /// The end of the last load after which nothing waited.
    settled: Option<DateTime<Utc>>,
    /// Loads that put a change off, by their ends: their beginnings.
    put_off: BTreeMap<DateTime<Utc>, DateTime<Utc>>,
}

impl History {
    fn add(&mut self, load: &LoadRecord) {
        match load.status {
            LoadStatus::Failed => {}
            LoadStatus::Committed | LoadStatus::Unchanged => {
                let settled = self.settled.map_or(load.ended_at, |settled| settled.max(load.ended_at));
                self.settled = Some(settled);
                // None of those before it waits any more.
                self.put_off = self.put_off.split_off(&settled);
            }
            LoadStatus::Deferred if Some(load.ended_at) > self.settled => {
                self.put_off.insert(load.ended_at, load.started_at);
            }
            LoadStatus::Deferred => {}
        }
    }

    fn waiting_since(self) -> Option<DateTime<Utc>> {
        self.put_off.into_values().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(status: LoadStatus, second: i64) -> LoadRecord {
        let at = |second| DateTime::from_timestamp(second, 0).unwrap();
        LoadRecord {
            load_id: uuid::Uuid::nil(),
            table: "s.t".parse().unwrap(),
            started_at: at(second),
            ended_at: at(second + 1),
            status,
            rows_read: 0,
            rows_written: 0,
            rows_rejected: 0,
            bytes_read: 0,
            bytes_written: 0,
            version: None,
            attempt: None,
            position: None,
            error_kind: None,
            error: None,
            written: None,
        }
    }

    #[test]
    fn a_change_waits_from_the_first_load_that_put_it_off() {
        use LoadStatus::{Committed, Deferred, Failed, Unchanged};
        let loads = [(Deferred, 10), (Committed, 20), (Unchanged, 30), (Deferred, 40), (Failed, 50), (Deferred, 60)];
        let mut orders = vec![loads.to_vec(), loads.iter().rev().copied().collect::<Vec<_>>()];
        orders.push([3, 0, 5, 1, 4, 2].map(|place| loads[place]).to_vec());
        for order in orders {
            let mut history = History::default();
            order.into_iter().for_each(|(status, second)| history.add(&load(status, second)));
            assert_eq!(history.waiting_since().map(|since| since.timestamp()), Some(40));
        }
        let mut settled = History::default();
        settled.add(&load(Deferred, 10));
        settled.add(&load(Unchanged, 20));
        assert_eq!(settled.waiting_since(), None);
    }
}
