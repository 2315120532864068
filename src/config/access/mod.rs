//! Who is let in and who may see what: `[access]` of `lakegate.toml`, the users file and the grants file.

mod expression;
mod grants;
mod known;
mod settings;
mod users;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::problem::{Problem, Problems};
use crate::config::reader::{self, SourceFile};
use crate::config::{TableDefinition, folder};
use crate::model::TableName;

pub(crate) use expression::read_calls;
pub use grants::{GrantLine, GrantList, MaskLine, RoleDefinition, RowFilterLine};
pub use settings::{AccessSettings, CertificateName, KeySetPlace, OidcSettings, TlsSettings};
pub use users::{InvalidName, User, UserList, UserToken, check_foreign_name, check_user_name};
pub use values::{Grantee, Scope};

pub(super) use grants::LowGrants;
pub(super) use known::roles as known_roles;
pub(super) use settings::{LowAccess, LowTls, access_settings, tls_settings};
pub(super) use users::LowUsers;

/// A line of a file, for saying why something is as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The file, relative to the configuration's folder where it is below it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What the files of `[access]` hold.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    /// The users; nothing where there is no users file.
    pub users: Option<UserList>,
    /// The grants; nothing where there is no grants file.
    pub grants: Option<GrantList>,
}

impl AccessSettings {
    /// Reads the users file and the grants file again, as they are now, with what is odd about them.
    ///
    /// # Errors
    /// All problems of both files.
    pub fn read_files(
        &self,
        folder: &Path,
        tables: &BTreeMap<TableName, TableDefinition>,
    ) -> Result<(AccessFiles, Vec<Problem>), Problems> {
        let mut problems = Vec::new();
        let files = read_files(self, folder, tables, &mut problems);
        match (files, Problems::of(&problems)) {
            (_, Some(problems)) => Err(problems),
            (files, None) => Ok((files.unwrap_or_default(), problems)),
        }
    }

    /// The users file alone, as it is now, for when the grants file cannot be used; nothing where it is gone or wrong itself,
    /// of which [`Self::read_files`] tells.
    pub fn read_users(&self, folder: &Path) -> Option<UserList> {
        let mut problems = Vec::new();
        let file = folder::read_text(&self.users_file, folder, &mut problems)?;
        users::read(&file, &mut problems).filter(|_| Problems::of(&problems).is_none())
    }
}

/// Reads both files; nothing where one of them could not be read, of which a problem then tells.
pub(super) fn read_files(
    settings: &AccessSettings,
    folder: &Path,
    tables: &BTreeMap<TableName, TableDefinition>,
    problems: &mut Vec<Problem>,
) -> Option<AccessFiles> {
    let users = optional_file(&settings.users_file, settings.users_named, folder, problems)
        .and_then(|file| contents(file, problems, users::read));
    if let Some(Some(_)) = &users {
        warn_if_readable(&settings.users_file, folder, problems);
    }
    let grants = optional_file(&settings.grants_file, settings.grants_named, folder, problems)
        .and_then(|file| contents(file, problems, grants::read));
    let (users, (grants, names)) = (users?, grants?.unzip());
    let files = AccessFiles { users, grants };
    known::check(settings, &files, &names.unwrap_or_default(), tables, problems);
    Some(files)
}

/// Reads a users file alone.
///
/// # Errors
/// All problems of it.
pub fn read_users(path: &Path, folder: &Path) -> Result<UserList, Problems> {
    let mut problems = Vec::new();
    let list = match optional_file(path, false, folder, &mut problems) {
        Some(Some(file)) => users::read(&file, &mut problems),
        Some(None) => Some(UserList::default()),
        None => None,
    };
    match (list, Problems::of(&problems)) {
        (Some(list), None) => Ok(list),
        (_, Some(problems)) => Err(problems),
        (None, None) => Err(Problems::only(Problem::of_file(folder::shown(path, folder), "the file cannot be used"))),
    }
}

/// A file that need not be there unless it was named. `None` after a problem was noted.
fn optional_file(
    path: &Path,
    named: bool,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Option<Arc<SourceFile>>> {
    if !named && !path.exists() {
        return Some(None);
    }
    folder::read_text(path, folder, problems).map(Some)
}

/// What stands in a file that may be missing; `None` where it is there and wrong.
fn contents<T>(
    file: Option<Arc<SourceFile>>,
    problems: &mut Vec<Problem>,
    read: fn(&Arc<SourceFile>, &mut Vec<Problem>) -> Option<T>,
) -> Option<Option<T>> {
    match file {
        None => Some(None),
        Some(file) => read(&file, problems).map(Some),
    }
}

/// Reads the low form of a file.
fn low<T: reader::Low>(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<T> {
    reader::read_file::<T>(file, problems).map(|at| at.value)
}

/// Hashes of passwords are there to be guessed at by whoever has them.
#[cfg(unix)]
fn warn_if_readable(path: &Path, folder: &Path, problems: &mut Vec<Problem>) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o007 != 0 {
        let message = "everybody on this machine can read the hashes of passwords";
        let problem = Problem::of_file(folder::shown(path, folder), message);
        problems.push(problem.expected(format!("what `chmod 600 {}` makes it", path.display())).warning());
    }
}

#[cfg(not(unix))]
fn warn_if_readable(_path: &Path, _folder: &Path, _problems: &mut Vec<Problem>) {}
