//! What the rows of a query depend on beside its text, its values and its options: versions, rights, who asks, what day it
//! is. Two queries that agree in all of it have the same rows, whoever asks them, and whenever.

use std::collections::BTreeMap;

use arrow::array::timezone::Tz;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, Volatility};
use serde::Serialize;

use crate::access::{Principal, TableRights};
use crate::model::TableName;
use crate::query::{identity, sealed};

/// The function that gives another value each day, and the same all day.
const DAILY: &str = "current_date";

/// What the rows of a query depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependencies {
    /// The tables that are read, those inside filters too, in order.
    pub tables: Vec<TableRead>,
    /// What may be seen of them, as a digest; the same for all who may see the same.
    pub rights: String,
    /// Who asks, as a digest, where rows hang on that.
    pub person: Option<String>,
    /// The day by the statement's zone and by UTC, where rows hang on that.
    pub day: Option<(NaiveDate, NaiveDate)>,
    /// Whether each row comes from one row of one table: then rows that are added to it are rows added to the result.
    #[serde(skip)]
    pub grows: bool,
}

/// A table as it is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableRead {
    /// Schema and name, as they stand in the statement.
    pub written: (String, String),
    /// The table.
    pub name: TableName,
    /// Its own name for itself: another table in the same place has another.
    pub id: String,
    /// The version.
    pub version: u64,
}

impl Dependencies {
    /// Those of a query that reads these tables, of which somebody has `seen` so much.
    pub(crate) fn new(
        mut tables: Vec<TableRead>,
        seen: &BTreeMap<TableName, TableRights>,
        principal: &Principal,
    ) -> Self {
        tables.sort();
        let mut hasher = blake3::Hasher::new();
        for (name, TableRights { columns, policy, write: _ }) in seen {
            hasher.update(format!("{name} {columns:?} {policy:?}\n").as_bytes());
        }
        let mut policies =
            seen.values().flat_map(|rights| rights.policy.filters.iter().chain(rights.policy.masks.values()));
        let person = policies.any(|text| identity::may_be_named(text)).then(|| person(principal));
        Self { tables, rights: hasher.finalize().to_hex().to_string(), person, day: None, grows: false }
    }

    /// The same for this plan of the text, asked at `now` in a zone; none where the rows are others each time.
    pub(crate) fn of_plan(
        mut self,
        (sql, plan): (&str, &LogicalPlan),
        principal: &Principal,
        (now, zone): (DateTime<Utc>, Tz),
    ) -> Option<Self> {
        let mut uses = Uses::default();
        uses.look_at(plan).ok()?;
        if uses.another_each_time {
            return None;
        }
        if uses.person || identity::may_be_named(sql) {
            self.person = Some(person(principal));
        }
        self.grows = matches!(self.tables.as_slice(), [read] if is_row_by_row(plan, read));
        self.day = uses.day.then(|| (now.with_timezone(&zone).date_naive(), now.date_naive()));
        Some(self)
    }
}

fn person(principal: &Principal) -> String {
    blake3::hash(format!("{principal:?}").as_bytes()).to_hex().to_string()
}

/// Whether a plan only filters and projects the rows of this table. A statement may name it and read another thing only: a
/// query of WITH that nothing asks for is not planned, and what a function gives is a scan, too.
fn is_row_by_row(plan: &LogicalPlan, read: &TableRead) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(is_of_one_row) && is_row_by_row(&projection.input, read)
        }
        LogicalPlan::Filter(filter) => is_of_one_row(&filter.predicate) && is_row_by_row(&filter.input, read),
        LogicalPlan::SubqueryAlias(alias) => is_row_by_row(&alias.input, read),
        LogicalPlan::TableScan(scan) => {
            let name = scan.table_name.table();
            scan.fetch.is_none() && (name == read.written.1 || name == read.name.table())
        }
        _ => false,
    }
}

fn is_of_one_row(expr: &Expr) -> bool {
    let looks_further = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Unnest(_)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
        ))
    });
    matches!(looks_further, Ok(false))
}

/// What a plan looks at beside its tables.
#[derive(Debug, Default)]
struct Uses {
    person: bool,
    day: bool,
    another_each_time: bool,
}

impl Uses {
    fn look_at(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => self.look_into(scan)?,
                // Plans and lists as text, and what has effects.
                LogicalPlan::Explain(_)
                | LogicalPlan::Analyze(_)
                | LogicalPlan::DescribeTable(_)
                | LogicalPlan::Statement(_)
                | LogicalPlan::Dml(_)
                | LogicalPlan::Ddl(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Extension(_) => self.another_each_time = true,
                _ => {}
            }
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    self.call(part);
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(())
    }

    /// What stands below a scan: row filters and masks, and what a sample is drawn from.
    fn look_into(&mut self, scan: &TableScan) -> Result<()> {
        let provider = source_as_provider(&scan.source)?;
        if let Some(below) = sealed::plan_below(&provider) {
            self.look_at(below)?;
        }
        match provider.get_logical_plan() {
            Some(below) => self.look_at(&below),
            None => Ok(()),
        }
    }

    fn call(&mut self, part: &Expr) {
        let (name, volatility) = match part {
            Expr::ScalarFunction(call) => (call.func.name(), call.func.signature().volatility),
            Expr::AggregateFunction(call) => (call.func.name(), call.func.signature().volatility),
            Expr::WindowFunction(call) => (call.fun.name(), call.fun.signature().volatility),
            Expr::HigherOrderFunction(call) => (call.func.name(), call.func.signature().volatility),
            Expr::ScalarVariable(..) | Expr::Placeholder(_) => {
                self.another_each_time = true;
                return;
            }
            _ => return,
        };
        self.person |= identity::is_named(name);
        match volatility {
            Volatility::Immutable => {}
            Volatility::Stable if name == DAILY => self.day = true,
            Volatility::Stable | Volatility::Volatile => self.another_each_time = true,
        }
    }
}
