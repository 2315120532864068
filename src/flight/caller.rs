//! Who a call comes from, and what they may see: read once where the call comes in.

use std::net::SocketAddr;

use http::Extensions;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpConnectInfo;

use crate::access::{Access, Principal};
use crate::flight::handshake;

/// Whoever makes a call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who it is, and what they may see and do.
    pub(crate) access: Access,
    #[expect(dead_code, reason = "read by what chooses how a client is sent rows")]
    /// What the client's program calls itself, in its own words; empty where it says nothing.
    pub(crate) user_agent: String,
    #[expect(dead_code, reason = "read by the history of statements")]
    /// Where the connection comes from.
    pub(crate) address: Option<SocketAddr>,
}

impl Caller {
    /// The caller of a call with these headers. There are no users yet.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where the header `authorization` cannot be read.
    pub(crate) fn read(headers: &MetadataMap, extensions: &Extensions) -> Result<Self, Status> {
        handshake::credentials(headers)?;
        let user_agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        Ok(Self { access: Access::unrestricted(Principal::anonymous()), user_agent, address })
    }

    /// The caller's name.
    pub(crate) fn name(&self) -> &str {
        &self.access.principal().name
    }
}
