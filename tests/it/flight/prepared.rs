//! Prepared statements as the different clients use them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UnionArray};
use arrow::datatypes::{DataType, Field, Schema, UnionFields};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::Code;

use super::server::{Options, TestServer, query, read, text, ticket};

const BY_HOUR: &str = "select station, hour from weather.hourly where hour >= ? and station <> ? order by hour";

fn parameters(hour: i64, station: &str) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] =
        [("0", Arc::new(Int64Array::from(vec![hour]))), ("1", Arc::new(StringArray::from(vec![station])))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn a_statement_is_prepared_bound_run_and_bound_again() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut prepared = client.prepare(BY_HOUR.to_owned(), None).await.unwrap();
    let expected = Schema::new(vec![Field::new("$1", DataType::Int64, true), Field::new("$2", DataType::Utf8, true)]);
    assert_eq!(prepared.parameter_schema().unwrap(), &expected);
    assert_eq!(prepared.dataset_schema().unwrap().fields().len(), 2);
    prepared.set_parameters(parameters(2, "x")).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(text(&read(&mut client, info).await), ["JFK 2", "a station with a long name 3"]);
    prepared.set_parameters(parameters(1, "JFK")).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(text(&read(&mut client, info).await), ["EWR 1", "a station with a long name 3"]);
    prepared.close().await.unwrap();
}

#[tokio::test]
async fn numbered_parameters_are_told_in_order() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let list = (1..=11).rev().map(|number| format!("${number}")).collect::<Vec<_>>().join(", ");
    let prepared = client.prepare(format!("select {list}"), None).await.unwrap();
    let names: Vec<_> =
        prepared.parameter_schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, (1..=11).map(|number| format!("${number}")).collect::<Vec<_>>());
    assert!(prepared.parameter_schema().unwrap().fields().iter().all(|field| field.data_type() == &DataType::Utf8));
}

#[tokio::test]
async fn a_statement_without_parameters_runs_on_any_server_with_the_same_key() {
    let (first, second) = (TestServer::start().await, TestServer::start().await);
    let handle = create(&first, "select count(*) from weather.hourly").await.prepared_statement_handle;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec();
    let mut client = second.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(command.clone())).await.unwrap().into_inner();
    assert_eq!(text(&read(&mut second.client().await, info).await), ["3"]);
    // The command as a ticket, too.
    let messages = client.do_get(arrow_flight::Ticket::new(command.clone())).await.unwrap().into_inner();
    assert!(messages.count().await > 1);
    let stranger = TestServer::start_with(Options { key: "02", ..Options::default() }).await;
    let refused = stranger.plain_client().await.get_flight_info(FlightDescriptor::new_cmd(command)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn values_within_a_union_are_bound_to_the_first_handle() {
    let server = TestServer::start().await;
    let handle = create(&server, "select station from weather.hourly where hour = ?").await.prepared_statement_handle;
    let answer = bind(&server, &handle, union_of(2)).await.unwrap();
    assert_eq!(answer.prepared_statement_handle.as_ref(), Some(&handle));
    assert_eq!(run(&server, &handle).await, ["JFK"]);
    // A second binding takes the place of the first.
    bind(&server, &handle, union_of(1)).await.unwrap();
    assert_eq!(run(&server, &handle).await, ["EWR"]);
}

#[tokio::test]
async fn a_ticket_keeps_the_values_it_was_made_with() {
    let server = TestServer::start().await;
    let handle = create(&server, "select station from weather.hourly where hour = $1").await.prepared_statement_handle;
    bind(&server, &handle, union_of(2)).await.unwrap();
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec();
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(command)).await.unwrap().into_inner();
    bind(&server, &handle, union_of(1)).await.unwrap();
    assert_eq!(text(&read(&mut server.client().await, info).await), ["JFK"]);
}

