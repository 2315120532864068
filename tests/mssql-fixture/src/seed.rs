//! Fills a database from a folder: `tables.sql` first, then every `<schema>.<table>.csv`.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Database, SqlError};

/// Rows in one `INSERT`.
const ROWS_AT_ONCE: usize = 500;

/// Why a folder or a script could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file or folder.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is no CSV with a header.
    #[error("{file} is no CSV")]
    Csv {
        /// The file.
        file: PathBuf,
        /// Where and why.
        source: csv::Error,
    },
    /// The name of a CSV file is not `<schema>.<table>.csv`.
    #[error("{0} is not named <schema>.<table>.csv")]
    Name(PathBuf),
    /// The database refuses a statement.
    #[error("{file}: the database refuses")]
    Sql {
        /// The file that the statement came from.
        file: PathBuf,
        /// The database's error.
        source: SqlError,
    },
}

/// Runs a script; `GO` on a line of its own parts batches.
///
/// # Errors
/// When the file cannot be read or a statement fails.
pub fn run_script(database: &Database, file: &Path) -> Result<(), SeedError> {
    let script = std::fs::read_to_string(file).map_err(|source| SeedError::Read { file: file.into(), source })?;
    execute(database, &script, file)
}

/// Runs `tables.sql` of a folder and loads every `<schema>.<table>.csv` in it, in the order of their names.
///
/// The first line of a CSV file names columns of the table. A field is converted as SQL Server converts text to the
/// column's type; an empty field is NULL.
///
/// # Errors
/// When a file cannot be read, is no CSV, or the database refuses a row.
pub fn load_folder(database: &Database, folder: &Path) -> Result<(), SeedError> {
    run_script(database, &folder.join("tables.sql"))?;
    let read_error = |source| SeedError::Read { file: folder.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let file = entry.map_err(read_error)?.path();
        if file.extension().is_some_and(|extension| extension == "csv") {
            files.push(file);
        }
    }
    files.sort();
    files.iter().try_for_each(|file| load_csv(database, file))
}

fn load_csv(database: &Database, file: &Path) -> Result<(), SeedError> {
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let (schema, table) = name.split_once('.').ok_or_else(|| SeedError::Name(file.into()))?;
    let csv_error = |source| SeedError::Csv { file: file.into(), source };
    let mut reader = csv::Reader::from_path(file).map_err(csv_error)?;
    let columns: Vec<String> = reader.headers().map_err(csv_error)?.iter().map(quote_name).collect();
    let insert = format!("INSERT INTO {}.{} ({}) VALUES\n", quote_name(schema), quote_name(table), columns.join(", "));
    let mut rows = Vec::new();
    for record in reader.records() {
        let fields: Vec<String> = record.map_err(csv_error)?.iter().map(literal).collect();
        rows.push(format!("({})", fields.join(", ")));
        if rows.len() == ROWS_AT_ONCE {
            execute(database, &format!("{insert}{}", rows.join(",\n")), file)?;
            rows.clear();
        }
    }
    if rows.is_empty() { Ok(()) } else { execute(database, &format!("{insert}{}", rows.join(",\n")), file) }
}

fn execute(database: &Database, sql: &str, file: &Path) -> Result<(), SeedError> {
    database.execute(sql).map(drop).map_err(|source| SeedError::Sql { file: file.into(), source })
}

fn quote_name(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

fn literal(field: &str) -> String {
    if field.is_empty() { "NULL".to_owned() } else { format!("N'{}'", field.replace('\'', "''")) }
}
