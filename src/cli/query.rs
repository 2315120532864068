//! `lakegate query`: asks a running server and writes the rows as they arrive.

use std::io::{IsTerminal, Read};

use futures::TryStreamExt;
use indicatif::MultiProgress;

use crate::cli::CliError;
use crate::cli::arguments::{Common, Format, Query};
use crate::cli::login;
use crate::cli::output::{self, Destination};
use crate::cli::program::{self, Chatter};
use crate::cli::signals;
use crate::config::{LogFormat, LogSettings};
use crate::error::{Classify, ErrorKind};
use crate::flight::{ClientError, FlightClient};

pub(super) fn run(common: &Common, arguments: &Query) -> Result<(), CliError> {
    // A client needs no configuration: it may run where there is none.
    let logs = LogSettings { level: "warn".to_owned(), format: LogFormat::Human };
    program::logs(common, Chatter::Quiet, &logs, &MultiProgress::new())?;
    let sql = statement(&arguments.sql)?;
    let sql = if arguments.estimate { format!("explain estimate {sql}") } else { sql };
    let format = format(arguments)?;
    let destination = Destination::open(arguments.output.as_deref(), format)?;
    program::runtime(2)?.block_on(async {
        let stop = signals::listen()?;
        tokio::select! {
            asked = ask(arguments, &sql, destination) => asked,
            () = stop.requested() => Err(CliError::Failed("given up".to_owned())),
        }
    })
}

async fn ask(arguments: &Query, sql: &str, destination: Destination) -> Result<(), CliError> {
    let options = login::options(&arguments.login)?;
    let mut client = FlightClient::connect(&arguments.server, &options).await.map_err(tell)?;
    let (schema, mut batches) = client.query(sql, &arguments.parameters).await.map_err(tell)?;
    let mut writer = destination.begin(&schema)?;
    while let Some(batch) = batches.try_next().await.map_err(tell)? {
        // Writing may wait for the disk or for who reads; nothing else runs in this program.
        writer.write(&batch)?;
    }
    let rows = writer.finish()?;
    output::tell_rows(rows, arguments.output.as_deref());
    Ok(())
}

pub(super) fn tell(error: ClientError) -> CliError {
    match (&error, error.kind()) {
        (
            ClientError::Address(_)
            | ClientError::Authority(_)
            | ClientError::Credentials
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
