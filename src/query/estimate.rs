//! How large a result will be, before it is computed: from what the log says of the files, from what stands at the ends of
//! some of them, and from the plan. No row is read for it.
//!
//! What cannot be told is unknown: joins but by a key, groupings by what has many values, filters over what was computed,
//! comparisons of texts. So is all of a query over a table of which rows are kept back from who asks: how many there are would
//! tell of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Expr, FetchType, Filter, Join, JoinType, Limit, LogicalPlan, Projection, SkipType, TableScan, Union,
};
use futures::future::join_all;

use crate::lake::{Forecast, StoredColumn, StoredForm, forecast_of, look_at_footers};
use crate::model::TableName;
use crate::query::distinct::{Distinct, Traced};
use crate::query::sample;
use crate::query::sealed::{Told, told};

/// Rows up to which a limit is told as the number of rows where nothing else is known of them: that there are fewer makes no
/// difference to anybody.
const FEW_ROWS: usize = 1_000;

/// How large the result of a query will be, before it is brought on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Its rows; none where they are not known.
    pub rows: Option<Rows>,
    /// Its columns, in order.
    pub columns: Vec<ColumnEstimate>,
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rows {
    /// How many.
    pub count: f64,
    /// Whether there will be exactly so many.
    pub is_exact: bool,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnEstimate {
    /// Its name.
    pub name: String,
    /// Its type, as planned.
    pub data_type: DataType,
    /// The column of a table whose values it holds as they are, where it is one.
    pub origin: Option<Origin>,
    /// How many different values it has, where that is known.
    pub distinct: Option<Distinct>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The table.
    pub table: TableName,
    /// The column's own name.
    pub column: String,
    /// How data files hold it, as they say themselves; else by their size and the types of their columns.
    pub stored: Option<StoredColumn>,
}

impl Estimate {
    /// Nothing is known of a result with these columns.
    pub fn unknown(schema: &Schema) -> Self {
        Self { rows: None, columns: columns(schema, vec![Traced::default(); schema.fields().len()]) }
    }

    /// The columns of the answer to EXPLAIN ESTIMATE: its first row is about the whole result, without a `column`, the
    /// others about each of its columns. What is not known is null.
    pub fn table_schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("column", DataType::Utf8, true),
            Field::new("rows", DataType::Int64, true),
            Field::new("rows_exact", DataType::Boolean, true),
            Field::new("wire_bytes", DataType::Int64, true),
            Field::new("seconds", DataType::Float64, true),
        ]))
    }
}

/// How large the result of a plan will be; `written` is the plan before it was `optimized`.
pub(super) fn estimate((written, optimized): (&LogicalPlan, &LogicalPlan), state: &SessionState) -> Estimate {
    let schema = written.schema().as_arrow();
    // What is kept back counts even where the plan does without it.
    if is_kept_back(written) {
        return Estimate::unknown(schema);
    }
    let known = Estimator { state }.of(optimized);
    if known.columns.len() != schema.fields().len() {
        return Estimate { rows: known.rows, ..Estimate::unknown(schema) };
    }
    Estimate { rows: known.rows, columns: columns(schema, known.columns) }
}

/// Looks at the ends of some files of the tables whose rows reach the result, for [`estimate`] to tell more. What cannot be read
/// is told when the statement runs.
pub(super) async fn look_at_files(optimized: &LogicalPlan, environment: &RuntimeEnv) {
    let mut scans = Vec::new();
    collect_scans(optimized, &mut scans);
    let providers = scans.into_iter().filter_map(|scan| source_as_provider(&scan.source).ok());
    let looked = providers.map(|provider| async move {
        let version = match told(&provider) {
            Told::All => &provider,
            Told::But(version, _) => version,
            Told::Nothing => return,
        };
        if let Err(error) = look_at_footers(version, environment).await {
            tracing::debug!(%error, "data files do not tell of their columns");
        }
    });
    join_all(looked).await;
}

