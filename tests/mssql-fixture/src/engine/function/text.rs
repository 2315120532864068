//! Functions over texts and binaries.

use super::Call;
use crate::collation::Collation;
use crate::engine::convert::data_length;
use crate::engine::error::SqlError;
use crate::value::{SqlType, Value};

fn text_of(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn number_of(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    }
}

/// The functions that give NULL when any argument is NULL, and that know only texts and numbers.
pub(super) fn call(name: &str, call: &Call, values: &[Value]) -> Result<Option<Value>, SqlError> {
    match name {
        "CONCAT" | "CONCAT_WS" => return Ok(Some(concat(name, values))),
        "DATALENGTH" => {
            let sql_type = call.arguments.first().unwrap_or(&SqlType::Int);
            return Ok(Some(match values.first() {
                Some(value) if !value.is_null() => {
                    Value::Int(i64::try_from(data_length(value, sql_type, &call.collation)).unwrap_or(0))
                }
                _ => Value::Null,
            }));
        }
        "FX_WKB" => return Ok(Some(text_of(values.first()).and_then(well_known_binary).unwrap_or(Value::Null))),
        "SQL_VARIANT_PROPERTY" => return Ok(Some(Value::Text("nvarchar".to_owned()))),
        "QUOTENAME" => {
            return Ok(Some(
                text_of(values.first())
                    .map_or(Value::Null, |text| Value::Text(format!("[{}]", text.replace(']', "]]")))),
            ));
        }
        _ => {}
    }
    let known = [
        "LEN",
        "UPPER",
        "LOWER",
        "LTRIM",
        "RTRIM",
        "TRIM",
        "SUBSTRING",
        "LEFT",
        "RIGHT",
        "REPLACE",
        "CHARINDEX",
        "REPLICATE",
        "SPACE",
        "CHAR",
        "NCHAR",
        "ASCII",
        "UNICODE",
        "REVERSE",
        "STUFF",
    ];
    if !known.contains(&name) {
        return Ok(None);
    }
    if values.iter().any(Value::is_null) {
        return Ok(Some(Value::Null));
    }
    Ok(Some(plain(name, call, values).unwrap_or(Value::Null)))
}

/// The well-known binary form of `POINT (1 2)`; other shapes are not known here.
fn well_known_binary(text: &str) -> Option<Value> {
    let inside = text.trim().strip_prefix("POINT")?.trim().strip_prefix('(')?.strip_suffix(')')?;
    let mut bytes = vec![1, 1, 0, 0, 0];
    for number in inside.split_whitespace().take(2) {
        bytes.extend(number.parse::<f64>().ok()?.to_le_bytes());
    }
    (bytes.len() == 21).then_some(Value::Bytes(bytes))
}

/// NULLs are nothing to CONCAT.
fn concat(name: &str, values: &[Value]) -> Value {
    let texts = |values: &[Value]| -> Vec<String> {
        values.iter().filter_map(|value| text_of(Some(value)).map(str::to_owned)).collect()
    };
    if name == "CONCAT" {
        return Value::Text(texts(values).concat());
    }
    let separator = text_of(values.first()).unwrap_or_default();
    Value::Text(texts(values.get(1..).unwrap_or_default()).join(separator))
}

/// A part of a text by characters from 1, cut at its ends.
fn part<T: Clone>(units: &[T], start: i64, length: i64) -> Vec<T> {
    let end = start.saturating_add(length).saturating_sub(1).max(0);
    let from = usize::try_from(start.max(1) - 1).unwrap_or(0).min(units.len());
    let to = usize::try_from(end).unwrap_or(0).clamp(from, units.len());
    units.get(from..to).unwrap_or_default().to_vec()
}

fn plain(name: &str, call: &Call, values: &[Value]) -> Option<Value> {
    if let (Some(Value::Bytes(bytes)), "SUBSTRING" | "LEFT" | "RIGHT" | "LEN") = (values.first(), name) {
        return binary(name, bytes, values);
    }
    if let "SPACE" | "CHAR" | "NCHAR" = name {
        let number = number_of(values.first())?;
        return Some(Value::Text(match name {
            "SPACE" => " ".repeat(usize::try_from(number).ok()?),
            _ => char::from_u32(u32::try_from(number).ok()?)?.to_string(),
        }));
    }
    let text = text_of(values.first())?;
    let characters = || text.chars().collect::<Vec<_>>();
    let text_value = |characters: Vec<char>| Some(Value::Text(characters.into_iter().collect()));
    match name {
        "LEN" => Some(Value::Int(i64::try_from(text.trim_end_matches(' ').encode_utf16().count()).ok()?)),
        "UPPER" => Some(Value::Text(text.to_uppercase())),
        "LOWER" => Some(Value::Text(text.to_lowercase())),
        "LTRIM" => Some(Value::Text(text.trim_start_matches(' ').to_owned())),
        "RTRIM" => Some(Value::Text(text.trim_end_matches(' ').to_owned())),
        "TRIM" => Some(Value::Text(text.trim_matches(' ').to_owned())),
        "SUBSTRING" => text_value(part(&characters(), number_of(values.get(1))?, number_of(values.get(2))?)),
        "LEFT" => text_value(part(&characters(), 1, number_of(values.get(1))?)),
        "RIGHT" => {
            let all = characters();
            let skip = i64::try_from(all.len()).ok()? - number_of(values.get(1))?;
            text_value(part(&all, skip.max(0) + 1, i64::try_from(all.len()).ok()?))
        }
        "REPLACE" => {
            let (from, to) = (text_of(values.get(1))?, text_of(values.get(2))?);
            Some(Value::Text(if from.is_empty() { text.to_owned() } else { text.replace(from, to) }))
        }
        "CHARINDEX" => Some(Value::Int(char_index(text, text_of(values.get(1))?, number_of(values.get(2)), call))),
        "REPLICATE" => Some(Value::Text(text.repeat(usize::try_from(number_of(values.get(1))?).ok()?))),
        "ASCII" | "UNICODE" => Some(Value::Int(text.chars().next().map(|c| i64::from(u32::from(c)))?)),
        "REVERSE" => Some(Value::Text(text.chars().rev().collect())),
        "STUFF" => {
            let (start, length) = (number_of(values.get(1))?, number_of(values.get(2))?);
            let all = characters();
            let mut stuffed = part(&all, 1, start - 1);
            stuffed.extend(text_of(values.get(3))?.chars());
            stuffed.extend(part(&all, start + length, i64::try_from(all.len()).ok()?));
            text_value(stuffed)
        }
        _ => None,
    }
}

