//! Users, tokens, certificates and grants, as people handle them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::served::Served;
use super::*;

/// Runs a command that reads a line, without a terminal.
fn with_line(team: &Team, arguments: &[&str], line: &str) -> Output {
    let mut command = team.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn add_user(team: &Team, name: &str, password: &str, more: &[&str]) {
    let arguments = [&["user", "add", name, "--password-stdin"], more].concat();
    texts(&with_line(team, &arguments, &format!("{password}\n")), 0);
}

#[test]
fn users_come_and_go_and_their_file_is_for_nobody_else() {
    let team = team();
    add_user(&team, "ann", "pass:wörd", &["--role", "admin"]);
    let file = team.file("users.toml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("$argon2id$") && !text.contains("pass:w"), "{text}");
    let (_, err) = texts(&with_line(&team, &["user", "add", "ann", "--password-stdin"], "x\n"), 2);
    assert!(err.contains("lakegate user passwd ann"), "{err}");
    for (name, wanted) in [("a:b", "is no name of a user"), ("token", "means something else")] {
        let (_, err) = texts(&with_line(&team, &["user", "add", name, "--password-stdin"], "x\n"), 2);
        assert!(err.contains(wanted), "{err}");
    }
    let (_, err) = texts(&with_line(&team, &["user", "add", "cid", "--password-stdin"], "\n"), 2);
    assert!(err.contains("the password is empty"), "{err}");
    run(&team, &["user", "add", "bob", "--no-password"], 0);
    let (out, _) = run(&team, &["user", "list"], 0);
    assert_eq!(out, "user  password  tokens  roles\nann   yes       0       admin\nbob   no        0\n");
    let (out, _) = run(&team, &["user", "list", "--json"], 0);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0], serde_json::json!({ "name": "ann", "roles": ["admin"], "password": true, "tokens": 0 }));
    let before = text;
    texts(&with_line(&team, &["user", "passwd", "ann", "--password-stdin"], "other\n"), 0);
    assert_ne!(std::fs::read_to_string(&file).unwrap().lines().nth(4), before.lines().nth(4));
    run(&team, &["user", "remove", "bob"], 0);
    let (_, err) = run(&team, &["user", "remove", "bob"], 2);
    assert!(err.contains("there is no user `bob`"), "{err}");
    // What is wrong elsewhere does not keep anybody from shutting somebody out.
    team.define("s.bad", "= broken");
    run(&team, &["user", "remove", "ann"], 0);
}

#[test]
fn a_token_is_shown_once_and_can_be_revoked() {
    let team = team();
    run(&team, &["user", "add", "ann", "--no-password"], 0);
    let (token, err) = run(&team, &["user", "token", "add", "ann", "--label", "laptop", "--expires", "90d"], 0);
    assert!(token.starts_with("lgp_") && token.lines().count() == 1 && err.contains("only time"), "{token}{err}");
    let text = std::fs::read_to_string(team.file("users.toml")).unwrap();
    assert!(!text.contains(token.trim()) && text.contains("label = \"laptop\""), "{text}");
    let (out, _) = run(&team, &["user", "token", "list", "ann", "--json"], 0);
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    assert!(token.contains(id) && listed[0]["label"] == "laptop" && listed[0]["expires_at"].is_string(), "{listed}");
    let (out, _) = run(&team, &["user", "token", "list"], 0);
    assert!(out.contains("laptop") && out.contains(id), "{out}");
    run(&team, &["user", "token", "revoke", id], 0);
    run(&team, &["user", "token", "revoke", id], 2);
    run(&team, &["user", "token", "add", "nobody"], 2);
    run(&team, &["user", "token", "add", "ann", "--expires", "soon"], 2);
}

