//! `lakegate doctor`, `lakegate add` and `lakegate tables --connection`: looking at the databases tables come from.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use indicatif::MultiProgress;

use crate::cli::CliError;
use crate::cli::arguments::{Add, Common, Doctor, Format, Shown};
use crate::cli::output::{self, Destination};
use crate::cli::program::{self, Chatter};
use crate::config::{Connection, Settings, SqlServerConnection, TableDefinition, TableSource, source_table_name};
use crate::model::TableName;
use crate::source::SourceError;
use crate::source::mssql::connect::Connections;
use crate::source::mssql::discover;
use crate::source::mssql::doctor::{self, Finding, Report, Severity};
use crate::source::mssql::method::{self, Choice};
use crate::source::mssql::statements::SourceTable;

/// Looks at one database, or at all that are configured.
pub(super) fn doctor(common: &Common, arguments: &Doctor) -> Result<(), CliError> {
    let settings = settings(common)?;
    let connections = match &arguments.connection {
        Some(name) => vec![named(&settings, name)?],
        None => settings.connections.values().filter_map(sql_server).collect(),
    };
    if connections.is_empty() {
        return Err(CliError::Usage(
            "no connection to a database is configured; docs/sqlserver.md shows one".to_owned(),
        ));
    }
    let runtime = program::runtime(settings.limits.threads.get())?;
    let mut reports = Vec::new();
    for connection in connections {
        let definitions: Vec<&TableDefinition> =
            settings.tables.values().filter(|definition| comes_from(definition, &connection.name)).collect();
        reports.push(runtime.block_on(doctor::examine(connection, &definitions)));
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let text = serde_json::to_string_pretty(&reports).map_err(|error| CliError::failed(&error))?;
        writeln!(out, "{text}").map_err(CliError::stdout)?;
    } else {
        for report in &reports {
            write(&mut out, report).map_err(CliError::stdout)?;
        }
    }
    if reports.iter().any(Report::has_errors) { Err(CliError::Told) } else { Ok(()) }
}

fn write(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(out, "{}{}", report.connection, report.server.as_ref().map_or(String::new(), |is| format!(": {is}")))?;
    for finding in &report.findings {
        write_finding(out, "  ", finding)?;
    }
    for table in &report.tables {
        let lake = table.lake_table.as_ref().map_or(String::new(), |name| format!(" → {name}"));
        let way = table.method.map_or(String::new(), |method| format!(", by {method}"));
        let rows = table.rows.map_or(String::new(), |rows| format!(", about {rows} rows"));
        let time = table.first_load_seconds.map_or(String::new(), |seconds| {
            let time = doctor::in_words(std::time::Duration::from_secs(seconds.max(1)));
            format!(", first load about {time}")
        });
        writeln!(out, "  {}{lake}{way}{rows}{time}", table.source)?;
        for finding in &table.findings {
            write_finding(out, "    ", finding)?;
        }
    }
    match &report.script {
        Some(script) => writeln!(out, "\nWhat the login needs, for the database administrator:\n\n{script}"),
        None => Ok(()),
    }
}

fn write_finding(out: &mut impl Write, indent: &str, finding: &Finding) -> std::io::Result<()> {
    let mark = match finding.severity {
        Severity::Ok => "ok     ",
        Severity::Warning => "warning",
        Severity::Error => "ERROR  ",
    };
    writeln!(out, "{indent}{mark}  {}", finding.text)
}

/// Lists what a database has.
pub(super) fn tables(common: &Common, connection: &str, shown: &Shown) -> Result<(), CliError> {
    let settings = settings(common)?;
    let connection = named(&settings, connection)?;
    let destination = Destination::open(None, shown.format)?;
    let runtime = program::runtime(settings.limits.threads.get())?;
    let (database, tables) = runtime.block_on(async {
        let mut session = Connections::default().take(connection).await.map_err(|error| failed(error.into()))?;
        let database = discover::database(&mut session).await.map_err(|error| failed(error.into()))?;
        let tables = discover::tables(&mut session, &database, None).await.map_err(|error| failed(error.into()))?;
        Ok::<_, CliError>((database, tables))
    })?;
    let choices: Vec<_> = tables
        .iter()
        .map(|table| method::choose(&database, table, doctor::any_source(connection, &table.name).method, None))
        .collect();
    let texts = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..tables.len()).map(of)))
    };
    let rows: ArrayRef = Arc::new(tables.iter().map(|table| table.rows).collect::<UInt64Array>());
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("schema", texts(&|at| tables[at].name.schema.clone()), false),
        ("name", texts(&|at| tables[at].name.name.clone()), false),
        ("kind", texts(&|at| if tables[at].is_view { "view" } else { "table" }.to_owned()), false),
        ("rows", rows, true),
        ("key", texts(&|at| tables[at].key.join(", ")), false),
        ("method", texts(&|at| choices[at].as_ref().map_or("none", |choice| choice.way.as_str()).to_owned()), false),
        ("because", texts(&|at| because(&choices[at])), false),
    ])
    .map_err(|error| CliError::failed(&error))?;
    // Sentences make lines that no terminal shows well: for people they stand below, each once.
    let for_people = shown.format == Format::Table;
    let last = batch.num_columns() - 1;
    let columns: Vec<usize> = (0..if for_people { last } else { last + 1 }).collect();
    let batch = batch.project(&columns).map_err(|error| CliError::failed(&error))?;
    let mut writer = destination.begin(&batch.schema())?;
    writer.write(&batch)?;
    output::tell_rows(writer.finish()?, None, "");
    if for_people {
        let named = tables.iter().zip(&choices).map(|(table, choice)| (table.name.to_string(), because(choice)));
        write_reasons(&mut std::io::stdout().lock(), named).map_err(CliError::stdout)?;
    }
    Ok(())
}

