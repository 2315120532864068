//! `lakegate serve`, and `lakegate query` against it.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// A server over a team's lake.
pub(super) struct Served {
    pub(super) team: Team,
    pub(super) server: Child,
    pub(super) address: String,
}

impl Served {
    pub(super) fn start(team: Team, more: &[&str]) -> Self {
        let ready = team.file("ready");
        let mut command = team.command(&["serve", "--flight", "127.0.0.1:0", "--ready-file", "ready"]);
        let log = File::create(team.file("server.log")).unwrap();
        let mut server = command.args(more).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while !ready.exists() {
            assert!(server.try_wait().unwrap().is_none() && Instant::now() < patience, "the server does not start");
            std::thread::yield_now();
        }
        let address = std::fs::read_to_string(ready).unwrap().trim().to_owned();
        Self { team, server, address }
    }

    fn loaded(more: &[&str]) -> Self {
        let team = team();
        run(&team, &["sync"], 0);
        Self::start(team, more)
    }

    fn query(&self, arguments: &[&str], code: i32) -> (String, String) {
        run(&self.team, &[&["query", "--server", &self.address], arguments].concat(), code)
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.team.file("server.log")).unwrap()
    }

    /// Asks the server to stop and gives its exit code.
    fn stop(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.server), Signal::TERM).unwrap();
        self.server.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

const ROWS: &str = "select id, v from s.t order by id";

