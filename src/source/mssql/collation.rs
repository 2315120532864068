//! How the server compares the values of a key, as far as that can be done outside of it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

use super::column::{SourceColumn, SqlType};
use crate::model::KeyFolding;

/// Families of collations whose case-insensitive comparison is that of single letters. Left out are, for instance,
/// Turkish (dotted and dotless i), Danish_Norwegian (aa is å), German_PhoneBook (ae is ä), Traditional_Spanish,
/// Czech and Hungarian (pairs of letters that are one), and all of East Asia.
const SIMPLE_FAMILIES: &[&str] =
    &["latin1_general", "sql_latin1_general_cp1", "french", "modern_spanish", "cyrillic_general"];

/// How values of a column are made comparable.
pub fn folding(column: &SourceColumn) -> KeyFolding {
    match (&column.sql_type, &column.collation) {
        (SqlType::VarBinary { .. }, _) => KeyFolding::TrimZeros,
        (sql_type, Some(collation)) if sql_type.is_text() => folding_of(collation),
        (sql_type, None) if sql_type.is_text() => KeyFolding::NotFoldable,
        _ => KeyFolding::Exact,
    }
}

/// How texts of a collation are made comparable.
pub fn folding_of(collation: &str) -> KeyFolding {
    let name = collation.to_ascii_lowercase();
    let parts: Vec<_> = name.split('_').collect();
    let has = |part: &str| parts.contains(&part);
    if has("bin") || has("bin2") {
        return KeyFolding::TrimBlanks;
    }
    let family =
        SIMPLE_FAMILIES.iter().any(|family| name.strip_prefix(family).is_some_and(|rest| rest.starts_with('_')));
    match (family && has("as"), has("cs"), has("ci")) {
        (true, true, false) => KeyFolding::Letters,
        (true, false, true) => KeyFolding::LettersWithoutCase,
        _ => KeyFolding::NotFoldable,
    }
}

/// Letters of a value that are shown on each side of the one that matters.
const SHOWN_LETTERS: usize = 20;

/// A value of a key of which only the server knows what other values it equals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomparable {
    /// The column of the key.
    pub column: String,
    /// The value; of a long one the part that matters.
    pub value: String,
}

impl Incomparable {
    /// The first such value of rows, whose key's columns are compared as `folding` says.
    pub fn find(key: &[String], folding: &[KeyFolding], rows: &RecordBatch) -> Option<Self> {
        key.iter().zip(folding).filter(|(_, folding)| !folding.covers_all()).find_map(|(name, folding)| {
            let column = rows.column_by_name(name)?;
            let mut texts: Box<dyn Iterator<Item = Option<&str>>> = match column.data_type() {
                DataType::Utf8 => Box::new(column.as_string::<i32>().iter()),
                DataType::LargeUtf8 => Box::new(column.as_string::<i64>().iter()),
                DataType::Utf8View => Box::new(column.as_string_view().iter()),
                _ => return None,
            };
            let value = texts.find_map(|text| text.filter(|text| !folding.covers(text)))?;
            Some(Self { column: name.clone(), value: part_that_matters(*folding, value) })
        })
    }

    /// Whether such a value of this column still cannot be compared; the column or its collation may have changed.
    pub fn stays(&self, column: &SourceColumn) -> bool {
        column.name == self.column && !folding(column).covers(&self.value)
    }
}

fn part_that_matters(folding: KeyFolding, value: &str) -> String {
    let letters: Vec<char> = value.chars().collect();
    let place = letters.iter().position(|letter| !folding.covers(letter.encode_utf8(&mut [0; 4]))).unwrap_or(0);
    let (from, to) = (place.saturating_sub(SHOWN_LETTERS), (place + SHOWN_LETTERS + 1).min(letters.len()));
    letters[from..to].iter().collect()
}

