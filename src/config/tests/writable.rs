//! Tables that people write, and keys of other tables.

use super::{about_table, problems, settings};
use crate::config::TableSource;

const COLUMNS: &str = "[[columns]]\nname = \"id\"\ntype = \"bigint\"\n";

#[test]
fn a_writable_table_may_do_without_a_source() {
    let text = format!("[table]\nkey = [\"id\"]\nwritable = true\n{COLUMNS}");
    let mut settings = settings(&[("tables/ops/notes.toml", &text)]);
    let table = settings.tables.remove(&"ops.notes".parse().unwrap()).unwrap();
    assert!(table.writable && matches!(table.source, TableSource::Files(blocks) if blocks.is_empty()));
}

#[test]
fn nothing_may_take_away_what_people_write() {
    let wrong = [
        ("[table]\nwritable = true\n".to_owned(), "none are declared"),
        (format!("[load]\nevery = \"1h\"\n[table]\nwritable = true\n{COLUMNS}"), "nothing to load"),
        ("[source]\nfiles = \"a.csv\"\n[load]\nmode = \"replace\"\n[table]\nwritable = true\n".to_owned(), "take away"),
        ("[source]\nfiles = \"a.csv\"\n[load]\nmode = \"mirror\"\n[table]\nwritable = true\n".to_owned(), "take away"),
        (format!("[load]\ngroup = \"day\"\n[table]\nwritable = true\n{COLUMNS}"), "would not be seen"),
        (format!("[table]\nwritable = false\n{COLUMNS}"), "no [source]"),
    ];
    for (text, told) in wrong {
        let said = about_table(&text);
        assert!(said.len() == 1 && said[0].contains(told), "{text}: {said:?}");
    }
    let said = problems(&[("tables/results/mine.toml", &format!("[table]\nwritable = true\n{COLUMNS}"))]);
    assert!(said.len() == 1 && said[0].contains("people make by SQL"), "{said:?}");
}

#[test]
fn foreign_keys_name_columns_and_a_table_that_is_there() {
    let customers = format!("[table]\nkey = [\"id\"]\nwritable = true\n{COLUMNS}");
    let orders = |foreign: &str| format!("[table]\nwritable = true\n{COLUMNS}[[foreign_keys]]\n{foreign}");
    let said = |foreign: &str| {
        problems(&[("tables/ops/customers.toml", &customers), ("tables/ops/orders.toml", &orders(foreign))])
    };
    let files = [
        ("tables/ops/customers.toml", customers.as_str()),
        ("tables/ops/orders.toml", &orders("columns = [\"id\"]\nreferences = \"ops.customers\"\n")),
    ];
    let foreign = settings(&files).tables[&"ops.orders".parse().unwrap()].foreign_keys.clone();
    assert_eq!(foreign[0].their_columns, ["id"], "the other table's key where nothing else is said");
    for (text, told) in [
        ("columns = [\"id\"]\n", "does not say whose rows"),
        ("references = \"ops.customers\"\n", "names no columns"),
        ("columns = [\"id\"]\nreferences = \"customers\"\n", "expected schema.table"),
        ("columns = [\"id\"]\nreferences = \"ops.nobody\"\n", "there is no such table"),
        ("columns = [\"nope\"]\nreferences = \"ops.customers\"\n", "`nope`"),
        ("columns = [\"id\"]\nreferences = \"ops.customers\"\ntheir_columns = [\"a\", \"b\"]\n", "1 columns cannot"),
    ] {
        let said = said(text);
        assert!(said.len() == 1 && said[0].contains(told), "{text}: {said:?}");
    }
}
