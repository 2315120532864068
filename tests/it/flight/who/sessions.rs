//! How long a session and a token count, and what ends them.

use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use lakegate::access::hash_password;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::server::ticket;
use super::door::{Door, House, PASSWORD};
use crate::support::credentials::{basic, token_header, with_header};

async fn code(door: &Door, header: &str) -> Option<Code> {
    door.who(Some(header)).await.err().map(|status| status.code())
}

async fn session(door: &Door, header: &str) -> String {
    format!("Bearer {}", door.log_in(header).await.unwrap())
}

const REFUSED: Option<Code> = Some(Code::Unauthenticated);

#[tokio::test]
async fn a_session_ends_with_its_time_and_shaking_hands_again_does_not_prolong_it() {
    let door = House::with_users().open().await;
    let first = session(&door, &basic("ann", PASSWORD)).await;
    door.clock.advance(Duration::from_secs(24 * 3600 - 1));
    let again = session(&door, &first).await;
    assert_eq!((code(&door, &first).await, code(&door, &again).await), (None, None));
    door.clock.advance(Duration::from_secs(1));
    assert_eq!((code(&door, &first).await, code(&door, &again).await), (REFUSED, REFUSED));
}

#[tokio::test]
async fn a_new_password_and_a_user_taken_away_end_sessions_at_once() {
    let house = House::with_users();
    let door = house.open().await;
    let ann = session(&door, &basic("ann", PASSWORD)).await;
    house.change(|users| users.get_mut("ann").unwrap().password = Some(hash_password(&"another".into()).unwrap()));
    assert_eq!(code(&door, &ann).await, None, "not read yet");
    door.reload().await;
    assert_eq!(code(&door, &ann).await, REFUSED);
    let ann = session(&door, &basic("ann", "another")).await;
    assert_eq!(code(&door, &ann).await, None);
    house.change(|users| drop(users.remove("ann")));
    door.reload().await;
    assert_eq!((code(&door, &ann).await, code(&door, &basic("ann", "another")).await), (REFUSED, REFUSED));
}

