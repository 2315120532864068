//! Comparing tables of the lake with their sources, and reading anew what differs.
//!
//! A comparison only reads, and takes no lease: it pins a version of the table, and loads may go on beside it. A repair
//! is a load like any other, which besides what changed reads the ranges that differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::{SqlServerSource, TableDefinition, TableSource};
use crate::error::{Classify, ErrorKind, chain_text};
use crate::etl::known::LakeRows;
use crate::etl::{EtlError, Loads, Progress, SyncOptions};
use crate::journal::{LoadRecord, LoadStatus, VerificationRecord, VerificationStatus};
use crate::model::TableName;
use crate::runtime::retry::{RetryPolicy, retry};
use crate::runtime::shutdown::Shutdown;
use crate::source::mssql::ranges::{Compared, Range};
use crate::source::mssql::source::SqlServerTable;
use crate::source::mssql::verify::Verification;
use crate::source::{Known, KnownRows, SourceError};

/// How tables are verified.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Whether ranges that differ are read anew.
    pub repair: bool,
    /// Asks to give up.
    pub stop: Shutdown,
}

/// How all verifications ended.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// One for each table, in the order of their names.
    pub tables: Vec<VerificationRecord>,
    /// What failed besides, such as a journal that could not be written.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether every table has what its source has.
    pub fn is_success(&self) -> bool {
        let good = [VerificationStatus::Same, VerificationStatus::Repaired];
        self.problems.is_empty() && self.tables.iter().all(|table| good.contains(&table.status))
    }
}

/// What was compared with what.
struct Comparison {
    version: u64,
    found: Verification,
}

impl Loads {
    /// Compares tables with their sources, all that come from SQL Server when none is named. Each verification is noted
    /// in the journal.
    ///
    /// # Errors
    /// When a table is not defined, or does not come from SQL Server; nothing was compared then. Verifications that
    /// fail are told in the report.
    pub async fn verify(
        &self,
        tables: &[TableName],
        options: &VerifyOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<VerifyReport, EtlError> {
        let mut running = JoinSet::new();
        for (definition, source) in self.to_verify(tables)? {
            let (loads, options, progress) = (self.clone(), options.clone(), Arc::clone(&progress));
            let verifying = Verifying { loads, table: definition.name, source, options, progress };
            running.spawn(Arc::new(verifying).run_to_end());
        }
        let mut report = VerifyReport::default();
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(record) => report.tables.push(record),
                Err(error) => report.problems.push(format!("a verification broke off: {error}")),
            }
        }
        report.tables.sort_by(|one, other| one.table.cmp(&other.table));
        if let Err(error) = self.0.journal.flush().await {
            report.problems.push(format!("verifications were not noted in the journal: {}", chain_text(&error)));
        }
        Ok(report)
    }

    fn to_verify(&self, tables: &[TableName]) -> Result<Vec<(TableDefinition, SqlServerSource)>, EtlError> {
        let definitions = &self.0.settings.tables;
        let of = |definition: &TableDefinition| match &definition.source {
            TableSource::SqlServer(source) => Some((definition.clone(), SqlServerSource::clone(source))),
            TableSource::Files(_) => None,
        };
        if tables.is_empty() {
            return Ok(definitions.values().filter_map(of).collect());
        }
        let mut chosen = BTreeMap::new();
        for table in tables {
            let definition = definitions.get(table).ok_or_else(|| EtlError::Definition(self.unknown(table)))?;
            let known = of(definition).ok_or_else(|| {
                EtlError::Definition(format!(
                    "{table} is loaded from files, and only tables of SQL Server can be verified: of files it is known \
                     which were loaded (system.files), and `lakegate sync {table} --reload` loads them anew"
                ))
            })?;
            chosen.insert(table.clone(), known);
        }
        Ok(chosen.into_values().collect())
    }
}

/// The verification of one table.
struct Verifying {
    loads: Loads,
    table: TableName,
    source: SqlServerSource,
    options: VerifyOptions,
    progress: Arc<dyn Progress>,
}

impl Verifying {
    /// Verifies, and notes how that went.
    async fn run_to_end(self: Arc<Self>) -> VerificationRecord {
        let now = || self.loads.0.clock.now();
        let mut record = VerificationRecord {
            verification_id: Uuid::now_v7(),
            started_at: now(),
            ended_at: now(),
            table: self.table.clone(),
            status: VerificationStatus::Failed,
            version: None,
            method: None,
            since: None,
            ranges: 0,
            rows: 0,
            left_out: 0,
            differences: Vec::new(),
            key: Vec::new(),
            notes: Vec::new(),
            repaired_version: None,
            error_kind: None,
            error: None,
        };
        match self.run(&mut record).await {
            Ok(status) => record.status = status,
            Err(error) => {
                record.error_kind = Some(error.kind());
                record.error = Some(chain_text(&error));
            }
        }
        record.ended_at = now();
        self.loads.0.journal.record_verification(record.clone());
        self.progress.verified(&record);
        record
    }

