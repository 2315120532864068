//! The kinds of single values both formats are made of: text, numbers, values with units, words of a closed
//! list, addresses.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::problem::Problem;
use crate::config::reader::{Context, Low, Place, found};
use crate::config::units::{self, InvalidUnit};
use crate::model::ColumnType;

/// Reads a string and turns it into something with `parse`, whose error becomes the problem.
pub(super) fn parsed<T>(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    context: &mut Context<'_>,
    expected: &str,
    parse: impl FnOnce(&str, &Place) -> Result<T, Box<Problem>>,
) -> Option<T> {
    let DeValue::String(text) = value.get_ref() else { return context.mismatch(value, key, expected) };
    match parse(text, &context.place(value.span(), key)) {
        Ok(parsed) => Some(parsed),
        Err(problem) => context.note(*problem),
    }
}

/// Reads a string with a unit, naming the unit that was meant where it is unknown.
pub(super) fn with_unit<T>(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    context: &mut Context<'_>,
    expected: &str,
    parse: impl FnOnce(&str) -> Result<T, InvalidUnit>,
) -> Option<T> {
    parsed(value, key, context, expected, |text, place| {
        parse(text).map_err(|error| {
            let mut problem = place.problem(format!("{text:?} cannot be read: {error}")).expected(expected);
            if let InvalidUnit::UnknownUnit { nearest, .. } = error {
                problem.nearest = nearest.map(str::to_owned);
            }
            Box::new(problem)
        })
    })
}