#[test]
fn grants_are_explained_by_file_and_line() {
    let team = team();
    run(&team, &["user", "add", "ann", "--no-password", "--role", "staff"], 0);
    team.write(
        "grants.toml",
        "[roles.analysts]\nmembers = [\"ann\"]\n\n[[grant]]\nto = \"analysts\"\non = \"s.*\"\n\n\
         [[row_filter]]\non = \"s.t\"\nwhere = \"id > 1\"\n\n[[mask]]\non = \"s.t\"\ncolumn = \"v\"\nas = \"'***'\"\n",
    );
    let (out, _) = run(&team, &["grants", "explain", "ann", "s.t"], 0);
    for part in [
        "ann on s.t: parts of it are seen",
        "read s.* to analysts  (grants.toml:4)",
        "id > 1  (grants.toml:8)",
        "v as '***'  (grants.toml:12)",
        "analysts  (grants.toml:1: members of [roles.analysts])",
        "staff  (users.toml:4: roles of [users.ann])",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let (out, _) = run(&team, &["grants", "explain", "bob", "s.t", "--json"], 0);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["visible"], &found["write"]), (&false.into(), &false.into()), "{found}");
    assert!(found["notes"][0].as_str().unwrap().contains("no user of the users file"), "{found}");
    let (out, _) = run(&team, &["grants", "explain", "ann", "s.tt"], 0);
    assert!(out.contains("did you mean `s.t`?"), "{out}");
}

#[test]
fn what_somebody_sees_of_the_programs_own_tables_is_explained() {
    let team = team();
    run(&team, &["user", "add", "ann", "--no-password"], 0);
    run(&team, &["user", "add", "root", "--no-password", "--role", "admin"], 0);
    team.write("grants.toml", "[[grant]]\nto = \"user:ann\"\non = \"*\"\nmay = [\"read\", \"write\"]\n");
    for (table, rows) in [
        ("system.queries", "  rows       statements of their own\n"),
        ("system.rejects", "  rows       rejects of tables of which they see everything\n"),
        ("information_schema.columns", "  rows       names of tables and columns they may read\n"),
    ] {
        let (out, _) = run(&team, &["grants", "explain", "ann", table], 0);
        for part in ["parts of it are seen", rows, "  write      no\n", "  grants     none\n", "it needs no grant"] {
            assert!(out.contains(part), "{part}\n{out}");
        }
        let (out, _) = run(&team, &["grants", "explain", "root", table], 0);
        assert!(out.contains("all of it is seen") && out.contains("the role `admin` sees"), "{out}");
    }
    let (out, _) = run(&team, &["grants", "explain", "ann", "system.querys"], 0);
    assert!(out.contains("did you mean `system.queries`?"), "{out}");
}