fn binary(name: &str, bytes: &[u8], values: &[Value]) -> Option<Value> {
    let length = i64::try_from(bytes.len()).ok()?;
    Some(match name {
        "LEN" => Value::Int(length),
        "LEFT" => Value::Bytes(part(bytes, 1, number_of(values.get(1))?)),
        "RIGHT" => Value::Bytes(part(bytes, (length - number_of(values.get(1))?).max(0) + 1, length)),
        _ => Value::Bytes(part(bytes, number_of(values.get(1))?, number_of(values.get(2))?)),
    })
}

/// Where a text begins in another, from 1; 0 when it does not.
fn char_index(wanted: &str, text: &str, from: Option<i64>, call: &Call) -> i64 {
    let (text, wanted): (Vec<char>, Vec<char>) = (text.chars().collect(), wanted.chars().collect());
    let skip = usize::try_from(from.unwrap_or(1) - 1).unwrap_or(0);
    if wanted.is_empty() {
        return 0;
    }
    let found = text
        .windows(wanted.len())
        .skip(skip)
        .position(|window| window.iter().zip(&wanted).all(|(left, right)| same_char(*left, *right, &call.collation)));
    found.and_then(|at| i64::try_from(at + skip + 1).ok()).unwrap_or(0)
}

fn same_char(left: char, right: char, collation: &Collation) -> bool {
    if left == right {
        return true;
    }
    let (mut l, mut r) = ([0; 4], [0; 4]);
    left != ' ' && right != ' ' && collation.compare(left.encode_utf8(&mut l), right.encode_utf8(&mut r)).is_eq()
}

/// LIKE: value, pattern and, maybe, the escape character. Gives a bit.
pub(super) fn like(values: &[Value], collation: &Collation) -> Value {
    let (Some(text), Some(pattern)) = (text_of(values.first()), text_of(values.get(1))) else { return Value::Null };
    let escape = text_of(values.get(2)).and_then(|text| text.chars().next());
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    Value::Bit(matches(&text, &pattern, escape, collation))
}

fn matches(text: &[char], pattern: &[char], escape: Option<char>, collation: &Collation) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        // Trailing blanks of the text do not count.
        return text.iter().all(|c| *c == ' ');
    };
    if escape == Some(*first)
        && let Some((literal, rest)) = rest.split_first()
    {
        return text
            .split_first()
            .is_some_and(|(c, tail)| same_char(*c, *literal, collation) && matches(tail, rest, escape, collation));
    }
    match first {
        '%' => (0..=text.len()).any(|skip| matches(text.get(skip..).unwrap_or_default(), rest, escape, collation)),
        '_' => text.split_first().is_some_and(|(_, tail)| matches(tail, rest, escape, collation)),
        '[' => {
            let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
            let (set, behind) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            text.split_first()
                .is_some_and(|(c, tail)| in_set(*c, set, collation) && matches(tail, behind, escape, collation))
        }
        literal => text
            .split_first()
            .is_some_and(|(c, tail)| same_char(*c, *literal, collation) && matches(tail, rest, escape, collation)),
    }
}

/// `a-c`, `^x`, `abc`.
fn in_set(c: char, set: &[char], collation: &Collation) -> bool {
    let (negated, set) = match set.split_first() {
        Some(('^', rest)) => (true, rest),
        _ => (false, set),
    };
    let order =
        |left: char, right: char| collation.compare(left.encode_utf8(&mut [0; 4]), right.encode_utf8(&mut [0; 4]));
    let mut found = false;
    let mut at = 0;
    while let Some(low) = set.get(at) {
        if let (Some('-'), Some(high)) = (set.get(at + 1), set.get(at + 2)) {
            found |= order(*low, c).is_le() && order(c, *high).is_le();
            at += 3;
        } else {
            found |= same_char(c, *low, collation);
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_like(text: &str, pattern: &str) -> bool {
        let values = [Value::Text(text.to_owned()), Value::Text(pattern.to_owned())];
        like(&values, &Collation::default()) == Value::Bit(true)
    }

    #[test]
    fn like_knows_its_wildcards() {
        assert!(is_like("Customer 12", "cust%[0-9]_"));
        assert!(is_like("abc   ", "abc"));
        assert!(!is_like("abc", "[^a]%"));
        assert!(!is_like("abc", "ab"));
    }
}
