//! `lakegate sync`: loads what is new and tells how that went.

use std::io::Write;
use std::sync::Arc;

use bytesize::ByteSize;
use indicatif::{HumanCount, MultiProgress};

use crate::cli::CliError;
use crate::cli::arguments::{Common, Sync};
use crate::cli::bars::Bars;
use crate::cli::output::columns;
use crate::cli::program::{self, Chatter, Program};
use crate::cli::signals;
use crate::etl::{Loads, SyncOptions, SyncReport, TableOutcome};
use crate::journal::LoadStatus;

pub(super) fn run(common: &Common, arguments: &Sync) -> Result<(), CliError> {
    let bars = MultiProgress::new();
    let settings = program::settings(common, Chatter::Quiet, &bars)?;
    if settings.tables.is_empty() {
        let folder = settings.folder.join("tables");
        return Err(CliError::Usage(format!(
            "no table is defined: {} has no <schema>/<table>.toml; see `lakegate check --help`",
            folder.display()
        )));
    }
    let report = program::runtime(settings.limits.threads.get())?.block_on(async {
        let stop = signals::listen()?;
        let program = Program::open(Arc::clone(&settings)).await?;
        let progress = Arc::new(Bars::new(bars, settings.tables.keys()));
        let loads = Loads::new(settings, program.lake, program.journal, program.clock);
        let options = SyncOptions { now: arguments.now, reload: arguments.reload, stop, ..SyncOptions::default() };
        loads.sync(&arguments.tables, &options, progress).await.map_err(|error| CliError::Usage(error.to_string()))
    })?;
    tell(&report)?;
    if report.is_success() { Ok(()) } else { Err(CliError::Told) }
}

/// The summary on standard output, what failed on standard error.
fn tell(report: &SyncReport) -> Result<(), CliError> {
    let mut tables: Vec<&TableOutcome> = report.tables.iter().collect();
    tables.sort_by(|a, b| a.record.table.cmp(&b.record.table));
    let mut rows = vec![
        ["table", "status", "rows read", "written", "rejected", "read", "version", "seconds"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(tables.iter().map(|outcome| summary(outcome)));
    let mut out = std::io::stdout().lock();
    columns::write(&mut out, &rows, &[false, false, true, true, true, true, true, true]).map_err(CliError::stdout)?;
    out.flush().map_err(CliError::stdout)?;
    let mut err = std::io::stderr().lock();
    for problem in &report.problems {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(err, "lakegate: {problem}");
    }
    Ok(())
}

fn summary(outcome: &TableOutcome) -> Vec<String> {
    let record = &outcome.record;
    let took = (record.ended_at - record.started_at).as_seconds_f64();
    vec![
        record.table.to_string(),
        status(record.status).to_owned(),
        HumanCount(record.rows_read).to_string(),
        HumanCount(record.rows_written).to_string(),
        HumanCount(record.rows_rejected).to_string(),
        ByteSize(record.bytes_read).to_string(),
        record.version.map(|version| version.to_string()).unwrap_or_default(),
        format!("{took:.1}"),
    ]
}

fn status(status: LoadStatus) -> &'static str {
    match status {
        LoadStatus::Committed => "committed",
        LoadStatus::Unchanged => "nothing new",
        LoadStatus::Deferred => "put off",
        LoadStatus::Failed => "FAILED",
    }
}

/// How one load ended, for people, with the reasons of its rejects on lines of their own.
pub(super) fn outcome_line(outcome: &TableOutcome) -> String {
    let record = &outcome.record;
    let table = &record.table;
    let mut text = match record.status {
        LoadStatus::Committed => {
            let version = record.version.map(|version| version.to_string()).unwrap_or_default();
            format!("{table}: committed version {version}, {} rows", HumanCount(record.rows_written))
        }
        LoadStatus::Unchanged => format!("{table}: nothing new"),
        LoadStatus::Deferred => format!("{table}: {}", outcome.note.as_deref().unwrap_or("put off")),
        LoadStatus::Failed => format!("{table}: failed: {}", record.error.as_deref().unwrap_or("for no known reason")),
    };
    if record.rows_rejected > 0 && record.status == LoadStatus::Committed {
        let rejected = HumanCount(record.rows_rejected);
        text.push_str(&format!(", {rejected} rejected (`lakegate rejects {table}` shows them)"));
        for reason in &outcome.reject_reasons {
            text.push_str(&format!("\n{table}:   {reason}"));
        }
    }
    text
}
