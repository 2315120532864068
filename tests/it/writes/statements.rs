//! What each statement does, on both grounds.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use lakegate::error::ErrorKind;
use lakegate::query::{ChangeValues, QueryEngine, QueryError, Statement, StatementOptions, TablePins};

use super::place::{Place, SOON, refusal};
use crate::queries::house::everything;
use crate::support::ground::Ground;
use crate::support::team::Team;
use crate::support::{on_both_grounds, truth};

/// A table that is written and has no source.
const NOTES: &str = "[table]\nkey = [\"id\"]\nwritable = true\n[[columns]]\nname = \"id\"\ntype = \"bigint\"\n\
                     [[columns]]\nname = \"text\"\ntype = \"string\"\n[[columns]]\nname = \"price\"\ntype = \"decimal(12,2)\"\n";

on_both_grounds! {
    async fn rows_are_inserted_updated_and_deleted(ground) {
        let place = Place::on(ground, &[("ops.notes", NOTES)]).await;
        assert_eq!(place.rows("select count(*) from ops.notes").await, ["0"], "a table without a version has no rows");
        assert_eq!(place.run("delete from ops.notes").await, 0);
        assert_eq!(place.run("insert into ops.notes values (3, 'c', 1.10), (1, 'a', 9999999999.99), (2, 'b', null)").await, 3);
        assert_eq!(place.run("insert into ops.notes (text, id) select upper(text), id + 10 from ops.notes").await, 3);
        let all = "select id, text, price from ops.notes order by id";
        let expected =
            ["1 a 9999999999.99", "2 b NULL", "3 c 1.10", "11 A NULL", "12 B NULL", "13 C NULL"];
        assert_eq!(place.rows(all).await, expected);
        assert_eq!(place.run("update ops.notes set text = text || '!', price = 2 where id > 11").await, 2);
        assert_eq!(place.run("update ops.notes set price = price * 2 where id = 3").await, 1);
        assert_eq!(place.run("delete from ops.notes as n where n.id in (select id from ops.notes where text = 'b')").await, 1);
        assert_eq!(place.run("delete from ops.notes where id = 77").await, 0);
        assert_eq!(place.rows(all).await, ["1 a 9999999999.99", "3 c 2.20", "11 A NULL", "12 B! 2.00", "13 C! 2.00"]);
        assert_eq!(place.run("update ops.notes set id = id + 100 where id < 5").await, 2);
        assert_eq!(place.rows("select id from ops.notes order by id").await, ["11", "12", "13", "101", "103"]);
        assert_eq!(truth::rows(&place.ground, &"ops.notes".parse().unwrap()).await, [11, 12, 13, 101, 103]);
        assert_eq!(place.run("delete from ops.notes").await, 5);
        assert_eq!(place.rows("select count(*) from ops.notes").await, ["0"]);
        assert_eq!(place.rows("select count(*) from ops.notes version as of 0").await, ["3"], "older versions stay");
    }

    async fn tables_are_made_filled_replaced_and_dropped(ground) {
        let place = Place::on(ground, &[]).await;
        assert_eq!(place.run("create table results.scores (run int not null, score double, primary key (run))").await, 0);
        assert_eq!(place.rows("select count(*) from results.scores").await, ["0"]);
        assert_eq!(place.run("insert into scores values (1, 0.5), (2, 0.75)").await, 2);
        assert_eq!(place.run("create table if not exists scores (x int)").await, 0);
        assert_eq!(place.refused("create table scores (x int)").await.0, ErrorKind::AlreadyExists);
        assert_eq!(place.run("create table best as select run, max(score) as score from scores group by run").await, 2);
        assert_eq!(place.run("create or replace table best as select 7 as only_one").await, 1);
        assert_eq!(place.rows("select * from best").await, ["7"]);
        assert_eq!(place.rows("select count(*) from best version as of 0").await, ["2"]);
        assert_eq!(place.run("create or replace table best as select only_one + 1 as more from best").await, 1);
        assert_eq!(place.rows("select * from results.best").await, ["8"]);
        assert_eq!(place.run("alter table best add column note varchar").await, 0);
        assert_eq!(place.run("insert into best values (9, 'new')").await, 1);
        assert_eq!(place.rows("select * from best order by more").await, ["8 NULL", "9 new"]);
        let listed = "select table_name from information_schema.tables where table_schema = 'results' order by 1";
        assert_eq!(place.rows(listed).await, ["best", "scores"]);
        assert_eq!(place.run("drop table best").await, 0);
        assert_eq!(place.refused("drop table best").await.0, ErrorKind::NotFound);
        assert_eq!(place.run("drop table if exists best").await, 0);
        assert_eq!(place.rows(listed).await, ["scores"]);
        assert_eq!(place.refused("insert into best values (1, 'x')").await.0, ErrorKind::NotFound);
        assert_eq!(place.run("create table best (other varchar)").await, 0, "the name is free again");
        assert_eq!(place.run("insert into best values ('x')").await, 1);
        assert_eq!(place.rows("select * from best").await, ["x"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_that_is_changed_is_found_where_those_that_are_read_are() {
    let place = Place::local(&[("ops.notes", NOTES), ("lab.notes", NOTES)]).await;
    place.run("create table results.notes as select 7 as id, 'seven' as text").await;
    place.run("insert into lab.notes (id) values (1)").await;
    let in_schema = |sql: &str, schema: &str| {
        let options = StatementOptions { schema: Some(schema.to_owned()), ..StatementOptions::default() };
        let statement = Statement { sql: sql.to_owned(), parameters: vec![], pins: TablePins::new(), options };
        let engine = Arc::clone(&place.engine);
        async move {
            let planned = engine.plan(statement, &everything()).await?;
            Ok::<_, QueryError>(engine.change(&planned, ChangeValues::Planned, SOON).await?.rows)
        }
    };
    assert_eq!(in_schema("update notes set id = 2 where id in (select id from notes)", "lab").await.unwrap(), 1);
    assert_eq!(in_schema("insert into notes (id) values (3)", "ops").await.unwrap(), 1);
    assert_eq!(in_schema("delete from notes", "results").await.unwrap(), 1);
    let refused = in_schema("drop table notes", "lab").await.unwrap_err();
    assert!(refused.to_string().contains("lab/notes.toml"), "{refused}");
    assert_eq!(place.rows("select id from lab.notes").await, ["2"]);
    assert_eq!(place.rows("select id from ops.notes").await, ["3"]);
    assert_eq!(place.rows("select count(*) from results.notes").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_texts_lose_no_digit_either() {
    let place = Place::local(&[]).await;
    place.run("create table t (d date, at timestamp)").await;
    place.run("insert into t values ('2024-01-31', '2024-01-31 12:00:00.123456')").await;
    let text = |text: &str| vec![ScalarValue::Utf8(Some(text.to_owned()))];
    for (sql, value) in [
        ("update t set d = ?", "2024-02-01 23:59:00"),
        ("update t set at = ?", "2024-01-31 12:00:00.1234567"),
        ("insert into t (d) values (?)", "2024-02-01 23:59:00"),
        ("insert into t (at, d) values ((select max(at) from t), ?)", "2024-02-01 23:59:00"),
    ] {
        let (kind, told) = refusal(place.change_as(sql, text(value), &everything()).await, sql);
        assert_eq!((kind, told.contains(value)), (ErrorKind::InvalidInput, true), "{sql}: {told}");
    }
    assert_eq!(place.change_as("update t set d = ?", text("2024-02-02"), &everything()).await.unwrap(), 1);
    assert_eq!(place.rows("select d from t").await, ["2024-02-02"]);
    let sql = "insert into t (at, d) values ((select max(at) from t), ?), (null, (select min(d) from t))";
    assert_eq!(place.change_as(sql, text("2024-02-03"), &everything()).await.unwrap(), 2);
    assert_eq!(place.rows("select d from t where at is not null order by d").await, ["2024-02-02", "2024-02-03"]);
    assert_eq!(place.rows("select d from t where at is null").await, ["2024-02-02"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_in_a_table_once() {
    let place = Place::local(&[("ops.notes", NOTES)]).await;
    place.run("insert into ops.notes (id) values (1), (2), (3)").await;
    for sql in [
        "insert into ops.notes (id) values (2)",
        "insert into ops.notes (id) values (9), (9)",
        "insert into ops.notes (id) select id from ops.notes",
        "update ops.notes set id = 1 where id = 2",
        "update ops.notes set id = 5",
    ] {
        let (kind, told) = place.refused(sql).await;
        assert_eq!(kind, ErrorKind::AlreadyExists, "{sql}: {told}");
        assert!(told.contains("ops.notes") && told.contains("(id)"), "{sql}: {told}");
    }
    assert_eq!(place.rows("select id from ops.notes order by id").await, ["1", "2", "3"]);
    assert_eq!(place.run("update ops.notes set id = id + 1").await, 3, "keys may move onto each other");
    assert_eq!(place.rows("select id from ops.notes order by id").await, ["2", "3", "4"]);
    let (kind, told) = place.refused("insert into ops.notes (text) values ('x')").await;
    assert_eq!((kind, told.contains("`id`")), (ErrorKind::InvalidInput, true), "{told}");
    let files = truth::data_files(&place.ground, &"ops.notes".parse().unwrap()).await.len();
    assert_eq!(files, 2, "what was refused leaves no data files");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_tables_without_a_key_are_found_by_where_they_stand() {
    let place = Place::local(&[]).await;
    place.run("create table t as select x % 10 as a, x as b from generate_series(0, 99999) g(x)").await;
    place.run("insert into t select a, b from t where b < 1000").await;
    assert_eq!(place.run("update t set a = -1 where b % 1000 = 7").await, 101, "equal rows each count");
    assert_eq!(place.run("delete from t where a = -1 and b = 7").await, 2);
    assert_eq!(place.run("delete from t where (a is distinct from 3) and a <> -1").await, 90_799);
    let counted = place.rows("select a, count(*) from t group by a order by a").await;
    assert_eq!(counted, ["-1 99", "3 10100"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_refused_with_what_to_do() {
    let from_files = "[source]\nfiles = \"in/*.csv\"\n";
    let place = Place::local(&[("ops.notes", NOTES), ("ops.loaded", from_files)]).await;
    for (sql, kind, told) in [
        ("insert into ops.loaded values (1)", ErrorKind::Unsupported, "writable = true"),
        ("delete from ops.loaded", ErrorKind::Unsupported, "writable = true"),
        ("drop table ops.notes", ErrorKind::Unsupported, "tables/ops/notes.toml"),
        ("create table ops.other (a int)", ErrorKind::Unsupported, "results"),
        ("create or replace table ops.notes as select 1 as id", ErrorKind::Unsupported, "tables/ops/notes.toml"),
        ("alter table ops.notes add column a int", ErrorKind::Unsupported, "tables/ops/notes.toml"),
        ("insert into system.loads values (1)", ErrorKind::Unsupported, "system.loads"),
        ("insert into information_schema.tables values (1)", ErrorKind::Unsupported, "information_schema"),
        ("insert into nowhere.at.all values (1)", ErrorKind::NotFound, "catalog"),
        ("insert into results.missing values (1)", ErrorKind::NotFound, "results.missing"),
        ("delete from ops.missing", ErrorKind::NotFound, "ops.missing"),
        ("insert into ops.notes values (1, 'a')", ErrorKind::InvalidInput, "2 values for 3 columns"),
        ("insert into ops.notes (id, nope) values (1, 2)", ErrorKind::InvalidInput, "`nope`"),
        ("insert into ops.notes (id, id) values (1, 2)", ErrorKind::InvalidInput, "twice"),
        ("update ops.notes set nope = 1", ErrorKind::InvalidInput, "`nope`"),
        ("update ops.notes set text = 'a', text = 'b'", ErrorKind::InvalidInput, "twice"),
        ("delete from ops.notes where nope = 1", ErrorKind::InvalidInput, "nope"),
        ("create table results.t as select count(*) from ops.notes", ErrorKind::InvalidInput, "count(*)"),
        ("create table results.t as select 1 as a, 2 as \"A\"", ErrorKind::InvalidInput, "`a` and `A`"),
        ("create table results.t (a int, primary key (b))", ErrorKind::InvalidInput, "`b`"),
        ("create table results.\"My Table\" (a int)", ErrorKind::NotFound, "My Table"),
        ("merge into ops.notes using ops.notes as u on true when matched then delete", ErrorKind::Unsupported, "MERGE"),
    ] {
        let (found, message) = place.refused(sql).await;
        assert_eq!(found, kind, "{sql}: {message}");
        assert!(message.contains(told), "{sql}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_in_the_journal() {
    let place = Place::local(&[("ops.notes", NOTES)]).await;
    place.run("insert into ops.notes (id) values (1), (2)").await;
    place.run("delete from ops.notes where id = 1").await;
    place.refused("insert into ops.notes (id) values (2)").await;
    let told = place.rows("select table_name, status, rows_read, written_by, statement, error_kind from system.loads order by started_at").await;
    let expected = [
        "notes committed 2 operator insert NULL",
        "notes committed 1 operator delete NULL",
        "notes failed 0 operator insert already_exists",
    ];
    assert_eq!(told, expected);
    assert_eq!(place.journal.loads().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_loads_share_a_table() {
    let team = Team::local();
    let definition = "[source]\nfiles = \"in/*.csv\"\nsettle = \"0s\"\n[load]\nmode = \"upsert\"\n[table]\nkey = [\"id\"]\nwritable = true\n";
    team.write("tables/ops/both.toml", definition);
    team.drop_file("in/1.csv", "id,text\n1,file\n2,file\n");
    team.sync().await;
    let mut ground = Ground::local();
    ground.settings = team.ground.settings.clone();
    let place = Place::on(ground, &[("ops.both", definition)]).await;
    assert_eq!(place.run("insert into ops.both values (3, 'sql')").await, 1);
    assert_eq!(place.run("update ops.both set text = 'changed' where id = 2").await, 1);
    team.drop_file("in/2.csv", "id,text\n3,later\n4,file\n");
    team.sync().await;
    let rows = place.rows("select id, text from ops.both order by id").await;
    assert_eq!(rows, ["1 file", "2 changed", "3 later", "4 file"], "no file is loaded twice, no write is lost");
}
