//! What crosses between the engine and the wire: SQL Server's types, its values and the shape of a column.
//! The engine knows no TDS and the wire knows no SQLite; both know this file.

pub use crate::collation::Collation;

/// A SQL Server type as a column declares it. Lengths are bytes for `Char`, `VarChar`, `Binary` and `VarBinary`
/// and UTF-16 units for `NChar` and `NVarChar`; `None` stands for `max`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `bit`
    Bit,
    /// `tinyint`, 0 to 255
    TinyInt,
    /// `smallint`
    SmallInt,
    /// `int`
    Int,
    /// `bigint`
    BigInt,
    /// `decimal(p,s)` or `numeric(p,s)`
    Decimal {
        /// All digits, 1 to 38.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// `money`
    Money,
    /// `smallmoney`
    SmallMoney,
    /// `real`, `float(1)` to `float(24)`
    Real,
    /// `float`, `float(25)` to `float(53)`
    Float,
    /// `char(n)`
    Char {
        /// Bytes, 1 to 8000.
        length: u16,
    },
    /// `varchar(n)` or `varchar(max)`
    VarChar {
        /// Bytes; `None` is `max`.
        length: Option<u16>,
    },
    /// `text`
    Text,
    /// `nchar(n)`
    NChar {
        /// UTF-16 units, 1 to 4000.
        length: u16,
    },
    /// `nvarchar(n)` or `nvarchar(max)`
    NVarChar {
        /// UTF-16 units; `None` is `max`.
        length: Option<u16>,
    },
    /// `ntext`
    NText,
    /// `binary(n)`
    Binary {
        /// Bytes, 1 to 8000.
        length: u16,
    },
    /// `varbinary(n)` or `varbinary(max)`
    VarBinary {
        /// Bytes; `None` is `max`.
        length: Option<u16>,
    },
    /// `image`
    Image,
    /// `rowversion`, also called `timestamp`: eight bytes
    RowVersion,
    /// `date`
    Date,
    /// `time(n)`
    Time {
        /// Digits of the second's fraction, 0 to 7.
        scale: u8,
    },
    /// `datetime`
    DateTime,
    /// `smalldatetime`
    SmallDateTime,
    /// `datetime2(n)`
    DateTime2 {
        /// Digits of the second's fraction, 0 to 7.
        scale: u8,
    },
    /// `datetimeoffset(n)`
    DateTimeOffset {
        /// Digits of the second's fraction, 0 to 7.
        scale: u8,
    },
    /// `uniqueidentifier`
    UniqueIdentifier,
    /// `xml`; values are `Value::Text`
    Xml,
    /// `sql_variant`; values are `Value::Text`, the base type is not kept
    Variant,
    /// `hierarchyid`; values are `Value::Text` such as `/1/2/`
    HierarchyId,
    /// `geography`; values are `Value::Text` (well-known text)
    Geography,
    /// `geometry`; values are `Value::Text` (well-known text)
    Geometry,
    /// `json` of SQL Server 2025; values are `Value::Text`
    Json,
    /// `vector(n)` of SQL Server 2025; values are `Value::Text` (a JSON array)
    Vector {
        /// How many numbers.
        dimensions: u16,
    },
}

impl SqlType {
    /// Whether values of this type are `Value::Text` and have a collation.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(
            self,
            Self::Char { .. }
                | Self::VarChar { .. }
                | Self::Text
                | Self::NChar { .. }
                | Self::NVarChar { .. }
                | Self::NText
                | Self::Xml
                | Self::Variant
                | Self::HierarchyId
                | Self::Geography
                | Self::Geometry
                | Self::Json
                | Self::Vector { .. }
        )
    }

    /// Whether text of this type is held in a code page (`char`, `varchar`, `text`) and not in UTF-16.
    #[must_use]
    pub fn is_code_page_text(&self) -> bool {
        matches!(self, Self::Char { .. } | Self::VarChar { .. } | Self::Text)
    }

    /// Whether values of this type are `Value::Bytes`.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary { .. } | Self::VarBinary { .. } | Self::Image | Self::RowVersion)
    }

    /// Whether values of this type are `Value::Int`.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt)
    }
}

/// One column of a result set, of a table or of a bulk load.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name; empty for an expression without one.
    pub name: String,
    /// Its declared type.
    pub sql_type: SqlType,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// Its collation; the database's for types without text.
    pub collation: Collation,
    /// Whether it numbers itself.
    pub identity: bool,
    /// Whether it is an expression over other columns (or a rowversion).
    pub computed: bool,
}

impl Column {
    /// A nullable column of a result set that is no table's.
    #[must_use]
    pub fn new(name: impl Into<String>, sql_type: SqlType, collation: Collation) -> Self {
        Self { name: name.into(), sql_type, nullable: true, collation, identity: false, computed: false }
    }
}

/// One value. Which variant a type has is said at [`SqlType`]; integers of every width are `Int`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL of any type
    Null,
    /// `bit`
    Bit(bool),
    /// `tinyint`, `smallint`, `int`, `bigint`
    Int(i64),
    /// `real`
    Real(f32),
    /// `float`
    Float(f64),
    /// `decimal`: the value is `unscaled / 10^scale`; the scale is the column's
    Decimal {
        /// All digits as one number.
        unscaled: i128,
        /// Digits behind the point.
        scale: u8,
    },
    /// `money`, `smallmoney`: ten-thousandths
    Money(i64),
    /// Every type of text, and xml, json and the like
    Text(String),
    /// `binary`, `varbinary`, `image`, `rowversion`
    Bytes(Vec<u8>),
    /// `uniqueidentifier`, bytes in the order of its text form
    Guid([u8; 16]),
    /// `date`: days since 0001-01-01
    Date(i32),
    /// `time`: 100 ns since midnight, whatever the scale
    Time(u64),
    /// `datetime`
    DateTime {
        /// Days since 1900-01-01, negative before.
        days: i32,
        /// Three-hundredths of a second since midnight.
        ticks: u32,
    },
    /// `smalldatetime`
    SmallDateTime {
        /// Days since 1900-01-01.
        days: u16,
        /// Minutes since midnight.
        minutes: u16,
    },
    /// `datetime2`
    DateTime2 {
        /// Days since 0001-01-01.
        days: i32,
        /// 100 ns since midnight, whatever the scale.
        time: u64,
    },
    /// `datetimeoffset`; days and time are UTC
    DateTimeOffset {
        /// Days since 0001-01-01, UTC.
        days: i32,
        /// 100 ns since midnight, UTC.
        time: u64,
        /// The offset in minutes that the text form shows.
        minutes: i16,
    },
}

impl Value {
    /// Whether this is NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
