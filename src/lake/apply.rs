//! Applying changes by key: file-level copy-on-write.
//!
//! Changes are sorted and reduced to the last one of each key. The files whose bounds meet a changed key are
//! written anew together with it, in runs of neighbours, so that ranges of keys stay narrow; all others stay.
//!
//! Rows that are merely present at the source are compared with the table first; what differs joins the changes, older
//! than all of them.

mod base;
mod compare;
mod differences;
mod form;
mod locate;
mod neighbours;
mod present;
mod ranges;
mod run;
mod spool;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::Add;

use crate::error::ErrorKind;
use crate::lake::apply::differences::Difference;
use crate::lake::apply::form::nullable;
use crate::lake::apply::locate::{Locator, Plan};
use crate::lake::apply::present::Present;
use crate::lake::apply::spool::Spool;
use crate::lake::schema::{Conform, Evolution};
use crate::lake::sort::KeyOrder;
use crate::lake::writer::{DataFiles, Pipe, WritePlan, WriterPlace, unless_stopped};
use crate::lake::{LakeError, RewriteEstimate, Snapshot};
use crate::model::{ChangeBatch, ChangeKind, KeyRange, TableName};
use crate::runtime::fault;

pub(super) use base::{Base, rewrite};

/// The column that says whether a change removes its key.
const REMOVES: &str = "__lakegate_removes";

/// The column that puts later changes of one key first.
const NEWEST_FIRST: &str = "__lakegate_newest_first";

/// What is added to the number of a row that is older than any change: more than there can be changes.
const OLDEST: i64 = i64::MIN / 2;

/// Changes of one table by key, from the first batch to the new data files.
pub(super) struct Apply {
    table: TableName,
    environment: Arc<RuntimeEnv>,
    base: Option<Arc<Snapshot>>,
    order: KeyOrder,
    key: Vec<String>,
    conform: Conform,
    target_file_size: u64,
    sequence: i64,
    /// What is present, where there is something to compare it with.
    present: Option<Present>,
    state: State,
}

enum State {
    Taking(Pipe<(Spool, Locator)>),
    Ready(Box<Ready>),
    Failed,
}

struct Ready {
    spool: Spool,
    plan: Plan,
    change_bytes: u64,
}

/// What applying changes made.
pub(super) struct Applied {
    /// New data files.
    pub(super) adds: Vec<Add>,
    /// Places in the log of the data files that were written anew.
    pub(super) removed: HashSet<usize>,
    /// Rows put into the table.
    pub(super) rows: u64,
}

impl Apply {
    /// Begins to take changes of `base`, sorted by `order`.
    ///
    /// # Errors
    /// When the key cannot be compared.
    pub(super) fn begin(
        place: &WriterPlace,
        base: Option<Arc<Snapshot>>,
        plan: &WritePlan,
        evolution: &Evolution,
        order: KeyOrder,
    ) -> Result<Self, LakeError> {
        let table = place.place.name().clone();
        let present = match &base {
            None => None,
            Some(base) => {
                let rest = (table.clone(), Arc::clone(&place.environment));
                let columns = (evolution.schema.as_ref(), &order);
                Some(Present::new(rest, Arc::clone(base), plan.key.clone(), columns, &plan.schema)?)
            }
        };
        let locator = Locator::new(base.as_deref(), &evolution.schema, &order, evolution.rewrite);
        let schema = change_schema(&evolution.schema);
        let rest = (table.clone(), Arc::clone(&place.environment), order.clone());
        let pipe = Pipe::start(&schema, move |changes, stop| unless_stopped(stop, spool::fill(rest, changes, locator)));
        Ok(Self {
            conform: Conform::new(table.clone(), nullable(&evolution.schema)),
            table,
            environment: Arc::clone(&place.environment),
            base,
            order,
            key: plan.key.clone(),
            target_file_size: place.target_file_size,
            sequence: 0,
            present,
            state: State::Taking(pipe),
        })
    }

    /// Takes changes.
    ///
    /// # Errors
    /// `InvalidInput` when a key has no value or a row does not fit.
    pub(super) async fn write(&mut self, conform: &Conform, change: &ChangeBatch) -> Result<(), LakeError> {
        let rows = match (change.kind, &self.present) {
            // What is removed has only a key, and so may lack what must have a value.
            (ChangeKind::Delete, _) => self.conform.rows(&change.rows)?,
            (ChangeKind::PresentKeys, None) => return Ok(()),
            (ChangeKind::PresentKeys, Some(present)) => present.keys().conform().rows(&change.rows)?,
            _ => conform.rows(&change.rows)?,
        };
        self.check_key(&rows)?;
        let first = self.sequence;
        self.sequence += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        match (change.kind, &mut self.present) {
            (ChangeKind::Present, Some(present)) => present.write_rows(&rows, first).await,
            (ChangeKind::PresentKeys, Some(present)) => present.write_keys(&rows, first).await,
            // Where nothing is, what is present is put there, unless something newer is known.
            (ChangeKind::Present, None) => self.take(marked(&self.table, &rows, OLDEST + first, false)?).await,
            (kind, _) => self.take(marked(&self.table, &rows, first, kind == ChangeKind::Delete)?).await,
        }
    }

