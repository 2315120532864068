//! What a SQL Server, or the way to it, answers when something is wrong: classified by number, never by text.

use tiberius::error::Error as DriverError;

use crate::error::{Classify, ErrorKind};
use crate::source::SourceError;

/// Why a statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlServerError {
    /// The server refused or gave up a statement.
    #[error("{doing}: SQL Server error {number}: {message}{}", advice(*number))]
    Server {
        /// What lakegate was doing.
        doing: String,
        /// The server's number of the error (`sys.messages`).
        number: u32,
        /// The server's words.
        message: String,
    },
    /// The way to the server is broken.
    #[error("{doing}: {message}")]
    Line {
        /// What lakegate was doing.
        doing: String,
        /// What happened and what to do.
        message: String,
        /// What kind of failure that is.
        kind: ErrorKind,
        /// The driver's error.
        #[source]
        cause: Option<DriverError>,
    },
}

/// Retryable by themselves: deadlock, lock time-out, and what Azure says while a database moves or is busy
/// (Microsoft, "Troubleshoot transient connection errors in SQL Database").
const PASSING: &[u32] = &[
    601, 1204, 1205, 1222, 3960, 3961, 4221, 10928, 10929, 10053, 10054, 10060, 40143, 40197, 40501, 40540, 40613,
    42108, 42109, 49918, 49919, 49920,
];

fn kind(number: u32) -> ErrorKind {
    match number {
        1105 | 701 | 802 | 8645 | 9002 | 10928 | 10929 => ErrorKind::ResourceExhausted,
        number if PASSING.contains(&number) => ErrorKind::Unavailable,
        18452 | 18456 | 18470 | 18486 | 18487 | 18488 => ErrorKind::Unauthenticated,
        229 | 230 | 262 | 297 | 300 | 916 | 4060 | 40615 => ErrorKind::PermissionDenied,
        208 => ErrorKind::NotFound,
        // A column that is gone, a snapshot that is not allowed, changes that are not tracked.
        207 | 245 | 3952 | 8114 | 8115 | 8134 | 22105 | 22117 => ErrorKind::InvalidInput,
        _ => ErrorKind::InvalidInput,
    }
}

fn advice(number: u32) -> &'static str {
    match number {
        208 => "; the table is not there, or the login may not see it (`lakegate doctor` prints the grants it needs)",
        229 | 230 | 297 | 300 => "; `lakegate doctor` prints the grants lakegate needs",
        1205 => "; another session won a deadlock, as lakegate asks for: it tries again",
        1222 => "; somebody holds a lock on the table's definition: lakegate waits no longer, and tries again",
        3952 => {
            "; ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON allows it, or isolation = \"snapshot_or_read_committed\" in the connection"
        }
        4060 => "; check `database` in the connection, and that the login has a user in it",
        18456 => "; check user and password of the connection",
        22105 => "; ALTER TABLE … ENABLE CHANGE_TRACKING turns it on",
        22117 => {
            "; this is a readable secondary, which has no change tracking: name the primary or the listener as host"
        }
        40615 => "; the server's firewall does not let this machine in",
        _ => "",
    }
}

impl SqlServerError {
    /// A failure of the driver or the server while `doing` something.
    pub fn driver(doing: impl Into<String>, cause: DriverError) -> Self {
        let doing = doing.into();
        match cause {
            DriverError::Server(token) => {
                Self::Server { doing, number: token.code(), message: token.message().to_owned() }
            }
            DriverError::Io { kind, .. } => {
                let message = match kind {
                    std::io::ErrorKind::TimedOut => "the server did not answer in time".to_owned(),
                    std::io::ErrorKind::ConnectionRefused => "nobody listens at this address".to_owned(),
                    _ => "the connection was lost".to_owned(),
                };
                Self::Line { doing, message, kind: ErrorKind::Unavailable, cause: Some(cause) }
            }
            DriverError::Tls(_) => {
                let message = "the encrypted connection could not be made; name the server's authority as ca_file, or \
                               its certificate's name as certificate_host"
                    .to_owned();
                Self::Line { doing, message, kind: ErrorKind::Unauthenticated, cause: Some(cause) }
            }
            DriverError::Encoding(_) | DriverError::Utf8 | DriverError::Utf16 | DriverError::Conversion(_) => {
                let message = "the server sent text that cannot be read".to_owned();
                Self::Line { doing, message, kind: ErrorKind::InvalidInput, cause: Some(cause) }
            }
            cause => {
                let message = "the server's answer was not understood".to_owned();
                Self::Line { doing, message, kind: ErrorKind::Unavailable, cause: Some(cause) }
            }
        }
    }

    /// A failure of the way to the server that the driver has no error for.
    pub fn line(doing: impl Into<String>, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Line { doing: doing.into(), message: message.into(), kind, cause: None }
    }

    /// Whether the server refused the statement for good.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Server { .. }) && !self.kind().is_retryable()
    }

    /// Whether the server was silent for longer than it may be.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Line { cause: Some(DriverError::Io { kind: std::io::ErrorKind::TimedOut, .. }), .. })
    }

    /// The server's number of the error, where it came from the server.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Server { number, .. } => Some(*number),
            Self::Line { .. } => None,
        }
    }
}

impl Classify for SqlServerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Server { number, .. } => kind(*number),
            Self::Line { kind, .. } => *kind,
        }
    }
}

impl From<SqlServerError> for SourceError {
    fn from(error: SqlServerError) -> Self {
        let text = error.to_string();
        match error {
            SqlServerError::Line { kind, cause: Some(cause), .. } => Self::because(kind, text, cause),
            other => Self::new(other.kind(), text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_what_follows() {
        let error = |number| SqlServerError::Server { doing: "reading".into(), number, message: "no".into() };
        assert_eq!(error(1205).kind(), ErrorKind::Unavailable);
        assert_eq!(error(18456).kind(), ErrorKind::Unauthenticated);
        assert_eq!(error(229).kind(), ErrorKind::PermissionDenied);
        assert_eq!(error(10928).kind(), ErrorKind::ResourceExhausted);
        assert!(error(3952).to_string().contains("ALLOW_SNAPSHOT_ISOLATION"));
    }
}
