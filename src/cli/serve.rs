//! `lakegate serve`: the Flight SQL service and the schedule, until somebody asks to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::CliError;
use crate::cli::arguments::{Common, Serve};
use crate::cli::program::{self, Chatter, Program};
use crate::cli::signals;
use crate::config::Settings;
use crate::etl::{Loads, Silent};
use crate::flight::{self, Entrance, ServiceParts};
use crate::query::LakeEngine;
use crate::runtime::shutdown::Shutdown;

pub(super) fn run(common: &Common, arguments: &Serve) -> Result<(), CliError> {
    let settings = program::settings(common, Chatter::Configured, &MultiProgress::new())?;
    let runtime = program::runtime(settings.limits.threads.get())?;
    let served = runtime.block_on(serve(settings, arguments));
    // Threads that still compute for nobody end with the process.
    runtime.shutdown_background();
    served
}

async fn serve(settings: Arc<Settings>, arguments: &Serve) -> Result<(), CliError> {
    let shutdown = signals::listen()?;
    let settings = listening_at(settings, arguments.flight.as_deref()).await?;
    flight::check_exposure(&settings).map_err(|error| CliError::Usage(error.to_string()))?;
    let entrance = Entrance::open(&settings).map_err(|error| CliError::Usage(error.to_string()))?;
    let listener = listen(settings.serve.flight).await?;
    let program = Program::open(Arc::clone(&settings)).await?;
    let engine = program.engine()?;
    for problem in program.policy_problems(&engine).await? {
        tracing::error!("{problem}; until that is mended nobody whom it keeps from something can read the table");
    }
    let address = listener.local_addr().map_err(|error| CliError::Failed(format!("cannot listen: {error}")))?;
    let scheme = if settings.serve.tls.is_some() { "grpc+tls" } else { "grpc" };
    let url = format!("{scheme}://{address}");
    tracing::info!(tables = settings.tables.len(), "listening on {url}");
    let _ready = arguments.ready_file.as_deref().map(|file| ReadyFile::write(file, &url)).transpose()?;
    let _reload = reload_when_asked(entrance.clone(), Arc::clone(&settings), Arc::clone(&engine))?;
    let (journal, clock) = (Arc::clone(&program.journal), Arc::clone(&program.clock));
    let parts = ServiceParts { engine, settings, journal, clock };
    let flight = async {
        let served = flight::serve_with(listener, parts, &entrance, shutdown.clone()).await;
        // Whatever made the service end, loads end as well.
        shutdown.request();
        served.map_err(|error| CliError::failed(&error))
    };
    let loads = run_loads(&program, arguments.no_loads, &shutdown);
    let (served, ()) = tokio::join!(flight, loads);
    tracing::info!("stopped");
    served
}

/// How often the files that decide who gets in are looked at: a revoked token loses its power within that time.
const LOOK: Duration = Duration::from_secs(2);

/// Reads users, grants and certificate again on SIGHUP, and when their files changed. Ends when dropped.
fn reload_when_asked(
    entrance: Entrance,
    settings: Arc<Settings>,
    engine: Arc<LakeEngine>,
) -> Result<AbortOnDropHandle<()>, CliError> {
    let mut asked = signals::hangups()?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        // What the start has read may have changed since, so the first look that finds the files at rest reads them again.
        let (mut seen, mut read) = (None, None);
        loop {
            let told = tokio::select! {
                _ = asked.recv() => true,
                _ = look.tick() => false,
            };
            let of = Arc::clone(&settings);
            // Files are looked at on a thread where that may take its time.
            let now = tokio::task::spawn_blocking(move || Entrance::stamp(&of)).await.ok();
            // Half of a file may be right by itself: one that is being written is not read before it is at rest.
            let is_at_rest = now.is_some() && now == seen;
            if told || (is_at_rest && now != read) {
                entrance.reload(&settings, engine.as_ref()).await;
                read.clone_from(&now);
            }
            seen = now;
        }
    })))
}

async fn run_loads(program: &Program, no_loads: bool, shutdown: &Shutdown) {
    if no_loads {
        return;
    }
    let parts = (Arc::clone(&program.settings), program.lake.clone(), Arc::clone(&program.journal));
    let loads = Loads::new(parts.0, parts.1, parts.2, Arc::clone(&program.clock));
    loads.run_schedule(shutdown, Arc::new(Silent)).await;
}

/// The settings with the address of the command line in the place of the configured one.
async fn listening_at(settings: Arc<Settings>, address: Option<&str>) -> Result<Arc<Settings>, CliError> {
    let Some(address) = address else { return Ok(settings) };
    let wrong = |reason: String| {
        CliError::Usage(format!(
            "--flight {address} is no address to listen at: {reason}; write HOST:PORT, as in 127.0.0.1:8815"
        ))
    };
    let found = tokio::net::lookup_host(address).await.map_err(|error| wrong(error.to_string()))?.next();
    let mut settings = Arc::unwrap_or_clone(settings);
    settings.serve.flight = found.ok_or_else(|| wrong("the name has no address".to_owned()))?;
    Ok(Arc::new(settings))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; another server runs there: stop it, or pass --flight HOST:PORT",
            _ => "",
        };
        CliError::Failed(format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// A file that tells the address for as long as the server listens.
struct ReadyFile(PathBuf);

impl ReadyFile {
    fn write(file: &Path, url: &str) -> Result<Self, CliError> {
        let failed = |source| CliError::Output { to: file.display().to_string(), source };
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        // Renamed, so that whoever waits for the file never reads half an address.
        std::fs::write(&part, format!("{url}\n")).map_err(failed)?;
        std::fs::rename(&part, file).map_err(failed)?;
        Ok(Self(file.to_owned()))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // A file that stays behind is overwritten by the next server.
        let _ = std::fs::remove_file(&self.0);
    }
}
