//! How much memory rows take once each value stands for itself. NULLs, runs, dictionaries and views let a message of a few
//! bytes stand for terabytes.

use std::mem::size_of;
use std::ops::Range;

use arrow::array::{
    Array, AsArray, GenericListArray, GenericListViewArray, MapArray, OffsetSizeTrait, RunArray, StructArray,
};
use arrow::datatypes::{
    ArrowNativeType, DataType, Fields, Int16Type, Int32Type, Int64Type, RunEndIndexType, UnionFields,
};
use arrow::downcast_dictionary_array;
use datafusion::common::ScalarValue;

/// Bytes a number or a time takes at most once it is written out: a decimal of 38 digits with sign, point and zero.
const WRITTEN_BYTES: usize = 41;

/// Bytes of one value of a type that is not told apart: the widest of the others.
const WIDEST: usize = 16;

/// Bytes of an array around one value, with its type and what counts its owners.
const ARRAY_BYTES: usize = 128;

/// A count of bytes that ends where they are more than is allowed: going on could take for ever. Whatever returns None
/// has come to that end.
#[derive(Debug)]
pub(crate) struct Unpacked {
    bytes: usize,
    most: usize,
}

impl Unpacked {
    /// Nothing counted yet, of so many bytes that are allowed.
    pub(crate) fn up_to(most: usize) -> Self {
        Self { bytes: 0, most }
    }

    /// What was counted.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts so many NULLs of a type.
    pub(crate) fn nulls(&mut self, rows: usize, data_type: &DataType) -> Option<()> {
        self.add(rows, width(data_type))
    }

    /// Counts what so many values of a type take for being held one by one, beside what they hold.
    pub(crate) fn scalars(&mut self, rows: usize, data_type: &DataType) -> Option<()> {
        self.add(rows, size_of::<ScalarValue>() + ARRAY_BYTES * inner_arrays(data_type))
    }

