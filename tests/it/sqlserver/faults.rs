//! Bad days on the way to the server and within it: each load ends right or changes nothing, and says what to do.

use std::time::Duration;

use lakegate::etl::TableOutcome;
use lakegate::journal::LoadStatus::{Committed, Failed, Unchanged};
use mssql_fixture::engine::{Faults, Gate, SqlError};
use mssql_fixture::{Server, ServerOptions};

use super::support::{Operations, reached};

const ROWS: i64 = 2_000;
/// What only statements that read chunks, or changes, have in them.
const CHUNK: &str = "SELECT TOP (";
const POLL: &str = "@last bigint";

async fn numbers() -> Operations {
    let ops = Operations::start().await;
    ops.configure("timeout = \"2s\"\nlock_timeout = \"1s\"");
    ops.numbers("t", ROWS);
    ops
}

fn faults(ops: &Operations) -> Faults {
    ops.server.database().faults().clone()
}

/// Does something when a statement has come to a gate, then lets it go on: at once, however busy the test is with
/// others, as the statement must not wait for longer than its timeout.
async fn at(gate: Gate, act: impl FnOnce() + Send + 'static) {
    let waiting = tokio::task::spawn_blocking(move || {
        assert!(gate.reached(Duration::from_secs(120)), "no statement came to the gate");
        act();
        gate.release();
    });
    waiting.await.unwrap();
}

fn change(ops: &Operations, round: i64) {
    ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 7 = 3"));
    ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 100 + round));
    ops.sql(&format!("INSERT INTO dbo.t VALUES ({}, N'new')", 9_000 + round));
}

