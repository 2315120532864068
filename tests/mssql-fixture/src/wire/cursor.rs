//! Reading numbers and strings out of a client's message.

use std::borrow::Cow;

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The bytes end too soon. In bulk data more may follow.
    #[error("the message ends too soon")]
    Short,
    /// The bytes are not what the protocol has in this place, or this server does not take it.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
}

impl DecodeError {
    /// A [`DecodeError::Malformed`].
    pub(crate) fn malformed(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(what.into())
    }
}

/// A place in a message. Numbers are little-endian, as everywhere in TDS behind the packet header.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether all has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, left in place.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A byte.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned number of `count` bytes, at most eight.
    pub(crate) fn unsigned(&mut self, count: usize) -> Result<u64, DecodeError> {
        let mut number = [0; 8];
        let bytes = self.bytes(count)?;
        number.get_mut(..count).ok_or(DecodeError::Short)?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(number))
    }

    /// B_VARCHAR: a byte that counts UTF-16 units, then the units.
    pub(crate) fn short_text(&mut self) -> Result<String, DecodeError> {
        let units = usize::from(self.u8()?);
        Ok(utf16(self.bytes(units * 2)?))
    }

    /// US_VARCHAR: two bytes that count UTF-16 units, then the units.
    pub(crate) fn long_text(&mut self) -> Result<String, DecodeError> {
        let units = usize::from(self.u16()?);
        Ok(utf16(self.bytes(units * 2)?))
    }

    /// ALL_HEADERS: skips them and gives the transaction descriptor that they name, 0 when there is none.
    pub(crate) fn all_headers(&mut self) -> Result<u64, DecodeError> {
        const TRANSACTION_DESCRIPTOR: u16 = 2;
        let total = self.u32()?;
        let mut headers = Cursor::new(self.bytes((total as usize).saturating_sub(4))?);
        let mut descriptor = 0;
        while !headers.is_empty() {
            let length = headers.u32()? as usize;
            let mut header = Cursor::new(headers.bytes(length.saturating_sub(4))?);
            if header.u16()? == TRANSACTION_DESCRIPTOR {
                descriptor = header.u64()?;
            }
        }
        Ok(descriptor)
    }
}

/// UTF-16LE to text; a unit that is no character becomes U+FFFD, an odd last byte is dropped.
pub(crate) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_headers_give_the_transaction() {
        let mut body = vec![22, 0, 0, 0, 18, 0, 0, 0, 2, 0];
        body.extend_from_slice(&77u64.to_le_bytes());
        body.extend_from_slice(&1u32.to_le_bytes());
        body.push(b'x');
        let mut cursor = Cursor::new(&body);
        assert_eq!(cursor.all_headers(), Ok(77));
        assert_eq!(cursor.remaining(), 1);
    }

    #[test]
    fn a_length_beyond_the_end_is_short_and_moves_nothing() {
        let mut cursor = Cursor::new(&[3, b'a', 0]);
        assert_eq!(cursor.short_text(), Err(DecodeError::Short));
        assert_eq!(Cursor::new(&[1, 2]).u32(), Err(DecodeError::Short));
    }

    #[test]
    fn headers_that_lie_about_their_length_are_short() {
        assert_eq!(Cursor::new(&[9, 0, 0, 0, 0, 0, 0, 0, 0]).all_headers(), Err(DecodeError::Short));
    }
}
