//! The values of one column on their way into an Arrow array.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::DataType;
use tiberius::ColumnData;

use super::Mismatch;
use super::moment::{Moment, day, instant_text, time_of_day};
use crate::source::mssql::calendar::ShortText;
use crate::source::mssql::column::Cell;

/// Most bytes that the texts of one array can have: their places are 32 bits wide.
const LARGEST_TEXTS: usize = i32::MAX as usize;

/// A builder, and how values are put into it: one variant for each [`Cell`].
pub(super) enum Cells {
    Bit(BooleanBuilder),
    TinyInt(Int16Builder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    /// The number of digits after the point, and the least number that has too many digits.
    Decimal(Decimal128Builder, u8, i128),
    Real(Float32Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    /// Whether a seventh digit is an error.
    Moment(TimestampMicrosecondBuilder, bool),
    MomentText(StringBuilder),
    /// The offsets where they are kept, and whether a seventh digit is an error.
    Instant(TimestampMicrosecondBuilder, Option<Int16Builder>, bool),
    /// Whether it is written in UTC.
    InstantText(StringBuilder, bool),
    TimeText(StringBuilder),
    /// Whether a seventh digit is an error.
    TimeMicroseconds(Int64Builder, bool),
    Guid(StringBuilder),
}

impl Cells {
    /// Empty, with room for so many rows and so many bytes of text.
    pub(super) fn new(cell: &Cell, rows: usize, bytes: usize) -> Self {
        let text = || StringBuilder::with_capacity(rows, bytes);
        let wide = || Int64Builder::with_capacity(rows);
        let stamps = |utc: bool| {
            let zone = utc.then(|| Arc::from("UTC"));
            TimestampMicrosecondBuilder::with_capacity(rows).with_timezone_opt::<Arc<str>>(zone)
        };
        match cell {
            Cell::Bit => Self::Bit(BooleanBuilder::with_capacity(rows)),
            Cell::TinyInt => Self::TinyInt(Int16Builder::with_capacity(rows)),
            Cell::SmallInt => Self::SmallInt(Int16Builder::with_capacity(rows)),
            Cell::Int => Self::Int(Int32Builder::with_capacity(rows)),
            Cell::BigInt => Self::BigInt(wide()),
            Cell::Decimal { precision, scale } => {
                let places = i8::try_from(*scale).unwrap_or(i8::MAX);
                let builder =
                    Decimal128Builder::with_capacity(rows).with_data_type(DataType::Decimal128(*precision, places));
                let limit = 10_i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
                Self::Decimal(builder, *scale, limit)
            }
            Cell::Real => Self::Real(Float32Builder::with_capacity(rows)),
            Cell::Float => Self::Float(Float64Builder::with_capacity(rows)),
            Cell::Text => Self::Text(text()),
            Cell::Binary => Self::Binary(BinaryBuilder::with_capacity(rows, bytes)),
            Cell::Date => Self::Date(Date32Builder::with_capacity(rows)),
            Cell::Moment { utc, exact } => Self::Moment(stamps(*utc), *exact),
            Cell::MomentText => Self::MomentText(text()),
            Cell::Instant { exact, companion } => {
                Self::Instant(stamps(true), companion.then(|| Int16Builder::with_capacity(rows)), *exact)
            }
            Cell::InstantText { utc } => Self::InstantText(text(), *utc),
            Cell::TimeText => Self::TimeText(text()),
            Cell::TimeMicroseconds { exact } => Self::TimeMicroseconds(wide(), *exact),
            Cell::Guid => Self::Guid(text()),
        }
    }

    /// Takes a value; tells how many bytes it takes beyond its fixed size. Nothing is taken on an error.
    ///
    /// The driver gives a NULL as an empty value of any type, not always of the column's, so every one counts.
    pub(super) fn push(&mut self, value: ColumnData<'static>) -> Result<usize, Mismatch> {
        match (self, value) {
            (Self::Bit(cells), ColumnData::Bit(Some(value))) => cells.append_value(value),
            (Self::TinyInt(cells), ColumnData::U8(Some(value))) => cells.append_value(i16::from(value)),
            (Self::SmallInt(cells), ColumnData::I16(Some(value))) => cells.append_value(value),
            (Self::Int(cells), ColumnData::I32(Some(value))) => cells.append_value(value),
            (Self::BigInt(cells), ColumnData::I64(Some(value))) => cells.append_value(value),
            (Self::Real(cells), ColumnData::F32(Some(value))) => cells.append_value(value),
            (Self::Float(cells), ColumnData::F64(Some(value))) => cells.append_value(value),
            (Self::Decimal(cells, scale, limit), ColumnData::Numeric(Some(value))) => {
                if value.scale() != *scale || value.value() >= *limit || value.value() <= -*limit {
                    return Err(wrong("a number of its digits", format!("{value}")));
                }
                cells.append_value(value.value());
            }
            (Self::Text(cells), ColumnData::String(Some(value))) => return text(cells, &value),
            (Self::Binary(cells), ColumnData::Binary(Some(value))) => {
                fits(cells.values_slice().len(), value.len())?;
                cells.append_value(&value);
                return Ok(value.len());
            }
            (Self::Guid(cells), ColumnData::Guid(Some(value))) => {
                return text(cells, value.hyphenated().encode_lower(&mut [0; 36]));
            }
            (cells, value) => return cells.push_other(&value),
        }
        Ok(0)
    }

    /// Dates and times, and NULL.
    fn push_other(&mut self, value: &ColumnData<'static>) -> Result<usize, Mismatch> {
        if is_null(value) {
            self.push_null();
            return Ok(0);
        }
        match (self, value) {
            (Self::Date(cells), ColumnData::Date(Some(value))) => cells.append_value(day(*value)?),
            (Self::Moment(cells, exact), value) => cells.append_value(Moment::of(value)?.microseconds(*exact)?),
            (Self::MomentText(cells), value) => return text(cells, Moment::of(value)?.checked()?.text().as_str()),
            (Self::Instant(cells, offsets, exact), ColumnData::DateTimeOffset(Some(value))) => {
                cells.append_value(Moment::of_parts(value.datetime2())?.microseconds(*exact)?);
                if let Some(offsets) = offsets {
                    offsets.append_value(value.offset());
                }
            }
            (Self::InstantText(cells, utc), ColumnData::DateTimeOffset(Some(value))) => {
                return text(cells, instant_text(*value, *utc)?.as_str());
            }
            (Self::TimeText(cells), ColumnData::Time(Some(value))) => {
                time_of_day(*value, false)?;
                return text(cells, ShortText::new().time(value.increments(), value.scale()).as_str());
            }
            (Self::TimeMicroseconds(cells, exact), ColumnData::Time(Some(value))) => {
                cells.append_value(time_of_day(*value, *exact)?);
            }
            (cells, value) => return Err(wrong(cells.expected(), describe(value))),
        }
        Ok(0)
    }

    /// Adds nulls until there are so many rows.
    pub(super) fn fill(&mut self, rows: usize) {
        while self.rows() < rows {
            self.push_null();
        }
    }

    /// The arrays: one, or two where offsets are kept.
    pub(super) fn finish(&mut self) -> [Option<ArrayRef>; 2] {
        let second = match self {
            Self::Instant(_, Some(offsets), _) => Some(Arc::new(offsets.finish()) as ArrayRef),
            _ => None,
        };
        [Some(self.builder().finish()), second]
    }

    /// Bytes of a value that do not depend on it.
    pub(super) fn fixed_bytes(&self) -> usize {
        match self {
            Self::Bit(_) => 1,
            Self::TinyInt(_) | Self::SmallInt(_) => 2,
            Self::Int(_) | Self::Real(_) | Self::Date(_) => 4,
            Self::BigInt(_) | Self::Float(_) | Self::Moment(..) | Self::TimeMicroseconds(..) => 8,
            Self::Instant(..) => 10,
            Self::Decimal(..) => 16,
            // The place where each value begins.
            Self::Text(_)
            | Self::Binary(_)
            | Self::MomentText(_)
            | Self::InstantText(..)
            | Self::TimeText(_)
            | Self::Guid(_) => 4,
        }
    }

    /// Bytes of variable size taken so far.
    pub(super) fn variable_bytes(&self) -> usize {
        match self {
            Self::Text(cells)
            | Self::MomentText(cells)
            | Self::InstantText(cells, _)
            | Self::TimeText(cells)
            | Self::Guid(cells) => cells.values_slice().len(),
            Self::Binary(cells) => cells.values_slice().len(),
            _ => 0,
        }
    }

    fn rows(&mut self) -> usize {
        self.builder().len()
    }

    fn push_null(&mut self) {
        match self {
            Self::Bit(cells) => cells.append_null(),
            Self::TinyInt(cells) | Self::SmallInt(cells) => cells.append_null(),
            Self::Int(cells) => cells.append_null(),
            Self::BigInt(cells) | Self::TimeMicroseconds(cells, _) => cells.append_null(),
            Self::Decimal(cells, ..) => cells.append_null(),
            Self::Real(cells) => cells.append_null(),
            Self::Float(cells) => cells.append_null(),
            Self::Text(cells)
            | Self::MomentText(cells)
            | Self::InstantText(cells, _)
            | Self::TimeText(cells)
            | Self::Guid(cells) => cells.append_null(),
            Self::Binary(cells) => cells.append_null(),
            Self::Date(cells) => cells.append_null(),
            Self::Moment(cells, _) => cells.append_null(),
            Self::Instant(cells, offsets, _) => {
                cells.append_null();
                if let Some(offsets) = offsets {
                    offsets.append_null();
                }
            }
        }
    }

    fn builder(&mut self) -> &mut dyn ArrayBuilder {
        match self {
            Self::Bit(cells) => cells,
            Self::TinyInt(cells) | Self::SmallInt(cells) => cells,
            Self::Int(cells) => cells,
            Self::BigInt(cells) | Self::TimeMicroseconds(cells, _) => cells,
            Self::Decimal(cells, ..) => cells,
            Self::Real(cells) => cells,
            Self::Float(cells) => cells,
            Self::Text(cells)
            | Self::MomentText(cells)
            | Self::InstantText(cells, _)
            | Self::TimeText(cells)
            | Self::Guid(cells) => cells,
            Self::Binary(cells) => cells,
            Self::Date(cells) => cells,
            Self::Moment(cells, _) | Self::Instant(cells, ..) => cells,
        }
    }

    fn expected(&self) -> &'static str {
        match self {
            Self::Bit(_) => "a bit",
            Self::TinyInt(_) => "a tinyint",
            Self::SmallInt(_) => "a smallint",
            Self::Int(_) => "an int",
            Self::BigInt(_) => "a bigint",
            Self::Decimal(..) => "a decimal",
            Self::Real(_) => "a real",
            Self::Float(_) => "a float",
            Self::Text(_) => "text",
            Self::Binary(_) => "bytes",
            Self::Date(_) => "a date",
            Self::Moment(..) | Self::MomentText(_) => "a date with a time",
            Self::Instant(..) | Self::InstantText(..) => "a datetimeoffset",
            Self::TimeText(_) | Self::TimeMicroseconds(..) => "a time",
            Self::Guid(_) => "a uniqueidentifier",
        }
    }
}

/// Adds a text, and tells its size.
fn text(cells: &mut StringBuilder, value: &str) -> Result<usize, Mismatch> {
    fits(cells.values_slice().len(), value.len())?;
    cells.append_value(value);
    Ok(value.len())
}

/// Whether an array takes so many bytes more.
fn fits(there: usize, more: usize) -> Result<(), Mismatch> {
    if more > LARGEST_TEXTS - there {
        return Err(wrong("no more than 2 GiB in one batch", format!("{more} bytes after {there}")));
    }
    Ok(())
}

/// A mismatch.
#[cold]
pub(super) fn wrong(expected: impl Into<String>, got: impl Into<String>) -> Mismatch {
    Mismatch { expected: expected.into(), got: got.into() }
}

/// Whether a value is NULL.
fn is_null(value: &ColumnData<'static>) -> bool {
    match value {
        ColumnData::U8(value) => value.is_none(),
        ColumnData::I16(value) => value.is_none(),
        ColumnData::I32(value) => value.is_none(),
        ColumnData::I64(value) => value.is_none(),
        ColumnData::F32(value) => value.is_none(),
        ColumnData::F64(value) => value.is_none(),
        ColumnData::Bit(value) => value.is_none(),
        ColumnData::String(value) => value.is_none(),
        ColumnData::Guid(value) => value.is_none(),
        ColumnData::Binary(value) => value.is_none(),
        ColumnData::Numeric(value) => value.is_none(),
        ColumnData::Xml(value) => value.is_none(),
        ColumnData::DateTime(value) => value.is_none(),
        ColumnData::SmallDateTime(value) => value.is_none(),
        ColumnData::Time(value) => value.is_none(),
        ColumnData::Date(value) => value.is_none(),
        ColumnData::DateTime2(value) => value.is_none(),
        ColumnData::DateTimeOffset(value) => value.is_none(),
    }
}

/// What a value is, without the value.
pub(super) fn describe(value: &ColumnData<'static>) -> String {
    match value {
        ColumnData::U8(_) => "a tinyint",
        ColumnData::I16(_) => "a smallint",
        ColumnData::I32(_) => "an int",
        ColumnData::I64(_) => "a bigint",
        ColumnData::F32(_) => "a real",
        ColumnData::F64(_) => "a float",
        ColumnData::Bit(_) => "a bit",
        ColumnData::String(_) => "text",
        ColumnData::Guid(_) => "a uniqueidentifier",
        ColumnData::Binary(_) => "bytes",
        ColumnData::Numeric(_) => "a decimal",
        ColumnData::Xml(_) => "xml",
        ColumnData::DateTime(_) => "a datetime",
        ColumnData::SmallDateTime(_) => "a smalldatetime",
        ColumnData::Time(_) => "a time",
        ColumnData::Date(_) => "a date",
        ColumnData::DateTime2(_) => "a datetime2",
        ColumnData::DateTimeOffset(_) => "a datetimeoffset",
    }
    .to_owned()
}
