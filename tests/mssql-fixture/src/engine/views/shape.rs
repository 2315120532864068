//! How sys.columns and sys.types describe a type.

use crate::value::SqlType;

/// The numbers a type has in sys.columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) system: u8,
    pub(crate) user: i32,
    /// Bytes; -1 for `max`.
    pub(crate) length: i16,
    pub(crate) precision: u8,
    pub(crate) scale: u8,
}

/// Every system type once, for sys.types.
pub(crate) const ALL: &[SqlType] = &[
    SqlType::Image,
    SqlType::Text,
    SqlType::UniqueIdentifier,
    SqlType::Date,
    SqlType::Time { scale: 7 },
    SqlType::DateTime2 { scale: 7 },
    SqlType::DateTimeOffset { scale: 7 },
    SqlType::TinyInt,
    SqlType::SmallInt,
    SqlType::Int,
    SqlType::SmallDateTime,
    SqlType::Real,
    SqlType::Money,
    SqlType::DateTime,
    SqlType::Float,
    SqlType::Variant,
    SqlType::NText,
    SqlType::Bit,
    SqlType::Decimal { precision: 38, scale: 38 },
    SqlType::SmallMoney,
    SqlType::BigInt,
    SqlType::HierarchyId,
    SqlType::Geometry,
    SqlType::Geography,
    SqlType::VarBinary { length: Some(8000) },
    SqlType::VarChar { length: Some(8000) },
    SqlType::Binary { length: 8000 },
    SqlType::Char { length: 8000 },
    SqlType::RowVersion,
    SqlType::NVarChar { length: Some(4000) },
    SqlType::NChar { length: 4000 },
    SqlType::Xml,
    SqlType::Json,
    SqlType::Vector { dimensions: 1998 },
];

/// The name of a system type by its `user_type_id`.
pub(crate) fn type_name(id: i32) -> Option<&'static str> {
    match id {
        108 => Some("numeric"),
        256 => Some("sysname"),
        _ => ALL.iter().map(Shape::of).find(|shape| shape.user == id).map(|shape| shape.name),
    }
}

fn bytes(length: u16) -> i16 {
    i16::try_from(length).unwrap_or(i16::MAX)
}

fn long(length: Option<u16>, unit: u16) -> i16 {
    length.map_or(-1, |length| bytes(length.saturating_mul(unit)))
}

impl Shape {
    /// The shape of a type.
    pub(crate) fn of(sql_type: &SqlType) -> Self {
        let shape = |name, system: u8, length, precision, scale| Self {
            name,
            system,
            user: i32::from(system),
            length,
            precision,
            scale,
        };
        let clock = |scale: u8, plain: u8| if scale == 0 { plain } else { plain + 1 + scale };
        let time_bytes = |scale: u8| match scale {
            0..=2 => 3,
            3..=4 => 4,
            _ => 5,
        };
        match sql_type {
            SqlType::Image => shape("image", 34, 16, 0, 0),
            SqlType::Text => shape("text", 35, 16, 0, 0),
            SqlType::UniqueIdentifier => shape("uniqueidentifier", 36, 16, 0, 0),
            SqlType::Date => shape("date", 40, 3, 10, 0),
            SqlType::Time { scale } => shape("time", 41, time_bytes(*scale), clock(*scale, 8), *scale),
            SqlType::DateTime2 { scale } => shape("datetime2", 42, time_bytes(*scale) + 3, clock(*scale, 19), *scale),
            SqlType::DateTimeOffset { scale } => {
                shape("datetimeoffset", 43, time_bytes(*scale) + 5, clock(*scale, 26), *scale)
            }
            SqlType::TinyInt => shape("tinyint", 48, 1, 3, 0),
            SqlType::SmallInt => shape("smallint", 52, 2, 5, 0),
            SqlType::Int => shape("int", 56, 4, 10, 0),
            SqlType::SmallDateTime => shape("smalldatetime", 58, 4, 16, 0),
            SqlType::Real => shape("real", 59, 4, 24, 0),
            SqlType::Money => shape("money", 60, 8, 19, 4),
            SqlType::DateTime => shape("datetime", 61, 8, 23, 3),
            SqlType::Float => shape("float", 62, 8, 53, 0),
            SqlType::Variant => shape("sql_variant", 98, 8016, 0, 0),
            SqlType::NText => shape("ntext", 99, 16, 0, 0),
            SqlType::Bit => shape("bit", 104, 1, 1, 0),
            SqlType::Decimal { precision, scale } => {
                let length = match precision {
                    0..=9 => 5,
                    10..=19 => 9,
                    20..=28 => 13,
                    _ => 17,
                };
                shape("decimal", 106, length, *precision, *scale)
            }
            SqlType::SmallMoney => shape("smallmoney", 122, 4, 10, 4),
            SqlType::BigInt => shape("bigint", 127, 8, 19, 0),
            SqlType::HierarchyId => Self { user: 128, ..shape("hierarchyid", 240, 892, 0, 0) },
            SqlType::Geometry => Self { user: 129, ..shape("geometry", 240, -1, 0, 0) },
            SqlType::Geography => Self { user: 130, ..shape("geography", 240, -1, 0, 0) },
            SqlType::VarBinary { length } => shape("varbinary", 165, long(*length, 1), 0, 0),
            SqlType::VarChar { length } => shape("varchar", 167, long(*length, 1), 0, 0),
            SqlType::Binary { length } => shape("binary", 173, bytes(*length), 0, 0),
            SqlType::Char { length } => shape("char", 175, bytes(*length), 0, 0),
            SqlType::RowVersion => shape("timestamp", 189, 8, 0, 0),
            SqlType::NVarChar { length } => shape("nvarchar", 231, long(*length, 2), 0, 0),
            SqlType::NChar { length } => shape("nchar", 239, long(Some(*length), 2), 0, 0),
            SqlType::Xml => shape("xml", 241, -1, 0, 0),
            SqlType::Json => shape("json", 244, -1, 0, 0),
            SqlType::Vector { dimensions } => {
                shape("vector", 255, bytes(dimensions.saturating_mul(4).saturating_add(8)), 0, 0)
            }
        }
    }

    /// Whether columns of the type show a collation.
    pub(crate) fn has_collation(&self) -> bool {
        matches!(self.system, 35 | 99 | 167 | 175 | 231 | 239)
    }
}
