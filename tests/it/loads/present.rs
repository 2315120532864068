//! Loads of what is present at a source, told by a script in the place of a database.

use std::sync::Arc;

use arrow::array::RecordBatch;
use lakegate::etl::{SyncOptions, TableOutcome};
use lakegate::journal::LoadStatus::{self, Committed, Unchanged};
use lakegate::model::{ChangeKind, ContentHash, KeyRange};
use lakegate::source::{ReadingEnd, SourceEvent, Whole};
use serde_json::json;

use super::whole::{Event, Scripted, append, change, end, load, piece, rows, team};
use crate::support::team::Team;

fn complete(after: Option<i64>, until: Option<i64>) -> Event {
    let key = |id: Option<i64>| id.map(|id| rows(&[(id, "")]).project(&[0]).unwrap());
    Ok(SourceEvent::Complete(KeyRange { after: key(after), until: key(until) }))
}

fn present(told: &[(i64, &str)]) -> Event {
    change(ChangeKind::Present, told)
}

async fn run(team: &Team, whole: Option<Whole>, events: Vec<Event>, expected: LoadStatus) -> (TableOutcome, Scripted) {
    let source = Scripted::default();
    source.readings.lock().unwrap().push_back((whole, events));
    let outcome = load(team, &source, &SyncOptions::default()).await;
    assert_eq!(outcome.record.status, expected, "{outcome:?}");
    (outcome, source)
}

async fn version(team: &Team) -> (u64, usize) {
    let snapshot = team.open().await.1.table(&"s.t".parse().unwrap()).snapshot().await.unwrap().unwrap();
    (snapshot.version(), snapshot.files())
}

#[tokio::test]
async fn what_is_present_in_a_whole_load_is_compared_with_what_came_before() {
    let team = team();
    let events = vec![
        append(&[(1, "a"), (2, "b"), (3, "c")]),
        piece(1),
        complete(None, Some(3)),
        present(&[(1, "a"), (2, "B"), (4, "d")]),
        change(ChangeKind::Upsert, &[(1, "A")]),
        end(2),
    ];
    run(&team, Some(Whole::Anew), events, Committed).await;
    assert_eq!(team.rows("s.t").await, ["1|A", "2|B", "4|d"]);
    // Without a row before it a piece need not be kept first, and what is present is put there.
    run(&team, Some(Whole::Anew), vec![complete(None, None), present(&[(7, "x")]), end(3)], Committed).await;
    assert_eq!(team.rows("s.t").await, ["7|x"]);
}

#[tokio::test]
async fn a_load_that_finds_no_difference_commits_its_position_and_no_rows() {
    let team = team();
    run(&team, None, vec![present(&[(1, "a"), (2, "b"), (3, "c")]), complete(None, None), end(1)], Committed).await;
    assert_eq!((team.rows("s.t").await.len(), version(&team).await), (3, (0, 1)));
    let same = || vec![complete(None, None), present(&[(1, "a"), (2, "b"), (3, "c")])];
    let at = |position| same().into_iter().chain([end(position)]).collect();

    let (outcome, _) = run(&team, None, at(1), Unchanged).await;
    assert_eq!((outcome.record.rows_read, outcome.record.rows_written), (3, 0));
    assert_eq!(version(&team).await, (0, 1), "the same position need not be written down again");

    let (outcome, _) = run(&team, None, at(2), Committed).await;
    assert_eq!((outcome.record.rows_read, outcome.record.rows_written, outcome.record.bytes_written), (3, 0, 0));
    assert_eq!(version(&team).await, (1, 1));

    let all_there = ReadingEnd { position: json!(3), unchanged: true, ..ReadingEnd::default() };
    run(&team, None, vec![Ok(SourceEvent::End(all_there))], Unchanged).await;
    let (_, source) = run(&team, None, vec![present(&[(2, "B")]), end(4)], Committed).await;
    assert_eq!(source.known.lock().unwrap()[0].position, Some(json!(2)));
    assert_eq!(team.rows("s.t").await, ["1|a", "2|B", "3|c"]);
}

#[tokio::test]
async fn rows_go_when_a_range_is_complete_and_empty() {
    let team = team();
    run(&team, None, vec![present(&[(1, "a"), (2, "b"), (3, "c")]), end(1)], Committed).await;
    let (outcome, _) = run(&team, None, vec![complete(Some(1), Some(2)), end(1)], Committed).await;
    assert_eq!((outcome.record.rows_read, outcome.record.rows_written), (0, 0));
    assert_eq!(team.rows("s.t").await, ["1|a", "3|c"]);
    run(&team, None, vec![complete(None, None), end(1)], Committed).await;
    assert!(team.rows("s.t").await.is_empty());
}

#[tokio::test]
async fn a_source_may_ask_for_the_rows_of_the_lake() {
    let team = team();
    let (_, source) = run(&team, None, vec![present(&[(1, "a"), (2, "b"), (3, "c")]), end(1)], Committed).await;
    assert!(source.known.lock().unwrap()[0].rows.is_none());
    let (_, source) = run(&team, None, vec![present(&[(4, "d")]), end(2)], Committed).await;
    let lake = source.known.lock().unwrap()[0].rows.clone().unwrap();
    // What was known then, whatever was written since.
    assert_eq!(lake.count(), Some(3));
    let keys = rows(&[(1, ""), (3, ""), (4, ""), (1, "")]).project(&[0]).unwrap();
    assert_eq!(lake.present(std::slice::from_ref(&keys), &[]).await.unwrap(), 2);
    let hash = |rows: RecordBatch| {
        let mut hash = ContentHash::new(&rows.schema()).unwrap();
        hash.add(&rows).unwrap();
        hash.to_string()
    };
    let schema = rows(&[]).schema();
    let all = lake.content(&schema, &KeyRange::default(), &[], &[]).await.unwrap();
    assert_eq!(all.to_string(), hash(rows(&[(3, "c"), (1, "a"), (2, "b")])));
    let but = lake.content(&schema, &KeyRange::default(), &[keys], &[]).await.unwrap();
    assert_eq!(but.to_string(), hash(rows(&[(2, "b")])));
    let Ok(SourceEvent::Complete(range)) = complete(Some(1), Some(2)) else { unreachable!() };
    let texts = Arc::new(schema.project(&[1]).unwrap());
    let part = lake.content(&texts, &range, &[], &[]).await.unwrap();
    assert_eq!(part.to_string(), hash(rows(&[(2, "b")]).project(&[1]).unwrap()));
}
