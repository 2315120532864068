//! Types, values and keys: what goes in comes out, and orders as in SQL Server.

use mssql_fixture::value::{SqlType, Value};

use crate::{collect, database, error, one, query, run};

#[test]
fn every_type_comes_back_exactly() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY, a bit, b tinyint, c smallint, d bigint, e decimal(18,4),
            f decimal(38,10), g money, h smallmoney, i real, j float, k char(5), l varchar(10), m varchar(max),
            n nvarchar(10), o nchar(4), p varbinary(10), q binary(4), r date, u time(3), v datetime, w smalldatetime,
            x datetime2(7), y datetimeoffset(7), z uniqueidentifier, xml1 xml, txt text, img image);
         INSERT INTO s.t VALUES (1, 1, 255, -32768, 9223372036854775807, -12345.6789, 1234567890123456789012345678.0123456789,
            922337203685477.5807, -214748.3648, 1.5, 2.25, 'ab', 'abc', 'long', N'héllo', N'漢', 0x0102, 0x01, '2026-11-20',
            '16:40:09.123', '2026-11-20 16:40:09.127', '2026-11-20 16:40', '0001-01-01 00:00:00.1234567',
            '2026-11-20 16:40:09.1234567 +01:00', '0E984725-C51C-4BF4-9960-E1C80E27ABA0', '<a/>', 'x', 0xFF);
         INSERT INTO s.t (id) VALUES (2)",
    );
    let sets = run(&mut session, "SELECT * FROM s.t ORDER BY id");
    let row = &sets[0].rows[0];
    assert_eq!(row[4], Value::Int(i64::MAX));
    assert_eq!(row[5], Value::Decimal { unscaled: -123_456_789, scale: 4 });
    assert_eq!(row[6], Value::Decimal { unscaled: 12_345_678_901_234_567_890_123_456_780_123_456_789, scale: 10 });
    assert_eq!(row[7], Value::Money(i64::MAX));
    assert_eq!(row[8], Value::Money(-2_147_483_648));
    assert_eq!(row[11], Value::Text("ab   ".into()));
    assert_eq!(row[15], Value::Text("漢   ".into()));
    assert_eq!(row[17], Value::Bytes(vec![1, 0, 0, 0]));
    assert_eq!(row[20], Value::DateTime { days: 46344, ticks: 18_002_738 });
    assert_eq!(row[21], Value::SmallDateTime { days: 46344, minutes: 1000 });
    assert_eq!(row[22], Value::DateTime2 { days: 0, time: 1_234_567 });
    assert_eq!(
        row[23],
        Value::DateTimeOffset { days: 739_939, time: 15 * 36_000_000_000 + 40 * 600_000_000 + 91_234_567, minutes: 60 }
    );
    let guid = [0x0E, 0x98, 0x47, 0x25, 0xC5, 0x1C, 0x4B, 0xF4, 0x99, 0x60, 0xE1, 0xC8, 0x0E, 0x27, 0xAB, 0xA0];
    assert_eq!(row[24], Value::Guid(guid));
    assert!(sets[0].rows[1][1..].iter().all(Value::is_null));
    assert_eq!(sets[0].columns[5].sql_type, SqlType::Decimal { precision: 18, scale: 4 });
    assert!(!sets[0].columns[0].nullable);
}

#[test]
fn values_that_do_not_fit_are_refused_as_sql_server_does() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE t (k int NOT NULL PRIMARY KEY, a varchar(3), b tinyint, c decimal(4,2), d int NOT NULL DEFAULT 7)",
    );
    assert_eq!(error(&mut session, "INSERT t (k, a) VALUES (1, 'abcd')"), 2628);
    assert_eq!(error(&mut session, "INSERT t (k, b) VALUES (1, 256)"), 220);
    assert_eq!(error(&mut session, "INSERT t (k, c) VALUES (1, 123.4)"), 8115);
    assert_eq!(error(&mut session, "INSERT t (k, c) VALUES (1, 'x')"), 8114);
    assert_eq!(error(&mut session, "INSERT t (k, b) VALUES (1, 'x')"), 245);
    assert_eq!(error(&mut session, "INSERT t (k, d) VALUES (1, NULL)"), 515);
    assert_eq!(error(&mut session, "INSERT t (k, nope) VALUES (1, 1)"), 207);
    assert_eq!(error(&mut session, "INSERT nope VALUES (1)"), 208);
    assert_eq!(error(&mut session, "INSERT t (k) VALUES (NULL)"), 515);
    run(&mut session, "INSERT t (k, a) VALUES (1, 'abc   ')");
    assert_eq!(error(&mut session, "INSERT t (k) VALUES (1)"), 2627);
    assert_eq!(error(&mut session, "SELEC 1"), 102);
    assert_eq!(error(&mut session, "SELECT * FROM t WITH (NOLOCK)"), 102);
    assert_eq!(query(&mut session, "SELECT k, a, d FROM t"), ["1 abc 7"]);
}

