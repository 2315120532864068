//! The name of a table: a schema and a table, as in `tables/<schema>/<table>.toml`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A table's name. Both parts are lower-case letters, digits and `_`, start with a letter and have
/// at most 128 characters, so that they are safe as folder names and need no quotes in SQL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    schema: String,
    table: String,
}

/// A text that is not a table name, with the reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a table name: {reason}")]
pub struct InvalidName {
    text: String,
    reason: &'static str,
}

impl TableName {
    /// Longest part of a name in characters, as in most SQL systems.
    pub const MAX_PART_CHARS: usize = 128;

    /// Joins a schema and a table.
    ///
    /// # Errors
    /// When a part is empty, too long or has a character other than `a-z`, `0-9` and `_`.
    pub fn new(schema: &str, table: &str) -> Result<Self, InvalidName> {
        for part in [schema, table] {
            check_part(part).map_err(|reason| InvalidName { text: format!("{schema}.{table}"), reason })?;
        }
        Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// The schema, which is the folder below `tables/`.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's own name within its schema.
    pub fn table(&self) -> &str {
        &self.table
    }
}

fn check_part(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("a part is empty");
    }
    if part.len() > TableName::MAX_PART_CHARS {
        return Err("a part is longer than 128 characters");
    }
    if !part.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("each part starts with a lower-case letter");
    }
    if !part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err("only lower-case letters, digits and _ are allowed");
    }
    Ok(())
}

impl FromStr for TableName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('.') {
            Some((schema, table)) => Self::new(schema, table),
            None => Err(InvalidName { text: text.to_owned(), reason: "expected schema.table" }),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_text_and_back() {
        let name: TableName = "ops.orders_2".parse().unwrap();
        assert_eq!((name.schema(), name.table()), ("ops", "orders_2"));
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn what_could_leave_its_folder_is_no_name() {
        for text in ["", "orders", "ops.", ".x", "ops.Orders", "ops.a/b", "ops...", "ops.1a", "ops.a b"] {
            assert!(text.parse::<TableName>().is_err(), "{text}");
        }
    }
}
