//! Every type a key may have: from decoded value to text to literal, at the extremes and at random.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use proptest::prelude::*;

use super::*;
use crate::source::mssql::calendar::{DAY_MICROSECONDS, FIRST_DAY, LAST_DAY};
use crate::source::mssql::column::{SubMicroseconds, Times};

const DATABASE: &str = "SQL_Latin1_General_CP1_CI_AS";

fn key(sql_type: SqlType) -> KeyColumn {
    key_with(sql_type, &ColumnOptions::default())
}

fn key_with(sql_type: SqlType, options: &ColumnOptions) -> KeyColumn {
    let column = SourceColumn {
        collation: sql_type.is_text().then(|| DATABASE.to_owned()),
        code_page: sql_type.is_text().then_some(1252),
        ..SourceColumn::plain("k", sql_type)
    };
    KeyColumn::new(&column, options, DATABASE).unwrap()
}

fn both(key: &KeyColumn, array: &ArrayRef, row: usize) -> (String, String) {
    let text = key.text(array, row).unwrap();
    let literal = key.literal(&text).unwrap();
    (text, literal)
}

#[track_caller]
fn check(sql_type: SqlType, array: ArrayRef, expected: &[(&str, &str)]) {
    let key = key(sql_type.clone());
    assert_eq!(array.data_type(), key.plan().fields[0].data_type(), "{sql_type}");
    assert_eq!(array.len(), expected.len());
    for (row, (text, literal)) in expected.iter().enumerate() {
        let (found_text, found_literal) = both(&key, &array, row);
        assert_eq!((found_text.as_str(), found_literal.as_str()), (*text, *literal), "{sql_type}");
    }
}

#[test]
fn whole_numbers() {
    check(SqlType::Bit, Arc::new(BooleanArray::from(vec![false, true])), &[("0", "0"), ("1", "1")]);
    check(SqlType::TinyInt, Arc::new(Int16Array::from(vec![0, 255])), &[("0", "0"), ("255", "255")]);
    let ends = vec![i16::MIN, i16::MAX];
    check(SqlType::SmallInt, Arc::new(Int16Array::from(ends)), &[("-32768", "-32768"), ("32767", "32767")]);
    let ends = vec![i32::MIN, i32::MAX];
    let expected = [("-2147483648", "-2147483648"), ("2147483647", "2147483647")];
    check(SqlType::Int, Arc::new(Int32Array::from(ends)), &expected);
    let ends = vec![i64::MIN, i64::MAX];
    let expected = [("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")];
    check(SqlType::BigInt, Arc::new(Int64Array::from(ends)), &expected);
}

#[test]
fn exact_numbers() {
    let decimals = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let most = 10_i128.pow(38) - 1;
    let nines = "9".repeat(38);
    let small = format!("-0.{nines}");
    check(
        SqlType::Decimal { precision: 38, scale: 0 },
        decimals(vec![most, 0, -7], 38, 0),
        &[(&nines, &nines), ("0", "0"), ("-7", "-7")],
    );
    check(
        SqlType::Decimal { precision: 38, scale: 38 },
        decimals(vec![-most, 1], 38, 38),
        &[(&small, &small), ("0.00000000000000000000000000000000000001", "0.00000000000000000000000000000000000001")],
    );
    check(
        SqlType::Money,
        decimals(vec![i128::from(i64::MAX), i128::from(i64::MIN), -1], 19, 4),
        &[
            ("922337203685477.5807", "922337203685477.5807"),
            ("-922337203685477.5808", "-922337203685477.5808"),
            ("-0.0001", "-0.0001"),
        ],
    );
    check(SqlType::SmallMoney, decimals(vec![12_345], 10, 4), &[("1.2345", "1.2345")]);
}

