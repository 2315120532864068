//! How many bytes a value of each column took on the line in results that were sent, to tell better how large the next
//! ones will be. Kept in memory; a restart begins anew.
//!
//! Read off the messages as they go: each names its buffers and their lengths, so nothing is measured twice, and how
//! messages are made does not matter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{DataType, Schema};

use crate::model::{TableName, WireProfile};
use crate::query::{Estimate, Origin};

/// Columns that are remembered. When there are more, all are forgotten and learnt anew.
const MOST_COLUMNS: usize = 100_000;
/// Rows after which what was learnt counts as much as what is learnt anew: tables change.
const MOST_ROWS: f64 = 50_000_000.0;
/// As many rows as what is assumed before anything was learnt counts for: a few rows say little, and are packed badly.
const ASSUMED_ROWS: f64 = 1_000.0;

/// Sizes of columns. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LearnedSizes(Arc<Mutex<HashMap<Key, Size>>>);

/// A column, sent in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    table: TableName,
    column: String,
    /// The profile, written out.
    way: Arc<str>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    rows: f64,
    bytes: f64,
}

/// One way of sending, to ask by.
#[derive(Clone, Debug)]
pub struct Way(Arc<str>);

impl Way {
    /// That of a profile.
    pub fn of(profile: WireProfile) -> Self {
        // What cannot be written has one name for all: sizes are learnt together then.
        Self(serde_json::to_string(&profile).unwrap_or_default().into())
    }
}

impl LearnedSizes {
    /// Bytes that a value takes on the line, where `assumed` is what is thought of it before anything was learnt.
    pub fn bytes(&self, origin: &Origin, way: &Way, assumed: f64) -> f64 {
        let known = self.lock().get(&key(origin, way)).copied().unwrap_or_default();
        (assumed * ASSUMED_ROWS + known.bytes) / (ASSUMED_ROWS + known.rows)
    }

    /// Begins to learn from a result that is about to be sent under `schema`; none where there is nothing to learn.
    pub fn learning(&self, estimate: &Estimate, schema: &Schema, profile: WireProfile) -> Option<Learning> {
        let way = Way::of(profile);
        let keys: Vec<_> =
            estimate.columns.iter().map(|column| column.origin.as_ref().map(|origin| key(origin, &way))).collect();
        if keys.len() != schema.fields().len() || keys.iter().all(Option::is_none) {
            return None;
        }
        let buffers: Vec<_> =
            schema.fields().iter().map(|field| buffers(field.data_type())).collect::<Option<Vec<_>>>()?;
        let dictionaries = schema.fields().iter().enumerate();
        let dictionaries = dictionaries.filter(|(_, field)| matches!(field.data_type(), DataType::Dictionary(..)));
        let dictionaries = dictionaries.map(|(place, _)| place).collect();
        let bytes = vec![0; keys.len()];
        Some(Learning { sizes: self.clone(), keys, buffers, dictionaries, rows: 0, bytes })
    }