    /// Counts an array as it is once it has another type, or its own without what packs it.
    pub(crate) fn count(&mut self, array: &dyn Array, wanted: &DataType) -> Option<()> {
        let rows = array.len();
        if let Some(bytes) = text_bytes(array, 0..rows) {
            self.add(1, bytes)?;
            return self.add(rows, leaf_width(array.data_type(), wanted));
        }
        match array.data_type() {
            DataType::Null => self.nulls(rows, wanted),
            DataType::Dictionary(..) => downcast_dictionary_array! {
                array => {
                    for row in 0..rows {
                        match array.key(row) {
                            Some(key) => self.repeat(array.values(), key, 1, wanted)?,
                            None => self.nulls(1, wanted)?,
                        }
                    }
                    Some(())
                },
                _ => None
            },
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.runs(array.as_run::<Int16Type>(), wanted),
                DataType::Int32 => self.runs(array.as_run::<Int32Type>(), wanted),
                _ => self.runs(array.as_run::<Int64Type>(), wanted),
            },
            DataType::Struct(_) => self.fields(array.as_struct(), wanted),
            DataType::List(_) => self.lists(array.as_list::<i32>(), wanted),
            DataType::LargeList(_) => self.lists(array.as_list::<i64>(), wanted),
            DataType::ListView(_) => self.list_views(array.as_list_view::<i32>(), wanted),
            DataType::LargeListView(_) => self.list_views(array.as_list_view::<i64>(), wanted),
            DataType::FixedSizeList(..) => {
                let values = array.as_fixed_size_list().values();
                self.add(rows, size_of::<i32>())?;
                self.count(values, item(wanted, values.data_type()))
            }
            DataType::Map(..) => self.maps(array.as_map(), wanted),
            DataType::Union(..) => {
                let union = array.as_union();
                for row in 0..rows {
                    let values = union.child(union.type_id(row));
                    self.add(1, size_of::<ScalarValue>())?;
                    self.repeat(values, union.value_offset(row), 1, values.data_type())?;
                }
                Some(())
            }
            plain => self.add(rows, leaf_width(plain, wanted)),
        }
    }

    fn add(&mut self, values: usize, bytes_each: usize) -> Option<()> {
        self.bytes = self.bytes.saturating_add(values.saturating_mul(bytes_each));
        (self.bytes <= self.most).then_some(())
    }

    /// One value of an array, so many times.
    fn repeat(&mut self, values: &dyn Array, at: usize, times: usize, wanted: &DataType) -> Option<()> {
        if let Some(bytes) = text_bytes(values, at..at + 1) {
            return self.add(times, bytes.saturating_add(leaf_width(values.data_type(), wanted)));
        }
        if values.data_type().is_primitive() {
            return self.add(times, leaf_width(values.data_type(), wanted));
        }
        let before = self.bytes;
        self.count(&values.slice(at, 1), wanted)?;
        self.add(times.saturating_sub(1), self.bytes - before)
    }

    fn runs<R: RunEndIndexType>(&mut self, array: &RunArray<R>, wanted: &DataType) -> Option<()> {
        let (first, mut begin) = (array.get_start_physical_index(), 0);
        for (run, end) in array.run_ends().sliced_values().enumerate() {
            let end = end.as_usize();
            self.repeat(array.values(), first + run, end.saturating_sub(begin), wanted)?;
            begin = end;
        }
        Some(())
    }

    fn fields(&mut self, array: &StructArray, wanted: &DataType) -> Option<()> {
        self.add(array.len(), 1)?;
        let DataType::Struct(wanted) = wanted else {
            return array.columns().iter().try_for_each(|column| self.count(column, column.data_type()));
        };
        wanted.iter().try_for_each(|field| match array.column_by_name(field.name()) {
            Some(column) => self.count(column, field.data_type()),
            None => self.nulls(array.len(), field.data_type()),
        })
    }

    fn lists<O: OffsetSizeTrait>(&mut self, array: &GenericListArray<O>, wanted: &DataType) -> Option<()> {
        let within = span(array.value_offsets(), 0..array.len());
        self.add(array.len(), size_of::<O>())?;
        let values = array.values().slice(within.start, within.len());
        self.count(&values, item(wanted, values.data_type()))
    }

    fn list_views<O: OffsetSizeTrait>(&mut self, array: &GenericListViewArray<O>, wanted: &DataType) -> Option<()> {
        self.add(array.len(), size_of::<O>())?;
        let wanted = item(wanted, array.values().data_type());
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            let (first, length) = (array.value_offset(row).as_usize(), array.value_size(row).as_usize());
            if length > 0 {
                self.count(&array.values().slice(first, length), wanted)?;
            }
        }
        Some(())
    }

    fn maps(&mut self, array: &MapArray, wanted: &DataType) -> Option<()> {
        let within = span(array.value_offsets(), 0..array.len());
        self.add(array.len(), size_of::<i32>())?;
        let entries = array.entries().slice(within.start, within.len());
        let (key, value) = array.entries_fields();
        let wanted = entries_of(wanted).map(|(key, value)| [key, value]);
        let wanted = wanted.unwrap_or([key.data_type(), value.data_type()]);
        entries.columns().iter().zip(wanted).try_for_each(|(column, wanted)| self.count(column, wanted))
    }
}

/// Bytes of the texts, or of other bytes, in some rows; none where an array holds anything else.
fn text_bytes(array: &dyn Array, rows: Range<usize>) -> Option<usize> {
    // The lower half of a view is the length of what it shows.
    let viewed = |views: &[u128]| views.iter().map(|view| (view & u128::from(u32::MAX)) as usize).sum();
    Some(match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets(), rows).len(),
        DataType::LargeUtf8 => span(array.as_string::<i64>().value_offsets(), rows).len(),
        DataType::Binary => span(array.as_binary::<i32>().value_offsets(), rows).len(),
        DataType::LargeBinary => span(array.as_binary::<i64>().value_offsets(), rows).len(),
        DataType::Utf8View => viewed(&array.as_string_view().views()[rows]),
        DataType::BinaryView => viewed(&array.as_binary_view().views()[rows]),
        _ => return None,
    })
}

