//! How a table is kept in step: what its definition asks for, or the best that the table allows.

use crate::config::Method;
use crate::error::ErrorKind;
use crate::model::KeyFolding;
use crate::source::SourceError;
use crate::source::mssql::collation::{Incomparable, folding, in_words};
use crate::source::mssql::column::{SourceColumn, SqlType};
use crate::source::mssql::discover::{Database, Table};
use crate::source::mssql::position::Way;

/// Why a method is taken that may not be the best.
const ASKED_FOR: &str = "the definition asks for it";

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// Why, and what it would take for a better one.
    pub because: String,
}

/// Chooses for a table. `incomparable` is a value of its key that was met and that only the server can compare.
///
/// # Errors
/// When the table cannot be read truly in any way, or not in the one its definition asks for.
pub fn choose(
    database: &Database,
    table: &Table,
    wanted: Method,
    incomparable: Option<&Incomparable>,
) -> Result<Choice, SourceError> {
    if !table.readable {
        return Err(SourceError::new(
            ErrorKind::PermissionDenied,
            format!("the login may not read {}; `lakegate doctor` prints the grants it needs", table.name),
        ));
    }
    if table.hides_rows {
        let text = format!(
            "a security policy may hide rows of {} from this login, which would look as if they were deleted; exempt \
             the login from the policy, or load a view",
            table.name
        );
        return Err(SourceError::new(ErrorKind::Unsupported, text));
    }
    let key = key_obstacle(table);
    match wanted {
        Method::Auto => {
            // Who asks for a method by name is told when it meets the value again.
            let met = incomparable.and_then(|value| still_incomparable(table, value));
            Ok(best(database, table, key.or(met)))
        }
        Method::ChangeTracking => {
            asked_for(table, Way::ChangeTracking, key.or_else(|| tracking_obstacle(database, table)))
        }
        Method::RowVersion => asked_for(table, Way::RowVersion, key.or_else(|| row_version_obstacle(database, table))),
        Method::KeyDiff => asked_for(table, Way::KeyDiff, key),
        Method::Reload => asked_for(table, Way::Reload, None),
    }
}

/// What a definition asks for, if nothing stands in the way.
fn asked_for(table: &Table, way: Way, obstacle: Option<String>) -> Result<Choice, SourceError> {
    match obstacle {
        None if way == Way::ChangeTracking => Ok(tracked(table)),
        None if way == Way::Reload => Ok(Choice { way, because: ASKED_FOR.to_owned() }),
        None => Ok(Choice { way, because: format!("{ASKED_FOR}{}", compared(table)) }),
        Some(obstacle) => {
            let text = format!("{} cannot be read by {}: {obstacle}", table.name, name(way));
            Err(SourceError::new(ErrorKind::InvalidInput, text))
        }
    }
}

fn name(way: Way) -> &'static str {
    match way {
        Way::ChangeTracking => "change tracking",
        Way::RowVersion => "row versions",
        Way::KeyDiff => "comparing its rows",
        Way::Reload => "reading it whole",
    }
}

fn tracked(table: &Table) -> Choice {
    let because = format!("the table has a key and its changes are tracked{}", compared(table));
    Choice { way: Way::ChangeTracking, because }
}

/// The way that costs least of those the table allows, of which something about its key may keep it.
fn best(database: &Database, table: &Table, key: Option<String>) -> Choice {
    if let Some(obstacle) = key {
        return Choice { way: Way::Reload, because: format!("every load reads the whole table, as {obstacle}") };
    }
    let Some(untracked) = tracking_obstacle(database, table) else { return tracked(table) };
    let Some(unversioned) = row_version_obstacle(database, table) else {
        let text = "rows are read whose row version has grown, and all keys where rows were deleted";
        return Choice { way: Way::RowVersion, because: format!("{text}, as {untracked}{}", compared(table)) };
    };
    let text = "every load reads the whole table and writes what differs";
    Choice { way: Way::KeyDiff, because: format!("{text}, as {untracked}; and {unversioned}{}", compared(table)) }
}

