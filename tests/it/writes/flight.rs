//! The roads clients take to change something, over a real server.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, Any, CommandGetCrossReference, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetTables, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor};
use futures::TryStreamExt;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;

use super::place::Place;
use crate::queries::house::text;

async fn read(client: &mut FlightSqlServiceClient<Channel>, ticket: Ticket) -> Vec<String> {
    let batches: Vec<RecordBatch> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    text(&batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_runs_once_where_it_is_sent_as_one() {
    let place = Place::local(&[]).await;
    let mut client = place.client().await;
    assert_eq!(client.execute_update("create table t (id bigint, word varchar)".to_owned(), None).await.unwrap(), 0);
    let insert = "insert into t values (1, 'a'), (2, 'b')".to_owned();
    assert_eq!(client.execute_update(insert, None).await.unwrap(), 2);
    assert_eq!(place.rows("select * from t order by id").await, ["1 a", "2 b"]);
    let query = client.execute_update("select 1".to_owned(), None).await.unwrap_err();
    assert!(query.to_string().contains("execute_query"), "{query}");
    let wrong = client.execute_update("insert into t values ('x', 1)".to_owned(), None).await.unwrap_err();
    assert!(wrong.to_string().contains("`id`"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_asked_for_is_made_once_and_read_any_number_of_times() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint)").await;
    let mut client = place.client().await;
    let insert = "insert into t values (1), (2), (3)";
    let info = client.execute(insert.to_owned(), None).await.unwrap();
    assert_eq!(place.rows("select count(*) from t").await, ["3"], "it ran before anybody fetched the result");
    assert_eq!(info.total_records, 3);
    let announced = info.clone().try_decode_schema().unwrap();
    assert_eq!(announced.fields()[0].name(), "count");
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    for _ in 0..3 {
        let stream = client.do_get(ticket.clone()).await.unwrap();
        let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        assert_eq!((text(&batches), batches[0].schema().as_ref()), (vec!["3".to_owned()], &announced));
    }
    assert_eq!(place.rows("select count(*) from t").await, ["3"], "a ticket runs nothing again");
    client.set_header("lakegate-dictionaries", "on");
    let info = client.execute(insert.to_owned(), None).await.unwrap();
    assert_eq!(place.rows("select count(*) from t").await, ["6"], "each call for a result runs the statement");
    let counted = read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await;
    assert_eq!(counted, ["3"], "whatever the client asks for with every call");
    let mut plain = FlightServiceClient::new(place.channel().await);
    let refused = plain.do_get(Ticket::new(insert)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let schema = plain.get_schema(FlightDescriptor::new_cmd(insert)).await.unwrap().into_inner();
    let schema = arrow::datatypes::Schema::try_from(&schema).unwrap();
    assert_eq!(schema, announced);
    assert_eq!(place.rows("select count(*) from t").await, ["6"], "neither of the two ran it");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_updates_say_that_they_are_updates_and_take_many_rows() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint, word varchar)").await;
    let sql = "insert into t values (?, ?)";
    let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut plain = FlightServiceClient::new(place.channel().await);
    let answer: Vec<_> = plain.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    let value = Any::decode(&*answer[0].body).unwrap().value;
    assert!(value.ends_with(&[0x20, 0x01]), "field 4, true");

    let mut client = place.client().await;
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap().fields().len(), 0);
    let kinds: Vec<_> =
        prepared.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(kinds, ["Int64", "Utf8"]);
    let rows = |from: i64, count: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("w{n}"))));
        RecordBatch::try_from_iter([("0", ids), ("1", words)]).unwrap()
    };
    prepared.set_parameters(rows(0, 1000)).unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 1000);
    assert_eq!(place.rows("select count(*), count(distinct id) from t").await, ["1000 1000"]);
    assert_eq!(place.version("results.t").await, 1, "one commit");
    prepared.set_parameters(rows(5000, 1)).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(info.total_records, 1);
    assert_eq!(read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await, ["1"]);
    prepared.execute().await.unwrap();
    assert_eq!(place.rows("select count(*) from t where id = 5000").await, ["2"], "each call runs it once");
    let mut without = client.prepare("delete from t where id < 10".to_owned(), None).await.unwrap();
    assert_eq!(without.execute_update().await.unwrap(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_told_keys_and_what_may_be_written() {
    let customers = "[table]\nkey = [\"id\"]\nwritable = true\n[[columns]]\nname = \"id\"\ntype = \"bigint\"\n";
    let orders = "[table]\nkey = [\"order_id\"]\nwritable = true\n[[columns]]\nname = \"order_id\"\ntype = \"bigint\"\n\
                  [[columns]]\nname = \"customer\"\ntype = \"bigint\"\n[[foreign_keys]]\ncolumns = [\"customer\"]\n\
                  references = \"ops.customers\"\n";
    let place = Place::local(&[("ops.customers", customers), ("ops.orders", orders)]).await;
    place.run("insert into ops.customers values (1)").await;
    place.run("insert into ops.orders values (10, 1)").await;
    place.run("create table made (a int primary key)").await;
    let mut client = place.client().await;
    let expected = ["lakegate ops customers id lakegate ops orders customer 1 orders_customer_fkey NULL 3 3"];
    let exported = CommandGetExportedKeys { table: "customers".to_owned(), ..Default::default() };
    let info = client.get_exported_keys(exported).await.unwrap();
    assert_eq!(read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await, expected);
    let imported = CommandGetImportedKeys { table: "orders".to_owned(), ..Default::default() };
    let info = client.get_imported_keys(imported).await.unwrap();
    assert_eq!(read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await, expected);
    let cross = CommandGetCrossReference {
        pk_table: "customers".to_owned(),
        fk_table: "orders".to_owned(),
        ..Default::default()
    };
    let info = client.get_cross_reference(cross).await.unwrap();
    assert_eq!(read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await, expected);
    let none = CommandGetExportedKeys { table: "orders".to_owned(), ..Default::default() };
    let info = client.get_exported_keys(none).await.unwrap();
    assert!(read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await.is_empty());

    let key = arrow_flight::sql::CommandGetPrimaryKeys { table: "made".to_owned(), ..Default::default() };
    let info = client.get_primary_keys(key).await.unwrap();
    let rows = read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await;
    assert_eq!(rows, ["lakegate results made a NULL 1"]);
    let tables = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let info = client.get_tables(tables).await.unwrap();
    let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    let names = batches[0].column(2);
    let names = names.as_any().downcast_ref::<StringArray>().unwrap();
    let schemas = batches[0].column(4).as_any().downcast_ref::<arrow::array::BinaryArray>().unwrap();
    for row in 0..names.len() {
        let schema = arrow_flight::IpcMessage(bytes::Bytes::copy_from_slice(schemas.value(row)));
        let schema = arrow::datatypes::Schema::try_from(schema).unwrap();
        let read_only = &schema.fields()[0].metadata()["ARROW:FLIGHT:SQL:IS_READ_ONLY"];
        let expected = if ["made", "orders", "customers"].contains(&names.value(row)) { "0" } else { "1" };
        assert_eq!(read_only, expected, "{}", names.value(row));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nothing_was_written_to_has_no_version_in_the_history() {
    let notes = "[table]\nwritable = true\n[[columns]]\nname = \"id\"\ntype = \"bigint\"\n";
    let place = Place::local(&[("ops.notes", notes)]).await;
    let mut client = place.client().await;
    let sql = "select id from ops.notes";
    let history = format!("select distinct tables from system.queries where text = '{sql}'");
    let mut run = async |sql: &str| {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        read(&mut client, info.endpoint[0].ticket.clone().unwrap()).await
    };
    assert!(run(sql).await.is_empty());
    assert_eq!(run(&history).await, ["{\"ops.notes\":null}"]);
    place.run("insert into ops.notes values (1)").await;
    assert_eq!(run(sql).await, ["1"]);
    let mut told = run(&history).await;
    told.sort();
    assert_eq!(told, ["{\"ops.notes\":0}", "{\"ops.notes\":null}"]);
}
