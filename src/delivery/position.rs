//! Where in a result somebody is: how many of its messages they have, and what those were.

use crate::delivery::WireMessage;

/// Bytes of a hash: with 16 of them nobody meets two results of the same by chance.
const HASH_BYTES: usize = 16;

/// How many messages of a result came before, and a hash over them. Each message's hash is over that of the one before (zeros
/// before the first), its header and its body, so that equal positions mean equal messages all the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the message that comes next; the schema is 0.
    pub next: u64,
    /// The hash over those before.
    pub hash: [u8; HASH_BYTES],
}

impl Position {
    /// The position after one message more.
    pub fn after(self, message: &WireMessage) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash).update(&message.header);
        for part in &message.body {
            hasher.update(part);
        }
        let mut hash = [0; HASH_BYTES];
        hasher.finalize_xof().fill(&mut hash);
        Self { next: self.next + 1, hash }
    }

    /// What goes with the message before this position: its number, 8 bytes with the lowest first, and the hash.
    pub fn label(self) -> Vec<u8> {
        let number = self.next.saturating_sub(1);
        number.to_le_bytes().into_iter().chain(self.hash).collect()
    }

    /// The position after the message that had this label; none where it is no label.
    pub fn of_label(label: &[u8]) -> Option<Self> {
        let (number, hash) = label.split_first_chunk::<8>()?;
        Some(Self { next: u64::from_le_bytes(*number).checked_add(1)?, hash: hash.try_into().ok()? })
    }

    /// Reads what [`std::fmt::Display`] writes; none where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self::default());
        }
        let (next, hash) = text.split_once(':')?;
        let next = next.parse::<u64>().ok().filter(|next| *next > 0)?;
        if hash.len() != 2 * HASH_BYTES || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let bytes = u128::from_str_radix(hash, 16).ok()?;
        Some(Self { next, hash: bytes.to_be_bytes() })
    }
}

impl std::fmt::Display for Position {
    /// `0` at the beginning, else the next message's number and the hash: `12:00ff…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.next {
            0 => f.write_str("0"),
            next => write!(f, "{next}:{:032x}", u128::from_be_bytes(self.hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::buffer::Buffer;
    use bytes::Bytes;

    use super::*;

    fn message(header: &'static [u8], body: &[&[u8]]) -> WireMessage {
        let body = body.iter().map(|part| Buffer::from(*part)).collect();
        WireMessage { header: Bytes::from_static(header), body, ..WireMessage::default() }
    }

    #[test]
    fn a_position_knows_all_messages_before_it_and_not_how_they_were_cut() {
        let start = Position::default();
        let one = start.after(&message(b"schema", &[]));
        let two = one.after(&message(b"rows", &[b"ab", b"c"]));
        assert_eq!(two, one.after(&message(b"rows", &[b"a", b"bc"])));
        assert_ne!(two, one.after(&message(b"rows", &[b"ab", b"d"])));
        assert_ne!(two.hash, start.after(&message(b"rows", &[b"ab", b"c"])).hash);
        assert_eq!((one.next, two.next), (1, 2));
    }

    #[test]
    fn positions_travel_as_labels_and_as_text() {
        let there = Position::default().after(&message(b"schema", &[])).after(&message(b"rows", &[b"x"]));
        assert_eq!(there.label()[..8], 1_u64.to_le_bytes());
        assert_eq!(Position::of_label(&there.label()), Some(there));
        for position in [Position::default(), there] {
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        for wrong in ["", "1", "1:", "1:00", "0:00112233445566778899aabbccddeeff", "x:00112233445566778899aabbccddeeff"]
        {
            assert_eq!(Position::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Position::of_label(b"of somebody else"), None);
        assert_eq!(Position::of_label(b""), None);
    }
}
