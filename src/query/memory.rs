//! What queries and loads compute in: one bounded memory pool, and a bounded folder to spill to.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use crate::config::Limits;
use crate::error::ErrorKind;
use crate::query::QueryError;

/// Consumers named in the error when memory runs out: enough to see the one that took it.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

/// The one environment of the program: operators that can spill share [`Limits::memory`] evenly, and
/// spill at most [`Limits::spill`] bytes into [`Limits::spill_folder`].
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
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.memory), NAMED_CONSUMERS);
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(limits.spill);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(QueryError::from)
}
