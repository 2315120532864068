//! Reads T-SQL: a batch becomes statements. Whatever is not known is error 102 with the word it stands at.

mod alter;
mod control;
mod create;
mod dml;
mod expression;
mod names;
mod query;

use super::ast::{Expression, Statement};
use super::error::SqlError;
use super::token::{Placed, Token, tokens};
use crate::value::SqlType;

/// Reads a whole batch.
pub(crate) fn batch(text: &str) -> Result<Vec<Statement>, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    loop {
        while parser.eat_symbol(";") {}
        if parser.at_end() {
            return Ok(statements);
        }
        statements.push(parser.statement()?);
    }
}

/// Reads one expression, such as a default or a computed column's.
pub(crate) fn expression(text: &str) -> Result<Expression, SqlError> {
    let mut parser = Parser::new(text)?;
    let expression = parser.expression()?;
    parser.end()?;
    Ok(expression)
}

/// Reads the parameter list of `sp_executesql`: `@a int, @b nvarchar(10)`.
pub(crate) fn declarations(text: &str) -> Result<Vec<(String, SqlType)>, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut all = Vec::new();
    while !parser.at_end() {
        let name = parser.variable()?;
        parser.eat("AS");
        all.push((name, parser.sql_type()?));
        if parser.eat_symbol("=") {
            parser.expression()?;
        }
        let _ = parser.eat("OUTPUT") || parser.eat("OUT") || parser.eat("READONLY");
        if !parser.eat_symbol(",") {
            break;
        }
    }
    parser.end()?;
    Ok(all)
}

/// Reads `INSERT BULK [s].[t] ([c] type [COLLATE x], …) [WITH (…)]`: the table and its columns.
pub(crate) fn bulk(text: &str) -> Result<(super::ast::Name, Vec<(String, SqlType)>), SqlError> {
    let mut parser = Parser::new(text)?;
    parser.expect("INSERT")?;
    parser.expect("BULK")?;
    let table = parser.name()?;
    let mut columns = Vec::new();
    if parser.eat_symbol("(") {
        loop {
            let column = parser.identifier()?;
            let sql_type = parser.sql_type()?;
            if parser.eat("COLLATE") {
                parser.identifier()?;
            }
            let _ = parser.eat("NOT");
            let _ = parser.eat("NULL");
            columns.push((column, sql_type));
            if !parser.eat_symbol(",") {
                break;
            }
        }
        parser.expect_symbol(")")?;
    }
    if parser.eat("WITH") {
        parser.skip_parentheses()?;
    }
    let _ = parser.eat_symbol(";");
    parser.end()?;
    Ok((table, columns))
}

/// Reads an object's name from a text, such as the argument of `OBJECT_ID`.
pub(crate) fn object_name(text: &str) -> Result<super::ast::Name, SqlError> {
    let mut parser = Parser::new(text)?;
    let name = parser.name()?;
    parser.end()?;
    Ok(name)
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: u32,
}

/// How deep expressions and queries may nest; far below what the stack of a thread holds.
const MAX_DEPTH: u32 = 120;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, SqlError> {
        Ok(Self { text, tokens: tokens(text)?, at: 0, depth: 0 })
    }

    fn placed(&self, ahead: usize) -> Option<&Placed> {
        self.tokens.get(self.at + ahead).or_else(|| self.tokens.last())
    }

    fn token(&self) -> &Token {
        self.placed(0).map_or(&Token::End, |placed| &placed.token)
    }

    fn token_at(&self, ahead: usize) -> &Token {
        self.placed(ahead).map_or(&Token::End, |placed| &placed.token)
    }

    fn line(&self) -> u32 {
        self.placed(0).map_or(1, |placed| placed.line)
    }

    fn start(&self) -> usize {
        self.placed(0).map_or(0, |placed| placed.start)
    }

    /// The text from an offset up to the token read last.
    fn text_from(&self, start: usize) -> &'a str {
        let end = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(start, |placed| placed.end);
        self.text.get(start..end.max(start)).unwrap_or_default()
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        if self.at < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn at_end(&self) -> bool {
        *self.token() == Token::End
    }

    fn end(&self) -> Result<(), SqlError> {
        if self.at_end() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> SqlError {
        let word = match self.token() {
            Token::Word(word) | Token::Quoted(word) | Token::Variable(word) | Token::Number(word) => word.clone(),
            Token::Money(word) => format!("${word}"),
            Token::Text { value, .. } => value.clone(),
            Token::Binary(_) => "0x".to_owned(),
            Token::Symbol(symbol) => (*symbol).to_owned(),
            Token::End => {
                let last = self.tokens.len().checked_sub(2).and_then(|at| self.tokens.get(at));
                return match last.map(|placed| (&placed.token, placed.line)) {
                    Some((Token::Word(word), line)) => SqlError::syntax(word, line),
                    Some((Token::Symbol(symbol), line)) => SqlError::syntax(symbol, line),
                    _ => SqlError::syntax("end of batch", self.line()),
                };
            }
        };
        SqlError::syntax(&word, self.line())
    }

    fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    fn is_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.token_at(ahead), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.token(), Token::Symbol(found) if *found == symbol)
    }

    fn is_symbol_at(&self, ahead: usize, symbol: &str) -> bool {
        matches!(self.token_at(ahead), Token::Symbol(found) if *found == symbol)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.is(word);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes the words when all of them come next.
    fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_at(ahead, word));
        if found {
            self.at += words.len();
        }
        found
    }

    fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), SqlError> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// `ON` or `OFF`.
    fn switch(&mut self) -> Result<bool, SqlError> {
        if self.eat("ON") {
            return Ok(true);
        }
        self.expect("OFF").map(|()| false)
    }

    /// Runs a reader one level deeper; too deep is error 191 as in SQL Server.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.depth >= MAX_DEPTH {
            let message = "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into \
                           smaller queries.";
            return Err(SqlError::new(191, 15, message).at(self.line()));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Skips `( … )` with whatever is inside.
    fn skip_parentheses(&mut self) -> Result<(), SqlError> {
        self.expect_symbol("(")?;
        let mut depth = 1;
        while depth > 0 {
            match self.advance() {
                Token::Symbol("(") => depth += 1,
                Token::Symbol(")") => depth -= 1,
                Token::End => return Err(self.unexpected()),
                _ => {}
            }
        }
        Ok(())
    }
}
