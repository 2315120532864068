//! Views over tables, columns, keys and indexes.

use super::{NAME, Origin, Rows, Shape, SystemView, bit, int, shape, text};
use crate::engine::catalog::{Object, TableColumn};
use crate::engine::convert::Moment;
use crate::value::{SqlType, Value};

const INT: SqlType = SqlType::Int;
const BIT: SqlType = SqlType::Bit;
const TINY: SqlType = SqlType::TinyInt;
const LONG: SqlType = SqlType::NVarChar { length: None };
const KIND: SqlType = SqlType::Char { length: 2 };

pub(super) const VIEWS: &[SystemView] = &[
    SystemView {
        name: "sys.schemas",
        columns: &[("name", NAME), ("schema_id", INT), ("principal_id", INT)],
        rows: schemas,
    },
    SystemView { name: "sys.tables", columns: TABLE_COLUMNS, rows: tables },
    SystemView { name: "sys.views", columns: OBJECT_COLUMNS, rows: views },
    SystemView { name: "sys.objects", columns: OBJECT_COLUMNS, rows: objects },
    SystemView { name: "sys.all_objects", columns: OBJECT_COLUMNS, rows: objects },
    SystemView { name: "sys.columns", columns: COLUMN_COLUMNS, rows: columns },
    SystemView { name: "sys.all_columns", columns: COLUMN_COLUMNS, rows: columns },
    SystemView {
        name: "sys.types",
        columns: &[
            ("name", NAME),
            ("system_type_id", TINY),
            ("user_type_id", INT),
            ("schema_id", INT),
            ("max_length", SqlType::SmallInt),
            ("precision", TINY),
            ("scale", TINY),
            ("collation_name", NAME),
            ("is_nullable", BIT),
            ("is_user_defined", BIT),
            ("is_assembly_type", BIT),
            ("is_table_type", BIT),
        ],
        rows: types,
    },
    SystemView {
        name: "sys.default_constraints",
        columns: &[
            ("name", NAME),
            ("object_id", INT),
            ("schema_id", INT),
            ("parent_object_id", INT),
            ("parent_column_id", INT),
            ("definition", LONG),
            ("is_system_named", BIT),
        ],
        rows: default_constraints,
    },
    SystemView {
        name: "sys.computed_columns",
        columns: &[
            ("object_id", INT),
            ("name", NAME),
            ("column_id", INT),
            ("definition", LONG),
            ("is_persisted", BIT),
            ("is_computed", BIT),
        ],
        rows: computed_columns,
    },
    SystemView {
        name: "sys.identity_columns",
        columns: &[
            ("object_id", INT),
            ("name", NAME),
            ("column_id", INT),
            ("seed_value", SqlType::Variant),
            ("increment_value", SqlType::Variant),
        ],
        rows: identity_columns,
    },
    SystemView {
        name: "sys.masked_columns",
        columns: &[
            ("object_id", INT),
            ("name", NAME),
            ("column_id", INT),
            ("is_masked", BIT),
            ("masking_function", LONG),
        ],
        rows: masked_columns,
    },
    SystemView {
        name: "sys.foreign_keys",
        columns: &[("name", NAME), ("object_id", INT), ("parent_object_id", INT), ("referenced_object_id", INT)],
        rows: nothing,
    },
    SystemView {
        name: "sys.triggers",
        columns: &[("name", NAME), ("object_id", INT), ("parent_id", INT)],
        rows: nothing,
    },
    SystemView {
        name: "sys.extended_properties",
        columns: &[("class", TINY), ("major_id", INT), ("minor_id", INT), ("name", NAME), ("value", SqlType::Variant)],
        rows: nothing,
    },
];

const OBJECT_COLUMNS: &[(&str, SqlType)] = &[
    ("name", NAME),
    ("object_id", INT),
    ("principal_id", INT),
    ("schema_id", INT),
    ("parent_object_id", INT),
    ("type", KIND),
    ("type_desc", NAME),
    ("create_date", SqlType::DateTime),
    ("modify_date", SqlType::DateTime),
    ("is_ms_shipped", BIT),
];

const TABLE_COLUMNS: &[(&str, SqlType)] = &[
    ("name", NAME),
    ("object_id", INT),
    ("principal_id", INT),
    ("schema_id", INT),
    ("parent_object_id", INT),
    ("type", KIND),
    ("type_desc", NAME),
    ("create_date", SqlType::DateTime),
    ("modify_date", SqlType::DateTime),
    ("is_ms_shipped", BIT),
    ("temporal_type", TINY),
    ("temporal_type_desc", NAME),
    ("is_memory_optimized", BIT),
    ("is_external", BIT),
    ("is_filetable", BIT),
    ("is_node", BIT),
    ("is_edge", BIT),
    ("history_table_id", INT),
    ("ledger_type", TINY),
    ("durability", TINY),
];

const COLUMN_COLUMNS: &[(&str, SqlType)] = &[
    ("object_id", INT),
    ("name", NAME),
    ("column_id", INT),
    ("system_type_id", TINY),
    ("user_type_id", INT),
    ("max_length", SqlType::SmallInt),
    ("precision", TINY),
    ("scale", TINY),
    ("collation_name", NAME),
    ("is_nullable", BIT),
    ("is_ansi_padded", BIT),
    ("is_rowguidcol", BIT),
    ("is_identity", BIT),
    ("is_computed", BIT),
    ("is_filestream", BIT),
    ("is_sparse", BIT),
    ("is_column_set", BIT),
    ("is_masked", BIT),
    ("is_hidden", BIT),
    ("generated_always_type", TINY),
    ("encryption_type", INT),
    ("default_object_id", INT),
    ("graph_type", INT),
];

