//! Tells who makes a call, from what its headers and its connection show.
//!
//! Where no users are configured everybody is anonymous. Otherwise a call shows a password or a token with itself, or
//! the token of a session that a handshake began with one of them. What a session was begun with has to hold still at
//! each of its calls: a new password, a revoked token and a user who was taken away end it at once.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use crate::access::{
    Directory, Failures, LiveDirectory, NotChecked, PasswordChecks, Principal, Provider, TOKEN_PREFIX, looks_like_jwt,
};
use crate::config::check_foreign_name;
use crate::delivery::Sealer;
use crate::error::ErrorKind;
use crate::flight::FlightError;
use crate::flight::connection::Peer;
use crate::flight::credentials::Credentials;
use crate::flight::entrance::Entrance;
use crate::flight::server::ServiceParts;
use crate::flight::session_token::{self, Origin, SessionToken, password_mark};
use crate::flight::standing::{self, Standing};
use crate::flight::status::{not_now, refuse};
use crate::runtime::clock::Clock;

/// Tells who makes a call.
pub(crate) struct Authenticator {
    directory: LiveDirectory,
    passwords: PasswordChecks,
    provider: Option<Arc<Provider>>,
    session_lifetime: Duration,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
}

/// Who somebody turned out to be.
pub(crate) struct Known {
    /// What they were let in with, and what they may see and do by it.
    pub(crate) standing: Standing,
    /// The session whose token was shown; none where other credentials were.
    pub(crate) session: Option<Uuid>,
}

/// Who it is, and what proved it.
struct Proof {
    name: String,
    origin: Origin,
    /// The session, where a session's token was shown.
    session: Option<Uuid>,
    /// From when on the proof no longer counts.
    expires_at: Option<DateTime<Utc>>,
}

impl Proof {
    fn new(name: &str, origin: Origin) -> Self {
        Self { name: name.to_owned(), origin, session: None, expires_at: None }
    }
}

impl Authenticator {
    /// Lets in whom the settings and the entrance of a service let in; sessions are sealed with `sealer`.
    pub(crate) fn new(parts: &ServiceParts, entrance: &Entrance, sealer: Sealer) -> Result<Self, FlightError> {
        let (settings, clock) = (&parts.settings.access, Arc::clone(&parts.clock));
        let provider = settings.oidc.clone().map(|oidc| Provider::new(oidc, Arc::clone(&clock))).transpose()?;
        let failures = Failures::new(settings.failure_delay, settings.longest_delay, Arc::clone(&clock));
        Ok(Self {
            directory: entrance.directory.clone(),
            passwords: PasswordChecks::new(settings.parallel_checks.get(), failures, Arc::clone(&clock))?,
            provider,
            session_lifetime: settings.session_lifetime,
            sealer,
            clock,
        })
    }

    /// Who makes a call with these headers.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where users are configured and the headers do not prove to come from one.
    pub(crate) async fn identify(&self, headers: &MetadataMap, peer: &Peer) -> Result<Known, Status> {
        let directory = self.directory.current();
        let proof = self.prove(&directory, Credentials::of(headers), peer).await?;
        let Proof { name, origin, session, .. } = proof;
        let directory = (self.directory.clone(), directory);
        Ok(Known { standing: Standing::new(directory, Arc::clone(&self.clock), name, origin), session })
    }

