//! What a literal means by what stands beside it. `1.5` is the exact decimal beside decimals and whole
//! numbers, a double everywhere else; times are compared in microseconds.
//!
//! The planner is told to read such literals as decimals, for as doubles they miss the very values a
//! decimal column holds (`m = 9999999999.99` finds nothing). Left at that, `double_column = 1.0` would
//! cast the column, which fails on NaN, and `select 1.5` would hand decimals to people who count in
//! doubles. So the literals are settled by what stands beside them, before values are bound to
//! parameters: a bound decimal is no literal.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::cast;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator};

use crate::query::naming::keep_names;

/// Functions that hand one of their arguments on: a literal takes its neighbours' type.
const HANDING_ON: &[&str] = &["coalesce", "greatest", "ifnull", "least", "make_array", "nullif", "nvl", "nvl2"];

/// Settles the literals of a plan. Plans with recursive queries are left as they are: the working
/// table's types were fixed when they were planned.
pub(crate) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.exists(|node| Ok(matches!(node, LogicalPlan::RecursiveQuery(_))))? {
        return Ok(plan);
    }
    Ok(plan.transform_up_with_subqueries(settle_node)?.data)
}

/// The same for one expression over a table's columns.
pub(crate) fn settle_expression(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    settle_whole(expr, schema)
}

fn settle_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Values(values) = plan {
        let schema = DFSchema::empty();
        let rows = values.values.into_iter().map(|row| row.into_iter().map(|e| settle_whole(e, &schema)).collect());
        let rows = rows.collect::<Result<Vec<Vec<_>>>>()?;
        return LogicalPlanBuilder::values(rows)?.build().map(Transformed::yes);
    }
    let schema = merge_schema(&plan.inputs());
    let settled = keep_names(plan, |expr| {
        if expr.exists(|inner| Ok(may_be_settled(inner)))? {
            settle_whole(expr, &schema).map(Transformed::yes)
        } else {
            Ok(Transformed::no(expr))
        }
    })?;
    // What is below may have got other types.
    settled.data.recompute_schema().map(Transformed::yes)
}

/// Whether an expression is a literal whose type may be open, or compares what may be times.
fn may_be_settled(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..), _) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => is_comparison(*op),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    }
}

/// An expression nothing stands beside.
fn settle_whole(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let settled = expr.transform_up(|e| settle_children(e, schema))?.data;
    if is_open(&settled) { as_double(settled) } else { Ok(settled) }
}

/// Whether the type is still open: literals with a point, and what is computed from them alone.
fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..), _) => true,
        Expr::Negative(inner) => is_open(inner),
        // Written casts of numbers were made casts of texts by `rewrite`: this one is the planner's, which
        // brings the rows of VALUES and the sides of UNION to one type.
        Expr::Cast(Cast { expr, field }) => field.data_type().is_decimal() && is_open(expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) => {
            // Each side is looked at once: a sum may be thousands of operators deep.
            let is_literal = |side: &Expr| matches!(side, Expr::Literal(..));
            let right_open = is_open(right);
            if !right_open && !is_literal(right) {
                return false;
            }
            let left_open = is_open(left);
            left_open || right_open && is_literal(left)
        }
        _ => false,
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

fn as_double(expr: Expr) -> Result<Expr> {
    let doubled = expr.transform_up(|e| match e {
        Expr::Literal(value @ (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..)), metadata) => {
            Ok(Transformed::yes(Expr::Literal(value.cast_to(&DataType::Float64)?, metadata)))
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() => Ok(Transformed::yes(*expr)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(doubled.data)
}

fn settle_children(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let expr = align_times(expr, schema)?;
    if !has_open_child(&expr)? || is_open(&expr) {
        return Ok(Transformed::no(expr));
    }
    let stays = match &expr {
        Expr::Cast(_) | Expr::TryCast(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) if is_arithmetic(*op) => beside_decimal(&expr, schema)?,
        Expr::BinaryExpr(_) | Expr::Between(_) | Expr::InList(_) => !beside_float(&expr, schema)?,
        Expr::Case(_) | Expr::WindowFunction(_) => beside_decimal(&expr, schema)?,
        Expr::ScalarFunction(function) => {
            let name = function.name();
            (HANDING_ON.contains(&name) || name.starts_with("array_")) && beside_decimal(&expr, schema)?
        }
        _ => false,
    };
    if stays {
        return Ok(Transformed::no(expr));
    }
    expr.map_children(|child| Ok(Transformed::yes(if is_open(&child) { as_double(child)? } else { child })))
}

/// Compares times in microseconds, which is what the lake's columns hold: texts and nanoseconds would make the
/// engine cast the column to nanoseconds, which fails for years after 2262, such as 9999 for "never".
fn align_times(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let compares = match &expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => is_comparison(*op),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    };
    if !compares {
        return Ok(expr);
    }
    let mut column = None;
    expr.apply_children(|child| {
        if let Ok(kind @ DataType::Timestamp(TimeUnit::Microsecond, _)) = child.get_type(schema) {
            column.get_or_insert(kind);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let Some(column) = column else { return Ok(expr) };
    let aligned = expr.map_children(|child| {
        Ok(Transformed::yes(match child.get_type(schema) {
            Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone)) => {
                cast(child, DataType::Timestamp(TimeUnit::Microsecond, zone))
            }
            Ok(DataType::Utf8) => match child {
                Expr::Literal(text, metadata) => {
                    let time = text.cast_to(&column).unwrap_or(text);
                    Expr::Literal(time, metadata)
                }
                other => other,
            },
            _ => child,
        }))
    })?;
    Ok(aligned.data)
}

fn has_open_child(expr: &Expr) -> Result<bool> {
    let mut found = false;
    expr.apply_children(|child| {
        found |= is_open(child);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn beside_decimal(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    any_settled_child(expr, schema, |kind| holds(kind, &|k| k.is_decimal()))
}

fn beside_float(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    any_settled_child(expr, schema, |kind| holds(kind, &|k| k.is_floating()))
}

fn any_settled_child(expr: &Expr, schema: &DFSchema, wanted: impl Fn(&DataType) -> bool) -> Result<bool> {
    let mut found = false;
    expr.apply_children(|child| {
        if !is_open(child) {
            // A child without a type, such as a parameter, decides nothing.
            found |= child.get_type(schema).is_ok_and(|kind| wanted(&kind));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether a type, or the items of a list, are of a kind.
fn holds(kind: &DataType, wanted: &dyn Fn(&DataType) -> bool) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds(item.data_type(), wanted)
        }
        plain => wanted(plain),
    }
}
