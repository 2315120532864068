//! `lakegate tables`, `loads` and `rejects`: reading the lake without a server, through `system.*`.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use indicatif::MultiProgress;

use crate::access::{Access, Principal};
use crate::cli::CliError;
use crate::cli::arguments::{Common, LoadsShown, RejectsShown, Shown};
use crate::cli::output::{self, Destination};
use crate::cli::program::{self, Chatter, Program};
use crate::config::Settings;
use crate::model::TableName;
use crate::query::{QueryEngine, Statement, StatementOptions, TablePins};

/// The rows of one table.
const OF_TABLE: &str = "where table_schema = $1 and table_name = $2";

pub(super) fn tables(common: &Common, shown: &Shown) -> Result<(), CliError> {
    let settings = settings(common)?;
    show(settings, shown, "select * from system.tables".to_owned(), Vec::new())
}

pub(super) fn loads(common: &Common, arguments: &LoadsShown) -> Result<(), CliError> {
    let settings = settings(common)?;
    let (filter, parameters) = match &arguments.table {
        Some(table) => {
            known(&settings, table)?;
            (OF_TABLE, names(table))
        }
        None => ("", Vec::new()),
    };
    let sql = format!("select * from system.loads {filter} order by started_at desc limit {}", arguments.limit);
    show(settings, &arguments.shown, sql, parameters)
}

pub(super) fn rejects(common: &Common, arguments: &RejectsShown) -> Result<(), CliError> {
    let settings = settings(common)?;
    known(&settings, &arguments.table)?;
    let sql = format!("select * from system.rejects {OF_TABLE} limit {}", arguments.limit);
    show(settings, &arguments.shown, sql, names(&arguments.table))
}

fn settings(common: &Common) -> Result<Arc<Settings>, CliError> {
    program::settings(common, Chatter::Quiet, &MultiProgress::new())
}

/// The values of [`OF_TABLE`].
fn names(table: &TableName) -> Vec<ScalarValue> {
    [table.schema(), table.table()].map(|part| ScalarValue::Utf8(Some(part.to_owned()))).to_vec()
}

fn known(settings: &Settings, table: &TableName) -> Result<(), CliError> {
    if settings.tables.contains_key(table) {
        return Ok(());
    }
    Err(CliError::Usage(format!("there is no table {table}; `lakegate tables` lists all")))
}

/// Runs a statement in this process and writes its rows.
fn show(settings: Arc<Settings>, shown: &Shown, sql: String, parameters: Vec<ScalarValue>) -> Result<(), CliError> {
    let destination = Destination::open(None, shown.format)?;
    let runtime = program::runtime(settings.limits.threads.get())?;
    let rows = runtime.block_on(async {
        let timeout = settings.limits.query_timeout;
        let engine = Program::open(settings).await?.engine()?;
        let access = Access::unrestricted(Principal::operator());
        let statement = Statement { sql, parameters, pins: TablePins::new(), options: StatementOptions::default() };
        let planned = engine.plan(statement, &access).await.map_err(|error| CliError::failed(&error))?;
        let mut batches = engine.execute(&planned, timeout).await.map_err(|error| CliError::failed(&error))?;
        let mut writer = destination.begin(&batches.schema())?;
        while let Some(batch) = batches.try_next().await.map_err(|error| CliError::failed(&error))? {
            writer.write(&batch)?;
        }
        writer.finish()
    })?;
    output::tell_rows(rows, None, "");
    Ok(())
}
