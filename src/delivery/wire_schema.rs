//! The one schema a client is told and sent: plain types that every client knows, all nullable.
//!
//! Drivers compare the schema of a plan with the schema of its stream and refuse the result when
//! they differ, nullability included. So the schema is made once, from the logical plan, and every
//! batch is brought to it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DictionaryArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::delivery::{DeliveryError, precision};
use crate::model::{Precision, WireProfile};

/// Most words of a dictionary that are put in order. Where there are more, the same ones hardly come twice.
const ORDERED_WORDS: usize = 1024;

/// The schema under which a result with the columns `planned` is announced and sent.
///
/// Views become plain strings and binaries, dictionaries and runs their values, and types that
/// JDBC's driver does not know (half floats, 32- and 64-bit decimals) the next wider ones. Every
/// field is nullable, for an optimiser may learn or forget that a column has no nulls. Metadata of
/// fields stays; the schema's own, which holds traces of the files it came from, does not.
pub fn wire_schema(planned: &Schema) -> SchemaRef {
    Arc::new(Schema::new(planned.fields().iter().map(wire_field).collect::<Vec<_>>()))
}

/// The schema under which a client with `profile` gets the columns `planned`: the wire schema, with the columns of text at
/// the places `few` as dictionaries and columns of floating-point numbers shortened for those who ask. What is within lists
/// and structs stays as it is: few clients look there for them.
pub fn result_schema(planned: &Schema, profile: WireProfile, few: &[usize]) -> SchemaRef {
    let plain = wire_schema(planned);
    let fields = plain.fields().iter().enumerate().map(|(place, field)| {
        let asked = match field.data_type() {
            DataType::Utf8 if profile.dictionaries && few.contains(&place) => words(),
            other => precision::shortened(other, profile.precision),
        };
        match asked == *field.data_type() {
            true => Arc::clone(field),
            false => Arc::new(field.as_ref().clone().with_data_type(asked)),
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Text as positions in a list of the words there are. The positions have 32 bits: any message's words can be counted so.
fn words() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Brings a batch to a result's schema: casts where types differ, and fails rather than lose a value. Floating-point numbers
/// are shortened as `precision` says, which the schema does not tell in full.
///
/// # Errors
/// `Convert` naming the column whose values do not fit the announced type.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef, precision: Precision) -> Result<RecordBatch, DeliveryError> {
    let mismatch = || DeliveryError::Encode(ArrowError::SchemaError(mismatch_text(batch, schema)));
    if batch.num_columns() != schema.fields().len() {
        return Err(mismatch());
    }
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        conform_column(column, field, precision).map_err(|source| DeliveryError::Convert {
            column: field.name().clone(),
            announced: field.data_type().to_string(),
            source,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // A result without columns still has rows.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(DeliveryError::Encode)
}

fn mismatch_text(batch: &RecordBatch, schema: &SchemaRef) -> String {
    format!("the plan has {} columns, its result {}", schema.fields().len(), batch.num_columns())
}

fn conform_column(column: &ArrayRef, field: &FieldRef, precision: Precision) -> Result<ArrayRef, ArrowError> {
    let column = precision::shorten(column, precision)?;
    if column.data_type() == field.data_type() {
        return Ok(column);
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = cast_with_options(&column, field.data_type(), &options)?;
    match field.data_type() {
        DataType::Dictionary(..) => in_order(column),
        _ => Ok(column),
    }
}

/// The same column, the words of its dictionary in order where they are few. What has the same words then has the same
/// dictionary, which is sent once.
fn in_order(column: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let Some(dictionary) = column.as_dictionary_opt::<Int32Type>() else { return Ok(column) };
    if dictionary.values().len() > ORDERED_WORDS {
        return Ok(column);
    }
    let order = sort_to_indices(dictionary.values(), None, None)?;
    let mut positions = vec![0_i32; order.len()];
    for (position, at) in (0_i32..).zip(order.values().iter()) {
        positions[*at as usize] = position;
    }
    // Where a value is null its position may be any number.
    let position =
        |before: i32| usize::try_from(before).ok().and_then(|at| positions.get(at)).copied().unwrap_or_default();
    let keys = dictionary.keys().unary::<_, Int32Type>(position);
    let words = take(dictionary.values(), &order, None)?;
    Ok(Arc::new(DictionaryArray::try_new(keys, words)?))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    Arc::new(Field::new(field.name(), data_type, true).with_metadata(field.metadata().clone()))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_entries(entries), *sorted),
        other => other.clone(),
    }
}

/// The entries of a map and their keys are never null (Schema.fbs); only values are.
fn wire_entries(entries: &FieldRef) -> FieldRef {
    let DataType::Struct(fields) = entries.data_type() else { return Arc::clone(entries) };
    let fields = fields.iter().enumerate().map(|(at, field)| match at {
        0 => Arc::new(Field::new(field.name(), wire_type(field.data_type()), false)),
        _ => wire_field(field),
    });
    Arc::new(Field::new(entries.name(), DataType::Struct(fields.collect()), false))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, DictionaryArray, Int32Array, LargeListArray, StringArray, StringViewArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<_> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), array.is_nullable()))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
            .unwrap()
    }

    #[test]
    fn views_and_dictionaries_become_plain_strings() {
        let dictionary: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
        let views = StringViewArray::from(vec!["x", "a string longer than twelve bytes", "z"]);
        let batch = batch(vec![("d", Arc::new(dictionary)), ("v", Arc::new(views))]);
        let schema = wire_schema(&batch.schema());
        let sent = conform(&batch, &schema, Precision::Full).unwrap();
        assert_eq!(sent.schema(), schema);
        assert_eq!(sent.column(0).as_ref(), &StringArray::from(vec!["a", "b", "a"]) as &dyn Array);
        assert!(schema.fields().iter().all(|field| field.data_type() == &DataType::Utf8 && field.is_nullable()));
    }

    #[test]
    fn text_becomes_dictionaries_only_where_asked_for() {
        let planned = Schema::new(vec![
            Field::new("s", DataType::Utf8View, false),
            Field::new("n", DataType::Int64, false),
            Field::new("l", DataType::new_list(DataType::Utf8, true), true),
        ]);
        assert_eq!(result_schema(&planned, WireProfile::default(), &[0]), wire_schema(&planned));
        let profile = WireProfile { dictionaries: true, ..WireProfile::default() };
        assert_eq!(result_schema(&planned, profile, &[1, 2]), wire_schema(&planned), "where there are few words");
        let asked = result_schema(&planned, profile, &[0, 1, 2]);
        assert_eq!((asked.field(0).data_type(), asked.field(0).is_nullable()), (&words(), true));
        assert_eq!(asked.fields()[1..], wire_schema(&planned).fields()[1..]);
    }

    #[test]
    fn the_same_words_are_the_same_dictionary_whatever_comes_first() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", words(), true)]));
        let sent = |texts: Vec<Option<&str>>| {
            let batch = batch(vec![("s", Arc::new(StringViewArray::from(texts)))]);
            conform(&batch, &schema, Precision::Full).unwrap()
        };
        let (one, other) = (sent(vec![Some("b"), None, Some("a")]), sent(vec![Some("a"), Some("b"), Some("b")]));
        let dictionary = |batch: &RecordBatch| Arc::clone(batch.column(0).as_dictionary::<Int32Type>().values());
        assert_eq!(&dictionary(&one), &dictionary(&other));
        let plain = arrow::compute::cast(one.column(0), &DataType::Utf8).unwrap();
        assert_eq!(plain.as_string::<i32>(), &StringArray::from(vec![Some("b"), None, Some("a")]));
    }

    #[test]
    fn floating_point_numbers_are_shorter_only_where_asked_for() {
        let planned = Schema::new(vec![
            Field::new("d", DataType::Float64, false),
            Field::new("f", DataType::Float32, false),
            Field::new("h", DataType::Float16, false),
            Field::new("n", DataType::Int64, false),
            Field::new("l", DataType::new_list(DataType::Float64, true), true),
        ]);
        for (precision, types) in [
            (Precision::Full, [DataType::Float64, DataType::Float32, DataType::Float32]),
            (Precision::Float32, [DataType::Float32, DataType::Float32, DataType::Float32]),
            (Precision::Rounded, [DataType::Float32, DataType::Float32, DataType::Float32]),
            (Precision::Float16, [DataType::Float16, DataType::Float16, DataType::Float16]),
        ] {
            let asked = result_schema(&planned, WireProfile { precision, ..WireProfile::default() }, &[]);
            let announced: Vec<_> = asked.fields().iter().take(3).map(|field| field.data_type().clone()).collect();
            assert_eq!(announced, types, "{precision:?}");
            assert_eq!(asked.fields()[3..], wire_schema(&planned).fields()[3..], "{precision:?}");
        }
    }

    #[test]
    fn views_are_found_within_lists_and_structs() {
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y"]));
        let inner = Field::new("item", DataType::Utf8View, false);
        let list = LargeListArray::new(Arc::new(inner), OffsetBuffer::from_lengths([2, 0]), Arc::clone(&views), None);
        let record =
            StructArray::from(vec![(Arc::new(Field::new("name", DataType::Utf8View, false)), Arc::clone(&views))]);
        let batch = batch(vec![("l", Arc::new(list)), ("s", Arc::new(record))]);
        let schema = wire_schema(&batch.schema());
        let sent = conform(&batch, &schema, Precision::Full).unwrap();
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        assert_eq!(sent.column(0).data_type(), &DataType::LargeList(item));
        let name = Field::new("name", DataType::Utf8, true);
        assert_eq!(sent.column(1).data_type(), &DataType::Struct(vec![name].into()));
    }

    #[test]
    fn keys_of_maps_stay_without_nulls() {
        let key = Field::new("key", DataType::Utf8View, false);
        let value = Field::new("value", DataType::Int32, false);
        let entries = Field::new("entries", DataType::Struct(vec![key, value].into()), false);
        let map = Schema::new(vec![Field::new("m", DataType::Map(Arc::new(entries), false), false)]);
        let DataType::Map(entries, _) = wire_schema(&map).field(0).data_type().clone() else { panic!("not a map") };
        let DataType::Struct(fields) = entries.data_type() else { panic!("not entries") };
        assert!(!entries.is_nullable() && !fields[0].is_nullable() && fields[1].is_nullable());
        assert_eq!(fields[0].data_type(), &DataType::Utf8);
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_that_names_the_column() {
        let batch = batch(vec![("wide", Arc::new(Int32Array::from(vec![70_000])))]);
        let schema = Arc::new(Schema::new(vec![Field::new("wide", DataType::Int16, true)]));
        let error = conform(&batch, &schema, Precision::Full).unwrap_err().to_string();
        assert!(error.contains("`wide`") && error.contains("Int16"), "{error}");
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let empty = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(Arc::clone(&empty), vec![], &options).unwrap();
        assert_eq!(conform(&batch, &empty, Precision::Full).unwrap().num_rows(), 3);
    }
}
