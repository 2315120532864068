//! Where a test keeps its lake: a temporary folder, or a bucket on the S3 server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use lakegate::config::{LakeSettings, S3Connection};
use lakegate::lake::Lake;
use lakegate::model::{Location, TableName};
use lakegate::runtime::clock::{Clock, SystemClock};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;

use super::s3;

/// Where a test keeps its lake.
pub(crate) struct Ground {
    pub(crate) settings: LakeSettings,
    folder: Option<TempDir>,
}

impl Ground {
    /// A temporary folder, whose name has what paths in URLs have to escape.
    pub(crate) fn local() -> Self {
        let folder = tempfile::Builder::new().prefix("lake ä #").tempdir().unwrap();
        let settings = settings(Location::Local(folder.path().join("the lake")), None);
        Self { settings, folder: Some(folder) }
    }

    /// A prefix in a bucket of its own.
    pub(crate) fn bucket() -> Self {
        let connection = S3Connection {
            endpoint: Some(s3::endpoint().parse().unwrap()),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some("test".into()),
            secret_access_key: Some("test".into()),
            allow_http: true,
        };
        let location = Location::S3 { bucket: s3::bucket(), key: "team/lake".to_owned() };
        Self { settings: settings(location, Some(connection)), folder: None }
    }

    /// Whether the lake is on the S3 server.
    pub(crate) fn is_remote(&self) -> bool {
        self.folder.is_none()
    }

    /// The lake as another process would open it: nothing is shared with what was opened before.
    pub(crate) async fn lake(&self) -> Lake {
        self.lake_at(Arc::new(SystemClock)).await
    }

    /// The same, with a clock of the test's own.
    pub(crate) async fn lake_at(&self, clock: Arc<dyn Clock>) -> Lake {
        Lake::open(&self.settings, Arc::new(RuntimeEnv::default()), clock).await.unwrap()
    }

    /// The same, reached through a store of the test's own.
    pub(crate) async fn lake_through(&self, store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Lake {
        Lake::open_through(store, &self.settings, Arc::new(RuntimeEnv::default()), clock).await.unwrap()
    }

    /// A plain store, rooted at `/` locally and at the bucket otherwise.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        match &self.settings.location {
            Location::Local(_) => Arc::new(LocalFileSystem::new()),
            bucket => lakegate::runtime::store::open(bucket, self.settings.connection.as_ref()).unwrap(),
        }
    }

    /// A table's folder within [`Ground::store`].
    pub(crate) fn table_path(&self, name: &TableName) -> object_store::path::Path {
        let root = match &self.settings.location {
            Location::Local(folder) => object_store::path::Path::from_absolute_path(folder).unwrap(),
            Location::S3 { key, .. } => object_store::path::Path::parse(key).unwrap(),
        };
        root.join(name.schema()).join(name.table())
    }

    /// A table's address, and what plain Delta readers need to reach it.
    pub(crate) fn table_address(&self, name: &TableName) -> (url::Url, HashMap<String, String>) {
        match &self.settings.location {
            Location::Local(folder) => {
                let folder = folder.join(name.schema()).join(name.table());
                (url::Url::from_directory_path(folder).unwrap(), HashMap::new())
            }
            Location::S3 { bucket, key } => {
                let address = format!("s3://{bucket}/{key}/{}/{}", name.schema(), name.table());
                let options = [
                    ("AWS_ENDPOINT_URL", s3::endpoint()),
                    ("AWS_ALLOW_HTTP", "true".to_owned()),
                    ("AWS_REGION", "us-east-1".to_owned()),
                    ("AWS_ACCESS_KEY_ID", "test".to_owned()),
                    ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
                ];
                (address.parse().unwrap(), options.map(|(key, value)| (key.to_owned(), value)).into())
            }
        }
    }

    /// The lake's part of a configuration file, for processes with `TEST_KEY` in their environment.
    pub(crate) fn configuration(&self) -> String {
        let LakeSettings { location, connection, lease_lifetime, .. } = &self.settings;
        let (location, lifetime) = (location.to_string(), lease_lifetime.as_millis());
        let lake = format!("[lake]\nlocation = {location:?}\nlease_lifetime = \"{lifetime}ms\"\n");
        match connection.as_ref().and_then(|connection| connection.endpoint.as_ref()) {
            Some(endpoint) => format!(
                "{lake}connection = \"test\"\n[connections.test]\ntype = \"s3\"\nendpoint = \"{endpoint}\"\n\
                 region = \"us-east-1\"\nallow_http = true\naccess_key_id = {{ env = \"TEST_KEY\" }}\n\
                 secret_access_key = {{ env = \"TEST_KEY\" }}\n"
            ),
            None => lake,
        }
    }

    /// The temporary folder, for tests that put other files beside a local lake.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// A local table's folder.
    pub(crate) fn table_folder(&self, name: &TableName) -> PathBuf {
        self.folder().join("the lake").join(name.schema()).join(name.table())
    }
}

fn settings(location: Location, connection: Option<S3Connection>) -> LakeSettings {
    LakeSettings { location, connection, target_file_size: 1 << 20, lease_lifetime: Duration::from_secs(60) }
}
