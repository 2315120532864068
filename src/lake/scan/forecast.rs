//! How many rows a scan will give, as far as the log tells, and what was found at the ends of files. No row is read for it.
//!
//! Values are taken to lie evenly between the bounds of each file, and columns not to hang together. What nothing is
//! known of, such as a comparison of texts, is unknown: a guess would be taken for knowledge.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Column as Named, ColumnStatistics, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::intervals::utils::check_support;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{
    AnalysisContext, ExprBoundaries, PhysicalExpr, analyze, conjunction, split_conjunction,
};
use datafusion::physical_optimizer::pruning::PruningStatistics;

use crate::lake::bounds::SafeBounds;
use crate::lake::scan::footers::{Footers, StoredColumn};
use crate::lake::scan::{Leaf, PlainScan};
use crate::lake::snapshot::{DataFile, Pinned};
use crate::lake::sort::SortedBy;
use crate::model::TableName;

/// Files that are looked at one by one; of more, all together.
const MOST_FILES: usize = 256;
/// Literals of an IN list that are looked at.
const MOST_LITERALS: usize = 256;
/// Bytes of a data file that are no values: what stands at the end of it, and of that for each column.
const FILE_BYTES: u64 = 500;
const COLUMN_BYTES: u64 = 300;

/// What a scan is expected to give.
#[derive(Clone, Debug)]
pub(crate) struct Forecast {
    /// The table.
    pub(crate) table: TableName,
    /// Its columns.
    pub(crate) columns: SchemaRef,
    /// Rows of the answer; unknown where the log does not tell, or the filter is none that can be reckoned with.
    pub(crate) rows: Option<f64>,
    /// Whether there will be exactly so many.
    pub(crate) is_exact: bool,
    /// Bytes that a row of the table takes in data files, where it has rows.
    pub(crate) stored: Option<f64>,
    /// Rows of the table, where the log tells.
    pub(crate) table_rows: Option<f64>,
    /// What is known of its columns, once somebody has looked.
    pinned: Arc<Pinned>,
}

impl Forecast {
    /// How data files hold a column, where somebody has looked.
    pub(crate) fn column(&self, name: &str) -> Option<StoredColumn> {
        self.pinned.footers.get()?.column(name)
    }

    /// The column whose values each name a row, where the files are written by such a key.
    pub(crate) fn key(&self) -> Option<String> {
        let view = self.pinned.eager.log_data().iter().next()?;
        #[expect(deprecated, reason = "no other call shows a file's tags")]
        let add = view.add_action();
        SortedBy::only_column(add.tags.as_ref())
    }
}

/// Looks at the ends of some files of a provider that is a plain scan of a version, for forecasts to tell more.
///
/// # Errors
/// When they cannot be read.
pub(crate) async fn look_at_footers(provider: &Arc<dyn TableProvider>, environment: &RuntimeEnv) -> Result<()> {
    let Some(scan) = provider.downcast_ref::<PlainScan>() else { return Ok(()) };
    let pinned = scan.pinned.as_ref();
    pinned.footers.get_or_try_init(|| Footers::read(pinned, environment)).await?;
    Ok(())
}

/// What a scan by these filters, which name columns without their table, is expected to give; none where the provider is
/// no plain scan of a version.
pub(crate) fn forecast_of(
    provider: &Arc<dyn TableProvider>,
    state: &dyn Session,
    filters: &[Expr],
) -> Option<Forecast> {
    let scan = provider.downcast_ref::<PlainScan>()?;
    let pinned = &scan.pinned;
    let (rows, is_exact) = expected(scan, state, filters).map_or((None, false), |(rows, exact)| (Some(rows), exact));
    let (table, columns) = (pinned.place.name().clone(), Arc::clone(&pinned.schema));
    let table_rows: Option<usize> = pinned.files().iter().map(|file| file.rows).sum();
    let table_rows = table_rows.map(|rows| rows as f64);
    let (stored, pinned) = (stored(pinned), Arc::clone(pinned));
    Some(Forecast { table, columns, rows, is_exact, stored, table_rows, pinned })
}

fn expected(scan: &PlainScan, state: &dyn Session, filters: &[Expr]) -> Option<(f64, bool)> {
    let pinned = &scan.pinned;
    let leaf = Leaf::new(pinned, state);
    let predicate = leaf.predicate(filters).ok()?;
    let mut kept = leaf.prune(predicate.as_ref()).ok()?;
    kept.retain(|place| !scan.left_out.contains(place));
    let Some(predicate) = predicate else { return Some((rows_of(pinned.files(), &kept)?, true)) };
    if kept.is_empty() {
        return Some((0.0, true));
    }
    let known = KnownBounds::of(pinned, &predicate);
    let schema = leaf.columns.table_schema();
    let each: Vec<&[usize]> = if kept.len() <= MOST_FILES { kept.chunks(1).collect() } else { vec![kept.as_slice()] };
    let mut sum = 0.0;
    for places in each {
        let rows = rows_of(pinned.files(), places)?;
        let share = Shares { schema, known: &known, places, rows }.of(&predicate)?;
        sum += rows * share;
    }
    // A file that cannot hold a row was left out before.
    Some((if sum > 0.0 { sum.max(1.0) } else { 0.0 }, false))
}

