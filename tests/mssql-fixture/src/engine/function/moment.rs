//! Functions over dates and times.

use super::{Call, SharedContext};
use crate::engine::convert::{Manner, Moment, convert};
use crate::engine::error::SqlError;
use crate::value::{SqlType, Value};

/// 100 ns in a second.
const SECOND: i64 = 10_000_000;
const DAY: i64 = 86_400 * SECOND;

/// DATEADD, DATEDIFF, DATEPART, YEAR, MONTH, DAY and the clocks; `None` when the name is another's.
pub(super) fn call(
    name: &str,
    call: &Call,
    values: &[Value],
    context: &SharedContext,
) -> Result<Option<Value>, SqlError> {
    if matches!(name, "SYSUTCDATETIME" | "GETDATE" | "GETUTCDATE" | "SYSDATETIME" | "SYSDATETIMEOFFSET") {
        let moment = context.lock().started;
        return Ok(moment.value(&call.result));
    }
    let known = ["DATEADD", "DATEDIFF", "DATEDIFF_BIG", "DATEPART", "YEAR", "MONTH", "DAY", "EOMONTH", "DATEFROMPARTS"];
    if !known.contains(&name) {
        return Ok(None);
    }
    if values.iter().any(Value::is_null) {
        return Ok(Some(Value::Null));
    }
    let part = match values.first() {
        Some(Value::Text(part)) => unit(part).ok_or_else(|| {
            SqlError::new(155, 15, format!("'{part}' is not a recognized {} option.", name.to_lowercase()))
        })?,
        _ => unit(name).unwrap_or(Unit::Day),
    };
    let value = match (name, values) {
        ("DATEADD", [_, Value::Int(count), value]) => {
            let from = call.arguments.get(2).unwrap_or(&call.result);
            add(part, *count, value, from, &call.result)?
        }
        ("DATEDIFF" | "DATEDIFF_BIG", [_, from, to]) => match (Moment::of(from), Moment::of(to)) {
            (Some(from), Some(to)) => Value::Int(boundaries(part, &to) - boundaries(part, &from)),
            _ => Value::Null,
        },
        ("DATEPART", [_, value]) | ("YEAR" | "MONTH" | "DAY", [value]) => {
            Moment::of(value).map_or(Value::Null, |moment| Value::Int(read(part, &moment)))
        }
        ("EOMONTH", [value, ..]) => Moment::of(value).map_or(Value::Null, |moment| {
            let (year, month, _) = moment.date();
            let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            Moment::days_of(year, month, 1).map_or(Value::Null, |days| Value::Date(days - 1))
        }),
        ("DATEFROMPARTS", [Value::Int(year), Value::Int(month), Value::Int(day)]) => {
            let number = |number: &i64| u32::try_from(*number).unwrap_or(0);
            Moment::days_of(i32::try_from(*year).unwrap_or(0), number(month), number(day)).map(Value::Date).ok_or_else(
                || {
                    SqlError::new(
                        289,
                        16,
                        "Cannot construct data type date, some of the arguments have values which are not valid.",
                    )
                },
            )?
        }
        _ => Value::Null,
    };
    Ok(Some(value))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Year,
    Quarter,
    Month,
    DayOfYear,
    Day,
    Week,
    Weekday,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "year" | "yy" | "yyyy" => Unit::Year,
        "quarter" | "qq" | "q" => Unit::Quarter,
        "month" | "mm" | "m" => Unit::Month,
        "dayofyear" | "dy" | "y" => Unit::DayOfYear,
        "day" | "dd" | "d" => Unit::Day,
        "week" | "wk" | "ww" => Unit::Week,
        "weekday" | "dw" => Unit::Weekday,
        "hour" | "hh" => Unit::Hour,
        "minute" | "mi" | "n" => Unit::Minute,
        "second" | "ss" | "s" => Unit::Second,
        "millisecond" | "ms" => Unit::Millisecond,
        "microsecond" | "mcs" => Unit::Microsecond,
        "nanosecond" | "ns" => Unit::Nanosecond,
        _ => return None,
    })
}

