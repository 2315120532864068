//! Single values that only connections to SQL Server and their tables have.

use std::net::IpAddr;

use chrono::NaiveTime;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::reader::{Context, Low};
use crate::config::settings::{DailyHours, Encrypt, Isolation};
use crate::config::table::{Method, Oversize, SubMicroseconds, Times, Timestamps, Variants};
use crate::config::units;
use crate::config::values::{Choice, parsed, with_unit};

/// Name or IP address of a server.
#[derive(Clone, Debug)]
pub(crate) struct HostName(pub(crate) String);

impl HostName {
    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let address: Option<IpAddr> = self.0.parse().ok();
        address.is_some_and(|address| address.is_loopback()) || self.0.eq_ignore_ascii_case("localhost")
    }
}

impl Low for HostName {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a name or IP address such as \"db.example.org\" or \"10.0.0.5\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
            let is_right = text.contains(char::is_alphanumeric) && text.chars().all(is_name);
            if is_right || text.parse::<IpAddr>().is_ok() {
                return Ok(Self(text.to_owned()));
            }
            // Connection strings may hold a password, so only what names a server is shown.
            let message = if text.contains([';', '=', '@', '/']) {
                "this is more than the name of a server: port, database and login have keys of their own".to_owned()
            } else if text.contains('\\') {
                format!("{text:?} names an instance, and instances are not looked up; put its port into `port`")
            } else if text.contains([',', ':']) {
                format!("{text:?} holds more than a name; the port stands in `port`")
            } else {
                format!("{text:?} is no name of a server")
            };
            Err(place.problem(message).expected(EXPECTED).into())
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A whole number within bounds, whatever its radix.
fn whole(value: &DeValue<'_>, least: u32, most: u32) -> Option<u32> {
    let DeValue::Integer(number) = value else { return None };
    u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| (least..=most).contains(number))
}

/// A TCP port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port(pub(crate) u16);

impl Low for Port {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        match whole(value.get_ref(), 1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()) {
            Some(port) => Some(Self(port)),
            None => context.mismatch(value, key, "a port from 1 to 65535"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": u16::MAX })
    }
}

/// Size of a packet of SQL Server's protocol in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketSize(pub(crate) u32);

impl PacketSize {
    /// Bounds of the protocol (MS-TDS 2.2.6.4, `PacketSize`).
    const LEAST: u32 = 512;
    const MOST: u32 = 32_767;
}

impl Low for PacketSize {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        match whole(value.get_ref(), Self::LEAST, Self::MOST) {
            Some(bytes) => Some(Self(bytes)),
            None => context.mismatch(value, key, "a number of bytes from 512 to 32767"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": Self::LEAST, "maximum": Self::MOST })
    }
}

/// Bits per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) u64);

impl Low for Rate {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        with_unit(value, key, context, "a rate such as \"100Mbit/s\" or \"10MB/s\"", units::rate).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\s*[0-9]+\s*([kMG]?bit/s|MB/s)\s*$" })
    }
}

/// A part of every day in UTC, `22:00-06:00`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hours(pub(crate) DailyHours);

impl Low for Hours {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "two times of the day in UTC such as \"22:00-06:00\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            let times = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
            let Some((from, to)) = times else {
                return Err(place.problem(format!("{text:?} is no part of a day")).expected(EXPECTED).into());
            };
            if from == to {
                let problem = place.problem(format!("{text:?} ends when it begins"));
                return Err(problem.expected(format!("{EXPECTED}; nothing for the whole day")).into());
            }
            Ok(Self(DailyHours { from, to }))
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\s*[0-9]{1,2}:[0-9]{2}\s*-\s*[0-9]{1,2}:[0-9]{2}\s*$" })
    }
}

