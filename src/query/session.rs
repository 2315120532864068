//! Session states: functions, options and rules a statement is planned with, built once per profile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::timezone::Tz;
use datafusion::common::config::SpillCompression;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::optimizer::analyzer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionConfig;

use crate::query::arithmetic::CheckedArithmetic;
use crate::query::catalog::CATALOG;
use crate::query::clauses::Functions;
use crate::query::date_trunc::DateTrunc;
use crate::query::sum::ExactSum;
use crate::query::{QueryError, StatementOptions, order};

/// Functions that are taken out: they tell where the lake's files are.
const HIDDEN_FUNCTIONS: &[&str] = &["input_file_name"];

/// Profiles kept; more than a server's clients have together. Beyond that they are built anew.
const MAX_PROFILES: usize = 64;

/// Most partitions a statement may ask for.
const MAX_PARTITIONS: usize = 256;

/// Most rows of a batch a statement may ask for: what one message can carry with a few columns.
const MAX_BATCH_ROWS: usize = 1 << 20;

/// The session states of one engine.
pub(crate) struct Sessions {
    environment: Arc<RuntimeEnv>,
    threads: usize,
    default_schema: Option<String>,
    profiles: Mutex<HashMap<Profile, Arc<SessionState>>>,
}

/// What session states differ in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Profile {
    time_zone: String,
    schema: Option<String>,
    partitions: usize,
    /// Whether the order of rows has to be the same at each run.
    in_order: bool,
    batch_rows: usize,
}

impl Sessions {
    pub(crate) fn new(environment: Arc<RuntimeEnv>, threads: usize, default_schema: Option<String>) -> Self {
        Self { environment, threads, default_schema, profiles: Mutex::default() }
    }

    /// The state for a statement's options. Catalogs are the statement's own and set by who plans it.
    ///
    /// # Errors
    /// When an option is out of its range.
    pub(crate) fn state(&self, options: &StatementOptions) -> Result<Arc<SessionState>, QueryError> {
        zone(options)?;
        let profile = Profile {
            time_zone: options.time_zone.clone(),
            schema: options.schema.clone().or_else(|| self.default_schema.clone()),
            partitions: in_range("partitions", options.partitions, self.threads, MAX_PARTITIONS)?,
            in_order: options.partitions.is_some(),
            batch_rows: in_range("batch_rows", options.batch_rows, 8192, MAX_BATCH_ROWS)?,
        };
        let mut profiles = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = profiles.get(&profile) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(self.build(&profile)?);
        if profiles.len() >= MAX_PROFILES {
            profiles.clear();
        }
        profiles.insert(profile, Arc::clone(&state));
        Ok(state)
    }

    fn build(&self, profile: &Profile) -> Result<SessionState, QueryError> {
        let mut functions = SessionStateDefaults::default_scalar_functions();
        functions.retain(|function| !HIDDEN_FUNCTIONS.contains(&function.name()));
        let mut state = SessionStateBuilder::new()
            .with_default_features()
            .with_scalar_functions(functions)
            .with_table_factories(HashMap::new())
            .with_config(self.config(profile))
            .with_runtime_env(Arc::clone(&self.environment))
            .with_analyzer_rules(analyzer_rules())
            .build();
        datafusion_functions_json::register_all(&mut state)?;
        state.register_udaf(Arc::new(AggregateUDF::from(ExactSum::default())))?;
        state.register_udf(Arc::new(ScalarUDF::from(DateTrunc::default())))?;
        Ok(state)
    }

    fn config(&self, profile: &Profile) -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_target_partitions(profile.partitions)
            .with_batch_size(profile.batch_rows)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, profile.schema.as_deref().unwrap_or_default())
            // Served by the catalog itself, which knows schemas without opening tables.
            .with_information_schema(false);
        let options = config.options_mut();
        options.execution.time_zone = Some(profile.time_zone.clone());
        // Clients get plain types, and a view that keeps a whole batch alive costs more than a copy.
        options.execution.parquet.schema_force_view_types = false;
        options.sql_parser.map_string_types_to_utf8view = false;
        // See `literals`.
        options.sql_parser.parse_float_as_decimal = true;
        // Errors say where.
        options.sql_parser.collect_spans = true;
        options.execution.spill_compression = SpillCompression::Lz4Frame;
        if profile.in_order {
            order::keep(options);
        }
        config
    }
}

/// The engine's own rules with checked arithmetic twice: at the end, where all types are settled, and before they are,
/// for what has one type already. Settling them asks every operator of a sum for the type of all below it.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules = Analyzer::new().rules;
    let settles_types = rules.iter().position(|rule| rule.name() == "type_coercion").unwrap_or(0);
    rules.insert(settles_types, Arc::new(CheckedArithmetic { types_are_settled: false }));
    rules.push(Arc::new(CheckedArithmetic { types_are_settled: true }));
    rules
}

/// The zone of a statement's options.
///
/// # Errors
/// When there is no such zone.
pub(crate) fn zone(options: &StatementOptions) -> Result<Tz, QueryError> {
    options.time_zone.parse().map_err(|_| {
        QueryError::invalid(format!(
            "`{}` is no time zone; write a name such as Europe/Vienna, or an offset such as +01:00",
            options.time_zone
        ))
    })
}

/// Whether there is such a time zone.
pub fn is_time_zone(name: &str) -> bool {
    name.parse::<Tz>().is_ok()
}

fn in_range(name: &str, asked: Option<usize>, usual: usize, most: usize) -> Result<usize, QueryError> {
    match asked {
        None => Ok(usual),
        Some(asked) if (1..=most).contains(&asked) => Ok(asked),
        Some(asked) => Err(QueryError::invalid(format!("`{name}` is {asked}; it may be from 1 to {most}"))),
    }
}

/// Functions as the planner looks them up.
pub(crate) struct KnownFunctions<'a>(pub(crate) &'a SessionState);

impl Functions for KnownFunctions<'_> {
    fn is_scalar(&self, name: &str) -> bool {
        self.0.scalar_functions().contains_key(name)
            || self.0.higher_order_functions().contains_key(name)
            || matches!(name, "unnest" | "unnest_outer" | "map" | "make_map")
    }

    fn is_window_only(&self, name: &str) -> bool {
        self.0.window_functions().contains_key(name) && !self.0.aggregate_functions().contains_key(name)
    }
}
