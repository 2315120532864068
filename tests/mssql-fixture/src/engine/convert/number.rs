//! Conversions into numbers, and the arithmetic of decimals.

use super::number_text::{parse_decimal, parse_float};
use super::{impossible, type_name};
use crate::engine::error::SqlError;
use crate::value::{SqlType, Value};

/// 10^0 to 10^38.
pub(crate) fn power_of_ten(exponent: u8) -> i128 {
    10i128.checked_pow(u32::from(exponent)).unwrap_or(i128::MAX)
}

/// Changes the scale of a number; digits that fall off round half away from zero. `None` when it overflows.
pub(crate) fn rescale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return unscaled.checked_mul(power_of_ten(to - from));
    }
    let divisor = power_of_ten(from - to);
    let (quotient, rest) = (unscaled / divisor, unscaled % divisor);
    let up = rest.unsigned_abs() * 2 >= divisor.unsigned_abs();
    Some(if up { quotient + unscaled.signum() } else { quotient })
}

fn truncate(unscaled: i128, from: u8) -> i128 {
    unscaled / power_of_ten(from)
}

/// Whether a number has no more digits than the precision allows.
pub(crate) fn fits(unscaled: i128, precision: u8) -> bool {
    unscaled.unsigned_abs() < power_of_ten(precision).unsigned_abs()
}

fn overflow(to: &SqlType) -> SqlError {
    SqlError::new(8115, 16, format!("Arithmetic overflow error converting expression to data type {}.", type_name(to)))
}

/// The value as an exact number, for every type that is one.
pub(crate) fn decimal_parts(value: &Value) -> Option<(i128, u8)> {
    match value {
        Value::Bit(bit) => Some((i128::from(*bit), 0)),
        Value::Int(number) => Some((i128::from(*number), 0)),
        Value::Money(number) => Some((i128::from(*number), 4)),
        Value::Decimal { unscaled, scale } => Some((*unscaled, *scale)),
        _ => None,
    }
}

