//! Connections as they come in: plain, or encrypted before anything is read from them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::config::CertificateName;
use crate::flight::tls::{self, Tls};

/// Connections that may be about to agree on encryption at the same time.
const MOST_HANDSHAKES: usize = 1024;
/// How long a client may take for that.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
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
    let accepted =
        futures::stream::unfold(listener, |listener| async move { Some((listener.accept().await, listener)) });
    let opened = accepted.map(move |accepted| {
        let tls = tls.clone();
        async move {
            match accepted {
                Ok((stream, address)) => open(stream, address, tls.as_deref(), name).await,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(BREATH).await;
                    None
                }
            }
        }
    });
    opened.buffer_unordered(MOST_HANDSHAKES).filter_map(|connection| std::future::ready(connection.map(Ok)))
}

async fn open(stream: TcpStream, address: SocketAddr, tls: Option<&Tls>, name: CertificateName) -> Option<Connection> {
    // Small answers are not held back for more to come; where the system refuses that, they are only later.
    let _ = stream.set_nodelay(true);
    let address = Some(address);
    let Some(tls) = tls else {
        return Some(Connection { stream: Wire::Plain(stream), peer: Peer { address, certificate_name: None } });
    };
    let agreed = tokio::time::timeout(HANDSHAKE_PATIENCE, TlsAcceptor::from(tls.config()).accept(stream)).await;
    let reason = match agreed {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
            let certificate_name = shown.and_then(|certificate| tls::certificate_name(certificate, name));
            let peer = Peer { address, certificate_name };
            return Some(Connection { stream: Wire::Encrypted(Box::new(stream)), peer });
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::debug!(?address, reason, "a client and the server did not agree on TLS");
    None
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
        match &mut self.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
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
