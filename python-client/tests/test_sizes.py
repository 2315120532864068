"""What is known of a result before it is fetched, and what is not fetched at all, against a stand-in."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import lakegate
from lakegate import _confirm
from lakegate._progress import Progress
from standin import IDENTITY, Standin, numbered, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


ESTIMATE = {
    "rows": 3000,
    "rows_exact": False,
    "wire_bytes": 2_500_000,
    "seconds": 0.2,
    "heaviest": [{"column": "word", "wire_bytes": 2_000_000}, {"column": "n", "wire_bytes": 500_000}],
}
NEWER = "cd" * 32


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin(numbered(3000), told=told(estimate=ESTIMATE, basis="sealed-1")) as running:
        yield running


def numbers(result: lakegate.Result) -> list[int]:
    return result.to_arrow()["n"].to_pylist()  # type: ignore[no-any-return]


def test_an_estimate_is_told_without_fetching(server: Standin) -> None:
    with lakegate.connect(server.url, cache=False) as client:
        estimate = client.sql("q").estimate
    assert (estimate.rows, estimate.rows_exact, estimate.wire_bytes, estimate.seconds) == (3000, False, 2_500_000, 0.2)
    assert estimate.heaviest[0] == lakegate.ColumnSize("word", 2_000_000)
    assert server.downloads == 0


def test_the_estimate_of_a_query_is_that_of_explain(server: Standin) -> None:
    columns = {
        "column": [None, "word", "n"],
        "rows": [3000] * 3,
        "rows_exact": [False] * 3,
        "wire_bytes": [2_500_000, 2_000_000, None],
        "seconds": [None, None, None],
    }
    server.batches = [pa.record_batch(columns)]
    with lakegate.connect(server.url, cache=False, confirm_above=None) as client:
        found = client.estimate("select 1")
    assert found == lakegate.Estimate(3000, False, 2_500_000, None, (lakegate.ColumnSize("word", 2_000_000),))


@pytest.mark.parametrize("said", [None, {}, {"rows": -1, "wire_bytes": "x", "heaviest": [7, {"column": 1}]}, 5])
def test_what_is_not_told_is_not_known(server: Standin, said: object) -> None:
    server.told = told(estimate=said)
    with lakegate.connect(server.url, cache=False, confirm_above=1) as client:
        assert client.sql("q").estimate == lakegate.Estimate()
        assert len(numbers(client.sql("q"))) == 3000, "what is not known is not refused"


def test_above_the_limit_no_row_moves_unless_somebody_wants_it(server: Standin, tmp_path: Path) -> None:
    asked: list[lakegate.Estimate] = []

    def agrees(estimate: lakegate.Estimate) -> bool:
        asked.append(estimate)
        return True

    with lakegate.connect(server.url, cache=tmp_path, confirm_above="2MB") as client:
        for confirm in (None, lambda _: False):
            with pytest.raises(lakegate.TooLarge, match=r"2\.5 MB on the line.*word \(2\.0 MB\), n \(500\.0 kB\)"):
                client.sql("q", confirm=confirm).to_arrow()
        assert server.downloads == 0
        numbers(client.sql("q", confirm=agrees))
        assert [estimate.wire_bytes for estimate in asked] == [2_500_000]
        numbers(client.sql("q"))  # is here
        assert server.downloads == 1
        assert client.sql("q").estimate.wire_bytes == 0
    with lakegate.connect(server.url, cache=False, confirm_above=None) as client:
        numbers(client.sql("q"))


class Terminal(io.StringIO):
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


def test_whoever_sits_at_a_terminal_is_asked() -> None:
    estimate = lakegate.Estimate(rows=10, wire_bytes=3 * 10**9, seconds=240.0)
    for answer, wanted in (("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False)):
        screen = Terminal()
        assert _confirm._asked(estimate, Terminal(answer), screen) is wanted
        assert (
            screen.getvalue() == "the result would be about 3.0 GB on the line, about 10 rows, 240 s. Fetch it? [y/N] "
        )
    assert _confirm._asked(estimate, io.StringIO("y\n"), Terminal()) is False
    assert _confirm._asked(estimate, None, None) is False


def test_sizes_are_written_as_people_write_them() -> None:
    sizes = {"1GiB": 2**30, "500MB": 500_000_000, "1.5 kB": 1500, "7": 7, "2T": 2 * 10**12, 5: 5, "3MiB": 3 << 20}
    assert {text: _confirm.size_of(text) for text in sizes} == sizes
    assert _confirm.size_of(None) is None
    for wrong in ("", "much", "-1", -1, True, "1XB"):
        with pytest.raises(ValueError, match="is no size"):
            lakegate.connect(confirm_above=wrong)


def test_progress_counts_bytes_on_the_line(server: Standin) -> None:
    seen: list[Progress] = []
    with lakegate.connect(server.url, cache=False) as client:
        client.sql("q").to_arrow(progress=seen.append)
    assert [progress.wire_bytes for progress in seen] == [833_333, 1_666_666, 2_500_000, 2_500_000]
    assert "about 833.3 kB of 2.5 MB on the line" in str(seen[0])
    start = Progress(0, 0, 100, 1.0, finished=False, total_wire_bytes=10, expected_seconds=5.0)
    assert start.seconds_left == 4.0


def test_the_server_is_told_what_is_here_and_sends_nothing(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("q"))
        assert "lakegate-if-none-match" not in server.asked[-1]
        server.not_modified = IDENTITY
        result = client.sql("q")
        assert server.asked[-1]["lakegate-if-none-match"] == IDENTITY
        assert server.asked[-1]["lakegate-have"] == "sealed-1"
        assert (result.estimate.rows, result.estimate.wire_bytes) == (3000, 0)
        assert numbers(result) == list(range(3000))
        client.sql("q")
        assert server.asked[-1]["lakegate-have"] == "sealed-1", "also after an answer without one"
        client.sql("other")
        client.sql("q", fresh=True)
        assert all("lakegate-if-none-match" not in headers for headers in server.asked[-2:])
    assert server.downloads == 1
    with lakegate.connect(server.url, token="x", cache=tmp_path) as client:  # noqa: S106
        client.sql("q")
        assert "lakegate-if-none-match" not in server.asked[-1], "somebody else's"


def test_what_was_here_and_is_damaged_is_fetched_after_all(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("q"))
        server.not_modified = IDENTITY
        result = client.sql("q")
        (path,) = tmp_path.rglob("*.arrow")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert numbers(result) == list(range(3000))
        assert server.downloads == 2
        path.unlink()
        client.sql("q")
        assert "lakegate-if-none-match" not in server.asked[-1]


def test_new_rows_are_added_to_those_that_are_here(server: Standin, tmp_path: Path) -> None:
    def grow(identity: str, before: str, batches: list[pa.RecordBatch]) -> None:
        server.told = told(identity, basis="sealed-2", appended_to=before)
        server.batches = batches

    everything = numbered(5000)
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("q"))
        grow(NEWER, IDENTITY, everything[3:4])
        assert numbers(client.sql("q")) == list(range(4000))
        grow("ef" * 32, NEWER, everything[4:])
        result = client.sql("q")
        assert server.asked[-1]["lakegate-have"] == "sealed-2"
        seen: list[Progress] = []
        assert result.to_arrow(progress=seen.append)["n"].to_pylist() == list(range(5000))
        assert seen[-1].rows == 5000
        assert [row[0] for row in result.rows()] == list(range(5000)), "from the local disk by now"
        assert server.downloads == 3
        server.not_modified = "ef" * 32
        assert numbers(client.sql("q")) == list(range(5000))
        assert sorted(number for b in client.sql("q").iter_batches(7, shuffle=1) for number in b["n"].to_pylist()) == (
            list(range(5000))
        )
        assert server.downloads == 3
        assert len(client.cache.entries()) == 3
        sizes = [path.stat().st_size for path in tmp_path.rglob("*.arrow")]
        assert client.cache.size() == sum(sizes), "no row is there twice"


def test_rows_that_cannot_be_kept_are_added_all_the_same(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=tmp_path / "cache") as client:
        numbers(client.sql("q"))
        server.told = told(NEWER, appended_to=IDENTITY)
        server.batches = numbered(4000)[3:]
        spill = tmp_path / "spill"
        spill.mkdir()
        result = client.sql("q")
        found = [n for _ in range(2) for b in result.iter_batches(100, spill_folder=spill) for n in b["n"].to_pylist()]
        assert found == 2 * list(range(4000))
        assert server.downloads == 2


def test_without_the_rows_before_all_are_fetched(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("q"))
        server.told = told(NEWER, appended_to="99" * 32)
        result = client.sql("q")
        server.told = told(NEWER)
        assert len(numbers(result)) == 3000
        assert "lakegate-have" not in server.asked[-1]


def test_within_a_time_the_server_is_not_asked(
    server: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("q", max_staleness=60))
        asked = len(server.asked)
        result = client.sql("q", max_staleness=60)
        assert result.schema.names == ["n", "word"]
        assert numbers(result) == list(range(3000))
        assert str(result.to_pandas(categories=True)["word"].dtype) == "category"
        assert len(server.asked) == asked
        client.sql("other", max_staleness=60)
        assert len(server.asked) == asked + 1, "another question"
        now = time.time()
        for moment in (now + 61, now - 1000):  # late, or a clock that was set back
            monkeypatch.setattr(time, "time", lambda moment=moment: moment)
            client.sql("q", max_staleness=60)
        assert len(server.asked) == asked + 3
        with pytest.raises(ValueError, match="max_staleness"):
            client.sql("q", max_staleness=-1)


def test_what_is_remembered_is_private_and_can_be_damaged(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=tmp_path) as client:
        numbers(client.sql("select secret"))
        (known,) = tmp_path.rglob("*.known")
        assert "secret" not in known.read_text()
        assert known.stat().st_mode & 0o077 == 0
        for damage in ("", "[]", json.dumps({"identity": IDENTITY, "schema": "AAAA", "basis": None, "checked_at": 1})):
            known.write_text(damage)
            assert numbers(client.sql("select secret", max_staleness=60)) == list(range(3000))
        client.cache.clear()
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_where_nothing_is_said_only_whoever_sits_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for watched, limit in ((True, 1 << 30), (False, None)):
        monkeypatch.setattr(_confirm, "_somebody_watches", lambda *_, watched=watched: watched)
        assert _confirm.size_of(_confirm.AT_TERMINAL) == limit
