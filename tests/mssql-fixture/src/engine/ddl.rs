//! Runs DDL: each statement makes a new catalogue, changes SQLite's tables where needed, and commits as DML does.

use std::sync::Arc;

use super::ast::{AlterDatabase, Kind, Name, Securable};
use super::catalog::{
    Catalog, DatabaseTracking, Object, Policy, SYS_SCHEMA, Schema, Scope, TableColumn, UserType, View,
};
use super::convert::now;
use super::error::SqlError;
use super::session::{Halt, Session};
use super::tracking;
use crate::value::SqlType;

/// The retention SQL Server takes when none is given: two days.
const DEFAULT_RETENTION: DatabaseTracking = DatabaseTracking { retention: 2, unit: 3, auto_cleanup: true };

impl Session {
    /// Runs one DDL statement.
    pub(super) fn define(&mut self, kind: &Kind) -> Result<(), Halt> {
        self.load_catalog()?;
        let owner = self.context.lock().catalog.is_owner(&self.login);
        if !owner {
            return Err(
                SqlError::new(262, 14, "Permission denied: the statement needs the owner of the database.").into()
            );
        }
        self.open_write()?;
        self.guarded(|session| session.define_inside(kind))
    }

    fn define_inside(&mut self, kind: &Kind) -> Result<(), Halt> {
        let current = Arc::clone(&self.context.lock().catalog);
        let mut catalog = Catalog { version: self.shared.next_catalog(), ..(*current).clone() };
        match kind {
            Kind::CreateTable(table) => self.create_table(&mut catalog, table)?,
            Kind::CreateIndex { table, key } => self.create_index(&mut catalog, table, key)?,
            Kind::AlterTable { name, change } => self.alter_table(&mut catalog, name, change)?,
            Kind::DropTable { names, if_exists } => {
                for name in names {
                    self.drop_object(&mut catalog, name, *if_exists, false)?;
                }
            }
            Kind::DropView { names, if_exists } => {
                for name in names {
                    self.drop_object(&mut catalog, name, *if_exists, true)?;
                }
            }
            Kind::DropIndex { name, table, if_exists } => self.drop_index(&mut catalog, name, table, *if_exists)?,
            Kind::Truncate(name) => return self.truncate(name),
            Kind::CreateView { name, columns, text, replace } => {
                self.create_view(&mut catalog, name, columns, text, *replace)?;
            }
            Kind::AlterDatabase(change) => self.alter_database(&mut catalog, change)?,
            other => define_name(&mut catalog, other)?,
        }
        self.put_in_force(catalog)
    }

    /// Makes a catalogue the one in force, with this transaction.
    pub(super) fn put_in_force(&mut self, catalog: Catalog) -> Result<(), Halt> {
        let version = catalog.version;
        self.sql("UPDATE fx_state SET value = ?1 WHERE name = 'catalog'", &[version])?;
        let catalog = self.shared.keep(catalog);
        self.context.lock().catalog = catalog;
        Ok(())
    }

    pub(super) fn sql(&self, sql: &str, numbers: &[i64]) -> Result<(), Halt> {
        let ran = self.connection.execute(sql, rusqlite::params_from_iter(numbers));
        ran.map(drop).map_err(|error| self.halt(error))
    }

    pub(super) fn sql_batch(&self, sql: &str) -> Result<(), Halt> {
        self.connection.execute_batch(sql).map_err(|error| self.halt(error))
    }

    /// Notes that an object's shape changed with this transaction.
    pub(super) fn altered(&mut self, id: i32, version: i64) {
        self.pending.altered.insert(id, version);
    }

