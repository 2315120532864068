//! The way of a change: from the first load to each later one.

use std::sync::Arc;

use lakegate::etl::{Silent, SyncOptions};
use lakegate::journal::LoadStatus::{Committed, Failed, Unchanged};

use super::support::{Operations, reached};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_loaded_whole_and_then_kept_in_step_by_its_changes() {
    let ops = Operations::start().await;
    ops.table("orders", "id int NOT NULL PRIMARY KEY, what nvarchar(50) NULL, amount decimal(10, 2) NULL");
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50), (2, N'coffee', 3.75), (3, NULL, NULL)");
    let first = ops.sync(Committed).await;
    assert_eq!(first.record.rows_written, 3);
    assert_eq!(ops.rows("orders").await, ["1|tea|2.50", "2|coffee|3.75", "3|∅|∅"]);
    ops.sync(Unchanged).await;

    ops.sql("UPDATE dbo.orders SET amount = 4.00 WHERE id = 2");
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.sql("INSERT INTO dbo.orders VALUES (4, N'漢字 😀', 0.01)");
    let second = ops.sync(Committed).await;
    assert_eq!(second.record.rows_read, 3, "only what changed is read");
    assert_eq!(ops.rows("orders").await, ["2|coffee|4.00", "3|∅|∅", "4|漢字 😀|0.01"]);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_database_where_nothing_happened_cost_one_question_together() {
    let ops = Operations::start().await;
    for number in 0..20 {
        ops.table(&format!("t{number}"), "id int NOT NULL PRIMARY KEY");
    }
    let loads = ops.team.loads().await;
    let sync = async || loads.sync(&[], &SyncOptions::default(), Arc::new(Silent)).await.unwrap();
    let first = sync().await;
    assert!(first.is_success() && first.tables.len() == 20, "{first:?}");
    ops.server.database().faults().forget_statements();
    let second = sync().await;
    assert!(second.tables.iter().all(|table| table.record.status == Unchanged), "{second:?}");
    let asked: Vec<String> =
        ops.server.database().faults().statements().into_iter().map(|statement| statement.text).collect();
    let questions = asked.iter().filter(|text| text.contains("sys.change_tracking_tables")).count();
    assert_eq!(questions, 1, "{asked:?}");
    assert!(asked.len() <= 3, "besides setting up and trying the connection: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_from_elsewhere_than_before_is_loaded_anew_or_not_at_all() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY");
    ops.sql("INSERT INTO dbo.t VALUES (1), (2)");
    let from_files = "[source]\nfiles = \"in/*.csv\"\n[[columns]]\nname = \"id\"\ntype = \"int\"\n";
    let reload = SyncOptions { reload: true, ..SyncOptions::default() };
    ops.team.drop_file("in/a.csv", "id\n7\n");
    ops.team.define("ops.t", from_files);
    ops.sync(Committed).await;

    ops.define("t", "");
    let refused = ops.sync(Failed).await.record.error.unwrap();
    assert!(refused.contains("from files and comes from SQL Server") && refused.contains("--reload"), "{refused}");
    assert_eq!(ops.rows("t").await, ["7"]);
    assert!(ops.team.sync_with(&reload).await.is_success());
    assert_eq!(ops.rows("t").await, ["1", "2"]);
    let chain = ops.team.open().await.1.table(&"ops.t".parse().unwrap()).chain().await.unwrap();
    assert!(chain.files().is_empty(), "the rows of the file are gone, and so is what was known of it");

    ops.team.define("ops.t", from_files);
    let refused = ops.sync(Failed).await.record.error.unwrap();
    assert!(refused.contains("from SQL Server and comes from files"), "{refused}");
    assert!(ops.team.sync_with(&reload).await.is_success());
    assert_eq!(ops.rows("t").await, ["7"]);
}

/// Does something when a statement has come, before it runs.
async fn before(ops: &Operations, statement: &str, act: impl FnOnce()) {
    let gate = reached(ops.server.database().faults().hold(statement)).await;
    act();
    gate.release();
}

/// Whether the server reports the end of a row that came after the version is not documented.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_while_they_are_read_do_not_stay() {
    for reported in [false, true] {
        let ops = Operations::start().await;
        ops.server.database().unseen_deletes(reported);
        ops.numbers("t", 10);
        // It comes after the version was noted, is read, and goes before the changes are read.
        let meanwhile = async {
            before(&ops, "SELECT TOP (", || ops.sql("INSERT INTO dbo.t VALUES (100, N'x'), (101, N'stays')")).await;
            before(&ops, "@v0 bigint", || ops.sql("DELETE FROM dbo.t WHERE id = 100")).await;
        };
        let (_, ()) = tokio::join!(ops.sync(Committed), meanwhile);
        ops.same("t", "id, v").await;

        // It comes after the version was noted and before the snapshot, and goes after that.
        ops.sql("UPDATE dbo.t SET v = N'y' WHERE id = 1");
        let meanwhile = before(&ops, "@v0 bigint", || ops.sql("INSERT INTO dbo.t VALUES (200, N'x')"));
        let (_, ()) = tokio::join!(ops.sync(Committed), meanwhile);
        ops.same("t", "id, v").await;
        ops.sql("DELETE FROM dbo.t WHERE id = 200");
        ops.sync(Committed).await;
        ops.same("t", "id, v").await;
        ops.sync(Unchanged).await;
    }
}
