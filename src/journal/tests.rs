//! The journal against a folder: nothing lost, nothing twice, whatever is folded when.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::fold::FOLD_AT;
use super::*;
use crate::config::TextsKept;
use crate::journal::LoadStatus;
use crate::model::Location;
use crate::runtime::clock::ManualClock;

fn settings(folder: &std::path::Path) -> LakeSettings {
    LakeSettings {
        location: Location::Local(folder.join("not there yet/../lake")),
        connection: None,
        target_file_size: 1 << 20,
        lease_lifetime: Duration::from_secs(60),
    }
}

fn journal(folder: &std::path::Path, clock: &ManualClock) -> Journal {
    Journal::open(&settings(folder), Arc::new(clock.clone())).unwrap()
}

fn clock() -> ManualClock {
    ManualClock::new(Utc::now() + TimeDelta::hours(1))
}

fn record(rows: u64, clock: &ManualClock) -> LoadRecord {
    LoadRecord {
        load_id: Uuid::now_v7(),
        table: "ops.orders".parse().unwrap(),
        started_at: clock.now(),
        ended_at: clock.now(),
        status: LoadStatus::Failed,
        rows_read: rows,
        rows_written: 0,
        rows_rejected: 0,
        bytes_read: 0,
        bytes_written: 0,
        version: None,
        attempt: None,
        position: Some(serde_json::json!({"files": 3})),
        error_kind: Some(crate::error::ErrorKind::Unavailable),
        error: Some("the disk is \"full\"\nreally".to_owned()),
        written: None,
    }
}

fn files(folder: &std::path::Path) -> BTreeSet<String> {
    let folder = folder.join("lake/_lakegate/journal/loads");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn rows(journal: &Journal) -> Vec<u64> {
    let mut rows: Vec<u64> = journal.loads().await.unwrap().iter().map(|load| load.rows_read).collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn a_load_survives_the_process_that_noted_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let first = journal(folder.path(), &clock);
    assert_eq!(first.loads().await.unwrap(), []);
    let noted = record(7, &clock);
    first.record_load(noted.clone());
    assert_eq!(first.loads().await.unwrap(), std::slice::from_ref(&noted), "before it is written");
    first.flush().await.unwrap();
    first.flush().await.unwrap();
    assert_eq!(files(folder.path()).len(), 1, "an empty batch writes nothing");
    assert_eq!(journal(folder.path(), &clock).loads().await.unwrap(), [noted]);
}

#[tokio::test]
async fn many_batches_are_folded_and_each_load_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let (one, two) = (journal(folder.path(), &clock), journal(folder.path(), &clock));
    let batches = FOLD_AT as u64 * (FOLD_AT as u64 + 2);
    for batch in 0..batches {
        let writer = if batch % 3 == 0 { &one } else { &two };
        writer.record_load(record(batch, &clock));
        writer.flush().await.unwrap();
        clock.advance(Duration::from_secs(600));
    }
    assert_eq!(rows(&journal(folder.path(), &clock)).await, (0..batches).collect::<Vec<_>>());
    let files = files(folder.path());
    assert!(files.len() < 3 * FOLD_AT, "{} segments are left", files.len());
    assert!(files.iter().any(|name| name.starts_with("2-")), "{files:?}");
}

