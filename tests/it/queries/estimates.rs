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
        "select id, count(*) from t.frames group by id",
        "select label, count(*) from t.frames where label > 'label 1' group by label",
        "select distinct score from t.frames",
        "select id from t.frames where label = 'label 1' limit 100000",
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
    // 97 % of the rate are given out, and of each packet 1,448 of 1,526 bytes are not its headers.
    let carried = 8_000_000.0 * 0.97 * 1448.0 / 1526.0;
    assert!((seconds * carried / (8.0 * bytes) - 1.0).abs() < 0.01, "{told}");
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
    let told = rows("explain estimate select label from t.frames where label = 'label 1'").await;
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

const LINES: &[(&str, &str)] = &[
    ("l_orderkey", "bigint"),
    ("l_partkey", "bigint"),
    ("l_linenumber", "int"),
    ("l_quantity", "decimal(15,2)"),
    ("l_extendedprice", "decimal(15,2)"),
    ("l_discount", "decimal(15,2)"),
    ("l_returnflag", "string"),
    ("l_linestatus", "string"),
    ("l_shipdate", "date"),
    ("l_shipmode", "string"),
    ("l_comment", "string"),
];

/// Tables like those that are measured with (`benches/line/datasets.py`), small.
async fn measured() -> House {
    let house = House::new(&["t.lineitem", "t.orders", "t.frames", "t.wide"]).await;
    let chosen =
        |words: &str, count: u64| format!("split_part('{words}', ' ', 1 + cast(floor(random() * {count}) as int))");
    let sql = format!(
        "select x / 4 as k, cast(floor(random() * 200000) as bigint) as p, x % 4 + 1 as n, floor(random() * 50) + 1 as q, \
         floor(random() * 10000000) / 100 as e, floor(random() * 11) / 100 as t, {} as f, {} as s, \
         arrow_cast(cast(8036 + floor(random() * 2526) as int), 'Date32') as d, {} as m, \
         substr(md5(cast(x as varchar)), 1, 8 + cast(x % 24 as int)) || ' ' || {} as c from generate_series(0, 119999) g(x)",
        chosen("A N R", 3),
        chosen("F O", 2),
        chosen("AIR RAIL SHIP TRUCK MAIL FOB REG", 7),
        chosen("furiously carefully quickly blithely slyly", 5)
    );
    house.load("t.lineitem", LINES, &sql).await;
    let orders = [("o_orderkey", "bigint"), ("o_orderdate", "date"), ("o_orderpriority", "string")];
    let sql = format!(
        "select x, arrow_cast(cast(8036 + floor(random() * 2400) as int), 'Date32') as d, {} as p from generate_series(0, 29999) g(x)",
        chosen("1-URGENT 2-HIGH 3-MEDIUM 4-LOW 5-NONE", 5)
    );
    house.load_by("t.orders", &orders, &["o_orderkey"], &sql).await;
    let columns: Vec<_> = (0..20).map(|place| format!("p{place}")).collect();
    let mut frames = vec![("session_id", "string"), ("frame", "bigint"), ("label", "string")];
    frames.extend(columns.iter().map(|name| (name.as_str(), "double")));
    let numbers: String = (0..20).map(|place| format!(", random() as p{place}")).collect();
    let sql = format!(
        "select 'sess-' || lpad(cast(x / 3000 as varchar), 4, '0') as s, x % 3000 as f, {} as l {numbers} from generate_series(0, 59999) g(x)",
        chosen("anger contempt disgust fear happiness neutral sadness", 7)
    );
    house.load("t.frames", &frames, &sql).await;
    let columns: Vec<_> = (1..60).map(|place| format!("c{place:03}")).collect();
    let kinds = ["bigint", "double", "string", "string"];
    let mut wide = vec![("id", "bigint")];
    wide.extend(columns.iter().enumerate().map(|(place, name)| (name.as_str(), kinds[(place + 1) % 4])));
    let values: String = (1..60)
        .map(|place| match place % 4 {
            0 => format!(", cast(floor(random() * 1{}) as bigint) as c{place}", "0".repeat(1 + place % 6)),
            1 => format!(", round(100 + 25 * random(), 2) as c{place}"),
            2 => format!(", 'kind ' || cast(floor(random() * 20) as bigint) as c{place}"),
            _ => format!(", cast(cast(floor(random() * 10000000) as bigint) as varchar) as c{place}"),
        })
        .collect();
    house.load("t.wide", &wide, &format!("select x {values} from generate_series(0, 19999) g(x)")).await;
    house
}

/// The statements that are measured with, as far as their rows can be told.
const MEASURED: &[&str] = &[
    "select * from t.lineitem where l_orderkey <= 20000",
    "select l_orderkey, l_partkey, l_extendedprice, l_shipmode from t.lineitem where l_orderkey <= 20000",
    "select * from t.lineitem where l_shipdate >= date '1995-03-01' and l_shipdate < date '1995-03-26'",
    "select * from t.lineitem where l_orderkey = 3017",
    "select * from t.lineitem order by l_extendedprice desc, l_orderkey, l_linenumber limit 100",
    "select l_returnflag, l_linestatus, sum(l_quantity) as quantity, sum(l_extendedprice) as price, \
     avg(l_discount) as discount, count(*) as lines from t.lineitem where l_shipdate <= date '1998-09-02' \
     group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus",
    "select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate from t.orders \
     join t.lineitem on l_orderkey = o_orderkey where o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15' \
     group by l_orderkey, o_orderdate order by revenue desc, o_orderdate, l_orderkey limit 10",
    "select l_orderkey, l_extendedprice, o_orderpriority from t.lineitem join t.orders on l_orderkey = o_orderkey \
     where o_orderdate < date '1995-03-15'",
    "select * from t.lineitem tablesample bernoulli (5) repeatable (7)",
    "select * from t.frames where frame < 900",
    "select session_id, label, count(*) as frames from t.frames group by session_id, label",
    "select distinct l_shipmode from t.lineitem",
    "select * from t.wide where id < 9000",
    "select * from t.lineitem where l_comment like '%quickly%'",
];

#[tokio::test(flavor = "multi_thread")]
async fn of_the_statements_that_are_measured_most_are_known_and_told_well_before_anything_was_sent() {
    let house = measured().await;
    for dictionaries in ["off", "on"] {
        // Each asks a server of its own, which has learnt nothing.
        let mut errors = Vec::new();
        for sql in MEASURED {
            let mut client = connection(&house).await;
            let mut request = Request::new(FlightDescriptor::new_cmd((*sql).to_owned()));
            for (name, value) in [("lakegate-codec", "zstd"), ("lakegate-dictionaries", dictionaries)] {
                request.metadata_mut().insert(name, value.parse().unwrap());
            }
            let info = client.get_flight_info(request).await.unwrap().into_inner();
            let Some(told) = estimate(&info)["wire_bytes"].as_f64() else { continue };
            let found = bytes(&mut client, info, "zstd").await;
            errors.push(((told - found).abs() / found, factor(told, found), told, found, *sql));
        }
        assert!(errors.len() >= MEASURED.len() - 1, "{dictionaries}: {errors:#?}");
        let each = |pick: fn(&(f64, f64, f64, f64, &str)) -> f64| errors.iter().map(pick).collect::<Vec<_>>();
        let (median, most) = (at(each(|error| error.0), 0.5), at(each(|error| error.1), 0.9));
        assert!(median <= 0.25 && most <= 2.0, "dictionaries {dictionaries}: {median} {most} {errors:#?}");
    }
}
