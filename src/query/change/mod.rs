//! Statements that change tables: what they ask for, which rows, and running them once.
//!
//! `statement` reads the syntax tree into a [`Change`] and refuses every clause that would be ignored. `target` finds the
//! table and checks rights, `rows` plans the rows as a query like any other, `run` takes the lease, writes through the
//! lake's own attempts and notes what happened.

pub(crate) mod columns;
pub(crate) mod define;
pub(crate) mod fit;
pub(crate) mod ingest;
pub(crate) mod insert;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod rows;
pub(crate) mod run;
pub(crate) mod statement;
pub(crate) mod target;
pub(crate) mod unique;

use arrow::datatypes::FieldRef;
use datafusion::sql::sqlparser::ast::Query;

/// The table that is changed, as it is read by the statement itself; people cannot write such a name.
pub(crate) const TARGET: &str = "target@edit";

/// The values bound to a statement's parameters, as a table.
pub(crate) const BOUND: &str = "parameters@bound";

/// What the names of columns begin with that hold what is assigned.
pub(crate) const ASSIGNED: &str = "__lakegate_set_";

/// What a statement changes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The table.
    pub(crate) target: Named,
    /// What is done.
    pub(crate) action: Action,
}

/// A table's name as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The schema, where it is written.
    pub(crate) schema: Option<String>,
    /// The table's own name.
    pub(crate) table: String,
}

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Rows are added.
    Insert(Insert),
    /// Rows go. The query gives their places.
    Delete(Find),
    /// Values change. The query gives places, columns as they are, and the new values.
    Update(Update),
    /// A table is made.
    Create(Create),
    /// A table goes.
    Drop {
        /// Whether it is no error that there is none.
        if_exists: bool,
    },
    /// A table gets columns.
    AddColumns {
        /// The columns.
        columns: Vec<FieldRef>,
        /// Whether it is no error that one is there.
        if_not_exists: bool,
    },
}

/// Rows that are added.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// The columns they have values for; all in order where none is named.
    pub(crate) columns: Vec<String>,
    /// What gives them.
    pub(crate) rows: Box<Query>,
    /// The same over [`BOUND`], a query for each row of VALUES; empty where a row needs more than bound values.
    pub(crate) bound: Vec<Query>,
    /// Which parameter alone stands for the value of which column, by position.
    pub(crate) hints: Vec<(usize, usize)>,
}

/// Rows that are found.
#[derive(Clone, Debug)]
pub(crate) struct Find {
    /// What finds them, over [`TARGET`].
    pub(crate) rows: Box<Query>,
    /// Whether all are meant.
    pub(crate) all: bool,
}

/// Values that change.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// What finds the rows, over [`TARGET`], with the new values in columns whose names begin with [`ASSIGNED`].
    pub(crate) rows: Box<Query>,
    /// The columns that get new values, in their order.
    pub(crate) columns: Vec<String>,
    /// Which parameter alone stands for the value of which column.
    pub(crate) hints: Vec<(usize, String)>,
}

/// A table that is made.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    /// Its columns; those of its rows where none is declared.
    pub(crate) columns: Vec<FieldRef>,
    /// Columns that name a row.
    pub(crate) key: Vec<String>,
    /// The rows it begins with.
    pub(crate) rows: Option<Box<Query>>,
    /// What is done where there is one already.
    pub(crate) existing: Existing,
}

/// What making a table does where there is one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It fails.
    Fail,
    /// The table stays as it is.
    Keep,
    /// The new table takes its place.
    Replace,
}

impl Action {
    /// The statement's first words.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Insert(_) => "INSERT",
            Self::Delete(_) => "DELETE",
            Self::Update(_) => "UPDATE",
            Self::Create(_) => "CREATE TABLE",
            Self::Drop { .. } => "DROP TABLE",
            Self::AddColumns { .. } => "ALTER TABLE",
        }
    }

    /// The query that gives its rows.
    pub(crate) fn rows(&self) -> Option<&Query> {
        match self {
            Self::Insert(insert) => Some(&insert.rows),
            Self::Delete(find) => Some(&find.rows),
            Self::Update(update) => Some(&update.rows),
            Self::Create(create) => create.rows.as_deref(),
            Self::Drop { .. } | Self::AddColumns { .. } => None,
        }
    }
}
