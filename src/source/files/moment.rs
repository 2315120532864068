//! Dates and timestamps from text.

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{NaiveDate, NaiveDateTime};

use super::number::{not, quoted};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A date with or without a time of day with or without an offset, as ISO 8601 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Iso {
    /// Days since 1970-01-01.
    pub(super) days: i32,
    /// Microseconds since midnight.
    pub(super) time: Option<i64>,
    /// Seconds east of UTC.
    pub(super) offset: Option<i32>,
}

/// A `strftime` format, parsed once.
#[derive(Clone, Debug)]
pub(super) struct TimeFormat {
    text: String,
    items: Vec<Item<'static>>,
}

impl TimeFormat {
    /// Understands a format; none where it has a part that chrono does not know.
    pub(super) fn new(text: &str) -> Option<Self> {
        let items = StrftimeItems::new(text).parse_to_owned().ok()?;
        Some(Self { text: text.to_owned(), items })
    }

    fn read(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, self.items.iter()).ok()?;
        Some(parsed)
    }
}

/// Reads a day: in one of the formats, or as `2013-01-31` where there are none. A time of day is allowed at midnight only.
pub(super) fn date(text: &[u8], formats: &[TimeFormat]) -> Result<i32, String> {
    if formats.is_empty() {
        return match iso(text) {
            Some(Iso { days, time: None | Some(0), offset: None | Some(0) }) => Ok(days),
            Some(_) => Err(format!("{} is not a date but a time within a day", quoted(text))),
            None => Err(not("a date as in 2013-01-31", text)),
        };
    }
    let readable = std::str::from_utf8(text).map_err(|_| not("a date", text))?;
    let found = formats.iter().find_map(|format| format.read(readable)?.to_naive_date().ok());
    found.map(days_of).ok_or_else(|| not(&format!("a date in the format {}", names(formats)), text))
}

/// Reads an instant in microseconds of UTC; a text without an offset is taken as UTC.
pub(super) fn instant(text: &[u8], formats: &[TimeFormat]) -> Result<i64, String> {
    if formats.is_empty() {
        let Some(iso) = iso(text) else { return Err(not("a timestamp as in 2013-01-31T12:30:00Z", text)) };
        return Ok(iso.micros() - i64::from(iso.offset.unwrap_or(0)) * 1_000_000);
    }
    let readable = std::str::from_utf8(text).map_err(|_| not("a timestamp", text))?;
    let found = formats.iter().find_map(|format| {
        let parsed = format.read(readable)?;
        match parsed.offset() {
            Some(_) => Some(parsed.to_datetime().ok()?.timestamp_micros()),
            None => Some(naive(&parsed)?.and_utc().timestamp_micros()),
        }
    });
    found.ok_or_else(|| not(&format!("a timestamp in the format {}", names(formats)), text))
}

/// Reads a date and time without a zone, in microseconds since 1970-01-01T00:00:00.
pub(super) fn local(text: &[u8], formats: &[TimeFormat]) -> Result<i64, String> {
    if formats.is_empty() {
        return match iso(text) {
            Some(iso @ Iso { offset: None, .. }) => Ok(iso.micros()),
            Some(_) => Err(format!("{} has an offset from UTC, which timestamp_ntz cannot keep", quoted(text))),
            None => Err(not("a timestamp as in 2013-01-31T12:30:00", text)),
        };
    }
    let readable = std::str::from_utf8(text).map_err(|_| not("a timestamp", text))?;
    let found = formats.iter().find_map(|format| Some(naive(&format.read(readable)?)?.and_utc().timestamp_micros()));
    found.ok_or_else(|| not(&format!("a timestamp in the format {}", names(formats)), text))
}

impl Iso {
    fn micros(self) -> i64 {
        i64::from(self.days) * MICROS_PER_DAY + self.time.unwrap_or(0)
    }
}

/// Reads `YYYY-MM-DD`, `YYYY-MM-DD[T ]HH:MM[:SS[.f…]]` and the latter with `Z`, `±HH`, `±HHMM` or `±HH:MM`.
/// Of the fraction's at most nine digits six are kept.
pub(super) fn iso(text: &[u8]) -> Option<Iso> {
    let (day, rest) = text.split_at_checked(10)?;
    if day[4] != b'-' || day[7] != b'-' {
        return None;
    }
    let year = i32::try_from(digits(&day[..4])?).ok()?;
    let days = civil_days(year, digits(&day[5..7])?, digits(&day[8..])?)?;
    if rest.is_empty() {
        return Some(Iso { days, time: None, offset: None });
    }
    let rest = rest.strip_prefix(b"T").or_else(|| rest.strip_prefix(b" "))?;
    let (time, rest) = time_of_day(rest)?;
    Some(Iso { days, time: Some(time), offset: offset(rest)? })
}

fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (clock, mut rest) = text.split_at_checked(5)?;
    let (hour, minute) = (digits(&clock[..2])?, digits(&clock[3..])?);
    if clock[2] != b':' || hour > 23 || minute > 59 {
        return None;
    }
    let mut micros = (i64::from(hour) * 3600 + i64::from(minute) * 60) * 1_000_000;
    if let [b':', tens, ones, after @ ..] = rest {
        let second = digits(&[*tens, *ones])?;
        if second > 59 {
            return None;
        }
        micros += i64::from(second) * 1_000_000;
        rest = after;
        if let [b'.', fraction @ ..] = rest {
            let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 || length > 9 {
                return None;
            }
            let kept = length.min(6);
            let scale = 10_i64.pow(u32::try_from(6 - kept).ok()?);
            micros += i64::from(digits(&fraction[..kept])?) * scale;
            rest = &fraction[length..];
        }
    }
    Some((micros, rest))
}

/// The offset at the end of a timestamp: inside, none where nothing is written; outside, none where it is not understood.
fn offset(text: &[u8]) -> Option<Option<i32>> {
    let (sign, hours, minutes) = match text {
        [] => return Some(None),
        b"Z" | b"z" | b" UTC" => return Some(Some(0)),
        [sign @ (b'+' | b'-'), h1, h2] => (sign, [*h1, *h2], [b'0', b'0']),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] | [sign @ (b'+' | b'-'), h1, h2, m1, m2] => {
            (sign, [*h1, *h2], [*m1, *m2])
        }
        _ => return None,
    };
    let (hours, minutes) = (digits(&hours)?, digits(&minutes)?);
    if hours > 15 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    Some(Some(if *sign == b'-' { -seconds } else { seconds }))
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0_u32, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))
}

/// Days since 1970-01-01 of a day of the Gregorian calendar; none where there is no such day.
fn civil_days(year: i32, month: u32, day: u32) -> Option<i32> {
    const LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = *LENGTHS.get(usize::try_from(month).ok()?.checked_sub(1)?)? + u32::from(leap && month == 2);
    if day == 0 || day > length || year == 0 {
        return None;
    }
    // Counted from March, so that the leap day is a year's last; 400 years have 146 097 days.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = i32::try_from((153 * shifted_month + 2) / 5 + day - 1).ok()?;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// What a format found, with midnight where it has no time of day.
fn naive(parsed: &Parsed) -> Option<NaiveDateTime> {
    if parsed.offset().is_some() {
        return None;
    }
    match parsed.to_naive_datetime_with_offset(0) {
        Ok(found) => Some(found),
        Err(_) if parsed.hour_div_12().is_none() => parsed.to_naive_date().ok()?.and_hms_opt(0, 0, 0),
        Err(_) => None,
    }
}

fn days_of(date: NaiveDate) -> i32 {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).unwrap_or(i32::MAX)
}

fn names(formats: &[TimeFormat]) -> String {
    formats.iter().map(|format| format.text.as_str()).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_agree_with_chrono_over_the_centuries() {
        let mut day = NaiveDate::from_ymd_opt(1583, 1, 1).unwrap();
        while day < NaiveDate::from_ymd_opt(2500, 1, 1).unwrap() {
            let text = day.format("%Y-%m-%d").to_string();
            assert_eq!(date(text.as_bytes(), &[]), Ok(days_of(day)), "{text}");
            day = day + chrono::Days::new(17);
        }
        for text in ["2013-02-29", "2013-13-01", "2013-00-10", "2013-1-1", "13-01-2013", "2013-01-01T10:00:00"] {
            assert!(date(text.as_bytes(), &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_offset_makes_an_instant() {
        let utc = instant(b"2013-01-31T12:30:00Z", &[]).unwrap();
        assert_eq!(instant(b"2013-01-31 14:30:00+02:00", &[]), Ok(utc));
        assert_eq!(instant(b"2013-01-31T04:30:00.000-0800", &[]), Ok(utc));
        assert_eq!(instant(b"2013-01-31 12:30", &[]), Ok(utc));
        assert_eq!(local(b"2013-01-31 12:30:00.000001999", &[]), Ok(utc + 1));
        assert!(local(b"2013-01-31T12:30:00Z", &[]).unwrap_err().contains("offset"));
        assert!(instant(b"2013-01-31T25:00:00Z", &[]).is_err());
        assert!(instant(b"2013-01-31T12:30:00+0200x", &[]).is_err());
    }

    #[test]
    fn formats_are_tried_in_turn() {
        let formats = ["%d/%m/%Y", "%Y%m%d", "%d.%m.%Y %H:%M"].map(|text| TimeFormat::new(text).unwrap());
        let day = date(b"2013-01-31", &[]).unwrap();
        assert_eq!(date(b"31/01/2013", &formats), Ok(day));
        assert_eq!(date(b"20130131", &formats), Ok(day));
        assert_eq!(local(b"31.01.2013 12:30", &formats), local(b"2013-01-31T12:30", &[]));
        assert_eq!(local(b"31/01/2013", &formats), local(b"2013-01-31", &[]));
        assert!(date(b"2013-01-31", &formats).unwrap_err().contains("%d/%m/%Y or %Y%m%d"));
        let zoned = [TimeFormat::new("%Y-%m-%d %H:%M:%S %z").unwrap(), TimeFormat::new("%s").unwrap()];
        assert_eq!(instant(b"2013-01-31 14:30:00 +0200", &zoned), instant(b"2013-01-31T12:30:00Z", &[]));
        assert_eq!(instant(b"1359635400", &zoned), instant(b"2013-01-31T12:30:00Z", &[]));
        assert!(TimeFormat::new("%Q").is_none());
    }
}
