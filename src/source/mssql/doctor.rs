//! Whether a database can be kept in step, what stands in the way, and what it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::TableSource;
use crate::config::{
    Isolation, Method, Schedule, SqlServerConnection, SqlServerLogin, SqlServerSource, TableDefinition,
};
use crate::error::chain_text;
use crate::source::SourceError;
use crate::source::mssql::connect::{Connections, Taken};
use crate::source::mssql::discover::{self, Database, Table};
use crate::source::mssql::method;
use crate::source::mssql::position::Way;
use crate::source::mssql::session::Session;
use crate::source::mssql::shape::Shape;
use crate::source::mssql::statements::{self, KeyRange, Privileges, SourceTable};

/// Rows read of a table to tell how long all of it would take.
const SAMPLE_ROWS: u64 = 5_000;
/// Days of changes a database should keep, where it keeps none yet: a long weekend and some.
const RETENTION_DAYS: u32 = 7;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warning,
    /// It does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub severity: Severity,
    /// What was found, and what to do.
    pub text: String,
}

/// What was found of one table.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The table on the server.
    pub source: String,
    /// The table in the lake, where it is defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lake_table: Option<String>,
    /// How it would be kept in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// Rows, as the server estimates them.
    pub rows: Option<u64>,
    /// Seconds a first load would take, by a sample.
    pub first_load_seconds: Option<u64>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The connection.
    pub connection: String,
    /// The server's version and edition.
    pub server: Option<String>,
    /// What was found of the server and the database.
    pub findings: Vec<Finding>,
    /// What was found of the tables.
    pub tables: Vec<TableReport>,
    /// What a database administrator can run so that lakegate can read what it should, and nothing more.
    pub script: Option<String>,
}

impl Report {
    /// Whether something does not work.
    pub fn has_errors(&self) -> bool {
        let tables = self.tables.iter().flat_map(|table| &table.findings);
        self.findings.iter().chain(tables).any(|finding| finding.severity == Severity::Error)
    }
}

fn ok(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Ok, text: text.into() }
}

fn warning(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, text: text.into() }
}

fn error(text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, text: text.into() }
}

/// Looks at a database and at the tables that are defined to come from it; at all where none is.
pub async fn examine(connection: &SqlServerConnection, definitions: &[&TableDefinition]) -> Report {
    let mut report = Report {
        connection: connection.name.clone(),
        server: None,
        findings: Vec::new(),
        tables: Vec::new(),
        script: None,
    };
    if let Err(cause) = look(connection, definitions, &mut report).await {
        report.findings.push(error(chain_text(&cause)));
    }
    report
}

async fn look(
    connection: &SqlServerConnection,
    definitions: &[&TableDefinition],
    report: &mut Report,
) -> Result<(), SourceError> {
    let mut session = Connections::default().take(connection).await?;
    let database = discover::database(&mut session).await?;
    report.server = Some(format!("SQL Server {}, {}", database.version, database.edition));
    report
        .findings
        .push(ok(format!("connected to database {} of {}:{}", database.name, connection.host, connection.port)));
    report.findings.extend(findings(connection, &database));
    let tables = discover::tables(&mut session, &database, None).await?;
    let wanted = wanted(connection, definitions, &tables);
    for (table, definition, source) in &wanted {
        let found = match table {
            Some(table) => examine_table(&mut session, &database, table, *definition, source).await,
            None => missing(source, *definition),
        };
        report.tables.push(found);
    }
    let present: Vec<&Table> = wanted.iter().filter_map(|(table, ..)| *table).collect();
    report.script = script(connection, &database, &present);
    Ok(())
}

type Wanted<'a> = (Option<&'a Table>, Option<&'a TableDefinition>, SqlServerSource);

