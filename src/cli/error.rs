//! Why a command failed, and with which exit code that is told.

use std::process::ExitCode;

use crate::error::chain_text;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// What was written on the command line or in the configuration cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The command could not do what it should. The text is whole: what, where, what to do.
    #[error("{0}")]
    Failed(String),
    /// It failed and everything was told already.
    #[error("failed")]
    Told,
    /// The rows cannot be written.
    #[error("cannot write {to}: {source}")]
    Output {
        /// Where to.
        to: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl CliError {
    /// A failure with its causes.
    pub(super) fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain_text(error))
    }

    /// The same as a matter of what was written on the command line or in the configuration.
    pub(super) fn into_usage(self) -> Self {
        match self {
            Self::Failed(text) => Self::Usage(text),
            other => other,
        }
    }

    /// Standard output cannot be written.
    pub(super) fn stdout(source: std::io::Error) -> Self {
        Self::Output { to: "standard output".to_owned(), source }
    }

    /// Tells a person what is wrong and gives the exit code: 1 failed, 2 wrong usage or configuration. A reader
    /// that went away, as in `lakegate query … | head`, is no failure.
    pub(super) fn tell(&self) -> ExitCode {
        match self {
            Self::Output { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Usage(text) => {
                say(text);
                ExitCode::from(2)
            }
            Self::Told => ExitCode::FAILURE,
            Self::Failed(_) | Self::Output { .. } => {
                say(&self.to_string());
                ExitCode::FAILURE
            }
        }
    }
}

fn say(text: &str) {
    use std::io::Write;
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "lakegate: {text}");
}
