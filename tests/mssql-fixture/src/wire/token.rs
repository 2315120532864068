//! The tokens that a server's answer is made of (MS-TDS 2.2.7).

use bytes::{BufMut, BytesMut};

use super::encode::Misfit;
use super::type_info::{Abilities, ColumnShape, put_long_text, put_short_text};
use crate::engine::{SqlError, TransactionEvent};
use crate::value::{Column, SqlType, Value};

/// The program's name in LOGINACK: clients look at it.
const PROGRAM: &str = "Microsoft SQL Server";

const RETURN_STATUS: u8 = 0x79;
const COLUMNS: u8 = 0x81;
const ERROR: u8 = 0xAA;
const INFO: u8 = 0xAB;
const RETURN_VALUE: u8 = 0xAC;
const LOGIN_ACK: u8 = 0xAD;
const FEATURE_ACK: u8 = 0xAE;
pub(crate) const ROW: u8 = 0xD1;
pub(crate) const NBC_ROW: u8 = 0xD2;
const ENV_CHANGE: u8 = 0xE3;

/// Which of the three DONE tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// Ends a statement of a batch.
    Batch = 0xFD,
    /// Ends a procedure.
    Procedure = 0xFE,
    /// Ends a statement inside a procedure.
    InProcedure = 0xFF,
}

/// Status bits of DONE.
pub(crate) mod done {
    /// More of the answer follows.
    pub(crate) const MORE: u16 = 0x01;
    /// The statement failed.
    pub(crate) const ERROR: u16 = 0x02;
    /// The row count holds.
    pub(crate) const COUNT: u16 = 0x10;
    /// Answers an attention.
    pub(crate) const ATTENTION: u16 = 0x20;
}

/// What the current-command field of DONE says of a statement with a result set.
pub(crate) const COMMAND_SELECT: u16 = 0xC1;

/// Kinds of ENVCHANGE with text.
pub(crate) mod environment {
    /// The database.
    pub(crate) const DATABASE: u8 = 1;
    /// The language.
    pub(crate) const LANGUAGE: u8 = 2;
    /// The packet size.
    pub(crate) const PACKET_SIZE: u8 = 4;
}

/// DONE, DONEPROC or DONEINPROC.
pub(crate) fn put_done(kind: Done, status: u16, command: u16, rows: u64, output: &mut BytesMut) {
    output.put_u8(kind as u8);
    output.put_u16_le(status);
    output.put_u16_le(command);
    output.put_u64_le(rows);
}

/// RETURNSTATUS.
pub(crate) fn put_return_status(status: i32, output: &mut BytesMut) {
    output.put_u8(RETURN_STATUS);
    output.put_i32_le(status);
}

/// ERROR.
pub(crate) fn put_error(error: &SqlError, server: &str, output: &mut BytesMut) {
    put_message(ERROR, error, server, output);
}

/// INFO: a message that is no error.
pub(crate) fn put_info(number: i32, message: &str, server: &str, output: &mut BytesMut) {
    put_message(INFO, &SqlError { number, class: 0, state: 1, message: message.to_owned(), line: 1 }, server, output);
}

fn put_message(token: u8, message: &SqlError, server: &str, output: &mut BytesMut) {
    output.put_u8(token);
    with_length(output, |output| {
        output.put_i32_le(message.number);
        output.put_slice(&[message.state, message.class]);
        put_long_text(&message.message, output);
        put_short_text(server, output);
        put_short_text("", output);
        output.put_u32_le(message.line);
    });
}

/// ENVCHANGE of a kind of [`environment`].
pub(crate) fn put_environment(kind: u8, new: &str, old: &str, output: &mut BytesMut) {
    output.put_u8(ENV_CHANGE);
    with_length(output, |output| {
        output.put_u8(kind);
        put_short_text(new, output);
        put_short_text(old, output);
    });
}

/// ENVCHANGE 7: the collation of the connection.
pub(crate) fn put_collation(collation: [u8; 5], output: &mut BytesMut) {
    output.put_u8(ENV_CHANGE);
    with_length(output, |output| {
        output.put_slice(&[7, 5]);
        output.put_slice(&collation);
        output.put_u8(0);
    });
}

/// ENVCHANGE 8, 9 or 10: a transaction began or ended.
pub(crate) fn put_transaction(event: TransactionEvent, output: &mut BytesMut) {
    output.put_u8(ENV_CHANGE);
    with_length(output, |output| match event {
        TransactionEvent::Began(descriptor) => {
            output.put_slice(&[8, 8]);
            output.put_u64_le(descriptor);
            output.put_u8(0);
        }
        TransactionEvent::Committed(descriptor) => {
            output.put_slice(&[9, 0, 8]);
            output.put_u64_le(descriptor);
        }
        TransactionEvent::RolledBack(descriptor) => {
            output.put_slice(&[10, 0, 8]);
            output.put_u64_le(descriptor);
        }
    });
}

/// ENVCHANGE 18: the connection was reset.
pub(crate) fn put_reset(output: &mut BytesMut) {
    output.put_slice(&[ENV_CHANGE, 3, 0, 18, 0, 0]);
}