    fn create_view(
        &mut self,
        catalog: &mut Catalog,
        name: &Name,
        columns: &[String],
        text: &str,
        replace: bool,
    ) -> Result<(), Halt> {
        let schema = schema_of(catalog, name)?;
        let old = catalog.object(name).cloned();
        match &old {
            Some(old) if old.view.is_none() || !replace => return Err(taken(name).into()),
            _ => {}
        }
        let out = self.binder().view_columns(text)?;
        let version = catalog.version;
        let columns_of_view = out
            .iter()
            .zip(1i32..)
            .map(|(column, id)| {
                let name = usize::try_from(id - 1).ok().and_then(|at| columns.get(at)).unwrap_or(&column.name);
                let collation = column.collation.clone().unwrap_or_else(|| catalog.database.collation.clone());
                let mut made = TableColumn::plain(id, name.clone(), column.sql_type.clone(), collation);
                made.nullable = column.nullable;
                made
            })
            .collect::<Vec<_>>();
        if let Some(unnamed) = columns_of_view.iter().find(|column| column.name.is_empty()) {
            let message = format!(
                "Create View or Function failed because no column name was specified for column {}.",
                unnamed.id
            );
            return Err(SqlError::new(4511, 16, message).into());
        }
        let id = match &old {
            Some(old) => old.id,
            None => catalog.new_id(),
        };
        let moment = now();
        let next_column = i32::try_from(columns_of_view.len()).unwrap_or(0) + 1;
        catalog.put(Object {
            id,
            schema,
            name: name.last().to_owned(),
            created: old.as_ref().map_or(moment, |old| old.created),
            modified: moment,
            changed: version,
            columns: columns_of_view,
            next_column,
            keys: Vec::new(),
            view: Some(View { text: text.to_owned() }),
            tracking: None,
            system_versioned: false,
            memory_optimized: false,
            without_rowid: false,
        });
        self.altered(id, version);
        Ok(())
    }

    fn drop_object(&mut self, catalog: &mut Catalog, name: &Name, if_exists: bool, view: bool) -> Result<(), Halt> {
        let found = catalog.object(name).filter(|object| object.view.is_some() == view).cloned();
        let Some(object) = found else {
            if if_exists {
                return Ok(());
            }
            let kind = if view { "view" } else { "table" };
            let message = format!(
                "Cannot drop the {kind} '{}', because it does not exist or you do not have permission.",
                name.text()
            );
            return Err(SqlError::new(3701, 11, message).into());
        };
        if !view {
            tracking::disable(&self.connection, object.id).map_err(|error| self.halt(error))?;
            self.sql_batch(&format!("DROP TABLE {}", object.table()))?;
            self.pending.touched.remove(&object.id);
            self.pending.truncated.remove(&object.id);
        }
        catalog.remove(object.id);
        // Whatever sees the object still is older than this.
        self.altered(object.id, i64::MAX);
        Ok(())
    }

    fn truncate(&mut self, name: &Name) -> Result<(), Halt> {
        let table = self.object(name)?;
        self.context.lock().tracking = false;
        let emptied = self.sql(&format!("DELETE FROM {}", table.table()), &[]);
        self.context.lock().tracking = true;
        emptied?;
        if table.tracking.is_some() {
            self.sql(&format!("DELETE FROM p{}", table.id), &[])?;
            self.pending.truncated.insert(table.id);
        }
        if let Some((seed, step)) = table.columns.iter().find_map(|column| column.identity) {
            self.shared.set_identity(table.id, seed, step);
        }
        let counted = super::shared::lock(&self.shared.row_counts).get(&table.id).copied().unwrap_or(0);
        self.pending.counts.insert(table.id, -counted);
        Ok(())
    }

    fn alter_database(&mut self, catalog: &mut Catalog, change: &AlterDatabase) -> Result<(), Halt> {
        let state = &mut catalog.database;
        match change {
            AlterDatabase::TrackingOn { retention, auto_cleanup } => {
                if !self.shared.options.change_tracking {
                    return Err(SqlError::new(22104, 16, "Change tracking is not available in this edition.").into());
                }
                let mut tracking = state.tracking.unwrap_or(DEFAULT_RETENTION);
                if let Some((period, unit)) = retention {
                    (tracking.retention, tracking.unit) = (*period, *unit);
                }
                tracking.auto_cleanup = auto_cleanup.unwrap_or(tracking.auto_cleanup);
                state.tracking = Some(tracking);
            }
            AlterDatabase::TrackingOff => {
                state.tracking = None;
                if let Some(table) = catalog.objects.values().find(|object| object.tracking.is_some()) {
                    let message = format!(
                        "Change tracking is enabled for one or more tables in database '{}', such as '{}'. Disable change tracking on each table before disabling it for the database.",
                        catalog.database.name, table.name
                    );
                    return Err(SqlError::new(22115, 16, message).into());
                }
            }
            AlterDatabase::Snapshot(on) => {
                if *on && !self.shared.options.snapshot_isolation {
                    return Err(SqlError::new(5070, 16, "Snapshot isolation is not available in this database.").into());
                }
                state.snapshot = *on;
            }
            AlterDatabase::ReadCommittedSnapshot(on) => state.read_committed_snapshot = *on,
            AlterDatabase::ReadOnly(on) => state.read_only = *on,
            AlterDatabase::Compatibility(level) => state.compatibility = *level,
            AlterDatabase::Nothing => {}
        }
        Ok(())
    }
}

