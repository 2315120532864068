//! SELECT and what belongs to it.

use mssql_fixture::engine::{Collected, Parameter};
use mssql_fixture::value::{SqlType, Value};

use crate::{collect, database, error, one, query, run};

fn filled() -> mssql_fixture::engine::Session {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY, name nvarchar(50) NULL, amount decimal(18,4) NULL, at datetime2(3), grp int);
         CREATE TABLE s.g (id int NOT NULL PRIMARY KEY, label varchar(20) NOT NULL);
         INSERT INTO s.g VALUES (1, 'one'), (2, 'two');
         INSERT INTO s.t VALUES (1, N'Ann', 1.5, '2026-01-01', 1), (2, N'bob', 2.25, '2026-01-02', 2), (3, NULL, NULL, NULL, 3),
            (4, N'Cid  ', -4, '2026-01-04 10:11:12.345', 1)",
    );
    session
}

#[test]
fn expressions_have_sql_servers_types_and_values() {
    let mut session = filled();
    let cases = [
        ("SELECT 7 / 2, 7 % 3, 7.0 / 2, 1 + 1.5", "3 1 3500000e-6 25e-1"),
        ("SELECT CAST(1.555 AS decimal(4,2)), CAST('12' AS int) + 1, CONVERT(int, 0x0000000A)", "156e-2 13 10"),
        (
            "SELECT CONVERT(varchar(max), 0x0AFF, 1), CONVERT(varchar(max), 0x0AFF, 2), CONVERT(varbinary(4), '0x0AFF', 1)",
            "0x0AFF 0AFF 0aff",
        ),
        ("SELECT CAST(CAST(922337203685477.5806 AS money) AS decimal(19,4))", "9223372036854775806e-4"),
        (
            "SELECT CONVERT(nvarchar(40), CAST('2026-11-20 16:40:09.1234567' AS datetime2(7)), 126)",
            "2026-11-20T16:40:09.1234567",
        ),
        ("SELECT CONVERT(nvarchar(40), CAST('2026-11-20 16:40:09.127' AS datetime), 121)", "2026-11-20 16:40:09.127"),
        (
            "SELECT CONVERT(nvarchar(40), CAST('2026-11-20 16:40 +02:00' AS datetimeoffset(0)), 126)",
            "2026-11-20T16:40:00+02:00",
        ),
        ("SELECT ISNULL(NULL, 3), COALESCE(NULL, NULL, 4), NULLIF(1, 1), IIF(1 = 2, 'a', 'b')", "3 4 NULL b"),
        ("SELECT LEN('ab  '), DATALENGTH('ab  '), DATALENGTH(N'ab'), DATALENGTH(CAST(1 AS bigint))", "2 4 4 8"),
        (
            "SELECT UPPER('aé'), SUBSTRING('abcdef', 2, 3), LEFT('abc', 2), RIGHT('abc', 2), REPLACE('aXa', 'X', '-')",
            "AÉ bcd ab bc a-a",
        ),
        ("SELECT CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, CASE WHEN 1 > 2 THEN 1 END", "b NULL"),
        ("SELECT DATEADD(month, 1, CAST('2026-01-31' AS date)), 1", "Date(739674) 1"),
        ("SELECT DATEDIFF(day, '2026-01-01', '2026-01-31'), DATEPART(year, CAST('2026-01-31' AS date))", "30 2026"),
        ("SELECT TRY_CAST('x' AS int), TRY_CONVERT(date, 'x')", "NULL NULL"),
        (
            "SELECT CAST(CAST('0E984725-C51C-4BF4-9960-E1C80E27ABA0' AS uniqueidentifier) AS nvarchar(40))",
            "0E984725-C51C-4BF4-9960-E1C80E27ABA0",
        ),
        ("SELECT 3000000000, -5, 1e3, 'it''s', N'漢'", "3000000000e-0 -5 1000 it's 漢"),
        (
            "SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion')), CONVERT(int, SERVERPROPERTY('EngineEdition'))",
            "16.0.4135.4 3",
        ),
        (
            "SELECT DB_NAME(), CONVERT(nvarchar(60), DATABASEPROPERTYEX(DB_NAME(), 'Updateability')), @@TRANCOUNT",
            "ops READ_WRITE 0",
        ),
        ("SELECT COLLATIONPROPERTY('Latin1_General_100_CI_AS_SC_UTF8', 'CodePage')", "65001"),
    ];
    for (sql, expected) in cases {
        assert_eq!(one(&mut session, sql), expected, "{sql}");
    }
    assert_eq!(error(&mut session, "SELECT 1 / 0"), 8134);
    assert_eq!(error(&mut session, "SELECT CAST('2026-13-01' AS date)"), 241);
    assert_eq!(error(&mut session, "SELECT CAST(300 AS tinyint)"), 220);
    assert_eq!(error(&mut session, "SELECT nope(1)"), 195);
}

