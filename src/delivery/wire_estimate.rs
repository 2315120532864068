//! How large a result will be on the line: an estimate of its rows, and what their columns take as the client gets them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use serde_json::json;

use crate::delivery::learned::{LearnedSizes, Way};
use crate::delivery::words::wire_columns;
use crate::delivery::{DeliveryError, result_schema};
use crate::lake::{StoredColumn, StoredForm, StoredWords};
use crate::model::{Codec, WireProfile};
use crate::query::{ColumnEstimate, Estimate};

/// Columns that are named as the heaviest.
const HEAVIEST: usize = 5;
/// Bytes of rows that a message carries about.
const MESSAGE_BYTES: f64 = (2 << 20) as f64;
/// Bytes of rows below which a message is not compressed.
const SMALL_BYTES: f64 = (4 << 10) as f64;
/// Words of a dictionary that are put in order: where they are more, it is sent with each message.
const ORDERED_WORDS: f64 = 1024.0;
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
    /// What an estimate comes to for a client with this profile, to whom the texts at the places `few` are sent as
    /// dictionaries, on a line of so many bytes a second.
    pub fn new(
        estimate: &Estimate,
        (profile, few): (WireProfile, &[usize]),
        learned: &LearnedSizes,
        rate: Option<f64>,
    ) -> Self {
        let wire = result_schema(&wire_columns(estimate), profile, few);
        let way = Way::of(profile);
        let columns = || estimate.columns.iter().zip(wire.fields());
        let raw_of_row: f64 = columns().map(|(column, field)| raw_bytes(field.data_type(), stored_of(column))).sum();
        let is_small = estimate.rows.is_some_and(|rows| rows.count * raw_of_row < SMALL_BYTES);
        let codec = if is_small { Codec::None } else { profile.codec };
        let message_rows = MESSAGE_BYTES / raw_of_row.max(1.0);
        let of_row: Vec<(String, f64)> = columns()
            .map(|(column, field)| {
                let assumed = value_bytes(field.data_type(), stored_of(column), codec, message_rows);
                let bytes = column.origin.as_ref().filter(|_| !is_small);
                let bytes = bytes.map_or(assumed, |origin| learned.bytes(origin, &way, assumed));
                (column.name.clone(), bytes)
            })
            .collect();
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
            seconds: wire_bytes.zip(rate.filter(|rate| *rate > 0.0)).map(|(bytes, rate)| to_millis(bytes / rate)),
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
            Some(to_millis(self.seconds? * share))
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

/// Seconds, to the millisecond.
fn to_millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// How data files hold a column, where it is one of a table.
fn stored_of(column: &ColumnEstimate) -> Option<&StoredColumn> {
    column.origin.as_ref()?.stored.as_ref()
}

/// Bytes that a value of a column takes on the line before anything was learnt of it, in messages of so many rows, from how
/// data files hold it, where it stands there. Fitted to columns of random values, even, skewed and sorted, written both ways:
/// Parquet's dictionaries make less of values that come again than any codec does of them in full, and of the others no more.
fn value_bytes(data_type: &DataType, stored: Option<&StoredColumn>, codec: Codec, message_rows: f64) -> f64 {
    let raw = raw_bytes(data_type, stored);
    let packed = stored.map_or(raw * 0.35, |stored| match stored.form {
        StoredForm::Words(words) => of_words(data_type, stored.packed, words, message_rows),
        StoredForm::Plain => of_plain(data_type, stored.packed),
        StoredForm::Unknown => of_unknown(data_type, stored.packed),
    });
    let most = match data_type {
        // A position and a word for each.
        DataType::Dictionary(_, words) => raw + raw_bytes(words, stored),
        _ => raw,
    };
    match codec {
        Codec::None => raw,
        Codec::Zstd => packed.min(most),
        Codec::Lz4 => (1.7 * packed).min(most),
    }
}

/// Of values that stand in dictionaries in the files.
fn of_words(data_type: &DataType, packed: f64, words: StoredWords, message_rows: f64) -> f64 {
    if words.in_group > words.group_rows / 2.0 {
        // Hardly one comes again: a dictionary of a small file tells what they take, its positions are nothing but more.
        return of_plain(data_type, words.packed / words.in_group);
    }
    match data_type {
        // The places where texts begin take most of it.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 2.4 + 2.2 * packed,
        DataType::Dictionary(..) => {
            // Where a message has all words, they are those of the message before, and are not sent again.
            let is_sent_again = words.in_group > ORDERED_WORDS || words.in_group * words.in_group.ln() > message_rows;
            let again = if is_sent_again { words.packed / message_rows.max(words.in_group) } else { 0.0 };
            (2.0 * packed).min(0.25) + 1.2 * packed + again
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => packed + (2.0 * packed).min(0.5),
        DataType::Float32 | DataType::Float64 => packed + (3.0 * packed).min(1.0),
        _ => 1.28 * packed,
    }
}

/// Of values that stand where they are in the files.
fn of_plain(data_type: &DataType, packed: f64) -> f64 {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 2.4 + 0.9 * packed,
        DataType::Dictionary(..) => 1.2 + 1.1 * packed,
        DataType::Float32 | DataType::Float64 => 0.97 * packed,
        _ => 0.95 * packed,
    }
}

/// Of values of which only the size of the files tells.
fn of_unknown(data_type: &DataType, packed: f64) -> f64 {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 2.2 + 1.15 * packed,
        DataType::Dictionary(..) if packed < 2.0 => 0.1 + 1.2 * packed,
        DataType::Dictionary(..) => 1.0 + 1.15 * packed,
        DataType::Decimal128(..) | DataType::Decimal256(..) => 0.2 + 1.7 * packed,
        DataType::Date32 | DataType::Date64 => 0.1 + 1.2 * packed,
        DataType::Float32 | DataType::Float64 => 1.03 * packed,
        _ => 0.1 + 1.1 * packed,
    }
}

