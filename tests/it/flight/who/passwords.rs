//! Passwords, in each of the ways clients send them, and wrong ones.

use arrow_flight::{HandshakeRequest, Ticket};
use prost::Message;
use tonic::{Code, Request};

use super::door::{Door, House, PASSWORD, refusals};
use crate::support::credentials::{basic, bearer, token_header, with_header};

/// `BasicAuth` of Flight.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct BasicAuth {
    #[prost(string, tag = "2")]
    username: String,
    #[prost(string, tag = "3")]
    password: String,
}

#[tokio::test]
async fn a_password_opens_a_session_in_each_of_the_ways_clients_send_it() {
    let door = House::with_users().open().await;
    let padded = basic("ann", PASSWORD);
    let unpadded = padded.trim_end_matches('=').to_owned();
    assert_ne!(padded, unpadded);
    for header in [padded.as_str(), unpadded.as_str()] {
        let token = door.log_in(header).await.unwrap();
        assert_eq!(door.who(Some(&format!("Bearer {token}"))).await.unwrap(), "ann sales");
        assert_eq!(door.who(Some(header)).await.unwrap(), "ann sales", "on the call itself");
    }
    // One driver sends one empty message along.
    let empty = futures::stream::iter([HandshakeRequest::default()]);
    let answer = door.client().await.handshake(with_header(empty, Some(&padded))).await.unwrap();
    assert!(bearer(&answer).unwrap().starts_with("lgs_"));
}

#[tokio::test]
async fn the_protocols_first_way_of_logging_in_works() {
    let door = House::with_users().open().await;
    let login = BasicAuth { username: "ann".to_owned(), password: PASSWORD.to_owned() }.encode_to_vec();
    let message = HandshakeRequest { protocol_version: 0, payload: login.into() };
    let mut client = door.client().await;
    let answer = client.handshake(futures::stream::iter([message])).await.unwrap();
    let answered = answer.into_inner().message().await.unwrap().unwrap();
    let mut request = Request::new(Ticket::new("select 1"));
    let token = tonic::metadata::MetadataValue::from_bytes(&answered.payload);
    request.metadata_mut().insert_bin("auth-token-bin", token);
    client.do_get(request).await.unwrap();
    assert_eq!(door.engine.asked.lock().unwrap().pop().unwrap().principal().name, "ann");
}

#[tokio::test]
async fn a_token_is_taken_as_bearer_and_as_password() {
    let house = House::with_users();
    let token = house.token("bob", None);
    let door = house.open().await;
    use secrecy::ExposeSecret;
    let text = token.text.expose_secret();
    for header in [token_header(&token), basic("token", text), basic("", text), basic("somebody", text)] {
        assert_eq!(door.who(Some(&header)).await.unwrap(), "bob sales");
        let session = door.log_in(&header).await.unwrap();
        assert_eq!(door.who(Some(&format!("Bearer {session}"))).await.unwrap(), "bob sales");
    }
}

#[tokio::test]
async fn without_credentials_every_call_says_what_to_do() {
    let door = House::with_users().open().await;
    for header in [None, Some("Bearer None"), Some("Bearer ")] {
        for status in refusals(&door, header).await {
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            assert!(status.message().contains("connect with user and password"), "{status:?}");
        }
    }
    let empty = futures::stream::empty::<HandshakeRequest>();
    assert_eq!(door.client().await.handshake(empty).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(door.engine.asked.lock().unwrap().is_empty(), "nothing was asked of the engine");
}

#[tokio::test]
async fn whatever_is_wrong_the_answer_is_one() {
    let door = House::with_users().open().await;
    let mut answers = Vec::new();
    for header in [
        basic("ann", "wrong"),
        basic("nobody", PASSWORD),
        basic("bob", ""),
        "Basic ???".to_owned(),
        "Bearer abc".to_owned(),
        "Bearer lgs_abc".to_owned(),
        format!("Bearer lgp_0123456789_{}", "0".repeat(64)),
        "Bearer anonymous".to_owned(),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.".to_owned(),
        "Digest abc".to_owned(),
    ] {
        for status in [door.who(Some(&header)).await.unwrap_err(), door.log_in(&header).await.unwrap_err()] {
            // A second try with a wrong password at once has to wait, known name or not.
            if status.code() != Code::ResourceExhausted {
                assert_eq!(status.code(), Code::Unauthenticated, "{header}: {status:?}");
                answers.push(status.message().to_owned());
            }
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for status in refusals(&door, Some("Bearer abc")).await {
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, answers[0].as_str()));
    }
}

#[tokio::test]
async fn wrong_passwords_cost_waiting_that_grows_and_ends() {
    let door = House::with_users().open().await;
    let (wrong, right) = (basic("ann", "wrong"), basic("ann", PASSWORD));
    let code = async |door: &Door, header: &str| door.who(Some(header)).await.err().map(|status| status.code());
    let milliseconds = |number| std::time::Duration::from_millis(number);
    for wait in [500, 1000, 2000] {
        assert_eq!(code(&door, &wrong).await, Some(Code::Unauthenticated));
        assert_eq!(code(&door, &right).await, Some(Code::ResourceExhausted), "the right one has to wait too");
        door.clock.advance(milliseconds(wait - 1));
        let status = door.who(Some(&right)).await.unwrap_err();
        assert!(status.message().contains("try again in"), "{status:?}");
        door.clock.advance(milliseconds(1));
    }
    assert_eq!(code(&door, &basic("nobody", "wrong")).await, Some(Code::Unauthenticated), "others need not wait");
    assert_eq!(code(&door, &right).await, None);
    assert_eq!(code(&door, &wrong).await, Some(Code::Unauthenticated));
    door.clock.advance(milliseconds(500));
    assert_eq!(code(&door, &right).await, None, "success began the count anew");
}

#[tokio::test]
async fn many_who_log_in_at_once_all_get_in() {
    let door = House::with_users().open().await;
    let header = basic("ann", PASSWORD);
    let logins = futures::future::join_all((0..16).map(|_| door.log_in(&header))).await;
    let mut tokens: Vec<_> = logins.into_iter().map(Result::unwrap).collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 16, "each has a session of its own");
}

#[tokio::test]
async fn guesses_made_at_once_wait_as_those_made_one_after_the_other() {
    let door = House::with_users().open().await;
    let header = basic("ann", "wrong");
    let guesses = futures::future::join_all((0..32).map(|_| door.log_in(&header))).await;
    let codes: Vec<_> = guesses.into_iter().map(|guess| guess.unwrap_err().code()).collect();
    let checked = codes.iter().filter(|code| **code == Code::Unauthenticated).count();
    let at_once = door.settings.access.parallel_checks.get();
    assert!((1..=at_once).contains(&checked), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Code::Unauthenticated | Code::ResourceExhausted)), "{codes:?}");
}
