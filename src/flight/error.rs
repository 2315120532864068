//! Why the Flight SQL service cannot run.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::access::AccessError;
use crate::delivery::DeliveryError;
use crate::error::{Classify, ErrorKind};

/// Why the Flight SQL service cannot run. What goes wrong in one call is told to its client instead.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// It would let anybody in.
    #[error(
        "{address} can be reached from other machines, and no users are configured: anybody who can reach it could \
         read every table. Add users (`lakegate user add NAME`), listen on 127.0.0.1, or set \
         `allow_anonymous_network = true` under [serve] if that is meant"
    )]
    Exposed {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Anybody on the way could read along.
    #[error(
        "{address} can be reached from other machines, and connections are not encrypted: anybody on the way could \
         read passwords and rows. Name certificate and key under [serve.tls] (`lakegate cert dev` makes them), listen \
         on 127.0.0.1, or set `allow_plaintext_network = true` under [serve] if that is meant"
    )]
    Plaintext {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A certificate or key cannot be used.
    #[error("the certificate or key in {path} cannot be used: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Nobody could be let in.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The key of tickets cannot be had.
    #[error(transparent)]
    Key(#[from] DeliveryError),
    /// The listener does not work.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The transport gave up.
    #[error("the Flight service stopped: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Classify for FlightError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Exposed { .. } | Self::Plaintext { .. } => ErrorKind::PermissionDenied,
            Self::Certificate { .. } => ErrorKind::InvalidInput,
            Self::Key(error) => error.kind(),
            Self::Access(error) => error.kind(),
            Self::Listen(_) | Self::Transport(_) => ErrorKind::Unavailable,
        }
    }
}
