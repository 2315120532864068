"""Rows for training: exact batches, shuffles, shards, files, tensors; many against a stand-in (tests/standin.py)."""

from __future__ import annotations

import decimal
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakegate
from lakegate import _epochs, _result, _tensors
from lakegate._rows_file import RowsFile, RowsFileWriter
from standin import Standin, numbered, told, word

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 10_007  # a prime, so that no size of batch and no number of shards divides it


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin(numbered(ROWS)) as running:
        yield running


@pytest.fixture
def result(server: Standin) -> Iterator[lakegate.Result]:
    with lakegate.connect(server.url, cache=False) as client, client.sql("q") as asked:
        yield asked


def numbers(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [number for batch in batches for number in batch["n"].to_pylist()]


def test_batches_have_exactly_the_size_that_was_asked_for(result: lakegate.Result, server: Standin) -> None:
    for size in (1, 999, 1000, 1001, 2500, ROWS, ROWS + 1):
        batches = list(result.iter_batches(size))
        assert [batch.num_rows for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert numbers(iter(batches)) == list(range(ROWS))
        assert [text for batch in batches for text in batch["word"].to_pylist()] == [word(n) for n in range(ROWS)]
        dropped = list(result.iter_batches(size, drop_last=True))
        assert dropped == (batches if batches[-1].num_rows == size else batches[:-1])
    assert server.downloads == 1, "later passes read the local disk"


def test_the_first_pass_hands_out_rows_while_they_arrive(server: Standin) -> None:
    server.hang_before = 2
    with lakegate.connect(server.url, cache=False) as client, client.sql("q") as result:
        batches = result.iter_batches(500)
        assert numbers(iter([next(batches), next(batches)])) == list(range(1000))


def test_a_pass_left_early_is_downloaded_again(result: lakegate.Result, server: Standin) -> None:
    for _ in result.iter_batches(10):
        break
    assert numbers(result.iter_batches(1000)) == list(range(ROWS))
    assert server.downloads == 2


@pytest.mark.parametrize("window", [None, 1, 700, 3000])
def test_a_shuffle_has_each_row_once_and_one_order_for_a_seed(result: lakegate.Result, window: int | None) -> None:
    first = numbers(result.iter_batches(64, shuffle=1, shuffle_window=window))
    assert sorted(first) == list(range(ROWS))
    assert first != list(range(ROWS))
    assert numbers(result.iter_batches(1000, shuffle=1, shuffle_window=window)) == first
    assert numbers(result.iter_batches(64, shuffle=2, shuffle_window=window)) != first


def test_a_shuffle_brings_far_rows_together(result: lakegate.Result) -> None:
    order = numbers(result.iter_batches(ROWS, shuffle=3))
    # Of a perfect one, the mean distance of neighbours is a third of the rows.
    assert abs(np.mean(np.abs(np.diff(order))) / ROWS - 1 / 3) < 0.02


def test_the_same_seed_is_the_same_order_in_another_download(server: Standin) -> None:
    def order() -> list[int]:
        with lakegate.connect(server.url, cache=False) as client, client.sql("q") as result:
            return numbers(result.iter_batches(100, shuffle=7))

    assert order() == order()
    assert server.downloads == 2


@pytest.mark.parametrize("shuffle", [None, 5])
def test_shards_have_all_rows_and_none_twice(result: lakegate.Result, shuffle: int | None) -> None:
    whole = numbers(result.iter_batches(100, shuffle=shuffle, shuffle_window=1500))
    for count in (1, 2, 3, 7, 1001, ROWS + 1)[: None if shuffle is None else 4]:
        some = range(count) if count < 10 else (0, 1, count - 1)
        for number in some:
            shard = numbers(result.iter_batches(100, shuffle=shuffle, shard=(number, count), shuffle_window=1500))
            assert shard == whole[number::count]


def test_workers_share_out_a_shard() -> None:
    rows = list(range(100))
    for count, workers in ((1, 3), (4, 3)):
        for number in range(count):
            parts = [_epochs.worker_shard((number, count), worker=worker, workers=workers) for worker in range(workers)]
            taken = [row for part, of in parts for row in rows[part::of]]
            assert sorted(taken) == rows[number::count]


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"shard": (2, 2)}, {"shard": (-1, 2)}, {"shard": (0, 0)}, {"shuffle_window": 0}]
)
def test_arguments_that_make_no_sense_are_refused_before_the_download(
    result: lakegate.Result, server: Standin, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"has to be|write \(i, n\)"):
        result.iter_batches(**{"batch_size": 1, **wrong})
    assert server.downloads == 0