#[test]
fn dates_and_times() {
    let moments = |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values)) };
    let first = FIRST_DAY * DAY_MICROSECONDS;
    let last = (LAST_DAY + 1) * DAY_MICROSECONDS - 1;
    check(
        SqlType::Date,
        Arc::new(Date32Array::from(vec![i32::try_from(FIRST_DAY).unwrap(), i32::try_from(LAST_DAY).unwrap()])),
        &[("0001-01-01", "'0001-01-01'"), ("9999-12-31", "'9999-12-31'")],
    );
    check(
        SqlType::DateTime2 { scale: 7 },
        moments(vec![first, last, -1]),
        &[
            ("0001-01-01T00:00:00.0000000", "'0001-01-01T00:00:00.0000000'"),
            ("9999-12-31T23:59:59.9999990", "'9999-12-31T23:59:59.9999990'"),
            ("1969-12-31T23:59:59.9999990", "'1969-12-31T23:59:59.9999990'"),
        ],
    );
    let second = ("1970-01-01T00:00:01", "'1970-01-01T00:00:01'");
    check(SqlType::DateTime2 { scale: 0 }, moments(vec![1_000_000]), &[second]);
    check(
        SqlType::DateTime,
        moments(vec![3_000, 997_000]),
        &[
            ("1970-01-01T00:00:00.003", "'1970-01-01T00:00:00.003'"),
            ("1970-01-01T00:00:00.997", "'1970-01-01T00:00:00.997'"),
        ],
    );
    check(SqlType::SmallDateTime, moments(vec![60_000_000]), &[("1970-01-01T00:01:00", "'1970-01-01T00:01:00'")]);
    check(
        SqlType::DateTimeOffset { scale: 3 },
        Arc::new(TimestampMicrosecondArray::from(vec![1_000]).with_timezone("UTC")),
        &[("1970-01-01T00:00:00.001+00:00", "'1970-01-01T00:00:00.001+00:00'")],
    );
    check(
        SqlType::Time { scale: 7 },
        Arc::new(StringArray::from(vec!["23:59:59.9999999"])),
        &[("23:59:59.9999999", "'23:59:59.9999999'")],
    );
}

#[test]
fn options_do_not_change_what_a_key_is() {
    let options = ColumnOptions {
        times: Times::Microseconds,
        sub_microseconds: SubMicroseconds::Error,
        ..ColumnOptions::default()
    };
    let time = key_with(SqlType::Time { scale: 7 }, &options);
    let array: ArrayRef = Arc::new(Int64Array::from(vec![86_399_999_999]));
    assert_eq!(both(&time, &array, 0).1, "'23:59:59.9999990'");
    let time = key_with(SqlType::Time { scale: 2 }, &options);
    let array: ArrayRef = Arc::new(Int64Array::from(vec![10_000]));
    assert_eq!(both(&time, &array, 0).1, "'00:00:00.01'");
    let options = ColumnOptions { sub_microseconds: SubMicroseconds::Text, ..ColumnOptions::default() };
    let instant = key_with(SqlType::DateTimeOffset { scale: 7 }, &options);
    let array: ArrayRef = Arc::new(StringArray::from(vec!["2024-02-29T12:00:00.1234567+00:00"]));
    assert_eq!(both(&instant, &array, 0).1, "'2024-02-29T12:00:00.1234567+00:00'");
}

#[test]
fn texts() {
    let values = vec!["", "O'Brien", "a  ", "😀漢\u{2019}", "a\\\nb", "\0"];
    check(
        SqlType::NVarChar { length: Some(40) },
        Arc::new(StringArray::from(values)),
        &[
            ("", "N''"),
            ("O'Brien", "N'O''Brien'"),
            ("a  ", "N'a  '"),
            ("😀漢\u{2019}", "N'😀漢\u{2019}'"),
            ("a\\\nb", "CAST(0x61005C000A006200 AS nvarchar(4))"),
            ("\0", "CAST(0x0000 AS nvarchar(1))"),
        ],
    );
    let expected = [("'; DROP TABLE x; --", "N'''; DROP TABLE x; --'")];
    check(SqlType::Char { length: 20 }, Arc::new(StringArray::from(vec!["'; DROP TABLE x; --"])), &expected);
}

