//! `date_trunc` that says which times it cuts to a given one.
//!
//! `date_trunc('month', at) = timestamp '2024-02-01'` is then planned as `at >= … and at < …`: files and pages without such
//! times are not read, and below the seal of a table it is a comparison that cannot fail. The engine does the same for
//! `extract(year from at)` itself.

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use chrono::{DateTime, Datelike, Months, NaiveTime};
use datafusion::common::types::{NativeType, logical_date, logical_string};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    Cast, Coercion, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    TypeSignature, TypeSignatureClass, Volatility,
};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 24 * 60 * 60 * SECOND;
/// Weeks begin on Mondays; 1970-01-05 was the first one.
const FIRST_MONDAY: i64 = 4 * DAY;

/// The engine's own, with a preimage for timestamps and dates of the lake. Dates and texts are cut as the timestamps that
/// the lake has, of microseconds: the engine's have nanoseconds, and end in the year 2262.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct DateTrunc {
    engine: DateTruncFunc,
    signature: Signature,
}

impl Default for DateTrunc {
    fn default() -> Self {
        let unit = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        let time = Coercion::new_implicit(
            TypeSignatureClass::Timestamp,
            vec![TypeSignatureClass::Native(logical_string()), TypeSignatureClass::Native(logical_date())],
            NativeType::Timestamp(TimeUnit::Microsecond, None),
        );
        let of_day = Coercion::new_exact(TypeSignatureClass::Time);
        let forms = [time, of_day].map(|time| TypeSignature::Coercible(vec![unit(), time]));
        Self { engine: DateTruncFunc::new(), signature: Signature::one_of(forms.into(), Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn aliases(&self) -> &[String] {
        self.engine.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.engine.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.engine.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.engine.invoke_with_args(arguments)
    }

    fn preimage(&self, arguments: &[Expr], cut: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        let [Expr::Literal(unit, _), time] = arguments else { return Ok(PreimageResult::None) };
        let Expr::Literal(ScalarValue::TimestampMicrosecond(Some(first), zone), _) = cut else {
            return Ok(PreimageResult::None);
        };
        let in_utc = zone.as_ref().is_none_or(|zone| matches!(zone.as_ref(), "UTC" | "+00:00"));
        let next = unit.try_as_str().flatten().and_then(|unit| next(unit, *first));
        let (true, Some(next)) = (in_utc, next) else { return Ok(PreimageResult::None) };
        if let Expr::Cast(Cast { expr: date, .. }) = time
            && info.get_data_type(date)? == DataType::Date32
        {
            return days(date, [*first, next]);
        }
        let [lower, upper] = [*first, next].map(|time| ScalarValue::TimestampMicrosecond(Some(time), zone.clone()));
        if info.get_data_type(time)? != lower.data_type() {
            return Ok(PreimageResult::None);
        }
        let interval = Box::new(Interval::try_new(lower, upper)?);
        Ok(PreimageResult::Range { expr: time.clone(), interval })
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.engine.output_ordering(input)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.engine.documentation()
    }
}

/// The days from a time on and before another one, where these are days.
fn days(date: &Expr, ends: [i64; 2]) -> Result<PreimageResult> {
    let whole = |time: i64| (time % DAY == 0).then(|| i32::try_from(time / DAY).ok()).flatten();
    let [Some(first), Some(next)] = ends.map(whole) else { return Ok(PreimageResult::None) };
    let [lower, upper] = [first, next].map(|day| ScalarValue::Date32(Some(day)));
    Ok(PreimageResult::Range { expr: date.clone(), interval: Box::new(Interval::try_new(lower, upper)?) })
}

/// When the unit after the one that begins at `first` begins, in microseconds; none where no unit begins then, or the
/// unit is not known.
fn next(unit: &str, first: i64) -> Option<i64> {
    let even = |length: i64, origin: i64| {
        let begins = first.checked_sub(origin)?.rem_euclid(length) == 0;
        if begins { first.checked_add(length) } else { None }
    };
    match unit.to_ascii_lowercase().as_str() {
        "microsecond" => even(1, 0),
        "millisecond" => even(1_000, 0),
        "second" => even(SECOND, 0),
        "minute" => even(60 * SECOND, 0),
        "hour" => even(60 * 60 * SECOND, 0),
        "day" => even(DAY, 0),
        "week" => even(7 * DAY, FIRST_MONDAY),
        "month" => months(first, 1),
        "quarter" => months(first, 3),
        "year" => months(first, 12),
        _ => None,
    }
}

/// The same for units of so many months.
fn months(first: i64, length: u32) -> Option<i64> {
    let time = DateTime::from_timestamp_micros(first)?.naive_utc();
    let begins = time.day() == 1 && time.month0().is_multiple_of(length) && time.time() == NaiveTime::MIN;
    let next = time.checked_add_months(Months::new(length)).filter(|_| begins)?;
    Some(next.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;

    use super::*;

    fn micros(time: &str) -> i64 {
        NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.f").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn a_unit_ends_where_the_next_one_begins() {
        for (unit, first, end) in [
            ("second", "1969-12-31 23:59:59", "1970-01-01 00:00:00"),
            ("minute", "2024-02-28 23:59:00", "2024-02-29 00:00:00"),
            ("HOUR", "1969-12-31 23:00:00", "1970-01-01 00:00:00"),
            ("day", "2024-02-29 00:00:00", "2024-03-01 00:00:00"),
            ("week", "2024-02-26 00:00:00", "2024-03-04 00:00:00"),
            ("week", "1969-12-29 00:00:00", "1970-01-05 00:00:00"),
            ("Month", "2024-02-01 00:00:00", "2024-03-01 00:00:00"),
            ("quarter", "1969-10-01 00:00:00", "1970-01-01 00:00:00"),
            ("year", "9999-01-01 00:00:00", "10000-01-01 00:00:00"),
        ] {
            let end = match end.strip_prefix("10000") {
                Some(_) => micros("9999-12-31 00:00:00") + DAY,
                None => micros(end),
            };
            assert_eq!(next(unit, micros(first)), Some(end), "{unit} {first}");
        }
    }

    #[test]
    fn times_at_which_no_unit_begins_have_no_end() {
        for (unit, first) in [
            ("second", "2024-01-01 00:00:00.000001"),
            ("hour", "2024-01-01 00:30:00"),
            ("day", "1969-12-31 12:00:00"),
            ("week", "2024-02-27 00:00:00"),
            ("month", "2024-02-02 00:00:00"),
            ("month", "2024-02-01 00:00:00.000001"),
            ("quarter", "2024-02-01 00:00:00"),
            ("year", "2024-02-01 00:00:00"),
            ("decade", "2020-01-01 00:00:00"),
        ] {
            assert_eq!(next(unit, micros(first)), None, "{unit} {first}");
        }
        assert_eq!(next("day", i64::MAX / DAY * DAY), None);
    }
}
