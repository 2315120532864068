//! Dates and times as text, by CONVERT's styles, and back.

use super::time::{DAYS_TO_1900, Moment};
use crate::value::SqlType;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Hours, minutes, seconds and 100 ns.
fn clock(ticks: u64) -> (u64, u64, u64, u64) {
    let seconds = ticks / 10_000_000;
    (seconds / 3600, seconds / 60 % 60, seconds % 60, ticks % 10_000_000)
}

/// How many digits of the fraction a type shows.
fn digits(sql_type: &SqlType) -> usize {
    match sql_type {
        SqlType::Time { scale } | SqlType::DateTime2 { scale } | SqlType::DateTimeOffset { scale } => {
            usize::from(*scale)
        }
        SqlType::DateTime => 3,
        _ => 0,
    }
}

fn fraction(ticks: u64, sql_type: &SqlType) -> String {
    let digits = digits(sql_type);
    let (.., mut rest) = clock(ticks);
    if *sql_type == SqlType::DateTime {
        // 1/300 s shows as .000, .003 and .007.
        rest = (rest + 5_000) / 10_000 * 10_000;
    }
    if digits == 0 {
        return String::new();
    }
    format!(".{}", &format!("{rest:07}")[..digits])
}

fn offset_text(offset: i16) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", offset.unsigned_abs() / 60, offset.unsigned_abs() % 60)
}

/// The text of a moment of a type by a style; 0 is the type's default.
pub(super) fn text(moment: &Moment, sql_type: &SqlType, style: i32) -> String {
    let (year, month, day) = moment.date();
    let (hour, minute, second, _) = clock(moment.ticks);
    let date = format!("{year:04}-{month:02}-{day:02}");
    let time = format!("{hour:02}:{minute:02}:{second:02}");
    let part = fraction(moment.ticks, sql_type);
    let (has_date, has_time) = (!matches!(sql_type, SqlType::Time { .. }), !matches!(sql_type, SqlType::Date));
    let offset =
        if matches!(sql_type, SqlType::DateTimeOffset { .. }) { offset_text(moment.offset) } else { String::new() };
    let is_zero = part.bytes().all(|byte| matches!(byte, b'.' | b'0'));
    match style {
        23 if has_date => return date,
        112 if has_date => return format!("{year:04}{month:02}{day:02}"),
        8 | 24 | 108 => return time,
        14 | 114 => return format!("{time}{}", part.replace('.', ":")),
        0 | 100 if matches!(sql_type, SqlType::DateTime | SqlType::SmallDateTime) => {
            let (half, shown) = (if hour < 12 { "AM" } else { "PM" }, if hour % 12 == 0 { 12 } else { hour % 12 });
            let name = MONTHS.get(usize::try_from(month - 1).unwrap_or(0)).copied().unwrap_or_default();
            return format!("{name} {day:>2} {year:04} {shown:>2}:{minute:02}{half}");
        }
        _ => {}
    }
    match (has_date, has_time, style) {
        (true, false, _) => date,
        (false, true, _) => format!("{time}{part}"),
        (_, _, 120) => format!("{date} {time}"),
        (_, _, 126 | 127) => {
            let part = if is_zero { "" } else { part.as_str() };
            let zone = if style == 127 && offset.is_empty() { "Z" } else { offset.as_str() };
            let zone = if style == 127 && !matches!(sql_type, SqlType::DateTimeOffset { .. }) { "" } else { zone };
            format!("{date}T{time}{part}{zone}")
        }
        _ if offset.is_empty() => format!("{date} {time}{part}"),
        _ => format!("{date} {time}{part} {offset}"),
    }
}

