//! The access matrix: every call of the protocol by every kind of principal, each logged in with a password of their own,
//! against a real lake over a real socket. What each of them gets to see is compared with what they may see, and with
//! `docs/access-matrix.md`, which people read.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    ProstMessageExt,
};
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, Ticket};
use futures::TryStreamExt;
use prost::Message;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::world::{
    Connection, Person, Session, admin, allowed, connect_all, denied_column, denied_table, filtered_rows, lake,
    masked_column,
};
use crate::queries::house::text;

/// The page the matrix is kept on.
const PAGE: &str = "docs/access-matrix.md";

/// What may come to light in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// That there is a table `people`.
    Table,
    /// That it has a column `secret`.
    Column,
    /// Values of the column.
    Values,
    /// Rows that a filter hides from some.
    Rows,
    /// What is seen in the values' place.
    Mask,
}

impl Seen {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Table, "people", "table"),
        (Self::Column, "secret", "column"),
        (Self::Values, "secretval", "values"),
        (Self::Rows, "hiddenrow", "rows"),
        (Self::Mask, "***", "mask"),
    ];
}

/// A kind of principal, and what of `ops.people` may come to light for it.
struct Kind {
    name: &'static str,
    person: Person,
    may_see: &'static [Seen],
}

fn kinds() -> Vec<Kind> {
    use Seen::{Column, Mask, Rows, Table, Values};
    let kind = |name, person, may_see| Kind { name, person, may_see };
    vec![
        kind("admin", admin(), &[Table, Column, Values, Rows]),
        kind("allowed", allowed(), &[Table, Column, Values, Rows]),
        kind("denied table", denied_table(), &[]),
        kind("denied column", denied_column(), &[Table, Rows]),
        kind("filtered rows", filtered_rows(), &[Table, Column, Values]),
        kind("masked column", masked_column(), &[Table, Column, Rows, Mask]),
    ]
}

/// The calls, in the order of the page. A statement is asked for as text; the rest by its command or action.
const CALLS: &[(&str, Call)] = &[
    ("GetFlightInfo, statement", Call::Info("select * from ops.people")),
    ("PollFlightInfo, statement", Call::Poll("select * from ops.people")),
    ("GetSchema, statement", Call::Schema("select * from ops.people")),
    ("DoGet, ticket", Call::Fetch("select * from ops.people order by id")),
    ("DoGet, bare text", Call::Bare("select * from ops.people order by id")),
    ("DoGet, time travel", Call::Bare("select * from ops.people version as of 1 order by id")),
    ("DoGet, another's ticket", Call::Foreign),
    ("CreatePreparedStatement", Call::Prepare("select * from ops.people where id >= ?")),
    ("Prepared statement, bound and run", Call::Bound("select * from ops.people where id >= ? order by id")),
    ("Prepared statement, another's", Call::ForeignPrepared),
    ("ClosePreparedStatement", Call::Close("select * from ops.people")),
    ("GetCatalogs", Call::Command(Asked::Catalogs)),
    ("GetDbSchemas", Call::Command(Asked::Schemas)),
    ("GetTables, with columns", Call::Command(Asked::Tables)),
    ("GetTableTypes", Call::Command(Asked::TableTypes)),
    ("GetPrimaryKeys", Call::Command(Asked::PrimaryKeys)),
    ("GetExportedKeys", Call::Command(Asked::ExportedKeys)),
    ("GetImportedKeys", Call::Command(Asked::ImportedKeys)),
    ("GetCrossReference", Call::Command(Asked::CrossReference)),
    ("GetSqlInfo", Call::Command(Asked::SqlInfo)),
    ("GetXdbcTypeInfo", Call::Command(Asked::TypeInfo)),
    ("ListFlights", Call::Flights),
    ("ListActions", Call::Actions),
    ("CancelFlightInfo, another's", Call::Cancel),
    ("CancelQuery, another's", Call::CancelOlder),
    ("GetSessionOptions", Call::Session),
    ("DoPut, update", Call::Update("delete from ops.people")),
    ("DoPut, ingest", Call::Ingest),
    ("DoExchange", Call::Exchange),
    ("SHOW TABLES", Call::Bare("show tables")),
    ("SHOW COLUMNS", Call::Bare("show columns from ops.people")),
    ("DESCRIBE", Call::Bare("describe ops.people")),
    ("EXPLAIN", Call::Bare("explain select * from ops.people where id > 2")),
    ("EXPLAIN VERBOSE", Call::Bare("explain verbose select * from ops.people where id > 2")),
    ("EXPLAIN ANALYZE VERBOSE", Call::Bare("explain analyze verbose select * from ops.people where id > 2")),
    ("EXPLAIN ESTIMATE", Call::Bare("explain estimate select * from ops.people where id > 2")),
    ("information_schema.tables", Call::Bare("select * from information_schema.tables")),
    ("information_schema.columns", Call::Bare("select * from information_schema.columns")),
    ("information_schema.schemata", Call::Bare("select * from information_schema.schemata")),
    ("information_schema.views", Call::Bare("select * from information_schema.views")),
    ("information_schema.df_settings", Call::Bare("select * from information_schema.df_settings")),
    ("information_schema.routines", Call::Bare("select routine_name from information_schema.routines")),
    ("system.tables", Call::Bare("select * from system.tables")),
    ("system.loads", Call::Bare("select * from system.loads")),
    ("system.files", Call::Bare("select * from system.files")),
    ("system.rejects", Call::Bare("select * from system.rejects")),
    ("system.verifications", Call::Bare("select * from system.verifications")),
    ("error: a column that is not there", Call::Bare("select sceret from ops.people")),
    ("error: a table that is nearly so called", Call::Bare("select * from ops.peopel")),
];

