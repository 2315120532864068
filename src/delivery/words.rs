//! Which columns are sent as dictionaries to those who ask for them: texts of which the same ones come again in each message.
//!
//! Every message may need a dictionary of its own, so what counts is how many different texts a message has among its rows.
//! Measured with random texts of 4 to 32 letters in messages of 800 to 40,000 rows, packed by Zstandard 1: with 0.6 words a
//! row and fewer, positions and words together were always smaller than the texts; with more than one they were larger
//! in all but one, by up to 1.4 times. Half is on the safe side, for how many words there are is known about.

use arrow::datatypes::{DataType, Field, Schema};

use crate::delivery::wire_estimate::raw_bytes;
use crate::delivery::wire_schema;
use crate::query::Estimate;

/// Bytes of rows that a message has at least, but for the first ones: where a line is slow, they are smaller than elsewhere.
const MESSAGE_BYTES: f64 = (768 << 10) as f64;
/// Different texts that are few however many rows there are.
const FEW: f64 = 16.0;

/// The places of these columns in a result of which so much is known. What nothing is known of is sent as it is.
pub fn few_words(estimate: &Estimate) -> Vec<usize> {
    let schema = wire_columns(estimate);
    let columns = || estimate.columns.iter().zip(schema.fields());
    let row: f64 = columns()
        .map(|(column, field)| {
            let stored = column.origin.as_ref().and_then(|origin| origin.stored.as_ref());
            raw_bytes(field.data_type(), stored)
        })
        .sum();
    let message_rows = MESSAGE_BYTES / row.max(1.0);
    let few = columns().enumerate().filter(|(_, (column, field))| {
        let known = column.distinct.filter(|_| *field.data_type() == DataType::Utf8);
        known.is_some_and(|known| known.within <= FEW || known.within <= message_rows.min(known.of_rows) / 2.0)
    });
    few.map(|(place, _)| place).collect()
}

/// The columns of a result in the plain types they are sent in.
pub(super) fn wire_columns(estimate: &Estimate) -> Schema {
    let fields = estimate.columns.iter().map(|column| Field::new(column.name.as_str(), column.data_type.clone(), true));
    wire_schema(&Schema::new(fields.collect::<Vec<_>>())).as_ref().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{ColumnEstimate, Distinct};

    fn column(data_type: DataType, distinct: Option<(f64, f64)>) -> ColumnEstimate {
        let distinct = distinct.map(|(within, of_rows)| Distinct { count: within, within, of_rows });
        ColumnEstimate { name: "c".to_owned(), data_type, origin: None, distinct }
    }

    fn few(columns: Vec<ColumnEstimate>) -> Vec<usize> {
        few_words(&Estimate { rows: None, columns })
    }

    #[test]
    fn texts_with_few_words_are_and_unique_ones_and_unknown_ones_are_not() {
        let text = |distinct| column(DataType::Utf8, distinct);
        let columns = vec![
            text(Some((20.0, 200_000.0))),
            text(Some((150_000.0, 200_000.0))),
            text(None),
            column(DataType::Int64, Some((20.0, 200_000.0))),
            column(DataType::Utf8View, Some((1_000.0, 200_000.0))),
            text(Some((12.0, 12.0))),
            text(Some((300.0, 300.0))),
            text(Some((3.0, f64::INFINITY))),
        ];
        assert_eq!(few(columns), [0, 4, 5, 7]);
    }

    #[test]
    fn where_rows_are_wide_a_message_has_few_of_them_and_words_have_to_be_fewer() {
        let narrow = vec![column(DataType::Utf8, Some((1_000.0, 200_000.0)))];
        assert_eq!(few(narrow.clone()), [0]);
        let wide = narrow.into_iter().chain((0..200).map(|_| column(DataType::Float64, None)));
        assert_eq!(few(wide.collect()), [0; 0]);
    }
}
