//! The stream of one connection: the bare socket or TLS over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls::PreloginStream;

/// The socket, or TLS over it.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Nothing is encrypted.
    Plain(TcpStream),
    /// Everything is.
    Tls(Box<TlsStream<PreloginStream<TcpStream>>>),
}

impl Transport {
    /// TLS over `socket`, its handshake wrapped in PRELOGIN packets where `wrapped`.
    pub(crate) async fn encrypt(socket: TcpStream, acceptor: &TlsAcceptor, wrapped: bool) -> io::Result<Self> {
        let mut stream = acceptor.accept(PreloginStream::new(socket, wrapped)).await?;
        stream.get_mut().0.handshake_over();
        Ok(Self::Tls(Box::new(stream)))
    }

    /// The same connection without TLS, as login-only encryption leaves it.
    pub(crate) fn decrypt(self) -> Self {
        match self {
            Self::Tls(stream) => Self::Plain(stream.into_inner().0.into_inner()),
            plain => plain,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
