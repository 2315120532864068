//! How gently a database is read, whatever is read and why; and that it does not wait for the lake.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lakegate::etl::{Progress, SyncOptions, TableOutcome, VerifyOptions};
use lakegate::journal::LoadStatus::Committed;
use lakegate::journal::VerificationRecord;
use lakegate::journal::VerificationStatus::Same;
use lakegate::model::TableName;
use mssql_fixture::engine::Gate;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_transaction_waits_for_the_lake() {
    for method in ["change_tracking", "key_diff"] {
        let ops = Operations::start().await;
        ops.kept_by(method, "t", 10);
        ops.sync(Committed).await;
        ops.sql("CREATE TABLE dbo.digits (d int NOT NULL PRIMARY KEY)");
        ops.sql("INSERT INTO dbo.digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)");
        ops.sql(
            "INSERT INTO dbo.t (id, v) \
             SELECT 1000 + d1.d + 10 * d2.d + 100 * d3.d + 1000 * d4.d + 10000 * d5.d + 100000 * d6.d, N'new' \
             FROM dbo.digits AS d1 JOIN dbo.digits AS d2 ON 1 = 1 JOIN dbo.digits AS d3 ON 1 = 1 \
             JOIN dbo.digits AS d4 ON 1 = 1 JOIN dbo.digits AS d5 ON 1 = 1 JOIN dbo.digits AS d6 ON d6.d < 2",
        );
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
