//! Bad days of results on their way: what goes wrong with a client, its ticket, its rights, the disk, the clock or the server
//! itself costs others nothing, holds little, and is told in words one can act on.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::FlightDescriptor;
use chrono::TimeDelta;
use futures::TryStreamExt;
use lakegate::config::Settings;
use lakegate::delivery::Position;
use lakegate::flight::{Arrival, ClientOptions, FlightClient};
use lakegate::model::Location;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tonic::{Code, Request};

use super::engine::BIG_ROWS;
use super::resume::{
    BIG, ENDLESS, Had, asked, begin, breaking, check_all, client, from, go_on, small_messages, soon, times_planned,
};
use super::server::{Options, TestServer, query, ticket};
use super::who::door::House;
use crate::queries;
use crate::support::credentials::{token_header, with_header};
use crate::support::process::{Running, told};
use crate::support::team::Team;

/// Bytes of a batch of `slow.endless`.
const BATCH_BYTES: usize = 8192 * 8;

fn one_place(settings: &mut Settings) {
    settings.limits.serving.statements = 1.try_into().unwrap();
    settings.limits.serving.queue_wait = Duration::from_secs(60);
}

/// A request that names a codec, too.
fn encoded<T>(codec: &str, position: &str, message: T) -> Request<T> {
    let mut request = from(position, message);
    request.metadata_mut().insert("lakegate-codec", codec.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_for_ten_minutes_holds_little_and_then_goes_on() {
    let server = TestServer::start_with(Options { change: one_place, ..Options::default() }).await;
    let mut asking = client(server.address).await;
    let descriptor = FlightDescriptor::new_cmd(ENDLESS);
    let info = asking.get_flight_info(encoded("none", "0", descriptor)).await.unwrap().into_inner();
    let mut rows = asking.do_get(encoded("none", "0", ticket(&info))).await.unwrap().into_inner();
    rows.message().await.unwrap().expect("the schema");
    // Its ticket is past its time by then.
    server.clock.advance(Duration::from_secs(600));
    let mut made = usize::MAX;
    soon(async {
        // Others get the only place there is, until nothing is made for it any more.
        loop {
            assert_eq!(query(&server, "select 1").await.unwrap().len(), 1);
            let now = server.engine.endless.produced.load(Ordering::SeqCst);
            if now == std::mem::replace(&mut made, now) {
                return;
            }
        }
    })
    .await;
    assert!(made * BATCH_BYTES < 128 << 20, "{made} batches wait in its windows and in the server");
    let mut next = 1;
    while next < 40 {
        let message = soon(rows.message()).await.unwrap().unwrap();
        next += 1;
        assert_eq!(Position::of_label(&message.app_metadata).unwrap().next, next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_for_too_long_gives_its_disk_to_others_and_is_told() {
    fn impatient(settings: &mut Settings) {
        settings.limits.serving.idle_reader = Duration::from_secs(2);
        // One segment, which the first result takes.
        settings.spool.size = 8 << 20;
    }
    let server = TestServer::start_with(Options { change: impatient, ..Options::default() }).await;
    let endless = ticket(&asked(&server, ENDLESS).await);
    let mut frozen = client(server.address).await;
    let mut rows = frozen.do_get(from("0", endless)).await.unwrap().into_inner();
    rows.message().await.unwrap().expect("the schema");
    server.engine.endless.has_readers(0).await;
    // Somebody else's last message is kept now: it need not be made again.
    soon(async {
        loop {
            let big = ticket(&asked(&server, BIG).await);
            let planned = times_planned(&server);
            let mut had = begin(&server, &big, 4).await;
            had.lose_the_last();
            go_on(&server, &mut had, &big).await.unwrap();
            check_all(&had.numbers().await);
            if times_planned(&server) == planned {
                return;
            }
        }
    })
    .await;
    let status = loop {
        match soon(rows.message()).await {
            Ok(message) => drop(message.expect("it does not end well")),
            Err(status) => break status,
        }
    };
    assert!(status.code() == Code::DeadlineExceeded && status.message().contains("limits.idle_reader"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_more_results_than_may_rest_the_one_that_rests_longest_is_given_up() {
    fn many(settings: &mut Settings) {
        one_place(settings);
        small_messages(settings);
        settings.spool.size = 4 << 30;
    }
    let server = TestServer::start_with(Options { change: many, ..Options::default() }).await;
    let mut begun = Vec::new();
    for _ in 0..=128 {
        // Each gets the only place once the one before rests.
        let ticket = ticket(&asked(&server, ENDLESS).await);
        begun.push((begin(&server, &ticket, 2).await, ticket));
    }
    server.engine.endless.has_readers(128).await;
    let mut given_up = Vec::new();
    for (number, (mut had, ticket)) in begun.into_iter().enumerate() {
        match had.read(&mut client(server.address).await, &ticket, 1).await {
            Ok(()) => assert_eq!(had.position.next, 3),
            Err(status) => {
                assert!(status.code() == Code::Aborted && status.message().contains("start over"), "{status:?}");
                given_up.push(number);
            }
        }
    }
    assert_eq!(given_up, [0]);
}

#[tokio::test]
async fn what_rests_is_freed_when_its_person_may_not_see_it_any_more() {
    let house = House::with_users();
    let grant = |to: &str| format!("[[grant]]\nto = \"user:{to}\"\non = \"slow.*\"\n");
    house.write("grants.toml", grant("ann"));
    let ann = token_header(&house.token("ann", None));
    let door = house.open().await;
    let mut descriptor = with_header(FlightDescriptor::new_cmd(ENDLESS), Some(&ann));
    descriptor.metadata_mut().insert("lakegate-resume", "0".parse().unwrap());
    let ticket = ticket(&door.client().await.get_flight_info(descriptor).await.unwrap().into_inner());
    let wanted = |position: &str| {
        let mut request = with_header(ticket.clone(), Some(&ann));
        request.metadata_mut().insert("lakegate-resume", position.parse().unwrap());
        request
    };
    let position = {
        let mut client = door.client().await;
        let mut rows = client.do_get(wanted("0")).await.unwrap().into_inner();
        let first = rows.message().await.unwrap().unwrap();
        Position::of_label(&first.app_metadata).unwrap().to_string()
    };
    door.engine.endless.has_readers(1).await;
    house.write("grants.toml", grant("bob"));
    door.reload().await;
    door.engine.endless.has_readers(0).await;
    let refused = door.client().await.do_get(wanted(&position)).await.map(drop).unwrap_err();
    // Where its connection was still taken for open, it ended there, and nothing is known of it any more.
    let expected = match refused.code() {
        Code::Aborted => "start over",
        _ => "run the query again",
    };
    assert!([Code::PermissionDenied, Code::Aborted].contains(&refused.code()), "{refused:?}");
    assert!(refused.message().contains(expected), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_expires_in_the_middle_ends_nothing_that_is_kept_and_else_it_is_named() {
    fn nothing(settings: &mut Settings) {
        settings.spool.size = 0;
    }
    fn all(_: &mut Settings) {}
    for (change, is_kept) in [(all as fn(&mut Settings), true), (nothing, false)] {
        let server = TestServer::start_with(Options { change, ..Options::default() }).await;
        let (way, _) = breaking(server.address, 9 << 20).await;
        let mut client = FlightClient::connect(&format!("grpc://{way}"), &ClientOptions::default()).await.unwrap();
        let clock = server.clock.clone();
        client.watch(move |arrival| {
            if matches!(arrival, Arrival::Cut { .. }) {
                clock.advance(Duration::from_secs(3600));
            }
        });
        let (_, batches) = client.query(BIG, &[]).await.unwrap();
        let came: Result<Vec<RecordBatch>, _> = batches.try_collect().await;
        match came {
            Ok(batches) => {
                assert!(is_kept, "nothing was kept, and still it went on");
                assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() as i64, BIG_ROWS);
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!is_kept && error.contains("expired") && error.contains("run the query again"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_or_back_disturbs_no_result_on_its_way() {
    let server = TestServer::start().await;
    let day = TimeDelta::days(1);
    for by in [day, -day, -day, day] {
        let big = ticket(&asked(&server, BIG).await);
        let mut had = begin(&server, &big, 4).await;
        server.clock.jump(by);
        had.lose_the_last();
        go_on(&server, &mut had, &big).await.unwrap();
        check_all(&had.numbers().await);
        query(&server, "select 1").await.unwrap();
        // A ticket says until when by the time of day: set back, that is longer, and forward it is over.
        let again = go_on(&server, &mut Had::default(), &big).await;
        match again {
            Ok(()) => assert!(by < TimeDelta::zero()),
            Err(status) => assert!(by > TimeDelta::zero() && status.message().contains("expired"), "{status:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_lies_about_its_codec_is_never_sent_two_results_as_one() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    let descriptor = FlightDescriptor::new_cmd(BIG);
    let mut asking = client(one.address).await;
    let ticket = ticket(&asking.get_flight_info(encoded("zstd", "0", descriptor)).await.unwrap().into_inner());
    let mut rows = asking.do_get(encoded("zstd", "0", ticket.clone())).await.unwrap().into_inner();
    let mut position = Position::default();
    for _ in 0..3 {
        position = Position::of_label(&rows.message().await.unwrap().unwrap().app_metadata).unwrap();
    }
    drop((rows, asking));
    // Where the messages are made again for another codec, they are others.
    let position = position.to_string();
    let mut rows =
        client(other.address).await.do_get(encoded("none", &position, ticket.clone())).await.unwrap().into_inner();
    let refused = rows.message().await.unwrap_err();
    assert!(refused.code() == Code::Aborted && refused.message().contains("start over"), "{refused:?}");
    let mut rows = client(other.address).await.do_get(encoded("zstd", &position, ticket)).await.unwrap().into_inner();
    assert_eq!(Position::of_label(&rows.message().await.unwrap().unwrap().app_metadata).unwrap().next, 4);
}

/// Removes the data files below a folder.
fn remove_data_files(folder: &Path) -> usize {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            removed += remove_data_files(&path);
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            std::fs::remove_file(path).unwrap();
            removed += 1;
        }
    }
    removed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_changes_under_a_replay_gives_the_old_rows_and_one_that_is_vacuumed_says_so() {
    const ROWS: i64 = 300_000;
    let house = queries::house::House::new(&["t.v", "t.w"]).await;
    for table in ["t.v", "t.w"] {
        house.load(table, &[("id", "bigint")], &format!("select x from generate_series(1, {ROWS}) g(x)")).await;
    }
    let (one, other) = (house.serve().await, house.serve().await);
    let descriptor = FlightDescriptor::new_cmd("select id from t.v");
    let ticket = ticket(&client(one).await.get_flight_info(from("0", descriptor)).await.unwrap().into_inner());
    let mut had = Had::default();
    had.read(&mut client(one).await, &ticket, 2).await.unwrap();
    let position = had.position;
    house.load("t.v", &[("id", "bigint")], "select -1 as id").await;
    // Nothing is kept there: the statement runs again.
    had.read(&mut client(other).await, &ticket, usize::MAX).await.unwrap();
    let mut numbers = had.numbers().await;
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=ROWS));
    let Location::Local(lake) = &house.settings.lake.location else { panic!("a folder") };
    assert!(remove_data_files(&lake.join("t").join("v")) > 0);
    let mut had = Had { position, ..Had::default() };
    let status = had.read(&mut client(house.serve().await).await, &ticket, usize::MAX).await.unwrap_err();
    assert!(status.code() == Code::DataLoss && status.message().contains("VACUUM"), "{status:?}");
    assert_eq!(house.rows("select count(*) from t.w").await.unwrap(), [ROWS.to_string()]);
}

/// A team with `s.big`: numbers that do not compress, each once.
fn team() -> (Team, Vec<i64>) {
    let numbers: Vec<i64> = (0..300_000_i64).map(|number| number * 2_654_435_761 % (1 << 32)).collect();
    let team = Team::local();
    team.drop_file("ticket.key", "07".repeat(32));
    // What is kept of whole results would let everybody go on.
    team.configure("[tickets]\nkey = { file = \"ticket.key\" }\n[spool]\ncache = \"0B\"\n");
    team.define("s.big", "[source]\nfiles = \"in/*.csv\"\n[[columns]]\nname = \"n\"\ntype = \"bigint\"\n");
    let lines: Vec<String> = numbers.iter().map(i64::to_string).collect();
    team.drop_file("in/big.csv", format!("n\n{}\n", lines.join("\n")));
    let loaded = team.run(&["sync"]);
    assert!(loaded.status.success(), "{}", told(&loaded));
    (team, numbers)
}

/// Starts a server of a team, which logs to `server.log`; where it listens.
fn start(team: &Team, mut command: Command) -> (Running, SocketAddr) {
    let ready = team.file("ready");
    let _ = std::fs::remove_file(&ready);
    let log = File::options().create(true).append(true).open(team.file("server.log")).unwrap();
    let server = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut server = Running(server);
    let patience = Instant::now() + Duration::from_secs(60);
    while !ready.exists() {
        assert!(server.0.try_wait().unwrap().is_none() && Instant::now() < patience, "the server does not start");
        std::thread::yield_now();
    }
    let address = std::fs::read_to_string(ready).unwrap();
    (server, address.trim().strip_prefix("grpc://").unwrap().parse().unwrap())
}

const SERVE: &[&str] = &["serve", "--no-loads", "--flight", "127.0.0.1:0", "--ready-file", "ready"];

/// The numbers of all batches, sorted.
fn sorted(batches: &[RecordBatch]) -> Vec<i64> {
    let numbers = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    let mut numbers: Vec<i64> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_cannot_be_written_is_told_once_a_result_and_disturbs_none() {
    let (team, mut numbers) = team();
    numbers.sort_unstable();
    let command = team.command_with_fault(SERVE, "delivery.spool.write", "return(error)");
    let (_server, address) = tokio::task::block_in_place(|| start(&team, command));
    let connect = async || {
        let (way, _) = breaking(address, 512 << 10).await;
        FlightClient::connect(&format!("grpc://{way}"), &ClientOptions::default()).await.unwrap()
    };
    // Made again, and what had come is left out.
    let mut client = connect().await;
    let (_, batches) = client.query("select n from s.big", &[]).await.unwrap();
    let batches: Vec<RecordBatch> = batches.try_collect().await.unwrap();
    assert_eq!(sorted(&batches), numbers);
    // In no order that holds at another run.
    let mut client = connect().await;
    let (_, batches) = client.query("select n, count(*) from s.big group by n", &[]).await.unwrap();
    let error = batches.try_collect::<Vec<_>>().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("start over"), "{error}");
    let log = std::fs::read_to_string(team.file("server.log")).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("the spool cannot be written")).count(), 3, "{log}");
}

/// A way to a server in whose place another one may come. Its first connection carries so many bytes from there, and then none
/// until it is cut.
struct Way {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    /// The first connection carries no more.
    full: Arc<Notify>,
    /// Cuts it.
    cut: Arc<Notify>,
}

impl Way {
    async fn to(server: SocketAddr, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self {
            address: listener.local_addr().unwrap(),
            server: Arc::new(Mutex::new(server)),
            full: Arc::default(),
            cut: Arc::default(),
        };
        let (server, full, cut) = (Arc::clone(&way.server), Arc::clone(&way.full), Arc::clone(&way.cut));
        tokio::spawn(async move {
            let mut left = most;
            while let Ok((client, _)) = listener.accept().await {
                let address = *server.lock().unwrap();
                // Nobody listens while the server starts anew.
                let Ok(server) = TcpStream::connect(address).await else { continue };
                tokio::spawn(carry((client, server), left, (Arc::clone(&full), Arc::clone(&cut))));
                left = usize::MAX;
            }
        });
        way
    }
}

async fn carry((client, server): (TcpStream, TcpStream), mut left: usize, (full, cut): (Arc<Notify>, Arc<Notify>)) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let most = buffer.len().min(left);
        let Ok(read @ 1..) = from_server.read(&mut buffer[..most]).await else { break };
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        left -= read;
    }
    if left == 0 {
        full.notify_one();
        cut.notified().await;
    }
    up.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_server_that_is_killed_in_the_middle_costs_no_row_and_gives_none_twice() {
    let (team, mut numbers) = team();
    numbers.sort_unstable();
    for (sql, said) in [
        ("select n from s.big", "going on where the connection was cut"),
        ("select n from s.big where n % 2 >= 0", "going on where the connection was cut"),
        ("select n from s.big group by n", "starting over"),
    ] {
        let (server, address) = tokio::task::block_in_place(|| start(&team, team.command(SERVE)));
        let way = Way::to(address, 512 << 10).await;
        let mut command = team.command(&["query", sql, "--server", &format!("grpc://{}", way.address)]);
        command.args(["-o", "out.csv"]).env("XDG_CACHE_HOME", team.path());
        let asking = Running::start(command);
        soon(way.full.notified()).await;
        // Killed, as by the system: nothing is told to anybody.
        drop(server);
        way.cut.notify_one();
        let (_again, address) = tokio::task::block_in_place(|| start(&team, team.command(SERVE)));
        *way.server.lock().unwrap() = address;
        let output = tokio::task::spawn_blocking(move || asking.finish()).await.unwrap();
        let told = told(&output);
        assert!(output.status.success() && told.contains(said), "{sql}: {told}");
        let text = std::fs::read_to_string(team.file("out.csv")).unwrap();
        let mut came: Vec<i64> = text.lines().skip(1).map(|line| line.parse().unwrap()).collect();
        came.sort_unstable();
        assert!(came == numbers, "{sql}: {} rows", came.len());
    }
}
