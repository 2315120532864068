//! How many bytes rows take on the line, and cutting batches by it.

use arrow::array::{Array, AsArray, OffsetSizeTrait, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// Bytes a column takes besides its values: up to three buffers, each padded to 64 bytes and described
/// in the header by 16, and the column's own 16. Counts in tables of thousands of columns.
const FRAMING: usize = 3 * (32 + 16) + 16;

/// Cuts a batch into slices of about `target` bytes, none above `limit` unless it is one row.
/// Slices share the batch's buffers.
pub(crate) fn cut(batch: &RecordBatch, target: usize, limit: usize) -> Vec<RecordBatch> {
    let bytes = message_bytes(batch);
    if bytes <= limit || batch.num_rows() <= 1 {
        return vec![batch.clone()];
    }
    let pieces = bytes.div_ceil(target).min(batch.num_rows());
    let rows = batch.num_rows().div_ceil(pieces);
    let starts = (0..batch.num_rows()).step_by(rows);
    // Where long rows stand together a slice is still too large, and is cut again.
    starts.flat_map(|start| cut(&batch.slice(start, rows.min(batch.num_rows() - start)), target, limit)).collect()
}

/// Bytes of a batch's message, near enough; of types that are converted for the line, what they become. Unlike the memory an array holds it counts only the rows of a slice.
pub(crate) fn message_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| array_bytes(column.as_ref())).sum()
}

fn array_bytes(array: &dyn Array) -> usize {
    let validity = if array.null_count() > 0 { array.len().div_ceil(8) } else { 0 };
    FRAMING + validity + value_bytes(array)
}

fn value_bytes(array: &dyn Array) -> usize {
    let rows = array.len();
    match array.data_type() {
        DataType::Null => 0,
        DataType::Boolean => rows.div_ceil(8),
        DataType::Utf8 => offset_bytes(array.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => offset_bytes(array.as_string::<i64>().offsets()),
        DataType::Binary => offset_bytes(array.as_binary::<i32>().offsets()),
        DataType::LargeBinary => offset_bytes(array.as_binary::<i64>().offsets()),
        DataType::Utf8View => view_bytes(array.as_string_view().views()),
        DataType::BinaryView => view_bytes(array.as_binary_view().views()),
        DataType::FixedSizeBinary(width) => rows * usize::try_from(*width).unwrap_or(0),
        DataType::List(_) => list_bytes(array.as_list::<i32>().offsets(), array.as_list::<i32>().values().as_ref()),
        DataType::LargeList(_) => {
            list_bytes(array.as_list::<i64>().offsets(), array.as_list::<i64>().values().as_ref())
        }
        DataType::Map(..) => list_bytes(array.as_map().offsets(), array.as_map().entries()),
        DataType::FixedSizeList(_, size) => {
            let list = array.as_fixed_size_list();
            let items = rows * usize::try_from(*size).unwrap_or(0);
            share(list.values().as_ref(), items)
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| array_bytes(column.as_ref())).sum(),
        DataType::Dictionary(..) => share(array.as_any_dictionary().values().as_ref(), rows),
        other => match other.primitive_width() {
            Some(width) => rows * width,
            // Runs, list views and unions: what they hold is what they become, near enough to cut by.
            None => array.get_array_memory_size(),
        },
    }
}

fn offset_bytes<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> usize {
    offset_range(offsets).len() + offsets.len() * size_of::<O>()
}

fn offset_range<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> std::ops::Range<usize> {
    let first = offsets.first().map_or(0, |offset| offset.as_usize());
    first..offsets.last().map_or(0, |offset| offset.as_usize())
}

/// The low 32 bits of a view are its length; on the line it has an offset of four bytes instead.
fn view_bytes(views: &[u128]) -> usize {
    views.iter().map(|view| (*view & u128::from(u32::MAX)) as usize + size_of::<i32>()).sum()
}

fn list_bytes<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, items: &dyn Array) -> usize {
    let range = offset_range(offsets);
    array_bytes(items.slice(range.start, range.len()).as_ref()) + offsets.len() * size_of::<O>()
}

/// Bytes of `items` values of average size.
fn share(values: &dyn Array, items: usize) -> usize {
    value_bytes(values).checked_div(values.len()).unwrap_or(0).saturating_mul(items)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn batch(array: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("a", array)]).unwrap()
    }

    #[test]
    fn a_slice_is_counted_by_its_own_rows() {
        let strings = StringArray::from(vec!["a".repeat(1000), "b".to_owned(), "c".to_owned()]);
        assert_eq!(value_bytes(&strings.slice(1, 2)), 2 + 3 * 4);
        let views = StringViewArray::from(vec!["a".repeat(1000), "b".to_owned()]);
        assert_eq!(value_bytes(&views.slice(1, 1)), 1 + 4);
    }

    #[test]
    fn slices_share_memory_and_keep_every_row() {
        let batch = batch(Arc::new(Int64Array::from_iter_values(0..1000)));
        let slices = cut(&batch, 1000, 2000);
        assert_eq!(slices.iter().map(RecordBatch::num_rows).sum::<usize>(), 1000);
        assert!(slices.iter().all(|slice| message_bytes(slice) <= 2000));
        let start = batch.column(0).to_data().buffers()[0].as_ptr();
        assert_eq!(slices[0].column(0).to_data().buffers()[0].as_ptr(), start);
    }

    #[test]
    fn what_fits_is_not_cut() {
        assert_eq!(cut(&batch(Arc::new(Int64Array::from_iter_values(0..100))), 100, 1000).len(), 1);
    }
}
