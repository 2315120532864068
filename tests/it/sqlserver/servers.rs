//! Servers and databases of other kinds, several tables, and values of some size.

use lakegate::journal::LoadStatus::{Committed, Unchanged};
use mssql_fixture::engine::DatabaseOptions;

use super::support::Operations;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_less_than_others_is_read_all_the_same() {
    let ops = Operations::with(DatabaseOptions {
        product_version: "10.50.1600.1".to_owned(),
        edition: "Express Edition".to_owned(),
        change_tracking: false,
        snapshot_isolation: false,
        management_views: false,
        ..DatabaseOptions::default()
    })
    .await;
    ops.configure("isolation = \"snapshot_or_read_committed\"");
    ops.sql("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL)");
    ops.define("t", "");
    ops.add_numbers("t", 1, 100);
    let position = ops.sync(Committed).await.record.position.unwrap();
    assert_eq!(position["method"], "key_diff");
    assert!(position["because"].as_str().unwrap().contains("change tracking is off"), "{position}");
    ops.sync(Unchanged).await;
    ops.sql("DELETE FROM dbo.t WHERE id < 50");
    ops.reads(51).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_tells_upper_from_lower_case_is_read_as_others_are() {
    let collation = "Latin1_General_CS_AS".to_owned();
    let ops = Operations::with(DatabaseOptions { collation, ..DatabaseOptions::default() }).await;
    ops.sql("ALTER DATABASE ops SET CHANGE_TRACKING = ON");
    ops.sql("ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION ON");
    ops.table("t", "id int NOT NULL PRIMARY KEY, name varchar(9) NULL, secret int NULL");
    ops.sql("INSERT INTO dbo.t VALUES (1, 'a', 1), (2, 'A', 2)");
    ops.define("t", "leave_out = [\"Secret\"]");
    ops.reads(2).await;
    ops.sql("UPDATE dbo.t SET name = 'B' WHERE name = 'A'");
    ops.reads(1).await;
    assert_eq!(ops.rows("t").await, ["1|a", "2|B"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_many_megabytes_arrive_whole() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL");
    let text = "漢字abc ".repeat(400_000);
    ops.sql(&format!("INSERT INTO dbo.t VALUES (1, N'{text}'), (2, N'small')"));
    ops.reads(2).await;
    ops.same("t", "id, v").await;
    ops.sql("UPDATE dbo.t SET v = v + N'!' WHERE id = 1");
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}
