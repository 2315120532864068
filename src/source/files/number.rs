//! Numbers and truth values from text: exact, without allocating while all goes well.

/// A number as it was written: `±mantissa · 10^-scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    negative: bool,
    mantissa: u128,
    scale: i32,
}

/// Reads an integer of at most 64 bits. `+7`, `007` and `7.00` are the integer 7.
pub(super) fn integer(text: &[u8]) -> Result<i64, String> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    // Eighteen digits always fit; whatever else it may be is sorted out below.
    if digits.is_empty() || digits.len() > 18 {
        return slow_integer(text);
    }
    let mut value = 0_i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return slow_integer(text);
        }
        value = value * 10 + i64::from(digit);
    }
    Ok(if negative { -value } else { value })
}

#[cold]
fn slow_integer(text: &[u8]) -> Result<i64, String> {
    let written = written(text).ok_or_else(|| not("an integer", text))?;
    let value = written.at_scale(0).ok_or_else(|| not("an integer of 64 bits", text))?;
    i64::try_from(value).map_err(|_| out_of_range("an integer of 64 bits", text))
}

/// Reads an integer and holds it to a narrower type.
pub(super) fn narrow<T: TryFrom<i64>>(text: &[u8], what: &str) -> Result<T, String> {
    T::try_from(integer(text)?).map_err(|_| out_of_range(what, text))
}

/// Reads an exact number into the unscaled value of a `decimal(precision,scale)`.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, String> {
    let Some(written) = written(text) else { return Err(not("a number", text)) };
    let Some(value) = written.at_scale(i32::from(scale)) else {
        return Err(format!("{} does not fit decimal({precision},{scale}) without losing digits", quoted(text)));
    };
    let limit = POWERS_OF_TEN[usize::from(precision.min(38))];
    if value.unsigned_abs() >= limit {
        return Err(out_of_range(&format!("decimal({precision},{scale})"), text));
    }
    Ok(value)
}

/// Reads a 64-bit float. Infinity must be written; a number too large for a float is an error.
pub(super) fn double(text: &[u8]) -> Result<f64, String> {
    // Exact where both parts are exact in a float: Clinger's fast path, as in every float parser.
    if let Some(Written { negative, mantissa, scale: scale @ 0..=22 }) = short(text)
        && mantissa <= 1 << 53
    {
        let value = mantissa as f64 / FLOAT_POWERS[scale as usize];
        return Ok(if negative { -value } else { value });
    }
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    match parsed {
        Some(value) if value.is_infinite() && !is_written_infinity(text) => Err(out_of_range("a double", text)),
        Some(value) => Ok(value),
        None => Err(not("a number", text)),
    }
}

/// Reads a 32-bit float.
pub(super) fn real(text: &[u8]) -> Result<f32, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
    match parsed {
        Some(value) if value.is_infinite() && !is_written_infinity(text) => Err(out_of_range("a real", text)),
        Some(value) => Ok(value),
        None => Err(not("a number", text)),
    }
}

/// Reads a truth value: true/false, t/f, yes/no, y/n, 1/0 in any case.
pub(super) fn boolean(text: &[u8]) -> Result<bool, String> {
    const TRUE: [&str; 5] = ["true", "t", "yes", "y", "1"];
    const FALSE: [&str; 5] = ["false", "f", "no", "n", "0"];
    if TRUE.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes())) {
        Ok(true)
    } else if FALSE.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes())) {
        Ok(false)
    } else {
        Err(not("a truth value", text))
    }
}

impl Written {
    /// The unscaled value at another scale; none where digits would be lost or 128 bits do not hold it.
    fn at_scale(self, scale: i32) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let magnitude = if self.scale == scale {
            self.mantissa
        } else if self.scale <= scale {
            self.mantissa.checked_mul(power_of_ten(scale.checked_sub(self.scale)?)?)?
        } else {
            let divisor = power_of_ten(self.scale - scale)?;
            if !self.mantissa.is_multiple_of(divisor) {
                return None;
            }
            self.mantissa / divisor
        };
        let value = i128::try_from(magnitude).ok()?;
        Some(if self.negative { -value } else { value })
    }
}

