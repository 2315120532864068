//! Tokens of an identity provider: its keys in a file and at an address, exchanged, away, and back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::Code;

use super::door::{Door, House};
use crate::support::credentials::basic;

/// An RSA key for tests, made once: making one takes a second.
const RSA_KEY: &[u8] = include_bytes!("rsa.pk8");
/// When the doors' clocks begin.
const NOW: i64 = 1_800_000_000;

/// Somebody who signs.
enum Signer {
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Signer {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()))
    }

    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(RSA_KEY).unwrap()))
    }

    /// The public key as JWKS has it.
    fn public(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(key.public_key().as_ref()) })
            }
            Self::Rsa(key) => {
                let public: PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({ "kty": "RSA", "kid": id, "n": text(&public.n), "e": text(&public.e) })
            }
        }
    }

    fn sign(&self, algorithm: &str, id: &str, claims: &Value) -> String {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", text(&json!({ "alg": algorithm, "kid": id })), text(claims));
        let rsa = |key: &RsaKeyPair, encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
            signature
        };
        let signature = match (self, algorithm) {
            (Self::Rsa(key), "PS256") => rsa(key, &RSA_PSS_SHA256),
            (Self::Rsa(key), _) => rsa(key, &RSA_PKCS1_SHA256),
            (Self::Ed25519(key), _) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn claims(name: &str) -> Value {
    json!({
        "iss": "https://login.example", "aud": "lakegate", "exp": NOW + 3600, "sub": name, "groups": ["analysts"],
    })
}

/// An address that gives keys, or is broken.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<Option<String>>>,
    asked: Arc<Mutex<usize>>,
}

