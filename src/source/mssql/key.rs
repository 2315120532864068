//! Values of keys outside of rows: as texts that are kept between loads, and as literals of exactly their type.
//!
//! A key is never compared here, only on the server, in the column's own type and collation. A text is in the
//! server's own form, so that it can also come from the server ([`KeyColumn::server_text`]).

mod literal;
mod text;
mod value;

use super::column::{ColumnOptions, ColumnPlan, ColumnProblem, SourceColumn, SqlType};
use super::statements::text_literal;

/// Why a value cannot be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key cannot be NULL.
    #[error("key column `{column}` holds NULL, so its rows cannot be told apart")]
    Null {
        /// The column.
        column: String,
    },
    /// A text is no value of its column: what is kept is damaged, or the column's type has changed.
    #[error("the kept text of key column `{column}` ({sql_type}) is no such value: {reason}; load the table anew")]
    Text {
        /// The column.
        column: String,
        /// Its type.
        sql_type: SqlType,
        /// What is wrong.
        reason: String,
    },
    /// A kept key has more columns than the table's key.
    #[error("a kept key has {kept} columns, but the key of the table has {columns}; load the table anew")]
    Columns {
        /// How many are kept.
        kept: usize,
        /// How many there are.
        columns: usize,
    },
    /// An array is not what the column's plan makes.
    #[error("the values of key column `{column}` arrived as {found} instead of what was planned for it")]
    Array {
        /// The column.
        column: String,
        /// The array's type.
        found: String,
    },
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyColumn {
    plan: ColumnPlan,
    /// The column's collation where a variable, which always has the database's, could lose letters.
    foreign: Option<String>,
}

impl KeyColumn {
    /// A column as part of a key, in a database of the given collation.
    ///
    /// # Errors
    /// When the column cannot be read, or cannot be a key.
    pub fn new(
        column: &SourceColumn,
        options: &ColumnOptions,
        database_collation: &str,
    ) -> Result<Self, ColumnProblem> {
        let plan = ColumnPlan::for_key(column, options)?;
        let foreign = column.collation.clone().filter(|name| {
            column.sql_type.has_code_page()
                && !name.eq_ignore_ascii_case(database_collation)
                // A collation's name is letters, digits and underscores, and cannot be quoted.
                && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        });
        Ok(Self { plan, foreign })
    }

    /// The column's name on the server.
    pub fn name(&self) -> &str {
        self.plan.name()
    }

    /// The column's type on the server.
    pub fn sql_type(&self) -> &SqlType {
        self.plan.sql_type()
    }

    /// How the column is read. The table's rows must be read by the same plan for [`Self::text`] to fit.
    pub fn plan(&self) -> &ColumnPlan {
        &self.plan
    }

    /// The type of a variable that holds a value of it.
    pub fn variable_type(&self) -> String {
        match self.sql_type() {
            SqlType::RowVersion => "binary(8)".to_owned(),
            SqlType::Char { length } | SqlType::VarChar { length: Some(length) } if self.foreign.is_some() => {
                // As many UTF-16 units as bytes are always enough.
                if *length <= 4000 { format!("nvarchar({length})") } else { "nvarchar(max)".to_owned() }
            }
            sql_type => sql_type.to_string(),
        }
    }

    /// What a variable of it is compared as, so that the column's index is used and no letter is lost: a variable has
    /// the code page of the database, not that of the column.
    pub fn operand(&self, variable: &str) -> String {
        match &self.foreign {
            Some(collation) => format!("CAST({variable} COLLATE {collation} AS {})", self.sql_type()),
            None => variable.to_owned(),
        }
    }

    /// An expression of it as `MIN` and `MAX` take it; they do not take `bit`.
    pub fn ordered(&self, expression: &str) -> String {
        match self.sql_type() {
            SqlType::Bit => format!("CAST({expression} AS tinyint)"),
            _ => expression.to_owned(),
        }
    }

    /// An expression for the key text of an expression of the column's type.
    pub fn server_text(&self, expression: &str) -> String {
        match self.sql_type() {
            SqlType::Money | SqlType::SmallMoney => format!("CONVERT(nvarchar(40), {expression}, 2)"),
            SqlType::Date
            | SqlType::Time { .. }
            | SqlType::DateTime
            | SqlType::SmallDateTime
            | SqlType::DateTime2 { .. }
            | SqlType::DateTimeOffset { .. } => format!("CONVERT(nvarchar(40), {expression}, 126)"),
            SqlType::Binary { .. } | SqlType::VarBinary { .. } => {
                format!("CONVERT(varchar(max), {expression}, 1)")
            }
            SqlType::RowVersion => format!("CONVERT(varchar(max), CAST({expression} AS binary(8)), 1)"),
            SqlType::Char { .. } | SqlType::VarChar { .. } => format!("CAST({expression} AS nvarchar(max))"),
            SqlType::NChar { .. } | SqlType::NVarChar { .. } => expression.to_owned(),
            SqlType::HierarchyId => format!("{expression}.ToString()"),
            _ => format!("CONVERT(nvarchar(40), {expression})"),
        }
    }

    /// A key text as an expression of the type [`Self::variable_type`].
    ///
    /// # Errors
    /// When the text is no value of the column.
    pub fn literal(&self, text: &str) -> Result<String, KeyError> {
        let parsed = match self.sql_type() {
            sql_type if sql_type.is_text() => literal::text(sql_type, text).map(text_literal),
            sql_type => literal::plain(sql_type, text),
        };
        parsed.map_err(|reason| self.refuse(reason))
    }

    fn refuse(&self, reason: impl Into<String>) -> KeyError {
        KeyError::Text { column: self.name().to_owned(), sql_type: self.sql_type().clone(), reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
