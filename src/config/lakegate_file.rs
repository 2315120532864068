//! From the low form of `lakegate.toml` to the settings, without the tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use secrecy::ExposeSecret;

use crate::config::access::{access_settings, tls_settings};
use crate::config::line;
use crate::config::low::{
    ConnectionKind, LowConnection, LowLake, LowLakegate, LowLimits, LowLogs, LowServe, LowSpool, LowTickets,
};
use crate::config::machine;
use crate::config::problem::Problem;
use crate::config::reader::{At, Field, Named, Place};
use crate::config::secret::secret;
use crate::config::serving;
use crate::config::settings::{
    Connection, LakeSettings, Limits, LogSettings, S3Connection, ServeSettings, Settings, SpoolSettings, TicketSettings,
};
use crate::config::sqlserver;
use crate::config::values::{Span, Text};
use crate::model::Location;

/// What turning a low form into a high one needs and gathers.
pub(super) struct Surroundings<'a> {
    /// The folder relative paths are below.
    pub(super) folder: &'a Path,
    /// Environment variables by name.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// What is wrong so far.
    pub(super) problems: Vec<Problem>,
}

/// Connections by name; those that could not be read are `None`, and so are all where it is not known which there are.
pub(super) type Connections = Option<BTreeMap<String, Option<Connection>>>;

