//! `lakegate cache`: results that are kept on this disk. Also where `lakegate query` keeps them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytesize::ByteSize;
use indicatif::MultiProgress;

use crate::cli::CliError;
use crate::cli::arguments::{Cache, CacheShown, Common, Kept};
use crate::cli::output::Destination;
use crate::cli::program::{self, Chatter};
use crate::config::{LogFormat, LogSettings, client_cache_folder};
use crate::flight::{CacheEntry, ClientCache, ClientOptions, cache_entries, clear_cache};

pub(super) fn run(common: &Common, command: &Cache) -> Result<(), CliError> {
    let logs = LogSettings { level: "warn".to_owned(), format: LogFormat::Human };
    program::logs(common, Chatter::Quiet, &logs, &MultiProgress::new())?;
    match command {
        Cache::Show(shown) => show(shown),
        Cache::Clear(at) => clear(&named(at.cache.as_deref())?),
    }
}

/// Where results are kept; none where they are not.
pub(super) fn open(kept: &Kept, server: &str, options: &ClientOptions) -> Option<ClientCache> {
    let folder = match &kept.cache {
        _ if kept.no_cache => return None,
        Some(folder) => folder.clone(),
        None => client_cache_folder()?,
    };
    Some(ClientCache::new(&folder, server, options, kept.cache_size))
}

fn named(folder: Option<&Path>) -> Result<PathBuf, CliError> {
    let folder = folder.map(Path::to_owned).or_else(client_cache_folder);
    folder.ok_or_else(|| {
        CliError::Usage("there is no home folder, and so no cache; name its folder with --cache FOLDER".to_owned())
    })
}

fn show(arguments: &CacheShown) -> Result<(), CliError> {
    let folder = named(arguments.folder.cache.as_deref())?;
    let entries = cache_entries(&folder);
    let rows = rows(&entries)?;
    let mut writer = Destination::open(None, arguments.shown.format)?.begin(&rows.schema())?;
    writer.write(&rows)?;
    writer.finish()?;
    tell(&entries, "", &folder);
    Ok(())
}

fn rows(entries: &[CacheEntry]) -> Result<RecordBatch, CliError> {
    let micros = |entry: &CacheEntry| i64::try_from(entry.used_at.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok();
    let used_at = entries.iter().map(micros).collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let bytes = entries.iter().map(|entry| i64::try_from(entry.bytes).ok()).collect::<Int64Array>();
    let identities = StringArray::from_iter_values(entries.iter().map(|entry| &entry.identity));
    let owners = StringArray::from_iter_values(entries.iter().map(|entry| &entry.owner));
    let schema = Schema::new(vec![
        Field::new("used_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("bytes", DataType::Int64, true),
        Field::new("owner", DataType::Utf8, true),
        Field::new("identity", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![Arc::new(used_at), Arc::new(bytes), Arc::new(owners), Arc::new(identities)];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| CliError::failed(&error))
}

fn clear(folder: &Path) -> Result<(), CliError> {
    let entries = cache_entries(folder);
    clear_cache(folder)
        .map_err(|error| CliError::Failed(format!("cannot remove what is kept in {}: {error}", folder.display())))?;
    tell(&entries, "removed ", folder);
    Ok(())
}

fn tell(entries: &[CacheEntry], what: &str, folder: &Path) {
    let bytes = ByteSize(entries.iter().map(|entry| entry.bytes).sum());
    let plural = if entries.len() == 1 { "" } else { "s" };
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{what}{} result{plural}, {bytes}, in {}", entries.len(), folder.display());
}
