//! SQL text: `CommandStatementQuery`, `TicketStatementQuery`, and text sent bare.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::FutureExt;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use crate::delivery::{EncodedResult, Encoders, Ticket, WireEstimate, single_batch};
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::described::{self, Described};
use crate::flight::download::{Wanted, start_over};
use crate::flight::gate::Pass;
use crate::flight::patience::{LONGEST_DOWNLOAD, Patience};
use crate::flight::profile;
use crate::flight::results::{self, ResultStream};
use crate::flight::rows::Source;
use crate::flight::run::{self, Run};
use crate::flight::service::Service;
use crate::flight::sharing::{SharedRows, Starting};
use crate::flight::status::refuse;
use crate::flight::update;
use crate::model::WireProfile;
use crate::query::{Estimate, Planned, QueryEngine, QueryError, Statement, StatementKind};

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
    planning.await.unwrap_or_else(|_| Err(panicked("planning"))).map_err(Status::from)
}

/// What a panic is told as; the panic itself has written to the log where it was.
fn panicked(what: &str) -> QueryError {
    QueryError::new(ErrorKind::Internal, format!("{what} panicked"))
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
    let encoding = (profile, service.lines.message_bytes(caller.address));
    let ticket = Ticket::new(planned.statement.clone(), caller.name(), encoding, now, service.ticket_lifetime);
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
    let encoding = (profile::at_redemption(ticket.profile, caller.wishes())?, ticket.message_bytes);
    let pass = match caller.resume().filter(|wanted| wanted.from.next > 0) {
        None => pass,
        Some(wanted) => {
            let asked = (ticket.id, ticket.statement.sql.as_str(), wanted);
            match service.downloads.resume((service, caller), asked, pass)? {
                Ok(download) => return Ok(ResultStream::Download(Box::new(download))),
                Err(pass) => pass,
            }
        }
    };
    // A download takes longer over a thin line than a ticket lives; only what is begun anew needs one that is good still.
    ticket.check(service.clock.now())?;
    let planned = service.plans.take(ticket.id, &caller.access);
    let (statement, asked) = (ticket.statement, (ticket.id, caller.resume(), pass));
    carry_out(service, caller, (statement, planned, encoding), asked).await
}

/// The rows of a text that was sent as a ticket.
pub(crate) async fn run_now(
    service: &Service,
    caller: &Caller,
    statement: Statement,
    pass: Pass,
) -> Result<ResultStream, Status> {
    let encoding = (caller.wishes().profile()?, service.lines.message_bytes(caller.address));
    carry_out(service, caller, (statement, None, encoding), (Uuid::new_v4(), None, pass)).await
}

/// How a result is encoded: for whom, and in messages of about how many bytes.
type Encoding = (WireProfile, usize);

/// Runs a statement when its turn comes, by the plan that was made for its ticket where there still is one.
async fn carry_out(
    service: &Service,
    caller: &Caller,
    asked: (Statement, Option<Planned>, Encoding),
    (ticket, wanted, pass): (Uuid, Option<Wanted>, Pass),
) -> Result<ResultStream, Status> {
    let mut run = Run::begin(service, caller, &asked.0.sql, ticket, pass);
    match rows(service, caller, asked, wanted, &mut run).await {
        Ok((rows, patience)) => Ok(ResultStream::of_run((service, caller), rows, (run, patience), wanted)),
        Err(status) => {
            run.end(Err(&status));
            Err(status)
        }
    }
}

