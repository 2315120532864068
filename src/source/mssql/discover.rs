//! What a server, a database and its tables are, from the catalogue.
//!
//! Every statement stands alone: a server that lacks a view, or a login that may not see one, costs what that view
//! would have told and nothing else.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tiberius::{ColumnData, Row};

use crate::error::ErrorKind;
use crate::source::mssql::column::{Computed, Generated, SourceColumn, SqlType};
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::session::Session;
use crate::source::mssql::statements::{self, SourceTable};

/// A database and the server it is on.
#[derive(Clone, Debug)]
pub struct Database {
    /// The database's name.
    pub name: String,
    /// The server's version, such as `16.0.1000.6`.
    pub version: String,
    /// The edition in words.
    pub edition: String,
    /// Its collation.
    pub collation: String,
    /// Whether it takes no changes here: a readable secondary.
    pub read_only: bool,
    /// Whether transactions may see one state of it.
    pub allows_snapshots: bool,
    /// Its life, which a restore or a new database changes: when it was made, and the identities of its broker, its
    /// recovery fork and itself. What the login may see of that.
    pub identity: [Option<String>; 4],
    /// Change Tracking, where it is on.
    pub tracking: Option<Tracking>,
    /// Whether the server tells which row versions are in use.
    pub tells_row_versions: bool,
    /// Whether the login is shown what is masked.
    pub sees_masked: bool,
}

/// Change Tracking of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// How long changes are kept.
    pub retention: Duration,
    /// Whether older ones are removed.
    pub cleans_up: bool,
}

/// A table or view of a database.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its two names.
    pub name: SourceTable,
    /// The server's number of it; a table that was made anew has another one.
    pub object_id: i32,
    /// Whether it is a view.
    pub is_view: bool,
    /// When it was made, in the server's words.
    pub created: String,
    /// When it was altered last, in the server's words.
    pub altered: String,
    /// Its columns in order.
    pub columns: Vec<SourceColumn>,
    /// Numbers of columns that have a default: old rows may have got it without being reported as changed.
    pub defaulted: HashSet<i32>,
    /// Names of the primary key's columns in its order; empty where there is none.
    pub key: Vec<String>,
    /// Numbers of the columns that an index begins with.
    pub indexed: HashSet<i32>,
    /// Whether its changes are tracked.
    pub is_tracked: bool,
    /// The version of the database when that was switched on.
    pub tracked_since: Option<i64>,
    /// Whether a security policy may hide rows of it.
    pub hides_rows: bool,
    /// Whether the login may read it.
    pub readable: bool,
    /// Whether the login may ask for its changes.
    pub changes_readable: bool,
    /// Rows, as the server estimates them.
    pub rows: Option<u64>,
    /// Bytes in use, where the login may see that.
    pub bytes: Option<u64>,
}

impl Table {
    /// The column of type `rowversion`, of which a table has one at most.
    pub fn row_version(&self) -> Option<&SourceColumn> {
        self.columns.iter().find(|column| column.sql_type == SqlType::RowVersion)
    }
}

/// How a tracked table stands, as far as it tells whether anything happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// The version of the newest commit in the database.
    pub newest: i64,
    /// The oldest version from which changes of the table can be asked for.
    pub oldest: i64,
    /// When the table was altered last, in the server's words.
    pub altered: String,
}

/// The server's number for: change tracking is not answered by a readable secondary.
const SECONDARY: u32 = 22117;

/// Tables by name.
pub type TableStates = HashMap<SourceTable, TableState>;

/// How the tracked tables stand; none where the server does not tell.
///
/// # Errors
/// What the line says, or a readable secondary: a table that is kept in step must not go back to what that has.
pub async fn states(session: &mut Session) -> Result<TableStates, SqlServerError> {
    const DOING: &str = "asking what happened";
    let rows = match session.all(statements::TABLE_STATES, DOING).await {
        Err(error) if error.number() != Some(SECONDARY) && error.is_refusal() => Vec::new(),
        rows => rows?,
    };
    let state = |row: &Row| {
        let state = TableState { newest: whole(row, 2)?, oldest: whole(row, 3)?, altered: text(row, 4)? };
        Some((SourceTable::new(text(row, 0)?, text(row, 1)?), state))
    };
    Ok(rows.iter().filter_map(state).collect())
}

