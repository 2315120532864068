//! Rewrites of the syntax tree: what the planner cannot do itself, or would do otherwise than SQL has
//! it, but can be said in other words.

use std::ops::ControlFlow;

use arrow::array::timezone::Tz;
use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::ast::{
    CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Fetch, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, LimitClause, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, TableAlias, TableFactor, TableSampleKind, TableVersion, UnaryOperator, Value, VisitMut, VisitorMut,
};

use crate::query::QueryError;
use crate::query::sample::Sample;

/// The version of a table a statement asks for, as it stands in the internal name `table@…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `VERSION AS OF n`.
    Version(u64),
    /// `TIMESTAMP AS OF '…'`.
    Time(DateTime<Utc>),
}

impl Asked {
    /// The internal name of a table at this version. People cannot write it: `clauses` refuses `@`.
    fn internal_name(self, table: &str) -> String {
        match self {
            Self::Version(version) => format!("{table}@v{version}"),
            Self::Time(time) => format!("{table}@t{}", time.timestamp_micros()),
        }
    }

    /// The table's own name and the version asked for, from an internal name; none from a plain one.
    pub(crate) fn from_internal_name(name: &str) -> Option<(&str, Self)> {
        let (table, version) = name.rsplit_once('@')?;
        let asked = match version.split_at_checked(1)? {
            ("v", digits) => Self::Version(digits.parse().ok()?),
            ("t", digits) => Self::Time(DateTime::from_timestamp_micros(digits.parse().ok()?)?),
            _ => return None,
        };
        Some((table, asked))
    }
}

