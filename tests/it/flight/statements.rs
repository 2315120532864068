//! Statements, tickets, errors, connecting.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::sql::{Any, Command, CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{Criteria, FlightDescriptor, FlightInfo, HandshakeRequest, Ticket};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Code, Request};

use super::engine::BIG_ROWS;
use super::server::{Options, TestServer, query, read, text, ticket};

#[tokio::test]
async fn any_credentials_are_accepted_and_answered_with_a_token() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.handshake("user", "pass:word").await.unwrap();
    assert!(client.token().is_some_and(|token| token.starts_with("lgs_")));
    // As Go clients do: no padding, no message.
    let mut plain = server.plain_client().await;
    for header in ["Basic dTpwdw", "Bearer None", "Bearer abc"] {
        let mut request = Request::new(futures::stream::empty::<HandshakeRequest>());
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        let response = plain.handshake(request).await.unwrap();
        let token = response.metadata().get("authorization").unwrap().to_str().unwrap();
        assert!(token.starts_with("Bearer lgs_"), "{token}");
        // A client that sends a message and reads none would wait for ever behind one of ours.
        assert_eq!(response.into_inner().count().await, 0);
    }
    let response = plain.handshake(futures::stream::empty::<HandshakeRequest>()).await.unwrap();
    assert!(response.metadata().contains_key("authorization"));
}

#[tokio::test]
async fn a_statement_is_answered_with_the_schema_it_announced() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let sql = "select station, hour, degrees, upper(station) as loud from weather.hourly order by hour";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    assert_eq!((info.total_records, info.total_bytes, info.ordered), (-1, -1, true));
    let expected = Schema::new(vec![
        Field::new("station", DataType::Utf8, true),
        Field::new("hour", DataType::Int64, true),
        Field::new("degrees", DataType::Float64, true),
        Field::new("loud", DataType::Utf8, true),
    ]);
    assert_eq!(info.clone().try_decode_schema().unwrap(), expected);
    let rows = text(&read(&mut client, info).await);
    assert_eq!(rows, ["EWR 1 1.5 EWR", "JFK 2  JFK", "a station with a long name 3 -3.25 A STATION WITH A LONG NAME"]);
}

#[tokio::test]
async fn every_kind_of_result_has_its_announced_schema() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "select min(hour), max(degrees), count(*) from weather.hourly",
        "select * from weather.hourly where false",
        "select * from shapes.wide",
        "select null as nothing",
        "select [1, 2] as list, {a: 'x'} as record, map(['k'], [1]) as pairs",
        "select arrow_cast(station, 'Dictionary(Int32, Utf8)') as d, arrow_cast(1.5, 'Float16') as h from weather.hourly",
        "select sum(hour) over (order by hour) from weather.hourly",
        "select arrow_cast('x', 'Utf8View') as view, arrow_cast(1, 'Decimal128(10, 2)') as price",
    ] {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        // `read` compares the schemas.
        read(&mut client, info).await;
    }
}

#[tokio::test]
async fn a_client_chooses_how_its_rows_are_encoded() {
    let server = TestServer::start().await;
    let sql = "select station, hour, degrees from weather.hourly order by hour";
    let plain = text(&query(&server, sql).await.unwrap());
    for (codec, dictionaries) in [("zstd", "off"), ("zstd", "on"), ("lz4", "on"), ("none", "on"), ("auto", "off")] {
        let mut client = server.client().await;
        client.set_header("lakegate-codec", codec);
        client.set_header("lakegate-dictionaries", dictionaries);
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let announced = info.clone().try_decode_schema().unwrap();
        let dictionary = matches!(announced.field(0).data_type(), DataType::Dictionary(..));
        assert_eq!(dictionary, dictionaries == "on");
        assert_eq!(text(&read(&mut client, info).await), plain, "{codec} {dictionaries}");
    }
}

#[tokio::test]
async fn a_big_result_is_the_same_rows_however_it_is_packed() {
    let server = TestServer::start().await;
    let sql = "select n, text from big.numbers where n < 300000 order by n";
    let plain = text(&query(&server, sql).await.unwrap());
    for (codec, dictionaries) in [("zstd", "off"), ("zstd", "on"), ("lz4", "off")] {
        let mut client = server.client().await;
        client.set_header("lakegate-codec", codec);
        client.set_header("lakegate-dictionaries", dictionaries);
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        assert!(text(&read(&mut client, info).await) == plain, "{codec} {dictionaries}");
    }
}

