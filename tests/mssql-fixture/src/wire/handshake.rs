//! The start of a connection: PRELOGIN, TLS, LOGIN7, and the answer to the login.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::login::{Login, feature};
use super::packet::{DEFAULT_PACKET_SIZE, Framer, Message, PacketReader, kind};
use super::prelogin::{self, Agreement, Encryption};
use super::reply::ReplyStyle;
use super::requests::Requests;
use super::tls::Tls;
use super::token::{self, Done, done, environment};
use super::transport::Transport;
use super::type_info::Abilities;
use crate::engine::{Database, FixtureError, SqlError};
use crate::value::Collation;

/// The first byte of a TLS record with a handshake: a client of TDS 8 begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What every connection of one server shares.
pub(crate) struct Front {
    /// The database behind the server.
    pub(crate) database: Database,
    /// The collation of connections.
    pub(crate) collation: Collation,
    /// The administrator's name and password.
    pub(crate) administrator: (String, String),
    /// What is encrypted.
    pub(crate) encryption: Encryption,
    /// The certificate.
    pub(crate) tls: Tls,
    /// Rows with NULLs are sent as NBCROW.
    pub(crate) null_bitmaps: bool,
    /// The server's name in messages.
    pub(crate) name: Arc<str>,
}

/// A connection that has logged in.
pub(crate) struct LoggedIn<S> {
    /// Where it reads and writes from here on.
    pub(crate) reader: PacketReader<Transport>,
    /// Its session of the engine.
    pub(crate) session: S,
    /// How its answers look.
    pub(crate) style: ReplyStyle,
}

/// Leads a new connection to its login; `None` when it was refused, sent elsewhere or went away.
///
/// `open_session` gives the session of a login that may come in.
pub(crate) async fn open<S: Requests>(
    socket: TcpStream,
    front: &Front,
    open_session: impl FnOnce(&str) -> Result<S, FixtureError>,
) -> io::Result<Option<LoggedIn<S>>> {
    let Some((reader, message)) = negotiate(socket, front).await? else {
        return Ok(None);
    };
    if message.kind != kind::LOGIN7 {
        return Err(invalid(format!("a message of type {:#04x} in place of LOGIN7", message.kind)));
    }
    let login = Login::decode(&message.body).map_err(|error| invalid(format!("LOGIN7: {error}")))?;
    answer(reader, &login, front, open_session).await
}

/// PRELOGIN and TLS; gives LOGIN7.
async fn negotiate(socket: TcpStream, front: &Front) -> io::Result<Option<(PacketReader<Transport>, Message)>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    let strict = first == [TLS_HANDSHAKE];
    if strict && front.encryption == Encryption::Off {
        return Ok(None);
    }
    let transport =
        if strict { Transport::encrypt(socket, &front.tls.strict, false).await? } else { Transport::Plain(socket) };
    let mut reader = PacketReader::new(transport);
    let Some(message) = reader.message().await? else { return Ok(None) };
    if message.kind != kind::PRELOGIN {
        return Ok(Some((reader, message)));
    }
    let wanted = prelogin::wanted_encryption(&message.body).ok_or_else(|| invalid("a malformed PRELOGIN".into()))?;
    let (level, agreement) =
        if strict { (prelogin::STRICT_LEVEL, Agreement::Plain) } else { prelogin::negotiate(front.encryption, wanted) };
    let mut transport = unused(reader)?;
    let [major, minor, build, sub_build] = product_version(front);
    let version = [major, minor, build, sub_build, 0, 0];
    let mut tokens = BytesMut::new();
    prelogin::put_answer(version, level, &mut tokens);
    send(&mut transport, &mut tokens, 0).await?;
    let transport = match (agreement, transport) {
        (Agreement::Whole | Agreement::LoginOnly, Transport::Plain(socket)) => {
            Transport::encrypt(socket, &front.tls.inside_prelogin, true).await?
        }
        (Agreement::Refused, _) => return Ok(None),
        (_, transport) => transport,
    };
    let mut reader = PacketReader::new(transport);
    let Some(message) = reader.message().await? else { return Ok(None) };
    if agreement == Agreement::LoginOnly {
        reader = PacketReader::new(unused(reader)?.decrypt());
    }
    Ok(Some((reader, message)))
}

/// The stream under a reader that has read nothing ahead.
fn unused(reader: PacketReader<Transport>) -> io::Result<Transport> {
    let (transport, ahead) = reader.into_parts();
    if ahead.is_empty() { Ok(transport) } else { Err(invalid("the client spoke before it was answered".into())) }
}

