//! What can be written on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::units;
use crate::model::TableName;

/// Where a server listens unless told otherwise.
pub(super) const DEFAULT_SERVER: &str = "grpc://127.0.0.1:8815";

/// Keeps a Delta Lake in step with piles of files and serves it over Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(
    name = "lakegate",
    version,
    max_term_width = 110,
    after_help = "lakegate.toml and tables/<schema>/<table>.toml are looked for in the working directory.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.\n\n\
                  First steps:\n  \
                  lakegate check                                   is the configuration right?\n  \
                  lakegate sync                                    load what is new\n  \
                  lakegate serve                                   serve it, and load by schedule\n  \
                  lakegate query 'select * from weather.hourly'    ask the server"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Configuration file; its folder is where tables/ is looked for [default: lakegate.toml here]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How log lines look; they go to standard error [default: as configured]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(super) log_format: Option<LogLines>,
    /// Tell more
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLines {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the lake over Arrow Flight SQL, and load tables by their schedules
    #[command(after_help = "Examples:\n  lakegate serve\n  lakegate serve --flight 127.0.0.1:9000 --no-loads\n\n\
                            SIGTERM or Ctrl-C lets running statements and loads end; a second one stops at once.")]
    Serve(Serve),
    /// Load what is new into tables, all of them unless some are named
    #[command(after_help = "Examples:\n  lakegate sync\n  lakegate sync weather.hourly nyc.flights\n  \
                            lakegate sync nyc.flights --reload    from all files anew, in the place of what is there\n\n\
                            Exits with 0 when every load committed, had nothing new, or was put off by its write budget;\n\
                            rows may have been rejected (see `lakegate rejects TABLE`).")]
    Sync(Sync),
    /// Compare tables with the SQL Server they come from, row by row, and mend what differs where asked to
    #[command(
        after_help = "Examples:\n  lakegate verify                        all tables that come from SQL Server\n  \
                            lakegate verify ops.orders\n  \
                            lakegate verify ops.orders --repair    read anew what differs, and nothing else\n\n\
                            Number and checksum of rows are compared range by range, in short transactions; rows that changed\n\
                            since the last load are left out. Results are kept in system.verifications.\n\
                            Exits with 0 when all is the same or was repaired, and with 1 when something differs or failed."
    )]
    Verify(Verify),
    /// Ask a running server, and write the rows as they arrive
    #[command(after_help = "Examples:\n  lakegate query 'select count(*) from nyc.flights'\n  \
                            lakegate query 'select * from nyc.flights where month = ?' --param 7 -o july.parquet\n  \
                            lakegate query @report.sql --format csv > report.csv\n  \
                            echo 'select 1' | lakegate query -\n  \
                            lakegate query 'select 1' --server grpc+tls://lake.example.org:8815 --user ann --ca-file ca.pem\n\n\
                            Results are kept on this disk: what has not changed is not sent again, and of what grew only the new\n\
                            rows (see `lakegate cache`).")]
    Query(Query),
    /// Results of `lakegate query` and of the Python client that are kept on this disk
    #[command(
        subcommand,
        after_help = "Examples:\n  lakegate cache show\n  lakegate cache clear\n\n\
                      The server is asked each time whether what is kept is still the answer, and whether one may have it. What was\n\
                      not used for longest goes by itself when there is no more room."
    )]
    Cache(Cache),
    /// List the statements of a running server, newest first: who asked what, what it costs
    #[command(after_help = "Examples:\n  lakegate queries\n  lakegate queries --running\n\n\
                            People see their own statements, members of the role admin everybody's. All that is known of\n\
                            them stands in system.queries.")]
    Queries(Queries),
    /// Stop a statement that runs on a server
    #[command(after_help = "Examples:\n  lakegate queries --running\n  \
                            lakegate kill 0b8fd1a5-9d0e-4c55-8f0e-4f6f1f1c7c11\n\n\
                            People stop their own statements, members of the role admin everybody's.")]
    Kill(Kill),
    /// Let people in: users, passwords, personal tokens
    #[command(
        subcommand,
        after_help = "Examples:\n  lakegate user add root --role admin\n  \
                      lakegate user token add ann --label laptop --expires 90d\n  lakegate user token revoke 3f9a1c0b2d\n\n\
                      Passwords and tokens stand in users.toml as hashes. A running server reads the file again within seconds."
    )]
    User(User),
    /// Look at who may see what
    #[command(subcommand, after_help = "Examples:\n  lakegate grants explain ann ops.orders")]
    Grants(Grants),
    /// Make a certificate for a server
    #[command(subcommand, after_help = "Examples:\n  lakegate cert dev --host lake.example.org --host 10.0.0.7")]
    Cert(Cert),
    /// List the tables of the lake: version, rows, size, last load; or those of a database that could be loaded
    #[command(after_help = "Examples:\n  lakegate tables\n  lakegate tables --connection ops")]
    Tables(TablesShown),
    /// Define a table of the lake that is kept in step with a table of a database
    #[command(after_help = "Examples:\n  lakegate add ops dbo.orders                  as tables/ops/orders.toml\n  \
                            lakegate add ops '[my schema].[a table]' --as sales.orders")]
    Add(Add),
    /// Look whether databases can be kept in step, what stands in the way, and what a login needs
    #[command(after_help = "Examples:\n  lakegate doctor\n  lakegate doctor ops --json\n\n\
                            Exits with 0 when everything that is defined can be loaded. The script it prints is for the \
                            database administrator; lakegate runs none of it.")]
    Doctor(Doctor),
    /// List loads, newest first: when, how many rows, what failed and why
    #[command(after_help = "Examples:\n  lakegate loads\n  lakegate loads nyc.flights --limit 5")]
    Loads(LoadsShown),
    /// Show rows that did not fit: file, line, column, reason and the row as it stood there
    #[command(after_help = "Examples:\n  lakegate rejects weather.hourly\n  \
                            lakegate rejects weather.hourly --format csv --limit 1000000 > rejects.csv")]
    Rejects(RejectsShown),
    /// Check lakegate.toml and all table definitions, and tell every problem at once
    #[command(after_help = "Examples:\n  lakegate check\n  \
                            lakegate check --schema table > table.schema.json    for editors that complete keys")]
    Check(Check),
}

