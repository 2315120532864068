//! Session options (`GetSessionOptions`, `SetSessionOptions`, `CloseSession`). The server keeps no
//! sessions, so there is one option, `catalog`, with one value; others are refused by name.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::metadata::CATALOG;
use crate::flight::status::refuse;

/// The messages of Flight.proto that arrow-flight has not generated.
mod messages {
    use std::collections::HashMap;

    /// `SessionOptionValue`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct OptionValue {
        #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
        pub(super) value: Option<Value>,
    }

    /// The value; none erases the option.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Flag(bool),
        #[prost(sfixed64, tag = "3")]
        Whole(i64),
        #[prost(double, tag = "4")]
        Float(f64),
        #[prost(message, tag = "5")]
        Texts(Texts),
    }

    /// `SessionOptionValue.StringListValue`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Texts {
        #[prost(string, repeated, tag = "1")]
        pub(super) values: Vec<String>,
    }

    /// `SetSessionOptionsRequest`, and `GetSessionOptionsResult`, which looks the same.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Options {
        #[prost(map = "string, message", tag = "1")]
        pub(super) options: HashMap<String, OptionValue>,
    }

    /// `SetSessionOptionsResult`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SetResult {
        #[prost(map = "string, message", tag = "1")]
        pub(super) errors: HashMap<String, SetError>,
    }

    /// `SetSessionOptionsResult.Error`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SetError {
        #[prost(int32, tag = "1")]
        pub(super) value: i32,
    }
}

use messages::{OptionValue, Options, SetError, SetResult, Value};

/// `CloseSessionResult { status: CLOSED }`.
const CLOSED: &[u8] = &[0x08, 0x01];
/// `SetSessionOptionsResult.ErrorValue`.
const INVALID_NAME: i32 = 1;
/// `SetSessionOptionsResult.ErrorValue`.
const INVALID_VALUE: i32 = 2;

/// The options there are.
pub(crate) fn get() -> Bytes {
    let catalog = OptionValue { value: Some(Value::Text(CATALOG.to_owned())) };
    Options { options: HashMap::from([("catalog".to_owned(), catalog)]) }.encode_to_vec().into()
}

/// Tells of each option that is not what it is already that it cannot be set so.
pub(crate) fn set(body: &[u8]) -> Result<Bytes, Status> {
    let wanted = Options::decode(body)
        .map_err(|error| refuse(ErrorKind::InvalidInput, format!("the session options cannot be read: {error}")))?;
    let error = |name: &str, value: &OptionValue| match (name, &value.value) {
        ("catalog", None) => None,
        ("catalog", Some(Value::Text(text))) if text == CATALOG => None,
        ("catalog", _) => Some(INVALID_VALUE),
        _ => Some(INVALID_NAME),
    };
    let errors = wanted.options.iter().filter_map(|(name, value)| Some((name, error(name, value)?)));
    let errors = errors.map(|(name, value)| (name.clone(), SetError { value })).collect();
    Ok(SetResult { errors }.encode_to_vec().into())
}

/// There is nothing to close.
pub(crate) fn close() -> Bytes {
    Bytes::from_static(CLOSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_can_be_set_to_what_it_is_and_nothing_else_can() {
        // SetSessionOptions catalog=lakegate, as a driver sends it.
        let ours = b"\n\x15\n\x07catalog\x12\n\n\x08lakegate";
        assert!(SetResult::decode(set(ours).unwrap()).unwrap().errors.is_empty());
        let other = b"\n\x10\n\x07catalog\x12\x05\n\x03cat";
        let errors = SetResult::decode(set(other).unwrap()).unwrap().errors;
        assert_eq!(errors["catalog"].value, INVALID_VALUE);
        let unknown = b"\n\x0e\n\x05abcde\x12\x05\n\x03cat";
        let errors = SetResult::decode(set(unknown).unwrap()).unwrap().errors;
        assert_eq!(errors["abcde"].value, INVALID_NAME);
    }

    #[test]
    fn what_is_got_can_be_set() {
        assert!(SetResult::decode(set(&get()).unwrap()).unwrap().errors.is_empty());
        assert!(set(b"\xff").is_err());
    }
}
