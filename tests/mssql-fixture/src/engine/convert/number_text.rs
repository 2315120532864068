//! Numbers as text and back.

use super::number::power_of_ten;

/// Reads `-12.340` or `1.5e3`: the digits as one number and how many stand behind the point.
pub(super) fn parse_decimal(text: &str) -> Option<(i128, u8)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes().first()? {
        b'-' => (true, mantissa.get(1..)?),
        b'+' => (false, mantissa.get(1..)?),
        _ => (false, mantissa),
    };
    let digits = digits.trim_start();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Digits behind what 38 places can hold are cut; SQL Server rounds them away later anyway.
    let room = 38usize.saturating_sub(whole.trim_start_matches('0').len());
    let fraction = fraction.get(..fraction.len().min(room))?;
    let mut unscaled: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let mut scale = i32::try_from(fraction.len()).ok()? - exponent;
    if scale < 0 {
        unscaled = unscaled.checked_mul(power_of_ten(u8::try_from(-scale).ok()?))?;
        scale = 0;
    }
    while scale > 38 {
        unscaled /= 10;
        scale -= 1;
    }
    Some((if negative { -unscaled } else { unscaled }, u8::try_from(scale).ok()?))
}

/// Reads a float; nothing is zero, as in SQL Server. `nan` and `inf` are no numbers.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let plausible = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    plausible.then(|| text.parse::<f64>().ok()).flatten().filter(|number| number.is_finite())
}

/// `-12.340` of -12340 and 3.
pub(super) fn decimal_text(unscaled: i128, scale: u8) -> String {
    if scale == 0 {
        return unscaled.to_string();
    }
    let divisor = power_of_ten(scale).unsigned_abs();
    let magnitude = unscaled.unsigned_abs();
    let sign = if unscaled < 0 { "-" } else { "" };
    format!("{sign}{}.{:02$}", magnitude / divisor, magnitude % divisor, usize::from(scale))
}

/// A float as CONVERT writes it: six digits by default, 8 or 16 in scientific form by style 1 and 2, 17 by style 3.
pub(super) fn float_text(number: f64, style: i32) -> String {
    match style {
        1 => scientific(number, 7),
        2 => scientific(number, 15),
        3 => scientific(number, 16),
        _ => general(number, 6),
    }
}

/// `1.2345000e+003`.
fn scientific(number: f64, places: usize) -> String {
    let text = format!("{number:.places$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>3}")
}

/// As C's `%g`: the shorter of plain and scientific, no zeros at the end.
fn general(number: f64, digits: usize) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{number:.0$e}", digits - 1);
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -5 || exponent >= limit {
        let text = scientific(number, digits - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+000"));
        return format!("{}e{exponent}", without_zeros(mantissa));
    }
    let places = usize::try_from(limit - 1 - exponent).unwrap_or(0);
    without_zeros(&format!("{number:.places$}")).to_owned()
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_and_written() {
        assert_eq!(parse_decimal("-12.340"), Some((-12340, 3)));
        assert_eq!(parse_decimal("1.5e3"), Some((1500, 0)));
        assert_eq!(parse_decimal(".5"), Some((5, 1)));
        assert_eq!(parse_decimal("x"), None);
        assert_eq!(decimal_text(-5, 3), "-0.005");
    }

    #[test]
    fn floats_are_written_as_sql_server_does() {
        assert_eq!(float_text(0.1, 0), "0.1");
        assert_eq!(float_text(1_234_567.0, 0), "1.23457e+006");
        assert_eq!(float_text(1234.5, 1), "1.2345000e+003");
    }
}
