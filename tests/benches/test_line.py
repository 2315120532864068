"""The parts of `benches/line` that figures depend on: the proxy, sizes, how long it takes, what is kept of it."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches" / "line"))

import asker
import bench
import budget
import datasets
import further
import peers
import proxy
import report
import sizes
from duckdb_flight import statement
from links import EFFICIENCY, Link, Loopback
from results import Results

#: Rows of each statement's result at SF1 where all is pulled, and the bytes a row takes: plain, ZSTD 1, the best stock
#: encoding, the least of all. As measured.
RESULTS = {
    "full": (6_000_000, (169, 40.5, 29.5, 25.5)),
    "proj": (6_000_000, (40.3, 9.1, 6.2, 6.0)),
    "filter": (60_000, (170, 38.3, 30, 29)),
    "point": (5, (560, 584, 584, 584)),
    "topn": (100, (190, 68.5, 68.5, 67.6)),
    "agg": (4, (316, 342, 342, 340)),
    "join": (10, (94, 90.4, 90.4, 88.8)),
    "sample": (60_000, (170, 41.7, 33.9, 32.8)),
    "frames": (600_000, (439, 257, 248, 243)),
    "wide": (100_000, (1_874, 700, 565, 565)),
}
FILES = {"lineitem": 200e6, "orders": 60e6, "customer": 14e6, "frames": 174e6, "wide": 63e6}


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


def results_at(link: Link) -> dict[str, sizes.Sizes]:
    """Return the sizes of all results at SF1 through a link."""
    share = min(1.0, (link.bits or datasets.WHOLE_BITS) / datasets.WHOLE_BITS)
    found = {}
    for name, (rows, per_row) in RESULTS.items():
        count = round(rows * share) if name in report.WHOLE else rows
        found[name] = sizes.Sizes(count, *(round(count * each) for each in per_row))
    return found


def test_a_whole_run_takes_about_an_hour_and_no_pull_in_the_best_encoding_half_a_minute() -> None:
    files = {name: int(sum(FILES[t] for t in budget.tables(text))) for name, text in datasets.STATEMENTS.items()}
    taken = budget.PREPARED_SECONDS + sum(budget.PARTS.values())
    for link in bench.FULL.links:
        found = results_at(link)
        taken += budget.matrix_seconds(link, found, files, budget.CONTENDERS, bench.FULL.runs)
        for peer in (budget.STOCK, *budget.WORDED):
            assert all(budget.seconds(link, size, peer, 0) < 30 for size in found.values())
    assert 20 * 60 < taken < 60 * 60


def test_peers_pull_once_at_slow_lines_and_whole_files_once_for_the_same_tables() -> None:
    slow, fast = Link(10_000_000), Link(None)
    assert budget.runs(budget.STOCK, slow, "full", 5) == budget.runs(budget.STOCK, fast, "full", 5) == 5
    assert budget.runs("ROAPI", slow, "full", 5) == 1
    assert budget.runs("ROAPI", fast, "full", 5) == budget.PEER_RUNS
    fetched = [name for name in datasets.STATEMENTS if budget.runs(budget.FILES, slow, name, 5)]
    assert fetched == ["full", "join", "frames", "wide"]


def test_links_are_named_by_rate_and_delay() -> None:
    assert bench.links("10,unshaped") == (Link(10_000_000), Link(10_000_000, 0.025), Link(None))
    assert bench.links("100+25,100+0") == (Link(100_000_000, 0.025), Link(100_000_000))
    with pytest.raises(bench.argparse.ArgumentTypeError, match="'11' is none of"):
        bench.links("11")
    assert bench.names("full", "wide")("wide") == ("wide",)
    assert bench.names("full")("none") == ()


def test_shares_are_counted_while_all_run_and_messages_count_evenly() -> None:
    soon = [(0.0, 100), (10.0, 1_100), (12.0, 1_300)]
    late = [(1.0, 50), (11.0, 1_050)]
    begin, end = further.window([soon, late])
    assert (begin, end) == (1.0 + further.SETTLED_SECONDS, 11.0)
    assert further.within(soon, begin, end) == pytest.approx(800)
    assert further.within(late, begin, end) == pytest.approx(800)


def test_a_server_rests_when_it_takes_no_processor_time_and_is_gone_when_it_ended() -> None:
    code = "import sys, time; sys.stdin.readline()\nwhile True: pass"
    with Loopback() as where, subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            assert peers.at_rest(where, process.pid)
            process.stdin.write(b"go\n")
            process.stdin.flush()
            assert not peers.at_rest(where, process.pid, patience=2)
        finally:
            process.kill()
        assert not peers.at_rest(where, process.pid), "nobody has waited for it, and it has ended all the same"


def pull(link: str, statement: str, peer: str, seconds: float) -> dict[str, Any]:
    """Return the record of a pull."""
    size = dataclasses.asdict(sizes.Sizes(10, 8_000_000, 2_000_000, 1_500_000, 1_400_000))
    taken = dataclasses.asdict(asker.Pull(rows=10, seconds=seconds, first_seconds=0.1))
    taken |= {"link": link, "statement": statement, "peer": peer, "bits": 10_000_000, "round_trip": 0.0, "run": 0}
    taken |= {"wire_bytes": 2_050_000, "server_cpu_seconds": 0.1, "limit": 1.0, "sizes": size, "around": 1.0}
    return taken


def test_what_is_measured_again_replaces_only_what_it_was_measured_of(tmp_path: Path) -> None:
    kept = Results(tmp_path / "results.json")
    head = {"title": "lakegate", "around": "2 cores"}
    first = [pull("10 Mbit/s", name, budget.STOCK, 1.0) for name in ("full", "wide")]
    kept.put("matrix", {**head, "pulls": first, "absent": {"sail": "not installed"}})
    finding = dataclasses.asdict(further.Finding("repeat", "few bytes", "few", met=True))
    kept.put("repeat", {**head, "findings": [finding]})
    again = [pull("10 Mbit/s", "full", budget.STOCK, 2.0), pull("100 Mbit/s", "full", budget.STOCK, 3.0)]
    kept.put("matrix", {**head, "pulls": again, "absent": {}})
    known = Results(tmp_path / "results.json").parts
    pulls = [(p["link"], p["statement"], p["seconds"]) for p in known["matrix"]["pulls"]]
    assert pulls == [("10 Mbit/s", "full", 2.0), ("10 Mbit/s", "wide", 1.0), ("100 Mbit/s", "full", 3.0)]
    assert known["matrix"]["absent"] == {"sail": "not installed"}
    assert known["repeat"]["findings"] == [finding]


def test_a_page_keeps_the_figures_of_parts_that_are_not_known_here(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\n\nNot measured yet.\n\n{report.END}\nafter\n", encoding="utf-8")
    head = {"title": "lakegate", "around": "2 cores"}

    def part(what: str, seen: str) -> dict[str, Any]:
        finding = further.Finding(what, "less", seen, met=seen == "one")
        return {**head, "findings": [dataclasses.asdict(finding)]}

    report.Page({"repeat": part("bytes", "one"), "resume": part("again", "one")}).write(page)
    matrix = {**head, "pulls": [pull("10 Mbit/s", "full", budget.STOCK, 2.0)], "absent": {}}
    report.Page({"resume": part("again", "two"), "matrix": matrix}).write(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "Not measured yet" not in text
    assert text.count("#### Bars") == 1
    assert "| repeat | bytes | less | one | met |" in text
    assert "| resume | again | less | two | **missed** |" in text
    assert "| resume | again | less | one |" not in text
    assert "lakegate, stock pyarrow" in text
    assert text.index("<!-- line: matrix -->") < text.index("<!-- line: resume -->")
    written = text
    report.Page({}).write(page)
    assert page.read_text(encoding="utf-8") == written, "nothing new, nothing changed"


def test_ninety_in_a_hundred_are_no_more_than_the_quantile() -> None:
    assert sizes.quantile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9
    assert sizes.quantile([5], 0.9) == 5
