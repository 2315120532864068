//! How far loads are: a bar per table on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::sync::outcome_line;
use crate::cli::verify::record_line;
use crate::etl::{Progress, TableOutcome};
use crate::journal::VerificationRecord;
use crate::model::TableName;

/// How often a plain line tells how far a load is.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often a bar moves by itself, so that one sees the program is alive.
const TICK: Duration = Duration::from_millis(120);

/// Tells people on standard error how far loads are.
pub(super) struct Bars {
    bars: MultiProgress,
    terminal: bool,
    /// Letters of the longest table's name, so that bars stand under each other.
    width: usize,
    running: Mutex<HashMap<TableName, Running>>,
}

struct Running {
    bar: ProgressBar,
    began: Instant,
    told: Instant,
    total: Option<u64>,
}

impl Bars {
    pub(super) fn new<'a>(bars: MultiProgress, tables: impl Iterator<Item = &'a TableName>) -> Self {
        let width = tables.map(|table| table.to_string().len()).max().unwrap_or_default();
        Self { bars, terminal: std::io::stderr().is_terminal(), width, running: Mutex::default() }
    }

    fn with<T>(&self, table: &TableName, act: impl FnOnce(&mut Running) -> T) -> Option<T> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get_mut(table).map(act)
    }

    fn line(&self, line: &str) {
        // Nobody is left to tell when standard error is closed.
        let _ = self.bars.suspend(|| writeln!(std::io::stderr(), "{line}"));
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let template = format!("{{prefix:<{}}} {template}", self.width);
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
    }
}

impl Progress for Bars {
    fn started(&self, table: &TableName) {
        let bar = if self.terminal { self.bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        bar.set_style(self.style("{spinner} {msg}"));
        bar.set_prefix(table.to_string());
        bar.set_message("looking for what is new");
        bar.enable_steady_tick(TICK);
        let now = Instant::now();
        let running = Running { bar, began: now, told: now, total: None };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), running);
    }

    fn reading(&self, table: &TableName, total_bytes: Option<u64>) {
        self.with(table, |running| {
            running.total = total_bytes;
            running.began = Instant::now();
            running.bar.reset();
            running.bar.set_message("");
            match total_bytes {
                Some(total) => {
                    running.bar.set_length(total);
                    let style =
                        "{wide_bar} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";
                    running.bar.set_style(self.style(style));
                }
                None => running.bar.set_style(self.style("{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}")),
            }
        });
        if !self.terminal {
            let size = total_bytes.map_or_else(|| "reading".to_owned(), |total| format!("reading {}", ByteSize(total)));
            self.line(&format!("{table}: {size}"));
        }
    }

    fn advanced(&self, table: &TableName, rows: u64, bytes: u64) {
        let line = self.with(table, |running| {
            running.bar.set_position(bytes);
            running.bar.set_message(format!("{} rows", HumanCount(rows)));
            if self.terminal || running.told.elapsed() < LINE_EVERY {
                return None;
            }
            running.told = Instant::now();
            Some(plain_line(table, rows, bytes, running.total, running.began.elapsed()))
        });
        if let Some(Some(line)) = line {
            self.line(&line);
        }
    }

    fn writing(&self, table: &TableName) {
        self.with(table, |running| {
            running.bar.set_style(self.style("{spinner} {msg}, writing"));
        });
    }

    fn finished(&self, outcome: &TableOutcome) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&outcome.record.table);
        if let Some(running) = running {
            running.bar.finish_and_clear();
        }
        self.line(&outcome_line(outcome));
    }

    fn verified(&self, record: &VerificationRecord) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&record.table);
        if let Some(running) = running {
            running.bar.finish_and_clear();
        }
        self.line(&record_line(record));
    }
}

fn plain_line(table: &TableName, rows: u64, bytes: u64, total: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let rate = bytes as f64 / seconds;
    let of = total.map(|total| format!(" of {}", ByteSize(total))).unwrap_or_default();
    let left = total.filter(|total| *total > bytes && rate > 0.0).map(|total| {
        let left = Duration::from_secs((((total - bytes) as f64) / rate).ceil() as u64);
        format!(", {} left", humantime::format_duration(left))
    });
    format!(
        "{table}: {} rows, {}{of}, {}/s{}",
        HumanCount(rows),
        ByteSize(bytes),
        ByteSize(rate as u64),
        left.unwrap_or_default()
    )
}
