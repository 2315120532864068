//! Views over keys and indexes.

use super::{NAME, Origin, Rows, SystemView, bit, int, text};
use crate::engine::catalog::Key;
use crate::value::{SqlType, Value};

const INT: SqlType = SqlType::Int;
const TINY: SqlType = SqlType::TinyInt;
const BIT: SqlType = SqlType::Bit;

pub(super) const VIEWS: &[SystemView] = &[
    SystemView {
        name: "sys.indexes",
        columns: &[
            ("object_id", INT),
            ("name", NAME),
            ("index_id", INT),
            ("type", TINY),
            ("type_desc", NAME),
            ("is_unique", BIT),
            ("is_primary_key", BIT),
            ("is_unique_constraint", BIT),
            ("is_disabled", BIT),
            ("is_hypothetical", BIT),
            ("has_filter", BIT),
        ],
        rows: indexes,
    },
    SystemView {
        name: "sys.index_columns",
        columns: &[
            ("object_id", INT),
            ("index_id", INT),
            ("index_column_id", INT),
            ("column_id", INT),
            ("key_ordinal", TINY),
            ("partition_ordinal", TINY),
            ("is_descending_key", BIT),
            ("is_included_column", BIT),
        ],
        rows: index_columns,
    },
    SystemView {
        name: "sys.key_constraints",
        columns: &[
            ("name", NAME),
            ("object_id", INT),
            ("schema_id", INT),
            ("parent_object_id", INT),
            ("type", SqlType::Char { length: 2 }),
            ("type_desc", NAME),
            ("unique_index_id", INT),
            ("is_system_named", BIT),
        ],
        rows: key_constraints,
    },
];

fn index_kind(key: &Key) -> (i32, &'static str) {
    if key.index == 1 { (1, "CLUSTERED") } else { (2, "NONCLUSTERED") }
}

fn indexes(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = Vec::new();
    for object in origin.tables() {
        if !object.keys.iter().any(|key| key.index == 1) {
            let mut heap = vec![int(object.id), Value::Null, int(0), int(0), text("HEAP")];
            heap.extend(std::iter::repeat_n(bit(false), 6));
            rows.push(heap);
        }
        for key in &object.keys {
            let (kind, long) = index_kind(key);
            rows.push(vec![
                int(object.id),
                text(&key.name),
                int(key.index),
                int(kind),
                text(long),
                bit(key.unique),
                bit(key.primary),
                bit(key.constraint != 0 && !key.primary),
                bit(false),
                bit(false),
                bit(key.filtered),
            ]);
        }
    }
    Ok(rows)
}

fn index_columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = Vec::new();
    for object in origin.tables() {
        for key in &object.keys {
            let keys = key.columns.iter().map(|(id, descending)| (*id, *descending, false));
            let all = keys.chain(key.included.iter().map(|id| (*id, false, true)));
            for (at, (column, descending, included)) in (1i32..).zip(all) {
                rows.push(vec![
                    int(object.id),
                    int(key.index),
                    int(at),
                    int(column),
                    int(if included { 0 } else { at }),
                    int(0),
                    bit(descending),
                    bit(included),
                ]);
            }
        }
    }
    Ok(rows)
}

fn key_constraints(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = Vec::new();
    for object in origin.tables() {
        for key in object.keys.iter().filter(|key| key.constraint != 0) {
            let (kind, long) = if key.primary { ("PK", "PRIMARY_KEY_CONSTRAINT") } else { ("UQ", "UNIQUE_CONSTRAINT") };
            rows.push(vec![
                text(&key.name),
                int(key.constraint),
                int(object.schema),
                int(object.id),
                text(kind),
                text(long),
                int(key.index),
                bit(key.name.contains("__")),
            ]);
        }
    }
    Ok(rows)
}
