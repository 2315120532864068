//! What is told of tables that people made, and to whom: in `system.*` and in errors.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use futures::{StreamExt, TryStreamExt};
use lakegate::access::{Access, Grant, Grantee, Grants, Scope};
use lakegate::error::ErrorKind;
use lakegate::query::{ChangeValues, IfExisting, IfMissing, IncomingRows, Ingestion, QueryEngine, QueryError};

use super::place::{SOON, refusal, somebody};
use crate::queries::house::{House, everything, statement, text};

/// Ann and Eve may make tables, Cleo may read them, Nell a column of one; Bob may do nothing.
fn who(name: &str) -> Access {
    let grant =
        |to: &str, on: Scope, read, write| Grant { to: Grantee::User(to.to_owned()), on, columns: None, read, write };
    let results = || Scope::Schema("results".to_owned());
    let run = Some(["run".to_owned()].into());
    let grants = vec![
        grant("ann", results(), false, true),
        grant("eve", results(), false, true),
        grant("cleo", results(), true, false),
        Grant { columns: run, ..grant("nell", Scope::Table("results.scores".parse().unwrap()), true, false) },
    ];
    somebody(name, Grants { grants, ..Grants::default() })
}

async fn change(house: &House, who: &Access, sql: &str) {
    let planned = house.engine.plan(statement(sql), who).await.unwrap();
    house.engine.change(&planned, ChangeValues::Planned, SOON).await.unwrap();
}

async fn ask(house: &House, who: &Access, sql: &str) -> Result<Vec<String>, QueryError> {
    let planned = house.engine.plan(statement(sql), who).await?;
    let stream = house.engine.execute(&planned, Duration::from_secs(60)).await?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(QueryError::from)?;
    Ok(text(&batches))
}

