//! What is present at a source against a map in memory: random tables, ranges, present rows and keys, changes among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use lakegate::model::{ChangeKind, ContentHash, KeyRange, LoadMode};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::model::{KINDS, Kind, NUMBERS};
use super::{Fixture, Told, change, plan, rows};

/// Few values, so that many rows are as they were.
const VALUES: std::ops::Range<i64> = 0..4;

/// What a value is in a column of floats: numbers that compare as equal, or as nothing, are told apart.
const FLOATS: [f64; 4] = [f64::NAN, 0.0, -0.0, 1.5];

struct Run {
    kind: Kind,
    random: StdRng,
    fixture: Fixture,
    /// The value of each key's number.
    table: BTreeMap<i64, i64>,
    context: String,
}

/// A range of keys by their numbers.
struct Range {
    after: Option<i64>,
    until: Option<i64>,
}

impl Run {
    async fn new(kind: Kind, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let target = [2 << 10, 16 << 10, 64 << 20][random.random_range(0..3)];
        let fixture = Fixture::with_memory(target, 64 << 20).await;
        Self { kind, random, fixture, table: BTreeMap::new(), context: format!("{kind:?}, seed {seed}") }
    }

    fn batch(&self, entries: &[(i64, i64)]) -> RecordBatch {
        let numbers: Vec<i64> = entries.iter().map(|entry| entry.0).collect();
        let values = entries.iter().map(|entry| Some(entry.1).filter(|value| *value > 0));
        let floats = entries.iter().map(|entry| FLOATS[usize::try_from(entry.1).unwrap()]);
        let mut columns = self.key_columns(&numbers);
        columns.push(("number", Arc::new(Int64Array::from(numbers))));
        columns.push(("value", Arc::new(values.collect::<Int64Array>())));
        columns.push(("float", Arc::new(Float64Array::from_iter_values(floats))));
        rows(columns)
    }

    fn key_columns(&self, numbers: &[i64]) -> Vec<(&'static str, ArrayRef)> {
        self.kind.names().iter().copied().zip(self.kind.columns(numbers)).collect()
    }

    fn keys(&self, numbers: &[i64]) -> RecordBatch {
        rows(self.key_columns(numbers))
    }

    fn key_range(&self, range: &Range) -> KeyRange {
        let end = |number: Option<i64>| number.map(|number| self.keys(&[number]));
        KeyRange { after: end(range.after), until: end(range.until) }
    }

    fn is_within(&self, range: &Range, number: i64) -> bool {
        let rank = |number| self.kind.rank(number);
        range.after.is_none_or(|after| rank(after) < rank(number))
            && range.until.is_none_or(|until| rank(number) <= rank(until))
    }

    /// Rows with random keys, near each other or not, some keys twice.
    fn entries(&mut self) -> Vec<(i64, i64)> {
        let from = self.random.random_range(NUMBERS);
        let within = from..(from + [30, 400, 3000][self.random.random_range(0..3)]).min(NUMBERS.end + 400);
        let count = self.random.random_range(1..300);
        let random = &mut self.random;
        (0..count).map(|_| (random.random_range(within.clone()), random.random_range(VALUES))).collect()
    }

    /// Ranges that may overlap, be empty, turned around or open.
    fn ranges(&mut self) -> Vec<Range> {
        let count = [0, 1, 1, 2, 3][self.random.random_range(0..5)];
        let random = &mut self.random;
        let mut end = || random.random_bool(0.8).then(|| random.random_range(NUMBERS));
        (0..count).map(|_| Range { after: end(), until: end() }).collect()
    }

