//! Passwords: hashed with argon2id, checked on threads of their own, few at a time because each takes memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::access::AccessError;
use crate::runtime::clock::Clock;

/// What an unknown user's password is compared with, so that it takes as long as a known one's. No password has
/// this hash. Parameters as [`hash_password`] takes them.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bGFrZWdhdGUtbm9ib2R5cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Checks that may wait for their turn. More are refused: they would wait longer than anybody does.
const LONGEST_QUEUE: usize = 64;
/// How long a password that was right is taken for right again. Clients that show it with every call would
/// otherwise cost a hash each time.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Right passwords remembered at most.
const MOST_REMEMBERED: usize = 1024;
/// Longest password in bytes: longer ones only cost time.
const LONGEST_PASSWORD: usize = 1024;

/// A password's argon2id hash with a fresh salt, as a PHC string. Memory 19 MiB, 2 passes, 1 lane: the first
/// choice of the OWASP Password Storage Cheat Sheet, and the library's default.
///
/// # Errors
/// When the password is too long, or the system has no randomness to give.
pub fn hash_password(password: &SecretString) -> Result<SecretString, AccessError> {
    if password.expose_secret().len() > LONGEST_PASSWORD {
        return Err(AccessError::PasswordTooLong { longest: LONGEST_PASSWORD });
    }
    let mut salt = [0; 16];
    OsRng.try_fill_bytes(&mut salt).map_err(|error| AccessError::NoRandomness(error.to_string()))?;
    let failed = |error: argon2::password_hash::Error| AccessError::Hash(error.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let hash = Argon2::default().hash_password(password.expose_secret().as_bytes(), &salt).map_err(failed)?;
    Ok(hash.to_string().into())
}

/// Whether a password has a hash. Takes tens of milliseconds; the comparison's time tells nothing.
pub fn verify_password(password: &SecretString, hash: &SecretString) -> bool {
    verify(password.expose_secret(), hash.expose_secret())
}

fn verify(password: &str, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    password.len() <= LONGEST_PASSWORD && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// Checks passwords.
#[derive(Debug)]
pub struct PasswordChecks {
    slots: Arc<Semaphore>,
    queued: AtomicUsize,
    clock: Arc<dyn Clock>,
    /// Keyed hashes of a name, its password's hash and the password that had it, and until when that counts.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// The key, which lives and dies with the process.
    key: [u8; 32],
}

/// Too many passwords wait to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyChecks;

impl PasswordChecks {
    /// Checks at most `at_once` passwords at a time.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(at_once: usize, clock: Arc<dyn Clock>) -> Result<Self, AccessError> {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).map_err(|error| AccessError::NoRandomness(error.to_string()))?;
        let slots = Arc::new(Semaphore::new(at_once));
        Ok(Self { slots, queued: AtomicUsize::new(0), clock, remembered: Mutex::default(), key })
    }

    /// Whether a password is a user's. Where there is no such user, or one without a password, `hash` is nothing,
    /// and the answer takes as long.
    ///
    /// # Errors
    /// `TooManyChecks`.
    pub async fn check(
        &self,
        name: &str,
        password: &SecretString,
        hash: Option<&SecretString>,
    ) -> Result<bool, TooManyChecks> {
        let mark = hash.map(|hash| self.mark(name, password, hash));
        if mark.as_ref().is_some_and(|mark| self.remembers(mark)) {
            return Ok(true);
        }
        let _queued = Queued::enter(&self.queued)?;
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| TooManyChecks)?;
        let (password, known) = (password.clone(), hash.is_some());
        let hash = hash.map_or_else(|| NOBODYS.to_owned(), |hash| hash.expose_secret().to_owned());
        let checking = tokio::task::spawn_blocking(move || {
            // Held to the end of the check, even where nobody waits for it any more.
            let _slot = slot;
            verify(password.expose_secret(), &hash)
        });
        let right = checking.await.unwrap_or(false) && known;
        if let (true, Some(mark)) = (right, mark) {
            self.remember(mark);
        }
        Ok(right)
    }

    fn mark(&self, name: &str, password: &SecretString, hash: &SecretString) -> [u8; 32] {
        let mut mark = blake3::Hasher::new_keyed(&self.key);
        for part in [name, hash.expose_secret(), password.expose_secret()] {
            mark.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        *mark.finalize().as_bytes()
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(mark).is_some_and(|until| self.clock.monotonic() < *until)
    }

    fn remember(&self, mark: [u8; 32]) {
        let now = self.clock.monotonic();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, until| now < *until);
        }
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(mark, now + REMEMBERED);
    }
}

/// A place in the queue of checks, given back when dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, TooManyChecks> {
        let queued = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) {
            before if before < LONGEST_QUEUE => Ok(queued),
            _ => Err(TooManyChecks),
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::SystemClock;

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    #[test]
    fn a_hash_is_argon2id_with_the_recommended_parameters_and_a_salt_of_its_own() {
        let hash = hash_password(&secret("pass:wörd")).unwrap();
        assert!(hash.expose_secret().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash.expose_secret(), hash_password(&secret("pass:wörd")).unwrap().expose_secret());
        assert!(verify_password(&secret("pass:wörd"), &hash) && !verify_password(&secret("pass:word"), &hash));
        assert!(hash_password(&secret(&"x".repeat(2000))).is_err());
    }

    #[test]
    fn nobodys_hash_is_checked_as_a_real_one_is() {
        let parsed = PasswordHash::new(NOBODYS).unwrap();
        let real = hash_password(&secret("x")).unwrap();
        let real = PasswordHash::new(real.expose_secret()).unwrap();
        assert_eq!((parsed.algorithm, parsed.version, &parsed.params), (real.algorithm, real.version, &real.params));
        assert_eq!(parsed.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[tokio::test]
    async fn a_password_that_was_right_is_remembered_for_its_hash_only() {
        let checks = PasswordChecks::new(1, Arc::new(SystemClock)).unwrap();
        let hash = hash_password(&secret("right")).unwrap();
        assert_eq!(checks.check("ann", &secret("wrong"), Some(&hash)).await, Ok(false));
        assert_eq!(checks.check("ann", &secret("right"), None).await, Ok(false));
        assert_eq!(checks.check("ann", &secret("right"), Some(&hash)).await, Ok(true));
        let mark = |password: &str, hash: &SecretString| checks.mark("ann", &secret(password), hash);
        assert!(checks.remembers(&mark("right", &hash)) && !checks.remembers(&mark("wrong", &hash)));
        let changed = hash_password(&secret("right")).unwrap();
        assert!(!checks.remembers(&mark("right", &changed)), "a new hash is a new password");
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let checks = PasswordChecks::new(1, Arc::new(SystemClock)).unwrap();
        let _held = Arc::clone(&checks.slots).acquire_owned().await.unwrap();
        let password = secret("x");
        let mut waiting: Vec<_> = (0..LONGEST_QUEUE).map(|_| Box::pin(checks.check("ann", &password, None))).collect();
        for check in &mut waiting {
            assert!(futures::poll!(check).is_pending());
        }
        assert_eq!(checks.check("ann", &password, None).await, Err(TooManyChecks));
        drop(waiting);
        assert!(futures::poll!(Box::pin(checks.check("ann", &password, None))).is_pending());
    }
}
