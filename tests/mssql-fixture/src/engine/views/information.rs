//! INFORMATION_SCHEMA.

use super::tables::collation_of;
use super::{NAME, Origin, Rows, Shape, SystemView, int, text};
use crate::value::{SqlType, Value};

const INT: SqlType = SqlType::Int;
const TINY: SqlType = SqlType::TinyInt;

pub(super) const VIEWS: &[SystemView] = &[
    SystemView {
        name: "INFORMATION_SCHEMA.TABLES",
        columns: &[
            ("TABLE_CATALOG", NAME),
            ("TABLE_SCHEMA", NAME),
            ("TABLE_NAME", NAME),
            ("TABLE_TYPE", SqlType::VarChar { length: Some(10) }),
        ],
        rows: information_tables,
    },
    SystemView {
        name: "INFORMATION_SCHEMA.COLUMNS",
        columns: &[
            ("TABLE_CATALOG", NAME),
            ("TABLE_SCHEMA", NAME),
            ("TABLE_NAME", NAME),
            ("COLUMN_NAME", NAME),
            ("ORDINAL_POSITION", INT),
            ("IS_NULLABLE", SqlType::VarChar { length: Some(3) }),
            ("DATA_TYPE", NAME),
            ("CHARACTER_MAXIMUM_LENGTH", INT),
            ("NUMERIC_PRECISION", TINY),
            ("NUMERIC_SCALE", INT),
            ("COLLATION_NAME", NAME),
        ],
        rows: information_columns,
    },
];

fn information_tables(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let database = &origin.catalog.database.name;
    Ok(origin
        .objects()
        .into_iter()
        .map(|object| {
            let kind = if object.view.is_some() { "VIEW" } else { "BASE TABLE" };
            vec![text(database), text(origin.catalog.schema_name(object.schema)), text(&object.name), text(kind)]
        })
        .collect())
}

fn information_columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let database = &origin.catalog.database.name;
    let mut rows = Vec::new();
    for object in origin.objects() {
        for (at, column) in (1i32..).zip(&object.columns) {
            let shape = Shape::of(&column.sql_type);
            let unit = if matches!(shape.system, 231 | 239) && shape.length > 0 { 2 } else { 1 };
            let is_long = column.sql_type.is_text() || column.sql_type.is_binary();
            rows.push(vec![
                text(database),
                text(origin.catalog.schema_name(object.schema)),
                text(&object.name),
                text(&column.name),
                int(at),
                text(if column.nullable { "YES" } else { "NO" }),
                text(shape.name),
                if is_long { int(shape.length / unit) } else { Value::Null },
                if shape.precision > 0 { int(shape.precision) } else { Value::Null },
                if shape.precision > 0 { int(shape.scale) } else { Value::Null },
                collation_of(column, &shape),
            ]);
        }
    }
    Ok(rows)
}
