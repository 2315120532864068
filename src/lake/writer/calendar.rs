//! Dates and times beyond the years an entry of the log can be made of.
//!
//! The library makes statistics with chrono, whose years end at 262142. It panics over a date beyond them, and where one
//! part of a file has a time beyond them takes the bounds of the other parts for the file's.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Date32Type, Field, Fields, TimeUnit, TimestampMicrosecondType};
use chrono::DateTime;

const SECONDS_OF_A_DAY: i64 = 86_400;

/// The columns, nested ones by their own name alone, in which there is such a date or time.
pub(super) fn columns_beyond_years(rows: &RecordBatch) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect_all(rows.schema_ref().fields(), rows.columns(), &mut found);
    found
}

fn collect_all(fields: &Fields, columns: &[ArrayRef], found: &mut BTreeSet<String>) {
    fields.iter().zip(columns).for_each(|(field, values)| collect(field, values, found));
}

fn collect(field: &Field, values: &ArrayRef, found: &mut BTreeSet<String>) {
    match field.data_type() {
        DataType::Struct(fields) => collect_all(fields, values.as_struct().columns(), found),
        DataType::List(item) => collect(item, values.as_list::<i32>().values(), found),
        DataType::Map(..) => {
            let entries = values.as_map().entries();
            collect_all(entries.fields(), entries.columns(), found);
        }
        _ if is_beyond_years(values) => {
            found.insert(field.name().clone());
        }
        _ => {}
    }
}

fn is_beyond_years(values: &ArrayRef) -> bool {
    match values.data_type() {
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            let has_year = |day: i32| DateTime::from_timestamp(i64::from(day) * SECONDS_OF_A_DAY, 0).is_some();
            [min(days), max(days)].into_iter().flatten().any(|day| !has_year(day))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = values.as_primitive::<TimestampMicrosecondType>();
            [min(times), max(times)].into_iter().flatten().any(|time| DateTime::from_timestamp_micros(time).is_none())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, ListArray, StructArray, TimestampMicrosecondArray};
    use arrow::buffer::OffsetBuffer;
    use chrono::NaiveDate;

    use super::*;

    fn found(values: ArrayRef) -> Vec<String> {
        columns_beyond_years(&RecordBatch::try_from_iter([("c", values)]).unwrap()).into_iter().collect()
    }

    fn days(days: Vec<Option<i32>>) -> ArrayRef {
        Arc::new(Date32Array::from(days))
    }

    fn times(time: i64) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![0, time]))
    }

    #[test]
    fn the_last_day_with_a_year_is_in_and_the_next_is_out() {
        let day = |date: NaiveDate| i32::try_from((date - NaiveDate::default()).num_days()).unwrap();
        let (first, last) = (day(NaiveDate::MIN), day(NaiveDate::MAX));
        assert!(found(days(vec![Some(first), None, Some(0), Some(last)])).is_empty());
        assert_eq!(found(days(vec![Some(last + 1), None])), ["c"]);
        assert_eq!(found(days(vec![Some(0), Some(first - 1)])), ["c"]);
        assert!(found(days(vec![None, None])).is_empty() && found(days(vec![])).is_empty());
        assert_eq!(found(times(i64::MAX)), ["c"]);
        assert_eq!(found(times(i64::MIN)), ["c"]);
        assert!(found(times(253_402_300_799_000_000)).is_empty());
    }

    #[test]
    fn nested_ones_are_found_by_their_own_name() {
        let day = Arc::new(Field::new("day", DataType::Date32, true));
        let inner = StructArray::new(Fields::from(vec![day]), vec![days(vec![Some(i32::MAX), Some(1)])], None);
        let item = Arc::new(Field::new("element", inner.data_type().clone(), true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([2]), Arc::new(inner), None);
        assert_eq!(found(Arc::new(list)), ["day"]);
    }
}
