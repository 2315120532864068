//! The catalogue views.

use crate::{database, one, query, run};

#[test]
fn the_catalogue_shows_tables_columns_and_keys() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(
        &mut session,
        "CREATE TYPE dbo.Name FROM nvarchar(30) NOT NULL;
         CREATE TABLE s.t (
            a varchar(10) COLLATE Latin1_General_BIN2 NOT NULL, b int IDENTITY(1,1) NOT NULL, c decimal(18,4) SPARSE NULL,
            d datetime2(3) NOT NULL CONSTRAINT df_d DEFAULT SYSUTCDATETIME(), e AS b + 1 PERSISTED, f rowversion,
            g nvarchar(max) MASKED WITH (FUNCTION = 'default()'), h dbo.Name, i float(24),
            CONSTRAINT pk_t PRIMARY KEY NONCLUSTERED (b, a DESC), CONSTRAINT uq UNIQUE CLUSTERED (a));
         CREATE INDEX ix ON s.t (c) INCLUDE (d) WHERE c > 0",
    );
    assert_eq!(
        query(
            &mut session,
            "SELECT c.name, ty.name, c.max_length, c.precision, c.scale, c.collation_name, c.is_nullable, c.is_identity, c.is_computed,
                c.is_sparse, c.is_masked, c.generated_always_type, CASE WHEN c.default_object_id = 0 THEN 0 ELSE 1 END, c.system_type_id
             FROM sys.columns AS c JOIN sys.tables AS t ON t.object_id = c.object_id JOIN sys.schemas AS s ON s.schema_id = t.schema_id
             JOIN sys.types AS ty ON ty.user_type_id = c.user_type_id WHERE s.name = N's' AND t.name = N't' ORDER BY c.column_id"
        ),
        [
            "a varchar 10 0 0 Latin1_General_BIN2 0 0 0 0 0 0 0 167",
            "b int 4 10 0 NULL 0 1 0 0 0 0 0 56",
            "c decimal 9 18 4 NULL 1 0 0 1 0 0 0 106",
            "d datetime2 7 23 3 NULL 0 0 0 0 0 0 1 42",
            "e int 4 10 0 NULL 0 0 1 0 0 0 0 56",
            "f timestamp 8 0 0 NULL 0 0 0 0 0 0 0 189",
            "g nvarchar -1 0 0 SQL_Latin1_General_CP1_CI_AS 1 0 0 0 1 0 0 231",
            "h Name 60 0 0 SQL_Latin1_General_CP1_CI_AS 0 0 0 0 0 0 0 231",
            "i real 4 24 0 NULL 1 0 0 0 0 0 0 59",
        ]
    );
    assert_eq!(
        query(
            &mut session,
            "SELECT i.name, i.index_id, i.type, i.is_unique, i.is_primary_key, i.has_filter, ic.key_ordinal, COL.name, ic.is_descending_key, ic.is_included_column
             FROM sys.indexes AS i JOIN sys.index_columns AS ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
             JOIN sys.columns AS COL ON COL.object_id = ic.object_id AND COL.column_id = ic.column_id
             WHERE i.object_id = OBJECT_ID(N'[s].[t]') ORDER BY i.index_id, ic.index_column_id"
        ),
        [
            "uq 1 1 1 0 0 1 a 0 0",
            "pk_t 2 2 1 1 0 1 b 0 0",
            "pk_t 2 2 1 1 0 2 a 1 0",
            "ix 3 2 0 0 1 1 c 0 0",
            "ix 3 2 0 0 1 0 d 0 1",
        ]
    );
    assert_eq!(query(&mut session, "SELECT name, type FROM sys.key_constraints ORDER BY name"), ["pk_t PK", "uq UQ"]);
    assert_eq!(
        query(&mut session, "SELECT name, definition FROM sys.default_constraints"),
        ["df_d (SYSUTCDATETIME())"]
    );
    assert_eq!(query(&mut session, "SELECT name, is_persisted FROM sys.computed_columns"), ["e 1"]);
    run(&mut session, "INSERT s.t (a, h) VALUES ('x', N'n'), ('y', N'n')");
    assert_eq!(
        one(
            &mut session,
            "SELECT SUM(p.rows) FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID('s.t') AND p.index_id IN (0, 1)"
        ),
        "2"
    );
    assert_eq!(
        one(&mut session, "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES"),
        "s t BASE TABLE"
    );
}

#[test]
fn preflight_statements_are_answered() {
    let database = database();
    let mut session = database.session("sa").unwrap();
    run(
        &mut session,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY, started datetime2 GENERATED ALWAYS AS ROW START HIDDEN, ended datetime2 GENERATED ALWAYS AS ROW END HIDDEN,
            PERIOD FOR SYSTEM_TIME (started, ended)) WITH (SYSTEM_VERSIONING = ON (HISTORY_TABLE = s.h));
         ALTER TABLE s.t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = ON);
         CREATE SECURITY POLICY s.p ADD FILTER PREDICATE s.f(id) ON s.t WITH (STATE = ON);
         INSERT s.t (id) VALUES (1)",
    );
    assert_eq!(
        one(
            &mut session,
            "SELECT database_id, compatibility_level, snapshot_isolation_state, is_read_committed_snapshot_on, collation_name, LEN(CONVERT(nvarchar(36), service_broker_guid)) FROM sys.databases WHERE name = DB_NAME()"
        ),
        "5 160 1 0 SQL_Latin1_General_CP1_CI_AS 36"
    );
    assert_eq!(
        one(
            &mut session,
            "SELECT is_auto_cleanup_on, retention_period, retention_period_units_desc FROM sys.change_tracking_databases WHERE database_id = DB_ID()"
        ),
        "1 7 DAYS"
    );
    assert_eq!(
        one(
            &mut session,
            "SELECT s.name, t.name, t.temporal_type, t.is_memory_optimized, ct.min_valid_version, ct.is_track_columns_updated_on, p.target_object_id - t.object_id
             FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id LEFT JOIN sys.change_tracking_tables ct ON ct.object_id = t.object_id
             LEFT JOIN sys.security_predicates AS p ON p.target_object_id = t.object_id"
        ),
        "s t 2 0 0 1 0"
    );
    assert_eq!(
        query(&mut session, "SELECT name, generated_always_type, is_hidden FROM sys.columns ORDER BY column_id"),
        ["id 0 0", "started 1 1", "ended 2 1"]
    );
    assert_eq!(query(&mut session, "SELECT * FROM s.t"), ["1"]);
    assert_eq!(one(&mut session, "SELECT YEAR(ended) FROM s.t"), "9999");
    assert_eq!(
        one(
            &mut session,
            "SELECT permission_name FROM sys.fn_my_permissions(NULL, 'DATABASE') WHERE permission_name = 'SELECT'"
        ),
        "SELECT"
    );
}
