//! A table that lives at random: rows come, change, go and change their keys, columns come, history is lost, loads are
//! met by faults. After every load the lake is compared with a model of the table. Each method has lives of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use lakegate::etl::{SyncOptions, TableOutcome};
use lakegate::journal::LoadStatus::{Committed, Failed, Unchanged};
use mssql_fixture::engine::SqlError;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::support::Operations;

/// Lives that are tried where `LAKEGATE_SEEDS` does not say how many, or which (`500`, `17..18`): less than a minute.
const SEEDS: u64 = 64;
/// Of so many lives one is tried with each of the methods that few tables need.
const PART_OF_OTHERS: u64 = 4;
/// Loads of one life.
const LOADS: usize = 6;
/// Lives at a time: each waits now and then before it tries again.
const AT_ONCE: usize = 16;

/// The table as it must be: a row by its key, and the values of its columns.
#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<i64, Vec<Option<String>>>,
    /// The text columns, with their defaults.
    columns: Vec<(String, Option<String>)>,
    columns_ever: usize,
    /// The backup taken last: its version, and what the table was then.
    backup: Option<(i64, Box<Model>)>,
}

impl Model {
    fn told(&self) -> Vec<String> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "∅".to_owned());
        let row = |(id, row): (&i64, &Vec<Option<String>>)| {
            std::iter::once(id.to_string()).chain(row.iter().map(value)).collect::<Vec<_>>().join("|")
        };
        let mut told: Vec<String> = self.rows.iter().map(row).collect();
        told.sort();
        told
    }

    fn some_key(&self, random: &mut StdRng) -> Option<i64> {
        let keys: Vec<i64> = self.rows.keys().copied().collect();
        keys.choose(random).copied()
    }
}

fn literal(value: &Option<String>) -> String {
    value.as_ref().map_or_else(|| "NULL".to_owned(), |text| format!("N'{text}'"))
}

fn value(random: &mut StdRng) -> Option<String> {
    match random.random_range(0..6) {
        0 => None,
        1 => Some(String::new()),
        2 => Some("漢字 😀".to_owned()),
        _ => Some(format!("v{}", random.random_range(0..1_000_000))),
    }
}

/// One change of rows, there and in the model.
fn change(ops: &Operations, model: &mut Model, random: &mut StdRng) {
    let width = model.columns.len();
    match random.random_range(0..10) {
        0..=3 => {
            let mut rows = Vec::new();
            for _ in 0..random.random_range(1..=20) {
                let id = random.random_range(0..500);
                let values: Vec<_> = (0..width).map(|_| value(random)).collect();
                if model.rows.insert(id, values.clone()).is_some() {
                    ops.sql(&format!("DELETE FROM dbo.t WHERE id = {id}"));
                    rows.retain(|(other, _)| *other != id);
                }
                rows.push((id, values));
            }
            for (id, values) in rows {
                let values: Vec<_> = values.iter().map(literal).collect();
                let columns: Vec<_> = model.columns.iter().map(|column| column.0.as_str()).collect();
                let (columns, values) = (columns.join(", "), values.join(", "));
                ops.sql(&format!("INSERT INTO dbo.t (id, {columns}) VALUES ({id}, {values})"));
            }
        }
        4..=6 => {
            let Some(id) = model.some_key(random) else { return };
            let place = random.random_range(0..width);
            let new = value(random);
            ops.sql(&format!("UPDATE dbo.t SET {} = {} WHERE id = {id}", model.columns[place].0, literal(&new)));
            model.rows.get_mut(&id).unwrap()[place] = new;
        }
        7 => {
            let (Some(id), new) = (model.some_key(random), random.random_range(500..1_000)) else { return };
            if !model.rows.contains_key(&new) {
                ops.sql(&format!("UPDATE dbo.t SET id = {new} WHERE id = {id}"));
                let row = model.rows.remove(&id).unwrap();
                model.rows.insert(new, row);
            }
        }
        8 => {
            let Some(id) = model.some_key(random) else { return };
            ops.sql(&format!("DELETE FROM dbo.t WHERE id = {id}"));
            model.rows.remove(&id);
        }
        _ => {
            let from = random.random_range(0..900);
            ops.sql(&format!("DELETE FROM dbo.t WHERE id BETWEEN {from} AND {}", from + 50));
            model.rows.retain(|id, _| !(from..=from + 50).contains(id));
        }
    }
}

