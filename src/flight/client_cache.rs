//! Results kept on the local disk of a client, so that what has not changed is not sent again.
//!
//! A server names each result by its identity: the same question to the same versions of the tables with the same rights. It is
//! asked for it each time, and decides each time whether the one who asks may have the rows; only the rows themselves are then
//! taken from here. The Python client keeps its results in the same folder and in the same way (`python-client/src/lakegate/_cache.py`):
//! `FOLDER/OWNER/IDENTITY-LENGTH-CHECKSUM.arrow`, an Arrow IPC file with plain types; OWNER stands for the server's address and the
//! person. Of a result that grew with its table `IDENTITY+BEFORE-LENGTH-CHECKSUM.arrow` has the new rows alone: the others are those
//! of the result BEFORE. `OWNER/QUESTION.known` says which result was the last answer to a question. A name appears when the file is
//! complete, and the file never changes after that, so several processes may share a folder without locks.

mod names;
mod rows;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustix::fs::statvfs;
use rustix::process::getuid;
use serde::{Deserialize, Serialize};

use crate::flight::announcement::{is_basis, is_identity};
use crate::flight::client::ClientOptions;

use names::Stored;
use rows::{OpenRows, Part};

pub(crate) use names::question;
pub(crate) use rows::{KeptRows, RowsWriter};

/// Bytes a cache takes at most where nothing else is said, and the share of the free disk, of which the smaller counts.
const DEFAULT_SIZE: u64 = 10 << 30;
const DEFAULT_SHARE: f64 = 0.1;
/// Files one result may lie in; what grew more often is fetched whole again.
const MOST_FILES: usize = 256;
/// Questions whose last answer is remembered, some kilobytes each.
const MOST_KNOWN: usize = 1000;

/// Results of one server and person on the local disk. The size is a bound for all that is in the folder, those of other servers
/// and persons too; what was not used for longest goes first.
#[derive(Clone, Debug)]
pub struct ClientCache {
    root: PathBuf,
    own: PathBuf,
    size: Option<u64>,
}

/// A result on the local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// Stands for the server and the person.
    pub owner: String,
    /// The server's name for the result.
    pub identity: String,
    /// What it takes on the disk, without rows of an earlier result that it shares.
    pub bytes: u64,
    /// When it was read or written last.
    pub used_at: SystemTime,
}

/// What is known of the last answer to a question, whose rows are here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// The server's name for the result.
    pub(crate) identity: String,
    /// What to show the server, to be sent new rows alone; none where it gave nothing.
    pub(crate) basis: Option<String>,
    /// Columns as they travel, as the message that describes them.
    pub(crate) wire_schema: Bytes,
    /// When the server said last that it is the answer, in seconds since 1970.
    pub(crate) checked_at: f64,
}

impl Known {
    /// Whether it was checked so lately; a clock that was set back is no proof of it.
    pub(crate) fn is_fresh(&self, max_staleness: Duration) -> bool {
        (0.0..=max_staleness.as_secs_f64()).contains(&(now() - self.checked_at))
    }
}

/// [`Known`] as it stands in its file.
#[derive(Serialize, Deserialize)]
struct Note {
    identity: String,
    basis: Option<String>,
    schema: String,
    checked_at: f64,
}

impl Note {
    fn read(text: &[u8]) -> Option<Known> {
        let Self { identity, basis, schema, checked_at } = serde_json::from_slice(text).ok()?;
        let wire_schema = STANDARD.decode(schema).ok()?.into();
        let basis = basis.filter(|basis| is_basis(basis));
        is_identity(&identity).then_some(Known { identity, basis, wire_schema, checked_at })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl ClientCache {
    /// The results in a folder that are from this server, and for whoever these options say. The folder is made when the first
    /// result is kept. Without a size it may take the smaller of 10 GiB and a tenth of what is free on the disk.
    pub fn new(folder: &Path, server: &str, options: &ClientOptions, size: Option<u64>) -> Self {
        Self { root: folder.to_owned(), own: folder.join(names::owner(server, options)), size }
    }

    /// The last answer to a question, if its rows still seem to be here.
    pub(crate) fn known(&self, question: &str) -> Option<Known> {
        let text = match fs::read(self.own.join(format!("{question}.known"))) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("what was remembered of an answer cannot be read: {error}");
                return None;
            }
        };
        let Some(known) = Note::read(&text) else {
            tracing::warn!("what was remembered of an answer cannot be understood, and counts no more");
            return None;
        };
        self.has(&known.identity).then_some(known)
    }

