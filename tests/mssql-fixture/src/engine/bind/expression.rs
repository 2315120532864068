//! Binds expressions and conditions.

use super::{Binder, Bound, Sorting, SourceColumn, kind};
use crate::collation::Collation;
use crate::engine::ast::{Expression, Operator};
use crate::engine::error::SqlError;
use crate::engine::function::{Call, Function};
use crate::engine::storage::store;
use crate::value::{SqlType, Value};

/// The terms of `a AND b AND c`, so that long chains do not nest.
fn chained(expression: &Expression, wanted: Operator) -> Vec<&Expression> {
    let mut terms = Vec::new();
    let mut rest = expression;
    while let Expression::Operation { operator, left, right } = rest
        && *operator == wanted
    {
        terms.push(right.as_ref());
        rest = left;
    }
    terms.push(rest);
    terms.reverse();
    terms
}

/// The stronger of two sortings.
fn stronger(left: &Sorting, right: &Sorting) -> Sorting {
    match (left, right) {
        (Sorting::Explicit(_), _) | (_, Sorting::Default) => left.clone(),
        (_, Sorting::Explicit(_)) | (Sorting::Default, _) => right.clone(),
        (Sorting::Implicit(one), Sorting::Implicit(other)) if one == other => left.clone(),
        _ => Sorting::Conflict,
    }
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Or => "OR",
        Operator::And => "AND",
        Operator::Equal => "=",
        Operator::NotEqual => "<>",
        Operator::Less => "<",
        Operator::LessOrEqual => "<=",
        Operator::Greater => ">",
        _ => ">=",
    }
}

