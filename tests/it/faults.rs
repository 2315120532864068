//! The program killed, failing or frozen at every fault point: each row stays in the table exactly once.
//!
//! Real processes run `lakegate sync`; plain delta-rs reads what they made.

mod modes;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::Duration;

use lakegate::model::TableName;
use lakegate::{etl, journal, lake};
use tempfile::TempDir;

use crate::support::ground::Ground;
use crate::support::process::{Running, lakegate, lakegate_with_fault, told};
use crate::support::{on_both_grounds, truth};

/// Short, so that a test need not wait long for a dead holder's lease; long enough to be renewed on a busy machine.
const LEASE_LIFETIME: Duration = Duration::from_secs(2);

/// How often a load is tried again after one that met a dead or dying holder.
const TRIES: usize = 5;

/// A working folder with a configuration, a landing folder and one table, `s.t`.
struct Site {
    ground: Ground,
    folder: TempDir,
}

impl Site {
    fn new(mut ground: Ground) -> Self {
        ground.settings.lease_lifetime = LEASE_LIFETIME;
        let folder = tempfile::tempdir().unwrap();
        let site = Self { ground, folder };
        site.write("lakegate.toml", &site.configuration());
        site.write(
            "tables/s/t.toml",
            "[source]\nfiles = \"in/*.csv\"\nformat = \"csv\"\nsettle = \"0s\"\n[load]\ngroup = \"g\"\nmax_rejects = \"90%\"\n\
             [[columns]]\nname = \"id\"\ntype = \"bigint\"\n",
        );
        site
    }

