//! CAST and CONVERT: one value from one SQL Server type to another.

mod number;
mod number_text;
mod text;
mod time;
mod time_text;

pub(crate) use number::{decimal_parts, fits, power_of_ten, rescale};
pub(crate) use time::{LAST_DAY, Moment, now};

use super::error::SqlError;
use crate::collation::Collation;
use crate::value::{SqlType, Value};

/// How a conversion is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// CONVERT's style; 0 when none is given.
    pub(crate) style: i32,
    /// The collation of the text that is made or read, for its code page.
    pub(crate) collation: Collation,
}

/// The name SQL Server gives a type in messages.
pub(crate) fn type_name(sql_type: &SqlType) -> &'static str {
    match sql_type {
        SqlType::Bit => "bit",
        SqlType::TinyInt => "tinyint",
        SqlType::SmallInt => "smallint",
        SqlType::Int => "int",
        SqlType::BigInt => "bigint",
        SqlType::Decimal { .. } => "numeric",
        SqlType::Money => "money",
        SqlType::SmallMoney => "smallmoney",
        SqlType::Real => "real",
        SqlType::Float => "float",
        SqlType::Char { .. } => "char",
        SqlType::VarChar { .. } => "varchar",
        SqlType::Text => "text",
        SqlType::NChar { .. } => "nchar",
        SqlType::NVarChar { .. } => "nvarchar",
        SqlType::NText => "ntext",
        SqlType::Binary { .. } => "binary",
        SqlType::VarBinary { .. } => "varbinary",
        SqlType::Image => "image",
        SqlType::RowVersion => "timestamp",
        SqlType::Date => "date",
        SqlType::Time { .. } => "time",
        SqlType::DateTime => "datetime",
        SqlType::SmallDateTime => "smalldatetime",
        SqlType::DateTime2 { .. } => "datetime2",
        SqlType::DateTimeOffset { .. } => "datetimeoffset",
        SqlType::UniqueIdentifier => "uniqueidentifier",
        SqlType::Xml => "xml",
        SqlType::Variant => "sql_variant",
        SqlType::HierarchyId => "hierarchyid",
        SqlType::Geography => "geography",
        SqlType::Geometry => "geometry",
        SqlType::Json => "json",
        SqlType::Vector { .. } => "vector",
    }
}

/// Converts a value. Text that is too long is cut, as CAST does; see [`too_long`] for what INSERT does instead.
pub(crate) fn convert(value: Value, from: &SqlType, to: &SqlType, manner: &Manner) -> Result<Value, SqlError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    if to.is_text() {
        return text::to_text(&value, from, to, manner);
    }
    if to.is_binary() {
        return text::to_binary(&value, from, to, manner);
    }
    match to {
        SqlType::Bit => number::to_bit(&value, from),
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => number::to_integer(&value, from, to),
        SqlType::Decimal { precision, scale } => number::to_decimal(&value, from, *precision, *scale),
        SqlType::Money | SqlType::SmallMoney => number::to_money(&value, from, to),
        SqlType::Real | SqlType::Float => number::to_float(&value, from, to),
        SqlType::UniqueIdentifier => text::to_guid(&value, from),
        _ => time::to_time(&value, from, to, manner),
    }
}

/// Whether a text or binary value would lose something when it is put into a column of the type. Trailing blanks
/// (and, for binary, nothing) may be lost.
pub(crate) fn too_long(value: &Value, to: &SqlType, collation: &Collation) -> bool {
    text::too_long(value, to, collation)
}

/// How many bytes `DATALENGTH` gives for a value of a type.
pub(crate) fn data_length(value: &Value, sql_type: &SqlType, collation: &Collation) -> usize {
    match (value, sql_type) {
        (Value::Text(text), sql_type) if sql_type.is_code_page_text() => text::encoded_length(text, collation),
        (Value::Text(text), _) => text.encode_utf16().count() * 2,
        (Value::Bytes(bytes), _) => bytes.len(),
        (_, SqlType::Bit | SqlType::TinyInt) => 1,
        (_, SqlType::SmallInt) => 2,
        (_, SqlType::Int | SqlType::SmallMoney | SqlType::Real | SqlType::SmallDateTime) => 4,
        (_, SqlType::Date) => 3,
        (_, SqlType::Time { scale }) => time_length(*scale),
        (_, SqlType::DateTime2 { scale }) => time_length(*scale) + 3,
        (_, SqlType::DateTimeOffset { scale }) => time_length(*scale) + 5,
        (_, SqlType::Decimal { precision, .. }) => match precision {
            0..=9 => 5,
            10..=19 => 9,
            20..=28 => 13,
            _ => 17,
        },
        (_, SqlType::UniqueIdentifier) => 16,
        _ => 8,
    }
}

fn time_length(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// The error of a conversion that is never possible.
fn impossible(from: &SqlType, to: &SqlType) -> SqlError {
    SqlError::new(
        529,
        16,
        format!("Explicit conversion from data type {} to {} is not allowed.", type_name(from), type_name(to)),
    )
}
