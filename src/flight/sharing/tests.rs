//! Runs that several readers share: one execution, whoever comes, goes, waits or finds no disk.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tonic::Code;

use super::*;
use crate::delivery::{Encoders, TicketKey};
use crate::query::{Dependencies, Statement, StatementOptions, TablePins, TableRead};

/// Messages of a result in these tests: the schema, a first one of 64 KiB, and some of 512 KiB.
const LEAST_MESSAGES: usize = 8;

struct Ground {
    sharing: Sharing,
    admission: Admission,
    executed: Arc<AtomicUsize>,
}

impl Ground {
    /// With so much disk, in a folder of its own or one that cannot be.
    fn new(cache: u64, folder: Option<&str>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let settings = crate::config::load(place.path(), None).unwrap();
        let spool = SpoolSettings { folder: folder.map(Into::into), size: 0, keep: Duration::ZERO, cache };
        let admission = Admission::new(&settings.limits.serving);
        Self { sharing: Sharing::new(&spool), admission, executed: Arc::default() }
    }

    fn key(&self, version: u64) -> ResultKey {
        let name = "a.b".parse().unwrap();
        let written = ("a".to_owned(), "b".to_owned());
        let tables = vec![TableRead { written, name, id: "one".to_owned(), version }];
        let planned = Planned {
            statement: Statement {
                sql: "select n from a.b".to_owned(),
                parameters: vec![],
                pins: TablePins::new(),
                options: StatementOptions::default(),
            },
            schema: schema(),
            parameters: vec![],
            kind: StatementKind::Query,
            plan: Arc::new(()),
            memory: Arc::default(),
            dependencies: Some(Dependencies { tables, rights: "all".to_owned(), person: None, day: None, grows: true }),
        };
        let sealer = Sealer::new(&TicketKey::parse(&"01".repeat(32)).unwrap());
        self.sharing.key(&planned, &schema(), (WireProfile::default(), 512 << 10), &sealer).unwrap()
    }

    async fn begin(&self, version: u64) -> SharedRows {
        let person = Person { name: "ann".to_owned(), is_admin: false };
        let slot = self.admission.enter(&person).await.unwrap();
        let starting = starting(Arc::clone(&self.executed));
        self.sharing.begin(&self.key(version), (starting, Some(slot)), (&self.admission, &person))
    }

    fn follow(&self, version: u64) -> Option<SharedRows> {
        self.sharing.follow(&self.key(version), &Person { name: "bob".to_owned(), is_admin: false })
    }

