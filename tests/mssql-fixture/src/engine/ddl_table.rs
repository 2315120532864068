//! CREATE TABLE, ALTER TABLE and indexes: the catalogue's side and SQLite's.

use std::sync::Arc;

use super::ast::{AlterTable, ColumnDefinition, CreateTable, KeyDefinition, Name, Sourced};
use super::bind::Binder;
use super::catalog::{Catalog, Computed, DefaultValue, Object, Scope, TableColumn, TableTracking, same};
use super::convert::now;
use super::ddl::{schema_of, taken};
use super::ddl_key::{add_key, index_columns, made_up};
use super::error::SqlError;
use super::session::{Halt, Session};
use super::storage::{OFFSET_COLLATION, declared, same_form};
use super::tracking;
use crate::collation::Collation;
use crate::value::SqlType;

/// A column as SQLite is told it.
fn physical(column: &TableColumn) -> String {
    let collate = match &column.sql_type {
        SqlType::DateTimeOffset { .. } => format!(" COLLATE {OFFSET_COLLATION}"),
        sql_type if sql_type.is_text() => format!(" COLLATE \"{}\"", column.collation.name()),
        _ => String::new(),
    };
    format!("{} {}{collate}", column.physical, declared(&column.sql_type))
}

impl Session {
    pub(super) fn create_table(&mut self, catalog: &mut Catalog, table: &CreateTable) -> Result<(), Halt> {
        let Some(name) = &table.name else { return Ok(()) };
        let schema = schema_of(catalog, name)?;
        if catalog.object(name).is_some() {
            return Err(taken(name).into());
        }
        let moment = now();
        let mut object = Object {
            id: catalog.new_id(),
            schema,
            name: name.last().to_owned(),
            created: moment,
            modified: moment,
            changed: catalog.version,
            columns: Vec::new(),
            next_column: 1,
            keys: Vec::new(),
            view: None,
            tracking: None,
            system_versioned: table.system_versioned,
            memory_optimized: table.memory_optimized,
            without_rowid: false,
        };
        for definition in &table.columns {
            self.add_column(catalog, &mut object, definition)?;
        }
        let primary = table.primary.iter().map(|key| (key.clone(), None));
        let inline =
            table.columns.iter().filter_map(|column| Some((column.primary.clone()?, Some(column.name.as_str()))));
        let mut primaries: Vec<(KeyDefinition, Option<&str>)> = primary.chain(inline).collect();
        if let Some((key, column)) = primaries.pop() {
            add_key(catalog, &mut object, &key, column, true)?;
        }
        self.make_table(&mut object)?;
        for key in &table.unique {
            self.make_index(catalog, &mut object, key, None)?;
        }
        for column in &table.columns {
            if let Some(key) = &column.unique {
                self.make_index(catalog, &mut object, key, Some(&column.name))?;
            }
        }
        if let Some((seed, step)) = object.columns.iter().find_map(|column| column.identity) {
            self.shared.set_identity(object.id, seed, step);
        }
        catalog.put(object);
        Ok(())
    }

    /// Makes SQLite's table. One integer key becomes the rowid; any other primary key clusters the table.
    fn make_table(&self, object: &mut Object) -> Result<(), Halt> {
        let mut parts: Vec<String> =
            object.columns.iter().filter(|column| column.computed.is_none()).map(physical).collect();
        let mut tail = "";
        let key: Vec<_> = object.primary_columns().into_iter().cloned().collect();
        let single_integer = matches!(key.as_slice(), [one] if one.sql_type.is_integer());
        if !key.is_empty() {
            let names: Vec<_> = key.iter().map(|column| column.physical.as_str()).collect();
            parts.push(format!("PRIMARY KEY({})", names.join(", ")));
        }
        if !key.is_empty() && !single_integer {
            object.without_rowid = true;
            tail = " WITHOUT ROWID";
        }
        if parts.is_empty() {
            parts.push("fx_nothing".to_owned());
        }
        self.sql_batch(&format!("CREATE TABLE {}({}){tail}", object.table(), parts.join(", ")))
    }