/// Something that happens to the table as a whole.
fn event(ops: &Operations, model: &mut Model, random: &mut StdRng, is_tracked: bool) {
    let database = ops.server.database();
    match random.random_range(0..9) {
        4 | 5 if !is_tracked => change(ops, model, random),
        0 | 1 => {
            let name = format!("c{}", model.columns_ever);
            model.columns_ever += 1;
            let default = random.random_bool(0.3).then(|| "old".to_owned());
            let filled =
                default.as_ref().map_or_else(|| "NULL".to_owned(), |text| format!("NOT NULL DEFAULT N'{text}'"));
            // Columns with a default take no NULL, which the model does not know of: they are left nullable.
            let filled = filled.replace("NOT NULL DEFAULT", "NULL DEFAULT");
            let with_values = if default.is_some() { " WITH VALUES" } else { "" };
            ops.sql(&format!("ALTER TABLE dbo.t ADD {name} nvarchar(40) {filled}{with_values}"));
            model.rows.values_mut().for_each(|row| row.push(default.clone()));
            model.columns.push((name, default));
        }
        2 => {
            ops.sql("TRUNCATE TABLE dbo.t");
            model.rows.clear();
        }
        3 => database.recreate("dbo.t").unwrap(),
        4 => {
            ops.sql("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING");
            change(ops, model, random);
            ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
        }
        5 => {
            let version = ops.there("SELECT CHANGE_TRACKING_CURRENT_VERSION()")[0].parse().unwrap();
            database.expire("dbo.t", version).unwrap();
        }
        6 => {
            let version = database.backup().unwrap();
            model.backup = Some((version, Box::new(Model { backup: None, ..model.clone() })));
        }
        7 => {
            if let Some((version, then)) = model.backup.take()
                && then.columns.len() == model.columns.len()
            {
                database.restore(version).unwrap();
                model.rows = then.rows;
            }
        }
        _ => {
            let Some(id) = model.some_key(random) else { return };
            ops.sql(&format!("UPDATE dbo.t SET {} = N'x' WHERE id = {id}", model.columns[0].0));
            ops.sql("BEGIN TRANSACTION; DELETE FROM dbo.t; ROLLBACK TRANSACTION;");
            model.rows.get_mut(&id).unwrap()[0] = Some("x".to_owned());
        }
    }
}

fn fault(ops: &Operations, random: &mut StdRng, reading: &str) {
    let faults = ops.server.database().faults();
    let numbers = [1205, 1222, 3961, 8134, 40613];
    match random.random_range(0..3) {
        0 => faults.cut(random.random_range(0..5_000)),
        _ => {
            let statements = ["SELECT TOP (", reading, "FROM sys.columns", "COMMIT", "SELECT T.[id]"];
            let statement = statements.choose(random).unwrap();
            let error = SqlError::new(*numbers.choose(random).unwrap(), 16, "for a test");
            faults.fail(statement, random.random_range(0..30), error, random.random_range(1..6));
        }
    }
}

async fn sync(ops: &Operations) -> TableOutcome {
    let mut report = ops.team.sync_with(&SyncOptions { now: true, ..SyncOptions::default() }).await;
    report.tables.remove(0)
}

