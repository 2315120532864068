//! Change Tracking in SQLite: what is noted while a transaction runs, what its commit makes of it, what is read back.
//!
//! Triggers note every changed key in `p<id>` inside the transaction. The commit gives the transaction the next
//! version and nets the notes per key into `h<id>`: one row per key and version, I, U or D, with +1, 0 or -1 for
//! whether the row came, stayed or went. Whether a row was there at an older version then follows from whether it is
//! there now and the sum of those numbers since, whatever the version.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::catalog::{Catalog, Object, TableColumn};
use super::storage::{OFFSET_COLLATION, declared};
use crate::value::SqlType;

const INSERTED: i32 = 1;
const UPDATED: i32 = 2;
const DELETED: i32 = 3;

/// A key column as SQLite is told it.
fn definition(column: &TableColumn) -> String {
    let collate = match &column.sql_type {
        SqlType::DateTimeOffset { .. } => format!(" COLLATE {OFFSET_COLLATION}"),
        sql_type if sql_type.is_text() => format!(" COLLATE \"{}\"", column.collation.name()),
        _ => String::new(),
    };
    format!("{} {}{collate}", column.physical, declared(&column.sql_type))
}

fn list(columns: &[&TableColumn], prefix: &str) -> String {
    let all: Vec<_> = columns.iter().map(|column| format!("{prefix}{}", column.physical)).collect();
    all.join(", ")
}

/// The tables that hold the state of the database itself.
pub(crate) const STATE: &str = "
    CREATE TABLE fx_state(name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
    INSERT INTO fx_state VALUES('catalog', 0), ('version', 0), ('writes', 0);
    CREATE TABLE fx_tracked(object_id INTEGER PRIMARY KEY, min_valid INTEGER, begin_version INTEGER, cleanup INTEGER);";

/// Switches tracking of a table on: notes, history and triggers.
pub(crate) fn enable(connection: &Connection, object: &Object) -> rusqlite::Result<()> {
    let (id, table) = (object.id, object.table());
    let key = object.primary_columns();
    let definitions: Vec<_> = key.iter().map(|column| definition(column)).collect();
    let definitions = definitions.join(", ");
    let columns = list(&key, "");
    let (old, new) = (list(&key, "old."), list(&key, "new."));
    let same: Vec<_> = key.iter().map(|column| format!("old.{0} IS new.{0}", column.physical)).collect();
    let same = same.join(" AND ");
    let note = |operation: i32, step: i32, values: &str| {
        format!("INSERT INTO p{id}(op, step, ctx, {columns}) VALUES({operation}, {step}, fx_context(), {values});")
    };
    let (inserted, deleted) = (note(INSERTED, 1, &new), note(DELETED, -1, &old));
    let updated = note(UPDATED, 0, &new);
    connection.execute_batch(&format!(
        "CREATE TABLE p{id}(seq INTEGER PRIMARY KEY, op INTEGER, step INTEGER, ctx BLOB, {definitions});
         CREATE TABLE h{id}(version INTEGER, op INTEGER, step INTEGER, ctx BLOB, {definitions},
            PRIMARY KEY({columns}, version)) WITHOUT ROWID;
         CREATE INDEX hv{id} ON h{id}(version);
         CREATE TRIGGER ti{id} AFTER INSERT ON {table} WHEN fx_on() BEGIN {inserted} END;
         CREATE TRIGGER td{id} AFTER DELETE ON {table} WHEN fx_on() BEGIN {deleted} END;
         CREATE TRIGGER tu{id} AFTER UPDATE ON {table} WHEN fx_on() AND {same} BEGIN {updated} END;
         CREATE TRIGGER tk{id} AFTER UPDATE ON {table} WHEN fx_on() AND NOT ({same}) BEGIN {deleted} {inserted} END;
         INSERT INTO fx_tracked SELECT {id}, value, value, 0 FROM fx_state WHERE name = 'version';"
    ))
}

/// Switches tracking of a table off and forgets its history.
pub(crate) fn disable(connection: &Connection, id: i32) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "DROP TRIGGER IF EXISTS ti{id}; DROP TRIGGER IF EXISTS td{id}; DROP TRIGGER IF EXISTS tu{id};
         DROP TRIGGER IF EXISTS tk{id}; DROP TABLE IF EXISTS p{id}; DROP TABLE IF EXISTS h{id};
         DELETE FROM fx_tracked WHERE object_id = {id};"
    ))
}