#[test]
fn bytes_guids_and_paths() {
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&[0_u8, 255][..], &[]]));
    check(SqlType::VarBinary { length: Some(2) }, Arc::clone(&bytes), &[("0x00FF", "0x00FF"), ("0x", "0x")]);
    check(SqlType::Binary { length: 2 }, bytes, &[("0x00FF", "0x00FF"), ("0x", "0x")]);
    let version: ArrayRef = Arc::new(BinaryArray::from(vec![&[0_u8, 0, 0, 0, 0, 0, 7, 209][..]]));
    check(SqlType::RowVersion, version, &[("0x00000000000007D1", "0x00000000000007D1")]);
    let guid = "6f9619ff-8b86-d011-b42d-00c04fc964ff";
    let quoted = format!("'{guid}'");
    check(SqlType::UniqueIdentifier, Arc::new(StringArray::from(vec![guid])), &[(guid, &quoted)]);
    let path: ArrayRef = Arc::new(StringArray::from(vec!["/1/2.5/-3/"]));
    check(SqlType::HierarchyId, path, &[("/1/2.5/-3/", "N'/1/2.5/-3/'")]);
}

#[test]
fn what_the_server_writes_is_understood() {
    for (sql_type, text, literal) in [
        (SqlType::DateTime, "2024-01-31T10:11:12", "'2024-01-31T10:11:12.000'"),
        (SqlType::DateTime, "2024-01-31 10:11:12.997", "'2024-01-31T10:11:12.997'"),
        (SqlType::SmallDateTime, "2024-01-31T10:11:00", "'2024-01-31T10:11:00'"),
        (SqlType::SmallDateTime, "2024-01-31 10:11:00.000", "'2024-01-31T10:11:00'"),
        (SqlType::DateTime2 { scale: 7 }, "2024-01-31T10:11:12.1234567", "'2024-01-31T10:11:12.1234567'"),
        (SqlType::DateTimeOffset { scale: 1 }, "2024-01-31 10:11:12.1 -08:00", "'2024-01-31T10:11:12.1-08:00'"),
        (SqlType::DateTimeOffset { scale: 0 }, "2024-01-31T10:11:12Z", "'2024-01-31T10:11:12+00:00'"),
        (SqlType::UniqueIdentifier, "6F9619FF-8B86-D011-B42D-00C04FC964FF", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'"),
        (SqlType::Money, "-0.5000", "-0.5000"),
        (SqlType::Decimal { precision: 5, scale: 2 }, "007.5", "7.5"),
        (SqlType::Decimal { precision: 5, scale: 5 }, ".5", "0.5"),
    ] {
        assert_eq!(key(sql_type.clone()).literal(text).as_deref(), Ok(literal), "{sql_type}");
    }
}

#[test]
fn what_is_no_value_never_reaches_a_statement() {
    for (sql_type, texts) in [
        (SqlType::Bit, &["2", "true", ""][..]),
        (SqlType::TinyInt, &["256", "-1"]),
        (SqlType::Int, &["2147483648", "1;DROP TABLE t", "1 ", "0x1", "1e3"]),
        (SqlType::BigInt, &["9223372036854775808"]),
        (SqlType::Decimal { precision: 5, scale: 2 }, &["1234.5", "1.234", "", "-", ".", "1.", "1e2", "--1", "+1"]),
        (SqlType::Date, &["2023-02-29", "0000-01-01", "2024-1-1", "2024-01-01T00:00:00", "2024-01-01'"]),
        (SqlType::Time { scale: 3 }, &["24:00:00", "10:60:00", "10:00:60", "10:00:00.1234", "10:00:00Z", "10:00"]),
        (SqlType::DateTime, &["2024-01-01", "2024-01-01T10:00:00Z", "2024-01-01T10:00:00.1231", "x"]),
        (SqlType::SmallDateTime, &["2024-01-01T10:00:00.5"]),
        (SqlType::DateTimeOffset { scale: 0 }, &["2024-01-01T10:00:00+14:01", "2024-01-01T10:00:00+1:00"]),
        (SqlType::UniqueIdentifier, &["6f9619ff", "'", ""]),
        (SqlType::VarBinary { length: Some(2) }, &["00", "0x0", "0x0G", "0x000000", "0X00", "0x00; x"]),
        (SqlType::NVarChar { length: Some(2) }, &["abc", "😀a"]),
        (SqlType::Char { length: 2 }, &["abc"]),
        (SqlType::HierarchyId, &["1/", "/1", "/1/'/", ""]),
    ] {
        for text in texts {
            let error = key(sql_type.clone()).literal(text).unwrap_err();
            assert!(matches!(error, KeyError::Text { .. }), "{sql_type} {text}");
            assert!(error.to_string().contains("key column `k`"), "{error}");
        }
    }
}

#[test]
fn null_and_strange_arrays_are_errors() {
    let key = key(SqlType::Int);
    let array: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(1)]));
    assert_eq!(key.text(&array, 0), Err(KeyError::Null { column: "k".to_owned() }));
    assert_eq!(key.text(&array, 2), Err(KeyError::Null { column: "k".to_owned() }));
    let array: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    assert!(matches!(key.text(&array, 0), Err(KeyError::Array { .. })));
}

