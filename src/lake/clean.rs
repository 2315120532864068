//! Removing what attempts left behind that did not land.
//!
//! Three rules keep this safe. A *record* is void for good only when the one version it could have landed
//! as is taken and its number is not on the chain; its data files and rejects then belong to nobody. A *file
//! without a record* goes only when no retained version names it, no record does, and it is older than
//! [`SAFE_AGE`]. And nothing is removed while the table does not exist: an old holder's first version may
//! still arrive, and whoever creates it has won.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, chain_text};
use crate::lake::chain::Folded;
use crate::lake::entry::LogEntry;
use crate::lake::lease::LeaseGuard;
use crate::lake::record::{self, Record};
use crate::lake::store::{self, TablePlace};
use crate::lake::{LakeError, Snapshot, durable, making};
use crate::runtime::fault;

/// Younger files without a record may belong to another tool that is about to commit them.
const SAFE_AGE: TimeDelta = TimeDelta::hours(1);

/// How long the log names removed files at the least: Delta's default retention is a week, less a day.
const TOMBSTONES_LAST: TimeDelta = TimeDelta::days(6);

/// Stores tell times in whole seconds: what is written right after a landing may seem to be from before it.
const COARSE_TIMES: TimeDelta = TimeDelta::seconds(2);

/// Says that orphans younger than [`SAFE_AGE`] were left, and since when orphans can have come about.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Unclean {
    since: DateTime<Utc>,
}

/// What is removed from where.
pub(super) struct Cleaner<'a> {
    pub(super) place: &'a TablePlace,
    pub(super) snapshot: &'a Arc<Snapshot>,
    pub(super) chain: Option<&'a Arc<Folded>>,
    pub(super) now: DateTime<Utc>,
}

impl Cleaner<'_> {
    /// After a dead holder: the void records' files, then files without a record.
    pub(super) async fn after_dead(&self) -> Result<(), LakeError> {
        fault::point("lake.clean.before")?;
        let live = self.void_records().await?;
        self.orphans(&live).await
    }

    /// Tries again for orphans that were too young the last time.
    pub(super) async fn leftovers(&self) -> Result<(), LakeError> {
        match self.unclean().await? {
            Some(unclean) if self.now - unclean.since > SAFE_AGE => {
                fault::point("lake.clean.before")?;
                let live = self.void_records().await?;
                self.orphans(&live).await
            }
            _ => Ok(()),
        }
    }

    /// Removes what void records name, and those records. Gives back what the other records name.
    async fn void_records(&self) -> Result<HashSet<String>, LakeError> {
        let mut live = HashSet::new();
        let newest = record::numbers(self.place).await?.last().copied();
        for number in self.off_chain().await? {
            let Some(record) = Record::read(self.place, number).await? else { continue };
            if record.target_version() <= self.snapshot.version() {
                remove_files(self.place, &record).await;
                // The newest number stays, so that it is never given out again.
                if Some(number) != newest {
                    record::remove(self.place, number).await;
                }
            } else {
                live.extend(record.data_files);
            }
        }
        Ok(live)
    }

    /// Numbers of records that are not on the chain.
    async fn off_chain(&self) -> Result<Vec<i64>, LakeError> {
        let landed: HashSet<i64> = self.chain.iter().flat_map(|chain| chain.landed.iter().copied()).collect();
        let numbers = record::numbers(self.place).await?;
        Ok(numbers.into_iter().filter(|number| !landed.contains(number)).collect())
    }

    /// Removes files that no version and no record names, once they are old enough.
    async fn orphans(&self, live: &HashSet<String>) -> Result<(), LakeError> {
        let since = match self.unclean().await? {
            Some(unclean) => unclean.since,
            None => self.last_landing().await?,
        };
        let mut named = self.named().await?;
        named.extend(live.iter().cloned());
        let mut young = false;
        let making = making::begun(self.place).await?.map(|begun| begun.prefix());
        for (path, meta) in self.data_files().await? {
            let in_making = making.as_ref().is_some_and(|prefix| path.starts_with(prefix));
            if in_making || named.contains(&path) || meta.last_modified <= since {
                continue;
            }
            if self.now - meta.last_modified > SAFE_AGE {
                tracing::info!(table = %self.place.name(), file = %path, "removing a file that no version names");
                store::discard(self.place.store().as_ref(), &meta.location).await;
            } else {
                young = true;
            }
        }
        self.orphaned_rejects(since).await?;
        young |= self.staged_files().await?;
        self.set_unclean(young.then_some(Unclean { since })).await
    }

    /// From when on a file can be an orphan: what was written before the last landing is named by the log,
    /// at least by what it says was removed, as long as the log says that.
    async fn last_landing(&self) -> Result<DateTime<Utc>, LakeError> {
        let Some(chain) = self.chain else { return Ok(DateTime::UNIX_EPOCH) };
        let entry = LogEntry::read(self.place, &self.snapshot.table().log_store(), chain.version).await?;
        let Some(landed) = entry.and_then(|entry| entry.committed_at) else { return Ok(self.now - SAFE_AGE) };
        let margin = if self.now - landed > TOMBSTONES_LAST { TimeDelta::days(1) } else { TimeDelta::zero() };
        Ok(landed + margin - COARSE_TIMES)
    }

    /// Paths that the log names: live files, and removed ones that older versions still read.
    async fn named(&self) -> Result<HashSet<String>, LakeError> {
        let failed = |cause| LakeError::delta(format!("cannot read the log of table {}", self.place.name()), cause);
        let table = self.snapshot.table();
        let state = table.snapshot().map_err(failed)?;
        let mut named: HashSet<String> = state.log_data().iter().map(|file| file.path().into_owned()).collect();
        let log = table.log_store();
        let mut removed = state.all_tombstones(log.as_ref());
        while let Some(tombstone) = removed.try_next().await.map_err(failed)? {
            named.insert(tombstone.path().into_owned());
        }
        Ok(named)
    }

    /// Every Parquet file below the table that is not in a folder of Delta's or lakegate's own.
    async fn data_files(&self) -> Result<Vec<(String, ObjectMeta)>, LakeError> {
        let root = self.place.path();
        let listed: Vec<ObjectMeta> = self
            .place
            .store()
            .list(Some(root))
            .try_collect()
            .await
            .map_err(|cause| LakeError::store(format!("cannot list {root}"), cause))?;
        Ok(listed.into_iter().filter_map(|meta| Some((relative(root, &meta.location)?, meta))).collect())
    }

    /// Rejects of attempts that died before they wrote a record.
    async fn orphaned_rejects(&self, since: DateTime<Utc>) -> Result<(), LakeError> {
        let visible = self.chain.map_or(&[][..], |chain| chain.rejects());
        let mut named: HashSet<String> = visible.iter().map(|object| object.name.clone()).collect();
        for number in self.off_chain().await? {
            named.extend(Record::read(self.place, number).await?.and_then(|r| r.rejects).map(|object| object.name));
        }
        let folder = self.place.own(&["rejects"]);
        let listed: Vec<ObjectMeta> = match self.place.store().list(Some(&folder)).try_collect().await {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            result => result.map_err(|cause| LakeError::store(format!("cannot list {folder}"), cause))?,
        };
        for meta in listed {
            let is_named = meta.location.filename().is_some_and(|name| named.contains(name));
            if !is_named && meta.last_modified > since && self.now - meta.last_modified > SAFE_AGE {
                store::discard(self.place.store().as_ref(), &meta.location).await;
            }
        }
        Ok(())
    }

    /// In a local folder: files of puts and uploads that were cut off, which listings hide. Tells whether some
    /// were too young to be removed.
    async fn staged_files(&self) -> Result<bool, LakeError> {
        let Some(folder) = self.place.folder() else { return Ok(false) };
        let before = std::time::SystemTime::from(self.now - SAFE_AGE);
        let what = format!("cannot look for cut off uploads in {}", folder.display());
        tokio::task::spawn_blocking(move || durable::remove_staged(&folder, before))
            .await
            .map_err(std::io::Error::from)
            .flatten()
            .map_err(|cause| LakeError::io(what, cause))
    }

    async fn unclean(&self) -> Result<Option<Unclean>, LakeError> {
        let path = unclean_path(self.place);
        let bytes = store::read(self.place.store().as_ref(), &path).await?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    async fn set_unclean(&self, unclean: Option<Unclean>) -> Result<(), LakeError> {
        let path = unclean_path(self.place);
        let Some(unclean) = unclean else {
            store::discard(self.place.store().as_ref(), &path).await;
            return Ok(());
        };
        let text = serde_json::to_vec(&unclean)
            .map_err(|cause| LakeError::because(ErrorKind::Internal, format!("cannot write {path}"), cause))?;
        object_store::ObjectStoreExt::put(self.place.store().as_ref(), &path, text.into())
            .await
            .map_err(|cause| LakeError::store(format!("cannot write {path}"), cause))?;
        Ok(())
    }
}

