//! The ten calls of Flight. Each reads what is asked for and hands over to the command's own file.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::delivery::{Sealer, single_batch, wire_schema};
use crate::error::ErrorKind;
use crate::flight::bindings::Bindings;
use crate::flight::caller::Caller;
use crate::flight::command::{Asked, Redeemed};
use crate::flight::gate::{Gate, Pass};
use crate::flight::metadata::MetadataCommand;
use crate::flight::patience::Patience;
use crate::flight::results::{ResultStream, encapsulated, flight_data, flight_info};
use crate::flight::running::Running;
use crate::flight::status::refuse;
use crate::flight::{actions, handshake, ingest, prepared, statement, update};
use crate::query::{QueryEngine, QueryError, TableSummary};
use crate::runtime::clock::Clock;

/// A stream of answers.
pub(crate) type Boxed<T> = BoxStream<'static, Result<T, Status>>;

/// What answering needs.
pub(crate) struct Service {
    /// Answers SQL.
    pub(crate) engine: Arc<dyn QueryEngine>,
    /// Tells when tickets expire.
    pub(crate) clock: Arc<dyn Clock>,
    /// Seals tickets and handles.
    pub(crate) sealer: Sealer,
    /// How long a ticket can be redeemed.
    pub(crate) ticket_lifetime: Duration,
    /// Longest time a statement may let people wait for rows.
    pub(crate) query_timeout: Duration,
    /// Values of prepared statements.
    pub(crate) bindings: Bindings,
    /// Results on their way.
    pub(crate) running: Running,
}

impl Service {
    /// The tables there are for a caller.
    pub(crate) async fn tables(&self, caller: &Caller) -> Result<Vec<TableSummary>, QueryError> {
        self.engine.tables(&caller.access).await
    }

    async fn flight_info(&self, caller: &Caller, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        match Asked::try_from(&descriptor)? {
            Asked::Statement(sql) => {
                statement::flight_info(self, caller, statement::statement(&sql, Vec::new()), descriptor).await
            }
            Asked::Prepared(handle) => prepared::flight_info(self, caller, &handle, descriptor).await,
            Asked::Metadata(command) => flight_info(&command.schema(), descriptor.cmd.clone(), None, descriptor),
        }
    }

    async fn schema(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<SchemaResult, Status> {
        let statement = match Asked::try_from(descriptor)? {
            Asked::Metadata(command) => return Ok(SchemaResult { schema: encapsulated(&command.schema())? }),
            Asked::Statement(sql) => statement::statement(&sql, Vec::new()),
            Asked::Prepared(handle) => prepared::unbound_statement(self, caller, &handle)?,
        };
        let planned = self.engine.plan(statement, &caller.access).await?;
        Ok(SchemaResult { schema: encapsulated(&wire_schema(&planned.schema))? })
    }

    /// The rows a ticket stands for.
    pub(crate) async fn rows(&self, caller: &Caller, ticket: &Ticket, pass: Pass) -> Result<ResultStream, Status> {
        match Redeemed::try_from(ticket)? {
            Redeemed::Sealed(sealed) => statement::redeem(self, caller, &sealed, pass).await,
            Redeemed::Asked(Asked::Statement(sql)) => {
                statement::run_now(self, caller, statement::statement(&sql, Vec::new()), pass).await
            }
            Redeemed::Asked(Asked::Prepared(handle)) => {
                statement::run_now(self, caller, prepared::bound_statement(self, caller, &handle)?, pass).await
            }
            Redeemed::Asked(Asked::Metadata(command)) => self.metadata(caller, &command, pass).await,
        }
    }

    async fn metadata(&self, caller: &Caller, command: &MetadataCommand, pass: Pass) -> Result<ResultStream, Status> {
        let rows: SendableRecordBatchStream = single_batch(command.answer(self, caller).await?);
        let patience = Patience::new(self.query_timeout);
        ResultStream::new(command.schema(), rows, Uuid::new_v4(), &self.running, (patience, pass))
    }

    /// The tables as things that can be flown: each with the command that reads it.
    async fn flights(&self, caller: &Caller) -> Result<Vec<FlightInfo>, Status> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let info = |table: &TableSummary| {
            let sql = format!("select * from {}.{}", quoted(&table.schema), quoted(&table.table));
            let info = FlightInfo::new().try_with_schema(&wire_schema(&table.columns));
            let info = info.map_err(|error| super::status::malformed(&error))?;
            Ok(info.with_descriptor(FlightDescriptor::new_cmd(sql)))
        };
        self.tables(caller).await?.iter().map(info).collect()
    }

