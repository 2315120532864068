//! Types and values that clients send: parameters of procedure calls and rows of bulk loads (MS-TDS 2.2.5.5, 2.2.5.6).

use super::cursor::{Cursor, DecodeError, utf16};
use super::encode::{reorder_guid, time_width};
use super::text::CodePage;
use super::type_info::{MAX_LENGTH, token};
use crate::value::{SqlType, Value};

/// A type as a client announced it: SQL Server's type, and how its values lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireType {
    /// The type it stands for.
    pub(crate) sql_type: SqlType,
    token: u8,
    length: u16,
    scale: u8,
    code_page: Option<CodePage>,
}

impl WireType {
    /// Reads a TYPE_INFO.
    pub(crate) fn read(input: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let token = input.u8()?;
        let mut this = Self { sql_type: SqlType::Int, token, length: 0, scale: 0, code_page: None };
        this.sql_type = match token {
            token::NULL | token::INT4 => SqlType::Int,
            token::INT1 => SqlType::TinyInt,
            token::BIT => SqlType::Bit,
            token::INT2 => SqlType::SmallInt,
            token::INT8 => SqlType::BigInt,
            token::REAL => SqlType::Real,
            token::FLOAT => SqlType::Float,
            token::MONEY => SqlType::Money,
            token::SMALL_MONEY => SqlType::SmallMoney,
            token::DATETIME => SqlType::DateTime,
            token::SMALL_DATETIME => SqlType::SmallDateTime,
            token::DATE => SqlType::Date,
            token::XML => this.read_xml(input)?,
            token::JSON => SqlType::Json,
            token::BIT_N | token::INT_N | token::FLOAT_N | token::MONEY_N | token::DATETIME_N | token::GUID => {
                let width = input.u8()?;
                number_type(token, width)?
            }
            token::DECIMAL | token::NUMERIC => {
                let [_, precision, scale] = input.array()?;
                this.scale = scale;
                SqlType::Decimal { precision, scale }
            }
            token::TIME | token::DATETIME2 | token::DATETIME_OFFSET => {
                this.scale = scale(input)?;
                let scale = this.scale;
                match token {
                    token::TIME => SqlType::Time { scale },
                    token::DATETIME2 => SqlType::DateTime2 { scale },
                    _ => SqlType::DateTimeOffset { scale },
                }
            }
            token::VARBINARY | token::BINARY | token::VARCHAR | token::CHAR | token::NVARCHAR | token::NCHAR => {
                this.read_short(input)?
            }
            token::TEXT | token::NTEXT | token::IMAGE | token::VARIANT => this.read_long(input)?,
            token::UDT => return Err(DecodeError::malformed("CLR types are not taken: send varbinary")),
            token::TABLE => return Err(DecodeError::malformed("table-valued parameters are not taken")),
            other => return Err(DecodeError::malformed(format!("unknown type {other:#04x}"))),
        };
        Ok(this)
    }

    /// Whether COLMETADATA has a table's name behind this TYPE_INFO.
    pub(crate) fn has_table_name(&self) -> bool {
        matches!(self.token, token::TEXT | token::NTEXT | token::IMAGE)
    }

    fn read_xml(&self, input: &mut Cursor<'_>) -> Result<SqlType, DecodeError> {
        if input.u8()? != 0 {
            let _ = (input.short_text()?, input.short_text()?, input.long_text()?);
        }
        Ok(SqlType::Xml)
    }

    fn read_short(&mut self, input: &mut Cursor<'_>) -> Result<SqlType, DecodeError> {
        self.length = input.u16()?;
        let (length, max) = (self.length, self.length == MAX_LENGTH);
        if !matches!(self.token, token::VARBINARY | token::BINARY) {
            self.code_page = Some(CodePage::of_wire(input.array()?));
        }
        Ok(match self.token {
            token::VARBINARY => SqlType::VarBinary { length: (!max).then_some(length) },
            token::BINARY => SqlType::Binary { length },
            token::VARCHAR => SqlType::VarChar { length: (!max).then_some(length) },
            token::CHAR => SqlType::Char { length },
            token::NVARCHAR => SqlType::NVarChar { length: (!max).then_some(length / 2) },
            _ => SqlType::NChar { length: length / 2 },
        })
    }

    fn read_long(&mut self, input: &mut Cursor<'_>) -> Result<SqlType, DecodeError> {
        let _length = input.u32()?;
        if matches!(self.token, token::TEXT | token::NTEXT) {
            self.code_page = Some(CodePage::of_wire(input.array()?));
        }
        Ok(match self.token {
            token::TEXT => SqlType::Text,
            token::NTEXT => SqlType::NText,
            token::IMAGE => SqlType::Image,
            _ => SqlType::Variant,
        })
    }

