//! Keys that the server compares otherwise than value by value: text of many collations, and `varbinary`.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use lakegate::etl::{SyncOptions, TableOutcome};
use lakegate::journal::LoadStatus::{Committed, Failed, Unchanged};
use lakegate::model::KeyFolding;
use lakegate::source::mssql::collation::folding_of;
use mssql_fixture::collation::Collation;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::support::Operations;
use crate::support::process::told;

/// A table of a key and a number, with a key of this type.
async fn keyed(key: &str) -> Operations {
    let ops = Operations::start().await;
    ops.table("t", &format!("k {key} NOT NULL PRIMARY KEY, v int NULL"));
    ops
}

fn position<'a>(outcome: &'a TableOutcome, field: &str) -> &'a serde_json::Value {
    &outcome.record.position.as_ref().unwrap()[field]
}

fn method(outcome: &TableOutcome) -> &str {
    position(outcome, "method").as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_only_its_case_or_its_blanks_stays_one_row() {
    let ops = keyed("nvarchar(40)").await;
    ops.sql("INSERT INTO dbo.t VALUES (N'Anna', 1), (N'bea', 2), (N'a', 3), (N'á', 4), (N'Å', 5), (N'co-op', 6), (N'coop', 7)");
    assert_eq!(method(&ops.sync(Committed).await), "change_tracking");
    ops.same("t", "k, v").await;

    ops.sql("UPDATE dbo.t SET k = N'ANNA' WHERE k = N'anna'");
    ops.sql("UPDATE dbo.t SET k = N'bea  ', v = 22 WHERE k = N'BEA'");
    ops.sql("DELETE FROM dbo.t WHERE k = N'A'");
    ops.sql("INSERT INTO dbo.t VALUES (N'A ', 33)");
    ops.sql("UPDATE dbo.t SET v = 44 WHERE k = N'Á'");
    ops.reads(4).await;
    assert_eq!(
        ops.rows("t").await,
        ["A |33", "ANNA|1", "bea  |22", "co-op|6", "coop|7", "Å|5", "á|44"],
        "accents and hyphens tell keys apart, case and blanks do not"
    );
    ops.same("t", "k, v").await;

    ops.sql("DELETE FROM dbo.t WHERE k = N'anna'");
    ops.sql("UPDATE dbo.t SET k = N'Bo' WHERE k = N'bea'");
    ops.sync(Committed).await;
    ops.same("t", "k, v").await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_collation_compares_as_its_name_says_or_is_left_to_the_server() {
    for (key, one, other, by) in [
        ("varchar(40) COLLATE SQL_Latin1_General_CP1_CI_AS", "abc", "ABC", "change_tracking"),
        ("varchar(40) COLLATE Latin1_General_CS_AS", "abc", "abc  ", "change_tracking"),
        ("nvarchar(40) COLLATE Latin1_General_100_BIN2", "abc", "abc ", "change_tracking"),
        ("varchar(40) COLLATE Latin1_General_100_CI_AS_SC_UTF8", "ärger", "ÄRGER", "change_tracking"),
        ("varchar(40) COLLATE Cyrillic_General_CI_AS", "ёж", "ЁЖ ", "change_tracking"),
        ("nvarchar(40) COLLATE French_CI_AS", "été", "ÉTÉ", "change_tracking"),
        ("char(6)", "ab", "AB", "change_tracking"),
        ("nvarchar(40) COLLATE Turkish_CI_AS", "abc", "ABC", "reload"),
        ("nvarchar(40) COLLATE Latin1_General_CI_AI", "abc", "ABC", "reload"),
    ] {
        let ops = keyed(key).await;
        ops.sql(&format!("INSERT INTO dbo.t VALUES (N'{one}', 1), (N'zoo', 2)"));
        let first = ops.sync(Committed).await;
        assert_eq!(method(&first), by, "{key}: {first:?}");
        let because = position(&first, "because").as_str().unwrap();
        assert!(by == "change_tracking" || because.contains("only the server knows"), "{key}: {because}");
        ops.same("t", "k, v").await;
        ops.sql(&format!("UPDATE dbo.t SET k = N'{other}', v = 3 WHERE k = N'{one}'"));
        ops.sql("INSERT INTO dbo.t VALUES (N'yes', 4)");
        ops.sync(Committed).await;
        ops.same("t", "k, v").await;
        ops.sql(&format!("DELETE FROM dbo.t WHERE k = N'{one}'"));
        ops.sync(Committed).await;
        ops.same("t", "k, v").await;
        assert_eq!(ops.rows("t").await.len(), 2, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_case_counts_keys_that_differ_by_it_are_two_rows() {
    for collation in ["Latin1_General_CS_AS", "Latin1_General_BIN2"] {
        let ops = keyed(&format!("nvarchar(40) COLLATE {collation}")).await;
        ops.sql("INSERT INTO dbo.t VALUES (N'abc', 1), (N'ABC', 2), (N'aBc', 3)");
        ops.sync(Committed).await;
        ops.sql("UPDATE dbo.t SET v = 20 WHERE k = N'ABC'");
        ops.sql("DELETE FROM dbo.t WHERE k = N'aBc '");
        ops.reads(2).await;
        assert_eq!(ops.rows("t").await, ["ABC|20", "abc|1"], "{collation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns_fold_each_column_by_itself() {
    let ops = Operations::start().await;
    ops.table(
        "t",
        "n int NOT NULL, k nvarchar(40) NOT NULL, c char(4) COLLATE Latin1_General_CS_AS NOT NULL, v int NULL, \
         PRIMARY KEY (k, n, c)",
    );
    ops.sql("INSERT INTO dbo.t VALUES (1, N'a', 'x', 1), (2, N'A', 'x', 2), (1, N'A', 'X', 3), (2, N'b', 'x', 4)");
    assert_eq!(method(&ops.sync(Committed).await), "change_tracking");
    ops.same("t", "n, k, c, v").await;
    ops.sql("UPDATE dbo.t SET k = N'A ', v = 10 WHERE n = 1 AND k = N'A' AND c = 'x'");
    ops.sql("DELETE FROM dbo.t WHERE n = 1 AND k = N'a' AND c = 'X'");
    ops.sql("UPDATE dbo.t SET k = N'B', n = 3 WHERE k = N'B'");
    ops.sync(Committed).await;
    ops.same("t", "n, k, c, v").await;
    assert_eq!(ops.rows("t").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_at_the_end_of_a_binary_key_do_not_count() {
    let ops = keyed("varbinary(16)").await;
    ops.sql("INSERT INTO dbo.t VALUES (0x01, 1), (0x0200, 2), (0x, 3), (0x0102, 4), (0x00FF, 5)");
    assert_eq!(method(&ops.sync(Committed).await), "change_tracking");
    assert_eq!(ops.rows("t").await, ["00ff|5", "0102|4", "01|1", "0200|2", "|3"]);
    ops.sql("UPDATE dbo.t SET k = 0x0100, v = 10 WHERE k = 0x01");
    ops.sql("DELETE FROM dbo.t WHERE k = 0x0200");
    ops.sql("INSERT INTO dbo.t VALUES (0x02, 20)");
    ops.sql("UPDATE dbo.t SET v = 40 WHERE k = 0x0102");
    ops.sync(Committed).await;
    assert_eq!(ops.rows("t").await, ["00ff|5", "0100|10", "0102|40", "02|20", "|3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_one_here_cannot_be_two_there() {
    let ops = keyed("nvarchar(40)").await;
    ops.sql("INSERT INTO dbo.t VALUES (N'Änne', 1)");
    for same in ["ÄNNE", "änne  "] {
        let error = ops.server.database().execute(&format!("INSERT INTO dbo.t VALUES (N'{same}', 2)")).unwrap_err();
        assert!(format!("{error:?}").contains("2627"), "{same}: {error:?}");
    }
    ops.sql("INSERT INTO dbo.t VALUES (N'Anne', 2), (N' änne', 3)");
}

/// The stand-in has rules of its own, which know nothing of how the lake folds.
#[test]
fn covered_texts_are_equal_for_the_server_exactly_where_they_fold_to_one() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let letters: Vec<char> =
        (' '..'\u{500}').filter(|letter| KeyFolding::Letters.covers(&letter.to_string())).collect();
    assert!(letters.len() > 250, "{}", letters.len());
    let other_case = |letter: char, random: &mut StdRng| {
        let (mut upper, mut lower) = (letter.to_uppercase(), letter.to_lowercase());
        if random.random_bool(0.5) { upper.next().unwrap() } else { lower.next().unwrap() }
    };
    for (name, folding) in [
        ("Latin1_General_CI_AS", KeyFolding::LettersWithoutCase),
        ("SQL_Latin1_General_CP1_CI_AS", KeyFolding::LettersWithoutCase),
        ("Latin1_General_CS_AS", KeyFolding::Letters),
        ("Latin1_General_BIN2", KeyFolding::TrimBlanks),
    ] {
        assert_eq!(folding_of(name), folding, "{name}");
        let collation = Collation::parse(name).unwrap();
        let check = |one: &str, other: &str| {
            let (there, here) = (collation.compare(one, other).is_eq(), folding.fold(one) == folding.fold(other));
            assert_eq!(there, here, "{name}: {one:?} and {other:?}");
        };
        for one in &letters {
            for other in &letters {
                check(&one.to_string(), &other.to_string());
            }
        }
        for _ in 0..20_000 {
            let one: Vec<char> =
                (0..random.random_range(0..6)).map(|_| letters[random.random_range(0..letters.len())]).collect();
            let other: String = one.iter().map(|letter| other_case(*letter, &mut random)).collect();
            if !folding.covers(&other) {
                continue;
            }
            let one: String = one.into_iter().collect();
            check(&one, &other);
            check(&format!("{one}  "), &other);
            check(&format!(" {one}"), &other);
        }
    }
}

/// The words keys are made of; each with a number is one key, however it is written.
const WORDS: [&str; 8] = ["anna", "Änne", "co-op", "Ёлка", "été", "σίσυφοσ", "a b", "_x"];

/// One way to write a key.
fn spelled(number: u32, random: &mut StdRng) -> String {
    let word = WORDS[number as usize % WORDS.len()];
    let mut text: String = word
        .chars()
        .map(|letter| match random.random_range(0..2) {
            0 => letter.to_uppercase().next().unwrap(),
            _ => letter.to_lowercase().next().unwrap(),
        })
        .collect();
    text += &format!("-{}{}", number / 8, " ".repeat(random.random_range(0..3)));
    text
}

/// Random changes of a table of a thousand keys, which lies in many small files in the lake.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_however_they_are_written_follow_the_table() {
    for seed in [7, rand::random()] {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let ops = Operations::start().await;
        ops.configure("chunk_time = \"1ms\"");
        let settings = std::fs::read_to_string(ops.team.file("lakegate.toml")).unwrap();
        ops.team.write("lakegate.toml", settings + "target_file_size = \"1KiB\"\n");
        ops.table("t", "k nvarchar(40) NOT NULL PRIMARY KEY, v int NULL");
        let mut there = BTreeSet::new();
        for round in 0..6 {
            let changes = if round == 0 { 1_000 } else { 60 };
            for _ in 0..changes {
                let number = random.random_range(0..1_200);
                let key = spelled(number, &mut random);
                let value = random.random_range(0..1_000_000);
                if there.insert(number) {
                    ops.sql(&format!("INSERT INTO dbo.t VALUES (N'{key}', {value})"));
                } else if random.random_bool(0.3) {
                    ops.sql(&format!("DELETE FROM dbo.t WHERE k = N'{key}'"));
                    there.remove(&number);
                } else if random.random_bool(0.5) {
                    ops.sql(&format!("UPDATE dbo.t SET k = N'{key}', v = {value} WHERE k = N'{key}'"));
                } else {
                    ops.sql(&format!("UPDATE dbo.t SET v = {value} WHERE k = N'{key}'"));
                }
            }
            let report = ops.team.sync_with(&SyncOptions { now: true, ..SyncOptions::default() }).await;
            assert!(report.is_success(), "seed {seed}, round {round}: {report:?}");
            assert_eq!(ops.rows("t").await.len(), there.len(), "seed {seed}, round {round}");
            ops.same("t", "k, v").await;
            assert!(round == 0 || report.tables[0].record.rows_read <= 60, "changes alone are read: {report:?}");
        }
        let snapshot = ops.team.open().await.1.table(&"ops.t".parse().unwrap()).snapshot().await.unwrap().unwrap();
        assert!(snapshot.files() > 3, "seed {seed}: {} files", snapshot.files());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_load_by_text_that_is_killed_goes_on_where_it_was() {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    ops.table("t", "k varchar(40) COLLATE Latin1_General_CI_AS NOT NULL PRIMARY KEY, v int NULL");
    let mut random = StdRng::seed_from_u64(5);
    let keys = |numbers: std::ops::Range<u32>, random: &mut StdRng| -> Vec<String> {
        // The code page has no Greek and no Russian letters.
        let latin = numbers.filter(|number| !matches!(number % 8, 3 | 5));
        latin.map(|number| spelled(number, random)).collect()
    };
    for some in keys(0..4_000, &mut random).chunks(500) {
        let values: Vec<String> = some.iter().map(|key| format!("('{key}', 1)")).collect();
        ops.sql(&format!("INSERT INTO dbo.t VALUES {}", values.join(", ")));
    }
    for round in 0..3 {
        let killed = ops.program(&[("etl.whole.kept", "1*off->return(kill)")]).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{}", told(&killed));
        for key in keys(round * 1_000..round * 1_000 + 200, &mut random) {
            ops.sql(&format!("UPDATE dbo.t SET k = '{key}', v = v + 1 WHERE k = '{key}'"));
        }
        for key in keys(round * 1_000 + 300..round * 1_000 + 310, &mut random) {
            ops.sql(&format!("DELETE FROM dbo.t WHERE k = '{key}'"));
        }
    }
    ops.server.database().faults().forget_statements();
    let last = ops.program(&[]).output().unwrap();
    assert!(last.status.success(), "{}", told(&last));
    assert!(ops.chunks().iter().all(|chunk| chunk.contains("@a1 ")), "it goes on behind what was read");
    ops.same("t", "k, v").await;
    ops.sync(Unchanged).await;
}

/// A value that equals others in ways that are not known here.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_only_the_server_can_compare_is_left_to_it_until_it_is_asked_for_again() {
    let ops = keyed("nvarchar(40)").await;
    ops.sql("INSERT INTO dbo.t VALUES (N'Gasse', 1), (N'Weg', 2)");
    assert_eq!(method(&ops.sync(Committed).await), "change_tracking");

    ops.sql("INSERT INTO dbo.t VALUES (N'Straße', 3)");
    ops.sql("UPDATE dbo.t SET k = N'GASSE' WHERE k = N'gasse'");
    let met = ops.sync(Committed).await;
    assert_eq!((method(&met), met.record.rows_read), ("reload", 3), "{met:?}");
    let because = position(&met, "because").as_str().unwrap();
    assert!(because.contains("`k`") && because.contains("`Straße`") && because.contains("--reload"), "{because}");
    ops.same("t", "k, v").await;

    // The same for the server; in the lake they are two texts, one of which is gone.
    ops.sql("UPDATE dbo.t SET k = N'STRASSE' WHERE k = N'straße'");
    assert_eq!(method(&ops.sync(Committed).await), "reload");
    ops.same("t", "k, v").await;
    assert_eq!(ops.rows("t").await, ["GASSE|1", "STRASSE|3", "Weg|2"]);

    // No such key is there any more, but that is not looked for of itself.
    ops.sql("UPDATE dbo.t SET v = 4 WHERE k = N'Weg'");
    assert_eq!(method(&ops.sync(Committed).await), "reload");
    ops.sync(Unchanged).await;
    let reload = SyncOptions { reload: true, ..SyncOptions::default() };
    let asked = ops.team.sync_with(&reload).await;
    assert_eq!(method(&asked.tables[0]), "change_tracking", "{asked:?}");
    ops.sql("UPDATE dbo.t SET v = 5 WHERE k = N'weg'");
    ops.reads(1).await;
    ops.same("t", "k, v").await;

    ops.sql("INSERT INTO dbo.t VALUES (N'Maße', 6)");
    ops.sync(Committed).await;
    let asked = ops.team.sync_with(&reload).await;
    assert_eq!(method(&asked.tables[0]), "reload", "such a key is still there: {asked:?}");
    ops.same("t", "k, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_that_meets_such_a_key_reads_the_table_otherwise() {
    let ops = keyed("nvarchar(40)").await;
    ops.sql("INSERT INTO dbo.t VALUES (N'Weg', 1), (N'Straße', 2)");
    let first = ops.sync(Committed).await;
    assert_eq!(method(&first), "reload", "{first:?}");
    assert_eq!(position(&first, "incomparable")["value"], "Straße");
    ops.same("t", "k, v").await;
    ops.sync(Unchanged).await;

    // A collation that can be compared makes the value one that can, too.
    ops.sql("CREATE TABLE dbo.u (k nvarchar(40) COLLATE Latin1_General_BIN2 NOT NULL PRIMARY KEY, v int NULL)");
    ops.sql("ALTER TABLE dbo.u ENABLE CHANGE_TRACKING");
    ops.sql("INSERT INTO dbo.u VALUES (N'Straße', 2), (N'Strasse', 3)");
    ops.team.define("ops.t", "[source]\nconnection = \"ops\"\ntable = \"dbo.u\"\n");
    let other = ops.sync(Committed).await;
    assert_eq!((method(&other), position(&other, "incomparable").is_null()), ("change_tracking", true), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_change_tracking_by_name_is_told_of_such_a_key() {
    let ops = keyed("nvarchar(40)").await;
    ops.define("t", "method = \"change_tracking\"");
    ops.sql("INSERT INTO dbo.t VALUES (N'Weg', 1)");
    ops.sync(Committed).await;
    ops.sql("INSERT INTO dbo.t VALUES (N'Straße', 2)");
    let refused = ops.refused().await;
    assert!(refused.contains("`k` of [dbo].[t] holds `Straße`") && refused.contains("_BIN2"), "{refused}");
    assert_eq!(ops.rows("t").await, ["Weg|1"]);
    ops.sql("DELETE FROM dbo.t WHERE k = N'Straße'");
    // That it went is told by its key.
    assert!(matches!(ops.team.sync_one().await.record.status, Failed | Committed | Unchanged));
    ops.define("t", "method = \"reload\"");
    ops.sync(Committed).await;
    ops.same("t", "k, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_meeting_such_a_key_and_reading_the_table_otherwise_nothing_is_lost() {
    for (point, what) in [
        ("etl.reading.opened", "1*off->return(kill)"),
        ("etl.whole.made", "return(kill)"),
        ("lake.commit.before", "return(kill)"),
        ("lake.commit.after", "1*off->return(kill)"),
    ] {
        let ops = keyed("nvarchar(40)").await;
        ops.sql("INSERT INTO dbo.t VALUES (N'Gasse', 1), (N'Weg', 2)");
        ops.sync(Committed).await;
        ops.sql("INSERT INTO dbo.t VALUES (N'Straße', 3)");
        ops.sql("UPDATE dbo.t SET k = N'WEG' WHERE k = N'weg'");
        let killed = ops.program(&[(point, what)]).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{point}: {}", told(&killed));
        let next = ops.team.sync_one().await;
        assert!(matches!(next.record.status, Committed | Unchanged), "{point}: {next:?}");
        ops.same("t", "k, v").await;
        ops.sql("DELETE FROM dbo.t WHERE k = N'GASSE'");
        assert_eq!(method(&ops.sync(Committed).await), "reload", "{point}");
        ops.same("t", "k, v").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_and_the_list_of_tables_tell_how_keys_are_compared() {
    let ops = keyed("nvarchar(40)").await;
    ops.sql("CREATE TABLE dbo.turkish (k nvarchar(9) COLLATE Turkish_CI_AS NOT NULL PRIMARY KEY)");
    ops.sql("ALTER TABLE dbo.turkish ENABLE CHANGE_TRACKING");
    let listed = told(&ops.team.run(&["tables", "--connection", "ops", "--format", "csv"]));
    let examined = told(&ops.team.run(&["doctor", "ops"]));
    assert!(listed.contains("in the collation Turkish_CI_AS, and which of its values are equal"), "{listed}");
    for text in [&listed, &examined] {
        assert!(text.contains("`k` (SQL_Latin1_General_CP1_CI_AS) neither case nor blanks at the end count"), "{text}");
    }
}
