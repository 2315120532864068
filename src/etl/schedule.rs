//! Loading tables when they are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;

use crate::config::Schedule;
use crate::error::chain_text;
use crate::etl::group::{self, Unit};
use crate::etl::{Loads, Progress, SyncOptions, SyncReport};
use crate::journal::LoadStatus;
use crate::model::TableName;
use crate::runtime::shutdown::Shutdown;

/// How often what happened is written into the journal: `system.loads` of another process is that much
/// behind, and two hundred tables loaded every half minute do not make two hundred small objects.
const JOURNAL_EVERY: Duration = Duration::from_secs(5);
/// Tables whose loads begin within this time share one question whether anything happened to their database; within half
/// of their period, where that is shorter. A change may be found that much later.
const SHARED_AT_MOST: Duration = Duration::from_secs(1);
/// Longest sleep in one piece: the time of day may be set while one sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Loads {
    /// Loads each table that has a schedule whenever it is due, until the shutdown is asked for; then running
    /// loads commit or give up, and it returns. Of one table, or one group, there is one load at a time.
    pub async fn run_schedule(&self, shutdown: &Shutdown, progress: Arc<dyn Progress>) {
        let definitions = &self.0.settings.tables;
        let due: Vec<TableName> = definitions
            .values()
            .filter(|table| table.load.schedule.is_some())
            .map(|table| table.name.clone())
            .collect();
        let mut tasks = JoinSet::new();
        for unit in group::units(definitions, &due) {
            let (loads, shutdown, progress) = (self.clone(), shutdown.clone(), Arc::clone(&progress));
            tasks.spawn(async move { loads.run_unit_when_due(&unit, &shutdown, &progress).await });
        }
        let finished = async {
            while let Some(task) = tasks.join_next().await {
                if let Err(error) = task {
                    tracing::error!(%error, "loads of a table broke off and are not scheduled any more");
                }
            }
            shutdown.requested().await;
        };
        tokio::select! {
            () = finished => {}
            () = self.write_journal() => {}
        }
        self.flush_journal().await;
    }

    async fn run_unit_when_due(&self, unit: &Unit, shutdown: &Shutdown, progress: &Arc<dyn Progress>) {
        let mut last_end = None;
        while let Some(due) = self.due(unit, last_end) {
            if !self.sleep_until(due, shutdown).await {
                return;
            }
            let asked = Instant::now().checked_sub(self.shared_for(unit));
            let options = SyncOptions { asked, stop: shutdown.clone(), ..SyncOptions::default() };
            tell(&self.run_unit(unit, &options, progress).await);
            last_end = Some(self.0.clock.now());
        }
    }

    /// When the unit is due: with the first of its members.
    fn due(&self, unit: &Unit, last_end: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let now = self.0.clock.now();
        let schedules =
            unit.members.iter().filter_map(|table| self.0.settings.tables.get(table)?.load.schedule.as_ref());
        schedules.filter_map(|schedule| next_due(schedule, now, last_end)).min()
    }

    /// How old an answer that another table got from their database may be.
    fn shared_for(&self, unit: &Unit) -> Duration {
        let schedules =
            unit.members.iter().filter_map(|table| self.0.settings.tables.get(table)?.load.schedule.as_ref());
        let halves = schedules.filter_map(|schedule| match schedule {
            Schedule::Every(period) => Some(*period / 2),
            Schedule::Cron(_) => None,
        });
        halves.min().unwrap_or(SHARED_AT_MOST).min(SHARED_AT_MOST)
    }

    /// False when the shutdown came first.
    async fn sleep_until(&self, due: DateTime<Utc>, shutdown: &Shutdown) -> bool {
        loop {
            if shutdown.is_requested() {
                return false;
            }
            let Ok(left) = (due - self.0.clock.now()).to_std() else { return true };
            if left.is_zero() {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
                () = shutdown.requested() => return false,
            }
        }
    }

    async fn write_journal(&self) {
        loop {
            tokio::time::sleep(JOURNAL_EVERY).await;
            self.flush_journal().await;
        }
    }

    async fn flush_journal(&self) {
        if let Err(error) = self.0.journal.flush().await {
            tracing::warn!(error = %chain_text(&error), "loads are not noted in the journal yet");
        }
    }
}

/// When a schedule is due next: a period counts from the end of the last load and begins at once, a cron line
/// names times in UTC. None when a cron line never comes again.
fn next_due(schedule: &Schedule, now: DateTime<Utc>, last_end: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match schedule {
        Schedule::Every(period) => Some(match last_end {
            None => now,
            Some(end) => end + TimeDelta::from_std(*period).unwrap_or(TimeDelta::MAX),
        }),
        Schedule::Cron(cron) => cron.find_next_occurrence(&now, false).ok(),
    }
}

/// Tells the log how loads that nobody watches ended.
fn tell(report: &SyncReport) {
    for outcome in &report.tables {
        let record = &outcome.record;
        let (table, rejected) = (&record.table, record.rows_rejected);
        match record.status {
            LoadStatus::Failed => {
                let error = record.error.as_deref().unwrap_or_default();
                let kind = record.error_kind.map(crate::error::ErrorKind::as_str).unwrap_or_default();
                tracing::warn!(%table, kind, error, "load failed");
            }
            LoadStatus::Committed => {
                tracing::info!(%table, version = record.version, rows = record.rows_written, rejected, "loaded");
            }
            LoadStatus::Deferred => tracing::info!(%table, note = outcome.note, "load put off"),
            LoadStatus::Unchanged => tracing::debug!(%table, "nothing new"),
        }
        for reason in &outcome.reject_reasons {
            tracing::warn!(%table, reason, "rows rejected");
        }
    }
    for problem in &report.problems {
        tracing::warn!(problem, "load finished with a problem");
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_begins_at_once_and_counts_from_the_end() {
        let every = Schedule::Every(Duration::from_secs(30));
        let now = at("2026-03-01T10:00:00Z");
        assert_eq!(next_due(&every, now, None), Some(now));
        assert_eq!(next_due(&every, now, Some(now)), Some(at("2026-03-01T10:00:30Z")));
    }

    #[test]
    fn a_cron_line_names_times_in_utc_and_missed_ones_are_not_made_up_for() {
        let cron = Schedule::Cron(Box::new(croner::Cron::from_str("0 * * * *").unwrap()));
        let now = at("2026-03-01T10:20:00Z");
        assert_eq!(next_due(&cron, now, None), Some(at("2026-03-01T11:00:00Z")));
        assert_eq!(next_due(&cron, at("2026-03-01T12:00:00Z"), Some(now)), Some(at("2026-03-01T13:00:00Z")));
    }
}
