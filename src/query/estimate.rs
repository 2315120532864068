//! How large a result will be, before it is computed: from what the log says of the files, and from the plan. Nothing is
//! opened for it.
//!
//! What cannot be told is unknown: joins, groupings, filters over what was computed, comparisons of texts. So is all of a
//! query over a table of which rows are kept back from who asks: how many there are would tell of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, FetchType, Filter, Limit, LogicalPlan, Projection, SkipType, TableScan};

use crate::lake::{Forecast, forecast_of};
use crate::model::TableName;
use crate::query::sealed::{Told, told};

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
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The table.
    pub table: TableName,
    /// The column's own name.
    pub column: String,
    /// Bytes that a value of it takes in data files, by the size of the files and the types of their columns.
    pub stored: Option<f64>,
}

impl Estimate {
    /// Nothing is known of a result with these columns.
    pub fn unknown(schema: &Schema) -> Self {
        Self { rows: None, columns: columns(schema, vec![None; schema.fields().len()]) }
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
    let Known { rows, origins } = Estimator { state }.of(optimized);
    if origins.len() != schema.fields().len() {
        return Estimate { rows, ..Estimate::unknown(schema) };
    }
    Estimate { rows, columns: columns(schema, origins) }
}

fn columns(schema: &Schema, origins: Vec<Option<Origin>>) -> Vec<ColumnEstimate> {
    let columns = schema.fields().iter().zip(origins).map(|(field, origin)| ColumnEstimate {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        origin,
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
    /// Where its columns come from.
    origins: Vec<Option<Origin>>,
}

impl Known {
    fn nothing(plan: &LogicalPlan) -> Self {
        Self { rows: None, origins: vec![None; plan.schema().fields().len()] }
    }

    fn exactly(count: f64, plan: &LogicalPlan) -> Self {
        Self { rows: Some(Rows { count, is_exact: true }), ..Self::nothing(plan) }
    }

    /// At most so many rows of it, after so many were left out.
    fn limited(self, skip: usize, fetch: Option<usize>) -> Self {
        let most = fetch.map_or(f64::INFINITY, |fetch| fetch as f64);
        let rows = self.rows.map(|rows| Rows { count: (rows.count - skip as f64).max(0.0).min(most), ..rows });
        // Whatever comes, none of it is taken.
        let rows = if fetch == Some(0) { Some(Rows { count: 0.0, is_exact: true }) } else { rows };
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
                input.origins.resize(plan.schema().fields().len(), None);
                input
            }
            LogicalPlan::Union(union) => {
                let mut parts = union.inputs.iter().map(|input| self.of(input).rows);
                let rows = parts.try_fold(Rows { count: 0.0, is_exact: true }, |sum, rows| {
                    let Rows { count, is_exact } = rows?;
                    Some(Rows { count: sum.count + count, is_exact: sum.is_exact && is_exact })
                });
                Known { rows, ..Known::nothing(plan) }
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Known::exactly(1.0, plan),
            LogicalPlan::Values(values) => Known::exactly(values.values.len() as f64, plan),
            LogicalPlan::EmptyRelation(empty) => Known::exactly(if empty.produce_one_row { 1.0 } else { 0.0 }, plan),
            LogicalPlan::Join(join) => {
                let (left, right) = (self.of(&join.left).origins, self.of(&join.right).origins);
                let both: Vec<_> = left.into_iter().chain(right).collect();
                let is_both = both.len() == plan.schema().fields().len();
                if is_both { Known { rows: None, origins: both } } else { Known::nothing(plan) }
            }
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
        let is_masked = filters.iter().flat_map(Expr::column_refs).any(|column| masked.contains(&column.name));
        let filters = unnormalize_cols(filters);
        let Some(forecast) = forecast_of(version, self.state, &filters) else { return Known::nothing(plan) };
        let rows = forecast.rows.filter(|_| !is_masked).map(|count| Rows { count, is_exact: forecast.is_exact });
        let seen = provider.schema();
        let every: Vec<usize> = (0..seen.fields().len()).collect();
        // What a row takes in the files tells of the columns that are not seen, too.
        let sees_all = masked.is_empty() && seen.fields().len() == forecast.columns.fields().len();
        let stored = forecast.stored.filter(|_| sees_all).map(|of_row| Stored::new(&forecast.columns, of_row));
        let places = scan.projection.as_ref().unwrap_or(&every);
        let origins = places.iter().map(|place| origin(seen.field(*place), &forecast, masked, stored.as_ref()));
        Known { rows, origins: origins.collect() }.limited(0, scan.fetch)
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
        let Known { rows, origins } = self.of(&projection.input);
        let schema = projection.input.schema();
        let columns = projection.expr.iter().map(|expr| {
            let mut expr = expr;
            while let Expr::Alias(Alias { expr: inner, .. }) = expr {
                expr = inner;
            }
            let Expr::Column(column) = expr else { return None };
            origins.get(schema.maybe_index_of_column(column)?)?.clone()
        });
        Known { rows, origins: columns.collect() }
    }

    fn cut(&self, limit: &Limit) -> Known {
        match (limit.get_skip_type(), limit.get_fetch_type()) {
            (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) => self.of(&limit.input).limited(skip, fetch),
            _ => Known { rows: None, ..self.of(&limit.input) },
        }
    }
}

/// Where a column of a table comes from; one whose values are masked from nowhere.
fn origin(field: &Field, forecast: &Forecast, masked: &BTreeSet<String>, stored: Option<&Stored>) -> Option<Origin> {
    let is_own = forecast.columns.index_of(field.name()).is_ok() && !masked.contains(field.name());
    let stored = stored.map(|stored| stored.of(field.data_type()));
    is_own.then(|| Origin { table: forecast.table.clone(), column: field.name().clone(), stored })
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
