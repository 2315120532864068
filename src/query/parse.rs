//! From text to one parsed statement: placeholders numbered, numbers read as SQL means them.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::config::read_calls;
use crate::query::QueryError;
use crate::query::dialect::LakeDialect;

/// Longest text of one statement in bytes: ten times the longest that programs have been seen to write.
pub(crate) const MAX_TEXT_BYTES: usize = 4 << 20;

/// Most operators of one expression: trees that deep can be walked with the stack there is.
const MAX_CHAIN: usize = 2_000;

/// Most set operations of one statement, for the same reason.
const MAX_SETS: usize = 500;

/// Most digits a decimal can hold; a literal with more is a double.
const MAX_DECIMAL_DIGITS: usize = 38;

/// Digits from which a whole number may be too large for 64 bits and is read as a decimal.
const MAX_WHOLE_DIGITS: usize = 19;

/// Highest number of a parameter.
const MAX_PARAMETERS: usize = 10_000;

/// One statement as the parser sees it.
pub(crate) struct Parsed {
    /// The statement; `?` have become `$1`, `$2`, ….
    pub(crate) statement: Statement,
    /// The highest number among its parameters.
    pub(crate) parameters: usize,
    /// Whether something is written out in it whose type hangs on what stands beside it.
    pub(crate) literals: bool,
    /// Whether the words EXPLAIN ESTIMATE stood before it.
    pub(crate) estimates: bool,
}

/// Parses exactly one statement; a `;` at the end is allowed.
///
/// # Errors
/// When the text is no SQL, is empty, or holds several statements or both kinds of placeholders.
pub(crate) fn parse(sql: &str) -> Result<Parsed, QueryError> {
    if sql.len() > MAX_TEXT_BYTES {
        return Err(QueryError::invalid(format!(
            "the statement is {} bytes long; at most {MAX_TEXT_BYTES} are read: put long lists of values into a table",
            sql.len()
        )));
    }
    let mut tokens = Tokenizer::new(&LakeDialect, sql)
        .tokenize_with_location()
        .map_err(|error| QueryError::invalid(error.to_string()))?;
    check_depth(&tokens)?;
    read_calls(&mut tokens);
    let estimates = read_estimate(&mut tokens);
    let parameters = number_placeholders(&mut tokens)?;
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&LakeDialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(QueryError::from)?;
    if statements.len() > 1 {
        return Err(QueryError::invalid("there are several statements; send them one by one"));
    }
    let Some(mut statement) = statements.pop_front() else {
        return Err(QueryError::invalid("the statement is empty"));
    };
    let literals = read_literals(&mut statement)?;
    Ok(Parsed { statement, parameters, literals, estimates })
}

/// Parses exactly one expression, such as a row filter. There are no placeholders in it.
///
/// # Errors
/// When the text is no expression, or holds more than one.
pub(crate) fn parse_expression(text: &str) -> Result<Expr, QueryError> {
    let mut tokens = Tokenizer::new(&LakeDialect, text)
        .tokenize_with_location()
        .map_err(|error| QueryError::invalid(error.to_string()))?;
    check_depth(&tokens)?;
    read_calls(&mut tokens);
    if number_placeholders(&mut tokens)? > 0 {
        return Err(QueryError::invalid("there is nothing to put in the place of a parameter here"));
    }
    let parsed = DFParserBuilder::new(tokens)
        .with_dialect(&LakeDialect)
        .build()
        .and_then(|mut parser| parser.parse_into_expr())
        .map_err(QueryError::from)?;
    let mut expression = parsed.expr;
    match (parsed.alias, expression.visit(&mut Literals { open: false })) {
        (None, ControlFlow::Continue(())) => Ok(expression),
        (Some(alias), _) => Err(QueryError::invalid(format!("the name `{alias}` is not of the expression"))),
        (None, ControlFlow::Break(name)) => Err(no_parameter(&name)),
    }
}

/// Every operator nests what was read so far one level deeper, and what walks such trees needs a stack.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let (mut run, mut sets) = (0_usize, 0_usize);
    for token in tokens {
        match &token.token {
            Token::Comma | Token::SemiColon => run = 0,
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => (run, sets) = (0, sets + 1),
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::WHEN | Keyword::THEN => run = 0,
                Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::JOIN => run += 1,
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::LParen
            | Token::RParen
            | Token::EOF => {}
            _ => run += 1,
        }
        if run > MAX_CHAIN {
            return Err(QueryError::invalid(format!(
                "more than {MAX_CHAIN} operators in one expression; write x IN (…) for a list of values, or put it into a table"
            )));
        }
    }
    if sets > MAX_SETS {
        return Err(QueryError::invalid(format!("more than {MAX_SETS} queries in one UNION, EXCEPT or INTERSECT")));
    }
    Ok(())
}

/// Takes the words EXPLAIN ESTIMATE from before a statement, and returns whether they were there: the parser does not know
/// them. What is left stands where it stood.
fn read_estimate(tokens: &mut [TokenWithSpan]) -> bool {
    let is_word = |token: &TokenWithSpan, keyword: Keyword| matches!(&token.token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none());
    let mut words = tokens.iter_mut().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return false };
    let is_asked = is_word(first, Keyword::EXPLAIN) && is_word(second, Keyword::ESTIMATE);
    if is_asked {
        first.token = Token::Whitespace(Whitespace::Space);
        second.token = Token::Whitespace(Whitespace::Space);
    }
    is_asked
}