#[test]
fn rows_are_joined_filtered_grouped_and_ordered() {
    let mut session = filled();
    assert_eq!(
        query(
            &mut session,
            "SELECT T.id, G.label, CASE WHEN G.id IS NULL THEN 0 ELSE 1 END AS present FROM s.t AS T LEFT OUTER JOIN s.g AS G ON G.id = T.grp ORDER BY T.id DESC"
        ),
        ["4 one 1", "3 NULL 0", "2 two 1", "1 one 1"]
    );
    assert_eq!(
        query(
            &mut session,
            "SELECT grp, COUNT(*), SUM(amount), MIN(name) FROM s.t WHERE grp < 3 GROUP BY grp HAVING COUNT(*) > 1"
        ),
        ["1 2 -25000e-4 Ann"]
    );
    assert_eq!(query(&mut session, "SELECT COUNT_BIG(*), MIN(T.id), MAX(T.id) FROM s.t AS T"), ["4 1 4"]);
    assert_eq!(
        query(&mut session, "SELECT id FROM s.t WHERE name LIKE 'B%' OR name IN (N'ANN', N'x')  ORDER BY 1"),
        ["1", "2"]
    );
    assert_eq!(query(&mut session, "SELECT id FROM s.t WHERE amount BETWEEN 1 AND 2.25"), ["1", "2"]);
    assert_eq!(
        query(&mut session, "SELECT id FROM s.t WHERE grp IN (SELECT id FROM s.g WHERE label = 'ONE') AND NOT id = 4"),
        ["1"]
    );
    assert_eq!(
        query(
            &mut session,
            "SELECT id FROM s.t AS o WHERE EXISTS (SELECT 1 FROM s.g WHERE s.g.id = o.grp) ORDER BY name DESC"
        ),
        ["4", "2", "1"]
    );
    assert_eq!(query(&mut session, "SELECT DISTINCT grp FROM s.t ORDER BY grp"), ["1", "2", "3"]);
    assert_eq!(
        query(&mut session, "SELECT TOP (1) id, amount * 2 AS twice FROM s.t ORDER BY twice DESC"),
        ["2 45000e-4"]
    );
    assert_eq!(query(&mut session, "SELECT id FROM s.t ORDER BY id OFFSET 1 ROWS FETCH NEXT 2 ROWS ONLY"), ["2", "3"]);
    assert_eq!(error(&mut session, "SELECT id FROM s.t AS a, s.g AS b"), 209);
    assert_eq!(error(&mut session, "SELECT x.id FROM s.t AS a"), 4104);
}

#[test]
fn queries_stand_in_queries() {
    let mut session = filled();
    assert_eq!(
        query(
            &mut session,
            "SELECT tile, MAX(k) FROM (SELECT T.[id] AS k, NTILE(2) OVER (ORDER BY T.[id]) AS tile FROM [s].[t] AS T) AS x GROUP BY tile ORDER BY tile"
        ),
        ["1 2", "2 4"]
    );
    assert_eq!(
        query(
            &mut session,
            "WITH a AS (SELECT id FROM s.t WHERE id > 2), b(n) AS (SELECT COUNT(*) FROM a) SELECT n FROM b"
        ),
        ["2"]
    );
    assert_eq!(
        query(
            &mut session,
            "WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT COUNT(*), SUM(i) FROM n OPTION (MAXRECURSION 0)"
        ),
        ["5 15"]
    );
    assert_eq!(
        query(&mut session, "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 3000000000, N'漢' ORDER BY a DESC"),
        ["3000000000e-0 漢", "1e-0 x"]
    );
    assert_eq!(query(&mut session, "SELECT v.a + 1 FROM (VALUES (1), (2)) AS v(a)"), ["2", "3"]);
    assert_eq!(
        query(&mut session, "SELECT (SELECT MAX(id) FROM s.t), value FROM GENERATE_SERIES(1, 2)"),
        ["4 1", "4 2"]
    );
    assert_eq!(
        query(&mut session, "SELECT x.id FROM (SELECT TOP (2) id FROM s.t ORDER BY id DESC) AS x ORDER BY x.id"),
        ["3", "4"]
    );
    run(&mut session, "CREATE VIEW s.v AS SELECT id, name AS called FROM s.t WHERE id < 3");
    assert_eq!(query(&mut session, "SELECT called FROM s.v ORDER BY id"), ["Ann", "bob"]);
}

