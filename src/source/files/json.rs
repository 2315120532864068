//! JSON values: rows from objects, columns from fields, structs and lists kept as such.
//!
//! Values stay slices of the text until a column is built from them, so that numbers are read exactly as written.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, MapArray, NullBufferBuilder, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::block::{Block, trim_line_end};
use super::column::{Cells, Failures, Parsed, Targets, build, finish, nulls};
use super::csv::Lines;
use super::moment::TimeFormat;
use super::shape::{Shape, field};
use super::{names, number};
use crate::model::{ColumnType, Reject};
use crate::source::SourceError;

/// Reads a block's objects. One that does not fit is a reject; fields the table does not have are passed over.
///
/// # Errors
/// None that the file's content can bring about.
pub(super) fn read(path: &str, targets: &Targets, mut block: Block) -> Result<Parsed, SourceError> {
    let spans = spans(&block);
    let text = block.text.as_slice();
    let mut cells: Vec<Vec<Option<&str>>> = vec![Vec::with_capacity(spans.len()); targets.columns.len()];
    let mut members = Members::new((0..targets.columns.len()).map(|index| {
        let target = &targets.columns[index];
        target.from.as_deref().unwrap_or(&target.name)
    }));
    let mut failures = Failures::default();
    let mut entries = Vec::new();
    for (row, (start, end)) in spans.iter().enumerate() {
        cells.iter_mut().for_each(|column| column.push(None));
        let record = &text[*start..*end];
        let object = utf8(record).and_then(|record| object(record, &mut entries));
        let filled = object.map_err(|reason| (String::new(), reason)).and_then(|()| {
            members.fill(row, &entries, |member, value| {
                if let Some(cell) = cells[member].last_mut() {
                    *cell = value;
                }
            })
        });
        if let Err((column, reason)) = filled {
            failures.add(row, &column, reason);
        }
    }
    let rows: Vec<usize> = (0..spans.len()).collect();
    let arrays = targets
        .columns
        .iter()
        .zip(&cells)
        .map(|(target, cells)| nested(&target.kind, &target.formats, cells, &rows, &target.name, &mut failures));
    let arrays = arrays.collect();
    let mut lines = Lines::new(text, block.first_line);
    let (batch, mut rejects) = finish(targets, arrays, spans.len(), failures, |row| {
        let (start, end) = spans[row];
        Reject {
            file: path.to_owned(),
            line: Some(lines.at(start)),
            column: None,
            reason: String::new(),
            raw: Reject::clip_raw(trim_line_end(&text[start..end])),
        }
    })?;
    block.rejects.append(&mut rejects);
    Ok(Parsed { rows: (!spans.is_empty()).then_some(batch), rejects: block.rejects, stored: block.stored })
}

/// What kinds of values the fields of a block's objects hold; what is no object is left out.
pub(super) fn infer(block: &Block) -> Vec<(String, Shape)> {
    let mut columns = Vec::new();
    let mut entries = Vec::new();
    for (start, end) in spans(block) {
        let Ok(record) = utf8(&block.text[start..end]) else { continue };
        if object(record, &mut entries).is_ok() {
            for (position, (name, value)) in entries.iter().enumerate() {
                see(value, field(&mut columns, name, position));
            }
        }
    }
    columns
}

/// Whether a text is one JSON value.
///
/// # Errors
/// With the reason when it is not.
pub(super) fn check(text: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(text).map(|_| ()).map_err(|error| format!("broken JSON: {error}"))
}

/// Builds a column of any type from JSON values; `rows` tells each value's row in the batch. NULL is `None`.
pub(super) fn nested(
    kind: &ColumnType,
    formats: &[TimeFormat],
    values: &[Option<&str>],
    rows: &[usize],
    column: &str,
    failures: &mut Failures,
) -> ArrayRef {
    match kind {
        ColumnType::Struct(fields) => structs(kind, fields, values, rows, column, failures),
        ColumnType::Array(item) => lists(kind, item, values, rows, column, failures),
        ColumnType::Map(key, value) => maps(kind, (key, value), values, rows, column, failures),
        kind => {
            let wants = Wants::of(kind, formats);
            build(kind, formats, &JsonCells { values, rows, wants }, column, failures)
        }
    }
}

