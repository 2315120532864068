//! Loading many tables side by side; one that fails does not stop the others.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::config::{Settings, SqlServerSource, TableDefinition, TableSource};
use crate::error::{Classify, chain_text};
use crate::etl::group::{self, Unit};
use crate::etl::load::{Figures, Load};
use crate::etl::put_off::PutOff;
use crate::etl::{EtlError, Progress};
use crate::journal::{Journal, LoadRecord, LoadStatus};
use crate::lake::Lake;
use crate::model::TableName;
use crate::runtime::clock::Clock;
use crate::runtime::fault;
use crate::runtime::retry::{RetryPolicy, retry};
use crate::runtime::shutdown::Shutdown;
use crate::source::files::FilesSource;
use crate::source::mssql::connect::Connections;
use crate::source::mssql::source::SqlServerTable;
use crate::source::{Source, SourceError};

/// Makes the source a definition names.
pub type OpenSource = dyn Fn(&TableDefinition, Arc<dyn Clock>) -> Result<Box<dyn Source>, SourceError> + Send + Sync;

/// Loads what the table definitions name into the lake. Clones are one.
#[derive(Clone)]
pub struct Loads(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) lake: Lake,
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Arc<dyn Clock>,
    open_source: Arc<OpenSource>,
    /// To databases, for whoever compares.
    pub(super) connections: Connections,
    pub(super) slots: Semaphore,
    put_off: Arc<PutOff>,
}

/// How tables are loaded.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// Whatever a rewrite costs: the write budget does not put a change off.
    pub now: bool,
    /// Everything anew from all files, in the place of what is there.
    pub reload: bool,
    /// When the loads were asked for; each at its own start where it is not said.
    pub asked: Option<Instant>,
    /// Ranges of tables that are to be read anew besides what changed, in the words of their sources.
    pub suspect: BTreeMap<TableName, serde_json::Value>,
    /// Asks running loads to commit what they can or give up.
    pub stop: Shutdown,
}

/// How one table's load ended.
#[derive(Clone, Debug)]
pub struct TableOutcome {
    /// What stands in the journal.
    pub record: LoadRecord,
    /// Why rows did not fit, most frequent first, without values of rows.
    pub reject_reasons: Vec<String>,
    /// What else people should know, such as why a load was put off.
    pub note: Option<String>,
}

/// How all loads of one sync ended.
#[derive(Clone, Debug, Default)]
pub struct SyncReport {
    /// One for each table, in the order of their ends.
    pub tables: Vec<TableOutcome>,
    /// What failed besides: groups that could not be published, a journal that could not be written.
    pub problems: Vec<String>,
}

impl SyncReport {
    /// Whether nothing failed. Rejected rows and changes that were put off are no failures.
    pub fn is_success(&self) -> bool {
        self.problems.is_empty() && self.tables.iter().all(|table| table.record.status != LoadStatus::Failed)
    }
}

impl Loads {
    /// Loads as the settings define them.
    pub fn new(settings: Arc<Settings>, lake: Lake, journal: Arc<Journal>, clock: Arc<dyn Clock>) -> Self {
        let threads = settings.limits.threads;
        let connections = Connections::default();
        let shared = connections.clone();
        let open = move |definition: &TableDefinition, clock| open_source(definition, clock, threads, &connections);
        Self::with(settings, lake, journal, clock, Arc::new(open), shared)
    }

    /// Loads from sources the caller makes.
    pub fn with_sources(
        settings: Arc<Settings>,
        lake: Lake,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        open_source: Arc<OpenSource>,
    ) -> Self {
        Self::with(settings, lake, journal, clock, open_source, Connections::default())
    }

    fn with(
        settings: Arc<Settings>,
        lake: Lake,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        open_source: Arc<OpenSource>,
        connections: Connections,
    ) -> Self {
        let slots = Semaphore::new(settings.limits.parallel_tables.get());
        Self(Arc::new(Shared {
            settings,
            lake,
            journal,
            clock,
            open_source,
            connections,
            slots,
            put_off: Arc::default(),
        }))
    }