    /// Reads a value of this type, as parameters have it.
    pub(crate) fn read_value(&self, input: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        if matches!(self.token, token::TEXT | token::NTEXT | token::IMAGE) {
            const NULL: u32 = u32::MAX;
            return match input.u32()? {
                NULL => Ok(Value::Null),
                length => Ok(self.long_value(input.bytes(length as usize)?)),
            };
        }
        self.read_plain(input)
    }

    /// Reads a value of this type, as rows have it: text and image come with a text pointer there.
    pub(crate) fn read_row_value(&self, input: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        if !self.has_table_name() {
            return self.read_plain(input);
        }
        let pointer = input.u8()?;
        if pointer == 0 {
            return Ok(Value::Null);
        }
        input.bytes(usize::from(pointer) + 8)?;
        let length = input.u32()? as usize;
        Ok(self.long_value(input.bytes(length)?))
    }

    fn read_plain(&self, input: &mut Cursor<'_>) -> Result<Value, DecodeError> {
        let width = match self.token {
            token::NULL => return Ok(Value::Null),
            token::INT1 | token::BIT => 1,
            token::INT2 => 2,
            token::INT4 | token::REAL | token::SMALL_MONEY | token::SMALL_DATETIME => 4,
            token::INT8 | token::FLOAT | token::MONEY | token::DATETIME => 8,
            token::VARBINARY | token::BINARY | token::VARCHAR | token::CHAR | token::NVARCHAR | token::NCHAR
                if self.length != MAX_LENGTH =>
            {
                return match input.u16()? {
                    MAX_LENGTH => Ok(Value::Null),
                    length => Ok(self.long_value(input.bytes(usize::from(length))?)),
                };
            }
            token::VARBINARY
            | token::BINARY
            | token::VARCHAR
            | token::CHAR
            | token::NVARCHAR
            | token::NCHAR
            | token::XML
            | token::JSON => {
                return Ok(read_chunks(input)?.map_or(Value::Null, |bytes| self.long_value(&bytes)));
            }
            token::VARIANT => return read_variant(input),
            _ => match input.u8()? {
                0 => return Ok(Value::Null),
                width => width,
            },
        };
        let bytes = input.bytes(usize::from(width))?;
        self.number(bytes)
    }

    /// A value of a type whose length is told in one byte, or fixed.
    fn number(&self, bytes: &[u8]) -> Result<Value, DecodeError> {
        // MS-TDS leaves it to the server; SQL Server answers 4816 or 8009 to a length that is not the type's.
        let wrong =
            || DecodeError::malformed(format!("Invalid column length from the bcp client: {} bytes", bytes.len()));
        let mut input = Cursor::new(bytes);
        let value = match (&self.sql_type, bytes.len()) {
            (SqlType::Bit, 1) => Value::Bit(input.u8()? != 0),
            (SqlType::TinyInt, 1) => Value::Int(i64::from(input.u8()?)),
            (SqlType::SmallInt, 2) => Value::Int(i64::from(input.u16()?.cast_signed())),
            (SqlType::Int, 4) => Value::Int(i64::from(input.u32()?.cast_signed())),
            (SqlType::BigInt, 8) => Value::Int(input.u64()?.cast_signed()),
            (SqlType::Real, 4) => Value::Real(f32::from_le_bytes(input.array()?)),
            (SqlType::Float, 8) => Value::Float(f64::from_le_bytes(input.array()?)),
            (SqlType::Money, 8) => Value::Money(input.u64()?.rotate_left(32).cast_signed()),
            (SqlType::SmallMoney, 4) => Value::Money(i64::from(input.u32()?.cast_signed())),
            (SqlType::DateTime, 8) => Value::DateTime { days: input.u32()?.cast_signed(), ticks: input.u32()? },
            (SqlType::SmallDateTime, 4) => Value::SmallDateTime { days: input.u16()?, minutes: input.u16()? },
            (SqlType::UniqueIdentifier, 16) => Value::Guid(reorder_guid(input.array()?)),
            (SqlType::Decimal { .. }, 2..=17) => {
                let positive = input.u8()? != 0;
                let mut magnitude = [0; 16];
                magnitude[..bytes.len() - 1].copy_from_slice(&bytes[1..]);
                let magnitude = i128::try_from(u128::from_le_bytes(magnitude)).map_err(|_| wrong())?;
                Value::Decimal { unscaled: if positive { magnitude } else { -magnitude }, scale: self.scale }
            }
            (SqlType::Date, 3) => Value::Date(days(&mut input)?),
            (SqlType::Time { scale }, length) if length == usize::from(time_width(*scale)) => {
                Value::Time(time(*scale, &mut input)?)
            }
            (SqlType::DateTime2 { scale }, length) if length == usize::from(time_width(*scale)) + 3 => {
                Value::DateTime2 { time: time(*scale, &mut input)?, days: days(&mut input)? }
            }
            (SqlType::DateTimeOffset { scale }, length) if length == usize::from(time_width(*scale)) + 5 => {
                let (time, days) = (time(*scale, &mut input)?, days(&mut input)?);
                Value::DateTimeOffset { days, time, minutes: input.u16()?.cast_signed() }
            }
            _ => return Err(wrong()),
        };
        Ok(value)
    }