/// Does table versions, samples, `FETCH FIRST`, casts to `varchar(n)`, of written numbers to
/// decimals and to timestamps (which are in microseconds, as in the lake). `zone` reads times without a zone;
/// times after `now` are refused, for what they mean changes with the next load.
///
/// # Errors
/// Kind `Unsupported` for other forms of table versions and samples, `InvalidInput` for wrong versions, times and shares.
pub(crate) fn rewrite<V: VisitMut>(tree: &mut V, zone: Tz, now: DateTime<Utc>) -> Result<(), QueryError> {
    if tree.visit(&mut PlainNames).is_break() {
        return Err(QueryError::unsupported("`@` in a table's name is not supported; write t VERSION AS OF 12"));
    }
    match tree.visit(&mut Rewriter { zone, now, around: Vec::new() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Breaks at a table whose name could be an internal one.
struct PlainNames;

impl VisitorMut for PlainNames {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        let internal = name.0.iter().filter_map(ObjectNamePart::as_ident).any(|ident| ident.value.contains('@'));
        if internal { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct Rewriter {
    zone: Tz,
    now: DateTime<Utc>,
    /// The queries around what is visited, from the outermost on.
    around: Vec<Around>,
}

/// A query around others, with the names it gives by WITH.
struct Around {
    names: Vec<String>,
    is_recursive: bool,
    /// How many queries right within it were visited. Those that are named come first, and are known from then on.
    visited: usize,
}

impl Around {
    fn new(query: &Query) -> Self {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        let names = named.map(|named| as_meant(&named.alias.name)).collect();
        let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        Self { names, is_recursive, visited: 0 }
    }

    /// Whether a name means one of its queries where the visit is.
    fn names(&self, name: &str) -> bool {
        let known = self.visited + usize::from(self.is_recursive);
        self.names.iter().take(known).any(|named| named == name)
    }
}

impl VisitorMut for Rewriter {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        self.around.push(Around::new(query));
        fetch_as_limit(query);
        if let SetExpr::Values(values) = query.body.as_mut() {
            values.rows.iter_mut().flat_map(|row| &mut row.content).for_each(lone_double);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<QueryError> {
        self.around.pop();
        if let Some(around) = self.around.last_mut() {
            around.visited += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        for item in &mut select.projection {
            keep_name_of_cast(item);
            lone_double_item(item);
        }
        name_subqueries(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        match self.in_the_name(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        cut_to_length(expr);
        cast_exactly(expr);
        ControlFlow::Continue(())
    }
}

impl Rewriter {
    /// Puts what of a table is asked for into its name: a version, then a sample of that.
    fn in_the_name(&self, factor: &mut TableFactor) -> Result<(), QueryError> {
        let TableFactor::Table { name, alias, args, version, sample, .. } = factor else { return Ok(()) };
        // The new name would be that of a table, were there one of the same name as the query.
        if (version.is_some() || sample.is_some())
            && let [part] = name.0.as_slice()
            && let Some(written) = part.as_ident()
            && self.around.iter().any(|around| around.names(&as_meant(written)))
        {
            return Err(QueryError::unsupported(format!(
                "`{written}` is a query of WITH here, of which there are no versions and no samples; write VERSION AS OF or \
                 TABLESAMPLE after the table within it"
            )));
        }
        if let Some(version) = version.take() {
            let asked = asked(&version, self.zone, self.now)?;
            rename(name, alias, |table| asked.internal_name(table))?;
        }
        if let Some(TableSampleKind::BeforeTableAlias(clause) | TableSampleKind::AfterTableAlias(clause)) =
            sample.take()
        {
            if args.is_some() {
                return Err(QueryError::unsupported(
                    "TABLESAMPLE of a function's result is not supported; name a table",
                ));
            }
            let asked = Sample::asked(&clause)?;
            rename(name, alias, |table| asked.internal_name(table))?;
        }
        Ok(())
    }
}

fn asked(version: &TableVersion, zone: Tz, now: DateTime<Utc>) -> Result<Asked, QueryError> {
    match version {
        TableVersion::VersionAsOf(Expr::Value(value)) => match &value.value {
            Value::Number(text, _) => text
                .parse()
                .map(Asked::Version)
                .map_err(|_| QueryError::invalid(format!("VERSION AS OF takes a whole number from 0, not `{text}`"))),
            other => Err(QueryError::invalid(format!("VERSION AS OF takes a number written out, not `{other}`"))),
        },
        TableVersion::TimestampAsOf(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) => time(text, zone, now).map(Asked::Time),
            other => Err(QueryError::invalid(format!("TIMESTAMP AS OF takes a time in quotes, not `{other}`"))),
        },
        TableVersion::VersionAsOf(_) => Err(QueryError::unsupported("VERSION AS OF takes a number written out")),
        TableVersion::TimestampAsOf(_) => {
            Err(QueryError::unsupported("TIMESTAMP AS OF takes a time in quotes, as in '2026-01-31 12:00:00'"))
        }
        TableVersion::ForSystemTimeAsOf(_) => {
            Err(QueryError::unsupported("FOR SYSTEM_TIME AS OF is not supported; write t TIMESTAMP AS OF '…'"))
        }
        TableVersion::Function(_) => Err(QueryError::unsupported(
            "a version as a function is not supported; write t VERSION AS OF n or t TIMESTAMP AS OF '…'",
        )),
        TableVersion::Changes { .. } => {
            Err(QueryError::unsupported("CHANGES is not supported; join two versions of the table"))
        }
    }
}

fn time(text: &str, zone: Tz, now: DateTime<Utc>) -> Result<DateTime<Utc>, QueryError> {
    let time = arrow::compute::kernels::cast_utils::string_to_datetime(&zone, text.trim()).map_err(|_| {
        QueryError::invalid(format!(
            "`{text}` is no time; write it as in '2026-01-31 12:00:00' or '2026-01-31T12:00:00+01:00'"
        ))
    })?;
    let time = time.with_timezone(&Utc);
    if time > now {
        return Err(QueryError::invalid(format!("TIMESTAMP AS OF '{text}' is later than now")));
    }
    Ok(time)
}

/// Puts what is asked for into the name, and keeps the plain name as the alias columns are called by.
fn rename(
    name: &mut ObjectName,
    alias: &mut Option<TableAlias>,
    internal_name: impl FnOnce(&str) -> String,
) -> Result<(), QueryError> {
    let Some(last) = name.0.last_mut() else { return Ok(()) };
    let Some(ident) = last.as_ident().cloned() else {
        return Err(QueryError::unsupported("a version of a function's result is not supported; name a table"));
    };
    let table = as_meant(&ident);
    *last = ObjectNamePart::Identifier(Ident::with_quote('"', internal_name(&table)));
    alias.get_or_insert_with(|| TableAlias { explicit: true, name: ident, columns: vec![], at: None });
    Ok(())
}

/// A name as it is looked up.
fn as_meant(written: &Ident) -> String {
    if written.quote_style.is_some() { written.value.clone() } else { written.value.to_lowercase() }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`; other forms stay and are refused by `clauses`.
fn fetch_as_limit(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let one = || Expr::value(Value::Number("1".to_owned(), false));
    let wanted = Some(quantity.clone().unwrap_or_else(one));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset { limit: wanted, offset: None, limit_by: vec![] });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, offset: _, limit_by: _ }) => *limit = wanted,
        Some(_) => return,
    }
    query.fetch = None;
}

/// `CAST(x AS varchar(n))` is cut to n characters, as the SQL standard has it; the planner would not.
fn cut_to_length(expr: &mut Expr) {
    let Expr::Cast { data_type, .. } = expr else { return };
    let Some(length) = take_length(data_type) else { return };
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let length = Expr::value(Value::Number(length.to_string(), false));
    let cast = std::mem::replace(expr, Expr::value(Value::Null));
    *expr = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("left")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(cast), argument(length)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
}

fn take_length(data_type: &mut DataType) -> Option<u64> {
    let DataType::Varchar(length) = data_type else { return None };
    match length.take()? {
        CharacterLength::IntegerLength { length, unit: _ } => Some(length),
        CharacterLength::Max => None,
    }
}

/// Timestamps have the lake's microseconds where no precision is written, and a number that is written
/// out becomes the decimal without being rounded on the way.
fn cast_exactly(expr: &mut Expr) {
    match expr {
        Expr::Cast { data_type, expr: inner, .. } => {
            in_microseconds(data_type);
            if let (DataType::Decimal(_) | DataType::Numeric(_), Some(text)) = (&*data_type, number(inner)) {
                **inner = Expr::value(Value::SingleQuotedString(text));
            }
        }
        Expr::TypedString(typed) => in_microseconds(&mut typed.data_type),
        _ => {}
    }
}

fn in_microseconds(data_type: &mut DataType) {
    if let DataType::Timestamp(precision @ None, _) = data_type {
        *precision = Some(6);
    }
}

/// The text of a number that is written out.
pub(crate) fn number(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(text.replace('_', "")),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|text| format!("-{text}")),
        Expr::Nested(inner) => number(inner),
        _ => None,
    }
}

/// A number with a point that stands alone in a select list or in VALUES is a double (see `literals`); said
/// here, for UNION and VALUES bring their sides to one type while they are planned.
fn lone_double(expr: &mut Expr) {
    let Some(text) = number(expr).filter(|text| text.contains('.')) else { return };
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::SingleQuotedString(text))),
        data_type: DataType::Double(ExactNumberInfo::None),
        array: false,
        format: None,
    };
}

fn lone_double_item(item: &mut SelectItem) {
    match item {
        SelectItem::ExprWithAlias { expr, .. } => lone_double(expr),
        SelectItem::UnnamedExpr(expr) => {
            if let Some(text) = number(expr).filter(|text| text.contains('.')) {
                lone_double(expr);
                let expr = std::mem::replace(expr, Expr::value(Value::Null));
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', text) };
            }
        }
        _ => {}
    }
}

/// Several unnamed subqueries in one select list would have one name, which the planner refuses.
fn name_subqueries(projection: &mut [SelectItem]) {
    let unnamed = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(Expr::Subquery(_)));
    if projection.iter().filter(|item| unnamed(item)).count() < 2 {
        return;
    }
    for (index, item) in projection.iter_mut().filter(|item| unnamed(item)).enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item {
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("subquery{}", index + 1)) };
        }
    }
}

/// A cast column keeps its name when the cast becomes a function.
fn keep_name_of_cast(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }) = item else { return };
    let Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. } = expr else { return };
    if !matches!(data_type, DataType::Varchar(Some(CharacterLength::IntegerLength { .. }))) {
        return;
    }
    let alias = match inner.as_ref() {
        Expr::Identifier(ident) => ident.clone(),
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(ident) => ident.clone(),
            None => return,
        },
        _ => return,
    };
    let expr = std::mem::replace(expr, Expr::value(Value::Null));
    *item = SelectItem::ExprWithAlias { expr, alias };
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use datafusion::sql::parser::Statement;

    use super::*;
    use crate::query::parse::parse;

    fn rewritten(sql: &str) -> Result<String, QueryError> {
        let Statement::Statement(mut statement) = parse(sql)?.statement else { panic!("{sql}") };
        let now = Utc.with_ymd_and_hms(2026, 6, 1, 0, 0, 0).unwrap();
        rewrite(&mut *statement, "UTC".parse().unwrap(), now)?;
        Ok(statement.to_string())
    }

    #[test]
    fn a_version_becomes_part_of_the_name() {
        for (written, meant) in [
            ("select 1 from a.T version as of 3", "SELECT 1 FROM a.\"t@v3\" AS T"),
            ("select 1 from t version as of 3 as x", "SELECT 1 FROM \"t@v3\" AS x"),
            ("select 1 from t timestamp as of '2026-01-01'", "SELECT 1 FROM \"t@t1767225600000000\" AS t"),
            ("select (select 1 from \"T\" version as of 0) from u", "SELECT (SELECT 1 FROM \"T@v0\" AS \"T\") FROM u"),
        ] {
            assert_eq!(rewritten(written).unwrap(), meant);
        }
        let time = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        for asked in [Asked::Version(7), Asked::Time(time)] {
            assert_eq!(Asked::from_internal_name(&asked.internal_name("t")), Some(("t", asked)));
        }
        assert_eq!(Asked::from_internal_name("t"), None);
    }

    #[test]
    fn a_sample_becomes_part_of_the_name() {
        for (written, meant) in [
            ("select 1 from a.T tablesample bernoulli (1) repeatable (7)", "SELECT 1 FROM a.\"t@s1r7\" AS T"),
            (
                "select 1 from t version as of 3 as x tablesample bernoulli (0.5 percent) repeatable (0)",
                "SELECT 1 FROM \"t@v3@s0.5r0\" AS x",
            ),
        ] {
            assert_eq!(rewritten(written).unwrap(), meant);
        }
    }

    #[test]
    fn queries_of_with_have_no_samples_and_no_versions() {
        let sample = "tablesample bernoulli (1) repeatable (7)";
        for written in [
            format!("with t as (select 1) select * from T {sample}"),
            "with t as (select 1) select * from (select * from t version as of 3) x".to_owned(),
            "with t as (select 1), u as (select * from t version as of 3) select 1".to_owned(),
            "with recursive t as (select 1 union all select * from t version as of 3) select 1".to_owned(),
        ] {
            let error = rewritten(&written).unwrap_err().to_string();
            assert!(error.contains("is a query of WITH"), "{written}: {error}");
        }
        for written in [
            format!("with t as (select * from t {sample}) select * from t"),
            format!("with t as (select 1) select * from a.t {sample}"),
            "(with t as (select 1) select * from t) union (select * from t version as of 3)".to_owned(),
        ] {
            assert!(rewritten(&written).is_ok(), "{written}");
        }
    }

    #[test]
    fn other_samples_are_refused_with_what_to_write() {
        for (written, told) in [
            (
                "tablesample system (1) repeatable (7)",
                "TABLESAMPLE SYSTEM is not supported; write TABLESAMPLE BERNOULLI",
            ),
            ("tablesample block (1) repeatable (7)", "TABLESAMPLE BLOCK"),
            ("tablesample (10 percent)", "without a method"),
            ("tablesample bernoulli (10)", "without REPEATABLE"),
            ("tablesample bernoulli (10 rows) repeatable (7)", "a number of rows"),
            ("tablesample bernoulli (101) repeatable (7)", "from 0 to 100, not 101"),
            ("tablesample bernoulli (-0.5) repeatable (7)", "from 0 to 100, not -0.5"),
            ("tablesample bernoulli (?) repeatable (7)", "written out"),
            ("tablesample bernoulli (1) repeatable (1.5)", "a whole number"),
            ("tablesample bernoulli (1) repeatable (?)", "a whole number"),
        ] {
            let error = rewritten(&format!("select 1 from t {written}")).unwrap_err().to_string();
            assert!(error.contains(told), "{written}: {error}");
        }
        // A function in FROM has a name as a table has, and arguments.
        assert!(rewritten("select 1 from generate_series(1, 3) tablesample bernoulli (1) repeatable (7)").is_err());
    }

    #[test]
    fn other_versions_are_refused() {
        for sql in [
            "select 1 from t version as of ?",
            "select 1 from t version as of 1.5",
            "select 1 from t version as of -1",
            "select 1 from t version as of 'x'",
            "select 1 from t timestamp as of now()",
            "select 1 from t timestamp as of 'yesterday'",
            "select 1 from t timestamp as of '2027-01-01'",
            "select 1 from t for system_time as of '2026-01-01'",
            "select 1 from t at(version => 1)",
            "select 1 from \"t@v1\"",
            "select 1 from s.t@v1",
        ] {
            assert!(rewritten(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn fetch_first_is_a_limit() {
        assert_eq!(rewritten("select 1 fetch first 3 rows only").unwrap(), "SELECT 1 LIMIT 3");
        assert_eq!(rewritten("select 1 offset 2 rows fetch next row only").unwrap(), "SELECT 1 LIMIT 1 OFFSET 2 ROWS");
        assert!(rewritten("select 1 fetch first 3 rows with ties").unwrap().contains("WITH TIES"));
    }

    #[test]
    fn what_the_planner_cannot_do_is_said_in_other_words() {
        for (written, meant) in [
            ("select (select 1), (select 2)", "SELECT (SELECT 1) AS subquery1, (SELECT 2) AS subquery2"),
            ("select cast(-1.50 as decimal(5,2))", "SELECT CAST('-1.50' AS DECIMAL(5,2))"),
            ("select timestamp '9999-12-31', x::timestamp", "SELECT TIMESTAMP(6) '9999-12-31', x::TIMESTAMP(6)"),
            (
                "select 1.5 union select -2.5 as x",
                "SELECT CAST('1.5' AS DOUBLE) AS \"1.5\" UNION SELECT CAST('-2.5' AS DOUBLE) AS x",
            ),
            ("values (1.5, 2)", "VALUES (CAST('1.5' AS DOUBLE), 2)"),
        ] {
            assert_eq!(rewritten(written).unwrap(), meant);
        }
    }

    #[test]
    fn a_cast_to_varchar_is_cut_and_keeps_its_name() {
        assert_eq!(
            rewritten("select cast(a.b as varchar(3)) from a where x::varchar(2) = 'ab'").unwrap(),
            "SELECT left(CAST(a.b AS VARCHAR), 3) AS b FROM a WHERE left(x::VARCHAR, 2) = 'ab'"
        );
    }
}
