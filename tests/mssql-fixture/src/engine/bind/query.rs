//! Binds queries: SELECT, set operators, common tables, ORDER BY and TOP.

use super::{Binder, Bound, CommonTableSource, Sorting, SourceColumn, kind};
use crate::collation::Collation;
use crate::engine::ast::{Body, CommonTable, Expression, Item, Order, Query, Select, SetOperator};
use crate::engine::catalog::same;
use crate::engine::error::SqlError;
use crate::value::{Column, SqlType, Value};

/// A column a query yields. In SQLite it is called q1, q2 and so on.
#[derive(Debug, Clone)]
pub(crate) struct OutColumn {
    pub(crate) name: String,
    pub(crate) sql_type: SqlType,
    pub(crate) nullable: bool,
    pub(crate) collation: Option<Collation>,
    pub(crate) identity: bool,
    pub(crate) computed: bool,
}

impl OutColumn {
    pub(super) fn column(&self, default: &Collation) -> Column {
        Column {
            name: self.name.clone(),
            sql_type: self.sql_type.clone(),
            nullable: self.nullable,
            collation: self.collation.clone().unwrap_or_else(|| default.clone()),
            identity: self.identity,
            computed: self.computed,
        }
    }

    pub(super) fn sorting(&self) -> Sorting {
        self.collation.clone().map_or(Sorting::Default, Sorting::Implicit)
    }
}

/// A bound query.
#[derive(Debug, Clone)]
pub(crate) struct BoundQuery {
    pub(crate) sql: String,
    pub(crate) columns: Vec<OutColumn>,
}

/// The variables of `SELECT @a = x, @b = y`; a list that mixes assignments and columns is error 141.
pub(super) fn assigned(query: &Query) -> Result<Vec<String>, SqlError> {
    let Body::Select(select) = &query.body else { return Ok(Vec::new()) };
    let variables: Vec<String> = select
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Assign { variable, .. } => Some(variable.to_lowercase()),
            _ => None,
        })
        .collect();
    if !variables.is_empty() && variables.len() != select.items.len() {
        let message = "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.";
        return Err(SqlError::new(141, 15, message));
    }
    Ok(variables)
}

/// Members of a UNION ALL that are put into one statement of SQLite, whose limit is 500.
const MEMBERS_AT_ONCE: usize = 400;

/// How rows are ordered and cut.
#[derive(Default, Clone, Copy)]
struct Tail<'q> {
    order: &'q [Order],
    offset: Option<&'q Expression>,
    fetch: Option<&'q Expression>,
}

impl Tail<'_> {
    fn is_empty(&self) -> bool {
        self.order.is_empty() && self.offset.is_none()
    }
}