#[tokio::test]
async fn replaced_segments_stay_for_readers_that_listed_them_and_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Utc::now());
    let journal = journal(folder.path(), &clock);
    for batch in 0..FOLD_AT as u64 {
        journal.record_load(record(batch, &clock));
        journal.flush().await.unwrap();
    }
    assert_eq!(files(folder.path()).len(), FOLD_AT + 1, "the bigger one and those it replaces");
    assert_eq!(rows(&journal).await, (0..FOLD_AT as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_fold_that_comes_too_late_does_not_double_anything() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let journal = journal(folder.path(), &clock);
    let mut early = None;
    let batches = FOLD_AT as u64 * (FOLD_AT as u64 + 2);
    for batch in 0..batches {
        journal.record_load(record(batch, &clock));
        journal.flush().await.unwrap();
        clock.advance(Duration::from_secs(600));
        let first = files(folder.path()).into_iter().find(|name| name.starts_with("1-"));
        if let (None, Some(name)) = (&early, first) {
            let path = folder.path().join("lake/_lakegate/journal/loads").join(&name);
            early = Some((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    let (path, bytes) = early.unwrap();
    assert!(!path.exists(), "the first fold was folded and deleted");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(rows(&journal).await, (0..batches).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_segment_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let journal = journal(folder.path(), &clock);
    journal.record_load(record(1, &clock));
    journal.flush().await.unwrap();
    let name = files(folder.path()).pop_first().unwrap();
    let path = folder.path().join("lake/_lakegate/journal/loads").join(&name);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = journal.loads().await.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(crate::error::Classify::kind(&error), crate::error::ErrorKind::DataLoss);
}

fn session(statements: u64, clock: &ManualClock) -> SessionRecord {
    SessionRecord {
        session_id: Uuid::new_v4(),
        principal: "ann".to_owned(),
        address: None,
        client: String::new(),
        started_at: clock.now(),
        used_at: clock.now(),
        ended_at: Some(clock.now()),
        end: Some(SessionEnd::Closed),
        statements,
        options: vec![],
    }
}

async fn sessions(journal: &Journal) -> Vec<u64> {
    let records: Vec<SessionRecord> = journal.sessions().await.unwrap().try_concat().await.unwrap();
    let mut numbers: Vec<u64> = records.iter().map(|record| record.statements).collect();
    numbers.sort_unstable();
    numbers
}

fn session_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.join("lake/_lakegate/journal/sessions")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn old_sessions_are_deleted_by_age_and_then_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(Utc::now());
    let journal = journal(folder.path(), &clock);
    let mut keep = HistorySettings { keep: Duration::from_secs(30 * 86_400), size: 1 << 20, texts: TextsKept::Full };
    let write = async |number: u64, keep: &HistorySettings| {
        journal.record_session(session(number, &clock));
        journal.flush_history(keep).await.unwrap();
        clock.advance(Duration::from_secs(601));
    };
    write(1, &keep).await;
    let first = std::fs::File::options().write(true).open(&session_files(folder.path())[0]).unwrap();
    first.set_modified(std::time::SystemTime::now() - Duration::from_secs(31 * 86_400)).unwrap();
    write(2, &keep).await;
    assert_eq!(sessions(&journal).await, [2], "the first is too old");
    write(3, &keep).await;
    assert_eq!(sessions(&journal).await, [2, 3]);
    keep.size = session_files(folder.path())[0].metadata().unwrap().len() * 3 / 2;
    write(4, &keep).await;
    assert_eq!(sessions(&journal).await, [4], "there is room for one");
}

#[tokio::test]
async fn what_runs_and_what_ended_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let journal = journal(folder.path(), &clock);
    let origin = QueryOrigin {
        query_id: Uuid::new_v4(),
        session_id: Uuid::new_v4(),
        principal: "ann".to_owned(),
        address: None,
        client: "a test".to_owned(),
        text: None,
        started_at: clock.now(),
    };
    let running = journal.running().enter(origin.query_id, Arc::new(RunningQuery::begin(origin.clone())));
    let record = QueryRecord { ended_at: Some(clock.now()), status: QueryStatus::Finished, ..running.now() };
    drop(running);
    journal.record_query(record.clone());
    assert!(journal.running().is_empty());
    let keep = HistorySettings { keep: Duration::from_secs(60), size: 1 << 20, texts: TextsKept::Full };
    journal.flush_history(&keep).await.unwrap();
    let told: Vec<QueryRecord> = journal.queries().await.unwrap().try_concat().await.unwrap();
    assert_eq!(told, [record]);
}
