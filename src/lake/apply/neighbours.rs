//! Which of sorted rows have the key of the row before them, across batches.

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::concat;
use arrow::compute::kernels::cmp::eq;
use arrow::error::ArrowError;

use crate::lake::sort::KeyOrder;

/// Compares each row's key with the one before, as the keys' order does. A key with NULL in it is like no other.
pub(super) struct Neighbours {
    order: KeyOrder,
    last: Option<Vec<ArrayRef>>,
}

impl Neighbours {
    /// Compares keys as `order` does.
    pub(super) fn new(order: &KeyOrder) -> Self {
        Self { order: order.clone(), last: None }
    }

    /// For each row whether its key is that of the row before; a stream's first row has none before it.
    pub(super) fn same_as_before(&mut self, rows: &RecordBatch) -> Result<BooleanBuffer, ArrowError> {
        let count = rows.num_rows();
        if count == 0 {
            return Ok(BooleanBuffer::new_unset(0));
        }
        let keys = self.order.keys(rows)?;
        let mut same = BooleanBuffer::new_set(count);
        for (position, column) in keys.iter().enumerate() {
            let before = match &self.last {
                Some(last) => concat(&[last[position].as_ref(), &column.slice(0, count - 1)])?,
                None => concat(&[&column.slice(0, 1), &column.slice(0, count - 1)])?,
            };
            let equal = eq(&before, column)?;
            let known = equal.nulls().map_or_else(|| BooleanBuffer::new_set(count), |nulls| nulls.inner().clone());
            same = &same & &(equal.values() & &known);
        }
        if self.last.is_none() {
            let mut rest = BooleanBufferBuilder::new(count);
            rest.append(false);
            rest.append_buffer(&same.slice(1, count - 1));
            same = rest.finish();
        }
        // A copy: a slice would keep the whole batch.
        let last = keys.iter().map(|column| concat(&[&column.slice(count - 1, 1)]));
        self.last = Some(last.collect::<Result<_, _>>()?);
        Ok(same)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;
    use crate::model::KeyFolding;

    fn batch(keys: &[(Option<i32>, &str)]) -> RecordBatch {
        let numbers: Int32Array = keys.iter().map(|(number, _)| *number).collect();
        let texts: StringArray = keys.iter().map(|(_, text)| Some(*text)).collect();
        let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(numbers)), ("t", Arc::new(texts))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn the_key_before_is_remembered_across_batches_and_null_is_like_nothing() {
        let order = KeyOrder::new(&batch(&[]).schema(), vec![0, 1], &[]).unwrap();
        let mut neighbours = Neighbours::new(&order);
        let first = neighbours.same_as_before(&batch(&[(None, "a"), (None, "a"), (Some(1), "a"), (Some(1), "a")]));
        assert_eq!(first.unwrap().iter().collect::<Vec<_>>(), [false, false, false, true]);
        let second = neighbours.same_as_before(&batch(&[(Some(1), "a"), (Some(1), "b"), (Some(2), "b")]));
        assert_eq!(second.unwrap().iter().collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn keys_are_the_same_as_they_compare_and_not_as_they_are_written() {
        let folding = [KeyFolding::Exact, KeyFolding::LettersWithoutCase];
        let order = KeyOrder::new(&batch(&[]).schema(), vec![0, 1], &folding).unwrap();
        let mut neighbours = Neighbours::new(&order);
        let first = neighbours.same_as_before(&batch(&[(Some(1), "ab"), (Some(1), "AB "), (Some(1), "áb")]));
        assert_eq!(first.unwrap().iter().collect::<Vec<_>>(), [false, true, false]);
        let second = neighbours.same_as_before(&batch(&[(Some(1), "ÁB"), (Some(2), "Áb")]));
        assert_eq!(second.unwrap().iter().collect::<Vec<_>>(), [true, false]);
    }
}
