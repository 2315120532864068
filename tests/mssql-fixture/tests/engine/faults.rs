//! Faults, gates, cancelling, the log of statements, bulk loads.

use std::ops::ControlFlow;
use std::time::Duration;

use mssql_fixture::engine::{Collected, Isolation, Output, SqlError, Stop, TransactionEvent};
use mssql_fixture::value::{Column, Value};

use crate::{collect, database, error, one, query, run};

/// Long enough for the slowest machine; nothing waits so long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_statement_fails_before_or_in_the_middle() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); INSERT t VALUES (1), (2), (3)");
    database.faults().fail("from t", 2, SqlError::known(1205), 1);
    run(&mut session, "BEGIN TRAN");
    let collected = collect(&mut session, "SELECT id FROM T");
    assert_eq!(collected.sets[0].rows.len(), 2);
    assert_eq!(collected.errors[0].number, 1205);
    assert!(matches!(collected.events[..], [TransactionEvent::RolledBack(_)]));
    assert_eq!(query(&mut session, "SELECT id FROM t").len(), 3);
    run(&mut session, "EXEC fixture.fail @contains = N'select id', @number = 1222, @times = 2");
    assert_eq!(error(&mut session, "SELECT id FROM t"), 1222);
    assert_eq!(error(&mut session, "SELECT id FROM t"), 1222);
    assert_eq!(error(&mut session, "SELECT id FROM t"), 0);
}

#[test]
fn a_gate_holds_a_statement_until_it_is_released() {
    let database = database();
    let mut writer = database.session("sa").unwrap();
    run(&mut writer, "CREATE TABLE t (id int)");
    let gate = database.faults().hold("select id");
    let mut session = database.session("sa").unwrap();
    let held = std::thread::spawn(move || query(&mut session, "SELECT id FROM t"));
    assert!(gate.reached(PATIENCE));
    assert_eq!(gate.waiting(), 1);
    run(&mut writer, "INSERT t VALUES (7)");
    gate.release();
    assert_eq!(held.join().unwrap(), ["7"]);
}

#[test]
fn a_cancel_ends_gates_waits_and_long_statements() {
    let database = database();
    for batch in ["SELECT 'gate'", "WAITFOR DELAY '00:00:20'", "SELECT COUNT(*) FROM GENERATE_SERIES(1, 100000000000)"]
    {
        let gate = database.faults().hold("'gate'");
        let mut session = database.session("sa").unwrap();
        let cancel = session.cancel_handle();
        let running = std::thread::spawn(move || {
            let stopped = session.run(batch, &[], &mut Collected::default());
            (session, stopped)
        });
        cancel.cancel();
        let (mut session, stopped) = running.join().unwrap();
        assert_eq!(stopped, Err(Stop::Cancelled), "{batch}");
        gate.release();
        let _ = session.cancel_handle();
        assert_eq!(one(&mut session, "SELECT 1"), "1");
    }
}

/// A client that goes away after some rows.
struct Leaves(u32);

impl Output for Leaves {
    fn columns(&mut self, _: &[Column]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn row(&mut self, _: &[Value]) -> ControlFlow<()> {
        self.0 -= 1;
        if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
    fn done(&mut self, _: Option<u64>, _: bool) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn error(&mut self, _: &SqlError) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    fn transaction(&mut self, _: TransactionEvent) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[test]
fn a_client_that_goes_stops_the_batch() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    let stopped = session.run("SELECT value FROM GENERATE_SERIES(1, 100000000000)", &[], &mut Leaves(3));
    assert_eq!(stopped, Err(Stop::Gone));
    assert_eq!(one(&mut session, "SELECT 1"), "1");
}

#[test]
fn a_secondary_refuses_tracking_and_writing() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); ALTER TABLE t ENABLE CHANGE_TRACKING");
    database.read_only_secondary(true);
    assert_eq!(error(&mut session, "SELECT CHANGE_TRACKING_CURRENT_VERSION()"), 22117);
    assert_eq!(error(&mut session, "SELECT * FROM CHANGETABLE(CHANGES t, 0) AS c"), 22117);
    assert_eq!(error(&mut session, "INSERT t VALUES (1)"), 3906);
    assert_eq!(
        one(&mut session, "SELECT CONVERT(nvarchar(60), DATABASEPROPERTYEX(DB_NAME(), 'Updateability'))"),
        "READ_ONLY"
    );
    run(&mut session, "EXEC fixture.read_only_secondary 0; INSERT t VALUES (1)");
}

