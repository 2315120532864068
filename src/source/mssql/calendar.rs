//! Days, times of day and their text, without an allocation and without a calendar library in the way.

use std::fmt;

/// Days from 0001-01-01 to 1970-01-01.
pub const DAYS_TO_1970: i64 = 719_162;
/// Days from 1970-01-01 back to 1900-01-01.
pub const DAYS_1900: i64 = -25_567;
/// The last day the server knows, 9999-12-31, in days since 1970.
pub const LAST_DAY: i64 = 2_932_896;
/// The first day the server knows, 0001-01-01, in days since 1970.
pub const FIRST_DAY: i64 = -DAYS_TO_1970;
/// Microseconds of a day.
pub const DAY_MICROSECONDS: i64 = 86_400_000_000;

/// Seconds of a day.
const DAY_SECONDS: u64 = 86_400;

/// Powers of ten up to the seventh digit of a second.
const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Year, month and day of a day since 1970 in the Gregorian calendar, also before it was introduced.
pub fn civil(day: i64) -> (i64, u8, u8) {
    // Years run from March, so that the leap day is the last of its year; eras are the 400 years after which the
    // calendar repeats.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Both are small by construction.
    (year, u8::try_from(month).unwrap_or_default(), u8::try_from(day_of_month).unwrap_or_default())
}

