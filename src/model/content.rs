//! A hash of rows in any order.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::row::{Row, RowConverter, SortField};

/// The sum of the rows' hashes, 128 bits of BLAKE3 each, and their number: equal for the same rows in another order.
pub struct ContentHash {
    converter: RowConverter,
    sum: u128,
    rows: u64,
}

impl ContentHash {
    /// Of no rows yet.
    ///
    /// # Errors
    /// When a column has a type that has no order.
    pub fn new(schema: &Schema) -> Result<Self, ArrowError> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { converter: RowConverter::new(fields)?, sum: 0, rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When they have other columns.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let converted = self.converter.convert_columns(rows.columns())?;
        converted.iter().for_each(|row| self.add_hash(hash(row)));
        Ok(())
    }

    /// The hash of each row: for rows of which it is not known yet whether they count ([`Self::add_hash`]).
    ///
    /// # Errors
    /// When they have other columns.
    pub fn hashes(&self, rows: &RecordBatch) -> Result<Vec<u128>, ArrowError> {
        let converted = self.converter.convert_columns(rows.columns())?;
        Ok(converted.iter().map(hash).collect())
    }

    /// Adds a row by its hash.
    pub fn add_hash(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.rows += 1;
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

fn hash(row: Row<'_>) -> u128 {
    let hash = blake3::hash(row.as_ref());
    u128::from_le_bytes(hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default())
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.rows, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;

    fn hash(rows: &[(i32, Option<&str>)]) -> String {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
        let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true)]).unwrap();
        let mut hash = ContentHash::new(&batch.schema()).unwrap();
        hash.add(&batch).unwrap();
        hash.to_string()
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_everything_else_does() {
        let rows = [(1, Some("a")), (2, None), (2, Some(""))];
        assert_eq!(hash(&rows), hash(&[rows[2], rows[0], rows[1]]));
        assert_ne!(hash(&rows), hash(&rows[..2]));
        assert_ne!(hash(&rows), hash(&[(1, Some("a")), (2, Some("")), (2, Some(""))]));
        // A row twice is not the same as never: a sum keeps it, an exclusive or would not.
        assert_ne!(hash(&[rows[0], rows[0]]), hash(&[]));
    }
}
