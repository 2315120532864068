//! Clients whose connection is cut, and how they get the rest: over real sockets, through a way that breaks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, CancelFlightInfoRequest, FlightData, FlightDescriptor, FlightInfo, Ticket};
use futures::{StreamExt, TryStreamExt};
use lakegate::config::{LineSettings, Settings};
use lakegate::delivery::Position;
use lakegate::flight::{Arrival, ClientOptions, FlightClient};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::engine::BIG_ROWS;
use super::server::{Options, TestServer, ticket};
use super::who::door::House;
use crate::support::credentials::{token_header, with_header};

/// Gives its rows in the same order whenever it runs.
pub(super) const BIG: &str = "select * from big.numbers";
/// Gives rows without end, in an order that nobody vouches for.
pub(super) const ENDLESS: &str = "select * from slow.endless";

/// A way to a server of which the first connection breaks once so many bytes have come from there; what came through it in all.
pub(super) async fn breaking(server: SocketAddr, after: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, carried) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&carried);
    tokio::spawn(async move {
        let mut left = after;
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(carry(client, server, left, Arc::clone(&counted)));
            left = usize::MAX;
        }
    });
    (address, carried)
}

async fn carry(client: TcpStream, server: TcpStream, mut left: usize, carried: Arc<AtomicUsize>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let broken = Arc::new(Notify::new());
    let noticed = Arc::clone(&broken);
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            () = noticed.notified() => {}
        }
        drop(to_server);
        // A socket that is closed with something unread takes back what the other end has not read yet.
        let _ = tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await;
    });
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let most = buffer.len().min(left);
        let Ok(read @ 1..) = from_server.read(&mut buffer[..most]).await else { break };
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        left -= read;
        carried.fetch_add(read, Ordering::SeqCst);
    }
    // What came through arrives; nothing more does.
    let _ = to_client.shutdown().await;
    broken.notify_one();
}

pub(super) fn from<T>(position: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("lakegate-resume", position.parse().unwrap());
    request
}

pub(super) async fn client(address: SocketAddr) -> FlightServiceClient<Channel> {
    let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
    FlightServiceClient::new(channel).max_decoding_message_size(64 << 20)
}

pub(super) async fn asked(server: &TestServer, sql: &str) -> FlightInfo {
    let descriptor = FlightDescriptor::new_cmd(sql.to_owned());
    client(server.address).await.get_flight_info(from("0", descriptor)).await.unwrap().into_inner()
}

/// What came of a result, in order.
#[derive(Default)]
pub(super) struct Had {
    pub(super) messages: Vec<FlightData>,
    pub(super) position: Position,
}

impl Had {
    /// Reads on to the end, an error, or so many messages.
    pub(super) async fn read(
        &mut self,
        client: &mut FlightServiceClient<Channel>,
        ticket: &Ticket,
        most: usize,
    ) -> Result<(), Status> {
        let request = from(&self.position.to_string(), ticket.clone());
        let mut messages = client.do_get(request).await?.into_inner();
        for _ in 0..most {
            let Some(message) = messages.message().await? else { return Ok(()) };
            let after = Position::of_label(&message.app_metadata).expect("each message tells which it is");
            assert_eq!(after.next, self.position.next + 1);
            self.position = after;
            self.messages.push(message);
        }
        Ok(())
    }

    /// The last message was sent, and did not arrive.
    pub(super) fn lose_the_last(&mut self) {
        self.messages.pop();
        self.position = Position::of_label(&self.messages.last().unwrap().app_metadata).unwrap();
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.data_header.len() + message.data_body.len()).sum()
    }

    /// The numbers of `big.numbers`.
    pub(super) async fn numbers(self) -> Vec<i64> {
        let messages = futures::stream::iter(self.messages.into_iter().map(Ok));
        let batches: Vec<RecordBatch> =
            FlightRecordBatchStream::new_from_flight_data(messages).try_collect().await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }
}

