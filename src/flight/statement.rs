//! SQL text: `CommandStatementQuery`, `TicketStatementQuery`, and text sent bare.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use datafusion::execution::SendableRecordBatchStream;
use futures::FutureExt;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::{Ticket, single_batch};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::described::{self, Described};
use crate::flight::download::{Download, Wanted, start_over};
use crate::flight::gate::Pass;
use crate::flight::patience::{LONGEST_DOWNLOAD, Patience};
use crate::flight::profile;
use crate::flight::results::{self, ResultStream};
use crate::flight::run::{self, Run};
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::update;
use crate::model::WireProfile;
use crate::query::{Planned, QueryError, Statement, StatementKind};

/// Plans a statement that is asked about, not run yet. It takes a turn for it, and what cannot be planned is noted in
/// the history, since nothing will run.
pub(crate) async fn look_at(service: &Service, caller: &Caller, statement: Statement) -> Result<Planned, Status> {
    let _place = service.admission.enter(&caller.person()).await?;
    let (sql, begun) = (statement.sql.clone(), Instant::now());
    let planned = understand(service, caller, statement).await;
    planned.inspect_err(|status| run::note_refused(service, caller, &sql, begun.elapsed(), status))
}

/// Plans a statement. A panic while it does is the statement's error.
pub(crate) async fn understand(service: &Service, caller: &Caller, statement: Statement) -> Result<Planned, Status> {
    let planning = AssertUnwindSafe(service.engine.plan(statement, &caller.access)).catch_unwind();
    planning.await.unwrap_or_else(|_| Err(panicked())).map_err(Status::from)
}

/// What a panic is told as; the panic itself has written to the log where it was.
fn panicked() -> QueryError {
    QueryError::new(ErrorKind::Internal, "planning panicked")
}

/// What was planned, if it can be run: all its parameters need values.
pub(crate) fn complete(planned: Planned) -> Result<Planned, Status> {
    let given = planned.statement.parameters.len();
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
    (descriptor, pass): (FlightDescriptor, Pass),
) -> Result<FlightInfo, Status> {
    let profile = caller.wishes().profile()?;
    let planned = complete(look_at(service, caller, statement).await?)?;
    if planned.kind == StatementKind::Change {
        return update::flight_info(service, caller, planned, descriptor, pass).await;
    }
    let (described, planned) = Described::of(service, caller, planned, profile).await?;
    if described.is_had_by(caller) {
        return described.not_modified();
    }
    // Whoever may come back for the rest is served from the same rows in the same order, if that costs little. How they are
    // cut to batches is no part of what the result is.
    let planned = if caller.resume().is_some() { service.engine.in_fixed_order(planned) } else { planned };
    let now = service.clock.now();
    let ticket = Ticket::new(planned.statement.clone(), caller.name(), profile, now, service.ticket_lifetime);
    service.plans.keep(ticket.id, planned, caller.access.clone());
    let handle = TicketStatementQuery { statement_handle: ticket.seal(&service.sealer)?.into() };
    let bytes = handle.as_any().encode_to_vec();
    let info = results::flight_info(&described.schema, bytes, Some(ticket.expires_at), descriptor)?;
    described.tell(service, info)
}

/// The rows a sealed ticket stands for.
pub(crate) async fn redeem(
    service: &Service,
    caller: &Caller,
    sealed: &[u8],
    pass: Pass,
) -> Result<ResultStream, Status> {
    let ticket = Ticket::open(sealed, &service.sealer)?;
    if ticket.principal != caller.name() {
        return Err(refuse(ErrorKind::PermissionDenied, "the ticket was issued to somebody else; run the query again"));
    }
    let profile = profile::at_redemption(ticket.profile, caller.wishes())?;
    let pass = match caller.resume().filter(|wanted| wanted.from.next > 0) {
        None => pass,
        Some(wanted) => match resume(service, caller, &ticket, wanted, pass)? {
            Ok(download) => return Ok(ResultStream::Download(Box::new(download))),
            Err(pass) => pass,
        },
    };
    // A download takes longer over a thin line than a ticket lives; only what is begun anew needs one that is good still.
    ticket.check(service.clock.now())?;
    let planned = service.plans.take(ticket.id, &caller.access);
    let (statement, asked) = (ticket.statement, (ticket.id, caller.resume(), pass));
    carry_out(service, caller, (statement, planned, profile), asked).await
}

