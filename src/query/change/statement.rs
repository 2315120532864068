//! From the syntax tree to what is to be changed. The nodes are taken apart field by field, so that no clause is passed
//! over: what is not done is refused by name.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    AlterTable, AlterTableOperation, AssignmentTarget, ColumnDef, ColumnOption, CreateTable, Delete, Expr, FromTable,
    Ident, IndexColumn, ObjectNamePart, ObjectType, PrimaryKeyConstraint, Query, SelectItem, SetExpr, Statement,
    TableConstraint, TableFactor, TableObject, TableWithJoins, Value,
};

use crate::config::REFUSED_IN_NAMES;
use crate::query::QueryError;
use crate::query::change::columns::column_type;
use crate::query::change::parts::{exactly, find, lone_parameter, named, over_bound, plain};
use crate::query::change::{ASSIGNED, Action, Change, Create, Existing, Find, Insert, Named, Update};

/// Whether a statement changes tables in a way that is known.
pub(crate) fn changes(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::CreateTable(_)
        | Statement::AlterTable(_) => true,
        Statement::Drop { object_type, .. } => *object_type == ObjectType::Table,
        _ => false,
    }
}

/// What has to be done before numbers are read as queries read them: those of VALUES stay what they are.
pub(crate) fn prepare(statement: &mut Statement) {
    if let Statement::Insert(insert) = statement
        && let Some(query) = &mut insert.source
        && let SetExpr::Values(values) = query.body.as_mut()
    {
        values.rows.iter_mut().flat_map(|row| &mut row.content).for_each(exactly);
    }
    if let Statement::Update(update) = statement {
        update.assignments.iter_mut().for_each(|assignment| exactly(&mut assignment.value));
    }
}

/// What a statement changes.
///
/// # Errors
/// Kind `Unsupported` for clauses that are not done.
pub(crate) fn change(statement: Statement) -> Result<Change, QueryError> {
    match statement {
        Statement::Insert(insert) => insert_into(insert),
        Statement::Update(update) => update_of(update),
        Statement::Delete(delete) => delete_from(delete),
        Statement::CreateTable(create) => create_table(create),
        Statement::AlterTable(alter) => alter_table(alter),
        Statement::Drop { object_type: _, if_exists, names, cascade, restrict: _, purge, temporary, table } => {
            refuse(cascade, "DROP TABLE … CASCADE", "leave it out: nothing hangs on a table")?;
            refuse(purge || temporary || table.is_some(), "this form of DROP TABLE", "write DROP TABLE t")?;
            match names.as_slice() {
                [name] => Ok(Change { target: named(name)?, action: Action::Drop { if_exists } }),
                _ => Err(QueryError::unsupported("DROP TABLE drops one table; drop them one by one")),
            }
        }
        other => Err(QueryError::unsupported(format!("`{other}` changes nothing that is known"))),
    }
}

fn refuse(there: bool, clause: &str, instead: &str) -> Result<(), QueryError> {
    if there { Err(QueryError::unsupported(format!("{clause} is not supported; {instead}"))) } else { Ok(()) }
}

const NOTHING_RETURNED: &str = "only the number of rows comes back: query them afterwards";

