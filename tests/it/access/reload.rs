//! Grants that change while a server runs: what cannot be used with the tables leaves all as it was.

use arrow::array::RecordBatch;
use arrow_flight::Ticket;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::TryStreamExt;
use lakegate::access::Policy;
use tonic::{Code, Status};

use super::world::{Connection, Person, allowed, connect, filtered, filtered_rows, lake, masked, principal};
use crate::queries::house::text;

const NAMES: &str = "select name from ops.people order by id";

async fn rows(connection: &Connection, sql: &str) -> Result<Vec<String>, Status> {
    let mut client = FlightServiceClient::new(connection.channel.clone());
    let stream = client.do_get(Ticket::new(sql.to_owned())).await?.into_inner();
    let stream = FlightRecordBatchStream::new_from_flight_data(stream.map_err(Into::into));
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| match error {
        FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    })?;
    Ok(text(&batches))
}

fn ann(person: Person) -> Person {
    person.called("ann")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_or_mask_that_cannot_be_used_leaves_what_stood_before() {
    let house = lake().await;
    let connection = connect(&house, &ann(filtered_rows())).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap(), ["ann", "bob"]);
    for faulty in [
        filtered("nothing = 1"),
        filtered("name"),
        filtered("count(*) > 1"),
        masked(&[("gone", "null")]),
        masked(&[("salary", "address")]),
    ] {
        connection.server.grant_anew(&[&ann(faulty.clone())]).await;
        assert_eq!(rows(&connection, NAMES).await.unwrap(), ["ann", "bob"], "{faulty:?}");
    }
    connection.server.grant_anew(&[&ann(filtered("region = 'south'"))]).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap(), ["hiddenrow-cleo", "hiddenrow-dan"]);
    connection.server.grant_anew(&[&ann(masked(&[("name", "'***'")]))]).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap(), ["***"; 4]);
    connection.server.grant_anew(&[&ann(allowed())]).await;
    assert_eq!(rows(&connection, "select count(*) from ops.people").await.unwrap(), ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_shut_out_whatever_is_wrong_with_a_filter() {
    let house = lake().await;
    let connection = connect(&house, &ann(filtered_rows())).await;
    connection.server.remove("ann");
    connection.server.grant_anew(&[&ann(filtered("nothing = 1"))]).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_was_there_before_keeps_nobody_from_being_shut_out() {
    let house = lake().await;
    let faulty = || Policy { filters: vec!["nothing = 1".to_owned()], ..Policy::default() };
    let connection = connect(&house, &ann(filtered("nothing = 1"))).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap_err().code(), Code::PermissionDenied);
    connection.server.grant_anew(&[&principal("ann", vec![], faulty())]).await;
    assert_eq!(rows(&connection, NAMES).await.unwrap_err().code(), Code::NotFound, "the table is not hers to see");
}
