//! Why the journal cannot be read or written.

use crate::error::{Classify, ErrorKind};
use crate::runtime::fault::Fault;
use crate::runtime::store::{self, StoreError};

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The lake's place cannot be used at all.
    #[error("cannot open the journal")]
    Place(#[from] StoreError),
    /// A segment or the list of them cannot be read or written.
    #[error("cannot {action} the journal at {at}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Where.
        at: String,
        /// The store's own error.
        #[source]
        source: object_store::Error,
    },
    /// A segment is not what lakegate wrote.
    #[error("segment {at} of the journal is damaged; move it out of the way, only what it tells is lost")]
    Damaged {
        /// The segment.
        at: String,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Classify for JournalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Place(error) => error.kind(),
            Self::Store { source, .. } => store::kind_of(source),
            Self::Damaged { .. } => ErrorKind::DataLoss,
            Self::Fault(_) => ErrorKind::Internal,
        }
    }
}
