//! Prepared statements: made, given values, run, closed.
//!
//! The handle is sealed and holds the text, so a statement outlives a restart and is redeemed by any
//! server with the same key. Only the values bound to it are kept here (`bindings.rs`).

use arrow::array::RecordBatch;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::Stream;
use prost::Message;
use serde::{Deserialize, Serialize};
use tonic::Status;
use uuid::Uuid;

use crate::delivery::Purpose;
use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::command::refuse_transaction;
use crate::flight::gate::Pass;
use crate::flight::incoming::{Bound, Held};
use crate::flight::results::encapsulated;
use crate::flight::service::Service;
use crate::flight::status::{malformed, refuse};
use crate::flight::{described, incoming, parameters, statement};
use crate::query::{Statement, StatementKind};

/// Field 4 of `ActionCreatePreparedStatementResult`, `is_update`, as a varint field's tag. The
/// generated message does not know the field yet; without it some drivers take a query for an update.
const IS_UPDATE_TAG: u8 = 4 << 3;

/// What a handle holds.
#[derive(Debug, Serialize, Deserialize)]
struct Handle {
    id: Uuid,
    sql: String,
    principal: String,
    /// How many values it needs.
    parameters: usize,
    /// Whether it changes tables, and so may run once for each of many rows of values.
    #[serde(default)]
    changes: bool,
    /// Which columns were announced as dictionaries ([`StatementOptions::few`](crate::query::StatementOptions::few)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    few: Option<Vec<usize>>,
}

/// Makes a prepared statement: its handle, the columns of its result and its parameters, as the
/// message the action answers with.
pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: ActionCreatePreparedStatementRequest,
) -> Result<Bytes, Status> {
    refuse_transaction(request.transaction_id.as_deref())?;
    let mut planned = statement::look_at(service, caller, caller.statement(&request.query, Vec::new())).await?;
    // Without columns for what changes tables: by that older JDBC drivers tell updates from queries.
    let dataset_schema = match planned.kind {
        StatementKind::Query | StatementKind::Estimate => {
            let schema = described::announced(service, &mut planned, caller.wishes().profile()?).await;
            encapsulated(&schema)?
        }
        StatementKind::Change => Bytes::new(),
    };
    let handle = Handle {
        id: Uuid::new_v4(),
        sql: request.query,
        principal: caller.name().to_owned(),
        parameters: planned.parameters.len(),
        changes: planned.kind == StatementKind::Change,
        few: planned.statement.options.few.take(),
    };
    let content = serde_json::to_vec(&handle).map_err(|error| malformed(&error))?;
    let result = ActionCreatePreparedStatementResult {
        prepared_statement_handle: service.sealer.seal(Purpose::PreparedStatement, &content)?.into(),
        dataset_schema,
        parameter_schema: match planned.parameters.as_slice() {
            [] => Bytes::new(),
            some => encapsulated(&parameters::announced(some))?,
        },
    };
    let mut value = result.encode_to_vec();
    value.extend_from_slice(&[IS_UPDATE_TAG, u8::from(planned.kind == StatementKind::Change)]);
    let any = Any { type_url: ActionCreatePreparedStatementResult::type_url().to_owned(), value: value.into() };
    Ok(any.encode_to_vec().into())
}

/// Binds the values a client sends to the handle it names, and answers with the same handle: some
/// clients use the answer's, some their own.
pub(crate) async fn bind(
    service: &Service,
    caller: &Caller,
    command: CommandPreparedStatementQuery,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<DoPutPreparedStatementResult, Status> {
    let handle = open(service, caller, &command.prepared_statement_handle)?;
    let Bound { batches, memory } = incoming::bound(messages, Held::OneByOne, &service.engine.memory()).await?;
    let values = match handle.changes {
        true => parameters::rows(&batches, handle.parameters).await?,
        false => parameters::values(&batches, handle.parameters)?,
    };
    drop(batches);
    service.bindings.bind(handle.id, caller.session_id(), caller.name(), values, memory)?;
    Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(command.prepared_statement_handle) })
}

/// The statement as it would run now, with the values bound to it.
pub(crate) fn bound_statement(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Statement, Status> {
    let handle = open(service, caller, handle)?;
    let values: Vec<ScalarValue> = match service.bindings.values(handle.id) {
        Some(values) if values.len() > handle.parameters => {
            let message = "several rows of values are bound; run the statement as an update, which takes them all";
            return Err(refuse(ErrorKind::InvalidInput, message));
        }
        Some(values) => values.to_vec(),
        None if handle.parameters == 0 => Vec::new(),
        None => {
            let message = format!(
                "the prepared statement needs {} values and has none; bind them (they are dropped when nobody uses \
                 them for an hour)",
                handle.parameters
            );
            return Err(refuse(ErrorKind::InvalidInput, message));
        }
    };
    Ok(statement_of(caller, handle, values))
}

/// The rows of values that are bound, where they are more than one.
pub(crate) fn bound_rows(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Option<RecordBatch>, Status> {
    let handle = open(service, caller, handle)?;
    match service.bindings.values(handle.id) {
        Some(values) if values.len() > handle.parameters => parameters::table(&values, handle.parameters).map(Some),
        _ => Ok(None),
    }
}

/// The text as it was prepared, without the values bound to it.
pub(crate) fn text(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Statement, Status> {
    Ok(statement_of(caller, open(service, caller, handle)?, Vec::new()))
}

/// The text as it was prepared, whether it has values or not.
pub(crate) fn unbound_statement(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Statement, Status> {
    let handle = open(service, caller, handle)?;
    let values = service.bindings.values(handle.id);
    Ok(statement_of(caller, handle, values.map_or_else(Vec::new, |values| values.to_vec())))
}

/// What a handle holds, with these values, to be sent as it was announced.
fn statement_of(caller: &Caller, handle: Handle, values: Vec<ScalarValue>) -> Statement {
    let mut statement = caller.statement(&handle.sql, values);
    statement.options.few = handle.few;
    statement
}

/// The description of its result.
pub(crate) async fn flight_info(
    service: &Service,
    caller: &Caller,
    handle: &[u8],
    (descriptor, pass): (FlightDescriptor, Pass),
) -> Result<FlightInfo, Status> {
    statement::flight_info(service, caller, bound_statement(service, caller, handle)?, (descriptor, pass)).await
}

/// Frees what the server keeps for a handle.
pub(crate) fn close(
    service: &Service,
    caller: &Caller,
    request: &ActionClosePreparedStatementRequest,
) -> Result<(), Status> {
    service.bindings.forget(open(service, caller, &request.prepared_statement_handle)?.id);
    Ok(())
}

fn open(service: &Service, caller: &Caller, handle: &[u8]) -> Result<Handle, Status> {
    let content = service.sealer.open(Purpose::PreparedStatement, handle)?;
    let handle: Handle = serde_json::from_slice(&content).map_err(|_| {
        refuse(ErrorKind::NotFound, "the statement was prepared by another version of lakegate; prepare it again")
    })?;
    if handle.principal != caller.name() {
        return Err(refuse(ErrorKind::PermissionDenied, "the statement was prepared by somebody else"));
    }
    Ok(handle)
}
