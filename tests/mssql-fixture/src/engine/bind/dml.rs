//! Binds INSERT, UPDATE and DELETE.

use std::sync::Arc;

use super::{Binder, Bound, BoundSource, Prepared};
use crate::engine::ast::{Delete, Expression, Insert, InsertRows, Name, Source, Update};
use crate::engine::catalog::{Object, TableColumn, same};
use crate::engine::convert::{LAST_DAY, Moment};
use crate::engine::error::SqlError;
use crate::engine::function::{Call, Function};
use crate::engine::parse;
use crate::engine::storage::DAY;
use crate::value::{SqlType, Value};

/// A bound INSERT, UPDATE or DELETE.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) prepared: Prepared,
    pub(crate) table: Arc<Object>,
    /// How a row changes the table's count: 1, 0 or -1.
    pub(crate) step: i64,
    /// The identity column that was given by hand, in SQLite.
    pub(crate) identity: Option<String>,
}

impl Binder<'_> {
    fn target(&mut self, name: &Name, permission: &str) -> Result<Arc<Object>, SqlError> {
        if let Some(view) = crate::engine::views::find(name) {
            let message = format!("Ad hoc updates to system catalogs are not allowed: {}.", view.name);
            return Err(SqlError::new(259, 16, message));
        }
        let object = self.object(name)?;
        if object.view.is_some() {
            return Err(SqlError::new(4405, 16, format!("View '{}' is not updatable.", name.text())));
        }
        self.demand(permission, &object)?;
        self.needs.objects.insert(object.id);
        Ok(object)
    }

    pub(crate) fn insert(&mut self, insert: &Insert) -> Result<Target, SqlError> {
        let table = self.target(&insert.table, "INSERT")?;
        self.scopes.push(Vec::new());
        let given = self.given_columns(&table, insert.columns.as_deref())?;
        let (sql, names) = match &insert.rows {
            InsertRows::Values(rows) => self.insert_values(&table, &given, rows)?,
            InsertRows::Defaults => self.insert_values(&table, &[], &[Vec::new()])?,
            InsertRows::Query(query) => {
                let query = self.query(query)?;
                check_count(given.len(), query.columns.len())?;
                let mut values = Vec::new();
                for (at, (column, out)) in given.iter().zip(&query.columns).enumerate() {
                    let bound = Bound {
                        sorting: out.sorting(),
                        nullable: out.nullable,
                        ..Bound::of(format!("q{}", at + 1), out.sql_type.clone())
                    };
                    values.push(self.assigned_to(&table, column, bound)?);
                }
                let (names, row) = self.full_row(&table, &given, values)?;
                (format!(" SELECT {} FROM ({})", row.join(", "), query.sql), names)
            }
        };
        let sql = if names.is_empty() {
            format!("INSERT INTO {} DEFAULT VALUES", table.table())
        } else {
            format!("INSERT INTO {}({}){sql}", table.table(), names.join(", "))
        };
        let identity = given.iter().find(|column| column.identity.is_some()).map(|column| column.physical.clone());
        let prepared = self.prepared(sql, Vec::new(), Vec::new());
        Ok(Target { prepared, table, step: 1, identity })
    }

    /// The columns a statement gives values for: those of the list, or all that take values.
    pub(crate) fn given_columns(&self, table: &Object, list: Option<&[String]>) -> Result<Vec<TableColumn>, SqlError> {
        let by_hand = self.identity_insert == Some(table.id);
        let Some(list) = list else {
            let takes = |column: &&TableColumn| {
                column.computed.is_none()
                    && column.generated == 0
                    && column.sql_type != SqlType::RowVersion
                    && (column.identity.is_none() || by_hand)
            };
            return Ok(table.columns.iter().filter(takes).cloned().collect());
        };
        let mut all: Vec<TableColumn> = Vec::new();
        for name in list {
            let column = table.column(name).ok_or_else(|| SqlError::unknown_column(name))?;
            if all.iter().any(|other| other.id == column.id) {
                let message = format!(
                    "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT."
                );
                return Err(SqlError::new(264, 16, message));
            }
            if column.identity.is_some() && !by_hand {
                let message = format!(
                    "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                    table.name
                );
                return Err(SqlError::new(544, 16, message));
            }
            self.demand_writable(column)?;
            all.push(column.clone());
        }
        Ok(all)
    }

    fn demand_writable(&self, column: &TableColumn) -> Result<(), SqlError> {
        if column.computed.is_some() {
            let message = format!(
                "The column \"{}\" cannot be modified because it is either a computed column or is the result of a UNION operator.",
                column.name
            );
            return Err(SqlError::new(271, 16, message));
        }
        if column.sql_type == SqlType::RowVersion {
            return Err(SqlError::new(273, 16, "Cannot insert an explicit value into a timestamp column."));
        }
        if column.generated != 0 {
            return Err(SqlError::new(
                13536,
                16,
                format!("Cannot insert an explicit value into a GENERATED ALWAYS column '{}'.", column.name),
            ));
        }
        Ok(())
    }

    fn insert_values(
        &mut self,
        table: &Arc<Object>,
        given: &[TableColumn],
        rows: &[Vec<Expression>],
    ) -> Result<(String, Vec<String>), SqlError> {
        let mut names = Vec::new();
        let mut list = Vec::new();
        for row in rows {
            check_count(given.len(), row.len())?;
            let mut values = Vec::new();
            for (column, expression) in given.iter().zip(row) {
                let bound = match expression {
                    Expression::Default => self.default_of(table, column)?,
                    expression => self.expression(expression)?,
                };
                values.push(self.assigned_to(table, column, bound)?);
            }
            let (all, row) = self.full_row(table, given, values)?;
            names = all;
            list.push(format!("({})", row.join(", ")));
        }
        Ok((format!(" VALUES {}", list.join(", ")), names))
    }

    /// A value as the column takes it: converted, not too long, not NULL where that must not be.
    fn assigned_to(&mut self, table: &Object, column: &TableColumn, bound: Bound) -> Result<String, SqlError> {
        let strict = !column.nullable;
        let full = format!("{}.{}", self.catalog.database.name, self.catalog.full_name(table));
        let function = Function::Assign { table: full, column: column.name.clone(), not_null: strict };
        let from = bound.sql_type.clone();
        let harmless = from.as_ref().is_none_or(|from| super::kind::widens(from, &column.sql_type));
        if harmless && bound.constant.is_none() && (!strict || !bound.nullable) {
            return Ok(bound.sql);
        }
        let collation = if bound.kind().is_binary() { self.collation_of(&bound) } else { column.collation.clone() };
        let arguments = vec![from.unwrap_or_else(|| column.sql_type.clone())];
        let call = Call { function, arguments, result: column.sql_type.clone(), collation };
        Ok(self.call(call, &[bound])?.sql)
    }

    fn default_of(&mut self, table: &Object, column: &TableColumn) -> Result<Bound, SqlError> {
        match &column.default {
            Some(default) => {
                let expression = parse::expression(&default.text)?;
                let scopes = std::mem::replace(&mut self.scopes, vec![Vec::new()]);
                let bound = self.expression(&expression);
                self.scopes = scopes;
                bound
            }
            None if column.identity.is_some() => {
                Ok(Self::typed(self.own_value(table, column), column.sql_type.clone()))
            }
            None => Ok(Bound::null()),
        }
    }

    /// What the table itself puts into a column: identity numbers, rowversions, periods.
    fn own_value(&self, table: &Object, column: &TableColumn) -> String {
        let function = match (&column.sql_type, column.generated) {
            (SqlType::RowVersion, _) => Function::NextRowVersion,
            (_, 1) => return super::literal(&self.started(&column.sql_type)),
            (_, 2) => {
                let end = Moment { days: LAST_DAY, ticks: DAY.unsigned_abs() - 1, offset: 0 };
                return super::literal(&end.value(&column.sql_type).unwrap_or(Value::Null));
            }
            _ => Function::NextIdentity(table.id),
        };
        let collation = self.catalog.database.collation.clone();
        let result = column.sql_type.clone();
        let result = if result.is_integer() { SqlType::BigInt } else { result };
        let number = self.context.intern(Call {
            function,
            arguments: Vec::new(),
            result: result.clone(),
            collation: collation.clone(),
        });
        let own = format!("fxv({number})");
        if let SqlType::Decimal { .. } = &column.sql_type {
            // A decimal identity is counted as an integer and then converted.
            let function = Function::Cast { style: 0, tolerant: false };
            let call = Call { function, arguments: vec![SqlType::BigInt], result, collation };
            return format!("fxv({}, {own})", self.context.intern(call));
        }
        own
    }

    fn started(&self, sql_type: &SqlType) -> Value {
        let started = self.context.lock().started;
        started.value(sql_type).unwrap_or(Value::Null)
    }

    /// Every column of SQLite's table that gets a value, and the values of one row.
    fn full_row(
        &mut self,
        table: &Arc<Object>,
        given: &[TableColumn],
        values: Vec<String>,
    ) -> Result<(Vec<String>, Vec<String>), SqlError> {
        let mut names: Vec<String> = given.iter().map(|column| column.physical.clone()).collect();
        let mut row = values;
        for column in &table.columns {
            if column.computed.is_some() || given.iter().any(|other| other.id == column.id) {
                continue;
            }
            let own = column.sql_type == SqlType::RowVersion || column.generated != 0 || column.identity.is_some();
            let value = if own {
                self.own_value(table, column)
            } else if column.default.is_some() || !column.nullable {
                let default = self.default_of(table, column)?;
                self.assigned_to(table, column, default)?
            } else {
                continue;
            };
            names.push(column.physical.clone());
            row.push(value);
        }
        Ok((names, row))
    }

    /// The columns a bulk load does not bring, with what SQLite puts into them.
    pub(crate) fn other_values(
        &mut self,
        table: &Arc<Object>,
        given: &[i32],
    ) -> Result<Vec<(String, String)>, SqlError> {
        let given: Vec<TableColumn> =
            table.columns.iter().filter(|column| given.contains(&column.id)).cloned().collect();
        let values = vec![String::new(); given.len()];
        let (names, row) = self.full_row(table, &given, values)?;
        Ok(names.into_iter().zip(row).skip(given.len()).collect())
    }

    /// A column's values as a column of another type takes them, for ALTER COLUMN.
    pub(crate) fn converted_column(
        &mut self,
        table: &Object,
        old: &TableColumn,
        new: &TableColumn,
    ) -> Result<String, SqlError> {
        let sorting = super::Sorting::Implicit(old.collation.clone());
        let sorting = if old.sql_type.is_text() { sorting } else { super::Sorting::Default };
        let bound = Bound { nullable: old.nullable, sorting, ..Bound::of(old.physical.clone(), old.sql_type.clone()) };
        self.assigned_to(table, new, bound)
    }

    /// How SQLite finds a row again: its rowid or its primary key.
    fn row_key(table: &Object) -> Vec<String> {
        if table.without_rowid {
            return table.primary_columns().iter().map(|column| column.physical.clone()).collect();
        }
        vec!["rowid".to_owned()]
    }

    /// Binds the FROM of an UPDATE or DELETE and finds the table the statement means in it.
    fn with_sources(&mut self, name: &Name, from: Option<&Source>) -> Result<(Arc<Object>, String, String), SqlError> {
        let alone = Source::Named { name: name.clone(), alias: None };
        self.scopes.push(Vec::new());
        let from_sql = self.source(from.unwrap_or(&alone))?;
        let scope = self.scopes.last().map(Vec::as_slice).unwrap_or_default();
        let by_alias = scope.iter().find(|source| name.0.len() == 1 && same(&source.alias, name.last()));
        let found = by_alias.or_else(|| {
            let wanted = self.catalog.object(name)?.id;
            scope.iter().find(|source| source.object.as_ref().is_some_and(|object| object.id == wanted))
        });
        match found {
            Some(BoundSource { object: Some(object), sql_alias, .. }) => {
                Ok((Arc::clone(object), sql_alias.clone(), from_sql))
            }
            _ => Err(SqlError::unknown_object(&name.text())),
        }
    }

    pub(crate) fn update(&mut self, update: &Update) -> Result<Target, SqlError> {
        let table = match &update.from {
            // The name may be an alias of the FROM; the right is asked for once the table is known.
            Some(_) => None,
            None => Some(self.target(&update.table, "UPDATE")?),
        };
        let (table, alias, from) = match table {
            Some(table)
                if !self.catalog.allows(self.login, "SELECT", crate::engine::catalog::Scope::Object(table.id)) =>
            {
                // Writing needs no right to read.
                self.in_view += 1;
                let found = self.with_sources(&update.table, None);
                self.in_view -= 1;
                found?
            }
            _ => self.with_sources(&update.table, update.from.as_ref())?,
        };
        self.demand("UPDATE", &table)?;
        let mut set: Vec<(String, String)> = Vec::new();
        for (name, expression) in &update.assignments {
            let column = table.column(name).ok_or_else(|| SqlError::unknown_column(name))?.clone();
            self.demand_writable(&column)?;
            if column.identity.is_some() {
                return Err(SqlError::new(8102, 16, format!("Cannot update identity column '{name}'.")));
            }
            let bound = match expression {
                Expression::Default => self.default_of(&table, &column)?,
                expression => self.expression(expression)?,
            };
            set.push((column.physical.clone(), self.assigned_to(&table, &column, bound)?));
        }
        for column in &table.columns {
            if column.sql_type == SqlType::RowVersion || column.generated == 1 {
                set.push((column.physical.clone(), self.own_value(&table, column)));
            }
        }
        let filter = match &update.filter {
            Some(filter) => format!(" WHERE {}", self.condition(filter)?),
            None => String::new(),
        };
        let sql = if update.from.is_none() && update.top.is_none() {
            let set: Vec<_> = set.iter().map(|(column, value)| format!("{column} = {value}")).collect();
            format!("UPDATE {} AS {alias} SET {}{filter}", table.table(), set.join(", "))
        } else {
            let limit = self.dml_limit(update.top.as_ref())?;
            joined_update(&table, &alias, &set, &format!("{from}{filter}{limit}"))
        };
        let prepared = self.prepared(sql, Vec::new(), Vec::new());
        Ok(Target { prepared, table, step: 0, identity: None })
    }

    fn dml_limit(&mut self, top: Option<&Expression>) -> Result<String, SqlError> {
        let Some(top) = top else { return Ok(String::new()) };
        let bound = self.expression(top)?;
        let bound = self.cast(bound, &SqlType::BigInt, 0, false)?;
        Ok(format!(" LIMIT {}", bound.sql))
    }

    pub(crate) fn delete(&mut self, delete: &Delete) -> Result<Target, SqlError> {
        self.in_view += u32::from(delete.from.is_none());
        let found = self.with_sources(&delete.table, delete.from.as_ref());
        self.in_view -= u32::from(delete.from.is_none());
        let (table, alias, from) = found?;
        self.demand("DELETE", &table)?;
        let filter = match &delete.filter {
            Some(filter) => format!(" WHERE {}", self.condition(filter)?),
            None => String::new(),
        };
        let sql = if delete.from.is_none() && delete.top.is_none() {
            format!("DELETE FROM {} AS {alias}{filter}", table.table())
        } else {
            let limit = self.dml_limit(delete.top.as_ref())?;
            let key = Self::row_key(&table);
            let qualified: Vec<_> = key.iter().map(|column| format!("{alias}.{column}")).collect();
            format!(
                "DELETE FROM {} WHERE ({}) IN (SELECT {} FROM {from}{filter}{limit})",
                table.table(),
                key.join(", "),
                qualified.join(", ")
            )
        };
        let prepared = self.prepared(sql, Vec::new(), Vec::new());
        Ok(Target { prepared, table, step: -1, identity: None })
    }
}

