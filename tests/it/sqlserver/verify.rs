//! `lakegate verify`: what is the same is told to be the same, what differs is found and named, and a repair mends
//! exactly that.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use lakegate::etl::{Silent, VerifyOptions};
use lakegate::journal::LoadStatus::{Committed, Unchanged};
use lakegate::journal::VerificationRecord;
use lakegate::journal::VerificationStatus::{Differs, Failed, Repaired, Same};
use lakegate::lake::{Facts, WritePlan};
use lakegate::model::ChangeKind::{Append, Delete, Upsert};
use lakegate::model::{ChangeBatch, ChangeKind, LoadMode, TableName};
use serde_json::{Value, json};

use super::support::{Operations, reached};
use crate::support::process::told;
use crate::support::truth;

const ROWS: i64 = 3_000;
/// Chunks as small as they get, so that the table has six.
const SMALL: &str = "source.chunk.small=return(error)";

fn name(table: &str) -> TableName {
    TableName::new("ops", table).unwrap()
}

fn numbers(rows: &[(i32, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("v", values, true)]).unwrap()
}

fn texts(rows: &[(&str, &str)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap()
}

/// Changes a table of the lake behind lakegate's back: what stands of its source's position stays as it is.
async fn tamper(ops: &Operations, table: &str, kind: ChangeKind, rows: RecordBatch) {
    let (_, lake, _, _) = ops.team.open().await;
    let table = lake.table(&name(table));
    let lease = table.lease("a test", Duration::from_secs(60)).await.unwrap();
    let attempt = table.begin(&lease).await.unwrap();
    let facts = Facts {
        position: attempt.chain().position().cloned(),
        definition_hash: attempt.chain().definition_hash().unwrap().to_owned(),
        ..Facts::default()
    };
    let mode = if kind == Append { LoadMode::Append } else { LoadMode::Upsert };
    let key = if kind == Append { Vec::new() } else { vec![rows.schema().field(0).name().clone()] };
    let schema = attempt.snapshot().unwrap().schema();
    let plan = WritePlan { schema, key, folding: Vec::new(), mode, reload: false };
    let mut writer = attempt.writer(plan).unwrap();
    writer.write(ChangeBatch { kind, rows, file: None }).await.unwrap();
    let staged = writer.finish(&[]).await.unwrap();
    attempt.commit(staged, facts).await.unwrap();
    lease.release().await;
}

/// Verifies the only table.
async fn verify(ops: &Operations, repair: bool) -> VerificationRecord {
    let loads = ops.team.loads().await;
    let options = VerifyOptions { repair, ..VerifyOptions::default() };
    let mut report = loads.verify(&[], &options, Arc::new(Silent)).await.unwrap();
    assert_eq!((report.tables.len(), report.problems.len()), (1, 0), "{report:?}");
    report.tables.remove(0)
}

/// The program with faults, and what it told as JSON.
async fn program(ops: &Operations, repair: bool, faults: &str) -> (std::process::Output, Value) {
    let mut command = ops.team.command(if repair { &["verify", "--json", "--repair"] } else { &["verify", "--json"] });
    command.env("FAILPOINTS", faults);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, result)
}

/// The ends of the ranges that differ.
fn ends(result: &Value) -> Vec<(Value, Value)> {
    let differences = result[0]["differences"].as_array().unwrap();
    differences.iter().map(|range| (range["after"].clone(), range["until"].clone())).collect()
}

