//! Values in the types of a table's columns. Nothing is cut, wrapped or rounded, but for floats, whose nature it is.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Fields, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;

use crate::error::ErrorKind;
use crate::model::{ColumnType, TableName};
use crate::query::{QueryError, Unpacked};

/// The columns rows are brought to, and which of theirs each takes its values from.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The table, for messages.
    pub(crate) table: TableName,
    /// Its columns.
    pub(crate) schema: SchemaRef,
    /// For each of them the position of its values; NULL where there are none.
    pub(crate) from: Vec<Option<usize>>,
    /// Columns that name a row, which always have a value.
    pub(crate) key: Vec<String>,
}

impl Shape {
    /// The rows in the table's columns.
    ///
    /// # Errors
    /// `InvalidInput` that names the column whose values do not fit or are missing.
    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch, QueryError> {
        let fields = self.schema.fields().iter().zip(&self.from);
        let columns = fields.map(|(field, from)| {
            let column = match from {
                Some(at) => fit(rows.column(*at), field.data_type()).map_err(|why| self.wrong(field.name(), &why))?,
                None => new_null_array(field.data_type(), rows.num_rows()),
            };
            let needs_value = !field.is_nullable() || self.key.contains(field.name());
            if needs_value && column.null_count() > 0 {
                return Err(self.wrong(field.name(), "it must have a value, and is NULL"));
            }
            Ok(column)
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|cause| QueryError::because(ErrorKind::Internal, "rows do not have a table's columns", cause))
    }

    /// Bytes of what [`Self::rows`] makes of these rows; none where they are more than `most`.
    pub(crate) fn unpacked(&self, rows: &RecordBatch, most: usize) -> Option<usize> {
        let mut unpacked = Unpacked::up_to(most);
        for (field, from) in self.schema.fields().iter().zip(&self.from) {
            match from {
                Some(at) => unpacked.count(rows.column(*at), field.data_type())?,
                None => unpacked.nulls(rows.num_rows(), field.data_type())?,
            }
        }
        Some(unpacked.bytes())
    }

    fn wrong(&self, column: &str, why: &str) -> QueryError {
        QueryError::invalid(format!("column `{column}` of {}: {why}", self.table))
    }
}

/// Values as another type.
///
/// # Errors
/// Why they cannot be, for people.
pub(crate) fn fit(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), wanted) {
        (DataType::Null, _) => Ok(new_null_array(wanted, array.len())),
        (DataType::Dictionary(_, values), _) => fit(&cast(array, values, wanted)?, wanted),
        (DataType::RunEndEncoded(_, values), _) => fit(&cast(array, values.data_type(), wanted)?, wanted),
        (DataType::Struct(_), DataType::Struct(fields)) => fit_struct(array.as_struct(), fields),
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = fit(list.values(), item.data_type())?;
            let made = ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(made.map_err(|_| types(array.data_type(), wanted))?))
        }
        (
            DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item),
            DataType::List(_),
        ) => fit(&cast(array, &DataType::List(Arc::clone(item)), wanted)?, wanted),
        (DataType::Map(..), DataType::Map(entries, sorted)) => fit_map(array.as_map(), entries, *sorted),
        _ => fit_plain(array, wanted),
    }
}

fn fit_struct(array: &StructArray, fields: &Fields) -> Result<ArrayRef, String> {
    let is_new = |name: &&str| fields.iter().all(|field| field.name() != name);
    if let Some(extra) = array.column_names().into_iter().find(is_new) {
        return Err(format!("it has no field `{extra}`"));
    }
    let columns = fields.iter().map(|field| match array.column_by_name(field.name()) {
        Some(column) => fit(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), array.len())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let made = StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len());
    Ok(Arc::new(made.map_err(|_| "a field must have a value, and is NULL".to_owned())?))
}

