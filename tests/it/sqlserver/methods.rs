//! What every method must do that keeps a table in step row by row.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use lakegate::journal::LoadStatus::{Committed, Unchanged};
use mssql_fixture::engine::{Collected, Session};

use super::support::{Operations, reached};
use crate::support::process::told;

const METHODS: [&str; 3] = ["change_tracking", "rowversion", "key_diff"];

async fn with(method: &str, rows: i64) -> Operations {
    let ops = Operations::start().await;
    ops.kept_by(method, "t", rows);
    ops
}

/// The lake's rows are those of the table after one load, and nothing is left to do.
async fn follows(ops: &Operations, what: &str) {
    let outcome = ops.sync(Committed).await;
    println!("{what}: {} read, {} written", outcome.record.rows_read, outcome.record.rows_written);
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
}

fn run(session: &mut Session, sql: &str) {
    let mut collected = Collected::default();
    session.run(sql, &[], &mut collected).unwrap();
    assert_eq!(collected.errors, [], "{sql}");
}

async fn finish(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_rows_is_followed() {
    let changes = [
        "INSERT INTO dbo.t (id, v) VALUES (0, N'first'), (900, N'last'), (901, NULL)",
        "UPDATE dbo.t SET v = N'other' WHERE id IN (1, 50, 100)",
        "UPDATE dbo.t SET v = NULL WHERE id = 2",
        "UPDATE dbo.t SET v = N'' WHERE id = 2",
        "DELETE FROM dbo.t WHERE id = 3",
        // A key that changes: a new row, and one that is gone.
        "UPDATE dbo.t SET id = 500 WHERE id = 4",
        "UPDATE dbo.t SET id = -4 WHERE id = 5",
        "DELETE FROM dbo.t WHERE id = 6; INSERT INTO dbo.t (id, v) VALUES (6, N'again')",
        "INSERT INTO dbo.t (id, v) VALUES (7000, N'never seen'); DELETE FROM dbo.t WHERE id = 7000; \
         UPDATE dbo.t SET v = N'seen' WHERE id = 8",
        // To a key that was another row's, which is gone.
        "DELETE FROM dbo.t WHERE id = 9; UPDATE dbo.t SET id = 9 WHERE id = 10",
        "UPDATE dbo.t SET id = 9999 WHERE id = 11; UPDATE dbo.t SET id = 11 WHERE id = 12; \
         UPDATE dbo.t SET id = 12 WHERE id = 9999",
        // As many rows go as come.
        "DELETE FROM dbo.t WHERE id IN (20, 21); INSERT INTO dbo.t (id, v) VALUES (2000, N'a'), (2001, N'b')",
        "DELETE FROM dbo.t WHERE id BETWEEN 30 AND 60; UPDATE dbo.t SET v = N'left' WHERE id > 90",
        "TRUNCATE TABLE dbo.t",
        "INSERT INTO dbo.t (id, v) VALUES (1, N'new life'), (77, NULL)",
        "DELETE FROM dbo.t",
        "INSERT INTO dbo.t (id, v) VALUES (1, N'new life')",
    ];
    for method in METHODS {
        let ops = with(method, 100).await;
        follows(&ops, method).await;
        for change in changes {
            ops.sql(change);
            follows(&ops, &format!("{method}: {change}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_all_kinds_at_once_are_followed() {
    for method in METHODS {
        let ops = with(method, 1_000).await;
        follows(&ops, method).await;
        for round in 0..4 {
            ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 10 = {round}"));
            ops.sql(&format!("DELETE FROM dbo.t WHERE id % 100 = {}", 40 + round));
            ops.sql(&format!("UPDATE dbo.t SET id = {} WHERE id = {}", 5_000 + round, 1 + 10 * round));
            ops.add_numbers("t", 2_000 + 10 * round, 2_005 + 10 * round);
            follows(&ops, &format!("{method}: round {round}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_empty_at_first_and_later() {
    for method in METHODS {
        let ops = with(method, 0).await;
        follows(&ops, method).await;
        assert!(ops.rows("t").await.is_empty());
        ops.add_numbers("t", 1, 3);
        follows(&ops, method).await;
        ops.sql("DELETE FROM dbo.t");
        follows(&ops, method).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changed_a_thousand_times_is_one_change() {
    for method in METHODS {
        let ops = with(method, 10).await;
        follows(&ops, method).await;
        let updates: Vec<String> = (0..1_000).map(|n| format!("UPDATE dbo.t SET v = N'{n}' WHERE id = 5")).collect();
        ops.sql(&updates.join("; "));
        let outcome = ops.sync(Committed).await;
        let read = if method == "key_diff" { 10 } else { 1 };
        assert_eq!(outcome.record.rows_read, read, "{method}: {outcome:?}");
        ops.same("t", "id, v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_has_not_committed_is_not_seen_and_not_missed() {
    for method in METHODS {
        let ops = with(method, 50).await;
        follows(&ops, method).await;
        let mut writer = ops.server.database().session("sa").unwrap();
        run(&mut writer, "BEGIN TRANSACTION");
        run(&mut writer, "INSERT INTO dbo.t (id, v) VALUES (100, N'maybe')");
        run(&mut writer, "UPDATE dbo.t SET v = N'maybe' WHERE id = 1");
        run(&mut writer, "DELETE FROM dbo.t WHERE id = 2");
        let before = ops.rows("t").await;
        ops.sync(Unchanged).await;
        assert_eq!(ops.rows("t").await, before, "{method}");
        run(&mut writer, "COMMIT TRANSACTION");
        follows(&ops, method).await;

        run(&mut writer, "BEGIN TRANSACTION; UPDATE dbo.t SET v = N'never'; DELETE FROM dbo.t WHERE id > 20");
        ops.sync(Unchanged).await;
        run(&mut writer, "ROLLBACK TRANSACTION");
        ops.sync(Unchanged).await;
        ops.same("t", "id, v").await;
    }
}

/// The statement that gives the first rows of a load, whole or of changes.
fn reading(method: &str, whole: bool) -> &'static str {
    match (method, whole) {
        ("key_diff", _) => "SELECT T.[id], T.[v] FROM [dbo].[t] AS T OPTION",
        (_, true) => "SELECT TOP (",
        ("rowversion", false) => "T.[rv] >= @lo",
        _ => "@last bigint",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_while_a_load_reads_come_with_it_or_with_the_next() {
    for method in METHODS {
        let ops = with(method, 200).await;
        for (round, whole) in [(0, true), (1, false), (2, false)] {
            let gate = ops.server.database().faults().hold(reading(method, whole));
            let acting = async {
                let gate = reached(gate).await;
                ops.sql(&format!("UPDATE dbo.t SET v = N'meanwhile {round}' WHERE id IN (1, {})", 100 + round));
                ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 20 + round));
                ops.sql(&format!("UPDATE dbo.t SET id = {} WHERE id = {}", 300 + round, 40 + round));
                ops.sql(&format!("INSERT INTO dbo.t (id, v) VALUES ({}, N'new')", 400 + round));
                gate.release();
            };
            let (_, ()) = tokio::join!(ops.sync(Committed), acting);
            ops.team.sync_one().await;
            // What was read once may be read once more: then there is nothing left.
            ops.team.sync_one().await;
            ops.sync(Unchanged).await;
            ops.same("t", "id, v").await;
            ops.sql(&format!("UPDATE dbo.t SET v = N'later' WHERE id = {}", 60 + round));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_killed_leaves_what_was_there_and_the_next_one_makes_it_good() {
    let points = ["etl.reading.opened", "etl.prepared", "lake.data.written", "lake.commit.before", "lake.commit.after"];
    for method in METHODS {
        let ops = with(method, 500).await;
        follows(&ops, method).await;
        for (round, point) in points.iter().enumerate() {
            ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 50 = {round}"));
            ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 10 + round));
            ops.sql(&format!("UPDATE dbo.t SET id = {} WHERE id = {}", 900 + round, 30 + round));
            let before = ops.rows("t").await;
            let killed = finish(ops.program(&[(point, "return(kill)")])).await;
            assert_eq!(killed.status.signal(), Some(9), "{method}, {point}: {}", told(&killed));
            if *point != "lake.commit.after" {
                assert_eq!(ops.rows("t").await, before, "{method}, {point}");
            }
            let next = finish(ops.program(&[])).await;
            assert!(next.status.success(), "{method}, {point}: {}", told(&next));
            ops.same("t", "id, v").await;
            ops.sync(Unchanged).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_became_possible_or_impossible_is_changed_by_a_whole_load() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL)");
    ops.define("t", "leave_out = []");
    ops.add_numbers("t", 1, 30);
    let method = async |ops: &Operations| {
        let position = ops.sync(Committed).await.record.position.unwrap();
        ops.same("t", "id, v").await;
        (position["method"].as_str().unwrap().to_owned(), position["because"].as_str().unwrap().to_owned())
    };
    let (way, because) = method(&ops).await;
    assert_eq!(way, "key_diff", "{because}");
    assert!(
        because.contains("ENABLE CHANGE_TRACKING") && because.contains("no column of type rowversion"),
        "{because}"
    );

    ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
    ops.sql("DELETE FROM dbo.t WHERE id = 7");
    assert_eq!(method(&ops).await.0, "change_tracking");
    ops.sql("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING");
    ops.sql("DELETE FROM dbo.t WHERE id = 8");
    assert_eq!(method(&ops).await.0, "key_diff");
    ops.sql("ALTER TABLE dbo.t ADD rv rowversion");
    ops.define("t", "leave_out = [\"rv\"]");
    ops.sql("DELETE FROM dbo.t WHERE id = 9");
    let (way, because) = method(&ops).await;
    assert_eq!(way, "rowversion", "{because}");
    assert!(because.contains("ENABLE CHANGE_TRACKING"), "{because}");
    ops.sync(Unchanged).await;
}
