//! Sessions over the wire: options that change statements, cookies, closing, and limits.

use std::time::Duration;

use arrow::datatypes::DataType;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{Action, Ticket};
use futures::{StreamExt, TryStreamExt};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::server::{Options, TestServer, read};

type Client = FlightServiceClient<Channel>;

/// An action with a body of Flight.proto, with a cookie where one is to be sent. What comes back are the first body
/// and the cookie that was set.
async fn act(
    client: &mut Client,
    name: &str,
    body: Vec<u8>,
    cookie: Option<&str>,
) -> Result<(Vec<u8>, Option<String>), Status> {
    let mut request = Request::new(Action::new(name.to_owned(), body));
    if let Some(cookie) = cookie {
        request.metadata_mut().insert("cookie", format!("other=1; {cookie}").parse().unwrap());
    }
    let response = client.do_action(request).await?;
    let set = response.metadata().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
    let bodies: Vec<_> = response.into_inner().try_collect().await?;
    Ok((bodies.first().map(|result| result.body.to_vec()).unwrap_or_default(), set))
}

/// `SetSessionOptionsRequest` with texts: a map's entry is a message of key 1 and value 2, a value's text is its field 1.
fn options(options: &[(&str, &str)]) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let entry = |(name, value): &(&str, &str)| {
        let value = if value.is_empty() { Vec::new() } else { field(1, value.as_bytes()) };
        field(1, &[field(1, name.as_bytes()), field(2, &value)].concat())
    };
    options.iter().flat_map(entry).collect()
}

async fn set(client: &mut Client, given: &[(&str, &str)]) -> Vec<u8> {
    act(client, "SetSessionOptions", options(given), None).await.unwrap().0
}

async fn get(client: &mut Client, cookie: Option<&str>) -> String {
    let (body, _) = act(client, "GetSessionOptions", vec![], cookie).await.unwrap();
    String::from_utf8_lossy(&body).into_owned()
}

/// How many messages the rows of a text come in.
async fn messages(client: &mut Client, sql: &str) -> Result<usize, Status> {
    let messages = client.do_get(Ticket::new(sql.to_owned())).await?.into_inner();
    messages.try_collect::<Vec<_>>().await.map(|messages| messages.len())
}

#[tokio::test]
async fn options_are_kept_for_the_connection_and_wrong_ones_are_told() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    assert!(!get(&mut client, None).await.contains("time_zone"));
    assert!(server.journal.open_sessions().is_empty(), "asking begins no session");
    let errors = set(
        &mut client,
        &[
            ("time_zone", "Europe/Vienna"),
            ("schema", "nothing"),
            ("lol_invalid", "x"),
            ("lakegate-codec", "lol_invalid"),
        ],
    )
    .await;
    let errors = String::from_utf8_lossy(&errors).into_owned();
    assert!(errors.contains("schema") && errors.contains("lol_invalid") && errors.contains("lakegate-codec"));
    assert!(!errors.contains("time_zone"), "{errors:?}");
    assert!(get(&mut client, None).await.contains("Europe/Vienna"));
    assert!(!get(&mut server.plain_client().await, None).await.contains("Europe/Vienna"), "another connection");
    assert!(set(&mut client, &[("time_zone", ""), ("schema", "weather")]).await.is_empty());
    let told = get(&mut client, None).await;
    assert!(!told.contains("Europe/Vienna") && told.contains("weather"), "{told}");
}

#[tokio::test]
async fn a_session_says_how_its_rows_are_sent_where_a_call_does_not() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut same = client.inner().clone();
    let options = [("lakegate-codec", "lz4"), ("lakegate-dictionaries", "on"), ("lakegate-precision", "float32")];
    assert!(set(&mut same, &options).await.is_empty());
    let types = async |client: &mut FlightSqlServiceClient<Channel>| {
        let sql = "select station, degrees from weather.hourly order by hour";
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let schema = info.clone().try_decode_schema().unwrap();
        assert!(!read(client, info).await.is_empty(), "rows come as they were announced");
        [0, 1].map(|at| schema.field(at).data_type().clone())
    };
    let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    assert_eq!(types(&mut client).await, [words, DataType::Float32]);
    client.set_header("lakegate-dictionaries", "off");
    client.set_header("lakegate-precision", "full");
    assert_eq!(types(&mut client).await, [DataType::Utf8, DataType::Float64]);
    assert_eq!(types(&mut server.client().await).await, [DataType::Utf8, DataType::Float64], "another connection");
}

