"""The hand-written protobuf: bytes as another implementation of `FlightSql.proto` writes them."""

import pytest

from lakegate import _protocol

PREFIX = b"type.googleapis.com/arrow.flight.protocol.sql."


def any_of(name: bytes, value: bytes) -> bytes:
    url = PREFIX + name
    return b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(value)]) + value


def test_commands_have_the_bytes_of_the_specification() -> None:
    assert _protocol.statement_query("select 1") == any_of(b"CommandStatementQuery", b"\x0a\x08select 1")
    listed = _protocol.get_tables(schema_pattern="a", table_pattern="b", with_schema=True)
    assert listed == any_of(b"CommandGetTables", b"\x12\x01a\x1a\x01b\x28\x01")
    assert _protocol.prepared_statement_query(b"h") == any_of(b"CommandPreparedStatementQuery", b"\x0a\x01h")


def test_lengths_above_127_take_more_than_one_byte() -> None:
    sql = "x" * 300
    assert b"\x0a\xac\x02" + sql.encode() in _protocol.statement_query(sql)


def test_a_handle_is_found_among_other_fields() -> None:
    handle = bytes(range(200))
    value = b"\x0a\xc8\x01" + handle + b"\x12\x02ab" + b"\x20\x01" + b"\x31" + bytes(8) + b"\x3d" + bytes(4)
    body = b"\x0a\x01t" + b"\x12" + bytes([len(value) & 0x7F | 0x80, len(value) >> 7]) + value
    assert _protocol.prepared_statement_handle(body) == handle


@pytest.mark.parametrize("body", [b"\x12\x05ab", b"\x12", b"\x13\x00", b"\x80"])
def test_an_answer_that_is_cut_off_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="the server's answer"):
        _protocol.prepared_statement_handle(body)


def test_a_new_handle_replaces_the_old_one_only_where_one_is_given() -> None:
    assert _protocol.bound_handle(b"\x0a\x03new", b"old") == b"new"
    assert _protocol.bound_handle(b"", b"old") == b"old"