    /// Takes down what the last answer to a question is; without effect where that cannot be.
    pub(crate) fn remember(&self, question: &str, answer: &Known) {
        if let Err(error) = self.try_remember(question, answer) {
            tracing::warn!("what the answer was is not remembered: {error}");
        }
    }

    fn try_remember(&self, question: &str, answer: &Known) -> io::Result<()> {
        let note = Note {
            identity: answer.identity.clone(),
            basis: answer.basis.clone(),
            schema: STANDARD.encode(&answer.wire_schema),
            checked_at: answer.checked_at,
        };
        let part = Part::new(&self.own);
        part.create()?.write_all(&serde_json::to_vec(&note)?)?;
        part.rename(&self.own.join(format!("{question}.known")))?;
        let written_at = |path: &PathBuf| fs::metadata(path).and_then(|told| told.modified()).unwrap_or(UNIX_EPOCH);
        let mut known = names::known(&self.own);
        known.sort_by_cached_key(|path| std::cmp::Reverse(written_at(path)));
        known.iter().skip(MOST_KNOWN).for_each(|path| remove(path));
        Ok(())
    }

    /// Whether all files of a result are there, without a look into them.
    fn has(&self, identity: &str) -> bool {
        self.chain(Some(identity)).is_ok()
    }

    /// The files of a result, the newest rows first; none for no result.
    fn chain(&self, identity: Option<&str>) -> io::Result<Vec<Stored>> {
        let mut files: Vec<Stored> = Vec::new();
        let mut wanted = identity.map(str::to_owned);
        while let Some(identity) = wanted {
            let newest = names::stored_of(&self.own, &identity).into_iter().next();
            let Some(file) = newest.filter(|_| files.len() < MOST_FILES) else {
                let message = format!("rows of the result {identity} have just gone");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            };
            wanted = file.before.clone();
            files.push(file);
        }
        Ok(files)
    }

    /// The rows of an identity, if they look like `schema`, after a look at each byte; what is damaged is removed.
    pub(crate) async fn find(&self, identity: &str, schema: &Schema) -> Option<KeptRows> {
        // From the newest rows to the oldest, so that those go last on which others hang.
        let mut found: Vec<(PathBuf, OpenRows)> = Vec::new();
        let mut wanted = Some(identity.to_owned());
        while let Some(identity) = wanted {
            let sound = if found.len() < MOST_FILES { self.sound(&identity, schema).await } else { None };
            let Some((file, rows)) = sound else {
                // Nothing without the rows before.
                found.iter().for_each(|(path, _)| remove(path));
                return None;
            };
            wanted = file.before;
            found.push((file.path, rows));
        }
        Some(KeptRows::new(found.into_iter().rev().map(|(_, rows)| rows)))
    }

    /// The file with a result's own rows, open, after a look at each byte.
    async fn sound(&self, identity: &str, schema: &Schema) -> Option<(Stored, OpenRows)> {
        for file in names::stored_of(&self.own, identity) {
            match look(&file, schema).await {
                Ok(Some(rows)) => return Some((file, rows)),
                Ok(None) => tracing::warn!("a result in the cache is damaged and is fetched again"),
                // Another process made room.
                Err(ArrowError::IoError(_, error)) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => tracing::warn!("a result in the cache cannot be read and is fetched again: {error}"),
            }
            remove(&file.path);
        }
        None
    }

    /// Begins to keep a result; none where that cannot be.
    pub(crate) fn writer(&self, schema: &Schema) -> Option<RowsWriter> {
        let begun = self.prepare().map_err(ArrowError::from).and_then(|()| {
            names::sweep(&self.own);
            RowsWriter::begin(&self.own, schema, self.bound()?)
        });
        begun.inspect_err(|error| tracing::warn!("results are not kept in {}: {error}", self.root.display())).ok()
    }