fn rows_of(files: &[DataFile], places: &[usize]) -> Option<f64> {
    places.iter().map(|place| files[*place].rows.map(|rows| rows as f64)).sum()
}

fn stored(pinned: &Pinned) -> Option<f64> {
    let columns = pinned.schema.fields().len() as u64;
    let (mut rows, mut bytes) = (0_usize, 0_u64);
    for file in pinned.files() {
        rows += file.rows?;
        // Of a file of few rows at least something is values.
        bytes += file.size.saturating_sub(FILE_BYTES + columns * COLUMN_BYTES).max(file.size / 10);
    }
    (rows > 0).then(|| bytes as f64 / rows as f64)
}

/// What the log says of the columns a predicate looks at, by file.
struct KnownBounds(HashMap<String, ColumnBounds>);

struct ColumnBounds {
    minima: Option<ArrayRef>,
    maxima: Option<ArrayRef>,
    nulls: Option<ArrayRef>,
}

impl KnownBounds {
    fn of(pinned: &Pinned, predicate: &Arc<dyn PhysicalExpr>) -> Self {
        let bounds = SafeBounds::new(pinned);
        let columns = collect_columns(predicate).into_iter().map(|column| {
            let named = Named::from_name(column.name());
            let (minima, maxima) = (bounds.min_values(&named), bounds.max_values(&named));
            let nulls = bounds.null_counts(&named);
            (column.name().to_owned(), ColumnBounds { minima, maxima, nulls })
        });
        Self(columns.collect())
    }

    /// Between which values those of a column are in some files; none where one of them does not tell.
    fn between(&self, column: &str, places: &[usize]) -> Option<(ScalarValue, ScalarValue)> {
        let bounds = self.0.get(column)?;
        let least = extreme(bounds.minima.as_ref()?, places, |value, best| value < best)?;
        let greatest = extreme(bounds.maxima.as_ref()?, places, |value, best| value > best)?;
        Some((least, greatest))
    }

    /// How many values of a column are null in some files.
    fn nulls(&self, column: &str, places: &[usize]) -> Option<f64> {
        let nulls = self.0.get(column)?.nulls.as_ref()?;
        let counts = places.iter().map(|place| match ScalarValue::try_from_array(nulls, *place) {
            Ok(ScalarValue::UInt64(count)) => count.map(|count| count as f64),
            _ => None,
        });
        counts.sum()
    }
}

fn extreme(
    values: &ArrayRef,
    places: &[usize],
    is_further: impl Fn(&ScalarValue, &ScalarValue) -> bool,
) -> Option<ScalarValue> {
    let mut best: Option<ScalarValue> = None;
    for place in places {
        let value = ScalarValue::try_from_array(values, *place).ok()?;
        if value.is_null() {
            return None;
        }
        if best.as_ref().is_none_or(|best| is_further(&value, best)) {
            best = Some(value);
        }
    }
    best
}

/// Shares of the rows of some files.
struct Shares<'a> {
    schema: &'a SchemaRef,
    known: &'a KnownBounds,
    places: &'a [usize],
    rows: f64,
}

