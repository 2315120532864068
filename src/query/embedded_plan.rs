//! A plan of the embedded engine, with what was worked out of it before it runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::FieldRef;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use crate::query::constants::ConstantRows;
use crate::query::estimate::{Estimate, estimate, look_at_files};
use crate::query::{QueryError, small};

/// How long the ends of data files are waited for before a result is described without them.
const FILES_PATIENCE: Duration = Duration::from_secs(1);

/// What [`Planned::plan`](crate::query::Planned::plan) holds.
pub(crate) struct EmbeddedPlan {
    /// With values for the parameters when there were any.
    pub(crate) logical: LogicalPlan,
    /// What it was planned with.
    pub(crate) state: SessionState,
    /// The parameters it has, in order.
    pub(crate) parameters: Vec<FieldRef>,
    /// Whether the answer is a plan in text.
    pub(crate) explains: bool,
    /// Whether it is over at once wherever it runs.
    pub(crate) is_small: bool,
    /// The plan as it is run, once somebody has asked how large the result will be.
    optimized: OnceLock<LogicalPlan>,
    /// How large it will be.
    estimate: OnceLock<Arc<Estimate>>,
    /// Its rows, once they were computed, where it is a constant.
    pub(crate) rows: OnceLock<ConstantRows>,
}

impl EmbeddedPlan {
    /// A plan without parameters, to be run on the query's threads.
    pub(crate) fn of(logical: LogicalPlan, state: SessionState) -> Self {
        Self {
            logical,
            state,
            parameters: Vec::new(),
            explains: false,
            is_small: false,
            optimized: OnceLock::new(),
            estimate: OnceLock::new(),
            rows: OnceLock::new(),
        }
    }

    /// The same as somebody's statement: with its parameters, and whether its answer is a plan in text. A long text is
    /// never small: it may nest deeply, and only the query's own threads have the stack for that.
    pub(crate) fn of_statement(self, parameters: Vec<FieldRef>, explains: bool, is_long: bool) -> Self {
        let is_small = !is_long && small::is_small(&self.logical);
        Self { parameters, explains, is_small, ..self }
    }

    /// Whether its answer hangs on its text alone.
    pub(crate) fn is_constant(&self) -> bool {
        self.is_small && !self.explains && self.parameters.is_empty()
    }

    /// Looks at what of the data files tells of their columns, for a while at most.
    pub(crate) async fn look_at_files(&self) {
        if let Some(plan) = self.optimized() {
            let looking = look_at_files(plan, self.state.runtime_env());
            if tokio::time::timeout(FILES_PATIENCE, looking).await.is_err() {
                tracing::debug!("data files take too long to tell of their columns");
            }
        }
    }

    /// How large the result will be. The plan that was optimized for it is the one that is run later.
    pub(crate) fn estimated(&self) -> Arc<Estimate> {
        let known = self.estimate.get_or_init(|| {
            let plan = if self.is_small { Some(&self.logical) } else { self.optimized() };
            let unknown = || Estimate::unknown(self.logical.schema().as_arrow());
            Arc::new(plan.map_or_else(unknown, |plan| estimate((&self.logical, plan), &self.state)))
        });
        Arc::clone(known)
    }

    /// What is known already of how large it will be.
    pub(crate) fn estimated_before(&self) -> Option<Arc<Estimate>> {
        self.estimate.get().cloned()
    }

    /// The plan as it is run; none where it is text about a plan, or cannot be run: why not is told when it is.
    fn optimized(&self) -> Option<&LogicalPlan> {
        if self.explains || matches!(self.logical, LogicalPlan::DescribeTable(_)) {
            return None;
        }
        if self.optimized.get().is_none() {
            let optimized = self.state.optimize(&self.logical).ok()?;
            return Some(self.optimized.get_or_init(|| optimized));
        }
        self.optimized.get()
    }

    /// What runs.
    ///
    /// # Errors
    /// When it cannot be planned.
    pub(crate) async fn physical(&self) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let physical = match self.optimized.get() {
            Some(plan) => self.state.query_planner().create_physical_plan(plan, &self.state).await,
            None => self.state.create_physical_plan(&self.logical).await,
        };
        Ok(physical?)
    }
}
