//! What a version has that an older one had not, where it only gained files.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;

use crate::lake::Snapshot;
use crate::lake::scan::PlainScan;

impl Snapshot {
    /// The rows of the data files that an older version of the table had not; none where files that it had are gone,
    /// where it is a version of another table, or where its files do not hold all that their rows are.
    pub(crate) fn gained_since(&self, older: &Self) -> Option<Arc<dyn TableProvider>> {
        if self.id() != older.id() || ![self, older].iter().all(|snapshot| snapshot.provider().is::<PlainScan>()) {
            return None;
        }
        let had: HashSet<_> = older.pinned().files().iter().map(|file| &file.path).collect();
        let files = self.pinned().files().iter().enumerate();
        let kept: HashSet<usize> = files.filter(|(_, file)| had.contains(&file.path)).map(|(place, _)| place).collect();
        (kept.len() == had.len()).then(|| self.without(kept))
    }
}
