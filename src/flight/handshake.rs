//! `Handshake`: credentials for the token of a session, in each of the ways clients do it.
//!
//! Most clients put the credentials into the header `authorization` and send no message at all, take the token
//! from the answer's header of the same name and send it back with each call. One sends one empty message. The
//! protocol's first way sends a `BasicAuth` in the first message and takes the token from the first answer. Only that
//! one is sent a message: behind one that a client does not read, as ODBC's driver with a token, its gRPC would never
//! see the end of the call.

use std::time::Duration;

use arrow_flight::{HandshakeRequest, HandshakeResponse};
use bytes::Bytes;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::error::ErrorKind;
use crate::flight::authenticator::Authenticator;
use crate::flight::caller;
use crate::flight::credentials::Credentials;
use crate::flight::service::Boxed;
use crate::flight::status::refuse;

/// How long a client may take for its first message, or for saying that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client whose credentials are known may take to close its side. The gRPC of C++ breaks down, and its process
/// with it, where a call ends while it still sends; others never close theirs, and wait for this long.
const CLOSING: Duration = Duration::from_millis(200);

/// Answers a handshake with the token of a new session.
pub(crate) async fn answer(
    authenticator: &Authenticator,
    request: Request<Streaming<HandshakeRequest>>,
) -> Result<Response<Boxed<HandshakeResponse>>, Status> {
    let peer = caller::peer(request.extensions());
    let mut credentials = Credentials::of(request.metadata());
    let mut reads_messages = false;
    let mut messages = request.into_inner();
    if credentials == Credentials::None {
        // Only a client without a header may have something to say in a message; others often send none, ever.
        if let Ok(first) = tokio::time::timeout(PATIENCE, messages.message()).await {
            credentials = first?.map_or(Credentials::None, |first| Credentials::of_payload(&first.payload));
            reads_messages = credentials != Credentials::None;
        }
    }
    if !reads_messages {
        let closed = async { while let Ok(Some(_)) = messages.message().await {} };
        let _ = tokio::time::timeout(CLOSING, closed).await;
    }
    let token = authenticator.begin_session(credentials, &peer).await?;
    let header = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| refuse(ErrorKind::Internal, "the session's token is no header"))?;
    let message = reads_messages.then(|| HandshakeResponse { protocol_version: 0, payload: Bytes::from(token) });
    let mut response: Response<Boxed<HandshakeResponse>> =
        Response::new(Box::pin(futures::stream::iter(message.map(Ok))));
    response.metadata_mut().insert("authorization", header);
    Ok(response)
}
