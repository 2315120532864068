//! The plans SQLite makes of lakegate's statements: keyset pages must seek, not scan and not sort.

use super::ast::Kind;
use super::{Collected, Database, DatabaseOptions, Session, parse};

/// What SQLite does for a batch's last query, one line per step.
fn plan(session: &mut Session, batch: &str) -> String {
    let (declarations, query) = batch.split_once("SELECT").unwrap();
    session.run_batch(declarations, &mut Collected::default()).unwrap();
    let statements = parse::batch(&format!("SELECT{query}")).unwrap();
    let Kind::Query(query) = &statements[0].kind else { return String::new() };
    let (prepared, _) = session.bound(|binder| binder.statement(query)).map_err(|_| ()).unwrap();
    let mut statement = session.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", prepared.sql)).unwrap();
    let steps = statement
        .query_map(rusqlite::params_from_iter(&prepared.parameters), |row| row.get::<_, String>(3))
        .unwrap()
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    steps.join("\n")
}

#[test]
fn keyset_pages_seek_in_every_key() {
    let database = Database::create(DatabaseOptions::default()).unwrap();
    for (sql_type, literal) in [
        ("int", "1"),
        ("bigint", "3000000000"),
        ("decimal(18,2)", "1.5"),
        ("varchar(10)", "'x'"),
        ("nvarchar(10)", "N'x'"),
        ("varchar(10) COLLATE Latin1_General_BIN2", "'x'"),
        ("uniqueidentifier", "'0E984725-C51C-4BF4-9960-E1C80E27ABA0'"),
        ("datetime2(3)", "'2026-01-01'"),
        ("datetimeoffset(3)", "'2026-01-01'"),
        ("varbinary(8)", "0x01"),
    ] {
        let mut session = database.session("sa").unwrap();
        let script = format!(
            "DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS u;
             CREATE TABLE t (k {sql_type} NOT NULL PRIMARY KEY, v int); CREATE TABLE u (a {sql_type} NOT NULL, b int NOT NULL, v int, PRIMARY KEY (a, b))"
        );
        session.run_batch(&script, &mut Collected::default()).unwrap();
        let declared = sql_type.split(" COLLATE").next().unwrap();
        for query in [
            format!("DECLARE @a {declared} = {literal}; SELECT TOP (5) T.v FROM t AS T WHERE T.k > @a ORDER BY T.k"),
            format!(
                "DECLARE @a {declared} = {literal}; SELECT TOP (5) T.v FROM t AS T WHERE T.k > @a AND T.k <= @a ORDER BY T.k"
            ),
            format!(
                "DECLARE @a {declared} = {literal}, @b int = 1; SELECT TOP (5) T.v FROM u AS T WHERE T.a >= @a AND (T.a > @a OR T.b > @b) ORDER BY T.a, T.b"
            ),
            "DECLARE @a int = 1; SELECT T.v FROM (SELECT k FROM t) AS c LEFT JOIN t AS T ON T.k = c.k".to_owned(),
        ] {
            let plan = plan(&mut session, &query);
            assert!(plan.contains("SEARCH"), "{sql_type}: {query}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql_type}: {query}\n{plan}");
        }
    }
}

#[test]
fn changes_are_found_by_version_and_joined_by_key() {
    let database = Database::create(DatabaseOptions::default()).unwrap();
    let mut session = database.session("sa").unwrap();
    let script =
        "ALTER DATABASE ops SET CHANGE_TRACKING = ON; CREATE TABLE t (k nvarchar(10) NOT NULL PRIMARY KEY, v int);
        ALTER TABLE t ENABLE CHANGE_TRACKING";
    session.run_batch(script, &mut Collected::default()).unwrap();
    let plan = plan(
        &mut session,
        "DECLARE @last bigint = 5; SELECT CT.SYS_CHANGE_OPERATION, CT.k, T.v FROM CHANGETABLE(CHANGES t, @last) AS CT LEFT OUTER JOIN t AS T ON T.k = CT.k",
    );
    assert!(plan.contains("(version>?)"), "{plan}");
    assert!(plan.contains("SEARCH s2 USING PRIMARY KEY"), "{plan}");
}
