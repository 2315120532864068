//! `CommandGetTableTypes`: the kinds of table, and the other names clients have for them.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tonic::Status;

use crate::flight::status::malformed;
use crate::query::TableSummary;

/// Tables of the lake.
const TABLE: &str = "TABLE";
/// What lakegate tells about itself.
const SYSTEM_TABLE: &str = "SYSTEM TABLE";

/// What kind a table is of.
pub(super) fn table_type(table: &TableSummary) -> &'static str {
    if table.schema == "system" || table.schema == "information_schema" { SYSTEM_TABLE } else { TABLE }
}

/// Whether a client that asks for the kind `asked` means `own`. Some ask for `BASE TABLE`, as
/// `information_schema` calls tables, some for `table`; case does not count.
pub(super) fn is_meant(asked: &str, own: &str) -> bool {
    let asked = asked.to_ascii_uppercase();
    asked == own || (own == TABLE && asked == "BASE TABLE")
}

/// `table_type: utf8 not null`.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]))
}

/// A row for each kind, ordered.
pub(super) fn answer() -> Result<RecordBatch, Status> {
    let kinds = StringArray::from(vec![SYSTEM_TABLE, TABLE]);
    RecordBatch::try_new(schema(), vec![Arc::new(kinds)]).map_err(|error| malformed(&error))
}
