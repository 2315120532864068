//! How the server compares the values of a key, as far as that can be done outside of it.

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

#[cfg(test)]
mod tests {
    use super::*;

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
