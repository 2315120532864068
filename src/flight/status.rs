//! The one table that turns a kind of failure into a gRPC status, and what of its text is told.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::delivery::DeliveryError;
use crate::error::{Classify, ErrorKind, chain_text};
use crate::query::QueryError;

/// Longest message in characters. It travels percent-encoded in trailers, for which clients allow 8 to 16 KiB.
const LONGEST_MESSAGE: usize = 2000;
/// Header that carries the kind's own name, for clients that want it finer than gRPC's codes.
const KIND_HEADER: &str = "lakegate-error-kind";
/// Header of a refusal that is not about what was asked: the same call may be answered later.
const RETRY_HEADER: &str = "lakegate-retry";

/// The code a kind is told as. A person's own mistake is never `Internal`: clients retry or report those.
pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    }
}

/// A refusal with its own words.
pub(crate) fn refuse(kind: ErrorKind, message: impl AsRef<str>) -> Status {
    let mut status = Status::new(code(kind), cut(message.as_ref()));
    status.metadata_mut().insert(KIND_HEADER, MetadataValue::from_static(kind.as_str()));
    status
}

/// A refusal of whatever is asked at this moment: the server is going away, or too busy. What was asked for may be had later, so
/// clients that were cut off go on trying, which for any other word of ours they do not.
pub(crate) fn not_now(message: impl AsRef<str>) -> Status {
    let mut status = refuse(ErrorKind::Unavailable, message);
    status.metadata_mut().insert(RETRY_HEADER, MetadataValue::from_static("later"));
    status
}

/// The status of an error. Causes of what is nobody's fault but ours or the storage's go to the log
/// only, under a reference that the message names.
fn status_of(error: &impl Classify) -> Status {
    let kind = error.kind();
    match kind {
        ErrorKind::Internal | ErrorKind::DataLoss => {
            let reference = uuid::Uuid::new_v4().simple().to_string();
            let reference = &reference[..8];
            tracing::error!(reference, kind = kind.as_str(), error = %chain_text(error), "a call failed");
            let told = match kind {
                ErrorKind::DataLoss => error.to_string(),
                _ => "something went wrong inside lakegate".to_owned(),
            };
            refuse(kind, format!("{told} (the server's log has the details under reference {reference})"))
        }
        _ => refuse(kind, chain_text(error)),
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        status_of(&error)
    }
}

impl From<DeliveryError> for Status {
    fn from(error: DeliveryError) -> Self {
        status_of(&error)
    }
}

/// A refusal that has to pass through the engine.
pub(crate) fn in_query_words(status: &Status) -> QueryError {
    let kind = match status.code() {
        Code::Cancelled => ErrorKind::Cancelled,
        Code::ResourceExhausted | Code::OutOfRange => ErrorKind::ResourceExhausted,
        Code::Unknown | Code::Unavailable | Code::Internal => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        _ => ErrorKind::InvalidInput,
    };
    QueryError::new(kind, status.message())
}

/// An answer of ours that cannot be put into its own format: our mistake.
pub(crate) fn malformed(error: &(dyn std::error::Error + 'static)) -> Status {
    let cause = error.to_string();
    status_of(&QueryError::new(ErrorKind::Internal, cause))
}

/// A panic that was caught: our mistake, whose details the panic itself wrote to the log.
pub(crate) fn panicked(what: &str) -> Status {
    status_of(&QueryError::new(ErrorKind::Internal, format!("{what} panicked")))
}

/// Whether a server of ours said this, rather than what is between it and a client.
fn is_told(status: &Status) -> bool {
    status.metadata().contains_key(KIND_HEADER)
}

/// Whether the same call may be answered later: the server asks for it, or never got to say anything.
pub(crate) fn may_be_answered_later(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => !is_told(status) || status.metadata().contains_key(RETRY_HEADER),
        Code::Unknown | Code::Internal | Code::Cancelled => !is_told(status),
        _ => false,
    }
}

/// The kind a status of ours tells.
pub(crate) fn kind_of(status: &Status) -> ErrorKind {
    let told = status.metadata().get(KIND_HEADER).and_then(|kind| kind.to_str().ok());
    told.and_then(ErrorKind::parse).unwrap_or(match status.code() {
        Code::Cancelled => ErrorKind::Cancelled,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::InvalidArgument => ErrorKind::InvalidInput,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    })
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((at, _)) => format!("{} …", &message[..at]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_mistake_is_told_in_full_and_others_are_not() {
        let own = Status::from(QueryError::because(ErrorKind::InvalidInput, "no column `x`", "did you mean `y`"));
        assert_eq!((own.code(), own.message()), (Code::InvalidArgument, "no column `x`: did you mean `y`"));
        assert_eq!(own.metadata().get(KIND_HEADER).unwrap(), "invalid_input");
        assert_eq!((kind_of(&own), kind_of(&Status::cancelled("x"))), (ErrorKind::InvalidInput, ErrorKind::Cancelled));
        let ours = Status::from(QueryError::because(ErrorKind::Internal, "index 7 of /var/lake", "secret"));
        assert!(ours.code() == Code::Internal && !ours.message().contains("/var/lake"), "{}", ours.message());
    }

    #[test]
    fn only_what_is_not_about_the_statement_is_asked_for_again() {
        let gone = QueryError::new(ErrorKind::Unavailable, "the storage does not answer");
        for (status, later) in [
            (not_now("the server is stopping"), true),
            (Status::unavailable("connection refused"), true),
            (Status::internal("h2 protocol error"), true),
            (Status::from(gone), false),
            (refuse(ErrorKind::Cancelled, "the statement was cancelled on request"), false),
            (Status::deadline_exceeded("too late"), false),
        ] {
            assert_eq!(may_be_answered_later(&status), later, "{status:?}");
        }
        assert_eq!(kind_of(&not_now("x")), ErrorKind::Unavailable);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = refuse(ErrorKind::InvalidInput, "ü".repeat(5000));
        assert_eq!(status.message().chars().count(), LONGEST_MESSAGE + 2);
    }
}
