//! Adding rows, deleting and updating them.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use futures::StreamExt;

use crate::error::Classify;
use crate::lake::{Attempt, Edit, Edits, FILE_COLUMN, LakeError, ROW_COLUMN, Snapshot, Staged, TableWriter, WritePlan};
use crate::model::{ChangeBatch, ChangeKind};
use crate::query::QueryError;
use crate::query::change::fit::Shape;
use crate::query::change::plan::{Given, given_target};
use crate::query::change::rows::{Rows, bound_table};
use crate::query::change::run::{Outcome, Run, told, version_of};
use crate::query::change::target::Target;
use crate::query::change::unique::check_unique;
use crate::query::change::{ASSIGNED, BOUND, Change, Find, Insert, Update};

impl Run {
    /// Adds rows.
    pub(crate) async fn insert(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        insert: &Insert,
        (bound, values): (&[RecordBatch], Vec<ScalarValue>),
    ) -> Result<Outcome, QueryError> {
        let schema = target.columns(live.map(AsRef::as_ref))?;
        let key = target.key(live.map(AsRef::as_ref));
        let mut writer = attempt.writer(WritePlan::append(&schema, &key)).map_err(told)?;
        let filled = self.insert_rows(target, &schema, &key, insert, (bound, values), &mut writer).await;
        self.added(attempt, target, live, (&schema, &key), (writer, filled)).await
    }

    /// Rows that were written to be added, ready to be committed; many small data files are taken in with them.
    pub(crate) async fn added(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        (schema, key): (&SchemaRef, &[String]),
        (writer, filled): (TableWriter, Result<u64, QueryError>),
    ) -> Result<Outcome, QueryError> {
        let Some((mut staged, rows)) = finish(writer, filled).await? else {
            return Ok(Outcome::Nothing(version_of(live)));
        };
        let unique = check_unique(self, &attempt, &staged, (schema, key), |_| true, &target.name).await;
        let mut checked = unique.and_then(|()| self.go_on());
        if checked.is_ok() {
            attempt.gather(&mut staged, key).await;
            checked = self.go_on();
        }
        discard_unless(checked, attempt, staged, rows).await
    }

    async fn insert_rows(
        &self,
        target: &Target,
        schema: &SchemaRef,
        key: &[String],
        insert: &Insert,
        (bound, values): (&[RecordBatch], Vec<ScalarValue>),
        writer: &mut TableWriter,
    ) -> Result<u64, QueryError> {
        let mut count = 0;
        if bound.is_empty() || insert.bound.is_empty() {
            let mut rows = self.rows(&insert.rows, values, &Given::new()).await?;
            return self.write(target, schema, key, insert, &mut rows, writer).await;
        }
        for query in &insert.bound {
            let given = Given::from([(BOUND.to_owned(), bound_table(bound)?)]);
            let mut rows = self.rows(query, Vec::new(), &given).await?;
            count += self.write(target, schema, key, insert, &mut rows, writer).await?;
        }
        Ok(count)
    }

    async fn write(
        &self,
        target: &Target,
        schema: &SchemaRef,
        key: &[String],
        insert: &Insert,
        rows: &mut Rows,
        writer: &mut TableWriter,
    ) -> Result<u64, QueryError> {
        let from = positions(&insert.columns, schema, rows.schema.fields().len(), target)?;
        let shape = Shape { table: target.name.clone(), schema: Arc::clone(schema), from, key: key.to_vec() };
        self.pour(rows, &shape, writer).await
    }

    /// Writes all rows of a query; tells how many there were.
    pub(crate) async fn pour(
        &self,
        rows: &mut Rows,
        shape: &Shape,
        writer: &mut TableWriter,
    ) -> Result<u64, QueryError> {
        let mut count = 0;
        while let Some(batch) = self.next(rows).await? {
            count += batch.num_rows() as u64;
            let rows = shape.rows(&batch)?;
            writer.write(ChangeBatch { kind: ChangeKind::Append, rows, file: None }).await.map_err(told)?;
        }
        Ok(count)
    }

