//! The query engine over a real lake: versions, pins, limits, errors, stopping.

mod estimates;
pub(crate) mod house;
mod identity;
mod order;
mod partitions;
mod pushdown;
mod sampling;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use lakegate::access::{Access, Grants, Principal};
use lakegate::error::{Classify, ErrorKind};
use lakegate::journal::{
    Flow, LineFlow, LoadRecord, LoadStatus, RunningStream, VerificationRecord, VerificationStatus,
};
use lakegate::query::{QueryEngine, QueryError, Statement, StatementOptions};

use house::{House, everything, statement, text};

const ID: &[(&str, &str)] = &[("id", "bigint")];

async fn with_versions() -> House {
    let house = House::new(&["t.v", "t.never", "u.other"]).await;
    for sql in ["select 1 as id union all select 2", "select 3 as id", "select 4 as id"] {
        house.load("t.v", ID, sql).await;
    }
    house.load("u.other", ID, "select 1 as id").await;
    house
}

fn error<T>(result: Result<T, QueryError>) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_version_is_seen_by_the_next_statement_and_a_pinned_one_stays() {
    let house = with_versions().await;
    let sql = "select count(*) from t.v";
    let planned = house.engine.plan(statement(sql), &everything()).await.unwrap();
    let pins = planned.statement.pins.clone();
    let newest = *pins.values().next().unwrap();
    assert_eq!(pins.keys().map(ToString::to_string).collect::<Vec<_>>(), ["t.v"]);
    house.load("t.v", ID, "select 5 as id").await;
    assert_eq!(house.rows(sql).await.unwrap(), ["5"]);
    let again = house.engine.plan(planned.statement.clone(), &everything()).await.unwrap();
    assert_eq!(again.statement, planned.statement);
    for planned in [&planned, &planned, &again] {
        let batches: Vec<_> = house.engine.execute(planned, Duration::from_secs(10)).await.unwrap().collect().await;
        let batches: Vec<_> = batches.into_iter().map(Result::unwrap).collect();
        assert_eq!(text(&batches), ["4"], "version {newest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_not_there_are_named() {
    let house = with_versions().await;
    let cases = [
        ("select 1 from t.v version as of 99", "no version 99; its newest is 2"),
        ("select 1 from t.v timestamp as of '1990-01-01'", "t.v"),
        ("select 1 from t.never", "lakegate sync t.never"),
        ("select 1 from t.never version as of 0", "lakegate sync t.never"),
        ("select 1 from t.w", "did you mean `t.v`?"),
        ("select 1 from u.othre", "did you mean `u.other`?"),
        ("select 1 from other", "did you mean `u.other`?"),
        ("select 1 from system.laods", "did you mean `system.loads`?"),
        ("select 1 from nowhere.at.all", "no catalog `nowhere`"),
        ("select 1 from something_else_entirely", "SHOW TABLES"),
    ];
    for (sql, told) in cases {
        let (kind, message) = error(house.rows(sql).await);
        assert_eq!(kind, ErrorKind::NotFound, "{sql}: {message}");
        assert!(message.contains(told), "{sql}: {message}");
        assert!(!message.contains("house"), "no path: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_by_kind_and_place() {
    let house = with_versions().await;
    let cases = [
        ("selec 1", ErrorKind::InvalidInput, "Column: 1"),
        ("select nope from t.v", ErrorKind::InvalidInput, "nope"),
        ("select nope(1)", ErrorKind::InvalidInput, "nope"),
        ("select cast('x' as int)", ErrorKind::InvalidInput, "x"),
        ("select 1 / 0 from t.v", ErrorKind::InvalidInput, "nullif"),
        ("select id + 'a' from t.v", ErrorKind::InvalidInput, ""),
        ("select sum(id) from t.v where sum(id) > 1", ErrorKind::InvalidInput, ""),
        ("select id, count(*) from t.v", ErrorKind::InvalidInput, "GROUP BY"),
        ("select (select id from t.v)", ErrorKind::InvalidInput, ""),
        ("select input_file_name() from t.v", ErrorKind::InvalidInput, "input_file_name"),
        ("insert into t.v values (1)", ErrorKind::Unsupported, "INSERT"),
        ("select 1; select 2", ErrorKind::InvalidInput, "several"),
        ("select $1", ErrorKind::InvalidInput, "1 parameters"),
    ];
    for (sql, kind, told) in cases {
        let (found, message) = error(house.rows(sql).await);
        assert_eq!(found, kind, "{sql}: {message}");
        assert!(message.contains(told), "{sql}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_typed_bound_and_counted() {
    let house = with_versions().await;
    let sql = "select id from t.v where id > ? and id <= ? order by id";
    let planned = house.engine.plan(statement(sql), &everything()).await.unwrap();
    let kinds: Vec<_> = planned.parameters.iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Int64", "Int64"]);
    let number = |n: i64| ScalarValue::Int64(Some(n));
    assert_eq!(house.rows_with(sql, vec![number(1), number(3)]).await.unwrap(), ["2", "3"]);
    let texts = vec![ScalarValue::Utf8(Some("1".into())), ScalarValue::Float64(Some(2.5))];
    assert_eq!(house.rows_with(sql, texts).await.unwrap(), ["2"]);
    let (kind, message) = error(house.rows_with(sql, vec![number(1)]).await);
    assert_eq!((kind, message.contains("2 parameters and was given 1")), (ErrorKind::InvalidInput, true), "{message}");
    let (kind, _) = error(house.rows_with("select 1", vec![number(1)]).await);
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert_eq!(house.rows_with("select $2, $1", vec![number(1), ScalarValue::Null]).await.unwrap(), ["NULL 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_types_are_those_of_the_rows() {
    let house = with_versions().await;
    for sql in [
        "select case when id = 1 then 1 else 1.5 end as a from t.v",
        "select coalesce(null, id) as a, 1.5 as b, 1e3 as c, 'x' as d from t.v",
        "select id as a from t.v union all select 1.5",
        "select sum(id) a, avg(id) b, count(*) c, array_agg(id) d from t.v",
        "select '2020-01-01' = date '2020-01-01' as a, upper('x') as b, [1, 2] as c, {a: 1} as d",
        "show tables",
        "describe t.v",
        "explain select 1",
    ] {
        let planned = house.engine.plan(statement(sql), &everything()).await.unwrap();
        let mut stream = house.engine.execute(&planned, Duration::from_secs(10)).await.unwrap();
        while let Some(batch) = stream.next().await {
            let batch = batch.unwrap();
            for (told, sent) in planned.schema.fields().iter().zip(batch.schema().fields()) {
                assert_eq!((told.name(), told.data_type()), (sent.name(), sent.data_type()), "{sql}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_statement_is_its_own() {
    let house = with_versions().await;
    let planned = house.engine.plan(statement("select now()"), &everything()).await.unwrap();
    let read = async |planned| {
        let batches: Vec<_> = house.engine.execute(planned, Duration::from_secs(10)).await.unwrap().collect().await;
        text(&batches.into_iter().map(Result::unwrap).collect::<Vec<_>>())
    };
    let first = read(&planned).await;
    assert_eq!(read(&planned).await, first);
    let again = house.engine.plan(planned.statement.clone(), &everything()).await.unwrap();
    assert_eq!(read(&again).await, first);
}

/// A join that finds nothing: it computes for minutes and never yields a row.
const ENDLESS: &str = "select count(*) from generate_series(1, 3000000) a(x) join generate_series(1, 3000000) b(y) \
                       on a.x * b.y < 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_stopped_and_says_so() {
    let house = with_versions().await;
    let planned = house.engine.plan(statement(ENDLESS), &everything()).await.unwrap();
    let begun = Instant::now();
    let mut stream = house.engine.execute(&planned, Duration::from_millis(300)).await.unwrap();
    let error = QueryError::from(stream.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.to_string().contains("limits.query_timeout"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_never_yield_hold_nobody_up_and_stop_when_dropped() {
    let house = with_versions().await;
    for endless in [
        ENDLESS,
        "select sum(x * y) from generate_series(1, 3000000) a(x) cross join generate_series(1, 3000000) b(y)",
        "with recursive n as (select 1 as i union all select i from n) select count(*) from n",
    ] {
        let planned = house.engine.plan(statement(endless), &everything()).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = house.engine.execute(&planned, Duration::from_secs(600)).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
            assert!(waited.is_err(), "over too soon: {endless}");
            streams.push(stream);
        }
        // Three of them run on two threads.
        let answered = tokio::time::timeout(Duration::from_secs(60), house.rows("select count(*) from t.v")).await;
        assert_eq!(answered.expect("the threads are busy").unwrap(), ["4"], "{endless}");
        drop(streams);
        let stopped = async {
            while house.engine.running_tasks() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("nobody wants the rows any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_sorting_spills() {
    let config = "[limits]\nthreads = 2\nmemory = \"24MiB\"\nspill = \"1GiB\"\n";
    let house = House::with_config(&["t.v"], config).await;
    let sorted = "select count(*) from (select x, row_number() over (order by (x * 7919) % 1000003) r, \
                  repeat('x', 40) s from generate_series(1, 600000) g(x))";
    assert_eq!(house.rows(sorted).await.unwrap(), ["600000"]);
    // A hash join's table cannot spill.
    let joined = "select count(*) from (select x, repeat('y', 200) p from generate_series(1, 400000) g(x)) a \
                  join (select x, repeat('z', 200) q from generate_series(1, 400000) g(x)) b on a.x = b.x and a.p <> b.q";
    let (kind, message) = error(house.rows(joined).await);
    assert_eq!(kind, ErrorKind::ResourceExhausted, "{message}");
    assert!(message.contains("limits.memory"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_with_little_memory_can_sort() {
    let config = "[limits]\nthreads = 2\nmemory = \"24MiB\"\nstatement_memory = \"8MiB\"\nspill = \"1GiB\"\n";
    let house = House::with_config(&["t.v"], config).await;
    assert_eq!(house.rows("select x from generate_series(1, 3) g(x) order by x desc").await.unwrap(), ["3", "2", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_in_text_do_not_tell_where_the_lake_is() {
    let house = with_versions().await;
    let place = house.folder.path().file_name().unwrap().to_str().unwrap().to_owned();
    for sql in [
        "explain select * from t.v where id > 1",
        "explain verbose select * from t.v where id > 1",
        "explain analyze select * from t.v where id > 1",
        "explain analyze verbose select * from t.v",
        "explain format tree select * from t.v",
        "explain format pgjson select * from t.v",
        "explain format graphviz select * from t.v",
    ] {
        let text = house.rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).join("\n");
        assert!(!text.contains(&place), "{sql}: {text}");
        assert!(text.len() > 20, "{sql}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_are_read_as_they_were_published() {
    let house = House::with_config(&["g.a = group = \"pair\"", "g.b = group = \"pair\""], "").await;
    for table in ["g.a", "g.b"] {
        house.load(table, ID, "select 1 as id").await;
    }
    let (a, b) = ("g.a".parse().unwrap(), "g.b".parse().unwrap());
    house.lake.manifests().publish("pair", [(a, 0), (b, 0)].into()).await.unwrap();
    house.load("g.a", ID, "select 2 as id").await;
    let sql = "select (select count(*) from g.a), (select count(*) from b)";
    assert_eq!(house.rows(sql).await.unwrap(), ["1 1"], "half a group is not seen");
    let (a, b) = ("g.a".parse().unwrap(), "g.b".parse().unwrap());
    house.lake.manifests().publish("pair", [(a, 1), (b, 0)].into()).await.unwrap();
    assert_eq!(house.rows(sql).await.unwrap(), ["2 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_lists_what_can_be_read() {
    let house = with_versions().await;
    let tables = house.engine.tables(&everything()).await.unwrap();
    let names: Vec<_> = tables.iter().map(|t| (format!("{}.{}", t.schema, t.table), t.version)).collect();
    let system = ["files", "loads", "queries", "rejects", "sessions", "streams", "tables", "verifications"];
    let system = system.map(|table| (format!("system.{table}"), None));
    let mut expected = system.to_vec();
    expected.push(("t.v".to_owned(), Some(2)));
    expected.push(("u.other".to_owned(), Some(0)));
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn system_tables_tell_what_happened() {
    let house = with_versions().await;
    let tables = "select table_name, version, rows, mode from system.tables order by 1";
    assert_eq!(house.rows(tables).await.unwrap(), ["never NULL NULL append", "other 0 1 append", "v 2 4 append"]);
    let rejects = "select attempt is not null, line, column_name, raw from system.rejects where table_name = 'v'";
    assert_eq!(house.rows(rejects).await.unwrap(), vec!["true 3 id x,1"; 3]);
    let files = "select table_schema, path, rows_taken, status from system.files where table_schema = 'u'";
    assert_eq!(house.rows(files).await.unwrap(), ["u /in/u.other.csv 2 loaded"]);
    assert_eq!(house.rows("select count(*) from system.loads").await.unwrap(), ["0"]);
    let now = chrono::Utc::now();
    house.journal.record_load(LoadRecord {
        load_id: uuid::Uuid::from_u128(7),
        table: "t.v".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: LoadStatus::Failed,
        rows_read: 3,
        rows_written: 0,
        rows_rejected: 2,
        bytes_read: 10,
        bytes_written: 0,
        version: None,
        attempt: None,
        position: Some(serde_json::json!({ "file": 1 })),
        error_kind: Some(ErrorKind::InvalidInput),
        error: Some("too many".to_owned()),
        written: None,
    });
    let loads = "select table_name, status, rows_read, rows_rejected, version, position, error_kind, error \
                 from system.loads where table_schema = 't'";
    assert_eq!(house.rows(loads).await.unwrap(), ["v failed 3 2 NULL {\"file\":1} invalid_input too many"]);
    house.journal.record_verification(VerificationRecord {
        verification_id: uuid::Uuid::from_u128(8),
        table: "t.v".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: VerificationStatus::Differs,
        version: Some(3),
        method: Some("change_tracking".to_owned()),
        since: Some(70),
        ranges: 5,
        rows: 2_400,
        left_out: 1,
        differences: vec![serde_json::json!({ "after": ["5"] })],
        key: vec!["id".to_owned()],
        notes: vec!["one".to_owned(), "two".to_owned()],
        repaired_version: None,
        error_kind: None,
        error: None,
    });
    let verifications = "select table_name, status, version, method, since, ranges, rows_compared, keys_left_out, \
                         ranges_differing, differences, repaired_version, notes, error from system.verifications";
    assert_eq!(
        house.rows(verifications).await.unwrap(),
        ["v differs 3 change_tracking 70 5 2400 1 1 [{\"after\":[\"5\"]}] NULL one; two NULL"]
    );
    let joined = "select count(*) from system.files f join system.tables t using (table_schema, table_name)";
    assert_eq!(house.rows(joined).await.unwrap(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_honoured_and_checked() {
    let house = with_versions().await;
    let zoned = |time_zone: &str, partitions| Statement {
        options: StatementOptions {
            time_zone: time_zone.to_owned(),
            partitions,
            batch_rows: Some(1),
            ..StatementOptions::default()
        },
        ..statement("select id from t.v order by id")
    };
    let planned = house.engine.plan(zoned("Europe/Vienna", Some(1)), &everything()).await.unwrap();
    let batches: Vec<_> = house.engine.execute(&planned, Duration::from_secs(10)).await.unwrap().collect().await;
    assert_eq!(batches.len(), 4, "one row each");
    for wrong in [zoned("Mars/Olympus", None), zoned("UTC", Some(0)), zoned("UTC", Some(100_000))] {
        assert_eq!(error(house.engine.plan(wrong, &everything()).await).0, ErrorKind::InvalidInput);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn very_long_and_very_deep_statements_are_answered_or_refused() {
    let house = with_versions().await;
    let list = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(house.rows(&format!("select count(*) from t.v where id in ({list})")).await.unwrap(), ["4"]);
    let nested = format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(error(house.rows(&nested).await).0, ErrorKind::InvalidInput);
    let sum = format!("select 1{}", "+1".repeat(1_900));
    assert_eq!(house.rows(&sum).await.unwrap(), ["1901"]);
    let deep = format!("select count(*) from t.v where id = 1{}", " or id + 1 = 7".repeat(600));
    assert_eq!(house.rows(&deep).await.unwrap(), ["1"]);
    let union = format!("select 1{}", " union all select 1".repeat(150));
    assert_eq!(house.rows(&union).await.unwrap().len(), 151);
    let sum = format!("select 1{}", "+1".repeat(200_000));
    assert_eq!(error(house.rows(&sum).await).0, ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_any_length_has_the_stack_it_needs() {
    let house = with_versions().await;
    for operators in [50, 100, 120, 126, 127, 250, 500, 1_000] {
        let sum = format!("select 1{}", "+1".repeat(operators));
        assert_eq!(house.rows(&sum).await.unwrap(), [(operators + 1).to_string()]);
        let sum = format!("select id{} from t.v where id = 1", "+1.5".repeat(operators / 4));
        assert_eq!(house.rows(&sum).await.unwrap().len(), 1);
        let any = format!("select count(*) from t.v where id=1{}", " or id=9".repeat(operators / 4));
        assert_eq!(house.rows(&any).await.unwrap(), ["1"]);
        let tables: String = (0..operators / 10).map(|n| format!(",t.v v{n}")).collect();
        house.engine.plan(statement(&format!("select 1 from t.v{tables}")), &everything()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_on_their_way_are_told_to_whoever_asked_for_them() {
    let house = with_versions().await;
    let line = Arc::new(LineFlow { name: "10.0.0.0/8".to_owned(), rate: Some(8_000_000), flow: Flow::default() });
    let begin = |id: u128, name: &str, line: Option<Arc<LineFlow>>| {
        let id = uuid::Uuid::from_u128(id);
        house.journal.streams().enter(id, Arc::new(RunningStream::begin(id, name.to_owned(), line)))
    };
    let (ann, bob) = (begin(1, "ann", Some(Arc::clone(&line))), begin(2, "bob", None));
    line.flow.count(1000);
    ann.sent(1000, Duration::from_micros(5));
    bob.sent(10, Duration::ZERO);
    let sql =
        "select principal, line, line_rate, rate > 0, share > 0.9, bytes, wait_micros from system.streams order by 1";
    let (of_ann, of_bob) = ("ann 10.0.0.0/8 8000000 true true 1000 5", "bob NULL NULL true NULL 10 0");
    assert_eq!(house.rows(sql).await.unwrap(), [of_ann, of_bob]);
    let access = Access::granted(Principal { name: "bob".to_owned(), roles: [].into() }, Arc::new(Grants::default()));
    let planned = house.engine.plan(statement(sql), &access).await.unwrap();
    let rows = house.engine.execute(&planned, Duration::from_secs(60)).await.unwrap();
    assert_eq!(text(&rows.try_collect::<Vec<_>>().await.unwrap()), [of_bob]);
    drop(ann);
    assert_eq!(house.rows(sql).await.unwrap(), [of_bob]);
}