fn insert_into(insert: datafusion::sql::sqlparser::ast::Insert) -> Result<Change, QueryError> {
    let datafusion::sql::sqlparser::ast::Insert {
        insert_token: _,
        optimizer_hints,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    let plain_insert = "write INSERT INTO t (columns) SELECT … or VALUES …";
    refuse(on.is_some(), "INSERT … ON CONFLICT", "delete or update the rows that are there first")?;
    refuse(returning.is_some() || output.is_some(), "INSERT … RETURNING", NOTHING_RETURNED)?;
    refuse(overwrite, "INSERT OVERWRITE", "write CREATE OR REPLACE TABLE t AS SELECT …, or DELETE first")?;
    refuse(replace_into || or.is_some() || ignore, "INSERT OR REPLACE, OR IGNORE and the like", plain_insert)?;
    refuse(!assignments.is_empty(), "INSERT … SET", plain_insert)?;
    refuse(partitioned.is_some() || !after_columns.is_empty(), "PARTITION in INSERT", plain_insert)?;
    refuse(
        !optimizer_hints.is_empty()
            || priority.is_some()
            || insert_alias.is_some()
            || table_alias.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || multi_table_insert_type.is_some()
            || !multi_table_into_clauses.is_empty()
            || !multi_table_when_clauses.is_empty()
            || multi_table_else_clause.is_some(),
        "this form of INSERT",
        plain_insert,
    )?;
    let TableObject::TableName(name) = table else {
        return Err(QueryError::unsupported("INSERT into a function or query is not supported; name a table"));
    };
    let Some(mut rows) = source else {
        return Err(QueryError::unsupported("INSERT … DEFAULT VALUES is not supported; write the values"));
    };
    name_values(&mut rows);
    let columns = columns.iter().map(|column| match column.0.as_slice() {
        [part] => part.as_ident().map(plain).ok_or_else(|| not_a_column(&column.to_string())),
        _ => Err(not_a_column(&column.to_string())),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let (mut hints, mut bound) = (Vec::new(), Vec::new());
    if let SetExpr::Values(values) = rows.body.as_ref() {
        for row in &values.rows {
            let lone = row.content.iter().enumerate().filter_map(|(at, expr)| Some((lone_parameter(expr)?, at)));
            hints.extend(lone);
        }
        let rows = values.rows.iter().map(|row| over_bound(&row.content));
        bound = rows.collect::<Result<Option<Vec<_>>, _>>()?.unwrap_or_default();
    }
    Ok(Change { target: named(&name)?, action: Action::Insert(Insert { columns, rows, bound, hints }) })
}

/// Names what a SELECT computes: the planner takes no two columns of one name, and here names mean nothing.
fn name_values(rows: &mut Query) {
    let SetExpr::Select(select) = rows.body.as_mut() else { return };
    for (number, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        let expr = std::mem::replace(expr, Expr::value(Value::Null));
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("{ASSIGNED}{number}")) };
    }
}

fn not_a_column(name: &str) -> QueryError {
    QueryError::invalid(format!("`{name}` is no column of the table; write its name alone"))
}

/// The one table a statement is about, and what it calls it.
fn one_table(table: &TableWithJoins, words: &str) -> Result<(Named, Ident), QueryError> {
    refuse(!table.joins.is_empty(), &format!("JOIN in {words}"), "use a subquery in WHERE")?;
    let TableFactor::Table { name, alias, args, .. } = &table.relation else {
        return Err(QueryError::unsupported(format!("{words} of a query is not supported; name a table")));
    };
    refuse(args.is_some(), &format!("{words} of a function"), "name a table")?;
    let own = name.0.last().and_then(ObjectNamePart::as_ident).cloned();
    let called = alias.as_ref().map(|alias| alias.name.clone()).or(own).unwrap_or_else(|| Ident::new("t"));
    Ok((named(name)?, called))
}

fn delete_from(delete: Delete) -> Result<Change, QueryError> {
    let Delete { delete_token: _, optimizer_hints, tables, from, using, selection, returning, output, order_by, limit } =
        delete;
    refuse(using.is_some() || !tables.is_empty(), "DELETE … USING or of several tables", "use a subquery in WHERE")?;
    refuse(returning.is_some() || output.is_some(), "DELETE … RETURNING", NOTHING_RETURNED)?;
    refuse(!order_by.is_empty() || limit.is_some(), "ORDER BY or LIMIT in DELETE", "use a subquery in WHERE")?;
    refuse(!optimizer_hints.is_empty(), "an optimizer hint", "leave it out")?;
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    let [table] = tables.as_slice() else {
        return Err(QueryError::unsupported("DELETE deletes from one table"));
    };
    let (target, called) = one_table(table, "DELETE")?;
    let all = selection.is_none();
    let rows = Box::new(find(called, selection, Vec::new())?);
    Ok(Change { target, action: Action::Delete(Find { rows, all }) })
}

fn update_of(update: datafusion::sql::sqlparser::ast::Update) -> Result<Change, QueryError> {
    let datafusion::sql::sqlparser::ast::Update {
        update_token: _,
        optimizer_hints,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    refuse(from.is_some(), "UPDATE … FROM", "use a subquery: SET a = (SELECT … WHERE …)")?;
    refuse(returning.is_some() || output.is_some(), "UPDATE … RETURNING", NOTHING_RETURNED)?;
    refuse(or.is_some(), "UPDATE OR …", "leave OR out")?;
    refuse(!order_by.is_empty() || limit.is_some(), "ORDER BY or LIMIT in UPDATE", "use a subquery in WHERE")?;
    refuse(!optimizer_hints.is_empty(), "an optimizer hint", "leave it out")?;
    let (target, called) = one_table(&table, "UPDATE")?;
    let (mut columns, mut values, mut hints) = (Vec::new(), Vec::new(), Vec::new());
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = assignment.target else {
            return Err(QueryError::unsupported("SET (a, b) = … is not supported; assign each column on its own"));
        };
        let column = name.0.last().and_then(ObjectNamePart::as_ident).map(plain);
        let column = column.filter(|_| name.0.len() <= 2).ok_or_else(|| not_a_column(&name.to_string()))?;
        if columns.contains(&column) {
            return Err(QueryError::invalid(format!("UPDATE assigns to `{column}` twice")));
        }
        hints.extend(lone_parameter(&assignment.value).map(|number| (number, column.clone())));
        columns.push(column);
        values.push(assignment.value);
    }
    let rows = Box::new(find(called, selection, values)?);
    Ok(Change { target, action: Action::Update(Update { rows, columns, hints }) })
}

fn create_table(create: CreateTable) -> Result<Change, QueryError> {
    let again = CreateTableBuilder::new(create.name.clone())
        .or_replace(create.or_replace)
        .if_not_exists(create.if_not_exists)
        .columns(create.columns.clone())
        .constraints(create.constraints.clone())
        .query(create.query.clone())
        .build();
    refuse(create.temporary, "CREATE TEMPORARY TABLE", "make a table in the schema results, and drop it afterwards")?;
    if create != again {
        return Err(QueryError::unsupported(
            "this form of CREATE TABLE is not supported; write CREATE [OR REPLACE] TABLE [IF NOT EXISTS] t (columns, \
             PRIMARY KEY (…)), or CREATE TABLE t AS SELECT …",
        ));
    }
    let existing = match (create.or_replace, create.if_not_exists) {
        (true, true) => return Err(QueryError::invalid("write OR REPLACE or IF NOT EXISTS, not both")),
        (true, false) => Existing::Replace,
        (false, true) => Existing::Keep,
        (false, false) => Existing::Fail,
    };
    let mut key = Vec::new();
    let mut columns = Vec::new();
    for column in &create.columns {
        let (field, is_key) = column_of(column)?;
        if is_key {
            key.push(field.name().clone());
        }
        columns.push(field);
    }
    for constraint in &create.constraints {
        let TableConstraint::PrimaryKey(constraint) = constraint else {
            return Err(QueryError::unsupported(format!(
                "the constraint `{constraint}` would not be kept to; leave it out"
            )));
        };
        if !key.is_empty() {
            return Err(QueryError::invalid("a table has one PRIMARY KEY; name all its columns in it"));
        }
        key = key_columns(constraint)?;
    }
    if columns.is_empty() && create.query.is_none() {
        return Err(QueryError::invalid("the table has no columns; write CREATE TABLE t (a INT, …) or … AS SELECT …"));
    }
    let action = Action::Create(Create { columns, key, rows: create.query, existing });
    Ok(Change { target: named(&create.name)?, action })
}

fn key_columns(constraint: &PrimaryKeyConstraint) -> Result<Vec<String>, QueryError> {
    let PrimaryKeyConstraint { name: _, index_name, index_type, columns, index_options, characteristics } = constraint;
    let more = index_name.is_some() || index_type.is_some() || !index_options.is_empty() || characteristics.is_some();
    refuse(more, "this form of PRIMARY KEY", "write PRIMARY KEY (columns)")?;
    let column = |IndexColumn { column, operator_class }: &IndexColumn| match &column.expr {
        Expr::Identifier(name)
            if operator_class.is_none() && column.options.asc.is_none() && column.options.nulls_first.is_none() =>
        {
            Ok(plain(name))
        }
        other => Err(QueryError::unsupported(format!("`{other}` cannot be part of a PRIMARY KEY; name a column"))),
    };
    columns.iter().map(column).collect()
}

/// A declared column, and whether it is the key.
fn column_of(column: &ColumnDef) -> Result<(FieldRef, bool), QueryError> {
    let (mut nullable, mut is_key) = (true, false);
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => nullable = true,
            ColumnOption::NotNull => nullable = false,
            ColumnOption::PrimaryKey(_) => is_key = true,
            other => {
                return Err(QueryError::unsupported(format!(
                    "`{other}` of column `{}` is not supported; a column has a name, a type and NOT NULL",
                    column.name
                )));
            }
        }
    }
    let name = plain(&column.name);
    check_name(&name)?;
    let kind = column_type(&column.data_type)?;
    Ok((Arc::new(Field::new(name, kind.to_arrow(), nullable && !is_key)), is_key))
}

