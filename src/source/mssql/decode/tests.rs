//! Every type at its extremes, and rows that are not what they should be.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use proptest::prelude::*;
use tiberius::numeric::Numeric;
use tiberius::time::{Date, DateTime, DateTime2, DateTimeOffset, SmallDateTime, Time};

use super::*;
use crate::source::mssql::column::{ColumnOptions, SourceColumn, SqlType, SubMicroseconds, Times, Timestamps};

type Value = ColumnData<'static>;

fn plan(sql_type: SqlType, options: &ColumnOptions) -> ColumnPlan {
    ColumnPlan::new(&SourceColumn::plain("c", sql_type), options).unwrap()
}

fn try_decode(sql_type: SqlType, options: &ColumnOptions, values: Vec<Value>) -> Result<RecordBatch, CellError> {
    let mut decoder = RowDecoder::new(&[plan(sql_type, options)]);
    for value in values {
        decoder.push([value])?;
    }
    Ok(decoder.finish().unwrap())
}

fn decode(sql_type: SqlType, values: Vec<Value>) -> ArrayRef {
    decode_with(sql_type, &ColumnOptions::default(), values)
}

fn decode_with(sql_type: SqlType, options: &ColumnOptions, values: Vec<Value>) -> ArrayRef {
    Arc::clone(try_decode(sql_type, options, values).unwrap().column(0))
}

fn fails(sql_type: SqlType, options: &ColumnOptions, value: Value) -> String {
    try_decode(sql_type, options, vec![value]).unwrap_err().to_string()
}

fn text(value: &str) -> Value {
    ColumnData::String(Some(value.to_owned().into()))
}

fn numeric(value: i128, scale: u8) -> Value {
    ColumnData::Numeric(Some(Numeric::new_with_scale(value, scale)))
}

fn datetime2(days: u32, steps: u64, scale: u8) -> DateTime2 {
    DateTime2::new(Date::new(days), Time::new(steps, scale))
}

fn offset(days: u32, steps: u64, scale: u8, minutes: i16) -> Value {
    ColumnData::DateTimeOffset(Some(DateTimeOffset::new(datetime2(days, steps, scale), minutes)))
}

fn moments(array: &ArrayRef) -> Vec<Option<i64>> {
    array.as_primitive::<TimestampMicrosecondType>().iter().collect()
}

fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

/// The driver's ways to say NULL, among them some of another type than the column's.
fn nulls() -> Vec<Value> {
    vec![ColumnData::I32(None), ColumnData::String(None), ColumnData::DateTime(None), ColumnData::Numeric(None)]
}

#[test]
fn numbers_reach_their_ends() {
    let array =
        decode(SqlType::Bit, vec![ColumnData::Bit(Some(true)), ColumnData::Bit(Some(false)), ColumnData::Bit(None)]);
    assert_eq!(array.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
    let array =
        decode(SqlType::TinyInt, vec![ColumnData::U8(Some(0)), ColumnData::U8(Some(255)), ColumnData::U8(None)]);
    assert_eq!(array.as_primitive::<Int16Type>().iter().collect::<Vec<_>>(), [Some(0), Some(255), None]);
    let ends = vec![ColumnData::I16(Some(i16::MIN)), ColumnData::I16(Some(i16::MAX)), ColumnData::I16(None)];
    let array = decode(SqlType::SmallInt, ends);
    assert_eq!(array.as_primitive::<Int16Type>().iter().collect::<Vec<_>>(), [Some(i16::MIN), Some(i16::MAX), None]);
    let ends = vec![ColumnData::I32(Some(i32::MIN)), ColumnData::I32(Some(i32::MAX)), ColumnData::I32(None)];
    let array = decode(SqlType::Int, ends);
    assert_eq!(array.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(i32::MIN), Some(i32::MAX), None]);
    let ends = vec![ColumnData::I64(Some(i64::MIN)), ColumnData::I64(Some(i64::MAX)), ColumnData::I64(None)];
    let array = decode(SqlType::BigInt, ends);
    assert_eq!(array.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(i64::MIN), Some(i64::MAX), None]);
    let ends = vec![ColumnData::F32(Some(f32::MIN)), ColumnData::F32(Some(f32::MIN_POSITIVE)), ColumnData::F32(None)];
    let array = decode(SqlType::Real, ends);
    let expected = [Some(f32::MIN), Some(f32::MIN_POSITIVE), None];
    assert_eq!(array.as_primitive::<Float32Type>().iter().collect::<Vec<_>>(), expected);
    let ends = vec![ColumnData::F64(Some(f64::MAX)), ColumnData::F64(Some(-5e-324)), ColumnData::F64(None)];
    let array = decode(SqlType::Float, ends);
    assert_eq!(array.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(f64::MAX), Some(-5e-324), None]);
}