/// Hour and minute; `24:00` is the midnight that ends a day.
fn time(text: &str) -> Option<NaiveTime> {
    let (hour, minute) = text.trim().split_once(':')?;
    let is_number = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hour, 2) || minute.len() != 2 || !is_number(minute, 2) {
        return None;
    }
    match (hour.parse().ok()?, minute.parse().ok()?) {
        (24, 0) => Some(NaiveTime::MIN),
        (hour, minute) => NaiveTime::from_hms_opt(hour, minute, 0),
    }
}

/// Schema and name of a table, as people write them in SQL Server: parts may stand in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectName {
    /// The schema without brackets; `dbo` where none is written.
    pub(crate) schema: String,
    /// The table without brackets.
    pub(crate) table: String,
}

impl Low for ObjectName {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "schema and table such as \"dbo.orders\" or \"[my schema].[my.table]\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            object_name(text).map_err(|why| place.problem(format!("{text:?}: {why}")).expected(EXPECTED).into())
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// Schema and name of a table of SQL Server as a person writes them: `dbo.orders`, `orders`, `[my schema].[a]]b]`.
///
/// # Errors
/// What is wrong with the text.
pub fn source_table_name(text: &str) -> Result<(String, String), &'static str> {
    object_name(text).map(|name| (name.schema, name.table))
}

fn object_name(text: &str) -> Result<ObjectName, &'static str> {
    /// `sysname` is `nvarchar(128)`.
    const LONGEST: usize = 128;
    let mut parts = name_parts(text)?;
    if parts.iter().any(|part| part.is_empty()) {
        return Err("a part of the name is empty");
    }
    if parts.iter().any(|part| part.encode_utf16().count() > LONGEST) {
        return Err("names in SQL Server have at most 128 characters");
    }
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(table), schema, true) => Ok(ObjectName { schema: schema.unwrap_or_else(|| "dbo".to_owned()), table }),
        _ => Err("the name has more than two parts; the connection names the database"),
    }
}

/// The parts between the dots, without brackets; `]]` in brackets is one `]`.
fn name_parts(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim());
    loop {
        let after = match rest.strip_prefix('[') {
            Some(inner) => {
                let (part, after) = bracketed(inner).ok_or("a bracket is not closed")?;
                parts.push(part);
                after.trim_start()
            }
            None => {
                let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                if part.contains(['[', ']', '"']) {
                    return Err("a part with brackets or quotes in it stands in brackets, with ] written as ]]");
                }
                parts.push(part.trim().to_owned());
                after
            }
        };
        match after.strip_prefix('.') {
            Some(next) => rest = next.trim_start(),
            None if after.is_empty() => return Ok(parts),
            None => return Err("after a bracket comes a dot or nothing"),
        }
    }
}

/// What stands before the closing bracket, and what follows it.
fn bracketed(inner: &str) -> Option<(String, &str)> {
    let (mut part, mut rest) = (String::new(), inner);
    loop {
        let (before, after) = rest.split_once(']')?;
        part.push_str(before);
        match after.strip_prefix(']') {
            Some(more) => {
                part.push(']');
                rest = more;
            }
            None => return Some((part, after)),
        }
    }
}

impl Choice for Encrypt {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("strict", Self::Strict), ("login", Self::LoginOnly), ("off", Self::Off)];
}

impl Choice for Isolation {
    const WORDS: &'static [(&'static str, Self)] =
        &[("snapshot", Self::Snapshot), ("snapshot_or_read_committed", Self::SnapshotOrReadCommitted)];
}

impl Choice for Method {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("change_tracking", Self::ChangeTracking),
        ("rowversion", Self::RowVersion),
        ("key_diff", Self::KeyDiff),
        ("reload", Self::Reload),
    ];
    const LATER: &'static [&'static str] = &["cdc"];
}

impl Choice for Timestamps {
    const WORDS: &'static [(&'static str, Self)] = &[("ntz", Self::Ntz), ("utc", Self::Utc)];
}

impl Choice for SubMicroseconds {
    const WORDS: &'static [(&'static str, Self)] =
        &[("truncate", Self::Truncate), ("error", Self::Error), ("text", Self::Text)];
}

