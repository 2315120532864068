//! Values as the wire has them: one function per form, for ROW and NBCROW alike (MS-TDS 2.2.5.5).

use bytes::{BufMut, BytesMut};

use super::text::{put_utf16, utf16_units};
use super::type_info::{Carrier, ColumnShape, Shape, token};
use crate::collation::Collation;
use crate::value::Value;

/// A value that does not fit the column announced for it: a mistake of the engine, told and not papered over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value does not fit the form {shape:?} announced for it{detail}")]
pub(crate) struct Misfit {
    shape: Shape,
    detail: &'static str,
}

/// NULL's length where two bytes tell the length.
const SHORT_NULL: u16 = 0xFFFF;
/// NULL's length in chunks.
const CHUNKS_NULL: u64 = u64::MAX;
/// A text pointer and its timestamp; clients read past them.
const TEXT_POINTER: [u8; 25] = *b"\x10dummy textptr\0\0\0dummyTS\0";

impl ColumnShape {
    /// Appends `value`.
    #[inline]
    pub(crate) fn put_value(&self, value: &Value, output: &mut BytesMut) -> Result<(), Misfit> {
        match (self.shape, value) {
            (_, Value::Null) => return self.put_null(output),
            (Shape::Integer(width), Value::Int(number)) => return self.put_integer(width, *number, output),
            (Shape::Bit, Value::Bit(bit)) => self.put_number([u8::from(*bit)], output),
            (Shape::Bit, Value::Int(number @ 0..=1)) => self.put_number([u8::from(*number == 1)], output),
            (Shape::Real, Value::Real(number)) => self.put_number(number.to_le_bytes(), output),
            (Shape::Float, Value::Float(number)) => self.put_number(number.to_le_bytes(), output),
            (Shape::Decimal { width, scale }, Value::Decimal { unscaled, scale: given }) => {
                let unscaled = rescale(*unscaled, *given, scale).ok_or(self.misfit(": the scale"))?;
                return self.put_decimal(width, unscaled, output);
            }
            (Shape::Money, Value::Money(amount)) => {
                let [a, b, c, d, e, f, g, h] = amount.to_le_bytes();
                self.put_number([e, f, g, h, a, b, c, d], output);
            }
            (Shape::SmallMoney, Value::Money(amount)) => {
                let amount = i32::try_from(*amount).map_err(|_| self.misfit(": the range"))?;
                self.put_number(amount.to_le_bytes(), output);
            }
            (Shape::Narrow(page, carrier), Value::Text(text)) => {
                return self.put_bytes(carrier, &page.encode(text), output);
            }
            (Shape::Wide(carrier), Value::Text(text)) => return self.put_wide(carrier, text, output),
            (Shape::Bytes(carrier), Value::Bytes(bytes)) => return self.put_bytes(carrier, bytes, output),
            // hierarchyid, geography and geometry: the engine has their text only.
            (Shape::Bytes(Carrier::Chunks), Value::Text(text)) => put_chunk(text.as_bytes(), output),
            (Shape::Json, Value::Text(text)) => put_chunk(text.as_bytes(), output),
            (Shape::Date, Value::Date(days)) => {
                output.put_u8(3);
                self.put_days(*days, output)?;
            }
            (Shape::Time(scale), Value::Time(time)) => {
                output.put_u8(time_width(scale));
                put_time(scale, *time, output);
            }
            (Shape::DateTime2(scale), Value::DateTime2 { days, time }) => {
                output.put_u8(time_width(scale) + 3);
                put_time(scale, *time, output);
                self.put_days(*days, output)?;
            }
            (Shape::DateTimeOffset(scale), Value::DateTimeOffset { days, time, minutes }) => {
                output.put_u8(time_width(scale) + 5);
                put_time(scale, *time, output);
                self.put_days(*days, output)?;
                output.put_i16_le(*minutes);
            }
            (Shape::DateTime, Value::DateTime { days, ticks }) => {
                self.put_number((u64::from(*ticks) << 32 | u64::from(days.cast_unsigned())).to_le_bytes(), output);
            }
            (Shape::SmallDateTime, Value::SmallDateTime { days, minutes }) => {
                self.put_number((u32::from(*minutes) << 16 | u32::from(*days)).to_le_bytes(), output);
            }
            (Shape::Guid, Value::Guid(guid)) => {
                output.put_u8(16);
                output.put_slice(&reorder_guid(*guid));
            }
            (Shape::Variant, value) => put_variant(value, output),
            _ => return Err(self.misfit("")),
        }
        Ok(())
    }

