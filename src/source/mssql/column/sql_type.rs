//! The types a column can have on the server.

use std::fmt;

/// A column's type, with what its declaration says of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `bit`.
    Bit,
    /// `tinyint`: 0 to 255.
    TinyInt,
    /// `smallint`.
    SmallInt,
    /// `int`.
    Int,
    /// `bigint`.
    BigInt,
    /// `decimal` and `numeric`.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point.
        scale: u8,
    },
    /// `money`: eight bytes, four digits after the point.
    Money,
    /// `smallmoney`: four bytes, four digits after the point.
    SmallMoney,
    /// `real` and `float(1)` to `float(24)`.
    Real,
    /// `float(25)` to `float(53)`.
    Float,
    /// `char`.
    Char {
        /// Bytes.
        length: u16,
    },
    /// `varchar`.
    VarChar {
        /// Bytes; none for `max`.
        length: Option<u16>,
    },
    /// `text`, the old kind.
    Text,
    /// `nchar`.
    NChar {
        /// UTF-16 units.
        length: u16,
    },
    /// `nvarchar`.
    NVarChar {
        /// UTF-16 units; none for `max`.
        length: Option<u16>,
    },
    /// `ntext`, the old kind.
    NText,
    /// `binary`.
    Binary {
        /// Bytes.
        length: u16,
    },
    /// `varbinary`, FILESTREAM included.
    VarBinary {
        /// Bytes; none for `max`.
        length: Option<u16>,
    },
    /// `image`, the old kind.
    Image,
    /// `rowversion`, in the catalogue `timestamp`: eight bytes that grow with every write to the database.
    RowVersion,
    /// `date`.
    Date,
    /// `time`.
    Time {
        /// Digits of a second, 0 to 7.
        scale: u8,
    },
    /// `datetime`: steps of 1/300 second.
    DateTime,
    /// `smalldatetime`: whole minutes.
    SmallDateTime,
    /// `datetime2`.
    DateTime2 {
        /// Digits of a second, 0 to 7.
        scale: u8,
    },
    /// `datetimeoffset`.
    DateTimeOffset {
        /// Digits of a second, 0 to 7.
        scale: u8,
    },
    /// `uniqueidentifier`.
    UniqueIdentifier,
    /// `xml`.
    Xml,
    /// `json` (2025).
    Json,
    /// `vector` (2025).
    Vector {
        /// How many numbers a value has.
        dimensions: u16,
    },
    /// `sql_variant`.
    Variant,
    /// `hierarchyid`.
    HierarchyId,
    /// `geography`.
    Geography,
    /// `geometry`.
    Geometry,
    /// A CLR type of the database's own.
    UserDefined {
        /// Its name.
        name: String,
    },
    /// A type this program does not know.
    Other {
        /// Its name.
        name: String,
    },
}

impl SqlType {
    /// From what the catalogue says: the base type's name in `sys.types`, whether it is an assembly's
    /// (`is_assembly_type`), and `max_length` (bytes, -1 for `max`), `precision` and `scale` of `sys.columns`.
    pub fn from_catalogue(type_name: &str, assembly: bool, max_length: i16, precision: u8, scale: u8) -> Self {
        let name = type_name.to_ascii_lowercase();
        let bytes = u16::try_from(max_length).ok();
        let units = bytes.map(|bytes| bytes / 2);
        match name.as_str() {
            "hierarchyid" => Self::HierarchyId,
            "geography" => Self::Geography,
            "geometry" => Self::Geometry,
            _ if assembly => Self::UserDefined { name: type_name.to_owned() },
            "bit" => Self::Bit,
            "tinyint" => Self::TinyInt,
            "smallint" => Self::SmallInt,
            "int" => Self::Int,
            "bigint" => Self::BigInt,
            "decimal" | "numeric" => Self::Decimal { precision, scale },
            "money" => Self::Money,
            "smallmoney" => Self::SmallMoney,
            "real" => Self::Real,
            "float" if precision <= 24 && precision > 0 => Self::Real,
            "float" => Self::Float,
            "char" => Self::Char { length: bytes.unwrap_or_default() },
            "varchar" => Self::VarChar { length: bytes },
            "text" => Self::Text,
            "nchar" => Self::NChar { length: units.unwrap_or_default() },
            "nvarchar" | "sysname" => Self::NVarChar { length: units },
            "ntext" => Self::NText,
            "binary" => Self::Binary { length: bytes.unwrap_or_default() },
            "varbinary" => Self::VarBinary { length: bytes },
            "image" => Self::Image,
            "timestamp" | "rowversion" => Self::RowVersion,
            "date" => Self::Date,
            "time" => Self::Time { scale },
            "datetime" => Self::DateTime,
            "smalldatetime" => Self::SmallDateTime,
            "datetime2" => Self::DateTime2 { scale },
            "datetimeoffset" => Self::DateTimeOffset { scale },
            "uniqueidentifier" => Self::UniqueIdentifier,
            "xml" => Self::Xml,
            "json" => Self::Json,
            // Eight bytes of head, then four for every number.
            "vector" => Self::Vector { dimensions: bytes.unwrap_or_default().saturating_sub(8) / 4 },
            "sql_variant" => Self::Variant,
            _ => Self::Other { name: type_name.to_owned() },
        }
    }

    /// Whether it is text in the sense of collations.
    pub fn is_text(&self) -> bool {
        matches!(
            self,
            Self::Char { .. }
                | Self::VarChar { .. }
                | Self::Text
                | Self::NChar { .. }
                | Self::NVarChar { .. }
                | Self::NText
        )
    }

    /// Whether its text is stored in a code page (or UTF-8) instead of UTF-16.
    pub fn has_code_page(&self) -> bool {
        matches!(self, Self::Char { .. } | Self::VarChar { .. } | Self::Text)
    }

