//! Bulk load: decodes the rows that follow `INSERT BULK`, however the packets cut them (MS-TDS 2.2.6.1).

use bytes::{Buf, BytesMut};

use super::cursor::{Cursor, DecodeError};
use super::decode::WireType;
use super::requests::Requests;
use super::token::{NBC_ROW, ROW};
use crate::engine::SqlError;
use crate::value::{Column, Value};

/// Rows that are handed to the engine at once.
const ROWS_AT_ONCE: usize = 1000;
/// Bytes that are gathered before rows are looked for.
const BYTES_AT_ONCE: usize = 256 << 10;

const COLUMNS: u8 = 0x81;
const DONE: u8 = 0xFD;

/// A bulk load under way. Its rows are one transaction: all or none stay, unless the client has its own open.
pub(crate) struct BulkLoad {
    target: Vec<Column>,
    columns: Option<Vec<WireType>>,
    buffer: BytesMut,
    /// Below this length no further row can be whole.
    wanted: usize,
    own_transaction: bool,
    rows: u64,
    failure: Option<SqlError>,
}

impl BulkLoad {
    /// A load into `target`, the columns that the engine has named for the statement.
    pub(crate) fn new(target: Vec<Column>) -> Self {
        Self {
            target,
            columns: None,
            buffer: BytesMut::new(),
            wanted: 0,
            own_transaction: false,
            rows: 0,
            failure: None,
        }
    }

    /// Takes more bytes in and says whether it is time to [`BulkLoad::insert`] them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.failure.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
        self.buffer.len() >= self.wanted.max(BYTES_AT_ONCE)
    }

    /// Inserts the whole rows that have come. Mistakes are kept for [`BulkLoad::finish`]: the client speaks to the end first.
    pub(crate) fn insert(&mut self, session: &mut dyn Requests) {
        if self.failure.is_none()
            && let Err(error) = self.try_insert(session)
        {
            self.failure = Some(error);
            self.buffer.clear();
        }
    }

    /// Ends the load: how many rows went in, or why none did.
    pub(crate) fn finish(mut self, session: &mut dyn Requests) -> Result<u64, SqlError> {
        self.insert(session);
        // FreeTDS ends with the message and sends no DONE.
        if self.failure.is_none() && !self.buffer.is_empty() {
            self.failure = Some(malformed(&DecodeError::Short));
        }
        match self.failure.take() {
            None if self.own_transaction => session.commit().map(|_| self.rows),
            None => Ok(self.rows),
            Some(error) => {
                self.abandon(session);
                Err(error)
            }
        }
    }

    /// Takes everything back that this load put in, if the transaction is its own.
    pub(crate) fn abandon(self, session: &mut dyn Requests) {
        if self.own_transaction {
            // An error here means that the engine has rolled back already.
            let _ = session.rollback();
        }
    }

    fn try_insert(&mut self, session: &mut dyn Requests) -> Result<(), SqlError> {
        loop {
            let mut rows = Vec::new();
            let short = self.take_rows(&mut rows)?;
            if !rows.is_empty() {
                if session.transaction().is_none() {
                    session.begin(None)?;
                    self.own_transaction = true;
                }
                self.rows += session.bulk_rows(rows)?;
            }
            if short {
                self.wanted = self.buffer.len() * 2;
                return Ok(());
            }
        }
    }

    /// Decodes rows off the front of the buffer; `true` when what is left holds no whole one.
    fn take_rows(&mut self, rows: &mut Vec<Vec<Value>>) -> Result<bool, SqlError> {
        let columns = match self.columns.take() {
            Some(columns) => columns,
            None => match self.read_columns()? {
                Some(columns) => columns,
                None => return Ok(true),
            },
        };
        let mut used = 0;
        let short = loop {
            if rows.len() == ROWS_AT_ONCE {
                break false;
            }
            let mut input = Cursor::new(&self.buffer[used..]);
            let before = input.remaining();
            match read_row(&columns, &mut input) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => {
                    used += before;
                    break true;
                }
                Err(DecodeError::Short) => break true,
                Err(error) => return Err(malformed(&error)),
            }
            used += before - input.remaining();
        };
        self.buffer.advance(used);
        self.columns = Some(columns);
        Ok(short)
    }

    fn read_columns(&mut self) -> Result<Option<Vec<WireType>>, SqlError> {
        let mut input = Cursor::new(&self.buffer);
        match columns(&mut input) {
            Ok(columns) if columns.len() == self.target.len() => {
                let used = self.buffer.len() - input.remaining();
                self.buffer.advance(used);
                Ok(Some(columns))
            }
            Ok(columns) => {
                let text = format!("The bulk load has {} columns, its statement {}.", columns.len(), self.target.len());
                Err(SqlError::new(4819, 16, text))
            }
            Err(DecodeError::Short) => Ok(None),
            Err(error) => Err(malformed(&error)),
        }
    }
}

fn malformed(error: &DecodeError) -> SqlError {
    SqlError::new(
        4804,
        16,
        format!(
            "While reading current row from host, a premature end-of-message was encountered or the row is malformed: {error}."
        ),
    )
}

/// COLMETADATA as clients send it.
fn columns(input: &mut Cursor<'_>) -> Result<Vec<WireType>, DecodeError> {
    if input.u8()? != COLUMNS {
        return Err(DecodeError::malformed("bulk data that does not begin with COLMETADATA"));
    }
    let count = input.u16()?;
    let column = |_| {
        let _user_type = input.u32()?;
        let _flags = input.u16()?;
        let wire_type = WireType::read(input)?;
        if wire_type.has_table_name() {
            skip_table_name(input)?;
        }
        let _name = input.short_text()?;
        Ok(wire_type)
    };
    (0..count).map(column).collect()
}

/// A table's name: a count and parts by the specification, one US_VARCHAR from FreeTDS.
fn skip_table_name(input: &mut Cursor<'_>) -> Result<(), DecodeError> {
    match input.clone().array()? {
        // The second byte is the high one of a US_VARCHAR's length, unless a single empty part begins here.
        [first, 0, third] if (first, third) != (1, 0) => input.long_text().map(drop),
        [parts, _, _] => {
            input.u8()?;
            (0..parts).try_for_each(|_| input.long_text().map(drop))
        }
    }
}

/// The next row; `None` at DONE.
fn read_row(columns: &[WireType], input: &mut Cursor<'_>) -> Result<Option<Vec<Value>>, DecodeError> {
    match input.u8()? {
        ROW => columns.iter().map(|column| column.read_row_value(input)).collect::<Result<_, _>>().map(Some),
        NBC_ROW => {
            let bitmap = input.bytes(columns.len().div_ceil(8))?.to_vec();
            let value = |(place, column): (usize, &WireType)| {
                if bitmap[place / 8] & 1 << (place % 8) != 0 { Ok(Value::Null) } else { column.read_row_value(input) }
            };
            columns.iter().enumerate().map(value).collect::<Result<_, _>>().map(Some)
        }
        DONE => {
            input.bytes(input.remaining())?;
            Ok(None)
        }
        other => Err(DecodeError::malformed(format!("token {other:#04x} among bulk rows"))),
    }
}
