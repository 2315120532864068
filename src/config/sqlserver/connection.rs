//! `[connections.NAME]` with `type = "sqlserver"`.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::lakegate_file::{Surroundings, optional, positive, refuse};
use crate::config::low::LowConnection;
use crate::config::reader::{At, Field};
use crate::config::secret::secret;
use crate::config::settings::{Encrypt, SqlServerConnection, SqlServerLogin, Trust};
use crate::config::values::{Chosen, Text};

/// Notes the keys that only a connection to SQL Server has, for a connection of another type.
pub(in crate::config) fn refuse_keys(low: &LowConnection, around: &mut Surroundings<'_>) {
    let places = [
        low.host.written_place(),
        low.port.written_place(),
        low.database.written_place(),
        low.user.written_place(),
        low.password.written_place(),
        low.token.written_place(),
        low.encrypt.written_place(),
        low.ca_file.written_place(),
        low.trust_server_certificate.written_place(),
        low.certificate_host.written_place(),
        low.read_intent.written_place(),
        low.packet_size.written_place(),
        low.timeout.written_place(),
        low.connect_timeout.written_place(),
        low.lock_timeout.written_place(),
        low.max_connections.written_place(),
        low.rate.written_place(),
        low.hours.written_place(),
        low.pause.written_place(),
        low.chunk_time.written_place(),
        low.isolation.written_place(),
    ];
    let message = "this key means something for SQL Server only, and this connection has type = \"s3\"";
    refuse(&places, message, "type = \"sqlserver\", or no such key", around);
}

/// A connection to SQL Server, checked as a whole.
pub(in crate::config) fn sql_server_connection(
    name: &str,
    at: &At<LowConnection>,
    around: &mut Surroundings<'_>,
) -> Option<SqlServerConnection> {
    let low = &at.value;
    if matches!(low.host, Field::Missing) {
        around.problems.push(at.place.problem("the connection has no `host`").expected("host = \"db.example.org\""));
    }
    if matches!(low.database, Field::Missing) {
        around.problems.push(at.place.problem("the connection has no `database`").expected("database = \"…\""));
    }
    let login = login(at, around);
    warn_of_open_lines(low, around);
    let trust = trust(low, around);
    let packet_size = packet_size(low, around);
    let timeout = positive(&low.timeout, around);
    let lock_timeout = lock_timeout(low, timeout, around);
    let connect_timeout = positive(&low.connect_timeout, around);
    let chunk_time = positive(&low.chunk_time, around);
    Some(SqlServerConnection {
        name: name.to_owned(),
        host: low.host.copied()?.0,
        port: low.port.copied()?.0,
        database: low.database.copied()?.0,
        login: login?,
        encrypt: low.encrypt.copied()?.0,
        trust: trust?,
        certificate_host: optional(&low.certificate_host)?.map(|host| host.0),
        read_intent: low.read_intent.copied()?,
        packet_size: packet_size?,
        timeout: timeout?,
        connect_timeout: connect_timeout?,
        lock_timeout: lock_timeout?,
        max_connections: low.max_connections.copied()?.0,
        rate: optional(&low.rate)?.map(|rate| rate.0),
        hours: optional(&low.hours)?.map(|hours| hours.0),
        pause: low.pause.copied()?.0,
        chunk_time: chunk_time?,
        isolation: low.isolation.copied()?.0,
    })
}

fn login(at: &At<LowConnection>, around: &mut Surroundings<'_>) -> Option<SqlServerLogin> {
    let low = &at.value;
    let (password, token) = (secret(&low.password, around), secret(&low.token, around));
    let has_user = !matches!(low.user, Field::Missing);
    let has_password = !matches!(low.password, Field::Missing);
    let problem = match (!matches!(low.token, Field::Missing), has_user, has_password) {
        (true, false, false) => return token?.map(SqlServerLogin::EntraToken),
        (false, true, true) => {
            return Some(SqlServerLogin::Password { user: low.user.copied()?.0, password: password?? });
        }
        (true, _, _) => {
            let place = low.token.written_place().unwrap_or(&at.place);
            place.problem("a token is used without user and password").expected("token, or user and password")
        }
        (false, false, false) => {
            at.place.problem("the connection has no login").expected("user and password, or token")
        }
        (false, _, _) => at.place.problem("user and password belong together; one of them is missing"),
    };
    around.problems.push(problem);
    None
}

