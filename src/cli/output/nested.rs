//! Nested columns as JSON texts, for formats that have no nested columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_json::WriterBuilder;
use arrow_json::writer::LineDelimited;

/// What [`flatten`] makes of a schema.
pub(super) fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let flat = if field.data_type().is_nested() { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), flat, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A batch with each nested column as texts of JSON.
pub(super) fn flatten(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| if column.data_type().is_nested() { texts(column) } else { Ok(Arc::clone(column)) })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(flat_schema(&batch.schema()), columns)
}

fn texts(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Field::new("v", column.data_type().clone(), true);
    let alone = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::clone(column)])?;
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(&alone)?;
    writer.finish()?;
    drop(writer);
    let lines = String::from_utf8(bytes).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let mut texts = StringBuilder::new();
    // Each line is {"v":…}: JSON has no line breaks within values.
    for (row, line) in lines.lines().enumerate() {
        let value = line.strip_prefix("{\"v\":").and_then(|rest| rest.strip_suffix('}'));
        texts.append_option(value.filter(|_| column.is_valid(row)));
    }
    Ok(Arc::new(texts.finish()))
}
