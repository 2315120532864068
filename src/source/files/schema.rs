//! Which columns and types the rows of a load get: declared ones, those the table has, what the files bring.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Schema};

use super::column::Target;
use super::moment::TimeFormat;
use super::names;
use super::shape::{MOST_FIELDS, Shape, merge_fields};
use crate::config::ColumnDefinition;
use crate::error::ErrorKind;
use crate::model::ColumnType;
use crate::source::SourceError;

/// Declared columns as targets.
///
/// # Errors
/// When a format is not one.
pub(super) fn declared(columns: &[ColumnDefinition]) -> Result<Vec<Target>, SourceError> {
    let target = |column: &ColumnDefinition| {
        let format = |text: &String| {
            TimeFormat::new(text).ok_or_else(|| {
                SourceError::new(
                    ErrorKind::InvalidInput,
                    format!("column `{}`: `{text}` is not a strftime format as in %Y-%m-%d", column.name),
                )
            })
        };
        Ok(Target {
            name: column.name.clone(),
            from: column.from.clone(),
            kind: column.column_type.clone(),
            formats: column.formats.iter().map(format).collect::<Result<_, SourceError>>()?,
            nullable: column.nullable,
        })
    };
    columns.iter().map(target).collect()
}

/// Gathers what files bring, one after the other, on top of the columns the table has.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    columns: Vec<Column>,
    /// Where a folded name stands in `columns`.
    places: HashMap<String, usize>,
    /// What text files showed.
    shapes: Vec<(String, Shape)>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: ColumnType,
    nullable: bool,
    is_known: bool,
}

impl Gathered {
    /// Starts with a table's columns.
    ///
    /// # Errors
    /// When the table has a type that lakegate does not know.
    pub(super) fn new(known: Option<&Schema>) -> Result<Self, SourceError> {
        let mut gathered = Self::default();
        for field in known.into_iter().flat_map(|schema| schema.fields()) {
            let kind = ColumnType::from_arrow(field.data_type()).ok_or_else(|| {
                SourceError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the table's column `{}` has the type {}, which lakegate cannot write",
                        field.name(),
                        field.data_type()
                    ),
                )
            })?;
            gathered.push(Column { name: field.name().clone(), kind, nullable: field.is_nullable(), is_known: true });
        }
        Ok(gathered)
    }

    fn push(&mut self, column: Column) {
        self.places.insert(names::fold(&column.name), self.columns.len());
        self.columns.push(column);
    }

    /// Takes in the columns of a file that has types of its own.
    ///
    /// # Errors
    /// With the reason when a column does not go with what there is: then nothing of the file is taken in.
    pub(super) fn add_typed(&mut self, file: &[(String, ColumnType)]) -> Result<(), String> {
        let mut changed = Vec::new();
        for (name, kind) in file {
            let place = self.places.get(&names::fold(name)).copied();
            let Some(column) = place.map(|place| &self.columns[place]) else {
                changed.push((None, kind.clone(), name));
                continue;
            };
            let merged = if column.is_known { admit(&column.kind, kind) } else { join(&column.kind, kind) };
            let merged = merged.ok_or_else(|| {
                let whose = if column.is_known { "in the table" } else { "in the files before it" };
                format!("column `{name}` is {} {whose} and {kind} in this file, which does not fit", column.kind)
            })?;
            changed.push((place, merged, name));
        }
        for (place, kind, name) in changed {
            match place {
                Some(place) => self.columns[place].kind = kind,
                None => self.push(Column { name: names::clean(name), kind, nullable: true, is_known: false }),
            }
        }
        Ok(())
    }

    /// Takes in what a text file's columns were seen to hold.
    pub(super) fn add_shapes(&mut self, shapes: Vec<(String, Shape)>) {
        merge_fields(&mut self.shapes, shapes);
    }

    /// The columns in order: the table's own, then what is new.
    ///
    /// # Errors
    /// When there are more new columns than a table should have.
    pub(super) fn finish(mut self) -> Result<Vec<Target>, SourceError> {
        for (name, shape) in std::mem::take(&mut self.shapes) {
            match self.places.get(&names::fold(&name)).copied() {
                Some(place) => {
                    let column = &mut self.columns[place];
                    column.kind = shape.extend(column.kind.clone());
                }
                None => {
                    let kind = shape.column_type().unwrap_or(ColumnType::String);
                    self.push(Column { name: names::clean(&name), kind, nullable: true, is_known: false });
                }
            }
        }
        if self.columns.len() > MOST_FIELDS {
            return Err(SourceError::new(
                ErrorKind::InvalidInput,
                format!(
                    "the files have more than {MOST_FIELDS} different columns; declare those you need in [[columns]]"
                ),
            ));
        }
        let target = |column: Column| Target {
            name: column.name,
            from: None,
            kind: column.kind,
            formats: vec![],
            nullable: column.nullable,
        };
        Ok(self.columns.into_iter().map(target).collect())
    }
}

/// The lakegate type of a Parquet file's column.
///
/// # Errors
/// With the reason when there is none.
pub(super) fn file_type(name: &str, arrow: &DataType) -> Result<ColumnType, String> {
    // SQL has these, Delta has not: their text says it all.
    if matches!(arrow, DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_)) {
        return Ok(ColumnType::String);
    }
    ColumnType::from_arrow(arrow)
        .ok_or_else(|| format!("column `{name}` has the type {arrow}, which a Delta table cannot hold"))
}

