//! Holds `docs/configuration.md` to the code: every key and every default stands there, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::super::{Format, check, json_schema};

/// `(section, key)` with what stands in the column `default`; the section is empty for keys of the file itself.
type Keys = BTreeMap<(String, String), String>;

fn guide() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap()
}

/// The rows below one of the two headings of the guide.
fn documented(guide: &str, heading: &str) -> Keys {
    let part = guide.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
    let (mut section, mut keys) = (String::new(), Keys::new());
    for line in part.lines() {
        if let Some(title) = line.strip_prefix("### `") {
            let name = title.split('`').next().unwrap().trim_matches(['[', ']']);
            section = name.trim_end_matches(".NAME").to_owned();
        }
        if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once("` | ").unwrap();
            let default = rest.split_once(" | ").unwrap().0;
            keys.insert((section.clone(), key.to_owned()), default.trim_matches('`').to_owned());
        }
    }
    keys
}

/// The keys of a schema with their defaults in JSON, which is how the guide writes them, or nothing.
fn known(schema: &Value) -> Keys {
    let mut keys = Keys::new();
    for (name, part) in schema["properties"].as_object().unwrap() {
        let inner = [part, &part["anyOf"][0], &part["items"], &part["additionalProperties"]];
        match inner.into_iter().find_map(|inner| inner["properties"].as_object()) {
            Some(section) => {
                for (key, schema) in section {
                    match schema["properties"].as_object() {
                        // A section within: `[access.oidc]`.
                        Some(inner) => keys.extend(
                            inner.iter().map(|(inner, part)| ((format!("{name}.{key}"), inner.clone()), default(part))),
                        ),
                        None => drop(keys.insert((name.clone(), key.clone()), default(schema))),
                    }
                }
            }
            None => {
                keys.insert((String::new(), name.clone()), default(part));
            }
        }
    }
    keys
}

fn default(schema: &Value) -> String {
    schema.get("default").map(Value::to_string).unwrap_or_default()
}

#[test]
fn the_guide_gives_every_key_and_every_default_and_no_others() {
    let guide = guide();
    for (format, heading) in [(Format::Lakegate, "lakegate.toml"), (Format::Table, "Table definitions")] {
        let (documented, known) = (documented(&guide, heading), known(&json_schema(format)));
        let names = |keys: &Keys| keys.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&documented), names(&known), "under {heading}");
        for (key, default) in known {
            let told = &documented[&key];
            assert!(default.is_empty() || *told == default, "{key:?} has the default {default}, the guide says {told}");
        }
    }
}

#[test]
fn the_examples_of_the_guide_are_right() {
    let folder = super::folder(&[]);
    let guide = guide();
    let examples: Vec<_> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    fs::create_dir_all(folder.path().join("tables/adhoc")).unwrap();
    fs::write(folder.path().join("tables/adhoc/applications.toml"), examples[1]).unwrap();
    fs::create_dir_all(folder.path().join("tables/ops")).unwrap();
    fs::write(folder.path().join("tables/ops/orders.toml"), examples[2]).unwrap();
    let lakegate = examples[0]
        .replace("{ env = \"STORE_KEY_ID\" }", "{ file = \"key\" }")
        .replace("{ env = \"OPS_PASSWORD\" }", "{ file = \"key\" }")
        .replace("/run/secrets/store_key", "key");
    fs::write(folder.path().join("lakegate.toml"), lakegate).unwrap();
    fs::write(folder.path().join("key"), "k").unwrap();
    assert_eq!(check(folder.path(), None).problems, []);
}

#[test]
fn the_grants_of_the_guide_are_right_and_every_key_of_theirs_is_told() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md")).unwrap();
    let examples: Vec<_> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [serve, oidc, grants] = examples.as_slice() else { panic!("{examples:?}") };
    let table = |columns: &str| format!("[source]\nfiles = \"a.csv\"\n{columns}");
    let email = "[[columns]]\nname = \"email\"\ntype = \"string\"\n";
    let orders = table(&[email, &email.replace("email", "order_id"), &email.replace("email", "total")].concat());
    let folder = super::folder(&[
        ("lakegate.toml", &format!("{serve}\n{oidc}")),
        ("grants.toml", grants),
        ("tls/certificate.pem", ""),
        ("tls/key.pem", ""),
        ("tables/ops/orders.toml", &orders),
    ]);
    assert_eq!(check(folder.path(), None).problems, []);
    for path in super::schema::key_paths(&json_schema(Format::Grants)) {
        let key = path.rsplit('.').next().unwrap();
        assert!(key == "version" || grants.contains(key), "{path} is in no example");
    }
}

#[test]
fn the_definitions_in_the_repository_are_right() {
    let report = check(Path::new(env!("CARGO_MANIFEST_DIR")), None);
    assert_eq!(report.problems, []);
}
