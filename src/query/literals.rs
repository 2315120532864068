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
use datafusion::logical_expr::binary::BinaryTypeCoercer;
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
    // Of what was settled and is not yet below something that was.
    let mut known: Vec<Known> = Vec::new();
    let settled = expr.transform_up(|e| {
        let mut count = 0;
        e.apply_children(|_| {
            count += 1;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let below = known.split_off(known.len().saturating_sub(count));
        let (settled, own) = settle_children(e, below, schema)?;
        known.push(own);
        Ok(Transformed::yes(settled))
    })?;
    let is_open = known.pop().is_some_and(|own| own.is_open);
    if is_open { as_double(settled.data) } else { Ok(settled.data) }
}

/// What is known of an expression once what is below it was settled. A sum may be thousands of operators deep, so it is worked out
/// from the same of what is below.
struct Known {
    /// Whether the type is still open: literals with a point, and what is computed from them alone.
    is_open: bool,
    /// The type; none where nothing tells it, such as for parameters.
    kind: Option<DataType>,
}

/// Whether the type of an expression is open, by what is known of what is below it.
fn is_open(expr: &Expr, below: &[Known]) -> bool {
    match (expr, below) {
        (Expr::Literal(ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..), _), _) => true,
        (Expr::Negative(_), [inner]) => inner.is_open,
        // Written casts of numbers were made casts of texts by `rewrite`: this one is the planner's, which
        // brings the rows of VALUES and the sides of UNION to one type.
        (Expr::Cast(Cast { field, .. }), [inner]) => field.data_type().is_decimal() && inner.is_open,
        (Expr::BinaryExpr(BinaryExpr { left, op, right }), [of_left, of_right]) if is_arithmetic(*op) => {
            let is_literal = |side: &Expr| matches!(side, Expr::Literal(..));
            (of_right.is_open || is_literal(right)) && (of_left.is_open || of_right.is_open && is_literal(left))
        }
        _ => false,
    }
}

/// The type of an expression, by what is known of what is below it.
fn kind_of(expr: &Expr, below: &[Known], schema: &DFSchema) -> Option<DataType> {
    match (expr, below) {
        (Expr::BinaryExpr(BinaryExpr { op, .. }), [left, right]) => {
            BinaryTypeCoercer::new(left.kind.as_ref()?, op, right.kind.as_ref()?).get_result_type().ok()
        }
        (Expr::Negative(_), [inner]) => inner.kind.clone(),
        _ => expr.get_type(schema).ok(),
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

fn settle_children(expr: Expr, mut below: Vec<Known>, schema: &DFSchema) -> Result<(Expr, Known)> {
    let expr = align_times(expr, &mut below)?;
    let is_open = is_open(&expr, &below);
    if is_open || !below.iter().any(|child| child.is_open) {
        let kind = kind_of(&expr, &below, schema);
        return Ok((expr, Known { is_open, kind }));
    }
    let stays = match &expr {
        Expr::Cast(_) | Expr::TryCast(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) if is_arithmetic(*op) => beside_decimal(&below),
        Expr::BinaryExpr(_) | Expr::Between(_) | Expr::InList(_) => !beside_float(&below),
        Expr::Case(_) | Expr::WindowFunction(_) => beside_decimal(&below),
        Expr::ScalarFunction(function) => {
            let name = function.name();
            (HANDING_ON.contains(&name) || name.starts_with("array_")) && beside_decimal(&below)
        }
        _ => false,
    };
    let expr = if stays { expr } else { double_open(expr, &mut below)? };
    let kind = kind_of(&expr, &below, schema);
    Ok((expr, Known { is_open: false, kind }))
}

/// Makes doubles of what is open right below an expression.
fn double_open(expr: Expr, below: &mut [Known]) -> Result<Expr> {
    let mut known = below.iter_mut();
    let doubled = expr.map_children(|child| {
        let Some(own) = known.next().filter(|own| own.is_open) else { return Ok(Transformed::no(child)) };
        *own = Known { is_open: false, kind: Some(DataType::Float64) };
        as_double(child).map(Transformed::yes)
    })?;
    Ok(doubled.data)
}

/// Compares times in microseconds, which is what the lake's columns hold: texts and nanoseconds would make the
/// engine cast the column to nanoseconds, which fails for years after 2262, such as 9999 for "never".
fn align_times(expr: Expr, below: &mut [Known]) -> Result<Expr> {
    let compares = match &expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => is_comparison(*op),
        Expr::Between(_) | Expr::InList(_) => true,
        _ => false,
    };
    let is_column = |kind: &&DataType| matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, _));
    let column = below.iter().filter_map(|child| child.kind.as_ref()).find(is_column).cloned();
    let Some(column) = column.filter(|_| compares) else { return Ok(expr) };
    let mut known = below.iter_mut();
    let aligned = expr.map_children(|child| {
        let Some(own) = known.next() else { return Ok(Transformed::no(child)) };
        let (child, kind) = match (own.kind.take(), child) {
            (Some(DataType::Timestamp(TimeUnit::Nanosecond, zone)), child) => {
                let kind = DataType::Timestamp(TimeUnit::Microsecond, zone);
                (cast(child, kind.clone()), Some(kind))
            }
            (Some(DataType::Utf8), Expr::Literal(text, metadata)) => {
                let time = text.cast_to(&column).unwrap_or(text);
                let kind = time.data_type();
                (Expr::Literal(time, metadata), Some(kind))
            }
            (kind, child) => (child, kind),
        };
        own.kind = kind;
        Ok(Transformed::yes(child))
    })?;
    Ok(aligned.data)
}

