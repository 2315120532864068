//! Logs: lines for people on a terminal, plain lines elsewhere, JSON where it is asked for. All on the writer
//! that is passed in, which the command line makes one that steps aside for progress bars.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, LogSettings};
use crate::error::{Classify, ErrorKind};

/// How loud libraries are by default: their lines are ours to explain, and most are not meant for our users.
const LIBRARIES: &str = "warn,lakegate=";

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "the log filter `{filter}` cannot be read: {source}; write a level such as `info`, or `info,lakegate::lake=debug`"
    )]
    Filter {
        /// What was to be the filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs have been set up before in this process.
    #[error("logs have been set up before in this process: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

impl Classify for TelemetryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Filter { .. } => ErrorKind::InvalidInput,
            Self::Twice(_) => ErrorKind::Internal,
        }
    }
}

/// Sends the process's logs to `writer`, once in its life. `json` is the command line's flag and wins over the
/// settings; colours are used only when `is_terminal` says that `writer` ends at one.
///
/// # Errors
/// When the settings' filter cannot be read, or logs have been set up before.
pub fn init<W>(settings: &LogSettings, json: bool, is_terminal: bool, writer: W) -> Result<(), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let subscriber = subscriber(settings, json, is_terminal, writer)?;
    // Not `SubscriberInitExt::try_init`, which would also route the `log` crate, and then its own failure counts.
    tracing::subscriber::set_global_default(subscriber).map_err(|error| TelemetryError::Twice(error.into()))
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(settings: &LogSettings, json: bool, is_terminal: bool, writer: W) -> Result<Subscriber, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&settings.level)?).with_writer(writer);
    Ok(if json || settings.format == LogFormat::Json {
        Box::new(builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    } else if is_terminal {
        Box::new(builder.compact().with_target(false).with_ansi(true).finish())
    } else {
        Box::new(builder.with_ansi(false).finish())
    })
}

/// A plain level is lakegate's own, and libraries then only warn; anything more is taken as written.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let plain = !level.contains([',', '=', '[']);
    let quiet = level.eq_ignore_ascii_case("off") || level.eq_ignore_ascii_case("error");
    let directives = if plain && !quiet { format!("{LIBRARIES}{level}") } else { level.to_owned() };
    EnvFilter::builder().parse(directives).map_err(|source| TelemetryError::Filter { filter: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// Keeps what was written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, json: bool, is_terminal: bool) -> String {
        let kept = Kept::default();
        let settings = LogSettings { level: level.to_owned(), format };
        let writer = kept.clone();
        let subscriber = subscriber(&settings, json, is_terminal, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "lakegate::lake", table = "ops.orders", "a load began");
            tracing::debug!(target: "lakegate::lake", "a detail");
            tracing::info!(target: "hyper", "a library's own line");
            tracing::warn!(target: "hyper", "a library's warning");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_level_is_ours_and_libraries_only_warn() {
        let text = logged("info", LogFormat::Human, false, false);
        assert!(text.contains("a load began") && text.contains("a library's warning"), "{text}");
        assert!(!text.contains("a detail") && !text.contains("a library's own line"), "{text}");
        assert!(logged("off", LogFormat::Human, false, false).is_empty());
    }

    #[test]
    fn a_filter_is_taken_as_written() {
        let text = logged("error,lakegate::lake=debug,hyper=info", LogFormat::Human, false, false);
        assert!(text.contains("a detail") && text.contains("a library's own line"), "{text}");
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(logged("info", LogFormat::Human, false, true).contains('\u{1b}'));
        assert!(!logged("info", LogFormat::Human, false, false).contains('\u{1b}'));
    }

    #[test]
    fn the_flag_and_the_setting_both_give_one_json_object_a_line() {
        for (format, flag) in [(LogFormat::Json, false), (LogFormat::Human, true)] {
            let text = logged("info", format, flag, true);
            let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(
                (lines[0]["message"].as_str(), lines[0]["table"].as_str()),
                (Some("a load began"), Some("ops.orders"))
            );
            assert_eq!(lines[0]["level"].as_str(), Some("INFO"));
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = filter("lakegate=loud").unwrap_err();
        assert!(error.to_string().contains("lakegate=loud"), "{error}");
    }
}