#[tokio::test]
async fn a_cookie_leads_to_the_session_from_any_connection() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let body = options(&[("time_zone", "Europe/Vienna")]);
    let (_, cookie) = act(&mut client, "SetSessionOptions", body, None).await.unwrap();
    let cookie = cookie.unwrap();
    let (cookie, attributes) = cookie.split_once(';').unwrap();
    assert!(cookie.starts_with("arrow_flight_session_id=") && attributes.contains("Path=/"));
    drop(client);
    let mut other = server.plain_client().await;
    assert!(get(&mut other, Some(cookie)).await.contains("Europe/Vienna"), "the first connection is closed");
    let body = options(&[("time_zone", "UTC")]);
    let (_, again) = act(&mut other, "SetSessionOptions", body, Some(cookie)).await.unwrap();
    assert_eq!(again, None, "it has its cookie");
    act(&mut other, "CloseSession", vec![], Some(cookie)).await.unwrap();
    assert!(!get(&mut other, Some(cookie)).await.contains("time_zone"), "options end with the session");
}

#[tokio::test]
async fn a_token_leads_to_its_session_until_that_is_closed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.handshake("ann", "a password").await.unwrap();
    let token = client.token().unwrap().clone();
    let asked = |name: &str, body: Vec<u8>| {
        let mut request = Request::new(Action::new(name.to_owned(), body));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let zone = || asked("SetSessionOptions", options(&[("time_zone", "Europe/Vienna")]));
    let set = server.plain_client().await.do_action(zone()).await.unwrap();
    assert!(set.metadata().get("set-cookie").is_none(), "the token is enough");
    let mut other = server.plain_client().await;
    let told = other.do_action(asked("GetSessionOptions", vec![])).await.unwrap().into_inner();
    let told: Vec<_> = told.try_collect().await.unwrap();
    assert!(String::from_utf8_lossy(&told[0].body).contains("Europe/Vienna"), "on another connection");
    other.do_action(asked("CloseSession", vec![])).await.unwrap();
    for request in [zone(), asked("GetSessionOptions", vec![]), asked("CloseSession", vec![])] {
        let refused = other.do_action(request).await.unwrap_err();
        assert!(refused.code() == Code::Unauthenticated && refused.message().contains("closed"), "{refused:?}");
    }
    assert!(client.execute("select 1".to_owned(), None).await.is_err(), "nor for statements");
}

#[tokio::test]
async fn the_token_of_a_session_that_was_closed_before_it_began_is_refused() {
    let server = TestServer::start().await;
    let token = log_in(&server).await;
    let mut client = server.plain_client().await;
    let close = with_token(Action::new("CloseSession", ""), &token);
    let closed: Vec<_> = client.do_action(close).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(closed[0].body.to_vec(), [0x08, 0x01]);
    let refused = client.do_get(with_token(Ticket::new("select 1"), &token)).await.unwrap_err();
    assert!(refused.code() == Code::Unauthenticated && refused.message().contains("closed"), "{refused:?}");
}

#[tokio::test]
async fn logging_in_often_locks_nobody_out_and_earlier_tokens_go_on() {
    let server = TestServer::start_with(Options { change: two_sessions, ..Options::default() }).await;
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(log_in(&server).await);
    }
    for token in tokens.iter().chain(&tokens) {
        let mut client = server.plain_client().await;
        let rows = client.do_get(with_token(Ticket::new("select 1"), token)).await.unwrap().into_inner();
        assert!(!rows.try_collect::<Vec<_>>().await.unwrap().is_empty());
    }
    assert_eq!(server.journal.open_sessions().all().len(), 2);
}

/// A new session's token.
async fn log_in(server: &TestServer) -> String {
    let mut client = server.client().await;
    client.handshake("ann", "a password").await.unwrap();
    client.token().unwrap().clone()
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn two_sessions(settings: &mut lakegate::config::Settings) {
    settings.limits.serving.sessions_per_person = 2.try_into().unwrap();
}

#[tokio::test]
async fn a_statement_may_compute_for_less_time_where_the_session_says_so() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    assert!(set(&mut client, &[("statement_timeout", "50ms")]).await.is_empty());
    let late = messages(&mut client, "select * from slow.endless where n < 0").await.unwrap_err();
    assert!(late.code() == Code::DeadlineExceeded && late.message().contains("statement_timeout"), "{late:?}");
    server.engine.endless.has_readers(0).await;
}