/// Reads a date, a time or both: `2026-11-20`, `20261120`, `11/20/2026`, `16:40[:09[.1234567]] [AM|PM] [+01:00|Z]`.
pub(super) fn parse(text: &str) -> Option<Moment> {
    if text.is_empty() {
        return Some(Moment { days: DAYS_TO_1900, ticks: 0, offset: 0 });
    }
    let (date, rest) = split_date(text);
    let days = match date {
        Some(date) => parse_date(date)?,
        None => DAYS_TO_1900,
    };
    let rest = rest.trim();
    if rest.is_empty() {
        return date.map(|_| Moment { days, ticks: 0, offset: 0 });
    }
    let (clock, offset) = split_offset(rest)?;
    let (clock, half) = match clock.trim_end().to_ascii_uppercase() {
        upper if upper.ends_with("AM") => (clock.trim_end().get(..upper.len() - 2)?, Some(0)),
        upper if upper.ends_with("PM") => (clock.trim_end().get(..upper.len() - 2)?, Some(12)),
        _ => (clock, None),
    };
    Some(Moment { days, ticks: parse_clock(clock.trim(), half)?, offset })
}

/// The date in front, when there is one, and what follows it.
fn split_date(text: &str) -> (Option<&str>, &str) {
    let end = text.find(['T', ' ']).unwrap_or(text.len());
    let (first, rest) = text.split_at(end);
    if first.contains(':') || !first.bytes().any(|byte| byte.is_ascii_digit()) {
        return (None, text);
    }
    (Some(first), rest.get(1..).unwrap_or_default())
}

fn parse_date(date: &str) -> Option<i32> {
    let all_digits = date.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits {
        return match date.len() {
            8 => Moment::days_of(
                date.get(..4)?.parse().ok()?,
                date.get(4..6)?.parse().ok()?,
                date.get(6..)?.parse().ok()?,
            ),
            4 => Moment::days_of(date.parse().ok()?, 1, 1),
            _ => None,
        };
    }
    let parts: Vec<&str> = date.split(['-', '/', '.']).collect();
    let [first, second, third] = parts.as_slice() else { return None };
    if first.len() == 4 {
        return Moment::days_of(first.parse().ok()?, second.parse().ok()?, third.parse().ok()?);
    }
    (third.len() == 4)
        .then(|| Moment::days_of(third.parse().ok()?, first.parse().ok()?, second.parse().ok()?))
        .flatten()
}

fn split_offset(text: &str) -> Option<(&str, i16)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (hours, minutes) = text.get(at + 1..)?.split_once(':')?;
    let offset = hours.parse::<i16>().ok()? * 60 + minutes.parse::<i16>().ok()?;
    let negative = text.get(at..)?.starts_with('-');
    (offset <= 840).then_some((text.get(..at)?, if negative { -offset } else { offset }))
}

fn parse_clock(clock: &str, half: Option<u64>) -> Option<u64> {
    let mut parts = clock.split(':');
    let mut hour: u64 = parts.next()?.parse().ok()?;
    let minute: u64 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
    let seconds = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    if let Some(half) = half {
        hour = hour % 12 + half;
    }
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let second: u64 = second.parse().ok()?;
    if hour > 23
        || minute > 59
        || second > 59
        || fraction.len() > 9
        || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let padded = format!("{fraction:0<7}");
    let ticks: u64 = padded.get(..7)?.parse().ok()?;
    Some((hour * 3600 + minute * 60 + second) * 10_000_000 + ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_written() {
        let moment = parse("2026-11-20T16:40:09.1234567+01:00").unwrap();
        let sql_type = SqlType::DateTimeOffset { scale: 7 };
        assert_eq!(text(&moment, &sql_type, 0), "2026-11-20 16:40:09.1234567 +01:00");
        assert_eq!(text(&moment, &sql_type, 126), "2026-11-20T16:40:09.1234567+01:00");
        let moment = parse("20261120 04:05 PM").unwrap();
        assert_eq!(text(&moment, &SqlType::DateTime, 0), "Nov 20 2026  4:05PM");
        assert_eq!(text(&moment, &SqlType::DateTime2 { scale: 3 }, 121), "2026-11-20 16:05:00.000");
        assert_eq!(text(&moment, &SqlType::DateTime2 { scale: 3 }, 126), "2026-11-20T16:05:00");
        assert!(parse("2026-13-01").is_none());
        assert!(parse("hello").is_none());
    }
}
