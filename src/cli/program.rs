//! Putting the program together: settings, logs, lake, journal, engine.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::MultiProgress;
use tokio::runtime::Runtime;
use tracing_subscriber::fmt::MakeWriter;

use crate::access::Grants;
use crate::cli::CliError;
use crate::cli::arguments::{Common, LogLines};
use crate::config::{self, LogSettings, Settings};
use crate::journal::Journal;
use crate::lake::Lake;
use crate::query::{self, LakeEngine, PolicyProblem, QueryEngine};
use crate::runtime::clock::{Clock, SystemClock};
use crate::telemetry;

/// The parts every command that touches the lake works with.
pub(super) struct Program {
    pub(super) settings: Arc<Settings>,
    pub(super) lake: Lake,
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Which lines of the log people see when nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chatter {
    /// As configured: the log is what a server has to say.
    Configured,
    /// Warnings and worse: the command says itself what it does.
    Quiet,
}

/// The folder whose `tables/` counts, and the configuration file's name where one was given.
pub(super) fn place(common: &Common) -> Result<(PathBuf, Option<PathBuf>), CliError> {
    let Some(file) = &common.config else { return Ok((PathBuf::from("."), None)) };
    let Some(name) = file.file_name() else {
        return Err(CliError::Usage(format!("--config {} names no file", file.display())));
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok((folder.to_owned(), Some(name.into())))
}

/// Reads the configuration and begins to log.
pub(super) fn settings(common: &Common, chatter: Chatter, bars: &MultiProgress) -> Result<Arc<Settings>, CliError> {
    let (folder, file) = place(common)?;
    let settings = config::load(&folder, file.as_deref()).map_err(|problems| CliError::Usage(problems.to_string()))?;
    logs(common, chatter, &settings.logs, bars)?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(settings))
}

/// Begins to log to standard error, stepping aside for progress bars.
pub(super) fn logs(
    common: &Common,
    chatter: Chatter,
    configured: &LogSettings,
    bars: &MultiProgress,
) -> Result<(), CliError> {
    let mut settings = configured.clone();
    if common.verbose {
        settings.level = "debug".to_owned();
    } else if chatter == Chatter::Quiet {
        settings.level = "warn".to_owned();
    }
    if common.log_format == Some(LogLines::Human) {
        settings.format = config::LogFormat::Human;
    }
    let json = common.log_format == Some(LogLines::Json);
    let writer = BesideBars(bars.clone());
    telemetry::init(&settings, json, std::io::stderr().is_terminal(), writer)
        .map_err(|error| CliError::Usage(error.to_string()))
}

/// A runtime for a command.
pub(super) fn runtime(threads: usize) -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .enable_all()
        .build()
        .map_err(|error| CliError::Failed(format!("cannot start threads: {error}")))
}

impl Program {
    /// Opens the lake.
    pub(super) async fn open(settings: Arc<Settings>) -> Result<Self, CliError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let environment = query::environment(&settings.limits).map_err(|error| CliError::failed(&error))?;
        let lake = Lake::open(&settings.lake, environment, Arc::clone(&clock))
            .await
            .map_err(|error| CliError::failed(&error))?;
        let journal = Journal::open(&settings.lake, Arc::clone(&clock)).map_err(|error| CliError::failed(&error))?;
        Ok(Self { settings, lake, journal: Arc::new(journal), clock })
    }

    /// What answers SQL.
    pub(super) fn engine(&self) -> Result<Arc<LakeEngine>, CliError> {
        let (settings, journal) = (Arc::clone(&self.settings), Arc::clone(&self.journal));
        let engine = LakeEngine::new(settings, self.lake.clone(), journal, Arc::clone(&self.clock));
        Ok(Arc::new(engine.map_err(|error| CliError::failed(&error))?))
    }

    /// What of the grants file cannot be used with the tables as they are now.
    pub(super) async fn policy_problems(&self, engine: &LakeEngine) -> Result<Vec<PolicyProblem>, CliError> {
        let Some(grants) = &self.settings.access.files.grants else { return Ok(Vec::new()) };
        engine.check_policies(&Grants::from(grants)).await.map_err(|error| CliError::failed(&error))
    }
}

/// Standard error, with progress bars taken away while a line is written.
#[derive(Clone)]
struct BesideBars(MultiProgress);

impl<'w> MakeWriter<'w> for BesideBars {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Write for BesideBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
