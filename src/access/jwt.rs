//! Tokens of an identity provider (JWT, RFC 7519): who signed them, for whom, and until when.
//!
//! Only signatures with a public key count. `none` and those with a shared secret are not known here, so a public
//! key can never be taken for one (RFC 8725, section 2.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{InvalidName, OidcSettings, check_foreign_name};

/// Longest token in bytes; those with hundreds of groups stay below it.
const LONGEST_TOKEN: usize = 32 << 10;
/// Role claims kept of one token at most.
const MOST_CLAIMS: usize = 512;

/// What a token says that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who it is.
    pub name: String,
    /// Values that may give roles, each as `claim:value`.
    pub roles: Vec<String>,
    /// From when on it no longer counts.
    pub expires_at: DateTime<Utc>,
}

/// Why a token does not count. For the log: whoever showed it is told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is not a token at all, or lacks something.
    #[error("the token is no JWT: {0}")]
    Malformed(&'static str),
    /// Its signature is of a kind that does not count.
    #[error("the token is signed with an algorithm that is not allowed")]
    Algorithm,
    /// No key of the provider has its id.
    #[error("the token is signed with a key that the provider does not name")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is not as it has to be.
    #[error("the token's claim `{0}` is not accepted")]
    Claim(String),
    /// It is of somebody who cannot be let in by that name.
    #[error("the token's name is not accepted: {0}")]
    Name(InvalidName),
    /// The provider's keys cannot be had.
    #[error("the provider's keys cannot be had")]
    NoKeys,
}

/// A provider's public keys (JWKS, RFC 7517).
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point of P-256 or P-384.
    Curve {
        bits: u16,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
}

/// A key as it is written.
#[derive(Deserialize)]
struct WrittenKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl KeySet {
    /// Reads a JWKS document. Keys of kinds that are not known, and those for encryption, are left out.
    ///
    /// # Errors
    /// When it is none, in words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Written {
            keys: Vec<Value>,
        }
        let written: Written = serde_json::from_slice(text).map_err(|error| format!("it is no JWKS: {error}"))?;
        let keys: Vec<_> =
            written.keys.into_iter().filter_map(|key| Key::read(serde_json::from_value(key).ok()?)).collect();
        if keys.is_empty() {
            return Err("it holds no RSA, EC or Ed25519 key for signatures".to_owned());
        }
        Ok(Self { keys })
    }

    /// Checks a token.
    ///
    /// # Errors
    /// Why it does not count; `UnknownKey` where other keys than these might help.
    pub fn verify(&self, token: &str, settings: &OidcSettings, now: DateTime<Utc>) -> Result<Claims, JwtError> {
        let (signed, header, payload, signature) = parts(token)?;
        let known = self.keys.iter().filter(|key| header.kid.is_none() || key.id == header.kid);
        let mut known =
            known.filter(|key| key.algorithm.as_ref().is_none_or(|algorithm| *algorithm == header.alg)).peekable();
        if !is_allowed(&header.alg) {
            return Err(JwtError::Algorithm);
        }
        if known.peek().is_none() {
            return Err(JwtError::UnknownKey);
        }
        if !known.any(|key| key.signed(&header.alg, signed.as_bytes(), &signature)) {
            return Err(JwtError::Signature);
        }
        claims(&payload, settings, now)
    }
}

/// Whether a text could be a JWT: three parts.
pub fn looks_like_jwt(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

type Parts<'a> = (&'a str, Header, Map<String, Value>, Vec<u8>);

/// What was signed, header, claims, signature.
fn parts(token: &str) -> Result<Parts<'_>, JwtError> {
    if token.len() > LONGEST_TOKEN {
        return Err(JwtError::Malformed("it is too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed("it has no signature"))?;
    let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed("it has no claims"))?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed("it is not base64url"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed("its header cannot be read"))?;
    if header.crit.is_some() {
        return Err(JwtError::Malformed("it asks for extensions"));
    }
    let payload =
        serde_json::from_slice(&decode(payload)?).map_err(|_| JwtError::Malformed("its claims cannot be read"))?;
    Ok((signed, header, payload, decode(signature)?))
}

fn is_allowed(algorithm: &str) -> bool {
    rsa_algorithm(algorithm).is_some() || matches!(algorithm, "ES256" | "ES384" | "EdDSA")
}

fn rsa_algorithm(algorithm: &str) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

impl Key {
    fn read(written: WrittenKey) -> Option<Self> {
        if written.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref()?.trim_end_matches('=')).ok();
        let material = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => {
                // Big numbers without zeros in front, as the library wants them.
                let number = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect();
                Material::Rsa { n: number(decode(&written.n)?), e: number(decode(&written.e)?) }
            }
            ("EC", Some("P-256")) => Material::curve(256, decode(&written.x)?, decode(&written.y)?)?,
            ("EC", Some("P-384")) => Material::curve(384, decode(&written.x)?, decode(&written.y)?)?,
            ("OKP", Some("Ed25519")) => Material::Ed25519(decode(&written.x)?),
            _ => return None,
        };
        Some(Self { id: written.kid, algorithm: written.alg, material })
    }

    /// Whether the key's holder signed a text with an algorithm; never where the key is of another kind.
    fn signed(&self, algorithm: &str, text: &[u8], signature: &[u8]) -> bool {
        let with = |kind: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(kind, key).verify(text, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => rsa_algorithm(algorithm)
                .is_some_and(|kind| RsaPublicKeyComponents { n, e }.verify(kind, text, signature).is_ok()),
            (Material::Curve { bits: 256, point }, "ES256") => with(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::Curve { bits: 384, point }, "ES384") => with(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(key), "EdDSA") => with(&signature::ED25519, key),
            _ => false,
        }
    }
}