/// Folds a chain that has become long, then removes what the summary has made needless: records and
/// older summaries, and what void records name.
pub(super) async fn fold(
    place: &TablePlace,
    snapshot_version: u64,
    chain: &Arc<Folded>,
    guard: &LeaseGuard,
) -> Result<Arc<Folded>, LakeError> {
    fault::point("lake.summary.before")?;
    guard.check().await?;
    let numbers = record::numbers(place).await?;
    // Should a removal below fail, the record's number stays known as one that landed.
    let folded = Arc::new(chain.as_folded(&numbers));
    folded.summary().create(place).await?;
    for older in record::summary_numbers(place).await?.into_iter().filter(|older| *older < chain.number) {
        record::remove_summary(place, older).await;
    }
    for number in numbers.into_iter().filter(|number| *number < chain.number) {
        if folded.landed.contains(&number) {
            record::remove(place, number).await;
        } else if let Some(record) = Record::read(place, number).await?
            && record.target_version() <= snapshot_version
        {
            remove_files(place, &record).await;
            record::remove(place, number).await;
        }
    }
    Ok(folded)
}

/// Removes the data files and rejects that one attempt wrote and that nobody will ever name.
pub(super) async fn remove_files(place: &TablePlace, record: &Record) {
    for path in &record.data_files {
        match place.data_file(path) {
            Ok(path) => store::discard(place.store().as_ref(), &path).await,
            Err(error) => tracing::warn!(table = %place.name(), error = %chain_text(&error), "left a file behind"),
        }
    }
    if let Some(object) = &record.rejects {
        store::discard(place.store().as_ref(), &place.own(&["rejects", &object.name])).await;
    }
}

/// The path of a data file below the table, as the log names it; none for anything else.
fn relative(root: &Path, location: &Path) -> Option<String> {
    let parts: Vec<_> = location.prefix_match(root)?.collect();
    let name = parts.last()?.as_ref();
    let is_data = name.ends_with(".parquet") && !parts.iter().any(|part| part.as_ref().starts_with('_'));
    is_data.then(|| parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>().join("/"))
}

fn unclean_path(place: &TablePlace) -> Path {
    place.own(&["unclean.json"])
}