/// What does not count when values of a column are compared; none where they are compared as they are.
pub fn in_words(column: &SourceColumn) -> Option<&'static str> {
    match folding(column) {
        KeyFolding::Exact | KeyFolding::NotFoldable => None,
        KeyFolding::TrimZeros => Some("zeros at the end do not count"),
        KeyFolding::TrimBlanks | KeyFolding::Letters => Some("blanks at the end do not count"),
        KeyFolding::LettersWithoutCase => Some("neither case nor blanks at the end count"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;

    #[test]
    fn values_that_only_the_server_can_compare_are_found() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("plain"), None, Some("Straße"), Some("Æ")]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
        let rows = RecordBatch::try_from_iter([("id", numbers), ("name", texts)]).unwrap();
        let key = ["id".to_owned(), "name".to_owned()];
        let find = |folding| Incomparable::find(&key, &[KeyFolding::Exact, folding], &rows);
        let found = find(KeyFolding::LettersWithoutCase).unwrap();
        assert_eq!((found.column.as_str(), found.value.as_str()), ("name", "Straße"));
        assert_eq!(find(KeyFolding::TrimBlanks), None);
        let mut column = SourceColumn::plain("name", SqlType::NVarChar { length: Some(20) });
        column.collation = Some("Latin1_General_CI_AS".to_owned());
        assert!(found.stays(&column));
        column.collation = Some("Latin1_General_BIN2".to_owned());
        assert!(!found.stays(&column));
    }

    #[test]
    fn of_a_long_value_the_part_that_matters_is_kept() {
        let long = format!("{}ß{}", "a".repeat(500), "b".repeat(500));
        let kept = part_that_matters(KeyFolding::Letters, &long);
        assert_eq!(kept, format!("{}ß{}", "a".repeat(20), "b".repeat(20)));
        assert_eq!(part_that_matters(KeyFolding::Letters, "ß"), "ß");
    }

    #[test]
    fn collations_are_told_by_name() {
        use KeyFolding::{Letters, LettersWithoutCase, NotFoldable, TrimBlanks};
        for (name, folding) in [
            ("SQL_Latin1_General_CP1_CI_AS", LettersWithoutCase),
            ("SQL_Latin1_General_CP1_CS_AS", Letters),
            ("SQL_Latin1_General_CP1_CI_AI", NotFoldable),
            ("SQL_Latin1_General_CP1254_CI_AS", NotFoldable),
            ("SQL_Latin1_General_CP850_CI_AS", NotFoldable),
            ("Latin1_General_CI_AS", LettersWithoutCase),
            ("latin1_general_ci_as", LettersWithoutCase),
            ("Latin1_General_CS_AS_KS_WS", Letters),
            ("Latin1_General_100_CI_AS_SC_UTF8", LettersWithoutCase),
            ("Latin1_General_CI_AI", NotFoldable),
            ("Latin1_General_BIN", TrimBlanks),
            ("Latin1_General_100_BIN2_UTF8", TrimBlanks),
            ("Turkish_BIN2", TrimBlanks),
            ("Turkish_CI_AS", NotFoldable),
            ("Danish_Norwegian_CI_AS", NotFoldable),
            ("German_PhoneBook_CI_AS", NotFoldable),
            ("Japanese_XJIS_140_CI_AS_VSS", NotFoldable),
            ("Cyrillic_General_CI_AS", LettersWithoutCase),
            ("French_100_CI_AS", LettersWithoutCase),
            ("Modern_Spanish_CI_AS", LettersWithoutCase),
            ("Latin1_Generally_CI_AS", NotFoldable),
            ("", NotFoldable),
        ] {
            assert_eq!(folding_of(name), folding, "{name}");
        }
    }

    #[test]
    fn columns_that_are_no_text_compare_by_value() {
        let mut column = SourceColumn::plain("k", SqlType::Int);
        assert_eq!(folding(&column), KeyFolding::Exact);
        column.sql_type = SqlType::UniqueIdentifier;
        assert_eq!(folding(&column), KeyFolding::Exact);
        column.sql_type = SqlType::VarBinary { length: Some(8) };
        assert_eq!(folding(&column), KeyFolding::TrimZeros);
        column.sql_type = SqlType::VarChar { length: Some(8) };
        assert_eq!(folding(&column), KeyFolding::NotFoldable);
        column.collation = Some("Latin1_General_BIN2".to_owned());
        assert_eq!(folding(&column), KeyFolding::TrimBlanks);
    }
}