/// The scans below a plan. What is aggregated as a whole has one row, whatever is below it.
fn collect_scans<'a>(plan: &'a LogicalPlan, found: &mut Vec<&'a TableScan>) {
    match plan {
        LogicalPlan::TableScan(scan) => found.push(scan),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {}
        _ => plan.inputs().into_iter().for_each(|input| collect_scans(input, found)),
    }
}

fn columns(schema: &Schema, traced: Vec<Traced>) -> Vec<ColumnEstimate> {
    let columns = schema.fields().iter().zip(traced).map(|(field, traced)| ColumnEstimate {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        origin: traced.origin,
        distinct: traced.distinct,
    });
    columns.collect()
}

/// Whether rows of a table of the plan are kept back from who asks.
fn is_kept_back(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let looked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            found |= matches!(told(&provider), Told::Nothing);
            // A sample is drawn from what may be seen of its table.
            found |= provider.get_logical_plan().is_some_and(|below| is_kept_back(&below));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || looked.is_err()
}

/// What is known of a part of a plan.
struct Known {
    rows: Option<Rows>,
    columns: Vec<Traced>,
}

impl Known {
    fn nothing(plan: &LogicalPlan) -> Self {
        Self { rows: None, columns: vec![Traced::default(); plan.schema().fields().len()] }
    }

    fn exactly(count: f64, plan: &LogicalPlan) -> Self {
        Self { rows: Some(Rows { count, is_exact: true }), ..Self::nothing(plan) }
    }

    /// At most so many rows of it, after so many were left out.
    fn limited(self, skip: usize, fetch: Option<usize>) -> Self {
        let most = fetch.map_or(f64::INFINITY, |fetch| fetch as f64);
        let rows = self.rows.map(|rows| Rows { count: (rows.count - skip as f64).max(0.0).min(most), ..rows });
        let rows = match fetch {
            // Whatever comes, none of it is taken.
            Some(0) => Some(Rows { count: 0.0, is_exact: true }),
            Some(1..=FEW_ROWS) => rows.or(Some(Rows { count: most, is_exact: false })),
            _ => rows,
        };
        Self { rows, ..self }
    }
}

struct Estimator<'a> {
    state: &'a SessionState,
}

