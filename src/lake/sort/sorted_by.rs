//! What a data file's entry in the log says of the order of its rows, and of the keys they lie between.
//!
//! The log's own minimum and maximum are of values as they are. Keys that are folded have another order, so their
//! bounds stand in tags beside it, which other programs do not read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use deltalake::kernel::Add;
use serde::{Deserialize, Serialize};

use crate::lake::sort::folded::{applicable, fold};
use crate::model::KeyFolding;

/// The columns a file's rows are sorted by, as a JSON list of [`SortColumn`].
const TAG_SORTED_BY: &str = "lakegate.sortedBy";

/// The least and the greatest value of the first of these columns where it is folded, as a JSON list of two texts.
const TAG_KEY_BOUNDS: &str = "lakegate.keyBounds";

/// Bytes of a bound: as many as the library keeps of a text's minimum and maximum.
const BOUND_BYTES: usize = 64;

/// An order that files are written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SortedBy {
    columns: Vec<SortColumn>,
    first: KeyFolding,
}

/// A column of an order: its name where its values are compared as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SortColumn {
    ByValue(String),
    Folded { column: String, folding: String },
}

impl SortedBy {
    /// By the columns of a key, each compared as `folding` says; by value where it says nothing.
    pub(crate) fn new(key: &[String], folding: &[KeyFolding]) -> Self {
        let of = |place: usize| folding.get(place).copied().unwrap_or(KeyFolding::Exact);
        let columns = key.iter().enumerate().map(|(place, column)| match word(of(place)) {
            None => SortColumn::ByValue(column.clone()),
            Some(folding) => SortColumn::Folded { column: column.clone(), folding: folding.to_owned() },
        });
        Self { columns: columns.collect(), first: of(0) }
    }

    /// As [`Self::new`], for a key of `schema`, not all of whose columns may have something to fold.
    pub(crate) fn of(schema: &Schema, key: &[String], folding: &[KeyFolding]) -> Self {
        let of_column = |(column, folding): (&String, &KeyFolding)| {
            let field = schema.field_with_name(column);
            field.map_or(KeyFolding::Exact, |field| applicable(*folding, field.data_type()))
        };
        Self::new(key, &key.iter().zip(folding).map(of_column).collect::<Vec<_>>())
    }

    /// Whether the log says that a file's rows are sorted so.
    pub(crate) fn is_stated(&self, tags: Option<&HashMap<String, Option<String>>>) -> bool {
        let stated = tags.and_then(|tags| tags.get(TAG_SORTED_BY)?.as_deref());
        stated.is_some_and(|stated| serde_json::from_str::<Vec<SortColumn>>(stated).is_ok_and(|by| by == self.columns))
    }

    /// The only column that the log says a file's rows are sorted by, by value; none where it says something else.
    pub(crate) fn only_column(tags: Option<&HashMap<String, Option<String>>>) -> Option<String> {
        let stated = tags?.get(TAG_SORTED_BY)?.as_deref()?;
        match serde_json::from_str::<Vec<SortColumn>>(stated).ok()?.as_slice() {
            [SortColumn::ByValue(column)] => Some(column.clone()),
            _ => None,
        }
    }

    /// Says of files, in the order they were written, how their rows are sorted, and what was noted of their keys.
    pub(crate) fn state(&self, adds: &mut [Add], noted: Option<Noted>) {
        let Ok(columns) = serde_json::to_string(&self.columns) else { return };
        let bounds = noted.and_then(|noted| noted.of_files(adds)).unwrap_or_default();
        for (place, add) in adds.iter_mut().enumerate() {
            let tags = add.tags.get_or_insert_with(HashMap::new);
            tags.insert(TAG_SORTED_BY.to_owned(), Some(columns.clone()));
            if let Some(Some(bounds)) = bounds.get(place)
                && let Ok(bounds) = serde_json::to_string(bounds)
            {
                tags.insert(TAG_KEY_BOUNDS.to_owned(), Some(bounds));
            }
        }
    }

