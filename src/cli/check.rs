//! `lakegate check`: every problem of every file at once.

use std::io::Write;
use std::sync::Arc;

use crate::cli::CliError;
use crate::cli::arguments::{Check, Common, SchemaOf};
use crate::cli::program::{self, Program};
use crate::config::units::rate_text;
use crate::config::{self, Format, LineSettings, Settings, Severity};
use crate::flight::Entrance;
use crate::query::PolicyProblem;

pub(super) fn run(common: &Common, arguments: &Check) -> Result<(), CliError> {
    match arguments.schema {
        Some(SchemaOf::Lakegate) => schema(Format::Lakegate),
        Some(SchemaOf::Table) => schema(Format::Table),
        Some(SchemaOf::Grants) => schema(Format::Grants),
        Some(SchemaOf::Users) => schema(Format::Users),
        None => problems(common),
    }
}

fn schema(format: Format) -> Result<(), CliError> {
    let schema = config::json_schema(format);
    writeln!(std::io::stdout(), "{schema:#}").map_err(CliError::stdout)
}

fn problems(common: &Common) -> Result<(), CliError> {
    let (folder, file) = program::place(common)?;
    let report = config::check(&folder, file.as_deref());
    let mut out = std::io::stdout().lock();
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = report.problems.len() - errors;
    for problem in &report.problems {
        writeln!(out, "{problem}").map_err(CliError::stdout)?;
    }
    let tables = counted(report.tables, "table definition");
    if errors > 0 {
        writeln!(out, "{} in {tables}", counted(errors, "problem")).map_err(CliError::stdout)?;
        return Err(CliError::Told);
    }
    if let Some(settings) = report.settings {
        // Certificate and key are looked at as the server would use them.
        Entrance::open(&settings).map_err(|error| CliError::Usage(error.to_string()))?;
        for line in &settings.lines {
            writeln!(out, "{}", told(line)).map_err(CliError::stdout)?;
        }
        let unusable = policies(settings)?;
        for problem in &unusable {
            writeln!(out, "{problem}").map_err(CliError::stdout)?;
        }
        if !unusable.is_empty() {
            writeln!(out, "{} in the grants", counted(unusable.len(), "problem")).map_err(CliError::stdout)?;
            return Err(CliError::Told);
        }
    }
    let odd = if warnings > 0 { format!(", {}", counted(warnings, "warning")) } else { String::new() };
    writeln!(out, "all right: {tables}{odd}").map_err(CliError::stdout)
}

/// A line, as in `line 10.0.0.0/8: 100Mbit/s, shared by person; admin counts 2 times; codec lz4`.
fn told(line: &LineSettings) -> String {
    let mut says = Vec::new();
    says.extend(line.rate.map(|rate| format!("{}, shared by person", rate_text(rate))));
    says.extend(line.fast.then(|| "fast, so nothing is compressed unless asked for".to_owned()));
    says.extend(line.weights.iter().map(|(role, weight)| format!("{role} counts {weight} times")));
    says.extend(line.codec.map(|codec| format!("codec {}", codec.word())));
    says.extend(line.dictionaries.map(|may| format!("{} dictionaries", if may { "with" } else { "no" })));
    format!("line {}: {}", line.name(), says.join("; "))
}

/// What of row filters, masks and granted columns cannot be used with the tables as they are in the lake.
fn policies(settings: Settings) -> Result<Vec<PolicyProblem>, CliError> {
    let grants = settings.access.files.grants.as_ref();
    if grants.is_none_or(|grants| grants.grants.is_empty() && grants.row_filters.is_empty() && grants.masks.is_empty())
    {
        return Ok(Vec::new());
    }
    let runtime = program::runtime(settings.limits.threads.get())?;
    runtime.block_on(async {
        let program = Program::open(Arc::new(settings)).await?;
        program.policy_problems(program.engine()?.as_ref()).await
    })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
