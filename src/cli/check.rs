//! `lakegate check`: every problem of every file at once.

use std::io::Write;

use crate::cli::CliError;
use crate::cli::arguments::{Check, Common, SchemaOf};
use crate::cli::program;
use crate::config::{self, Format, Severity};
use crate::flight::Entrance;

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
    if let Some(settings) = &report.settings {
        // Certificate and key are looked at as the server would use them.
        Entrance::open(settings).map_err(|error| CliError::Usage(error.to_string()))?;
    }
    let odd = if warnings > 0 { format!(", {}", counted(warnings, "warning")) } else { String::new() };
    writeln!(out, "all right: {tables}{odd}").map_err(CliError::stdout)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
