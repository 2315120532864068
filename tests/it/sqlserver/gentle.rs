//! How gently a database is read, whatever is read and why; and that it does not wait for the lake.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use lakegate::etl::{Progress, SyncOptions, TableOutcome, VerifyOptions};
use lakegate::journal::LoadStatus::{Committed, Failed};
use lakegate::journal::VerificationRecord;
use lakegate::journal::VerificationStatus::Same;
use lakegate::model::TableName;
use mssql_fixture::engine::{Database, Gate};

use super::support::Operations;

/// Rows that change, each of some 200 characters: with what the driver makes of them about 300 kB.
const ROWS: i64 = 1_000;
/// The least time that reading them takes with 1 Mbit/s; the rate counts up to the last whole handful of rows.
const LEAST: Duration = Duration::from_millis(1_200);

fn change(ops: &Operations, letter: char) {
    ops.sql(&format!("UPDATE dbo.t SET v = N'{}'", String::from(letter).repeat(200)));
}

async fn wide(method: &str) -> Operations {
    let ops = Operations::start().await;
    ops.kept_by(method, "t", ROWS);
    ops.sql("ALTER TABLE dbo.t ALTER COLUMN v nvarchar(200) NULL");
    change(&ops, 'a');
    ops.sync(Committed).await;
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_holds_for_every_method() {
    futures::future::join_all(["change_tracking", "rowversion", "key_diff", "reload"].map(|method| async move {
        let ops = wide(method).await;
        change(&ops, 'b');
        let begun = Instant::now();
        ops.sync(Committed).await;
        let without = begun.elapsed();
        change(&ops, 'c');
        ops.configure("rate = \"1Mbit/s\"");
        let begun = Instant::now();
        ops.sync(Committed).await;
        let with = begun.elapsed();
        assert!(with >= LEAST, "{method}: {with:?}, and {without:?} without a limit");
        ops.same("t", "id, v").await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_and_the_pauses_hold_for_verification() {
    for (method, more) in [
        ("change_tracking", "rate = \"1Mbit/s\""),
        ("reload", "rate = \"1Mbit/s\""),
        ("change_tracking", "pause = \"1300ms\""),
        ("reload", "pause = \"1300ms\"\nchunk_time = \"1ms\""),
    ] {
        let ops = wide(method).await;
        ops.configure(more);
        let begun = Instant::now();
        let loads = ops.team.loads().await;
        let report = loads.verify(&[], &VerifyOptions::default(), Arc::new(lakegate::etl::Silent)).await.unwrap();
        assert!(report.tables.iter().all(|table| table.status == Same), "{report:?}");
        assert!(begun.elapsed() >= LEAST, "{method}, {more}: {:?}", begun.elapsed());
    }
}

/// A lake that takes nothing more until the source has come to the end of its transaction.
struct Slow {
    gate: Mutex<Option<Gate>>,
    events: Mutex<Vec<u64>>,
}

impl Progress for Slow {
    fn started(&self, _table: &TableName) {}
    fn reading(&self, _table: &TableName, _total_bytes: Option<u64>) {}

    fn advanced(&self, _table: &TableName, rows: u64, _bytes: u64) {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            let committed = tokio::task::block_in_place(|| gate.reached(Duration::from_secs(120)));
            assert!(committed, "the transaction waits for the lake, which has {rows} rows");
            gate.release();
        }
        self.events.lock().unwrap().push(rows);
    }

    fn writing(&self, _table: &TableName) {}
    fn finished(&self, _outcome: &TableOutcome) {}
    fn verified(&self, _record: &VerificationRecord) {}
}

/// Puts so many times 100,000 rows into `dbo.t`, each from its number `{n}`.
fn many(ops: &Operations, row: &str, times: u32) {
    ops.sql("CREATE TABLE dbo.digits (d int NOT NULL PRIMARY KEY)");
    ops.sql("INSERT INTO dbo.digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)");
    let number = "(d1.d + 10 * d2.d + 100 * d3.d + 1000 * d4.d + 10000 * d5.d + 100000 * d6.d)";
    ops.sql(&format!(
        "INSERT INTO dbo.t SELECT {} \
         FROM dbo.digits AS d1 JOIN dbo.digits AS d2 ON 1 = 1 JOIN dbo.digits AS d3 ON 1 = 1 \
         JOIN dbo.digits AS d4 ON 1 = 1 JOIN dbo.digits AS d5 ON 1 = 1 JOIN dbo.digits AS d6 ON d6.d < {times}",
        row.replace("{n}", number)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_transaction_waits_for_the_lake() {
    for method in ["change_tracking", "key_diff"] {
        let ops = Operations::start().await;
        ops.kept_by(method, "t", 10);
        ops.sync(Committed).await;
        many(&ops, "1000 + {n}, N'new'", 2);
        let gate = ops.server.database().faults().hold("COMMIT TRANSACTION");
        let slow = Arc::new(Slow { gate: Mutex::new(Some(gate)), events: Mutex::default() });
        let loads = ops.team.loads().await;
        let report = loads.sync(&[], &SyncOptions::default(), Arc::clone(&slow) as Arc<dyn Progress>).await.unwrap();
        assert!(report.is_success(), "{report:?}");
        // More than ever waits in places: without the way over the disk the source would have had to wait.
        let events = slow.events.lock().unwrap().len();
        assert!(events > 12, "{method}: {events} events");
        assert_eq!(ops.rows("t").await.len(), 200_010);
    }
}

/// A lake that is slow while chunks come, and takes nothing at all from the beginning of the transaction after them to
/// its end. Half of the rows are changed after that reading began.
struct Stuck {
    database: Database,
    transaction: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Stuck {
    fn set(&self, is_open: bool) {
        *self.transaction.lock().unwrap() = Some(is_open);
        self.changed.notify_all();
    }

    /// Watches the server; true when the transaction came to its end while the lake took nothing.
    fn watch(&self, opening: &Gate) -> bool {
        let opened = opening.reached(Duration::from_secs(120));
        let end = self.database.faults().hold("COMMIT TRANSACTION");
        self.set(true);
        opening.release();
        let ended = opened && end.reached(Duration::from_secs(60));
        self.set(false);
        ended
    }
}

impl Progress for Stuck {
    fn started(&self, _table: &TableName) {}

    fn reading(&self, table: &TableName, _total_bytes: Option<u64>) {
        if table.to_string() == "ops.t" {
            let changed =
                tokio::task::block_in_place(|| self.database.execute("UPDATE dbo.t SET v = N'new' WHERE id % 2 = 0"));
            changed.unwrap();
        }
    }

    fn advanced(&self, _table: &TableName, _rows: u64, _bytes: u64) {
        tokio::task::block_in_place(|| {
            let state = self.transaction.lock().unwrap();
            let slow = Duration::from_millis(200);
            let (state, _) = self.changed.wait_timeout_while(state, slow, |open| open.is_none()).unwrap();
            drop(self.changed.wait_while(state, |open| *open == Some(true)).unwrap());
        });
    }

    fn writing(&self, _table: &TableName) {}
    fn finished(&self, _outcome: &TableOutcome) {}
    fn verified(&self, _record: &VerificationRecord) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_transaction_begins_before_the_lake_has_what_came_before_it() {
    for group in ["", "[load]\ngroup = \"books\""] {
        let ops = Operations::start().await;
        ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
        many(&ops, "{n}, N'old'", 1);
        ops.define("t", group);
        if !group.is_empty() {
            ops.numbers("u", 10);
            ops.define("u", group);
        }
        let database = ops.server.database().clone();
        // Asked after the chunks: alone before the transaction, in a group first of all in it.
        let opening = database.faults().hold("CHANGETABLE(CHANGES [dbo].[t], @v0)");
        let stuck = Arc::new(Stuck { database, transaction: Mutex::default(), changed: Condvar::new() });
        let watching = Arc::clone(&stuck);
        let watched = tokio::task::spawn_blocking(move || watching.watch(&opening));
        let loads = ops.team.loads().await;
        let report = loads.sync(&[], &SyncOptions::default(), Arc::clone(&stuck) as Arc<dyn Progress>).await.unwrap();
        assert!(watched.await.unwrap(), "the transaction waits for the lake, {group}: {report:?}");
        assert!(report.is_success(), "{report:?}");
        ops.same("t", "id, v").await;
    }
}

/// A table that is large enough to be cut, whose keys are far apart.
async fn sparse() -> Operations {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
    many(&ops, "1000 * {n}, N'v'", 2);
    ops
}

/// The statement that cuts the key, each time it was asked: whether in a transaction.
fn cuts(ops: &Operations) -> Vec<bool> {
    let seen = ops.server.database().faults().statements();
    seen.iter().filter(|seen| seen.text.contains("NTILE")).map(|seen| seen.in_transaction).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_cut_within_the_hours_and_in_a_transaction() {
    let ops = sparse().await;
    let hour = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).format("%H:00").to_string();
    ops.configure(&format!("hours = \"{}-{}\"", hour(2), hour(4)));
    let refused = ops.sync(Failed).await.record.error.unwrap();
    assert!(refused.contains("outside the hours"), "{refused}");
    assert!(cuts(&ops).is_empty());
    ops.configure("");
    ops.reads(200_000).await;
    assert_eq!(cuts(&ops), [true]);
    assert!(ops.chunks().iter().any(|chunk| chunk.contains("@z1 int = ")), "by parts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_key_the_server_cannot_cut_in_time_is_read_by_one_reader() {
    let ops = sparse().await;
    ops.configure("timeout = \"5s\"");
    let gate = ops.server.database().faults().hold("NTILE");
    ops.sync(Committed).await;
    assert_eq!(cuts(&ops).len(), 1, "not tried again");
    let chunks = ops.chunks();
    assert!(chunks.len() > 3 && chunks.iter().all(|chunk| !chunk.contains("@z1 int = ")), "{chunks:?}");
    drop(gate);
    ops.same("t", "id, v").await;
}

/// Counts what the lake was told.
#[derive(Default)]
struct Told(AtomicUsize);

impl Progress for Told {
    fn started(&self, _table: &TableName) {}
    fn reading(&self, _table: &TableName, _total_bytes: Option<u64>) {}

    fn advanced(&self, _table: &TableName, _rows: u64, _bytes: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn writing(&self, _table: &TableName) {}
    fn finished(&self, _outcome: &TableOutcome) {}
    fn verified(&self, _record: &VerificationRecord) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_rejected_one_after_the_other_do_not_wait_for_the_last() {
    for method in ["change_tracking", "reload"] {
        let ops = Operations::start().await;
        ops.kept_by(method, "t", 1);
        ops.sql("ALTER TABLE dbo.t ALTER COLUMN v nvarchar(max) NULL");
        ops.define("t", &format!("method = \"{method}\"\nmax_cell = \"10B\"\noversize = \"reject\""));
        ops.sync(Committed).await;
        many(&ops, "10 + {n}, N'too large'", 1);
        let told = Arc::new(Told::default());
        let loads = ops.team.loads().await;
        let report = loads.sync(&[], &SyncOptions::default(), Arc::clone(&told) as Arc<dyn Progress>).await.unwrap();
        assert!(report.is_success(), "{report:?}");
        assert_eq!(report.tables[0].record.rows_rejected, 100_000, "{report:?}");
        assert_eq!(ops.rows("t").await, ["1|v1"]);
        // Of each of four batches its rejects, and how far it came.
        let told = told.0.load(Ordering::Relaxed);
        assert!(told >= 8, "{method}: {told} events");
    }
}
