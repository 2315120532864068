//! Rows that a client sends, into a table that is there or one that is made for them.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt;

use crate::config::RESULTS_SCHEMA;
use crate::error::ErrorKind;
use crate::lake::{Attempt, Lease, Snapshot, TableWriter, WritePlan};
use crate::model::{ChangeBatch, ChangeKind};
use crate::query::QueryError;
use crate::query::change::define::{anew, check_create, exists, made_of};
use crate::query::change::fit::Shape;
use crate::query::change::run::{Done, Outcome, Run, told};
use crate::query::change::target::{Target, missing};
use crate::query::change::{Existing, Named};
use crate::query::engine::{Changed, IfExisting, IfMissing, IncomingRows, Ingestion};

/// The statement's words in the journal and in leases.
const WORDS: &str = "INGEST";

/// Bytes of rows that are handed on at once: what waits to be encoded is a few of them.
const PIECE_BYTES: usize = 8 << 20;

impl Run {
    /// Puts rows into a table, in one commit after the last of them.
    ///
    /// # Errors
    /// What made it fail: then nothing was changed, unless the message says so.
    pub(crate) async fn ingest(self, ingestion: Ingestion, rows: IncomingRows) -> Result<Changed, QueryError> {
        let schema = ingestion.schema.as_deref().unwrap_or(RESULTS_SCHEMA);
        let named = Named::of(schema, &ingestion.table);
        let target = match Target::find(&named, WORDS, &self.engine.settings, &self.access) {
            // Only here it is a table that would be made.
            Err(_) if ingestion.missing == IfMissing::Create => {
                Target::find(&named, "CREATE TABLE", &self.engine.settings, &self.access)?
            }
            found => found?,
        };
        // Before there is a lease, which others would see, and which names its holder to those who wait for it.
        let live = self.engine.live(&target).await?;
        self.makes(&target, live.as_deref(), &ingestion)?;
        let (begun, lease) = (self.engine.clock.now(), self.lease(&target, WORDS).await);
        let (lease, result) = match lease {
            Ok(lease) => {
                let result = self.ingest_under(&lease, &target, &ingestion, rows).await;
                (Some(lease), result)
            }
            Err(error) => (None, Err(error)),
        };
        self.end(&target, (WORDS, begun), lease, result).await
    }

    async fn ingest_under(
        &self,
        lease: &Lease,
        target: &Target,
        ingestion: &Ingestion,
        rows: IncomingRows,
    ) -> Result<Done, QueryError> {
        let attempt = self.engine.lake.table(&target.name).begin(lease).await.map_err(told)?;
        let live = attempt.snapshot().filter(|snapshot| !snapshot.is_dropped()).cloned();
        // Whatever was checked before, this is the version that is changed.
        let outcome = match self.makes(target, live.as_deref(), ingestion)? {
            true => self.make(attempt, target, live.as_ref(), rows).await?,
            false => self.add(attempt, target, live.as_ref(), rows).await?,
        };
        self.commit(outcome).await
    }

    /// Whether the table is made, rather than added to.
    fn makes(&self, target: &Target, live: Option<&Snapshot>, ingestion: &Ingestion) -> Result<bool, QueryError> {
        let is_there = live.is_some() || target.definition.is_some();
        match (is_there, ingestion.existing, ingestion.missing) {
            (false, _, IfMissing::Fail) => Err(missing(&target.name)),
            (true, IfExisting::Fail, _) => {
                check_create(Existing::Fail, target, live, &self.access)?;
                Err(exists(target))
            }
            (true, IfExisting::Append, _) => target.check(live, &self.access).map(|()| false),
            (true, IfExisting::Replace, _) if target.definition.is_some() => Err(QueryError::unsupported(format!(
                "{} is defined by a file, and is not replaced; delete its rows and append",
                target.name
            ))),
            (true, IfExisting::Replace, _) | (false, _, IfMissing::Create) => {
                check_create(Existing::Replace, target, live, &self.access).map(|()| true)
            }
        }
    }

    async fn add(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        mut rows: IncomingRows,
    ) -> Result<Outcome, QueryError> {
        let schema = target.columns(live.map(AsRef::as_ref))?;
        let key = target.key(live.map(AsRef::as_ref));
        let from = by_name(&rows.schema, &schema, target)?;
        let shape = Shape { table: target.name.clone(), schema: Arc::clone(&schema), from, key: key.clone() };
        let mut writer = attempt.writer(WritePlan::append(&schema, &key)).map_err(told)?;
        let filled = self.fill(&mut rows, &shape, &mut writer).await;
        self.added(attempt, target, live, (&schema, &key), (writer, filled)).await
    }

