//! What many small writes leave.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use lakegate::query::{IfExisting, IfMissing};

use super::place::Place;
use crate::support::truth;

/// More data files than this are never left behind by small writes.
const MOST_FILES: usize = 33;

/// Writes of one row each.
const WRITES: i64 = 200;

async fn files(place: &Place, table: &str) -> usize {
    place.lake.table(&table.parse().unwrap()).snapshot().await.unwrap().unwrap().files()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_inserts_leave_few_files_and_every_version_stays_what_it_was() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint, n bigint)").await;
    for id in 1..=WRITES {
        assert_eq!(place.run(&format!("insert into t values ({id}, {id} * 2)")).await, 1);
        let files = files(&place, "results.t").await;
        assert!(files <= MOST_FILES, "{files} after {id}");
    }
    assert_eq!(truth::rows(&place.ground, &"results.t".parse().unwrap()).await, (1..=WRITES).collect::<Vec<_>>());
    assert_eq!(place.rows("select count(*) from t where n = id * 2").await, [WRITES.to_string()]);
    // Those around the first one that took files in, and every fifth.
    for version in (31..35).chain((0..=WRITES).step_by(5)) {
        let seen = place.rows(&format!("select count(*), coalesce(max(id), 0) from t version as of {version}")).await;
        assert_eq!(seen, [format!("{version} {version}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_sent_take_small_files_in_and_a_key_is_kept_to_across_that() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint primary key)").await;
    let mut most = 0;
    for number in 0..70_i64 {
        // From both ends, so that what is taken in has to be sorted.
        let id = if number % 2 == 0 { number } else { 1_000 - number };
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let append = (IfMissing::Fail, IfExisting::Append);
        place.ingest("results.t", append, batch.schema(), vec![Ok(batch)]).await.unwrap();
        most = most.max(files(&place, "results.t").await);
    }
    assert!((30..=MOST_FILES).contains(&most), "{most}");
    place.refused("insert into t values (2)").await;
    place.refused("insert into t values (999)").await;
    assert_eq!(place.run("update t set id = id + 10000 where id < 500").await, 35);
    assert_eq!(place.run("delete from t where id = 999").await, 1);
    let ids = truth::rows(&place.ground, &"results.t".parse().unwrap()).await;
    assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (69, 69));
}