#[tokio::test]
async fn shorter_numbers_are_for_those_who_ask() {
    let server = TestServer::start().await;
    let sql = "select station, hour, degrees from weather.hourly order by hour";
    let plain = text(&query(&server, sql).await.unwrap());
    for (precision, announced) in [
        ("full", DataType::Float64),
        ("float32", DataType::Float32),
        ("rounded", DataType::Float32),
        ("float16", DataType::Float16),
    ] {
        let mut client = server.client().await;
        client.set_header("lakegate-precision", precision);
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let schema = info.clone().try_decode_schema().unwrap();
        assert_eq!((schema.field(1).data_type(), schema.field(2).data_type()), (&DataType::Int64, &announced));
        // These numbers are short ones.
        assert_eq!(text(&read(&mut client, info).await), plain, "{precision}");
    }
    let mut client = server.client().await;
    client.set_header("lakegate-precision", "float16");
    let info = client.execute("select 1e6 as large".to_owned(), None).await.unwrap();
    let messages: Result<Vec<_>, _> = client.do_get(ticket(&info)).await.unwrap().try_collect().await;
    let error = messages.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`large`") && error.contains("lakegate-precision"), "{error}");
}

#[tokio::test]
async fn wishes_that_are_none_or_come_too_late_are_refused() {
    let server = TestServer::start().await;
    let sql = "select station from weather.hourly";
    for (name, value) in [("lakegate-codec", "gzip"), ("lakegate-dictionaries", "yes"), ("lakegate-precision", "exact")]
    {
        let mut client = server.client().await;
        client.set_header(name, value);
        let error = client.execute(sql.to_owned(), None).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("choose one of"), "{error}");
    }
    let mut client = server.client().await;
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    client.set_header("lakegate-dictionaries", "on");
    let error = client.do_get(ticket(&info)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("announced with `lakegate-dictionaries: off`"), "{error}");
    let mut client = server.client().await;
    client.set_header("lakegate-precision", "float32");
    let error = client.do_get(ticket(&info)).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("announced with `lakegate-precision: full`"), "{error}");
}

#[tokio::test]
async fn a_large_list_stays_one_on_the_wire() {
    let server = TestServer::start().await;
    let batches = query(&server, "select list from shapes.wide").await.unwrap();
    assert!(matches!(batches[0].column(0).data_type(), DataType::LargeList(_)));
}

#[tokio::test]
async fn bare_text_works_as_command_and_as_ticket() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    for sql in ["select 1 as one", "EXPLAIN SELECT 1"] {
        let info = client.get_flight_info(FlightDescriptor::new_cmd(sql)).await.unwrap().into_inner();
        let messages = client.do_get(ticket(&info)).await.unwrap().into_inner();
        assert!(messages.count().await > 1, "{sql}");
        assert!(!query(&server, sql).await.unwrap().is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn get_schema_tells_what_get_flight_info_tells() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let query = CommandStatementQuery { query: "select * from weather.hourly".to_owned(), transaction_id: None };
    for command in [query.as_any().encode_to_vec(), b"select * from weather.hourly".to_vec()] {
        let descriptor = FlightDescriptor::new_cmd(command);
        let info = client.get_flight_info(descriptor.clone()).await.unwrap().into_inner();
        let schema = client.get_schema(descriptor).await.unwrap().into_inner().schema;
        assert_eq!(schema, info.schema);
        assert_eq!(try_schema_from_ipc_buffer(&schema).unwrap().fields().len(), 3);
    }
}

#[tokio::test]
async fn polling_is_done_at_once() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let poll = client.poll_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap().into_inner();
    assert!(poll.flight_descriptor.is_none() && poll.progress == Some(1.0));
    assert_eq!(poll.info.unwrap().endpoint.len(), 1);
}

#[tokio::test]
async fn tables_are_listed_as_flights_that_can_be_flown() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let flights: Vec<FlightInfo> =
        client.list_flights(Criteria::default()).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(flights.len(), 7);
    let stations = flights[1].flight_descriptor.clone().unwrap();
    assert_eq!(stations.cmd, "select * from \"weather\".\"stations\"");
    let info = client.get_flight_info(stations).await.unwrap().into_inner();
    assert_eq!(info.schema, flights[1].schema);
}

