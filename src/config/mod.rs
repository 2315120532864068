//! What the user wrote, checked and turned into what the program runs on.
//!
//! Two steps: the *low* form is the text with its places; the *high* form ([`Settings`], [`TableDefinition`])
//! is validated, has every default filled in, and cannot be wrong. All problems of all files are gathered in
//! one go. This is the only room that reads environment variables.

pub mod access;
pub mod client;
mod folder;
mod foreign_keys;
mod groups;
mod lakegate_file;
mod line;
mod low;
mod machine;
pub mod problem;
mod reader;
pub mod schema;
mod secret;
mod serving;
pub mod settings;
mod sqlserver;
pub mod state;
pub mod table;
mod table_file;
pub mod units;
mod values;
mod writable;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use access::read_calls;
pub use access::{
    AccessFiles, AccessSettings, CertificateName, GrantLine, GrantList, Grantee, InvalidName, KeySetPlace, MaskLine,
    OidcSettings, RoleDefinition, RowFilterLine, Scope, Spot, TlsSettings, User, UserList, UserToken,
    check_foreign_name, check_user_name, read_users,
};
pub use client::{ClientEnvironment, client_cache_folder, client_environment};
pub use problem::{Problem, Problems, Severity};
pub use schema::{Format, json_schema};
pub use settings::{
    CodecDefault, Connection, DailyHours, Encrypt, HistorySettings, Isolation, LakeSettings, Limits, LineSettings,
    LogFormat, LogSettings, ResultSettings, S3Connection, ServeSettings, ServingLimits, Settings, SpoolSettings,
    SqlServerConnection, SqlServerLogin, TextsKept, TicketSettings, Trust,
};
pub use sqlserver::source_table_name;
pub use state::state_folder;
pub use table::{
    ColumnChoices, ColumnDefinition, CsvOptions, FileFormat, FileSource, ForeignKey, LoadSettings, Method, Oversize,
    Schedule, SqlServerSource, SubMicroseconds, TableDefinition, TableSource, Times, Timestamps, Variants,
};

pub(crate) use table_file::REFUSED_IN_NAMES;
pub use writable::RESULTS_SCHEMA;

use lakegate_file::{Connections, Surroundings};
use low::{LowLakegate, LowTable};
use reader::{At, Field, Place, SourceFile};

use crate::model::TableName;

/// Reads the configuration in a folder: `lakegate.toml`, which may be missing, or `config_file`, which may not,
/// and every `tables/<schema>/<table>.toml`. Relative paths in them are below the folder.
/// Warnings stand in [`Settings::warnings`], for the program to log once it can.
///
/// # Errors
/// All problems of all files.
pub fn load(folder: &Path, config_file: Option<&Path>) -> Result<Settings, Problems> {
    let report = check(folder, config_file);
    match (report.settings, Problems::of(&report.problems)) {
        (Some(settings), None) => Ok(settings),
        (_, Some(problems)) => Err(problems),
        (None, None) => {
            let message = "the configuration cannot be used, and no reason was noted: this is a mistake in lakegate";
            Err(Problems::only(Problem::of_file(folder, message)))
        }
    }
}

/// What [`check`] found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The settings, where there is no error.
    pub settings: Option<Settings>,
    /// Errors and warnings, sorted by file and line.
    pub problems: Vec<Problem>,
    /// How many table definitions were looked at.
    pub tables: usize,
}

/// Reads the configuration as [`load`] does and tells everything that is wrong or odd with it.
pub fn check(folder: &Path, config_file: Option<&Path>) -> Report {
    check_with(folder, config_file, &|name| std::env::var(name).ok())
}

fn check_with(folder: &Path, config_file: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Report {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut around = Surroundings { folder: &folder, environment, problems: Vec::new() };
    let low = low_lakegate(config_file, &mut around);
    let (mut settings, connections) = match &low {
        Some(low) => lakegate_file::settings(&low.value, &mut around),
        None => (None, None),
    };
    let files = folder::table_files(&folder, &mut around.problems);
    let count = files.len();
    let (mut tables, mut groups) = (BTreeMap::new(), HashMap::new());
    for (name, path) in files {
        if let Some((definition, group)) = table_definition(name.clone(), path, &connections, &mut around) {
            groups.extend(group.map(|group| (name.clone(), group)));
            tables.insert(name, definition);
        }
    }
    let mut problems = around.problems;
    groups::check(&tables, &groups, &mut problems);
    foreign_keys::check(&mut tables, &mut problems);
    if let (Some(settings), Some(low)) = (&mut settings, &low) {
        let files = access::read_files(&settings.access, &folder, &tables, &mut problems);
        settings.access.files = files.unwrap_or_default();
        lakegate_file::warn_if_exposed(&low.value, settings, &mut problems);
        let lines = low.value.line.value().map(Vec::as_slice).unwrap_or_default();
        line::warn_of_unknown_roles(lines, settings, &mut problems);
    }
    problems.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
    problems.dedup();
    if Problems::of(&problems).is_some() {
        settings = None;
    }
    let settings = settings.map(|settings| Settings { tables, warnings: problems.clone(), ..settings });
    Report { settings, problems, tables: count }
}

/// Where the users file is or would be, without a look at anything but `[access]`: users can be taken away while
/// something else is wrong with the configuration.
///
/// # Errors
/// When `lakegate.toml` is no TOML, or what it says about the file is wrong.
pub fn users_file(folder: &Path, config_file: Option<&Path>) -> Result<PathBuf, Problems> {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let environment = |name: &str| std::env::var(name).ok();
    let mut around = Surroundings { folder: &folder, environment: &environment, problems: Vec::new() };
    let low = low_lakegate(config_file, &mut around);
    let access = low.as_ref().and_then(|low| low.value.access.value());
    match access.map(|access| &access.users) {
        Some(Field::Missing) => Ok(folder.join("users.toml")),
        Some(Field::Given(at)) => Ok(folder.join(&at.value.0)),
        Some(Field::Wrong) | None => Err(Problems::of(&around.problems)
            .unwrap_or_else(|| Problems::only(Problem::of_file(&folder, "it is not known where the users file is")))),
    }
}

fn low_lakegate(config_file: Option<&Path>, around: &mut Surroundings<'_>) -> Option<At<LowLakegate>> {
    let path = config_file.map_or_else(|| around.folder.join("lakegate.toml"), |file| around.folder.join(file));
    let file = if config_file.is_none() && !path.exists() {
        let text = String::new();
        Some(Arc::new(SourceFile { name: PathBuf::from("lakegate.toml"), text }))
    } else {
        folder::read_text(&path, around.folder, &mut around.problems)
    };
    file.and_then(|file| reader::read_file::<LowLakegate>(&file, &mut around.problems))
}

/// A definition, and where its group is written.
fn table_definition(
    name: TableName,
    path: PathBuf,
    connections: &Connections,
    around: &mut Surroundings<'_>,
) -> Option<(TableDefinition, Option<Place>)> {
    let file = folder::read_text(&path, around.folder, &mut around.problems)?;
    let hash = blake3::hash(file.text.as_bytes()).to_hex().to_string();
    let low = reader::read_file::<LowTable>(&file, &mut around.problems)?;
    let group = low.value.load.value().and_then(|load| load.group.given()).map(|group| group.place.clone());
    Some((table_file::definition(name, path, hash, &low, connections, around)?, group))
}

#[cfg(test)]
mod tests;
