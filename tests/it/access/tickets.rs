//! Tickets and what was prepared are good only for whom they were made, as long as they may see the same.

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Code, Status};

use super::world::{
    Connection, allowed, connect, denied_column, denied_table, filtered, filtered_rows, lake, masked_column,
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
    let made = info(&connect(&house, &filtered_rows()).await, SQL).await;
    let mut told = Vec::new();
    for now in
        [denied_table(), denied_column(), masked_column(), allowed(), filtered("region = 'south'"), filtered("true")]
    {
        let refused = redeem(&connect(&house, &now).await, &made).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{now:?}");
        told.push(refused.message().to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "no hint at what has changed: {told:?}");
    assert!(!told[0].contains("people"), "{told:?}");
    // The other way round: rights that grew do not show more through an old ticket.
    let made = info(&connect(&house, &masked_column()).await, "select secret from ops.people").await;
    let refused = redeem(&connect(&house, &allowed()).await, &made).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, told[0].as_str()));
    // Another table's grants do not matter.
    let made = info(&connect(&house, &allowed()).await, "select count(*) from pub.numbers").await;
    assert_eq!(redeem(&connect(&house, &allowed()).await, &made).await.unwrap(), ["10"]);
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
    let before = connect(&house, &allowed()).await;
    let mut client = FlightSqlServiceClient::new(before.channel.clone());
    let mut prepared = client.prepare("select count(*) from ops.people".to_owned(), None).await.unwrap();
    let handle = {
        let made = prepared.execute().await.unwrap();
        made.flight_descriptor.unwrap().cmd
    };
    for (now, rows) in [(filtered_rows(), Some("2")), (masked_column(), Some("4")), (denied_table(), None)] {
        let connection = connect(&house, &now).await;
        let mut client = FlightServiceClient::new(connection.channel.clone());
        let made = client.get_flight_info(FlightDescriptor::new_cmd(handle.clone())).await;
        match (made, rows) {
            (Ok(made), Some(rows)) => assert_eq!(redeem(&connection, &made.into_inner()).await.unwrap(), [rows]),
            (Err(refused), None) => assert_eq!(refused.code(), Code::NotFound, "{refused:?}"),
            (made, rows) => panic!("{made:?} {rows:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_cancelled_by_a_description_without_a_running_result() {
    let house = lake().await;
    let made = info(&connect(&house, &allowed()).await, SQL).await;
    let other = connect(&house, &denied_table()).await;
    let mut client = FlightServiceClient::new(other.channel.clone());
    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(made).encode_to_vec());
    let results: Vec<_> = client.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    let answer = CancelFlightInfoResult::decode(&*results[0].body).unwrap();
    assert_eq!(answer.status(), CancelStatus::NotCancellable);
}
