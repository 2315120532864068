//! Statements that read nothing and compute next to nothing, such as `select 1`, with which clients see whether anybody
//! is there. Handing them to the query's threads would cost several times what they are.

use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Rows written into a statement, up to which it is small.
const FEW_ROWS: usize = 16;

/// Whether a plan is over at once wherever it runs.
pub(crate) fn is_small(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= FEW_ROWS && values.values.iter().flatten().all(is_cheap),
        LogicalPlan::Projection(projection) => projection.expr.iter().all(is_cheap) && is_small(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_small(&alias.input),
        _ => false,
    }
}

/// No functions: those can compute for long, and subqueries read.
fn is_cheap(expr: &Expr) -> bool {
    let costs = expr.exists(|part| {
        Ok(!matches!(part, Expr::Literal(..) | Expr::Column(_) | Expr::Alias(_) | Expr::Cast(_) | Expr::BinaryExpr(_)))
    });
    matches!(costs, Ok(false))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn only_what_is_over_at_once_is_small() {
        let context = SessionContext::new();
        for (sql, small) in [
            ("select 1", true),
            ("select 1 + 2 as a, cast('3' as int), 'x'", true),
            ("select * from (values (1, 'a'), (2, 'b')) t(n, s)", true),
            ("select repeat('x', 1000000000)", false),
            ("select (select max(value) from generate_series(1, 1000000000))", false),
            ("select * from generate_series(1, 10)", false),
            ("select 1 order by 1", false),
            ("select count(*)", false),
        ] {
            let plan = context.state().create_logical_plan(sql).await.unwrap();
            assert_eq!(is_small(&plan), small, "{sql}");
        }
    }
}