#[tokio::test]
async fn closing_a_session_stops_its_statements() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let mut rows = client.do_get(Ticket::new("select * from slow.endless where n < 0")).await.unwrap().into_inner();
    rows.next().await.unwrap().unwrap();
    server.engine.endless.has_readers(1).await;
    let (closed, _) = act(&mut client, "CloseSession", vec![], None).await.unwrap();
    assert_eq!(closed, [0x08, 0x01]);
    let ended = rows.next().await.unwrap().unwrap_err();
    assert!(ended.code() == Code::Cancelled && ended.message().contains("session"), "{ended:?}");
    server.engine.endless.has_readers(0).await;
    assert!(server.journal.open_sessions().is_empty());
    messages(&mut client, "select 1").await.unwrap();
}

#[tokio::test]
async fn too_many_sessions_are_refused_and_those_that_end_make_room() {
    let server = TestServer::start_with(Options { change: two_sessions, ..Options::default() }).await;
    let mut clients = [server.plain_client().await, server.plain_client().await, server.plain_client().await];
    // Without options they would make room at once.
    assert!(set(&mut clients[0], &[("time_zone", "Europe/Vienna")]).await.is_empty());
    assert!(set(&mut clients[1], &[("time_zone", "Europe/Vienna")]).await.is_empty());
    let refused = messages(&mut clients[2], "select 1").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("limits.sessions_per_person"), "{refused:?}");
    server.clock.advance(Duration::from_secs(13 * 3600));
    messages(&mut clients[2], "select 1").await.unwrap();
}

#[tokio::test]
async fn a_closed_connections_session_is_noted() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    messages(&mut client, "select 1").await.unwrap();
    assert_eq!(server.journal.open_sessions().all().len(), 1);
    drop(client);
    let noted = async {
        while !server.journal.open_sessions().is_empty() {
            tokio::task::yield_now().await;
        }
        let ended: Vec<_> = server.journal.sessions().await.unwrap().try_concat().await.unwrap();
        assert_eq!((ended.len(), ended[0].statements, ended[0].principal.as_str()), (1, 1, "anonymous"));
        assert_eq!(ended[0].end, Some(lakegate::journal::SessionEnd::Disconnected));
    };
    tokio::time::timeout(Duration::from_secs(10), noted).await.unwrap();
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so() {
    let change = |settings: &mut lakegate::config::Settings| {
        settings.limits.serving.connections = 1.try_into().unwrap();
    };
    let server = TestServer::start_with(Options { change, ..Options::default() }).await;
    let mut first = server.plain_client().await;
    messages(&mut first, "select 1").await.unwrap();
    let mut second = server.plain_client().await;
    let refused = messages(&mut second, "select 1").await.unwrap_err();
    assert!(refused.code() == Code::Unavailable && refused.message().contains("limits.connections"), "{refused:?}");
    drop(first);
    drop(second);
    let let_in = async {
        // A connection above the limit stays so; the next one comes when the last has been closed.
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        loop {
            tries.tick().await;
            let mut next = server.plain_client().await;
            if messages(&mut next, "select 1").await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), let_in).await.expect("there is room again");
}

#[tokio::test]
async fn messages_and_headers_have_their_limits() {
    let change = |settings: &mut lakegate::config::Settings| {
        let limits = &mut settings.limits.serving;
        (limits.request_size, limits.header_size) = (1 << 20, 8 << 10);
    };
    let server = TestServer::start_with(Options { change, ..Options::default() }).await;
    let mut client = server.plain_client().await.max_encoding_message_size(8 << 20);
    let long = format!("select '{}'", "x".repeat(2 << 20));
    let refused = messages(&mut client, &long).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let mut request = Request::new(Ticket::new("select 1"));
    request.metadata_mut().insert("x-long", MetadataValue::try_from("x".repeat(16 << 10)).unwrap());
    // The refusal is HTTP's own, which some clients see only when they read.
    let answer = async { client.do_get(request).await?.into_inner().try_collect::<Vec<_>>().await };
    assert!(answer.await.is_err());
    messages(&mut client, "select 1").await.unwrap();
}
