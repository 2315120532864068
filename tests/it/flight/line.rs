//! A line is shared by person, small answers go ahead on it, and whoever is behind none never waits: over real sockets.

use std::future::poll_fn;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use flate2::read::GzDecoder;
use http::Request;
use http_body::Body as _;
use lakegate::config::{LineSettings, Settings};
use prost::Message;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::server::{Options, TestServer, query};
use super::who::door::House;
use crate::support::credentials::{token_header, with_header};

/// Gives rows without end.
const ROWS: &str = "select * from slow.endless";
/// Gives half a megabyte.
const SMALL: &str = "select * from big.numbers limit 20000";
/// What the line of these tests carries, in bits per second.
const RATE: u64 = 8_000_000;
const MIB: u64 = 1 << 20;

/// A line to some networks.
fn line_to(settings: &mut Settings, networks: &str) {
    // The line alone decides who goes next.
    settings.limits.serving.statements = 64.try_into().unwrap();
    let networks = vec![networks.parse().unwrap()];
    settings.lines = vec![LineSettings { networks, rate: Some(RATE), ..LineSettings::default() }];
}

fn line_to_here(settings: &mut Settings) {
    line_to(settings, "127.0.0.0/8");
}

/// A result on its way, asked for on a connection of its own.
struct Pull {
    rows: Streaming<FlightData>,
    _client: FlightServiceClient<Channel>,
}

impl Pull {
    async fn begin(server: SocketAddr, from: &str, sql: &str, header: Option<&str>) -> Self {
        let from: IpAddr = from.parse().unwrap();
        let endpoint = Endpoint::new(format!("http://{server}")).unwrap().local_address(Some(from));
        let mut client = FlightServiceClient::new(endpoint.connect().await.unwrap());
        let rows = client.do_get(with_header(Ticket::new(sql.to_owned()), header)).await.unwrap().into_inner();
        Self { rows, _client: client }
    }

    /// Bytes of the next message; none at the end.
    async fn next(&mut self) -> Option<u64> {
        let message = self.rows.message().await.unwrap()?;
        Some((message.data_header.len() + message.data_body.len()) as u64)
    }

    async fn read_to_end(mut self) {
        while self.next().await.is_some() {}
    }
}

/// Pulls without end, and the bytes all of them have had.
#[derive(Default)]
struct Crowd {
    tasks: JoinSet<()>,
    had: Arc<AtomicU64>,
}

impl Crowd {
    fn add(&mut self, mut pull: Pull) {
        let had = Arc::clone(&self.had);
        self.tasks.spawn(async move {
            while let Some(bytes) = pull.next().await {
                had.fetch_add(bytes, Ordering::Relaxed);
            }
        });
    }
}

/// What a crowd and one other have while the other has so many bytes more, and how long that takes.
async fn side_by_side(crowd: &Crowd, one: &mut Pull, bytes: u64) -> (f64, f64, Duration) {
    one.next().await.unwrap();
    let (begun, before, mut had) = (Instant::now(), crowd.had.load(Ordering::Relaxed), 0);
    while had < bytes {
        had += one.next().await.unwrap();
    }
    ((crowd.had.load(Ordering::Relaxed) - before) as f64, had as f64, begun.elapsed())
}

