//! Damaged files: whatever stands in them, reading ends with settings or with a problem that names a place in them.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::{Problems, check_with};
use super::folder;

const TABLE: &str = r#"
description = "Orders"
[[source]]
files = "landing/*.csv"
null_words = ["", "n/a"]
[load]
every = "1h30m"
max_rejects = "2%"
mode = "upsert"
[table]
key = ["id"]
[[columns]]
name = "id"
type = "decimal(10,2)"
nullable = false
"#;

const LAKEGATE: &str = r#"
[lake]
location = "lake"
[limits]
memory = "1GiB"
threads = 0x2
[tickets]
key = { env = "TICKET_KEY" }
[connections."my cloud"]
type = "s3"
[connections.ops]
type = "sqlserver"
host = "localhost"
database = "ops"
user = "reader"
password = { env = "OPS_PASSWORD" }
encrypt = "login"
packet_size = 4096
rate = "100Mbit/s"
hours = "22:00-06:00"
"#;

const SQL_TABLE: &str = r#"
[source]
connection = "ops"
table = "[my schema].[or]]ders]"
method = "rowversion"
leave_out = ["photo"]
max_cell = "1MiB"
[load]
mode = "upsert"
"#;

/// What is put in place of a part of a text.
fn damage() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\[\\]{}=\"'#.,\n0-9a-z -]{0,6}",
        "\\PC{0,3}",
        Just("inf".to_owned()),
        Just("-1".to_owned()),
        Just("99999999999999999999999999".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("[[source]]".to_owned()),
    ]
}

fn damaged(text: &str, at: prop::sample::Index, length: usize, by: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let start = at.index(letters.len());
    let end = (start + length).min(letters.len());
    letters[..start].iter().copied().chain(by.chars()).chain(letters[end..].iter().copied()).collect()
}

/// Chooses a seed and prints it, so that a failure can be run again with `PROPTEST_RNG_SEED`.
pub(in crate::config) fn seeded() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(rand::random());
    }
    println!("PROPTEST_RNG_SEED={}", config.rng_seed);
    config
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn damaged_files_give_settings_or_problems_in_their_lines(
        at in any::<prop::sample::Index>(), length in 0..12usize, by in damage(), which in any::<bool>(),
        of_files in any::<bool>(),
    ) {
        let table = if of_files { TABLE } else { SQL_TABLE };
        let table = damaged(table, at, if which { length } else { 0 }, if which { &by } else { "" });
        let lakegate = damaged(LAKEGATE, at, if which { 0 } else { length }, if which { "" } else { &by });
        let folder = folder(&[("lakegate.toml", &lakegate), ("tables/ops/orders.toml", &table)]);
        let report = check_with(folder.path(), None, &|_| Some("00".repeat(32)));
        prop_assert_eq!(report.settings.is_some(), Problems::of(&report.problems).is_none(), "{:?}", report.problems);
        for problem in &report.problems {
            let text = if problem.file == Path::new("lakegate.toml") { &lakegate } else { &table };
            let (line, column) = problem.at.unwrap();
            let width = text.split('\n').nth(line - 1).map(|line| line.chars().count());
            prop_assert!(width.is_some_and(|width| column <= width + 1), "{problem}\n{text}");
        }
        if let Some(settings) = &report.settings {
            prop_assert_eq!(settings.tables.len(), 1);
        }
    }
}
