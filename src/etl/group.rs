//! Tables that are loaded and published together.

use std::collections::BTreeMap;

use crate::config::TableDefinition;
use crate::error::Classify;
use crate::etl::{EtlError, TableOutcome};
use crate::journal::LoadStatus;
use crate::lake::Lake;
use crate::model::TableName;

/// Tables that are loaded together: one table, or all members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) group: Option<String>,
    pub(super) members: Vec<TableName>,
}

/// The units that hold the named tables, each once, in order. A member of a group brings the others along:
/// alone it could not be published.
pub(super) fn units(definitions: &BTreeMap<TableName, TableDefinition>, tables: &[TableName]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for table in tables {
        if units.iter().any(|unit| unit.members.contains(table)) {
            continue;
        }
        let group = definitions.get(table).and_then(|definition| definition.load.group.clone());
        let members = match &group {
            Some(_) => {
                definitions.values().filter(|other| other.load.group == group).map(|other| other.name.clone()).collect()
            }
            None => vec![table.clone()],
        };
        units.push(Unit { group, members });
    }
    units
}

/// Publishes the versions of a group's tables after all of them were loaded. True when there is a new
/// manifest; nothing is published when a member failed or was put off, so that readers keep the old state.
pub(super) async fn publish(lake: &Lake, group: &str, outcomes: &[TableOutcome]) -> Result<bool, EtlError> {
    let mut versions = BTreeMap::new();
    for outcome in outcomes {
        let settled = matches!(outcome.record.status, LoadStatus::Committed | LoadStatus::Unchanged);
        match outcome.record.version {
            Some(version) if settled => drop(versions.insert(outcome.record.table.clone(), version)),
            _ => return Ok(false),
        }
    }
    let manifests = lake.manifests();
    let newest = match manifests.newest(group).await {
        Ok(newest) => newest.unwrap_or_default(),
        Err(error) if error.kind() == crate::error::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let overtaken = newest.iter().any(|(table, version)| versions.get(table).is_some_and(|own| own < version));
    if newest == versions || overtaken {
        // Overtaken: another process loaded after us and has published already.
        return Ok(false);
    }
    manifests.publish(group, versions).await?;
    Ok(true)
}
