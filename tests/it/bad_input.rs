//! Bad input and bad places, end to end through the program: each is told by file and cause, and no row is lost
//! or doubled. What the file source alone makes of bad files: `files.rs`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::support::process::{Running, told};
use crate::support::team::Team;

const GOOD: &str = "id,v\n1,a\n";

fn team(definition: &str) -> Team {
    let team = Team::local();
    team.define("s.t", definition);
    team
}

fn csv_team() -> Team {
    team("[source]\nfiles = \"in/*.csv\"\n")
}

/// What a sync with this exit code told.
fn sync(team: &Team, code: i32) -> String {
    let output = team.run(&["sync"]);
    assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    told(&output)
}

/// A file beside a good one: the exit code, what is told, and the rows.
async fn beside_a_good_file(content: &[u8], code: i32, words: &[&str], rows: &[&str]) {
    let team = csv_team();
    team.drop_file("in/a.csv", GOOD);
    team.drop_file("in/b.csv", content);
    let text = sync(&team, code);
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in {text}");
    }
    assert_eq!(team.rows("s.t").await, rows, "{text}");
    sync(&team, code);
    assert_eq!(team.rows("s.t").await, rows, "once more");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let team = csv_team();
    let text = sync(&team, 1);
    assert!(text.contains("in") && text.contains("s.t: failed"), "{text}");
}

#[tokio::test]
async fn empty_files_and_headers_alone_have_no_rows() {
    beside_a_good_file(b"", 0, &[], &["1|a"]).await;
    beside_a_good_file(b"id,v\n", 0, &[], &["1|a"]).await;
}