#[test]
fn check_covers_users_and_grants() {
    let team = team();
    run(&team, &["user", "add", "ann", "--no-password"], 0);
    std::fs::set_permissions(team.file("users.toml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    team.write(
        "grants.toml",
        "[roles.analysts]\nmembers = [\"anna\"]\n[[grant]]\nto = \"analyst\"\non = \"s.tt\"\ncolumns = [\"idd\"]\n\
         [[mask]]\non = \"s.t\"\ncolumn = \"vv\"\nas = \"'x\"\n[[row_filter]]\non = \"s.u\"\nwhere = \"true\"\n",
    );
    let (out, _) = run(&team, &["check"], 1);
    assert!(out.contains("grants.toml:10:6: mask[1].as: this is no SQL expression"), "{out}");
    let fixed = std::fs::read_to_string(team.file("grants.toml")).unwrap().replace("\"'x\"", "\"'x'\"");
    team.write("grants.toml", fixed);
    let (out, _) = run(&team, &["check"], 1);
    for part in [
        "users.toml: warning: everybody on this machine can read the hashes",
        "grants.toml:2:12: warning: roles.analysts.members[1]: there is no user `anna`",
        "grants.toml:4:6: grant[1].to: there is no role `analyst`: nobody has it",
        "did you mean `analysts`?",
        "grants.toml:5:6: warning: grant[1].on: no definition makes a table s.tt; did you mean `s.t`?",
        "grants.toml:9:10: mask[1].column: s.t has no column `vv`",
        "grants.toml:12:6: row_filter[1].on: no definition makes a table s.u",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let (_, err) = run(&team, &["serve", "--flight", "127.0.0.1:0"], 2);
    assert!(err.contains("grants.toml"), "nothing is served with them: {err}");
}

/// `lakegate query` with what the environment says about who asks.
fn query(served: &Served, environment: &[(&str, &str)], more: &[&str]) -> Output {
    let arguments = [&["query", "select 1 as one", "--format", "csv", "--server", &served.address], more].concat();
    let mut command: Command = served.team.command(&arguments);
    command.envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn a_server_with_a_certificate_and_users_lets_in_who_may() {
    let team = team();
    add_user(&team, "ann", "pass word", &[]);
    let (token, _) = run(&team, &["user", "token", "add", "ann"], 0);
    let (out, _) = run(&team, &["cert", "dev"], 0);
    assert!(out.contains("[serve.tls]") && out.contains("--ca-file"), "{out}");
    run(&team, &["cert", "dev"], 2);
    let key = std::fs::metadata(team.file("tls/key.pem")).unwrap().permissions().mode();
    assert_eq!(key & 0o777, 0o600);
    team.configure("[serve.tls]\ncertificate = \"tls/certificate.pem\"\nkey = \"tls/key.pem\"\n");
    let served = Served::start(team, &["--no-loads"]);
    assert!(served.address.starts_with("grpc+tls://127.0.0.1:"), "{}", served.address);
    let ca = ["--ca-file", "tls/certificate.pem"];
    let right = [("LAKEGATE_USER", "ann"), ("LAKEGATE_PASSWORD", "pass word")];
    assert_eq!(texts(&query(&served, &right, &ca), 0).0, "one\n1\n");
    assert_eq!(texts(&query(&served, &[("LAKEGATE_TOKEN", token.trim())], &ca), 0).0, "one\n1\n");
    served.team.write("token", &token);
    assert_eq!(texts(&query(&served, &[], &[&ca[..], &["--token-file", "token"]].concat()), 0).0, "one\n1\n");
    let (_, err) = texts(&query(&served, &[], &ca), 1);
    assert!(err.contains("connect with user and password"), "{err}");
    let (_, err) = texts(&query(&served, &[right[0], ("LAKEGATE_PASSWORD", "wrong")], &ca), 1);
    assert!(err.contains("are not accepted"), "{err}");
    let (_, err) = texts(&query(&served, &right, &[]), 1);
    assert!(
        err.contains("certificate that is not believed") && err.contains("--ca-file"),
        "nobody it trusts vouches for the server: {err}"
    );
    let log = served.log();
    assert!(log.contains("a password was not accepted") && log.contains("ann") && !log.contains("wrong"), "{log}");
    assert!(!log.contains("pass word") && !log.contains(token.trim()), "{log}");
}

#[test]
fn a_signal_and_a_changed_file_are_noticed_and_a_broken_one_changes_nothing() {
    let team = team();
    run(&team, &["user", "add", "ann", "--no-password"], 0);
    let (token, _) = run(&team, &["user", "token", "add", "ann"], 0);
    let served = Served::start(team, &["--no-loads"]);
    let token = [("LAKEGATE_TOKEN", token.trim())];
    let patience = Instant::now() + Duration::from_secs(60);
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < patience, "{what}: {}", served.log());
            std::thread::yield_now();
        }
    };
    texts(&query(&served, &token, &[]), 0);
    let good = std::fs::read_to_string(served.team.file("users.toml")).unwrap();
    served.team.write("users.toml", "[users.ann");
    kill_process(Pid::from_child(&served.server), Signal::HUP).unwrap();
    wait("the broken file is told of", &|| served.log().contains("users and grants stay as they were"));
    texts(&query(&served, &token, &[]), 0);
    served.team.write("users.toml", &good);
    let id = good.lines().find_map(|line| line.strip_prefix("id = ")).unwrap().trim_matches('"').to_owned();
    run(&served.team, &["user", "token", "revoke", &id], 0);
    wait("the revoked token counts no more", &|| !query(&served, &token, &[]).status.success());
}

