//! `Handshake`: who connects. As long as no users are configured everybody is anonymous, and any
//! credentials are accepted, so that clients which insist on sending some can connect.

use arrow_flight::HandshakeResponse;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Response, Status};

use crate::error::ErrorKind;
use crate::flight::service::Boxed;
use crate::flight::status::refuse;

/// Base64 with or without padding: Go clients send none, others do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client shows of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nothing, or nothing that means something.
    None,
    /// A name and a password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

/// Answers a handshake. Its request's messages are not waited for: most clients send none. The
/// token goes into the header `authorization`, which clients send back with each call.
pub(crate) fn answer(headers: &MetadataMap) -> Result<Response<Boxed<HandshakeResponse>>, Status> {
    credentials(headers)?;
    let message = HandshakeResponse { protocol_version: 0, payload: "anonymous".into() };
    let mut response: Response<Boxed<HandshakeResponse>> =
        Response::new(Box::pin(futures::stream::iter([Ok(message)])));
    response.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer anonymous"));
    Ok(response)
}

/// Reads the header `authorization`.
///
/// # Errors
/// `UNAUTHENTICATED` for a Basic header that is not base64 of `name:password`.
pub(crate) fn credentials(headers: &MetadataMap) -> Result<Credentials, Status> {
    let Some(header) = headers.get("authorization").and_then(|value| value.to_str().ok()) else {
        return Ok(Credentials::None);
    };
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => basic(rest),
        // One client sends the word None when it has no token.
        "bearer" if rest.is_empty() || rest == "None" => Ok(Credentials::None),
        "bearer" => Ok(Credentials::Bearer(rest.to_owned())),
        _ => Ok(Credentials::None),
    }
}

fn basic(text: &str) -> Result<Credentials, Status> {
    let unreadable = || refuse(ErrorKind::Unauthenticated, "the Basic credentials are not base64 of `name:password`");
    let decoded = BASE64.decode(text).map_err(|_| unreadable())?;
    let decoded = String::from_utf8(decoded).map_err(|_| unreadable())?;
    // Passwords may hold colons, names may not (RFC 7617, section 2).
    let (name, password) = decoded.split_once(':').ok_or_else(unreadable)?;
    Ok(Credentials::Basic(name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Credentials, Status> {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", header.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn basic_is_read_with_and_without_padding_and_with_colons() {
        let expected = Credentials::Basic("u".to_owned(), "p:w".to_owned());
        assert_eq!(read("Basic dTpwOnc=").unwrap(), expected);
        assert_eq!(read("Basic dTpwOnc").unwrap(), expected);
        assert_eq!(read("basic dTpwOnc").unwrap(), expected);
    }

    #[test]
    fn bearer_none_is_nobody() {
        assert_eq!(read("Bearer None").unwrap(), Credentials::None);
        assert_eq!(read("Bearer ").unwrap(), Credentials::None);
        assert_eq!(read("Bearer abc").unwrap(), Credentials::Bearer("abc".to_owned()));
        assert_eq!(credentials(&MetadataMap::new()).unwrap(), Credentials::None);
    }

    #[test]
    fn what_is_not_basic_is_refused() {
        assert_eq!(read("Basic ???").unwrap_err().code(), tonic::Code::Unauthenticated);
        assert_eq!(read("Basic dQ==").unwrap_err().code(), tonic::Code::Unauthenticated);
    }
}
