//! CREATE: tables with their columns and keys, views, indexes, principals.

use super::Parser;
use crate::engine::ast::{ColumnDefinition, CreateTable, KeyDefinition, Kind, Sourced};
use crate::engine::error::SqlError;
use crate::engine::token::Token;

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        if self.eat("SCHEMA") {
            let name = self.identifier()?;
            if self.eat("AUTHORIZATION") {
                self.identifier()?;
            }
            return Ok(Kind::CreateSchema(name));
        }
        if self.eat("TABLE") {
            return self.create_table();
        }
        if self.eat("VIEW") {
            return self.create_view(false);
        }
        if self.eat_words(&["OR", "ALTER", "VIEW"]) {
            return self.create_view(true);
        }
        if self.eat("LOGIN") {
            let name = self.identifier()?;
            let mut password = None;
            if self.eat("WITH") {
                self.expect("PASSWORD")?;
                self.expect_symbol("=")?;
                password = Some(self.text()?);
                while self.eat_symbol(",") {
                    self.identifier()?;
                    self.expect_symbol("=")?;
                    self.advance();
                }
            }
            return Ok(Kind::CreateLogin { name, password });
        }
        if self.eat("USER") {
            let name = self.identifier()?;
            if self.eat_words(&["FOR", "LOGIN"]) || self.eat_words(&["FROM", "LOGIN"]) {
                self.identifier()?;
            } else {
                let _ = self.eat_words(&["WITHOUT", "LOGIN"]);
            }
            return Ok(Kind::CreateUser { name });
        }
        if self.eat("TYPE") {
            let name = self.name()?;
            self.expect("FROM")?;
            let sql_type = self.sql_type()?;
            let nullable = !self.eat_words(&["NOT", "NULL"]);
            let _ = self.eat("NULL");
            return Ok(Kind::CreateType { name, sql_type, nullable });
        }
        if self.eat_words(&["SECURITY", "POLICY"]) {
            return self.security_policy();
        }
        self.create_index()
    }

    /// The text between the policy's name and its end names the tables behind ON.
    fn security_policy(&mut self) -> Result<Kind, SqlError> {
        let name = self.name()?;
        let mut targets = Vec::new();
        while !self.at_end() && !self.is_symbol(";") {
            if self.eat("ON") {
                targets.push(self.name()?);
            } else if self.is_symbol("(") {
                self.skip_parentheses()?;
            } else {
                self.advance();
            }
        }
        Ok(Kind::SecurityPolicy { name, targets })
    }

    fn create_view(&mut self, replace: bool) -> Result<Kind, SqlError> {
        let name = self.name()?;
        let columns = if self.is_symbol("(") { self.name_list()? } else { Vec::new() };
        if self.eat("WITH") {
            self.identifier()?;
        }
        self.expect("AS")?;
        let start = self.start();
        self.query()?;
        let text = self.text_from(start).to_owned();
        Ok(Kind::CreateView { name, columns, text, replace })
    }

    fn create_index(&mut self) -> Result<Kind, SqlError> {
        let mut key = KeyDefinition { unique: self.eat("UNIQUE"), ..KeyDefinition::default() };
        key.clustered = self.clustered();
        self.expect("INDEX")?;
        key.name = Some(self.identifier()?);
        self.expect("ON")?;
        let table = self.name()?;
        key.columns = self.key_columns()?;
        if self.eat("INCLUDE") {
            key.included = self.name_list()?;
        }
        if self.eat("WHERE") {
            self.expression()?;
            key.filtered = true;
        }
        self.storage()?;
        Ok(Kind::CreateIndex { table, key })
    }

    fn clustered(&mut self) -> Option<bool> {
        if self.eat("CLUSTERED") {
            return Some(true);
        }
        self.eat("NONCLUSTERED").then_some(false)
    }

    /// `WITH (…)`, `ON [PRIMARY]`, `TEXTIMAGE_ON x` behind a table, an index or a constraint.
    pub(super) fn storage(&mut self) -> Result<(), SqlError> {
        loop {
            if self.is("WITH") && self.is_symbol_at(1, "(") {
                self.advance();
                self.skip_parentheses()?;
            } else if (self.is("ON") && matches!(self.token_at(1), Token::Quoted(_))) || self.is("TEXTIMAGE_ON") {
                self.advance();
                self.advance();
            } else {
                return Ok(());
            }
        }
    }

    /// `(a, b DESC)`.
    fn key_columns(&mut self) -> Result<Vec<(String, bool)>, SqlError> {
        self.expect_symbol("(")?;
        let mut columns = Vec::new();
        loop {
            let name = self.identifier()?;
            let descending = self.eat("DESC");
            let _ = self.eat("ASC");
            columns.push((name, descending));
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        Ok(columns)
    }

    fn create_table(&mut self) -> Result<Kind, SqlError> {
        let mut table = CreateTable { name: Some(self.name()?), ..CreateTable::default() };
        self.expect_symbol("(")?;
        loop {
            if self.is_symbol(")") {
                break;
            }
            if self.eat_words(&["PERIOD", "FOR", "SYSTEM_TIME"]) || self.eat("CHECK") {
                self.skip_parentheses()?;
            } else if self.at_table_constraint() {
                if let Some((primary, key)) = self.table_constraint()? {
                    if primary {
                        table.primary = Some(key);
                    } else {
                        table.unique.push(key);
                    }
                }
            } else if self.is("INDEX") && !self.is_symbol_at(2, ",") {
                self.advance();
                let name = Some(self.identifier()?);
                let unique = self.eat("UNIQUE");
                let clustered = self.clustered();
                let columns = self.key_columns()?;
                table.unique.push(KeyDefinition { name, columns, unique, clustered, ..KeyDefinition::default() });
            } else {
                table.columns.push(self.column_definition()?);
            }
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")")?;
        self.table_options(&mut table)?;
        Ok(Kind::CreateTable(table))
    }

    fn table_options(&mut self, table: &mut CreateTable) -> Result<(), SqlError> {
        if self.is("WITH") {
            let start = self.start();
            self.advance();
            self.skip_parentheses()?;
            let text = self.text_from(start).to_ascii_uppercase().replace(' ', "");
            table.system_versioned = text.contains("SYSTEM_VERSIONING=ON");
            table.memory_optimized = text.contains("MEMORY_OPTIMIZED=ON");
        }
        self.storage()
    }

    pub(super) fn at_table_constraint(&self) -> bool {
        let constraint_ahead = |ahead| {
            ["CHECK", "FOREIGN", "UNIQUE"].iter().any(|word| self.is_at(ahead, word))
                || (self.is_at(ahead, "PRIMARY") && self.is_at(ahead + 1, "KEY"))
        };
        constraint_ahead(0) || (self.is("CONSTRAINT") && constraint_ahead(2))
    }

    /// A key of the table: whether it is the primary one, and the key. Checks and foreign keys are read over.
    pub(super) fn table_constraint(&mut self) -> Result<Option<(bool, KeyDefinition)>, SqlError> {
        let name = if self.eat("CONSTRAINT") { Some(self.identifier()?) } else { None };
        if self.eat("CHECK") {
            self.skip_parentheses()?;
            return Ok(None);
        }
        if self.eat("FOREIGN") {
            self.expect("KEY")?;
            self.skip_parentheses()?;
            self.references()?;
            return Ok(None);
        }
        let primary = self.eat_words(&["PRIMARY", "KEY"]);
        if !primary {
            self.expect("UNIQUE")?;
        }
        let clustered = self.clustered();
        let columns = self.key_columns()?;
        self.storage()?;
        Ok(Some((primary, KeyDefinition { name, columns, clustered, unique: true, ..KeyDefinition::default() })))
    }

    fn references(&mut self) -> Result<(), SqlError> {
        self.expect("REFERENCES")?;
        self.name()?;
        if self.is_symbol("(") {
            self.skip_parentheses()?;
        }
        while self.eat("ON") {
            let _ = self.eat("DELETE") || self.eat("UPDATE");
            let _ = self.eat("CASCADE") || self.eat_words(&["NO", "ACTION"]) || self.eat_words(&["SET", "NULL"]);
        }
        Ok(())
    }

    /// The text and the tree of an expression.
    pub(super) fn sourced(&mut self) -> Result<Sourced, SqlError> {
        let start = self.start();
        let expression = self.additive()?;
        Ok(Sourced { expression, text: self.text_from(start).to_owned() })
    }

    pub(super) fn column_definition(&mut self) -> Result<ColumnDefinition, SqlError> {
        let mut column = ColumnDefinition { name: self.identifier()?, ..ColumnDefinition::default() };
        if self.eat("AS") {
            column.computed = Some(self.sourced()?);
            column.persisted = self.eat("PERSISTED");
            if self.eat_words(&["NOT", "NULL"]) {
                column.nullable = Some(false);
            }
        } else {
            let name = self.name_or_rowversion(&column.name)?;
            column.sql_type = self.known_type(name.last())?;
            column.user_type = column.sql_type.is_none().then_some(name);
        }
        while self.column_option(&mut column)? {}
        Ok(column)
    }

    /// `timestamp` as a column's whole definition is its name and its type.
    fn name_or_rowversion(&mut self, column: &str) -> Result<crate::engine::ast::Name, SqlError> {
        if column.eq_ignore_ascii_case("timestamp") && !self.at_identifier() {
            return Ok(crate::engine::ast::Name(vec!["timestamp".to_owned()]));
        }
        self.name()
    }

    /// One option behind a column's type; `false` when none is left.
    fn column_option(&mut self, column: &mut ColumnDefinition) -> Result<bool, SqlError> {
        let name = if self.is("CONSTRAINT") {
            self.advance();
            Some(self.identifier()?)
        } else {
            None
        };
        if self.eat_words(&["NOT", "NULL"]) {
            column.nullable = Some(false);
        } else if self.eat("NULL") {
            column.nullable = Some(true);
        } else if self.eat("COLLATE") {
            column.collation = Some(self.identifier()?);
        } else if self.eat("DEFAULT") {
            column.default = Some(self.sourced()?);
            column.default_name = name;
        } else if self.eat_words(&["WITH", "VALUES"]) {
            column.with_values = true;
        } else if self.eat("IDENTITY") {
            column.identity = Some(self.identity()?);
        } else if self.is("PRIMARY") || self.is("UNIQUE") {
            let primary = self.eat_words(&["PRIMARY", "KEY"]);
            let _ = !primary && self.eat("UNIQUE");
            let clustered = self.clustered();
            let columns = if self.is_symbol("(") { self.key_columns()? } else { Vec::new() };
            self.storage()?;
            let key = KeyDefinition { name, columns, clustered, unique: true, ..KeyDefinition::default() };
            if primary {
                column.primary = Some(key);
            } else {
                column.unique = Some(key);
            }
        } else if self.eat("CHECK") {
            self.skip_parentheses()?;
        } else if self.is("REFERENCES") || self.eat_words(&["FOREIGN", "KEY"]) {
            self.references()?;
        } else {
            return self.rare_column_option(column);
        }
        Ok(true)
    }

    fn rare_column_option(&mut self, column: &mut ColumnDefinition) -> Result<bool, SqlError> {
        if self.eat("MASKED") {
            self.expect("WITH")?;
            self.skip_parentheses()?;
            column.masked = true;
        } else if self.eat("ENCRYPTED") {
            self.expect("WITH")?;
            self.skip_parentheses()?;
            column.encrypted = true;
        } else if self.eat("SPARSE") {
            column.sparse = true;
        } else if self.eat_words(&["COLUMN_SET", "FOR", "ALL_SPARSE_COLUMNS"]) {
            column.column_set = true;
        } else if self.eat_words(&["GENERATED", "ALWAYS", "AS", "ROW"]) {
            column.generated = if self.eat("START") {
                1
            } else {
                self.expect("END")?;
                2
            };
            column.nullable = column.nullable.or(Some(false));
        } else if self.eat("HIDDEN") {
            column.hidden = true;
        } else {
            return Ok(self.eat("ROWGUIDCOL") || self.eat("FILESTREAM"));
        }
        Ok(true)
    }

    fn identity(&mut self) -> Result<(i64, i64), SqlError> {
        if !self.eat_symbol("(") {
            return Ok((1, 1));
        }
        let seed = self.integer()?;
        self.expect_symbol(",")?;
        let step = self.integer()?;
        self.expect_symbol(")")?;
        Ok((seed, step))
    }
}
