//! What is granted to whom, and which rows and values of a table are kept back.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::Principal;
use crate::config::{GrantLine, GrantList};
use crate::model::TableName;

pub use crate::config::{Grantee, Scope};

/// The grants of one moment. Nothing that is not granted is seen, not even by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// What is granted; of several that fit, a principal has all.
    pub grants: Vec<Grant>,
    /// What is kept back of a table, from everybody who reads it, whatever they were granted.
    pub policies: BTreeMap<TableName, Policy>,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub to: Grantee,
    /// On what.
    pub on: Scope,
    /// The columns that may be read; all where there is nothing.
    pub columns: Option<BTreeSet<String>>,
    /// Whether rows may be read.
    pub read: bool,
    /// Whether rows may be added, changed and deleted, and in the schema `results` tables made and dropped.
    pub write: bool,
}

/// What is kept back of a table. Expressions are SQL over the table's own columns without subqueries; they may use
/// `current_user()` and `has_role('…')`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// A row is seen where all of them are true.
    pub filters: Vec<String>,
    /// By column what is seen in its value's place.
    pub masks: BTreeMap<String, String>,
}

impl From<&GrantList> for Grants {
    fn from(list: &GrantList) -> Self {
        let mut policies: BTreeMap<TableName, Policy> = BTreeMap::new();
        for line in &list.row_filters {
            policies.entry(line.on.clone()).or_default().filters.push(line.condition.clone());
        }
        for line in &list.masks {
            policies.entry(line.on.clone()).or_default().masks.insert(line.column.clone(), line.value.clone());
        }
        Self { grants: list.grants.iter().map(Grant::from).collect(), policies }
    }
}

impl From<&GrantLine> for Grant {
    fn from(line: &GrantLine) -> Self {
        let (to, on, columns) = (line.to.clone(), line.on.clone(), line.columns.clone());
        Self { to, on, columns, read: line.read, write: line.write }
    }
}

impl Grant {
    /// Whether the grant is one of a principal's on a table.
    pub(crate) fn fits(&self, principal: &Principal, table: &TableName) -> bool {
        self.on.holds(table) && self.is_to(principal)
    }

    /// Whether the grant is one of a principal's.
    pub(crate) fn is_to(&self, principal: &Principal) -> bool {
        match &self.to {
            Grantee::Everyone => true,
            Grantee::Role(role) => principal.has_role(role),
            Grantee::User(name) => *name == principal.name,
        }
    }
}

impl Scope {
    /// Whether a table is meant.
    pub(crate) fn holds(&self, table: &TableName) -> bool {
        match self {
            Self::All => true,
            Self::Schema(schema) => schema == table.schema(),
            Self::Table(name) => name == table,
        }
    }
}
