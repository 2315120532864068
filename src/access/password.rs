//! Passwords: hashed with argon2id, checked on threads of their own, few at a time because each takes memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::SaltString;
use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::access::failures::network;
use crate::access::{AccessError, Failures};
use crate::runtime::clock::Clock;

/// What an unknown user's password is compared with, so that it takes as long as a known one's. No password has
/// this hash. Parameters as [`hash_password`] takes them.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bGFrZWdhdGUtbm9ib2R5cw$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Checks that may wait for their turn, and those that may wait at one address. More are refused: they would wait
/// longer than anybody does.
const LONGEST_QUEUE: usize = 64;
/// Of the checks that wait for their turn those of one address at most; its others wait behind them. A stranger who logs
/// in all the time fills the queue of their own address, and leaves most of the common one to others.
const PLACES_OF_ADDRESS: usize = 8;
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

/// Checks passwords, and makes wait who showed a wrong one.
#[derive(Debug)]
pub struct PasswordChecks {
    slots: Arc<Semaphore>,
    queued: AtomicUsize,
    /// Those who wait, by where they come from.
    addresses: Mutex<HashMap<Option<IpAddr>, AddressQueue>>,
    failures: Arc<Failures>,
    clock: Arc<dyn Clock>,
    /// Keyed hashes of a name, its password's hash and the password that had it, and until when that counts.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    /// The key, which lives and dies with the process.
    key: [u8; 32],
}

/// Why a password was not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotChecked {
    /// Too many wait to be checked.
    TooMany,
    /// After a wrong one this has to be waited.
    Wait(Duration),
}

impl PasswordChecks {
    /// Checks at most `at_once` passwords at a time, and notes `failures`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(at_once: usize, failures: Failures, clock: Arc<dyn Clock>) -> Result<Self, AccessError> {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).map_err(|error| AccessError::NoRandomness(error.to_string()))?;
        let (slots, failures) = (Arc::new(Semaphore::new(at_once)), Arc::new(failures));
        let (queued, addresses, remembered) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Ok(Self { slots, queued, addresses, failures, clock, remembered, key })
    }

    /// Whether a password that was sent from an address is a user's. Where there is no such user, or one without a
    /// password, `hash` is nothing, and the answer takes as long.
    ///
    /// # Errors
    /// When it was not looked at.
    pub async fn check(
        &self,
        (name, address): (&str, Option<IpAddr>),
        password: &SecretString,
        hash: Option<&SecretString>,
    ) -> Result<bool, NotChecked> {
        let mark = hash.map(|hash| self.mark(name, password, hash));
        if self.recalls(name, address, mark.as_ref())? {
            return Ok(true);
        }
        let at_address = AtAddress::enter(&self.addresses, address.map(network))?;
        // No semaphore here is ever closed.
        let _place = at_address.places.acquire().await.map_err(|_| NotChecked::TooMany)?;
        let _queued = Queued::enter(&self.queued)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| NotChecked::TooMany)?;
        // The same name may have been tried from the same address meanwhile.
        if self.recalls(name, address, mark.as_ref())? {
            return Ok(true);
        }
        let (password, known) = (password.clone(), hash.is_some());
        let hash = hash.map_or_else(|| NOBODYS.to_owned(), |hash| hash.expose_secret().to_owned());
        let (failures, name) = (Arc::clone(&self.failures), name.to_owned());
        let checking = tokio::task::spawn_blocking(move || {
            // Held to the end of the check, even where nobody waits for it any more, and until the next one sees how it ended.
            let _slot = slot;
            let right = verify(password.expose_secret(), &hash) && known;
            if right {
                failures.succeeded(&name, address);
            } else {
                failures.failed(&name, address);
            }
            right
        });
        let right = checking.await.unwrap_or(false);
        if let (true, Some(mark)) = (right, mark) {
            self.remember(mark);
        }
        Ok(right)
    }

    /// Whether a password was right lately; an error where somebody has to wait before any is looked at.
    fn recalls(&self, name: &str, address: Option<IpAddr>, mark: Option<&[u8; 32]>) -> Result<bool, NotChecked> {
        if let Some(wait) = self.failures.wait(name, address) {
            return Err(NotChecked::Wait(wait));
        }
        let right = mark.is_some_and(|mark| self.remembers(mark));
        if right {
            self.failures.succeeded(name, address);
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

/// The checks of one address.
#[derive(Debug)]
struct AddressQueue {
    waiting: usize,
    /// Those that may stand in the common queue.
    places: Arc<Semaphore>,
}

/// A place in the queue of an address, given back when dropped.
struct AtAddress<'a> {
    addresses: &'a Mutex<HashMap<Option<IpAddr>, AddressQueue>>,
    address: Option<IpAddr>,
    places: Arc<Semaphore>,
}

impl<'a> AtAddress<'a> {
    fn enter(
        addresses: &'a Mutex<HashMap<Option<IpAddr>, AddressQueue>>,
        address: Option<IpAddr>,
    ) -> Result<Self, NotChecked> {
        let mut queues = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let places = || Arc::new(Semaphore::new(PLACES_OF_ADDRESS));
        let queue = queues.entry(address).or_insert_with(|| AddressQueue { waiting: 0, places: places() });
        if queue.waiting >= LONGEST_QUEUE {
            return Err(NotChecked::TooMany);
        }
        queue.waiting += 1;
        Ok(Self { addresses, address, places: Arc::clone(&queue.places) })
    }
}

impl Drop for AtAddress<'_> {
    fn drop(&mut self) {
        let mut queues = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(&self.address) else { return };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            queues.remove(&self.address);
        }
    }
}