async fn live(method: &str, seed: u64, loads: &AtomicU64) {
    let mut random = StdRng::seed_from_u64(seed);
    let ops = Operations::start().await;
    // Each load connects anew: TLS, and reading the system's authorities for it, would take a fifth of the time.
    ops.configure("encrypt = \"off\"");
    let (is_tracked, is_versioned) = (method == "change_tracking", method == "rowversion");
    let columns = "id bigint NOT NULL PRIMARY KEY, a nvarchar(40) NULL, b nvarchar(40) NULL";
    ops.sql(&format!("CREATE TABLE dbo.t ({columns}{})", if is_versioned { ", rv rowversion" } else { "" }));
    if is_tracked {
        ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
    }
    let left_out = if is_versioned { "leave_out = [\"rv\"]" } else { "" };
    ops.define("t", &format!("method = \"{method}\"\n{left_out}"));
    let reading = if is_tracked { "@last bigint" } else { "@lo binary(8)" };
    let columns = ["a", "b"].map(|name| (name.to_owned(), None));
    let mut model = Model { columns: columns.to_vec(), ..Model::default() };
    let mut in_lake: Vec<String> = Vec::new();
    for load in 0..LOADS {
        for _ in 0..random.random_range(0..6) {
            change(&ops, &mut model, &mut random);
        }
        if random.random_bool(0.3) {
            event(&ops, &mut model, &mut random, is_tracked);
        }
        if random.random_bool(0.4) {
            fault(&ops, &mut random, reading);
            let outcome = sync(&ops).await;
            loads.fetch_add(1, Ordering::Relaxed);
            if outcome.record.status == Failed {
                let told = ops.rows("t").await;
                assert_eq!(
                    told, in_lake,
                    "{method}, seed {seed}, load {load}: a failed load changes nothing: {outcome:?}"
                );
            }
            ops.server.database().faults().clear();
        }
        let outcome = sync(&ops).await;
        loads.fetch_add(1, Ordering::Relaxed);
        assert!(
            matches!(outcome.record.status, Committed | Unchanged),
            "{method}, seed {seed}, load {load}: {outcome:?}"
        );
        in_lake = ops.rows("t").await;
        let expected = model.told();
        if in_lake != expected {
            // Columns that no row has had a value in yet need not be there.
            let told = widened(&ops, in_lake.clone(), model.columns.len()).await;
            assert_eq!(told, expected, "{method}, seed {seed}, load {load}: {outcome:?}");
        }
    }
}

/// A column that came without a default is not in the lake before a row that was changed since brings it.
async fn widened(ops: &Operations, rows: Vec<String>, columns: usize) -> Vec<String> {
    let lake = ops.team.open().await.1;
    let snapshot = lake.table(&"ops.t".parse().unwrap()).snapshot().await.unwrap();
    let there = snapshot.map_or(columns, |snapshot| snapshot.schema().fields().len() - 1);
    let more = "|∅".repeat(columns.saturating_sub(there));
    let mut rows: Vec<String> = rows.into_iter().map(|row| row + &more).collect();
    rows.sort();
    rows
}

/// The lives of this run.
fn seeds() -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("LAKEGATE_SEEDS") else { return 0..SEEDS };
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("LAKEGATE_SEEDS={wanted}"));
    match wanted.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&wanted),
    }
}

async fn lives(method: &'static str, seeds: std::ops::Range<u64>) {
    let loads = Arc::new(AtomicU64::new(0));
    let lives = futures::stream::iter(seeds.clone()).map(|seed| {
        let loads = Arc::clone(&loads);
        async move { (seed, tokio::spawn(async move { live(method, seed, &loads).await }).await) }
    });
    let mut failed: Vec<u64> = Vec::new();
    let mut lives = std::pin::pin!(lives.buffer_unordered(AT_ONCE));
    while let Some((seed, lived)) = lives.next().await {
        failed.extend(lived.is_err().then_some(seed));
    }
    println!("{method}, seeds {seeds:?}: {} loads", loads.load(Ordering::Relaxed));
    assert!(
        failed.is_empty(),
        "{method}, seeds {failed:?}; LAKEGATE_SEEDS={0}..{1} lives the first again",
        failed[0],
        failed[0] + 1
    );
}

/// As [`seeds`], but fewer, unless one is asked for by its number.
fn some_seeds() -> std::ops::Range<u64> {
    let all = seeds();
    if all.start > 0 { all } else { 0..all.end.div_ceil(PART_OF_OTHERS) }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_table_the_lake_follows() {
    lives("change_tracking", seeds()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_table_with_row_versions_the_lake_follows() {
    lives("rowversion", some_seeds()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_a_table_that_is_compared_the_lake_follows() {
    lives("key_diff", some_seeds()).await;
}
