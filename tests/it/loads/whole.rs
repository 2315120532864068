//! Whole loads from a source that can go on where it was cut off, told by a script in the place of a database.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use futures::StreamExt;
use lakegate::error::ErrorKind;
use lakegate::etl::{Loads, Silent, SyncOptions, TableOutcome};
use lakegate::journal::LoadStatus::{self, Committed, Failed, Unchanged};
use lakegate::model::{ChangeBatch, ChangeKind, Reject};
use lakegate::source::{Known, Reading, ReadingEnd, Source, SourceError, SourceEvent, Whole};
use serde_json::{Value, json};

use crate::support::team::Team;

pub(super) type Event = Result<SourceEvent, SourceError>;

type Script = (Option<Whole>, Vec<Event>);

/// Readings to be given one after the other, and what was known when each was asked for.
#[derive(Clone, Default)]
pub(super) struct Scripted {
    pub(super) readings: Arc<Mutex<VecDeque<Script>>>,
    pub(super) known: Arc<Mutex<Vec<Known>>>,
}

#[async_trait]
impl Source for Scripted {
    async fn open(&self, known: &Known) -> Result<Option<Reading>, SourceError> {
        self.known.lock().unwrap().push(known.clone());
        let Some((whole, events)) = self.readings.lock().unwrap().pop_front() else { return Ok(None) };
        Ok(Some(Reading {
            schema: rows(&[]).schema(),
            total_bytes: None,
            oldest_change: None,
            key: Some(vec!["id".to_owned()]),
            folding: vec![],
            whole,
            events: futures::stream::iter(events).boxed(),
        }))
    }
}

pub(super) fn rows(rows: &[(i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("v", texts, true)]).unwrap()
}

pub(super) fn change(kind: ChangeKind, changed: &[(i64, &str)]) -> Event {
    Ok(SourceEvent::Changes(ChangeBatch { kind, rows: rows(changed), file: None }))
}

pub(super) fn append(added: &[(i64, &str)]) -> Event {
    change(ChangeKind::Append, added)
}

pub(super) fn piece(position: i64) -> Event {
    Ok(SourceEvent::Piece(json!(position)))
}

pub(super) fn cut() -> Event {
    Err(SourceError::new(ErrorKind::InvalidInput, "the line was cut"))
}

pub(super) fn end(position: i64) -> Event {
    Ok(SourceEvent::End(ReadingEnd { position: json!(position), ..ReadingEnd::default() }))
}

/// A team with one table of a SQL Server that nobody reaches: the script stands in its place.
pub(super) fn team() -> Team {
    // Pieces are kept at once, not every half minute.
    fail::cfg("etl.whole.every", "return(error)").unwrap();
    let team = Team::local();
    team.configure(
        "[connections.ops]\ntype = \"sqlserver\"\nhost = \"localhost\"\ndatabase = \"d\"\nuser = \"u\"\npassword = { \
         file = \"key\" }\n",
    );
    team.define("s.t", "[source]\nconnection = \"ops\"\ntable = \"dbo.t\"\n");
    team
}

pub(super) async fn load(team: &Team, source: &Scripted, options: &SyncOptions) -> TableOutcome {
    let (settings, lake, journal, clock) = team.open().await;
    let source = source.clone();
    let open = move |_: &_, _| Ok(Box::new(source.clone()) as Box<dyn Source>);
    let loads = Loads::with_sources(settings, lake, journal, clock, Arc::new(open));
    loads.sync(&[], options, Arc::new(Silent)).await.unwrap().tables.remove(0)
}

/// Loads by one script and gives what was known before.
async fn run(team: &Team, whole: Whole, events: Vec<Event>, expected: LoadStatus) -> (Option<Value>, Option<Value>) {
    let source = Scripted::default();
    source.readings.lock().unwrap().push_back((Some(whole), events));
    let outcome = load(team, &source, &SyncOptions::default()).await;
    assert_eq!(outcome.record.status, expected, "{outcome:?}");
    let known = source.known.lock().unwrap().remove(0);
    (known.position, known.partial)
}

