//! Why the lake could not be read or changed.

use std::error::Error;

use datafusion::error::DataFusionError;
use deltalake::DeltaTableError;

use crate::error::{Classify, ErrorKind};
use crate::runtime::fault::Fault;
use crate::runtime::store;

/// Why the lake could not be read or changed. The message names what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LakeError {
    kind: ErrorKind,
    message: String,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
    outcome_unknown: bool,
}

impl LakeError {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None, outcome_unknown: false }
    }

    /// An error with its cause.
    pub fn because(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), cause: Some(cause.into()), outcome_unknown: false }
    }

    /// The same, where it is not known whether something was changed.
    #[must_use]
    pub(super) fn of_unknown_outcome(self) -> Self {
        Self { outcome_unknown: true, ..self }
    }

    /// Whether something may have been changed all the same.
    pub fn is_of_unknown_outcome(&self) -> bool {
        self.outcome_unknown
    }

    /// A failure of the object store; `what` says what could not be done, and where.
    pub(super) fn store(what: impl Into<String>, cause: object_store::Error) -> Self {
        Self::because(store::kind_of(&cause), what, cause)
    }

    /// A failure of the local file system; `what` says what could not be done, and where.
    pub(super) fn io(what: impl Into<String>, cause: std::io::Error) -> Self {
        Self::because(io_kind(&cause), what, cause)
    }

    /// A failure of the Delta library; `what` says what could not be done, and to which table.
    pub(super) fn delta(what: impl Into<String>, cause: DeltaTableError) -> Self {
        Self::because(delta_kind(&cause), what, cause)
    }

    /// A failure while rows were computed; `what` says what could not be done, and to which table.
    pub(super) fn rows(what: impl Into<String>, cause: DataFusionError) -> Self {
        Self::because(rows_kind(&cause), what, cause)
    }
}

impl Classify for LakeError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<Fault> for LakeError {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::Unavailable, fault.to_string())
    }
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::ResourceExhausted,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        Io::NotFound => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        _ => ErrorKind::Unavailable,
    }
}

fn delta_kind(error: &DeltaTableError) -> ErrorKind {
    match error {
        DeltaTableError::ObjectStore { source } => store::kind_of(source),
        DeltaTableError::Io { source } => io_kind(source),
        DeltaTableError::NotATable(_) | DeltaTableError::InvalidVersion(_) => ErrorKind::NotFound,
        DeltaTableError::VersionAlreadyExists(_) | DeltaTableError::Transaction { .. } => ErrorKind::Conflict,
        DeltaTableError::InvalidJsonLog { .. } => ErrorKind::DataLoss,
        DeltaTableError::SchemaMismatch { .. } => ErrorKind::InvalidInput,
        other => cause_kind(other).unwrap_or(ErrorKind::Internal),
    }
}

fn rows_kind(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::ResourceExhausted,
        DataFusionError::ObjectStore(source) => store::kind_of(source),
        DataFusionError::IoError(source) => io_kind(source),
        DataFusionError::ArrowError(..) => ErrorKind::InvalidInput,
        other => cause_kind(other).unwrap_or(ErrorKind::Internal),
    }
}

/// The kind of the first cause below that tells one.
fn cause_kind(error: &dyn Error) -> Option<ErrorKind> {
    let mut cause = error.source();
    while let Some(next) = cause {
        if let Some(found) = next.downcast_ref::<object_store::Error>() {
            return Some(store::kind_of(found));
        }
        if let Some(found) = next.downcast_ref::<std::io::Error>() {
            return Some(io_kind(found));
        }
        cause = next.source();
    }
    None
}
