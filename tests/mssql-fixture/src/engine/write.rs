//! Runs INSERT, UPDATE, DELETE and bulk loads.

use rusqlite::params_from_iter;

use super::ast::{Delete, Expression, Insert, Kind, Update};
use super::bind::Target;
use super::catalog::{Key, Object, Scope, TableColumn};
use super::convert::{Manner, now};
use super::error::{SqlError, Stop};
use super::function::assign;
use super::parse;
use super::session::{Halt, Session};
use super::storage::store;
use crate::value::{Column, SqlType, Value};

/// A bulk load that was prepared.
pub(super) struct Bulk {
    table: super::ast::Name,
    columns: Vec<(String, SqlType)>,
}

/// A column of a bulk load: where it goes and what it comes as.
struct BulkColumn {
    target: TableColumn,
    from: SqlType,
}

/// How many rows a bulk load inserts between two looks whether it was cancelled.
const ROWS_BETWEEN_GLANCES: usize = 1024;

impl Session {
    /// Runs a statement that changes rows; gives how many it changed.
    pub(super) fn write(&mut self, kind: &Kind) -> Result<u64, Halt> {
        let (Kind::Insert(Insert { context, .. })
        | Kind::Update(Update { context, .. })
        | Kind::Delete(Delete { context, .. })) = kind
        else {
            return Ok(0);
        };
        let noted = match context {
            Some(context) => self.change_context(context)?,
            None => None,
        };
        self.open_write()?;
        let (target, _) = self.bound(|binder| match kind {
            Kind::Insert(insert) => binder.insert(insert),
            Kind::Update(update) => binder.update(update),
            Kind::Delete(delete) => binder.delete(delete),
            _ => Err(SqlError::internal("not a statement that writes")),
        })?;
        self.context.lock().change_context = noted;
        let rows = self.guarded(|session| session.change_rows(&target));
        self.context.lock().change_context = None;
        rows
    }

