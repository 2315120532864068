"""The few Flight SQL messages the client sends and reads, in protobuf's wire format.

Field numbers are those of `FlightSql.proto` of Apache Arrow. Written out here because eight small
messages do not justify a protobuf runtime whose version has to fit everybody else's in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE_URL = "type.googleapis.com/arrow.flight.protocol.sql."
_VARINT = 0
_FIXED64 = 1
_LENGTH_DELIMITED = 2
_FIXED32 = 5


def statement_query(sql: str) -> bytes:
    """Return the command that runs a statement."""
    return _any("CommandStatementQuery", _bytes(1, sql.encode()))


def create_prepared_statement(sql: str) -> bytes:
    """Return the body of the action that prepares a statement."""
    return _any("ActionCreatePreparedStatementRequest", _bytes(1, sql.encode()))


def prepared_statement_handle(body: bytes) -> bytes:
    """Return the handle from the answer to :func:`create_prepared_statement`."""
    return _field(_unpack(body), 1)


def prepared_statement_query(handle: bytes) -> bytes:
    """Return the command that binds parameters to a prepared statement, and the one that runs it."""
    return _any("CommandPreparedStatementQuery", _bytes(1, handle))


def bound_handle(metadata: bytes, handle: bytes) -> bytes:
    """Return the handle to go on with after binding: the server may have given a new one."""
    return _field(metadata, 1) or handle


def close_prepared_statement(handle: bytes) -> bytes:
    """Return the body of the action that drops a prepared statement."""
    return _any("ActionClosePreparedStatementRequest", _bytes(1, handle))


def cancel_flight_info(info: bytes) -> bytes:
    """Return the body of the action that stops what is being sent for a description of a result; it has no `Any`."""
    return _bytes(1, info)


def get_tables(
    *, schema_pattern: str | None = None, table_pattern: str | None = None, with_schema: bool = False
) -> bytes:
    """Return the command that lists tables; patterns are those of SQL's LIKE."""
    value = b""
    if schema_pattern is not None:
        value += _bytes(2, schema_pattern.encode())
    if table_pattern is not None:
        value += _bytes(3, table_pattern.encode())
    if with_schema:
        value += _key(5, _VARINT) + b"\x01"
    return _any("CommandGetTables", value)


def _any(name: str, value: bytes) -> bytes:
    """Return a `google.protobuf.Any` holding one Flight SQL message."""
    return _bytes(1, (_TYPE_URL + name).encode()) + _bytes(2, value)


def _unpack(data: bytes) -> bytes:
    """Return the message inside a `google.protobuf.Any`."""
    return _field(data, 2)


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _LENGTH_DELIMITED) + _varint(len(value)) + value


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(data: bytes, number: int) -> bytes:
    """Return the last length-delimited field of a number, empty where there is none."""
    found = b""
    for this, value in _fields(data):
        if this == number:
            found = value
    return found


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Go through the length-delimited fields of a message, skipping all others."""
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        wire_type = key & 7
        if wire_type == _VARINT:
            _, position = _read_varint(data, position)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
            if position + length > len(data):
                raise ValueError("the server's answer is cut off")
            yield key >> 3, data[position : position + length]
            position += length
        else:
            raise ValueError(f"the server's answer has a field of unknown kind {wire_type}")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("the server's answer is cut off")
