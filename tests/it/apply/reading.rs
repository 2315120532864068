//! Reading a pinned version: pruning never loses a row, and what the log knows is answered from it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use lakegate::model::{ChangeKind, LoadMode};

use super::{Fixture, change, plan, rows};

/// A few rows with values that statistics get wrong.
fn traps(from: i64) -> RecordBatch {
    let each = from..from + 50;
    let text = |n: i64| if n % 5 == 0 { None } else { Some(format!("{}{n:04}", "z".repeat(70))) };
    let float = |n: i64| if n % 7 == 0 { f64::NAN } else { n as f64 / 4.0 };
    let wide = Decimal128Array::from_iter_values(each.clone().map(|n| 12_345_678_901_234_567_890 + i128::from(n)));
    let narrow = Decimal128Array::from_iter_values(each.clone().map(|n| i128::from(n) * 101));
    let times = TimestampMicrosecondArray::from_iter_values(each.clone().map(|n| n * 1_234_567 - 999));
    rows(vec![
        ("id", Arc::new(Int64Array::from_iter_values(each.clone())) as ArrayRef),
        ("at", Arc::new(times.with_timezone("UTC"))),
        ("text", Arc::new(StringArray::from_iter(each.clone().map(text)))),
        ("f", Arc::new(Float64Array::from_iter_values(each.clone().map(float)))),
        ("wide", Arc::new(wide.with_precision_and_scale(22, 4).unwrap())),
        ("narrow", Arc::new(narrow.with_precision_and_scale(12, 2).unwrap())),
        ("day", Arc::new(Date32Array::from_iter_values(each.map(|n| i32::try_from(n).unwrap())))),
    ])
}

async fn filled() -> (Fixture, RecordBatch) {
    let fixture = Fixture::new(64 << 20).await;
    let mut all = Vec::new();
    for from in [-200, 0, 25, 4000] {
        let batch = traps(from);
        let load = plan(batch.schema(), &[], LoadMode::Append);
        fixture.load(load, vec![change(ChangeKind::Append, batch.clone())]).await.unwrap();
        all.push(batch);
    }
    let together = arrow::compute::concat_batches(&all[0].schema(), &all).unwrap();
    (fixture, together)
}

