//! Tables that are read at one moment and shown together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use futures::TryStreamExt;
use lakegate::access::{Access, Principal};
use lakegate::etl::{Loads, Silent, SyncOptions, SyncReport, TableOutcome};
use lakegate::journal::LoadStatus::{self, Committed, Deferred, Failed, Unchanged};
use lakegate::query::{LakeEngine, QueryEngine, Statement, StatementOptions, TablePins};
use lakegate::runtime::clock::{Clock, ManualClock};
use lakegate::runtime::shutdown::Shutdown;
use mssql_fixture::engine::{Database, Gate, SqlError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::support::{Operations, reached};
use crate::support::process::told;

/// Rows of all tables together, and what they have at first.
const ROWS: i64 = 200;
const EACH: i64 = 100;
/// What is asked of two tables: the number of rows, and the sum of what they have.
const SUM: &str = "select (select count(*) from ops.a) + (select count(*) from ops.b), \
                   coalesce((select sum(n) from ops.a), 0) + coalesce((select sum(n) from ops.b), 0)";

fn in_group(ops: &Operations, name: &str, more: &str) {
    let table = format!("[source]\nconnection = \"ops\"\ntable = \"dbo.{name}\"\n");
    ops.team.define(&format!("ops.{name}"), &format!("{table}[load]\ngroup = \"books\"\n{more}"));
}

fn book(ops: &Operations, name: &str) {
    ops.table(name, "id int NOT NULL PRIMARY KEY, n bigint NOT NULL");
    in_group(ops, name, "");
}

/// Two tables, `a` with all rows.
async fn books() -> Operations {
    let ops = Operations::start().await;
    book(&ops, "a");
    book(&ops, "b");
    let rows: Vec<String> = (0..ROWS).map(|id| format!("({id}, {EACH})")).collect();
    ops.sql(&format!("INSERT INTO dbo.a VALUES {}", rows.join(", ")));
    ops
}

fn in_one_transaction(database: &Database, statements: &str) {
    let text = format!("BEGIN TRANSACTION; {statements}; COMMIT TRANSACTION;");
    database.execute(&text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
}

/// Takes a row that nothing was taken from out of one table into the other.
fn move_row(ops: &Operations, id: i64, from: &str, to: &str) {
    in_one_transaction(
        ops.server.database(),
        &format!("DELETE FROM dbo.{from} WHERE id = {id}; INSERT INTO dbo.{to} VALUES ({id}, {EACH})"),
    );
}

/// What people see: a statement over the published state.
struct People(LakeEngine);

impl People {
    async fn of(ops: &Operations) -> Self {
        let (settings, lake, journal, clock) = ops.team.open().await;
        Self(LakeEngine::new(settings, lake, journal, clock).unwrap())
    }

    async fn ask(&self, sql: &str) -> Result<Vec<String>, String> {
        let options = StatementOptions::default();
        let statement = Statement { sql: sql.to_owned(), parameters: vec![], pins: TablePins::new(), options };
        let planned = self
            .0
            .plan(statement, &Access::unrestricted(Principal::operator()))
            .await
            .map_err(|error| error.to_string())?;
        let stream = self.0.execute(&planned, Duration::from_secs(60)).await.map_err(|error| error.to_string())?;
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        let told = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
        let rows = told.lines().skip(3).filter(|line| line.starts_with('|'));
        Ok(rows
            .map(|row| row.trim_matches('|').replace('|', " ").split_whitespace().collect::<Vec<_>>().join(" "))
            .collect())
    }

    /// How many rows `a` and `b` have in the published state.
    async fn rows(&self) -> (i64, i64) {
        let told = self.ask("select (select count(*) from ops.a), (select count(*) from ops.b)").await.unwrap();
        let (a, b) = told[0].split_once(' ').unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    }
}

async fn sync(loads: &Loads, options: &SyncOptions) -> SyncReport {
    let report = loads.sync(&[], options, Arc::new(Silent));
    tokio::time::timeout(Duration::from_secs(120), report)
        .await
        .expect("the loads of a group wait for each other")
        .unwrap()
}

fn by_name(report: &SyncReport) -> BTreeMap<String, &TableOutcome> {
    report.tables.iter().map(|outcome| (outcome.record.table.to_string(), outcome)).collect()
}

fn statuses(report: &SyncReport) -> Vec<LoadStatus> {
    by_name(report).values().map(|outcome| outcome.record.status).collect()
}

/// All is there, in a state that was.
async fn in_step(ops: &Operations, tables: &[&str]) {
    let people = People::of(ops).await;
    for table in tables {
        let here = people.ask(&format!("select id, n from ops.{table} order by id")).await.unwrap();
        let mut there = ops.there(&format!("SELECT id, n FROM dbo.{table}"));
        there.sort_by_key(|row| row.split('|').next().unwrap().parse::<i64>().unwrap());
        let there: Vec<String> = there.into_iter().map(|row| row.replace('|', " ")).collect();
        assert_eq!(here, there, "{table}");
    }
}

/// Ends the transfers, also where a test fails.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moves rows and what they have from one table to the other, until it is told to stop.
fn transfers(database: &Database, seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut in_b = vec![false; usize::try_from(ROWS).unwrap()];
    let name = |in_b: bool| if in_b { "b" } else { "a" };
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let (one, other) = (random.random_range(0..in_b.len()), random.random_range(0..in_b.len()));
        let amount = random.random_range(1..50);
        let (from, to) = (name(in_b[one]), name(in_b[other]));
        let mut statements = format!(
            "UPDATE dbo.{from} SET n = n - {amount} WHERE id = {one}; UPDATE dbo.{to} SET n = n + {amount} WHERE id = {other}"
        );
        if random.random_bool(0.5) {
            let there = name(!in_b[one]);
            let moved =
                format!("; INSERT INTO dbo.{there} (id, n) SELECT id, n FROM dbo.{} WHERE id = {one}", name(in_b[one]));
            statements += &format!("{moved}; DELETE FROM dbo.{} WHERE id = {one}", name(in_b[one]));
            in_b[one] = !in_b[one];
        }
        in_one_transaction(database, &statements);
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_goes_from_one_table_to_another_in_one_transaction_is_never_seen_twice_or_not_at_all() {
    sums_stay(books().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_that_are_read_by_other_methods_are_of_one_moment_too() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.a (id int NOT NULL PRIMARY KEY, n bigint NOT NULL, rv rowversion)");
    ops.sql("CREATE TABLE dbo.b (id int NOT NULL PRIMARY KEY, n bigint NOT NULL)");
    for (name, method) in [("a", "rowversion"), ("b", "key_diff")] {
        let table = format!("[source]\nconnection = \"ops\"\ntable = \"dbo.{name}\"\nmethod = \"{method}\"\n");
        ops.team.define(&format!("ops.{name}"), &format!("{table}[load]\ngroup = \"books\"\n"));
    }
    let rows: Vec<String> = (0..ROWS).map(|id| format!("({id}, {EACH})")).collect();
    ops.sql(&format!("INSERT INTO dbo.a (id, n) VALUES {}", rows.join(", ")));
    sums_stay(ops).await;
}

/// Transfers between `a` and `b` while they are loaded: every state that is published has all rows and the whole sum.
async fn sums_stay(ops: Operations) {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let (stop, database) = (Arc::new(AtomicBool::new(false)), ops.server.database().clone());
    let expected = format!("{ROWS} {}", ROWS * EACH);
    let loads = ops.team.loads().await;
    let people = People::of(&ops).await;
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    let done = Arc::clone(&stop);
    let _stop = StopOnDrop(Arc::clone(&stop));
    let writer = tokio::task::spawn_blocking(move || transfers(&database, seed, &done));
    let mut states = HashSet::new();
    let loading = async {
        for load in 0..25 {
            let report = sync(&loads, &now).await;
            assert!(report.is_success(), "seed {seed}, load {load}: {report:?}");
            assert_eq!(
                people.ask(SUM).await.unwrap(),
                std::slice::from_ref(&expected),
                "seed {seed}, load {load}: {report:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
    };
    let reading = async {
        let mut seen = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            match people.ask(SUM).await {
                Ok(rows) => {
                    assert_eq!(rows, std::slice::from_ref(&expected), "seed {seed}, after {seen} looks");
                    seen += 1;
                    states.insert(people.rows().await);
                }
                // Before the first load of all.
                Err(error) => assert!(seen == 0 && error.contains("books"), "seed {seed}: {error}"),
            }
            tokio::task::yield_now().await;
        }
        println!("{seen} looks");
    };
    tokio::join!(loading, reading);
    println!("{} states, {} transfers", states.len(), writer.await.unwrap());
    assert!(states.len() > 3, "seed {seed}: readers saw {states:?}");
    assert!(sync(&loads, &now).await.is_success(), "seed {seed}");
    in_step(&ops, &["a", "b"]).await;
}

/// Does something when a statement has come to a gate, then lets it go on.
async fn at(gate: Gate, act: impl FnOnce()) {
    let gate = reached(gate).await;
    act();
    gate.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_shows_one_state_of_all_tables_whatever_is_changed_meanwhile() {
    for held in ["a", "b"] {
        let ops = books().await;
        // One table is read before the change, the other after it.
        let gate = ops.server.database().faults().hold(&format!("FROM [dbo].[{held}] AS T ORDER BY"));
        let loads = ops.team.loads().await;
        let change = at(gate, || move_row(&ops, 7, "a", "b"));
        let options = SyncOptions::default();
        let (report, ()) = tokio::join!(sync(&loads, &options), change);
        assert_eq!(statuses(&report), [Committed, Committed], "{report:?}");
        assert_eq!(People::of(&ops).await.rows().await, (ROWS - 1, 1));
        in_step(&ops, &["a", "b"]).await;
        let versions = by_name(&report).into_values().map(Operations::version).collect::<Vec<_>>();
        assert_eq!(versions[0], versions[1], "all are read in one transaction");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_killed_between_two_commits_shows_the_old_state_until_all_are_loaded() {
    let ops = books().await;
    assert!(ops.team.sync().await.is_success());
    move_row(&ops, 7, "a", "b");
    for point in ["lake.commit.after", "lake.manifest.before"] {
        let mut program = ops.program(&[(point, "return(kill)")]);
        let killed = tokio::task::spawn_blocking(move || program.arg("--now").output().unwrap()).await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&killed.status), Some(9), "{}", told(&killed));
        assert_eq!(People::of(&ops).await.rows().await, (ROWS, 0), "{point}");
    }
    let report = ops.team.sync().await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!(People::of(&ops).await.rows().await, (ROWS - 1, 1));
    in_step(&ops, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_fails_keeps_the_old_state_in_sight_and_the_others_go_on() {
    let ops = books().await;
    assert!(ops.team.sync().await.is_success());
    move_row(&ops, 7, "a", "b");
    let faults = ops.server.database().faults().clone();
    for failing in ["a", "b"] {
        let broken = SqlError::new(8134, 16, "Divide by zero error encountered.");
        faults.fail(&format!("CHANGETABLE(CHANGES [dbo].[{failing}], @last)"), 0, broken, 1);
        let now = SyncOptions { now: true, ..SyncOptions::default() };
        let report = ops.team.sync_with(&now).await;
        let found = by_name(&report)[&format!("ops.{failing}")].record.clone();
        assert_eq!(found.status, Failed, "{report:?}");
        assert!(found.error.unwrap().contains("8134"));
        let failed = statuses(&report).into_iter().filter(|status| *status == Failed).count();
        assert_eq!(failed, 1, "the other member is loaded: {report:?}");
        assert_eq!(People::of(&ops).await.rows().await, (ROWS, 0), "and not shown");
        move_row(&ops, if failing == "a" { 8 } else { 9 }, "a", "b");
    }
    faults.clear();
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    assert!(ops.team.sync_with(&now).await.is_success());
    in_step(&ops, &["a", "b"]).await;
    assert_eq!(People::of(&ops).await.rows().await, (ROWS - 3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_never_loaded_whole_is_not_shown() {
    let ops = books().await;
    let faults = ops.server.database().faults().clone();
    faults.fail("FROM [dbo].[b] AS T", 0, SqlError::new(8134, 16, "for a test"), 1);
    let report = ops.team.sync().await;
    assert_eq!(statuses(&report), [Committed, Failed], "{report:?}");
    let error = People::of(&ops).await.ask("select * from ops.a").await.unwrap_err();
    assert!(error.contains("group books") && error.contains("lakegate sync ops.a"), "{error}");
    assert!(ops.team.sync().await.is_success());
    in_step(&ops, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_met_by_reading_all_tables_again() {
    let ops = books().await;
    assert!(ops.team.sync().await.is_success());
    let faults = ops.server.database().faults().clone();
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    for (id, statement) in
        ["[dbo].[a], @last", "[dbo].[b], @last", "@v0 bigint", "COMMIT", "CURRENT_VERSION();"].iter().enumerate()
    {
        move_row(&ops, i64::try_from(id).unwrap(), "a", "b");
        faults.fail(statement, 0, SqlError::known(1205), 1);
        let report = ops.team.sync_with(&now).await;
        assert_eq!(statuses(&report), [Committed, Committed], "{statement}: {report:?}");
        in_step(&ops, &["a", "b"]).await;
        faults.clear();
    }
    for bytes in [0, 9, 60] {
        move_row(&ops, 100 + bytes, "a", "b");
        let gate = faults.hold("@last bigint");
        let (report, ()) = tokio::join!(ops.team.sync_with(&now), at(gate, || faults.cut(bytes.unsigned_abs())));
        assert_eq!(statuses(&report), [Committed, Committed], "{bytes}: {report:?}");
        in_step(&ops, &["a", "b"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_somebody_else_changes_is_waited_for_once() {
    let ops = books().await;
    ops.configure("[limits]\nlease_wait = \"200ms\"");
    assert!(ops.team.sync().await.is_success());
    move_row(&ops, 7, "a", "b");
    let lake = ops.team.open().await.1;
    let lease = lake.table(&"ops.a".parse().unwrap()).lease("a long load", Duration::from_secs(10)).await.unwrap();
    let faults = ops.server.database().faults();
    faults.forget_statements();
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    let report = ops.team.sync_with(&now).await;
    assert_eq!(statuses(&report), [Failed, Committed], "{report:?}");
    let record = &by_name(&report)["ops.a"].record;
    assert!(record.error.as_deref().unwrap().contains("a long load"), "{record:?}");
    assert_eq!(record.error_kind.unwrap().as_str(), "conflict");
    // Once a round.
    let asks = |text: &str| text.starts_with("SELECT s.name, t.name, CHANGE_TRACKING_CURRENT_VERSION()");
    let rounds = faults.statements().iter().filter(|seen| asks(&seen.text)).count();
    assert_eq!(rounds, 1, "the other member is read once");
    lease.release().await;
    assert!(ops.team.sync_with(&now).await.is_success());
    in_step(&ops, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_tables_need_one_slot_and_one_connection() {
    let ops = books().await;
    ops.configure("max_connections = 1\n[limits]\nparallel_tables = 1");
    book(&ops, "c");
    // Not of the group, and loaded beside it.
    ops.numbers("other", 20);
    let loads = ops.team.loads().await;
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    assert!(sync(&loads, &now).await.is_success());
    for id in 0..3 {
        move_row(&ops, id, "a", "b");
        let report = sync(&loads, &now).await;
        assert_eq!(statuses(&report), [Committed, Committed, Unchanged, Unchanged], "{report:?}");
        assert_eq!(sync(&loads, &now).await.tables.len(), 4);
    }
    ops.sql("INSERT INTO dbo.c VALUES (1, 1)");
    let report = sync(&loads, &now).await;
    assert_eq!(statuses(&report), [Unchanged, Unchanged, Committed, Unchanged], "{report:?}");
    in_step(&ops, &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_where_nothing_happened_costs_one_question() {
    let ops = books().await;
    let loads = ops.team.loads().await;
    let options = SyncOptions::default();
    assert!(sync(&loads, &options).await.is_success());
    ops.sql("UPDATE dbo.a SET n = n + 1");
    assert_eq!(statuses(&sync(&loads, &options).await), [Committed, Unchanged]);
    let faults = ops.server.database().faults();
    faults.forget_statements();
    assert_eq!(statuses(&sync(&loads, &options).await), [Unchanged, Unchanged]);
    let asked: Vec<String> = faults.statements().into_iter().map(|statement| statement.text).collect();
    assert!(asked.len() <= 2, "besides trying the connection: {asked:#?}");
    assert!(!asked.iter().any(|text| text.contains("BEGIN")), "{asked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_history_is_read_whole_and_shown_with_the_others() {
    let ops = books().await;
    assert!(ops.team.sync().await.is_success());
    move_row(&ops, 7, "a", "b");
    let version = ops.there("SELECT CHANGE_TRACKING_CURRENT_VERSION()")[0].parse().unwrap();
    ops.server.database().expire("dbo.a", version).unwrap();
    let gate = ops.server.database().faults().hold("SELECT TOP (");
    let change = at(gate, || move_row(&ops, 8, "a", "b"));
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    let (report, ()) = tokio::join!(ops.team.sync_with(&now), change);
    assert_eq!(statuses(&report), [Committed, Committed], "{report:?}");
    assert_eq!(by_name(&report)["ops.a"].record.rows_written, 198, "read whole");
    assert_eq!(People::of(&ops).await.rows().await, (ROWS - 2, 2));
    in_step(&ops, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_read_whole_in_the_transaction_of_its_group() {
    let ops = books().await;
    ops.sql("CREATE TABLE dbo.heap (id int NOT NULL, n bigint NOT NULL)");
    in_group(&ops, "heap", "");
    assert!(ops.team.sync().await.is_success());
    for id in 0..3 {
        // After the catalogue was looked at for one of them, and before their common moment.
        let gate = ops.server.database().faults().hold("@v0 bigint");
        let change = at(gate, || move_row(&ops, id, "a", "heap"));
        move_row(&ops, 50 + id, "a", "b");
        let now = SyncOptions { now: true, ..SyncOptions::default() };
        let (report, ()) = tokio::join!(ops.team.sync_with(&now), change);
        assert!(report.is_success(), "{report:?}");
        let sum =
            "select (select count(*) from ops.a) + (select count(*) from ops.b) + (select count(*) from ops.heap)";
        assert_eq!(People::of(&ops).await.ask(sum).await.unwrap(), [ROWS.to_string()]);
        assert!(ops.team.sync_with(&now).await.is_success());
        in_step(&ops, &["a", "b", "heap"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_were_put_off_are_all_loaded_when_one_has_waited_long_enough() {
    let ops = Operations::start().await;
    for name in ["a", "b"] {
        ops.numbers(name, 30_000);
        in_group(&ops, name, "");
    }
    let clock = Arc::new(ManualClock::new(Utc::now()));
    let (settings, lake, journal, _) = ops.team.open_at(Arc::clone(&clock) as Arc<dyn Clock>).await;
    let loads = Loads::new(settings, lake.clone(), journal, Arc::clone(&clock) as Arc<dyn Clock>);
    let published = async || lake.manifests().newest("books").await.unwrap().unwrap();
    let options = SyncOptions::default();
    assert_eq!(statuses(&sync(&loads, &options).await), [Committed, Committed]);
    let first = published().await;
    let scattered = |table: &str, text: &str| {
        ops.sql(&format!("UPDATE dbo.{table} SET v = N'{text}' WHERE id IN (5, 15000, 29999)"));
    };
    clock.advance(Duration::from_secs(600));
    scattered("a", "once");
    ops.sql("UPDATE dbo.b SET v = N'all'");
    assert_eq!(statuses(&sync(&loads, &options).await), [Deferred, Committed]);
    assert_eq!(published().await, first, "half of it is not shown");
    clock.advance(Duration::from_secs(900));
    scattered("b", "once");
    assert_eq!(
        statuses(&sync(&loads, &options).await),
        [Committed, Committed],
        "`b` alone would wait for 15 minutes more"
    );
    assert_ne!(published().await, first);
    for name in ["a", "b"] {
        ops.same(name, "id, v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_snapshots_there_is_no_common_moment() {
    let ops = Operations::bare().await;
    ops.sql("ALTER DATABASE ops SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)");
    ops.configure("isolation = \"snapshot_or_read_committed\"");
    book(&ops, "a");
    book(&ops, "b");
    let report = ops.team.sync().await;
    assert_eq!(statuses(&report), [Failed, Failed], "{report:?}");
    for outcome in &report.tables {
        let error = outcome.record.error.as_deref().unwrap();
        assert!(error.contains("ALLOW_SNAPSHOT_ISOLATION") && error.contains("`group`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_that_wait_for_each_other_give_up_when_they_are_asked_to() {
    let ops = books().await;
    let gate = ops.server.database().faults().hold("FROM [dbo].[b] AS T ORDER BY");
    let stop = Shutdown::new();
    let options = SyncOptions { stop: stop.clone(), ..SyncOptions::default() };
    let loads = ops.team.loads().await;
    let asking = async {
        let gate = reached(gate).await;
        stop.request();
        gate
    };
    let (report, gate) = tokio::join!(sync(&loads, &options), asking);
    assert_eq!(statuses(&report), [Failed, Failed], "{report:?}");
    gate.release();
    assert!(ops.team.sync().await.is_success());
    in_step(&ops, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_that_load_the_same_group_do_not_wait_for_each_other_for_ever() {
    let ops = books().await;
    let (one, other) = (ops.team.loads().await, ops.team.loads().await);
    let now = SyncOptions { now: true, ..SyncOptions::default() };
    for id in 0..5 {
        move_row(&ops, id, "a", "b");
        let (first, second) = tokio::join!(sync(&one, &now), sync(&other, &now));
        assert!(first.is_success() && second.is_success(), "{first:?}\n{second:?}");
        assert_eq!(People::of(&ops).await.rows().await, (ROWS - id - 1, id + 1));
    }
    in_step(&ops, &["a", "b"]).await;
}
