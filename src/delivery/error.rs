//! Why a result could not be handed out.

use std::path::PathBuf;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::error::{Classify, ErrorKind};
use crate::query::QueryError;

/// Why a result could not be handed out.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Sealed bytes that this server's key does not open: forged, damaged, or another server's.
    #[error("this {what} was not issued by this server, or was altered; run the query again")]
    NotOurs {
        /// What was shown, as in `ticket`.
        what: &'static str,
    },
    /// A ticket past its time.
    #[error("the ticket has expired; run the query again to get a new one")]
    Expired,
    /// A ticket's content that this version cannot read although the seal is good.
    #[error("the ticket was issued by another version of lakegate; run the query again ({reason})")]
    OtherVersion {
        /// What could not be read.
        reason: String,
    },
    /// The configured key is not one.
    #[error("`tickets.key` has to be 32 bytes in base64 or hex, for example from `openssl rand -base64 32`")]
    BadKey,
    /// The machine's own secret cannot be used.
    #[error("cannot use {path} for the key of tickets: {reason}")]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The system has no randomness to give, or a text to seal is too long.
    #[error("cannot seal the {what}: {reason}")]
    Sealing {
        /// What was to be sealed.
        what: &'static str,
        /// The cause.
        reason: String,
    },
    /// A value does not fit the type that was announced for its column.
    #[error("column `{column}` cannot be sent as {announced}: {source}")]
    Convert {
        /// The column.
        column: String,
        /// The type the result's schema names.
        announced: String,
        /// Arrow's own reason.
        source: ArrowError,
    },
    /// A batch could not be encoded.
    #[error("cannot encode the result: {0}")]
    Encode(#[source] ArrowError),
    /// The thread that encoded a part of the result did not come to its end: it panicked, or the server stops.
    #[error("the encoding of the result was not finished")]
    Unfinished,
    /// The query itself failed while its rows were read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Classify for DeliveryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotOurs { .. } => ErrorKind::Unauthenticated,
            // Not `Unauthenticated`: clients answer that by asking for the password again, and nothing is wrong with it.
            Self::Expired => ErrorKind::PermissionDenied,
            Self::OtherVersion { .. } => ErrorKind::NotFound,
            Self::BadKey | Self::SecretFile { .. } | Self::Convert { .. } => ErrorKind::InvalidInput,
            Self::Sealing { .. } | Self::Encode(_) | Self::Unfinished => ErrorKind::Internal,
            Self::Query(error) => error.kind(),
        }
    }
}

impl From<DataFusionError> for DeliveryError {
    /// Errors inside a result's stream are the query's.
    fn from(error: DataFusionError) -> Self {
        Self::Query(error.into())
    }
}