impl Binder<'_> {
    pub(super) fn query(&mut self, query: &Query) -> Result<BoundQuery, SqlError> {
        let known = self.common.len();
        let with = self.common_tables(&query.with)?;
        let tail = Tail { order: &query.order, offset: query.offset.as_ref(), fetch: query.fetch.as_ref() };
        let bound = self.body(&query.body, tail);
        self.common.truncate(known);
        let mut bound = bound?;
        if !with.is_empty() {
            bound.sql = format!("WITH RECURSIVE {} {}", with.join(", "), bound.sql);
        }
        Ok(bound)
    }

    fn common_tables(&mut self, tables: &[CommonTable]) -> Result<Vec<String>, SqlError> {
        tables.iter().map(|table| self.common_table(table)).collect()
    }

    fn common_table(&mut self, table: &CommonTable) -> Result<String, SqlError> {
        let sql_name = format!("w{}", self.alias());
        let name = |columns: Vec<OutColumn>| -> Vec<OutColumn> {
            columns
                .into_iter()
                .enumerate()
                .map(|(at, column)| match table.columns.get(at) {
                    Some(name) => OutColumn { name: name.clone(), ..column },
                    None => column,
                })
                .collect()
        };
        let mut sql = String::new();
        let columns;
        match &table.query.body {
            Body::Set { operator: SetOperator::UnionAll, left, right } if reads(right, &table.name) => {
                let anchor = self.body(left, Tail::default())?;
                columns = name(anchor.columns);
                self.common.push(CommonTableSource {
                    name: table.name.clone(),
                    sql_name: sql_name.clone(),
                    columns: columns.clone(),
                });
                let step = self.body(right, Tail::default())?;
                let step = self.converted_query(step, &columns)?;
                sql.push_str(&format!("{} UNION ALL {step}", anchor.sql));
            }
            _ => {
                let query = self.query(&table.query)?;
                columns = name(query.columns);
                self.common.push(CommonTableSource {
                    name: table.name.clone(),
                    sql_name: sql_name.clone(),
                    columns: columns.clone(),
                });
                sql.push_str(&query.sql);
            }
        }
        let list: Vec<_> = (1..=columns.len()).map(|at| format!("q{at}")).collect();
        Ok(format!("{sql_name}({}) AS ({sql})", list.join(", ")))
    }

    /// The SQL of a query with its columns converted to others' types.
    fn converted_query(&mut self, query: BoundQuery, to: &[OutColumn]) -> Result<String, SqlError> {
        if query.columns.len() != to.len() {
            return Err(unequal_lists());
        }
        if query.columns.iter().zip(to).all(|(from, to)| kind::widens(&from.sql_type, &to.sql_type)) {
            return Ok(query.sql);
        }
        let mut list = Vec::new();
        for (at, (from, to)) in query.columns.iter().zip(to).enumerate() {
            let bound = Bound { sorting: from.sorting(), ..Bound::of(format!("q{}", at + 1), from.sql_type.clone()) };
            let bound = self.cast(bound, &to.sql_type, 0, false)?;
            list.push(format!("{} AS q{}", bound.sql, at + 1));
        }
        Ok(format!("SELECT {} FROM ({})", list.join(", "), query.sql))
    }

    fn body(&mut self, body: &Body, tail: Tail<'_>) -> Result<BoundQuery, SqlError> {
        match body {
            Body::Select(select) => self.select(select, tail),
            Body::Nested(query) => {
                let inner = self.query(query)?;
                self.finished(inner, tail)
            }
            Body::Values(rows) => {
                let inner = self.values(rows)?;
                self.finished(inner, tail)
            }
            Body::Set { operator: SetOperator::UnionAll, .. } => {
                let mut members = Vec::new();
                for member in chained(body) {
                    members.push(self.body(member, Tail::default())?);
                }
                let inner = self.union_all(members)?;
                self.finished(inner, tail)
            }
            Body::Set { operator, left, right } => {
                let left = self.body(left, Tail::default())?;
                let right = self.body(right, Tail::default())?;
                let inner = self.combined(*operator, &[left, right])?;
                self.finished(inner, tail)
            }
        }
    }

    /// Many members at once; SQLite takes no more than 500 in one.
    fn union_all(&mut self, members: Vec<BoundQuery>) -> Result<BoundQuery, SqlError> {
        if members.len() <= MEMBERS_AT_ONCE {
            return self.combined(SetOperator::UnionAll, &members);
        }
        let parts = members
            .chunks(MEMBERS_AT_ONCE)
            .map(|part| self.combined(SetOperator::UnionAll, part))
            .collect::<Result<Vec<_>, _>>()?;
        self.union_all(parts)
    }

    fn combined(&mut self, operator: SetOperator, members: &[BoundQuery]) -> Result<BoundQuery, SqlError> {
        let mut columns = members.first().map(|first| first.columns.clone()).unwrap_or_default();
        for member in members {
            if member.columns.len() != columns.len() {
                return Err(unequal_lists());
            }
            for (column, other) in columns.iter_mut().zip(&member.columns) {
                column.sql_type = kind::common(&column.sql_type, &other.sql_type);
                column.nullable |= other.nullable;
                column.identity = false;
            }
        }
        let word = match operator {
            SetOperator::Union => " UNION ",
            SetOperator::UnionAll => " UNION ALL ",
            SetOperator::Except => " EXCEPT ",
            SetOperator::Intersect => " INTERSECT ",
        };
        let members = members
            .iter()
            .map(|member| Ok(format!("SELECT * FROM ({})", self.converted_query(member.clone(), &columns)?)))
            .collect::<Result<Vec<_>, SqlError>>()?;
        Ok(BoundQuery { sql: members.join(word), columns })
    }

    fn values(&mut self, rows: &[Vec<Expression>]) -> Result<BoundQuery, SqlError> {
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            let message = "All the queries in a VALUES must have an equal number of expressions in their target lists.";
            return Err(SqlError::new(10709, 16, message));
        }
        let mut bound: Vec<Vec<Bound>> = vec![Vec::new(); width];
        for row in rows {
            for (column, expression) in bound.iter_mut().zip(row) {
                column.push(self.expression(expression)?);
            }
        }
        let mut columns = Vec::new();
        let mut typed = Vec::new();
        for column in bound {
            let (column, sql_type, sorting) = self.same_type(column)?;
            let nullable = column.iter().any(|one| one.nullable);
            columns.push(out(String::new(), sql_type, nullable, &sorting));
            typed.push(column);
        }
        let mut list = Vec::new();
        for at in 0..rows.len() {
            let row: Vec<_> = typed.iter().filter_map(|column| column.get(at)).map(|one| one.sql.as_str()).collect();
            list.push(format!("({})", row.join(", ")));
        }
        let names: Vec<_> = (1..=width).map(|at| format!("column{at} AS q{at}")).collect();
        let sql = format!("SELECT {} FROM (VALUES {})", names.join(", "), list.join(", "));
        Ok(BoundQuery { sql, columns })
    }

    /// Orders and cuts what is already a query: by the names or numbers of its columns.
    fn finished(&mut self, inner: BoundQuery, tail: Tail<'_>) -> Result<BoundQuery, SqlError> {
        if tail.is_empty() {
            return Ok(inner);
        }
        let alias = self.alias();
        let columns = inner.columns.iter().enumerate().map(|(at, column)| derived(column, &alias, at)).collect();
        self.scopes.push(vec![super::BoundSource {
            alias: String::new(),
            full: None,
            sql_alias: alias.clone(),
            columns,
            object: None,
        }]);
        let order = self.order(tail.order, &[]);
        self.scopes.pop();
        let order = order?;
        let limit = self.limit(None, tail)?;
        let sql = format!("SELECT * FROM ({}) AS {alias}{order}{limit}", inner.sql);
        Ok(BoundQuery { sql, columns: inner.columns })
    }

    fn select(&mut self, select: &Select, tail: Tail<'_>) -> Result<BoundQuery, SqlError> {
        self.scopes.push(Vec::new());
        let bound = self.select_in_scope(select, tail);
        self.scopes.pop();
        bound
    }

    fn select_in_scope(&mut self, select: &Select, tail: Tail<'_>) -> Result<BoundQuery, SqlError> {
        let from = match &select.from {
            Some(source) => format!(" FROM {}", self.source(source)?),
            None => String::new(),
        };
        let items = self.items(&select.items)?;
        let filter = match &select.filter {
            Some(filter) => format!(" WHERE {}", self.condition(filter)?),
            None => String::new(),
        };
        let mut group = Vec::new();
        for expression in &select.group {
            let bound = self.expression(expression)?;
            group.push(format!("{}{}", bound.sql, self.sorted(&bound.kind(), &bound.sorting)?));
        }
        let group = if group.is_empty() { String::new() } else { format!(" GROUP BY {}", group.join(", ")) };
        let having = match &select.having {
            Some(having) => format!(" HAVING {}", self.condition(having)?),
            None => String::new(),
        };
        let order = self.order(tail.order, &items)?;
        let limit = self.limit(select.top.as_ref(), tail)?;
        let mut list = Vec::new();
        let mut columns = Vec::new();
        for (at, (name, bound)) in items.iter().enumerate() {
            // A column carries its collation itself; anything else has to be told when rows are compared.
            let collate = if bound.column.is_none() && select.distinct {
                self.sorted(&bound.kind(), &bound.sorting)?
            } else {
                String::new()
            };
            list.push(format!("{}{collate} AS q{}", bound.sql, at + 1));
            let mut column = out(name.clone(), bound.kind(), bound.nullable, &bound.sorting);
            if let Some(source) = &bound.column {
                column.identity = source.identity;
                column.computed = source.computed;
            }
            columns.push(column);
        }
        let distinct = if select.distinct { "DISTINCT " } else { "" };
        let sql = format!("SELECT {distinct}{}{from}{filter}{group}{having}{order}{limit}", list.join(", "));
        // Where a query is cut it must not melt into the one around it.
        let sql = if limit.is_empty() && order.is_empty() || self.scopes.len() == 1 {
            sql
        } else {
            format!("SELECT * FROM ({sql})")
        };
        Ok(BoundQuery { sql, columns })
    }

    fn items(&mut self, items: &[Item]) -> Result<Vec<(String, Bound)>, SqlError> {
        let mut all = Vec::new();
        for item in items {
            match item {
                Item::Star(qualifier) => {
                    let scope = self.scopes.last().map(Vec::as_slice).unwrap_or_default();
                    let before = all.len();
                    for source in scope {
                        let named = qualifier.as_ref().is_none_or(|name| same(&source.alias, name.last()));
                        let columns = source.columns.iter().filter(|column| named && !column.hidden);
                        all.extend(columns.map(|column| (column.name.clone(), Self::bound_column(column.clone()))));
                    }
                    if all.len() == before {
                        return Err(SqlError::new(263, 16, "Must specify table to select from."));
                    }
                }
                Item::Value { expression, alias } => {
                    let bound = self.expression(expression)?;
                    let name = alias.clone().or_else(|| bound.column.as_ref().map(|column| column.name.clone()));
                    all.push((name.unwrap_or_default(), bound));
                }
                Item::Assign { variable, expression } => {
                    let to = self.variable(variable)?.sql_type.clone();
                    let bound = self.expression(expression)?;
                    all.push((String::new(), self.cast(bound, &to, 0, false)?));
                }
            }
        }
        Ok(all)
    }

    /// ORDER BY: a number or a name of the list means that column, everything else is an expression.
    fn order(&mut self, order: &[Order], items: &[(String, Bound)]) -> Result<String, SqlError> {
        let mut list = Vec::new();
        for one in order {
            let bound = match &one.expression {
                Expression::Number(number) if !items.is_empty() => {
                    let at: usize = number.parse().map_err(|_| SqlError::syntax(number, 1))?;
                    let item = at.checked_sub(1).and_then(|at| items.get(at));
                    item.map(|(_, bound)| bound.clone()).ok_or_else(|| {
                        SqlError::new(108, 15, format!("The ORDER BY position number {at} is out of range of the number of items in the select list."))
                    })?
                }
                Expression::Column(name) if name.0.len() == 1 => {
                    match items.iter().find(|(alias, _)| same(alias, name.last())) {
                        Some((_, bound)) => bound.clone(),
                        None => self.expression(&one.expression)?,
                    }
                }
                expression => self.expression(expression)?,
            };
            let collate = self.sorted(&bound.kind(), &bound.sorting)?;
            // A bare number would be a position to SQLite.
            let sql = if bound.constant.is_some() { format!("({} + 0)", "0") } else { bound.sql };
            list.push(format!("{sql}{collate}{}", if one.descending { " DESC" } else { "" }));
        }
        Ok(if list.is_empty() { String::new() } else { format!(" ORDER BY {}", list.join(", ")) })
    }

    fn limit(&mut self, top: Option<&Expression>, tail: Tail<'_>) -> Result<String, SqlError> {
        let count = |binder: &mut Self, expression: Option<&Expression>| -> Result<Option<String>, SqlError> {
            let Some(expression) = expression else { return Ok(None) };
            let bound = binder.expression(expression)?;
            if let Some(Value::Int(number)) = bound.constant
                && number < 0
            {
                return Err(SqlError::new(
                    1060,
                    15,
                    "The number of rows provided for a TOP or FETCH clauses row count parameter must be a positive integer.",
                ));
            }
            binder.cast(bound, &SqlType::BigInt, 0, false).map(|bound| Some(bound.sql))
        };
        let top = count(self, top)?;
        let offset = count(self, tail.offset)?;
        let fetch = count(self, tail.fetch)?;
        Ok(match (top.or(fetch), offset) {
            (None, None) => String::new(),
            (Some(limit), None) => format!(" LIMIT {limit}"),
            (limit, Some(offset)) => format!(" LIMIT {} OFFSET {offset}", limit.as_deref().unwrap_or("-1")),
        })
    }
}