impl Shares<'_> {
    /// The share that matches, from 0 to 1; none where it is not known.
    fn of(&self, predicate: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let (moments, other): (Vec<_>, Vec<_>) =
            split_conjunction(predicate).into_iter().partition(|part| Moment::of(part, self.schema).is_some());
        let (compared, other): (Vec<_>, Vec<_>) =
            other.into_iter().cloned().partition(|part| is_comparison(part, self.schema));
        let mut share = if compared.is_empty() { 1.0 } else { self.compared(conjunction(compared))? };
        share *= self.at_moments(moments.into_iter().filter_map(|part| Moment::of(part, self.schema)))?;
        for part in other {
            share *= self.part(&part)?;
        }
        Some(share.clamp(0.0, 1.0))
    }

    fn part(&self, part: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
            return match binary.op() {
                Operator::Or => {
                    let (left, right) = (self.of(binary.left())?, self.of(binary.right())?);
                    Some(left + right - left * right)
                }
                Operator::NotEq => {
                    let equal = BinaryExpr::new(Arc::clone(binary.left()), Operator::Eq, Arc::clone(binary.right()));
                    self.without(&(Arc::new(equal) as Arc<dyn PhysicalExpr>))
                }
                _ => None,
            };
        }
        if let Some(list) = part.downcast_ref::<InListExpr>() {
            return self.listed(list);
        }
        if let Some(is_null) = part.downcast_ref::<IsNullExpr>() {
            return self.null_share(is_null.arg());
        }
        if let Some(is_not_null) = part.downcast_ref::<IsNotNullExpr>() {
            return self.null_share(is_not_null.arg()).map(|share| 1.0 - share);
        }
        if let Some(not) = part.downcast_ref::<NotExpr>() {
            return self.without(not.arg());
        }
        match part.downcast_ref::<Literal>()?.value() {
            ScalarValue::Boolean(truth) => Some(if *truth == Some(true) { 1.0 } else { 0.0 }),
            _ => None,
        }
    }

    /// The share of which a predicate is false: not that of which it is null.
    fn without(&self, predicate: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        Some(self.values(predicate)? - self.of(predicate)?)
    }

    fn listed(&self, list: &InListExpr) -> Option<f64> {
        if list.list().len() > MOST_LITERALS {
            return None;
        }
        let mut share = 0.0;
        for item in list.list() {
            let equal = BinaryExpr::new(Arc::clone(list.expr()), Operator::Eq, Arc::clone(item));
            share += self.of(&(Arc::new(equal) as Arc<dyn PhysicalExpr>))?;
        }
        let share = share.min(1.0);
        if list.negated() { Some(self.values(list.expr())? - share) } else { Some(share) }
    }

    /// Of comparisons of columns with literals: how much of what lies between the bounds is left.
    fn compared(&self, predicate: Arc<dyn PhysicalExpr>) -> Option<f64> {
        let bounds = collect_columns(&predicate).into_iter().map(|column| {
            let (least, greatest) = self.known.between(column.name(), self.places)?;
            let mut known = ColumnStatistics::new_unknown();
            known.min_value = Precision::Inexact(least);
            known.max_value = Precision::Inexact(greatest);
            ExprBoundaries::try_from_column(self.schema, &known, column.index()).ok()
        });
        let bounds = bounds.collect::<Option<Vec<_>>>()?;
        let found = analyze(&predicate, AnalysisContext::new(bounds), self.schema).ok()?;
        Some(found.selectivity? * self.values(&predicate)?)
    }

    /// Of comparisons of days and times with literals, of whose intervals the engine does not know the length.
    fn at_moments<'m>(&self, compared: impl Iterator<Item = Moment<'m>>) -> Option<f64> {
        let mut spans: HashMap<&str, [i128; 4]> = HashMap::new();
        for Moment { column, operator, value } in compared {
            let [.., from, to] = match spans.entry(column) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let (least, greatest) = self.known.between(column, self.places)?;
                    let (least, greatest) = (moment(&least)?, moment(&greatest)?);
                    new.insert([least, greatest, least, greatest])
                }
            };
            if matches!(operator, Operator::Eq | Operator::Gt | Operator::GtEq) {
                *from = (*from).max(value + i128::from(operator == Operator::Gt));
            }
            if matches!(operator, Operator::Eq | Operator::Lt | Operator::LtEq) {
                *to = (*to).min(value - i128::from(operator == Operator::Lt));
            }
        }
        let shares = spans.into_iter().map(|(column, [least, greatest, from, to])| {
            let (left, all) = ((to - from + 1).max(0) as f64, (greatest - least + 1) as f64);
            Some(left / all * (1.0 - self.null_share_of(column)?))
        });
        shares.product()
    }

    /// The share of rows that have values in all columns of an expression.
    fn values(&self, expression: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let columns = collect_columns(expression);
        let shares = columns.iter().map(|column| Some(1.0 - self.null_share_of(column.name())?));
        shares.product()
    }

    fn null_share(&self, argument: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        self.null_share_of(argument.downcast_ref::<Column>()?.name())
    }

    fn null_share_of(&self, column: &str) -> Option<f64> {
        let nulls = self.known.nulls(column, self.places)?;
        Some(if self.rows > 0.0 { (nulls / self.rows).clamp(0.0, 1.0) } else { 0.0 })
    }
}

/// Whether a column is compared with a literal, in a way whose intervals can be computed.
fn is_comparison(part: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return false };
    matches!(binary.op(), Eq | Lt | LtEq | Gt | GtEq)
        && (binary.left().is::<Literal>() != binary.right().is::<Literal>())
        && check_support(part, schema)
}

/// A comparison of a column of days or times with a literal of its type.
struct Moment<'a> {
    column: &'a str,
    operator: Operator,
    value: i128,
}

