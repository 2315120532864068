//! Statements that are neither queries nor DDL: variables, settings, transactions, flow, EXEC.

use super::Parser;
use crate::engine::ast::{Expression, Kind, SetOption, Statement};
use crate::engine::error::SqlError;
use crate::engine::session::Isolation;
use crate::engine::token::Token;

impl Parser<'_> {
    pub(super) fn statement(&mut self) -> Result<Statement, SqlError> {
        let (line, start) = (self.line(), self.start());
        let kind = self.deeper(Self::kind)?;
        let text = self.text_from(start).to_owned();
        let _ = self.eat_symbol(";");
        Ok(Statement { line, kind, text })
    }

    fn kind(&mut self) -> Result<Kind, SqlError> {
        let Token::Word(word) = self.token().clone() else {
            if self.at_query() {
                return self.query().map(Kind::Query);
            }
            return Err(self.unexpected());
        };
        match word.to_ascii_uppercase().as_str() {
            "SELECT" => self.query().map(Kind::Query),
            "WITH" => self.with(),
            "INSERT" | "UPDATE" | "DELETE" => self.dml(),
            "DECLARE" => self.declare(),
            "SET" => self.set(),
            "BEGIN" => self.begin(),
            "COMMIT" => self.end_of_transaction(Kind::Commit),
            "ROLLBACK" => self.end_of_transaction(Kind::Rollback),
            "IF" => self.condition(),
            "WHILE" => {
                self.advance();
                let condition = self.expression()?;
                Ok(Kind::While { condition, body: Box::new(self.statement()?) })
            }
            "PRINT" => {
                self.advance();
                self.expression().map(Kind::Print)
            }
            "WAITFOR" => {
                self.advance();
                self.expect("DELAY")?;
                self.expression().map(Kind::WaitFor)
            }
            "THROW" => self.throw(),
            "RAISERROR" => self.raise_error(),
            "USE" => {
                self.advance();
                self.identifier().map(Kind::Use)
            }
            "RETURN" => {
                self.advance();
                if matches!(self.token(), Token::Number(_)) {
                    self.advance();
                }
                Ok(Kind::Return)
            }
            "EXEC" | "EXECUTE" => {
                self.advance();
                self.execute()
            }
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "TRUNCATE" => {
                self.advance();
                self.expect("TABLE")?;
                self.name().map(Kind::Truncate)
            }
            "GRANT" | "DENY" | "REVOKE" => self.permission(),
            _ => Err(self.unexpected()),
        }
    }

    fn declare(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        let mut all = Vec::new();
        loop {
            let name = self.variable()?;
            let _ = self.eat("AS");
            let sql_type = self.sql_type()?;
            let value = if self.eat_symbol("=") { Some(self.expression()?) } else { None };
            all.push((name, sql_type, value));
            if !self.eat_symbol(",") {
                return Ok(Kind::Declare(all));
            }
        }
    }

    fn set(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        if let Token::Variable(name) = self.token().clone() {
            self.advance();
            let value = if self.eat_symbol("=") {
                self.expression()?
            } else {
                self.compound(Expression::Variable(name.clone()))?
            };
            return Ok(Kind::SetVariable { name, value });
        }
        if self.eat_words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            return self.isolation().map(|level| Kind::Set(SetOption::Isolation(level)));
        }
        if self.eat("IDENTITY_INSERT") {
            let name = self.name()?;
            return Ok(Kind::Set(SetOption::IdentityInsert(name, self.switch()?)));
        }
        if self.eat("LOCK_TIMEOUT") {
            return Ok(Kind::Set(SetOption::LockTimeout(self.integer()?)));
        }
        self.plain_option()
    }

    /// `SET a, b ON` and `SET a value`; only what matters here is told apart.
    fn plain_option(&mut self) -> Result<Kind, SqlError> {
        let known = [
            "XACT_ABORT",
            "NOCOUNT",
            "DEADLOCK_PRIORITY",
            "ANSI_NULLS",
            "ANSI_PADDING",
            "ANSI_WARNINGS",
            "ANSI_NULL_DFLT_ON",
            "ANSI_NULL_DFLT_OFF",
            "ANSI_DEFAULTS",
            "ARITHABORT",
            "ARITHIGNORE",
            "CONCAT_NULL_YIELDS_NULL",
            "NUMERIC_ROUNDABORT",
            "QUOTED_IDENTIFIER",
            "CURSOR_CLOSE_ON_COMMIT",
            "IMPLICIT_TRANSACTIONS",
            "TEXTSIZE",
            "LANGUAGE",
            "DATEFORMAT",
            "DATEFIRST",
            "ROWCOUNT",
            "FMTONLY",
            "NOEXEC",
            "STATISTICS",
            "CONTEXT_INFO",
            "FORCEPLAN",
            "NO_BROWSETABLE",
            "QUERY_GOVERNOR_COST_LIMIT",
            "REMOTE_PROC_TRANSACTIONS",
        ];
        let first = loop {
            let name = self.identifier()?.to_ascii_uppercase();
            if !known.contains(&name.as_str()) {
                self.at -= 1;
                return Err(self.unexpected());
            }
            if name == "STATISTICS" {
                self.identifier()?;
            }
            if !self.eat_symbol(",") {
                break name;
            }
        };
        if matches!(self.token(), Token::Symbol("-")) {
            self.advance();
        }
        let value = match self.advance() {
            Token::Word(word) => word.to_ascii_uppercase(),
            Token::Quoted(_) | Token::Number(_) | Token::Text { .. } | Token::Binary(_) | Token::Variable(_) => {
                String::new()
            }
            _ => {
                self.at -= 1;
                return Err(self.unexpected());
            }
        };
        let on = value == "ON";
        let bad_switch = !on && value != "OFF";
        match first.as_str() {
            "XACT_ABORT" | "NOCOUNT" | "FMTONLY" if bad_switch => {
                self.at -= 1;
                Err(self.unexpected())
            }
            "XACT_ABORT" => Ok(Kind::Set(SetOption::XactAbort(on))),
            "FMTONLY" => Ok(Kind::Set(SetOption::FormatOnly(on))),
            "NOCOUNT" => Ok(Kind::Set(SetOption::NoCount(on))),
            _ => Ok(Kind::Set(SetOption::Other)),
        }
    }

    fn isolation(&mut self) -> Result<Isolation, SqlError> {
        let levels: [(&[&str], Isolation); 5] = [
            (&["READ", "UNCOMMITTED"], Isolation::ReadUncommitted),
            (&["READ", "COMMITTED"], Isolation::ReadCommitted),
            (&["REPEATABLE", "READ"], Isolation::RepeatableRead),
            (&["SERIALIZABLE"], Isolation::Serializable),
            (&["SNAPSHOT"], Isolation::Snapshot),
        ];
        for (words, level) in levels {
            if self.eat_words(words) {
                return Ok(level);
            }
        }
        Err(self.unexpected())
    }

    fn begin(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        if self.eat("TRAN") || self.eat("TRANSACTION") {
            self.transaction_name();
            return Ok(Kind::Begin);
        }
        let mut statements = Vec::new();
        loop {
            while self.eat_symbol(";") {}
            if self.eat("END") {
                return Ok(Kind::Block(statements));
            }
            statements.push(self.statement()?);
        }
    }

    fn transaction_name(&mut self) {
        let begins_statement = ["COMMIT", "BEGIN", "SAVE"].iter().any(|word| self.is(word));
        if (self.at_identifier() && !begins_statement) || matches!(self.token(), Token::Variable(_)) {
            self.advance();
        }
    }

    fn end_of_transaction(&mut self, kind: Kind) -> Result<Kind, SqlError> {
        self.advance();
        if self.eat("TRAN") || self.eat("TRANSACTION") {
            self.transaction_name();
        } else {
            let _ = self.eat("WORK");
        }
        Ok(kind)
    }

    fn condition(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        let condition = self.expression()?;
        let then = Box::new(self.statement()?);
        let otherwise = if self.eat("ELSE") { Some(Box::new(self.statement()?)) } else { None };
        Ok(Kind::If { condition, then, otherwise })
    }

    fn throw(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        let number = self.expression()?;
        self.expect_symbol(",")?;
        let message = self.expression()?;
        self.expect_symbol(",")?;
        self.expression()?;
        Ok(Kind::Throw { number, message })
    }

    fn raise_error(&mut self) -> Result<Kind, SqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let all = self.expressions()?;
        self.expect_symbol(")")?;
        all.into_iter().next().map(Kind::RaiseError).ok_or_else(|| self.unexpected())
    }

    fn execute(&mut self) -> Result<Kind, SqlError> {
        if self.eat_symbol("(") {
            let text = self.expression()?;
            self.expect_symbol(")")?;
            let name = crate::engine::ast::Name(vec!["sp_executesql".to_owned()]);
            return Ok(Kind::Execute { name, arguments: vec![(None, text)] });
        }
        let name = self.name()?;
        let mut arguments = Vec::new();
        loop {
            let named = match (self.token().clone(), self.is_symbol_at(1, "=")) {
                (Token::Variable(variable), true) => {
                    self.at += 2;
                    Some(variable)
                }
                _ => None,
            };
            let begins = match self.token() {
                Token::Text { .. } | Token::Number(_) | Token::Variable(_) | Token::Binary(_) | Token::Money(_) => true,
                Token::Symbol("-") | Token::Quoted(_) => true,
                Token::Word(word) => word.eq_ignore_ascii_case("NULL") || (named.is_some() && self.at_identifier()),
                _ => false,
            };
            if !begins {
                if named.is_some() || !arguments.is_empty() {
                    return Err(self.unexpected());
                }
                break;
            }
            arguments.push((named, self.argument()?));
            let _ = self.eat("OUTPUT") || self.eat("OUT");
            if !self.eat_symbol(",") {
                break;
            }
        }
        Ok(Kind::Execute { name, arguments })
    }

    /// A literal, a variable, or a bare word, which is text.
    fn argument(&mut self) -> Result<Expression, SqlError> {
        if self.at_identifier() {
            return self.identifier().map(|value| Expression::Text { value, national: true });
        }
        self.additive()
    }
}
