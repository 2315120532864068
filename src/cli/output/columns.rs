//! Columns for people.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Longest cell on a terminal, in characters: one long text must not push the other columns out of sight.
const WIDEST: usize = 60;

/// Writes rows of cells under each other; the first row is the heading. `right` tells which columns hold numbers.
pub(in crate::cli) fn write(out: &mut impl Write, rows: &[Vec<String>], right: &[bool]) -> io::Result<()> {
    let mut widths = vec![0; right.len()];
    for row in rows {
        widen(&mut widths, row);
    }
    for (number, row) in rows.iter().enumerate() {
        line(out, row, &widths, right)?;
        if number == 0 {
            rule(out, &widths)?;
        }
    }
    Ok(())
}

/// A table whose columns are as wide as the first batch needs; a longer cell later moves its own line only.
pub(super) struct TableRows {
    heading: Vec<String>,
    right: Vec<bool>,
    widths: Vec<usize>,
    begun: bool,
    /// Cells are cut on a terminal; elsewhere everything is written.
    cut: bool,
}

impl TableRows {
    pub(super) fn new(schema: &SchemaRef, cut: bool) -> Self {
        let heading: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let right = schema.fields().iter().map(|field| is_number(field.data_type())).collect();
        Self { widths: vec![0; heading.len()], heading, right, begun: false, cut }
    }

    pub(super) fn write(&mut self, out: &mut impl Write, batch: &RecordBatch) -> io::Result<()> {
        let rows = self.cells(batch).map_err(io::Error::other)?;
        self.begin(out, &rows)?;
        rows.iter().try_for_each(|row| line(out, row, &self.widths, &self.right))
    }

    /// The heading, when there was no row to write it above.
    pub(super) fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.begin(out, &[])
    }

    fn begin(&mut self, out: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        widen(&mut self.widths, &self.heading);
        rows.iter().for_each(|row| widen(&mut self.widths, row));
        line(out, &self.heading, &self.widths, &self.right)?;
        rule(out, &self.widths)
    }

    fn cells(&self, batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
        let options = FormatOptions::default().with_display_error(true);
        let formatters: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        Ok((0..batch.num_rows())
            .map(|row| formatters.iter().map(|formatter| self.cell(&formatter.value(row).to_string())).collect())
            .collect())
    }

    /// One line without control characters, which could do anything to a terminal.
    fn cell(&self, text: &str) -> String {
        let limit = if self.cut { WIDEST } else { usize::MAX };
        let long = self.cut && text.chars().nth(WIDEST).is_some();
        let mut cell = String::with_capacity(text.len().min(limit));
        for letter in text.chars().take(if long { WIDEST - 1 } else { limit }) {
            match letter {
                '\n' => cell.push_str("\\n"),
                '\r' => cell.push_str("\\r"),
                '\t' => cell.push_str("\\t"),
                control if control.is_control() => cell.push('\u{fffd}'),
                other => cell.push(other),
            }
        }
        if long {
            cell.push('…');
        }
        cell
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn widen(widths: &mut [usize], row: &[String]) {
    for (width, cell) in widths.iter_mut().zip(row) {
        *width = (*width).max(cell.chars().count());
    }
}

fn line(out: &mut impl Write, row: &[String], widths: &[usize], right: &[bool]) -> io::Result<()> {
    let mut text = String::new();
    for ((cell, width), right) in row.iter().zip(widths).zip(right) {
        let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
        let (before, after) = if *right { (pad.as_str(), "") } else { ("", pad.as_str()) };
        text.push_str(&format!("{before}{cell}{after}  "));
    }
    writeln!(out, "{}", text.trim_end())
}

fn rule(out: &mut impl Write, widths: &[usize]) -> io::Result<()> {
    let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    writeln!(out, "{}", rules.join("  "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(texts: Vec<Option<&str>>) -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]);
        let numbers = Int64Array::from_iter_values(0..texts.len() as i64);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(StringArray::from(texts))]).unwrap()
    }

    #[test]
    fn the_first_batch_gives_the_widths_and_control_characters_do_not_reach_the_terminal() {
        let first = batch(vec![Some("ab"), None, Some("\u{1b}[2J\n")]);
        let mut rows = TableRows::new(&first.schema(), true);
        let mut out = Vec::new();
        rows.write(&mut out, &first).unwrap();
        rows.write(&mut out, &batch(vec![Some(&"x".repeat(100))])).unwrap();
        rows.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "n  text");
        assert_eq!(lines[2], "0  ab");
        assert_eq!(lines[3], "1");
        assert_eq!(lines[4], "2  \u{fffd}[2J\\n");
        assert_eq!(lines[5], format!("0  {}…", "x".repeat(WIDEST - 1)));
    }

    #[test]
    fn no_rows_are_a_heading() {
        let mut rows = TableRows::new(&batch(vec![]).schema(), false);
        let mut out = Vec::new();
        rows.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "n  text\n─  ────\n");
    }
}