/// Each row came once, in order.
pub(super) fn check_all(numbers: &[i64]) {
    let wrong = numbers.iter().zip(0..).position(|(number, wanted)| *number != wanted);
    let around = wrong.map(|at| &numbers[at.saturating_sub(2)..numbers.len().min(at + 3)]);
    assert_eq!((wrong, numbers.len() as i64), (None, BIG_ROWS), "{around:?}");
}

pub(super) fn times_planned(server: &TestServer) -> usize {
    server.engine.asked.lock().unwrap().len()
}

/// Reads so many messages over a connection that is then gone.
pub(super) async fn begin(server: &TestServer, ticket: &Ticket, messages: usize) -> Had {
    let mut had = Had::default();
    had.read(&mut client(server.address).await, ticket, messages).await.unwrap();
    had
}

/// Reads the rest over a new connection.
pub(super) async fn go_on(server: &TestServer, had: &mut Had, ticket: &Ticket) -> Result<(), Status> {
    had.read(&mut client(server.address).await, ticket, usize::MAX).await
}

pub(super) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens soon")
}

/// A line of small messages that holds nobody up for long.
pub(super) fn small_messages(settings: &mut Settings) {
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    settings.lines = vec![LineSettings { networks, rate: Some(199_000_000), ..LineSettings::default() }];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_was_cut_at_half_goes_on_and_next_to_nothing_comes_twice() {
    let server = TestServer::start_with(Options { change: small_messages, ..Options::default() }).await;
    let ticket = ticket(&asked(&server, BIG).await);
    let (way, carried) = breaking(server.address, 12 << 20).await;
    let mut had = Had::default();
    had.read(&mut client(way).await, &ticket, usize::MAX).await.unwrap_err();
    let lost = carried.load(Ordering::SeqCst) - had.bytes();
    go_on(&server, &mut had, &ticket).await.unwrap();
    assert!(lost * 100 <= had.bytes() * 3, "{lost} of {}", had.bytes());
    assert_eq!(times_planned(&server), 1, "the same run goes on");
    check_all(&had.numbers().await);
}

#[tokio::test]
async fn whoever_does_not_ask_sees_nothing_of_it() {
    let server = TestServer::start().await;
    let mut client = client(server.address).await;
    let messages: Vec<FlightData> =
        client.do_get(Ticket::new(BIG)).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(messages.iter().all(|message| message.app_metadata.is_empty()));
    let refused = client.do_get(from("1:00112233445566778899aabbccddeeff", Ticket::new(BIG))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    let refused = client.do_get(from("one", Ticket::new(BIG))).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("lakegate-resume"), "{refused:?}");
}

#[tokio::test]
async fn whoever_had_other_rows_starts_over_and_the_one_who_had_these_goes_on() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, BIG).await);
    let mut had = begin(&server, &ticket, 4).await;
    let mut other = Had { position: Position { hash: [9; 16], ..had.position }, ..Had::default() };
    let refused = go_on(&server, &mut other, &ticket).await.unwrap_err();
    assert!(refused.code() == Code::Aborted && refused.message().contains("start over"), "{refused:?}");
    go_on(&server, &mut had, &ticket).await.unwrap();
    assert_eq!(times_planned(&server), 1);
    check_all(&had.numbers().await);
}

#[tokio::test]
async fn who_needs_schema_and_dictionaries_again_is_sent_them_before_the_rest() {
    fn nothing(settings: &mut Settings) {
        settings.spool.size = 0;
    }
    fn all_kept(_: &mut Settings) {}
    for change in [all_kept as fn(&mut Settings), nothing] {
        let server = TestServer::start_with(Options { change, ..Options::default() }).await;
        let ticket = ticket(&asked(&server, BIG).await);
        let mut had = begin(&server, &ticket, 4).await;
        had.lose_the_last();
        let again = from(&format!("{};opening", had.position), ticket);
        let mut messages = client(server.address).await.do_get(again).await.unwrap().into_inner();
        let schema = messages.message().await.unwrap().unwrap();
        assert_eq!((&schema.data_header, schema.app_metadata.len()), (&had.messages[0].data_header, 0));
        while let Some(message) = messages.message().await.unwrap() {
            let after = Position::of_label(&message.app_metadata).expect("only what opens the stream has no label");
            assert_eq!(after.next, had.position.next + 1);
            had.position = after;
            had.messages.push(message);
        }
        check_all(&had.numbers().await);
    }
}

