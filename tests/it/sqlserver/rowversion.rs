//! Tables that tell new rows by a column of type `rowversion`, and gone ones by nothing but their number.

use std::os::unix::process::ExitStatusExt;

use lakegate::journal::LoadStatus::{Committed, Unchanged};
use serde_json::Value;

use super::support::{Operations, reached};
use crate::support::process::told;

async fn numbers(rows: i64) -> Operations {
    let ops = Operations::start().await;
    ops.kept_by("rowversion", "t", rows);
    ops
}

/// Loads, and makes sure how many rows were read, and whether the keys of all were.
async fn reads(ops: &Operations, rows: u64, keys: bool) -> Value {
    ops.server.database().faults().forget_statements();
    let outcome = ops.sync(Committed).await;
    assert_eq!((outcome.record.rows_read, ops.key_readings()), (rows, usize::from(keys)), "{outcome:?}");
    ops.same("t", "id, v").await;
    outcome.record.position.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rows_alone_are_read_and_keys_only_where_rows_are_gone() {
    let ops = numbers(100).await;
    let position = reads(&ops, 100, false).await;
    assert_eq!((&position["method"], &position["rows"]), (&"rowversion".into(), &100.into()), "{position}");
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.t SET v = N'x' WHERE id IN (1, 2)");
    ops.add_numbers("t", 101, 103);
    reads(&ops, 5, false).await;
    ops.sql("DELETE FROM dbo.t WHERE id = 50");
    reads(&ops, 102, true).await;
    // The key of a row, changed: as many rows as before, and still one is gone.
    ops.sql("UPDATE dbo.t SET id = 500 WHERE id = 51");
    reads(&ops, 1 + 102, true).await;
    // To a key that is gone.
    ops.sql("DELETE FROM dbo.t WHERE id = 52");
    ops.sql("UPDATE dbo.t SET id = 52 WHERE id = 53");
    reads(&ops, 1 + 101, true).await;
    // Two rows change keys: none is gone.
    ops.sql("UPDATE dbo.t SET id = 9999 WHERE id = 60; UPDATE dbo.t SET id = 60 WHERE id = 61");
    ops.sql("UPDATE dbo.t SET id = 61 WHERE id = 9999");
    reads(&ops, 2, false).await;
    // One goes, another comes.
    ops.sql("DELETE FROM dbo.t WHERE id = 70");
    ops.add_numbers("t", 700, 700);
    reads(&ops, 1 + 101, true).await;
    // Gone and back again.
    ops.sql("DELETE FROM dbo.t WHERE id = 71");
    ops.add_numbers("t", 71, 71);
    reads(&ops, 1, false).await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_where_nothing_happened_costs_one_count_and_no_version() {
    let ops = numbers(100).await;
    let version = ops.sync(Committed).await.record.version;
    ops.server.database().faults().forget_statements();
    assert_eq!(ops.sync(Unchanged).await.record.version, version);
    let seen = ops.server.database().faults().statements();
    let counts = seen.iter().filter(|seen| seen.text.contains("COUNT_BIG(*)")).count();
    let rows = seen.iter().filter(|seen| seen.text.contains("SELECT T.[id]")).count();
    assert_eq!((counts, rows), (1, 0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_late_under_an_early_version_is_not_missed() {
    let ops = numbers(100).await;
    ops.define("t", "method = \"rowversion\"");
    ops.sync(Committed).await;
    let database = ops.server.database();
    // A transaction begins, and others commit after it.
    database.hold_row_versions(true);
    ops.sql("UPDATE dbo.t SET v = N'x' WHERE id IN (1, 2)");
    let first = ops.sync(Committed).await;
    assert_eq!(first.record.rows_read, 2, "{first:?}");
    for _ in 0..3 {
        let again = ops.sync(Unchanged).await;
        assert_eq!(again.record.rows_read, 2, "what may be new is read again, and is not written again: {again:?}");
    }
    ops.sql("UPDATE dbo.t SET v = N'y' WHERE id = 2");
    ops.sql("DELETE FROM dbo.t WHERE id = 3");
    ops.sync(Committed).await;
    ops.sync(Unchanged).await;
    database.hold_row_versions(false);
    ops.sync(Committed).await;
    let idle = ops.sync(Unchanged).await;
    assert_eq!(idle.record.rows_read, 0, "{idle:?}");
    let there = ops.there("SELECT id, v FROM dbo.t");
    let here: Vec<String> = ops.rows("t").await.iter().map(|row| row.rsplit_once('|').unwrap().0.to_owned()).collect();
    assert_eq!(here, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_the_low_mark_and_the_snapshot_is_read_then_and_once_more() {
    let ops = numbers(100).await;
    ops.sync(Committed).await;
    ops.sql("UPDATE dbo.t SET v = N'x' WHERE id = 1");
    let gate = ops.server.database().faults().hold("COUNT_BIG(*)");
    let acting = async {
        let gate = reached(gate).await;
        ops.sql("UPDATE dbo.t SET v = N'y' WHERE id IN (1, 2)");
        ops.sql("DELETE FROM dbo.t WHERE id = 3");
        gate.release();
    };
    let (first, ()) = tokio::join!(ops.sync(Committed), acting);
    assert!(first.record.rows_read >= 2, "{first:?}");
    ops.same("t", "id, v").await;
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
}

/// Of everything something, while a load is cut off.
fn change(ops: &Operations) {
    ops.sql("UPDATE dbo.t SET v = N'changed' WHERE id IN (10, 2990)");
    ops.sql("DELETE FROM dbo.t WHERE id IN (20, 500, 501, 2980)");
    ops.sql("UPDATE dbo.t SET id = 9030 WHERE id = 30");
    ops.sql("UPDATE dbo.t SET id = -30 WHERE id = 2970");
    ops.sql("INSERT INTO dbo.t (id, v) VALUES (0, N'first'), (9000, N'last'), (20, N'again')");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_that_is_killed_goes_on_where_it_was() {
    for (point, what, chunks) in [
        ("etl.whole.kept", "2*off->return(kill)", 4),
        ("etl.whole.piece", "2*off->return(kill)", 5),
        ("etl.whole.made", "return(kill)", 1),
        ("etl.whole.adopted", "return(kill)", 0),
    ] {
        let ops = numbers(3_000).await;
        ops.configure("chunk_time = \"1ms\"");
        let mut command = ops.program(&[(point, what)]);
        let killed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{point}: {}", told(&killed));
        change(&ops);
        ops.server.database().faults().forget_statements();
        let mut command = ops.program(&[]);
        let resumed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(resumed.status.success(), "{point}: {}", told(&resumed));
        assert!(ops.chunks().len() <= chunks, "{point}: {:?}", ops.chunks());
        ops.same("t", "id, v").await;
        ops.sync(Unchanged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_to_the_past_is_read_whole() {
    let ops = numbers(100).await;
    ops.sync(Committed).await;
    let version = ops.server.database().backup().unwrap();
    ops.sql("DELETE FROM dbo.t WHERE id = 1");
    ops.sql("UPDATE dbo.t SET v = N'x' WHERE id = 2");
    ops.sync(Committed).await;
    ops.server.database().restore(version).unwrap();
    ops.sql("UPDATE dbo.t SET v = N'y' WHERE id = 3");
    ops.reads(100).await;
    ops.same("t", "id, v").await;
    ops.server.database().recreate("dbo.t").unwrap();
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_rows_are_neither_taken_for_deleted_ones_nor_lost() {
    let ops = numbers(20).await;
    let large = "x".repeat(1_000);
    ops.sql("ALTER TABLE dbo.t ALTER COLUMN v nvarchar(max) NULL");
    ops.define("t", "method = \"rowversion\"\nleave_out = [\"rv\"]\nmax_cell = \"1KiB\"\noversize = \"reject\"");
    ops.sql(&format!("UPDATE dbo.t SET v = N'{large}' WHERE id IN (3, 4)"));
    let first = ops.sync(Committed).await;
    assert_eq!((first.record.rows_written, first.record.rows_rejected), (18, 2), "{first:?}");
    ops.sync(Unchanged).await;
    let small = async |ops: &Operations| {
        let there = ops.there("SELECT id, v FROM dbo.t WHERE v IS NULL OR DATALENGTH(v) < 1000");
        assert_eq!(ops.rows("t").await, there);
        ops.sync(Unchanged).await;
    };
    for change in [
        "UPDATE dbo.t SET v = N'other' WHERE id = 10",
        "DELETE FROM dbo.t WHERE id = 11",
        "DELETE FROM dbo.t WHERE id = 3",
        "UPDATE dbo.t SET v = N'small' WHERE id = 4",
        "DELETE FROM dbo.t WHERE id = 12; INSERT INTO dbo.t (id, v) VALUES (100, N'new')",
        &format!("UPDATE dbo.t SET v = N'{large}' WHERE id IN (13, 100)"),
        &format!("INSERT INTO dbo.t (id, v) VALUES (101, N'{large}')"),
        "DELETE FROM dbo.t WHERE id = 101; UPDATE dbo.t SET v = N'small' WHERE id = 13",
        "DELETE FROM dbo.t WHERE id IN (1, 2); UPDATE dbo.t SET id = 2 WHERE id = 100",
        "DELETE FROM dbo.t",
    ] {
        ops.sql(change);
        ops.sync(Committed).await;
        small(&ops).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_or_the_database_lacks_is_named() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL)");
    ops.define("t", "method = \"rowversion\"");
    let message = ops.refused().await;
    assert!(message.contains("no column of type rowversion"), "{message}");
    let ops = Operations::bare().await;
    ops.kept_by("rowversion", "t", 3);
    ops.configure("isolation = \"snapshot_or_read_committed\"");
    let message = ops.refused().await;
    assert!(message.contains("ALLOW_SNAPSHOT_ISOLATION"), "{message}");
    ops.define("t", "leave_out = [\"rv\"]");
    assert_eq!(ops.sync(Committed).await.record.position.unwrap()["method"], "key_diff");
    ops.same("t", "id, v").await;

    let output = ops.team.run(&["tables", "--connection", "ops", "--format", "csv"]);
    assert!(told(&output).contains("key_diff") && told(&output).contains("ALLOW_SNAPSHOT"), "{}", told(&output));
    ops.sql("ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION ON");
    let output = ops.team.run(&["doctor", "ops"]);
    assert!(told(&output).contains("by rowversion") && told(&output).contains("no index begins"), "{}", told(&output));
    ops.sql("CREATE INDEX i ON dbo.t (rv)");
    let output = ops.team.run(&["doctor", "ops"]);
    assert!(!told(&output).contains("no index begins"), "{}", told(&output));
}
