//! `lakegate query`: asks a running server and writes the rows as they arrive.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use futures::TryStreamExt;
use indicatif::MultiProgress;

use crate::cli::CliError;
use crate::cli::arguments::{Common, Format, Query};
use crate::cli::arrival::Arriving;
use crate::cli::login;
use crate::cli::output::{self, Destination};
use crate::cli::program::{self, Chatter};
use crate::cli::signals;
use crate::config::{LogFormat, LogSettings};
use crate::error::{Classify, ErrorKind};
use crate::flight::{ClientError, ClientOptions, FlightClient};

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
    program::runtime(2)?.block_on(async {
        let stop = signals::listen()?;
        let given_up = || CliError::Failed("given up".to_owned());
        let mut client = tokio::select! {
            client = FlightClient::connect(&arguments.server, &options) => client.map_err(tell)?,
            () = stop.requested() => return Err(given_up()),
        };
        let asked = tokio::select! {
            asked = ask(&mut client, &bars, arguments, &sql, (destination, format)) => asked,
            () = stop.requested() => Err(given_up()),
        };
        if asked.is_err() {
            // The server keeps a result for a while whose client is gone, unless it is told.
            let _ = tokio::time::timeout(GOODBYE, client.cancel()).await;
        }
        asked
    })
}

async fn ask(
    client: &mut FlightClient,
    bars: &MultiProgress,
    arguments: &Query,
    sql: &str,
    (destination, format): (Destination, Format),
) -> Result<(), CliError> {
    let file = arguments.output.as_deref();
    let arriving = Arriving::new(bars, file);
    client.watch(arriving.watcher());
    let (mut next, mut starts) = (Some(destination), 1);
    let rows = loop {
        let destination = match next.take() {
            Some(destination) => destination,
            None => Destination::open(file, format)?,
        };
        match read(client, arguments, sql, destination, &arriving).await {
            Ok(rows) => break rows,
            Err(Broken::Lost(error)) if starts < STARTS && is_read(sql) => {
                arriving.starts_over(&error.to_string());
                starts += 1;
            }
            Err(Broken::Lost(error)) => return Err(tell(error)),
            Err(Broken::Failed(error)) => return Err(error),
        }
    };
    drop(arriving);
    output::tell_rows(rows, file);
    Ok(())
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

/// Reads a result to its end; gives the number of rows.
async fn read(
    client: &mut FlightClient,
    arguments: &Query,
    sql: &str,
    destination: Destination,
    arriving: &Arriving,
) -> Result<u64, Broken> {
    let (schema, mut batches) = client.query(sql, &arguments.parameters).await.map_err(tell)?;
    let mut writer = destination.begin(&schema)?;
    let mut rows = 0;
    loop {
        match batches.try_next().await {
            Ok(Some(batch)) => {
                // Writing may wait for the disk or for who reads; nothing else runs in this program.
                writer.write(&batch)?;
                rows += batch.num_rows() as u64;
                arriving.rows(rows);
            }
            Ok(None) => return Ok(writer.finish()?),
            // A file is begun anew; what was printed is printed.
            Err(error) if error.kind() == ErrorKind::Conflict && (rows == 0 || arguments.output.is_some()) => {
                return Err(Broken::Lost(error));
            }
            Err(error) => return Err(tell(error).into()),
        }
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