/// The version the latest commit got.
pub(crate) fn current_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT value FROM fx_state WHERE name = 'version'")?.query_row([], |row| row.get(0))
}

/// Takes the next version for the transaction that is about to commit.
fn next_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.execute("UPDATE fx_state SET value = value + 1 WHERE name = 'version'", [])?;
    current_version(connection)
}

/// Nets the notes of a transaction under the next version. `touched` are the tables it wrote to, `truncated` those
/// it emptied with TRUNCATE, whose history ends there.
pub(crate) fn commit(
    connection: &Connection,
    catalog: &Catalog,
    touched: &BTreeSet<i32>,
    truncated: &BTreeSet<i32>,
) -> rusqlite::Result<()> {
    let mut version = None;
    let tracked = |id: &i32| catalog.objects.get(id).filter(|object| object.tracking.is_some());
    for object in touched.iter().filter_map(tracked) {
        let id = object.id;
        let noted =
            connection.prepare_cached(&format!("SELECT 1 FROM p{id} LIMIT 1"))?.query_row([], |_| Ok(())).optional()?;
        if noted.is_none() {
            continue;
        }
        let version = match version {
            Some(version) => version,
            None => *version.insert(next_version(connection)?),
        };
        let columns = list(&object.primary_columns(), "");
        // With one max() SQLite takes the other columns from that row: the last note of the key.
        connection
            .prepare_cached(&format!(
                "INSERT INTO h{id}(version, op, step, ctx, {columns})
             SELECT ?1, CASE WHEN op = {DELETED} THEN {DELETED} WHEN total = 1 THEN {INSERTED} ELSE {UPDATED} END,
                total, ctx, {columns}
             FROM (SELECT max(seq), op, sum(step) AS total, ctx, {columns} FROM p{id} GROUP BY {columns})
             WHERE NOT (op = {DELETED} AND total = 0)"
            ))?
            .execute([version])?;
        connection.execute(&format!("DELETE FROM p{id}"), [])?;
    }
    for object in truncated.iter().filter_map(tracked) {
        let id = object.id;
        let version = match version {
            Some(version) => version,
            None => *version.insert(next_version(connection)?),
        };
        connection.execute(&format!("DELETE FROM h{id}"), [])?;
        connection.execute("UPDATE fx_tracked SET min_valid = ?1 WHERE object_id = ?2", [version, i64::from(id)])?;
    }
    Ok(())
}

/// The query behind CHANGETABLE(CHANGES …). `since` is SQL of a bigint; NULL asks for everything.
pub(crate) fn changes_query(object: &Object, since: &str, unseen_deletes: bool) -> String {
    let id = object.id;
    let key = object.primary_columns();
    let columns = list(&key, "");
    let qualified = list(&key, "n.");
    let matches: Vec<_> = key.iter().map(|column| format!("c.{0} = n.{0}", column.physical)).collect();
    let hidden = if unseen_deletes { "0" } else { "op = 3 AND total = 0" };
    format!(
        "SELECT n.version AS sys_change_version,
            (SELECT max(c.version) FROM h{id} AS c WHERE {} AND c.op = {INSERTED} AND c.version > ifnull({since}, -1))
                AS sys_change_creation_version,
            CASE WHEN n.op = {DELETED} THEN 'D' WHEN n.total = 1 THEN 'I' ELSE 'U' END AS sys_change_operation,
            NULL AS sys_change_columns, n.ctx AS sys_change_context, {qualified}
         FROM (SELECT max(version) AS version, op, sum(step) AS total, ctx, {columns}
               FROM h{id} INDEXED BY hv{id} WHERE version > ifnull({since}, -1) GROUP BY {columns}) AS n
         WHERE NOT ({hidden})",
        matches.join(" AND ")
    )
}

/// Forgets what happened up to a version: older readers must begin anew.
pub(crate) fn expire(connection: &Connection, id: i32, version: i64) -> rusqlite::Result<()> {
    connection.execute(&format!("DELETE FROM h{id} WHERE version <= ?1"), [version])?;
    connection
        .execute(
            "UPDATE fx_tracked SET min_valid = max(min_valid, ?1), cleanup = ?1 WHERE object_id = ?2",
            [version, i64::from(id)],
        )
        .map(drop)
}
