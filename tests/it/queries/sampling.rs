//! `TABLESAMPLE BERNOULLI (percent) REPEATABLE (seed)` over a real lake.

use std::time::Duration;

use futures::TryStreamExt;
use lakegate::error::{Classify, ErrorKind};
use lakegate::query::{QueryEngine, QueryError, Statement, StatementOptions};

use crate::queries::house::{House, everything, statement, text};

/// `t.keyed` has a key, `t.plain` has none and each of its rows twice.
async fn lake() -> House {
    let keyed = "t.keyed = mode = \"append\"\n[table]\nkey = [\"id\"]";
    let house = House::with_config(&[keyed, "t.plain"], "[limits]\nthreads = 2\nmemory = \"256MiB\"\n").await;
    let columns = &[("id", "bigint"), ("name", "string"), ("tags", "array<string>")];
    for load in 0..3 {
        let rows = format!(
            "select value as id, 'n' || value, make_array('t' || value) from generate_series({}, {})",
            load * 10_000,
            load * 10_000 + 9_999
        );
        house.load("t.keyed", columns, &rows).await;
        house.load("t.plain", columns, &format!("{rows} union all {rows}")).await;
    }
    house
}

async fn sorted(house: &House, sql: &str) -> Vec<String> {
    let mut rows = house.rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_the_same_whatever_is_asked_of_it_and_however_it_runs() {
    let house = lake().await;
    for table in ["t.keyed", "t.plain"] {
        let sample = format!("{table} tablesample bernoulli (1) repeatable (7)");
        let all = sorted(&house, &format!("select id from {sample}")).await;
        let share = all.len() as f64 / if table == "t.keyed" { 30_000.0 } else { 60_000.0 };
        assert!((0.007..=0.013).contains(&share), "{table}: {share}");
        assert_eq!(sorted(&house, &format!("select id from (select * from {sample})")).await, all);
        assert_eq!(
            sorted(&house, &format!("select x.id from {table} as x tablesample bernoulli (1) repeatable (7)")).await,
            all
        );
        let within = sorted(&house, &format!("select id from {sample} where id < 10000")).await;
        let expected = all.iter().filter(|id| id.parse::<i64>().unwrap() < 10_000).cloned();
        assert_eq!(within, expected.collect::<Vec<_>>());
        assert_eq!(house.rows(&format!("select count(*) from {sample}")).await.unwrap(), [all.len().to_string()]);
        for (partitions, batch_rows) in [(1, 8192), (3, 100), (4, 1)] {
            let options = StatementOptions {
                partitions: Some(partitions),
                batch_rows: Some(batch_rows),
                ..StatementOptions::default()
            };
            let asked = Statement { options, ..statement(&format!("select id from {sample}")) };
            let planned = house.engine.plan(asked, &everything()).await.unwrap();
            let rows = house.engine.execute(&planned, Duration::from_secs(60)).await.unwrap();
            let mut rows = text(&rows.try_collect::<Vec<_>>().await.unwrap());
            rows.sort();
            assert_eq!(rows, all, "{partitions} partitions, batches of {batch_rows}");
        }
        assert_ne!(
            sorted(&house, &format!("select id from {table} tablesample bernoulli (1) repeatable (8)")).await,
            all
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stay_in_a_sample_as_long_as_their_key() {
    let house = lake().await;
    let sql = "select id from t.keyed tablesample bernoulli (5) repeatable (1) where id < 30000";
    let before = sorted(&house, sql).await;
    let columns = &[("id", "bigint"), ("name", "string"), ("tags", "array<string>")];
    house.load("t.keyed", columns, "select value + 30000, 'n', make_array('x') from generate_series(0, 999)").await;
    assert_eq!(sorted(&house, sql).await, before);
    let older = "select id from t.keyed version as of 2 tablesample bernoulli (5) repeatable (1)";
    assert_eq!(sorted(&house, older).await, before);
    // Rows that nothing tells apart go together.
    let twice =
        "select count(*) from t.plain tablesample bernoulli (5) repeatable (1) group by id having count(*) <> 2";
    assert!(house.rows(twice).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_its_samples_are_of_one_version() {
    let house = lake().await;
    let sql = "select count(*) from t.keyed k join t.keyed as s tablesample bernoulli (100) repeatable (1) on k.id = s.id \
               join t.keyed as n tablesample bernoulli (10) repeatable (1) on n.id = s.id";
    let ten = house.rows("select count(*) from t.keyed tablesample bernoulli (10) repeatable (1)").await.unwrap();
    let planned = house.engine.plan(statement(sql), &everything()).await.unwrap();
    assert_eq!(planned.statement.pins.len(), 1);
    assert_eq!(house.rows(sql).await.unwrap(), ten);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_samples_says_so() {
    let house = lake().await;
    for (sql, kind, told) in [
        ("select * from t.keyed tablesample system (1) repeatable (7)", ErrorKind::Unsupported, "BERNOULLI"),
        ("select * from t.keyed tablesample bernoulli (1)", ErrorKind::Unsupported, "without REPEATABLE"),
        (
            "select * from t.keyed tablesample bernoulli (100.1) repeatable (7)",
            ErrorKind::InvalidInput,
            "from 0 to 100",
        ),
        ("select * from (select 1) tablesample bernoulli (1) repeatable (7)", ErrorKind::Unsupported, "of a query"),
        ("select * from system.loads tablesample bernoulli (1) repeatable (7)", ErrorKind::Unsupported, "no samples"),
        (
            "select * from t.kyed tablesample bernoulli (1) repeatable (7)",
            ErrorKind::NotFound,
            "did you mean `t.keyed`?",
        ),
        ("delete from t.keyed tablesample bernoulli (1) repeatable (7)", ErrorKind::Unsupported, "sample"),
    ] {
        let error: QueryError = house.rows(sql).await.expect_err(sql);
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.to_string().contains(told), "{sql}: {error}");
    }
}
