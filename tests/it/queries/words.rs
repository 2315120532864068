//! Which columns of text come as dictionaries for those who ask, and what that spares.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use serde_json::Value;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::queries::house::House;

const COLUMNS: &[(&str, &str)] = &[("id", "bigint"), ("kind", "string"), ("name", "string"), ("score", "double")];
const ALL: &str = "select * from t.v";

/// Rows from `first` on: texts of which there are 20, and texts that are all different.
fn rows(first: u64, count: u64) -> String {
    format!(
        "select x, 'kind ' || cast((x * 7919) % 20 as varchar) as k, substr(md5(cast(x as varchar)), 1, 14) as n, \
         random() as s from generate_series({first}, {}) g(x)",
        first + count - 1
    )
}

async fn lake() -> House {
    let house = House::new(&["t.v"]).await;
    house.load("t.v", COLUMNS, &rows(0, 100_000)).await;
    house
}

async fn client(house: &House, dictionaries: Option<&str>) -> FlightSqlServiceClient<Channel> {
    let mut client = house.client().await;
    client.set_header("lakegate-codec", "zstd");
    if let Some(word) = dictionaries {
        client.set_header("lakegate-dictionaries", word);
    }
    client
}

/// The names of the columns that are announced as dictionaries.
fn worded(schema: &Schema) -> Vec<&str> {
    let fields = schema.fields().iter().filter(|field| matches!(field.data_type(), DataType::Dictionary(..)));
    fields.map(|field| field.name().as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_gets_dictionaries_where_words_are_few_and_nobody_else_does() {
    let house = lake().await;
    let asked: [(&str, &[&str]); 6] = [
        (ALL, &["kind"]),
        ("select name as n, kind as k from t.v where id > 7 order by id limit 50000", &["k"]),
        (
            "select upper(kind) as u, kind || name as c, case when id > 5 then 'a' else 'b' end as e from t.v",
            &["u", "e"],
        ),
        ("select a.kind, b.name from t.v a join t.v b on a.id = b.id", &["kind"]),
        ("select name, count(*) from t.v group by name", &[]),
        ("select 'one' as one, cast(id as varchar) as id from t.v", &["one"]),
    ];
    for (sql, few) in asked {
        let nothing: &[&str] = &[];
        for (asked, expected) in [(None, nothing), (Some("off"), nothing), (Some("on"), few)] {
            let mut client = client(&house, asked).await;
            let info = client.execute(sql.to_owned(), None).await.unwrap();
            let announced = info.clone().try_decode_schema().unwrap();
            assert_eq!(worded(&announced), expected, "{asked:?} {sql}");
            let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
            let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
            assert_eq!(batches[0].schema().fields(), announced.fields(), "{asked:?} {sql}");
            let prepared = client.prepare(sql.to_owned(), None).await.unwrap();
            assert_eq!(prepared.dataset_schema().unwrap().fields(), announced.fields(), "{asked:?} {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_sends_what_a_ticket_was_announced_with() {
    let house = lake().await;
    let mut first = client(&house, Some("on")).await;
    let info = first.execute(ALL.to_owned(), None).await.unwrap();
    let announced = info.clone().try_decode_schema().unwrap();
    // Now all of them are different in the table's newest version.
    let few = "select x, cast(x as varchar) as k, cast(x as varchar) as n, 0.5 from generate_series(1, 400000) g(x)";
    house.load("t.v", COLUMNS, few).await;
    let mut second = client(&house, Some("on")).await;
    let stream = second.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
    assert_eq!(batches[0].schema().fields(), announced.fields());
    let info = second.execute(ALL.to_owned(), None).await.unwrap();
    assert_eq!(worded(&info.try_decode_schema().unwrap()), [""; 0]);
}

async fn described(channel: &Channel, have: &str) -> FlightInfo {
    let mut request = Request::new(FlightDescriptor::new_cmd(ALL));
    for (name, value) in [("lakegate-dictionaries", "on"), ("lakegate-codec", "zstd"), ("lakegate-have", have)] {
        if !value.is_empty() {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
    }
    FlightServiceClient::new(channel.clone()).get_flight_info(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_load_changes_no_column_and_only_its_rows_are_sent() {
    let house = lake().await;
    let address = house.serve().await;
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    let before = described(&channel, "").await;
    let told: Value = serde_json::from_slice(&before.app_metadata).unwrap();
    for load in 0..3 {
        house.load("t.v", COLUMNS, &rows(100_000 + load * 30, 30)).await;
    }
    let after = described(&channel, told["basis"].as_str().unwrap()).await;
    let now: Value = serde_json::from_slice(&after.app_metadata).unwrap();
    assert_eq!((&after.schema, &now["appended_to"]), (&before.schema, &told["identity"]));
    assert_eq!(after.total_records, 90);
}

/// The bytes of rows as a stream of IPC, in batches of so many rows, with these columns as dictionaries.
fn packed(rows: &RecordBatch, worded: &[&str]) -> usize {
    let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let plain = rows.schema();
    let fields = plain.fields().iter().map(|field| match worded.contains(&field.name().as_str()) {
        true => Arc::new(Field::new(field.name(), words.clone(), true)),
        false => Arc::clone(field),
    });
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
    let options = options.try_with_compression_level(Some(1)).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    for first in (0..rows.num_rows()).step_by(65_536) {
        let batch = rows.slice(first, 65_536.min(rows.num_rows() - first));
        let columns = batch.columns().iter().zip(schema.fields());
        let columns: Vec<ArrayRef> = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.into_inner().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_dictionaries_hardly_more_bytes_are_sent_than_the_best_encoding_has() {
    let house = lake().await;
    let mut plain = client(&house, None).await;
    let info = plain.execute(ALL.to_owned(), None).await.unwrap();
    let stream = plain.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    let rows = concat_batches(&batches[0].schema(), &batches).unwrap();
    assert!(rows.column(1).as_string_opt::<i32>().is_some(), "a stock client gets plain text");
    let each = [&[][..], &["kind"], &["name"], &["kind", "name"]].map(|worded| packed(&rows, worded));
    let best = each.into_iter().min().unwrap();
    assert!(best == each[1] && each[3] as f64 > 1.05 * best as f64, "{each:?}");
    let address = house.serve().await;
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    let info = described(&channel, "").await;
    let mut request = Request::new(info.endpoint[0].ticket.clone().unwrap());
    request.metadata_mut().insert("lakegate-codec", "zstd".parse().unwrap());
    request.metadata_mut().insert("lakegate-dictionaries", "on".parse().unwrap());
    let mut messages = FlightServiceClient::new(channel).do_get(request).await.unwrap().into_inner();
    let mut sent = 0;
    while let Some(message) = messages.message().await.unwrap() {
        sent += message.data_header.len() + message.data_body.len();
    }
    assert!(sent as f64 <= 1.05 * best as f64, "{sent} of {each:?}");
}
