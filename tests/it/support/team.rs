//! A team's folder as the program finds it: `lakegate.toml`, table definitions, files that are dropped, and a lake.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use lakegate::config::{self, Settings};
use lakegate::etl::{Loads, Silent, SyncOptions, SyncReport, TableOutcome};
use lakegate::journal::Journal;
use lakegate::lake::Lake;
use lakegate::model::{Location, TableName};
use lakegate::query;
use lakegate::runtime::clock::{Clock, SystemClock};
use tempfile::TempDir;

use super::ground::Ground;
use super::{process, s3, truth};

/// A team's folder and its lake.
pub(crate) struct Team {
    pub(crate) ground: Ground,
    folder: TempDir,
    /// Files dropped so far: each one is a second younger than the one before.
    dropped: AtomicU64,
}

impl Team {
    /// A team whose lake is a folder.
    pub(crate) fn local() -> Self {
        Self::on(Ground::local())
    }

    /// A team with a lake on this ground.
    pub(crate) fn on(ground: Ground) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let team = Self { ground, folder, dropped: AtomicU64::new(0) };
        team.configure("");
        team
    }

    /// Writes `lakegate.toml`, with lines of the test's own before the lake's.
    pub(crate) fn configure(&self, more: &str) {
        let lake = match &self.ground.settings.location {
            Location::Local(folder) => format!("[lake]\nlocation = '{}'\n", folder.display()),
            bucket => format!(
                "[lake]\nlocation = \"{bucket}\"\nconnection = \"moto\"\nlease_lifetime = \"3s\"\n\
                 [connections.moto]\ntype = \"s3\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\nallow_http = true\n\
                 access_key_id = {{ file = \"key\" }}\nsecret_access_key = {{ file = \"key\" }}\n",
                s3::endpoint()
            ),
        };
        self.write("key", "test");
        self.write("lakegate.toml", format!("{more}\n{lake}"));
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file's path below the folder.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Defines a table.
    pub(crate) fn define(&self, table: &str, definition: &str) {
        self.write(&format!("tables/{}.toml", table.replace('.', "/")), definition);
    }

    /// Drops a file whose last change is an hour ago, each one a second later than the one before.
    pub(crate) fn drop_file(&self, path: &str, content: impl AsRef<[u8]>) {
        self.write(path, content);
        self.touch(path);
    }

    /// Gives a file another date.
    pub(crate) fn touch(&self, path: &str) {
        let age = 3600 - self.dropped.fetch_add(1, Ordering::Relaxed);
        let file = std::fs::File::options().write(true).open(self.file(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    /// Takes a file away.
    pub(crate) fn remove(&self, path: &str) {
        std::fs::remove_file(self.file(path)).unwrap();
    }

    /// Gives a file another name, and its date stays.
    pub(crate) fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.file(from), self.file(to)).unwrap();
    }

    /// The settings as the program reads them now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::new(config::load(self.path(), None).unwrap())
    }

    /// What the program is made of, opened anew as by another process.
    pub(crate) async fn open(&self) -> (Arc<Settings>, Lake, Arc<Journal>, Arc<dyn Clock>) {
        self.open_at(Arc::new(SystemClock)).await
    }

    /// The same with a clock of the test's own.
    pub(crate) async fn open_at(&self, clock: Arc<dyn Clock>) -> (Arc<Settings>, Lake, Arc<Journal>, Arc<dyn Clock>) {
        let settings = self.settings();
        let environment = query::environment(&settings.limits).unwrap();
        let lake = Lake::open(&settings.lake, environment, Arc::clone(&clock)).await.unwrap();
        let journal = Journal::open(&settings.lake, Arc::clone(&clock)).unwrap();
        (settings, lake, Arc::new(journal), clock)
    }

    /// Loads, opened anew.
    pub(crate) async fn loads(&self) -> Loads {
        let (settings, lake, journal, clock) = self.open().await;
        Loads::new(settings, lake, journal, clock)
    }

    /// `lakegate sync` within this process.
    pub(crate) async fn sync(&self) -> SyncReport {
        self.sync_with(&SyncOptions::default()).await
    }

    /// The same with options.
    pub(crate) async fn sync_with(&self, options: &SyncOptions) -> SyncReport {
        self.loads().await.sync(&[], options, Arc::new(Silent)).await.unwrap()
    }

    /// Loads the only table there is and gives how that ended.
    pub(crate) async fn sync_one(&self) -> TableOutcome {
        let mut report = self.sync().await;
        assert_eq!((report.tables.len(), report.problems.len()), (1, 0), "{report:?}");
        report.tables.remove(0)
    }

    /// The program in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::lakegate(self.path());
        command.args(arguments);
        command
    }

    /// The program with a fault.
    pub(crate) fn command_with_fault(&self, arguments: &[&str], point: &str, action: &str) -> Command {
        let mut command = process::lakegate_with_fault(self.path(), point, action);
        command.args(arguments);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// All rows of a table as an independent reader sees them, each as `value|value|…`, sorted; empty when there
    /// is no table.
    pub(crate) async fn rows(&self, table: &str) -> Vec<String> {
        let name: TableName = table.parse().unwrap();
        if !self.ground.is_remote() && !self.ground.table_folder(&name).exists() {
            return Vec::new();
        }
        let Some(table) = truth::open(&self.ground, &name).await else { return Vec::new() };
        let context = SessionContext::new();
        table.update_datafusion_session(&context.state()).unwrap();
        let provider = table.table_provider().await.unwrap();
        let batches = context.read_table(provider).unwrap().collect().await.unwrap();
        let options = FormatOptions::default().with_null("∅");
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
                rows.push(values.join("|"));
            }
        }
        rows.sort();
        rows
    }
}
