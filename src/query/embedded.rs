//! The engine inside this process: DataFusion on a runtime of its own, so that no join, however long
//! it computes, holds up anybody else's call.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::FieldRef;
use async_trait::async_trait;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Grants, Principal, Scope};
use crate::config::Settings;
use crate::error::ErrorKind;
use crate::journal::Journal;
use crate::lake::Lake;
use crate::query::cancel::{AbortOnDrop, Answer, Stop, stoppable, too_late};
use crate::query::catalog::{Catalog, Resolved, Versions};
use crate::query::change::plan::{Given, PlannedChange};
use crate::query::change::run::{Run, Values};
use crate::query::constants::{ConstantRows, Constants};
use crate::query::embedded_plan::EmbeddedPlan;
use crate::query::explain::without_places;
use crate::query::in_turn::InTurn;
use crate::query::listing::{Listings, StatementCatalog};
use crate::query::policy::PolicyPlanner;
use crate::query::session::{KnownFunctions, Sessions, zone};
use crate::query::statement::{Understood, understand};
use crate::query::system::System;
use crate::query::{
    ChangeValues, Changed, Dependencies, Estimate, IncomingRows, Ingestion, MemoryGauge, Planned, PolicyPart,
    PolicyProblem, QueryEngine, QueryError, Statement, StatementKind, StatementOptions, TableSummary, identity,
    literals, memory, order, parameters, sealed, values,
};
use crate::runtime::clock::Clock;

/// Text in bytes from which a statement is planned on a thread of its own: shorter ones nest so little that
/// any stack holds them, and cost so little time that the hand-over would show. An operator and its operand take two
/// bytes at least, and a thread's usual 2 MiB hold some 200 of them in a debug build, which needs most.
const LONG_TEXT_BYTES: usize = 256;

/// How long a plan is looked at to tell how large its result will be.
const ESTIMATE_PATIENCE: Duration = Duration::from_secs(5);

/// Stack of the query's threads in bytes: the deepest expressions that are accepted, several times over.
const STACK_BYTES: usize = 16 << 20;

/// Answers SQL with DataFusion in this process.
#[derive(Clone)]
pub struct LakeEngine(Arc<Engine>);

pub(crate) struct Engine {
    pub(crate) settings: Arc<Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: Sessions,
    pub(crate) lake: Lake,
    pub(crate) journal: Arc<Journal>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) listings: Listings,
    constants: Constants,
    runtime: QueryRuntime,
}

impl LakeEngine {
    /// An engine over a lake: it computes with `settings.limits.threads` threads in the lake's own
    /// memory and spill.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn new(
        settings: Arc<Settings>,
        lake: Lake,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QueryError> {
        let environment = lake.environment();
        let system = System { settings: Arc::clone(&settings), lake: lake.clone(), journal };
        Self::over(settings, Arc::new(lake), system, environment, clock)
    }

    /// Tasks of statements that are still on the engine's threads; none when nothing runs.
    pub fn running_tasks(&self) -> usize {
        self.0.runtime.handle().metrics().num_alive_tasks()
    }

    fn over(
        settings: Arc<Settings>,
        versions: Arc<dyn Versions>,
        system: System,
        environment: Arc<RuntimeEnv>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, QueryError> {
        let threads = settings.limits.threads.get();
        let (lake, journal) = (system.lake.clone(), Arc::clone(&system.journal));
        let catalog = Arc::new(Catalog::new(Arc::clone(&settings), versions, system));
        Ok(Self(Arc::new(Engine {
            sessions: Sessions::new(environment, threads, Catalog::default_schema(&settings)),
            listings: Listings::new(Arc::clone(&catalog), Arc::clone(&clock)),
            constants: Constants::default(),
            runtime: QueryRuntime::start(threads)?,
            catalog,
            settings,
            clock,
            lake,
            journal,
        })))
    }
}

impl Engine {
    async fn check_policies(&self, grants: &Grants) -> Result<Vec<PolicyProblem>, QueryError> {
        let planner = self.policy_planner(&StatementOptions::default(), &Principal::anonymous())?;
        let mut problems = Vec::new();
        for (table, policy) in &grants.policies {
            let version = self.catalog.newest(table).await?.map(|version| version.provider);
            problems.extend(sealed::problems(table, version.as_ref(), policy, &planner));
        }
        for grant in &grants.grants {
            let (Scope::Table(table), Some(columns)) = (&grant.on, &grant.columns) else { continue };
            let Some(version) = self.catalog.newest(table).await? else { continue };
            let schema = version.provider.schema();
            for column in columns.iter().filter(|column| schema.index_of(column).is_err()) {
                let reason = format!("there is no column `{column}`");
                problems.push(PolicyProblem { table: table.clone(), part: PolicyPart::Columns, reason });
            }
        }
        Ok(problems)
    }

