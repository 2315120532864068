//! A name of a statement that was looked up, and what follows from all of them for who may see what.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::access::{Access, TableRights};
use crate::model::TableName;
use crate::query::catalog::BEFORE_FIRST;
use crate::query::dependencies::{Dependencies, TableRead};

/// A name that was looked up.
pub(crate) struct Opened {
    /// The name as it stands in the statement.
    pub(crate) key: (String, String),
    /// The table of the lake that is meant, and what may be seen of it.
    pub(crate) rights: Option<(TableName, TableRights)>,
    /// What reads it; none for `information_schema`.
    pub(crate) provider: Option<Arc<dyn TableProvider>>,
    /// The version it is pinned to.
    pub(crate) pin: Option<(TableName, u64)>,
    /// The columns that name a row.
    pub(crate) row_key: Vec<String>,
    /// The table's own name for itself, and its version; none for what has no versions.
    pub(crate) version: Option<(String, u64)>,
}

impl Opened {
    /// A table that nothing was written to yet.
    pub(crate) fn without_rows(
        key: (String, String),
        rights: Option<(TableName, TableRights)>,
        provider: Option<Arc<dyn TableProvider>>,
        name: TableName,
        row_key: Vec<String>,
    ) -> Self {
        let version = Some((String::new(), BEFORE_FIRST));
        Self { key, rights, provider, pin: Some((name, BEFORE_FIRST)), row_key, version }
    }
}

/// What of tables may be seen, and by whom: the rows of a statement that names them hang on nothing else that is granted.
pub(crate) fn digest(seen: &BTreeMap<TableName, TableRights>, access: &Access) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}\n", access.principal()).as_bytes());
    for (name, TableRights { columns, policy, write: _ }) in seen {
        hasher.update(format!("{name} {columns:?} {policy:?}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// What rows depend on that are read of these tables.
pub(crate) fn dependencies(
    opened: &[Opened],
    seen: &BTreeMap<TableName, TableRights>,
    access: &Access,
) -> Option<Dependencies> {
    let tables = opened.iter().map(|opened| {
        let ((name, _), (id, version)) = (opened.rights.as_ref()?, opened.version.as_ref()?);
        Some(TableRead { written: opened.key.clone(), name: name.clone(), id: id.clone(), version: *version })
    });
    Some(Dependencies::new(tables.collect::<Option<Vec<_>>>()?, seen, access.principal()))
}