/// Where what belongs to some rows stands.
fn span<O: OffsetSizeTrait>(offsets: &[O], rows: Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

/// Bytes of one value that holds no others, beside those of its text, before and once it has another type.
fn leaf_width(given: &DataType, wanted: &DataType) -> usize {
    let becomes_text = is_text(wanted) && !is_text(given);
    width(given).max(width(wanted)) + if becomes_text { WRITTEN_BYTES } else { 0 }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        || matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Bytes of a NULL of a type: what each of its values has, whatever it holds.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Boolean => 1,
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => size_of::<i32>(),
        DataType::FixedSizeBinary(bytes) => usize::try_from(*bytes).unwrap_or(0),
        DataType::FixedSizeList(item, length) => {
            width(item.data_type()).saturating_mul(usize::try_from(*length).unwrap_or(0))
        }
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).fold(1, usize::saturating_add),
        DataType::Dictionary(_, value) => width(value),
        DataType::RunEndEncoded(_, value) => width(value.data_type()),
        other => other.primitive_width().unwrap_or(WIDEST),
    }
}

/// How many arrays one value of a type is made of.
fn inner_arrays(data_type: &DataType) -> usize {
    let of_fields = |fields: &Fields| fields.iter().map(|field| 1 + inner_arrays(field.data_type())).sum::<usize>();
    let of_union = |fields: &UnionFields| fields.iter().map(|(_, field)| 1 + inner_arrays(field.data_type())).sum();
    match data_type {
        DataType::Struct(fields) => 1 + of_fields(fields),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => 2 + inner_arrays(item.data_type()),
        DataType::Dictionary(_, value) => 1 + inner_arrays(value),
        DataType::RunEndEncoded(_, value) => 1 + inner_arrays(value.data_type()),
        DataType::Union(fields, _) => of_union(fields),
        _ => 0,
    }
}

/// What a list is to hold; `own` where it is to become something else.
fn item<'a>(wanted: &'a DataType, own: &'a DataType) -> &'a DataType {
    match wanted {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => item.data_type(),
        _ => own,
    }
}

