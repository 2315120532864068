//! Connections: how many there are, and what ends with each.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Status;
use tonic::transport::server::Connected;

use crate::config::ServingLimits;
use crate::flight::connection::Peer;
use crate::flight::status::not_now;

/// Connections above the limit that are accepted all the same, to be told why they are refused.
const TOLD: usize = 64;

/// The connections of one server. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Connections(Arc<Inner>);

struct Inner {
    most: usize,
    open: AtomicUsize,
    /// How many of them are above the limit.
    surplus: AtomicUsize,
    refused: Mutex<HashSet<SocketAddr>>,
    /// The other ends of those that are open.
    others: Mutex<HashSet<SocketAddr>>,
    closed: Box<dyn Fn(SocketAddr) + Send + Sync>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("most", &self.most).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet. `closed` is told of each that was closed.
    pub(crate) fn new(limits: &ServingLimits, closed: impl Fn(SocketAddr) + Send + Sync + 'static) -> Self {
        let (open, surplus) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (most, refused, others) = (limits.connections.get(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { most, open, surplus, refused, others, closed: Box::new(closed) }))
    }

    /// Counts the connections of a listener; those far above the limit are closed at once.
    pub(crate) fn count<S, C>(&self, incoming: S) -> impl Stream<Item = io::Result<Counted<C>>> + use<S, C>
    where
        S: Stream<Item = io::Result<C>>,
        C: Connected<ConnectInfo = Peer>,
    {
        let connections = self.clone();
        incoming.filter_map(move |accepted| {
            std::future::ready(match accepted {
                Ok(stream) => connections.accept(stream).map(Ok),
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// Lets a call in, unless its connection is above the limit.
    ///
    /// # Errors
    /// `UNAVAILABLE`, with what to do.
    pub(crate) fn check(&self, address: Option<SocketAddr>) -> Result<(), Status> {
        if self.0.surplus.load(Ordering::Relaxed) == 0
            || address.is_none_or(|address| !self.refused().contains(&address))
        {
            return Ok(());
        }
        let told = format!(
            "there are {} connections already (`limits.connections`); close those that are not used, or try again later",
            self.0.most
        );
        Err(not_now(told))
    }

    /// Whether the connection from an address is open.
    pub(crate) fn is_open(&self, address: SocketAddr) -> bool {
        self.others().contains(&address)
    }

    fn accept<C: Connected<ConnectInfo = Peer>>(&self, stream: C) -> Option<Counted<C>> {
        let address = stream.connect_info().address;
        let before = self.0.open.fetch_add(1, Ordering::Relaxed);
        let surplus = before >= self.0.most;
        let place = Place { address, surplus, connections: self.clone() };
        self.others().extend(address);
        if surplus {
            self.0.surplus.fetch_add(1, Ordering::Relaxed);
            self.refused().extend(address);
        }
        (before < self.0.most + TOLD).then_some(Counted { stream, _place: place })
    }

    fn others(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts as long as it is open.
pub(crate) struct Counted<C> {
    stream: C,
    _place: Place,
}

/// The place a connection takes.
struct Place {
    address: Option<SocketAddr>,
    surplus: bool,
    connections: Connections,
}

impl Drop for Place {
    fn drop(&mut self) {
        let inner = &self.connections.0;
        inner.open.fetch_sub(1, Ordering::Relaxed);
        if self.surplus {
            inner.surplus.fetch_sub(1, Ordering::Relaxed);
            if let Some(address) = &self.address {
                self.connections.refused().remove(address);
            }
        }
        if let Some(address) = self.address {
            self.connections.others().remove(&address);
            (inner.closed)(address);
        }
    }
}

impl<C: Connected<ConnectInfo = Peer>> Connected for Counted<C> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.stream.connect_info()
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