def test_the_file_of_a_result_goes_with_it(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=False) as client:
        with client.sql("q") as result:
            numbers(result.iter_batches(100, shuffle=1, spill_folder=tmp_path))
            assert len(list(tmp_path.iterdir())) == 1
        assert list(tmp_path.iterdir()) == []
        batches = client.sql("q").iter_batches(100, spill_folder=tmp_path)
        kept = next(batches)
        del batches
        assert list(tmp_path.iterdir()) == []
        assert kept["n"].to_pylist() == list(range(100))


def test_rows_with_an_identity_are_trained_on_from_the_cache(server: Standin, tmp_path: Path) -> None:
    server.told = told()
    for _ in range(2):
        with lakegate.connect(server.url, cache=tmp_path) as client:
            assert sorted(numbers(client.sql("q").iter_batches(100, shuffle=1))) == list(range(ROWS))
    assert server.downloads == 1


def test_what_is_too_large_for_the_cache_is_still_downloaded_once(server: Standin, tmp_path: Path) -> None:
    server.told = told()
    with lakegate.connect(server.url, cache=tmp_path, cache_size=1000) as client, client.sql("q") as result:
        for _ in range(2):
            assert numbers(result.iter_batches(100)) == list(range(ROWS))
        assert server.downloads == 1
        assert client.cache.entries() == []
    del result
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_room_on_the_disk_is_said_or_lived_without(server: Standin, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with lakegate.connect(server.url, cache=False) as client:
        assert numbers(client.sql("q").iter_batches(100, spill_folder=missing)) == list(range(ROWS))
        with pytest.raises(OSError, match="missing"):
            next(client.sql("q").iter_batches(100, shuffle=1, spill_folder=missing))


def test_parquet_has_the_rows_in_row_groups(
    result: lakegate.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_result, "ROW_GROUP_ROWS", 2500)
    path = tmp_path / "rows.parquet"
    path.write_text("old")
    assert result.to_parquet(path) == ROWS
    found = pq.ParquetFile(path)
    assert found.num_row_groups == 4
    assert found.read().equals(result.to_arrow())
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_of_no_rows_has_the_columns(server: Standin, tmp_path: Path) -> None:
    server.batches = numbered(0)
    with lakegate.connect(server.url, cache=False) as client:
        assert client.sql("q").to_parquet(tmp_path / "none.parquet") == 0
    assert pq.read_schema(tmp_path / "none.parquet").names == ["n", "word"]


def test_parquet_that_fails_leaves_what_was_there(server: Standin, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_text("old")
    server.fail_before = 3
    with lakegate.connect(server.url, cache=False) as client, pytest.raises(lakegate.LakegateError, match="ends here"):
        client.sql("q").to_parquet(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_columns_become_arrays_of_numbers() -> None:
    batch = pa.record_batch(
        {
            "whole": pa.array([1, -2], pa.int16()),
            "unsigned": pa.array([1, 2**40], pa.uint64()),
            "half": pa.array([1.5, None], pa.float16()),
            "flag": pa.array([True, False]),
            "money": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(10, 2)),
            "fixed": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "list": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int64())),
            "text": pa.array(["a", None]),
        }
    )
    found = _tensors.arrays(batch)
    assert found["text"] == ["a", None]
    expected: dict[str, tuple[str, Any]] = {
        "whole": ("int16", [1, -2]),
        "unsigned": ("int64", [1, 2**40]),
        "half": ("float16", [1.5, np.nan]),
        "flag": ("bool", [True, False]),
        "money": ("float64", [1.25, np.nan]),
        "fixed": ("float32", [[1, 2], [3, 4]]),
        "list": ("int64", [[1, 2, 3], [4, 5, 6]]),
    }
    for name, (kind, values) in expected.items():
        array = found[name]
        assert isinstance(array, np.ndarray)
        assert array.flags.writeable
        assert str(array.dtype) == kind, name
        np.testing.assert_array_equal(array, np.array(values, dtype=kind))
    assert all(len(values) == 1 for values in _tensors.arrays(batch.slice(1)).values() if isinstance(values, list))
    sliced = _tensors.arrays(batch.slice(1))["list"]
    assert isinstance(sliced, np.ndarray)
    assert sliced.tolist() == [[4, 5, 6]]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([1, None]), "column x has nulls"),
        (pa.array([True, None]), "column x has nulls"),
        (pa.array([[1], [1, 2]]), "different lengths"),
        (pa.array([[1], None]), "nulls for lists"),
        (pa.array([[1], [None]], pa.list_(pa.int64())), "nulls in its lists"),
    ],
)
def test_what_makes_no_tensor_is_named(column: pa.Array, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _tensors.arrays(pa.record_batch({"x": column}))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        _tensors.arrays(pa.record_batch([pa.array([1]), pa.array([2])], names=["x", "x"]))


def test_without_torch_it_is_said(result: lakegate.Result, monkeypatch: pytest.MonkeyPatch, server: Standin) -> None:
    monkeypatch.delitem(sys.modules, "lakegate._torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="to_torch needs PyTorch"):
        result.to_torch(10)
    assert server.downloads == 0


class Shared(np.ndarray[Any, Any]):
    """Stands for a tensor in memory that processes share."""

    def share_memory_(self) -> Shared:
        return self


def test_the_dataset_for_torch_with_a_stand_in_for_torch(
    result: lakegate.Result, monkeypatch: pytest.MonkeyPatch, server: Standin
) -> None:
    """With a stand-in for torch, which is large and not everywhere: the dataset's own part alone."""
    torch, data = types.ModuleType("torch"), types.ModuleType("torch.utils.data")
    torch.from_numpy = lambda array: array  # type: ignore[attr-defined]
    torch.zeros = lambda length, dtype: np.zeros(length, dtype).view(Shared)  # type: ignore[attr-defined]
    torch.int64 = np.int64  # type: ignore[attr-defined]
    data.IterableDataset = object  # type: ignore[attr-defined]
    worker: list[Any] = [None]
    data.get_worker_info = lambda: worker[0]  # type: ignore[attr-defined]
    for name, module in (
        ("torch", torch),
        ("torch.utils", types.ModuleType("torch.utils")),
        ("torch.utils.data", data),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "lakegate._torch", raising=False)

    def seen(dataset: Any) -> list[int]:
        return [number for batch in dataset for number in batch["n"].tolist()]

    try:
        plain = result.to_torch(100)
        assert seen(plain) == list(range(ROWS))
        shuffled = result.to_torch(100, shuffle=1, shard=(1, 2))
        whole = seen(shuffled)
        assert whole == numbers(result.iter_batches(100, shuffle=1, shard=(1, 2)))
        shuffled.set_epoch(1)
        assert seen(shuffled) != whole
        shuffled.set_epoch(0)
        sent = pickle.loads(pickle.dumps(shuffled))  # noqa: S301 (our own, as a DataLoader does)
        parts = []
        for number in range(3):
            worker[0] = types.SimpleNamespace(id=number, num_workers=3)
            parts += seen(sent)
        assert sorted(parts) == sorted(whole)
        with pytest.raises(ValueError, match="shuffle_window is 0"):
            result.to_torch(100, shuffle=1, shuffle_window=0)
    finally:
        sys.modules.pop("lakegate._torch", None)
    assert server.downloads == 1


MEASURE = """
import resource, sys
sys.path.insert(0, {source!r})
from pathlib import Path
from lakegate import _epochs
from lakegate._rows_file import RowsFile
unit = 1 if sys.platform == "darwin" else 1024
def anonymous():  # without pages of the file, which the system may drop
    if sys.platform == "linux":
        return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
file = RowsFile(Path({path!r}))
most, start, seen = 0, anonymous(), 0
for batch in _epochs.of_one_size(
    _epochs.shuffled(file, seed="1", shard=(0, 1), window_rows=50_000), size=1000, drop_last=False
):
    seen += batch.num_rows
    most = max(most, anonymous() - start)
print(seen, most)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_a_shuffle_takes_the_memory_of_its_windows(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.list_(pa.float64(), 25))])
    writer = RowsFileWriter(tmp_path, schema)
    values = pa.array(np.arange(10_000 * 25, dtype=float))
    for _ in range(200):  # 400 MB in blocks of 2 MB
        writer.write(pa.record_batch([pa.FixedSizeListArray.from_arrays(values, 25)], schema=schema))
    writer.finish()
    source = str(Path(lakegate.__file__).resolve().parents[1])
    script = MEASURE.format(source=source, path=str(writer.path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seen, most = map(int, done.stdout.split())
    assert seen == 2_000_000
    assert most < 100_000_000, f"{most} bytes for windows of 10 MB out of 400 MB"


LARGER = """
import sys
sys.path.insert(0, {source!r})
import lakegate
from lakegate import _result
_result.ROW_GROUP_BYTES = 16 * 1024**2
def anonymous():  # without pages of the file, which the system may drop
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024
with lakegate.connect({url!r}, cache=False) as client, client.sql("q") as result:
    start = anonymous()
    def passed(batches):
        rows = most = 0
        for number, batch in enumerate(batches):
            rows += batch.num_rows
            if number % 50 == 0:
                most = max(most, anonymous() - start)
        return f"{{rows}} {{most}}"
    print(passed(result.batches()))
    for shuffle in (None, 1, 2):
        print(passed(result.iter_batches(1000, shuffle=shuffle, shuffle_window=50_000, spill_folder={folder!r})))
    print(result.to_parquet({folder!r} + "/rows.parquet"), anonymous() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell anonymous memory apart")
def test_a_result_larger_than_it_may_take_is_gone_through_in_little_memory(tmp_path: Path) -> None:
    values = pa.array(np.arange(10_000 * 25, dtype=float))
    batch = pa.record_batch({"x": pa.FixedSizeListArray.from_arrays(values, 25)})
    with Standin([batch] * 200) as server:  # 400 MB, but not here
        source = str(Path(lakegate.__file__).resolve().parents[1])
        script = LARGER.format(source=source, url=server.url, folder=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert server.downloads == 2, "one by batches(), one for all that follows"
    passes = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(passes) == 5
    for rows, most in passes:
        assert rows == 2_000_000
        assert most < 200_000_000, f"{passes}: bytes for windows of 10 MB out of 400 MB, and what allocators keep"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


SPILLING = """
import sys
import lakegate
with lakegate.connect(sys.argv[1], cache=sys.argv[2]) as client:
    options = {} if sys.argv[3] == "cached" else {"spill_folder": sys.argv[2]}
    for _ in client.sql("q").iter_batches(100, **options):
        pass
"""


@pytest.mark.parametrize("where", ["cached", "spilled"])
def test_what_a_killed_process_was_writing_goes_with_the_next_one(server: Standin, tmp_path: Path, where: str) -> None:
    server.told = told()
    server.hang_before = 5
    environment = {**os.environ, "PYTHONPATH": str(Path(lakegate.__file__).resolve().parents[1])}
    command = [sys.executable, "-c", SPILLING, server.url, str(tmp_path), where]
    with subprocess.Popen(command, env=environment) as process:
        try:
            assert server.hanging.wait(60)
        finally:
            process.kill()
    left = list(tmp_path.rglob("part-*.arrow"))
    assert len(left) == 1
    server.hang_before = None
    options: dict[str, Any] = {} if where == "cached" else {"spill_folder": tmp_path}
    with lakegate.connect(server.url, cache=tmp_path) as client, client.sql("q") as result:
        assert numbers(result.iter_batches(100, **options)) == list(range(ROWS))
        assert not left[0].exists()
    assert list(tmp_path.rglob("part-*.arrow")) == []


def test_a_kept_file_that_is_damaged_is_fetched_again(server: Standin, tmp_path: Path) -> None:
    server.told = told()
    for damaged in range(3):
        with lakegate.connect(server.url, cache=tmp_path) as client, client.sql("q") as result:
            assert sorted(numbers(result.iter_batches(100, shuffle=1))) == list(range(ROWS))
        assert server.downloads == damaged + 1
        (kept,) = tmp_path.rglob(f"{told()['identity']}*.arrow")
        data = bytearray(kept.read_bytes())
        data[len(data) // 2] ^= 1
        kept.write_bytes(data if damaged == 0 else data[:-100])


def test_a_file_is_not_removed_by_a_forked_process(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system: nothing to test")
    writer = RowsFileWriter(tmp_path, pa.schema([("n", pa.int64())]))
    writer.finish()
    script = (
        "import os, sys; from pathlib import Path; from lakegate._rows_file import RowsFile\n"
        "file = RowsFile(Path(sys.argv[1]), remove=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n    del file\n    os._exit(0)\n"
        "os.waitpid(child, 0); print(os.path.exists(sys.argv[1])); del file; print(os.path.exists(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lakegate.__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(writer.path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_what_is_held_outlasts_the_name_it_had(tmp_path: Path) -> None:
    writer = RowsFileWriter(tmp_path, pa.schema([("n", pa.int64())]))
    writer.write(pa.record_batch({"n": pa.array([1, 2])}))
    writer.finish()
    held = RowsFile(writer.path).held()
    writer.path.unlink()  # as one does who makes room
    assert RowsFile(*held.paths).rows == 2
    del held
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_no_rows_can_be_shuffled(tmp_path: Path) -> None:
    writer = RowsFileWriter(tmp_path, pa.schema([("n", pa.int64())]))
    writer.finish()
    assert list(_epochs.shuffled(RowsFile(writer.path), seed="1", shard=(0, 1), window_rows=None)) == []