    /// Takes what a client sends. The first message says what for, and may hold data already.
    async fn put(&self, caller: &Caller, mut messages: Streaming<FlightData>) -> Result<PutResult, Status> {
        let nothing = || refuse(ErrorKind::InvalidInput, "nothing says what the data is for: no descriptor was sent");
        let first = messages.message().await?.ok_or_else(nothing)?;
        let descriptor = first.flight_descriptor.clone().ok_or_else(nothing)?;
        let unreadable = |error: &dyn std::error::Error| {
            refuse(ErrorKind::InvalidInput, format!("the command cannot be read: {error}"))
        };
        let any = Any::decode(descriptor.cmd).map_err(|error| unreadable(&error))?;
        match Command::try_from(any).map_err(|error| unreadable(&error))? {
            Command::CommandPreparedStatementQuery(command) => {
                let messages = futures::stream::iter([Ok(first)]).chain(messages);
                let result = prepared::bind(self, caller, command, messages).await?;
                Ok(PutResult { app_metadata: result.encode_to_vec().into() })
            }
            Command::CommandStatementUpdate(command) => Ok(told(&update::statement(self, caller, command).await?)),
            Command::CommandPreparedStatementUpdate(command) => {
                let messages = futures::stream::iter([Ok(first)]).chain(messages);
                Ok(told(&update::prepared(self, caller, command, messages).await?))
            }
            Command::CommandStatementIngest(command) => {
                let messages = futures::stream::iter([Ok(first)]).chain(messages);
                Ok(told(&ingest::ingest(self, caller, command, messages).await?))
            }
            other => {
                let message = format!("`{}` takes no data", other.type_url());
                Err(refuse(ErrorKind::Unsupported, message))
            }
        }
    }
}

/// The service as tonic calls it.
#[derive(Clone)]
pub(crate) struct FlightCalls {
    /// What answering needs.
    pub(crate) service: Arc<Service>,
    /// Whether anything is let in.
    pub(crate) gate: Gate,
}

#[tonic::async_trait]
impl FlightService for FlightCalls {
    type HandshakeStream = Boxed<HandshakeResponse>;
    type ListFlightsStream = Boxed<FlightInfo>;
    type DoGetStream = Boxed<FlightData>;
    type DoPutStream = Boxed<PutResult>;
    type DoActionStream = Boxed<arrow_flight::Result>;
    type ListActionsStream = Boxed<ActionType>;
    type DoExchangeStream = Boxed<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        handshake::answer(request.metadata())
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let caller = caller(&request)?;
        let _pass = self.gate.enter()?;
        Ok(Response::new(many(self.service.flights(&caller).await?)))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = caller(&request)?;
        let pass = self.gate.enter()?;
        tokio::select! {
            biased;
            () = pass.stopped() => Err(pass.reason()),
            info = self.service.flight_info(&caller, request.into_inner()) => info.map(Response::new),
        }
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = caller(&request)?;
        let _pass = self.gate.enter()?;
        // Planning is all there is to wait for; without a descriptor in the answer nobody polls again.
        let info = self.service.flight_info(&caller, request.into_inner()).await?;
        Ok(Response::new(PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = caller(&request)?;
        let _pass = self.gate.enter()?;
        self.service.schema(&caller, request.get_ref()).await.map(Response::new)
    }

    /// What `line.rs` answers on a connection, in the shape the generated service wants it.
    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = caller(&request)?;
        let rows = self.service.rows(&caller, request.get_ref(), self.gate.enter()?).await?;
        Ok(Response::new(rows.map(|message| message.map(|message| flight_data(&message))).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = caller(&request)?;
        let pass = self.gate.enter()?;
        let put = tokio::select! {
            biased;
            () = pass.stopped() => Err(pass.reason()),
            put = self.service.put(&caller, request.into_inner()) => put,
        };
        Ok(Response::new(many([put?])))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(refuse(ErrorKind::Unsupported, "there is no exchange; use GetFlightInfo and DoGet"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = caller(&request)?;
        let action = request.into_inner();
        let answer = actions::run(&self.service, &caller, &self.gate, &action.r#type, &action.body).await?;
        Ok(Response::new(many(answer.map(|body| arrow_flight::Result { body }))))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(many(actions::list())))
    }
}

/// A count of rows as `DoPut` answers with it.
fn told(result: &DoPutUpdateResult) -> PutResult {
    PutResult { app_metadata: result.encode_to_vec().into() }
}

/// Who makes a call.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    Caller::read(request.metadata(), request.extensions())
}

fn many<T: Send + 'static, I: IntoIterator<Item = T>>(items: I) -> Boxed<T>
where
    I::IntoIter: Send + 'static,
{
    futures::stream::iter(items.into_iter().map(Ok)).boxed()
}
