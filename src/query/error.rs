//! Why a statement was not answered, and what kind of failure each of the engine's errors is.

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;

use crate::error::{Classify, ErrorKind, chain_text};
use crate::lake::LakeError;
use crate::runtime::store;

/// Why a statement was not answered. The message is for the person who wrote the statement.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    kind: ErrorKind,
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl QueryError {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// An error with its cause.
    pub fn because(
        kind: ErrorKind,
        message: impl Into<String>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), cause: Some(cause.into()) }
    }

    /// A mistake in the statement.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Something in the statement that lakegate deliberately does not do.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A failure of stored data. Its texts name places in the lake, which are no business of the
    /// person who asks: they go to the log, and the message says the rest.
    fn storage(kind: ErrorKind, error: &dyn std::error::Error) -> Self {
        tracing::warn!(error = %chain_text(error), kind = kind.as_str(), "a query could not read the lake");
        let message = match kind {
            ErrorKind::NotFound | ErrorKind::DataLoss => {
                "a data file of the version that is read is gone, as after a VACUUM by another tool, or damaged; run the \
                 statement again, which reads the newest version, and if it still fails look into the server's log"
            }
            ErrorKind::ResourceExhausted => "the disk for spilled data is full; read less, or raise `limits.spill`",
            _ => "the lake's storage does not answer as it should; try again, and look into the server's log",
        };
        Self::new(if kind == ErrorKind::NotFound { ErrorKind::DataLoss } else { kind }, message)
    }
}

impl Classify for QueryError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<LakeError> for QueryError {
    fn from(error: LakeError) -> Self {
        match error.kind() {
            kind @ (ErrorKind::NotFound | ErrorKind::InvalidInput) => Self::new(kind, error.to_string()),
            // Memory or disk: the cause tells.
            ErrorKind::ResourceExhausted => from_cause(&error),
            kind => Self::storage(kind, &error),
        }
    }
}

impl From<QueryError> for DataFusionError {
    fn from(error: QueryError) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for QueryError {
    /// Tells whose mistake it is from the error's variant, never from its text.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(cause) => from_external(cause),
            DataFusionError::Context(_, cause) => (*cause).into(),
            DataFusionError::Diagnostic(diagnostic, cause) => {
                let place = diagnostic.span.map(|span| span.start);
                let inner = Self::from(*cause);
                match place {
                    Some(at) if inner.kind != ErrorKind::Internal && !inner.message.contains("Line: ") => {
                        Self { message: format!("{} (line {}, column {})", inner.message, at.line, at.column), ..inner }
                    }
                    _ => inner,
                }
            }
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => first.into(),
                None => Self::new(ErrorKind::Internal, "the query failed without saying why"),
            },
            DataFusionError::Shared(shared) => from_shared(&shared),
            plain => from_plain(&plain),
        }
    }
}

/// An error that several wait for; only one of them could own it.
fn from_shared(error: &DataFusionError) -> QueryError {
    match error {
        DataFusionError::External(cause) => match cause.downcast_ref::<QueryError>() {
            Some(own) => QueryError::new(own.kind, own.message.clone()),
            None => from_cause(cause.as_ref()),
        },
        DataFusionError::Context(_, cause) | DataFusionError::Diagnostic(_, cause) => from_shared(cause),
        DataFusionError::Shared(shared) => from_shared(shared),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => from_shared(first),
            None => QueryError::new(ErrorKind::Internal, "the query failed without saying why"),
        },
        plain => from_plain(plain),
    }
}

fn from_external(cause: Box<dyn std::error::Error + Send + Sync>) -> QueryError {
    match cause.downcast::<QueryError>() {
        Ok(own) => *own,
        Err(cause) => match cause.downcast::<DataFusionError>() {
            Ok(inner) => (*inner).into(),
            Err(other) => from_cause(other.as_ref()),
        },
    }
}

