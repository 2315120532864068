//! How a table is kept in step: what its definition asks for, or the best that the table allows.

use crate::config::Method;
use crate::error::ErrorKind;
use crate::model::KeyFolding;
use crate::source::SourceError;
use crate::source::mssql::collation::{Incomparable, folding, in_words};
use crate::source::mssql::column::{SourceColumn, SqlType};
use crate::source::mssql::discover::{Database, Table};
use crate::source::mssql::position::Way;

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
    // Who asks for a method by name is told when it meets the value again.
    let met = incomparable.filter(|_| wanted == Method::Auto).and_then(|value| still_incomparable(table, value));
    let obstacle = obstacle(database, table).or(met);
    match (wanted, obstacle) {
        (Method::Auto | Method::ChangeTracking, None) => Ok(Choice {
            way: Way::ChangeTracking,
            because: format!("the table has a key and its changes are tracked{}", compared(table)),
        }),
        (Method::Auto, Some(obstacle)) => {
            Ok(Choice { way: Way::Reload, because: format!("every load reads the whole table, as {obstacle}") })
        }
        (Method::ChangeTracking, Some(obstacle)) => Err(SourceError::new(
            ErrorKind::InvalidInput,
            format!("{} cannot be read by change tracking: {obstacle}", table.name),
        )),
        (Method::Reload, _) => Ok(Choice { way: Way::Reload, because: "the definition asks for it".to_owned() }),
        (Method::RowVersion | Method::KeyDiff, _) => Err(SourceError::new(
            ErrorKind::Unsupported,
            format!(
                "{}: this method is not built yet; take method = \"auto\", \"change_tracking\" or \"reload\"",
                table.name
            ),
        )),
    }
}

/// What keeps a table from being read by Change Tracking, and what would help.
pub fn obstacle(database: &Database, table: &Table) -> Option<String> {
    if table.is_view {
        return Some("it is a view, which has no changes of its own".to_owned());
    }
    if table.key.is_empty() {
        return Some("it has no primary key; with one, changes alone could be read".to_owned());
    }
    if let Some(column) = unfoldable(table) {
        return Some(format!(
            "its key column `{}` is {}{}, and which of its values are equal only the server knows; keys of whole or exact \
             numbers, dates, bytes and uniqueidentifier can be told apart here, and text in a binary collation (_BIN2) or \
             in one like Latin1_General_CI_AS",
            column.name,
            column.sql_type,
            column.collation.as_ref().map_or(String::new(), |collation| format!(" in the collation {collation}")),
        ));
    }
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
