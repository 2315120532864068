//! Changing the users file: one writer at a time, and whoever reads it finds the old text or the new one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::access::AccessError;
use crate::config::{self, UserList};

/// Changes the users in a file, which is made where there is none, with mode 0600.
///
/// # Errors
/// When the file cannot be read, written or understood, and whatever `change` refuses; then it stays as it was.
pub fn change_users<T>(
    path: &Path,
    folder: &Path,
    change: impl FnOnce(&mut UserList) -> Result<T, AccessError>,
) -> Result<T, AccessError> {
    // A link stays one: what it leads to is changed.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = lock(&path)?;
    let mut list = config::read_users(&path, folder)?;
    let changed = change(&mut list)?;
    write(&path, &list.to_toml()).map_err(|source| AccessError::File { what: "write", path, source })?;
    Ok(changed)
}

/// Held as long as the file is open. A file of its own: the users file is another one after each change.
fn lock(path: &Path) -> Result<File, AccessError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let lock = path.with_file_name(format!(".{name}.lock"));
    let failed = |source| AccessError::File { what: "lock", path: lock.clone(), source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&lock).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(text.as_bytes())?;
    keep_owner(path, file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// An administrator may change the file of a server that runs as another user, which has to be able to read it still.
#[cfg(unix)]
fn keep_owner(path: &Path, file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let Ok(before) = std::fs::metadata(path) else { return Ok(()) };
    let now = file.metadata()?;
    if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        fchown(file, Some(before.uid()), Some(before.gid()))?;
    }
    // A group that could read it still can; everybody else never.
    file.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o640 | 0o600))
}

#[cfg(not(unix))]
fn keep_owner(_path: &Path, _file: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::User;

    fn user() -> User {
        User { password: None, roles: BTreeSet::new(), tokens: vec![], spot: None }
    }

    fn add(path: &Path, folder: &Path, name: &str) -> Result<(), AccessError> {
        change_users(path, folder, |list| {
            list.users.insert(name.to_owned(), user());
            Ok(())
        })
    }

    #[test]
    fn many_writers_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, folder) = (&path, folder.path());
                scope.spawn(move || {
                    for number in 0..5 {
                        add(path, folder, &format!("u{writer}-{number}")).unwrap();
                    }
                });
            }
        });
        assert_eq!(config::read_users(&path, folder.path()).unwrap().users.len(), 20);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_refused_changes_nothing_and_a_broken_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        add(&path, folder.path(), "ann").unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        let refused = change_users::<()>(&path, folder.path(), |list| {
            list.users.clear();
            Err(AccessError::NoUser("x".to_owned()))
        });
        assert!(refused.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        std::fs::write(&path, "= broken").unwrap();
        assert!(add(&path, folder.path(), "bob").is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "= broken");
    }

    #[test]
    fn everybody_else_loses_the_right_to_read_and_a_group_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        add(&path, folder.path(), "ann").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        add(&path, folder.path(), "bob").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
