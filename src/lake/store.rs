//! Where the lake is, and how it is reached so that what was written stays written.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::config::LakeSettings;
use crate::error::{Classify, ErrorKind};
use crate::lake::{LakeError, OWN_FOLDER};
use crate::model::{Location, TableName};

/// Where the lake is. Cheap to clone.
#[derive(Clone)]
pub(super) struct LakePlace {
    store: Arc<dyn ObjectStore>,
    path: Path,
    url: Url,
    local: Option<PathBuf>,
    store_url: ObjectStoreUrl,
}

/// Where one table is. Cheap to clone.
#[derive(Clone)]
pub(super) struct TablePlace {
    name: TableName,
    lake: LakePlace,
    path: Path,
    url: Url,
}

impl LakePlace {
    /// The place the settings name; a local folder is made when it is missing.
    pub(super) fn open(settings: &LakeSettings) -> Result<Self, LakeError> {
        let store = crate::runtime::store::open(&settings.location, settings.connection.as_ref()).map_err(|cause| {
            LakeError::because(cause.kind(), format!("cannot open the lake {}", settings.location), cause)
        })?;
        Self::through(store, settings)
    }

    /// The place the settings name, reached through `store`.
    pub(super) fn through(store: Arc<dyn ObjectStore>, settings: &LakeSettings) -> Result<Self, LakeError> {
        match &settings.location {
            Location::Local(folder) => Self::local(store, folder),
            Location::S3 { bucket, key } => Self::bucket(store, bucket, key),
        }
    }

    fn local(store: Arc<dyn ObjectStore>, folder: &std::path::Path) -> Result<Self, LakeError> {
        let what = || format!("cannot make the lake's folder {}", folder.display());
        std::fs::create_dir_all(folder).map_err(|cause| LakeError::io(what(), cause))?;
        let folder = folder.canonicalize().map_err(|cause| LakeError::io(what(), cause))?;
        let path = Path::from_absolute_path(&folder)
            .map_err(|cause| LakeError::because(ErrorKind::InvalidInput, what(), cause))?;
        let url = Url::from_directory_path(&folder).map_err(|()| LakeError::new(ErrorKind::InvalidInput, what()))?;
        Ok(Self { store, path, url, local: Some(folder), store_url: ObjectStoreUrl::local_filesystem() })
    }

    fn bucket(store: Arc<dyn ObjectStore>, bucket: &str, key: &str) -> Result<Self, LakeError> {
        let what = || format!("s3://{bucket}/{key} is no place for a lake");
        let invalid = |cause: Box<dyn std::error::Error + Send + Sync>| {
            LakeError::because(ErrorKind::InvalidInput, what(), cause)
        };
        let path = Path::parse(key).map_err(|cause| invalid(cause.into()))?;
        let slash = if key.is_empty() { "" } else { "/" };
        let url = Url::parse(&format!("s3://{bucket}/{key}{slash}")).map_err(|cause| invalid(cause.into()))?;
        let store_url = ObjectStoreUrl::parse(format!("s3://{bucket}")).map_err(|cause| invalid(cause.into()))?;
        Ok(Self { store, path, url, local: None, store_url })
    }

    /// Tells an environment how to reach the lake's files.
    pub(super) fn register(&self, environment: &RuntimeEnv) {
        if self.local.is_none() {
            environment.register_object_store(self.store_url.as_ref(), Arc::clone(&self.store));
        }
    }

    /// The store, rooted at `/` locally and at the bucket otherwise.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// A path of lakegate's own below the lake.
    pub(super) fn own(&self, parts: &[&str]) -> Path {
        below(&self.path, OWN_FOLDER, parts)
    }

    /// Where a table is.
    pub(super) fn table(&self, name: &TableName) -> TablePlace {
        let mut url = self.url.clone();
        // A lake's address always has a path; the parts of a name need no escaping.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(name.schema()).push(name.table()).push("");
        }
        let path = self.path.clone().join(name.schema()).join(name.table());
        TablePlace { name: name.clone(), lake: self.clone(), path, url }
    }
}

impl TablePlace {
    /// The table's name.
    pub(super) fn name(&self) -> &TableName {
        &self.name
    }

    /// The store, rooted at `/` locally and at the bucket otherwise.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.lake.store
    }

    /// The table's folder within the store.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The table's address, with a slash at its end.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The table's folder, where it is local.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        Some(self.lake.local.as_ref()?.join(self.name.schema()).join(self.name.table()))
    }

    /// Under which address scans find the store in a `RuntimeEnv`.
    pub(super) fn store_url(&self) -> &ObjectStoreUrl {
        &self.lake.store_url
    }

    /// A path of lakegate's own below the table.
    pub(super) fn own(&self, parts: &[&str]) -> Path {
        below(&self.path, OWN_FOLDER, parts)
    }
}

fn below(path: &Path, folder: &str, parts: &[&str]) -> Path {
    parts.iter().fold(path.clone().join(folder), |path, part| path.join(*part))
}
