//! Names, variables, small numbers and type names.

use super::Parser;
use crate::engine::ast::Name;
use crate::engine::error::SqlError;
use crate::engine::token::Token;
use crate::value::SqlType;

/// Words that never are a name unless quoted, as far as the grammar here needs it.
const RESERVED: &[&str] = &[
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CHECK",
    "COLLATE",
    "COMMIT",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "DECLARE",
    "DEFAULT",
    "DELETE",
    "DENY",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXEC",
    "EXECUTE",
    "EXISTS",
    "FOR",
    "FOREIGN",
    "FROM",
    "FULL",
    "GO",
    "GRANT",
    "GROUP",
    "HAVING",
    "IF",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "MERGE",
    "NOT",
    "NULL",
    "ON",
    "OPTION",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PRIMARY",
    "PRINT",
    "REFERENCES",
    "RETURN",
    "REVOKE",
    "RIGHT",
    "ROLLBACK",
    "SELECT",
    "SET",
    "TABLE",
    "THEN",
    "TOP",
    "TRUNCATE",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USE",
    "VALUES",
    "WAITFOR",
    "WHEN",
    "WHERE",
    "WHILE",
    "WITH",
    "THROW",
];

pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

impl Parser<'_> {
    /// Whether a name may begin here.
    pub(super) fn at_identifier(&self) -> bool {
        match self.token() {
            Token::Quoted(_) => true,
            Token::Word(word) => !is_reserved(word),
            _ => false,
        }
    }

    pub(super) fn identifier(&mut self) -> Result<String, SqlError> {
        if !self.at_identifier() {
            return Err(self.unexpected());
        }
        match self.advance() {
            Token::Quoted(name) | Token::Word(name) => Ok(name),
            _ => Err(self.unexpected()),
        }
    }

    /// `a`, `a.b`, `a..b`, `a.b.c`.
    pub(super) fn name(&mut self) -> Result<Name, SqlError> {
        let mut parts = vec![self.identifier()?];
        while self.is_symbol(".") && !self.is_symbol_at(1, "*") {
            self.advance();
            if self.is_symbol(".") {
                parts.push(String::new());
            } else {
                parts.push(self.any_word()?);
            }
        }
        Ok(Name(parts))
    }

    /// A name behind a dot, where reserved words are fine too.
    fn any_word(&mut self) -> Result<String, SqlError> {
        match self.token().clone() {
            Token::Quoted(name) | Token::Word(name) => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `(a, b, c)`.
    pub(super) fn name_list(&mut self) -> Result<Vec<String>, SqlError> {
        self.expect_symbol("(")?;
        let mut names = Vec::new();
        loop {
            names.push(self.identifier()?);
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(names)
    }

    pub(super) fn variable(&mut self) -> Result<String, SqlError> {
        match self.token().clone() {
            Token::Variable(name) => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn integer(&mut self) -> Result<i64, SqlError> {
        let negative = self.eat_symbol("-");
        match self.token().clone() {
            Token::Number(number) => {
                let value: i64 = number.parse().map_err(|_| self.unexpected())?;
                self.advance();
                Ok(if negative { -value } else { value })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A text literal.
    pub(super) fn text(&mut self) -> Result<String, SqlError> {
        match self.token().clone() {
            Token::Text { value, .. } => {
                self.advance();
                Ok(value)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A type of SQL Server's own; anything else is error 243.
    pub(super) fn sql_type(&mut self) -> Result<SqlType, SqlError> {
        let (line, name) = (self.line(), self.name()?);
        self.known_type(name.last())?.ok_or_else(|| {
            SqlError::new(243, 16, format!("Type {} is not a defined system type.", name.text())).at(line)
        })
    }

    /// The type of this name with its length in parentheses, `None` when SQL Server has no such type.
    pub(super) fn known_type(&mut self, name: &str) -> Result<Option<SqlType>, SqlError> {
        let lower = name.to_ascii_lowercase();
        let plain = match lower.as_str() {
            "bit" => SqlType::Bit,
            "tinyint" => SqlType::TinyInt,
            "smallint" => SqlType::SmallInt,
            "int" | "integer" => SqlType::Int,
            "bigint" => SqlType::BigInt,
            "money" => SqlType::Money,
            "smallmoney" => SqlType::SmallMoney,
            "real" => SqlType::Real,
            "text" => SqlType::Text,
            "ntext" => SqlType::NText,
            "image" => SqlType::Image,
            "rowversion" | "timestamp" => SqlType::RowVersion,
            "date" => SqlType::Date,
            "datetime" => SqlType::DateTime,
            "smalldatetime" => SqlType::SmallDateTime,
            "uniqueidentifier" => SqlType::UniqueIdentifier,
            "sql_variant" => SqlType::Variant,
            "hierarchyid" => SqlType::HierarchyId,
            "geography" => SqlType::Geography,
            "geometry" => SqlType::Geometry,
            "json" => SqlType::Json,
            "sysname" => SqlType::NVarChar { length: Some(128) },
            _ => return self.measured_type(&lower),
        };
        Ok(Some(plain))
    }

    fn measured_type(&mut self, lower: &str) -> Result<Option<SqlType>, SqlError> {
        let arguments = |parser: &mut Self| parser.type_arguments();
        Ok(Some(match lower {
            "decimal" | "numeric" | "dec" => {
                let (precision, scale) = match arguments(self)?.as_slice() {
                    [Some(precision), Some(scale)] => (*precision, *scale),
                    [Some(precision)] => (*precision, 0),
                    _ => (18, 0),
                };
                let in_range = (1..=38).contains(&precision) && scale <= precision;
                if !in_range {
                    return Err(
                        SqlError::new(2750, 16, "The precision or scale of a decimal is out of range.").at(self.line())
                    );
                }
                SqlType::Decimal { precision: small(precision), scale: small(scale) }
            }
            "float" => match arguments(self)?.first() {
                Some(Some(bits)) if *bits <= 24 => SqlType::Real,
                _ => SqlType::Float,
            },
            "double" => {
                self.expect("PRECISION")?;
                SqlType::Float
            }
            "char" | "character" | "nchar" | "binary" => {
                let length = arguments(self)?.first().copied().flatten().unwrap_or(1);
                match lower {
                    "nchar" => SqlType::NChar { length },
                    "binary" => SqlType::Binary { length },
                    _ => SqlType::Char { length },
                }
            }
            "varchar" | "nvarchar" | "varbinary" => {
                let length = arguments(self)?.first().copied().unwrap_or(Some(1));
                match lower {
                    "nvarchar" => SqlType::NVarChar { length },
                    "varbinary" => SqlType::VarBinary { length },
                    _ => SqlType::VarChar { length },
                }
            }
            "time" | "datetime2" | "datetimeoffset" => {
                let scale = arguments(self)?.first().copied().flatten().map_or(7, small);
                match lower {
                    "time" => SqlType::Time { scale },
                    "datetime2" => SqlType::DateTime2 { scale },
                    _ => SqlType::DateTimeOffset { scale },
                }
            }
            "xml" => {
                if self.is_symbol("(") {
                    self.skip_parentheses()?;
                }
                SqlType::Xml
            }
            "vector" => SqlType::Vector { dimensions: arguments(self)?.first().copied().flatten().unwrap_or(1) },
            _ => return Ok(None),
        }))
    }

    /// `(18, 4)`, `(max)` or nothing; `max` is `None`.
    fn type_arguments(&mut self) -> Result<Vec<Option<u16>>, SqlError> {
        let mut all = Vec::new();
        if !self.eat_symbol("(") {
            return Ok(all);
        }
        loop {
            if self.eat("MAX") {
                all.push(None);
            } else {
                let number = self.integer()?;
                all.push(Some(u16::try_from(number).map_err(|_| self.unexpected())?));
            }
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(all)
    }
}

fn small(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