impl Estimator<'_> {
    fn of(&self, plan: &LogicalPlan) -> Known {
        match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan, &[], plan),
            LogicalPlan::Filter(filter) => self.filtered(filter, plan),
            LogicalPlan::Projection(projection) => self.projected(projection),
            LogicalPlan::SubqueryAlias(alias) => self.of(&alias.input),
            LogicalPlan::Repartition(repartition) => self.of(&repartition.input),
            LogicalPlan::Sort(sort) => self.of(&sort.input).limited(0, sort.fetch),
            LogicalPlan::Limit(limit) => self.cut(limit),
            LogicalPlan::Window(window) => {
                let mut input = self.of(&window.input);
                input.columns.resize(plan.schema().fields().len(), Traced::default());
                input
            }
            LogicalPlan::Union(union) => self.one_after_the_other(union, plan),
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Known::exactly(1.0, plan),
            LogicalPlan::Aggregate(aggregate) => self.grouped(aggregate, plan),
            LogicalPlan::Values(values) => Known::exactly(values.values.len() as f64, plan),
            LogicalPlan::EmptyRelation(empty) => Known::exactly(if empty.produce_one_row { 1.0 } else { 0.0 }, plan),
            LogicalPlan::Join(join) => self.joined(join, plan),
            _ => Known::nothing(plan),
        }
    }

    /// A scan, with what of the filters stands above it.
    fn scanned(&self, scan: &TableScan, above: &[&Expr], plan: &LogicalPlan) -> Known {
        let Ok(provider) = source_as_provider(&scan.source) else { return Known::nothing(plan) };
        let nobody = BTreeSet::new();
        let (version, masked): (&Arc<dyn TableProvider>, &BTreeSet<String>) = match told(&provider) {
            Told::All => (&provider, &nobody),
            Told::But(version, masked) => (version, masked),
            Told::Nothing => return Known::nothing(plan),
        };
        let mut filters: Vec<Expr> = scan.filters.clone();
        for filter in above {
            if !filters.contains(filter) {
                filters.push((*filter).clone());
            }
        }
        let mut share: f64 = 1.0;
        filters.retain(|filter| match sample::share(filter) {
            // The same sample may be drawn above and within the scan.
            Some(drawn) => {
                share = drawn;
                false
            }
            None => true,
        });
        let looked_at: BTreeSet<&str> =
            filters.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
        let is_masked = looked_at.iter().any(|column| masked.contains(*column));
        let forecast = forecast_of(version, self.state, &unnormalize_cols(filters.iter().cloned()));
        let Some(forecast) = forecast else { return Known::nothing(plan) };
        let is_exact = forecast.is_exact && share >= 1.0;
        let rows = forecast.rows.filter(|_| !is_masked).map(|count| Rows { count: count * share, is_exact });
        let seen = provider.schema();
        let every: Vec<usize> = (0..seen.fields().len()).collect();
        // What a row takes in the files tells of the columns that are not seen, too.
        let sees_all = masked.is_empty() && seen.fields().len() == forecast.columns.fields().len();
        let stored = forecast.stored.filter(|_| sees_all).map(|of_row| Stored::new(&forecast.columns, of_row));
        let key = forecast.key();
        let places = scan.projection.as_ref().unwrap_or(&every);
        let columns = places.iter().map(|place| {
            let field = seen.field(*place);
            let is_narrowed = looked_at.contains(field.name().as_str());
            let Some(origin) = origin(field, &forecast, masked, stored.as_ref()) else {
                return Traced { is_narrowed, ..Traced::default() };
            };
            let distinct = origin.stored.as_ref().and_then(Distinct::of_stored);
            let names_one_of = forecast.table_rows.filter(|_| key.as_ref() == Some(field.name()));
            Traced { origin: Some(origin), distinct, is_narrowed, names_one_of }
        });
        Known { rows, columns: columns.collect() }.limited(0, scan.fetch)
    }

    /// A filter right above a scan is one of the scan; over what was computed nothing is known.
    fn filtered(&self, filter: &Filter, plan: &LogicalPlan) -> Known {
        match filter.input.as_ref() {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                self.scanned(scan, &split_conjunction(&filter.predicate), plan)
            }
            input => Known { rows: None, ..self.of(input) },
        }
    }

    fn projected(&self, projection: &Projection) -> Known {
        let Known { rows, columns } = self.of(&projection.input);
        let schema = projection.input.schema();
        let projected = projection.expr.iter().map(|expr| Traced::of(expr, &columns, schema));
        Known { rows, columns: projected.collect() }
    }

    fn cut(&self, limit: &Limit) -> Known {
        match (limit.get_skip_type(), limit.get_fetch_type()) {
            (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) => self.of(&limit.input).limited(skip, fetch),
            _ => Known { rows: None, ..self.of(&limit.input) },
        }
    }

    /// The columns of a union have the values of those of its parts, and come from none of them alone.
    fn one_after_the_other(&self, union: &Union, plan: &LogicalPlan) -> Known {
        let parts: Vec<Known> = union.inputs.iter().map(|input| self.of(input)).collect();
        let rows = parts.iter().try_fold(Rows { count: 0.0, is_exact: true }, |sum, part| {
            let Rows { count, is_exact } = part.rows?;
            Some(Rows { count: sum.count + count, is_exact: sum.is_exact && is_exact })
        });
        let mut columns = Known::nothing(plan).columns;
        for (place, column) in columns.iter_mut().enumerate() {
            let each: Option<Vec<Distinct>> = parts.iter().map(|part| part.columns.get(place)?.distinct).collect();
            column.distinct = each.and_then(|each| each.into_iter().reduce(Distinct::beside));
            column.is_narrowed = true;
        }
        Known { rows, columns }
    }

    /// As many rows as the columns grouped by have values together, as far as that many rows can have them all.
    fn grouped(&self, aggregate: &Aggregate, plan: &LogicalPlan) -> Known {
        let input = self.of(&aggregate.input);
        let schema = aggregate.input.schema();
        let keys: Vec<Traced> =
            aggregate.group_expr.iter().map(|key| Traced::of(key, &input.columns, schema)).collect();
        let counts = keys.iter().map(|key| key.distinct.filter(|_| !key.is_narrowed).map(|known| known.count));
        let combined: Option<f64> = counts.product();
        let rows = combined.zip(input.rows).map(|(combined, rows)| {
            let count = combined.max(1.0) * (1.0 - (-rows.count / combined.max(1.0)).exp());
            Rows { count: count.min(rows.count), is_exact: false }
        });
        let mut columns = Known::nothing(plan).columns;
        for (column, key) in columns.iter_mut().zip(&keys) {
            // A value comes once with each that the others have; and takes what it takes by itself, not what it takes in a table.
            let of_rows = rows.map_or(0.0, |rows| rows.count);
            column.distinct = key.distinct.map(|known| Distinct { within: known.count, of_rows, ..known });
            column.is_narrowed = key.is_narrowed;
        }
        Known { rows, columns }
    }

    /// A row finds one of another table at most where it names it by its key, and finds it as often as not all were left out.
    fn joined(&self, join: &Join, plan: &LogicalPlan) -> Known {
        let (left, right) = (self.of(&join.left), self.of(&join.right));
        if left.columns.len() + right.columns.len() != plan.schema().fields().len() {
            return Known::nothing(plan);
        }
        let (mut from_left, mut from_right) = (None, None);
        if let ([(one, other)], None) = (join.on.as_slice(), &join.filter) {
            let one = Traced::of(one, &left.columns, join.left.schema()).names_one_of;
            let other = Traced::of(other, &right.columns, join.right.schema()).names_one_of;
            let found = |many: Option<Rows>, one: Option<Rows>, all: f64| {
                let share = if all > 0.0 { (one?.count / all).min(1.0) } else { 1.0 };
                Some(many?.count * share)
            };
            from_left = other.and_then(|all| found(left.rows, right.rows, all));
            from_right = one.and_then(|all| found(right.rows, left.rows, all));
        }
        let count = match join.join_type {
            // Where both are keys, as many as the smaller one.
            JoinType::Inner => match (from_left, from_right) {
                (Some(left), Some(right)) => Some(left.min(right)),
                (left, right) => left.or(right),
            },
            JoinType::Left => from_left.and(left.rows).map(|rows| rows.count),
            JoinType::Right => from_right.and(right.rows).map(|rows| rows.count),
            _ => None,
        };
        let mut columns: Vec<Traced> = left.columns.into_iter().chain(right.columns).collect();
        // A row may be there several times now.
        columns.iter_mut().for_each(|column| column.names_one_of = None);
        Known { rows: count.map(|count| Rows { count, is_exact: false }), columns }
    }
}

