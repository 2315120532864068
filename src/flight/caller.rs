//! Who a call comes from, and what they may see: read once where the call comes in.

use std::net::SocketAddr;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use http::Extensions;
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::access::{ADMIN_ROLE, Access};
use crate::config::ResultSettings;
use crate::delivery::{Encoders, Lane, Lines};
use crate::error::ErrorKind;
use crate::flight::admission::Person;
use crate::flight::authenticator::Authenticator;
use crate::flight::connection::Peer;
use crate::flight::described::Had;
use crate::flight::download::{RESUME, Wanted};
use crate::flight::profile::{Wishes, is_on_this_machine};
use crate::flight::rows::Outgoing;
use crate::flight::session::{InUse, Session, SessionKey, SessionOptions, Sessions};
use crate::flight::standing::Standing;
use crate::flight::status::refuse;
use crate::query::{Statement, TablePins};
use crate::runtime::clock::Clock;

/// The other end of the connection a call came on.
pub(crate) fn peer(extensions: &Extensions) -> Peer {
    extensions.get::<Peer>().cloned().unwrap_or_default()
}

/// Whoever makes a call.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Who it is, and what they may see and do.
    pub(crate) access: Access,
    /// What they were let in with.
    pub(crate) standing: Standing,
    /// What the client's program calls itself, in its own words; empty where it says nothing.
    pub(crate) user_agent: String,
    /// Where the connection comes from.
    pub(crate) address: Option<SocketAddr>,
    /// What the client says of results it has.
    pub(crate) had: Arc<Had>,
    /// What of the call names its session.
    pub(crate) session_key: SessionKey,
    /// What the call's headers say of how its client is sent rows.
    wishes: Wishes,
    /// From where on the call wants a result, where its client may come back for the rest of one.
    resume: Option<Wanted>,
    /// The session, once the call has entered it.
    session: Option<Arc<Session>>,
}

impl Caller {
    /// The caller of a call with these headers.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where users are configured and the headers do not prove to come from one; `INVALID_ARGUMENT`
    /// where one about encoding, or about what the client has of a result, cannot be read.
    pub(crate) async fn read(
        authenticator: &Authenticator,
        headers: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self, Status> {
        let user_agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let peer = peer(extensions);
        let known = authenticator.identify(headers, &peer).await?;
        let session_key = SessionKey::read(headers, known.session, peer.address);
        let wishes = Wishes::of(&user_agent, headers.as_ref())?;
        let wishes = wishes.when_near(is_on_this_machine(peer.address, headers.as_ref()));
        let resume = headers.get(RESUME).map(|value| wanted(value.to_str().unwrap_or_default())).transpose()?;
        let had = Arc::new(Had::read(headers));
        let (access, standing) = (known.standing.access().clone(), known.standing);
        let address = peer.address;
        Ok(Self { access, standing, user_agent, address, had, session_key, wishes, resume, session: None })
    }

    /// The caller on a server with these lines, that sends results so where nobody says otherwise.
    pub(crate) fn on(mut self, lines: &Lines, results: ResultSettings) -> Self {
        self.wishes = self.wishes.on(lines.defaults(self.address), results);
        self
    }

    /// From where on the caller wants a result; none where they do not come back for the rest of one.
    pub(crate) fn resume(&self) -> Option<Wanted> {
        self.resume
    }

    /// A result's way to the caller.
    pub(crate) fn lane(&self, lines: &Lines) -> Lane {
        lines.enter(self.access.principal(), self.address)
    }

    /// The way of a result over a lane to the caller. Where nothing better can be had, and that pays, its frames are compressed.
    pub(crate) fn outgoing(&self, lane: Lane, encoders: &Encoders) -> Outgoing {
        let gzip = lane.is_slow_enough_for_gzip() && self.wishes().takes_gzip();
        Outgoing::new(lane, gzip.then(|| encoders.clone()))
    }

    /// The caller within their session, which begins with this call where it has not begun.
    ///
    /// # Errors
    /// When the session is over, or there are too many.
    pub(crate) fn enter(mut self, sessions: &Sessions) -> Result<Self, Status> {
        self.session = Some(sessions.enter(&self)?);
        Ok(self)
    }

    /// The session's id; that of none where the call has not entered one.
    pub(crate) fn session_id(&self) -> Uuid {
        self.session.as_ref().map_or(Uuid::nil(), |session| session.id())
    }

    /// The session's options.
    pub(crate) fn options(&self) -> SessionOptions {
        self.session.as_ref().map(|session| session.options()).unwrap_or_default()
    }

    /// How the caller's client is sent rows: as its headers say, else its session, else as others of its kind.
    pub(crate) fn wishes(&self) -> Wishes {
        let options = self.options();
        self.wishes.within(|name| options.line_word(name))
    }

    /// A text as a statement of the session, at the newest versions of its tables.
    pub(crate) fn statement(&self, sql: &str, parameters: Vec<ScalarValue>) -> Statement {
        let options = self.options().of_statements();
        Statement { sql: sql.to_owned(), parameters, pins: TablePins::new(), options }
    }

    /// Counts a statement of the session, which uses it until what comes back is dropped.
    pub(crate) fn runs_statement(&self, clock: &Arc<dyn Clock>) -> Option<InUse> {
        self.session.as_ref().map(|session| session.runs_statement(clock))
    }

    /// The caller as somebody who waits for a turn.
    pub(crate) fn person(&self) -> Person {
        let principal = self.access.principal();
        Person { name: principal.name.clone(), is_admin: principal.has_role(ADMIN_ROLE) }
    }

    /// A caller without a call.
    #[cfg(test)]
    pub(crate) fn for_test(access: Access, session_key: SessionKey) -> Self {
        let (wishes, standing) = (Wishes::of_nobody(), Standing::for_test(access.clone()));
        let (user_agent, address, had) = (String::new(), None, Arc::default());
        Self { access, standing, user_agent, address, had, session_key, wishes, resume: None, session: None }
    }

    /// The caller's name.
    pub(crate) fn name(&self) -> &str {
        &self.access.principal().name
    }
}

fn wanted(text: &str) -> Result<Wanted, Status> {
    Wanted::parse(text.trim()).ok_or_else(|| {
        let told = format!(
            "`{RESUME}` is `0`, or the number of the next message and the hash of those before, as in `12:00ff…`, \
             with `;opening` behind it or without"
        );
        refuse(ErrorKind::InvalidInput, told)
    })
}
