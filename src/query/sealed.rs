//! A table for those who do not see all of it: row filters and masks are sealed inside its scan.
//!
//! Below the seal run, in this order: the scan of the version, the row filters, the masks, and of what people wrote only
//! comparisons that cannot fail and look at columns that are not masked (`sinking`). Everything else people wrote runs
//! above, on rows they may see and on values they may see. The leaf above which it runs tells nothing of what is below
//! (`exec`).

mod exec;
mod sinking;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::access::{Policy, TableRights};
use crate::error::{Classify, ErrorKind, chain_text};
use crate::model::TableName;
use crate::query::policy::{PolicyPart, PolicyPlanner, PolicyProblem};
use crate::query::{QueryError, order};
use exec::SealedExec;

/// The columns of a table that may be read, as they are seen: a masked one may have no value where the table's own
/// always has one.
pub(crate) fn seen_columns(columns: &Schema, rights: &TableRights) -> SchemaRef {
    let readable = columns.fields().iter().filter(|field| rights.reads(field.name()));
    let seen = readable.map(|field| {
        let masked = rights.policy.masks.contains_key(field.name());
        if masked { Arc::new(Field::new(field.name(), field.data_type().clone(), true)) } else { Arc::clone(field) }
    });
    Arc::new(Schema::new(seen.collect::<Vec<FieldRef>>()))
}

/// The columns that name a row, as far as they are told: a key of which a column is not seen as it is names no rows.
pub(crate) fn seen_key(key: &[String], rights: &TableRights) -> Vec<String> {
    let as_it_is = |column: &String| rights.reads(column) && !rights.policy.masks.contains_key(column);
    if key.iter().all(as_it_is) { key.to_vec() } else { Vec::new() }
}

/// Seals a version of a table for a principal with these rights.
///
/// # Errors
/// `PermissionDenied` when a row filter or mask cannot be used with the version's columns: then nothing is shown. The
/// log has the reason.
pub(crate) fn seal(
    table: &TableName,
    version: Arc<dyn TableProvider>,
    rights: &TableRights,
    planner: &PolicyPlanner,
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let state = planner.state();
    let columns = version.schema();
    let planned = plan(table, &version, rights, planner).and_then(|plan| {
        state.analyzer().execute_and_check(plan.clone(), &state.config_options().clone(), |_, _| {})?;
        Ok(plan)
    });
    let plan = planned.map_err(|error| {
        // A mask of a column that may not be read stands in nobody's way, and is not named.
        let mut policy = rights.policy.clone();
        policy.masks.retain(|column, _| rights.reads(column));
        let first = problems(table, Some(&version), &policy, planner).into_iter().next();
        let part = first.as_ref().map_or(PolicyPart::Columns, |problem| problem.part.clone());
        let reason = first.map_or_else(|| chain_text(&error), |problem| problem.reason);
        tracing::warn!(%table, %part, reason, "a table cannot be read by those it is kept from");
        unusable(table, &part)
    })?;
    Ok(Arc::new(SealedTable {
        table: table.clone(),
        schema: seen_columns(&columns, rights),
        columns: plan.schema().columns(),
        plan,
        masked: rights.policy.masks.keys().cloned().collect(),
        filtered: !rights.policy.filters.is_empty(),
        version,
        state: Arc::clone(state),
    }))
}

/// What is below the seal, before anything people wrote; none where nothing is sealed.
pub(crate) fn plan_below(provider: &Arc<dyn TableProvider>) -> Option<&LogicalPlan> {
    provider.downcast_ref::<SealedTable>().map(|sealed| &sealed.plan)
}

/// What may be reckoned with of a provider.
pub(crate) enum Told<'a> {
    /// All of it.
    All,
    /// Nothing: rows are kept back, and how many there are would tell of them.
    Nothing,
    /// The version below, but for these columns, of which other values are seen.
    But(&'a Arc<dyn TableProvider>, &'a BTreeSet<String>),
}

/// What may be reckoned with of a provider by those it is made for.
pub(crate) fn told(provider: &Arc<dyn TableProvider>) -> Told<'_> {
    match provider.downcast_ref::<SealedTable>() {
        None => Told::All,
        Some(sealed) if sealed.filtered => Told::Nothing,
        Some(sealed) => Told::But(&sealed.version, &sealed.masked),
    }
}

fn unusable(table: &TableName, part: &PolicyPart) -> QueryError {
    let what = match part {
        PolicyPart::Filter(_) => format!("the row filter of {table}"),
        PolicyPart::Mask(column) => format!("the mask of {table}.{column}"),
        PolicyPart::Columns => format!("what is kept back of {table}"),
    };
    QueryError::new(ErrorKind::PermissionDenied, format!("{what} cannot be used; tell the administrator"))
}

/// Row filters and masks that cannot be used with a version of a table; without one, those that cannot be read.
pub(crate) fn problems(
    table: &TableName,
    version: Option<&Arc<dyn TableProvider>>,
    policy: &Policy,
    planner: &PolicyPlanner,
) -> Vec<PolicyProblem> {
    let filters = policy.filters.iter().enumerate().map(|(place, text)| {
        let one = Policy { filters: vec![text.clone()], ..Policy::default() };
        (PolicyPart::Filter(place + 1), one)
    });
    let masks = policy.masks.iter().map(|(column, text)| {
        let one = Policy { masks: [(column.clone(), text.clone())].into(), ..Policy::default() };
        (PolicyPart::Mask(column.clone()), one)
    });
    let state = planner.state();
    let tried = filters.chain(masks).filter_map(|(part, policy)| {
        let tried = match version {
            Some(version) => {
                let rights = TableRights { policy, ..TableRights::all() };
                plan(table, version, &rights, planner).and_then(|plan| {
                    state.analyzer().execute_and_check(plan, &state.config_options().clone(), |_, _| {})?;
                    Ok(())
                })
            }
            None => policy.filters.iter().chain(policy.masks.values()).try_for_each(|text| planner.read(text)),
        };
        let reason = tried.err()?.to_string();
        Some(PolicyProblem { table: table.clone(), part, reason })
    });
    tried.collect()
}

