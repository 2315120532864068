//! Stopping when the system asks.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::CliError;
use crate::runtime::shutdown::Shutdown;

/// Exit code after a second signal, as shells give it for SIGINT.
const INTERRUPTED: i32 = 130;

/// Makes the first SIGTERM or SIGINT a request to stop, and the second one the end. To be called within a runtime.
pub(super) fn listen() -> Result<Shutdown, CliError> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = Shutdown::new();
    let requested = shutdown.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("asked to stop; a second signal stops at once");
        requested.request();
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(INTERRUPTED);
    });
    Ok(shutdown)
}

/// Requests to read again what can change while the program runs (SIGHUP). To be called within a runtime.
pub(super) fn hangups() -> Result<Signal, CliError> {
    signal(SignalKind::hangup()).map_err(|error| CliError::Failed(format!("cannot listen for signals: {error}")))
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