/// A foreign error: the first cause that is of a known type tells the kind.
fn from_cause(error: &(dyn std::error::Error + 'static)) -> QueryError {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(own) = cause.downcast_ref::<QueryError>() {
            return QueryError::new(own.kind, own.message.clone());
        }
        if let Some(inner) = cause.downcast_ref::<DataFusionError>() {
            return from_shared(inner);
        }
        if let Some(arrow) = cause.downcast_ref::<ArrowError>() {
            return from_arrow(arrow);
        }
        if let Some(lake) = cause.downcast_ref::<LakeError>()
            && (lake.kind() != ErrorKind::ResourceExhausted || cause.source().is_none())
        {
            return QueryError::storage(lake.kind(), error);
        }
        if let Some(stored) = cause.downcast_ref::<object_store::Error>() {
            return QueryError::storage(store::kind_of(stored), error);
        }
        if cause.is::<ParquetError>() {
            return QueryError::storage(ErrorKind::DataLoss, error);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return QueryError::storage(io_kind(io), error);
        }
        next = cause.source();
    }
    internal(error)
}

fn from_plain(error: &DataFusionError) -> QueryError {
    match error {
        DataFusionError::SQL(cause, _) => QueryError::invalid(clean(&cause.to_string(), "sql parser error: ")),
        DataFusionError::Plan(text) => QueryError::invalid(clean(text, "")),
        DataFusionError::Configuration(text) => QueryError::invalid(clean(text, "")),
        DataFusionError::SchemaError(cause, _) => QueryError::invalid(schema_text(cause)),
        // The functions of the engine report what is wrong with a value this way.
        DataFusionError::Execution(text) => QueryError::invalid(clean(text, "")),
        DataFusionError::NotImplemented(text) => QueryError::unsupported(clean(text, "")),
        DataFusionError::ResourcesExhausted(text) => exhausted(text),
        DataFusionError::ArrowError(cause, _) => from_arrow(cause),
        DataFusionError::ParquetError(cause) => from_cause(cause.as_ref()),
        DataFusionError::ObjectStore(cause) => QueryError::storage(store::kind_of(cause), cause.as_ref()),
        DataFusionError::IoError(cause) => QueryError::storage(io_kind(cause), cause),
        DataFusionError::ExecutionJoin(cause) if cause.is_cancelled() => {
            QueryError::new(ErrorKind::Cancelled, "the statement was cancelled")
        }
        other => internal(other),
    }
}

fn from_arrow(error: &ArrowError) -> QueryError {
    match error {
        ArrowError::ExternalError(cause) => from_cause(cause.as_ref()),
        ArrowError::IoError(_, cause) => QueryError::storage(io_kind(cause), cause),
        ArrowError::MemoryError(text) => exhausted(text),
        ArrowError::NotYetImplemented(text) => QueryError::unsupported(clean(text, "")),
        ArrowError::ParquetError(_) => QueryError::storage(ErrorKind::DataLoss, error),
        ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::SchemaError(text)
        | ArrowError::ArithmeticOverflow(text)
        | ArrowError::InvalidArgumentError(text) => QueryError::invalid(clean(text, "")),
        ArrowError::DivideByZero => {
            QueryError::invalid("division by zero; `nullif(divisor, 0)` gives NULL for such rows instead")
        }
        ArrowError::OffsetOverflowError(_) | ArrowError::DictionaryKeyOverflowError => QueryError::new(
            ErrorKind::ResourceExhausted,
            "one value or batch of the result is larger than 2 GiB; select less of it at a time",
        ),
        other => internal(other),
    }
}

fn exhausted(text: &str) -> QueryError {
    let first = text.lines().next().unwrap_or_default();
    let message = format!(
        "the statement needs more than it may use: {first}; what can spill to disk has done so: select fewer columns or \
         rows, group or filter before joining, or raise `limits.memory` and `limits.statement_memory` (or \
         `limits.spill`, the disk it may spill to)"
    );
    QueryError::new(ErrorKind::ResourceExhausted, message)
}

fn internal(error: &dyn std::error::Error) -> QueryError {
    tracing::error!(error = %chain_text(error), "a query failed by a mistake in the engine");
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    QueryError::new(ErrorKind::Internal, format!("the query engine made a mistake: {}", hide_places(first)))
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::ResourceExhausted,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        Io::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    }
}

fn schema_text(error: &SchemaError) -> String {
    clean(&error.to_string(), "Schema error: ")
}

