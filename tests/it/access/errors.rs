//! What is not there and what may not be seen are told in the same words.

use super::world::{admin, ask, denied_table, filtered, lake, masked, principal};
use crate::queries::house::House;
use lakegate::access::{Grant, Grantee, Policy, Scope};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_may_not_be_seen_is_not_there() {
    let house = lake().await;
    let ann = denied_table();
    for shape in [
        "select * from {}",
        "select 1 from {} where 1 = 0",
        "select count(*) from {} version as of 0",
        "select count(*) from {} version as of 99",
        "select count(*) from {} timestamp as of '2001-01-01'",
        "select nothing from {}",
        "select * from pub.numbers where n in (select id from {})",
        "with t as (select * from {}) select 1",
        "describe {}",
        "show columns from {}",
        "explain select * from {}",
        "explain analyze select * from {}",
        "select 1 from {} a, {} b",
        "insert into {} values (1)",
        "drop table {}",
    ] {
        for (hidden, nothing) in [("ops.people", "ops.elpoep"), ("payroll.wages", "pyarlol.wgaes")] {
            let told = ask(&house, &ann, &shape.replace("{}", hidden)).await.unwrap_err();
            let of_nothing = ask(&house, &ann, &shape.replace("{}", nothing)).await.unwrap_err();
            assert_eq!(told.replace(hidden, "{}"), of_nothing.replace(nothing, "{}"), "{shape}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_name_only_what_is_seen() {
    let house = lake().await;
    for sql in
        ["select 1 from ops.poeple", "select 1 from ops.peopl", "select 1 from people", "select 1 from payrol.wages"]
    {
        let told = ask(&house, &denied_table(), sql).await.unwrap_err();
        assert!(!told.contains("people`?") && !told.contains("payroll"), "{sql}: {told}");
    }
    let told = ask(&house, &admin(), "select 1 from ops.poeple").await.unwrap_err();
    assert!(told.contains("did you mean `ops.people`?"), "{told}");
    let told = ask(&house, &denied_table(), "select 1 from pub.number").await.unwrap_err();
    assert!(told.contains("did you mean `pub.numbers`?"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_schema_is_not_named_to_those_who_see_nothing_of_it() {
    let house = House::new(&["ops.people"]).await;
    house.load("ops.people", &[("id", "bigint")], "select 1 as id").await;
    let told = ask(&house, &denied_table(), "select * from people").await.unwrap_err();
    let of_nothing = ask(&house, &denied_table(), "select * from elpoep").await.unwrap_err();
    assert_eq!(told.replace("people", ""), of_nothing.replace("elpoep", ""));
    assert!(!told.contains("ops"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_write_or_sees_no_column_that_is_there_reads_nothing() {
    let house = lake().await;
    let on = || Scope::Table("ops.people".parse().unwrap());
    let write = Grant { to: Grantee::Everyone, on: on(), columns: None, read: false, write: true };
    let columns = Some(["gone".to_owned()].into());
    let gone = Grant { to: Grantee::Everyone, on: on(), columns, read: true, write: false };
    for grant in [write, gone] {
        let ann = principal("writer", vec![grant], Policy::default());
        let told = ask(&house, &ann, "select count(*) from ops.people").await.unwrap_err();
        let of_nothing = ask(&house, &ann, "select count(*) from ops.elpoep").await.unwrap_err();
        assert_eq!(told.replace("ops.people", ""), of_nothing.replace("ops.elpoep", ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_or_mask_that_fails_tells_no_value_and_one_that_cannot_be_used_shows_nothing() {
    let house = lake().await;
    let failing = "permission_denied: a row filter or mask of ops.people failed; tell the administrator";
    for (access, told) in [
        (filtered("cast(secret as int) > 0"), failing),
        (filtered("100 / salary > 0"), failing),
        (masked(&[("salary", "cast(secret as bigint)")]), failing),
        (
            filtered("nothing = 1"),
            "permission_denied: the row filter of ops.people cannot be used; tell the administrator",
        ),
        (filtered("name"), "permission_denied: the row filter of ops.people cannot be used; tell the administrator"),
        (
            masked(&[("gone", "null")]),
            "permission_denied: the mask of ops.people.gone cannot be used; tell the administrator",
        ),
        (
            masked(&[("secret", "(select max(secret) from ops.people)")]),
            "permission_denied: the mask of ops.people.secret cannot be used; tell the administrator",
        ),
        (
            masked(&[("id", "address")]),
            "permission_denied: the mask of ops.people.id cannot be used; tell the administrator",
        ),
    ] {
        let found = ask(&house, &access, "select * from ops.people").await;
        assert_eq!(found.unwrap_err(), told);
    }
}