#[test]
fn decimals_keep_their_last_digit() {
    let most = 10_i128.pow(38) - 1;
    for (sql_type, scale, least, greatest) in [
        (SqlType::Decimal { precision: 38, scale: 0 }, 0, -most, most),
        (SqlType::Decimal { precision: 38, scale: 38 }, 38, -most, most),
        (SqlType::Decimal { precision: 1, scale: 0 }, 0, -9, 9),
        (SqlType::Money, 4, i128::from(i64::MIN), i128::from(i64::MAX)),
        (SqlType::SmallMoney, 4, i128::from(i32::MIN), i128::from(i32::MAX)),
    ] {
        let values = [least, greatest, 0].map(|value| numeric(value, scale)).into();
        let array = decode(sql_type.clone(), values);
        let found: Vec<_> = array.as_primitive::<Decimal128Type>().values().iter().copied().collect();
        assert_eq!(found, [least, greatest, 0], "{sql_type}");
    }
    assert!(decode(SqlType::Money, vec![ColumnData::Numeric(None)]).is_null(0));
}

#[test]
fn decimals_with_other_digits_are_refused() {
    let options = ColumnOptions::default();
    let sql_type = || SqlType::Decimal { precision: 4, scale: 2 };
    for value in [numeric(10_000, 2), numeric(-10_000, 2), numeric(1, 3), numeric(1, 0)] {
        let error = fails(sql_type(), &options, value);
        assert!(error.starts_with("column `c`: expected a number of its digits (decimal(4,2)), got "), "{error}");
    }
    // What a server sends for money without the cast would lose digits.
    let error = fails(SqlType::Money, &options, ColumnData::F64(Some(1.0)));
    assert_eq!(error, "column `c`: expected a decimal (money), got a float");
}

#[test]
fn texts_are_as_they_were() {
    let long = "x".repeat(70_000);
    for sql_type in [
        SqlType::NVarChar { length: Some(10) },
        SqlType::NChar { length: 10 },
        SqlType::Char { length: 10 },
        SqlType::HierarchyId,
        SqlType::Vector { dimensions: 2 },
    ] {
        let expected = ["", "a  ", "𝒳😀漢", "\0\r\n", &long];
        let mut values: Vec<_> = expected.map(text).into();
        values.push(ColumnData::String(None));
        let array = decode(sql_type, values);
        assert_eq!(texts(&array)[..5], expected.map(Some));
        assert!(array.is_null(5));
    }
}

#[test]
fn bytes_are_as_they_were() {
    for sql_type in [SqlType::RowVersion, SqlType::Binary { length: 8 }, SqlType::VarBinary { length: Some(8) }] {
        let values = vec![
            ColumnData::Binary(Some(vec![0, 255, 0].into())),
            ColumnData::Binary(Some(Vec::new().into())),
            ColumnData::Binary(None),
        ];
        let array = decode(sql_type, values);
        let found: Vec<_> = array.as_binary::<i32>().iter().collect();
        assert_eq!(found, [Some(&[0, 255, 0][..]), Some(&[][..]), None]);
    }
}

