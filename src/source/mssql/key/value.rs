//! Values of a key in the form of the lake, from key texts, and whether the lake sorts them as the server does.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::error::ArrowError;

use super::{KeyColumn, KeyError};
use crate::source::mssql::column::SqlType;

impl KeyColumn {
    /// The column as it is in the lake.
    pub fn field(&self) -> Option<&Field> {
        self.plan.fields.first()
    }

    /// Whether of two values the one that comes first on the server comes first in the lake too: only such keys can be
    /// cut into ranges that mean the same on both sides. Text follows its collation there, and GUIDs their last bytes.
    pub fn is_ordered_alike(&self) -> bool {
        match self.sql_type() {
            SqlType::Bit
            | SqlType::TinyInt
            | SqlType::SmallInt
            | SqlType::Int
            | SqlType::BigInt
            | SqlType::Decimal { .. }
            | SqlType::Money
            | SqlType::SmallMoney
            | SqlType::Date
            | SqlType::Time { .. }
            | SqlType::DateTime
            | SqlType::SmallDateTime
            | SqlType::DateTime2 { .. }
            | SqlType::Binary { .. } => true,
            // As text it begins with the time of day of its own zone.
            SqlType::DateTimeOffset { .. } => {
                self.field().is_some_and(|field| matches!(field.data_type(), DataType::Timestamp(..)))
            }
            _ => false,
        }
    }

    /// The value of a key text as the lake holds it: an array of one.
    ///
    /// # Errors
    /// When the text is no value of the column.
    pub fn value(&self, text: &str) -> Result<ArrayRef, KeyError> {
        let wanted = self.field().map_or(&DataType::Utf8, Field::data_type);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let cast = |array: &ArrayRef, to: &DataType| {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &strict)
        };
        let value = match wanted {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => match bytes(text) {
                Some(bytes) => cast(&(Arc::new(BinaryArray::from(vec![bytes.as_slice()])) as ArrayRef), wanted),
                None => Err(ArrowError::ParseError("it is not made of pairs of hexadecimal digits".to_owned())),
            },
            // Microseconds of a day.
            DataType::Int64 if matches!(self.sql_type(), SqlType::Time { .. }) => {
                cast(&texts, &DataType::Time64(TimeUnit::Microsecond)).and_then(|time| cast(&time, wanted))
            }
            _ => cast(&texts, wanted),
        };
        value.map_err(|cause| self.refuse(cause.to_string()))
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Date32Array, Decimal128Array, Int16Array, Int64Array, TimestampMicrosecondArray};

    use super::*;
    use crate::source::mssql::column::{ColumnOptions, SourceColumn, Times, Timestamps};

    fn key(sql_type: SqlType, options: &ColumnOptions) -> KeyColumn {
        KeyColumn::new(&SourceColumn::plain("k", sql_type), options, "Latin1_General_BIN2").unwrap()
    }

    /// From a value to its text and back.
    #[test]
    fn a_key_text_becomes_the_value_it_was_made_of() {
        let plain = ColumnOptions::default();
        let other =
            ColumnOptions { timestamps: Timestamps::Utc, times: Times::Microseconds, ..ColumnOptions::default() };
        let moments = vec![-62_135_596_800_000_000, -1, 0, 253_402_300_799_999_999];
        let utc = TimestampMicrosecondArray::from(moments.clone()).with_timezone("UTC");
        let decimals = Decimal128Array::from(vec![i128::from(i64::MIN), -12, 0, 7, i128::from(i64::MAX)]);
        let decimals = decimals.with_precision_and_scale(38, 4).unwrap();
        let cases: Vec<(KeyColumn, ArrayRef)> = vec![
            (key(SqlType::Bit, &plain), Arc::new(BooleanArray::from(vec![false, true]))),
            (key(SqlType::TinyInt, &plain), Arc::new(Int16Array::from(vec![0, 255]))),
            (key(SqlType::BigInt, &plain), Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, i64::MAX]))),
            (key(SqlType::Decimal { precision: 38, scale: 4 }, &plain), Arc::new(decimals)),
            (key(SqlType::Date, &plain), Arc::new(Date32Array::from(vec![-719_162, -1, 0, 2_932_896]))),
            (key(SqlType::DateTime2 { scale: 6 }, &plain), Arc::new(TimestampMicrosecondArray::from(moments))),
            (key(SqlType::DateTime2 { scale: 6 }, &other), Arc::new(utc.clone())),
            (key(SqlType::DateTimeOffset { scale: 6 }, &plain), Arc::new(utc)),
            (key(SqlType::Time { scale: 6 }, &other), Arc::new(Int64Array::from(vec![0, 1, 86_399_999_999]))),
            (key(SqlType::Time { scale: 6 }, &plain), Arc::new(StringArray::from(vec!["00:00:00.000001"]))),
            (key(SqlType::Binary { length: 2 }, &plain), Arc::new(BinaryArray::from(vec![&[0_u8, 255][..], &[1, 2]]))),
        ];
        for (key, values) in cases {
            assert!(key.is_ordered_alike(), "{}", key.sql_type());
            for row in 0..values.len() {
                let text = key.text(values.as_ref(), row).unwrap();
                assert_eq!(&key.value(&text).unwrap(), &values.slice(row, 1), "{} {text}", key.sql_type());
            }
        }
        for (sql_type, text) in
            [(SqlType::Int, "x"), (SqlType::Date, "2024-02-30"), (SqlType::Binary { length: 2 }, "0x0")]
        {
            assert!(key(sql_type.clone(), &plain).value(text).is_err(), "{sql_type} {text}");
        }
    }

    #[test]
    fn keys_the_server_sorts_otherwise_are_not_cut() {
        for sql_type in [
            SqlType::UniqueIdentifier,
            SqlType::VarBinary { length: Some(4) },
            SqlType::VarChar { length: Some(4) },
            SqlType::NVarChar { length: Some(4) },
        ] {
            assert!(!key(sql_type.clone(), &ColumnOptions::default()).is_ordered_alike(), "{sql_type}");
        }
    }
}