/// The schema an object is to lie in.
pub(super) fn schema_of(catalog: &Catalog, name: &Name) -> Result<i32, SqlError> {
    let schema = name.schema().unwrap_or("dbo");
    let found = catalog.schema(schema).filter(|schema| schema.id != SYS_SCHEMA).map(|schema| schema.id);
    found.ok_or_else(|| {
        let message = format!(
            "The specified schema name \"{schema}\" either does not exist or you do not have permission to use it."
        );
        SqlError::new(2760, 16, message)
    })
}

/// The error of a name that is in use.
pub(super) fn taken(name: &Name) -> SqlError {
    SqlError::new(2714, 16, format!("There is already an object named '{}' in the database.", name.last()))
}

/// DDL that only changes the catalogue.
fn define_name(catalog: &mut Catalog, kind: &Kind) -> Result<(), SqlError> {
    match kind {
        Kind::CreateSchema(name) => {
            if catalog.schema(name).is_some() {
                return Err(taken(&Name(vec![name.clone()])));
            }
            let id = catalog.schemas.iter().map(|schema| schema.id).max().unwrap_or(4) + 1;
            catalog.schemas.push(Schema { id, name: name.clone() });
        }
        Kind::CreateType { name, sql_type, nullable } => {
            let schema = schema_of(catalog, name)?;
            // User types are numbered from 257.
            let id = 257 + i32::try_from(catalog.types.len()).unwrap_or(0);
            let (name, sql_type) = (name.last().to_owned(), sql_type.clone());
            catalog.types.push(UserType { id, schema, name, sql_type, nullable: *nullable });
        }
        Kind::CreateLogin { name, password } => {
            catalog.logins.insert(name.to_lowercase(), password.clone());
        }
        Kind::CreateUser { name } => {
            catalog.logins.entry(name.to_lowercase()).or_insert(None);
        }
        Kind::AddRoleMember { role, member } => catalog.roles.push((role.clone(), member.clone())),
        Kind::SecurityPolicy { name, targets } => {
            let schema = schema_of(catalog, name)?;
            let mut ids = Vec::new();
            for target in targets {
                let object = catalog.object(target).ok_or_else(|| SqlError::unknown_object(&target.text()))?;
                ids.push(object.id);
            }
            let id = catalog.new_id();
            catalog.policies.push(Policy { id, schema, name: name.last().to_owned(), targets: ids });
        }
        Kind::Permission { grant, permissions, on, to } => {
            let scope = match on {
                Securable::Database => Scope::Database,
                Securable::Server => Scope::Server,
                Securable::Schema(name) => {
                    let schema = catalog.schema(name);
                    Scope::Schema(schema.ok_or_else(|| SqlError::unknown_object(name))?.id)
                }
                Securable::Object(name) => {
                    let object = catalog.object(name);
                    Scope::Object(object.ok_or_else(|| SqlError::unknown_object(&name.text()))?.id)
                }
            };
            for user in to {
                for permission in permissions {
                    catalog.change_right(*grant, permission, scope, user);
                }
            }
        }
        _ => return Err(SqlError::internal("a statement nobody runs")),
    }
    Ok(())
}

impl TableColumn {
    /// A nullable column of a type with nothing else to it.
    pub(super) fn plain(id: i32, name: String, sql_type: SqlType, collation: crate::collation::Collation) -> Self {
        Self {
            id,
            name,
            physical: format!("c{id}"),
            sql_type,
            user_type: None,
            nullable: true,
            collation,
            identity: None,
            default: None,
            computed: None,
            masked: false,
            sparse: false,
            column_set: false,
            hidden: false,
            encrypted: false,
            generated: 0,
        }
    }
}
