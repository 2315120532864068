//! What queries and loads compute in: one bounded memory pool, and a bounded folder to spill to.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::config::Limits;
use crate::error::ErrorKind;
use crate::query::QueryError;

/// Consumers named in the error when memory runs out: enough to see the one that took it.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// The part of [`Limits::memory`] that is not in the pool, one of so many: for the program itself, rows on their way from a
/// source and to a client, pages of files, and what the allocator keeps.
const RESERVE_PART: usize = 4;
/// Largest such part: what is not in the pool grows with what is done at once, not with the memory there is.
const LARGEST_RESERVE: usize = 1 << 30;

/// The part of the pool that is kept from operators that can spill, one of so many.
const HEADROOM_PART: usize = 8;

/// Most bytes a sort of a statement sets aside for merging what it spilled: what the library does, too.
const MERGE_BYTES: usize = 10 << 20;

/// The part of the statement's memory that this may be, one of so many: each sort of a statement takes it on each thread
/// before it takes a row, and several have to find room.
const MERGE_PART: usize = 16;

/// The one environment of the program: operators that can spill share evenly three quarters of [`Limits::memory`]
/// or more, and spill at most [`Limits::spill`] bytes into [`Limits::spill_folder`].
///
/// # Errors
/// When the spill folder cannot be made.
pub fn environment(limits: &Limits) -> Result<Arc<RuntimeEnv>, QueryError> {
    let mode = match &limits.spill_folder {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|cause| {
                let message = format!("cannot make the spill folder {} (`limits.spill_folder`)", folder.display());
                QueryError::because(ErrorKind::Unavailable, message, cause)
            })?;
            DiskManagerMode::Directories(vec![folder.clone()])
        }
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(limits.spill);
    RuntimeEnvBuilder::new()
        .with_memory_pool(pool(pooled(limits.memory)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(QueryError::from)
}

/// What is in the pool of so many bytes that the process is to take: the rest is for what nobody counts.
fn pooled(memory: usize) -> usize {
    memory - (memory / RESERVE_PART).min(LARGEST_RESERVE)
}

/// A pool of so many bytes: operators that can spill share it evenly, and leave an eighth of it to those that cannot.
pub fn pool(bytes: usize) -> Arc<dyn MemoryPool> {
    let fair = FairSpillPool::new(bytes);
    Arc::new(TrackConsumersPool::new(
        WithHeadroom { fair, for_spillable: bytes - bytes / HEADROOM_PART },
        NAMED_CONSUMERS,
    ))
}

/// A fair pool in which whoever holds memory that can be spilled spills it before all is taken.
///
/// A sort that spills first merges what it holds, for which it needs memory that cannot be spilled; and what it has merged
/// it gathers as long as it is given memory. A fair pool gives it all there is, as it looks at each reservation alone, and
/// then the merge fails.
#[derive(Debug)]
struct WithHeadroom {
    fair: FairSpillPool,
    for_spillable: usize,
}

impl MemoryPool for WithHeadroom {
    fn name(&self) -> &str {
        "fair with headroom"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.fair.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.fair.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.fair.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.fair.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        let has_to_spill = reservation.consumer().can_spill() && reservation.size() > 0;
        if has_to_spill && self.fair.reserved() + additional > self.for_spillable {
            let text = format!(
                "{} holds {} bytes and is to spill them rather than take {additional} more",
                reservation.consumer().name(),
                reservation.size()
            );
            return Err(DataFusionError::ResourcesExhausted(text));
        }
        self.fair.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.fair.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.fair.memory_limit()
    }
}

impl fmt::Display for WithHeadroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with headroom", self.fair)
    }
}

/// Bytes that each sort of a statement sets aside for merging what it spilled, where the statement may have `most` bytes.
pub(crate) fn merge_bytes(environment: &RuntimeEnv, most: usize) -> usize {
    let pool = match environment.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => bytes.min(most),
        MemoryLimit::Infinite | MemoryLimit::Unknown => most,
    };
    (pool / MERGE_PART).min(MERGE_BYTES)
}

/// The environment of one statement: that of the program, of whose memory it may have `most` bytes. What it takes is
/// told to `gauge`.
pub(crate) fn share(environment: &RuntimeEnv, most: usize, gauge: &Arc<MemoryGauge>) -> Arc<RuntimeEnv> {
    let pool = Share { whole: Arc::clone(&environment.memory_pool), most, gauge: Arc::clone(gauge) };
    Arc::new(RuntimeEnv { memory_pool: Arc::new(pool), ..environment.clone() })
}