/// Where a column of a table comes from; one whose values are masked from nowhere.
fn origin(field: &Field, forecast: &Forecast, masked: &BTreeSet<String>, stored: Option<&Stored>) -> Option<Origin> {
    let is_own = forecast.columns.index_of(field.name()).is_ok() && !masked.contains(field.name());
    is_own.then(|| {
        let shared_out = || {
            let packed = stored?.of(field.data_type());
            Some(StoredColumn { packed, length: None, form: StoredForm::Unknown })
        };
        let stored = forecast.column(field.name()).or_else(shared_out);
        Origin { table: forecast.table.clone(), column: field.name().clone(), stored }
    })
}

/// How the bytes of a row in data files are shared out among its columns.
struct Stored {
    of_row: f64,
    /// What floats usually take, of all columns together, and what the others do.
    floats: f64,
    others: f64,
}

impl Stored {
    fn new(columns: &Schema, of_row: f64) -> Self {
        let (mut floats, mut others) = (0.0, 0.0);
        for field in columns.fields() {
            let sum = if field.data_type().is_floating() { &mut floats } else { &mut others };
            *sum += weight(field.data_type());
        }
        Self { of_row, floats, others }
    }

    /// Bytes of a value. Floats hardly pack: they take what they usually take, and the others what is left, unless too
    /// little is left for that.
    fn of(&self, data_type: &DataType) -> f64 {
        let usual = weight(data_type);
        if self.floats + self.others / 10.0 > self.of_row {
            usual * self.of_row / (self.floats + self.others)
        } else if data_type.is_floating() {
            usual
        } else {
            usual * (self.of_row - self.floats) / self.others
        }
    }
}

