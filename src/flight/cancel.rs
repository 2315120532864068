//! `CancelFlightInfo`, and `CancelQuery`, its older form: stop what is being sent for a description; and `KillQuery`,
//! our own: stop a run by its id. People stop their own runs, members of `admin` everybody's.

use arrow_flight::sql::{ActionCancelQueryRequest, Any, Command};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use bytes::Bytes;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::Ticket;
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::run::{StopReason, stop_all};
use crate::flight::service::Service;
use crate::flight::status::refuse;

/// The answer to `CancelFlightInfo`, whose request is not wrapped in an `Any`.
pub(crate) fn flight_info(service: &Service, caller: &Caller, body: &[u8]) -> Result<Bytes, Status> {
    let request = CancelFlightInfoRequest::decode(body).map_err(|error| unreadable(&error))?;
    let info = request.info.ok_or_else(|| refuse(ErrorKind::InvalidInput, "the request names no FlightInfo"))?;
    Ok(CancelFlightInfoResult::new(cancel(service, caller, &info)).encode_to_vec().into())
}

/// What came of `CancelQuery`; the numbers are those of `CancelStatus`.
pub(crate) fn query(
    service: &Service,
    caller: &Caller,
    request: &ActionCancelQueryRequest,
) -> Result<CancelStatus, Status> {
    let info = FlightInfo::decode(request.info.clone()).map_err(|error| unreadable(&error))?;
    Ok(cancel(service, caller, &info))
}

/// Stops the results of each ticket of a description. They end when they are next looked at, so the
/// answer is "cancelling"; where nothing runs there is nothing to cancel, and a ticket stays good.
fn cancel(service: &Service, caller: &Caller, info: &FlightInfo) -> CancelStatus {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let tickets = tickets.filter_map(|ticket| Any::decode(&*ticket.ticket).ok()).filter_map(|any| any.try_into().ok());
    let sealed = tickets.filter_map(|command| match command {
        Command::TicketStatementQuery(ticket) => Some(ticket.statement_handle),
        _ => None,
    });
    // A result may be on its way for longer than its ticket is good.
    let opened = sealed.filter_map(|sealed| Ticket::open(&sealed, &service.sealer).ok());
    let own = opened.filter(|ticket| may_stop(caller, &ticket.principal));
    let stopped = own.map(|ticket| stop_all(&service.runs, StopReason::Cancelled, |run| run.ticket == ticket.id));
    match stopped.sum::<usize>() {
        0 => CancelStatus::NotCancellable,
        _ => CancelStatus::Cancelling,
    }
}

/// Stops the run of an id, which `system.queries` tells.
pub(crate) fn kill(service: &Service, caller: &Caller, body: &[u8]) -> Result<(), Status> {
    let id = std::str::from_utf8(body).ok().and_then(|text| text.trim().parse::<Uuid>().ok());
    let id = id.ok_or_else(|| {
        refuse(ErrorKind::InvalidInput, "the body is no query_id; `select query_id from system.queries` tells them")
    })?;
    // Whether somebody else's runs under this id is not told.
    let found = service.runs.get(id).filter(|run| may_stop(caller, &run.person.name)).ok_or_else(|| {
        refuse(ErrorKind::NotFound, "nothing runs under this query_id; it has ended, or is not yours to stop")
    })?;
    tracing::info!(query = %id, of = found.person.name, by = caller.name(), "a statement is stopped on request");
    found.stop(StopReason::Cancelled);
    Ok(())
}

fn may_stop(caller: &Caller, person: &str) -> bool {
    caller.name() == person || caller.access.is_unrestricted()
}

fn unreadable(error: &prost::DecodeError) -> Status {
    refuse(ErrorKind::InvalidInput, format!("the cancel request cannot be read: {error}"))
}
