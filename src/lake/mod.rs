//! The lake: Delta tables in a local folder or an S3-compatible bucket, changed by numbered attempts.
//!
//! A load takes a table's [`Lease`], begins an [`Attempt`], writes through its [`TableWriter`] and commits.
//! Readers take a [`Snapshot`]. What landed, and nothing else, is told by the [`Chain`].

pub mod apply;
pub mod attempt;
pub mod bounds;
pub mod chain;
pub mod clean;
pub mod commit;
pub mod durable;
pub mod edit;
pub mod entry;
pub mod error;
pub mod foreign;
pub mod gather;
pub mod lease;
pub mod lease_remote;
pub mod made;
pub mod making;
pub mod manifest;
pub mod record;
pub mod rejects;
pub mod scan;
pub mod schema;
pub mod snapshot;
pub mod sort;
pub mod store;
pub mod table;
pub mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;

use crate::config::LakeSettings;
use crate::lake::store::LakePlace;
use crate::lake::table::TableState;
use crate::model::TableName;
use crate::runtime::clock::Clock;

pub use attempt::{Attempt, Committed, Facts};
pub use chain::Chain;
pub use edit::{Edit, Edited, Edits};
pub use error::LakeError;
pub use lease::{Holder, Lease};
pub use made::Made;
pub use manifest::Manifests;
pub use scan::{FILE_COLUMN, ROW_COLUMN, StoredColumn, StoredForm, StoredWords};
pub(crate) use scan::{Forecast, forecast_of, look_at_footers};
pub use snapshot::Snapshot;
pub use table::{At, LakeTable};
pub use writer::{RewriteEstimate, Staged, TableCreation, TableWriter, WritePlan};

/// The application whose `txn` number says which attempt landed last.
pub const TRANSACTION_APP: &str = "lakegate";

/// The folder within a table, and within the lake, that is lakegate's own; Delta readers pass it by.
pub const OWN_FOLDER: &str = "_lakegate";

/// Every place in this room where a test can make the program fail, die or freeze.
pub const POINTS: &[&str] = &[
    "lake.lease.taken",
    "lake.data.written",
    "lake.rejects.written",
    "lake.compare.before",
    "lake.compare.found",
    "lake.record.written",
    "lake.commit.before",
    "lake.commit.after",
    "lake.fence.before",
    "lake.clean.before",
    "lake.summary.before",
    "lake.manifest.before",
];

/// A place that holds tables. Clones are one lake and share its caches.
#[derive(Clone)]
pub struct Lake(Arc<Shared>);

/// What every handle of one lake shares.
pub(crate) struct Shared {
    place: LakePlace,
    environment: Arc<RuntimeEnv>,
    clock: Arc<dyn Clock>,
    target_file_size: u64,
    lease_lifetime: Duration,
    tables: Mutex<HashMap<TableName, Arc<TableState>>>,
    manifest: manifest::Newest,
}

impl Lake {
    /// Opens the place; makes the folder when it is local and missing. `environment` is what loads
    /// compute in: memory pool and spill.
    ///
    /// # Errors
    /// When the folder cannot be made or the connection's settings do not make a client.
    pub async fn open(
        settings: &LakeSettings,
        environment: Arc<RuntimeEnv>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LakeError> {
        let place = LakePlace::open(settings)?;
        Ok(Self::with_place(place, settings, environment, clock))
    }

    /// Opens the place through a store of the caller's own, rooted at `/` locally and at the bucket
    /// otherwise: for tests that let a store fail.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub async fn open_through(
        store: Arc<dyn ObjectStore>,
        settings: &LakeSettings,
        environment: Arc<RuntimeEnv>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LakeError> {
        let place = LakePlace::through(store, settings)?;
        Ok(Self::with_place(place, settings, environment, clock))
    }

    fn with_place(
        place: LakePlace,
        settings: &LakeSettings,
        environment: Arc<RuntimeEnv>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        place.register(&environment);
        Self(Arc::new(Shared {
            place,
            environment,
            clock,
            target_file_size: settings.target_file_size,
            lease_lifetime: settings.lease_lifetime,
            tables: Mutex::default(),
            manifest: Mutex::default(),
        }))
    }

    /// A handle of a table; nothing is reached for. Handles of one name share caches.
    pub fn table(&self, name: &TableName) -> LakeTable {
        let mut tables = self.0.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let state = tables.entry(name.clone()).or_insert_with(|| Arc::new(TableState::new(self.0.place.table(name))));
        LakeTable::new(Arc::clone(&self.0), Arc::clone(state))
    }

    /// What the lake was opened with: memory pool and spill.
    pub fn environment(&self) -> Arc<RuntimeEnv> {
        Arc::clone(&self.0.environment)
    }

    /// The versions of tables that belong together.
    pub fn manifests(&self) -> Manifests {
        Manifests::new(Arc::clone(&self.0))
    }
}
