//! Plans that give the same rows in the same order and the same batches each time they run: those of one partition. In several
//! of them rows come in the order in which threads happen to hand them over.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use crate::query::Planned;
use crate::query::embedded_plan::EmbeddedPlan;

/// A plan that nobody has but its caller, in one partition, if that costs little; else as it was. The statement says so.
pub(crate) fn in_fixed_order(mut planned: Planned) -> Planned {
    let nothing: Arc<dyn Any + Send + Sync> = Arc::new(());
    match std::mem::replace(&mut planned.plan, nothing).downcast::<EmbeddedPlan>() {
        Ok(mut embedded) => {
            if let Some(own) = Arc::get_mut(&mut embedded).filter(|own| costs_little(&own.logical)) {
                own.state.config_mut().options_mut().execution.target_partitions = 1;
                let options = &mut planned.statement.options;
                (options.partitions, options.batch_rows) = (Some(1), Some(own.state.config().batch_size()));
            }
            planned.plan = embedded;
        }
        Err(other) => planned.plan = other,
    }
    planned
}

/// Whether one thread is about as fast as several: nothing is joined, grouped or put into windows. What reads a file waits for its
/// client sooner or later; what is packed for the line is packed by several threads in any case. No unions: each of their inputs
/// is a partition of its own, however many are asked for.
fn costs_little(plan: &LogicalPlan) -> bool {
    let mut little = true;
    let walked = plan.apply_with_subqueries(|node| {
        little = matches!(
            node,
            LogicalPlan::TableScan(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Projection(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::Values(_)
                | LogicalPlan::EmptyRelation(_)
        );
        Ok(if little { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && little
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn what_is_joined_or_grouped_is_left_to_all_threads() {
        let context = SessionContext::new();
        context.sql("create table t (a int, b int) as values (1, 2)").await.unwrap();
        for (sql, little) in [
            ("select a from t where b > 1", true),
            ("select * from t order by a limit 3", true),
            ("select a from t union all select b from t", false),
            ("select a, sum(b) from t group by a", false),
            ("select distinct a from t", false),
            ("select * from t join t u on t.a = u.b", false),
            ("select a, row_number() over (order by b) from t", false),
            ("select * from t where a in (select b from t)", false),
            ("select (select max(b) from t)", false),
        ] {
            let plan = context.state().create_logical_plan(sql).await.unwrap();
            assert_eq!(costs_little(&plan), little, "{sql}");
        }
    }
}