fn because(choice: &Result<Choice, SourceError>) -> String {
    match choice {
        Ok(choice) => choice.because.clone(),
        Err(error) => error.to_string(),
    }
}

/// Each reason once, in the order they come, with the tables it holds for.
fn write_reasons(out: &mut impl Write, reasons: impl Iterator<Item = (String, String)>) -> std::io::Result<()> {
    let mut gathered: Vec<(String, Vec<String>)> = Vec::new();
    for (table, reason) in reasons {
        match gathered.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, tables)) => tables.push(table),
            None => gathered.push((reason, vec![table])),
        }
    }
    for (reason, tables) in gathered {
        writeln!(out, "\n{}:\n  {reason}", tables.join(", "))?;
    }
    Ok(())
}

/// Writes a definition.
pub(super) fn add(common: &Common, arguments: &Add) -> Result<(), CliError> {
    let settings = settings(common)?;
    let connection = named(&settings, &arguments.connection)?;
    let (schema, name) = source_table_name(&arguments.table)
        .map_err(|reason| CliError::Usage(format!("`{}` names no table: {reason}", arguments.table)))?;
    let source = SourceTable::new(schema, name);
    let lake_name = match &arguments.name {
        Some(name) => name.clone(),
        None => own_name(&connection.name, &source)?,
    };
    let file = settings.folder.join("tables").join(lake_name.schema()).join(format!("{}.toml", lake_name.table()));
    let runtime = program::runtime(settings.limits.threads.get())?;
    let choice = runtime.block_on(async {
        let mut session = Connections::default().take(connection).await?;
        let database = discover::database(&mut session).await?;
        let tables = discover::tables(&mut session, &database, Some(&source)).await?;
        let wanted = doctor::any_source(connection, &source).method;
        tables.first().map(|table| method::choose(&database, table, wanted, None)).transpose()
    });
    let choice = choice.map_err(failed)?;
    let text = format!(
        "[source]\nconnection = {:?}\ntable      = {:?}\n\n[load]\nevery = {:?}\n",
        connection.name,
        source.to_string(),
        arguments.every
    );
    let folder = file.parent().unwrap_or(&settings.folder);
    let output = |source| CliError::Output { to: file.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(output)?;
    let created = std::fs::File::options().write(true).create_new(true).open(&file);
    match created {
        Ok(mut created) => created.write_all(text.as_bytes()).map_err(output)?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = format!("{} is there already; remove it, or choose another name with --as", file.display());
            return Err(CliError::Usage(text));
        }
        Err(error) => return Err(output(error)),
    }
    let because = choice.map_or(String::new(), |choice| format!("; by {}: {}", choice.way.as_str(), choice.because));
    writeln!(std::io::stdout(), "{} defines {lake_name}{because}\n`lakegate sync {lake_name}` loads it", file.display())
        .map_err(CliError::stdout)
}

/// The connection's and the table's own name, where that can be one of the lake.
fn own_name(connection: &str, source: &SourceTable) -> Result<TableName, CliError> {
    TableName::new(&connection.to_lowercase(), &source.name.to_lowercase()).map_err(|error| {
        CliError::Usage(format!("{error}; name the table in the lake yourself, as in `--as {}.orders`", "sales"))
    })
}

fn settings(common: &Common) -> Result<Arc<Settings>, CliError> {
    program::settings(common, Chatter::Quiet, &MultiProgress::new())
}

fn sql_server(connection: &Connection) -> Option<&SqlServerConnection> {
    match connection {
        Connection::SqlServer(connection) => Some(connection),
        Connection::S3(_) => None,
    }
}

fn named<'a>(settings: &'a Settings, name: &str) -> Result<&'a SqlServerConnection, CliError> {
    let found = settings.connections.get(name).and_then(sql_server);
    found.ok_or_else(|| {
        let known: Vec<_> =
            settings.connections.values().filter_map(sql_server).map(|known| known.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        CliError::Usage(format!("there is no connection `{name}` to a database in lakegate.toml (there: {known})"))
    })
}

fn comes_from(definition: &TableDefinition, connection: &str) -> bool {
    matches!(&definition.source, TableSource::SqlServer(source) if source.connection.name == connection)
}

fn failed(error: SourceError) -> CliError {
    CliError::failed(&error)
}
