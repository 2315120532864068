//! What the whole program runs on, from `lakegate.toml`: validated, defaults filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveTime;
use ipnet::IpNet;
use secrecy::SecretString;

use crate::config::{AccessSettings, Problem, TableDefinition, TlsSettings};
use crate::model::{Codec, Location, TableName};

/// Everything the program runs on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder that holds `lakegate.toml` and `tables/`; relative paths are below it.
    pub folder: PathBuf,
    /// Where the lake is.
    pub lake: LakeSettings,
    /// What the program may use.
    pub limits: Limits,
    /// Where and to whom it listens.
    pub serve: ServeSettings,
    /// Who is let in, and who may see what.
    pub access: AccessSettings,
    /// Lines that people share.
    pub lines: Vec<LineSettings>,
    /// How results are sent where nobody says otherwise.
    pub results: ResultSettings,
    /// How tickets are sealed.
    pub tickets: TicketSettings,
    /// What is kept of statements and sessions.
    pub history: HistorySettings,
    /// What is kept of results for clients that are cut off.
    pub spool: SpoolSettings,
    /// How it logs.
    pub logs: LogSettings,
    /// Systems by name.
    pub connections: BTreeMap<String, Connection>,
    /// Table definitions by name.
    pub tables: BTreeMap<TableName, TableDefinition>,
    /// What is allowed but probably not meant; to be logged by who starts the program.
    pub warnings: Vec<Problem>,
}

/// Where the lake is and how to reach it.
#[derive(Clone, Debug)]
pub struct LakeSettings {
    /// The folder or bucket prefix that holds a folder per schema.
    pub location: Location,
    /// How to reach a bucket; the environment's own credentials where there is none.
    pub connection: Option<S3Connection>,
    /// Size in bytes a data file is written to reach.
    pub target_file_size: u64,
    /// How long a lease in an object store is valid without renewal.
    pub lease_lifetime: Duration,
}

/// What the program may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory of queries and loads together, in bytes; above it they spill to disk.
    pub memory: usize,
    /// Disk for spilled data, in bytes.
    pub spill: u64,
    /// Where data is spilled to; the system's temporary folder where there is none.
    pub spill_folder: Option<PathBuf>,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Tables loaded at the same time.
    pub parallel_tables: NonZeroUsize,
    /// Longest a statement may compute; the time a slow line takes to carry its rows does not count.
    pub query_timeout: Duration,
    /// How long a second writer waits for a table's lease.
    pub lease_wait: Duration,
    /// What those who are served may use.
    pub serving: ServingLimits,
}

/// What those who are served may use.
#[derive(Clone, Debug)]
pub struct ServingLimits {
    /// Most memory of one statement, in bytes.
    pub statement_memory: usize,
    /// Statements that compute at the same time.
    pub statements: NonZeroUsize,
    /// Places beyond these for members of the role admin.
    pub admin_statements: NonZeroUsize,
    /// Statements that wait for their turn at most.
    pub queue: NonZeroUsize,
    /// Longest a statement waits for its turn.
    pub queue_wait: Duration,
    /// How long a client may take nothing of a result before the result is cut.
    pub idle_reader: Duration,
    /// Bytes of results one person may be sent within [`Self::result_window`].
    pub result_bytes: Option<u64>,
    /// The time over which [`Self::result_bytes`] counts.
    pub result_window: Duration,
    /// Largest result that a statement may ask for, in bytes on the line, by its estimate.
    pub max_result_bytes: Option<u64>,
    /// Sessions of clients.
    pub sessions: NonZeroUsize,
    /// Sessions of one person.
    pub sessions_per_person: NonZeroUsize,
    /// How long a session that nobody uses is kept.
    pub session_idle: Duration,
    /// Connections of clients.
    pub connections: NonZeroUsize,
    /// Prepared statements whose values are kept.
    pub bound_statements: NonZeroUsize,
    /// Bytes of the values of prepared statements.
    pub bound_memory: usize,
    /// Largest message taken from a client, in bytes.
    pub request_size: usize,
    /// Largest headers of one call, in bytes.
    pub header_size: u32,
}

/// What is kept of statements and sessions that ended.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// How long each is kept.
    pub keep: Duration,
    /// Bytes of disk for each of both.
    pub size: u64,
    /// How the texts of statements are kept.
    pub texts: TextsKept,
}

/// How the texts of statements are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextsKept {
    /// As they were written, with the errors they led to.
    Full,
    /// With a `?` in the place of each literal, and without comments.
    WithoutLiterals,
    /// Not at all.
    None,
}

/// Where the server listens.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Address of the Flight SQL service.
    pub flight: SocketAddr,
    /// How connections are encrypted; nothing where they are not.
    pub tls: Option<TlsSettings>,
    /// Whether anybody who can reach the address may read: needed to listen beyond loopback without users.
    pub allow_anonymous_network: bool,
    /// Whether connections may go in the clear: needed to listen beyond loopback without TLS.
    pub allow_plaintext_network: bool,
    /// How long running statements may go on after a request to stop.
    pub drain: Duration,
}

/// How results are sent where neither a call, a session nor a line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResultSettings {
    /// How they are compressed.
    pub codec: CodecDefault,
    /// Whether columns may come as dictionaries.
    pub dictionaries: bool,
}

/// How results are compressed where nobody says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodecDefault {
    /// By what the client's program is known to unpack.
    #[default]
    Auto,
    /// By this, where the client's program is known to unpack it.
    Only(Codec),
}

impl CodecDefault {
    /// What it is written as.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(Codec::Zstd) => "zstd",
            Self::Only(Codec::Lz4) => "lz4",
            Self::Only(Codec::None) => "none",
        }
    }
}

