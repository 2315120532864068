//! VALUES that hold queries. The engine computes what stands in VALUES while it plans, before any query has run; what stands
//! in a select list it computes when they have.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, Union, Values};

/// Makes each row of VALUES that hold queries a select list of its own. To be done when values are bound: only VALUES take
/// the types of those.
pub(crate) fn as_select_lists(plan: LogicalPlan) -> Result<LogicalPlan> {
    let made = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Values(values) if values.values.iter().flatten().any(holds_query) => {
            select_lists(values).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(made.data)
}

fn holds_query(value: &Expr) -> bool {
    matches!(value.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_)))), Ok(true))
}

fn select_lists(values: Values) -> Result<LogicalPlan> {
    let one_row = Arc::new(LogicalPlanBuilder::empty(true).build()?);
    let names = values.schema.fields();
    let rows = values.values.into_iter().map(|row| {
        let named = row.into_iter().zip(names).map(|(value, field)| value.alias(field.name()));
        Projection::try_new(named.collect(), Arc::clone(&one_row)).map(|row| Arc::new(LogicalPlan::Projection(row)))
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if let [row] = rows.as_slice() {
        return Ok(row.as_ref().clone());
    }
    Union::try_new_with_loose_types(rows).map(LogicalPlan::Union)
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn values_that_hold_queries_are_computed_after_these() {
        let context = SessionContext::new();
        for (sql, rows) in [
            ("values ((select 7), $1)", 1),
            ("values (1, 'a'), ((select 7), $1), ((select 8) + 1, null)", 3),
            ("values ((select max(x) from (values (1), ((select 2))) v(x)), $1)", 1),
        ] {
            let plan = context.state().create_logical_plan(sql).await.unwrap();
            let bound = plan.with_param_values(vec![ScalarValue::from("x")]).unwrap();
            let names = bound.schema().field_names();
            let made = as_select_lists(bound).unwrap();
            assert_eq!(made.schema().field_names(), names, "{sql}");
            let batches = context.execute_logical_plan(made).await.unwrap().collect().await.unwrap();
            assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), rows, "{sql}");
        }
    }

    #[tokio::test]
    async fn other_values_stay_together() {
        let plan = SessionContext::new().state().create_logical_plan("values (1), (2)").await.unwrap();
        assert_eq!(as_select_lists(plan.clone()).unwrap(), plan);
    }
}