    async fn plan_in_time(&self, mut statement: Statement, access: &Access) -> Result<Planned, QueryError> {
        let profile = self.sessions.state(&statement.options)?;
        let now = *statement.options.now.get_or_insert_with(|| self.clock.now());
        let key = Constants::key(&statement, access.principal(), LONG_TEXT_BYTES);
        if let Some(planned) = key.as_deref().and_then(|key| self.constants.planned(key, &statement.options)) {
            return Ok(planned);
        }
        let zone = zone(&statement.options)?;
        let mut state = profile.as_ref().clone();
        identity::register(&mut state, access.principal())?;
        let mut understood = understand(&statement.sql, &KnownFunctions(&state), zone, now)?;
        if let Some(change) = understood.change.take() {
            return self.plan_change(statement, understood, change, access).await;
        }
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = Some(now);
        let (explains, estimates) = (understood.explains, understood.estimates);
        let (logical, parameters, dependencies) =
            self.logical_plan(&mut state, understood, &mut statement, access, &Given::new()).await?;
        let analyzed = analyze(&state, &logical, &parameters)?;
        let schema = Arc::new(match &analyzed {
            Some(plan) => plan.schema().as_arrow().clone(),
            None => logical.schema().as_arrow().clone(),
        });
        let is_whole = statement.options.since.is_empty();
        let is_long = statement.sql.len() >= LONG_TEXT_BYTES;
        let dependencies = dependencies.filter(|_| is_whole && !explains && !estimates);
        let dependencies =
            dependencies.and_then(|read| read.of_plan((&statement.sql, &logical), access.principal(), (now, zone)));
        let plan = EmbeddedPlan::of(logical, state).of_statement(parameters.clone(), explains, is_long);
        let (kind, schema) = match estimates {
            true => (StatementKind::Estimate, Estimate::table_schema()),
            false => (StatementKind::Query, schema),
        };
        let is_constant = plan.is_constant() && kind == StatementKind::Query;
        let (plan, memory) = (Arc::new(plan), Arc::default());
        let planned = Planned { statement, schema, parameters, kind, plan, memory, dependencies };
        if let Some(key) = key.filter(|_| is_constant) {
            self.constants.keep(key, &planned);
        }
        Ok(planned)
    }

    /// Resolves the tables, but those that are `given`, and plans the statement; fills in its pins. Tells also what it reads.
    pub(crate) async fn logical_plan(
        &self,
        state: &mut SessionState,
        understood: Understood,
        statement: &mut Statement,
        access: &Access,
        given: &Given,
    ) -> Result<(LogicalPlan, Vec<FieldRef>, Option<Dependencies>), QueryError> {
        let mut references = state.resolve_table_references(&understood.statement)?;
        let (own, other): (Vec<_>, Vec<_>) = references.drain(..).partition(|name| given.contains_key(name.table()));
        let references = other;
        let functions = state.table_functions().clone();
        let is_function = |name: &str| functions.contains_key(name);
        let references = match &statement.options.schema {
            Some(schema) => references.into_iter().map(|name| in_schema(name, schema, is_function)).collect(),
            None => references,
        };
        let planned_for = statement.options.rights.as_deref();
        let versions = (&statement.pins, &statement.options.since);
        let resolved = self.catalog.resolve(references, is_function, versions, access, planned_for);
        let mut resolved = self.seal(resolved.await?, statement, access)?;
        resolved.draw_samples()?;
        for name in own {
            let name = match &statement.options.schema {
                Some(schema) => in_schema(name, schema, is_function),
                None => name,
            };
            resolved.tables.extend(given.get(name.table()).map(|table| (self.catalog.key(&name), Arc::clone(table))));
        }
        statement.pins = resolved.pins.clone();
        statement.options.rights = Some(resolved.rights.clone());
        let dependencies = resolved.dependencies.take();
        let listing = if resolved.lists { Some(self.listings.visible(access).await) } else { None };
        let catalog = StatementCatalog::new(resolved, listing, functions);
        state.register_catalog_list(Arc::new(catalog));
        let plan = state.statement_to_plan(understood.statement).await?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|error| QueryError::unsupported(QueryError::from(error).to_string()))?;
        let plan = if understood.literals { literals::settle(plan)? } else { plan };
        let named = identity::may_be_named(&statement.sql);
        let plan = if named { identity::fold_plan(plan, access.principal())? } else { plan };
        let fields = parameters::fields(&plan, understood.parameters)?;
        let plan = match statement.parameters.as_slice() {
            [] => plan,
            bound => parameters::bind(plan, &fields, bound)?,
        };
        Ok((values::as_select_lists(plan)?, fields, dependencies))
    }

