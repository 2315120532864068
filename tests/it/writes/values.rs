//! Values are what was written, or an error that names the column.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::common::ScalarValue;
use lakegate::error::ErrorKind;

use super::place::{Place, refusal};
use crate::queries::house::everything;

async fn with_types() -> Place {
    let place = Place::local(&[]).await;
    place
        .run(
            "create table t (b boolean, s smallint, i int, l bigint, r real, d double, m decimal(12, 2), v varchar, x bytea,
             day date, ts timestamp with time zone, n timestamp, a int[], must int not null)",
        )
        .await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_as_they_were_written() {
    let place = with_types().await;
    for (column, written, read) in [
        ("b", "true", "true"),
        ("s", "-32768", "-32768"),
        ("i", "'17'", "17"),
        ("l", "9223372036854775807", "9223372036854775807"),
        ("r", "0.1", "0.1"),
        ("d", "1e300", "1e300"),
        ("m", "9999999999.99", "9999999999.99"),
        ("m", "'-0.01'", "-0.01"),
        ("m", "1", "1.00"),
        ("v", "'Zürich'", "Zürich"),
        ("v", "12", "12"),
        ("x", "x'00ff'", "00ff"),
        ("day", "'9999-12-31'", "9999-12-31"),
        ("day", "date '2020-02-29'", "2020-02-29"),
        ("ts", "'2020-01-01T00:00:00.000001+02:00'", "2019-12-31T22:00:00.000001Z"),
        ("n", "'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999"),
        ("a", "[1, null, 3]", "[1, NULL, 3]"),
    ] {
        place.run("delete from t").await;
        assert_eq!(place.run(&format!("insert into t ({column}, must) values ({written}, 1)")).await, 1);
        assert_eq!(place.rows(&format!("select {column} from t")).await, [read], "{column} {written}");
        place.run("delete from t").await;
        place.run(&format!("insert into t ({column}, must) select {written}, 1")).await;
        let found = place.rows(&format!("select {column} from t")).await;
        assert_eq!(found, [read], "{column} {written} by SELECT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_an_error_that_names_the_column() {
    let place = with_types().await;
    place.run("insert into t (must) values (1)").await;
    for (column, written) in [
        ("s", "32768"),
        ("i", "1.5"),
        ("i", "'x'"),
        ("i", "true"),
        ("l", "9223372036854775808"),
        ("m", "1.005"),
        ("m", "10000000000"),
        ("m", "'1.005'"),
        ("day", "'2020-02-30'"),
        ("day", "1"),
        ("ts", "'2020-01-01 00:00:00.1234567'"),
        ("b", "1"),
        ("r", "1e300"),
        ("a", "['x']"),
        ("must", "null"),
    ] {
        for sql in [
            format!("insert into t ({column}, {}) values ({written}, null)", if column == "must" { "s" } else { "v" }),
            format!("update t set {column} = {written}"),
        ] {
            if sql.starts_with("insert") && column != "must" {
                continue;
            }
            let (kind, told) = place.refused(&sql).await;
            assert_eq!(kind, ErrorKind::InvalidInput, "{sql}: {told}");
            assert!(told.contains(&format!("`{column}`")), "{sql}: {told}");
        }
        if column != "must" {
            let sql = format!("insert into t ({column}, must) values ({written}, 1)");
            let (kind, told) = place.refused(&sql).await;
            assert_eq!(kind, ErrorKind::InvalidInput, "{sql}: {told}");
            assert!(told.contains(&format!("`{column}`")), "{sql}: {told}");
        }
    }
    let (kind, told) = place.refused("insert into t (v) values ('x')").await;
    assert!(kind == ErrorKind::InvalidInput && told.contains("`must`"), "{told}");
    assert_eq!(place.rows("select count(*), count(s), count(m) from t").await, ["1 0 0"], "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_the_types_of_their_columns() {
    use lakegate::query::QueryEngine;

    let place = with_types().await;
    let sql = "insert into t (m, day, must) values (?, ?, ?)";
    let planned = place.engine.plan(crate::queries::house::statement(sql), &everything()).await.unwrap();
    let kinds: Vec<_> = planned.parameters.iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Decimal128(12, 2)", "Date32", "Int32"]);
    let values = vec![
        ScalarValue::Float64(Some(9_999_999_999.99)),
        ScalarValue::Utf8(Some("2020-01-31".to_owned())),
        ScalarValue::Int64(Some(4)),
    ];
    assert_eq!(place.change_as(sql, values, &everything()).await.unwrap(), 1);
    assert_eq!(place.rows("select m, day, must from t").await, ["9999999999.99 2020-01-31 4"]);
    let update = "update t set must = ?, v = ? where m > ?";
    let values = vec![ScalarValue::Int64(Some(5)), ScalarValue::Null, ScalarValue::Decimal128(Some(1), 1, 0)];
    assert_eq!(place.change_as(update, values, &everything()).await.unwrap(), 1);
    assert_eq!(place.rows("select must, v from t").await, ["5 NULL"]);
    let few = vec![ScalarValue::Int64(Some(5))];
    let (kind, told) = refusal(place.change_as(update, few, &everything()).await, update);
    assert!(kind == ErrorKind::InvalidInput && told.contains("3 parameters"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_values_runs_once_and_an_insert_commits_once() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint primary key, word varchar)").await;
    let rows = |ids: Vec<i64>, words: Vec<&str>| {
        let columns: [(&str, ArrayRef); 2] =
            [("0", Arc::new(Int64Array::from(ids))), ("1", Arc::new(StringArray::from(words)))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let insert = "insert into t (word, id) values (upper($2), $1 + 1)";
    let changed = place.change_rows(insert, vec![rows(vec![1, 2], vec!["a", "b"]), rows(vec![3], vec!["c"])]).await;
    let changed = changed.unwrap();
    assert_eq!((changed.rows, changed.version), (3, Some(1)), "one commit");
    let two = "insert into t values ($1, $2), ($1 + 100, $2)";
    assert_eq!(place.change_rows(two, vec![rows(vec![10, 20], vec!["x", "y"])]).await.unwrap().rows, 4);
    assert_eq!(place.version("results.t").await, 2);
    let update = "update t set word = $2 where id = $1";
    assert_eq!(place.change_rows(update, vec![rows(vec![2, 3, 99], vec!["A!", "B!", "-"])]).await.unwrap().rows, 2);
    let all = place.rows("select id, word from t order by id").await;
    assert_eq!(all, ["2 A!", "3 B!", "4 C", "10 x", "20 y", "110 x", "120 y"]);
    let (kind, _) = refusal(place.change_rows(insert, vec![rows(vec![50, 50], vec!["a", "b"])]).await, insert);
    assert_eq!(kind, ErrorKind::AlreadyExists);
    assert_eq!(place.rows("select count(*) from t").await, ["7"], "none of the rows, as one of them fails");
}
