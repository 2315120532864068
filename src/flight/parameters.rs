//! Parameters of prepared statements: what clients are told of them, and the values they send.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::refuse;

/// Rows of values that are read before others have their turn.
const ROWS_AT_ONCE: usize = 1000;

/// The parameters in order, as clients are told of them: text where nothing tells the type (drivers
/// cannot bind the type Null), and nullable, or drivers refuse to bind a NULL.
pub(crate) fn announced(parameters: &[FieldRef]) -> Schema {
    let field = |field: &FieldRef| {
        let data_type = match field.data_type() {
            DataType::Null | DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            known => known.clone(),
        };
        Field::new(field.name(), data_type, true)
    };
    Schema::new(parameters.iter().map(field).collect::<Vec<_>>())
}

/// The values a client sent for `needed` parameters: one row, whose columns count by position, for
/// clients name them differently.
///
/// # Errors
/// `INVALID_ARGUMENT` when there are several rows, or not a column for each parameter.
pub(crate) fn values(batches: &[RecordBatch], needed: usize) -> Result<Vec<ScalarValue>, Status> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows > 1 {
        let message = format!("{rows} rows of values were bound; a query takes one row, so run it once for each");
        return Err(refuse(ErrorKind::InvalidInput, message));
    }
    let row = batches.iter().find(|batch| batch.num_rows() == 1);
    let given = row.map_or(0, RecordBatch::num_columns);
    if given != needed {
        let message = format!("the statement has {needed} parameters, but {given} values were bound");
        return Err(refuse(ErrorKind::InvalidInput, message));
    }
    let columns = row.into_iter().flat_map(RecordBatch::columns);
    columns
        .map(|column| ScalarValue::try_from_array(column, 0).map(plain))
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))
}

/// The values of all rows that a client sent for a statement with `needed` parameters, row after row.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is not a column for each parameter.
pub(crate) async fn rows(batches: &[RecordBatch], needed: usize) -> Result<Vec<ScalarValue>, Status> {
    let mut values = Vec::new();
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        if batch.num_columns() != needed {
            let given = batch.num_columns();
            let message = format!("the statement has {needed} parameters, but {given} values were bound");
            return Err(refuse(ErrorKind::InvalidInput, message));
        }
        for row in 0..batch.num_rows() {
            if row % ROWS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            for column in batch.columns() {
                values.push(ScalarValue::try_from_array(column, row).map(plain).map_err(|error| unreadable(&error))?);
            }
        }
    }
    Ok(values)
}

/// Values, row after row, as a table again.
///
/// # Errors
/// `INVALID_ARGUMENT` when one parameter has values of several types.
pub(crate) fn table(values: &[ScalarValue], columns: usize) -> Result<RecordBatch, Status> {
    let column = |at: usize| {
        let values = values.iter().skip(at).step_by(columns.max(1)).cloned();
        let column = ScalarValue::iter_to_array(values).map_err(|error| unreadable(&error))?;
        Ok::<_, Status>((format!("${}", at + 1), column))
    };
    let columns = (0..columns).map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_from_iter(columns).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::error::Error) -> Status {
    refuse(ErrorKind::InvalidInput, format!("a bound value cannot be read: {error}"))
}

/// The value itself: one client wraps each in a union of the types it knows, and dictionaries are a
/// way to send values, not a type of them.
fn plain(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, inner)), ..) | ScalarValue::Dictionary(_, inner) => plain(*inner),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, UnionArray};
    use arrow::datatypes::UnionFields;

    use super::*;

    #[test]
    fn values_within_unions_are_taken_out() {
        let fields =
            UnionFields::from_fields([Field::new("i", DataType::Int64, true), Field::new("s", DataType::Utf8, true)]);
        let children: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7])), Arc::new(StringArray::from(vec!["x"]))];
        let union = |type_id: i8| -> ArrayRef {
            let types = vec![type_id].into();
            let array = UnionArray::try_new(fields.clone(), types, Some(vec![0].into()), children.clone());
            Arc::new(array.unwrap())
        };
        let batch = RecordBatch::try_from_iter([("param_0", union(0)), ("param_1", union(1))]).unwrap();
        let expected = [ScalarValue::Int64(Some(7)), ScalarValue::Utf8(Some("x".to_owned()))];
        assert_eq!(values(&[batch], 2).unwrap(), expected);
    }

    #[test]
    fn one_row_with_a_value_for_each_parameter_is_wanted() {
        let batch =
            |rows: Vec<i64>| RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(rows)) as ArrayRef)]).unwrap();
        assert_eq!(values(&[batch(vec![]), batch(vec![1])], 1).unwrap().len(), 1);
        assert!(values(&[batch(vec![1, 2])], 1).is_err());
        assert!(values(&[batch(vec![1])], 2).is_err());
        assert!(values(&[], 1).is_err());
        assert!(values(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn unknown_types_are_announced_as_text_that_may_be_null() {
        let fields = [Field::new("$1", DataType::Null, false), Field::new("$2", DataType::Int64, false)];
        let schema = announced(&fields.map(Arc::new));
        let expected = [Field::new("$1", DataType::Utf8, true), Field::new("$2", DataType::Int64, true)];
        assert_eq!(schema, Schema::new(expected.to_vec()));
    }
}
