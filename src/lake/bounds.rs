//! Bounds of columns in data files, only where they are safe.
//!
//! Delta's statistics are not always bounds: timestamps are cut to the millisecond, decimals go through
//! a 64-bit float, NaN is not counted. What is not a bound is left out here, and no bound means overlap.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_optimizer::pruning::PruningStatistics;

use crate::lake::snapshot::Pinned;

/// What the log may have cut off the upper bound of a timestamp, in microseconds: Delta writes milliseconds
/// (Delta protocol, "Per-file Statistics").
const TIMESTAMP_CUT_MICROSECONDS: i64 = 999;

/// Digits of an integer that fit a 64-bit integer whatever they are.
const SAFE_INTEGER_DIGITS: u8 = 18;

/// Digits that survive a 64-bit float (IEEE 754 double precision), through which decimals with a scale go.
const SAFE_DECIMAL_DIGITS: u8 = 15;

/// Longest list of an IN whose values are compared with the bounds one by one, by an expression that grows with it. Of
/// longer ones [`SafeBounds`] tells itself whether a file can hold one.
pub(super) const LONGEST_LIST_COMPARED: usize = 20;

/// Whether the log's minimum and maximum of such a column are bounds, once widened as here.
pub(super) fn are_safe(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Date32 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Timestamp(TimeUnit::Microsecond, _) => true,
        DataType::Decimal128(precision, 0) => *precision <= SAFE_INTEGER_DIGITS,
        DataType::Decimal128(precision, _) => *precision <= SAFE_DECIMAL_DIGITS,
        _ => false,
    }
}

/// Whether the bounds of such a column are values that stand in the file: not cut, not widened.
pub(super) fn are_exact(data_type: &DataType) -> bool {
    let inexact =
        matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Timestamp(..));
    are_safe(data_type) && !inexact
}

/// The bounds of a version's data files, one row per file in the order of the log.
pub(super) struct SafeBounds<'a>(&'a Pinned);

impl<'a> SafeBounds<'a> {
    /// The bounds of a version.
    pub(super) fn new(pinned: &'a Pinned) -> Self {
        Self(pinned)
    }

    fn is_safe(&self, column: &Column) -> bool {
        self.0.schema.field_with_name(&column.name).is_ok_and(|field| are_safe(field.data_type()))
    }
}

impl PruningStatistics for SafeBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.is_safe(column).then(|| self.0.eager.min_values(column))?
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.is_safe(column).then(|| self.0.eager.max_values(column))?.map(widen)
    }

    fn num_containers(&self) -> usize {
        self.0.eager.num_containers()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.0.null_counts(&column.name)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        self.0.eager.row_counts()
    }

    /// Which files can hold none of many values: `false`, else unknown.
    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        if values.len() <= LONGEST_LIST_COMPARED {
            return None;
        }
        hold_none(self.min_values(column)?.as_ref(), self.max_values(column)?.as_ref(), values)
    }
}

/// `false` for each pair of bounds between which none of some values lies, else unknown. A null among the values equals
/// nothing.
fn hold_none(minima: &dyn Array, maxima: &dyn Array, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
    let mut sorted: Vec<&ScalarValue> = values.iter().filter(|value| !value.is_null()).collect();
    if sorted.iter().any(|value| value.data_type() != *minima.data_type()) {
        return None;
    }
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    let told = (0..minima.len()).map(|file| {
        let least = ScalarValue::try_from_array(minima, file).ok().filter(|value| !value.is_null())?;
        let greatest = ScalarValue::try_from_array(maxima, file).ok().filter(|value| !value.is_null())?;
        let first = sorted.partition_point(|value| (**value).partial_cmp(&least) == Some(Ordering::Less));
        let next = sorted.get(first);
        next.is_none_or(|value| (**value).partial_cmp(&greatest) == Some(Ordering::Greater)).then_some(false)
    });
    Some(told.collect())
}

/// Upper bounds with what the log may have cut off added again.
fn widen(maxima: ArrayRef) -> ArrayRef {
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = maxima.data_type() else { return maxima };
    let zone = zone.clone();
    let widened: PrimitiveArray<TimestampMicrosecondType> = maxima
        .as_primitive::<TimestampMicrosecondType>()
        .unary(|value| value.saturating_add(TIMESTAMP_CUT_MICROSECONDS));
    Arc::new(widened.with_timezone_opt(zone))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn upper_bounds_of_timestamps_take_in_the_cut_microseconds() {
        let cut = TimestampMicrosecondArray::from(vec![Some(1_000), None, Some(-1_000)]).with_timezone("UTC");
        let widened = widen(Arc::new(cut));
        let expected = TimestampMicrosecondArray::from(vec![Some(1_999), None, Some(-1)]).with_timezone("UTC");
        assert_eq!(widened.as_ref(), &expected as &dyn Array);
    }

    #[test]
    fn files_between_whose_bounds_none_of_many_values_lies_hold_none() {
        let values: HashSet<_> = (0..100).map(|number| ScalarValue::Int64(Some(number * 10))).collect();
        let minima = Int64Array::from(vec![Some(1), Some(1), Some(-9), Some(990), Some(991), None, Some(5)]);
        let maxima = Int64Array::from(vec![Some(9), Some(10), Some(0), Some(2000), Some(2000), Some(3), None]);
        let told = hold_none(&minima, &maxima, &values).unwrap();
        let none = Some(false);
        assert_eq!(told, BooleanArray::from(vec![none, None, None, None, none, None, None]));
        let with_null: HashSet<_> = values.into_iter().chain([ScalarValue::Null]).collect();
        assert_eq!(hold_none(&minima, &maxima, &with_null), Some(told), "nothing equals null");
        let texts = StringArray::from(vec!["a"; 7]);
        assert_eq!(hold_none(&texts, &texts, &with_null), None, "bounds of another type");
    }

    #[test]
    fn floats_and_wide_decimals_have_no_bounds() {
        for unsafe_type in [
            DataType::Float64,
            DataType::Float32,
            DataType::Binary,
            DataType::Decimal128(19, 0),
            DataType::Decimal128(16, 2),
        ] {
            assert!(!are_safe(&unsafe_type), "{unsafe_type}");
        }
        assert!(are_safe(&DataType::Decimal128(18, 0)) && are_safe(&DataType::Decimal128(15, 2)));
        assert!(!are_exact(&DataType::Utf8) && are_exact(&DataType::Int64));
    }
}
