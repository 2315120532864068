//! What a row filter or mask may be, and what `current_user()` and `has_role()` give.

use super::world::{admin, ask, filtered, filtered_rows, lake, masked_column};
use crate::queries::house::statement;
use lakegate::access::{Grant, Grantee, Grants, Policy, Scope};
use lakegate::model::TableName;
use lakegate::query::{QueryEngine, StatementOptions};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_condition_over_one_row_is_a_problem_that_says_why() {
    let house = lake().await;
    let refused = [
        ("region = 'north') or (true", "Expected"),
        ("id in (select 1)", "query"),
        ("(select true)", "query"),
        ("exists (select 1)", "query"),
        ("count(*) > 1", "aggregate"),
        ("row_number() over () > 1", "window"),
        ("random() > 0.5", "each time"),
        ("id = $1", "parameter"),
        ("id = ?", "parameter"),
        ("id = :x", "is no parameter"),
        ("nothing = 1", "nothing"),
        ("pub.numbers.n = 1", "numbers"),
        ("name", "true or false"),
        ("cast(name as char(3)) = 'a'", "varchar"),
        ("id = 1 as x", ""),
        ("", "Expected"),
        ("id = 1; drop table t", "Expected"),
        ("unnest(tags) = 'a'", "unnest"),
    ];
    for (text, why) in refused {
        let policy = Policy { filters: vec!["true".to_owned(), text.to_owned()], ..Policy::default() };
        let policies = [(name("ops.people"), policy)].into();
        let problems = house.engine.check_policies(&Grants { grants: vec![], policies }).await.unwrap();
        assert_eq!(problems.len(), 1, "{text}");
        let told = problems[0].to_string();
        assert!(told.starts_with("ops.people: row filter 2: ") && told.contains(why), "{text}: {told}");
    }
    let masks = [("secret", "'x'"), ("salary", "address"), ("gone", "1")];
    let masks = masks.map(|(column, mask)| (column.to_owned(), mask.to_owned())).into();
    let policy = Policy { filters: vec!["has_role('x') or name = current_user()".to_owned()], masks };
    let columns = Some(["id".to_owned(), "idd".to_owned()].into());
    let on = Scope::Table(name("ops.people"));
    let grants = vec![Grant { to: Grantee::Everyone, on, columns, read: true, write: false }];
    let policies = [(name("ops.people"), policy), (name("pub.later"), broken())].into();
    let problems = house.engine.check_policies(&Grants { grants, policies }).await.unwrap();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].starts_with("ops.people: the mask of `gone`: there is no column"), "{told:?}");
    assert!(told[1].starts_with("ops.people: the mask of `salary`: "), "{told:?}");
    assert!(told[2].starts_with("pub.later: row filter 1: "), "{told:?}");
    assert_eq!(told[3], "ops.people: a grant's columns: there is no column `idd`");
}

fn name(text: &str) -> TableName {
    text.parse().unwrap()
}

/// Of a table that is not there: it is read all the same.
fn broken() -> Policy {
    Policy { filters: vec!["a = (".to_owned(), "a = 1".to_owned()], ..Policy::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_may_be_any_condition_over_the_tables_columns() {
    let house = lake().await;
    for (filter, seen) in [
        ("true", "4"),
        ("false", "0"),
        ("null", "0"),
        ("region = 'north' or has_role('root')", "2"),
        ("has_role('analyst')", "4"),
        ("has_role('ANALYST')", "0"),
        ("has_role(region)", "0"),
        ("current_user() = 'filtered'", "4"),
        ("current_user = 'filtered'", "4"),
        ("name = current_user()", "0"),
        ("100 / nullif(salary, 0) >= 0", "3"),
        ("try_cast(name as int) is null and ops.people.id > 1", "3"),
        ("address['city'] = 'Oslo'", "1"),
        ("array_has(tags, 'secretval-tag')", "2"),
        ("name like 'hidden%' and not starts_with(name, 'hiddenrow-c')", "1"),
        ("now() > timestamp '2020-01-01'", "4"),
        ("salary between 50.5 and 150", "1"),
    ] {
        let found = ask(&house, &filtered(filter), "select count(*) from ops.people").await;
        assert_eq!(found, Ok(vec![seen.to_owned()]), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_may_ask_who_they_are() {
    let house = lake().await;
    for (sql, seen) in [
        ("select current_user()", "filtered"),
        ("select current_user", "filtered"),
        ("select has_role('analyst'), has_role('root'), has_role(null)", "true false NULL"),
        ("select count(*) from ops.people where current_user() = 'filtered' and id = 1", "1"),
        ("select has_role(x) from (values ('analyst')) v(x)", "true"),
    ] {
        assert_eq!(ask(&house, &filtered_rows(), sql).await, Ok(vec![seen.to_owned()]), "{sql}");
    }
    assert_eq!(ask(&house, &admin(), "select current_user()").await, Ok(vec!["root".to_owned()]));
    let planned = house.engine.plan(statement("select current_user() as who"), &masked_column()).await.unwrap();
    assert_eq!(planned.schema.field(0).name(), "who");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_may_group_by_who_they_are() {
    let house = lake().await;
    for (select, group, seen) in [
        ("current_user()", "current_user()", vec!["filtered 2"]),
        ("grouping(current_user()), current_user()", "rollup (current_user())", vec!["0 filtered 2", "1 NULL 2"]),
        (
            "grouping(has_role('analyst'), x), has_role('analyst'), x",
            "cube (has_role('analyst'), x)",
            vec!["0 true 1 1", "0 true 2 1", "1 true NULL 2", "2 NULL 1 1", "2 NULL 2 1", "3 NULL NULL 2"],
        ),
        (
            "grouping(current_user(), has_role('root')), current_user(), has_role('root')",
            "grouping sets ((current_user()), (has_role('root')), ())",
            vec!["1 filtered NULL 2", "2 NULL false 2", "3 NULL NULL 2"],
        ),
    ] {
        let sql = format!("select {select}, count(*) from (values (1), (2)) v(x) group by {group}");
        let mut rows = ask(&house, &filtered_rows(), &sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.sort();
        assert_eq!(rows, seen, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filters_today_is_not_moved_by_a_time_zone() {
    let house = lake().await;
    // The day changes at another moment in each zone; the filter's does not.
    let ann = filtered("cast(now() as date) = date '2026-06-01' and to_char(now(), '%H') = '23'");
    let now = chrono::DateTime::parse_from_rfc3339("2026-06-01T23:30:00Z").unwrap().to_utc();
    for zone in ["UTC", "+14:00", "-12:00", "Europe/Vienna"] {
        let options = StatementOptions { time_zone: zone.to_owned(), now: Some(now), ..StatementOptions::default() };
        let sql = lakegate::query::Statement { options, ..statement("select count(*) from ops.people") };
        let planned = house.engine.plan(sql, &ann).await.unwrap();
        let rows = house.engine.execute(&planned, std::time::Duration::from_secs(60)).await.unwrap();
        let batches: Vec<_> = futures::TryStreamExt::try_collect(rows).await.unwrap();
        assert_eq!(crate::queries::house::text(&batches), ["4"], "{zone}");
    }
}
