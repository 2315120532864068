//! TYPE_INFO: how a column's type is announced (MS-TDS 2.2.5.6), and the shape that its values then have.

use bytes::{BufMut, BytesMut};

use super::text::{CodePage, put_utf16, utf16_units};
use crate::value::{Column, SqlType};

/// Type tokens (MS-TDS 2.2.5.5).
pub(crate) mod token {
    pub(crate) const NULL: u8 = 0x1F;
    pub(crate) const INT1: u8 = 0x30;
    pub(crate) const BIT: u8 = 0x32;
    pub(crate) const INT2: u8 = 0x34;
    pub(crate) const INT4: u8 = 0x38;
    pub(crate) const SMALL_DATETIME: u8 = 0x3A;
    pub(crate) const REAL: u8 = 0x3B;
    pub(crate) const MONEY: u8 = 0x3C;
    pub(crate) const DATETIME: u8 = 0x3D;
    pub(crate) const FLOAT: u8 = 0x3E;
    pub(crate) const SMALL_MONEY: u8 = 0x7A;
    pub(crate) const INT8: u8 = 0x7F;
    pub(crate) const GUID: u8 = 0x24;
    pub(crate) const INT_N: u8 = 0x26;
    pub(crate) const DATE: u8 = 0x28;
    pub(crate) const TIME: u8 = 0x29;
    pub(crate) const DATETIME2: u8 = 0x2A;
    pub(crate) const DATETIME_OFFSET: u8 = 0x2B;
    pub(crate) const BIT_N: u8 = 0x68;
    pub(crate) const DECIMAL: u8 = 0x6A;
    pub(crate) const NUMERIC: u8 = 0x6C;
    pub(crate) const FLOAT_N: u8 = 0x6D;
    pub(crate) const MONEY_N: u8 = 0x6E;
    pub(crate) const DATETIME_N: u8 = 0x6F;
    pub(crate) const VARBINARY: u8 = 0xA5;
    pub(crate) const VARCHAR: u8 = 0xA7;
    pub(crate) const BINARY: u8 = 0xAD;
    pub(crate) const CHAR: u8 = 0xAF;
    pub(crate) const NVARCHAR: u8 = 0xE7;
    pub(crate) const NCHAR: u8 = 0xEF;
    pub(crate) const IMAGE: u8 = 0x22;
    pub(crate) const TEXT: u8 = 0x23;
    pub(crate) const NTEXT: u8 = 0x63;
    pub(crate) const VARIANT: u8 = 0x62;
    pub(crate) const UDT: u8 = 0xF0;
    pub(crate) const XML: u8 = 0xF1;
    pub(crate) const TABLE: u8 = 0xF3;
    pub(crate) const JSON: u8 = 0xF4;
}

/// The length that stands for `max` in a TYPE_INFO.
pub(crate) const MAX_LENGTH: u16 = 0xFFFF;

/// The form that a column's values have on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One byte.
    Bit,
    /// An integer of that many bytes; one byte is unsigned.
    Integer(u8),
    /// Four bytes.
    Real,
    /// Eight bytes.
    Float,
    /// A sign and a magnitude of that many bytes.
    Decimal { width: u8, scale: u8 },
    /// Ten-thousandths in eight bytes, the high half first.
    Money,
    /// Ten-thousandths in four bytes.
    SmallMoney,
    /// Text in a code page.
    Narrow(CodePage, Carrier),
    /// Text in UTF-16.
    Wide(Carrier),
    /// Bytes.
    Bytes(Carrier),
    /// json, if the client knows the type.
    Json,
    /// Days in three bytes.
    Date,
    /// Ticks of the scale.
    Time(u8),
    /// Days and three-hundredths of a second.
    DateTime,
    /// Days and minutes.
    SmallDateTime,
    /// Ticks of the scale, then days.
    DateTime2(u8),
    /// As `DateTime2`, then minutes.
    DateTimeOffset(u8),
    /// Sixteen bytes.
    Guid,
    /// A type of its own in each value.
    Variant,
}

/// How the length of text or bytes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Two bytes of length, then the value.
    Short,
    /// Partially length-prefixed: chunks, for the `max` types (MS-TDS 2.2.5.2.3).
    Chunks,
    /// A text pointer, four bytes of length, then the value, for `text`, `ntext` and `image`.
    Pointer,
}

/// What the client can take, which decides the type that is announced for some columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Abilities {
    /// The client has asked for the json type.
    pub(crate) json: bool,
}

/// One column, ready to encode values for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColumnShape {
    /// The form of its values.
    pub(crate) shape: Shape,
    /// The type token is one that has no NULL and no length byte.
    pub(crate) fixed: bool,
}

