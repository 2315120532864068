//! Key texts as T-SQL literals. Each is parsed and written anew: whatever stands in a kept text, nothing but a value
//! of its type reaches a statement.

use crate::source::mssql::calendar::{ShortText, day_of, day_steps};
use crate::source::mssql::column::SqlType;

/// Checks that a text fits a column of text; a variable would cut it without a word.
pub(super) fn text<'a>(sql_type: &SqlType, text: &'a str) -> Result<&'a str, String> {
    let (limit, length) = match sql_type {
        SqlType::Char { length } | SqlType::VarChar { length: Some(length) } => (*length, text.chars().count()),
        SqlType::NChar { length } | SqlType::NVarChar { length: Some(length) } => {
            (*length, text.encode_utf16().count())
        }
        _ => return Ok(text),
    };
    if length > usize::from(limit) { Err(format!("it is longer than {limit}")) } else { Ok(text) }
}

/// The literal of any other type.
pub(super) fn plain(sql_type: &SqlType, text: &str) -> Result<String, String> {
    match sql_type {
        SqlType::Bit => integer(text, 0, 1),
        SqlType::TinyInt => integer(text, 0, i64::from(u8::MAX)),
        SqlType::SmallInt => integer(text, i64::from(i16::MIN), i64::from(i16::MAX)),
        SqlType::Int => integer(text, i64::from(i32::MIN), i64::from(i32::MAX)),
        SqlType::BigInt => integer(text, i64::MIN, i64::MAX),
        SqlType::Decimal { precision, scale } => decimal(text, *precision, *scale),
        SqlType::Money => decimal(text, 19, 4),
        SqlType::SmallMoney => decimal(text, 10, 4),
        SqlType::Date => {
            let (day, rest) = date(text).ok_or("it is no date")?;
            if rest.is_empty() { Ok(quoted(ShortText::new().date(day))) } else { Err(tail(rest)) }
        }
        SqlType::Time { scale } => {
            let (steps, rest) = time(text, *scale).ok_or("it is no such time")?;
            if rest.is_empty() { Ok(quoted(ShortText::new().time(steps, *scale))) } else { Err(tail(rest)) }
        }
        SqlType::DateTime => without_offset(text, 3),
        SqlType::SmallDateTime => without_offset(text, 0),
        SqlType::DateTime2 { scale } => without_offset(text, *scale),
        SqlType::DateTimeOffset { scale } => {
            let (day, steps, offset) = moment(text, *scale).ok_or("it is no such moment")?;
            let mut written = ShortText::new();
            written.date(day).push(b'T').time(steps, *scale).offset(offset.unwrap_or_default());
            Ok(quoted(&written))
        }
        SqlType::UniqueIdentifier => {
            let parsed = uuid::Uuid::try_parse(text).map_err(|_| "it is no GUID")?;
            Ok(format!("'{}'", parsed.hyphenated()))
        }
        SqlType::Binary { length } | SqlType::VarBinary { length: Some(length) } => binary(text, *length),
        SqlType::RowVersion => binary(text, 8),
        SqlType::HierarchyId => hierarchy(text),
        other => Err(format!("{other} is no type of a key")),
    }
}

fn integer(text: &str, least: i64, greatest: i64) -> Result<String, String> {
    let number: i64 = text.parse().map_err(|_| "it is no whole number")?;
    if (least..=greatest).contains(&number) { Ok(number.to_string()) } else { Err("it is out of range".to_owned()) }
}

fn decimal(text: &str, precision: u8, scale: u8) -> Result<String, String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let only_digits = |part: &str| part.bytes().all(|digit| digit.is_ascii_digit());
    if digits.is_empty() || digits.ends_with('.') || !only_digits(whole) || !only_digits(fraction) {
        return Err("it is no number".to_owned());
    }
    let whole = whole.trim_start_matches('0');
    let places = usize::from(precision.saturating_sub(scale));
    if whole.len() > places || fraction.len() > usize::from(scale) {
        return Err("it has too many digits".to_owned());
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{whole}{point}{fraction}"))
}