    /// Loads tables, all that are defined when none is named; of a group always all members. Each load is
    /// noted in the journal.
    ///
    /// # Errors
    /// When a table is not defined; nothing was loaded then. Loads that fail are told in the report.
    pub async fn sync(
        &self,
        tables: &[TableName],
        options: &SyncOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<SyncReport, EtlError> {
        let definitions = &self.0.settings.tables;
        if let Some(unknown) = tables.iter().find(|table| !definitions.contains_key(table)) {
            return Err(EtlError::Definition(self.unknown(unknown)));
        }
        let options = &SyncOptions { asked: options.asked.or_else(|| Some(Instant::now())), ..options.clone() };
        let all: Vec<TableName> = definitions.keys().cloned().collect();
        let mut units = JoinSet::new();
        for unit in group::units(definitions, if tables.is_empty() { &all } else { tables }) {
            let (loads, options, progress) = (self.clone(), options.clone(), Arc::clone(&progress));
            units.spawn(async move { loads.run_unit(&unit, &options, &progress).await });
        }
        let mut report = SyncReport::default();
        while let Some(unit) = units.join_next().await {
            match unit {
                Ok(unit) => {
                    report.tables.extend(unit.tables);
                    report.problems.extend(unit.problems);
                }
                Err(error) => report.problems.push(format!("a load broke off: {error}")),
            }
            self.flush(&mut report).await;
        }
        self.flush(&mut report).await;
        Ok(report)
    }

    /// Loads the tables of one unit and publishes its group.
    pub(super) async fn run_unit(
        &self,
        unit: &Unit,
        options: &SyncOptions,
        progress: &Arc<dyn Progress>,
    ) -> SyncReport {
        if unit.at_one_moment {
            return self.run_at_one_moment(unit, options, progress).await;
        }
        let mut members = JoinSet::new();
        for table in &unit.members {
            let Some(definition) = self.0.settings.tables.get(table).cloned() else { continue };
            let (loads, options, progress) = (self.clone(), options.clone(), Arc::clone(progress));
            members.spawn(async move { loads.run_table(definition, &options, progress).await });
        }
        let mut report = SyncReport::default();
        while let Some(member) = members.join_next().await {
            match member {
                Ok(outcome) => report.tables.push(outcome),
                Err(error) => report.problems.push(format!("a load broke off: {error}")),
            }
        }
        if report.is_success() {
            let problem = self.publish(unit, &report.tables).await;
            report.problems.extend(problem);
        }
        report
    }

    /// Publishes what a unit's loads came to; tells what went wrong.
    pub(super) async fn publish(&self, unit: &Unit, outcomes: &[TableOutcome]) -> Option<String> {
        let group = unit.group.as_ref()?;
        let error = group::publish(&self.0.lake, group, outcomes).await.err()?;
        Some(format!("the group {group} was loaded but not published: {}", chain_text(&error)))
    }

    /// Loads one table, anew where what it met passes by itself, and notes how that went.
    async fn run_table(
        &self,
        definition: TableDefinition,
        options: &SyncOptions,
        progress: Arc<dyn Progress>,
    ) -> TableOutcome {
        // The semaphore is never closed, so there is always a permit in the end.
        let _slot = self.0.slots.acquire().await;
        let table = definition.name.clone();
        let started_at = self.0.clock.now();
        progress.started(&table);
        let load = self.load(definition, options, &progress);
        // In a task of its own, so that a defect in it is a failed load and not a lost one.
        let done = tokio::spawn(run_again(Arc::new(load))).await;
        let (figures, result) = done.unwrap_or_else(|error| broken_off(&table, &error));
        let outcome = self.outcome(table, started_at, figures, result);
        self.note(&outcome);
        progress.finished(&outcome);
        outcome
    }

    /// The load of a table.
    pub(super) fn load(
        &self,
        definition: TableDefinition,
        options: &SyncOptions,
        progress: &Arc<dyn Progress>,
    ) -> Load {
        let suspect = options.suspect.get(&definition.name).cloned();
        Load {
            lake: self.0.lake.clone(),
            clock: Arc::clone(&self.0.clock),
            open_source: Arc::clone(&self.0.open_source),
            definition,
            lease_wait: self.0.settings.limits.lease_wait,
            reload: options.reload,
            now: options.now,
            suspect,
            asked: options.asked.unwrap_or_else(Instant::now),
            stop: options.stop.clone(),
            progress: Arc::clone(progress),
            put_off: Arc::clone(&self.0.put_off),
            journal: Arc::clone(&self.0.journal),
            member: None,
        }
    }

    /// Notes in the journal how a load went.
    pub(super) fn note(&self, outcome: &TableOutcome) {
        self.0.put_off.note(&outcome.record);
        if let Err(fault) = fault::point("etl.journal.before") {
            tracing::warn!(error = %fault, "a load was not noted in the journal");
        } else {
            self.0.journal.record_load(outcome.record.clone());
        }
    }

    pub(super) fn outcome(
        &self,
        table: TableName,
        started_at: chrono::DateTime<chrono::Utc>,
        figures: Figures,
        result: Result<LoadStatus, EtlError>,
    ) -> TableOutcome {
        let record = LoadRecord {
            load_id: Uuid::now_v7(),
            table,
            started_at,
            ended_at: self.0.clock.now(),
            status: *result.as_ref().unwrap_or(&LoadStatus::Failed),
            rows_read: figures.rows_read,
            rows_written: figures.rows_written,
            rows_rejected: figures.rejects.count(),
            bytes_read: figures.bytes_read,
            bytes_written: figures.bytes_written,
            version: figures.version,
            attempt: figures.attempt,
            position: figures.position,
            error_kind: result.as_ref().err().map(Classify::kind),
            error: result.as_ref().err().map(|error| chain_text(error)),
            written: None,
        };
        TableOutcome { record, reject_reasons: figures.rejects.lines(), note: figures.note }
    }

    async fn flush(&self, report: &mut SyncReport) {
        if let Err(error) = self.0.journal.flush().await {
            let problem = format!("loads were not noted in the journal: {}", chain_text(&error));
            if !report.problems.contains(&problem) {
                report.problems.push(problem);
            }
        }
    }

    pub(super) fn unknown(&self, table: &TableName) -> String {
        let known: Vec<String> = self.0.settings.tables.keys().map(TableName::to_string).collect();
        let near = known.iter().max_by(|a, b| {
            let near = |name: &str| strsim::jaro_winkler(name, &table.to_string());
            near(a).total_cmp(&near(b))
        });
        let hint = near.map_or_else(
            || "no table is defined yet".to_owned(),
            |near| format!("did you mean `{near}`? `lakegate tables` lists all"),
        );
        format!(
            "there is no table {table}: {} has no such file; {hint}",
            self.0.settings.folder.join("tables").display()
        )
    }
}

/// How a load ended whose task did not come to its end.
pub(super) fn broken_off(table: &TableName, error: &JoinError) -> (Figures, Result<LoadStatus, EtlError>) {
    let error = EtlError::Broken { table: table.clone(), reason: error.to_string() };
    (Figures::default(), Err(error))
}

/// How often and how patiently a load is tried again.
pub(super) fn patience() -> RetryPolicy {
    RetryPolicy { attempts: 3, ..RetryPolicy::default() }
}

/// Runs a load until it ends for good. What comes back with the result are the last run's figures.
async fn run_again(load: Arc<Load>) -> (Figures, Result<LoadStatus, EtlError>) {
    let policy = patience();
    let last = Arc::new(Mutex::new(Figures::default()));
    let kept = Arc::clone(&last);
    let result = retry(policy, move || {
        let (load, kept) = (Arc::clone(&load), Arc::clone(&kept));
        async move {
            let mut figures = Figures::default();
            let result = load.run(&mut figures).await;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = figures;
            match result {
                Err(error) if error.is_passing() && !load.stop.is_requested() => Err(error),
                settled => Ok(settled),
            }
        }
    })
    .await;
    let figures = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
    (figures, result.unwrap_or_else(Err))
}

fn open_source(
    definition: &TableDefinition,
    clock: Arc<dyn Clock>,
    threads: NonZeroUsize,
    connections: &Connections,
) -> Result<Box<dyn Source>, SourceError> {
    Ok(match &definition.source {
        TableSource::Files(_) => Box::new(FilesSource::new(definition, clock)?.with_threads(threads)),
        TableSource::SqlServer(source) => {
            Box::new(SqlServerTable::new(SqlServerSource::clone(source), connections.clone(), clock))
        }
    })
}