    /// Seals the tables of which not everything may be seen.
    fn seal(&self, mut resolved: Resolved, statement: &Statement, access: &Access) -> Result<Resolved, QueryError> {
        if resolved.restricted.is_empty() {
            return Ok(resolved);
        }
        let planner = self.policy_planner(&statement.options, access.principal())?;
        for (key, table, rights) in std::mem::take(&mut resolved.restricted) {
            if let Some(provider) = resolved.tables.get_mut(&key) {
                *provider = sealed::seal(&table, Arc::clone(provider), &rights, &planner)?;
            }
        }
        Ok(resolved)
    }

    fn policy_planner(&self, options: &StatementOptions, principal: &Principal) -> Result<PolicyPlanner, QueryError> {
        let options = StatementOptions { time_zone: StatementOptions::default().time_zone, ..options.clone() };
        let now = options.now.unwrap_or_else(|| self.clock.now());
        PolicyPlanner::new(self.sessions.state(&options)?.as_ref(), principal, now)
    }

    /// Runs what is small where it was asked for.
    async fn at_once(
        &self,
        embedded: &EmbeddedPlan,
        planned: &Planned,
    ) -> Result<SendableRecordBatchStream, QueryError> {
        if let Some(rows) = embedded.rows.get() {
            return Ok(rows.clone().stream());
        }
        let physical = embedded.physical().await?;
        let rows = execute_stream(physical, self.context(embedded, &planned.memory))?;
        if !embedded.is_constant() {
            return Ok(rows);
        }
        let (schema, batches) = (rows.schema(), rows.try_collect().await?);
        Ok(embedded.rows.get_or_init(|| ConstantRows { schema, batches }).clone().stream())
    }

    /// What a plan runs in: its statement's share of the memory.
    fn context(&self, embedded: &EmbeddedPlan, gauge: &Arc<MemoryGauge>) -> Arc<TaskContext> {
        let most = self.settings.limits.serving.statement_memory;
        let whole = embedded.state.runtime_env();
        let config = embedded.state.config().clone();
        let config = config.with_sort_spill_reservation_bytes(memory::merge_bytes(whole, most));
        let own = memory::share(whole, most, gauge);
        Arc::new(TaskContext::from(&embedded.state).with_session_config(config).with_runtime(own))
    }

    /// Plans what runs, on the query's runtime: optimizing may compute for a while.
    async fn physical_plan(
        &self,
        plan: &Arc<dyn std::any::Any + Send + Sync>,
        stop: &Stop,
    ) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        let (plan, stop) = (Arc::clone(plan), stop.clone());
        let mut planning = AbortOnDrop(self.runtime.handle().spawn(async move {
            let Some(embedded) = plan.downcast_ref::<EmbeddedPlan>() else { return Err(foreign()) };
            let physical = embedded.physical().await?;
            stoppable(physical, &stop).map_err(QueryError::from)
        }));
        match (&mut planning.0).await {
            Ok(result) => result,
            Err(error) => Err(DataFusionError::ExecutionJoin(Box::new(error)).into()),
        }
    }
}