/// What may be seen of the version: its rows filtered, its columns masked, those that may be read.
fn plan(
    table: &TableName,
    version: &Arc<dyn TableProvider>,
    rights: &TableRights,
    planner: &PolicyPlanner,
) -> Result<LogicalPlan, QueryError> {
    let name = TableReference::partial(table.schema(), table.table());
    let mut plan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(Arc::clone(version)), None)?;
    let columns = Arc::clone(plan.schema());
    for text in &rights.policy.filters {
        plan = plan.filter(planner.filter(text, &columns)?)?;
    }
    for column in rights.policy.masks.keys().filter(|column| rights.reads(column)) {
        // It may have got another name, and would be seen under that.
        if version.schema().index_of(column).is_err() {
            return Err(QueryError::invalid(format!("there is no column `{column}`")));
        }
    }
    let readable = version.schema();
    let readable = readable.fields().iter().filter(|field| rights.reads(field.name()));
    let seen = readable.map(|field| match rights.policy.masks.get(field.name()) {
        Some(mask) => Ok(planner.mask(mask, field.data_type(), &columns)?.alias(field.name())),
        None => Ok(Expr::Column(Column::new(Some(name.clone()), field.name()))),
    });
    Ok(plan.project(seen.collect::<Result<Vec<_>, QueryError>>()?)?.build()?)
}

/// A version of a table as a principal sees it.
struct SealedTable {
    table: TableName,
    schema: SchemaRef,
    /// What may be seen, before anything people wrote.
    plan: LogicalPlan,
    /// The columns of the plan, as those of the schema.
    columns: Vec<Column>,
    masked: BTreeSet<String>,
    /// Whether rows are kept back.
    filtered: bool,
    /// What is sealed.
    version: Arc<dyn TableProvider>,
    state: Arc<SessionState>,
}

impl fmt::Debug for SealedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed {}", self.table)
    }
}

impl SealedTable {
    /// The state of its own, for as many partitions as are asked for, and for rows in the same order each time where these are.
    fn state_as(&self, asked: &ConfigOptions) -> Cow<'_, SessionState> {
        let (own, partitions) = (self.state.config_options(), asked.execution.target_partitions);
        let in_order = order::is_kept(asked);
        if own.execution.target_partitions == partitions && order::is_kept(own) == in_order {
            return Cow::Borrowed(self.state.as_ref());
        }
        let mut state = self.state.as_ref().clone();
        let options = state.config_mut().options_mut();
        options.execution.target_partitions = partitions;
        if in_order {
            order::keep(options);
        }
        Cow::Owned(state)
    }

    /// A filter people wrote, over the columns of the plan.
    fn below(&self, filter: &Expr) -> Result<Expr> {
        let below = filter.clone().transform_up(|expr| match expr {
            Expr::Column(column) => {
                let place = self.schema.index_of(&column.name)?;
                Ok(Transformed::yes(Expr::Column(self.columns[place].clone())))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(below.data)
    }
}

#[async_trait]
impl TableProvider for SealedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let sinks = filters.iter().map(|filter| sinking::cannot_fail(filter, &self.schema, &self.masked));
        let support = sinks.map(|sinks| {
            if sinks { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Unsupported }
        });
        Ok(support.collect())
    }

    /// Plans what is below the seal with a state of its own: it depends on nothing whoever asks can set, but for the number of
    /// partitions and whether rows have to come in the same order again.
    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let state = self.state_as(session.config_options());
        let mut plan = LogicalPlanBuilder::from(self.plan.clone());
        for filter in filters {
            if !sinking::cannot_fail(filter, &self.schema, &self.masked) {
                let text = format!("a filter that could fail was to run inside the scan of {}", self.table);
                return Err(DataFusionError::Internal(text));
            }
            plan = plan.filter(self.below(filter)?)?;
        }
        let every: Vec<usize> = (0..self.columns.len()).collect();
        let wanted = projection.unwrap_or(&every);
        plan = plan.project(wanted.iter().map(|place| Expr::Column(self.columns[*place].clone())))?;
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        let hide = |error: DataFusionError| DataFusionError::from(withheld(&self.table, error));
        let inner = state.create_physical_plan(&plan.build()?).await.map_err(hide)?;
        Ok(Arc::new(SealedExec::new(self.table.clone(), Arc::new(self.schema.project(wanted)?), inner)))
    }
}

/// An error from below the seal as it is told: it may hold values of rows that are hidden, or that are masked.
fn withheld(table: &TableName, error: DataFusionError) -> QueryError {
    let error = QueryError::from(error);
    match error.kind() {
        // Of stored data, in words that name no row (`QueryError::storage`), or of the statement itself.
        ErrorKind::DataLoss
        | ErrorKind::PermissionDenied
        | ErrorKind::Unavailable
        | ErrorKind::ResourceExhausted
        | ErrorKind::Cancelled
        | ErrorKind::DeadlineExceeded => error,
        kind => {
            tracing::warn!(%table, kind = kind.as_str(), "a row filter or mask fails on a value of the table");
            let text = format!("a row filter or mask of {table} failed; tell the administrator");
            QueryError::new(ErrorKind::PermissionDenied, text)
        }
    }
}
