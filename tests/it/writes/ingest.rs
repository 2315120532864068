//! Rows that clients send: every option, types of all kinds, and streams that end badly.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float16Array, Float64Array, Int64Array, LargeBinaryArray,
    LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray, TimestampNanosecondArray, UInt8Array,
    UInt64Array,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float16Type, Int32Type, Schema};
use arrow_flight::FlightDescriptor;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementIngest, DoPutUpdateResult, ProstMessageExt};
use futures::{StreamExt, TryStreamExt};
use lakegate::error::ErrorKind;
use lakegate::query::{IfExisting, IfMissing, QueryError};
use prost::Message;
use tonic::{Code, Status};

use super::place::{Place, refusal};
use crate::support::{on_both_grounds, truth};

const CREATE: (IfMissing, IfExisting) = (IfMissing::Create, IfExisting::Fail);
const APPEND: (IfMissing, IfExisting) = (IfMissing::Fail, IfExisting::Append);
const REPLACE: (IfMissing, IfExisting) = (IfMissing::Create, IfExisting::Replace);
const EITHER: (IfMissing, IfExisting) = (IfMissing::Create, IfExisting::Append);

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, column)| column).collect()).unwrap()
}

fn ids(range: std::ops::Range<i64>) -> RecordBatch {
    let words: ArrayRef =
        Arc::new(StringViewArray::from_iter_values(range.clone().map(|n| format!("a word of more than twelve {n}"))));
    batch(vec![("id", Arc::new(Int64Array::from_iter_values(range))), ("word", words)])
}

