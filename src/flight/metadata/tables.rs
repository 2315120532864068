//! `CommandGetTables`: the tables, with their columns where asked for.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::metadata::GetTablesBuilder;
use tonic::Status;

use crate::delivery::wire_schema;
use crate::flight::metadata::like::fits;
use crate::flight::metadata::table_types::{is_meant, table_type};
use crate::flight::metadata::{CATALOG, catalog_matches};
use crate::flight::status::malformed;
use crate::model::ColumnType;
use crate::query::TableSummary;

/// `catalog_name: utf8, db_schema_name: utf8, table_name: utf8 not null, table_type: utf8 not null`,
/// and `table_schema: bytes not null` where columns are asked for.
pub(super) fn schema(command: &CommandGetTables) -> SchemaRef {
    builder(command).schema()
}

/// A row for each table that fits the filters, ordered by schema, then name.
pub(super) fn answer(command: &CommandGetTables, tables: &[TableSummary]) -> Result<RecordBatch, Status> {
    let mut builder = builder(command);
    for table in tables.iter().filter(|table| is_asked_for(command, table)) {
        let columns = columns(table);
        builder
            .append(CATALOG, &table.schema, &table.table, table_type(table), &columns)
            .map_err(|error| malformed(&error))?;
    }
    builder.build().map_err(|error| malformed(&error))
}

/// A builder without filters: names are filtered before anything is built for them.
fn builder(command: &CommandGetTables) -> GetTablesBuilder {
    let none = || None::<String>;
    GetTablesBuilder::new(none(), none(), none(), Vec::<String>::new(), command.include_schema)
}

fn is_asked_for(command: &CommandGetTables, table: &TableSummary) -> bool {
    let kind = table_type(table);
    catalog_matches(command.catalog.as_deref())
        && fits(&table.schema, command.db_schema_filter_pattern.as_deref())
        && fits(&table.table, command.table_name_filter_pattern.as_deref())
        && (command.table_types.is_empty() || command.table_types.iter().any(|asked| is_meant(asked, kind)))
}

/// The columns as a query would send them, each with what drivers read from a field's metadata
/// (FlightSql.proto, "Column Metadata").
fn columns(table: &TableSummary) -> Schema {
    let plain = wire_schema(&table.columns);
    let fields = plain.fields().iter().zip(table.columns.fields());
    Schema::new(fields.map(|(field, stored)| column(table, field, stored)).collect::<Vec<_>>())
}

fn column(table: &TableSummary, field: &FieldRef, stored: &FieldRef) -> Field {
    let mut metadata = HashMap::new();
    let mut tell = |name: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{name}"), value);
    tell("CATALOG_NAME", CATALOG.to_owned());
    tell("SCHEMA_NAME", table.schema.clone());
    tell("TABLE_NAME", table.table.clone());
    tell("TYPE_NAME", type_name(stored.data_type()));
    tell("IS_AUTO_INCREMENT", "0".to_owned());
    tell("IS_CASE_SENSITIVE", "1".to_owned());
    tell("IS_READ_ONLY", u8::from(!table.writable).to_string());
    tell("IS_SEARCHABLE", "1".to_owned());
    if let Some((precision, scale)) = precision_and_scale(field.data_type()) {
        tell("PRECISION", precision.to_string());
        tell("SCALE", scale.to_string());
    }
    Field::new(field.name(), field.data_type().clone(), true).with_metadata(metadata)
}

/// The type's SQL name, as a table definition writes it.
fn type_name(data_type: &DataType) -> String {
    ColumnType::from_arrow(data_type).map_or_else(|| data_type.to_string(), |known| known.to_string())
}

fn precision_and_scale(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}
