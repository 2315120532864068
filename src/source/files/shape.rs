//! What kinds of values a column was seen to hold, over all rows, and which type holds them all.

use super::moment::{Iso, iso};
use super::names;
use crate::model::ColumnType;

/// The kinds of values seen. Merging is a union, so the order of rows and blocks does not matter to the type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shape {
    truth: bool,
    date: bool,
    local_time: bool,
    instant: bool,
    pub(super) text: bool,
    number: Option<NumberShape>,
    fields: Option<Vec<(String, Shape)>>,
    items: Option<Box<Shape>>,
}

/// What numbers were seen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct NumberShape {
    smallest: i64,
    largest: i64,
    /// Most digits before the point.
    whole_digits: usize,
    /// Most digits after it.
    scale: usize,
    /// An integer beyond 64 bits.
    huge: bool,
    /// A number with a point.
    fraction: bool,
    /// A number with an exponent, NaN or infinity.
    float: bool,
}

/// Integers up to here are exact in a 64-bit float.
const EXACT_IN_DOUBLE: i64 = 1 << 53;

/// Most fields of a struct and most inferred columns of a table: an object with more names is a dictionary, kept
/// as JSON text.
pub(super) const MOST_FIELDS: usize = 2000;

impl Shape {
    /// Takes in a value of delimited text; it is neither NULL nor empty.
    pub(super) fn see_text(&mut self, text: &[u8]) {
        match text[0] {
            b'0'..=b'9' | b'-' | b'.' => {
                if !self.see_number(text) {
                    self.see_moment(text);
                }
            }
            _ if text.eq_ignore_ascii_case(b"true") || text.eq_ignore_ascii_case(b"false") => self.truth = true,
            _ if matches!(text, b"NaN" | b"inf" | b"Infinity") => {
                self.number.get_or_insert(NumberShape::NONE).float = true;
            }
            _ => self.text = true,
        }
    }

    /// Takes in a JSON string.
    pub(super) fn see_string(&mut self, text: &[u8]) {
        self.see_moment(text);
    }

    /// Takes in `true` or `false`.
    pub(super) fn see_truth(&mut self) {
        self.truth = true;
    }

    /// Takes in a number as written; false where it is none, which changes nothing.
    pub(super) fn see_number(&mut self, text: &[u8]) -> bool {
        let Some(seen) = NumberShape::of(text) else { return false };
        match &mut self.number {
            Some(number) => number.merge(seen),
            none => *none = Some(seen),
        }
        true
    }

    /// Takes in an object's field.
    pub(super) fn see_field(&mut self, name: &str, position: usize) -> &mut Shape {
        let fields = self.fields.get_or_insert_default();
        field(fields, name, position)
    }

    /// Takes in an object, which may have no fields.
    pub(super) fn see_object(&mut self) {
        self.fields.get_or_insert_default();
    }

    /// Takes in an array; what it returns takes in the items.
    pub(super) fn see_array(&mut self) -> &mut Shape {
        self.items.get_or_insert_default()
    }

    fn see_moment(&mut self, text: &[u8]) {
        match iso(text) {
            Some(Iso { time: None, .. }) => self.date = true,
            Some(Iso { offset: None, .. }) => self.local_time = true,
            Some(_) => self.instant = true,
            None => self.text = true,
        }
    }

    /// Adds what another part of the rows showed.
    pub(super) fn merge(&mut self, other: Self) {
        self.truth |= other.truth;
        self.date |= other.date;
        self.local_time |= other.local_time;
        self.instant |= other.instant;
        self.text |= other.text;
        match (&mut self.number, other.number) {
            (Some(number), Some(seen)) => number.merge(seen),
            (none @ None, seen) => *none = seen,
            (Some(_), None) => {}
        }
        match (&mut self.items, other.items) {
            (Some(items), Some(seen)) => items.merge(*seen),
            (none @ None, seen) => *none = seen,
            (Some(_), None) => {}
        }
        if let Some(seen) = other.fields {
            merge_fields(self.fields.get_or_insert_default(), seen);
        }
    }

