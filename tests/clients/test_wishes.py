"""How Python's clients say how rows are to come, and what the line they are behind says for those who do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import pyarrow as pa
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions
from pyarrow import flight

import lakegate

if TYPE_CHECKING:
    from collections.abc import Callable

    from served import Served

SQL = "select word, half from shapes.million where n < 4 order by n"
ROWS = [{"word": word, "half": half} for word, half in [("even", 0.0), ("odd", 0.5), ("even", 1.0), ("odd", 1.5)]]
PLAIN = [pa.string(), pa.float64()]
WORDS = [pa.dictionary(pa.int32(), pa.string()), pa.float64()]
SHORT = [pa.string(), pa.float32()]

Wishes = dict[str, str]


def by_pyarrow(url: str, wishes: Wishes) -> pa.Table:
    options = flight.FlightCallOptions(headers=[(name.encode(), value.encode()) for name, value in wishes.items()])
    with flight.connect(url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(SQL.encode()), options)
        table = client.do_get(info.endpoints[0].ticket, options).read_all()
    assert info.schema.equals(table.schema)
    return table


def by_adbc(
    url: str, *, database: Wishes | None = None, session: Wishes | None = None, statement: Wishes | None = None
) -> pa.Table:
    headers = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
    named = {f"{headers}{name}": value for name, value in (database or {}).items()}
    with adbc_driver_flightsql.dbapi.connect(url, named, autocommit=True) as connection:
        option = ConnectionOptions.OPTION_SESSION_OPTION_PREFIX.value
        for name, value in (session or {}).items():
            connection.adbc_connection.set_options(**{f"{option}{name}": value})
        header = StatementOptions.RPC_CALL_HEADER_PREFIX.value
        asked = {f"{header}{name}": value for name, value in (statement or {}).items()}
        with connection.cursor(adbc_stmt_kwargs=asked) as cursor:
            cursor.execute(SQL)
            return cursor.fetch_arrow_table()


def on_the_connection(url: str, wishes: Wishes) -> pa.Table:
    return by_adbc(url, database=wishes)


def in_the_session(url: str, wishes: Wishes) -> pa.Table:
    return by_adbc(url, session=wishes)


def on_the_statement(url: str, wishes: Wishes) -> pa.Table:
    return by_adbc(url, statement=wishes)


@pytest.fixture(params=[by_pyarrow, on_the_connection, in_the_session, on_the_statement])
def read(request: pytest.FixtureRequest) -> Callable[[str, Wishes], pa.Table]:
    """Give one of the ways to ask."""
    way: Callable[[str, Wishes], pa.Table] = request.param
    return way


@pytest.mark.parametrize(
    ("wishes", "types"),
    [
        ({}, PLAIN),
        ({"lakegate-codec": "lz4"}, PLAIN),
        ({"lakegate-dictionaries": "on"}, WORDS),
        ({"lakegate-precision": "rounded"}, SHORT),
    ],
)
def test_a_client_says_how_rows_come(
    walked: Served, read: Callable[[str, Wishes], pa.Table], wishes: Wishes, types: list[pa.DataType]
) -> None:
    table = read(walked.url, wishes)
    assert (table.schema.types, table.to_pylist()) == (types, ROWS)


@pytest.mark.parametrize(
    ("wishes", "types"),
    [({}, WORDS), ({"lakegate-codec": "zstd"}, WORDS), ({"lakegate-dictionaries": "off"}, PLAIN)],
)
def test_a_line_says_it_for_who_does_not(
    slowly: Served, read: Callable[[str, Wishes], pa.Table], wishes: Wishes, types: list[pa.DataType]
) -> None:
    table = read(slowly.url, wishes)
    assert (table.schema.types, table.to_pylist()) == (types, ROWS)


def test_a_call_counts_before_the_session(walked: Served) -> None:
    asked = {"lakegate-dictionaries": "off", "lakegate-precision": "full"}
    session = {"lakegate-dictionaries": "on", "lakegate-precision": "float32"}
    table = by_adbc(walked.url, session=session, database=asked)
    assert (table.schema.types, table.to_pylist()) == (PLAIN, ROWS)


@pytest.mark.parametrize("wishes", [{}, {"lakegate-codec": "none"}, {"lakegate-dictionaries": "off"}])
def test_our_client_hands_out_plain_text_whatever_comes(walked: Served, slowly: Served, wishes: Wishes) -> None:
    for url in (walked.url, slowly.url):
        with lakegate.connect(url, headers=wishes, cache=False) as client:
            table = client.sql(SQL).to_arrow()
        assert (table.schema.types, table.to_pylist()) == (PLAIN, ROWS)


def test_our_client_asks_for_shorter_numbers_by_its_headers(walked: Served) -> None:
    with lakegate.connect(walked.url, headers={"lakegate-precision": "float32"}, cache=False) as client:
        assert client.sql(SQL).to_arrow().schema.types == SHORT
