//! Tables with a key that tell nothing of their changes: all is read, and what differs is written.

use std::os::unix::process::ExitStatusExt;

use lakegate::journal::LoadStatus::{Committed, Unchanged};

use super::support::Operations;
use crate::support::process::told;

async fn numbers(rows: i64) -> Operations {
    let ops = Operations::start().await;
    ops.kept_by("key_diff", "t", rows);
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_written_and_nothing_else() {
    let ops = numbers(2_000).await;
    let first = ops.sync(Committed).await;
    assert_eq!(first.record.rows_written, 2_000);
    let version = first.record.version;
    let idle = ops.sync(Unchanged).await;
    assert_eq!(idle.record.version, version, "no new version of the table");
    ops.sql("UPDATE dbo.t SET v = N'other' WHERE id = 1000");
    ops.sql("INSERT INTO dbo.t (id, v) VALUES (5000, N'new')");
    ops.sql("DELETE FROM dbo.t WHERE id = 3");
    let second = ops.sync(Committed).await;
    assert_eq!((second.record.rows_read, second.record.rows_written), (2_000, 2), "{second:?}");
    ops.same("t", "id, v").await;
    // As it was before: the rows are those of another time, but not those of the last load.
    ops.sql("UPDATE dbo.t SET v = N'v1000' WHERE id = 1000");
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_grew_too_large_leaves_the_lake_and_comes_back() {
    let ops = numbers(20).await;
    ops.define("t", "method = \"key_diff\"\nmax_cell = \"1KiB\"\noversize = \"reject\"");
    ops.sql("ALTER TABLE dbo.t ALTER COLUMN v nvarchar(max) NULL");
    ops.sync(Committed).await;
    ops.sql(&format!("UPDATE dbo.t SET v = N'{}' WHERE id = 7", "x".repeat(1_000)));
    let outcome = ops.sync(Committed).await;
    assert_eq!(outcome.record.rows_rejected, 1, "{outcome:?}");
    assert_eq!(ops.rows("t").await.len(), 19);
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.t SET v = N'small' WHERE id = 7");
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_a_usable_key_are_refused_and_read_whole_by_auto() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.t (id int NOT NULL, v nvarchar(40) NULL)");
    for method in ["key_diff", "rowversion"] {
        ops.define("t", &format!("method = \"{method}\""));
        let message = ops.refused().await;
        assert!(message.contains("no primary key"), "{message}");
    }
    ops.define("t", "");
    assert_eq!(ops.sync(Committed).await.record.position.unwrap()["method"], "reload");
    ops.sql("CREATE VIEW dbo.w AS SELECT id FROM dbo.t WHERE id > 3");
    std::fs::remove_file(ops.team.file("tables/ops/t.toml")).unwrap();
    ops.define("w", "method = \"key_diff\"");
    let message = ops.refused().await;
    assert!(message.contains("it is a view"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_and_types_that_widen_are_followed() {
    let ops = numbers(10).await;
    ops.sync(Committed).await;
    ops.sql("ALTER TABLE dbo.t ADD n smallint NULL");
    ops.sql("UPDATE dbo.t SET n = 7 WHERE id = 3");
    ops.sync(Committed).await;
    ops.same("t", "id, v, n").await;
    ops.sql("ALTER TABLE dbo.t ALTER COLUMN n int NULL");
    ops.sql("UPDATE dbo.t SET n = 70000 WHERE id = 4");
    ops.sync(Committed).await;
    ops.same("t", "id, v, n").await;
    ops.sync(Unchanged).await;
    ops.sql("ALTER TABLE dbo.t DROP COLUMN v");
    ops.sql("DELETE FROM dbo.t WHERE id = 5");
    ops.sync(Committed).await;
    let gone = ops.rows("t").await;
    assert_eq!(gone.len(), 9);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_snapshots_the_table_is_read_as_it_is_committed() {
    let ops = Operations::bare().await;
    ops.configure("isolation = \"snapshot_or_read_committed\"");
    ops.kept_by("key_diff", "t", 100);
    ops.sync(Committed).await;
    ops.sql("DELETE FROM dbo.t WHERE id < 50");
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_compares_or_writes_what_differs_the_lake_has_all_of_it_or_nothing() {
    let ops = numbers(3_000).await;
    ops.sync(Committed).await;
    let points = [
        "lake.compare.before",
        "lake.compare.found",
        "lake.data.written",
        "lake.record.written",
        "lake.commit.before",
        "lake.commit.after",
    ];
    for (round, point) in (0..).zip(points) {
        let before = ops.rows("t").await;
        ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 100 = {round}"));
        ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 1_000 + round));
        ops.sql(&format!("INSERT INTO dbo.t (id, v) VALUES ({}, N'new')", 5_000 + round));
        let mut killed = ops.team.command_with_fault(&["sync", "--now"], point, "return(kill)");
        let killed = tokio::task::spawn_blocking(move || killed.output().unwrap()).await.unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{point}: {}", told(&killed));
        if point == "lake.commit.after" {
            ops.same("t", "id, v").await;
        } else {
            assert_eq!(ops.rows("t").await, before, "{point}");
            ops.sync(Committed).await;
        }
        ops.same("t", "id, v").await;
        ops.sync(Unchanged).await;
    }
}
