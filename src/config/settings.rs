//! What the whole program runs on, from `lakegate.toml`: validated, defaults filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::{Problem, TableDefinition};
use crate::model::{Location, TableName};

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
    /// How tickets are sealed.
    pub tickets: TicketSettings,
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
}

/// Where the server listens.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Address of the Flight SQL service.
    pub flight: SocketAddr,
    /// Whether anybody who can reach the address may read: needed to listen beyond loopback without users.
    pub allow_anonymous_network: bool,
    /// How long running statements may go on after a request to stop.
    pub drain: Duration,
}

/// How tickets are sealed.
#[derive(Clone, Debug)]
pub struct TicketSettings {
    /// The key, 32 bytes in base64 or hex; the machine's own secret where there is none.
    pub key: Option<SecretString>,
    /// How long a ticket can be redeemed.
    pub lifetime: Duration,
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
