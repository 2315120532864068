//! What is told of statements and sessions, while they last and afterwards.

use std::sync::Arc;

use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use lakegate::config::{Settings, TextsKept};
use lakegate::error::ErrorKind;
use lakegate::journal::{Journal, QueryRecord, QueryStatus};
use lakegate::runtime::clock::SystemClock;
use prost::Message;

use super::server::{Options, TestServer, query, ticket};

const SILENT: &str = "select * from slow.endless where n < 0";

async fn ended(server: &TestServer) -> Vec<QueryRecord> {
    let ended = async {
        while !server.journal.running().is_empty() {
            tokio::task::yield_now().await;
        }
        server.journal.queries().await.unwrap().try_concat().await.unwrap()
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap()
}

#[tokio::test]
async fn a_statement_is_told_with_what_it_cost() {
    let server = TestServer::start().await;
    query(&server, "select * from big.numbers").await.unwrap();
    let ended = ended(&server).await;
    let [record] = ended.as_slice() else { panic!("{ended:?}") };
    assert_eq!(record.status, QueryStatus::Finished);
    assert_eq!((record.origin.principal.as_str(), record.figures.rows), ("anonymous", 1_000_000));
    assert_eq!(record.origin.text.as_deref(), Some("select * from big.numbers"));
    assert!(record.origin.address.as_ref().unwrap().starts_with("127.0.0.1:"));
    assert!(record.origin.client.starts_with("tonic/"), "{record:?}");
    let figures = record.figures;
    assert!(figures.raw_bytes > 25_000_000 && figures.sent_bytes > 25_000_000, "{figures:?}");
    assert!(figures.queue_micros > 0 && figures.plan_micros > 0 && figures.send_micros > 0, "{figures:?}");
}

#[tokio::test]
async fn failures_and_what_was_never_run_are_told_too() {
    let server = TestServer::start().await;
    query(&server, "selekt").await.unwrap_err();
    let mut client = server.plain_client().await;
    client.get_flight_info(FlightDescriptor::new_cmd("select * from missing")).await.unwrap_err();
    client.get_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap();
    let mut ended = ended(&server).await;
    ended.sort_by(|a, b| b.origin.text.cmp(&a.origin.text));
    let told: Vec<_> =
        ended.iter().map(|record| (record.status, record.error_kind, record.origin.text.as_deref())).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], (QueryStatus::Failed, Some(ErrorKind::InvalidInput), Some("selekt")));
    assert_eq!((told[1].0, told[1].2), (QueryStatus::Failed, Some("select * from missing")));
    assert!(ended.iter().all(|record| record.error.is_some()));
}

#[tokio::test]
async fn a_running_statement_is_seen_and_stopped_by_its_description() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(SILENT)).await.unwrap().into_inner();
    let mut rows = client.do_get(ticket(&info)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    let running = server.journal.running().all();
    assert_eq!((running.len(), running[0].now().status), (1, QueryStatus::Running));
    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
    client.do_action(action).await.unwrap().into_inner().try_collect::<Vec<_>>().await.unwrap();
    rows.next().await.unwrap().unwrap_err();
    let ended = ended(&server).await;
    assert_eq!((ended.len(), ended[0].status), (1, QueryStatus::Cancelled));
    assert_eq!(ended[0].origin.query_id, running[0].origin.query_id);
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_apart_from_one_that_read_all() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let mut rows = client.do_get(Ticket::new(SILENT)).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    drop((rows, client));
    let ended = ended(&server).await;
    assert_eq!((ended[0].status, ended[0].error.as_deref()), (QueryStatus::Cancelled, Some("the client went away")));
}

#[tokio::test]
async fn literals_and_texts_are_kept_back_where_the_configuration_says_so() {
    const SQL: &str = "select 'a secret', 42 -- of somebody";
    type Case<'a> = (fn(&mut Settings), Option<&'a str>);
    let cases: [Case<'_>; 3] = [
        (|settings| settings.history.texts = TextsKept::Full, Some(SQL)),
        (|settings| settings.history.texts = TextsKept::WithoutLiterals, Some("select ?, ? ")),
        (|settings| settings.history.texts = TextsKept::None, None),
    ];
    for (change, text) in cases {
        let server = TestServer::start_with(Options { change, ..Options::default() }).await;
        query(&server, SQL).await.unwrap();
        query(&server, "select cast('a secret' as int)").await.unwrap_err();
        let ended = ended(&server).await;
        let succeeded = ended.iter().find(|record| record.status == QueryStatus::Finished).unwrap();
        assert_eq!(succeeded.origin.text.as_deref(), text);
        let all = format!("{ended:?}");
        assert_eq!(all.contains("a secret"), text == Some(SQL), "{all}");
    }
}

#[tokio::test]
async fn the_history_outlives_the_server() {
    let server = TestServer::start().await;
    query(&server, "select 1").await.unwrap();
    server.shutdown.request();
    server.stopped.await.unwrap().unwrap();
    assert!(server.journal.open_sessions().is_empty());
    let settings = lakegate::config::load(server.folder.path(), None).unwrap();
    let next = Journal::open(&settings.lake, Arc::new(SystemClock)).unwrap();
    let (queries, sessions) = (next.queries().await.unwrap(), next.sessions().await.unwrap());
    assert_eq!(queries.try_concat().await.unwrap().len(), 1);
    let [session] = &*sessions.try_concat().await.unwrap() else { panic!("one session") };
    assert_eq!(session.statements, 1);
}
