//! How many different values the columns of a result have, followed from the tables they come from.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::expr::{Alias, Case};
use datafusion::logical_expr::{Expr, Volatility};

use crate::lake::{StoredColumn, StoredForm};
use crate::query::estimate::Origin;

/// How many different values a column has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distinct {
    /// In all, about.
    pub count: f64,
    /// Those of some rows that stand together, of those that have most.
    pub within: f64,
    /// How many rows these are.
    pub of_rows: f64,
}

impl Distinct {
    /// So many, of any rows.
    fn few(count: usize) -> Self {
        Self { count: count as f64, within: count as f64, of_rows: f64::INFINITY }
    }

    /// Those of a column of a table, where its values stand in dictionaries.
    pub(super) fn of_stored(stored: &StoredColumn) -> Option<Self> {
        let StoredForm::Words(words) = stored.form else { return None };
        Some(Self { count: words.count, within: words.in_group, of_rows: words.group_rows })
    }

    /// Those of rows of two columns, one after the other.
    pub(super) fn beside(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            within: self.within + other.within,
            of_rows: self.of_rows.min(other.of_rows),
        }
    }
}

/// What is known of a column of a part of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Traced {
    /// The column of a table whose values it holds as they are.
    pub(super) origin: Option<Origin>,
    /// How many different values it has at most, about.
    pub(super) distinct: Option<Distinct>,
    /// Whether a filter looked at it: it may have fewer.
    pub(super) is_narrowed: bool,
    /// Rows of its table, where each of its values names one of them.
    pub(super) names_one_of: Option<f64>,
}

impl Traced {
    /// What is known of an expression over columns of which so much is known.
    pub(super) fn of(expr: &Expr, columns: &[Self], schema: &DFSchema) -> Self {
        let expr = without_alias(expr);
        let known = |expr: &Expr| match expr {
            Expr::Column(column) => columns.get(schema.maybe_index_of_column(column)?),
            _ => None,
        };
        if let Some(column) = known(expr) {
            return column.clone();
        }
        if let Some(count) = literals(expr) {
            return Self { distinct: Some(Distinct::few(count)), ..Self::default() };
        }
        // What is computed from one column has as many values as that has, or fewer.
        let read = expr.column_refs();
        let mut read = read.into_iter().map(|column| columns.get(schema.maybe_index_of_column(column)?));
        match (read.next(), read.next()) {
            (Some(Some(only)), None) if is_the_same_for_the_same(expr) => {
                Self { distinct: only.distinct, is_narrowed: only.is_narrowed, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

/// How many literals an expression chooses from; none where it is something else.
fn literals(expr: &Expr) -> Option<usize> {
    match without_alias(expr) {
        Expr::Literal(..) => Some(1),
        Expr::Case(Case { expr: _, when_then_expr, else_expr }) => {
            let chosen = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
            chosen.map(|then| literals(then)).sum()
        }
        _ => None,
    }
}

fn without_alias(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(Alias { expr: inner, .. }) = expr {
        expr = inner;
    }
    expr
}

/// Whether an expression hangs on the columns it names alone, row by row.
fn is_the_same_for_the_same(expr: &Expr) -> bool {
    let hangs_on_more = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::Case(_)
            | Expr::BinaryExpr(_)
            | Expr::Like(_)
            | Expr::InList(_)
            | Expr::Between(_)
            | Expr::Not(_)
            | Expr::Negative(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_) => false,
            _ => true,
        })
    });
    matches!(hangs_on_more, Ok(false))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::functions::expr_fn::{random, upper};
    use datafusion::logical_expr::{cast, col, lit, when};

    use super::*;

    /// How many values an expression has over `kind`, which has 20, and `name`, of which nothing is known.
    fn count(expr: &Expr) -> Option<f64> {
        let fields = ["kind", "name"].map(|name| Field::new(name, DataType::Utf8, true));
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        let columns = [Traced { distinct: Some(Distinct::few(20)), ..Traced::default() }, Traced::default()];
        Traced::of(expr, &columns, &schema).distinct.map(|known| known.count)
    }

    #[test]
    fn what_is_computed_from_a_column_has_no_more_values_than_that() {
        let chosen = when(col("name").eq(lit("x")), lit("a")).otherwise(lit("b")).unwrap();
        for (expr, found) in [
            (col("kind"), Some(20.0)),
            (col("kind").alias("k"), Some(20.0)),
            (col("name"), None),
            (upper(col("kind")), Some(20.0)),
            (cast(col("kind"), DataType::Utf8View), Some(20.0)),
            (lit("x"), Some(1.0)),
            (chosen, Some(2.0)),
            (upper(col("name")), None),
            (col("kind").eq(col("name")), None),
            (cast(random(), DataType::Utf8), None),
            (col("kind").gt(cast(random(), DataType::Utf8)), None),
        ] {
            assert_eq!(count(&expr), found, "{expr}");
        }
    }
}
