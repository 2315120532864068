//! Keys that are one though they are written differently: changes against a map in memory, and what they cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use lakegate::lake::WritePlan;
use lakegate::model::{ChangeBatch, ChangeKind, KeyFolding, KeyRange, LoadMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Fixture, Told, change, plan, rows};

/// Numbers keys are made of.
const NUMBERS: std::ops::Range<i64> = 0..2000;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Blanks,
    Long,
    Bytes,
    AfterNumber,
    BeforeNumber,
}

const KINDS: [Kind; 6] = [Kind::Text, Kind::Blanks, Kind::Long, Kind::Bytes, Kind::AfterNumber, Kind::BeforeNumber];

impl Kind {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::AfterNumber | Self::BeforeNumber => &["k1", "k2"],
            _ => &["k"],
        }
    }

    fn folding(self) -> Vec<KeyFolding> {
        match self {
            Self::Text | Self::Long => vec![KeyFolding::LettersWithoutCase],
            Self::Blanks => vec![KeyFolding::TrimBlanks],
            Self::Bytes => vec![KeyFolding::TrimZeros],
            Self::AfterNumber => vec![KeyFolding::Exact, KeyFolding::LettersWithoutCase],
            Self::BeforeNumber => vec![KeyFolding::LettersWithoutCase, KeyFolding::Exact],
        }
    }

    /// One way to write the key of a number; each number has keys of its own.
    fn spell(self, number: i64, random: &mut StdRng) -> String {
        let mixed = |text: String, random: &mut StdRng| -> String {
            let one = |letter: char| match random.random_bool(0.5) {
                true => letter.to_uppercase().next().unwrap(),
                false => letter.to_lowercase().next().unwrap(),
            };
            text.chars().map(one).collect()
        };
        let key = match self {
            Self::Blanks => return format!("{}{number}{}", if number % 2 == 0 { "a" } else { "A" }, blanks(random)),
            // Longer than bounds are kept, and told apart only behind them.
            Self::Long => mixed(format!("{}-{number:04}", "ä".repeat(40 + (number % 2) as usize)), random),
            Self::AfterNumber | Self::BeforeNumber => mixed(format!("k{}ö", number % 7), random),
            Self::Bytes => format!("{number:x}"),
            Self::Text => mixed(format!("{}y-{:x}", ["ka", "kä", "ko"][(number % 3) as usize], number), random),
        };
        key + &blanks(random)
    }

    fn batch(self, entries: &[(i64, String, i64)]) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(entries.iter().map(|entry| &entry.1)));
        let sevenths: ArrayRef = Arc::new(Int32Array::from_iter_values(entries.iter().map(|entry| entry.0 as i32 / 7)));
        let mut columns = match self {
            Self::Bytes => {
                let bytes = entries.iter().map(|entry| entry.1.replace(' ', "\0").into_bytes());
                let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(bytes.map(|bytes| bytes.to_vec())));
                vec![("k", bytes)]
            }
            Self::AfterNumber => vec![("k1", sevenths), ("k2", texts)],
            Self::BeforeNumber => vec![("k1", texts), ("k2", sevenths)],
            _ => vec![("k", texts)],
        };
        let numbers = Int64Array::from_iter_values(entries.iter().map(|entry| entry.0));
        let values = Int64Array::from_iter_values(entries.iter().map(|entry| entry.2));
        columns.push(("number", Arc::new(numbers)));
        columns.push(("value", Arc::new(values)));
        rows(columns)
    }

    fn plan(self, mode: LoadMode) -> WritePlan {
        let plan = plan(self.batch(&[]).schema(), self.names(), mode);
        WritePlan { folding: self.folding(), ..plan }
    }
}

fn blanks(random: &mut StdRng) -> String {
    " ".repeat(random.random_range(0..3))
}

struct Run {
    kind: Kind,
    random: StdRng,
    fixture: Fixture,
    /// Last spelling and value by number.
    model: BTreeMap<i64, (String, i64)>,
    next_value: i64,
}

impl Run {
    fn entries(&mut self, count: usize) -> Vec<(i64, String, i64)> {
        let from = self.random.random_range(NUMBERS);
        let width = [30, 400, 2000][self.random.random_range(0..3)];
        let mut entries = Vec::new();
        for _ in 0..count {
            let number = self.random.random_range(from..from + width) % NUMBERS.end;
            let key = self.kind.spell(number, &mut self.random);
            self.next_value += 1;
            entries.push((number, key, self.next_value));
        }
        entries
    }