fn nothing(_: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(Vec::new())
}

pub(super) fn datetime(moment: &Moment) -> Value {
    moment.value(&SqlType::DateTime).unwrap_or(Value::Null)
}

fn schemas(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(origin.catalog.schemas.iter().map(|schema| vec![text(&schema.name), int(schema.id), int(1)]).collect())
}

fn object_row(object: &Object) -> Vec<Value> {
    let (kind, long) = if object.view.is_some() { ("V ", "VIEW") } else { ("U ", "USER_TABLE") };
    vec![
        text(&object.name),
        int(object.id),
        Value::Null,
        int(object.schema),
        int(0),
        text(kind),
        text(long),
        datetime(&object.created),
        datetime(&object.modified),
        bit(false),
    ]
}

fn tables(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(origin
        .tables()
        .into_iter()
        .map(|object| {
            let mut row = object_row(object);
            let temporal =
                if object.system_versioned { "SYSTEM_VERSIONED_TEMPORAL_TABLE" } else { "NON_TEMPORAL_TABLE" };
            row.extend([
                int(if object.system_versioned { 2 } else { 0 }),
                text(temporal),
                bit(object.memory_optimized),
                bit(false),
                bit(false),
                bit(false),
                bit(false),
                Value::Null,
                int(0),
                int(0),
            ]);
            row
        })
        .collect())
}

fn views(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(origin.objects().into_iter().filter(|object| object.view.is_some()).map(object_row).collect())
}

fn objects(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(origin.objects().into_iter().map(object_row).collect())
}

pub(super) fn collation_of(column: &TableColumn, shape: &Shape) -> Value {
    if shape.has_collation() { text(column.collation.name()) } else { Value::Null }
}

fn columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let mut rows = Vec::new();
    for object in origin.objects() {
        for column in &object.columns {
            let shape = Shape::of(&column.sql_type);
            let user = column.user_type.unwrap_or(shape.user);
            rows.push(vec![
                int(object.id),
                text(&column.name),
                int(column.id),
                int(shape.system),
                int(user),
                int(shape.length),
                int(shape.precision),
                int(shape.scale),
                collation_of(column, &shape),
                bit(column.nullable),
                bit(true),
                bit(false),
                bit(column.identity.is_some()),
                bit(column.computed.is_some()),
                bit(false),
                bit(column.sparse),
                bit(column.column_set),
                bit(column.masked),
                bit(column.hidden),
                int(column.generated),
                if column.encrypted { int(2) } else { Value::Null },
                int(column.default.as_ref().map_or(0, |default| default.id)),
                Value::Null,
            ]);
        }
    }
    Ok(rows)
}

fn types(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    let database = origin.catalog.database.collation.name();
    let row = |name: &str, sql_type: &SqlType, user: Option<(i32, i32, bool)>| {
        let shape = Shape::of(sql_type);
        let (id, schema, nullable) = user.unwrap_or((shape.user, 4, true));
        vec![
            text(name),
            int(shape.system),
            int(id),
            int(schema),
            int(shape.length),
            int(shape.precision),
            int(shape.scale),
            if shape.has_collation() { text(database) } else { Value::Null },
            bit(nullable),
            bit(user.is_some()),
            bit(shape.system == 240),
            bit(false),
        ]
    };
    let mut rows: Rows = shape::ALL.iter().map(|sql_type| row(Shape::of(sql_type).name, sql_type, None)).collect();
    let sysname = SqlType::NVarChar { length: Some(128) };
    let mut sysname = row("sysname", &sysname, None);
    if let Some(id) = sysname.get_mut(2) {
        *id = int(256);
    }
    rows.push(sysname);
    let mut numeric = row("numeric", &SqlType::Decimal { precision: 38, scale: 38 }, None);
    for at in [1, 2] {
        if let Some(id) = numeric.get_mut(at) {
            *id = int(108);
        }
    }
    rows.push(numeric);
    for one in &origin.catalog.types {
        rows.push(row(&one.name, &one.sql_type, Some((one.id, one.schema, one.nullable))));
    }
    Ok(rows)
}

/// Calls for every column of every table the login sees.
fn for_columns(origin: &Origin<'_>, row: impl Fn(&Object, &TableColumn) -> Option<Vec<Value>>) -> Rows {
    let tables = origin.tables();
    tables.iter().flat_map(|object| object.columns.iter().filter_map(|column| row(object, column))).collect()
}

fn default_constraints(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(for_columns(origin, |object, column| {
        let default = column.default.as_ref()?;
        Some(vec![
            text(&default.name),
            int(default.id),
            int(object.schema),
            int(object.id),
            int(column.id),
            text(&format!("({})", default.text)),
            bit(default.name.starts_with("DF__")),
        ])
    }))
}

fn computed_columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(for_columns(origin, |object, column| {
        let computed = column.computed.as_ref()?;
        let definition = text(&format!("({})", computed.text));
        Some(vec![int(object.id), text(&column.name), int(column.id), definition, bit(computed.persisted), bit(true)])
    }))
}

fn identity_columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(for_columns(origin, |object, column| {
        let (seed, step) = column.identity?;
        let (seed, step) = (text(&seed.to_string()), text(&step.to_string()));
        Some(vec![int(object.id), text(&column.name), int(column.id), seed, step])
    }))
}

fn masked_columns(origin: &Origin<'_>) -> rusqlite::Result<Rows> {
    Ok(for_columns(origin, |object, column| {
        let row = || vec![int(object.id), text(&column.name), int(column.id), bit(true), text("default()")];
        column.masked.then(row)
    }))
}
