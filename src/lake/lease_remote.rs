//! A lease on an object store: records that are created once, never changed.
//!
//! `_lakegate/lease/<fence>.<renewal>.json`, both zero padded. The highest name counts. A holder owns one
//! fencing number and creates its next renewal in good time; giving back is a last renewal that says so.
//! Nobody's wall clock is trusted: a holder stops when its own monotonic clock says that the lifetime has
//! passed since it *began* its last renewal, others take over when their own clock says that it has passed
//! since they first *saw* that renewal. A process that was frozen in between is stopped by the version that
//! its successor commits before anything else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::error::{ErrorKind, chain_text};
use crate::lake::LakeError;
use crate::lake::lease::{Holder, LeaseMark, Taken};
use crate::lake::store::{self, TablePlace};
use crate::model::TableName;
use crate::runtime::clock::Clock;

/// Renewals in one lifetime: two may fail before the lease is lost.
const RENEWALS_PER_LIFETIME: u32 = 3;

/// Even a lease of no length does not keep the store busy.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The newest record of a lease somebody else holds, and since when it has been the newest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    name: (u64, u64),
    since: Instant,
}

/// The content of a record.
#[derive(Debug, Serialize, Deserialize)]
struct LeaseRecord {
    /// Makes the bytes unique, so that a lost answer can be told from somebody else's record.
    id: Uuid,
    /// How long the record is good for without a further one.
    lifetime_ms: u64,
    #[serde(flatten)]
    mark: LeaseMark,
}

/// A held lease.
pub(super) struct RemoteLease {
    shared: Arc<Renewing>,
    task: AbortHandle,
    /// Given back, or never held.
    released: AtomicBool,
    /// Whether the holder before has to be fenced off and cleaned up after.
    follows_dead: bool,
}

struct Renewing {
    place: TablePlace,
    clock: Arc<dyn Clock>,
    lifetime: Duration,
    fence: u64,
    renewal: AtomicU64,
    /// When the last renewal that arrived was begun.
    renewed: Mutex<Instant>,
    lost: AtomicBool,
    holder: Holder,
}

impl RemoteLease {
    /// Tries once to take the lease; `watch` is what earlier looks saw.
    pub(super) async fn try_take(
        place: &TablePlace,
        clock: &Arc<dyn Clock>,
        lifetime: Duration,
        holder: &Holder,
        watch: &Mutex<Option<Watch>>,
    ) -> Result<Taken<Self>, LakeError> {
        let Some(newest) = newest(place).await? else {
            return Self::claim(place, clock, lifetime, holder, 1, false).await;
        };
        let Some(bytes) = store::read(place.store().as_ref(), &record_path(place, newest)).await? else {
            // It was renewed or taken over between the two requests.
            return Ok(Taken::Held(None));
        };
        let record: LeaseRecord = serde_json::from_slice(&bytes).map_err(|cause| {
            let text =
                format!("the lease of table {} cannot be read; remove {}", place.name(), record_path(place, newest));
            LakeError::because(ErrorKind::DataLoss, text, cause)
        })?;
        let dead = if record.mark.released {
            record.mark.unclean
        } else if is_expired(watch, newest, Duration::from_millis(record.lifetime_ms), clock.monotonic()) {
            tracing::warn!(table = %place.name(), holder = ?record.mark.holder, "taking over a lease that expired");
            true
        } else {
            return Ok(Taken::Held(Some(record.mark.holder)));
        };
        Self::claim(place, clock, lifetime, holder, newest.0 + 1, dead).await
    }

    /// Goes on to a known outcome when the caller stops waiting, and then gives back what it took: a record that nobody
    /// renews or gives back would keep everybody out until it expires.
    async fn claim(
        place: &TablePlace,
        clock: &Arc<dyn Clock>,
        lifetime: Duration,
        holder: &Holder,
        fence: u64,
        follows_dead: bool,
    ) -> Result<Taken<Self>, LakeError> {
        let renewing = Renewing {
            place: place.clone(),
            clock: Arc::clone(clock),
            lifetime,
            fence,
            renewal: AtomicU64::new(0),
            renewed: Mutex::new(clock.monotonic()),
            lost: AtomicBool::new(false),
            holder: holder.clone(),
        };
        tokio::spawn(Self::create(renewing, follows_dead)).await.unwrap_or_else(|cause| {
            let text = format!("taking the lease of table {} broke off", place.name());
            Err(LakeError::because(ErrorKind::Internal, text, cause))
        })
    }

    async fn create(renewing: Renewing, follows_dead: bool) -> Result<Taken<Self>, LakeError> {
        let Renewing { place, lifetime, fence, holder, .. } = &renewing;
        let (place, fence) = (place.clone(), *fence);
        let mark = LeaseMark { holder: holder.clone(), released: false, unclean: follows_dead };
        let bytes = record_bytes(place.name(), *lifetime, &mark)?;
        if !store::create_once(place.store().as_ref(), &record_path(&place, (fence, 0)), bytes).await? {
            return Ok(Taken::Held(None));
        }
        let shared = Arc::new(renewing);
        let task = tokio::spawn(Arc::clone(&shared).keep_renewing()).abort_handle();
        let lease = Self { shared, task, released: AtomicBool::new(false), follows_dead };
        // The number may have been used up, and its record removed, while this process was looking away.
        if newest(&place).await?.is_none_or(|newest| newest.0 != fence) {
            lease.released.store(true, Ordering::Release);
            return Ok(Taken::Held(None));
        }
        remove_older(&place, (fence, 0)).await;
        Ok(Taken::Ours(lease, follows_dead))
    }

