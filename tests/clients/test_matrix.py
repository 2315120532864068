"""What Python's clients make of every type a table can hold: as `expected.json` says, for each of them.

A value arrives exactly, in a documented other form, or not at all with a clear error; never as another value.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import math
import subprocess
import urllib.parse
from typing import TYPE_CHECKING, Any

import adbc_driver_flightsql.dbapi
import duckdb
import flightsql.sqlalchemy  # noqa: F401 makes its dialect known to SQLAlchemy
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
import sqlalchemy
from pyarrow import flight

import matrix
from matrix import KINDS, NAMES, Client, texts
from served import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from served import Served

Answer = tuple[str, list[str]]


def sql_of(column: str) -> str:
    return f"select {column} from types.matrix order by id"


def python(value: Any) -> Any:
    """Return a value of numpy, pandas or SQLAlchemy as Python's own."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.ndarray):
        return [python(item) for item in value]
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    if isinstance(value, np.generic):
        return python(value.item())
    if isinstance(value, dict):
        return {name: python(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(python(item) for item in value)
    return value


@contextlib.contextmanager
def adbc(url: str) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    with adbc_driver_flightsql.dbapi.connect(url, autocommit=True) as connection:
        yield connection


def by_pyarrow(url: str, column: str) -> Answer:
    with flight.connect(url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql_of(column).encode()))
        table = client.do_get(info.endpoints[0].ticket).read_all()
    return str(table.schema.field(0).type), texts(KINDS[column], table[0].to_pylist())


def by_adbc(url: str, column: str) -> Answer:
    with adbc(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql_of(column))
        table = cursor.fetch_arrow_table()
        cursor.execute(sql_of(column))
        fetched = [value for (value,) in cursor.fetchall()]
    found = texts(KINDS[column], fetched)
    assert found == texts(KINDS[column], table[0].to_pylist())
    return str(table.schema.field(0).type), found


def by_pandas(url: str, column: str, **options: Any) -> Answer:
    with adbc(url) as connection:
        series = pd.read_sql(sql_of(column), connection, **options)[column]
    return str(series.dtype), texts(KINDS[column], python(series.tolist()))


def by_pandas_with_arrow(url: str, column: str) -> Answer:
    return by_pandas(url, column, dtype_backend="pyarrow")


def by_polars(url: str, column: str) -> Answer:
    with adbc(url) as connection:
        series = polars.read_database(sql_of(column), connection)[column]
    return str(series.dtype), texts(KINDS[column], series.to_list())


def by_duckdb(url: str, column: str) -> Answer:
    with adbc(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql_of(column))
        rows = cursor.fetch_record_batch()
        with duckdb.connect() as database:
            database.execute("set timezone = 'UTC'")
            answer = database.from_arrow(rows)
            return str(answer.types[0]), texts(KINDS[column], [value for (value,) in answer.fetchall()])


def by_sqlalchemy(url: str, column: str) -> Answer:
    address = urllib.parse.urlparse(url)
    engine = sqlalchemy.create_engine(f"datafusion+flightsql://{address.hostname}:{address.port}?insecure=True")
    with engine.connect() as connection:
        answer = connection.execute(sqlalchemy.text(sql_of(column)))
        kind = answer.cursor.description[0][1].__name__
        return kind, texts(KINDS[column], [python(value) for (value,) in answer])


def by_rust(url: str, column: str) -> Answer:
    # arrow-flight's client for Rust, within our own program.
    command = [str(program()), "query", sql_of(column), "--server", url, "--format", "arrow"]
    done = subprocess.run(command, capture_output=True, check=True)
    table = pa.ipc.open_stream(done.stdout).read_all()
    return str(table.schema.field(0).type), texts(KINDS[column], table[0].to_pylist())


CLIENTS: dict[str, Callable[[str, str], Answer]] = {
    "pyarrow": by_pyarrow,
    "adbc": by_adbc,
    "pandas": by_pandas,
    "pandas-pyarrow": by_pandas_with_arrow,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "sqlalchemy": by_sqlalchemy,
    "rust": by_rust,
}


@pytest.mark.parametrize("column", NAMES)
@pytest.mark.parametrize("name", CLIENTS)
def test_every_type_arrives_as_expected(walked: Served, name: str, column: str) -> None:
    client = Client(name)
    values = client.values(column)
    if values is None:
        with pytest.raises(Exception, match=client.error(column)):
            CLIENTS[name](walked.url, column)
        return
    kind, found = CLIENTS[name](walked.url, column)
    assert found == values
    assert kind == client.types[column]


def test_the_file_of_expectations_says_what_the_table_holds() -> None:
    assert matrix.expected()["columns"] == matrix.of_the_table()


def test_every_difference_is_explained() -> None:
    for name, client in matrix.expected()["clients"].items():
        for column, what in client["differs"].items():
            assert column in NAMES, f"{name}: {column}"
            assert what["why"], f"{name}: {column}"
            assert ("error" in what) != ("values" in what), f"{name}: {column}"


@pytest.mark.parametrize(
    ("precision", "kind"), [("float32", pa.float32()), ("rounded", pa.float32()), ("float16", pa.float16())]
)
def test_shorter_numbers_are_read_by_pyarrow_and_adbc(walked: Served, precision: str, kind: pa.DataType) -> None:
    sql = "select cast(0.5 as double) as part, cast(7 as bigint) as whole"
    options = flight.FlightCallOptions(headers=[(b"lakegate-precision", precision.encode())])
    with flight.connect(walked.url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()), options)
        table = client.do_get(info.endpoints[0].ticket, options).read_all()
    assert info.schema.equals(table.schema)
    asked = {"adbc.flight.sql.rpc.call_header.lakegate-precision": precision}
    with (
        adbc_driver_flightsql.dbapi.connect(walked.url, asked, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        found = cursor.fetch_arrow_table()
    for read in (table, found):
        assert (read.schema.field("part").type, read.schema.field("whole").type) == (kind, pa.int64())
        assert read.to_pylist() == [{"part": 0.5, "whole": 7}]


@pytest.mark.parametrize("codec", ["auto", "zstd", "lz4", "none"])
@pytest.mark.parametrize("dictionaries", ["on", "off"])
def test_rows_do_not_depend_on_how_they_are_encoded(walked: Served, codec: str, dictionaries: str) -> None:
    sql = "select * from types.matrix order by id"
    headers = {"lakegate-codec": codec, "lakegate-dictionaries": dictionaries}
    options = flight.FlightCallOptions(headers=[(name.encode(), value.encode()) for name, value in headers.items()])
    with flight.connect(walked.url) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()), options)
        table = client.do_get(info.endpoints[0].ticket, options).read_all()
    assert info.schema.equals(table.schema)
    assert pa.types.is_dictionary(table.schema.field("text").type) == (dictionaries == "on")
    for name, _, kind, _ in matrix.COLUMNS:
        assert texts(kind, table[name].to_pylist()) == Client("pyarrow").values(name), name
    asked = {f"adbc.flight.sql.rpc.call_header.{name}": value for name, value in headers.items()}
    with (
        adbc_driver_flightsql.dbapi.connect(walked.url, asked, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql)
        found = cursor.fetch_arrow_table()
    assert found.schema.equals(table.schema)
    for name, _, kind, _ in matrix.COLUMNS:
        assert texts(kind, found[name].to_pylist()) == Client("adbc").values(name), name


def test_days_and_moments_beyond_the_calendar_arrive_or_are_errors(walked: Served) -> None:
    table = matrix.beyond()
    with adbc(walked.url) as connection, connection.cursor() as cursor:
        for column in ["day", "instant", "local"]:
            cursor.execute(f"select {column} from types.beyond order by id")
            found = cursor.fetch_arrow_table()
            width = pa.int32() if column == "day" else pa.int64()
            assert found[column].cast(width).to_pylist() == table[column].cast(width).to_pylist(), column
            cursor.execute(f"select {column} from types.beyond order by id")
            with pytest.raises((ValueError, OverflowError)):
                cursor.fetchall()


def test_decimals_keep_every_digit_in_arithmetic(walked: Served) -> None:
    with adbc(walked.url) as connection, connection.cursor() as cursor:
        cursor.execute("select units from types.matrix where units = 99999999999999999999999999999999999999")
        assert cursor.fetchall() == [(matrix.NINES,)]
        cursor.execute("select id from types.matrix where exact = ?", (decimal.Decimal("1.0000000001"),))
        assert cursor.fetchall() == [(1,)]


def test_moments_are_bound_as_they_were_read(walked: Served) -> None:
    with adbc(walked.url) as connection, connection.cursor() as cursor:
        for column, value in [
            ("day", dt.date(1582, 10, 4)),
            ("instant", matrix.INSTANTS[2]),
            ("local", matrix.TIMES[6]),
        ]:
            cursor.execute(f"select {column} from types.matrix where {column} = ?", (value,))
            assert cursor.fetchall() == [(value,)]
        cursor.execute("select id from types.matrix where number = ?", (math.inf,))
        assert cursor.fetchall() == [(7,)]
