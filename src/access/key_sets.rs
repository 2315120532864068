//! The keys of an identity provider, fetched when they are needed and kept: a provider that is away for an hour
//! keeps nobody out, and a new key is known within a minute.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::access::AccessError;
use crate::access::jwt::{Claims, JwtError, KeySet};
use crate::config::{KeySetPlace, OidcSettings};
use crate::runtime::clock::Clock;

/// Keys are not asked for more often: whoever shows tokens with made-up key ids could make us a burden.
const LEAST_INTERVAL: Duration = Duration::from_secs(60);
/// Keys older than this are asked for anew beside the work: one that was withdrawn has to lose its power.
const FRESH: Duration = Duration::from_secs(600);
/// Longest time a provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest document in bytes that is read.
const LARGEST: usize = 1 << 20;

/// An identity provider's keys, and what its tokens have to say.
#[derive(Debug)]
pub struct Provider {
    settings: OidcSettings,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
    known: RwLock<Known>,
    /// Held while keys are fetched; says when that was last tried.
    tried: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    keys: Arc<KeySet>,
    since: Option<Instant>,
}

impl Provider {
    /// A provider whose keys have not been asked for yet.
    ///
    /// # Errors
    /// When no connection can be made secure on this machine.
    pub fn new(settings: OidcSettings, clock: Arc<dyn Clock>) -> Result<Arc<Self>, AccessError> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| AccessError::Keys { place: place(&settings.jwks), reason: error.to_string() })?;
        Ok(Arc::new(Self { settings, client, clock, known: RwLock::default(), tried: Arc::default() }))
    }

    /// Checks a token. Where its key is not known, keys are asked for anew, at most once a minute.
    ///
    /// # Errors
    /// Why it does not count.
    pub async fn verify(self: &Arc<Self>, token: &str, now: DateTime<Utc>) -> Result<Claims, JwtError> {
        let known = self.known();
        let Some(since) = known.since else {
            self.refresh().await;
            let known = self.known();
            known.since.ok_or(JwtError::NoKeys)?;
            return known.keys.verify(token, &self.settings, now);
        };
        if self.clock.monotonic().saturating_duration_since(since) > FRESH && self.tried.try_lock().is_ok() {
            let provider = Arc::clone(self);
            tokio::spawn(async move { provider.refresh().await });
        }
        match known.keys.verify(token, &self.settings, now) {
            Err(JwtError::UnknownKey) => {
                self.refresh().await;
                self.known().keys.verify(token, &self.settings, now)
            }
            verified => verified,
        }
    }

    /// Asks for the keys, unless that was tried less than a minute ago. What is known stays where that fails.
    ///
    /// Whoever asked first may go away: the keys are fetched all the same, else a stranger who hangs up at once, every
    /// minute, would keep them from everybody.
    pub async fn refresh(self: &Arc<Self>) {
        let mut tried = Arc::clone(&self.tried).lock_owned().await;
        let now = self.clock.monotonic();
        if tried.is_some_and(|tried| now.saturating_duration_since(tried) < LEAST_INTERVAL) {
            return;
        }
        *tried = Some(now);
        let provider = Arc::clone(self);
        let fetching = tokio::spawn(async move {
            provider.renew(now).await;
            drop(tried);
        });
        // A panic has written to the log where it was.
        let _ = fetching.await;
    }

    async fn renew(&self, now: Instant) {
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys: Arc::new(keys), since: Some(now) };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            }
            Err(reason) => {
                let error = AccessError::Keys { place: place(&self.settings.jwks), reason };
                tracing::error!(%error, "tokens of the identity provider are checked with the keys known before, if any");
            }
        }
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let text = match &self.settings.jwks {
            KeySetPlace::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
            KeySetPlace::Url(url) => self.download(url.clone()).await?,
        };
        KeySet::parse(&text)
    }

    async fn download(&self, url: url::Url) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| crate::error::chain_text(&error);
        let answer = self.client.get(url).header("accept", "application/json").send().await.map_err(failed)?;
        let mut answer = answer.error_for_status().map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let mut text = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            if text.len() + part.len() > LARGEST {
                return Err(format!("the answer is larger than {LARGEST} bytes"));
            }
            text.extend_from_slice(&part);
        }
        Ok(text)
    }
}

fn place(place: &KeySetPlace) -> String {
    match place {
        KeySetPlace::File(path) => path.display().to_string(),
        KeySetPlace::Url(url) => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::SystemClock;

    #[tokio::test]
    async fn keys_are_fetched_though_who_asked_for_them_went_away() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let key = serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": "A".repeat(43) });
        std::fs::write(&file, serde_json::json!({ "keys": [key] }).to_string()).unwrap();
        let settings = OidcSettings {
            issuer: "https://login.example".to_owned(),
            audience: vec!["lakegate".to_owned()],
            jwks: KeySetPlace::File(file.path().to_owned()),
            name_claim: "sub".to_owned(),
            role_claims: Vec::new(),
            clock_skew: Duration::ZERO,
        };
        let provider = Provider::new(settings, Arc::new(SystemClock)).unwrap();
        let mut stranger = Box::pin(provider.refresh());
        assert!(futures::poll!(&mut stranger).is_pending());
        drop(stranger);
        // Comes to its end when the keys are there: they were asked for less than a minute ago.
        provider.refresh().await;
        assert!(provider.known().since.is_some());
    }
}
