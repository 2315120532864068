//! What can go wrong with users, tokens and their files.

use std::path::PathBuf;

use crate::config::{InvalidName, Problems};
use crate::error::{Classify, ErrorKind};

/// What can go wrong with users, tokens and their files.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The system has no randomness to give.
    #[error("the system gives no random bytes: {0}")]
    NoRandomness(String),
    /// The password cannot be hashed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// The password is too long.
    #[error("the password is longer than {longest} bytes; take a shorter one")]
    PasswordTooLong {
        /// How long one may be.
        longest: usize,
    },
    /// The name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The file cannot be read for what stands in it.
    #[error("{0}")]
    Content(#[from] Problems),
    /// The file cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it did not work.
        source: std::io::Error,
    },
    /// The keys of the identity provider cannot be had.
    #[error("the keys of the identity provider cannot be had from {place}: {reason}")]
    Keys {
        /// Where they should be.
        place: String,
        /// Why not.
        reason: String,
    },
    /// There is no such user.
    #[error("there is no user `{0}`; `lakegate user list` lists all")]
    NoUser(String),
    /// There is such a user already.
    #[error("there is a user `{0}` already; `lakegate user passwd {0}` gives them another password")]
    UserExists(String),
    /// There is no such token.
    #[error("there is no token with the id `{0}`; `lakegate user token list` lists all")]
    NoToken(String),
}

impl Classify for AccessError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRandomness(_) | Self::Hash(_) => ErrorKind::Internal,
            Self::PasswordTooLong { .. } | Self::Name(_) | Self::Content(_) => ErrorKind::InvalidInput,
            Self::File { .. } | Self::Keys { .. } => ErrorKind::Unavailable,
            Self::NoUser(_) | Self::NoToken(_) => ErrorKind::NotFound,
            Self::UserExists(_) => ErrorKind::AlreadyExists,
        }
    }
}
