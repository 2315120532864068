//! What `lakegate query` keeps on the disk: over a way that counts what the server sends.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::served::Served;
use super::*;
use crate::support::process::Running;

const SQL: &str = "select id, v from s.t";
const ROWS: u64 = 20_000;
/// All rows take more than this on the way, and a description less than [`LITTLE`].
const MUCH: u64 = 100_000;
const LITTLE: u64 = 30_000;
const CSV: [&str; 2] = ["--format", "csv"];

/// Rows that do not compress.
fn rows(ids: Range<u64>) -> String {
    let row = |id: u64| format!("{id},{:016x}\n", (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    std::iter::once("id,v\n".to_owned()).chain(ids.map(row)).collect()
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// A way to a server, which counts.
struct Way {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Way {
    fn to(server: &str) -> Self {
        let server = server.strip_prefix("grpc://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("grpc://{}", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || carry(from_client, to_server, &AtomicU64::new(0)));
                let counted = Arc::clone(&counted);
                thread::spawn(move || carry(server, client, &counted));
            }
        });
        Self { address, sent }
    }

    /// What the server sent since this was asked last.
    fn take(&self) -> u64 {
        self.sent.swap(0, Ordering::SeqCst)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// A server over `s.t`, and a way to it.
struct House {
    served: Served,
    way: Way,
}

impl House {
    fn open(prepare: impl FnOnce(&Team)) -> Self {
        let team = Team::local();
        team.define(
            "s.t",
            "[source]\nfiles = \"in/*.csv\"\n[[columns]]\nname = \"id\"\ntype = \"int\"\n[[columns]]\nname = \"v\"\n\
             type = \"string\"\n",
        );
        team.drop_file("in/a.csv", rows(0..ROWS));
        run(&team, &["sync"], 0);
        prepare(&team);
        let served = Served::start(team, &["--no-loads"]);
        let way = Way::to(&served.address);
        Self { served, way }
    }

    /// The arguments of a query over the way.
    fn query<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["query", "--server", &self.way.address][..], more].concat()
    }

    /// What a query wrote and told, and what the server sent for it.
    fn ask(&self, more: &[&str]) -> (String, String, u64) {
        self.way.take();
        let (out, err) = run(&self.served.team, &self.query(more), 0);
        (out, err, self.way.take())
    }

    /// Asks for all rows, makes sure that they come, and gives what the server sent for them.
    fn ask_for_all(&self, more: &[&str]) -> u64 {
        let (out, err, sent) = self.ask(&[&[SQL], &CSV[..], more].concat());
        assert!(lines(&out) == lines(&rows(0..ROWS)), "{} lines; {err}", out.lines().count());
        sent
    }

    /// The files of the cache whose names begin so, of all owners.
    fn kept(&self, begin: &str) -> Vec<PathBuf> {
        let owners = std::fs::read_dir(self.served.team.file("cache-home/lakegate")).into_iter().flatten();
        let files = owners.flat_map(|owner| std::fs::read_dir(owner.unwrap().path()).unwrap());
        let paths = files.map(|file| file.unwrap().path()).filter(|path| path.extension().unwrap() == "arrow");
        paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(begin)).collect()
    }
}

#[test]
fn what_has_not_changed_is_not_sent_again_whatever_it_is_written_as() {
    let house = House::open(|_| {});
    assert!(house.ask_for_all(&[]) > MUCH);
    assert!(house.ask_for_all(&[]) < LITTLE);
    for format in ["json", "ndjson", "parquet", "arrow"] {
        let file = format!("out.{format}");
        let (_, err, sent) = house.ask(&[SQL, "-o", &file]);
        assert!(sent < LITTLE && err.contains("20,000 rows in out.") && err.contains("unchanged"), "{sent} {err}");
    }
    let ndjson = std::fs::read_to_string(house.served.team.file("out.ndjson")).unwrap();
    assert_eq!(ndjson.lines().count() as u64, ROWS);

    assert!(house.ask_for_all(&["--fresh"]) > MUCH);
    assert!(house.ask_for_all(&["--no-cache"]) > MUCH);
    assert!(house.ask_for_all(&["--cache", "elsewhere"]) > MUCH, "another cache");
    assert!(house.ask_for_all(&["--cache", "elsewhere"]) < LITTLE);
    assert!(house.ask_for_all(&[]) < LITTLE, "it is still there");
    assert_eq!(house.kept("").len(), 1);

    // Another text, or another value, is another question.
    for id in ["7", "8", "7"] {
        let (out, _, _) = house.ask(&["select id from s.t where id = ?", "--param", id, "--format", "csv"]);
        assert_eq!(out, format!("id\n{id}\n"));
    }
}

#[test]
fn of_a_table_that_grew_only_the_new_rows_are_sent_and_of_one_that_changed_the_whole() {
    let house = House::open(|_| {});
    house.ask_for_all(&[]);
    let team = &house.served.team;
    team.drop_file("in/b.csv", rows(ROWS..ROWS + 20));
    run(team, &["sync"], 0);
    let (_, err, sent) = house.ask(&[SQL, "-o", "out.csv"]);
    assert!(sent < LITTLE && err.contains("20,020 rows") && err.contains("20 new"), "{sent} {err}");
    let all = rows(0..ROWS + 20);
    assert!(lines(&std::fs::read_to_string(team.file("out.csv")).unwrap()) == lines(&all));
    let (out, _, sent) = house.ask(&[SQL, "--format", "csv"]);
    assert!(sent < LITTLE && lines(&out) == lines(&all), "{sent}");
    assert_eq!(house.kept("").len(), 2, "the new rows stand alone");

    // The rows before are damaged: the new ones alone are no result.
    let first = house.kept("").into_iter().find(|path| !path.to_str().unwrap().contains('+')).unwrap();
    std::fs::write(first, "nothing").unwrap();
    let (out, err, sent) = house.ask(&[SQL, "--format", "csv"]);
    assert!(sent > MUCH && lines(&out) == lines(&all) && err.contains("damaged"), "{sent} {err}");

    run(team, &["sync", "s.t", "--reload"], 0);
    let (out, _, sent) = house.ask(&[SQL, "--format", "csv"]);
    assert!(sent > MUCH && lines(&out) == lines(&all), "{sent}");
}

#[test]
fn a_damaged_file_is_told_of_and_fetched_again() {
    let house = House::open(|_| {});
    house.ask_for_all(&[]);
    let [file]: [PathBuf; 1] = house.kept("").try_into().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (out, err, sent) = house.ask(&[SQL, "--format", "csv"]);
    assert!(sent > MUCH && lines(&out) == lines(&rows(0..ROWS)) && err.contains("damaged"), "{sent} {err}");
    assert!(house.ask_for_all(&[]) < LITTLE);
}

#[test]
fn nobody_is_given_what_another_fetched_nor_what_they_may_not_see_any_more() {
    let grants = |people: &[&str]| {
        let grant = |name: &&str| format!("[[grant]]\nto = \"user:{name}\"\non = \"s.*\"\n");
        people.iter().map(grant).collect::<String>()
    };
    let mut tokens = Vec::new();
    let house = House::open(|team| {
        for name in ["ann", "bob"] {
            run(team, &["user", "add", name, "--no-password"], 0);
            tokens.push(run(team, &["user", "token", "add", name], 0).0.trim().to_owned());
        }
        team.write("grants.toml", grants(&["ann", "bob"]));
    });
    let ask = |token: &str| {
        house.way.take();
        let mut command = house.served.team.command(&house.query(&[SQL, "--format", "csv"]));
        let output = command.env("LAKEGATE_TOKEN", token).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), house.way.take())
    };
    for token in &tokens {
        let (code, out, sent) = ask(token);
        assert!(code == Some(0) && lines(&out) == lines(&rows(0..ROWS)) && sent > MUCH, "{code:?} {sent}");
        assert!(ask(token).2 < LITTLE);
    }
    house.served.team.write("grants.toml", grants(&["bob"]));
    kill_process(Pid::from_child(&house.served.server), Signal::HUP).unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while ask(&tokens[0]).0 == Some(0) {
        assert!(Instant::now() < patience, "{}", house.served.log());
    }
    let (code, out, _) = ask(&tokens[0]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(house.kept("").len(), 2, "her rows are still there");
    let (code, out, sent) = ask(&tokens[1]);
    assert!(code == Some(0) && lines(&out) == lines(&rows(0..ROWS)) && sent < LITTLE, "{code:?} {sent}");
}

