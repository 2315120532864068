//! `lakegate queries` and `lakegate kill`: what runs on a server, what ran, and stopping it.

use indicatif::MultiProgress;

use crate::cli::CliError;
use crate::cli::arguments::{Common, Kept, Kill, Queries, Query};
use crate::cli::program::{self, Chatter};
use crate::cli::{login, query};
use crate::config::{LogFormat, LogSettings};
use crate::flight::FlightClient;

/// What a person who looks for a statement wants to see of it.
const COLUMNS: &str = "query_id, principal, status, started_at, rows, sent_bytes, peak_memory, \
                       (queue_micros + plan_micros + run_micros + send_micros) / 1000 as millis, error_kind, text";

pub(super) fn queries(common: &Common, arguments: &Queries) -> Result<(), CliError> {
    let filter = if arguments.running { "where ended_at is null" } else { "" };
    let limit = arguments.limit;
    query::run(
        common,
        &Query {
            sql: format!("select {COLUMNS} from system.queries {filter} order by started_at desc limit {limit}"),
            server: arguments.server.clone(),
            format: Some(arguments.shown.format),
            output: None,
            parameters: Vec::new(),
            estimate: false,
            kept: Kept { no_cache: true, ..Kept::default() },
            headers: Vec::new(),
            login: arguments.login.clone(),
        },
    )
}

pub(super) fn kill(common: &Common, arguments: &Kill) -> Result<(), CliError> {
    let logs = LogSettings { level: "warn".to_owned(), format: LogFormat::Human };
    program::logs(common, Chatter::Quiet, &logs, &MultiProgress::new())?;
    program::runtime(2)?.block_on(async {
        let options = login::options(&arguments.login)?;
        let mut client = FlightClient::connect(&arguments.server, &options).await.map_err(query::tell)?;
        client.kill(arguments.query_id).await.map_err(query::tell)
    })
}
