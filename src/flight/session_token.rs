//! The token of a session: sealed, so that no server has to remember who was let in, and one with the same key
//! goes on with a session after a restart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::{DeliveryError, Purpose, Sealer};

/// What every token of a session begins with, which tells it from other tokens at a glance.
pub(crate) const PREFIX: &str = "lgs_";

/// Who was let in, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionToken {
    /// Names the session.
    pub(crate) session: Uuid,
    /// Who it is.
    pub(crate) name: String,
    /// What was shown in the handshake; it has to hold still at each call.
    pub(crate) origin: Origin,
    /// Milliseconds since 1970, UTC.
    pub(crate) expires_at: i64,
}

/// What a session was begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// Nothing: no users were configured.
    Anonymous,
    /// A password, of which this is told: another one has another hash.
    Password {
        /// See [`password_mark`].
        mark: String,
    },
    /// A personal token.
    Token {
        /// Its id.
        id: String,
    },
    /// A token of the identity provider; the session ends with it at the latest.
    Provider {
        /// What it said that may give roles.
        claims: Vec<String>,
    },
    /// The certificate of the connection.
    Certificate,
}

/// Tells a password's hash from another one, without telling the hash.
pub(crate) fn password_mark(hash: &SecretString) -> String {
    let mark = blake3::derive_key("lakegate 2026 marks of password hashes", hash.expose_secret().as_bytes());
    URL_SAFE_NO_PAD.encode(&mark[..16])
}

impl SessionToken {
    /// The token as text.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn seal(&self, sealer: &Sealer) -> Result<String, DeliveryError> {
        let content = serde_json::to_vec(self)
            .map_err(|error| DeliveryError::Sealing { what: "session token", reason: error.to_string() })?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealer.seal(Purpose::Session, &content)?)))
    }

    /// Reads a token; nothing where it was not sealed with the same key, or for something else.
    pub(crate) fn open(text: &str, sealer: &Sealer) -> Option<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        serde_json::from_slice(&sealer.open(Purpose::Session, &sealed).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::TicketKey;

    fn sealer(byte: &str) -> Sealer {
        Sealer::new(&TicketKey::parse(&byte.repeat(32)).unwrap())
    }

    #[test]
    fn a_token_is_read_with_its_key_only_and_not_when_altered() {
        let token = SessionToken {
            session: Uuid::new_v4(),
            name: "ann".to_owned(),
            origin: Origin::Anonymous,
            expires_at: 1_800_000_000_000,
        };
        let text = token.seal(&sealer("01")).unwrap();
        assert_eq!(SessionToken::open(&text, &sealer("01")), Some(token));
        assert_eq!(SessionToken::open(&text, &sealer("02")), None);
        assert_eq!(SessionToken::open(&text[4..], &sealer("01")), None);
        for (at, letter) in text.char_indices().skip(PREFIX.len()) {
            // The lowest bits of a letter at the end may stand for nothing, the highest always count.
            let other = if letter.is_ascii_uppercase() { 'z' } else { 'A' };
            let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(SessionToken::open(&altered, &sealer("01")), None, "letter {at} of {text}");
        }
        assert!(!text.contains("ann"));
    }
}