impl Engine {
    /// Runs a plan in its statement's share of the memory, which `gauge` tells; its rows end with an error at the
    /// deadline, which is `limit` after the start.
    ///
    /// # Errors
    /// When it cannot be planned.
    pub(crate) async fn run(
        &self,
        plan: &Arc<dyn std::any::Any + Send + Sync>,
        gauge: &Arc<MemoryGauge>,
        deadline: Instant,
        limit: Duration,
    ) -> Result<SendableRecordBatchStream, QueryError> {
        let embedded = plan.downcast_ref::<EmbeddedPlan>().ok_or_else(foreign)?;
        let stop = Stop::default();
        let planning = tokio::time::timeout_at(deadline, self.physical_plan(plan, &stop));
        let physical = planning.await.unwrap_or_else(|_| Err(too_late(limit)))?;
        let runtime = self.runtime.handle();
        let rows = {
            // Operators start tasks of their own when they are asked for their streams.
            let _entered = runtime.enter();
            if order::is_kept(embedded.state.config_options()) {
                InTurn::start(runtime, physical, self.context(embedded, gauge))?
            } else {
                execute_stream(physical, self.context(embedded, gauge))?
            }
        };
        let rows = if embedded.explains { without_places(rows, &self.settings.lake.location) } else { rows };
        Ok(Box::pin(Answer::start(runtime, rows, stop, deadline, limit)))
    }
}

impl LakeEngine {
    /// A run of a change by nobody in particular, that begins now.
    fn run_of(&self, options: StatementOptions, stop: CancellationToken, limit: Duration) -> Run {
        let now = options.now.unwrap_or_else(|| self.0.clock.now());
        Run {
            engine: Arc::clone(&self.0),
            access: Access::granted(Principal::anonymous(), Arc::default()),
            parameters: Vec::new(),
            literals: false,
            memory: Arc::default(),
            // What it reads is looked up anew, and its rights with it.
            options: StatementOptions { rights: None, ..options },
            now,
            stop,
            deadline: Instant::now() + limit,
            limit,
        }
    }
}

/// What a change came to that runs in a task of its own, so that nobody who leaves cuts it off in its commit.
async fn settled(task: JoinHandle<Result<Changed, QueryError>>) -> Result<Changed, QueryError> {
    task.await.unwrap_or_else(|error| Err(DataFusionError::ExecutionJoin(Box::new(error)).into()))
}

#[async_trait]
impl QueryEngine for LakeEngine {
    async fn plan(&self, statement: Statement, access: &Access) -> Result<Planned, QueryError> {
        let limit = self.0.settings.limits.query_timeout;
        let (engine, access) = (Arc::clone(&self.0), access.clone());
        let planning = async move {
            if statement.sql.len() < LONG_TEXT_BYTES {
                return engine.plan_in_time(statement, &access).await;
            }
            // The caller's runtime goes on reading for it; the query's own lends a thread with a large stack.
            let caller = Handle::current();
            let threads = engine.runtime.handle().clone();
            let planned = threads.spawn_blocking(move || caller.block_on(engine.plan_in_time(statement, &access)));
            planned.await.unwrap_or_else(|error| Err(DataFusionError::ExecutionJoin(Box::new(error)).into()))
        };
        tokio::time::timeout(limit, planning).await.unwrap_or_else(|_| Err(too_late(limit)))
    }

    async fn execute(&self, planned: &Planned, timeout: Duration) -> Result<SendableRecordBatchStream, QueryError> {
        let deadline = Instant::now() + timeout;
        let embedded = planned.plan.downcast_ref::<EmbeddedPlan>().ok_or_else(foreign)?;
        let (given, needed) = (planned.statement.parameters.len(), embedded.parameters.len());
        if given != needed {
            return Err(parameters::wrong_number(given, needed));
        }
        if embedded.is_small {
            return self.0.at_once(embedded, planned).await;
        }
        self.0.run(&planned.plan, &planned.memory, deadline, timeout).await
    }

