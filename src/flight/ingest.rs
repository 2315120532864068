//! `CommandStatementIngest`: rows that a client sends into a table, all of them or none.

use std::time::Duration;

use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, DoPutUpdateResult};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tonic::Status;
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::command::refuse_transaction;
use crate::flight::gate::Pass;
use crate::flight::metadata::CATALOG;
use crate::flight::patience::LONGEST_DOWNLOAD;
use crate::flight::run::Run;
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::{incoming, status};
use crate::query::{Changed, IfExisting, IfMissing, IncomingRows, Ingestion, QueryError};

/// Takes the rows; answers with how many there were once they are committed.
pub(crate) async fn ingest(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    pass: Pass,
) -> Result<DoPutUpdateResult, Status> {
    let text = format!("INGEST INTO {}", command.table);
    let mut run = Run::begin(service, caller, &text, Uuid::new_v4(), pass);
    // It takes no turn: it waits for its client for most of its time, and the sort's memory is the pool's.
    run.told.takes_turn();
    let changed = take(service, caller, command, messages, &run).await;
    run.end(changed.as_ref().map(|_| ()));
    let changed = changed?;
    let record_count = i64::try_from(changed.rows).map_err(|error| status::malformed(&error))?;
    Ok(DoPutUpdateResult { record_count })
}

async fn take(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    run: &Run,
) -> Result<Changed, Status> {
    let mut ingestion = Ingestion::try_from(command)?;
    // A name without a schema means the same table as in a statement of the session.
    ingestion.schema = ingestion.schema.or_else(|| caller.options().of_statements().schema);
    let work = async {
        let (schema, batches) = incoming::rows(messages).await?;
        let batches = patiently(batches, service.query_timeout);
        let rows = IncomingRows { schema, batches };
        let changed = service.engine.ingest(ingestion, rows, &caller.access, LONGEST_DOWNLOAD).await;
        changed.map_err(Status::from)
    };
    tokio::select! {
        biased;
        changed = work => changed,
        () = run.pass().stopped() => Err(run.stopped()),
    }
}

impl TryFrom<CommandStatementIngest> for Ingestion {
    type Error = Status;

    fn try_from(command: CommandStatementIngest) -> Result<Self, Status> {
        let CommandStatementIngest {
            table_definition_options,
            table,
            schema,
            catalog,
            temporary,
            transaction_id,
            options,
        } = command;
        refuse_transaction(transaction_id.as_deref())?;
        if temporary {
            let message = "there are no temporary tables; make one in the schema results, and drop it afterwards";
            return Err(refuse(ErrorKind::Unsupported, message));
        }
        if let Some(option) = options.keys().min() {
            return Err(refuse(
                ErrorKind::Unsupported,
                format!("the ingest option `{option}` is not known; leave it out"),
            ));
        }
        if let Some(other) = catalog.filter(|catalog| !catalog.is_empty() && catalog != CATALOG) {
            let message = format!("there is no catalog `{other}`; the only one is `{CATALOG}`");
            return Err(refuse(ErrorKind::NotFound, message));
        }
        let told = table_definition_options.unwrap_or_default();
        let (missing, existing) = definition(told.if_not_exist, told.if_exists)?;
        Ok(Self { schema: schema.filter(|schema| !schema.is_empty()), table, missing, existing })
    }
}

/// What the numbers of `TableNotExistOption` and `TableExistsOption` mean (FlightSql.proto).
fn definition(if_not_exist: i32, if_exists: i32) -> Result<(IfMissing, IfExisting), Status> {
    let missing = match if_not_exist {
        1 => Some(IfMissing::Create),
        2 => Some(IfMissing::Fail),
        _ => None,
    };
    let existing = match if_exists {
        1 => Some(IfExisting::Fail),
        2 => Some(IfExisting::Append),
        3 => Some(IfExisting::Replace),
        _ => None,
    };
    missing.zip(existing).ok_or_else(|| {
        let message = "the ingestion does not say what to do where there is a table, and where there is none";
        refuse(ErrorKind::InvalidInput, message)
    })
}

/// The batches as long as each comes in time: whoever sends nothing must not keep others from the table for ever.
fn patiently(
    batches: BoxStream<'static, Result<arrow::array::RecordBatch, Status>>,
    limit: Duration,
) -> BoxStream<'static, Result<arrow::array::RecordBatch, QueryError>> {
    futures::stream::unfold(Some(batches), move |batches| async move {
        let mut batches = batches?;
        match tokio::time::timeout(limit, batches.next()).await {
            Ok(Some(Ok(batch))) => Some((Ok(batch), Some(batches))),
            Ok(Some(Err(status))) => Some((Err(status::in_query_words(&status)), None)),
            Ok(None) => None,
            Err(_) => {
                let limit = humantime::format_duration(limit);
                let message = format!("no rows came for {limit} (`limits.query_timeout`); nothing was written");
                Some((Err(QueryError::new(ErrorKind::DeadlineExceeded, message)), None))
            }
        }
    })
    .boxed()
}