/// The day since 1970 of a date; none if there is no such date.
pub fn day_of(year: i64, month: u8, day: u8) -> Option<i64> {
    let (wide_month, wide_day) = (i64::from(month), i64::from(day));
    if !(1..=12).contains(&wide_month) {
        return None;
    }
    let shifted_year = year - i64::from(wide_month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let month_from_march = (wide_month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + wide_day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let found = era * 146_097 + of_era - 719_468;
    (civil(found) == (year, month, day)).then_some(found)
}

/// The steps of a time of day that make a full day, at `scale` digits of a second; none beyond seven digits.
pub fn day_steps(scale: u8) -> Option<u64> {
    TENS.get(usize::from(scale)).map(|steps| steps * DAY_SECONDS)
}

/// A time of day in steps of `scale` digits of a second as microseconds, and the seventh digit that has no place in
/// them; none when it is no time of day.
pub fn microseconds(steps: u64, scale: u8) -> Option<(i64, u8)> {
    if steps >= day_steps(scale)? {
        return None;
    }
    let (whole, rest) = match TENS.get(6_usize.checked_sub(usize::from(scale)).unwrap_or(usize::MAX)) {
        Some(factor) => (steps * factor, 0),
        None => (steps / 10, steps % 10),
    };
    Some((i64::try_from(whole).ok()?, u8::try_from(rest).ok()?))
}

/// A short text in place: long enough for a moment with seven digits and an offset.
#[derive(Clone, Copy)]
pub struct ShortText {
    bytes: [u8; 48],
    length: usize,
}

impl ShortText {
    /// An empty text.
    pub fn new() -> Self {
        Self { bytes: [0; 48], length: 0 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.bytes.get(..self.length).unwrap_or_default()).unwrap_or_default()
    }

    /// Adds a date: `YYYY-MM-DD`.
    pub fn date(&mut self, day: i64) -> &mut Self {
        let (year, month, day) = civil(day);
        self.number(year.unsigned_abs(), 4).push(b'-').number(u64::from(month), 2).push(b'-').number(u64::from(day), 2)
    }

    /// Adds a time of day given in steps of `scale` digits of a second: `HH:MM:SS`, and the digits if there are any.
    pub fn time(&mut self, steps: u64, scale: u8) -> &mut Self {
        let unit = TENS.get(usize::from(scale)).copied().unwrap_or(1);
        let (seconds, rest) = (steps / unit, steps % unit);
        self.number(seconds / 3600, 2).push(b':').number(seconds / 60 % 60, 2).push(b':').number(seconds % 60, 2);
        if scale > 0 {
            self.push(b'.').number(rest, usize::from(scale));
        }
        self
    }

    /// Adds an offset in minutes east of UTC: `+HH:MM`.
    pub fn offset(&mut self, minutes: i16) -> &mut Self {
        let size = u64::from(minutes.unsigned_abs());
        self.push(if minutes < 0 { b'-' } else { b'+' }).number(size / 60, 2).push(b':').number(size % 60, 2)
    }

    /// Adds one ASCII letter.
    pub fn push(&mut self, letter: u8) -> &mut Self {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = letter;
            self.length += 1;
        }
        self
    }

    /// Adds a number with leading zeros.
    fn number(&mut self, number: u64, digits: usize) -> &mut Self {
        let mut rest = number;
        if let Some(places) = self.bytes.get_mut(self.length..self.length + digits) {
            for place in places.iter_mut().rev() {
                // A digit fits a byte.
                *place = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
            self.length += digits;
        }
        self
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days_are_found_both_ways() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (FIRST_DAY, (1, 1, 1)),
            (LAST_DAY, (9999, 12, 31)),
            (DAYS_1900, (1900, 1, 1)),
            (11_016, (2000, 2, 29)),
            (-25_509, (1900, 2, 28)),
            (-25_508, (1900, 3, 1)),
            (19_723, (2024, 1, 1)),
        ] {
            assert_eq!(civil(day), date, "{day}");
            assert_eq!(day_of(date.0, date.1, date.2), Some(day), "{date:?}");
        }
    }

    #[test]
    fn dates_that_are_not_are_refused() {
        for (year, month, day) in
            [(2023, 2, 29), (1900, 2, 29), (2024, 0, 1), (2024, 13, 1), (2024, 4, 31), (2024, 1, 0)]
        {
            assert_eq!(day_of(year, month, day), None, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn times_become_microseconds_and_a_seventh_digit() {
        assert_eq!(microseconds(0, 0), Some((0, 0)));
        assert_eq!(microseconds(86_399, 0), Some((86_399_000_000, 0)));
        assert_eq!(microseconds(86_400, 0), None);
        assert_eq!(microseconds(863_999_999_999, 7), Some((86_399_999_999, 9)));
        assert_eq!(microseconds(864_000_000_000, 7), None);
        assert_eq!(microseconds(1_234, 3), Some((1_234_000, 0)));
        assert_eq!(microseconds(0, 8), None);
    }

    #[test]
    fn texts_have_all_their_zeros() {
        assert_eq!(ShortText::new().date(FIRST_DAY).as_str(), "0001-01-01");
        assert_eq!(ShortText::new().time(0, 0).as_str(), "00:00:00");
        assert_eq!(ShortText::new().time(863_999_999_999, 7).as_str(), "23:59:59.9999999");
        assert_eq!(ShortText::new().time(1, 7).as_str(), "00:00:00.0000001");
        assert_eq!(ShortText::new().time(1, 1).as_str(), "00:00:00.1");
        assert_eq!(ShortText::new().offset(0).as_str(), "+00:00");
        assert_eq!(ShortText::new().offset(-840).as_str(), "-14:00");
        assert_eq!(ShortText::new().offset(-1).as_str(), "-00:01");
        assert_eq!(ShortText::new().offset(345).as_str(), "+05:45");
        let mut whole = ShortText::new();
        whole.date(LAST_DAY).push(b'T').time(863_999_999_999, 7).offset(-570);
        assert_eq!(whole.to_string(), "9999-12-31T23:59:59.9999999-09:30");
    }

    proptest! {
        #[test]
        fn every_day_is_found_again(day in FIRST_DAY..=LAST_DAY) {
            let (year, month, of_month) = civil(day);
            prop_assert_eq!(day_of(year, month, of_month), Some(day));
            let date = chrono::NaiveDate::from_num_days_from_ce_opt(i32::try_from(day + DAYS_TO_1970 + 1).unwrap()).unwrap();
            prop_assert_eq!(ShortText::new().date(day).to_string(), date.format("%Y-%m-%d").to_string());
        }
    }
}