#[test]
fn days_reach_from_year_1_to_9999() {
    let values = vec![
        ColumnData::Date(Some(Date::new(0))),
        ColumnData::Date(Some(Date::new(719_162))),
        ColumnData::Date(Some(Date::new(3_652_058))),
        ColumnData::Date(None),
    ];
    let array = decode(SqlType::Date, values);
    let found: Vec<_> = array.as_primitive::<Date32Type>().iter().collect();
    assert_eq!(found, [Some(-719_162), Some(0), Some(2_932_896), None]);
    let error = fails(SqlType::Date, &ColumnOptions::default(), ColumnData::Date(Some(Date::new(3_652_059))));
    assert!(error.contains("9999-12-31"), "{error}");
}

#[test]
fn times_are_text_of_all_their_digits() {
    let values = vec![
        ColumnData::Time(Some(Time::new(0, 7))),
        ColumnData::Time(Some(Time::new(863_999_999_999, 7))),
        ColumnData::Time(None),
    ];
    let array = decode(SqlType::Time { scale: 7 }, values);
    assert_eq!(texts(&array), [Some("00:00:00.0000000"), Some("23:59:59.9999999"), None]);
    let array = decode(SqlType::Time { scale: 0 }, vec![ColumnData::Time(Some(Time::new(86_399, 0)))]);
    assert_eq!(texts(&array), [Some("23:59:59")]);
    let array = decode(SqlType::Time { scale: 3 }, vec![ColumnData::Time(Some(Time::new(1, 3)))]);
    assert_eq!(texts(&array), [Some("00:00:00.001")]);
    for time in [Time::new(864_000_000_000, 7), Time::new(86_400, 0), Time::new(0, 8)] {
        let error = fails(SqlType::Time { scale: 7 }, &ColumnOptions::default(), ColumnData::Time(Some(time)));
        assert!(error.contains("expected a time of day"), "{error}");
    }
}

#[test]
fn times_can_be_microseconds() {
    let options = ColumnOptions { times: Times::Microseconds, ..ColumnOptions::default() };
    let last = || vec![ColumnData::Time(Some(Time::new(863_999_999_999, 7)))];
    let array = decode_with(SqlType::Time { scale: 7 }, &options, last());
    assert_eq!(array.as_primitive::<Int64Type>().value(0), 86_399_999_999);
    let exact = ColumnOptions { sub_microseconds: SubMicroseconds::Error, ..options };
    let error = fails(SqlType::Time { scale: 7 }, &exact, last().remove(0));
    assert!(error.contains("23:59:59.9999999") && error.contains("sub_microseconds"), "{error}");
    let array = decode_with(SqlType::Time { scale: 7 }, &exact, vec![ColumnData::Time(Some(Time::new(10, 7)))]);
    assert_eq!(array.as_primitive::<Int64Type>().value(0), 1);
}

#[test]
fn datetime_has_the_milliseconds_the_server_prints() {
    let value = |days, ticks| ColumnData::DateTime(Some(DateTime::new(days, ticks)));
    let values = vec![
        value(25_567, 0),
        value(25_567, 1),
        value(25_567, 2),
        value(25_567, 3),
        value(-53_690, 0),
        value(2_958_463, 25_919_999),
        ColumnData::DateTime(None),
        ColumnData::SmallDateTime(None),
    ];
    let array = decode(SqlType::DateTime, values);
    let expected = [
        Some(0),
        Some(3_000),
        Some(7_000),
        Some(10_000),
        Some(-6_847_804_800_000_000),
        Some(253_402_300_799_997_000),
        None,
        None,
    ];
    assert_eq!(moments(&array), expected);
    let error = fails(SqlType::DateTime, &ColumnOptions::default(), value(0, 25_920_000));
    assert!(error.contains("time of day"), "{error}");
}