/// The settings but for the tables, and the connections for the tables to refer to.
pub(super) fn settings(low: &LowLakegate, around: &mut Surroundings<'_>) -> (Option<Settings>, Connections) {
    let connections = connections(&low.connections, around);
    let lake = low.lake.value().and_then(|lake| lake_settings(lake, &connections, around));
    let limits = low.limits.value().and_then(|limits| limit_settings(limits, around));
    let serve = low.serve.value().and_then(|serve| serve_settings(serve, around));
    let certificates =
        serve.as_ref().is_some_and(|serve| serve.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    let access = low.access.value().and_then(|access| access_settings(access, certificates, around));
    let lines = low.line.value().and_then(|lines| line::line_settings(lines, around));
    let results = low.results.value().and_then(line::result_settings);
    let tickets = low.tickets.value().and_then(|tickets| ticket_settings(tickets, around));
    let spool = limits.as_ref().zip(low.spool.value());
    let spool = spool.and_then(|(limits, spool)| spool_settings(spool, limits.spill_folder.clone(), around));
    let history = low.history.value().and_then(|history| serving::history_settings(history, around));
    let logs = low.logs.value().and_then(log_settings);
    let assembled = || {
        low.version.value()?;
        Some(Settings {
            folder: around.folder.to_owned(),
            lake: lake?,
            limits: limits?,
            serve: serve?,
            access: access?,
            lines: lines?,
            results: results?,
            tickets: tickets?,
            history: history?,
            spool: spool?,
            logs: logs?,
            connections: connections
                .iter()
                .flatten()
                .filter_map(|(name, c)| Some((name.clone(), c.clone()?)))
                .collect(),
            tables: BTreeMap::new(),
            warnings: Vec::new(),
        })
    };
    (assembled(), connections)
}

fn lake_settings(low: &LowLake, connections: &Connections, around: &mut Surroundings<'_>) -> Option<LakeSettings> {
    let location = low.location.given().and_then(|at| location(at, around));
    if let (Some(Location::S3 { key, .. }), Some(at)) = (&location, low.location.given())
        && key.contains(['*', '?', '[', '{'])
    {
        around.problems.push(at.place.problem("the lake is one place, not a pattern"));
    }
    let connection = connection(&low.connection, location.as_ref(), connections, around);
    let lease_lifetime = positive(&low.lease_lifetime, around);
    Some(LakeSettings {
        location: location?,
        connection: connection?,
        target_file_size: low.target_file_size.copied()?.0,
        lease_lifetime: lease_lifetime?,
    })
}

/// With less memory, in bytes, a sort cannot hold two batches of ordinary rows, so even spilling fails.
const LEAST_MEMORY: u64 = 16 << 20;

fn limit_settings(low: &LowLimits, around: &mut Surroundings<'_>) -> Option<Limits> {
    let query_timeout = positive(&low.query_timeout, around);
    let memory = match &low.memory {
        Field::Missing => Some(machine::default_memory()),
        Field::Wrong => None,
        Field::Given(at) if at.value.0 < LEAST_MEMORY => {
            around.problems.push(at.place.problem("too little memory to sort and join").expected("at least 16MiB"));
            None
        }
        Field::Given(at) => Some(usize::try_from(at.value.0).unwrap_or(usize::MAX)),
    };
    let threads = optional(&low.threads).map(|given| given.map_or_else(machine::default_threads, |count| count.0));
    let serving = serving::serving_limits(low, memory.zip(threads), around);
    Some(Limits {
        memory: memory?,
        spill: low.spill.copied()?.0,
        spill_folder: optional(&low.spill_folder)?.map(|text| around.folder.join(text.0)),
        threads: threads?,
        parallel_tables: low.parallel_tables.copied()?.0,
        query_timeout: query_timeout?,
        lease_wait: low.lease_wait.copied()?.0,
        serving: serving?,
    })
}

fn serve_settings(low: &LowServe, around: &mut Surroundings<'_>) -> Option<ServeSettings> {
    let flight = low.flight.given()?;
    let tls = tls_settings(&low.tls, around);
    Some(ServeSettings {
        flight: flight.value.0,
        tls: tls?,
        allow_anonymous_network: low.allow_anonymous_network.copied()?,
        allow_plaintext_network: low.allow_plaintext_network.copied()?,
        drain: low.drain.copied()?.0,
    })
}

/// Notes what would keep `lakegate serve` from starting: other machines reach the address, and nothing protects it.
pub(super) fn warn_if_exposed(low: &LowLakegate, settings: &Settings, problems: &mut Vec<Problem>) {
    let (Some(at), serve) = (low.serve.value().and_then(|serve| serve.flight.given()), &settings.serve) else { return };
    if serve.flight.ip().to_canonical().is_loopback() {
        return;
    }
    let mut warn = |what: &str, expected: &str| {
        let message =
            format!("{} can be reached from other machines, and {what}; `lakegate serve` will not start", serve.flight);
        problems.push(at.place.problem(message).expected(expected).warning());
    };
    if !settings.access.is_closed() && !serve.allow_anonymous_network {
        warn(
            "no users are configured, so anybody could read everything",
            "users (`lakegate user add`), a loopback address such as \"127.0.0.1:8815\", or allow_anonymous_network = true",
        );
    }
    if serve.tls.is_none() && !serve.allow_plaintext_network {
        warn(
            "connections are not encrypted",
            "[serve.tls], a loopback address such as \"127.0.0.1:8815\", or allow_plaintext_network = true",
        );
    }
}

fn ticket_settings(low: &LowTickets, around: &mut Surroundings<'_>) -> Option<TicketSettings> {
    let key = secret(&low.key, around);
    if let (Some(Some(key)), Some(at)) = (&key, low.key.given())
        && !is_ticket_key(key.expose_secret())
    {
        let problem = at.place.problem("the secret is no ticket key");
        around.problems.push(problem.expected("32 random bytes in base64 or hex, as `openssl rand -base64 32` prints"));
    }
    let lifetime = positive(&low.lifetime, around);
    Some(TicketSettings { key: key?, lifetime: lifetime? })
}

/// Whether a text is 32 bytes in hex or base64, with or without padding, in either alphabet.
fn is_ticket_key(text: &str) -> bool {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let base64 = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
    hex || base64.iter().any(|engine| engine.decode(text).is_ok_and(|bytes| bytes.len() == 32))
}

fn spool_settings(low: &LowSpool, folder: Option<PathBuf>, around: &mut Surroundings<'_>) -> Option<SpoolSettings> {
    let keep = positive(&low.keep, around);
    Some(SpoolSettings { folder, size: low.size.copied()?.0, keep: keep?, cache: low.cache.copied()?.0 })
}

fn log_settings(low: &LowLogs) -> Option<LogSettings> {
    Some(LogSettings { level: low.level.copied()?.0, format: low.format.copied()?.0 })
}

fn connections(low: &Field<Named<LowConnection>>, around: &mut Surroundings<'_>) -> Connections {
    let Named(named) = low.value()?;
    let mut read = BTreeMap::new();
    for (name, low) in named {
        let made = low.as_ref().and_then(|at| made_connection(name, at, around));
        read.insert(name.clone(), made);
    }
    Some(read)
}

fn made_connection(name: &str, at: &At<LowConnection>, around: &mut Surroundings<'_>) -> Option<Connection> {
    let low = &at.value;
    if matches!(low.kind, Field::Missing) {
        let problem = at.place.problem("the connection has no `type`");
        around.problems.push(problem.expected("type = \"s3\" or type = \"sqlserver\""));
    }
    match low.kind.value()?.0 {
        ConnectionKind::S3 => {
            sqlserver::refuse_keys(low, around);
            s3_connection(at, around).map(Connection::S3)
        }
        ConnectionKind::SqlServer => {
            refuse_s3_keys(low, around);
            sqlserver::sql_server_connection(name, at, around).map(Connection::SqlServer)
        }
    }
}

/// Notes the keys that only a connection to a bucket has, for a connection of another type.
fn refuse_s3_keys(low: &LowConnection, around: &mut Surroundings<'_>) {
    let places = [
        low.endpoint.written_place(),
        low.region.written_place(),
        low.access_key_id.written_place(),
        low.secret_access_key.written_place(),
        low.allow_http.written_place(),
    ];
    let message = "this key means something for buckets only, and this connection has type = \"sqlserver\"";
    refuse(&places, message, "type = \"s3\", or no such key", around);
}

/// Notes that keys do not belong where they are written.
pub(super) fn refuse(places: &[Option<&Place>], message: &str, expected: &str, around: &mut Surroundings<'_>) {
    around.problems.extend(places.iter().flatten().map(|place| place.problem(message).expected(expected)));
}

fn s3_connection(at: &At<LowConnection>, around: &mut Surroundings<'_>) -> Option<S3Connection> {
    let low = &at.value;
    let access_key_id = secret(&low.access_key_id, around);
    let secret_access_key = secret(&low.secret_access_key, around);
    if matches!(low.access_key_id, Field::Missing) != matches!(low.secret_access_key, Field::Missing) {
        let message = "access_key_id and secret_access_key belong together; one of them is missing";
        around.problems.push(at.place.problem(message));
    }
    let endpoint = optional(&low.endpoint);
    let allow_http = low.allow_http.copied();
    if let (Some(endpoint), Some(false)) = (low.endpoint.given(), allow_http)
        && endpoint.value.0.scheme() == "http"
    {
        let problem = endpoint.place.problem("the endpoint is not encrypted, and allow_http is not set");
        around.problems.push(problem.expected("an https:// address, or allow_http = true on a network you trust"));
    }
    Some(S3Connection {
        endpoint: endpoint?.map(|endpoint| endpoint.0),
        region: optional(&low.region)?.map(|region| region.0),
        access_key_id: access_key_id?,
        secret_access_key: secret_access_key?,
        allow_http: allow_http?,
    })
}

/// A value that may be missing; `None` when it is there and wrong.
pub(super) fn optional<T: Clone>(field: &Field<T>) -> Option<Option<T>> {
    match field {
        Field::Missing => Some(None),
        Field::Wrong => None,
        Field::Given(at) => Some(Some(at.value.clone())),
    }
}

/// A length of time that is not zero.
pub(super) fn positive(field: &Field<Span>, around: &mut Surroundings<'_>) -> Option<Duration> {
    let at = field.given()?;
    if at.value.0.is_zero() {
        around.problems.push(at.place.problem("the time is zero").expected("a time above zero"));
        return None;
    }
    Some(at.value.0)
}

/// A location below the folder.
pub(super) fn location(at: &At<Text>, around: &mut Surroundings<'_>) -> Option<Location> {
    match Location::parse(&at.value.0, around.folder) {
        Ok(Location::S3 { bucket, .. }) if bucket.contains(['*', '?', '[', '{']) => {
            around.problems.push(at.place.problem("a bucket's name cannot have wildcards; put them after the bucket"));
            None
        }
        Ok(location) => Some(location),
        Err(error) => {
            around.problems.push(at.place.problem(error.to_string()));
            None
        }
    }
}

/// The connection a name stands for, checked against the location it is to reach.
pub(super) fn connection(
    name: &Field<Text>,
    location: Option<&Location>,
    connections: &Connections,
    around: &mut Surroundings<'_>,
) -> Option<Option<S3Connection>> {
    let at = match name {
        Field::Missing => return Some(None),
        Field::Wrong => return None,
        Field::Given(at) => at,
    };
    if let Some(Location::Local(_)) = location {
        let problem = at.place.problem("a local path is reached without a connection");
        around.problems.push(problem.expected("s3://bucket/prefix as the place, or no connection"));
    }
    let connections = connections.as_ref()?;
    match connections.get(&at.value.0) {
        Some(Some(Connection::S3(connection))) => Some(Some(connection.clone())),
        Some(Some(Connection::SqlServer(_))) => {
            let problem =
                at.place.problem(format!("[connections.{}] reaches SQL Server, which has no files", at.value.0));
            around.problems.push(problem.expected("a connection with type = \"s3\""));
            None
        }
        // What is wrong with it has been said where it stands.
        Some(None) => None,
        None => {
            around.problems.push(unknown_connection(at, connections));
            None
        }
    }
}

/// That a name stands for no connection.
pub(super) fn unknown_connection(at: &At<Text>, connections: &BTreeMap<String, Option<Connection>>) -> Problem {
    let known: Vec<_> = connections.keys().map(String::as_str).collect();
    let known_text = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let message = format!("there is no [connections.{}] in lakegate.toml (there: {known_text})", at.value.0);
    at.place.problem(message).near(&at.value.0, known)
}
