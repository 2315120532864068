//! A local folder as an object store in which what was put stays put.
//!
//! `object_store`'s own local store never syncs, so a power cut could leave a log entry that names
//! data files of zero length (facts: object_store 0.13, `local.rs`). Here a put returns after the
//! bytes, the name and every folder above it are on the disk.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A local store, rooted at `/`, that syncs files, names and folders before it says done.
#[derive(Clone, Debug)]
pub(super) struct DurableLocalStore {
    inner: Arc<LocalFileSystem>,
    folders: Arc<SyncedFolders>,
}

/// The folders whose own name is known to be on the disk.
#[derive(Debug, Default)]
struct SyncedFolders(Mutex<HashSet<PathBuf>>);

impl DurableLocalStore {
    pub(super) fn new() -> Self {
        Self { inner: Arc::new(LocalFileSystem::new()), folders: Arc::default() }
    }

    fn file_path(&self, location: &Path) -> Result<PathBuf> {
        self.inner.path_to_filesystem(location)
    }
}

impl fmt::Display for DurableLocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocalStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for DurableLocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            // The library's own answer: a local folder has no conditional overwrite.
            PutMode::Update(_) => return self.inner.put_opts(location, payload, options).await,
        };
        let path = self.file_path(location)?;
        let folders = Arc::clone(&self.folders);
        blocking(move || put(&path, &payload, create, &folders).map_err(|cause| put_error(&path, cause))).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, options).await?;
        let path = self.file_path(location)?;
        Ok(Box::new(DurableUpload { inner, path, folders: Arc::clone(&self.folders) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        let path = self.file_path(to)?;
        let folders = Arc::clone(&self.folders);
        blocking(move || sync_file(&path, &folders).map_err(|cause| put_error(&path, cause))).await
    }
}

/// An upload in parts whose completion is durable.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
    folders: Arc<SyncedFolders>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        let folders = Arc::clone(&self.folders);
        blocking(move || sync_file(&path, &folders).map_err(|cause| put_error(&path, cause))).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Writes beside the final name, syncs, then gives the name in one step.
fn put(path: &FilePath, payload: &PutPayload, create: bool, folders: &SyncedFolders) -> io::Result<PutResult> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let staged = staged_path(path);
    let result = write_synced(&staged, payload)
        .and_then(|()| if create { name_if_free(&staged, path) } else { std::fs::rename(&staged, path) });
    if create || result.is_err() {
        // After a hard link the staged name is not needed; after a failure nothing of it is.
        let _ = std::fs::remove_file(&staged);
    }
    result?;
    folders.sync(folder)?;
    Ok(PutResult { e_tag: None, version: None })
}

/// A name that `object_store` hides from listings: the final one, `#` and digits.
fn staged_path(path: &FilePath) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!("#{}", rand::random::<u64>()));
    path.with_file_name(name)
}

/// Removes files under staged names, in `folder` and below, that were last written before `before`. Tells
/// whether younger ones are left.
pub(super) fn remove_staged(folder: &FilePath, before: SystemTime) -> io::Result<bool> {
    let mut young = false;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            young |= remove_staged(&entry.path(), before)?;
        } else if is_staged(&entry.file_name()) {
            match entry.metadata()?.modified()? < before {
                true => std::fs::remove_file(entry.path())?,
                false => young = true,
            }
        }
    }
    Ok(young)
}

