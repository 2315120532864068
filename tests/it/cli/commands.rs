//! Commands that need no server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[test]
fn help_and_version_are_no_errors_and_wrong_usage_is_two() {
    let team = team();
    let (out, _) = run(&team, &["--help"], 0);
    assert!(out.contains("lakegate sync") && out.contains("Exit codes"), "{out}");
    let (out, _) = run(&team, &["query", "--help"], 0);
    assert!(out.contains("--param") && out.contains("Examples"), "{out}");
    run(&team, &["--version"], 0);
    let (_, err) = run(&team, &["snyc"], 2);
    assert!(err.contains("sync"), "the nearest command is named: {err}");
    run(&team, &["sync", "not-a-table"], 2);
    let (_, err) = run(&team, &["sync", "s.tt"], 2);
    assert!(err.contains("s.tt") && err.contains("`s.t`"), "{err}");
}

#[test]
fn sync_tells_what_it_did_and_rejects_are_no_failure() {
    let team = team();
    let (out, err) = run(&team, &["sync"], 0);
    assert!(out.contains("s.t") && out.contains("committed"), "{out}");
    assert!(err.contains("s.t: reading") && err.contains("committed version 0, 2 rows, 1 rejected"), "{err}");
    assert!(err.contains("column id") && err.contains("in/a.csv:3"), "why and where: {err}");
    let (out, _) = run(&team, &["sync", "s.t"], 0);
    assert!(out.contains("nothing new"), "{out}");
    let (out, _) = run(&team, &["sync", "--reload"], 0);
    assert!(out.contains("committed"), "{out}");
}

#[test]
fn a_table_that_fails_is_one_and_the_others_are_loaded() {
    let team = team();
    team.define("s.bad", "[source]\nfiles = \"nowhere/*.csv\"\n");
    let (out, err) = run(&team, &["sync"], 1);
    assert!(out.contains("FAILED") && out.contains("committed"), "{out}");
    assert!(err.contains("s.bad: failed") && err.contains("nowhere"), "{err}");
}

#[test]
fn tables_loads_and_rejects_need_no_server() {
    let team = team();
    let (out, _) = run(&team, &["tables"], 0);
    assert!(out.contains("s"), "a table that is defined and not loaded is listed: {out}");
    run(&team, &["sync"], 0);
    let (out, _) = run(&team, &["tables", "--format", "csv"], 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("table_schema,table_name,version") && lines[1].starts_with("s,t,0,"), "{out}");
    let (out, _) = run(&team, &["loads", "s.t", "--format", "ndjson"], 0);
    let load: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((load["status"].as_str(), load["rows_rejected"].as_i64()), (Some("committed"), Some(1)), "{load}");
    let (out, _) = run(&team, &["rejects", "s.t", "--format", "json"], 0);
    let rejects: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((rejects[0]["line"].as_i64(), rejects[0]["column_name"].as_str()), (Some(3), Some("id")), "{rejects}");
    assert_eq!(rejects[0]["raw"].as_str(), Some("x,b"));
    let (out, _) = run(&team, &["rejects", "s.t", "--limit", "0", "--format", "csv"], 0);
    assert_eq!(out.lines().count(), 1, "{out}");
    run(&team, &["rejects", "s.other"], 2);
}

#[test]
fn check_names_every_problem_of_every_file() {
    let team = team();
    let (out, _) = run(&team, &["check"], 0);
    assert!(out.contains("all right: 1 table"), "{out}");
    team.configure("[[line]]\nnetworks = [\"10.0.0.0/8\"]\nrate = \"100000kbit/s\"\nweights = { admin = 2 }\n");
    let (out, _) = run(&team, &["check"], 0);
    assert!(out.contains("line 10.0.0.0/8: 100Mbit/s, shared by person; admin counts 2 times"), "{out}");
    team.define("s.one", "[source]\nfiles = \"x.csv\"\n[load]\nmoed = \"append\"\n");
    team.define("s.two", "[source]\nfiles = \"x.csv\"\n[load]\ncron = \"every now and then\"\n");
    let (out, _) = run(&team, &["check"], 1);
    assert!(out.contains("one.toml:4") && out.contains("`mode`"), "{out}");
    assert!(out.contains("two.toml:4") && out.contains("2 problems in 3 table definitions"), "{out}");
    let (_, err) = run(&team, &["sync"], 2);
    assert!(err.contains("one.toml") && err.contains("two.toml"), "nothing starts while there is one: {err}");
    for format in ["lakegate", "table"] {
        let (out, _) = run(&team, &["check", "--schema", format], 0);
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(schema["properties"].is_object(), "{schema}");
    }
}

#[test]
fn another_configuration_brings_its_folder_along() {
    let team = team();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = team.file("lakegate.toml");
    let mut command = crate::support::process::lakegate(elsewhere.path());
    let output = command.args(["sync", "--config", file.to_str().unwrap()]).output().unwrap();
    texts(&output, 0);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing is written where one stands");
}

/// A sync that stays where everything is read, begun as far as its first line.
fn staying(team: &Team, milliseconds: u32) -> Child {
    let mut command = team.command_with_fault(&["sync"], "etl.events.end", &format!("sleep({milliseconds})"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("reading"), "{line}");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_asked_to_stop_commits_or_gives_up_in_order() {
    let team = team();
    let child = staying(&team, 1000);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let rows = team.rows("s.t").await.len();
    match output.status.code() {
        Some(0) => assert_eq!(rows, 2),
        Some(1) => assert_eq!(rows, 0),
        _ => panic!("it was cut off: {}", told(&output)),
    }
    run(&team, &["sync"], 0);
    assert_eq!(team.rows("s.t").await.len(), 2);
}

#[test]
fn a_second_signal_stops_at_once() {
    let team = team();
    let child = staying(&team, 600_000);
    let id = Pid::from_child(&child);
    kill_process(id, Signal::TERM).unwrap();
    kill_process(id, Signal::INT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    run(&team, &["sync"], 0);
}
