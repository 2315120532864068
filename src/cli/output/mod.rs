//! Writing rows for people and for programs, batch by batch.

pub(super) mod columns;
mod formats;
mod nested;
mod target;

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::cli::CliError;
use crate::cli::arguments::Format;

use formats::Rows;
use target::Target;

/// Where rows will go. A file is begun at once, so that a place that cannot be written is told before the
/// server does any work.
pub(super) struct Destination {
    target: Target,
    format: Format,
    name: String,
}

/// Writes the rows of one result.
pub(super) struct RowWriter {
    rows: Rows,
    count: u64,
    name: String,
}

impl Destination {
    /// A file that appears when it is whole, or standard output.
    pub(super) fn open(file: Option<&Path>, format: Format) -> Result<Self, CliError> {
        let name = file.map_or_else(|| "standard output".to_owned(), |file| file.display().to_string());
        let target = Target::open(file).map_err(|source| CliError::Output { to: name.clone(), source })?;
        Ok(Self { target, format, name })
    }

    /// Begins a result with these columns.
    pub(super) fn begin(self, schema: &SchemaRef) -> Result<RowWriter, CliError> {
        let Self { target, format, name } = self;
        let rows =
            Rows::begin(target, format, schema).map_err(|source| CliError::Output { to: name.clone(), source })?;
        Ok(RowWriter { rows, count: 0, name })
    }
}

impl RowWriter {
    /// Writes rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), CliError> {
        self.count += batch.num_rows() as u64;
        self.rows.write(batch).map_err(|source| CliError::Output { to: self.name.clone(), source })
    }

    /// Ends the result; only now a file appears. Gives the number of rows.
    pub(super) fn finish(self) -> Result<u64, CliError> {
        let Self { rows, count, name } = self;
        rows.finish().map_err(|source| CliError::Output { to: name, source })?;
        Ok(count)
    }
}

/// Tells people how many rows there were, and what else there is to say of them.
pub(super) fn tell_rows(rows: u64, file: Option<&Path>, more: &str) {
    use std::io::{IsTerminal, Write};
    let mut err = std::io::stderr();
    let to = file.map(|file| format!(" in {}", file.display()));
    if to.is_some() || err.is_terminal() {
        let count = indicatif::HumanCount(rows);
        let plural = if rows == 1 { "" } else { "s" };
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(err, "{count} row{plural}{}{more}", to.unwrap_or_default());
    }
}