/// A library's text as a sentence for people: no backtrace, no name of the layer it came from.
fn clean(text: &str, layer: &str) -> String {
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default().trim();
    hide_places(text.strip_prefix(layer).unwrap_or(text))
}

/// Replaces the folder part of data files' paths: people see which file, not where the lake is.
pub(crate) fn hide_places(text: &str) -> String {
    const ENDING: &str = ".parquet";
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find(ENDING) {
        let (before, after) = rest.split_at(found);
        let start = before
            .rfind(|c: char| c.is_whitespace() || "[]{}(),\"'`=".contains(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let (kept, path) = before.split_at(start);
        hidden.push_str(kept);
        hidden.push_str(path.rsplit('/').next().unwrap_or_default());
        hidden.push_str(ENDING);
        rest = &after[ENDING.len()..];
    }
    hidden.push_str(rest);
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: DataFusionError) -> ErrorKind {
        QueryError::from(error).kind()
    }

    #[test]
    fn mistakes_of_the_person_are_never_internal() {
        assert_eq!(kind(DataFusionError::Plan("no such column".into())), ErrorKind::InvalidInput);
        assert_eq!(kind(DataFusionError::Execution("not a date".into())), ErrorKind::InvalidInput);
        assert_eq!(kind(DataFusionError::NotImplemented("x".into())), ErrorKind::Unsupported);
        assert_eq!(kind(DataFusionError::from(ArrowError::DivideByZero)), ErrorKind::InvalidInput);
        assert_eq!(kind(DataFusionError::from(ArrowError::CastError("x".into()))), ErrorKind::InvalidInput);
        assert_eq!(kind(DataFusionError::ResourcesExhausted("x".into())), ErrorKind::ResourceExhausted);
    }

    #[test]
    fn memory_that_is_used_up_is_told_apart_from_a_full_disk() {
        let lake = |cause: DataFusionError| {
            LakeError::because(ErrorKind::ResourceExhausted, "cannot sort the rows of table a.b", cause)
        };
        let memory = || DataFusionError::ResourcesExhausted("no room for a sort".into()).context("sorting");
        for told in [QueryError::from(lake(memory())), DataFusionError::External(Box::new(lake(memory()))).into()] {
            assert_eq!(told.kind(), ErrorKind::ResourceExhausted);
            let told = told.to_string();
            assert!(told.contains("no room for a sort") && told.contains("limits.memory"), "{told}");
        }
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let told = QueryError::from(lake(full.into()));
        assert_eq!(told.kind(), ErrorKind::ResourceExhausted);
        assert!(told.to_string().contains("disk for spilled data is full"), "{told}");
        let bare = QueryError::from(LakeError::new(ErrorKind::ResourceExhausted, "full"));
        assert_eq!(bare.kind(), ErrorKind::ResourceExhausted);
    }

    #[test]
    fn wrappings_do_not_hide_the_kind() {
        let inner = || QueryError::new(ErrorKind::DeadlineExceeded, "late");
        let shared = DataFusionError::Shared(std::sync::Arc::new(inner().into()));
        assert_eq!(kind(shared), ErrorKind::DeadlineExceeded);
        let context = DataFusionError::Context("while".into(), Box::new(inner().into()));
        assert_eq!(kind(context), ErrorKind::DeadlineExceeded);
        let arrow = ArrowError::ExternalError(Box::new(DataFusionError::from(inner())));
        assert_eq!(kind(arrow.into()), ErrorKind::DeadlineExceeded);
    }

    #[test]
    fn paths_of_data_files_are_not_told() {
        let text = "file_groups={1 group: [[srv/lake/a/b/part-1.parquet:0..5, srv/lake/a/b/part-2.parquet]]}, x";
        assert_eq!(hide_places(text), "file_groups={1 group: [[part-1.parquet:0..5, part-2.parquet]]}, x");
        let cause = object_store::Error::NotFound { path: "srv/lake/x".into(), source: "gone".into() };
        let error = QueryError::from(DataFusionError::ObjectStore(Box::new(cause)));
        assert!(!error.to_string().contains("srv"), "{error}");
        assert_eq!(error.kind(), ErrorKind::DataLoss);
    }
}