#[test]
fn text_keys_follow_their_collation() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE ci (k varchar(20) COLLATE Latin1_General_CI_AS NOT NULL PRIMARY KEY);
         CREATE TABLE cs (k varchar(20) COLLATE Latin1_General_CS_AS NOT NULL PRIMARY KEY);
         CREATE TABLE ai (k nvarchar(20) COLLATE Latin1_General_CI_AI NOT NULL PRIMARY KEY);
         CREATE TABLE bin (k varchar(20) COLLATE Latin1_General_BIN2 NOT NULL PRIMARY KEY);
         INSERT ci VALUES ('b'), ('A'), ('c'); INSERT cs VALUES ('b'), ('A'), ('a'), ('B');
         INSERT ai VALUES (N'é'), (N'd'), (N'F'); INSERT bin VALUES ('b'), ('A'), ('a'), ('B')",
    );
    assert_eq!(error(&mut session, "INSERT ci VALUES ('a')"), 2627);
    assert_eq!(error(&mut session, "INSERT ci VALUES ('b  ')"), 2627);
    assert_eq!(error(&mut session, "INSERT ai VALUES (N'E')"), 2627);
    assert_eq!(query(&mut session, "SELECT k FROM ci ORDER BY k"), ["A", "b", "c"]);
    assert_eq!(query(&mut session, "SELECT k FROM cs ORDER BY k"), ["a", "A", "b", "B"]);
    assert_eq!(query(&mut session, "SELECT k FROM ai ORDER BY k"), ["d", "é", "F"]);
    assert_eq!(query(&mut session, "SELECT k FROM bin ORDER BY k"), ["A", "B", "a", "b"]);
    assert_eq!(query(&mut session, "SELECT k FROM ci WHERE k > 'a' ORDER BY k"), ["b", "c"]);
    assert_eq!(one(&mut session, "SELECT COUNT(*) FROM ci WHERE k = 'B   '"), "1");
    assert_eq!(one(&mut session, "SELECT COUNT(*) FROM ci WHERE k = 'a' COLLATE Latin1_General_CS_AS"), "0");
    assert_eq!(one(&mut session, "SELECT MIN(k) FROM cs"), "a");
    assert_eq!(error(&mut session, "SELECT 1 FROM ci JOIN cs ON ci.k = cs.k"), 468);
    assert_eq!(
        query(&mut session, "SELECT k, COUNT(*) FROM cs GROUP BY k ORDER BY k DESC"),
        ["B 1", "b 1", "A 1", "a 1"]
    );
}

#[test]
fn other_code_pages_lose_what_they_do_not_have() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE t (k int NOT NULL PRIMARY KEY, a varchar(20), b varchar(20) COLLATE Latin1_General_100_CI_AS_SC_UTF8);
         INSERT t VALUES (1, N'héllo 漢字', N'héllo 漢字')",
    );
    assert_eq!(query(&mut session, "SELECT a, b, DATALENGTH(a), DATALENGTH(b) FROM t"), ["héllo ?? héllo 漢字 8 13"]);
    let sets = run(&mut session, "SELECT b FROM t");
    assert!(sets[0].columns[0].collation.is_utf8());
    assert_eq!(error(&mut session, "INSERT t (k, b) VALUES (2, N'漢字漢字漢字漢')"), 2628);
}

/// Pages through a table of one key column and gives how often each row came.
fn pages(sql_type: &str, literals: &[&str]) -> Vec<String> {
    let mut session = database().session("sa").unwrap();
    run(&mut session, &format!("CREATE TABLE t (n int NOT NULL, k {sql_type} NOT NULL PRIMARY KEY)"));
    for (at, literal) in literals.iter().enumerate() {
        run(&mut session, &format!("INSERT t VALUES ({at}, {literal})"));
    }
    let mut order = Vec::new();
    let mut from = String::new();
    loop {
        let page = query(
            &mut session,
            &format!(
                "{from} SELECT TOP (2) T.n FROM t AS T {} ORDER BY T.k OPTION (MAXDOP 1)",
                if from.is_empty() { "" } else { "WHERE T.k > @a" }
            ),
        );
        let Some(last) = page.last() else { return order };
        from = format!("DECLARE @a {sql_type} = {};", literals[last.parse::<usize>().unwrap()]);
        order.extend(page);
    }
}