#[test]
fn smalldatetime_counts_minutes() {
    let value = |days, minutes| ColumnData::SmallDateTime(Some(SmallDateTime::new(days, minutes)));
    // An empty one arrives as a datetime where nulls are sent as a bitmap.
    let values = vec![value(0, 0), value(25_567, 1), value(u16::MAX, 1_439), ColumnData::DateTime(None)];
    let array = decode(SqlType::SmallDateTime, values);
    let expected = [Some(-2_208_988_800_000_000), Some(60_000_000), Some(3_453_321_540_000_000), None];
    assert_eq!(moments(&array), expected);
    assert!(fails(SqlType::SmallDateTime, &ColumnOptions::default(), value(0, 1_440)).contains("minute 1440"));
}

#[test]
fn datetime2_reaches_from_year_1_to_9999() {
    let value = |days, steps, scale| ColumnData::DateTime2(Some(datetime2(days, steps, scale)));
    let values = vec![
        value(0, 0, 7),
        value(3_652_058, 863_999_999_999, 7),
        // One tenth of a microsecond before 1970 is cut to the microsecond before it.
        value(719_161, 863_999_999_999, 7),
        ColumnData::DateTime2(None),
    ];
    let array = decode(SqlType::DateTime2 { scale: 7 }, values);
    let expected = [Some(-62_135_596_800_000_000), Some(253_402_300_799_999_999), Some(-1), None];
    assert_eq!(moments(&array), expected);
    for (scale, steps) in [(0, 1), (1, 10), (3, 1_000), (5, 100_000), (6, 1_000_000)] {
        let array = decode(SqlType::DateTime2 { scale }, vec![value(719_162, steps, scale)]);
        assert_eq!(moments(&array), [Some(1_000_000)], "{scale}");
    }
}

#[test]
fn the_seventh_digit_is_cut_or_an_error_or_kept() {
    let value = || ColumnData::DateTime2(Some(datetime2(719_162, 11, 7)));
    let with = |sub_microseconds| ColumnOptions { sub_microseconds, ..ColumnOptions::default() };
    let sql_type = || SqlType::DateTime2 { scale: 7 };
    assert_eq!(moments(&decode_with(sql_type(), &with(SubMicroseconds::Truncate), vec![value()])), [Some(1)]);
    let error = fails(sql_type(), &with(SubMicroseconds::Error), value());
    assert!(error.contains("1970-01-01T00:00:00.0000011"), "{error}");
    let array = decode_with(sql_type(), &with(SubMicroseconds::Text), vec![value(), ColumnData::DateTime2(None)]);
    assert_eq!(texts(&array), [Some("1970-01-01T00:00:00.0000011"), None]);
    let array = decode_with(
        SqlType::DateTimeOffset { scale: 7 },
        &with(SubMicroseconds::Text),
        vec![offset(719_162, 11, 7, 60), offset(719_162, 11, 7, -30), offset(719_162, 864_000_000_000 - 1, 7, 840)],
    );
    let expected = [
        Some("1970-01-01T01:00:00.0000011+01:00"),
        Some("1969-12-31T23:30:00.0000011-00:30"),
        Some("1970-01-02T13:59:59.9999999+14:00"),
    ];
    assert_eq!(texts(&array), expected);
}

#[test]
fn moments_without_an_offset_can_be_taken_as_utc() {
    let options = ColumnOptions { timestamps: Timestamps::Utc, ..ColumnOptions::default() };
    let value = ColumnData::DateTime2(Some(datetime2(719_162, 1, 0)));
    let array = decode_with(SqlType::DateTime2 { scale: 0 }, &options, vec![value]);
    assert_eq!(moments(&array), [Some(1_000_000)]);
    assert!(array.data_type().to_string().contains("UTC"));
}

#[test]
fn an_instant_is_the_utc_of_the_wire_whatever_its_offset() {
    let options = ColumnOptions { companions: true, ..ColumnOptions::default() };
    let values = [-840, 0, 330, 840].map(|minutes| offset(719_162, 1, 0, minutes));
    let values = values.into_iter().chain([ColumnData::DateTimeOffset(None)]).collect();
    let batch = try_decode(SqlType::DateTimeOffset { scale: 0 }, &options, values).unwrap();
    let second = Some(1_000_000);
    assert_eq!(moments(batch.column(0)), [second, second, second, second, None]);
    let offsets: Vec<_> = batch.column(1).as_primitive::<Int16Type>().iter().collect();
    assert_eq!(offsets, [Some(-840), Some(0), Some(330), Some(840), None]);
    assert_eq!(batch.schema().field(1).name(), "c__offset_min");
}

