//! Sessions: `GetSessionOptions`, `SetSessionOptions`, `CloseSession`.
//!
//! A call belongs to the session its bearer token names; without one to that of the cookie `arrow_flight_session_id`,
//! which is set where options are set; without a cookie to its connection's. A session begins with its first call,
//! but asking for its options does not begin one. `registry.rs` keeps them.

mod messages;
mod options;
mod registry;

use bytes::Bytes;
use prost::Message;
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use uuid::Uuid;

use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::service::Service;
use crate::flight::status::refuse;

use messages::{OptionValue, Options, SetError, SetResult, Value};

pub(crate) use options::SessionOptions;
pub(crate) use registry::{InUse, Session, SessionKey, Sessions};

/// The cookie's name, as drivers' documentation has it.
const COOKIE: &str = "arrow_flight_session_id";
/// `CloseSessionResult { status: CLOSED }`.
const CLOSED: &[u8] = &[0x08, 0x01];

/// The options of the caller's session. One that never set any has none, and begins none by asking.
pub(crate) fn get(service: &Service, caller: &Caller) -> Result<Bytes, Status> {
    let session = service.sessions.find(&caller.session_key, caller.name())?;
    let options = session.map(|session| session.options()).unwrap_or_default();
    let told = options.told().into_iter().map(|(name, value)| {
        let value = OptionValue { value: Some(Value::Text(value)) };
        (name.to_owned(), value)
    });
    Ok(Options { options: told.collect() }.encode_to_vec().into())
}

/// Sets options of the caller's session, and says of each that cannot be set whether its name or its value is wrong.
/// What comes back besides is the cookie that leads to the session, for clients that send no token.
pub(crate) async fn set(
    service: &Service,
    caller: &Caller,
    body: &[u8],
) -> Result<(Bytes, Option<AsciiMetadataValue>), Status> {
    let wanted = Options::decode(body)
        .map_err(|error| refuse(ErrorKind::InvalidInput, format!("the session options cannot be read: {error}")))?;
    let schemas = match wanted.options.get("schema") {
        Some(OptionValue { value: Some(_) }) => schemas(service, caller).await?,
        _ => Vec::new(),
    };
    let session = service.sessions.enter(caller)?;
    let mut errors = Vec::new();
    session.change(|options| {
        for (name, value) in &wanted.options {
            if let Err(refused) = options.set(name, value, &schemas) {
                errors.push((name.clone(), SetError { value: refused as i32 }));
            }
        }
    });
    let answer = SetResult { errors: errors.into_iter().collect() }.encode_to_vec().into();
    Ok((answer, service.sessions.cookie(&session, &caller.session_key)))
}

/// Ends the caller's session: its statements are stopped, its options and the values of its prepared statements are
/// forgotten. Its bearer token is not taken any more.
pub(crate) fn close(service: &Service, caller: &Caller) -> Result<Bytes, Status> {
    if let Some(session) = service.sessions.close(&caller.session_key, caller.name())? {
        service.free(session);
    }
    Ok(Bytes::from_static(CLOSED))
}

/// The schemas that are there for a caller.
async fn schemas(service: &Service, caller: &Caller) -> Result<Vec<String>, Status> {
    let mut schemas: Vec<String> = service.tables(caller).await?.iter().map(|table| table.schema.clone()).collect();
    schemas.dedup();
    schemas.push("information_schema".to_owned());
    Ok(schemas)
}

/// The session a call's cookies name. Several cookies may stand in one header, and in several.
fn cookie(headers: &MetadataMap) -> Option<Uuid> {
    let headers = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut cookies = headers.flat_map(|header| header.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find_map(|(name, value)| if name == COOKIE { value.trim_matches('"').parse().ok() } else { None })
}
