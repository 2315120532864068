//! What kinds of failure there are. Every room has an error type of its own; each classifies itself
//! into one [`ErrorKind`], and what follows from a failure is decided from the kind alone.

use std::error::Error;

/// The closed list of failures as a person outside sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// What the person wrote or gave is wrong: SQL, configuration, a file's content.
    InvalidInput,
    /// The thing named does not exist.
    NotFound,
    /// The thing to be made exists already.
    AlreadyExists,
    /// Who asks is not known: no, wrong or expired credentials.
    Unauthenticated,
    /// Who asks is known and may not.
    PermissionDenied,
    /// Somebody else changed or holds the thing.
    Conflict,
    /// A limit was reached: memory, disk, time in the queue, size.
    ResourceExhausted,
    /// A system we depend on does not answer now.
    Unavailable,
    /// The work was given up on request.
    Cancelled,
    /// The work took longer than it may.
    DeadlineExceeded,
    /// Deliberately not done by lakegate.
    Unsupported,
    /// Stored data is damaged or not what its record says.
    DataLoss,
    /// A mistake in lakegate.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable | Self::ResourceExhausted)
    }

    /// The kind of a name, as [`Self::as_str`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        serde::Deserialize::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name)).ok()
    }

    /// The kind's name as it stands in `system.loads` and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::Conflict => "conflict",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unsupported => "unsupported",
            Self::DataLoss => "data_loss",
            Self::Internal => "internal",
        }
    }
}

/// An error that knows its kind.
pub trait Classify: Error {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;
}

/// The error's text with the texts of its causes, each once, joined by `: `.
pub fn chain_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text
}
