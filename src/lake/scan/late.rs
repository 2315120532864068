//! Whether a scan decodes the predicate's columns first, and the others only where it holds.
//!
//! That spares pages that hold no row of the answer, and costs a second look at those that do: a point lookup in a wide
//! table was measured nine times as fast, other queries 5 to 55 % slower (apache/datafusion#20324, #23263). So it is
//! decided for each scan, by what is known of the files it reads.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{ColumnStatistics, HashSet};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::intervals::utils::check_support;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{
    AnalysisContext, ExprBoundaries, PhysicalExpr, analyze, conjunction, split_conjunction,
};

/// Largest share of rows that is few: below it most pages of some 20,000 rows still hold one where rows lie anyhow, but
/// nearly all decoding of them is spared.
const FEW: f64 = 0.01;

/// From how many columns beside those of the predicate, for each of these, a scan is wide.
const WIDE: usize = 4;

/// Whether few rows match a predicate, as far as is `known` of its columns, and many other columns are read.
///
/// Only where the predicate cannot fail: an error within the reader would be told as one of the file.
pub(super) fn pays(
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    read: &[usize],
    known: impl Fn(&str) -> ColumnStatistics,
) -> bool {
    let columns = collect_columns(predicate);
    let beside = read.iter().filter(|place| !columns.iter().any(|column| column.index() == **place)).count();
    !columns.is_empty()
        && beside >= WIDE * columns.len()
        && cannot_fail(predicate)
        && share(predicate, schema, &columns, known).is_ok_and(|share| share <= FEW)
}

/// Columns compared with literals or with each other, and AND, OR, NOT of such.
fn cannot_fail(predicate: &Arc<dyn PhysicalExpr>) -> bool {
    let is_known = |part: &Arc<dyn PhysicalExpr>| match part.downcast_ref::<BinaryExpr>() {
        Some(binary) => compares(*binary.op()),
        None => {
            part.is::<Column>()
                || part.is::<Literal>()
                || part.is::<NotExpr>()
                || part.is::<IsNullExpr>()
                || part.is::<IsNotNullExpr>()
                || part.is::<InListExpr>()
        }
    };
    matches!(predicate.exists(|part| Ok(!is_known(part))), Ok(false))
}

fn compares(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(op, And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The share of rows that match, if values lie evenly between their bounds. What nothing is known of counts as all.
fn share(
    predicate: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    columns: &HashSet<Column>,
    known: impl Fn(&str) -> ColumnStatistics,
) -> Result<f64> {
    let told = split_conjunction(predicate).into_iter().filter(|part| check_support(part, schema));
    let told: Vec<_> = told.map(Arc::clone).collect();
    if told.is_empty() {
        return Ok(1.0);
    }
    let bounds = columns
        .iter()
        .map(|column| ExprBoundaries::try_from_column(schema, &known(column.name()), column.index()))
        .collect::<Result<Vec<_>>>()?;
    let found = analyze(&conjunction(told), AnalysisContext::new(bounds), schema)?;
    Ok(found.selectivity.unwrap_or(1.0))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::stats::Precision;
    use datafusion::common::{DFSchema, ScalarValue};
    use datafusion::logical_expr::{Expr, col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Whether it pays to read `wide` columns by this predicate; `id` is from 1 to 100,000 and nothing is known of `name`.
    fn pays_for(filter: Expr, wide: usize) -> bool {
        let mut fields = vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
        fields.extend((2..wide).map(|place| Field::new(format!("c{place}"), DataType::Float64, true)));
        let schema = Arc::new(Schema::new(fields));
        let columns = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let predicate = SessionContext::new().state().create_physical_expr(filter, &columns).unwrap();
        let known = |column: &str| {
            let mut known = ColumnStatistics::new_unknown();
            if column == "id" {
                known.min_value = Precision::Inexact(ScalarValue::Int64(Some(1)));
                known.max_value = Precision::Inexact(ScalarValue::Int64(Some(100_000)));
            }
            known
        };
        pays(&predicate, &schema, &(0..wide).collect::<Vec<_>>(), known)
    }

    #[test]
    fn few_rows_of_many_columns_are_decoded_late() {
        for filter in [
            col("id").eq(lit(7_i64)),
            col("id").gt_eq(lit(50_000_i64)).and(col("id").lt(lit(50_100_i64))),
            col("id").eq(lit(7_i64)).and(col("name").eq(lit("a"))),
            col("id").gt(lit(200_000_i64)),
        ] {
            assert!(pays_for(filter.clone(), 20), "{filter}");
        }
    }

    #[test]
    fn many_rows_few_columns_and_what_could_fail_or_is_not_known_are_not() {
        assert!(!pays_for(col("id").eq(lit(7_i64)), 4), "few columns");
        for filter in [
            col("id").gt(lit(7_i64)),
            col("id").lt(lit(7_i64)).or(col("name").is_null()),
            col("name").eq(lit("a")),
            col("id").eq(lit(7_i64)).and((lit(1_i64) / col("id")).eq(lit(1_i64))),
            lit(true),
        ] {
            assert!(!pays_for(filter.clone(), 20), "{filter}");
        }
    }
}
