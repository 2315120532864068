//! What of a statement is done before rows leave the storage and the server: bytes read, rows decoded, bytes sent.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use chrono::{NaiveDate, NaiveTime};
use futures::TryStreamExt;
use lakegate::error::{Classify, ErrorKind};
use lakegate::journal::{QueryRecord, QueryStatus};
use object_store::local::LocalFileSystem;

use crate::queries::house::House;
use crate::support::counting::{CountingStore, DataRead};

/// Rows of a load; each load has a month of its own, from December 2023 on.
const LOAD: u64 = 20_000;
const LOADS: u64 = 4;

/// Columns of numbers besides the others.
const NUMBERS: u64 = 20;

struct Counted {
    house: House,
    store: Arc<CountingStore>,
    /// What reading all of it reads.
    whole: DataRead,
}

impl Counted {
    /// `t.frames`: four loads of a month each, 26 columns wide.
    async fn open() -> Self {
        Self::with_threads(2).await
    }

    async fn with_threads(threads: usize) -> Self {
        let store = CountingStore::new(Arc::new(LocalFileSystem::new()));
        let config = format!("[limits]\nthreads = {threads}\nmemory = \"256MiB\"\n");
        let house = House::through(Arc::clone(&store) as _, &["t.frames"], &config).await;
        let numbers: Vec<String> = (0..NUMBERS).map(|number| format!("w{number}")).collect();
        let mut columns = vec![
            ("id", "bigint"),
            ("seen", "timestamp"),
            ("d", "date"),
            ("label", "string"),
            ("s", "struct<a: int, b: string>"),
            ("late", "bigint"),
        ];
        columns.extend(numbers.iter().map(|name| (name.as_str(), "double")));
        for (load, month) in (0..LOADS).zip(["2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]) {
            let begins = month.parse::<NaiveDate>().unwrap().and_time(NaiveTime::MIN).and_utc().timestamp_micros();
            let (first, last) = (load * LOAD, (load + 1) * LOAD - 1);
            let letter = ["a", "b", "é", "日"][usize::try_from(load).unwrap()];
            let late = if load == LOADS - 1 { "x" } else { "cast(null as bigint)" };
            let random: String = (0..NUMBERS).map(|number| format!(", random() as r{number}")).collect();
            let sql = format!(
                "select x, {begins} + (x - {first}) * 60000000, date '{month}', '{letter}' || x, \
                 named_struct('a', x, 'b', cast(random() as varchar)) as s, {late} as late {random} \
                 from generate_series({first}, {last}) g(x)"
            );
            house.load("t.frames", &columns, &sql).await;
        }
        let mut counted = Self { house, store, whole: DataRead::default() };
        // What is kept of the files' ends is read once, and then no more.
        counted.read("select * from t.frames").await;
        counted.whole = counted.read("select * from t.frames").await;
        counted
    }

    /// What of the data files a statement reads.
    async fn read(&self, sql: &str) -> DataRead {
        self.store.take();
        self.house.rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.store.take()
    }

    async fn share(&self, sql: &str) -> f64 {
        self.read(sql).await.bytes as f64 / self.whole.bytes as f64
    }

    /// The plan that runs, as text.
    async fn plan(&self, sql: &str) -> String {
        self.house.rows(&format!("explain {sql}")).await.unwrap().join("\n")
    }

    /// Rows that come out of the scan.
    async fn decoded(&self, sql: &str) -> f64 {
        let plan = self.house.rows(&format!("explain analyze {sql}")).await.unwrap().join("\n");
        let scan = plan.lines().find(|line| line.contains("DataSourceExec"));
        let scan = scan.unwrap_or_else(|| panic!("{sql} scans nothing: {plan}"));
        let (_, rows) = scan.split_once("output_rows=").unwrap();
        let rows = rows.split([',', ']']).next().unwrap().trim();
        match rows.strip_suffix(" K") {
            Some(thousands) => 1_000.0 * thousands.parse::<f64>().unwrap(),
            None => rows.parse().unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_out_files_and_columns_that_are_not_asked_for_are_not_read() {
    let counted = Counted::open().await;
    assert!(counted.whole.files.len() as u64 >= LOADS, "{:?}", counted.whole);
    // One load of four has rows of the answer, or one column of 26 is read.
    for (sql, rows, most) in [
        ("select id from t.frames", 80_000, 0.1),
        ("select * from t.frames where id = 30007", 1, 0.3),
        ("select * from t.frames where id between 20000 and 20999", 1_000, 0.3),
        ("select * from t.frames where id in (3, 7, 11)", 3, 0.3),
        ("select * from t.frames where label like 'b%'", 20_000, 0.3),
        ("select * from t.frames where label like 'é%'", 20_000, 0.3),
        ("select * from t.frames where label like '日6%'", 10_000, 0.3),
        ("select * from t.frames where label like '日日%'", 0, 0.3),
        ("select * from t.frames where label like 'é4000_'", 10, 0.3),
        ("select * from t.frames where d = date '2024-02-01'", 20_000, 0.3),
        ("select * from t.frames where date_trunc('month', seen) = timestamp '2024-02-01'", 20_000, 0.3),
        ("select * from t.frames where date_trunc('year', seen) < timestamp '2024-01-01'", 20_000, 0.3),
        ("select * from t.frames where date_trunc('month', d) = timestamp '2024-02-01'", 20_000, 0.3),
        ("select * from t.frames where date_trunc('year', d) <= date '2023-01-01'", 20_000, 0.3),
        ("select * from t.frames where date_trunc('month', d) in (date '2023-12-01', date '2023-11-01')", 20_000, 0.3),
        ("select * from t.frames where extract(year from seen) = 2023", 20_000, 0.3),
        ("select * from t.frames where extract(year from seen) between 2020 and 2023", 20_000, 0.3),
        ("select * from t.frames where date_part('year', d) < 2024", 20_000, 0.3),
        ("select * from t.frames where cast(seen as date) = date '2024-02-02'", 1_440, 0.3),
        ("select * from t.frames where seen::date >= date '2024-03-01'", 20_000, 0.3),
        ("select * from t.frames where late is not null", 20_000, 0.3),
        ("select * from t.frames where late is null", 60_000, 0.8),
        ("select * from t.frames where label is null", 0, 0.0),
        ("select * from t.frames where seen is null or d is null", 0, 0.0),
        ("select * from t.frames where id > 80000", 0, 0.0),
        ("select * from t.frames limit 10", 10, 0.3),
    ] {
        let found = counted.house.rows(sql).await.unwrap().len();
        assert_eq!(found, rows, "{sql}");
        let share = counted.share(sql).await;
        assert!(share <= most, "{sql} reads {share} of all bytes");
    }
}

/// Longer than what is compared with bounds value by value.
#[tokio::test(flavor = "multi_thread")]
async fn long_lists_of_values_leave_out_files() {
    let counted = Counted::open().await;
    let list = |numbers: &mut dyn Iterator<Item = u64>| numbers.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let near = list(&mut (20_000_u64..20_100));
    let apart = list(&mut (0..50_u64).map(|number| number * 10).chain(60_000..60_050));
    let beyond = list(&mut (0..100_u64).map(|number| 90_000 + number));
    for (list, rows, most) in [(&near, 100, 0.3), (&apart, 100, 0.55), (&beyond, 0, 0.0)] {
        let sql = format!("select * from t.frames where id in ({list})");
        assert_eq!(counted.house.rows(&sql).await.unwrap().len(), rows, "{sql}");
        let share = counted.share(&sql).await;
        assert!(share <= most, "{sql} reads {share} of all bytes");
    }
    let others = format!("select id from t.frames where id not in ({near}) or id is null");
    assert_eq!(counted.house.rows(&others).await.unwrap().len(), 79_900);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_files_that_are_left_out_are_not_decoded() {
    let counted = Counted::open().await;
    for (sql, most) in [
        ("select id from t.frames where id between 20000 and 39999", 20_000.0),
        ("select id from t.frames where id in (3, 7, 11, 13)", 20_000.0),
        ("select id from t.frames where label like 'é%'", 20_000.0),
        ("select id from t.frames where d = date '2024-02-01'", 20_000.0),
        ("select id from t.frames where date_trunc('month', seen) = timestamp '2024-02-01'", 20_000.0),
        ("select id from t.frames where late is not null", 20_000.0),
        ("select id from t.frames limit 10", 10.0),
    ] {
        let decoded = counted.decoded(sql).await;
        assert!(decoded <= most, "{sql} decodes {decoded} rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_a_struct_is_read_without_its_neighbours() {
    let counted = Counted::open().await;
    let whole = counted.read("select s from t.frames").await.bytes;
    for sql in ["select s['a'] from t.frames", "select sum(s['a']) from t.frames"] {
        let field = counted.read(sql).await.bytes;
        assert!(field * 2 < whole, "{sql} reads {field} bytes of {whole}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_extremes_come_from_what_the_log_says() {
    let counted = Counted::open().await;
    for (sql, row) in [
        ("select count(*) from t.frames", "80000"),
        ("select count(*), min(id), max(id), max(d) from t.frames", "80000 0 79999 2024-03-01"),
        ("select count(late), count(label), count(d), count(seen) from t.frames", "20000 80000 80000 80000"),
    ] {
        assert_eq!(counted.house.rows(sql).await.unwrap(), [row]);
        assert!(counted.read(sql).await.files.is_empty(), "{sql} opens data files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_in_order_do_without_files_that_have_none_of_them() {
    // Two threads would have begun with two files each before one of them has found the first rows.
    let counted = Counted::with_threads(1).await;
    let sql = "select * from t.frames order by id limit 10";
    assert_eq!(counted.house.rows(sql).await.unwrap().len(), 10);
    let share = counted.share(sql).await;
    assert!(share <= 0.8, "{share} of all bytes");
    assert!(counted.decoded(sql).await <= 60_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_rows_of_many_columns_are_decoded_late_and_others_at_once() {
    let counted = Counted::open().await;
    for sql in [
        "select * from t.frames where id = 30007",
        "select * from t.frames where id >= 30000 and id < 30050",
        "select * from t.frames where id = 30007 and label = 'b30007'",
    ] {
        assert!(!counted.plan(sql).await.contains("FilterExec"), "{sql}: the scan filters");
        assert!(counted.decoded(sql).await <= 100.0, "{sql}");
    }
    assert_eq!(counted.house.rows("select id, label from t.frames where id = 30007").await.unwrap(), ["30007 b30007"]);
    for sql in [
        "select id, seen from t.frames where id = 30007",
        "select * from t.frames where id > 7",
        "select * from t.frames where label = 'b30007'",
        "select * from t.frames where id = 30007 and 10 / w0 > 1",
    ] {
        assert!(counted.plan(sql).await.contains("FilterExec"), "{sql}: the scan does not filter");
    }
    // An error of what somebody wrote is told as theirs.
    let error = counted.house.rows("select * from t.frames where id = 30007 and cast(label as int) = 1").await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_follows_what_is_asked_for() {
    const ALL: &str = "select * from t.frames";
    let counted = Counted::open().await;
    let mut client = counted.house.client().await;
    let parts = [
        ("select id from t.frames", 0.06),
        ("select s['a'] from t.frames", 0.04),
        ("select * from t.frames where id = 30007", 0.001),
        ("select * from t.frames where date_trunc('month', seen) = timestamp '2024-02-01'", 0.27),
        ("select * from t.frames where id between 20000 and 20799", 0.015),
        ("select * from t.frames where label like 'é4000%'", 0.001),
        ("select * from t.frames where late is null and id in (3, 7, 11, 13)", 0.001),
        ("select d, count(*) from t.frames group by d", 0.001),
        ("select count(*) from t.frames", 0.001),
        ("select * from t.frames limit 10", 0.001),
        ("select * from t.frames order by id limit 10", 0.001),
        ("select * from t.frames tablesample bernoulli (1) repeatable (7)", 0.02),
    ];
    for sql in parts.iter().map(|(sql, _)| *sql).chain([ALL]) {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        rows.try_collect::<Vec<RecordBatch>>().await.unwrap();
    }
    let ended = async {
        while !counted.house.journal.running().is_empty() {
            tokio::task::yield_now().await;
        }
        counted.house.journal.queries().await.unwrap().try_concat().await.unwrap()
    };
    let ended: Vec<QueryRecord> = tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    let sent = |sql: &str| {
        let mut run = ended.iter().filter(|record| record.origin.text.as_deref() == Some(sql));
        let record = run.find(|record| record.status == QueryStatus::Finished);
        record.unwrap_or_else(|| panic!("{sql} did not run: {ended:?}")).figures.sent_bytes as f64
    };
    for (sql, most) in parts {
        let share = sent(sql) / sent(ALL);
        assert!(share <= most, "{sql} sends {share} of all bytes");
    }
}
