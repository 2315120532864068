//! The program killed at every fault point of an upsert, a mirror and a replacing load: readers see the old rows
//! or the new ones, and the next load makes it good.

use std::os::unix::process::ExitStatusExt;

use super::points;
use crate::support::ground::Ground;
use crate::support::process::told;
use crate::support::team::Team;

/// Where being killed costs most on an S3 server: every one of them has to wait for the dead holder's lease.
const DECISIVE: [&str; 4] = ["lake.data.written", "lake.record.written", "lake.commit.before", "lake.commit.after"];

/// What is dropped in one step, and what the table holds after it.
type Step = fn(&Team, u64) -> Vec<String>;

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// One row changes in each step and one is new.
fn upserted(team: &Team, step: u64) -> Vec<String> {
    team.drop_file(&format!("in/{step}.csv"), format!("id,v\n0,{step}\n{step},new\n"));
    let new = (1..=step).map(|step| format!("{step}|new"));
    sorted(new.chain([format!("0|{step}")]).collect())
}

/// One file changes in each step, one is new, and the last step's goes.
fn mirrored(team: &Team, step: u64) -> Vec<String> {
    team.drop_file("in/all.csv", format!("id,v\n0,{step}\n"));
    team.drop_file(&format!("in/{step}.csv"), format!("id,v\n{step},new\n"));
    if step > 1 {
        team.remove(&format!("in/{}.csv", step - 1));
    }
    sorted(vec![format!("0|{step}"), format!("{step}|new")])
}

/// Each step's file takes the place of everything.
fn replaced(team: &Team, step: u64) -> Vec<String> {
    team.drop_file(&format!("in/{step}.csv"), format!("id,v\n{step},a\n{step},b\n"));
    sorted(vec![format!("{step}|a"), format!("{step}|b")])
}

async fn killed_at(ground: Ground, mode: &str, step: Step) {
    let points = if ground.is_remote() { DECISIVE.to_vec() } else { points() };
    let team = Team::on(ground);
    let columns = "[[columns]]\nname = \"id\"\ntype = \"bigint\"\n[[columns]]\nname = \"v\"\ntype = \"string\"\n";
    let load = format!("[load]\nmode = \"{mode}\"\ngroup = \"g\"\n[table]\nkey = [\"id\"]\n");
    team.define("s.t", &format!("[source]\nfiles = \"in/*.csv\"\n{load}{columns}"));
    let mut old = step(&team, 1);
    sync(&team).await;
    assert_eq!(team.rows("s.t").await, old, "before any fault");
    for (point, number) in points.into_iter().zip(2..) {
        let new = step(&team, number);
        let mut killed = team.command_with_fault(&["sync"], point, "return(kill)");
        let killed = tokio::task::spawn_blocking(move || killed.output().unwrap()).await.unwrap();
        if DECISIVE.contains(&point) {
            assert_eq!(killed.status.signal(), Some(9), "{point} was really met: {}", told(&killed));
        }
        let seen = team.rows("s.t").await;
        assert!(seen == old || seen == new, "{point}: readers see the old rows or the new ones, not {seen:?}");
        sync(&team).await;
        assert_eq!(team.rows("s.t").await, new, "after {point}");
        old = new;
    }
}

/// Loads until it succeeds: the lease of a dead process may have to expire first.
async fn sync(team: &Team) {
    let mut last = None;
    for _ in 0..5 {
        let mut command = team.command(&["sync"]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        if output.status.success() {
            return;
        }
        last = Some(output);
    }
    panic!("a load without faults does not succeed: {}", told(&last.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_an_upsert_is_whole_or_not_at_all() {
    killed_at(Ground::local(), "upsert", upserted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_a_mirror_is_whole_or_not_at_all() {
    killed_at(Ground::local(), "mirror", mirrored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_a_replacement_is_whole_or_not_at_all() {
    killed_at(Ground::local(), "replace", replaced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_an_s3_server_an_upsert_is_whole_or_not_at_all() {
    killed_at(Ground::bucket(), "upsert", upserted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_an_s3_server_a_mirror_is_whole_or_not_at_all() {
    killed_at(Ground::bucket(), "mirror", mirrored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_an_s3_server_a_replacement_is_whole_or_not_at_all() {
    killed_at(Ground::bucket(), "replace", replaced).await;
}