/// A place in the common queue of checks, given back when dropped.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, NotChecked> {
        let queued = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) {
            before if before < LONGEST_QUEUE => Ok(queued),
            _ => Err(NotChecked::TooMany),
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
    use crate::runtime::clock::ManualClock;

    fn secret(text: &str) -> SecretString {
        text.into()
    }

    /// One check at a time.
    fn checks() -> PasswordChecks {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(chrono::DateTime::UNIX_EPOCH));
        let failures = Failures::new(Duration::from_secs(1), Duration::from_secs(60), Arc::clone(&clock));
        PasswordChecks::new(1, failures, clock).unwrap()
    }

    fn at(name: &str, last: u8) -> (&str, Option<IpAddr>) {
        (name, Some([10, 0, 0, last].into()))
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
        let checks = checks();
        let hash = hash_password(&secret("right")).unwrap();
        assert_eq!(checks.check(at("ann", 1), &secret("wrong"), Some(&hash)).await, Ok(false));
        assert_eq!(checks.check(at("ann", 2), &secret("right"), None).await, Ok(false));
        assert_eq!(checks.check(at("ann", 3), &secret("right"), Some(&hash)).await, Ok(true));
        let mark = |password: &str, hash: &SecretString| checks.mark("ann", &secret(password), hash);
        assert!(checks.remembers(&mark("right", &hash)) && !checks.remembers(&mark("wrong", &hash)));
        let changed = hash_password(&secret("right")).unwrap();
        assert!(!checks.remembers(&mark("right", &changed)), "a new hash is a new password");
    }

    #[tokio::test]
    async fn one_address_waits_behind_itself_and_leaves_room_for_others() {
        let checks = checks();
        let _held = Arc::clone(&checks.slots).acquire_owned().await.unwrap();
        let password = secret("x");
        let check = |last| Box::pin(checks.check(at("ann", last), &password, None));
        let mut waiting: Vec<_> = (0..LONGEST_QUEUE).map(|_| check(1)).collect();
        for check in &mut waiting {
            assert!(futures::poll!(check).is_pending());
        }
        assert_eq!(check(1).await, Err(NotChecked::TooMany));
        let mut other = check(2);
        assert!(futures::poll!(&mut other).is_pending(), "nobody elsewhere is refused");
        assert_eq!(checks.queued.load(Ordering::Relaxed), PLACES_OF_ADDRESS + 1);
        drop((waiting, other));
        assert!(checks.addresses.lock().unwrap().is_empty());
        assert!(futures::poll!(check(1)).is_pending());
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let checks = checks();
        let _held = Arc::clone(&checks.slots).acquire_owned().await.unwrap();
        let password = secret("x");
        let check = |last| Box::pin(checks.check(at("ann", last), &password, None));
        let addresses = u8::try_from(LONGEST_QUEUE / PLACES_OF_ADDRESS).unwrap();
        let mut waiting: Vec<_> = (0..addresses).flat_map(|last| [last; PLACES_OF_ADDRESS]).map(check).collect();
        for check in &mut waiting {
            assert!(futures::poll!(check).is_pending());
        }
        assert_eq!(check(addresses).await, Err(NotChecked::TooMany));
        drop(waiting);
        assert!(futures::poll!(check(addresses)).is_pending());
    }

    #[tokio::test]
    async fn guesses_that_came_together_wait_for_each_other() {
        let checks = checks();
        let hash = hash_password(&secret("right")).unwrap();
        let (wrong, right) = (secret("wrong"), secret("right"));
        let guess = |password| checks.check(at("ann", 1), password, Some(&hash));
        let elsewhere = checks.check(at("ann", 2), &right, Some(&hash));
        let (first, second, third, elsewhere) = tokio::join!(guess(&wrong), guess(&wrong), guess(&right), elsewhere);
        let wait = Err(NotChecked::Wait(Duration::from_secs(1)));
        assert_eq!((first, second, third, elsewhere), (Ok(false), wait, wait, Ok(true)));
    }
}