#[test]
fn many_at_once_and_one_that_is_killed_leave_what_is_whole() {
    let house = House::open(|_| {});
    let team = &house.served.team;
    let begin = |file: String| {
        let command = team.command(&house.query(&[SQL, "-o", &file]));
        (Running::start(command), file)
    };
    let running: Vec<_> = (0..4).map(|number| begin(format!("{number}.csv"))).collect();
    for (process, file) in running {
        texts(&process.finish(), 0);
        assert!(lines(&std::fs::read_to_string(team.file(&file)).unwrap()) == lines(&rows(0..ROWS)), "{file}");
    }
    assert!(house.ask_for_all(&[]) < LITTLE);

    // Nobody reads what it writes, so it does not come to its end.
    let another = "select id, v from s.t where id >= 0";
    let mut command = team.command(&house.query(&[another, "--format", "csv"]));
    let mut stuck = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while house.kept("part-").is_empty() {
        assert!(Instant::now() < patience && stuck.try_wait().unwrap().is_none(), "nothing is written");
        thread::yield_now();
    }
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert_eq!(house.kept("part-").len(), 1);
    let (out, err, sent) = house.ask(&[another, "--format", "csv"]);
    assert!(sent > MUCH && lines(&out) == lines(&rows(0..ROWS)), "{sent} {err}");
    assert_eq!((house.kept("part-").len(), house.kept("").len()), (0, 2));
}