#[test]
fn the_log_tells_what_was_run_and_how() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    database.faults().forget_statements();
    run(&mut session, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRAN");
    run(&mut session, "SELECT 1");
    let seen = database.faults().statements();
    assert_eq!(seen.len(), 2);
    assert!(seen[1].in_transaction);
    assert_eq!(format!("{:?} {}", seen[1].isolation, seen[1].text), "Snapshot SELECT 1");
    assert_eq!(query(&mut session, "EXEC fixture.statements").len(), 3);
    assert_eq!(query(&mut session, "EXEC fixture.connections"), ["1"]);
}

#[test]
fn faults_of_the_wire_are_kept_for_it() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(
        &mut session,
        "EXEC fixture.cut 100; EXEC fixture.stall 10, 50; EXEC fixture.split_packets 1; EXEC fixture.routing 'other', 1433; EXEC fixture.login_failure 18456",
    );
    let wire = database.faults().wire();
    assert_eq!(wire.cut, Some(100));
    assert_eq!(wire.stall.unwrap().duration, Some(Duration::from_millis(50)));
    assert!(wire.split_packets);
    assert_eq!(wire.routing, Some(("other".into(), 1433)));
    assert_eq!(wire.login_failure, Some(18456));
    assert_eq!(error(&mut session, "EXEC fixture.nope"), 2812);
    run(&mut session, "EXEC fixture.clear");
    assert_eq!(database.faults().wire(), Default::default());
}

#[test]
fn bulk_loads_go_in_whole_or_not_at_all() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY, name nvarchar(10), rv rowversion, made int NOT NULL DEFAULT 3);
         ALTER TABLE s.t ENABLE CHANGE_TRACKING",
    );
    let columns = session
        .bulk("INSERT BULK [s].[t] ([id] int, [name] varchar(20) COLLATE Latin1_General_CI_AS) WITH (TABLOCK)")
        .unwrap();
    assert_eq!(columns.len(), 2);
    let row = |id: i64, name: &str| vec![Value::Int(id), Value::Text(name.to_owned())];
    assert_eq!(session.bulk_rows(vec![row(1, "a"), row(2, "b")]).unwrap(), 2);
    assert_eq!(session.bulk_rows(vec![row(3, "c"), row(1, "d")]).unwrap_err().number, 2627);
    assert_eq!(session.bulk_rows(vec![row(4, "much too long a name")]).unwrap_err().number, 2628);
    assert_eq!(session.bulk_rows(vec![vec![Value::Null, Value::Null]]).unwrap_err().number, 515);
    assert_eq!(
        query(&mut session, "SELECT id, name, made, CONVERT(bigint, rv) FROM s.t"),
        ["1 a 3 2001", "2 b 3 2002"]
    );
    assert_eq!(one(&mut session, "SELECT CHANGE_TRACKING_CURRENT_VERSION()"), "1");
}

#[test]
fn a_cancel_that_comes_too_late_hurts_nobody() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(&mut session, "CREATE TABLE t (id int NOT NULL PRIMARY KEY)");
    session.bulk("INSERT BULK t ([id] int)").unwrap();
    session.begin(None).unwrap();
    let late = session.cancel_handle();
    late.cancel();
    assert_eq!(session.bulk_rows(vec![vec![Value::Int(1)]]).unwrap(), 1);
    late.cancel();
    session.commit().unwrap();
    let _ = session.cancel_handle();
    late.cancel();
    assert_eq!(query(&mut session, "SELECT id FROM t"), ["1"]);
}

#[test]
fn what_a_procedure_sets_ends_with_it() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    let set = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; SET LOCK_TIMEOUT 5000";
    session.run_procedure(set, &[], &mut Collected::default()).unwrap();
    assert_eq!(one(&mut session, "SELECT @@LOCK_TIMEOUT"), "-1");
    run(&mut session, "SELECT 2");
    let last = database.faults().statements().pop().unwrap();
    assert_eq!(last.isolation, Isolation::ReadCommitted);
}