/// Compares for minutes and finds nothing.
const ENDLESS: &str = "select count(*) from generate_series(1, 3000000) a(x) join generate_series(1, 3000000) b(y) \
                       on a.x * b.y < 0";

/// A server with the admin `ann`, and `bob` and `cid` who are none; and their tokens.
fn served_to_three() -> (Served, [String; 3]) {
    let team = team();
    let tokens = ["ann", "bob", "cid"].map(|name| {
        let role: &[&str] = if name == "ann" { &["--role", "admin"] } else { &[] };
        run(&team, &[&["user", "add", name, "--no-password"], role].concat(), 0);
        run(&team, &["user", "token", "add", name], 0).0.trim().to_owned()
    });
    (Served::start(team, &["--no-loads"]), tokens)
}

/// A command that asks the server, as the holder of a token.
fn command_as(served: &Served, token: &str, arguments: &[&str]) -> Command {
    let mut command = served.team.command(&[arguments, &["--server", &served.address]].concat());
    command.env("LAKEGATE_TOKEN", token);
    command
}

fn run_as(served: &Served, token: &str, arguments: &[&str], code: i32) -> (String, String) {
    texts(&command_as(served, token, arguments).output().unwrap(), code)
}

/// The statements that run, as somebody is told of them.
fn running(served: &Served, token: &str) -> Vec<serde_json::Value> {
    let (out, _) = run_as(served, token, &["queries", "--running", "--format", "json"], 0);
    serde_json::from_str(&out).unwrap()
}

/// Somebody begins an endless statement; gives its id once it runs.
fn begin_endless(served: &Served, token: &str) -> (std::process::Child, String) {
    let mut command = command_as(served, token, &["query", ENDLESS]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < patience && child.try_wait().unwrap().is_none(), "{}", served.log());
        let is_it = |row: &&serde_json::Value| row["text"] == ENDLESS && row["status"] == "running";
        if let Some(row) = running(served, token).iter().find(is_it) {
            return (child, row["query_id"].as_str().unwrap().to_owned());
        }
    }
}

#[test]
fn statements_are_listed_for_and_stopped_by_those_who_may() {
    let (served, [ann, bob, cid]) = served_to_three();
    let (child, id) = begin_endless(&served, &bob);
    let seen_by = |token: &str| running(&served, token).iter().any(|row| row["query_id"] == id.as_str());
    assert!(seen_by(&ann) && seen_by(&bob) && !seen_by(&cid));
    let bobs = running(&served, &ann).into_iter().find(|row| row["query_id"] == id.as_str()).unwrap();
    assert_eq!((&bobs["principal"], &bobs["text"]), (&"bob".into(), &ENDLESS.into()));

    // Whether there is such a statement is not told to those who may not stop it.
    let (_, not_his) = run_as(&served, &cid, &["kill", &id], 1);
    let (_, unknown) = run_as(&served, &ann, &["kill", "00000000-0000-4000-8000-000000000000"], 1);
    assert!(not_his.contains("nothing runs under this query_id") && not_his == unknown, "{not_his}{unknown}");
    let (_, err) = run_as(&served, &ann, &["kill", "all"], 2);
    assert!(err.contains("QUERY_ID"), "{err}");
    let (_, err) = run_as(&served, "lgp_wrong", &["kill", &id], 1);
    assert!(err.contains("not accepted"), "{err}");
    assert!(seen_by(&bob), "it runs on");

    run_as(&served, &ann, &["kill", &id], 0);
    let (_, err) = texts(&child.wait_with_output().unwrap(), 1);
    assert!(err.contains("cancelled"), "{err}");
    let (child, own) = begin_endless(&served, &bob);
    run_as(&served, &bob, &["kill", &own], 0);
    texts(&child.wait_with_output().unwrap(), 1);
    let (_, err) = run_as(&served, &bob, &["kill", &own], 1);
    assert_eq!(err, unknown, "it has ended");

    let ended =
        format!("select status from system.queries where query_id in ('{id}', '{own}') and ended_at is not null");
    let patience = Instant::now() + Duration::from_secs(60);
    // The line in the history is written a moment after the client was told.
    while run_as(&served, &bob, &["query", &ended, "--format", "csv"], 0).0 != "status\ncancelled\ncancelled\n" {
        assert!(Instant::now() < patience, "{}", served.log());
    }
}