    fn learn(&self, key: Key, rows: f64, bytes: f64) {
        let mut sizes = self.lock();
        if sizes.len() >= MOST_COLUMNS && !sizes.contains_key(&key) {
            sizes.clear();
        }
        let known = sizes.entry(key).or_default();
        *known = Size { rows: known.rows + rows, bytes: known.bytes + bytes };
        if known.rows > MOST_ROWS {
            *known = Size { rows: known.rows / 2.0, bytes: known.bytes / 2.0 };
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Size>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(origin: &Origin, way: &Way) -> Key {
    Key { table: origin.table.clone(), column: origin.column.clone(), way: Arc::clone(&way.0) }
}

/// What is learnt from one result.
#[derive(Debug)]
pub struct Learning {
    sizes: LearnedSizes,
    keys: Vec<Option<Key>>,
    /// How many buffers each column has in a message.
    buffers: Vec<usize>,
    /// The columns that are sent as dictionaries, in order: the first's words have the number 0, and so on.
    dictionaries: Vec<usize>,
    rows: u64,
    bytes: Vec<u64>,
}

impl Learning {
    /// Takes notice of a message by its header.
    pub fn observe(&mut self, header: &[u8]) {
        let Ok(message) = arrow_ipc::root_as_message(header) else { return };
        if let Some(batch) = message.header_as_record_batch() {
            let Some(all) = batch.buffers() else { return };
            let mut lengths = all.iter().map(|buffer| u64::try_from(buffer.length()).unwrap_or(0));
            for (bytes, count) in self.bytes.iter_mut().zip(&self.buffers) {
                *bytes += lengths.by_ref().take(*count).sum::<u64>();
            }
            self.rows += u64::try_from(batch.length()).unwrap_or(0);
        } else if let Some(words) = message.header_as_dictionary_batch() {
            let place = usize::try_from(words.id()).ok().and_then(|id| self.dictionaries.get(id));
            let Some(bytes) = place.and_then(|place| self.bytes.get_mut(*place)) else { return };
            let all = words.data().and_then(|data| data.buffers());
            let all =
                all.into_iter().flat_map(|all| all.iter().map(|buffer| u64::try_from(buffer.length()).unwrap_or(0)));
            *bytes += all.sum::<u64>();
        }
    }

    /// Remembers it: the result was sent to its end.
    pub fn keep(self) {
        if self.rows == 0 {
            return;
        }
        for (key, bytes) in self.keys.into_iter().zip(self.bytes) {
            if let Some(key) = key {
                self.sizes.learn(key, self.rows as f64, bytes as f64);
            }
        }
    }
}

/// Buffers that a column of a type has in a message (Arrow columnar format, "Buffer Listing for Each Layout"); none for
/// layouts that no result is sent in.
fn buffers(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Null => 0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => 2 + buffers(item.data_type())?,
        DataType::FixedSizeList(item, _) => 1 + buffers(item.data_type())?,
        DataType::Struct(fields) => 1 + fields.iter().map(|field| buffers(field.data_type())).sum::<Option<usize>>()?,
        DataType::Boolean | DataType::FixedSizeBinary(_) | DataType::Dictionary(..) => 2,
        data_type if data_type.is_primitive() => 2,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Field;
    use futures::StreamExt;

    use super::*;
    use crate::delivery::{EncodedResult, Encoders, MESSAGE_BYTES, result_schema, single_batch};
    use crate::model::Codec;
    use crate::query::ColumnEstimate;

    fn origin(column: &str) -> Origin {
        Origin { table: "t.v".parse().unwrap(), column: column.to_owned(), stored: None }
    }

    /// What was learnt of two columns, of numbers and of a word, from a result sent so; in bytes of a value.
    async fn learnt(profile: WireProfile) -> (f64, f64) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200_000));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..200_000).map(|_| "abcdefgh")));
        let rows = RecordBatch::try_from_iter([("n", numbers), ("s", words)]).unwrap();
        let columns = ["n", "s"].map(|name| ColumnEstimate {
            name: name.to_owned(),
            data_type: rows.schema().field_with_name(name).unwrap().data_type().clone(),
            origin: Some(origin(name)),
            distinct: None,
        });
        let estimate = Estimate { rows: None, columns: columns.to_vec() };
        let (sizes, schema) = (LearnedSizes::default(), result_schema(&rows.schema(), profile, &[1]));
        let mut learning = sizes.learning(&estimate, &schema, profile).unwrap();
        let encoders = Encoders::new(2, 1 << 30);
        let mut sent = EncodedResult::new(schema, single_batch(rows), profile, MESSAGE_BYTES, &encoders).unwrap();
        while let Some(message) = sent.next().await {
            learning.observe(&message.unwrap().header);
        }
        learning.keep();
        let way = Way::of(profile);
        (sizes.bytes(&origin("n"), &way, 0.0), sizes.bytes(&origin("s"), &way, 0.0))
    }

    #[tokio::test]
    async fn sizes_are_read_off_messages() {
        let plain = WireProfile::default();
        let (numbers, words) = learnt(plain).await;
        assert!((7.8..=8.2).contains(&numbers) && (11.6..=12.4).contains(&words), "{numbers} {words}");
        let (numbers, words) = learnt(WireProfile { dictionaries: true, ..plain }).await;
        assert!((7.8..=8.2).contains(&numbers) && (3.8..=4.4).contains(&words), "{numbers} {words}");
        let (packed, words) = learnt(WireProfile { codec: Codec::Zstd, ..plain }).await;
        assert!(packed < 4.0 && words < 4.0, "{packed} {words}");
    }

    #[test]
    fn a_few_rows_say_little_and_many_rows_say_all() {
        let (sizes, way) = (LearnedSizes::default(), Way::of(WireProfile::default()));
        let assumed = |sizes: &LearnedSizes| sizes.bytes(&origin("n"), &way, 10.0);
        assert!((assumed(&sizes) - 10.0).abs() < f64::EPSILON);
        sizes.learn(key(&origin("n"), &way), 10.0, 1_000.0);
        assert!(assumed(&sizes) < 11.0);
        sizes.learn(key(&origin("n"), &way), 1_000_000.0, 2_000_000.0);
        assert!((1.9..=2.1).contains(&assumed(&sizes)));
        let other = Way::of(WireProfile { codec: Codec::Zstd, ..WireProfile::default() });
        assert!((sizes.bytes(&origin("n"), &other, 10.0) - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_comes_from_no_table_teaches_nothing() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
        let sizes = LearnedSizes::default();
        assert!(sizes.learning(&Estimate::unknown(&schema), &schema, WireProfile::default()).is_none());
    }
}
