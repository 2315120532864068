//! Which of people's predicates may run on rows they do not see.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Like, Operator};

/// Longest pattern of a LIKE in bytes: some patterns become expressions, whose size is limited.
const LONGEST_PATTERN: usize = 256;

/// Whether a predicate is one of a closed list that can neither fail nor have an effect, whatever is in the columns,
/// and looks at columns that are seen as they are.
///
/// The list: a column compared with literals of its own type (`=`, `<`, BETWEEN, IN, …), LIKE with a plain pattern,
/// IS NULL, a boolean column or constant, and AND, OR, NOT of such. No casts, arithmetic or functions: they may fail, and the error
/// would tell of a row.
pub(super) fn cannot_fail(predicate: &Expr, columns: &Schema, masked: &BTreeSet<String>) -> bool {
    Sinking { columns, masked }.cannot_fail(predicate)
}

struct Sinking<'a> {
    columns: &'a Schema,
    masked: &'a BTreeSet<String>,
}

impl Sinking<'_> {
    fn cannot_fail(&self, predicate: &Expr) -> bool {
        match predicate {
            Expr::Column(_) => self.column(predicate) == Some(&DataType::Boolean),
            // The optimizer makes them of comparisons with null that sank before.
            Expr::Literal(ScalarValue::Boolean(_) | ScalarValue::Null, _) => true,
            Expr::Not(inner)
            | Expr::IsTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsNotUnknown(inner) => self.cannot_fail(inner),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => self.column(inner).is_some(),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                self.cannot_fail(left) && self.cannot_fail(right)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
                self.compares(left, right) || self.compares(right, left)
            }
            Expr::Between(Between { expr, negated: _, low, high }) => {
                self.compares(expr, low) && self.compares(expr, high)
            }
            Expr::InList(InList { expr, list, negated: _ }) => list.iter().all(|item| self.compares(expr, item)),
            Expr::Like(Like { negated: _, expr, pattern, escape_char: None, case_insensitive: false }) => {
                self.compares(expr, pattern) && is_plain_pattern(pattern)
            }
            _ => false,
        }
    }

    /// The type of a column that is seen as it is.
    fn column(&self, expr: &Expr) -> Option<&DataType> {
        let Expr::Column(column) = expr else { return None };
        if self.masked.contains(&column.name) {
            return None;
        }
        self.columns.field_with_name(&column.name).ok().map(|field| field.data_type())
    }

    /// Whether a column stands beside a literal of its own type, and the type is one that is simply compared.
    fn compares(&self, column: &Expr, literal: &Expr) -> bool {
        let (Some(own), Expr::Literal(value, _)) = (self.column(column), literal) else { return false };
        *own == value.data_type() && !own.is_nested() && !matches!(own, DataType::Dictionary(..) | DataType::Null)
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_plain_pattern(pattern: &Expr) -> bool {
    let Expr::Literal(value, _) = pattern else { return false };
    let text = value.try_as_str().flatten();
    text.is_some_and(|text| text.len() <= LONGEST_PATTERN && !text.contains('\\'))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::logical_expr::{cast, col, lit};
    use datafusion::prelude::{abs, random};

    use super::*;

    fn sinks(predicate: &Expr) -> bool {
        let item = Field::new("item", DataType::Int64, true);
        let columns = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("active", DataType::Boolean, true),
            Field::new("email", DataType::Utf8, true),
            Field::new("list", DataType::List(item.into()), true),
        ]);
        cannot_fail(predicate, &columns, &BTreeSet::from(["email".to_owned()]))
    }

    #[test]
    fn comparisons_with_literals_of_the_same_type_sink() {
        for predicate in [
            col("id").eq(lit(1_i64)),
            lit(1_i64).lt(col("id")),
            col("id").between(lit(1_i64), lit(2_i64)),
            col("id").in_list(vec![lit(1_i64), lit(ScalarValue::Int64(None))], true),
            col("name").like(lit("a%")),
            col("active"),
            col("id").eq(lit(1_i64)).or(lit(ScalarValue::Boolean(None))),
            col("list").is_null(),
            col("id").eq(lit(1_i64)).or(!col("name").is_null()).and(col("active").is_true()),
        ] {
            assert!(sinks(&predicate), "{predicate}");
        }
    }

    #[test]
    fn what_could_fail_or_looks_at_masked_columns_stays_above() {
        for predicate in [
            cast(col("name"), DataType::Int32).gt(lit(0_i32)),
            (col("id") / lit(0_i64)).eq(lit(1_i64)),
            abs(col("id")).eq(lit(1_i64)),
            random().lt(lit(0.5)),
            col("id").eq(lit(1_i32)),
            col("id").eq(col("id")),
            col("name").like(col("name")),
            col("name").like(lit("a\\")),
            col("name").ilike(lit("a%")),
            col("name").like(lit("%".repeat(300))),
            col("email").eq(lit("a@b.c")),
            col("email").is_null(),
            col("hidden").eq(lit(1_i64)),
            col("id"),
            col("id").eq(lit(1_i64)).and(cast(col("name"), DataType::Int32).gt(lit(0_i32))),
        ] {
            assert!(!sinks(&predicate), "{predicate}");
        }
    }
}
