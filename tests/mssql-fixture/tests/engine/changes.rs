//! Change Tracking: versions, netting, contexts, rowversions.

use mssql_fixture::engine::{Database, Session};

use crate::{database, error, one, query, run};

/// A tracked table with rows 1 and 2.
fn tracked() -> (Database, Session) {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY, a int);
         INSERT s.t VALUES (1, 1), (2, 2);
         ALTER TABLE s.t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF)",
    );
    (database, session)
}

/// Key and operation of everything since a version, joined with the table.
fn since(session: &mut Session, version: i64) -> Vec<String> {
    query(
        session,
        &format!(
            "DECLARE @last bigint = {version};
             SELECT CT.[id], CT.SYS_CHANGE_OPERATION, CASE WHEN T.[id] IS NULL THEN 0 ELSE 1 END, T.a
             FROM CHANGETABLE(CHANGES [s].[t], @last) AS CT LEFT OUTER JOIN [s].[t] AS T ON T.[id] = CT.[id]
             ORDER BY CT.[id] OPTION (MAXDOP 1);"
        ),
    )
}

fn version(session: &mut Session) -> i64 {
    one(session, "SELECT CHANGE_TRACKING_CURRENT_VERSION()").parse().unwrap()
}

#[test]
fn changes_net_against_the_version_asked_for() {
    let (_database, mut session) = tracked();
    assert_eq!(version(&mut session), 0);
    let steps = [
        "INSERT s.t VALUES (3, 3)",
        "UPDATE s.t SET a = 33 WHERE id = 3",
        "DELETE s.t WHERE id = 1",
        "INSERT s.t VALUES (4, 4)",
        "DELETE s.t WHERE id = 4",
        "INSERT s.t VALUES (1, 11)",
    ];
    for (at, step) in (1..).zip(steps) {
        run(&mut session, step);
        assert_eq!(version(&mut session), at);
    }
    // I then U is I; D then I is U; I then D is nothing.
    assert_eq!(since(&mut session, 0), ["1 U 1 11", "3 I 1 33"]);
    assert_eq!(since(&mut session, 1), ["1 U 1 11", "3 U 1 33"]);
    assert_eq!(since(&mut session, 3), ["1 I 1 11"]);
    assert_eq!(since(&mut session, 4), ["1 I 1 11", "4 D 0 NULL"]);
    assert_eq!(since(&mut session, 6), Vec::<String>::new());
    assert_eq!(query(&mut session, "SELECT id FROM CHANGETABLE(CHANGES s.t, NULL) AS c ORDER BY id"), ["1", "3"]);
    assert_eq!(error(&mut session, "SELECT * FROM CHANGETABLE(CHANGES s.t, 1 + 1) AS c"), 102);
}

#[test]
fn one_transaction_nets_by_itself_and_gets_one_version() {
    let (_database, mut session) = tracked();
    run(
        &mut session,
        "BEGIN TRAN; INSERT s.t VALUES (3, 3); UPDATE s.t SET a = 4 WHERE id = 3; DELETE s.t WHERE id = 2; INSERT s.t VALUES (2, 5);
         INSERT s.t VALUES (9, 9); DELETE s.t WHERE id = 9; DELETE s.t WHERE id = 1; COMMIT",
    );
    assert_eq!(version(&mut session), 1);
    assert_eq!(since(&mut session, 0), ["1 D 0 NULL", "2 U 1 5", "3 I 1 4"]);
}

#[test]
fn a_changed_key_is_a_delete_and_an_insert() {
    let (_database, mut session) = tracked();
    run(&mut session, "UPDATE s.t SET id = 20 WHERE id = 2");
    assert_eq!(since(&mut session, 0), ["2 D 0 NULL", "20 I 1 2"]);
}

#[test]
fn rolled_back_work_leaves_nothing() {
    let (_database, mut session) = tracked();
    run(&mut session, "BEGIN TRANSACTION; DELETE s.t; ROLLBACK TRANSACTION");
    assert_eq!(error(&mut session, "INSERT s.t VALUES (5, 5), (1, 1)"), 2627);
    assert_eq!(version(&mut session), 0);
    assert_eq!(since(&mut session, 0), Vec::<String>::new());
    assert_eq!(one(&mut session, "SELECT COUNT(*) FROM s.t"), "2");
}

