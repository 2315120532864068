//! Of which tables the schema `system` tells whom, and what.

use std::collections::BTreeSet;

use crate::access::{Access, TableRights};
use crate::model::TableName;
use crate::query::catalog::Catalog;

/// Who asks, and about which tables.
///
/// Rows of `system.*` hold what no filter or mask was laid over: raw texts of rejects, errors that quote them, numbers of
/// rows and bytes, names of files, positions. They are told of tables of which everything may be seen; of others that
/// may be read it is told that they are there and when they were loaded.
#[derive(Clone)]
pub(crate) struct Telling {
    /// The tables the statement asks for; all, those that are no more defined too, where there is nothing.
    only: Option<BTreeSet<TableName>>,
    access: Access,
}

impl Telling {
    pub(crate) fn new(only: Option<BTreeSet<TableName>>, access: &Access) -> Self {
        Self { only, access: access.clone() }
    }

    /// Whether a table is told of.
    pub(crate) fn names(&self, table: &TableName) -> bool {
        self.is_asked_for(table) && self.rights(table).is_readable()
    }

    /// Whether what holds values, texts or numbers of a table is told.
    pub(crate) fn everything(&self, table: &TableName) -> bool {
        self.is_asked_for(table) && self.rights(table).sees_everything()
    }

    /// What may be seen of a table.
    pub(crate) fn rights(&self, table: &TableName) -> TableRights {
        Catalog::rights(table, &self.access)
    }

    fn is_asked_for(&self, table: &TableName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(table))
    }
}
