//! Versions of tables that belong together: groups.
//!
//! `<lake>/_lakegate/manifests/<number>.json` is created once; the highest number counts. Each manifest holds
//! the newest versions of *all* groups, so that one listing and one read tell everything, and older ones are
//! needed by nobody. A statement that reads members of a group at the versions of one manifest never sees half
//! a group, because a manifest is published after the last member's commit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::lake::store;
use crate::lake::{Lake, LakeError, Shared};
use crate::model::TableName;
use crate::runtime::fault;

/// The layout written; a reader refuses what is newer.
const FORMAT: u32 = 1;

/// Older manifests kept, for somebody who has listed them and not yet read.
const KEPT: u64 = 16;

/// How often publishing is tried anew when somebody else publishes in between.
const PUBLISH_TRIES: usize = 32;

/// The published groups of a lake.
#[derive(Clone)]
pub struct Manifests(Arc<Shared>);

/// The newest manifest this process has read.
pub(super) type Newest = Mutex<Option<Arc<Manifest>>>;

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    /// Makes the bytes unique, so that a lost answer can be told from somebody else's manifest.
    id: Uuid,
    number: u64,
    published_at: DateTime<Utc>,
    /// The group that was published; the others are carried over.
    group: String,
    groups: BTreeMap<String, BTreeMap<TableName, u64>>,
}

impl Manifests {
    pub(super) fn new(lake: Arc<Shared>) -> Self {
        Self(lake)
    }

    /// Publishes versions that belong together; from now on they are what [`Manifests::newest`] gives. To be
    /// called after the last member's commit. A table's version never goes back, unless the table was made anew.
    ///
    /// # Errors
    /// When the store does not take it, or others publish all the time.
    pub async fn publish(&self, group: &str, tables: BTreeMap<TableName, u64>) -> Result<(), LakeError> {
        fault::point("lake.manifest.before")?;
        for _ in 0..PUBLISH_TRIES {
            let newest = self.read_newest().await?;
            let manifest = self.next(newest.as_deref(), group, &tables).await?;
            let text = serde_json::to_vec(&manifest).map_err(|cause| {
                LakeError::because(ErrorKind::Internal, format!("cannot write down group {group}"), cause)
            })?;
            if store::create_once(self.0.place.store().as_ref(), &self.path(manifest.number), text.into()).await? {
                self.remove_old(manifest.number).await;
                self.remember(Arc::new(manifest));
                return Ok(());
            }
        }
        let text = format!("group {group} could not be published: others publish all the time; try again");
        Err(LakeError::new(ErrorKind::Conflict, text))
    }

    /// The versions published last for a group; none before the first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn newest(&self, group: &str) -> Result<Option<BTreeMap<TableName, u64>>, LakeError> {
        Ok(self.read_newest().await?.and_then(|newest| newest.groups.get(group).cloned()))
    }

    /// The versions published last, of all groups.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn all(&self) -> Result<BTreeMap<String, BTreeMap<TableName, u64>>, LakeError> {
        Ok(self.read_newest().await?.map(|newest| newest.groups.clone()).unwrap_or_default())
    }

    async fn next(
        &self,
        newest: Option<&Manifest>,
        group: &str,
        tables: &BTreeMap<TableName, u64>,
    ) -> Result<Manifest, LakeError> {
        let mut groups = newest.map(|newest| newest.groups.clone()).unwrap_or_default();
        let published = groups.remove(group).unwrap_or_default();
        let mut members = BTreeMap::new();
        for (table, version) in tables {
            let before = published.get(table).copied().filter(|before| before > version);
            let version = match before {
                Some(before) => self.later(table, *version, before).await?,
                None => *version,
            };
            members.insert(table.clone(), version);
        }
        groups.insert(group.to_owned(), members);
        Ok(Manifest {
            format: FORMAT,
            id: Uuid::new_v4(),
            number: newest.map_or(1, |newest| newest.number + 1),
            published_at: self.0.clock.now(),
            group: group.to_owned(),
            groups,
        })
    }

    /// Of a version to be published and a higher one published before: the higher one, if the table has it.
    async fn later(&self, table: &TableName, version: u64, before: u64) -> Result<u64, LakeError> {
        let newest = Lake(Arc::clone(&self.0)).table(table).snapshot().await?;
        Ok(if newest.is_some_and(|newest| newest.version() >= before) { before } else { version })
    }

    async fn read_newest(&self) -> Result<Option<Arc<Manifest>>, LakeError> {
        loop {
            let known = self.lock().clone();
            let Some(number) = self.newest_number(known.as_deref()).await? else { return Ok(known) };
            let path = self.path(number);
            // Gone means that so many newer ones were published meanwhile that this one was removed.
            let Some(bytes) = store::read(self.0.place.store().as_ref(), &path).await? else { continue };
            let manifest: Manifest = serde_json::from_slice(&bytes)
                .map_err(|cause| LakeError::because(ErrorKind::DataLoss, format!("{path} is damaged"), cause))?;
            if manifest.format > FORMAT {
                let text = format!("{path} was written by a newer lakegate; use that version");
                return Err(LakeError::new(ErrorKind::Unsupported, text));
            }
            let manifest = Arc::new(manifest);
            self.remember(Arc::clone(&manifest));
            return Ok(Some(manifest));
        }
    }

    /// The highest number, where it is higher than the known one: one request, whose answer is empty mostly.
    async fn newest_number(&self, known: Option<&Manifest>) -> Result<Option<u64>, LakeError> {
        let folder = self.0.place.own(&["manifests"]);
        let store = self.0.place.store();
        let listed = match known {
            Some(known) => store.list_with_offset(Some(&folder), &self.path(known.number)),
            None => store.list(Some(&folder)),
        };
        match listed.try_fold(None, |newest, object| async move { Ok(newest.max(number(&object.location))) }).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            result => result.map_err(|cause| LakeError::store(format!("cannot list {folder}"), cause)),
        }
    }

    async fn remove_old(&self, newest: u64) {
        // One at a time suffices: each publishing adds one.
        if let Some(old) = newest.checked_sub(KEPT).filter(|old| *old > 0) {
            store::discard(self.0.place.store().as_ref(), &self.path(old)).await;
        }
    }

    fn path(&self, number: u64) -> Path {
        self.0.place.own(&["manifests", &format!("{number:020}.json")])
    }

    fn remember(&self, manifest: Arc<Manifest>) {
        let mut known = self.lock();
        if known.as_ref().is_none_or(|known| known.number < manifest.number) {
            *known = Some(manifest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Manifest>>> {
        self.0.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(path: &Path) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}
