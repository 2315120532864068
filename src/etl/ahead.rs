//! Reading ahead of the lake.
//!
//! A source is read a little ahead of whoever writes, so that both overlap. Once it says that it is about to open a
//! transaction ([`SourceEvent::Hurry`]), and is told to, it is read as fast as it can give, however slow the lake is: what
//! comes waits in memory, and beyond that on disk.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::SpillFile;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::error::ErrorKind;
use crate::model::{ChangeBatch, ChangeKind, Reject};
use crate::runtime::fault;
use crate::source::{SourceError, SourceEvent};

/// Events read ahead of the writer as long as the source may wait: batches are big, two are enough.
const EVENTS_AHEAD: usize = 2;
/// Bytes of rows and rejects that wait in memory where the source may not wait.
const BYTES_AHEAD: usize = 32 << 20;

/// What happens at a source, in order.
pub(super) type Events = BoxStream<'static, Result<SourceEvent, SourceError>>;

/// Lets the source run in a task of its own, ahead of whoever takes its events; it ends when they are dropped.
pub(super) fn read_ahead(
    events: Events,
    environment: Arc<RuntimeEnv>,
) -> impl Stream<Item = Result<SourceEvent, SourceError>> + Unpin + Send {
    // Bounded by places as long as the source may wait, and by bytes when it may not.
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let ahead = Ahead {
        environment,
        places: Arc::new(Semaphore::new(EVENTS_AHEAD)),
        memory: None,
        most: if fault::point("etl.ahead.small").is_err() { 0 } else { BYTES_AHEAD },
    };
    let task = AbortOnDropHandle::new(tokio::spawn(ahead.read(events, sender)));
    futures::stream::poll_fn(move |context| {
        let _ = &task;
        receiver.poll_recv(context).map(|waiting| waiting.map(Waiting::take))
    })
}

struct Ahead {
    environment: Arc<RuntimeEnv>,
    places: Arc<Semaphore>,
    /// What waits in memory; none as long as the source may wait.
    memory: Option<Arc<MemoryReservation>>,
    most: usize,
}

/// An event that was read and not yet taken.
enum Waiting {
    /// It takes one of few places.
    InPlace(Result<SourceEvent, SourceError>, Option<OwnedSemaphorePermit>),
    InMemory(SourceEvent, Arc<MemoryReservation>, usize),
    RowsOnDisk(ChangeKind, Option<usize>, Arc<dyn SpillFile>),
    RejectsOnDisk(Arc<dyn SpillFile>),
}

impl Ahead {
    async fn read(mut self, mut events: Events, waiting: mpsc::UnboundedSender<Waiting>) {
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(SourceEvent::Hurry(taken)) => {
                    let consumer = MemoryConsumer::new("changes read ahead");
                    self.memory = Some(Arc::new(consumer.register(&self.environment.memory_pool)));
                    // A source that does not wait for it any more has ended.
                    let _ = taken.send(());
                    continue;
                }
                event => self.keep(event).await,
            };
            if waiting.send(event).is_err() {
                break;
            }
        }
    }

    async fn keep(&self, event: Result<SourceEvent, SourceError>) -> Waiting {
        let Some(memory) = &self.memory else {
            // The semaphore is never closed.
            return Waiting::InPlace(event, Arc::clone(&self.places).acquire_owned().await.ok());
        };
        let event = match event {
            Ok(event @ (SourceEvent::Changes(_) | SourceEvent::Rejects(_))) => event,
            small => return Waiting::InPlace(small, None),
        };
        let bytes = size(&event);
        if memory.size() + bytes <= self.most && memory.try_grow(bytes).is_ok() {
            return Waiting::InMemory(event, Arc::clone(memory), bytes);
        }
        let kept = match event {
            SourceEvent::Changes(change) => {
                spill(&self.environment, &change).map(|spilled| Waiting::RowsOnDisk(change.kind, change.file, spilled))
            }
            SourceEvent::Rejects(rejects) => spill_rejects(&self.environment, &rejects).map(Waiting::RejectsOnDisk),
            other => Ok(Waiting::InPlace(Ok(other), None)),
        };
        kept.unwrap_or_else(|cause| Waiting::InPlace(Err(unkept(cause)), None))
    }
}