/// Bytes a value of a type usually takes in compressed Parquet: by these the bytes of a file are shared out among its
/// columns. From the frames and the table of TPC-H that docs/benchmarks.md measures.
fn weight(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Null => 0.01,
        DataType::Boolean => 0.1,
        DataType::Int8 | DataType::UInt8 => 0.6,
        DataType::Int16 | DataType::UInt16 | DataType::Float16 => 1.0,
        DataType::Int32 | DataType::UInt32 | DataType::Date32 => 1.6,
        DataType::Int64 | DataType::UInt64 | DataType::Date64 => 2.0,
        DataType::Float32 => 3.5,
        DataType::Float64 => 7.0,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            1.0 + 4.0 * weight(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().map(|field| weight(field.data_type())).sum(),
        DataType::Map(entries, _) => 1.0 + 4.0 * weight(entries.data_type()),
        DataType::Dictionary(_, values) => weight(values),
        data_type if data_type.is_temporal() || data_type.is_decimal() => 2.5,
        _ => 5.0,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn rows(sql: &str) -> Option<(f64, bool)> {
        let state = SessionContext::new().state();
        let written = state.create_logical_plan(sql).await.unwrap();
        let optimized = state.optimize(&written).unwrap();
        estimate((&written, &optimized), &state).rows.map(|rows| (rows.count, rows.is_exact))
    }

    #[tokio::test]
    async fn what_a_plan_says_itself_is_exact() {
        for (sql, count) in [
            ("select 1", 1.0),
            ("select * from (values (1), (2), (3)) t(a)", 3.0),
            ("select * from (values (1), (2), (3)) t(a) limit 2", 2.0),
            ("select * from (values (1), (2), (3)) t(a) order by a limit 5 offset 1", 2.0),
            ("select count(*), max(a) from (values (1), (2), (3)) t(a) where a > 1", 1.0),
            ("select 1 as a union all select 2", 2.0),
            ("select a from (values (1), (2)) t(a) where false", 0.0),
        ] {
            assert_eq!(rows(sql).await, Some((count, true)), "{sql}");
        }
    }

    #[test]
    fn floats_take_their_bytes_of_a_row_and_the_others_share_what_is_left() {
        let columns = [("f", DataType::Float64), ("n", DataType::Int64), ("s", DataType::Utf8)];
        let columns = columns.map(|(name, data_type)| Field::new(name, data_type, true));
        let schema = Schema::new(columns.to_vec());
        let [float, number, text] = [DataType::Float64, DataType::Int64, DataType::Utf8];
        let stored = Stored::new(&schema, 21.0);
        assert_eq!([&float, &number, &text].map(|kind| stored.of(kind).round() as u64), [7, 4, 10]);
        let little = Stored::new(&schema, 1.4);
        let sum = little.of(&float) + little.of(&number) + little.of(&text);
        assert!((sum - 1.4).abs() < 1e-9 && little.of(&float) > little.of(&text));
    }

    #[tokio::test]
    async fn what_has_to_be_computed_is_unknown() {
        for sql in [
            "select a from (values (1), (2), (3)) t(a) where a > random() * 3",
            "select a, count(*) from (values (1), (2), (3)) t(a) group by a",
            "select distinct a from (values (1), (2), (3)) t(a)",
            "select t.a from (values (1), (2)) t(a) join (values (1), (2)) u(a) on t.a = u.a",
            "select * from generate_series(1, 10)",
            "select unnest([1, 2, 3])",
        ] {
            assert_eq!(rows(sql).await, None, "{sql}");
        }
    }
}
