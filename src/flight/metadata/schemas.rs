//! `CommandGetDbSchemas`: the schemas that have tables.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::CommandGetDbSchemas;
use arrow_flight::sql::metadata::GetDbSchemasBuilder;
use tonic::Status;

use crate::flight::metadata::like::fits;
use crate::flight::metadata::{CATALOG, catalog_matches};
use crate::flight::status::malformed;
use crate::query::TableSummary;

/// `catalog_name: utf8, db_schema_name: utf8 not null`.
pub(super) fn schema(command: &CommandGetDbSchemas) -> SchemaRef {
    command.clone().into_builder().schema()
}

/// A row for each schema that fits the filters, ordered by name.
pub(super) fn answer(command: &CommandGetDbSchemas, tables: &[TableSummary]) -> Result<RecordBatch, Status> {
    let pattern = command.db_schema_filter_pattern.as_deref();
    let names: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    // The names are filtered here, so the builder gets no filters.
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    if catalog_matches(command.catalog.as_deref()) {
        names.into_iter().filter(|name| fits(name, pattern)).for_each(|name| builder.append(CATALOG, name));
    }
    builder.build().map_err(|error| malformed(&error))
}
