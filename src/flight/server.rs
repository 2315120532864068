//! Listening, serving, and stopping in good order.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::config::{ServeSettings, Settings, state_folder};
use crate::delivery::{Encoders, LearnedSizes, Lines, Sealer, TicketKey};
use crate::flight::FlightError;
use crate::flight::admission::Admission;
use crate::flight::allowance::Allowances;
use crate::flight::authenticator::Authenticator;
use crate::flight::bindings::Bindings;
use crate::flight::connection;
use crate::flight::connection_count::Connections;
use crate::flight::do_get::WireService;
use crate::flight::download::Downloads;
use crate::flight::entrance::Entrance;
use crate::flight::gate::Gate;
use crate::flight::housekeeping;
use crate::flight::plans::Plans;
use crate::flight::run::{Handle, StopReason, stop_all};
use crate::flight::service::{FlightCalls, Service};
use crate::flight::session::Sessions;
use crate::flight::sharing::Sharing;
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
/// Calls that one connection may make at the same time: what HTTP/2 libraries commonly allow. A client's others wait.
const MOST_CALLS: u32 = 200;
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

/// Refuses an address that other machines can reach while everybody is anonymous or connections are not encrypted,
/// unless `[serve] allow_anonymous_network` and `allow_plaintext_network` say that this is meant.
///
/// # Errors
/// `Exposed` or `Plaintext`, with what to do.
pub fn check_exposure(settings: &Settings) -> Result<(), FlightError> {
    check_address(settings.serve.flight, &settings.serve, settings.access.is_closed())
}

fn check_address(address: SocketAddr, settings: &ServeSettings, closed: bool) -> Result<(), FlightError> {
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if !closed && !settings.allow_anonymous_network {
        return Err(FlightError::Exposed { address });
    }
    if settings.tls.is_none() && !settings.allow_plaintext_network {
        return Err(FlightError::Plaintext { address });
    }
    Ok(())
}

/// Serves Flight SQL on `listener` until `shutdown` is requested. Then new statements are refused
/// with `UNAVAILABLE`, and running ones may finish within `serve.drain`; what is left is cut.
///
/// # Errors
/// When the address is exposed, the certificate or the key of tickets cannot be had, or the listener fails.
pub async fn serve(listener: TcpListener, parts: ServiceParts, shutdown: Shutdown) -> Result<(), FlightError> {
    let entrance = Entrance::open(&parts.settings)?;
    serve_with(listener, parts, &entrance, shutdown).await
}

/// As [`serve`], with an entrance that whoever keeps it can reload.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    listener: TcpListener,
    parts: ServiceParts,
    entrance: &Entrance,
    shutdown: Shutdown,
) -> Result<(), FlightError> {
    let address = listener.local_addr()?;
    let closed = entrance.directory.current().is_closed();
    check_address(address, &parts.settings.serve, closed)?;
    say_who_may_read(address, closed);
    let gate = Gate::default();
    let service = service(&parts, entrance)?;
    let limits = &parts.settings.limits.serving;
    let calls = FlightCalls { service: Arc::clone(&service), gate: gate.clone() };
    let quiet = CancellationToken::new();
    let connections = connection::incoming(listener, entrance.tls.clone(), parts.settings.access.certificate_name);
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MOST_CALLS)
        .http2_max_header_list_size(limits.header_size)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(WireService::new(calls, limits.request_size))
        .serve_with_incoming_shutdown(service.connections.count(connections), quiet.clone().cancelled_owned());
    let stopping = drain((&gate, &service.downloads), &shutdown, parts.settings.serve.drain, &quiet);
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
async fn drain(
    (gate, downloads): (&Gate, &Downloads),
    shutdown: &Shutdown,
    patience: Duration,
    quiet: &CancellationToken,
) {
    shutdown.requested().await;
    gate.close();
    downloads.close();
    tracing::info!(?patience, "stopping: no new statements, waiting for running ones");
    if tokio::time::timeout(patience, gate.emptied()).await.is_err() {
        tracing::warn!("statements still running are cut");
        gate.cut();
        let _ = tokio::time::timeout(GOODBYE, gate.emptied()).await;
    }
    quiet.cancel();
    tokio::time::sleep(GOODBYE).await;
}