    fn configuration(&self) -> String {
        self.ground.configuration() + "[limits]\nlease_wait = \"20s\"\nmemory = \"256MiB\"\nthreads = 1\n"
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Drops a file with one good row and one that does not fit.
    fn drop_file(&self, number: i64) {
        self.write(&format!("in/{number}.csv"), &format!("id\n{number}\nnone\n"));
    }

    fn with_fault(&self, point: &str, action: &str) -> Command {
        let mut command = lakegate_with_fault(self.folder.path(), point, action);
        command.args(["sync", "s.t"]).env("TEST_KEY", "test");
        command
    }

    fn plain(&self) -> Command {
        let mut command = lakegate(self.folder.path());
        command.args(["sync", "s.t"]).env("TEST_KEY", "test");
        command
    }

    async fn sync_with(&self, point: &str, action: &str) -> Output {
        let mut command = self.with_fault(point, action);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Loads until it succeeds: a fault may be met that a person would answer by calling again.
    async fn sync(&self) {
        let mut last = None;
        for _ in 0..TRIES {
            let mut command = self.plain();
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            if output.status.success() {
                return;
            }
            last = Some(output);
        }
        panic!("a load without faults does not succeed: {}", told(&last.unwrap()));
    }

    /// The table holds what the files up to `number` say: each good row once, each bad one among the rejects.
    async fn assert_holds(&self, numbers: &[i64], after: &str) {
        let name = table_name();
        assert_eq!(truth::rows(&self.ground, &name).await, numbers, "rows after {after}");
        let lake = self.ground.lake().await;
        let chain = lake.table(&name).chain().await.unwrap();
        assert_eq!(chain.rejected_rows(), numbers.len() as u64, "rejects after {after}");
        assert_eq!(chain.files().len(), numbers.len(), "files after {after}");
        let version = lake.table(&name).snapshot().await.unwrap().unwrap().version();
        let group = lake.manifests().newest("g").await.unwrap().unwrap();
        assert!(group[&name] <= version, "the group names a version that exists after {after}");
    }
}

fn table_name() -> TableName {
    TableName::new("s", "t").unwrap()
}

fn points() -> Vec<&'static str> {
    // Reached only when many attempts or files are to be folded: a test of its own.
    let rare = ["lake.summary.before", "journal.fold.before", "journal.fold.written"];
    // Loads of files are never made piece by piece, nor compared: `sqlserver::resume` and `sqlserver::key_diff` have those.
    let elsewhere = ["etl.whole.", "lake.compare."];
    let is_here = |point: &&str| !rare.contains(point) && !elsewhere.iter().any(|room| point.starts_with(room));
    [lake::POINTS, etl::POINTS, journal::POINTS].concat().into_iter().filter(is_here).collect()
}

on_both_grounds! {
    async fn killed_at_any_point_of_a_first_load_the_next_one_makes_it_good(ground) {
        let is_remote = ground.is_remote();
        drop(ground);
        for point in points() {
            let site = Site::new(if is_remote { Ground::bucket() } else { Ground::local() });
            site.drop_file(1);
            site.sync_with(point, "return(kill)").await;
            site.sync().await;
            site.assert_holds(&[1], point).await;
        }
    }

    async fn killed_at_any_point_after_a_dead_holder_nothing_is_lost_or_doubled(ground) {
        let site = Site::new(ground);
        site.drop_file(1);
        site.sync().await;
        let (mut number, mut reached) = (1, BTreeSet::new());
        for point in points() {
            number += 1;
            site.drop_file(number);
            let dead = site.sync_with("lake.record.written", "return(kill)").await;
            assert_eq!(dead.status.signal(), Some(9), "{}", told(&dead));
            let killed = site.sync_with(point, "return(kill)").await;
            if killed.status.signal() == Some(9) {
                reached.insert(point);
            }
            site.sync().await;
            let numbers: Vec<i64> = (1..=number).collect();
            site.assert_holds(&numbers, point).await;
        }
        let expected: BTreeSet<_> = points().into_iter().collect();
        assert_eq!(reached, expected, "every point was really met");
    }

    async fn an_error_at_any_point_changes_nothing_or_all(ground) {
        let site = Site::new(ground);
        let mut number = 0;
        for point in points() {
            number += 1;
            site.drop_file(number);
            site.sync_with(point, "1*return(error)").await;
            site.sync().await;
            let numbers: Vec<i64> = (1..=number).collect();
            site.assert_holds(&numbers, point).await;
        }
        let orphans = truth::data_files(&site.ground, &table_name()).await.len();
        assert_eq!(orphans, number as usize, "whoever fails in order leaves no data file behind");
    }

    async fn killed_while_records_are_folded_the_chain_stays_whole(ground) {
        let site = Site::new(ground);
        site.drop_file(1);
        site.sync().await;
        for number in 2..=1_010 {
            site.drop_file(number);
        }
        let killed = site.sync_with("lake.summary.before", "return(kill)").await;
        assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
        let numbers: Vec<i64> = (1..=1_011).collect();
        site.drop_file(1_011);
        site.sync().await;
        site.assert_holds(&numbers, "lake.summary.before").await;
    }

    async fn two_processes_racing_for_one_table_load_each_file_once(ground) {
        let site = Site::new(ground);
        for number in 1..=5 {
            site.drop_file(number);
        }
        let racers = [Running::start(site.plain()), Running::start(site.plain())];
        for racer in racers {
            let output = tokio::task::spawn_blocking(|| racer.finish()).await.unwrap();
            assert!(output.status.success(), "{}", told(&output));
        }
        site.assert_holds(&[1, 2, 3, 4, 5], "the race").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_frozen_while_another_takes_over_does_no_harm_when_thawed() {
    let site = Site::new(Ground::bucket());
    site.drop_file(1);
    site.sync().await;
    let mut number = 1;
    for point in ["lake.lease.taken", "lake.data.written", "lake.record.written", "lake.commit.before"] {
        number += 1;
        site.drop_file(number);
        let mut frozen = Running::start(site.with_fault(point, "1*return(freeze)"));
        let frozen = tokio::task::spawn_blocking(move || {
            assert!(frozen.wait_frozen(), "the holder ended without being frozen");
            frozen
        });
        let frozen = frozen.await.unwrap();
        // Waits until the lease has expired, fences, cleans and loads.
        site.sync().await;
        let numbers: Vec<i64> = (1..=number).collect();
        site.assert_holds(&numbers, point).await;
        frozen.thaw();
        let output = tokio::task::spawn_blocking(|| frozen.finish()).await.unwrap();
        site.assert_holds(&numbers, &format!("{point}, thawed: {}", told(&output))).await;
        site.sync().await;
        site.assert_holds(&numbers, point).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_local_folder_a_frozen_holder_is_waited_for_and_named() {
    let site = Site::new(Ground::local());
    let text = site.configuration().replace("lease_wait = \"20s\"", "lease_wait = \"300ms\"");
    site.write("lakegate.toml", &text);
    site.drop_file(1);
    let mut frozen = Running::start(site.with_fault("lake.commit.before", "1*return(freeze)"));
    let frozen = tokio::task::spawn_blocking(move || {
        assert!(frozen.wait_frozen(), "the holder ended without being frozen");
        frozen
    });
    let frozen = frozen.await.unwrap();
    let refused = site.plain().output().unwrap();
    assert!(!refused.status.success());
    let text = told(&refused);
    assert!(text.contains(&frozen.0.id().to_string()), "who holds the lease is named: {text}");
    frozen.thaw();
    let output = tokio::task::spawn_blocking(|| frozen.finish()).await.unwrap();
    assert!(output.status.success(), "{}", told(&output));
    site.assert_holds(&[1], "the thaw").await;
}