/// ENVCHANGE 20: the client is to go to another server.
pub(crate) fn put_routing(host: &str, port: u16, output: &mut BytesMut) {
    output.put_u8(ENV_CHANGE);
    with_length(output, |output| {
        output.put_u8(20);
        with_length(output, |output| {
            output.put_u8(0);
            output.put_u16_le(port);
            put_long_text(host, output);
        });
        output.put_u16_le(0);
    });
}

/// LOGINACK for a TDS version, with the product's version as in PRELOGIN.
pub(crate) fn put_login_ack(tds_version: u32, product: [u8; 4], output: &mut BytesMut) {
    output.put_u8(LOGIN_ACK);
    with_length(output, |output| {
        output.put_u8(1);
        output.put_u32(tds_version);
        put_short_text(PROGRAM, output);
        output.put_slice(&product);
    });
}

/// FEATUREEXTACK of features that each carry one byte.
pub(crate) fn put_features(features: &[(u8, u8)], output: &mut BytesMut) {
    output.put_u8(FEATURE_ACK);
    for (feature, value) in features {
        output.put_u8(*feature);
        output.put_u32_le(1);
        output.put_u8(*value);
    }
    output.put_u8(super::login::feature::TERMINATOR);
}

/// COLMETADATA, and the shapes that the rows need.
pub(crate) fn put_columns(
    columns: &[Column],
    abilities: Abilities,
    shapes: &mut Vec<ColumnShape>,
    output: &mut BytesMut,
) {
    output.put_u8(COLUMNS);
    output.put_u16_le(u16::try_from(columns.len()).unwrap_or(u16::MAX - 1));
    shapes.clear();
    for column in columns {
        let shape = ColumnShape::of(column, abilities);
        shapes.push(shape);
        put_column_header(column, &shape, output);
        if matches!(column.sql_type, SqlType::Text | SqlType::NText | SqlType::Image) {
            // The table's name in parts; nobody reads it, but it has to be there.
            output.put_u8(1);
            put_long_text("", output);
        }
        put_short_text(&column.name, output);
    }
}

/// UserType, flags and TYPE_INFO of a column.
fn put_column_header(column: &Column, shape: &ColumnShape, output: &mut BytesMut) {
    const NULLABLE: u16 = 0x01;
    const UPDATEABLE_UNKNOWN: u16 = 0x08;
    const IDENTITY: u16 = 0x10;
    const COMPUTED: u16 = 0x20;
    /// The user type of rowversion, whose wire type is that of binary(8).
    const TIMESTAMP: u32 = 80;
    let row_version = column.sql_type == SqlType::RowVersion;
    output.put_u32_le(if row_version { TIMESTAMP } else { 0 });
    let mut flags = if column.nullable { NULLABLE } else { 0 };
    if column.identity {
        flags |= IDENTITY;
    }
    if column.computed {
        flags |= COMPUTED;
    }
    if !(column.identity || column.computed || row_version) {
        flags |= UPDATEABLE_UNKNOWN;
    }
    output.put_u16_le(flags);
    shape.put_type_info(column, output);
}

/// ROW, or NBCROW where `null_bitmap` says so and there is a NULL. On an error nothing is left of the row.
#[inline]
pub(crate) fn put_row(
    shapes: &[ColumnShape],
    values: &[Value],
    null_bitmap: bool,
    output: &mut BytesMut,
) -> Result<(), Misfit> {
    let start = output.len();
    let put = |output: &mut BytesMut| {
        if null_bitmap && values.iter().any(Value::is_null) {
            return put_sparse_row(shapes, values, output);
        }
        output.put_u8(ROW);
        shapes.iter().zip(values).try_for_each(|(shape, value)| shape.put_value(value, output))
    };
    let result = put(output);
    if result.is_err() {
        output.truncate(start);
    }
    result
}

fn put_sparse_row(shapes: &[ColumnShape], values: &[Value], output: &mut BytesMut) -> Result<(), Misfit> {
    output.put_u8(NBC_ROW);
    let bitmap = output.len();
    output.resize(bitmap + values.len().div_ceil(8), 0);
    for (place, (shape, value)) in shapes.iter().zip(values).enumerate() {
        if value.is_null() {
            output[bitmap + place / 8] |= 1 << (place % 8);
        } else {
            shape.put_value(value, output)?;
        }
    }
    Ok(())
}

/// RETURNVALUE: an OUTPUT parameter.
pub(crate) fn put_return_value(
    ordinal: u16,
    column: &Column,
    value: &Value,
    output: &mut BytesMut,
) -> Result<(), Misfit> {
    let start = output.len();
    output.put_u8(RETURN_VALUE);
    output.put_u16_le(ordinal);
    put_short_text(&column.name, output);
    output.put_u8(1);
    let shape = ColumnShape::of(column, Abilities::default());
    output.put_u32_le(0);
    output.put_u16_le(1);
    shape.put_type_info(column, output);
    let result = shape.put_value(value, output);
    if result.is_err() {
        output.truncate(start);
    }
    result
}

/// Writes a two-byte length before what `put` writes.
fn with_length(output: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let start = output.len();
    output.put_u16_le(0);
    put(output);
    let length = u16::try_from(output.len() - start - 2).unwrap_or(u16::MAX);
    output[start..start + 2].copy_from_slice(&length.to_le_bytes());
}
