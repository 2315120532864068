//! Noticing that another tool changed a table.
//!
//! An attempt lands as one known version. Whatever came after it, up to the version read now, was committed by
//! somebody else (or is a fence of ours). A compaction is welcome, other rows are worth a warning; a restore
//! to a state before the attempt, or an overwrite, means that the chain no longer says what is in the table.

use std::sync::Arc;

use crate::error::ErrorKind;
use crate::lake::chain::Folded;
use crate::lake::entry::LogEntry;
use crate::lake::store::TablePlace;
use crate::lake::{LakeError, Snapshot};

/// Looks at every version after the chain's newest attempt; `from` is the first that was not looked at before.
///
/// # Errors
/// `DataLoss` when the table no longer holds what the chain says it does.
pub(super) async fn check(
    place: &TablePlace,
    snapshot: &Arc<Snapshot>,
    chain: &Arc<Folded>,
    from: u64,
) -> Result<(), LakeError> {
    if snapshot.version() < chain.version {
        let found = format!("it is at version {}", snapshot.version());
        return Err(contradicts(place, chain, &found));
    }
    let log = snapshot.table().log_store();
    let mut broken = None;
    for version in from.max(chain.version + 1)..=snapshot.version() {
        let Some(entry) = LogEntry::read(place, &log, version).await? else { continue };
        match entry.restored {
            Some(restored) if restored >= chain.version => broken = None,
            Some(restored) => broken = Some(format!("version {version} restored version {restored}")),
            None if entry.overwrites => broken = Some(format!("version {version} overwrote it ({})", entry.operation)),
            None if entry.changes_rows && !entry.is_fence => {
                tracing::warn!(table = %place.name(), version, operation = entry.operation, "another tool changed rows");
            }
            None => {}
        }
    }
    broken.map_or(Ok(()), |found| Err(contradicts(place, chain, &found)))
}

fn contradicts(place: &TablePlace, chain: &Folded, found: &str) -> LakeError {
    let (name, version) = (place.name(), chain.version);
    let text = format!(
        "another tool changed table {name}: {found}, so it no longer holds what was loaded up to version {version}, and \
         loading on would lose or double rows; restore version {version}, or move {} away to load the table anew",
        place.url()
    );
    LakeError::new(ErrorKind::DataLoss, text)
}
