//! Object stores built from a location and a connection.

use std::path::{Component, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use secrecy::ExposeSecret;

use crate::config::S3Connection;
use crate::error::{Classify, ErrorKind};
use crate::model::Location;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {location}: {source}")]
pub struct StoreError {
    location: String,
    #[source]
    source: object_store::Error,
}

impl Classify for StoreError {
    fn kind(&self) -> ErrorKind {
        kind_of(&self.source)
    }
}

/// The store that holds a location, rooted at `/` locally and at the bucket otherwise.
///
/// # Errors
/// When the connection's settings do not make a client; nothing is reached for yet.
pub fn open(location: &Location, connection: Option<&S3Connection>) -> Result<Arc<dyn ObjectStore>, StoreError> {
    match location {
        Location::Local(_) => Ok(Arc::new(LocalFileSystem::new())),
        Location::S3 { bucket, .. } => {
            let store = s3_builder(bucket, connection)
                .build()
                .map_err(|source| StoreError { location: location.to_string(), source })?;
            Ok(Arc::new(store))
        }
    }
}

/// Where a location stands within the store [`open`] gives for it: `.` and `..` are taken out of local paths.
///
/// # Errors
/// When a local path is no text a store can hold.
pub fn root(location: &Location) -> Result<ObjectPath, StoreError> {
    let failed = |source: object_store::path::Error| StoreError {
        location: location.to_string(),
        source: object_store::Error::InvalidPath { source },
    };
    match location {
        Location::Local(path) => {
            let mut clean = PathBuf::from("/");
            for component in path.components() {
                match component {
                    Component::ParentDir => drop(clean.pop()),
                    Component::Normal(part) => clean.push(part),
                    Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                }
            }
            ObjectPath::from_absolute_path(clean).map_err(failed)
        }
        Location::S3 { key, .. } => ObjectPath::parse(key).map_err(failed),
    }
}

fn s3_builder(bucket: &str, connection: Option<&S3Connection>) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    let Some(connection) = connection else { return builder };
    if let Some(endpoint) = &connection.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(region) = &connection.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &connection.access_key_id {
        builder = builder.with_access_key_id(key.expose_secret());
    }
    if let Some(key) = &connection.secret_access_key {
        builder = builder.with_secret_access_key(key.expose_secret());
    }
    if connection.allow_http {
        builder = builder.with_config(AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp), "true");
    }
    builder
}

/// The kind of failure an object store's error is.
pub fn kind_of(error: &object_store::Error) -> ErrorKind {
    match error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        object_store::Error::Precondition { .. } => ErrorKind::Conflict,
        object_store::Error::PermissionDenied { .. } => ErrorKind::PermissionDenied,
        object_store::Error::Unauthenticated { .. } => ErrorKind::Unauthenticated,
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => ErrorKind::Unsupported,
        other => io_kind(other).unwrap_or(ErrorKind::Unavailable),
    }
}

/// The kind of the system's own error below, where there is one: a full disk, a read-only folder.
fn io_kind(error: &dyn std::error::Error) -> Option<ErrorKind> {
    use std::io::ErrorKind as Io;
    let mut cause = error.source();
    while let Some(next) = cause {
        if let Some(io) = next.downcast_ref::<std::io::Error>() {
            return Some(match io.kind() {
                Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::ResourceExhausted,
                Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
                Io::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            });
        }
        cause = next.source();
    }
    None
}