#[tokio::test]
async fn a_big_result_arrives_whole_in_messages_below_four_megabytes() {
    let server = TestServer::start().await;
    let batches = query(&server, "select * from big.numbers").await.unwrap();
    let sum: i64 =
        batches.iter().map(|batch| batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>()).sum();
    assert_eq!(sum, BIG_ROWS * (BIG_ROWS - 1) / 2);
    let mut client = server.plain_client().await;
    let messages = client.do_get(Ticket::new("select * from big.numbers")).await.unwrap().into_inner();
    let sizes: Vec<usize> = messages.map_ok(|message| message.encoded_len()).try_collect().await.unwrap();
    assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() < 40 << 20, "slices carry their own rows only");
}

#[tokio::test]
async fn a_ticket_is_redeemed_by_another_server_with_the_same_key_and_by_no_other() {
    let first = TestServer::start().await;
    let second = TestServer::start().await;
    let stranger = TestServer::start_with(Options { key: "02", ..Options::default() }).await;
    let info =
        first.client().await.execute("select hour from weather.hourly order by 1".to_owned(), None).await.unwrap();
    assert_eq!(text(&read(&mut second.client().await, info.clone()).await), ["1", "2", "3"]);
    let refused = stranger.plain_client().await.do_get(ticket(&info)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_altered_ticket_is_refused() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap().into_inner();
    let Command::TicketStatementQuery(sealed) = Any::decode(&*ticket(&info).ticket).unwrap().try_into().unwrap() else {
        panic!("not a ticket")
    };
    let mut altered = sealed.statement_handle.to_vec();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let altered = TicketStatementQuery { statement_handle: altered.into() }.as_any().encode_to_vec();
    let refused = client.do_get(Ticket::new(altered)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
}

#[tokio::test]
async fn an_expired_ticket_says_to_run_the_query_again() {
    let server = TestServer::start().await;
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap().into_inner();
    let expires = info.endpoint[0].expiration_time.unwrap();
    assert_eq!(expires.seconds, 1_800_000_060);
    server.clock.advance(Duration::from_secs(59));
    assert!(client.do_get(ticket(&info)).await.is_ok());
    server.clock.advance(Duration::from_secs(1));
    let refused = client.do_get(ticket(&info)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("run the query again"), "{}", refused.message());
}

#[tokio::test]
async fn errors_have_the_code_of_their_kind() {
    let server = TestServer::start().await;
    for (sql, code) in [
        ("selekt 1", Code::InvalidArgument),
        ("select nothing from weather.hourly", Code::InvalidArgument),
        ("select * from weather.missing", Code::InvalidArgument),
        ("select arrow_cast('x', 'Int64') from weather.hourly", Code::InvalidArgument),
        ("create table a (b int)", Code::Unimplemented),
        ("insert into weather.stations values ('a', 'b')", Code::Unimplemented),
        ("select $1", Code::InvalidArgument),
        ("break", Code::Internal),
    ] {
        let error = query(&server, sql).await.unwrap_err();
        assert_eq!(error.code(), code, "{sql}: {error:?}");
        assert!(!error.message().contains("/var/lib") && !error.message().is_empty(), "{error:?}");
    }
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_told_with_its_kind() {
    let server = TestServer::start().await;
    let sql = "select 1 / (n - 500000) from big.numbers";
    assert_eq!(query(&server, sql).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_told_so() {
    let server =
        TestServer::start_with(Options { query_timeout: Duration::from_millis(50), ..Options::default() }).await;
    let error = query(&server, "select * from slow.endless where n < 0").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    server.engine.endless.has_readers(0).await;
}

#[tokio::test]
async fn what_is_no_query_is_refused_by_name() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let error = client.execute_update("insert into weather.stations values ('a', 'b')".to_owned(), None).await;
    assert!(error.unwrap_err().to_string().contains("read only"));
    assert!(client.begin_transaction().await.unwrap_err().to_string().contains("no transactions"));
    let error = client.execute("select 1".to_owned(), Some(b"t1".to_vec().into())).await.unwrap_err();
    assert!(error.to_string().contains("no transactions"));
    let mut plain = server.plain_client().await;
    let path = FlightDescriptor::new_path(vec!["weather".to_owned(), "hourly".to_owned()]);
    assert_eq!(plain.get_flight_info(path).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(plain.do_get(Ticket::new(vec![0xff, 0xfe])).await.unwrap_err().code(), Code::InvalidArgument);
}