/// Looks at the database a session is in.
///
/// # Errors
/// What the line says, or a server that tells nothing of itself.
pub async fn database(session: &mut Session) -> Result<Database, SqlServerError> {
    const DOING: &str = "looking at the database";
    let server = session.all(statements::SERVER, DOING).await?;
    let server = server.first().ok_or_else(|| SqlServerError::line(DOING, ErrorKind::Unsupported, "no answer"))?;
    let version = text(server, 0).unwrap_or_default();
    let about = optional(session, statements::DATABASE, DOING).await?;
    let about = about.first();
    let recovery = optional(session, statements::RECOVERY, DOING).await?;
    let tracking = optional(session, statements::CHANGE_TRACKING, DOING).await?;
    let unmask = if major(&version) >= statements::VERSION_2016 {
        optional(session, statements::UNMASK, DOING).await?
    } else {
        Vec::new()
    };
    let recovery = recovery.first();
    let row_versions = optional(session, statements::MIN_ACTIVE_ROWVERSION, DOING).await?;
    let told = |row: Option<&Row>, place| row.and_then(|row| text(row, place));
    Ok(Database {
        name: text(server, 3).unwrap_or_default(),
        edition: text(server, 2).unwrap_or_default(),
        collation: text(server, 5).unwrap_or_default(),
        read_only: text(server, 4).is_some_and(|state| state == "READ_ONLY"),
        allows_snapshots: about.and_then(|row| whole(row, 3)) == Some(1),
        identity: [told(about, 1), told(about, 5), told(recovery, 0), told(recovery, 1)],
        tracking: tracking.first().and_then(read_tracking),
        tells_row_versions: row_versions.first().and_then(|row| whole(row, 0)).is_some(),
        sees_masked: unmask.first().is_none_or(|row| whole(row, 0) == Some(1)),
        version,
    })
}

/// The first number of a version.
pub(super) fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn read_tracking(row: &Row) -> Option<Tracking> {
    let unit = match text(row, 2)?.as_str() {
        "MINUTES" => 60,
        "HOURS" => 3_600,
        _ => 86_400,
    };
    let count = u64::try_from(whole(row, 1)?).ok()?;
    Some(Tracking { retention: Duration::from_secs(count * unit), cleans_up: whole(row, 0) == Some(1) })
}

/// Tables and views: `wanted` alone, or all.
///
/// # Errors
/// What the line says; `NotFound` when a wanted table is not there or may not be seen.
pub async fn tables(
    session: &mut Session,
    database: &Database,
    wanted: Option<&SourceTable>,
) -> Result<Vec<Table>, SqlServerError> {
    const DOING: &str = "looking at the tables";
    let major = major(&database.version);
    let mut tables: Vec<Table> =
        session.all(&statements::tables(major), DOING).await?.iter().filter_map(table).collect();
    if let Some(wanted) = wanted {
        let all: Vec<String> = tables.iter().map(|table| table.name.to_string()).collect();
        tables.retain(|table| table.name == *wanted);
        if tables.is_empty() {
            return Err(missing(database, wanted, &all));
        }
    }
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    let objects: Vec<i32> =
        if wanted.is_some() { tables.iter().map(|table| table.object_id).collect() } else { Vec::new() };
    let mut places: HashMap<i32, usize> =
        tables.iter().enumerate().map(|(place, table)| (table.object_id, place)).collect();
    for row in session.all(&statements::columns(major, &objects), DOING).await? {
        let Some(place) = whole(&row, 0).and_then(|id| places.get(&i32::try_from(id).ok()?)) else { continue };
        let (column, defaulted) = column(&row, database.sees_masked);
        if defaulted {
            tables[*place].defaulted.insert(column.column_id);
        }
        tables[*place].columns.push(column);
    }
    for row in session.all(&statements::indexes(&objects), DOING).await? {
        let Some(place) = whole(&row, 0).and_then(|id| places.get(&i32::try_from(id).ok()?)) else { continue };
        if whole(&row, 6) == Some(1) {
            tables[*place].indexed.extend(whole(&row, 7).and_then(|id| i32::try_from(id).ok()));
        }
        if whole(&row, 4) == Some(1) {
            let id = whole(&row, 7);
            let table = &mut tables[*place];
            let name = table.columns.iter().find(|column| Some(i64::from(column.column_id)) == id);
            table.key.extend(name.map(|column| column.name.clone()));
        }
    }
    add_permissions(session, &mut tables).await?;
    add_numbers(session, major, &mut tables, &mut places).await?;
    Ok(tables)
}

fn missing(database: &Database, wanted: &SourceTable, all: &[String]) -> SqlServerError {
    let text = wanted.to_string();
    let near = all.iter().max_by(|a, b| strsim::jaro_winkler(a, &text).total_cmp(&strsim::jaro_winkler(b, &text)));
    let hint = near.map_or_else(
        || "the login sees no table at all: grant it SELECT".to_owned(),
        |near| format!("did you mean {near}? A table the login may not read is not shown either"),
    );
    let message = format!("database {} has no table {text}; {hint}", database.name);
    SqlServerError::line("looking for the table", ErrorKind::NotFound, message)
}