    /// Adds a column to the catalogue's table.
    fn add_column(
        &mut self,
        catalog: &mut Catalog,
        object: &mut Object,
        definition: &ColumnDefinition,
    ) -> Result<(), Halt> {
        if object.column(&definition.name).is_some() {
            let message = format!(
                "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                definition.name, object.name
            );
            return Err(SqlError::new(2705, 16, message).into());
        }
        let id = object.next_column;
        object.next_column += 1;
        let collation = collation_of(catalog, definition.collation.as_deref())?;
        let (sql_type, user_type, nullable) = match (&definition.sql_type, &definition.user_type) {
            (Some(sql_type), _) => (sql_type.clone(), None, true),
            (None, Some(name)) => user_type(catalog, name)?,
            (None, None) => (SqlType::Int, None, true),
        };
        let mut column = TableColumn::plain(id, definition.name.clone(), sql_type, collation);
        column.user_type = user_type;
        let in_key = definition.primary.is_some() || definition.identity.is_some();
        column.nullable = definition.nullable.unwrap_or(nullable && !in_key && column.sql_type != SqlType::RowVersion);
        column.identity = definition.identity;
        column.masked = definition.masked;
        column.sparse = definition.sparse;
        column.column_set = definition.column_set;
        column.hidden = definition.hidden;
        column.encrypted = definition.encrypted;
        column.generated = definition.generated;
        if let Some(default) = &definition.default {
            column.default = Some(default_value(catalog, object, definition.default_name.as_deref(), default));
        }
        if let Some(computed) = &definition.computed {
            let catalog = Arc::new(catalog.clone());
            let shown = Arc::new(object.clone());
            let mut binder: Binder<'_> = self.binder();
            binder.catalog = catalog;
            let (sql_type, nullable) = binder.computed_type(&shown, &computed.text)?;
            column.sql_type = sql_type;
            column.nullable = nullable && definition.nullable.unwrap_or(true);
            column.physical = String::new();
            column.computed = Some(Computed { text: computed.text.clone(), persisted: definition.persisted });
        }
        object.columns.push(column);
        Ok(())
    }

    /// Puts a table of a new shape into the catalogue.
    pub(super) fn changed(&mut self, catalog: &mut Catalog, mut object: Object) {
        object.changed = catalog.version;
        object.modified = now();
        self.altered(object.id, catalog.version);
        catalog.put(object);
    }

    pub(super) fn alter_table(&mut self, catalog: &mut Catalog, name: &Name, change: &AlterTable) -> Result<(), Halt> {
        let mut object = table_of(catalog, name)?;
        match change {
            AlterTable::Add { columns, keys, with_values } => {
                for column in columns {
                    self.add_table_column(catalog, &mut object, column, *with_values)?;
                }
                for (primary, key) in keys {
                    self.make_key(catalog, &mut object, key, None, true, *primary)?;
                }
            }
            AlterTable::AddDefault { name, column, value, .. } => {
                let default = default_value(catalog, &object, name.as_deref(), value);
                column_of(&mut object, column)?.default = Some(default);
            }
            AlterTable::DropColumns { names, if_exists } => {
                for name in names {
                    drop_column(&mut object, name, *if_exists)?;
                }
            }
            AlterTable::DropConstraints(names) => {
                for name in names {
                    self.drop_constraint(&mut object, name)?;
                }
            }
            AlterTable::AlterColumn(definition) => self.alter_column(catalog, &mut object, definition)?,
            AlterTable::Mask { column, on } => column_of(&mut object, column)?.masked = *on,
            AlterTable::EnableTracking { columns_updated } => {
                self.enable_tracking(catalog, &mut object, *columns_updated)?;
            }
            AlterTable::DisableTracking => {
                if object.tracking.take().is_none() {
                    let message = format!("Change tracking is not enabled on table '{}'.", object.name);
                    return Err(SqlError::new(22106, 16, message).into());
                }
                tracking::disable(&self.connection, object.id).map_err(|error| self.halt(error))?;
                self.pending.truncated.remove(&object.id);
            }
            AlterTable::Versioning(on) => object.system_versioned = *on,
            AlterTable::Nothing => {}
        }
        self.changed(catalog, object);
        Ok(())
    }

