//! Rows that a client sends, into a table that is there or one that is made for them.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use futures::StreamExt;

use crate::config::RESULTS_SCHEMA;
use crate::error::ErrorKind;
use crate::lake::{Attempt, Lease, Snapshot, TableWriter, WritePlan};
use crate::model::{ChangeBatch, ChangeKind, TableName};
use crate::query::QueryError;
use crate::query::change::define::{anew, check_create, exists, made_of};
use crate::query::change::fit::Shape;
use crate::query::change::run::{Done, Outcome, Run, told};
use crate::query::change::target::{Refused, Target, missing};
use crate::query::change::{Existing, Named};
use crate::query::engine::{Changed, IfExisting, IfMissing, IncomingRows, Ingestion};

/// The statement's words in the journal and in leases.
const WORDS: &str = "INGEST";

/// Bytes of rows that are handed on at once: what waits to be encoded is a few of them.
const PIECE_BYTES: usize = 8 << 20;

/// Rows that are handed on at once: bringing them into their types takes some bytes for each that nobody counts.
const PIECE_ROWS: usize = 64 << 10;

/// Bytes of one row at most: those of a message once it is unpacked, whose only row it may be.
const ROW_BYTES: usize = 256 << 20;

impl Run {
    /// Puts rows into a table, in one commit after the last of them.
    ///
    /// # Errors
    /// What made it fail: then nothing was changed, unless the message says so.
    pub(crate) async fn ingest(self, ingestion: Ingestion, rows: IncomingRows) -> Result<Changed, QueryError> {
        let schema = ingestion.schema.as_deref().unwrap_or(RESULTS_SCHEMA);
        let named = Named::of(schema, &ingestion.table);
        let found = match Target::find(&named, WORDS, &self.engine.settings, &self.access) {
            // Only here it is a table that would be made.
            Err(_) if ingestion.missing == IfMissing::Create => {
                Target::find(&named, "CREATE TABLE", &self.engine.settings, &self.access)
            }
            found => found,
        };
        let target = self.engine.hinting(&named, found, &self.access).await?;
        // Before there is a lease, which others would see, and which names its holder to those who wait for it.
        let live = self.engine.live(&target).await?;
        let makes = self.makes(&target, live.as_deref(), &ingestion);
        self.engine.hinting(&named, makes, &self.access).await?;
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
    fn makes(&self, target: &Target, live: Option<&Snapshot>, ingestion: &Ingestion) -> Result<bool, Refused> {
        let is_there = live.is_some() || target.definition.is_some();
        match (is_there, ingestion.existing, ingestion.missing) {
            (false, _, IfMissing::Fail) => Err(missing(&target.name)),
            (true, IfExisting::Fail, _) => {
                check_create(Existing::Fail, target, live, &self.access)?;
                Err(exists(target).into())
            }
            (true, IfExisting::Append, _) => target.check(live, &self.access).map(|()| false),
            (true, IfExisting::Replace, _) if target.definition.is_some() => Err(QueryError::unsupported(format!(
                "{} is defined by a file, and is not replaced; delete its rows and append",
                target.name
            ))
            .into()),
            (true, IfExisting::Replace, _) | (false, _, IfMissing::Create) => {
                check_create(Existing::Replace, target, live, &self.access)?;
                Ok(true)
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
            let (own, packed) = (held.new_empty(), batch.get_array_memory_size());
            own.try_grow(packed)?;
            count += batch.num_rows() as u64;
            let mut pieces = Pieces { batch: &batch, shape, first: 0, rows: PIECE_ROWS };
            while let Some(piece) = pieces.next()? {
                self.go_on()?;
                own.try_resize(packed.max(piece.bytes))?;
                let rows = shape.rows(&piece.rows)?;
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

/// A batch in pieces of bounded size that do not keep each other alive. Their size is that of their values in the table's
/// types, which may be millions of times that of the batch.
struct Pieces<'a> {
    batch: &'a RecordBatch,
    shape: &'a Shape,
    /// The first row of the next piece.
    first: usize,
    /// Rows of the piece before.
    rows: usize,
}

/// Rows of a batch.
struct Piece {
    rows: RecordBatch,
    /// Their size in the table's types.
    bytes: usize,
}

impl Pieces<'_> {
    /// The next piece.
    ///
    /// # Errors
    /// `ResourceExhausted` when a single row is too large.
    fn next(&mut self) -> Result<Option<Piece>, QueryError> {
        let rest = self.batch.num_rows() - self.first;
        if rest == 0 {
            return Ok(None);
        }
        // Twice as many as before: where large rows were, small ones may follow.
        self.rows = rest.min(PIECE_ROWS).min(self.rows.saturating_mul(2));
        let (rows, bytes) = loop {
            let rows = self.batch.slice(self.first, self.rows);
            let most = if self.rows == 1 { ROW_BYTES } else { PIECE_BYTES };
            match self.shape.unpacked(&rows, most) {
                Some(bytes) => break (rows, bytes),
                None if self.rows == 1 => return Err(too_large(&self.shape.table)),
                None => self.rows /= 2,
            }
        };
        let is_whole = self.rows == self.batch.num_rows();
        self.first += self.rows;
        // Of what lists hold, what none of these rows shows goes.
        let has_lists = rows.columns().iter().any(|column| column.data_type().is_nested());
        if is_whole && !has_lists {
            return Ok(Some(Piece { rows, bytes }));
        }
        let places = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
        let rows = take_record_batch(&rows, &places).map_err(DataFusionError::from)?;
        Ok(Some(Piece { rows, bytes }))
    }
}

fn too_large(table: &TableName) -> QueryError {
    let most = ROW_BYTES >> 20;
    let text = format!(
        "a row for {table} takes more than {most} MiB once it is unpacked; put less into one row: shorter lists, fewer long \
         texts"
    );
    QueryError::new(ErrorKind::ResourceExhausted, text)
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

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, AsArray, DictionaryArray, Int8Array, Int32Array, Int64Array, LargeStringArray, ListArray,
        NullArray, RunArray, StringArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field, Int8Type, Int32Type};

    use super::*;

    /// A table whose columns are `c0`, `c1`, … of these types, for columns in the same order.
    fn shape(types: Vec<DataType>) -> Shape {
        let fields = types.into_iter().enumerate().map(|(n, kind)| Field::new(format!("c{n}"), kind, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let from = (0..schema.fields().len()).map(Some).collect();
        Shape { table: "results.t".parse().unwrap(), schema, from, key: Vec::new() }
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let named = columns.into_iter().enumerate().map(|(n, column)| (format!("c{n}"), column, true));
        RecordBatch::try_from_iter_with_nullable(named).unwrap()
    }

    fn pieces<'a>(batch: &'a RecordBatch, shape: &'a Shape) -> impl Iterator<Item = Result<Piece, QueryError>> + 'a {
        let mut pieces = Pieces { batch, shape, first: 0, rows: PIECE_ROWS };
        std::iter::from_fn(move || pieces.next().transpose())
    }

    /// One value under so many rows.
    fn one_word(bytes: usize, rows: usize) -> ArrayRef {
        let word = LargeStringArray::from(vec!["x".repeat(bytes)]);
        Arc::new(DictionaryArray::<Int8Type>::try_new(Int8Array::from(vec![0; rows]), Arc::new(word)).unwrap())
    }

    #[test]
    fn rows_that_unpack_to_gigabytes_come_in_pieces_of_bounded_size() {
        let run = |value: i64| -> ArrayRef {
            let values = Int64Array::from(vec![value]);
            Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![64 << 20]), &values).unwrap())
        };
        let runs = (batch((0..30).map(run).collect()), shape(vec![DataType::Int64; 30]));
        let words = (batch(vec![one_word(300_000, 1 << 20)]), shape(vec![DataType::Utf8]));
        let nulls = batch(vec![Arc::new(NullArray::new(64 << 20))]);
        let nulls = (nulls, shape(vec![DataType::Decimal128(38, 0)]));
        for (batch, shape) in [runs, words, nulls] {
            for piece in pieces(&batch, &shape).take(3) {
                let piece = piece.unwrap();
                let rows = shape.rows(&piece.rows).unwrap();
                let bytes = rows.get_array_memory_size();
                // Vectors grow by doubling.
                assert!(bytes <= 2 * PIECE_BYTES + (1 << 20), "{bytes} bytes in {} rows", rows.num_rows());
                assert!(piece.bytes <= PIECE_BYTES && rows.num_rows() > 1, "{} of {}", piece.bytes, rows.num_rows());
            }
        }
    }

    #[test]
    fn pieces_are_all_the_rows_in_order() {
        let numbers = Int64Array::from_iter_values(0..200_000);
        let words = DictionaryArray::<Int32Type>::try_new(
            Int32Array::from_iter_values((0..200_000).map(|n| if n / 50 == 1000 { 1 } else { 0 })),
            Arc::new(StringArray::from(vec!["short".to_owned(), "x".repeat(1 << 20)])),
        );
        let batch = batch(vec![Arc::new(numbers), Arc::new(words.unwrap())]);
        let shape = shape(vec![DataType::Int64, DataType::Utf8]);
        let (mut seen, mut sizes) = (Vec::new(), Vec::new());
        for piece in pieces(&batch, &shape) {
            let rows = shape.rows(&piece.unwrap().rows).unwrap();
            seen.extend_from_slice(rows.column(0).as_primitive::<arrow::datatypes::Int64Type>().values());
            sizes.push(rows.num_rows());
        }
        assert_eq!(seen, (0..200_000).collect::<Vec<_>>());
        assert!(sizes.len() < 60 && sizes.iter().any(|rows| *rows < 10), "{sizes:?}");
    }

    #[test]
    fn what_is_small_is_handed_on_as_it_is() {
        let batch = batch(vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]);
        let shape = shape(vec![DataType::Int64]);
        let all: Vec<_> = pieces(&batch, &shape).map(Result::unwrap).collect();
        assert_eq!((all.len(), &all[0].rows), (1, &batch));
        assert_eq!(pieces(&batch.slice(0, 0), &shape).count(), 0);
    }

    #[test]
    fn one_row_that_is_too_large_is_refused_and_one_that_is_large_is_not() {
        let list = |words: ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new("item", words.data_type().clone(), true));
            let offsets = OffsetBuffer::from_lengths([words.len()]);
            Arc::new(ListArray::try_new(item, offsets, words, None).unwrap())
        };
        let item = Arc::new(Field::new("element", DataType::Utf8, true));
        let shape = shape(vec![DataType::List(item)]);
        let bomb = batch(vec![list(one_word(300_000, 100_000))]);
        let refused = pieces(&bomb, &shape).next().unwrap().err().unwrap();
        assert!(refused.to_string().contains("results.t") && refused.to_string().contains("256 MiB"), "{refused}");
        let large = batch(vec![list(one_word(300_000, 100))]);
        let piece = pieces(&large, &shape).next().unwrap().unwrap();
        assert!(piece.bytes > PIECE_BYTES && shape.rows(&piece.rows).is_ok());
    }

    #[test]
    fn what_no_list_shows_is_not_unpacked() {
        let hidden: ArrayRef = one_word(300_000, 100_000);
        let item = Arc::new(Field::new("item", hidden.data_type().clone(), true));
        let lists = ListArray::try_new(item, OffsetBuffer::from_lengths([0, 1]), hidden, None).unwrap();
        let item = Arc::new(Field::new("element", DataType::Utf8, true));
        let (batch, shape) = (batch(vec![Arc::new(lists)]), shape(vec![DataType::List(item)]));
        let piece = pieces(&batch, &shape).next().unwrap().unwrap();
        let rows = shape.rows(&piece.rows).unwrap();
        assert!(rows.get_array_memory_size() < 1 << 20 && rows.column(0).as_list::<i32>().values().len() == 1);
    }
}