    /// Whether one value can be of a size that matters by itself.
    pub fn is_large(&self) -> bool {
        matches!(
            self,
            Self::VarChar { length: None }
                | Self::NVarChar { length: None }
                | Self::VarBinary { length: None }
                | Self::Text
                | Self::NText
                | Self::Image
                | Self::Xml
                | Self::Json
                | Self::Geography
                | Self::Geometry
        )
    }
}

/// As a declaration writes it: `decimal(19,4)`, `nvarchar(max)`.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sized = |f: &mut fmt::Formatter<'_>, name: &str, length: &Option<u16>| match length {
            Some(length) => write!(f, "{name}({length})"),
            None => write!(f, "{name}(max)"),
        };
        match self {
            Self::Bit => f.write_str("bit"),
            Self::TinyInt => f.write_str("tinyint"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Money => f.write_str("money"),
            Self::SmallMoney => f.write_str("smallmoney"),
            Self::Real => f.write_str("real"),
            Self::Float => f.write_str("float"),
            Self::Char { length } => write!(f, "char({length})"),
            Self::VarChar { length } => sized(f, "varchar", length),
            Self::Text => f.write_str("text"),
            Self::NChar { length } => write!(f, "nchar({length})"),
            Self::NVarChar { length } => sized(f, "nvarchar", length),
            Self::NText => f.write_str("ntext"),
            Self::Binary { length } => write!(f, "binary({length})"),
            Self::VarBinary { length } => sized(f, "varbinary", length),
            Self::Image => f.write_str("image"),
            Self::RowVersion => f.write_str("rowversion"),
            Self::Date => f.write_str("date"),
            Self::Time { scale } => write!(f, "time({scale})"),
            Self::DateTime => f.write_str("datetime"),
            Self::SmallDateTime => f.write_str("smalldatetime"),
            Self::DateTime2 { scale } => write!(f, "datetime2({scale})"),
            Self::DateTimeOffset { scale } => write!(f, "datetimeoffset({scale})"),
            Self::UniqueIdentifier => f.write_str("uniqueidentifier"),
            Self::Xml => f.write_str("xml"),
            Self::Json => f.write_str("json"),
            Self::Vector { dimensions } => write!(f, "vector({dimensions})"),
            Self::Variant => f.write_str("sql_variant"),
            Self::HierarchyId => f.write_str("hierarchyid"),
            Self::Geography => f.write_str("geography"),
            Self::Geometry => f.write_str("geometry"),
            Self::UserDefined { name } | Self::Other { name } => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_names_every_type() {
        for (name, max_length, precision, scale, written) in [
            ("bit", 1, 1, 0, "bit"),
            ("tinyint", 1, 3, 0, "tinyint"),
            ("smallint", 2, 5, 0, "smallint"),
            ("int", 4, 10, 0, "int"),
            ("bigint", 8, 19, 0, "bigint"),
            ("decimal", 17, 38, 10, "decimal(38,10)"),
            ("numeric", 5, 1, 0, "decimal(1,0)"),
            ("money", 8, 19, 4, "money"),
            ("smallmoney", 4, 10, 4, "smallmoney"),
            ("real", 4, 24, 0, "real"),
            ("float", 8, 53, 0, "float"),
            ("float", 4, 24, 0, "real"),
            ("char", 8000, 0, 0, "char(8000)"),
            ("varchar", 50, 0, 0, "varchar(50)"),
            ("varchar", -1, 0, 0, "varchar(max)"),
            ("text", 16, 0, 0, "text"),
            ("nchar", 8000, 0, 0, "nchar(4000)"),
            ("nvarchar", 100, 0, 0, "nvarchar(50)"),
            ("nvarchar", -1, 0, 0, "nvarchar(max)"),
            ("sysname", 256, 0, 0, "nvarchar(128)"),
            ("ntext", 16, 0, 0, "ntext"),
            ("binary", 16, 0, 0, "binary(16)"),
            ("varbinary", 900, 0, 0, "varbinary(900)"),
            ("varbinary", -1, 0, 0, "varbinary(max)"),
            ("image", 16, 0, 0, "image"),
            ("timestamp", 8, 0, 0, "rowversion"),
            ("date", 3, 10, 0, "date"),
            ("time", 5, 16, 7, "time(7)"),
            ("datetime", 8, 23, 3, "datetime"),
            ("smalldatetime", 4, 16, 0, "smalldatetime"),
            ("datetime2", 6, 19, 0, "datetime2(0)"),
            ("datetimeoffset", 10, 34, 7, "datetimeoffset(7)"),
            ("uniqueidentifier", 16, 0, 0, "uniqueidentifier"),
            ("xml", -1, 0, 0, "xml"),
            ("json", -1, 0, 0, "json"),
            ("vector", 20, 0, 0, "vector(3)"),
            ("sql_variant", 8016, 0, 0, "sql_variant"),
            ("DateTime2", 8, 27, 7, "datetime2(7)"),
            ("qubit", 1, 0, 0, "qubit"),
        ] {
            let found = SqlType::from_catalogue(name, false, max_length, precision, scale);
            assert_eq!(found.to_string(), written, "{name}");
            assert_eq!(matches!(found, SqlType::Other { .. }), name == "qubit", "{name}");
        }
    }

    #[test]
    fn types_of_assemblies_are_known_or_named() {
        let of = |name| SqlType::from_catalogue(name, true, -1, 0, 0);
        assert_eq!(of("hierarchyid"), SqlType::HierarchyId);
        assert_eq!(of("geography"), SqlType::Geography);
        assert_eq!(of("geometry"), SqlType::Geometry);
        assert_eq!(of("Money"), SqlType::UserDefined { name: "Money".to_owned() });
    }
}
