//! `CommandGetCatalogs`: the one catalog.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use tonic::Status;

use crate::flight::metadata::CATALOG;
use crate::flight::status::malformed;

/// `catalog_name: utf8 not null`.
pub(super) fn schema() -> SchemaRef {
    GetCatalogsBuilder::new().schema()
}

/// One row.
pub(super) fn answer() -> Result<RecordBatch, Status> {
    let mut builder = GetCatalogsBuilder::new();
    builder.append(CATALOG);
    builder.build().map_err(|error| malformed(&error))
}
