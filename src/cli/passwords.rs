//! Asking for passwords without showing them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};

use crate::cli::CliError;

/// Longest line read, in bytes.
const LONGEST_LINE: u64 = 4096;

/// Asks on the terminal, whatever standard input and output are. What is typed does not show.
pub(super) fn ask(question: &str) -> Result<SecretString, CliError> {
    let no_terminal = |error: std::io::Error| {
        CliError::Usage(format!(
            "there is no terminal to ask for a password ({error}); use --password-stdin, or LAKEGATE_PASSWORD for queries"
        ))
    };
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    terminal.write_all(question.as_bytes()).map_err(no_terminal)?;
    let silence = Silence::begin(&terminal).map_err(no_terminal)?;
    let line = line(&mut BufReader::new(&terminal));
    drop(silence);
    // The line break that was typed did not show either.
    let _ = terminal.write_all(b"\n");
    line
}

/// Asks for a new password, twice.
pub(super) fn ask_new(user: &str) -> Result<SecretString, CliError> {
    let password = ask(&format!("New password of {user}: "))?;
    let again = ask("The same again: ")?;
    if password.expose_secret() != again.expose_secret() {
        return Err(CliError::Failed("the two passwords differ; nothing was changed".to_owned()));
    }
    Ok(password)
}

/// The first line of standard input.
pub(super) fn from_standard_input() -> Result<SecretString, CliError> {
    line(&mut std::io::stdin().lock())
}

fn line(from: &mut impl BufRead) -> Result<SecretString, CliError> {
    let mut line = String::new();
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot read the password: {error}"));
    from.take(LONGEST_LINE).read_line(&mut line).map_err(failed)?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(CliError::Usage("the password is empty".to_owned()));
    }
    Ok(password.into())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silence<'a> {
    fn begin(terminal: &'a File) -> std::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // There is nothing to be done about a terminal that went away.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
