//! Actions: which there are, and who answers them.
//!
//! Bodies of Flight SQL's actions are wrapped in an `Any`; those of Flight itself are not.

use arrow_flight::ActionType;
use arrow_flight::sql::{ActionCancelQueryResult, Any, ProstMessageExt};
use bytes::Bytes;
use prost::Message;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;

use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::gate::Gate;
use crate::flight::service::Service;
use crate::flight::status::refuse;
use crate::flight::{cancel, prepared, session};

/// Name and description of each action.
const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "ActionCreatePreparedStatementRequest -> ActionCreatePreparedStatementResult"),
    ("ClosePreparedStatement", "ActionClosePreparedStatementRequest -> nothing"),
    ("CancelQuery", "ActionCancelQueryRequest -> ActionCancelQueryResult"),
    ("CancelFlightInfo", "CancelFlightInfoRequest -> CancelFlightInfoResult"),
    ("KillQuery", "the query_id of system.queries, as text -> nothing"),
    ("GetSessionOptions", "GetSessionOptionsRequest -> GetSessionOptionsResult"),
    ("SetSessionOptions", "SetSessionOptionsRequest -> SetSessionOptionsResult"),
    ("CloseSession", "CloseSessionRequest -> CloseSessionResult"),
];

/// The actions there are.
pub(crate) fn list() -> impl Iterator<Item = ActionType> {
    ACTIONS
        .iter()
        .map(|(name, messages)| ActionType { r#type: (*name).to_owned(), description: (*messages).to_owned() })
}

/// Whether an action is answered without beginning a session.
pub(crate) fn begins_no_session(name: &str) -> bool {
    matches!(name, "GetSessionOptions" | "CloseSession")
}

/// The answer to an action.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// At most one message.
    pub(crate) body: Option<Bytes>,
    /// A cookie the client is to send from now on.
    pub(crate) cookie: Option<AsciiMetadataValue>,
}

impl From<Bytes> for Answer {
    fn from(body: Bytes) -> Self {
        Self { body: Some(body), cookie: None }
    }
}

/// Runs an action.
pub(crate) async fn run(
    service: &Service,
    caller: &Caller,
    gate: &Gate,
    name: &str,
    body: &[u8],
) -> Result<Answer, Status> {
    match name {
        "CreatePreparedStatement" => {
            let _pass = gate.enter()?;
            prepared::create(service, caller, unwrap(body)?).await.map(Answer::from)
        }
        "ClosePreparedStatement" => prepared::close(service, caller, &unwrap(body)?).map(|()| Answer::default()),
        "CancelQuery" => {
            let result = ActionCancelQueryResult { result: cancel::query(service, caller, &unwrap(body)?)? as i32 };
            Ok(Bytes::from(result.as_any().encode_to_vec()).into())
        }
        "CancelFlightInfo" => cancel::flight_info(service, caller, body).map(Answer::from),
        "KillQuery" => cancel::kill(service, caller, body).map(|()| Answer::default()),
        "GetSessionOptions" => session::get(service, caller).map(Answer::from),
        "SetSessionOptions" => {
            let (body, cookie) = session::set(service, caller, body).await?;
            Ok(Answer { body: Some(body), cookie })
        }
        "CloseSession" => session::close(service, caller).map(Answer::from),
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => Err(refuse(
            ErrorKind::Unsupported,
            "there are no transactions; each statement reads one snapshot of each table",
        )),
        "CreatePreparedSubstraitPlan" => {
            Err(refuse(ErrorKind::Unsupported, "Substrait plans are not read; prepare SQL text instead"))
        }
        other => Err(refuse(ErrorKind::Unsupported, format!("there is no action `{other}`"))),
    }
}

fn unwrap<M: ProstMessageExt + Default>(body: &[u8]) -> Result<M, Status> {
    let unreadable = |reason: String| refuse(ErrorKind::InvalidInput, format!("the action cannot be read: {reason}"));
    let any = Any::decode(body).map_err(|error| unreadable(error.to_string()))?;
    match any.unpack::<M>() {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(unreadable(format!("expected {}, found {}", M::type_url(), any.type_url))),
        Err(error) => Err(unreadable(error.to_string())),
    }
}
