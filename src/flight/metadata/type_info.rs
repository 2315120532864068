//! `CommandGetXdbcTypeInfo`: the types columns of the lake can have, for ODBC's and JDBC's lists.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use tonic::Status;

use crate::flight::status::malformed;

/// As FlightSql.proto has it.
pub(super) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// A row for each type, or for those with one code, ordered by code.
pub(super) fn answer(command: &CommandGetXdbcTypeInfo) -> Result<RecordBatch, Status> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    types().into_iter().for_each(|entry| builder.append(entry));
    let all = builder.build().map_err(|error| malformed(&error))?;
    all.record_batch(command.data_type).map_err(|error| malformed(&error))
}

fn types() -> Vec<XdbcTypeInfo> {
    use XdbcDataType::{
        XdbcBigint, XdbcBit, XdbcDate, XdbcDecimal, XdbcDouble, XdbcInteger, XdbcReal, XdbcSmallint, XdbcTimestamp,
        XdbcUnknownType, XdbcVarbinary, XdbcVarchar,
    };
    vec![
        plain("array", XdbcUnknownType, i32::MAX, None),
        number("bigint", XdbcBigint, 19),
        plain("binary", XdbcVarbinary, i32::MAX, Some(("X'", "'"))),
        plain("boolean", XdbcBit, 1, None),
        moment("date", XdbcDate, 10, None),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            maximum_scale: Some(38),
            ..number("decimal", XdbcDecimal, 38)
        },
        number("double", XdbcDouble, 15),
        number("int", XdbcInteger, 10),
        plain("map", XdbcUnknownType, i32::MAX, None),
        number("real", XdbcReal, 7),
        number("smallint", XdbcSmallint, 5),
        XdbcTypeInfo { case_sensitive: true, ..plain("string", XdbcVarchar, i32::MAX, Some(("'", "'"))) },
        plain("struct", XdbcUnknownType, i32::MAX, None),
        moment("timestamp", XdbcTimestamp, 32, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone)),
        moment("timestamp_ntz", XdbcTimestamp, 26, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ]
}

/// A type of `size` characters or digits, with what stands around a literal of it.
fn plain(name: &str, code: XdbcDataType, size: i32, literal: Option<(&str, &str)>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type: code,
        column_size: Some(size),
        literal_prefix: literal.map(|(before, _)| before.to_owned()),
        literal_suffix: literal.map(|(_, after)| after.to_owned()),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: code,
        ..XdbcTypeInfo::default()
    }
}

fn number(name: &str, code: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        num_prec_radix: Some(10),
        ..plain(name, code, digits, None)
    }
}

fn moment(name: &str, code: XdbcDataType, size: i32, subcode: Option<XdbcDatetimeSubcode>) -> XdbcTypeInfo {
    let keyword = if code == XdbcDataType::XdbcDate { "date '" } else { "timestamp '" };
    XdbcTypeInfo { datetime_subcode: subcode, ..plain(name, code, size, Some((keyword, "'"))) }
}
