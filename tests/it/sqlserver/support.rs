//! A team with an operational database: the stand-in for SQL Server in this process, or a database of a server that was
//! named ([`Real`]).

use std::time::Duration;

use lakegate::etl::TableOutcome;
use lakegate::journal::LoadStatus;
use lakegate::model::Location;
use mssql_fixture::engine::{DatabaseOptions, Gate};
use mssql_fixture::value::Value;
use mssql_fixture::{Server, ServerOptions};

use super::real::Real;
use crate::support::team::Team;

/// A team and its database.
pub(crate) struct Operations {
    pub(crate) team: Team,
    /// The stand-in; nobody's where the test runs on a server that was named.
    pub(crate) server: Server,
    /// The database on a server that was named.
    pub(crate) real: Option<Real>,
}

/// Waits until a statement has come to a gate.
pub(crate) async fn reached(gate: Gate) -> Gate {
    let waiting = tokio::task::spawn_blocking(move || {
        assert!(gate.reached(Duration::from_secs(120)), "no statement came to the gate");
        gate
    });
    waiting.await.unwrap()
}

impl Operations {
    /// A database with change tracking and snapshots allowed.
    pub(crate) async fn start() -> Self {
        let mut operations = Self::bare().await;
        operations.real = Real::for_this_test().await;
        operations.configure("");
        operations.sql("ALTER DATABASE ops SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)");
        operations.sql("ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION ON");
        operations
    }

    /// A database as it is made.
    pub(crate) async fn bare() -> Self {
        Self::with(DatabaseOptions::default()).await
    }

    /// A database of a server of another kind.
    pub(crate) async fn with(options: DatabaseOptions) -> Self {
        let database = DatabaseOptions { name: "ops".to_owned(), ..options };
        let server = Server::start(ServerOptions { database, ..ServerOptions::default() }).await.unwrap();
        let operations = Self { team: Team::local(), server, real: None };
        operations.configure("");
        operations
    }

    /// Writes `lakegate.toml`, with lines of the test's own for the connection.
    pub(crate) fn configure(&self, more: &str) {
        let (user, password) = self.real.as_ref().map_or(("sa", "Stand-in-2022"), Real::login);
        self.configure_as(user, password, more);
    }

    /// The same for a login of the test's own.
    pub(crate) fn configure_as(&self, user: &str, password: &str, more: &str) {
        self.team.write("password", password);
        self.team.write("ca.pem", self.server.ca_pem());
        let stand_in = || {
            let port = self.server.address().port();
            format!("host = \"127.0.0.1\"\nport = {port}\ndatabase = \"ops\"\nca_file = \"ca.pem\"")
        };
        let place = self.real.as_ref().map_or_else(stand_in, Real::connection);
        self.team.configure(&format!(
            "[connections.ops]\ntype = \"sqlserver\"\n{place}\nuser = \"{user}\"\n\
             password = {{ file = \"password\" }}\n{more}\n"
        ));
    }

    /// Runs statements as the database's own people do.
    pub(crate) fn sql(&self, sql: &str) {
        if let Some(real) = &self.real {
            real.run(sql);
            return;
        }
        if let Err(error) = self.server.database().execute(sql) {
            panic!("{sql}: {error:?}");
        }
    }

