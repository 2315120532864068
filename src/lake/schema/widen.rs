//! Which type holds the values of two types exactly.

use crate::model::ColumnType;

/// Most digits of a decimal (Delta protocol, "Primitive Types").
const MOST_DIGITS: u8 = 38;

/// The type that holds an old column's values and new ones.
pub(super) struct Merged {
    /// That type.
    pub(super) kind: ColumnType,
    /// Whether it is another type than the old one.
    pub(super) changed: bool,
    /// Whether files of the old type have to be written anew; a new nested field alone asks for none.
    pub(super) rewrite: bool,
}

impl Merged {
    fn same(kind: &ColumnType) -> Self {
        Self { kind: kind.clone(), changed: false, rewrite: false }
    }

    fn wider(kind: ColumnType, old: &ColumnType) -> Self {
        let changed = kind != *old;
        Self { kind, changed, rewrite: changed }
    }
}

/// The type a column of type `old` gets when values of type `new` come; none where it cannot be.
pub(super) fn merge(old: &ColumnType, new: &ColumnType) -> Option<Merged> {
    if old == new {
        return Some(Merged::same(old));
    }
    match (old, new) {
        (ColumnType::Struct(old_fields), ColumnType::Struct(new_fields)) => merge_fields(old_fields, new_fields),
        (ColumnType::Array(old_item), ColumnType::Array(new_item)) => {
            let item = merge(old_item, new_item)?;
            Some(Merged { kind: ColumnType::Array(Box::new(item.kind)), ..item })
        }
        (ColumnType::Map(old_key, old_value), ColumnType::Map(new_key, new_value)) => {
            let (key, value) = (merge(old_key, new_key)?, merge(old_value, new_value)?);
            Some(Merged {
                kind: ColumnType::Map(Box::new(key.kind), Box::new(value.kind)),
                changed: key.changed || value.changed,
                rewrite: key.rewrite || value.rewrite,
            })
        }
        // A float holds these exactly, so the new values are cast up; the column stays what it is.
        (ColumnType::Double, ColumnType::Real | ColumnType::Smallint | ColumnType::Int)
        | (ColumnType::Real, ColumnType::Smallint) => Some(Merged::same(old)),
        _ => merge_numbers(old, new),
    }
}

fn merge_fields(old: &[(String, ColumnType)], new: &[(String, ColumnType)]) -> Option<Merged> {
    let mut fields = old.to_vec();
    let (mut changed, mut rewrite) = (false, false);
    for (name, kind) in new {
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => {
                let merged = merge(known, kind)?;
                changed |= merged.changed;
                rewrite |= merged.rewrite;
                *known = merged.kind;
            }
            None => {
                fields.push((name.clone(), kind.clone()));
                changed = true;
            }
        }
    }
    Some(Merged { kind: ColumnType::Struct(fields), changed, rewrite })
}

fn merge_numbers(old: &ColumnType, new: &ColumnType) -> Option<Merged> {
    if let (Some(old_rank), Some(new_rank)) = (integer_rank(old), integer_rank(new)) {
        let wider = if new_rank > old_rank { new } else { old };
        return Some(Merged::wider(wider.clone(), old));
    }
    let ((old_digits, old_scale), (new_digits, new_scale)) = (digits(old)?, digits(new)?);
    let scale = old_scale.max(new_scale);
    let precision = old_digits.max(new_digits).checked_add(scale).filter(|precision| *precision <= MOST_DIGITS)?;
    Some(Merged::wider(ColumnType::Decimal(precision, i8::try_from(scale).ok()?), old))
}

fn integer_rank(kind: &ColumnType) -> Option<u8> {
    match kind {
        ColumnType::Smallint => Some(0),
        ColumnType::Int => Some(1),
        ColumnType::Bigint => Some(2),
        _ => None,
    }
}

/// Digits before and after the point that a number of this type can have.
fn digits(kind: &ColumnType) -> Option<(u8, u8)> {
    match kind {
        ColumnType::Smallint => Some((5, 0)),
        ColumnType::Int => Some((10, 0)),
        ColumnType::Bigint => Some((19, 0)),
        ColumnType::Decimal(precision, scale) => {
            let scale = u8::try_from(*scale).ok()?;
            Some((precision.checked_sub(scale)?, scale))
        }
        _ => None,
    }
}
