//! Clients that go away, cancel or dawdle, and a server that stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use lakegate::flight::{FlightError, ServiceParts, serve};
use lakegate::journal::Journal;
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use prost::Message;
use tokio::net::TcpListener;
use tonic::Code;

use super::engine::MemoryEngine;
use super::server::{Options, TestServer, query, settings, ticket};

/// Gives rows without end.
const ROWS: &str = "select * from slow.endless";
/// Never gives a row, and never ends.
const SILENT: &str = "select * from slow.endless where n < 0";

#[tokio::test]
async fn a_client_that_goes_away_stops_its_query() {
    let server = TestServer::start().await;
    for sql in [ROWS, SILENT] {
        let mut client = server.plain_client().await;
        let mut messages = client.do_get(Ticket::new(sql)).await.unwrap().into_inner();
        assert!(messages.next().await.unwrap().is_ok(), "the schema");
        server.engine.endless.has_readers(1).await;
        drop((messages, client));
        server.engine.endless.has_readers(0).await;
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_query_back() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let mut messages = client.do_get(Ticket::new(ROWS)).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    let produced = || server.engine.endless.produced.load(Ordering::SeqCst);
    let held_back = async {
        let mut before = produced();
        loop {
            // Not to wait for anything: that nothing more is made for a while is what is measured.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = produced();
            // A batch is 64 KiB; what is on its way fits into the windows of client and sockets.
            assert!(now < 1000, "{now}");
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), held_back).await.expect("the query stands still");
}

#[tokio::test]
async fn a_download_may_take_longer_than_a_query_may_compute() {
    let server = TestServer::start_with(Options { query_timeout: Duration::from_secs(1), ..Options::default() }).await;
    let mut client = server.plain_client().await;
    let mut messages = client.do_get(Ticket::new(ROWS)).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_millis(1300)).await;
    // More than what was on its way meanwhile; a message has two megabytes.
    for _ in 0..40 {
        assert!(messages.next().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_running_result_is_cancelled_by_its_description() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(SILENT)).await.unwrap().into_inner();
    let other = client.get_flight_info(FlightDescriptor::new_cmd(SILENT)).await.unwrap().into_inner();
    let mut messages = client.do_get(ticket(&info)).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    let mut cancel = async |info| {
        let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
        let answer = client.do_action(action).await.unwrap().into_inner();
        let results: Vec<_> = answer.try_collect().await.unwrap();
        CancelFlightInfoResult::decode(&*results[0].body).unwrap().status()
    };
    assert_eq!(cancel(other).await, CancelStatus::NotCancellable, "nothing runs for it");
    assert_eq!(cancel(info.clone()).await, CancelStatus::Cancelling);
    assert_eq!(messages.next().await.unwrap().unwrap_err().code(), Code::Cancelled);
    server.engine.endless.has_readers(0).await;
    assert_eq!(cancel(info).await, CancelStatus::NotCancellable);
}

#[tokio::test]
async fn the_older_form_of_cancelling_works_too() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(SILENT)).await.unwrap().into_inner();
    let mut messages = client.do_get(ticket(&info)).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let action = Action::new("CancelQuery", request.as_any().encode_to_vec());
    let answer: Vec<_> = client.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    let result: ActionCancelQueryResult = Any::decode(&*answer[0].body).unwrap().unpack().unwrap().unwrap();
    assert_eq!(result.result, CancelStatus::Cancelling as i32);
    assert_eq!(messages.next().await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn a_server_that_stops_lets_running_statements_finish_and_takes_no_new_ones() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let mut messages = client.do_get(Ticket::new("select * from big.numbers")).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    server.shutdown.request();
    let mut second = server.client().await;
    let refused = loop {
        // The request is seen a moment after it was made.
        match second.execute("select 1".to_owned(), None).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("stopping"), "{refused}");
    let rest: Vec<_> = messages.try_collect().await.unwrap();
    assert!(rest.len() > 5);
    drop((client, second));
    server.stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut() {
    let server = TestServer::start_with(Options { drain: Duration::from_millis(50), ..Options::default() }).await;
    let mut client = server.plain_client().await;
    let mut messages = client.do_get(Ticket::new(SILENT)).await.unwrap().into_inner();
    assert!(messages.next().await.unwrap().is_ok());
    server.shutdown.request();
    assert_eq!(messages.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    server.engine.endless.has_readers(0).await;
    server.stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let server = TestServer::start().await;
    let client: FlightSqlServiceClient<_> = server.client().await;
    assert_eq!(query(&server, "select 1").await.unwrap().len(), 1);
    server.shutdown.request();
    tokio::time::timeout(Duration::from_secs(10), server.stopped).await.unwrap().unwrap().unwrap();
    drop(client);
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_users() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = Arc::new(settings(&Options::default(), folder.path()));
    let journal = Arc::new(Journal::open(&settings.lake, Arc::new(SystemClock)).unwrap());
    let engine = Arc::new(MemoryEngine::new());
    let parts = ServiceParts { engine, settings, journal, clock: Arc::new(SystemClock) };
    let refused = serve(listener, parts, Shutdown::new()).await.unwrap_err();
    assert!(matches!(refused, FlightError::Exposed { .. }));
    assert!(refused.to_string().contains("allow_anonymous_network = true"), "{refused}");
}
