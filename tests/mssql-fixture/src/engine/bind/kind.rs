//! Rules over types: which of two wins, what arithmetic yields, which conversions change nothing.

use crate::engine::ast::Operator;
use crate::value::SqlType;

/// Data type precedence; the higher one wins.
fn rank(sql_type: &SqlType) -> u8 {
    match sql_type {
        SqlType::HierarchyId | SqlType::Geography | SqlType::Geometry | SqlType::Json | SqlType::Vector { .. } => 40,
        SqlType::Variant => 39,
        SqlType::Xml => 38,
        SqlType::DateTimeOffset { .. } => 37,
        SqlType::DateTime2 { .. } => 36,
        SqlType::DateTime => 35,
        SqlType::SmallDateTime => 34,
        SqlType::Date => 33,
        SqlType::Time { .. } => 32,
        SqlType::Float => 31,
        SqlType::Real => 30,
        SqlType::Decimal { .. } => 29,
        SqlType::Money => 28,
        SqlType::SmallMoney => 27,
        SqlType::BigInt => 26,
        SqlType::Int => 25,
        SqlType::SmallInt => 24,
        SqlType::TinyInt => 23,
        SqlType::Bit => 22,
        SqlType::NText => 21,
        SqlType::Text => 20,
        SqlType::Image => 19,
        SqlType::RowVersion => 18,
        SqlType::UniqueIdentifier => 17,
        SqlType::NVarChar { .. } => 16,
        SqlType::NChar { .. } => 15,
        SqlType::VarChar { .. } => 14,
        SqlType::Char { .. } => 13,
        SqlType::VarBinary { .. } => 12,
        SqlType::Binary { .. } => 11,
    }
}

/// The decimal an exact number is, for arithmetic with decimals.
pub(super) fn as_decimal(sql_type: &SqlType) -> Option<(u8, u8)> {
    Some(match sql_type {
        SqlType::Decimal { precision, scale } => (*precision, *scale),
        SqlType::Money => (19, 4),
        SqlType::SmallMoney => (10, 4),
        SqlType::BigInt => (19, 0),
        SqlType::Int => (10, 0),
        SqlType::SmallInt => (5, 0),
        SqlType::TinyInt => (3, 0),
        SqlType::Bit => (1, 0),
        _ => return None,
    })
}

fn text_length(sql_type: &SqlType) -> Option<u16> {
    match sql_type {
        SqlType::Char { length } | SqlType::NChar { length } | SqlType::Binary { length } => Some(*length),
        SqlType::VarChar { length } | SqlType::NVarChar { length } | SqlType::VarBinary { length } => *length,
        SqlType::RowVersion => Some(8),
        _ => None,
    }
}

fn is_simple_text(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Char { .. } | SqlType::VarChar { .. } | SqlType::NChar { .. } | SqlType::NVarChar { .. }
    )
}

/// A decimal of so many digits, cut to 38 as SQL Server does.
fn decimal(whole: u8, scale: u8) -> SqlType {
    let precision = whole.saturating_add(scale).clamp(1, 38);
    let scale =
        if whole.saturating_add(scale) > 38 { scale.min(38u8.saturating_sub(whole).max(6.min(scale))) } else { scale };
    SqlType::Decimal { precision, scale }
}

/// The type both operands of a comparison, of CASE or of UNION are brought to.
pub(super) fn common(left: &SqlType, right: &SqlType) -> SqlType {
    if left == right {
        return left.clone();
    }
    let exact = matches!(left, SqlType::Decimal { .. }) || matches!(right, SqlType::Decimal { .. });
    if let (true, Some((lp, ls)), Some((rp, rs))) = (exact, as_decimal(left), as_decimal(right)) {
        return decimal((lp - ls).max(rp - rs), ls.max(rs));
    }
    if is_simple_text(left) && is_simple_text(right) {
        let length = match (text_length(left), text_length(right)) {
            (Some(left), Some(right)) => Some(left.max(right)),
            _ => None,
        };
        let national = !left.is_code_page_text() || !right.is_code_page_text();
        return if national {
            SqlType::NVarChar { length: length.map(|length| length.min(4000)) }
        } else {
            SqlType::VarChar { length }
        };
    }
    match (left, right) {
        (SqlType::Binary { .. } | SqlType::VarBinary { .. }, SqlType::Binary { .. } | SqlType::VarBinary { .. }) => {
            let length = text_length(left).zip(text_length(right)).map(|(left, right)| left.max(right));
            SqlType::VarBinary { length }
        }
        (SqlType::Time { scale: left }, SqlType::Time { scale: right }) => SqlType::Time { scale: *left.max(right) },
        (SqlType::DateTime2 { scale: left }, SqlType::DateTime2 { scale: right }) => {
            SqlType::DateTime2 { scale: *left.max(right) }
        }
        (SqlType::DateTimeOffset { scale: left }, SqlType::DateTimeOffset { scale: right }) => {
            SqlType::DateTimeOffset { scale: *left.max(right) }
        }
        _ if rank(left) >= rank(right) => left.clone(),
        _ => right.clone(),
    }
}