/// Whether a name is one of [`staged_path`], or of `object_store`'s own uploads: any name, `#` and digits.
fn is_staged(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let Some((_, digits)) = name.rsplit_once('#') else { return false };
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn write_synced(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    for part in payload {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Gives `staged` its final name unless that is taken. Where the file system has no hard links, a rename
/// that refuses to replace does the same.
fn name_if_free(staged: &FilePath, path: &FilePath) -> io::Result<()> {
    match std::fs::hard_link(staged, path) {
        Err(cause) if is_without_links(&cause) => rename_if_free(staged, path),
        result => result,
    }
}

fn is_without_links(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_if_free(staged: &FilePath, path: &FilePath) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, staged, CWD, path, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_if_free(_staged: &FilePath, _path: &FilePath) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the file system has no hard links"))
}

fn sync_file(path: &FilePath, folders: &SyncedFolders) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    folders.sync(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

impl SyncedFolders {
    /// Syncs the names in `folder`, and once per process the names of the folders above it.
    fn sync(&self, folder: &FilePath) -> io::Result<()> {
        sync_folder(folder)?;
        let mut child = folder;
        while let Some(parent) = child.parent() {
            if self.lock().contains(child) {
                break;
            }
            match sync_folder(parent) {
                // A folder above the lake that may be passed but not read: its names are not ours to keep.
                Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => break,
                result => result?,
            }
            self.lock().insert(child.to_owned());
            child = parent;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some file systems cannot sync folders; they are not asked to.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(not(unix))]
fn sync_folder(_folder: &FilePath) -> io::Result<()> {
    Ok(())
}

fn put_error(path: &FilePath, cause: io::Error) -> Error {
    let path = path.display().to_string();
    match cause.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: cause.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: cause.into() },
        _ => Error::Generic { store: "DurableLocalStore", source: Box::new(cause) },
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn location(folder: &FilePath, name: &str) -> Path {
        Path::from_absolute_path(folder).unwrap().join("a").join(name)
    }

    #[tokio::test]
    async fn of_two_creations_of_one_name_the_first_stands() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocalStore::new();
        let name = location(folder.path(), "1.json");
        let create = PutOptions { mode: PutMode::Create, ..Default::default() };
        store.put_opts(&name, "first".into(), create.clone()).await.unwrap();
        let second = store.put_opts(&name, "second".into(), create).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&name, "third".into()).await.unwrap();
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "third");
        let left = std::fs::read_dir(folder.path().join("a")).unwrap().count();
        assert_eq!(left, 1, "staged files are gone");
    }

    #[tokio::test]
    async fn an_upload_in_parts_arrives_whole_and_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableLocalStore::new();
        let name = location(folder.path(), "data.bin");
        let mut upload = store.put_multipart_opts(&name, PutMultipartOptions::default()).await.unwrap();
        upload.put_part("ab".into()).await.unwrap();
        upload.put_part("cd".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), "abcd");
        let prefix = Path::from_absolute_path(folder.path()).unwrap();
        let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_refuses_writes_says_permission_denied() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a file where a folder should be").unwrap();
        let store = DurableLocalStore::new();
        let error = store.put(&location(folder.path(), "1.json"), "x".into()).await.unwrap_err();
        assert!(matches!(error, Error::Generic { .. } | Error::AlreadyExists { .. }), "{error:?}");
    }

    #[test]
    fn what_a_cut_off_put_left_is_removed_once_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("_delta_log");
        std::fs::create_dir(&below).unwrap();
        let names = [folder.path().join("part-1.parquet#1"), below.join("0.json#123"), below.join("0.json")];
        names.iter().for_each(|name| std::fs::write(name, "x").unwrap());
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3600);
        assert!(remove_staged(folder.path(), now - hour).unwrap(), "young ones are left");
        assert!(!remove_staged(folder.path(), now + hour).unwrap());
        assert_eq!(names.map(|name| name.exists()), [false, false, true]);
    }

    #[test]
    fn a_rename_that_may_not_replace_does_not_replace() {
        let folder = tempfile::tempdir().unwrap();
        let (staged, name) = (folder.path().join("s"), folder.path().join("n"));
        std::fs::write(&staged, "new").unwrap();
        rename_if_free(&staged, &name).unwrap();
        std::fs::write(&staged, "newer").unwrap();
        assert_eq!(rename_if_free(&staged, &name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&name).unwrap(), "new");
    }
}
