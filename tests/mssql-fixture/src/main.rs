//! The stand-in as a program: serves one database until it is told to end.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use mssql_fixture::engine::{Database, DatabaseOptions};
use mssql_fixture::{Encryption, Server, ServerOptions, seed};
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in for SQL Server: TDS 7.4 over SQLite, for tests and demos. Never a place for data that matters.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:1433")]
    listen: SocketAddr,
    /// Name of the database.
    #[arg(long, default_value = "ops")]
    database: String,
    /// Collation of the database.
    #[arg(long, default_value = mssql_fixture::collation::DEFAULT_COLLATION)]
    collation: String,
    /// Login of the administrator.
    #[arg(long, default_value = "sa")]
    user: String,
    /// Password of the administrator.
    #[arg(long)]
    password: String,
    /// What is encrypted.
    #[arg(long, value_enum, default_value = "login-only")]
    encrypt: Encrypt,
    /// Script to run at the start, `GO` between batches; may be given many times.
    #[arg(long, value_name = "FILE")]
    seed: Vec<PathBuf>,
    /// Folder with tables.sql and one <schema>.<table>.csv for each table to fill.
    #[arg(long, value_name = "FOLDER")]
    csv: Vec<PathBuf>,
    /// File to write the certificate to that clients can trust.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Send rows with NULLs as NBCROW.
    #[arg(long)]
    null_bitmaps: bool,
}

/// [`Encryption`] as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encrypt {
    /// Nothing; clients that insist go away.
    Off,
    /// The login, and all else if the client asks for it.
    LoginOnly,
    /// Everything.
    Required,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut chain = vec![error.to_string()];
            let mut source = error.source();
            while let Some(cause) = source {
                chain.push(cause.to_string());
                source = cause.source();
            }
            eprintln!("mssql-fixture: {}", chain.join(": "));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let database = Database::create(DatabaseOptions {
        name: arguments.database,
        collation: arguments.collation,
        ..DatabaseOptions::default()
    })?;
    for folder in &arguments.csv {
        seed::load_folder(&database, folder)?;
    }
    for script in &arguments.seed {
        seed::run_script(&database, script)?;
    }
    let options = ServerOptions {
        listen: arguments.listen,
        user: arguments.user,
        password: arguments.password,
        encryption: match arguments.encrypt {
            Encrypt::Off => Encryption::Off,
            Encrypt::LoginOnly => Encryption::LoginOnly,
            Encrypt::Required => Encryption::Required,
        },
        null_bitmaps: arguments.null_bitmaps,
        ..ServerOptions::default()
    };
    let server = Server::serve(database, options).await?;
    if let Some(file) = arguments.ca {
        std::fs::write(file, server.ca_pem())?;
    }
    writeln!(std::io::stdout(), "listening on {}", server.address())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}
