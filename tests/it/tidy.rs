//! Holds the shape of the house: floors, file headers, sizes, words that do not belong, and the top level.
//!
//! Each rule is a function from a file's path and text to complaints, so that it can be shown to fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file in lines, its unit tests not counted.
const MAX_FILE_LINES: usize = 600;
/// Longest function in lines, signature and closing brace included.
const MAX_FUNCTION_LINES: usize = 100;

/// What may stand at the top level beside files whose name begins with a dot: DESIGN §3.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "tables",
    "docker",
    "docker-compose.yml",
    "benches",
    "tests",
    "python-client",
    "README.md",
    "Makefile",
    "LICENSE",
    "CHANGELOG.md",
    "docs",
];

/// Module names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "types", "helpers", "helper", "misc"];

#[test]
fn no_room_uses_a_room_on_its_own_floor_or_above() {
    let floors = floors(&read("src/lib.rs"));
    assert!(floors.len() > 8, "the floors in src/lib.rs were not understood: {floors:?}");
    check(&["src"], "rs", |path, text| floor_breaches(path, text, &floors));
}

#[test]
fn every_room_stands_on_a_floor() {
    let floors = floors(&read("src/lib.rs"));
    let rooms = fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path());
    for room in rooms.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())) {
        let stands = floors.iter().any(|(_, name)| *name == room) || ["lib", "main"].contains(&room.as_str());
        assert!(stands, "src/{room} stands on no floor: give it one in FLOORS in src/lib.rs");
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    check(&["src", "tests", "benches"], "rs", header);
    check(&["python-client", "tests", "benches", ".ci"], "py", header);
}

#[test]
fn no_file_and_no_function_is_too_long() {
    check(&["src", "tests", "benches"], "rs", length);
    check(&["python-client", "tests", "benches", ".ci"], "py", length);
}

#[test]
fn no_file_says_what_it_should_not() {
    check(&["src", "tests", "benches"], "rs", forbidden_code);
    for ending in ["rs", "py", "toml", "md", "yml", "svg", "slt", "txt"] {
        check(&["."], ending, machine_names);
    }
    for name in ["Makefile", ".ci/run", ".ci/prerequisites", ".ci/venv", "docker/lakegate/Dockerfile"] {
        assert_eq!(machine_names(Path::new(name), &read(name)), Vec::<String>::new());
    }
}

#[test]
fn the_top_level_is_as_designed() {
    let ignored = read(".gitignore");
    let entries = fs::read_dir(root()).unwrap();
    let names: BTreeSet<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(strangers(&names, &ignored), Vec::<String>::new(), "these do not belong at the top level");
    for name in TOP_LEVEL {
        assert!(names.contains(*name), "{name} is missing at the top level");
    }
}

type Floors = Vec<(u8, String)>;

/// The table in `src/lib.rs`: lines such as `(3, &["lake", "source"]),`.
fn floors(library: &str) -> Floors {
    let table = library.split_once("FLOORS:").map_or("", |(_, after)| after);
    let table = table.split_once("];").map_or(table, |(inside, _)| inside);
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((number, names)) = line.trim().strip_prefix('(').and_then(|line| line.split_once(',')) else {
            continue;
        };
        let floor = number.trim().parse().unwrap();
        found.extend(names.split('"').skip(1).step_by(2).map(|name| (floor, name.to_owned())));
    }
    found
}

fn floor_breaches(path: &Path, text: &str, floors: &Floors) -> Vec<String> {
    let floor_of = |room: &str| floors.iter().find(|(_, name)| name == room).map(|(floor, _)| *floor);
    let room = path.components().nth(1).unwrap().as_os_str().to_string_lossy();
    let room = room.trim_end_matches(".rs");
    let Some(own) = floor_of(room) else { return Vec::new() };
    let mut complaints = Vec::new();
    for (line, used) in used_rooms(text) {
        if used != room && floor_of(&used).is_some_and(|floor| floor >= own) {
            complaints.push(format!("line {line}: `{room}` (floor {own}) uses `{used}`, which is not below it"));
        }
    }
    complaints
}