    /// Appends NULL in the form that ROW and RETURNVALUE need; NBCROW leaves NULLs out.
    fn put_null(&self, output: &mut BytesMut) -> Result<(), Misfit> {
        match self.shape {
            _ if self.fixed => return Err(self.misfit(": NULL in a column that is NOT NULL")),
            Shape::Narrow(_, Carrier::Short) | Shape::Wide(Carrier::Short) | Shape::Bytes(Carrier::Short) => {
                output.put_u16_le(SHORT_NULL);
            }
            Shape::Narrow(_, Carrier::Chunks)
            | Shape::Wide(Carrier::Chunks)
            | Shape::Bytes(Carrier::Chunks)
            | Shape::Json => {
                output.put_u64_le(CHUNKS_NULL);
            }
            Shape::Variant => output.put_u32_le(0),
            _ => output.put_u8(0),
        }
        Ok(())
    }

    #[inline]
    fn put_number<const N: usize>(&self, bytes: [u8; N], output: &mut BytesMut) {
        if self.fixed {
            output.put_slice(&bytes);
        } else {
            // In one go: every call into the buffer costs as much as the bytes.
            let mut prefixed = [0; 9];
            prefixed[0] = N as u8;
            prefixed[1..=N].copy_from_slice(&bytes);
            output.put_slice(&prefixed[..=N]);
        }
    }

    #[inline]
    fn put_integer(&self, width: u8, number: i64, output: &mut BytesMut) -> Result<(), Misfit> {
        let range = |_| self.misfit(": the range");
        match width {
            1 => self.put_number(u8::try_from(number).map_err(range)?.to_le_bytes(), output),
            2 => self.put_number(i16::try_from(number).map_err(range)?.to_le_bytes(), output),
            4 => self.put_number(i32::try_from(number).map_err(range)?.to_le_bytes(), output),
            _ => self.put_number(number.to_le_bytes(), output),
        }
        Ok(())
    }

    fn put_decimal(&self, width: u8, unscaled: i128, output: &mut BytesMut) -> Result<(), Misfit> {
        let magnitude = unscaled.unsigned_abs().to_le_bytes();
        let (kept, beyond) = magnitude.split_at(usize::from(width));
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(self.misfit(": the precision"));
        }
        let mut prefixed = [0; 18];
        prefixed[..2].copy_from_slice(&[width + 1, u8::from(unscaled >= 0)]);
        prefixed[2..2 + kept.len()].copy_from_slice(kept);
        output.put_slice(&prefixed[..2 + kept.len()]);
        Ok(())
    }

    fn put_days(&self, days: i32, output: &mut BytesMut) -> Result<(), Misfit> {
        let days = u32::try_from(days).map_err(|_| self.misfit(": the date"))?;
        output.put_slice(&days.to_le_bytes()[..3]);
        Ok(())
    }

    fn put_bytes(&self, carrier: Carrier, bytes: &[u8], output: &mut BytesMut) -> Result<(), Misfit> {
        match carrier {
            Carrier::Short => {
                let length = u16::try_from(bytes.len()).ok().filter(|length| *length < SHORT_NULL);
                output.put_u16_le(length.ok_or(self.misfit(": the length"))?);
                output.put_slice(bytes);
            }
            Carrier::Chunks => put_chunk(bytes, output),
            Carrier::Pointer => {
                output.put_slice(&TEXT_POINTER);
                output.put_u32_le(u32::try_from(bytes.len()).map_err(|_| self.misfit(": the length"))?);
                output.put_slice(bytes);
            }
        }
        Ok(())
    }

    fn put_wide(&self, carrier: Carrier, text: &str, output: &mut BytesMut) -> Result<(), Misfit> {
        let length = utf16_units(text) * 2;
        match carrier {
            Carrier::Short => {
                let length = u16::try_from(length).ok().filter(|length| *length < SHORT_NULL);
                output.put_u16_le(length.ok_or(self.misfit(": the length"))?);
                put_utf16(text, output);
            }
            Carrier::Chunks => {
                output.put_u64_le(length as u64);
                if length > 0 {
                    output.put_u32_le(u32::try_from(length).map_err(|_| self.misfit(": the length"))?);
                    put_utf16(text, output);
                }
                output.put_u32_le(0);
            }
            Carrier::Pointer => {
                output.put_slice(&TEXT_POINTER);
                output.put_u32_le(u32::try_from(length).map_err(|_| self.misfit(": the length"))?);
                put_utf16(text, output);
            }
        }
        Ok(())
    }

    fn misfit(&self, detail: &'static str) -> Misfit {
        Misfit { shape: self.shape, detail }
    }
}

