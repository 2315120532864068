//! The options of a session: what they are called, which values they take, and what they change.

use std::time::Duration;

use crate::config::units;
use crate::flight::metadata::CATALOG;
use crate::flight::session::messages::{OptionValue, Value};
use crate::query::{StatementOptions, is_time_zone};

/// Options that say how results are encoded, with the words they take. The header of the same name of a call wins.
const LINE: [(&str, &[&str]); 3] = [
    ("lakegate-codec", &["auto", "zstd", "lz4", "none"]),
    ("lakegate-dictionaries", &["on", "off"]),
    ("lakegate-precision", &["full", "float32", "float16", "rounded"]),
];

/// The options of one session; what is not set is as the server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    schema: Option<String>,
    time_zone: Option<String>,
    statement_timeout: Option<Duration>,
    line: [Option<&'static str>; LINE.len()],
}

/// Why an option cannot be set; the numbers are those of `SetSessionOptionsResult.ErrorValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such option.
    Name = 1,
    /// It does not take this value.
    Value = 2,
}

impl SessionOptions {
    /// Sets an option, or takes it back where there is no value. `schemas` are those there are.
    pub(super) fn set(&mut self, name: &str, value: &OptionValue, schemas: &[String]) -> Result<(), Refused> {
        let Some(value) = &value.value else { return self.erase(name) };
        match name {
            "catalog" => text(value).filter(|text| *text == CATALOG).map(|_| ()).ok_or(Refused::Value),
            "schema" => {
                let known = text(value).filter(|text| schemas.iter().any(|schema| schema == text));
                self.schema = Some(known.ok_or(Refused::Value)?.to_owned());
                Ok(())
            }
            "time_zone" => {
                self.time_zone = Some(text(value).filter(|text| is_time_zone(text)).ok_or(Refused::Value)?.to_owned());
                Ok(())
            }
            "statement_timeout" => {
                self.statement_timeout = Some(duration(value).ok_or(Refused::Value)?);
                Ok(())
            }
            _ => {
                let (slot, words) = self.line_option(name).ok_or(Refused::Name)?;
                *slot = Some(word(value, words).ok_or(Refused::Value)?);
                Ok(())
            }
        }
    }

    /// The options as they are told; all of them can be set as they are got.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = vec![("catalog", CATALOG.to_owned())];
        told.extend(self.changed());
        told
    }

    /// The options that were set.
    pub(super) fn changed(&self) -> Vec<(&'static str, String)> {
        let mut changed = Vec::new();
        changed.extend(self.schema.clone().map(|schema| ("schema", schema)));
        changed.extend(self.time_zone.clone().map(|zone| ("time_zone", zone)));
        let timeout = self.statement_timeout.map(|limit| format!("{}ms", limit.as_millis()));
        changed.extend(timeout.map(|limit| ("statement_timeout", limit)));
        let line = LINE.iter().zip(self.line).filter_map(|((name, _), word)| Some((*name, word?.to_owned())));
        changed.extend(line);
        changed
    }

    /// Whether nothing was set.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What a statement of the session is planned with.
    pub(crate) fn of_statements(&self) -> StatementOptions {
        let mut options = StatementOptions { schema: self.schema.clone(), ..StatementOptions::default() };
        if let Some(zone) = &self.time_zone {
            options.time_zone.clone_from(zone);
        }
        options
    }

    /// How long a statement of the session may compute, where anybody may for `limit`.
    pub(crate) fn timeout(&self, limit: Duration) -> Duration {
        self.statement_timeout.map_or(limit, |own| own.min(limit))
    }

    /// The word that was chosen for an option of the line, such as `lakegate-codec`.
    pub(crate) fn line_word(&self, name: &str) -> Option<&'static str> {
        let at = LINE.iter().position(|(known, _)| *known == name)?;
        self.line[at]
    }

    fn erase(&mut self, name: &str) -> Result<(), Refused> {
        match name {
            "catalog" => {}
            "schema" => self.schema = None,
            "time_zone" => self.time_zone = None,
            "statement_timeout" => self.statement_timeout = None,
            _ => *self.line_option(name).ok_or(Refused::Name)?.0 = None,
        }
        Ok(())
    }

    fn line_option(&mut self, name: &str) -> Option<(&mut Option<&'static str>, &'static [&'static str])> {
        let at = LINE.iter().position(|(known, _)| *known == name)?;
        Some((&mut self.line[at], LINE[at].1))
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        // Some clients know lists only.
        Value::Texts(list) => match list.values.as_slice() {
            [only] => Some(only),
            _ => None,
        },
        Value::Flag(_) | Value::Whole(_) | Value::Float(_) => None,
    }
}