fn binary(text: &str, length: u16) -> Result<String, String> {
    let digits = text.strip_prefix("0x").ok_or("it does not begin with 0x")?;
    if digits.len() % 2 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("it is not made of pairs of hexadecimal digits".to_owned());
    }
    if digits.len() / 2 > usize::from(length) {
        return Err(format!("it is longer than {length}"));
    }
    Ok(format!("0x{digits}"))
}

/// `/1/2.5/-3/`.
fn hierarchy(text: &str) -> Result<String, String> {
    let known = |letter: u8| letter.is_ascii_digit() || matches!(letter, b'/' | b'.' | b'-');
    if text.starts_with('/') && text.ends_with('/') && text.bytes().all(known) {
        Ok(format!("N'{text}'"))
    } else {
        Err("it is no path of numbers between slashes".to_owned())
    }
}

/// A moment as every language setting reads it: with a `T`, since `datetime` takes a blank for the login's own order.
fn without_offset(text: &str, scale: u8) -> Result<String, String> {
    match moment(text, scale) {
        Some((day, steps, None)) => {
            let mut written = ShortText::new();
            written.date(day).push(b'T').time(steps, scale);
            Ok(quoted(&written))
        }
        Some(_) => Err("it has an offset".to_owned()),
        None => Err("it is no such moment".to_owned()),
    }
}

fn quoted(text: &ShortText) -> String {
    format!("'{text}'")
}

fn tail(rest: &str) -> String {
    format!("`{rest}` is too much")
}

/// A day, its time in steps of `scale` digits of a second, and the offset in minutes if one is written: in the styles
/// 121, 126 and 127 of the server.
fn moment(text: &str, scale: u8) -> Option<(i64, u64, Option<i16>)> {
    let (day, rest) = date(text)?;
    let rest = rest.strip_prefix(['T', ' '])?;
    let (steps, rest) = time(rest, scale)?;
    let offset = match rest.trim_start() {
        "" => None,
        "Z" => Some(0),
        offset => Some(minutes(offset)?),
    };
    Some((day, steps, offset))
}

/// `YYYY-MM-DD`, as days since 1970, and what follows it.
fn date(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    if year == 0 {
        return None;
    }
    let day = day_of(i64::try_from(year).ok()?, u8::try_from(month).ok()?, u8::try_from(day).ok()?)?;
    Some((day, rest))
}

/// `HH:MM:SS` with or without digits of a second, in steps of `scale` digits, and what follows it. Digits beyond the
/// scale must be zeros.
fn time(text: &str, scale: u8) -> Option<(u64, &str)> {
    let (hours, rest) = number(text, 2)?;
    let (minutes, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (seconds, rest) = number(rest.strip_prefix(':')?, 2)?;
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let mut steps = hours * 3600 + minutes * 60 + seconds;
    let (digits, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", rest),
    };
    if rest.starts_with('.') || digits.len() > 9 {
        return None;
    }
    let (kept, beyond) = digits.split_at(digits.len().min(usize::from(scale)));
    if beyond.bytes().any(|digit| digit != b'0') {
        return None;
    }
    steps *= day_steps(scale)? / day_steps(0)?;
    if !kept.is_empty() {
        steps += kept.parse::<u64>().ok()? * 10_u64.pow(u32::from(scale) - u32::try_from(kept.len()).ok()?);
    }
    Some((steps, rest))
}

/// `+HH:MM`, in minutes.
fn minutes(text: &str) -> Option<i16> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, rest) = number(rest, 2)?;
    let (minutes, rest) = number(rest.strip_prefix(':')?, 2)?;
    let size = i16::try_from(hours * 60 + minutes).ok()?;
    (rest.is_empty() && minutes < 60 && size <= 840).then_some(sign * size)
}

/// A number of exactly so many digits, and what follows it.
fn number(text: &str, digits: usize) -> Option<(u64, &str)> {
    let (head, rest) = text.split_at_checked(digits)?;
    if !head.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, rest))
}
