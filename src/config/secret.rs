//! Secrets: where they are taken from, and fetching them. They never stand in the configuration itself, and
//! nothing here shows one.

use secrecy::SecretString;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::lakegate_file::Surroundings;
use crate::config::reader::{Context, Field, Low, join};

/// Where a secret is to be taken from. The secret itself is never written into a configuration.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// An environment variable.
    Environment(String),
    /// A file, whose content without the line break at its end is the secret.
    File(String),
}

impl Low for SecretSource {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "{ env = \"NAME\" } or { file = \"path\" }";
        let place = context.place(value.span(), key);
        // Nothing that was found is shown: it may be the secret.
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            DeValue::String(_) => {
                let message = "a secret does not stand in this file, where copies and version control would spread it";
                return context.note(place.problem(message).expected(EXPECTED));
            }
            _ => return context.note(place.problem("this is no place of a secret").expected(EXPECTED)),
        };
        match single_entry(table) {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Some(Self::Environment(name.to_owned()))
            }
            Some(("file", path)) if !path.is_empty() => Some(Self::File(path.to_owned())),
            _ => {
                let known = ["env", "file"];
                for name in table.keys().filter(|name| !known.contains(&name.get_ref().as_ref())) {
                    let place = context.place(name.span(), &join(key, name.get_ref()));
                    let problem = place.problem("this is no place of a secret").expected(EXPECTED);
                    context.note::<()>(problem.near(name.get_ref(), known));
                }
                context.note(place.problem("it is not said where the secret is").expected(EXPECTED))
            }
        }
    }

    fn schema() -> Value {
        let text = json!({ "type": "string", "minLength": 1 });
        json!({ "anyOf": [
            { "type": "object", "properties": { "env": text }, "required": ["env"], "additionalProperties": false },
            { "type": "object", "properties": { "file": text }, "required": ["file"], "additionalProperties": false },
        ] })
    }
}

fn single_entry<'a>(table: &'a DeTable<'_>) -> Option<(&'a str, &'a str)> {
    let (name, value) = table.iter().next().filter(|_| table.len() == 1)?;
    Some((name.get_ref(), value.get_ref().as_str()?))
}

/// The secret a field points to. Problems name the variable or file, never what is in it.
pub(super) fn secret(field: &Field<SecretSource>, around: &mut Surroundings<'_>) -> Option<Option<SecretString>> {
    let at = match field {
        Field::Missing => return Some(None),
        Field::Wrong => return None,
        Field::Given(at) => at,
    };
    let (found, place) = match &at.value {
        SecretSource::Environment(name) => {
            let value = (around.environment)(name);
            (value.ok_or_else(|| "it is not set".to_owned()), format!("the environment variable {name}"))
        }
        SecretSource::File(path) => {
            let text = std::fs::read_to_string(around.folder.join(path));
            (text.map_err(|error| error.to_string()), format!("the file {path}"))
        }
    };
    let message = match found.as_deref().map(|text| text.trim_end_matches(['\n', '\r'])) {
        Ok("") => "it is empty".to_owned(),
        Ok(text) => return Some(Some(SecretString::from(text))),
        Err(message) => message.clone(),
    };
    around.problems.push(at.place.problem(format!("the secret cannot be read from {place}: {message}")));
    None
}