/// The type a table's column gets when values of another type come: its own, or a wider one of its kind. None
/// where values of that type cannot be meant.
pub(super) fn admit(known: &ColumnType, coming: &ColumnType) -> Option<ColumnType> {
    use ColumnType as T;
    Some(match (known, coming) {
        (known, coming) if known == coming => known.clone(),
        (T::Smallint | T::Int | T::Bigint, T::Smallint | T::Int | T::Bigint) => wider_integer(known, coming),
        (T::Decimal(..), T::Decimal(..)) => join(known, coming).unwrap_or_else(|| known.clone()),
        (known, coming) if is_number(known) && is_number(coming) => known.clone(),
        (T::TimestampNtz, T::Date) => T::TimestampNtz,
        (T::Struct(known), T::Struct(coming)) => T::Struct(merge_struct(known, coming, admit)?),
        (T::Array(known), T::Array(coming)) => T::Array(Box::new(admit(known, coming)?)),
        (T::Map(key, value), T::Map(coming_key, coming)) if key == coming_key => {
            T::Map(key.clone(), Box::new(admit(value, coming)?))
        }
        _ => return None,
    })
}

/// The narrowest type that holds the values of both; none where there is no sensible one.
pub(super) fn join(one: &ColumnType, other: &ColumnType) -> Option<ColumnType> {
    use ColumnType as T;
    Some(match (one, other) {
        (one, other) if one == other => one.clone(),
        (T::Smallint | T::Int | T::Bigint, T::Smallint | T::Int | T::Bigint) => wider_integer(one, other),
        (T::Decimal(p1, s1), T::Decimal(p2, s2)) => wider_decimal((*p1, *s1), (*p2, *s2))?,
        (T::Decimal(p, s), integer @ (T::Smallint | T::Int | T::Bigint))
        | (integer @ (T::Smallint | T::Int | T::Bigint), T::Decimal(p, s)) => {
            wider_decimal((*p, *s), (integer_digits(integer), 0))?
        }
        (one, other) if is_number(one) && is_number(other) => T::Double,
        (T::Date, T::TimestampNtz) | (T::TimestampNtz, T::Date) => T::TimestampNtz,
        (T::Struct(one), T::Struct(other)) => T::Struct(merge_struct(one, other, join)?),
        (T::Array(one), T::Array(other)) => T::Array(Box::new(join(one, other)?)),
        (T::Map(key, one), T::Map(other_key, other)) if key == other_key => {
            T::Map(key.clone(), Box::new(join(one, other)?))
        }
        _ => return None,
    })
}

type Fields = Vec<(String, ColumnType)>;

fn merge_struct(
    one: &Fields,
    other: &Fields,
    merge: fn(&ColumnType, &ColumnType) -> Option<ColumnType>,
) -> Option<Fields> {
    let mut fields = one.clone();
    for (name, kind) in other {
        let folded = names::fold(name);
        match fields.iter_mut().find(|(known, _)| names::fold(known) == folded) {
            Some((_, known)) => *known = merge(known, kind)?,
            None => fields.push((names::clean(name), kind.clone())),
        }
    }
    Some(fields)
}

fn is_number(kind: &ColumnType) -> bool {
    use ColumnType as T;
    matches!(kind, T::Smallint | T::Int | T::Bigint | T::Real | T::Double | T::Decimal(..))
}

fn wider_integer(one: &ColumnType, other: &ColumnType) -> ColumnType {
    if integer_digits(one) >= integer_digits(other) { one.clone() } else { other.clone() }
}

/// Digits that every value of an integer type fits in.
fn integer_digits(integer: &ColumnType) -> u8 {
    match integer {
        ColumnType::Smallint => 5,
        ColumnType::Int => 10,
        _ => 19,
    }
}

fn wider_decimal((p1, s1): (u8, i8), (p2, s2): (u8, i8)) -> Option<ColumnType> {
    let scale = s1.max(s2);
    let whole = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    let precision = u8::try_from(whole + i16::from(scale)).ok().filter(|precision| *precision <= 38)?;
    Some(ColumnType::Decimal(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> ColumnType {
        text.parse().unwrap()
    }

    #[test]
    fn types_of_files_meet_in_the_narrowest_that_holds_both() {
        for (one, other, joined, admitted) in [
            ("int", "bigint", "bigint", "bigint"),
            ("bigint", "int", "bigint", "bigint"),
            ("bigint", "double", "double", "bigint"),
            ("decimal(5,2)", "decimal(6,1)", "decimal(7,2)", "decimal(7,2)"),
            ("decimal(5,2)", "int", "decimal(12,2)", "decimal(5,2)"),
            ("real", "double", "double", "real"),
            ("timestamp_ntz", "date", "timestamp_ntz", "timestamp_ntz"),
            (
                "struct<a: int>",
                "struct<A: bigint, b: string>",
                "struct<a: bigint, b: string>",
                "struct<a: bigint, b: string>",
            ),
            ("array<int>", "array<int>", "array<int>", "array<int>"),
        ] {
            assert_eq!(join(&kind(one), &kind(other)), Some(kind(joined)), "{one} {other}");
            assert_eq!(admit(&kind(one), &kind(other)), Some(kind(admitted)), "{one} {other}");
        }
        for (one, other) in [("bigint", "string"), ("date", "timestamp"), ("boolean", "int"), ("array<int>", "int")] {
            assert_eq!(join(&kind(one), &kind(other)), None, "{one} {other}");
            assert_eq!(admit(&kind(one), &kind(other)), None, "{one} {other}");
        }
    }

    #[test]
    fn a_refused_file_leaves_no_trace() {
        let mut gathered = Gathered::default();
        gathered.add_typed(&[("a".to_owned(), kind("int"))]).unwrap();
        let reason =
            gathered.add_typed(&[("z".to_owned(), kind("int")), ("A".to_owned(), kind("string"))]).unwrap_err();
        assert!(reason.contains("`A` is int") && reason.contains("string in this file"), "{reason}");
        assert_eq!(gathered.finish().unwrap().len(), 1);
    }
}
