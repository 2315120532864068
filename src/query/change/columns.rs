//! The types of columns as SQL writes them.

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, ExactNumberInfo, TimezoneInfo};

use crate::model::ColumnType;
use crate::query::QueryError;

/// Digits of a decimal that says nothing of them, as in queries.
const USUAL_DECIMAL: (u8, i8) = (38, 10);

/// The type of a column.
///
/// # Errors
/// Kind `Unsupported` for a type no column of the lake can have, and for a length, which nothing would keep.
pub(crate) fn column_type(written: &DataType) -> Result<ColumnType, QueryError> {
    Ok(match written {
        DataType::Bool | DataType::Boolean => ColumnType::Boolean,
        DataType::TinyInt(None) | DataType::SmallInt(None) | DataType::Int2(None) => ColumnType::Smallint,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => ColumnType::Int,
        DataType::BigInt(None) | DataType::Int8(None) => ColumnType::Bigint,
        DataType::Real | DataType::Float4 => ColumnType::Real,
        DataType::Float(ExactNumberInfo::None)
        | DataType::Float8
        | DataType::Double(ExactNumberInfo::None)
        | DataType::DoublePrecision => ColumnType::Double,
        DataType::Decimal(digits) | DataType::Numeric(digits) | DataType::Dec(digits) => decimal(*digits)?,
        DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::CharVarying(None)
        | DataType::Text
        | DataType::String(None) => ColumnType::String,
        DataType::Binary(None) | DataType::Varbinary(None) | DataType::Blob(None) | DataType::Bytea => {
            ColumnType::Binary
        }
        DataType::Date => ColumnType::Date,
        DataType::Timestamp(None | Some(6), TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => ColumnType::Timestamp,
        DataType::Timestamp(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone)
        | DataType::TimestampNtz(None | Some(6)) => ColumnType::TimestampNtz,
        DataType::Array(ArrayElemTypeDef::AngleBracket(item) | ArrayElemTypeDef::SquareBracket(item, None)) => {
            ColumnType::Array(Box::new(column_type(item)?))
        }
        DataType::Struct(fields, _) => {
            let field = |field: &datafusion::sql::sqlparser::ast::StructField| match &field.field_name {
                Some(name) => Ok((name.value.clone(), column_type(&field.field_type)?)),
                None => Err(refused(written, "name each field")),
            };
            ColumnType::Struct(fields.iter().map(field).collect::<Result<_, _>>()?)
        }
        DataType::Varchar(Some(_))
        | DataType::CharacterVarying(Some(_))
        | DataType::CharVarying(Some(_))
        | DataType::Nvarchar(_)
        | DataType::Char(_)
        | DataType::Character(_) => return Err(refused(written, "no length would be kept to: write VARCHAR")),
        DataType::Timestamp(..) => return Err(refused(written, "times have microseconds: write TIMESTAMP")),
        _ => {
            return Err(refused(
                written,
                "there are BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p,s), VARCHAR, BYTEA, DATE, TIMESTAMP, \
                 TIMESTAMP WITH TIME ZONE, and arrays and structs of them",
            ));
        }
    })
}

fn decimal(digits: ExactNumberInfo) -> Result<ColumnType, QueryError> {
    let (precision, scale) = match digits {
        ExactNumberInfo::None => return Ok(ColumnType::Decimal(USUAL_DECIMAL.0, USUAL_DECIMAL.1)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) if (0..=i8::try_from(precision).unwrap_or(38)).contains(&scale) => {
            Ok(ColumnType::Decimal(precision, scale))
        }
        _ => Err(QueryError::invalid(format!(
            "decimal({precision},{scale}) is no type: a decimal has 1 to 38 digits, of which at most all stand after the point"
        ))),
    }
}

fn refused(written: &DataType, instead: &str) -> QueryError {
    QueryError::unsupported(format!("a column of type {written} cannot be made: {instead}"))
}
