//! SQL Server collations: what a collation's name says about the wire, about code pages and about comparison.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, LazyLock};

use encoding_rs::Encoding;

use crate::collation_order::{self as order, Strength};

/// The collation a database has when nothing else is asked for.
pub const DEFAULT_COLLATION: &str = "SQL_Latin1_General_CP1_CI_AS";

/// One collation, known by its name. Cheap to clone.
#[derive(Clone)]
pub struct Collation(Arc<Properties>);

struct Properties {
    name: String,
    lcid: u32,
    code_page: u32,
    sort_id: u8,
    version: u8,
    case_sensitive: bool,
    accent_sensitive: bool,
    kana_sensitive: bool,
    width_sensitive: bool,
    binary: Binary,
    utf8: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    No,
    Bin,
    Bin2,
}

/// Language prefix of a collation name, its LCID and its ANSI code page (sys.fn_helpcollations, MS-LCID).
const LANGUAGES: &[(&str, u32, u32)] = &[
    ("Albanian", 0x041C, 1250),
    ("Arabic", 0x0401, 1256),
    ("Chinese_PRC", 0x0804, 936),
    ("Chinese_Taiwan_Stroke", 0x0404, 950),
    ("Croatian", 0x041A, 1250),
    ("Cyrillic_General", 0x0419, 1251),
    ("Czech", 0x0405, 1250),
    ("Danish_Norwegian", 0x0406, 1252),
    ("Estonian", 0x0425, 1257),
    ("Finnish_Swedish", 0x040B, 1252),
    ("French", 0x040C, 1252),
    ("German_PhoneBook", 0x1_0407, 1252),
    ("Greek", 0x0408, 1253),
    ("Hebrew", 0x040D, 1255),
    ("Hungarian", 0x040E, 1250),
    ("Icelandic", 0x040F, 1252),
    ("Japanese", 0x0411, 932),
    ("Korean_Wansung", 0x0412, 949),
    ("Latvian", 0x0426, 1257),
    ("Lithuanian", 0x0427, 1257),
    ("Modern_Spanish", 0x0C0A, 1252),
    ("Polish", 0x0415, 1250),
    ("Romanian", 0x0418, 1250),
    ("Slovak", 0x041B, 1250),
    ("Slovenian", 0x0424, 1250),
    ("Thai", 0x041E, 874),
    ("Turkish", 0x041F, 1254),
    ("Ukrainian", 0x0422, 1251),
    ("Vietnamese", 0x042A, 1258),
    ("Latin1_General", 0x0409, 1252),
];

/// Sort ids of the SQL collations (MS-TDS 2.2.5.1.2), with their code pages.
const SORT_IDS: &[(&str, u8, u32)] = &[
    ("SQL_Latin1_General_CP437_CS_AS", 31, 437),
    ("SQL_Latin1_General_CP437_CI_AS", 32, 437),
    ("SQL_Latin1_General_CP437_CI_AI", 34, 437),
    ("SQL_Latin1_General_CP850_CS_AS", 41, 850),
    ("SQL_Latin1_General_CP850_CI_AS", 42, 850),
    ("SQL_Latin1_General_CP850_CI_AI", 44, 850),
    ("SQL_Latin1_General_CP1_CS_AS", 51, 1252),
    ("SQL_Latin1_General_CP1_CI_AS", 52, 1252),
    ("SQL_Latin1_General_CP1_CI_AI", 54, 1252),
    ("SQL_Latin1_General_CP1250_CS_AS", 81, 1250),
    ("SQL_Latin1_General_CP1250_CI_AS", 82, 1250),
    ("SQL_Latin1_General_CP1251_CS_AS", 105, 1251),
    ("SQL_Latin1_General_CP1251_CI_AS", 106, 1251),
    ("SQL_Latin1_General_CP1253_CS_AS", 113, 1253),
    ("SQL_Latin1_General_CP1253_CI_AS", 114, 1253),
    ("SQL_Latin1_General_CP1254_CS_AS", 129, 1254),
    ("SQL_Latin1_General_CP1254_CI_AS", 130, 1254),
];

