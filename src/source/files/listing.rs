//! What files there are: a walk over a local folder or a listing of a bucket, held against a glob.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use globset::{GlobBuilder, GlobMatcher};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::config::FileSource;
use crate::error::{Classify, ErrorKind};
use crate::model::{CarriedFile, Location};
use crate::runtime::store;
use crate::source::SourceError;

/// A file as a listing shows it.
#[derive(Clone, Debug)]
pub(super) struct ListedFile {
    /// Absolute path, or `s3://bucket/key`.
    pub(super) path: String,
    pub(super) place: Place,
    /// Bytes as stored.
    pub(super) size: u64,
    pub(super) modified: DateTime<Utc>,
    /// The store's tag; locally the inode, so that a file put in another's place is noticed whatever its date.
    pub(super) e_tag: Option<String>,
    /// Which block of the definition names the file.
    pub(super) block: usize,
}

/// Where a file's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Local(PathBuf),
    Object(Arc<dyn ObjectStore>, object_store::path::Path),
}

/// The files a block names that are there, in no order.
///
/// # Errors
/// When the folder is missing, or a single named file is that was never loaded; when the place cannot be reached.
pub(super) async fn list(
    source: &FileSource,
    block: usize,
    known: &Arc<HashMap<String, CarriedFile>>,
) -> Result<Vec<ListedFile>, SourceError> {
    let pattern = Pattern::new(&source.files)?;
    match &source.files {
        Location::Local(_) => {
            let known = Arc::clone(known);
            tokio::task::spawn_blocking(move || list_local(&pattern, block, &known))
                .await
                .map_err(|error| SourceError::because(ErrorKind::Internal, "the listing stopped", error))?
        }
        Location::S3 { bucket, .. } => {
            let store = store::open(&source.files, source.connection.as_ref())
                .map_err(|error| SourceError::because(error.kind(), "cannot list the files", error))?;
            list_bucket(&store, bucket, &pattern, block, known).await
        }
    }
}

/// A glob split into the folder that is listed and what its files must match.
struct Pattern {
    /// The glob as a whole, for messages.
    text: String,
    /// The fixed part: a folder without trailing slash, or the whole path where nothing is a wildcard.
    base: String,
    /// What the path below the folder must match; none where there is no wildcard.
    below: Option<GlobMatcher>,
    /// Whether files may lie in folders below the base.
    deep: bool,
    /// The glob's last part: what it names literally is taken even if it looks hidden or unfinished.
    last: String,
}

const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

impl Pattern {
    fn new(location: &Location) -> Result<Self, SourceError> {
        let text = match location {
            Location::Local(path) => path.to_string_lossy().into_owned(),
            Location::S3 { key, .. } => key.clone(),
        };
        let last = text.rsplit('/').next().unwrap_or_default().to_owned();
        let Some(first) = text.find(WILDCARDS) else {
            return Ok(Self { base: text.clone(), below: None, deep: false, last, text });
        };
        let split = text[..first].rfind('/').map_or(0, |slash| slash + 1);
        let rest = &text[split..];
        let glob = GlobBuilder::new(rest).literal_separator(true).build().map_err(|error| {
            SourceError::because(ErrorKind::InvalidInput, format!("`{location}` is not a glob; correct `files`"), error)
        })?;
        let base = text[..split].trim_end_matches('/').to_owned();
        let deep = rest.contains('/') || rest.contains("**");
        Ok(Self { base, below: Some(glob.compile_matcher()), deep, last, text })
    }

    /// Whether a path below the base is one of ours; `relative` has `/` between its parts.
    fn takes(&self, relative: &str) -> bool {
        let Some(glob) = &self.below else { return true };
        let (folders, name) = relative.rsplit_once('/').unwrap_or(("", relative));
        let is_hidden = self.passes_over(name) || folders.split('/').any(|folder| self.is_hidden_folder(folder));
        !is_hidden && glob.is_match(relative)
    }

