//! Loads of a whole table from a source that can go on where it was cut off: piece by piece into a table in the
//! making, then one commit that takes it over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::etl::EtlError;
use crate::etl::ahead::read_ahead;
use crate::etl::definition::DefinitionMark;
use crate::etl::load::{Figures, Load};
use crate::journal::LoadStatus;
use crate::lake::{Attempt, Facts, LakeTable, Lease, TableWriter, WritePlan};
use crate::model::{ChangeKind, LoadMode};
use crate::runtime::fault;
use crate::source::{Reading, ReadingEnd, SourceEvent, Whole};

/// How long pieces are gathered before they are kept: what is read again after a crash, at most.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// One whole load.
pub(super) struct WholeLoad<'a> {
    pub(super) load: &'a Load,
    pub(super) table: &'a LakeTable,
    pub(super) lease: &'a Lease,
    pub(super) mark: &'a DefinitionMark,
}

/// The table in the making, and the attempt at it that is open.
struct Making<'a> {
    whole: &'a WholeLoad<'a>,
    table: LakeTable,
    plan: WritePlan,
    open: Option<Open>,
}

struct Open {
    attempt: Attempt,
    writer: TableWriter,
    mode: LoadMode,
    since: Instant,
}

impl WholeLoad<'_> {
    /// Reads to the end, then takes over what was made.
    pub(super) async fn run(
        &self,
        mut attempt: Attempt,
        reading: Reading,
        whole: Whole,
        figures: &mut Figures,
    ) -> Result<LoadStatus, EtlError> {
        if whole == Whole::Anew {
            self.table.forget_making().await?;
        }
        let key = self.load.key(&reading);
        let schema = Arc::clone(&reading.schema);
        let plan = WritePlan {
            schema,
            key: key.clone(),
            folding: reading.folding.clone(),
            mode: LoadMode::Append,
            reload: false,
        };
        let mut making = Making { whole: self, table: attempt.making().await?, plan, open: None };
        let end = match making.fill(reading, figures).await {
            Ok(end) => end,
            Err(error) => {
                making.give_up().await;
                return Err(error);
            }
        };
        if end.unchanged {
            making.give_up().await;
            self.table.forget_making().await?;
            return Ok(LoadStatus::Unchanged);
        }
        self.load.progress.writing(&self.load.definition.name);
        let made = making.table.snapshot().await?.ok_or_else(|| self.load.broken("nothing was made"))?;
        let chain = making.table.chain().await?;
        let mut rejects = chain.rejects().map_ok(|(_, reject)| reject).try_chunks(1000);
        while let Some(rejects) = rejects.next().await {
            attempt.reject(&rejects.map_err(|error| error.1)?).await?;
        }
        fault::point("etl.whole.made")?;
        let facts = Facts {
            position: Some(end.position.clone()),
            definition_hash: self.mark.to_string(),
            epoch: Some(uuid::Uuid::now_v7().to_string()),
            // The rows of files that were loaded before are gone with everything else.
            forgotten_files: attempt.chain().files().keys().cloned().collect(),
            ..Facts::default()
        };
        let staged = attempt.adopt(&made, &key)?;
        figures.rows_written = staged.rows_written;
        figures.bytes_written = staged.bytes_written;
        let committed = attempt.commit(staged, facts).await?;
        figures.version = Some(committed.version);
        figures.attempt = Some(committed.attempt);
        figures.position = Some(end.position);
        // It has landed: what fails from here on is no failure of the load.
        if fault::point("etl.whole.adopted").is_err() {
            return Ok(LoadStatus::Committed);
        }
        if let Err(error) = self.table.forget_making().await {
            let error = crate::error::chain_text(&error);
            tracing::warn!(table = %self.table.name(), error, "left the log of a finished whole load behind");
        }
        Ok(LoadStatus::Committed)
    }
}