#[test]
fn versions_follow_the_order_of_commits() {
    let (database, mut session) = tracked();
    run(&mut session, "BEGIN TRAN; UPDATE s.t SET a = 10 WHERE id = 1");
    let mut reader = database.session("sa").unwrap();
    assert_eq!(version(&mut reader), 0);
    assert_eq!(since(&mut reader, 0), Vec::<String>::new());
    run(&mut session, "COMMIT");
    assert_eq!(version(&mut reader), 1);
    assert_eq!(since(&mut reader, 0), ["1 U 1 10"]);
}

#[test]
fn truncate_and_expiry_move_the_oldest_valid_version() {
    let (database, mut session) = tracked();
    let oldest = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'[s].[t]'))";
    assert_eq!(one(&mut session, oldest), "0");
    run(&mut session, "UPDATE s.t SET a = 5; UPDATE s.t SET a = 6 WHERE id = 1; UPDATE s.t SET a = 7 WHERE id = 2");
    database.expire("s.t", 2).unwrap();
    assert_eq!(one(&mut session, oldest), "2");
    assert_eq!(since(&mut session, 2), ["2 U 1 7"]);
    run(&mut session, "TRUNCATE TABLE s.t");
    assert_eq!(one(&mut session, oldest), "4");
    assert_eq!(version(&mut session), 4);
    assert_eq!(since(&mut session, 0), Vec::<String>::new());
    assert_eq!(query(&mut session, "SELECT min_valid_version, begin_version FROM sys.change_tracking_tables"), ["4 0"]);
}

#[test]
fn tracking_off_answers_null_or_an_error() {
    let (_database, mut session) = tracked();
    run(&mut session, "ALTER TABLE s.t DISABLE CHANGE_TRACKING");
    assert_eq!(one(&mut session, "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N's.t'))"), "NULL");
    assert_eq!(error(&mut session, "SELECT * FROM CHANGETABLE(CHANGES s.t, 0) AS c"), 22105);
    run(&mut session, "INSERT s.t VALUES (8, 8); ALTER TABLE s.t ENABLE CHANGE_TRACKING; INSERT s.t VALUES (9, 9)");
    assert_eq!(since(&mut session, 0), ["9 I 1 9"]);
    run(&mut session, "CREATE TABLE s.nokey (a int)");
    assert_eq!(error(&mut session, "ALTER TABLE s.nokey ENABLE CHANGE_TRACKING"), 4997);
    run(&mut session, "ALTER TABLE s.t DISABLE CHANGE_TRACKING; ALTER DATABASE ops SET CHANGE_TRACKING = OFF");
    assert_eq!(one(&mut session, "SELECT CHANGE_TRACKING_CURRENT_VERSION()"), "NULL");
}

#[test]
fn a_context_stays_with_the_change() {
    let (_database, mut session) = tracked();
    run(
        &mut session,
        "WITH CHANGE_TRACKING_CONTEXT(0x6C61) UPDATE s.t SET a = 5 WHERE id = 1; UPDATE s.t SET a = 6 WHERE id = 2",
    );
    assert_eq!(
        query(
            &mut session,
            "SELECT id, SYS_CHANGE_CONTEXT, SYS_CHANGE_VERSION FROM CHANGETABLE(CHANGES s.t, 0) AS c ORDER BY id"
        ),
        ["1 6c61 1", "2 NULL 2"]
    );
}

#[test]
fn idle_tables_are_asked_in_one_batch() {
    let (_database, mut session) = tracked();
    run(
        &mut session,
        "CREATE TABLE s.u (k nvarchar(5) NOT NULL PRIMARY KEY); ALTER TABLE s.u ENABLE CHANGE_TRACKING; INSERT s.u VALUES (N'x')",
    );
    let asked = "DECLARE @v0 bigint = 0, @v1 bigint = 0;
        SELECT CASE WHEN EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES [s].[t], @v0) AS c) THEN 1 ELSE 0 END,
               CASE WHEN EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES [s].[u], @v1) AS c) THEN 1 ELSE 0 END";
    assert_eq!(query(&mut session, asked), ["0 1"]);
}