#[test]
fn guids_are_text_in_lower_case() {
    let guid = "00010203-0405-0607-0809-0A0B0C0D0EFF";
    let values = vec![ColumnData::Guid(Some(guid.parse().unwrap())), ColumnData::Guid(None)];
    let array = decode(SqlType::UniqueIdentifier, values);
    assert_eq!(texts(&array), [Some("00010203-0405-0607-0809-0a0b0c0d0eff"), None]);
}

#[test]
fn every_null_is_null_in_every_column() {
    for sql_type in [
        SqlType::Bit,
        SqlType::TinyInt,
        SqlType::SmallInt,
        SqlType::Int,
        SqlType::BigInt,
        SqlType::Decimal { precision: 5, scale: 1 },
        SqlType::Real,
        SqlType::Float,
        SqlType::NVarChar { length: Some(5) },
        SqlType::VarBinary { length: Some(5) },
        SqlType::Date,
        SqlType::Time { scale: 7 },
        SqlType::DateTime,
        SqlType::SmallDateTime,
        SqlType::DateTime2 { scale: 7 },
        SqlType::DateTimeOffset { scale: 7 },
        SqlType::UniqueIdentifier,
    ] {
        let count = nulls().len();
        let array = decode(sql_type.clone(), nulls());
        assert_eq!((array.len(), array.null_count()), (count, count), "{sql_type}");
    }
}

#[test]
fn a_value_of_another_type_is_named() {
    let options = ColumnOptions::default();
    for (sql_type, value, message) in [
        (SqlType::Int, ColumnData::I64(Some(1)), "column `c`: expected an int (int), got a bigint"),
        (SqlType::BigInt, ColumnData::I32(Some(1)), "column `c`: expected a bigint (bigint), got an int"),
        (SqlType::Date, text("x"), "column `c`: expected a date (date), got text"),
        (SqlType::DateTime, text("x"), "column `c`: expected a date with a time (datetime), got text"),
        (SqlType::Binary { length: 1 }, text("x"), "column `c`: expected bytes (binary(1)), got text"),
        (
            SqlType::DateTimeOffset { scale: 0 },
            ColumnData::DateTime2(Some(datetime2(0, 0, 0))),
            "column `c`: expected a datetimeoffset (datetimeoffset(0)), got a datetime2",
        ),
    ] {
        assert_eq!(fails(sql_type, &options, value), message);
    }
}

fn three_columns() -> RowDecoder {
    let options = ColumnOptions { max_cell_bytes: 10, companions: true, ..ColumnOptions::default() };
    let columns = [
        ("id", SqlType::Int),
        ("body", SqlType::NVarChar { length: None }),
        ("at", SqlType::DateTimeOffset { scale: 0 }),
        ("shape", SqlType::Geometry),
    ];
    let plans =
        columns.map(|(name, sql_type)| ColumnPlan::new(&SourceColumn::plain(name, sql_type), &options).unwrap());
    RowDecoder::new(&plans)
}

fn row(id: i32, body: Option<&str>, length: Option<i64>) -> Vec<Value> {
    vec![
        ColumnData::I32(Some(id)),
        ColumnData::String(body.map(|body| body.to_owned().into())),
        ColumnData::I64(length),
        offset(719_162, 0, 0, 60),
        ColumnData::Binary(Some(vec![1, 2].into())),
        ColumnData::I32(Some(2)),
        ColumnData::I32(Some(4326)),
    ]
}

fn ids(batch: &RecordBatch) -> Vec<i32> {
    batch.column(0).as_primitive::<Int32Type>().values().to_vec()
}