/// A partially length-prefixed value in chunks, in one if it is below 1 GiB.
fn put_chunk(bytes: &[u8], output: &mut BytesMut) {
    output.put_u64_le(bytes.len() as u64);
    for chunk in bytes.chunks(1 << 30) {
        output.put_u32_le(chunk.len() as u32);
        output.put_slice(chunk);
    }
    output.put_u32_le(0);
}

/// How many bytes a time of `scale` takes.
pub(crate) fn time_width(scale: u8) -> u8 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// `time` (100 ns) in ticks of `scale`.
fn put_time(scale: u8, time: u64, output: &mut BytesMut) {
    let ticks = time / 10u64.pow(u32::from(7 - scale.min(7)));
    output.put_slice(&ticks.to_le_bytes()[..usize::from(time_width(scale))]);
}

/// `unscaled` with `to` digits behind the point in place of `from`; `None` if digits would be lost.
fn rescale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if from == to {
        return Some(unscaled);
    }
    let factor = 10i128.checked_pow(u32::from(from.abs_diff(to)))?;
    if from < to { unscaled.checked_mul(factor) } else { (unscaled % factor == 0).then_some(unscaled / factor) }
}

/// Text order to wire order and back: the first three groups are little-endian.
pub(crate) fn reorder_guid(guid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

/// A sql_variant: length, base type, its properties, value.
fn put_variant(value: &Value, output: &mut BytesMut) {
    let start = output.len();
    output.put_u32_le(0);
    match value {
        Value::Null => {}
        Value::Bit(bit) => output.put_slice(&[token::BIT, 0, u8::from(*bit)]),
        Value::Int(number) => match i32::try_from(*number) {
            Ok(number) => {
                output.put_slice(&[token::INT4, 0]);
                output.put_i32_le(number);
            }
            Err(_) => {
                output.put_slice(&[token::INT8, 0]);
                output.put_i64_le(*number);
            }
        },
        Value::Real(number) => {
            output.put_slice(&[token::REAL, 0]);
            output.put_f32_le(*number);
        }
        Value::Float(number) => {
            output.put_slice(&[token::FLOAT, 0]);
            output.put_f64_le(*number);
        }
        Value::Decimal { unscaled, scale } => {
            output.put_slice(&[token::NUMERIC, 2, 38, *scale, u8::from(*unscaled >= 0)]);
            output.put_slice(&unscaled.unsigned_abs().to_le_bytes());
        }
        Value::Money(amount) => {
            output.put_slice(&[token::MONEY, 0]);
            output.put_u64_le(amount.cast_unsigned().rotate_left(32));
        }
        Value::Text(text) => {
            let length = u16::try_from(utf16_units(text) * 2).unwrap_or(8000);
            output.put_slice(&[token::NVARCHAR, 7]);
            output.put_slice(&Collation::default().wire_bytes());
            output.put_u16_le(length);
            put_utf16(text, output);
        }
        Value::Bytes(bytes) => {
            output.put_slice(&[token::VARBINARY, 2]);
            output.put_u16_le(u16::try_from(bytes.len()).unwrap_or(8000));
            output.put_slice(bytes);
        }
        Value::Guid(guid) => {
            output.put_slice(&[token::GUID, 0]);
            output.put_slice(&reorder_guid(*guid));
        }
        Value::Date(days) => {
            output.put_slice(&[token::DATE, 0]);
            output.put_slice(&days.to_le_bytes()[..3]);
        }
        Value::Time(time) => {
            output.put_slice(&[token::TIME, 1, 7]);
            put_time(7, *time, output);
        }
        Value::DateTime { days, ticks } => {
            output.put_slice(&[token::DATETIME, 0]);
            output.put_i32_le(*days);
            output.put_u32_le(*ticks);
        }
        Value::SmallDateTime { days, minutes } => {
            output.put_slice(&[token::SMALL_DATETIME, 0]);
            output.put_u16_le(*days);
            output.put_u16_le(*minutes);
        }
        Value::DateTime2 { days, time } => {
            output.put_slice(&[token::DATETIME2, 1, 7]);
            put_time(7, *time, output);
            output.put_slice(&days.to_le_bytes()[..3]);
        }
        Value::DateTimeOffset { days, time, minutes } => {
            output.put_slice(&[token::DATETIME_OFFSET, 1, 7]);
            put_time(7, *time, output);
            output.put_slice(&days.to_le_bytes()[..3]);
            output.put_i16_le(*minutes);
        }
    }
    let length = u32::try_from(output.len() - start - 4).unwrap_or(u32::MAX);
    output[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