/// 100 ns in a unit that has a fixed length.
fn length(part: Unit) -> Option<i64> {
    Some(match part {
        Unit::Day | Unit::DayOfYear | Unit::Weekday => DAY,
        Unit::Week => 7 * DAY,
        Unit::Hour => 3600 * SECOND,
        Unit::Minute => 60 * SECOND,
        Unit::Second => SECOND,
        Unit::Millisecond => SECOND / 1000,
        Unit::Microsecond => 10,
        _ => return None,
    })
}

fn ticks_of(moment: &Moment) -> i64 {
    i64::from(moment.days) * DAY + i64::try_from(moment.ticks).unwrap_or(0)
}

/// How many boundaries of the unit lie before a moment; differences of it are DATEDIFF.
fn boundaries(part: Unit, moment: &Moment) -> i64 {
    let (year, month, _) = moment.date();
    let months = i64::from(year) * 12 + i64::from(month) - 1;
    match part {
        Unit::Year => i64::from(year),
        Unit::Quarter => months / 3,
        Unit::Month => months,
        // Weeks begin on Sunday; 0001-01-01 was a Monday.
        Unit::Week => (i64::from(moment.days) + 1).div_euclid(7),
        Unit::Nanosecond => ticks_of(moment).saturating_mul(100),
        other => ticks_of(moment).div_euclid(length(other).unwrap_or(DAY)),
    }
}

fn read(part: Unit, moment: &Moment) -> i64 {
    let (year, month, day) = moment.date();
    let ticks = i64::try_from(moment.ticks).unwrap_or(0);
    let first = Moment::days_of(year, 1, 1).unwrap_or(0);
    match part {
        Unit::Year => i64::from(year),
        Unit::Quarter => i64::from((month - 1) / 3 + 1),
        Unit::Month => i64::from(month),
        Unit::DayOfYear => i64::from(moment.days - first + 1),
        Unit::Day => i64::from(day),
        Unit::Week => i64::from((moment.days + 1).div_euclid(7) - (first + 1).div_euclid(7) + 1),
        Unit::Weekday => i64::from((moment.days + 1).rem_euclid(7) + 1),
        Unit::Hour => ticks / (3600 * SECOND),
        Unit::Minute => ticks / (60 * SECOND) % 60,
        Unit::Second => ticks / SECOND % 60,
        Unit::Millisecond => ticks % SECOND / 10_000,
        Unit::Microsecond => ticks % SECOND / 10,
        Unit::Nanosecond => ticks % SECOND * 100,
    }
}

fn add(part: Unit, count: i64, value: &Value, from: &SqlType, result: &SqlType) -> Result<Value, SqlError> {
    let overflow = || SqlError::new(517, 16, "Adding a value to a 'datetime' column caused an overflow.");
    // Text is read as datetime.
    let value = match value {
        Value::Text(_) => convert(value.clone(), from, result, &Manner::default())?,
        other => other.clone(),
    };
    let Some(moment) = Moment::of(&value) else { return Ok(Value::Null) };
    let months = match part {
        Unit::Year => Some(12),
        Unit::Quarter => Some(3),
        Unit::Month => Some(1),
        _ => None,
    };
    let moved = if let Some(months) = months {
        let (year, month, day) = moment.date();
        let all = i64::from(year) * 12 + i64::from(month) - 1 + months * count;
        let year = i32::try_from(all.div_euclid(12)).map_err(|_| overflow())?;
        let month = u32::try_from(all.rem_euclid(12)).unwrap_or(0) + 1;
        let days = (0..4).find_map(|less| Moment::days_of(year, month, day - less)).ok_or_else(overflow)?;
        Moment { days, ..moment }
    } else {
        let step = match part {
            Unit::Nanosecond => count / 100,
            other => count.checked_mul(length(other).unwrap_or(DAY)).ok_or_else(overflow)?,
        };
        let all = ticks_of(&moment).checked_add(step).ok_or_else(overflow)?;
        Moment {
            days: i32::try_from(all.div_euclid(DAY)).map_err(|_| overflow())?,
            ticks: u64::try_from(all.rem_euclid(DAY)).unwrap_or(0),
            offset: moment.offset,
        }
    };
    moved.value(result).ok_or_else(overflow)
}
