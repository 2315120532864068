//! `CommandGetPrimaryKeys`: the columns that name a table's rows, from its definition.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetPrimaryKeys;
use tonic::Status;

use crate::flight::metadata::{CATALOG, catalog_matches};
use crate::flight::status::malformed;
use crate::query::TableSummary;

/// As FlightSql.proto has it.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// A row for each column of the key of each table of that name, ordered by schema, then place in the key.
pub(super) fn answer(command: &CommandGetPrimaryKeys, tables: &[TableSummary]) -> Result<RecordBatch, Status> {
    let is_meant = |table: &&TableSummary| {
        catalog_matches(command.catalog.as_deref())
            && command.db_schema.as_deref().is_none_or(|schema| schema == table.schema)
            && command.table == table.table
    };
    let keys = tables.iter().filter(is_meant).flat_map(|table| {
        let columns = table.key.iter().zip(1..);
        columns.map(move |(column, place)| (table, column.as_str(), place))
    });
    let rows: Vec<(&TableSummary, &str, i32)> = keys.collect();
    let text = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let columns: Vec<ArrayRef> = vec![
        text(vec![CATALOG; rows.len()]),
        text(rows.iter().map(|(table, ..)| table.schema.as_str()).collect()),
        text(rows.iter().map(|(table, ..)| table.table.as_str()).collect()),
        text(rows.iter().map(|(_, column, _)| *column).collect()),
        Arc::new(StringArray::new_null(rows.len())),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(.., place)| *place))),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| malformed(&error))
}
