//! Row filters and masks: from their text to expressions over a table's own columns.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ExprWithAlias, Query, Visit, Visitor};

use crate::access::Principal;
use crate::model::TableName;
use crate::query::parse::parse_expression;
use crate::query::session::{KnownFunctions, zone};
use crate::query::{QueryError, StatementOptions, clauses, identity, literals, rewrite};

/// What a policy says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyPart {
    /// A row filter, by its place among the table's, from 1 on.
    Filter(usize),
    /// What is seen in the place of a column.
    Mask(String),
    /// The columns of a grant.
    Columns,
}

/// A row filter, mask or grant that cannot be used. As long as that is so, nobody it is meant for can read the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The table.
    pub table: TableName,
    /// What of its policy.
    pub part: PolicyPart,
    /// Why, for those who wrote it: it may name columns that others do not see.
    pub reason: String,
}

impl fmt::Display for PolicyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(place) => write!(f, "row filter {place}"),
            Self::Mask(column) => write!(f, "the mask of `{column}`"),
            Self::Columns => write!(f, "a grant's columns"),
        }
    }
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.table, self.part, self.reason)
    }
}

/// Plans row filters and masks for one principal at one time.
///
/// It reads times in UTC whatever the statement asks for: else whoever chooses a zone could move what a filter takes
/// for today.
pub(crate) struct PolicyPlanner {
    state: Arc<SessionState>,
    principal: Principal,
    now: DateTime<Utc>,
}

impl PolicyPlanner {
    /// `profile` is a state in UTC; `now` is the statement's time.
    pub(crate) fn new(profile: &SessionState, principal: &Principal, now: DateTime<Utc>) -> Result<Self, QueryError> {
        let mut state = profile.clone();
        state.mark_start_execution();
        state.execution_props_mut().query_execution_start_time = Some(now);
        identity::register(&mut state, principal)?;
        Ok(Self { state: Arc::new(state), principal: principal.clone(), now })
    }

    /// What plans below the seal are made with.
    pub(crate) fn state(&self) -> &Arc<SessionState> {
        &self.state
    }

    /// A row filter over these columns.
    ///
    /// # Errors
    /// When it is no condition over the table's own columns.
    pub(crate) fn filter(&self, text: &str, columns: &DFSchema) -> Result<Expr, QueryError> {
        let filter = self.expression(text, columns)?;
        match filter.get_type(columns)? {
            DataType::Boolean | DataType::Null => Ok(filter),
            other => Err(QueryError::invalid(format!("a row filter is true or false, and this is {other}"))),
        }
    }

    /// A mask over these columns, as a value of the masked column's type.
    ///
    /// # Errors
    /// When it is no value of one row of the table, or cannot become the type.
    pub(crate) fn mask(&self, text: &str, wanted: &DataType, columns: &DFSchema) -> Result<Expr, QueryError> {
        Ok(self.expression(text, columns)?.cast_to(wanted, columns)?)
    }

    /// Reads a row filter or mask of a table whose columns are not known yet.
    ///
    /// # Errors
    /// When it is no expression, or one that is refused whatever the columns are.
    pub(crate) fn read(&self, text: &str) -> Result<(), QueryError> {
        self.parsed(text).map(|_| ())
    }

    fn parsed(&self, text: &str) -> Result<SqlExpr, QueryError> {
        let mut parsed = parse_expression(text)?;
        if parsed.visit(&mut NoQueries).is_break() {
            return Err(QueryError::invalid("a row filter or mask holds no query"));
        }
        rewrite::rewrite(&mut parsed, zone(&StatementOptions::default())?, self.now)?;
        clauses::check(&parsed, &KnownFunctions(&self.state))?;
        Ok(parsed)
    }

    fn expression(&self, text: &str, columns: &DFSchema) -> Result<Expr, QueryError> {
        let parsed = ExprWithAlias { expr: self.parsed(text)?, alias: None };
        let planned = self.state.create_logical_expr_from_sql_expr(parsed, columns)?;
        one_row_only(&planned)?;
        let folded = identity::fold(planned, &self.principal)?.data;
        Ok(literals::settle_expression(folded, columns)?)
    }
}

/// Refuses what is more than one row's values, or not the same each time.
fn one_row_only(expr: &Expr) -> Result<(), QueryError> {
    let mut refused = None;
    expr.apply(|inner| {
        refused = match inner {
            Expr::AggregateFunction(_) => Some("an aggregate"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Placeholder(_) => Some("a parameter"),
            Expr::Unnest(_) => Some("unnest"),
            Expr::ScalarVariable(..) => Some("a variable"),
            Expr::OuterReferenceColumn(..) => Some("another table's column"),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => Some("a query"),
            inner if inner.is_volatile_node() => Some("a function that gives another value each time"),
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(what) => Err(QueryError::invalid(format!("a row filter or mask holds no such thing as {what}"))),
        None => Ok(()),
    }
}

/// Breaks at a query.
struct NoQueries;

impl Visitor for NoQueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}