#[test]
fn batches_have_variables_and_flow() {
    let mut session = filled();
    assert_eq!(
        query(
            &mut session,
            "DECLARE @a int = 1, @b decimal(10,2); SET @b = 2.5; SELECT @a = MAX(id), @b += 1 FROM s.t;"
        ),
        Vec::<String>::new()
    );
    assert_eq!(
        query(
            &mut session,
            "DECLARE @a int = 1, @b nvarchar(20); SELECT @b = name FROM s.t WHERE id = 2; WHILE @a < 4 BEGIN SET @a += 1; IF @a = 3 PRINT 'three' ELSE PRINT 'other' END SELECT @a, @b, @@ROWCOUNT"
        ),
        ["4 bob 1"]
    );
    let collected = collect(&mut session, "SET NOCOUNT ON; PRINT 'hello'; SELECT 1; SELECT 2");
    assert_eq!(collected.messages, ["hello"]);
    assert_eq!(collected.sets.iter().map(|set| set.affected).collect::<Vec<_>>(), [None, None]);
    assert_eq!(query(&mut session, "EXEC sp_executesql N'SELECT @x + 1', N'@x int', @x = 41"), ["42"]);
    assert_eq!(error(&mut session, "SELECT @nope"), 137);
    let mut collected = Collected::default();
    let parameters = [Parameter { name: "@p".into(), sql_type: SqlType::BigInt, value: Value::Int(2) }];
    session.run("SELECT name FROM s.t WHERE id = @p", &parameters, &mut collected).unwrap();
    assert_eq!(collected.sets[0].rows, [[Value::Text("bob".into())]]);
}

#[test]
fn rows_are_changed_through_joins_and_tops() {
    let mut session = filled();
    assert_eq!(
        run(&mut session, "UPDATE T SET name = G.label, amount += 1 FROM s.t AS T JOIN s.g AS G ON G.id = T.grp")[0]
            .affected,
        Some(3)
    );
    assert_eq!(
        query(&mut session, "SELECT id, name, amount FROM s.t ORDER BY id"),
        ["1 one 25000e-4", "2 two 32500e-4", "3 NULL NULL", "4 one -30000e-4"]
    );
    assert_eq!(
        run(&mut session, "DELETE FROM T FROM s.t AS T JOIN s.g AS G ON G.id = T.grp WHERE G.id = 2")[0].affected,
        Some(1)
    );
    assert_eq!(run(&mut session, "UPDATE TOP (1) s.t SET grp = 9")[0].affected, Some(1));
    assert_eq!(run(&mut session, "DELETE TOP (1) FROM s.t WHERE grp = 9")[0].affected, Some(1));
    assert_eq!(run(&mut session, "INSERT INTO s.t (id, name) SELECT id + 100, label FROM s.g")[0].affected, Some(2));
    assert_eq!(query(&mut session, "SELECT COUNT(*) FROM s.t"), ["4"]);
}

#[test]
fn big_results_stream() {
    let mut session = filled();
    let sets = run(&mut session, "SELECT value, value * 2 FROM GENERATE_SERIES(1, 20000)");
    assert_eq!(sets[0].rows.len(), 20_000);
}

#[test]
fn long_statements_do_not_nest_too_deep() {
    let mut session = filled();
    let list: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
    assert_eq!(one(&mut session, &format!("SELECT COUNT(*) FROM s.t WHERE id IN ({})", list.join(", "))), "4");
    let terms: Vec<_> = (0..900).map(|number| format!("id <> {}", number + 10)).collect();
    assert_eq!(one(&mut session, &format!("SELECT COUNT(*) FROM s.t WHERE {}", terms.join(" AND "))), "4");
    let members: Vec<_> = (0..900).map(|number| format!("SELECT {number} AS n FROM s.g WHERE id = 1")).collect();
    assert_eq!(query(&mut session, &members.join(" UNION ALL ")).len(), 900);
    let columns: Vec<_> =
        (0..300).map(|_| "CASE WHEN EXISTS (SELECT 1 FROM s.t AS c) THEN 1 ELSE 0 END".to_owned()).collect();
    assert_eq!(run(&mut session, &format!("SELECT {}", columns.join(", ")))[0].columns.len(), 300);
    assert_eq!(query(&mut session, "SELECT id FROM s.t WHERE name NOT IN (N'ANN', 'x') ORDER BY id"), ["2", "4"]);
    assert_eq!(query(&mut session, "SELECT id FROM s.t WHERE amount IN (1.5, 2, -4.0000) ORDER BY id"), ["1", "4"]);
}