/// A line that people share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineSettings {
    /// The networks behind it. Of networks within each other, of whatever line, the smallest that holds an address counts.
    pub networks: Vec<IpNet>,
    /// What it carries, in bits per second; none where it is not to be shared out.
    pub rate: Option<u64>,
    /// Whether it is so fast that no compression pays.
    pub fast: bool,
    /// By role, how many times the share of others its members have.
    pub weights: BTreeMap<String, f64>,
    /// How results are compressed there; as elsewhere where there is none.
    pub codec: Option<CodecDefault>,
    /// Whether columns may come as dictionaries there; as elsewhere where there is none.
    pub dictionaries: Option<bool>,
}

impl LineSettings {
    /// What the line is called: its networks.
    pub fn name(&self) -> String {
        self.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// How tickets are sealed.
#[derive(Clone, Debug)]
pub struct TicketSettings {
    /// The key, 32 bytes in base64 or hex; the machine's own secret where there is none.
    pub key: Option<SecretString>,
    /// How long a ticket can be redeemed.
    pub lifetime: Duration,
}

/// What is kept of results for clients that are cut off and come back.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Where; the system's temporary folder where there is none.
    pub folder: Option<PathBuf>,
    /// Bytes of disk; with less than 8 MiB nothing is kept.
    pub size: u64,
    /// How long a result waits for its client.
    pub keep: Duration,
    /// Bytes of disk for whole results that are asked for again; with none, none are kept or shared.
    pub cache: u64,
}

/// How the program logs.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Least level shown, or a filter as in `info,lakegate::lake=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, plain lines elsewhere.
    Human,
    /// One JSON object per line.
    Json,
}

/// A system that can be reached.
#[derive(Clone, Debug)]
pub enum Connection {
    /// An S3-compatible object store.
    S3(S3Connection),
    /// A database of SQL Server or Azure SQL.
    SqlServer(SqlServerConnection),
}

/// How to reach an S3-compatible store. What is not given is taken from the standard environment of AWS clients.
#[derive(Clone, Debug, Default)]
pub struct S3Connection {
    /// Address of the service where it is not AWS.
    pub endpoint: Option<url::Url>,
    /// The region.
    pub region: Option<String>,
    /// Access key.
    pub access_key_id: Option<SecretString>,
    /// Secret key.
    pub secret_access_key: Option<SecretString>,
    /// Whether plain `http://` endpoints are allowed.
    pub allow_http: bool,
}

/// How to reach a database of SQL Server, and how much of it may be used.
#[derive(Clone, Debug)]
pub struct SqlServerConnection {
    /// The name of the connection, as in `[connections.NAME]`.
    pub name: String,
    /// Name or IP address of the server.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Who lakegate is there.
    pub login: SqlServerLogin,
    /// What of the connection is encrypted.
    pub encrypt: Encrypt,
    /// Which certificates of the server are believed.
    pub trust: Trust,
    /// The name that must stand in the server's certificate, where it is not the host.
    pub certificate_host: Option<String>,
    /// Whether a readable secondary may answer (`ApplicationIntent=ReadOnly`).
    pub read_intent: bool,
    /// Size in bytes of the packets asked for, 512 to 32767; at most 16383 where rows are encrypted.
    pub packet_size: u32,
    /// Longest silence between two answers of the server.
    pub timeout: Duration,
    /// Longest time from the first packet to the end of the login.
    pub connect_timeout: Duration,
    /// How long a statement waits for somebody else's lock, at most `i32::MAX` milliseconds; zero does not wait.
    pub lock_timeout: Duration,
    /// Most connections open at the same time.
    pub max_connections: NonZeroUsize,
    /// Most bits per second read over all connections together.
    pub rate: Option<u64>,
    /// When loads may read; at any time where there is nothing.
    pub hours: Option<DailyHours>,
    /// How long to leave the server alone between two chunks.
    pub pause: Duration,
    /// How long one chunk should take: chunks are made smaller or larger until they do.
    pub chunk_time: Duration,
    /// Which state of the database is read.
    pub isolation: Isolation,
}

/// Who lakegate is to SQL Server.
#[derive(Clone, Debug)]
pub enum SqlServerLogin {
    /// A SQL login.
    Password {
        /// Its name.
        user: String,
        /// Its password.
        password: SecretString,
    },
    /// An access token of Microsoft Entra ID, obtained elsewhere.
    EntraToken(SecretString),
}

/// What of a connection to SQL Server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypt {
    /// Everything; a server that cannot is refused.
    Required,
    /// Everything from the first byte (TDS 8, SQL Server 2022 and later).
    Strict,
    /// The login alone; rows go in the clear.
    LoginOnly,
    /// Nothing, the password included.
    Off,
}

/// Which certificates of a server are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those the system's authorities vouch for.
    System,
    /// Those the authorities in this file vouch for, besides the system's: PEM (`.pem`, `.crt`) or DER (`.der`).
    Authority(PathBuf),
    /// Any, which protects from nobody who can answer in the server's place.
    AnyCertificate,
}

/// Which state of the database is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Snapshots; a database that does not allow them is an error.
    Snapshot,
    /// Snapshots where the database allows them, else what is committed at each moment.
    SnapshotOrReadCommitted,
}

/// A part of every day, in UTC. It passes midnight where it ends earlier than it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyHours {
    /// When it begins.
    pub from: NaiveTime,
    /// When it ends; this moment is outside.
    pub to: NaiveTime,
}

impl DailyHours {
    /// Whether a time of the day in UTC is within.
    pub fn contains(&self, time: NaiveTime) -> bool {
        if self.from <= self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}