#[test]
fn a_query_that_is_given_up_is_stopped_at_the_server_too() {
    let (served, [_, bob, _]) = served_to_three();
    let (child, id) = begin_endless(&served, &bob);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let (_, err) = texts(&child.wait_with_output().unwrap(), 1);
    assert!(err.contains("given up"), "{err}");
    let ended = format!("select status from system.queries where query_id = '{id}'");
    let patience = Instant::now() + Duration::from_secs(60);
    while run_as(&served, &bob, &["query", &ended, "--format", "csv"], 0).0 != "status\ncancelled\n" {
        assert!(Instant::now() < patience, "{}", served.log());
    }
}

#[test]
fn people_are_told_of_their_own_statements_and_sessions_and_admins_of_all() {
    let (served, [ann, bob, cid]) = served_to_three();
    let people = |table: &str, token: &str| {
        let sql = format!("select distinct principal from system.{table} order by 1");
        run_as(&served, token, &["query", &sql, "--format", "csv"], 0).0
    };
    for token in [&ann, &bob, &cid] {
        run_as(&served, token, &["query", "select 1"], 0);
    }
    for table in ["queries", "sessions"] {
        assert_eq!(people(table, &bob), "principal\nbob\n", "{table}");
        assert_eq!(people(table, &cid), "principal\ncid\n", "{table}");
        assert_eq!(people(table, &ann), "principal\nann\nbob\ncid\n", "{table}");
        // Nor is anything to be learned by counting, or by asking for somebody.
        for sql in ["count(*)", "max(principal)", "array_agg(client)"] {
            let sql =
                format!("select {sql} is null or count(*) = 0 as none from system.{table} where principal <> 'cid'");
            let (out, _) = run_as(&served, &cid, &["query", &sql, "--format", "csv"], 0);
            assert_eq!(out, "none\ntrue\n", "{table}");
        }
    }
    let (out, _) = run_as(&served, &cid, &["queries", "--format", "csv"], 0);
    assert!(out.contains("cid") && !out.contains("bob") && !out.contains("ann"), "{out}");
}

#[test]
fn a_policy_that_does_not_fit_its_table_is_told_of_and_changes_nothing() {
    let team = team();
    run(&team, &["sync"], 0);
    run(&team, &["user", "add", "ann", "--no-password"], 0);
    let (token, _) = run(&team, &["user", "token", "add", "ann"], 0);
    let grants = |filter: &str| {
        format!("[[grant]]\nto = \"user:ann\"\non = \"s.*\"\n[[row_filter]]\non = \"s.t\"\nwhere = \"{filter}\"\n")
    };
    team.write("grants.toml", grants("id = 1"));
    let served = Served::start(team, &["--no-loads"]);
    let seen = || {
        let arguments = ["query", "select id from s.t", "--format", "csv", "--server", &served.address];
        let mut command = served.team.command(&arguments);
        // A statement that meets the change is refused, and has to be asked again.
        String::from_utf8(command.env("LAKEGATE_TOKEN", token.trim()).output().unwrap().stdout).unwrap()
    };
    let patience = Instant::now() + Duration::from_secs(60);
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < patience, "{what}: {}", served.log());
            std::thread::yield_now();
        }
    };
    assert_eq!(seen(), "id\n1\n");
    served.team.write("grants.toml", grants("nothing = 1"));
    kill_process(Pid::from_child(&served.server), Signal::HUP).unwrap();
    let told = "users and grants stay as they were, for a policy cannot be used: s.t: row filter 1: ";
    wait("the policy is told of", &|| served.log().contains(told));
    assert_eq!(seen(), "id\n1\n");
    served.team.write("grants.toml", grants("id = 3"));
    wait("a good one counts", &|| seen() == "id\n3\n");
}
