//! SQL text: `CommandStatementQuery`, `TicketStatementQuery`, and text sent bare.

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use datafusion::common::ScalarValue;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::{Ticket, wire_schema};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::gate::Pass;
use crate::flight::patience::{LONGEST_DOWNLOAD, Patience};
use crate::flight::results::{self, ResultStream};
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::update;
use crate::model::WireProfile;
use crate::query::{Planned, Statement, StatementKind, StatementOptions, TablePins};

/// A statement at the newest versions of its tables.
pub(crate) fn statement(sql: &str, parameters: Vec<ScalarValue>) -> Statement {
    Statement { sql: sql.to_owned(), parameters, pins: TablePins::new(), options: StatementOptions::default() }
}

/// Plans a statement that is to be run: all its parameters need values.
pub(crate) async fn plan(service: &Service, caller: &Caller, statement: Statement) -> Result<Planned, Status> {
    let given = statement.parameters.len();
    let planned = service.engine.plan(statement, &caller.access).await?;
    let needed = planned.parameters.len();
    if given < needed {
        let message = format!(
            "the statement has {needed} parameters and {given} values; prepare it and bind a value for each `?` or `$n`"
        );
        return Err(refuse(ErrorKind::InvalidInput, message));
    }
    Ok(planned)
}

/// The description of a statement's result, with a ticket that holds all it depends on.
pub(crate) async fn flight_info(
    service: &Service,
    caller: &Caller,
    statement: Statement,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let planned = plan(service, caller, statement).await?;
    if planned.kind == StatementKind::Change {
        return update::flight_info(service, caller, &planned, descriptor).await;
    }
    let schema = wire_schema(&planned.schema);
    let profile = WireProfile::default();
    let now = service.clock.now();
    let ticket = Ticket::new(planned.statement, caller.name(), profile, now, service.ticket_lifetime);
    let handle = TicketStatementQuery { statement_handle: ticket.seal(&service.sealer)?.into() };
    let bytes = handle.as_any().encode_to_vec();
    results::flight_info(&schema, bytes, Some(ticket.expires_at), descriptor)
}

/// The rows a sealed ticket stands for.
pub(crate) async fn redeem(
    service: &Service,
    caller: &Caller,
    sealed: &[u8],
    pass: Pass,
) -> Result<ResultStream, Status> {
    let ticket = Ticket::open(sealed, &service.sealer, service.clock.now())?;
    if ticket.principal != caller.name() {
        return Err(refuse(ErrorKind::PermissionDenied, "the ticket was issued to somebody else; run the query again"));
    }
    let planned = plan(service, caller, ticket.statement).await?;
    run(service, &planned, ticket.id, pass).await
}

/// The rows of a text that was sent as a ticket.
pub(crate) async fn run_now(
    service: &Service,
    caller: &Caller,
    statement: Statement,
    pass: Pass,
) -> Result<ResultStream, Status> {
    let planned = plan(service, caller, statement).await?;
    run(service, &planned, Uuid::new_v4(), pass).await
}

async fn run(service: &Service, planned: &Planned, ticket: Uuid, pass: Pass) -> Result<ResultStream, Status> {
    if planned.kind == StatementKind::Change {
        return Err(update::refuse_ticket());
    }
    let schema = wire_schema(&planned.schema);
    let mut patience = Patience::new(service.query_timeout);
    let batches = patience.wait(service.engine.execute(planned, LONGEST_DOWNLOAD)).await??;
    ResultStream::new(schema, batches, ticket, &service.running, (patience, pass))
}
