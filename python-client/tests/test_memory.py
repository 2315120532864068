"""Rows that would not fit are refused before they fill the memory; how far a download is; how Ctrl-C ends one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import lakegate
from lakegate._memory import Guard, Sizes, available_memory
from lakegate._progress import Progress, Report
from standin import Standin, numbered, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = 50_000


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin(numbered(ROWS)) as running:
        yield running


@pytest.fixture
def client(server: Standin) -> Iterator[lakegate.Client]:
    with lakegate.connect(server.url, cache=False) as connected:
        yield connected


def test_what_is_too_large_is_refused_while_it_arrives(client: lakegate.Client) -> None:
    with pytest.raises(lakegate.TooLarge) as refused:
        client.sql("q").to_arrow(max_memory=100_000)
    for words in ("100.0 kB is the limit", "more than", ".batches()", ".to_parquet(path)", "max_memory"):
        assert words in str(refused.value)
    client.sql("q").to_arrow(max_memory=10_000_000)
    with pytest.raises(lakegate.TooLarge):
        client.sql("q").to_pandas(max_memory=100_000)


def test_where_the_rows_are_known_it_is_foretold(server: Standin, client: lakegate.Client) -> None:
    seen: list[Progress] = []
    server.total_records = ROWS
    with pytest.raises(lakegate.TooLarge, match=r"about .* for 50,000 rows"):
        client.sql("q").to_arrow(max_memory=500_000, progress=seen.append)
    assert seen[-1].rows == 10_000
    assert not seen[-1].finished


def test_an_estimate_is_doubted() -> None:
    for estimated, refused in ((15_000, False), (25_000, True)):
        guard = Guard(100_000, rows=None, estimated_rows=estimated)
        if refused:
            with pytest.raises(lakegate.TooLarge, match="about"):
                guard.add(rows=10_000, bytes=99_000)
        else:
            guard.add(rows=10_000, bytes=99_000)
    with pytest.raises(ValueError, match="more than 0"):
        Guard(0, rows=None, estimated_rows=None)


def test_python_objects_count_in_a_frame_of_numpy_types() -> None:
    decimals = pa.record_batch({"x": pa.array([1, 2], pa.int64()).cast(pa.decimal128(20, 0))})
    assert Sizes().frame(decimals) > 3 * decimals.nbytes
    numbers = pa.record_batch({"x": pa.array([1.0, 2.0])})
    assert Sizes().frame(numbers) == 2 * numbers.nbytes, "what arrived, and what becomes of it"


def test_a_dictionary_that_several_batches_share_counts_once() -> None:
    words = pa.array([f"word {number}" for number in range(1000)])
    batches = [
        pa.record_batch({"x": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), words)}) for _ in range(3)
    ]
    sizes = Sizes()
    assert [sizes.arrow(batch) for batch in batches] == [12 + words.nbytes, 12, 12]
    others = pa.record_batch({"x": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), words.slice(1))})
    assert sizes.arrow(others) > 1000


PREDICTED = """
import sys, threading
import lakegate, pandas
from lakegate import _memory
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024
counted = [0.0]
class Guard(_memory.Guard):
    def add(self, *, rows, bytes):
        counted[0] += bytes
        super().add(rows=rows, bytes=bytes)
lakegate._result.Guard = Guard
with lakegate.connect(sys.argv[1], cache=False) as client, client.sql("q") as result:
    start, most, done = resident(), [0], threading.Event()
    def watch():
        while not done.wait(0.002):
            most[0] = max(most[0], resident() - start)
    watching = threading.Thread(target=watch)
    watching.start()
    frame = result.to_pandas(max_memory=10**12)
    done.set()
    watching.join()
    print(int(counted[0]), max(most[0], resident() - start))