    fn enable_tracking(&mut self, catalog: &Catalog, object: &mut Object, columns_updated: bool) -> Result<(), Halt> {
        if catalog.database.tracking.is_none() {
            let message = "Change tracking must be enabled on the database before it can be enabled on a table.";
            return Err(SqlError::new(22107, 16, message).into());
        }
        if object.tracking.is_some() {
            let message = format!("Change tracking is already enabled for table '{}'.", object.name);
            return Err(SqlError::new(4996, 16, message).into());
        }
        if object.primary().is_none() {
            let message = format!(
                "Cannot enable change tracking on table '{}'. Change tracking requires a primary key on the table. Create a primary key on the table before enabling change tracking.",
                object.name
            );
            return Err(SqlError::new(4997, 16, message).into());
        }
        tracking::enable(&self.connection, object).map_err(|error| self.halt(error))?;
        object.tracking = Some(TableTracking { columns_updated });
        Ok(())
    }

    /// Adds a column to a table with rows: a default is given to them where SQL Server gives it.
    fn add_table_column(
        &mut self,
        catalog: &mut Catalog,
        object: &mut Object,
        definition: &ColumnDefinition,
        with_values: bool,
    ) -> Result<(), Halt> {
        self.add_column(catalog, object, definition)?;
        let Some(column) = object.columns.last().cloned() else { return Ok(()) };
        if column.computed.is_some() {
            return Ok(());
        }
        self.sql_batch(&format!("ALTER TABLE {} ADD COLUMN {}", object.table(), physical(&column)))?;
        let own = column.identity.is_some() || column.sql_type == SqlType::RowVersion || column.generated != 0;
        if let Some((seed, step)) = column.identity {
            self.shared.set_identity(object.id, seed, step);
        }
        let fills = own || (column.default.is_some() && (!column.nullable || with_values || definition.with_values));
        if !fills {
            let rows: i64 = self
                .connection
                .query_row(&format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT 1)", object.table()), [], |row| {
                    row.get(0)
                })
                .map_err(|error| self.halt(error))?;
            if !column.nullable && rows > 0 {
                let message = format!(
                    "ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified. Column '{}' cannot be added to non-empty table '{}' because it does not satisfy these conditions.",
                    column.name, object.name
                );
                return Err(SqlError::new(4901, 16, message).into());
            }
            return Ok(());
        }
        let others: Vec<i32> =
            object.columns.iter().filter(|other| other.id != column.id).map(|other| other.id).collect();
        let shown = Arc::new(object.clone());
        let values = self.binder().other_values(&shown, &others)?;
        for (name, value) in values {
            self.untracked(&format!("UPDATE {} SET {name} = {value}", object.table()))?;
        }
        Ok(())
    }

    /// Changes rows without Change Tracking noting it, as DDL does.
    fn untracked(&mut self, sql: &str) -> Result<(), Halt> {
        self.context.lock().tracking = false;
        let ran = self.sql(sql, &[]);
        self.context.lock().tracking = true;
        ran
    }

    /// Changes a column's type: where the stored form stays, only the catalogue changes; else a new column of SQLite
    /// takes the converted values.
    fn alter_column(
        &mut self,
        catalog: &mut Catalog,
        object: &mut Object,
        definition: &ColumnDefinition,
    ) -> Result<(), Halt> {
        let old = column_of(object, &definition.name)?.clone();
        let (sql_type, user, _) = match (&definition.sql_type, &definition.user_type) {
            (Some(sql_type), _) => (sql_type.clone(), None, true),
            (None, Some(name)) => user_type(catalog, name)?,
            (None, None) => (old.sql_type.clone(), None, true),
        };
        let collation = match &definition.collation {
            Some(_) => collation_of(catalog, definition.collation.as_deref())?,
            None => old.collation.clone(),
        };
        let mut column = TableColumn { sql_type, collation, user_type: user, ..old.clone() };
        column.nullable = definition.nullable.unwrap_or(true);
        let in_key = object.primary().is_some_and(|key| key.columns.iter().any(|(id, _)| *id == old.id));
        let keeps_form = same_form(&old.sql_type, &column.sql_type) && old.collation == column.collation;
        if in_key && (!keeps_form || column.nullable) {
            let message = format!(
                "The object '{}' is dependent on column '{}'.",
                object.primary().map_or("", |key| key.name.as_str()),
                old.name
            );
            return Err(SqlError::new(5074, 16, message).into());
        }
        let value = self.binder().converted_column(object, &old, &column)?;
        if in_key {
            if value != old.physical {
                self.untracked(&format!("UPDATE {} SET {} = {value}", object.table(), old.physical))?;
            }
        } else if value != old.physical || !keeps_form {
            // The catalogue's number makes the name one that SQLite's table has not had.
            column.physical = format!("c{}_{}", old.id, catalog.version);
            self.sql_batch(&format!("ALTER TABLE {} ADD COLUMN {}", object.table(), physical(&column)))?;
            self.untracked(&format!("UPDATE {} SET {} = {value}", object.table(), column.physical))?;
        }
        if let Some(slot) = object.columns.iter_mut().find(|slot| slot.id == old.id) {
            *slot = column;
        }
        Ok(())
    }

    /// Makes SQLite's table of a new object like an old one, with its rows and indexes.
    pub(super) fn copy_table(&mut self, old: &Object, new: &mut Object) -> Result<(), Halt> {
        self.make_table(new)?;
        let names: Vec<_> = new
            .columns
            .iter()
            .filter(|column| column.computed.is_none())
            .map(|column| column.physical.as_str())
            .collect();
        let names = names.join(", ");
        self.untracked(&format!("INSERT INTO {}({names}) SELECT {names} FROM {}", new.table(), old.table()))?;
        let identity = new.columns.iter().find_map(|column| Some((column.physical.clone(), column.identity?)));
        if let Some((_, (_, step))) = identity {
            self.shared.set_identity(new.id, self.shared.next_identity(old.id), step);
        }
        let keys = new.keys.clone();
        for key in keys.iter().filter(|key| key.physical.is_some()) {
            let index = format!("i{}_{}", new.id, key.index);
            let columns = index_columns(new, key);
            let unique = if key.unique && !key.filtered { "UNIQUE " } else { "" };
            if let Some(columns) = columns {
                self.sql_batch(&format!("CREATE {unique}INDEX {index} ON {}({columns})", new.table()))?;
            }
            if let Some(own) = new.keys.iter_mut().find(|own| own.index == key.index) {
                own.physical = Some(index);
            }
        }
        Ok(())
    }

    /// `sp_rename`: a column, a table or an index gets another name.
    pub(super) fn rename(&mut self, catalog: &mut Catalog, name: &Name, new: &str, kind: &str) -> Result<(), Halt> {
        match kind.to_ascii_uppercase().as_str() {
            "COLUMN" => {
                let mut parts = name.0.clone();
                let column = parts.pop().unwrap_or_default();
                let mut object = table_of(catalog, &Name(parts))?;
                if object.column(new).is_some() {
                    return Err(SqlError::new(
                        15335,
                        11,
                        format!("Error: The new name '{new}' is already in use as a COLUMN name."),
                    )
                    .into());
                }
                new.clone_into(&mut column_of(&mut object, &column)?.name);
                self.changed(catalog, object);
            }
            "INDEX" => {
                let mut parts = name.0.clone();
                let index = parts.pop().unwrap_or_default();
                let mut object = table_of(catalog, &Name(parts))?;
                if let Some(key) = object.keys.iter_mut().find(|key| same(&key.name, &index)) {
                    new.clone_into(&mut key.name);
                }
                self.changed(catalog, object);
            }
            _ => {
                let mut object = table_of(catalog, name)?;
                catalog.names.remove(&(object.schema, object.name.to_lowercase()));
                new.clone_into(&mut object.name);
                self.changed(catalog, object);
            }
        }
        Ok(())
    }
}