impl Binder<'_> {
    pub(super) fn bound_column(column: SourceColumn) -> Bound {
        let sorting =
            if column.sql_type.is_text() { Sorting::Implicit(column.collation.clone()) } else { Sorting::Default };
        Bound {
            nullable: column.nullable,
            sorting,
            ..Bound { column: Some(column.clone()), ..Bound::of(column.sql.clone(), column.sql_type) }
        }
    }

    pub(super) fn expression(&mut self, expression: &Expression) -> Result<Bound, SqlError> {
        match expression {
            Expression::Null => Ok(Bound::null()),
            Expression::Default => Err(SqlError::syntax("DEFAULT", 1)),
            Expression::Text { value, national } => Ok(text_literal(value, *national)),
            Expression::Number(number) => number_literal(number),
            Expression::Money(number) => {
                let value =
                    self.converted(Value::Text(number.clone()), &SqlType::NVarChar { length: None }, &SqlType::Money)?;
                Ok(Bound::constant(value, SqlType::Money))
            }
            Expression::Binary(bytes) => {
                let length = u16::try_from(bytes.len().max(1)).ok().filter(|length| *length <= 8000);
                Ok(Bound::constant(Value::Bytes(bytes.clone()), SqlType::VarBinary { length }))
            }
            Expression::Column(name) => self.resolve(name).map(Self::bound_column),
            Expression::Variable(name) => self.variable_value(name),
            Expression::Negate(value) => {
                let value = self.expression(value)?;
                let result = value.kind();
                let call = self.plain(Function::Negate, vec![result.clone()], result);
                self.call(call, &[value])
            }
            Expression::BitNot(value) => {
                let value = self.expression(value)?;
                let result = value.kind();
                let call = self.plain(Function::BitNot, vec![result.clone()], result);
                self.call(call, &[value])
            }
            Expression::Operation { operator, left, right } => self.operation(*operator, left, right),
            Expression::Scalar(query) => {
                let query = self.query(query)?;
                let [column] = query.columns.as_slice() else {
                    return Err(SqlError::new(
                        116,
                        16,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let sorting = column.sorting();
                Ok(Bound { sorting, ..Bound::of(format!("({})", query.sql), column.sql_type.clone()) })
            }
            Expression::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref())
            }
            Expression::Cast { value, to, style, tolerant } => self.conversion(value, to, style.as_deref(), *tolerant),
            Expression::Call(call) => self.function(call),
            Expression::Collate { value, collation } => {
                let value = self.expression(value)?;
                let collation = Collation::parse(collation)
                    .ok_or_else(|| SqlError::new(448, 16, format!("Invalid collation '{collation}'.")))?;
                Ok(Bound { sorting: Sorting::Explicit(collation), column: None, ..value })
            }
            Expression::Method { value, name } => self.method(value, name),
            Expression::Not(_)
            | Expression::Between { .. }
            | Expression::InList { .. }
            | Expression::InQuery { .. }
            | Expression::Like { .. }
            | Expression::IsNull { .. }
            | Expression::Exists(_) => {
                Err(SqlError::new(4145, 15, "An expression of boolean type is specified where a value is expected."))
            }
        }
    }

    fn plain(&self, function: Function, arguments: Vec<SqlType>, result: SqlType) -> Call {
        Call { function, arguments, result, collation: self.catalog.database.collation.clone() }
    }

    fn variable_value(&mut self, name: &str) -> Result<Bound, SqlError> {
        if name.starts_with("@@") {
            return self.global(name);
        }
        let variable = self.variable(name)?;
        let key = name.to_lowercase();
        let number = match self.bound_variables.get(&key) {
            Some(number) => *number,
            None => {
                self.parameters.push(store(&variable.value));
                self.bound_variables.insert(key, self.parameters.len());
                self.parameters.len()
            }
        };
        Ok(Bound::of(format!("?{number}"), variable.sql_type.clone()))
    }

    fn operation(&mut self, operator: Operator, left: &Expression, right: &Expression) -> Result<Bound, SqlError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let (left_type, right_type) = match (&left.sql_type, &right.sql_type) {
            (None, None) => (SqlType::Int, SqlType::Int),
            (None, Some(one)) | (Some(one), None) => (one.clone(), one.clone()),
            (Some(left), Some(right)) => (left.clone(), right.clone()),
        };
        if operator == Operator::Add && left_type.is_text() && right_type.is_text() {
            let sorting = stronger(&left.sorting, &right.sorting);
            let sql_type = kind::concatenated(&left_type, &right_type);
            let nullable = left.nullable || right.nullable;
            let sql = format!("({} || {})", left.sql, right.sql);
            return Ok(Bound { sorting, nullable, ..Bound::of(sql, sql_type) });
        }
        if operator == Operator::Add && left_type.is_binary() && right_type.is_binary() {
            let sql = format!("CAST({} || {} AS BLOB)", left.sql, right.sql);
            return Ok(Bound::of(sql, kind::common(&left_type, &right_type)));
        }
        let (left_type, right_type) =
            (short(&left, left_type.clone(), &right_type), short(&right, right_type, &left_type));
        let result = kind::arithmetic(operator, &left_type, &right_type).ok_or_else(|| {
            let name = crate::engine::convert::type_name;
            SqlError::new(
                402,
                16,
                format!(
                    "The data types {} and {} are incompatible in the operator.",
                    name(&left_type),
                    name(&right_type)
                ),
            )
        })?;
        // Decimals keep their own scales; everything else meets in the result's type.
        let (left, right) = if matches!(result, SqlType::Decimal { .. }) {
            (self.as_exact(left, &result)?, self.as_exact(right, &result)?)
        } else {
            (self.cast(left, &result, 0, false)?, self.cast(right, &result, 0, false)?)
        };
        let arguments = vec![left.kind(), right.kind()];
        let call = self.plain(Function::Arithmetic(operator), arguments, result);
        self.call(call, &[left, right])
    }

    fn as_exact(&mut self, bound: Bound, result: &SqlType) -> Result<Bound, SqlError> {
        match &bound.sql_type {
            Some(sql_type) if kind::as_decimal(sql_type).is_some() => Ok(bound),
            _ => self.cast(bound, result, 0, false),
        }
    }

    fn case(
        &mut self,
        operand: Option<&Expression>,
        branches: &[(Expression, Expression)],
        otherwise: Option<&Expression>,
    ) -> Result<Bound, SqlError> {
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for (when, then) in branches {
            conditions.push(match operand {
                Some(operand) => self.comparison(Operator::Equal, operand, when)?,
                None => self.condition(when)?,
            });
            results.push(self.expression(then)?);
        }
        let has_otherwise = otherwise.is_some();
        results.push(match otherwise {
            Some(otherwise) => self.expression(otherwise)?,
            None => Bound::null(),
        });
        let (results, sql_type, sorting) = self.same_type(results)?;
        let mut sql = "CASE".to_owned();
        for (condition, result) in conditions.iter().zip(&results) {
            sql.push_str(&format!(" WHEN {condition} THEN {}", result.sql));
        }
        if let (Some(last), true) = (results.last(), has_otherwise) {
            sql.push_str(&format!(" ELSE {}", last.sql));
        }
        sql.push_str(" END");
        let nullable = results.iter().any(|result| result.nullable);
        Ok(Bound { sorting, nullable, ..Bound::of(format!("({sql})"), sql_type) })
    }

    /// Brings all to their common type.
    pub(super) fn same_type(&mut self, all: Vec<Bound>) -> Result<(Vec<Bound>, SqlType, Sorting), SqlError> {
        let common = all.iter().filter_map(|bound| bound.sql_type.clone()).reduce(|l, r| kind::common(&l, &r));
        let common = common.unwrap_or(SqlType::Int);
        let sorting = all.iter().map(|bound| bound.sorting.clone()).reduce(|l, r| stronger(&l, &r));
        let cast = all.into_iter().map(|bound| self.cast(bound, &common, 0, false)).collect::<Result<Vec<_>, _>>()?;
        Ok((cast, common, sorting.unwrap_or(Sorting::Default)))
    }

    fn conversion(
        &mut self,
        value: &Expression,
        to: &SqlType,
        style: Option<&Expression>,
        tolerant: bool,
    ) -> Result<Bound, SqlError> {
        let value = self.expression(value)?;
        match style {
            None => self.cast(value, to, 0, tolerant),
            Some(Expression::Number(style)) => {
                let style = style.parse().map_err(|_| SqlError::syntax(style, 1))?;
                self.cast(value, to, style, tolerant)
            }
            Some(style) => {
                let style = self.expression(style)?;
                let style = self.cast(style, &SqlType::Int, 0, false)?;
                let collation = self.collation_of(&value);
                let arguments = vec![value.kind(), SqlType::Int];
                let call = Call { function: Function::CastStyled, arguments, result: to.clone(), collation };
                self.call(call, &[value, style])
            }
        }
    }

    /// `.ToString()` and `.STAsText()` give the text that is stored anyway.
    fn method(&mut self, value: &Expression, name: &str) -> Result<Bound, SqlError> {
        let value = self.expression(value)?;
        match name.to_ascii_lowercase().as_str() {
            "tostring" | "stastext" | "astextzm" => {
                Ok(Bound { sql_type: Some(SqlType::NVarChar { length: None }), column: None, ..value })
            }
            "stasbinary" | "asbinaryzm" => self.named("FX_WKB", SqlType::VarBinary { length: None }, vec![value]),
            "stsrid" => {
                Ok(Bound::of(format!("(CASE WHEN {} IS NULL THEN NULL ELSE 4326 END)", value.sql), SqlType::Int))
            }
            _ => Err(SqlError::new(6506, 16, format!("Could not find method '{name}' for the type."))),
        }
    }

    pub(super) fn condition(&mut self, expression: &Expression) -> Result<String, SqlError> {
        match expression {
            Expression::Operation { operator: operator @ (Operator::And | Operator::Or), .. } => {
                let mut terms = Vec::new();
                for term in chained(expression, *operator) {
                    terms.push(self.condition(term)?);
                }
                Ok(format!("({})", terms.join(&format!(" {} ", symbol(*operator)))))
            }
            Expression::Operation {
                operator:
                    operator @ (Operator::Equal
                    | Operator::NotEqual
                    | Operator::Less
                    | Operator::LessOrEqual
                    | Operator::Greater
                    | Operator::GreaterOrEqual),
                left,
                right,
            } => self.comparison(*operator, left, right),
            Expression::Not(inner) => Ok(format!("(NOT {})", self.condition(inner)?)),
            Expression::Between { value, low, high, negated } => {
                let low = self.comparison(Operator::GreaterOrEqual, value, low)?;
                let high = self.comparison(Operator::LessOrEqual, value, high)?;
                Ok(format!("({}({low} AND {high}))", if *negated { "NOT " } else { "" }))
            }
            Expression::InList { value, list, negated } => self.in_list(value, list, *negated),
            Expression::InQuery { value, query, negated } => self.in_query(value, query, *negated),
            Expression::Like { value, pattern, escape, negated } => {
                let mut arguments = Vec::new();
                for argument in [Some(value), Some(pattern), escape.as_ref()].into_iter().flatten() {
                    let bound = self.expression(argument)?;
                    arguments.push(self.as_text(bound)?);
                }
                let collation = arguments.first().map_or_else(Collation::default, |value| self.collation_of(value));
                let types = arguments.iter().map(Bound::kind).collect();
                let call = Call { function: Function::Like, arguments: types, result: SqlType::Bit, collation };
                let like = self.call(call, &arguments)?;
                Ok(format!("({}{})", if *negated { "NOT " } else { "" }, like.sql))
            }
            Expression::IsNull { value, negated } => {
                let value = self.expression(value)?;
                Ok(format!("({} IS {}NULL)", value.sql, if *negated { "NOT " } else { "" }))
            }
            Expression::Exists(query) => Ok(format!("EXISTS ({})", self.query(query)?.sql)),
            _ => Err(SqlError::new(
                4145,
                15,
                "An expression of non-boolean type specified in a context where a condition is expected.",
            )),
        }
    }

    pub(super) fn as_text(&mut self, bound: Bound) -> Result<Bound, SqlError> {
        match &bound.sql_type {
            Some(sql_type) if sql_type.is_text() => Ok(bound),
            _ => self.cast(bound, &SqlType::NVarChar { length: None }, 0, false),
        }
    }

    fn comparison(&mut self, operator: Operator, left: &Expression, right: &Expression) -> Result<String, SqlError> {
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let sorting = stronger(&left.sorting, &right.sorting);
        let (left, right, common) = self.unify(left, right)?;
        // A collation behind the right side rules the comparison, and an index of that collation still serves it.
        let collate = self.sorted(&common, &sorting)?;
        Ok(format!("({} {} {}{collate})", left.sql, symbol(operator), right.sql))
    }

    /// A list of values of the same stored form is one IN of SQLite; otherwise each is compared by itself.
    fn in_list(&mut self, value: &Expression, list: &[Expression], negated: bool) -> Result<String, SqlError> {
        let not = if negated { "NOT " } else { "" };
        let bound = self.expression(value)?;
        let mut sorting = bound.sorting.clone();
        let (mut items, mut kept) = (Vec::new(), bound.kind());
        for item in list {
            let item = self.expression(item)?;
            sorting = stronger(&sorting, &item.sorting);
            let (left, right, common) = self.unify(bound.clone(), item)?;
            if left.sql != bound.sql {
                let any = list
                    .iter()
                    .map(|item| self.comparison(Operator::Equal, value, item))
                    .collect::<Result<Vec<_>, _>>()?;
                return Ok(format!("({not}({}))", any.join(" OR ")));
            }
            kept = common;
            items.push(right.sql);
        }
        let collate = self.sorted(&kept, &sorting)?;
        Ok(format!("({}{collate} {not}IN ({}))", bound.sql, items.join(", ")))
    }

    fn in_query(
        &mut self,
        value: &Expression,
        query: &crate::engine::ast::Query,
        negated: bool,
    ) -> Result<String, SqlError> {
        let value = self.expression(value)?;
        let query = self.query(query)?;
        let [column] = query.columns.as_slice() else {
            return Err(SqlError::new(116, 16, "Only one expression can be specified in the select list of IN."));
        };
        let inner = Bound { sorting: column.sorting(), ..Bound::of("q1", column.sql_type.clone()) };
        let sorting = stronger(&value.sorting, &inner.sorting);
        let (value, inner, common) = self.unify(value, inner)?;
        let collate = self.sorted(&common, &sorting)?;
        let not = if negated { "NOT " } else { "" };
        Ok(format!("({}{collate} {not}IN (SELECT {} FROM ({})))", value.sql, inner.sql, query.sql))
    }
}

