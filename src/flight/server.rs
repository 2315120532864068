//! Listening, serving, and stopping in good order.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::config::{ServeSettings, Settings, state_folder};
use crate::delivery::{Sealer, TicketKey};
use crate::flight::FlightError;
use crate::flight::admission::Admission;
use crate::flight::allowance::Allowances;
use crate::flight::bindings::Bindings;
use crate::flight::connections::Connections;
use crate::flight::gate::Gate;
use crate::flight::housekeeping;
use crate::flight::line::Line;
use crate::flight::plans::Plans;
use crate::flight::service::{FlightCalls, Service};
use crate::flight::session::Sessions;
use crate::journal::Journal;
use crate::query::QueryEngine;
use crate::runtime::clock::Clock;
use crate::runtime::live::Live;
use crate::runtime::shutdown::Shutdown;

/// What a client may send ahead in one call and on one connection. Governs uploads only; for
/// downloads the client's windows count.
const STREAM_WINDOW: u32 = 8 << 20;
/// As above, for all calls of a connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// How often a silent connection is looked at, and how long an answer may take: shorter than what
/// firewalls commonly keep an idle connection for.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How long connections have to close after their last call was cut.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the service is made of.
#[derive(Clone)]
pub struct ServiceParts {
    /// Answers SQL.
    pub engine: Arc<dyn QueryEngine>,
    /// What the program runs on.
    pub settings: Arc<Settings>,
    /// Where statements and sessions are told and noted.
    pub journal: Arc<Journal>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Refuses an address that other machines can reach, as long as everybody is anonymous, unless
/// `[serve] allow_anonymous_network` says that this is meant.
///
/// # Errors
/// `Exposed`, with what to do.
pub fn check_exposure(settings: &ServeSettings) -> Result<(), FlightError> {
    check_address(settings.flight, settings)
}

fn check_address(address: SocketAddr, settings: &ServeSettings) -> Result<(), FlightError> {
    if address.ip().to_canonical().is_loopback() || settings.allow_anonymous_network {
        return Ok(());
    }
    Err(FlightError::Exposed { address })
}

/// Serves Flight SQL on `listener` until `shutdown` is requested. Then new statements are refused
/// with `UNAVAILABLE`, and running ones may finish within `serve.drain`; what is left is cut.
///
/// # Errors
/// When the address is exposed, the key of tickets cannot be had, or the listener fails.
pub async fn serve(listener: TcpListener, parts: ServiceParts, shutdown: Shutdown) -> Result<(), FlightError> {
    let address = listener.local_addr()?;
    check_address(address, &parts.settings.serve)?;
    say_who_may_read(address);
    let gate = Gate::default();
    let service = service(&parts)?;
    let limits = &parts.settings.limits.serving;
    let calls = FlightCalls { service: Arc::clone(&service), gate: gate.clone() };
    let quiet = CancellationToken::new();
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(limits.header_size)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(Line::new(calls, limits.request_size))
        .serve_with_incoming_shutdown(
            service.connections.count(TcpIncoming::from(listener).with_nodelay(Some(true))),
            quiet.clone().cancelled_owned(),
        );
    let stopping = drain(&gate, &shutdown, parts.settings.serve.drain, &quiet);
    let served = tokio::select! {
        served = serving => served.map_err(FlightError::from),
        () = stopping => Ok(()),
        () = housekeeping::keep(&service) => Ok(()),
    };
    housekeeping::stop(&service).await;
    served
}

/// Waits for the request to stop, then for what is running, then closes connections. Comes to its end
/// only when some of them do not close in time.
async fn drain(gate: &Gate, shutdown: &Shutdown, patience: Duration, quiet: &CancellationToken) {
    shutdown.requested().await;
    gate.close();
    tracing::info!(?patience, "stopping: no new statements, waiting for running ones");
    if tokio::time::timeout(patience, gate.emptied()).await.is_err() {
        tracing::warn!("statements still running are cut");
        gate.cut();
        let _ = tokio::time::timeout(GOODBYE, gate.emptied()).await;
    }
    quiet.cancel();
    tokio::time::sleep(GOODBYE).await;
}

fn service(parts: &ServiceParts) -> Result<Arc<Service>, FlightError> {
    let tickets = &parts.settings.tickets;
    let key = TicketKey::resolve(tickets, state_folder().as_deref())?;
    let limits = &parts.settings.limits.serving;
    let sessions = Sessions::new(Arc::clone(&parts.journal), Arc::clone(&parts.clock), limits.clone());
    let service = Arc::new_cyclic(|service: &Weak<Service>| Service {
        engine: Arc::clone(&parts.engine),
        clock: Arc::clone(&parts.clock),
        sealer: Sealer::new(&key),
        ticket_lifetime: tickets.lifetime,
        query_timeout: parts.settings.limits.query_timeout,
        bindings: Bindings::new(Arc::clone(&parts.clock), limits),
        runs: Live::default(),
        journal: Arc::clone(&parts.journal),
        history: parts.settings.history.clone(),
        sessions,
        admission: Admission::new(limits),
        allowances: Allowances::new(limits, Arc::clone(&parts.clock)),
        idle_reader: limits.idle_reader,
        plans: Plans::default(),
        connections: Connections::new(limits, when_closed(service.clone())),
    });
    Ok(service)
}

/// Ends what ends with a connection.
fn when_closed(service: Weak<Service>) -> impl Fn(SocketAddr) + Send + Sync + 'static {
    move |address| {
        let Some(service) = service.upgrade() else { return };
        for session in service.sessions.disconnected(address) {
            service.free(session);
        }
    }
}

fn say_who_may_read(address: SocketAddr) {
    if address.ip().to_canonical().is_loopback() {
        tracing::info!(
            "no users are configured: everybody on this machine may read every table, nobody else can connect"
        );
    } else {
        tracing::warn!(%address, "no users are configured: everybody who reaches this address may read every table");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_users_only_loopback_is_listened_on() {
        let settings = |address: &str, allowed| ServeSettings {
            flight: address.parse().unwrap(),
            allow_anonymous_network: allowed,
            drain: Duration::ZERO,
        };
        for address in ["127.0.0.1:0", "127.9.9.9:8815", "[::1]:8815", "[::ffff:127.0.0.1]:1"] {
            assert!(check_exposure(&settings(address, false)).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:8815", "[::]:8815", "10.0.0.1:8815"] {
            let error = check_exposure(&settings(address, false)).unwrap_err().to_string();
            assert!(error.contains("allow_anonymous_network = true"), "{error}");
            assert!(check_exposure(&settings(address, true)).is_ok(), "{address}");
        }
    }
}