/// An UPDATE over joined tables: the new values are computed per row of the join and put in by the row's key.
fn joined_update(table: &Object, alias: &str, set: &[(String, String)], from: &str) -> String {
    let key = Binder::row_key(table);
    let mut list: Vec<_> = key.iter().enumerate().map(|(at, column)| format!("{alias}.{column} AS k{at}")).collect();
    list.extend(set.iter().enumerate().map(|(at, (_, value))| format!("{value} AS n{at}")));
    let set: Vec<_> = set.iter().enumerate().map(|(at, (column, _))| format!("{column} = u.n{at}")).collect();
    let name = table.table();
    let matches: Vec<_> = key.iter().enumerate().map(|(at, column)| format!("{name}.{column} IS u.k{at}")).collect();
    format!(
        "UPDATE {name} SET {} FROM (SELECT {} FROM {from}) AS u WHERE {}",
        set.join(", "),
        list.join(", "),
        matches.join(" AND ")
    )
}

fn check_count(columns: usize, values: usize) -> Result<(), SqlError> {
    match columns.cmp(&values) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(SqlError::new(
            109,
            15,
            "There are more columns in the INSERT statement than values specified in the VALUES clause. The number of values in the VALUES clause must match the number of columns specified in the INSERT statement.",
        )),
        std::cmp::Ordering::Less => Err(SqlError::new(
            110,
            15,
            "There are fewer columns in the INSERT statement than values specified in the VALUES clause. The number of values in the VALUES clause must match the number of columns specified in the INSERT statement.",
        )),
    }
}
