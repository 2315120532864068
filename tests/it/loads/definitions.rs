//! Definitions that change, that cannot work, and sources that do not hold still.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use lakegate::error::ErrorKind;
use lakegate::etl::{Loads, Silent, SyncOptions};
use lakegate::source::files::FilesSource;
use lakegate::source::{Known, Reading, Source, SourceError};

use super::*;

use LoadStatus::{Committed, Unchanged};

fn reload() -> SyncOptions {
    SyncOptions { reload: true, ..SyncOptions::default() }
}

async fn reloaded(team: &Team) {
    let report = team.sync_with(&reload()).await;
    assert_eq!(report.tables[0].record.status, Committed, "{report:?}");
}

#[tokio::test]
async fn another_mode_that_needs_what_was_not_kept_is_refused_until_a_reload() {
    for (mode, reason) in [("mirror", "which file"), ("upsert", "share a key")] {
        let team = team("append", "");
        team.drop_file("in/a.csv", csv(&[(1, "a"), (1, "b")]));
        sync(&team, Committed).await;
        team.define("s.t", &definition(mode, ""));
        team.drop_file("in/b.csv", csv(&[(2, "c")]));
        let error = failure(&team).await;
        assert!(error.contains(reason) && error.contains("--reload"), "{error}");
        reloaded(&team).await;
        let expected: &[&str] = if mode == "upsert" { &["1|b", "2|c"] } else { &["1|a", "1|b", "2|c"] };
        assert_eq!(team.rows("s.t").await, expected);
        sync(&team, Unchanged).await;
        team.remove("in/a.csv");
        team.sync_one().await;
        let expected: &[&str] = if mode == "upsert" { &["1|b", "2|c"] } else { &["2|c"] };
        assert_eq!(team.rows("s.t").await, expected, "after the reload the mode is itself");
    }
}

#[tokio::test]
async fn another_key_is_refused_until_a_reload() {
    let team = team("upsert", "");
    team.drop_file("in/a.csv", csv(&[(1, "a"), (2, "a")]));
    sync(&team, Committed).await;
    team.define("s.t", &definition("upsert", "").replace("[\"id\"]", "[\"v\"]"));
    let error = failure(&team).await;
    assert!(error.contains("from (id) to (v)") && error.contains("--reload"), "{error}");
    reloaded(&team).await;
    assert_eq!(team.rows("s.t").await, ["2|a"]);
}

#[tokio::test]
async fn a_reload_takes_what_is_there_now_and_forgets_the_rest() {
    let team = team("append", "");
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    team.drop_file("in/b.csv", csv(&[(2, "b")]));
    sync(&team, Committed).await;
    team.remove("in/a.csv");
    team.drop_file("in/b.csv", csv(&[(2, "changed")]));
    reloaded(&team).await;
    assert_eq!(team.rows("s.t").await, ["2|changed"]);
    sync(&team, Unchanged).await;
    team.drop_file("in/a.csv", csv(&[(1, "a")]));
    sync(&team, Committed).await;
    assert_eq!(team.rows("s.t").await, ["1|a", "2|changed"], "what was forgotten is new");
}

#[tokio::test]
async fn a_key_that_is_not_among_the_columns_is_named() {
    let team = team("upsert", "");
    team.drop_file("in/a.csv", "identity,v\n1,a\n");
    let error = failure(&team).await;
    assert!(error.contains("`id`") && error.contains("identity") && error.contains("t.toml"), "{error}");
}

#[tokio::test]
async fn an_unknown_table_is_named_with_the_nearest_one() {
    let team = team("append", "");
    let asked = team.loads().await.sync(&["s.tt".parse().unwrap()], &reload(), Arc::new(Silent)).await;
    let error = asked.unwrap_err().to_string();
    assert!(error.contains("s.tt") && error.contains("`s.t`"), "{error}");
}

/// Files that change under the first two readings.
struct Unsteady {
    inner: FilesSource,
    left: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for Unsteady {
    async fn open(&self, known: &Known) -> Result<Option<Reading>, SourceError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(SourceError::new(ErrorKind::Conflict, "a file changed while it was read")),
            Err(_) => self.inner.open(known).await,
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_planned_anew_at_most_three_times() {
    for (failures, status) in [(2, Committed), (3, LoadStatus::Failed)] {
        let team = team("append", "");
        team.drop_file("in/a.csv", csv(&[(1, "a")]));
        let (settings, lake, journal, clock) = team.open().await;
        let left = Arc::new(AtomicUsize::new(failures));
        let open = move |definition: &_, clock| {
            let inner = FilesSource::new(definition, clock)?;
            Ok(Box::new(Unsteady { inner, left: Arc::clone(&left) }) as Box<dyn Source>)
        };
        let loads = Loads::with_sources(settings, lake, journal, clock, Arc::new(open));
        let report = loads.sync(&[], &SyncOptions::default(), Arc::new(Silent)).await.unwrap();
        assert_eq!(report.tables[0].record.status, status, "{report:?}");
    }
}
