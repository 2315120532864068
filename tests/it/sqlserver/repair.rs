//! Large tables whose history was lost: what differs is found range by range, read and written, and nothing else.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use lakegate::journal::LoadStatus::{Committed, Unchanged};

use super::support::{Operations, reached};
use crate::support::process::{Running, told};

/// Rows of a table that is large enough to be compared.
const ROWS: i64 = 120_000;

/// A large table that is in the lake, in many files.
async fn large() -> Operations {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    let settings = std::fs::read_to_string(ops.team.file("lakegate.toml")).unwrap();
    ops.team.write("lakegate.toml", format!("{settings}target_file_size = \"64KiB\"\n"));
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
    ops.define("t", "[load]\nmax_rewrite = 1000000");
    ops.sql("CREATE TABLE dbo.digits (d int NOT NULL PRIMARY KEY)");
    ops.sql("INSERT INTO dbo.digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)");
    ops.sql(
        "INSERT INTO dbo.t SELECT d1.d + 10 * d2.d + 100 * d3.d + 1000 * d4.d + 10000 * d5.d + 100000 * d6.d, N'as it was' \
         FROM dbo.digits AS d1 JOIN dbo.digits AS d2 ON 1 = 1 JOIN dbo.digits AS d3 ON 1 = 1 \
         JOIN dbo.digits AS d4 ON 1 = 1 JOIN dbo.digits AS d5 ON 1 = 1 JOIN dbo.digits AS d6 ON d6.d < 2 \
         WHERE d1.d + 10 * d2.d + 100 * d3.d + 1000 * d4.d + 10000 * d5.d + 100000 * d6.d < 120000",
    );
    let first = ops.sync(Committed).await;
    assert_eq!(first.record.rows_written, 120_000);
    ops
}

/// Of one part of the table something: rows that change, go, come, and get other keys.
fn change(ops: &Operations) {
    ops.sql("UPDATE dbo.t SET v = N'changed' WHERE id IN (40010, 40020)");
    ops.sql("DELETE FROM dbo.t WHERE id BETWEEN 40100 AND 40110");
    ops.sql("UPDATE dbo.t SET id = 300000 WHERE id = 40030");
    ops.sql("DELETE FROM dbo.t WHERE id = 40040; INSERT INTO dbo.t VALUES (40040, N'again')");
}

