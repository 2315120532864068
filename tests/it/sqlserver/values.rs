//! What stands in tables: odd names, every type at its extremes, large values, and much that happens to one row.

use lakegate::journal::LoadStatus::{Committed, Unchanged};

use super::support::Operations;

#[tokio::test(flavor = "multi_thread")]
async fn names_may_be_anything() {
    let ops = Operations::start().await;
    let table = "[o'd]]d].[we]]ird 'n\" 😀 table]";
    ops.sql("CREATE SCHEMA [o'd]]d]");
    ops.sql(&format!(
        "CREATE TABLE {table} ([the key] int NOT NULL PRIMARY KEY, [a]]b] int NULL, [it's \"q\"] nvarchar(9) NULL, \
         [😀 漢字] nvarchar(9) NULL, [select] int NULL, [50%; -- drop] int NULL, [a,b(c){{d}}=e] int NULL)"
    ));
    ops.sql(&format!("ALTER TABLE {table} ENABLE CHANGE_TRACKING"));
    ops.team.define("ops.odd", &format!("[source]\nconnection = \"ops\"\ntable = {table:?}\n"));
    ops.sql(&format!(
        "INSERT INTO {table} VALUES (1, 2, N'x', N'y', 3, 4, 5), (2, NULL, N'''', N'😀', NULL, NULL, NULL)"
    ));
    ops.reads(2).await;
    assert_eq!(ops.rows("odd").await, ["1|2|x|y|3|4|5", "2|∅|'|😀|∅|∅|∅"]);
    ops.sql(&format!("UPDATE {table} SET [😀 漢字] = N'z', [a]]b] = 7 WHERE [the key] = 2"));
    ops.sql(&format!("DELETE FROM {table} WHERE [the key] = 1"));
    ops.reads(2).await;
    assert_eq!(ops.rows("odd").await, ["2|7|'|z|∅|∅|∅"]);
    let snapshot = ops.team.open().await.1.table(&"ops.odd".parse().unwrap()).snapshot().await.unwrap().unwrap();
    let names: Vec<String> = snapshot.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["the key", "a]b", "it's \"q\"", "😀 漢字", "select", "50%; -- drop", "a,b(c){d}=e"]);
}

