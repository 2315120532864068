//! Transactions: snapshots, one writer, time-outs, errors.

use mssql_fixture::engine::{Isolation, TransactionEvent};

use crate::{collect, database, error, one, query, run};

#[test]
fn a_snapshot_sees_old_rows_while_others_commit() {
    let database = database();
    let mut writer = database.session("sa").unwrap();
    let mut reader = database.session("sa").unwrap();
    run(&mut writer, "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int); INSERT t VALUES (1, 1)");
    run(&mut writer, "ALTER TABLE t ENABLE CHANGE_TRACKING");
    run(&mut reader, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION;");
    // Nothing of the database was read yet: the snapshot is not fixed.
    assert_eq!(one(&mut reader, "SELECT @@TRANCOUNT"), "1");
    run(&mut writer, "UPDATE t SET a = 2");
    assert_eq!(one(&mut reader, "SELECT a FROM t"), "2");
    run(&mut writer, "UPDATE t SET a = 3; INSERT t VALUES (2, 2)");
    assert_eq!(query(&mut reader, "SELECT id, a FROM t"), ["1 2"]);
    assert_eq!(one(&mut reader, "SELECT CHANGE_TRACKING_CURRENT_VERSION()"), "1");
    assert_eq!(query(&mut reader, "SELECT id, SYS_CHANGE_VERSION FROM CHANGETABLE(CHANGES t, 0) AS c"), ["1 1"]);
    run(&mut reader, "COMMIT TRANSACTION");
    assert_eq!(query(&mut reader, "SELECT id, a FROM t ORDER BY id"), ["1 3", "2 2"]);
}

#[test]
fn read_committed_sees_the_latest_commit_and_its_own_work() {
    let database = database();
    let mut writer = database.session("sa").unwrap();
    let mut reader = database.session("sa").unwrap();
    run(&mut writer, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); INSERT t VALUES (1)");
    run(&mut reader, "BEGIN TRAN");
    assert_eq!(one(&mut reader, "SELECT COUNT(*) FROM t"), "1");
    run(&mut writer, "BEGIN TRAN; INSERT t VALUES (2)");
    assert_eq!(one(&mut writer, "SELECT COUNT(*) FROM t"), "2");
    assert_eq!(one(&mut reader, "SELECT COUNT(*) FROM t"), "1");
    run(&mut writer, "COMMIT");
    assert_eq!(one(&mut reader, "SELECT COUNT(*) FROM t"), "2");
    run(&mut reader, "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;");
    assert_eq!(reader.transaction(), None);
}

#[test]
fn snapshots_that_are_not_allowed_are_refused() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int); ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION OFF");
    run(&mut session, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN");
    assert_eq!(error(&mut session, "SELECT * FROM t"), 3952);
    assert_eq!(session.transaction(), None);
    run(
        &mut session,
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRAN; SET TRANSACTION ISOLATION LEVEL SNAPSHOT",
    );
    assert_eq!(error(&mut session, "SELECT * FROM t"), 3951);
}

#[test]
fn ddl_since_the_snapshot_began_ends_it() {
    let database = database();
    let mut writer = database.session("sa").unwrap();
    let mut reader = database.session("sa").unwrap();
    run(&mut writer, "CREATE TABLE t (id int); CREATE TABLE u (id int); CREATE TABLE gone (id int)");
    for (ddl, table) in [("ALTER TABLE t ADD b int", "t"), ("DROP TABLE gone", "gone")] {
        run(&mut reader, "SET XACT_ABORT ON; SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN; SELECT * FROM u");
        run(&mut writer, ddl);
        assert_eq!(query(&mut reader, "SELECT * FROM u"), Vec::<String>::new());
        let collected = collect(&mut reader, &format!("SELECT * FROM {table}"));
        assert_eq!(collected.errors[0].number, 3961);
        assert!(matches!(collected.events[..], [TransactionEvent::RolledBack(_)]));
        assert_eq!(reader.transaction(), None);
    }
    assert_eq!(query(&mut reader, "SELECT * FROM t"), Vec::<String>::new());
}

#[test]
fn writers_queue_and_give_up_after_their_time() {
    let database = database();
    let mut first = database.session("sa").unwrap();
    let mut second = database.session("sa").unwrap();
    run(
        &mut first,
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int); INSERT t VALUES (1, 1); BEGIN TRAN; UPDATE t SET a = 2",
    );
    assert_eq!(error(&mut second, "SET LOCK_TIMEOUT 30; UPDATE t SET a = 3"), 1222);
    assert_eq!(query(&mut second, "SELECT a FROM t"), ["1"]);
    let waiting = std::thread::spawn(move || {
        run(&mut second, "SET LOCK_TIMEOUT -1; UPDATE t SET a = a + 10");
        second
    });
    run(&mut first, "COMMIT");
    let mut second = waiting.join().unwrap();
    assert_eq!(query(&mut second, "SELECT a FROM t"), ["12"]);
}

