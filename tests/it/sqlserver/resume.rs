//! First loads that are killed, fail or are asked to stop: the next one goes on where they were.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use lakegate::journal::LoadStatus::{Committed, Unchanged};

use super::support::{Operations, reached};
use crate::support::process::{Running, told};

/// Rows of the table, and rows of a chunk: the least there is.
const ROWS: i64 = 3_000;
const CHUNK: i64 = 500;

async fn finish(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A table of some thousand rows that is read in chunks as small as they get.
async fn numbers() -> Operations {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    ops.numbers("t", ROWS);
    ops
}

/// Of everything something: rows that were read and rows that were not are changed, removed, renumbered; new ones
/// come before and after all others.
fn change(ops: &Operations) {
    ops.sql("UPDATE dbo.t SET v = N'changed' WHERE id IN (10, 2990)");
    ops.sql("DELETE FROM dbo.t WHERE id IN (20, 500, 501, 2980)");
    ops.sql("UPDATE dbo.t SET id = 9030 WHERE id = 30");
    ops.sql("UPDATE dbo.t SET id = -30 WHERE id = 2970");
    ops.sql("INSERT INTO dbo.t VALUES (0, N'first'), (9000, N'last'), (20, N'again')");
}

/// The key a chunk begins after; none for the first.
fn begins_after(chunk: &str) -> Option<i64> {
    let (_, rest) = chunk.split_once("@a1 int = ")?;
    Some(rest.split([',', ';']).next().unwrap().trim().parse().unwrap())
}

/// Where a load that is killed so stands: after which key the next one goes on; none where all rows were read.
async fn killed_then_resumed(point: &str, what: &str, goes_on_after: Option<i64>) {
    let ops = numbers().await;
    let killed = finish(ops.program(&[(point, what)])).await;
    assert_eq!(killed.status.signal(), Some(9), "{point}: {}", told(&killed));
    assert!(ops.rows("t").await.is_empty() || point == "etl.whole.adopted", "nothing is seen before its end");
    change(&ops);
    ops.server.database().faults().forget_statements();
    let resumed = finish(ops.program(&[])).await;
    assert!(resumed.status.success(), "{point}: {}", told(&resumed));
    let chunks = ops.chunks();
    match goes_on_after {
        Some(key) => {
            assert_eq!(chunks.first().and_then(|chunk| begins_after(chunk)), Some(key), "{point}: {chunks:?}");
            assert!(chunks.iter().all(|chunk| begins_after(chunk) >= Some(key)), "{point}: {chunks:?}");
        }
        None => assert!(chunks.is_empty(), "{point}: {chunks:?}"),
    }
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.t SET v = N'later' WHERE id = 1");
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_piece_was_kept_the_load_goes_on_behind_it() {
    killed_then_resumed("etl.whole.kept", "2*off->return(kill)", Some(3 * CHUNK)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_piece_is_kept_the_load_goes_on_behind_the_one_before() {
    killed_then_resumed("etl.whole.piece", "2*off->return(kill)", Some(2 * CHUNK)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_all_pieces_are_kept_no_row_is_read_again() {
    killed_then_resumed("etl.whole.made", "return(kill)", Some(ROWS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_table_has_taken_over_what_was_made_no_row_is_read_again() {
    killed_then_resumed("etl.whole.adopted", "return(kill)", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_wherever_the_load_comes_to_its_end() {
    let ops = numbers().await;
    let points = [
        ("source.chunk.sent", "1*off->return(kill)"),
        ("etl.whole.piece", "1*off->return(kill)"),
        ("lake.record.written", "return(kill)"),
        ("lake.data.written", "1*off->return(kill)"),
        ("etl.whole.kept", "return(kill)"),
        ("lake.commit.before", "1*off->return(kill)"),
        ("lake.commit.after", "return(kill)"),
        ("etl.whole.kept", "1*off->return(kill)"),
        ("source.chunk.sent", "2*off->return(kill)"),
    ];
    for (round, (point, what)) in (0..).zip(points) {
        let killed = finish(ops.program(&[(point, what)])).await;
        assert!(killed.status.signal() == Some(9) || killed.status.success(), "{point}: {}", told(&killed));
        ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 100 = {round}"));
        ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 7 + 300 * round));
        ops.sql(&format!("INSERT INTO dbo.t VALUES ({}, N'new')", 10_000 + round));
    }
    let last = finish(ops.program(&[])).await;
    assert!(last.status.success(), "{}", told(&last));
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_keeps_what_was_read() {
    let ops = numbers().await;
    // The fourth chunk has no right to be read any more.
    ops.server.database().faults().fail("@a1 int = 1500", 0, mssql_fixture::engine::SqlError::known(229), 1);
    let mut command = ops.program(&[]);
    // Pieces are not kept one by one: only the end of the load keeps them.
    command.env("FAILPOINTS", "source.chunk.small=return(error)");
    let failed = finish(command).await;
    assert!(!failed.status.success(), "{}", told(&failed));
    change(&ops);
    ops.server.database().faults().forget_statements();
    let resumed = finish(ops.program(&[])).await;
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert_eq!(ops.chunks().first().and_then(|chunk| begins_after(chunk)), Some(3 * CHUNK));
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_asked_to_stop_keeps_what_was_read() {
    let ops = numbers().await;
    let gate = ops.server.database().faults().hold("@a1 int = 1500");
    let mut command = ops.program(&[]);
    // Frozen when the third chunk has come to the load, so that it is asked to stop at that moment.
    command.env("FAILPOINTS", "source.chunk.small=return(error);etl.whole.piece=2*off->1*return(freeze)");
    let mut running = Running::start(command);
    let (frozen, running) = tokio::task::spawn_blocking(move || (running.wait_frozen(), running)).await.unwrap();
    assert!(frozen, "it ended before its third chunk");
    let process = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    running.thaw();
    let stopped = tokio::task::spawn_blocking(|| running.finish()).await.unwrap();
    assert!(stopped.status.signal().is_none(), "it ends in order: {}", told(&stopped));
    drop(gate);
    change(&ops);
    ops.server.database().faults().forget_statements();
    let resumed = finish(ops.program(&[])).await;
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert_eq!(ops.chunks().first().and_then(|chunk| begins_after(chunk)), Some(3 * CHUNK), "{}", told(&stopped));
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_since_its_load_was_killed_is_read_from_the_beginning() {
    for altering in ["ALTER TABLE dbo.t ADD w int NULL", "TRUNCATE TABLE dbo.t", "recreate"] {
        let ops = numbers().await;
        let killed = finish(ops.program(&[("etl.whole.kept", "2*off->return(kill)")])).await;
        assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
        if altering == "recreate" {
            ops.server.database().recreate("dbo.t").unwrap();
        } else {
            ops.sql(altering);
        }
        ops.sql("DELETE FROM dbo.t WHERE id = 7");
        ops.server.database().faults().forget_statements();
        let resumed = finish(ops.program(&[])).await;
        assert!(resumed.status.success(), "{altering}: {}", told(&resumed));
        assert_eq!(ops.chunks().first().and_then(|chunk| begins_after(chunk)), None, "{altering}");
        ops.same("t", if altering.contains("ADD") { "id, v, w" } else { "id, v" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_altered_while_it_is_read_is_read_from_the_beginning() {
    for altering in ["DROP", "TRUNCATE", "ALTER"] {
        let ops = numbers().await;
        let gate = ops.server.database().faults().hold("@a1 int = 1000");
        let running = Running::start(ops.program(&[]));
        let gate = reached(gate).await;
        match altering {
            // As a test of what is tracked: these rows come before tracking is on.
            "DROP" => {
                ops.sql("DROP TABLE dbo.t");
                ops.sql("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL)");
                ops.add_numbers("t", 900, 1_200);
                ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
            }
            "TRUNCATE" => ops.sql("TRUNCATE TABLE dbo.t"),
            _ => ops.sql("ALTER TABLE dbo.t ADD w int NOT NULL DEFAULT 3"),
        }
        gate.release();
        let done = tokio::task::spawn_blocking(|| running.finish()).await.unwrap();
        assert!(done.status.success(), "{altering}: {}", told(&done));
        ops.same("t", if altering == "ALTER" { "id, v, w" } else { "id, v" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_read_by_several_readers_and_resumed_by_each() {
    let ops = Operations::start().await;
    ops.table("t", "a int NOT NULL, b int NOT NULL, v int NULL, PRIMARY KEY (a, b)");
    ops.sql("CREATE TABLE dbo.digits (d int NOT NULL PRIMARY KEY)");
    ops.sql("INSERT INTO dbo.digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)");
    // Few different first columns, so that a cut falls among rows that have the same.
    ops.sql(
        "INSERT INTO dbo.t SELECT d1.d, d2.d + 10 * d3.d + 100 * d4.d + 1000 * d5.d + 10000 * d6.d, d2.d FROM dbo.digits AS d1 \
         JOIN dbo.digits AS d2 ON 1 = 1 JOIN dbo.digits AS d3 ON 1 = 1 JOIN dbo.digits AS d4 ON 1 = 1 \
         JOIN dbo.digits AS d5 ON 1 = 1 JOIN dbo.digits AS d6 ON d6.d < 3",
    );
    let command = |what: &str| {
        let mut command = ops.team.command(&["sync"]);
        command.env("FAILPOINTS", format!("etl.whole.every=return(error);etl.whole.kept={what}"));
        command
    };
    let killed = finish(command("7*off->return(kill)")).await;
    assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
    let first = ops.chunks();
    assert!(first.iter().any(|chunk| chunk.contains("@z1 int = ")), "{first:?}");
    ops.sql("UPDATE dbo.t SET v = -1 WHERE b % 1000 = 7");
    ops.sql("DELETE FROM dbo.t WHERE b % 1000 = 9");
    ops.server.database().faults().forget_statements();
    let resumed = finish(command("off")).await;
    assert!(resumed.status.success(), "{}", told(&resumed));
    let second = ops.chunks();
    assert!(second.len() < first.len() + 16, "{} and {}", first.len(), second.len());
    ops.same("t", "a, b, v").await;
    ops.sync(Unchanged).await;
    ops.sql("DELETE FROM dbo.t WHERE a = 5");
    ops.sync(Committed).await;
    ops.same("t", "a, b, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_changed_since_its_load_was_killed_is_followed_from_the_beginning() {
    let ops = numbers().await;
    ops.sql(&format!("UPDATE dbo.t SET v = N'{}' WHERE id = 3", "x".repeat(40)));
    ops.define("t", "leave_out = [\"v\"]");
    let killed = finish(ops.program(&[("etl.whole.kept", "2*off->return(kill)")])).await;
    assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
    ops.define("t", "");
    let resumed = finish(ops.program(&[])).await;
    assert!(resumed.status.success(), "{}", told(&resumed));
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_everything_anew_that_is_killed_leaves_what_was_there_and_goes_on() {
    let ops = numbers().await;
    ops.sync(Committed).await;
    let before = ops.rows("t").await;
    ops.sql("TRUNCATE TABLE dbo.t");
    ops.add_numbers("t", 2_001, 5_000);
    let killed = finish(ops.program(&[("etl.whole.kept", "2*off->return(kill)")])).await;
    assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
    assert_eq!(ops.rows("t").await, before);
    ops.sql("DELETE FROM dbo.t WHERE id BETWEEN 2100 AND 2200");
    ops.server.database().faults().forget_statements();
    let resumed = finish(ops.program(&[])).await;
    assert!(resumed.status.success(), "{}", told(&resumed));
    assert_eq!(ops.chunks().first().and_then(|chunk| begins_after(chunk)), Some(2_000 + 3 * CHUNK));
    ops.same("t", "id, v").await;
}