    /// The bounds of the first column in each file, folded and of its type, from the tags of files. A file that is
    /// not sorted so has none.
    pub(crate) fn bounds(
        &self,
        data_type: &DataType,
        tags: impl Iterator<Item = Option<HashMap<String, Option<String>>>>,
    ) -> Option<(ArrayRef, ArrayRef)> {
        let stated = |tags: Option<HashMap<String, Option<String>>>| {
            let tags = tags.filter(|tags| self.is_stated(Some(tags)))?;
            let bounds: Ends = serde_json::from_str(tags.get(TAG_KEY_BOUNDS)?.as_deref()?).ok()?;
            Some(bounds)
        };
        let (least, greatest): (Vec<_>, Vec<_>) = tags.map(stated).map(Option::unzip).unzip();
        let array = |ends: Vec<Option<String>>| -> Option<ArrayRef> {
            let ends: ArrayRef = if self.first == KeyFolding::TrimZeros {
                let bytes: Vec<Option<Vec<u8>>> = ends.into_iter().map(|end| bytes_of(&end?)).collect();
                Arc::new(BinaryArray::from_iter(bytes))
            } else {
                Arc::new(StringArray::from_iter(ends))
            };
            cast(&ends, data_type).ok()
        };
        array(least).zip(array(greatest))
    }
}

/// The word for a way to fold; none for comparing by value.
fn word(folding: KeyFolding) -> Option<&'static str> {
    match folding {
        KeyFolding::Exact | KeyFolding::NotFoldable => None,
        KeyFolding::TrimZeros => Some("without zeros at the end"),
        KeyFolding::TrimBlanks | KeyFolding::Letters => Some("without blanks at the end"),
        KeyFolding::LettersWithoutCase => Some("upper case without blanks at the end"),
    }
}

/// The least and the greatest key: text as it is, bytes in hexadecimal digits.
type Ends = (String, String);

/// What is noted of rows while they are written, in the slices after which the library may begin another file.
#[derive(Debug)]
pub(crate) struct Noted {
    column: usize,
    folding: KeyFolding,
    look: usize,
    slices: Vec<Slice>,
}

#[derive(Debug)]
struct Slice {
    rows: u64,
    ends: Option<Ends>,
}

impl Noted {
    /// For rows of `schema` that are written in an order, in slices of `look` rows; none where the log's own bounds
    /// are enough.
    pub(crate) fn begin(sorted_by: &SortedBy, schema: &Schema, look: usize) -> Option<Self> {
        let SortColumn::Folded { column, .. } = sorted_by.columns.first()? else { return None };
        let column = schema.index_of(column).ok()?;
        Some(Self { column, folding: sorted_by.first, look: look.max(1), slices: Vec::new() })
    }

    /// Takes note of the next rows that are written.
    pub(crate) fn take(&mut self, rows: &RecordBatch) {
        let values = rows.column(self.column);
        for offset in (0..values.len()).step_by(self.look) {
            let count = self.look.min(values.len() - offset);
            let least = self.folded(values, offset).map(|value| self.cut_down(&value));
            let greatest = self.folded(values, offset + count - 1).and_then(|value| self.cut_up(&value));
            self.slices.push(Slice { rows: count as u64, ends: least.zip(greatest) });
        }
    }

    /// The folded value of a row.
    fn folded(&self, values: &ArrayRef, row: usize) -> Option<Vec<u8>> {
        let folded = fold(self.folding, &values.slice(row, 1)).ok().filter(|folded| folded.is_valid(0))?;
        let bytes = cast(&folded, &DataType::Binary).ok()?;
        Some(bytes.as_binary::<i32>().value(0).to_vec())
    }

    /// A bound at or below a value.
    fn cut_down(&self, value: &[u8]) -> String {
        match std::str::from_utf8(value) {
            Ok(text) if self.folding != KeyFolding::TrimZeros => {
                text[..text.floor_char_boundary(BOUND_BYTES)].to_owned()
            }
            _ => digits(value.get(..BOUND_BYTES).unwrap_or(value)),
        }
    }