fn fit_map(map: &MapArray, entries: &arrow::datatypes::FieldRef, sorted: bool) -> Result<ArrayRef, String> {
    let DataType::Struct(fields) = entries.data_type() else { return Err("its type is broken".to_owned()) };
    let columns = fields.iter().zip(map.entries().columns()).map(|(field, column)| fit(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let broken = |_| "a key must have a value, and is NULL".to_owned();
    let pairs = StructArray::try_new(fields.clone(), columns, map.entries().nulls().cloned()).map_err(broken)?;
    let made = MapArray::try_new(Arc::clone(entries), map.offsets().clone(), pairs, map.nulls().cloned(), sorted);
    Ok(Arc::new(made.map_err(broken)?))
}

/// What kinds of values there are: between kinds nothing is guessed, but that everything can be written out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Truth,
    Text,
    Bytes,
    Time,
    Other,
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        kind if kind.is_numeric() => Kind::Number,
        DataType::Boolean => Kind::Truth,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Kind::Bytes,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Kind::Time,
        _ => Kind::Other,
    }
}

fn fit_plain(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, String> {
    let given = array.data_type();
    let written_out = matches!(given, DataType::Time32(_) | DataType::Time64(_));
    match (kind(given), kind(wanted)) {
        (Kind::Text, Kind::Text | Kind::Truth | Kind::Bytes) | (Kind::Bytes, Kind::Bytes | Kind::Text) => {
            cast(array, wanted, wanted)
        }
        (Kind::Text, Kind::Number | Kind::Time) => {
            let texts = arrow::compute::cast(array, &DataType::Utf8).map_err(|_| types(given, wanted))?;
            let texts = texts.as_string::<i32>();
            if let Some(text) = texts.iter().flatten().find(|text| loses(text, wanted)) {
                return Err(format!("`{}` has more than {} can hold", shortened(text), word(wanted)));
            }
            let made = cast(array, wanted, wanted)?;
            let says_so = |row: usize| texts.value(row).to_ascii_lowercase().contains("inf");
            match (0..made.len()).any(|row| is_infinite(&made, row) && !says_so(row)) {
                true => Err("a number is too large for it".to_owned()),
                false => Ok(made),
            }
        }
        (Kind::Number | Kind::Truth | Kind::Time, Kind::Text) | (Kind::Truth, Kind::Truth) => {
            cast(array, wanted, wanted)
        }
        (Kind::Other, Kind::Text) if written_out => cast(array, wanted, wanted),
        (Kind::Number, Kind::Number) if wanted.is_floating() && !given.is_integer() => {
            let made = cast(array, wanted, wanted)?;
            if is_beyond(array, &made) { Err("a number is too large for it".to_owned()) } else { Ok(made) }
        }
        (Kind::Number, Kind::Number) | (Kind::Time, Kind::Time) => {
            let made = cast(array, wanted, wanted)?;
            let back = cast(&made, given, wanted)?;
            let same = not_distinct(array, &back).map_err(|_| types(given, wanted))?;
            if same.true_count() == array.len() {
                return Ok(made);
            }
            Err(format!("a value of type {} would lose something as {}", word(given), word(wanted)))
        }
        _ => Err(types(given, wanted)),
    }
}

/// Whether a text has digits the type has no room for: they would be cut while it is read.
pub(crate) fn loses(text: &str, wanted: &DataType) -> bool {
    let most = match wanted {
        DataType::Decimal128(_, scale) => usize::try_from(*scale).unwrap_or(0),
        DataType::Timestamp(..) => 6,
        DataType::Date32 => 0,
        _ => return false,
    };
    let after_point = text.split_once('.').map_or("", |(_, digits)| digits);
    let digits =
        after_point.find(|letter: char| !letter.is_ascii_digit()).map_or(after_point, |end| &after_point[..end]);
    let is_time_of_day = *wanted == DataType::Date32 && text.contains(':');
    digits.trim_end_matches('0').len() > most || is_time_of_day
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    text.chars().take(SHOWN).collect()
}

/// Whether a finite number became infinite.
fn is_beyond(given: &ArrayRef, made: &ArrayRef) -> bool {
    (0..made.len()).any(|row| is_infinite(made, row) && !is_infinite(given, row))
}

fn is_infinite(floats: &ArrayRef, row: usize) -> bool {
    match floats.data_type() {
        DataType::Float32 => floats.is_valid(row) && floats.as_primitive::<Float32Type>().value(row).is_infinite(),
        DataType::Float64 => floats.is_valid(row) && floats.as_primitive::<Float64Type>().value(row).is_infinite(),
        _ => false,
    }
}

fn cast(array: &ArrayRef, to: &DataType, wanted: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|cause| match cause {
        ArrowError::CastError(_) | ArrowError::ParseError(_) | ArrowError::InvalidArgumentError(_) => {
            format!("a value of type {} does not fit {}", word(array.data_type()), word(wanted))
        }
        _ => types(array.data_type(), wanted),
    })
}