#[test]
fn who_takes_what_was_the_answer_lately_needs_no_server() {
    let mut house = House::open(|_| {});
    let lately = ["--max-staleness", "1h"];
    assert!(house.ask_for_all(&lately) > MUCH, "there was no answer before");
    assert_eq!(house.ask_for_all(&lately), 0);
    let (_, err, _) = house.ask(&[SQL, "-o", "out.csv", "--max-staleness", "1h"]);
    assert!(err.contains("the server was not asked"), "{err}");
    assert!(house.ask_for_all(&["--max-staleness", "0s"]) > 0, "asked again");
    house.served.server.kill().unwrap();
    house.served.server.wait().unwrap();
    assert_eq!(house.ask_for_all(&lately), 0);
    run(&house.served.team, &house.query(&[SQL]), 1);
}

#[test]
fn the_cache_has_a_size_and_can_be_looked_at_and_emptied() {
    let house = House::open(|_| {});
    let team = &house.served.team;
    let (out, err) = run(team, &["cache", "show", "--format", "csv"], 0);
    assert!(out == "used_at,bytes,owner,identity\n" && err.contains("0 results, 0 B"), "{out}{err}");
    let (_, err, _) = house.ask(&[SQL, "--cache-size", "10kB"]);
    assert!(err.contains("is not kept") && err.contains("10000 bytes"), "{err}");
    assert_eq!(house.kept("").len(), 0);
    house.ask_for_all(&[]);
    house.ask(&["select count(*) from s.t", "--cache-size", "1GiB"]);
    let (out, err) = run(team, &["cache", "show", "--format", "json"], 0);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(listed[1]["bytes"].as_u64().unwrap() > MUCH && listed[0]["owner"] == listed[1]["owner"], "{listed}");
    assert!(err.contains("2 results") && err.contains("cache-home/lakegate"), "{err}");
    // What was used last stays where there is room for one.
    house.ask(&["select max(id) from s.t", "--cache-size", "100kB"]);
    let (out, _) = run(team, &["cache", "show", "--format", "json"], 0);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(listed.as_array().unwrap().iter().all(|entry| entry["bytes"].as_u64().unwrap() < 100_000), "{listed}");
    let (_, err) = run(team, &["cache", "clear"], 0);
    assert!(err.contains("removed 2 results"), "{err}");
    assert!(house.kept("").is_empty() && house.ask_for_all(&[]) > MUCH);
    for wrong in [&["--cache-size", "much"], &["--max-staleness", "soon"]] {
        run(team, &house.query(&[&[SQL], &wrong[..]].concat()), 2);
    }
    // A place that cannot be written keeps nobody from the rows.
    team.write("file", "x");
    let (out, err, _) = house.ask(&[SQL, "--format", "csv", "--cache", "file"]);
    assert!(lines(&out) == lines(&rows(0..ROWS)) && err.contains("results are not kept in file"), "{err}");
}
