//! The SQL dialect: the parser's generic one, with table versions (`VERSION AS OF`, `TIMESTAMP AS OF`).

use std::any::TypeId;

use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Lakegate's SQL. What it parses beyond what is supported is refused by name in `clauses`, which
/// tells people more than a syntax error would.
#[derive(Debug)]
pub(crate) struct LakeDialect;

/// How strongly `->` and `->>` bind: between `+` (30) and `=` (20), as in PostgreSQL, so that
/// `j ->> 'a' = 'x'` compares what was found.
const JSON_PRECEDENCE: u8 = 25;

/// Implements the dialect; every switch listed is answered as `GenericDialect` answers it.
macro_rules! lake_dialect {
    ($($switch:ident),* $(,)?) => {
        impl Dialect for LakeDialect {
            /// The parser asks for a dialect's type in places where there is no switch.
            fn dialect(&self) -> TypeId {
                TypeId::of::<GenericDialect>()
            }

            fn is_delimited_identifier_start(&self, ch: char) -> bool {
                GenericDialect.is_delimited_identifier_start(ch)
            }

            fn is_identifier_start(&self, ch: char) -> bool {
                GenericDialect.is_identifier_start(ch)
            }

            fn is_identifier_part(&self, ch: char) -> bool {
                GenericDialect.is_identifier_part(ch)
            }

            /// CASE is never a name without quotes: else the parser tries each CASE that has no END as one, and what
            /// follows again, which takes time without end when there are many.
            fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
                keyword == Keyword::CASE || GenericDialect.is_reserved_for_identifier(keyword)
            }

            fn supports_table_versioning(&self) -> bool {
                true
            }

            fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
                match parser.peek_token_ref().token {
                    Token::Arrow | Token::LongArrow => Some(Ok(JSON_PRECEDENCE)),
                    _ => None,
                }
            }

            $(fn $switch(&self) -> bool {
                GenericDialect.$switch()
            })*
        }

        /// The switches above, for the test that compares them with the parser's.
        #[cfg(test)]
        const SWITCHES: &[&str] = &[$(stringify!($switch)),*];
    };
}

lake_dialect! {
    supports_unicode_string_literal,
    supports_partition_by_after_order_by,
    supports_array_join_syntax,
    supports_group_by_expr,
    supports_group_by_with_modifier,
    supports_left_associative_joins_without_parens,
    supports_connect_by,
    supports_match_recognize,
    supports_pipe_operator,
    supports_start_transaction_modifier,
    supports_window_function_null_treatment_arg,
    supports_dictionary_syntax,
    supports_window_clause_named_window_reference,
    supports_parenthesized_set_variables,
    supports_select_wildcard_except,
    support_map_literal_syntax,
    allow_extract_custom,
    allow_extract_single_quotes,
    supports_extract_comma_syntax,
    supports_create_view_comment_syntax,
    supports_parens_around_table_factor,
    supports_values_as_table_factor,
    supports_create_index_with_clause,
    supports_explain_with_utility_options,
    supports_limit_comma,
    supports_update_order_by,
    supports_from_first_select,
    supports_projection_trailing_commas,
    supports_asc_desc_in_column_definition,
    supports_try_convert,
    supports_bitwise_shift_operators,
    supports_comment_on,
    supports_load_extension,
    supports_named_fn_args_with_assignment_operator,
    supports_struct_literal,
    supports_empty_projections,
    supports_nested_comments,
    supports_multiline_comment_hints,
    supports_user_host_grantee,
    supports_string_escape_constant,
    supports_array_typedef_with_brackets,
    supports_match_against,
    supports_set_names,
    supports_comma_separated_set_assignments,
    supports_filter_during_aggregation,
    supports_select_wildcard_exclude,
    supports_data_type_signed_suffix,
    supports_interval_options,
    supports_quote_delimited_string,
    supports_select_wildcard_replace,
    supports_select_wildcard_ilike,
    supports_select_wildcard_rename,
    supports_optimize_table,
    supports_install,
    supports_detach,
    supports_prewhere,
    supports_with_fill,
    supports_limit_by,
    supports_interpolate,
    supports_settings,
    supports_select_format,
    supports_comment_optimizer_hint,
    supports_constraint_keyword_without_name,
    supports_key_column_option,
    supports_comma_separated_trim,
    supports_cte_without_as,
    supports_select_item_multi_column_alias,
    supports_xml_expressions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_parses_what_the_generic_dialect_parses_in_the_same_way() {
        let corpus = [
            "select a.b, \"x y\", `z` from s.t as a where a.b >= 1.5e3 and c like 'x%' escape '!'",
            "select * exclude (a) from t qualify row_number() over (partition by a order by b) = 1",
            "with recursive n as (select 1 as i union all select i + 1 from n where i < 5) select * from n",
            "select count(*) filter (where x > 1), array_agg(x order by y) from t group by all",
            "select {'a': 1}, [1, 2, 3][1], map {'a': 1}, struct(1, 2), j -> 'a' ->> 'b' from t",
            "from t select a",
            "select extract(year from d), interval '1' day, date '2020-01-01', x::int, try_cast(x as int) from t",
            "select * from t limit 10 offset 5",
            "select * from a natural join b left join lateral (select 1) c on true",
            "select /* nested /* comment */ */ u&'d\\0061t', e'a\\n', x'00' -- end",
            "explain analyze verbose select 1",
            "select * from unnest([1, 2]) as u(x), (values (1, 'a')) as v(n, s)",
            "select * from t |> where a > 1 |> limit 2",
            "show tables",
            "select 1_000, a @ b, #c, @d from t",
        ];
        for sql in corpus {
            let generic = Parser::parse_sql(&GenericDialect, sql).map_err(|e| e.to_string());
            let own = Parser::parse_sql(&LakeDialect, sql).map_err(|e| e.to_string());
            assert_eq!(own, generic, "{sql}");
        }
    }

    #[test]
    fn the_switches_are_the_generic_ones_and_no_other_is_on() {
        assert_eq!(SWITCHES.len(), 68, "compare the list with GenericDialect after an upgrade of the parser");
        assert!(LakeDialect.supports_table_versioning() && !GenericDialect.supports_table_versioning());
    }
}