fn service(parts: &ServiceParts, entrance: &Entrance) -> Result<Arc<Service>, FlightError> {
    let tickets = &parts.settings.tickets;
    let key = TicketKey::resolve(tickets, state_folder().as_deref())?;
    let sealer = Sealer::new(&key);
    let authenticator = Authenticator::new(parts, entrance, sealer.clone())?;
    let whole = &parts.settings.limits;
    let encoders = Encoders::new(whole.threads.get(), whole.memory);
    let limits = &whole.serving;
    let sessions = Sessions::new(Arc::clone(&parts.journal), Arc::clone(&parts.clock), limits.clone());
    let service = Arc::new_cyclic(|service: &Weak<Service>| Service {
        engine: Arc::clone(&parts.engine),
        clock: Arc::clone(&parts.clock),
        authenticator,
        sealer,
        ticket_lifetime: tickets.lifetime,
        query_timeout: parts.settings.limits.query_timeout,
        bindings: Bindings::new(Arc::clone(&parts.clock), limits),
        runs: Live::default(),
        journal: Arc::clone(&parts.journal),
        history: parts.settings.history.clone(),
        sessions,
        admission: Admission::new(limits),
        allowances: Allowances::new(limits, Arc::clone(&parts.clock)),
        lines: Lines::open(&parts.settings.lines),
        results: parts.settings.results,
        idle_reader: limits.idle_reader,
        sizes: LearnedSizes::default(),
        max_result_bytes: limits.max_result_bytes,
        plans: Plans::default(),
        connections: Connections::new(limits, when_closed(service.clone())),
        encoders,
        downloads: Downloads::new(&parts.settings.spool),
        sharing: Sharing::new(&parts.settings.spool),
    });
    Ok(service)
}

/// Ends what ends with a connection.
fn when_closed(service: Weak<Service>) -> impl Fn(SocketAddr) + Send + Sync + 'static {
    move |address| {
        let Some(service) = service.upgrade() else { return };
        for session in service.sessions.disconnected(address) {
            // Values stay bound: whoever comes back on another connection goes on with its statements.
            let ends = |run: &Handle| run.session == session && !run.outlives_connection;
            stop_all(&service.runs, StopReason::SessionClosed, ends);
        }
    }
}

fn say_who_may_read(address: SocketAddr, closed: bool) {
    if closed {
        return;
    }
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
    use crate::config::TlsSettings;

    #[test]
    fn without_users_and_encryption_only_loopback_is_listened_on() {
        let tls = || TlsSettings { certificate: "c.pem".into(), key: "k.pem".into(), client_ca: None };
        let check = |address: &str, closed, anonymous, tls, plaintext| {
            let address: SocketAddr = address.parse().unwrap();
            let settings = ServeSettings {
                flight: address,
                tls,
                allow_anonymous_network: anonymous,
                allow_plaintext_network: plaintext,
                drain: Duration::ZERO,
            };
            check_address(address, &settings, closed).map_err(|error| error.to_string())
        };
        for address in ["127.0.0.1:0", "127.9.9.9:8815", "[::1]:8815", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(check(address, false, false, None, false), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:8815", "[::]:8815", "10.0.0.1:8815"] {
            let error = check(address, false, false, Some(tls()), false).unwrap_err();
            assert!(error.contains("allow_anonymous_network = true"), "{error}");
            let error = check(address, true, false, None, false).unwrap_err();
            assert!(error.contains("allow_plaintext_network = true"), "{error}");
            assert!(check(address, false, true, None, false).is_err(), "{address}");
            assert_eq!(check(address, false, true, None, true), Ok(()), "{address}");
            assert_eq!(check(address, true, false, Some(tls()), false), Ok(()), "{address}");
            assert_eq!(check(address, true, false, None, true), Ok(()), "{address}");
        }
    }
}
