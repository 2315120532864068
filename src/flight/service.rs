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
use http::Extensions;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::config::{HistorySettings, ResultSettings};
use crate::delivery::{Encoders, LearnedSizes, Lines, Sealer, single_batch, wire_schema};
use crate::error::ErrorKind;
use crate::flight::admission::Admission;
use crate::flight::allowance::Allowances;
use crate::flight::authenticator::Authenticator;
use crate::flight::bindings::Bindings;
use crate::flight::caller::{Caller, peer};
use crate::flight::command::{Asked, Redeemed};
use crate::flight::connection_count::Connections;
use crate::flight::download::{Downloads, start_over};
use crate::flight::gate::{Gate, Pass};
use crate::flight::metadata::MetadataCommand;
use crate::flight::plans::Plans;
use crate::flight::results::{ResultStream, encapsulated, flight_info};
use crate::flight::run::{Handle, StopReason, stop_all};
use crate::flight::session::Sessions;
use crate::flight::sharing::Sharing;
use crate::flight::status::refuse;
use crate::flight::{actions, described, handshake, ingest, prepared, statement, update};
use crate::journal::Journal;
use crate::query::{QueryEngine, QueryError, TableSummary};
use crate::runtime::clock::Clock;
use crate::runtime::live::Live;

/// A stream of answers.
pub(crate) type Boxed<T> = BoxStream<'static, Result<T, Status>>;

/// What answering needs.
pub(crate) struct Service {
    /// Answers SQL.
    pub(crate) engine: Arc<dyn QueryEngine>,
    /// Tells when tickets expire.
    pub(crate) clock: Arc<dyn Clock>,
    /// Tells who makes a call.
    pub(crate) authenticator: Authenticator,
    /// Seals tickets and handles.
    pub(crate) sealer: Sealer,
    /// How long a ticket can be redeemed.
    pub(crate) ticket_lifetime: Duration,
    /// Longest time a statement may let people wait for rows.
    pub(crate) query_timeout: Duration,
    /// Values of prepared statements.
    pub(crate) bindings: Bindings,
    /// The statements that run, and what can be done to them.
    pub(crate) runs: Live<Handle>,
    /// What is told of them, now and later.
    pub(crate) journal: Arc<Journal>,
    /// What of it is kept.
    pub(crate) history: HistorySettings,
    /// Sessions of clients.
    pub(crate) sessions: Sessions,
    /// Whose turn it is to compute.
    pub(crate) admission: Admission,
    /// What people were sent.
    pub(crate) allowances: Allowances,
    /// The lines that people share.
    pub(crate) lines: Lines,
    /// How results are sent where nobody says otherwise.
    pub(crate) results: ResultSettings,
    /// How long a client may take nothing of a result.
    pub(crate) idle_reader: Duration,
    /// How large columns are on the line.
    pub(crate) sizes: LearnedSizes,
    /// Largest result a statement may ask for, in bytes on the line.
    pub(crate) max_result_bytes: Option<u64>,
    /// Plans that wait for their ticket to be redeemed.
    pub(crate) plans: Plans,
    /// Connections of clients.
    pub(crate) connections: Connections,
    /// Pack results for the line.
    pub(crate) encoders: Encoders,
    /// Results that outlive the connection they are read over.
    pub(crate) downloads: Downloads,
    /// Results that several may have.
    pub(crate) sharing: Sharing,
}

impl Service {
    /// The tables there are for a caller.
    pub(crate) async fn tables(&self, caller: &Caller) -> Result<Vec<TableSummary>, QueryError> {
        self.engine.tables(&caller.access).await
    }

    /// Stops what runs for a session that is over, and forgets what was kept for it.
    pub(crate) fn free(&self, session: Uuid) {
        stop_all(&self.runs, StopReason::SessionClosed, |run| run.session == session);
        self.bindings.forget_session(session);
    }

