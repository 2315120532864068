//! Changes by key against a map in memory: random changes, random layouts of files, keys of every kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use lakegate::model::{ChangeBatch, ChangeKind, LoadMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Fixture, change, plan, rows};

/// Numbers keys are made of: some below zero.
pub(super) const NUMBERS: std::ops::Range<i64> = -1500..1500;

/// A kind of key: how its columns are made of a number, each number giving another key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Number,
    Composite,
    LongText,
    Timestamp,
    Decimal,
    WideDecimal,
    Float,
    Date,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind::Number,
    Kind::Composite,
    Kind::LongText,
    Kind::Timestamp,
    Kind::Decimal,
    Kind::WideDecimal,
    Kind::Float,
    Kind::Date,
];

impl Kind {
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Composite => &["station", "hour"],
            _ => &["id"],
        }
    }

    pub(super) fn columns(self, numbers: &[i64]) -> Vec<ArrayRef> {
        let each = numbers.iter().copied();
        match self {
            Self::Number => vec![Arc::new(Int64Array::from_iter_values(each))],
            Self::Composite => {
                let station = StringArray::from_iter_values(each.clone().map(|n| format!("s{}", n.rem_euclid(7))));
                let hour = Int16Array::from_iter_values(each.map(|n| i16::try_from(n.div_euclid(7)).unwrap()));
                vec![Arc::new(station), Arc::new(hour)]
            }
            // Longer than the 64 bytes statistics keep, and told apart only behind them.
            Self::LongText => {
                let text = |n: i64| format!("{}-{:05}", "ä".repeat(40 + n.rem_euclid(2) as usize), n + 5000);
                vec![Arc::new(StringArray::from_iter_values(each.map(text)))]
            }
            // Microseconds apart, some before 1970.
            Self::Timestamp => {
                vec![Arc::new(TimestampMicrosecondArray::from_iter_values(each.map(|n| n * 7)).with_timezone("UTC"))]
            }
            Self::Decimal => {
                let array = Decimal128Array::from_iter_values(each.map(|n| i128::from(n) * 3));
                vec![Arc::new(array.with_precision_and_scale(12, 2).unwrap())]
            }
            Self::WideDecimal => {
                let wide = each.map(|n| 9_007_199_254_740_993_000_000 + i128::from(n));
                let array = Decimal128Array::from_iter_values(wide);
                vec![Arc::new(array.with_precision_and_scale(25, 4).unwrap())]
            }
            Self::Float => vec![Arc::new(Float64Array::from_iter_values(each.map(|n| n as f64 / 3.0)))],
            Self::Date => {
                vec![Arc::new(Date32Array::from_iter_values(each.map(|n| i32::try_from(n).unwrap())))]
            }
        }
    }

    /// What a number stands by in the order of keys.
    pub(super) fn rank(self, number: i64) -> (i64, i64) {
        match self {
            Self::Composite => (number.rem_euclid(7), number.div_euclid(7)),
            Self::LongText => (number.rem_euclid(2), number),
            _ => (0, number),
        }
    }

    fn batch(self, entries: &[(i64, i64)]) -> RecordBatch {
        let (numbers, values): (Vec<i64>, Vec<i64>) = entries.iter().copied().unzip();
        let mut columns: Vec<(&str, ArrayRef)> = self.names().iter().copied().zip(self.columns(&numbers)).collect();
        columns.push(("number", Arc::new(Int64Array::from(numbers))));
        columns.push(("value", Arc::new(Int64Array::from(values))));
        rows(columns)
    }
}

/// One run of random loads, compared with a map after each.
struct Run {
    kind: Kind,
    random: StdRng,
    fixture: Fixture,
    model: BTreeMap<i64, i64>,
    seed: u64,
    next_value: i64,
}

impl Run {
    async fn new(kind: Kind, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let target = [2 << 10, 16 << 10, 64 << 20][random.random_range(0..3)];
        let fixture = Fixture::new(target).await;
        Self { kind, random, fixture, model: BTreeMap::new(), seed, next_value: 0 }
    }

    /// Rows laid down without regard to keys: unsorted files that overlap.
    async fn lay_down(&mut self) {
        let mut changes = Vec::new();
        for file in 0..self.random.random_range(1..8) {
            let entries: Vec<(i64, i64)> = self
                .numbers()
                .into_iter()
                .filter(|number| !self.model.contains_key(number))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .map(|number| (number, number))
                .collect();
            self.model.extend(entries.iter().copied());
            let mut entries = entries;
            rand::seq::SliceRandom::shuffle(entries.as_mut_slice(), &mut self.random);
            let rows = self.kind.batch(&entries);
            changes.push(ChangeBatch { kind: ChangeKind::Append, rows, file: Some(file) });
        }
        let plan = plan(self.kind.batch(&[]).schema(), &[], LoadMode::Mirror);
        self.fixture.load(plan, changes).await.unwrap();
    }

