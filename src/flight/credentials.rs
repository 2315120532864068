//! What a client shows of itself: the header `authorization`, and what the protocol's older ways send instead.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::MetadataMap;

/// Base64 with or without padding: Go clients send none, others do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client shows of itself. Secrets do not show in `Debug`.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// Nothing, or nothing that means something.
    None,
    /// Something that cannot be read.
    Unreadable,
    /// A name and a password.
    Basic(String, SecretString),
    /// A token.
    Bearer(SecretString),
}

/// `BasicAuth` of Flight.proto: what the protocol's first way of logging in sends in a handshake's payload.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BasicAuth {
    #[prost(string, tag = "2")]
    pub(crate) username: String,
    #[prost(string, tag = "3")]
    pub(crate) password: String,
}

impl Credentials {
    /// Those of a call: the header `authorization`, else `auth-token-bin`, in which clients that logged in the
    /// first way send the token they were given.
    pub(crate) fn of(headers: &MetadataMap) -> Self {
        let Some(header) = headers.get("authorization") else { return Self::of_token_header(headers) };
        let Ok(header) = header.to_str() else { return Self::Unreadable };
        let header = header.trim();
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        let rest = rest.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Self::basic(rest),
            // One client sends the word None when it has no token.
            "bearer" if rest.is_empty() || rest == "None" => Self::of_token_header(headers),
            "bearer" => Self::Bearer(rest.into()),
            _ => Self::Unreadable,
        }
    }

    fn of_token_header(headers: &MetadataMap) -> Self {
        let Some(token) = headers.get_bin("auth-token-bin") else { return Self::None };
        let Ok(token) = token.to_bytes() else { return Self::Unreadable };
        match str::from_utf8(&token) {
            // Sent empty by drivers that have none.
            Ok("") => Self::None,
            Ok(token) => Self::Bearer(token.into()),
            Err(_) => Self::Unreadable,
        }
    }

    fn basic(text: &str) -> Self {
        let decoded = BASE64.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Passwords may hold colons, names may not (RFC 7617, section 2).
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Self::Basic(name.to_owned(), password.into()),
            None => Self::Unreadable,
        }
    }

    /// Those in the payload of a handshake's first message; nothing where it is empty.
    pub(crate) fn of_payload(payload: &[u8]) -> Self {
        if payload.is_empty() {
            return Self::None;
        }
        match <BasicAuth as prost::Message>::decode(payload) {
            Ok(BasicAuth { username, password }) if !username.is_empty() => Self::Basic(username, password.into()),
            _ => Self::Unreadable,
        }
    }
}

impl PartialEq for Credentials {
    /// For tests: comparing secrets so is not for deciding anything.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Unreadable, Self::Unreadable) => true,
            (Self::Basic(name, password), Self::Basic(other, others)) => {
                name == other && password.expose_secret() == others.expose_secret()
            }
            (Self::Bearer(token), Self::Bearer(other)) => token.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use prost::Message;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn read(header: &str) -> Credentials {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", header.parse().unwrap());
        Credentials::of(&headers)
    }

    #[test]
    fn basic_is_read_with_and_without_padding_and_with_colons() {
        let expected = Credentials::Basic("u".to_owned(), "p:w".into());
        for header in ["Basic dTpwOnc=", "Basic dTpwOnc", "basic  dTpwOnc"] {
            assert_eq!(read(header), expected, "{header}");
        }
    }

    #[test]
    fn bearer_none_is_nobody() {
        for header in ["Bearer None", "Bearer ", "Bearer"] {
            assert_eq!(read(header), Credentials::None, "{header}");
        }
        assert_eq!(read("Bearer abc"), Credentials::Bearer("abc".into()));
        assert_eq!(Credentials::of(&MetadataMap::new()), Credentials::None);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        for header in ["Basic ???", "Basic dQ==", "Digest x"] {
            assert_eq!(read(header), Credentials::Unreadable, "{header}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_bytes(b"Bearer \xe4").unwrap());
        assert_eq!(Credentials::of(&MetadataMap::from_headers(headers)), Credentials::Unreadable);
        let mut headers = HeaderMap::new();
        headers.insert("auth-token-bin", HeaderValue::from_static("no base64!"));
        assert_eq!(Credentials::of(&MetadataMap::from_headers(headers)), Credentials::Unreadable);
    }

    #[test]
    fn the_older_ways_are_read() {
        let mut headers = MetadataMap::new();
        headers.insert_bin("auth-token-bin", MetadataValue::from_bytes(b""));
        assert_eq!(Credentials::of(&headers), Credentials::None);
        headers.insert_bin("auth-token-bin", MetadataValue::from_bytes(b"abc"));
        assert_eq!(Credentials::of(&headers), Credentials::Bearer("abc".into()));
        headers.insert("authorization", "Bearer None".parse().unwrap());
        assert_eq!(Credentials::of(&headers), Credentials::Bearer("abc".into()));
        let payload = BasicAuth { username: "u".to_owned(), password: "p:w".to_owned() }.encode_to_vec();
        assert_eq!(Credentials::of_payload(&payload), Credentials::Basic("u".to_owned(), "p:w".into()));
        assert_eq!(Credentials::of_payload(b""), Credentials::None);
        assert_eq!(Credentials::of_payload(b"\xff\xff"), Credentials::Unreadable);
    }
}
