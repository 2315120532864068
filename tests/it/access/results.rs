//! Identities and estimates of results tell nobody of what they may not see.

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightDescriptor, FlightInfo};
use futures::TryStreamExt;
use serde_json::Value;
use tonic::Request;

use super::world::{
    Connection, PEOPLE, Person, allowed, connect, connect_all, denied_column, filtered, filtered_rows, lake, masked,
};
use crate::queries::house::{House, text};

async fn described(connection: &Connection, sql: &str, has: &str) -> FlightInfo {
    let mut request = Request::new(FlightDescriptor::new_cmd(sql.to_owned()));
    if !has.is_empty() {
        request.metadata_mut().insert("lakegate-if-none-match", has.parse().unwrap());
    }
    FlightServiceClient::new(connection.channel.clone()).get_flight_info(request).await.unwrap().into_inner()
}

fn metadata(info: &FlightInfo) -> Value {
    serde_json::from_slice(&info.app_metadata).unwrap()
}

async fn identity(connection: &Connection, sql: &str) -> String {
    metadata(&described(connection, sql, "").await)["identity"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_the_same_has_the_same_result_and_nobody_else() {
    let house = lake().await;
    let sql = "select id, name from ops.people";
    let same = |person: Person| [person.clone().called("ann"), person.called("bob")];
    let mut seen = Vec::new();
    for person in [
        allowed(),
        denied_column(),
        filtered_rows(),
        filtered("region = 'south'"),
        masked(&[("name", "'***'")]),
        masked(&[("name", "'x'")]),
    ] {
        let connections = connect_all(&house, &same(person.clone())).await;
        let (ann, bob) = (identity(&connections[0], sql).await, identity(&connections[1], sql).await);
        assert_eq!(ann, bob, "{person:?}");
        let info = described(&connections[1], sql, &ann).await;
        assert!(info.endpoint.is_empty() && metadata(&info)["not_modified"] == true, "{person:?}");
        seen.push(ann);
        // Who is named in a statement is somebody.
        let named = "select id, current_user() from ops.people";
        assert_ne!(identity(&connections[0], named).await, identity(&connections[1], named).await, "{person:?}");
    }
    // One person's result is nothing to another who sees something else.
    let connection = connect(&house, &filtered_rows()).await;
    let own = identity(&connection, sql).await;
    for other in seen.iter().filter(|other| **other != own) {
        assert_eq!(described(&connection, sql, other).await.endpoint.len(), 1);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    // A row filter by who asks.
    let connections = connect_all(&house, &same(filtered("name = current_user()"))).await;
    assert_ne!(identity(&connections[0], sql).await, identity(&connections[1], sql).await);
    // One by the time shows other rows each time.
    let connection = connect(&house, &filtered("now() > timestamp '2020-01-01'")).await;
    assert!(metadata(&described(&connection, sql, "").await)["identity"].is_null());
}

/// What somebody is sent, and whether it was the work of somebody else's statement.
async fn sent(house: &House, connection: &Connection, sql: &str) -> (Vec<String>, bool) {
    let mut client = FlightServiceClient::new(connection.channel.clone());
    let info = client.get_flight_info(FlightDescriptor::new_cmd(sql.to_owned())).await.unwrap().into_inner();
    let rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap().into_inner();
    let rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(Into::into));
    let mut rows = text(&rows.try_collect::<Vec<_>>().await.unwrap());
    rows.sort();
    while !house.journal.running().is_empty() {
        tokio::task::yield_now().await;
    }
    let ended: Vec<_> = house.journal.queries().await.unwrap().try_concat().await.unwrap();
    let newest = ended.iter().max_by_key(|run| (run.origin.started_at, run.ended_at)).unwrap();
    (rows, newest.shared_from.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_shared_by_who_may_see_the_same_and_nobody_else() {
    let house = lake().await;
    let sql = "select id, name from ops.people";
    // On one server: two who see all, one of whom a column is kept, and everything anew for each name that is asked for.
    let people = [allowed().called("ann"), allowed().called("bob"), denied_column().called("cid")];
    let connections = connect_all(&house, &people).await;
    let all = ["1 ann", "2 bob", "3 hiddenrow-cleo", "4 hiddenrow-dan"];
    for (connection, is_shared) in connections.iter().zip([false, true, false]) {
        let (rows, shared) = sent(&house, connection, sql).await;
        assert_eq!((rows, shared), (all.map(str::to_owned).to_vec(), is_shared));
    }
    for (connection, name) in connections.iter().zip(["ann", "bob", "cid"]) {
        let own = sent(&house, connection, "select current_user() from ops.people limit 1").await;
        assert_eq!(own, (vec![name.to_owned()], false));
    }
    // A filter by who asks shows each their own.
    let by_name = filtered("name = current_user()");
    let connections = connect_all(&house, &[by_name.clone().called("ann"), by_name.called("bob")]).await;
    for (connection, row) in connections.iter().zip(["1 ann", "2 bob"]) {
        assert_eq!(sent(&house, connection, sql).await, (vec![row.to_owned()], false));
    }
    // What is kept back from now on was not made before.
    let south = filtered("region = 'south'").called("ann");
    connections[0].server.grant_anew(&[&south]).await;
    let rest: Vec<String> = all[2..].iter().map(|row| (*row).to_owned()).collect();
    assert_eq!(sent(&house, &connections[0], sql).await, (rest, false));
    assert!(sent(&house, &connections[0], sql).await.1, "the same again is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rows_are_filtered_and_another_persons_result_is_nothing_to_add_to() {
    let house = lake().await;
    let sql = "select name from ops.people";
    let of = async |person: Person| {
        let connection = connect(&house, &person).await;
        let basis = metadata(&described(&connection, sql, "").await)["basis"].as_str().unwrap().to_owned();
        (connection, basis)
    };
    let (north, own) = of(filtered_rows()).await;
    let (_, all) = of(allowed()).await;
    let new = "select 9 as id, 'new' as name, 'north' as region, 1 as salary, 's' as secret, \
               named_struct('street', 'a', 'city', 'b') as address, ['x'] as tags \
               union all select 10, 'hiddenrow-new', 'south', 1, 's', named_struct('street', 'a', 'city', 'b'), ['x']";
    house.load("ops.people", PEOPLE, new).await;
    for (basis, rows) in [(&own, vec!["new"]), (&all, vec!["ann", "bob", "new"])] {
        let mut request = Request::new(FlightDescriptor::new_cmd(sql));
        request.metadata_mut().insert("lakegate-have", basis.parse().unwrap());
        let mut client = FlightServiceClient::new(north.channel.clone());
        let info = client.get_flight_info(request).await.unwrap().into_inner();
        assert_eq!(metadata(&info)["appended_to"].is_string(), rows == ["new"]);
        let sent = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap().into_inner();
        let sent = FlightRecordBatchStream::new_from_flight_data(sent.map_err(Into::into));
        let mut sent = text(&sent.try_collect::<Vec<_>>().await.unwrap());
        sent.sort();
        assert_eq!(sent, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_estimated_where_rows_are_kept_back() {
    let house = lake().await;
    let asked = [
        "select id from ops.people",
        "select id from ops.people limit 1",
        "select count(*) from ops.people",
        "select n from pub.numbers where n in (select id from ops.people)",
        "select id from ops.people tablesample bernoulli (50) repeatable (1)",
        "select n from pub.numbers union all select id from ops.people",
    ];
    let connection = connect(&house, &filtered_rows()).await;
    for sql in asked {
        let info = described(&connection, sql, "").await;
        let told = &metadata(&info)["estimate"];
        assert!(
            told["rows"].is_null() && told["wire_bytes"].is_null() && told["heaviest"] == Value::Array(vec![]),
            "{sql}: {told}"
        );
        assert_eq!((info.total_records, info.total_bytes), (-1, -1), "{sql}");
    }
    let info = described(&connection, "select n from pub.numbers", "").await;
    assert_eq!(info.total_records, 10, "nothing is kept back of it");
    let connection = connect(&house, &allowed()).await;
    assert_eq!(described(&connection, asked[0], "").await.total_records, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_is_not_reckoned_with() {
    let house = lake().await;
    let sql = "select id from ops.people where salary > 150";
    let known = described(&connect(&house, &allowed()).await, sql, "").await;
    assert!(metadata(&known)["estimate"]["rows"].is_number());
    let connection = connect(&house, &masked(&[("salary", "0")])).await;
    let unknown = described(&connection, sql, "").await;
    assert!(metadata(&unknown)["estimate"]["rows"].is_null(), "{:?}", unknown.app_metadata);
    assert_eq!(described(&connection, "select id from ops.people", "").await.total_records, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_words_are_few_is_told_to_nobody_who_does_not_see_them_all() {
    let house = lake().await;
    for (person, names_are_words) in
        [(allowed(), true), (filtered_rows(), false), (masked(&[("name", "'***'")]), false), (denied_column(), true)]
    {
        let connection = connect(&house, &person).await;
        let mut request = Request::new(FlightDescriptor::new_cmd("select name from ops.people"));
        request.metadata_mut().insert("lakegate-dictionaries", "on".parse().unwrap());
        let mut client = FlightServiceClient::new(connection.channel.clone());
        let schema = client.get_flight_info(request).await.unwrap().into_inner().try_decode_schema().unwrap();
        let is_dictionary = matches!(schema.field(0).data_type(), arrow::datatypes::DataType::Dictionary(..));
        assert_eq!(is_dictionary, names_are_words, "{person:?}");
    }
}