/// Digits with at most one point and no exponent, few enough for 64 bits.
fn short(text: &[u8]) -> Option<Written> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (mut mantissa, mut point, mut seen) = (0_u64, None, 0_usize);
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                seen += 1;
            }
            b'.' if point.is_none() => point = Some(index),
            _ => return None,
        }
    }
    if seen == 0 {
        return None;
    }
    let scale = point.map_or(0, |point| digits.len() - point - 1);
    Some(Written { negative, mantissa: u128::from(mantissa), scale: i32::try_from(scale).ok()? })
}

/// Any decimal number, with or without point and exponent; none where it is no number or has too many digits.
fn written(text: &[u8]) -> Option<Written> {
    if let Some(short) = short(text) {
        return Some(short);
    }
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mut mantissa, mut scale, mut seen, mut after_point) = (0_u128, 0_i32, false, false);
    for (index, byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa.checked_mul(10)?.checked_add(u128::from(byte - b'0'))?;
                scale += i32::from(after_point);
                seen = true;
            }
            b'.' if !after_point => after_point = true,
            b'e' | b'E' if seen => {
                let exponent: i32 = std::str::from_utf8(&rest[index + 1..]).ok()?.parse().ok()?;
                return Some(Written { negative, mantissa, scale: scale.checked_sub(exponent)? });
            }
            _ => return None,
        }
    }
    seen.then_some(Written { negative, mantissa, scale })
}

fn power_of_ten(exponent: i32) -> Option<u128> {
    POWERS_OF_TEN.get(usize::try_from(exponent).ok()?).copied()
}

/// 10^0 to 10^38, the greatest power of ten that 128 bits hold.
const POWERS_OF_TEN: [u128; 39] = {
    let mut powers = [1_u128; 39];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

/// 10^0 to 10^22, the powers of ten that a 64-bit float holds exactly.
const FLOAT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

fn is_written_infinity(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity")
}

/// A value as it stands in a reason: in backquotes, cut after 60 characters.
pub(super) fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// The reason for a text that is something else than was expected.
#[cold]
pub(super) fn not(what: &str, text: &[u8]) -> String {
    format!("{} is not {what}", quoted(text))
}

#[cold]
fn out_of_range(what: &str, text: &[u8]) -> String {
    format!("{} is out of the range of {what}", quoted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_to_the_last_one() {
        assert_eq!(integer(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer(b"+007"), Ok(7));
        assert_eq!(integer(b"5.0"), Ok(5));
        for text in ["9223372036854775808", "", "-", "1.5", "1x", "0x10", "1 000", "--1", "1-"] {
            assert!(integer(text.as_bytes()).is_err(), "{text}");
        }
        assert!(narrow::<i16>(b"40000", "smallint").unwrap_err().contains("range of smallint"));
    }

    #[test]
    fn decimals_lose_no_digit() {
        assert_eq!(decimal(b"12.34", 15, 2), Ok(1234));
        assert_eq!(decimal(b"-0.5", 15, 2), Ok(-50));
        assert_eq!(decimal(b"1.2300", 15, 2), Ok(123));
        assert_eq!(decimal(b"1e3", 15, 2), Ok(100_000));
        assert_eq!(decimal(b"99999999999999999999999999999999999999", 38, 0), Ok(10_i128.pow(38) - 1));
        for text in ["1.234", "10000000000000", "abc", "", "1.2.3", "NaN", "1e40", "."] {
            assert!(decimal(text.as_bytes(), 15, 2).is_err(), "{text}");
        }
    }

    #[test]
    fn doubles_are_what_the_standard_library_says() {
        for text in ["0", "-1.5", "0.1", "123456.789", "1e22", "9007199254740993", "2.5e-3", ".5", "5.", "inf"] {
            assert_eq!(double(text.as_bytes()), Ok(text.parse().unwrap()), "{text}");
        }
        assert!(double(b"1e999").unwrap_err().contains("range"));
        assert!(double(b"").is_err());
        assert!(double(b"-").is_err());
    }

    #[test]
    fn truth_has_few_names() {
        assert_eq!(boolean(b"TRUE"), Ok(true));
        assert_eq!(boolean(b"n"), Ok(false));
        assert!(boolean(b"maybe").is_err());
    }
}