/// About how many bytes an event takes in memory, where it may be many.
fn size(event: &SourceEvent) -> usize {
    match event {
        SourceEvent::Changes(change) => change.rows.get_array_memory_size(),
        SourceEvent::Rejects(rejects) => {
            let texts = |reject: &Reject| {
                reject.file.len()
                    + reject.column.as_ref().map_or(0, String::len)
                    + reject.reason.len()
                    + reject.raw.len()
            };
            rejects.iter().map(|reject| size_of::<Reject>() + texts(reject)).sum()
        }
        _ => 0,
    }
}

impl Waiting {
    fn take(self) -> Result<SourceEvent, SourceError> {
        match self {
            Self::InPlace(event, place) => {
                // Somebody else may have it now.
                drop(place);
                event
            }
            Self::InMemory(event, memory, bytes) => {
                memory.shrink(bytes);
                Ok(event)
            }
            Self::RowsOnDisk(kind, file, spilled) => {
                let rows = read_back(spilled.as_ref()).map_err(unkept)?;
                Ok(SourceEvent::Changes(ChangeBatch { kind, rows, file }))
            }
            Self::RejectsOnDisk(spilled) => {
                read_rejects_back(spilled.as_ref()).map(SourceEvent::Rejects).map_err(unkept)
            }
        }
    }
}

/// Writes a batch to a file of its own, which goes when it is dropped.
fn spill(environment: &RuntimeEnv, change: &ChangeBatch) -> Result<Arc<dyn SpillFile>, DataFusionError> {
    let file = environment.disk_manager.create_tmp_file("changes read ahead")?;
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut stream = StreamWriter::try_new_with_options(file.open_writer()?, &change.rows.schema(), options)?;
    stream.write(&change.rows)?;
    stream.finish()?;
    stream.into_inner()?.finish()?;
    Ok(file)
}

/// Writes rejects to a file of their own, which goes when it is dropped.
fn spill_rejects(environment: &RuntimeEnv, rejects: &[Reject]) -> Result<Arc<dyn SpillFile>, DataFusionError> {
    let file = environment.disk_manager.create_tmp_file("rejects read ahead")?;
    let mut writer = BufWriter::new(file.open_writer()?);
    serde_json::to_writer(&mut writer, rejects).map_err(std::io::Error::from)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?;
    Ok(file)
}

fn read_back(file: &dyn SpillFile) -> Result<arrow::array::RecordBatch, DataFusionError> {
    let missing = || ArrowError::IpcError("a file of changes is empty".to_owned());
    let rows = StreamReader::try_new_buffered(open(file)?, None)?.next().ok_or_else(missing)??;
    Ok(rows)
}

fn read_rejects_back(file: &dyn SpillFile) -> Result<Vec<Reject>, DataFusionError> {
    Ok(serde_json::from_reader(BufReader::new(open(file)?)).map_err(std::io::Error::from)?)
}

fn open(file: &dyn SpillFile) -> Result<File, std::io::Error> {
    File::open(file.path().ok_or_else(|| std::io::Error::other("spilled data is not in files here"))?)
}