fn structs(
    kind: &ColumnType,
    fields: &[(String, ColumnType)],
    values: &[Option<&str>],
    rows: &[usize],
    column: &str,
    failures: &mut Failures,
) -> ArrayRef {
    let mut cells: Vec<Vec<Option<&str>>> = vec![vec![None; values.len()]; fields.len()];
    let mut members = Members::new(fields.iter().map(|(name, _)| name.as_str()));
    let mut valid = NullBufferBuilder::new(values.len());
    let mut entries = Vec::new();
    for (index, value) in values.iter().enumerate() {
        valid.append(value.is_some());
        let Some(value) = value else { continue };
        let filled = object(value, &mut entries)
            .map_err(|reason| (String::new(), reason))
            .and_then(|()| members.fill(index, &entries, |member, value| cells[member][index] = value));
        if let Err((name, reason)) = filled {
            let path = if name.is_empty() { column.to_owned() } else { format!("{column}.{name}") };
            failures.add(rows[index], &path, reason);
        }
    }
    let arrays = fields
        .iter()
        .zip(&cells)
        .map(|((name, kind), cells)| nested(kind, &[], cells, rows, &format!("{column}.{name}"), failures));
    let arrays: Vec<ArrayRef> = arrays.collect();
    let DataType::Struct(arrow_fields) = kind.to_arrow() else { return nulls(kind, values.len()) };
    match StructArray::try_new_with_length(arrow_fields, arrays, valid.finish(), values.len()) {
        Ok(array) => Arc::new(array),
        Err(error) => all_failed(kind, rows, column, &error, failures),
    }
}

fn lists(
    kind: &ColumnType,
    item: &ColumnType,
    values: &[Option<&str>],
    rows: &[usize],
    column: &str,
    failures: &mut Failures,
) -> ArrayRef {
    let (mut items, mut item_rows, mut offsets) = (Vec::new(), Vec::new(), vec![0_i32]);
    let mut valid = NullBufferBuilder::new(values.len());
    for (value, row) in values.iter().zip(rows) {
        valid.append(value.is_some());
        if let Some(value) = value {
            match elements(value) {
                Ok(found) => items.extend(found.into_iter().map(not_null)),
                Err(reason) => failures.add(*row, column, reason),
            }
            item_rows.resize(items.len(), *row);
        }
        offsets.push(i32::try_from(items.len()).unwrap_or(i32::MAX));
    }
    let array = nested(item, &[], &items, &item_rows, &format!("{column}[]"), failures);
    let DataType::List(arrow_item) = kind.to_arrow() else { return nulls(kind, values.len()) };
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    match ListArray::try_new(arrow_item, offsets, array, valid.finish()) {
        Ok(array) => Arc::new(array),
        Err(error) => all_failed(kind, rows, column, &error, failures),
    }
}

fn maps(
    kind: &ColumnType,
    (key_kind, value_kind): (&ColumnType, &ColumnType),
    values: &[Option<&str>],
    rows: &[usize],
    column: &str,
    failures: &mut Failures,
) -> ArrayRef {
    let (mut keys, mut items, mut item_rows, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), vec![0_i32]);
    let mut valid = NullBufferBuilder::new(values.len());
    let mut entries = Vec::new();
    for (value, row) in values.iter().zip(rows) {
        valid.append(value.is_some());
        if let Some(value) = value {
            match object(value, &mut entries) {
                Ok(()) => {
                    if let Some(twice) = first_twice(&entries) {
                        failures.add(
                            *row,
                            column,
                            format!("the key {} stands twice", number::quoted(twice.as_bytes())),
                        );
                    }
                    for (key, value) in entries.drain(..) {
                        keys.push(Some(key));
                        items.push(not_null(value));
                    }
                }
                Err(reason) => failures.add(*row, column, reason),
            }
            item_rows.resize(items.len(), *row);
        }
        offsets.push(i32::try_from(items.len()).unwrap_or(i32::MAX));
    }
    let item_array = nested(value_kind, &[], &items, &item_rows, &format!("{column}[]"), failures);
    let key_array = build(key_kind, &[], &Plain { texts: &keys, rows: &item_rows }, column, failures);
    let DataType::Map(arrow_entries, sorted) = kind.to_arrow() else { return nulls(kind, values.len()) };
    let DataType::Struct(entry_fields) = arrow_entries.data_type() else { return nulls(kind, values.len()) };
    // A key that could not be read is NULL here, which no map may hold: its row failed, so its map can go.
    if key_array.null_count() > 0 {
        let bad: HashSet<usize> =
            item_rows.iter().enumerate().filter(|(index, _)| key_array.is_null(*index)).map(|(_, row)| *row).collect();
        let rest: Vec<Option<&str>> =
            values.iter().zip(rows).map(|(value, row)| value.filter(|_| !bad.contains(row))).collect();
        return maps(kind, (key_kind, value_kind), &rest, rows, column, failures);
    }
    let made = StructArray::try_new_with_length(entry_fields.clone(), vec![key_array, item_array], None, items.len())
        .and_then(|entries| {
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            MapArray::try_new(Arc::clone(&arrow_entries), offsets, entries, valid.finish(), sorted)
        });
    match made {
        Ok(array) => Arc::new(array),
        Err(error) => all_failed(kind, rows, column, &error, failures),
    }
}

