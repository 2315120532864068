//! LOGIN7: who the client is, what it wants, and the two features this server acknowledges (MS-TDS 2.2.6.4).

use super::cursor::{Cursor, DecodeError, utf16};
use super::packet::{DEFAULT_PACKET_SIZE, PACKET_SIZES};

/// TDS 7.4, the newest that this server speaks.
pub(crate) const TDS_7_4: u32 = 0x7400_0004;
/// TDS 7.3 B, the oldest: the first with date, time and NBCROW.
pub(crate) const TDS_7_3: u32 = 0x730B_0003;
/// What a client of TDS 8 says.
const TDS_8_0: u32 = 0x0800_0000;

/// Features of FEATUREEXT that this server knows.
pub(crate) mod feature {
    /// UTF-8 collations.
    pub(crate) const UTF8: u8 = 0x0A;
    /// The json type.
    pub(crate) const JSON: u8 = 0x0D;
    /// The end of the list.
    pub(crate) const TERMINATOR: u8 = 0xFF;
}

/// What a LOGIN7 says, as far as this server uses it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Login {
    /// The TDS version to speak, [`TDS_7_3`] to [`TDS_7_4`]; `None` when the client is too old.
    pub(crate) version: Option<u32>,
    /// The packet size to use from the next message on.
    pub(crate) packet_size: usize,
    /// The client asks for integrated security: no user, no password.
    pub(crate) integrated: bool,
    /// `ApplicationIntent=ReadOnly`.
    pub(crate) read_only: bool,
    /// The name of the client's machine.
    pub(crate) host: String,
    /// The login's name.
    pub(crate) user: String,
    /// The password in clear.
    pub(crate) password: String,
    /// The program's name.
    pub(crate) application: String,
    /// The database asked for; empty for the login's own.
    pub(crate) database: String,
    /// Identifiers of [`feature`] and others that the client offers; `None` when it sent no FEATUREEXT.
    pub(crate) features: Option<Vec<u8>>,
}

impl Login {
    /// Reads the body of a LOGIN7.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        /// Bit of OptionFlags2: integrated security.
        const INTEGRATED: u8 = 0x80;
        /// Bit of TypeFlags: the application only reads.
        const READ_ONLY: u8 = 0x20;
        /// Bit of OptionFlags3: FEATUREEXT follows.
        const EXTENSION: u8 = 0x10;
        let mut fixed = Cursor::new(body);
        let _length = fixed.u32()?;
        let version = fixed.u32()?;
        let packet_size = fixed.u32()? as usize;
        let [_program, _process, _connection] = [fixed.u32()?, fixed.u32()?, fixed.u32()?];
        let [_flags1, flags2, type_flags, flags3] = fixed.array()?;
        let [_zone, _language] = [fixed.u32()?, fixed.u32()?];
        let host = Field::read(&mut fixed)?;
        let user = Field::read(&mut fixed)?;
        let password = Field::read(&mut fixed)?;
        let application = Field::read(&mut fixed)?;
        let _server = Field::read(&mut fixed)?;
        let extension = Field::read(&mut fixed)?;
        let _library = Field::read(&mut fixed)?;
        let _locale = Field::read(&mut fixed)?;
        let database = Field::read(&mut fixed)?;
        let features = if flags3 & EXTENSION != 0 { Some(features(body, &extension)?) } else { None };
        Ok(Self {
            version: match version {
                TDS_8_0 | TDS_7_4.. => Some(TDS_7_4),
                TDS_7_3.. => Some(TDS_7_3),
                _ => None,
            },
            packet_size: match packet_size {
                0 => DEFAULT_PACKET_SIZE,
                asked => asked.clamp(*PACKET_SIZES.start(), *PACKET_SIZES.end()),
            },
            integrated: flags2 & INTEGRATED != 0,
            read_only: type_flags & READ_ONLY != 0,
            host: utf16(host.units(body)?),
            user: utf16(user.units(body)?),
            password: utf16(&descramble(password.units(body)?)),
            application: utf16(application.units(body)?),
            database: utf16(database.units(body)?),
            features,
        })
    }
}

