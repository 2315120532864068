//! Where the lake is, and how it is reached so that what was written stays written.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

use crate::config::LakeSettings;
use crate::error::{Classify, ErrorKind};
use crate::lake::durable::DurableLocalStore;
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
    /// The folder below the table's that this is the place of, where it is not the table's own.
    making: Option<String>,
}

impl LakePlace {
    /// The place the settings name; a local folder is made when it is missing.
    pub(super) fn open(settings: &LakeSettings) -> Result<Self, LakeError> {
        let store = match &settings.location {
            Location::Local(_) => Arc::new(DurableLocalStore::new()),
            bucket => crate::runtime::store::open(bucket, settings.connection.as_ref()).map_err(|cause| {
                LakeError::because(cause.kind(), format!("cannot open the lake {}", settings.location), cause)
            })?,
        };
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
        if folder.to_string_lossy().contains('%') {
            // The Delta library decodes the address twice, and would look in another folder.
            let text = format!("the lake's folder {} has a `%` in its path; choose another name", folder.display());
            return Err(LakeError::new(ErrorKind::InvalidInput, text));
        }
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

    /// The folder of a schema's tables.
    pub(super) fn folder(&self, schema: &str) -> Path {
        self.path.clone().join(schema)
    }

    /// Where a table is.
    pub(super) fn table(&self, name: &TableName) -> TablePlace {
        let mut url = self.url.clone();
        // A lake's address always has a path; the parts of a name need no escaping.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(name.schema()).push(name.table()).push("");
        }
        let path = self.path.clone().join(name.schema()).join(name.table());
        TablePlace { name: name.clone(), lake: self.clone(), path, url, making: None }
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
        let table = self.lake.local.as_ref()?.join(self.name.schema()).join(self.name.table());
        Some(self.making.iter().fold(table, |table, folder| table.join(folder)))
    }

    /// The place of a table in the making, in a folder below this one.
    pub(super) fn making(&self, folder: &str) -> Self {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(folder).push("");
        }
        Self { path: self.path.clone().join(folder), url, making: Some(folder.to_owned()), ..self.clone() }
    }

    /// Under which address scans find the store in a `RuntimeEnv`.
    pub(super) fn store_url(&self) -> &ObjectStoreUrl {
        &self.lake.store_url
    }

    /// The table as the Delta library sees it; nothing is loaded yet. The log store is made by hand: the
    /// library looks one up by the address only, and knows `s3` only with the AWS SDK built in.
    pub(super) fn delta(&self) -> DeltaTable {
        let files = Arc::new(PrefixStore::new(Arc::clone(self.store()), self.path.clone()));
        let store = Arc::clone(self.store());
        DeltaTable::new(default_logstore(files, store, &self.url, &StorageConfig::default()))
    }

    /// Where a data file of the table is, by the path the log gives it.
    pub(super) fn data_file(&self, path: &str) -> Result<Path, LakeError> {
        let relative = Path::parse(path).map_err(|cause| {
            LakeError::because(ErrorKind::DataLoss, format!("table {} names a file that is no path", self.name), cause)
        })?;
        Ok(relative.parts().fold(self.path.clone(), |path, part| path.join(part)))
    }

    /// A path of lakegate's own below the table.
    pub(super) fn own(&self, parts: &[&str]) -> Path {
        below(&self.path, OWN_FOLDER, parts)
    }
}

/// Creates an object unless its name is taken, and finds out when the store does not say whether it did:
/// the object is ours exactly when it holds our bytes, which therefore have to be unique.
///
/// # Errors
/// When the object is not there and the store failed; it may still appear later.
pub(super) async fn create_once(store: &dyn ObjectStore, path: &Path, bytes: Bytes) -> Result<bool, LakeError> {
    let options = PutOptions { mode: PutMode::Create, ..Default::default() };
    let Err(cause) = store.put_opts(path, bytes.clone().into(), options).await else { return Ok(true) };
    match (read(store, path).await, cause) {
        (Ok(Some(found)), _) => Ok(found == bytes),
        (Ok(None), object_store::Error::AlreadyExists { .. }) => Ok(false),
        (_, cause) => Err(LakeError::store(format!("cannot create {path}"), cause)),
    }
}

/// The whole of an object; none when it does not exist.
pub(super) async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, LakeError> {
    let result = match store.get(path).await {
        Ok(found) => found.bytes().await,
        Err(cause) => Err(cause),
    };
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(cause) => Err(LakeError::store(format!("cannot read {path}"), cause)),
    }
}

/// The file names directly in a folder, in order; empty when there is no such folder.
pub(super) async fn names(store: &dyn ObjectStore, folder: &Path) -> Result<Vec<String>, LakeError> {
    let listed = store.list(Some(folder)).map_ok(|object| object.location).try_collect::<Vec<_>>().await;
    let locations = match listed {
        Ok(locations) => locations,
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        Err(cause) => return Err(LakeError::store(format!("cannot list {folder}"), cause)),
    };
    let mut names: Vec<String> = locations.iter().filter_map(Path::filename).map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

/// Removes what nobody needs any more; a failure is only logged, as it leaves nothing but litter.
pub(super) async fn discard(store: &dyn ObjectStore, path: &Path) {
    match store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(cause) => tracing::warn!(%path, error = %crate::error::chain_text(&cause), "could not remove an object"),
    }
}

fn below(path: &Path, folder: &str, parts: &[&str]) -> Path {
    parts.iter().fold(path.clone().join(folder), |path, part| path.join(*part))
}
