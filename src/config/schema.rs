//! JSON Schemas of the formats, generated from the declarations the reader works from, so that editors
//! complete keys and show what they mean.

use serde_json::{Value, json};

use crate::config::access::{LowGrants, LowUsers};
use crate::config::low::{LowLakegate, LowTable};
use crate::config::reader::{Low, join};

/// Which of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `lakegate.toml`.
    Lakegate,
    /// `tables/<schema>/<table>.toml`.
    Table,
    /// The grants file.
    Grants,
    /// The users file.
    Users,
}

/// The JSON Schema of a format, in draft 7, which is what TOML editors read.
pub fn json_schema(format: Format) -> Value {
    let (title, schema) = match format {
        Format::Lakegate => ("lakegate.toml", LowLakegate::schema()),
        Format::Table => ("lakegate table definition", LowTable::schema()),
        Format::Grants => ("lakegate grants", LowGrants::schema()),
        Format::Users => ("lakegate users", LowUsers::schema()),
    };
    let mut document = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "title": title });
    if let (Value::Object(document), Value::Object(schema)) = (&mut document, schema) {
        document.extend(schema);
    }
    document
}

/// One key's schema with its description and default; an empty table is no default worth showing.
pub(crate) fn property(mut schema: Value, documentation: &str, default: Option<&str>) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), Value::from(documentation.trim()));
        if let Some(default) = default.filter(|text| *text != "{}").and_then(json_default) {
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

fn json_default(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("default = {text}")).ok()?;
    serde_json::to_value(table.get("default")?).ok()
}

/// Every key of a schema with those above it, as in `load.every`; a name the user chooses is `NAME`.
pub(crate) fn key_paths(schema: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    gather_paths(schema, "", &mut paths);
    paths.sort();
    paths.dedup();
    paths
}

fn gather_paths(schema: &Value, above: &str, paths: &mut Vec<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = join(above, key);
        gather_paths(schema, &path, paths);
        paths.push(path);
    }
    for schema in schema["anyOf"].as_array().into_iter().flatten() {
        gather_paths(schema, above, paths);
    }
    gather_paths_below(&schema["items"], above, paths);
    gather_paths_below(&schema["additionalProperties"], &join(above, "NAME"), paths);
}

fn gather_paths_below(schema: &Value, above: &str, paths: &mut Vec<String>) {
    if schema.is_object() {
        gather_paths(schema, above, paths);
    }
}