/// A table of the catalogue, to be changed; error 4902 when there is none.
pub(super) fn table_of(catalog: &Catalog, name: &Name) -> Result<Object, SqlError> {
    let found = catalog.object(name).filter(|object| object.view.is_none());
    found.map(|object| (**object).clone()).ok_or_else(|| {
        let message = format!(
            "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
            name.text()
        );
        SqlError::new(4902, 16, message)
    })
}

fn column_of<'o>(object: &'o mut Object, name: &str) -> Result<&'o mut TableColumn, SqlError> {
    let table = object.name.clone();
    object.columns.iter_mut().find(|column| same(&column.name, name)).ok_or_else(|| {
        let message = format!("ALTER TABLE failed because column '{name}' does not exist in table '{table}'.");
        SqlError::new(4924, 16, message)
    })
}

fn collation_of(catalog: &Catalog, name: Option<&str>) -> Result<Collation, SqlError> {
    match name {
        Some(name) => {
            Collation::parse(name).ok_or_else(|| SqlError::new(448, 16, format!("Invalid collation '{name}'.")))
        }
        None => Ok(catalog.database.collation.clone()),
    }
}

fn user_type(catalog: &Catalog, name: &Name) -> Result<(SqlType, Option<i32>, bool), SqlError> {
    let schema = catalog.schema(name.schema().unwrap_or("dbo")).map(|schema| schema.id);
    let found = catalog.types.iter().find(|one| Some(one.schema) == schema && same(&one.name, name.last()));
    found.map(|one| (one.sql_type.clone(), Some(one.id), one.nullable)).ok_or_else(|| {
        SqlError::new(2715, 16, format!("Column, parameter, or variable: Cannot find data type {}.", name.text()))
    })
}