    pub(super) fn fence(&self) -> u64 {
        self.shared.fence
    }

    /// Makes sure that the lease has neither expired nor been taken over.
    pub(super) async fn check(&self, table: &TableName) -> Result<(), LakeError> {
        let lost = |how: &str| {
            let text =
                format!("the lease of table {table} was lost: {how}; nothing was changed, the next load begins anew");
            LakeError::new(ErrorKind::Conflict, text)
        };
        if self.shared.is_over() {
            return Err(lost("it could not be renewed in time"));
        }
        match newest(&self.shared.place).await? {
            Some(newest) if newest.0 == self.shared.fence => Ok(()),
            _ => {
                self.shared.lost.store(true, Ordering::Release);
                Err(lost("another process has taken it over"))
            }
        }
    }

    /// Gives the lease back.
    pub(super) async fn release(&self, mark: LeaseMark) {
        self.task.abort();
        if !self.released.swap(true, Ordering::AcqRel) {
            self.shared.release(mark).await;
        }
    }

    /// Gives the lease back in the background, where there is one.
    pub(super) fn release_later(&self, mark: LeaseMark) {
        self.task.abort();
        if self.released.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { shared.release(mark).await });
        }
    }
}

impl Drop for RemoteLease {
    /// Gives back what nobody came to hold; what was given back before stays as it is.
    fn drop(&mut self) {
        let holder = self.shared.holder.clone();
        self.release_later(LeaseMark { holder, released: true, unclean: self.follows_dead });
    }
}

impl Renewing {
    fn is_over(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        self.lost.load(Ordering::Acquire) || self.clock.monotonic().duration_since(renewed) >= self.lifetime
    }

    async fn keep_renewing(self: Arc<Self>) {
        let mut pause = self.lifetime / RENEWALS_PER_LIFETIME;
        loop {
            tokio::time::sleep(pause.max(SHORTEST_PAUSE)).await;
            if self.is_over() {
                tracing::warn!(table = %self.place.name(), "a lease was lost: it could not be renewed in time");
                return;
            }
            let mark = LeaseMark { holder: self.holder.clone(), released: false, unclean: false };
            pause = match self.renew(&mark).await {
                Ok(()) => self.lifetime / RENEWALS_PER_LIFETIME,
                Err(error) => {
                    tracing::warn!(table = %self.place.name(), error = %chain_text(&error), "could not renew a lease");
                    self.lifetime / (RENEWALS_PER_LIFETIME * 4)
                }
            };
        }
    }

    async fn renew(&self, mark: &LeaseMark) -> Result<(), LakeError> {
        let begun = self.clock.monotonic();
        let next = self.renewal.fetch_add(1, Ordering::AcqRel) + 1;
        let name = (self.fence, next);
        let bytes = record_bytes(self.place.name(), self.lifetime, mark)?;
        if store::create_once(self.place.store().as_ref(), &record_path(&self.place, name), bytes).await? {
            *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = begun;
            remove_older(&self.place, name).await;
        }
        Ok(())
    }

    async fn release(&self, mark: LeaseMark) {
        if let Err(error) = self.renew(&mark).await {
            let table = self.place.name();
            tracing::warn!(%table, error = %chain_text(&error), "could not give a lease back; it will expire");
        }
    }
}

/// Whether `newest` has been the newest record for longer than `lifetime`.
fn is_expired(watch: &Mutex<Option<Watch>>, newest: (u64, u64), lifetime: Duration, now: Instant) -> bool {
    let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
    match *watch {
        Some(seen) if seen.name == newest => now.duration_since(seen.since) > lifetime,
        _ => {
            *watch = Some(Watch { name: newest, since: now });
            false
        }
    }
}

/// Fence and renewal of the record that counts.
async fn newest(place: &TablePlace) -> Result<Option<(u64, u64)>, LakeError> {
    Ok(all(place).await?.last().copied())
}

async fn all(place: &TablePlace) -> Result<Vec<(u64, u64)>, LakeError> {
    let names = store::names(place.store().as_ref(), &place.own(&["lease"])).await?;
    Ok(names.iter().filter_map(|name| number(name)).collect())
}

fn number(name: &str) -> Option<(u64, u64)> {
    let (fence, renewal) = name.strip_suffix(".json")?.split_once('.')?;
    Some((fence.parse().ok()?, renewal.parse().ok()?))
}

/// Removes what no longer counts. The highest record stays always: numbers may not be used twice.
async fn remove_older(place: &TablePlace, kept: (u64, u64)) {
    for name in all(place).await.unwrap_or_default().into_iter().filter(|name| *name < kept) {
        store::discard(place.store().as_ref(), &record_path(place, name)).await;
    }
}

fn record_path(place: &TablePlace, (fence, renewal): (u64, u64)) -> object_store::path::Path {
    place.own(&["lease", &format!("{fence:020}.{renewal:020}.json")])
}

fn record_bytes(table: &TableName, lifetime: Duration, mark: &LeaseMark) -> Result<Bytes, LakeError> {
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    let record = LeaseRecord { id: Uuid::new_v4(), lifetime_ms, mark: mark.clone() };
    let bytes = serde_json::to_vec(&record).map_err(|cause| {
        LakeError::because(ErrorKind::Internal, format!("cannot write down the lease of {table}"), cause)
    })?;
    Ok(bytes.into())
}
