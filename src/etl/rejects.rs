//! Counting the rows that did not fit, and saying why most of them did not.

use std::collections::HashMap;

use crate::config::TableDefinition;
use crate::etl::EtlError;
use crate::model::Reject;

/// Different reasons counted apart; what comes after is counted together, so that memory stays bounded.
const MOST_REASONS: usize = 1000;
/// Reasons named in a message.
const NAMED_REASONS: usize = 5;

/// The rejects of one load, by reason.
#[derive(Clone, Debug, Default)]
pub(super) struct RejectTally {
    /// Rows; files refused as a whole are not among them.
    rows: u64,
    /// Files refused as a whole.
    refused: u64,
    /// The first of them, each with its reason.
    refused_first: Vec<String>,
    reasons: HashMap<Reason, Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reason {
    column: Option<String>,
    text: String,
}

#[derive(Clone, Debug)]
struct Seen {
    count: u64,
    first: String,
}

impl RejectTally {
    pub(super) fn add(&mut self, rejects: &[Reject]) {
        for reject in rejects {
            let Some(line) = reject.line else {
                self.refused += 1;
                if self.refused_first.len() < NAMED_REASONS {
                    self.refused_first.push(format!("{}: {}", reject.file, reject.reason));
                }
                continue;
            };
            self.rows += 1;
            let mut reason = Reason { column: reject.column.clone(), text: without_values(&reject.reason) };
            if self.reasons.len() >= MOST_REASONS && !self.reasons.contains_key(&reason) {
                reason = Reason { column: None, text: "other reasons".to_owned() };
            }
            let first = || Seen { count: 0, first: format!("{}:{line}", reject.file) };
            self.reasons.entry(reason).or_insert_with(first).count += 1;
        }
    }

    /// Everything that was rejected, a refused file counting as one.
    pub(super) fn count(&self) -> u64 {
        self.rows + self.refused
    }

    /// The most frequent reasons, most frequent first, one per line; no values of rows in them.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by(|(a, seen_a), (b, seen_b)| (seen_b.count, &a.text).cmp(&(seen_a.count, &b.text)));
        let left = reasons.len().saturating_sub(NAMED_REASONS);
        let rows = reasons.into_iter().take(NAMED_REASONS).map(|(reason, seen)| {
            let column = reason.column.as_ref().map(|column| format!("column {column}: ")).unwrap_or_default();
            format!("{} × {column}{} (first at {})", seen.count, reason.text, seen.first)
        });
        let more = (left > 0).then(|| format!("and {left} more reasons"));
        let refused = self.refused_first.iter().map(|file| format!("refused {file}"));
        let more_refused = self.refused - self.refused_first.len() as u64;
        let more_refused = (more_refused > 0).then(|| format!("and {more_refused} more refused files"));
        refused.chain(more_refused).chain(rows).chain(more).collect()
    }

    /// Fails when more rows were rejected than the definition allows. Files refused as a whole are not rows:
    /// they are told, and do not stop the others.
    pub(super) fn check(&self, definition: &TableDefinition, rows_read: u64) -> Result<(), EtlError> {
        let allowed = definition.load.max_rejects;
        // Exact up to 2^53 rows, and a share is a coarse thing.
        let share = self.rows as f64 / rows_read.max(1) as f64;
        if self.rows == 0 || share <= allowed {
            return Ok(());
        }
        Err(EtlError::TooManyRejects(format!(
            "{} of {rows_read} rows of {} did not fit ({}), and at most {} may (max_rejects in [load] of {}); nothing was changed. \
             Most frequent: {}",
            self.rows,
            definition.name,
            percent(share),
            percent(allowed),
            definition.defined_in.display(),
            self.lines().join("; "),
        )))
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.1 { "under 0.1 %".to_owned() } else { format!("{percent:.1} %") }
}

/// A reason with what stands in quotes left out: reasons that differ in the value alone are one.
fn without_values(reason: &str) -> String {
    let mut text = String::new();
    let mut until: Option<char> = None;
    for letter in reason.chars() {
        match until {
            None => {
                text.push(letter);
                until = match letter {
                    '`' | '"' => Some(letter),
                    '“' => Some('”'),
                    _ => None,
                };
                if until.is_some() {
                    text.push('…');
                }
            }
            Some(end) if letter == end => {
                text.push(letter);
                until = None;
            }
            Some(_) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(line: Option<u64>, reason: &str) -> Reject {
        Reject { file: "a.csv".into(), line, column: Some("n".into()), reason: reason.into(), raw: String::new() }
    }

    #[test]
    fn reasons_are_counted_without_their_values() {
        let mut tally = RejectTally::default();
        tally.add(&[reject(Some(3), "`abc` is no int"), reject(Some(5), "`x` is no int"), reject(Some(6), "too long")]);
        tally.add(&[reject(None, "the file is cut off")]);
        assert_eq!(tally.count(), 4);
        assert_eq!(
            tally.lines(),
            [
                "refused a.csv: the file is cut off",
                "2 × column n: `…` is no int (first at a.csv:3)",
                "1 × column n: too long (first at a.csv:6)",
            ]
        );
    }

    #[test]
    fn a_thousand_reasons_do_not_fill_the_memory() {
        let mut tally = RejectTally::default();
        for line in 0..5000 {
            tally.add(&[reject(Some(line), &format!("reason {line}"))]);
        }
        assert_eq!(tally.rows, 5000);
        assert!(tally.reasons.len() <= MOST_REASONS + 1);
        assert_eq!(tally.lines()[0], "4000 × other reasons (first at a.csv:1000)");
    }
}
