//! The catalogue views: `sys.…` and INFORMATION_SCHEMA, made from the catalogue when a statement reads them.
//!
//! A view is a temporary table of the session, filled anew before each statement that names it, with what the login
//! may see.

mod database;
mod information;
mod keys;
mod shape;
mod tables;

use rusqlite::{Connection, params_from_iter};

use super::ast::Name;
use super::catalog::{Catalog, Object, Scope, same};
use super::error::SqlError;
use super::function::Context;
use super::shared::Shared;
use super::storage::{declared, store};
use crate::value::{SqlType, Value};

pub(crate) use shape::{Shape, type_name};

/// What rows of a view are made from.
pub(crate) struct Origin<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) shared: &'a Shared,
    pub(crate) login: &'a str,
    pub(crate) connection: &'a Connection,
}

impl<'a> Origin<'a> {
    /// The objects the login may see, by id.
    pub(crate) fn objects(&self) -> Vec<&'a Object> {
        let catalog = self.catalog;
        let mut all: Vec<&Object> = catalog.objects.values().map(AsRef::as_ref).collect();
        all.retain(|object| catalog.shows(self.login, object));
        all.sort_by_key(|object| object.id);
        all
    }

    pub(crate) fn tables(&self) -> Vec<&'a Object> {
        let mut all = self.objects();
        all.retain(|object| object.view.is_none());
        all
    }
}

type Rows = Vec<Vec<Value>>;

/// One catalogue view.
pub(crate) struct SystemView {
    /// Schema and name.
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, SqlType)],
    rows: fn(&Origin<'_>) -> rusqlite::Result<Rows>,
}

impl SystemView {
    pub(crate) fn schema(&self) -> &'static str {
        self.name.split_once('.').map_or("sys", |(schema, _)| schema)
    }

    pub(crate) fn short_name(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, name)| name)
    }

    /// The temporary table behind it.
    pub(crate) fn table(&self) -> String {
        format!("sv_{}", self.name.replace('.', "_").to_lowercase())
    }

    /// Fills the temporary table.
    pub(crate) fn fill(&self, origin: &Origin<'_>) -> rusqlite::Result<()> {
        let table = self.table();
        let columns: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (_, sql_type))| format!("v{} {}", at + 1, declared(sql_type)))
            .collect();
        let connection = origin.connection;
        connection
            .prepare_cached(&format!("CREATE TEMP TABLE IF NOT EXISTS {table}({})", columns.join(", ")))?
            .execute([])?;
        connection.prepare_cached(&format!("DELETE FROM temp.{table}"))?.execute([])?;
        let places: Vec<_> = (1..=columns.len()).map(|at| format!("?{at}")).collect();
        let mut insert =
            connection.prepare_cached(&format!("INSERT INTO temp.{table} VALUES({})", places.join(", ")))?;
        for row in (self.rows)(origin)? {
            insert.execute(params_from_iter(row.iter().map(store)))?;
        }
        Ok(())
    }
}

/// Names of views by which a client may ask for an object id.
const FIRST_VIEW_ID: i32 = -400;

fn all() -> impl Iterator<Item = &'static SystemView> {
    tables::VIEWS.iter().chain(keys::VIEWS).chain(information::VIEWS).chain(database::VIEWS)
}

/// The view of a name, when it is one.
pub(crate) fn find(name: &Name) -> Option<&'static SystemView> {
    let schema = name.schema()?;
    all().find(|view| same(view.schema(), schema) && same(view.short_name(), name.last()))
}

/// The view of a name as [`Needs`](super::bind::Needs) keeps it.
pub(crate) fn by_name(name: &str) -> Option<&'static SystemView> {
    all().find(|view| view.name == name)
}

/// The object id of a catalogue view; negative, as SQL Server's are.
pub(crate) fn id_of(name: &Name) -> Option<i32> {
    let wanted = find(name)?;
    let at = all().position(|view| view.name == wanted.name)?;
    Some(FIRST_VIEW_ID - i32::try_from(at).unwrap_or(0))
}

/// Errors of views that are not there or not for everybody.
pub(crate) fn demand(view: &SystemView, context: &Context, catalog: &Catalog, login: &str) -> Result<(), SqlError> {
    if !view.short_name().starts_with("dm_") {
        return Ok(());
    }
    if !context.shared.options.management_views {
        return Err(SqlError::unknown_object(view.name));
    }
    let allowed = ["VIEW DATABASE STATE", "VIEW SERVER STATE", "VIEW DATABASE PERFORMANCE STATE"]
        .iter()
        .any(|permission| catalog.allows(login, permission, Scope::Database));
    if allowed {
        return Ok(());
    }
    let message = format!("VIEW DATABASE STATE permission denied in database '{}'.", catalog.database.name);
    Err(SqlError::new(262, 14, message))
}

pub(crate) const NAME: SqlType = SqlType::NVarChar { length: Some(128) };

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(crate) fn int(number: impl Into<i64>) -> Value {
    Value::Int(number.into())
}

pub(crate) fn bit(on: bool) -> Value {
    Value::Bit(on)
}
