//! What a result is: equal results have one identity, whoever asks and after a restart, and who has it gets no rows.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, FlightInfo};
use prost::Message;
use serde_json::Value;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::queries::house::House;

const ID: &[(&str, &str)] = &[("id", "bigint")];

async fn lake() -> House {
    let house = House::new(&["t.v", "t.w"]).await;
    house.load("t.v", ID, "select * from generate_series(1, 10) g(id)").await;
    house.load("t.w", ID, "select 1 as id").await;
    house
}

/// A connection to a server of its own, as after a restart.
async fn connection(house: &House) -> Channel {
    let address = house.serve().await;
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// The description of a result, by somebody who says what they have.
async fn described(channel: &Channel, descriptor: FlightDescriptor, has: &str) -> FlightInfo {
    let mut request = Request::new(descriptor);
    if !has.is_empty() {
        request.metadata_mut().insert("lakegate-if-none-match", has.parse().unwrap());
    }
    FlightServiceClient::new(channel.clone()).get_flight_info(request).await.unwrap().into_inner()
}

fn query(sql: &str) -> FlightDescriptor {
    FlightDescriptor::new_cmd(sql.to_owned())
}

fn metadata(info: &FlightInfo) -> Value {
    serde_json::from_slice(&info.app_metadata).unwrap()
}

async fn identity(channel: &Channel, sql: &str) -> Option<String> {
    let told = metadata(&described(channel, query(sql), "").await);
    assert_eq!(told["lakegate"], 1, "{sql}");
    told["identity"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_outlives_sessions_and_restarts_and_ends_with_the_next_load() {
    let house = lake().await;
    let (first, second) = (connection(&house).await, connection(&house).await);
    for sql in [
        "select * from t.v",
        "select count(*) from t.v where id in (select id from t.w)",
        "with w as (select id from t.w) select * from t.v, w where current_date > date '2020-01-01'",
    ] {
        let before = identity(&first, sql).await;
        assert!(before.is_some(), "{sql}");
        assert_eq!(
            (identity(&first, sql).await, identity(&second, sql).await),
            (before.clone(), before.clone()),
            "{sql}"
        );
        house.load(if sql.contains("t.w") { "t.w" } else { "t.v" }, ID, "select 7 as id").await;
        let after = identity(&second, sql).await;
        assert!(after.is_some() && after != before, "{sql}");
        assert_eq!(identity(&first, sql).await, after, "{sql}");
    }
    let older = "select * from t.v version as of 0";
    let before = identity(&first, older).await;
    house.load("t.v", ID, "select 8 as id").await;
    assert!(before.is_some() && identity(&second, older).await == before);
    assert_ne!(identity(&first, "select id from t.v").await, identity(&first, "select id from t.w").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_each_time_has_no_identity() {
    let house = lake().await;
    let channel = connection(&house).await;
    for sql in [
        "select random()",
        "select * from t.v where id > random()",
        "select * from t.v order by uuid()",
        "select now()",
        "select (select max(now()) from t.v)",
        "select * from system.loads",
        "select * from information_schema.tables",
        "select id from t.v where exists (select 1 from system.tables)",
        "show tables",
        "describe t.v",
        "explain select * from t.v",
        "explain analyze select * from t.v",
        "explain estimate select * from t.v",
    ] {
        assert_eq!(identity(&channel, sql).await, None, "{sql}");
    }
    for sql in
        ["select 1", "select current_date", "select * from generate_series(1, 3)", "select * from t.v where id = 1"]
    {
        assert!(identity(&channel, sql).await.is_some(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_result_gets_no_rows_of_it() {
    let house = lake().await;
    let channel = connection(&house).await;
    // The longer the statement, the more it would cost to send it back.
    let sql = format!("select id from t.v where id not in (0, {}) or true", vec!["1000"; 2000].join(", "));
    let whole = described(&channel, query(&sql), "").await;
    let own = metadata(&whole)["identity"].as_str().unwrap().to_owned();
    assert_eq!(whole.endpoint.len(), 1);
    for has in [own.clone(), format!("other, {own}"), format!("{own},other")] {
        let info = described(&channel, query(&sql), &has).await;
        let told = metadata(&info);
        assert!(info.endpoint.is_empty() && told["not_modified"] == true && told["identity"] == own.as_str(), "{told}");
        assert_eq!(info.schema, whole.schema);
        assert!(info.encoded_len() <= info.schema.len() + 4096, "{}", info.encoded_len());
    }
    let info = described(&channel, query(&sql), "something else").await;
    assert!(info.endpoint.len() == 1 && metadata(&info).get("not_modified").is_none());
    house.load("t.v", ID, "select 11 as id").await;
    let info = described(&channel, query(&sql), &own).await;
    assert!(info.endpoint.len() == 1 && metadata(&info)["identity"] != own.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_have_the_identity_of_their_text_and_values() {
    let house = lake().await;
    let channel = connection(&house).await;
    let mut client = FlightSqlServiceClient::new(channel.clone());
    let mut prepared = client.prepare("select id from t.v".to_owned(), None).await.unwrap();
    let info = prepared.execute().await.unwrap();
    let own = metadata(&info)["identity"].as_str().unwrap().to_owned();
    assert_eq!(identity(&channel, "select id from t.v").await, Some(own.clone()));
    let handle = info.flight_descriptor.unwrap();
    let info = described(&channel, handle, &own).await;
    assert!(info.endpoint.is_empty() && metadata(&info)["not_modified"] == true);
}
