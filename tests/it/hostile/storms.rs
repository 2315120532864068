//! Many at once, and those that never come to the point.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::StreamExt;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::flight::server::{TestServer, query};

/// How an HTTP/2 connection begins (RFC 9113, section 3.4), with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Nobody waits longer for an answer while a storm goes on; alone it takes milliseconds.
const SOON: Duration = Duration::from_secs(10);

async fn is_served(server: &TestServer) {
    let answer = tokio::time::timeout(SOON, query(server, "select 1")).await.expect("an answer in time");
    assert_eq!(answer.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_come_to_the_point_hold_nobody_up() {
    let server = TestServer::start().await;
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        // Some stop within the preface, some after it, some say nothing at all.
        let said = [&PREFACE[..11], PREFACE, &[]][number % 3];
        connection.write_all(said).await.unwrap();
        slow.push(connection);
    }
    is_served(&server).await;
    drop(slow);
    is_served(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_at_once_leave_nothing_behind() {
    let server = Arc::new(TestServer::start().await);
    for _ in 0..5 {
        let channel = server.channel().await;
        let calls = (0..200).map(|_| {
            let mut client = FlightServiceClient::new(channel.clone());
            async move {
                // Dropped after its first answer, or while it is asked for.
                let call = client.do_get(Ticket::new("select * from slow.endless"));
                if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_millis(5), call).await {
                    let _ = answer.into_inner().next().await;
                }
            }
        });
        join_all(calls).await;
        is_served(&server).await;
    }
    server.engine.endless.has_readers(0).await;
}

#[tokio::test]
async fn a_connection_is_told_how_many_calls_it_may_make_at_once() {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113, section 6.5.2).
    const MOST_STREAMS: u16 = 3;
    let server = TestServer::start().await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    connection.write_all(PREFACE).await.unwrap();
    // A frame's length, its kind (4: SETTINGS), flags and stream; then the settings, each a name and a number.
    let mut frame = [0; 9];
    connection.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4);
    let mut settings = vec![0; usize::from(u16::from_be_bytes([frame[1], frame[2]]))];
    connection.read_exact(&mut settings).await.unwrap();
    let told = settings
        .chunks_exact(6)
        .find(|setting| setting[..2] == MOST_STREAMS.to_be_bytes())
        .map(|setting| &setting[2..]);
    assert_eq!(told, Some(&200_u32.to_be_bytes()[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_at_all_is_hung_up_on() {
    let server = TestServer::start().await;
    for said in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[0; 4096]]
    {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        // The server may hang up while it is still being written to.
        let _ = connection.write_all(said).await;
        let mut answer = Vec::new();
        let end = connection.read_to_end(&mut answer);
        let _ = tokio::time::timeout(SOON, end).await.expect("the server hangs up");
    }
    is_served(&server).await;
}
