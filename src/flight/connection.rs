//! Connections as they come in: plain, or encrypted before anything is read from them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::config::CertificateName;
use crate::flight::tls::{self, Tls};

/// Connections that may be about to agree on encryption at the same time. One more, and the oldest of them is dropped:
/// whoever only holds a connection open keeps nobody out.
const MOST_HANDSHAKES: usize = 1024;
/// How long a client may take for that.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take until it has said that it speaks HTTP/2. From then on the keepalive looks after it.
const PREFACE_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes in which it says so (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;
/// How long to wait when no connection can be taken, as when there are too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Where it is.
    pub(crate) address: Option<SocketAddr>,
    /// Whom the certificate names that it showed; the certificate was verified.
    pub(crate) certificate_name: Option<String>,
}

/// A connection.
pub(crate) struct Connection {
    stream: Wire,
    peer: Peer,
    /// What is awaited of the client before anything else.
    preface: Option<Preface>,
}

struct Preface {
    /// Bytes that are to come.
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

enum Wire {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// Connections as they come in. With `tls` those that do not agree on encryption in time are dropped.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    name: CertificateName,
) -> impl Stream<Item = io::Result<Connection>> {
    incoming_at_most(listener, tls, name, MOST_HANDSHAKES)
}

fn incoming_at_most(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    name: CertificateName,
    most: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let listener = Arc::new(listener);
    let accepted = accepted(move || {
        let listener = Arc::clone(&listener);
        async move { listener.accept().await }
    });
    let mut unfinished = Unfinished { most, in_order: VecDeque::new() };
    let opened = accepted.map(move |(stream, address)| {
        let (tls, given_up) = (tls.clone(), unfinished.one_more());
        async move {
            tokio::select! {
                biased;
                connection = open(stream, address, tls.as_deref(), name) => connection,
                _ = given_up => {
                    tracing::debug!(?address, "a client that is slow to agree on TLS makes room for another");
                    None
                }
            }
        }
    });
    // One more than may be unfinished, so that the next one is accepted and the oldest makes room for it.
    opened.buffer_unordered(most + 1).filter_map(|connection| std::future::ready(connection.map(Ok)))
}

/// Handshakes that have begun.
struct Unfinished {
    most: usize,
    /// Each is given up when its sender is dropped, and closes it when it has ended; oldest first.
    in_order: VecDeque<oneshot::Sender<()>>,
}

impl Unfinished {
    /// Makes room for one more, if need be by giving up the oldest. What is returned resolves when the new one is given up.
    fn one_more(&mut self) -> oneshot::Receiver<()> {
        if self.in_order.len() >= self.most {
            self.in_order.retain(|handshake| !handshake.is_closed());
        }
        if self.in_order.len() >= self.most {
            self.in_order.pop_front();
        }
        let (handshake, given_up) = oneshot::channel();
        self.in_order.push_back(handshake);
        given_up
    }
}

/// What is accepted, one after the other. Where that fails the next one waits for a moment, and so do those who ask.
fn accepted<T, F: Future<Output = io::Result<T>>>(accept: impl FnMut() -> F) -> impl Stream<Item = T> {
    futures::stream::unfold(accept, |mut accept| async move {
        loop {
            match accept().await {
                Ok(accepted) => return Some((accepted, accept)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    })
}

async fn open(stream: TcpStream, address: SocketAddr, tls: Option<&Tls>, name: CertificateName) -> Option<Connection> {
    // Small answers are not held back for more to come; where the system refuses that, they are only later.
    let _ = stream.set_nodelay(true);
    let address = Some(address);
    let Some(tls) = tls else {
        let peer = Peer { address, certificate_name: None };
        return Some(Connection::new(Wire::Plain(stream), peer, PREFACE_PATIENCE));
    };
    let agreed = tokio::time::timeout(HANDSHAKE_PATIENCE, TlsAcceptor::from(tls.config()).accept(stream)).await;
    let reason = match agreed {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
            let certificate_name = shown.and_then(|certificate| tls::certificate_name(certificate, name));
            let peer = Peer { address, certificate_name };
            return Some(Connection::new(Wire::Encrypted(Box::new(stream)), peer, PREFACE_PATIENCE));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::debug!(?address, reason, "a client and the server did not agree on TLS");
    None
}

impl Connection {
    fn new(stream: Wire, peer: Peer, patience: Duration) -> Self {
        let preface = Preface { missing: PREFACE_LENGTH, deadline: Box::pin(tokio::time::sleep(patience)) };
        Self { stream, peer, preface: Some(preface) }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(preface) = &mut self.preface else { return read };
        preface.missing = preface.missing.saturating_sub(buffer.filled().len() - before);
        if preface.missing == 0 {
            self.preface = None;
        } else if read.is_pending() && preface.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client did not say that it speaks HTTP/2",
            )));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Wire::Encrypted(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::config::TlsSettings;

    /// A server's side of TLS, and a client's that trusts it.
    fn tls() -> (Arc<Tls>, TlsConnector) {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("c.pem"), certificate.pem()).unwrap();
        std::fs::write(path("k.pem"), key.serialize_pem()).unwrap();
        let settings = TlsSettings { certificate: path("c.pem"), key: path("k.pem"), client_ca: None };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(Tls::open(&settings).unwrap()), TlsConnector::from(Arc::new(client)))
    }

    #[tokio::test]
    async fn clients_that_never_shake_hands_keep_nobody_out() {
        const MOST: usize = 2;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, client) = tls();
        let mut incoming = Box::pin(incoming_at_most(listener, Some(server), CertificateName::CommonName, MOST));
        let mut stalled = Vec::new();
        for _ in 0..MOST {
            stalled.push(TcpStream::connect(address).await.unwrap());
        }
        let honest = async {
            let stream = TcpStream::connect(address).await.unwrap();
            client.connect("localhost".try_into().unwrap(), stream).await.unwrap()
        };
        let soon = HANDSHAKE_PATIENCE / 2;
        let both = tokio::time::timeout(soon, async { tokio::join!(honest, incoming.next()) });
        let (_honest, connection) = both.await.expect("others are not waited for");
        assert!(connection.unwrap().is_ok());
        // The first made room; the other may still go on.
        assert!(matches!(stalled[0].read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(stalled[1].try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_oldest_of_those_that_have_not_ended_is_given_up() {
        let mut unfinished = Unfinished { most: 2, in_order: VecDeque::new() };
        let [mut first, second] = [(); 2].map(|()| unfinished.one_more());
        drop(second);
        let mut third = unfinished.one_more();
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Empty), "one had ended");
        let _fourth = unfinished.one_more();
        assert_eq!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(third.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    /// A client, and its connection to a server that waits for so long.
    async fn connect(patience: Duration) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (client, Connection::new(Wire::Plain(stream), Peer::default(), patience))
    }

    #[tokio::test]
    async fn a_client_that_never_says_what_it_speaks_is_hung_up_on() {
        for said in [&b""[..], b"PRI * HTTP/2.0"] {
            let (mut client, mut connection) = connect(Duration::from_millis(50)).await;
            client.write_all(said).await.unwrap();
            let late = connection.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_said_what_it_speaks_may_be_silent() {
        let (mut client, mut connection) = connect(Duration::from_secs(60)).await;
        for part in [&b"PRI * HTTP/2.0\r\n"[..], b"\r\nSM\r\n\r\n"] {
            assert!(connection.preface.is_some());
            client.write_all(part).await.unwrap();
            connection.read_exact(&mut vec![0; part.len()]).await.unwrap();
        }
        assert!(connection.preface.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_accepted_is_not_tried_again_at_once() {
        let tries = Cell::new(0);
        let accept = || {
            tries.set(tries.get() + 1);
            let tries = tries.get();
            async move { if tries < 3 { Err(io::Error::other("too many open files")) } else { Ok(tries) } }
        };
        let mut accepted = Box::pin(accepted(accept).map(std::future::ready).buffer_unordered(MOST_HANDSHAKES));
        assert!(futures::poll!(accepted.next()).is_pending());
        assert_eq!(tries.get(), 1);
        assert_eq!(accepted.next().await, Some(3), "but again and again");
    }
}
