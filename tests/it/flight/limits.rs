//! Limits over the wire: turns, slow and dead clients, panics, what people may be sent; and that what a statement held
//! is given back whatever becomes of it.

use std::future::Future;
use std::time::Duration;

use arrow_flight::Ticket;
use futures::{FutureExt, StreamExt};
use lakegate::config::Settings;
use lakegate::flight::{ClientOptions, FlightClient};
use lakegate::journal::QueryStatus;
use tonic::{Code, Status};

use super::server::{Options, TestServer, query};

/// Gives rows without end.
const ROWS: &str = "select * from slow.endless";
/// Never gives a row, and never ends.
const SILENT: &str = "select * from slow.endless where n < 0";

/// A server where one statement computes at a time.
async fn one_at_a_time() -> TestServer {
    TestServer::start_with(Options { change: one_place, ..Options::default() }).await
}

fn one_place(settings: &mut Settings) {
    let limits = &mut settings.limits.serving;
    (limits.statements, limits.queue) = (1.try_into().unwrap(), 2.try_into().unwrap());
    limits.queue_wait = Duration::from_secs(60);
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it happens soon")
}

/// Waits until as many statements wait for their turn.
async fn queued(server: &TestServer, count: usize) {
    soon(async {
        let waiting =
            || server.journal.running().all().iter().filter(|run| run.now().status == QueryStatus::Queued).count();
        while waiting() != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until nothing runs, and sees that there is place again.
async fn nothing_is_held(server: &TestServer) {
    soon(async {
        while !server.journal.running().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.engine.endless.has_readers(0).await;
    soon(query(server, "select 1")).await.unwrap();
}

#[tokio::test]
async fn statements_wait_for_their_turn_and_too_many_are_refused() {
    let server = one_at_a_time().await;
    let mut client = server.plain_client().await;
    let mut running = client.do_get(Ticket::new(SILENT)).await.unwrap().into_inner();
    running.next().await.unwrap().unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| query(&server, "select 1").boxed()).collect();
    for waits in &mut waiting {
        assert!(tokio::time::timeout(Duration::from_millis(50), waits).await.is_err());
    }
    queued(&server, 2).await;
    let refused: Status = query(&server, "select 1").await.unwrap_err();
    assert!(refused.code() == Code::Unavailable && refused.message().contains("limits.queue"), "{refused:?}");
    drop((running, client));
    for waits in waiting {
        assert_eq!(soon(waits).await.unwrap().len(), 1);
    }
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn a_client_that_dies_in_the_queue_leaves_it() {
    let server = one_at_a_time().await;
    let mut client = server.plain_client().await;
    let mut running = client.do_get(Ticket::new(SILENT)).await.unwrap().into_inner();
    running.next().await.unwrap().unwrap();
    for _ in 0..3 {
        let mut dies = server.plain_client().await;
        let asked = tokio::spawn(async move { dies.do_get(Ticket::new(SILENT)).await.map(|_| ()) });
        queued(&server, 1).await;
        asked.abort();
        queued(&server, 0).await;
    }
    drop((running, client));
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn a_slow_reader_does_not_keep_others_from_computing() {
    let server = one_at_a_time().await;
    let mut client = server.plain_client().await;
    let mut slow = client.do_get(Ticket::new(ROWS)).await.unwrap().into_inner();
    slow.next().await.unwrap().unwrap();
    // It is given the place of the one that is not read.
    assert_eq!(soon(query(&server, "select 1")).await.unwrap().len(), 1);
    // More than what was on its way meanwhile; a message has two megabytes.
    for _ in 0..40 {
        soon(slow.next()).await.unwrap().unwrap();
    }
    drop((slow, client));
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn a_result_that_nobody_takes_is_cut() {
    fn impatient(settings: &mut Settings) {
        settings.limits.serving.idle_reader = Duration::from_millis(400);
    }
    let server = TestServer::start_with(Options { change: impatient, ..Options::default() }).await;
    let mut client = server.plain_client().await;
    let mut rows = client.do_get(Ticket::new(ROWS)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    // Nothing is read, and still the work ends.
    server.engine.endless.has_readers(0).await;
    let cut = soon(async {
        loop {
            if let Err(status) = rows.next().await.unwrap() {
                return status;
            }
        }
    })
    .await;
    assert!(cut.code() == Code::DeadlineExceeded && cut.message().contains("limits.idle_reader"), "{cut:?}");
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn a_panic_ends_its_statement_alone_and_gives_back_what_it_held() {
    let server = one_at_a_time().await;
    let mut client = server.plain_client().await;
    for _ in 0..3 {
        let mut rows = client.do_get(Ticket::new("select * from slow.broken")).await.unwrap().into_inner();
        rows.next().await.unwrap().unwrap();
        let told = rows.next().await.unwrap().unwrap_err();
        assert!(told.code() == Code::Internal && !told.message().contains("asked for by a test"), "{told:?}");
        let told = client.do_get(Ticket::new("panic")).await.unwrap_err();
        assert_eq!(told.code(), Code::Internal, "{told:?}");
    }
    nothing_is_held(&server).await;
}

#[tokio::test]
async fn what_a_statement_held_is_given_back_however_it_ends() {
    let server = one_at_a_time().await;
    let timed = TestServer::start_with(Options {
        query_timeout: Duration::from_millis(50),
        change: one_place,
        ..Options::default()
    })
    .await;
    // Its client goes.
    let mut client = server.plain_client().await;
    let mut rows = client.do_get(Ticket::new(SILENT)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    drop((rows, client));
    nothing_is_held(&server).await;
    // Its time is over.
    assert_eq!(query(&timed, SILENT).await.unwrap_err().code(), Code::DeadlineExceeded);
    nothing_is_held(&timed).await;
    // It cannot be planned.
    assert!(query(&server, "selekt").await.is_err());
    nothing_is_held(&server).await;
    // It is stopped while nobody reads it.
    let mut client = server.plain_client().await;
    let mut rows = client.do_get(Ticket::new(ROWS)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    server.engine.endless.has_readers(1).await;
    let id = server.journal.running().all()[0].origin.query_id;
    let (url, options) = (format!("grpc://{}", server.address), ClientOptions::default());
    let mut killer = FlightClient::connect(&url, &options).await.unwrap();
    killer.kill(id).await.unwrap();
    server.engine.endless.has_readers(0).await;
    soon(query(&server, "select 1")).await.unwrap();
    drop((rows, client));
    nothing_is_held(&server).await;
    let told = killer.kill(id).await.unwrap_err().to_string();
    assert!(told.contains("nothing runs"), "{told}");
    let told = killer.kill(uuid::Uuid::new_v4()).await.unwrap_err().to_string();
    assert!(told.contains("nothing runs"), "{told}");
}

#[tokio::test]
async fn people_are_sent_as_much_as_they_may_be() {
    fn little(settings: &mut Settings) {
        settings.limits.serving.result_bytes = Some(1 << 20);
    }
    let server = TestServer::start_with(Options { change: little, ..Options::default() }).await;
    let refused = query(&server, "select * from big.numbers").await.unwrap_err();
    assert!(
        refused.code() == Code::ResourceExhausted && refused.message().contains("limits.result_bytes"),
        "{refused:?}"
    );
    assert!(query(&server, "select 1").await.is_err());
    server.clock.advance(Duration::from_secs(25 * 3600));
    query(&server, "select 1").await.unwrap();
}