fn unequal_lists() -> SqlError {
    let message = "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of \
                   expressions in their target lists.";
    SqlError::new(205, 16, message)
}

/// The members of `a UNION ALL b UNION ALL c`, so that long chains do not nest.
fn chained(body: &Body) -> Vec<&Body> {
    let mut members = Vec::new();
    let mut rest = body;
    while let Body::Set { operator: SetOperator::UnionAll, left, right } = rest {
        members.push(right.as_ref());
        rest = left;
    }
    members.push(rest);
    members.reverse();
    members
}

/// How a column of a query looks to the query around it.
pub(super) fn derived(column: &OutColumn, alias: &str, at: usize) -> SourceColumn {
    SourceColumn {
        name: column.name.clone(),
        sql: format!("{alias}.q{}", at + 1),
        sql_type: column.sql_type.clone(),
        nullable: column.nullable,
        collation: column.collation.clone().unwrap_or_default(),
        identity: column.identity,
        computed: column.computed,
        hidden: false,
    }
}

fn out(name: String, sql_type: SqlType, nullable: bool, sorting: &Sorting) -> OutColumn {
    let collation = match sorting {
        Sorting::Implicit(collation) | Sorting::Explicit(collation) => Some(collation.clone()),
        Sorting::Default | Sorting::Conflict => None,
    };
    OutColumn { name, sql_type, nullable, collation, identity: false, computed: false }
}

/// Whether a body reads a table of that name: a common table that reads itself is a recursive one.
fn reads(body: &Body, name: &str) -> bool {
    use crate::engine::ast::Source;
    fn source_reads(source: &Source, name: &str) -> bool {
        match source {
            Source::Named { name: table, .. } => table.0.len() == 1 && same(table.last(), name),
            Source::Join { left, right, .. } => source_reads(left, name) || source_reads(right, name),
            Source::Derived { query, .. } => reads(&query.body, name),
            _ => false,
        }
    }
    match body {
        Body::Select(select) => select.from.as_ref().is_some_and(|source| source_reads(source, name)),
        Body::Set { left, right, .. } => reads(left, name) || reads(right, name),
        Body::Nested(query) => reads(&query.body, name),
        Body::Values(_) => false,
    }
}