impl Material {
    fn curve(bits: u16, x: Vec<u8>, y: Vec<u8>) -> Option<Self> {
        let length = usize::from(bits / 8);
        if x.len() > length || y.len() > length {
            return None;
        }
        let mut point = vec![4];
        for coordinate in [x, y] {
            point.extend(std::iter::repeat_n(0, length - coordinate.len()));
            point.extend(coordinate);
        }
        Some(Self::Curve { bits, point })
    }
}

fn claims(payload: &Map<String, Value>, settings: &OidcSettings, now: DateTime<Utc>) -> Result<Claims, JwtError> {
    let refused = |claim: &str| JwtError::Claim(claim.to_owned());
    if payload.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
        return Err(refused("iss"));
    }
    let meant =
        |audience: &Value| audience.as_str().is_some_and(|audience| settings.audience.iter().any(|a| a == audience));
    match payload.get("aud") {
        Some(Value::Array(audiences)) if audiences.iter().any(meant) => {}
        Some(audience) if meant(audience) => {}
        _ => return Err(refused("aud")),
    }
    let skew = chrono::Duration::from_std(settings.clock_skew).unwrap_or_default();
    let expires_at = moment(payload.get("exp")).ok_or_else(|| refused("exp"))?;
    if expires_at.checked_add_signed(skew).is_some_and(|end| now >= end) {
        return Err(refused("exp"));
    }
    if payload.contains_key("nbf") {
        let begins_at = moment(payload.get("nbf")).ok_or_else(|| refused("nbf"))?;
        if begins_at.checked_sub_signed(skew).is_some_and(|begin| now < begin) {
            return Err(refused("nbf"));
        }
    }
    let name = find(payload, &settings.name_claim).and_then(Value::as_str);
    let name = name.ok_or_else(|| refused(&settings.name_claim))?;
    check_foreign_name(name).map_err(JwtError::Name)?;
    let roles = settings.role_claims.iter().flat_map(|claim| values(payload, claim)).take(MOST_CLAIMS).collect();
    let expires_at = expires_at.checked_add_signed(skew).unwrap_or(expires_at);
    Ok(Claims { name: name.to_owned(), roles, expires_at })
}

/// Seconds since 1970, whole or not (`NumericDate`).
fn moment(value: Option<&Value>) -> Option<DateTime<Utc>> {
    let value = value?;
    #[expect(clippy::cast_possible_truncation, reason = "a part of a second does not matter; huge values saturate")]
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))?;
    Some(DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC))
}

/// A claim by its name, else by the way to it: `realm_access.roles`.
fn find<'a>(payload: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    if let Some(value) = payload.get(claim) {
        return Some(value);
    }
    let (first, rest) = claim.split_once('.')?;
    find(payload.get(first)?.as_object()?, rest)
}