#[test]
fn views_are_texts_too() {
    let array: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    assert_eq!(key(SqlType::NVarChar { length: Some(1) }).text(&array, 0).as_deref(), Ok("a"));
}

fn of_collation(sql_type: SqlType, collation: &str) -> KeyColumn {
    let column = SourceColumn { collation: Some(collation.to_owned()), ..SourceColumn::plain("k", sql_type) };
    KeyColumn::new(&column, &ColumnOptions::default(), DATABASE).unwrap()
}

#[test]
fn text_of_another_code_page_than_the_database_is_compared_in_its_own() {
    let same = of_collation(SqlType::VarChar { length: Some(20) }, "sql_latin1_general_cp1_ci_as");
    assert_eq!((same.variable_type().as_str(), same.operand("@a1").as_str()), ("varchar(20)", "@a1"));
    let other = of_collation(SqlType::VarChar { length: Some(20) }, "Cyrillic_General_CI_AS");
    assert_eq!(other.variable_type(), "nvarchar(20)");
    assert_eq!(other.operand("@a1"), "CAST(@a1 COLLATE Cyrillic_General_CI_AS AS varchar(20))");
    let long = of_collation(SqlType::Char { length: 5000 }, "Cyrillic_General_CI_AS");
    assert_eq!(long.variable_type(), "nvarchar(max)");
    assert_eq!(long.operand("@a1"), "CAST(@a1 COLLATE Cyrillic_General_CI_AS AS char(5000))");
    let wide = of_collation(SqlType::NVarChar { length: Some(20) }, "Cyrillic_General_CI_AS");
    assert_eq!((wide.variable_type().as_str(), wide.operand("@a1").as_str()), ("nvarchar(20)", "@a1"));
}

#[test]
fn the_server_is_asked_for_the_same_texts() {
    for (sql_type, expression) in [
        (SqlType::Int, "CONVERT(nvarchar(40), x)"),
        (SqlType::Decimal { precision: 38, scale: 2 }, "CONVERT(nvarchar(40), x)"),
        (SqlType::Money, "CONVERT(nvarchar(40), x, 2)"),
        (SqlType::Date, "CONVERT(nvarchar(40), x, 126)"),
        (SqlType::DateTimeOffset { scale: 7 }, "CONVERT(nvarchar(40), x, 126)"),
        (SqlType::VarBinary { length: Some(9) }, "CONVERT(varchar(max), x, 1)"),
        (SqlType::RowVersion, "CONVERT(varchar(max), CAST(x AS binary(8)), 1)"),
        (SqlType::UniqueIdentifier, "CONVERT(nvarchar(40), x)"),
        (SqlType::NChar { length: 2 }, "x"),
        (SqlType::VarChar { length: Some(2) }, "CAST(x AS nvarchar(max))"),
        (SqlType::HierarchyId, "x.ToString()"),
    ] {
        assert_eq!(key(sql_type).server_text("x"), expression);
    }
    assert_eq!(key(SqlType::Bit).ordered("x"), "CAST(x AS tinyint)");
    assert_eq!(key(SqlType::Int).ordered("x"), "x");
    assert_eq!(key(SqlType::RowVersion).variable_type(), "binary(8)");
}