impl<'a> Moment<'a> {
    fn of(part: &'a Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Self> {
        let binary = part.downcast_ref::<BinaryExpr>()?;
        let (column, operator, literal) = match binary.left().downcast_ref::<Column>() {
            Some(column) => (column, *binary.op(), binary.right()),
            None => (binary.right().downcast_ref::<Column>()?, binary.op().swap()?, binary.left()),
        };
        let literal = literal.downcast_ref::<Literal>()?.value();
        let is_compared =
            matches!(operator, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
        if !is_compared || schema.field_with_name(column.name()).ok()?.data_type() != &literal.data_type() {
            return None;
        }
        Some(Self { column: column.name(), operator, value: moment(literal)? })
    }
}

/// A day or time as its number.
fn moment(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Date32(Some(days)) => Some(i128::from(*days)),
        ScalarValue::TimestampSecond(Some(time), _)
        | ScalarValue::TimestampMillisecond(Some(time), _)
        | ScalarValue::TimestampMicrosecond(Some(time), _)
        | ScalarValue::TimestampNanosecond(Some(time), _) => Some(i128::from(*time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int64Array, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::logical_expr::{col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// The share of a file of 1,000 rows; `id` is from 1 to 1,000, of `late` 250 are null, of `day`, from 0 to 9,
    /// 500, and `name` is text.
    fn share(filter: Expr) -> Option<f64> {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("late", DataType::Int64, true),
            Field::new("day", DataType::Date32, true),
            Field::new("name", DataType::Utf8, true),
        ]));
        let columns = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let predicate = SessionContext::new().state().create_physical_expr(filter, &columns).unwrap();
        let bounds = |nulls: u64| ColumnBounds {
            minima: Some(Arc::new(Int64Array::from(vec![1]))),
            maxima: Some(Arc::new(Int64Array::from(vec![1_000]))),
            nulls: Some(Arc::new(UInt64Array::from(vec![nulls]))),
        };
        let nothing = ColumnBounds { minima: None, maxima: None, nulls: None };
        let days = ColumnBounds {
            minima: Some(Arc::new(Date32Array::from(vec![0]))),
            maxima: Some(Arc::new(Date32Array::from(vec![9]))),
            nulls: Some(Arc::new(UInt64Array::from(vec![500]))),
        };
        let columns = [("id", bounds(0)), ("late", bounds(250)), ("day", days), ("name", nothing)];
        let known = KnownBounds(columns.into_iter().map(|(name, known)| (name.to_owned(), known)).collect());
        Shares { schema: &schema, known: &known, places: &[0], rows: 1_000.0 }.of(&predicate)
    }

    fn is_about(filter: Expr, expected: f64) {
        let found = share(filter.clone());
        assert!(found.is_some_and(|found| (found - expected).abs() < 0.005), "{filter}: {found:?}");
    }

    #[test]
    fn shares_follow_from_bounds_and_nulls() {
        is_about(col("id").eq(lit(7_i64)), 0.001);
        is_about(col("id").gt_eq(lit(501_i64)), 0.5);
        is_about(col("id").gt_eq(lit(201_i64)).and(col("id").lt(lit(301_i64))), 0.1);
        is_about(col("id").lt(lit(0_i64)), 0.0);
        is_about(col("id").not_eq(lit(7_i64)), 0.999);
        is_about(col("id").in_list(vec![lit(7_i64), lit(8_i64)], false), 0.002);
        is_about(col("late").is_null(), 0.25);
        is_about(col("late").is_not_null(), 0.75);
        is_about(col("late").lt_eq(lit(500_i64)), 0.375);
        is_about(col("id").lt_eq(lit(500_i64)).and(col("late").lt_eq(lit(500_i64))), 0.1875);
        is_about(col("id").lt_eq(lit(500_i64)).or(col("late").is_null()), 0.625);
        let day = |number| lit(ScalarValue::Date32(Some(number)));
        is_about(col("day").eq(day(3)), 0.05);
        is_about(col("day").gt_eq(day(2)).and(col("day").lt(day(6))), 0.2);
        is_about(day(6).lt(col("day")).and(col("id").lt_eq(lit(500_i64))), 0.075);
        is_about(col("day").in_list(vec![day(3), day(4)], false), 0.1);
        is_about(col("day").gt(day(20)), 0.0);
    }

    #[test]
    fn what_nothing_is_known_of_is_unknown() {
        for filter in [
            col("name").eq(lit("a")),
            col("name").is_null(),
            col("name").like(lit("a%")),
            col("id").eq(col("late")),
            col("id").eq(lit(7_i64)).and(col("name").eq(lit("a"))),
            col("id").eq(lit(7_i64)).or(col("name").eq(lit("a"))),
        ] {
            assert_eq!(share(filter.clone()), None, "{filter}");
        }
    }
}
