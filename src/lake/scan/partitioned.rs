//! Filters by partition columns, which have one value for all rows of a file: it is read whole or not at all, and nobody has
//! to look at its rows again.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Schema;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;

use crate::lake::scan::Leaf;

/// Whether a filter hangs on partition columns alone, and always says the same of them. In a table that has some, so does one
/// that names no column: the optimizer may have made it of one that did, which nobody applies any more.
pub(super) fn decides(filter: &Expr, partition_columns: &[String]) -> bool {
    let named = filter.column_refs();
    let is_asked_for = |part: &Expr| {
        Ok(matches!(
            part,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
                | Expr::OuterReferenceColumn(..)
        ))
    };
    !partition_columns.is_empty()
        && named.iter().all(|column| partition_columns.contains(&column.name))
        && !filter.is_volatile()
        && matches!(filter.exists(is_asked_for), Ok(false))
}

/// Keeps those of the files at these places for which all of the filters are true, each of which [`decides`].
///
/// # Errors
/// When a filter fails on the values of a file, as it would on each of its rows.
pub(super) fn retain(kept: &mut Vec<usize>, leaf: &Leaf<'_>, filters: &[Expr]) -> Result<()> {
    let Some(filter) = conjunction(filters.to_vec()).filter(|_| !kept.is_empty()) else { return Ok(()) };
    let files = leaf.pinned.files();
    let fields = leaf.columns.table_partition_cols().clone();
    let values = |column: usize| ScalarValue::iter_to_array(kept.iter().map(|p| files[*p].partition[column].clone()));
    let columns: Vec<ArrayRef> = (0..fields.len()).map(values).collect::<Result<_>>()?;
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let schema = DFSchema::try_from(rows.schema())?;
    let filter = leaf.state.create_physical_expr(filter, &schema)?;
    // File by file: of `n <> 0 and 10 / n > 1` the engine looks at the second part in all rows as soon as the first is true
    // of some, and it would fail for a file of which the first is false.
    let holds = (0..rows.num_rows()).map(|file| {
        let told = filter.evaluate(&rows.slice(file, 1))?.into_array(1)?;
        if told.data_type().is_null() {
            return Ok(false);
        }
        let is_no_condition = || DataFusionError::Internal("a filter by partition columns is no condition".to_owned());
        let told = told.as_boolean_opt().ok_or_else(is_no_condition)?;
        Ok(told.iter().next().flatten() == Some(true))
    });
    let mut holds = holds.collect::<Result<Vec<bool>>>()?.into_iter();
    kept.retain(|_| holds.next() == Some(true));
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::random;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn filters_of_partition_columns_alone_decide_for_a_file() {
        let partition_columns = ["day".to_owned(), "place".to_owned()];
        let day = || col("day").gt(lit("2024-01-01"));
        for filter in [day(), col("t.place").is_null(), day().or(col("place").in_list(vec![lit("x")], true))] {
            assert!(decides(&filter, &partition_columns), "{filter}");
        }
        for filter in [col("id").eq(lit(1)), day().or(col("id").eq(lit(1))), day().or(random().gt(lit(0.5)))] {
            assert!(!decides(&filter, &partition_columns), "{filter}");
        }
        assert!(decides(&lit(ScalarValue::Boolean(None)), &partition_columns));
        assert!(!decides(&day(), &[]) && !decides(&lit(true), &[]));
    }
}