    async fn estimate(&self, planned: &Planned) -> Arc<Estimate> {
        let unknown = || Arc::new(Estimate::unknown(&planned.schema));
        let Some(embedded) = planned.plan.downcast_ref::<EmbeddedPlan>() else { return unknown() };
        if let Some(known) = embedded.estimated_before() {
            return known;
        }
        if embedded.is_small {
            return embedded.estimated();
        }
        let plan = Arc::clone(&planned.plan);
        let mut looking = AbortOnDrop(self.0.runtime.handle().spawn(async move {
            let embedded = plan.downcast_ref::<EmbeddedPlan>()?;
            embedded.look_at_files().await;
            Some(embedded.estimated())
        }));
        match tokio::time::timeout(ESTIMATE_PATIENCE, &mut looking.0).await {
            Ok(Ok(Some(known))) => known,
            // It takes long, or panicked: the statement's run tells.
            _ => unknown(),
        }
    }

    async fn change(&self, planned: &Planned, values: ChangeValues, timeout: Duration) -> Result<Changed, QueryError> {
        let change = Arc::clone(&planned.plan).downcast::<PlannedChange>().map_err(|_| foreign())?;
        let values = match values {
            ChangeValues::Planned => Values::One(planned.statement.parameters.clone()),
            ChangeValues::Rows(rows) => Values::Rows(rows),
        };
        let stop = CancellationToken::new();
        let _stops_when_dropped = stop.clone().drop_guard();
        let run = Run {
            access: change.access.clone(),
            parameters: change.parameters.clone(),
            literals: change.literals,
            memory: Arc::clone(&planned.memory),
            ..self.run_of(planned.statement.options.clone(), stop, timeout)
        };
        settled(tokio::spawn(async move { run.all(&change.change, values).await })).await
    }

    async fn ingest(
        &self,
        ingestion: Ingestion,
        rows: IncomingRows,
        access: &Access,
        timeout: Duration,
    ) -> Result<Changed, QueryError> {
        let stop = CancellationToken::new();
        let _stops_when_dropped = stop.clone().drop_guard();
        let run = Run { access: access.clone(), ..self.run_of(StatementOptions::default(), stop, timeout) };
        settled(tokio::spawn(run.ingest(ingestion, rows))).await
    }

    async fn tables(&self, access: &Access) -> Result<Vec<TableSummary>, QueryError> {
        Ok(self.0.listings.visible(access).await.as_ref().clone())
    }

    async fn check_policies(&self, grants: &Grants) -> Result<Vec<PolicyProblem>, QueryError> {
        self.0.check_policies(grants).await
    }

    fn in_fixed_order(&self, planned: Planned) -> Planned {
        order::in_fixed_order(planned)
    }

    fn memory(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.0.lake.environment().memory_pool)
    }
}

/// The plan with its final types, which may differ from those it was written with: a CASE has its first
/// branch's type until then. None where types hang on parameters that have no values yet.
///
/// # Errors
/// What is wrong with the statement.
pub(crate) fn analyze(
    state: &SessionState,
    plan: &LogicalPlan,
    parameters: &[FieldRef],
) -> Result<Option<LogicalPlan>, QueryError> {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
        return Ok(None);
    }
    match state.analyzer().execute_and_check(plan.clone(), &state.config_options().clone(), |_, _| {}) {
        Ok(analyzed) => Ok(Some(analyzed)),
        Err(_) if !parameters.is_empty() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A name of a table as it is meant in a session that has a schema of its own for names without one.
fn in_schema(name: TableReference, schema: &str, is_function: impl Fn(&str) -> bool) -> TableReference {
    match name {
        TableReference::Bare { table } if !is_function(&table) => TableReference::partial(schema, table),
        other => other,
    }
}

fn foreign() -> QueryError {
    QueryError::new(ErrorKind::Internal, "this plan was made by another engine")
}

/// The threads queries compute with. They go on when it is dropped until their work yields.
struct QueryRuntime {
    handle: Handle,
    threads: Option<Runtime>,
}

impl QueryRuntime {
    fn start(threads: usize) -> Result<Self, QueryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("lakegate-query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|cause| {
                QueryError::because(ErrorKind::ResourceExhausted, "cannot start the threads of queries", cause)
            })?;
        Ok(Self { handle: runtime.handle().clone(), threads: Some(runtime) })
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        // A runtime must not be waited for inside another, which is where engines are dropped.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
