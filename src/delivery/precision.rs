//! Shorter floating-point numbers, for those who ask.
//!
//! What is too large for the shorter type is an error, never an infinity: nobody asked for other numbers. NaN, infinities and
//! NULL stay what they are.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;

use crate::model::Precision;

/// Bits at the end of a mantissa of 23 that [`Precision::Rounded`] clears: 12 stay, an error of 1 in 8192 at most.
const CLEARED_BITS: u32 = 11;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// The type in which a column of a type is announced.
pub(super) fn shortened(data_type: &DataType, precision: Precision) -> DataType {
    match (precision, data_type) {
        (Precision::Float32 | Precision::Rounded, DataType::Float64) => DataType::Float32,
        (Precision::Float16, DataType::Float64 | DataType::Float32) => DataType::Float16,
        (_, other) => other.clone(),
    }
}

/// A column's numbers as a precision has them; other columns as they are.
///
/// # Errors
/// When a number is too large.
pub(super) fn shorten(column: &ArrayRef, precision: Precision) -> Result<ArrayRef, ArrowError> {
    match (precision, column.data_type()) {
        (Precision::Float32, DataType::Float64) => singles(column, |number| number as f32),
        (Precision::Rounded, DataType::Float64) => singles(column, |number| rounded(number as f32)),
        (Precision::Rounded, DataType::Float32) => {
            let numbers = column.as_primitive::<Float32Type>();
            let short = numbers.try_unary::<_, Float32Type, ArrowError>(|number| {
                let short = rounded(number);
                fits(short, short.is_infinite() && number.is_finite())
            });
            Ok(Arc::new(short?))
        }
        (Precision::Float16, DataType::Float64) => {
            let numbers = column.as_primitive::<Float64Type>();
            let short = numbers.try_unary::<_, Float16Type, ArrowError>(|number| {
                let short = Half::from_f64(number);
                fits(short, short.is_infinite() && number.is_finite())
            });
            Ok(Arc::new(short?))
        }
        (Precision::Float16, DataType::Float32) => {
            let numbers = column.as_primitive::<Float32Type>();
            let short = numbers.try_unary::<_, Float16Type, ArrowError>(|number| {
                let short = Half::from_f32(number);
                fits(short, short.is_infinite() && number.is_finite())
            });
            Ok(Arc::new(short?))
        }
        _ => Ok(Arc::clone(column)),
    }
}

fn singles(column: &ArrayRef, short: impl Fn(f64) -> f32) -> Result<ArrayRef, ArrowError> {
    let numbers = column.as_primitive::<Float64Type>();
    let singles = numbers.try_unary::<_, Float32Type, ArrowError>(|number| {
        let short = short(number);
        fits(short, short.is_infinite() && number.is_finite())
    });
    Ok(Arc::new(singles?))
}

fn fits<T>(short: T, too_large: bool) -> Result<T, ArrowError> {
    match too_large {
        true => Err(ArrowError::CastError(
            "a number is too large for it; ask for more with `lakegate-precision`".to_owned(),
        )),
        false => Ok(short),
    }
}

/// The nearest number whose last bits are zero; of two that are as near, the even one.
fn rounded(number: f32) -> f32 {
    if !number.is_finite() {
        return number;
    }
    let bits = number.to_bits();
    let is_odd = (bits >> CLEARED_BITS) & 1;
    let nearly_half = (1 << (CLEARED_BITS - 1)) - 1;
    f32::from_bits((bits + nearly_half + is_odd) & !((1 << CLEARED_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float16Array, Float32Array, Float64Array, Int64Array};

    use super::*;

    fn doubles(numbers: Vec<Option<f64>>) -> ArrayRef {
        Arc::new(Float64Array::from(numbers))
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_keeps_twelve_bits() {
        let step = 2_f32.powi(-12);
        assert_eq!(rounded(1.0 + 0.4 * step), 1.0);
        assert_eq!(rounded(1.0 + 0.6 * step), 1.0 + step);
        assert_eq!(rounded(1.0 + 0.5 * step), 1.0, "half way to the even one");
        assert_eq!(rounded(1.0 + 1.5 * step), 1.0 + 2.0 * step, "half way to the even one");
        assert_eq!(rounded(-1.999_99), -2.0, "into the next power of two");
        assert_eq!(rounded(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!(rounded(f32::NAN).is_nan());
        for number in [0.1_f32, 3.4e-5, -7.7e20, f32::MIN_POSITIVE] {
            assert!(((rounded(number) - number) / number).abs() <= 1.0 / 8192.0, "{number}");
            assert_eq!(rounded(number).to_bits() & 0x7ff, 0, "{number}");
        }
    }

    #[test]
    fn nulls_and_what_is_no_number_stay() {
        let column = doubles(vec![Some(0.1), None, Some(f64::NAN), Some(f64::INFINITY)]);
        let short = shorten(&column, Precision::Float32).unwrap();
        let short = short.as_primitive::<Float32Type>();
        assert_eq!((short.value(0), short.is_null(1)), (0.1_f32, true));
        assert!(short.value(2).is_nan() && short.value(3) == f32::INFINITY);
        let half = shorten(&column, Precision::Float16).unwrap();
        assert!(half.as_any().is::<Float16Array>() && half.is_null(1));
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(&shorten(&whole, Precision::Float16).unwrap(), &whole);
        assert_eq!(&shorten(&doubles(vec![Some(0.1)]), Precision::Full).unwrap(), &doubles(vec![Some(0.1)]));
    }

    #[test]
    fn what_is_too_large_is_an_error_and_no_infinity() {
        let singles: ArrayRef = Arc::new(Float32Array::from(vec![70_000.0]));
        for (column, precision) in [
            (doubles(vec![Some(1e39)]), Precision::Float32),
            (doubles(vec![Some(f64::from(f32::MAX))]), Precision::Rounded),
            (doubles(vec![Some(70_000.0)]), Precision::Float16),
            (singles, Precision::Float16),
        ] {
            let error = shorten(&column, precision).unwrap_err().to_string();
            assert!(error.contains("lakegate-precision"), "{precision:?}: {error}");
        }
    }
}