/// What T-SQL reads out of a `nvarchar` literal that [`text_literal`] wrote.
fn read_literal(literal: &str) -> String {
    if let Some(quoted) = literal.strip_prefix("N'") {
        let inside = quoted.strip_suffix('\'').unwrap();
        assert!(!inside.replace("''", "").contains('\''), "{literal}");
        return inside.replace("''", "'");
    }
    let digits = literal.strip_prefix("CAST(0x").unwrap().split(' ').next().unwrap();
    let byte = |place: usize| u8::from_str_radix(&digits[place..place + 2], 16).unwrap();
    let bytes: Vec<_> = (0..digits.len()).step_by(2).map(byte).collect();
    let units: Vec<_> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).unwrap()
}

proptest! {
    #[test]
    fn any_text_survives(text in "(?s).{0,40}") {
        let key = key(SqlType::NVarChar { length: Some(4000) });
        let array: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
        prop_assert_eq!(read_literal(&both(&key, &array, 0).1), text);
    }

    #[test]
    fn any_decimal_survives(value in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_u8..=38) {
        let key = key(SqlType::Decimal { precision: 38, scale });
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(38, scale.try_into().unwrap()).unwrap();
        let array: ArrayRef = Arc::new(array);
        let literal = both(&key, &array, 0).1;
        let places = literal.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        prop_assert_eq!(places, usize::from(scale));
        prop_assert_eq!(literal.replace('.', "").parse::<i128>().unwrap(), value);
    }

    #[test]
    fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let key = key(SqlType::VarBinary { length: Some(40) });
        let array: ArrayRef = Arc::new(BinaryArray::from(vec![bytes.as_slice()]));
        let literal = both(&key, &array, 0).1;
        let byte = |place: usize| u8::from_str_radix(&literal[place..place + 2], 16).unwrap();
        let found: Vec<_> = (2..literal.len()).step_by(2).map(byte).collect();
        prop_assert_eq!(found, bytes);
    }

    #[test]
    fn any_moment_survives(
        microseconds in FIRST_DAY * DAY_MICROSECONDS..(LAST_DAY + 1) * DAY_MICROSECONDS,
        scale in 0_u8..=7,
    ) {
        // A column of fewer digits never holds more.
        let step = 10_i64.pow(6 - u32::from(scale.min(6)));
        let value = microseconds.div_euclid(step) * step;
        let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![value]));
        let literal = both(&key(SqlType::DateTime2 { scale }), &array, 0).1;
        let parsed = chrono::NaiveDateTime::parse_from_str(literal.trim_matches('\''), "%Y-%m-%dT%H:%M:%S%.f").unwrap();
        prop_assert_eq!(parsed.and_utc().timestamp_micros(), value);
    }

    #[test]
    fn no_text_at_all_breaks_out_of_a_literal(text in "(?s).{0,20}") {
        for sql_type in [SqlType::Int, SqlType::Date, SqlType::DateTime, SqlType::UniqueIdentifier, SqlType::HierarchyId] {
            if let Ok(literal) = key(sql_type).literal(&text) {
                let plain = |letter: char| letter.is_ascii_alphanumeric() || "-:./+T'".contains(letter);
                prop_assert!(literal.chars().all(plain), "{}", literal);
            }
        }
    }
}
