//! Statements that read what the server says of itself, the database and its tables.
//!
//! Each stands alone, because a server may lack what one of them reads, or a login may not see it; then the others
//! still answer. Types are cast where the driver's reading of the catalogue's own could differ between versions.

use super::{SourceTable, text_literal};

/// The server and the database in one row: product version, engine edition (`int`), edition, database, `READ_WRITE` or
/// `READ_ONLY`, the database's collation.
pub const SERVER: &str = "SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion')), \
    CONVERT(int, SERVERPROPERTY('EngineEdition')), CONVERT(nvarchar(128), SERVERPROPERTY('Edition')), DB_NAME(), \
    CONVERT(nvarchar(60), DATABASEPROPERTYEX(DB_NAME(), 'Updateability')), \
    CONVERT(nvarchar(128), DATABASEPROPERTYEX(DB_NAME(), 'Collation'));";

/// The database: `database_id` (`int`), when it was created (text), compatibility level (`tinyint`), state of snapshot
/// isolation (`tinyint`: 1 is on), whether READ COMMITTED reads snapshots (`bit`), the broker's identity (text; new
/// after a restore WITH NEW_BROKER).
pub const DATABASE: &str = "SELECT d.database_id, CONVERT(nvarchar(30), d.create_date, 126), d.compatibility_level, \
    d.snapshot_isolation_state, d.is_read_committed_snapshot_on, CONVERT(nvarchar(36), d.service_broker_guid) \
    FROM sys.databases AS d WHERE d.name = DB_NAME();";

/// What a restore changes: the recovery fork and the database's identity (both text). Needs VIEW DATABASE STATE; not
/// on Azure SQL Database.
pub const RECOVERY: &str = "SELECT CONVERT(nvarchar(36), r.recovery_fork_guid), CONVERT(nvarchar(36), r.database_guid) \
    FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID();";

/// Change Tracking of the database; no row when it is off: whether old changes are removed (`bit`), how long they are
/// kept (`int`), in which unit (text: MINUTES, HOURS, DAYS).
pub const CHANGE_TRACKING: &str = "SELECT c.is_auto_cleanup_on, c.retention_period, \
    CONVERT(nvarchar(60), c.retention_period_units_desc) FROM sys.change_tracking_databases AS c \
    WHERE c.database_id = DB_ID();";

/// Change Tracking of every tracked table: `object_id` (`int`), whether columns are tracked (`bit`), oldest valid
/// version, version when it was switched on, version up to which it was cleaned (each `bigint`).
pub const TRACKED_TABLES: &str = "SELECT c.object_id, c.is_track_columns_updated_on, c.min_valid_version, \
    c.begin_version, c.cleanup_version FROM sys.change_tracking_tables AS c;";

/// Whether a look at tables can be spared, of all that are tracked: schema, name, the version of the newest commit in the
/// database, the oldest one from which changes of the table can be asked for (each `bigint`; NULL when the login may not
/// ask), when the table was altered last (text).
pub const TABLE_STATES: &str = "SELECT s.name, t.name, CHANGE_TRACKING_CURRENT_VERSION(), \
    CHANGE_TRACKING_MIN_VALID_VERSION(t.object_id), CONVERT(nvarchar(30), t.modify_date, 126) \
    FROM sys.change_tracking_tables AS c JOIN sys.tables AS t ON t.object_id = c.object_id \
    JOIN sys.schemas AS s ON s.schema_id = t.schema_id;";

/// Tables on which a security policy may hide rows: `object_id` (`int`). From SQL Server 2016 on.
pub const SECURED_TABLES: &str = "SELECT p.target_object_id FROM sys.security_predicates AS p \
    JOIN sys.security_policies AS s ON s.object_id = p.object_id WHERE s.is_enabled = 1;";

/// Whether the login sees what is masked: `int`, 1 for yes. From SQL Server 2016 on.
pub const UNMASK: &str = "SELECT HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'UNMASK');";

/// Rows and pages of tables: `object_id` (`int`), rows (`bigint`), pages of 8 KiB in use (`bigint`). Needs VIEW
/// DATABASE STATE.
pub const SIZES: &str = "SELECT p.object_id, SUM(p.row_count), SUM(p.used_page_count) \
    FROM sys.dm_db_partition_stats AS p WHERE p.index_id IN (0, 1) GROUP BY p.object_id;";

/// Rows of tables where [`SIZES`] cannot be read: `object_id` (`int`), rows (`bigint`).
pub const ROW_COUNTS: &str = "SELECT p.object_id, SUM(p.rows) FROM sys.partitions AS p \
    WHERE p.index_id IN (0, 1) GROUP BY p.object_id;";

/// First product version that has temporal tables, masks, Always Encrypted and row-level security: SQL Server 2016.
pub const VERSION_2016: u32 = 13;