async fn loaded() -> Operations {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    ops.numbers("t", ROWS);
    ops.reads(ROWS as u64).await;
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_in_step_is_the_same_and_what_changed_since_is_left_out() {
    let ops = loaded().await;
    let record = verify(&ops, false).await;
    assert_eq!((record.status, record.rows, record.left_out), (Same, 3_000, 0), "{record:?}");
    assert!(record.notes.is_empty() && record.differences.is_empty(), "{record:?}");
    ops.sql("UPDATE dbo.t SET v = N'changed' WHERE id IN (10, 2990)");
    ops.sql("DELETE FROM dbo.t WHERE id IN (20, 500, 501, 3000)");
    ops.sql("UPDATE dbo.t SET id = 9030 WHERE id = 30");
    ops.sql("INSERT INTO dbo.t VALUES (0, N'first'), (9000, N'last')");
    for reported in [false, true] {
        ops.server.database().unseen_deletes(reported);
        let record = verify(&ops, false).await;
        assert_eq!(
            (record.status, record.rows, record.left_out),
            (Same, 2_993, 10 + u64::from(reported)),
            "{record:?}"
        );
        ops.sql("INSERT INTO dbo.t VALUES (-7, N'comes')");
        ops.sql("DELETE FROM dbo.t WHERE id = -7");
        assert_eq!(verify(&ops, false).await.status, Same);
    }
    ops.sync(Committed).await;
    let record = verify(&ops, false).await;
    assert_eq!((record.status, record.rows, record.left_out), (Same, 2_998, 0), "{record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_while_they_are_compared_do_not_differ() {
    let ops = loaded().await;
    let change = |round: i64| {
        ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id % 50 = {}", round % 50));
        ops.sql(&format!("DELETE FROM dbo.t WHERE id = {}", 100 + round));
        ops.sql(&format!("INSERT INTO dbo.t VALUES ({}, N'new'), ({}, N'new')", 9_000 + round, -round));
    };
    let gate = ops.server.database().faults().hold("SELECT TOP (");
    let changed = async {
        let gate = reached(gate).await;
        change(1);
        gate.release();
    };
    let (record, ()) = tokio::join!(verify(&ops, false), changed);
    assert_eq!(record.status, Same, "{record:?}");
    assert!(record.left_out > 50, "{record:?}");

    // The program compares chunk by chunk while rows change and loads go on.
    let ended = AtomicBool::new(false);
    let changes = async {
        for round in 2.. {
            change(round);
            ops.team.sync_one().await;
            if ended.load(Ordering::SeqCst) {
                break;
            }
        }
    };
    let verified = async {
        let (output, result) = program(&ops, false, SMALL).await;
        ended.store(true, Ordering::SeqCst);
        assert!(output.status.success(), "{}", told(&output));
        assert!(result[0]["ranges"].as_u64() >= Some(6), "{result}");
    };
    tokio::join!(changes, verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_found_in_its_range_and_a_repair_mends_it() {
    let ops = loaded().await;
    tamper(&ops, "t", Upsert, numbers(&[(-5, "too many"), (700, "other"), (9_999, "too many")])).await;
    tamper(&ops, "t", Delete, numbers(&[(1_200, "")])).await;
    let (output, result) = program(&ops, false, SMALL).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let ranges = [(json!([]), json!(["500"])), (json!(["500"]), json!(["1000"])), (json!(["1000"]), json!(["1500"]))];
    let mut expected = ranges.to_vec();
    expected.push((json!(["3000"]), json!([])));
    assert_eq!(ends(&result), expected, "{result}");
    assert_eq!(result[0]["status"], "differs");
    let counts = |place: usize| {
        let range = &result[0]["differences"][place];
        (range["source_rows"].as_u64().unwrap(), range["lake_rows"].as_u64().unwrap())
    };
    assert_eq!([0, 1, 2, 3].map(counts), [(500, 501), (500, 500), (500, 499), (0, 1)]);

    let text = ops.team.run(&["verify", "ops.t"]);
    let text = told(&text);
    assert!(text.contains("DIFFERS") && text.contains("`lakegate verify ops.t --repair`"), "{text}");

    // Changes that wait come along with the repair.
    ops.sql("UPDATE dbo.t SET v = N'waits' WHERE id IN (699, 2222)");
    ops.server.database().faults().forget_statements();
    let (output, result) = program(&ops, true, SMALL).await;
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!((&result[0]["status"], ends(&result)), (&json!("repaired"), expected), "{result}");
    let seen = ops.server.database().faults().statements();
    let read = |text: &str| seen.iter().filter(|statement| statement.text.contains(text)).count();
    let of_range = |text: &str| !text.contains("TOP (") && text.contains("FROM [dbo].[t] AS T");
    let anew =
        seen.iter().filter(|statement| of_range(&statement.text) && statement.text.contains("SELECT T.")).count();
    assert_eq!((anew, read("SELECT TOP (") > 0), (4, true), "one statement for each range that differs: {seen:#?}");
    ops.same("t", "id, v").await;
    assert_eq!(verify(&ops, false).await.status, Same);
    ops.sql("UPDATE dbo.t SET v = N'later' WHERE id = 1");
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_rewrites_only_files_of_what_differs() {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    let file = ops.team.file("lakegate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}target_file_size = \"16KiB\"\n")).unwrap();
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(80) NULL");
    let ids: Vec<i64> = (1..=20_000).collect();
    for ids in ids.chunks(500) {
        let value = |id: &i64| format!("({id}, N'{}')", blake3::hash(&id.to_le_bytes()).to_hex());
        ops.sql(&format!("INSERT INTO dbo.t VALUES {}", ids.iter().map(value).collect::<Vec<_>>().join(", ")));
    }
    ops.reads(20_000).await;
    tamper(&ops, "t", Upsert, numbers(&[(10_300, "other")])).await;
    let files = async || {
        let table = truth::open(&ops.team.ground, &name("t")).await.unwrap();
        table.get_file_uris().unwrap().collect::<BTreeSet<String>>()
    };
    let before = files().await;
    assert!(before.len() > 10, "{} files", before.len());
    let (output, result) = program(&ops, true, SMALL).await;
    assert_eq!((output.status.code(), &result[0]["status"]), (Some(0), &json!("repaired")), "{}", told(&output));
    let after = files().await;
    let rewritten = before.difference(&after).count();
    assert!((1..=2).contains(&rewritten), "{rewritten} of {} files were written anew", before.len());
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_sorted_otherwise_on_the_server_are_compared_as_one_range() {
    let guid = |number: u32| format!("{:08x}-0000-4000-8000-{:012x}", number.wrapping_mul(0x9e37_79b9), 4_000 - number);
    let text = |number: u32| format!("{} key {}", ["a", "B", "á", "Z"][number as usize % 4], number);
    let texts_of: [(&str, &dyn Fn(u32) -> String); 2] = [("nvarchar(40)", &text), ("uniqueidentifier", &guid)];
    for (key, text) in texts_of {
        let ops = Operations::start().await;
        ops.table("t", &format!("k {key} NOT NULL PRIMARY KEY, v nvarchar(40) NULL"));
        let rows: Vec<String> = (1..=900).map(|number| format!("(N'{}', N'v{number}')", text(number))).collect();
        ops.sql(&format!("INSERT INTO dbo.t VALUES {}", rows.join(", ")));
        ops.sync(Committed).await;
        let before = ops.rows("t").await;
        let record = verify(&ops, false).await;
        assert_eq!((record.status, record.ranges, record.rows), (Same, 1, 900), "{key}: {record:?}");
        assert!(record.notes.iter().any(|note| note.contains("one range")), "{record:?}");
        let (missing, other) = (text(17), text(18));
        tamper(&ops, "t", Delete, texts(&[(&missing, "")])).await;
        tamper(&ops, "t", Upsert, texts(&[(&other, "other")])).await;
        let record = verify(&ops, false).await;
        assert_eq!((record.status, record.differences.len()), (Differs, 1), "{key}: {record:?}");
        let sides = (&record.differences[0]["source_rows"], &record.differences[0]["lake_rows"]);
        assert_eq!(sides, (&json!(900), &json!(899)), "{record:?}");
        let record = verify(&ops, true).await;
        assert_eq!(record.status, Repaired, "{key}: {record:?}");
        assert_eq!(ops.rows("t").await, before, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_everything_is_compared_at_once() {
    let ops = Operations::start().await;
    ops.sql("CREATE TABLE dbo.t (id int NULL, v nvarchar(40) NULL)");
    ops.define("t", "");
    ops.add_numbers("t", 1, 1_000);
    ops.sql("INSERT INTO dbo.t VALUES (1, N'v1'), (NULL, NULL)");
    ops.reads(1_002).await;
    assert_eq!(verify(&ops, false).await.status, Same);
    tamper(&ops, "t", Append, numbers(&[(1, "v1")])).await;
    let record = verify(&ops, false).await;
    assert_eq!(record.status, Differs, "a row that is there twice is one too many the third time: {record:?}");
    assert!(record.notes.iter().any(|note| note.contains("does not tell what changed")), "{record:?}");
    let record = verify(&ops, true).await;
    assert_eq!(record.status, Repaired, "{record:?}");
    ops.same("t", "id, v").await;
    // What changed since the last load cannot be told from damage, and the next load brings it.
    ops.sql("INSERT INTO dbo.t VALUES (5000, N'new')");
    assert_eq!(verify(&ops, false).await.status, Differs);
    ops.sync(Committed).await;
    assert_eq!(verify(&ops, false).await.status, Same);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_row_version_what_is_newer_is_left_out_and_by_key_diff_nothing_is() {
    for (column, method) in [(", rv rowversion", "rowversion"), ("", "key_diff")] {
        let ops = Operations::start().await;
        ops.sql(&format!("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL{column})"));
        ops.define("t", "");
        let values: Vec<String> = (1..=800).map(|id| format!("({id}, N'v{id}')")).collect();
        ops.sql(&format!("INSERT INTO dbo.t (id, v) VALUES {}", values.join(", ")));
        ops.sync(Committed).await;
        let record = verify(&ops, false).await;
        assert_eq!((record.status, record.method.as_deref()), (Same, Some(method)), "{record:?}");
        let before = ops.rows("t").await;
        tamper(&ops, "t", Delete, numbers(&[(5, "")])).await;
        let record = verify(&ops, false).await;
        assert_eq!((record.status, record.notes.len()), (Differs, 1), "{record:?}");
        let record = verify(&ops, true).await;
        assert_eq!(record.status, Repaired, "{record:?}");
        assert_eq!(ops.rows("t").await, before, "{method}");
        ops.sql("UPDATE dbo.t SET v = N'newer' WHERE id = 7");
        let record = verify(&ops, false).await;
        let expected = if method == "rowversion" { (Same, 1) } else { (Differs, 0) };
        assert_eq!((record.status, record.left_out), expected, "{record:?}");
        ops.sync(Committed).await;
        assert_eq!(verify(&ops, false).await.status, Same, "{method}");
    }
}

/// A partition that is switched in brings rows with old row versions. Seen from the lake, which is all that can be told
/// apart here: the table has a row that the lake lacks, and lacks one that the lake has.
#[tokio::test(flavor = "multi_thread")]
async fn rows_switched_in_while_as_many_go_are_not_noticed_by_a_load_but_found_and_mended() {
    let ops = Operations::start().await;
    ops.kept_by("rowversion", "t", 800);
    ops.sync(Committed).await;
    let before = ops.rows("t").await;
    tamper(&ops, "t", Delete, numbers(&[(5, "")])).await;
    tamper(&ops, "t", Upsert, numbers(&[(5_000, "switched out")])).await;
    ops.sync(Unchanged).await;
    ops.sql("UPDATE dbo.t SET v = N'newer' WHERE id = 7");
    ops.reads(1).await;
    assert!(ops.rows("t").await.contains(&"5000|switched out".to_owned()), "the number of rows does not tell");
    let record = verify(&ops, false).await;
    assert_eq!((record.status, record.differences.len()), (Differs, 1), "{record:?}");
    assert_eq!(verify(&ops, true).await.status, Repaired);
    ops.same("t", "id, v").await;
    assert_eq!(ops.rows("t").await.len(), before.len());
    // One more than went: the number tells, and all of the table is compared.
    tamper(&ops, "t", Delete, numbers(&[(9, ""), (10, "")])).await;
    tamper(&ops, "t", Upsert, numbers(&[(5_000, "switched out")])).await;
    ops.sql("UPDATE dbo.t SET v = N'newest' WHERE id = 7");
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_were_never_reported_are_found_and_mended() {
    let ops = loaded().await;
    ops.sql("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING");
    ops.sql("DELETE FROM dbo.t WHERE id IN (1, 1600, 3000)");
    ops.sql("UPDATE dbo.t SET v = N'unreported' WHERE id = 2000");
    ops.sql("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING");
    let (output, result) = program(&ops, false, SMALL).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(ends(&result).len() >= 3, "{result}");
    assert!(result[0]["notes"][0].as_str().unwrap().contains("could not be left out"), "{result}");
    let (output, result) = program(&ops, true, SMALL).await;
    assert_eq!((output.status.code(), &result[0]["status"]), (Some(0), &json!("repaired")), "{}", told(&output));
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_killed_changes_nothing_and_the_next_one_does_it() {
    let ops = loaded().await;
    tamper(&ops, "t", Delete, numbers(&[(10, ""), (2_700, "")])).await;
    let before = ops.rows("t").await;
    // Whoever follows a killed process first commits an empty version.
    for (point, what) in [
        ("etl.events.end", "return(kill)"),
        ("lake.data.written", "return(kill)"),
        ("lake.record.written", "return(kill)"),
        ("lake.commit.before", "1*off->return(kill)"),
    ] {
        let (output, _) = program(&ops, true, &format!("{SMALL};{point}={what}")).await;
        assert_eq!(output.status.signal(), Some(9), "{point}: {}", told(&output));
        assert_eq!(ops.rows("t").await, before, "{point}");
    }
    ops.sql("UPDATE dbo.t SET v = N'meanwhile' WHERE id = 11");
    let (output, _) = program(&ops, true, &format!("{SMALL};lake.commit.after=1*off->return(kill)")).await;
    assert_eq!(output.status.signal(), Some(9), "{}", told(&output));
    ops.same("t", "id, v").await;
    let (output, result) = program(&ops, true, SMALL).await;
    assert_eq!((output.status.code(), &result[0]["status"]), (Some(0), &json!("same")), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_says_why() {
    let ops = Operations::start().await;
    ops.numbers("t", 10);
    let record = verify(&ops, false).await;
    assert_eq!(record.status, Failed, "{record:?}");
    assert!(record.error.unwrap().contains("lakegate sync ops.t"), "nothing was loaded yet");
    ops.sync(Committed).await;

    ops.sql("CREATE LOGIN etl WITH PASSWORD = N'Reader-2022'");
    ops.sql("CREATE USER etl FOR LOGIN etl");
    ops.configure_as("etl", "Reader-2022", "");
    let record = verify(&ops, false).await;
    let error = record.error.unwrap();
    assert!(record.status == Failed && error.contains("grant it SELECT"), "{error}");
    ops.sql("GRANT SELECT ON OBJECT::dbo.t TO etl");
    let record = verify(&ops, false).await;
    let error = record.error.unwrap();
    assert!(record.status == Failed && error.contains("change_tracking") && error.contains("is now by"), "{error}");

    ops.configure("");
    ops.sql("ALTER TABLE dbo.t ADD w int NOT NULL DEFAULT 7");
    let record = verify(&ops, false).await;
    let error = record.error.unwrap();
    assert!(record.status == Failed && error.contains("`w`") && error.contains("lakegate sync"), "{error}");
    ops.sync(Committed).await;
    assert_eq!(verify(&ops, false).await.status, Same);

    ops.team.define("ops.f", "[source]\nfiles = \"in/*.csv\"\n");
    let output = ops.team.run(&["verify", "ops.f"]);
    assert!(output.status.code() == Some(2) && told(&output).contains("loaded from files"), "{}", told(&output));
    let output = ops.team.run(&["verify", "ops.x"]);
    assert!(output.status.code() == Some(2) && told(&output).contains("ops.x"), "{}", told(&output));
    assert_eq!(verify(&ops, false).await.status, Same, "a table of files is passed over");
}
