//! Dates and times: one moment behind all of SQL Server's types.

use chrono::{Datelike, NaiveDate, Timelike, Utc};

use super::time_text::parse;
use super::{Manner, impossible};
use crate::engine::error::SqlError;
use crate::engine::storage::DAY;
use crate::value::{SqlType, Value};

/// Days from 0001-01-01 to 1900-01-01.
pub(crate) const DAYS_TO_1900: i32 = 693_595;
/// The last day SQL Server knows: 9999-12-31.
pub(crate) const LAST_DAY: i32 = 3_652_058;
/// Days from 0001-01-01 to 1753-01-01, where datetime begins.
const DAYS_TO_1753: i32 = 639_905;

/// A moment as a clock on the wall shows it, and that clock's offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Days since 0001-01-01.
    pub(crate) days: i32,
    /// 100 ns since midnight.
    pub(crate) ticks: u64,
    /// Minutes east of UTC.
    pub(crate) offset: i16,
}

impl Moment {
    /// The moment of a date or time value.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let local = |days, ticks| Self { days, ticks, offset: 0 };
        Some(match *value {
            Value::Date(days) => local(days, 0),
            Value::Time(ticks) => local(DAYS_TO_1900, ticks),
            Value::DateTime { days, ticks } => local(days + DAYS_TO_1900, (u64::from(ticks) * 100_000 + 1) / 3),
            Value::SmallDateTime { days, minutes } => {
                local(i32::from(days) + DAYS_TO_1900, u64::from(minutes) * 600_000_000)
            }
            Value::DateTime2 { days, time } => local(days, time),
            Value::DateTimeOffset { days, time, minutes } => {
                let moment = Self::shifted(days, time, i64::from(minutes));
                Self { offset: minutes, ..moment }
            }
            _ => return None,
        })
    }

    pub(crate) fn shifted(days: i32, ticks: u64, minutes: i64) -> Self {
        let all = i64::from(days) * DAY + i64::try_from(ticks).unwrap_or(0) + minutes * 600_000_000;
        Self {
            days: i32::try_from(all.div_euclid(DAY)).unwrap_or(0),
            ticks: u64::try_from(all.rem_euclid(DAY)).unwrap_or(0),
            offset: 0,
        }
    }

    /// Year, month and day.
    pub(crate) fn date(&self) -> (i32, u32, u32) {
        NaiveDate::from_num_days_from_ce_opt(self.days + 1)
            .map_or((1, 1, 1), |date| (date.year(), date.month(), date.day()))
    }

    /// Days since 0001-01-01 of a date; `None` when there is no such day.
    pub(crate) fn days_of(year: i32, month: u32, day: u32) -> Option<i32> {
        NaiveDate::from_ymd_opt(year, month, day).map(|date| date.num_days_from_ce() - 1)
    }

    /// Rounds to that many digits of the second's fraction.
    fn rounded(self, scale: u8) -> Self {
        let unit = 10u64.pow(u32::from(7u8.saturating_sub(scale)));
        let ticks = (self.ticks + unit / 2) / unit * unit;
        let moment = Self::shifted(self.days, ticks, 0);
        if moment.days > LAST_DAY {
            return Self { ticks: self.ticks / unit * unit, ..self };
        }
        Self { offset: self.offset, ..moment }
    }

    /// The value of a type at this moment.
    pub(crate) fn value(self, to: &SqlType) -> Option<Value> {
        match to {
            SqlType::Date => Some(Value::Date(self.days)),
            SqlType::Time { scale } => {
                let rounded = self.rounded(*scale);
                // A time that rounds up to the next day starts again at midnight.
                Some(Value::Time(rounded.ticks))
            }
            SqlType::DateTime => {
                let ticks = (self.ticks * 3 + 50_000) / 100_000;
                let (days, ticks) = if ticks >= 25_920_000 { (self.days + 1, 0) } else { (self.days, ticks) };
                let in_range = (DAYS_TO_1753..=LAST_DAY).contains(&days);
                in_range
                    .then(|| Value::DateTime { days: days - DAYS_TO_1900, ticks: u32::try_from(ticks).unwrap_or(0) })
            }
            SqlType::SmallDateTime => {
                // 29.998 seconds and below round down.
                let minutes = (self.ticks + 300_000_000 + 10_000) / 600_000_000;
                let (days, minutes) = if minutes >= 1440 { (self.days + 1, 0) } else { (self.days, minutes) };
                let days = u16::try_from(days - DAYS_TO_1900).ok()?;
                Some(Value::SmallDateTime { days, minutes: u16::try_from(minutes).ok()? })
            }
            SqlType::DateTime2 { scale } => {
                let rounded = self.rounded(*scale);
                Some(Value::DateTime2 { days: rounded.days, time: rounded.ticks })
            }
            SqlType::DateTimeOffset { scale } => {
                let rounded = self.rounded(*scale);
                let utc = Self::shifted(rounded.days, rounded.ticks, -i64::from(self.offset));
                Some(Value::DateTimeOffset { days: utc.days, time: utc.ticks, minutes: self.offset })
            }
            _ => None,
        }
    }
}

/// The moment it is now, in UTC.
pub(crate) fn now() -> Moment {
    let now = Utc::now().naive_utc();
    Moment {
        days: now.date().num_days_from_ce() - 1,
        ticks: u64::from(now.time().num_seconds_from_midnight()) * 10_000_000
            + u64::from(now.time().nanosecond() / 100).min(9_999_999),
        offset: 0,
    }
}

fn out_of_range(from: &SqlType, to: &SqlType) -> SqlError {
    SqlError::new(
        242,
        16,
        format!(
            "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
            super::type_name(from),
            super::type_name(to)
        ),
    )
}

pub(super) fn to_time(value: &Value, from: &SqlType, to: &SqlType, _manner: &Manner) -> Result<Value, SqlError> {
    let moment = match value {
        Value::Text(text) => {
            let mut moment = parse(text.trim()).ok_or_else(|| {
                SqlError::new(241, 16, "Conversion failed when converting date and/or time from character string.")
            })?;
            if moment.offset != 0
                && !matches!(to, SqlType::DateTimeOffset { .. } | SqlType::Date | SqlType::Time { .. })
            {
                moment = Moment::shifted(moment.days, moment.ticks, -i64::from(moment.offset));
            }
            moment
        }
        Value::Int(days) if matches!(to, SqlType::DateTime | SqlType::SmallDateTime) => {
            let days = i32::try_from(*days).map_err(|_| out_of_range(from, to))?;
            Moment { days: days.saturating_add(DAYS_TO_1900), ticks: 0, offset: 0 }
        }
        other => Moment::of(other).ok_or_else(|| impossible(from, to))?,
    };
    let impossible_pair =
        matches!((from, to), (SqlType::Date, SqlType::Time { .. }) | (SqlType::Time { .. }, SqlType::Date));
    if impossible_pair {
        return Err(impossible(from, to));
    }
    // datetime is exact to 1/300 s, but its text to datetime2(3) shows milliseconds: round from the 100 ns form.
    moment.value(to).ok_or_else(|| out_of_range(from, to))
}