/// The rooms named after `crate::` in code, with the line; `crate::{a, b::c}` names a and b.
fn used_rooms(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned() + "\n").collect();
    let mut found = Vec::new();
    for (start, marker) in code.match_indices("crate::") {
        let line = code[..start].lines().count().max(1);
        let rest = &code[start + marker.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(names_of_group(group).into_iter().map(|name| (line, name)));
        } else {
            found.push((line, identifier(rest)));
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names inside braces, deeper braces left out.
fn names_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0_usize, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.push(identifier(&group[start..at]));
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn header(path: &Path, text: &str) -> Vec<String> {
    let python = path.extension().is_some_and(|ending| ending == "py");
    let opens = if python { text.starts_with("\"\"\"") } else { text.starts_with("//!") };
    if opens || text.is_empty() {
        return Vec::new();
    }
    vec!["the file does not open with a sentence saying what it is for".to_owned()]
}

fn length(_: &Path, text: &str) -> Vec<String> {
    let lines: Vec<_> = text.split("#[cfg(test)]\nmod ").next().unwrap_or("").lines().collect();
    let mut complaints = Vec::new();
    if lines.len() > MAX_FILE_LINES {
        complaints.push(format!("{} lines without tests; at most {MAX_FILE_LINES}", lines.len()));
    }
    for (start, first) in lines.iter().enumerate() {
        let code = first.trim_start();
        let words = code.split_once('(').map_or("", |(before, _)| before);
        if !words.split_whitespace().any(|word| word == "fn") || code.starts_with("//") || code.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", &first[..first.len() - code.len()]);
        // A signature may take several lines, and a trait's method may have no body after it.
        let signed = lines[start..].iter().position(|line| line.contains('{') || line.ends_with(';'));
        let has_body = signed.is_some_and(|at| lines[start + at].ends_with('{'));
        let end = lines[start..].iter().position(|line| has_body && **line == close).unwrap_or(0);
        if end + 1 > MAX_FUNCTION_LINES {
            complaints.push(format!(
                "line {}: a function of {} lines; at most {MAX_FUNCTION_LINES}",
                start + 1,
                end + 1
            ));
        }
    }
    complaints
}

/// Code that is refused. The words are put together here so that this file does not hold them.
fn forbidden_code(path: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if EMPTY_NAMES.contains(&stem.as_ref()) || (stem == "mod" && EMPTY_NAMES.contains(&folder.as_ref())) {
        complaints.push("the module's name says nothing; name it after what it holds".to_owned());
    }
    let outside_config = path.starts_with("src") && !path.starts_with("src/config");
    let words = [
        (concat!("to", "do!("), true),
        (concat!("un", "implemented!("), true),
        (concat!("#[al", "low("), true),
        (concat!("#[ig", "nore"), true),
        (concat!("env:", ":var"), outside_config),
    ];
    for (word, applies) in words {
        if applies && text.contains(word) {
            complaints.push(format!("`{word}` does not belong here"));
        }
    }
    complaints
}

/// Names of machines, of their folders and of package registries.
fn machine_names(_: &Path, text: &str) -> Vec<String> {
    let names = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("pythonhosted", ".org"),
        concat!("npmjs", ".com"),
    ];
    names.iter().filter(|name| text.contains(**name)).map(|name| format!("it names `{name}`")).collect()
}

fn strangers(names: &BTreeSet<String>, ignored: &str) -> Vec<String> {
    let ignored: Vec<_> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let known = |name: &str| name.starts_with('.') || TOP_LEVEL.contains(&name) || ignored.contains(&name);
    names.iter().filter(|name| !known(name)).cloned().collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Applies a rule to all files with an ending below some folders; fails with every complaint at once.
fn check(folders: &[&str], ending: &str, rule: impl Fn(&Path, &str) -> Vec<String>) {
    let mut complaints = Vec::new();
    for path in folders.iter().flat_map(|folder| files(Path::new(folder), ending)) {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        complaints.extend(rule(&path, &text).into_iter().map(|complaint| format!("{}: {complaint}", path.display())));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Files with an ending, relative to the repository; what git ignores or keeps for itself is left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let ignored = read(".gitignore");
    let skipped: Vec<_> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = folder.strip_prefix(".").unwrap_or(folder).join(&name);
        if skipped.contains(&name.as_str()) || name == ".git" || name.ends_with("_cache") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    found
}

mod checks_can_fail {
    use super::*;

    fn table() -> Floors {
        floors(
            "pub const FLOORS: &[(u8, &[&str])] = &[\n    (5, &[\"query\"]),\n    (3, &[\"lake\", \"source\"]),\n];\n",
        )
    }

    #[test]
    fn the_floors_are_read_from_their_table() {
        let expected = [(5, "query"), (3, "lake"), (3, "source")].map(|(floor, room)| (floor, room.to_owned()));
        assert_eq!(table(), expected);
    }

    #[test]
    fn upward_and_sideways_uses_are_found_in_every_form() {
        let breaches = |text: &str| floor_breaches(Path::new("src/lake/chain.rs"), text, &table()).len();
        assert_eq!(breaches("use crate::query::Engine;"), 1);
        assert_eq!(breaches("use crate::{lake::a, source, query::{b, c}};"), 2);
        assert_eq!(breaches("fn a() { crate::source::b() }"), 1);
        assert_eq!(breaches("use crate::lake::chain;\n// use crate::query::x\n/// [`crate::query`]"), 0);
        assert_eq!(floor_breaches(Path::new("src/query/mod.rs"), "use crate::lake::Lake;", &table()).len(), 0);
    }

    #[test]
    fn a_missing_header_is_found() {
        assert_eq!(header(Path::new("a.rs"), "use std::fs;").len(), 1);
        assert_eq!(header(Path::new("a.py"), "import os").len(), 1);
        assert_eq!(header(Path::new("a.rs"), "//! What it is for.").len(), 0);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let body = "    let a = 1;\n".repeat(MAX_FUNCTION_LINES);
        assert_eq!(length(Path::new("a.rs"), &format!("pub fn a() {{\n{body}}}\n")).len(), 1);
        assert_eq!(length(Path::new("a.rs"), "fn a() {\n}\n").len(), 0);
        let body = "        let a = 1;\n".repeat(MAX_FUNCTION_LINES - 2);
        for bodyless in [
            "fn a(\n        &self,\n    ) -> u8;",
            "fn a(\n        &self,\n    ) -> u8\n    where\n        Self: Sized;",
        ] {
            let after = |body: &str| format!("trait A {{\n    {bodyless}\n\n    fn b(&self) {{\n{body}    }}\n}}\n");
            assert_eq!(
                length(Path::new("a.rs"), &after(&body)).len(),
                0,
                "a method without a body ends with its signature"
            );
            assert_eq!(length(Path::new("a.rs"), &after(&format!("{body}        let b = 1;\n"))).len(), 1);
        }
        let wrapped = format!("fn a(\n    a: u8,\n) {{\n{}}}\n", "    let a = 1;\n".repeat(MAX_FUNCTION_LINES));
        assert_eq!(length(Path::new("a.rs"), &wrapped).len(), 1);
        assert_eq!(length(Path::new("a.rs"), &"// line\n".repeat(MAX_FILE_LINES + 1)).len(), 1);
        let tested = format!("fn a() {{\n}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "// line\n".repeat(MAX_FILE_LINES));
        assert_eq!(length(Path::new("a.rs"), &tested).len(), 0);
    }

    #[test]
    fn words_that_do_not_belong_are_found() {
        let code = |path: &str, text: &str| forbidden_code(Path::new(path), text).len();
        assert_eq!(code("src/lake/mod.rs", concat!("to", "do!()")), 1);
        assert_eq!(code("src/lake/utils.rs", ""), 1);
        assert_eq!(code("src/lake/a.rs", concat!("std::env:", ":var(name)")), 1);
        assert_eq!(code("src/config/a.rs", concat!("std::env:", ":var(name)")), 0);
        assert_eq!(machine_names(Path::new("a"), concat!("see /ro", "ot/x")).len(), 1);
    }

    #[test]
    fn strangers_at_the_top_level_are_found() {
        let names = ["src", ".git", "target", "notes.txt"].map(str::to_owned).into();
        assert_eq!(strangers(&names, "/target\n"), ["notes.txt"]);
    }
}