/// The tables that are defined, or all that could be.
fn wanted<'a>(
    connection: &SqlServerConnection,
    definitions: &[&'a TableDefinition],
    tables: &'a [Table],
) -> Vec<Wanted<'a>> {
    let defined = definitions.iter().filter_map(|definition| match &definition.source {
        TableSource::SqlServer(source) => {
            let name = SourceTable::new(&source.schema, &source.table);
            let table = tables.iter().find(|table| table.name == name);
            Some((table, Some(*definition), SqlServerSource::clone(source)))
        }
        TableSource::Files(_) => None,
    });
    let defined: Vec<Wanted<'a>> = defined.collect();
    if !defined.is_empty() {
        return defined;
    }
    tables.iter().map(|table| (Some(table), None, any_source(connection, &table.name))).collect()
}

/// A source as a definition would make it that says no more than the table.
pub fn any_source(connection: &SqlServerConnection, table: &SourceTable) -> SqlServerSource {
    SqlServerSource {
        connection: connection.clone(),
        schema: table.schema.clone(),
        table: table.name.clone(),
        method: Method::Auto,
        columns: crate::config::ColumnChoices::default(),
    }
}

fn findings(connection: &SqlServerConnection, database: &Database) -> Vec<Finding> {
    let mut findings = Vec::new();
    let alter = format!("ALTER DATABASE {}", statements::quote(&database.name));
    findings.push(match (database.allows_snapshots, connection.isolation) {
        (true, _) => ok("snapshot isolation is allowed: reading blocks nobody"),
        (false, Isolation::Snapshot) => error(format!(
            "snapshot isolation is not allowed, so nothing is read; {alter} SET ALLOW_SNAPSHOT_ISOLATION ON allows it"
        )),
        (false, Isolation::SnapshotOrReadCommitted) => warning(format!(
            "snapshot isolation is not allowed: a change that is committed while it is read may be seen in part until \
             the next load; {alter} SET ALLOW_SNAPSHOT_ISOLATION ON allows it"
        )),
    });
    if database.read_only {
        findings.push(warning("this is a readable secondary: it has no change tracking, and every load reads all"));
    }
    findings.push(match database.tracking {
        None => warning(format!(
            "change tracking is off: tables without row versions are read whole by every load; {alter} SET CHANGE_TRACKING = ON \
             (CHANGE_RETENTION = {RETENTION_DAYS} DAYS, AUTO_CLEANUP = ON) turns it on"
        )),
        Some(tracking) if tracking.cleans_up => {
            ok(format!("changes are kept for {}", in_words(tracking.retention)))
        }
        Some(_) => warning("changes are kept for ever: AUTO_CLEANUP is off, and the database grows with each change"),
    });
    if database.identity[2].is_none() && database.identity[3].is_none() {
        findings.push(warning(
            "the login may not see the database's recovery fork: a restore that is overtaken by new changes would not \
             be noticed; GRANT VIEW DATABASE STATE lets it",
        ));
    }
    findings
}

fn missing(source: &SqlServerSource, definition: Option<&TableDefinition>) -> TableReport {
    TableReport {
        source: SourceTable::new(&source.schema, &source.table).to_string(),
        lake_table: definition.map(|definition| definition.name.to_string()),
        method: None,
        rows: None,
        first_load_seconds: None,
        findings: vec![error("there is no such table, or the login may not see it: grant it SELECT")],
    }
}

async fn examine_table(
    session: &mut Taken,
    database: &Database,
    table: &Table,
    definition: Option<&TableDefinition>,
    source: &SqlServerSource,
) -> TableReport {
    let mut report = TableReport {
        source: table.name.to_string(),
        lake_table: definition.map(|definition| definition.name.to_string()),
        method: None,
        rows: table.rows,
        first_load_seconds: None,
        findings: Vec::new(),
    };
    let way = match method::choose(database, table, source.method, None) {
        Ok(choice) => {
            report.method = Some(choice.way.as_str());
            let finding = if matches!(choice.way, Way::ChangeTracking | Way::RowVersion) { ok } else { warning };
            report.findings.push(finding(choice.because));
            choice.way
        }
        Err(cause) => {
            report.findings.push(error(cause.to_string()));
            return report;
        }
    };
    let shape = match Shape::of(database, table, source, way) {
        Ok(shape) => Arc::new(shape),
        Err(cause) => {
            report.findings.push(error(cause.to_string()));
            return report;
        }
    };
    report.findings.extend(shape.plans.iter().flat_map(|plan| plan.notes.iter().map(warning)));
    if way == Way::ChangeTracking {
        report.findings.extend(definition.and_then(|definition| punctual(database, definition)));
    }
    if way == Way::RowVersion {
        report.findings.extend(unindexed(table));
    }
    match sample(session, &shape).await {
        Ok(estimate) => report.first_load_seconds = estimate,
        Err(cause) => report.findings.push(error(chain_text(&cause))),
    }
    report
}

