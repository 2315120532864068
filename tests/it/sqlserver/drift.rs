//! What happens to a table besides changes of its rows: lost history, another life, another shape, other rights.

use lakegate::etl::SyncOptions;
use lakegate::journal::LoadStatus::{Committed, Failed, Unchanged};

use super::support::Operations;

const ORDERS: &str = "id int NOT NULL PRIMARY KEY, what nvarchar(50) NULL, amount decimal(10, 2) NULL";

/// A table of three orders that is in the lake.
async fn loaded() -> Operations {
    let ops = Operations::start().await;
    ops.table("orders", ORDERS);
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50), (2, N'coffee', 3.75), (3, NULL, NULL)");
    ops.reads(3).await;
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_no_longer_kept_make_the_load_begin_anew() {
    let ops = Operations::start().await;
    ops.table("orders", ORDERS);
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50), (2, N'coffee', 3.75)");
    let version = Operations::version(&ops.sync(Committed).await);
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.sql("UPDATE dbo.orders SET what = N'mocha' WHERE id = 2");
    ops.server.database().expire("dbo.orders", version + 1).unwrap();
    ops.reads(1).await;
    assert_eq!(ops.rows("orders").await, ["2|mocha|3.75"]);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_table_is_loaded_anew() {
    let ops = loaded().await;
    ops.sql("TRUNCATE TABLE dbo.orders");
    ops.reads(0).await;
    assert!(ops.rows("orders").await.is_empty());
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'water', 0)");
    ops.sql("TRUNCATE TABLE dbo.orders");
    ops.sql("INSERT INTO dbo.orders VALUES (7, N'milk', 1)");
    ops.reads(1).await;
    assert_eq!(ops.rows("orders").await, ["7|milk|1.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_tracking_was_off_is_not_missed() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.orders DISABLE CHANGE_TRACKING");
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.sql("ALTER TABLE dbo.orders ENABLE CHANGE_TRACKING");
    // Nothing says so but the table's own date: no change was tracked since.
    ops.reads(2).await;
    assert_eq!(ops.rows("orders").await, ["2|coffee|3.75", "3|∅|∅"]);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_tracking_is_off_the_table_is_read_whole() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.orders DISABLE CHANGE_TRACKING");
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.reads(2).await;
    ops.sync(Unchanged).await;
    assert_eq!(ops.rows("orders").await, ["2|coffee|3.75", "3|∅|∅"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_and_made_anew_is_loaded_anew() {
    let ops = loaded().await;
    ops.sql("DROP TABLE dbo.orders");
    assert!(ops.refused().await.contains("has no table dbo.orders") || ops.refused().await.contains("[orders]"));
    assert_eq!(ops.rows("orders").await.len(), 3, "readers keep what was there");
    ops.sql(&format!("CREATE TABLE dbo.orders ({ORDERS})"));
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'wine', 9)");
    ops.sql("ALTER TABLE dbo.orders ENABLE CHANGE_TRACKING");
    ops.reads(1).await;
    assert_eq!(ops.rows("orders").await, ["1|wine|9.00"]);
    ops.server.database().recreate("dbo.orders").unwrap();
    ops.reads(1).await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_restored_to_the_past_is_followed_there() {
    let ops = loaded().await;
    let version = ops.server.database().backup().unwrap();
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.sql("INSERT INTO dbo.orders VALUES (4, N'milk', 1)");
    ops.reads(2).await;
    ops.server.database().restore(version).unwrap();
    ops.reads(3).await;
    assert_eq!(ops.rows("orders").await, ["1|tea|2.50", "2|coffee|3.75", "3|∅|∅"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_known_even_when_its_versions_have_overtaken_the_lake() {
    let ops = loaded().await;
    let version = ops.server.database().backup().unwrap();
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.reads(1).await;
    ops.server.database().restore(version).unwrap();
    for id in 5..8 {
        ops.sql(&format!("INSERT INTO dbo.orders VALUES ({id}, N'new', {id})"));
    }
    ops.reads(6).await;
    assert_eq!(
        ops.rows("orders").await,
        ["1|tea|2.50", "2|coffee|3.75", "3|∅|∅", "5|new|5.00", "6|new|6.00", "7|new|7.00"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_secondary_is_refused_by_change_tracking_and_read_whole_otherwise() {
    let ops = loaded().await;
    ops.server.database().read_only_secondary(true);
    let message = ops.refused().await;
    assert!(message.contains("name the primary"), "{message}");
    ops.define("orders", "method = \"change_tracking\"");
    let message = ops.refused().await;
    assert!(message.contains("name the primary"), "{message}");
    ops.server.database().read_only_secondary(false);
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.reads(1).await;

    let ops = Operations::start().await;
    ops.table("orders", ORDERS);
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50)");
    ops.server.database().read_only_secondary(true);
    ops.reads(1).await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_without_a_default_needs_no_reload() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.orders ADD note nvarchar(20) NULL");
    ops.sql("UPDATE dbo.orders SET note = N'hot' WHERE id = 1");
    ops.reads(1).await;
    assert_eq!(ops.rows("orders").await, ["1|tea|2.50|hot", "2|coffee|3.75|∅", "3|∅|∅|∅"]);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_that_was_filled_for_old_rows_makes_the_load_begin_anew() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.orders ADD taxed bit NOT NULL DEFAULT 1");
    ops.reads(3).await;
    assert_eq!(ops.rows("orders").await, ["1|tea|2.50|true", "2|coffee|3.75|true", "3|∅|∅|true"]);
    ops.sql("ALTER TABLE dbo.orders ADD colour nvarchar(9) NULL DEFAULT N'red' WITH VALUES");
    ops.sql("DELETE FROM dbo.orders WHERE id = 3");
    ops.reads(2).await;
    assert_eq!(ops.rows("orders").await, ["1|tea|2.50|true|red", "2|coffee|3.75|true|red"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_null_from_then_on() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.orders DROP COLUMN amount");
    ops.sql("UPDATE dbo.orders SET what = N'green tea' WHERE id = 1");
    ops.sql("INSERT INTO dbo.orders VALUES (4, N'milk')");
    ops.reads(2).await;
    assert_eq!(ops.rows("orders").await, ["1|green tea|∅", "2|coffee|3.75", "3|∅|∅", "4|milk|∅"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_came_back_under_its_name_does_not_bring_back_its_values() {
    for load_between in [false, true] {
        let ops = loaded().await;
        ops.sql("ALTER TABLE dbo.orders DROP COLUMN amount");
        if load_between {
            ops.sql("UPDATE dbo.orders SET what = N'green tea' WHERE id = 1");
            ops.reads(1).await;
        }
        ops.sql("ALTER TABLE dbo.orders ADD amount decimal(10, 2) NULL");
        ops.sql("UPDATE dbo.orders SET amount = 1, what = N'tea' WHERE id = 1");
        ops.reads(3).await;
        assert_eq!(ops.rows("orders").await, ["1|tea|1.00", "2|coffee|∅", "3|∅|∅"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_type_needs_no_reload() {
    let ops = Operations::start().await;
    ops.table(
        "n",
        "id int NOT NULL PRIMARY KEY, i int NULL, s smallint NULL, d decimal(10, 2) NULL, t nvarchar(3) NULL",
    );
    ops.sql("INSERT INTO dbo.n VALUES (1, 2147483647, 32767, 99999999.99, N'abc'), (2, NULL, NULL, NULL, NULL)");
    ops.reads(2).await;
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN i bigint NULL");
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN s int NULL");
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN d decimal(14, 2) NULL");
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN t nvarchar(5) NULL");
    ops.sql("INSERT INTO dbo.n VALUES (3, 9223372036854775807, 2147483647, 999999999999.99, N'abcde')");
    ops.reads(1).await;
    assert_eq!(
        ops.rows("n").await,
        ["1|2147483647|32767|99999999.99|abc", "2|∅|∅|∅|∅", "3|9223372036854775807|2147483647|999999999999.99|abcde"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_change_that_changed_values_makes_the_load_begin_anew() {
    let ops = Operations::start().await;
    ops.table("n", "id int NOT NULL PRIMARY KEY, t nvarchar(9) NULL, at datetime2(6) NULL, x nvarchar(9) NULL");
    ops.sql("INSERT INTO dbo.n VALUES (1, N'42', '2026-01-02T03:04:05.678', N'a'), (2, NULL, NULL, NULL)");
    ops.reads(2).await;
    // The lake's type stays, and the server rounds.
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN at datetime2(0) NULL");
    ops.sql("UPDATE dbo.n SET x = N'b' WHERE id = 2");
    ops.reads(2).await;
    assert_eq!(ops.rows("n").await, ["1|42|2026-01-02T03:04:06|a", "2|∅|∅|b"]);
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN x nchar(3) NULL");
    ops.reads(2).await;
    assert_eq!(ops.rows("n").await, ["1|42|2026-01-02T03:04:06|a  ", "2|∅|∅|b  "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_quite_another_type_is_loaded_anew() {
    let ops = Operations::start().await;
    ops.table("n", "id int NOT NULL PRIMARY KEY, t nvarchar(9) NULL");
    ops.sql("INSERT INTO dbo.n VALUES (1, N'42'), (2, NULL)");
    ops.reads(2).await;
    ops.sql("ALTER TABLE dbo.n ALTER COLUMN t int NULL");
    let outcome = ops.team.sync_one().await;
    if outcome.record.status == Committed {
        assert_eq!(ops.rows("n").await, ["1|42", "2|∅"]);
    } else {
        let message = outcome.record.error.unwrap_or_default();
        assert!(message.contains('t') && message.contains("Utf8") || message.contains("string"), "{message}");
        assert_eq!(ops.rows("n").await, ["1|42", "2|∅"], "readers keep what was there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_stops_the_load_until_somebody_decides() {
    let ops = loaded().await;
    ops.sql("EXEC sp_rename 'dbo.orders.what', 'article', 'COLUMN'");
    ops.sql("UPDATE dbo.orders SET amount = 1 WHERE id = 1");
    let message = ops.refused().await;
    assert!(message.contains("`what`") && message.contains("`article`") && message.contains("--reload"), "{message}");
    assert_eq!(ops.rows("orders").await[0], "1|tea|2.50");
    ops.sql("EXEC sp_rename 'dbo.orders.article', 'what', 'COLUMN'");
    ops.reads(1).await;
    assert_eq!(ops.rows("orders").await[0], "1|tea|1.00");
    ops.sql("EXEC sp_rename 'dbo.orders.what', 'article', 'COLUMN'");
    let report = ops.team.sync_with(&SyncOptions { reload: true, ..SyncOptions::default() }).await;
    assert_eq!(report.tables[0].record.status, Committed, "{report:?}");
    assert_eq!(report.tables[0].record.rows_read, 3);
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_makes_the_load_begin_anew() {
    let ops = Operations::start().await;
    ops.table("t", "a int NOT NULL CONSTRAINT pk PRIMARY KEY, b int NOT NULL");
    ops.sql("INSERT INTO dbo.t VALUES (1, 10), (2, 20)");
    ops.reads(2).await;
    ops.sql("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING");
    ops.sql("ALTER TABLE dbo.t DROP CONSTRAINT pk");
    ops.sql("ALTER TABLE dbo.t ADD CONSTRAINT pk2 PRIMARY KEY (b)");
    ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
    ops.reads(2).await;
    ops.sql("UPDATE dbo.t SET a = 3 WHERE b = 20");
    ops.reads(1).await;
    assert_eq!(ops.rows("t").await, ["1|10", "3|20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_snapshots_is_read_only_where_the_connection_says_so() {
    let ops = Operations::bare().await;
    ops.sql("ALTER DATABASE ops SET CHANGE_TRACKING = ON");
    ops.table("orders", ORDERS);
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50)");
    let message = ops.refused().await;
    assert!(
        message.contains("ALLOW_SNAPSHOT_ISOLATION") && message.contains("snapshot_or_read_committed"),
        "{message}"
    );
    ops.configure("isolation = \"snapshot_or_read_committed\"");
    ops.reads(1).await;
    ops.sql("INSERT INTO dbo.orders VALUES (2, N'coffee', 3)");
    ops.sql("DELETE FROM dbo.orders WHERE id = 1");
    ops.reads(2).await;
    assert_eq!(ops.rows("orders").await, ["2|coffee|3.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_a_policy_may_hide_is_refused() {
    let ops = loaded().await;
    ops.sql("CREATE SECURITY POLICY dbo.p ADD FILTER PREDICATE dbo.f(id) ON dbo.orders WITH (STATE = ON)");
    ops.sql("UPDATE dbo.orders SET amount = 1 WHERE id = 1");
    let message = ops.refused().await;
    assert!(message.contains("security policy"), "{message}");
    assert_eq!(ops.rows("orders").await.len(), 3, "readers keep what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_the_login_may_not_read_does_not_keep_the_others_back() {
    let ops = Operations::start().await;
    for name in ["a", "b", "c"] {
        ops.table(name, "id int NOT NULL PRIMARY KEY");
        ops.sql(&format!("INSERT INTO dbo.{name} VALUES (1)"));
    }
    ops.sql("CREATE LOGIN etl WITH PASSWORD = N'Reader-2022'");
    ops.sql("CREATE USER etl FOR LOGIN etl");
    for name in ["a", "c"] {
        ops.sql(&format!("GRANT SELECT, VIEW CHANGE TRACKING ON OBJECT::dbo.{name} TO etl"));
    }
    ops.configure_as("etl", "Reader-2022", "");
    let mut report = ops.team.sync().await;
    report.tables.sort_by_key(|table| table.record.table.to_string());
    let statuses: Vec<_> =
        report.tables.iter().map(|table| (table.record.table.to_string(), table.record.status)).collect();
    assert_eq!(
        statuses,
        [("ops.a", Committed), ("ops.b", Failed), ("ops.c", Committed)].map(|(a, b)| (a.to_owned(), b))
    );
    let message = report.tables[1].record.error.clone().unwrap_or_default();
    assert!(message.contains("may not read"), "{message}");
    assert_eq!((ops.rows("a").await, ops.rows("c").await), (vec!["1".to_owned()], vec!["1".to_owned()]));

    // With SELECT alone it is read whole, every time.
    ops.sql("GRANT SELECT ON OBJECT::dbo.b TO etl");
    let report = ops.team.sync().await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!(ops.rows("b").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_read_whole_and_written_where_it_changed() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.log (what nvarchar(9) NULL, n int NULL)");
    ops.define("log", "");
    ops.sql("INSERT INTO dbo.log VALUES (N'a', 1), (N'a', 1), (NULL, NULL)");
    ops.reads(3).await;
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.log SET n = 2 WHERE n IS NULL");
    ops.reads(3).await;
    assert_eq!(ops.rows("log").await, ["a|1", "a|1", "∅|2"]);
    ops.sync(Unchanged).await;
    ops.sql("DELETE FROM dbo.log");
    ops.reads(0).await;
    assert!(ops.rows("log").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_read_whole() {
    let ops = Operations::start().await;
    ops.sql(&format!("CREATE TABLE dbo.orders ({ORDERS})"));
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea', 2.50), (2, N'coffee', 3.75)");
    ops.sql("CREATE VIEW dbo.dear AS SELECT id, amount FROM dbo.orders WHERE amount > 3");
    ops.define("dear", "");
    ops.reads(1).await;
    assert_eq!(ops.rows("dear").await, ["2|3.75"]);
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.orders SET amount = 5 WHERE id = 1");
    ops.reads(2).await;
    assert_eq!(ops.rows("dear").await, ["1|5.00", "2|3.75"]);
}