fn unkept(cause: DataFusionError) -> SourceError {
    let text = "rows that were read cannot be kept on disk until the lake has them; look at `limits.spill_folder` and \
                `limits.spill`";
    SourceError::because(ErrorKind::ResourceExhausted, text, cause)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use tokio::sync::oneshot;

    use super::*;
    use crate::source::ReadingEnd;

    fn change(number: i64, kind: ChangeKind) -> SourceEvent {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![number; 1000]));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        SourceEvent::Changes(ChangeBatch { kind, rows, file: Some(usize::try_from(number).unwrap()) })
    }

    /// A source that tells when it is over.
    fn source(events: Vec<SourceEvent>) -> (Events, oneshot::Receiver<()>) {
        let (over, told) = oneshot::channel();
        let mut over = Some(over);
        let end = futures::stream::poll_fn(move |_| {
            if let Some(over) = over.take() {
                over.send(()).unwrap();
            }
            std::task::Poll::Ready(None)
        });
        (futures::stream::iter(events.into_iter().map(Ok)).chain(end).boxed(), told)
    }

    async fn numbers(events: impl Stream<Item = Result<SourceEvent, SourceError>>) -> Vec<(usize, ChangeKind, usize)> {
        let changes = events.filter_map(|event| async {
            match event.unwrap() {
                SourceEvent::Changes(change) => Some((change.file.unwrap(), change.kind, change.rows.num_rows())),
                _ => None,
            }
        });
        changes.collect().await
    }

    #[tokio::test]
    async fn a_source_in_a_hurry_is_read_to_its_end_though_nobody_takes_anything() {
        let environment = Arc::new(RuntimeEnv::default());
        let most = BYTES_AHEAD / 8000 + 100;
        let changes = (0..most).map(|number| change(i64::try_from(number).unwrap(), ChangeKind::Upsert));
        let (hurry, told) = oneshot::channel();
        let all = [SourceEvent::Hurry(hurry), change(0, ChangeKind::Delete)].into_iter().chain(changes);
        let (events, over) = source(all.chain([SourceEvent::End(ReadingEnd::default())]).collect());
        let ahead = read_ahead(events, Arc::clone(&environment));
        told.await.unwrap();
        over.await.unwrap();
        let held = environment.memory_pool.reserved();
        assert!(held > BYTES_AHEAD / 2 && held <= BYTES_AHEAD, "{held} bytes in memory, the rest on disk");
        let taken = numbers(ahead).await;
        assert_eq!(taken[0], (0, ChangeKind::Delete, 1000));
        assert!(taken[1..].iter().copied().eq((0..most).map(|number| (number, ChangeKind::Upsert, 1000))));
        assert_eq!(environment.memory_pool.reserved(), 0);
    }

    #[tokio::test]
    async fn rejects_of_a_source_in_a_hurry_wait_on_disk_as_rows_do() {
        let environment = Arc::new(RuntimeEnv::default());
        let reject = |number: usize| Reject {
            file: "dbo.t".to_owned(),
            line: (number == 7).then_some(7),
            column: Some("v".to_owned()),
            reason: number.to_string().repeat(500),
            raw: String::new(),
        };
        let batch = |number: usize| vec![reject(number); 1_000];
        let (hurry, _told) = oneshot::channel();
        let all = (0..60).map(|number| SourceEvent::Rejects(batch(number)));
        let (events, over) = source([SourceEvent::Hurry(hurry)].into_iter().chain(all).collect());
        let ahead = read_ahead(events, Arc::clone(&environment));
        over.await.unwrap();
        let held = environment.memory_pool.reserved();
        assert!(held > BYTES_AHEAD / 2 && held <= BYTES_AHEAD, "{held} bytes in memory, the rest on disk");
        let taken: Vec<_> = ahead.map(|event| event.unwrap()).collect().await;
        assert_eq!(taken.len(), 60);
        for (number, event) in taken.into_iter().enumerate() {
            let SourceEvent::Rejects(rejects) = event else { panic!("{event:?}") };
            assert!(rejects == batch(number), "{number}");
        }
        assert_eq!(environment.memory_pool.reserved(), 0);
    }

    #[tokio::test]
    async fn a_source_hears_that_it_may_hurry_when_what_came_before_was_taken() {
        let (hurry, mut told) = oneshot::channel();
        let changes = (0..10).map(|number| change(number, ChangeKind::Append));
        let (events, over) = source(changes.chain([SourceEvent::Hurry(hurry)]).collect());
        let mut ahead = read_ahead(events, Arc::new(RuntimeEnv::default()));
        for _ in 0..8 {
            told.try_recv().unwrap_err();
            ahead.next().await.unwrap().unwrap();
        }
        told.await.unwrap();
        over.await.unwrap();
        assert_eq!(numbers(ahead).await.len(), 2);
    }

    #[tokio::test]
    async fn a_source_that_may_wait_is_read_a_little_ahead() {
        let changes = (0..100).map(|number| change(number, ChangeKind::Append)).collect();
        let (events, mut over) = source(changes);
        let mut ahead = read_ahead(events, Arc::new(RuntimeEnv::default()));
        ahead.next().await.unwrap().unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        over.try_recv().unwrap_err();
        assert_eq!(numbers(ahead).await.len(), 99);
    }
}
