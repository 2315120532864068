//! Text in the code pages of `char`, `varchar` and `text`, and in UTF-16.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use encoding_rs::{DecoderResult, EncoderResult, Encoding};

use crate::collation::Collation;

/// The upper halves of the two code pages that `encoding_rs` does not know, as their characters from 0x80 to 0xFF.
const CODE_PAGE_437: &str = concat!(
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ",
    "áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
    "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}",
);
const CODE_PAGE_850: &str = concat!(
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒ",
    "áíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐",
    "└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀",
    "ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{AD}±‗¾¶§÷¸°¨·¹³²■\u{A0}",
);

/// How text of one collation is put into bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodePage {
    /// UTF-8, from collations whose names end in `_UTF8`.
    Utf8,
    /// A code page of `encoding_rs`.
    Known(&'static Encoding),
    /// A single-byte code page, by the characters of its upper half.
    Table(&'static str),
}

impl CodePage {
    /// The code page of `char` and `varchar` in `collation`.
    pub(crate) fn of(collation: &Collation) -> Self {
        Self::numbered(collation.code_page())
    }

    /// The code page that a client's five collation bytes stand for: LCID, flags, sort id (MS-TDS 2.2.5.1.2).
    pub(crate) fn of_wire(bytes: [u8; 5]) -> Self {
        let [a, b, c, d, sort_id] = bytes;
        let packed = u32::from_le_bytes([a, b, c, d]);
        if packed & 1 << 26 != 0 {
            return Self::Utf8;
        }
        Self::numbered(match sort_id {
            30..=35 => 437,
            40..=49 | 55..=61 => 850,
            80..=98 => 1250,
            104..=108 => 1251,
            112..=124 => 1253,
            128..=130 => 1254,
            136..=138 => 1255,
            144..=146 => 1256,
            152..=160 => 1257,
            0 => code_page_of_language(packed & 0xFFFF),
            _ => 1252,
        })
    }

    fn numbered(number: u32) -> Self {
        Self::Known(match number {
            65001 => return Self::Utf8,
            437 => return Self::Table(CODE_PAGE_437),
            850 => return Self::Table(CODE_PAGE_850),
            874 => encoding_rs::WINDOWS_874,
            932 => encoding_rs::SHIFT_JIS,
            936 => encoding_rs::GBK,
            949 => encoding_rs::EUC_KR,
            950 => encoding_rs::BIG5,
            1250 => encoding_rs::WINDOWS_1250,
            1251 => encoding_rs::WINDOWS_1251,
            1253 => encoding_rs::WINDOWS_1253,
            1254 => encoding_rs::WINDOWS_1254,
            1255 => encoding_rs::WINDOWS_1255,
            1256 => encoding_rs::WINDOWS_1256,
            1257 => encoding_rs::WINDOWS_1257,
            1258 => encoding_rs::WINDOWS_1258,
            _ => encoding_rs::WINDOWS_1252,
        })
    }

    /// The bytes of `text`; a character that the code page lacks becomes `?`, as SQL Server has it.
    pub(crate) fn encode(self, text: &str) -> Cow<'_, [u8]> {
        if text.is_ascii() || self == Self::Utf8 {
            return Cow::Borrowed(text.as_bytes());
        }
        match self {
            Self::Utf8 => Cow::Borrowed(text.as_bytes()),
            Self::Known(encoding) => Cow::Owned(encode_known(encoding, text)),
            Self::Table(upper) => {
                let byte = |character: char| match u8::try_from(character) {
                    Ok(byte) if byte.is_ascii() => byte,
                    _ => upper
                        .chars()
                        .zip(0x80..=0xFF)
                        .find(|(known, _)| *known == character)
                        .map_or(b'?', |(_, byte)| byte),
                };
                Cow::Owned(text.chars().map(byte).collect())
            }
        }
    }

    /// The text that `bytes` are; what is no character becomes U+FFFD.
    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Self::Known(encoding) => decode_known(encoding, bytes),
            Self::Table(upper) => {
                let upper: Vec<char> = upper.chars().collect();
                let character = |byte: &u8| match byte.checked_sub(0x80) {
                    None => char::from(*byte),
                    Some(place) => upper.get(usize::from(place)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
                };
                bytes.iter().map(character).collect()
            }
        }
    }
}