async fn told(house: &House, who: &Access, sql: &str) -> Vec<String> {
    ask(house, who, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_for_those_who_may_see_them() {
    let house = House::new(&["pub.numbers"]).await;
    change(&house, &who("ann"), "create table scores (run bigint, f1 double, primary key (run))").await;
    change(&house, &who("ann"), "insert into scores values (1, 0.5), (2, 0.25)").await;
    let sql = "select table_name, rows, key_columns, mode from system.tables where table_schema = 'results'";
    for (access, seen) in [
        (everything(), &["scores 2 run NULL"][..]),
        (who("ann"), &["scores 2 run NULL"]),
        (who("cleo"), &["scores 2 run NULL"]),
        (who("nell"), &["scores NULL run NULL"]),
        (who("bob"), &[]),
        (who("eve"), &[]),
    ] {
        assert_eq!(told(&house, &access, sql).await, seen, "{:?}", access.principal());
    }
    let all = "select table_schema, table_name from system.tables";
    assert_eq!(told(&house, &everything(), all).await, ["pub numbers", "results scores"]);
    change(&house, &who("ann"), "drop table scores").await;
    for access in [everything(), who("ann"), who("cleo")] {
        assert!(told(&house, &access, sql).await.is_empty(), "it is dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_rejects_are_told_to_those_who_may_see_the_whole_table() {
    let house = House::new(&["pub.numbers"]).await;
    change(&house, &who("ann"), "create table scores as select 1 as run").await;
    house.load("results.scores", &[("run", "bigint")], "select 2 as run").await;
    for (access, seen) in [
        (everything(), true),
        (who("ann"), true),
        (who("cleo"), true),
        (who("nell"), false),
        (who("bob"), false),
        (who("eve"), false),
    ] {
        let files = told(&house, &access, "select path, status from system.files where table_name = 'scores'").await;
        let rejects = told(&house, &access, "select raw from system.rejects").await;
        let (file, reject) =
            if seen { (&["/in/results.scores.csv loaded"][..], &["x,1"][..]) } else { Default::default() };
        assert_eq!(files, file, "{:?}", access.principal());
        assert_eq!(rejects, reject, "{:?}", access.principal());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_what_was_done_to_the_table_and_not_to_one_of_its_name_before() {
    let house = House::new(&["pub.numbers"]).await;
    let sql = "select status, statement, written_by from system.loads where table_name = 'scores' order by started_at";
    change(&house, &who("ann"), "create table scores as select 1 as run").await;
    change(&house, &who("eve"), "create table other as select 1 as run").await;
    change(&house, &everything(), "insert into scores values (2)").await;
    let first = ["committed create table ann", "committed insert operator"];
    for (access, seen) in [
        (everything(), &first[..]),
        (who("ann"), &first),
        (who("cleo"), &first),
        (who("nell"), &["committed NULL NULL"; 2]),
        (who("bob"), &[]),
    ] {
        assert_eq!(told(&house, &access, sql).await, seen, "{:?}", access.principal());
    }

    change(&house, &who("ann"), "drop table scores").await;
    change(&house, &who("eve"), "create table scores as select 1 as run").await;
    change(&house, &everything(), "insert into scores values (2)").await;
    assert_eq!(
        told(&house, &who("eve"), sql).await,
        ["committed create table eve", "committed insert operator"],
        "what Ann did is none of hers"
    );
    assert_eq!(told(&house, &who("ann"), sql).await, [""; 0], "nor the new one Ann's");
    assert_eq!(told(&house, &who("cleo"), sql).await.len(), 5, "who may read whatever bears the name sees all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_name_is_a_hint_to_those_only_who_may_see_the_table() {
    let house = House::new(&["pub.numbers"]).await;
    change(&house, &who("ann"), "create table scores as select 1 as run").await;
    let hint = async |access: Access, sql: &str| {
        let (kind, message) = refusal(ask(&house, &access, sql).await, sql);
        assert_eq!(kind, ErrorKind::NotFound, "{message}");
        message
    };
    for sql in ["select * from results.socres", "select * from socres", "select * from resuls.scores"] {
        for name in ["ann", "cleo", "nell"] {
            let message = hint(who(name), sql).await;
            assert!(message.contains("did you mean `results.scores`?"), "{name}: {message}");
        }
        for name in ["bob", "eve"] {
            let message = hint(who(name), sql).await;
            assert!(!message.contains("results.scores`"), "{name}: {message}");
        }
    }
    let message = hint(who("bob"), "select * from scores").await;
    assert!(!message.contains("results"), "what is not seen is no hint to itself: {message}");
    change(&house, &who("ann"), "drop table scores").await;
    let message = hint(who("ann"), "select * from results.socres").await;
    assert!(!message.contains("results.scores`"), "it is dropped: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_name_is_a_hint_to_those_who_change_a_table_as_to_those_who_read_it() {
    let house = House::new(&["pub.numbers"]).await;
    change(&house, &who("ann"), "create table scores as select 1 as run").await;
    for sql in [
        "insert into results.socres values (1)",
        "insert into socres values (1)",
        "update socres set run = 2",
        "delete from results.socres",
        "drop table socres",
        "alter table socres add column more int",
    ] {
        for (name, hinted) in [("ann", true), ("eve", false), ("bob", false)] {
            let (kind, message) = refusal(house.engine.plan(statement(sql), &who(name)).await.map(drop), sql);
            assert_eq!(kind, ErrorKind::NotFound, "{name}: {message}");
            assert_eq!(message.contains("did you mean `results.scores`?"), hinted, "{name}, {sql}: {message}");
        }
    }
    for (name, hinted) in [("ann", true), ("eve", false)] {
        let (missing, existing) = (IfMissing::Fail, IfExisting::Append);
        let ingestion = Ingestion { schema: None, table: "socres".to_owned(), missing, existing };
        let rows = IncomingRows { schema: Arc::new(Schema::empty()), batches: futures::stream::empty().boxed() };
        let (kind, message) = refusal(house.engine.ingest(ingestion, rows, &who(name), SOON).await, name);
        assert_eq!(kind, ErrorKind::NotFound, "{name}: {message}");
        assert_eq!(message.contains("did you mean `results.scores`?"), hinted, "{name}: {message}");
    }
}