    async fn load(&mut self, round: usize) {
        let mut told = Vec::new();
        let (mut present, mut changed) = (BTreeMap::new(), BTreeMap::new());
        let mut batches: Vec<(ChangeKind, Vec<(i64, i64)>)> = Vec::new();
        if self.random.random_bool(0.8) {
            // Most of the table as it is.
            let mut entries: Vec<(i64, i64)> = self.table.iter().map(|(number, value)| (*number, *value)).collect();
            entries.retain(|_| self.random.random_bool(0.9));
            entries.shuffle(&mut self.random);
            let kind = [ChangeKind::Present, ChangeKind::PresentKeys][self.random.random_range(0..2)];
            batches.extend(entries.chunks(100).map(|entries| (kind, entries.to_vec())));
        }
        let kinds = [ChangeKind::Present, ChangeKind::PresentKeys, ChangeKind::Upsert, ChangeKind::Delete];
        for _ in 0..self.random.random_range(0..6) {
            batches.push((kinds[self.random.random_range(0..4)], self.entries()));
        }
        for (kind, entries) in batches {
            for (number, value) in &entries {
                match kind {
                    ChangeKind::Upsert => drop(changed.insert(*number, Some(*value))),
                    ChangeKind::Delete => drop(changed.insert(*number, None)),
                    ChangeKind::Present => drop(present.insert(*number, Some(*value))),
                    _ => drop(present.entry(*number).or_insert(None)),
                }
            }
            let numbers: Vec<i64> = entries.iter().map(|entry| entry.0).collect();
            let only_keys = matches!(kind, ChangeKind::Delete | ChangeKind::PresentKeys);
            let rows = if only_keys { self.keys(&numbers) } else { self.batch(&entries) };
            told.push(Told::Change(change(kind, rows)));
        }
        let ranges = self.ranges();
        for range in &ranges {
            let place = self.random.random_range(0..=told.len());
            told.insert(place, Told::Complete(self.key_range(range)));
        }
        let plan = plan(self.batch(&[]).schema(), self.kind.names(), LoadMode::Upsert);
        let loaded = self.fixture.tell(plan, told, &[]).await.unwrap();
        let is_lost = |number: &i64| ranges.iter().any(|range| self.is_within(range, *number));
        let mut expected = self.table.clone();
        expected.retain(|number, _| present.contains_key(number) || !is_lost(number));
        for (number, value) in &present {
            value.map(|value| expected.insert(*number, value));
        }
        for (number, value) in &changed {
            match value {
                Some(value) => drop(expected.insert(*number, *value)),
                None => drop(expected.remove(number)),
            }
        }
        if round > 0 && changed.is_empty() && expected == self.table {
            let nothing = (loaded.rows_written, loaded.files_added, loaded.files_removed);
            assert_eq!(nothing, (0, 0, 0), "{}, round {round}", self.context);
        }
        self.table = expected;
    }

    async fn compare(&self, round: usize) {
        let batches = self.fixture.query("select number, value, float from t order by number").await;
        let mut found = Vec::new();
        for batch in &batches {
            let numbers = batch.column(0).as_primitive::<Int64Type>().values();
            let values = batch.column(1).as_primitive::<Int64Type>();
            let floats = batch.column(2).as_primitive::<Float64Type>().values();
            for row in 0..batch.num_rows() {
                let value = if values.is_null(row) { 0 } else { values.value(row) };
                assert_eq!(floats[row].to_bits(), FLOATS[usize::try_from(value).unwrap()].to_bits());
                found.push((numbers[row], value));
            }
        }
        let expected: Vec<(i64, i64)> = self.table.iter().map(|(number, value)| (*number, *value)).collect();
        assert_eq!(found, expected, "{}, round {round}", self.context);
    }

    /// What a source may ask of the table's rows.
    async fn ask(&mut self, round: usize) {
        let context = format!("{}, round {round}", self.context);
        let snapshot = self.fixture.lake.table(&self.fixture.table).snapshot().await.unwrap().unwrap();
        let environment = &Arc::clone(&self.fixture.environment);
        let asked: Vec<i64> = self.entries().iter().map(|entry| entry.0).collect();
        let batches: Vec<RecordBatch> = asked.chunks(70).map(|numbers| self.keys(numbers)).collect();
        let distinct: std::collections::BTreeSet<i64> = asked.into_iter().collect();
        let expected = distinct.iter().filter(|number| self.table.contains_key(number)).count() as u64;
        assert_eq!(snapshot.present(environment, &batches, &[]).await.unwrap(), expected, "{context}");
        let mut ranges = self.ranges();
        ranges.push(Range { after: None, until: None });
        for range in ranges {
            let out: Vec<i64> = self.entries().iter().map(|entry| entry.0).collect();
            let out = if self.random.random_bool(0.5) { out } else { vec![] };
            let within = self.table.iter().filter(|(number, _)| self.is_within(&range, **number));
            let rows: Vec<(i64, i64)> = within.map(|(number, value)| (*number, *value)).collect();
            let rows: Vec<(i64, i64)> = rows.into_iter().filter(|(number, _)| !out.contains(number)).collect();
            let rows = self.batch(&rows).project(&self.asked_columns()).unwrap();
            let mut expected = ContentHash::new(&rows.schema()).unwrap();
            expected.add(&rows).unwrap();
            let left_out = [self.keys(&out)];
            let range = self.key_range(&range);
            let found = snapshot.content(environment, &rows.schema(), &range, &left_out, &[]).await.unwrap();
            assert_eq!(found.to_string(), expected.to_string(), "{context}");
        }
    }

    /// Not all columns, and not in the table's order.
    fn asked_columns(&self) -> Vec<usize> {
        let keys = self.kind.names().len();
        vec![keys + 2, 0, keys + 1]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_present_leaves_the_table_as_a_map_in_memory() {
    for kind in KINDS {
        for seed in [1, 2, rand::random()] {
            eprintln!("{kind:?} with seed {seed}");
            let mut run = Run::new(kind, seed).await;
            for round in 0..6 {
                run.load(round).await;
                run.compare(round).await;
                run.ask(round).await;
            }
        }
    }
}
