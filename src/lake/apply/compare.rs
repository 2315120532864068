//! What a pinned version has: whether keys are in it, and a hash of the rows in a range of keys.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::boolean::and_not;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;

use crate::error::ErrorKind;
use crate::lake::apply::base::Base;
use crate::lake::apply::form::{Form, nullable};
use crate::lake::apply::locate::Locator;
use crate::lake::apply::ranges::Ranges;
use crate::lake::schema::Conform;
use crate::lake::sort::{KeyOrder, adapt};
use crate::lake::{LakeError, Snapshot};
use crate::model::{ContentHash, KeyFolding, KeyRange, TableName};

impl Snapshot {
    /// How many of these keys are in the table, which compare as `folding` says (empty: by value). Each row is one of
    /// the key's columns in their order; a key that comes twice counts once. All keys are held in memory.
    ///
    /// # Errors
    /// When the key's columns are not the table's, or its files cannot be read.
    pub async fn present(
        self: &Arc<Self>,
        environment: &Arc<RuntimeEnv>,
        keys: &[RecordBatch],
        folding: &[KeyFolding],
    ) -> Result<u64, LakeError> {
        let Some(first) = keys.first() else { return Ok(0) };
        let form = self.key_form(first.schema_ref(), folding)?;
        let mut wanted = Keys::new(&form).map_err(|cause| self.unread(cause))?;
        let mut first = Vec::new();
        for rows in keys {
            let keys = form.keys(self.place().name(), rows)?;
            first.extend(first_columns(&keys).map_err(|cause| self.unread(cause))?);
            wanted.add(&keys).map_err(|cause| self.unread(cause))?;
        }
        first.sort_unstable();
        let mut locator = Locator::new(Some(self.as_ref()), &form.schema(), form.order(), false);
        locator.see_first(&first);
        let mut rows = self.read(environment, &places(locator), form.conform())?;
        let mut found = 0;
        while let Some(rows) = rows.next().await {
            let rows = rows.map_err(|cause| self.unread(cause))?;
            let keys = form.keys(self.place().name(), &rows)?;
            found += wanted.take(&keys).map_err(|cause| self.unread(cause))?;
            if wanted.keys.is_empty() {
                break;
            }
            tokio::task::consume_budget().await;
        }
        Ok(found)
    }

    /// Number and hash of the rows in a range, in the columns of `schema` and their types, but for those whose keys
    /// are among `left_out`, which are held in memory. Keys compare as `folding` says (empty: by value).
    ///
    /// # Errors
    /// When the key's columns are not the table's, its files cannot be read, or a value does not fit `schema`.
    pub async fn content(
        self: &Arc<Self>,
        environment: &Arc<RuntimeEnv>,
        schema: &SchemaRef,
        range: &KeyRange,
        left_out: &[RecordBatch],
        folding: &[KeyFolding],
    ) -> Result<ContentHash, LakeError> {
        let what = |cause: ArrowError| self.unread(cause.into());
        let mut content = ContentHash::new(schema).map_err(what)?;
        let wanted = Conform::new(self.place().name().clone(), nullable(schema));
        let left_out: Vec<&RecordBatch> = left_out.iter().filter(|rows| rows.num_rows() > 0).collect();
        let ends = range.after.iter().chain(&range.until);
        let chosen = match ends.chain(left_out.iter().copied()).next() {
            Some(key) => Some(self.chosen(key.schema_ref(), range, &left_out, folding)?),
            None => None,
        };
        let all: Vec<usize> = (0..self.files()).collect();
        // The key is compared as the table has it, and hashed as it is asked for.
        let columns = self.schema();
        let is_read = |field: &Field| {
            let of_key = |chosen: &Chosen| chosen.form.schema().index_of(field.name()).is_ok();
            schema.index_of(field.name()).is_ok() || chosen.as_ref().is_some_and(of_key)
        };
        let fields: Vec<Field> = columns.fields().iter().map(|field| Field::clone(field)).filter(is_read).collect();
        let stored = Conform::new(self.place().name().clone(), nullable(&Schema::new(fields)));
        let files = chosen.as_ref().map_or(&all, |chosen| &chosen.places);
        let mut rows = self.read(environment, files, &stored)?;
        while let Some(rows) = rows.next().await {
            let rows = rows.map_err(|cause| self.unread(cause))?;
            let rows = match &chosen {
                Some(chosen) => chosen.filter(self.place().name(), &rows)?,
                None => rows,
            };
            content.add(&wanted.rows(&rows)?).map_err(what)?;
            tokio::task::consume_budget().await;
        }
        Ok(content)
    }