/// Type, two literals at its ends, and what the lake says of them.
const TYPES: &[(&str, [&str; 2], [&str; 2])] = &[
    ("bit", ["0", "1"], ["false", "true"]),
    ("tinyint", ["0", "255"], ["0", "255"]),
    ("smallint", ["-32768", "32767"], ["-32768", "32767"]),
    ("int", ["-2147483648", "2147483647"], ["-2147483648", "2147483647"]),
    ("bigint", ["-9223372036854775808", "9223372036854775807"], ["-9223372036854775808", "9223372036854775807"]),
    (
        "decimal(38, 10)",
        ["-9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"],
        ["-9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"],
    ),
    ("decimal(5, 0)", ["-99999", "99999"], ["-99999", "99999"]),
    ("decimal(9, 9)", ["-0.999999999", "0.000000001"], ["-0.999999999", "0.000000001"]),
    ("money", ["-922337203685477.5808", "922337203685477.5807"], ["-922337203685477.5808", "922337203685477.5807"]),
    ("smallmoney", ["-214748.3648", "214748.3647"], ["-214748.3648", "214748.3647"]),
    ("real", ["-3.4028235E38", "1.17549435E-38"], ["-3.4028235e38", "1.1754944e-38"]),
    (
        "float",
        ["-1.7976931348623157E308", "2.2250738585072014E-308"],
        ["-1.7976931348623157e308", "2.2250738585072014e-308"],
    ),
    ("char(3)", ["''", "'a'"], ["   ", "a  "]),
    ("varchar(10)", ["''", "'é€ß '"], ["", "é€ß "]),
    ("varchar(max)", ["''", "'long'"], ["", "long"]),
    ("varchar(20) COLLATE Latin1_General_100_CI_AS_SC_UTF8", ["''", "N'漢字 😀'"], ["", "漢字 😀"]),
    ("varchar(20) COLLATE Cyrillic_General_CI_AS", ["''", "N'Привет'"], ["", "Привет"]),
    ("nchar(4)", ["N''", "N'漢😀'"], ["    ", "漢😀 "]),
    ("nvarchar(10)", ["N''", "N'漢字 😀'"], ["", "漢字 😀"]),
    ("nvarchar(max)", ["N''", "N'tab	and ''quote'''"], ["", "tab	and 'quote'"]),
    ("text", ["''", "'old'"], ["", "old"]),
    ("ntext", ["N''", "N'😀'"], ["", "😀"]),
    ("binary(3)", ["0x000000", "0xFFFFFF"], ["000000", "ffffff"]),
    ("varbinary(5)", ["0x", "0x00FF00"], ["", "00ff00"]),
    ("varbinary(max)", ["0x", "0xFF"], ["", "ff"]),
    ("image", ["0x", "0x01"], ["", "01"]),
    ("date", ["'0001-01-01'", "'9999-12-31'"], ["0001-01-01", "9999-12-31"]),
    ("time(7)", ["'00:00:00'", "'23:59:59.9999999'"], ["00:00:00.0000000", "23:59:59.9999999"]),
    ("time(0)", ["'00:00:00'", "'23:59:59'"], ["00:00:00", "23:59:59"]),
    (
        "datetime",
        ["'1753-01-01T00:00:00'", "'9999-12-31T23:59:59.997'"],
        ["1753-01-01T00:00:00", "9999-12-31T23:59:59.997"],
    ),
    (
        "smalldatetime",
        ["'1900-01-01T00:00:00'", "'2079-06-06T23:59:00'"],
        ["1900-01-01T00:00:00", "2079-06-06T23:59:00"],
    ),
    (
        "datetime2(6)",
        ["'0001-01-01T00:00:00'", "'9999-12-31T23:59:59.999999'"],
        ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"],
    ),
    (
        "datetime2(7)",
        ["'0001-01-01T00:00:00.0000009'", "'9999-12-31T23:59:59.9999999'"],
        ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"],
    ),
    (
        "datetime2(0)",
        ["'1969-12-31T23:59:59'", "'2026-02-28T00:00:01'"],
        ["1969-12-31T23:59:59", "2026-02-28T00:00:01"],
    ),
    (
        "datetimeoffset(6)",
        ["'0001-01-01T14:00:00+14:00'", "'9999-12-31T09:59:59.999999-14:00'"],
        ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"],
    ),
    (
        "uniqueidentifier",
        ["'00000000-0000-0000-0000-000000000000'", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'"],
        ["00000000-0000-0000-0000-000000000000", "6f9619ff-8b86-d011-b42d-00c04fc964ff"],
    ),
    ("xml", ["N''", "N'<a>😀</a>'"], ["", "<a>😀</a>"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_in_the_lake_as_it_stands_in_the_table_at_its_extremes() {
    let ops = Operations::start().await;
    let columns: Vec<String> =
        TYPES.iter().enumerate().map(|(place, (sql_type, ..))| format!("c{place} {sql_type} NULL")).collect();
    ops.table("wide", &format!("id int NOT NULL PRIMARY KEY, touched int NULL, {}", columns.join(", ")));
    let insert = |id: i32, values: Vec<&str>| {
        ops.sql(&format!("INSERT INTO dbo.wide VALUES ({id}, 0, {})", values.join(", ")));
    };
    insert(1, TYPES.iter().map(|(_, literals, _)| literals[0]).collect());
    insert(2, TYPES.iter().map(|(_, literals, _)| literals[1]).collect());
    insert(3, TYPES.iter().map(|_| "NULL").collect());
    let check = async |touched: i32| {
        let rows = ops.rows("wide").await;
        for (row, end) in rows.iter().zip([Some(0), Some(1), None]) {
            let values: Vec<&str> = row.split('|').collect();
            assert_eq!(values[1], touched.to_string());
            for ((sql_type, _, expected), value) in TYPES.iter().zip(&values[2..]) {
                let expected = end.map_or("∅", |end: usize| expected[end]);
                assert_eq!(*value, expected, "{sql_type}, row {}", values[0]);
            }
            assert_eq!(values.len(), TYPES.len() + 2);
        }
        assert_eq!(rows.len(), 3);
    };
    ops.reads(3).await;
    check(0).await;
    // By their changes they arrive just so.
    ops.sql("UPDATE dbo.wide SET touched = 1");
    ops.reads(3).await;
    check(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_as_long_as_a_page_arrive_whole() {
    let ops = Operations::start().await;
    ops.table("long", "id int NOT NULL PRIMARY KEY, c char(8000) NULL, n nvarchar(4000) NULL");
    for id in 0..60 {
        let (letter, wide) = (char::from(b'a' + (id % 26) as u8).to_string(), "漢".repeat(id * 60));
        ops.sql(&format!("INSERT INTO dbo.long VALUES ({id}, '{}', N'{wide}')", letter.repeat(8_000)));
    }
    ops.reads(60).await;
    ops.same("long", "id, c, n").await;
    ops.sql("UPDATE dbo.long SET n = N'short' WHERE id % 2 = 0");
    ops.reads(30).await;
    ops.same("long", "id, c, n").await;
}

/// A table with a text of 2 000 bytes in each of the rows named.
async fn with_large(rows: i64, large: impl IntoIterator<Item = i64>) -> Operations {
    let ops = Operations::start().await;
    ops.configure("chunk_time = \"1ms\"");
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL");
    ops.add_numbers("t", 1, rows);
    for id in large {
        ops.sql(&format!("UPDATE dbo.t SET v = N'{}' WHERE id = {id}", "x".repeat(1_000)));
    }
    ops
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_above_the_limit_fails_the_load_and_names_the_column() {
    let ops = with_large(20, [7]).await;
    ops.define("t", "max_cell = \"1KiB\"");
    let message = ops.refused().await;
    assert!(message.contains("`v`") && message.contains("max_cell") && message.contains("oversize"), "{message}");
    assert!(ops.rows("t").await.is_empty());
    ops.define("t", "max_cell = \"2KB\"");
    ops.reads(20).await;
    ops.same("t", "id, v").await;
}

async fn rejected(ops: &Operations) -> u64 {
    ops.team.open().await.1.table(&"ops.t".parse().unwrap()).chain().await.unwrap().rejected_rows()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_values_above_the_limit_are_rejected_once_each_wherever_they_stand_in_a_chunk() {
    // The last row of the first chunk, all rows of the second, the first of the third.
    let ops = with_large(1_600, 500..=1_001).await;
    ops.define("t", "max_cell = \"1KiB\"\noversize = \"reject\"");
    let mut command = ops.program(&[]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", crate::support::process::told(&output));
    let expected = ops.there("SELECT id, v FROM dbo.t WHERE id NOT BETWEEN 500 AND 1001");
    assert_eq!(ops.rows("t").await, expected);
    assert_eq!(rejected(&ops).await, 502);
    // A row that grew is gone from the lake, and back when it shrank.
    ops.sql(&format!("UPDATE dbo.t SET v = N'{}' WHERE id = 3", "y".repeat(1_000)));
    ops.sync(Committed).await;
    assert!(!ops.rows("t").await.iter().any(|row| row.starts_with("3|")));
    assert_eq!(rejected(&ops).await, 503);
    ops.sql("UPDATE dbo.t SET v = N'small again' WHERE id IN (3, 700)");
    ops.sync(Committed).await;
    let rows = ops.rows("t").await;
    assert!(rows.contains(&"3|small again".to_owned()) && rows.contains(&"700|small again".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_changes_of_a_row_the_last_one_counts() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
    ops.add_numbers("t", 1, 5);
    ops.reads(5).await;
    for round in 0..1_000 {
        ops.sql(&format!("UPDATE dbo.t SET v = N'round {round}' WHERE id = 3"));
    }
    ops.reads(1).await;
    ops.same("t", "id, v").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_went_and_came_back_are_there_once() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
    ops.add_numbers("t", 1, 5);
    ops.reads(5).await;
    ops.sql("DELETE FROM dbo.t WHERE id IN (1, 2)");
    ops.sql("INSERT INTO dbo.t VALUES (1, N'again')");
    ops.sql("INSERT INTO dbo.t VALUES (6, N'never seen')");
    ops.sql("DELETE FROM dbo.t WHERE id = 6");
    // Two rows change places.
    ops.sql("UPDATE dbo.t SET id = CASE id WHEN 4 THEN 50 ELSE 40 END WHERE id IN (4, 5)");
    ops.sync(Committed).await;
    ops.same("t", "id, v").await;
    ops.sql("DELETE FROM dbo.t");
    ops.sync(Committed).await;
    assert!(ops.rows("t").await.is_empty());
    ops.add_numbers("t", 1, 2);
    ops.reads(2).await;
    ops.same("t", "id, v").await;
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_values_only_the_server_can_compare_makes_every_load_read_the_whole_table() {
    let keys = [
        ("nvarchar(20) COLLATE Latin1_General_CI_AI", "N'a'", "N'b'", "N'Á '"),
        ("nvarchar(20) COLLATE Turkish_CI_AI", "N'i'", "N'b'", "N'İ'"),
        ("float", "0.1", "0.2", "1e300"),
    ];
    for (sql_type, first, second, changed) in keys {
        let ops = Operations::start().await;
        ops.table("t", &format!("k {sql_type} NOT NULL PRIMARY KEY, v int NULL"));
        ops.sql(&format!("INSERT INTO dbo.t VALUES ({first}, 1), ({second}, 2)"));
        let position = ops.sync(Committed).await.record.position.unwrap();
        assert_eq!(position["method"], "reload", "{sql_type}: {position}");
        assert!(position["because"].as_str().unwrap().contains("key column `k`"), "{position}");
        ops.sql(&format!("UPDATE dbo.t SET k = {changed} WHERE v = 1"));
        ops.reads(2).await;
        assert_eq!(ops.rows("t").await.len(), 2, "{sql_type}");
        ops.sync(Unchanged).await;
        ops.define("t", "method = \"change_tracking\"");
        assert!(ops.refused().await.contains("key column `k`"), "{sql_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_exact_type_are_followed_through_chunks_and_changes() {
    let keys: [(&str, [&str; 4]); 11] = [
        ("tinyint", ["0", "1", "128", "255"]),
        ("bigint", ["-9223372036854775808", "-1", "0", "9223372036854775807"]),
        ("decimal(20, 3)", ["-99999999999999999.999", "-0.001", "0", "12345.678"]),
        ("money", ["-1.0001", "0", "0.0001", "922337203685477.5807"]),
        ("date", ["'0001-01-01'", "'1969-12-31'", "'2024-02-29'", "'9999-12-31'"]),
        ("datetime", ["'1753-01-01'", "'2026-01-01T00:00:00.003'", "'2026-01-01T00:00:00.007'", "'9999-12-31'"]),
        (
            "datetime2(6)",
            ["'0001-01-01'", "'2026-01-01T00:00:00.000001'", "'2026-01-01T00:00:00.000002'", "'9999-12-31'"],
        ),
        (
            "datetimeoffset(3)",
            [
                "'0001-01-02T00:00:00+14:00'",
                "'2026-01-01T00:00:00+01:00'",
                "'2026-01-01T00:00:00+00:00'",
                "'9999-12-30T00:00:00-14:00'",
            ],
        ),
        ("time(3)", ["'00:00:00'", "'00:00:00.001'", "'12:00:00'", "'23:59:59.999'"]),
        (
            "uniqueidentifier",
            [
                "'00000000-0000-0000-0000-000000000001'",
                "'01000000-0000-0000-0000-000000000000'",
                "'6F9619FF-8B86-D011-B42D-00C04FC964FF'",
                "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'",
            ],
        ),
        ("binary(3)", ["0x000000", "0x000001", "0x0000FF", "0xFFFFFF"]),
    ];
    for (sql_type, values) in keys {
        let ops = Operations::start().await;
        ops.configure("chunk_time = \"1ms\"");
        ops.table("t", &format!("k {sql_type} NOT NULL, n int NOT NULL, v int NULL, PRIMARY KEY (k, n)"));
        // More rows of a key than a chunk has, so that chunks end within and between them.
        for (place, value) in values.iter().enumerate() {
            let rows: Vec<String> = (0..300).map(|n| format!("({value}, {n}, {place})")).collect();
            ops.sql(&format!("INSERT INTO dbo.t VALUES {}", rows.join(", ")));
        }
        let mut command = ops.program(&[]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{sql_type}: {}", crate::support::process::told(&output));
        assert_eq!(ops.chunks().len(), 3, "{sql_type}: {:?}", ops.chunks());
        let rows = ops.rows("t").await;
        let mut distinct = rows.clone();
        distinct.dedup();
        assert_eq!((rows.len(), distinct.len()), (1_200, 1_200), "{sql_type}");
        ops.sql(&format!("DELETE FROM dbo.t WHERE k = {}", values[1]));
        ops.sql(&format!("UPDATE dbo.t SET v = 9 WHERE k = {} AND n = 7", values[3]));
        ops.reads(301).await;
        let rows = ops.rows("t").await;
        assert_eq!(rows.len(), 900, "{sql_type}");
        assert_eq!(rows.iter().filter(|row| row.ends_with("|7|9")).count(), 1, "{sql_type}");
        assert!(!rows.iter().any(|row| row.ends_with("|1")), "{sql_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_lake_would_cut_is_refused() {
    let ops = Operations::start().await;
    ops.table("t", "k datetime2(7) NOT NULL PRIMARY KEY, v int NULL");
    ops.sql("INSERT INTO dbo.t VALUES ('2026-01-01T00:00:00.0000001', 1), ('2026-01-01T00:00:00.0000002', 2)");
    let message = ops.refused().await;
    assert!(message.contains('k') && message.contains("sub_microseconds"), "{message}");
    ops.define("t", "sub_microseconds = \"text\"");
    ops.reads(2).await;
    ops.sql("DELETE FROM dbo.t WHERE v = 1");
    ops.reads(1).await;
    assert_eq!(ops.rows("t").await, ["2026-01-01T00:00:00.0000002|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_reads_columns_otherwise_is_followed_for_old_rows_too() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL, secret int NULL, at datetimeoffset(0) NULL");
    ops.sql(&format!("INSERT INTO dbo.t VALUES (1, N'{}', 7, '2026-01-01T00:00:00+02:00')", "x".repeat(1_000)));
    ops.sql("INSERT INTO dbo.t VALUES (2, N'small', 8, NULL)");
    ops.define("t", "max_cell = \"1KiB\"\noversize = \"reject\"\nleave_out = [\"secret\"]");
    ops.sync(Committed).await;
    assert_eq!(ops.rows("t").await, ["2|small|∅"]);
    ops.define("t", "leave_out = [\"secret\"]");
    ops.reads(2).await;
    ops.define("t", "");
    ops.reads(2).await;
    let rows = ops.rows("t").await;
    assert!(rows[0].contains("|2025-12-31T22:00:00Z|7") || rows[0].contains("|7|2025-12-31T22:00:00Z"), "{rows:?}");
    ops.define("t", "offsets = true");
    ops.reads(2).await;
    assert!(ops.rows("t").await[0].contains("120"));
    ops.sync(Unchanged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_rejected_once_each_though_the_load_was_killed() {
    let points = [
        ("etl.whole.piece", "1*off->return(kill)"),
        ("lake.rejects.written", "1*off->return(kill)"),
        ("etl.whole.kept", "return(kill)"),
        ("etl.whole.made", "return(kill)"),
        ("etl.whole.adopted", "return(kill)"),
    ];
    for (point, what) in points {
        let ops = with_large(1_600, (1..=1_600).filter(|id| id % 250 == 0)).await;
        ops.define("t", "max_cell = \"1KiB\"\noversize = \"reject\"");
        for faults in [&[(point, what)][..], &[]] {
            let mut command = ops.program(faults);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert_eq!(
                output.status.success(),
                faults.is_empty(),
                "{point}: {}",
                crate::support::process::told(&output)
            );
        }
        let expected = ops.there("SELECT id, v FROM dbo.t WHERE id % 250 <> 0");
        assert_eq!(ops.rows("t").await, expected, "{point}");
        assert_eq!(rejected(&ops).await, 6, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_large_rows_end_at_as_many_bytes_as_may_wait_in_memory() {
    let ops = Operations::start().await;
    ops.table("t", "id int NOT NULL PRIMARY KEY, v nvarchar(max) NULL");
    let text = "x".repeat(500_000);
    for id in 0..300 {
        ops.sql(&format!("INSERT INTO dbo.t VALUES ({id}, N'{text}')"));
    }
    ops.server.database().faults().forget_statements();
    ops.reads(300).await;
    ops.same("t", "id, v").await;
    let statements = ops.server.database().faults().statements();
    let asked: Vec<u64> = statements
        .iter()
        .filter_map(|statement| statement.text.split_once("SELECT TOP (")?.1.split_once(')')?.0.parse().ok())
        .collect();
    assert!(asked.len() > 3 && asked[1..].iter().all(|rows| *rows < 100), "{asked:?}");
}