#[derive(Clone, Copy)]
enum Call {
    Info(&'static str),
    Poll(&'static str),
    Schema(&'static str),
    Fetch(&'static str),
    Bare(&'static str),
    Foreign,
    Prepare(&'static str),
    Bound(&'static str),
    Close(&'static str),
    ForeignPrepared,
    Command(Asked),
    Flights,
    Actions,
    Cancel,
    CancelOlder,
    Session,
    Update(&'static str),
    Ingest,
    Exchange,
}

#[derive(Clone, Copy)]
enum Asked {
    Catalogs,
    Schemas,
    Tables,
    TableTypes,
    PrimaryKeys,
    ExportedKeys,
    ImportedKeys,
    CrossReference,
    SqlInfo,
    TypeInfo,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_shows_every_principal_what_they_may_see_and_no_more() {
    let house = lake().await;
    let kinds = kinds();
    let people: Vec<Person> = kinds.iter().map(|kind| kind.person.clone()).collect();
    let connections = connect_all(&house, &people).await;
    let foreign = Foreign::of(&Caller::new(&connections[0])).await;
    let mut cells = vec![vec![String::new(); kinds.len()]; CALLS.len()];
    let mut leaks = Vec::new();
    for (column, (kind, connection)) in kinds.iter().zip(&connections).enumerate() {
        let caller = Caller::new(connection);
        for (row, (name, call)) in CALLS.iter().enumerate() {
            let answer = caller.call(*call, &foreign).await;
            let (mark, told) = match &answer {
                Ok(told) => ("", told.clone()),
                // An error may repeat what was asked.
                Err(refused) => ("refused", without_echo(refused.message(), *call)),
            };
            let seen: Vec<_> = Seen::ALL.iter().filter(|(_, marker, _)| told.contains(marker)).collect();
            for (what, marker, _) in seen.iter().filter(|(what, ..)| !kind.may_see.contains(what)) {
                leaks.push(format!("{name} told {} of {what:?} (`{marker}`): {told}", kind.name));
            }
            // A schema that was granted to nobody is not there for anybody but the admin.
            if kind.name != "admin" && told.contains("payroll") {
                leaks.push(format!("{name} told {} of the schema `payroll`: {told}", kind.name));
            }
            let mut words: Vec<&str> = seen.iter().map(|(.., word)| *word).collect();
            words.extend((!mark.is_empty()).then_some(mark));
            cells[row][column] =
                if words.is_empty() { "✓ nothing".to_owned() } else { format!("✓ {}", words.join(", ")) };
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n\n"));
    compare(&page(&kinds, &cells));
}

/// What the page says has to be what was found.
fn compare(found: &str) {
    let at = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("access-matrix.md");
    std::fs::write(&at, found).unwrap();
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let told = std::fs::read_to_string(page).unwrap_or_default();
    assert!(told == found, "{PAGE} is not what was found; copy {} there if it is right", at.display());
}

fn page(kinds: &[Kind], cells: &[Vec<String>]) -> String {
    let mut page = "# Access matrix\n\nWhat comes to light of the table `ops.people` in each call, for each kind of \
                    principal. The test `tests/it/access/matrix.rs` makes\nevery call over a socket against a lake, as \
                    users who have logged in, fails when something comes to light that may not, and\ncompares this page \
                    with what it found.\n\n\
                    *table*: its name. *column*: the name of its column `secret`. *values*: what is in that column. \
                    *rows*: rows of a region that a row\nfilter hides. *mask*: what is seen in the place of masked values. \
                    *refused*: the call ended with an error.\n\n\
                    | principal | may see |\n| --- | --- |\n\
                    | admin | everything |\n\
                    | allowed | everything of the table |\n\
                    | denied table | nothing of it, not that it is there |\n\
                    | denied column | all rows, without the column |\n\
                    | filtered rows | all columns of some rows |\n\
                    | masked column | all rows, with a mask in the column's place |\n\n"
        .to_owned();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    writeln!(page, "| call | {} |", names.join(" | ")).unwrap();
    writeln!(page, "|{}", " --- |".repeat(names.len() + 1)).unwrap();
    for ((name, _), row) in CALLS.iter().zip(cells) {
        writeln!(page, "| {name} | {} |", row.join(" | ")).unwrap();
    }
    page
}

/// An error's text without the names the call itself wrote.
fn without_echo(message: &str, call: Call) -> String {
    match call {
        Call::Info(sql)
        | Call::Poll(sql)
        | Call::Schema(sql)
        | Call::Fetch(sql)
        | Call::Bare(sql)
        | Call::Prepare(sql)
        | Call::Bound(sql)
        | Call::Close(sql)
        | Call::Update(sql)
            if sql.contains("ops.people") =>
        {
            message.replacen("`ops.people`", "", 1)
        }
        _ => message.to_owned(),
    }
}

/// What an admin was given, in the hands of others.
struct Foreign {
    info: FlightInfo,
    prepared: FlightDescriptor,
}

impl Foreign {
    async fn of(admin: &Caller) -> Self {
        let sql = "select * from ops.people";
        let action = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", action.as_any().encode_to_vec());
        let answer = admin.plain.clone().do_action(action).await.unwrap().into_inner();
        let answer: Vec<_> = answer.try_collect().await.unwrap();
        let made: ActionCreatePreparedStatementResult =
            Any::decode(&*answer[0].body).unwrap().unpack().unwrap().unwrap();
        let command = CommandPreparedStatementQuery { prepared_statement_handle: made.prepared_statement_handle };
        let prepared = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        Self { info: admin.info(sql).await.unwrap(), prepared }
    }
}

/// A principal's connection, and what is told on it, as text.
struct Caller {
    plain: FlightServiceClient<InterceptedService<Channel, Session>>,
    sql: FlightSqlServiceClient<InterceptedService<Channel, Session>>,
}

impl Caller {
    fn new(connection: &Connection) -> Self {
        let channel = connection.channel.clone();
        Self { plain: FlightServiceClient::new(channel.clone()), sql: FlightSqlServiceClient::new(channel) }
    }

    async fn call(&self, call: Call, foreign: &Foreign) -> Result<String, Status> {
        match call {
            Call::Info(sql) => Ok(described(&self.info(sql).await?)),
            Call::Poll(sql) => {
                let polled = self.plain.clone().poll_flight_info(query(sql)).await?.into_inner();
                Ok(described(&polled.info.unwrap()))
            }
            Call::Schema(sql) => {
                let told = self.plain.clone().get_schema(query(sql)).await?.into_inner();
                Ok(columns(&try_schema_from_ipc_buffer(&told.schema).unwrap()))
            }
            Call::Fetch(sql) => {
                let info = self.info(sql).await?;
                self.fetch(info.endpoint[0].ticket.clone().unwrap()).await
            }
            Call::Bare(sql) => self.fetch(Ticket::new(sql)).await,
            Call::Foreign => self.fetch(foreign.info.endpoint[0].ticket.clone().unwrap()).await,
            Call::Prepare(sql) => {
                let prepared = self.sql.clone().prepare(sql.to_owned(), None).await.map_err(status)?;
                let both = (prepared.dataset_schema(), prepared.parameter_schema());
                Ok(format!("{} {}", columns(both.0.unwrap()), columns(both.1.unwrap())))
            }
            Call::Bound(sql) => {
                let mut client = self.sql.clone();
                let mut prepared = client.prepare(sql.to_owned(), None).await.map_err(status)?;
                let value: ArrayRef = Arc::new(Int64Array::from(vec![1]));
                prepared.set_parameters(RecordBatch::try_from_iter([("0", value)]).unwrap()).map_err(status)?;
                let info = prepared.execute().await.map_err(status)?;
                self.fetch(info.endpoint[0].ticket.clone().unwrap()).await
            }
            Call::Close(sql) => {
                let prepared = self.sql.clone().prepare(sql.to_owned(), None).await.map_err(status)?;
                prepared.close().await.map_err(status).map(|()| String::new())
            }
            Call::ForeignPrepared => {
                let info = self.plain.clone().get_flight_info(foreign.prepared.clone()).await?.into_inner();
                self.fetch(info.endpoint[0].ticket.clone().unwrap()).await
            }
            Call::Command(asked) => {
                let info = self.plain.clone().get_flight_info(FlightDescriptor::new_cmd(asked.bytes())).await?;
                let info = info.into_inner();
                Ok(format!("{} {}", described(&info), self.fetch(info.endpoint[0].ticket.clone().unwrap()).await?))
            }
            Call::Flights => {
                let flights = self.plain.clone().list_flights(Criteria::default()).await?.into_inner();
                let flights: Vec<FlightInfo> = flights.try_collect().await?;
                Ok(flights.iter().map(|info| format!("{:?} {}\n", info.flight_descriptor, described(info))).collect())
            }
            Call::Actions => {
                let actions = self.plain.clone().list_actions(Empty {}).await?.into_inner();
                Ok(format!("{:?}", actions.try_collect::<Vec<_>>().await?))
            }
            Call::Cancel => {
                let request = arrow_flight::CancelFlightInfoRequest::new(foreign.info.clone());
                self.act("CancelFlightInfo", request.encode_to_vec()).await
            }
            Call::CancelOlder => {
                let request = ActionCancelQueryRequest { info: foreign.info.encode_to_vec().into() };
                self.act("CancelQuery", request.as_any().encode_to_vec()).await
            }
            Call::Session => self.act("GetSessionOptions", vec![]).await,
            Call::Update(sql) => {
                let update = CommandStatementUpdate { query: sql.to_owned(), transaction_id: None };
                self.put(update.as_any().encode_to_vec()).await
            }
            Call::Ingest => {
                let ingest = CommandStatementIngest {
                    table: "people".to_owned(),
                    schema: Some("ops".to_owned()),
                    ..CommandStatementIngest::default()
                };
                self.put(ingest.as_any().encode_to_vec()).await
            }
            Call::Exchange => {
                let message = FlightData { flight_descriptor: Some(query("x")), ..FlightData::default() };
                let answer = self.plain.clone().do_exchange(futures::stream::iter([message])).await?.into_inner();
                Ok(format!("{:?}", answer.try_collect::<Vec<_>>().await?))
            }
        }
    }

    async fn info(&self, sql: &str) -> Result<FlightInfo, Status> {
        Ok(self.plain.clone().get_flight_info(query(sql)).await?.into_inner())
    }

    async fn fetch(&self, ticket: Ticket) -> Result<String, Status> {
        let stream = self.plain.clone().do_get(ticket).await?.into_inner();
        let mut stream = FlightRecordBatchStream::new_from_flight_data(stream.map_err(Into::into));
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await.map_err(status)? {
            batches.push(batch);
        }
        let schema = stream.schema().map(|schema| columns(schema)).unwrap_or_default();
        Ok(format!("{schema}\n{}\n{}", nested_schemas(&batches), text(&batches).join("\n")))
    }

    async fn act(&self, name: &str, body: Vec<u8>) -> Result<String, Status> {
        let answers = self.plain.clone().do_action(Action::new(name, body)).await?.into_inner();
        Ok(format!("{:?}", answers.try_collect::<Vec<_>>().await?))
    }

    async fn put(&self, command: Vec<u8>) -> Result<String, Status> {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("id", value)]).unwrap();
        let messages = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command)))
            .build(futures::stream::iter([Ok(batch)]));
        let messages: Vec<FlightData> = messages.try_collect().await.unwrap();
        let answers = self.plain.clone().do_put(futures::stream::iter(messages)).await?.into_inner();
        Ok(format!("{:?}", answers.try_collect::<Vec<_>>().await?))
    }
}

impl Asked {
    fn bytes(self) -> Vec<u8> {
        let table = || "people".to_owned();
        let any: Any = match self {
            Self::Catalogs => CommandGetCatalogs {}.as_any(),
            Self::Schemas => CommandGetDbSchemas::default().as_any(),
            Self::Tables => CommandGetTables { include_schema: true, ..CommandGetTables::default() }.as_any(),
            Self::TableTypes => CommandGetTableTypes {}.as_any(),
            Self::PrimaryKeys => CommandGetPrimaryKeys { table: table(), ..CommandGetPrimaryKeys::default() }.as_any(),
            Self::ExportedKeys => {
                CommandGetExportedKeys { table: table(), ..CommandGetExportedKeys::default() }.as_any()
            }
            Self::ImportedKeys => {
                CommandGetImportedKeys { table: table(), ..CommandGetImportedKeys::default() }.as_any()
            }
            Self::CrossReference => {
                CommandGetCrossReference { pk_table: table(), fk_table: table(), ..CommandGetCrossReference::default() }
                    .as_any()
            }
            Self::SqlInfo => CommandGetSqlInfo::default().as_any(),
            Self::TypeInfo => CommandGetXdbcTypeInfo::default().as_any(),
        };
        // What cannot be read back would be refused for another reason than the one that is looked at.
        assert!(Command::try_from(any.clone()).is_ok());
        any.encode_to_vec()
    }
}

fn query(sql: &str) -> FlightDescriptor {
    let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

/// What a description tells: its columns, and what it says of rows and bytes.
fn described(info: &FlightInfo) -> String {
    let schema = try_schema_from_ipc_buffer(&info.schema).map(|schema| columns(&schema)).unwrap_or_default();
    format!("{schema} {} {} {:?}", info.total_records, info.total_bytes, info.app_metadata)
}

fn columns(schema: &Schema) -> String {
    let fields =
        schema.fields().iter().map(|field| format!("{}: {} {:?}", field.name(), field.data_type(), field.metadata()));
    fields.collect::<Vec<_>>().join(", ")
}

/// Schemas that are sent as values.
fn nested_schemas(batches: &[RecordBatch]) -> String {
    let columns_of =
        |bytes: &[u8]| try_schema_from_ipc_buffer(bytes).map(|schema| columns(&schema)).unwrap_or_default();
    let binary = batches.iter().flat_map(RecordBatch::columns).filter(|column| *column.data_type() == DataType::Binary);
    binary.flat_map(|column| column.as_binary::<i32>().iter().flatten().map(columns_of)).collect::<Vec<_>>().join("\n")
}

fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::unknown(other.to_string()),
    }
}