fn float_of(value: &Value) -> Option<f64> {
    match value {
        Value::Real(number) => Some(f64::from(*number)),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

/// Big-endian bytes as a number: the last eight count.
fn number_of(bytes: &[u8]) -> i64 {
    bytes.iter().rev().take(8).rev().fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

pub(super) fn to_bit(value: &Value, from: &SqlType) -> Result<Value, SqlError> {
    if let Value::Text(text) = value {
        return match text.trim() {
            word if word.eq_ignore_ascii_case("true") => Ok(Value::Bit(true)),
            word if word.eq_ignore_ascii_case("false") => Ok(Value::Bit(false)),
            word => {
                word.parse::<i64>().map(|number| Value::Bit(number != 0)).map_err(|_| failed(text, from, &SqlType::Bit))
            }
        };
    }
    if let Value::Bytes(bytes) = value {
        return Ok(Value::Bit(number_of(bytes) != 0));
    }
    let set = decimal_parts(value).map(|(number, _)| number != 0).or(float_of(value).map(|number| number != 0.0));
    set.map(Value::Bit).ok_or_else(|| impossible(from, &SqlType::Bit))
}

fn failed(text: &str, from: &SqlType, to: &SqlType) -> SqlError {
    SqlError::new(
        245,
        16,
        format!(
            "Conversion failed when converting the {} value '{text}' to data type {}.",
            type_name(from),
            type_name(to)
        ),
    )
}

/// The range of an integer type.
fn range(to: &SqlType) -> (i64, i64) {
    match to {
        SqlType::TinyInt => (0, 255),
        SqlType::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
        SqlType::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

pub(super) fn to_integer(value: &Value, from: &SqlType, to: &SqlType) -> Result<Value, SqlError> {
    let (low, high) = range(to);
    let number: i128 = match value {
        Value::Text(text) if text.trim().is_empty() => 0,
        Value::Text(text) => {
            let trimmed = text.trim();
            trimmed.strip_prefix('+').unwrap_or(trimmed).parse().map_err(|_| failed(text, from, to))?
        }
        Value::Bytes(bytes) => match to {
            SqlType::TinyInt => i128::from(number_of(bytes) & 0xFF),
            #[expect(clippy::cast_possible_truncation, reason = "binary keeps its low bytes")]
            SqlType::SmallInt => i128::from(number_of(bytes) as i16),
            #[expect(clippy::cast_possible_truncation, reason = "binary keeps its low bytes")]
            SqlType::Int => i128::from(number_of(bytes) as i32),
            _ => i128::from(number_of(bytes)),
        },
        other => match (decimal_parts(other), float_of(other)) {
            (Some((unscaled, scale)), _) => {
                // Money rounds, decimals are cut.
                if matches!(other, Value::Money(_)) {
                    rescale(unscaled, scale, 0).unwrap_or(0)
                } else {
                    truncate(unscaled, scale)
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "floats are cut; the range is checked below")]
            (_, Some(float)) => float as i128,
            _ => {
                return match other {
                    Value::DateTime { days, ticks } => {
                        Ok(Value::Int(i64::from(*days) + i64::from(*ticks >= 12_960_000)))
                    }
                    _ => Err(impossible(from, to)),
                };
            }
        },
    };
    let number = i64::try_from(number).ok().filter(|number| (low..=high).contains(number));
    number.map(Value::Int).ok_or_else(|| match (value, to) {
        (Value::Text(text), SqlType::Int) => SqlError::new(
            248,
            16,
            format!("The conversion of the {} value '{text}' overflowed an int column.", type_name(from)),
        ),
        (Value::Int(number), SqlType::TinyInt | SqlType::SmallInt) => SqlError::new(
            220,
            16,
            format!("Arithmetic overflow error for data type {}, value = {number}.", type_name(to)),
        ),
        _ => overflow(to),
    })
}

pub(super) fn to_decimal(value: &Value, from: &SqlType, precision: u8, scale: u8) -> Result<Value, SqlError> {
    let to = SqlType::Decimal { precision, scale };
    let parsed = match value {
        Value::Text(text) => Some(parse_decimal(text.trim()).ok_or_else(|| {
            SqlError::new(8114, 16, format!("Error converting data type {} to numeric.", type_name(from)))
        })?),
        other => decimal_parts(other),
    };
    let unscaled = match (parsed, float_of(value)) {
        (Some((unscaled, has)), _) => rescale(unscaled, has, scale),
        (None, Some(float)) => float_to_decimal(float, scale),
        _ => return Err(impossible(from, &to)),
    };
    match unscaled.filter(|unscaled| fits(*unscaled, precision)) {
        Some(unscaled) => Ok(Value::Decimal { unscaled, scale }),
        None => Err(SqlError::new(
            8115,
            16,
            format!("Arithmetic overflow error converting {} to data type numeric.", type_name(from)),
        )),
    }
}

fn float_to_decimal(float: f64, scale: u8) -> Option<i128> {
    if !float.is_finite() || float.abs() >= 1e38 {
        return None;
    }
    let (unscaled, has) = parse_decimal(&format!("{float:.0$}", usize::from(scale)))?;
    rescale(unscaled, has, scale)
}

pub(super) fn to_money(value: &Value, from: &SqlType, to: &SqlType) -> Result<Value, SqlError> {
    let parsed = match value {
        Value::Text(text) => {
            let plain: String = text.trim().chars().filter(|c| !matches!(c, ',' | '$')).collect();
            Some(parse_decimal(&plain).ok_or_else(|| {
                SqlError::new(235, 16, "Cannot convert a char value to money. The char value has incorrect syntax.")
            })?)
        }
        Value::Bytes(bytes) => Some((i128::from(number_of(bytes)), 4)),
        other => decimal_parts(other),
    };
    let unscaled = match (parsed, float_of(value)) {
        (Some((unscaled, has)), _) => rescale(unscaled, has, 4),
        (None, Some(float)) => float_to_decimal(float, 4),
        _ => return Err(impossible(from, to)),
    };
    let number = unscaled.and_then(|unscaled| i64::try_from(unscaled).ok());
    let small = *to == SqlType::SmallMoney;
    number.filter(|number| !small || i32::try_from(*number).is_ok()).map(Value::Money).ok_or_else(|| overflow(to))
}

pub(super) fn to_float(value: &Value, from: &SqlType, to: &SqlType) -> Result<Value, SqlError> {
    let number = match value {
        Value::Text(text) => parse_float(text.trim()).ok_or_else(|| {
            SqlError::new(8114, 16, format!("Error converting data type {} to {}.", type_name(from), type_name(to)))
        })?,
        other => match (float_of(other), decimal_parts(other)) {
            (Some(float), _) => float,
            #[expect(clippy::cast_precision_loss, reason = "a float holds what it can")]
            (_, Some((unscaled, scale))) => parse_float(&format!("{unscaled}e-{scale}")).unwrap_or(unscaled as f64),
            _ => return Err(impossible(from, to)),
        },
    };
    if *to == SqlType::Real {
        #[expect(clippy::cast_possible_truncation, reason = "real is the narrower type; its range is checked here")]
        let real = number as f32;
        return if real.is_finite() { Ok(Value::Real(real)) } else { Err(overflow(to)) };
    }
    Ok(Value::Float(number))
}