fn types(given: &DataType, wanted: &DataType) -> String {
    format!("it is {} and takes no {}; convert it with CAST", word(wanted), word(given))
}

/// A type under the name people know it by.
pub(crate) fn word(data_type: &DataType) -> String {
    ColumnType::from_arrow(data_type).map_or_else(|| data_type.to_string(), |known| known.to_string())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn decimal() -> DataType {
        DataType::Decimal128(12, 2)
    }

    #[test]
    fn numbers_fit_where_nothing_is_lost() {
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        assert!(fit(&doubles, &DataType::Int32).is_ok());
        let halves: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        assert!(fit(&halves, &DataType::Int32).unwrap_err().contains("lose"));
        let price: ArrayRef = Arc::new(Float64Array::from(vec![9_999_999_999.99]));
        let exact = fit(&price, &decimal()).unwrap();
        assert_eq!(exact.as_primitive::<arrow::datatypes::Decimal128Type>().value(0), 999_999_999_999);
        let thirds = Decimal128Array::from(vec![1_005]).with_precision_and_scale(10, 3).unwrap();
        assert!(fit(&(Arc::new(thirds) as ArrayRef), &decimal()).unwrap_err().contains("lose"));
        let large: ArrayRef = Arc::new(Int64Array::from(vec![1 << 40]));
        assert!(fit(&large, &DataType::Int32).unwrap_err().contains("does not fit"));
        assert!(fit(&large, &DataType::Float64).is_ok());
        let beyond: ArrayRef = Arc::new(Int64Array::from(vec![(1 << 60) + 1]));
        assert!(fit(&beyond, &DataType::Float64).unwrap_err().contains("lose"));
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert!(fit(&unsigned, &DataType::Decimal128(20, 0)).is_ok() && fit(&unsigned, &DataType::Int64).is_err());
    }

    #[test]
    fn floats_may_be_rounded_but_not_become_infinite() {
        let tenth: ArrayRef = Arc::new(Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY]));
        assert!(fit(&tenth, &DataType::Float32).is_ok());
        let huge: ArrayRef = Arc::new(Float64Array::from(vec![1e300]));
        assert!(fit(&huge, &DataType::Float32).unwrap_err().contains("too large"));
    }

    #[test]
    fn times_lose_no_nanoseconds_and_texts_no_digits() {
        let wanted = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = |value| Arc::new(TimestampNanosecondArray::from(vec![value]).with_timezone("UTC")) as ArrayRef;
        assert!(fit(&times(1_000), &wanted).is_ok());
        assert!(fit(&times(1_001), &wanted).unwrap_err().contains("lose"));
        let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        assert!(fit(&text("2020-01-31"), &DataType::Date32).is_ok());
        assert!(fit(&text("2020-01-31 12:00:00"), &DataType::Date32).is_err());
        assert!(fit(&text("2020-01-31 12:00:00.1234567"), &wanted).is_err());
        assert!(fit(&text("1.050"), &decimal()).is_ok() && fit(&text("1.055"), &decimal()).is_err());
        assert!(fit(&text("x"), &DataType::Int32).is_err());
    }

    #[test]
    fn kinds_are_not_mixed() {
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(fit(&one, &DataType::Date32).unwrap_err().contains("CAST"));
        assert!(fit(&one, &DataType::Boolean).is_err());
        assert!(fit(&(Arc::new(BooleanArray::from(vec![true])) as ArrayRef), &DataType::Int32).is_err());
        assert!(fit(&one, &DataType::Utf8).is_ok());
    }
}