#[test]
fn keyset_pages_go_through_every_key_type_in_order() {
    assert_eq!(pages("int", &["3", "-1", "2", "0", "10"]), ["1", "3", "2", "0", "4"]);
    assert_eq!(pages("bigint", &["9223372036854775807", "-9223372036854775808", "3000000000"]), ["1", "2", "0"]);
    assert_eq!(pages("decimal(18,2)", &["10.00", "-2.5", "9.99", "-10"]), ["3", "1", "2", "0"]);
    assert_eq!(pages("decimal(38,0)", &["99999999999999999999999999999999999999", "-1", "5"]), ["1", "2", "0"]);
    assert_eq!(pages("money", &["10.5", "-3", "2"]), ["1", "2", "0"]);
    assert_eq!(pages("float", &["1.5e0", "-2e10", "0e0"]), ["1", "2", "0"]);
    assert_eq!(pages("varchar(10)", &["'b'", "'A'", "'a1'", "'_'"]), ["3", "1", "2", "0"]);
    assert_eq!(pages("char(4)", &["'b'", "'A'", "'aa'"]), ["1", "2", "0"]);
    assert_eq!(pages("nvarchar(10)", &["N'é'", "N'e'", "N'f'", "N'd'"]), ["3", "1", "0", "2"]);
    assert_eq!(pages("varbinary(4)", &["0x02", "0x01FF", "0x0100"]), ["2", "1", "0"]);
    assert_eq!(pages("date", &["'2026-01-02'", "'1999-12-31'", "'2026-01-01'"]), ["1", "2", "0"]);
    assert_eq!(
        pages("datetime", &["'2026-01-01 00:00:00.007'", "'1753-01-01'", "'2026-01-01 00:00:00.003'"]),
        ["1", "2", "0"]
    );
    assert_eq!(
        pages("datetime2(7)", &["'9999-12-31 23:59:59.9999999'", "'0001-01-01'", "'2026-01-01'"]),
        ["1", "2", "0"]
    );
    assert_eq!(pages("time(7)", &["'23:59:59.9999999'", "'00:00:00'", "'12:00'"]), ["1", "2", "0"]);
    assert_eq!(
        pages(
            "datetimeoffset(3)",
            &["'2026-01-01 12:00 +00:00'", "'2026-01-01 12:30 +01:00'", "'2026-01-01 00:00 -13:00'"]
        ),
        ["1", "0", "2"]
    );
    // SQL Server compares the last six bytes of a guid first.
    assert_eq!(
        pages(
            "uniqueidentifier",
            &[
                "'00000000-0000-0000-0000-010000000000'",
                "'FF000000-0000-0000-0000-000000000001'",
                "'00000000-0000-0000-0100-000000000001'",
                "'01000000-0000-0000-0000-000000000001'"
            ]
        ),
        ["3", "1", "2", "0"]
    );
    assert_eq!(pages("bit", &["1", "0"]), ["1", "0"]);
}

#[test]
fn the_same_moment_at_another_offset_is_the_same_key() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE t (k datetimeoffset(0) NOT NULL PRIMARY KEY); INSERT t VALUES ('2026-01-01 12:00 +00:00')",
    );
    assert_eq!(error(&mut session, "INSERT t VALUES ('2026-01-01 13:00 +01:00')"), 2627);
    assert_eq!(one(&mut session, "SELECT COUNT(*) FROM t WHERE k = '2026-01-01 13:00 +01:00'"), "1");
}

#[test]
fn pages_of_composite_keys_seek_in_the_key() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (a varchar(10) NOT NULL, b int NOT NULL, c nvarchar(10), CONSTRAINT pk PRIMARY KEY CLUSTERED (a, b));
         INSERT s.t VALUES ('x', 1, N'1'), ('X', 2, N'2'), ('y', 1, N'3'), ('w', 9, N'4')",
    );
    let page = "DECLARE @a varchar(10) = 'x', @b int = 1, @z varchar(10) = 'y';
        SELECT TOP (2) T.[c] FROM [s].[t] AS T WHERE T.[a] >= @a AND (T.[a] > @a OR T.[b] > @b) AND T.[a] <= @z
        ORDER BY T.[a], T.[b] OPTION (MAXDOP 1);";
    assert_eq!(query(&mut session, page), ["2", "3"]);
}