/// The types of a map's keys and values.
fn entries_of(map: &DataType) -> Option<(&DataType, &DataType)> {
    let DataType::Map(entries, _) = map else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    match fields.as_ref() {
        [key, value] => Some((key.data_type(), value.data_type())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, DictionaryArray, Int8Array, Int32Array, Int64Array, LargeStringArray, ListArray,
        ListViewArray, NullArray, StringViewArray, UnionArray,
    };
    use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
    use arrow::datatypes::{Field, Int8Type};

    use super::*;
    use crate::query::change::fit::fit;

    fn counted(array: &dyn Array, wanted: &DataType) -> usize {
        let mut unpacked = Unpacked::up_to(usize::MAX);
        unpacked.count(array, wanted).unwrap();
        unpacked.bytes()
    }

    fn list_of(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("element", item, true)))
    }

    fn runs(ends: Vec<i32>, values: ArrayRef) -> ArrayRef {
        Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(ends), &values).unwrap())
    }

    fn words() -> ArrayRef {
        let words = LargeStringArray::from(vec!["x".repeat(3000), "y".to_owned(), String::new()]);
        let keys = Int8Array::from_iter((0..1000).map(|n| (n % 7 != 0).then_some(i8::from(n % 10 != 0))));
        Arc::new(DictionaryArray::<Int8Type>::try_new(keys, Arc::new(words)).unwrap())
    }

    /// Arrays that are small as they are, and the types they are to have.
    fn packed() -> Vec<(ArrayRef, DataType)> {
        let numbers = runs(vec![100, 900, 1000], Arc::new(Int64Array::from(vec![Some(7), None, Some(9)])));
        let texts = runs(vec![600, 1000], Arc::new(StringViewArray::from(vec!["x".repeat(500), "y".to_owned()])));
        let one_view = StringViewArray::from(vec!["z".repeat(2000)]).views()[0];
        let buffer = StringViewArray::from(vec!["z".repeat(2000)]).data_buffers()[0].clone();
        let views = StringViewArray::try_new(ScalarBuffer::from(vec![one_view; 1000]), vec![buffer], None).unwrap();
        let item = Arc::new(Field::new("item", words().data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(10, 100));
        let lists = ListArray::try_new(Arc::clone(&item), offsets, words(), None).unwrap();
        let valid = NullBuffer::from_iter((0..100).map(|row| row != 3));
        let overlapping =
            ListViewArray::try_new(item, vec![5; 100].into(), vec![900; 100].into(), words(), Some(valid)).unwrap();
        let truths: ArrayRef = Arc::new(BooleanArray::from(vec![true; 1000]));
        let records =
            StructArray::from(vec![(Arc::new(Field::new("word", words().data_type().clone(), true)), words())]);
        let wanted_fields =
            ["word", "note"].map(|name| Field::new(name, DataType::Utf8, true)).into_iter().collect::<Fields>();
        vec![
            (Arc::new(NullArray::new(1000)), DataType::Decimal128(38, 2)),
            (Arc::new(NullArray::new(1000)), DataType::Struct(wanted_fields.clone())),
            (words(), DataType::Utf8),
            (numbers.slice(50, 900), DataType::Decimal128(20, 0)),
            (numbers.slice(50, 900), DataType::Utf8),
            (texts.slice(599, 300), DataType::Utf8),
            (Arc::new(views), DataType::Utf8),
            (Arc::new(lists), list_of(DataType::Utf8)),
            (Arc::new(overlapping), list_of(DataType::Utf8)),
            (truths, DataType::Utf8),
            (Arc::new(records), DataType::Struct(wanted_fields)),
        ]
    }

    #[test]
    fn no_less_is_counted_than_there_is_in_the_end_and_not_much_more() {
        for (array, wanted) in packed() {
            let fitted = fit(&array, &wanted).unwrap_or_else(|why| panic!("{} to {wanted}: {why}", array.data_type()));
            let there = fitted.to_data().get_slice_memory_size().unwrap();
            let counted = counted(&array, &wanted);
            // A bit for each value says whether it is NULL.
            assert!(counted + array.len() >= there, "{}: {counted} for {there}", array.data_type());
            assert!(counted <= 16 * there, "{}: {counted} for {there}", array.data_type());
        }
    }

    #[test]
    fn parts_are_counted_like_the_whole() {
        for (array, wanted) in packed() {
            let parts = (0..array.len()).map(|row| counted(&array.slice(row, 1), &wanted)).sum::<usize>();
            assert_eq!(parts, counted(&array, &wanted), "{}", array.data_type());
        }
    }

    #[test]
    fn values_of_unions_are_counted_wherever_they_stand() {
        let fields = UnionFields::from_fields([Field::new("s", DataType::Utf8, true)]);
        let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["x".repeat(1000)]));
        let dense = UnionArray::try_new(fields, vec![0; 50].into(), Some(vec![0; 50].into()), vec![text]).unwrap();
        assert!(counted(&dense, dense.data_type()) > 50 * 1000);
    }

    #[test]
    fn counting_ends_where_it_is_too_much() {
        let tail = runs(vec![1 << 30], Arc::new(Int64Array::from(vec![7])));
        assert_eq!(Unpacked::up_to(1 << 20).count(&tail, &DataType::Int64), None);
        let many = LargeStringArray::from(vec!["x".repeat(1 << 20)]);
        let keys = Int8Array::from(vec![0; 1 << 20]);
        let words = DictionaryArray::<Int8Type>::try_new(keys, Arc::new(many)).unwrap();
        let mut unpacked = Unpacked::up_to(8 << 20);
        assert_eq!(unpacked.count(&words, &DataType::Utf8), None);
        assert!(unpacked.bytes() < 16 << 20, "it went on: {}", unpacked.bytes());
        assert_eq!(Unpacked::up_to(1 << 20).scalars(1 << 20, &DataType::Int8), None);
    }
}
