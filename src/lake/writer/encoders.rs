//! Tasks that encode rows into data files, because encoding Parquet is what a load spends its time on.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use deltalake::kernel::Add;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Classify, ErrorKind};
use crate::lake::LakeError;
use crate::lake::sort::adapt;
use crate::lake::writer::data_files::{DataFiles, OpenFiles};

/// Batches waiting for each encoder: enough that it never waits for one, few enough to bound memory.
const WAITING_BATCHES: usize = 4;

/// Bytes of rows, in memory, that one more encoder should have to do before it is started: a small load is then
/// one small file, not several.
const BYTES_PER_ENCODER: usize = 32 << 20;

/// Most encoders of one load; each holds a row group.
const MOST_ENCODERS: usize = 8;

/// Encoders that share one queue; rows keep no order among them.
pub(crate) struct Encoders {
    files: DataFiles,
    sender: mpsc::Sender<RecordBatch>,
    queue: Arc<Mutex<mpsc::Receiver<RecordBatch>>>,
    tasks: Vec<JoinHandle<Result<Vec<Add>, LakeError>>>,
    stop: CancellationToken,
    /// Whoever drops this without waiting for the tasks does not want what they make.
    _guard: DropGuard,
    bytes: usize,
    most: usize,
}

impl Encoders {
    /// At most `most` encoders; the first starts with the first rows.
    pub(crate) fn new(files: DataFiles, most: usize) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        Self {
            files,
            sender,
            queue: Arc::new(Mutex::new(receiver)),
            tasks: Vec::new(),
            _guard: stop.clone().drop_guard(),
            stop,
            bytes: 0,
            most: most.clamp(1, MOST_ENCODERS),
        }
    }

    /// As many as this runtime has threads.
    pub(crate) fn for_this_runtime(files: DataFiles) -> Self {
        let threads = tokio::runtime::Handle::try_current().map_or(1, |handle| handle.metrics().num_workers());
        Self::new(files, threads)
    }

    /// Hands rows to an encoder; waits while all are busy.
    ///
    /// # Errors
    /// What made an encoder fail, such as a full disk.
    pub(crate) async fn write(&mut self, rows: RecordBatch) -> Result<(), LakeError> {
        self.bytes = self.bytes.saturating_add(rows.get_array_memory_size());
        let wanted = (self.bytes / BYTES_PER_ENCODER + 1).min(self.most);
        if self.tasks.is_empty() || (self.tasks.len() < wanted && self.sender.capacity() == 0) {
            self.start();
        }
        let sent = tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            sent = self.sender.send(rows) => sent.is_ok(),
        };
        if sent {
            return Ok(());
        }
        // An encoder stops before its queue ends only when one of them failed.
        match self.join().await {
            Err(error) => Err(error),
            Ok(_) => Err(LakeError::new(ErrorKind::Internal, "an encoder of data files stopped without a reason")),
        }
    }

    /// Completes all files.
    ///
    /// # Errors
    /// What made an encoder fail.
    pub(crate) async fn finish(mut self) -> Result<Vec<Add>, LakeError> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.sender, closed));
        self.join().await
    }

    /// Gives up; complete files stay until they are discarded.
    pub(crate) async fn abort(mut self) {
        self.stop.cancel();
        // Why an encoder failed was told when it did.
        let _ = self.join().await;
    }

    fn start(&mut self) {
        let queue = Arc::clone(&self.queue);
        let batches = futures::stream::unfold(queue, |queue| async move {
            let next = queue.lock().await.recv().await?;
            Some((Ok(next), queue))
        });
        self.tasks.push(tokio::spawn(encode(self.files.begin(), batches.boxed(), self.stop.clone())));
    }

    async fn join(&mut self) -> Result<Vec<Add>, LakeError> {
        let mut adds = Vec::new();
        let mut failed: Option<LakeError> = None;
        for task in self.tasks.drain(..) {
            match task.await.unwrap_or_else(|cause| Err(panicked(cause))) {
                Ok(made) => adds.extend(made),
                // The first failure is told, not that the others were then given up.
                Err(error) if failed.as_ref().is_none_or(|told| told.kind() == ErrorKind::Cancelled) => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        failed.map_or(Ok(adds), Err)
    }
}

/// One task that takes rows in the order they are written and makes something of them at the end.
pub(crate) struct Pipe<T> {
    sender: mpsc::Sender<RecordBatch>,
    task: Option<JoinHandle<Result<T, LakeError>>>,
    /// Whoever drops this without waiting for the task does not want what it makes.
    guard: DropGuard,
}

impl<T: Send + 'static> Pipe<T> {
    /// Starts `work`, which reads the rows until they end or until it is told to stop.
    pub(crate) fn start<F, W>(schema: &SchemaRef, work: W) -> Self
    where
        F: Future<Output = Result<T, LakeError>> + Send + 'static,
        W: FnOnce(SendableRecordBatchStream, CancellationToken) -> F,
    {
        let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
        let stop = CancellationToken::new();
        let work = work(adapt(schema, ReceiverStream::new(receiver).map(Ok)), stop.clone());
        Self { sender, task: Some(tokio::spawn(work)), guard: stop.drop_guard() }
    }

    /// Hands rows over; waits while the task is behind.
    ///
    /// # Errors
    /// What made the task fail.
    pub(crate) async fn write(&mut self, rows: RecordBatch) -> Result<(), LakeError> {
        if self.sender.send(rows).await.is_ok() {
            return Ok(());
        }
        match self.outcome().await {
            Err(error) => Err(error),
            Ok(_) => Err(LakeError::new(ErrorKind::Internal, "a task that writes data files stopped without a reason")),
        }
    }

    /// Waits for what the task makes.
    ///
    /// # Errors
    /// What made the task fail.
    pub(crate) async fn finish(mut self) -> Result<T, LakeError> {
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.sender, closed));
        self.outcome().await
    }

    /// Gives up.
    pub(crate) async fn abort(self) {
        drop(self.guard.disarm().drop_guard());
        if let Some(task) = self.task {
            // Why the task failed was told when it did.
            let _ = task.await;
        }
    }

    async fn outcome(&mut self) -> Result<T, LakeError> {
        match self.task.take() {
            Some(task) => task.await.unwrap_or_else(|cause| Err(panicked(cause))),
            None => Err(LakeError::new(ErrorKind::Internal, "a task that writes data files failed before")),
        }
    }
}

/// The outcome of `work`, or that it was given up.
pub(crate) async fn unless_stopped<T>(
    stop: CancellationToken,
    work: impl Future<Output = Result<T, LakeError>>,
) -> Result<T, LakeError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(given_up()),
        outcome = work => outcome,
    }
}

fn given_up() -> LakeError {
    LakeError::new(ErrorKind::Cancelled, "writing was given up")
}

fn panicked(cause: tokio::task::JoinError) -> LakeError {
    LakeError::because(ErrorKind::Internal, "a task that writes data files panicked", cause)
}

/// Encodes all batches in order. When one fails, or `stop` is called, what is open is given up.
pub(crate) async fn encode(
    mut files: OpenFiles,
    mut batches: BoxStream<'static, Result<RecordBatch, LakeError>>,
    stop: CancellationToken,
) -> Result<Vec<Add>, LakeError> {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            next = batches.next() => Some(next),
        };
        let outcome = match next {
            Some(Some(Ok(rows))) => files.write(&rows).await,
            Some(Some(Err(error))) => Err(error),
            Some(None) => return files.close().await,
            None => Err(given_up()),
        };
        if let Err(error) = outcome {
            stop.cancel();
            files.abort().await;
            return Err(error);
        }
        tokio::task::consume_budget().await;
    }
}
