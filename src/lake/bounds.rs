//! Bounds of columns in data files, only where they are safe.
//!
//! Delta's statistics are not always bounds: timestamps are cut to the millisecond, decimals go through
//! a 64-bit float, NaN is not counted. What is not a bound is left out here, and no bound means overlap.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_optimizer::pruning::PruningStatistics;
use deltalake::kernel::EagerSnapshot;

/// What the log may have cut off the upper bound of a timestamp, in microseconds: Delta writes milliseconds
/// (Delta protocol, "Per-file Statistics").
const TIMESTAMP_CUT_MICROSECONDS: i64 = 999;

/// Digits of an integer that fit a 64-bit integer whatever they are.
const SAFE_INTEGER_DIGITS: u8 = 18;

/// Digits that survive a 64-bit float (IEEE 754 double precision), through which decimals with a scale go.
const SAFE_DECIMAL_DIGITS: u8 = 15;

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
pub(super) struct SafeBounds<'a> {
    snapshot: &'a EagerSnapshot,
    schema: &'a Schema,
}

impl<'a> SafeBounds<'a> {
    /// The bounds of `snapshot`, whose columns are `schema`.
    pub(super) fn new(snapshot: &'a EagerSnapshot, schema: &'a Schema) -> Self {
        Self { snapshot, schema }
    }

    fn is_safe(&self, column: &Column) -> bool {
        self.schema.field_with_name(&column.name).is_ok_and(|field| are_safe(field.data_type()))
    }
}

impl PruningStatistics for SafeBounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.is_safe(column).then(|| self.snapshot.min_values(column))?
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.is_safe(column).then(|| self.snapshot.max_values(column))?.map(widen)
    }

    fn num_containers(&self) -> usize {
        self.snapshot.num_containers()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.is_safe(column).then(|| self.snapshot.null_counts(column))?
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        self.snapshot.row_counts()
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
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
    use arrow::array::TimestampMicrosecondArray;

    use super::*;

    #[test]
    fn upper_bounds_of_timestamps_take_in_the_cut_microseconds() {
        let cut = TimestampMicrosecondArray::from(vec![Some(1_000), None, Some(-1_000)]).with_timezone("UTC");
        let widened = widen(Arc::new(cut));
        let expected = TimestampMicrosecondArray::from(vec![Some(1_999), None, Some(-1)]).with_timezone("UTC");
        assert_eq!(widened.as_ref(), &expected as &dyn Array);
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