#[test]
fn a_snapshot_that_is_behind_cannot_write() {
    let database = database();
    let mut first = database.session("sa").unwrap();
    let mut second = database.session("sa").unwrap();
    run(&mut first, "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int); INSERT t VALUES (1, 1)");
    run(&mut second, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN; SELECT * FROM t");
    run(&mut first, "UPDATE t SET a = 2");
    assert_eq!(error(&mut second, "UPDATE t SET a = 3"), 3960);
    assert_eq!(second.transaction(), None);
}

#[test]
fn errors_end_what_xact_abort_says() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int NOT NULL PRIMARY KEY)");
    let collected =
        collect(&mut session, "BEGIN TRAN; INSERT t VALUES (1); INSERT t VALUES (1); INSERT t VALUES (2); COMMIT");
    assert_eq!(collected.errors[0].number, 2627);
    assert_eq!(query(&mut session, "SELECT id FROM t"), ["1", "2"]);
    let collected = collect(
        &mut session,
        "SET XACT_ABORT ON; BEGIN TRAN; INSERT t VALUES (3); INSERT t VALUES (1); INSERT t VALUES (4)",
    );
    assert_eq!(collected.errors.len(), 1);
    assert_eq!(collected.events.len(), 2);
    assert_eq!(query(&mut session, "SELECT id FROM t"), ["1", "2"]);
    assert_eq!(error(&mut session, "COMMIT"), 3902);
}

#[test]
fn requests_of_the_driver_begin_and_end_transactions() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int)");
    let descriptor = session.begin(Some(Isolation::Snapshot)).unwrap();
    assert_eq!(session.transaction(), Some(descriptor));
    run(&mut session, "INSERT t VALUES (1); BEGIN TRAN; COMMIT");
    assert_eq!(session.commit().unwrap(), Some(descriptor));
    session.begin(None).unwrap();
    run(&mut session, "INSERT t VALUES (2)");
    session.rollback().unwrap();
    assert_eq!(session.rollback().unwrap_err().number, 3903);
    assert_eq!(query(&mut session, "SELECT id FROM t"), ["1"]);
}

#[test]
fn a_session_that_goes_leaves_nothing() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int, rv rowversion); BEGIN TRAN; INSERT t (id) VALUES (1)");
    assert_eq!(database.faults().connections(), 1);
    drop(session);
    assert_eq!(database.faults().connections(), 0);
    let mut session = database.session("sa").unwrap();
    run(&mut session, "INSERT t (id) VALUES (2)");
    assert_eq!(query(&mut session, "SELECT id FROM t"), ["2"]);
}

#[test]
fn many_readers_see_whole_commits_while_one_writes() {
    let database = database();
    database
        .execute(
            "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int NOT NULL); ALTER TABLE t ENABLE CHANGE_TRACKING;
             INSERT t VALUES (1, 500), (2, 500)",
        )
        .unwrap();
    let writer = {
        let mut session = database.session("sa").unwrap();
        std::thread::spawn(move || {
            for _ in 0..200 {
                run(
                    &mut session,
                    "BEGIN TRAN; UPDATE t SET a = a - 1 WHERE id = 1; UPDATE t SET a = a + 1 WHERE id = 2; COMMIT",
                );
            }
        })
    };
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let mut session = database.session("sa").unwrap();
            std::thread::spawn(move || {
                let mut last = 0;
                while last < 201 {
                    run(&mut session, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN");
                    let version: i64 = one(&mut session, "SELECT CHANGE_TRACKING_CURRENT_VERSION()").parse().unwrap();
                    let changes =
                        one(&mut session, "SELECT MAX(SYS_CHANGE_VERSION) FROM CHANGETABLE(CHANGES t, 0) AS c");
                    assert_eq!(changes, version.to_string());
                    assert_eq!(one(&mut session, "SELECT SUM(a) FROM t"), "1000");
                    assert_eq!(one(&mut session, "SELECT a FROM t WHERE id = 2"), (500 + version - 1).to_string());
                    run(&mut session, "COMMIT");
                    assert!(version >= last);
                    last = version;
                }
            })
        })
        .collect();
    writer.join().unwrap();
    for reader in readers {
        reader.join().unwrap();
    }
}