/// One of the words; `true` and `false` are `on` and `off`.
fn word(value: &Value, words: &[&'static str]) -> Option<&'static str> {
    let written = match value {
        Value::Flag(true) => "on",
        Value::Flag(false) => "off",
        other => text(other)?.trim(),
    };
    words.iter().copied().find(|word| written.eq_ignore_ascii_case(word))
}

/// A time above zero: a text with its unit, or a number of milliseconds.
fn duration(value: &Value) -> Option<Duration> {
    let duration = match value {
        Value::Whole(millis) => Duration::from_millis(u64::try_from(*millis).ok()?),
        Value::Float(millis) => Duration::try_from_secs_f64(millis / 1000.0).ok()?,
        other => units::duration(text(other)?).ok()?,
    };
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::session::messages::Texts;

    fn set(options: &mut SessionOptions, name: &str, value: Value) -> Result<(), Refused> {
        options.set(name, &OptionValue { value: Some(value) }, &["weather".to_owned()])
    }

    fn some(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn options_are_set_told_and_taken_back() {
        let mut options = SessionOptions::default();
        for (name, value) in [
            ("catalog", some("lakegate")),
            ("schema", some("weather")),
            ("time_zone", Value::Texts(Texts { values: vec!["Europe/Vienna".to_owned()] })),
            ("statement_timeout", Value::Whole(1500)),
            ("lakegate-codec", some("ZSTD")),
            ("lakegate-dictionaries", Value::Flag(true)),
        ] {
            set(&mut options, name, value).unwrap();
        }
        let of_statements = options.of_statements();
        assert_eq!((of_statements.schema.as_deref(), &*of_statements.time_zone), (Some("weather"), "Europe/Vienna"));
        assert_eq!(options.timeout(Duration::from_secs(60)), Duration::from_millis(1500));
        assert_eq!(options.timeout(Duration::from_secs(1)), Duration::from_secs(1), "lower, never higher");
        assert_eq!(options.line_word("lakegate-codec"), Some("zstd"));
        let told = options.told();
        let mut again = SessionOptions::default();
        for (name, value) in &told {
            set(&mut again, name, some(value)).unwrap();
        }
        assert_eq!(again, options, "{told:?}");
        for (name, _) in &told {
            options.set(name, &OptionValue { value: None }, &[]).unwrap();
        }
        assert!(options.is_default());
    }

    #[test]
    fn what_cannot_be_set_is_told_by_name_or_value() {
        let mut options = SessionOptions::default();
        assert_eq!(set(&mut options, "lol_invalid", some("x")), Err(Refused::Name));
        assert_eq!(options.set("lol_invalid", &OptionValue { value: None }, &[]), Err(Refused::Name));
        for (name, value) in [
            ("catalog", some("other")),
            ("schema", some("nothing")),
            ("schema", Value::Whole(1)),
            ("time_zone", some("Mars/Olympus")),
            ("time_zone", Value::Texts(Texts { values: vec!["UTC".to_owned(), "UTC".to_owned()] })),
            ("statement_timeout", some("soon")),
            ("statement_timeout", Value::Whole(-1)),
            ("statement_timeout", Value::Float(f64::NAN)),
            ("statement_timeout", some("0s")),
            ("lakegate-codec", some("gzip")),
            ("lakegate-codec", Value::Flag(true)),
            ("lakegate-precision", Value::Float(1.0)),
            ("lakegate-precision", some("exact")),
        ] {
            assert_eq!(set(&mut options, name, value.clone()), Err(Refused::Value), "{name} {value:?}");
        }
        assert!(options.is_default());
    }
}
