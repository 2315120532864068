//! Views over the database, Change Tracking, security and sizes.

use super::tables::datetime;
use super::{NAME, Origin, Rows, SystemView, bit, int, text};
use crate::engine::catalog::Scope;
use crate::engine::function::DATABASE_ID;
use crate::engine::shared::lock;
use crate::value::{SqlType, Value};

const INT: SqlType = SqlType::Int;
const BIG: SqlType = SqlType::BigInt;
const BIT: SqlType = SqlType::Bit;
const TINY: SqlType = SqlType::TinyInt;
const GUID: SqlType = SqlType::UniqueIdentifier;

pub(super) const VIEWS: &[SystemView] = &[
    SystemView {
        name: "sys.databases",
        columns: &[
            ("name", NAME),
            ("database_id", INT),
            ("create_date", SqlType::DateTime),
            ("compatibility_level", TINY),
            ("collation_name", NAME),
            ("user_access_desc", NAME),
            ("is_read_only", BIT),
            ("state", TINY),
            ("state_desc", NAME),
            ("snapshot_isolation_state", TINY),
            ("snapshot_isolation_state_desc", NAME),
            ("is_read_committed_snapshot_on", BIT),
            ("recovery_model_desc", NAME),
            ("service_broker_guid", GUID),
            ("is_cdc_enabled", BIT),
            ("replica_id", GUID),
        ],
        rows: databases,
    },
    SystemView {
        name: "sys.database_recovery_status",
        columns: &[("database_id", INT), ("database_guid", GUID), ("family_guid", GUID), ("recovery_fork_guid", GUID)],
        rows: recovery_status,
    },
    SystemView {
        name: "sys.change_tracking_databases",
        columns: &[
            ("database_id", INT),
            ("is_auto_cleanup_on", TINY),
            ("retention_period", INT),
            ("retention_period_units", TINY),
            ("retention_period_units_desc", NAME),
            ("max_cleanup_version", BIG),
        ],
        rows: tracking_databases,
    },
    SystemView {
        name: "sys.change_tracking_tables",
        columns: &[
            ("object_id", INT),
            ("is_track_columns_updated_on", BIT),
            ("min_valid_version", BIG),
            ("begin_version", BIG),
            ("cleanup_version", BIG),
        ],
        rows: tracking_tables,
    },
    SystemView {
        name: "sys.security_policies",
        columns: &[
            ("name", NAME),
            ("object_id", INT),
            ("schema_id", INT),
            ("is_enabled", BIT),
            ("is_schema_bound", BIT),
        ],
        rows: security_policies,
    },
    SystemView {
        name: "sys.security_predicates",
        columns: &[
            ("object_id", INT),
            ("security_predicate_id", INT),
            ("target_object_id", INT),
            ("predicate_type", INT),
            ("predicate_type_desc", NAME),
        ],
        rows: security_predicates,
    },
    SystemView {
        name: "sys.partitions",
        columns: &[
            ("partition_id", BIG),
            ("object_id", INT),
            ("index_id", INT),
            ("partition_number", INT),
            ("hobt_id", BIG),
            ("rows", BIG),
        ],
        rows: partitions,
    },
    SystemView {
        name: "sys.dm_db_partition_stats",
        columns: &[
            ("partition_id", BIG),
            ("object_id", INT),
            ("index_id", INT),
            ("partition_number", INT),
            ("in_row_data_page_count", BIG),
            ("in_row_used_page_count", BIG),
            ("lob_used_page_count", BIG),
            ("used_page_count", BIG),
            ("reserved_page_count", BIG),
            ("row_count", BIG),
        ],
        rows: partition_stats,
    },
    SystemView {
        name: "sys.dm_tran_commit_table",
        columns: &[
            ("commit_ts", BIG),
            ("xdes_id", BIG),
            ("commit_lbn", BIG),
            ("commit_csn", BIG),
            ("commit_time", SqlType::DateTime),
        ],
        rows: nothing,
    },
    SystemView {
        name: "sys.database_principals",
        columns: &[("name", NAME), ("principal_id", INT), ("type", SqlType::Char { length: 1 }), ("type_desc", NAME)],
        rows: principals,
    },
    SystemView {
        name: "sys.fn_my_permissions",
        columns: &[("entity_name", NAME), ("subentity_name", NAME), ("permission_name", NAME)],
        rows: my_permissions,
    },
];

fn nothing(_: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(Vec::new())
}

fn guid(uuid: uuid::Uuid) -> Value {
    Value::Guid(*uuid.as_bytes())
}

