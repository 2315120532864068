"""Rows as tensors with PyTorch itself; skipped where it is not installed (`test_training.py` has a stand-in for it)."""

from __future__ import annotations

import decimal
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

import lakegate
from standin import Standin, told

torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing of torch itself was tested here")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 3_001  # a prime, so that no size of batch and no number of shards divides it

SCHEMA = pa.schema(
    [
        ("n", pa.int64()),
        ("small", pa.uint8()),
        ("unsigned", pa.uint32()),
        ("flag", pa.bool_()),
        ("half", pa.float16()),
        ("single", pa.float32()),
        ("money", pa.decimal128(10, 2)),
        ("embedding", pa.list_(pa.float32(), 4)),
        ("pixels", pa.list_(pa.int16())),
        ("word", pa.dictionary(pa.int32(), pa.string())),
        ("at", pa.timestamp("us", "UTC")),
        ("nested", pa.struct([("a", pa.int32())])),
    ]
)


def rows(start: int, end: int) -> pa.RecordBatch:
    """Return rows whose columns all tell their number; every fifth has nulls where tensors can hold them."""
    n = np.arange(start, end)
    null = n % 5 == 0
    values = pa.array(np.repeat(n, 4).astype("f4"))
    columns = [
        pa.array(n),
        pa.array((n % 256).astype("u1")),
        pa.array(n.astype("u4")),
        pa.array(n % 2 == 0),
        pa.array((n % 2048).astype("f2")),
        pa.array(n.astype("f4"), mask=null),
        pa.array(
            [None if number % 5 == 0 else decimal.Decimal(int(number)) / 4 for number in n], SCHEMA.field("money").type
        ),
        pa.FixedSizeListArray.from_arrays(values, 4),
        pa.array([[number % 100] * 3 for number in n.tolist()], SCHEMA.field("pixels").type),
        pa.array([None if number % 5 == 0 else f"word {number % 7}" for number in n]).dictionary_encode(),
        pa.array(n, SCHEMA.field("at").type),
        pa.array([{"a": number} for number in n.tolist()], SCHEMA.field("nested").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


@pytest.fixture
def server() -> Iterator[Standin]:
    batches = [rows(start, min(start + 500, ROWS)) for start in range(0, ROWS, 500)]
    with Standin(batches, told=told()) as running:
        yield running


@pytest.fixture
def result(server: Standin, tmp_path: Path) -> Iterator[lakegate.Result]:
    with lakegate.connect(server.url, cache=tmp_path / "cache") as client, client.sql("q") as asked:
        yield asked


def loader(dataset: Any, workers: int, context: str | None = None, *, persistent: bool = False) -> Any:
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
    )


def seen(batches: Any) -> list[int]:
    return [number for batch in batches for number in batch["n"].tolist()]


def test_columns_are_tensors_of_their_types_and_the_rest_are_lists(result: lakegate.Result) -> None:
    found = list(loader(result.to_torch(100), workers=0))
    assert seen(found) == list(range(ROWS))
    expected = {
        "n": torch.int64,
        "small": torch.uint8,
        "unsigned": torch.int64,
        "flag": torch.bool,
        "half": torch.float16,
        "single": torch.float32,
        "money": torch.float64,
        "embedding": torch.float32,
        "pixels": torch.int16,
    }
    for batch in found:
        assert {name: values.dtype for name, values in batch.items() if torch.is_tensor(values)} == expected
        n = batch["n"]
        assert batch["embedding"].shape == (len(n), 4)
        assert batch["pixels"].shape == (len(n), 3)
        assert torch.equal(torch.isnan(batch["single"]), n % 5 == 0)
        assert torch.equal(batch["money"].nan_to_num(-1.0), torch.where(n % 5 == 0, -1.0, n / 4).double())
        assert torch.equal(batch["embedding"][:, 3], n.float())
        assert [value["a"] for value in batch["nested"]] == n.tolist()
        assert [value is None for value in batch["word"]] == (n % 5 == 0).tolist()
        batch["n"] += 1  # a tensor may be written to, the file behind it may not


@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, None), (2, "spawn")], ids=["in this process", "workers", "spawned workers"]
)
def test_each_epoch_has_each_row_once_in_an_order_of_its_own(
    result: lakegate.Result, server: Standin, workers: int, context: str | None
) -> None:
    dataset = result.to_torch(64, shuffle=3)
    batches = loader(dataset, workers, context)
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(seen(batches))
        assert sorted(orders[-1]) == list(range(ROWS))
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert server.downloads == 1, "all epochs read the cache"


def test_workers_that_persist_hear_of_the_epoch(result: lakegate.Result) -> None:
    dataset = result.to_torch(64, shuffle=3)
    batches = loader(dataset, 2, persistent=True)
    orders = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        orders.append(seen(batches))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(ROWS))
    assert orders[0] != orders[1]
    again = result.to_torch(64, shuffle=3)
    again.set_epoch(1)
    assert seen(loader(again, 2)) == orders[1]


def test_shards_that_workers_share_out_have_all_rows_and_none_twice(result: lakegate.Result) -> None:
    for workers in (0, 2):
        parts = [seen(loader(result.to_torch(50, shuffle=3, shard=(number, 3)), workers)) for number in range(3)]
        assert sorted(number for part in parts for number in part) == list(range(ROWS))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_worker_drops_a_last_batch_of_its_own(result: lakegate.Result) -> None:
    sizes = [len(batch["n"]) for batch in loader(result.to_torch(100, drop_last=True), 2)]
    assert sizes == [100] * 30  # 1,501 and 1,500 rows
    assert [len(batch["n"]) for batch in loader(result.to_torch(ROWS + 1), 0)] == [ROWS]
    assert list(loader(result.to_torch(ROWS + 1, drop_last=True), 0)) == []


def test_no_rows_are_no_batches(server: Standin, result: lakegate.Result) -> None:
    server.batches = [rows(0, 0)]
    for workers in (0, 2):
        assert list(loader(result.to_torch(10, shuffle=1), workers)) == []


def test_what_a_worker_cannot_make_a_tensor_of_is_named(tmp_path: Path) -> None:
    batch = pa.record_batch({"x": pa.array([1, None], pa.int64())})
    with Standin([batch], told=told()) as server, lakegate.connect(server.url, cache=tmp_path) as client:
        dataset = client.sql("q").to_torch(10)
        for workers in (0, 1):
            with pytest.raises(ValueError, match="column x has nulls"):
                list(loader(dataset, workers))


def test_the_files_of_a_dataset_go_with_it(server: Standin, tmp_path: Path) -> None:
    with lakegate.connect(server.url, cache=False) as client:
        with client.sql("q") as result:
            dataset = result.to_torch(100, spill_folder=tmp_path)
        del result
        gc.collect()
        assert sorted(seen(loader(dataset, 2))) == list(range(ROWS))
        del dataset
        gc.collect()
    assert list(tmp_path.iterdir()) == []
