//! Tickets and what was prepared are good only for whom they were made, as long as they may see the same.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest, Any,
    CommandPreparedStatementQuery, ProstMessageExt,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Code, Status};

use super::world::{
    Connection, Person, admin, allowed, connect, connect_all, denied_column, denied_table, filtered, filtered_rows,
    lake, masked_column,
};
use crate::queries::house::text;

const SQL: &str = "select id, name from ops.people order by id";

async fn info(connection: &Connection, sql: &str) -> FlightInfo {
    let mut client = FlightServiceClient::new(connection.channel.clone());
    client.get_flight_info(FlightDescriptor::new_cmd(sql.to_owned())).await.unwrap().into_inner()
}

async fn redeem(connection: &Connection, info: &FlightInfo) -> Result<Vec<String>, Status> {
    let mut client = FlightServiceClient::new(connection.channel.clone());
    let stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await?.into_inner();
    let stream = FlightRecordBatchStream::new_from_flight_data(stream.map_err(Into::into));
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    })?;
    Ok(text(&batches))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_works_again_on_a_second_server_and_after_a_restart() {
    let house = lake().await;
    let first = connect(&house, &filtered_rows()).await;
    let made = info(&first, SQL).await;
    house
        .load(
            "ops.people",
            super::world::PEOPLE,
            "select 9 as id, 'new' as name, 'north' as region, 1 as salary, \
        's' as secret, named_struct('street', 'a', 'city', 'b') as address, ['x'] as tags",
        )
        .await;
    assert_eq!(redeem(&first, &made).await.unwrap(), ["1 ann", "2 bob"]);
    drop(first);
    let second = connect(&house, &filtered_rows()).await;
    assert_eq!(redeem(&second, &made).await.unwrap(), ["1 ann", "2 bob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_ends_with_the_rights_it_was_made_with() {
    let house = lake().await;
    let ann = |person: Person| person.called("ann");
    let made = info(&connect(&house, &ann(filtered_rows())).await, SQL).await;
    let mut told = Vec::new();
    for now in
        [denied_table(), denied_column(), masked_column(), allowed(), filtered("region = 'south'"), filtered("true")]
    {
        let refused = redeem(&connect(&house, &ann(now.clone())).await, &made).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{now:?}");
        told.push(refused.message().to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "no hint at what has changed: {told:?}");
    assert!(!told[0].contains("people"), "{told:?}");
    // The other way round: rights that grew do not show more through an old ticket.
    let made = info(&connect(&house, &ann(masked_column())).await, "select secret from ops.people").await;
    let refused = redeem(&connect(&house, &ann(allowed())).await, &made).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told[0].as_str()));
    // Another table's grants do not matter.
    let made = info(&connect(&house, &ann(allowed())).await, "select count(*) from pub.numbers").await;
    assert_eq!(redeem(&connect(&house, &ann(denied_table())).await, &made).await.unwrap(), ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_was_touched_or_is_another_houses_says_nothing() {
    let house = lake().await;
    let ann = connect(&house, &filtered_rows()).await;
    let made = info(&ann, SQL).await;
    let ticket = made.endpoint[0].ticket.clone().unwrap().ticket;
    for place in [ticket.len() / 2, ticket.len() - 1, ticket.len() - 20] {
        let mut touched = ticket.to_vec();
        touched[place] ^= 1;
        let mut info = made.clone();
        info.endpoint[0].ticket = Some(arrow_flight::Ticket::new(touched));
        let refused = redeem(&ann, &info).await.unwrap_err();
        assert!(matches!(refused.code(), Code::Unauthenticated | Code::InvalidArgument), "{refused:?}");
        assert!(!refused.message().contains("people") && !refused.message().contains("select"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_is_planned_with_the_rights_of_now() {
    let house = lake().await;
    let ann = |person: Person| person.called("ann");
    let before = connect(&house, &ann(allowed())).await;
    let mut client = FlightSqlServiceClient::new(before.channel.clone());
    let mut prepared = client.prepare("select count(*) from ops.people".to_owned(), None).await.unwrap();
    let handle = {
        let made = prepared.execute().await.unwrap();
        made.flight_descriptor.unwrap().cmd
    };
    for (now, rows) in [(filtered_rows(), Some("2")), (masked_column(), Some("4")), (denied_table(), None)] {
        let connection = connect(&house, &ann(now)).await;
        let mut client = FlightServiceClient::new(connection.channel.clone());
        let made = client.get_flight_info(FlightDescriptor::new_cmd(handle.clone())).await;
        match (made, rows) {
            (Ok(made), Some(rows)) => assert_eq!(redeem(&connection, &made.into_inner()).await.unwrap(), [rows]),
            (Err(refused), None) => assert_eq!(refused.code(), Code::NotFound, "{refused:?}"),
            (made, rows) => panic!("{made:?} {rows:?}"),
        }
    }
}

/// What a cancellation of either form is answered with.
async fn cancel(connection: &Connection, info: &FlightInfo) -> [CancelStatus; 2] {
    let mut client = FlightServiceClient::new(connection.channel.clone());
    let mut act = async |name: &str, body: Vec<u8>| {
        let answers = client.do_action(Action::new(name, body)).await.unwrap().into_inner();
        let answers: Vec<_> = answers.try_collect().await.unwrap();
        answers[0].body.clone()
    };
    let older = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let older = act("CancelQuery", older.as_any().encode_to_vec()).await;
    let older: ActionCancelQueryResult = Any::decode(&*older).unwrap().unpack().unwrap().unwrap();
    let newer = act("CancelFlightInfo", CancelFlightInfoRequest::new(info.clone()).encode_to_vec()).await;
    let newer = CancelFlightInfoResult::decode(&*newer).unwrap();
    [CancelStatus::try_from(older.result).unwrap(), newer.status()]
}

/// The text of a refusal, which must not tell whose something was, nor what it was.
fn told_nothing(refused: &Status) -> String {
    let told = refused.message().to_owned();
    for hint in ["people", "numbers", "select", "secret", "allowed", "root"] {
        assert!(!told.contains(hint), "`{hint}` in {refused:?}");
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_somebody_else_is_refused_without_a_hint() {
    let house = lake().await;
    let connections = connect_all(&house, &[allowed(), allowed().called("other"), admin()]).await;
    let [owner, other, admin] = connections.as_slice() else { panic!("three of them") };
    let mut told = Vec::new();
    // Whatever it reads, and whether there are rows or not; an admin, who may see all of it, included.
    for sql in [SQL, "select secret from ops.people where id = 99", "select count(*) from pub.numbers"] {
        let made = info(owner, sql).await;
        for stranger in [other, admin] {
            let refused = redeem(stranger, &made).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{sql}");
            told.push(told_nothing(&refused));
        }
        redeem(owner, &made).await.unwrap();
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_prepared_is_neither_run_nor_bound_nor_closed() {
    let house = lake().await;
    let connections = connect_all(&house, &[allowed(), allowed().called("other")]).await;
    let [owner, other] = connections.as_slice() else { panic!("two of them") };
    let mut client = FlightSqlServiceClient::new(owner.channel.clone());
    let mut prepared = client.prepare("select name from ops.people where id = ?".to_owned(), None).await.unwrap();
    let bind = |id: i64| {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        RecordBatch::try_from_iter([("0", value)]).unwrap()
    };
    prepared.set_parameters(bind(1)).unwrap();
    let made = prepared.execute().await.unwrap();
    assert_eq!(redeem(owner, &made).await.unwrap(), ["ann"]);

    let command = Any::decode(&*made.flight_descriptor.unwrap().cmd).unwrap();
    let handle: CommandPreparedStatementQuery = command.unpack().unwrap().unwrap();
    let descriptor = || FlightDescriptor::new_cmd(handle.as_any().encode_to_vec());
    let mut stranger = FlightServiceClient::new(other.channel.clone());
    let messages = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor()))
        .build(futures::stream::iter([Ok(bind(2))]));
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let close =
        ActionClosePreparedStatementRequest { prepared_statement_handle: handle.prepared_statement_handle.clone() };
    let close = Action::new("ClosePreparedStatement", close.as_any().encode_to_vec());
    let bound = async {
        let answers = stranger.clone().do_put(futures::stream::iter(messages)).await?.into_inner();
        answers.try_collect::<Vec<_>>().await.map(drop)
    };
    let closed = async {
        let answers = stranger.clone().do_action(close).await?.into_inner();
        answers.try_collect::<Vec<_>>().await.map(drop)
    };
    let refused = [
        bound.await.unwrap_err(),
        closed.await.unwrap_err(),
        stranger.get_flight_info(descriptor()).await.map(drop).unwrap_err(),
        stranger.get_schema(descriptor()).await.map(drop).unwrap_err(),
    ];
    let mut told: Vec<_> = refused.iter().map(told_nothing).collect();
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(refused.iter().all(|refused| refused.code() == Code::PermissionDenied), "{refused:?}");
    // The value its owner bound is still the one that counts.
    let mut client = FlightServiceClient::new(owner.channel.clone());
    let made = client.get_flight_info(descriptor()).await.unwrap().into_inner();
    assert_eq!(redeem(owner, &made).await.unwrap(), ["ann"]);
}

/// Runs until somebody stops it.
const ENDLESS: &str = "select count(*) from generate_series(1, 3000000) a(x) cross join generate_series(1, 3000000) b(y) \
                       where x * y < 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_statement_is_stopped_by_who_asked_it_and_by_no_other() {
    let house = lake().await;
    let connections = connect_all(&house, &[allowed(), allowed().called("other")]).await;
    let [owner, other] = connections.as_slice() else { panic!("two of them") };
    let idle = info(owner, SQL).await;
    let running = info(owner, ENDLESS).await;
    let mut client = FlightServiceClient::new(owner.channel.clone());
    let mut rows = client.do_get(running.endpoint[0].ticket.clone().unwrap()).await.unwrap().into_inner();
    rows.message().await.unwrap().expect("the schema");
    let runs = "select query_id from system.queries where status = 'running' and text like '%cross join%' \
                and text not like '%system.queries%'";
    let own = async |connection: &Connection| redeem(connection, &info(connection, runs).await).await.unwrap();
    let ids = own(owner).await;
    assert_eq!((ids.len(), own(other).await.len()), (1, 0), "others are not told that it runs");

    // To others it is as if nothing ran: the same as of what was never begun.
    assert_eq!(cancel(other, &running).await, cancel(other, &idle).await);
    assert_eq!(cancel(other, &running).await, [CancelStatus::NotCancellable; 2]);
    let mut stranger = FlightServiceClient::new(other.channel.clone());
    let mut kill =
        async |id: &str| stranger.do_action(Action::new("KillQuery", id.to_owned())).await.map(drop).unwrap_err();
    let (of_this, of_none) = (kill(&ids[0]).await, kill("01890000-0000-7000-8000-000000000000").await);
    assert_eq!((of_this.code(), of_this.message()), (of_none.code(), of_none.message()));
    assert_eq!(own(owner).await, ids, "it still runs");

    let stopped = cancel(owner, &running).await;
    assert_eq!(stopped[0], CancelStatus::Cancelling, "its owner stops it");
    let ended = loop {
        match rows.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it came to an end of its own"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Cancelled);
}