/// `lakegate serve`.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen; port 0 takes a free one [default: as configured, else 127.0.0.1:8815]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) flight: Option<String>,
    /// Load nothing, serve only
    #[arg(long)]
    pub(super) no_loads: bool,
    /// Write the address into this file once the server listens
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
}

/// `lakegate sync`.
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// Tables as schema.table; of a group always all members are loaded
    #[arg(value_name = "TABLE")]
    pub(super) tables: Vec<TableName>,
    /// Rewrite whatever it costs: max_rewrite puts nothing off
    #[arg(long)]
    pub(super) now: bool,
    /// Load from all files anew, in the place of what is there; readers keep the old version until then
    #[arg(long)]
    pub(super) reload: bool,
}

/// `lakegate verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Tables as schema.table
    #[arg(value_name = "TABLE")]
    pub(super) tables: Vec<TableName>,
    /// Load each table that differs, and with what changed read those ranges anew that differ
    #[arg(long)]
    pub(super) repair: bool,
    /// Write the results as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `lakegate query`.
#[derive(Debug, Args)]
pub(super) struct Query {
    /// One statement; @FILE reads it from a file, - from standard input
    #[arg(value_name = "SQL")]
    pub(super) sql: String,
    /// The server to ask
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub(super) server: String,
    /// How the rows are written [default: by the ending of FILE, else table]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
    /// Write into a file, which appears only when it is whole
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// The value of the next ? or $n of the statement
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    pub(super) parameters: Vec<String>,
    /// Tell how large the result would be, and fetch nothing of it
    #[arg(long)]
    pub(super) estimate: bool,
    /// A header that goes with the statement, as lakegate-codec=lz4 or lakegate-precision=rounded
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) kept: Kept,
    #[command(flatten)]
    pub(super) login: Login,
}

