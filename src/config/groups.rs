//! What the definitions of one group must have in common.

use std::collections::{BTreeMap, HashMap};

use crate::config::Problem;
use crate::config::reader::Place;
use crate::config::table::{TableDefinition, TableSource};
use crate::model::TableName;

/// Tables of SQL Server are read at one moment, which those of two databases, or files, do not have.
pub(super) fn check(
    tables: &BTreeMap<TableName, TableDefinition>,
    places: &HashMap<TableName, Place>,
    problems: &mut Vec<Problem>,
) {
    let mut first: BTreeMap<&str, &TableDefinition> = BTreeMap::new();
    for table in tables.values() {
        let Some(group) = &table.load.group else { continue };
        let other = *first.entry(group.as_str()).or_insert(table);
        let (from, others) = (connection(table), connection(other));
        if from == others {
            continue;
        }
        let message = format!(
            "the tables of a group are read at one moment, and so come from one connection: {} is from {}, {} from {}",
            other.name,
            in_words(others),
            table.name,
            in_words(from),
        );
        if let Some(place) = places.get(&table.name) {
            problems.push(place.problem(message).expected("a group of its own for the tables of each connection"));
        }
    }
}

/// The connection to SQL Server; none for files, which have no moment in common anyway.
fn connection(table: &TableDefinition) -> Option<&str> {
    match &table.source {
        TableSource::Files(_) => None,
        TableSource::SqlServer(source) => Some(&source.connection.name),
    }
}

fn in_words(connection: Option<&str>) -> String {
    connection.map_or_else(|| "files".to_owned(), |name| format!("[connections.{name}]"))
}
