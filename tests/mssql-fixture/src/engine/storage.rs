//! How values lie in SQLite: in a form that is exact and that SQLite orders as SQL Server orders the type.
//!
//! | type | SQLite | form |
//! |---|---|---|
//! | bit, integers, money | INTEGER | the number; money in ten-thousandths |
//! | real, float | REAL | |
//! | decimal | BLOB | the unscaled number, 16 bytes big-endian with the sign bit turned, so that bytes order as numbers |
//! | texts | TEXT | with the column's collation registered in SQLite |
//! | binaries | BLOB | |
//! | date | INTEGER | days since 0001-01-01 |
//! | time | INTEGER | 100 ns |
//! | datetime | INTEGER | 1/300 s since 1900-01-01 |
//! | smalldatetime | INTEGER | minutes since 1900-01-01 |
//! | datetime2 | INTEGER | 100 ns since 0001-01-01 |
//! | datetimeoffset | TEXT | 16 hexadecimal digits of the UTC moment, then the offset; the collation [`OFFSET_COLLATION`] compares the moment alone |
//! | uniqueidentifier | BLOB | bytes in the order in which SQL Server compares them |

use rusqlite::types::{Value as Stored, ValueRef};

use crate::value::{SqlType, Value};

/// Collation of datetimeoffset columns: the moment counts, the offset does not.
pub(crate) const OFFSET_COLLATION: &str = "FX_OFFSET";

/// 100 ns in a day.
pub(crate) const DAY: i64 = 864_000_000_000;
/// 1/300 s in a day.
pub(crate) const DATETIME_DAY: i64 = 25_920_000;
/// Minutes in a day.
const MINUTES_DAY: i64 = 1440;

/// Where each byte of the stored form stands in the text form. SQL Server compares the last six bytes first, then
/// the fourth group, then the third, second and first groups byte by byte from their low end.
const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 7, 6, 5, 4, 3, 2, 1, 0];

/// The column type SQLite is given.
pub(crate) fn declared(sql_type: &SqlType) -> &'static str {
    match sql_type {
        SqlType::Real | SqlType::Float => "REAL",
        SqlType::Decimal { .. } | SqlType::UniqueIdentifier => "BLOB",
        SqlType::DateTimeOffset { .. } => "TEXT",
        other if other.is_text() => "TEXT",
        other if other.is_binary() => "BLOB",
        _ => "INTEGER",
    }
}

/// Whether values of both types lie in SQLite in the same form, so that no conversion is needed between them when
/// neither length nor range matter.
pub(crate) fn same_form(left: &SqlType, right: &SqlType) -> bool {
    use SqlType as T;
    match (left, right) {
        (T::Decimal { scale: left, .. }, T::Decimal { scale: right, .. }) => left == right,
        (T::Bit, T::Bit) => true,
        (T::Money | T::SmallMoney, T::Money | T::SmallMoney) => true,
        (T::Real | T::Float, T::Real | T::Float) => true,
        (T::Time { .. }, T::Time { .. })
        | (T::DateTime2 { .. }, T::DateTime2 { .. })
        | (T::DateTimeOffset { .. }, T::DateTimeOffset { .. }) => true,
        (left, right) if left.is_integer() && right.is_integer() => true,
        (left, right) if left.is_text() && right.is_text() => true,
        (left, right) if left.is_binary() && right.is_binary() => true,
        (left, right) => left == right,
    }
}

/// A value in its stored form.
pub(crate) fn store(value: &Value) -> Stored {
    match value {
        Value::Null => Stored::Null,
        Value::Bit(bit) => Stored::Integer(i64::from(*bit)),
        Value::Int(number) | Value::Money(number) => Stored::Integer(*number),
        Value::Real(number) => Stored::Real(f64::from(*number)),
        Value::Float(number) => Stored::Real(*number),
        Value::Decimal { unscaled, .. } => Stored::Blob(decimal_bytes(*unscaled).to_vec()),
        Value::Text(text) => Stored::Text(text.clone()),
        Value::Bytes(bytes) => Stored::Blob(bytes.clone()),
        Value::Guid(text_order) => Stored::Blob(GUID_ORDER.iter().map(|at| text_order[*at]).collect()),
        Value::Date(days) => Stored::Integer(i64::from(*days)),
        Value::Time(ticks) => Stored::Integer(i64::try_from(*ticks).unwrap_or(i64::MAX)),
        Value::DateTime { days, ticks } => Stored::Integer(i64::from(*days) * DATETIME_DAY + i64::from(*ticks)),
        Value::SmallDateTime { days, minutes } => Stored::Integer(i64::from(*days) * MINUTES_DAY + i64::from(*minutes)),
        Value::DateTime2 { days, time } => Stored::Integer(moment(*days, *time)),
        Value::DateTimeOffset { days, time, minutes } => {
            Stored::Text(format!("{:016x}{minutes:+}", moment(*days, *time).wrapping_add(DAY)))
        }
    }
}

fn moment(days: i32, time: u64) -> i64 {
    i64::from(days) * DAY + i64::try_from(time).unwrap_or(0)
}

/// The stored bytes of a decimal.
fn decimal_bytes(unscaled: i128) -> [u8; 16] {
    (unscaled ^ i128::MIN).to_be_bytes()
}