/// The values of a claim, each as `claim:value`.
fn values(payload: &Map<String, Value>, claim: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(|value| format!("{claim}:{value}"));
    match find(payload, claim) {
        Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;
    use crate::config::KeySetPlace;

    const NOW: i64 = 1_800_000_000;

    fn settings() -> OidcSettings {
        OidcSettings {
            issuer: "https://login.example".to_owned(),
            audience: vec!["lakegate".to_owned(), "other".to_owned()],
            jwks: KeySetPlace::File("keys.json".into()),
            name_claim: "email".to_owned(),
            role_claims: vec!["groups".to_owned(), "realm_access.roles".to_owned()],
            clock_skew: std::time::Duration::from_secs(60),
        }
    }

    fn good() -> Value {
        json!({
            "iss": "https://login.example", "aud": ["x", "lakegate"], "exp": NOW + 300, "nbf": NOW - 10,
            "email": "ann@example.org", "groups": ["analysts", 7, "sales"], "realm_access": { "roles": ["pii"] },
        })
    }

    /// Somebody who signs with an Ed25519 and a P-256 key.
    struct Issuer {
        ed: Ed25519KeyPair,
        ec: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Issuer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let ed = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
            Self { ed, ec, random }
        }

        fn keys(&self) -> KeySet {
            let point = self.ec.public_key().as_ref();
            let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let keys = json!({ "keys": [
                { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(self.ed.public_key().as_ref()) },
                { "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig", "x": text(&point[1..33]), "y": text(&point[33..]) },
                { "kty": "oct", "kid": "shared", "k": "AAAA" },
                { "kty": "EC", "crv": "P-256", "kid": "enc", "use": "enc", "x": text(&point[1..33]), "y": text(&point[33..]) },
            ] });
            KeySet::parse(keys.to_string().as_bytes()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", text(header), text(claims));
            let signature = match header["alg"].as_str() {
                Some("ES256") => self.ec.sign(&self.random, signed.as_bytes()).unwrap().as_ref().to_vec(),
                _ => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
            };
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn verify(issuer: &Issuer, token: &str) -> Result<Claims, JwtError> {
        issuer.keys().verify(token, &settings(), DateTime::from_timestamp(NOW, 0).unwrap())
    }

    #[test]
    fn a_good_token_tells_name_and_claims() {
        let issuer = Issuer::new();
        for header in
            [json!({ "alg": "EdDSA", "kid": "ed" }), json!({ "alg": "ES256", "kid": "ec" }), json!({ "alg": "EdDSA" })]
        {
            let claims = verify(&issuer, &issuer.sign(&header, &good())).unwrap();
            assert_eq!(claims.name, "ann@example.org");
            assert_eq!(claims.roles, ["groups:analysts", "groups:sales", "realm_access.roles:pii"]);
            assert_eq!(claims.expires_at.timestamp(), NOW + 360);
        }
    }

    #[test]
    fn tokens_that_somebody_could_have_made_are_refused() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let ed = json!({ "alg": "EdDSA", "kid": "ed" });
        assert_eq!(verify(&issuer, &other.sign(&ed, &good())), Err(JwtError::Signature));
        assert_eq!(
            verify(&issuer, &issuer.sign(&json!({ "alg": "EdDSA", "kid": "new" }), &good())),
            Err(JwtError::UnknownKey)
        );
        for algorithm in ["none", "None", "HS256", "HS512", "RS1", ""] {
            let token = issuer.sign(&json!({ "alg": algorithm }), &good());
            assert_eq!(verify(&issuer, &token), Err(JwtError::Algorithm), "{algorithm}");
        }
        // A key of one kind, an algorithm of another.
        assert_eq!(
            verify(&issuer, &issuer.sign(&json!({ "alg": "RS256", "kid": "ed" }), &good())),
            Err(JwtError::Signature)
        );
        assert_eq!(
            verify(&issuer, &issuer.sign(&json!({ "alg": "EdDSA", "kid": "ec" }), &good())),
            Err(JwtError::UnknownKey)
        );
        assert_eq!(
            verify(&issuer, &issuer.sign(&json!({ "alg": "ES256", "kid": "enc" }), &good())),
            Err(JwtError::UnknownKey)
        );
        let token = issuer.sign(&ed, &good());
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(verify(&issuer, &format!("{signed}.")), Err(JwtError::Signature));
        let asks = json!({ "alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false });
        assert!(matches!(verify(&issuer, &issuer.sign(&asks, &good())), Err(JwtError::Malformed(_))));
        for text in ["", "a.b.c", "eyJ.eyJ.x", &"a".repeat(100_000)] {
            assert!(matches!(verify(&issuer, text), Err(JwtError::Malformed(_))));
        }
    }

    #[test]
    fn every_claim_has_to_be_right() {
        let issuer = Issuer::new();
        let header = json!({ "alg": "EdDSA", "kid": "ed" });
        let with = |claim: &str, value: Value| {
            let mut claims = good();
            claims[claim] = value;
            verify(&issuer, &issuer.sign(&header, &claims))
        };
        for (claim, value) in [
            ("iss", json!("https://elsewhere.example")),
            ("iss", Value::Null),
            ("aud", json!("elsewhere")),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", json!(NOW - 60)),
            ("exp", json!("tomorrow")),
            ("exp", Value::Null),
            ("nbf", json!(NOW + 61)),
            ("nbf", json!("tomorrow")),
            ("email", json!(["ann@example.org"])),
        ] {
            assert_eq!(with(claim, value.clone()), Err(JwtError::Claim(claim.to_owned())), "{claim} {value}");
        }
        for name in ["", "a\nb", "Ann M", "operator", "everyone"] {
            assert!(matches!(with("email", json!(name)), Err(JwtError::Name(_))), "{name}");
        }
        assert!(with("exp", json!(NOW - 59)).is_ok() && with("nbf", json!(NOW + 60)).is_ok(), "clocks may differ");
        assert!(with("aud", json!("other")).is_ok() && with("exp", json!(f64::MAX)).is_ok());
        assert!(KeySet::parse(b"{\"keys\": []}").is_err() && KeySet::parse(b"<html>").is_err());
    }
}