#[tokio::test]
async fn a_load_that_was_cut_off_goes_on_from_its_last_piece_and_nothing_is_seen_before_its_end() {
    let team = team();
    let first = vec![append(&[(1, "a"), (2, "b")]), piece(2), append(&[(3, "lost")]), cut()];
    assert_eq!(run(&team, Whole::Anew, first, Failed).await, (None, None));
    assert!(team.open().await.1.table(&"s.t".parse().unwrap()).snapshot().await.unwrap().is_none());

    let second = vec![append(&[(3, "c")]), piece(3), cut()];
    assert_eq!(run(&team, Whole::GoesOn, second, Failed).await, (None, Some(json!(2))));

    let third = vec![
        append(&[(4, "d")]),
        piece(4),
        change(ChangeKind::Upsert, &[(1, "A"), (5, "e")]),
        change(ChangeKind::Delete, &[(2, "")]),
        piece(5),
        end(9),
    ];
    assert_eq!(run(&team, Whole::GoesOn, third, Committed).await, (None, Some(json!(3))));
    assert_eq!(team.rows("s.t").await, ["1|A", "3|c", "4|d", "5|e"]);
    assert_eq!(run(&team, Whole::Anew, vec![cut()], Failed).await, (Some(json!(9)), None));
}

#[tokio::test]
async fn a_whole_load_takes_the_place_of_what_was_there_in_one_commit() {
    let team = team();
    run(&team, Whole::Anew, vec![append(&[(1, "a"), (2, "b")]), piece(1), end(1)], Committed).await;
    run(&team, Whole::Anew, vec![append(&[(7, "new")]), piece(2), cut()], Failed).await;
    assert_eq!(team.rows("s.t").await, ["1|a", "2|b"], "readers keep what was there");
    run(&team, Whole::Anew, vec![append(&[(8, "x")]), piece(3), end(3)], Committed).await;
    assert_eq!(team.rows("s.t").await, ["8|x"], "what was made before is thrown away");
    let snapshot = team.open().await.1.table(&"s.t".parse().unwrap()).snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot.version(), 1);
}

#[tokio::test]
async fn what_is_unchanged_is_not_written_and_rejects_of_every_piece_are_kept() {
    let team = team();
    let reject = |reason: &str| {
        let reject =
            Reject { file: "dbo.t".into(), line: None, column: None, reason: reason.to_owned(), raw: String::new() };
        Ok(SourceEvent::Rejects(vec![reject]))
    };
    let all: Vec<(i64, String)> = (0..20).map(|id| (id, id.to_string())).collect();
    let all: Vec<(i64, &str)> = all.iter().map(|(id, text)| (*id, text.as_str())).collect();
    let first = vec![append(&all), reject("too large"), piece(1), cut()];
    run(&team, Whole::Anew, first, Failed).await;
    run(&team, Whole::GoesOn, vec![append(&[(20, "z")]), reject("larger"), piece(2), end(2)], Committed).await;
    assert_eq!(team.rows("s.t").await.len(), 21);
    let chain = team.open().await.1.table(&"s.t".parse().unwrap()).chain().await.unwrap();
    let mut reasons: Vec<String> = chain.rejects().map(|reject| reject.unwrap().1.reason).collect().await;
    reasons.sort();
    assert_eq!(reasons, ["larger", "too large"]);

    let same = ReadingEnd { position: json!(3), unchanged: true, ..ReadingEnd::default() };
    let events = vec![append(&all), Ok(SourceEvent::End(same))];
    run(&team, Whole::Anew, events, Unchanged).await;
    assert_eq!(team.rows("s.t").await.len(), 21);
}

#[tokio::test]
async fn an_empty_table_is_a_table() {
    let team = team();
    run(&team, Whole::Anew, vec![end(1)], Committed).await;
    assert!(team.rows("s.t").await.is_empty());
    run(&team, Whole::Anew, vec![append(&[(1, "a")]), piece(2), end(2)], Committed).await;
    run(&team, Whole::Anew, vec![end(3)], Committed).await;
    assert!(team.rows("s.t").await.is_empty());
}