/// Checks that a column may be called so.
///
/// # Errors
/// When other readers of Delta tables would refuse the name.
pub(crate) fn check_name(name: &str) -> Result<(), QueryError> {
    if name.is_empty() || name.contains(REFUSED_IN_NAMES) {
        return Err(QueryError::invalid(format!(
            "a column cannot be called `{name}`: names have no spaces and none of ,;{{}}()=; call it otherwise, such as \
             with AS"
        )));
    }
    Ok(())
}

fn alter_table(alter: AlterTable) -> Result<Change, QueryError> {
    let AlterTable { name, if_exists, only, operations, location, on_cluster, table_type, end_token: _ } = alter;
    let more = if_exists || only || location.is_some() || on_cluster.is_some() || table_type.is_some();
    refuse(more, "this form of ALTER TABLE", "write ALTER TABLE t ADD COLUMN c INT")?;
    let (mut columns, mut quietly) = (Vec::new(), false);
    for operation in &operations {
        let AlterTableOperation::AddColumn { column_keyword: _, if_not_exists, column_def, column_position: None } =
            operation
        else {
            return Err(QueryError::unsupported(format!(
                "ALTER TABLE … {operation} is not supported; columns can be added: ADD COLUMN c INT"
            )));
        };
        quietly |= *if_not_exists;
        let (field, is_key) = column_of(column_def)?;
        if is_key || !field.is_nullable() {
            return Err(QueryError::unsupported(format!(
                "column `{}` would have no value in the rows that are there: add it without NOT NULL and PRIMARY KEY",
                field.name()
            )));
        }
        columns.push(field);
    }
    Ok(Change { target: named(&name)?, action: Action::AddColumns { columns, if_not_exists: quietly } })
}
