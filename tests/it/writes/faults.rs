//! The server killed or failing at every fault point of a write: the change is there as a whole, or not at all.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use lakegate::lake;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::place::Place;
use crate::support::ground::Ground;
use crate::support::process::{Running, lakegate, lakegate_with_fault};
use crate::support::{on_both_grounds, truth};

/// Short, so that a test need not wait long for a dead holder's lease.
const LEASE_LIFETIME: Duration = Duration::from_secs(2);

/// A folder with a configuration of the lake on some ground.
fn site(ground: &Ground) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let limits = "[limits]\nlease_wait = \"20s\"\nmemory = \"256MiB\"\nthreads = 2\n";
    std::fs::write(folder.path().join("lakegate.toml"), ground.configuration() + limits).unwrap();
    folder
}

/// A server process with a fault, or without one, and a client of it.
async fn serve(folder: &Path, fault: Option<(&str, &str)>) -> (Running, FlightSqlServiceClient<Channel>) {
    let ready = folder.join(format!("ready-{}", uuid::Uuid::new_v4()));
    let mut command: Command = match fault {
        Some((point, action)) => lakegate_with_fault(folder, point, action),
        None => lakegate(folder),
    };
    command
        .args(["serve", "--no-loads", "--flight", "127.0.0.1:0", "--ready-file"])
        .arg(&ready)
        .env("TEST_KEY", "test");
    command.env("XDG_STATE_HOME", folder.join("state"));
    let mut running = Running::start(command);
    let address = loop {
        if let Ok(address) = std::fs::read_to_string(&ready) {
            break address.trim().replace("grpc://", "http://");
        }
        assert!(running.0.try_wait().unwrap().is_none(), "the server ended before it listened");
        tokio::task::yield_now().await;
    };
    let channel = Endpoint::new(address).unwrap().connect().await.unwrap();
    (running, FlightSqlServiceClient::new(channel))
}

/// Runs one statement on a server with a fault; tells whether the client heard that it was done.
async fn write_with(folder: &Path, point: &str, action: &str, sql: &str) -> Option<i64> {
    let (mut running, mut client) = serve(folder, Some((point, action))).await;
    let heard = client.execute_update(sql.to_owned(), None).await.ok();
    if action.contains("kill") && heard.is_none() {
        let ended = tokio::task::spawn_blocking(move || running.0.wait().unwrap()).await.unwrap();
        assert_eq!(ended.signal(), Some(9), "{point}");
    }
    heard
}

on_both_grounds! {
    async fn killed_at_any_point_a_change_is_there_as_a_whole_or_not_at_all(ground) {
        let mut ground = ground;
        ground.settings.lease_lifetime = LEASE_LIFETIME;
        let folder = site(&ground);
        let place = Place::on(ground, &[]).await;
        place.run("create table t as select x as id, 0 as n from generate_series(1, 100) g(x)").await;
        let mut next = 1_000_i64;
        for point in lake::POINTS {
            for sql in [
                format!("insert into results.t values ({next}, 1), ({}, 1)", next + 1),
                format!("update results.t set n = {next} where id <= 100"),
                format!("create table results.t{next} as select {next} as id, 1 as n"),
            ] {
                let before = place.rows("select count(*), sum(n) from t").await;
                let heard = write_with(folder.path(), point, "1*return(kill)", &sql).await;
                // The next writer fences, cleans and finds out.
                place.run("delete from t where id = -1").await;
                let after = place.rows("select count(*), sum(n) from t").await;
                if sql.starts_with("create") {
                    let made = place.rows_as(&format!("select id from results.t{next}"), &crate::queries::house::everything()).await;
                    assert!(heard.is_none() || made.is_ok(), "{point}: what was told to be done is done");
                    assert!(made.is_err() || made.unwrap() == [next.to_string()], "{point}");
                    continue;
                }
                if heard.is_some() {
                    assert_ne!(before, after, "{point}: what was told to be done is done: {sql}");
                }
                if before != after {
                    let expected = match sql.starts_with("insert") {
                        true => place.rows(&format!("select count(*) from t where id in ({next}, {})", next + 1)).await == ["2"],
                        false => place.rows(&format!("select count(*) from t where n = {next}")).await == ["100"],
                    };
                    assert!(expected, "{point}: half of {sql}");
                }
            }
            next += 10;
        }
        let name = "results.t".parse().unwrap();
        let mut ids = truth::rows(&place.ground, &name).await;
        let all = ids.len();
        ids.dedup();
        assert_eq!(all, ids.len(), "no row is there twice");
    }

    async fn an_error_at_any_point_is_told_and_changes_nothing_or_all(ground) {
        let mut ground = ground;
        ground.settings.lease_lifetime = LEASE_LIFETIME;
        let folder = site(&ground);
        let place = Place::on(ground, &[]).await;
        place.run("create table t (id bigint)").await;
        let mut expected = 0;
        for (number, point) in lake::POINTS.iter().enumerate() {
            let sql = format!("insert into results.t values ({number})");
            let heard = write_with(folder.path(), point, "1*return(error)", &sql).await;
            let count = place.rows("select count(*) from t").await;
            if heard.is_some() {
                expected += 1;
            }
            assert_eq!(count, [expected.to_string()], "{point}: {heard:?}");
        }
        let files = truth::data_files(&place.ground, &"results.t".parse().unwrap()).await;
        assert_eq!(files.len(), expected, "whoever fails in order leaves no data file behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_small_files_are_taken_in_no_row_is_lost_or_doubled() {
    let mut ground = Ground::local();
    ground.settings.lease_lifetime = LEASE_LIFETIME;
    let folder = site(&ground);
    let place = Place::on(ground, &[]).await;
    for (number, point) in ["lake.record.written", "lake.commit.before", "lake.commit.after"].iter().enumerate() {
        let table = format!("t{number}");
        place.run(&format!("create table {table} (id bigint)")).await;
        for id in 1..=32 {
            place.run(&format!("insert into {table} values ({id})")).await;
        }
        // The thirty-third takes the others in.
        let heard =
            write_with(folder.path(), point, "1*return(kill)", &format!("insert into results.{table} values (33)"))
                .await;
        assert_eq!(heard, None, "{point} was met");
        place.run(&format!("insert into {table} values (34)")).await;
        let ids = truth::rows(&place.ground, &format!("results.{table}").parse().unwrap()).await;
        let with_33 = (1..=34).collect::<Vec<i64>>();
        let without_33 = with_33.iter().copied().filter(|id| *id != 33).collect::<Vec<_>>();
        assert!(ids == with_33 || ids == without_33, "{point}: {ids:?}");
        let version = place.lake.table(&format!("results.{table}").parse().unwrap()).snapshot().await.unwrap().unwrap();
        assert!(version.files() <= 3, "{point}: taken in then, or by the next: {}", version.files());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_by_one_server_is_seen_by_the_next() {
    let ground = Ground::local();
    let folder = site(&ground);
    let (mut running, mut client) = serve(folder.path(), None).await;
    client.execute_update("create table kept (id bigint primary key)".to_owned(), None).await.unwrap();
    client.execute_update("insert into kept values (1)".to_owned(), None).await.unwrap();
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let (_running, mut client) = serve(folder.path(), None).await;
    let again = client.execute_update("insert into kept values (1)".to_owned(), None).await.unwrap_err();
    assert!(again.to_string().contains("(id)"), "the key is kept: {again}");
    assert_eq!(client.execute_update("insert into kept values (2)".to_owned(), None).await.unwrap(), 1);
}