    fn change_context(&mut self, context: &Expression) -> Result<Option<Vec<u8>>, Halt> {
        let value = self.value(context, Some(&SqlType::VarBinary { length: Some(128) }))?;
        self.end_statement(true)?;
        Ok(match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// Runs work that is undone when it fails, while the transaction around it stays.
    pub(super) fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Halt>) -> Result<T, Halt> {
        let run =
            |session: &Self, sql: &str| session.connection.execute_batch(sql).map_err(|error| session.halt(error));
        run(self, "SAVEPOINT statement")?;
        match work(self) {
            Ok(done) => {
                run(self, "RELEASE statement")?;
                Ok(done)
            }
            Err(halt) => {
                // SQLite may have rolled the whole transaction back already; then there is no savepoint.
                let _ = self.connection.execute_batch("ROLLBACK TO statement; RELEASE statement");
                Err(halt)
            }
        }
    }

    fn change_rows(&mut self, target: &Target) -> Result<u64, Halt> {
        let prepared = &target.prepared;
        let rows = self
            .connection
            .prepare_cached(&prepared.sql)
            .and_then(|mut statement| statement.execute(params_from_iter(&prepared.parameters)))
            .map_err(|error| self.halt(error))?;
        let rows = u64::try_from(rows).unwrap_or(0);
        self.wrote(&target.table, target.step, rows);
        if let Some(column) = &target.identity {
            self.lift_identity(&target.table, column)?;
        }
        Ok(rows)
    }

    /// Notes what a commit has to know of changed rows.
    fn wrote(&mut self, table: &Object, step: i64, rows: u64) {
        self.pending.touched.insert(table.id);
        *self.pending.counts.entry(table.id).or_insert(0) += step * i64::try_from(rows).unwrap_or(0);
    }

    fn lift_identity(&self, table: &Object, column: &str) -> Result<(), Halt> {
        let highest: Option<i64> = self
            .connection
            .query_row(&format!("SELECT max({column}) FROM {}", table.table()), [], |row| row.get(0))
            .map_err(|error| self.halt(error))?;
        if let Some(highest) = highest {
            self.shared.lift_identity(table.id, highest);
        }
        Ok(())
    }

    pub(super) fn prepare_bulk(&mut self, statement: &str) -> Result<Vec<Column>, Halt> {
        self.load_catalog()?;
        let (name, columns) = parse::bulk(statement)?;
        let table = self.object(&name)?;
        let catalog = std::sync::Arc::clone(&self.context.lock().catalog);
        if !catalog.allows(&self.login, "INSERT", Scope::Object(table.id)) {
            let message = format!("The INSERT permission was denied on the object '{}'.", table.name);
            return Err(SqlError::new(229, 14, message).into());
        }
        let columns = if columns.is_empty() {
            let all = self.binder().given_columns(&table, None)?;
            all.into_iter().map(|column| (column.name, column.sql_type)).collect()
        } else {
            columns
        };
        let mut shown = Vec::new();
        for (name, sql_type) in &columns {
            let column = table.column(name).ok_or_else(|| SqlError::unknown_column(name))?;
            shown.push(Column {
                name: column.name.clone(),
                sql_type: sql_type.clone(),
                nullable: column.nullable,
                collation: column.collation.clone(),
                identity: column.identity.is_some(),
                computed: column.computed.is_some(),
            });
        }
        self.bulk = Some(Bulk { table: name, columns });
        Ok(shown)
    }

    pub(super) fn insert_bulk(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, Halt> {
        let Some(bulk) = self.bulk.take() else {
            return Err(SqlError::new(4022, 16, "Bulk load data was expected but not sent.").into());
        };
        let inserted = self.open_write().and_then(|()| self.guarded(|session| session.bulk_chunk(&bulk, rows)));
        self.bulk = Some(bulk);
        let ended = self.end_statement(inserted.is_ok());
        if let (Err(_), true) = (&inserted, self.settings.xact_abort) {
            self.rollback_transaction();
        }
        inserted.and_then(|rows| ended.map(|()| rows))
    }

    fn bulk_chunk(&mut self, bulk: &Bulk, rows: Vec<Vec<Value>>) -> Result<u64, Halt> {
        self.context.lock().started = now();
        let table = self.object(&bulk.table)?;
        let mut columns = Vec::new();
        for (name, from) in &bulk.columns {
            let target = table.column(name).ok_or_else(|| SqlError::unknown_column(name))?.clone();
            columns.push(BulkColumn { target, from: from.clone() });
        }
        let (mut names, mut places) = (Vec::new(), Vec::new());
        for (at, column) in columns.iter().enumerate() {
            names.push(column.target.physical.clone());
            places.push(format!("?{}", at + 1));
        }
        let given: Vec<i32> = columns.iter().map(|column| column.target.id).collect();
        for (name, value) in self.binder().other_values(&table, &given)? {
            names.push(name);
            places.push(value);
        }
        let sql = format!("INSERT INTO {}({}) VALUES({})", table.table(), names.join(", "), places.join(", "));
        let count = u64::try_from(rows.len()).unwrap_or(0);
        self.bulk_insert(&sql, &table, &columns, rows)?;
        self.wrote(&table, 1, count);
        if let Some(column) = columns.iter().find(|column| column.target.identity.is_some()) {
            self.lift_identity(&table, &column.target.physical)?;
        }
        Ok(count)
    }

    fn bulk_insert(
        &self,
        sql: &str,
        table: &Object,
        columns: &[BulkColumn],
        rows: Vec<Vec<Value>>,
    ) -> Result<(), Halt> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.halt(error))?;
        let manners: Vec<_> =
            columns.iter().map(|column| Manner { style: 0, collation: column.target.collation.clone() }).collect();
        for (at, row) in rows.into_iter().enumerate() {
            if at % ROWS_BETWEEN_GLANCES == 0 && self.cancellation.is_cancelled() {
                return Err(Stop::Cancelled.into());
            }
            if row.len() != columns.len() {
                return Err(SqlError::new(4815, 16, "Received an invalid column count from bcp client.").into());
            }
            for (at, ((value, column), manner)) in row.into_iter().zip(columns).zip(&manners).enumerate() {
                let target = &column.target;
                if value.is_null() && !target.nullable {
                    let message = format!(
                        "Cannot insert the value NULL into column '{}', table '{}'; column does not allow nulls. INSERT fails.",
                        target.name, table.name
                    );
                    return Err(SqlError::new(515, 16, message).into());
                }
                let value = if column.from == target.sql_type && !target.sql_type.is_text() {
                    value
                } else {
                    assign(value, &column.from, &target.sql_type, manner, &table.name, &target.name)?
                };
                statement.raw_bind_parameter(at + 1, store(&value)).map_err(|error| self.halt(error))?;
            }
            statement.raw_execute().map_err(|error| self.halt(error))?;
        }
        Ok(())
    }

    /// The error of a key that is there already, from SQLite's text `UNIQUE constraint failed: t5.c1, t5.c2`.
    pub(super) fn violation(&self, text: &str) -> SqlError {
        let catalog = std::sync::Arc::clone(&self.context.lock().catalog);
        let named = text.rsplit(": ").next().unwrap_or_default();
        let parts: Vec<(&str, &str)> = named.split(", ").filter_map(|part| part.split_once('.')).collect();
        let table = parts.first().and_then(|(table, _)| table.strip_prefix('t')).and_then(|id| id.parse::<i32>().ok());
        let Some(table) = table.and_then(|id| catalog.objects.get(&id)) else {
            return SqlError::new(2601, 14, "Cannot insert duplicate key row in object with unique index.");
        };
        let is_this = |key: &&Key| {
            key.columns.len() == parts.len()
                && key.columns.iter().zip(&parts).all(|((id, _), (_, physical))| {
                    table.column_by_id(*id).is_some_and(|column| column.physical == *physical)
                })
        };
        // SQLite calls an integer primary key by its column, and its hidden row number `rowid`.
        let key = table.keys.iter().find(is_this).or_else(|| table.primary());
        let object = catalog.full_name(table);
        match key {
            Some(key) if key.constraint != 0 => {
                let kind = if key.primary { "PRIMARY" } else { "UNIQUE" };
                let message = format!(
                    "Violation of {kind} KEY constraint '{}'. Cannot insert duplicate key in object '{object}'.",
                    key.name
                );
                SqlError::new(2627, 14, message)
            }
            _ => {
                let name = key.map_or("", |key| key.name.as_str());
                let message =
                    format!("Cannot insert duplicate key row in object '{object}' with unique index '{name}'.");
                SqlError::new(2601, 14, message)
            }
        }
    }
}
