//! Gathering small segments into bigger ones, safe against a crash at any point and a second process.
//!
//! A fold first creates the bigger segment, which names those it replaces: from then on readers ignore
//! them. They are deleted only after [`GRACE`], so that nobody who listed them before misses them, and
//! only then may the bigger segment be folded itself.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::HistorySettings;
use crate::journal::JournalError;
use crate::journal::segment::{Listed, SegmentName, Shelf, TOP_LEVEL};
use crate::runtime::fault;

/// Segments of one level that become one of the next: reading stays at some tens of small objects, and a
/// record is written anew at most [`TOP_LEVEL`] times.
pub(super) const FOLD_AT: usize = 32;
/// How long replaced segments are kept for readers that listed them before: longer than any reading takes.
pub(super) const GRACE: TimeDelta = TimeDelta::minutes(15);

/// Segments above so many bytes are not gathered: there are few records' worth of reading to save, and a bigger segment
/// is put together in memory.
const LARGE_BYTES: u64 = 2 << 20;

/// Deletes what was replaced long ago, and folds the oldest segments of a level that has enough of them.
pub(super) async fn fold<R>(shelf: &Shelf, now: DateTime<Utc>) -> Result<(), JournalError>
where
    R: Serialize + DeserializeOwned + 'static,
{
    let listed = shelf.list().await?;
    if listed.iter().filter(|listed| listed.name.level < TOP_LEVEL).count() < FOLD_AT {
        return Ok(());
    }
    let replaced = shelf.replaced(&listed).await?;
    let busy = clear(shelf, &listed, &replaced, now).await?;
    for level in 0..TOP_LEVEL {
        let small = listed.iter().filter(|listed| listed.bytes <= LARGE_BYTES);
        let of_level = small.map(|listed| listed.name).filter(|name| name.level == level);
        let ready: Vec<SegmentName> =
            of_level.filter(|name| !replaced.contains_key(name) && !busy.contains(name)).take(FOLD_AT).collect();
        if ready.len() == FOLD_AT {
            gather::<R>(shelf, &ready).await?;
        }
    }
    Ok(())
}

/// Deletes replaced segments whose time is over. What comes back are the segments of which replaced ones
/// are still there: they may not be folded, as their word is still needed.
async fn clear(
    shelf: &Shelf,
    listed: &[Listed],
    replaced: &HashMap<SegmentName, SegmentName>,
    now: DateTime<Utc>,
) -> Result<HashSet<SegmentName>, JournalError> {
    let written: HashMap<SegmentName, DateTime<Utc>> =
        listed.iter().map(|listed| (listed.name, listed.written)).collect();
    let mut busy = HashSet::new();
    for member in listed.iter().map(|listed| listed.name) {
        let Some(bigger) = replaced.get(&member) else { continue };
        if written.get(bigger).is_some_and(|written| now - *written >= GRACE) {
            shelf.delete(member).await?;
        } else {
            busy.insert(*bigger);
        }
    }
    Ok(busy)
}

/// Deletes the oldest segments: those written longer ago than is kept, and as many as are too much for the disk. The
/// records of a segment are older than itself, so that what is kept is kept for at least as long as was asked for.
pub(super) async fn prune(shelf: &Shelf, keep: &HistorySettings, now: DateTime<Utc>) -> Result<(), JournalError> {
    let mut listed = shelf.list().await?;
    let replaced = shelf.replaced(&listed).await?;
    let busy = clear(shelf, &listed, &replaced, now).await?;
    listed.sort_by_key(|listed| (listed.written, listed.name));
    let mut bytes: u64 = listed.iter().map(|listed| listed.bytes).sum();
    for old in &listed {
        let too_old = (now - old.written).to_std().is_ok_and(|age| age > keep.keep);
        if !too_old && bytes <= keep.size {
            break;
        }
        // A replaced segment would count again without the one in whose place it stood.
        if !replaced.contains_key(&old.name) && !busy.contains(&old.name) {
            shelf.delete(old.name).await?;
            bytes = bytes.saturating_sub(old.bytes);
        }
    }
    Ok(())
}

/// Writes one bigger segment in the place of its members.
async fn gather<R>(shelf: &Shelf, members: &[SegmentName]) -> Result<(), JournalError>
where
    R: Serialize + DeserializeOwned + 'static,
{
    let Some(oldest) = members.first() else { return Ok(()) };
    let name = SegmentName { level: oldest.level + 1, id: oldest.id };
    let mut writer = shelf.writer(name, members.to_vec())?;
    for member in members {
        let mut pieces = shelf.read::<R>(member).await?;
        while let Some(piece) = pieces.try_next().await? {
            for record in &piece {
                writer.push(record)?;
            }
        }
    }
    fault::point("journal.fold.before")?;
    if writer.create().await? {
        fault::point("journal.fold.written")?;
    }
    Ok(())
}
