//! `lakegate query`: asks a running server and writes the rows as they arrive.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress};

use crate::cli::CliError;
use crate::cli::arguments::{Common, Format, Query};
use crate::cli::arrival::Arriving;
use crate::cli::cache;
use crate::cli::login;
use crate::cli::output::{self, Destination};
use crate::cli::program::{self, Chatter};
use crate::cli::signals;
use crate::config::{LogFormat, LogSettings};
use crate::error::{Classify, ErrorKind};
use crate::flight::{Answer, ClientError, ClientOptions, FlightClient, Moved, Question};

/// How long a server that is told to stop a statement may take to answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// How often a download starts over.
const STARTS: u32 = 3;
/// Words that statements begin with which can be run again: they change nothing.
const READS: [&str; 8] = ["select", "with", "values", "from", "table", "show", "describe", "explain"];

pub(super) fn run(common: &Common, arguments: &Query) -> Result<(), CliError> {
    // A client needs no configuration: it may run where there is none.
    let logs = LogSettings { level: "warn".to_owned(), format: LogFormat::Human };
    let bars = MultiProgress::new();
    program::logs(common, Chatter::Quiet, &logs, &bars)?;
    let sql = statement(&arguments.sql)?;
    let sql = if arguments.estimate { format!("explain estimate {sql}") } else { sql };
    let format = format(arguments)?;
    let destination = Destination::open(arguments.output.as_deref(), format)?;
    let options = ClientOptions { headers: arguments.headers.clone(), ..login::options(&arguments.login)? };
    let cache = cache::open(&arguments.kept, &arguments.server, &options);
    let (parameters, fresh) = (arguments.parameters.as_slice(), arguments.kept.fresh);
    let question = Question { sql: &sql, parameters, cache: cache.as_ref(), fresh };
    let asking = Asking { question, arguments, format, options: &options };
    program::runtime(2)?.block_on(async {
        let stop = signals::listen()?;
        let mut client = None;
        let done = tokio::select! {
            done = asking.run(&mut client, &bars, destination) => done,
            () = stop.requested() => Err(CliError::Failed("given up".to_owned())),
        };
        if let (Err(_), Some(client)) = (&done, &mut client) {
            // The server keeps a result for a while whose client is gone, unless it is told.
            let _ = tokio::time::timeout(GOODBYE, client.cancel()).await;
        }
        done
    })
}

/// A question, and what becomes of its answer.
struct Asking<'a> {
    question: Question<'a>,
    arguments: &'a Query,
    format: Format,
    options: &'a ClientOptions,
}

/// Rows that were written.
struct Written {
    rows: u64,
    /// Those of them that came from the server.
    sent: u64,
    moved: Moved,
}

/// Why a result did not come to its end.
enum Broken {
    /// Only the whole can be had again, and nothing of it was handed on.
    Lost(ClientError),
    /// For good.
    Failed(CliError),
}

impl From<CliError> for Broken {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

impl Asking<'_> {
    /// Asks until the result is written, and tells how much that was.
    async fn run(
        &self,
        client: &mut Option<FlightClient>,
        bars: &MultiProgress,
        destination: Destination,
    ) -> Result<(), CliError> {
        let file = self.arguments.output.as_deref();
        let arriving = Arriving::new(bars, file);
        let recent = match self.arguments.kept.max_staleness {
            Some(max_staleness) => self.question.recent(max_staleness).await,
            None => None,
        };
        let (rows, more) = match recent {
            Some(answer) => {
                let written = self.write(answer, destination, &arriving).await.map_err(finally)?;
                (written.rows, ", kept on this disk: the server was not asked".to_owned())
            }
            None => {
                let connected = FlightClient::connect(&self.arguments.server, self.options).await.map_err(tell)?;
                let client = client.insert(connected);
                client.watch(arriving.watcher());
                let Written { rows, sent, moved } = self.ask(client, destination, &arriving).await?;
                let more = match moved {
                    Moved::Nothing => ", unchanged: none had to be sent".to_owned(),
                    Moved::NewRows => format!(", of which {} new had to be sent", HumanCount(sent)),
                    Moved::Whole => String::new(),
                };
                (rows, more)
            }
        };
        drop(arriving);
        output::tell_rows(rows, file, &more);
        Ok(())
    }