#[test]
fn every_format_holds_the_same_rows() {
    let served = Served::loaded(&["--no-loads"]);
    assert_eq!(served.query(&[ROWS, "--format", "csv"], 0).0, "id,v\n1,a\n3,\"c, d\"\n");
    assert_eq!(served.query(&[ROWS, "--format", "ndjson"], 0).0, "{\"id\":1,\"v\":\"a\"}\n{\"id\":3,\"v\":\"c, d\"}\n");
    let json: serde_json::Value = serde_json::from_str(&served.query(&[ROWS, "--format", "json"], 0).0).unwrap();
    assert_eq!(json, serde_json::json!([{ "id": 1, "v": "a" }, { "id": 3, "v": "c, d" }]));
    assert_eq!(served.query(&[ROWS], 0).0, "id  v\n──  ────\n 1  a\n 3  c, d\n");

    let output = served.team.run(&["query", ROWS, "--server", &served.address, "--format", "arrow"]);
    let rows: usize = StreamReader::try_new(&output.stdout[..], None).unwrap().map(|b| b.unwrap().num_rows()).sum();
    assert_eq!(rows, 2, "a stream on standard output");
    served.query(&[ROWS, "-o", "out.arrow"], 0);
    let file = File::open(served.team.file("out.arrow")).unwrap();
    assert_eq!(FileReader::try_new(file, None).unwrap().map(|b| b.unwrap().num_rows()).sum::<usize>(), 2);
    served.query(&[ROWS, "-o", "out.parquet"], 0);
    let file = File::open(served.team.file("out.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    assert_eq!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>(), 2);

    let empty = "select id, v from s.t where id < 0";
    assert_eq!(served.query(&[empty, "--format", "csv"], 0).0, "id,v\n");
    assert_eq!(served.query(&[empty, "--format", "json"], 0).0.trim(), "[]");
    let nested = "select named_struct('a', 1, 'b', make_array(1, 2)) as n, null as nothing";
    assert_eq!(served.query(&[nested, "--format", "csv"], 0).0, "n,nothing\n\"{\"\"a\"\":1,\"\"b\"\":[1,2]}\",\n");
}

#[test]
fn statements_come_from_arguments_files_and_standard_input_with_parameters() {
    let served = Served::loaded(&["--no-loads"]);
    let csv = ["--format", "csv"];
    let one = |arguments: &[&str]| served.query(&[arguments, &csv].concat(), 0).0;
    assert_eq!(one(&["select v from s.t where id = ?", "--param", "3"]), "v\n\"c, d\"\n");
    assert_eq!(one(&["select id from s.t where v = $1 and id > $2", "--param", "a", "--param", "-5"]), "id\n1\n");
    let third = "select cast(1 as double) / 3 as third";
    assert_eq!(one(&[third]), "third\n0.3333333333333333\n");
    assert_eq!(one(&[third, "--header", "lakegate-precision=float32"]), "third\n0.33333334\n");
    let asked = ["--header", "lakegate-codec=lz4", "--header", "Lakegate-Dictionaries=on"];
    assert_eq!(one(&[&["select v from s.t where id = 3"], asked.as_slice()].concat()), "v\n\"c, d\"\n");
    let estimate = one(&["select id from s.t", "--estimate"]);
    assert!(estimate.starts_with("column,rows,rows_exact,wire_bytes,seconds\n,2,true,"), "{estimate}");
    std::fs::write(served.team.file("report.sql"), "select count(*) as n from s.t").unwrap();
    assert_eq!(one(&["@report.sql"]), "n\n2\n");
    let mut command = served.team.command(&["query", "-", "--format", "csv", "--server", &served.address]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"select 7 as seven").unwrap();
    assert_eq!(texts(&child.wait_with_output().unwrap(), 0).0, "seven\n7\n");
    let (_, err) = served.query(&["select 1", "--header", "lakegate-codec=gzip"], 1);
    assert!(err.contains("`lakegate-codec` is `gzip`; choose one of auto"), "{err}");
    let (_, err) = served.query(&["select 1", "--header", "lakegate-codec"], 2);
    assert!(err.contains("NAME=VALUE"), "{err}");
    let (_, err) = served.query(&["select v from s.t where id = ?", "--param", "x"], 2);
    assert!(err.contains("parameter 1"), "{err}");
    let (_, err) = served.query(&["select v from s.t where id = ? and v = ?", "--param", "1"], 2);
    assert!(err.contains("2 parameters"), "{err}");
}

#[test]
fn a_file_appears_only_when_it_is_whole() {
    let served = Served::loaded(&["--no-loads"]);
    std::fs::write(served.team.file("out.csv"), "what was there").unwrap();
    let failing = "select 10 / (id - 3) as x from s.t";
    let (_, err) = served.query(&[failing, "-o", "out.csv"], 1);
    assert!(!err.is_empty());
    assert_eq!(std::fs::read_to_string(served.team.file("out.csv")).unwrap(), "what was there");
    served.query(&["select * frm s.t", "-o", "other.csv"], 1);
    let names: Vec<String> = std::fs::read_dir(served.team.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.contains("part") || name.contains("other")), "{names:?}");
    let (_, err) = served.query(&["select 1", "-o", "nowhere/x.csv"], 1);
    assert!(err.contains("nowhere/x.csv"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let served = Served::loaded(&["--no-loads"]);
    let many = "select unnest(generate_series(1, 2000000)) as n";
    let mut command = served.team.command(&["query", many, "--format", "csv", "--server", &served.address]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (_, err) = texts(&child.wait_with_output().unwrap(), 0);
    assert_eq!(err, "");
}

#[test]
fn without_a_server_people_are_told_what_to_do() {
    let team = team();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("grpc://{}", free.local_addr().unwrap());
    drop(free);
    let (_, err) = run(&team, &["query", "select 1", "--server", &address], 1);
    assert!(err.contains(&address) && err.contains("lakegate serve"), "{err}");
    let (_, err) = run(&team, &["query", "select 1", "--server", "nonsense"], 2);
    assert!(err.contains("grpc://HOST:PORT"), "{err}");
}

#[test]
fn a_server_loads_by_schedule_and_drains_when_asked_to_stop() {
    let team = team();
    let definition = std::fs::read_to_string(team.file("tables/s/t.toml")).unwrap();
    team.define("s.t", &definition.replace("[load]", "[load]\nevery = \"100ms\""));
    let mut served = Served::start(team, &["--log-format", "json"]);
    let patience = Instant::now() + Duration::from_secs(60);
    while !served.team.run(&["query", ROWS, "--server", &served.address]).status.success() {
        assert!(Instant::now() < patience, "{}", served.log());
    }
    assert_eq!(served.stop(), Some(0), "{}", served.log());
    assert!(!served.team.file("ready").exists(), "nobody is sent to a server that is gone");
    let lines: Vec<serde_json::Value> = served.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |words: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|told| told.contains(words)));
    assert!(said("listening on grpc://127.0.0.1:") && said("loaded") && said("stopped"), "{lines:?}");
    let (out, _) = run(&served.team, &["loads", "--format", "csv"], 0);
    assert!(out.contains("committed"), "what was loaded is noted: {out}");
}

#[test]
fn a_place_that_is_taken_or_open_to_all_is_refused() {
    let team = team();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (_, err) = run(&team, &["serve", "--no-loads", "--flight", &address], 1);
    assert!(err.contains(&address) && err.contains("--flight"), "{err}");
    let (_, err) = run(&team, &["serve", "--no-loads", "--flight", "0.0.0.0:0"], 2);
    assert!(err.contains("allow_anonymous_network"), "{err}");
    team.configure("[serve]\nallow_anonymous_network = true\n");
    let (_, err) = run(&team, &["serve", "--no-loads", "--flight", "0.0.0.0:0"], 2);
    assert!(err.contains("allow_plaintext_network") && err.contains("lakegate cert dev"), "{err}");
}
