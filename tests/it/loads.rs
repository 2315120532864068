//! Loads end to end against the lake: each mode with each thing that can happen to a file, rejects, the write
//! budget, groups, changing columns and definitions, the schedule.

mod changes;
mod definitions;
mod events;
mod present;
mod schedule;
mod whole;

use crate::support::team::Team;
use lakegate::etl::TableOutcome;
use lakegate::journal::LoadStatus;

/// A table of csv files in a mode, with these further lines in `[load]`.
fn definition(mode: &str, more: &str) -> String {
    let key = if mode == "upsert" { "[table]\nkey = [\"id\"]\n" } else { "" };
    format!("[source]\nfiles = \"in/*.csv\"\n[load]\nmode = \"{mode}\"\n{more}\n{key}")
}

/// A team with the table `s.t`.
fn team(mode: &str, more: &str) -> Team {
    let team = Team::local();
    team.define("s.t", &definition(mode, more));
    team
}

/// A csv file with the columns `id` and `v`.
fn csv(rows: &[(i64, &str)]) -> String {
    rows.iter().fold("id,v\n".to_owned(), |text, (id, v)| format!("{text}{id},{v}\n"))
}

/// Loads, and makes sure that this was the outcome.
async fn sync(team: &Team, status: LoadStatus) -> TableOutcome {
    let outcome = team.sync_one().await;
    assert_eq!(outcome.record.status, status, "{outcome:?}");
    outcome
}

/// Why the load failed.
async fn failure(team: &Team) -> String {
    sync(team, LoadStatus::Failed).await.record.error.unwrap()
}
