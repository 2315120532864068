"""Several things at once: cursors in turns, cursors dropped half-way, slow readers, many connections."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING

import adbc_driver_flightsql.dbapi
import pytest
from pyarrow import flight

from walked import MILLION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from served import Served

UP = "select n from shapes.million order by n"
DOWN = "select n from shapes.million order by n desc"
#: Would take days, and has no row to send.
ENDLESS = "select count(*) from shapes.million a, shapes.million b where a.half + b.half < 0"
CONNECTIONS = 200


@pytest.fixture
def adbc(walked: Served) -> Iterator[adbc_driver_flightsql.dbapi.Connection]:
    with adbc_driver_flightsql.dbapi.connect(walked.url, autocommit=True) as connection:
        yield connection


def reader(client: flight.FlightClient, sql: str) -> flight.FlightStreamReader:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(sql.encode()))
    return client.do_get(info.endpoints[0].ticket)


def is_answered(url: str) -> None:
    with flight.connect(url) as client:
        assert reader(client, "select 1 as one").read_all().to_pylist() == [{"one": 1}]


def test_two_cursors_of_an_adbc_connection_are_read_in_turns(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as up, adbc.cursor() as down:
        up.execute(UP)
        down.execute(DOWN)
        for at in range(0, 20_000, 100):
            assert up.fetchmany(100) == [(n,) for n in range(at, at + 100)]
            assert down.fetchmany(100) == [(MILLION - 1 - n,) for n in range(at, at + 100)]


def test_two_streams_of_a_pyarrow_client_are_read_in_turns(walked: Served) -> None:
    with flight.connect(walked.url) as client:
        up, down = reader(client, UP), reader(client, DOWN)
        rising, falling = [], []
        for _ in range(3):
            rising += up.read_chunk().data["n"].to_pylist()
            falling += down.read_chunk().data["n"].to_pylist()
        assert rising == list(range(len(rising)))
        assert falling == [MILLION - 1 - n for n in range(len(falling))]


def test_a_cursor_dropped_half_way_leaves_its_connection_usable(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    for _ in range(5):
        with adbc.cursor() as dropped:
            dropped.execute(UP)
            assert dropped.fetchone() == (0,)
    with adbc.cursor() as next_one:
        next_one.execute("select count(*) from shapes.million")
        assert next_one.fetchall() == [(MILLION,)]


def test_a_stream_cancelled_half_way_leaves_its_client_usable(walked: Served) -> None:
    with flight.connect(walked.url) as client:
        for _ in range(5):
            stream = reader(client, UP)
            stream.read_chunk()
            stream.cancel()
        assert reader(client, "select count(*) as n from shapes.million").read_all().to_pylist() == [{"n": MILLION}]


def test_a_statement_that_adbc_cancels_ends(adbc: adbc_driver_flightsql.dbapi.Connection) -> None:
    with adbc.cursor() as cursor:
        timer = threading.Timer(1, cursor.adbc_cancel)
        timer.start()
        with pytest.raises(adbc_driver_flightsql.dbapi.Error, match=r"(?i)cancel"):
            cursor.execute(ENDLESS)
            cursor.fetchall()
        timer.join()
    with adbc.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchall() == [(1,)]


def test_a_reader_that_stands_still_holds_up_nobody_and_gets_the_rest(walked: Served) -> None:
    with flight.connect(walked.url) as slow:
        stream = reader(slow, UP)
        rows = stream.read_chunk().data["n"].to_pylist()
        for _ in range(20):
            is_answered(walked.url)
        rows += stream.read_all()["n"].to_pylist()
    assert rows == list(range(MILLION))


def test_two_hundred_connections_at_once(walked: Served) -> None:
    together = threading.Barrier(CONNECTIONS)

    def ask(number: int) -> int:
        with flight.connect(walked.url) as client:
            together.wait(120)
            stream = reader(client, f"select sum(n) as total from shapes.million where n < {number}")
            return stream.read_all()["total"].to_pylist()[0] or 0

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = list(pool.map(ask, range(CONNECTIONS)))
    assert answers == [n * (n - 1) // 2 for n in range(CONNECTIONS)]


def test_two_hundred_adbc_connections_stay_open_beside_each_other(walked: Served) -> None:
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(adbc_driver_flightsql.dbapi.connect(walked.url, autocommit=True))
            for _ in range(CONNECTIONS)
        ]
        cursors = [stack.enter_context(connection.cursor()) for connection in opened]
        for number, cursor in enumerate(cursors):
            cursor.execute("select ? as number", (number,))
        assert [cursor.fetchall() for cursor in cursors] == [[(number,)] for number in range(CONNECTIONS)]