    async fn make(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        mut rows: IncomingRows,
    ) -> Result<Outcome, QueryError> {
        let schema = made_of(&rows.schema, &[])?;
        let from = (0..schema.fields().len()).map(Some).collect();
        let shape = Shape { table: target.name.clone(), schema: Arc::clone(&schema), from, key: Vec::new() };
        let mut writer = attempt.writer(anew(&attempt, &schema, &[])).map_err(told)?;
        let filled = self.fill(&mut rows, &shape, &mut writer).await;
        self.made(attempt, target, live, (&schema, &[]), (writer, filled)).await
    }

    async fn fill(&self, rows: &mut IncomingRows, shape: &Shape, writer: &mut TableWriter) -> Result<u64, QueryError> {
        let environment = self.engine.lake.environment();
        let held = MemoryConsumer::new("rows that are sent").register(&environment.memory_pool);
        let mut count = 0;
        while let Some(batch) = self.incoming(rows).await? {
            let _held = hold(&held, &batch)?;
            count += batch.num_rows() as u64;
            for piece in pieces(&batch)? {
                self.go_on()?;
                let rows = shape.rows(&piece?)?;
                writer.write(ChangeBatch { kind: ChangeKind::Append, rows, file: None }).await.map_err(told)?;
            }
        }
        Ok(count)
    }

    async fn incoming(&self, rows: &mut IncomingRows) -> Result<Option<RecordBatch>, QueryError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(self.stopped()),
            () = tokio::time::sleep_until(self.deadline) => Err(crate::query::cancel::too_late(self.limit)),
            next = rows.batches.next() => next.transpose(),
        }
    }
}

/// Takes memory for a batch, as long as what comes back lives.
fn hold(held: &MemoryReservation, batch: &RecordBatch) -> Result<MemoryReservation, QueryError> {
    let own = held.new_empty();
    own.try_grow(batch.get_array_memory_size())?;
    Ok(own)
}

/// A batch in pieces of bounded size that do not keep each other alive.
fn pieces(batch: &RecordBatch) -> Result<impl Iterator<Item = Result<RecordBatch, QueryError>> + '_, QueryError> {
    let bytes = batch.get_array_memory_size().max(1);
    let rows = batch.num_rows();
    let whole = bytes <= PIECE_BYTES;
    let step = if whole { rows.max(1) } else { (rows * PIECE_BYTES / bytes).max(1) };
    let last =
        u32::try_from(rows).map_err(|_| QueryError::invalid("a batch of rows is too long; send smaller ones"))?;
    Ok((0..rows).step_by(step).map(move |first| {
        if whole {
            return Ok(batch.clone());
        }
        let first = u32::try_from(first).unwrap_or(last);
        let end = first.saturating_add(u32::try_from(step).unwrap_or(last)).min(last);
        let places = UInt32Array::from_iter_values(first..end);
        Ok(take_record_batch(batch, &places).map_err(DataFusionError::from)?)
    }))
}

/// Which of the sent columns each column of the table gets: by name, whatever the case where that is clear.
fn by_name(sent: &Schema, schema: &SchemaRef, target: &Target) -> Result<Vec<Option<usize>>, QueryError> {
    let mut from = vec![None; schema.fields().len()];
    for (at, field) in sent.fields().iter().enumerate() {
        let name = field.name();
        let place = match schema.index_of(name) {
            Ok(place) => place,
            Err(_) => {
                let alike: Vec<usize> = schema
                    .fields()
                    .iter()
                    .enumerate()
                    .filter(|(_, known)| known.name().eq_ignore_ascii_case(name))
                    .map(|(place, _)| place)
                    .collect();
                match alike.as_slice() {
                    [only] => *only,
                    _ => return Err(QueryError::invalid(format!("{} has no column `{name}`", target.name))),
                }
            }
        };
        if from[place].replace(at).is_some() {
            return Err(QueryError::new(
                ErrorKind::InvalidInput,
                format!("two of the sent columns are `{}` of {}", schema.field(place).name(), target.name),
            ));
        }
    }
    Ok(from)
}