    /// The type that holds every value seen; none where all were NULL. Kinds that do not go together become
    /// strings (in JSON: its text).
    pub(super) fn column_type(&self) -> Option<ColumnType> {
        let time = self.date || self.local_time || self.instant;
        let kinds = [self.truth, time, self.text, self.number.is_some(), self.fields.is_some(), self.items.is_some()];
        if kinds.into_iter().filter(|seen| *seen).count() != 1 {
            return kinds.contains(&true).then_some(ColumnType::String);
        }
        Some(if self.truth {
            ColumnType::Boolean
        } else if let Some(number) = &self.number {
            number.column_type()
        } else if let Some(fields) = &self.fields {
            struct_type(fields)
        } else if let Some(items) = &self.items {
            ColumnType::Array(Box::new(items.column_type().unwrap_or(ColumnType::String)))
        } else {
            match (self.date, self.local_time, self.instant) {
                (true, false, false) => ColumnType::Date,
                (_, true, false) => ColumnType::TimestampNtz,
                (false, false, true) => ColumnType::Timestamp,
                _ => ColumnType::String,
            }
        })
    }

    /// The type of a column that has one already: integers widen, structs gain fields, all else stays.
    pub(super) fn extend(&self, known: ColumnType) -> ColumnType {
        match known {
            ColumnType::Smallint | ColumnType::Int if self.number.is_some_and(NumberShape::is_integral) => {
                let needed = self.number.map_or(ColumnType::Smallint, NumberShape::integer_type);
                if width(&needed) > width(&known) { needed } else { known }
            }
            ColumnType::Struct(mut fields) => {
                for (name, shape) in self.fields.iter().flatten() {
                    let folded = names::fold(name);
                    match fields.iter_mut().find(|(known, _)| names::fold(known) == folded) {
                        Some((_, kind)) => *kind = shape.extend(kind.clone()),
                        None => fields.push((names::clean(name), shape.column_type().unwrap_or(ColumnType::String))),
                    }
                }
                ColumnType::Struct(fields)
            }
            ColumnType::Array(item) => ColumnType::Array(match &self.items {
                Some(shape) => Box::new(shape.extend(*item)),
                None => item,
            }),
            known => known,
        }
    }
}

/// Merges lists of named shapes: names that differ in case only are one, and new ones are appended.
pub(super) fn merge_fields(fields: &mut Vec<(String, Shape)>, seen: Vec<(String, Shape)>) {
    for (position, (name, shape)) in seen.into_iter().enumerate() {
        field(fields, &name, position).merge(shape);
    }
}

/// The shape of a name, which is most often where it stood last time.
pub(super) fn field<'a>(fields: &'a mut Vec<(String, Shape)>, name: &str, position: usize) -> &'a mut Shape {
    let found = match fields.get(position) {
        Some((known, _)) if known == name => Some(position),
        _ => fields.iter().position(|(known, _)| known == name).or_else(|| {
            let folded = names::fold(name);
            fields.iter().position(|(known, _)| names::fold(known) == folded)
        }),
    };
    // An object with so many names is a dictionary; the names beyond are not told apart any more.
    let found = found.or_else(|| (fields.len() > MOST_FIELDS).then_some(MOST_FIELDS));
    let index = found.unwrap_or(fields.len());
    if index == fields.len() {
        fields.push((name.to_owned(), Shape::default()));
    }
    &mut fields[index].1
}

fn struct_type(fields: &[(String, Shape)]) -> ColumnType {
    if fields.is_empty() || fields.len() > MOST_FIELDS {
        return ColumnType::String;
    }
    let kind = |shape: &Shape| shape.column_type().unwrap_or(ColumnType::String);
    ColumnType::Struct(fields.iter().map(|(name, shape)| (names::clean(name), kind(shape))).collect())
}

fn width(integer: &ColumnType) -> u8 {
    match integer {
        ColumnType::Smallint => 2,
        ColumnType::Int => 4,
        _ => 8,
    }
}

impl NumberShape {
    const NONE: Self =
        Self { smallest: 0, largest: 0, whole_digits: 0, scale: 0, huge: false, fraction: false, float: false };