/// A column that could not be put together, which only a mistake of ours brings about: no row of it may pass as data.
fn all_failed(
    kind: &ColumnType,
    rows: &[usize],
    column: &str,
    error: &arrow::error::ArrowError,
    failures: &mut Failures,
) -> ArrayRef {
    for row in rows {
        failures.add(*row, column, error.to_string());
    }
    nulls(kind, rows.len())
}

/// Tells the kinds of values of a JSON value and all that is in it.
fn see(value: &str, shape: &mut Shape) {
    match value.as_bytes().first() {
        Some(b'"') => match unescape(value) {
            Ok(text) => shape.see_string(text.as_bytes()),
            Err(_) => shape.text = true,
        },
        Some(b't' | b'f') => shape.see_truth(),
        Some(b'{') => {
            let mut entries = Vec::new();
            if object(value, &mut entries).is_ok() {
                shape.see_object();
                for (position, (name, value)) in entries.iter().enumerate() {
                    see(value, shape.see_field(name, position));
                }
            }
        }
        Some(b'[') => {
            let items = shape.see_array();
            for item in elements(value).unwrap_or_default() {
                see(item, items);
            }
        }
        Some(b'n') | None => {}
        Some(_) => {
            shape.see_number(value.as_bytes());
        }
    }
}

/// The places of a block's records: those the cutter found, or its lines that are not blank.
fn spans(block: &Block) -> Vec<(usize, usize)> {
    if !block.spans.is_empty() {
        return block.spans.clone();
    }
    let mut spans = Vec::new();
    let mut start = 0;
    while start < block.text.len() {
        let end = memchr::memchr(b'\n', &block.text[start..]).map_or(block.text.len(), |end| start + end + 1);
        if !block.text[start..end].trim_ascii().is_empty() {
            spans.push((start, end));
        }
        start = end;
    }
    spans
}

fn utf8(record: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(record).map_err(|_| "the text is not valid UTF-8".to_owned())
}

fn not_null(value: &str) -> Option<&str> {
    (value != "null").then_some(value)
}

/// Finds an object's fields among the members a type has.
struct Members<'a> {
    names: Vec<&'a str>,
    folded: HashMap<String, usize>,
    exact: HashMap<&'a str, usize>,
    /// The value each member was last filled for.
    filled: Vec<Option<usize>>,
}

impl<'a> Members<'a> {
    fn new(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.collect();
        let folded = names.iter().enumerate().map(|(index, name)| (names::fold(name), index)).collect();
        let exact = names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        Self { filled: vec![None; names.len()], names, folded, exact }
    }

    /// Hands the values of a row's fields on.
    ///
    /// # Errors
    /// With name and reason when a field stands twice.
    fn fill<'v>(
        &mut self,
        row: usize,
        entries: &[(Cow<'v, str>, &'v str)],
        mut take: impl FnMut(usize, Option<&'v str>),
    ) -> Result<(), (String, String)> {
        for (position, (name, value)) in entries.iter().enumerate() {
            let Some(member) = self.find(name, position) else { continue };
            if self.filled[member].replace(row) == Some(row) {
                return Err((self.names[member].to_owned(), "the field stands twice in one object".to_owned()));
            }
            take(member, not_null(value));
        }
        Ok(())
    }

    fn find(&self, name: &str, position: usize) -> Option<usize> {
        if self.names.get(position) == Some(&name) {
            return Some(position);
        }
        self.exact.get(name).or_else(|| self.folded.get(&names::fold(name))).copied()
    }
}

