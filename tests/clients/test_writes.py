"""Clients that are not ours write: each as the documentation of their own tool says."""

from __future__ import annotations

import datetime
import decimal
import uuid
import warnings
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pandas as pd
import polars
import pyarrow as pa
import pytest
from pyarrow import flight

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lakegate
    from served import Served


@pytest.fixture
def adbc(served: Served) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cannot disable autocommit")
        with adbc_driver_flightsql.dbapi.connect(served.url) as connection:
            yield connection


@pytest.fixture
def table() -> str:
    """A name nobody else has: the server outlives a test."""
    return f"t{uuid.uuid4().hex}"


def rows(client: lakegate.Client, sql: str) -> list[dict[str, object]]:
    return client.sql(sql).to_arrow().to_pylist()


def test_adbc_runs_statements_where_nobody_fetches(
    client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str
) -> None:
    with adbc.cursor() as cursor:
        cursor.execute(f"create table {table} (id bigint, word varchar)")
        cursor.execute(f"insert into {table} values (1, 'a'), (2, 'b')")
        assert cursor.rowcount == 2
        # The same text again on the same cursor runs again.
        cursor.execute(f"insert into {table} values (1, 'a'), (2, 'b')")
        cursor.execute(f"update {table} set word = ? where id = ?", ("z", 2))
        assert cursor.rowcount == 2
        cursor.execute(f"delete from {table} where id = 1")
        assert cursor.fetchall() == []
    assert rows(client, f"select id, word from {table}") == [{"id": 2, "word": "z"}, {"id": 2, "word": "z"}]


def test_adbc_executemany_and_executescript(
    client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str
) -> None:
    with adbc.cursor() as cursor:
        cursor.executescript(f"create table {table} (id bigint, day date, price decimal(10, 2), note varchar)")
        day = datetime.date(2020, 2, 29)
        cursor.executemany(
            f"insert into {table} values (?, ?, ?, ?)", [(n, day, decimal.Decimal("1.25"), None) for n in range(100)]
        )
        assert cursor.rowcount == 100
        cursor.executemany(f"delete from {table} where id = ?", [(1,), (2,), (1000,)])
        assert cursor.rowcount == 2
    found = rows(
        client, f"select count(*) as n, min(day) as day, sum(price) as price, count(note) as notes from {table}"
    )
    assert found == [{"n": 98, "day": day, "price": decimal.Decimal("122.50"), "notes": 0}]


def test_adbc_ingest_modes(client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str) -> None:
    sent = pa.table({"id": [1, 2, 3], "word": pa.array(["x", None, "z"]).dictionary_encode()})
    with adbc.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="there is no table"):
            cursor.adbc_ingest(table, sent, mode="append")
        assert cursor.adbc_ingest(table, sent, mode="create") == 3
        with pytest.raises(adbc_driver_manager.Error, match="already"):
            cursor.adbc_ingest(table, sent, mode="create")
        assert cursor.adbc_ingest(table, sent, mode="append") == 3
        assert cursor.adbc_ingest(table, sent, mode="create_append", db_schema_name="results") == 3
        assert len(rows(client, f"select * from {table}")) == 9
        assert cursor.adbc_ingest(table, sent.slice(0, 1), mode="replace") == 1
        with pytest.raises(adbc_driver_manager.NotSupportedError, match="temporary"):
            cursor.adbc_ingest(table, sent, mode="create", temporary=True)
    assert rows(client, f"select * from {table}") == [{"id": 1, "word": "x"}]


def test_adbc_ingest_that_breaks_leaves_nothing(
    client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str
) -> None:
    schema = pa.schema({"id": pa.int64()})

    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": list(range(100_000))}, schema=schema)
        message = "the disk of the client is gone"
        raise OSError(message)

    with adbc.cursor() as cursor:
        cursor.adbc_ingest(table, pa.table({"id": [7]}), mode="create")
        with pytest.raises((OSError, adbc_driver_manager.Error)):
            cursor.adbc_ingest(table, pa.RecordBatchReader.from_batches(schema, broken()), mode="append")
    assert rows(client, f"select id from {table}") == [{"id": 7}]


def test_pandas_to_sql(client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str) -> None:
    frame = pd.DataFrame(
        {"id": [1, 2], "word": ["ä", None], "when": pd.to_datetime(["2020-01-01 00:00:00.000001", None], utc=True)}
    )
    assert frame.to_sql(table, adbc, index=False) == 2
    with pytest.raises(ValueError, match="already exists"):
        frame.to_sql(table, adbc, index=False)
    assert frame.to_sql(table, adbc, index=False, if_exists="append") == 2
    assert len(rows(client, f"select * from {table}")) == 4
    assert frame.head(1).to_sql(table, adbc, index=False, if_exists="replace") == 1
    when = datetime.datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=datetime.timezone.utc)
    assert rows(client, f"select * from {table}") == [{"id": 1, "word": "ä", "when": when}]
    back = pd.read_sql(f"select id, word from {table}", adbc)
    assert back.to_dict("records") == [{"id": 1, "word": "ä"}]


def test_polars_write_database(
    client: lakegate.Client, adbc: adbc_driver_flightsql.dbapi.Connection, table: str
) -> None:
    frame = polars.DataFrame({"id": [1, 2], "word": ["a word longer than twelve bytes", None], "n": [1.5, None]})
    frame.write_database(table, adbc, engine="adbc")
    frame.write_database(table, adbc, engine="adbc", if_table_exists="append")
    assert len(rows(client, f"select * from {table}")) == 4
    frame.head(1).write_database(table, adbc, engine="adbc", if_table_exists="replace")
    found = rows(client, f"select * from {table}")
    assert found == [{"id": 1, "word": "a word longer than twelve bytes", "n": 1.5}]
    assert polars.read_database(f"select * from {table}", adbc).equals(frame.head(1))


def test_plain_flight_runs_a_statement_once_and_reads_its_count_again(
    served: Served, client: lakegate.Client, table: str
) -> None:
    with flight.connect(served.url) as raw:
        raw.get_flight_info(flight.FlightDescriptor.for_command(f"create table {table} (id bigint)".encode()))
        insert = f"insert into {table} values (1), (2)".encode()
        info = raw.get_flight_info(flight.FlightDescriptor.for_command(insert))
        assert info.total_records == 2
        for _ in range(2):
            assert raw.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"count": 2}]
        with pytest.raises(NotImplementedError, match="FlightInfo"):
            raw.do_get(flight.Ticket(insert)).read_all()
    assert rows(client, f"select count(*) as n from {table}") == [{"n": 2}]