/// Whether the rows with new versions are found without reading all others.
fn unindexed(table: &Table) -> Option<Finding> {
    let column = table.row_version()?;
    (!table.indexed.contains(&column.column_id)).then(|| {
        warning(format!(
            "no index begins with `{}`, so the server reads the whole table to find what is new; an index on it makes \
             a load as small as what it finds",
            column.name
        ))
    })
}

/// A time as people write it: `7 days`, `1 hour 30 minutes`.
pub fn in_words(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut rest = time.as_secs();
    let mut words = Vec::new();
    for (seconds, unit) in UNITS {
        let count = rest / seconds;
        rest %= seconds;
        if count > 0 {
            words.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if words.is_empty() { "less than a second".to_owned() } else { words.join(" ") }
}

/// Whether the table is loaded often enough for the time changes are kept.
fn punctual(database: &Database, definition: &TableDefinition) -> Option<Finding> {
    let retention = database.tracking?.retention;
    match &definition.load.schedule {
        None => Some(warning(format!(
            "it has no schedule: unless it is loaded by hand at least every {}, changes are lost and it is read anew",
            in_words(retention)
        ))),
        Some(Schedule::Every(every)) if *every > retention / 2 => Some(error(format!(
            "it is loaded every {}, and changes are kept for {}: one load that fails may lose changes; keep them longer, \
             or load it more often",
            in_words(*every),
            in_words(retention)
        ))),
        Some(_) => None,
    }
}

/// About how many seconds a first load takes, by reading some rows.
async fn sample(session: &mut Session, shape: &Shape) -> Result<Option<u64>, SourceError> {
    let Some(rows) = shape.rows else { return Ok(None) };
    if shape.keys.is_empty() {
        return Ok(None);
    }
    let sql = statements::chunk(&shape.table, &shape.keys, &shape.plans, KeyRange::default(), SAMPLE_ROWS).map_err(
        |cause| SourceError::because(crate::error::ErrorKind::Internal, "a sample cannot be asked for", cause),
    )?;
    let started = Instant::now();
    let read = session.all(&sql, "reading a sample").await?.len() as u64;
    let took = started.elapsed().max(Duration::from_millis(1));
    let share = rows as f64 / read.max(1) as f64;
    Ok(Some((took.as_secs_f64() * share).ceil() as u64))
}

fn script(connection: &SqlServerConnection, database: &Database, tables: &[&Table]) -> Option<String> {
    let user = match &connection.login {
        SqlServerLogin::Password { user, .. } => user.clone(),
        SqlServerLogin::EntraToken(_) => "the user of the token".to_owned(),
    };
    let (tracked, read): (Vec<&Table>, Vec<&Table>) =
        tables.iter().copied().partition(|table| !table.is_view && !table.key.is_empty());
    let names = |tables: &[&Table]| tables.iter().map(|table| table.name.clone()).collect::<Vec<_>>();
    let untracked: Vec<&Table> = tracked.iter().copied().filter(|table| !table.is_tracked).collect();
    (!tables.is_empty()).then(|| {
        statements::privileges(&Privileges {
            database: database.name.clone(),
            user,
            tracked: names(&tracked),
            read: names(&read),
            retention_days: database.tracking.is_none().then_some(RETENTION_DAYS),
            allow_snapshot: !database.allows_snapshots,
            untracked: names(&untracked),
            state: database.identity[2].is_none(),
        })
    })
}
