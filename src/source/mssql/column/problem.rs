//! Why a column cannot be read, and what to do about it.

use std::fmt;

use super::SqlType;

/// A column that cannot be read, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` ({sql_type}) {kind}")]
pub struct ColumnProblem {
    /// The column's name.
    pub column: String,
    /// Its type.
    pub sql_type: SqlType,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a column. Its text ends with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// Always Encrypted: what arrives is ciphertext.
    Encrypted,
    /// Dynamic data masking would give made-up values.
    Masked,
    /// The XML sum of sparse columns, which are read one by one.
    ColumnSet,
    /// `sql_variant` without the option that allows it.
    Variant,
    /// A CLR type only its own assembly understands.
    ClrType,
    /// A type newer than this program, or one no column can have.
    UnknownType,
    /// The type cannot tell rows apart exactly, so it cannot be a key.
    NoKey,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encrypted => {
                "is Always Encrypted, so only ciphertext would arrive; leave it out of the table's definition"
            }
            Self::Masked => {
                "is masked for this login, so made-up values would arrive; GRANT UNMASK to the login, or leave the \
                 column out of the table's definition"
            }
            Self::ColumnSet => {
                "is a column set, the sum of the sparse columns, which are read one by one; leave it out of the \
                 table's definition"
            }
            Self::Variant => {
                "may hold a different type in every row; write `variants = \"text\"` to read it as text, or leave it \
                 out of the table's definition"
            }
            Self::ClrType => {
                "is of a CLR type that only its own assembly can read; read a view that converts it, or leave it out \
                 of the table's definition"
            }
            Self::UnknownType => {
                "is of a type this version does not know; read a view that converts it, or leave it out of the \
                 table's definition"
            }
            Self::NoKey => {
                "cannot be part of a key here, because its values cannot be named exactly; choose other key columns \
                 that are unique, or load the table whole"
            }
        })
    }
}
