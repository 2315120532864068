//! Cuts a batch into tokens, as T-SQL does under QUOTED_IDENTIFIER ON.

use super::error::SqlError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A bare word: keyword or name.
    Word(String),
    /// `[name]` or `"name"`.
    Quoted(String),
    /// `'text'` or, national, `N'text'`.
    Text { value: String, national: bool },
    /// A number as written.
    Number(String),
    /// `$1.50`
    Money(String),
    /// `0x…`
    Binary(Vec<u8>),
    /// `@name` or `@@name`
    Variable(String),
    /// Operators and punctuation.
    Symbol(&'static str),
    /// Behind the last token.
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    /// Line from 1.
    pub(crate) line: u32,
    /// Byte offsets in the batch.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: &[&str] = &[
    "<>", "<=", ">=", "!=", "!<", "!>", "+=", "-=", "*=", "/=", "%=", "::", "||", "(", ")", ",", ";", ".", "+", "-",
    "*", "/", "%", "=", "<", ">", "&", "|", "^", "~", ":", "?",
];

/// Cuts the whole text; the last token is `End`.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>, SqlError> {
    let mut cutter = Cutter { text, at: 0, line: 1 };
    let mut all = Vec::new();
    loop {
        cutter.skip_blank()?;
        let (start, line) = (cutter.at, cutter.line);
        let token = cutter.next()?;
        let last = token == Token::End;
        all.push(Placed { token, line, start, end: cutter.at });
        if last {
            return Ok(all);
        }
    }
}

struct Cutter<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Cutter<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn skip_blank(&mut self) -> Result<(), SqlError> {
        loop {
            let rest = self.rest();
            if rest.starts_with("--") {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if rest.starts_with("/*") {
                self.skip_comment()?;
            } else if self.peek().is_some_and(|c| c.is_whitespace() || c == '\u{feff}') {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    /// Comments nest in T-SQL.
    fn skip_comment(&mut self) -> Result<(), SqlError> {
        let begun = self.line;
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.bump().is_none() {
                return Err(SqlError::new(113, 15, "Missing end comment mark '*/'.").at(begun));
            }
        }
    }

    fn next(&mut self) -> Result<Token, SqlError> {
        let Some(c) = self.peek() else { return Ok(Token::End) };
        let rest = self.rest();
        if c == '\'' {
            return self.text_literal(false);
        }
        if (c == 'N' || c == 'n') && rest[1..].starts_with('\'') {
            self.at += 1;
            return self.text_literal(true);
        }
        if c == '[' {
            return self.enclosed(']').map(Token::Quoted);
        }
        if c == '"' {
            return self.enclosed('"').map(Token::Quoted);
        }
        if rest.starts_with("0x") || rest.starts_with("0X") {
            return self.binary();
        }
        if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return Ok(Token::Number(self.number()));
        }
        if c == '$' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
            return Ok(Token::Money(self.number()));
        }
        if c == '@' {
            return Ok(Token::Variable(self.word()));
        }
        if c.is_alphabetic() || matches!(c, '_' | '#' | '$') {
            return Ok(Token::Word(self.word()));
        }
        for symbol in SYMBOLS {
            if rest.starts_with(symbol) {
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        Err(SqlError::syntax(&c.to_string(), self.line))
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '@' | '#' | '$')) {
            self.bump();
        }
        self.text.get(start..self.at).unwrap_or_default().to_owned()
    }

    fn text_literal(&mut self, national: bool) -> Result<Token, SqlError> {
        self.enclosed('\'').map(|value| Token::Text { value, national })
    }

    /// What stands up to the closing character, which is doubled inside.
    fn enclosed(&mut self, close: char) -> Result<String, SqlError> {
        let begun = self.line;
        self.bump();
        let mut value = String::new();
        loop {
            match self.bump() {
                Some(c) if c == close => {
                    if self.peek() != Some(close) {
                        return Ok(value);
                    }
                    self.bump();
                    value.push(close);
                }
                Some(c) => value.push(c),
                None => {
                    let message = format!("Unclosed quotation mark after the character string '{value}'.");
                    return Err(SqlError::new(105, 15, message).at(begun));
                }
            }
        }
    }

    fn number(&mut self) -> String {
        let start = self.at;
        let mut seen_exponent = false;
        while let Some(c) = self.peek() {
            let exponent = !seen_exponent && matches!(c, 'e' | 'E');
            if exponent {
                seen_exponent = true;
                self.bump();
                if matches!(self.peek(), Some('+' | '-')) {
                    self.bump();
                }
            } else if c.is_ascii_digit() || (c == '.' && !seen_exponent) {
                self.bump();
            } else {
                break;
            }
        }
        self.text.get(start..self.at).unwrap_or_default().to_owned()
    }

    fn binary(&mut self) -> Result<Token, SqlError> {
        self.at += 2;
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
            self.bump();
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
        hex(&digits).map(Token::Binary).ok_or_else(|| SqlError::syntax("0x", self.line))
    }
}

/// Bytes of an even number of hexadecimal digits.
pub(crate) fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks_exact(2).map(|pair| Some((nibble(pair[0])? << 4) | nibble(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_into_tokens() {
        let text = "SELECT [a]]b], N'it''s', 0xF, 1.5e-3 /* x /* y */ */ <> @v -- end";
        let cut: Vec<_> = tokens(text).unwrap().into_iter().map(|placed| placed.token).collect();
        assert_eq!(
            cut,
            vec![
                Token::Word("SELECT".into()),
                Token::Quoted("a]b".into()),
                Token::Symbol(","),
                Token::Text { value: "it's".into(), national: true },
                Token::Symbol(","),
                Token::Binary(vec![15]),
                Token::Symbol(","),
                Token::Number("1.5e-3".into()),
                Token::Symbol("<>"),
                Token::Variable("@v".into()),
                Token::End,
            ]
        );
    }

    #[test]
    fn an_open_text_is_an_error() {
        assert_eq!(tokens("SELECT 'a").unwrap_err().number, 105);
    }
}