impl Making<'_> {
    async fn fill(&mut self, reading: Reading, figures: &mut Figures) -> Result<ReadingEnd, EtlError> {
        let load = self.whole.load;
        let mut events = read_ahead(reading.events, load.lake.environment());
        // Set as long as nothing came after it: only then it tells what the open attempt holds.
        let mut piece = None;
        let mut end = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = load.stop.requested() => {
                    self.keep(piece).await?;
                    return Err(EtlError::Stopped);
                }
            };
            let event = match event.transpose() {
                Err(error) => {
                    // What was read before it is good: the next load goes on from there.
                    if let Err(unkept) = self.keep(piece).await {
                        let unkept = crate::error::chain_text(&unkept);
                        tracing::warn!(table = %load.definition.name, error = unkept, "what was read is not kept");
                    }
                    return Err(error.into());
                }
                Ok(event) => event,
            };
            match event {
                Some(SourceEvent::Changes(change)) => {
                    let mode = if change.kind == ChangeKind::Append { LoadMode::Append } else { LoadMode::Upsert };
                    let rows = change.rows.num_rows() as u64;
                    self.open_for(mode, piece.take()).await?.writer.write(change).await?;
                    figures.rows_read += rows;
                }
                Some(SourceEvent::Rejects(rejects)) => {
                    figures.rows_read += rejects.len() as u64;
                    figures.rejects.add(&rejects);
                    piece = None;
                    self.open(LoadMode::Append).await?.attempt.reject(&rejects).await?;
                }
                Some(SourceEvent::Piece(position)) => {
                    fault::point("etl.whole.piece")?;
                    if self.open.as_ref().is_some_and(|open| open.since.elapsed() >= keep_every()) {
                        self.keep(Some(position)).await?;
                    } else {
                        piece = Some(position);
                    }
                }
                Some(SourceEvent::Complete(range)) => {
                    self.open_for(LoadMode::Upsert, piece.take()).await?.writer.complete(&range)?;
                }
                Some(SourceEvent::Progress(bytes)) => figures.bytes_read += bytes,
                Some(SourceEvent::Hurry(_)) => {}
                Some(SourceEvent::End(reading_end)) => end = Some(reading_end),
                None => break,
            }
            load.progress.advanced(&load.definition.name, figures.rows_read, figures.bytes_read);
        }
        let end = end.ok_or_else(|| load.broken("the source stopped before its end"))?;
        figures.rejects.check(&load.definition, figures.rows_read)?;
        if self.open.is_none() && self.table.snapshot().await?.is_none() {
            self.open(LoadMode::Append).await?;
        }
        if !end.unchanged {
            self.keep(Some(piece.unwrap_or_else(|| end.position.clone()))).await?;
        }
        Ok(end)
    }

    /// The open attempt, when it is one of this mode; otherwise a new one, and what was gathered up to `piece` is kept.
    async fn open_for(&mut self, mode: LoadMode, piece: Option<Value>) -> Result<&mut Open, EtlError> {
        let mode = if self.plan.key.is_empty() { LoadMode::Append } else { mode };
        if self.open.as_ref().is_some_and(|open| open.mode != mode) {
            let all = piece.ok_or_else(|| self.whole.load.broken("changes began in the middle of a piece"))?;
            self.keep(Some(all)).await?;
        }
        self.open(mode).await
    }

    /// The open attempt, begun where there is none.
    async fn open(&mut self, mode: LoadMode) -> Result<&mut Open, EtlError> {
        if self.open.is_none() {
            let attempt = self.table.begin(self.whole.lease).await?;
            let writer = attempt.writer(WritePlan { mode, ..self.plan.clone() })?;
            self.open = Some(Open { attempt, writer, mode, since: Instant::now() });
        }
        self.open.as_mut().ok_or_else(|| self.whole.load.broken("no attempt is open"))
    }

    /// Commits what is open, up to `position`. Without one it cannot be known what it holds, and it is thrown away.
    async fn keep(&mut self, position: Option<Value>) -> Result<(), EtlError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Some(position) = position else {
            open.writer.abort().await;
            return Ok(());
        };
        let staged = open.writer.finish(&[]).await?;
        let facts =
            Facts { position: Some(position), definition_hash: self.whole.mark.to_string(), ..Facts::default() };
        open.attempt.commit(staged, facts).await?;
        fault::point("etl.whole.kept")?;
        Ok(())
    }

    async fn give_up(self) {
        if let Some(open) = self.open {
            open.writer.abort().await;
        }
    }
}

/// How long pieces are gathered; a test keeps each by the fault point `etl.whole.every`.
fn keep_every() -> Duration {
    if fault::point("etl.whole.every").is_err() { Duration::ZERO } else { KEEP_EVERY }
}
