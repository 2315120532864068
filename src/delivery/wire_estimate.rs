//! How large a result will be on the line: an estimate of its rows, and what their columns take as the client gets them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::json;

use crate::delivery::learned::{LearnedSizes, Way};
use crate::delivery::{DeliveryError, result_schema};
use crate::model::{Codec, WireProfile};
use crate::query::Estimate;

/// Columns that are named as the heaviest.
const HEAVIEST: usize = 5;
/// Bytes of rows that a message carries about.
const MESSAGE_BYTES: f64 = (2 << 20) as f64;
/// What a message has for each column beside its values: their place and length, and what fills the buffers up.
const COLUMN_FRAMING: f64 = 150.0;
/// What the announcement of the columns has for each.
const COLUMN_ANNOUNCED: f64 = 120.0;

/// How large a result will be on the line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireEstimate {
    /// Its rows; none where they are not known.
    pub rows: Option<u64>,
    /// Whether there will be exactly so many.
    pub rows_exact: bool,
    /// Its bytes on the line.
    pub wire_bytes: Option<u64>,
    /// How long they take, where the line's rate is known.
    pub seconds: Option<f64>,
    /// Its columns, the heaviest first where their bytes are known.
    pub columns: Vec<ColumnBytes>,
}

/// What a column takes on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnBytes {
    /// The column's name.
    pub column: String,
    /// Its bytes; none where they are not known.
    pub wire_bytes: Option<u64>,
}

impl WireEstimate {
    /// What an estimate comes to for a client with this profile, on a line of so many bytes a second.
    pub fn new(estimate: &Estimate, profile: WireProfile, learned: &LearnedSizes, rate: Option<f64>) -> Self {
        let fields =
            estimate.columns.iter().map(|column| Field::new(column.name.as_str(), column.data_type.clone(), true));
        let wire = result_schema(&Schema::new(fields.collect::<Vec<_>>()), profile);
        let way = Way::of(profile);
        let (mut of_row, mut raw_of_row) = (Vec::with_capacity(estimate.columns.len()), 0.0);
        for (column, field) in estimate.columns.iter().zip(wire.fields()) {
            let stored = column.origin.as_ref().and_then(|origin| origin.stored);
            let assumed = value_bytes(field.data_type(), stored, profile.codec);
            raw_of_row += raw_bytes(field.data_type(), stored);
            let bytes = column.origin.as_ref().map_or(assumed, |origin| learned.bytes(origin, &way, assumed));
            of_row.push((column.name.clone(), bytes));
        }
        let rows = estimate.rows.map(|rows| rows.count.max(0.0));
        let mut columns: Vec<ColumnBytes> = of_row
            .iter()
            .map(|(column, bytes)| ColumnBytes {
                column: column.clone(),
                wire_bytes: rows.map(|rows| whole(rows * bytes)),
            })
            .collect();
        columns.sort_by_key(|column| std::cmp::Reverse(column.wire_bytes));
        let values: f64 = of_row.iter().map(|(_, bytes)| bytes).sum();
        let wire_bytes = rows.map(|rows| {
            let messages = (rows * raw_of_row / MESSAGE_BYTES).ceil().max(if rows > 0.0 { 1.0 } else { 0.0 });
            rows * values + (messages * COLUMN_FRAMING + COLUMN_ANNOUNCED) * of_row.len() as f64
        });
        Self {
            rows: rows.map(whole),
            rows_exact: estimate.rows.is_some_and(|rows| rows.is_exact),
            wire_bytes: wire_bytes.map(whole),
            seconds: wire_bytes.zip(rate.filter(|rate| *rate > 0.0)).map(|(bytes, rate)| bytes / rate),
            columns,
        }
    }

    /// The heaviest columns, as far as their bytes are known.
    pub fn heaviest(&self) -> impl Iterator<Item = (&str, u64)> {
        let known = self.columns.iter().filter_map(|column| Some((column.column.as_str(), column.wire_bytes?)));
        known.take(HEAVIEST)
    }

    /// As it stands in the description of a result.
    pub fn to_json(&self) -> serde_json::Value {
        let heaviest: Vec<_> =
            self.heaviest().map(|(column, bytes)| json!({ "column": column, "wire_bytes": bytes })).collect();
        json!({
            "rows": self.rows,
            "rows_exact": self.rows_exact,
            "wire_bytes": self.wire_bytes,
            "seconds": self.seconds,
            "heaviest": heaviest,
        })
    }

    /// As the answer to EXPLAIN ESTIMATE.
    ///
    /// # Errors
    /// Never, unless the columns of the answer are others than these.
    pub fn to_batch(&self) -> Result<RecordBatch, DeliveryError> {
        let number = |bytes: Option<u64>| bytes.and_then(|bytes| i64::try_from(bytes).ok());
        let seconds = |bytes: Option<u64>| {
            let share = bytes? as f64 / self.wire_bytes.filter(|all| *all > 0)? as f64;
            Some(self.seconds? * share)
        };
        let each = || self.columns.iter();
        let count = 1 + self.columns.len();
        let names = std::iter::once(None).chain(each().map(|column| Some(column.column.as_str())));
        let bytes = std::iter::once(self.wire_bytes).chain(each().map(|column| column.wire_bytes));
        let bytes: Vec<Option<u64>> = bytes.collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(names.collect::<StringArray>()),
            Arc::new(Int64Array::from(vec![number(self.rows); count])),
            Arc::new(BooleanArray::from(vec![self.rows.map(|_| self.rows_exact); count])),
            Arc::new(bytes.iter().map(|bytes| number(*bytes)).collect::<Int64Array>()),
            Arc::new(bytes.iter().map(|bytes| seconds(*bytes)).collect::<Float64Array>()),
        ];
        RecordBatch::try_new(Estimate::table_schema(), columns).map_err(DeliveryError::Encode)
    }
}

fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Bytes that a value of a column takes on the line before anything was learnt of it, from those it takes in data files,
/// where it stands there. By the measurements of docs/benchmarks.md: Parquet's dictionaries make less of text with few
/// values than any codec does of it in full.
fn value_bytes(data_type: &DataType, stored: Option<f64>, codec: Codec) -> f64 {
    let raw = raw_bytes(data_type, stored);
    let packed = stored.map_or(raw * 0.35, |stored| match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 2.2 + 1.15 * stored,
        DataType::Dictionary(..) if stored < 2.0 => 0.1 + 1.2 * stored,
        DataType::Dictionary(..) => 1.0 + 1.15 * stored,
        DataType::Decimal128(..) | DataType::Decimal256(..) => 0.2 + 1.7 * stored,
        DataType::Date32 | DataType::Date64 => 0.1 + 1.2 * stored,
        DataType::Float32 | DataType::Float64 => 1.03 * stored,
        _ => 0.1 + 1.1 * stored,
    });
    match codec {
        Codec::None => raw,
        Codec::Zstd => packed.min(raw),
        Codec::Lz4 => (1.7 * packed).min(raw),
    }
}

/// Bytes of a value that is not packed.
fn raw_bytes(data_type: &DataType, stored: Option<f64>) -> f64 {
    match data_type {
        DataType::Null => 0.0,
        DataType::Boolean => 0.125,
        DataType::Utf8 | DataType::Binary => 4.0 + (3.0 * stored.unwrap_or(5.0)).max(8.0),
        DataType::LargeUtf8 | DataType::LargeBinary => 8.0 + (3.0 * stored.unwrap_or(5.0)).max(8.0),
        DataType::FixedSizeBinary(width) => f64::from(*width),
        // A position, and once the word it stands for.
        DataType::Dictionary(keys, _) => keys.primitive_width().unwrap_or(4) as f64,
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            4.0 + 4.0 * raw_bytes(item.data_type(), None)
        }
        DataType::FixedSizeList(item, size) => f64::from(*size) * raw_bytes(item.data_type(), None),
        DataType::Struct(fields) => fields.iter().map(|field| raw_bytes(field.data_type(), None)).sum(),
        other => other.primitive_width().unwrap_or(8) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{ColumnEstimate, Origin, Rows};

    fn column(name: &str, data_type: DataType, stored: f64) -> ColumnEstimate {
        let origin = Origin { table: "t.v".parse().unwrap(), column: name.to_owned(), stored: Some(stored) };
        ColumnEstimate { name: name.to_owned(), data_type, origin: Some(origin) }
    }

    fn estimate(rows: Option<Rows>) -> Estimate {
        let columns = vec![
            column("n", DataType::Int64, 2.0),
            column("label", DataType::Utf8, 0.2),
            column("score", DataType::Float64, 7.0),
        ];
        Estimate { rows, columns }
    }

    fn thousand() -> Option<Rows> {
        Some(Rows { count: 1_000_000.0, is_exact: true })
    }

    fn told(codec: Codec, dictionaries: bool) -> WireEstimate {
        let profile = WireProfile { codec, dictionaries, ..WireProfile::default() };
        WireEstimate::new(&estimate(thousand()), profile, &LearnedSizes::default(), Some(1_000_000.0))
    }

    #[test]
    fn what_is_not_packed_takes_its_width_and_the_heaviest_columns_come_first() {
        let told = told(Codec::None, false);
        assert_eq!((told.rows, told.rows_exact), (Some(1_000_000), true));
        let heaviest: Vec<_> = told.heaviest().collect();
        assert_eq!(heaviest, [("label", 12_000_000), ("n", 8_000_000), ("score", 8_000_000)]);
        assert!(told.wire_bytes.is_some_and(|bytes| (28_000_000..28_100_000).contains(&bytes)));
        assert!(told.seconds.is_some_and(|seconds| (28.0..28.1).contains(&seconds)));
    }

    #[test]
    fn what_is_packed_takes_less_and_dictionaries_less_still() {
        let [none, lz4, zstd] = [Codec::None, Codec::Lz4, Codec::Zstd].map(|codec| told(codec, false).wire_bytes);
        assert!(zstd < lz4 && lz4 < none && told(Codec::Zstd, true).wire_bytes < zstd);
    }

    #[test]
    fn what_is_unknown_is_told_as_unknown() {
        let unknown = WireEstimate::new(&estimate(None), WireProfile::default(), &LearnedSizes::default(), Some(1.0));
        assert_eq!((unknown.rows, unknown.wire_bytes, unknown.seconds), (None, None, None));
        assert_eq!(
            unknown.to_json().to_string(),
            r#"{"rows":null,"rows_exact":false,"wire_bytes":null,"seconds":null,"heaviest":[]}"#
        );
        let rows = unknown.to_batch().unwrap();
        assert_eq!(rows.num_rows(), 4);
        assert!(rows.columns()[1..].iter().all(|column| column.null_count() == 4));
    }

    #[test]
    fn a_table_tells_of_the_whole_and_of_each_column() {
        let rows = told(Codec::None, false).to_batch().unwrap();
        let names = rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        let names: Vec<_> = names.iter().collect();
        assert_eq!(names, [None, Some("label"), Some("n"), Some("score")]);
        let seconds = rows.column(4).as_any().downcast_ref::<Float64Array>().unwrap();
        assert!(seconds.value(1) < seconds.value(0) && seconds.value(1) > 11.0);
    }
}
