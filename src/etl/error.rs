//! Why a load failed.

use crate::error::{Classify, ErrorKind};
use crate::journal::JournalError;
use crate::lake::LakeError;
use crate::runtime::fault::Fault;
use crate::source::SourceError;

/// Why a load failed. Nothing of it is in the table.
#[derive(Debug, thiserror::Error)]
pub enum EtlError {
    /// What is to be loaded cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The table cannot be read or changed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Somebody else changes the table, and was waited for in vain.
    #[error(transparent)]
    Held(LakeError),
    /// What happened cannot be noted.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Loads and definitions do not go together; the text says what to do.
    #[error("{0}")]
    Definition(String),
    /// More rows did not fit than the definition allows.
    #[error("{0}")]
    TooManyRejects(String),
    /// The table differs from its source, and the load that was to read that anew failed.
    #[error("what differs was not read anew: {0}")]
    NotRepaired(String),
    /// The program was asked to stop before the load could commit.
    #[error(
        "the load was given up because the program was asked to stop; nothing was changed, the next sync does it again"
    )]
    Stopped,
    /// The load ended in a way it should not.
    #[error("a load of {table} broke off: {reason}; nothing was changed")]
    Broken {
        /// The table.
        table: crate::model::TableName,
        /// How.
        reason: String,
    },
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl EtlError {
    /// Whether the whole load may be done anew at once: what it met passes by itself. A full disk and a
    /// lease that was waited for in vain do not.
    pub(super) fn is_passing(&self) -> bool {
        !matches!(self, Self::Held(_)) && matches!(self.kind(), ErrorKind::Conflict | ErrorKind::Unavailable)
    }
}

impl Classify for EtlError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Lake(error) | Self::Held(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Definition(_) | Self::TooManyRejects(_) => ErrorKind::InvalidInput,
            Self::NotRepaired(_) => ErrorKind::DataLoss,
            Self::Stopped => ErrorKind::Cancelled,
            Self::Broken { .. } => ErrorKind::Internal,
            Self::Fault(_) => ErrorKind::Unavailable,
        }
    }
}