fn databases(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let state = &origin.catalog.database;
    let secondary = origin.shared.is_secondary();
    let snapshot = state.snapshot && origin.shared.options.snapshot_isolation;
    let broker = lock(&origin.shared.guids).broker;
    Ok(vec![vec![
        text(&state.name),
        int(DATABASE_ID),
        datetime(&state.created),
        int(state.compatibility),
        text(state.collation.name()),
        text("MULTI_USER"),
        bit(state.read_only || secondary),
        int(0),
        text("ONLINE"),
        int(i32::from(snapshot)),
        text(if snapshot { "ON" } else { "OFF" }),
        bit(state.read_committed_snapshot),
        text("FULL"),
        guid(broker),
        bit(false),
        Value::Null,
    ]])
}

fn recovery_status(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let allowed = ["VIEW DATABASE STATE", "VIEW SERVER STATE", "VIEW DEFINITION"]
        .iter()
        .any(|permission| origin.catalog.allows(origin.login, permission, Scope::Database));
    if !allowed {
        return Ok(Vec::new());
    }
    let guids = *lock(&origin.shared.guids);
    Ok(vec![vec![int(DATABASE_ID), guid(guids.database), guid(guids.database), guid(guids.fork)]])
}

fn tracking_databases(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let Some(tracking) = origin.catalog.database.tracking else { return Ok(Vec::new()) };
    let unit = match tracking.unit {
        1 => "MINUTES",
        2 => "HOURS",
        _ => "DAYS",
    };
    Ok(vec![vec![
        int(DATABASE_ID),
        int(i32::from(tracking.auto_cleanup)),
        int(tracking.retention),
        int(tracking.unit),
        text(unit),
        Value::Null,
    ]])
}

fn tracking_tables(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut statement = origin
        .connection
        .prepare_cached("SELECT min_valid, begin_version, cleanup FROM fx_tracked WHERE object_id = ?1")?;
    let mut rows = Vec::new();
    for object in origin.tables() {
        let Some(tracking) = object.tracking else { continue };
        let versions = statement
            .query_row([object.id], |row| Ok([row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?]))?;
        let mut row = vec![int(object.id), bit(tracking.columns_updated)];
        row.extend(versions.map(Value::Int));
        rows.push(row);
    }
    Ok(rows)
}

fn security_policies(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let row = |policy: &crate::engine::catalog::Policy| {
        vec![text(&policy.name), int(policy.id), int(policy.schema), bit(true), bit(true)]
    };
    Ok(origin.catalog.policies.iter().map(row).collect())
}

fn security_predicates(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = Vec::new();
    for policy in &origin.catalog.policies {
        for (at, target) in (1i32..).zip(&policy.targets) {
            rows.push(vec![int(policy.id), int(at), int(*target), int(0), text("FILTER")]);
        }
    }
    Ok(rows)
}

/// Every table's partition: the heap or clustered index first, then its other indexes.
fn partitions_of(origin: &Origin<'_>) -> Vec<(i32, i32, i64)> {
    let counts = lock(&origin.shared.row_counts);
    let mut all = Vec::new();
    for object in origin.tables() {
        let rows = counts.get(&object.id).copied().unwrap_or(0).max(0);
        let clustered = i32::from(object.keys.iter().any(|key| key.index == 1));
        all.push((object.id, clustered, rows));
        all.extend(object.keys.iter().filter(|key| key.index > 1).map(|key| (object.id, key.index, rows)));
    }
    all
}

fn partitions(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let row = |(table, index, rows): (i32, i32, i64)| {
        let id = (i64::from(table) << 16) + i64::from(index);
        vec![int(id), int(table), int(index), int(1), int(id), int(rows)]
    };
    Ok(partitions_of(origin).into_iter().map(row).collect())
}

/// Rows on a page, for page counts that are about right.
const ROWS_ON_A_PAGE: i64 = 80;

fn partition_stats(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let row = |(table, index, rows): (i32, i32, i64)| {
        let id = (i64::from(table) << 16) + i64::from(index);
        let data = (rows + ROWS_ON_A_PAGE - 1) / ROWS_ON_A_PAGE;
        let used = if rows == 0 { 0 } else { data + 1 };
        vec![int(id), int(table), int(index), int(1), int(data), int(used), int(0), int(used), int(used), int(rows)]
    };
    Ok(partitions_of(origin).into_iter().map(row).collect())
}

fn principals(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = vec![vec![text("dbo"), int(1), text("S"), text("SQL_USER")]];
    let mut names: Vec<_> = origin.catalog.logins.keys().collect();
    names.sort();
    for (id, name) in (5i32..).zip(names) {
        rows.push(vec![text(name), int(id), text("S"), text("SQL_USER")]);
    }
    Ok(rows)
}

fn my_permissions(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let all = [
        "CONNECT",
        "SELECT",
        "VIEW CHANGE TRACKING",
        "VIEW DATABASE STATE",
        "VIEW DEFINITION",
        "INSERT",
        "UPDATE",
        "DELETE",
    ];
    Ok(all
        .iter()
        .filter(|permission| {
            **permission == "CONNECT" || origin.catalog.allows(origin.login, permission, Scope::Database)
        })
        .map(|permission| vec![text("database"), text(""), text(permission)])
        .collect())
}
