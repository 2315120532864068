//! How large results will be, against how large they are.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::queries::house::{House, text};

const COLUMNS: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("d", "date"),
    ("bucket", "bigint"),
    ("late", "bigint"),
    ("score", "double"),
    ("weight", "double"),
    ("label", "string"),
];
/// Rows of a load, which has a month of its own.
const LOAD: i64 = 25_000;

/// `t.frames`: four loads of values that lie evenly.
async fn lake(config: &str) -> House {
    let config = format!("[limits]\nthreads = 2\nmemory = \"256MiB\"\n{config}");
    let house = House::with_config(&["t.frames"], &config).await;
    for (load, month) in (0..4).zip(["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01"]) {
        let (first, last) = (load * LOAD, (load + 1) * LOAD - 1);
        let sql = format!(
            "select x, date '{month}', cast(floor(random() * 1000) as bigint), case when x % 4 = 0 then null else x end, \
             random() as r1, random() as r2, 'label ' || cast(floor(random() * 5) as bigint) from generate_series({first}, {last}) g(x)"
        );
        house.load("t.frames", COLUMNS, &sql).await;
    }
    house
}

async fn connection(house: &House) -> FlightServiceClient<Channel> {
    let address = house.serve().await;
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    FlightServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

async fn described(client: &mut FlightServiceClient<Channel>, sql: &str, codec: &str) -> Result<FlightInfo, Status> {
    let mut request = Request::new(FlightDescriptor::new_cmd(sql.to_owned()));
    request.metadata_mut().insert("lakegate-codec", codec.parse().unwrap());
    Ok(client.get_flight_info(request).await?.into_inner())
}

fn estimate(info: &FlightInfo) -> Value {
    let metadata: Value = serde_json::from_slice(&info.app_metadata).unwrap();
    metadata["estimate"].clone()
}

/// The bytes of a result on the line.
async fn bytes(client: &mut FlightServiceClient<Channel>, info: FlightInfo, codec: &str) -> f64 {
    let mut request = Request::new(info.endpoint[0].ticket.clone().unwrap());
    request.metadata_mut().insert("lakegate-codec", codec.parse().unwrap());
    let mut messages = client.do_get(request).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(message) = messages.message().await.unwrap() {
        bytes += message.data_header.len() + message.data_body.len();
    }
    bytes as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_whole_table_is_known_exactly() {
    let house = lake("").await;
    let mut client = connection(&house).await;
    let info = described(&mut client, "select * from t.frames", "none").await.unwrap();
    let told = estimate(&info);
    assert_eq!((told["rows"].as_i64(), told["rows_exact"].as_bool()), (Some(4 * LOAD), Some(true)), "{told}");
    assert_eq!((info.total_records, Some(info.total_bytes)), (4 * LOAD, told["wire_bytes"].as_i64()));
    assert_eq!(told["seconds"], Value::Null, "no line has a rate: {told}");
    let heaviest = told["heaviest"].as_array().unwrap();
    assert!(heaviest.len() == 5 && heaviest[0]["column"] == "label", "{told}");
    // What is not packed takes its width.
    let info = described(&mut client, "select id, score from t.frames", "none").await.unwrap();
    let (told, sent) = (info.total_bytes as f64, bytes(&mut client, info, "none").await);
    assert!((told / sent - 1.0).abs() < 0.02, "{told} {sent}");
    for (sql, rows) in [
        ("select id from t.frames limit 10", Some(10)),
        ("select id from t.frames version as of 0", Some(LOAD)),
        ("select count(*) from t.frames where label = 'x'", Some(1)),
        ("select id from t.frames where id > 1000000", Some(0)),
        ("select id from t.frames union all select id from t.frames", Some(8 * LOAD)),
        ("select 1", Some(1)),
    ] {
        let told = estimate(&described(&mut client, sql, "none").await.unwrap());
        assert_eq!((told["rows"].as_i64(), told["rows_exact"].as_bool()), (rows, Some(true)), "{sql}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_said_to_be_unknown() {
    let house = lake("").await;
    let mut client = connection(&house).await;
    for sql in [
        "select * from t.frames where label = 'label 1'",
        "select * from t.frames where id > 7 and label like 'label%'",
        "select * from t.frames where score < 0.5",
        "select label, count(*) from t.frames group by label",
        "select distinct label from t.frames",
        "select a.id from t.frames a join t.frames b on a.id = b.id",
        "select * from t.frames where id in (select bucket from t.frames)",
        "select unnest([1, 2])",
        "select * from system.loads",
    ] {
        let info = described(&mut client, sql, "zstd").await.unwrap();
        let told = estimate(&info);
        assert!(told["rows"].is_null() && told["wire_bytes"].is_null() && told["seconds"].is_null(), "{sql}: {told}");
        assert_eq!((info.total_records, info.total_bytes), (-1, -1), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_line_with_a_rate_it_is_told_how_long_a_result_takes() {
    let house = lake("[[line]]\nnetworks = [\"127.0.0.0/8\"]\nrate = \"8Mbit/s\"\n").await;
    let mut client = connection(&house).await;
    let told = estimate(&described(&mut client, "select id from t.frames", "none").await.unwrap());
    let (bytes, seconds) = (told["wire_bytes"].as_f64().unwrap(), told["seconds"].as_f64().unwrap());
    // 95 % of the rate are given out.
    assert!((seconds * 7_600_000.0 / (8.0 * bytes) - 1.0).abs() < 0.01, "{told}");
}

/// Queries over values that lie evenly.
const QUERIES: &[&str] = &[
    "select * from t.frames",
    "select id, score from t.frames",
    "select score, weight, label from t.frames where id < 10000",
    "select * from t.frames where bucket between 100 and 299",
    "select * from t.frames where d = date '2024-02-01'",
    "select id, d, score from t.frames where d >= date '2024-03-01' and bucket < 500",
    "select * from t.frames where late is null",
    "select * from t.frames where late is not null and bucket >= 500",
    "select weight from t.frames where not (bucket < 250)",
    "select * from t.frames where bucket in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)",
    "select * from t.frames where id < 5000 or id >= 95000",
    "select score, weight from t.frames order by score limit 20000",
];

/// How far apart two numbers are, from 1 on.
fn factor(told: f64, found: f64) -> f64 {
    let (told, found) = (told.max(1.0), found.max(1.0));
    (told / found).max(found / told)
}

fn at(mut factors: Vec<f64>, share: f64) -> f64 {
    factors.sort_by(f64::total_cmp);
    factors[((factors.len() - 1) as f64 * share).round() as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_are_near_before_anything_was_sent_and_nearer_after() {
    let house = lake("").await;
    for codec in ["none", "zstd"] {
        let mut client = connection(&house).await;
        let mut cold = Vec::new();
        let mut rows = Vec::new();
        for sql in QUERIES {
            let info = described(&mut client, sql, codec).await.unwrap();
            let told = estimate(&info);
            let counted = house.rows(&format!("select count(*) from ({sql})")).await.unwrap();
            let Some(told_rows) = told["rows"].as_f64() else { panic!("{sql}: {told}") };
            rows.push(factor(told_rows, counted[0].parse().unwrap()));
            cold.push(told["wire_bytes"].as_f64().unwrap());
        }
        assert!(at(rows.clone(), 0.5) <= 1.05 && at(rows.clone(), 0.9) <= 1.2, "{rows:?}");
        // Each was told before anything was sent; now all are.
        let mut sent = Vec::new();
        for sql in QUERIES {
            let info = described(&mut client, sql, codec).await.unwrap();
            sent.push(bytes(&mut client, info, codec).await);
        }
        let factors: Vec<f64> = cold.iter().zip(&sent).map(|(told, sent)| factor(*told, *sent)).collect();
        assert!(at(factors.clone(), 0.5) <= 1.25 && at(factors.clone(), 0.9) <= 2.0, "{codec}, cold: {factors:?}");
        let mut warm = Vec::new();
        for (sql, sent) in QUERIES.iter().zip(&sent) {
            let told = estimate(&described(&mut client, sql, codec).await.unwrap());
            warm.push(factor(told["wire_bytes"].as_f64().unwrap(), *sent));
        }
        assert!(at(warm.clone(), 0.5) <= 1.1 && at(warm.clone(), 0.9) <= 1.3, "{codec}, warm: {warm:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_estimate_answers_with_a_row_for_all_and_one_for_each_column() {
    let house = lake("").await;
    let mut client = house.client().await;
    let mut rows = async |sql: &str| {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        text(&stream.try_collect::<Vec<_>>().await.unwrap())
    };
    let told = rows("explain estimate select id, label from t.frames").await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("NULL 100000 true ") && told[0].ends_with(" NULL"), "{told:?}");
    assert!(told[1].starts_with("label 100000 true ") && told[2].starts_with("id 100000 true 800000"), "{told:?}");
    let told = rows("explain estimate select label from t.frames group by label").await;
    assert_eq!(told, ["NULL NULL NULL NULL NULL", "label NULL NULL NULL NULL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_estimate_takes_the_values_of_a_prepared_statement() {
    let house = lake("").await;
    let mut client: FlightSqlServiceClient<Channel> = house.client().await;
    let sql = "explain estimate select id from t.frames where id < ?";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let number: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::Int64Array::from(vec![10_000]));
    prepared.set_parameters(arrow::array::RecordBatch::try_from_iter([("1", number)]).unwrap()).unwrap();
    let info = prepared.execute().await.unwrap();
    let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let told = text(&stream.try_collect::<Vec<_>>().await.unwrap());
    let rows: f64 = told[0].split(' ').nth(1).unwrap().parse().unwrap();
    assert!((9_900.0..=10_100.0).contains(&rows), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_known_to_be_too_large_is_refused_before_it_is_computed() {
    let house = lake("max_result_bytes = \"1MB\"\n").await;
    let mut client = connection(&house).await;
    let refused = described(&mut client, "select * from t.frames", "none").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let told = refused.message();
    assert!(
        told.contains("limits.max_result_bytes") && told.contains("`label`") && told.contains("EXPLAIN ESTIMATE"),
        "{told}"
    );
    let now = arrow_flight::Ticket::new("select * from t.frames");
    let refused = client.do_get(now).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "without a description first: {refused:?}");
    // What is small, what is not known, and the question how large it is are answered.
    for sql in [
        "select id from t.frames where id < 100",
        "select * from t.frames where label = 'label 1'",
        "explain estimate select * from t.frames",
    ] {
        described(&mut client, sql, "none").await.unwrap_or_else(|refused| panic!("{sql}: {refused:?}"));
    }
}
