//! Expressions, by precedence: OR, AND, NOT, comparison, additive, multiplicative, unary, primary.

use super::Parser;
use crate::engine::ast::{Call, Expression, Operator, Window};
use crate::engine::error::SqlError;
use crate::engine::token::Token;

/// Functions that are called without parentheses.
const BARE: &[&str] = &["CURRENT_TIMESTAMP", "CURRENT_USER", "SESSION_USER", "SYSTEM_USER", "USER"];

fn boxed(operator: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Operation { operator, left: Box::new(left), right: Box::new(right) }
}

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Result<Expression, SqlError> {
        self.deeper(Self::disjunction)
    }

    fn disjunction(&mut self) -> Result<Expression, SqlError> {
        let mut left = self.conjunction()?;
        while self.eat("OR") {
            left = boxed(Operator::Or, left, self.conjunction()?);
        }
        Ok(left)
    }

    fn conjunction(&mut self) -> Result<Expression, SqlError> {
        let mut left = self.negation()?;
        while self.eat("AND") {
            left = boxed(Operator::And, left, self.negation()?);
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Expression, SqlError> {
        if self.eat("NOT") {
            return Ok(Expression::Not(Box::new(self.deeper(Self::negation)?)));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expression, SqlError> {
        let left = self.additive()?;
        if let Token::Symbol(symbol) = *self.token() {
            let operator = match symbol {
                "=" => Operator::Equal,
                "<>" | "!=" => Operator::NotEqual,
                "<" => Operator::Less,
                "<=" | "!>" => Operator::LessOrEqual,
                ">" => Operator::Greater,
                ">=" | "!<" => Operator::GreaterOrEqual,
                _ => return Ok(left),
            };
            self.advance();
            return Ok(boxed(operator, left, self.additive()?));
        }
        if self.eat("IS") {
            let negated = self.eat("NOT");
            self.expect("NULL")?;
            return Ok(Expression::IsNull { value: Box::new(left), negated });
        }
        let negated = self.is("NOT") && ["IN", "LIKE", "BETWEEN"].iter().any(|word| self.is_at(1, word));
        if negated {
            self.advance();
        }
        let value = Box::new(left);
        if self.eat("IN") {
            return self.in_list(value, negated);
        }
        if self.eat("BETWEEN") {
            let low = Box::new(self.additive()?);
            self.expect("AND")?;
            return Ok(Expression::Between { value, low, high: Box::new(self.additive()?), negated });
        }
        if self.eat("LIKE") {
            let pattern = Box::new(self.additive()?);
            let escape = if self.eat("ESCAPE") { Some(Box::new(self.additive()?)) } else { None };
            return Ok(Expression::Like { value, pattern, escape, negated });
        }
        Ok(*value)
    }

    fn in_list(&mut self, value: Box<Expression>, negated: bool) -> Result<Expression, SqlError> {
        self.expect_symbol("(")?;
        if self.at_query() {
            let query = Box::new(self.query()?);
            self.expect_symbol(")")?;
            return Ok(Expression::InQuery { value, query, negated });
        }
        let list = self.expressions()?;
        self.expect_symbol(")")?;
        Ok(Expression::InList { value, list, negated })
    }

    /// One or more expressions between commas.
    pub(super) fn expressions(&mut self) -> Result<Vec<Expression>, SqlError> {
        let mut all = vec![self.expression()?];
        while self.eat_symbol(",") {
            all.push(self.expression()?);
        }
        Ok(all)
    }

    pub(super) fn additive(&mut self) -> Result<Expression, SqlError> {
        let mut left = self.multiplicative()?;
        loop {
            let operator = match *self.token() {
                Token::Symbol("+" | "||") => Operator::Add,
                Token::Symbol("-") => Operator::Subtract,
                Token::Symbol("&") => Operator::BitAnd,
                Token::Symbol("|") => Operator::BitOr,
                Token::Symbol("^") => Operator::BitXor,
                _ => return Ok(left),
            };
            self.advance();
            left = boxed(operator, left, self.multiplicative()?);
        }
    }

    fn multiplicative(&mut self) -> Result<Expression, SqlError> {
        let mut left = self.unary()?;
        loop {
            let operator = match *self.token() {
                Token::Symbol("*") => Operator::Multiply,
                Token::Symbol("/") => Operator::Divide,
                Token::Symbol("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.advance();
            left = boxed(operator, left, self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expression, SqlError> {
        if self.eat_symbol("-") {
            return Ok(match self.deeper(Self::unary)? {
                Expression::Number(number) if !number.starts_with('-') => Expression::Number(format!("-{number}")),
                Expression::Money(number) if !number.starts_with('-') => Expression::Money(format!("-{number}")),
                other => Expression::Negate(Box::new(other)),
            });
        }
        if self.eat_symbol("+") {
            return self.deeper(Self::unary);
        }
        if self.eat_symbol("~") {
            return Ok(Expression::BitNot(Box::new(self.deeper(Self::unary)?)));
        }
        let mut value = self.primary()?;
        loop {
            if self.eat("COLLATE") {
                value = Expression::Collate { value: Box::new(value), collation: self.identifier()? };
            } else if self.is_symbol(".") && matches!(self.token_at(1), Token::Word(_)) {
                self.advance();
                value = self.method(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// `.ToString()` and the like, and `.STSrid` without parentheses.
    fn method(&mut self, value: Expression) -> Result<Expression, SqlError> {
        let name = self.identifier()?;
        if self.is_symbol("(") {
            self.skip_parentheses()?;
        }
        Ok(Expression::Method { value: Box::new(value), name })
    }

    fn primary(&mut self) -> Result<Expression, SqlError> {
        match self.token().clone() {
            Token::Text { value, national } => {
                self.advance();
                Ok(Expression::Text { value, national })
            }
            Token::Number(number) => {
                self.advance();
                Ok(Expression::Number(number))
            }
            Token::Money(number) => {
                self.advance();
                Ok(Expression::Money(number))
            }
            Token::Binary(bytes) => {
                self.advance();
                Ok(Expression::Binary(bytes))
            }
            Token::Variable(name) => {
                self.advance();
                Ok(Expression::Variable(name))
            }
            Token::Symbol("(") => {
                self.advance();
                let inner =
                    if self.at_query() { Expression::Scalar(Box::new(self.query()?)) } else { self.expression()? };
                self.expect_symbol(")")?;
                Ok(inner)
            }
            Token::Word(word) => self.word_expression(&word.to_ascii_uppercase()),
            Token::Quoted(_) => self.column_or_call(),
            _ => Err(self.unexpected()),
        }
    }

    fn word_expression(&mut self, upper: &str) -> Result<Expression, SqlError> {
        match upper {
            "NULL" => {
                self.advance();
                Ok(Expression::Null)
            }
            "DEFAULT" => {
                self.advance();
                Ok(Expression::Default)
            }
            "CASE" => self.case(),
            "EXISTS" => {
                self.advance();
                self.expect_symbol("(")?;
                let query = self.query()?;
                self.expect_symbol(")")?;
                Ok(Expression::Exists(Box::new(query)))
            }
            "CAST" | "TRY_CAST" if self.is_symbol_at(1, "(") => self.cast(upper == "TRY_CAST"),
            "CONVERT" | "TRY_CONVERT" if self.is_symbol_at(1, "(") => self.convert(upper == "TRY_CONVERT"),
            "LEFT" | "RIGHT" if self.is_symbol_at(1, "(") => {
                self.advance();
                self.call(upper.to_owned())
            }
            _ if BARE.contains(&upper) && !self.is_symbol_at(1, "(") && !self.is_symbol_at(1, ".") => {
                self.advance();
                let name = if upper == "CURRENT_TIMESTAMP" { "GETDATE" } else { "USER_NAME" };
                Ok(call(name, Vec::new()))
            }
            _ => self.column_or_call(),
        }
    }

    fn case(&mut self) -> Result<Expression, SqlError> {
        self.expect("CASE")?;
        let operand = if self.is("WHEN") { None } else { Some(Box::new(self.expression()?)) };
        let mut branches = Vec::new();
        while self.eat("WHEN") {
            let when = self.expression()?;
            self.expect("THEN")?;
            branches.push((when, self.expression()?));
        }
        let otherwise = if self.eat("ELSE") { Some(Box::new(self.expression()?)) } else { None };
        self.expect("END")?;
        if branches.is_empty() {
            return Err(self.unexpected());
        }
        Ok(Expression::Case { operand, branches, otherwise })
    }

    fn cast(&mut self, tolerant: bool) -> Result<Expression, SqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let value = Box::new(self.expression()?);
        self.expect("AS")?;
        let to = self.cast_type()?;
        self.expect_symbol(")")?;
        Ok(Expression::Cast { value, to, style: None, tolerant })
    }

    fn convert(&mut self, tolerant: bool) -> Result<Expression, SqlError> {
        self.advance();
        self.expect_symbol("(")?;
        let to = self.cast_type()?;
        self.expect_symbol(",")?;
        let value = Box::new(self.expression()?);
        let style = if self.eat_symbol(",") { Some(Box::new(self.expression()?)) } else { None };
        self.expect_symbol(")")?;
        Ok(Expression::Cast { value, to, style, tolerant })
    }

    /// In CAST and CONVERT a text or binary type without a length has 30, not 1.
    fn cast_type(&mut self) -> Result<crate::value::SqlType, SqlError> {
        use crate::value::SqlType;
        let sql_type = self.sql_type()?;
        let bare = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map(|placed| &placed.token)
            != Some(&Token::Symbol(")"));
        Ok(match sql_type {
            SqlType::Char { .. } if bare => SqlType::Char { length: 30 },
            SqlType::VarChar { .. } if bare => SqlType::VarChar { length: Some(30) },
            SqlType::NChar { .. } if bare => SqlType::NChar { length: 30 },
            SqlType::NVarChar { length: Some(1) } if bare => SqlType::NVarChar { length: Some(30) },
            SqlType::Binary { .. } if bare => SqlType::Binary { length: 30 },
            SqlType::VarBinary { .. } if bare => SqlType::VarBinary { length: Some(30) },
            other => other,
        })
    }

    fn column_or_call(&mut self) -> Result<Expression, SqlError> {
        let mut name = self.name()?;
        if !self.is_symbol("(") {
            return Ok(Expression::Column(name));
        }
        // `T.[c].ToString()` reads as a name of three parts with parentheses behind it.
        let method = name.0.last().is_some_and(|last| {
            ["ToString", "STAsText", "STAsBinary", "AsTextZM", "AsBinaryZM"].contains(&last.as_str())
        });
        if let Some(last) = name.0.pop_if(|_| method) {
            self.skip_parentheses()?;
            return Ok(Expression::Method { value: Box::new(Expression::Column(name)), name: last });
        }
        self.call(name.last().to_ascii_uppercase())
    }

    fn call(&mut self, name: String) -> Result<Expression, SqlError> {
        self.expect_symbol("(")?;
        let mut call = Call { name, arguments: Vec::new(), distinct: false, star: false, over: None };
        if self.eat_symbol("*") {
            call.star = true;
        } else if !self.is_symbol(")") {
            call.distinct = self.eat("DISTINCT");
            let _ = self.eat("ALL");
            if matches!(
                call.name.as_str(),
                "DATEADD" | "DATEDIFF" | "DATEDIFF_BIG" | "DATEPART" | "DATENAME" | "DATETRUNC"
            ) {
                let part = self.identifier()?;
                call.arguments.push(Expression::Text { value: part, national: false });
                self.expect_symbol(",")?;
            }
            if call.name == "IIF" {
                return self.iif();
            }
            call.arguments.extend(self.expressions()?);
        }
        self.expect_symbol(")")?;
        if self.eat("OVER") {
            call.over = Some(self.window()?);
        }
        Ok(Expression::Call(Box::new(call)))
    }

    fn iif(&mut self) -> Result<Expression, SqlError> {
        let condition = self.expression()?;
        self.expect_symbol(",")?;
        let then = self.expression()?;
        self.expect_symbol(",")?;
        let otherwise = Some(Box::new(self.expression()?));
        self.expect_symbol(")")?;
        Ok(Expression::Case { operand: None, branches: vec![(condition, then)], otherwise })
    }

    fn window(&mut self) -> Result<Window, SqlError> {
        self.expect_symbol("(")?;
        let mut window = Window::default();
        if self.eat_words(&["PARTITION", "BY"]) {
            window.partition = self.expressions()?;
        }
        if self.is("ORDER") {
            window.order = self.order_by()?;
        }
        self.expect_symbol(")")?;
        Ok(window)
    }
}

/// A plain call of a function.
fn call(name: &str, arguments: Vec<Expression>) -> Expression {
    Expression::Call(Box::new(Call { name: name.to_owned(), arguments, distinct: false, star: false, over: None }))
}
