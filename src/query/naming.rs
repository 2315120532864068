//! What a node of a plan gives keeps its names when its expressions become others: nodes above know it by them.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The aggregate that tells what a row is grouped by. What it is asked for is looked up among what is grouped by.
const GROUPING: &str = "grouping";

/// Rewrites the expressions of a node, each under the name it has.
pub(crate) fn keep_names(
    node: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| under_its_name(expr, &names, &mut rewrite))
}

fn under_its_name(
    expr: Expr,
    names: &NamePreserver,
    rewrite: &mut dyn FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<Expr>> {
    // ROLLUP, CUBE and GROUPING SETS are no columns, and may have no other name: each of their parts is one.
    if matches!(expr, Expr::GroupingSet(_)) || is_grouping(&expr) {
        return expr.map_children(|part| under_its_name(part, names, &mut *rewrite));
    }
    let name = names.save(&expr);
    let rewritten = rewrite(expr)?;
    Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
}

fn is_grouping(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(function) if function.func.name() == GROUPING)
}