/// Gives every `?` its number and returns the highest number there is.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<usize, QueryError> {
    let (mut marks, mut highest) = (0, 0);
    for token in tokens {
        let Token::Placeholder(text) = &mut token.token else { continue };
        if text == "?" {
            marks += 1;
            *text = format!("${marks}");
            continue;
        }
        let number = text.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        match number {
            Some(number) if (1..=MAX_PARAMETERS).contains(&number) => highest = highest.max(number),
            _ => return Err(no_parameter(text)),
        }
    }
    match (marks, highest) {
        (1.., 1..) => Err(QueryError::invalid("use either `?` or `$1`, `$2`, … for parameters, not both")),
        (0, highest) => Ok(highest),
        (marks, _) => Ok(marks),
    }
}

/// Number literals with an exponent are doubles, as in the SQL standard; so are those with more digits
/// than a decimal holds. Returns whether there are literals that are settled later (see `literals`).
/// Placeholders by name are refused.
fn read_literals(statement: &mut Statement) -> Result<bool, QueryError> {
    match statement {
        Statement::Statement(inner) => {
            let mut literals = Literals { open: false };
            match inner.visit(&mut literals) {
                ControlFlow::Continue(()) => Ok(literals.open),
                ControlFlow::Break(name) => Err(no_parameter(&name)),
            }
        }
        Statement::Explain(explain) => read_literals(&mut explain.statement),
        _ => Ok(false),
    }
}

fn no_parameter(text: &str) -> QueryError {
    QueryError::invalid(format!("`{text}` is no parameter; write `?`, or `$1`, `$2`, …"))
}

/// Breaks at a placeholder that has a name.
struct Literals {
    open: bool,
}

impl VisitorMut for Literals {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        self.open |= matches!(expr, Expr::TypedString(_)) || is_time_function(expr);
        let Expr::Value(ValueWithSpan { value, span }) = expr else { return ControlFlow::Continue(()) };
        match value {
            Value::Placeholder(name) if !name.starts_with('$') => return ControlFlow::Break(name.clone()),
            Value::Number(text, _) if is_double(text) => {
                let text = Value::SingleQuotedString(text.replace('_', ""));
                *expr = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(Expr::Value(ValueWithSpan { value: text, span: *span })),
                    data_type: DataType::Double(ExactNumberInfo::None),
                    array: false,
                    format: None,
                };
            }
            Value::Number(text, _) => self.open |= text.contains('.') || text.len() >= MAX_WHOLE_DIGITS,
            Value::SingleQuotedString(_) => self.open = true,
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Functions that give times in nanoseconds, which no column of the lake holds.
fn is_time_function(expr: &Expr) -> bool {
    let Expr::Function(function) = expr else { return false };
    let name = function.name.to_string().to_ascii_lowercase();
    name == "now" || name.contains("timestamp")
}

fn is_double(number: &str) -> bool {
    let exponent = number.contains(['e', 'E']);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    exponent || digits > MAX_DECIMAL_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(sql: &str) -> String {
        parse(sql).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn question_marks_are_numbered_and_texts_are_left_alone() {
        let parsed = parse("select ?, '?', \"?\", ? -- ?\n where 1 = ?").unwrap();
        assert_eq!(parsed.parameters, 3);
        assert_eq!(parsed.statement.to_string(), "SELECT $1, '?', \"?\", $2 WHERE 1 = $3");
        assert_eq!(parse("select $2").unwrap().parameters, 2);
    }

    #[test]
    fn both_kinds_of_placeholders_together_are_refused() {
        assert!(failure("select ?, $1").contains("not both"));
        assert!(failure("select $0").contains("is no parameter"));
        assert!(failure("select :name").contains("is no parameter"));
    }

    #[test]
    fn there_is_one_statement() {
        assert!(parse("select 1;").is_ok());
        assert!(failure("select 1; select 2").contains("several statements"));
        assert!(failure(" -- nothing").contains("empty"));
        assert!(failure("").contains("empty"));
    }

    #[test]
    fn syntax_errors_say_where() {
        assert!(failure("select 1\n frm t x").contains("Line: 2"), "{}", failure("select 1\n frm t x"));
        assert!(failure("select 'open").contains("Line: 1"));
    }

    #[test]
    fn an_estimate_is_asked_for_in_words_before_a_query() {
        let parsed = parse("explain -- how much?\n estimate select estimate from t").unwrap();
        assert!(parsed.estimates && parsed.statement.to_string() == "SELECT estimate FROM t");
        assert!(!parse("explain select 1").unwrap().estimates && !parse("select estimate from t").unwrap().estimates);
        assert!(failure("explain estimate").contains("empty"), "{}", failure("explain estimate"));
        assert!(failure("explain estimate\n frm t x").contains("Line: 2"));
    }

    #[test]
    fn who_asks_is_called_with_and_without_parentheses() {
        for sql in ["select current_user", "select current_user()", "select CURRENT_USER ( )", "select a, current_user"]
        {
            assert!(parse(sql).is_ok(), "{sql}: {}", failure(sql));
        }
        assert!(parse_expression("name = current_user() or name = current_user").is_ok());
        assert!(parse_expression("a = 1, b = 2").is_err() && parse_expression("a = ?").is_err());
        assert!(parse_expression("a = 1 as b").is_err() && parse_expression("").is_err());
    }

    #[test]
    fn a_case_without_end_is_refused_at_once_however_deep_it_is() {
        for depth in [1, 40, 2000] {
            let open = "case when true then ".repeat(depth);
            assert!(!failure(&format!("select {open}1")).is_empty());
            assert!(!failure(&format!("select {open}1 1 {}", "end ".repeat(depth))).is_empty());
        }
    }

    #[test]
    fn an_exponent_makes_a_double() {
        let text = |sql| parse(sql).unwrap().statement.to_string();
        assert_eq!(text("select 1e3, 1.5, -2E-1"), "SELECT CAST('1e3' AS DOUBLE), 1.5, -CAST('2E-1' AS DOUBLE)");
    }
}
