//! SQL expressions as people write them into grants, as far as they can be read without knowing any table.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// Why a text is no single SQL expression.
pub(super) fn expression_problem(text: &str) -> Option<String> {
    let mut tokens = match Tokenizer::new(&GenericDialect {}, text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => return Some(error.to_string()),
    };
    read_calls(&mut tokens);
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    match parser.parse_expr() {
        Err(error) => Some(error.to_string()),
        Ok(_) => match parser.peek_token().token {
            Token::EOF => None,
            more => Some(format!("after the expression stands `{more}`")),
        },
    }
}

/// The parser knows CURRENT_USER without parentheses only; with them it is a function like any other.
pub(crate) fn read_calls(tokens: &mut [TokenWithSpan]) {
    for at in 0..tokens.len() {
        let (read, rest) = tokens.split_at_mut(at + 1);
        let Some(TokenWithSpan { token: Token::Word(word), .. }) = read.last_mut() else { continue };
        if word.keyword == Keyword::CURRENT_USER {
            let next = rest.iter().find(|token| !matches!(token.token, Token::Whitespace(_)));
            if next.is_some_and(|next| next.token == Token::LParen) {
                word.keyword = Keyword::NoKeyword;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_who_asks_are_called_as_others_are() {
        for text in ["name = current_user()", "current_user () = name", "current_user = name", "has_role('a') or true"]
        {
            assert_eq!(expression_problem(text), None, "{text}");
        }
        for text in ["", "a =", "a; b", "a b c"] {
            assert!(expression_problem(text).is_some(), "{text}");
        }
    }
}