#[tokio::test]
async fn the_end_of_a_result_is_there_for_whoever_lost_it() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, "select * from weather.stations").await);
    let mut had = begin(&server, &ticket, usize::MAX).await;
    let (whole, messages) = (had.position, had.messages.len());
    had.lose_the_last();
    go_on(&server, &mut had, &ticket).await.unwrap();
    assert_eq!((had.position, had.messages.len(), times_planned(&server)), (whole, messages, 1));
}

#[tokio::test]
async fn without_a_spool_the_statement_runs_again_and_has_to_give_the_same() {
    fn nothing(settings: &mut Settings) {
        settings.spool.size = 0;
    }
    fn broken(settings: &mut Settings) {
        settings.spool.folder = Some("/dev/null/no-folder".into());
    }
    for change in [nothing as fn(&mut Settings), broken] {
        let server = TestServer::start_with(Options { change, ..Options::default() }).await;
        let ticket = ticket(&asked(&server, BIG).await);
        let mut had = begin(&server, &ticket, 4).await;
        had.lose_the_last();
        let mut other = Had { position: Position { hash: [9; 16], ..had.position }, ..Had::default() };
        go_on(&server, &mut had, &ticket).await.unwrap();
        assert_eq!(times_planned(&server), 2);
        check_all(&had.numbers().await);
        let refused = go_on(&server, &mut other, &ticket).await.unwrap_err();
        assert!(refused.code() == Code::Aborted && refused.message().contains("another order"), "{refused:?}");
    }
}

#[tokio::test]
async fn another_server_with_the_same_key_goes_on_where_one_died() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    let (big, stations) =
        (ticket(&asked(&one, BIG).await), ticket(&asked(&one, "select * from weather.stations").await));
    let (mut had, mut few) = (begin(&one, &big, 4).await, begin(&one, &stations, 2).await);
    one.stopped.abort();
    go_on(&other, &mut had, &big).await.unwrap();
    check_all(&had.numbers().await);
    let refused = go_on(&other, &mut few, &stations).await.unwrap_err();
    assert!(refused.code() == Code::Aborted && refused.message().contains("same order"), "{refused:?}");
}

#[tokio::test]
async fn a_download_goes_on_when_its_ticket_is_past_its_time_and_none_begins() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, BIG).await);
    let mut had = begin(&server, &ticket, 4).await;
    had.lose_the_last();
    server.clock.advance(Duration::from_secs(3600));
    go_on(&server, &mut had, &ticket).await.unwrap();
    assert_eq!(times_planned(&server), 1);
    check_all(&had.numbers().await);
    let refused = go_on(&server, &mut Had::default(), &ticket).await.unwrap_err();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("expired"), "{refused:?}");
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_was_said() {
    fn short(settings: &mut Settings) {
        settings.spool.keep = Duration::from_millis(1);
    }
    let server = TestServer::start_with(Options { change: short, ..Options::default() }).await;
    let ticket = ticket(&asked(&server, ENDLESS).await);
    let mut had = begin(&server, &ticket, 3).await;
    server.engine.endless.has_readers(0).await;
    soon(async {
        while !server.journal.running().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(go_on(&server, &mut had, &ticket).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_result_whose_client_is_cut_off_is_cancelled_at_once() {
    let server = TestServer::start().await;
    let info = asked(&server, ENDLESS).await;
    let mut had = begin(&server, &ticket(&info), 3).await;
    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info.clone()).encode_to_vec());
    client(server.address).await.do_action(action).await.unwrap();
    server.engine.endless.has_readers(0).await;
    let refused = go_on(&server, &mut had, &ticket(&info)).await.unwrap_err();
    assert!([Code::Cancelled, Code::Aborted].contains(&refused.code()), "{refused:?}");
}

#[tokio::test]
async fn who_gives_up_over_a_connection_that_is_open_is_not_waited_for() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, ENDLESS).await);
    let mut open = client(server.address).await;
    Had::default().read(&mut open, &ticket, 3).await.unwrap();
    server.engine.endless.has_readers(0).await;
    drop(open);
}