    /// Begins a session with what was shown in a handshake, and gives its token.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub(crate) async fn begin_session(&self, credentials: Credentials, peer: &Peer) -> Result<String, Status> {
        let directory = self.directory.current();
        let proof = self.prove(&directory, credentials, peer).await?;
        let end = self.clock.now() + self.session_lifetime;
        let expires_at = proof.expires_at.map_or(end, |expires_at| end.min(expires_at)).timestamp_millis();
        // Whoever shakes hands again with the token of a session goes on with it, and not for longer.
        let session = proof.session.unwrap_or_else(Uuid::new_v4);
        let origin = match proof.origin {
            Origin::Provider { claims } => Origin::Provider { claims: directory.claims_that_count(claims) },
            origin => origin,
        };
        Ok(SessionToken { session, name: proof.name, origin, expires_at }.seal(&self.sealer)?)
    }

    /// Who it is.
    async fn prove(&self, directory: &Directory, shown: Credentials, peer: &Peer) -> Result<Proof, Status> {
        if !directory.is_closed() {
            return Ok(self.anonymous(&shown));
        }
        let proof = match shown {
            Credentials::None => {
                let name = peer.certificate_name.as_ref().ok_or_else(missing)?;
                check_foreign_name(name).map_err(|reason| {
                    tracing::warn!(address = ?peer.address, %reason, "the name in a client's certificate was not accepted");
                    refused()
                })?;
                return Ok(Proof::new(name, Origin::Certificate));
            }
            Credentials::Unreadable => None,
            Credentials::Bearer(token) => self.by_token(directory, &token, peer).await,
            Credentials::Basic(_, token) if is_token(&token) => self.by_token(directory, &token, peer).await,
            Credentials::Basic(name, password) => Some(self.by_password(directory, &name, &password, peer).await?),
        };
        let proof = proof.ok_or_else(refused)?;
        // A certificate and credentials that name two people are one too many: neither is believed.
        match &peer.certificate_name {
            Some(certified) if *certified != proof.name => Err(refused()),
            _ => Ok(proof),
        }
    }

    fn anonymous(&self, shown: &Credentials) -> Proof {
        let token = match shown {
            Credentials::Bearer(token) => SessionToken::open(token.expose_secret(), &self.sealer),
            _ => None,
        };
        let session = token.map(|token| token.session);
        Proof { session, ..Proof::new(&Principal::anonymous().name, Origin::Anonymous) }
    }

    async fn by_password(
        &self,
        directory: &Directory,
        name: &str,
        password: &SecretString,
        peer: &Peer,
    ) -> Result<Proof, Status> {
        let address = peer.address.map(|address| address.ip());
        let hash = directory.user(name).and_then(|user| user.password.as_ref());
        let checked = self.passwords.check((name, address), password, hash).await;
        let right = checked.map_err(|reason| match reason {
            NotChecked::TooMany => busy(),
            NotChecked::Wait(wait) => too_soon(wait),
        })?;
        match hash.filter(|_| right) {
            Some(hash) => Ok(Proof::new(name, Origin::Password { mark: password_mark(hash) })),
            None => {
                tracing::warn!(user = shortened(name), ?address, "a password was not accepted");
                Err(refused())
            }
        }
    }

    /// Whose a token is: a session's, a personal one, or one of the identity provider.
    async fn by_token(&self, directory: &Directory, token: &SecretString, peer: &Peer) -> Option<Proof> {
        let text = token.expose_secret();
        let address = peer.address.map(|address| address.ip());
        let proof = if text.starts_with(session_token::PREFIX) {
            self.by_session(directory, text, peer)
        } else if text.starts_with(TOKEN_PREFIX) {
            let owner = directory.token_owner(token, self.clock.now());
            owner.map(|(name, token)| Proof {
                expires_at: token.expires_at,
                ..Proof::new(name, Origin::Token { id: token.id.clone() })
            })
        } else if let Some(provider) = &self.provider {
            match provider.verify(text, self.clock.now()).await {
                Ok(claims) => {
                    let origin = Origin::Provider { claims: claims.roles };
                    Some(Proof { expires_at: Some(claims.expires_at), ..Proof::new(&claims.name, origin) })
                }
                Err(reason) => {
                    tracing::info!(?address, %reason, "a token of the identity provider was not accepted");
                    return None;
                }
            }
        } else {
            None
        };
        if proof.is_none() {
            tracing::info!(?address, "a token was not accepted");
        }
        proof
    }

    /// Whose a session is, where what it was begun with holds still.
    fn by_session(&self, directory: &Directory, text: &str, peer: &Peer) -> Option<Proof> {
        let now = self.clock.now();
        let token = SessionToken::open(text, &self.sealer)?;
        let expires_at = DateTime::from_timestamp_millis(token.expires_at).filter(|end| now < *end)?;
        let by_others = match &token.origin {
            Origin::Provider { .. } => self.provider.is_some(),
            Origin::Certificate => peer.certificate_name.as_ref() == Some(&token.name),
            Origin::Anonymous | Origin::Password { .. } | Origin::Token { .. } => true,
        };
        let holds = by_others && standing::holds(directory, &token.name, &token.origin, now);
        let SessionToken { session, name, origin, .. } = token;
        holds.then_some(Proof { name, origin, session: Some(session), expires_at: Some(expires_at) })
    }
}

/// Whether a password is in truth a token, as tools send it that know nothing but user and password.
fn is_token(password: &SecretString) -> bool {
    let text = password.expose_secret();
    text.starts_with(TOKEN_PREFIX) || text.starts_with(session_token::PREFIX) || looks_like_jwt(text)
}

/// A name a stranger sent, for the log.
fn shortened(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

fn missing() -> Status {
    refuse(
        ErrorKind::Unauthenticated,
        "this server wants to know who asks: connect with user and password, or with a token",
    )
}

/// One answer for whatever was wrong.
fn refused() -> Status {
    refuse(ErrorKind::Unauthenticated, "user, password or token are not accepted; log in anew, or ask an administrator")
}

fn too_soon(wait: Duration) -> Status {
    let wait = humantime::format_duration(Duration::from_millis(wait.as_millis().try_into().unwrap_or(u64::MAX)));
    refuse(
        ErrorKind::ResourceExhausted,
        format!("after a wrong password this user has to wait at this address; try again in {wait}"),
    )
}

fn busy() -> Status {
    not_now("too many people log in at this moment; try again in a second")
}