/// What is kept of results.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cache")]
pub(super) struct Kept {
    /// Fetch all rows from the server, even where the same are on this disk
    #[arg(long)]
    pub(super) fresh: bool,
    /// Take rows that are on this disk without asking the server, if it said that they are the answer no longer ago than this, as
    /// in 10m
    #[arg(long, value_name = "TIME", value_parser = units::duration, conflicts_with_all = ["fresh", "no_cache"])]
    pub(super) max_staleness: Option<Duration>,
    /// Keep results in this folder [default: lakegate in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_cache")]
    pub(super) cache: Option<PathBuf>,
    /// Let all results in the folder take this much, as in 2GiB [default: 10 GiB or a tenth of the free disk]
    #[arg(long, value_name = "SIZE", value_parser = units::size, conflicts_with = "no_cache")]
    pub(super) cache_size: Option<u64>,
    /// Keep nothing, and use nothing that is kept
    #[arg(long)]
    pub(super) no_cache: bool,
}

/// `lakegate cache`.
#[derive(Debug, Subcommand)]
pub(super) enum Cache {
    /// List the results, the one used last first
    Show(CacheShown),
    /// Remove them, those of other servers and users too
    Clear(CacheFolder),
}

/// `lakegate cache show`.
#[derive(Debug, Args)]
pub(super) struct CacheShown {
    #[command(flatten)]
    pub(super) folder: CacheFolder,
    #[command(flatten)]
    pub(super) shown: Shown,
}

/// Where results are.
#[derive(Debug, Args)]
pub(super) struct CacheFolder {
    /// The folder [default: lakegate in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache: Option<PathBuf>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Who asks a server, and whom to believe.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Login")]
pub(super) struct Login {
    /// Who asks [default: $LAKEGATE_USER]; the password comes from $LAKEGATE_PASSWORD, or is asked for
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    pub(super) user: Option<String>,
    /// A file that holds a token, instead of user and password [default: $LAKEGATE_TOKEN holds the token itself]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// PEM file with the authority that vouches for the server's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// PEM file with a certificate of the client
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) certificate: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(super) key: Option<PathBuf>,
    /// Send password or token to another machine without encryption
    #[arg(long)]
    pub(super) allow_plaintext: bool,
}

/// `lakegate user`.
#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Let somebody in; the password is asked for
    Add(UserAdd),
    /// Give a user another password; their sessions end
    Passwd(UserPassword),
    /// Let a user in no more; their sessions and tokens end
    Remove(UserNamed),
    /// List users, roles and how they are let in
    List(UserList),
    /// Personal tokens, for programs and for tools that know tokens only
    #[command(subcommand)]
    Token(Token),
}

/// `lakegate user add`.
#[derive(Debug, Args)]
pub(super) struct UserAdd {
    /// The user's name
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// A role of theirs; `admin` sees and does everything
    #[arg(long = "role", value_name = "ROLE")]
    pub(super) roles: Vec<String>,
    /// Without a password: only tokens let them in
    #[arg(long, conflicts_with = "password_stdin")]
    pub(super) no_password: bool,
    /// Read the password from standard input, one line
    #[arg(long)]
    pub(super) password_stdin: bool,
}

/// `lakegate user passwd`.
#[derive(Debug, Args)]
pub(super) struct UserPassword {
    /// The user's name
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Read the password from standard input, one line
    #[arg(long)]
    pub(super) password_stdin: bool,
}

/// A user.
#[derive(Debug, Args)]
pub(super) struct UserNamed {
    /// The user's name
    #[arg(value_name = "NAME")]
    pub(super) name: String,
}

/// `lakegate user list`.
#[derive(Debug, Args)]
pub(super) struct UserList {
    /// Write the list as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `lakegate user token`.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token; it is shown once, on standard output
    Add(TokenAdd),
    /// List tokens, of one user or of all
    List(TokenList),
    /// Make a token worthless
    Revoke(TokenRevoke),
}

/// `lakegate user token add`.
#[derive(Debug, Args)]
pub(super) struct TokenAdd {
    /// Whose token it is
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// How long it counts, as in 90d; for ever where nothing is given
    #[arg(long, value_name = "TIME")]
    pub(super) expires: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
}

