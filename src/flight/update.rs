//! Statements that change tables: `CommandStatementUpdate`, `CommandPreparedStatementUpdate`, and those asked for as if
//! they were queries.
//!
//! Each call runs a statement once. As an update (`DoPut`) that is where clients expect it. Clients that ask for a
//! `FlightInfo` instead may never fetch the result, so it runs there, at each such call anew; the ticket they get is that
//! of a query which says how many rows it were, and can be redeemed any number of times.

use arrow_flight::sql::{
    CommandPreparedStatementUpdate, CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use futures::Stream;
use prost::Message;
use tonic::Status;

use crate::delivery::{Ticket, wire_schema};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::command::refuse_transaction;
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::{incoming, prepared, results, statement};
use crate::model::WireProfile;
use crate::query::{ChangeValues, Changed, Planned, StatementKind};

/// Runs a text; answers with how many rows it changed.
pub(crate) async fn statement(
    service: &Service,
    caller: &Caller,
    command: CommandStatementUpdate,
) -> Result<DoPutUpdateResult, Status> {
    refuse_transaction(command.transaction_id.as_deref())?;
    let planned = statement::plan(service, caller, statement::statement(&command.query, Vec::new())).await?;
    check_kind(&planned)?;
    result(service.engine.change(&planned, ChangeValues::Planned, service.query_timeout).await?)
}

/// Runs a prepared statement, once for each row of the values that are sent along.
pub(crate) async fn prepared(
    service: &Service,
    caller: &Caller,
    command: CommandPreparedStatementUpdate,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<DoPutUpdateResult, Status> {
    let handle = &command.prepared_statement_handle;
    let text = prepared::text(service, caller, handle)?;
    let mut values = incoming::bound(messages).await?;
    if values.iter().all(|batch| batch.num_columns() == 0) {
        // Some clients bind all rows first.
        values = prepared::bound_rows(service, caller, handle)?.into_iter().collect();
    }
    let (planned, values) = if values.iter().any(|batch| batch.num_columns() > 0) {
        let planned = service.engine.plan(text, &caller.access).await?;
        (planned, ChangeValues::Rows(values))
    } else {
        let bound = prepared::bound_statement(service, caller, handle)?;
        (statement::plan(service, caller, bound).await?, ChangeValues::Planned)
    };
    check_kind(&planned)?;
    result(service.engine.change(&planned, values, service.query_timeout).await?)
}

/// Runs a statement whose result was asked for, and describes that result: how many rows it changed.
pub(crate) async fn flight_info(
    service: &Service,
    caller: &Caller,
    planned: &Planned,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let changed = service.engine.change(planned, ChangeValues::Planned, service.query_timeout).await?;
    let rows = count(changed)?;
    let answer = statement::statement(&format!("select {rows} as \"count\""), Vec::new());
    let now = service.clock.now();
    let ticket = Ticket::new(answer, caller.name(), WireProfile::default(), now, service.ticket_lifetime);
    let handle = TicketStatementQuery { statement_handle: ticket.seal(&service.sealer)?.into() };
    let schema = wire_schema(&planned.schema);
    let info = results::flight_info(&schema, handle.as_any().encode_to_vec(), Some(ticket.expires_at), descriptor)?;
    Ok(info.with_total_records(rows))
}

/// The answer to a statement that changes tables and is sent as a ticket, which a client may send again.
pub(crate) fn refuse_ticket() -> Status {
    refuse(
        ErrorKind::Unsupported,
        "a statement that changes tables is no ticket: a ticket may be redeemed twice. Ask for its FlightInfo, which runs \
         it once, or send it as an update",
    )
}

fn check_kind(planned: &Planned) -> Result<(), Status> {
    match planned.kind {
        StatementKind::Change => Ok(()),
        StatementKind::Query => {
            Err(refuse(ErrorKind::InvalidInput, "this is a query, which changes nothing; run it with execute_query"))
        }
    }
}

fn result(changed: Changed) -> Result<DoPutUpdateResult, Status> {
    Ok(DoPutUpdateResult { record_count: count(changed)? })
}

fn count(changed: Changed) -> Result<i64, Status> {
    i64::try_from(changed.rows).map_err(|error| super::status::malformed(&error))
}
