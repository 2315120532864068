//! The SQL names of column types, and what they are in Arrow.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// A column's type under the name a table definition uses. Each is one Delta type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// true or false.
    Boolean,
    /// 16-bit signed integer.
    Smallint,
    /// 32-bit signed integer.
    Int,
    /// 64-bit signed integer.
    Bigint,
    /// 32-bit float.
    Real,
    /// 64-bit float.
    Double,
    /// Exact number: digits in all (1 to 38) and digits after the point.
    Decimal(u8, i8),
    /// UTF-8 text.
    String,
    /// Bytes.
    Binary,
    /// A day.
    Date,
    /// An instant, in microseconds of UTC.
    Timestamp,
    /// Date and time without a zone, in microseconds.
    TimestampNtz,
    /// Named fields in order.
    Struct(Vec<(String, ColumnType)>),
    /// A list of one type.
    Array(Box<ColumnType>),
    /// Keys, never null, to values.
    Map(Box<ColumnType>, Box<ColumnType>),
}

/// A text that names no type, with the reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{text}` is no column type: {reason}; known are boolean, smallint, int, bigint, real, double, decimal(p,s), \
     string, binary, date, timestamp, timestamp_ntz, struct<name: type, …>, array<type>, map<type, type>"
)]
pub struct InvalidType {
    text: String,
    reason: String,
}

impl ColumnType {
    /// The Arrow type in which columns of this type are read and written; every nested field is nullable.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Smallint => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::Bigint => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|(name, kind)| Field::new(name, kind.to_arrow(), true)).collect::<Fields>(),
            ),
            // Field names below are the ones the Delta kernel gives lists and maps.
            Self::Array(item) => DataType::List(Arc::new(Field::new("element", item.to_arrow(), true))),
            Self::Map(key, value) => {
                let entries = Fields::from(vec![
                    Field::new("key", key.to_arrow(), false),
                    Field::new("value", value.to_arrow(), true),
                ]);
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries), false)), false)
            }
        }
    }

    /// The type whose columns can hold every value of an Arrow type exactly; none where Delta has no such type.
    /// Unsigned integers become the next wider signed type (64 bits: `decimal(20,0)`).
    pub fn from_arrow(arrow: &DataType) -> Option<Self> {
        Some(match arrow {
            DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::String,
            DataType::Boolean => Self::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::Smallint,
            DataType::Int32 | DataType::UInt16 => Self::Int,
            DataType::Int64 | DataType::UInt32 => Self::Bigint,
            DataType::UInt64 => Self::Decimal(20, 0),
            DataType::Float16 | DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
                Self::Decimal(*p, *s)
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary
            }
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, Some(_)) => Self::Timestamp,
            DataType::Timestamp(_, None) => Self::TimestampNtz,
            DataType::Dictionary(_, value) => Self::from_arrow(value)?,
            DataType::Struct(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|field| Some((field.name().clone(), Self::from_arrow(field.data_type())?)))
                    .collect::<Option<_>>()?,
            ),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Self::Array(Box::new(Self::from_arrow(item.data_type())?)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => Self::Map(
                    Box::new(Self::from_arrow(fields[0].data_type())?),
                    Box::new(Self::from_arrow(fields[1].data_type())?),
                ),
                _ => return None,
            },
            _ => return None,
        })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Smallint => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::Bigint => f.write_str("bigint"),
            Self::Real => f.write_str("real"),
            Self::Double => f.write_str("double"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampNtz => f.write_str("timestamp_ntz"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (index, (name, kind)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{name}: {kind}")?;
                }
                f.write_str(">")
            }
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
        }
    }
}

impl FromStr for ColumnType {
    type Err = InvalidType;

    fn from_str(text: &str) -> Result<Self, InvalidType> {
        let mut parser = Parser { rest: text };
        let parsed = parser.column_type().and_then(|kind| {
            parser.rest = parser.rest.trim_start();
            if parser.rest.is_empty() { Ok(kind) } else { Err(format!("`{}` is too much", parser.rest)) }
        });
        parsed.map_err(|reason| InvalidType { text: text.to_owned(), reason })
    }
}

/// A recursive-descent parser over what is left of a type's text.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn column_type(&mut self) -> Result<ColumnType, String> {
        let name = self.word().to_ascii_lowercase();
        Ok(match name.as_str() {
            "boolean" | "bool" => ColumnType::Boolean,
            "smallint" => ColumnType::Smallint,
            "int" | "integer" => ColumnType::Int,
            "bigint" => ColumnType::Bigint,
            "real" => ColumnType::Real,
            "double" => ColumnType::Double,
            "decimal" => self.decimal()?,
            "string" => ColumnType::String,
            "binary" => ColumnType::Binary,
            "date" => ColumnType::Date,
            "timestamp" => ColumnType::Timestamp,
            "timestamp_ntz" => ColumnType::TimestampNtz,
            "array" => {
                self.expect('<')?;
                let item = self.column_type()?;
                self.expect('>')?;
                ColumnType::Array(Box::new(item))
            }
            "map" => {
                self.expect('<')?;
                let key = self.column_type()?;
                self.expect(',')?;
                let value = self.column_type()?;
                self.expect('>')?;
                ColumnType::Map(Box::new(key), Box::new(value))
            }
            "struct" => self.fields()?,
            "" => return Err("a type is missing".to_owned()),
            other => return Err(format!("`{other}` is not known")),
        })
    }

    fn decimal(&mut self) -> Result<ColumnType, String> {
        self.expect('(')?;
        let precision = self.number()?;
        let scale = if self.accept(',') { self.number()? } else { 0 };
        self.expect(')')?;
        if precision == 0 || precision > 38 || scale > precision {
            return Err("a decimal has 1 to 38 digits, of which at most all stand after the point".to_owned());
        }
        Ok(ColumnType::Decimal(precision, i8::try_from(scale).map_err(|e| e.to_string())?))
    }

    fn fields(&mut self) -> Result<ColumnType, String> {
        self.expect('<')?;
        let mut fields = Vec::new();
        loop {
            let name = self.word().to_owned();
            if name.is_empty() {
                return Err("a field's name is missing".to_owned());
            }
            self.expect(':')?;
            fields.push((name, self.column_type()?));
            if !self.accept(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(ColumnType::Struct(fields))
    }

    fn number(&mut self) -> Result<u8, String> {
        let word = self.word();
        word.parse().map_err(|_| format!("`{word}` is no number of digits"))
    }

    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| "<>(),:".contains(c) || c.is_whitespace()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) { Ok(()) } else { Err(format!("`{wanted}` is missing before `{}`", self.rest)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_text_and_arrow() {
        for text in [
            "boolean",
            "smallint",
            "int",
            "bigint",
            "real",
            "double",
            "decimal(38,10)",
            "string",
            "binary",
            "date",
            "timestamp",
            "timestamp_ntz",
            "array<array<int>>",
            "map<string, decimal(5,2)>",
            "struct<maker: string, engine: struct<count: int, kinds: array<string>>>",
        ] {
            let kind: ColumnType = text.parse().unwrap();
            assert_eq!(kind.to_string(), text);
            assert_eq!(ColumnType::from_arrow(&kind.to_arrow()), Some(kind));
        }
    }

    #[test]
    fn wrong_types_say_what_is_wrong() {
        for (text, reason) in [
            ("varchar", "`varchar` is not known"),
            ("decimal(39,2)", "1 to 38 digits"),
            ("decimal(5,6)", "1 to 38 digits"),
            ("array<int", "`>` is missing"),
            ("struct<>", "a field's name is missing"),
            ("int int", "is too much"),
        ] {
            let error = text.parse::<ColumnType>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
