//! Runs `tests/slt/*.slt` through a Flight SQL client against a real server over a real lake.
//!
//! The files are in the style of sqllogictest. A record is a directive, its SQL, and what is expected,
//! up to the next empty line:
//!
//! ```text
//! query          # or: query rowsort
//! select …
//! ----
//! rows, columns joined by one space; NULL, and (empty) for an empty text
//!
//! error a part of the message
//! select …
//! ```

use std::path::Path;

use arrow::array::RecordBatch;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use tonic::transport::Channel;

use crate::queries::house::{House, text};

/// One record of a file.
struct Record {
    line: usize,
    sorted: bool,
    sql: String,
    expected: Expected,
}

enum Expected {
    Rows(Vec<String>),
    Error(String),
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_gives_what_its_file_says() {
    let house = filled().await;
    let mut client = house.client().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "slt"));
    files.sort();
    assert!(files.len() > 5, "{files:?}");
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        for record in records(&std::fs::read_to_string(&file).unwrap(), &name) {
            count += 1;
            if let Err(difference) = check(&mut client, &record).await {
                wrong.push(format!("{name}:{}: {}\n{difference}\n", record.line, record.sql));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} are wrong\n\n{}", wrong.len(), wrong.join("\n"));
}

/// A lake with rows of every kind.
async fn filled() -> House {
    let house = House::new(&["t.numbers", "t.times", "t.nested", "t.words", "t.versions", "t.empty", "u.other"]).await;
    house
        .load(
            "t.numbers",
            &[
                ("id", "bigint"),
                ("m", "decimal(12,2)"),
                ("w", "decimal(38,10)"),
                ("f", "double"),
                ("r", "real"),
                ("n", "smallint"),
                ("i", "int"),
                ("b", "boolean"),
            ],
            "select * from (values
               (1, '9999999999.99', '1234567890123456789012345678.0123456789', '1.5', '0.1', 1, 2147483647, true),
               (2, '0.10', '-0.0000000001', 'NaN', 'NaN', -32768, -2147483648, false),
               (3, '-9999999999.99', '0', 'Infinity', '1e30', 32767, 0, null),
               (4, '0.30', '9999999999999999999999999999.9999999999', '-Infinity', '-0.0', null, 1, true),
               (9223372036854775807, null, null, null, null, 0, null, false))",
        )
        .await;
    house
        .load(
            "t.times",
            &[("id", "int"), ("d", "date"), ("ts", "timestamp"), ("n", "timestamp_ntz")],
            "select * from (values
               (1, '2013-01-01', '2013-01-01T00:00:00.000001Z', '2013-01-01T00:00:00.000001'),
               (2, '1969-12-31', '1969-12-31T23:59:59.999999Z', '1969-12-31T23:59:59.999999'),
               (3, '9999-12-31', '9999-12-31T23:59:59.999999Z', '9999-12-31T23:59:59.999999'),
               (4, '2013-06-30', '2013-06-30T12:00:00+02:00', '2013-06-30T12:00:00'),
               (5, null, null, null))",
        )
        .await;
    house
        .load(
            "t.nested",
            &[
                ("id", "int"),
                ("s", "struct<a: int, b: struct<c: string>>"),
                ("l", "array<int>"),
                ("ls", "array<struct<x: int, y: string>>"),
                ("j", "string"),
                ("mp", "map<string, int>"),
            ],
            r#"select 1, {a: 1, b: {c: 'one'}}, [1, 2, null], [{x: 1, y: 'p'}, {x: 2, y: 'q'}],
                      '{"k": {"deep": [10, 20]}, "t": "text", "f": 1.5, "b": true}', map(['k'], [7])
               union all
               select 2, {a: null, b: {c: null}}, [], [{x: 3, y: null}], '{"k": null}', map(['z'], [null])
               union all
               select 3, null, null, null, null, null"#,
        )
        .await;
    house
        .load(
            "t.words",
            &[("id", "int"), ("s", "string"), ("bin", "binary")],
            "select * from (values (1, 'Zürich', x'00ff'), (2, '', x''), (3, 'a b', null), (4, null, x'61'))",
        )
        .await;
    for sql in ["select 1 as id, 'a' as s union all select 2, 'b'", "select 3, 'c'", "select 4, 'd'"] {
        house.load("t.versions", &[("id", "bigint"), ("s", "string")], sql).await;
    }
    house.load("u.other", &[("id", "bigint")], "select 1").await;
    house
}

async fn check(client: &mut FlightSqlServiceClient<Channel>, record: &Record) -> Result<(), String> {
    let answer = run(client, &record.sql).await;
    match (&record.expected, answer) {
        (Expected::Rows(expected), Ok(mut rows)) => {
            if record.sorted {
                rows.sort();
            }
            if rows == *expected {
                return Ok(());
            }
            Err(format!("expected\n{}\nfound\n{}", expected.join("\n"), rows.join("\n")))
        }
        (Expected::Error(part), Err(message)) if message.contains(part) => Ok(()),
        (Expected::Error(part), Err(message)) => Err(format!("expected an error with `{part}`, found `{message}`")),
        (Expected::Error(part), Ok(rows)) => {
            Err(format!("expected an error with `{part}`, found\n{}", rows.join("\n")))
        }
        (Expected::Rows(_), Err(message)) => Err(format!("failed: {message}")),
    }
}

async fn run(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<String>, String> {
    let info = client.execute(sql.to_owned(), None).await.map_err(|error| error.to_string())?;
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let stream = client.do_get(ticket).await.map_err(|error| error.to_string())?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| error.to_string())?;
    Ok(text(&batches))
}

fn records(text: &str, file: &str) -> Vec<Record> {
    let mut lines = text.lines().enumerate().peekable();
    let mut records = Vec::new();
    while let Some((at, directive)) = lines.next() {
        if directive.trim().is_empty() || directive.starts_with('#') {
            continue;
        }
        let mut block = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            block.push(line);
        }
        records.push(record(at + 1, directive, &block).unwrap_or_else(|| panic!("{file}:{}: {directive}", at + 1)));
    }
    records
}

fn record(line: usize, directive: &str, block: &[&str]) -> Option<Record> {
    if let Some(part) = directive.strip_prefix("error ") {
        let expected = Expected::Error(part.trim().to_owned());
        return Some(Record { line, sorted: false, sql: block.join("\n"), expected });
    }
    let sorted = match directive.trim() {
        "query" => false,
        "query rowsort" => true,
        _ => return None,
    };
    let end = block.iter().position(|line| *line == "----")?;
    let rows = block[end + 1..].iter().map(|row| (*row).to_owned()).collect();
    Some(Record { line, sorted, sql: block[..end].join("\n"), expected: Expected::Rows(rows) })
}