    async fn flight_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
        pass: Pass,
    ) -> Result<FlightInfo, Status> {
        match Asked::try_from(&descriptor)? {
            Asked::Statement(sql) => {
                statement::flight_info(self, caller, caller.statement(&sql, Vec::new()), (descriptor, pass)).await
            }
            Asked::Prepared(handle) => prepared::flight_info(self, caller, &handle, (descriptor, pass)).await,
            Asked::Metadata(command) => flight_info(&command.schema(), descriptor.cmd.clone(), None, descriptor),
        }
    }

    async fn schema(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<SchemaResult, Status> {
        let statement = match Asked::try_from(descriptor)? {
            Asked::Metadata(command) => return Ok(SchemaResult { schema: encapsulated(&command.schema())? }),
            Asked::Statement(sql) => caller.statement(&sql, Vec::new()),
            Asked::Prepared(handle) => prepared::unbound_statement(self, caller, &handle)?,
        };
        let mut planned = statement::look_at(self, caller, statement).await?;
        let schema = described::announced(self, &mut planned, caller.wishes().profile()?).await;
        Ok(SchemaResult { schema: encapsulated(&schema)? })
    }

    /// The rows a ticket stands for.
    pub(crate) async fn rows(&self, caller: &Caller, ticket: &Ticket, pass: Pass) -> Result<ResultStream, Status> {
        let redeemed = Redeemed::try_from(ticket)?;
        if matches!(redeemed, Redeemed::Asked(_)) && caller.resume().is_some_and(|wanted| wanted.from.next > 0) {
            return Err(start_over("only tickets that GetFlightInfo gave can be gone on with"));
        }
        match redeemed {
            Redeemed::Sealed(sealed) => statement::redeem(self, caller, &sealed, pass).await,
            Redeemed::Asked(Asked::Statement(sql)) => {
                statement::run_now(self, caller, caller.statement(&sql, Vec::new()), pass).await
            }
            Redeemed::Asked(Asked::Prepared(handle)) => {
                statement::run_now(self, caller, prepared::bound_statement(self, caller, &handle)?, pass).await
            }
            Redeemed::Asked(Asked::Metadata(command)) => self.metadata(caller, &command, pass).await,
        }
    }

    async fn metadata(&self, caller: &Caller, command: &MetadataCommand, pass: Pass) -> Result<ResultStream, Status> {
        let rows: SendableRecordBatchStream = single_batch(command.answer(self, caller).await?);
        let answer = (command.schema(), caller.wishes().codec());
        ResultStream::of_answer(self, answer, rows, pass, caller)
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
    async fn put(&self, caller: &Caller, mut messages: Streaming<FlightData>, pass: Pass) -> Result<PutResult, Status> {
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
            Command::CommandStatementUpdate(command) => {
                Ok(told(&update::statement(self, caller, command, pass).await?))
            }
            Command::CommandPreparedStatementUpdate(command) => {
                let messages = futures::stream::iter([Ok(first)]).chain(messages);
                Ok(told(&update::prepared(self, caller, command, messages, pass).await?))
            }
            Command::CommandStatementIngest(command) => {
                let messages = futures::stream::iter([Ok(first)]).chain(messages);
                Ok(told(&ingest::ingest(self, caller, command, messages, pass).await?))
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
        handshake::answer(&self.service.authenticator, request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let caller = self.caller(request.metadata(), request.extensions()).await?;
        let _pass = self.gate.enter()?;
        Ok(Response::new(many(self.service.flights(&caller).await?)))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.metadata(), request.extensions()).await?;
        let pass = self.gate.enter()?;
        self.service.flight_info(&caller, request.into_inner(), pass).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = self.caller(request.metadata(), request.extensions()).await?;
        let pass = self.gate.enter()?;
        // Planning is all there is to wait for; without a descriptor in the answer nobody polls again.
        let info = self.service.flight_info(&caller, request.into_inner(), pass).await?;
        Ok(Response::new(PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(request.metadata(), request.extensions()).await?;
        let _pass = self.gate.enter()?;
        self.service.schema(&caller, request.get_ref()).await.map(Response::new)
    }

    /// `do_get.rs` answers on a connection, before the generated service is asked.
    async fn do_get(&self, _request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Err(refuse(ErrorKind::Unsupported, "rows are sent by another way; ask again"))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller(request.metadata(), request.extensions()).await?;
        let pass = self.gate.enter()?;
        Ok(Response::new(many([self.service.put(&caller, request.into_inner(), pass).await?])))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(refuse(ErrorKind::Unsupported, "there is no exchange; use GetFlightInfo and DoGet"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.stranger(request.metadata(), request.extensions()).await?;
        let begins = !actions::begins_no_session(&request.get_ref().r#type);
        let caller = if begins { caller.enter(&self.service.sessions)? } else { caller };
        let action = request.into_inner();
        let answer = actions::run(&self.service, &caller, &self.gate, &action.r#type, &action.body).await?;
        let mut response = Response::new(many(answer.body.map(|body| arrow_flight::Result { body })));
        if let Some(cookie) = answer.cookie {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        Ok(response)
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.stranger(request.metadata(), request.extensions()).await?;
        Ok(Response::new(many(actions::list())))
    }
}

impl FlightCalls {
    /// Who makes a call, within their session.
    pub(crate) async fn caller(&self, headers: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        self.stranger(headers, extensions).await?.enter(&self.service.sessions)
    }

    /// Who makes a call that begins no session.
    async fn stranger(&self, headers: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        self.service.connections.check(peer(extensions).address)?;
        let caller = Caller::read(&self.service.authenticator, headers, extensions).await?;
        Ok(caller.on(&self.service.lines, self.service.results))
    }
}

/// A count of rows as `DoPut` answers with it.
fn told(result: &DoPutUpdateResult) -> PutResult {
    PutResult { app_metadata: result.encode_to_vec().into() }
}

fn many<T: Send + 'static, I: IntoIterator<Item = T>>(items: I) -> Boxed<T>
where
    I::IntoIter: Send + 'static,
{
    futures::stream::iter(items.into_iter().map(Ok)).boxed()
}
