//! Parameters of a statement: their types as far as the statement tells them, and binding values.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;

use crate::query::QueryError;
use crate::query::change::fit::loses;

/// The parameters `$1` to `$highest` in order. The type is `Null` where nothing tells it.
///
/// # Errors
/// When the plan uses one parameter as two types.
pub(crate) fn fields(plan: &LogicalPlan, highest: usize) -> Result<Vec<FieldRef>, QueryError> {
    if highest == 0 {
        return Ok(Vec::new());
    }
    let told = plan.get_parameter_fields()?;
    let field = |number: usize| {
        let name = format!("${number}");
        let kind = told.get(&name).and_then(Option::as_ref).map_or(DataType::Null, |f| f.data_type().clone());
        Arc::new(Field::new(name, kind, true)) as FieldRef
    };
    Ok((1..=highest).map(field).collect())
}

/// Puts values in place of the parameters. A value becomes the type the statement asks for where that
/// loses nothing; otherwise it stays what it is and the plan compares as it would with a literal.
///
/// # Errors
/// When there are too many or too few values.
pub(crate) fn bind(plan: LogicalPlan, fields: &[FieldRef], values: &[ScalarValue]) -> Result<LogicalPlan, QueryError> {
    if fields.len() != values.len() {
        return Err(wrong_number(values.len(), fields.len()));
    }
    let values: Vec<ScalarValue> =
        values.iter().zip(fields).map(|(value, field)| fit(value, field.data_type())).collect();
    Ok(plan.with_param_values(ParamValues::from(values))?)
}

/// The error of a statement that got another number of values than it has parameters.
pub(crate) fn wrong_number(given: usize, needed: usize) -> QueryError {
    QueryError::invalid(format!("the statement has {needed} parameters and was given {given} values"))
}

/// A value as the type a statement asks for, where that loses nothing; otherwise as it is.
pub(crate) fn fit(value: &ScalarValue, wanted: &DataType) -> ScalarValue {
    let own = value.data_type();
    if own == *wanted || *wanted == DataType::Null {
        return value.clone();
    }
    // A time has many spellings: one that can be read is the time, where it has no more digits than there is room for.
    let spelled = value.try_as_str().flatten().is_some_and(|text| !loses(text, wanted));
    match value.cast_to(wanted) {
        Ok(cast) if spelled && wanted.is_temporal() => cast,
        Ok(cast) if value.is_null() || cast.cast_to(&own).is_ok_and(|back| back == *value) => cast,
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_cast_only_where_nothing_is_lost() {
        let decimal = DataType::Decimal128(12, 2);
        let price = ScalarValue::Float64(Some(9_999_999_999.99));
        assert_eq!(fit(&price, &decimal), ScalarValue::Decimal128(Some(999_999_999_999), 12, 2));
        let half = ScalarValue::Float64(Some(1.5));
        assert_eq!(fit(&half, &DataType::Int64), half);
        let day = ScalarValue::Utf8(Some("2013-01-31".into()));
        assert_eq!(fit(&day, &DataType::Date32), ScalarValue::Date32(Some(15_736)));
        let minute = ScalarValue::Utf8(Some("2013-01-31 23:59:00".into()));
        assert_eq!(fit(&minute, &DataType::Date32), minute);
        assert_eq!(fit(&ScalarValue::Null, &DataType::Int64), ScalarValue::Int64(None));
        let long = ScalarValue::Int64(Some(1 << 40));
        assert_eq!(fit(&long, &DataType::Int32), long);
    }
}
