//! Sealing bytes that travel through clients, so that nobody can read, alter or make them.

use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::delivery::{DeliveryError, TicketKey};

/// First byte of everything sealed: which layout follows. 1 = 24 bytes nonce, then the ciphertext
/// of XChaCha20-Poly1305 with its tag.
const LAYOUT: u8 = 1;
/// Bytes of an XChaCha20 nonce: long enough to be drawn at random (draft-irtf-cfrg-xchacha, section 3.1).
const NONCE_BYTES: usize = 24;

/// What sealed bytes are for. Each purpose has a key of its own, so one never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A result that can be fetched.
    Ticket,
    /// A prepared statement.
    PreparedStatement,
    /// Who was let in, for the calls after the first.
    Session,
    /// What a result was made of, to be sent what was added to it.
    Basis,
}

/// Seals, opens, and names results. Clones share keys.
#[derive(Clone)]
pub struct Sealer {
    tickets: Arc<XChaCha20Poly1305>,
    prepared: Arc<XChaCha20Poly1305>,
    sessions: Arc<XChaCha20Poly1305>,
    bases: Arc<XChaCha20Poly1305>,
    results: [u8; 32],
}

impl Sealer {
    /// A sealer whose keys are derived from one secret.
    pub fn new(key: &TicketKey) -> Self {
        let cipher = |context| Arc::new(XChaCha20Poly1305::new(&key.derive(context).into()));
        Self {
            tickets: cipher("lakegate 2026 tickets of results"),
            prepared: cipher("lakegate 2026 handles of prepared statements"),
            sessions: cipher("lakegate 2026 tokens of sessions"),
            bases: cipher("lakegate 2026 bases of results"),
            results: key.derive("lakegate 2026 identities of results"),
        }
    }

    /// Seals `content` under a fresh random nonce.
    ///
    /// # Errors
    /// `Sealing` when the system has no randomness to give.
    pub fn seal(&self, purpose: Purpose, content: &[u8]) -> Result<Vec<u8>, DeliveryError> {
        let failed = |reason: String| DeliveryError::Sealing { what: purpose.noun(), reason };
        let mut nonce = [0; NONCE_BYTES];
        OsRng.try_fill_bytes(&mut nonce).map_err(|error| failed(error.to_string()))?;
        let payload = Payload { msg: content, aad: &[LAYOUT] };
        let ciphertext = self
            .cipher(purpose)
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| failed("the content is too long".to_owned()))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        sealed.push(LAYOUT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// `NotOurs` when one bit differs, the key is another, or it was sealed for something else.
    pub fn open(&self, purpose: Purpose, sealed: &[u8]) -> Result<Vec<u8>, DeliveryError> {
        let not_ours = || DeliveryError::NotOurs { what: purpose.noun() };
        let (&layout, rest) = sealed.split_first().ok_or_else(not_ours)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(not_ours)?;
        if layout != LAYOUT {
            return Err(not_ours());
        }
        let payload = Payload { msg: ciphertext, aad: &[layout] };
        self.cipher(purpose).decrypt(&XNonce::from(*nonce), payload).map_err(|_| not_ours())
    }

    /// The name, in hex, of a result that depends on nothing but this content: a keyed hash, which tells nothing of it.
    pub fn name_of_result(&self, content: &[u8]) -> String {
        blake3::keyed_hash(&self.results, content).to_hex().to_string()
    }

    fn cipher(&self, purpose: Purpose) -> &XChaCha20Poly1305 {
        match purpose {
            Purpose::Ticket => &self.tickets,
            Purpose::PreparedStatement => &self.prepared,
            Purpose::Session => &self.sessions,
            Purpose::Basis => &self.bases,
        }
    }
}

impl Purpose {
    /// What a person calls it.
    fn noun(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::PreparedStatement => "prepared statement",
            Self::Session => "session token",
            Self::Basis => "basis of a result",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: &str) -> Sealer {
        Sealer::new(&TicketKey::parse(&byte.repeat(32)).unwrap())
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_only() {
        let sealed = sealer("01").seal(Purpose::Ticket, b"content").unwrap();
        assert_eq!(sealer("01").open(Purpose::Ticket, &sealed).unwrap(), b"content");
        assert!(sealer("02").open(Purpose::Ticket, &sealed).is_err());
        assert!(sealer("01").open(Purpose::PreparedStatement, &sealed).is_err());
    }

    #[test]
    fn no_bit_can_be_changed() {
        let sealer = sealer("01");
        let sealed = sealer.seal(Purpose::Ticket, b"content").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.clone();
                altered[at] ^= 1 << bit;
                assert!(sealer.open(Purpose::Ticket, &altered).is_err(), "byte {at} bit {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(Purpose::Ticket, &sealed[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn equal_content_looks_different_each_time() {
        let sealer = sealer("01");
        assert_ne!(sealer.seal(Purpose::Ticket, b"a").unwrap(), sealer.seal(Purpose::Ticket, b"a").unwrap());
    }
}
