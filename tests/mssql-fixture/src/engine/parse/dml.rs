//! INSERT, UPDATE, DELETE and the WITH in front of them.

use super::Parser;
use crate::engine::ast::{Delete, Expression, Insert, InsertRows, Kind, Operator, Source, Update};
use crate::engine::error::SqlError;

impl Parser<'_> {
    /// `WITH CHANGE_TRACKING_CONTEXT (0x…)` before DML, or common tables before a query.
    pub(super) fn with(&mut self) -> Result<Kind, SqlError> {
        if !self.is_at(1, "CHANGE_TRACKING_CONTEXT") {
            let before = self.at;
            self.advance();
            self.common_tables()?;
            if self.is("INSERT") || self.is("UPDATE") || self.is("DELETE") {
                return self.dml_over_common_tables(before);
            }
            self.at = before;
            return self.query().map(Kind::Query);
        }
        self.at += 2;
        self.expect_symbol("(")?;
        let context = self.expression()?;
        self.expect_symbol(")")?;
        match self.dml()? {
            Kind::Insert(insert) => Ok(Kind::Insert(Insert { context: Some(context), ..insert })),
            Kind::Update(update) => Ok(Kind::Update(Update { context: Some(context), ..update })),
            Kind::Delete(delete) => Ok(Kind::Delete(Delete { context: Some(context), ..delete })),
            _ => Err(self.unexpected()),
        }
    }

    /// `WITH … INSERT INTO t SELECT …`: the common tables belong to the query; other DML over them is not known.
    fn dml_over_common_tables(&mut self, before: usize) -> Result<Kind, SqlError> {
        self.at = before;
        self.advance();
        let with = self.common_tables()?;
        let unexpected = self.unexpected();
        match self.dml()? {
            Kind::Insert(Insert { context, table, columns, rows: InsertRows::Query(mut query) }) => {
                query.with = with;
                Ok(Kind::Insert(Insert { context, table, columns, rows: InsertRows::Query(query) }))
            }
            _ => Err(unexpected),
        }
    }

    pub(super) fn dml(&mut self) -> Result<Kind, SqlError> {
        if self.is("INSERT") {
            return self.insert().map(Kind::Insert);
        }
        if self.is("UPDATE") {
            return self.update().map(Kind::Update);
        }
        self.delete().map(Kind::Delete)
    }

    fn hint(&mut self) -> Result<(), SqlError> {
        if self.is("WITH") && self.is_symbol_at(1, "(") {
            self.advance();
            self.skip_parentheses()?;
        }
        Ok(())
    }

    fn insert(&mut self) -> Result<Insert, SqlError> {
        self.expect("INSERT")?;
        let _ = self.eat("INTO");
        let table = self.name()?;
        self.hint()?;
        let columns = if self.is_symbol("(") && !self.at_query() { Some(self.name_list()?) } else { None };
        let rows = if self.eat("VALUES") {
            InsertRows::Values(self.value_rows()?)
        } else if self.eat_words(&["DEFAULT", "VALUES"]) {
            InsertRows::Defaults
        } else if self.at_query() {
            InsertRows::Query(Box::new(self.query()?))
        } else {
            return Err(self.unexpected());
        };
        self.option()?;
        Ok(Insert { context: None, table, columns, rows })
    }

    fn update(&mut self) -> Result<Update, SqlError> {
        self.expect("UPDATE")?;
        let top = self.top()?;
        let table = self.name()?;
        self.hint()?;
        self.expect("SET")?;
        let mut assignments = Vec::new();
        loop {
            let column = self.name()?;
            let target = Expression::Column(column.clone());
            let value = if self.eat_symbol("=") { self.expression()? } else { self.compound(target)? };
            assignments.push((column.last().to_owned(), value));
            if !self.eat_symbol(",") {
                break;
            }
        }
        let (from, filter) = self.sources_and_filter()?;
        Ok(Update { context: None, top, table, assignments, from, filter })
    }

    /// `c += 1` and its like.
    pub(super) fn compound(&mut self, target: Expression) -> Result<Expression, SqlError> {
        let operator = [
            ("+=", Operator::Add),
            ("-=", Operator::Subtract),
            ("*=", Operator::Multiply),
            ("/=", Operator::Divide),
            ("%=", Operator::Modulo),
        ]
        .into_iter()
        .find(|(symbol, _)| self.is_symbol(symbol))
        .map(|(_, operator)| operator)
        .ok_or_else(|| self.unexpected())?;
        self.advance();
        let right = Box::new(self.expression()?);
        Ok(Expression::Operation { operator, left: Box::new(target), right })
    }

    fn delete(&mut self) -> Result<Delete, SqlError> {
        self.expect("DELETE")?;
        let top = self.top()?;
        let _ = self.eat("FROM");
        let table = self.name()?;
        self.hint()?;
        let (from, filter) = self.sources_and_filter()?;
        Ok(Delete { context: None, top, table, from, filter })
    }

    fn sources_and_filter(&mut self) -> Result<(Option<Source>, Option<Expression>), SqlError> {
        let from = if self.eat("FROM") { Some(self.sources()?) } else { None };
        let filter = if self.eat("WHERE") { Some(self.expression()?) } else { None };
        self.option()?;
        Ok((from, filter))
    }
}