on_both_grounds! {
    async fn rows_go_where_the_options_say(ground) {
        let place = Place::on(ground, &[]).await;
        let send = async |options, rows: RecordBatch| place.ingest("t", options, rows.schema(), vec![Ok(rows)]).await;
        assert_eq!(refusal(send(APPEND, ids(0..3)).await, "append").0, ErrorKind::NotFound);
        assert_eq!(send(CREATE, ids(0..3)).await.unwrap(), 3);
        assert_eq!(refusal(send(CREATE, ids(0..3)).await, "create").0, ErrorKind::AlreadyExists);
        assert_eq!(send(APPEND, ids(3..5)).await.unwrap(), 2);
        assert_eq!(send(EITHER, ids(5..6)).await.unwrap(), 1);
        assert_eq!(place.rows("select count(*), sum(id), max(word) from results.t").await, ["6 15 a word of more than twelve 5"]);
        let other = batch(vec![("x", Arc::new(BooleanArray::from(vec![true])) as ArrayRef)]);
        assert_eq!(send(REPLACE, other).await.unwrap(), 1);
        assert_eq!(place.rows("select * from t").await, ["true"]);
        assert_eq!(place.rows("select count(*) from t version as of 2").await, ["6"]);
        let empty = ids(0..0);
        assert_eq!(place.ingest("none", CREATE, empty.schema(), vec![]).await.unwrap(), 0);
        assert_eq!(place.rows("select count(*) from none").await, ["0"], "no rows make a table all the same");
    }

    async fn a_stream_that_ends_badly_leaves_nothing(ground) {
        let place = Place::on(ground, &[]).await;
        place.ingest("t", CREATE, ids(0..1).schema(), vec![Ok(ids(0..1))]).await.unwrap();
        let broken = || QueryError::new(ErrorKind::InvalidInput, "the rows cannot be read");
        for (table, options) in [("t", APPEND), ("t", REPLACE), ("new", CREATE)] {
            let sent = vec![Ok(ids(0..50_000)), Ok(ids(50_000..100_000)), Err(broken())];
            let result = place.ingest(table, options, ids(0..1).schema(), sent).await;
            assert_eq!(refusal(result, table).0, ErrorKind::InvalidInput);
        }
        assert_eq!(place.rows("select count(*) from t").await, ["1"]);
        assert_eq!(refusal(place.rows_as("select 1 from new", &crate::queries::house::everything()).await, "new").0, ErrorKind::NotFound);
        for table in ["results.t", "results.new"] {
            let files = truth::data_files(&place.ground, &table.parse().unwrap()).await;
            assert_eq!(files.len(), usize::from(table == "results.t"), "{table}: {files:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_matched_by_name_and_converted_where_nothing_is_lost() {
    let place = Place::local(&[]).await;
    place.run("create table t (id bigint not null, word varchar, n int)").await;
    let shuffled = batch(vec![
        ("WORD", Arc::new(LargeStringArray::from(vec!["x"])) as ArrayRef),
        ("id", Arc::new(UInt8Array::from(vec![7])) as ArrayRef),
    ]);
    assert_eq!(place.ingest("t", APPEND, shuffled.schema(), vec![Ok(shuffled)]).await.unwrap(), 1);
    assert_eq!(place.rows("select * from t").await, ["7 x NULL"]);
    let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    for (rows, told) in [
        (batch(vec![("id", one()), ("extra", one())]), "`extra`"),
        (batch(vec![("word", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]), "`id`"),
        (batch(vec![("id", one()), ("ID", one())]), "`id`"),
        (batch(vec![("id", one()), ("n", Arc::new(Float64Array::from(vec![1.5])) as ArrayRef)]), "`n`"),
        (batch(vec![("id", one()), ("n", Arc::new(Int64Array::from(vec![1 << 40])) as ArrayRef)]), "`n`"),
    ] {
        let (kind, message) = refusal(place.ingest("t", APPEND, rows.schema(), vec![Ok(rows)]).await, told);
        assert_eq!(kind, ErrorKind::InvalidInput, "{message}");
        assert!(message.contains(told), "{message}");
    }
    assert_eq!(place.rows("select count(*) from t").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_has_types_that_hold_what_is_sent() {
    let place = Place::local(&[]).await;
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    let rows = batch(vec![
        ("u8", Arc::new(UInt8Array::from(vec![255, 0])) as ArrayRef),
        ("u64", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        (
            "half",
            Arc::new(Float16Array::from_iter_values(
                [1.5, -2.0].map(<Float16Type as ArrowPrimitiveType>::Native::from_f32),
            )),
        ),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![Some(1_000), None]))),
        ("kind", Arc::new(dictionary)),
        ("nothing", Arc::new(NullArray::new(2))),
    ]);
    assert_eq!(place.ingest("t", CREATE, rows.schema(), vec![Ok(rows)]).await.unwrap(), 2);
    let types = "select column_name, data_type from information_schema.columns where table_name = 't' order by ordinal_position";
    let expected =
        ["u8 Int16", "u64 Decimal128(20, 0)", "half Float32", "ns Timestamp(µs)", "kind Utf8", "nothing Utf8"];
    assert_eq!(place.rows(types).await, expected);
    let rows = place.rows("select u8, u64, half, ns, kind, nothing from t order by u8 desc").await;
    assert_eq!(rows, ["255 18446744073709551615 1.5 1970-01-01T00:00:00.000001 a NULL", "0 0 -2.0 NULL NULL NULL"]);
    let lossy = batch(vec![("ns", Arc::new(TimestampNanosecondArray::from(vec![1_001])) as ArrayRef)]);
    let (kind, told) = refusal(place.ingest("lossy", CREATE, lossy.schema(), vec![Ok(lossy)]).await, "ns");
    assert!(kind == ErrorKind::InvalidInput && told.contains("`ns`"), "{told}");
    let spans = arrow::array::DurationSecondArray::from(vec![1]);
    let spans = batch(vec![("span", Arc::new(spans) as ArrayRef)]);
    let (kind, told) = refusal(place.ingest("spans", CREATE, spans.schema(), vec![Ok(spans)]).await, "span");
    assert!(kind == ErrorKind::InvalidInput && told.contains("`span`"), "{told}");
    let spaced = batch(vec![("a b", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let (kind, told) = refusal(place.ingest("spaced", CREATE, spaced.schema(), vec![Ok(spaced)]).await, "a b");
    assert!(kind == ErrorKind::InvalidInput && told.contains("`a b`"), "{told}");
}

/// `TableNotExistOption` and `TableExistsOption` (FlightSql.proto).
const CREATE_IT: i32 = 1;
const FAIL_IF_THERE: i32 = 1;
const APPEND_TO_IT: i32 = 2;

fn command(table: &str, if_not_exist: i32, if_exists: i32) -> CommandStatementIngest {
    let mut command = CommandStatementIngest {
        table: table.to_owned(),
        table_definition_options: Some(Default::default()),
        ..Default::default()
    };
    if let Some(options) = &mut command.table_definition_options {
        (options.if_not_exist, options.if_exists) = (if_not_exist, if_exists);
    }
    command
}

async fn put(
    place: &Place,
    command: &CommandStatementIngest,
    batches: Vec<RecordBatch>,
    spoil: impl FnOnce(&mut Vec<arrow_flight::FlightData>),
) -> Result<Vec<i64>, Status> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter(batches.into_iter().map(Ok)))
        .map(Result::unwrap);
    let mut messages: Vec<_> = messages.collect().await;
    spoil(&mut messages);
    let mut client = FlightServiceClient::new(place.channel().await);
    let answer = client.do_put(futures::stream::iter(messages)).await?.into_inner();
    let results: Vec<_> = answer.try_collect().await?;
    Ok(results.iter().map(|result| DoPutUpdateResult::decode(&*result.app_metadata).unwrap().record_count).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_wire_a_count_comes_once_and_bad_streams_are_refused() {
    let place = Place::local(&[]).await;
    let create = command("t", CREATE_IT, APPEND_TO_IT);
    assert_eq!(put(&place, &create, vec![ids(0..10), ids(10..20)], |_| {}).await.unwrap(), [20]);
    let temporary = CommandStatementIngest { temporary: true, ..create.clone() };
    let refused = put(&place, &temporary, vec![ids(0..1)], |_| {}).await.unwrap_err();
    assert!(refused.code() == Code::Unimplemented && refused.message().contains("temporary"), "{refused:?}");
    let transaction = CommandStatementIngest { transaction_id: Some("1".into()), ..create.clone() };
    assert_eq!(put(&place, &transaction, vec![ids(0..1)], |_| {}).await.unwrap_err().code(), Code::Unimplemented);
    let catalog = CommandStatementIngest { catalog: Some("other".to_owned()), ..create.clone() };
    assert_eq!(put(&place, &catalog, vec![ids(0..1)], |_| {}).await.unwrap_err().code(), Code::NotFound);
    let unsaid = CommandStatementIngest { table_definition_options: None, ..create.clone() };
    assert_eq!(put(&place, &unsaid, vec![ids(0..1)], |_| {}).await.unwrap_err().code(), Code::InvalidArgument);
    let elsewhere = CommandStatementIngest { schema: Some("ops".to_owned()), ..create.clone() };
    assert_eq!(put(&place, &elsewhere, vec![ids(0..1)], |_| {}).await.unwrap_err().code(), Code::Unimplemented);
    let garbled = put(&place, &create, vec![ids(0..10), ids(10..20)], |messages| {
        let last = messages.last_mut().unwrap();
        last.data_header = bytes::Bytes::from_static(b"no message at all");
    });
    assert_eq!(garbled.await.unwrap_err().code(), Code::InvalidArgument);
    let cut = put(&place, &create, vec![ids(0..10), ids(10..20)], |messages| {
        let last = messages.last_mut().unwrap();
        last.data_body = last.data_body.slice(0..8);
    });
    assert_eq!(cut.await.unwrap_err().code(), Code::InvalidArgument);
    let headless = put(&place, &create, vec![ids(0..10)], |messages| {
        let descriptor = messages[0].flight_descriptor.take();
        messages.remove(0);
        messages[0].flight_descriptor = descriptor;
    });
    assert_eq!(headless.await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(place.rows("select count(*) from t").await, ["20"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_would_unpack_to_much_more_is_refused() {
    let place = Place::local(&[]).await;
    let cell = vec![0_u8; 300 << 20];
    let zeros = batch(vec![("n", Arc::new(LargeBinaryArray::from_vec(vec![cell.as_slice()])) as ArrayRef)]);
    let options = arrow::ipc::writer::IpcWriteOptions::default()
        .try_with_compression(Some(arrow::ipc::CompressionType::ZSTD))
        .unwrap();
    let create = command("bomb", CREATE_IT, FAIL_IF_THERE);
    let descriptor = FlightDescriptor::new_cmd(create.as_any().encode_to_vec());
    let messages = FlightDataEncoderBuilder::new()
        .with_options(options)
        .with_max_flight_data_size(usize::MAX)
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter([Ok(zeros)]))
        .map(Result::unwrap);
    let messages: Vec<_> = messages.collect().await;
    assert!(messages.iter().all(|message| message.data_body.len() < 1 << 20), "small on the line");
    let mut client = FlightServiceClient::new(place.channel().await);
    let refused = client.do_put(futures::stream::iter(messages)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let many = batch(vec![("nothing", Arc::new(NullArray::new(1 << 30)) as ArrayRef)]);
    assert_eq!(many.schema().field(0).data_type(), &DataType::Null);
    let create = command("many", CREATE_IT, FAIL_IF_THERE);
    let refused = put(&place, &create, vec![many], |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
}