impl KeyServer {
    async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(Some(json!({ "keys": keys }).to_string())));
        let asked = Arc::new(Mutex::new(0));
        let (given, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                *count.lock().unwrap() += 1;
                let text = given.lock().unwrap().clone();
                let answer = match text {
                    Some(text) => format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                        text.len()
                    ),
                    None => "HTTP/1.1 503 Away\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, answer, asked }
    }

    fn give(&self, keys: Option<&[Value]>) {
        *self.answer.lock().unwrap() = keys.map(|keys| json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

async fn open(jwks: &str) -> Door {
    let house = House::empty();
    house.write(
        "lakegate.toml",
        format!("[access.oidc]\nissuer = \"https://login.example\"\naudience = \"lakegate\"\njwks = \"{jwks}\"\n"),
    );
    house.write("grants.toml", "[roles.analysts]\nclaims = [\"groups:analysts\"]\n");
    house.open().await
}

async fn who(door: &Door, token: &str) -> Result<String, Code> {
    door.who(Some(&format!("Bearer {token}"))).await.map_err(|status| status.code())
}

#[tokio::test]
async fn a_token_tells_name_and_roles_in_each_of_the_ways_clients_send_it() {
    let signer = Signer::new();
    let keys = KeyServer::start(&[signer.public("a"), Signer::rsa().public("r")]).await;
    let door = open(&keys.url).await;
    for token in [
        signer.sign("EdDSA", "a", &claims("ann")),
        Signer::rsa().sign("RS256", "r", &claims("ann")),
        Signer::rsa().sign("PS256", "r", &claims("ann")),
    ] {
        assert_eq!(who(&door, &token).await.unwrap(), "ann analysts");
        assert_eq!(door.who(Some(&basic("token", &token))).await.unwrap(), "ann analysts");
        let session = door.log_in(&format!("Bearer {token}")).await.unwrap();
        assert_eq!(who(&door, &session).await.unwrap(), "ann analysts");
    }
    assert_eq!(keys.asked(), 1, "keys are kept");
    assert_eq!(who(&door, &Signer::new().sign("EdDSA", "a", &claims("ann"))).await, Err(Code::Unauthenticated));
    assert_eq!(who(&door, &signer.sign("HS256", "a", &claims("ann"))).await, Err(Code::Unauthenticated));
    assert_eq!(door.who(None).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_cannot_name_somebody_who_is_nobodys_to_be() {
    let signer = Signer::new();
    let keys = KeyServer::start(&[signer.public("a")]).await;
    let door = open(&keys.url).await;
    for name in ["operator", "everyone", "anonymous", "token", "ann m", "\u{430}nn", ""] {
        let token = signer.sign("EdDSA", "a", &claims(name));
        assert_eq!(who(&door, &token).await, Err(Code::Unauthenticated), "{name}");
        let begun = door.log_in(&format!("Bearer {token}")).await;
        assert_eq!(begun.unwrap_err().code(), Code::Unauthenticated, "{name}");
    }
    assert_eq!(who(&door, &signer.sign("EdDSA", "a", &claims("auth0|ann"))).await.unwrap(), "auth0|ann analysts");
}

#[tokio::test]
async fn a_session_ends_with_the_token_it_was_begun_with() {
    let signer = Signer::new();
    let keys = KeyServer::start(&[signer.public("a")]).await;
    let door = open(&keys.url).await;
    let token = signer.sign("EdDSA", "a", &claims("ann"));
    let session = door.log_in(&format!("Bearer {token}")).await.unwrap();
    door.clock.advance(Duration::from_secs(3600 + 59));
    assert!(who(&door, &token).await.is_ok() && who(&door, &session).await.is_ok(), "clocks may differ by a minute");
    door.clock.advance(Duration::from_secs(1));
    assert_eq!(
        (who(&door, &token).await, who(&door, &session).await),
        (Err(Code::Unauthenticated), Err(Code::Unauthenticated))
    );
}

#[tokio::test]
async fn a_new_key_is_known_within_a_minute_and_keys_stay_while_the_provider_is_away() {
    let (old, new) = (Signer::new(), Signer::new());
    let keys = KeyServer::start(&[old.public("old")]).await;
    let door = open(&keys.url).await;
    let (by_old, by_new) = (old.sign("EdDSA", "old", &claims("ann")), new.sign("EdDSA", "new", &claims("bob")));
    assert!(who(&door, &by_old).await.is_ok());
    keys.give(Some(&[old.public("old"), new.public("new")]));
    // The keys were asked for just now: strangers cannot make us ask at every call.
    for _ in 0..10 {
        assert_eq!(who(&door, &by_new).await, Err(Code::Unauthenticated));
    }
    assert_eq!(keys.asked(), 1);
    door.clock.advance(Duration::from_secs(60));
    assert_eq!(who(&door, &by_new).await.unwrap(), "bob analysts");
    assert_eq!(keys.asked(), 2);

    keys.give(None);
    door.clock.advance(Duration::from_secs(60));
    assert_eq!(who(&door, &old.sign("EdDSA", "newer", &claims("ann"))).await, Err(Code::Unauthenticated));
    assert_eq!(keys.asked(), 3);
    assert!(who(&door, &by_old).await.is_ok() && who(&door, &by_new).await.is_ok(), "what was known still counts");
}

#[tokio::test]
async fn keys_come_from_a_file_too() {
    let signer = Signer::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, json!({ "keys": [signer.public("a")] }).to_string()).unwrap();
    let door = open(&file.path().display().to_string()).await;
    assert_eq!(who(&door, &signer.sign("EdDSA", "a", &claims("ann"))).await.unwrap(), "ann analysts");
    let other = json!({ "iss": "https://elsewhere.example", "aud": "lakegate", "exp": NOW + 60, "sub": "ann" });
    assert_eq!(who(&door, &signer.sign("EdDSA", "a", &other)).await, Err(Code::Unauthenticated));
}

#[tokio::test]
async fn a_provider_that_never_answered_lets_nobody_in() {
    let signer = Signer::new();
    let keys = KeyServer::start(&[signer.public("a")]).await;
    keys.give(None);
    let door = open(&keys.url).await;
    let token = signer.sign("EdDSA", "a", &claims("ann"));
    assert_eq!(who(&door, &token).await, Err(Code::Unauthenticated));
    keys.give(Some(&[signer.public("a")]));
    door.clock.advance(Duration::from_secs(60));
    assert!(who(&door, &token).await.is_ok());
}
