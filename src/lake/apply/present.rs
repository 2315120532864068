//! What is present at a source, gathered until it can be compared with the table.
//!
//! Whole rows and mere keys are sorted apart, each in bounded memory, the last one of each key kept. Then they and
//! the rows of the table are walked through together in the order of keys ([`Differences`]).

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int8Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};

use crate::lake::apply::base::Base;
use crate::lake::apply::differences::{Differences, Origin};
use crate::lake::apply::form::Form;
use crate::lake::apply::locate::Locator;
use crate::lake::apply::neighbours::Neighbours;
use crate::lake::apply::ranges::Ranges;
use crate::lake::apply::spool::{self, Spool};
use crate::lake::apply::{change_schema, marked};
use crate::lake::sort::{KeyOrder, adapt, merge};
use crate::lake::writer::{Pipe, unless_stopped};
use crate::lake::{LakeError, Snapshot};
use crate::model::{KeyRange, TableName};

/// The column that says where a row that is compared comes from.
const ORIGIN: &str = "__lakegate_origin";

/// What is present, to be compared with the rows of `base`.
pub(super) struct Present {
    table: TableName,
    environment: Arc<RuntimeEnv>,
    base: Arc<Snapshot>,
    key: Vec<String>,
    rows: Side,
    keys: Side,
    ranges: Ranges,
}

/// Rows of one kind.
struct Side {
    form: Form,
    pipe: Option<Pipe<(Spool, Locator)>>,
}

impl Present {
    /// Nothing yet. The table's columns are `schema`, ordered by `order`; `told` are those that rows come with.
    ///
    /// # Errors
    /// When the key cannot be compared.
    pub(super) fn new(
        (table, environment): (TableName, Arc<RuntimeEnv>),
        base: Arc<Snapshot>,
        key: Vec<String>,
        (schema, order): (&Schema, &KeyOrder),
        told: &Schema,
    ) -> Result<Self, LakeError> {
        let rows = Form::of(&table, schema, order, |field| told.index_of(field.name()).is_ok())?;
        let keys = Form::of(&table, schema, order, |field| key.contains(field.name()))?;
        let what = || format!("cannot compare keys of table {table}");
        let ranges = Ranges::new(&keys).map_err(|cause| LakeError::rows(what(), cause))?;
        let side = |form| Side { form, pipe: None };
        Ok(Self { rows: side(rows), keys: side(keys), table, environment, base, key, ranges })
    }

    /// Takes rows with the table's columns; `first` is the number of the first of them.
    ///
    /// # Errors
    /// What made sorting them fail, such as a full disk.
    pub(super) async fn write_rows(&mut self, rows: &RecordBatch, first: i64) -> Result<(), LakeError> {
        let rest = (self.table.clone(), Arc::clone(&self.environment));
        self.rows.write(rest, Some(&self.base), rows, first).await
    }

    /// Takes keys.
    ///
    /// # Errors
    /// As [`Self::write_rows`].
    pub(super) async fn write_keys(&mut self, keys: &RecordBatch, first: i64) -> Result<(), LakeError> {
        let rest = (self.table.clone(), Arc::clone(&self.environment));
        self.keys.write(rest, None, keys, first).await
    }

    /// The columns of keys.
    pub(super) fn keys(&self) -> &Form {
        &self.keys.form
    }

    /// Takes note that everything in a range was told.
    ///
    /// # Errors
    /// When an end is not one whole key.
    pub(super) fn complete(&mut self, range: &KeyRange) -> Result<(), LakeError> {
        self.ranges.add(&self.table, &self.keys.form, range)
    }

