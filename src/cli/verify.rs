//! `lakegate verify`: compares tables with their sources, and tells what differs and what to do.

use std::io::Write;
use std::sync::Arc;

use indicatif::{HumanCount, MultiProgress};

use crate::cli::CliError;
use crate::cli::arguments::{Common, Verify};
use crate::cli::bars::Bars;
use crate::cli::output::columns;
use crate::cli::program::{self, Chatter, Program};
use crate::cli::signals;
use crate::config::TableSource;
use crate::etl::{Loads, VerifyOptions, VerifyReport};
use crate::journal::{VerificationRecord, VerificationStatus};

/// Ranges told of one table; all of them stand in `system.verifications`.
const MOST_RANGES: usize = 10;

pub(super) fn run(common: &Common, arguments: &Verify) -> Result<(), CliError> {
    let bars = MultiProgress::new();
    let settings = program::settings(common, Chatter::Quiet, &bars)?;
    let from_databases = |table: &&crate::config::TableDefinition| matches!(table.source, TableSource::SqlServer(_));
    if arguments.tables.is_empty() && !settings.tables.values().any(|table| from_databases(&table)) {
        return Err(CliError::Usage(
            "no table is defined that comes from SQL Server, and only such tables can be verified".to_owned(),
        ));
    }
    let report = program::runtime(settings.limits.threads.get())?.block_on(async {
        let stop = signals::listen()?;
        let program = Program::open(Arc::clone(&settings)).await?;
        let progress = Arc::new(Bars::new(bars, settings.tables.keys()));
        let loads = Loads::new(settings, program.lake, program.journal, program.clock);
        let options = VerifyOptions { repair: arguments.repair, stop };
        loads.verify(&arguments.tables, &options, progress).await.map_err(|error| CliError::Usage(error.to_string()))
    })?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let text = serde_json::to_string_pretty(&report.tables).map_err(|error| CliError::failed(&error))?;
        writeln!(out, "{text}").map_err(CliError::stdout)?;
    } else {
        tell(&mut out, &report).map_err(CliError::stdout)?;
    }
    out.flush().map_err(CliError::stdout)?;
    for problem in &report.problems {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "lakegate: {problem}");
    }
    if report.is_success() { Ok(()) } else { Err(CliError::Told) }
}

/// The summary, and under it of each table what has to be known.
fn tell(out: &mut impl Write, report: &VerifyReport) -> std::io::Result<()> {
    let head = ["table", "status", "version", "rows compared", "left out", "ranges", "differing", "seconds"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.tables.iter().map(summary));
    columns::write(out, &rows, &[false, false, true, true, true, true, true, true])?;
    for record in &report.tables {
        tell_table(out, record)?;
    }
    Ok(())
}

fn summary(record: &VerificationRecord) -> Vec<String> {
    let took = (record.ended_at - record.started_at).as_seconds_f64();
    vec![
        record.table.to_string(),
        status(record.status).to_owned(),
        record.version.map(|version| version.to_string()).unwrap_or_default(),
        HumanCount(record.rows).to_string(),
        HumanCount(record.left_out).to_string(),
        HumanCount(record.ranges).to_string(),
        HumanCount(record.differences.len() as u64).to_string(),
        format!("{took:.1}"),
    ]
}

fn status(status: VerificationStatus) -> &'static str {
    match status {
        VerificationStatus::Same => "the same",
        VerificationStatus::Differs => "DIFFERS",
        VerificationStatus::Repaired => "repaired",
        VerificationStatus::Failed => "FAILED",
    }
}

fn tell_table(out: &mut impl Write, record: &VerificationRecord) -> std::io::Result<()> {
    let table = &record.table;
    for note in &record.notes {
        writeln!(out, "{table}: {note}")?;
    }
    if let Some(error) = &record.error {
        writeln!(out, "{table}: failed: {error}")?;
    }
    for difference in record.differences.iter().take(MOST_RANGES) {
        let rows = |side: &str| HumanCount(difference[side].as_u64().unwrap_or_default());
        writeln!(
            out,
            "{table}: {}: {} rows in the database, {} in the lake",
            range(&record.key, difference),
            rows("source_rows"),
            rows("lake_rows")
        )?;
    }
    if record.differences.len() > MOST_RANGES {
        let more = record.differences.len() - MOST_RANGES;
        writeln!(out, "{table}: and {more} ranges more, which stand in system.verifications")?;
    }
    match record.status {
        VerificationStatus::Differs => {
            writeln!(out, "{table}: `lakegate verify {table} --repair` reads what differs anew")
        }
        VerificationStatus::Repaired => {
            let version = record.repaired_version.map(|version| format!(" with version {version}"));
            writeln!(out, "{table}: what differed was read anew{}", version.unwrap_or_default())
        }
        VerificationStatus::Same | VerificationStatus::Failed => Ok(()),
    }
}

/// A range in words: `id after 500 up to 1000`.
fn range(key: &[String], difference: &serde_json::Value) -> String {
    let end = |side: &str| {
        let texts = difference[side].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> = texts.iter().filter_map(serde_json::Value::as_str).collect();
        if texts.len() > 1 { format!("({})", texts.join(", ")) } else { texts.concat() }
    };
    let name = if key.len() > 1 { format!("({})", key.join(", ")) } else { key.concat() };
    match (end("after").as_str(), end("until").as_str()) {
        ("", "") => "the whole table".to_owned(),
        ("", until) => format!("{name} up to {until}"),
        (after, "") => format!("{name} after {after}"),
        (after, until) => format!("{name} after {after} up to {until}"),
    }
}

/// How a verification ended, in a line.
pub(super) fn record_line(record: &VerificationRecord) -> String {
    let table = &record.table;
    let rows = HumanCount(record.rows);
    match record.status {
        VerificationStatus::Same => format!("{table}: the same, {rows} rows compared"),
        VerificationStatus::Differs => {
            format!("{table}: differs in {} of {} ranges", record.differences.len(), record.ranges)
        }
        VerificationStatus::Repaired => format!("{table}: repaired, {} ranges", record.differences.len()),
        VerificationStatus::Failed => {
            format!("{table}: failed: {}", record.error.as_deref().unwrap_or("for no known reason"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_in_words() {
        let (one, two) = (["id".to_owned()], ["a".to_owned(), "b".to_owned()]);
        let told = |key: &[String], after: &[&str], until: &[&str]| {
            range(key, &serde_json::json!({ "after": after, "until": until }))
        };
        assert_eq!(told(&one, &[], &[]), "the whole table");
        assert_eq!(told(&one, &["5"], &[]), "id after 5");
        assert_eq!(told(&one, &[], &["9"]), "id up to 9");
        assert_eq!(told(&two, &["5", "x"], &["9", "y"]), "(a, b) after (5, x) up to (9, y)");
    }
}