    async fn change(&mut self) {
        let mut changes: Vec<ChangeBatch> = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let count = self.random.random_range(1..200);
            let entries = self.entries(count);
            if self.random.random_bool(0.3) {
                self.model.retain(|number, _| !entries.iter().any(|entry| entry.0 == *number));
                changes.push(change(ChangeKind::Delete, self.kind.batch(&entries)));
            } else {
                let last = entries.iter().map(|(number, key, value)| (*number, (key.clone(), *value)));
                self.model.extend(last);
                changes.push(change(ChangeKind::Upsert, self.kind.batch(&entries)));
            }
        }
        self.fixture.load(self.kind.plan(LoadMode::Upsert), changes).await.unwrap();
    }

    /// What is present is told, as rows or as keys alone, and all else goes; some keys are written as never before.
    async fn compare_present(&mut self) {
        let keys_alone = self.random.random_bool(0.4);
        let mut present: Vec<(i64, String, i64)> = Vec::new();
        for (number, (key, value)) in std::mem::take(&mut self.model) {
            if self.random.random_bool(0.2) {
                continue;
            }
            let told = match self.random.random_bool(0.5) {
                true => self.kind.spell(number, &mut self.random),
                false => key.clone(),
            };
            // Keys alone say that a row is there, and nothing of how its key is written.
            let kept = if keys_alone { key } else { told.clone() };
            self.model.insert(number, (kept, value));
            present.push((number, told, value));
        }
        let snapshot = self.fixture.lake.table(&self.fixture.table).snapshot().await.unwrap().unwrap();
        let rows = self.kind.batch(&present);
        let keys = rows.project(&(0..self.kind.names().len()).collect::<Vec<_>>()).unwrap();
        let found = snapshot
            .present(&self.fixture.environment, std::slice::from_ref(&keys), &self.kind.folding())
            .await
            .unwrap();
        assert_eq!(found, present.len() as u64, "{:?}", self.kind);
        let told = match keys_alone {
            true => change(ChangeKind::PresentKeys, keys),
            false => change(ChangeKind::Present, rows),
        };
        let told = vec![Told::Change(told), Told::Complete(KeyRange::default())];
        self.fixture.tell(self.kind.plan(LoadMode::Upsert), told, &[]).await.unwrap();
    }

    /// Everything at once, sorted, as a whole load does.
    async fn lay_down(&mut self) {
        let mut entries = self.entries(500);
        entries.sort_by_key(|entry| entry.0);
        entries.dedup_by_key(|entry| entry.0);
        self.model = entries.iter().map(|(number, key, value)| (*number, (key.clone(), *value))).collect();
        let change = change(ChangeKind::Append, self.kind.batch(&entries));
        self.fixture.load(self.kind.plan(LoadMode::Append), vec![change]).await.unwrap();
    }

    async fn compare(&self, context: &str) {
        let mut found = BTreeMap::new();
        for batch in self.fixture.query("select * from t").await {
            let numbers = batch.column_by_name("number").unwrap().as_primitive::<Int64Type>();
            let values = batch.column_by_name("value").unwrap().as_primitive::<Int64Type>();
            let key = batch.columns().iter().find(|column| !column.data_type().is_numeric()).unwrap();
            for row in 0..batch.num_rows() {
                let key = text(key, row);
                let before = found.insert(numbers.value(row), (key, values.value(row)));
                assert!(before.is_none(), "{context}: number {} is there twice", numbers.value(row));
            }
        }
        assert_eq!(found, self.model, "{context}");
    }
}

fn text(column: &ArrayRef, row: usize) -> String {
    let column = arrow::compute::cast(column, &DataType::Binary).unwrap();
    String::from_utf8(column.as_binary::<i32>().value(row).to_vec()).unwrap().replace('\0', " ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_one_however_they_are_written() {
    for kind in KINDS {
        for seed in [1, 2, 3, rand::random()] {
            eprintln!("{kind:?} with seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            let target = [2 << 10, 8 << 10, 64 << 20][random.random_range(0..3)];
            let fixture = Fixture::new(target).await;
            let mut run = Run { kind, random, fixture, model: BTreeMap::new(), next_value: 0 };
            if run.random.random_bool(0.5) {
                run.lay_down().await;
            }
            for round in 0..5 {
                run.change().await;
                run.compare(&format!("{kind:?}, seed {seed}, round {round}")).await;
                if run.random.random_bool(0.4) {
                    run.compare_present().await;
                    run.compare(&format!("{kind:?}, seed {seed}, round {round}, compared")).await;
                }
            }
        }
    }
}

/// A thousand keys over many files, and changes in a narrow part of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_rewrites_only_the_files_whose_folded_range_it_meets() {
    for (kind, folding) in [(Kind::Text, KeyFolding::LettersWithoutCase), (Kind::Bytes, KeyFolding::TrimZeros)] {
        let fixture = Fixture::new(4 << 10).await;
        let spelled = |number: i64, upper: bool| {
            let key = format!("kä-{number:05}-{}", uuid::Uuid::from_u128(number as u128 * 0x9E37_79B9_7F4A_7C15));
            if upper && folding == KeyFolding::LettersWithoutCase { key.to_uppercase() } else { key }
        };
        let all: Vec<_> = (0..3000).map(|number| (number, spelled(number, number % 2 == 0), 0)).collect();
        let loaded = fixture
            .load(kind.plan(LoadMode::Append), vec![change(ChangeKind::Append, kind.batch(&all))])
            .await
            .unwrap();
        assert!(loaded.files_added > 10, "{} files", loaded.files_added);
        let few: Vec<_> = (1500..1510).map(|number| (number, spelled(number, number % 2 == 1) + "  ", 1)).collect();
        let changes = vec![change(ChangeKind::Upsert, kind.batch(&few))];
        let changed = fixture.load(kind.plan(LoadMode::Upsert), changes).await.unwrap();
        assert!((1..=2).contains(&changed.files_removed), "{kind:?}: {} files", changed.files_removed);
        assert_eq!(fixture.number("select count(*) from t").await, 3000);
        assert_eq!(fixture.number("select sum(value) from t").await, 10);
        // New keys above all others leave what is there alone.
        let above: Vec<_> = (9000..9010).map(|number| (number, spelled(number, false), 2)).collect();
        let changes = vec![change(ChangeKind::Upsert, kind.batch(&above))];
        let added = fixture.load(kind.plan(LoadMode::Upsert), changes).await.unwrap();
        assert!(added.files_removed <= 1, "{kind:?}: {} files", added.files_removed);
        // Sorted by another comparison, no file's order or bounds are believed any more.
        let by_value = WritePlan { folding: Vec::new(), ..kind.plan(LoadMode::Upsert) };
        let one = [(7, format!("{}x", spelled(7, false)), 3)];
        fixture.load(by_value, vec![change(ChangeKind::Upsert, kind.batch(&one))]).await.unwrap();
        assert_eq!(fixture.number("select count(*) from t").await, 3011);
    }
}
