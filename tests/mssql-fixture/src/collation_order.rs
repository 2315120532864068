//! How a linguistic collation orders text: letters first by base letter, then by accent, then by case.
//!
//! The order follows that of the Windows collations in what tests can see: blanks and punctuation before digits before
//! letters, lower case before upper case where case counts. It is no full Unicode collation.

use std::cmp::Ordering;

use icu_normalizer::DecomposingNormalizer;

/// What counts in a comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strength {
    pub(crate) case: bool,
    pub(crate) accent: bool,
}

/// Punctuation in the order of the Windows collations.
const PUNCTUATION: &[u8] = b" _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

const fn ascii_weights() -> [u16; 128] {
    let mut weights = [0; 128];
    let mut at = 0;
    while at < 128 {
        // Control characters come first, in their own order.
        weights[at] = at as u16 + 1;
        at += 1;
    }
    at = 0;
    while at < PUNCTUATION.len() {
        weights[PUNCTUATION[at] as usize] = 0x200 + at as u16;
        at += 1;
    }
    at = 0;
    while at < 10 {
        weights[b'0' as usize + at] = 0x300 + at as u16;
        at += 1;
    }
    at = 0;
    while at < 26 {
        weights[b'a' as usize + at] = 0x400 + at as u16;
        weights[b'A' as usize + at] = 0x400 + at as u16;
        at += 1;
    }
    weights
}

static ASCII: [u16; 128] = ascii_weights();

/// Compares two texts whose trailing blanks are gone already.
pub(crate) fn compare(left: &str, right: &str, strength: Strength) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    if left.is_ascii() && right.is_ascii() {
        return ascii(left.as_bytes(), right.as_bytes(), strength);
    }
    let (left, right) = (Keyed::of(left), Keyed::of(right));
    let mut order = left.base.cmp(&right.base);
    if strength.accent {
        order = order.then_with(|| left.accents.cmp(&right.accents));
    }
    if strength.case {
        order = order.then_with(|| left.upper.cmp(&right.upper));
    }
    order
}

fn ascii(left: &[u8], right: &[u8], strength: Strength) -> Ordering {
    let mut case = Ordering::Equal;
    for (l, r) in left.iter().zip(right) {
        let order = ASCII[usize::from(*l)].cmp(&ASCII[usize::from(*r)]);
        if order.is_ne() {
            return order;
        }
        case = case.then_with(|| r.cmp(l));
    }
    let order = left.len().cmp(&right.len());
    if strength.case { order.then(case) } else { order }
}

/// A text taken apart into what each level compares.
#[derive(Default)]
struct Keyed {
    base: Vec<u32>,
    accents: Vec<(usize, u32)>,
    upper: Vec<bool>,
}

impl Keyed {
    fn of(text: &str) -> Self {
        let mut keyed = Self::default();
        for c in DecomposingNormalizer::new_nfd().normalize_iter(text.chars()) {
            match c {
                '\u{300}'..='\u{36f}' => keyed.accents.push((keyed.base.len(), u32::from(c))),
                'ß' => keyed.letters("ss", false),
                'ẞ' => keyed.letters("ss", true),
                'æ' => keyed.letters("ae", false),
                'Æ' => keyed.letters("ae", true),
                'œ' => keyed.letters("oe", false),
                'Œ' => keyed.letters("oe", true),
                'ø' => keyed.struck("o", false),
                'Ø' => keyed.struck("o", true),
                'ł' => keyed.struck("l", false),
                'Ł' => keyed.struck("l", true),
                'đ' => keyed.struck("d", false),
                'Đ' => keyed.struck("d", true),
                _ => keyed.push(c),
            }
        }
        keyed
    }

    fn letters(&mut self, letters: &str, upper: bool) {
        for c in letters.chars() {
            self.push(if upper { c.to_ascii_uppercase() } else { c });
        }
    }

    /// A letter with a stroke, which Unicode does not take apart.
    fn struck(&mut self, letter: &str, upper: bool) {
        self.letters(letter, upper);
        self.accents.push((self.base.len(), 0x335));
    }

    fn push(&mut self, c: char) {
        let mut lower = c.to_lowercase();
        let first = lower.next().unwrap_or(c);
        self.upper.push(first != c);
        self.base.push(weight(first));
        self.base.extend(lower.map(weight));
    }
}

/// Letters of other scripts follow the Latin ones by code point.
fn weight(c: char) -> u32 {
    match ASCII.get(c as usize) {
        Some(weight) => u32::from(*weight),
        None if c.is_alphanumeric() => 0x1000 + u32::from(c),
        None => 0x240,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CI_AS: Strength = Strength { case: false, accent: true };
    const CS_AS: Strength = Strength { case: true, accent: true };
    const CI_AI: Strength = Strength { case: false, accent: false };

    #[test]
    fn case_and_accents_count_as_the_collation_says() {
        assert!(compare("abc", "ABC", CI_AS).is_eq());
        assert!(compare("abc", "ABC", CS_AS).is_lt());
        assert!(compare("cafe", "café", CI_AI).is_eq());
        assert!(compare("cafe", "café", CI_AS).is_lt());
        assert!(compare("café", "cafez", CI_AS).is_lt());
        assert!(compare("CAFÉ", "café", CI_AS).is_eq());
        assert!(compare("Straße", "STRASSE", CI_AS).is_eq());
    }

    #[test]
    fn punctuation_then_digits_then_letters() {
        let mut words = ["b", "a", "10", "_x", "B2", "é", "z"];
        words.sort_by(|l, r| compare(l, r, CI_AS));
        assert_eq!(words, ["_x", "10", "a", "b", "B2", "é", "z"]);
    }
}
