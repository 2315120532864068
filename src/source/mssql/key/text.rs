//! Key texts from the values of decoded rows.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

use super::{KeyColumn, KeyError};
use crate::source::mssql::calendar::{DAY_MICROSECONDS, ShortText};
use crate::source::mssql::column::SqlType;
use crate::source::mssql::statements::binary_literal;

impl KeyColumn {
    /// The key text of a value of a decoded batch, exactly.
    ///
    /// # Errors
    /// When the value is NULL, or the array is not what [`KeyColumn::plan`] makes.
    pub fn text(&self, array: &dyn Array, row: usize) -> Result<String, KeyError> {
        if row >= array.len() || array.is_null(row) {
            return Err(KeyError::Null { column: self.name().to_owned() });
        }
        Ok(match array.data_type() {
            DataType::Boolean => u8::from(array.as_boolean().value(row)).to_string(),
            DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
            DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
            DataType::Int64 => self.wide(array.as_primitive::<Int64Type>().value(row)),
            DataType::Decimal128(_, scale) => decimal(array.as_primitive::<Decimal128Type>().value(row), *scale),
            DataType::Date32 => {
                ShortText::new().date(i64::from(array.as_primitive::<Date32Type>().value(row))).to_string()
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.moment(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row).to_owned(),
            DataType::Utf8View => array.as_string_view().value(row).to_owned(),
            DataType::Binary => binary_literal(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => binary_literal(array.as_binary::<i64>().value(row)),
            DataType::BinaryView => binary_literal(array.as_binary_view().value(row)),
            other => {
                return Err(KeyError::Array { column: self.name().to_owned(), found: other.to_string() });
            }
        })
    }

    /// A 64-bit number, or a time of day in microseconds.
    fn wide(&self, value: i64) -> String {
        match self.sql_type() {
            SqlType::Time { scale } => {
                let steps = at_scale(value.unsigned_abs(), *scale);
                ShortText::new().time(steps, *scale).to_string()
            }
            _ => value.to_string(),
        }
    }

    /// A moment with exactly the digits its type has: more would be rounded, or refused, by the server.
    fn moment(&self, microseconds: i64) -> String {
        let day = microseconds.div_euclid(DAY_MICROSECONDS);
        let of_day = microseconds.rem_euclid(DAY_MICROSECONDS).unsigned_abs();
        let (scale, offset) = match self.sql_type() {
            SqlType::SmallDateTime => (0, false),
            SqlType::DateTime => (3, false),
            SqlType::DateTime2 { scale } => (*scale, false),
            SqlType::DateTimeOffset { scale } => (*scale, true),
            _ => (6, false),
        };
        let mut text = ShortText::new();
        text.date(day).push(b'T').time(at_scale(of_day, scale), scale);
        if offset {
            text.offset(0);
        }
        text.to_string()
    }
}

/// Microseconds in steps of `scale` digits of a second.
fn at_scale(microseconds: u64, scale: u8) -> u64 {
    match scale {
        0..=5 => microseconds / 10_u64.pow(6 - u32::from(scale)),
        6 => microseconds,
        _ => microseconds * 10,
    }
}

/// A decimal with all its digits: `-0.0012`.
fn decimal(unscaled: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or_default();
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}