/// What keeps the rows of a table from being told apart by a key.
fn key_obstacle(table: &Table) -> Option<String> {
    if table.is_view {
        return Some("it is a view, which has no changes of its own".to_owned());
    }
    if table.key.is_empty() {
        return Some("it has no primary key; with one, changes alone could be read".to_owned());
    }
    let column = unfoldable(table)?;
    Some(format!(
        "its key column `{}` is {}{}, and which of its values are equal only the server knows; keys of whole or exact \
         numbers, dates, bytes and uniqueidentifier can be told apart here, and text in a binary collation (_BIN2) or \
         in one like Latin1_General_CI_AS",
        column.name,
        column.sql_type,
        column.collation.as_ref().map_or(String::new(), |collation| format!(" in the collation {collation}")),
    ))
}

fn tracking_obstacle(database: &Database, table: &Table) -> Option<String> {
    if database.read_only {
        return Some("this is a readable secondary, which has no change tracking; name the primary as host".to_owned());
    }
    if database.tracking.is_none() {
        return Some(format!(
            "change tracking is off; ALTER DATABASE … SET CHANGE_TRACKING = ON and ALTER TABLE {} ENABLE \
             CHANGE_TRACKING turn it on",
            table.name
        ));
    }
    if !table.is_tracked {
        return Some(format!(
            "its changes are not tracked; ALTER TABLE {} ENABLE CHANGE_TRACKING does that",
            table.name
        ));
    }
    if !table.changes_readable {
        return Some(format!(
            "the login may not ask for its changes; GRANT VIEW CHANGE TRACKING ON {} lets it",
            table.name
        ));
    }
    None
}

/// What keeps a table with a key from being read by its row versions.
fn row_version_obstacle(database: &Database, table: &Table) -> Option<String> {
    if table.row_version().is_none() {
        return Some(
            "it has no column of type rowversion, which would tell new rows (to add one writes all)".to_owned(),
        );
    }
    if database.read_only {
        // What it calls the least version in use tells nothing of transactions that are open on the primary.
        return Some("a readable secondary does not tell which row versions are in use; name the primary".to_owned());
    }
    if !database.allows_snapshots {
        return Some(
            "the database does not allow snapshot isolation, without which a row that moves while it is read could be \
             missed for good; ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON allows it"
                .to_owned(),
        );
    }
    (!database.tells_row_versions)
        .then(|| "the server does not tell which row versions are in use (MIN_ACTIVE_ROWVERSION)".to_owned())
}

/// A key column whose values the server compares in a way that is not known here.
fn unfoldable(table: &Table) -> Option<&SourceColumn> {
    let unknown = |column: &&SourceColumn| {
        matches!(column.sql_type, SqlType::Real | SqlType::Float | SqlType::Variant)
            || folding(column) == KeyFolding::NotFoldable
    };
    key_columns(table).find(unknown)
}

fn key_columns(table: &Table) -> impl Iterator<Item = &SourceColumn> {
    table.columns.iter().filter(|column| table.key.contains(&column.name))
}

/// Why a value that was met in a key keeps the table from being read by it, where it still does.
fn still_incomparable(table: &Table, value: &Incomparable) -> Option<String> {
    let column = key_columns(table).find(|column| value.stays(column))?;
    Some(format!(
        "its key column `{}` ({}) held `{}`, and which other values equal that only the server knows; when no key has \
         such letters any more, `lakegate sync TABLE --reload` tries again to read its changes alone",
        column.name,
        column.collation.as_deref().unwrap_or_default(),
        value.value.escape_debug(),
    ))
}

/// How the values of a key are compared, where not as they are; to follow what was said before.
fn compared(table: &Table) -> String {
    let told = |column: &SourceColumn| {
        let words = in_words(column)?;
        let collation = column.collation.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        Some(format!("; in its key column `{}`{collation} {words}", column.name))
    };
    key_columns(table).filter_map(told).collect()
}
