//! Statements that change tables: `CommandStatementUpdate`, `CommandPreparedStatementUpdate`, and those asked for as if
//! they were queries.
//!
//! Each call runs a statement once. As an update (`DoPut`) that is where clients expect it. Clients that ask for a
//! `FlightInfo` instead may never fetch the result, so it runs there, at each such call anew; the ticket they get is that
//! of a query which says how many rows it were, and can be redeemed any number of times.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::sql::{
    CommandPreparedStatementUpdate, CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use futures::Stream;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::{MESSAGE_BYTES, Ticket, wire_schema};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::command::refuse_transaction;
use crate::flight::gate::Pass;
use crate::flight::incoming::{Bound, Held};
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::{incoming, prepared, results, statement};
use crate::query::{ChangeValues, Changed, Planned, Statement, StatementKind};

/// Runs a text; answers with how many rows it changed.
pub(crate) async fn statement(
    service: &Service,
    caller: &Caller,
    command: CommandStatementUpdate,
    pass: Pass,
) -> Result<DoPutUpdateResult, Status> {
    refuse_transaction(command.transaction_id.as_deref())?;
    let text = caller.statement(&command.query, Vec::new());
    result(carry_out(service, caller, (text, None, None), pass).await?)
}

/// Runs a prepared statement, once for each row of the values that are sent along.
pub(crate) async fn prepared(
    service: &Service,
    caller: &Caller,
    command: CommandPreparedStatementUpdate,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    pass: Pass,
) -> Result<DoPutUpdateResult, Status> {
    let handle = &command.prepared_statement_handle;
    let text = prepared::text(service, caller, handle)?;
    let mut bound = incoming::bound(messages, Held::InBatches, &service.engine.memory()).await?;
    if bound.batches.iter().all(|batch| batch.num_columns() == 0) {
        // Some clients bind all rows first.
        bound.batches = prepared::bound_rows(service, caller, handle)?.into_iter().collect();
        bound.hold(bound.batches.iter().map(RecordBatch::get_array_memory_size).sum())?;
    }
    let (statement, bound) = if bound.batches.iter().any(|batch| batch.num_columns() > 0) {
        (text, Some(bound))
    } else {
        (prepared::bound_statement(service, caller, handle)?, None)
    };
    result(carry_out(service, caller, (statement, None, bound), pass).await?)
}

/// Runs a statement whose result was asked for, and describes that result: how many rows it changed.
pub(crate) async fn flight_info(
    service: &Service,
    caller: &Caller,
    planned: Planned,
    descriptor: FlightDescriptor,
    pass: Pass,
) -> Result<FlightInfo, Status> {
    // The count is sent to whoever asks for dictionaries, too.
    let profile = caller.wishes().profile()?;
    let schema = wire_schema(&planned.schema);
    let statement = planned.statement.clone();
    let changed = carry_out(service, caller, (statement, Some(planned), None), pass).await?;
    let rows = count(changed)?;
    let mut answer = caller.statement(&format!("select {rows} as \"count\""), Vec::new());
    // Whoever is cut off before the count has come need not wonder whether to change the table again.
    answer.options.partitions = Some(1);
    let now = service.clock.now();
    let ticket = Ticket::new(answer, caller.name(), (profile, MESSAGE_BYTES), now, service.ticket_lifetime);
    let handle = TicketStatementQuery { statement_handle: ticket.seal(&service.sealer)?.into() };
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

/// Runs a change when its turn comes, by the plan there is already or a new one, once for each row of the values that are
/// `bound` where there are any, and notes it in the history.
async fn carry_out(
    service: &Service,
    caller: &Caller,
    (statement, planned, bound): (Statement, Option<Planned>, Option<Bound>),
    pass: Pass,
) -> Result<Changed, Status> {
    let mut run = Run::begin(service, caller, &statement.sql, Uuid::new_v4(), pass);
    let changed = change(service, caller, (statement, planned, bound), &mut run).await;
    run.end(changed.as_ref().map(|_| ()));
    changed
}

async fn change(
    service: &Service,
    caller: &Caller,
    (statement, planned, bound): (Statement, Option<Planned>, Option<Bound>),
    run: &mut Run,
) -> Result<Changed, Status> {
    run.take_turn(service).await?;
    let begun = Instant::now();
    let planned = match (planned, &bound) {
        (Some(planned), _) => planned,
        (None, Some(_)) => statement::understand(service, caller, statement).await?,
        (None, None) => statement::complete(statement::understand(service, caller, statement).await?)?,
    };
    check_kind(&planned)?;
    run.planned(begun.elapsed(), &planned);
    let limit = caller.options().timeout(service.query_timeout);
    // From here on the engine takes the memory for them.
    let values = bound.map_or(ChangeValues::Planned, |bound| ChangeValues::Rows(bound.batches));
    tokio::select! {
        biased;
        changed = service.engine.change(&planned, values, limit) => changed.map_err(Status::from),
        () = run.pass().stopped() => Err(run.stopped()),
    }
}

fn check_kind(planned: &Planned) -> Result<(), Status> {
    match planned.kind {
        StatementKind::Change => Ok(()),
        StatementKind::Query | StatementKind::Estimate => {
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