    async fn run(self: &Arc<Self>, record: &mut VerificationRecord) -> Result<VerificationStatus, EtlError> {
        let Comparison { version, found } = self.compare(None).await?;
        record.version = Some(version);
        record.method = Some(found.method.to_owned());
        (record.since, record.ranges, record.rows) = (found.since, found.ranges, found.rows);
        (record.left_out, record.key) = (found.left_out, found.key);
        record.notes = found.notes;
        let json = found.differing.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        record.differences = json.map_err(|cause| self.broken(&cause.to_string()))?;
        if found.differing.is_empty() {
            return Ok(VerificationStatus::Same);
        }
        if !self.options.repair {
            return Ok(VerificationStatus::Differs);
        }
        let ranges: Vec<Range> = found.differing.into_iter().map(|compared| compared.range).collect();
        record.repaired_version = self.repair(&ranges).await?;
        let again = self.compare(Some(&ranges)).await?.found.differing.len();
        if again == 0 {
            return Ok(VerificationStatus::Repaired);
        }
        record.notes.push(format!("after the repair {again} ranges differ still, or again"));
        Ok(VerificationStatus::Differs)
    }

    /// Compares, anew where what it met passes by itself.
    async fn compare(self: &Arc<Self>, ranges: Option<&[Range]>) -> Result<Comparison, EtlError> {
        // The semaphore is never closed, so there is always a permit in the end.
        let _slot = self.loads.0.slots.acquire().await;
        let policy = RetryPolicy { attempts: 3, ..RetryPolicy::default() };
        let (verifying, ranges) = (Arc::clone(self), ranges.map(<[Range]>::to_vec));
        let compared = retry(policy, move || {
            let (verifying, ranges) = (Arc::clone(&verifying), ranges.clone());
            async move {
                tokio::select! {
                    compared = verifying.compare_once(ranges.as_deref()) => match compared {
                        Err(error) if error.is_passing() => Err(error),
                        settled => Ok(settled),
                    },
                    () = verifying.options.stop.requested() => Ok(Err(EtlError::Stopped)),
                }
            }
        });
        compared.await.unwrap_or_else(Err)
    }

    async fn compare_once(&self, ranges: Option<&[Range]>) -> Result<Comparison, EtlError> {
        let shared = &self.loads.0;
        self.progress.started(&self.table);
        let table = shared.lake.table(&self.table);
        // The position first: should a load end in between, its changes are left out, which does no harm.
        let position = table.chain().await?.position().cloned();
        let Some(snapshot) = table.snapshot().await? else {
            let text = format!("nothing was loaded into {0} yet; `lakegate sync {0}` does", self.table);
            return Err(SourceError::new(ErrorKind::NotFound, text).into());
        };
        let version = snapshot.version();
        let rows: Arc<dyn KnownRows> = Arc::new(LakeRows::new(Arc::clone(&snapshot), shared.lake.environment()));
        let known = Known {
            position,
            schema: Some(snapshot.schema()),
            asked: Some(Instant::now()),
            rows: Some(rows),
            ..Known::default()
        };
        let source = SqlServerTable::new(self.source.clone(), shared.connections.clone(), Arc::clone(&shared.clock));
        self.progress.reading(&self.table, None);
        let (mut rows, mut bytes) = (0, 0);
        let mut told = |compared: &Compared| {
            (rows, bytes) = (rows + compared.source_rows, bytes + compared.bytes);
            self.progress.advanced(&self.table, rows, bytes);
        };
        Ok(Comparison { version, found: source.verify(&known, ranges, &mut told).await? })
    }

    /// Loads the table, and with it what differs; gives its version then.
    async fn repair(&self, ranges: &[Range]) -> Result<Option<u64>, EtlError> {
        let suspect = serde_json::to_value(ranges).map_err(|cause| self.broken(&cause.to_string()))?;
        let options = SyncOptions {
            now: true,
            suspect: BTreeMap::from([(self.table.clone(), suspect)]),
            stop: self.options.stop.clone(),
            ..SyncOptions::default()
        };
        let report = self.loads.sync(std::slice::from_ref(&self.table), &options, Arc::clone(&self.progress)).await?;
        let own = report.tables.iter().find(|outcome| outcome.record.table == self.table);
        match own.map(|outcome| &outcome.record) {
            Some(load) if matches!(load.status, LoadStatus::Committed | LoadStatus::Unchanged) => Ok(load.version),
            Some(LoadRecord { error: Some(error), .. }) => Err(EtlError::NotRepaired(error.clone())),
            _ => Err(EtlError::NotRepaired(report.problems.join("; "))),
        }
    }

    fn broken(&self, reason: &str) -> EtlError {
        EtlError::Broken { table: self.table.clone(), reason: reason.to_owned() }
    }
}
