//! Rejects, the write budget, groups, columns that change, and loads that fail beside others that do not.

use lakegate::error::ErrorKind;
use lakegate::etl::{Silent, SyncOptions};
use lakegate::model::TableName;
use lakegate::runtime::shutdown::Shutdown;

use super::*;

use LoadStatus::{Committed, Deferred, Failed, Unchanged};

const TYPED: &str = "[[columns]]\nname = \"id\"\ntype = \"int\"\n[[columns]]\nname = \"v\"\ntype = \"string\"\n";

fn typed(more: &str) -> String {
    format!("{}{TYPED}", definition("append", more))
}

#[tokio::test]
async fn too_many_rejects_fail_the_load_and_change_nothing() {
    let team = Team::local();
    team.define("s.t", &typed("max_rejects = 0.5"));
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    sync(&team, Committed).await;
    team.drop_file("in/b.csv", "id,v\n2,b\nx,secret words\ny,z\n");
    let outcome = sync(&team, Failed).await;
    let error = outcome.record.error.as_deref().unwrap();
    assert!(error.contains("2 of 3 rows") && error.contains("50.0 %") && error.contains("max_rejects"), "{error}");
    assert!(error.contains("in/b.csv:3") && error.contains("column id"), "where the first stands: {error}");
    assert!(!error.contains("secret"), "no values: {error}");
    assert_eq!(outcome.record.error_kind, Some(ErrorKind::InvalidInput));
    assert_eq!(team.rows("s.t").await, ["1|a"]);
    let (.., lake, _, _) = team.open().await;
    let chain = lake.table(&"s.t".parse().unwrap()).chain().await.unwrap();
    assert_eq!(chain.files().len(), 1, "the file is not known");

    team.define("s.t", &typed("max_rejects = 0.7"));
    let outcome = sync(&team, Committed).await;
    assert_eq!((outcome.record.rows_read, outcome.record.rows_written, outcome.record.rows_rejected), (3, 1, 2));
    assert_eq!(team.rows("s.t").await, ["1|a", "2|b"]);
}

#[tokio::test]
async fn a_change_that_would_rewrite_too_much_waits_for_more() {
    let team = team("upsert", "max_rewrite = 2\nmax_lag = \"2h\"");
    let many: Vec<(i64, &str)> = (0..20_000).map(|id| (id, "some text that fills the file")).collect();
    team.drop_file("in/a.csv", csv(&many));
    sync(&team, Committed).await;
    team.drop_file("in/b.csv", csv(&[(7, "x")]));
    let outcome = sync(&team, Deferred).await;
    assert!(outcome.note.unwrap().contains("--now"));
    assert_eq!(team.rows("s.t").await.len(), 20_000);
    let options = SyncOptions { now: true, ..SyncOptions::default() };
    let report = team.sync_with(&options).await;
    assert_eq!(report.tables[0].record.status, Committed);
    assert!(team.rows("s.t").await.contains(&"7|x".to_owned()));

    team.drop_file("in/c.csv", csv(&[(8, "y")]));
    sync(&team, Deferred).await;
    team.define("s.t", &definition("upsert", "max_rewrite = 2\nmax_lag = \"10m\""));
    sync(&team, Committed).await;
    assert!(team.rows("s.t").await.contains(&"8|y".to_owned()), "the file has waited for an hour");
}