/// What an arithmetic operator yields; `None` when the operands do not take it.
pub(super) fn arithmetic(operator: Operator, left: &SqlType, right: &SqlType) -> Option<SqlType> {
    let (left, right) = (numeric(left, right), numeric(right, left));
    let both = common(&left, &right);
    if matches!(both, SqlType::Decimal { .. }) {
        let ((lp, ls), (rp, rs)) = (as_decimal(&left)?, as_decimal(&right)?);
        return Some(match operator {
            Operator::Multiply => decimal((lp - ls).saturating_add(rp - rs).saturating_add(1), ls.saturating_add(rs)),
            Operator::Divide => {
                let scale = 6.max(ls.saturating_add(rp).saturating_add(1));
                decimal((lp - ls).saturating_add(rs), scale)
            }
            Operator::Modulo => decimal((lp - ls).min(rp - rs), ls.max(rs)),
            _ => decimal((lp - ls).max(rp - rs).saturating_add(1), ls.max(rs)),
        });
    }
    match both {
        SqlType::Bit => Some(SqlType::Bit),
        SqlType::Money | SqlType::SmallMoney | SqlType::Real | SqlType::Float => Some(both),
        both if both.is_integer() => Some(both),
        SqlType::DateTime | SqlType::SmallDateTime => Some(both),
        _ => None,
    }
}

/// Text beside a number is read as that number.
fn numeric(this: &SqlType, other: &SqlType) -> SqlType {
    let other_is_number = as_decimal(other).is_some() || matches!(other, SqlType::Real | SqlType::Float);
    if (is_simple_text(this) || matches!(this, SqlType::Binary { .. } | SqlType::VarBinary { .. })) && other_is_number {
        return other.clone();
    }
    this.clone()
}

/// Two texts put together.
pub(super) fn concatenated(left: &SqlType, right: &SqlType) -> SqlType {
    let national = !left.is_code_page_text() || !right.is_code_page_text();
    let limit = if national { 4000 } else { 8000 };
    let length =
        text_length(left).zip(text_length(right)).map(|(left, right)| left.saturating_add(right).clamp(1, limit));
    if national { SqlType::NVarChar { length } } else { SqlType::VarChar { length } }
}

/// Whether every value of one type is one of the other as it lies in SQLite.
pub(super) fn widens(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    if from == to {
        return true;
    }
    match (from, to) {
        (from, to) if from.is_integer() && to.is_integer() => rank(from) <= rank(to),
        (T::Bit, to) if to.is_integer() => true,
        (T::Real, T::Float) | (T::SmallMoney, T::Money) => true,
        (T::Decimal { precision: lp, scale: ls }, T::Decimal { precision: rp, scale: rs }) => ls == rs && lp <= rp,
        (T::Time { scale: left }, T::Time { scale: right })
        | (T::DateTime2 { scale: left }, T::DateTime2 { scale: right })
        | (T::DateTimeOffset { scale: left }, T::DateTimeOffset { scale: right }) => left <= right,
        (from, T::NText | T::Variant | T::Xml | T::Json | T::HierarchyId | T::Geography | T::Geometry) => {
            from.is_text()
        }
        (from, T::Text) => from.is_code_page_text(),
        (from, T::VarChar { length }) if from.is_code_page_text() => fits(from, *length),
        // A byte of a code page is at most one UTF-16 unit.
        (from, T::NVarChar { length }) if from.is_text() => fits(from, *length),
        (T::Image, T::VarBinary { length: None }) | (T::VarBinary { .. }, T::Image) => true,
        (from, T::VarBinary { length }) if from.is_binary() => fits(from, *length),
        (T::RowVersion, T::Binary { length: 8 }) | (T::Binary { length: 8 }, T::RowVersion) => true,
        _ => false,
    }
}

fn fits(from: &SqlType, length: Option<u16>) -> bool {
    match (text_length(from), length) {
        (_, None) => true,
        (Some(from), Some(to)) => from <= to,
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_type_follows_precedence() {
        let decimal = SqlType::Decimal { precision: 18, scale: 4 };
        assert_eq!(common(&decimal, &SqlType::Int), decimal);
        assert_eq!(common(&SqlType::Int, &SqlType::BigInt), SqlType::BigInt);
        assert_eq!(
            common(&SqlType::VarChar { length: Some(3) }, &SqlType::NVarChar { length: None }),
            SqlType::NVarChar { length: None }
        );
        assert_eq!(common(&SqlType::VarChar { length: Some(3) }, &SqlType::Date), SqlType::Date);
    }

    #[test]
    fn decimals_grow_as_sql_server_says() {
        let ten_two = SqlType::Decimal { precision: 10, scale: 2 };
        let product = arithmetic(Operator::Multiply, &ten_two, &ten_two);
        assert_eq!(product, Some(SqlType::Decimal { precision: 21, scale: 4 }));
        let sum = arithmetic(Operator::Add, &ten_two, &SqlType::Int);
        assert_eq!(sum, Some(SqlType::Decimal { precision: 13, scale: 2 }));
    }
}