/// Makes the changes since the last load forgotten.
fn forget(ops: &Operations) {
    let version = ops.there("SELECT CHANGE_TRACKING_CURRENT_VERSION()")[0].parse().unwrap();
    ops.server.database().expire("dbo.t", version).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_table_whose_changes_were_forgotten_the_ranges_that_differ_are_read_and_written() {
    let ops = large().await;
    let files = ops.data_files("t");
    assert!(files > 8, "{files}");
    change(&ops);
    forget(&ops);
    let outcome = ops.sync(Committed).await;
    ops.same("t", "id, v").await;
    assert!(outcome.record.rows_written < 10, "{outcome:?}");
    assert!(outcome.record.rows_read < 25_000, "two chunks differ: {outcome:?}");
    let written = ops.data_files("t") - files;
    assert!(written <= 4, "{written} files were written, and there were {files}");
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.t SET v = N'later' WHERE id = 7");
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_made_anew_restored_or_not_tracked_for_a_while_are_repaired() {
    for event in ["recreate", "restore", "tracking"] {
        let ops = large().await;
        match event {
            "recreate" => {
                change(&ops);
                ops.server.database().recreate("dbo.t").unwrap();
            }
            "restore" => {
                let version = ops.server.database().backup().unwrap();
                change(&ops);
                ops.sync(Committed).await;
                ops.server.database().restore(version).unwrap();
            }
            _ => {
                ops.sql("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING");
                change(&ops);
                ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
            }
        }
        let outcome = ops.sync(Committed).await;
        assert!(outcome.record.rows_written < 30, "{event}: {outcome:?}");
        ops.same("t", "id, v").await;
        ops.sync(Unchanged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_other_columns_is_read_whole() {
    let ops = large().await;
    ops.sql("ALTER TABLE dbo.t ADD w int NULL");
    ops.sql("UPDATE dbo.t SET w = 1 WHERE id = 7");
    forget(&ops);
    ops.reads(ROWS as u64).await;
    ops.same("t", "id, v, w").await;
}

/// A small table, in the lake; [`program`] takes it for a large one.
async fn small() -> Operations {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    ops.numbers("t", 5_000);
    ops.sync(Committed).await;
    ops
}

fn program(ops: &Operations, fault: &str) -> std::process::Command {
    let mut command = ops.team.command(&["sync", "--now"]);
    let always = "source.chunk.small=return(error);source.repair.small=return(error)";
    command.env("FAILPOINTS", format!("{always};{fault}"));
    command
}

async fn run(ops: &Operations, fault: &str) -> Output {
    let mut command = program(ops, fault);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_the_table_is_compared_is_not_missed() {
    let ops = small().await;
    ops.sql("UPDATE dbo.t SET v = N'lost' WHERE id = 2100");
    ops.sql("DELETE FROM dbo.t WHERE id = 2101");
    forget(&ops);
    let gate = ops.server.database().faults().hold("@a1 int = 1500");
    let running = Running::start(program(&ops, ""));
    let gate = reached(gate).await;
    // Before what is compared now, in it, and behind it; where something differs, and where nothing does.
    ops.sql("UPDATE dbo.t SET v = N'meanwhile' WHERE id IN (10, 1600, 2102, 4900)");
    ops.sql("DELETE FROM dbo.t WHERE id IN (11, 1601, 2103, 4901)");
    ops.sql("UPDATE dbo.t SET id = 9000 WHERE id = 12; UPDATE dbo.t SET id = 12 WHERE id = 4902");
    ops.sql("UPDATE dbo.t SET id = 13000 WHERE id = 1602; INSERT INTO dbo.t VALUES (0, N'new'), (9001, N'new')");
    gate.release();
    let done = tokio::task::spawn_blocking(|| running.finish()).await.unwrap();
    assert!(done.status.success(), "{}", told(&done));
    ops.same("t", "id, v").await;
    ops.team.sync_one().await;
    ops.sync(Unchanged).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_killed_or_fails_is_done_again() {
    for fault in
        ["source.repair.compared=return(kill)", "lake.commit.before=return(kill)", "lake.commit.after=return(kill)"]
    {
        let ops = small().await;
        ops.sql("UPDATE dbo.t SET v = N'lost' WHERE id = 2100");
        ops.sql("DELETE FROM dbo.t WHERE id = 3101");
        forget(&ops);
        let before = ops.rows("t").await;
        let killed = run(&ops, fault).await;
        assert_eq!(killed.status.signal(), Some(9), "{fault}: {}", told(&killed));
        if !fault.contains("after") {
            assert_eq!(ops.rows("t").await, before, "{fault}");
        }
        ops.sql("UPDATE dbo.t SET v = N'later' WHERE id = 5");
        ops.server.database().faults().fail("@a1 int = 1500", 3, mssql_fixture::engine::SqlError::known(1205), 1);
        let next = run(&ops, "").await;
        assert!(next.status.success(), "{fault}: {}", told(&next));
        ops.same("t", "id, v").await;
        ops.sync(Unchanged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_most_differs_is_read_whole() {
    let ops = small().await;
    ops.sql("UPDATE dbo.t SET v = N'other' WHERE id % 100 = 7");
    forget(&ops);
    ops.server.database().faults().forget_statements();
    let done = run(&ops, "").await;
    assert!(done.status.success(), "{}", told(&done));
    assert!(ops.chunks().len() > 10, "it was compared in part, and read whole: {:?}", ops.chunks());
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
    // What was found then does not count for the next time.
    ops.sql("UPDATE dbo.t SET v = N'once more' WHERE id = 7");
    forget(&ops);
    ops.server.database().faults().forget_statements();
    let done = run(&ops, "").await;
    assert!(done.status.success(), "{}", told(&done));
    let all = ops.server.database().faults().statements();
    let ranges = all.iter().filter(|seen| seen.text.contains("@z1") && !seen.text.contains("SELECT TOP")).count();
    assert!(ranges > 0, "{all:?}");
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_history_was_lost_is_verified_and_mended_by_range() {
    let ops = large().await;
    change(&ops);
    forget(&ops);
    let files = ops.data_files("t");
    let verify = async |arguments: &'static [&'static str]| {
        let mut command = ops.team.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let found = verify(&["verify", "ops.t"]).await;
    assert_eq!(found.status.code(), Some(1), "{}", told(&found));
    assert!(told(&found).contains("could not be left out"), "{}", told(&found));
    ops.sql("UPDATE dbo.t SET v = N'meanwhile' WHERE id = 90000");
    let mended = verify(&["verify", "ops.t", "--repair"]).await;
    assert!(mended.status.success(), "{}", told(&mended));
    ops.same("t", "id, v").await;
    let written = ops.data_files("t") - files;
    assert!(written <= 8, "{written} files were written, and there were {files}");
    let again = verify(&["verify", "ops.t"]).await;
    assert!(again.status.success(), "{}", told(&again));
    ops.sql("UPDATE dbo.t SET v = N'later' WHERE id = 7");
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}
