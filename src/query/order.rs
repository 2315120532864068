//! Plans that give the same rows in the same order and the same batches each time they run. In several partitions rows come in the
//! order in which threads happen to hand them over, unless each partition always reads the same and they are taken
//! [in turn](crate::query::in_turn).

use std::any::Any;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use crate::query::Planned;
use crate::query::embedded_plan::EmbeddedPlan;

/// A plan that nobody has but its caller, with its rows in the same order each time, if that costs little; else as it was. The
/// statement says so.
pub(crate) fn in_fixed_order(mut planned: Planned) -> Planned {
    let nothing: Arc<dyn Any + Send + Sync> = Arc::new(());
    match std::mem::replace(&mut planned.plan, nothing).downcast::<EmbeddedPlan>() {
        Ok(mut embedded) => {
            if let Some(own) = Arc::get_mut(&mut embedded)
                && let Some(threads) = Threads::of(&own.logical)
            {
                let config = own.state.config_mut();
                if threads == Threads::One {
                    config.options_mut().execution.target_partitions = 1;
                }
                keep(config.options_mut());
                let options = &mut planned.statement.options;
                (options.partitions, options.batch_rows) =
                    (Some(config.target_partitions()), Some(config.batch_size()));
            }
            planned.plan = embedded;
        }
        Err(other) => planned.plan = other,
    }
    planned
}

/// Lets each partition read the same at each run: none takes work from another, and none is handed what another has read.
pub(crate) fn keep(config: &mut ConfigOptions) {
    config.execution.enable_file_stream_work_stealing = false;
    config.optimizer.enable_round_robin_repartition = false;
}

/// Whether [`keep`] was asked for: then partitions are to be taken in turn.
pub(crate) fn is_kept(config: &ConfigOptions) -> bool {
    !config.execution.enable_file_stream_work_stealing
}

/// How many threads a plan whose order can be the same each time needs to be about as fast as with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    /// What only reads files waits for its client sooner or later, and what is packed for the line is packed by several threads
    /// in any case. Rows that stand beside one another are smaller on the line when they come that way. A limit takes the
    /// first rows there are, which in several partitions are others each time.
    One,
    /// Most of what a filter reads is never sent, and what is sorted is all read before the first row comes.
    All,
}

impl Threads {
    /// None where the order cannot be kept at little cost: where something is joined, grouped, put into windows or made unique.
    /// Nor in unions: each of their inputs is a partition of its own, however many are asked for.
    fn of(plan: &LogicalPlan) -> Option<Self> {
        let (mut simple, mut limits, mut works) = (true, false, false);
        let walked = plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::Filter(_) | LogicalPlan::Sort(_) => works = true,
                LogicalPlan::Limit(limit) => limits |= !is_sorted(&limit.input),
                LogicalPlan::TableScan(_)
                | LogicalPlan::Projection(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Values(_)
                | LogicalPlan::EmptyRelation(_) => {}
                _ => simple = false,
            }
            Ok(if simple { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        });
        let threads = if works && !limits { Self::All } else { Self::One };
        (walked.is_ok() && simple).then_some(threads)
    }
}

/// Whether the rows of a plan come sorted, but for those that are equal: when those are others at another run, their hash says so.
fn is_sorted(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_sorted(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_sorted(&alias.input),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn what_is_joined_or_grouped_is_left_as_it_is_and_who_works_does_so_on_all_threads() {
        let context = SessionContext::new();
        context.sql("create table t (a int, b int) as values (1, 2)").await.unwrap();
        for (sql, threads) in [
            ("select a, b + 1 from t", Some(Threads::One)),
            ("select a from t limit 3", Some(Threads::One)),
            ("select a from t where b > 1 limit 3", Some(Threads::One)),
            ("select a from t where b > 1", Some(Threads::All)),
            ("select a from (select * from t where b > 1) u", Some(Threads::All)),
            ("select * from t order by a", Some(Threads::All)),
            ("select * from t order by a limit 3", Some(Threads::All)),
            ("select * from (select * from t limit 3) u order by a", Some(Threads::One)),
            ("select a from t union all select b from t", None),
            ("select a, sum(b) from t group by a", None),
            ("select distinct a from t", None),
            ("select * from t join t u on t.a = u.b", None),
            ("select a, row_number() over (order by b) from t", None),
            ("select * from t where a in (select b from t)", None),
            ("select (select max(b) from t)", None),
        ] {
            let plan = context.state().create_logical_plan(sql).await.unwrap();
            assert_eq!(Threads::of(&plan), threads, "{sql}");
        }
    }
}
