//! Finding the files of a configuration: `lakegate.toml` and `tables/<schema>/<table>.toml`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::problem::Problem;
use crate::config::reader::SourceFile;
use crate::model::TableName;

/// Schemas that lakegate fills itself.
pub(super) const RESERVED_SCHEMAS: &[&str] = &["system", "information_schema"];

/// A file as text, under the name it is reported by; `None` after a problem was noted.
pub(super) fn read_text(path: &Path, folder: &Path, problems: &mut Vec<Problem>) -> Option<Arc<SourceFile>> {
    let name = shown(path, folder);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            problems.push(Problem::of_file(name, format!("the file cannot be read: {error}")));
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Arc::new(SourceFile { name, text })),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let mut problem = Problem::of_file(name.clone(), "the file is not UTF-8 text");
            problem.at = Some(SourceFile { name, text }.line_and_column(valid));
            problems.push(problem.expected("the file saved in the encoding UTF-8"));
            None
        }
    }
}

/// The table definitions below `tables/` in the order of their names. A folder that is missing has none.
pub(super) fn table_files(folder: &Path, problems: &mut Vec<Problem>) -> Vec<(TableName, PathBuf)> {
    let root = folder.join("tables");
    let mut found: Vec<(TableName, PathBuf)> = Vec::new();
    for schema in entries(&root, folder, problems) {
        if !schema.is_dir() {
            if is_definition(&schema) {
                let problem =
                    Problem::of_file(shown(&schema, folder), "a definition stands in the folder of its schema");
                problems.push(problem.expected("tables/<schema>/<table>.toml"));
            }
            continue;
        }
        for file in entries(&schema, folder, problems) {
            found.extend(table_file(&schema, file, folder, problems));
        }
    }
    refuse_same_names(&root, folder, problems);
    found.sort();
    found
}

fn table_file(
    schema: &Path,
    file: PathBuf,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<(TableName, PathBuf)> {
    if file.is_dir() {
        if entries(&file, folder, problems).iter().any(|inner| is_definition(inner)) {
            let problem = Problem::of_file(shown(&file, folder), "folders of schemas have no folders with definitions");
            problems.push(problem.expected("tables/<schema>/<table>.toml"));
        }
        return None;
    }
    if !is_definition(&file) {
        return None;
    }
    let schema_name = schema.file_name().unwrap_or_default().to_string_lossy();
    let table_name = file.file_stem().unwrap_or_default().to_string_lossy();
    if RESERVED_SCHEMAS.contains(&schema_name.as_ref()) {
        let message = format!("the schema `{schema_name}` is lakegate's own");
        problems.push(Problem::of_file(shown(&file, folder), message).expected("another name of the folder"));
        return None;
    }
    match TableName::new(&schema_name, &table_name) {
        Ok(name) if file.extension().is_some_and(|extension| extension == "toml") => Some((name, file)),
        Ok(_) => {
            let problem = Problem::of_file(shown(&file, folder), "the file's ending is not in lower case");
            problems.push(problem.expected(".toml"));
            None
        }
        Err(error) => {
            let problem = Problem::of_file(shown(&file, folder), error.to_string());
            problems.push(problem.expected("tables/<schema>/<table>.toml in lower-case letters, digits and _"));
            None
        }
    }
}

/// Names that differ in case only are one file on some systems, so one of them would vanish there.
fn refuse_same_names(root: &Path, folder: &Path, problems: &mut Vec<Problem>) {
    let mut seen: HashMap<String, PathBuf> = HashMap::new();
    // What cannot be listed has been reported by the first pass.
    let mut listing = Vec::new();
    for schema in entries(root, folder, &mut listing).into_iter().filter(|path| path.is_dir()) {
        for file in entries(&schema, folder, &mut listing).into_iter().filter(|path| is_definition(path)) {
            let name = shown(&file, folder);
            if let Some(first) = seen.insert(name.to_string_lossy().to_lowercase(), name.clone()) {
                let message = format!("the file's name differs from {} in case only", first.display());
                problems.push(Problem::of_file(name, message).expected("one file for a table"));
            }
        }
    }
}

fn is_definition(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// What is in a folder, by name, without hidden files.
fn entries(path: &Path, folder: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let listed = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    match listed {
        Ok(mut paths) => {
            paths.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
            paths.sort();
            paths
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(Problem::of_file(shown(path, folder), format!("the folder cannot be listed: {error}")));
            Vec::new()
        }
    }
}

/// The path relative to the folder, where it is below it.
pub(super) fn shown(path: &Path, folder: &Path) -> PathBuf {
    path.strip_prefix(folder).unwrap_or(path).to_owned()
}
