//! One load of one table: lease, attempt, reading, writing, one commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{TableDefinition, TableSource};
use crate::error::{Classify, ErrorKind};
use crate::etl::ahead::{Events, read_ahead};
use crate::etl::definition::{self, DefinitionMark};
use crate::etl::known::LakeRows;
use crate::etl::put_off::PutOff;
use crate::etl::rejects::RejectTally;
use crate::etl::whole::WholeLoad;
use crate::etl::{EtlError, OpenSource, Progress};
use crate::journal::{Journal, LoadStatus};
use crate::lake::{Attempt, Facts, Lake, LakeTable, Lease, RewriteEstimate, Staged, TableWriter, WritePlan};
use crate::model::{CarriedFile, FileStatus, LoadMode, TableName};
use crate::runtime::clock::Clock;
use crate::runtime::fault;
use crate::runtime::shutdown::Shutdown;
use crate::source::mssql::group::Seat;
use crate::source::{Known, KnownRows, Reading, ReadingEnd, SourceEvent};

/// What one load works with.
pub(super) struct Load {
    pub(super) lake: Lake,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) open_source: Arc<OpenSource>,
    pub(super) definition: TableDefinition,
    pub(super) lease_wait: Duration,
    /// Everything anew, whatever was loaded before.
    pub(super) reload: bool,
    /// Whatever a rewrite costs.
    pub(super) now: bool,
    /// Ranges to be read anew besides what changed, in the source's words.
    pub(super) suspect: Option<serde_json::Value>,
    /// When it was asked for, with others perhaps.
    pub(super) asked: Instant,
    pub(super) stop: Shutdown,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) put_off: Arc<PutOff>,
    pub(super) journal: Arc<Journal>,
    /// Where the table is read at one moment with others, what it shares with them.
    pub(super) member: Option<Member>,
}

/// What a load shares with those of the other tables of its group.
pub(super) struct Member {
    /// Its place where they are read.
    pub(super) seat: Arc<Seat>,
    /// As many changes are written into the lake at the same time.
    pub(super) writers: Arc<Semaphore>,
    /// All of them: a change of one waits as long as that of another.
    pub(super) tables: Arc<[TableName]>,
}

/// What a load did, or had done when it failed.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) rows_read: u64,
    pub(super) rows_written: u64,
    pub(super) rejects: RejectTally,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) version: Option<u64>,
    pub(super) attempt: Option<i64>,
    pub(super) position: Option<serde_json::Value>,
    /// Why the load was put off, for people.
    pub(super) note: Option<String>,
    /// Whether the source said of a range that all its rows came: rows may have to go though none was read.
    pub(super) completed: bool,
}

impl Load {
    /// Runs the load once. When it fails nothing was changed, and it may be run again.
    pub(super) async fn run(&self, figures: &mut Figures) -> Result<LoadStatus, EtlError> {
        let lease = self.lease().await?;
        self.run_with(lease, figures).await
    }

    /// Checks the definition and takes the table's lease.
    pub(super) async fn lease(&self) -> Result<Lease, EtlError> {
        definition::check(&self.definition)?;
        if self.reload {
            definition::check_reload(&self.definition)?;
        }
        let table = self.lake.table(&self.definition.name);
        tokio::select! {
            lease = table.lease("load", self.lease_wait) => lease.map_err(|error| match error.kind() {
                ErrorKind::Conflict => EtlError::Held(error),
                _ => error.into(),
            }),
            () = self.stop.requested() => Err(EtlError::Stopped),
        }
    }

    /// Runs the load once under a lease, and gives that back.
    pub(super) async fn run_with(&self, lease: Lease, figures: &mut Figures) -> Result<LoadStatus, EtlError> {
        let table = self.lake.table(&self.definition.name);
        let result = self.run_under(&table, &lease, figures).await;
        lease.release().await;
        result
    }

