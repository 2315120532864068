//! PRELOGIN: the options that the client sends first, the answer, and what they agree on about encryption (MS-TDS 2.2.6.5).

use bytes::{BufMut, BytesMut};

/// What the server is set to do about encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// The server has no certificate: nothing is encrypted, and clients that insist go away.
    Off,
    /// As SQL Server out of the box: the login is encrypted, all else only if the client asks for it.
    #[default]
    LoginOnly,
    /// As SQL Server with "Force Encryption": everything is encrypted, clients that cannot are refused.
    Required,
}

/// What client and server have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// No TLS at all.
    Plain,
    /// TLS until LOGIN7 has been read, plain text afterwards.
    LoginOnly,
    /// TLS from here to the end.
    Whole,
    /// The client cannot encrypt and the server insists.
    Refused,
}

/// Values of the ENCRYPTION option.
mod level {
    pub(super) const OFF: u8 = 0;
    pub(super) const ON: u8 = 1;
    pub(super) const NOT_SUPPORTED: u8 = 2;
    pub(super) const REQUIRED: u8 = 3;
}

const VERSION: u8 = 0;
const ENCRYPTION: u8 = 1;
const INSTANCE: u8 = 2;
const THREAD: u8 = 3;
const MARS: u8 = 4;
const TERMINATOR: u8 = 0xFF;

/// The encryption level that a client's PRELOGIN asks for; `None` when the message is malformed.
///
/// A client that says nothing has none.
pub(crate) fn wanted_encryption(body: &[u8]) -> Option<u8> {
    let mut options = body;
    loop {
        let (token, rest) = options.split_first()?;
        if *token == TERMINATOR {
            return Some(level::NOT_SUPPORTED);
        }
        let (place, next) = rest.split_at_checked(4)?;
        if *token == ENCRYPTION {
            return body.get(usize::from(u16::from_be_bytes([place[0], place[1]]))).copied();
        }
        options = next;
    }
}

/// The level to answer a client that wants `wanted`, and what follows from the two (the table of MS-TDS 2.2.6.5).
pub(crate) fn negotiate(server: Encryption, wanted: u8) -> (u8, Agreement) {
    // The high bits say that a client certificate follows; this server asks for none.
    match (server, wanted & 0x03) {
        (Encryption::Off, _) => (level::NOT_SUPPORTED, Agreement::Plain),
        (Encryption::LoginOnly, level::NOT_SUPPORTED) => (level::NOT_SUPPORTED, Agreement::Plain),
        (Encryption::LoginOnly, level::OFF) => (level::OFF, Agreement::LoginOnly),
        (Encryption::Required, level::NOT_SUPPORTED) => (level::REQUIRED, Agreement::Refused),
        (Encryption::Required, level::OFF) => (level::REQUIRED, Agreement::Whole),
        (_, _) => (level::ON, Agreement::Whole),
    }
}

/// The level to say in TDS 8, where TLS stands already and the option means nothing.
pub(crate) const STRICT_LEVEL: u8 = level::ON;

/// Writes the server's PRELOGIN: its version, the encryption level, no named instance, no MARS.
pub(crate) fn put_answer(version: [u8; 6], encryption: u8, output: &mut BytesMut) {
    let options: [(u8, &[u8]); 5] =
        [(VERSION, &version), (ENCRYPTION, &[encryption]), (INSTANCE, &[0]), (THREAD, &[]), (MARS, &[0])];
    let mut offset = options.len() * 5 + 1;
    for (token, value) in options {
        output.put_u8(token);
        output.put_u16(u16::try_from(offset).unwrap_or(u16::MAX));
        output.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        offset += value.len();
    }
    output.put_u8(TERMINATOR);
    for (_, value) in options {
        output.put_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_an_answer_reads_back() {
        let mut answer = BytesMut::new();
        put_answer([16, 0, 0x10, 0, 0, 0], level::REQUIRED, &mut answer);
        assert_eq!(wanted_encryption(&answer), Some(level::REQUIRED));
    }

    #[test]
    fn a_message_cut_short_has_no_level() {
        assert_eq!(wanted_encryption(&[0, 0, 6]), None);
        assert_eq!(wanted_encryption(&[]), None);
    }

    #[test]
    fn a_server_that_requires_encryption_refuses_a_client_without() {
        assert_eq!(negotiate(Encryption::Required, level::NOT_SUPPORTED).1, Agreement::Refused);
        assert_eq!(negotiate(Encryption::Required, level::OFF).1, Agreement::Whole);
    }

    #[test]
    fn a_server_out_of_the_box_follows_the_client() {
        let agreed = |wanted| negotiate(Encryption::LoginOnly, wanted).1;
        assert_eq!(agreed(level::OFF), Agreement::LoginOnly);
        assert_eq!(agreed(level::ON), Agreement::Whole);
        assert_eq!(agreed(level::REQUIRED), Agreement::Whole);
        assert_eq!(agreed(level::NOT_SUPPORTED), Agreement::Plain);
    }
}
