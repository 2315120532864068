//! Personal tokens: `lgp_<id>_<secret>`. Only their hash is kept.

use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret, SecretString};

use crate::access::AccessError;

/// What every personal token begins with, so that people and scanners of leaked secrets know one when they see it.
pub const TOKEN_PREFIX: &str = "lgp_";

/// A token just made. It is shown once.
#[derive(Debug)]
pub struct NewToken {
    /// The token itself.
    pub text: SecretString,
    /// Names it; the part between the underscores.
    pub id: String,
    /// BLAKE3 of the whole text. The secret is 256 random bits: nothing slower is needed to keep it from being guessed.
    pub hash: [u8; 32],
}

impl NewToken {
    /// A token with 256 random bits.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn make() -> Result<Self, AccessError> {
        let mut bytes = [0; 5 + 32];
        OsRng.try_fill_bytes(&mut bytes).map_err(|error| AccessError::NoRandomness(error.to_string()))?;
        let (id, secret) = bytes.split_at(5);
        let id = hex(id);
        let text = format!("{TOKEN_PREFIX}{id}_{}", hex(secret));
        let hash = token_hash(&text);
        Ok(Self { text: text.into(), id, hash })
    }
}

/// The id in a personal token; nothing where a text is none.
pub fn token_id(token: &SecretString) -> Option<&str> {
    let (id, secret) = token.expose_secret().strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    (!id.is_empty() && !secret.is_empty()).then_some(id)
}

/// Whether a token has a hash; the comparison's time tells nothing.
pub(crate) fn token_has_hash(token: &SecretString, hash: &[u8; 32]) -> bool {
    // Hashes of BLAKE3 compare in constant time.
    blake3::Hash::from_bytes(token_hash(token.expose_secret())) == blake3::Hash::from_bytes(*hash)
}

fn token_hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_id_and_its_hash() {
        let (token, other) = (NewToken::make().unwrap(), NewToken::make().unwrap());
        assert_eq!(token_id(&token.text), Some(token.id.as_str()));
        assert!(token_has_hash(&token.text, &token.hash) && !token_has_hash(&other.text, &token.hash));
        assert_eq!(token.text.expose_secret().len(), 4 + 10 + 1 + 64);
        for wrong in ["lgp_", "lgp_a", "lgp_a_", "lgp__b", "lgs_a_b", ""] {
            assert_eq!(token_id(&wrong.into()), None, "{wrong}");
        }
    }
}
