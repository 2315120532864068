//! Attacks by name: what people have written, elsewhere, to learn of rows and values they may not see.

use std::time::Duration;

use datafusion::common::ScalarValue;
use futures::StreamExt;
use lakegate::query::QueryEngine;

use super::world::{
    admin, allowed, ask, ask_with, denied_column, denied_table, filtered, filtered_rows, lake, masked, masked_column,
};
use crate::queries::house::{House, statement};
use lakegate::access::Access;

/// What must never come to light, however it is asked for.
fn assert_nothing_leaks(sql: &str, found: &Result<Vec<String>, String>, hidden: &[&str]) {
    let text = text_of(found);
    for marker in hidden {
        assert!(!text.contains(marker), "{sql}\ntold of `{marker}`: {text}");
    }
}

fn text_of(found: &Result<Vec<String>, String>) -> String {
    match found {
        Ok(rows) => rows.join("\n"),
        Err(error) => error.clone(),
    }
}

async fn none_leak(house: &House, access: &Access, hidden: &[&str], statements: &[&str]) {
    for sql in statements {
        let found = ask(house, access, sql).await;
        assert_nothing_leaks(sql, &found, hidden);
    }
}

async fn gives(house: &House, access: &Access, sql: &str, rows: &[&str]) {
    let found = ask(house, access, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(found, rows, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn casts_divisions_and_functions_that_fail_run_on_no_hidden_row() {
    let house = lake().await;
    let ann = filtered_rows();
    // Each fails on a row of the south, and only there: it would print the row, or tell that there is one.
    for condition in [
        "cast(replace(replace(name, 'ann', '1'), 'bob', '2') as int) > 0",
        "100 / salary >= 0",
        "case when region = 'south' then cast(name as int) else 1 end = 1",
        "coalesce(nullif(region, 'south'), cast(cast(name as int) as varchar)) = 'north'",
        "cast(case when id > 2 then name else '1' end as int) = 1",
        "sqrt(salary) * 0 = 0 and 7 % salary >= 0",
    ] {
        for sql in [
            format!("select count(*) from ops.people where {condition}"),
            format!("select count(*) filter (where {condition}) from ops.people"),
            format!("select sum(case when {condition} then 1 else 0 end) from ops.people"),
            format!("select count(*) from (select * from ops.people order by ({condition})) limit 5"),
            format!("select count(*) from ops.people a join pub.numbers b on a.id = b.n and {condition}"),
            format!(
                "select count(*) from pub.numbers where exists (select 1 from ops.people where id = n and {condition})"
            ),
            format!(
                "select max(n) from (select count(*) n from ops.people group by ({condition}) having count(*) > 0)"
            ),
            format!("select count(*) from (select ({condition}) c from ops.people) where c is not null"),
            format!("select count(*) over () from ops.people where {condition} limit 1"),
        ] {
            let seen = ask(&house, &ann, &sql).await;
            assert_nothing_leaks(&sql, &seen, &["hiddenrow", "division"]);
            assert!(seen.is_ok(), "{sql}: {seen:?}");
        }
    }
    // The same statement fails for those who see the row.
    let error = ask(&house, &admin(), "select * from ops.people where 100 / salary >= 0").await.unwrap_err();
    assert!(error.contains("division"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_extremes_are_those_of_the_rows_that_are_seen() {
    let house = lake().await;
    let ann = filtered_rows();
    gives(&house, &ann, "select count(*) from ops.people", &["2"]).await;
    gives(&house, &ann, "select count(1), count(id), min(id), max(id), max(salary) from ops.people", &["2 2 1 2 200"])
        .await;
    gives(&house, &ann, "select count(*) from ops.people where true", &["2"]).await;
    gives(&house, &ann, "select count(distinct region) from ops.people", &["1"]).await;
    gives(&house, &ann, "select approx_distinct(region) from ops.people", &["1"]).await;
    gives(&house, &ann, "select region, count(*) from ops.people group by region", &["north 2"]).await;
    gives(&house, &ann, "select id from ops.people order by salary desc limit 1", &["2"]).await;
    gives(&house, &ann, "select id from ops.people where id >= 1 order by id limit 10", &["1", "2"]).await;
    gives(&house, &ann, "select count(*) from (select * from ops.people limit 3)", &["2"]).await;
    gives(&house, &ann, "select count(*) from (select * from ops.people where salary + 0 > 150 limit 1)", &["1"]).await;
    gives(&house, &ann, "select id from ops.people where id in (2, 3, 4)", &["2"]).await;
    gives(&house, &ann, "select count(*) from ops.people version as of 1", &["2"]).await;
    gives(&house, &ann, "select count(*) from ops.people version as of 0", &["2"]).await;
    let south = filtered("region = 'south'");
    gives(&house, &south, "select count(*) from ops.people version as of 0", &["0"]).await;
    gives(&house, &south, "select count(*) from ops.people", &["2"]).await;
    // Those who see everything count as before.
    gives(&house, &allowed(), "select count(*), max(salary) from ops.people", &["4 999999"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_subqueries_meet_only_what_is_seen() {
    let house = lake().await;
    let ann = filtered_rows();
    for sql in [
        "select count(*) from ops.people a join ops.people b on a.salary >= b.salary or a.id <> b.id",
        "select count(*) from ops.people a full join pub.numbers b on a.id = b.n where a.id > 2",
        "select count(*) from pub.numbers where n in (select id from ops.people) and n > 2",
        "select count(*) from pub.numbers where n > 2 and exists (select 1 from ops.people where id = n)",
        "select count(*) from pub.numbers a where n > 2 and (select count(*) from ops.people where id = a.n) > 0",
        "select count(*) from pub.numbers b join ops.people a on a.id = b.n where b.n in (3, 4)",
        "select count(*) from (select id from ops.people intersect select n from pub.numbers where n > 2)",
        "select count(*) from (select id from ops.people union all select id from ops.people) where id > 2",
    ] {
        let found = ask(&house, &ann, sql).await.unwrap();
        let expected = if sql.contains("a.salary >=") { "4" } else { "0" };
        assert_eq!(found, [expected], "{sql}");
    }
    // A filter that comes up while the join runs does not reach below either: the answer is the same, and the plan says so.
    let sql = "explain analyze select a.id, a.name from ops.people a join pub.numbers b on a.id = b.n where b.n > 2";
    let plan = ask(&house, &ann, sql).await.unwrap().join("\n");
    let leaf = plan.lines().find(|line| line.contains("SealedExec")).unwrap();
    assert!(!leaf.contains("filter") && !leaf.contains("predicate"), "{leaf}");
    // A query that reads itself runs what is below the seal several times.
    let recursive = "with recursive n as (select 1 as i union all select i + 1 from n join ops.people p on p.id = n.i) \
                     select count(*) from n";
    gives(&house, &ann, recursive, &["3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masked_column_is_its_mask_in_every_place() {
    let house = lake().await;
    let ann = masked_column();
    let hidden = ["secretval", "hiddenrow-tag"];
    for (sql, rows) in [
        ("select secret from ops.people order by id", vec!["***"; 4]),
        ("select distinct secret from ops.people", vec!["***"]),
        ("select count(distinct secret), min(secret), max(secret) from ops.people", vec!["1 *** ***"]),
        ("select secret, count(*) from ops.people group by secret", vec!["*** 4"]),
        ("select count(*) from ops.people where secret = 'secretval-1'", vec!["0"]),
        ("select count(*) from ops.people where secret like 'secretval%'", vec!["0"]),
        ("select count(*) from ops.people where secret ~ '^secret'", vec!["0"]),
        ("select count(*) from ops.people where secret > 'a'", vec!["0"]),
        ("select count(*) from ops.people where secret is null", vec!["0"]),
        ("select count(*) from ops.people where secret in ('secretval-1', 'x')", vec!["0"]),
        ("select count(*) from ops.people where secret = '***'", vec!["4"]),
        ("select row_number() over (order by secret, id) from ops.people where id = 4", vec!["1"]),
        ("select length(secret) from ops.people limit 1", vec!["3"]),
        ("select count(*) from ops.people a join ops.people b on a.secret = b.secret", vec!["16"]),
        ("select count(*) from pub.numbers where 'secretval-1' in (select secret from ops.people)", vec!["0"]),
        ("select first_value(secret order by secret desc) from ops.people", vec!["***"]),
        ("select string_agg(secret, ',') from ops.people", vec!["***,***,***,***"]),
        ("select address['street'], address.city from ops.people where id = 1", vec!["*** Oslo"]),
        ("select count(*) from ops.people where address['street'] = 'secretval-street'", vec!["0"]),
        ("select count(*) from (select unnest(tags) from ops.people)", vec!["0"]),
        ("select tags from ops.people where id = 1", vec!["NULL"]),
        ("select secret from ops.people version as of 0 limit 1", vec!["***"]),
        (
            "select secret from ops.people union select codename from (values ('x')) v(codename) order by 1",
            vec!["***", "x"],
        ),
    ] {
        let found = ask(&house, &ann, sql).await;
        assert_nothing_leaks(sql, &found, &hidden);
        assert_eq!(found.unwrap(), rows, "{sql}");
    }
    // Sorting and its limit are of what is seen: no order of hidden values shows.
    let by_rank = masked(&[("salary", "0")]);
    let sql = "select count(*) from (select id from ops.people order by salary desc, id limit 1) where id = 1";
    gives(&house, &by_rank, sql, &["1"]).await;
    none_leak(
        &house,
        &ann,
        &hidden,
        &[
            "select cast(secret as int) from ops.people",
            "select count(*) from ops.people where cast(secret as int) > 0",
            "select * from ops.people order by cast(secret as int)",
            "select people from ops.people",
            "select p from ops.people p",
            "select * from ops.people where secret = ops.people",
            "explain verbose select * from ops.people where secret = 'x'",
            "explain analyze select * from ops.people where secret = 'x'",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masks_own_type_is_the_columns_and_a_mask_may_look_at_what_is_hidden() {
    let house = lake().await;
    let ann = masked(&[("salary", "(salary / 100) * 100"), ("secret", "left(secret, 6) || right(name, 1)")]);
    gives(&house, &ann, "select salary, secret from ops.people where id = 1", &["100 secretn"]).await;
    let planned = house.engine.plan(statement("select salary, secret from ops.people"), &ann).await.unwrap();
    let kinds: Vec<_> = planned.schema.fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Int64", "Utf8"]);
    let by_role = masked(&[("secret", "case when has_role('analyst') then current_user() else secret end")]);
    gives(&house, &by_role, "select distinct secret from ops.people", &["masked"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_column_can_be_named_nowhere() {
    let house = lake().await;
    let ann = denied_column();
    gives(&house, &ann, "select * from ops.people where id = 1", &["1 ann north 100"]).await;
    let shapes = [
        "select {} from ops.people",
        "select p.{} from ops.people p",
        "select \"{}\" from ops.people",
        "select id from ops.people where {} = 'x'",
        "select id from ops.people order by {}",
        "select count(*) from ops.people group by {}",
        "select id from ops.people having max({}) > 'a'",
        "select a.id from ops.people a join ops.people b on a.{} = b.{}",
        "select a.id from ops.people a join ops.people b using ({})",
        "select sum(id) over (partition by {}) from ops.people",
        "select n from pub.numbers where n in (select id from ops.people where {} = 'x')",
        "select n from pub.numbers where exists (select 1 from ops.people where ops.people.{} = 'x')",
        "select * exclude ({}) from ops.people",
        "select * replace (1 as {}) from ops.people order by 1",
        "select {}['street'] from ops.people",
        "select unnest({}) from ops.people",
        "select id from ops.people union select {} from ops.people",
        "with t as (select * from ops.people) select {} from t",
        "select x.{} from ops.people as x(id, name, region, salary)",
        "select {} from ops.people version as of 0",
        "explain select {} from ops.people",
        "select id from ops.people where {} = $1",
    ];
    for shape in shapes {
        for hidden in ["secret", "address", "tags"] {
            let nothing: String = hidden.chars().rev().collect();
            let told = text_of(&ask(&house, &ann, &shape.replace("{}", hidden)).await);
            let of_nothing = text_of(&ask(&house, &ann, &shape.replace("{}", &nothing)).await);
            assert!(!told.contains("secretval"), "{shape}: {told}");
            let told = without_hint(&told.replace(hidden, "{}"));
            assert_eq!(told, without_hint(&of_nothing.replace(&nothing, "{}")), "{shape}");
        }
    }
}

/// An error without the nearest name, which is nearest to what was written: each is one that is seen.
fn without_hint(told: &str) -> String {
    let Some((before, after)) = told.split_once("Did you mean '") else { return told.to_owned() };
    let (hint, after) = after.split_once("'?").unwrap();
    let column = hint.rsplit('.').next().unwrap();
    assert!(["id", "name", "region", "salary", "n"].contains(&column), "{told}");
    format!("{before}{after}")
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_chance_stay_above_the_seal() {
    let house = lake().await;
    let ann = filtered_rows();
    for sql in [
        "select count(*) from ops.people where random() >= 0",
        "select count(*) from ops.people where now() > timestamp '2000-01-01' and random() < 2",
        "select count(*) from ops.people where uuid() is not null",
    ] {
        gives(&house, &ann, sql, &["2"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_and_measurements_tell_nothing_from_below() {
    let house = lake().await;
    for (access, hidden) in [
        (filtered("region = 'north' and salary < 777777"), &["hiddenrow", "777777", "north"][..]),
        (denied_column(), &["secret", "address", "tags"]),
        (masked_column(), &["secretval", "***", "named_struct"]),
    ] {
        for kind in [
            "explain",
            "explain verbose",
            "explain analyze",
            "explain analyze verbose",
            "explain format tree",
            "explain format indent",
            "explain format pgjson",
            "explain format graphviz",
        ] {
            for sql in [
                "select * from ops.people where id > 1",
                "select count(*) from ops.people",
                "select max(id) from ops.people order by 1",
            ] {
                let plan = ask(&house, &access, &format!("{kind} {sql}")).await;
                let plan = text_of(&plan);
                for marker in hidden.iter().chain(&[".parquet", "DataSourceExec", "pruned", "bytes_scanned"]) {
                    assert!(!plan.contains(marker), "{kind} {sql}: `{marker}` in {plan}");
                }
            }
        }
    }
    let plan = ask(&house, &filtered_rows(), "explain analyze select * from ops.people").await.unwrap().join("\n");
    assert!(plan.contains("output_rows=2") && plan.contains("SealedExec"), "{plan}");
    // Where everything is seen nothing is wrapped.
    let plan = ask(&house, &allowed(), "explain select * from ops.people").await.unwrap().join("\n");
    assert!(!plan.contains("SealedExec") && plan.contains("DataSourceExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn predicates_that_cannot_fail_prune_files_below_the_seal() {
    let house = lake().await;
    let ann = filtered("salary >= 0");
    for (sql, expected) in [
        ("select name from ops.people where id = 1", vec!["ann"]),
        ("select name from ops.people where id between 1 and 2 and region = 'north' order by id", vec!["ann", "bob"]),
        ("select count(*) from ops.people where name like 'hiddenrow%' and not region = 'north'", vec!["2"]),
        ("select id from ops.people where id = 1 or name is null", vec!["1"]),
    ] {
        gives(&house, &ann, sql, &expected).await;
        let plan = ask(&house, &ann, &format!("explain {sql}")).await.unwrap().join("\n");
        assert!(!plan.contains("FilterExec"), "what cannot fail runs below: {plan}");
    }
    let plan = ask(&house, &ann, "explain select id from ops.people where id + 1 = 2").await.unwrap().join("\n");
    assert!(plan.contains("FilterExec"), "what can fail runs above: {plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_other_spellings_are_the_same_table() {
    let house = lake().await;
    for sql in [
        "select count(*) from OPS.People",
        "select count(*) from \"ops\".\"people\"",
        "select count(*) from lakegate.ops.people",
        "select count(*) from \"lakegate\".OPS.\"people\"",
        "select count(*) from ops.people as \"ops.people\"",
        "with people as (select * from ops.people) select count(*) from people",
        "with pub as (select 1) select count(*) from ops.people",
        "select count(*) from (select * from ops.people tables)",
    ] {
        gives(&house, &filtered_rows(), sql, &["2"]).await;
        let denied = ask(&house, &denied_table(), sql).await.unwrap_err();
        assert!(denied.starts_with("not_found: there is no"), "{sql}: {denied}");
    }
    for sql in [
        "table ops.people",
        "select * from \"OPS\".\"People\"",
        "select * from \"ops.people\"",
        "select * from \"ops\".\"people@v0\"",
    ] {
        assert!(ask(&house, &filtered_rows(), sql).await.is_err(), "{sql}");
    }
    gives(&house, &denied_table(), "with people as (select 7 as x) select x from people", &["7"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_sealed_out_like_literals() {
    let house = lake().await;
    let sql = "select count(*) from ops.people where name = $1 or $2 / salary > 0";
    let values = vec![ScalarValue::Utf8(Some("ann".to_owned())), ScalarValue::Int64(Some(1000))];
    assert_eq!(ask_with(&house, &filtered_rows(), sql, values).await.unwrap(), ["2"]);
    let values = vec![ScalarValue::Utf8(Some("hiddenrow-cleo".to_owned()))];
    let found = ask_with(&house, &filtered_rows(), "select count(*) from ops.people where name = $1", values).await;
    assert_eq!(found.unwrap(), ["0"]);
    let values = vec![ScalarValue::Utf8(Some("secretval-1".to_owned()))];
    let found = ask_with(&house, &masked_column(), "select count(*) from ops.people where secret = $1", values).await;
    assert_eq!(found.unwrap(), ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_describe_and_listings_show_what_is_seen() {
    let house = lake().await;
    let sampled = "ops.people tablesample bernoulli (100) repeatable (7)";
    for sql in [format!("select * from {sampled}"), "select * from ops.people for update".to_owned()] {
        let found = ask(&house, &filtered_rows(), &sql).await;
        assert_nothing_leaks(&sql, &found, &["hiddenrow"]);
    }
    // A sample is drawn from what is seen: the seal is below.
    gives(&house, &filtered_rows(), &format!("select count(*) from {sampled}"), &["2"]).await;
    let plan = ask(&house, &filtered_rows(), &format!("explain select id from {sampled}")).await.unwrap().join("\n");
    let (above, _) = plan.rsplit_once("SealedExec").unwrap();
    assert!(above.contains("in_sample"), "{plan}");
    let masked = format!("select count(*) from {sampled} where secret = 'secretval-1'");
    gives(&house, &masked_column(), &masked, &["0"]).await;
    assert!(ask(&house, &denied_table(), &format!("select * from {sampled}")).await.unwrap_err().contains("not_found"));
    let columns = ["describe ops.people", "show columns from ops.people", "describe select * from ops.people"];
    for sql in columns {
        let found = ask(&house, &denied_column(), sql).await;
        assert_nothing_leaks(sql, &found, &["secret", "address", "tags"]);
        assert!(found.unwrap().iter().any(|row| row.contains("salary")), "{sql}");
        let denied = ask(&house, &denied_table(), sql).await;
        assert!(denied.is_err(), "{sql}: {denied:?}");
    }
    let listed =
        "select table_schema, table_name, column_name from information_schema.columns where table_schema <> 'system'";
    gives(&house, &denied_table(), listed, &["pub numbers n"]).await;
    let joined = "select count(*) from information_schema.columns c join information_schema.tables t \
                  on c.table_name = t.table_name where c.column_name in ('secret', 'codeword') or t.table_schema = 'payroll'";
    gives(&house, &denied_column(), joined, &["0"]).await;
    gives(
        &house,
        &denied_column(),
        "select count(*) from information_schema.schemata where schema_name = 'payroll'",
        &["0"],
    )
    .await;
    gives(&house, &denied_table(), "select table_schema, table_name from system.tables", &["pub numbers"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_tables_tell_of_tables_that_are_seen_whole() {
    let house = lake().await;
    let people = "where table_name = 'people'";
    for access in [denied_column(), filtered_rows(), masked_column()] {
        for (sql, expected) in [
            (format!("select rows, bytes, files, key_columns from system.tables {people}"), "NULL NULL NULL"),
            (
                format!("select status, rows_read, bytes_read, position, error from system.loads {people}"),
                "failed NULL NULL NULL NULL",
            ),
        ] {
            let found = ask(&house, &access, &sql).await.unwrap();
            assert!(found.len() == 1 && found[0].starts_with(expected), "{sql}: {found:?}");
        }
        for table in ["files", "rejects", "verifications"] {
            gives(&house, &access, &format!("select count(*) from system.{table} {people}"), &["0"]).await;
        }
    }
    gives(&house, &allowed(), &format!("select rows, key_columns from system.tables {people}"), &["4 id, secret"])
        .await;
    gives(&house, &allowed(), &format!("select count(*) from system.rejects {people}"), &["2"]).await;
    for table in ["tables", "loads", "files", "rejects", "verifications"] {
        let sql = format!("select * from system.{table}");
        let found = ask(&house, &denied_table(), &sql).await;
        assert_nothing_leaks(&sql, &found, &["people", "wages", "payroll"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_scan_stops_when_nobody_wants_its_rows() {
    let house = lake().await;
    let endless = "select count(*) from ops.people a cross join generate_series(1, 3000000) b(x) \
                   cross join generate_series(1, 3000000) c(y) where a.id * x * y < 0";
    let planned = house.engine.plan(statement(endless), &filtered_rows()).await.unwrap();
    let mut stream = house.engine.execute(&planned, Duration::from_secs(600)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_err());
    drop(stream);
    let stopped = async {
        while house.engine.running_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("nobody wants the rows any more");
}