    /// A bound at or above a value; none where there is no short one.
    fn cut_up(&self, value: &[u8]) -> Option<String> {
        if value.len() <= BOUND_BYTES {
            return Some(self.cut_down(value));
        }
        match std::str::from_utf8(value) {
            Ok(text) if self.folding != KeyFolding::TrimZeros => {
                let mut letters: Vec<char> = text[..text.floor_char_boundary(BOUND_BYTES)].chars().collect();
                while let Some(last) = letters.pop() {
                    // The range steps over what is no letter. A longer one may be a few bytes more than the limit.
                    if let Some(next) = (last..=char::MAX).nth(1) {
                        letters.push(next);
                        return Some(letters.into_iter().collect());
                    }
                }
                None
            }
            _ => {
                let mut bytes = value.get(..BOUND_BYTES)?.to_vec();
                while let Some(last) = bytes.pop() {
                    if let Some(next) = last.checked_add(1) {
                        bytes.push(next);
                        return Some(digits(&bytes));
                    }
                }
                None
            }
        }
    }

    /// The ends of each file, where it is certain which slices are in it.
    fn of_files(self, adds: &[Add]) -> Option<Vec<Option<Ends>>> {
        let mut slices = self.slices.into_iter();
        let mut files = Vec::with_capacity(adds.len());
        for (place, add) in adds.iter().enumerate() {
            let rows = rows(add).filter(|rows| *rows > 0 && is_part(add, place))?;
            let first = slices.next()?;
            let (mut seen, least) = (first.rows, first.ends.as_ref().map(|ends| ends.0.clone()));
            let mut last = first;
            let mut known = last.ends.is_some();
            while seen < rows {
                last = slices.next()?;
                seen += last.rows;
                known &= last.ends.is_some();
            }
            if seen != rows {
                return None;
            }
            files.push(least.zip(last.ends.map(|ends| ends.1)).filter(|_| known));
        }
        slices.next().is_none().then_some(files)
    }
}

/// Whether a file's name says that it is the one that was written at this place (`part-00007-…`).
fn is_part(add: &Add, place: usize) -> bool {
    let name = add.path.rsplit('/').next().unwrap_or_default();
    let number = name.strip_prefix("part-").and_then(|rest| rest.split('-').next());
    number.and_then(|number| number.parse::<usize>().ok()) == Some(place)
}

