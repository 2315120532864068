//! A store that fails on request: before or after the deed, with the answers real stores give.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is done, and the answer is an error.
    FailBefore,
    /// It is done, and the answer is an error: a lost answer.
    FailAfter,
    /// It is done twice, as by a client that tries again: the answer is that the object exists.
    Repeated,
    /// It is done only after the test lets it go on: a request that is long under way.
    Hold(Arc<Notify>, Arc<Notify>),
    /// It is done, and the answer comes only after the test lets it go on.
    HoldAfter(Arc<Notify>, Arc<Notify>),
    /// Nothing is done: when the test lets it go on, whoever asks panics.
    Panic(Arc<Notify>, Arc<Notify>),
}

/// Which requests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Put,
    Get,
    List,
}

#[derive(Debug)]
struct Rule {
    request: Request,
    part: String,
    fault: Fault,
    left: usize,
}

/// A store that fails on request.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    rules: Mutex<Vec<Rule>>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, rules: Mutex::default() })
    }

    /// Lets the next `times` requests for a path that holds `part` fail.
    pub(crate) fn fail(&self, request: Request, part: &str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { request, part: part.to_owned(), fault, left: times });
    }

    /// Lets the next put of a path that holds `part` wait. Gives what tells that it has begun, and what lets it go on.
    pub(crate) fn hold(&self, part: &str) -> (Arc<Notify>, Arc<Notify>) {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        self.fail(Request::Put, part, 1, Fault::Hold(Arc::clone(&begun), Arc::clone(&go_on)));
        (begun, go_on)
    }

    /// Lets the answer to the next put of a path that holds `part` wait. Gives what tells that it was done, and what lets it
    /// go on.
    pub(crate) fn hold_answer(&self, part: &str) -> (Arc<Notify>, Arc<Notify>) {
        let (done, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        self.fail(Request::Put, part, 1, Fault::HoldAfter(Arc::clone(&done), Arc::clone(&go_on)));
        (done, go_on)
    }

    /// Lets the next reading of a path that holds `part` wait and then panic. Gives what tells that it has begun, and what
    /// lets it go on.
    pub(crate) fn panic_in_reading(&self, part: &str) -> (Arc<Notify>, Arc<Notify>) {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        self.fail(Request::Get, part, 1, Fault::Panic(Arc::clone(&begun), Arc::clone(&go_on)));
        (begun, go_on)
    }

    /// From now on nothing fails.
    pub(crate) fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    fn fault(&self, request: Request, path: &Path) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules
            .iter_mut()
            .find(|rule| rule.request == request && rule.left > 0 && path.as_ref().contains(&rule.part))?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

async fn panic_when_told(begun: &Notify, go_on: &Notify) -> ! {
    begun.notify_one();
    go_on.notified().await;
    panic!("asked for by a test")
}

fn failed(path: &Path) -> Error {
    Error::Generic { store: "FaultyStore", source: format!("no answer for {path}").into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.fault(Request::Put, location) {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::FailBefore) => Err(failed(location)),
            Some(Fault::FailAfter) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(failed(location))
            }
            Some(Fault::Repeated) => {
                self.inner.put_opts(location, payload.clone(), options.clone()).await?;
                self.inner.put_opts(location, payload, options).await
            }
            Some(Fault::Hold(begun, go_on)) => {
                begun.notify_one();
                go_on.notified().await;
                self.inner.put_opts(location, payload, options).await
            }
            Some(Fault::HoldAfter(done, go_on)) => {
                let answer = self.inner.put_opts(location, payload, options).await;
                done.notify_one();
                go_on.notified().await;
                answer
            }
            Some(Fault::Panic(begun, go_on)) => panic_when_told(&begun, &go_on).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.fault(Request::Put, location) {
            None => self.inner.put_multipart_opts(location, options).await,
            Some(_) => Err(failed(location)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault(Request::Get, location) {
            None => self.inner.get_opts(location, options).await,
            Some(Fault::Panic(begun, go_on)) => panic_when_told(&begun, &go_on).await,
            Some(_) => Err(failed(location)),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.fault(Request::Get, location) {
            None => self.inner.get_ranges(location, ranges).await,
            Some(Fault::Panic(begun, go_on)) => panic_when_told(&begun, &go_on).await,
            Some(_) => Err(failed(location)),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.cloned().unwrap_or_default();
        match self.fault(Request::List, &path) {
            None => self.inner.list(prefix),
            Some(_) => Box::pin(futures::stream::once(async move { Err(failed(&path)) })),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
