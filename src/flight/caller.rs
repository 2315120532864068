//! Who a call comes from, and what they may see: read once where the call comes in.

use std::net::SocketAddr;

use http::Extensions;
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::access::Access;
use crate::flight::authenticator::Authenticator;
use crate::flight::connection::Peer;

/// The other end of the connection a call came on.
pub(crate) fn peer(extensions: &Extensions) -> Peer {
    extensions.get::<Peer>().cloned().unwrap_or_default()
}

/// Whoever makes a call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who it is, and what they may see and do.
    pub(crate) access: Access,
    #[expect(dead_code, reason = "read by what keeps something for a session")]
    /// The session: what began with the handshake whose token the call shows, else all calls with the same
    /// credentials from the same address.
    pub(crate) session: Uuid,
    #[expect(dead_code, reason = "read by what chooses how a client is sent rows")]
    /// What the client's program calls itself, in its own words; empty where it says nothing.
    pub(crate) user_agent: String,
    #[expect(dead_code, reason = "read by the history of statements")]
    /// Where the connection comes from.
    pub(crate) address: Option<SocketAddr>,
}

impl Caller {
    /// The caller of a call with these headers.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where users are configured and the headers do not prove to come from one.
    pub(crate) async fn read(
        authenticator: &Authenticator,
        headers: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self, Status> {
        let user_agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let peer = peer(extensions);
        let known = authenticator.identify(headers, &peer).await?;
        Ok(Self { access: known.access, session: known.session, user_agent, address: peer.address })
    }

    /// The caller's name.
    pub(crate) fn name(&self) -> &str {
        &self.access.principal().name
    }
}