    /// Deletes rows.
    pub(crate) async fn delete(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        (change, find): (&Change, &Find),
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, QueryError> {
        let Some(live) = live else { return Ok(Outcome::Nothing(None)) };
        if find.all
            && let Some(rows) = live.rows()
        {
            self.go_on()?;
            if rows == 0 {
                return Ok(Outcome::Nothing(Some(live.version())));
            }
            let staged = Staged::delete_all(live);
            return Ok(Outcome::Commit(Box::new(attempt), Box::new(staged), rows));
        }
        let key = target.key(Some(live));
        let given = given_target(&change.action, Some(live), target)?;
        let mut rows = self.rows(&find.rows, values, &given).await?;
        let places = places(&rows.schema)?;
        let failure = Failure::default();
        let edits =
            self.edits(&mut rows, &failure, |batch| Ok(batch.project(&places).map_err(DataFusionError::from)?));
        let edited = attempt.edit(Edit::Delete, &key, edits).await.map_err(|error| failure.or(error))?;
        if edited.rows == 0 {
            return Ok(Outcome::Nothing(Some(live.version())));
        }
        discard_unless(self.go_on(), attempt, edited.staged, edited.rows).await
    }

    /// Changes values.
    pub(crate) async fn update(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        (change, update): (&Change, &Update),
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, QueryError> {
        let columns = match live {
            Some(live) => live.schema(),
            None => target.columns(None)?,
        };
        if let Some(unknown) = update.columns.iter().find(|column| columns.field_with_name(column).is_err()) {
            return Err(no_column(unknown, target));
        }
        let Some(live) = live else { return Ok(Outcome::Nothing(None)) };
        let (schema, key) = (columns, target.key(Some(live)));
        let moves = update.columns.iter().any(|column| key.contains(column));
        let edit = if moves { Edit::Move } else { Edit::Replace };
        let given = given_target(&change.action, Some(live), target)?;
        let mut rows = self.rows(&update.rows, values, &given).await?;
        let places = places(&rows.schema)?;
        let from = schema.fields().iter().map(|field| {
            let assigned = update.columns.iter().position(|column| column == field.name());
            let name = assigned.map_or_else(|| field.name().clone(), |number| format!("{ASSIGNED}{number}"));
            rows.schema.index_of(&name).ok()
        });
        let shape =
            Shape { table: target.name.clone(), schema: Arc::clone(&schema), from: from.collect(), key: key.clone() };
        let failure = Failure::default();
        let edits = self.edits(&mut rows, &failure, |batch| with_places(batch, &places, &shape.rows(batch)?));
        let edited = attempt.edit(edit, &key, edits).await.map_err(|error| failure.or(error))?;
        if edited.rows == 0 {
            return Ok(Outcome::Nothing(Some(live.version())));
        }
        let is_moved = |name: &str| edited.moved.contains(name);
        let checked = if moves {
            check_unique(self, &attempt, &edited.staged, (&schema, &key), is_moved, &target.name).await
        } else {
            Ok(())
        };
        discard_unless(checked.and_then(|()| self.go_on()), attempt, edited.staged, edited.rows).await
    }
}

/// Completes what was written; nothing where there were no rows. What was written is removed after an error.
async fn finish(writer: TableWriter, filled: Result<u64, QueryError>) -> Result<Option<(Staged, u64)>, QueryError> {
    match filled {
        Ok(0) => {
            writer.abort().await;
            Ok(None)
        }
        Ok(rows) => Ok(Some((writer.finish(&[]).await.map_err(told)?, rows))),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

/// What is to be committed, unless something is wrong: then the data files go.
pub(crate) async fn discard_unless(
    checked: Result<(), QueryError>,
    attempt: Attempt,
    staged: Staged,
    rows: u64,
) -> Result<Outcome, QueryError> {
    match checked {
        Ok(()) => Ok(Outcome::Commit(Box::new(attempt), Box::new(staged), rows)),
        Err(error) => {
            attempt.discard(&staged).await;
            Err(error)
        }
    }
}

/// Which column of the rows each column of the table gets.
fn positions(
    columns: &[String],
    schema: &SchemaRef,
    given: usize,
    target: &Target,
) -> Result<Vec<Option<usize>>, QueryError> {
    let expected = if columns.is_empty() { schema.fields().len() } else { columns.len() };
    if given != expected {
        let hint = if columns.is_empty() { "; name those you have values for: INSERT INTO t (a, b) …" } else { "" };
        return Err(QueryError::invalid(format!(
            "INSERT into {} gives {given} values for {expected} columns{hint}",
            target.name
        )));
    }
    if columns.is_empty() {
        return Ok((0..given).map(Some).collect());
    }
    let mut from = vec![None; schema.fields().len()];
    for (at, column) in columns.iter().enumerate() {
        let place = schema.index_of(column).map_err(|_| no_column(column, target))?;
        if from[place].replace(at).is_some() {
            return Err(QueryError::invalid(format!("INSERT names column `{column}` twice")));
        }
    }
    Ok(from)
}

fn no_column(column: &str, target: &Target) -> QueryError {
    QueryError::invalid(format!("{} has no column `{column}`", target.name))
}

/// Where the columns stand that say where rows stand.
fn places(schema: &SchemaRef) -> Result<[usize; 2], QueryError> {
    let place = |name| schema.index_of(name).map_err(DataFusionError::from);
    Ok([place(FILE_COLUMN)?, place(ROW_COLUMN)?])
}

/// Places first, then the changed rows.
fn with_places(batch: &RecordBatch, places: &[usize; 2], changed: &RecordBatch) -> Result<RecordBatch, QueryError> {
    let fields = places.iter().map(|place| Arc::clone(&batch.schema_ref().fields()[*place]));
    let fields = fields.chain(changed.schema_ref().fields().iter().cloned()).collect::<Vec<_>>();
    let columns = places.iter().map(|place| Arc::clone(batch.column(*place)));
    let columns = columns.chain(changed.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(DataFusionError::from)?)
}

/// Why the rows of a statement failed, kept while the lake passes on that they did.
#[derive(Default)]
struct Failure(Mutex<Option<QueryError>>);

impl Failure {
    /// The lake's words for it.
    fn keep(&self, error: QueryError) -> LakeError {
        let passed_on = LakeError::new(error.kind(), error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        passed_on
    }

    /// What was kept, or else what the lake failed with.
    fn or(&self, error: LakeError) -> QueryError {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| told(error))
    }
}

impl Run {
    /// The rows of a query as edits, once `make` has brought each batch into their form.
    fn edits<'a>(
        &'a self,
        rows: &'a mut Rows,
        failure: &'a Failure,
        make: impl Fn(&RecordBatch) -> Result<RecordBatch, QueryError> + Send + Sync + 'a,
    ) -> Edits<'a> {
        let make = Arc::new(make);
        let edits = futures::stream::try_unfold(rows, move |rows| {
            let make = Arc::clone(&make);
            async move {
                let next = self.next(rows).await.map_err(|error| failure.keep(error))?;
                let Some(batch) = next else { return Ok(None) };
                let edit = make(&batch).map_err(|error| failure.keep(error))?;
                Ok::<_, LakeError>(Some((edit, rows)))
            }
        });
        edits.boxed()
    }
}