/// The ANSI code page of a language (MS-LCID); 1252 where nothing else is known.
fn code_page_of_language(language: u32) -> u32 {
    match (language & 0x3FF, language) {
        (_, 0x0804 | 0x1004) => 936,
        (0x04, _) => 950,
        (0x11, _) => 932,
        (0x12, _) => 949,
        (0x1E, _) => 874,
        (0x05 | 0x0E | 0x15 | 0x18 | 0x1A | 0x1B | 0x1C | 0x24, _) => 1250,
        (0x02 | 0x19 | 0x22 | 0x23 | 0x2F | 0x3F | 0x44, _) => 1251,
        (0x08, _) => 1253,
        (0x1F | 0x2C, _) => 1254,
        (0x0D, _) => 1255,
        (0x01 | 0x20 | 0x29, _) => 1256,
        (0x25..=0x27, _) => 1257,
        (0x2A, _) => 1258,
        _ => 1252,
    }
}

fn encode_known(encoding: &'static Encoding, text: &str) -> Vec<u8> {
    let mut encoder = encoding.new_encoder();
    let mut bytes = Vec::with_capacity(text.len() * 2 + 16);
    let mut rest = text;
    loop {
        let (result, read) = encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut bytes, true);
        rest = &rest[read..];
        match result {
            EncoderResult::InputEmpty => return bytes,
            EncoderResult::OutputFull => bytes.reserve(rest.len() * 2 + 16),
            EncoderResult::Unmappable(_) => {
                bytes.reserve(1);
                bytes.push(b'?');
            }
        }
    }
}

fn decode_known(encoding: &'static Encoding, bytes: &[u8]) -> String {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(bytes.len() * 3 + 16);
    let mut rest = bytes;
    loop {
        let (result, read) = decoder.decode_to_string_without_replacement(rest, &mut text, true);
        rest = &rest[read..];
        match result {
            DecoderResult::InputEmpty => return text,
            DecoderResult::OutputFull => text.reserve(rest.len() * 3 + 16),
            DecoderResult::Malformed(_, _) => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

/// Appends `text` as UTF-16LE.
pub(crate) fn put_utf16(text: &str, output: &mut BytesMut) {
    if text.is_ascii() {
        let start = output.len();
        output.resize(start + text.len() * 2, 0);
        for (unit, byte) in output[start..].chunks_exact_mut(2).zip(text.as_bytes()) {
            unit[0] = *byte;
        }
    } else {
        output.reserve(text.len() * 2);
        text.encode_utf16().for_each(|unit| output.put_u16_le(unit));
    }
}

/// How many UTF-16 units `text` has.
pub(crate) fn utf16_units(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_every_code_page_reads_back() {
        for (page, text) in [
            (1252, "naïve €"),
            (1250, "Łódź"),
            (1251, "привет"),
            (932, "漢字"),
            (437, "αß≥ é"),
            (850, "Ðþ õ é"),
            (65001, "héllo 漢字"),
        ] {
            let page = CodePage::numbered(page);
            assert_eq!(page.decode(&page.encode(text)), text, "{page:?}");
        }
    }

    #[test]
    fn a_character_that_the_code_page_lacks_becomes_a_question_mark() {
        assert_eq!(CodePage::numbered(1252).encode("a漢b").as_ref(), b"a?b");
        assert_eq!(CodePage::numbered(437).encode("€").as_ref(), b"?");
    }

    #[test]
    fn the_bytes_of_a_collation_name_its_code_page() {
        for name in [
            "SQL_Latin1_General_CP1_CI_AS",
            "SQL_Latin1_General_CP437_CI_AS",
            "SQL_Latin1_General_CP850_CS_AS",
            "Latin1_General_100_CI_AS_SC_UTF8",
            "Japanese_CI_AS",
            "Polish_CI_AS",
            "Cyrillic_General_CI_AS",
            "Chinese_PRC_CI_AS",
            "Greek_CI_AS",
        ] {
            let collation = Collation::parse(name).unwrap();
            assert_eq!(CodePage::of_wire(collation.wire_bytes()), CodePage::of(&collation), "{name}");
        }
    }

    #[test]
    fn utf16_of_plain_and_other_text() {
        for text in ["plain", "héllo 漢字 🎉"] {
            let mut output = BytesMut::new();
            put_utf16(text, &mut output);
            assert_eq!(output.len(), utf16_units(text) * 2);
            assert_eq!(super::super::cursor::utf16(&output), text);
        }
    }
}