fn beside_decimal(below: &[Known]) -> bool {
    any_settled(below, |kind| holds(kind, &|k| k.is_decimal()))
}

fn beside_float(below: &[Known]) -> bool {
    any_settled(below, |kind| holds(kind, &|k| k.is_floating()))
}

/// Whether a type of what is settled is of a kind. What has no type, such as a parameter, decides nothing.
fn any_settled(below: &[Known], wanted: impl Fn(&DataType) -> bool) -> bool {
    below.iter().any(|child| !child.is_open && child.kind.as_ref().is_some_and(&wanted))
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    /// Operators of a chain, five times as many as a statement may have.
    const LONG: usize = 10_000;

    fn schema() -> DFSchema {
        let fields = vec![
            Field::new("money", DataType::Decimal128(19, 4), true),
            Field::new("number", DataType::Float64, true),
            Field::new("moment", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ];
        DFSchema::try_from(Schema::new(fields)).unwrap()
    }

    fn half() -> Expr {
        Expr::Literal(ScalarValue::Decimal128(Some(15), 2, 1), None)
    }

    fn kind(expr: Expr) -> DataType {
        settle_expression(expr, &schema()).unwrap().get_type(&schema()).unwrap()
    }

    #[test]
    fn literals_are_what_stands_beside_them() {
        assert_eq!(kind(half()), DataType::Float64);
        assert_eq!(kind(half() + half() * lit(2_i64)), DataType::Float64);
        assert_eq!(kind(col("number") + half() + half()), DataType::Float64);
        assert!(kind(col("money") + half()).is_decimal());
        assert!(kind(col("money") + (half() - half())).is_decimal());
        // Once it is a double, what comes later is one too.
        assert_eq!(kind(col("number") + half() + col("money")), DataType::Float64);
        let settled = settle_expression(col("money").gt(half()), &schema()).unwrap();
        assert_eq!(settled, col("money").gt(half()));
        let settled = settle_expression(col("number").gt(half()), &schema()).unwrap();
        assert_eq!(settled, col("number").gt(lit(1.5)));
        let settled = settle_expression(col("moment").eq(lit("2020-01-01")), &schema()).unwrap();
        let time = ScalarValue::TimestampMicrosecond(Some(1_577_836_800_000_000), None);
        assert_eq!(settled, col("moment").eq(Expr::Literal(time, None)));
    }

    #[test]
    fn long_chains_are_settled_in_a_time_that_grows_as_they_do() {
        // Only a large stack takes such an expression apart.
        let thread = std::thread::Builder::new().stack_size(256 << 20);
        let settling = thread.spawn(|| {
            let begun = Instant::now();
            for first in [half(), col("money"), col("number")] {
                let chain = (0..LONG).fold(first, |sum, _| sum + half());
                settle_expression(chain, &schema()).unwrap();
            }
            begun.elapsed()
        });
        let took = settling.unwrap().join().unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}: a walk down at each operator takes much longer");
    }
}
