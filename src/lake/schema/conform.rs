//! Rows with a table's columns, whatever columns they came with.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields, SchemaRef};
use arrow::error::ArrowError;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::model::TableName;

/// Gives rows a table's columns: by name, cast up, NULL where they are missing, at every depth.
#[derive(Clone, Debug)]
pub(crate) struct Conform {
    table: TableName,
    schema: SchemaRef,
}

impl Conform {
    /// Rows of `table`, whose columns are `schema`.
    pub(crate) fn new(table: TableName, schema: SchemaRef) -> Self {
        Self { table, schema }
    }

    /// The columns rows get.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows with the table's columns.
    ///
    /// # Errors
    /// `InvalidInput` that names the column whose values do not fit; never a value.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch, LakeError> {
        let columns = self.schema.fields().iter().map(|field| {
            let column = match batch.column_by_name(field.name()) {
                Some(column) => conform(column, field.data_type()).map_err(|cause| self.error(field, &cause))?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                let text = format!("table {}: column `{}` must have a value and is NULL", self.table, field.name());
                return Err(LakeError::new(ErrorKind::InvalidInput, text));
            }
            Ok(column)
        });
        let columns = columns.collect::<Result<Vec<_>, LakeError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(|cause| {
            LakeError::because(ErrorKind::Internal, format!("rows do not fit table {}", self.table), cause)
        })
    }

    /// The cause is left out: a cast that fails prints the value.
    fn error(&self, field: &FieldRef, cause: &ArrowError) -> LakeError {
        let kind = if matches!(cause, ArrowError::CastError(_) | ArrowError::ParseError(_)) {
            "a value does not fit"
        } else {
            "values cannot be converted"
        };
        let text = format!("table {}: column `{}` is {}; {kind}", self.table, field.name(), field.data_type());
        LakeError::new(ErrorKind::InvalidInput, text)
    }
}

fn conform(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), wanted) {
        (DataType::Null, _) => Ok(new_null_array(wanted, array.len())),
        (DataType::Struct(_), DataType::Struct(fields)) => conform_struct(array.as_struct(), fields),
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = conform(list.values(), item.data_type())?;
            let made = ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?;
            Ok(Arc::new(made))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => conform_map(array.as_map(), entries, *sorted),
        // Other kinds of lists and dictionaries first become plain ones, then their items are looked at.
        (
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item),
            DataType::List(_),
        ) => conform(&strict_cast(array, &DataType::List(Arc::clone(item)))?, wanted),
        _ => strict_cast(array, wanted),
    }
}

fn strict_cast(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, wanted, &CastOptions { safe: false, ..CastOptions::default() })
}

fn conform_struct(array: &StructArray, fields: &Fields) -> Result<ArrayRef, ArrowError> {
    let columns = fields.iter().map(|field| match array.column_by_name(field.name()) {
        Some(column) => conform(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), array.len())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let made = StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())?;
    Ok(Arc::new(made))
}

fn conform_map(map: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef, ArrowError> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(ArrowError::SchemaError("a map's entries are a struct".to_owned()));
    };
    let columns = fields.iter().zip(map.entries().columns()).map(|(field, column)| conform(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let pairs = StructArray::try_new(fields.clone(), columns, map.entries().nulls().cloned())?;
    let made = MapArray::try_new(Arc::clone(entries), map.offsets().clone(), pairs, map.nulls().cloned(), sorted)?;
    Ok(Arc::new(made))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn nested_fields_are_found_by_name_widened_and_filled_with_null() {
        let item = Fields::from(vec![Field::new("n", DataType::Int32, true)]);
        let values = StructArray::new(item.clone(), vec![Arc::new(Int32Array::from(vec![1, 2, 3]))], None);
        let list = ListArray::new(
            Arc::new(Field::new("item", DataType::Struct(item), true)),
            arrow::buffer::OffsetBuffer::from_lengths([2, 1]),
            Arc::new(values),
            None,
        );
        let batch = RecordBatch::try_from_iter([("list", Arc::new(list) as ArrayRef)]).unwrap();
        let wanted_item =
            Fields::from(vec![Field::new("added", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]);
        let element = Arc::new(Field::new("element", DataType::Struct(wanted_item), true));
        let wanted = Schema::new(vec![
            Field::new("list", DataType::List(element), true),
            Field::new("more", DataType::Utf8, true),
        ]);
        let rows = Conform::new("a.b".parse().unwrap(), Arc::new(wanted)).rows(&batch).unwrap();
        let items = rows.column(0).as_list::<i32>().values().as_struct();
        assert_eq!(items.column(1).as_primitive::<Int64Type>(), &Int64Array::from(vec![1, 2, 3]));
        assert_eq!((items.column(0).null_count(), rows.column(1).null_count()), (3, 2));
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_without_the_value() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(StringArray::from(vec!["secret"])) as ArrayRef)]);
        let wanted = Schema::new(vec![Field::new("n", DataType::Int32, true)]);
        let error = Conform::new("a.b".parse().unwrap(), Arc::new(wanted)).rows(&batch.unwrap()).unwrap_err();
        let text = crate::error::chain_text(&error);
        assert!(text.contains("`n`") && !text.contains("secret"), "{text}");
    }
}
