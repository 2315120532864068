//! Keys and indexes: primary keys, unique constraints, plain indexes.

use super::ast::{KeyDefinition, Name};
use super::catalog::{Catalog, Key, Object, same};
use super::ddl_table::table_of;
use super::error::SqlError;
use super::session::{Halt, Session};

/// What SQL Server adds to a constraint's name when it makes one up.
pub(super) fn made_up(prefix: &str, table: &str, id: i32) -> String {
    let short: String = table.chars().take(9).collect();
    format!("{prefix}__{short}__{id:08X}")
}

impl Session {
    /// Adds a key or an index, with the index of SQLite that goes with it.
    pub(super) fn make_index(
        &mut self,
        catalog: &mut Catalog,
        object: &mut Object,
        definition: &KeyDefinition,
        column: Option<&str>,
    ) -> Result<(), Halt> {
        self.make_key(catalog, object, definition, column, definition.unique, false)
    }

    pub(super) fn make_key(
        &mut self,
        catalog: &mut Catalog,
        object: &mut Object,
        definition: &KeyDefinition,
        column: Option<&str>,
        constraint: bool,
        primary: bool,
    ) -> Result<(), Halt> {
        let at = add_key(catalog, object, definition, column, primary)?;
        let index = format!("i{}_{at}", object.id);
        let table = object.table();
        let Some(key) = object.keys.iter().find(|key| key.index == at).cloned() else { return Ok(()) };
        if let Some(columns) = index_columns(object, &key) {
            // What a filter leaves out is not known here, so a filtered index keeps nothing unique.
            let unique = if key.unique && !key.filtered { "UNIQUE " } else { "" };
            self.sql_batch(&format!("CREATE {unique}INDEX {index} ON {table}({columns})"))?;
        }
        let id = if constraint || primary { catalog.new_id() } else { 0 };
        if let Some(key) = object.keys.iter_mut().find(|key| key.index == at) {
            key.physical = Some(index);
            if key.constraint == 0 {
                key.constraint = id;
            }
        }
        Ok(())
    }

    pub(super) fn create_index(
        &mut self,
        catalog: &mut Catalog,
        table: &Name,
        key: &KeyDefinition,
    ) -> Result<(), Halt> {
        let mut object = table_of(catalog, table)?;
        self.make_key(catalog, &mut object, key, None, false, false)?;
        self.changed(catalog, object);
        Ok(())
    }

    pub(super) fn drop_index(
        &mut self,
        catalog: &mut Catalog,
        name: &str,
        table: &Name,
        if_exists: bool,
    ) -> Result<(), Halt> {
        let mut object = table_of(catalog, table)?;
        let Some(at) = object.keys.iter().position(|key| same(&key.name, name)) else {
            if if_exists {
                return Ok(());
            }
            let message = format!(
                "Cannot drop the index '{}.{name}', because it does not exist or you do not have permission.",
                table.text()
            );
            return Err(SqlError::new(3701, 11, message).into());
        };
        let key = object.keys.remove(at);
        if let Some(index) = &key.physical {
            self.sql_batch(&format!("DROP INDEX IF EXISTS {index}"))?;
        }
        self.changed(catalog, object);
        Ok(())
    }

    pub(super) fn drop_constraint(&mut self, object: &mut Object, name: &str) -> Result<(), Halt> {
        if let Some(at) = object.keys.iter().position(|key| same(&key.name, name)) {
            if object.keys.get(at).is_some_and(|key| key.primary) && object.tracking.is_some() {
                let message = format!(
                    "The primary key constraint '{name}' on table '{}' cannot be dropped because change tracking is enabled on the table. Change tracking requires a primary key constraint on the table. Disable change tracking before dropping the constraint.",
                    object.name
                );
                return Err(SqlError::new(4999, 16, message).into());
            }
            let key = object.keys.remove(at);
            // SQLite's table keeps a key it is clustered by; a second row of the same key is still refused.
            if let Some(index) = &key.physical {
                self.sql_batch(&format!("DROP INDEX IF EXISTS {index}"))?;
            }
            return Ok(());
        }
        let holder = object
            .columns
            .iter_mut()
            .find(|column| column.default.as_ref().is_some_and(|default| same(&default.name, name)));
        match holder {
            Some(column) => {
                column.default = None;
                Ok(())
            }
            None => Err(SqlError::new(3728, 16, format!("'{name}' is not a constraint.")).into()),
        }
    }
}

/// The columns of an index for SQLite; `None` when one of them is computed.
pub(super) fn index_columns(object: &Object, key: &Key) -> Option<String> {
    let mut columns = Vec::new();
    for (id, descending) in &key.columns {
        let column = object.column_by_id(*id).filter(|column| column.computed.is_none())?;
        columns.push(format!("{}{}", column.physical, if *descending { " DESC" } else { "" }));
    }
    Some(columns.join(", "))
}

/// Adds a key to the catalogue's table; gives its index id.
pub(super) fn add_key(
    catalog: &mut Catalog,
    object: &mut Object,
    definition: &KeyDefinition,
    column: Option<&str>,
    primary: bool,
) -> Result<i32, SqlError> {
    if primary && object.primary().is_some() {
        let message = format!("Table '{}' already has a primary key defined on it.", object.name);
        return Err(SqlError::new(1779, 16, message));
    }
    let listed = definition.columns.iter().map(|(name, descending)| (name.as_str(), *descending));
    let alone = column.map(|name| (name, false)).filter(|_| definition.columns.is_empty());
    let mut columns = Vec::new();
    for (name, descending) in listed.chain(alone) {
        let column = object.columns.iter_mut().find(|column| same(&column.name, name));
        let column = column.ok_or_else(|| {
            SqlError::new(1911, 16, format!("Column name '{name}' does not exist in the target table or view."))
        })?;
        if primary {
            column.nullable = false;
        }
        columns.push((column.id, descending));
    }
    let mut included = Vec::new();
    for name in &definition.included {
        included.push(object.column(name).ok_or_else(|| SqlError::unknown_column(name))?.id);
    }
    let has_clustered = object.keys.iter().any(|key| key.index == 1);
    let clustered = definition.clustered.unwrap_or(primary && !has_clustered) && !has_clustered;
    let highest = object.keys.iter().map(|key| key.index).max().unwrap_or(0);
    let index = if clustered { 1 } else { highest.max(1) + 1 };
    let constraint = if primary { catalog.new_id() } else { 0 };
    let prefix = if primary { "PK" } else { "UQ" };
    let name = definition.name.clone().unwrap_or_else(|| made_up(prefix, &object.name, catalog.next_id));
    let taken_name = object.keys.iter().any(|key| same(&key.name, &name));
    if taken_name {
        let message = format!(
            "The operation failed because an index or statistics with name '{name}' already exists on table '{}'.",
            object.name
        );
        return Err(SqlError::new(1913, 16, message));
    }
    object.keys.push(Key {
        index,
        constraint,
        name,
        primary,
        unique: definition.unique || primary,
        filtered: definition.filtered,
        columns,
        included,
        physical: None,
    });
    object.keys.sort_by_key(|key| key.index);
    Ok(index)
}