/// Tables and views: `object_id` (`int`), schema, name, 1 for a view else 0 (`int`), when created and last altered
/// (text), temporal type (`tinyint`: 1 is a history table, 2 has one), whether in memory, whether external (`bit`).
/// `major` is the server's product version.
pub fn tables(major: u32) -> String {
    let flags = if major >= VERSION_2016 {
        "t.temporal_type, t.is_memory_optimized, t.is_external"
    } else {
        "CONVERT(tinyint, 0), CONVERT(bit, 0), CONVERT(bit, 0)"
    };
    let dates = "CONVERT(nvarchar(30), t.create_date, 126), CONVERT(nvarchar(30), t.modify_date, 126)";
    format!(
        "SELECT t.object_id, s.name, t.name, 0, {dates}, {flags} FROM sys.tables AS t \
         JOIN sys.schemas AS s ON s.schema_id = t.schema_id \
         UNION ALL SELECT t.object_id, s.name, t.name, 1, {dates}, CONVERT(tinyint, 0), CONVERT(bit, 0), \
         CONVERT(bit, 0) FROM sys.views AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id;"
    )
}

/// Columns of tables and views, of `objects` or of all if that is empty, in the order of their numbers: `object_id`,
/// `column_id` (`int`), name, base type's name, whether it is an assembly's (`bit`), `max_length` (`smallint`),
/// `precision`, `scale` (`tinyint`), nullable (`bit`), collation (text), its code page (`int`), identity, computed
/// (`bit`), computed and persisted (`bit`), sparse, column set, masked, hidden (`bit`), `generated_always_type`
/// (`tinyint`), `encryption_type` (`int`), `default_object_id` (`int`). `major` is the server's product version.
pub fn columns(major: u32, objects: &[i32]) -> String {
    let newer = if major >= VERSION_2016 {
        "c.is_masked, c.is_hidden, c.generated_always_type, CONVERT(int, c.encryption_type)"
    } else {
        "CONVERT(bit, 0), CONVERT(bit, 0), CONVERT(tinyint, 0), CONVERT(int, NULL)"
    };
    format!(
        "SELECT c.object_id, c.column_id, c.name, COALESCE(b.name, u.name), u.is_assembly_type, c.max_length, \
         c.precision, c.scale, c.is_nullable, c.collation_name, \
         CONVERT(int, COLLATIONPROPERTY(c.collation_name, 'CodePage')), c.is_identity, c.is_computed, \
         cc.is_persisted, c.is_sparse, c.is_column_set, {newer}, c.default_object_id FROM sys.columns AS c \
         JOIN sys.types AS u ON u.user_type_id = c.user_type_id \
         LEFT JOIN sys.types AS b ON b.user_type_id = c.system_type_id \
         LEFT JOIN sys.computed_columns AS cc ON cc.object_id = c.object_id AND cc.column_id = c.column_id \
         WHERE {} ORDER BY c.object_id, c.column_id;",
        among("c", objects)
    )
}

/// Indexes that are in use and cover all rows, of `objects` or of all if that is empty, a row for every key column:
/// `object_id`, `index_id` (`int`), name, whether unique, whether the primary key (`bit`), kind (`tinyint`: 1 is
/// clustered), the column's place in the key (`tinyint`), its `column_id` (`int`), whether descending (`bit`).
pub fn indexes(objects: &[i32]) -> String {
    format!(
        "SELECT i.object_id, i.index_id, i.name, i.is_unique, i.is_primary_key, i.type, ic.key_ordinal, \
         ic.column_id, ic.is_descending_key FROM sys.indexes AS i \
         JOIN sys.index_columns AS ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id \
         WHERE i.is_disabled = 0 AND i.has_filter = 0 AND ic.key_ordinal > 0 AND {} \
         ORDER BY i.object_id, i.index_id, ic.key_ordinal;",
        among("i", objects)
    )
}

/// What the login may do with each of `tables`. A row has: the table's place (`int`), whether it may be read, whether
/// its changes may be asked for (`int`: 1 yes, 0 no, NULL when there is no such table). `tables` must not be empty.
pub fn permissions(tables: &[SourceTable]) -> String {
    let selects: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(place, table)| {
            let table = text_literal(&table.to_string());
            format!(
                "SELECT {place}, HAS_PERMS_BY_NAME({table}, N'OBJECT', N'SELECT'), \
                 HAS_PERMS_BY_NAME({table}, N'OBJECT', N'VIEW CHANGE TRACKING')"
            )
        })
        .collect();
    format!("{};", selects.join(" UNION ALL "))
}

fn among(alias: &str, objects: &[i32]) -> String {
    if objects.is_empty() {
        return format!(
            "({alias}.object_id IN (SELECT t.object_id FROM sys.tables AS t) \
             OR {alias}.object_id IN (SELECT v.object_id FROM sys.views AS v))"
        );
    }
    let numbers: Vec<_> = objects.iter().map(i32::to_string).collect();
    format!("{alias}.object_id IN ({})", numbers.join(", "))
}