/// The rows of a statement: those that others are sent already where it is the same, else its own.
async fn rows(
    service: &Service,
    caller: &Caller,
    (statement, planned, encoding): (Statement, Option<Planned>, Encoding),
    wanted: Option<Wanted>,
    run: &mut Run,
) -> Result<(Source, Patience), Status> {
    let is_planned = planned.is_some();
    if !is_planned {
        run.take_turn(service).await?;
    }
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
    let schema = tokio::select! {
        biased;
        schema = described::announced(service, &mut planned, encoding.0) => schema,
        () = run.pass().stopped() => return Err(run.stopped()),
    };
    let key = service.sharing.key(&planned, &schema, encoding, &service.sealer);
    let patience = Patience::new(caller.options().timeout(service.query_timeout));
    let followed = key.as_ref().and_then(|key| service.sharing.follow(key, &run.handle.person));
    if let Some(rows) = followed {
        if is_planned {
            run.takes_no_turn();
        }
        if service.max_result_bytes.is_some() {
            size(service, caller, (&planned, encoding.0), run).await?;
        }
        return started(rows, patience, run).await;
    }
    check_order(&planned, wanted)?;
    if is_planned {
        run.take_turn(service).await?;
    }
    let (estimate, on_the_line) = size(service, caller, (&planned, encoding.0), run).await?;
    if planned.kind == StatementKind::Estimate {
        let answer = single_batch(on_the_line.to_batch()?);
        let encoded = EncodedResult::new(schema, answer, encoding.0, encoding.1, &service.encoders)?;
        return Ok((Source::Own(Box::new(encoded)), patience));
    }
    run.learns(service.sizes.learning(&estimate, &schema, encoding.0));
    let starting = begin(Arc::clone(&service.engine), planned, (schema, encoding), service.encoders.clone()).boxed();
    match key.filter(|_| on_the_line.wire_bytes.is_none_or(|bytes| bytes <= service.sharing.largest())) {
        Some(key) => {
            let slot = run.handle.held().slot.take();
            let by = (&service.admission, &run.handle.person);
            started(service.sharing.begin(&key, (starting, slot), by), patience, run).await
        }
        None => own(starting, patience, run).await,
    }
}

/// Checks that whoever has a part of a result can go on with another run of it: its rows have to come in the same order. The schema,
/// which comes first, is the same in any case.
fn check_order(planned: &Planned, wanted: Option<Wanted>) -> Result<(), Status> {
    if wanted.is_some_and(|wanted| wanted.from.next > 1) && planned.statement.options.partitions.is_none() {
        return Err(start_over(
            "nothing of it is kept any more, and the statement need not give its rows in the same order again",
        ));
    }
    Ok(())
}

/// Looks how large a result will be, unless it is stopped.
async fn size(
    service: &Service,
    caller: &Caller,
    (planned, profile): (&Planned, WireProfile),
    run: &Run,
) -> Result<(Arc<Estimate>, WireEstimate), Status> {
    tokio::select! {
        biased;
        known = described::look(service, caller, planned, profile) => known,
        () = run.pass().stopped() => Err(run.stopped()),
    }
}

/// Begins to run a plan. A panic while it does is the statement's error.
async fn begin(
    engine: Arc<dyn QueryEngine>,
    planned: Planned,
    (schema, (profile, message_bytes)): (SchemaRef, Encoding),
    encoders: Encoders,
) -> Result<EncodedResult, Status> {
    let starting = AssertUnwindSafe(engine.execute(&planned, LONGEST_DOWNLOAD)).catch_unwind();
    let batches = starting.await.unwrap_or_else(|_| Err(panicked("beginning to run the statement")))?;
    Ok(EncodedResult::new(schema, batches, profile, message_bytes, &encoders)?)
}

/// The rows of a statement that nobody else has.
async fn own(starting: Starting, mut patience: Patience, run: &Run) -> Result<(Source, Patience), Status> {
    let rows = tokio::select! {
        biased;
        rows = patience.wait(starting) => rows??,
        () = run.pass().stopped() => return Err(run.stopped()),
    };
    Ok((Source::Own(Box::new(rows)), patience))
}

/// Rows that others may have too, once they have begun to be made.
async fn started(mut rows: SharedRows, mut patience: Patience, run: &Run) -> Result<(Source, Patience), Status> {
    // Who has taken a turn only to plan needs it no more, and what is shared may wait for just that place.
    let slot = run.handle.held().slot.take();
    drop(slot);
    tokio::select! {
        biased;
        started = patience.wait(poll_fn(|context| rows.poll_started(context))) => started??,
        () = run.pass().stopped() => return Err(run.stopped()),
    };
    if let Some(from) = rows.shared_from() {
        run.told.shares(from);
    }
    Ok((Source::Shared(Box::new(rows)), patience))
}