/// Checks the login and answers it.
async fn answer<S: Requests>(
    reader: PacketReader<Transport>,
    login: &Login,
    front: &Front,
    open_session: impl FnOnce(&str) -> Result<S, FixtureError>,
) -> io::Result<Option<LoggedIn<S>>> {
    let mut transport = unused(reader)?;
    let mut tokens = BytesMut::new();
    let refused = match check(login, front) {
        Ok(version) => match (open_session(&login.user), front.database.faults().wire().routing) {
            (Ok(session), routing) => {
                put_login_answer(login, version, routing.as_ref(), front, &mut tokens);
                send(&mut transport, &mut tokens, session.spid()).await?;
                return Ok(routing.is_none().then(|| logged_in(transport, session, login, front)));
            }
            (Err(error), _) => vec![unavailable(&error)],
        },
        Err(errors) => errors,
    };
    for error in &refused {
        token::put_error(error, &front.name, &mut tokens);
    }
    token::put_done(Done::Batch, done::ERROR, 0, 0, &mut tokens);
    send(&mut transport, &mut tokens, 0).await?;
    transport.shutdown().await?;
    Ok(None)
}

fn logged_in<S: Requests>(transport: Transport, session: S, login: &Login, front: &Front) -> LoggedIn<S> {
    let offered = |feature| login.features.as_ref().is_some_and(|features| features.contains(&feature));
    let style = ReplyStyle {
        packet_size: login.packet_size,
        spid: session.spid(),
        server: Arc::clone(&front.name),
        null_bitmaps: front.null_bitmaps,
        abilities: Abilities { json: offered(feature::JSON) },
        database: front.database.options().name.clone(),
    };
    LoggedIn { reader: PacketReader::new(transport), session, style }
}

/// The TDS version to speak with a client that may come in, or the errors to tell it.
fn check(login: &Login, front: &Front) -> Result<u32, Vec<SqlError>> {
    let failed = || SqlError::new(18456, 14, format!("Login failed for user '{}'.", login.user));
    if let Some(number) = front.database.faults().wire().login_failure {
        return Err(vec![match number {
            18456 => failed(),
            4060 => unknown_database(&login.database),
            other => SqlError::known(other),
        }]);
    }
    let Some(version) = login.version else {
        let text = "mssql-fixture speaks TDS 7.3 B to 7.4; the client is older.";
        return Err(vec![SqlError::new(17835, 20, text)]);
    };
    if login.integrated {
        let text =
            "Login failed. The login is from an untrusted domain and cannot be used with Integrated authentication.";
        return Err(vec![SqlError::new(18452, 14, text)]);
    }
    let (name, password) = &front.administrator;
    let known = if login.user.eq_ignore_ascii_case(name) {
        login.password == *password
    } else {
        front.database.password_matches(&login.user, &login.password) == Some(true)
    };
    if !known {
        return Err(vec![failed()]);
    }
    let database = &login.database;
    let own = &front.database.options().name;
    if !database.is_empty() && !database.eq_ignore_ascii_case(own) && !database.eq_ignore_ascii_case("master") {
        return Err(vec![unknown_database(database), failed()]);
    }
    Ok(version)
}

fn unknown_database(name: &str) -> SqlError {
    SqlError::new(4060, 11, format!("Cannot open database \"{name}\" requested by the login. The login failed."))
}

fn unavailable(error: &FixtureError) -> SqlError {
    SqlError::new(40613, 17, format!("mssql-fixture: {error}"))
}

/// What a client hears that has logged in: database, collation, language, packet size, and where to go if it is sent away.
fn put_login_answer(
    login: &Login,
    version: u32,
    routing: Option<&(String, u16)>,
    front: &Front,
    output: &mut BytesMut,
) {
    const LANGUAGE: &str = "us_english";
    let database = &front.database.options().name;
    let info = |number, text: &str, output: &mut BytesMut| token::put_info(number, text, &front.name, output);
    token::put_environment(environment::DATABASE, database, "master", output);
    info(5701, &format!("Changed database context to '{database}'."), output);
    token::put_collation(front.collation.wire_bytes(), output);
    token::put_environment(environment::LANGUAGE, LANGUAGE, "", output);
    info(5703, &format!("Changed language setting to {LANGUAGE}."), output);
    token::put_login_ack(version, product_version(front), output);
    let size = login.packet_size.to_string();
    token::put_environment(environment::PACKET_SIZE, &size, &DEFAULT_PACKET_SIZE.to_string(), output);
    if let Some(features) = &login.features {
        let known = [feature::UTF8, feature::JSON].into_iter().filter(|known| features.contains(known));
        token::put_features(&known.map(|feature| (feature, 1)).collect::<Vec<_>>(), output);
    }
    if let Some((host, port)) = routing {
        token::put_routing(host, *port, output);
    }
    token::put_done(Done::Batch, 0, 0, 0, output);
}

/// The product's version as PRELOGIN and LOGINACK have it: major, minor, build in two bytes.
fn product_version(front: &Front) -> [u8; 4] {
    let mut parts = front.database.options().product_version.split('.').map(|part| part.parse::<u16>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, build) = (next(), next(), next());
    let [high, low] = build.to_be_bytes();
    [major.to_be_bytes()[1], minor.to_be_bytes()[1], high, low]
}

/// Sends one whole message in packets of the size that holds before the login.
async fn send(transport: &mut Transport, tokens: &mut BytesMut, spid: u16) -> io::Result<()> {
    let mut packets = BytesMut::new();
    Framer::reply(DEFAULT_PACKET_SIZE, spid).frame(tokens, &mut packets, true);
    transport.write_all(&packets).await?;
    transport.flush().await
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
