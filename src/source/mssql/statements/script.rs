//! The script that gives a login what it needs and nothing more, for a database administrator to read and run.

use std::fmt::Write;

use super::{SourceTable, quote, text_literal};

/// What a script is to provide. Nothing of it is run by this program.
#[derive(Clone, Debug, Default)]
pub struct Privileges {
    /// The database.
    pub database: String,
    /// The database user that reads.
    pub user: String,
    /// Tables whose changes are to be tracked, and read.
    pub tracked: Vec<SourceTable>,
    /// Tables that are only read.
    pub read: Vec<SourceTable>,
    /// Days for which changes are kept, if Change Tracking of the database has still to be switched on.
    pub retention_days: Option<u32>,
    /// Whether snapshot isolation has still to be allowed.
    pub allow_snapshot: bool,
    /// Tables of [`Self::tracked`] that are not tracked yet.
    pub untracked: Vec<SourceTable>,
    /// Whether to grant VIEW DATABASE STATE too: it lets a restore be noticed and sizes be estimated.
    pub state: bool,
}

/// The script, a statement a line.
pub fn privileges(wanted: &Privileges) -> String {
    let database = quote(&wanted.database);
    let user = quote(&wanted.user);
    let mut lines = vec![format!("USE {database};")];
    if let Some(days) = wanted.retention_days {
        lines.push(format!(
            "ALTER DATABASE {database} SET CHANGE_TRACKING = ON (CHANGE_RETENTION = {days} DAYS, AUTO_CLEANUP = ON);"
        ));
    }
    if wanted.allow_snapshot {
        lines.push(format!("ALTER DATABASE {database} SET ALLOW_SNAPSHOT_ISOLATION ON;"));
    }
    for table in &wanted.untracked {
        lines.push(format!("ALTER TABLE {table} ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);"));
    }
    for table in wanted.tracked.iter().chain(&wanted.read) {
        lines.push(format!("GRANT SELECT ON OBJECT::{table} TO {user};"));
    }
    for table in &wanted.tracked {
        lines.push(format!("GRANT VIEW CHANGE TRACKING ON OBJECT::{table} TO {user};"));
    }
    if wanted.state {
        lines.push(format!("GRANT VIEW DATABASE STATE TO {user};"));
    }
    let mut script = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(script, "-- What {} needs to read, and nothing more.", text_literal(&wanted.user));
    for line in lines {
        let _ = writeln!(script, "{line}");
    }
    script
}
