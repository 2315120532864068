//! `CommandGetExportedKeys`, `CommandGetImportedKeys`, `CommandGetCrossReference`: which columns name rows of which other
//! table, from the definitions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys};
use tonic::Status;

use crate::config::ForeignKey;
use crate::flight::metadata::{CATALOG, catalog_matches};
use crate::flight::status::malformed;
use crate::query::TableSummary;

/// Nothing happens to rows here when those they name change (`UpdateDeleteRules`, FlightSql.proto).
const NO_ACTION: u8 = 3;

/// Which keys are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForeignKeys {
    /// The table whose rows are named.
    named: Option<Side>,
    /// The table that names them.
    naming: Option<Side>,
}

#[derive(Clone, Debug)]
struct Side {
    catalog: Option<String>,
    schema: Option<String>,
    table: String,
}

impl Side {
    fn fits(&self, schema: &str, table: &str) -> bool {
        catalog_matches(self.catalog.as_deref())
            && self.schema.as_deref().is_none_or(|wanted| wanted == schema)
            && self.table == table
    }
}

impl From<CommandGetExportedKeys> for ForeignKeys {
    fn from(command: CommandGetExportedKeys) -> Self {
        let named = Side { catalog: command.catalog, schema: command.db_schema, table: command.table };
        Self { named: Some(named), naming: None }
    }
}

impl From<CommandGetImportedKeys> for ForeignKeys {
    fn from(command: CommandGetImportedKeys) -> Self {
        let naming = Side { catalog: command.catalog, schema: command.db_schema, table: command.table };
        Self { named: None, naming: Some(naming) }
    }
}

impl From<CommandGetCrossReference> for ForeignKeys {
    fn from(command: CommandGetCrossReference) -> Self {
        let named = Side { catalog: command.pk_catalog, schema: command.pk_db_schema, table: command.pk_table };
        let naming = Side { catalog: command.fk_catalog, schema: command.fk_db_schema, table: command.fk_table };
        Self { named: Some(named), naming: Some(naming) }
    }
}

/// As FlightSql.proto has it for all three.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// One column of a foreign key.
struct Row<'a> {
    table: &'a TableSummary,
    foreign: &'a ForeignKey,
    name: String,
    own: &'a str,
    theirs: &'a str,
    place: i32,
}

/// A row for each column of each key, ordered by the table that is not asked for, then key and place.
pub(super) fn answer(asked: &ForeignKeys, tables: &[TableSummary]) -> Result<RecordBatch, Status> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for table in tables {
        for foreign in &table.foreign_keys {
            let other = &foreign.references;
            let fits = asked.naming.as_ref().is_none_or(|side| side.fits(&table.schema, &table.table))
                && asked.named.as_ref().is_none_or(|side| side.fits(other.schema(), other.table()));
            if !fits {
                continue;
            }
            let name = format!("{}_{}_fkey", table.table, foreign.columns.join("_"));
            let columns = foreign.columns.iter().zip(&foreign.their_columns).zip(1..);
            rows.extend(columns.map(|((own, theirs), place)| Row {
                table,
                foreign,
                name: name.clone(),
                own,
                theirs,
                place,
            }));
        }
    }
    rows.sort_by(|a, b| {
        let naming = |row: &Row<'_>| (row.table.schema.clone(), row.table.table.clone());
        let by_other = match asked.named {
            Some(_) => naming(a).cmp(&naming(b)),
            None => a.foreign.references.cmp(&b.foreign.references),
        };
        by_other.then_with(|| a.name.cmp(&b.name)).then(a.place.cmp(&b.place))
    });
    let texts = |get: &dyn Fn(&Row<'_>) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(get)))
    };
    let rules = || -> ArrayRef { Arc::new(UInt8Array::from(vec![NO_ACTION; rows.len()])) };
    let columns: Vec<ArrayRef> = vec![
        texts(&|_| CATALOG.to_owned()),
        texts(&|row| row.foreign.references.schema().to_owned()),
        texts(&|row| row.foreign.references.table().to_owned()),
        texts(&|row| row.theirs.to_owned()),
        texts(&|_| CATALOG.to_owned()),
        texts(&|row| row.table.schema.clone()),
        texts(&|row| row.table.table.clone()),
        texts(&|row| row.own.to_owned()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.place))),
        texts(&|row| row.name.clone()),
        Arc::new(StringArray::new_null(rows.len())),
        rules(),
        rules(),
    ];
    RecordBatch::try_new(schema(), columns).map_err(|error| malformed(&error))
}
