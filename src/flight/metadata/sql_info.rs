//! `CommandGetSqlInfo`: what the server can do, under every code of FlightSql.proto.
//!
//! Every code is answered, for older JDBC drivers fail on a missing one. Each value stands in the arm
//! of the union that drivers cast it from: JDBC wants the `SQL_MAX_*` codes and 562 as 64-bit integers.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{CommandGetSqlInfo, SqlInfo};
use tonic::Status;

use crate::flight::status::malformed;

/// As FlightSql.proto has it.
pub(super) fn schema() -> SchemaRef {
    SqlInfoDataBuilder::schema().clone().into()
}

/// A row for each code asked for, or for all.
pub(super) fn answer(command: &CommandGetSqlInfo) -> Result<RecordBatch, Status> {
    let mut builder = SqlInfoDataBuilder::new();
    server(&mut builder);
    grammar(&mut builder);
    words(&mut builder);
    bitmasks(&mut builder);
    limits(&mut builder);
    let all = builder.build().map_err(|error| malformed(&error))?;
    all.record_batch(command.info.iter().copied()).map_err(|error| malformed(&error))
}

/// Who answers, and what a connection can do.
fn server(builder: &mut SqlInfoDataBuilder) {
    use SqlInfo as Code;
    builder.append(Code::FlightSqlServerName, "lakegate");
    builder.append(Code::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(Code::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    builder.append(Code::FlightSqlServerReadOnly, false);
    builder.append(Code::FlightSqlServerSql, true);
    builder.append(Code::FlightSqlServerSubstrait, false);
    builder.append(Code::FlightSqlServerSubstraitMinVersion, "");
    builder.append(Code::FlightSqlServerSubstraitMaxVersion, "");
    // No transactions. Drivers open one after every statement otherwise.
    builder.append(Code::FlightSqlServerTransaction, 0_i32);
    builder.append(Code::FlightSqlServerCancel, true);
    builder.append(Code::FlightSqlServerBulkIngestion, true);
    builder.append(Code::FlightSqlServerIngestTransactionsSupported, false);
    // Handles of prepared statements do not expire.
    builder.append(Code::FlightSqlServerStatementTimeout, 0_i32);
    builder.append(Code::FlightSqlServerTransactionTimeout, 0_i32);
}

/// Yes and no about the language.
fn grammar(builder: &mut SqlInfoDataBuilder) {
    use SqlInfo as Code;
    const YES: &[Code] = &[
        Code::SqlAllTablesAreSelectable,
        Code::SqlSupportsColumnAliasing,
        Code::SqlNullPlusNullIsNull,
        Code::SqlSupportsTableCorrelationNames,
        Code::SqlSupportsExpressionsInOrderBy,
        Code::SqlSupportsOrderByUnrelated,
        Code::SqlSupportsLikeEscapeClause,
        Code::SqlSupportsNonNullableColumns,
        Code::SqlCatalogAtStart,
        Code::SqlCorrelatedSubqueriesSupported,
        Code::SqlMaxRowSizeIncludesBlobs,
        Code::SqlDdlTable,
        Code::SqlBatchUpdatesSupported,
    ];
    const NO: &[Code] = &[
        Code::SqlDdlCatalog,
        Code::SqlDdlSchema,
        Code::SqlSupportsDifferentTableCorrelationNames,
        Code::SqlSupportsIntegrityEnhancementFacility,
        Code::SqlSelectForUpdateSupported,
        Code::SqlStoredProceduresSupported,
        Code::SqlTransactionsSupported,
        Code::SqlDataDefinitionCausesTransactionCommit,
        Code::SqlDataDefinitionsInTransactionsIgnored,
        Code::SqlSavepointsSupported,
        Code::SqlNamedParametersSupported,
        Code::SqlLocatorsUpdateCopy,
        Code::SqlStoredFunctionsUsingCallSyntaxSupported,
    ];
    YES.iter().for_each(|code| builder.append(*code, true));
    NO.iter().for_each(|code| builder.append(*code, false));
}

/// Names and lists of names.
fn words(builder: &mut SqlInfoDataBuilder) {
    use SqlInfo as Code;
    builder.append(Code::SqlIdentifierQuoteChar, "\"");
    builder.append(Code::SqlSearchStringEscape, "\\");
    builder.append(Code::SqlExtraNameCharacters, "");
    builder.append(Code::SqlSchemaTerm, "schema");
    builder.append(Code::SqlProcedureTerm, "procedure");
    builder.append(Code::SqlCatalogTerm, "catalog");
    builder.append(Code::SqlKeywords, KEYWORDS);
    builder.append(Code::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    builder.append(Code::SqlStringFunctions, STRING_FUNCTIONS);
    builder.append(Code::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    builder.append(Code::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
    builder.append(Code::SqlSupportsConvert, conversions());
}

/// Ordinals and bitmasks; bit n stands for value n of the enumeration named beside it.
fn bitmasks(builder: &mut SqlInfoDataBuilder) {
    use SqlInfo as Code;
    const VALUES: &[(Code, i32)] = &[
        // Unquoted names are folded to lower case, quoted ones taken as they are (SqlSupportedCaseSensitivity).
        (Code::SqlIdentifierCase, 3),
        (Code::SqlQuotedIdentifierCase, 1),
        // Ascending order puts nulls last, descending first (SqlNullOrdering).
        (Code::SqlNullOrdering, 0),
        // Unrelated, beyond select (SqlSupportedGroupBy).
        (Code::SqlSupportedGroupBy, 0b11),
        // Minimum and core (SupportedSqlGrammar); entry and intermediate (SupportedAnsi92SqlGrammarLevel).
        (Code::SqlSupportedGrammar, 0b11),
        (Code::SqlAnsi92SupportedLevel, 0b11),
        // Full outer joins; an ordinal (SqlOuterJoinsSupportLevel).
        (Code::SqlOuterJoinsSupportLevel, 2),
        (Code::SqlSchemasSupportedActions, 0),
        (Code::SqlCatalogsSupportedActions, 0),
        (Code::SqlSupportedPositionedCommands, 0),
        // In comparisons, EXISTS and IN (SqlSupportedSubqueries).
        (Code::SqlSupportedSubqueries, 0b111),
        // UNION and UNION ALL (SqlSupportedUnions).
        (Code::SqlSupportedUnions, 0b11),
        // None (SqlTransactionIsolationLevel).
        (Code::SqlSupportedTransactionsIsolationLevels, 0b1),
        // Forward only, read only (SqlSupportedResultSetType, SqlSupportedResultSetConcurrency).
        (Code::SqlSupportedResultSetTypes, 0b10),
        (Code::SqlSupportedConcurrenciesForResultSetUnspecified, 0),
        (Code::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10),
        (Code::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0),
        (Code::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0),
    ];
    VALUES.iter().for_each(|(code, value)| builder.append(*code, *value));
}

/// Sizes; 0 = no limit, or none that is known. Names of tables and schemas have one.
fn limits(builder: &mut SqlInfoDataBuilder) {
    use SqlInfo as Code;
    const UNLIMITED: std::ops::RangeInclusive<u32> =
        Code::SqlMaxBinaryLiteralLength as u32..=Code::SqlMaxUsernameLength as u32;
    let name_length = i64::try_from(crate::model::TableName::MAX_PART_CHARS).unwrap_or(i64::MAX);
    for code in UNLIMITED {
        let named = [Code::SqlDbSchemaNameLength as u32, Code::SqlMaxTableNameLength as u32];
        if code != Code::SqlMaxRowSizeIncludesBlobs as u32 {
            builder.append(code, if named.contains(&code) { name_length } else { 0 });
        }
    }
    builder.append(Code::SqlDefaultTransactionIsolation, 0_i64);
}

/// What `CAST` converts, by the numbers of `SqlSupportsConvert`.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use arrow_flight::sql::SqlSupportsConvert as Type;
    let numbers = [
        Type::SqlConvertBigint,
        Type::SqlConvertDecimal,
        Type::SqlConvertFloat,
        Type::SqlConvertInteger,
        Type::SqlConvertNumeric,
        Type::SqlConvertReal,
        Type::SqlConvertSmallint,
        Type::SqlConvertTinyint,
    ];
    let moments = [Type::SqlConvertDate, Type::SqlConvertTimestamp];
    let text = [Type::SqlConvertChar, Type::SqlConvertVarchar];
    let codes = |types: &[&[Type]]| types.concat().into_iter().map(|entry| entry as i32).collect::<Vec<_>>();
    let mut conversions = BTreeMap::new();
    let mut from = |types: &[Type], to: Vec<i32>| {
        types.iter().for_each(|entry| drop(conversions.insert(*entry as i32, to.clone())));
    };
    from(&numbers, codes(&[&numbers, &text, &[Type::SqlConvertBit]]));
    from(&moments, codes(&[&moments, &text]));
    from(&text, codes(&[&numbers, &moments, &text, &[Type::SqlConvertBit, Type::SqlConvertVarbinary]]));
    from(&[Type::SqlConvertBit], codes(&[&numbers, &text, &[Type::SqlConvertBit]]));
    from(&[Type::SqlConvertVarbinary], codes(&[&text, &[Type::SqlConvertVarbinary]]));
    conversions
}

/// Words of the language beyond SQL-92.
const KEYWORDS: &[&str] = &["EXCLUDE", "EXPLAIN", "ILIKE", "LIMIT", "OFFSET", "QUALIFY", "UNNEST", "VERSION"];
const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "degrees", "exp", "floor", "ln", "log", "log10", "log2",
    "pi", "power", "radians", "random", "round", "sin", "sqrt", "tan", "trunc",
];
const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "btrim",
    "chr",
    "concat",
    "concat_ws",
    "initcap",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "strpos",
    "substr",
    "translate",
    "trim",
    "upper",
];
const SYSTEM_FUNCTIONS: &[&str] = &["coalesce", "ifnull", "nullif", "version"];
const DATETIME_FUNCTIONS: &[&str] =
    &["current_date", "current_time", "date_bin", "date_part", "date_trunc", "now", "to_timestamp"];
