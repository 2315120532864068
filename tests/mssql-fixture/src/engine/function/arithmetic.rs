//! Operators and functions over numbers.

use super::Call;
use crate::engine::ast::Operator;
use crate::engine::convert::{Manner, convert, decimal_parts, fits, power_of_ten, rescale};
use crate::engine::error::SqlError;
use crate::value::{SqlType, Value};

fn overflow(result: &SqlType) -> SqlError {
    let name = crate::engine::convert::type_name(result);
    SqlError::new(8115, 16, format!("Arithmetic overflow error converting expression to data type {name}."))
}

/// Applies an operator. Integers, money and floats come in their common type; decimals in whatever exact type they
/// have.
pub(super) fn operate(operator: Operator, values: &[Value], result: &SqlType) -> Result<Value, SqlError> {
    let [left, right] = values else { return Ok(Value::Null) };
    if left.is_null() || right.is_null() {
        return Ok(Value::Null);
    }
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => integers(operator, *left, *right, result),
        (Value::Bit(left), Value::Bit(right)) => Ok(match operator {
            Operator::BitAnd => Value::Bit(*left && *right),
            Operator::BitOr => Value::Bit(*left || *right),
            _ => Value::Bit(left != right),
        }),
        (Value::Real(_) | Value::Float(_), Value::Real(_) | Value::Float(_)) => {
            floats(operator, float(left), float(right), result)
        }
        (Value::DateTime { .. } | Value::SmallDateTime { .. }, _) => days(operator, left, right, result),
        _ => match (decimal_parts(left), decimal_parts(right)) {
            (Some(left), Some(right)) => decimals(operator, left, right, result),
            _ => Err(SqlError::new(402, 16, "The data types are incompatible in the operator.")),
        },
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Real(number) => f64::from(*number),
        Value::Float(number) => *number,
        _ => 0.0,
    }
}

fn integers(operator: Operator, left: i64, right: i64, result: &SqlType) -> Result<Value, SqlError> {
    let number = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Modulo if right == 0 => return Err(SqlError::known(8134)),
        Operator::Divide => left.checked_div(right),
        Operator::Modulo => left.checked_rem(right),
        Operator::BitAnd => Some(left & right),
        Operator::BitOr => Some(left | right),
        _ => Some(left ^ right),
    };
    let number = number.ok_or_else(|| overflow(result))?;
    convert(Value::Int(number), &SqlType::BigInt, result, &Manner::default()).map_err(|_| overflow(result))
}

fn floats(operator: Operator, left: f64, right: f64, result: &SqlType) -> Result<Value, SqlError> {
    let number = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide if right == 0.0 => return Err(SqlError::known(8134)),
        Operator::Divide => left / right,
        _ => left % right,
    };
    if !number.is_finite() {
        return Err(overflow(result));
    }
    convert(Value::Float(number), &SqlType::Float, result, &Manner::default())
}

fn decimals(operator: Operator, left: (i128, u8), right: (i128, u8), result: &SqlType) -> Result<Value, SqlError> {
    let scale = match result {
        SqlType::Decimal { scale, .. } => *scale,
        _ => 4,
    };
    let common = left.1.max(right.1);
    let aligned = |(unscaled, has): (i128, u8)| rescale(unscaled, has, common);
    let pair = || aligned(left).zip(aligned(right));
    let zero = right.0 == 0 && matches!(operator, Operator::Divide | Operator::Modulo);
    if zero {
        return Err(SqlError::known(8134));
    }
    let unscaled = match operator {
        Operator::Add => pair().and_then(|(l, r)| l.checked_add(r)).and_then(|sum| rescale(sum, common, scale)),
        Operator::Subtract => pair().and_then(|(l, r)| l.checked_sub(r)).and_then(|sum| rescale(sum, common, scale)),
        Operator::Multiply => {
            left.0.checked_mul(right.0).and_then(|product| rescale(product, left.1.saturating_add(right.1), scale))
        }
        Operator::Modulo => pair().map(|(l, r)| l % r).and_then(|rest| rescale(rest, common, scale)),
        _ => {
            // Enough digits that the quotient has the result's scale; what falls off is cut, as SQL Server does.
            let shift = i32::from(scale) + i32::from(right.1) - i32::from(left.1);
            match u8::try_from(shift) {
                Ok(shift) if shift <= 38 => left.0.checked_mul(power_of_ten(shift)).map(|number| number / right.0),
                _ => Some(left.0 / right.0),
            }
        }
    };
    let unscaled = unscaled.ok_or_else(|| overflow(result))?;
    match result {
        SqlType::Decimal { precision, scale } if fits(unscaled, *precision) => {
            Ok(Value::Decimal { unscaled, scale: *scale })
        }
        SqlType::Decimal { .. } => Err(overflow(result)),
        _ => i64::try_from(unscaled).map(Value::Money).map_err(|_| overflow(result)),
    }
}

