//! Dates and times as the wire carries them.

use tiberius::ColumnData;
use tiberius::time::{Date, DateTime2, DateTimeOffset, Time};

use super::Mismatch;
use super::cells::{describe, wrong};
use crate::source::mssql::calendar::{
    DAY_MICROSECONDS, DAYS_1900, DAYS_TO_1970, LAST_DAY, ShortText, day_steps, microseconds,
};

/// Minutes of a day.
const DAY_MINUTES: u16 = 1_440;
/// Steps of `datetime`, 1/300 second, in a day.
const DAY_TICKS: u32 = 25_920_000;

/// A day since 1970 and a time of it in steps of so many digits of a second.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    day: i64,
    steps: u64,
    scale: u8,
}

impl Moment {
    /// Of a `datetime`, `smalldatetime` or `datetime2`.
    pub(super) fn of(value: &ColumnData<'static>) -> Result<Self, Mismatch> {
        let (day, steps, scale) = match value {
            ColumnData::DateTime2(Some(value)) => return Self::of_parts(*value),
            ColumnData::DateTime(Some(value)) => {
                if value.seconds_fragments() >= DAY_TICKS {
                    return Err(wrong("a time of day", format!("{}/300 s", value.seconds_fragments())));
                }
                // In whole milliseconds that end in 0, 3 or 7, as the server prints them.
                let milliseconds = (u64::from(value.seconds_fragments()) * 10 + 1) / 3;
                (i64::from(value.days()) + DAYS_1900, milliseconds, 3)
            }
            ColumnData::SmallDateTime(Some(value)) => {
                // What the driver calls fragments of a second are minutes.
                let minutes = value.seconds_fragments();
                if minutes >= DAY_MINUTES {
                    return Err(wrong("a time of day", format!("minute {minutes}")));
                }
                (i64::from(value.days()) + DAYS_1900, u64::from(minutes) * 60, 0)
            }
            other => return Err(wrong("a date with a time", describe(other))),
        };
        Ok(Self { day, steps, scale })
    }

    /// Of a `datetime2`, or of the part of a `datetimeoffset` that is in UTC.
    pub(super) fn of_parts(value: DateTime2) -> Result<Self, Mismatch> {
        let (day, time) = (i64::from(day(value.date())?), value.time());
        Ok(Self { day, steps: time.increments(), scale: time.scale() })
    }

    /// Microseconds since 1970; with `exact`, a seventh digit is an error.
    pub(super) fn microseconds(self, exact: bool) -> Result<i64, Mismatch> {
        let (of_day, rest) = microseconds(self.steps, self.scale).ok_or_else(|| no_time(self.steps, self.scale))?;
        if exact && rest != 0 {
            return Err(seventh(self.text()));
        }
        Ok(self.day * DAY_MICROSECONDS + of_day)
    }

    /// `YYYY-MM-DDTHH:MM:SS.fffffff`, with as many digits as there are.
    pub(super) fn text(self) -> ShortText {
        let mut text = ShortText::new();
        text.date(self.day).push(b'T').time(self.steps, self.scale);
        text
    }

    /// Itself, if it is a moment at all.
    pub(super) fn checked(self) -> Result<Self, Mismatch> {
        self.microseconds(false).map(|_| self)
    }
}

/// Text of an instant in its own offset, or in UTC.
pub(super) fn instant_text(value: DateTimeOffset, utc: bool) -> Result<ShortText, Mismatch> {
    // The wire carries UTC; the offset only says how it is shown.
    let moment = Moment::of_parts(value.datetime2())?.checked()?;
    let offset = if utc { 0 } else { value.offset() };
    let day = day_steps(moment.scale).and_then(|steps| i64::try_from(steps).ok());
    let (Some(day), Ok(steps)) = (day, i64::try_from(moment.steps)) else {
        return Err(no_time(moment.steps, moment.scale));
    };
    let local = steps + i64::from(offset) * (day / i64::from(DAY_MINUTES));
    let mut text = Moment {
        day: moment.day + local.div_euclid(day),
        steps: local.rem_euclid(day).unsigned_abs(),
        scale: moment.scale,
    }
    .text();
    text.offset(offset);
    Ok(text)
}

/// A `date` as days since 1970.
pub(super) fn day(value: Date) -> Result<i32, Mismatch> {
    let day = i64::from(value.days()) - DAYS_TO_1970;
    match i32::try_from(day) {
        Ok(day) if i64::from(day) <= LAST_DAY => Ok(day),
        _ => Err(wrong("a day up to 9999-12-31", format!("day {} after 0001-01-01", value.days()))),
    }
}

/// A `time` as microseconds since midnight; with `exact`, a seventh digit is an error.
pub(super) fn time_of_day(value: Time, exact: bool) -> Result<i64, Mismatch> {
    let (steps, scale) = (value.increments(), value.scale());
    let (of_day, rest) = microseconds(steps, scale).ok_or_else(|| no_time(steps, scale))?;
    if exact && rest != 0 {
        let mut text = ShortText::new();
        text.time(steps, scale);
        return Err(seventh(text));
    }
    Ok(of_day)
}

fn no_time(steps: u64, scale: u8) -> Mismatch {
    wrong("a time of day", format!("{steps} steps of 10^-{scale} s"))
}

fn seventh(text: ShortText) -> Mismatch {
    wrong("at most six digits of a second (`sub_microseconds = \"text\"` keeps all seven)", text.to_string())
}
