//! What a statement of the real engine holds is given back however it ends: its turn, its tasks, its memory, its spill.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use lakegate::flight::{ClientOptions, FlightClient};
use object_store::local::LocalFileSystem;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::queries::house::House;
use crate::support::faulty::FaultyStore;

/// Sorts more than there is memory for, and then waits for a file.
const SORTED: &str = "select id, s, row_number() over (order by (id * 7919) % 1000003, s) as r from t.big \
                      union all select id, s, 0 from t.held";

/// Holds one table in memory, and waits for a file of the other.
const JOINED: &str = "select count(*) from t.big a join t.held b on a.id = b.id";

/// A server with place for one statement, and tables whose reading the test holds up.
struct Kept {
    house: House,
    store: Arc<FaultyStore>,
    address: SocketAddr,
}

/// A statement that waits within an operator.
struct Begun {
    rows: Streaming<FlightData>,
    _client: FlightServiceClient<Channel>,
    /// Lets the operator go on, which then panics.
    go_on: Arc<Notify>,
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens soon")
}

impl Kept {
    async fn open(limits: &str) -> Self {
        let store = FaultyStore::new(Arc::new(LocalFileSystem::new()));
        let config = format!(
            "[limits]\nthreads = 2\nmemory = \"24MiB\"\nspill_folder = \"spill\"\nstatements = 1\nqueue_wait = \"60s\"\n\
             {limits}\n"
        );
        let house = House::through(Arc::clone(&store) as _, &["t.big", "t.held"], &config).await;
        let columns = &[("id", "bigint"), ("s", "string")];
        // Many more batches than wait on the way to a client, and more bytes than there is memory for.
        house.load("t.big", columns, "select x, repeat('y', 100) from generate_series(1, 200000) g(x)").await;
        house.load("t.held", columns, "select x, 'z' from generate_series(1, 400000) g(x)").await;
        // Their ends are looked at before anything runs, which is not what waits here.
        assert_eq!(house.rows("select sum(length(s)) from t.held").await.unwrap(), ["400000"]);
        let address = house.serve().await;
        Self { house, store, address }
    }

    async fn client(&self) -> FlightServiceClient<Channel> {
        let channel = Endpoint::new(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        FlightServiceClient::new(channel).max_decoding_message_size(64 << 20)
    }

    /// Begins a statement, and waits until it stands still and holds something.
    async fn begin(&self, sql: &str) -> Begun {
        let (begun, go_on) = self.store.panic_in_reading("t/held/part-");
        let mut client = self.client().await;
        let mut rows = client.do_get(Ticket::new(sql.to_owned())).await.unwrap().into_inner();
        rows.message().await.unwrap().expect("the schema");
        soon(begun.notified()).await;
        soon(async {
            while self.memory() == 0 || (sql == SORTED && self.spilled() == 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(self.house.engine.running_tasks() > 0);
        Begun { rows, _client: client, go_on }
    }

    fn memory(&self) -> usize {
        self.house.lake.environment().memory_pool.reserved()
    }

    /// Files in the folder for spilled data.
    fn spilled(&self) -> usize {
        files(&self.house.folder.path().join("spill"))
    }

    async fn nothing_is_held(&self, ended: &str) {
        let held = || {
            let running = self.house.journal.running().all().len();
            (running, self.house.engine.running_tasks(), self.memory(), self.spilled())
        };
        let freed = tokio::time::timeout(Duration::from_secs(60), async {
            while held() != (0, 0, 0, 0) {
                tokio::task::yield_now().await;
            }
        });
        assert!(freed.await.is_ok(), "{ended}: statements, tasks, memory and files: {:?}", held());
        assert_eq!(self.house.lake.environment().disk_manager.used_disk_space(), 0, "{ended}");
        // There is one turn, so it was given back.
        let mut client = self.client().await;
        let mut rows = soon(client.do_get(Ticket::new("select 1"))).await.unwrap().into_inner();
        while soon(rows.message()).await.unwrap().is_some() {}
    }
}

impl Begun {
    /// What the statement ends with, once all its rows are read.
    async fn failure(&mut self) -> Status {
        loop {
            match soon(self.rows.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return status,
            }
        }
    }
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { files(path) } else { 1 };
    entries.filter_map(Result::ok).map(|entry| count(&entry.path())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_killed_gives_back_what_it_held() {
    let kept = Kept::open("").await;
    let mut killer =
        FlightClient::connect(&format!("grpc://{}", kept.address), &ClientOptions::default()).await.unwrap();
    for sql in [SORTED, JOINED] {
        let mut begun = kept.begin(sql).await;
        killer.kill(kept.house.journal.running().all()[0].origin.query_id).await.unwrap();
        assert_eq!(begun.failure().await.code(), Code::Cancelled, "{sql}");
        kept.nothing_is_held(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_client_is_gone_gives_back_what_it_held() {
    let kept = Kept::open("").await;
    for sql in [SORTED, JOINED] {
        drop(kept.begin(sql).await);
        kept.nothing_is_held(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_took_too_long_gives_back_what_it_held() {
    let kept = Kept::open("query_timeout = \"5s\"").await;
    let status = kept.begin(JOINED).await.failure().await;
    assert!(status.code() == Code::DeadlineExceeded && status.message().contains("limits.query_timeout"), "{status:?}");
    kept.nothing_is_held(JOINED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_takes_gives_back_what_it_held() {
    let kept = Kept::open("idle_reader = \"5s\"").await;
    let mut begun = kept.begin(SORTED).await;
    // Nothing is read meanwhile.
    soon(async {
        while kept.house.engine.running_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = begun.failure().await;
    assert!(status.code() == Code::DeadlineExceeded && status.message().contains("limits.idle_reader"), "{status:?}");
    kept.nothing_is_held(SORTED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_within_an_operator_ends_its_statement_alone_and_gives_back_what_it_held() {
    let kept = Kept::open("").await;
    for sql in [SORTED, JOINED] {
        let mut begun = kept.begin(sql).await;
        begun.go_on.notify_one();
        let status = begun.failure().await;
        assert!(status.code() == Code::Internal && !status.message().contains("asked for by a test"), "{status:?}");
        kept.nothing_is_held(sql).await;
    }
    assert_eq!(kept.house.rows("select count(*) from t.held").await.unwrap(), ["400000"]);
    assert_eq!(kept.house.rows(JOINED).await.unwrap(), ["200000"]);
}
