//! Conversions into text, binary and uniqueidentifier.

use super::number_text::{decimal_text, float_text};
use super::time::Moment;
use super::{Manner, impossible, type_name};
use crate::collation::Collation;
use crate::engine::error::SqlError;
use crate::engine::token::hex;
use crate::value::{SqlType, Value};

/// How many units a text type holds: bytes of the code page, or UTF-16 units.
fn limit(to: &SqlType) -> Option<usize> {
    match to {
        SqlType::Char { length } | SqlType::NChar { length } | SqlType::Binary { length } => Some(usize::from(*length)),
        SqlType::VarChar { length } | SqlType::NVarChar { length } | SqlType::VarBinary { length } => {
            length.map(usize::from)
        }
        SqlType::RowVersion => Some(8),
        _ => None,
    }
}

fn is_fixed(to: &SqlType) -> bool {
    matches!(to, SqlType::Char { .. } | SqlType::NChar { .. } | SqlType::Binary { .. } | SqlType::RowVersion)
}

/// Bytes of one character in the code page.
fn char_bytes(c: char, collation: &Collation) -> usize {
    if c.is_ascii() {
        return 1;
    }
    if collation.is_utf8() {
        return c.len_utf8();
    }
    match collation.code_page() {
        932 | 936 | 949 | 950 => 2,
        _ => 1,
    }
}

/// Bytes of a text in the code page of the collation.
pub(super) fn encoded_length(text: &str, collation: &Collation) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(|c| char_bytes(c, collation)).sum() }
}

fn units(text: &str, to: &SqlType, collation: &Collation) -> usize {
    if to.is_code_page_text() { encoded_length(text, collation) } else { text.encode_utf16().count() }
}

pub(super) fn too_long(value: &Value, to: &SqlType, collation: &Collation) -> bool {
    let Some(limit) = limit(to) else { return false };
    match value {
        Value::Text(text) => units(text.trim_end_matches(' '), to, collation) > limit,
        Value::Bytes(bytes) => bytes.len() > limit,
        _ => false,
    }
}

/// A character the code page does not have becomes a question mark.
fn in_code_page(text: String, to: &SqlType, collation: &Collation) -> String {
    if !to.is_code_page_text() || text.is_ascii() || collation.is_utf8() {
        return text;
    }
    let known = |c: char| {
        c.is_ascii() || {
            let mut buffer = [0; 4];
            collation.encoding().is_none_or(|encoding| !encoding.encode(c.encode_utf8(&mut buffer)).2)
        }
    };
    text.chars().map(|c| if known(c) { c } else { '?' }).collect()
}

/// Cuts to the length of the type and pads fixed types with blanks.
fn fitted(text: String, to: &SqlType, collation: &Collation) -> String {
    let mut text = in_code_page(text, to, collation);
    let Some(limit) = limit(to) else { return text };
    let mut used = 0;
    let mut cut = None;
    if text.len() > limit {
        for (at, c) in text.char_indices() {
            let width = if to.is_code_page_text() { char_bytes(c, collation) } else { c.len_utf16() };
            if used + width > limit {
                cut = Some(at);
                break;
            }
            used += width;
        }
    } else {
        used = units(&text, to, collation);
    }
    if let Some(at) = cut {
        text.truncate(at);
    }
    if is_fixed(to) {
        text.extend(std::iter::repeat_n(' ', limit.saturating_sub(used)));
    }
    text
}

pub(super) fn to_text(value: &Value, from: &SqlType, to: &SqlType, manner: &Manner) -> Result<Value, SqlError> {
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Bit(bit) => u8::from(*bit).to_string(),
        Value::Int(number) => number.to_string(),
        Value::Decimal { unscaled, scale } => decimal_text(*unscaled, *scale),
        Value::Money(number) if manner.style == 2 || manner.style == 126 => decimal_text(i128::from(*number), 4),
        Value::Money(number) => decimal_text(super::number::rescale(i128::from(*number), 4, 2).unwrap_or(0), 2),
        Value::Real(number) => float_text(f64::from(*number), manner.style),
        Value::Float(number) => float_text(*number, manner.style),
        Value::Guid(bytes) => guid_text(bytes),
        Value::Bytes(bytes) => bytes_text(bytes, to, manner),
        Value::Null => return Ok(Value::Null),
        _ => Moment::of(value).map(|moment| super::time_text::text(&moment, from, manner.style)).unwrap_or_default(),
    };
    let number = matches!(value, Value::Int(_) | Value::Decimal { .. } | Value::Bit(_) | Value::Guid(_));
    if number && limit(to).is_some_and(|limit| text.len() > limit) {
        return match value {
            // A short target shows a star for integers and is an error for the rest.
            Value::Int(_) if to.is_code_page_text() => Ok(Value::Text(fitted("*".to_owned(), to, &manner.collation))),
            _ => Err(SqlError::new(
                8115,
                16,
                format!("Arithmetic overflow error converting {} to data type {}.", type_name(from), type_name(to)),
            )),
        };
    }
    Ok(Value::Text(fitted(text, to, &manner.collation)))
}

