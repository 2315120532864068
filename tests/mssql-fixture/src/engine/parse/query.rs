//! SELECT and what it reads from.

use super::Parser;
use crate::engine::ast::{Body, CommonTable, Expression, Item, JoinKind, Order, Query, Select, SetOperator, Source};
use crate::engine::error::SqlError;
use crate::engine::token::Token;

/// Table hints and query hints that would read dirty rows: never sent by lakegate, so refused.
const DIRTY: &[&str] = &["NOLOCK", "READUNCOMMITTED"];

impl Parser<'_> {
    /// Whether a query begins here (behind any opening parentheses).
    pub(super) fn at_query(&self) -> bool {
        let mut ahead = 0;
        while self.is_symbol_at(ahead, "(") {
            ahead += 1;
        }
        self.is_at(ahead, "SELECT") || (ahead == 0 && (self.is("WITH") || self.is("VALUES")))
    }

    pub(super) fn query(&mut self) -> Result<Query, SqlError> {
        self.deeper(Self::query_inner)
    }

    fn query_inner(&mut self) -> Result<Query, SqlError> {
        let with = if self.eat("WITH") { self.common_tables()? } else { Vec::new() };
        let body = self.union()?;
        let mut query = Query { with, body, order: Vec::new(), offset: None, fetch: None };
        if self.is("ORDER") {
            query.order = self.order_by()?;
            if self.eat("OFFSET") {
                query.offset = Some(self.additive()?);
                let _ = self.eat("ROWS") || self.eat("ROW");
                if self.eat("FETCH") {
                    let _ = self.eat("NEXT") || self.eat("FIRST");
                    query.fetch = Some(self.additive()?);
                    let _ = self.eat("ROWS") || self.eat("ROW");
                    self.expect("ONLY")?;
                }
            }
        }
        self.option()?;
        Ok(query)
    }

    /// `OPTION (…)`: accepted and ignored.
    pub(super) fn option(&mut self) -> Result<(), SqlError> {
        if self.eat("OPTION") {
            self.hints()?;
        }
        Ok(())
    }

    /// `(hint, hint(…), …)`; hints that read dirty rows are refused.
    fn hints(&mut self) -> Result<(), SqlError> {
        if let Some(ahead) = (0..40)
            .take_while(|ahead| !self.is_symbol_at(*ahead, ")"))
            .find(|ahead| DIRTY.iter().any(|word| self.is_at(*ahead, word)))
        {
            self.at += ahead;
            return Err(self.unexpected());
        }
        self.skip_parentheses()
    }

    pub(super) fn common_tables(&mut self) -> Result<Vec<CommonTable>, SqlError> {
        let mut all = Vec::new();
        loop {
            let name = self.identifier()?;
            let columns = if self.is_symbol("(") { self.name_list()? } else { Vec::new() };
            self.expect("AS")?;
            self.expect_symbol("(")?;
            let query = self.query()?;
            self.expect_symbol(")")?;
            all.push(CommonTable { name, columns, query });
            if !self.eat_symbol(",") {
                return Ok(all);
            }
        }
    }

    fn union(&mut self) -> Result<Body, SqlError> {
        let mut left = self.member()?;
        loop {
            let operator = if self.eat("UNION") {
                if self.eat("ALL") { SetOperator::UnionAll } else { SetOperator::Union }
            } else if self.eat("EXCEPT") {
                SetOperator::Except
            } else if self.eat("INTERSECT") {
                SetOperator::Intersect
            } else {
                return Ok(left);
            };
            left = Body::Set { operator, left: Box::new(left), right: Box::new(self.member()?) };
        }
    }

    fn member(&mut self) -> Result<Body, SqlError> {
        if self.eat_symbol("(") {
            let query = self.query()?;
            self.expect_symbol(")")?;
            return Ok(Body::Nested(Box::new(query)));
        }
        if self.eat("VALUES") {
            return Ok(Body::Values(self.value_rows()?));
        }
        self.select().map(|select| Body::Select(Box::new(select)))
    }

    /// `(a, b), (c, d)`.
    pub(super) fn value_rows(&mut self) -> Result<Vec<Vec<Expression>>, SqlError> {
        let mut rows = Vec::new();
        loop {
            self.expect_symbol("(")?;
            rows.push(self.expressions()?);
            self.expect_symbol(")")?;
            if !self.eat_symbol(",") {
                return Ok(rows);
            }
        }
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        self.expect("SELECT")?;
        let mut select = Select::default();
        if !self.eat("ALL") {
            select.distinct = self.eat("DISTINCT");
        }
        select.top = self.top()?;
        loop {
            select.items.push(self.item()?);
            if !self.eat_symbol(",") {
                break;
            }
        }
        if self.eat("FROM") {
            select.from = Some(self.sources()?);
        }
        if self.eat("WHERE") {
            select.filter = Some(self.expression()?);
        }
        if self.eat_words(&["GROUP", "BY"]) {
            select.group = self.expressions()?;
        }
        if self.eat("HAVING") {
            select.having = Some(self.expression()?);
        }
        Ok(select)
    }

    /// `TOP (n)`, `TOP n` and nothing else: PERCENT and WITH TIES are refused.
    pub(super) fn top(&mut self) -> Result<Option<Expression>, SqlError> {
        if !self.eat("TOP") {
            return Ok(None);
        }
        let count = if self.eat_symbol("(") {
            let count = self.expression()?;
            self.expect_symbol(")")?;
            count
        } else {
            match self.advance() {
                Token::Number(number) => Expression::Number(number),
                Token::Variable(name) => Expression::Variable(name),
                _ => {
                    self.at -= 1;
                    return Err(self.unexpected());
                }
            }
        };
        if self.is("PERCENT") || (self.is("WITH") && self.is_at(1, "TIES")) {
            return Err(self.unexpected());
        }
        Ok(Some(count))
    }

    fn item(&mut self) -> Result<Item, SqlError> {
        if self.eat_symbol("*") {
            return Ok(Item::Star(None));
        }
        if let (Token::Variable(variable), true) = (self.token().clone(), self.is_symbol_at(1, "=")) {
            self.advance();
            self.advance();
            return Ok(Item::Assign { variable, expression: self.expression()? });
        }
        let compound = ["+=", "-=", "*=", "/=", "%="].iter().any(|symbol| self.is_symbol_at(1, symbol));
        if let (Token::Variable(variable), true) = (self.token().clone(), compound) {
            self.advance();
            let expression = self.compound(Expression::Variable(variable.clone()))?;
            return Ok(Item::Assign { variable, expression });
        }
        if let (true, Token::Word(alias) | Token::Quoted(alias)) =
            (self.at_identifier() && self.is_symbol_at(1, "="), self.token().clone())
        {
            self.advance();
            self.advance();
            return Ok(Item::Value { expression: self.expression()?, alias: Some(alias) });
        }
        if self.at_identifier() {
            let before = self.at;
            let name = self.name()?;
            if self.is_symbol(".") && self.is_symbol_at(1, "*") {
                self.advance();
                self.advance();
                return Ok(Item::Star(Some(name)));
            }
            self.at = before;
        }
        let expression = self.expression()?;
        Ok(Item::Value { expression, alias: self.alias()? })
    }

    /// `AS name`, `name`, `AS 'name'` or nothing.
    fn alias(&mut self) -> Result<Option<String>, SqlError> {
        if self.eat("AS") {
            if let Token::Text { value, .. } = self.token().clone() {
                self.advance();
                return Ok(Some(value));
            }
            return self.identifier().map(Some);
        }
        if self.at_identifier() && !self.is("OFFSET") {
            return self.identifier().map(Some);
        }
        Ok(None)
    }

    pub(super) fn order_by(&mut self) -> Result<Vec<Order>, SqlError> {
        self.expect("ORDER")?;
        self.expect("BY")?;
        let mut all = Vec::new();
        loop {
            let expression = self.expression()?;
            let descending = self.eat("DESC");
            let _ = self.eat("ASC");
            all.push(Order { expression, descending });
            if !self.eat_symbol(",") {
                return Ok(all);
            }
        }
    }

    /// What stands behind FROM; commas are cross joins.
    pub(super) fn sources(&mut self) -> Result<Source, SqlError> {
        let mut left = self.joined()?;
        while self.eat_symbol(",") {
            let right = Box::new(self.joined()?);
            left = Source::Join { kind: JoinKind::Cross, left: Box::new(left), right, on: None };
        }
        Ok(left)
    }

    fn joined(&mut self) -> Result<Source, SqlError> {
        let mut left = self.deeper(Self::source)?;
        loop {
            let kind = if self.eat("JOIN") || self.eat_words(&["INNER", "JOIN"]) {
                JoinKind::Inner
            } else if self.eat_words(&["LEFT", "JOIN"]) || self.eat_words(&["LEFT", "OUTER", "JOIN"]) {
                JoinKind::Left
            } else if self.eat_words(&["RIGHT", "JOIN"]) || self.eat_words(&["RIGHT", "OUTER", "JOIN"]) {
                JoinKind::Right
            } else if self.eat_words(&["FULL", "JOIN"]) || self.eat_words(&["FULL", "OUTER", "JOIN"]) {
                JoinKind::Full
            } else if self.eat_words(&["CROSS", "JOIN"]) {
                JoinKind::Cross
            } else if self.eat_words(&["CROSS", "APPLY"]) {
                JoinKind::CrossApply
            } else {
                return Ok(left);
            };
            let right = Box::new(self.deeper(Self::source)?);
            let on = if matches!(kind, JoinKind::Cross | JoinKind::CrossApply) {
                None
            } else {
                self.expect("ON")?;
                Some(self.expression()?)
            };
            left = Source::Join { kind, left: Box::new(left), right, on };
        }
    }

    fn source(&mut self) -> Result<Source, SqlError> {
        if self.is_symbol("(") {
            if self.at_query() || self.is_at(1, "VALUES") || self.is_at(1, "WITH") {
                self.advance();
                let query = Box::new(self.query()?);
                self.expect_symbol(")")?;
                let _ = self.eat("AS");
                let alias = self.identifier()?;
                let columns = if self.is_symbol("(") { self.name_list()? } else { Vec::new() };
                return Ok(Source::Derived { query, alias, columns });
            }
            self.advance();
            let inner = self.joined()?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        if self.is("CHANGETABLE") && self.is_symbol_at(1, "(") {
            return self.change_table();
        }
        let name = self.name()?;
        if self.is_symbol("(") && !self.is_hint_list() {
            self.advance();
            let arguments = if self.is_symbol(")") { Vec::new() } else { self.expressions()? };
            self.expect_symbol(")")?;
            return Ok(Source::Function { name, arguments, alias: self.source_alias()? });
        }
        self.table_hints()?;
        let alias = self.source_alias()?;
        self.table_hints()?;
        Ok(Source::Named { name, alias })
    }

    /// Whether `(NOLOCK)` stands here, the old form of a table hint.
    fn is_hint_list(&self) -> bool {
        DIRTY.iter().any(|word| self.is_at(1, word))
    }

    fn table_hints(&mut self) -> Result<(), SqlError> {
        if self.is_symbol("(") && self.is_hint_list() {
            return self.hints();
        }
        if self.is("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            self.hints()?;
        }
        Ok(())
    }

    pub(super) fn source_alias(&mut self) -> Result<Option<String>, SqlError> {
        if self.eat("AS") || self.at_identifier() {
            return self.identifier().map(Some);
        }
        Ok(None)
    }

    fn change_table(&mut self) -> Result<Source, SqlError> {
        self.advance();
        self.expect_symbol("(")?;
        self.expect("CHANGES")?;
        let table = self.name()?;
        self.expect_symbol(",")?;
        // SQL Server takes a literal, a variable or NULL here and no expression.
        let since = match self.token().clone() {
            Token::Number(number) => Some(Expression::Number(number)),
            Token::Variable(name) => Some(Expression::Variable(name)),
            Token::Word(word) if word.eq_ignore_ascii_case("NULL") => None,
            Token::Symbol("-") if matches!(self.token_at(1), Token::Number(_)) => {
                self.advance();
                match self.token().clone() {
                    Token::Number(number) => Some(Expression::Number(format!("-{number}"))),
                    _ => return Err(self.unexpected()),
                }
            }
            _ => return Err(self.unexpected()),
        };
        self.advance();
        if self.eat_symbol(",") {
            self.expect("FORCESEEK")?;
        }
        self.expect_symbol(")")?;
        let _ = self.eat("AS");
        let alias = self.identifier()?;
        Ok(Source::Changes { table, since, alias })
    }
}
