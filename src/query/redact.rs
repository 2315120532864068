//! Statements without the values that stand in them, for those who keep histories and not people's values.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::query::parse::MAX_TEXT_BYTES;

/// The text with a `?` in the place of each literal, and without comments; none where it cannot be read as SQL, since
/// then anything in it may be a value, and where it is longer than any that is run: reading it costs many times its size.
pub fn without_literals(sql: &str) -> Option<String> {
    if sql.len() > MAX_TEXT_BYTES {
        return None;
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().ok()?;
    let mut text = String::with_capacity(sql.len());
    for token in tokens {
        match token {
            Token::Number(..) | Token::DollarQuotedString(_) => text.push('?'),
            Token::Word(word) => text.push_str(&word.to_string()),
            // Comments among them.
            Token::Whitespace(_) if text.ends_with(' ') => {}
            Token::Whitespace(_) => text.push(' '),
            Token::EOF => {}
            other => {
                let written = other.to_string();
                // Names in quotes are words; whatever else is quoted is a literal of some kind.
                let quoted = written.contains(['\'', '"']);
                text.push_str(if quoted { "?" } else { &written });
            }
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_go_and_the_rest_stays() {
        let sql = "select a, \"b c\" -- of Mr. Smith\nfrom t where x = 'it''s' /* 42 */ and y in (1, 2.5) and z = $1";
        assert_eq!(without_literals(sql).unwrap(), "select a, \"b c\" from t where x = ? and y in (?, ?) and z = $1");
        for literal in ["E'a\\n'", "X'ff'", "N'ä'", "b'x'", "$$secret$$", "U&'s'", "-7"] {
            let text = without_literals(&format!("select {literal}")).unwrap();
            assert!(text.ends_with('?') && !text.contains(['\'', '$', '7']), "{literal}: {text}");
        }
    }

    #[test]
    fn what_is_no_sql_is_not_kept() {
        assert_eq!(without_literals("select 'secret"), None);
    }

    #[test]
    fn what_is_too_long_to_be_run_is_not_read() {
        let longest = " ".repeat(MAX_TEXT_BYTES);
        assert_eq!(without_literals(&longest).as_deref(), Some(" "));
        assert_eq!(without_literals(&format!("{longest} ")), None);
    }
}