/// Reads a stored value into a slot of a row; text and bytes reuse what the slot holds.
pub(crate) fn load_into(slot: &mut Value, stored: ValueRef<'_>, sql_type: &SqlType) {
    match (stored, &mut *slot) {
        (ValueRef::Null, _) => *slot = Value::Null,
        (ValueRef::Text(text), Value::Text(held)) if sql_type.is_text() => {
            held.clear();
            held.push_str(&String::from_utf8_lossy(text));
        }
        (ValueRef::Blob(blob), Value::Bytes(held)) if sql_type.is_binary() => {
            held.clear();
            held.extend_from_slice(blob);
        }
        (stored, _) => *slot = load(stored, sql_type),
    }
}

/// Reads a stored value. A form that does not fit the type is NULL; the binder never lets that happen.
pub(crate) fn load(stored: ValueRef<'_>, sql_type: &SqlType) -> Value {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => integer(number, sql_type),
        ValueRef::Real(number) => match sql_type {
            #[expect(clippy::cast_possible_truncation, reason = "real is stored widened, so nothing is lost")]
            SqlType::Real => Value::Real(number as f32),
            _ => Value::Float(number),
        },
        ValueRef::Text(text) => match sql_type {
            SqlType::DateTimeOffset { .. } => offset(text),
            _ => Value::Text(String::from_utf8_lossy(text).into_owned()),
        },
        ValueRef::Blob(blob) => match sql_type {
            SqlType::Decimal { scale, .. } => <[u8; 16]>::try_from(blob).map_or(Value::Null, |bytes| Value::Decimal {
                unscaled: i128::from_be_bytes(bytes) ^ i128::MIN,
                scale: *scale,
            }),
            SqlType::UniqueIdentifier => {
                let mut text_order = [0; 16];
                for (byte, at) in blob.iter().zip(GUID_ORDER) {
                    text_order[at] = *byte;
                }
                Value::Guid(text_order)
            }
            _ => Value::Bytes(blob.to_vec()),
        },
    }
}

fn integer(number: i64, sql_type: &SqlType) -> Value {
    match sql_type {
        SqlType::Bit => Value::Bit(number != 0),
        SqlType::Money | SqlType::SmallMoney => Value::Money(number),
        #[expect(clippy::cast_precision_loss, reason = "a number that SQLite kept as an integer is a small one")]
        SqlType::Real => Value::Real(number as f32),
        #[expect(clippy::cast_precision_loss, reason = "a number that SQLite kept as an integer is a small one")]
        SqlType::Float => Value::Float(number as f64),
        SqlType::Date => Value::Date(i32::try_from(number).unwrap_or(0)),
        SqlType::Time { .. } => Value::Time(u64::try_from(number).unwrap_or(0)),
        SqlType::DateTime => Value::DateTime {
            days: i32::try_from(number.div_euclid(DATETIME_DAY)).unwrap_or(0),
            ticks: u32::try_from(number.rem_euclid(DATETIME_DAY)).unwrap_or(0),
        },
        SqlType::SmallDateTime => Value::SmallDateTime {
            days: u16::try_from(number.div_euclid(MINUTES_DAY)).unwrap_or(0),
            minutes: u16::try_from(number.rem_euclid(MINUTES_DAY)).unwrap_or(0),
        },
        SqlType::DateTime2 { .. } => {
            let (days, time) = split(number);
            Value::DateTime2 { days, time }
        }
        _ => Value::Int(number),
    }
}

fn split(moment: i64) -> (i32, u64) {
    (i32::try_from(moment.div_euclid(DAY)).unwrap_or(0), u64::try_from(moment.rem_euclid(DAY)).unwrap_or(0))
}

fn offset(text: &[u8]) -> Value {
    let read = || {
        let text = std::str::from_utf8(text).ok()?;
        let moment = i64::from_str_radix(text.get(..16)?, 16).ok()?.wrapping_sub(DAY);
        let minutes = text.get(16..)?.parse().ok()?;
        let (days, time) = split(moment);
        Some(Value::DateTimeOffset { days, time, minutes })
    };
    read().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(value: &Value, sql_type: &SqlType) -> Value {
        load(ValueRef::from(&store(value)), sql_type)
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let cases = [
            (Value::Decimal { unscaled: -1234, scale: 2 }, SqlType::Decimal { precision: 18, scale: 2 }),
            (Value::Guid(*b"0123456789abcdef"), SqlType::UniqueIdentifier),
            (Value::DateTime { days: -3, ticks: 7 }, SqlType::DateTime),
            (Value::SmallDateTime { days: 65000, minutes: 1439 }, SqlType::SmallDateTime),
            (Value::DateTime2 { days: 3_652_058, time: 863_999_999_999 }, SqlType::DateTime2 { scale: 7 }),
            (Value::DateTimeOffset { days: 0, time: 5, minutes: -720 }, SqlType::DateTimeOffset { scale: 7 }),
            (Value::Real(1.5), SqlType::Real),
        ];
        for (value, sql_type) in cases {
            assert_eq!(back(&value, &sql_type), value);
        }
    }

    #[test]
    fn decimals_order_as_numbers() {
        let numbers = [i128::MIN / 2, -5, -1, 0, 1, 5, i128::MAX / 2];
        assert!(numbers.windows(2).all(|pair| decimal_bytes(pair[0]) < decimal_bytes(pair[1])));
    }
}
