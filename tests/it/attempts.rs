//! The protocol of attempts: each row exactly once, whatever fails and whoever else writes.
//!
//! The rows are written by hand (`support/hand.rs`) and read by plain delta-rs (`support/truth.rs`), so
//! that nothing but the protocol is tested. The program killed at each fault point: `faults.rs`.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::TryStreamExt;
use lakegate::error::{Classify, ErrorKind};
use lakegate::lake::{At, LakeTable, Staged};
use lakegate::runtime::clock::{Clock, ManualClock, SystemClock};
use object_store::ObjectStoreExt;
use tokio::sync::Notify;

use crate::support::faulty::{Fault, FaultyStore, Request};
use crate::support::ground::Ground;
use crate::support::hand::{commit, facts, load, load_under, reject, staged, table_name};
use crate::support::{on_both_grounds, truth};

const LONG: Duration = Duration::from_secs(20);

async fn fresh(ground: &Ground) -> LakeTable {
    ground.lake().await.table(&table_name())
}

/// A table reached through a store that can be told to fail.
async fn faulty(ground: &Ground) -> (Arc<FaultyStore>, LakeTable) {
    let store = FaultyStore::new(ground.store());
    let lake = ground.lake_through(Arc::clone(&store) as _, Arc::new(SystemClock)).await;
    (store, lake.table(&table_name()))
}

async fn file_names(table: &LakeTable) -> Vec<String> {
    let mut names: Vec<String> = table.chain().await.unwrap().files().keys().cloned().collect();
    names.sort();
    names
}

