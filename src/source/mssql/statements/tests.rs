//! Every statement as it is sent, to the letter.

use std::time::Duration;

use super::*;
use crate::source::mssql::column::{ColumnOptions, ColumnPlan, SourceColumn, SqlType};
use crate::source::mssql::key::{KeyColumn, KeyError};

const COLLATION: &str = "Latin1_General_CI_AS";

fn key(name: &str, sql_type: SqlType) -> KeyColumn {
    let column = SourceColumn {
        collation: Some(COLLATION.to_owned()),
        code_page: Some(1252),
        ..SourceColumn::plain(name, sql_type)
    };
    KeyColumn::new(&column, &ColumnOptions::default(), COLLATION).unwrap()
}

fn plan(name: &str, sql_type: SqlType) -> ColumnPlan {
    ColumnPlan::new(&SourceColumn::plain(name, sql_type), &ColumnOptions::default()).unwrap()
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn orders() -> SourceTable {
    SourceTable::new("dbo", "orders")
}

fn id() -> Vec<KeyColumn> {
    vec![key("id", SqlType::Int)]
}

fn strange() -> (SourceTable, Vec<KeyColumn>, Vec<ColumnPlan>) {
    let table = SourceTable::new("my schema", "a]b [c]'\" 🚀");
    let keys = vec![key("k ]1", SqlType::Money), key("k'2", SqlType::NVarChar { length: Some(9) })];
    let mut plans: Vec<_> = keys.iter().map(|key| key.plan().clone()).collect();
    plans.push(plan("🚀 body", SqlType::Xml));
    (table, keys, plans)
}

#[test]
fn changes_of_a_table() {
    let plans = [plan("id", SqlType::Int), plan("total", SqlType::Money)];
    assert_eq!(
        changes(&orders(), &id(), &plans, 123, KeyRange::default()).unwrap(),
        "DECLARE @last bigint = 123; SELECT CT.SYS_CHANGE_VERSION, CT.SYS_CHANGE_OPERATION, CT.[id], \
         CASE WHEN T.[id] IS NULL THEN 0 ELSE 1 END, T.[id], CAST(T.[total] AS decimal(19,4)) \
         FROM CHANGETABLE(CHANGES [dbo].[orders], @last) AS CT \
         LEFT OUTER JOIN [dbo].[orders] AS T ON T.[id] = CT.[id] OPTION (MAXDOP 1);"
    );
}

#[test]
fn changes_of_a_range_with_strange_names() {
    let (table, keys, plans) = strange();
    let (after, until) = (texts(&["1.5", "O'B"]), texts(&["-2"]));
    let range = KeyRange { after: &after, until: &until };
    assert_eq!(
        changes(&table, &keys, &plans, -1, range).unwrap(),
        "DECLARE @last bigint = -1, @a1 money = 1.5, @a2 nvarchar(9) = N'O''B', @z1 money = -2; \
         SELECT CT.SYS_CHANGE_VERSION, CT.SYS_CHANGE_OPERATION, CAST(CT.[k ]]1] AS decimal(19,4)), CT.[k'2], \
         CASE WHEN T.[k ]]1] IS NULL THEN 0 ELSE 1 END, CAST(T.[k ]]1] AS decimal(19,4)), T.[k'2], \
         CASE WHEN DATALENGTH(T.[🚀 body]) > 67108864 THEN NULL ELSE CAST(T.[🚀 body] AS nvarchar(max)) END, \
         DATALENGTH(T.[🚀 body]) \
         FROM CHANGETABLE(CHANGES [my schema].[a]]b [c]]'\" 🚀], @last) AS CT \
         LEFT OUTER JOIN [my schema].[a]]b [c]]'\" 🚀] AS T ON T.[k ]]1] = CT.[k ]]1] AND T.[k'2] = CT.[k'2] \
         WHERE CT.[k ]]1] >= @a1 AND (CT.[k ]]1] > @a1 OR CT.[k'2] > @a2) AND CT.[k ]]1] <= @z1 OPTION (MAXDOP 1);"
    );
}

#[test]
fn keys_that_changed() {
    assert_eq!(
        changed_keys(&orders(), &id(), 7, KeyRange::default()).unwrap(),
        "DECLARE @last bigint = 7; SELECT CT.[id] FROM CHANGETABLE(CHANGES [dbo].[orders], @last) AS CT \
         OPTION (MAXDOP 1);"
    );
}

#[test]
fn idle_tables_in_one_round_trip() {
    assert_eq!(
        idle(&[(orders(), 5), (SourceTable::new("dbo", "order lines"), 0)]),
        "DECLARE @v0 bigint = 5, @v1 bigint = 0; \
         SELECT 0, CASE WHEN EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES [dbo].[orders], @v0) AS c) \
         THEN 1 ELSE 0 END, CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'[dbo].[orders]')) UNION ALL \
         SELECT 1, CASE WHEN EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES [dbo].[order lines], @v1) AS c) \
         THEN 1 ELSE 0 END, CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'[dbo].[order lines]')) OPTION (MAXDOP 1);"
    );
}

#[test]
fn versions() {
    assert_eq!(
        min_valid_version(&SourceTable::new("dbo", "o'b]")),
        "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N'[dbo].[o''b]]]'));"
    );
    assert_eq!(CURRENT_VERSION, "SELECT CHANGE_TRACKING_CURRENT_VERSION();");
    assert_eq!(MIN_ACTIVE_ROWVERSION, "SELECT CONVERT(bigint, MIN_ACTIVE_ROWVERSION());");
}

#[test]
fn the_first_chunk_and_the_next() {
    let plans = [plan("id", SqlType::Int)];
    assert_eq!(
        chunk(&orders(), &id(), &plans, KeyRange::default(), 4096).unwrap(),
        "SELECT TOP (4096) T.[id] FROM [dbo].[orders] AS T ORDER BY T.[id] OPTION (MAXDOP 1);"
    );
    let (after, until) = (texts(&["10"]), texts(&["20"]));
    assert_eq!(
        chunk(&orders(), &id(), &plans, KeyRange { after: &after, until: &until }, 1).unwrap(),
        "DECLARE @a1 int = 10, @z1 int = 20; SELECT TOP (1) T.[id] FROM [dbo].[orders] AS T \
         WHERE T.[id] > @a1 AND T.[id] <= @z1 ORDER BY T.[id] OPTION (MAXDOP 1);"
    );
    assert_eq!(
        range(&orders(), &id(), &plans, KeyRange { after: &after, until: &until }).unwrap(),
        "DECLARE @a1 int = 10, @z1 int = 20; SELECT T.[id] FROM [dbo].[orders] AS T WHERE T.[id] > @a1 AND T.[id] <= @z1 \
         OPTION (MAXDOP 1);"
    );
    assert_eq!(
        range(&orders(), &id(), &plans, KeyRange::default()).unwrap(),
        whole(&orders(), &plans),
        "open at both ends"
    );
}

fn condition(columns: usize, after: &[i64], until: &[i64]) -> String {
    let keys: Vec<_> = (1..=columns).map(|place| key(&format!("k{place}"), SqlType::BigInt)).collect();
    let written = |values: &[i64]| values.iter().map(i64::to_string).collect::<Vec<_>>();
    let (after, until) = (written(after), written(until));
    let range = KeyRange { after: &after, until: &until };
    let statement = count(&orders(), &keys, range).unwrap();
    statement.split_once(" WHERE ").unwrap().1.strip_suffix(" OPTION (MAXDOP 1);").unwrap().to_owned()
}

#[test]
fn keys_of_many_columns_are_compared_column_by_column() {
    assert_eq!(condition(2, &[1, 2], &[]), "T.[k1] >= @a1 AND (T.[k1] > @a1 OR T.[k2] > @a2)");
    assert_eq!(
        condition(3, &[1, 2, 3], &[]),
        "T.[k1] >= @a1 AND (T.[k1] > @a1 OR (T.[k2] >= @a2 AND (T.[k2] > @a2 OR T.[k3] > @a3)))"
    );
    assert_eq!(condition(2, &[], &[1, 2]), "T.[k1] <= @z1 AND (T.[k1] < @z1 OR T.[k2] <= @z2)");
    assert_eq!(
        condition(3, &[], &[1, 2, 3]),
        "T.[k1] <= @z1 AND (T.[k1] < @z1 OR (T.[k2] <= @z2 AND (T.[k2] < @z2 OR T.[k3] <= @z3)))"
    );
    assert_eq!(condition(2, &[1], &[2]), "T.[k1] > @a1 AND T.[k1] <= @z1");
}

/// Reads a condition over `T.[kN]`, `@aN` and `@zN` as SQL would, without NULL.
fn holds(condition: &str, row: &[i64], after: &[i64], until: &[i64]) -> bool {
    let outside = |place: &usize| condition[..*place].matches('(').count() == condition[..*place].matches(')').count();
    let split = [" AND ", " OR "].into_iter().find_map(|word| {
        let place = condition.match_indices(word).map(|(place, _)| place).find(outside)?;
        Some((place, word))
    });
    if let Some((place, word)) = split {
        let (one, other) = (&condition[..place], &condition[place + word.len()..]);
        let (one, other) = (holds(one, row, after, until), holds(other, row, after, until));
        return if word == " AND " { one && other } else { one || other };
    }
    if let Some(inside) = condition.strip_prefix('(') {
        return holds(inside.strip_suffix(')').unwrap(), row, after, until);
    }
    let parts: Vec<_> = condition.split(' ').collect();
    let place = |text: &str| text.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<usize>().unwrap() - 1;
    let column = row[place(parts[0])];
    let bound = if parts[2].starts_with("@a") { after[place(parts[2])] } else { until[place(parts[2])] };
    match parts[1] {
        ">" => column > bound,
        ">=" => column >= bound,
        "<" => column < bound,
        "<=" => column <= bound,
        other => panic!("{other}"),
    }
}

proptest::proptest! {
    #[test]
    fn a_range_holds_just_the_rows_of_its_order(
        rows in proptest::collection::vec(proptest::collection::vec(0_i64..4, 4), 1..20),
        after in proptest::collection::vec(0_i64..4, 0..=4),
        until in proptest::collection::vec(0_i64..4, 0..=4),
    ) {
        if after.is_empty() && until.is_empty() {
            return Ok(());
        }
        let condition = condition(4, &after, &until);
        for row in rows {
            let past = after.is_empty() || row[..after.len()] > after[..];
            let within = until.is_empty() || row[..until.len()] <= until[..];
            proptest::prop_assert_eq!(holds(&condition, &row, &after, &until), past && within, "{}", condition);
        }
    }
}

#[test]
fn a_kept_key_that_does_not_fit_is_refused() {
    let (long, wrong) = (texts(&["1", "2"]), texts(&["x"]));
    let error = count(&orders(), &id(), KeyRange { after: &long, until: &[] }).unwrap_err();
    assert_eq!(error, KeyError::Columns { kept: 2, columns: 1 });
    let error = chunk(&orders(), &id(), &[], KeyRange { after: &[], until: &wrong }, 1).unwrap_err();
    assert!(matches!(error, KeyError::Text { .. }));
}

#[test]
fn text_keys_of_another_collation_are_compared_in_it() {
    let column = SourceColumn {
        collation: Some("Cyrillic_General_CI_AS".to_owned()),
        code_page: Some(1251),
        ..SourceColumn::plain("name", SqlType::VarChar { length: Some(20) })
    };
    let key = KeyColumn::new(&column, &ColumnOptions::default(), COLLATION).unwrap();
    let after = texts(&["Ёж"]);
    let range = KeyRange { after: &after, until: &[] };
    assert_eq!(
        count(&orders(), &[key], range).unwrap(),
        "DECLARE @a1 nvarchar(20) = N'Ёж'; SELECT COUNT_BIG(*) FROM [dbo].[orders] AS T \
         WHERE T.[name] > CAST(@a1 COLLATE Cyrillic_General_CI_AS AS varchar(20)) OPTION (MAXDOP 1);"
    );
}

#[test]
fn whole_tables_and_row_versions() {
    let plans = [plan("id", SqlType::Int), plan("rv", SqlType::RowVersion)];
    assert_eq!(whole(&orders(), &plans), "SELECT T.[id], T.[rv] FROM [dbo].[orders] AS T OPTION (MAXDOP 1);");
    assert_eq!(keys(&orders(), &id()), "SELECT T.[id] FROM [dbo].[orders] AS T OPTION (MAXDOP 1);");
    let (table, strange, _) = strange();
    assert_eq!(
        keys(&table, &strange),
        "SELECT CAST(T.[k ]]1] AS decimal(19,4)), T.[k'2] FROM [my schema].[a]]b [c]]'\" 🚀] AS T OPTION (MAXDOP 1);"
    );
    assert_eq!(
        newer_rows(&orders(), "rv", 2001, &plans),
        "DECLARE @lo binary(8) = 0x00000000000007D1; \
         SELECT T.[id], T.[rv] FROM [dbo].[orders] AS T WHERE T.[rv] >= @lo OPTION (MAXDOP 1);"
    );
    assert_eq!(
        newer_count(&orders(), "r]v", u64::MAX),
        "DECLARE @lo binary(8) = 0xFFFFFFFFFFFFFFFF; SELECT COUNT_BIG(*) FROM [dbo].[orders] AS T OPTION (MAXDOP 1); \
         SELECT COUNT_BIG(*) FROM [dbo].[orders] AS T WHERE T.[r]]v] >= @lo OPTION (MAXDOP 1);"
    );
}

#[test]
fn counts_bounds_and_cuts() {
    assert_eq!(
        count(&orders(), &[], KeyRange::default()).unwrap(),
        "SELECT COUNT_BIG(*) FROM [dbo].[orders] AS T OPTION (MAXDOP 1);"
    );
    assert_eq!(
        bounds(&orders(), &id()[0]),
        "SELECT CONVERT(nvarchar(40), MIN(T.[id])) FROM [dbo].[orders] AS T OPTION (MAXDOP 1); \
         SELECT CONVERT(nvarchar(40), MAX(T.[id])) FROM [dbo].[orders] AS T OPTION (MAXDOP 1);"
    );
    assert_eq!(
        key_splits(&orders(), &key("at", SqlType::DateTime), 4),
        "SELECT x.tile, CONVERT(nvarchar(40), MAX(x.k), 126) FROM (SELECT T.[at] AS k, \
         NTILE(4) OVER (ORDER BY T.[at]) AS tile FROM [dbo].[orders] AS T) AS x \
         GROUP BY x.tile ORDER BY x.tile OPTION (MAXDOP 1);"
    );
}

#[test]
fn settings_and_transactions() {
    assert_eq!(
        session(Duration::from_secs(5)),
        "SET XACT_ABORT ON; SET LOCK_TIMEOUT 5000; SET DEADLOCK_PRIORITY LOW; SET NOCOUNT ON;"
    );
    assert_eq!(BEGIN_SNAPSHOT, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION;");
    assert_eq!(BEGIN_READ_COMMITTED, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRANSACTION;");
    assert_eq!(COMMIT, "COMMIT TRANSACTION;");
    assert_eq!(ROLLBACK, "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION;");
    assert_eq!(ROWS_READ, "SELECT @@ROWCOUNT;");
}

#[test]
fn the_catalogue_of_old_and_new_servers() {
    assert_eq!(
        columns(16, &[7, -8]),
        "SELECT c.object_id, c.column_id, c.name, COALESCE(b.name, u.name), u.is_assembly_type, c.max_length, \
         c.precision, c.scale, c.is_nullable, c.collation_name, \
         CONVERT(int, COLLATIONPROPERTY(c.collation_name, 'CodePage')), c.is_identity, c.is_computed, \
         cc.is_persisted, c.is_sparse, c.is_column_set, c.is_masked, c.is_hidden, c.generated_always_type, \
         CONVERT(int, c.encryption_type), c.default_object_id FROM sys.columns AS c \
         JOIN sys.types AS u ON u.user_type_id = c.user_type_id \
         LEFT JOIN sys.types AS b ON b.user_type_id = c.system_type_id \
         LEFT JOIN sys.computed_columns AS cc ON cc.object_id = c.object_id AND cc.column_id = c.column_id \
         WHERE c.object_id IN (7, -8) ORDER BY c.object_id, c.column_id;"
    );
    let old = columns(12, &[]);
    assert!(!old.contains("is_masked") && old.contains("CONVERT(tinyint, 0), CONVERT(int, NULL), c.default_object_id"));
    assert!(old.contains(" WHERE (c.object_id IN (SELECT t.object_id FROM sys.tables AS t) OR "));
    assert!(tables(13).contains("t.temporal_type, t.is_memory_optimized, t.is_external FROM sys.tables AS t"));
    assert!(!tables(12).contains("temporal_type"));
    assert!(indexes(&[1]).contains("AND i.object_id IN (1) ORDER BY i.object_id, i.index_id, ic.key_ordinal;"));
}

#[test]
fn permissions_of_tables() {
    assert_eq!(
        permissions(&[orders(), SourceTable::new("dbo", "it's")]),
        "SELECT 0, HAS_PERMS_BY_NAME(N'[dbo].[orders]', N'OBJECT', N'SELECT'), \
         HAS_PERMS_BY_NAME(N'[dbo].[orders]', N'OBJECT', N'VIEW CHANGE TRACKING') UNION ALL \
         SELECT 1, HAS_PERMS_BY_NAME(N'[dbo].[it''s]', N'OBJECT', N'SELECT'), \
         HAS_PERMS_BY_NAME(N'[dbo].[it''s]', N'OBJECT', N'VIEW CHANGE TRACKING');"
    );
}

#[test]
fn the_script_for_an_administrator() {
    let wanted = Privileges {
        database: "op]s".to_owned(),
        user: "lake gate".to_owned(),
        tracked: vec![orders()],
        read: vec![SourceTable::new("dbo", "codes")],
        retention_days: Some(7),
        allow_snapshot: true,
        untracked: vec![orders()],
        state: true,
    };
    assert_eq!(
        privileges(&wanted),
        "-- What N'lake gate' needs to read, and nothing more.\n\
         USE [op]]s];\n\
         ALTER DATABASE [op]]s] SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON);\n\
         ALTER DATABASE [op]]s] SET ALLOW_SNAPSHOT_ISOLATION ON;\n\
         ALTER TABLE [dbo].[orders] ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);\n\
         GRANT SELECT ON OBJECT::[dbo].[orders] TO [lake gate];\n\
         GRANT SELECT ON OBJECT::[dbo].[codes] TO [lake gate];\n\
         GRANT VIEW CHANGE TRACKING ON OBJECT::[dbo].[orders] TO [lake gate];\n\
         GRANT VIEW DATABASE STATE TO [lake gate];\n"
    );
    let little = Privileges { database: "ops".to_owned(), user: "u".to_owned(), ..Privileges::default() };
    assert_eq!(privileges(&little), "-- What N'u' needs to read, and nothing more.\nUSE [ops];\n");
}
