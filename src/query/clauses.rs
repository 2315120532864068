//! Refuses what the parser reads and the planner would pass over in silence: whoever writes a clause
//! gets what it says, or is told that it is not done.
//!
//! The syntax tree's nodes are taken apart field by field, without `..`, so that a field a newer
//! parser adds stops the build until somebody has decided what it means here. What the planner itself
//! refuses is refused here only where its words would not help.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, Cte, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Join, ObjectName, OrderBy, OrderByKind, PipeOperator, Query,
    Select, SetExpr, SetOperator, TableAlias, TableFactor, TableFunctionArgs, TypedString, Visit, Visitor, WindowSpec,
    WindowType,
};

use crate::query::QueryError;

/// What is known of functions: the planner drops clauses of those that have no use for them.
pub(crate) trait Functions {
    /// Whether the name is a function of one row's values.
    fn is_scalar(&self, name: &str) -> bool;
    /// Whether the name is a window function that is no aggregate.
    fn is_window_only(&self, name: &str) -> bool;
}

/// Fails with the first clause that would be ignored.
///
/// # Errors
/// Kind `Unsupported`, naming the clause and what to write instead.
pub(crate) fn check<V: Visit>(tree: &V, functions: &dyn Functions) -> Result<(), QueryError> {
    match tree.visit(&mut Checker { functions }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Checker<'a> {
    functions: &'a dyn Functions,
}

type Verdict = ControlFlow<QueryError>;

/// Refuses a clause when it is there.
fn refuse(there: bool, clause: &str, instead: &str) -> Verdict {
    if !there {
        return ControlFlow::Continue(());
    }
    ControlFlow::Break(QueryError::unsupported(format!("{clause} is not supported; {instead}")))
}

impl Visitor for Checker<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &Query) -> Verdict {
        check_query(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Verdict {
        check_select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Verdict {
        check_table(factor)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Verdict {
        match expr {
            Expr::Function(function) => check_function(function, self.functions),
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => check_type(data_type),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_query(query: &Query) -> Verdict {
    let Query {
        with,
        body,
        order_by,
        limit_clause: _,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if let Some(with) = with {
        for cte in &with.cte_tables {
            check_cte(cte, with.recursive)?;
        }
    }
    refuse(fetch.is_some(), "FETCH with PERCENT or WITH TIES", "write LIMIT, or FETCH FIRST n ROWS ONLY")?;
    refuse(
        !locks.is_empty(),
        "FOR UPDATE or FOR SHARE",
        "lakegate reads one snapshot and needs no locks: leave it out",
    )?;
    refuse(for_clause.is_some(), "FOR XML, FOR JSON or FOR BROWSE", "choose the format where you fetch the result")?;
    refuse(settings.is_some(), "SETTINGS", "leave it out")?;
    refuse(format_clause.is_some(), "FORMAT", "choose the format where you fetch the result")?;
    check_order(order_by.as_ref(), body)?;
    for operator in pipe_operators {
        check_pipe(operator)?;
    }
    match body.as_ref() {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            refuse(true, "a query that writes", "lakegate's tables are written by loads only")
        }
        SetExpr::Table(_) => refuse(true, "TABLE t", "write SELECT * FROM t"),
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => {
            ControlFlow::Continue(())
        }
    }
}

fn check_cte(cte: &Cte, recursive: bool) -> Verdict {
    let Cte { alias, query, from, materialized, closing_paren_token: _ } = cte;
    check_alias(Some(alias))?;
    refuse(from.is_some(), "FROM in a WITH query's name", "leave it out")?;
    refuse(materialized.is_some(), "MATERIALIZED", "leave it out: the optimizer decides")?;
    refuse(alias.name.value.contains('@'), "`@` in the name of a WITH query", "choose another name")?;
    let union = matches!(query.body.as_ref(), SetExpr::SetOperation { op: SetOperator::Union, .. });
    let more = query.order_by.is_some()
        || query.limit_clause.is_some()
        || query.with.is_some()
        || !query.pipe_operators.is_empty();
    refuse(
        recursive && union && more,
        "WITH, ORDER BY or LIMIT on a UNION inside WITH RECURSIVE",
        "put it into the statement that reads the query, or the UNION into parentheses with a SELECT around it",
    )
}

fn check_order(order_by: Option<&OrderBy>, body: &SetExpr) -> Verdict {
    let Some(OrderBy { kind, interpolate }) = order_by else { return ControlFlow::Continue(()) };
    refuse(interpolate.is_some(), "INTERPOLATE", "leave it out")?;
    match kind {
        OrderByKind::Expressions(terms) => check_windows_by_name(terms),
        OrderByKind::All(_) => {
            let select = matches!(body, SetExpr::Select(_));
            refuse(!select, "ORDER BY ALL after a set operation", "name the columns")
        }
    }
}

/// The planner knows named windows in the select list only; elsewhere it would plan `sum(x) OVER w`
/// as the plain aggregate.
fn check_windows_by_name<V: Visit>(part: &V) -> Verdict {
    refuse(
        part.visit(&mut NamedWindows).is_break(),
        "a named window outside the select list",
        "write the window in full: OVER (PARTITION BY … ORDER BY …)",
    )
}

struct NamedWindows;

impl Visitor for NamedWindows {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(Function { over: Some(WindowType::NamedWindow(_)), .. }) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_pipe(operator: &PipeOperator) -> Verdict {
    refuse(
        operator.visit(&mut NamedWindows).is_break(),
        "a named window after `|>`",
        "write the window in full: OVER (PARTITION BY … ORDER BY …)",
    )?;
    if let PipeOperator::Aggregate { full_table_exprs, group_by_expr } = operator {
        let ordered = full_table_exprs
            .iter()
            .chain(group_by_expr)
            .any(|term| term.order_by.asc.is_some() || term.order_by.nulls_first.is_some());
        refuse(ordered, "ASC, DESC or NULLS in `|> AGGREGATE`", "add `|> ORDER BY …`")?;
    }
    ControlFlow::Continue(())
}

fn check_select(select: &Select) -> Verdict {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window: _,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    refuse(!optimizer_hints.is_empty(), "an optimizer hint /*+ … */", "leave it out: the optimizer decides")?;
    refuse(select_modifiers.is_some(), "a modifier such as HIGH_PRIORITY or SQL_NO_CACHE", "leave it out")?;
    refuse(top.is_some(), "TOP", "write LIMIT at the end")?;
    refuse(exclude.is_some(), "EXCLUDE after the select list", "write * EXCLUDE (column)")?;
    refuse(into.is_some(), "SELECT INTO", "lakegate's tables are written by loads only")?;
    refuse(!lateral_views.is_empty(), "LATERAL VIEW", "use unnest(…)")?;
    refuse(prewhere.is_some(), "PREWHERE", "write WHERE: filters are pushed into the scan")?;
    refuse(!connect_by.is_empty(), "CONNECT BY", "use WITH RECURSIVE")?;
    refuse(!cluster_by.is_empty(), "CLUSTER BY", "use ORDER BY")?;
    refuse(!distribute_by.is_empty(), "DISTRIBUTE BY", "leave it out")?;
    refuse(!sort_by.is_empty(), "SORT BY", "use ORDER BY")?;
    refuse(value_table_mode.is_some(), "SELECT AS STRUCT or AS VALUE", "use struct(…) or name the column")?;
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    refuse(!modifiers.is_empty(), "WITH ROLLUP, WITH CUBE or WITH TOTALS", "use GROUP BY ROLLUP (…) or CUBE (…)")?;
    check_windows_by_name(having)?;
    check_windows_by_name(qualify)?;
    check_windows_by_name(distinct)?;
    for table in from {
        for Join { relation: _, global, join_operator: _ } in &table.joins {
            refuse(*global, "GLOBAL JOIN", "leave GLOBAL out")?;
        }
    }
    ControlFlow::Continue(())
}

fn check_table(factor: &TableFactor) -> Verdict {
    match factor {
        TableFactor::Table {
            name: _,
            alias,
            args,
            with_hints,
            version: _, // done, or refused, in `rewrite`, as is `sample`
            with_ordinality,
            partitions,
            json_path,
            sample: _,
            index_hints,
        } => {
            check_alias(alias.as_ref())?;
            if let Some(TableFunctionArgs { args: _, settings }) = args {
                refuse(settings.is_some(), "SETTINGS", "leave it out")?;
            }
            refuse(!with_hints.is_empty(), "a table hint WITH (…)", "leave it out: reading never blocks")?;
            refuse(*with_ordinality, "WITH ORDINALITY", "use row_number()")?;
            refuse(!partitions.is_empty(), "PARTITION (…) after a table", "use WHERE")?;
            refuse(json_path.is_some(), "a JSON path after a table", "use unnest(…)")?;
            refuse(!index_hints.is_empty(), "an index hint", "leave it out")
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            check_alias(alias.as_ref())?;
            refuse(sample.is_some(), "TABLESAMPLE of a query", "write it after the table within")
        }
        TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
            check_alias(alias.as_ref())?;
            refuse(name.to_string().eq_ignore_ascii_case("unnest"), UNNEST_IN_FROM.0, UNNEST_IN_FROM.1)?;
            let named = args.iter().any(|arg| !matches!(arg, FunctionArg::Unnamed(_)));
            refuse(named, "a named argument of a table function", "give the arguments in order")?;
            refuse(*with_ordinality, "WITH ORDINALITY", "use row_number()")
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset, with_offset_alias: _, with_ordinality } => {
            check_alias(alias.as_ref())?;
            refuse(array_exprs.visit(&mut Names).is_break(), UNNEST_IN_FROM.0, UNNEST_IN_FROM.1)?;
            refuse(*with_offset || *with_ordinality, "UNNEST WITH ORDINALITY or WITH OFFSET", "use row_number()")
        }
        TableFactor::NestedJoin { table_with_joins: _, alias } => check_alias(alias.as_ref()),
        TableFactor::Pivot { .. } => refuse(true, "PIVOT", "use sum(…) FILTER (WHERE …), one for each column"),
        TableFactor::Unpivot { .. } => refuse(true, "UNPIVOT", "use UNION ALL"),
        TableFactor::MatchRecognize { .. } => refuse(true, "MATCH_RECOGNIZE", "use window functions"),
        TableFactor::TableFunction { .. } => refuse(true, "TABLE(…)", "use unnest(…)"),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => {
            refuse(true, "JSON_TABLE or OPENJSON", "use the json_… functions and unnest(…)")
        }
        TableFactor::XmlTable { .. } => refuse(true, "XMLTABLE", "load such files with a source of their own"),
        TableFactor::SemanticView { .. } => refuse(true, "SEMANTIC_VIEW", "write the query in full"),
    }
}

/// What the planner accepts and then cannot run.
const UNNEST_IN_FROM: (&str, &str) = (
    "unnest of another table's column in FROM",
    "write SELECT id, unnest(l) FROM t, in a subquery where you need more of it",
);

/// Breaks at the name of a column.
struct Names;

impl Visitor for Names {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn check_alias(alias: Option<&TableAlias>) -> Verdict {
    let Some(TableAlias { explicit: _, name: _, columns, at }) = alias else { return ControlFlow::Continue(()) };
    refuse(at.is_some(), "AT after an alias", "use row_number()")?;
    refuse(columns.iter().any(|column| column.data_type.is_some()), "a type in an alias", "use CAST")
}

fn check_function(function: &Function, functions: &dyn Functions) -> Verdict {
    let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } = function;
    refuse(*parameters != FunctionArguments::None, "a second list of arguments", "give all arguments in one list")?;
    if let Some(WindowType::WindowSpec(WindowSpec { window_name, partition_by: _, order_by: _, window_frame: _ })) =
        over
    {
        refuse(window_name.is_some(), "a window built on a named window", "write the window in full")?;
    }
    let (distinct, clauses) = match args {
        FunctionArguments::None => (false, 0),
        FunctionArguments::Subquery(_) => {
            return refuse(true, &format!("a query as the argument of {name}"), "use array_agg in a subquery");
        }
        FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args: _, clauses }) => {
            (*duplicate_treatment == Some(DuplicateTreatment::Distinct), clauses.len())
        }
    };
    let plain = plain_name(name);
    let more = distinct
        || clauses > 0
        || filter.is_some()
        || null_treatment.is_some()
        || over.is_some()
        || !within_group.is_empty();
    refuse(
        more && functions.is_scalar(&plain),
        &format!("DISTINCT, ORDER BY, FILTER, OVER or NULLS on {plain}, which computes one row at a time,"),
        "use CASE WHEN … or an aggregate function",
    )?;
    refuse(
        (distinct || filter.is_some()) && over.is_some() && functions.is_window_only(&plain),
        &format!("DISTINCT or FILTER on the window function {plain}"),
        "filter in a subquery",
    )
}

/// The name as the planner looks it up: in lower case unless quoted.
fn plain_name(name: &ObjectName) -> String {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) if ident.quote_style.is_some() => ident.value.clone(),
            Some(ident) => ident.value.to_ascii_lowercase(),
            None => name.to_string(),
        },
        _ => name.to_string(),
    }
}

/// Lengths that the planner drops. `varchar(n)` as the whole type of a cast is done by `rewrite`.
fn check_type(data_type: &DataType) -> Verdict {
    match data_type {
        DataType::Char(Some(_)) | DataType::String(Some(_)) => {
            refuse(true, &format!("the length in `{data_type}`"), "write varchar(n)")
        }
        DataType::Varchar(Some(_)) => refuse(true, &format!("the length in `{data_type}` here"), "leave it out"),
        DataType::Float(precision) => {
            refuse(!matches!(precision, ExactNumberInfo::None), "float(n)", "write real or double")
        }
        DataType::Array(item) => match item {
            ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::Parenthesis(inner) => check_type(inner),
            ArrayElemTypeDef::None => ControlFlow::Continue(()),
        },
        DataType::Struct(fields, _) => fields.iter().try_for_each(|field| check_type(&field.field_type)),
        _ => ControlFlow::Continue(()),
    }
}
