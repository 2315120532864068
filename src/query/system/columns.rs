//! What the tables of the schema are described with and built from.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};
use datafusion::error::{DataFusionError, Result};

use crate::error::Classify;
use crate::journal::JournalError;
use crate::lake::LakeError;
use crate::model::TableName;
use crate::query::QueryError;
use crate::query::system::Definition;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: &'static str,
    kind: Kind,
    always: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Fraction,
    Time,
}

/// Schema of the table a row is about.
pub(super) const fn schema() -> Column {
    text("table_schema").always()
}

/// Name of the table a row is about.
pub(super) const fn name() -> Column {
    text("table_name").always()
}

/// A column of texts.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text, always: false }
}

/// A column of whole numbers.
pub(super) const fn number(name: &'static str) -> Column {
    Column { name, kind: Kind::Number, always: false }
}

/// A column of parts of a whole, 0 to 1.
pub(super) const fn fraction(name: &'static str) -> Column {
    Column { name, kind: Kind::Fraction, always: false }
}

/// A column of instants, to the microsecond.
pub(super) const fn time(name: &'static str) -> Column {
    Column { name, kind: Kind::Time, always: false }
}

impl Column {
    /// The column with a value in every row.
    pub(super) const fn always(self) -> Self {
        Self { always: true, ..self }
    }
}

/// Columns as the engine sees them.
pub(super) fn arrow_schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let kind = match column.kind {
            Kind::Text => DataType::Utf8,
            Kind::Number => DataType::Int64,
            Kind::Fraction => DataType::Float64,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        };
        Field::new(column.name, kind, !column.always)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Columns of a batch, gathered in the order of the table's schema.
pub(super) struct Columns {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
}

impl Columns {
    pub(super) fn new(table: &Definition) -> Self {
        Self { schema: table.schema(), columns: Vec::new() }
    }

    pub(super) fn names<'a>(&mut self, names: impl Iterator<Item = &'a TableName> + Clone) {
        self.columns.push(Arc::new(StringArray::from_iter_values(names.clone().map(TableName::schema))));
        self.columns.push(Arc::new(StringArray::from_iter_values(names.map(TableName::table))));
    }

    pub(super) fn texts(&mut self, values: impl IntoIterator<Item = Option<String>>) {
        self.columns.push(Arc::new(values.into_iter().collect::<StringArray>()));
    }

    pub(super) fn numbers(&mut self, values: impl IntoIterator<Item = Option<i64>>) {
        self.columns.push(Arc::new(values.into_iter().collect::<Int64Array>()));
    }

    pub(super) fn fractions(&mut self, values: impl IntoIterator<Item = Option<f64>>) {
        self.columns.push(Arc::new(values.into_iter().collect::<Float64Array>()));
    }

    pub(super) fn times(&mut self, values: impl IntoIterator<Item = Option<DateTime<Utc>>>) {
        let micros = values.into_iter().map(|time| time.map(|time| time.timestamp_micros()));
        self.columns.push(Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
    }

    pub(super) fn batch(self) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.schema, self.columns)?)
    }
}

/// A failure of the rooms below, as the engine passes it on.
pub(super) fn failed(error: impl Into<StorageFailure>) -> DataFusionError {
    error.into().0.into()
}

/// A failure of the rooms below, in the words of this one.
pub(super) struct StorageFailure(QueryError);

impl From<LakeError> for StorageFailure {
    fn from(error: LakeError) -> Self {
        Self(error.into())
    }
}

impl From<JournalError> for StorageFailure {
    fn from(error: JournalError) -> Self {
        tracing::warn!(error = %crate::error::chain_text(&error), "the journal could not be read");
        Self(QueryError::new(error.kind(), "the journal could not be read; look into the server's log"))
    }
}

/// A count as a column's value.
pub(super) fn count(number: u64) -> Option<i64> {
    number.try_into().ok()
}