#[tokio::test]
async fn a_revoked_and_an_expired_token_end_their_sessions() {
    let house = House::with_users();
    let (short, long) = (house.token("bob", Some(Duration::from_secs(60))), house.token("bob", None));
    let door = house.open().await;
    let (of_short, of_long) = (session(&door, &token_header(&short)).await, session(&door, &token_header(&long)).await);
    for header in [&of_short, &of_long, &token_header(&short), &token_header(&long)] {
        assert_eq!(code(&door, header).await, None);
    }
    door.clock.advance(Duration::from_secs(60));
    for header in [&of_short, &token_header(&short)] {
        assert_eq!(code(&door, header).await, REFUSED);
    }
    house.change(|users| users.get_mut("bob").unwrap().tokens.clear());
    door.reload().await;
    for header in [&of_long, &token_header(&long)] {
        assert_eq!(code(&door, header).await, REFUSED);
    }
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart_and_on_a_second_server_with_the_key() {
    let house = House::with_users();
    let first = house.open().await;
    let ann = session(&first, &basic("ann", PASSWORD)).await;
    first.shutdown.request();
    first.stopped.await.unwrap().unwrap();
    assert_eq!(code(&house.open().await, &ann).await, None);
    assert_eq!(code(&house.open_with("02").await, &ann).await, REFUSED, "another key");
    let open = House::empty().open().await;
    let anonymous = session(&open, "Bearer None").await;
    assert_eq!(code(&house.open().await, &anonymous).await, REFUSED, "nobody was let in there");
}

#[tokio::test]
async fn roles_are_looked_up_at_each_call() {
    let house = House::with_users();
    house.write("grants.toml", "[roles.analysts]\nmembers = [\"ann\"]\n");
    let door = house.open().await;
    let ann = session(&door, &basic("ann", PASSWORD)).await;
    assert_eq!(door.who(Some(&ann)).await.unwrap(), "ann analysts sales");
    house.write("grants.toml", "");
    house.change(|users| users.get_mut("ann").unwrap().roles = ["admin".to_owned()].into());
    door.reload().await;
    assert_eq!(door.who(Some(&ann)).await.unwrap(), "ann admin");
}

/// A result that goes on for ever, of which the first messages were read.
async fn endless(client: &mut FlightServiceClient<Channel>, header: &str) -> Streaming<FlightData> {
    let ticket = Ticket::new("select n from slow.endless");
    let mut rows = client.do_get(with_header(ticket, Some(header))).await.unwrap().into_inner();
    goes_on(&mut rows).await;
    rows
}

/// Reads more than could be on its way already.
async fn goes_on(rows: &mut Streaming<FlightData>) {
    let mut bytes = 0;
    while bytes < 32 << 20 {
        bytes += rows.message().await.unwrap().unwrap().data_body.len();
    }
}

/// What a result ends with.
async fn end(rows: &mut Streaming<FlightData>) -> Status {
    loop {
        match rows.message().await {
            Ok(message) => drop(message.expect("it does not end well")),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_running_statement_ends_when_what_may_be_seen_was_taken_away() {
    let house = House::with_users();
    let grant = |to: &str| format!("[[grant]]\nto = \"user:{to}\"\non = \"weather.*\"\n");
    house.write("grants.toml", grant("ann"));
    let door = house.open().await;
    let ann = session(&door, &basic("ann", PASSWORD)).await;
    let mut client = door.client().await;
    let mut rows = endless(&mut client, &ann).await;
    house.write("grants.toml", format!("{}{}", grant("bob"), grant("ann")));
    house.token("bob", None);
    door.reload().await;
    goes_on(&mut rows).await;
    house.write("grants.toml", grant("bob"));
    door.reload().await;
    let status = end(&mut rows).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(status.message().contains("run it again"), "{status:?}");
    endless(&mut client, &ann).await;
}

#[tokio::test]
async fn a_running_statement_ends_with_what_its_person_was_let_in_with() {
    let house = House::with_users();
    let token = house.token("bob", None);
    let door = house.open().await;
    let ann = session(&door, &basic("ann", PASSWORD)).await;
    let (mut client, mut other) = (door.client().await, door.client().await);
    let mut of_ann = endless(&mut client, &ann).await;
    let mut of_bob = endless(&mut other, &token_header(&token)).await;
    house.change(|users| users.get_mut("bob").unwrap().tokens.clear());
    door.reload().await;
    assert_eq!(end(&mut of_bob).await.code(), Code::Unauthenticated);
    goes_on(&mut of_ann).await;
    house.change(|users| drop(users.remove("ann")));
    door.reload().await;
    assert_eq!(end(&mut of_ann).await.code(), Code::Unauthenticated);
    door.engine.endless.has_readers(0).await;
}

#[tokio::test]
async fn files_that_are_wrong_or_gone_leave_all_as_it_was() {
    let house = House::with_users();
    house.write("grants.toml", "[roles.analysts]\nmembers = [\"ann\"]\n");
    let door = house.open().await;
    let (ann, stranger) = (session(&door, &basic("ann", PASSWORD)).await, "Bearer None");
    let good = std::fs::read_to_string(house.path().join("users.toml")).unwrap();
    for broken in ["[users.ann", "[users.ann]\npasword = \"x\"", ""] {
        house.write("users.toml", broken);
        if broken.is_empty() {
            std::fs::remove_file(house.path().join("users.toml")).unwrap();
        }
        door.reload().await;
        assert_eq!(door.who(Some(&ann)).await.unwrap(), "ann analysts sales", "{broken}");
        assert_eq!(code(&door, stranger).await, REFUSED, "{broken}");
        house.write("users.toml", &good);
    }
    std::fs::remove_file(house.path().join("grants.toml")).unwrap();
    door.reload().await;
    assert_eq!(door.who(Some(&ann)).await.unwrap(), "ann analysts sales");
}

#[tokio::test]
async fn somebody_is_shut_out_while_the_grants_are_wrong_and_nobody_is_let_in() {
    let good = "[roles.analysts]\nmembers = [\"ann\"]\n";
    for broken in [Some("[[grant]]\nto = \"nobody\"\non = \"*\"\n"), Some("[[grant"), None] {
        let house = House::with_users();
        house.write("grants.toml", good);
        let (kept, revoked) = (house.token("bob", None), house.token("bob", None));
        let door = house.open().await;
        let ann = session(&door, &basic("ann", PASSWORD)).await;
        let bob = session(&door, &token_header(&revoked)).await;
        match broken {
            Some(broken) => house.write("grants.toml", broken),
            None => std::fs::remove_file(house.path().join("grants.toml")).unwrap(),
        }
        house.change(|users| {
            users.get_mut("bob").unwrap().tokens.retain(|token| token.id != revoked.id);
            let carl = users["ann"].clone();
            users.insert("carl".to_owned(), carl);
            users.get_mut("ann").unwrap().roles = ["admin".to_owned()].into();
        });
        door.reload().await;
        assert_eq!(door.who(Some(&ann)).await.unwrap(), "ann analysts", "{broken:?}");
        assert_eq!(door.who(Some(&token_header(&kept))).await.unwrap(), "bob sales", "{broken:?}");
        for header in [&bob, &token_header(&revoked), &basic("carl", PASSWORD)] {
            assert_eq!(code(&door, header).await, REFUSED, "{broken:?}");
        }
        house.change(|users| drop(users.remove("ann")));
        door.reload().await;
        assert_eq!(code(&door, &ann).await, REFUSED, "{broken:?}");

        house.write("grants.toml", good);
        door.reload().await;
        // Carl was refused just now.
        door.clock.advance(Duration::from_secs(60));
        assert_eq!(door.who(Some(&basic("carl", PASSWORD))).await.unwrap(), "carl sales", "{broken:?}");
    }
}

#[tokio::test]
async fn the_first_user_closes_a_server_that_was_open() {
    let house = House::empty();
    let door = house.open().await;
    assert_eq!(door.who(None).await.unwrap(), "anonymous");
    house.change(|users| {
        users.insert(
            "ann".to_owned(),
            lakegate::config::User { password: None, roles: Default::default(), tokens: vec![], spot: None },
        );
    });
    door.reload().await;
    assert_eq!(door.who(None).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn without_users_a_grants_file_still_holds() {
    let house = House::empty();
    house.write("grants.toml", "[[grant]]\nto = \"everyone\"\non = \"weather.*\"\n");
    let door = house.open().await;
    assert_eq!(door.who(Some(&basic("ann", "any"))).await.unwrap(), "anonymous");
    door.client().await.get_flight_info(FlightDescriptor::new_cmd("select 1")).await.unwrap();
    let access = door.engine.asked.lock().unwrap().pop().unwrap();
    let sees = |table: &str| access.table(&table.parse().unwrap(), None).is_visible();
    assert!(!access.is_unrestricted() && sees("weather.hourly") && !sees("ops.orders"));
}

#[tokio::test]
async fn a_ticket_is_good_for_whom_it_was_made_only() {
    let house = House::with_users();
    let token = house.token("bob", None);
    let door = house.open().await;
    let ann = session(&door, &basic("ann", PASSWORD)).await;
    let mut client = door.client().await;
    let descriptor = with_header(FlightDescriptor::new_cmd("select 1"), Some(&ann));
    // A bare statement's description holds a sealed ticket.
    let info = client.get_flight_info(descriptor).await.unwrap().into_inner();
    client.do_get(with_header(ticket(&info), Some(&ann))).await.unwrap();
    let bob = client.do_get(with_header(ticket(&info), Some(&token_header(&token)))).await.map(drop).unwrap_err();
    assert!(matches!(bob.code(), Code::Unauthenticated | Code::PermissionDenied | Code::NotFound), "{bob:?}");
    let nobody = client.do_get(ticket(&info)).await.map(drop).unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
}