#[tokio::test]
async fn a_server_that_stops_waits_for_nobody_who_was_cut_off() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, ENDLESS).await);
    begin(&server, &ticket, 3).await;
    server.shutdown.request();
    soon(server.stopped).await.unwrap().unwrap();
    server.engine.endless.has_readers(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_hangs_gives_way_to_the_one_that_comes_back() {
    let server = TestServer::start().await;
    let ticket = ticket(&asked(&server, ENDLESS).await);
    let mut old = client(server.address).await;
    let mut messages = old.do_get(from("0", ticket.clone())).await.unwrap().into_inner();
    let first = messages.message().await.unwrap().unwrap();
    let mut had = Had { position: Position::of_label(&first.app_metadata).unwrap(), messages: vec![first] };
    had.read(&mut client(server.address).await, &ticket, 5).await.unwrap();
    let refused = soon(async {
        loop {
            if let Err(status) = messages.message().await {
                return status;
            }
        }
    })
    .await;
    assert!(refused.message().contains("another connection"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_come_back_at_once() {
    let server = Arc::new(TestServer::start().await);
    let mut begun = Vec::new();
    for _ in 0..100 {
        let ticket = ticket(&asked(&server, "select n from big.numbers limit 60000").await);
        begun.push((begin(&server, &ticket, 2).await, ticket));
    }
    let mut coming = JoinSet::new();
    for (mut had, ticket) in begun {
        let server = Arc::clone(&server);
        coming.spawn(async move {
            go_on(&server, &mut had, &ticket).await.unwrap();
            had.numbers().await.len()
        });
    }
    assert!(coming.join_all().await.iter().all(|rows| *rows == 60_000));
}

#[tokio::test]
async fn nobody_goes_on_with_what_somebody_else_began() {
    let house = House::with_users();
    let (ann, bob) = (token_header(&house.token("ann", None)), token_header(&house.token("bob", None)));
    let door = house.open().await;
    let mut client = client(door.address).await;
    let as_somebody = |request: Request<Ticket>, position: &str| {
        let mut request = request;
        request.metadata_mut().insert("lakegate-resume", position.parse().unwrap());
        request
    };
    let mut descriptor = with_header(FlightDescriptor::new_cmd(ENDLESS), Some(&ann));
    descriptor.metadata_mut().insert("lakegate-resume", "0".parse().unwrap());
    let ticket = ticket(&client.get_flight_info(descriptor).await.unwrap().into_inner());
    let request = as_somebody(with_header(ticket.clone(), Some(&ann)), "0");
    let mut messages = client.do_get(request).await.unwrap().into_inner();
    let position = Position::of_label(&messages.next().await.unwrap().unwrap().app_metadata).unwrap().to_string();
    let request = as_somebody(with_header(ticket.clone(), Some(&bob)), &position);
    assert_eq!(client.do_get(request).await.unwrap_err().code(), Code::PermissionDenied);
    let request = as_somebody(with_header(ticket, Some(&ann)), &position);
    assert!(client.do_get(request).await.unwrap().into_inner().next().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_client_goes_on_by_itself_and_says_so() {
    let server = TestServer::start().await;
    let (way, _) = breaking(server.address, 9 << 20).await;
    let mut client = FlightClient::connect(&format!("grpc://{way}"), &ClientOptions::default()).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    client.watch(move |arrival| match arrival {
        Arrival::Begins(_) | Arrival::Bytes(_) => {}
        other => heard.lock().unwrap().push(matches!(other, Arrival::GoesOn)),
    });
    let (_, batches) = client.query(BIG, &[]).await.unwrap();
    let batches: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    assert!(numbers.eq(0..BIG_ROWS));
    let told = told.lock().unwrap();
    assert!(told.first() == Some(&false) && told.last() == Some(&true), "{told:?}");
}
