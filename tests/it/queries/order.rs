//! Statements whose rows come in the same order at each run, also on several threads and from many files.

use std::time::Duration;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use lakegate::query::{Planned, QueryEngine};

use super::house::{House, everything, statement, text};

/// The batches of a plan in the order they come in: how many rows each has, and the rows.
async fn run(house: &House, planned: &Planned) -> (Vec<usize>, Vec<String>) {
    let rows = house.engine.execute(planned, Duration::from_secs(60)).await.unwrap();
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    (batches.iter().map(RecordBatch::num_rows).collect(), text(&batches))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_filters_or_sorts_uses_all_threads_and_gives_the_same_batches_each_time() {
    let house = House::with_config(&["t.v"], "[limits]\nthreads = 3\nmemory = \"256MiB\"\n").await;
    for file in 0..7 {
        let sql = format!(
            "select x, 'word ' || (x % 9) from generate_series({}, {}) g(x)",
            file * 20_000,
            file * 20_000 + 19_999
        );
        house.load("t.v", &[("id", "bigint"), ("s", "string")], &sql).await;
    }
    for (sql, partitions) in [
        ("select id, s from t.v", Some(1)),
        ("select id, s from t.v where id % 3 <> 0", Some(3)),
        ("select s, id + 1 from t.v where s = 'word 4'", Some(3)),
        ("select id from t.v order by s, id", Some(3)),
        ("select id from t.v where id % 2 = 0 limit 30000", Some(1)),
        ("select s, count(*) from t.v group by s", None),
    ] {
        let planned = house.engine.plan(statement(sql), &everything()).await.unwrap();
        let planned = house.engine.in_fixed_order(planned);
        assert_eq!(planned.statement.options.partitions, partitions, "{sql}");
        let first = run(&house, &planned).await;
        if partitions.is_none() {
            continue;
        }
        for _ in 0..4 {
            assert!(run(&house, &planned).await == first, "{sql}");
        }
        // As from a ticket, after a restart.
        let again = house.engine.plan(planned.statement.clone(), &everything()).await.unwrap();
        assert!(run(&house, &again).await == first, "{sql}");
        // The same rows as in whatever order.
        let (mut fixed, mut any) = (first.1, house.rows(sql).await.unwrap());
        fixed.sort();
        any.sort();
        assert!(sql.contains("limit") || fixed == any, "{sql}");
    }
}