/// Bytes of a value that is not packed.
pub(super) fn raw_bytes(data_type: &DataType, stored: Option<&StoredColumn>) -> f64 {
    let text = || match stored {
        Some(StoredColumn { length: Some(length), .. }) => *length,
        Some(stored) => (3.0 * stored.packed).max(8.0),
        None => 15.0,
    };
    match data_type {
        DataType::Null => 0.0,
        DataType::Boolean => 0.125,
        DataType::Utf8 | DataType::Binary => 4.0 + text(),
        DataType::LargeUtf8 | DataType::LargeBinary => 8.0 + text(),
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
    use crate::query::{Origin, Rows};

    fn column(name: &str, data_type: DataType, packed: f64) -> ColumnEstimate {
        let stored = Some(StoredColumn { packed, length: None, form: StoredForm::Unknown });
        let origin = Origin { table: "t.v".parse().unwrap(), column: name.to_owned(), stored };
        ColumnEstimate { name: name.to_owned(), data_type, origin: Some(origin), distinct: None }
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
        WireEstimate::new(&estimate(thousand()), (profile, &[1]), &LearnedSizes::default(), Some(1_000_000.0))
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

    /// What values of a type take, of which the files hold so much in such a form, packed by Zstandard.
    fn packed(data_type: &DataType, packed: f64, length: Option<f64>, form: StoredForm) -> f64 {
        value_bytes(data_type, Some(&StoredColumn { packed, length, form }), Codec::Zstd, 12_000.0)
    }

    #[test]
    fn values_take_about_what_was_measured() {
        let words = |in_group: f64, packed: f64| {
            StoredForm::Words(StoredWords { count: in_group, in_group, group_rows: 120_000.0, packed })
        };
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let decimal = DataType::Decimal128(21, 2);
        for (data_type, stored, length, form, found) in [
            (&DataType::Utf8, 0.61, Some(6.5), words(20.0, 171.0), 3.84),
            (&DataType::Utf8, 0.01, Some(8.0), words(100.0, 614.0), 2.47),
            (&DataType::Utf8, 1.35, Some(15.1), words(1_000.0, 11_572.0), 5.80),
            (&dictionary, 0.61, Some(6.5), words(20.0, 171.0), 0.94),
            (&dictionary, 0.89, Some(8.0), words(100.0, 598.0), 1.32),
            (&dictionary, 1.96, Some(10.0), words(5_000.0, 39_882.0), 5.36),
            (&DataType::Utf8, 4.25, Some(6.9), StoredForm::Plain, 5.56),
            (&DataType::Utf8, 17.53, Some(32.0), StoredForm::Plain, 18.54),
            (&DataType::Int64, 3.41, None, StoredForm::Plain, 3.20),
            (&DataType::Int64, 3.20, None, words(110_000.0, 117_000.0), 1.04),
            (&DataType::Int64, 1.27, None, words(1_000.0, 1_682.0), 1.62),
            (&DataType::Date32, 1.55, None, words(2_500.0, 5_418.0), 2.03),
            (&decimal, 4.17, None, StoredForm::Plain, 3.96),
            (&DataType::Float64, 7.91, None, StoredForm::Plain, 7.68),
            (&DataType::Float64, 2.09, None, words(14_000.0, 40_498.0), 3.04),
        ] {
            let told = packed(data_type, stored, length, form);
            assert!((told / found - 1.0).abs() < 0.25, "{data_type} {form:?}: {told}, not {found}");
        }
    }

    #[test]
    fn a_small_result_is_told_as_it_is_sent_unpacked() {
        let few = estimate(Some(Rows { count: 50.0, is_exact: true }));
        let told = |codec| {
            let profile = WireProfile { codec, ..WireProfile::default() };
            WireEstimate::new(&few, (profile, &[]), &LearnedSizes::default(), None).wire_bytes
        };
        assert_eq!(told(Codec::Zstd), told(Codec::None));
    }

    #[test]
    fn what_is_unknown_is_told_as_unknown() {
        let plain = (WireProfile::default(), &[][..]);
        let unknown = WireEstimate::new(&estimate(None), plain, &LearnedSizes::default(), Some(1.0));
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
