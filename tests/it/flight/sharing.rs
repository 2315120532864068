//! Identical statements run once, whether they are asked at the same time or one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, Ticket};
use futures::{StreamExt, TryStreamExt};
use lakegate::config::Settings;
use lakegate::journal::{QueryRecord, QueryStatus, SharedFrom};
use object_store::local::LocalFileSystem;
use prost::Message;
use tonic::Status;

use super::engine::BIG_ROWS;
use super::resume::{asked, begin, check_all, client, go_on};
use super::server::{Options, TestServer, query, read, text, ticket};
use crate::queries::house::House;
use crate::support::counting::CountingStore;

/// Takes more than the buffers of a connection hold.
const BIG: &str = "select * from big.numbers";
/// Gives rows without end.
const ENDLESS: &str = "select * from slow.endless";

/// A server whose engine tells which results are the same.
async fn server(change: fn(&mut Settings)) -> TestServer {
    let server = TestServer::start_with(Options { change, ..Options::default() }).await;
    server.engine.vouches.store(true, Ordering::SeqCst);
    server
}

fn executed(server: &TestServer) -> usize {
    server.engine.executed.load(Ordering::SeqCst)
}

/// A result of which one batch has been read.
async fn begun(server: &TestServer, sql: &str) -> (RecordBatch, FlightRecordBatchStream) {
    let mut client = server.plain_client().await;
    let rows = client.do_get(Ticket::new(sql.to_owned())).await.unwrap().into_inner();
    let mut rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(Into::into));
    (rows.next().await.unwrap().unwrap(), rows)
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

async fn rest((first, rows): (RecordBatch, FlightRecordBatchStream)) -> Vec<i64> {
    let mut batches = vec![first];
    batches.extend(rows.try_collect::<Vec<_>>().await.unwrap());
    numbers(&batches)
}

async fn all(server: &TestServer, sql: &str) -> Vec<i64> {
    numbers(&query(server, sql).await.unwrap())
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens soon")
}