fn bytes_text(bytes: &[u8], to: &SqlType, manner: &Manner) -> String {
    let hexed = || bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    match manner.style {
        1 => format!("0x{}", hexed()),
        2 => hexed(),
        _ if to.is_code_page_text() => match manner.collation.encoding() {
            Some(encoding) => encoding.decode_without_bom_handling(bytes).0.into_owned(),
            None => String::from_utf8_lossy(bytes).into_owned(),
        },
        _ => {
            let units: Vec<u16> =
                bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])).collect();
            String::from_utf16_lossy(&units)
        }
    }
}

/// `0F0E0D0C-…` in capitals.
pub(super) fn guid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

pub(super) fn to_binary(value: &Value, from: &SqlType, to: &SqlType, manner: &Manner) -> Result<Value, SqlError> {
    // Numbers keep their low bytes when the target is short; texts and bytes keep their first ones.
    let (mut bytes, is_number) = match value {
        Value::Bytes(bytes) => (bytes.clone(), false),
        Value::Text(text) => (text_bytes(text, from, manner)?, false),
        Value::Guid(text_order) => (guid_storage(text_order).to_vec(), false),
        Value::Bit(bit) => (vec![u8::from(*bit)], true),
        Value::Int(number) => {
            let all = number.to_be_bytes();
            let width = match from {
                SqlType::TinyInt => 1,
                SqlType::SmallInt => 2,
                SqlType::Int => 4,
                _ => 8,
            };
            (all.get(8 - width..).unwrap_or(&all).to_vec(), true)
        }
        Value::Money(number) => (number.to_be_bytes().to_vec(), true),
        _ => return Err(impossible(from, to)),
    };
    if let Some(limit) = limit(to) {
        if is_number && is_fixed(to) {
            let mut padded = vec![0; limit.saturating_sub(bytes.len())];
            padded.extend_from_slice(bytes.get(bytes.len().saturating_sub(limit)..).unwrap_or_default());
            bytes = padded;
        } else {
            bytes.truncate(limit);
            if is_fixed(to) {
                bytes.resize(limit, 0);
            }
        }
    }
    Ok(Value::Bytes(bytes))
}

fn text_bytes(text: &str, from: &SqlType, manner: &Manner) -> Result<Vec<u8>, SqlError> {
    let bad = || SqlError::new(8114, 16, format!("Error converting data type {} to varbinary.", type_name(from)));
    match manner.style {
        1 => text.strip_prefix("0x").and_then(hex).ok_or_else(bad),
        2 => hex(text).ok_or_else(bad),
        _ if from.is_code_page_text() => Ok(match manner.collation.encoding() {
            Some(encoding) => encoding.encode(text).0.into_owned(),
            None => text.as_bytes().to_vec(),
        }),
        _ => Ok(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    }
}

/// The bytes as SQL Server keeps them: the first three groups little-endian.
fn guid_storage(text_order: &[u8; 16]) -> [u8; 16] {
    let t = text_order;
    [t[3], t[2], t[1], t[0], t[5], t[4], t[7], t[6], t[8], t[9], t[10], t[11], t[12], t[13], t[14], t[15]]
}

pub(super) fn to_guid(value: &Value, from: &SqlType) -> Result<Value, SqlError> {
    match value {
        Value::Guid(bytes) => Ok(Value::Guid(*bytes)),
        Value::Text(text) => {
            let digits: String = text.trim().trim_matches(['{', '}']).chars().filter(|c| *c != '-').collect();
            let bytes = digits.get(..32).and_then(hex).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            bytes.map(Value::Guid).ok_or_else(|| {
                SqlError::new(
                    8169,
                    16,
                    "Conversion failed when converting from a character string to uniqueidentifier.",
                )
            })
        }
        Value::Bytes(bytes) => {
            let mut padded = [0; 16];
            for (to, from) in padded.iter_mut().zip(bytes) {
                *to = *from;
            }
            // Turning the groups round twice gives the text order back.
            Ok(Value::Guid(guid_storage(&padded)))
        }
        _ => Err(impossible(from, &SqlType::UniqueIdentifier)),
    }
}
