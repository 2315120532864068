//! The command line: arguments, composition of the program, process concerns.

mod arguments;
mod arrival;
mod bars;
mod cache;
mod certificate;
mod check;
mod database;
mod error;
mod grants;
mod inspect;
mod login;
mod output;
mod passwords;
mod program;
mod queries;
mod query;
mod serve;
mod signals;
mod sync;
mod user;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::runtime::fault;

use arguments::{Arguments, Cert, Command, Grants};
use error::CliError;

/// Runs the program with the process's own arguments. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn run() -> ExitCode {
    let _faults = fault::setup();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors, and clap sends each to the right place.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.tell(),
    }
}

fn dispatch(arguments: Arguments) -> Result<(), CliError> {
    let common = &arguments.common;
    match arguments.command {
        Command::Check(check) => check::run(common, &check),
        Command::Query(query) => query::run(common, &query),
        Command::Cache(command) => cache::run(common, &command),
        Command::Queries(shown) => queries::queries(common, &shown),
        Command::Kill(kill) => queries::kill(common, &kill),
        Command::User(user) => user::run(common, &user),
        Command::Grants(Grants::Explain(explain)) => grants::explain(common, &explain),
        Command::Cert(Cert::Dev(dev)) => certificate::dev(&dev),
        Command::Serve(serve) => serve::run(common, &serve),
        Command::Sync(sync) => sync::run(common, &sync),
        Command::Verify(verify) => verify::run(common, &verify),
        Command::Tables(shown) => match &shown.connection {
            Some(connection) => database::tables(common, connection, &shown.shown),
            None => inspect::tables(common, &shown.shown),
        },
        Command::Add(add) => database::add(common, &add),
        Command::Doctor(doctor) => database::doctor(common, &doctor),
        Command::Loads(shown) => inspect::loads(common, &shown),
        Command::Rejects(shown) => inspect::rejects(common, &shown),
    }
}
