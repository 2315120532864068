//! Several at once: writers, readers, and those who leave in the middle.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::StreamExt;
use lakegate::error::{Classify, ErrorKind};
use lakegate::query::{ChangeValues, IfExisting, IfMissing, IncomingRows, Ingestion, QueryEngine};
use tokio_stream::wrappers::ReceiverStream;

use super::place::{Place, SOON, refusal};
use crate::queries::house::{everything, statement};
use crate::support::{on_both_grounds, truth};

on_both_grounds! {
    async fn writers_of_one_table_take_turns_and_lose_nothing(ground) {
        let place = Arc::new(Place::on(ground, &[]).await);
        place.run("create table t (id bigint primary key, n bigint)").await;
        place.run("insert into t values (0, 0)").await;
        let writers = (1..=6).map(|writer| {
            let place = Arc::clone(&place);
            tokio::spawn(async move {
                place.run(&format!("insert into t values ({writer}, {writer})")).await;
                place.run("update t set n = n + 1 where id = 0").await;
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(place.rows("select count(*), sum(n) filter (where id = 0) from t").await, ["7 6"]);
    }

    async fn a_reader_sees_all_of_a_change_or_nothing(ground) {
        let place = Arc::new(Place::on(ground, &[]).await);
        place.run("create table t as select x as id, 0 as round from generate_series(1, 1000) g(x)").await;
        let writing = {
            let place = Arc::clone(&place);
            tokio::spawn(async move {
                for round in 1..=5 {
                    place.run(&format!("update t set round = {round}")).await;
                    place.run(&format!("create or replace table t as select id, {round} as round from t")).await;
                }
            })
        };
        while !writing.is_finished() {
            let seen = place.rows("select count(*), count(distinct round) from t").await;
            assert_eq!(seen, ["1000 1"]);
        }
        writing.await.unwrap();
        assert_eq!(place.rows("select count(*), min(round), max(round) from t").await, ["1000 5 5"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_table_is_named_to_those_who_wait_in_vain() {
    let config = "[limits]\nthreads = 2\nmemory = \"256MiB\"\nlease_wait = \"200ms\"\n";
    let place = Place::with_config(crate::support::ground::Ground::local(), &[], config).await;
    place.run("create table t (id bigint)").await;
    let lease = place.lake.table(&"results.t".parse().unwrap()).lease("a long load", SOON).await.unwrap();
    let (kind, told) = place.refused("insert into t values (1)").await;
    assert_eq!(kind, ErrorKind::Conflict, "{told}");
    assert!(told.contains("a long load") && told.contains(&std::process::id().to_string()), "{told}");
    lease.release().await;
    assert_eq!(place.run("insert into t values (1)").await, 1);
}

/// A query that computes for minutes and gives nothing.
const ENDLESS: &str = "insert into t select a.x from generate_series(1, 3000000) a(x) join generate_series(1, 3000000) b(y) \
                       on a.x * b.y < 0";

async fn nothing_is_left(place: &Place) {
    // The next writer gets the lease at once, so whoever left has given it back.
    assert_eq!(place.run("insert into t values (1)").await, 1);
    assert_eq!(place.rows("select count(*) from t").await, ["1"]);
    let files = truth::data_files(&place.ground, &"results.t".parse().unwrap()).await;
    assert_eq!(files.len(), 1, "{files:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_before_the_commit_leaves_nothing() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint)").await;
    let planned = place.engine.plan(statement(ENDLESS), &everything()).await.unwrap();
    let changing = place.engine.change(&planned, ChangeValues::Planned, SOON);
    assert!(tokio::time::timeout(Duration::from_millis(300), changing).await.is_err(), "it is not over so soon");
    let stopped = async {
        while place.engine.running_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, stopped).await.expect("the work stops");
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_changes_nothing() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint)").await;
    let planned = place.engine.plan(statement(ENDLESS), &everything()).await.unwrap();
    let late = place.engine.change(&planned, ChangeValues::Planned, Duration::from_millis(300)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_in_the_middle_of_its_rows_leaves_nothing() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint)").await;
    let batch = |from: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 10_000));
        RecordBatch::try_from_iter([("id", ids)]).unwrap()
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let ingestion =
        Ingestion { schema: None, table: "t".to_owned(), missing: IfMissing::Fail, existing: IfExisting::Append };
    let rows = IncomingRows { schema: batch(0).schema(), batches: ReceiverStream::new(receiver).boxed() };
    let engine = Arc::clone(&place.engine);
    let taking = tokio::spawn(async move { engine.ingest(ingestion, rows, &everything(), SOON).await });
    for number in 0..20 {
        sender.send(Ok(batch(number * 10_000))).await.unwrap();
    }
    taking.abort();
    assert!(taking.await.is_err());
    // The receiver is dropped by whoever still works, once that stops.
    sender.closed().await;
    nothing_is_left(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_large_changes_spill() {
    // A pool of 24 MiB, and on disk at any time not more than twice what all rows have.
    let config = "[limits]\nthreads = 2\nmemory = \"32MiB\"\nspill = \"128MiB\"\n";
    let place = Place::with_config(crate::support::ground::Ground::local(), &[], config).await;
    let rows = "select (x * 7919) % 300007 as id, repeat('x', 200) as pad from generate_series(1, 300000) g(x)";
    assert_eq!(place.run(&format!("create table t (id bigint primary key, pad varchar) as {rows}")).await, 300_000);
    let count = async |condition: &str| {
        let rows = place.rows(&format!("select count(*) from t where {condition}")).await;
        rows[0].parse::<u64>().unwrap()
    };
    let even = count("id % 2 = 0").await;
    assert_eq!(place.run("update t set pad = repeat('y', 200) where id % 2 = 0").await, even);
    assert_eq!(place.run("update t set id = id + 2000000").await, 300_000);
    let thirds = count("id % 3 = 0").await;
    assert_eq!(place.run("delete from t where id % 3 = 0").await, thirds);
    let seen = place.rows("select count(*), count(distinct id), min(id) > 2000000 from t").await;
    assert_eq!(seen, [format!("{0} {0} true", 300_000 - thirds)]);
    assert_eq!(place.run(&format!("insert into t {rows}")).await, 300_000);
    let (kind, told) = refusal(place.change(&format!("insert into t {rows}")).await, "the same keys");
    assert_eq!(kind, ErrorKind::AlreadyExists, "{told}");
}