/// Both have the same, and together what the line carries.
fn assert_shared((crowd, one, took): (f64, f64, Duration)) {
    let rate = (crowd + one) * 8.0 / took.as_secs_f64() / RATE as f64;
    assert!((0.85..=1.15).contains(&rate), "{rate} of the line's rate: {crowd} and {one} in {took:?}");
    let index = (crowd + one).powi(2) / (2.0 * (crowd * crowd + one * one));
    assert!(index >= 0.95, "{index}: {crowd} and {one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_connections_of_one_person_get_what_one_of_another_gets() {
    let house = House::with_users();
    let line = format!("[[line]]\nnetworks = [\"127.0.0.0/8\"]\nrate = \"{RATE}bit/s\"\n");
    house.write("lakegate.toml", format!("{line}[limits]\nstatements = 64\n"));
    let (ann, bob) = (token_header(&house.token("ann", None)), token_header(&house.token("bob", None)));
    let door = house.open().await;
    let mut crowd = Crowd::default();
    for _ in 0..8 {
        crowd.add(Pull::begin(door.address, "127.0.0.1", ROWS, Some(&ann)).await);
    }
    let mut one = Pull::begin(door.address, "127.0.0.1", ROWS, Some(&bob)).await;
    assert_shared(side_by_side(&crowd, &mut one, 3 * MIB).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_anonymous_share_by_address_and_a_place_is_free_once_its_client_is_gone() {
    let server = TestServer::start_with(Options { change: line_to_here, ..Options::default() }).await;
    let small = async || {
        let begun = Instant::now();
        Pull::begin(server.address, "127.0.0.3", SMALL, None).await.read_to_end().await;
        begun.elapsed()
    };
    let alone = small().await;
    let mut crowd = Crowd::default();
    for _ in 0..8 {
        crowd.add(Pull::begin(server.address, "127.0.0.1", ROWS, None).await);
    }
    let mut one = Pull::begin(server.address, "127.0.0.2", ROWS, None).await;
    assert_shared(side_by_side(&crowd, &mut one, 3 * MIB).await);
    let beside = small().await;
    assert!(beside <= 2 * alone, "{beside:?} instead of {alone:?}");

    let told: Vec<_> = server.journal.streams().all().iter().map(|stream| stream.now()).collect();
    assert_eq!(told.len(), 9, "{told:?}");
    assert!(told.iter().all(|stream| stream.line.as_deref() == Some("127.0.0.0/8")), "{told:?}");
    assert!(told.iter().all(|stream| stream.line_rate == Some(RATE) && stream.bytes > 0), "{told:?}");
    assert!(told.iter().all(|stream| stream.rate > 0 && stream.wait_micros > 0), "{told:?}");
    let shares: f64 = told.iter().filter_map(|stream| stream.share).sum();
    assert!((0.5..=1.01).contains(&shares), "{shares}: {told:?}");

    crowd.tasks.shutdown().await;
    let gone = async {
        while server.journal.streams().all().len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("those who left leave the line");
    let (_, had, took) = side_by_side(&Crowd::default(), &mut one, 2 * MIB).await;
    let rate = had * 8.0 / took.as_secs_f64() / RATE as f64;
    assert!((0.85..=1.15).contains(&rate), "{rate} of the line's rate");
}

#[tokio::test]
async fn who_is_behind_no_line_never_waits_for_one() {
    fn elsewhere(settings: &mut Settings) {
        line_to(settings, "10.0.0.0/8");
    }
    let server = TestServer::start_with(Options { change: elsewhere, ..Options::default() }).await;
    // On the line these 26 MB would take half a minute.
    let read = query(&server, "select * from big.numbers");
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("it does not wait").unwrap();
}

/// The messages of an answer, each with whether it came compressed, and how the answer's headers say that.
async fn messages(
    server: SocketAddr,
    sql: &str,
    headers: &[(&str, &str)],
) -> (Option<String>, Vec<(bool, FlightData)>) {
    let mut channel = Endpoint::new(format!("http://{server}")).unwrap().connect().await.unwrap();
    let ticket = Ticket::new(sql.to_owned()).encode_to_vec();
    let length = u32::try_from(ticket.len()).unwrap().to_be_bytes();
    // A frame as short as this one is text.
    let body = String::from_utf8([&[0_u8][..], length.as_slice(), ticket.as_slice()].concat()).unwrap();
    let call = format!("http://{server}/arrow.flight.protocol.FlightService/DoGet");
    let mut request = Request::post(call).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request.body(Body::new(body)).unwrap()).await.unwrap();
    let encoding = response.headers().get("grpc-encoding").map(|value| value.to_str().unwrap().to_owned());
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.unwrap().into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(trailers) => assert_eq!(trailers.into_trailers().unwrap().get("grpc-status").unwrap(), "0"),
        }
    }
    let (mut left, mut read) = (bytes.as_slice(), Vec::new());
    while let Some(([is_compressed, length @ ..], rest)) = left.split_first_chunk::<5>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        let mut message = frame.to_vec();
        if *is_compressed == 1 {
            message.clear();
            GzDecoder::new(frame).read_to_end(&mut message).unwrap();
        }
        read.push((*is_compressed == 1, FlightData::decode(message.as_slice()).unwrap()));
        left = rest;
    }
    (encoding, read)
}

#[tokio::test]
async fn on_a_slow_line_gzip_is_for_who_unpacks_it_and_nothing_better() {
    const UNPACKS: (&str, &str) = ("grpc-accept-encoding", "identity,deflate,gzip");
    let server = TestServer::start_with(Options { change: line_to_here, ..Options::default() }).await;
    let (said, plain) = messages(server.address, SMALL, &[]).await;
    assert!(said.is_none() && plain.len() > 2 && plain.iter().all(|(is_compressed, _)| !is_compressed));
    let (said, packed) = messages(server.address, SMALL, &[UNPACKS]).await;
    assert_eq!(said.as_deref(), Some("gzip"));
    assert!(packed.iter().skip(1).all(|(is_compressed, _)| *is_compressed), "all but the schema, which is short");
    let all = |messages: Vec<(bool, FlightData)>| messages.into_iter().map(|(_, message)| message).collect::<Vec<_>>();
    assert!(all(plain) == all(packed), "the same messages");
    let (said, _) = messages(server.address, SMALL, &[UNPACKS, ("lakegate-codec", "none")]).await;
    assert_eq!(said, None, "whoever wants nothing packed gets that");
    let (said, _) = messages(server.address, SMALL, &[UNPACKS, ("lakegate-codec", "zstd")]).await;
    assert_eq!(said, None, "nothing is packed twice");
}

#[tokio::test]
async fn a_line_says_how_rows_come_to_who_does_not() {
    fn worded(settings: &mut Settings) {
        line_to_here(settings);
        settings.lines[0].dictionaries = Some(true);
    }
    let server = TestServer::start_with(Options { change: worded, ..Options::default() }).await;
    let sql = "select station from weather.hourly order by hour";
    let is_dictionary = async |asked: Option<&str>| {
        let mut client = server.client().await;
        asked.into_iter().for_each(|word| client.set_header("lakegate-dictionaries", word));
        let schema = client.execute(sql.to_owned(), None).await.unwrap().try_decode_schema().unwrap();
        matches!(schema.field(0).data_type(), arrow::datatypes::DataType::Dictionary(..))
    };
    assert!(is_dictionary(None).await && is_dictionary(Some("on")).await && !is_dictionary(Some("off")).await);
}
