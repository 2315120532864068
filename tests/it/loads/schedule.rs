//! Tables loaded when they are due.

use std::sync::Arc;
use std::time::Duration;

use lakegate::etl::{Progress, TableOutcome};
use lakegate::model::TableName;
use lakegate::runtime::shutdown::Shutdown;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

use LoadStatus::{Committed, Unchanged};

/// Tells the test of every load that ended.
struct Told(UnboundedSender<TableOutcome>);

impl Progress for Told {
    fn started(&self, _table: &TableName) {}
    fn reading(&self, _table: &TableName, _total_bytes: Option<u64>) {}
    fn advanced(&self, _table: &TableName, _rows: u64, _bytes: u64) {}
    fn writing(&self, _table: &TableName) {}
    fn finished(&self, outcome: &TableOutcome) {
        let _ = self.0.send(outcome.clone());
    }
    fn verified(&self, _record: &lakegate::journal::VerificationRecord) {}
}

async fn next(ended: &mut UnboundedReceiver<TableOutcome>) -> TableOutcome {
    tokio::time::timeout(Duration::from_secs(60), ended.recv()).await.expect("a load was due").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_loaded_again_and_again_until_the_shutdown() {
    let team = team("append", "every = \"50ms\"");
    team.define("s.idle", "[source]\nfiles = \"in/*.csv\"\n");
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    let (sender, mut ended) = unbounded_channel();
    let shutdown = Shutdown::new();
    let loads = team.loads().await;
    let running = {
        let (loads, shutdown) = (loads.clone(), shutdown.clone());
        tokio::spawn(async move { loads.run_schedule(&shutdown, Arc::new(Told(sender))).await })
    };
    assert_eq!(next(&mut ended).await.record.status, Committed);
    assert_eq!(next(&mut ended).await.record.status, Unchanged);
    team.drop_file("in/b.csv", csv(&[(2, "b")]));
    while next(&mut ended).await.record.status != Committed {}
    shutdown.request();
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("the schedule drains").unwrap();
    assert_eq!(team.rows("s.t").await, ["1|a", "2|b"]);
    assert!(team.rows("s.idle").await.is_empty(), "without a schedule it waits for `lakegate sync`");
    let noted = team.open().await.2.loads().await.unwrap();
    assert!(noted.len() >= 3, "the journal is written when the schedule ends: {}", noted.len());
}