#[tokio::test]
async fn marks_line_ends_and_quotes_across_lines_are_understood() {
    beside_a_good_file(b"\xef\xbb\xbfid,v\n2,b\n", 0, &[], &["1|a", "2|b"]).await;
    beside_a_good_file(b"id,v\r\n2,b\r\n", 0, &[], &["1|a", "2|b"]).await;
    beside_a_good_file(b"id,v\n2,\"b\nc\"\n", 0, &[], &["1|a", "2|b\nc"]).await;
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_one_row() {
    let long = "x".repeat(10 << 20);
    let content = format!("id,v\n2,{long}\n");
    beside_a_good_file(content.as_bytes(), 0, &[], &["1|a", &format!("2|{long}")]).await;
}

#[tokio::test]
async fn a_second_header_and_bad_bytes_are_rejected_by_line() {
    let mut rows = String::from("id,v\n");
    for id in 2..40 {
        rows.push_str(&format!("{id},b\n"));
    }
    let twice = format!("{rows}id,v\n");
    let mut broken = rows.clone().into_bytes();
    broken.extend_from_slice(b"40,m\xfcller\n");
    for content in [twice.as_bytes(), &broken] {
        let team = csv_team();
        team.drop_file("in/b.csv", content);
        let text = sync(&team, 0);
        assert!(text.contains("1 rejected") && text.contains("in/b.csv:40"), "{text}");
        assert_eq!(team.rows("s.t").await.len(), 38);
        let rejects = team.run(&["rejects", "s.t", "--format", "csv"]);
        assert!(String::from_utf8_lossy(&rejects.stdout).contains("b.csv"), "{}", told(&rejects));
    }
    let team = team("[source]\nfiles = \"in/*.csv\"\nencoding = \"latin1\"\n");
    team.drop_file("in/b.csv", b"id,v\n1,m\xfcller\n");
    sync(&team, 0);
    assert_eq!(team.rows("s.t").await, ["1|müller"]);
}

#[tokio::test]
async fn a_file_with_two_columns_of_one_name_is_refused_by_name_and_the_others_are_loaded() {
    let team = csv_team();
    team.drop_file("in/a.csv", GOOD);
    team.drop_file("in/b.csv", "id,v,v\n2,b,c\n");
    let text = sync(&team, 0);
    assert!(text.contains("refused") && text.contains("in/b.csv") && text.contains('v'), "{text}");
    assert_eq!(team.rows("s.t").await, ["1|a"]);
}

fn parquet(column: &str, values: ArrayRef) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter([(column, values)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[tokio::test]
async fn parquet_cut_in_half_or_of_another_schema_is_refused_by_name_and_the_others_are_loaded() {
    let good = parquet("id", Arc::new(Int64Array::from(vec![1, 2])));
    let other = parquet("id", Arc::new(StringArray::from(vec!["x"])));
    for bad in [&good[..good.len() / 2], &other] {
        let team = team("[source]\nfiles = \"in/*.parquet\"\n");
        team.drop_file("in/a.parquet", &good);
        team.drop_file("in/b.parquet", bad);
        let text = sync(&team, 0);
        assert!(text.contains("refused") && text.contains("in/b.parquet"), "{text}");
        assert_eq!(team.rows("s.t").await, ["1", "2"]);
        team.drop_file("in/b.parquet", parquet("id", Arc::new(Int64Array::from(vec![3]))));
        sync(&team, 0);
        assert_eq!(team.rows("s.t").await, ["1", "2", "3"], "repaired, it is loaded");
    }
}

#[tokio::test]
async fn mixed_types_in_one_field_lose_no_row() {
    let team = team("[source]\nfiles = \"in/*.ndjson\"\n");
    team.drop_file("in/a.ndjson", "{\"id\":1,\"v\":2}\n{\"id\":2,\"v\":\"x\"}\n{\"id\":3,\"v\":{\"k\":[1]}}\n");
    sync(&team, 0);
    let rows = team.rows("s.t").await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows[2].contains("\"k\""), "a nested value among plain ones is JSON text: {rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_deleted_while_it_is_read_is_left_out_and_nothing_is_doubled() {
    let team = csv_team();
    team.drop_file("in/a.csv", GOOD);
    team.drop_file("in/b.csv", "id,v\n2,b\n");
    let mut command = team.command_with_fault(&["sync"], "lake.lease.taken", "1*return(freeze)");
    command.stdout(Stdio::piped());
    let frozen = tokio::task::spawn_blocking(move || {
        let mut frozen = Running::start(command);
        assert!(frozen.wait_frozen(), "it ended without being frozen");
        frozen
    });
    let frozen = frozen.await.unwrap();
    team.remove("in/b.csv");
    frozen.thaw();
    let output = tokio::task::spawn_blocking(|| frozen.finish()).await.unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(team.rows("s.t").await, ["1|a"]);
    team.drop_file("in/b.csv", "id,v\n2,b\n");
    sync(&team, 0);
    assert_eq!(team.rows("s.t").await, ["1|a", "2|b"]);
}

/// Runs a script in a mount namespace of its own, in the team's folder; none where that is not permitted. In it
/// `$LAKEGATE` is the program.
fn in_own_mounts(team: &Team, script: &str) -> Option<Output> {
    let permitted = |arguments: &[&str]| {
        let probe = "mkdir -p mounted && mount -t tmpfs -o size=1m none mounted";
        let tried = Command::new("unshare").args(arguments).args(["sh", "-c", probe]).current_dir(team.path()).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let arguments: &[&str] = [&["-m"][..], &["-rm"]].into_iter().find(|arguments| permitted(arguments))?;
    Some(shell(team, Command::new("unshare").args(arguments).arg("sh"), script))
}

fn shell(team: &Team, command: &mut Command, script: &str) -> Output {
    let program = team.command(&[]).get_program().to_owned();
    command.args(["-c", script]).current_dir(team.path()).env("LAKEGATE", program).output().unwrap()
}

fn lake_at(team: &Team, place: &Path) {
    let mut file = std::fs::File::create(team.file("lakegate.toml")).unwrap();
    writeln!(file, "[lake]\nlocation = '{}'", place.display()).unwrap();
}

#[tokio::test]
async fn a_lake_that_cannot_be_written_is_named() {
    let team = csv_team();
    team.drop_file("in/a.csv", GOOD);
    team.drop_file("file", "no folder");
    lake_at(&team, &team.file("file/lake"));
    let text = sync(&team, 1);
    assert!(text.contains("file/lake"), "{text}");

    lake_at(&team, &team.file("lake"));
    sync(&team, 0);
    team.drop_file("in/b.csv", "id,v\n2,b\n");
    let script = "mount --bind lake lake && mount -o remount,bind,ro lake && \"$LAKEGATE\" sync";
    if let Some(output) = in_own_mounts(&team, script) {
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("s.t: failed") && text.contains("Read-only"), "{text}");
    }
    sync(&team, 0);
    let (out, _) = tables(&team);
    assert!(out.contains(",2,"), "two rows, each once: {out}");
}

/// Many rows that do not shrink: more than a small disk holds.
fn many_rows() -> String {
    let mut text = String::from("id,v\n");
    for id in 0..60_000_u64 {
        let hash = blake3::hash(&id.to_le_bytes());
        text.push_str(&format!("{id},{}\n", hash.to_hex()));
    }
    text
}

fn tables(team: &Team) -> (String, String) {
    let output = team.run(&["tables", "--format", "csv"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_full_disk_is_named_and_the_load_is_made_good_when_there_is_room() {
    let team = csv_team();
    team.drop_file("in/a.csv", many_rows());
    lake_at(&team, &team.file("small/lake"));
    std::fs::create_dir(team.file("small")).unwrap();
    let script = "mount -t tmpfs -o size=1m none small; \"$LAKEGATE\" sync; echo first=$?; \
                  mount -o remount,size=100m small; \"$LAKEGATE\" sync; echo second=$?; \
                  \"$LAKEGATE\" tables --format csv; find small -name '*.parquet' | grep -v _ | wc -l";
    let output = in_own_mounts(&team, script).unwrap_or_else(|| {
        // Without a disk of its own: no file may be larger than 512 KiB.
        let script = "trap '' XFSZ; (ulimit -f 1024; \"$LAKEGATE\" sync); echo first=$?; \
                      \"$LAKEGATE\" sync; echo second=$?; \"$LAKEGATE\" tables --format csv";
        shell(&team, &mut Command::new("sh"), script)
    });
    let text = told(&output);
    assert!(text.contains("first=1") && text.contains("second=0"), "{text}");
    assert!(text.contains("No space left") || text.contains("File too large"), "the cause is told: {text}");
    assert!(text.contains(",60000,"), "each row once: {text}");
}
