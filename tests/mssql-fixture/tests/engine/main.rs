//! The engine by itself, without the wire: each test makes a database of its own.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod changes;
mod faults;
mod queries;
mod rights;
mod shapes;
mod tables;
mod transactions;

use mssql_fixture::engine::{Collected, Database, DatabaseOptions, ResultSet, Session, SqlError};
use mssql_fixture::value::Value;

/// An empty database with Change Tracking and snapshots on.
fn database() -> Database {
    let database = Database::create(DatabaseOptions::default()).unwrap();
    database
        .execute(
            "ALTER DATABASE ops SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON);
             ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION ON;
             CREATE SCHEMA s",
        )
        .unwrap();
    database
}

/// What a session makes of a batch: everything it sent.
fn collect(session: &mut Session, batch: &str) -> Collected {
    let mut collected = Collected::default();
    session.run(batch, &[], &mut collected).unwrap();
    collected
}

/// The result sets of a batch that must succeed.
fn run(session: &mut Session, batch: &str) -> Vec<ResultSet> {
    let collected = collect(session, batch);
    assert_eq!(collected.errors, Vec::<SqlError>::new(), "{batch}");
    collected.sets
}

/// The number of the first error of a batch.
fn error(session: &mut Session, batch: &str) -> i32 {
    collect(session, batch).errors.first().map_or(0, |error| error.number)
}

/// A value as text, so that tests are easy to read.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bit(bit) => u8::from(*bit).to_string(),
        Value::Int(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Decimal { unscaled, scale } => format!("{unscaled}e-{scale}"),
        Value::Money(number) => format!("m{number}"),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => format!("{other:?}"),
    }
}

/// Rows as text: columns between blanks, one string per row.
fn rows(set: &ResultSet) -> Vec<String> {
    set.rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join(" ")).collect()
}

/// The rows of the first result set of a batch that must succeed.
fn query(session: &mut Session, batch: &str) -> Vec<String> {
    let sets = run(session, batch);
    sets.iter().find(|set| !set.columns.is_empty()).map(rows).unwrap_or_default()
}

/// The only value of a query.
fn one(session: &mut Session, batch: &str) -> String {
    query(session, batch).into_iter().next().unwrap_or_default()
}
