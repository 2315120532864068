//! What a result is: equal results have one identity, whoever asks and after a restart, and who has it gets no rows.

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use prost::Message;
use serde_json::Value;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::queries::house::{House, text};

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
    described_to(channel, descriptor, ("lakegate-if-none-match", has)).await
}

async fn described_to(
    channel: &Channel,
    descriptor: FlightDescriptor,
    (header, value): (&'static str, &str),
) -> FlightInfo {
    let mut request = Request::new(descriptor);
    if !value.is_empty() {
        request.metadata_mut().insert(header, value.parse().unwrap());
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
async fn whoever_may_come_back_for_the_rest_asks_for_the_same_result() {
    let house = lake().await;
    let channel = connection(&house).await;
    let sql = "select id from t.v";
    let info = described_to(&channel, query(sql), ("lakegate-resume", "0")).await;
    assert_eq!(metadata(&info)["identity"].as_str().map(str::to_owned), identity(&channel, sql).await);
}

/// The basis of a result.
async fn basis(channel: &Channel, sql: &str) -> Option<String> {
    let told = metadata(&described(channel, query(sql), "").await);
    told["basis"].as_str().map(str::to_owned)
}

/// The rows of a result that somebody adds to what they have, sorted, and the identity of what they are added to.
async fn gained(channel: &Channel, sql: &str, basis: &str) -> (Vec<String>, Option<String>) {
    let info = described_to(channel, query(sql), ("lakegate-have", basis)).await;
    let added_to = metadata(&info)["appended_to"].as_str().map(str::to_owned);
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut client = FlightSqlServiceClient::new(channel.clone());
    // A ticket gives the same rows again.
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut rows = text(&client.do_get(ticket.clone()).await.unwrap().try_collect::<Vec<_>>().await.unwrap());
        rows.sort();
        both.push(rows);
    }
    assert_eq!(both[0], both[1], "{sql}");
    (both.remove(0), added_to)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_result_that_grew_only_the_new_rows_are_sent() {
    let house = lake().await;
    let channel = connection(&house).await;
    let sql = "select id + 1 as next from t.v where id % 2 = 0";
    let (before, own) = (basis(&channel, sql).await.unwrap(), identity(&channel, sql).await);
    house.load("t.v", ID, "select 21 as id union all select 22").await;
    house.load("t.v", ID, "select 24 as id").await;
    assert_eq!(gained(&channel, sql, &before).await, (vec!["23".to_owned(), "25".to_owned()], own));
    let whole = ["11", "23", "25", "3", "5", "7", "9"];
    assert_eq!(gained(&channel, sql, "").await, (whole.iter().map(ToString::to_string).collect(), None));
    // Of several the newest counts, and what cannot be read is none.
    let middle = basis(&channel, sql).await.unwrap();
    house.load("t.v", ID, "select 26 as id").await;
    let several = format!("nonsense, {before},{middle}");
    assert_eq!(gained(&channel, sql, &several).await.0, ["27"]);
    // After a restart as well.
    assert_eq!(gained(&connection(&house).await, sql, &middle).await.0, ["27"]);
    // Another statement's result is nothing to add to.
    for other in ["select id + 1 as next from t.v where id % 2 = 1", "select id + 1 as next from t.w where id % 2 = 0"]
    {
        assert_eq!(gained(&channel, other, &middle).await.1, None, "{other}");
    }
    let info = described_to(&channel, query(sql), ("lakegate-have", &middle)).await;
    let told = metadata(&info);
    assert_ne!(told["identity"], told["appended_to"]);
    assert!(told["basis"].is_string(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_grow_row_by_row_is_sent_whole() {
    let house = lake().await;
    let channel = connection(&house).await;
    for sql in [
        "select count(*) from t.v",
        "select id from t.v limit 3",
        "select id from t.v order by id",
        "select distinct id from t.v",
        "select id, row_number() over (order by id) from t.v",
        "select v.id from t.v join t.w on v.id = w.id",
        "select id from t.v union all select id from t.v",
        "select id from t.v where id in (select id from t.w)",
        "select id from t.v where id > (select min(id) from t.v)",
        "select id from t.v version as of 0",
        "select unnest([id, id]) from t.v",
        "with v as (select id from t.v) select value from generate_series(1, 3)",
        "select 1",
    ] {
        assert_eq!(basis(&channel, sql).await, None, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lost_rows_is_sent_whole() {
    let house = lake().await;
    let channel = connection(&house).await;
    let mut client = FlightSqlServiceClient::new(channel.clone());
    let mut change = async |sql: &str| client.execute_update(sql.to_owned(), None).await.unwrap();
    change("create table results.grown as select 1 as id union all select 2").await;
    let sql = "select id from results.grown";
    let before = basis(&channel, sql).await.unwrap();
    change("insert into results.grown values (3)").await;
    assert_eq!(gained(&channel, sql, &before).await.0, ["3"]);
    change("delete from results.grown where id = 1").await;
    assert_eq!(gained(&channel, sql, &before).await, (vec!["2".to_owned(), "3".to_owned()], None));
    change("drop table results.grown").await;
    change("create table results.grown as select 7 as id").await;
    assert_eq!(gained(&channel, sql, &before).await, (vec!["7".to_owned()], None), "another table");
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
