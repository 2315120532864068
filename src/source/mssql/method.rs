//! How a table is kept in step: what its definition asks for, or the best that the table allows.

use crate::config::Method;
use crate::error::ErrorKind;
use crate::model::KeyFolding;
use crate::source::SourceError;
use crate::source::mssql::collation::folding;
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

/// Chooses for a table.
///
/// # Errors
/// When the table cannot be read truly in any way, or not in the one its definition asks for.
pub fn choose(database: &Database, table: &Table, wanted: Method) -> Result<Choice, SourceError> {
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
    let obstacle = obstacle(database, table);
    match (wanted, obstacle) {
        (Method::Auto | Method::ChangeTracking, None) => Ok(Choice {
            way: Way::ChangeTracking,
            because: "the table has a key and its changes are tracked".to_owned(),
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
            "its key column `{}` is {}, of which the server takes different values for equal, if only for blanks or \
             zeros at their end; keys that are whole or exact numbers, dates, binary(n) or uniqueidentifier are told \
             apart in the lake as the server does",
            column.name, column.sql_type
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

/// A key column whose values the server compares otherwise than one by one.
fn unfoldable(table: &Table) -> Option<&SourceColumn> {
    let inexact = |column: &&SourceColumn| {
        matches!(column.sql_type, SqlType::Real | SqlType::Float | SqlType::Variant)
            || folding(column) != KeyFolding::Exact
    };
    table.columns.iter().filter(|column| table.key.contains(&column.name)).find(inexact)
}