    async fn run_under(&self, table: &LakeTable, lease: &Lease, figures: &mut Figures) -> Result<LoadStatus, EtlError> {
        let mut attempt = table.begin(lease).await?;
        figures.version = attempt.snapshot().map(|snapshot| snapshot.version());
        let mark = DefinitionMark::of(&self.definition);
        if !self.reload {
            definition::check_change(&self.definition, DefinitionMark::on(attempt.chain()).as_ref(), &mark)?;
        }
        let source = (self.open_source)(&self.definition, Arc::clone(&self.clock))?;
        let known = self.known(&attempt).await?;
        // Where others have to come first, that takes long.
        let reading = tokio::select! {
            reading = source.open(&known) => reading?,
            () = self.stop.requested() => return Err(EtlError::Stopped),
        };
        drop(known);
        let Some(reading) = reading else { return Ok(LoadStatus::Unchanged) };
        fault::point("etl.reading.opened")?;
        definition::check_key(&self.definition, &reading.schema)?;
        definition::check_own_key(&self.definition, reading.key.as_deref().unwrap_or_default())?;
        self.progress.reading(&self.definition.name, reading.total_bytes);
        if let Some(whole) = reading.whole {
            let load = WholeLoad { load: self, table, lease, mark: &mark };
            return load.run(attempt, reading, whole, figures).await;
        }
        let mut writer = attempt.writer(self.plan(&reading))?;
        let oldest_change = reading.oldest_change;
        let prepared = async {
            let end = self.fill(&mut attempt, &mut writer, reading.events, figures).await?;
            if end.unchanged {
                return Ok((end, None, RewriteEstimate::default()));
            }
            // Of a group all have been read by now, or are read without this one.
            let turn = self.turn_to_write().await?;
            self.progress.writing(&self.definition.name);
            let estimate = writer.prepare().await?;
            fault::point("etl.prepared")?;
            Ok((end, turn, estimate))
        };
        let (end, _turn, estimate) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        if end.unchanged {
            writer.abort().await;
            return Ok(LoadStatus::Unchanged);
        }
        let over_budget = match self.over_budget(&estimate, oldest_change).await {
            Ok(note) => note,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        if let Some(note) = over_budget {
            writer.abort().await;
            figures.note = Some(note);
            return Ok(LoadStatus::Deferred);
        }
        self.commit(attempt, writer, end, &mark, figures).await
    }

    async fn turn_to_write(&self) -> Result<Option<OwnedSemaphorePermit>, EtlError> {
        let Some(member) = &self.member else { return Ok(None) };
        tokio::select! {
            // The semaphore is never closed.
            turn = Arc::clone(&member.writers).acquire_owned() => Ok(turn.ok()),
            () = self.stop.requested() => Err(EtlError::Stopped),
        }
    }

    async fn known(&self, attempt: &Attempt) -> Result<Known, EtlError> {
        let partial = match self.definition.source {
            TableSource::Files(_) => None,
            TableSource::SqlServer(_) => match attempt.begun_making().await? {
                Some(making) => making.chain().await?.position().cloned(),
                None => None,
            },
        };
        let seat = self.member.as_ref().map(|member| Arc::clone(&member.seat));
        if self.reload {
            return Ok(Known { partial, asked: Some(self.asked), seat, ..Known::default() });
        }
        Ok(Known {
            position: attempt.chain().position().cloned(),
            files: Arc::clone(attempt.chain().files()),
            schema: attempt.snapshot().map(|snapshot| snapshot.schema()),
            partial,
            asked: Some(self.asked),
            rows: self.rows(attempt),
            suspect: self.suspect.clone(),
            seat,
        })
    }

    /// The table's rows, for a source that compares with them.
    fn rows(&self, attempt: &Attempt) -> Option<Arc<dyn KnownRows>> {
        let TableSource::SqlServer(_) = self.definition.source else { return None };
        let snapshot = attempt.snapshot()?;
        Some(Arc::new(LakeRows::new(Arc::clone(snapshot), self.lake.environment())))
    }

    fn plan(&self, reading: &Reading) -> WritePlan {
        WritePlan {
            schema: Arc::clone(&reading.schema),
            key: self.key(reading),
            folding: reading.folding.clone(),
            mode: self.definition.load.mode,
            reload: self.reload,
        }
    }

    /// Columns that name a row: those of the definition, or else those the source knows.
    pub(super) fn key(&self, reading: &Reading) -> Vec<String> {
        let own = &self.definition.key;
        if own.is_empty() { reading.key.clone().unwrap_or_default() } else { own.clone() }
    }

    /// Reads to the end into the writer, and checks the rejects.
    async fn fill(
        &self,
        attempt: &mut Attempt,
        writer: &mut TableWriter,
        events: Events,
        figures: &mut Figures,
    ) -> Result<ReadingEnd, EtlError> {
        let end = self.read(attempt, writer, events, figures).await?;
        fault::point("etl.events.end")?;
        figures.rejects.check(&self.definition, figures.rows_read)?;
        Ok(end)
    }

    async fn read(
        &self,
        attempt: &mut Attempt,
        writer: &mut TableWriter,
        events: Events,
        figures: &mut Figures,
    ) -> Result<ReadingEnd, EtlError> {
        let mut events = read_ahead(events, self.lake.environment());
        let mut end = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.stop.requested() => return Err(EtlError::Stopped),
            };
            match event.transpose()? {
                Some(SourceEvent::Changes(change)) => {
                    figures.rows_read += change.rows.num_rows() as u64;
                    writer.write(change).await?;
                }
                Some(SourceEvent::Rejects(rejects)) => {
                    figures.rows_read += rejects.iter().filter(|reject| reject.line.is_some()).count() as u64;
                    figures.rejects.add(&rejects);
                    attempt.reject(&rejects).await?;
                }
                Some(SourceEvent::Progress(bytes)) => figures.bytes_read += bytes,
                Some(SourceEvent::Hurry(_)) => {}
                Some(SourceEvent::Complete(range)) => {
                    figures.completed = true;
                    writer.complete(&range)?;
                }
                Some(SourceEvent::Piece(_)) => return Err(self.broken("a piece of a load that is not whole")),
                Some(SourceEvent::End(reading_end)) => end = Some(reading_end),
                None => break,
            }
            self.progress.advanced(&self.definition.name, figures.rows_read, figures.bytes_read);
        }
        end.ok_or_else(|| self.broken("the source stopped before its end"))
    }

    /// Why the change should wait for more to come, where it should.
    async fn over_budget(
        &self,
        estimate: &RewriteEstimate,
        oldest_change: Option<chrono::DateTime<chrono::Utc>>,
    ) -> Result<Option<String>, EtlError> {
        let budget = self.definition.load.max_rewrite.filter(|_| !self.now && !self.reload);
        let Some(budget) = budget else { return Ok(None) };
        // Bytes as floats are exact up to 8 PiB, and a budget is a coarse thing.
        let times = estimate.rewrite_bytes as f64 / estimate.change_bytes.max(1) as f64;
        if times <= budget {
            return Ok(None);
        }
        let own = [self.definition.name.clone()];
        let tables = self.member.as_ref().map_or(own.as_slice(), |member| &member.tables[..]);
        let oldest_change = match oldest_change {
            Some(oldest) => Some(oldest),
            // Where the source does not tell, it counts from the first load that put it off, which may be this one.
            None => self.put_off.since(tables, &self.journal).await?,
        };
        let waited = oldest_change.map_or(TimeDelta::zero(), |oldest| self.clock.now() - oldest);
        let longest = TimeDelta::from_std(self.definition.load.max_lag).unwrap_or(TimeDelta::MAX);
        Ok((waited < longest).then(|| {
            format!(
                "put off: {} of files would be written anew for a change of {}, {times:.0} times as much (max_rewrite = {budget}); \
                 done at the latest when the change has waited for {}, or now by `lakegate sync {} --now`",
                bytesize::ByteSize(estimate.rewrite_bytes),
                bytesize::ByteSize(estimate.change_bytes),
                humantime::format_duration(self.definition.load.max_lag),
                self.definition.name,
            )
        }))
    }

    async fn commit(
        &self,
        attempt: Attempt,
        writer: TableWriter,
        mut end: ReadingEnd,
        mark: &DefinitionMark,
        figures: &mut Figures,
    ) -> Result<LoadStatus, EtlError> {
        let replaced = match self.replaced_data_files(&attempt, &end) {
            Ok(replaced) => replaced,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        let staged = if self.changes_rows(&attempt, &end, figures) {
            writer.finish(&replaced).await?
        } else {
            writer.abort().await;
            Staged::nothing()
        };
        for (index, data_files) in &staged.data_files_by_file {
            match end.files.get_mut(*index) {
                Some(file) => file.data_files.clone_from(data_files),
                None => {
                    return Err(self.broken(&format!("rows came from file {index}, which the source does not name")));
                }
            }
        }
        carry_renamed(&mut end.files, attempt.chain().files(), &staged.data_files_renamed);
        let (rows_written, bytes_written) = (staged.rows_written, staged.bytes_written);
        let position = Some(end.position.clone()).filter(|position| !position.is_null());
        if staged.is_nothing() && end.files.is_empty() && self.is_known(&attempt, position.as_ref(), mark, figures) {
            return Ok(LoadStatus::Unchanged);
        }
        let facts = Facts {
            forgotten_files: self.forgotten(&attempt, &end.files),
            position: position.clone(),
            files: end.files,
            definition_hash: mark.to_string(),
            epoch: self.reload.then(|| uuid::Uuid::now_v7().to_string()),
        };
        let committed = attempt.commit(staged, facts).await?;
        figures.rows_written = rows_written;
        figures.bytes_written = bytes_written;
        figures.version = Some(committed.version);
        figures.attempt = Some(committed.attempt);
        figures.position = position;
        Ok(LoadStatus::Committed)
    }

    /// Whether a commit without rows would say nothing that the one before did not.
    fn is_known(
        &self,
        attempt: &Attempt,
        position: Option<&serde_json::Value>,
        mark: &DefinitionMark,
        figures: &Figures,
    ) -> bool {
        !self.reload
            && figures.rejects.count() == 0
            && attempt.chain().position() == position
            && DefinitionMark::on(attempt.chain()).as_ref() == Some(mark)
    }

    /// Whether there is more to commit than what became of files: without rows to load or to take out the
    /// table must stay as it is, in mode `replace` above all.
    fn changes_rows(&self, attempt: &Attempt, end: &ReadingEnd, figures: &Figures) -> bool {
        let rows_without_files = end.files.is_empty() && (figures.rows_read > 0 || figures.completed);
        attempt.snapshot().is_none()
            || self.reload
            || rows_without_files
            || !end.replaced_files.is_empty()
            || end.files.iter().any(|file| file.status == FileStatus::Loaded)
    }

    /// The data files that hold the rows of the files whose rows go (mode `mirror`).
    fn replaced_data_files(&self, attempt: &Attempt, end: &ReadingEnd) -> Result<Vec<String>, EtlError> {
        let mut replaced = Vec::new();
        for path in &end.replaced_files {
            let Some(file) = attempt.chain().files().get(path) else {
                return Err(self.broken(&format!("the rows of {path} are to go, and it was never loaded")));
            };
            if file.rows > 0 && file.data_files.is_empty() && self.definition.load.mode == LoadMode::Mirror {
                let name = &self.definition.name;
                return Err(EtlError::Definition(format!(
                    "it is not known which rows of {name} came from {path}, as they were not loaded with mode = \"mirror\"; \
                     run `lakegate sync {name} --reload` to load it from all files anew"
                )));
            }
            replaced.extend_from_slice(&file.data_files);
        }
        Ok(replaced)
    }

    /// After a load of everything anew, files that are no longer there are not known any more.
    fn forgotten(&self, attempt: &Attempt, files: &[CarriedFile]) -> Vec<String> {
        if !self.reload {
            return Vec::new();
        }
        let carried: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        attempt.chain().files().keys().filter(|path| !carried.contains(path.as_str())).cloned().collect()
    }

    pub(super) fn broken(&self, reason: &str) -> EtlError {
        EtlError::Broken { table: self.definition.name.clone(), reason: reason.to_owned() }
    }
}

/// Data files that were written anew for wider columns have new names: every source file whose rows stand in
/// one of them says so again.
fn carry_renamed(
    files: &mut Vec<CarriedFile>,
    known: &HashMap<String, CarriedFile>,
    renamed: &BTreeMap<String, Vec<String>>,
) {
    if renamed.is_empty() {
        return;
    }
    let carried: HashSet<String> = files.iter().map(|file| file.path.clone()).collect();
    let moved = |file: &&CarriedFile| file.data_files.iter().any(|name| renamed.contains_key(name));
    files.extend(known.values().filter(moved).filter(|file| !carried.contains(&file.path)).cloned());
    for file in files {
        let names = std::mem::take(&mut file.data_files);
        file.data_files =
            names.into_iter().flat_map(|name| renamed.get(&name).cloned().unwrap_or_else(|| vec![name])).collect();
    }
}