on_both_grounds! {
    async fn what_lands_is_there_for_everybody(ground) {
        let table = fresh(&ground).await;
        assert!(table.snapshot().await.unwrap().is_none());
        assert!(table.chain().await.unwrap().attempt().is_none());
        let first = load(&ground, &table, "a", &[1, 2]).await.unwrap();
        let second = load(&ground, &table, "b", &[3]).await.unwrap();
        assert_eq!((first.version, first.attempt), (0, 1));
        assert_eq!((second.version, second.attempt), (1, 2));
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2, 3]);
        let other = fresh(&ground).await;
        assert_eq!(other.snapshot().await.unwrap().unwrap().transaction(), Some(2));
        assert_eq!(file_names(&other).await, ["a", "b"]);
        let chain = other.chain().await.unwrap();
        assert_eq!(chain.position(), Some(&serde_json::json!({ "file": "b" })));
        assert_eq!(chain.definition_hash(), Some("definition"));
    }

    async fn an_abandoned_attempt_leaves_no_trace_and_a_good_one_follows(ground) {
        let table = fresh(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let lease = table.lease("test", LONG).await.unwrap();
        let mut abandoned = table.begin(&lease).await.unwrap();
        abandoned.reject(&[reject("b", 1)]).await.unwrap();
        drop(abandoned);
        load_under(&ground, &table, &lease, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
        assert_eq!(table.chain().await.unwrap().rejected_rows(), 0);
    }

    async fn rejects_are_visible_if_and_only_if_their_attempt_landed(ground) {
        let (store, table) = faulty(&ground).await;
        let lease = table.lease("test", LONG).await.unwrap();
        let mut good = table.begin(&lease).await.unwrap();
        good.reject(&[reject("a", 1), reject("a", 2)]).await.unwrap();
        good.reject(&[reject("a", 3)]).await.unwrap();
        commit(&ground, good, "a", &[1]).await.unwrap();
        let mut bad = table.begin(&lease).await.unwrap();
        bad.reject(&[reject("b", 9)]).await.unwrap();
        store.fail(Request::Put, "attempts", 1, Fault::FailBefore);
        commit(&ground, bad, "b", &[2]).await.unwrap_err();
        let mut again = table.begin(&lease).await.unwrap();
        again.reject(&[reject("b", 5)]).await.unwrap();
        let landed = commit(&ground, again, "b", &[2]).await.unwrap();
        let found: Vec<_> = fresh(&ground).await.chain().await.unwrap().rejects().try_collect().await.unwrap();
        let lines: Vec<_> = found.iter().map(|(attempt, reject)| (*attempt, reject.line.unwrap())).collect();
        assert_eq!(lines, [(landed.attempt, 5), (1, 1), (1, 2), (1, 3)], "newest attempt first");
        assert_eq!(found[1].1, reject("a", 1));
        assert_eq!(truth::own(&ground, &table_name(), "rejects").await.len(), 2, "nothing of the bad one is left");
    }

    async fn a_commit_whose_answer_is_lost_has_landed(ground) {
        let (store, table) = faulty(&ground).await;
        for (number, fault) in [Fault::FailAfter, Fault::Repeated, Fault::FailAfter].into_iter().enumerate() {
            store.fail(Request::Put, "_delta_log", 1, fault);
            let landed = load(&ground, &table, &format!("f{number}"), &[number as i64]).await.unwrap();
            assert_eq!(landed.version, number as u64);
        }
        assert_eq!(truth::rows(&ground, &table_name()).await, [0, 1, 2]);
    }

    async fn a_record_whose_answer_is_lost_was_written(ground) {
        let (store, table) = faulty(&ground).await;
        store.fail(Request::Put, "_lakegate/attempts", 1, Fault::FailAfter);
        load(&ground, &table, "a", &[1]).await.unwrap();
        store.fail(Request::Put, "_lakegate/attempts", 1, Fault::Repeated);
        load(&ground, &table, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    }

    async fn a_commit_that_failed_changes_nothing_and_the_next_one_does(ground) {
        let (store, table) = faulty(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        store.fail(Request::Put, "_delta_log", 1, Fault::FailBefore);
        let error = load(&ground, &table, "b", &[2]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 1, "its data file is removed");
        let landed = load(&ground, &table, "b", &[2]).await.unwrap();
        assert_eq!(landed.attempt, 3, "the number of a void attempt is never used again");
        assert_eq!(landed.version, 2, "an empty version stands where the lost one might still have come");
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    }

    async fn a_late_commit_cannot_land_after_its_failure_was_reported(ground) {
        // The put of the log entry is held on its way, as in a network that delivers it minutes later, while
        // the writer is told that it failed. Nobody can tell that from a lost request at that moment.
        let (store, table) = faulty(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let late = ground.table_path(&table_name()).join("_delta_log").join("00000000000000000001.json");
        store.fail(Request::Put, "_delta_log/00000000000000000001.json", 1, Fault::FailBefore);
        load(&ground, &table, "b", &[2]).await.unwrap_err();
        let create = object_store::PutOptions { mode: object_store::PutMode::Create, ..Default::default() };
        let arrives = ground.store().put_opts(&late, "{}".into(), create).await;
        assert!(matches!(arrives, Err(object_store::Error::AlreadyExists { .. })), "{arrives:?}");
        load(&ground, &table, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    }

    async fn an_unknown_outcome_is_said_so_and_found_out_by_the_next_load(ground) {
        let (store, table) = faulty(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let lease = table.lease("test", LONG).await.unwrap();
        let attempt = table.begin(&lease).await.unwrap();
        store.fail(Request::Put, "_delta_log", 1, Fault::FailAfter);
        store.fail(Request::Put, "_delta_log", 100, Fault::FailBefore);
        store.fail(Request::Get, "_delta_log/00000000000000000001.json", 100, Fault::FailBefore);
        let error = commit(&ground, attempt, "b", &[2]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("it is not known whether"), "{error}");
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 2, "its data file may count: it stays");
        lease.release().await;
        store.heal();
        load(&ground, &table, "b", &[2]).await.unwrap();
        load(&ground, &fresh(&ground).await, "c", &[3]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2, 3]);
    }

    async fn the_first_commit_of_a_table_may_get_lost_too(ground) {
        let (store, table) = faulty(&ground).await;
        store.fail(Request::Put, "_delta_log", 1, Fault::FailBefore);
        let error = load(&ground, &table, "a", &[1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(truth::open(&ground, &table_name()).await.is_none(), "a failed first load leaves no table");
        let landed = load(&ground, &table, "a", &[1]).await.unwrap();
        assert_eq!((landed.version, landed.attempt), (0, 2));
        load(&ground, &table, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    }

    async fn work_after_the_commit_may_fail(ground) {
        let (store, table) = faulty(&ground).await;
        store.fail(Request::Put, "checkpoint", 100, Fault::FailBefore);
        for number in 0..12 {
            load(&ground, &table, &format!("f{number}"), &[number]).await.unwrap();
        }
        assert_eq!(truth::rows(&ground, &table_name()).await, (0..12).collect::<Vec<_>>());
        store.heal();
        for number in 12..24 {
            load(&ground, &table, &format!("f{number}"), &[number]).await.unwrap();
        }
        assert_eq!(truth::rows(&ground, &table_name()).await, (0..24).collect::<Vec<_>>());
        assert_eq!(file_names(&fresh(&ground).await).await.len(), 24);
    }

    async fn a_caller_that_stops_waiting_does_not_cut_a_commit_in_the_middle(ground) {
        let (store, table) = faulty(&ground).await;
        let (begun, go_on) = store.hold("_lakegate/attempts");
        let lease = table.lease("test", LONG).await.unwrap();
        let attempt = table.begin(&lease).await.unwrap();
        let staged = staged(&ground, &table_name(), &[1], true).await;
        tokio::select! {
            _ = attempt.commit(staged, facts("a")) => panic!("the record was not held"),
            () = begun.notified() => {}
        }
        lease.release().await;
        let other = fresh(&ground).await;
        assert!(other.lease("other", Duration::from_millis(50)).await.is_err(), "the commit under way keeps the lease");
        go_on.notify_one();
        load(&ground, &other, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    }

    async fn two_writers_racing_for_one_table_load_each_file_once(ground) {
        let ground = Arc::new(ground);
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let ground = Arc::clone(&ground);
            writers.spawn(async move {
                let table = fresh(&ground).await;
                for file in 0..6 {
                    load(&ground, &table, &format!("f{file}"), &[file]).await.unwrap();
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        assert_eq!(truth::rows(&ground, &table_name()).await, [0, 1, 2, 3, 4, 5]);
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 6);
    }

    async fn whoever_waits_in_vain_is_told_who_holds_the_lease(ground) {
        let (table, other) = (fresh(&ground).await, fresh(&ground).await);
        let lease = table.lease("the nightly load", LONG).await.unwrap();
        let error = other.lease("me too", Duration::from_millis(100)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.to_string();
        assert!(text.contains("the nightly load") && text.contains(&std::process::id().to_string()), "{text}");
        lease.release().await;
        other.lease("me too", LONG).await.unwrap().release().await;
    }

    async fn a_foreign_commit_in_between_is_a_conflict(ground) {
        let table = fresh(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let lease = table.lease("test", LONG).await.unwrap();
        let attempt = table.begin(&lease).await.unwrap();
        let foreign = truth::open(&ground, &table_name()).await.unwrap();
        foreign.optimize().await.unwrap();
        foreign_commit(&ground).await;
        let error = commit(&ground, attempt, "b", &[2]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        load_under(&ground, &table, &lease, "b", &[2]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2, 77]);
    }

    async fn a_restore_or_an_overwrite_by_another_tool_is_named(ground) {
        let table = fresh(&ground).await;
        for file in 0..3 {
            load(&ground, &table, &format!("f{file}"), &[file]).await.unwrap();
        }
        let foreign = truth::open(&ground, &table_name()).await.unwrap();
        foreign.restore().with_version_to_restore(1).await.unwrap();
        let error = load(&ground, &table, "f3", &[3]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss);
        assert!(error.to_string().contains("version 3 restored version 1"), "{error}");
        let error = load(&ground, &fresh(&ground).await, "f3", &[3]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "also when asked anew");
        let foreign = truth::open(&ground, &table_name()).await.unwrap();
        foreign.restore().with_version_to_restore(2).await.unwrap();
        load(&ground, &table, "f3", &[3]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [0, 1, 2, 3], "restoring it again is the way out");
        let foreign = truth::open(&ground, &table_name()).await.unwrap();
        let batch = ids(&[9]);
        foreign.write([batch]).with_save_mode(deltalake::protocol::SaveMode::Overwrite).await.unwrap();
        let error = load(&ground, &table, "f4", &[4]).await.unwrap_err();
        assert!(error.to_string().contains("overwrote"), "{error}");
    }

    async fn a_table_that_another_tool_made_is_left_alone(ground) {
        truth::plain(&ground, &table_name()).write([ids(&[5])]).await.unwrap();
        let error = load(&ground, &fresh(&ground).await, "a", &[1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("another tool"), "{error}");
        assert_eq!(truth::rows(&ground, &table_name()).await, [5]);
    }

    async fn long_chains_are_folded_and_give_the_same_answers(ground) {
        let (store, table) = faulty(&ground).await;
        for number in 0..70 {
            if number % 9 == 0 {
                store.fail(Request::Put, "_delta_log", 1, Fault::FailBefore);
                let _ = load(&ground, &table, "never", &[-1]).await;
            }
            let lease = table.lease("test", LONG).await.unwrap();
            let mut attempt = table.begin(&lease).await.unwrap();
            attempt.reject(&[reject("r", number)]).await.unwrap();
            let mut facts = facts(&format!("f{number}"));
            if number == 50 {
                facts.forgotten_files.push("f0".to_owned());
            }
            let staged = staged(&ground, &table_name(), &[number as i64], attempt.snapshot().is_none()).await;
            attempt.commit(staged, facts).await.unwrap();
            lease.release().await;
        }
        let records = truth::own(&ground, &table_name(), "attempts").await.len();
        assert!(records < 40, "{records} records are left of 78");
        assert_eq!(truth::own(&ground, &table_name(), "summaries").await.len(), 1);
        let chain = fresh(&ground).await.chain().await.unwrap();
        assert_eq!(chain.files().len(), 69);
        assert!(!chain.files().contains_key("f0"));
        assert_eq!(chain.rejected_rows(), 70);
        let rejects: Vec<_> = chain.rejects().try_collect().await.unwrap();
        assert_eq!(rejects.len(), 70);
        assert_eq!(truth::rows(&ground, &table_name()).await, (0..70).collect::<Vec<_>>());
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 70);
    }

    async fn a_commit_may_record_facts_only(ground) {
        let table = fresh(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let lease = table.lease("test", LONG).await.unwrap();
        let attempt = table.begin(&lease).await.unwrap();
        let landed = attempt.commit(Staged::nothing(), facts("b")).await.unwrap();
        assert_eq!(landed.version, 1);
        assert_eq!(file_names(&fresh(&ground).await).await, ["a", "b"]);
        assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
    }

    async fn versions_are_found_by_number_and_by_commit_time(ground) {
        let table = fresh(&ground).await;
        let before = Utc::now() - TimeDelta::seconds(1);
        load(&ground, &table, "a", &[1]).await.unwrap();
        load(&ground, &table, "b", &[2]).await.unwrap();
        let first = table.snapshot_at(At::Version(0)).await.unwrap();
        assert_eq!((first.version(), first.files()), (0, 1));
        let time = first.committed_at().unwrap();
        assert_eq!(table.snapshot_at(At::Time(time)).await.unwrap().version(), 0);
        assert_eq!(table.snapshot_at(At::Time(Utc::now())).await.unwrap().version(), 1);
        for at in [At::Version(2), At::Time(before)] {
            assert_eq!(table.snapshot_at(at).await.err().unwrap().kind(), ErrorKind::NotFound, "{at:?}");
        }
    }

    async fn a_table_that_was_moved_away_begins_anew(ground) {
        let table = fresh(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        load(&ground, &table, "b", &[2]).await.unwrap();
        let root = ground.table_path(&table_name());
        let objects: Vec<_> = ground.store().list(Some(&root)).try_collect().await.unwrap();
        for object in objects {
            let object: object_store::ObjectMeta = object;
            ground.store().delete(&object.location).await.unwrap();
        }
        assert!(table.snapshot().await.unwrap().is_none());
        load(&ground, &table, "a", &[1]).await.unwrap();
        assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
        assert_eq!(file_names(&table).await, ["a"]);
    }

    async fn groups_are_published_as_a_whole_and_never_go_back(ground) {
        let lake = ground.lake().await;
        let (one, two) = (table_name(), "s.two".parse().unwrap());
        let group = |versions: [u64; 2]| [(Clone::clone(&one), versions[0]), (Clone::clone(&two), versions[1])].into();
        assert_eq!(lake.manifests().newest("g").await.unwrap(), None);
        lake.manifests().publish("g", group([3, 5])).await.unwrap();
        lake.manifests().publish("h", [(Clone::clone(&one), 1)].into()).await.unwrap();
        let other = ground.lake().await;
        assert_eq!(other.manifests().newest("g").await.unwrap(), Some(group([3, 5])));
        for version in 6..40 {
            lake.manifests().publish("g", group([3, version])).await.unwrap();
        }
        assert_eq!(other.manifests().newest("g").await.unwrap(), Some(group([3, 39])));
        assert_eq!(ground.lake().await.manifests().newest("h").await.unwrap().map(|h| h.len()), Some(1));
    }

    async fn racing_publishers_lose_no_group(ground) {
        let ground = Arc::new(ground);
        let mut publishers = tokio::task::JoinSet::new();
        for publisher in 0..4 {
            let ground = Arc::clone(&ground);
            publishers.spawn(async move {
                let lake = ground.lake().await;
                let versions = [("s.t".parse().unwrap(), publisher)].into();
                lake.manifests().publish(&format!("g{publisher}"), versions).await.unwrap();
            });
        }
        while let Some(done) = publishers.join_next().await {
            done.unwrap();
        }
        assert_eq!(ground.lake().await.manifests().all().await.unwrap().len(), 4);
    }
}

fn ids(rows: &[i64]) -> arrow::array::RecordBatch {
    let column = Arc::new(arrow::array::Int64Array::from(rows.to_vec())) as arrow::array::ArrayRef;
    arrow::array::RecordBatch::try_from_iter_with_nullable([("id", column, true)]).unwrap()
}

/// Another tool adds a row.
async fn foreign_commit(ground: &Ground) {
    let table = truth::open(ground, &table_name()).await.unwrap();
    table.write([ids(&[77])]).await.unwrap();
}

/// Moves a lease's holder out of the way: what it wrote stays, it says nothing more, and its own clock stands.
struct Frozen {
    store: Arc<FaultyStore>,
    table: LakeTable,
}

async fn frozen(ground: &Ground) -> Frozen {
    let store = FaultyStore::new(ground.store());
    let clock = Arc::new(ManualClock::new(Utc::now()));
    let lake = ground.lake_through(Arc::clone(&store) as _, clock).await;
    Frozen { store, table: lake.table(&table_name()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_lease_is_taken_over_and_the_old_holders_late_commit_fails() {
    let ground = Ground::bucket();
    load(&ground, &fresh(&ground).await, "a", &[1]).await.unwrap();
    let old = frozen(&ground).await;
    let (begun, go_on) = old.store.hold("_delta_log/00000000000000000001.json");
    let lease = old.table.lease("frozen", LONG).await.unwrap();
    let attempt = old.table.begin(&lease).await.unwrap();
    let staged = staged(&ground, &table_name(), &[2], false).await;
    let late = tokio::spawn(attempt.commit(staged, facts("b")));
    begun.notified().await;

    let clock = ManualClock::new(Utc::now());
    let lake = ground.lake_at(Arc::new(clock.clone())).await;
    let table = lake.table(&table_name());
    let held = table.lease("taker", Duration::ZERO).await.err().unwrap();
    assert!(held.to_string().contains("frozen"), "{held}");
    clock.advance(ground.settings.lease_lifetime + Duration::from_secs(1));
    let taken = table.lease("taker", LONG).await.unwrap();
    // Beginning alone has to stop the old holder: the taker may clean before it commits anything of its own.
    drop(table.begin(&taken).await.unwrap());

    go_on.notify_one();
    let error = late.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
    assert!(lease.check().await.is_err(), "the old holder knows now");
    load_under(&ground, &table, &taken, "b", &[2]).await.unwrap();
    assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2]);
    taken.release().await;
    load(&ground, &table, "c", &[3]).await.unwrap();
    assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_first_commits_the_first_to_arrive_makes_the_table() {
    for old_is_first in [true, false] {
        let ground = Ground::bucket();
        let old = frozen(&ground).await;
        let (begun, go_on) = old.store.hold("_delta_log/00000000000000000000.json");
        let lease = old.table.lease("frozen", LONG).await.unwrap();
        let attempt = old.table.begin(&lease).await.unwrap();
        let late_data = staged(&ground, &table_name(), &[1], true).await;
        let late = tokio::spawn(attempt.commit(late_data, facts("a")));
        begun.notified().await;

        let clock = ManualClock::new(Utc::now());
        let lake = ground.lake_at(Arc::new(clock.clone())).await;
        let table = lake.table(&table_name());
        table.lease("taker", Duration::ZERO).await.err().unwrap();
        clock.advance(ground.settings.lease_lifetime + Duration::from_secs(1));
        let taken = table.lease("taker", LONG).await.unwrap();
        let attempt = table.begin(&taken).await.unwrap();
        let go_on = async || {
            go_on.notify_one();
            late.await.unwrap()
        };
        if old_is_first {
            go_on().await.unwrap();
            commit(&ground, attempt, "a", &[1]).await.unwrap_err();
            load_under(&ground, &table, &taken, "a", &[1]).await.unwrap();
        } else {
            commit(&ground, attempt, "a", &[1]).await.unwrap();
            go_on().await.unwrap_err();
        }
        assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_lease_is_not_taken_over() {
    let mut ground = Ground::bucket();
    ground.settings.lease_lifetime = Duration::from_millis(600);
    let (table, other) = (fresh(&ground).await, fresh(&ground).await);
    let lease = table.lease("long", LONG).await.unwrap();
    let error = other.lease("short", Duration::from_millis(2_500)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    lease.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_that_panicked_the_next_holder_cleans_up() {
    let ground = Ground::local();
    let (store, table) = faulty(&ground).await;
    let now = Arc::new(Notify::new());
    now.notify_one();
    store.fail(Request::Put, "_lakegate/attempts", 1, Fault::Panic(Arc::default(), now));
    let lease = table.lease("test", LONG).await.unwrap();
    let attempt = table.begin(&lease).await.unwrap();
    commit(&ground, attempt, "a", &[1]).await.unwrap_err();
    lease.release().await;
    let mark = ground.table_folder(&table_name()).join("_lakegate").join("lease");
    let mark = std::fs::read_to_string(mark).unwrap();
    assert!(mark.contains(r#""released":true,"unclean":true"#), "{mark}");
    load(&ground, &table, "a", &[1]).await.unwrap();
    assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_off_once_its_record_is_there_keeps_nobody_out() {
    let ground = Ground::bucket();
    assert!(ground.settings.lease_lifetime > LONG, "it does not just expire");
    let (store, table) = faulty(&ground).await;
    let (done, go_on) = store.hold_answer("_lakegate/lease");
    let claiming = tokio::spawn(async move { table.lease("cut off", LONG).await.map(drop) });
    done.notified().await;
    claiming.abort();
    assert!(claiming.await.unwrap_err().is_cancelled());
    go_on.notify_one();
    let next = fresh(&ground).await;
    load(&ground, &next, "a", &[1]).await.unwrap();
    assert_eq!(truth::rows(&ground, &table_name()).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_could_not_renew_refuses_to_commit() {
    let ground = Ground::bucket();
    let clock = ManualClock::new(Utc::now());
    let lake = ground.lake_at(Arc::new(clock.clone())).await;
    let table = lake.table(&table_name());
    let lease = table.lease("test", LONG).await.unwrap();
    let attempt = table.begin(&lease).await.unwrap();
    clock.advance(ground.settings.lease_lifetime);
    let error = commit(&ground, attempt, "a", &[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(truth::open(&ground, &table_name()).await.is_none());
    assert!(truth::data_files(&ground, &table_name()).await.is_empty());
}

on_both_grounds! {
    async fn what_a_dead_holder_left_is_cleaned_and_what_lives_is_not(ground) {
        let table = fresh(&ground).await;
        load(&ground, &table, "a", &[1]).await.unwrap();
        let orphan = staged(&ground, &table_name(), &[666], false).await;
        drop(orphan);
        let own = ground.table_path(&table_name()).join("_lakegate").join("rejects").join("orphan.ndjson.zst");
        ground.store().put(&own, "x".into()).await.unwrap();
        die_in_the_middle(&ground).await;
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 3);

        // An hour has not passed: only what a record names is removed.
        let clock = ManualClock::new(Utc::now());
        clock.advance(ground.settings.lease_lifetime * 2);
        let table = ground.lake_at(Arc::new(clock.clone())).await.table(&table_name());
        after_expiry(&ground, &clock, &table).await;
        load(&ground, &table, "b", &[2]).await.unwrap();
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 3, "a, b and the orphan");
        clock.advance(Duration::from_secs(2 * 3600));
        load(&ground, &table, "c", &[3]).await.unwrap();
        assert_eq!(truth::data_files(&ground, &table_name()).await.len(), 3, "a, b and c");
        assert!(truth::own(&ground, &table_name(), "rejects").await.is_empty());
        assert_eq!(truth::rows(&ground, &table_name()).await, [1, 2, 3]);
    }
}

/// A holder whose store stops answering right after its record, and that is then gone without a word.
async fn die_in_the_middle(ground: &Ground) {
    let (store, table) = faulty(ground).await;
    let lease = table.lease("dying", LONG).await.unwrap();
    let attempt = table.begin(&lease).await.unwrap();
    for request in [Request::Put, Request::Get] {
        store.fail(request, "_delta_log", 1000, Fault::FailBefore);
    }
    store.fail(Request::Put, "_lakegate/lease", 1000, Fault::FailBefore);
    let error = commit(ground, attempt, "b", &[2]).await.unwrap_err();
    assert!(error.to_string().contains("it is not known whether"), "{error}");
    lease.release().await;
}

/// On an object store: waits, by the clock, until the lease of a holder that is gone has expired.
async fn after_expiry(ground: &Ground, clock: &ManualClock, table: &LakeTable) {
    if ground.is_remote() {
        table.lease("test", Duration::ZERO).await.err().unwrap();
        clock.advance(ground.settings.lease_lifetime + Duration::from_secs(1));
    }
    assert!(clock.now() > Utc::now());
}