    /// Asks the server, again where the result was lost on its way and may be had again.
    async fn ask(
        &self,
        client: &mut FlightClient,
        destination: Destination,
        arriving: &Arriving,
    ) -> Result<Written, CliError> {
        let (mut next, mut starts) = (Some(destination), 1);
        loop {
            let destination = match next.take() {
                Some(destination) => destination,
                None => Destination::open(self.arguments.output.as_deref(), self.format)?,
            };
            let answer = self.question.ask(client).await.map_err(tell)?;
            match self.write(answer, destination, arriving).await {
                Ok(written) => return Ok(written),
                Err(Broken::Lost(error)) if starts < STARTS && is_read(self.question.sql) => {
                    arriving.starts_over(&error.to_string());
                    starts += 1;
                }
                Err(broken) => return Err(finally(broken)),
            }
        }
    }

    /// Writes a result to its end.
    async fn write(
        &self,
        mut answer: Answer<'_>,
        destination: Destination,
        arriving: &Arriving,
    ) -> Result<Written, Broken> {
        // Nothing is printed before there is something to print: what is begun twice would have two headers.
        let mut next = match answer.next_batch().await {
            Err(error) if error.kind() == ErrorKind::Conflict => return Err(Broken::Lost(error)),
            Err(error) => return Err(tell(error).into()),
            next => next,
        };
        let mut writer = destination.begin(answer.schema())?;
        let mut written = Written { rows: 0, sent: 0, moved: answer.moved() };
        loop {
            match next {
                Ok(Some((batch, was_sent))) => {
                    // Writing may wait for the disk or for who reads; nothing else runs in this program.
                    writer.write(&batch)?;
                    let rows = batch.num_rows() as u64;
                    written.rows += rows;
                    written.sent += if was_sent { rows } else { 0 };
                    arriving.rows(written.rows);
                }
                Ok(None) => {
                    writer.finish()?;
                    return Ok(written);
                }
                // A file is begun anew; what was printed is printed.
                Err(error) if error.kind() == ErrorKind::Conflict && self.arguments.output.is_some() => {
                    return Err(Broken::Lost(error));
                }
                Err(error) => return Err(tell(error).into()),
            }
            next = answer.next_batch().await;
        }
    }
}

/// What there is to tell when nothing more is tried.
fn finally(broken: Broken) -> CliError {
    match broken {
        Broken::Lost(error) => tell(error),
        Broken::Failed(error) => error,
    }
}

/// Whether a statement surely changes nothing.
fn is_read(sql: &str) -> bool {
    let first = sql.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '(');
    let word = first.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    READS.iter().any(|read| word.eq_ignore_ascii_case(read))
}

pub(super) fn tell(error: ClientError) -> CliError {
    match (&error, error.kind()) {
        (
            ClientError::Address(_)
            | ClientError::Authority(_)
            | ClientError::Credentials
            | ClientError::Header(_)
            | ClientError::Parameter(_)
            | ClientError::Plaintext(_),
            _,
        ) => CliError::failed(&error).into_usage(),
        (ClientError::Unreachable { .. } | ClientError::Untrusted { .. }, _) => CliError::failed(&error),
        (ClientError::Status(_), ErrorKind::Unavailable) => {
            CliError::Failed(format!("the server went away or does not take statements now: {error}"))
        }
        _ => CliError::failed(&error),
    }
}

/// The statement itself, or read from where `@FILE` or `-` say.
fn statement(argument: &str) -> Result<String, CliError> {
    if argument == "-" {
        let mut sql = String::new();
        let read = std::io::stdin().read_to_string(&mut sql);
        return read.map(|_| sql).map_err(|error| CliError::Failed(format!("cannot read standard input: {error}")));
    }
    match argument.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| CliError::Usage(format!("cannot read the statement from {file}: {error}"))),
        None => Ok(argument.to_owned()),
    }
}

fn format(arguments: &Query) -> Result<Format, CliError> {
    let ending = arguments.output.as_deref().and_then(|file| file.extension()?.to_str());
    let format = arguments.format.unwrap_or(match ending {
        Some("csv") => Format::Csv,
        Some("json") => Format::Json,
        Some("ndjson" | "jsonl") => Format::Ndjson,
        Some("arrow" | "feather" | "ipc") => Format::Arrow,
        Some("parquet") => Format::Parquet,
        _ => Format::Table,
    });
    let binary = matches!(format, Format::Arrow | Format::Parquet);
    if binary && arguments.output.is_none() && std::io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "this format is no text; write it into a file with -o FILE, or pipe it".to_owned(),
        ));
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_changes_nothing_is_run_again() {
        for (sql, read) in [
            ("select 1", true),
            (" ( SELECT 1 )", true),
            ("values(1)", true),
            ("insert into t select 1", false),
            ("-- a note\nselect 1", false),
            ("", false),
        ] {
            assert_eq!(is_read(sql), read, "{sql}");
        }
    }
}
