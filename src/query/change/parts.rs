//! Pieces of syntax trees that statements are made from.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement as ParsedStatement};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr,
    Statement, TableAlias, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::error::ErrorKind;
use crate::lake::{FILE_COLUMN, ROW_COLUMN};
use crate::query::QueryError;
use crate::query::catalog::CATALOG;
use crate::query::change::{ASSIGNED, BOUND, Named, TARGET};
use crate::query::dialect::LakeDialect;
use crate::query::rewrite::number;

/// Digits from which a whole number may be too large for 64 bits.
const MANY_DIGITS: usize = 19;

/// Most digits a decimal can hold.
const MOST_DIGITS: usize = 38;

/// A name as the planner would look it up: parts in lower case unless they are quoted.
///
/// # Errors
/// When another catalog is named, or a version.
pub(crate) fn named(name: &ObjectName) -> Result<Named, QueryError> {
    let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(plain).collect();
    if parts.iter().any(|part| part.contains('@')) {
        return Err(QueryError::unsupported(
            "an older version or a sample of a table cannot be changed; leave VERSION AS OF and TABLESAMPLE out",
        ));
    }
    match parts.as_slice() {
        [table] => Ok(Named { schema: None, table: table.clone() }),
        [schema, table] => Ok(Named { schema: Some(schema.clone()), table: table.clone() }),
        [catalog, schema, table] if catalog == CATALOG => {
            Ok(Named { schema: Some(schema.clone()), table: table.clone() })
        }
        _ => Err(QueryError::new(
            ErrorKind::NotFound,
            format!("`{name}` names no table; write schema.table, the catalog is `{CATALOG}`"),
        )),
    }
}

/// An identifier as the planner takes it.
pub(crate) fn plain(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// An identifier that is taken as it is.
fn quoted(name: impl Into<String>) -> Ident {
    Ident::with_quote('"', name)
}

/// What finds the rows of the target that `selection` picks, under the name they are called by in the statement; with
/// what is `assigned` to them. In order of their places.
pub(crate) fn find(alias: Ident, selection: Option<Expr>, assigned: Vec<Expr>) -> Result<Query, QueryError> {
    // What is deleted is found without its values.
    let columns = if assigned.is_empty() { format!("\"{FILE_COLUMN}\", \"{ROW_COLUMN}\"") } else { "*".to_owned() };
    let order = format!("\"{FILE_COLUMN}\", \"{ROW_COLUMN}\"");
    let mut query = query(&format!("select {columns} from \"{TARGET}\" as a order by {order}"))?;
    let select = select_of(&mut query)?;
    select.selection = selection;
    for (number, expr) in assigned.into_iter().enumerate() {
        select.projection.push(SelectItem::ExprWithAlias { expr, alias: quoted(format!("{ASSIGNED}{number}")) });
    }
    for table in &mut select.from {
        if let TableFactor::Table { alias: given, .. } = &mut table.relation {
            *given = Some(TableAlias { explicit: true, name: alias.clone(), columns: Vec::new(), at: None });
        }
    }
    Ok(query)
}

/// One row of values over the table of what is bound to their parameters; none where a row of values needs more than
/// that.
pub(crate) fn over_bound(row: &[Expr]) -> Result<Option<Query>, QueryError> {
    let mut row = row.to_vec();
    if Visit::visit(&row, &mut Subqueries).is_break() {
        return Ok(None);
    }
    let _: ControlFlow<()> = VisitMut::visit(&mut row, &mut AsColumns);
    let mut query = query(&format!("select 1 from \"{BOUND}\""))?;
    let items = row.into_iter().enumerate();
    let items =
        items.map(|(number, expr)| SelectItem::ExprWithAlias { expr, alias: quoted(format!("{ASSIGNED}{number}")) });
    select_of(&mut query)?.projection = items.collect();
    Ok(Some(query))
}

/// The number of a parameter that stands alone.
pub(crate) fn lone_parameter(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse().ok()
}

/// Numbers that are written out, and whose type would be a double, as decimals with their own digits: what is written is
/// what a decimal column gets.
pub(crate) fn exactly(expr: &mut Expr) {
    let Some(text) = number(expr) else { return };
    let unsigned = text.trim_start_matches('-');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_plain = unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let digits = whole.len() + fraction.len();
    if !is_plain || digits > MOST_DIGITS || (!unsigned.contains('.') && digits < MANY_DIGITS) {
        return;
    }
    let scale = i64::try_from(fraction.len()).unwrap_or(0);
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::SingleQuotedString(text))),
        data_type: DataType::Decimal(ExactNumberInfo::PrecisionAndScale(digits.max(1) as u64, scale)),
        array: false,
        format: None,
    };
}

/// A query of ours.
fn query(sql: &str) -> Result<Query, QueryError> {
    let statements = DFParserBuilder::new(sql).with_dialect(&LakeDialect).build()?.parse_statements()?;
    match statements.into_iter().next() {
        Some(ParsedStatement::Statement(statement)) => match *statement {
            Statement::Query(query) => Ok(*query),
            _ => Err(own()),
        },
        _ => Err(own()),
    }
}

fn select_of(query: &mut Query) -> Result<&mut Select, QueryError> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Ok(select),
        _ => Err(own()),
    }
}

fn own() -> QueryError {
    QueryError::new(ErrorKind::Internal, "a statement of lakegate's own is no query")
}

/// Breaks at a query within an expression.
struct Subqueries;

impl Visitor for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// Makes parameters the columns of that name.
struct AsColumns;

impl VisitorMut for AsColumns {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(number) = lone_parameter(expr) {
            *expr = Expr::Identifier(quoted(format!("${number}")));
        }
        ControlFlow::Continue(())
    }
}