    /// Hidden (`.x`, `_x`) and unfinished (`*.tmp`, `*.part`) files, unless the glob names that part literally.
    fn passes_over(&self, name: &str) -> bool {
        let hidden = name.starts_with('.') && !self.last.starts_with('.');
        let private = name.starts_with('_') && !self.last.starts_with('_');
        let unfinished = |ending: &str| name.ends_with(ending) && !self.last.ends_with(ending);
        hidden || private || unfinished(".tmp") || unfinished(".part")
    }

    fn is_hidden_folder(&self, folder: &str) -> bool {
        folder.starts_with(['.', '_']) && !self.text.split('/').any(|part| part == folder)
    }
}

fn list_local(
    pattern: &Pattern,
    block: usize,
    known: &HashMap<String, CarriedFile>,
) -> Result<Vec<ListedFile>, SourceError> {
    let base = Path::new(if pattern.base.is_empty() { "/" } else { &pattern.base });
    if pattern.below.is_none() {
        return match fs::metadata(base) {
            Ok(found) if found.is_dir() => Err(folder_instead_of_files(&pattern.text)),
            Ok(found) => Ok(vec![local_file(pattern.base.clone(), base.to_owned(), &found, block)]),
            Err(error) if error.kind() == io::ErrorKind::NotFound && known.contains_key(&pattern.base) => Ok(vec![]),
            Err(error) => Err(cannot_list(&pattern.base, error)),
        };
    }
    let mut files = Vec::new();
    let mut folders = vec![(base.to_owned(), String::new())];
    while let Some((folder, relative)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A folder below the base that goes away while we walk takes its files along.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !relative.is_empty() => continue,
            Err(error) => return Err(cannot_list(&folder.to_string_lossy(), error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| cannot_list(&folder.to_string_lossy(), error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                tracing::warn!(path = %entry.path().display(), "a file whose name is not UTF-8 is passed over");
                continue;
            };
            let relative = if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
            let kind = entry.file_type().map_err(|error| cannot_list(&relative, error))?;
            let is_link = kind.is_symlink();
            if kind.is_dir() {
                if pattern.deep {
                    folders.push((entry.path(), relative));
                }
                continue;
            }
            if !pattern.takes(&relative) {
                continue;
            }
            let found = if is_link { fs::metadata(entry.path()) } else { entry.metadata() };
            match found {
                Ok(found) if found.is_file() => {
                    let path = entry.path();
                    files.push(local_file(path.to_string_lossy().into_owned(), path, &found, block));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_list(&entry.path().to_string_lossy(), error)),
            }
        }
    }
    Ok(files)
}

fn local_file(path: String, place: PathBuf, found: &Metadata, block: usize) -> ListedFile {
    let (size, modified, e_tag) = look_of(found);
    ListedFile { path, place: Place::Local(place), size, modified, e_tag, block }
}

/// Size, time and tag of a local file: what must stay the same while it is read.
pub(super) fn look_of(found: &Metadata) -> (u64, DateTime<Utc>, Option<String>) {
    let modified = found.modified().map_or(DateTime::UNIX_EPOCH, DateTime::from);
    #[cfg(unix)]
    let tag = Some(format!("{:x}", std::os::unix::fs::MetadataExt::ino(found)));
    #[cfg(not(unix))]
    let tag = None;
    (found.len(), modified, tag)
}

async fn list_bucket(
    store: &Arc<dyn ObjectStore>,
    bucket: &str,
    pattern: &Pattern,
    block: usize,
    known: &HashMap<String, CarriedFile>,
) -> Result<Vec<ListedFile>, SourceError> {
    let address = |key: &str| format!("s3://{bucket}/{key}");
    let named = |error: object_store::Error| {
        SourceError::because(store::kind_of(&error), format!("cannot list {}", address(&pattern.base)), error)
    };
    let listed = |meta: ObjectMeta| ListedFile {
        path: address(meta.location.as_ref()),
        place: Place::Object(Arc::clone(store), meta.location),
        size: meta.size,
        modified: meta.last_modified,
        e_tag: meta.e_tag,
        block,
    };
    let base = object_store::path::Path::from(pattern.base.as_str());
    if pattern.below.is_none() {
        return match store.head(&base).await {
            Ok(meta) => Ok(vec![listed(meta)]),
            Err(object_store::Error::NotFound { .. }) if known.contains_key(&address(&pattern.base)) => Ok(vec![]),
            Err(error @ object_store::Error::NotFound { .. }) => Err(missing(&address(&pattern.base), error)),
            Err(error) => Err(named(error)),
        };
    }
    let mut objects = store.list((!pattern.base.is_empty()).then_some(&base));
    let (mut files, mut seen) = (Vec::new(), false);
    loop {
        let meta = match objects.try_next().await {
            Ok(Some(meta)) => meta,
            Ok(None) => break,
            // The library does not say why a listing failed. Asking for one object tells whether the bucket is
            // missing or closed to us.
            Err(error) => match store.head(&base.clone().join("lakegate-probe")).await {
                Err(object_store::Error::NotFound { .. }) => return Err(missing(&address(&pattern.base), error)),
                Err(why) if store::kind_of(&why) != ErrorKind::Unavailable => return Err(named(why)),
                _ => return Err(named(error)),
            },
        };
        seen = true;
        let key = meta.location.as_ref();
        let relative = key.strip_prefix(pattern.base.as_str()).unwrap_or(key).trim_start_matches('/');
        if pattern.takes(relative) {
            files.push(listed(meta));
        }
    }
    let prefix = address(&pattern.base);
    if !seen && !known.keys().any(|path| path.starts_with(&prefix)) {
        return Err(SourceError::new(
            ErrorKind::NotFound,
            format!("nothing is stored under {prefix}; put files there or correct `files` in the table definition"),
        ));
    }
    Ok(files)
}

fn cannot_list(path: &str, error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(path, error),
        io::ErrorKind::PermissionDenied => SourceError::because(
            ErrorKind::PermissionDenied,
            format!("{path} may not be read; give the user lakegate runs as the right to"),
            error,
        ),
        _ => SourceError::because(ErrorKind::Unavailable, format!("cannot list {path}"), error),
    }
}

