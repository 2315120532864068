//! ALTER, DROP, GRANT and their like.

use super::Parser;
use crate::engine::ast::{AlterDatabase, AlterTable, Grant, Kind, Securable};
use crate::engine::error::SqlError;
use crate::engine::token::Token;

impl Parser<'_> {
    pub(super) fn alter(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        if self.eat("TABLE") {
            let name = self.name()?;
            let change = self.alter_table()?;
            return Ok(Kind::AlterTable { name, change });
        }
        if self.eat("DATABASE") {
            self.identifier()?;
            self.expect("SET")?;
            return self.alter_database().map(Kind::AlterDatabase);
        }
        if self.eat("VIEW") {
            let name = self.name()?;
            self.expect("AS")?;
            let start = self.start();
            self.query()?;
            let text = self.text_from(start).to_owned();
            return Ok(Kind::CreateView { name, columns: Vec::new(), text, replace: true });
        }
        if self.eat("ROLE") {
            let role = self.identifier()?;
            self.expect("ADD")?;
            self.expect("MEMBER")?;
            return Ok(Kind::AddRoleMember { role, member: self.identifier()? });
        }
        Err(self.unexpected())
    }

    fn alter_table(&mut self) -> Result<AlterTable, SqlError> {
        if self.eat("ENABLE") {
            self.expect("CHANGE_TRACKING")?;
            let mut columns_updated = false;
            if self.eat("WITH") {
                self.expect_symbol("(")?;
                self.expect("TRACK_COLUMNS_UPDATED")?;
                self.expect_symbol("=")?;
                columns_updated = self.switch()?;
                self.expect_symbol(")")?;
            }
            return Ok(AlterTable::EnableTracking { columns_updated });
        }
        if self.eat_words(&["DISABLE", "CHANGE_TRACKING"]) {
            return Ok(AlterTable::DisableTracking);
        }
        if self.eat_words(&["ALTER", "COLUMN"]) {
            return self.alter_column();
        }
        if self.eat("DROP") {
            return self.alter_drop();
        }
        if self.eat("SET") {
            let start = self.start();
            self.skip_parentheses()?;
            let text = self.text_from(start).to_ascii_uppercase().replace(' ', "");
            return Ok(match (text.contains("SYSTEM_VERSIONING=ON"), text.contains("SYSTEM_VERSIONING=OFF")) {
                (true, _) => AlterTable::Versioning(true),
                (_, true) => AlterTable::Versioning(false),
                _ => AlterTable::Nothing,
            });
        }
        if self.eat("REBUILD") {
            self.storage()?;
            return Ok(AlterTable::Nothing);
        }
        let _ = self.eat("WITH") && (self.eat("CHECK") || self.eat("NOCHECK"));
        self.expect("ADD")?;
        self.alter_add()
    }

    fn alter_column(&mut self) -> Result<AlterTable, SqlError> {
        if self.is_at(1, "ADD") || self.is_at(1, "DROP") {
            let column = self.identifier()?;
            let on = self.eat("ADD");
            let _ = self.eat("DROP");
            self.expect("MASKED")?;
            if self.eat("WITH") {
                self.skip_parentheses()?;
            }
            return Ok(AlterTable::Mask { column, on });
        }
        self.column_definition().map(|column| AlterTable::AlterColumn(Box::new(column)))
    }

    fn alter_drop(&mut self) -> Result<AlterTable, SqlError> {
        if self.eat("COLUMN") {
            let if_exists = self.eat_words(&["IF", "EXISTS"]);
            let mut names = vec![self.identifier()?];
            while self.eat_symbol(",") {
                let _ = self.eat("COLUMN");
                names.push(self.identifier()?);
            }
            return Ok(AlterTable::DropColumns { names, if_exists });
        }
        if self.eat_words(&["PERIOD", "FOR", "SYSTEM_TIME"]) {
            return Ok(AlterTable::Nothing);
        }
        self.expect("CONSTRAINT")?;
        let _ = self.eat_words(&["IF", "EXISTS"]);
        let mut names = vec![self.identifier()?];
        while self.eat_symbol(",") {
            names.push(self.identifier()?);
        }
        self.storage()?;
        Ok(AlterTable::DropConstraints(names))
    }

    fn alter_add(&mut self) -> Result<AlterTable, SqlError> {
        let default_behind = |parser: &Self, ahead| parser.is_at(ahead, "DEFAULT");
        if default_behind(self, 0) || (self.is("CONSTRAINT") && default_behind(self, 2)) {
            let name = if self.eat("CONSTRAINT") { Some(self.identifier()?) } else { None };
            self.expect("DEFAULT")?;
            let value = self.sourced()?;
            self.expect("FOR")?;
            let column = self.identifier()?;
            let with_values = self.eat_words(&["WITH", "VALUES"]);
            return Ok(AlterTable::AddDefault { name, column, value, with_values });
        }
        let (mut columns, mut keys) = (Vec::new(), Vec::new());
        loop {
            if self.eat_words(&["PERIOD", "FOR", "SYSTEM_TIME"]) {
                self.skip_parentheses()?;
            } else if self.at_table_constraint() {
                keys.extend(self.table_constraint()?);
            } else {
                columns.push(self.column_definition()?);
            }
            if !self.eat_symbol(",") {
                break;
            }
        }
        let with_values = self.eat_words(&["WITH", "VALUES"]);
        Ok(AlterTable::Add { columns, keys, with_values })
    }

    fn alter_database(&mut self) -> Result<AlterDatabase, SqlError> {
        let change = if self.eat("CHANGE_TRACKING") {
            self.database_tracking()?
        } else if self.eat("ALLOW_SNAPSHOT_ISOLATION") {
            AlterDatabase::Snapshot(self.switch()?)
        } else if self.eat("READ_COMMITTED_SNAPSHOT") {
            AlterDatabase::ReadCommittedSnapshot(self.switch()?)
        } else if self.eat("COMPATIBILITY_LEVEL") {
            self.expect_symbol("=")?;
            AlterDatabase::Compatibility(self.integer()?)
        } else if self.eat("READ_ONLY") {
            AlterDatabase::ReadOnly(true)
        } else if self.eat("READ_WRITE") {
            AlterDatabase::ReadOnly(false)
        } else {
            let known = ["RECOVERY", "MULTI_USER", "SINGLE_USER", "AUTO_CLOSE", "AUTO_SHRINK", "DELAYED_DURABILITY"];
            if !known.iter().any(|word| self.is(word)) {
                return Err(self.unexpected());
            }
            self.advance();
            if self.at_identifier() {
                self.advance();
            }
            AlterDatabase::Nothing
        };
        if self.eat("WITH") {
            let _ = self.eat("NO_WAIT") || self.eat_words(&["ROLLBACK", "IMMEDIATE"]);
        }
        Ok(change)
    }

    fn database_tracking(&mut self) -> Result<AlterDatabase, SqlError> {
        if self.eat_symbol("=") && !self.is("ON") {
            self.expect("OFF")?;
            return Ok(AlterDatabase::TrackingOff);
        }
        let _ = self.eat("ON");
        let (mut retention, mut auto_cleanup) = (None, None);
        if self.eat_symbol("(") {
            loop {
                if self.eat("CHANGE_RETENTION") {
                    self.expect_symbol("=")?;
                    let period = self.integer()?;
                    // Units as in sys.change_tracking_databases: 1 minutes, 2 hours, 3 days.
                    let unit = [("MINUTES", 1), ("HOURS", 2), ("DAYS", 3)].into_iter().find(|(word, _)| self.is(word));
                    let unit = unit.ok_or_else(|| self.unexpected())?.1;
                    self.advance();
                    retention = Some((period, unit));
                } else {
                    self.expect("AUTO_CLEANUP")?;
                    self.expect_symbol("=")?;
                    auto_cleanup = Some(self.switch()?);
                }
                if !self.eat_symbol(",") {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        Ok(AlterDatabase::TrackingOn { retention, auto_cleanup })
    }

    pub(super) fn drop(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        let index = self.is("INDEX");
        let table = self.is("TABLE");
        if !index && !table && !self.is("VIEW") {
            return Err(self.unexpected());
        }
        self.advance();
        let if_exists = self.eat_words(&["IF", "EXISTS"]);
        if index {
            let name = self.identifier()?;
            self.expect("ON")?;
            return Ok(Kind::DropIndex { name, table: self.name()?, if_exists });
        }
        let mut names = vec![self.name()?];
        while self.eat_symbol(",") {
            names.push(self.name()?);
        }
        Ok(if table { Kind::DropTable { names, if_exists } } else { Kind::DropView { names, if_exists } })
    }

    pub(super) fn permission(&mut self) -> Result<Kind, SqlError> {
        let grant = match self.advance() {
            Token::Word(word) if word.eq_ignore_ascii_case("GRANT") => Grant::Give,
            Token::Word(word) if word.eq_ignore_ascii_case("DENY") => Grant::Deny,
            _ => Grant::Revoke,
        };
        let mut permissions = vec![String::new()];
        while !self.is("ON") && !self.is("TO") && !self.is("FROM") {
            match self.advance() {
                Token::Symbol(",") => permissions.push(String::new()),
                Token::Symbol("(") => {
                    self.at -= 1;
                    self.skip_parentheses()?;
                }
                Token::Word(word) => {
                    if let Some(last) = permissions.last_mut() {
                        if !last.is_empty() {
                            last.push(' ');
                        }
                        last.push_str(&word.to_ascii_uppercase());
                    }
                }
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected());
                }
            }
        }
        let server_wide = permissions.iter().all(|permission| {
            permission.starts_with("VIEW SERVER")
                || permission.contains("ANY DATABASE")
                || permission.starts_with("CONNECT")
        });
        let on = if self.eat("ON") {
            self.securable()?
        } else if server_wide {
            Securable::Server
        } else {
            Securable::Database
        };
        if !self.eat("TO") {
            self.expect("FROM")?;
        }
        let mut to = vec![self.identifier()?];
        while self.eat_symbol(",") {
            to.push(self.identifier()?);
        }
        let _ = self.eat_words(&["WITH", "GRANT", "OPTION"]) || self.eat("CASCADE");
        Ok(Kind::Permission { grant, permissions, on, to })
    }

    fn securable(&mut self) -> Result<Securable, SqlError> {
        if self.is_symbol_at(1, "::") {
            let class = self.identifier()?.to_ascii_uppercase();
            self.expect_symbol("::")?;
            return match class.as_str() {
                "SCHEMA" => self.identifier().map(Securable::Schema),
                "DATABASE" => self.identifier().map(|_| Securable::Database),
                "OBJECT" => self.name().map(Securable::Object),
                _ => Err(self.unexpected()),
            };
        }
        self.name().map(Securable::Object)
    }
}
