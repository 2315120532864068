//! What is wrong in the configuration: each problem with its place, all of them together.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Classify, ErrorKind};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The program does not start with it.
    Error,
    /// The program runs, but probably not as meant.
    Warning,
}

/// One thing that is wrong. Never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, relative to the configuration's folder where it is below it.
    pub file: PathBuf,
    /// Line and column in characters, both from 1; none where the file as a whole is meant.
    pub at: Option<(usize, usize)>,
    /// The key with those above it, as in `load.every`; empty where no key is meant.
    pub key: String,
    /// What is wrong, with what was found.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The known word nearest to the one found.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem of a file as a whole.
    pub(crate) fn of_file(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            at: None,
            key: String::new(),
            message: message.into(),
            expected: None,
            nearest: None,
        }
    }

    /// Says what would be right.
    #[must_use]
    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Names the known word nearest to `found`, where one is near enough to be meant.
    #[must_use]
    pub(crate) fn near<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = nearest(found, known).map(str::to_owned);
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

/// Everything that keeps the program from starting, at least one problem, sorted by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The errors among `problems`; none where there are only warnings.
    pub(crate) fn of(problems: &[Problem]) -> Option<Self> {
        let errors: Vec<_> = problems.iter().filter(|problem| problem.severity == Severity::Error).cloned().collect();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// A single problem.
    pub(crate) fn only(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// The problems in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    /// One line for a single problem, else a heading and a line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} problems in the configuration:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

impl Classify for Problems {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// The known word that is nearest to `found`, when at most a third of its letters (at least one) differ.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_lowercase();
    let allowed = (found.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&found, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= allowed && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_one_that_could_have_been_meant() {
        let known = ["every", "cron", "mode", "max_rejects", "max_rewrite"];
        assert_eq!(nearest("evry", known), Some("every"));
        assert_eq!(nearest("Mode", known), Some("mode"));
        assert_eq!(nearest("max_reject", known), Some("max_rejects"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
    }

    #[test]
    fn a_problem_reads_as_place_key_message_expectation_and_hint() {
        let mut problem = Problem::of_file("tables/a/b.toml", "`evry` is no known key")
            .expected("one of every, cron")
            .near("evry", ["every", "cron"]);
        problem.at = Some((3, 1));
        problem.key = "load.evry".to_owned();
        let text = "tables/a/b.toml:3:1: load.evry: `evry` is no known key; expected one of every, cron; did you mean `every`?";
        assert_eq!(problem.to_string(), text);
        assert_eq!(problem.warning().to_string(), text.replace("3:1: ", "3:1: warning: "));
    }

    #[test]
    fn warnings_alone_are_no_problems() {
        let warning = Problem::of_file("lakegate.toml", "odd").warning();
        assert_eq!(Problems::of(std::slice::from_ref(&warning)), None);
        let error = Problem::of_file("lakegate.toml", "wrong");
        let problems = Problems::of(&[warning, error.clone(), error]).unwrap();
        assert_eq!(
            problems.to_string(),
            "2 problems in the configuration:\n  lakegate.toml: wrong\n  lakegate.toml: wrong"
        );
    }
}