const QUESTIONS: &[&str] = &[
    "select count(*), min(id), max(id), min(day), max(day), min(at), max(at), min(text), max(text) from t",
    "select count(*), count(text), count(f) from t",
    "select * from t where at = (select max(at) from t)",
    "select * from t where id = 24 order by f",
    "select id from t where f > 5 order by id",
    "select id from t where f > 1000000 order by id",
    "select id from t where wide = 1234567890123456.7901 order by id",
    "select id from t where wide > 1234567890123456.7930 and narrow < 30 order by id",
    "select id from t where text is null order by id",
    "select id from t where text >= 'zzzz' and text < 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz0010' order by id",
    "select day, count(*) from t where day between date '1970-01-10' and date '1970-02-01' group by day order by day",
    "select count(*) from (select * from t limit 3)",
    "select sum(id) from t where id in (-190, 30, 4049, 5000)",
    "select min(id), max(id) from t where id > 10",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_the_answer_it_has_over_the_rows_in_memory() {
    let (fixture, together) = filled().await;
    for pushdown in [false, true] {
        let mut config = SessionConfig::new().with_target_partitions(3);
        config.options_mut().execution.parquet.pushdown_filters = pushdown;
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        let stored = SessionContext::new_with_config(config.clone());
        let snapshot = fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap();
        stored.register_table("t", snapshot.provider()).unwrap();
        let memory = SessionContext::new_with_config(config);
        memory.register_batch("t", together.clone()).unwrap();
        for question in QUESTIONS {
            let answer = stored.sql(question).await.unwrap().collect().await.unwrap();
            let expected = memory.sql(question).await.unwrap().collect().await.unwrap();
            let texts = [answer, expected].map(|rows| pretty_format_batches(&rows).unwrap().to_string());
            assert_eq!(texts[0], texts[1], "{question}");
        }
    }
}

async fn physical(fixture: &Fixture, sql: &str) -> String {
    let rows = fixture.query(&format!("explain format indent {sql}")).await;
    pretty_format_batches(&rows).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_extremes_come_from_the_log_and_filters_leave_files_out() {
    let (fixture, _) = filled().await;
    for known in ["select count(*) from t", "select min(id), max(day) from t"] {
        let plan = physical(&fixture, known).await;
        assert!(!plan.contains("DataSourceExec: file_groups"), "{plan}");
    }
    let one = physical(&fixture, "select text from t where id = 4010").await;
    assert!(one.contains("{1 group: [["), "{one}");
    assert_eq!(one.matches(".parquet").count(), 1, "{one}");
    let limited = physical(&fixture, "select text from t limit 5").await;
    assert_eq!(limited.matches(".parquet").count(), 1, "{limited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_version_stays_what_it_was() {
    let (fixture, _) = filled().await;
    let pinned = fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap();
    let delete = rows(vec![("id", Arc::new(Int64Array::from_iter_values(-200..5000)) as ArrayRef)]);
    let everything = vec![change(ChangeKind::Delete, delete)];
    fixture.load(plan(pinned.schema(), &["id"], LoadMode::Upsert), everything).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t").await, 0);
    let context = SessionContext::new();
    context.register_table("t", pinned.provider()).unwrap();
    let rows = context.sql("select id, f from t").await.unwrap().count().await.unwrap();
    assert_eq!((rows, pinned.rows(), pinned.files()), (200, Some(200), 4));
    assert!(pinned.committed_at().is_some() && pinned.transaction().is_some());
}

/// One row of every type a column can have, of which some have statistics no reader could read.
pub(super) fn every_type(id: i64) -> RecordBatch {
    let kinds = [
        "boolean",
        "smallint",
        "int",
        "bigint",
        "real",
        "double",
        "decimal(15,10)",
        "decimal(38,10)",
        "string",
        "binary",
        "date",
        "timestamp",
        "timestamp_ntz",
        "array<struct<a: int, b: array<string>>>",
        "map<string, decimal(5,2)>",
        "struct<maker: string, engine: struct<count: int, kinds: array<string>>>",
    ];
    let fields = kinds.iter().enumerate().map(|(place, kind)| {
        let kind: lakegate::model::ColumnType = kind.parse().unwrap();
        Field::new(format!("c{place}"), kind.to_arrow(), true)
    });
    let schema = Arc::new(Schema::new(
        std::iter::once(Field::new("id", DataType::Int64, true)).chain(fields).collect::<Vec<_>>(),
    ));
    let row = format!(
        r#"{{"id":{id},"c0":true,"c1":-7,"c2":70000,"c3":5000000000,"c4":0.5,"c5":-0.25,"c6":0.0000000001,"c7":1.5,
        "c8":"ä","c9":"00ff","c10":4300000,"c11":350000000000000000,"c12":-99999999999999999,
        "c13":[{{"a":1,"b":["x",null]}},null],"c14":{{"k":1.25}},"c15":{{"maker":"m","engine":{{"count":2,"kinds":[]}}}}}}"#
    );
    let mut decoder = arrow_json::ReaderBuilder::new(schema).build_decoder().unwrap();
    decoder.decode(row.as_bytes()).unwrap();
    decoder.flush().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_survives_being_written_changed_and_read() {
    let fixture = Fixture::new(64 << 20).await;
    let upsert = || plan(every_type(0).schema(), &["id"], LoadMode::Upsert);
    let batches: Vec<RecordBatch> = [3, 1, 2].map(every_type).to_vec();
    let changes = batches.into_iter().map(|batch| change(ChangeKind::Upsert, batch)).collect();
    fixture.load(upsert(), changes).await.unwrap();
    fixture.load(upsert(), vec![change(ChangeKind::Upsert, every_type(2))]).await.unwrap();
    let found = fixture.query("select * from t order by id").await;
    let expected = [1, 2, 3].map(every_type);
    let texts = [found, expected.to_vec()].map(|rows| pretty_format_batches(&rows).unwrap().to_string());
    assert_eq!(texts[0], texts[1]);
    // A literal of a timestamp would be one in nanoseconds, which end in the year 2262.
    let far = "select count(*) from t where c10 > date '9999-12-31' \
               and c11 > arrow_cast(253402300799000000, 'Timestamp(Microsecond, Some(\"UTC\"))')";
    assert_eq!(fixture.number(far).await, 3);
    let library = fixture.library_table().await;
    let context = SessionContext::new();
    context.register_table("t", library.table_provider().await.unwrap()).unwrap();
    assert_eq!(context.sql("select * from t where c6 > 0").await.unwrap().count().await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dates_and_times_beyond_all_years_are_kept_and_hide_no_row() {
    // As many as a row group holds: what the library takes for a file's bounds are then those of its first one.
    const ROWS: i64 = 262_144;
    let days = |from: i32, days: &[i32], times: &[i64]| {
        let ids = Int64Array::from_iter_values((from..).take(days.len()).map(i64::from));
        let days: ArrayRef = Arc::new(Date32Array::from(days.to_vec()));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"));
        let within = Arc::new(Field::new("day", DataType::Date32, true));
        let nested = StructArray::new(Fields::from(vec![within]), vec![Arc::clone(&days)], None);
        rows(vec![("id", Arc::new(ids) as ArrayRef), ("day", days), ("at", times), ("nested", Arc::new(nested))])
    };
    let many = days(0, &vec![1; ROWS as usize], &vec![1_000_000; ROWS as usize]);
    let odd = days(300_000, &[110_000_000, -110_000_000, 2], &[i64::MAX, i64::MIN, 2_000_000]);
    let fixture = Fixture::new(64 << 20).await;
    let changes = [many, odd].map(|batch| change(ChangeKind::Append, batch));
    fixture.load(plan(changes[0].rows.schema(), &[], LoadMode::Append), changes.into()).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t").await, ROWS + 3);
    for (filter, count) in [
        ("day = arrow_cast(110000000, 'Date32')", 1),
        ("day > date '9999-12-31'", 1),
        ("day < date '0001-01-01'", 1),
        ("day = date '1970-01-03'", 1),
        ("nested['day'] > date '9999-12-31'", 1),
        ("at = arrow_cast(9223372036854775807, 'Timestamp(Microsecond, Some(\"UTC\"))')", 1),
        ("at > arrow_cast(1000000, 'Timestamp(Microsecond, Some(\"UTC\"))')", 2),
        ("at < arrow_cast(1000000, 'Timestamp(Microsecond, Some(\"UTC\"))')", 1),
        ("day = date '1970-01-02'", ROWS),
    ] {
        assert_eq!(fixture.number(&format!("select count(*) from t where {filter}")).await, count, "{filter}");
    }
    // They are written anew with a change beside them.
    let delete = rows(vec![("id", Arc::new(Int64Array::from(vec![300_002])) as ArrayRef)]);
    let pinned = fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap();
    let one = vec![change(ChangeKind::Delete, delete)];
    fixture.load(plan(pinned.schema(), &["id"], LoadMode::Upsert), one).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t where abs(arrow_cast(day, 'Int32')) = 110000000").await, 2);
    let library = fixture.library_table().await;
    let context = SessionContext::new();
    context.register_table("t", library.table_provider().await.unwrap()).unwrap();
    let far = "select id from t where day > date '9999-12-31'";
    assert_eq!(context.sql(far).await.unwrap().count().await.unwrap(), 1);
}