/// A first load and a poll, each met by a fault at its reading statement, end committed and right.
async fn passes(fault: impl Fn(&Faults) + Clone + Send + 'static) {
    let ops = numbers().await;
    let faults = faults(&ops);
    let at_gate = |statement| {
        let (gate, faults, fault) = (faults.hold(statement), faults.clone(), fault.clone());
        at(gate, move || fault(&faults))
    };
    let (outcome, ()) = tokio::join!(ops.sync(Committed), at_gate(CHUNK));
    assert_eq!(outcome.record.rows_written, 2_000, "{outcome:?}");
    ops.same("t", "id, v").await;
    change(&ops, 1);
    tokio::join!(ops.sync(Committed), at_gate(POLL));
    ops.same("t", "id, v").await;
    faults.clear();
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_anywhere_in_an_answer_does_no_harm() {
    futures::future::join_all([0, 1, 7, 8, 9, 60, 700, 9_000, 40_000].map(|bytes| async move {
        passes(move |faults| faults.cut(bytes)).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_tried_again() {
    futures::future::join_all([1205, 1222, 3961, 40613].into_iter().flat_map(|number| {
        [0, 1, 200].map(|rows| async move {
            passes(move |faults| {
                for statement in [CHUNK, POLL] {
                    faults.fail(statement, rows, SqlError::new(number, 13, "for a test"), 1);
                }
            })
            .await;
        })
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_rows_commits_nothing() {
    let ops = numbers().await;
    let faults = faults(&ops);
    faults.fail(CHUNK, 1_500, SqlError::new(8134, 16, "Divide by zero error encountered."), 1);
    let message = ops.refused().await;
    assert!(message.contains("8134") && message.contains("Divide by zero"), "{message}");
    assert!(ops.rows("t").await.is_empty());
    ops.reads(2_000).await;
    ops.same("t", "id, v").await;

    let before = ops.rows("t").await;
    change(&ops, 1);
    faults.fail(POLL, 100, SqlError::new(8134, 16, "Divide by zero error encountered."), 1);
    let message = ops.refused().await;
    assert!(message.contains("8134"), "{message}");
    assert_eq!(ops.rows("t").await, before);
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_does_not_pass_fails_the_load_and_the_next_one_makes_it_good() {
    let ops = numbers().await;
    let faults = faults(&ops);
    faults.fail(CHUNK, 0, SqlError::known(1205), 100);
    let outcome = ops.sync(Failed).await;
    let message = outcome.record.error.unwrap_or_default();
    assert!(message.contains("1205") && message.contains("tries again"), "{message}");
    let tries = faults.statements().iter().filter(|statement| statement.text.contains(CHUNK)).count();
    assert!((2..=5).contains(&tries), "{tries} tries");
    faults.clear();
    ops.reads(2_000).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    futures::future::join_all([0, 300, 5_000].map(|bytes| async move {
        passes(move |faults| faults.stall(bytes, None)).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_one_byte_carry_the_same_rows() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
    ops.add_numbers("t", 1, 20);
    faults(&ops).split_packets(true);
    ops.reads(20).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_while_a_chunk_is_read_is_found_again() {
    let ops = numbers().await;
    let gate = faults(&ops).hold(CHUNK);
    let Operations { team, server, real } = ops;
    let restart = async {
        let gate = reached(gate).await;
        let (address, database) = (server.address(), server.database().clone());
        gate.release();
        server.stop().await;
        let options = ServerOptions { listen: address, ..ServerOptions::default() };
        let server = Server::serve(database, options).await.unwrap();
        team.write("ca.pem", server.ca_pem());
        server
    };
    let (outcome, server) = tokio::join!(team.sync_one(), restart);
    assert_eq!(outcome.record.status, Committed, "{outcome:?}");
    let ops = Operations { team, server, real };
    ops.same("t", "id, v").await;
}

async fn fails(ops: &Operations) -> (String, TableOutcome) {
    let outcome = ops.sync(Failed).await;
    (outcome.record.error.clone().unwrap_or_default(), outcome)
}

fn kind(outcome: &TableOutcome) -> &'static str {
    outcome.record.error_kind.unwrap().as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    let ops = numbers().await;
    ops.configure_as("sa", "wrong", "");
    let (message, outcome) = fails(&ops).await;
    assert!(message.contains("18456") && message.contains("check user and password"), "{message}");
    assert!(message.contains("127.0.0.1") && message.contains("`ops`"), "{message}");
    assert!(!message.contains("wrong"), "no secret is told: {message}");
    assert_eq!(kind(&outcome), "unauthenticated");

    ops.configure("");
    change_configuration(&ops, "database = \"ops\"", "database = \"missing\"");
    let (message, _) = fails(&ops).await;
    assert!(message.contains("4060") && message.contains("check `database`"), "{message}");

    ops.configure("");
    faults(&ops).login_failure(Some(18486));
    let (message, _) = fails(&ops).await;
    assert!(message.contains("18486"), "{message}");
    faults(&ops).login_failure(None);
    ops.reads(2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_nobody_vouches_for_is_refused() {
    let ops = numbers().await;
    change_configuration(&ops, "ca_file = \"ca.pem\"\n", "");
    let (message, outcome) = fails(&ops).await;
    assert!(message.contains("ca_file"), "{message}");
    assert_eq!(kind(&outcome), "unauthenticated");
    change_configuration(&ops, "database = \"ops\"", "database = \"ops\"\ntrust_server_certificate = true");
    ops.reads(2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let ops = numbers().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    change_configuration(&ops, &format!("port = {}", ops.server.address().port()), &format!("port = {closed}"));
    let (message, outcome) = fails(&ops).await;
    assert!(message.contains(&format!("127.0.0.1:{closed}")) && message.contains("nobody listens"), "{message}");
    assert_eq!(kind(&outcome), "unavailable");
    change_configuration(&ops, "host = \"127.0.0.1\"", "host = \"no-such-host.invalid\"");
    let (message, _) = fails(&ops).await;
    assert!(message.contains("no-such-host.invalid") && message.contains("check `host`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_send_the_client_on_but_not_in_a_circle() {
    let (front, back) = (numbers().await, numbers().await);
    back.sql("DELETE FROM dbo.t WHERE id > 10");
    front.team.write("ca.pem", format!("{}\n{}", front.server.ca_pem(), back.server.ca_pem()));
    faults(&front).routing(Some(back.server.address()));
    front.reads(10).await;
    faults(&front).routing(Some(front.server.address()));
    back.sql("DELETE FROM dbo.t WHERE id > 9");
    let (message, _) = fails(&front).await;
    assert!(message.contains("from address to address"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_the_hours_nothing_is_read_and_it_is_not_tried_again_at_once() {
    let ops = numbers().await;
    let now = chrono::Utc::now();
    let hour = |hours| (now + chrono::TimeDelta::hours(hours)).format("%H:00").to_string();
    ops.configure(&format!("hours = \"{}-{}\"", hour(2), hour(4)));
    let started = std::time::Instant::now();
    let (message, _) = fails(&ops).await;
    assert!(message.contains("outside the hours"), "{message}");
    assert!(ops.chunks().is_empty());
    let logins = faults(&ops).statements().iter().filter(|statement| statement.text.contains("XACT_ABORT")).count();
    assert!(logins <= 2, "{logins} connections in {:?}", started.elapsed());
    ops.configure(&format!("hours = \"{}-{}\"", hour(-2), hour(4)));
    ops.reads(2_000).await;

    // Changes as well; that there are none may be asked at any time.
    ops.configure(&format!("hours = \"{}-{}\"", hour(2), hour(4)));
    ops.sync(Unchanged).await;
    change(&ops, 1);
    let (message, _) = fails(&ops).await;
    assert!(message.contains("outside the hours"), "{message}");
    ops.configure(&format!("hours = \"{}-{}\"", hour(-2), hour(4)));
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_does_not_end_does_not_keep_the_reader_waiting() {
    let ops = numbers().await;
    ops.reads(2_000).await;
    let mut open = ops.server.database().session("sa").unwrap();
    let mut said = mssql_fixture::engine::Collected::default();
    open.run("BEGIN TRANSACTION; UPDATE dbo.t SET v = N'open' WHERE id = 1", &[], &mut said).unwrap();
    assert!(said.errors.is_empty(), "{:?}", said.errors);
    ops.sync(Unchanged).await;
    open.run("COMMIT TRANSACTION", &[], &mut said).unwrap();
    drop(open);
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}

fn change_configuration(ops: &Operations, old: &str, new: &str) {
    let path = ops.team.file("lakegate.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{text}");
    std::fs::write(path, text.replace(old, new)).unwrap();
}
