//! Tables that are loaded and published together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use crate::config::{TableDefinition, TableSource};
use crate::error::Classify;
use crate::etl::load::{Figures, Load, Member};
use crate::etl::sync::{broken_off, patience};
use crate::etl::{EtlError, Loads, Progress, SyncOptions, SyncReport, TableOutcome};
use crate::journal::LoadStatus;
use crate::lake::Lake;
use crate::model::TableName;
use crate::source::mssql::group::Seat;

/// Tables that are loaded together: one table, or all members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) group: Option<String>,
    pub(super) members: Vec<TableName>,
    /// Whether the members are read at one moment, and so are loaded all or none.
    pub(super) at_one_moment: bool,
}

/// The units that hold the named tables, each once, in order. A member of a group brings the others along:
/// alone it could not be published.
pub(super) fn units(definitions: &BTreeMap<TableName, TableDefinition>, tables: &[TableName]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for table in tables {
        if units.iter().any(|unit| unit.members.contains(table)) {
            continue;
        }
        let group = definitions.get(table).and_then(|definition| definition.load.group.clone());
        let members: Vec<TableName> = match &group {
            Some(_) => {
                definitions.values().filter(|other| other.load.group == group).map(|other| other.name.clone()).collect()
            }
            None => vec![table.clone()],
        };
        let in_database = |table: &TableName| {
            definitions.get(table).is_some_and(|own| matches!(own.source, TableSource::SqlServer(_)))
        };
        let at_one_moment = group.is_some() && members.iter().all(in_database);
        units.push(Unit { group, members, at_one_moment });
    }
    units
}

/// How one load of a member ended.
struct Ended {
    started_at: DateTime<Utc>,
    figures: Figures,
    result: Result<LoadStatus, EtlError>,
}

impl Loads {
    /// Loads all tables of a group from one state of their database, and publishes them. What passes by itself is
    /// met by loading all of them anew: one alone would be read at another moment.
    pub(super) async fn run_at_one_moment(
        &self,
        unit: &Unit,
        options: &SyncOptions,
        progress: &Arc<dyn Progress>,
    ) -> SyncReport {
        // One for all: with fewer slots than members they would wait for each other.
        let _slot = self.0.slots.acquire().await;
        for table in &unit.members {
            progress.started(table);
        }
        let policy = patience();
        let (mut committed, mut attempt) = (HashMap::new(), 1);
        let last: Vec<TableOutcome> = loop {
            let ended = self.run_round(unit, options, attempt == 1, progress).await;
            let passing = |ended: &Ended| ended.result.as_ref().is_err_and(EtlError::is_passing);
            let again = attempt < policy.attempts && ended.values().any(passing) && !options.stop.is_requested();
            let outcomes: Vec<TableOutcome> = ended
                .into_iter()
                .map(|(table, ended)| self.outcome(table, ended.started_at, ended.figures, ended.result))
                .collect();
            if !again {
                break outcomes;
            }
            for outcome in outcomes.into_iter().filter(|outcome| outcome.record.status == LoadStatus::Committed) {
                self.note(&outcome);
                committed.insert(outcome.record.table.clone(), outcome);
            }
            let pause = policy.pause(attempt, &mut rand::rng());
            tracing::debug!(group = unit.group, ?pause, "loading the tables of a group again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        };
        let settled = last.iter().all(|outcome| outcome.record.status != LoadStatus::Failed);
        let problems = if settled { self.publish(unit, &last).await } else { None };
        let mut report = SyncReport { tables: Vec::new(), problems: problems.into_iter().collect() };
        for outcome in last {
            // What was committed before all began anew is the news, when nothing came after it.
            let earlier = committed.remove(&outcome.record.table);
            let earlier = earlier.filter(|_| outcome.record.status == LoadStatus::Unchanged);
            if earlier.is_none() {
                self.note(&outcome);
            }
            let outcome = earlier.unwrap_or(outcome);
            progress.finished(&outcome);
            report.tables.push(outcome);
        }
        report
    }

    /// Loads each member once.
    async fn run_round(
        &self,
        unit: &Unit,
        options: &SyncOptions,
        is_first: bool,
        progress: &Arc<dyn Progress>,
    ) -> BTreeMap<TableName, Ended> {
        // All ask what happened at the same time; what was known before the last try may be why that failed.
        let asked = options.asked.filter(|_| is_first).unwrap_or_else(Instant::now);
        let options = SyncOptions { asked: Some(asked), ..options.clone() };
        let at_once = self.0.settings.limits.parallel_tables.get();
        let writers = Arc::new(Semaphore::new(at_once));
        let tables: Arc<[TableName]> = unit.members.clone().into();
        let seats = Seat::for_members(unit.members.len(), at_once);
        let (mut ended, mut held) = (BTreeMap::new(), Vec::new());
        // Every lease before the first reading, and in the order of names: two programs that load the same group would
        // else hold what the other waits for.
        for (table, seat) in unit.members.iter().zip(seats) {
            let Some(definition) = self.0.settings.tables.get(table).cloned() else { continue };
            let member = Some(Member { seat, writers: Arc::clone(&writers), tables: Arc::clone(&tables) });
            let load = Load { member, ..self.load(definition, &options, progress) };
            let started_at = self.0.clock.now();
            match load.lease().await {
                Ok(lease) => held.push((load, lease, started_at)),
                Err(error) => {
                    let (figures, result) = (Figures::default(), Err(error));
                    ended.insert(table.clone(), Ended { started_at, figures, result });
                }
            }
        }
        let tasks = held.into_iter().map(|(load, lease, started_at)| {
            let table = load.definition.name.clone();
            // In a task of its own, so that a defect in it is a failed load and not a lost one.
            let task = tokio::spawn(async move {
                let mut figures = Figures::default();
                let result = load.run_with(lease, &mut figures).await;
                (figures, result)
            });
            async move {
                let (figures, result) = task.await.unwrap_or_else(|error| broken_off(&table, &error));
                (table, Ended { started_at, figures, result })
            }
        });
        ended.extend(futures::future::join_all(tasks).await);
        ended
    }
}

/// Publishes the versions of a group's tables after all of them were loaded. True when there is a new
/// manifest; nothing is published when a member failed or was put off, so that readers keep the old state.
pub(super) async fn publish(lake: &Lake, group: &str, outcomes: &[TableOutcome]) -> Result<bool, EtlError> {
    let mut versions = BTreeMap::new();
    for outcome in outcomes {
        let settled = matches!(outcome.record.status, LoadStatus::Committed | LoadStatus::Unchanged);
        match outcome.record.version {
            Some(version) if settled => drop(versions.insert(outcome.record.table.clone(), version)),
            _ => return Ok(false),
        }
    }
    let manifests = lake.manifests();
    let newest = match manifests.newest(group).await {
        Ok(newest) => newest.unwrap_or_default(),
        Err(error) if error.kind() == crate::error::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let overtaken = newest.iter().any(|(table, version)| versions.get(table).is_some_and(|own| own < version));
    if newest == versions || overtaken {
        // Overtaken: another process loaded after us and has published already.
        return Ok(false);
    }
    manifests.publish(group, versions).await?;
    Ok(true)
}