#[test]
fn tables_change_their_shape() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int IDENTITY(1,1) PRIMARY KEY, a int NULL, b varchar(5));
         INSERT s.t (a, b) VALUES (1, 'x'), (2, 'y');
         ALTER TABLE s.t ADD c int NOT NULL CONSTRAINT df_c DEFAULT 5, d nvarchar(10) NULL;
         ALTER TABLE s.t ALTER COLUMN a bigint NULL;
         ALTER TABLE s.t ALTER COLUMN b nvarchar(50) NOT NULL;
         EXEC sp_rename 's.t.a', 'amount', 'COLUMN';
         INSERT s.t (amount, b) VALUES (3000000000, N'漢')",
    );
    assert_eq!(
        query(&mut session, "SELECT * FROM s.t ORDER BY id"),
        ["1 1 x 5 NULL", "2 2 y 5 NULL", "3 3000000000 漢 5 NULL"]
    );
    assert_eq!(error(&mut session, "ALTER TABLE s.t DROP COLUMN c"), 5074);
    run(
        &mut session,
        "ALTER TABLE s.t DROP CONSTRAINT df_c; ALTER TABLE s.t DROP COLUMN c; ALTER TABLE s.t DROP COLUMN d",
    );
    assert_eq!(error(&mut session, "INSERT s.t (b) VALUES (NULL)"), 515);
    assert_eq!(error(&mut session, "ALTER TABLE s.t ALTER COLUMN amount tinyint"), 220);
    assert_eq!(query(&mut session, "SELECT amount FROM s.t ORDER BY id"), ["1", "2", "3000000000"]);
    run(&mut session, "ALTER TABLE s.t ALTER COLUMN amount decimal(20,2)");
    assert_eq!(query(&mut session, "SELECT amount FROM s.t ORDER BY id"), ["100e-2", "200e-2", "300000000000e-2"]);
    run(&mut session, "TRUNCATE TABLE s.t; INSERT s.t (amount, b) VALUES (7, N'z')");
    assert_eq!(query(&mut session, "SELECT id, amount FROM s.t"), ["1 700e-2"]);
    run(&mut session, "DROP TABLE s.t; DROP TABLE IF EXISTS s.t");
    assert_eq!(error(&mut session, "SELECT * FROM s.t"), 208);
}

#[test]
fn computed_columns_identities_and_rowversions_fill_themselves() {
    let mut session = database().session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE t (id bigint IDENTITY(10,5) NOT NULL PRIMARY KEY, a int, twice AS a * 2, full_name AS CONCAT('n', a) PERSISTED,
            rv rowversion, at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME());
         INSERT t (a) VALUES (1), (2);
         INSERT t (a) SELECT a + 10 FROM t",
    );
    assert_eq!(
        query(&mut session, "SELECT id, a, twice, full_name FROM t ORDER BY id"),
        ["10 1 2 n1", "15 2 4 n2", "20 11 22 n11", "25 12 24 n12"]
    );
    let versions = query(&mut session, "SELECT CONVERT(bigint, rv) FROM t ORDER BY id");
    assert_eq!(versions, ["2001", "2002", "2003", "2004"]);
    run(&mut session, "UPDATE t SET a = 5 WHERE id = 10");
    assert_eq!(one(&mut session, "SELECT CONVERT(bigint, rv) FROM t WHERE id = 10"), "2005");
    assert_eq!(error(&mut session, "INSERT t (id, a) VALUES (1, 1)"), 544);
    run(
        &mut session,
        "SET IDENTITY_INSERT t ON; INSERT t (id, a) VALUES (100, 1); SET IDENTITY_INSERT t OFF; INSERT t (a) VALUES (9)",
    );
    assert_eq!(one(&mut session, "SELECT MAX(id) FROM t"), "105");
    assert_eq!(one(&mut session, "SELECT SCOPE_IDENTITY()"), "105e-0");
    assert_eq!(collect(&mut session, "UPDATE t SET twice = 1").errors[0].number, 271);
}