/// The runs that ended, once nothing runs.
async fn ended(server: &TestServer) -> Vec<QueryRecord> {
    soon(async {
        while !server.journal.running().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.journal.queries().await.unwrap().try_concat().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_while_it_runs_follows_and_is_not_held_up_by_whoever_asked_first() {
    let server = server(|_| {}).await;
    let slow = begun(&server, BIG).await;
    check_all(&soon(all(&server, BIG)).await);
    check_all(&rest(slow).await);
    assert_eq!(executed(&server), 1);
    let ended = ended(&server).await;
    let mut shared: Vec<_> = ended.iter().map(|record| record.shared_from.map(SharedFrom::as_str)).collect();
    shared.sort_unstable();
    assert_eq!(shared, [None, Some("run")]);
    for record in ended {
        assert_eq!((record.status, record.figures.rows), (QueryStatus::Finished, BIG_ROWS as u64));
        assert!(record.figures.sent_bytes > 25_000_000 && record.figures.raw_bytes > 25_000_000, "{record:?}");
    }
}

#[tokio::test]
async fn whoever_asks_later_is_sent_what_was_kept() {
    let server = server(|_| {}).await;
    let small = "select * from weather.stations";
    let first = text(&query(&server, small).await.unwrap());
    check_all(&all(&server, BIG).await);
    assert_eq!(text(&query(&server, small).await.unwrap()), first);
    check_all(&all(&server, BIG).await);
    assert_eq!(executed(&server), 2);
    let from_disk = ended(&server).await.iter().filter(|run| run.shared_from == Some(SharedFrom::Disk)).count();
    assert_eq!(from_disk, 2);
    // What is encoded in another way is another result.
    let mut other = server.client().await;
    other.set_header("lakegate-codec", "zstd");
    let info = other.execute(BIG.to_owned(), None).await.unwrap();
    check_all(&numbers(&read(&mut other, info).await));
    assert_eq!(executed(&server), 3);
}

#[tokio::test]
async fn nothing_is_shared_where_it_is_turned_off_or_nobody_vouches_for_it() {
    let off = server(|settings| settings.spool.cache = 0).await;
    let unknown = server(|_| {}).await;
    unknown.engine.vouches.store(false, Ordering::SeqCst);
    for server in [off, unknown] {
        check_all(&all(&server, BIG).await);
        check_all(&all(&server, BIG).await);
        assert_eq!(executed(&server), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_takes_nothing_from_the_others() {
    let server = server(|_| {}).await;
    let (first, second) = (begun(&server, BIG).await, begun(&server, BIG).await);
    drop(first);
    check_all(&soon(rest(second)).await);
    assert_eq!(executed(&server), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_statement_ends_for_one_and_the_work_with_the_last() {
    let server = server(|_| {}).await;
    let mut calls = server.plain_client().await;
    let info = calls.get_flight_info(FlightDescriptor::new_cmd(ENDLESS)).await.unwrap().into_inner();
    let mut cancelled = calls.do_get(ticket(&info)).await.unwrap().into_inner();
    cancelled.message().await.unwrap().unwrap();
    let (_, mut other) = begun(&server, ENDLESS).await;
    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
    calls.do_action(action).await.unwrap();
    let told: Status = soon(async {
        loop {
            if let Err(status) = cancelled.message().await {
                return status;
            }
        }
    })
    .await;
    assert!(told.message().contains("cancelled"), "{told:?}");
    for _ in 0..50 {
        soon(other.next()).await.unwrap().unwrap();
    }
    assert_eq!(executed(&server), 1);
    server.engine.endless.has_readers(1).await;
    drop(other);
    server.engine.endless.has_readers(0).await;
    // Nobody follows what is over.
    begun(&server, ENDLESS).await;
    assert_eq!(executed(&server), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_fails_for_all_and_runs_anew_for_the_next() {
    let server = server(|_| {}).await;
    let broken = "select * from slow.broken";
    for runs in 1..=2 {
        assert!(query(&server, broken).await.is_err());
        assert_eq!(executed(&server), runs);
    }
}

#[tokio::test]
async fn who_follows_needs_no_place_and_whoever_works_gives_it_back() {
    fn one_place(settings: &mut Settings) {
        settings.limits.serving.statements = 1.try_into().unwrap();
    }
    let server = server(one_place).await;
    let mut calls = server.plain_client().await;
    let mut planned = async || {
        let info = calls.get_flight_info(FlightDescriptor::new_cmd(BIG)).await.unwrap().into_inner();
        ticket(&info)
    };
    let (first, second) = (planned().await, planned().await);
    let mut slow = client(server.address).await.do_get(first).await.unwrap().into_inner();
    slow.message().await.unwrap().unwrap();
    let rows = soon(client(server.address).await.do_get(second)).await.unwrap().into_inner();
    let rows = FlightRecordBatchStream::new_from_flight_data(rows.map_err(Into::into));
    check_all(&numbers(&soon(rows.try_collect::<Vec<_>>()).await.unwrap()));
    // The one that has not read to its end holds no place any more.
    soon(query(&server, "select 1")).await.unwrap();
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_disk_may_have_is_sent_all_the_same_and_not_kept() {
    fn little(settings: &mut Settings) {
        settings.spool.cache = 8 << 20;
    }
    let server = server(little).await;
    let (one, other) = tokio::join!(all(&server, BIG), all(&server, BIG));
    check_all(&one);
    check_all(&other);
    let before = executed(&server);
    check_all(&all(&server, BIG).await);
    assert_eq!(executed(&server), before + 1);
}

#[tokio::test]
async fn a_disk_that_fails_takes_nothing_from_the_rows() {
    let server = server(|settings| settings.spool.folder = Some("/dev/null/no-folder".into())).await;
    for runs in 1..=2 {
        check_all(&all(&server, BIG).await);
        assert_eq!(executed(&server), runs);
    }
}

#[tokio::test]
async fn what_was_asked_for_longest_ago_makes_room() {
    // Room for five of about a megabyte.
    let server = server(|settings| settings.spool.cache = 5 << 20).await;
    let part = |number: usize| format!("select n, text from big.numbers where n % 30 = {number}");
    for number in 0..8 {
        all(&server, &part(number)).await;
    }
    assert_eq!(executed(&server), 8);
    all(&server, &part(7)).await;
    assert_eq!(executed(&server), 8, "the newest is kept");
    all(&server, &part(0)).await;
    assert_eq!(executed(&server), 9, "the oldest is not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_goes_on_with_what_others_made_meanwhile() {
    let server = server(|_| {}).await;
    let (one, other) = (ticket(&asked(&server, BIG).await), ticket(&asked(&server, BIG).await));
    let mut had = begin(&server, &one, 4).await;
    had.lose_the_last();
    check_all(&begin(&server, &other, usize::MAX).await.numbers().await);
    go_on(&server, &mut had, &one).await.unwrap();
    check_all(&had.numbers().await);
    assert_eq!(executed(&server), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_too_late_goes_on_with_what_was_kept_for_all() {
    fn short(settings: &mut Settings) {
        settings.spool.keep = Duration::from_millis(1);
    }
    let server = server(short).await;
    // Of the second nobody knows whether another run would give its rows in the same order.
    for (runs, sql) in [(1, BIG), (2, "select n, text from big . numbers")] {
        let (one, other) = (ticket(&asked(&server, sql).await), ticket(&asked(&server, sql).await));
        check_all(&begin(&server, &other, usize::MAX).await.numbers().await);
        let mut had = begin(&server, &one, 4).await;
        had.lose_the_last();
        ended(&server).await;
        go_on(&server, &mut had, &one).await.unwrap();
        check_all(&had.numbers().await);
        assert_eq!(executed(&server), runs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_reads_nothing_of_the_tables_and_sees_each_change() {
    let store = CountingStore::new(Arc::new(LocalFileSystem::new()));
    let house = House::through(Arc::clone(&store) as _, &["t.numbers"], "").await;
    let columns = [("n", "bigint")];
    house.load("t.numbers", &columns, "select * from generate_series(1, 1000) g(n)").await;
    let mut client = house.client().await;
    let mut sum = async || {
        let info = client.execute("select sum(n), count(*) from t.numbers where n > 1".to_owned(), None).await.unwrap();
        text(&read(&mut client, info).await)
    };
    assert_eq!(sum().await, ["500499 999"]);
    assert!(store.take().bytes > 0);
    assert_eq!(sum().await, ["500499 999"]);
    assert_eq!(store.take().bytes, 0, "it is read from what was kept");
    house.load("t.numbers", &columns, "select * from generate_series(2, 3) g(n)").await;
    assert_eq!(sum().await, ["500504 1001"], "another version is another result");
}