impl Collation {
    /// Reads a collation's name; `None` when no collation is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let sql = SORT_IDS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
        let plain = upper.strip_prefix("SQL_").unwrap_or(&upper);
        let (_, lcid, ansi) =
            LANGUAGES.iter().find(|(prefix, _, _)| plain.starts_with(&prefix.to_ascii_uppercase()))?;
        let has = |word: &str| upper.split('_').any(|part| part == word);
        if sql.is_none() && upper.starts_with("SQL_") {
            return None;
        }
        let binary = match (has("BIN2"), has("BIN")) {
            (true, _) => Binary::Bin2,
            (_, true) => Binary::Bin,
            _ => Binary::No,
        };
        if binary == Binary::No && !has("CI") && !has("CS") {
            return None;
        }
        let utf8 = has("UTF8");
        let code_page = if utf8 { 65001 } else { sql.map_or(*ansi, |(_, _, page)| *page) };
        Some(Self(Arc::new(Properties {
            name: name.to_owned(),
            lcid: *lcid,
            code_page,
            sort_id: sql.map_or(0, |(_, id, _)| *id),
            version: if has("140") {
                3
            } else if has("100") {
                2
            } else {
                u8::from(has("90"))
            },
            case_sensitive: has("CS"),
            accent_sensitive: has("AS"),
            kana_sensitive: has("KS"),
            width_sensitive: has("WS"),
            binary,
            utf8,
        })))
    }

    /// Its name as SQL Server shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The five bytes a TYPE_INFO carries: LCID, flags and version in 32 bits, then the sort id (MS-TDS 2.2.5.1.2).
    #[must_use]
    pub fn wire_bytes(&self) -> [u8; 5] {
        let this = &self.0;
        let mut flags = 0u32;
        if this.binary == Binary::No {
            flags |= u32::from(!this.case_sensitive);
            flags |= u32::from(!this.accent_sensitive) << 1;
            flags |= u32::from(!this.kana_sensitive) << 2;
            flags |= u32::from(!this.width_sensitive) << 3;
        }
        flags |= u32::from(this.binary == Binary::Bin) << 4;
        flags |= u32::from(this.binary == Binary::Bin2) << 5;
        flags |= u32::from(this.utf8) << 6;
        let packed = (this.lcid & 0xF_FFFF) | (flags << 20) | (u32::from(this.version) << 28);
        let [a, b, c, d] = packed.to_le_bytes();
        [a, b, c, d, this.sort_id]
    }

    /// The code page of `char` and `varchar` in it; 65001 for UTF-8.
    #[must_use]
    pub fn code_page(&self) -> u32 {
        self.0.code_page
    }

    /// Its LCID, for `COLLATIONPROPERTY`.
    #[must_use]
    pub fn lcid(&self) -> u32 {
        self.0.lcid
    }

    /// Whether `char` and `varchar` in it are UTF-8.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        self.0.utf8
    }

    /// How `char` and `varchar` in it are encoded. Code pages 437 and 850 are not known to `encoding_rs`: `None`.
    #[must_use]
    pub fn encoding(&self) -> Option<&'static Encoding> {
        match self.0.code_page {
            65001 => Some(encoding_rs::UTF_8),
            874 => Some(encoding_rs::WINDOWS_874),
            932 => Some(encoding_rs::SHIFT_JIS),
            936 => Some(encoding_rs::GBK),
            949 => Some(encoding_rs::EUC_KR),
            950 => Some(encoding_rs::BIG5),
            1250 => Some(encoding_rs::WINDOWS_1250),
            1251 => Some(encoding_rs::WINDOWS_1251),
            1252 => Some(encoding_rs::WINDOWS_1252),
            1253 => Some(encoding_rs::WINDOWS_1253),
            1254 => Some(encoding_rs::WINDOWS_1254),
            1255 => Some(encoding_rs::WINDOWS_1255),
            1256 => Some(encoding_rs::WINDOWS_1256),
            1257 => Some(encoding_rs::WINDOWS_1257),
            1258 => Some(encoding_rs::WINDOWS_1258),
            _ => None,
        }
    }

    /// Whether upper and lower case differ in it.
    #[must_use]
    pub fn case_sensitive(&self) -> bool {
        self.0.case_sensitive || self.0.binary != Binary::No
    }

    /// Whether accents count in it.
    #[must_use]
    pub fn accent_sensitive(&self) -> bool {
        self.0.accent_sensitive || self.0.binary != Binary::No
    }

    /// Whether it compares code points (`_BIN`, `_BIN2`).
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.0.binary != Binary::No
    }

    /// Compares two texts as this collation does. Trailing blanks never count.
    #[must_use]
    pub fn compare(&self, left: &str, right: &str) -> Ordering {
        let (left, right) = (left.trim_end_matches(' '), right.trim_end_matches(' '));
        if self.is_binary() {
            return left.encode_utf16().cmp(right.encode_utf16());
        }
        let strength = Strength { case: self.0.case_sensitive, accent: self.0.accent_sensitive };
        order::compare(left, right, strength)
    }
}

/// The default collation, read once: every conversion asks for it.
static DEFAULT: LazyLock<Collation> = LazyLock::new(|| {
    Collation::parse(DEFAULT_COLLATION).unwrap_or_else(|| {
        Collation(Arc::new(Properties {
            name: DEFAULT_COLLATION.to_owned(),
            lcid: 0x0409,
            code_page: 1252,
            sort_id: 52,
            version: 0,
            case_sensitive: false,
            accent_sensitive: true,
            kana_sensitive: false,
            width_sensitive: false,
            binary: Binary::No,
            utf8: false,
        }))
    })
});

impl Default for Collation {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl PartialEq for Collation {
    fn eq(&self, other: &Self) -> bool {
        self.0.name.eq_ignore_ascii_case(&other.0.name)
    }
}

impl Eq for Collation {}

impl fmt::Debug for Collation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl std::hash::Hash for Collation {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.to_ascii_lowercase().hash(state);
    }
}