    /// Makes the folder that only its owner can enter; one of somebody else is an error.
    fn prepare(&self) -> io::Result<()> {
        // A folder of the user's own may be meant for others too; what is kept in it is not.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.own)?;
        let told = fs::metadata(&self.own)?;
        if told.uid() != getuid().as_raw() {
            let message = format!("{} belongs to somebody else", self.own.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        if told.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.own, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Keeps what a writer of this cache wrote, as all rows of a result or as those that come after the result `before`, which has
    /// to be here; says whether it did. It does not where it is larger than the cache may be, or that fails.
    pub(crate) fn adopt(&self, writer: RowsWriter, identity: &str, before: Option<&str>) -> bool {
        self.try_adopt(writer, identity, before).unwrap_or_else(|error| {
            tracing::warn!("a result is not kept in {}: {error}", self.root.display());
            false
        })
    }

    fn try_adopt(&self, writer: RowsWriter, identity: &str, before: Option<&str>) -> Result<bool, ArrowError> {
        let (length, checksum, part) = writer.finish()?;
        let older = self.chain(before)?;
        if length + older.iter().map(|file| file.length).sum::<u64>() > self.bound()? {
            return Ok(false);
        }
        let path = self.own.join(Stored::name(identity, before, length, checksum));
        // Over one of the same name too, which has the same bytes unless it was damaged.
        part.rename(&path)?;
        // What is older: of two processes that write the same result at once one removes the other's, and not both.
        let same = names::stored_of(&self.own, identity);
        same.iter().skip_while(|file| file.path != path).skip(1).for_each(|file| remove(&file.path));
        let newest: Vec<_> = older.into_iter().map(|file| file.path).chain([path]).collect();
        self.make_room(&newest)?;
        Ok(true)
    }

    /// Bytes all that is in the folder may take.
    fn bound(&self) -> io::Result<u64> {
        if let Some(size) = self.size {
            return Ok(size);
        }
        let disk = statvfs(&self.root)?;
        let taken: u64 = everybodys(&self.root).iter().map(|file| file.length).sum();
        let there_is = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(taken);
        let share = there_is as f64 * DEFAULT_SHARE;
        Ok(DEFAULT_SIZE.min(share as u64))
    }

    /// Removes what was not used for longest, but never what was written just now.
    fn make_room(&self, newest: &[PathBuf]) -> io::Result<()> {
        let mut files = everybodys(&self.root);
        files.sort_by_key(|file| file.used_at);
        let mut taken: u64 = files.iter().map(|file| file.length).sum();
        let bound = self.bound()?;
        for file in files.iter().filter(|file| !newest.contains(&file.path)) {
            if taken <= bound {
                break;
            }
            remove(&file.path);
            taken -= file.length;
        }
        Ok(())
    }
}

/// All results in a folder, of each server and person, the one used last first.
pub fn cache_entries(folder: &Path) -> Vec<CacheEntry> {
    let mut files = everybodys(folder);
    files.sort_by_key(|file| std::cmp::Reverse(file.used_at));
    let owner = |file: &Stored| Some(file.path.parent()?.file_name()?.to_string_lossy().into_owned());
    let entry = |file: Stored| {
        let owner = owner(&file).unwrap_or_default();
        CacheEntry { owner, identity: file.identity, bytes: file.length, used_at: file.used_at }
    };
    files.into_iter().map(entry).collect()
}

/// Removes all results in a folder, of each server and person, and nothing else that may be there; who is reading one goes on
/// undisturbed.
///
/// # Errors
/// When one cannot be removed.
pub fn clear_cache(folder: &Path) -> io::Result<()> {
    for owner in names::owners(folder) {
        let files = names::stored(&owner).into_iter().map(|file| file.path);
        for path in files.chain(names::known(&owner)) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        names::sweep(&owner);
    }
    Ok(())
}

fn everybodys(root: &Path) -> Vec<Stored> {
    names::owners(root).iter().flat_map(|owner| names::stored(owner)).collect()
}

/// Opens a file with rows; none where it is not what its name or the schema say.
async fn look(stored: &Stored, schema: &Schema) -> Result<Option<OpenRows>, ArrowError> {
    let mut file = File::open(&stored.path)?;
    if file.metadata()?.len() != stored.length || rows::checksum(&mut file).await? != stored.checksum {
        return Ok(None);
    }
    file.set_times(FileTimes::new().set_accessed(SystemTime::now()))?;
    let rows = rows::open(file)?;
    let is_wanted = rows.schema().fields() == schema.fields();
    Ok(is_wanted.then_some(rows))
}

fn remove(path: &Path) {
    // It is gone already, or makes room another time.
    let _ = fs::remove_file(path);
}
