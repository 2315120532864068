//! What is read of a table: its columns as the lake will have them, and its key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::config::{ColumnChoices, Oversize, SqlServerSource};
use crate::error::ErrorKind;
use crate::model::KeyFolding;
use crate::source::SourceError;
use crate::source::mssql::collation;
use crate::source::mssql::column::{ColumnOptions, ColumnPlan};
use crate::source::mssql::decode::CellError;
use crate::source::mssql::discover::{Database, Table};
use crate::source::mssql::key::KeyColumn;
use crate::source::mssql::position::{KnownColumn, Way};
use crate::source::mssql::statements::SourceTable;

/// What is read of one table.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The table.
    pub table: SourceTable,
    /// The columns of its key; none where it has no key.
    pub keys: Vec<KeyColumn>,
    /// How the values of each of them are compared in the lake; empty where no row is looked for by its key.
    pub folding: Vec<KeyFolding>,
    /// How each column is read.
    pub plans: Vec<ColumnPlan>,
    /// The column of type `rowversion`, where there is one.
    pub row_version: Option<String>,
    /// The columns as the lake has them.
    pub schema: SchemaRef,
    /// The same with their names and types on the server.
    pub columns: Vec<(KnownColumn, DataType)>,
    /// Largest value that is fetched, in bytes.
    pub max_cell_bytes: u64,
    /// What becomes of rows with larger ones.
    pub oversize: Oversize,
    /// Rows, as the server estimates them.
    pub rows: Option<u64>,
    /// Bytes in use, where the login may see that.
    pub bytes: Option<u64>,
}

impl Shape {
    /// Of a table, as its definition says.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` with all columns that cannot be read truly, and what to do.
    pub fn of(database: &Database, table: &Table, source: &SqlServerSource, way: Way) -> Result<Self, SourceError> {
        let options = options(&source.columns);
        check_left_out(table, &source.columns)?;
        let (mut plans, mut columns, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        let key = table.key.iter().filter_map(|name| table.columns.iter().find(|column| column.name == *name));
        let (mut keys, mut folding) = (Vec::new(), Vec::new());
        for column in key {
            match KeyColumn::new(column, &options, &database.collation) {
                Ok(key) => {
                    keys.push(key);
                    folding.extend((way != Way::Reload).then(|| collation::folding(column)));
                }
                Err(_) if way == Way::Reload => {
                    // Nobody looks for a row by it.
                    keys.clear();
                    break;
                }
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        for column in &table.columns {
            if is_left_out(table, &source.columns, &column.name) || column.column_set {
                continue;
            }
            // Of a key nothing may be lost, or two rows would be taken for one.
            let in_key = keys.iter().find(|key: &&KeyColumn| way != Way::Reload && key.name() == column.name);
            let plan = match in_key.map_or_else(|| ColumnPlan::new(column, &options), |key| Ok(key.plan().clone())) {
                Ok(plan) => plan,
                Err(problem) => {
                    problems.push(problem.to_string());
                    continue;
                }
            };
            let Some(field) = plan.fields.first() else { continue };
            let known = KnownColumn {
                id: column.column_id,
                name: column.name.clone(),
                sql_type: column.sql_type.to_string(),
                lake_type: field.data_type().to_string(),
            };
            columns.push((known, field.data_type().clone()));
            plans.push(plan);
        }
        if !problems.is_empty() {
            let text = format!("{} cannot be read as it is: {}", table.name, problems.join("; "));
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
        let fields: Vec<_> = plans.iter().flat_map(|plan| plan.fields.clone()).collect();
        Ok(Self {
            table: table.name.clone(),
            keys,
            folding,
            plans,
            row_version: table.row_version().map(|column| column.name.clone()),
            schema: Arc::new(Schema::new(fields)),
            columns,
            max_cell_bytes: source.columns.max_cell_bytes,
            oversize: source.columns.oversize,
            rows: table.rows,
            bytes: table.bytes,
        })
    }

    /// Names of the key's columns.
    pub fn key_names(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.name().to_owned()).collect()
    }

    /// The key's columns of rows of the table, in the key's order.
    ///
    /// # Errors
    /// `Internal` when one of them was not read.
    pub fn key_columns(&self, rows: &RecordBatch) -> Result<RecordBatch, SourceError> {
        let place = |key: &KeyColumn| rows.schema_ref().index_of(key.name());
        let places: Result<Vec<_>, _> = self.keys.iter().map(place).collect();
        places.and_then(|places| rows.project(&places)).map_err(|cause| {
            SourceError::because(ErrorKind::Internal, format!("the key of {} was not read", self.table), cause)
        })
    }

    /// The key of a row of a batch as key texts.
    ///
    /// # Errors
    /// When a value of it cannot be named.
    pub fn key_texts(&self, rows: &RecordBatch, row: usize) -> Result<Vec<String>, SourceError> {
        let key = self.keys.iter().map(|key| {
            let column = rows.column_by_name(key.name()).ok_or_else(|| {
                SourceError::new(ErrorKind::Internal, format!("column `{}` was not read", key.name()))
            })?;
            key.text(column.as_ref(), row)
                .map_err(|cause| SourceError::because(ErrorKind::InvalidInput, format!("in {}", self.table), cause))
        });
        key.collect()
    }

    /// An error of a value.
    pub fn cell(&self, cause: CellError) -> SourceError {
        let text = format!("{}: {cause}", self.table);
        SourceError::because(ErrorKind::InvalidInput, text, cause)
    }
}

/// Names that are not there letter by letter are found without regard to case, as most databases do.
fn is_left_out(table: &Table, choices: &ColumnChoices, column: &str) -> bool {
    choices.leave_out.iter().any(|name| {
        let is_there = table.columns.iter().any(|other| other.name == *name);
        name == column || (!is_there && name.eq_ignore_ascii_case(column))
    })
}

/// Columns to be left out have to be there, and must not be part of the key.
fn check_left_out(table: &Table, choices: &ColumnChoices) -> Result<(), SourceError> {
    for name in &choices.leave_out {
        let is = |other: &String| other.eq_ignore_ascii_case(name);
        if !table.columns.iter().any(|column| is(&column.name)) {
            let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
            let text = format!("leave_out names `{name}`, and {} has ({})", table.name, names.join(", "));
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
        if table.key.iter().any(|key| is_left_out(table, choices, key)) && table.key.iter().any(is) {
            let text = format!("`{name}` is part of the key of {} and cannot be left out", table.name);
            return Err(SourceError::new(ErrorKind::InvalidInput, text));
        }
    }
    Ok(())
}

fn options(choices: &ColumnChoices) -> ColumnOptions {
    ColumnOptions {
        timestamps: choices.timestamps,
        sub_microseconds: choices.sub_microseconds,
        times: choices.times,
        variants: choices.variants,
        companions: choices.offsets,
        max_cell_bytes: choices.max_cell_bytes,
    }
}
