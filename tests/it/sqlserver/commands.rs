//! `lakegate doctor`, `add`, `tables --connection` and `sync`, as a person runs them.

use super::support::Operations;
use crate::support::process::told;

fn out(ops: &Operations, arguments: &[&str]) -> (i32, String) {
    let output = ops.team.run(arguments);
    (output.status.code().unwrap(), told(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_looked_at_a_table_added_and_loaded() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, what nvarchar(50) NULL)");
    ops.sql("ALTER TABLE dbo.orders ENABLE CHANGE_TRACKING");
    ops.sql("CREATE TABLE dbo.notes (text nvarchar(50) NULL)");
    ops.sql("INSERT INTO dbo.orders VALUES (1, N'tea'), (2, N'coffee')");

    let (code, text) = out(&ops, &["tables", "--connection", "ops", "--format", "csv"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("dbo,orders,table,2,id,change_tracking"), "{text}");
    assert!(text.contains("notes") && text.contains("no primary key"), "{text}");

    let (code, text) = out(&ops, &["add", "ops", "dbo.orders"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("ops.orders") && text.contains("change_tracking"), "{text}");
    let (code, text) = out(&ops, &["add", "ops", "orders"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("is there already"), "{text}");
    let (code, text) = out(&ops, &["add", "ops", "dbo.ordres"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("did you mean [dbo].[orders]"), "{text}");

    let (code, text) = out(&ops, &["sync"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(ops.rows("orders").await, ["1|tea", "2|coffee"]);

    let (code, text) = out(&ops, &["doctor", "ops"]);
    assert_eq!(code, 0, "{text}");
    for part in ["snapshot isolation is allowed", "by change_tracking", "GRANT SELECT ON OBJECT::[dbo].[orders]"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = ops.team.run(&["doctor", "--json"]);
    let reports: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(reports[0]["tables"][0]["lake_table"], "ops.orders", "{reports}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_missing_and_how_to_get_it() {
    let ops = Operations::bare().await;
    ops.sql("CREATE TABLE dbo.orders (id int NOT NULL PRIMARY KEY, secret varbinary(20) NULL)");
    ops.define("orders", "");
    ops.define("gone", "");
    let (code, text) = out(&ops, &["doctor", "ops"]);
    assert_eq!(code, 1, "{text}");
    for part in [
        "SET ALLOW_SNAPSHOT_ISOLATION ON",
        "SET CHANGE_TRACKING = ON",
        "ALTER TABLE [dbo].[orders] ENABLE CHANGE_TRACKING",
        "there is no such table",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    ops.team.write("password", "wrong");
    let (code, text) = out(&ops, &["doctor", "ops"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("18456") && text.contains("check user and password") && !text.contains("wrong"), "{text}");
}
