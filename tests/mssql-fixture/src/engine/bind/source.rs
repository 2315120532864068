//! Binds what stands behind FROM.

use std::sync::Arc;

use super::query::derived;
use super::{Binder, Bound, BoundSource, SourceColumn};
use crate::engine::ast::{Expression, JoinKind, Name, Source};
use crate::engine::catalog::{Object, same};
use crate::engine::error::SqlError;
use crate::engine::{parse, views};
use crate::value::SqlType;

/// How deep views may lie over views, as in SQL Server.
const MAX_VIEWS: u32 = 32;

impl Binder<'_> {
    /// The SQL of a source; its columns join the innermost scope.
    pub(super) fn source(&mut self, source: &Source) -> Result<String, SqlError> {
        match source {
            Source::Named { name, alias } => self.named_source(name, alias.as_deref()),
            Source::Derived { query, alias, columns } => {
                let bound = self.query(query)?;
                let sql_alias = self.alias();
                let mut list: Vec<_> =
                    bound.columns.iter().enumerate().map(|(at, column)| derived(column, &sql_alias, at)).collect();
                for (column, name) in list.iter_mut().zip(columns) {
                    column.name.clone_from(name);
                }
                self.join_scope(alias, None, &sql_alias, list, None);
                Ok(format!("({}) AS {sql_alias}", bound.sql))
            }
            Source::Changes { table, since, alias } => self.change_source(table, since.as_ref(), alias),
            Source::Function { name, arguments, alias } => self.function_source(name, arguments, alias.as_deref()),
            Source::Join { kind, left, right, on } => self.join(*kind, left, right, on.as_ref()),
        }
    }

    fn join_scope(
        &mut self,
        alias: &str,
        full: Option<(String, String)>,
        sql_alias: &str,
        columns: Vec<SourceColumn>,
        object: Option<Arc<Object>>,
    ) {
        if let Some(scope) = self.scopes.last_mut() {
            let (alias, sql_alias) = (alias.to_owned(), sql_alias.to_owned());
            scope.push(BoundSource { alias, full, sql_alias, columns, object });
        }
    }

    fn join(
        &mut self,
        kind: JoinKind,
        left: &Source,
        right: &Source,
        on: Option<&Expression>,
    ) -> Result<String, SqlError> {
        let before = self.scopes.last().map_or(0, Vec::len);
        let left_sql = self.source(left)?;
        let middle = self.scopes.last().map_or(0, Vec::len);
        let right_sql = self.source(right)?;
        let right_sql = if matches!(right, Source::Join { .. }) { format!("({right_sql})") } else { right_sql };
        let word = match kind {
            JoinKind::Inner => "JOIN",
            JoinKind::Left => "LEFT JOIN",
            JoinKind::Right => "RIGHT JOIN",
            JoinKind::Full => "FULL JOIN",
            JoinKind::Cross | JoinKind::CrossApply => "CROSS JOIN",
        };
        let condition = match on {
            Some(on) => format!(" ON {}", self.condition(on)?),
            None => String::new(),
        };
        // The side that may be missing gives NULLs.
        if let Some(scope) = self.scopes.last_mut() {
            for (at, source) in scope.iter_mut().enumerate().skip(before) {
                let optional = match kind {
                    JoinKind::Left => at >= middle,
                    JoinKind::Right => at < middle,
                    JoinKind::Full => true,
                    _ => false,
                };
                if optional {
                    source.columns.iter_mut().for_each(|column| column.nullable = true);
                }
            }
        }
        Ok(format!("{left_sql} {word} {right_sql}{condition}"))
    }

    fn named_source(&mut self, name: &Name, alias: Option<&str>) -> Result<String, SqlError> {
        let shown = alias.unwrap_or_else(|| name.last());
        if name.0.len() == 1
            && let Some(common) = self.common.iter().rev().find(|common| same(&common.name, name.last())).cloned()
        {
            let sql_alias = self.alias();
            let columns =
                common.columns.iter().enumerate().map(|(at, column)| derived(column, &sql_alias, at)).collect();
            self.join_scope(shown, None, &sql_alias, columns, None);
            return Ok(format!("{} AS {sql_alias}", common.sql_name));
        }
        if let Some(view) = views::find(name) {
            return self.system_view(view, shown);
        }
        let object = self.object(name)?;
        self.demand("SELECT", &object)?;
        self.needs.objects.insert(object.id);
        let full = alias.is_none().then(|| (self.catalog.schema_name(object.schema).to_owned(), object.name.clone()));
        if object.view.is_some() {
            return self.view_source(&object, shown, full);
        }
        let sql_alias = self.alias();
        let columns = self.table_columns(&object, &sql_alias)?;
        let table = object.table();
        self.join_scope(shown, full, &sql_alias, columns, Some(object));
        Ok(format!("{table} AS {sql_alias}"))
    }

    /// The columns of a table as its alias shows them; computed ones are bound over the others.
    pub(super) fn table_columns(&mut self, object: &Arc<Object>, alias: &str) -> Result<Vec<SourceColumn>, SqlError> {
        let mut columns: Vec<SourceColumn> = object
            .columns
            .iter()
            .filter(|column| column.computed.is_none())
            .map(|column| SourceColumn {
                name: column.name.clone(),
                sql: format!("{alias}.{}", column.physical),
                sql_type: column.sql_type.clone(),
                nullable: column.nullable,
                collation: column.collation.clone(),
                identity: column.identity.is_some(),
                computed: column.sql_type == SqlType::RowVersion,
                hidden: column.hidden,
            })
            .collect();
        if object.columns.len() == columns.len() {
            return Ok(columns);
        }
        self.scopes.push(vec![BoundSource {
            alias: object.name.clone(),
            full: None,
            sql_alias: alias.to_owned(),
            columns: columns.clone(),
            object: None,
        }]);
        let bound = self.computed_columns(object);
        self.scopes.pop();
        columns.extend(bound?);
        let place = |name: &str| object.columns.iter().position(|column| column.name == name);
        columns.sort_by_key(|column| place(&column.name));
        Ok(columns)
    }

    fn computed_columns(&mut self, object: &Object) -> Result<Vec<SourceColumn>, SqlError> {
        let mut all = Vec::new();
        for column in &object.columns {
            let Some(computed) = &column.computed else { continue };
            let bound = self.expression(&parse::expression(&computed.text)?)?;
            let bound: Bound = self.cast(bound, &column.sql_type, 0, false)?;
            all.push(SourceColumn {
                name: column.name.clone(),
                sql: format!("({})", bound.sql),
                sql_type: column.sql_type.clone(),
                nullable: column.nullable,
                collation: column.collation.clone(),
                identity: false,
                computed: true,
                hidden: false,
            });
        }
        Ok(all)
    }

    /// What type an expression over a table's columns has, for a new computed column.
    pub(crate) fn computed_type(&mut self, object: &Arc<Object>, text: &str) -> Result<(SqlType, bool), SqlError> {
        let columns = self.table_columns(object, "x")?;
        self.scopes.push(Vec::new());
        self.join_scope(&object.name, None, "x", columns, None);
        let bound = parse::expression(text).and_then(|expression| self.expression(&expression));
        self.scopes.pop();
        bound.map(|bound| (bound.kind(), bound.nullable))
    }

    fn view_source(
        &mut self,
        object: &Arc<Object>,
        shown: &str,
        full: Option<(String, String)>,
    ) -> Result<String, SqlError> {
        if self.in_view >= MAX_VIEWS {
            return Err(SqlError::new(217, 16, "Maximum view nesting level exceeded (limit 32)."));
        }
        let text = object.view.as_ref().map(|view| view.text.clone()).unwrap_or_default();
        // A view sees nothing of the query around it.
        let scopes = std::mem::take(&mut self.scopes);
        let common = std::mem::take(&mut self.common);
        self.in_view += 1;
        let bound = parse::batch(&text).and_then(|statements| match statements.first().map(|one| &one.kind) {
            Some(crate::engine::ast::Kind::Query(query)) => self.query(query),
            _ => Err(SqlError::internal("a view without a query")),
        });
        self.in_view -= 1;
        self.scopes = scopes;
        self.common = common;
        let bound = bound?;
        let sql_alias = self.alias();
        let columns = object
            .columns
            .iter()
            .zip(&bound.columns)
            .enumerate()
            .map(|(at, (own, column))| SourceColumn { name: own.name.clone(), ..derived(column, &sql_alias, at) })
            .collect();
        self.join_scope(shown, full, &sql_alias, columns, None);
        Ok(format!("({}) AS {sql_alias}", bound.sql))
    }

    /// The columns of a view that is being made.
    pub(crate) fn view_columns(&mut self, text: &str) -> Result<Vec<super::OutColumn>, SqlError> {
        match parse::batch(text)?.first().map(|one| &one.kind) {
            Some(crate::engine::ast::Kind::Query(query)) => self.query(query).map(|bound| bound.columns),
            _ => Err(SqlError::internal("a view without a query")),
        }
    }

    fn system_view(&mut self, view: &'static views::SystemView, shown: &str) -> Result<String, SqlError> {
        views::demand(view, &self.context.lock(), &self.catalog, self.login)?;
        self.needs.views.insert(view.name);
        let sql_alias = self.alias();
        let collation = self.catalog.database.collation.clone();
        let columns = view
            .columns
            .iter()
            .enumerate()
            .map(|(at, (name, sql_type))| SourceColumn {
                name: (*name).to_owned(),
                sql: format!("{sql_alias}.v{}", at + 1),
                sql_type: sql_type.clone(),
                nullable: true,
                collation: collation.clone(),
                identity: false,
                computed: false,
                hidden: false,
            })
            .collect();
        let full = Some((view.schema().to_owned(), view.short_name().to_owned()));
        self.join_scope(shown, full, &sql_alias, columns, None);
        Ok(format!("temp.{} AS {sql_alias}", view.table()))
    }

    /// GENERATE_SERIES and fn_my_permissions.
    fn function_source(
        &mut self,
        name: &Name,
        arguments: &[Expression],
        alias: Option<&str>,
    ) -> Result<String, SqlError> {
        let sql_alias = self.alias();
        let shown = alias.unwrap_or_else(|| name.last());
        let lower = name.last().to_ascii_lowercase();
        let column = |name: &str, sql: String, sql_type| SourceColumn {
            name: name.to_owned(),
            sql,
            sql_type,
            nullable: true,
            collation: crate::collation::Collation::default(),
            identity: false,
            computed: false,
            hidden: false,
        };
        match (lower.as_str(), arguments) {
            ("generate_series", [low, high]) => {
                let mut bounds = Vec::new();
                for bound in [low, high] {
                    let bound = self.expression(bound)?;
                    bounds.push(self.cast(bound, &SqlType::BigInt, 0, false)?.sql);
                }
                let [low, high] = bounds.as_slice() else { return Err(SqlError::internal("two bounds")) };
                let columns = vec![column("value", format!("{sql_alias}.v"), SqlType::BigInt)];
                self.join_scope(shown, None, &sql_alias, columns, None);
                Ok(format!(
                    "(WITH RECURSIVE g(v) AS (SELECT {low} WHERE {low} <= {high} UNION ALL SELECT v + 1 FROM g WHERE v < {high}) SELECT v FROM g) AS {sql_alias}"
                ))
            }
            ("fn_my_permissions", _) => {
                let view = views::find(&Name(vec!["sys".to_owned(), "fn_my_permissions".to_owned()]));
                match view {
                    Some(view) => self.system_view(view, shown),
                    None => Err(SqlError::unknown_object(&name.text())),
                }
            }
            _ => Err(SqlError::unknown_object(&name.text())),
        }
    }
}