    /// Takes note that everything in a range came, or will come, as present or as changed.
    ///
    /// # Errors
    /// When an end of the range is not one whole key.
    pub(super) fn complete(&mut self, range: &KeyRange) -> Result<(), LakeError> {
        self.present.as_mut().map_or(Ok(()), |present| present.complete(range))
    }

    async fn take(&mut self, marked: RecordBatch) -> Result<(), LakeError> {
        match &mut self.state {
            State::Taking(pipe) => pipe.write(marked).await,
            _ => {
                let text = format!("changes of table {} came after their end", self.table);
                Err(LakeError::new(ErrorKind::Internal, text))
            }
        }
    }

    fn check_key(&self, rows: &RecordBatch) -> Result<(), LakeError> {
        for key in &self.key {
            let Some(column) = rows.column_by_name(key) else { continue };
            let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) else { continue };
            let text = format!(
                "table {}: key column `{key}` is NULL in row {} of the change; a row without a key cannot be found \
                 again: leave such rows out, or choose another key",
                self.table,
                self.sequence + i64::try_from(row).unwrap_or(0) + 1
            );
            return Err(LakeError::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Ends the changes and finds what they would cost; may be called again.
    ///
    /// # Errors
    /// What made sorting or comparing them fail, such as a full disk.
    pub(super) async fn prepare(&mut self) -> Result<RewriteEstimate, LakeError> {
        if let Some(present) = self.present.take()
            && let Err(error) = self.compare(present).await
        {
            if let State::Taking(pipe) = std::mem::replace(&mut self.state, State::Failed) {
                pipe.abort().await;
            }
            return Err(error);
        }
        if let State::Taking(_) = self.state
            && let State::Taking(pipe) = std::mem::replace(&mut self.state, State::Failed)
        {
            let (spool, locator) = pipe.finish().await?;
            let change_bytes = spool.bytes();
            let plan = locator.plan(change_bytes, self.target_file_size);
            self.state = State::Ready(Box::new(Ready { spool, plan, change_bytes }));
        }
        let State::Ready(ready) = &self.state else {
            return Err(LakeError::new(ErrorKind::Internal, format!("changes of table {} failed before", self.table)));
        };
        let (files, rewrite_bytes) = ready.plan.cost();
        Ok(RewriteEstimate { change_bytes: ready.change_bytes, rewrite_bytes, files })
    }

    /// Adds to the changes what differs from what is present.
    async fn compare(&mut self, present: Present) -> Result<(), LakeError> {
        fault::point("lake.compare.before")?;
        let mut differences = present.compare().await?;
        while let Some(difference) = differences.next().await? {
            fault::point("lake.compare.found")?;
            let (rows, removes) = match difference {
                Difference::Put(rows) => (rows, false),
                Difference::Remove(rows) => (rows, true),
            };
            let rows = self.conform.rows(&rows)?;
            self.take(marked(&self.table, &rows, OLDEST, removes)?).await?;
        }
        Ok(())
    }

    /// Writes the new data files.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub(super) async fn finish(mut self, files: &DataFiles) -> Result<Applied, LakeError> {
        self.prepare().await?;
        let State::Ready(ready) = self.state else {
            return Err(LakeError::new(ErrorKind::Internal, format!("changes of table {} failed before", self.table)));
        };
        let Ready { spool, plan, .. } = *ready;
        let rows = spool.rows();
        let runner = run::Runner {
            table: self.table,
            environment: self.environment,
            base: self.base,
            order: self.order,
            key: self.key,
            conform: self.conform,
            files: files.clone(),
        };
        runner.apply(spool, plan, rows).await
    }

    /// Gives up.
    pub(super) async fn abort(self) {
        if let Some(present) = self.present {
            present.abort().await;
        }
        if let State::Taking(pipe) = self.state {
            pipe.abort().await;
        }
    }
}

/// The columns of changes: the table's, none of which must have a value, and what is to be done.
fn change_schema(schema: &Schema) -> SchemaRef {
    let mut fields = nullable(schema).fields().to_vec();
    fields.push(Arc::new(Field::new(NEWEST_FIRST, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(REMOVES, DataType::Boolean, false)));
    Arc::new(Schema::new(fields))
}

/// Changes with their age, the first of them the `first`, and whether they remove their keys.
fn marked(table: &TableName, rows: &RecordBatch, first: i64, removes: bool) -> Result<RecordBatch, LakeError> {
    let count = i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
    let newest_first = Int64Array::from_iter_values((first..first + count).map(|place| -place));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(newest_first) as ArrayRef);
    columns.push(Arc::new(BooleanArray::from(vec![removes; rows.num_rows()])));
    RecordBatch::try_new(change_schema(rows.schema_ref()), columns).map_err(|cause| {
        LakeError::because(ErrorKind::Internal, format!("cannot mark changes of table {table}"), cause)
    })
}
