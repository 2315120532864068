//! How far a result has come: a line that moves on a terminal, and what happened to its connection.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use crate::flight::Arrival;

/// How often the line moves by itself, so that one sees the program is alive.
const TICK: Duration = Duration::from_millis(120);

/// What the line shows where it is not known how much comes, or more came than was thought.
const OPEN: &str = "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}";
/// What it shows otherwise.
const OF_ALL: &str = "{bar:30} {binary_bytes} of about {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left  {msg}";

/// Tells people on standard error how far a result has come.
pub(super) struct Arriving {
    bar: ProgressBar,
    bars: MultiProgress,
}

impl Arriving {
    /// Nothing has come yet. Rows that go to the terminal themselves show how far they are.
    pub(super) fn new(bars: &MultiProgress, file: Option<&Path>) -> Self {
        let shown = std::io::stderr().is_terminal() && (file.is_some() || !std::io::stdout().is_terminal());
        let bar = if shown { bars.add(ProgressBar::new_spinner()) } else { ProgressBar::hidden() };
        bar.set_style(style(OPEN));
        if shown {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, bars: bars.clone() }
    }

    /// What is to be told of what happens on the way.
    pub(super) fn watcher(&self) -> impl Fn(Arrival) + Send + Sync + 'static + use<> {
        let (bar, bars, cut) = (self.bar.clone(), self.bars.clone(), AtomicBool::new(false));
        move |arrival| match arrival {
            Arrival::Begins(Some(bytes)) if bytes > 0 => {
                bar.set_length(bytes);
                bar.set_style(style(OF_ALL));
            }
            Arrival::Begins(_) => bar.set_style(style(OPEN)),
            Arrival::Bytes(bytes) => {
                bar.inc(bytes);
                if bar.length().is_some_and(|all| bar.position() > all) {
                    bar.set_style(style(OPEN));
                }
            }
            Arrival::Cut { reason, .. } if !cut.swap(true, Ordering::Relaxed) => {
                say(&bars, &format!("the connection was cut ({reason}); trying to get the rest"));
            }
            Arrival::Cut { pause, .. } => bar.set_message(format!("no server; next try in {} s", pause.as_secs() + 1)),
            Arrival::GoesOn => {
                cut.store(false, Ordering::Relaxed);
                say(&bars, "going on where the connection was cut");
            }
        }
    }

    /// So many rows have come by now.
    pub(super) fn rows(&self, rows: u64) {
        self.bar.set_message(format!("{} rows", HumanCount(rows)));
    }

    /// It starts over.
    pub(super) fn starts_over(&self, reason: &str) {
        self.bar.reset();
        say(&self.bars, &format!("starting over: {reason}"));
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn say(bars: &MultiProgress, line: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = bars.suspend(|| writeln!(std::io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_templates() {
        for template in [OPEN, OF_ALL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