#[test]
fn a_row_with_too_large_a_value_is_left_out_and_named() {
    let mut decoder = three_columns();
    assert_eq!(decoder.width(), 7);
    assert_eq!(decoder.push(row(1, Some("fits"), Some(8))).unwrap(), Pushed::Row);
    let large = decoder.push(row(2, None, Some(11))).unwrap();
    assert_eq!(large, Pushed::TooLarge { column: "body".to_owned(), bytes: 11 });
    assert_eq!(decoder.push(row(3, Some("12345"), Some(10))).unwrap(), Pushed::Row);
    assert_eq!(decoder.push(row(4, None, None)).unwrap(), Pushed::Row);
    assert_eq!(decoder.rows(), 3);
    let batch = decoder.finish().unwrap();
    assert_eq!(ids(&batch), [1, 3, 4]);
    assert_eq!(texts(batch.column(1)), [Some("fits"), Some("12345"), None]);
    assert_eq!(batch.num_columns(), 6);
    assert_eq!(batch.column(5).as_primitive::<Int32Type>().value(0), 4326);
    assert_eq!((decoder.rows(), decoder.bytes()), (0, 0));
    assert_eq!(decoder.push(row(5, Some("next"), Some(8))).unwrap(), Pushed::Row);
    assert_eq!(ids(&decoder.finish().unwrap()), [5]);
}

#[test]
fn a_row_that_fails_at_any_value_harms_no_other() {
    for place in 0..7 {
        let mut decoder = three_columns();
        decoder.push(row(1, Some("a"), Some(2))).unwrap();
        let mut broken = row(2, Some("b"), Some(2));
        broken[place] = ColumnData::Bit(Some(true));
        assert!(decoder.push(broken).unwrap_err().got.contains("a bit"), "{place}");
        decoder.push(row(3, Some("c"), Some(2))).unwrap();
        let mut short = row(4, Some("d"), Some(2));
        short.truncate(place);
        assert!(decoder.push(short).unwrap_err().got.contains("the end of the row"), "{place}");
        let mut long = row(5, Some("e"), Some(2));
        long.push(ColumnData::Bit(None));
        assert!(decoder.push(long).unwrap_err().got.contains("more values"), "{place}");
        decoder.push(row(6, Some("f"), Some(2))).unwrap();
        assert_eq!(decoder.rows(), 3);
        let batch = decoder.finish().unwrap();
        assert_eq!(ids(&batch), [1, 3, 6], "{place}");
        assert_eq!(texts(batch.column(1)), [Some("a"), Some("c"), Some("f")], "{place}");
    }
}

#[test]
fn bytes_grow_with_rows_and_texts() {
    let mut decoder = three_columns();
    decoder.push(row(1, Some("abc"), Some(6))).unwrap();
    let one = decoder.bytes();
    // int 4, text 4 + 3, instant with offset 10, binary 4 + 2, reference 4
    assert_eq!(one, 31);
    decoder.push(row(2, Some(""), Some(0))).unwrap();
    assert_eq!(decoder.bytes(), one + 28);
}

#[test]
fn a_table_without_columns_still_has_rows() {
    let mut decoder = RowDecoder::new(&[]);
    decoder.push([]).unwrap();
    assert_eq!(decoder.finish().unwrap().num_rows(), 1);
}

#[test]
fn an_empty_batch_has_the_schema() {
    let mut decoder = three_columns();
    let batch = decoder.finish().unwrap();
    assert_eq!((batch.num_rows(), &batch.schema()), (0, decoder.schema()));
}

proptest! {
    #[test]
    fn any_moment_is_what_a_calendar_says(days in 0_u32..=3_652_058, steps in 0_u64..864_000_000_000) {
        let array = decode(SqlType::DateTime2 { scale: 7 }, vec![ColumnData::DateTime2(Some(datetime2(days, steps, 7)))]);
        let date = chrono::NaiveDate::from_num_days_from_ce_opt(i32::try_from(days).unwrap() + 1).unwrap();
        let midnight = date.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
        prop_assert_eq!(moments(&array), [Some(midnight + i64::try_from(steps / 10).unwrap())]);
    }
}