/// `lakegate user token list`.
#[derive(Debug, Args)]
pub(super) struct TokenList {
    /// Whose tokens
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Write the list as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `lakegate user token revoke`.
#[derive(Debug, Args)]
pub(super) struct TokenRevoke {
    /// The token's id, as the list has it
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// `lakegate grants`.
#[derive(Debug, Subcommand)]
pub(super) enum Grants {
    /// Say what somebody may see and do with a table, and why
    Explain(Explain),
}

/// `lakegate grants explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Who
    #[arg(value_name = "USER")]
    pub(super) user: String,
    /// The table, as schema.table
    #[arg(value_name = "TABLE")]
    pub(super) table: TableName,
    /// A claim their token would bring along, as in groups:analysts
    #[arg(long = "claim", value_name = "CLAIM:VALUE")]
    pub(super) claims: Vec<String>,
    /// Write the explanation as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `lakegate cert`.
#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Make a certificate that vouches for itself, for development and small networks
    Dev(CertDev),
}

/// `lakegate cert dev`.
#[derive(Debug, Args)]
pub(super) struct CertDev {
    /// A name or address under which clients reach the server [default: localhost, 127.0.0.1, ::1]
    #[arg(long = "host", value_name = "HOST")]
    pub(super) hosts: Vec<String>,
    /// The folder for certificate.pem and key.pem
    #[arg(long, value_name = "FOLDER", default_value = "tls")]
    pub(super) folder: PathBuf,
    /// How long it counts
    #[arg(long, value_name = "TIME", default_value = "825d")]
    pub(super) expires: String,
}

/// `lakegate queries`.
#[derive(Debug, Args)]
pub(super) struct Queries {
    /// Only those that have not ended
    #[arg(long)]
    pub(super) running: bool,
    /// Show at most so many
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub(super) limit: u32,
    /// The server to ask
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub(super) server: String,
    #[command(flatten)]
    pub(super) shown: Shown,
    #[command(flatten)]
    pub(super) login: Login,
}

/// `lakegate kill`.
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The query_id, as `lakegate queries` shows it
    #[arg(value_name = "QUERY_ID")]
    pub(super) query_id: Uuid,
    /// The server it runs on
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    pub(super) server: String,
    #[command(flatten)]
    pub(super) login: Login,
}

/// A list on the terminal.
#[derive(Debug, Args)]
pub(super) struct Shown {
    /// How the rows are written
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(super) format: Format,
}

/// `lakegate tables`.
#[derive(Debug, Args)]
pub(super) struct TablesShown {
    /// What a connection's database has that could be loaded, and how each table would be kept in step
    #[arg(long, value_name = "NAME")]
    pub(super) connection: Option<String>,
    #[command(flatten)]
    pub(super) shown: Shown,
}

/// `lakegate add`.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The connection, as [connections.NAME] in lakegate.toml has it
    #[arg(value_name = "CONNECTION")]
    pub(super) connection: String,
    /// The table there
    #[arg(value_name = "TABLE")]
    pub(super) table: String,
    /// Its name in the lake [default: the connection's and the table's own]
    #[arg(long = "as", value_name = "SCHEMA.TABLE")]
    pub(super) name: Option<TableName>,
    /// How often `lakegate serve` loads it
    #[arg(long, value_name = "TIME", default_value = "1m")]
    pub(super) every: String,
}

/// `lakegate doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The connection; all of them where none is named
    #[arg(value_name = "CONNECTION")]
    pub(super) connection: Option<String>,
    /// Write the report as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `lakegate loads`.
#[derive(Debug, Args)]
pub(super) struct LoadsShown {
    /// Loads of this table only
    pub(super) table: Option<TableName>,
    /// Show at most so many
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) shown: Shown,
}

/// `lakegate rejects`.
#[derive(Debug, Args)]
pub(super) struct RejectsShown {
    /// The table, as schema.table
    pub(super) table: TableName,
    /// Show at most so many
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub(super) limit: u32,
    #[command(flatten)]
    pub(super) shown: Shown,
}

/// `lakegate check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print the JSON Schema of a format instead
    #[arg(long, value_name = "FORMAT")]
    pub(super) schema: Option<SchemaOf>,
}

/// Which format's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SchemaOf {
    /// lakegate.toml
    Lakegate,
    /// tables/<schema>/<table>.toml
    Table,
    /// grants.toml
    Grants,
    /// users.toml
    Users,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// Comma-separated with a header; nested values as JSON
    Csv,
    /// One array of objects
    Json,
    /// One object a line
    Ndjson,
    /// Arrow IPC: a stream on standard output, a file (Feather) with -o
    Arrow,
    /// Parquet with zstd
    Parquet,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Arguments::command().debug_assert();
    }
}
