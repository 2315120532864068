//! Values with units: `"30s"`, `"256MiB"`, `"100Mbit/s"`, `"10%"`.

use std::time::Duration;

/// Units of time with their length in milliseconds.
const TIME: &[(&str, u128)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of size with their length in bytes.
const SIZE: &[(&str, u128)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Units of rate in bits per second.
const RATE: &[(&str, u128)] =
    &[("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000), ("MB/s", 8_000_000)];

/// Why a text is no value with a unit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidUnit {
    /// The text is empty or begins with something other than a digit.
    #[error("a number is missing before the unit")]
    NoNumber,
    /// Only digits.
    #[error("the unit is missing")]
    NoUnit,
    /// A fraction.
    #[error("fractions are not read; write a whole number of a smaller unit")]
    NotWhole,
    /// An unknown unit.
    #[error("`{found}` is no unit here")]
    UnknownUnit {
        /// What stood after the number.
        found: String,
        /// The known unit nearest to it.
        nearest: Option<&'static str>,
    },
    /// More than the program can count.
    #[error("the value is too large")]
    TooLarge,
    /// Zero, where nothing would happen.
    #[error("the value is zero")]
    Zero,
    /// A share outside 0 to 1 or 0 % to 100 %.
    #[error("the share is not between 0 and 1 (or 0% and 100%)")]
    NoShare,
}

/// Reads a length of time: a whole number and one of ms, s, m (or min), h, d, or several as in `1h30m`.
/// Zero is allowed.
///
/// # Errors
/// When a number or unit is missing or unknown, or the whole is longer than a hundred years.
pub fn duration(text: &str) -> Result<Duration, InvalidUnit> {
    /// A century in milliseconds: longer ones are slips, and clocks cannot add them safely.
    const LONGEST: u128 = 100 * 365 * 86_400_000;
    let mut rest = text.trim();
    let mut total = 0u128;
    loop {
        let (part, after) = quantity(rest, TIME)?;
        total = total.checked_add(part).filter(|sum| *sum <= LONGEST).ok_or(InvalidUnit::TooLarge)?;
        rest = after.trim_start();
        if rest.is_empty() {
            let milliseconds = u64::try_from(total).map_err(|_| InvalidUnit::TooLarge)?;
            return Ok(Duration::from_millis(milliseconds));
        }
    }
}

/// Reads a size in bytes: a whole number and one of B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB
/// (powers of 1024). Zero is refused.
///
/// # Errors
/// When the number or unit is missing or unknown, or the size is zero or above 2^63 - 1 bytes.
pub fn size(text: &str) -> Result<u64, InvalidUnit> {
    whole(text, SIZE)
}

/// Reads a size as [`size`] does, and zero for none.
///
/// # Errors
/// As [`size`], but for zero.
pub fn size_or_none(text: &str) -> Result<u64, InvalidUnit> {
    match size(text) {
        Err(InvalidUnit::Zero) => Ok(0),
        read => read,
    }
}

/// Reads a rate in bits per second: a whole number and one of bit/s, kbit/s, Mbit/s, Gbit/s, MB/s. Zero is refused.
///
/// # Errors
/// As [`size`].
pub fn rate(text: &str) -> Result<u64, InvalidUnit> {
    whole(text, RATE)
}

/// A rate in bits per second as [`rate`] reads it, in the largest unit that leaves a whole number.
pub fn rate_text(bits: u64) -> String {
    let units = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000)];
    let (unit, factor) = units.into_iter().find(|(_, factor)| bits.is_multiple_of(*factor)).unwrap_or(("bit/s", 1));
    format!("{}{unit}", bits / factor)
}

/// Reads a share written in percent, as in `"2.5%"`, into 0 to 1.
///
/// # Errors
/// When there is no number before a `%`, or it is not within 0 and 100.
pub fn percent(text: &str) -> Result<f64, InvalidUnit> {
    let number = text.trim().strip_suffix('%').ok_or(InvalidUnit::NoUnit)?;
    let value: f64 = number.trim().parse().map_err(|_| InvalidUnit::NoNumber)?;
    share(value / 100.0)
}

/// Checks that a number is a share.
///
/// # Errors
/// When it is not within 0 and 1.
pub fn share(value: f64) -> Result<f64, InvalidUnit> {
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(InvalidUnit::NoShare) }
}

fn whole(text: &str, units: &'static [(&'static str, u128)]) -> Result<u64, InvalidUnit> {
    let (value, rest) = quantity(text.trim(), units)?;
    if !rest.trim().is_empty() {
        return Err(unknown(rest.trim(), units));
    }
    match i64::try_from(value) {
        Ok(0) => Err(InvalidUnit::Zero),
        Ok(value) => Ok(value.unsigned_abs()),
        Err(_) => Err(InvalidUnit::TooLarge),
    }
}