/// Where a variable part of the message lies: its offset in bytes and its length in UTF-16 units.
struct Field {
    offset: usize,
    length: usize,
}

impl Field {
    fn read(fixed: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self { offset: usize::from(fixed.u16()?), length: usize::from(fixed.u16()?) })
    }

    fn units<'a>(&self, body: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        body.get(self.offset..self.offset + self.length * 2).ok_or(DecodeError::Short)
    }
}

/// The features that FEATUREEXT lists: `extension` points to the offset where the list starts.
fn features(body: &[u8], extension: &Field) -> Result<Vec<u8>, DecodeError> {
    let mut pointer = Cursor::new(body.get(extension.offset..).ok_or(DecodeError::Short)?);
    let start = pointer.u32()? as usize;
    let mut list = Cursor::new(body.get(start..).ok_or(DecodeError::Short)?);
    let mut features = Vec::new();
    loop {
        let feature = list.u8()?;
        if feature == feature::TERMINATOR {
            return Ok(features);
        }
        let length = list.u32()? as usize;
        list.bytes(length)?;
        features.push(feature);
    }
}

/// Undoes what a client does to the password's bytes: swap the halves of each, then XOR with 0xA5.
fn descramble(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A LOGIN7 with the given texts and FEATUREEXT list.
    fn message(version: u32, texts: [&str; 9], features: &[u8]) -> Vec<u8> {
        let mut body = vec![0; 94];
        body[4..8].copy_from_slice(&version.to_le_bytes());
        body[8..12].copy_from_slice(&70_000u32.to_le_bytes());
        body[26] = 0x20;
        body[27] = 0x10;
        for (place, text) in texts.iter().enumerate() {
            let mut units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            if place == 2 {
                units.iter_mut().for_each(|byte| *byte = byte.rotate_left(4) ^ 0xA5);
            }
            let field = 36 + place * 4;
            let offset = u16::try_from(body.len()).unwrap();
            body[field..field + 2].copy_from_slice(&offset.to_le_bytes());
            body[field + 2..field + 4].copy_from_slice(&u16::try_from(units.len() / 2).unwrap().to_le_bytes());
            if place == 5 {
                let list = u32::try_from(body.len() + 4).unwrap();
                body[field + 2] = 4;
                units = list.to_le_bytes().to_vec();
                units.extend_from_slice(features);
            }
            body.extend_from_slice(&units);
        }
        body
    }

    #[test]
    fn a_login_reads_back() {
        let texts = ["desk", "sa", "pä$$", "report", "server", "", "library", "", "ops"];
        let login = Login::decode(&message(TDS_7_4, texts, &[0x0A, 1, 0, 0, 0, 1, 0xFF])).unwrap();
        assert_eq!(login.version, Some(TDS_7_4));
        assert_eq!(login.packet_size, 32767);
        assert!(login.read_only && !login.integrated);
        assert_eq!((login.user.as_str(), login.password.as_str()), ("sa", "pä$$"));
        assert_eq!(
            (login.host.as_str(), login.application.as_str(), login.database.as_str()),
            ("desk", "report", "ops")
        );
        assert_eq!(login.features, Some(vec![feature::UTF8]));
    }

    #[test]
    fn a_client_older_than_tds_7_3_is_told_so() {
        let login = Login::decode(&message(0x7209_0002, [""; 9], &[0xFF])).unwrap();
        assert_eq!(login.version, None);
    }

    #[test]
    fn a_login_cut_short_is_an_error() {
        let whole = message(TDS_7_4, ["desk", "sa", "secret", "", "", "", "", "", "ops"], &[0xFF]);
        for length in 0..whole.len() {
            assert!(Login::decode(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
