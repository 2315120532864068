//! What is looked after as long as the server runs: places held for clients that do not read, results nobody takes or comes
//! back for, sessions nobody uses, and the history, which is written now and then so that no statement waits for it.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::error::chain_text;
use crate::flight::run::StopReason;
use crate::flight::service::Service;

/// How often running statements are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a client may be slow before its place is given to somebody who waits: long against the time a client takes
/// between two messages it wants.
const SLOW_CLIENT: Duration = Duration::from_millis(500);
/// How often sessions are looked at and the history is written.
const WRITE: Duration = Duration::from_secs(5);
/// How long writing the last of the history may hold up the end.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Looks after a server, for ever.
pub(crate) async fn keep(service: &Service) {
    tokio::join!(look_after_runs(service), look_after_history(service));
}

/// Ends what is left when the server stops.
pub(crate) async fn stop(service: &Service) {
    service.sessions.stop();
    if tokio::time::timeout(LAST_WRITE, write(service)).await.is_err() {
        tracing::warn!("the history of statements was not written in time; the last of it is lost");
    }
}

async fn look_after_runs(service: &Service) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        service.downloads.sweep(|address| service.connections.is_open(address));
        let somebody_waits = service.admission.waiting() > 0;
        for run in service.runs.all() {
            if somebody_waits {
                run.yield_place(SLOW_CLIENT);
            }
            if run.waits_for_client() >= service.idle_reader {
                tracing::info!(query = %run.id, principal = run.person.name, "a result that nobody takes is cut");
                run.stop(StopReason::IdleReader(service.idle_reader));
            }
        }
    }
}

async fn look_after_history(service: &Service) {
    let mut ticks = interval(WRITE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        service.plans.sweep();
        for session in service.sessions.sweep() {
            service.free(session);
        }
        write(service).await;
    }
}

async fn write(service: &Service) {
    if let Err(error) = service.journal.flush_history(&service.history).await {
        tracing::warn!(error = %chain_text(&error), "the history of statements cannot be written; it is tried again");
    }
}