async fn add_permissions(session: &mut Session, tables: &mut [Table]) -> Result<(), SqlServerError> {
    const DOING: &str = "asking for permissions";
    /// Tables asked for in one statement: each is a line of it.
    const AT_ONCE: usize = 100;
    for tables in tables.chunks_mut(AT_ONCE) {
        let names: Vec<SourceTable> = tables.iter().map(|table| table.name.clone()).collect();
        for row in session.all(&statements::permissions(&names), DOING).await? {
            let Some(table) = whole(&row, 0).and_then(|place| tables.get_mut(usize::try_from(place).ok()?)) else {
                continue;
            };
            table.readable = whole(&row, 1) == Some(1);
            table.changes_readable = whole(&row, 2) == Some(1);
        }
    }
    Ok(())
}

async fn add_numbers(
    session: &mut Session,
    major: u32,
    tables: &mut [Table],
    places: &mut HashMap<i32, usize>,
) -> Result<(), SqlServerError> {
    const DOING: &str = "looking at the tables";
    let place = |row: &Row| whole(row, 0).and_then(|id| places.get(&i32::try_from(id).ok()?).copied());
    for row in optional(session, statements::TRACKED_TABLES, DOING).await? {
        if let Some(place) = place(&row) {
            tables[place].is_tracked = true;
            tables[place].tracked_since = whole(&row, 3);
        }
    }
    if major >= statements::VERSION_2016 {
        for row in optional(session, statements::SECURED_TABLES, DOING).await? {
            if let Some(place) = place(&row) {
                tables[place].hides_rows = true;
            }
        }
    }
    let sizes = optional(session, statements::SIZES, DOING).await?;
    let counts = if sizes.is_empty() { optional(session, statements::ROW_COUNTS, DOING).await? } else { sizes };
    for row in &counts {
        if let Some(place) = place(row) {
            tables[place].rows = whole(row, 1).and_then(|rows| u64::try_from(rows).ok());
            let pages = if row.len() > 2 { whole(row, 2) } else { None };
            tables[place].bytes = pages.and_then(|pages| u64::try_from(pages).ok()).map(|pages| pages * 8192);
        }
    }
    Ok(())
}

fn table(row: &Row) -> Option<Table> {
    Some(Table {
        object_id: i32::try_from(whole(row, 0)?).ok()?,
        name: SourceTable::new(text(row, 1)?, text(row, 2)?),
        is_view: whole(row, 3) == Some(1),
        created: text(row, 4).unwrap_or_default(),
        altered: text(row, 5).unwrap_or_default(),
        columns: Vec::new(),
        defaulted: HashSet::new(),
        key: Vec::new(),
        indexed: HashSet::new(),
        is_tracked: false,
        tracked_since: None,
        hides_rows: false,
        readable: false,
        changes_readable: false,
        rows: None,
        bytes: None,
    })
}

fn column(row: &Row, sees_masked: bool) -> (SourceColumn, bool) {
    let is = |place| whole(row, place) == Some(1);
    let small = |place| whole(row, place).and_then(|number| u8::try_from(number).ok()).unwrap_or(0);
    let length = whole(row, 5).and_then(|number| i16::try_from(number).ok()).unwrap_or(0);
    let column = SourceColumn {
        name: text(row, 2).unwrap_or_default(),
        column_id: whole(row, 1).and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        sql_type: SqlType::from_catalogue(&text(row, 3).unwrap_or_default(), is(4), length, small(6), small(7)),
        nullable: is(8),
        collation: text(row, 9),
        code_page: whole(row, 10).and_then(|number| i32::try_from(number).ok()),
        identity: is(11),
        computed: is(12).then_some(Computed { persisted: is(13) }),
        sparse: is(14),
        column_set: is(15),
        masked: is(16) && !sees_masked,
        hidden: is(17),
        generated: Generated::from_catalogue(small(18)),
        encrypted: whole(row, 19).is_some(),
    };
    (column, whole(row, 20).is_some_and(|default| default != 0))
}

/// Rows of a statement that the server may refuse; none then.
async fn optional(session: &mut Session, sql: &str, doing: &str) -> Result<Vec<Row>, SqlServerError> {
    match session.all(sql, doing).await {
        Err(error) if error.is_refusal() => {
            tracing::debug!(%error, "the server does not tell");
            Ok(Vec::new())
        }
        rows => rows,
    }
}

/// A cell as text.
pub(super) fn text(row: &Row, place: usize) -> Option<String> {
    match row.get_column_data(place).ok()? {
        ColumnData::String(Some(text)) => Some(text.to_string()),
        _ => None,
    }
}

/// A cell as a whole number, of whichever width.
pub(super) fn whole(row: &Row, place: usize) -> Option<i64> {
    match row.get_column_data(place).ok()? {
        ColumnData::U8(number) => number.map(i64::from),
        ColumnData::I16(number) => number.map(i64::from),
        ColumnData::I32(number) => number.map(i64::from),
        ColumnData::I64(number) => *number,
        ColumnData::Bit(bit) => bit.map(i64::from),
        _ => None,
    }
}
