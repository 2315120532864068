//! Columns whose values name rows of other tables.

use std::collections::BTreeMap;

use crate::config::Problem;
use crate::config::lakegate_file::Surroundings;
use crate::config::low::LowTable;
use crate::config::reader::Field;
use crate::config::table::{ForeignKey, TableDefinition};
use crate::model::TableName;

/// The foreign keys of one definition.
pub(super) fn foreign_keys(low: &LowTable, around: &mut Surroundings<'_>) -> Option<Vec<ForeignKey>> {
    let mut keys = Vec::new();
    for at in low.foreign_keys.value()? {
        let one = &at.value;
        if matches!(one.references, Field::Missing) {
            let problem = at.place.problem("the foreign key does not say whose rows it names");
            around.problems.push(problem.expected("references = \"schema.table\""));
            return None;
        }
        let texts = |field: &Vec<crate::config::reader::At<crate::config::values::Text>>| {
            field.iter().map(|column| column.value.0.clone()).collect::<Vec<_>>()
        };
        let (columns, their_columns) = (texts(one.columns.value()?), texts(one.their_columns.value()?));
        if columns.is_empty() {
            around.problems.push(at.place.problem("the foreign key names no columns").expected("columns = [\"…\"]"));
            return None;
        }
        if !their_columns.is_empty() && their_columns.len() != columns.len() {
            let message = format!("{} columns cannot name rows by {} columns", columns.len(), their_columns.len());
            around.problems.push(at.place.problem(message).expected("as many of each"));
            return None;
        }
        let references = one.references.given()?;
        match references.value.0.parse::<TableName>() {
            Ok(table) => keys.push(ForeignKey { columns, references: table, their_columns }),
            Err(error) => {
                around.problems.push(references.place.problem(error.to_string()).expected("schema.table"));
                return None;
            }
        }
    }
    Some(keys)
}

/// Checks columns where they are declared, and fills in the other table's key where no columns of it are named.
pub(super) fn check(tables: &mut BTreeMap<TableName, TableDefinition>, problems: &mut Vec<Problem>) {
    let keys: BTreeMap<TableName, Vec<String>> =
        tables.iter().map(|(name, table)| (name.clone(), table.key.clone())).collect();
    for table in tables.values_mut() {
        let file = table.defined_in.clone();
        let mut wrong = |message: String| problems.push(Problem::of_file(&file, message));
        for foreign in &mut table.foreign_keys {
            let declared = |column: &String| table.columns.iter().any(|own| own.name == *column);
            if let Some(column) = foreign.columns.iter().find(|column| !table.columns.is_empty() && !declared(column)) {
                wrong(format!("a foreign key names `{column}`, which is not declared in [[columns]]"));
            }
            let Some(key) = keys.get(&foreign.references) else {
                wrong(format!("a foreign key references {}, and there is no such table", foreign.references));
                continue;
            };
            if foreign.their_columns.is_empty() {
                if key.len() == foreign.columns.len() {
                    foreign.their_columns.clone_from(key);
                } else {
                    wrong(format!(
                        "a foreign key of {} columns references {}, whose definition names {} columns as key; name them as their_columns",
                        foreign.columns.len(),
                        foreign.references,
                        key.len(),
                    ));
                }
            }
        }
    }
}