    /// Compares with the table.
    ///
    /// # Errors
    /// What made sorting fail, or that the table's files cannot be read.
    pub(super) async fn compare(mut self) -> Result<Differences, LakeError> {
        let table = self.table.clone();
        let what =
            |cause: DataFusionError| LakeError::rows(format!("cannot compare what is present of {table}"), cause);
        self.ranges.settle();
        let rows = self.rows.finish().await?;
        let keys = self.keys.finish().await?;
        // Without rows nothing but keys need be read.
        let form = if rows.is_some() { self.rows.form.clone() } else { self.keys.form.clone() };
        let mut streams = Vec::new();
        let mut locator = match rows {
            Some((spool, locator)) => {
                streams.push(told(spool, &form, Origin::Row).map_err(&what)?);
                locator
            }
            None => Locator::new(Some(&self.base), &form.schema(), form.order(), false),
        };
        self.ranges.locate(&mut locator);
        if let Some((spool, _)) = keys {
            streams.push(told(spool, &form, Origin::Key).map_err(&what)?);
        }
        let mut streams = self.once_each(streams, &form);
        let base = Base::new(Arc::clone(&self.base), Arc::clone(&self.environment), form.conform().clone());
        for rows in base.sorted(&locator.met(), &self.key, form.order())? {
            streams.push(with_origin(rows, Origin::Table));
        }
        let schema = origin_schema(&form.schema());
        // Of equal keys what is present comes first, then what is in the table.
        let merged = merge(&self.environment, form.order(), &schema, streams);
        Ok(Differences::new(self.table, form, self.ranges, merged))
    }

    /// What is present as one stream, in which each key comes once: as a row where there is one.
    fn once_each(&self, streams: Vec<SendableRecordBatchStream>, form: &Form) -> Vec<SendableRecordBatchStream> {
        if streams.len() < 2 {
            return streams;
        }
        let schema = origin_schema(&form.schema());
        let merged = merge(&self.environment, form.order(), &schema, streams);
        let mut neighbours = Neighbours::new(form.order());
        let once = merged.map(move |rows| {
            let rows = rows?;
            let same = neighbours.same_as_before(&rows)?;
            Ok(filter_record_batch(&rows, &BooleanArray::new(!&same, None))?)
        });
        vec![adapt(&schema, once)]
    }

    /// Gives up.
    pub(super) async fn abort(self) {
        for side in [self.rows, self.keys] {
            if let Some(pipe) = side.pipe {
                pipe.abort().await;
            }
        }
    }
}

impl Side {
    /// Takes rows, and finds which files of `base` they meet.
    async fn write(
        &mut self,
        (table, environment): (TableName, Arc<RuntimeEnv>),
        base: Option<&Snapshot>,
        rows: &RecordBatch,
        first: i64,
    ) -> Result<(), LakeError> {
        let rows = marked(&table, &self.form.conform().rows(rows)?, first, false)?;
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            None => {
                let schema = self.form.schema();
                let locator = Locator::new(base, &schema, self.form.order(), false);
                let rest = (table, environment, self.form.order().clone());
                let fill = |rows, stop| unless_stopped(stop, spool::fill(rest, rows, locator));
                self.pipe.insert(Pipe::start(&change_schema(&schema), fill))
            }
        };
        pipe.write(rows).await
    }

    async fn finish(&mut self) -> Result<Option<(Spool, Locator)>, LakeError> {
        match self.pipe.take() {
            Some(pipe) => pipe.finish().await.map(Some),
            None => Ok(None),
        }
    }
}

/// What was told, in the columns of `form`.
fn told(spool: Spool, form: &Form, origin: Origin) -> Result<SendableRecordBatchStream, DataFusionError> {
    let conform = form.conform().clone();
    let schema = form.schema();
    let rows = spool.stream()?.and_then(move |rows| {
        let rows = conform.rows(&rows).map_err(|error| DataFusionError::External(error.into()));
        async { rows }
    });
    Ok(with_origin(adapt(&schema, rows), origin))
}

fn origin_schema(schema: &Schema) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(ORIGIN, DataType::Int8, false)));
    Arc::new(Schema::new(fields))
}

fn with_origin(rows: SendableRecordBatchStream, origin: Origin) -> SendableRecordBatchStream {
    let schema = origin_schema(&rows.schema());
    let marked = Arc::clone(&schema);
    let batches = rows.map(move |rows| {
        let rows = rows?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int8Array::from_value(origin.number(), rows.num_rows())) as ArrayRef);
        Ok(RecordBatch::try_new(Arc::clone(&marked), columns)?)
    });
    adapt(&schema, batches)
}