    /// A value of text or bytes.
    fn long_value(&self, bytes: &[u8]) -> Value {
        match self.token {
            token::VARBINARY | token::BINARY | token::IMAGE => Value::Bytes(bytes.to_vec()),
            token::NVARCHAR | token::NCHAR | token::NTEXT => Value::Text(utf16(bytes)),
            token::XML => Value::Text(utf16(bytes).trim_start_matches('\u{FEFF}').to_owned()),
            token::JSON => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            _ => Value::Text(self.code_page.unwrap_or(CodePage::Utf8).decode(bytes)),
        }
    }
}

fn scale(input: &mut Cursor<'_>) -> Result<u8, DecodeError> {
    match input.u8()? {
        scale @ 0..=7 => Ok(scale),
        other => Err(DecodeError::malformed(format!("a scale of {other}"))),
    }
}

fn number_type(token: u8, width: u8) -> Result<SqlType, DecodeError> {
    Ok(match (token, width) {
        (token::BIT_N, 1) => SqlType::Bit,
        (token::INT_N, 1) => SqlType::TinyInt,
        (token::INT_N, 2) => SqlType::SmallInt,
        (token::INT_N, 4) => SqlType::Int,
        (token::INT_N, 8) => SqlType::BigInt,
        (token::FLOAT_N, 4) => SqlType::Real,
        (token::FLOAT_N, 8) => SqlType::Float,
        (token::MONEY_N, 4) => SqlType::SmallMoney,
        (token::MONEY_N, 8) => SqlType::Money,
        (token::DATETIME_N, 4) => SqlType::SmallDateTime,
        (token::DATETIME_N, 8) => SqlType::DateTime,
        (token::GUID, 16) => SqlType::UniqueIdentifier,
        _ => return Err(DecodeError::malformed(format!("type {token:#04x} of {width} bytes"))),
    })
}

fn days(input: &mut Cursor<'_>) -> Result<i32, DecodeError> {
    let days = input.unsigned(3)?;
    i32::try_from(days).map_err(|_| DecodeError::malformed("a date out of range"))
}

fn time(scale: u8, input: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    Ok(input.unsigned(usize::from(time_width(scale)))? * 10u64.pow(u32::from(7 - scale)))
}

/// A partially length-prefixed value; `None` is NULL.
fn read_chunks(input: &mut Cursor<'_>) -> Result<Option<Vec<u8>>, DecodeError> {
    const NULL: u64 = u64::MAX;
    if input.u64()? == NULL {
        return Ok(None);
    }
    // First to the end, so that a value that is not all there yet costs no copying.
    let mut ahead = input.clone();
    let mut total = 0;
    loop {
        match ahead.u32()? as usize {
            0 => break,
            length => total += ahead.bytes(length)?.len(),
        }
    }
    let mut bytes = Vec::with_capacity(total);
    loop {
        match input.u32()? as usize {
            0 => return Ok(Some(bytes)),
            length => bytes.extend_from_slice(input.bytes(length)?),
        }
    }
}

/// A sql_variant: its value, without the base type.
fn read_variant(input: &mut Cursor<'_>) -> Result<Value, DecodeError> {
    let length = input.u32()? as usize;
    let mut input = Cursor::new(input.bytes(length)?);
    if input.is_empty() {
        return Ok(Value::Null);
    }
    let (token, properties) = (input.u8()?, usize::from(input.u8()?));
    let mut properties = Cursor::new(input.bytes(properties)?);
    let value = input.bytes(input.remaining())?;
    let mut base = WireType { sql_type: SqlType::Int, token, length: 0, scale: 0, code_page: None };
    base.sql_type = match token {
        token::DECIMAL | token::NUMERIC => {
            let [precision, scale] = properties.array()?;
            base.scale = scale;
            SqlType::Decimal { precision, scale }
        }
        token::TIME => SqlType::Time { scale: scale(&mut properties)? },
        token::DATETIME2 => SqlType::DateTime2 { scale: scale(&mut properties)? },
        token::DATETIME_OFFSET => SqlType::DateTimeOffset { scale: scale(&mut properties)? },
        token::VARCHAR | token::CHAR | token::NVARCHAR | token::NCHAR => {
            base.code_page = Some(CodePage::of_wire(properties.array()?));
            return Ok(base.long_value(value));
        }
        token::VARBINARY | token::BINARY => return Ok(base.long_value(value)),
        token::GUID => SqlType::UniqueIdentifier,
        _ => WireType::read(&mut Cursor::new(&[token]))?.sql_type,
    };
    base.number(value)
}