/// How much memory a statement takes.
#[derive(Debug, Default)]
pub struct MemoryGauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl MemoryGauge {
    /// Bytes that are reserved now.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// Bytes that were reserved at most.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn took(&self, bytes: usize) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn gave(&self, bytes: usize) {
        self.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One statement's share of the pool.
#[derive(Debug)]
struct Share {
    whole: Arc<dyn MemoryPool>,
    most: usize,
    gauge: Arc<MemoryGauge>,
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "share of one statement"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.whole.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.whole.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.whole.grow(reservation, additional);
        self.gauge.took(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.whole.shrink(reservation, shrink);
        self.gauge.gave(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<(), DataFusionError> {
        let spills = reservation.consumer().can_spill() && reservation.size() > 0;
        // As in the whole pool: who can spill leaves room for the merging of what was spilled.
        let most = if spills { self.most - self.most / HEADROOM_PART } else { self.most };
        if self.gauge.now() + additional > most {
            let text = format!(
                "{} would take the statement above {} MiB (`limits.statement_memory`)",
                reservation.consumer().name(),
                self.most >> 20
            );
            return Err(DataFusionError::ResourcesExhausted(text));
        }
        self.whole.try_grow(reservation, additional)?;
        self.gauge.took(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.gauge.now()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.name(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_takes_its_share_and_no_more() {
        let environment = RuntimeEnv { memory_pool: pool(64_000), ..RuntimeEnv::default() };
        let gauge = Arc::default();
        let own = share(&environment, 8_000, &gauge);
        let join = MemoryConsumer::new("join").register(&own.memory_pool);
        join.try_grow(7_000).unwrap();
        let told = join.try_grow(2_000).unwrap_err().to_string();
        assert!(told.contains("limits.statement_memory"), "{told}");
        let other = share(&environment, 8_000, &Arc::default());
        let others = MemoryConsumer::new("join").register(&other.memory_pool);
        others.try_grow(8_000).unwrap();
        assert_eq!(environment.memory_pool.reserved(), 15_000);
        drop((join, others));
        assert_eq!((environment.memory_pool.reserved(), gauge.now(), gauge.peak()), (0, 0, 7_000));
    }

    #[test]
    fn who_can_spill_leaves_room_in_the_share() {
        let environment = RuntimeEnv { memory_pool: pool(64_000), ..RuntimeEnv::default() };
        let own = share(&environment, 8_000, &Arc::default());
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&own.memory_pool);
        sort.try_grow(7_000).unwrap();
        sort.try_grow(1).unwrap_err();
        MemoryConsumer::new("merge").register(&own.memory_pool).try_grow(1_000).unwrap();
    }

    #[test]
    fn what_a_sort_sets_aside_is_a_part_of_the_statements_memory() {
        let of_pool = |bytes| RuntimeEnv { memory_pool: pool(bytes), ..RuntimeEnv::default() };
        assert_eq!(merge_bytes(&of_pool(1 << 30), 768 << 20), 10 << 20);
        assert_eq!(merge_bytes(&of_pool(1 << 30), 8 << 20), 512 << 10);
        assert_eq!(merge_bytes(&of_pool(12 << 20), 16 << 20), 768 << 10);
    }

    #[test]
    fn some_of_the_memory_is_left_for_what_is_not_counted() {
        assert_eq!(pooled(512 << 20), 384 << 20);
        assert_eq!(pooled(64 << 30), 63 << 30);
        assert_eq!(pooled(0), 0);
    }

    #[test]
    fn what_can_be_spilled_leaves_room_for_what_cannot() {
        let pool = pool(8_000);
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        let merge = MemoryConsumer::new("merge").register(&pool);
        sort.try_grow(6_000).unwrap();
        let rows = sort.split(6_000);
        // Something is always given: who holds nothing has nothing to spill.
        sort.try_grow(1_500).unwrap();
        sort.try_grow(1).unwrap_err();
        merge.try_grow(400).unwrap();
        drop(rows);
        sort.try_grow(4_000).unwrap();
        merge.try_grow(2_000).unwrap();
    }
}
