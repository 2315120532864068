"""The parts of `benches/line` that figures depend on: the proxy's rate, delay, count and cut, and sizes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches" / "line"))

import asker
import proxy
import sizes
from duckdb_flight import statement
from links import EFFICIENCY, Link


async def pulled(line: proxy.Proxy, size: int) -> tuple[int, float]:
    """Ask a server behind the proxy for so many bytes; returns how many came, and after how long."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(int(await reader.readline())))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    listening = await line.serve()
    started = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
    writer.write(f"{size}\n".encode())
    came = 0
    try:
        while data := await reader.read(65_536):
            came += len(data)
    except ConnectionError:
        pass
    taken = asyncio.get_running_loop().time() - started
    writer.close()
    listening.close()
    server.close()
    return came, taken


def test_a_bucket_lets_through_its_rate_after_a_burst() -> None:
    bucket = proxy.Bucket(1_000, burst=500)
    assert bucket.reserve(500, 10.0) == 10.0
    assert bucket.reserve(1_000, 10.0) == pytest.approx(11.0)
    assert bucket.reserve(1_000, 10.0) == pytest.approx(12.0)
    assert bucket.reserve(500, 100.0) == 100.0, "what was not used is not saved beyond the burst"


def test_bytes_arrive_no_sooner_than_the_rate_and_the_delay_allow_and_are_counted() -> None:
    line = proxy.Proxy("127.0.0.1", 0, delay=0.05, bits=8_000_000)
    came, taken = asyncio.run(pulled(line, 564 * 1024))
    assert came == line.down == 564 * 1024
    assert line.up == len(f"{564 * 1024}\n")
    # Once there, once back, and half a megabyte beyond the burst at a megabyte a second.
    assert taken >= 0.1 + 500 * 1024 / 1_000_000 - 0.005


def test_a_proxy_that_holds_nothing_up_passes_all() -> None:
    line = proxy.Proxy("127.0.0.1", 0)
    came, _ = asyncio.run(pulled(line, 3_000_000))
    assert came == 3_000_000


def test_a_cut_ends_the_connection_after_its_bytes_and_lets_the_next_one_in() -> None:
    line = proxy.Proxy("127.0.0.1", 0)
    line.cut(1_000_000)
    came, _ = asyncio.run(pulled(line, 3_000_000))
    assert came < 3_000_000
    assert 1_000_000 <= line.down < 1_000_000 + proxy.READ_BYTES
    came, _ = asyncio.run(pulled(line, 1_000))
    assert came == 1_000


def test_a_command_is_read_as_it_was_written() -> None:
    for text in ("select 1", "select '" + "é" * 5_000 + "'"):
        assert statement(asker.command(text)) == text


def test_few_words_are_sent_as_dictionaries_and_many_are_not() -> None:
    count = 10_000
    table = pa.table({
        "few": pa.array(["one", "two", "three", "four"] * (count // 4)),
        "many": pa.array([f"{number * 7919 % 1_000_003:x}" for number in range(count)]),
        "number": pa.array(range(count)),
    })  # fmt: skip
    assert sizes.few_values(table) == {"few"}
    found = sizes.sizes(table.to_reader(1_000))
    assert found.rows == count
    assert found.best <= found.stock < found.plain < found.raw


def test_the_limit_is_the_slowest_part_after_a_round_trip() -> None:
    slow = Link(8_000_000, 0.025)
    assert sizes.limit(slow, 1_000_000, 5_000_000, 0.1, 1e10) == pytest.approx(0.025 + 1 / EFFICIENCY)
    assert sizes.limit(Link(None), 1_000_000, 5_000_000, 0.0, 1e7) == pytest.approx(0.5)


def test_jains_index_is_one_for_equals_and_one_nth_where_one_has_all() -> None:
    assert sizes.jain([3, 3, 3]) == pytest.approx(1)
    assert sizes.jain([1, 0, 0, 0]) == pytest.approx(0.25)