    /// The rows in a range but for `left_out`, all of whose keys have the columns `key`.
    fn chosen(
        &self,
        key: &Schema,
        range: &KeyRange,
        left_out: &[&RecordBatch],
        folding: &[KeyFolding],
    ) -> Result<Chosen, LakeError> {
        let table = self.place().name();
        let form = self.key_form(key, folding)?;
        let mut ranges = Ranges::new(&form).map_err(|cause| self.unread(cause))?;
        ranges.add(table, &form, range)?;
        let mut not_wanted = Keys::new(&form).map_err(|cause| self.unread(cause))?;
        for rows in left_out {
            not_wanted.add(&form.keys(table, rows)?).map_err(|cause| self.unread(cause))?;
        }
        let mut locator = Locator::new(Some(self), &form.schema(), form.order(), false);
        ranges.locate(&mut locator);
        Ok(Chosen { form, ranges, left_out: not_wanted, places: places(locator) })
    }

    /// The key's columns as the table has them, in the order they were given.
    fn key_form(&self, key: &Schema, folding: &[KeyFolding]) -> Result<Form, LakeError> {
        let table = self.place().name();
        let schema = self.schema();
        let places = key.fields().iter().map(|field| {
            schema.index_of(field.name()).map_err(|_| {
                let text = format!("table {table} has no column `{}`, which keys are to have", field.name());
                LakeError::new(ErrorKind::InvalidInput, text)
            })
        });
        let order = KeyOrder::new(&schema, places.collect::<Result<_, _>>()?, folding).ok_or_else(|| {
            LakeError::new(ErrorKind::InvalidInput, format!("keys of table {table} are to have no columns"))
        })?;
        Form::of(table, &schema, &order, |field| key.index_of(field.name()).is_ok())
    }

    /// The rows of the files at these places in the log.
    fn read(
        self: &Arc<Self>,
        environment: &Arc<RuntimeEnv>,
        places: &[usize],
        conform: &Conform,
    ) -> Result<SendableRecordBatchStream, LakeError> {
        if places.is_empty() {
            return Ok(adapt(conform.schema(), futures::stream::empty()));
        }
        Base::new(Arc::clone(self), Arc::clone(environment), conform.clone()).read(places)
    }

    fn unread(&self, cause: DataFusionError) -> LakeError {
        LakeError::rows(format!("cannot compare the rows of table {}", self.place().name()), cause)
    }
}

fn places(locator: Locator) -> Vec<usize> {
    locator.met().into_iter().map(|file| file.place).collect()
}

/// The first columns of keys, in the form rows compare by.
fn first_columns(keys: &[ArrayRef]) -> Result<Vec<OwnedRow>, DataFusionError> {
    let first = keys.get(..1).unwrap_or_default();
    let rows = converter(first)?.convert_columns(first)?;
    Ok(rows.iter().map(|row| row.owned()).collect())
}

fn converter(keys: &[ArrayRef]) -> Result<RowConverter, DataFusionError> {
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?)
}

/// Which rows are wanted.
struct Chosen {
    form: Form,
    ranges: Ranges,
    left_out: Keys,
    /// Where in the log the files stand that may have them.
    places: Vec<usize>,
}

impl Chosen {
    fn filter(&self, table: &TableName, rows: &RecordBatch) -> Result<RecordBatch, LakeError> {
        let keys = self.form.keys(table, rows)?;
        let filter = || {
            let within = self.ranges.contain(&keys)?;
            let wanted = and_not(&within, &self.left_out.contain(&keys)?)?;
            Ok(filter_record_batch(rows, &wanted)?)
        };
        filter().map_err(|cause| LakeError::rows(format!("cannot compare keys of table {table}"), cause))
    }
}

/// Keys in memory.
struct Keys {
    converter: RowConverter,
    keys: HashSet<Box<[u8]>>,
}

impl Keys {
    fn new(form: &Form) -> Result<Self, DataFusionError> {
        let none = form.order().keys(&RecordBatch::new_empty(form.schema()))?;
        Ok(Self { converter: converter(&none)?, keys: HashSet::new() })
    }

    fn add(&mut self, keys: &[ArrayRef]) -> Result<(), DataFusionError> {
        let rows = self.converter.convert_columns(keys)?;
        self.keys.extend(rows.iter().map(|row| Box::from(row.as_ref())));
        Ok(())
    }

    /// Takes keys out; how many there were.
    fn take(&mut self, keys: &[ArrayRef]) -> Result<u64, DataFusionError> {
        let rows = self.converter.convert_columns(keys)?;
        Ok(rows.iter().filter(|row| self.keys.remove(row.as_ref())).count() as u64)
    }

    fn contain(&self, keys: &[ArrayRef]) -> Result<BooleanArray, DataFusionError> {
        let rows = self.converter.convert_columns(keys)?;
        Ok(rows.iter().map(|row| Some(self.keys.contains(row.as_ref()))).collect())
    }
}
