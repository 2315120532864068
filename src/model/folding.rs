//! Values of keys made comparable as their source compares them.
//!
//! Two texts are one key where the source says so: under a collation of SQL Server blanks at the end never count, and
//! where it is case-insensitive neither does case. [`KeyFolding::fold`] gives one text for all texts that are one key.
//! That is right only for letters whose comparison is simple, and it is known which those are
//! ([`KeyFolding::covers`]): a collation also takes `ß` for `ss`, `²` for `2`, full-width letters for narrow ones,
//! and under its older versions any emoji for any other. A key that is not covered must be compared by its source.

use std::borrow::Cow;

/// How values of a key column are made comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFolding {
    /// Equal values are equal keys.
    Exact,
    /// Bytes: zeros at the end do not count.
    TrimZeros,
    /// Text compared by its code points (`_BIN`, `_BIN2`): blanks at the end do not count.
    TrimBlanks,
    /// Text compared by its letters and their case: as [`Self::TrimBlanks`], but some letters are not covered.
    Letters,
    /// Text compared by its letters without their case. Blanks at the end do not count; some letters are not covered.
    LettersWithoutCase,
    /// The server must compare.
    NotFoldable,
}

impl KeyFolding {
    /// Whether [`Self::fold`] tells exactly which texts are one key with this one.
    pub fn covers(self, text: &str) -> bool {
        match self {
            _ if self.covers_all() => true,
            Self::Letters | Self::LettersWithoutCase => text.bytes().all(plain_byte) || text.chars().all(is_simple),
            _ => false,
        }
    }

    /// Whether [`Self::covers`] holds for every text.
    pub fn covers_all(self) -> bool {
        matches!(self, Self::Exact | Self::TrimZeros | Self::TrimBlanks)
    }

    /// One text for all texts that are one key; the text itself where nothing can be folded.
    pub fn fold(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Exact | Self::TrimZeros | Self::NotFoldable => Cow::Borrowed(text),
            Self::TrimBlanks | Self::Letters => Cow::Borrowed(text.trim_end_matches(' ')),
            Self::LettersWithoutCase => upper(text.trim_end_matches(' ')),
        }
    }

    /// One value for all binary values that are one key.
    pub fn fold_bytes(self, bytes: &[u8]) -> &[u8] {
        let zeros = match self {
            Self::TrimZeros => bytes.iter().rev().take_while(|byte| **byte == 0).count(),
            _ => 0,
        };
        bytes.get(..bytes.len() - zeros).unwrap_or(bytes)
    }

    /// Whether [`Self::fold`] or [`Self::fold_bytes`] can change a value.
    pub fn changes_values(self) -> bool {
        !matches!(self, Self::Exact | Self::NotFoldable)
    }
}

/// The text in upper case, letter by letter as a collation does it: no letter becomes two.
fn upper(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            Cow::Owned(text.to_ascii_uppercase())
        } else {
            Cow::Borrowed(text)
        };
    }
    Cow::Owned(text.chars().map(upper_letter).collect())
}

fn upper_letter(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => letter,
    }
}

/// ASCII that every collation knows. Most control characters have no weight at all: with and without them, a text is
/// the same key.
fn plain_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~')
}

/// Letters that equal no other letter but their own other case. Left out are letters that equal two (æ, ß, þ, œ),
/// those that share a shape or a weight with another (ð and đ, ª, µ, ſ, final ς), and what is no letter.
fn is_simple(letter: char) -> bool {
    match letter {
        _ if letter.is_ascii() => u8::try_from(letter).is_ok_and(plain_byte),
        // Latin-1: À to þ.
        'Æ' | 'æ' | 'ß' | 'Þ' | 'þ' | 'Ð' | 'ð' | '×' | '÷' | 'ÿ' => false,
        'À'..='þ' => true,
        // Greek, with accents, without final sigma.
        'Ά' | 'Έ'..='Ί' | 'Ό' | 'Ύ' | 'Ώ' | 'Α'..='Ρ' | 'Σ'..='Ω' | 'ά'..='ί' | 'α'..='ρ' | 'σ'..='ω' | 'ό'..='ώ' => {
            true
        }
        // Cyrillic as it is written today.
        'Ѐ'..='џ' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_are_one_key_become_one() {
        let fold = |text| KeyFolding::LettersWithoutCase.fold(text).into_owned();
        for (one, other) in [("ABC", "abc  "), ("Ärger", "äRGER"), ("ΣΊΣΥΦΟΣ", "σίσυφοσ "), ("Ёж", "ЁЖ"), ("", "   ")]
        {
            assert_eq!(fold(one), fold(other), "{one} {other}");
            assert!(KeyFolding::LettersWithoutCase.covers(one) && KeyFolding::LettersWithoutCase.covers(other));
        }
        for (one, other) in [("a", "á"), (" a", "a"), ("a\t", "a"), ("a b", "ab"), ("co-op", "coop")] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
        assert_eq!(KeyFolding::Letters.fold("aB "), "aB");
        assert_eq!(KeyFolding::TrimBlanks.fold("aB \u{a0}"), "aB \u{a0}");
        assert_eq!(KeyFolding::Exact.fold("aB "), "aB ");
    }

    #[test]
    fn letters_with_more_than_one_match_are_not_covered() {
        for text in
            ["Straße", "Æther", "10²", "ﬁn", "Ａ", "e\u{301}", "a\0", "a\u{ad}b", "ς", "ı", "İ", "µ", "😀", "漢"]
        {
            assert!(!KeyFolding::LettersWithoutCase.covers(text), "{text}");
            assert!(!KeyFolding::Letters.covers(text), "{text}");
            assert!(KeyFolding::TrimBlanks.covers(text), "{text}");
        }
        assert!(!KeyFolding::NotFoldable.covers("a"));
    }

    #[test]
    fn zeros_at_the_end_of_bytes_do_not_count() {
        assert_eq!(KeyFolding::TrimZeros.fold_bytes(&[1, 0, 2, 0, 0]), [1, 0, 2]);
        assert_eq!(KeyFolding::TrimZeros.fold_bytes(&[0, 0]), [0_u8; 0]);
        assert_eq!(KeyFolding::Exact.fold_bytes(&[1, 0]), [1, 0]);
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in "[ a-zA-ZÀ-þα-ωА-я]{0,12}") {
            let once = KeyFolding::LettersWithoutCase.fold(&text).into_owned();
            prop_assert_eq!(KeyFolding::LettersWithoutCase.fold(&once), once.as_str());
        }

        #[test]
        fn covered_letters_match_only_their_other_case(letter in any::<char>(), other in any::<char>()) {
            if is_simple(letter) && is_simple(other) && upper_letter(letter) == upper_letter(other) {
                prop_assert!(letter == other || letter.to_lowercase().eq(other.to_lowercase()));
            }
        }
    }
}