    fn executed(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// Some four megabytes of rows.
fn starting(executed: Arc<AtomicUsize>) -> Starting {
    let batches = (0..5).map(|batch| {
        let numbers = Int64Array::from_iter_values(batch * 100_000..(batch + 1) * 100_000);
        Ok::<_, DataFusionError>(RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).unwrap())
    });
    let batches = RecordBatchStreamAdapter::new(schema(), futures::stream::iter(batches.collect::<Vec<_>>()));
    async move {
        executed.fetch_add(1, Ordering::SeqCst);
        let encoders = Encoders::new(1, 64 << 20);
        EncodedResult::new(schema(), Box::pin(batches), WireProfile::default(), 512 << 10, &encoders)
            .map_err(Status::from)
    }
    .boxed()
}

async fn message(rows: &mut SharedRows) -> Option<Result<WireMessage, Status>> {
    poll_fn(|context| rows.poll_message(context)).await
}

async fn rest(mut rows: SharedRows) -> Result<Vec<WireMessage>, Status> {
    let mut messages = Vec::new();
    while let Some(made) = message(&mut rows).await {
        messages.push(made?);
    }
    Ok(messages)
}

/// Messages, however their bodies are cut to parts.
fn joined(messages: &[WireMessage]) -> Vec<(Vec<u8>, Vec<u8>)> {
    messages.iter().map(|message| (message.header.to_vec(), message.contiguous_body().to_vec())).collect()
}

#[tokio::test]
async fn all_read_the_same_from_one_run_and_from_what_is_kept_of_it() {
    let ground = Ground::new(64 << 20, None);
    let (first, second) = (ground.begin(1).await, ground.begin(1).await);
    assert_eq!((first.shared_from(), second.shared_from()), (None, Some(SharedFrom::Run)));
    let second = rest(second).await.unwrap();
    assert!(second.len() >= LEAST_MESSAGES);
    let later = ground.follow(1).unwrap();
    assert_eq!(later.shared_from(), Some(SharedFrom::Disk));
    let (first, later) = (rest(first).await.unwrap(), rest(later).await.unwrap());
    assert_eq!((joined(&first), joined(&later)), (joined(&second), joined(&second)));
    assert_eq!((ground.executed(), ground.admission.taken()), (1, 0));
    assert!(ground.follow(2).is_none());
}

#[tokio::test]
async fn the_work_goes_on_without_who_began_it_and_ends_with_the_last() {
    let ground = Ground::new(64 << 20, None);
    let (first, mut second, mut third) = (ground.begin(1).await, ground.begin(1).await, ground.begin(1).await);
    drop(first);
    poll_fn(|context| second.poll_started(context)).await.unwrap();
    message(&mut second).await.unwrap().unwrap();
    assert_eq!((ground.executed(), ground.admission.taken()), (1, 1));
    drop(second);
    message(&mut third).await.unwrap().unwrap();
    drop(third);
    assert_eq!(ground.admission.taken(), 0);
    assert!(ground.follow(1).is_none());
    rest(ground.begin(1).await).await.unwrap();
    assert_eq!(ground.executed(), 2);
}

#[tokio::test]
async fn a_place_that_was_given_away_is_got_again() {
    let ground = Ground::new(64 << 20, None);
    let mut rows = ground.begin(1).await;
    message(&mut rows).await.unwrap().unwrap();
    rows.yield_place(Duration::from_secs(600));
    assert_eq!(ground.admission.taken(), 1);
    rows.yield_place(Duration::ZERO);
    assert_eq!(ground.admission.taken(), 0);
    assert!(rest(rows).await.unwrap().len() + 1 >= LEAST_MESSAGES);
    assert_eq!(ground.admission.taken(), 0);
}

#[tokio::test]
async fn a_place_that_comes_when_nobody_wants_it_any_more_is_given_on() {
    let ground = Ground::new(64 << 20, None);
    let mut rows = ground.begin(1).await;
    message(&mut rows).await.unwrap().unwrap();
    rows.yield_place(Duration::ZERO);
    let cid = Person { name: "cid".to_owned(), is_admin: false };
    let mut all = Vec::new();
    while let Some(Ok(slot)) = ground.admission.enter(&cid).now_or_never() {
        all.push(slot);
    }
    let waits = poll_fn(|context| Poll::Ready(rows.poll_message(context).is_pending())).await;
    assert!(waits && rows.is_queued());
    rows.rest();
    drop(all);
    assert_eq!((ground.admission.taken(), ground.admission.waiting()), (0, 0));
    assert!(rest(rows).await.unwrap().len() + 1 >= LEAST_MESSAGES);
}

#[tokio::test(start_paused = true)]
async fn without_disk_those_who_read_together_go_on_together_and_who_takes_nothing_is_let_go() {
    for folder in [None, Some("/dev/null/no-folder")] {
        let ground = Ground::new(if folder.is_some() { 64 << 20 } else { 1 << 20 }, folder);
        let (mut one, mut other, mut silent) = (ground.begin(1).await, ground.begin(1).await, ground.begin(1).await);
        // Who has not begun when the disk fails has nothing to go on from.
        for rows in [&mut one, &mut other, &mut silent] {
            message(rows).await.unwrap().unwrap();
        }
        let (one, other) = tokio::join!(rest(one), rest(other));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one.len() + 1 >= LEAST_MESSAGES && joined(&one) == joined(&other), "{folder:?}");
        let told = rest(silent).await.unwrap_err();
        assert_eq!(told.code(), Code::Unavailable, "{folder:?}: {told:?}");
        assert!(ground.follow(1).is_none(), "{folder:?}: it was not kept");
        assert_eq!(ground.executed(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_again_and_again_is_let_go_too() {
    let ground = Ground::new(1 << 20, None);
    let (one, mut slow) = (ground.begin(1).await, ground.begin(1).await);
    let begun = tokio::time::Instant::now();
    let fast = async { (rest(one).await, begun.elapsed()) };
    let slow = async {
        loop {
            match message(&mut slow).await {
                Some(Ok(_)) => sleep(STALLED * 2 / 3).await,
                end => return end,
            }
        }
    };
    let ((messages, time), end) = tokio::join!(fast, slow);
    assert!(messages.unwrap().len() >= LEAST_MESSAGES && time < STALLED * 2, "{time:?}");
    let told = end.unwrap().unwrap_err();
    assert_eq!((told.code(), ground.executed()), (Code::Unavailable, 1), "{told:?}");
}

#[tokio::test]
async fn what_was_asked_for_longest_ago_makes_room() {
    let ground = Ground::new(20 << 20, None);
    for version in 1..=7 {
        rest(ground.begin(version).await).await.unwrap();
    }
    assert!(ground.follow(7).is_some() && ground.follow(1).is_none());
    let kept = rest(ground.follow(7).unwrap()).await.unwrap();
    assert!(kept.len() >= LEAST_MESSAGES);
    assert_eq!(ground.executed(), 7);
}