    /// What a query gives on the server, sorted, columns joined by `|` as [`Self::rows`] does.
    pub(crate) fn there(&self, query: &str) -> Vec<String> {
        if let Some(real) = &self.real {
            let mut rows: Vec<String> = real.run(query).iter().map(|row| row.join("|")).collect();
            rows.sort();
            return rows;
        }
        let sets = self.server.database().execute(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
        let told = |value: &Value| match value {
            Value::Null => "∅".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Bit(bit) => bit.to_string(),
            Value::Text(text) => text.clone(),
            other => panic!("a test compares no {other:?}"),
        };
        let rows = sets.iter().flat_map(|set| &set.rows);
        let mut rows: Vec<String> = rows.map(|row| row.iter().map(told).collect::<Vec<_>>().join("|")).collect();
        rows.sort();
        rows
    }

    /// Makes a table of a number and a text, with so many rows.
    pub(crate) fn numbers(&self, name: &str, rows: i64) {
        self.table(name, "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL");
        self.add_numbers(name, 1, rows);
    }

    /// Adds rows with the numbers from one to another.
    pub(crate) fn add_numbers(&self, name: &str, from: i64, to: i64) {
        let ids: Vec<i64> = (from..=to).collect();
        for ids in ids.chunks(500) {
            let values: Vec<String> = ids.iter().map(|id| format!("({id}, N'v{id}')")).collect();
            self.sql(&format!("INSERT INTO dbo.{name} (id, v) VALUES {}", values.join(", ")));
        }
    }

    /// The lake's rows are those of the table.
    pub(crate) async fn same(&self, name: &str, select: &str) {
        let (here, there) = (self.rows(name).await, self.there(&format!("SELECT {select} FROM dbo.{name}")));
        if here != there {
            let only = |these: &[String], those: &[String]| -> Vec<String> {
                these.iter().filter(|row| those.binary_search(row).is_err()).take(5).cloned().collect()
            };
            panic!(
                "{} rows in the lake and {} in the table; only in the lake {:?}, only in the table {:?}",
                here.len(),
                there.len(),
                only(&here, &there),
                only(&there, &here)
            );
        }
    }

    /// The statements that read chunks, since the log was emptied last.
    pub(crate) fn chunks(&self) -> Vec<String> {
        let seen = self.server.database().faults().statements();
        seen.into_iter().map(|statement| statement.text).filter(|text| text.contains("SELECT TOP (")).collect()
    }

    /// The statements that read the keys of all rows, since the log was emptied last.
    pub(crate) fn key_readings(&self) -> usize {
        let seen = self.server.database().faults().statements();
        seen.iter().filter(|seen| seen.text.starts_with("SELECT T.[id] FROM [dbo].[t] AS T OPTION")).count()
    }

    /// The program with faults, each a point and what it does; small pieces and small chunks come along.
    pub(crate) fn program(&self, faults: &[(&str, &str)]) -> std::process::Command {
        let mut command = self.team.command(&["sync"]);
        let small = [("etl.whole.every", "return(error)"), ("source.chunk.small", "return(error)")];
        let all: Vec<String> = small.iter().chain(faults).map(|(point, what)| format!("{point}={what}")).collect();
        command.env("FAILPOINTS", all.join(";"));
        command
    }

    /// Makes a table whose changes are tracked, and defines it in the lake under the same name.
    pub(crate) fn table(&self, name: &str, columns: &str) {
        self.sql(&format!("CREATE TABLE dbo.{name} ({columns})"));
        self.sql(&format!("ALTER TABLE dbo.{name} ENABLE CHANGE_TRACKING"));
        self.define(name, "");
    }

    /// Makes a table of a number and a text that is kept in step by a method, and has what that needs and no more. Rows
    /// are put in by the names of their columns.
    pub(crate) fn kept_by(&self, method: &str, name: &str, rows: i64) {
        let columns = "id int NOT NULL PRIMARY KEY, v nvarchar(40) NULL";
        let more = if method == "rowversion" { ", rv rowversion" } else { "" };
        self.sql(&format!("CREATE TABLE dbo.{name} ({columns}{more})"));
        if method == "change_tracking" {
            self.sql(&format!("ALTER TABLE dbo.{name} ENABLE CHANGE_TRACKING"));
        }
        let left_out = if method == "rowversion" { "leave_out = [\"rv\"]" } else { "" };
        self.define(name, &format!("method = \"{method}\"\n{left_out}"));
        self.add_numbers(name, 1, rows);
    }

    /// Defines a table in the lake, with lines of the test's own for its source.
    pub(crate) fn define(&self, name: &str, more: &str) {
        let definition = format!("[source]\nconnection = \"ops\"\ntable = \"dbo.{name}\"\n{more}\n");
        self.team.define(&format!("ops.{name}"), &definition);
    }

    /// Loads the only table, which must not succeed, and gives the message.
    pub(crate) async fn refused(&self) -> String {
        self.sync(LoadStatus::Failed).await.record.error.unwrap_or_default()
    }

    /// Loads the only table and makes sure that so many rows were read for it: all, or those that changed.
    pub(crate) async fn reads(&self, rows: u64) {
        let outcome = self.sync(LoadStatus::Committed).await;
        assert_eq!(outcome.record.rows_read, rows, "{outcome:?}");
    }

    /// The version of Change Tracking that the lake is at.
    pub(crate) fn version(outcome: &TableOutcome) -> i64 {
        outcome.record.position.as_ref().unwrap()["version"].as_i64().unwrap()
    }

    /// Loads the only table and makes sure how that ended.
    pub(crate) async fn sync(&self, status: LoadStatus) -> TableOutcome {
        let outcome = self.team.sync_one().await;
        assert_eq!(outcome.record.status, status, "{outcome:?}");
        outcome
    }

    /// How many data files were ever written for a table of the lake.
    pub(crate) fn data_files(&self, name: &str) -> usize {
        let Location::Local(lake) = self.team.settings().lake.location.clone() else { panic!("the lake is a folder") };
        let mut folders = vec![lake.join("ops").join(name)];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                files += usize::from(path.extension().is_some_and(|ending| ending == "parquet"));
                folders.extend(path.is_dir().then_some(path));
            }
        }
        files
    }

    /// The rows of a table of the lake, sorted, columns joined by `|`.
    pub(crate) async fn rows(&self, name: &str) -> Vec<String> {
        self.team.rows(&format!("ops.{name}")).await
    }
}