/// Goes on with a download where something of it is kept. Gives the pass back where the statement is to be run again, as it can
/// be where it gives its rows in the same order; the schema, which comes first, is the same in any case.
fn resume(
    service: &Service,
    caller: &Caller,
    ticket: &Ticket,
    wanted: Wanted,
    pass: Pass,
) -> Result<Result<Download, Pass>, Status> {
    let asked = (ticket.id, ticket.statement.sql.as_str(), wanted);
    let resumed = service.downloads.resume((service, caller), asked, pass)?;
    if resumed.is_err() && wanted.from.next > 1 && ticket.statement.options.partitions != Some(1) {
        return Err(start_over(
            "nothing of it is kept any more, and the statement need not give its rows in the same order again",
        ));
    }
    Ok(resumed)
}

/// The rows of a text that was sent as a ticket.
pub(crate) async fn run_now(
    service: &Service,
    caller: &Caller,
    statement: Statement,
    pass: Pass,
) -> Result<ResultStream, Status> {
    let profile = caller.wishes().profile()?;
    carry_out(service, caller, (statement, None, profile), (Uuid::new_v4(), None, pass)).await
}

/// Runs a statement when its turn comes, by the plan that was made for its ticket where there still is one.
async fn carry_out(
    service: &Service,
    caller: &Caller,
    (statement, planned, profile): (Statement, Option<Planned>, WireProfile),
    (ticket, wanted, pass): (Uuid, Option<Wanted>, Pass),
) -> Result<ResultStream, Status> {
    let mut run = Run::begin(service, caller, &statement.sql, ticket, pass);
    match rows(service, caller, (statement, planned, profile), &mut run).await {
        Ok((result, patience)) => ResultStream::of_run((service, caller), result, profile, (run, patience), wanted),
        Err(status) => {
            run.end(Err(&status));
            Err(status)
        }
    }
}

async fn rows(
    service: &Service,
    caller: &Caller,
    (statement, planned, profile): (Statement, Option<Planned>, WireProfile),
    run: &mut Run,
) -> Result<((SchemaRef, SendableRecordBatchStream), Patience), Status> {
    run.take_turn(service).await?;
    let begun = Instant::now();
    let mut planned = match planned {
        Some(planned) => planned,
        None => tokio::select! {
            biased;
            planned = understand(service, caller, statement) => complete(planned?)?,
            () = run.pass().stopped() => return Err(run.stopped()),
        },
    };
    if planned.kind == StatementKind::Change {
        return Err(update::refuse_ticket());
    }
    run.planned(begun.elapsed(), &planned);
    let looking = async {
        let schema = described::announced(service, &mut planned, profile).await;
        Ok::<_, Status>((schema, described::look(service, caller, &planned, profile).await?))
    };
    let (schema, (estimate, on_the_line)) = tokio::select! {
        biased;
        known = looking => known?,
        () = run.pass().stopped() => return Err(run.stopped()),
    };
    let mut patience = Patience::new(caller.options().timeout(service.query_timeout));
    if planned.kind == StatementKind::Estimate {
        return Ok(((schema, single_batch(on_the_line.to_batch()?)), patience));
    }
    run.learns(service.sizes.learning(&estimate, &schema, profile));
    let starting = AssertUnwindSafe(service.engine.execute(&planned, LONGEST_DOWNLOAD)).catch_unwind();
    let batches = tokio::select! {
        biased;
        batches = patience.wait(starting) => batches?.unwrap_or_else(|_| Err(panicked()))?,
        () = run.pass().stopped() => return Err(run.stopped()),
    };
    Ok(((schema, batches), patience))
}