impl ColumnShape {
    /// The shape that values of `column` have.
    pub(crate) fn of(column: &Column, abilities: Abilities) -> Self {
        let shape = shape(column, abilities);
        let has_fixed_form = matches!(
            shape,
            Shape::Bit
                | Shape::Integer(_)
                | Shape::Real
                | Shape::Float
                | Shape::Money
                | Shape::SmallMoney
                | Shape::DateTime
                | Shape::SmallDateTime
        );
        Self { shape, fixed: has_fixed_form && !column.nullable }
    }

    /// Writes the TYPE_INFO of `column`, whose shape this is.
    pub(crate) fn put_type_info(&self, column: &Column, output: &mut BytesMut) {
        match self.shape {
            Shape::Bit => self.put_number_type(token::BIT, token::BIT_N, 1, output),
            Shape::Integer(1) => self.put_number_type(token::INT1, token::INT_N, 1, output),
            Shape::Integer(2) => self.put_number_type(token::INT2, token::INT_N, 2, output),
            Shape::Integer(4) => self.put_number_type(token::INT4, token::INT_N, 4, output),
            Shape::Integer(_) => self.put_number_type(token::INT8, token::INT_N, 8, output),
            Shape::Real => self.put_number_type(token::REAL, token::FLOAT_N, 4, output),
            Shape::Float => self.put_number_type(token::FLOAT, token::FLOAT_N, 8, output),
            Shape::Money => self.put_number_type(token::MONEY, token::MONEY_N, 8, output),
            Shape::SmallMoney => self.put_number_type(token::SMALL_MONEY, token::MONEY_N, 4, output),
            Shape::DateTime => self.put_number_type(token::DATETIME, token::DATETIME_N, 8, output),
            Shape::SmallDateTime => self.put_number_type(token::SMALL_DATETIME, token::DATETIME_N, 4, output),
            Shape::Decimal { width, scale } => {
                let precision = if let SqlType::Decimal { precision, .. } = column.sql_type { precision } else { 38 };
                output.put_slice(&[token::NUMERIC, width + 1, precision, scale]);
            }
            Shape::Date => output.put_u8(token::DATE),
            Shape::Time(scale) => output.put_slice(&[token::TIME, scale]),
            Shape::DateTime2(scale) => output.put_slice(&[token::DATETIME2, scale]),
            Shape::DateTimeOffset(scale) => output.put_slice(&[token::DATETIME_OFFSET, scale]),
            Shape::Guid => output.put_slice(&[token::GUID, 16]),
            Shape::Json => output.put_u8(token::JSON),
            Shape::Variant => {
                output.put_u8(token::VARIANT);
                // The longest sql_variant with its own type, as SQL Server announces it.
                output.put_u32_le(8009);
            }
            Shape::Narrow(..) | Shape::Wide(_) | Shape::Bytes(_) => put_long_type(column, self.shape, output),
        }
    }

    fn put_number_type(&self, fixed: u8, nullable: u8, width: u8, output: &mut BytesMut) {
        if self.fixed {
            output.put_u8(fixed);
        } else {
            output.put_slice(&[nullable, width]);
        }
    }
}

/// How many bytes the magnitude of a decimal of `precision` digits takes.
pub(crate) fn decimal_width(precision: u8) -> u8 {
    match precision {
        0..=9 => 4,
        10..=19 => 8,
        20..=28 => 12,
        _ => 16,
    }
}

fn shape(column: &Column, abilities: Abilities) -> Shape {
    let carrier = |length: &Option<u16>| if length.is_some() { Carrier::Short } else { Carrier::Chunks };
    let page = || CodePage::of(&column.collation);
    match &column.sql_type {
        SqlType::Bit => Shape::Bit,
        SqlType::TinyInt => Shape::Integer(1),
        SqlType::SmallInt => Shape::Integer(2),
        SqlType::Int => Shape::Integer(4),
        SqlType::BigInt => Shape::Integer(8),
        SqlType::Decimal { precision, scale } => Shape::Decimal { width: decimal_width(*precision), scale: *scale },
        SqlType::Money => Shape::Money,
        SqlType::SmallMoney => Shape::SmallMoney,
        SqlType::Real => Shape::Real,
        SqlType::Float => Shape::Float,
        SqlType::Char { .. } => Shape::Narrow(page(), Carrier::Short),
        SqlType::VarChar { length } => Shape::Narrow(page(), carrier(length)),
        SqlType::Text => Shape::Narrow(page(), Carrier::Pointer),
        SqlType::NChar { .. } => Shape::Wide(Carrier::Short),
        SqlType::NVarChar { length } => Shape::Wide(carrier(length)),
        SqlType::NText => Shape::Wide(Carrier::Pointer),
        SqlType::Binary { .. } | SqlType::RowVersion => Shape::Bytes(Carrier::Short),
        SqlType::VarBinary { length } => Shape::Bytes(carrier(length)),
        SqlType::Image => Shape::Bytes(Carrier::Pointer),
        SqlType::Date => Shape::Date,
        SqlType::Time { scale } => Shape::Time(*scale),
        SqlType::DateTime => Shape::DateTime,
        SqlType::SmallDateTime => Shape::SmallDateTime,
        SqlType::DateTime2 { scale } => Shape::DateTime2(*scale),
        SqlType::DateTimeOffset { scale } => Shape::DateTimeOffset(*scale),
        SqlType::UniqueIdentifier => Shape::Guid,
        SqlType::Xml => Shape::Wide(Carrier::Chunks),
        SqlType::Variant => Shape::Variant,
        SqlType::HierarchyId | SqlType::Geography | SqlType::Geometry => Shape::Bytes(Carrier::Chunks),
        SqlType::Json if abilities.json => Shape::Json,
        // What a client gets that does not know these two types.
        SqlType::Json | SqlType::Vector { .. } => Shape::Wide(Carrier::Chunks),
    }
}