fn rows(add: &Add) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Counted {
        num_records: u64,
    }
    serde_json::from_str::<Counted>(add.stats.as_deref()?).ok().map(|counted| counted.num_records)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn add(part: usize, rows: u64) -> Add {
        let path = format!("part-{part:05}-0000-c000.zstd.parquet");
        Add { path, stats: Some(format!("{{\"numRecords\":{rows}}}")), ..Add::default() }
    }

    fn noted(folding: KeyFolding, values: ArrayRef, look: usize) -> (SortedBy, Noted) {
        let schema = Schema::new(vec![Field::new("k", values.data_type().clone(), true)]);
        let sorted_by = SortedBy::of(&schema, &["k".to_owned()], &[folding]);
        let mut noted = Noted::begin(&sorted_by, &schema, look).unwrap();
        noted.take(&RecordBatch::try_from_iter([("k", values)]).unwrap());
        (sorted_by, noted)
    }

    fn stated(sorted_by: &SortedBy, adds: &[Add]) -> Vec<Option<Ends>> {
        let tags = adds.iter().map(|add| add.tags.clone());
        let (least, greatest) = sorted_by.bounds(&DataType::Utf8, tags).unwrap();
        let (least, greatest) = (least.as_string::<i32>(), greatest.as_string::<i32>());
        let ends = |end: Option<&str>| end.map(str::to_owned);
        least.iter().zip(greatest).map(|(least, greatest)| ends(least).zip(ends(greatest))).collect()
    }

    #[test]
    fn files_get_the_bounds_of_the_slices_they_hold() {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["a", "B", "c ", "D", "e"]));
        let folding = KeyFolding::LettersWithoutCase;
        let bounds = |adds: &mut [Add]| {
            let (sorted_by, noted) = noted(folding, Arc::clone(&values), 2);
            sorted_by.state(adds, Some(noted));
            assert!(adds.iter().all(|add| sorted_by.is_stated(add.tags.as_ref())));
            stated(&sorted_by, adds)
        };
        let ends = |least: &str, greatest: &str| Some((least.to_owned(), greatest.to_owned()));
        assert_eq!(bounds(&mut [add(0, 4), add(1, 1)]), [ends("A", "D"), ends("E", "E")]);
        assert_eq!(bounds(&mut [add(0, 5)]), [ends("A", "E")]);
        // Where rows and slices do not meet, or files are not in their order, nothing is known.
        assert_eq!(bounds(&mut [add(0, 3), add(1, 2)]), [None, None]);
        assert_eq!(bounds(&mut [add(0, 4)]), [None]);
        assert_eq!(bounds(&mut [add(1, 4), add(0, 1)]), [None, None]);
        assert_eq!(bounds(&mut [add(0, 4), add(1, 2)]), [None, None]);
    }

    #[test]
    fn a_file_with_a_key_that_is_null_has_no_bounds() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some("B"), Some("c"), Some("D")]));
        let (sorted_by, noted) = noted(KeyFolding::LettersWithoutCase, values, 2);
        let mut adds = [add(0, 2), add(1, 2)];
        sorted_by.state(&mut adds, Some(noted));
        assert_eq!(stated(&sorted_by, &adds), [None, Some(("C".to_owned(), "D".to_owned()))]);
    }

    #[test]
    fn an_order_is_told_from_one_that_folds_otherwise() {
        let key = ["id".to_owned(), "k".to_owned()];
        let order = |folding| SortedBy::new(&key, &[KeyFolding::Exact, folding]);
        let mut adds = [add(0, 1)];
        SortedBy::new(&key, &[]).state(&mut adds, None);
        let tags = adds[0].tags.clone().unwrap();
        assert_eq!(tags[TAG_SORTED_BY].as_deref(), Some(r#"["id","k"]"#));
        assert!(order(KeyFolding::Exact).is_stated(Some(&tags)));
        assert!(!order(KeyFolding::TrimBlanks).is_stated(Some(&tags)));
        order(KeyFolding::Letters).state(&mut adds, None);
        assert!(order(KeyFolding::TrimBlanks).is_stated(adds[0].tags.as_ref()));
        assert!(!order(KeyFolding::LettersWithoutCase).is_stated(adds[0].tags.as_ref()));
        assert!(!order(KeyFolding::Exact).is_stated(adds[0].tags.as_ref()));
    }

    #[test]
    fn long_bounds_are_cut_to_the_safe_side() {
        let long = "Ä".repeat(40);
        let values: ArrayRef = Arc::new(StringArray::from(vec![long.as_str()]));
        let (_, noted) = noted(KeyFolding::LettersWithoutCase, values, 1);
        let (least, greatest) = noted.slices[0].ends.clone().unwrap();
        assert!(least.as_str() <= long.as_str() && greatest.as_str() > long.as_str());
        assert!(least.len() <= BOUND_BYTES && greatest.len() <= BOUND_BYTES);
        let text = |noted: &Noted, text: &str| noted.cut_up(text.as_bytes());
        assert_eq!(text(&noted, &format!("A{}", "\u{10FFFF}".repeat(20))).as_deref(), Some("B"));
        assert_eq!(text(&noted, &"\u{10FFFF}".repeat(20)), None);
        // After U+D7FF come numbers that are no letters.
        let greatest = text(&noted, &"\u{D7FF}".repeat(30)).unwrap();
        assert!(greatest.ends_with('\u{E000}') && greatest > "\u{D7FF}".repeat(30));
    }

    #[test]
    fn bytes_are_bounded_in_hexadecimal_digits() {
        let long = [vec![1_u8; 63], vec![255; 9]].concat();
        let values: ArrayRef = Arc::new(BinaryArray::from(vec![&[0_u8, 0][..], &long]));
        let (sorted_by, noted) = noted(KeyFolding::TrimZeros, values, 8);
        let mut adds = [add(0, 2)];
        sorted_by.state(&mut adds, Some(noted));
        let tags = [adds[0].tags.clone(), None];
        let (least, greatest) = sorted_by.bounds(&DataType::Binary, tags.into_iter()).unwrap();
        assert_eq!(least.as_binary::<i32>().value(0), [0_u8; 0]);
        assert_eq!(greatest.as_binary::<i32>().value(0), [vec![1_u8; 62], vec![2]].concat());
        assert!(least.is_null(1) && greatest.is_null(1));
    }
}