/// One number with its unit from the start of `text`, and what follows it.
fn quantity<'a>(text: &'a str, units: &'static [(&'static str, u128)]) -> Result<(u128, &'a str), InvalidUnit> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return Err(InvalidUnit::NoNumber);
    }
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    if unit.starts_with(['.', ',']) {
        return Err(InvalidUnit::NotWhole);
    }
    if unit.is_empty() {
        return Err(InvalidUnit::NoUnit);
    }
    let (_, factor) = units.iter().find(|(known, _)| *known == unit).ok_or_else(|| unknown(unit, units))?;
    let number: u128 = number.parse().map_err(|_| InvalidUnit::TooLarge)?;
    Ok((number.checked_mul(*factor).ok_or(InvalidUnit::TooLarge)?, rest))
}

/// The unit that differs in case only, or is the start of the word (`sec`, `hours`), or is near.
fn unknown(found: &str, units: &'static [(&'static str, u128)]) -> InvalidUnit {
    let mut known = units.iter().map(|(unit, _)| *unit);
    let nearest = known
        .clone()
        .find(|unit| unit.eq_ignore_ascii_case(found))
        .or_else(|| super::problem::nearest(found, known.clone()))
        .or_else(|| known.find(|unit| found.to_ascii_lowercase().starts_with(&unit.to_ascii_lowercase())));
    InvalidUnit::UnknownUnit { found: found.to_owned(), nearest }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn values_with_units_are_read() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration(" 2 min 5 s "), Ok(Duration::from_secs(125)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("1 GB"), Ok(1_000_000_000));
        assert_eq!(rate("100Mbit/s"), Ok(100_000_000));
        assert_eq!(percent("2.5%"), Ok(0.025));
    }

    #[test]
    fn what_is_no_value_says_why() {
        assert_eq!(duration(""), Err(InvalidUnit::NoNumber));
        assert_eq!(duration("-3s"), Err(InvalidUnit::NoNumber));
        assert_eq!(duration("30"), Err(InvalidUnit::NoUnit));
        assert_eq!(duration("1.5h"), Err(InvalidUnit::NotWhole));
        assert_eq!(duration("200000d"), Err(InvalidUnit::TooLarge));
        assert_eq!(size("0MiB"), Err(InvalidUnit::Zero));
        assert_eq!(size_or_none("0B"), Ok(0));
        assert_eq!(size_or_none("4GiB"), Ok(4 << 30));
        assert_eq!(size("9999999999TiB"), Err(InvalidUnit::TooLarge));
        assert_eq!(rate("5"), Err(InvalidUnit::NoUnit));
        assert_eq!(percent("101%"), Err(InvalidUnit::NoShare));
        assert_eq!(percent("NaN%"), Err(InvalidUnit::NoShare));
        assert_eq!(percent("ten%"), Err(InvalidUnit::NoNumber));
    }

    #[test]
    fn unknown_units_name_the_one_that_was_meant() {
        for (error, wanted) in [
            (duration("10sec").unwrap_err(), "s"),
            (duration("2hours").unwrap_err(), "h"),
            (size("256mib").unwrap_err(), "MiB"),
            (size("5G").unwrap_err(), "GB"),
            (rate("100mbit/s").unwrap_err(), "Mbit/s"),
        ] {
            let InvalidUnit::UnknownUnit { nearest, .. } = error else { panic!("{error}") };
            assert_eq!(nearest, Some(wanted));
        }
    }

    /// Chooses a seed and prints it, so that a failure can be run again with `PROPTEST_RNG_SEED`.
    fn seeded() -> ProptestConfig {
        let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        if config.rng_seed == RngSeed::Random {
            config.rng_seed = RngSeed::Fixed(rand::random());
        }
        println!("PROPTEST_RNG_SEED={}", config.rng_seed);
        config
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn every_written_duration_is_read_back(milliseconds in 0u64..3_000_000_000_000) {
            let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
            let text = format!("{}d{}h{}m{}s{rest}ms", seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
            prop_assert_eq!(duration(&text), Ok(Duration::from_millis(milliseconds)));
        }

        #[test]
        fn every_written_size_and_rate_is_read_back(number in 1u64..4096, size_unit in 0..SIZE.len(), rate_unit in 0..RATE.len()) {
            let (unit, factor) = SIZE[size_unit];
            prop_assert_eq!(size(&format!("{number}{unit}")).map(u128::from), Ok(u128::from(number) * factor));
            let (unit, factor) = RATE[rate_unit];
            prop_assert_eq!(rate(&format!("{number} {unit}")).map(u128::from), Ok(u128::from(number) * factor));
            let bits = rate(&format!("{number} {unit}")).unwrap();
            prop_assert_eq!(rate(&rate_text(bits)), Ok(bits));
        }

        #[test]
        fn no_text_makes_the_readers_fail_otherwise_than_by_an_error(text in "\\PC{0,24}|[0-9]{0,50}[a-zA-Z%/ ]{0,8}") {
            let _ = (duration(&text), size(&text), rate(&text), percent(&text));
        }
    }
}