    /// A number as JSON writes it; `007` is none, because what has leading zeros is a name and not a number.
    fn of(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if whole > 1 && digits[0] == b'0' {
            return None;
        }
        let mut rest = &digits[whole..];
        let mut seen = Self { whole_digits: whole, ..Self::NONE };
        if rest.is_empty() {
            match std::str::from_utf8(text).ok()?.parse::<i64>() {
                Ok(value) => (seen.smallest, seen.largest) = (value, value),
                Err(_) if whole > 0 => seen.huge = true,
                Err(_) => return (digits == b"inf" || digits == b"Infinity").then_some(Self { float: true, ..seen }),
            }
            return Some(seen);
        }
        if let [b'.', fraction @ ..] = rest {
            seen.scale = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            seen.fraction = true;
            rest = &fraction[seen.scale..];
        }
        if whole + seen.scale == 0 {
            return (digits == b"inf" || digits == b"Infinity").then_some(Self { float: true, ..Self::NONE });
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let exponent = exponent.strip_prefix(b"-").or_else(|| exponent.strip_prefix(b"+")).unwrap_or(exponent);
            let is_number = !exponent.is_empty() && exponent.iter().all(u8::is_ascii_digit);
            return is_number.then_some(Self { float: true, ..seen });
        }
        rest.is_empty().then_some(seen)
    }

    fn merge(&mut self, other: Self) {
        self.smallest = self.smallest.min(other.smallest);
        self.largest = self.largest.max(other.largest);
        self.whole_digits = self.whole_digits.max(other.whole_digits);
        self.scale = self.scale.max(other.scale);
        self.huge |= other.huge;
        self.fraction |= other.fraction;
        self.float |= other.float;
    }

    fn is_integral(self) -> bool {
        !self.fraction && !self.float && !self.huge
    }

    fn column_type(&self) -> ColumnType {
        let exact = !self.float && self.whole_digits + self.scale <= 38;
        let is_large = self.huge || self.smallest < -EXACT_IN_DOUBLE || self.largest > EXACT_IN_DOUBLE;
        if self.is_integral() {
            ColumnType::Bigint
        } else if !self.fraction && exact {
            ColumnType::Decimal(38, 0)
        } else if !is_large {
            ColumnType::Double
        } else if exact {
            // Integers that a float would round, and fractions: only a decimal holds both.
            ColumnType::Decimal(38, i8::try_from(self.scale).unwrap_or(i8::MAX))
        } else {
            ColumnType::String
        }
    }

    fn integer_type(self) -> ColumnType {
        let fits = |low: i64, high: i64| self.smallest >= low && self.largest <= high;
        if fits(i64::from(i16::MIN), i64::from(i16::MAX)) {
            ColumnType::Smallint
        } else if fits(i64::from(i32::MIN), i64::from(i32::MAX)) {
            ColumnType::Int
        } else {
            ColumnType::Bigint
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(values: &[&str]) -> String {
        let mut shape = Shape::default();
        for value in values {
            let mut one = Shape::default();
            one.see_text(value.as_bytes());
            shape.merge(one);
        }
        shape.column_type().map_or_else(|| "null".to_owned(), |kind| kind.to_string())
    }

    #[test]
    fn the_narrowest_type_that_loses_nothing() {
        for (values, wanted) in [
            (&[][..], "null"),
            (&["true", "False"], "boolean"),
            (&["1", "-9223372036854775808"], "bigint"),
            (&["1", "9223372036854775808"], "decimal(38,0)"),
            (&["1", "2.5"], "double"),
            (&["1e5", "NaN"], "double"),
            (&["9007199254740993", "0.5"], "decimal(38,1)"),
            (&["9007199254740993", "5e-1"], "string"),
            (&["00123", "5"], "string"),
            (&["0", "0.5", "-.5"], "double"),
            (&["2013-01-31"], "date"),
            (&["2013-01-31", "2013-01-31 10:00"], "timestamp_ntz"),
            (&["2013-01-31T10:00:00Z"], "timestamp"),
            (&["2013-01-31T10:00:00Z", "2013-01-31"], "string"),
            (&["2013-02-30"], "string"),
            (&["true", "1"], "string"),
            (&["-", "1"], "string"),
            (&["1-2"], "string"),
            (&["1", "x"], "string"),
            (&["+49123"], "string"),
        ] {
            assert_eq!(inferred(values), wanted, "{values:?}");
        }
    }

    #[test]
    fn known_integers_widen_and_other_types_stay() {
        let mut shape = Shape::default();
        shape.see_text(b"40000");
        assert_eq!(shape.extend(ColumnType::Smallint), ColumnType::Int);
        assert_eq!(shape.extend(ColumnType::Bigint), ColumnType::Bigint);
        assert_eq!(shape.extend(ColumnType::Date), ColumnType::Date);
        shape.see_text(b"x");
        assert_eq!(shape.extend(ColumnType::Bigint), ColumnType::Bigint);
    }
}