/// `datetime + 1` is a day later.
fn days(operator: Operator, left: &Value, right: &Value, result: &SqlType) -> Result<Value, SqlError> {
    let (Value::DateTime { days, ticks }, Value::DateTime { days: more, ticks: less }) = (left, right) else {
        return Err(SqlError::new(402, 16, "The data types are incompatible in the operator."));
    };
    let moment = |days: i32, ticks: u32| i64::from(days) * 25_920_000 + i64::from(ticks);
    let number = match operator {
        Operator::Add => moment(*days, *ticks) + moment(*more, *less),
        _ => moment(*days, *ticks) - moment(*more, *less),
    };
    Ok(Value::DateTime {
        days: i32::try_from(number.div_euclid(25_920_000)).map_err(|_| overflow(result))?,
        ticks: u32::try_from(number.rem_euclid(25_920_000)).unwrap_or(0),
    })
}

pub(super) fn negate(value: &Value, result: &SqlType) -> Result<Value, SqlError> {
    match value {
        Value::Int(number) => {
            let number = number.checked_neg().ok_or_else(|| overflow(result))?;
            convert(Value::Int(number), &SqlType::BigInt, result, &Manner::default())
        }
        Value::Real(number) => Ok(Value::Real(-number)),
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Decimal { unscaled, scale } => Ok(Value::Decimal { unscaled: -unscaled, scale: *scale }),
        Value::Money(number) => Ok(Value::Money(number.wrapping_neg())),
        _ => Ok(Value::Null),
    }
}

/// ABS, SIGN, FLOOR, CEILING, ROUND, POWER, SQRT; `None` when the name is another's.
pub(super) fn call(name: &str, call: &Call, values: &[Value]) -> Result<Option<Value>, SqlError> {
    let Some(first) = values.first() else { return Ok(None) };
    let known = ["ABS", "SIGN", "FLOOR", "CEILING", "ROUND", "POWER", "SQRT"];
    if !known.contains(&name) {
        return Ok(None);
    }
    if values.iter().any(Value::is_null) {
        return Ok(Some(Value::Null));
    }
    let to = |value, from: &SqlType| convert(value, from, &call.result, &Manner::default()).map(Some);
    if let "POWER" | "SQRT" = name {
        let exponent = values.get(1).map_or(0.5, float);
        return to(Value::Float(float(first).powf(exponent)), &SqlType::Float);
    }
    if let Value::Real(_) | Value::Float(_) = first {
        let number = float(first);
        let number = match (name, values.get(1)) {
            ("ABS", _) => number.abs(),
            ("SIGN", _) => {
                if number == 0.0 {
                    0.0
                } else {
                    number.signum()
                }
            }
            ("FLOOR", _) => number.floor(),
            ("CEILING", _) => number.ceil(),
            (_, Some(Value::Int(places))) => {
                let factor = 10f64.powi(i32::try_from(*places).unwrap_or(0));
                (number * factor).round() / factor
            }
            _ => number,
        };
        return to(Value::Float(number), &SqlType::Float);
    }
    let Some((unscaled, scale)) = decimal_parts(first) else { return Ok(Some(Value::Null)) };
    let unit = power_of_ten(scale);
    let unscaled = match (name, values.get(1)) {
        ("ABS", _) => unscaled.abs(),
        ("SIGN", _) => unscaled.signum() * unit,
        ("FLOOR", _) => unscaled.div_euclid(unit) * unit,
        ("CEILING", _) => -(-unscaled).div_euclid(unit) * unit,
        (_, Some(Value::Int(places))) => {
            let drop = i64::from(scale) - places;
            match u8::try_from(drop) {
                Ok(drop) if drop > 0 => rescale(unscaled, drop, 0).unwrap_or(0).saturating_mul(power_of_ten(drop)),
                _ => unscaled,
            }
        }
        _ => unscaled,
    };
    to(Value::Decimal { unscaled, scale }, &SqlType::Decimal { precision: 38, scale })
}