"""


def _numbers(rows: int) -> pa.RecordBatch:
    values = pa.array([number / 7 for number in range(rows)])
    return pa.RecordBatch.from_arrays([values] * 10, names=[f"c{number}" for number in range(10)])


def _embeddings(rows: int) -> pa.RecordBatch:
    values = pa.array([number / 7 for number in range(rows * 64)], pa.float32())
    return pa.record_batch({"e": pa.FixedSizeListArray.from_arrays(values, 64).cast(pa.list_(pa.float32()))})


def _structs(rows: int) -> pa.RecordBatch:
    return pa.record_batch({"s": pa.array([{"a": number, "b": f"text {number}"} for number in range(rows)])})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("made", [_numbers, _embeddings, _structs])
def test_what_a_frame_takes_is_about_what_was_foretold(made: Callable[[int], pa.RecordBatch]) -> None:
    batch = made(8_000)
    with Standin([batch] * 60) as server:
        environment = {**os.environ, "PYTHONPATH": str(Path(lakegate.__file__).resolve().parents[1])}
        command = [sys.executable, "-c", PREDICTED, server.url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    foretold, taken = map(int, done.stdout.split())
    assert taken > 50_000_000, "too little to judge by"
    assert taken / 2 < foretold < taken * 2, f"{foretold} bytes were foretold, and {taken} taken"


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal: 64000 kB\nMemAvailable:   32000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 32_000 * 1024),
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "5"},
            32_768_000,
        ),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000",
                "sys/fs/cgroup/a/memory.current": "900",
                "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 50\n",
            },
            150,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,memory:/docker/x\n2:pids:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000",
            },
            2000,
        ),
    ],
)
def test_memory_that_is_free_is_that_of_the_container(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    write(tmp_path, **MEMINFO, **files)
    assert available_memory(tmp_path) == expected


def test_this_machine_has_memory() -> None:
    free = available_memory()
    assert free is not None
    assert free > 10_000_000


def test_progress_is_told_with_the_time_left(server: Standin, client: lakegate.Client) -> None:
    server.told = told(estimate={"rows": 2 * ROWS})
    seen: list[Progress] = []
    client.sql("q").to_arrow(progress=seen.append)
    assert [progress.rows for progress in seen[:-1]] == list(range(1000, ROWS + 1, 1000))
    assert all(progress.total_rows == 2 * ROWS and progress.seconds_left is not None for progress in seen)
    assert (seen[-1].finished, seen[-1].rows, seen[-1].seconds_left) == (True, ROWS, 0.0)
    half = Progress(rows=50, bytes=2_000_000, total_rows=100, seconds=4.0, finished=False)
    assert str(half) == "50 of 100 rows · 2.0 MB · 500.0 kB/s · 4 s left"
    assert str(Progress(rows=50, bytes=1, total_rows=None, seconds=0.0, finished=False)) == "50 rows · 1 B · 0 B/s"
    assert "2 h 00 min left" in str(Progress(rows=1, bytes=1, total_rows=7201, seconds=1.0, finished=False))


class Terminal(io.StringIO):
    """A terminal's error output."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_written_over_and_a_log_has_few() -> None:
    moment = [0.0]

    def shown(wish: bool | None, stream: io.StringIO, seconds: int) -> str:
        moment[0] = 0.0
        report = Report(wish, total_rows=None, stream=stream, clock=lambda: moment[0])
        for _ in range(seconds * 2):
            moment[0] += 0.5
            report.add(rows=1, bytes=1)
        report.end(finished=True)
        return stream.getvalue()

    line = shown(None, Terminal(), 3)
    assert line.startswith("\r2 rows")
    assert line.endswith("in 3 s\x1b[K\n")
    assert line.count("\n") == 1
    assert shown(None, Terminal(), 0) == "", "what takes no time is not worth a line"
    assert shown(None, io.StringIO(), 30) == shown(False, Terminal(), 30) == "", "nobody reads it, or wants to"
    assert shown(True, io.StringIO(), 30).splitlines()[-1].endswith("in 30 s")
    assert len(shown(True, io.StringIO(), 30).splitlines()) == 4


def test_dictionaries_are_asked_for_and_plain_types_handed_out(server: Standin, client: lakegate.Client) -> None:
    result = client.sql("q")
    assert result.schema.types == [pa.int64(), pa.string()]
    assert result.schema.field("n").nullable is False
    assert next(result.batches()).schema == result.schema
    assert result.to_arrow().schema == result.schema
    frame, categories = result.to_pandas(), result.to_pandas(categories=True)
    assert str(frame["word"].dtype) in ("str", "object")
    assert str(categories["word"].dtype) == "category"
    assert categories["word"].astype(object).dropna().tolist() == frame["word"].dropna().tolist()
    arrow = result.to_pandas(types="arrow", categories=True)
    assert [str(kind) for kind in arrow.dtypes] == ["int64[pyarrow]", "category"]


def test_leaving_early_and_closing_cancel_on_the_server(server: Standin, client: lakegate.Client) -> None:
    server.hang_before = 1
    for _ in client.sql("q").batches():
        break
    assert server.cancelled.wait(30)
    server.cancelled.clear()
    server.hanging.clear()
    result = client.sql("q")
    ended: list[lakegate.Cancelled] = []

    def read() -> None:
        with pytest.raises(lakegate.Cancelled) as raised:
            result.to_arrow()
        ended.append(raised.value)

    reading = threading.Thread(target=read)
    reading.start()
    assert server.hanging.wait(30)
    result.close()
    reading.join(30)
    assert len(ended) == 1
    assert server.cancelled.wait(30)


WAITING = """
import signal, sys, lakegate
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what runs in the background
with lakegate.connect(sys.argv[1], cache=sys.argv[2]) as client:
    try:
        client.sql("q").to_arrow()
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("batch", [0, 1])
def test_ctrl_c_ends_a_download_at_once(server: Standin, tmp_path: Path, batch: int) -> None:
    server.told = told()
    server.hang_before = batch
    environment = {**os.environ, "PYTHONPATH": str(Path(lakegate.__file__).resolve().parents[1])}
    command = [sys.executable, "-c", WAITING, server.url, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert server.hanging.wait(60)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert out == "interrupted\n"
    assert server.cancelled.wait(30)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