#[tokio::test]
async fn missing_and_wrong_values_are_told() {
    let server = TestServer::start().await;
    let handle = create(&server, "select station from weather.hourly where hour = ?").await.prepared_statement_handle;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec();
    let mut client = server.plain_client().await;
    let unbound = client.get_flight_info(FlightDescriptor::new_cmd(command.clone())).await.unwrap_err();
    assert!(unbound.code() == Code::InvalidArgument && unbound.message().contains("bind"), "{unbound:?}");
    let error = bind(&server, &handle, parameters(1, "x")).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("1 parameters"), "{error:?}");
    bind(&server, &handle, union_of(1)).await.unwrap();
    close(&server, &handle).await;
    let closed = client.get_flight_info(FlightDescriptor::new_cmd(command)).await.unwrap_err();
    assert_eq!(closed.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn drivers_are_told_that_a_query_is_no_update() {
    let server = TestServer::start().await;
    let body = create_body(&server, "select 1").await.unwrap();
    let value = Any::decode(&*body).unwrap().value;
    assert!(value.ends_with(&[0x20, 0x00]), "field 4, false");
}

#[tokio::test]
async fn what_cannot_be_prepared_is_refused_with_its_kind() {
    let server = TestServer::start().await;
    assert_eq!(create_body(&server, "selekt").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(create_body(&server, "drop table weather.hourly").await.unwrap_err().code(), Code::Unimplemented);
    let mut client = server.plain_client().await;
    let empty = client.do_action(Action::new("CreatePreparedStatement", "")).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    assert!(query(&server, "select ?").await.is_err());
}

async fn create_body(server: &TestServer, sql: &str) -> Result<bytes::Bytes, tonic::Status> {
    let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut client = server.plain_client().await;
    let results: Vec<_> = client.do_action(action).await?.into_inner().try_collect().await?;
    Ok(results[0].body.clone())
}

async fn create(server: &TestServer, sql: &str) -> ActionCreatePreparedStatementResult {
    let body = create_body(server, sql).await.unwrap();
    Any::decode(&*body).unwrap().unpack().unwrap().unwrap()
}

async fn close(server: &TestServer, handle: &bytes::Bytes) {
    let request = ActionClosePreparedStatementRequest { prepared_statement_handle: handle.clone() };
    let action = Action::new("ClosePreparedStatement", request.as_any().encode_to_vec());
    let answer = server.plain_client().await.do_action(action).await.unwrap().into_inner();
    assert_eq!(answer.count().await, 0);
}

async fn bind(
    server: &TestServer,
    handle: &bytes::Bytes,
    values: RecordBatch,
) -> Result<DoPutPreparedStatementResult, tonic::Status> {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter([Ok(values)]))
        .map(Result::unwrap);
    let answer = server.plain_client().await.do_put(messages).await?.into_inner();
    let results: Vec<_> = answer.try_collect().await?;
    Ok(DoPutPreparedStatementResult::decode(&*results[0].app_metadata).unwrap())
}

async fn run(server: &TestServer, handle: &bytes::Bytes) -> Vec<String> {
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() }.as_any().encode_to_vec();
    let mut client = server.plain_client().await;
    let info = client.get_flight_info(FlightDescriptor::new_cmd(command)).await.unwrap().into_inner();
    assert!(!ticket(&info).ticket.is_empty());
    text(&read(&mut server.client().await, info).await)
}

/// One value as flightsql-dbapi sends it.
fn union_of(value: i64) -> RecordBatch {
    let fields = UnionFields::from_fields([
        Field::new("int", DataType::Int64, true),
        Field::new("string", DataType::Utf8, true),
    ]);
    let children: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![value])), Arc::new(StringArray::from(Vec::<&str>::new()))];
    let union = UnionArray::try_new(fields, vec![0_i8].into(), Some(vec![0].into()), children).unwrap();
    RecordBatch::try_from_iter([("param_0", Arc::new(union) as ArrayRef)]).unwrap()
}
