//! Applying changes by key: file-level copy-on-write.
//!
//! Changes are sorted and reduced to the last one of each key. The files whose bounds meet a changed key are
//! written anew together with it, in runs of neighbours, so that ranges of keys stay narrow; all others stay.

mod base;
mod locate;
mod neighbours;
mod run;
mod spool;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::Add;

use crate::error::ErrorKind;
use crate::lake::apply::locate::{Locator, Plan};
use crate::lake::apply::spool::Spool;
use crate::lake::schema::{Conform, Evolution};
use crate::lake::sort::KeyOrder;
use crate::lake::writer::{DataFiles, Pipe, WritePlan, WriterPlace, unless_stopped};
use crate::lake::{LakeError, RewriteEstimate, Snapshot};
use crate::model::{ChangeBatch, ChangeKind, TableName};

pub(super) use base::rewrite;

/// The column that says whether a change removes its key.
const REMOVES: &str = "__lakegate_removes";

/// The column that puts later changes of one key first.
const NEWEST_FIRST: &str = "__lakegate_newest_first";

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
    pub(super) fn begin(
        place: &WriterPlace,
        base: Option<Arc<Snapshot>>,
        plan: &WritePlan,
        evolution: &Evolution,
        order: KeyOrder,
    ) -> Self {
        let table = place.place.name().clone();
        let locator = Locator::new(base.as_deref(), &evolution.schema, &order, evolution.rewrite);
        let schema = change_schema(&evolution.schema);
        let rest = (table.clone(), Arc::clone(&place.environment), order.clone());
        let pipe = Pipe::start(&schema, move |changes, stop| unless_stopped(stop, spool::fill(rest, changes, locator)));
        Self {
            conform: Conform::new(table.clone(), nullable(&evolution.schema)),
            table,
            environment: Arc::clone(&place.environment),
            base,
            order,
            key: plan.key.clone(),
            target_file_size: place.target_file_size,
            sequence: 0,
            state: State::Taking(pipe),
        }
    }

    /// Takes changes.
    ///
    /// # Errors
    /// `InvalidInput` when a key has no value or a row does not fit.
    pub(super) async fn write(&mut self, conform: &Conform, change: &ChangeBatch) -> Result<(), LakeError> {
        let removes = change.kind == ChangeKind::Delete;
        // What is removed has only a key, and so may lack what must have a value.
        let rows = if removes { self.conform.rows(&change.rows)? } else { conform.rows(&change.rows)? };
        self.check_key(&rows)?;
        let count = i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        let newest_first = Int64Array::from_iter_values((self.sequence..self.sequence + count).map(|place| -place));
        self.sequence += count;
        let removes = BooleanArray::from(vec![removes; rows.num_rows()]);
        let schema = change_schema(rows.schema_ref());
        let mut columns = rows.columns().to_vec();
        columns.extend([Arc::new(newest_first) as ArrayRef, Arc::new(removes) as ArrayRef]);
        let marked = RecordBatch::try_new(schema, columns).map_err(|cause| {
            LakeError::because(ErrorKind::Internal, format!("cannot mark changes of table {}", self.table), cause)
        })?;
        match &mut self.state {
            State::Taking(pipe) => pipe.write(marked).await,
            _ => {
                let text = format!("changes of table {} came after their end", self.table);
                Err(LakeError::new(ErrorKind::Internal, text))
            }
        }
    }

    fn check_key(&self, rows: &RecordBatch) -> Result<(), LakeError> {
        for place in self.order.columns() {
            let column = rows.column(*place);
            let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) else { continue };
            let text = format!(
                "table {}: key column `{}` is NULL in row {} of the change; a row without a key cannot be found again: \
                 leave such rows out, or choose another key",
                self.table,
                rows.schema_ref().field(*place).name(),
                self.sequence + i64::try_from(row).unwrap_or(0) + 1
            );
            return Err(LakeError::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Ends the changes and finds what they would cost; may be called again.
    ///
    /// # Errors
    /// What made sorting them fail, such as a full disk.
    pub(super) async fn prepare(&mut self) -> Result<RewriteEstimate, LakeError> {
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

fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