fn missing(path: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    SourceError::because(
        ErrorKind::NotFound,
        format!("{path} does not exist; create it or correct `files` in the table definition"),
        cause,
    )
}

fn folder_instead_of_files(path: &str) -> SourceError {
    SourceError::new(
        ErrorKind::InvalidInput,
        format!("`{path}` is a folder; say which of its files are meant, for instance `{path}/*.csv`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(&Location::Local(text.into())).unwrap()
    }

    #[test]
    fn a_star_stays_in_its_folder_and_two_do_not() {
        let flat = pattern("/data/in/*.csv");
        assert_eq!((flat.base.as_str(), flat.deep), ("/data/in", false));
        assert!(flat.takes("a.csv") && !flat.takes("b/a.csv") && !flat.takes("a.csv.gz"));
        let deep = pattern("/data/in/**/*.csv");
        assert!(deep.deep && deep.takes("a.csv") && deep.takes("x/y/a.csv"));
        let dated = pattern("/data/20[12]?/{a,b}*.csv");
        assert_eq!(dated.base, "/data");
        assert!(dated.takes("2013/a1.csv") && dated.takes("2024/b.csv") && !dated.takes("2034/b.csv"));
    }

    #[test]
    fn hidden_and_unfinished_files_must_be_named() {
        let all = pattern("/data/**/*");
        for name in [".x", "_x", "a.tmp", "a.csv.part", "_delta_log/0.json", ".git/x"] {
            assert!(!all.takes(name), "{name}");
        }
        assert!(pattern("/data/_*").takes("_x"));
        assert!(pattern("/data/*.part").takes("a.part"));
        assert!(pattern("/data/_done.csv").takes("_done.csv"));
        assert!(pattern("/data/**/_log/*.csv").takes("x/_log/a.csv"));
    }
}
