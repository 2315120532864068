//! Names and values as T-SQL writes them.

use std::fmt::{self, Write};

/// A table or view by its two names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceTable {
    /// The schema's name.
    pub schema: String,
    /// Its own name.
    pub name: String,
}

impl SourceTable {
    /// A table of a schema.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// As a statement names it: `[dbo].[order lines]`.
impl fmt::Display for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.name))
    }
}

/// A name in brackets, whatever it holds: only `]` means anything inside, and is doubled.
pub fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('[');
    for letter in name.chars() {
        quoted.push(letter);
        if letter == ']' {
            quoted.push(letter);
        }
    }
    quoted.push(']');
    quoted
}

/// A text as an expression of type `nvarchar`. A text with control characters is given by its bytes: a backslash
/// before a line break would join two lines, and what becomes of a NUL is not documented.
pub fn text_literal(text: &str) -> String {
    if text.chars().any(char::is_control) {
        let units = text.encode_utf16().count();
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = if units <= 4000 { units.to_string() } else { "max".to_owned() };
        return format!("CAST({} AS nvarchar({length}))", binary_literal(&bytes));
    }
    format!("N'{}'", text.replace('\'', "''"))
}

/// Bytes as a literal: `0x00ff`.
pub fn binary_literal(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(bytes.len() * 2 + 2);
    literal.push_str("0x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(literal, "{byte:02X}");
    }
    literal
}

/// Text from which the value of a `sql_variant` can be had again. A plain cast would cut `money` to two digits, floats
/// to six, times to minutes, and take bytes for text.
pub fn variant_text(expression: &str) -> String {
    let base = format!("CAST(SQL_VARIANT_PROPERTY({expression}, 'BaseType') AS nvarchar(128))");
    let cast = |sql_type: &str| format!("CAST({expression} AS {sql_type})");
    let mut text = format!("CASE {base}");
    for (names, value) in [
        (&["money", "smallmoney"][..], format!("CONVERT(nvarchar(max), {}, 2)", cast("money"))),
        (&["float"], format!("CONVERT(nvarchar(max), {}, 3)", cast("float"))),
        (&["real"], format!("CONVERT(nvarchar(max), {}, 3)", cast("real"))),
        (&["datetime", "smalldatetime"], format!("CONVERT(nvarchar(max), {}, 126)", cast("datetime"))),
        (&["datetime2"], format!("CONVERT(nvarchar(max), {}, 126)", cast("datetime2(7)"))),
        (&["datetimeoffset"], format!("CONVERT(nvarchar(max), {}, 126)", cast("datetimeoffset(7)"))),
        (&["binary", "varbinary"], format!("CONVERT(nvarchar(max), {}, 1)", cast("varbinary(8000)"))),
    ] {
        for name in names {
            let _ = write!(text, " WHEN N'{name}' THEN {value}");
        }
    }
    let _ = write!(text, " ELSE {} END", cast("nvarchar(max)"));
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        for (name, quoted) in [
            ("orders", "[orders]"),
            ("order lines", "[order lines]"),
            ("a]b", "[a]]b]"),
            ("[x]", "[[x]]]"),
            ("\"'", "[\"']"),
            ("🚀", "[🚀]"),
            ("]; DROP TABLE x; --", "[]]; DROP TABLE x; --]"),
        ] {
            assert_eq!(quote(name), quoted);
        }
        assert_eq!(SourceTable::new("my schema", "a]b").to_string(), "[my schema].[a]]b]");
    }

    #[test]
    fn bytes_are_written_in_hexadecimal() {
        assert_eq!(binary_literal(&[]), "0x");
        assert_eq!(binary_literal(&[0, 10, 255]), "0x000AFF");
    }

    #[test]
    fn long_texts_with_control_characters_are_not_cut() {
        let long = "\n".repeat(4001);
        assert!(text_literal(&long).ends_with(" AS nvarchar(max))"));
        assert!(text_literal(&long[1..]).ends_with(" AS nvarchar(4000))"));
    }

    proptest! {
        #[test]
        fn a_quoted_name_ends_at_its_end(name in "(?s).{0,20}") {
            let quoted = quote(&name);
            let inside = quoted.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap();
            prop_assert!(!inside.replace("]]", "").contains(']'));
            prop_assert_eq!(inside.replace("]]", "]"), name);
        }
    }
}