#[tokio::test]
async fn a_group_is_published_when_all_its_members_are_loaded() {
    let team = Team::local();
    for table in ["s.one", "s.two"] {
        let folder = table.replace('.', "/");
        let definition = format!("[source]\nfiles = \"{folder}/*.csv\"\n[load]\ngroup = \"pair\"\n{TYPED}");
        team.define(table, &definition);
        team.drop_file(&format!("{folder}/a.csv"), csv(&[(1, "a")]));
    }
    let (one, two): (TableName, TableName) = ("s.one".parse().unwrap(), "s.two".parse().unwrap());
    let report =
        team.loads().await.sync(std::slice::from_ref(&one), &SyncOptions::default(), std::sync::Arc::new(Silent)).await;
    assert_eq!(report.unwrap().tables.len(), 2, "one member brings the other along");
    let manifests = team.open().await.1.manifests();
    let published = manifests.newest("pair").await.unwrap().unwrap();
    assert_eq!((published[&one], published[&two]), (0, 0));

    team.drop_file("s/one/b.csv", csv(&[(2, "b")]));
    team.drop_file("s/two/b.csv", "id,v\nx,y\n");
    let report = team.sync().await;
    assert!(!report.is_success());
    assert_eq!(team.rows("s.one").await.len(), 2, "the other member is loaded");
    assert_eq!(manifests.newest("pair").await.unwrap().unwrap(), published, "and not shown");

    team.remove("s/two/b.csv");
    assert!(team.sync().await.is_success());
    let published = manifests.newest("pair").await.unwrap().unwrap();
    assert_eq!((published[&one], published[&two]), (1, 0));
}

#[tokio::test]
async fn new_columns_join_and_integers_get_wider() {
    let team = team("append", "");
    team.drop_file("in/a.csv", "id,n\n1,5\n");
    sync(&team, Committed).await;
    team.drop_file("in/b.csv", "id,n,more\n2,5000000000,x\n");
    sync(&team, Committed).await;
    assert_eq!(team.rows("s.t").await, ["1|5|∅", "2|5000000000|x"]);
    team.drop_file("in/c.csv", "id,more\n3,y\n");
    sync(&team, Committed).await;
    assert_eq!(team.rows("s.t").await, ["1|5|∅", "2|5000000000|x", "3|∅|y"]);
}

#[tokio::test]
async fn a_declared_type_that_does_not_hold_what_is_there_is_named_and_reload_repairs() {
    let team = Team::local();
    team.define("s.t", &typed(""));
    team.drop_file("in/a.csv", csv(&[(1, "7"), (2, "8")]));
    sync(&team, Committed).await;
    let other = typed("").replace("name = \"v\"\ntype = \"string\"", "name = \"v\"\ntype = \"int\"");
    team.define("s.t", &other);
    team.drop_file("in/b.csv", csv(&[(3, "9")]));
    let error = failure(&team).await;
    assert!(error.contains("`v`") && error.contains("string") && error.contains("int"), "{error}");
    assert_eq!(team.rows("s.t").await.len(), 2);
    let report = team.sync_with(&SyncOptions { reload: true, ..SyncOptions::default() }).await;
    assert_eq!(report.tables[0].record.status, Committed, "{report:?}");
    assert_eq!(team.rows("s.t").await, ["1|7", "2|8", "3|9"]);
    sync(&team, Unchanged).await;
}

#[tokio::test]
async fn one_table_that_fails_does_not_stop_the_others_and_every_load_is_noted() {
    let team = team("append", "");
    team.define("s.bad", "[source]\nfiles = \"nowhere/*.csv\"\n");
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    let report = team.sync().await;
    assert!(!report.is_success());
    assert_eq!(team.rows("s.t").await, ["1|a"]);
    let (.., journal, _) = team.open().await;
    let mut loads = journal.loads().await.unwrap();
    loads.sort_by_key(|load| load.table.to_string());
    assert_eq!(loads.len(), 2);
    let (bad, good) = (&loads[0], &loads[1]);
    assert_eq!((bad.status, good.status, good.version), (Failed, Committed, Some(0)));
    assert!(bad.error.as_deref().unwrap().contains("nowhere"), "{bad:?}");
    assert!(bad.error_kind.is_some() && good.error.is_none());
    assert!(good.attempt.is_some() && good.bytes_read > 0 && good.bytes_written > 0 && good.position.is_some());
}

#[tokio::test]
async fn a_load_that_is_asked_to_stop_changes_nothing() {
    let team = team("append", "");
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    let stop = Shutdown::new();
    stop.request();
    let report = team.sync_with(&SyncOptions { stop, ..SyncOptions::default() }).await;
    assert_eq!(report.tables[0].record.error_kind, Some(ErrorKind::Cancelled), "{report:?}");
    assert!(team.rows("s.t").await.is_empty());
    sync(&team, Committed).await;
    assert_eq!(team.rows("s.t").await, ["1|a"]);
}
