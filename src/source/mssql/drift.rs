//! What has happened to a table since it was read last, and what follows from it.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};

use crate::source::mssql::discover::Table;
use crate::source::mssql::position::{Epoch, KnownColumn, Position};

/// What follows from what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The load goes on from its position.
    GoesOn,
    /// The whole table is read again, for this reason; readers keep what they have until then.
    Anew(String),
    /// Somebody has to decide: nothing is loaded.
    Stop(String),
}

/// The columns and the key as they are now.
pub struct Now<'a> {
    /// The table.
    pub table: &'a Table,
    /// Its life.
    pub epoch: &'a Epoch,
    /// The columns that are loaded, with their types in the lake.
    pub columns: &'a [(KnownColumn, DataType)],
    /// The columns of the key.
    pub key: &'a [String],
    /// The columns of the table in the lake.
    pub lake: Option<&'a Schema>,
}

/// Compares a table with what it was.
pub fn judge(before: &Position, now: &Now<'_>) -> Verdict {
    if let Some(reason) = before.epoch.ended(now.epoch) {
        return Verdict::Anew(reason.to_owned());
    }
    if before.key != now.key {
        return Verdict::Anew(format!("the key changed from ({}) to ({})", before.key.join(", "), now.key.join(", ")));
    }
    let known: HashMap<i32, &KnownColumn> = before.columns.iter().map(|column| (column.id, column)).collect();
    for (column, lake_type) in now.columns {
        let verdict = match known.get(&column.id) {
            None if is_in_lake(before, now, &column.name) => Verdict::Anew(format!(
                "column `{}` is another one than before: one of this name was dropped or left out, and the lake has its values",
                column.name
            )),
            None => added(now.table, column),
            Some(known) if known.name != column.name => renamed(now.table, known, column),
            Some(known) => retyped(known, column, lake_type),
        };
        if verdict != Verdict::GoesOn {
            return verdict;
        }
    }
    Verdict::GoesOn
}

fn is_in_lake(before: &Position, now: &Now<'_>, name: &str) -> bool {
    let fields = now.lake.map(|schema| schema.fields().iter()).into_iter().flatten();
    before.columns.iter().map(|column| &column.name).chain(fields.map(|field| field.name())).any(|own| own == name)
}

/// Rows that were there got the default of a new column without being reported as changed; without one they got NULL,
/// which is what the lake says of them too.
fn added(table: &Table, column: &KnownColumn) -> Verdict {
    let source = table.columns.iter().find(|source| source.column_id == column.id);
    let filled = source
        .is_none_or(|source| !source.nullable || table.defaulted.contains(&column.id) || source.computed.is_some());
    if filled {
        Verdict::Anew(format!("column `{}` is new and was filled for rows that were there", column.name))
    } else {
        Verdict::GoesOn
    }
}

fn renamed(table: &Table, known: &KnownColumn, column: &KnownColumn) -> Verdict {
    Verdict::Stop(format!(
        "column `{}` of {} is named `{}` now: readers know it by its old name; name it back, or load the table anew \
         under the new name with `lakegate sync TABLE --reload`",
        known.name, table.name, column.name
    ))
}

fn retyped(known: &KnownColumn, column: &KnownColumn, lake_type: &DataType) -> Verdict {
    if known.sql_type == column.sql_type && known.lake_type == column.lake_type {
        return Verdict::GoesOn;
    }
    let kept = if known.lake_type == column.lake_type {
        keeps(&known.sql_type, &column.sql_type, lake_type)
    } else {
        widens(&known.lake_type, lake_type)
    };
    if kept {
        return Verdict::GoesOn;
    }
    Verdict::Anew(format!(
        "the type of column `{}` changed from {} to {}, which changes rows without reporting them",
        column.name, known.sql_type, column.sql_type
    ))
}

/// Whether the server changes no value when a column gets this type, where the lake has the same type for both.
fn keeps(before: &str, now: &str, lake_type: &DataType) -> bool {
    let split = |text: &str| {
        let (name, size) = text.split_once('(').unwrap_or((text, ""));
        (name.to_owned(), size.trim_end_matches(')').parse::<u32>().unwrap_or(0))
    };
    let ((before, old_size), (now, new_size)) = (split(before), split(now));
    match (before.as_str(), now.as_str()) {
        // Too long a text is an error there, not a shorter text.
        ("varchar" | "char" | "text", "varchar" | "nvarchar") | ("nvarchar" | "nchar" | "ntext", "nvarchar") => true,
        ("varbinary" | "binary" | "image", "varbinary") => true,
        ("tinyint" | "smallint", "tinyint" | "smallint") => true,
        ("money" | "smallmoney" | "decimal", "money" | "smallmoney" | "decimal") => true,
        ("smalldatetime", "datetime" | "datetime2") => matches!(lake_type, DataType::Timestamp(..)),
        ("datetime2", "datetime2") | ("datetimeoffset", "datetimeoffset") => {
            matches!(lake_type, DataType::Timestamp(..)) && new_size >= old_size
        }
        _ => false,
    }
}

/// Whether values keep their meaning in the new type, and the lake widens columns to it.
fn widens(before: &str, now: &DataType) -> bool {
    match now {
        DataType::Int32 => before == DataType::Int16.to_string(),
        DataType::Int64 => [DataType::Int16, DataType::Int32].iter().any(|narrow| before == narrow.to_string()),
        DataType::Decimal128(precision, scale) => {
            let before = before.strip_prefix("Decimal128(").and_then(|rest| rest.strip_suffix(')'));
            let Some((old_precision, old_scale)) = before.and_then(|parts| parts.split_once(", ")) else {
                return false;
            };
            let (Ok(old_precision), Ok(old_scale)) = (old_precision.parse::<i32>(), old_scale.parse::<i32>()) else {
                return false;
            };
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            scale >= old_scale && precision - scale >= old_precision - old_scale
        }
        _ => false,
    }
}