#[test]
fn ddl_that_rewrites_rows_is_not_tracked() {
    let (_database, mut session) = tracked();
    run(&mut session, "ALTER TABLE s.t ADD b int NOT NULL DEFAULT 3; ALTER TABLE s.t ALTER COLUMN a nvarchar(10)");
    assert_eq!(version(&mut session), 0);
    assert_eq!(since(&mut session, 0), Vec::<String>::new());
    run(&mut session, "UPDATE s.t SET b = 4 WHERE id = 1");
    assert_eq!(since(&mut session, 0), ["1 U 1 1"]);
}

#[test]
fn rows_that_came_and_went_show_when_asked_for() {
    let (database, mut session) = tracked();
    run(&mut session, "INSERT s.t VALUES (3, 3); DELETE s.t WHERE id = 3");
    assert_eq!(since(&mut session, 0), Vec::<String>::new());
    database.unseen_deletes(true);
    assert_eq!(since(&mut session, 0), ["3 D 0 NULL"]);
}

#[test]
fn restore_goes_back_and_shows_it() {
    let (database, mut session) = tracked();
    run(&mut session, "UPDATE s.t SET a = 10 WHERE id = 1");
    assert_eq!(database.backup().unwrap(), 1);
    let fork = "SELECT recovery_fork_guid FROM sys.database_recovery_status WHERE database_id = DB_ID()";
    let before = one(&mut session, fork);
    run(&mut session, "UPDATE s.t SET a = 20 WHERE id = 1; INSERT s.t VALUES (7, 7); ALTER TABLE s.t ADD c int");
    assert_eq!(database.restore(2).unwrap(), 1);
    assert_eq!(version(&mut session), 1);
    assert_eq!(query(&mut session, "SELECT * FROM s.t ORDER BY id"), ["1 10", "2 2"]);
    assert_ne!(one(&mut session, fork), before);
    run(&mut session, "UPDATE s.t SET a = 21 WHERE id = 2");
    assert_eq!(since(&mut session, 1), ["2 U 1 21"]);
    assert!(database.restore(0).is_err());
}

#[test]
fn a_table_made_anew_is_another_object() {
    let (database, mut session) = tracked();
    run(&mut session, "CREATE UNIQUE INDEX ix ON s.t (a); UPDATE s.t SET a = 10 WHERE id = 1");
    let before = one(&mut session, "SELECT object_id FROM sys.tables WHERE name = 't'");
    database.recreate("s.t").unwrap();
    assert_ne!(one(&mut session, "SELECT object_id FROM sys.tables WHERE name = 't'"), before);
    assert_eq!(query(&mut session, "SELECT id, a FROM s.t ORDER BY id"), ["1 10", "2 2"]);
    assert_eq!(since(&mut session, 0), Vec::<String>::new());
    assert_eq!(one(&mut session, "SELECT begin_version FROM sys.change_tracking_tables"), "1");
    assert_eq!(error(&mut session, "INSERT s.t VALUES (5, 10)"), 2601);
}

#[test]
fn rowversions_of_open_transactions_hold_the_lower_bound() {
    let database = database();
    let mut writer = database.session("sa").unwrap();
    let mut reader = database.session("sa").unwrap();
    run(&mut writer, "CREATE TABLE t (id int NOT NULL PRIMARY KEY, rv rowversion); INSERT t (id) VALUES (1)");
    let lowest = "SELECT CONVERT(bigint, MIN_ACTIVE_ROWVERSION()), CONVERT(bigint, @@DBTS)";
    assert_eq!(one(&mut reader, lowest), "2002 2001");
    run(&mut writer, "BEGIN TRAN; INSERT t (id) VALUES (2), (3)");
    assert_eq!(one(&mut reader, lowest), "2002 2003");
    run(&mut writer, "COMMIT");
    assert_eq!(one(&mut reader, lowest), "2004 2003");
    assert_eq!(
        query(
            &mut reader,
            "DECLARE @lo binary(8) = 0x00000000000007D2, @hi binary(8) = 0x00000000000007D3;
             SELECT T.id FROM t AS T WHERE T.rv >= @lo AND T.rv < @hi OPTION (MAXDOP 1);"
        ),
        ["2"]
    );
    database.hold_row_versions(true);
    run(&mut writer, "INSERT t (id) VALUES (4)");
    assert_eq!(one(&mut reader, lowest), "2004 2005");
    database.hold_row_versions(false);
    assert_eq!(one(&mut reader, lowest), "2006 2005");
}