/// What goes in the clear to another machine.
fn warn_of_open_lines(low: &LowConnection, around: &mut Surroundings<'_>) {
    let (Some(encrypt), Some(host)) = (low.encrypt.given(), low.host.value()) else { return };
    if host.is_loopback() {
        return;
    }
    let message = match encrypt.value.0 {
        Encrypt::Required | Encrypt::Strict => return,
        Encrypt::LoginOnly => format!("only the login is encrypted; rows go to and from {} in the clear", host.0),
        Encrypt::Off => format!("nothing is encrypted; rows and the password go to {} in the clear", host.0),
    };
    around.problems.push(encrypt.place.problem(message).expected("encrypt = \"required\"").warning());
}

fn trust(low: &LowConnection, around: &mut Surroundings<'_>) -> Option<Trust> {
    let any = low.trust_server_certificate.given().filter(|at| at.value);
    if let Some(any) = any {
        let message = "trust_server_certificate = true takes any certificate, so this key would mean nothing";
        let places = [low.ca_file.written_place(), low.certificate_host.written_place()];
        if places.iter().any(Option::is_some) {
            refuse(&places, message, "one or the other", around);
            return None;
        }
        let message = "any certificate is taken, so whoever can stand between reads the password and the rows";
        around.problems.push(any.place.problem(message).expected("ca_file with the server's authority").warning());
    }
    if matches!(low.encrypt.value(), Some(Chosen(Encrypt::Off))) {
        let places = [low.ca_file.written_place(), low.certificate_host.written_place(), any.map(|any| &any.place)];
        for place in places.into_iter().flatten() {
            let problem = place.problem("this key has no effect with encrypt = \"off\": no certificate is looked at");
            around.problems.push(problem.warning());
        }
    }
    low.trust_server_certificate.value()?;
    match &low.ca_file {
        Field::Missing if any.is_some() => Some(Trust::AnyCertificate),
        Field::Missing => Some(Trust::System),
        Field::Wrong => None,
        Field::Given(at) => authority(at, around).map(Trust::Authority),
    }
}

/// The file of an authority, which is there and looks as its ending says.
fn authority(at: &At<Text>, around: &mut Surroundings<'_>) -> Option<PathBuf> {
    let path = around.folder.join(&at.value.0);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let problem = match (std::fs::read(&path), ending.as_str()) {
        (Err(error), _) => at.place.problem(format!("the file {} cannot be read: {error}", at.value.0)),
        (Ok(_), "der") => return Some(path),
        (Ok(bytes), "pem" | "crt") => {
            if String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
                return Some(path);
            }
            at.place.problem(format!("the file {} holds no certificate in PEM", at.value.0))
        }
        (Ok(_), _) => {
            let problem = at.place.problem(format!("the ending of {} does not tell what it holds", at.value.0));
            problem.expected(".pem or .crt for PEM, .der for DER")
        }
    };
    around.problems.push(problem);
    None
}

fn packet_size(low: &LowConnection, around: &mut Surroundings<'_>) -> Option<u32> {
    /// Largest packet of an encrypted connection: a TLS record holds no more (SQL Server documentation,
    /// "Server configuration: network packet size"). Commands of connections with larger ones break off.
    const LARGEST_ENCRYPTED: u32 = 16_383;
    let at = low.packet_size.given()?;
    let encrypted = matches!(low.encrypt.value(), Some(Chosen(Encrypt::Required | Encrypt::Strict)));
    if encrypted && at.value.0 > LARGEST_ENCRYPTED {
        let message = format!("{} bytes are too many for a packet that is encrypted", at.value.0);
        around.problems.push(at.place.problem(message).expected("at most 16383"));
        return None;
    }
    Some(at.value.0)
}

fn lock_timeout(low: &LowConnection, timeout: Option<Duration>, around: &mut Surroundings<'_>) -> Option<Duration> {
    let at = low.lock_timeout.given()?;
    let wait = at.value.0;
    // SET LOCK_TIMEOUT takes an int of milliseconds.
    if wait.as_millis() > i32::MAX.unsigned_abs().into() {
        around.problems.push(at.place.problem("SQL Server waits at most 24 days for a lock"));
        return None;
    }
    if timeout.is_some_and(|timeout| wait >= timeout) {
        let place = low.lock_timeout.written_place().or(low.timeout.written_place()).unwrap_or(&at.place);
        let problem = place.problem("lock_timeout is not shorter than timeout, which ends the connection first");
        around.problems.push(problem.warning());
    }
    Some(wait)
}