impl Choice for Times {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("microseconds", Self::Microseconds)];
}

impl Choice for Variants {
    const WORDS: &'static [(&'static str, Self)] = &[("fail", Self::Fail), ("text", Self::Text)];
}

impl Choice for Oversize {
    const WORDS: &'static [(&'static str, Self)] = &[("fail", Self::Fail), ("reject", Self::Reject)];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::broken::seeded;

    fn name(schema: &str, table: &str) -> Result<ObjectName, &'static str> {
        Ok(ObjectName { schema: schema.to_owned(), table: table.to_owned() })
    }

    #[test]
    fn names_of_tables_are_read_with_and_without_brackets() {
        assert_eq!(object_name("dbo.orders"), name("dbo", "orders"));
        assert_eq!(object_name("orders"), name("dbo", "orders"));
        assert_eq!(object_name("[my schema].[or]]ders]"), name("my schema", "or]ders"));
        assert_eq!(object_name("sales . [a.b]"), name("sales", "a.b"));
        assert_eq!(object_name("dbo.order lines"), name("dbo", "order lines"));
        assert_eq!(object_name("[']]; drop table x --]"), name("dbo", "']; drop table x --"));
        assert_eq!(object_name("[\u{1f600}].Straße"), name("\u{1f600}", "Straße"));
        assert_eq!(object_name(" [ a ] "), name("dbo", " a "));
    }

    #[test]
    fn what_is_no_name_of_a_table_says_why() {
        for (text, wanted) in [
            ("", "empty"),
            ("dbo.", "empty"),
            (".orders", "empty"),
            ("[].a", "empty"),
            ("ops.dbo.orders", "more than two parts"),
            ("server.ops.dbo.orders", "more than two parts"),
            ("[dbo", "not closed"),
            ("[dbo]]", "not closed"),
            ("[dbo]x.orders", "a dot or nothing"),
            ("\"dbo\".\"orders\"", "stands in brackets"),
            ("dbo.or[ders", "stands in brackets"),
        ] {
            let error = object_name(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
        assert!(object_name(&"\u{1f600}".repeat(65)).unwrap_err().contains("128"));
        assert!(object_name(&"a".repeat(128)).is_ok());
    }

    #[test]
    fn hours_may_pass_midnight() {
        let at = |text| time(text).unwrap();
        let night = DailyHours { from: at("22:00"), to: at("6:00") };
        assert!(night.contains(at("22:00")) && night.contains(at("00:00")) && night.contains(at("05:59")));
        assert!(!night.contains(at("06:00")) && !night.contains(at("21:59")));
        let evening = DailyHours { from: at("18:00"), to: at("24:00") };
        assert!(evening.contains(at("23:59")) && !evening.contains(at("00:00")) && !evening.contains(at("17:59")));
        let day = DailyHours { from: at("09:00"), to: at("17:00") };
        assert!(day.contains(at("09:00")) && !day.contains(at("17:00")) && !day.contains(at("23:00")));
        for wrong in ["25:00", "24:01", "12:60", "+1:00", "12", "1:2", "", "12:00:00", "-1:00"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, wanted) in
            [("localhost", true), ("127.0.0.7", true), ("::1", true), ("LOCALHOST", true), ("localhost.example", false)]
        {
            assert_eq!(HostName(host.to_owned()).is_loopback(), wanted, "{host}");
        }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn every_name_in_brackets_is_read_back(schema in "\\PC{1,20}", table in "[\\]\\[.\"' a-z]{1,20}") {
            let quoted = |part: &str| format!("[{}]", part.replace(']', "]]"));
            let read = object_name(&format!("{}.{}", quoted(&schema), quoted(&table)));
            prop_assert_eq!(read, name(&schema, &table));
        }

        #[test]
        fn no_text_makes_the_reader_of_names_fail_otherwise(text in "[\\[\\].a \"]{0,12}") {
            let _ = object_name(&text);
        }
    }
}