/// TYPE_INFO of text and bytes of every kind.
fn put_long_type(column: &Column, shape: Shape, output: &mut BytesMut) {
    let (token, length) = match &column.sql_type {
        SqlType::Char { length } => (token::CHAR, *length),
        SqlType::VarChar { length } => (token::VARCHAR, length.unwrap_or(MAX_LENGTH)),
        SqlType::NChar { length } => (token::NCHAR, length.saturating_mul(2)),
        SqlType::NVarChar { length } => (token::NVARCHAR, length.map_or(MAX_LENGTH, |units| units.saturating_mul(2))),
        SqlType::Binary { length } => (token::BINARY, *length),
        SqlType::RowVersion => (token::BINARY, 8),
        SqlType::VarBinary { length } => (token::VARBINARY, length.unwrap_or(MAX_LENGTH)),
        SqlType::Text | SqlType::NText | SqlType::Image => {
            let token = match shape {
                Shape::Narrow(..) => token::TEXT,
                Shape::Wide(_) => token::NTEXT,
                _ => token::IMAGE,
            };
            output.put_u8(token);
            output.put_u32_le(if token == token::NTEXT { 0x7FFF_FFFE } else { 0x7FFF_FFFF });
            if token != token::IMAGE {
                output.put_slice(&column.collation.wire_bytes());
            }
            return;
        }
        SqlType::Xml => {
            output.put_slice(&[token::XML, 0]);
            return;
        }
        SqlType::HierarchyId => return put_udt("hierarchyid", "SqlHierarchyId", 892, output),
        SqlType::Geography => return put_udt("geography", "SqlGeography", MAX_LENGTH, output),
        SqlType::Geometry => return put_udt("geometry", "SqlGeometry", MAX_LENGTH, output),
        _ => (token::NVARCHAR, MAX_LENGTH),
    };
    output.put_u8(token);
    output.put_u16_le(length);
    if !matches!(shape, Shape::Bytes(_)) {
        output.put_slice(&column.collation.wire_bytes());
    }
}

/// UDT_INFO of one of the types that come with SQL Server (MS-TDS 2.2.5.5.4).
fn put_udt(name: &str, class: &str, length: u16, output: &mut BytesMut) {
    output.put_u8(token::UDT);
    output.put_u16_le(length);
    for part in ["", "sys", name] {
        put_short_text(part, output);
    }
    let assembly = format!("Microsoft.SqlServer.Types.{class}, Microsoft.SqlServer.Types");
    put_long_text(&assembly, output);
}

/// B_VARCHAR; what is too long for it is cut.
pub(crate) fn put_short_text(text: &str, output: &mut BytesMut) {
    let text = cut(text, usize::from(u8::MAX));
    output.put_u8(u8::try_from(utf16_units(text)).unwrap_or(u8::MAX));
    put_utf16(text, output);
}

/// US_VARCHAR; what is too long for it is cut.
pub(crate) fn put_long_text(text: &str, output: &mut BytesMut) {
    // The longest message of an ERROR token, whose own length has two bytes too.
    let text = cut(text, 16_000);
    output.put_u16_le(u16::try_from(utf16_units(text)).unwrap_or(u16::MAX));
    put_utf16(text, output);
}

/// The longest start of `text` that has at most `units` UTF-16 units.
fn cut(text: &str, units: usize) -> &str {
    let mut seen = 0;
    for (place, character) in text.char_indices() {
        seen += character.len_utf16();
        if seen > units {
            return &text[..place];
        }
    }
    text
}