/// A whole number written beside a decimal is a decimal of just its digits.
fn short(bound: &Bound, own: SqlType, other: &SqlType) -> SqlType {
    match (&bound.constant, other) {
        (Some(Value::Int(number)), SqlType::Decimal { .. }) if own == SqlType::Int => {
            let digits = number.unsigned_abs().max(1).ilog10() + 1;
            SqlType::Decimal { precision: u8::try_from(digits).unwrap_or(10), scale: 0 }
        }
        _ => own,
    }
}

fn text_literal(value: &str, national: bool) -> Bound {
    let length = u16::try_from(if national { value.encode_utf16().count() } else { value.chars().count() }.max(1)).ok();
    let sql_type = if national {
        SqlType::NVarChar { length: length.filter(|length| *length <= 4000) }
    } else {
        SqlType::VarChar { length: length.filter(|length| *length <= 8000) }
    };
    Bound::constant(Value::Text(value.to_owned()), sql_type)
}

/// A number is an int, a decimal or, with an exponent, a float.
fn number_literal(number: &str) -> Result<Bound, SqlError> {
    let bad = || SqlError::syntax(number, 1);
    if number.contains(['e', 'E']) {
        return Ok(Bound::constant(Value::Float(number.parse().map_err(|_| bad())?), SqlType::Float));
    }
    if !number.contains('.')
        && let Ok(small) = number.parse::<i32>()
    {
        return Ok(Bound::constant(Value::Int(i64::from(small)), SqlType::Int));
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let unscaled: i128 = digits.parse().map_err(|_| bad())?;
    let all = digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1);
    let (precision, scale) = (u8::try_from(all).map_err(|_| bad())?, u8::try_from(fraction.len()).map_err(|_| bad())?);
    if precision > 38 {
        return Err(SqlError::new(
            1007,
            15,
            format!("The number '{number}' is out of the range for numeric representation."),
        ));
    }
    Ok(Bound::constant(Value::Decimal { unscaled, scale }, SqlType::Decimal { precision, scale }))
}
