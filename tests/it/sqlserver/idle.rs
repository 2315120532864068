//! What loads cost when little or nothing has happened, and what they may put off.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use lakegate::etl::{Loads, Progress, Silent, SyncOptions, TableOutcome};
use lakegate::journal::LoadStatus::{Committed, Deferred, Unchanged};
use lakegate::journal::VerificationRecord;
use lakegate::model::TableName;
use lakegate::runtime::clock::{Clock, ManualClock};
use lakegate::runtime::shutdown::Shutdown;

use super::support::Operations;

/// Loads the table `a` at the time of a clock.
async fn sync_at(ops: &Operations, clock: &Arc<ManualClock>) -> TableOutcome {
    let (settings, lake, journal, clock) = ops.team.open_at(Arc::clone(clock) as Arc<dyn Clock>).await;
    let loads = Loads::new(settings, lake, journal, clock);
    let table = "ops.a".parse().unwrap();
    loads.sync(&[table], &SyncOptions::default(), Arc::new(Silent)).await.unwrap().tables.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_a_database_where_nothing_happened_is_one_statement() {
    let ops = Operations::start().await;
    ops.numbers("t", 10);
    ops.reads(10).await;
    ops.server.database().faults().forget_statements();
    ops.sync(Unchanged).await;
    let statements: Vec<String> =
        ops.server.database().faults().statements().into_iter().map(|statement| statement.text).collect();
    // The connection's settings are the other.
    assert!(statements.len() <= 2, "{statements:#?}");
}

/// Counts loads that ended.
struct Ended(tokio::sync::watch::Sender<usize>);

impl Progress for Ended {
    fn started(&self, _table: &TableName) {}
    fn reading(&self, _table: &TableName, _total_bytes: Option<u64>) {}
    fn advanced(&self, _table: &TableName, _rows: u64, _bytes: u64) {}
    fn writing(&self, _table: &TableName) {}
    fn verified(&self, _record: &VerificationRecord) {}
    fn finished(&self, outcome: &TableOutcome) {
        assert_eq!(outcome.record.status, Unchanged, "{outcome:?}");
        self.0.send_modify(|ended| *ended += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_due_at_about_the_same_time_share_one_question() {
    const TABLES: usize = 12;
    let ops = Operations::start().await;
    for table in 0..TABLES {
        let name = format!("t{table}");
        ops.numbers(&name, 3);
        let source = format!("[source]\nconnection = \"ops\"\ntable = \"dbo.{name}\"\n");
        ops.team.define(&format!("ops.{name}"), &format!("{source}[load]\nevery = \"1h\"\n"));
    }
    assert!(ops.team.sync().await.is_success());
    ops.server.database().faults().forget_statements();
    let (stop, loads) = (Shutdown::default(), ops.team.loads().await);
    let (ended, mut all) = tokio::sync::watch::channel(0);
    let until_all = async {
        all.wait_for(|ended| *ended == TABLES).await.unwrap();
        stop.request();
    };
    tokio::join!(loads.run_schedule(&stop, Arc::new(Ended(ended))), until_all);
    let statements = ops.server.database().faults().statements();
    let questions = statements.iter().filter(|statement| statement.text.contains("CHANGE_TRACKING")).count();
    assert_eq!(questions, 1, "{statements:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_an_idle_table_moves_on_before_its_changes_are_forgotten() {
    let ops = Operations::start().await;
    ops.numbers("a", 10);
    ops.sql("CREATE TABLE dbo.busy (id int NOT NULL PRIMARY KEY)");
    ops.sql("ALTER TABLE dbo.busy ENABLE CHANGE_TRACKING");
    let clock = Arc::new(ManualClock::new(Utc::now()));
    let first = sync_at(&ops, &clock).await;
    let version = Operations::version(&first);
    ops.sql("INSERT INTO dbo.busy VALUES (1)");
    clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(sync_at(&ops, &clock).await.record.status, Unchanged, "not at every poll");
    clock.advance(std::time::Duration::from_secs(4 * 3_600));
    let moved = sync_at(&ops, &clock).await;
    assert_eq!((moved.record.status, moved.record.rows_read), (Committed, 0), "{moved:?}");
    assert!(Operations::version(&moved) > version);
    ops.server.database().expire("dbo.a", version + 1).unwrap();
    ops.sql("UPDATE dbo.a SET v = N'x' WHERE id = 3");
    let last = sync_at(&ops, &clock).await;
    assert_eq!((last.record.status, last.record.rows_read), (Committed, 1), "{last:?}");
    ops.same("a", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_does_no_harm() {
    let ops = Operations::start().await;
    ops.numbers("a", 10);
    let clock = Arc::new(ManualClock::new(Utc::now()));
    sync_at(&ops, &clock).await;
    let earlier = Arc::new(ManualClock::new(Utc::now() - TimeDelta::days(400)));
    ops.sql("UPDATE dbo.a SET v = N'x' WHERE id = 3");
    let outcome = sync_at(&ops, &earlier).await;
    assert_eq!((outcome.record.status, outcome.record.rows_read), (Committed, 1), "{outcome:?}");
    assert_eq!(sync_at(&ops, &clock).await.record.status, Unchanged);
    ops.same("a", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_scattered_changes_of_a_large_table_wait_for_more_but_not_for_ever() {
    let ops = Operations::start().await;
    ops.numbers("a", 30_000);
    let clock = Arc::new(ManualClock::new(Utc::now()));
    assert_eq!(sync_at(&ops, &clock).await.record.status, Committed);
    // After a quiet time a change is as young as after a busy one.
    clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(sync_at(&ops, &clock).await.record.status, Unchanged);
    ops.sql("UPDATE dbo.a SET v = N'x' WHERE id IN (5, 15000, 29999)");
    clock.advance(std::time::Duration::from_secs(60));
    let put_off = sync_at(&ops, &clock).await;
    assert_eq!(put_off.record.status, Deferred, "{put_off:?}");
    assert!(put_off.note.unwrap_or_default().contains("--now"));
    clock.advance(std::time::Duration::from_secs(14 * 60));
    assert_eq!(sync_at(&ops, &clock).await.record.status, Deferred);
    // It counts from the first load that put it off.
    clock.advance(std::time::Duration::from_secs(60));
    let done = sync_at(&ops, &clock).await;
    assert_eq!((done.record.status, done.record.rows_read), (Committed, 3), "{done:?}");
    ops.same("a", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_for_many_tables() {
    let ops = Operations::start().await;
    ops.configure("max_connections = 1");
    for name in ["a", "b", "c", "d"] {
        ops.numbers(name, 50);
    }
    for _ in 0..2 {
        let report = tokio::time::timeout(std::time::Duration::from_secs(60), ops.team.sync()).await.unwrap();
        assert!(report.is_success(), "{report:?}");
        for name in ["a", "b", "c", "d"] {
            ops.same(name, "id, v").await;
            ops.sql(&format!("DELETE FROM dbo.{name} WHERE id % 3 = 0"));
        }
    }
    assert_eq!(ops.server.database().faults().connections(), 0, "connections are closed with the program");
}