fn default_value(catalog: &mut Catalog, object: &Object, name: Option<&str>, value: &Sourced) -> DefaultValue {
    let id = catalog.new_id();
    let name = name.map_or_else(|| made_up("DF", &object.name, id), str::to_owned);
    DefaultValue { id, name, text: value.text.clone() }
}

fn drop_column(object: &mut Object, name: &str, if_exists: bool) -> Result<(), SqlError> {
    let Some(id) = object.column(name).map(|column| column.id) else {
        if if_exists {
            return Ok(());
        }
        return Err(column_of(object, name).err().unwrap_or_else(|| SqlError::unknown_column(name)));
    };
    let in_key = object.keys.iter().find(|key| key.columns.iter().any(|(column, _)| *column == id));
    let has_default = object.column_by_id(id).and_then(|column| column.default.as_ref());
    let holder = in_key.map(|key| key.name.clone()).or(has_default.map(|default| default.name.clone()));
    if let Some(holder) = holder {
        return Err(SqlError::new(5074, 16, format!("The object '{holder}' is dependent on column '{name}'.")));
    }
    // SQLite keeps the column: nothing of the catalogue points to it any more.
    object.columns.retain(|column| column.id != id);
    Ok(())
}

/// What a right is on, when an object is dropped and made anew with the same rights.
pub(super) fn moved_rights(catalog: &mut Catalog, from: i32, to: i32) {
    for right in &mut catalog.rights {
        if right.scope == Scope::Object(from) {
            right.scope = Scope::Object(to);
        }
    }
}