fn first_twice<'a>(entries: &'a [(Cow<'_, str>, &str)]) -> Option<&'a str> {
    let mut seen = HashSet::new();
    entries.iter().map(|(name, _)| name.as_ref()).find(|name| !seen.insert(*name))
}

/// Reads an object into names and raw values.
fn object<'a>(text: &'a str, entries: &mut Vec<(Cow<'a, str>, &'a str)>) -> Result<(), String> {
    entries.clear();
    let trimmed = text.trim_ascii_start();
    if !trimmed.starts_with('{') {
        check(text)?;
        return Err(format!("{} is not an object", number::quoted(text.trim().as_bytes())));
    }
    let Entries(found) = serde_json::from_str(text).map_err(|error| format!("broken JSON: {error}"))?;
    *entries = found;
    Ok(())
}

/// Reads an array into raw values.
fn elements(text: &str) -> Result<Vec<&str>, String> {
    if !text.starts_with('[') {
        return Err(format!("{} is not an array", number::quoted(text.as_bytes())));
    }
    let Elements(found) = serde_json::from_str(text).map_err(|error| format!("broken JSON: {error}"))?;
    Ok(found)
}

/// The text of a JSON string.
fn unescape(value: &str) -> Result<Cow<'_, str>, String> {
    if memchr::memchr(b'\\', value.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(&value[1..value.len() - 1]));
    }
    serde_json::from_str::<String>(value).map(Cow::Owned).map_err(|error| format!("broken JSON: {error}"))
}

/// Which JSON values a type takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Number,
    Truth,
    /// A string that is read further.
    Text,
    /// Anything: strings as they are, all else as its JSON text.
    Anything,
}

impl Wants {
    fn of(kind: &ColumnType, formats: &[TimeFormat]) -> Self {
        match kind {
            ColumnType::Boolean => Self::Truth,
            ColumnType::String => Self::Anything,
            // A declared format, such as %s for seconds since 1970, may be one for numbers.
            ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampNtz if !formats.is_empty() => {
                Self::Anything
            }
            ColumnType::Binary | ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampNtz => Self::Text,
            _ => Self::Number,
        }
    }
}

struct JsonCells<'a> {
    values: &'a [Option<&'a str>],
    rows: &'a [usize],
    wants: Wants,
}

impl Cells for JsonCells<'_> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, String> {
        let Some(value) = self.values[index] else { return Ok(None) };
        let plain = || Ok(Some(Cow::Borrowed(value.as_bytes())));
        match (value.as_bytes().first(), self.wants) {
            (Some(b'"'), Wants::Text | Wants::Anything) => unescape(value).map(|text| {
                Some(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                })
            }),
            (_, Wants::Anything) => plain(),
            (Some(b'-' | b'0'..=b'9'), Wants::Number) | (Some(b't' | b'f'), Wants::Truth) => plain(),
            (_, Wants::Number) => Err(format!("{} is not a JSON number", number::quoted(value.as_bytes()))),
            (_, Wants::Truth) => Err(format!("{} is not true or false", number::quoted(value.as_bytes()))),
            (_, Wants::Text) => Err(format!("{} is not a JSON string", number::quoted(value.as_bytes()))),
        }
    }

    fn row(&self, index: usize) -> usize {
        self.rows[index]
    }
}

/// Texts that are values themselves.
pub(super) struct Plain<'a> {
    pub(super) texts: &'a [Option<Cow<'a, str>>],
    pub(super) rows: &'a [usize],
}

impl Cells for Plain<'_> {
    fn len(&self) -> usize {
        self.texts.len()
    }

    fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, String> {
        Ok(self.texts[index].as_deref().map(|text| Cow::Borrowed(text.as_bytes())))
    }

    fn row(&self, index: usize) -> usize {
        self.rows[index]
    }
}

struct Entries<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Vec<(Cow<'de, str>, &'de str)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    entries.push((name, value.get()));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Visit).map(Entries)
    }
}

/// A field's name, borrowed where nothing is escaped in it.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Visit).map(Name)
    }
}

struct Elements<'a>(Vec<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Vec<&'de str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(item) = items.next_element::<&'de RawValue>()? {
                    found.push(item.get());
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(Visit).map(Elements)
    }
}
