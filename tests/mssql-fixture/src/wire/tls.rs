//! TLS as TDS carries it: a certificate made at start, and the handshake wrapped in PRELOGIN packets (MS-TDS 2.2.6.5, TDS 7.x).

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;

use super::packet::{HEADER, kind, status};

/// The names that the server's certificate holds besides the address that the server listens on.
const NAMES: [&str; 2] = ["localhost", "mssql-fixture"];

/// A certificate authority made for one run and what it signed for the server.
pub(crate) struct Tls {
    /// The authority's certificate, for clients to trust.
    pub(crate) ca_pem: String,
    /// For the handshake inside PRELOGIN: TLS 1.2 only, because 1.3 sends records after its handshake that TDS 7.x has no place for.
    pub(crate) inside_prelogin: TlsAcceptor,
    /// For TDS 8 (`encrypt=strict`), where TLS comes first.
    pub(crate) strict: TlsAcceptor,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("cannot make the server's certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library does not take it.
    #[error("cannot set up TLS")]
    Configuration(#[from] rustls::Error),
}

impl Tls {
    /// A new authority, and a certificate by it for `localhost`, `mssql-fixture`, the loopback addresses and `listen`.
    pub(crate) fn generate(listen: IpAddr) -> Result<Self, TlsError> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "mssql-fixture test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut names: Vec<String> = NAMES.map(String::from).to_vec();
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        if !listen.is_loopback() && !listen.is_unspecified() {
            names.push(listen.to_string());
        }
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "mssql-fixture");
        server.use_authority_key_identifier_extension = true;
        let server_key = KeyPair::generate()?;
        let certificate = server.signed_by(&server_key, &issuer)?;

        let configuration = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)?
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
        };
        let inside_prelogin = configuration(&[&rustls::version::TLS12])?;
        let mut strict = configuration(rustls::ALL_VERSIONS)?;
        strict.alpn_protocols = vec![b"tds/8.0".to_vec()];
        Ok(Self {
            ca_pem,
            inside_prelogin: TlsAcceptor::from(Arc::new(inside_prelogin)),
            strict: TlsAcceptor::from(Arc::new(strict)),
        })
    }
}

/// A stream that wraps what it writes in PRELOGIN packets, and unwraps what it reads, until the handshake is over.
#[derive(Debug)]
pub(crate) struct PreloginStream<S> {
    inner: S,
    wrapping: bool,
    /// Bytes of the handshake packet at hand that are still to come.
    left_in_packet: usize,
    header: BytesMut,
    outgoing: BytesMut,
    /// The part of `outgoing` that already has its header.
    framed: BytesMut,
}

impl<S> PreloginStream<S> {
    /// Wraps `inner`; with `wrapping` false it passes everything through.
    pub(crate) fn new(inner: S, wrapping: bool) -> Self {
        Self {
            inner,
            wrapping,
            left_in_packet: 0,
            header: BytesMut::with_capacity(HEADER),
            outgoing: BytesMut::new(),
            framed: BytesMut::new(),
        }
    }

    /// From here on bytes pass as they are.
    pub(crate) fn handshake_over(&mut self) {
        self.wrapping = false;
    }

    /// The stream underneath.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PreloginStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.wrapping {
            return Pin::new(&mut this.inner).poll_read(cx, out);
        }
        while this.left_in_packet == 0 {
            let mut space = [0; HEADER];
            let mut part = ReadBuf::new(&mut space[..HEADER - this.header.len()]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.header.put_slice(part.filled());
            if this.header.len() == HEADER {
                let length = usize::from(u16::from_be_bytes([this.header[2], this.header[3]]));
                if this.header[0] != kind::PRELOGIN || length < HEADER {
                    let what = "a packet that is not PRELOGIN inside the TLS handshake";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
                }
                this.left_in_packet = length - HEADER;
                this.header.clear();
            }
        }
        let mut space = [0; 1024];
        let room = space.len().min(out.remaining()).min(this.left_in_packet);
        let mut part = ReadBuf::new(&mut space[..room]);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        out.put_slice(part.filled());
        this.left_in_packet -= part.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PreloginStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.wrapping {
            self.outgoing.put_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.outgoing.is_empty() {
            let flight = this.outgoing.split();
            this.framed.put_slice(&[kind::PRELOGIN, status::END_OF_MESSAGE]);
            this.framed.put_u16(u16::try_from(flight.len() + HEADER).unwrap_or(u16::MAX));
            this.framed.put_slice(&[0, 0, 0, 0]);
            this.framed.put_slice(&flight);
        }
        while !this.framed.is_empty() {
            let count = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.framed))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.framed.advance(count);
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