impl Low for String {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        parsed(value, key, context, "a text", |text, _| Ok(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// A text that is not empty.
#[derive(Clone, Debug)]
pub(crate) struct Text(pub(crate) String);

impl Low for Text {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        parsed(value, key, context, "a text", |text, place| {
            if text.trim().is_empty() {
                Err(place.problem("the text is empty").into())
            } else {
                Ok(Self(text.to_owned()))
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl Low for bool {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => context.mismatch(value, key, "true or false"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A whole number from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(crate) NonZeroUsize);

impl Low for Count {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        /// More threads or tables at a time than any machine has use for: a slip.
        const MOST: usize = 65_536;
        let number = match value.get_ref() {
            DeValue::Integer(number) => usize::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match number.filter(|number| *number <= MOST).and_then(NonZeroUsize::new) {
            Some(number) => Some(Self(number)),
            None => context.mismatch(value, key, "a whole number from 1 to 65536"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": 65_536 })
    }
}

/// The version of the format; there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormatVersion;

impl Low for FormatVersion {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Integer(number) if number.as_str() == "1" => Some(Self),
            _ => context.mismatch(value, key, "1, the only version of this format"),
        }
    }

    fn schema() -> Value {
        json!({ "const": 1 })
    }
}

/// A number, as it is written.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// A finite number from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times(pub(crate) f64);

impl Low for Times {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        match number(value.get_ref()) {
            Some(number) if number.is_finite() && number >= 1.0 => Some(Self(number)),
            _ => context.mismatch(value, key, "a number from 1"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 1 })
    }
}

/// A share of a whole: 0 to 1, or a text in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(pub(crate) f64);

impl Low for Share {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a share such as 0.1 or \"10%\"";
        match number(value.get_ref()) {
            Some(number) => match units::share(number) {
                Ok(share) => Some(Self(share)),
                Err(error) => {
                    let place = context.place(value.span(), key);
                    context.note(place.problem(format!("{number}: {error}")).expected(EXPECTED))
                }
            },
            None => with_unit(value, key, context, EXPECTED, units::percent).map(Self),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": r"^\s*[0-9.]+\s*%\s*$" },
        ] })
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl Low for Span {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        with_unit(value, key, context, "a time such as \"30s\", \"10m\" or \"1h30m\"", units::duration).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\s*([0-9]+\s*(ms|s|m|min|h|d)\s*)+$" })
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl Low for Size {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        with_unit(value, key, context, "a size such as \"256MiB\" or \"4GB\"", units::size).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\s*[0-9]+\s*(B|[kKMGT]B|[KMGT]iB)\s*$" })
    }
}

/// A size in bytes of something that there need not be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeOrNone(pub(crate) u64);

impl Low for SizeOrNone {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let expected = "a size such as \"256MiB\" or \"4GB\", or \"0B\" for none";
        with_unit(value, key, context, expected, units::size_or_none).map(Self)
    }

    fn schema() -> Value {
        Size::schema()
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Low for Address {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "an IP address and a port such as \"127.0.0.1:8815\" or \"[::]:8815\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            // `localhost` is what people write; a name that has to be looked up could mean several addresses.
            let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
            let address = numeric.as_deref().unwrap_or(text).parse().map(Self);
            address.map_err(|_| place.problem(format!("{text:?} is no address")).expected(EXPECTED).into())
        })
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// The address of a service.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint(pub(crate) url::Url);

impl Low for Endpoint {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "an address such as \"https://s3.example.org\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            // The text is not shown here: an address may hold a password.
            let url = url::Url::parse(text)
                .map_err(|error| place.problem(format!("this is no address: {error}")).expected(EXPECTED))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(place
                    .problem(
                        "an address does not hold user and password; put them into access_key_id and secret_access_key",
                    )
                    .into());
            }
            match url.scheme() {
                "http" | "https" if url.has_host() => Ok(Self(url)),
                scheme => Err(place.problem(format!("an address with scheme `{scheme}`")).expected(EXPECTED).into()),
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

/// One byte between or around fields; none for the empty text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Byte(pub(crate) Option<u8>);

impl Low for Byte {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "one ASCII character other than a line break, such as \";\" or \"\\t\"";
        parsed(value, key, context, EXPECTED, |text, place| match text.as_bytes() {
            [] => Ok(Self(None)),
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(Self(Some(*byte))),
            _ => Err(place.problem(format!("found {text:?}")).expected(EXPECTED).into()),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "maxLength": 1 })
    }
}

/// A cron line of five fields, or six with seconds first.
#[derive(Clone, Debug)]
pub(crate) struct CronLine(pub(crate) Box<croner::Cron>);

impl Low for CronLine {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "minute hour day month weekday, as in \"0 * * * *\" for every full hour (UTC)";
        parsed(value, key, context, EXPECTED, |text, place| {
            let parser = croner::parser::CronParser::builder().year(croner::parser::Year::Disallowed).build();
            let cron = parser.parse(text);
            let cron =
                cron.map_err(|error| place.problem(format!("{text:?} is no cron line: {error}")).expected(EXPECTED))?;
            // A line such as `0 0 30 2 *` is well formed and never comes due.
            match cron.find_next_occurrence(&chrono::DateTime::UNIX_EPOCH, true) {
                Ok(_) => Ok(Self(Box::new(cron))),
                Err(_) => {
                    Err(place.problem(format!("{text:?} names no time that ever comes")).expected(EXPECTED).into())
                }
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// A text encoding under one of its WHATWG labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncodingLabel(pub(crate) &'static encoding_rs::Encoding);

/// The labels people write most, for hints; every WHATWG label is read.
const ENCODING_LABELS: &[&str] = &[
    "utf-8",
    "utf-16le",
    "utf-16be",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1254",
    "latin1",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-15",
    "macintosh",
    "ibm866",
    "koi8-r",
    "shift_jis",
    "euc-jp",
    "euc-kr",
    "gbk",
    "gb18030",
    "big5",
];

impl Low for EncodingLabel {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a WHATWG label such as \"utf-8\", \"windows-1252\" or \"latin1\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            encoding_rs::Encoding::for_label_no_replacement(text.as_bytes()).map(Self).ok_or_else(|| {
                let problem = place.problem(format!("{text:?} is no known encoding")).expected(EXPECTED);
                Box::new(problem.near(text, ENCODING_LABELS.iter().copied()))
            })
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "examples": ENCODING_LABELS })
    }
}

impl Low for ColumnType {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        /// Names of other systems and what they are here.
        const ELSEWHERE: &[(&str, &str)] = &[
            ("varchar", "string"),
            ("nvarchar", "string"),
            ("text", "string"),
            ("utf8", "string"),
            ("long", "bigint"),
            ("int64", "bigint"),
            ("int32", "int"),
            ("int16", "smallint"),
            ("tinyint", "smallint"),
            ("short", "smallint"),
            ("float", "real"),
            ("float32", "real"),
            ("float64", "double"),
            ("numeric", "decimal"),
            ("datetime", "timestamp"),
            ("timestamptz", "timestamp"),
            ("list", "array"),
        ];
        parsed(value, key, context, "a type such as \"bigint\"", |text, place| {
            text.parse().map_err(|error: crate::model::column_type::InvalidType| {
                let word = text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_lowercase();
                let problem = place.problem(error.to_string());
                Box::new(match ELSEWHERE.iter().find(|(name, _)| *name == word) {
                    Some((_, here)) => Problem { nearest: Some((*here).to_owned()), ..problem },
                    None => problem.near(&word, TYPE_WORDS.iter().copied().filter(|known| *known != word)),
                })
            })
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "examples": TYPE_WORDS })
    }
}

/// The words types begin with.
const TYPE_WORDS: &[&str] = &[
    "boolean",
    "smallint",
    "int",
    "bigint",
    "real",
    "double",
    "decimal",
    "string",
    "binary",
    "date",
    "timestamp",
    "timestamp_ntz",
    "struct",
    "array",
    "map",
];

/// A `strftime` format.
#[derive(Clone, Debug)]
pub(crate) struct DateFormat(pub(crate) String);

impl Low for DateFormat {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a strftime format such as \"%d/%m/%Y\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            use chrono::format::{Item, StrftimeItems};
            let items: Vec<_> = StrftimeItems::new(text).collect();
            if items.contains(&Item::Error) {
                return Err(place
                    .problem(format!("{text:?} has a % code that is not known"))
                    .expected(EXPECTED)
                    .into());
            }
            if !items.iter().any(|item| matches!(item, Item::Numeric(..) | Item::Fixed(..))) {
                return Err(place.problem(format!("{text:?} has no % code")).expected(EXPECTED).into());
            }
            Ok(Self(text.to_owned()))
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "%" })
    }
}

/// Which log lines are shown: a level, or a filter as in `info,lakegate::lake=debug`.
#[derive(Clone, Debug)]
pub(crate) struct LogLevel(pub(crate) String);

impl Low for LogLevel {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
        const EXPECTED: &str =
            "error, warn, info, debug, trace or off, or a filter as in \"info,lakegate::lake=debug\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            // A word alone would be taken for the name of a module and switch everything else off.
            let word = !text.contains([',', '=', ':', '[']);
            let known = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text));
            let filter = tracing_subscriber::EnvFilter::builder().parse(text);
            if (word && !known) || filter.is_err() {
                let problem = place.problem(format!("{text:?} is no level")).expected(EXPECTED);
                return Err(problem.near(text, LEVELS.iter().copied()).into());
            }
            Ok(Self(text.to_owned()))
        })
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// A word of a closed list.
pub(crate) trait Choice: Copy + 'static {
    /// The words with what they mean.
    const WORDS: &'static [(&'static str, Self)];

    /// Words of the design that are not built yet.
    const LATER: &'static [&'static str] = &[];
}

/// One of the words of a [`Choice`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen<T>(pub(crate) T);

impl<T: Choice> Low for Chosen<T> {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let words = T::WORDS.iter().map(|(word, _)| *word);
        let expected = format!("one of {}", words.clone().collect::<Vec<_>>().join(", "));
        let DeValue::String(text) = value.get_ref() else { return context.mismatch(value, key, &expected) };
        if let Some((_, choice)) = T::WORDS.iter().find(|(word, _)| word == text) {
            return Some(Self(*choice));
        }
        let place = context.place(value.span(), key);
        if T::LATER.iter().any(|word| word == text) {
            return context.note(place.problem(format!("`{text}` is not built yet")).expected(expected));
        }
        let problem = place.problem(format!("found {}", found(value.get_ref()))).expected(expected);
        context.note(problem.near(text, words))
    }

    fn schema() -> Value {
        json!({ "enum": T::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
    }
}
