//! The values the files of `[access]` are made of.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::access::expression::expression_problem;
use crate::config::reader::{Context, Low};
use crate::config::values::{Choice, parsed};
use crate::model::TableName;

/// To whom something is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// Everybody who is let in.
    Everyone,
    /// Those who have a role.
    Role(String),
    /// One principal.
    User(String),
}

/// On what something is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every table, `system.*` not included: it tells of each table what may be seen of it.
    All,
    /// The tables of a schema.
    Schema(String),
    /// One table.
    Table(TableName),
}

impl std::fmt::Display for Grantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Role(name) => f.write_str(name),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Schema(schema) => write!(f, "{schema}.*"),
            Self::Table(table) => write!(f, "{table}"),
        }
    }
}

impl Low for Grantee {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a role such as \"analysts\", \"user:NAME\" or \"everyone\"";
        parsed(value, key, context, EXPECTED, |text, place| match text.split_once(':') {
            Some(("user", name)) if !name.is_empty() => Ok(Self::User(name.to_owned())),
            None if text == "everyone" => Ok(Self::Everyone),
            None if is_role_name(text) => Ok(Self::Role(text.to_owned())),
            _ => Err(place.problem(format!("{text:?} is nobody anything can be granted to")).expected(EXPECTED).into()),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Whether a text can be the name of a role: `has_role('…')` and `to = "…"` name it.
pub(super) fn is_role_name(text: &str) -> bool {
    let allowed = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    !text.is_empty() && text.len() <= 128 && text != "everyone" && text.chars().all(allowed)
}

impl Low for Scope {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "\"schema.table\", \"schema.*\" or \"*\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            let wrong = || Box::new(place.problem(format!("{text:?} is no table and no schema")).expected(EXPECTED));
            if text == "*" {
                return Ok(Self::All);
            }
            match text.strip_suffix(".*") {
                Some(schema) => {
                    TableName::new(schema, "t").map(|name| Self::Schema(name.schema().to_owned())).map_err(|_| wrong())
                }
                None => text.parse().map(Self::Table).map_err(|_| wrong()),
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// The name of one table.
#[derive(Clone, Debug)]
pub(crate) struct OneTable(pub(crate) TableName);

impl Low for OneTable {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "the name of one table, as in \"ops.orders\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            text.parse().map(Self).map_err(|_| {
                let problem = place.problem(format!("{text:?} is no name of a table"));
                Box::new(problem.expected(EXPECTED))
            })
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 3 })
    }
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// Reading rows.
    Read,
    /// Adding, changing and deleting rows.
    Write,
}

impl Choice for May {
    const WORDS: &'static [(&'static str, Self)] = &[("read", Self::Read), ("write", Self::Write)];
}

/// A SQL expression. That it is one, and one only, is all that is known here.
#[derive(Clone, Debug)]
pub(crate) struct SqlExpression(pub(crate) String);

impl Low for SqlExpression {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "one SQL expression over the table's own columns";
        parsed(value, key, context, EXPECTED, |text, place| match expression_problem(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => {
                let problem = place.problem(format!("this is no SQL expression: {reason}"));
                Err(Box::new(problem.expected(EXPECTED)))
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A password's hash as a PHC string. What was found is never shown.
#[derive(Clone, Debug)]
pub(crate) struct PasswordHash(pub(crate) SecretString);

impl Low for PasswordHash {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "what `lakegate user passwd NAME` writes here";
        let place = context.place(value.span(), key);
        match value.get_ref() {
            DeValue::String(text) if argon2::PasswordHash::new(text).is_ok_and(|hash| is_argon2id(&hash)) => {
                Some(Self(text.as_ref().into()))
            }
            _ => context.note(place.problem("this is no argon2id hash of a password").expected(EXPECTED)),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\$argon2id\$" })
    }
}

fn is_argon2id(hash: &argon2::PasswordHash<'_>) -> bool {
    hash.algorithm == argon2::ARGON2ID_IDENT && hash.hash.is_some() && hash.salt.is_some()
}

/// The hash of a token: 64 hex digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

impl Low for TokenHash {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let place = context.place(value.span(), key);
        let hash = value.get_ref().as_str().and_then(|text| blake3::Hash::from_hex(text).ok());
        match hash {
            Some(hash) => Some(Self(*hash.as_bytes())),
            None => {
                let problem = place.problem("this is no hash of a token");
                context.note(problem.expected("what `lakegate user token add NAME` writes here"))
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// A moment in time: TOML's own date and time with a zone, or a text of that form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(pub(crate) DateTime<Utc>);

impl Low for Moment {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a date and time with a zone, as in 2026-01-31T12:00:00Z";
        let text = match value.get_ref() {
            DeValue::Datetime(moment) => moment.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => return context.mismatch(value, key, EXPECTED),
        };
        match DateTime::parse_from_rfc3339(&text) {
            Ok(moment) => Some(Self(moment.with_timezone(&Utc))),
            Err(_) => context.mismatch(value, key, EXPECTED),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "format": "date-time" })
    }
}