    /// Numbers close to each other, anywhere, or above all others.
    fn numbers(&mut self) -> Vec<i64> {
        let count = self.random.random_range(1..300);
        let from = self.random.random_range(NUMBERS);
        let width = [30, 400, 3000][self.random.random_range(0..3)];
        let within = from..(from + width).min(NUMBERS.end + 400);
        (0..count).map(|_| self.random.random_range(within.clone())).collect()
    }

    async fn change(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let numbers = self.numbers();
            if self.random.random_bool(0.3) {
                self.model.retain(|number, _| !numbers.contains(number));
                let key = self.kind.names().iter().copied().zip(self.kind.columns(&numbers)).collect();
                changes.push(change(ChangeKind::Delete, rows(key)));
            } else {
                let entries: Vec<(i64, i64)> = numbers.into_iter().map(|number| (number, self.value())).collect();
                self.model.extend(entries.iter().copied());
                changes.push(change(ChangeKind::Upsert, self.kind.batch(&entries)));
            }
        }
        let plan = plan(self.kind.batch(&[]).schema(), self.kind.names(), LoadMode::Upsert);
        self.fixture.load(plan, changes).await.unwrap();
    }

    fn value(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value
    }

    async fn compare(&self, round: usize) {
        let context = format!("{:?}, seed {}, round {round}", self.kind, self.seed);
        let batches = self.fixture.query("select * from t order by number").await;
        let mut found = Vec::new();
        for batch in &batches {
            let numbers = batch.column_by_name("number").unwrap().as_primitive::<Int64Type>();
            let values = batch.column_by_name("value").unwrap().as_primitive::<Int64Type>();
            for (name, column) in self.kind.names().iter().zip(self.kind.columns(numbers.values())) {
                assert_eq!(batch.column_by_name(name).unwrap().as_ref(), column.as_ref(), "{context}");
            }
            found.extend(numbers.values().iter().copied().zip(values.values().iter().copied()));
        }
        let expected: Vec<(i64, i64)> = self.model.iter().map(|(number, value)| (*number, *value)).collect();
        assert_eq!(found, expected, "{context}");
    }

    async fn compare_with_library(&self) {
        let table = self.fixture.library_table().await;
        let context = SessionContext::new();
        context.register_table("t", table.table_provider().await.unwrap()).unwrap();
        let sql = "select count(*), coalesce(sum(number), 0), coalesce(sum(value), 0) from t";
        let answer = context.sql(sql).await.unwrap().collect().await.unwrap();
        let figure = |column: usize| answer[0].column(column).as_primitive::<Int64Type>().value(0);
        let expected = (self.model.len() as i64, self.model.keys().sum::<i64>(), self.model.values().sum::<i64>());
        assert_eq!((figure(0), figure(1), figure(2)), expected, "{:?}, seed {}", self.kind, self.seed);
    }

    /// Finds single keys by filter: what pruning leaves out must not be there.
    async fn find_some(&mut self) {
        for _ in 0..3 {
            let number = self.random.random_range(NUMBERS);
            let columns = self.kind.columns(&[number]);
            let name = self.kind.names()[0];
            let value = datafusion::common::ScalarValue::try_from_array(&columns[0], 0).unwrap();
            let snapshot = self.fixture.lake.table(&self.fixture.table).snapshot().await.unwrap().unwrap();
            let context = SessionContext::new();
            let frame = context.read_table(snapshot.provider()).unwrap();
            let by_key = frame.filter(datafusion::prelude::col(name).eq(datafusion::prelude::lit(value))).unwrap();
            let by_both = by_key.filter(datafusion::prelude::col("number").eq(datafusion::prelude::lit(number)));
            let found = by_both.unwrap().count().await.unwrap();
            let expected = usize::from(self.model.contains_key(&number));
            assert_eq!(found, expected, "{:?}, seed {}, number {number}", self.kind, self.seed);
        }
    }
}

async fn compare_with_a_map(kind: Kind, seed: u64) {
    let mut run = Run::new(kind, seed).await;
    if run.random.random_bool(0.5) {
        run.lay_down().await;
        run.compare(0).await;
    }
    for round in 1..=4 {
        run.change().await;
        run.compare(round).await;
        run.find_some().await;
    }
    run.compare_with_library().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_key_leave_the_table_as_a_map_in_memory() {
    for kind in KINDS {
        for seed in [1, 2, rand::random()] {
            eprintln!("{kind:?} with seed {seed}");
            compare_with_a_map(kind, seed).await;
        }
    }
}
